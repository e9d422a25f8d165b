//! Looks after a running box from agentbox's main thread: forwards signals, keeps the time limit, carries terminal
//! bytes, and learns how the command ended.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill, raise};
use nix::sys::signalfd::{SfdFlags, SignalFd, siginfo};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{Pid, read, write};

use super::handshake::{Ended, Message};
use super::launch::Running;
use super::terminal::{self, RawMode};
use crate::sys;

/// Between TERM and KILL when the time is up.
const GRACE: Duration = Duration::from_secs(5);

/// The signals that a user sends to the command by sending them to agentbox.
const FORWARDED: [Signal; 9] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
    Signal::SIGTSTP,
    Signal::SIGCONT,
];

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The command ended.
    Ended {
        /// How.
        how: Ended,
        /// Whether the time limit ended it.
        timed_out: bool,
    },
    /// It could not be started.
    NotStarted {
        /// Its path.
        path: String,
        /// Why.
        errno: Errno,
    },
    /// A step before its exec failed.
    Failed {
        /// What, with the error chain.
        step: String,
    },
    /// init ended without a word: somebody killed it.
    Lost,
}

/// Blocks the forwarded signals and returns a descriptor that reads them.
///
/// Before the fork and before any thread: all inherit the mask, and the command resets it.
pub fn collect_signals() -> nix::Result<SignalFd> {
    let mask: SigSet = FORWARDED.into_iter().collect();
    mask.thread_block()?;
    SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}

/// A descriptor, and what is done with it when it has something to say for the first time.
pub struct Door<'a> {
    at: OwnedFd,
    opened: Box<dyn FnOnce(OwnedFd) + 'a>,
}

impl<'a> Door<'a> {
    /// Has `opened` called once, with `at`.
    pub fn new(at: OwnedFd, opened: impl FnOnce(OwnedFd) + 'a) -> Self {
        Self { at, opened: Box::new(opened) }
    }
}

