//! Handlers of calls on files: judged on a directory that is held open and a name in it, then carried out on these.
//!
//! Each handler reads its arguments once, resolves, judges through the gate, acts with the `*at` form of the call, and
//! answers with exactly what the kernel said. A name that turned into a symbolic link since it was looked at gives
//! `ELOOP`, and the whole is done again.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::resource::Resource;
use nix::sys::signal::Signal;

use super::notification::Reply;
use super::resolve::{
    Last, Resolved, Spot, Unresolved, as_asked, descriptor, last_component, opened_descriptor, own_fd, resolve,
};
use super::{Context, Handled, Stop, aims};
use crate::event::{Access, Before, FileOp, MoveOp, Place, Standing, Stream, Unjudged, escape_bytes};
use crate::sys::{self, file};
use crate::syscalls::Arg;

/// How often a call is tried again when names change under it.
pub(super) const TRIES: usize = 16;

/// Takes over the caller's file mode creation mask: this thread's is its own.
pub(super) fn take_umask(context: &Context<'_>) {
    let mask = context.shared.lineage.umask(context.call.stopped.target);
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(mask));
}

/// Whether a file of this mode would run with its owner's rights. Inside such bits have no effect; but the file stays
/// behind, and outside it would lend out the user's rights, or root's.
pub(super) fn lends_rights(mode: u32) -> bool {
    mode & (libc::S_ISUID | libc::S_ISGID) != 0
}

fn is_directory(object: &OwnedFd) -> bool {
    file::fstatat(object.as_raw_fd(), c"", libc::AT_EMPTY_PATH)
        .is_ok_and(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFDIR)
}

/// `unlink`, `rmdir`, `unlinkat`.
pub fn unlink(context: &Context<'_>) -> Handled {
    let flags = context.call.at_flags();
    if flags & !libc::AT_REMOVEDIR != 0 {
        return Err(Stop::Errno(Errno::EINVAL));
    }
    let op = if flags & libc::AT_REMOVEDIR != 0 { FileOp::Rmdir } else { FileOp::Unlink };
    change_name(context, op, |parent, name| file::unlinkat(parent.as_raw_fd(), name, flags))
}

/// `mkdir`, `mkdirat`.
pub fn mkdir(context: &Context<'_>) -> Handled {
    let mode = context.call.word(Arg::Mode) as u32 & 0o7777;
    change_name(context, FileOp::Mkdir, |parent, name| {
        take_umask(context);
        file::mkdirat(parent.as_raw_fd(), name, mode)
    })
}

/// `mknod`, `mknodat`.
pub fn mknod(context: &Context<'_>) -> Handled {
    let mode = context.call.word(Arg::Mode) as u32 & (libc::S_IFMT | 0o7777);
    let device = context.call.word(Arg::Device) & 0xffff_ffff;
    match mode & libc::S_IFMT {
        0 | libc::S_IFREG | libc::S_IFIFO | libc::S_IFSOCK | libc::S_IFCHR | libc::S_IFBLK => {}
        libc::S_IFDIR => return Err(Stop::Errno(Errno::EPERM)),
        _ => return Err(Stop::Errno(Errno::EINVAL)),
    }
    let plain = matches!(mode & libc::S_IFMT, 0 | libc::S_IFREG);
    let op = if plain { FileOp::Create } else { FileOp::Mknod };
    change_name(context, op, |parent, name| {
        if lends_rights(mode) {
            return Err(Errno::EPERM);
        }
        take_umask(context);
        file::mknodat(parent.as_raw_fd(), name, mode, device)
    })
}

/// `symlink`, `symlinkat`.
pub fn symlink(context: &Context<'_>) -> Handled {
    let text = context.memory(context.call.path(Arg::Text))?;
    if text.is_empty() {
        return Err(Stop::Errno(Errno::ENOENT));
    }
    change_name(context, FileOp::Symlink, |parent, name| file::symlinkat(&text, parent.as_raw_fd(), name))
}

