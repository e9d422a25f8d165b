//! Starting programs: the kernel carries an exec out, and what it started is verified before it runs.
//!
//! The path, the argument vector and the file can all change between the look and the act. So the caller is traced
//! across its exec: at the stop that follows, before the new program's first instruction, its executable and arguments
//! are compared with what was approved, and a difference is fatal. Landlock's execute right is the wall behind it.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::ptrace::{self, Event as TraceEvent, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

use super::notification::{Because, Reply};
use super::resolve::{Last, Resolved, descriptor, own_fd, real_path, resolve};
use super::{Context, Handled, Stop};
use crate::event::{Access, BoxPath, Exec, Unjudged, escape_bytes};
use crate::gate::{Judged, Outcome};
use crate::sys::file;
use crate::syscalls::Arg;

/// Linux takes at most a quarter of the stack's limit, 6 MiB at the usual 8; we take no more than this.
const MOST_ARGUMENTS: usize = 8 << 20;
/// How much of the argument vector a record keeps.
const RECORDED: usize = 64 << 10;
/// How deep `#!` lines may name scripts: the kernel's own limit (`BINPRM_BUF_SIZE` loops, exec.c).
const MOST_INTERPRETERS: usize = 5;

/// What was approved.
struct Approved {
    /// The file that may end up as the executable: the program, or the last interpreter.
    executable: (u64, u64),
    /// The arguments as the new program must find them.
    arguments: Vec<CString>,
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
        descriptor(target, call.dir(Arg::Dir))
    } else {
        let last = if flags & libc::AT_SYMLINK_NOFOLLOW != 0 { Last::Itself } else { Last::Followed };
        resolve(target, context.task, call.dir(Arg::Dir), &path, last)
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
    let object = found.object().map_err(Stop::Errno)?;
    let chain = interpreters(context, &object)?;
    let approved = Approved {
        executable: identity(chain.last().map_or(&object, |link| &link.file)).map_err(Stop::Errno)?,
        arguments: final_arguments(&chain, &script_name(context, &path, empty), &argv),
    };
    let judged = context.judge(Access::Exec(describe(&path, &found, &chain, &argv)), asked(&path, &found));
    if !judged.allowed() {
        return context.conclude_refused(judged, None);
    }
    start_verified(context, judged, &approved)
}

/// One `#!` line.
struct Interpreter {
    file: OwnedFd,
    path: Option<BoxPath>,
    /// The path as the line has it.
    written: CString,
    argument: Option<CString>,
}

/// Follows `#!` lines from `program` to the interpreter that will run.
fn interpreters(context: &Context<'_>, program: &OwnedFd) -> Result<Vec<Interpreter>, Stop> {
    let mut chain: Vec<Interpreter> = Vec::new();
    while chain.len() < MOST_INTERPRETERS {
        let current = chain.last().map_or(program, |link| &link.file);
        let Some((written, argument)) = script_line(current) else { return Ok(chain) };
        let target = context.call.stopped.target;
        // The kernel fails the exec in just this way; nothing starts.
        let found = resolve(target, context.task, libc::AT_FDCWD, &written, Last::Followed)
            .map_err(|missing| Stop::Errno(missing.errno))?;
        let file = found.object().map_err(Stop::Errno)?;
        let path = real_path(&file).ok().and_then(BoxPath::new);
        chain.push(Interpreter { file, path, written, argument });
    }
    Err(Stop::Errno(Errno::ELOOP))
}

