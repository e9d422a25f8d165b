//! Starting programs: the kernel carries an exec out, and what it started is verified before it runs.
//!
//! The path, the argument vector and the file can all change between the look and the act. So the caller is traced
//! across its exec: at the stop that follows, before the new program's first instruction, its executable and arguments
//! are compared with what was approved, and a difference is fatal. Landlock's execute right is the wall behind it.
//! There, too, files that the box could have written are put on record by their digest: no path tells what they are.
//! What the program then opens itself, as an interpreter does its script, is followed from there (`script`).

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::ptrace::{self, Event as TraceEvent, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

use super::digest;
use super::notification::{Because, Reply};
use super::resolve::{Caller, Last, Resolved, descriptor, lexical, own_fd, real_path, resolve};
use super::script::{Script, let_go_once_opened};
use super::target::Target;
use super::{Context, Handled, Stop};
use crate::event::{Access, ActionId, BoxPath, Exec, Loaded, Part, Standing, Unjudged, escape_bytes};
use crate::gate::{Judged, Outcome};
use crate::sys::file;
use crate::sys::process::{self, Resume};
use crate::syscalls::Arg;

/// Linux takes at most a quarter of the stack's limit, 6 MiB at the usual 8; we take no more than this.
const MOST_ARGUMENTS: usize = 8 << 20;
/// How much of the argument vector a record keeps.
const RECORDED: usize = 64 << 10;
/// How many `#!` lines are followed: the kernel's own limit (`exec_binprm`, exec.c).
pub const MOST_INTERPRETERS: usize = 5;

/// A flag of `execveat` by which the kernel only tells whether it would start the file: Linux 6.14.
const AT_EXECVE_CHECK: i32 = 0x10000;

/// What was approved.
struct Approved {
    /// The file that may end up as the executable: the program, or the last interpreter.
    executable: (u64, u64),
    /// The arguments as the new program must find them.
    arguments: Vec<CString>,
    /// The action that begins with it.
    begins: Option<ActionId>,
    /// The files that the new program is to open by name itself: the last one next.
    scripts: Vec<Script>,
    /// The files that take part and that the box could have written.
    own: Vec<Own>,
}

/// A file whose path does not tell what it holds.
struct Own {
    path: BoxPath,
    file: Arc<OwnedFd>,
}

impl Own {
    /// `None` for a file that the box could not have written. One without a name, or handed in from outside, has no
    /// path in the view that could tell anything.
    fn of(context: &Context<'_>, found: &Resolved, file: &Arc<OwnedFd>) -> Option<Self> {
        let unnamed = found.is_nameless() || found.handed_in().is_some();
        let own = unnamed || context.shared.gate.is_the_boxs_own(&found.path);
        own.then(|| Self { path: found.path.clone(), file: Arc::clone(file) })
    }
}

/// `execve`, `execveat`.
pub fn exec(context: &Context<'_>) -> Handled {
    let call = context.call;
    let target = call.stopped.target;
    let path = context.memory(call.path(Arg::Path))?;
    let argv = context.memory(target.strings(call.word(Arg::Argv), MOST_ARGUMENTS))?;
    let flags = call.at_flags();
    let empty = path.is_empty() && flags & libc::AT_EMPTY_PATH != 0;
    let found = if empty {
        descriptor(&context.caller(), call.dir(Arg::Dir))
    } else {
        let last = if flags & libc::AT_SYMLINK_NOFOLLOW != 0 { Last::Itself } else { Last::Followed };
        resolve(&context.caller(), call.dir(Arg::Dir), &path, last)
    };
    let found = match found {
        Ok(found) => found,
        // A name that is not there starts nothing: a search along PATH is no event.
        Err(missing) if missing.errno == Errno::ESRCH => return Err(Stop::Gone),
        Err(missing) => return Err(Stop::Errno(missing.errno)),
    };
    context.still_there()?;
    if found.stat.is_none() {
        return Err(Stop::Errno(Errno::ENOENT));
    }
    if flags & AT_EXECVE_CHECK != 0 {
        return check(context, describe(&path, &found, &argv), asked(&path, &found));
    }
    let object = found.object().map_err(Stop::Errno)?;
    let mut chain = interpreters(context, &object)?;
    let script = script_name(context, &path, empty);
    let arguments = final_arguments(&chain, &script, &argv);
    let runs = chain.last().map_or(Some(&found.path), |link| link.path.as_ref());
    let image = runs.and_then(|loader| loaded(context, loader.as_path(), &arguments));
    let mut scripts = scripts(&chain, &script, &found.path, &object).map_err(Stop::Errno)?;
    let (mut loaded, mut own_image) = (None, None);
    if let Some(Image { at, own, script }) = image {
        loaded = Some(Loaded { program: script.path.clone(), at });
        own_image = own;
        scripts.push(script);
    }
    let program = Own::of(context, &found, &object);
    let begins = context.begins_action();
    let approved = Approved {
        scripts,
        begins,
        executable: identity(chain.last().map_or(&object, |link| &link.file)).map_err(Stop::Errno)?,
        arguments,
        own: program.into_iter().chain(chain.iter_mut().filter_map(|link| link.own.take())).chain(own_image).collect(),
    };
    let mut exec = describe(&path, &found, &argv);
    if let Some(link) = chain.last() {
        exec.interpreter = link.path.clone();
        // All but what follows the caller's own name for the program.
        let added = approved.arguments.len() - argv.len().saturating_sub(1);
        exec.line = escaped(&approved.arguments[..added]);
    }
    exec.loaded = loaded;
    let standing = Standing { action: begins.unwrap_or_default(), ..Standing::default() };
    let mut judged = context.judge_with(Access::Exec(exec), asked(&path, &found), standing);
    if let Access::Exec(exec) = &mut judged.event.access {
        // Judged whole, recorded up to the cut.
        exec.rest = Vec::new();
    }
    if !judged.allowed() {
        return context.conclude_refused(judged, None);
    }
    start_verified(context, judged, &approved)
}

/// Answers who only asks whether a file may be run: script engines do, before they run what they were given. What a rule
/// denies may not; of the rest the kernel tells. Nothing starts, so only a refusal is on record.
fn check(context: &Context<'_>, exec: Exec, asked: Option<String>) -> Handled {
    let judged = context.judge(Access::Exec(exec), asked);
    if !judged.allowed() {
        return context.conclude_refused(judged, None);
    }
    let _ = context.call.stopped.answer(Reply::Continue(Because::NothingStarts));
    Ok(())
}

/// One `#!` line.
struct Interpreter {
    file: Arc<OwnedFd>,
    path: Option<BoxPath>,
    own: Option<Own>,
    /// The path as the line has it.
    written: CString,
    argument: Option<CString>,
}

/// Follows `#!` lines from `program` to the interpreter that will run.
fn interpreters(context: &Context<'_>, program: &OwnedFd) -> Result<Vec<Interpreter>, Stop> {
    let mut chain: Vec<Interpreter> = Vec::new();
    loop {
        let current = chain.last().map_or(program, |link| &link.file);
        let Some((written, argument)) = script_line(current) else { return Ok(chain) };
        if chain.len() == MOST_INTERPRETERS {
            return Err(Stop::Errno(Errno::ELOOP));
        }
        // The kernel fails the exec in just this way; nothing starts.
        let found = resolve(&context.caller(), libc::AT_FDCWD, &written, Last::Followed)
            .map_err(|missing| Stop::Errno(missing.errno))?;
        let file = found.object().map_err(Stop::Errno)?;
        let path = real_path(&file).ok().and_then(BoxPath::new);
        let own = Own::of(context, &found, &file);
        chain.push(Interpreter { file, path, own, written, argument });
    }
}

/// The interpreter and its argument from a file's `#!` line.
///
/// A file that may be run but not read has no line that we can see; then what runs is verified to be that file itself.
fn script_line(file: &OwnedFd) -> Option<(CString, Option<CString>)> {
    let mut buffer = [0; 24];
    let opened =
        file::openat(libc::AT_FDCWD, own_fd(file.as_raw_fd(), &mut buffer), libc::O_RDONLY | libc::O_NONBLOCK, 0);
    let mut head = [0u8; HEAD];
    let length = nix::sys::uio::pread(&opened.ok()?, &mut head, 0).ok()?;
    interpreter_of(&head[..length])
}

/// How much of a file the kernel reads for its `#!` line: its buffer has 256 bytes, of which the last is a NUL of its own.
pub const HEAD: usize = 255;

/// The interpreter and its argument from the first [`HEAD`] bytes of a file, read as the kernel reads them
/// (`binfmt_script.c`): blanks trimmed, everything behind the interpreter as one argument.
pub fn interpreter_of(head: &[u8]) -> Option<(CString, Option<CString>)> {
    let line = head.strip_prefix(b"#!")?;
    let cut = line.iter().position(|byte| *byte == b'\n' || *byte == 0);
    let line = trim_blanks(&line[..cut.unwrap_or(line.len())]);
    let end = line.iter().position(|byte| is_blank(*byte));
    if cut.is_none() && end.is_none() && head.len() == HEAD {
        // The interpreter's name is cut: the kernel takes such a file for no script.
        return None;
    }
    let end = end.unwrap_or(line.len());
    let (interpreter, argument) = (&line[..end], trim_blanks(&line[end..]));
    let argument = (!argument.is_empty()).then(|| CString::new(argument)).transpose().ok()?;
    (!interpreter.is_empty()).then(|| CString::new(interpreter).ok().map(|path| (path, argument)))?
}

fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

fn trim_blanks(mut line: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = line
        && is_blank(*first)
    {
        line = rest;
    }
    while let [rest @ .., last] = line
        && is_blank(*last)
    {
        line = rest;
    }
    line
}

/// What the kernel calls a script towards its interpreter: the path as given, or one through `/dev/fd`.
fn script_name(context: &Context<'_>, path: &CStr, empty: bool) -> CString {
    let dir = context.call.dir(Arg::Dir);
    let text = match (empty, path.to_bytes().first(), dir) {
        (true, ..) => format!("/dev/fd/{dir}").into_bytes(),
        (_, Some(b'/'), _) | (_, _, libc::AT_FDCWD) => path.to_bytes().to_vec(),
        _ => [format!("/dev/fd/{dir}/").as_bytes(), path.to_bytes()].concat(),
    };
    CString::new(text).unwrap_or_default()
}

/// The argument vector as the executable that runs will find it.
fn final_arguments(chain: &[Interpreter], script: &CStr, argv: &[CString]) -> Vec<CString> {
    let mut arguments: Vec<CString> = argv.to_vec();
    if arguments.is_empty() {
        // Since Linux 5.18 a program finds one empty argument where there was none.
        arguments.push(CString::default());
    }
    let mut name = script.to_owned();
    for link in chain {
        let mut longer = vec![link.written.clone()];
        longer.extend(link.argument.clone());
        longer.push(name);
        longer.extend(arguments.into_iter().skip(1));
        arguments = longer;
        name = link.written.clone();
    }
    arguments
}

/// The scripts of a chain, as their interpreters are given them: the last is the one that the last interpreter opens.
fn scripts(chain: &[Interpreter], name: &CStr, path: &BoxPath, object: &OwnedFd) -> Result<Vec<Script>, Errno> {
    let Some((_, inner)) = chain.split_last() else { return Ok(Vec::new()) };
    let first = (name, Some(path), object);
    let inner = inner.iter().map(|link| (link.written.as_c_str(), link.path.as_ref(), &*link.file));
    let script = |(name, path, file): (&CStr, Option<&BoxPath>, &OwnedFd)| {
        let path = path.ok_or(Errno::ENOENT)?.clone();
        Ok(Script { name: name.to_owned(), path, identity: identity(file)?, digest: None })
    };
    std::iter::once(first).chain(inner).map(script).collect()
}

fn describe(path: &CStr, found: &Resolved, argv: &[CString]) -> Exec {
    let mut room = RECORDED;
    let kept = argv.iter().take_while(|argument| {
        let fits = argument.as_bytes().len() <= room;
        room = room.saturating_sub(argument.as_bytes().len() + 1);
        fits
    });
    let (kept, rest) = argv.split_at(kept.count());
    let called = Path::new(std::ffi::OsStr::from_bytes(path.to_bytes())).file_name();
    let called = called.map(|name| escape_bytes(name.as_bytes())).unwrap_or_default();
    Exec { argc: argv.len(), rest: escaped(rest), ..Exec::of(found.path.clone(), called, escaped(kept)) }
}

fn escaped(arguments: &[CString]) -> Vec<String> {
    arguments.iter().map(|argument| escape_bytes(argument.as_bytes())).collect()
}

/// What the dynamic loader runs.
struct Image {
    /// Which argument names it.
    at: usize,
    own: Option<Own>,
    script: Script,
}

/// What the dynamic loader is told to run: it maps that file itself, and no exec of it is ever seen.
fn loaded(context: &Context<'_>, loader: &Path, arguments: &[CString]) -> Option<Image> {
    let at = loaded_argument(loader, arguments)?;
    let found = resolve(&context.caller(), libc::AT_FDCWD, &arguments[at], Last::Followed).ok()?;
    let stat = found.stat?;
    let own = found.object().ok().and_then(|file| Own::of(context, &found, &file));
    let (name, identity) = (arguments[at].clone(), (stat.st_dev, stat.st_ino));
    Some(Image { at, own, script: Script { name, path: found.path, identity, digest: None } })
}

/// Which argument of the dynamic loader (ld.so(8)) names the program.
fn loaded_argument(loader: &Path, arguments: &[CString]) -> Option<usize> {
    const VALUED: [&[u8]; 7] = [
        b"--library-path",
        b"--glibc-hwcaps-prepend",
        b"--glibc-hwcaps-mask",
        b"--inhibit-rpath",
        b"--audit",
        b"--preload",
        b"--argv0",
    ];
    let name = loader.file_name()?.as_bytes();
    let named_so = name.windows(3).any(|part| part == b".so");
    if !named_so || ![&b"ld-"[..], b"ld.", b"ld64."].iter().any(|start| name.starts_with(start)) {
        return None;
    }
    let mut at = 1;
    while let Some(argument) = arguments.get(at).map(|argument| argument.as_bytes()) {
        match argument {
            b"--" => return Some(at + 1).filter(|at| *at < arguments.len()),
            b"--list" | b"--verify" | b"--help" | b"--version" => return None,
            option if !option.starts_with(b"-") => return Some(at),
            option => at += 1 + usize::from(VALUED.contains(&option)),
        }
    }
    None
}

fn asked(path: &CStr, found: &Resolved) -> Option<String> {
    (path.to_bytes() != found.path.as_path().as_os_str().as_bytes()).then(|| escape_bytes(path.to_bytes()))
}

fn identity(file: &OwnedFd) -> Result<(u64, u64), Errno> {
    file::fstatat(file.as_raw_fd(), c"", libc::AT_EMPTY_PATH).map(|stat| (stat.st_dev, stat.st_ino))
}

/// The errors by which the kernel repeats a call (`ERESTARTSYS` to `ERESTART_RESTARTBLOCK`): it comes again, is judged
/// again, and only then is there an outcome.
const RESTARTED_FIRST: i32 = 512;
const RESTARTED_LAST: i32 = 516;

/// Lets the exec go on under trace and compares what came of it.
fn start_verified(context: &Context<'_>, mut judged: Judged, approved: &Approved) -> Handled {
    // An exec takes as long as the file takes to load.
    if !context.may_wait() {
        return context.conclude(judged, Reply::Errno(Errno::EAGAIN));
    }
    let tid = Pid::from_raw(context.call.stopped.target.tid);
    match seize(tid) {
        Ok(()) => {}
        // Another thread's exec has ended this one.
        Err(Errno::ESRCH) => return Err(Stop::Gone),
        Err(errno) => {
            tracing::debug!(%errno, %tid, "cannot trace");
            return Err(Stop::Unjudged(Unjudged::Unreadable, Errno::EACCES));
        }
    }
    let _ = context.call.stopped.answer(Reply::Continue(Because::ExecIsVerified));
    let mut parts = Vec::new();
    let followed = follow(context, tid, approved, &mut parts);
    let script = match followed {
        Followed::Stands(pid) => to_watch(context, pid, approved, &parts),
        Followed::Over(_) => None,
    };
    name_by_digest(&mut judged, parts);
    let outcome = match followed {
        Followed::Stands(_) => Outcome::Ok,
        Followed::Over(outcome) => outcome,
    };
    if !matches!(outcome, Outcome::Errno(RESTARTED_FIRST..=RESTARTED_LAST)) {
        context.shared.gate.settle(judged, outcome);
    }
    // Not before: another worker may take up the new program's first call at once, and is to find its action begun.
    if let Followed::Stands(pid) = followed {
        forget_what_it_was(context);
        match script {
            Some(script) => let_go_once_opened(context, pid, script),
            None => let_go(pid, 0),
        }
    }
    Ok(())
}

/// The file that what was just started is to be seen to open, if the box could have put another in its place: its own
/// script, or the one that the last program was to open and hands on. Where no rule of one's own tells programs apart it
/// is not worth the time: the record has the digest of the moment before.
fn to_watch(context: &Context<'_>, pid: Pid, approved: &Approved, parts: &[Part]) -> Option<Script> {
    if !context.shared.gate.tells_programs_apart() {
        return None;
    }
    let process = Target { tid: pid.as_raw(), ..context.call.stopped.target };
    let handed_on = context.shared.scripts.take(process, &approved.arguments);
    let Some(script) = approved.scripts.last().filter(|script| may_turn(context, script)) else { return handed_on };
    let digest = parts.iter().find(|part| part.file == script.path).map(|part| part.digest.clone());
    Some(Script { digest, ..script.clone() })
}

/// Whether the box could have another file found by a script's name, or write to this one.
fn may_turn(context: &Context<'_>, script: &Script) -> bool {
    // Another process may share the working directory, and a descriptor may be another process's.
    let is_fixed = |path: &BoxPath| !["/proc", "/dev/fd"].iter().any(|dir| path.as_path().starts_with(dir));
    let name = script.name.to_bytes();
    let named = Some(name).filter(|name| name.starts_with(b"/")).and_then(|name| lexical(Path::new("/"), name));
    let own = |path: &BoxPath| context.shared.gate.is_the_boxs_own(path);
    own(&script.path) || !named.is_some_and(|path| is_fixed(&path) && !own(&path))
}

/// What an exec has come to.
enum Followed {
    /// What was approved stands still before its first instruction.
    Stands(Pid),
    /// Nothing is left to do.
    Over(Outcome),
}

/// What is told of a traced thread. Stops at calls are told from others in case it is followed call by call.
const TRACE: Options =
    Options::PTRACE_O_TRACEEXEC.union(Options::PTRACE_O_TRACESYSGOOD).union(Options::PTRACE_O_EXITKILL);

/// Traces the stopped thread and asks for a stop as soon as its call is over, whichever way it ends.
fn seize(tid: Pid) -> Result<(), Errno> {
    ptrace::seize(tid, TRACE)?;
    ptrace::interrupt(tid)
}

/// Waits for the traced thread's next stop and judges it.
///
/// A successful exec stops before anything else can happen; any other stop means that the call failed. A thread that
/// was not its process's first takes that one's number in the exec, so the wait is for whatever this worker traces.
fn follow(context: &Context<'_>, tid: Pid, approved: &Approved, parts: &mut Vec<Part>) -> Followed {
    let leader = Pid::from_raw(context.task.subject.host);
    let ours = |pid: Pid| pid == tid || pid == leader;
    loop {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WSTOPPED | WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
        match waitid(Id::All, flags) {
            Err(Errno::EINTR) => {}
            Ok(WaitStatus::PtraceEvent(pid, Signal::SIGTRAP, event))
                if event == TraceEvent::PTRACE_EVENT_EXEC as i32 && ours(pid) =>
            {
                return verify(context, pid, approved, parts);
            }
            Ok(WaitStatus::PtraceEvent(pid, _, 1..)) if ours(pid) => return Followed::Over(failed(pid, 0)),
            Ok(WaitStatus::PtraceEvent(pid, signal, _) | WaitStatus::Stopped(pid, signal)) if ours(pid) => {
                return Followed::Over(failed(pid, signal as i32));
            }
            Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..)) if ours(pid) => {
                return Followed::Over(Outcome::Errno(Errno::ESRCH as i32));
            }
            Ok(_) => {}
            // Nothing is traced any more: it died under another's hand.
            Err(_) => return Followed::Over(Outcome::Errno(Errno::ESRCH as i32)),
        }
    }
}

