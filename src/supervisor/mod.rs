//! The supervisor: threads that answer stopped calls.
//!
//! A worker sees the box's view and holds no right but to trace, so what it carries out is subject to the same
//! permissions as the caller. One worker at a time leads: it receives and answers. Before anything that can wait (an
//! exec, a FIFO, a connect) it hands the lead to another, so that no question holds up the rest; and if a call that
//! should not wait does, `Supervisor::relieve` (called from the main thread) hands the lead on in its place.
//!
//! Every verdict comes from the gate; the table of system calls picks the handler.

mod exec;
mod fs;
mod lineage;
mod net;
mod notification;
mod repository;
mod resolve;
mod target;

use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use caps::{CapSet, Capability, CapsHashSet};
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};

use crate::event::{Access, Event, Unjudged};
use crate::gate::{Gate, Judged, Outcome};
use crate::sys::{self, file};
use crate::syscalls::{self, Family};
use lineage::{Lineage, Task};
use notification::{Call, Reply, Stopped};
use resolve::Unresolved;

pub use repository::{Finding, inspect};

/// More workers than this are never started; then a call that waits does hold up others.
const MOST_WORKERS: usize = 256;
/// How long a leader may take over a call that should not wait.
const PATIENCE: Duration = Duration::from_millis(100);
const STACK: usize = 256 * 1024;

/// What the supervisor needs to know of the box it serves.
#[derive(Debug)]
pub struct Box {
    /// init's number on the host.
    pub init: i32,
    /// The box's mount namespace; `None` where it has none of its own.
    pub view: Option<OwnedFd>,
    /// The host's `/proc`, opened before the view was made.
    pub host_proc: OwnedFd,
    /// Directories whose file systems belong to the box alone.
    pub private: Vec<PathBuf>,
    /// Whether the box has a network namespace of its own, so that its loopback is its own.
    pub own_network: bool,
}

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
    /// A worker ended before it was ready.
    #[error("a worker thread ended early")]
    Died,
}

/// The running supervisor.
pub struct Supervisor {
    shared: Arc<Shared>,
}

/// What all workers share.
struct Shared {
    gate: Arc<Gate>,
    target: Box,
    listener: OwnedFd,
    lineage: Lineage,
    /// What was made in this run: git directories and unix sockets.
    made: Made,
    /// Devices of the box's private file systems.
    private: HashSet<u64>,
    lead: Mutex<Lead>,
    /// The lead is free, or the box is gone.
    free: Condvar,
    /// A further worker is wanted.
    wanted: Condvar,
    /// A worker waits or has ended.
    idle: Condvar,
    /// When the leader took up the call it is at, in milliseconds since `start`; 0 while it waits for one.
    busy_since: AtomicU64,
    start: Instant,
}

#[derive(Default)]
struct Made {
    repositories: Mutex<HashSet<(u64, u64)>>,
    repository_paths: Mutex<Vec<PathBuf>>,
    sockets: Mutex<HashSet<(u64, u64)>>,
    /// Names of abstract sockets that were bound in this run.
    abstract_names: Mutex<HashSet<Vec<u8>>>,
}

#[derive(Default)]
struct Lead {
    /// Whether somebody leads.
    taken: bool,
    /// Grows whenever the lead changes hands, so that a leader that was relieved notices.
    term: u64,
    workers: usize,
    waiting: usize,
    /// Workers that the nursery is to start; counted in `workers` already.
    wanted: usize,
    over: bool,
    failed: Option<SupervisorError>,
}

/// One worker's view of a call: what handlers are given.
struct Context<'a> {
    shared: &'a Arc<Shared>,
    call: &'a Call<'a>,
    task: &'a Task,
    term: u64,
}

