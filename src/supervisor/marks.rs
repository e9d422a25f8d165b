//! Marks: which action a process belongs to, kept by the kernel where no process of the box can change it.
//!
//! A process inherits its resource limits, whoever its parent becomes: over double forks, new sessions and execs. The limit
//! on file locks (`RLIMIT_LOCKS`) has meant nothing since Linux 2.4.25, so its value serves as the mark: each action has
//! the one that lies its number below the limit that the box started with. It is set from outside at the first exec of the
//! action, before the new program runs (prlimit(2)); the filter refuses whoever would set it inside. So no fork needs to
//! stop, and an orphan keeps its action.

use nix::errno::Errno;
use nix::sys::resource::Resource;

use crate::event::ActionId;
use crate::sys::process;

/// What every process of a box starts with.
#[derive(Debug, Clone, Copy)]
pub struct Marks {
    none: u64,
}

impl Marks {
    /// The marks of a box that inherits this process's limits.
    pub fn new() -> Self {
        Self { none: process::limit(0, Resource::RLIMIT_LOCKS).unwrap_or(0) }
    }

    /// Whether there is room below the limit for the numbers of actions. Somebody may have set the limit by hand.
    pub fn work(self) -> bool {
        self.none > u64::from(u32::MAX)
    }

    /// The action that a process is marked with; the session if it has no mark, or is gone.
    pub fn of(self, process: i32) -> ActionId {
        let below = process::limit(process, Resource::RLIMIT_LOCKS).ok().and_then(|limit| self.none.checked_sub(limit));
        below.and_then(|below| u32::try_from(below).ok()).map_or(ActionId::SESSION, ActionId::new)
    }

    /// Marks a process. Its number can only grow: a limit that was lowered cannot be raised.
    pub fn set(self, process: i32, action: ActionId) -> Result<(), Errno> {
        if !self.work() {
            return Err(Errno::ENOSPC);
        }
        process::set_limit(process, Resource::RLIMIT_LOCKS, self.none - u64::from(action.number()))
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_mark_goes_to_children_and_orphans_and_not_to_others() {
        let marks = Marks::new();
        assert!(marks.work(), "the limit on file locks is set here");
        let child = |script: &str| {
            Command::new("sh").args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
        };
        // Waits to be marked, then leaves a process of a session of its own behind.
        let mut marked = child("read x; (setsid sh -c 'sleep 60 >&- 2>&- & echo $!' &)");
        let mut other = child("read x");
        let id = |child: &std::process::Child| child.id() as i32;
        assert_eq!(marks.of(id(&marked)), ActionId::SESSION);
        marks.set(id(&marked), ActionId::new(7)).unwrap();
        drop(marked.stdin.take());
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(marked.stdout.take().unwrap()), &mut line).unwrap();
        let orphan: i32 = line.trim().parse().unwrap();
        marked.wait().unwrap();
        assert_eq!((marks.of(orphan), marks.of(id(&other))), (ActionId::new(7), ActionId::SESSION));
        marks.set(orphan, ActionId::new(9)).unwrap();
        assert_eq!(marks.of(orphan), ActionId::new(9));
        if !nix::unistd::geteuid().is_root() {
            assert_eq!(marks.set(orphan, ActionId::new(8)), Err(Errno::EPERM));
        }
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(orphan), nix::sys::signal::Signal::SIGKILL).unwrap();
        drop(other.stdin.take());
        other.wait().unwrap();
        assert_eq!(marks.of(orphan.max(1 << 21)), ActionId::SESSION, "nobody has no mark");
    }
}
