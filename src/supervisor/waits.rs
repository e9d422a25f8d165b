//! Calls that wait for somebody else: a FIFO for its other end, a connection for its answer.
//!
//! A worker carries such a call out and is stuck in the kernel as the caller would be; a connection to the outside waits on
//! the network's thread. What would end the caller's wait, a signal it handles or its death, must end the wait for it: so
//! the main thread looks after them all a few times a second, and interrupts the worker with a signal of its own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};

use nix::errno::Errno;
use nix::sys::pthread::{Pthread, pthread_kill, pthread_self};
use nix::sys::signal::Signal;
use tokio::sync::Notify;

use super::lineage::Status;
use super::target::Target;
use super::{Context, lock};
use crate::sys;

/// The signal that interrupts a worker: nobody sends it otherwise, and it is ignored by default.
const INTERRUPT: Signal = Signal::SIGURG;

/// Who waits, and for whom.
#[derive(Default)]
pub struct Waits {
    list: Mutex<Vec<Wait>>,
    handler: OnceLock<Result<(), Errno>>,
}

struct Wait {
    waiter: Waiter,
    call: u64,
    target: Target,
    /// A signal waited that another thread of the caller's process may yet take.
    suspected: bool,
}

enum Waiter {
    /// A worker, stuck in the kernel.
    Worker(Pthread),
    /// The network's thread.
    Network(Arc<Notify>),
}

impl Waiter {
    fn interrupt(&self) {
        match self {
            // It is in the list, so it lives.
            Self::Worker(worker) => drop(pthread_kill(*worker, INTERRUPT)),
            Self::Network(waits) => waits.notify_one(),
        }
    }
}

impl Waits {
    /// Runs `act`, which fails with `EINTR` if a signal comes for the caller of `context`, or if that dies.
    pub fn interruptible<T>(&self, context: &Context<'_>, act: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
        (*self.handler.get_or_init(|| sys::process::take_note(INTERRUPT)))?;
        let stopped = context.call.stopped;
        self.add(Waiter::Worker(pthread_self()), stopped.id(), stopped.target);
        let done = act();
        self.over(stopped.id());
        done
    }

    /// Notes that the network's thread waits for `call` of `target`. What comes back is notified of an interruption, until
    /// [`Waits::over`].
    pub fn on_the_network(&self, call: u64, target: Target) -> Arc<Notify> {
        let notify = Arc::new(Notify::new());
        self.add(Waiter::Network(Arc::clone(&notify)), call, target);
        notify
    }

    fn add(&self, waiter: Waiter, call: u64, target: Target) {
        lock(&self.list).push(Wait { waiter, call, target, suspected: false });
    }

    /// Ends the wait for `call`.
    pub fn over(&self, call: u64) {
        lock(&self.list).retain(|wait| wait.call != call);
    }

    /// Whether the network's thread waits for anybody.
    pub fn any_on_the_network(&self) -> bool {
        lock(&self.list).iter().any(|wait| matches!(wait.waiter, Waiter::Network(_)))
    }

    /// Interrupts the waits whose callers are dead or have a signal to handle; how many were interrupted, and how many not.
    ///
    /// A worker that was interrupted a moment before its wait began is interrupted again the next time.
    pub fn look_after(&self, alive: impl Fn(u64) -> bool) -> (usize, usize) {
        let waits: Vec<(u64, Target)> = lock(&self.list).iter().map(|wait| (wait.call, wait.target)).collect();
        // Looking takes a while where there are many, and whoever is to wait must not wait for that.
        let found: HashMap<u64, Found> =
            waits.iter().map(|(call, target)| (*call, Found::look(*target, alive(*call)))).collect();
        let mut interrupted = 0;
        for wait in lock(&self.list).iter_mut() {
            if found.get(&wait.call).is_some_and(|found| wait.is_over(*found)) {
                wait.waiter.interrupt();
                interrupted += 1;
            }
        }
        (interrupted, waits.len() - interrupted)
    }
}

/// What became of a caller.
#[derive(Clone, Copy)]
enum Found {
    Dead,
    /// It has a signal to handle, or its process has one.
    Alive {
        interrupted: bool,
        process_interrupted: bool,
    },
}

impl Found {
    fn look(target: Target, alive: bool) -> Self {
        if !alive {
            return Self::Dead;
        }
        let Status { interrupted, process_interrupted, .. } = Status::read(target);
        Self::Alive { interrupted, process_interrupted }
    }
}

impl Wait {
    fn is_over(&mut self, found: Found) -> bool {
        let Found::Alive { interrupted, process_interrupted } = found else { return true };
        let suspected = std::mem::replace(&mut self.suspected, process_interrupted);
        interrupted || (suspected && process_interrupted)
    }
}
