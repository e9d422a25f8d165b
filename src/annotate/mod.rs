//! Hears what programs in the box say of themselves: what they are about to do, why, and how it ended.
//!
//! Runs in agentbox's own process, in the host's view, on a thread that is started when somebody in the box first
//! connects. All that is said is a claim, and nothing is allowed for it: this room finds out who speaks (`speaker`), takes
//! lines apart (`line`, `protocol`), keeps floods out (`rate`) and hands on what is left ([`Hear`]). It decides nothing and
//! records nothing.

mod line;
mod protocol;
mod rate;
mod server;
mod speaker;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;

pub use crate::event::Claim;
use caps::{CapSet, Capability, CapsHashSet};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use server::Server;
use speaker::Inside;

/// What a process in the box says of itself.
#[derive(Debug, Clone, PartialEq)]
pub enum Said {
    /// It begins something.
    Begin(Claim),
    /// Something has ended.
    End {
        /// What: an action's id, or what it began last.
        action: Option<String>,
        /// How.
        outcome: Option<String>,
    },
    /// A remark.
    Note(Claim),
}

/// Takes what was said. Called by one thread, which must not be held up.
pub trait Hear: Send + Sync {
    /// Takes what the process `speaker` (its number on the host) said: the id of the action that it is about, or why it is
    /// refused.
    fn hear(&self, speaker: i32, said: Said) -> Result<String, String>;

    /// Takes note of what was not heard, and why. `speaker` is 0 where it is not one process, or not known which.
    fn refused(&self, speaker: i32, what: String);
}

/// Programs in the box cannot be heard.
#[derive(Debug, thiserror::Error)]
pub enum AnnotateError {
    /// A call failed.
    #[error("cannot {0}")]
    Step(&'static str, #[source] Errno),
    /// No thread.
    #[error("cannot start the thread for annotations")]
    Thread(#[source] std::io::Error),
}

/// What the thread is given.
pub struct Start {
    /// The socket that listens in the box's view.
    pub listener: OwnedFd,
    /// The box's init, which nobody speaks for.
    pub init: i32,
    /// Who takes what is said.
    pub hear: Arc<dyn Hear>,
}

/// The thread that hears the box, until [`Annotate::finish`].
#[derive(Debug)]
pub struct Annotate {
    /// Closing it ends the thread.
    end: OwnedFd,
    thread: JoinHandle<()>,
}

impl Annotate {
    /// Starts the thread. To be called in the host's view, in the box's user namespace.
    pub fn start(start: Start) -> Result<Self, AnnotateError> {
        let inside = Inside::new(start.init).map_err(|errno| AnnotateError::Step("tell the box from others", errno))?;
        let pipe = nix::unistd::pipe2(OFlag::O_CLOEXEC);
        let (ended, end) = pipe.map_err(|errno| AnnotateError::Step("make a pipe", errno))?;
        let server = Server::new(start.listener, ended, inside, start.hear);
        let run = move || match drop_rights() {
            Ok(()) => server.run(),
            Err(error) => tracing::error!(%error, "annotations are not heard"),
        };
        let thread = std::thread::Builder::new().name("annotate".into()).spawn(run).map_err(AnnotateError::Thread)?;
        Ok(Self { end, thread })
    }

    /// Takes what has arrived, and ends the thread.
    pub fn finish(self) {
        drop(self.end);
        // It has no more to say than what it has handed on.
        let _ = self.thread.join();
    }
}

/// Keeps the right to look into the box's processes; no other.
fn drop_rights() -> Result<(), caps::errors::CapsError> {
    let held = caps::read(None, CapSet::Permitted)?;
    let trace: CapsHashSet = held.intersection(&CapsHashSet::from([Capability::CAP_SYS_PTRACE])).copied().collect();
    caps::set(None, CapSet::Effective, &trace)?;
    caps::set(None, CapSet::Permitted, &trace)
}