/// A call that makes or removes one name.
fn change_name(context: &Context<'_>, op: FileOp, act: impl FnOnce(&OwnedFd, &CStr) -> Result<(), Errno>) -> Handled {
    let path = context.memory(context.call.path(Arg::Path))?;
    let dir = context.call.dir(Arg::Dir);
    let found = match resolve(&context.caller(), dir, &path, Last::Itself) {
        Ok(found) => found,
        Err(missing) => return context.nowhere(missing, |at| Access::File { op, at }),
    };
    context.still_there()?;
    let removes = matches!(op, FileOp::Unlink | FileOp::Rmdir);
    if !removes && found.stat.is_some() {
        // Nothing would happen, wherever it is; so nothing is decided.
        return Err(Stop::Errno(Errno::EEXIST));
    }
    let Spot::Name { parent, name } = &found.spot else {
        // A directory that is named as itself cannot be removed, whoever asks: path_resolution(7), `vfs_rmdir`.
        return Err(Stop::Errno(match (op, last_component(&path)) {
            (FileOp::Rmdir, b".") => Errno::EINVAL,
            (FileOp::Rmdir, b"..") => Errno::ENOTEMPTY,
            (FileOp::Rmdir, _) => Errno::EBUSY,
            _ => Errno::EISDIR,
        }));
    };
    let at = if removes { place_at_stake(context, &found) } else { place(context, &found) };
    let bound = if removes && found.stat.is_some() { aims::bound(context, &found) } else { None };
    let standing = Standing { bound, ..Standing::default() };
    let judged = context.judge_with(Access::File { op, at }, asked(&path, &found), standing);
    if !judged.allowed() {
        let natural = (removes && found.stat.is_none()).then_some(Errno::ENOENT);
        return context.conclude_refused(judged, natural);
    }
    let done = act(parent, name);
    if done.is_ok() && op == FileOp::Mkdir {
        context.shared.made.note(&found);
    }
    if done.is_ok() && removes {
        context.shared.made.gone(&found);
    }
    context.conclude(judged, reply(done))
}

const RENAME_FLAGS: u32 = libc::RENAME_NOREPLACE | libc::RENAME_EXCHANGE | libc::RENAME_WHITEOUT;

/// `rename`, `renameat`, `renameat2`.
pub fn rename(context: &Context<'_>) -> Handled {
    let flags = context.call.int(Arg::RenameFlags) as u32;
    let exchange = flags & libc::RENAME_EXCHANGE != 0;
    let keeps = flags & (libc::RENAME_NOREPLACE | libc::RENAME_WHITEOUT) != 0;
    if flags & !RENAME_FLAGS != 0 || (exchange && keeps) {
        return Err(Stop::Errno(Errno::EINVAL));
    }
    let op = if exchange { MoveOp::Exchange } else { MoveOp::Rename };
    let (from, to, asked) = match two_names(context, Last::Itself, op)? {
        Ok(names) => names,
        Err(done) => return done,
    };
    // A directory that is named as itself cannot be moved, nor anything onto it, whoever asks.
    let Spot::Name { parent, name } = &from.spot else { return Err(Stop::Errno(Errno::EBUSY)) };
    if flags & libc::RENAME_NOREPLACE != 0 && to.stat.is_some() && from.stat.is_some() {
        return Err(Stop::Errno(Errno::EEXIST));
    }
    let Spot::Name { parent: new_parent, name: new_name } = &to.spot else {
        return Err(Stop::Errno(Errno::EBUSY));
    };
    let access = Access::Move { op, from: place(context, &from), to: place_at_stake(context, &to) };
    let judged = context.judge(access, asked);
    let missing = from.stat.is_none() || (exchange && to.stat.is_none());
    if !judged.allowed() {
        return context.conclude_refused(judged, missing.then_some(Errno::ENOENT));
    }
    let done = file::renameat2(parent.as_raw_fd(), name, new_parent.as_raw_fd(), new_name, flags);
    if done.is_ok() && !exchange {
        context.shared.made.gone(&to);
    }
    context.conclude(judged, reply(done))
}

