//! agentbox's side of the start: forks init into the plan's namespaces and follows the handshake.
//!
//! Runs while agentbox has one thread; threads may be started as soon as [`launch`] has returned. The methods of
//! [`Starting`], called in their order, then follow the box as it comes up.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use super::handshake::{Channel, Message};
use super::identity::{self, IdentityError};
use super::init;
use crate::plan::Plan;
use crate::plan::seccomp::Filter;
use crate::sys;
use crate::sys::process::{Alone, Fork};

/// The command, ready for exec.
#[derive(Debug, Clone)]
pub struct Command {
    /// Argument vector; the first is the name to look for.
    pub argv: Vec<CString>,
    /// Environment, `NAME=value`.
    pub env: Vec<CString>,
}

/// All that init needs.
#[derive(Debug)]
pub struct Job<'a> {
    /// What to do.
    pub plan: &'a Plan,
    /// The compiled filter.
    pub filter: &'a Filter,
    /// What to start.
    pub command: &'a Command,
    /// Whether the command gets a terminal of its own.
    pub terminal: bool,
    /// The limit of open files (soft, hard) that the command gets back; agentbox raises its own.
    pub open_files: (u64, u64),
}

/// The box did not come up.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// A call on this side failed.
    #[error("cannot {0}")]
    Step(&'static str, #[source] Errno),
    /// The kernel, or a filter around this process, refuses new user namespaces.
    #[error("user namespaces cannot be had")]
    NoNamespaces(#[source] Errno),
    /// The user namespace could not be set up.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A step inside failed.
    #[error("cannot make the box: {0}")]
    Inside(String),
    /// The command could not be started.
    #[error("cannot run {path}")]
    NotStarted {
        /// What was tried.
        path: String,
        /// Why.
        source: Errno,
    },
    /// init died without a word.
    #[error("the box's init ended before the command started")]
    Died,
}

/// A box that is coming up.
#[derive(Debug)]
pub struct Starting {
    init: Pid,
    init_fd: OwnedFd,
    channel: Channel,
}

/// A box with its command.
#[derive(Debug)]
pub struct Running {
    /// init, as this side numbers it.
    pub init: Pid,
    /// init's process descriptor.
    pub init_fd: OwnedFd,
    /// The command's process descriptor.
    pub command: OwnedFd,
    /// Where init's last words arrive.
    pub channel: Channel,
}

/// Forks init, which builds the view and then waits for [`Starting::enter`], and moves agentbox into the box's user
/// namespace. Threads may be started as soon as this has returned.
pub fn launch(alone: &Alone, job: &Job<'_>) -> Result<Starting, LaunchError> {
    let (channel, theirs) = Channel::pair().map_err(|errno| LaunchError::Step("make a channel to the box", errno))?;
    let mut flags = 0;
    if job.plan.namespaces.own {
        flags |= libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
        flags |= libc::CLONE_NEWCGROUP;
    }
    let refused = |errno| match flags {
        0 => LaunchError::Step("fork", errno),
        _ => LaunchError::NoNamespaces(errno),
    };
    match sys::process::fork_into(alone, flags).map_err(refused)? {
        Fork::Child => {
            drop(channel);
            init::run(alone, job, theirs)
        }
        Fork::Parent { pid, pidfd } => {
            let starting = Starting { init: Pid::from_raw(pid), init_fd: pidfd, channel };
            if job.plan.namespaces.own {
                identity::adopt(starting.init, &starting.init_fd)?;
            }
            let begun = starting.channel.send(&Message::Begin, None);
            begun.map_err(|errno| LaunchError::Step("let the box begin", errno))?;
            Ok(starting)
        }
    }
}

impl Starting {
    /// Lets the command enter once the view stands; until then nothing of the user's runs. A box that is gone already has
    /// left its last words for who follows it.
    pub fn enter(&self) -> Result<(), LaunchError> {
        match self.channel.send(&Message::Enter, None) {
            Ok(()) | Err(Errno::EPIPE) => Ok(()),
            Err(errno) => Err(LaunchError::Step("let the command enter", errno)),
        }
    }

    /// init, as this side numbers it.
    pub fn init(&self) -> Pid {
        self.init
    }

    /// Waits until the network namespace stands, and returns it; to be called if the plan says that it is entered.
    pub fn network(&self) -> Result<OwnedFd, LaunchError> {
        match self.next()? {
            (Message::Network, Some(namespace)) => Ok(namespace),
            (other, _) => Err(self.unexpected(other)),
        }
    }

    /// Waits for the socket at which agentbox hears what programs say of themselves; to be called if the plan has a place
    /// for it.
    pub fn annotate(&self) -> Result<OwnedFd, LaunchError> {
        match self.next()? {
            (Message::Annotate, Some(listener)) => Ok(listener),
            (other, _) => Err(self.unexpected(other)),
        }
    }

    /// Waits until the view stands; returns its mount namespace, if the box has one of its own.
    pub fn view(&self) -> Result<Option<OwnedFd>, LaunchError> {
        match self.next()? {
            (Message::View, namespace) => Ok(namespace),
            (other, _) => Err(self.unexpected(other)),
        }
    }

    /// Waits for the box's terminal; to be called if one was asked for.
    pub fn terminal(&self) -> Result<OwnedFd, LaunchError> {
        match self.next()? {
            (Message::Terminal, Some(master)) => Ok(master),
            (other, _) => Err(self.unexpected(other)),
        }
    }

    /// Waits until the command's filter stands and fetches the listener, if there is to be one.
    pub fn command(self, listening: bool) -> Result<(Running, Option<OwnedFd>), LaunchError> {
        let command = match self.next()? {
            (Message::Command, Some(pidfd)) => pidfd,
            (other, _) => return Err(self.unexpected(other)),
        };
        let listener = if listening { Some(self.listener(&command)?) } else { None };
        let Self { init, init_fd, channel } = self;
        Ok((Running { init, init_fd, command, channel }, listener))
    }

    fn listener(&self, command: &OwnedFd) -> Result<OwnedFd, LaunchError> {
        match self.next()? {
            (Message::Listener { number }, _) => sys::process::take_fd(command.as_fd(), number)
                .map_err(|errno| LaunchError::Step("fetch the listener from the command", errno)),
            (other, _) => Err(self.unexpected(other)),
        }
    }

    fn next(&self) -> Result<(Message, Option<OwnedFd>), LaunchError> {
        match self.channel.receive() {
            Ok(Some(message)) => Ok(message),
            Ok(None) => {
                let _ = waitpid(self.init, Some(WaitPidFlag::__WALL));
                Err(LaunchError::Died)
            }
            Err(errno) => Err(LaunchError::Step("hear from the box", errno)),
        }
    }

    fn unexpected(&self, message: Message) -> LaunchError {
        let _ = sys::process::signal(self.init_fd.as_fd(), nix::sys::signal::Signal::SIGKILL);
        let _ = waitpid(self.init, Some(WaitPidFlag::__WALL));
        match message {
            Message::Failed { step } => LaunchError::Inside(step),
            Message::NotStarted { path, errno } => LaunchError::NotStarted { path, source: Errno::from_raw(errno) },
            other => LaunchError::Inside(format!("{other:?} came out of order")),
        }
    }
}
