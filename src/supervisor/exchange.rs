//! One socket in place of another, in all that the caller has of it: every descriptor, and what waits for its events.
//!
//! The socket may have been duplicated or put into an epoll instance before it was connected. A copy that another process
//! holds stays what it was: no call puts a descriptor into a task that has not stopped.
//!
//! Looking through a table of a thousand descriptors takes longer than a connect, so it is done only where there is something
//! to find. Whether anybody else holds the socket shows once it is let go of here; and epoll instances stop when they are
//! made, so that those of a process are known.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Mutex;
use std::time::Duration;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::notification::{Reply, Stopped};
use super::target::{Target, flags_in};
use super::workers::Shared;
use super::{Context, Handled, lock};
use crate::sys::file::{self, OwnTable};
use crate::sys::process;
use crate::syscalls::Arg;

/// A socket of the caller's, in whose place another is to be put.
pub struct Place {
    /// The caller's process on the host.
    pub process: i32,
    /// The descriptor that the caller named.
    pub number: i32,
    /// A copy of it.
    pub socket: OwnedFd,
}

/// Puts `new` in the place of what the caller of `stopped` has.
pub fn exchange(shared: &Shared, stopped: &Stopped<'_>, place: Place, new: &OwnedFd) -> Result<(), Errno> {
    let Place { process, number, socket } = place;
    let target = stopped.target;
    let inode = file::fstatat(socket.as_raw_fd(), c"", libc::AT_EMPTY_PATH)?.st_ino;
    let others = Others::of(&socket)?;
    let named = Named::read(target, number);
    if named.inode.is_none_or(|found| found == inode) {
        for watch in shared.epolls.watches(target, process, number, &socket) {
            // A program that no longer hears of its socket would hang: it is told that its connect failed.
            watch.move_to(target, &socket, new)?;
        }
        stopped.replace(number, new, named.close_on_exec)?;
    }
    drop(socket);
    if others.are_there() {
        exchange_duplicates(shared, stopped, process, inode, new)?;
    }
    if others.stay() {
        shared.gate.note(format!(
            "a socket that process {process} connected is held elsewhere, too: the descriptor there stays unconnected"
        ));
    }
    Ok(())
}

/// Does the same for all that is left of the socket in the caller's table.
fn exchange_duplicates(
    shared: &Shared,
    stopped: &Stopped<'_>,
    process: i32,
    inode: u64,
    new: &OwnedFd,
) -> Result<(), Errno> {
    let target = stopped.target;
    for number in descriptors(target, format!("socket:[{inode}]").as_bytes())? {
        let Ok(old) = target.copy_descriptor(number) else { continue };
        for watch in shared.epolls.watches(target, process, number, &old) {
            watch.move_to(target, &old, new)?;
        }
        stopped.replace(number, new, Named::read(target, number).close_on_exec)?;
    }
    Ok(())
}

/// `epoll_create`: made by the worker, so that its number is known before anything can be put in.
pub fn epoll(context: &Context<'_>) -> Handled {
    let flags = match context.call.has(Arg::Size) {
        true if context.call.int(Arg::Size) <= 0 => return Err(super::Stop::Errno(Errno::EINVAL)),
        true => EpollCreateFlags::empty(),
        false => EpollCreateFlags::from_bits_retain(context.call.int(Arg::EpollFlags)),
    };
    let made = Epoll::new(flags.union(EpollCreateFlags::EPOLL_CLOEXEC)).map_err(super::Stop::Errno)?;
    let close_on_exec = flags.contains(EpollCreateFlags::EPOLL_CLOEXEC);
    match context.call.stopped.hand_over(&made.0, close_on_exec) {
        Ok(Some(number)) => context.shared.epolls.add(context.task.subject.host, number),
        Ok(None) => {}
        Err(errno) => drop(context.call.stopped.answer(Reply::Errno(errno))),
    }
    Ok(())
}

/// Tells whether a socket that was let go of is still held by somebody: an epoll instance forgets a file with its last
/// descriptor, and a socket that is not connected has always something to tell.
struct Others(Epoll);