/// `link`, `linkat`.
pub fn link(context: &Context<'_>) -> Handled {
    let flags = context.call.at_flags();
    if flags & !(libc::AT_SYMLINK_FOLLOW | libc::AT_EMPTY_PATH) != 0 {
        return Err(Stop::Errno(Errno::EINVAL));
    }
    let last = if flags & libc::AT_SYMLINK_FOLLOW != 0 { Last::Followed } else { Last::Itself };
    let (from, to, asked) = match two_names(context, last, MoveOp::Link)? {
        Ok(names) => names,
        Err(done) => return done,
    };
    if to.stat.is_some() {
        return Err(Stop::Errno(Errno::EEXIST));
    }
    let access = if from.is_nameless() {
        // An unnamed temporary file gets its name: that is when it is made.
        Access::File { op: FileOp::Create, at: place(context, &to) }
    } else {
        Access::Move { op: MoveOp::Link, from: place(context, &from), to: place(context, &to) }
    };
    let judged = context.judge(access, asked);
    if !judged.allowed() {
        return context.conclude_refused(judged, from.stat.is_none().then_some(Errno::ENOENT));
    }
    let Spot::Name { parent: new_parent, name: new_name } = &to.spot else {
        return context.conclude(judged, Reply::Errno(Errno::EEXIST));
    };
    let done = match &from.spot {
        Spot::Name { parent, name } => file::linkat(parent.as_raw_fd(), name, new_parent.as_raw_fd(), new_name, 0),
        Spot::Object { object, .. } => {
            let mut buffer = [0; 24];
            let path = own_fd(object.as_raw_fd(), &mut buffer);
            file::linkat(libc::AT_FDCWD, path, new_parent.as_raw_fd(), new_name, libc::AT_SYMLINK_FOLLOW)
        }
    };
    context.conclude(judged, reply(done))
}

type TwoNames = (Resolved, Resolved, Option<String>);

/// Reads and resolves both names of a call; the inner error is a call that is answered already. Of two failures the first
/// name's counts.
fn two_names(context: &Context<'_>, last: Last, op: MoveOp) -> Result<Result<TwoNames, Handled>, Stop> {
    let call = context.call;
    let path = context.memory(call.path(Arg::Path))?;
    let new_path = call.path(Arg::NewPath);
    let empty = path.is_empty() && call.at_flags() & libc::AT_EMPTY_PATH != 0;
    let from = if empty {
        descriptor(&context.caller(), call.dir(Arg::Dir))
    } else {
        resolve(&context.caller(), call.dir(Arg::Dir), &path, last)
    };
    let find = |path: &CStr| resolve(&context.caller(), call.dir(Arg::NewDir), path, Last::Itself);
    let from = match from {
        Ok(from) if op == MoveOp::Link && from.stat.is_none() => {
            Err(Unresolved { errno: Errno::ENOENT, path: Some(from.path) })
        }
        from => from,
    };
    let from = match from {
        Ok(from) => from,
        Err(missing) => {
            let to = new_path.ok().and_then(|path| find(&path).ok());
            return Ok(Err(context.nowhere(missing, |at| {
                let to = to.map_or_else(|| at.clone(), |to| Place::of(to.path));
                Access::Move { op, from: at, to }
            })));
        }
    };
    let new_path = context.memory(new_path)?;
    let to = find(&new_path);
    context.still_there()?;
    Ok(match to {
        Ok(to) => {
            let asked = asked_two(&path, &new_path, &from, &to);
            Ok((from, to, asked))
        }
        Err(missing) => Err(context.nowhere(missing, |at| Access::Move { op, from: place(context, &from), to: at })),
    })
}

/// `truncate`.
pub fn truncate(context: &Context<'_>) -> Handled {
    let length = context.call.word(Arg::Length) as i64;
    if length < 0 {
        return Err(Stop::Errno(Errno::EINVAL));
    }
    change_object(context, FileOp::Truncate, |object| {
        let mut buffer = [0; 24];
        keep_size_limit(context, object, length)?;
        file::truncate(own_fd(object.as_raw_fd(), &mut buffer), length)
    })
}