/// What was approved may go on its way, once it is known what it is made of; anything else is ended.
fn verify(context: &Context<'_>, pid: Pid, approved: &Approved, parts: &mut Vec<Part>) -> Followed {
    if runs(pid, approved).unwrap_or(false) && reads_scripts(context, pid, approved) {
        *parts = digests(context, approved);
        if let Some(action) = approved.begins {
            mark(context, action);
        }
        return Followed::Stands(pid);
    }
    // The stop is before the first instruction of whatever this is; it never runs one.
    let _ = nix::sys::signal::kill(pid, Signal::SIGKILL);
    reap(pid);
    Followed::Over(Outcome::Killed)
}

/// The digests of the box's own files that take part, taken while what was started stands still.
///
/// That of the executable is of what runs: nobody can write to it any more. A script and what the dynamic loader runs
/// are opened later, by the program itself: theirs are compared again then.
fn digests(context: &Context<'_>, approved: &Approved) -> Vec<Part> {
    let digest = |own: &Own| match identity(&own.file) {
        Ok(file) if file == approved.executable => context.shared.digests.of_running(&own.file),
        _ => digest::of_now(&own.file),
    };
    approved.own.iter().map(|own| Part { file: own.path.clone(), digest: digest(own) }).collect()
}

/// Adds to the record what was started, apart from its path.
fn name_by_digest(judged: &mut Judged, mut parts: Vec<Part>) {
    let Access::Exec(exec) = &mut judged.event.access else { return };
    if parts.first().is_some_and(|part| part.file == exec.program) {
        exec.digest = Some(parts.remove(0).digest);
    }
    exec.parts = parts;
}