impl Others {
    fn of(socket: &OwnedFd) -> Result<Self, Errno> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(socket, EpollEvent::new(EpollFlags::EPOLLOUT, 0))?;
        Ok(Self(epoll))
    }

    /// Whether it is more than a call that is just being carried out.
    fn stay(&self) -> bool {
        const CALL: Duration = Duration::from_millis(1);
        self.are_there() && {
            std::thread::sleep(CALL);
            self.are_there()
        }
    }

    fn are_there(&self) -> bool {
        self.0.wait(&mut [EpollEvent::empty()], EpollTimeout::ZERO).is_ok_and(|events| events > 0)
    }
}

/// What `/proc` tells of a descriptor; nothing, if the caller hides it (`PR_SET_DUMPABLE`).
struct Named {
    close_on_exec: bool,
    inode: Option<u64>,
}

impl Named {
    fn read(target: Target, number: i32) -> Self {
        let info = target.text(&format!("fdinfo/{number}"));
        let inode = info.lines().find_map(|line| line.strip_prefix("ino:")?.trim().parse().ok());
        let close_on_exec = flags_in(&info).is_some_and(|flags| flags & libc::O_CLOEXEC != 0);
        Self { close_on_exec, inode }
    }
}

/// The task's descriptors whose link reads `wanted`.
fn descriptors(target: Target, wanted: &[u8]) -> Result<Vec<i32>, Errno> {
    let flags = libc::O_RDONLY | libc::O_DIRECTORY;
    let mut table = Dir::from_fd(file::openat(target.proc, &target.entry("fd"), flags, 0)?)?;
    let names: Vec<_> = table.iter().flatten().map(|entry| entry.file_name().to_owned()).collect();
    let mut link = [0u8; 64];
    let mut leads = |name: &std::ffi::CStr| {
        file::readlinkat(table.as_raw_fd(), name, &mut link).is_ok_and(|length| &link[..length] == wanted)
    };
    let names = names.into_iter().filter(|name| leads(name));
    Ok(names.filter_map(|name| name.to_str().ok()?.parse().ok()).collect())
}

/// The epoll instances of each process that connects sockets, by their descriptors.
#[derive(Default)]
pub struct Epolls {
    known: Mutex<HashMap<i32, HashSet<i32>>>,
}

/// More processes than this are not kept in mind; each is looked through again when it matters.
const MANY: usize = 1024;

impl Epolls {
    /// Adds an instance that a process has made. What it may have from before is found when it first matters.
    fn add(&self, process: i32, number: i32) {
        if let Some(known) = lock(&self.known).get_mut(&process) {
            known.insert(number);
        }
    }

    /// The entries for `socket`, which the task knows as `number`, in all epoll instances of its process.
    fn watches(&self, target: Target, process: i32, number: i32, socket: &OwnedFd) -> Vec<Watch> {
        let known = lock(&self.known).get(&process).cloned();
        let instances = known.unwrap_or_else(|| self.look_through(target, process));
        let mut found = Vec::new();
        for epoll in instances {
            match process::is_in_epoll(socket.as_fd(), target.tid, epoll, number) {
                Ok(false) => {}
                // Where that cannot be told (`kcmp` is not in every kernel) the entries themselves say it.
                Ok(true) | Err(_) => found.extend(Watch::find(target, epoll, number, socket)),
            }
        }
        found
    }

    /// The instance is put on the list before the process has it, so a look that comes too early misses none.
    fn look_through(&self, target: Target, process: i32) -> HashSet<i32> {
        {
            let mut known = lock(&self.known);
            if known.len() >= MANY {
                known.clear();
            }
            known.entry(process).or_default();
        }
        let found = descriptors(target, b"anon_inode:[eventpoll]").unwrap_or_default();
        let mut known = lock(&self.known);
        let instances = known.entry(process).or_default();
        instances.extend(found);
        instances.clone()
    }
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

impl Watch {
    /// The entry for a socket under this number, if there is one.
    fn find(target: Target, epoll: i32, number: i32, socket: &OwnedFd) -> Option<Self> {
        let inode = file::fstatat(socket.as_raw_fd(), c"", libc::AT_EMPTY_PATH).ok()?.st_ino;
        let info = target.text(&format!("fdinfo/{epoll}"));
        info.lines().filter_map(|line| Self::parse(epoll, line, inode)).find(|watch| watch.number == number)
    }

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