/// A file that would grow beyond the caller's limit does not, and the caller gets the signal: setrlimit(2).
fn keep_size_limit(context: &Context<'_>, object: &OwnedFd, length: i64) -> Result<(), Errno> {
    let target = context.call.stopped.target;
    let limit = sys::process::limit(target.tid, Resource::RLIMIT_FSIZE)?;
    if limit == nix::sys::resource::RLIM_INFINITY || length as u64 <= limit {
        return Ok(());
    }
    let stat = file::fstatat(object.as_raw_fd(), c"", libc::AT_EMPTY_PATH)?;
    if stat.st_mode & libc::S_IFMT != libc::S_IFREG || length <= stat.st_size {
        return Ok(());
    }
    sys::process::signal_thread(context.task.subject.host, target.tid, Signal::SIGXFSZ)?;
    Err(Errno::EFBIG)
}

/// `chmod`, `fchmod`, `fchmodat`, `fchmodat2`.
pub fn chmod(context: &Context<'_>) -> Handled {
    let mode = context.call.word(Arg::Mode) as u32 & 0o7777;
    change_object(context, FileOp::Chmod, |object| {
        if lends_rights(mode) && !is_directory(object) {
            return Err(Errno::EPERM);
        }
        match file::fchmodat2(object.as_raw_fd(), c"", mode, libc::AT_EMPTY_PATH) {
            // Before Linux 6.6 the object can only be named by way of `/proc`.
            Err(Errno::ENOSYS) => {
                let mut buffer = [0; 24];
                file::fchmodat2(libc::AT_FDCWD, own_fd(object.as_raw_fd(), &mut buffer), mode, 0)
            }
            done => done,
        }
    })
}

/// `chown`, `lchown`, `fchown`, `fchownat`.
pub fn chown(context: &Context<'_>) -> Handled {
    let (uid, gid) = (context.call.word(Arg::Uid) as u32, context.call.word(Arg::Gid) as u32);
    change_object(context, FileOp::Chown, |object| {
        file::fchownat(object.as_raw_fd(), c"", uid, gid, libc::AT_EMPTY_PATH)
    })
}

/// `utime`, `utimes`, `futimesat`, `utimensat`.
pub fn utime(context: &Context<'_>) -> Handled {
    let times = times(context)?;
    if times.is_some_and(|times| times.iter().all(|time| time.tv_nsec == libc::UTIME_OMIT)) {
        // Nothing to do, and so nothing is looked at: utimensat(2).
        return Err(Stop::Nothing);
    }
    change_object(context, FileOp::Utime, |object| {
        file::utimensat(object.as_raw_fd(), c"", times.as_ref(), libc::AT_EMPTY_PATH)
    })
}

/// The two times in any of the three spellings; `None` means now.
fn times(context: &Context<'_>) -> Result<Option<[libc::timespec; 2]>, Stop> {
    let call = context.call;
    let target = call.stopped.target;
    let time = |seconds: u64, nanos: u64| libc::timespec { tv_sec: seconds as i64, tv_nsec: nanos as i64 };
    let address = |role| Some(call.word(role)).filter(|address| *address != 0);
    if call.has(Arg::Utimbuf) {
        let Some(address) = address(Arg::Utimbuf) else { return Ok(None) };
        let [access, change] = context.memory(target.words::<2>(address))?;
        return Ok(Some([time(access, 0), time(change, 0)]));
    }
    if call.has(Arg::Timevals) {
        let Some(address) = address(Arg::Timevals) else { return Ok(None) };
        let [s1, us1, s2, us2] = context.memory(target.words::<4>(address))?;
        if us1 >= 1_000_000 || us2 >= 1_000_000 {
            return Err(Stop::Errno(Errno::EINVAL));
        }
        return Ok(Some([time(s1, us1 * 1000), time(s2, us2 * 1000)]));
    }
    let Some(address) = address(Arg::Timespecs) else { return Ok(None) };
    let [s1, ns1, s2, ns2] = context.memory(target.words::<4>(address))?;
    Ok(Some([time(s1, ns1), time(s2, ns2)]))
}

const XATTR_NAME_MAX: usize = 256;
const XATTR_SIZE_MAX: u64 = 65536;

