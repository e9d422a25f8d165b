//! The threads: workers that take turns at leading. The first enters the box's view; those it starts are in it by birth.
//!
//! One worker at a time leads: it receives and answers. Before anything that can wait (an exec, a FIFO, a connect) it
//! hands the lead to another, so that no question holds up the rest; and if a call that should not wait does,
//! [`Supervisor::relieve`] (called from the main thread) hands the lead on in its place. Only one receives because the
//! kernel wakes every receiver for every call.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use caps::{CapSet, Capability, CapsHashSet};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns, unshare};

use super::affinity::Prices;
use super::aims::Aims;
use super::digest::Digests;
use super::exchange::Epolls;
use super::lineage::{self, Lineage};
use super::notification::{Listener, Parked, Stopped};
use super::script::Scripts;
use super::sought::Sought;
use super::target::Target;
use super::tracked::WorkTrees;
use super::view::View;
use super::waits::Waits;
use super::{Box, Made, handle, lock};
use crate::event::Subject;
use crate::gate::Gate;
use crate::net::{self, Net};
use crate::sys::{self, file};

/// More workers than this are never started; when all wait, calls that would wait, too, are refused.
const MOST_WORKERS: usize = 256;
/// How long a leader may take over a call that should not wait.
const PATIENCE: Duration = Duration::from_millis(100);
/// How often it is looked whether the leader is stuck; and while some worker waits, whether for somebody still there.
const LATER: Duration = Duration::from_millis(100);
const SOON: Duration = Duration::from_millis(10);
/// How often it is looked which actions have ended.
const ACTIONS: Duration = Duration::from_millis(500);
/// So many waits can be looked after often.
const FEW_WAITS: usize = 32;
const STACK: usize = 256 * 1024;
/// A run that makes no more calls than this needs no spare worker, unless one of them waits.
const FEW_CALLS: usize = 2;

