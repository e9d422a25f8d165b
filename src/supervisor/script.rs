//! What a program that was started opens itself: an interpreter its script, the dynamic loader its program.
//!
//! It does so by name, some time after the exec was verified, and by then the name may lead elsewhere, or the file hold
//! something else. Such an open goes on in the kernel like every other that only reads. So where the box could turn the
//! name or write the file, the program is traced on from the stop of its exec, call by call, until it has opened just the
//! file that was judged, and is ended if it opened another by that name. `#!/usr/bin/env` hands the script on to the next
//! exec, and so is what is known of it.
//!
//! Not seen is an open that another thread or process makes for the program: it is let go at its first child, or when it
//! rests, and the log says so. And a shell reads on in its script while it runs: who writes to that file meanwhile is on
//! record for it.

use std::collections::HashMap;
use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::sync::Mutex;

use nix::errno::Errno;
use nix::sys::ptrace::{self, Event as TraceEvent};
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

use super::exec::{let_go, reap};
use super::resolve::{lexical, real_path};
use super::target::Target;
use super::{Context, digest, lock};
use crate::event::{Access, BoxPath, Event, Unjudged, escape_bytes};
use crate::gate::Outcome;
use crate::sys::file;
use crate::sys::process::{self, Resume};

/// So many stops, two a call, are enough for every interpreter that is known to get to its script.
const MOST_STOPS: usize = 20_000;
/// Python looks whether its script is an archive, and opens it again some twenty calls later.
const LINGERS: usize = 100;
/// A program that has made no call for so many looks at it, a second or more, waits for somebody.
const RESTED: usize = 100;
/// So many scripts can be on the way from one exec to the next.
const MOST_HANDED_ON: usize = 256;

/// A file that a program is about to open itself.
#[derive(Debug, Clone)]
pub struct Script {
    /// The name that the program is given.
    pub name: CString,
    /// Where that led.
    pub path: BoxPath,
    /// What was there.
    pub identity: (u64, u64),
    /// What it held, if the box could have written it.
    pub digest: Option<String>,
}

/// Scripts on the way from one program to the next in the same process.
#[derive(Default)]
pub struct Scripts {
    handed_on: Mutex<HashMap<i32, (Script, String)>>,
}

impl Scripts {
    /// Takes down that the process, which is about to start its next program, has not opened its script yet.
    fn hand_on(&self, process: Target, script: Script) {
        let mut handed_on = lock(&self.handed_on);
        if handed_on.len() >= MOST_HANDED_ON {
            handed_on.clear();
        }
        handed_on.insert(process.tid, (script, born(process)));
    }

    /// What was handed on to the program that the process has just started, if that was given the script's name, too.
    pub fn take(&self, process: Target, arguments: &[CString]) -> Option<Script> {
        let mut handed_on = lock(&self.handed_on);
        if handed_on.is_empty() {
            return None;
        }
        let (script, birth) = handed_on.remove(&process.tid)?;
        (birth == born(process) && arguments.contains(&script.name)).then_some(script)
    }
}

/// When a process began: a number is given away again.
fn born(process: Target) -> String {
    let stat = process.text("stat");
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    fields.split_whitespace().nth(19).unwrap_or_default().to_string()
}

/// Lets a program that stands traced at its exec run until it has opened its script, and then go its way.
pub fn let_go_once_opened(context: &Context<'_>, pid: Pid, script: Script) {
    let process = Target { tid: pid.as_raw(), ..context.call.stopped.target };
    let mut watch = Watch { context, pid, process, script, left: MOST_STOPS, opened: false };
    // The call is answered long since; so it is taken for one that nobody waits for, and interrupted again and again.
    let end = context.shared.waits.interruptible(context, || Ok(watch.run()));
    watch.conclude(end.unwrap_or(End::Rests));
}

struct Watch<'a> {
    context: &'a Context<'a>,
    pid: Pid,
    process: Target,
    script: Script,
    /// After how many stops it is let go.
    left: usize,
    opened: bool,
}

/// How a watch ends.
enum End {
    /// It has opened its script, or has been watched for long enough.
    Enough,
    /// It is about to start the next program.
    NextProgram,
    /// It is about to have a child, which may do its work.
    Child,
    /// It runs, and waits for others.
    Rests,
    /// It opened something else by its script's name.
    Another,
    /// It has ended.
    Gone,
}

/// Why a traced program stands still.
enum Halt {
    Call,
    /// A signal is to be delivered.
    Signal(i32),
    /// It was stopped by a signal, as any process can be.
    Paused,
    /// For its tracer.
    Trap,
    Gone,
}