/// `setxattr`, `lsetxattr`, `fsetxattr`, `setxattrat`.
pub fn set_xattr(context: &Context<'_>) -> Handled {
    let call = context.call;
    let target = call.stopped.target;
    let (address, size, flags) = if call.has(Arg::XattrArgs) {
        // struct xattr_args: the value's address, its size and the flags, in 16 bytes.
        let [address, rest] = context.memory(target.words::<2>(call.word(Arg::XattrArgs)))?;
        (address, rest & 0xffff_ffff, (rest >> 32) as i32)
    } else {
        (call.word(Arg::XattrValue), call.word(Arg::XattrSize), call.int(Arg::XattrFlags))
    };
    if flags & !(libc::XATTR_CREATE | libc::XATTR_REPLACE) != 0 {
        return Err(Stop::Errno(Errno::EINVAL));
    }
    let name = xattr_name(context)?;
    if size > XATTR_SIZE_MAX {
        return Err(Stop::Errno(Errno::E2BIG));
    }
    let value = context.memory(target.bytes(address, size as usize))?;
    change_object(context, FileOp::Xattr, |object| {
        let mut buffer = [0; 24];
        file::setxattr(own_fd(object.as_raw_fd(), &mut buffer), &name, &value, flags)
    })
}

/// `removexattr`, `lremovexattr`, `fremovexattr`, `removexattrat`.
pub fn remove_xattr(context: &Context<'_>) -> Handled {
    let name = xattr_name(context)?;
    change_object(context, FileOp::Xattr, |object| {
        let mut buffer = [0; 24];
        file::removexattr(own_fd(object.as_raw_fd(), &mut buffer), &name)
    })
}

/// Reads the name of an attribute. The kernel says ERANGE of one that is too long or empty.
fn xattr_name(context: &Context<'_>) -> Result<CString, Stop> {
    let call = context.call;
    match context.memory(call.stopped.target.string(call.word(Arg::XattrName), XATTR_NAME_MAX)) {
        Err(Stop::Errno(Errno::ENAMETOOLONG)) => Err(Stop::Errno(Errno::ERANGE)),
        Ok(name) if name.is_empty() => Err(Stop::Errno(Errno::ERANGE)),
        name => name,
    }
}

/// A call that changes something that exists, through a descriptor of it.
fn change_object(context: &Context<'_>, op: FileOp, act: impl Fn(&OwnedFd) -> Result<(), Errno>) -> Handled {
    let flags = context.call.at_flags();
    if flags & !(libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH) != 0 {
        return Err(Stop::Errno(Errno::EINVAL));
    }
    let (path, named_by) = object_path(context)?;
    // With a slash behind it a link is followed, whatever the call says.
    let itself = flags & libc::AT_SYMLINK_NOFOLLOW != 0 && !path.to_bytes().ends_with(b"/");
    let last = if itself { Last::Itself } else { Last::Followed };
    for _ in 0..TRIES {
        let found = match named_by {
            NamedBy::OpenFile(number) => opened_descriptor(&context.caller(), number),
            NamedBy::Descriptor(number) => descriptor(&context.caller(), number),
            NamedBy::Path => resolve(&context.caller(), context.call.dir(Arg::Dir), &path, last),
        };
        let found = match found {
            Ok(found) => found,
            Err(missing) => return context.nowhere(missing, |at| Access::File { op, at }),
        };
        context.still_there()?;
        let mut at = if op == FileOp::Truncate { place_at_stake(context, &found) } else { place(context, &found) };
        at.shares = op == FileOp::Chmod && context.call.word(Arg::Mode) as u32 & (libc::S_IWGRP | libc::S_IWOTH) != 0;
        at.stream = found.handed_in().map(|_| Stream::BeyondRights);
        let access = Access::File { op, at };
        if found.stat.is_none() {
            let judged = context.judge(access, asked(&path, &found));
            return context.conclude(judged, Reply::Errno(Errno::ENOENT));
        }
        let object = match found.object() {
            // It was there a moment ago, and no link.
            Err(Errno::ELOOP | Errno::ENOENT) => continue,
            other => other.map_err(Stop::Errno)?,
        };
        if found.is_nameless() {
            // A pipe or a deleted file: nothing that a rule could name changes.
            let _ = context.call.stopped.answer(reply(act(&object)));
            return Ok(());
        }
        let judged = context.judge(access, asked(&path, &found));
        if !judged.allowed() {
            return context.conclude_refused(judged, None);
        }
        let done = act(&object);
        if op == FileOp::Truncate && done.is_ok() {
            context.shared.made.changed(&judged);
        }
        return context.conclude(judged, reply(done));
    }
    Err(Stop::Unjudged(Unjudged::Raced, Errno::EACCES))
}

