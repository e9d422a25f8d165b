//! One socket in place of another, in all that the caller has of it: every descriptor, and what waits for its events.
//!
//! The caller's table is looked through, as the socket may have been duplicated or put into an epoll instance before it was
//! connected. A copy that another process holds stays what it was: no call puts a descriptor into a task that has not
//! stopped.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};

use super::notification::Stopped;
use super::target::{Target, flags_in};
use crate::sys::file::{self, OwnTable};

/// Puts `new` in the place of `old`, which the caller of `stopped` knows as descriptor `number`.
pub fn exchange(stopped: &Stopped<'_>, number: i32, old: &OwnedFd, new: &OwnedFd) -> Result<(), Errno> {
    let inode = file::fstatat(old.as_raw_fd(), c"", libc::AT_EMPTY_PATH)?.st_ino;
    let Ok(held) = Held::find(stopped.target, inode) else {
        // The caller hides its table (`PR_SET_DUMPABLE`): the descriptor it named is all there is to go by.
        return stopped.replace(number, new, false);
    };
    for (number, close_on_exec) in held.descriptors {
        stopped.replace(number, new, close_on_exec)?;
    }
    for watch in held.watches {
        // A program that no longer hears of its socket would hang: it is told that its connect failed.
        watch.move_to(stopped.target, old, new)?;
    }
    Ok(())
}

/// What a task has of a socket.
#[derive(Debug, Default)]
struct Held {
    /// Descriptors, and whether an exec closes each.
    descriptors: Vec<(i32, bool)>,
    watches: Vec<Watch>,
}

/// An entry of an epoll instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Watch {
    /// The instance's descriptor.
    epoll: i32,
    /// The descriptor by which the socket was added.
    number: i32,
    events: u32,
    data: u64,
}

impl Held {
    /// Looks through the table of `target` for the socket with this inode number.
    fn find(target: Target, inode: u64) -> Result<Self, Errno> {
        let flags = libc::O_RDONLY | libc::O_DIRECTORY;
        let mut table = Dir::from_fd(file::openat(target.proc, &target.entry("fd"), flags, 0)?)?;
        let names: Vec<_> = table.iter().flatten().map(|entry| entry.file_name().to_owned()).collect();
        let socket = format!("socket:[{inode}]");
        let mut held = Self::default();
        let mut link = [0u8; 64];
        for name in names {
            let Some(number) = name.to_str().ok().and_then(|name| name.parse::<i32>().ok()) else { continue };
            let Ok(length) = file::readlinkat(table.as_raw_fd(), &name, &mut link) else { continue };
            let link = &link[..length];
            if link == socket.as_bytes() {
                let info = target.text(&format!("fdinfo/{number}"));
                let close_on_exec = flags_in(&info).is_some_and(|flags| flags & libc::O_CLOEXEC != 0);
                held.descriptors.push((number, close_on_exec));
            } else if link == b"anon_inode:[eventpoll]" {
                let info = target.text(&format!("fdinfo/{number}"));
                held.watches.extend(info.lines().filter_map(|line| Watch::parse(number, line, inode)));
            }
        }
        Ok(held)
    }
}

impl Watch {
    /// Reads `tfd:  5 events:  19 data:  5  pos:0 ino:1234 sdev:8` (proc(5), fdinfo), if it is about the inode.
    fn parse(epoll: i32, line: &str, inode: u64) -> Option<Self> {
        let value = |key: &str| line.split_once(key)?.1.split_whitespace().next();
        let hexadecimal = |key| u64::from_str_radix(value(key)?, 16).ok();
        if hexadecimal("ino:")? != inode {
            return None;
        }
        let number = value("tfd:")?.parse().ok()?;
        Some(Self { epoll, number, events: hexadecimal("events:")? as u32, data: hexadecimal("data:")? })
    }

    /// Takes `old` out of the instance and puts `new` in.
    ///
    /// An entry is known by file and number, so both must stand under the caller's number here, too: in a thread with a
    /// table of its own.
    fn move_to(self, target: Target, old: &OwnedFd, new: &OwnedFd) -> Result<(), Errno> {
        let moved = std::thread::scope(|scope| {
            let act = || self.exchange_in(&OwnTable::take()?, target, old, new);
            std::thread::Builder::new().spawn_scoped(scope, act).map(|thread| thread.join())
        });
        match moved {
            Ok(Ok(done)) => done,
            _ => Err(Errno::EAGAIN),
        }
    }

    fn exchange_in(self, table: &OwnTable, target: Target, old: &OwnedFd, new: &OwnedFd) -> Result<(), Errno> {
        // What is needed moves out of the way of the number that is put to use.
        let above = |file: &OwnedFd| table.above(file.as_fd(), self.number);
        let (old, new) = (above(old)?, above(new)?);
        let epoll = Epoll(above(&target.copy_descriptor(self.epoll)?)?);
        match epoll.delete(table.at(old.as_fd(), self.number)?) {
            // Another thread was faster.
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno),
        }
        let event = EpollEvent::new(EpollFlags::from_bits_retain(self.events as i32), self.data);
        epoll.add(table.at(new.as_fd(), self.number)?, event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_of_an_epoll_instance_is_read_as_proc_writes_it() {
        let line = "tfd:        5 events: 80000019 data:         7f0000000005  pos:0 ino:4d2 sdev:8";
        let watch = Watch { epoll: 3, number: 5, events: 0x8000_0019, data: 0x7f00_0000_0005 };
        assert_eq!(Watch::parse(3, line, 0x4d2), Some(watch));
        assert_eq!(Watch::parse(3, line, 0x4d3), None);
        assert_eq!(Watch::parse(3, "flags:\t02", 0x4d2), None);
    }
}