impl Watch<'_> {
    fn run(&mut self) -> End {
        let mut how = Resume::ToNextCall(0);
        while self.left > 0 {
            if process::resume(self.pid, how).is_err() {
                return End::Gone;
            }
            let Some(halt) = self.next_halt(how == Resume::Paused) else { return End::Rests };
            how = match halt {
                Halt::Call => match self.look() {
                    Some(end) => return end,
                    None => {
                        self.left -= 1;
                        Resume::ToNextCall(0)
                    }
                },
                Halt::Signal(number) => Resume::ToNextCall(number),
                Halt::Paused => Resume::Paused,
                Halt::Trap => Resume::ToNextCall(0),
                Halt::Gone => return End::Gone,
            }
        }
        End::Enough
    }

    /// Waits for the next stop; `None` if the program rests.
    fn next_halt(&self, paused: bool) -> Option<Halt> {
        let mut rested = 0;
        while rested < RESTED {
            match wait(self.pid) {
                // Whoever is stopped does not rest.
                Err(Errno::EINTR) => rested += usize::from(!paused),
                Err(_) => return Some(Halt::Gone),
                Ok(halt) => return Some(halt),
            }
        }
        None
    }

    /// Looks at a call that begins or has ended; whether that is the end of the watch.
    fn look(&mut self) -> Option<End> {
        const BEGINS: i64 = -(libc::ENOSYS as i64);
        const THREAD: u64 = libc::CLONE_THREAD as u64;
        let Ok(registers) = ptrace::getregs(self.pid) else { return Some(End::Gone) };
        let result = registers.rax as i64;
        let begins = result == BEGINS;
        match registers.orig_rax as i64 {
            libc::SYS_execve | libc::SYS_execveat if begins => Some(End::NextProgram),
            libc::SYS_fork | libc::SYS_vfork if begins => Some(End::Child),
            libc::SYS_clone if begins && registers.rdi & THREAD == 0 => Some(End::Child),
            // Who writes to its own script does not take it from there.
            libc::SYS_open if result >= 0 && writes(registers.rsi) => None,
            libc::SYS_openat if result >= 0 && writes(registers.rdx) => None,
            libc::SYS_open if result >= 0 => self.look_at(result as i32, registers.rdi),
            libc::SYS_openat | libc::SYS_openat2 if result >= 0 => {
                // A name below a directory other than the working one says nothing by itself; its path does.
                let name = if registers.rdi as i32 == libc::AT_FDCWD { registers.rsi } else { 0 };
                self.look_at(result as i32, name)
            }
            _ => None,
        }
    }

    /// Looks at a file that was opened under the name that lies at `name`.
    fn look_at(&mut self, number: i32, name: u64) -> Option<End> {
        let Ok(opened) = self.process.descriptor(number) else { return Some(End::Another) };
        let stat = file::fstatat(opened.as_raw_fd(), c"", libc::AT_EMPTY_PATH).ok()?;
        if (stat.st_dev, stat.st_ino) != self.script.identity {
            return self.goes_by_its_name(&opened, name).then_some(End::Another);
        }
        if self.script.digest.as_ref().is_some_and(|digest| *digest != digest::of_now(&opened)) {
            return Some(End::Another);
        }
        self.opened = true;
        self.left = self.left.min(LINGERS);
        None
    }

    /// Whether a file has the script's path, or was asked for by its name, however that was written.
    fn goes_by_its_name(&self, opened: &OwnedFd, name: u64) -> bool {
        if real_path(opened).is_ok_and(|path| path == self.script.path.as_path()) {
            return true;
        }
        let Ok(name) = self.process.path(name) else { return false };
        let here = self.process.link("cwd").unwrap_or_default();
        let here = PathBuf::from(std::ffi::OsString::from_vec(here));
        lexical(&here, name.to_bytes()) == lexical(&here, self.script.name.to_bytes())
    }

    fn conclude(self, end: End) {
        match end {
            End::Gone => reap(self.pid),
            End::Another => self.end_it(),
            End::Rests => self.interrupt(),
            End::NextProgram if !self.opened => {
                self.context.shared.scripts.hand_on(self.process, self.script);
                let_go(self.pid, 0);
            }
            End::Enough | End::Child | End::NextProgram => {
                self.tell_if_unopened();
                let_go(self.pid, 0);
            }
        }
    }

    /// Ends the trace of a program that runs: it must stand still for that.
    fn interrupt(&self) {
        self.tell_if_unopened();
        if ptrace::interrupt(self.pid).is_err() {
            return reap(self.pid);
        }
        let halt = loop {
            match wait(self.pid) {
                Err(Errno::EINTR) => {}
                halt => break halt,
            }
        };
        let_go(self.pid, if let Ok(Halt::Signal(signal)) = halt { signal } else { 0 });
    }

    fn tell_if_unopened(&self) {
        if !self.opened {
            self.tell("was let go before it had opened");
        }
    }

    /// What it would have run is not what is on record.
    fn end_it(&self) {
        let _ = nix::sys::signal::kill(self.pid, Signal::SIGKILL);
        reap(self.pid);
        let access = Access::Call { name: "execve".into(), why: Unjudged::Raced };
        let event = Event::new(self.context.task.subject.clone(), access);
        let gate = &self.context.shared.gate;
        gate.settle(gate.judge(event, None, self.context.call.stopped.received), Outcome::Killed);
        self.tell("was ended, as it found something else in the place of");
    }

    fn tell(&self, what: &str) {
        let (process, path) = (self.context.task.subject.pid, self.script.path.as_path());
        let path = escape_bytes(path.as_os_str().as_bytes());
        self.context.shared.gate.remark(format!("process {process} {what} {path}, its script"));
    }
}

/// Whether open flags ask for writing.
fn writes(flags: u64) -> bool {
    flags as i32 & libc::O_ACCMODE != libc::O_RDONLY
}

fn wait(pid: Pid) -> Result<Halt, Errno> {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WSTOPPED | WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
    let status = match waitid(Id::Pid(pid), flags) {
        // A real-time signal, for which there is no name.
        Err(Errno::EINVAL) => return Ok(Halt::Signal(ptrace::getsiginfo(pid)?.si_signo)),
        status => status?,
    };
    Ok(match status {
        WaitStatus::PtraceSyscall(_) => Halt::Call,
        WaitStatus::PtraceEvent(_, Signal::SIGTRAP, event) if event != 0 => Halt::Trap,
        WaitStatus::PtraceEvent(_, _, event) if event == TraceEvent::PTRACE_EVENT_STOP as i32 => Halt::Paused,
        WaitStatus::PtraceEvent(_, signal, _) | WaitStatus::Stopped(_, signal) => Halt::Signal(signal as i32),
        WaitStatus::Exited(..) | WaitStatus::Signaled(..) => Halt::Gone,
        WaitStatus::Continued(_) | WaitStatus::StillAlive => Halt::Trap,
    })
}
