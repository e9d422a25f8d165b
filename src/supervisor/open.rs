//! Opening files: judged like every other call on a name, opened by the worker, and handed over as a descriptor.
//!
//! What is in the way of the object that was judged (a link, a device, a FIFO, a terminal) is opened as the caller would
//! open it, or not at all.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use nix::errno::Errno;

use super::fs::{TRIES, asked, lends_rights, place, place_at_stake, take_umask};
use super::notification::Reply;
use super::resolve::{
    Last, MOST_LINKS, Resolved, Spot, Unresolved, last_component, named, object, own_fd, read_link, resolve,
};
use super::{Context, Handled, Stop};
use crate::event::{Access, FileOp, Stream, Unjudged};
use crate::gate::Judged;
use crate::sys::file::{self, OpenHow};
use crate::syscalls::Arg;

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

/// The restrictions that `openat2` knows.
const RESOLVE_FLAGS: u64 = libc::RESOLVE_NO_XDEV
    | libc::RESOLVE_NO_MAGICLINKS
    | libc::RESOLVE_NO_SYMLINKS
    | libc::RESOLVE_BENEATH
    | libc::RESOLVE_IN_ROOT
    | libc::RESOLVE_CACHED;

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
    let wanted = if context.call.has(Arg::How) { wanted_by_how(context)? } else { wanted_by_flags(context) };
    refuse_contradictions(wanted).map_err(Stop::Errno)?;
    let dir = context.call.dir(Arg::Dir);
    let path = context.memory(context.call.path(Arg::Path))?;
    for _ in 0..TRIES {
        let found = match find(context, dir, &path, wanted) {
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

fn wanted_by_flags(context: &Context<'_>) -> Wanted {
    let flags = context.call.open_flags() & OPEN_FLAGS;
    Wanted { flags, mode: context.call.word(Arg::Mode) as u32 & 0o7777, resolve: 0 }
}

/// Reads `struct open_how`.
fn wanted_by_how(context: &Context<'_>) -> Result<Wanted, Stop> {
    const KNOWN: u64 = 24;
    const PAGE: u64 = 4096;
    const PATH: u64 = libc::O_PATH as u64;
    const WITH_PATH: i32 = libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    let call = context.call;
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
    let both = libc::RESOLVE_BENEATH | libc::RESOLVE_IN_ROOT;
    if flags & !(OPEN_FLAGS as u64) != 0
        || mode & !0o7777 != 0
        || (mode != 0 && !makes)
        || resolve & !RESOLVE_FLAGS != 0
        || resolve & both == both
        || flags & PATH != 0 && flags & !(PATH | WITH_PATH as u64) != 0
    {
        return Err(Stop::Errno(Errno::EINVAL));
    }
    if flags & PATH != 0 {
        // A listener cannot hand such a descriptor over, and its flags are where the caller could change them meanwhile,
        // so it cannot go on either. Programs know how to do without this call: it is a young one.
        return Err(Stop::Errno(Errno::ENOSYS));
    }
    Ok(Wanted { flags: flags as i32, mode: mode as u32, resolve })
}

/// Flags that exclude each other: `build_open_flags` in fs/open.c.
fn refuse_contradictions(wanted: Wanted) -> Result<(), Errno> {
    let unnamed = wanted.flags & libc::O_TMPFILE & !libc::O_DIRECTORY != 0;
    let contradiction = wanted.has(libc::O_CREAT | libc::O_DIRECTORY)
        || (unnamed && (!wanted.unnamed() || wanted.has(libc::O_CREAT) || !rights(wanted.flags).1));
    if contradiction {
        return Err(Errno::EINVAL);
    }
    let may_block = unnamed || wanted.has(libc::O_TRUNC);
    if wanted.resolve & libc::RESOLVE_CACHED != 0 && may_block { Err(Errno::EAGAIN) } else { Ok(()) }
}

fn find(context: &Context<'_>, dir: i32, path: &CStr, wanted: Wanted) -> Result<Resolved, Unresolved> {
    if wanted.resolve != 0 {
        return find_with(context, dir, path, wanted);
    }
    let caller = context.caller();
    let slash = path.to_bytes().ends_with(b"/");
    if slash && wanted.has(libc::O_CREAT) && !matches!(last_component(path), b"" | b"." | b"..") {
        // Only a directory can be named like that, and opening makes none; but first all above it is walked.
        let end = path.to_bytes().iter().rposition(|byte| *byte != b'/').map_or(1, |at| at + 1);
        let name = CString::new(&path.to_bytes()[..end]).map_err(|_| Errno::EINVAL)?;
        return resolve(&caller, dir, &name, Last::Itself).and(Err(Errno::EISDIR.into()));
    }
    // With a slash behind it a link is followed, whatever the flags say.
    let found = resolve(&caller, dir, path, if slash { Last::Followed } else { wanted.last() })?;
    // An unnamed file is made in a directory, which is entered like any other.
    if wanted.unnamed() && found.is_directory() && matches!(found.spot, Spot::Name { .. }) {
        return object(caller.view, found.object()?, || libc::O_RDONLY);
    }
    Ok(found)
}

/// `openat2` with restrictions on the walk: the kernel walks under just these.
fn find_with(context: &Context<'_>, dir: i32, path: &CStr, wanted: Wanted) -> Result<Resolved, Unresolved> {
    let in_root = wanted.resolve & libc::RESOLVE_IN_ROOT != 0;
    let absolute = path.to_bytes().starts_with(b"/") && !in_root;
    let base = if absolute { None } else { Some(context.caller().base(dir)?) };
    let base = base.as_ref().map_or(libc::AT_FDCWD, AsRawFd::as_raw_fd);
    let open = |path: &CStr, flags: i32| {
        file::openat2(base, path, OpenHow { flags: (libc::O_PATH | flags) as u64, mode: 0, resolve: wanted.resolve })
    };
    let keep = wanted.flags & (libc::O_NOFOLLOW | libc::O_DIRECTORY);
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        match open(&path, keep) {
            Err(Errno::ENOENT) if wanted.has(libc::O_CREAT) => {}
            Ok(_) if wanted.has(libc::O_CREAT | libc::O_EXCL) => return Err(Errno::EEXIST.into()),
            opened => return object(context.caller().view, opened?, || libc::O_RDONLY),
        }
        let (above, name) = above_and_name(path.to_bytes());
        let parent = open(&above, libc::O_DIRECTORY)?;
        let text = match read_link(&parent, &name) {
            Ok(_) if wanted.has(libc::O_EXCL) => return Err(Errno::EEXIST.into()),
            Ok(_) if wanted.has(libc::O_NOFOLLOW) => return Err(Errno::ELOOP.into()),
            Ok(text) => text,
            Err(_) => return named(context.call.stopped.target, Arc::new(parent), name),
        };
        // A link that leads to nothing: the file is made where it leads, by a walk under the same restrictions.
        path = match text.first() {
            Some(b'/') => CString::new(text),
            _ => CString::new([above.to_bytes(), b"/", &text].concat()),
        }
        .map_err(|_| Errno::EINVAL)?;
    }
    Err(Errno::ELOOP.into())
}

fn above_and_name(path: &[u8]) -> (CString, CString) {
    let cut = path.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
    let (above, name) = path.split_at(cut);
    let text = |bytes: &[u8]| CString::new(bytes).unwrap_or_default();
    (text(if above.is_empty() { b"." } else { above }), text(name))
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
        return Err(Stop::Errno(if wanted.has(libc::O_DIRECTORY) { Errno::ENOTDIR } else { Errno::ELOOP }));
    }
    let mut at = if wanted.writes() { place_at_stake(context, &found) } else { place(context, &found) };
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
    mut judged: Option<Judged>,
    wanted: Wanted,
    found: &Resolved,
) -> Result<Option<()>, Stop> {
    let waits =
        found.is(libc::S_IFIFO) && !wanted.has(libc::O_NONBLOCK) && wanted.flags & libc::O_ACCMODE != libc::O_RDWR;
    let opened = if waits {
        context.wait(|| carry_out_open(context, wanted, found))
    } else if let Some(below) = file_of_a_process(context, wanted, found) {
        open_on_host(context, wanted, below)
    } else if of_another_process(context, found) {
        // The worker could look into processes that the caller could not.
        super::without_trace_right(|| carry_out_open(context, wanted, found))
    } else {
        carry_out_open(context, wanted, found)
    };
    let answered = match opened {
        // Gone, or made, or turned into a link since.
        Err(Errno::ELOOP) => return Ok(None),
        Err(Errno::EEXIST) if found.stat.is_none() && !wanted.has(libc::O_EXCL) => return Ok(None),
        Err(Errno::ENOENT) if found.stat.is_some() && wanted.has(libc::O_CREAT) => return Ok(None),
        Err(Errno::EINTR) => context.call.stopped.answer(Reply::Interrupted),
        Err(errno) => context.call.stopped.answer(Reply::Errno(errno)),
        Ok(file) => {
            if let Some(judged) = &mut judged {
                remember(context, judged, found, &file);
            }
            hand_over(context, wanted, found, &file)
        }
    };
    if let Some(judged) = judged {
        context.settle(judged, answered);
    }
    Ok(Some(()))
}