impl Supervisor {
    /// Starts the first worker; calls that have stopped already are answered at once.
    pub fn start(gate: Arc<Gate>, target: Box, listener: OwnedFd) -> Result<Self, SupervisorError> {
        // Not fatal: older kernels wake the worker on another CPU, which is slower and nothing else.
        if let Err(errno) = sys::notify::wake_on_same_cpu(listener.as_fd()) {
            tracing::debug!(%errno, "no wake-ups on the caller's CPU");
        }
        let shared = Arc::new(Shared {
            gate,
            lineage: Lineage::new(target.init),
            listener,
            made: Made::default(),
            private: HashSet::new(),
            lead: Mutex::new(Lead { workers: 1, ..Lead::default() }),
            free: Condvar::new(),
            wanted: Condvar::new(),
            idle: Condvar::new(),
            busy_since: AtomicU64::new(0),
            start: Instant::now(),
            target,
        });
        Shared::spawn(&shared).map_err(SupervisorError::Thread)?;
        Shared::open_nursery(&shared).map_err(SupervisorError::Thread)?;
        Ok(Self { shared })
    }

    /// Hands the lead on if the leader has been at one call for too long. Cheap; called about ten times a second.
    pub fn relieve(&self) {
        let since = self.shared.busy_since.load(Ordering::Relaxed);
        if since != 0 && self.shared.now().saturating_sub(since) > PATIENCE.as_millis() as u64 {
            let term = self.shared.lead().term;
            Shared::hand_over(&self.shared, term);
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
        while lead.workers > lead.waiting {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            lead = self.shared.idle.wait_timeout(lead, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// What the git repositories that were made in this run carry along: hooks, and settings that run programs.
    ///
    /// `open` reads a file of the box, by its path inside; used after the run, so what it finds is what was left.
    pub fn repositories(&self) -> Vec<PathBuf> {
        lock(&self.shared.made.repository_paths).clone()
    }
}

impl Shared {
    /// Starts the thread that starts workers: a worker has laid down the rights that a new one needs to enter the view.
    fn open_nursery(shared: &Arc<Self>) -> std::io::Result<()> {
        let shared = Arc::clone(shared);
        let work = move || {
            while shared.wait_for_want() {
                if let Err(error) = Self::spawn(&shared) {
                    tracing::warn!(%error, "no further worker");
                    shared.lead().workers -= 1;
                }
            }
        };
        std::thread::Builder::new().name("nursery".into()).stack_size(STACK).spawn(work).map(drop)
    }

    /// Waits until a worker is wanted; false once the box is gone.
    fn wait_for_want(&self) -> bool {
        let mut lead = self.lead();
        while lead.wanted == 0 && !lead.over {
            lead = self.wanted.wait(lead).unwrap_or_else(PoisonError::into_inner);
        }
        if lead.over {
            return false;
        }
        lead.wanted -= 1;
        true
    }

    fn spawn(shared: &Arc<Self>) -> std::io::Result<()> {
        let shared = Arc::clone(shared);
        let work = move || {
            let result = shared.enter_box().map(|()| shared.serve());
            let mut lead = shared.lead();
            lead.workers -= 1;
            if let Err(error) = result {
                lead.failed = Some(error);
            }
            shared.idle.notify_all();
        };
        std::thread::Builder::new().name("worker".into()).stack_size(STACK).spawn(work).map(drop)
    }

    /// Moves the calling thread into the box's view and lays down every right but to trace.
    fn enter_box(&self) -> Result<(), SupervisorError> {
        let step = |doing| move |errno| SupervisorError::Step(doing, errno);
        unshare(CloneFlags::CLONE_FS).map_err(step("give a worker its own directories"))?;
        if let Some(view) = &self.target.view {
            setns(view, CloneFlags::CLONE_NEWNS).map_err(step("enter the box's view"))?;
            let trace = CapsHashSet::from([Capability::CAP_SYS_PTRACE]);
            for set in [CapSet::Ambient, CapSet::Inheritable] {
                caps::clear(None, set).map_err(SupervisorError::Capabilities)?;
            }
            for set in [CapSet::Effective, CapSet::Permitted] {
                caps::set(None, set, &trace).map_err(SupervisorError::Capabilities)?;
            }
        }
        file::fchdir(self.target.host_proc.as_fd()).map_err(step("enter the host's /proc"))
    }

    /// Leads when the lead is free, until the box is gone.
    fn serve(self: &Arc<Self>) {
        while let Some(term) = self.take_lead() {
            while self.leads(term) {
                match Stopped::next(self.listener.as_fd()) {
                    Ok(stopped) => self.attend(&stopped, term),
                    Err(Errno::EINTR) => {}
                    // The caller died before its call was taken up, or nobody is left.
                    Err(Errno::ENOENT) if !self.deserted() => {}
                    Err(_) => {
                        drop(self.end());
                        return;
                    }
                }
            }
        }
    }

    /// Whether no task uses the filter any more.
    fn deserted(&self) -> bool {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        let mut fds = [PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)];
        let polled = poll(&mut fds, PollTimeout::ZERO);
        polled.is_ok() && fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLHUP))
    }

    fn attend(self: &Arc<Self>, stopped: &Stopped<'_>, term: u64) {
        self.busy_since.store(self.now(), Ordering::Relaxed);
        handle(self, stopped, term);
        if self.leads(term) {
            self.busy_since.store(0, Ordering::Relaxed);
        }
    }

    /// Milliseconds since the start, never 0.
    fn now(&self) -> u64 {
        self.start.elapsed().as_millis() as u64 + 1
    }

    fn take_lead(&self) -> Option<u64> {
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
        Some(lead.term)
    }

    fn leads(&self, term: u64) -> bool {
        self.lead().term == term
    }

    /// Lets another worker receive while this one waits for something.
    fn hand_over(shared: &Arc<Self>, term: u64) {
        let mut lead = shared.lead();
        if lead.term != term {
            return;
        }
        lead.term += 1;
        lead.taken = false;
        shared.busy_since.store(0, Ordering::Relaxed);
        if lead.waiting > 0 {
            shared.free.notify_one();
        } else if lead.workers < MOST_WORKERS {
            lead.workers += 1;
            lead.wanted += 1;
            shared.wanted.notify_one();
        }
    }

    /// The box is gone: nobody needs to wait for anything any more.
    fn end(&self) -> MutexGuard<'_, Lead> {
        let mut lead = self.lead();
        lead.over = true;
        lead.workers -= std::mem::take(&mut lead.wanted);
        self.free.notify_all();
        self.wanted.notify_all();
        lead
    }

