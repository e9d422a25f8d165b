//! The mounts that make up the box's view: what was reached through one of them lies in the view, whatever path leads
//! there now.
//!
//! Read by a worker when it first matters. The view's mounts never change while the box runs, and a mount's number
//! belongs to nothing else while it lives.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;

use nix::errno::Errno;

use crate::sys::file;

/// The view's mounts, by their numbers.
#[derive(Debug)]
pub struct View {
    /// The host's `/proc`.
    proc: RawFd,
    mounts: OnceLock<HashSet<u64>>,
}

impl View {
    /// The view of the threads that will ask; `proc` is the host's `/proc`.
    pub fn new(proc: RawFd) -> Self {
        Self { proc, mounts: OnceLock::new() }
    }

    /// Whether an object was reached through the view; if that cannot be told, it was not. Asked by a thread in the view.
    pub fn holds(&self, object: &OwnedFd) -> bool {
        let mounts = self.mounts.get_or_init(|| self.read().unwrap_or_default());
        file::mount_id(object.as_raw_fd()).is_ok_and(|id| mounts.contains(&id))
    }

    /// Reads the mounts that the calling thread sees; those of its process may be others.
    fn read(&self) -> Result<HashSet<u64>, Errno> {
        let mut text = Vec::new();
        let mut mountinfo = File::from(file::openat(self.proc, c"thread-self/mountinfo", libc::O_RDONLY, 0)?);
        // To the very end: this file gives whole lines only, and so less than there is room for.
        mountinfo.read_to_end(&mut text).map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
        Ok(parse(&text))
    }
}

/// The first field of each line is the mount's number: proc_pid_mountinfo(5).
fn parse(mountinfo: &[u8]) -> HashSet<u64> {
    let number = |line: &[u8]| std::str::from_utf8(line.split(|byte| *byte == b' ').next()?).ok()?.parse().ok();
    mountinfo.split(|byte| *byte == b'\n').filter_map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_holds_what_was_reached_through_its_mounts() {
        let proc = file::openat(libc::AT_FDCWD, c"/proc", libc::O_PATH, 0).unwrap();
        let view = View::new(proc.as_raw_fd());
        assert!(view.holds(&proc));
        // What is mounted nowhere.
        let (pipe, _) = nix::unistd::pipe().unwrap();
        assert!(!view.holds(&pipe));
    }

    #[test]
    fn mounts_are_known_by_the_first_number_of_a_line() {
        let text = b"36 35 98:0 /mnt1 /mnt2 rw - ext3 /dev/root rw\n2147 36 0:5 / /a\\040b rw - tmpfs none rw\n";
        assert_eq!(parse(text), HashSet::from([36, 2147]));
    }
}
