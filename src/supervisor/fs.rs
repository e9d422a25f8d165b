//! Handlers of calls on files: judged on a directory that is held open and a name in it, then carried out on these.
//!
//! Each handler reads its arguments once, resolves, judges through the gate, acts with the `*at` form of the call, and
//! answers with exactly what the kernel said. A name that turned into a symbolic link since it was looked at gives
//! `ELOOP`, and the whole is done again.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;

use super::notification::Reply;
use super::resolve::{
    Last, Resolved, Spot, Unresolved, as_asked, descriptor, object, opened_descriptor, own_fd, resolve,
};
use super::{Context, Handled, Stop};
use crate::event::{Access, FileOp, MoveOp, Place, Stream, Unjudged, escape_bytes};
use crate::sys::file::{self, OpenHow};
use crate::syscalls::Arg;

/// How often a call is tried again when names change under it.
const TRIES: usize = 16;

/// The flags that `open` knows; others it ignores, while `openat2`, by which we open, refuses them.
const OPEN_FLAGS: i32 = libc::O_ACCMODE
    | libc::O_CREAT
    | libc::O_EXCL
    | libc::O_NOCTTY
    | libc::O_TRUNC
    | libc::O_APPEND
    | libc::O_NONBLOCK
    | libc::O_SYNC
    | libc::O_DSYNC
    | libc::O_ASYNC
    | libc::O_DIRECT
    | libc::O_LARGEFILE
    | libc::O_DIRECTORY
    | libc::O_NOFOLLOW
    | libc::O_NOATIME
    | libc::O_CLOEXEC
    | libc::O_PATH
    | libc::O_TMPFILE;

/// What an open asks for.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    flags: i32,
    mode: u32,
    resolve: u64,
}

impl Wanted {
    fn has(self, flag: i32) -> bool {
        self.flags & flag == flag
    }

    fn unnamed(self) -> bool {
        self.has(libc::O_TMPFILE)
    }

    fn writes(self) -> bool {
        self.flags & libc::O_ACCMODE != libc::O_RDONLY || self.has(libc::O_TRUNC) || self.unnamed()
    }

    fn last(self) -> Last {
        let itself = self.has(libc::O_NOFOLLOW) || self.has(libc::O_CREAT | libc::O_EXCL);
        if itself { Last::Itself } else { Last::Followed }
    }

    /// Whether it asks for no more than a descriptor with these flags can do already.
    fn is_within(self, flags: i32) -> bool {
        let (reads, writes) = rights(self.flags);
        let (may_read, may_write) = rights(flags);
        let appends = flags & libc::O_APPEND != 0;
        let cuts = self.has(libc::O_TRUNC) || !self.has(libc::O_APPEND) && writes;
        (may_read || !reads) && (may_write || !(writes || self.has(libc::O_TRUNC))) && !(appends && cuts)
    }

    /// What is done to what was found.
    fn op(self, found: &Resolved) -> FileOp {
        match (&found.stat, self.has(libc::O_CREAT)) {
            (None, true) => FileOp::Create,
            _ if self.unnamed() => FileOp::Create,
            _ if self.writes() => FileOp::Write,
            _ => FileOp::Read,
        }
    }
}

/// Whether open flags ask for reading and for writing.
fn rights(flags: i32) -> (bool, bool) {
    match flags & libc::O_ACCMODE {
        libc::O_RDONLY => (true, false),
        libc::O_WRONLY => (false, true),
        _ => (true, true),
    }
}