/// A worker could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    /// A call failed.
    #[error("cannot {0}")]
    Step(&'static str, #[source] Errno),
    /// Capabilities could not be dropped.
    #[error("cannot drop the supervisor's capabilities")]
    Capabilities(#[source] caps::errors::CapsError),
    /// No thread.
    #[error("cannot start a worker thread")]
    Thread(#[source] std::io::Error),
}

/// The running supervisor.
pub struct Supervisor {
    shared: Arc<Shared>,
    /// To the first worker: the mount namespace that it is to enter.
    view: Sender<Option<OwnedFd>>,
}

/// What all workers share.
pub(super) struct Shared {
    pub(super) gate: Arc<Gate>,
    pub(super) target: Box,
    pub(super) lineage: Lineage,
    pub(super) made: Made,
    pub(super) sought: Sought,
    pub(super) digests: Digests,
    pub(super) scripts: Scripts,
    pub(super) waits: Waits,
    pub(super) epolls: Epolls,
    pub(super) trees: WorkTrees,
    pub(super) aims: Aims,
    /// The box's view, if it has one of its own.
    pub(super) view: Option<View>,
    listener: OnceLock<OwnedFd>,
    prices: Prices,
    /// The way out, where the network has rules.
    net: OnceLock<Arc<Net>>,
    /// The network that workers are in, once it was asked for; `None` where the kernel cannot tell (before Linux 5.14).
    host_network: OnceLock<Option<u64>>,
    lead: Mutex<Lead>,
    /// The lead is free, or the box is gone.
    free: Condvar,
    /// A worker waits or has ended.
    idle: Condvar,
    /// When the leader took up the call it is at, in milliseconds since `start`; 0 while it waits for one.
    busy_since: AtomicU64,
    /// How many calls have come, as far as that matters.
    calls: AtomicUsize,
    /// When it was last looked which actions have ended, like `busy_since`.
    looked_at: AtomicU64,
    start: Instant,
}

#[derive(Default)]
struct Lead {
    /// Whether somebody leads. True until there is a listener to receive from.
    taken: bool,
    /// Grows whenever the lead changes hands, so that a leader that was relieved notices.
    term: u64,
    workers: usize,
    waiting: usize,
    over: bool,
    failed: Option<SupervisorError>,
}

impl Supervisor {
    /// Starts the first worker, which waits for [`Supervisor::enter`]. The view may be built meanwhile.
    pub fn start(gate: Arc<Gate>, target: Box) -> Result<Self, SupervisorError> {
        let shared = Arc::new(Shared {
            gate,
            lineage: Lineage::new(target.init),
            view: target.own_view.then(|| View::new(target.host_proc.as_raw_fd())),
            target,
            made: Made::default(),
            sought: Sought::default(),
            digests: Digests::default(),
            scripts: Scripts::default(),
            waits: Waits::default(),
            epolls: Epolls::default(),
            trees: WorkTrees::default(),
            aims: Aims::default(),
            listener: OnceLock::new(),
            prices: Prices::default(),
            net: OnceLock::new(),
            host_network: OnceLock::new(),
            lead: Mutex::new(Lead { taken: true, workers: 1, ..Lead::default() }),
            free: Condvar::new(),
            idle: Condvar::new(),
            busy_since: AtomicU64::new(0),
            calls: AtomicUsize::new(0),
            looked_at: AtomicU64::new(0),
            start: Instant::now(),
        });
        let (view, given) = channel();
        Shared::spawn_first(&shared, given).map_err(SupervisorError::Thread)?;
        Ok(Self { shared, view })
    }

    /// Has the worker enter the box's mount namespace `view`, if it has one of its own, and wait for
    /// [`Supervisor::listen`]. The command may be prepared meanwhile.
    pub fn enter(&self, view: Option<OwnedFd>) {
        // A worker that is gone has left its error.
        let _ = self.view.send(view);
    }

    /// Has the workers answer what arrives at `listener`; calls that have stopped already are answered at once. `net` makes
    /// the connections to the outside, if the policy lets any out.
    pub fn listen(&self, listener: OwnedFd, net: Option<Arc<Net>>) {
        if let Some(net) = net {
            // Set here alone, and before anybody could ask for it.
            let _ = self.shared.net.set(net);
        }
        // Not fatal: older kernels wake the worker on another CPU, which is slower and nothing else.
        if let Err(errno) = sys::notify::wake_on_same_cpu(listener.as_fd()) {
            tracing::debug!(%errno, "no wake-ups on the caller's CPU");
        }
        if self.shared.listener.set(listener).is_ok() {
            self.shared.lead().taken = false;
            self.shared.free.notify_one();
        }
    }

    /// Ends the actions of which no process is left, every now and then.
    fn end_actions(&self) {
        let now = self.shared.now();
        if now.saturating_sub(self.shared.looked_at.load(Ordering::Relaxed)) < ACTIONS.as_millis() as u64 {
            return;
        }
        self.shared.looked_at.store(now, Ordering::Relaxed);
        self.shared.gate.end_abandoned(lineage::is_gone);
        self.shared.lineage.ended().into_iter().for_each(|action| self.shared.gate.end_action(action));
    }

    /// Hands the lead on if the leader has been at one call for too long, and ends waits that nobody waits for. Cheap; to
    /// be called again after the time it returns.
    pub fn relieve(&self) -> Duration {
        self.end_actions();
        let since = self.shared.busy_since.load(Ordering::Relaxed);
        if since != 0 && self.shared.now().saturating_sub(since) > PATIENCE.as_millis() as u64 {
            let mut lead = self.shared.lead();
            // A worker can only be started by one that is in the view; there is a spare one unless all wait.
            if lead.waiting > 0 {
                self.shared.pass_on(&mut lead);
            }
        }
        let alive =
            |call| self.shared.listener.get().is_some_and(|listener| sys::notify::alive(listener.as_fd(), call));
        match self.shared.waits.look_after(alive) {
            // Some were over: more may be, and each is to be gone soon.
            (1.., _) | (0, 1..=FEW_WAITS) => SOON,
            _ => LATER,
        }
    }

    /// Tells who a process of the box is, by its number on the host.
    pub fn who(&self) -> impl Fn(i32) -> Arc<Subject> + Send + Sync + use<> {
        let shared = Arc::clone(&self.shared);
        move |tid| {
            let target = Target { tid, proc: shared.target.host_proc.as_raw_fd() };
            shared.lineage.task(target, Instant::now()).subject
        }
    }

    /// An error that ended a worker, if any: the box is then without an answer and must be ended.
    pub fn failure(&self) -> Option<SupervisorError> {
        self.shared.lead().failed.take()
    }

    /// Waits until the workers have settled what they were at, for `patience` at most; to be called when the box is gone.
    pub fn finish(&self, patience: Duration) {
        let mut lead = self.shared.end();
        let deadline = Instant::now() + patience;
        while lead.workers > lead.waiting || self.shared.waits.any_on_the_network() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            self.shared.waits.look_after(|_| false);
            lead = self.shared.idle.wait_timeout(lead, left.min(SOON)).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The git directories that were made in this run, by the paths they had then.
    pub fn repositories(&self) -> Vec<PathBuf> {
        lock(&self.shared.made.repository_paths).clone()
    }
}

impl Shared {
    /// Starts the first worker, which enters the view, lays down the right to do so again, and lets go of the namespace.
    fn spawn_first(shared: &Arc<Self>, view: Receiver<Option<OwnedFd>>) -> std::io::Result<()> {
        Self::spawn(shared, move |shared| {
            shared.own_directories()?;
            let view = view.recv().map_err(|_| SupervisorError::Step("be told of the box's view", Errno::EPIPE))?;
            shared.enter_view(view)
        })
    }

    fn spawn(
        shared: &Arc<Self>,
        prepare: impl FnOnce(&Self) -> Result<(), SupervisorError> + Send + 'static,
    ) -> std::io::Result<()> {
        let shared = Arc::clone(shared);
        let work = move || {
            let result = prepare(&shared).map(|()| shared.serve());
            let mut lead = shared.lead();
            lead.workers -= 1;
            if let Err(error) = result {
                lead.failed = Some(error);
            }
            shared.idle.notify_all();
        };
        std::thread::Builder::new().name("worker".into()).stack_size(STACK).spawn(work).map(drop)
    }

    /// Moves the calling thread into the view and takes every right from it but to trace.
    fn enter_view(&self, view: Option<OwnedFd>) -> Result<(), SupervisorError> {
        let step = |doing| move |errno| SupervisorError::Step(doing, errno);
        if let Some(view) = view {
            setns(view, CloneFlags::CLONE_NEWNS).map_err(step("enter the box's view"))?;
            let trace = CapsHashSet::from([Capability::CAP_SYS_PTRACE]);
            for set in [CapSet::Ambient, CapSet::Inheritable] {
                caps::clear(None, set).map_err(SupervisorError::Capabilities)?;
            }
            for set in [CapSet::Effective, CapSet::Permitted] {
                caps::set(None, set, &trace).map_err(SupervisorError::Capabilities)?;
            }
        }
        file::fchdir(self.target.host_proc.as_raw_fd()).map_err(step("enter the host's /proc"))
    }

    /// Gives the calling thread directories and a creation mask of its own.
    ///
    /// Until then it shares those of the worker that started it, which may stand elsewhere for a moment (a bind does); so
    /// it goes where it belongs itself.
    fn own_directories(&self) -> Result<(), SupervisorError> {
        let step = |doing| move |errno| SupervisorError::Step(doing, errno);
        unshare(CloneFlags::CLONE_FS).map_err(step("give a worker its own directories"))?;
        file::fchdir(self.target.host_proc.as_raw_fd()).map_err(step("enter the host's /proc"))
    }

    /// Leads when the lead is free, until the box is gone.
    ///
    /// The box's first call, the exec of its command, is attended to without a second worker: there is nobody else who
    /// could ask for anything. And a run that makes few calls is over before a second would be of use.
    fn serve(self: &Arc<Self>) {
        while let Some((term, listener)) = self.take_lead() {
            while self.leads(term) {
                match Stopped::next(self.door(listener), self.target.host_proc.as_fd()) {
                    Ok(stopped) => {
                        let before = self.calls.load(Ordering::Relaxed);
                        self.attend(&stopped, term, before == 0);
                        if before <= FEW_CALLS {
                            self.calls.store(before + 1, Ordering::Relaxed);
                        }
                        if before == FEW_CALLS {
                            Self::keep_spare(self);
                        }
                    }
                    Err(Errno::EINTR) => {}
                    // The caller died before its call was taken up, or nobody is left.
                    Err(Errno::ENOENT) if !deserted(listener) => {}
                    Err(_) => {
                        drop(self.end());
                        return;
                    }
                }
            }
        }
    }

    fn attend(self: &Arc<Self>, stopped: &Stopped<'_>, term: u64, first: bool) {
        self.busy_since.store(self.now(), Ordering::Relaxed);
        handle(self, stopped, (!first).then_some(term));
        if self.leads(term) {
            self.busy_since.store(0, Ordering::Relaxed);
        }
    }

    /// Milliseconds since the start, never 0.
    fn now(&self) -> u64 {
        self.start.elapsed().as_millis() as u64 + 1
    }

    fn take_lead(&self) -> Option<(u64, &OwnedFd)> {
        let mut lead = self.lead();
        lead.waiting += 1;
        self.idle.notify_all();
        while lead.taken && !lead.over {
            lead = self.free.wait(lead).unwrap_or_else(PoisonError::into_inner);
        }
        lead.waiting -= 1;
        if lead.over {
            return None;
        }
        lead.taken = true;
        // The lead is free only where there is a listener.
        self.listener.get().map(|listener| (lead.term, listener))
    }

    fn leads(&self, term: u64) -> bool {
        self.lead().term == term
    }

    /// Lets another worker receive while the leader of `term` waits for something; false if there is no other and can
    /// be none: the last one must not wait, or nobody would be answered any more.
    pub(super) fn hand_over(shared: &Arc<Self>, term: u64) -> bool {
        let mut lead = shared.lead();
        if lead.term != term {
            return true;
        }
        if lead.waiting == 0 && lead.workers >= MOST_WORKERS {
            return false;
        }
        shared.pass_on(&mut lead);
        drop(lead);
        Self::keep_spare(shared);
        true
    }

    fn pass_on(&self, lead: &mut Lead) {
        lead.term += 1;
        lead.taken = false;
        self.busy_since.store(0, Ordering::Relaxed);
        self.free.notify_one();
    }

    /// Starts a worker if none waits to take the lead; called by workers only, as the new one inherits their view.
    fn keep_spare(shared: &Arc<Self>) {
        let mut lead = shared.lead();
        let waiting = lead.waiting - usize::from(lead.waiting > 0 && !lead.taken);
        if waiting > 0 || lead.over || lead.workers >= MOST_WORKERS {
            return;
        }
        lead.workers += 1;
        drop(lead);
        if let Err(error) = Self::spawn(shared, Self::own_directories) {
            tracing::warn!(%error, "no further worker");
            shared.lead().workers -= 1;
        }
    }

    /// The box is gone: nobody needs to wait for anything any more.
    fn end(&self) -> MutexGuard<'_, Lead> {
        let mut lead = self.lead();
        lead.over = true;
        self.free.notify_all();
        lead
    }

    fn lead(&self) -> MutexGuard<'_, Lead> {
        lock(&self.lead)
    }

    /// The way out, where the network has rules.
    pub(super) fn net(&self) -> Option<&Arc<Net>> {
        self.net.get()
    }

    /// Stands for the host's network: [`crate::sys::socket::network_of`].
    pub(super) fn host_network(&self) -> Option<u64> {
        *self.host_network.get_or_init(|| net::host_network().ok())
    }

    fn door<'a>(&'a self, listener: &'a OwnedFd) -> Listener<'a> {
        Listener { fd: listener.as_fd(), prices: self.target.wait_killable.then_some(&self.prices) }
    }

    /// A call that was parked, as it still waits.
    pub(super) fn resume(&self, parked: &Parked) -> Option<Stopped<'_>> {
        self.listener.get().map(|listener| parked.resume(self.door(listener)))
    }

    /// Whether a file system belongs to the box alone.
    pub(super) fn is_private(&self, device: u64) -> bool {
        use std::os::unix::fs::MetadataExt;
        let lies_on = |path: &PathBuf| path.symlink_metadata().is_ok_and(|stat| stat.dev() == device);
        self.target.private.iter().any(lies_on)
    }
}

/// Whether no task uses the filter any more.
fn deserted(listener: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    let polled = poll(&mut fds, PollTimeout::ZERO);
    polled.is_ok() && fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLHUP))
}
