//! The mounts that make up the box's view: what was reached through one of them lies in the view, whatever path leads
//! there now.
//!
//! Read once by the first worker. The view's mounts never change while the box runs, and a mount's number belongs to
//! nothing else while it lives.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::errno::Errno;

use crate::sys::file;

/// The view's mounts, by their numbers.
#[derive(Debug)]
pub struct View {
    mounts: HashSet<u64>,
}

impl View {
    /// Reads the mounts that the calling thread sees. `proc` is the host's `/proc`; the thread's process sees others.
    pub fn of_this_thread(proc: RawFd) -> Result<Self, Errno> {
        let mut text = Vec::new();
        let mut mountinfo = File::from(file::openat(proc, c"thread-self/mountinfo", libc::O_RDONLY, 0)?);
        // To the very end: this file gives whole lines only, and so less than there is room for.
        mountinfo.read_to_end(&mut text).map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
        Ok(Self::parse(&text))
    }

    /// The first field of each line is the mount's number: proc_pid_mountinfo(5).
    fn parse(mountinfo: &[u8]) -> Self {
        let number = |line: &[u8]| std::str::from_utf8(line.split(|byte| *byte == b' ').next()?).ok()?.parse().ok();
        Self { mounts: mountinfo.split(|byte| *byte == b'\n').filter_map(number).collect() }
    }

    /// Whether an object was reached through the view; if that cannot be told, it was not.
    pub fn holds(&self, object: &OwnedFd) -> bool {
        file::mount_id(object.as_raw_fd()).is_ok_and(|id| self.mounts.contains(&id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_holds_what_was_reached_through_its_mounts() {
        let proc = file::openat(libc::AT_FDCWD, c"/proc", libc::O_PATH, 0).unwrap();
        let view = View::of_this_thread(proc.as_raw_fd()).unwrap();
        assert!(view.holds(&proc));
        // What is mounted nowhere.
        let (pipe, _) = nix::unistd::pipe().unwrap();
        assert!(!view.holds(&pipe));
    }

    #[test]
    fn mounts_are_known_by_the_first_number_of_a_line() {
        let text = b"36 35 98:0 /mnt1 /mnt2 rw - ext3 /dev/root rw\n2147 36 0:5 / /a\\040b rw - tmpfs none rw\n";
        assert_eq!(View::parse(text).mounts, HashSet::from([36, 2147]));
    }
}