/// `open`, `openat`, `creat`, `openat2`.
pub fn open(context: &Context<'_>) -> Handled {
    let wanted = wanted(context)?;
    let dir = context.call.dir(Arg::Dir);
    let path = context.memory(context.call.path(Arg::Path))?;
    if wanted.has(libc::O_CREAT) && path.to_bytes().ends_with(b"/") {
        return Err(Stop::Errno(Errno::EISDIR));
    }
    for _ in 0..TRIES {
        let found = match find_to_open(context, dir, &path, wanted) {
            Ok(found) => found,
            Err(missing) => {
                let op = if wanted.writes() || wanted.has(libc::O_CREAT) { FileOp::Write } else { FileOp::Read };
                return context.nowhere(missing, |at| Access::File { op, at });
            }
        };
        context.still_there()?;
        if let Some(done) = open_found(context, &path, wanted, found)? {
            return Ok(done);
        }
    }
    Err(Stop::Unjudged(Unjudged::Raced, Errno::EACCES))
}

fn wanted(context: &Context<'_>) -> Result<Wanted, Stop> {
    let call = context.call;
    if !call.has(Arg::How) {
        let flags = call.open_flags() & OPEN_FLAGS;
        return Ok(Wanted { flags, mode: call.word(Arg::Mode) as u32 & 0o7777, resolve: 0 });
    }
    const KNOWN: u64 = 24;
    const PAGE: u64 = 4096;
    match call.word(Arg::Size) {
        ..KNOWN => return Err(Stop::Errno(Errno::EINVAL)),
        KNOWN => {}
        // A larger structure may only hold zeroes where this kernel knows nothing: openat2(2).
        size @ ..=PAGE => {
            let tail =
                context.memory(call.stopped.target.bytes(call.word(Arg::How) + KNOWN, (size - KNOWN) as usize))?;
            if tail.iter().any(|byte| *byte != 0) {
                return Err(Stop::Errno(Errno::E2BIG));
            }
        }
        _ => return Err(Stop::Errno(Errno::E2BIG)),
    }
    let [flags, mode, resolve] = context.memory(call.stopped.target.words::<3>(call.word(Arg::How)))?;
    let makes = flags & libc::O_CREAT as u64 != 0 || flags & libc::O_TMPFILE as u64 == libc::O_TMPFILE as u64;
    if flags & !(OPEN_FLAGS as u64) != 0 || mode & !0o7777 != 0 || (mode != 0 && !makes) {
        return Err(Stop::Errno(Errno::EINVAL));
    }
    if flags & libc::O_PATH as u64 != 0 {
        // A listener cannot hand such a descriptor over, and its flags are where the caller could change them meanwhile,
        // so it cannot go on either. Programs know how to do without this call: it is a young one.
        return Err(Stop::Errno(Errno::ENOSYS));
    }
    Ok(Wanted { flags: flags as i32, mode: mode as u32, resolve })
}

fn find_to_open(context: &Context<'_>, dir: i32, path: &CStr, wanted: Wanted) -> Result<Resolved, Unresolved> {
    if wanted.resolve != 0 {
        return find_with(context, dir, path, wanted);
    }
    let found = resolve(&context.caller(), dir, path, wanted.last())?;
    // An unnamed file is made in a directory, which is entered like any other.
    if wanted.unnamed() && found.is_directory() && !matches!(&found.spot, Spot::Name { name, .. } if &**name == c".") {
        return object(found.object()?, || libc::O_RDONLY);
    }
    Ok(found)
}

/// `openat2` with restrictions on the walk: the kernel walks under just these.
fn find_with(context: &Context<'_>, dir: i32, path: &CStr, wanted: Wanted) -> Result<Resolved, Unresolved> {
    let base = context.caller().base(dir)?;
    let keep = libc::O_NOFOLLOW | libc::O_DIRECTORY;
    let flags = (libc::O_PATH | (wanted.flags & keep)) as u64;
    let how = OpenHow { flags, mode: 0, resolve: wanted.resolve };
    match file::openat2(base.as_raw_fd(), path, how) {
        Err(Errno::ENOENT) if wanted.has(libc::O_CREAT) => {}
        opened => return object(opened?, || libc::O_RDONLY),
    }
    let bytes = path.to_bytes();
    let cut = bytes.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
    let (above, name) = bytes.split_at(cut);
    let above = CString::new(if above.is_empty() { b"." } else { above }).map_err(|_| Errno::EINVAL)?;
    let how = OpenHow { flags: (libc::O_PATH | libc::O_DIRECTORY) as u64, mode: 0, resolve: wanted.resolve };
    let parent = file::openat2(base.as_raw_fd(), &above, how)?;
    let name = CString::new(name).map_err(|_| Errno::EINVAL)?;
    // A dangling link cannot be followed under the same restrictions; it fails as a loop.
    super::resolve::named(context.call.stopped.target, Arc::new(parent), name)
}