/// What names the object of a call.
#[derive(Clone, Copy)]
enum NamedBy {
    /// Its path.
    Path,
    /// A descriptor of any kind: an empty path with `AT_EMPTY_PATH`.
    Descriptor(i32),
    /// A descriptor with a right to the file: `fchmod` and its kin, or `utimensat` without a path.
    OpenFile(i32),
}

/// The path of a call on an object, empty where a descriptor stands for it.
fn object_path(context: &Context<'_>) -> Result<(CString, NamedBy), Stop> {
    let call = context.call;
    if call.has(Arg::Fd) {
        return Ok((CString::default(), NamedBy::OpenFile(call.int(Arg::Fd))));
    }
    let dir = call.dir(Arg::Dir);
    if call.has(Arg::Timespecs) && call.word(Arg::Path) == 0 && dir != libc::AT_FDCWD {
        return match call.at_flags() {
            0 => Ok((CString::default(), NamedBy::OpenFile(dir))),
            _ => Err(Stop::Errno(Errno::EINVAL)),
        };
    }
    let path = context.memory(call.path(Arg::Path))?;
    let empty = path.is_empty() && call.at_flags() & libc::AT_EMPTY_PATH != 0;
    Ok((path, if empty { NamedBy::Descriptor(dir) } else { NamedBy::Path }))
}

/// What a call that returns nothing is answered with.
pub(super) fn reply(done: Result<(), Errno>) -> Reply {
    match done {
        Ok(()) => Reply::Value(0),
        Err(Errno::EINTR) => Reply::Interrupted,
        Err(errno) => Reply::Errno(errno),
    }
}

pub(super) fn place(context: &Context<'_>, found: &Resolved) -> Place {
    Place {
        directory: found.is_directory(),
        own_repository: context.shared.made.owns(found),
        file: found.stat.filter(|_| found.is(libc::S_IFREG)).map(|stat| (stat.st_dev, stat.st_ino)),
        ..Place::of(found.path.clone())
    }
}

/// The same for a name that is about to lose what stands there.
pub(super) fn place_at_stake(context: &Context<'_>, found: &Resolved) -> Place {
    Place { before: before(context, found), ..place(context, found) }
}

/// What stands at a name, if it is a file.
fn before(context: &Context<'_>, found: &Resolved) -> Option<Before> {
    let stat = found.stat.as_ref().filter(|_| found.is(libc::S_IFREG) && !found.is_nameless())?;
    let held = stat.st_nlink > 1 || context.shared.made.is_held((stat.st_dev, stat.st_ino));
    let git = match &found.spot {
        Spot::Name { parent, .. } => {
            let (path, received) = (found.path.as_path(), context.call.stopped.received);
            context.shared.trees.state(parent.as_fd(), path, stat, received)
        }
        Spot::Object { .. } => None,
    };
    Some(Before { bytes: stat.st_size as u64, git, held })
}

/// The path as asked, for the record, where it reads otherwise than what it led to.
pub(super) fn asked(path: &CStr, found: &Resolved) -> Option<String> {
    let differs = as_asked(path) != found.path.as_path() && !path.is_empty();
    differs.then(|| escape_bytes(path.to_bytes()))
}

fn asked_two(path: &CStr, new_path: &CStr, from: &Resolved, to: &Resolved) -> Option<String> {
    let (first, second) = (asked(path, from), asked(new_path, to));
    if first.is_none() && second.is_none() {
        return None;
    }
    Some(format!("{} -> {}", escape_bytes(path.to_bytes()), escape_bytes(new_path.to_bytes())))
}