/// Ends the trace. A process that was killed in its stop is not there to be let go, but still to be reaped.
pub(super) fn let_go(pid: Pid, signal: i32) {
    if process::resume(pid, Resume::Untraced(signal)).is_err() {
        reap(pid);
    }
}

/// Whether the names under which interpreters will find their scripts lead to the scripts that were judged.
fn reads_scripts(context: &Context<'_>, pid: Pid, approved: &Approved) -> bool {
    if approved.scripts.is_empty() {
        return true;
    }
    let target = Target { tid: pid.as_raw(), ..context.call.stopped.target };
    context.shared.lineage.forget(pid.as_raw());
    let task = context.shared.lineage.task(target, context.call.stopped.received);
    let caller = Caller { target, task: &task, ..context.caller() };
    approved.scripts.iter().all(|script| {
        resolve(&caller, libc::AT_FDCWD, &script.name, Last::Followed)
            .is_ok_and(|found| found.stat.is_some_and(|stat| (stat.st_dev, stat.st_ino) == script.identity))
    })
}

/// Marks the process, before it runs its first instruction, with the action that it begins.
fn mark(context: &Context<'_>, action: ActionId) {
    if let Err(errno) = context.shared.lineage.mark(&context.task.subject, action) {
        let (pid, why) = (context.task.subject.pid, errno.desc());
        context.shared.gate.remark(format!("process {pid} cannot be marked as action {action}: {why}"));
    }
}