/// Judges, opens and answers; `None` where what was found has changed and must be looked for again.
fn open_found(context: &Context<'_>, path: &CStr, wanted: Wanted, found: Resolved) -> Result<Option<()>, Stop> {
    if found.stat.is_some() && wanted.has(libc::O_CREAT | libc::O_EXCL) && !wanted.unnamed() {
        return Err(Stop::Errno(Errno::EEXIST));
    }
    if found.is_directory() && wanted.has(libc::O_CREAT) && !wanted.unnamed() {
        return Err(Stop::Errno(Errno::EISDIR));
    }
    if found.is(libc::S_IFLNK) {
        return Err(Stop::Errno(Errno::ELOOP));
    }
    let mut at = place(context, &found);
    at.reads = rights(wanted.flags).0 && (wanted.writes() || wanted.has(libc::O_CREAT));
    at.stream = found
        .handed_in()
        .map(|flags| if wanted.is_within(flags) { Stream::WithinRights } else { Stream::BeyondRights });
    let access = Access::File { op: wanted.op(&found), at };
    let asked = asked(path, &found);
    // What has no name in the file system (a pipe, a deleted file) was the caller's already.
    if found.is_nameless() {
        return answer_open(context, None, wanted, &found);
    }
    let judged = context.judge(access, asked);
    if !judged.allowed() {
        let natural = (found.stat.is_none() && !wanted.has(libc::O_CREAT)).then_some(Errno::ENOENT);
        return context.conclude_refused(judged, natural).map(Some);
    }
    answer_open(context, Some(judged), wanted, &found)
}

fn answer_open(
    context: &Context<'_>,
    judged: Option<crate::gate::Judged>,
    wanted: Wanted,
    found: &Resolved,
) -> Result<Option<()>, Stop> {
    let waits =
        found.is(libc::S_IFIFO) && !wanted.has(libc::O_NONBLOCK) && wanted.flags & libc::O_ACCMODE != libc::O_RDWR;
    let opened = if waits {
        context.wait(|| carry_out_open(context, wanted, found))
    } else if of_another_process(context, found) {
        // The worker could look into processes that the caller could not.
        super::without_trace_right(|| carry_out_open(context, wanted, found))
    } else {
        carry_out_open(context, wanted, found)
    };
    let reply = match opened {
        // Gone, or made, or turned into a link since.
        Err(Errno::ELOOP) => return Ok(None),
        Err(Errno::ENOENT) if found.stat.is_some() && wanted.has(libc::O_CREAT) => return Ok(None),
        Err(Errno::EINTR) => Reply::Interrupted,
        Err(errno) => Reply::Errno(errno),
        Ok(file) => Reply::InjectFd { file, close_on_exec: wanted.has(libc::O_CLOEXEC) },
    };
    if found.stat.is_none() && matches!(reply, Reply::InjectFd { .. }) {
        context.shared.made.note_file(found);
    }
    match judged {
        Some(judged) => context.conclude(judged, reply)?,
        None => {
            let _ = context.call.stopped.answer(reply);
        }
    }
    Ok(Some(()))
}

/// Whether something lies in `/proc` below a process other than the caller.
fn of_another_process(context: &Context<'_>, found: &Resolved) -> bool {
    let Ok(inside) = found.path.as_path().strip_prefix("/proc") else { return false };
    let owner = inside.components().next().and_then(|owner| owner.as_os_str().to_str()?.parse().ok());
    owner.is_some_and(|owner: i32| owner != context.task.subject.pid)
}

