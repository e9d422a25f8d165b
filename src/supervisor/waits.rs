//! Calls that wait for somebody else: a FIFO for its other end, a connection for its answer.
//!
//! A worker carries such a call out and is stuck in the kernel as the caller would be. What would end the caller's wait,
//! a signal it handles or its death, must end the worker's: so the main thread looks after them all a few times a second
//! and interrupts the worker with a signal of its own.

use std::sync::{Mutex, OnceLock};

use nix::errno::Errno;
use nix::sys::pthread::{Pthread, pthread_kill, pthread_self};
use nix::sys::signal::Signal;

use super::lineage::Status;
use super::target::Target;
use super::{Context, lock};
use crate::sys;

/// The signal that interrupts a worker: nobody sends it otherwise, and it is ignored by default.
const INTERRUPT: Signal = Signal::SIGURG;

/// The workers that wait, and for whom.
#[derive(Default)]
pub struct Waits {
    list: Mutex<Vec<Wait>>,
    handler: OnceLock<Result<(), Errno>>,
}

struct Wait {
    worker: Pthread,
    call: u64,
    target: Target,
    /// A signal waited that another thread of the caller's process may yet take.
    suspected: bool,
}

impl Waits {
    /// Runs `act`, which fails with `EINTR` if a signal comes for the caller of `context`, or if that dies.
    pub fn interruptible<T>(&self, context: &Context<'_>, act: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
        (*self.handler.get_or_init(|| sys::process::take_note(INTERRUPT)))?;
        let (worker, stopped) = (pthread_self(), context.call.stopped);
        let wait = Wait { worker, call: stopped.id(), target: stopped.target, suspected: false };
        lock(&self.list).push(wait);
        let done = act();
        lock(&self.list).retain(|wait| wait.worker != worker);
        done
    }

    /// Interrupts the workers whose callers are dead or have a signal to handle; whether any worker waits.
    ///
    /// A worker that was interrupted a moment before its wait began is interrupted again the next time.
    pub fn look_after(&self, alive: impl Fn(u64) -> bool) -> bool {
        let mut list = lock(&self.list);
        for wait in list.iter_mut() {
            if is_over(wait, &alive) {
                // It is in the list, so it lives.
                let _ = pthread_kill(wait.worker, INTERRUPT);
            }
        }
        !list.is_empty()
    }
}

fn is_over(wait: &mut Wait, alive: impl Fn(u64) -> bool) -> bool {
    if !alive(wait.call) {
        return true;
    }
    let status = Status::read(wait.target);
    let suspected = std::mem::replace(&mut wait.suspected, status.process_interrupted);
    status.interrupted || (suspected && status.process_interrupted)
}