/// What is remembered of the process is the old program's.
fn forget_what_it_was(context: &Context<'_>) {
    // A thread that was not its process's first has taken over that one's number.
    for changed in [context.call.stopped.target.tid, context.task.subject.host] {
        context.shared.lineage.forget(changed);
        context.shared.aims.forget(changed);
    }
}

/// Waits for the end of a traced process: until its tracer has, its parent cannot see it.
pub(super) fn reap(pid: Pid) {
    loop {
        match waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD) {
            Err(Errno::EINTR) => {}
            _ => return,
        }
    }
}

/// Whether the stopped process runs the approved executable with the approved arguments.
fn runs(pid: Pid, approved: &Approved) -> Result<bool, Errno> {
    let exe = CString::new(format!("{pid}/exe")).map_err(|_| Errno::EINVAL)?;
    let stat = file::fstatat(libc::AT_FDCWD, &exe, 0)?;
    if (stat.st_dev, stat.st_ino) != approved.executable {
        return Ok(false);
    }
    let cmdline = CString::new(format!("{pid}/cmdline")).map_err(|_| Errno::EINVAL)?;
    let found = file::read_small(libc::AT_FDCWD, &cmdline)?;
    let mut rest = &found[..];
    for argument in &approved.arguments {
        match rest.strip_prefix(argument.as_bytes_with_nul()) {
            Some(tail) => rest = tail,
            None => return Ok(false),
        }
    }
    Ok(rest.is_empty())
}