fn carry_out_open(context: &Context<'_>, wanted: Wanted, found: &Resolved) -> Result<OwnedFd, Errno> {
    if is_controlling_terminal(found) {
        return open_terminal(context, wanted);
    }
    // A worker must never gain a controlling terminal; and what exists need not be made, so no mask is needed for it.
    let mut flags = wanted.flags | libc::O_NOCTTY;
    if found.stat.is_some() && !wanted.unnamed() {
        flags &= !libc::O_CREAT;
    }
    let makes = flags & libc::O_CREAT != 0 || wanted.unnamed();
    if makes && lends_rights(wanted.mode) {
        return Err(Errno::EPERM);
    }
    if makes {
        take_umask(context);
    }
    match &found.spot {
        Spot::Name { parent, name } => {
            let no_links = if found.is(libc::S_IFLNK) { 0 } else { libc::RESOLVE_NO_SYMLINKS };
            let mode = if makes { wanted.mode.into() } else { 0 };
            file::openat2(parent.as_raw_fd(), name, OpenHow { flags: flags as u64, mode, resolve: no_links })
        }
        Spot::Object { object, .. } => {
            let mut buffer = [0; 24];
            let path = own_fd(object.as_raw_fd(), &mut buffer);
            file::openat(libc::AT_FDCWD, path, flags & !libc::O_NOFOLLOW, wanted.mode)
        }
    }
}

/// `/dev/tty` is whatever terminal controls the process that opens it.
fn is_controlling_terminal(found: &Resolved) -> bool {
    const TTY: libc::dev_t = libc::makedev(5, 0);
    found.is(libc::S_IFCHR) && found.stat.is_some_and(|stat| stat.st_rdev == TTY)
}

/// Opens the caller's own controlling terminal: the worker's would be another, or none.
fn open_terminal(context: &Context<'_>, wanted: Wanted) -> Result<OwnedFd, Errno> {
    let stat = context.call.stopped.target.text("stat");
    // Behind the program's name, which may hold anything but ends at the last parenthesis: state, ppid, pgrp, session, tty.
    let number: u64 = stat
        .rsplit_once(')')
        .and_then(|(_, fields)| fields.split_whitespace().nth(4)?.parse::<i64>().ok())
        .map_or(0, |number| number as u64);
    const PTS: std::ops::RangeInclusive<u64> = 136..=143;
    let (major, minor) = ((number >> 8) & 0xfff, (number & 0xff) | ((number >> 12) & 0xfff00));
    if !PTS.contains(&major) {
        return Err(Errno::ENXIO);
    }
    let minor = (major - PTS.start()) * 256 + minor;
    let path = CString::new(format!("/dev/pts/{minor}")).map_err(|_| Errno::ENXIO)?;
    let flags = (wanted.flags | libc::O_NOCTTY) & !(libc::O_CREAT | libc::O_EXCL);
    file::openat(libc::AT_FDCWD, &path, flags, 0).map_err(|_| Errno::ENXIO)
}

/// Takes over the caller's file mode creation mask: this thread's is its own.
pub(super) fn take_umask(context: &Context<'_>) {
    let mask = context.shared.lineage.umask(context.call.stopped.target);
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(mask));
}

/// Whether a file of this mode would run with its owner's rights. Inside such bits have no effect; but the file stays
/// behind, and outside it would lend out the user's rights, or root's.
fn lends_rights(mode: u32) -> bool {
    mode & (libc::S_ISUID | libc::S_ISGID) != 0
}

fn is_directory(object: &OwnedFd) -> bool {
    file::fstatat(object.as_raw_fd(), c"", libc::AT_EMPTY_PATH)
        .is_ok_and(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFDIR)
}