    fn lead(&self) -> MutexGuard<'_, Lead> {
        lock(&self.lead)
    }

    /// Whether a file system belongs to the box alone.
    fn is_private(&self, device: u64) -> bool {
        self.private.contains(&device)
            || self.target.private.iter().any(|path| {
                use std::os::unix::fs::MetadataExt;
                path.symlink_metadata().is_ok_and(|stat| stat.dev() == device)
            })
    }
}

/// Nothing panics while it holds one of these locks, and each use leaves the value whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Finds the handler of a stopped call and has it answer.
fn handle(shared: &Arc<Shared>, stopped: &Stopped<'_>, term: u64) {
    let task = shared.lineage.task(stopped.target.tid, stopped.received);
    let call = syscalls::row(stopped.number).and_then(|row| Call::new(stopped, row));
    let Some(call) = call else {
        return refuse(shared, stopped, &task, stopped.number.to_string(), Unjudged::UnknownCall, Errno::ENOSYS);
    };
    let context = Context { shared, call: &call, task: &task, term };
    let done = match call.family {
        Family::Open => fs::open(&context),
        Family::Unlink => fs::unlink(&context),
        Family::Rename => fs::rename(&context),
        Family::Link => fs::link(&context),
        Family::Symlink => fs::symlink(&context),
        Family::Mkdir => fs::mkdir(&context),
        Family::Mknod => fs::mknod(&context),
        Family::Truncate => fs::truncate(&context),
        Family::Chmod => fs::chmod(&context),
        Family::Chown => fs::chown(&context),
        Family::Utime => fs::utime(&context),
        Family::SetXattr => fs::set_xattr(&context),
        Family::RemoveXattr => fs::remove_xattr(&context),
        Family::Exec => exec::exec(&context),
        Family::Connect => net::connect(&context),
        Family::Bind => net::bind(&context),
    };
    match done {
        Ok(()) => {}
        Err(Stop::Errno(errno)) => {
            let _ = stopped.answer(Reply::Errno(errno));
        }
        Err(Stop::Unjudged(why, errno)) => refuse(shared, stopped, &task, call.row.name.into(), why, errno),
        // The caller died; nobody waits for an answer.
        Err(Stop::Gone) => {}
    }
}