/// Stays with the box until it ends. `tick` is called again and again, each time after what it returned last.
pub fn attend(
    running: &Running,
    signals: &SignalFd,
    terminal: Option<OwnedFd>,
    limit: Option<Duration>,
    door: Option<Door<'_>>,
    tick: impl Fn() -> Duration,
) -> nix::Result<Outcome> {
    let raw = terminal.as_ref().map(|_| RawMode::enter()).transpose()?;
    let mut attendant = Attendant {
        running,
        signals,
        terminal,
        door,
        stdin_open: true,
        deadline: limit.map(|limit| Instant::now() + limit),
        stage: Stage::Running,
        outcome: None,
        command: None,
    };
    while !attendant.ended() {
        attendant.wait(tick())?;
    }
    attendant.drain_terminal();
    drop(raw);
    waitpid(running.init, Some(WaitPidFlag::__WALL))?;
    let timed_out = attendant.stage != Stage::Running;
    Ok(match attendant.outcome.unwrap_or(Outcome::Lost) {
        Outcome::Ended { how, .. } => Outcome::Ended { how, timed_out },
        other => other,
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Running,
    Asked,
    Killed,
}

struct Attendant<'a> {
    running: &'a Running,
    signals: &'a SignalFd,
    terminal: Option<OwnedFd>,
    door: Option<Door<'a>>,
    stdin_open: bool,
    deadline: Option<Instant>,
    stage: Stage,
    outcome: Option<Outcome>,
    /// Set when the channel is at its end.
    command: Option<()>,
}

impl Attendant<'_> {
    fn ended(&self) -> bool {
        self.command.is_some()
    }

    fn wait(&mut self, most: Duration) -> nix::Result<()> {
        let input = io::stdin();
        let mut fds = vec![
            PollFd::new(self.running.channel.fd().as_fd(), PollFlags::POLLIN),
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
        ];
        if let Some(master) = &self.terminal {
            fds.push(PollFd::new(master.as_fd(), PollFlags::POLLIN));
            if self.stdin_open {
                fds.push(PollFd::new(input.as_fd(), PollFlags::POLLIN));
            }
        }
        let door_at = fds.len();
        fds.extend(self.door.as_ref().map(|door| PollFd::new(door.at.as_fd(), PollFlags::POLLIN)));
        match poll(&mut fds, self.timeout(most)) {
            Err(Errno::EINTR) => return Ok(()),
            done => done?,
        };
        let mut ready: Vec<bool> = fds.iter().map(|fd| fd.revents().is_some_and(|events| !events.is_empty())).collect();
        drop(fds);
        if ready.split_off(door_at).contains(&true)
            && let Some(door) = self.door.take()
        {
            (door.opened)(door.at);
        }
        let is_ready = |at: usize| ready.get(at).copied().unwrap_or(false);
        if is_ready(1) {
            self.forward_signals()?;
        }
        if is_ready(2) {
            self.terminal_to_person();
        }
        if is_ready(3) {
            self.person_to_terminal();
        }
        if is_ready(0) {
            self.hear()?;
        }
        self.keep_time();
        Ok(())
    }

    fn timeout(&self, most: Duration) -> PollTimeout {
        let left = self.deadline.map_or(most, |deadline| deadline.saturating_duration_since(Instant::now()).min(most));
        // Rounded up, so that the last wait does not spin.
        PollTimeout::try_from(left.saturating_add(Duration::from_millis(1))).unwrap_or(PollTimeout::MAX)
    }

    fn hear(&mut self) -> nix::Result<()> {
        match self.running.channel.receive()? {
            None => self.command = Some(()),
            Some((Message::Ended(how), _)) => {
                // A command that was never started has said so already, and its status is of our making.
                self.outcome.get_or_insert(Outcome::Ended { how, timed_out: false });
                self.command = Some(());
            }
            Some((Message::NotStarted { path, errno }, _)) => {
                self.outcome = Some(Outcome::NotStarted { path, errno: Errno::from_raw(errno) });
            }
            Some((Message::Failed { step }, _)) => self.outcome = Some(Outcome::Failed { step }),
            Some(_) => {}
        }
        Ok(())
    }

    fn forward_signals(&mut self) -> nix::Result<()> {
        while let Some(info) = self.signals.read_signal()? {
            let Ok(signal) = Signal::try_from(info.ssi_signo as i32) else { continue };
            match signal {
                Signal::SIGWINCH => {
                    if let Some(master) = &self.terminal {
                        terminal::copy_window_size(master);
                    } else {
                        self.signal_command(signal);
                    }
                }
                Signal::SIGTSTP => self.stop_with_the_box()?,
                _ if from_terminal(&info) => self.signal_group(signal),
                _ => self.signal_command(signal),
            }
        }
        Ok(())
    }

    /// ^Z at the person's terminal: the box stops, then agentbox itself, as the shell expects of one job.
    fn stop_with_the_box(&self) -> nix::Result<()> {
        self.signal_group(Signal::SIGSTOP);
        raise(Signal::SIGSTOP)?;
        self.signal_group(Signal::SIGCONT);
        Ok(())
    }

    fn signal_command(&self, signal: Signal) {
        // It may be gone already; then there is nothing left to signal.
        let _ = sys::process::signal(self.running.command.as_fd(), signal);
    }

    /// What a terminal does with its keys: the signal goes to the whole process group.
    fn signal_group(&self, signal: Signal) {
        match command_pid(self.running.command.as_fd()) {
            Some(pid) => {
                let _ = kill(Pid::from_raw(-pid), signal);
            }
            None => self.signal_command(signal),
        }
    }

    fn keep_time(&mut self) {
        let Some(deadline) = self.deadline else { return };
        if Instant::now() < deadline {
            return;
        }
        match self.stage {
            Stage::Running => {
                self.signal_group(Signal::SIGTERM);
                self.signal_group(Signal::SIGCONT);
                self.stage = Stage::Asked;
                self.deadline = Some(Instant::now() + GRACE);
            }
            Stage::Asked => {
                self.signal_command(Signal::SIGKILL);
                self.stage = Stage::Killed;
                self.deadline = None;
            }
            Stage::Killed => {}
        }
    }

    fn terminal_to_person(&mut self) {
        let Some(master) = &self.terminal else { return };
        let mut bytes = [0u8; 16384];
        match read(master, &mut bytes) {
            Ok(n) if n > 0 => {
                write_all(io::stdout().as_fd(), &bytes[..n]);
            }
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            // EIO: the last process with the terminal open is gone.
            _ => self.terminal = None,
        }
    }

    fn person_to_terminal(&mut self) {
        let Some(master) = &self.terminal else { return };
        let mut bytes = [0u8; 4096];
        match read(io::stdin(), &mut bytes) {
            Ok(n) if n > 0 => {
                write_all(master.as_fd(), &bytes[..n]);
            }
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            // The person's terminal is gone; SIGHUP says so to the command.
            _ => self.stdin_open = false,
        }
    }

    /// What the command wrote last is still in the terminal when it is gone.
    fn drain_terminal(&mut self) {
        while let Some(master) = &self.terminal {
            let mut fds = [PollFd::new(master.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, PollTimeout::ZERO) {
                Ok(1) => self.terminal_to_person(),
                _ => return,
            }
        }
    }
}

fn from_terminal(info: &siginfo) -> bool {
    info.ssi_code == libc::SI_KERNEL
}

fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match write(fd, bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => {
                let mut fds = [PollFd::new(fd, PollFlags::POLLOUT)];
                let _ = poll(&mut fds, PollTimeout::NONE);
            }
            Err(_) => return,
        }
    }
}

/// The command's number on this side, from its process descriptor; `None` once it is gone.
fn command_pid(pidfd: BorrowedFd<'_>) -> Option<i32> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).ok()?;
    let pid = info.lines().find_map(|line| line.strip_prefix("Pid:"))?.trim().parse().ok()?;
    (pid > 0).then_some(pid)
}