/// Remembers what is made or changed by an open, before the caller can do anything with it.
fn remember(context: &Context<'_>, judged: &mut Judged, found: &Resolved, file: &OwnedFd) {
    let made = &context.shared.made;
    match &judged.event.access {
        Access::File { op: FileOp::Create, .. } => {
            if let Ok(stat) = file::fstatat(file.as_raw_fd(), c"", libc::AT_EMPTY_PATH) {
                made.created(judged, (stat.st_dev, stat.st_ino));
            }
        }
        Access::File { op: FileOp::Write, .. } if found.is(libc::S_IFREG) => made.changed(judged),
        _ => {}
    }
}

/// Gives the opened file to the caller; if that has no descriptor left, what was made for it is taken away again.
fn hand_over(context: &Context<'_>, wanted: Wanted, found: &Resolved, file: &OwnedFd) -> Result<(), Errno> {
    let made = found.stat.is_none();
    if made {
        context.shared.made.note(found);
    }
    context.call.stopped.hand_over(file, wanted.has(libc::O_CLOEXEC)).map(drop).or_else(|errno| {
        if let Spot::Name { parent, name } = &found.spot
            && made
        {
            take_away(parent, name, file);
        }
        context.call.stopped.answer(Reply::Errno(errno))
    })
}

/// Removes a name that was just given to `file`, unless it means something else by now.
fn take_away(parent: &OwnedFd, name: &CStr, file: &OwnedFd) {
    let identity = |stat: libc::stat| (stat.st_dev, stat.st_ino);
    let there = file::fstatat(parent.as_raw_fd(), name, libc::AT_SYMLINK_NOFOLLOW).map(identity);
    let ours = file::fstatat(file.as_raw_fd(), c"", libc::AT_EMPTY_PATH).map(identity);
    if there.is_ok() && there == ours {
        let _ = file::unlinkat(parent.as_raw_fd(), name, 0);
    }
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
    // A worker must never gain a controlling terminal; what exists need not be made, so no mask is needed for it; and
    // what is made is known to be.
    let mut flags = wanted.flags | libc::O_NOCTTY;
    if found.stat.is_some() && !wanted.unnamed() {
        flags &= !libc::O_CREAT;
    } else if wanted.has(libc::O_CREAT) {
        flags |= libc::O_EXCL;
    }
    if wanted.has(libc::O_TRUNC) && found.stat.is_some_and(|stat| stat.st_size > 0) {
        // What is cut cannot be taken back if the caller has no room for the descriptor.
        context.call.stopped.target.has_descriptors_left(1)?;
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
            if wanted.has(libc::O_NOFOLLOW) && found.is_directory() {
                // The flag stays with the descriptor (F_GETFL). Here is the one way to pass it on, for who may enter.
                match file::openat(object.as_raw_fd(), c".", flags, wanted.mode) {
                    Err(Errno::EACCES) => {}
                    opened => return opened,
                }
            }
            let mut buffer = [0; 24];
            let path = own_fd(object.as_raw_fd(), &mut buffer);
            file::openat(libc::AT_FDCWD, path, flags & !libc::O_NOFOLLOW, wanted.mode)
        }
    }
}