/// Why a handler stopped before anything was decided.
enum Stop {
    /// The kernel would have failed the call for this before looking at anything that is decided.
    Errno(Errno),
    /// It cannot be judged.
    Unjudged(Unjudged, Errno),
    /// The caller is dead.
    Gone,
}

type Handled = Result<(), Stop>;

/// Refuses what cannot be judged, with a record.
fn refuse(shared: &Shared, stopped: &Stopped<'_>, task: &Task, name: String, why: Unjudged, errno: Errno) {
    let event = Event { subject: (*task.subject).clone(), access: Access::Call { name, why } };
    let judged = shared.gate.judge(event, None, stopped.received);
    let _ = stopped.answer(Reply::Errno(errno));
    shared.gate.settle(judged, Outcome::Errno(errno as i32));
}

impl Context<'_> {
    /// Turns a failure to read the caller's memory into what becomes of the call.
    ///
    /// A bad address is the caller's own mistake and named as the kernel would; memory that is hidden from us cannot be
    /// judged and is refused. Both are on record.
    fn memory<T>(&self, read: Result<T, Errno>) -> Result<T, Stop> {
        read.map_err(|errno| match errno {
            Errno::EFAULT => Stop::Unjudged(Unjudged::Unreadable, Errno::EFAULT),
            Errno::ENAMETOOLONG => Stop::Errno(Errno::ENAMETOOLONG),
            Errno::E2BIG => Stop::Unjudged(Unjudged::TooLarge, Errno::E2BIG),
            Errno::ESRCH => Stop::Gone,
            _ => Stop::Unjudged(Unjudged::Unreadable, Errno::EACCES),
        })
    }

    /// To be called once all is read: from then on the bytes are known to be the caller's.
    fn still_there(&self) -> Result<(), Stop> {
        if self.call.stopped.alive() { Ok(()) } else { Err(Stop::Gone) }
    }

    fn judge(&self, access: Access, asked: Option<String>) -> Judged {
        let event = Event { subject: (*self.task.subject).clone(), access };
        self.shared.gate.judge(event, asked, self.call.stopped.received)
    }

    /// Answers and settles.
    fn conclude(&self, judged: Judged, reply: Reply) -> Handled {
        let outcome = match self.call.stopped.answer(reply) {
            Ok(()) => Outcome::Ok,
            Err(errno) => Outcome::Errno(errno as i32),
        };
        self.shared.gate.settle(judged, outcome);
        Ok(())
    }

    /// Answers a refused question: with the error the kernel would give if nothing is there, else with `EACCES`.
    fn conclude_refused(&self, judged: Judged, natural: Option<Errno>) -> Handled {
        self.conclude(judged, Reply::Errno(natural.unwrap_or(Errno::EACCES)))
    }

    /// Judges and answers a path that leads nowhere: it is still on record who asked for what.
    fn nowhere(&self, missing: Unresolved, access: impl FnOnce(crate::event::Place) -> Access) -> Handled {
        let Unresolved { errno, path: Some(path) } = missing else {
            return Err(match missing.errno {
                Errno::ESRCH => Stop::Gone,
                errno => Stop::Errno(errno),
            });
        };
        self.still_there()?;
        let place = crate::event::Place::of(path);
        let judged = self.judge(access(place), None);
        self.conclude(judged, Reply::Errno(errno))
    }

    /// Lets another worker take up calls before this one waits.
    fn may_wait(&self) {
        Shared::hand_over(self.shared, self.term);
    }
}

/// Runs `act` without this worker's right to trace, so that the kernel decides as for any process of the user.
fn without_trace_right<T>(act: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
    let failed = |_| Errno::EACCES;
    let held = caps::has_cap(None, CapSet::Effective, Capability::CAP_SYS_PTRACE).map_err(failed)?;
    if !held {
        return act();
    }
    caps::drop(None, CapSet::Effective, Capability::CAP_SYS_PTRACE).map_err(failed)?;
    let done = act();
    caps::raise(None, CapSet::Effective, Capability::CAP_SYS_PTRACE).map_err(failed)?;
    done
}