/// The interpreter and its argument from a file's `#!` line, read as the kernel reads it (`binfmt_script.c`): the first
/// 256 bytes, blanks trimmed, everything behind the interpreter as one argument.
///
/// A file that may be run but not read has no line that we can see; then what runs is verified to be that file itself.
fn script_line(file: &OwnedFd) -> Option<(CString, Option<CString>)> {
    let mut buffer = [0; 24];
    let opened =
        file::openat(libc::AT_FDCWD, own_fd(file.as_raw_fd(), &mut buffer), libc::O_RDONLY | libc::O_NONBLOCK, 0);
    let mut head = [0u8; 256];
    let length = nix::sys::uio::pread(&opened.ok()?, &mut head, 0).ok()?;
    let line = head[..length].strip_prefix(b"#!")?;
    let line = line.split(|byte| *byte == b'\n' || *byte == 0).next()?.trim_ascii();
    let end = line.iter().position(|byte| *byte == b' ' || *byte == b'\t').unwrap_or(line.len());
    let (interpreter, argument) = (&line[..end], line[end..].trim_ascii());
    let argument = (!argument.is_empty()).then(|| CString::new(argument)).transpose().ok()?;
    (!interpreter.is_empty()).then(|| CString::new(interpreter).ok().map(|path| (path, argument)))?
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

fn describe(path: &CStr, found: &Resolved, chain: &[Interpreter], argv: &[CString]) -> Exec {
    let mut room = RECORDED;
    let kept = argv.iter().take_while(|argument| {
        let fits = argument.as_bytes().len() <= room;
        room = room.saturating_sub(argument.as_bytes().len() + 1);
        fits
    });
    let called = Path::new(std::ffi::OsStr::from_bytes(path.to_bytes())).file_name();
    Exec {
        program: found.path.clone(),
        called: called.map(|name| escape_bytes(name.as_bytes())).unwrap_or_default(),
        interpreter: chain.last().and_then(|link| link.path.clone()),
        argv: kept.map(|argument| escape_bytes(argument.as_bytes())).collect(),
        argc: argv.len(),
    }
}

fn asked(path: &CStr, found: &Resolved) -> Option<String> {
    (path.to_bytes() != found.path.as_path().as_os_str().as_bytes()).then(|| escape_bytes(path.to_bytes()))
}

fn identity(file: &OwnedFd) -> Result<(u64, u64), Errno> {
    file::fstatat(file.as_raw_fd(), c"", libc::AT_EMPTY_PATH).map(|stat| (stat.st_dev, stat.st_ino))
}

/// Lets the exec go on under trace and compares what came of it.
fn start_verified(context: &Context<'_>, judged: Judged, approved: &Approved) -> Handled {
    // An exec takes as long as the file takes to load.
    context.may_wait();
    let tid = Pid::from_raw(context.call.stopped.target.tid);
    if let Err(errno) = seize(tid) {
        tracing::debug!(%errno, %tid, "cannot trace");
        drop(judged);
        return Err(Stop::Unjudged(Unjudged::Unreadable, Errno::EACCES));
    }
    let _ = context.call.stopped.answer(Reply::Continue(Because::ExecIsVerified));
    let outcome = follow(approved);
    context.shared.lineage.forget(tid.as_raw());
    context.shared.gate.settle(judged, outcome);
    Ok(())
}

/// Traces the stopped thread and asks for a stop as soon as its call is over, whichever way it ends.
fn seize(tid: Pid) -> Result<(), Errno> {
    ptrace::seize(tid, Options::PTRACE_O_TRACEEXEC | Options::PTRACE_O_EXITKILL)?;
    ptrace::interrupt(tid)
}

/// Waits for the traced thread's next stop and judges it.
///
/// A successful exec stops before anything else can happen; any other stop means that the call failed. A thread that
/// was not its process's first takes that one's number in the exec, so the wait is for whatever this worker traces.
fn follow(approved: &Approved) -> Outcome {
    loop {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WSTOPPED | WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
        match waitid(Id::All, flags) {
            Err(Errno::EINTR) => {}
            Ok(WaitStatus::PtraceEvent(pid, Signal::SIGTRAP, event))
                if event == TraceEvent::PTRACE_EVENT_EXEC as i32 =>
            {
                return verify(pid, approved);
            }
            Ok(WaitStatus::PtraceEvent(pid, ..)) => return failed(pid, None),
            Ok(WaitStatus::Stopped(pid, signal)) => return failed(pid, Some(signal)),
            Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) => return Outcome::Errno(Errno::ESRCH as i32),
            Ok(_) => {}
            // Nothing is traced any more: it died under another's hand.
            Err(_) => return Outcome::Errno(Errno::ESRCH as i32),
        }
    }
}

fn verify(pid: Pid, approved: &Approved) -> Outcome {
    if runs(pid, approved).unwrap_or(false) {
        let _ = ptrace::detach(pid, None);
        return Outcome::Ok;
    }
    // The stop is before the first instruction of whatever this is; it never runs one.
    let _ = nix::sys::signal::kill(pid, Signal::SIGKILL);
    reap(pid);
    Outcome::Killed
}

/// Waits for the end of a traced process: until its tracer has, its parent cannot see it.
fn reap(pid: Pid) {
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
    let found = std::fs::read(format!("{pid}/cmdline")).map_err(|_| Errno::EACCES)?;
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
fn failed(pid: Pid, signal: Option<Signal>) -> Outcome {
    let errno = ptrace::getregs(pid).map_or(Errno::EACCES as i32, |registers| -(registers.rax as i32));
    let _ = ptrace::detach(pid, signal);
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
            file: file.try_clone().unwrap().into(),
            path: None,
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
}