/// `unlink`, `rmdir`, `unlinkat`.
pub fn unlink(context: &Context<'_>) -> Handled {
    let flags = context.call.at_flags();
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
    let judged = context.judge(Access::File { op, at: place(context, &found) }, asked(&path, &found));
    if !judged.allowed() {
        let natural = (removes && found.stat.is_none()).then_some(Errno::ENOENT);
        return context.conclude_refused(judged, natural);
    }
    let Spot::Name { parent, name } = &found.spot else { return Err(Stop::Errno(Errno::EINVAL)) };
    let done = act(parent, name);
    if done.is_ok() && op == FileOp::Mkdir {
        context.shared.made.note_directory(&found);
    }
    context.conclude(judged, reply(done))
}

/// `rename`, `renameat`, `renameat2`.
pub fn rename(context: &Context<'_>) -> Handled {
    let flags = context.call.int(Arg::RenameFlags) as u32;
    let exchange = flags & libc::RENAME_EXCHANGE != 0;
    let op = if exchange { MoveOp::Exchange } else { MoveOp::Rename };
    let (from, to, asked) = match two_names(context, Last::Itself, op)? {
        Ok(names) => names,
        Err(done) => return done,
    };
    if flags & libc::RENAME_NOREPLACE != 0 && to.stat.is_some() && from.stat.is_some() {
        return Err(Stop::Errno(Errno::EEXIST));
    }
    let access = Access::Move { op, from: place(context, &from), to: place(context, &to) };
    let judged = context.judge(access, asked);
    let missing = from.stat.is_none() || (exchange && to.stat.is_none());
    if !judged.allowed() {
        return context.conclude_refused(judged, missing.then_some(Errno::ENOENT));
    }
    let (Spot::Name { parent, name }, Spot::Name { parent: new_parent, name: new_name }) = (&from.spot, &to.spot)
    else {
        return context.conclude(judged, Reply::Errno(Errno::EBUSY));
    };
    let done = file::renameat2(parent.as_raw_fd(), name, new_parent.as_raw_fd(), new_name, flags);
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

/// Reads and resolves both names of a call; the inner error is a call that is answered already.
fn two_names(context: &Context<'_>, last: Last, op: MoveOp) -> Result<Result<TwoNames, Handled>, Stop> {
    let call = context.call;
    let path = context.memory(call.path(Arg::Path))?;
    let new_path = context.memory(call.path(Arg::NewPath))?;
    let empty = path.is_empty() && call.at_flags() & libc::AT_EMPTY_PATH != 0;
    let from = if empty {
        descriptor(&context.caller(), call.dir(Arg::Dir))
    } else {
        resolve(&context.caller(), call.dir(Arg::Dir), &path, last)
    };
    let to = resolve(&context.caller(), call.dir(Arg::NewDir), &new_path, Last::Itself);
    context.still_there()?;
    let bare = |path: &crate::event::BoxPath| Place::of(path.clone());
    Ok(match (from, to) {
        (Ok(from), Ok(to)) => {
            let asked = asked_two(&path, &new_path, &from, &to);
            Ok((from, to, asked))
        }
        (Err(missing), to) => Err(context.nowhere(missing, |at| {
            let to = to.as_ref().map_or_else(|_| at.clone(), |to| bare(&to.path));
            Access::Move { op, from: at, to }
        })),
        (Ok(from), Err(missing)) => {
            Err(context.nowhere(missing, |at| Access::Move { op, from: place(context, &from), to: at }))
        }
    })
}

/// `truncate`.
pub fn truncate(context: &Context<'_>) -> Handled {
    let length = context.call.word(Arg::Length) as i64;
    change_object(context, FileOp::Truncate, |object| {
        let mut buffer = [0; 24];
        file::truncate(own_fd(object.as_raw_fd(), &mut buffer), length)
    })
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
    let name = context.memory(target.string(call.word(Arg::XattrName), XATTR_NAME_MAX)).map_err(name_too_long)?;
    let (address, size, flags) = if call.has(Arg::XattrArgs) {
        // struct xattr_args: the value's address, its size and the flags, in 16 bytes.
        let [address, rest] = context.memory(target.words::<2>(call.word(Arg::XattrArgs)))?;
        (address, rest & 0xffff_ffff, (rest >> 32) as i32)
    } else {
        (call.word(Arg::XattrValue), call.word(Arg::XattrSize), call.int(Arg::XattrFlags))
    };
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
    let target = context.call.stopped.target;
    let name = context.memory(target.string(context.call.word(Arg::XattrName), XATTR_NAME_MAX));
    let name = name.map_err(name_too_long)?;
    change_object(context, FileOp::Xattr, |object| {
        let mut buffer = [0; 24];
        file::removexattr(own_fd(object.as_raw_fd(), &mut buffer), &name)
    })
}

/// The kernel says ERANGE of an attribute name that is too long.
fn name_too_long(stop: Stop) -> Stop {
    match stop {
        Stop::Errno(Errno::ENAMETOOLONG) => Stop::Errno(Errno::ERANGE),
        other => other,
    }
}

/// A call that changes something that exists, through a descriptor of it.
fn change_object(context: &Context<'_>, op: FileOp, act: impl Fn(&OwnedFd) -> Result<(), Errno>) -> Handled {
    let (path, named_by_descriptor) = object_path(context)?;
    for _ in 0..TRIES {
        let found = if context.call.has(Arg::Fd) {
            opened_descriptor(context.call.stopped.target, context.call.int(Arg::Fd))
        } else if named_by_descriptor {
            descriptor(&context.caller(), context.call.dir(Arg::Dir))
        } else {
            let itself = context.call.at_flags() & libc::AT_SYMLINK_NOFOLLOW != 0;
            let last = if itself { Last::Itself } else { Last::Followed };
            resolve(&context.caller(), context.call.dir(Arg::Dir), &path, last)
        };
        let found = match found {
            Ok(found) => found,
            Err(missing) => return context.nowhere(missing, |at| Access::File { op, at }),
        };
        context.still_there()?;
        let mut at = place(context, &found);
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
        return context.conclude(judged, reply(act(&object)));
    }
    Err(Stop::Unjudged(Unjudged::Raced, Errno::EACCES))
}

/// The path of a call on an object, and whether the object is rather what a descriptor stands for: by `fchmod` and its
/// kin, by an empty path with `AT_EMPTY_PATH`, or by `utimensat` without a path.
fn object_path(context: &Context<'_>) -> Result<(CString, bool), Stop> {
    let call = context.call;
    if call.has(Arg::Fd) {
        return Ok((CString::default(), true));
    }
    if call.has(Arg::Timespecs) && call.word(Arg::Path) == 0 {
        return match (call.dir(Arg::Dir), call.at_flags()) {
            (libc::AT_FDCWD, _) => Err(Stop::Errno(Errno::EFAULT)),
            (_, 0) => Ok((CString::default(), true)),
            _ => Err(Stop::Errno(Errno::EINVAL)),
        };
    }
    let path = context.memory(call.path(Arg::Path))?;
    let empty = path.is_empty() && call.at_flags() & libc::AT_EMPTY_PATH != 0;
    Ok((path, empty))
}

/// What a call that returns nothing is answered with.
pub(super) fn reply(done: Result<(), Errno>) -> Reply {
    match done {
        Ok(()) => Reply::Value(0),
        Err(Errno::EINTR) => Reply::Interrupted,
        Err(errno) => Reply::Errno(errno),
    }
}

fn place(context: &Context<'_>, found: &Resolved) -> Place {
    Place {
        path: found.path.clone(),
        directory: found.is_directory(),
        own_repository: context.shared.made.owns(found),
        reads: false,
        shares: false,
        stream: None,
    }
}

/// The path as asked, for the record, where it reads otherwise than what it led to.
fn asked(path: &CStr, found: &Resolved) -> Option<String> {
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
