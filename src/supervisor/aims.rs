//! What each process is evidently about to remove: the directory that it works its way through, counted once.
//!
//! Asked before each removal; the answer is remembered for the process until it goes on elsewhere. A process that shows no
//! such directory is looked at again after twice as many removals.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::bound::{Limits, aimed_at, count};
use super::resolve::Resolved;
use super::{Context, lock};
use crate::event::{Bound, GitState};

/// More processes than this are not remembered.
const PROCESSES: usize = 1024;

/// What is remembered of each process, by its number on the host.
#[derive(Default)]
pub struct Aims {
    known: Mutex<HashMap<i32, Aim>>,
}

#[derive(Default)]
struct Aim {
    bound: Option<Arc<Bound>>,
    /// How many removals it did not speak of.
    others: u32,
}

impl Aims {
    /// Forgets a process that has begun another program.
    pub fn forget(&self, process: i32) {
        lock(&self.known).remove(&process);
    }

    /// What was counted for a process, if it covers `path`; `Err` if it is time to look.
    fn known(&self, process: i32, path: &Path) -> Result<Option<Arc<Bound>>, ()> {
        let mut known = lock(&self.known);
        if known.len() >= PROCESSES {
            known.clear();
        }
        let aim = known.entry(process).or_default();
        if let Some(bound) = aim.bound.as_ref().filter(|bound| path.starts_with(bound.root.as_path())) {
            return Ok(Some(Arc::clone(bound)));
        }
        aim.others += 1;
        if aim.others.is_power_of_two() { Err(()) } else { Ok(None) }
    }

    fn remember(&self, process: i32, bound: &Arc<Bound>) {
        lock(&self.known).entry(process).or_default().bound = Some(Arc::clone(bound));
    }
}

/// What would be gone if the caller, which is about to remove a name, went on as its arguments and descriptors say.
pub fn bound(context: &Context<'_>, found: &Resolved) -> Option<Arc<Bound>> {
    let (aims, process) = (&context.shared.aims, context.task.subject.host);
    let path = found.path.as_path();
    if let Ok(known) = aims.known(process, path) {
        return known;
    }
    let (directory, root) = aimed_at(context.call.stopped.target, path)?;
    // To count may take a while, and others need not wait for it.
    context.may_wait();
    let held = |directory: BorrowedFd<'_>, path: &Path, stat: &libc::stat, now: Instant| {
        let shared = context.shared;
        let is_held = stat.st_size == 0 || stat.st_nlink > 1 || shared.made.is_held((stat.st_dev, stat.st_ino));
        is_held || {
            let git = shared.trees.state(directory, path, stat, now);
            git == Some(GitState::Clean) || shared.gate.can_be_made_again(path, git)
        }
    };
    let bound = Arc::new(count(directory.as_fd(), root, &held, Limits::default()));
    aims.remember(process, &bound);
    Some(bound)
}
