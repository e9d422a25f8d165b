//! Who a task is: its process, program and ancestors inside the box.
//!
//! Read from the host's `/proc` and kept for a moment, because one process makes many calls. Process numbers come back
//! to use only after all others have been used, which takes far longer than an entry is kept.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::target::Target;
use crate::event::{Subject, escape_bytes};

/// How long an entry is believed.
const KEPT: Duration = Duration::from_millis(250);
/// More entries than this are swept of old ones.
const MANY: usize = 1024;

/// A task as the box and the host know it.
#[derive(Debug, Clone)]
pub struct Task {
    /// The process, for events.
    pub subject: Arc<Subject>,
    /// The task's own number inside the box.
    pub box_tid: i32,
}

struct Entry {
    task: Task,
    parent: i32,
    read: Instant,
}

/// The tasks seen lately.
pub struct Lineage {
    /// init's number on the host: where ancestry ends.
    init: i32,
    entries: Mutex<HashMap<i32, Entry>>,
}

impl Lineage {
    /// Starts with nobody.
    pub fn new(init: i32) -> Self {
        Self { init, entries: Mutex::new(HashMap::new()) }
    }

    /// Who `target` is. A task that vanishes while it is looked at has number 0.
    pub fn task(&self, target: Target, now: Instant) -> Task {
        self.lookup(target, now, 0).0
    }

    /// Forgets a process whose program has changed.
    pub fn forget(&self, tid: i32) {
        self.lock().remove(&tid);
    }

    fn lookup(&self, target: Target, now: Instant, depth: usize) -> (Task, i32) {
        let tid = target.tid;
        if let Some(entry) = self.lock().get(&tid)
            && now.saturating_duration_since(entry.read) < KEPT
        {
            return (entry.task.clone(), entry.parent);
        }
        let status = Status::read(target);
        let parents = self.parents(target, &status, now, depth);
        let exe = target.link("exe").map(|path| escape_bytes(&path)).unwrap_or_default();
        let subject = Subject { pid: status.box_tgid, host: status.tgid, exe, parents };
        let task = Task { subject: Arc::new(subject), box_tid: status.box_tid };
        let mut entries = self.lock();
        if entries.len() > MANY {
            entries.retain(|_, entry| now.saturating_duration_since(entry.read) < KEPT);
        }
        entries.insert(tid, Entry { task: task.clone(), parent: status.parent, read: now });
        (task, status.parent)
    }

    fn parents(&self, child: Target, status: &Status, now: Instant, depth: usize) -> Vec<i32> {
        const DEEPEST: usize = 64;
        if status.parent <= 0 || status.tgid == self.init || depth > DEEPEST {
            return Vec::new();
        }
        let (parent, _) = self.lookup(Target { tid: status.parent, ..child }, now, depth + 1);
        let mut parents = vec![parent.subject.pid];
        parents.extend(&parent.subject.parents);
        parents
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<i32, Entry>> {
        // A panic elsewhere cannot leave the map half-written: each use is one call.
        self.entries.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// What `/proc/PID/status` says; zeroes for a task that is gone.
#[derive(Debug, Default)]
pub struct Status {
    tgid: i32,
    parent: i32,
    box_tgid: i32,
    box_tid: i32,
    /// File mode creation mask.
    pub umask: u32,
    /// Whether a signal waits that the task would handle.
    pub interrupted: bool,
}

impl Status {
    /// Reads a task's status.
    pub fn read(target: Target) -> Self {
        Self::parse(&target.text("status"))
    }

    fn parse(text: &str) -> Self {
        let mut status = Self::default();
        let number = |value: &str| value.trim().parse().unwrap_or(0);
        // The innermost namespace stands last.
        let last = |value: &str| value.split_whitespace().last().map_or(0, number);
        let mask = |value: &str| u64::from_str_radix(value.trim(), 16).unwrap_or(0);
        let (mut pending, mut blocked) = (0, 0);
        for line in text.lines() {
            let Some((key, value)) = line.split_once(':') else { continue };
            match key {
                "Umask" => status.umask = u32::from_str_radix(value.trim(), 8).unwrap_or(0o022),
                "Tgid" => status.tgid = number(value),
                "PPid" => status.parent = number(value),
                "NStgid" => status.box_tgid = last(value),
                "NSpid" => status.box_tid = last(value),
                "SigPnd" | "ShdPnd" => pending |= mask(value),
                "SigBlk" => blocked = mask(value),
                "SigCgt" => {
                    status.interrupted = pending & !blocked & mask(value) != 0;
                    break;
                }
                _ => {}
            }
        }
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_gives_numbers_of_the_innermost_namespace() {
        let text = "Name:\tsh\nUmask:\t0027\nState:\tS\nTgid:\t812\nNgid:\t0\nPid:\t813\nPPid:\t800\nNStgid:\t812\t5\nNSpid:\t813\t6\n";
        let status = Status::parse(text);
        assert_eq!((status.tgid, status.parent, status.box_tgid, status.box_tid), (812, 800, 5, 6));
        assert_eq!(status.umask, 0o027);
        let signals = |text: &str| Status::parse(text).interrupted;
        assert!(signals("SigPnd:\t2000\nShdPnd:\t0\nSigBlk:\t0\nSigCgt:\t2000\n"));
        assert!(signals("SigPnd:\t0\nShdPnd:\t2000\nSigBlk:\t1\nSigCgt:\t2000\n"));
        assert!(!signals("SigPnd:\t2000\nShdPnd:\t0\nSigBlk:\t2000\nSigCgt:\t2000\n"));
        assert!(!signals("SigPnd:\t2000\nShdPnd:\t0\nSigBlk:\t0\nSigCgt:\t0\n"));
    }
}