/// The path below `/proc`, if a file there is to be written to and is on the view's read-only mount.
fn file_of_a_process<'a>(context: &Context<'_>, wanted: Wanted, found: &'a Resolved) -> Option<&'a Path> {
    let writes = context.shared.target.own_view && wanted.writes() && matches!(found.spot, Spot::Name { .. });
    found.path.as_path().strip_prefix("/proc").ok().filter(|_| writes)
}

/// Opens a file of a process for writing by way of the host's `/proc`, with no more rights than the caller has. `below` is
/// its path below `/proc` as the box sees it, `N/NAME` or `N/task/N/NAME`, with the box's numbers.
fn open_on_host(context: &Context<'_>, wanted: Wanted, below: &Path) -> Result<OwnedFd, Errno> {
    let names: Vec<&str> = below.iter().map(|name| name.to_str().ok_or(Errno::EACCES)).collect::<Result<_, _>>()?;
    let number = |text: &str| text.parse().map_err(|_| Errno::EACCES);
    let (lineage, target) = (&context.shared.lineage, context.call.stopped.target);
    let host = |process: &str| lineage.host_process(target, context.task, number(process)?);
    let path = match names[..] {
        [process, name] => format!("{}/{name}", host(process)?),
        [process, "task", thread, name] => {
            let process = host(process)?;
            format!("{process}/task/{}/{name}", lineage.host_thread(target, process, number(thread)?)?)
        }
        _ => return Err(Errno::EACCES),
    };
    let path = CString::new(path).map_err(|_| Errno::EINVAL)?;
    let resolve = libc::RESOLVE_NO_SYMLINKS | libc::RESOLVE_BENEATH;
    let flags = (wanted.flags & !libc::O_CREAT) as u64;
    super::without_trace_right(|| file::openat2(target.proc, &path, OpenHow { flags, mode: 0, resolve }))
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