/// The exec failed, and the caller goes on where it was; a signal that came meanwhile is delivered.
fn failed(pid: Pid, signal: i32) -> Outcome {
    let errno = ptrace::getregs(pid).map_or(Errno::EACCES as i32, |registers| -(registers.rax as i32));
    let_go(pid, signal);
    Outcome::Errno(errno)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn c(text: &str) -> CString {
        CString::new(text).unwrap()
    }

    #[test]
    fn a_script_is_found_with_its_interpreter_argument_and_name() {
        let dir = tempfile::tempdir().unwrap();
        let file = std::fs::File::open(dir.path()).unwrap();
        let link = |written: &str, argument: Option<&str>| Interpreter {
            file: Arc::new(file.try_clone().unwrap().into()),
            path: None,
            own: None,
            written: c(written),
            argument: argument.map(c),
        };
        let argv = [c("ignored"), c("x"), c("y")];
        let found = final_arguments(&[link("/usr/bin/env", Some("python3 -u"))], c"./s", &argv);
        assert_eq!(found, ["/usr/bin/env", "python3 -u", "./s", "x", "y"].map(c));
        let nested = final_arguments(&[link("./inner", None), link("/bin/sh", Some("-e"))], c"./s", &argv);
        assert_eq!(nested, ["/bin/sh", "-e", "./inner", "./s", "x", "y"].map(c));
        assert_eq!(final_arguments(&[], c"./s", &[]), [CString::default()]);
    }

    #[test]
    fn the_argument_that_the_loader_runs_is_found_behind_its_options() {
        let given = |loader: &str, arguments: &str| {
            let arguments: Vec<CString> = arguments.split(' ').map(c).collect();
            loaded_argument(Path::new(loader), &arguments)
        };
        let glibc = "/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2";
        for (loader, arguments, expected) in [
            (glibc, "ld.so /usr/bin/git push", Some(1)),
            (glibc, "ld.so --library-path /x --argv0 a --inhibit-cache git push", Some(6)),
            (glibc, "ld.so --preload", None),
            (glibc, "ld.so --list git", None),
            (glibc, "ld.so", None),
            ("/lib/ld-musl-x86_64.so.1", "ld -- git", Some(2)),
            ("/lib/ld-2.31.so", "x git", Some(1)),
            ("/usr/bin/ld", "ld git", None),
            ("/usr/bin/git", "git push", None),
        ] {
            assert_eq!(given(loader, arguments), expected, "{arguments}");
        }
    }
}
