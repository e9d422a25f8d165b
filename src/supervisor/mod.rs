//! The supervisor: threads that answer stopped calls.
//!
//! A worker (`workers`) sees the box's view and holds no right but to trace, so what it carries out is subject to the
//! same permissions as the caller. It receives a call, finds its row in the table and hands it to the family's handler
//! (`open`, `fs`, `exec` and then `script`, `net`, `send`, `signal`; `pair` and `interface`, where nothing is to decide),
//! which reads the arguments (`target`), resolves names (`resolve`), asks the gate, acts and answers (`notification`).
//! Every verdict comes from the gate.

mod address;
mod affinity;
mod aims;
mod bound;
mod digest;
mod exchange;
mod exec;
mod files;
mod fs;
mod interface;
mod lineage;
mod marks;
mod message;
mod net;
mod notification;
mod open;
mod outside;
mod pair;
mod repository;
mod resolve;
mod script;
mod send;
mod signal;
mod sought;
mod target;
mod tracked;
mod view;
mod waits;
mod workers;

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use caps::{CapSet, Capability};
use nix::errno::Errno;

use crate::event::{Access, ActionId, Event, FileId, Standing, Unjudged};
use crate::gate::{Judged, Outcome};
use crate::syscalls::{self, Family};
use lineage::Task;
use notification::{Because, Call, Reply, Stopped};
use resolve::{Caller, Unresolved};
use workers::Shared;

pub use exec::{HEAD, MOST_INTERPRETERS, interpreter_of};
pub use repository::{Finding, inspect};
pub use workers::{Supervisor, SupervisorError};

/// What the supervisor needs to know of the box it serves.
#[derive(Debug)]
pub struct Box {
    /// init's number on the host.
    pub init: i32,
    /// The host's `/proc`, opened before the view was made.
    pub host_proc: OwnedFd,
    /// Whether the box has a mount view of its own, and so a user namespace in which workers hold rights.
    pub own_view: bool,
    /// Directories whose file systems belong to the box alone.
    pub private: Vec<PathBuf>,
    /// Whether the box has a network namespace of its own, so that its loopback is its own.
    pub own_network: bool,
    /// Whether a stopped caller waits through signals.
    pub wait_killable: bool,
}

/// What was made in this run.
#[derive(Default)]
struct Made {
    repositories: Mutex<HashSet<(u64, u64)>>,
    repository_paths: Mutex<Vec<PathBuf>>,
    sockets: Mutex<HashSet<(u64, u64)>>,
    /// Names of abstract sockets that were bound.
    abstract_names: Mutex<HashSet<Vec<u8>>>,
    /// Files of which something is held elsewhere, or which this run has made.
    held: Mutex<HashSet<FileId>>,
}

/// One worker's view of a call: what handlers are given.
struct Context<'a> {
    shared: &'a Arc<Shared>,
    call: &'a Call<'a>,
    task: &'a Task,
    /// The worker's term as leader; `None` while nobody else could take over anything.
    term: Option<u64>,
}

/// Nothing panics while it holds one of these locks, and each use leaves the value whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Finds the handler of a stopped call and has it answer.
fn handle(shared: &Arc<Shared>, stopped: &Stopped<'_>, term: Option<u64>) {
    let task = shared.lineage.task(stopped.target, stopped.received);
    let call = syscalls::row(stopped.number).and_then(|row| Call::new(stopped, row));
    let Some(call) = call else {
        return refuse(shared, stopped, &task, stopped.number.to_string(), Unjudged::UnknownCall, Errno::ENOSYS);
    };
    let context = Context { shared, call: &call, task: &task, term };
    let done = match call.family {
        Family::Open => open::open(&context),
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
        Family::Listen => net::listen(&context),
        Family::Join => net::join(&context),
        Family::SendTo => send::send_to(&context),
        Family::SendMessage => send::message(&context),
        Family::SendMessages => send::messages(&context),
        Family::Pair => pair::pair(&context),
        Family::Interface => interface::interface(&context),
        Family::Epoll => exchange::epoll(&context),
        Family::Signal => signal::signal(&context),
        Family::Surroundings => surroundings(&context),
    };
    match done {
        Ok(()) => {}
        Err(Stop::Errno(errno)) => {
            let _ = stopped.answer(Reply::Errno(errno));
        }
        Err(Stop::Nothing) => {
            let _ = stopped.answer(Reply::Value(0));
        }
        Err(Stop::Unjudged(why, errno)) => refuse(shared, stopped, &task, call.row.name.into(), why, errno),
        // Most likely the caller died; but whoever still waits must not wait for ever.
        Err(Stop::Gone) => {
            let _ = stopped.answer(Reply::Errno(Errno::ESRCH));
        }
    }
}

/// Why a handler stopped before anything was decided.
enum Stop {
    /// The kernel would have failed the call for this before looking at anything that is decided.
    Errno(Errno),
    /// The call does nothing, wherever it is made, and succeeds.
    Nothing,
    /// It cannot be judged.
    Unjudged(Unjudged, Errno),
    /// The caller is dead.
    Gone,
}

type Handled = Result<(), Stop>;

/// Refuses what cannot be judged, with a record.
fn refuse(shared: &Shared, stopped: &Stopped<'_>, task: &Task, name: String, why: Unjudged, errno: Errno) {
    let event = Event::new(Arc::clone(&task.subject), Access::Call { name, why });
    let judged = shared.gate.judge(event, None, stopped.received);
    let _ = stopped.answer(Reply::Errno(errno));
    shared.gate.settle(judged, Outcome::Errno(errno as i32));
}

/// `chdir`, `fchdir`, `umask`: what is known of the caller's surroundings is outdated from here on.
fn surroundings(context: &Context<'_>) -> Handled {
    context.shared.lineage.changes(context.call.stopped.target);
    let _ = context.call.stopped.answer(Reply::Continue(Because::OnlyTheCallerChanges));
    Ok(())
}

impl Context<'_> {
    /// Who asks, for resolving its paths.
    fn caller(&self) -> Caller<'_> {
        Caller {
            target: self.call.stopped.target,
            task: self.task,
            lineage: &self.shared.lineage,
            view: self.shared.view.as_ref(),
            received: self.call.stopped.received,
        }
    }

    /// Turns a failure to read the caller's memory into what becomes of the call.
    ///
    /// A bad address is the caller's own mistake and named as the kernel would; memory that is hidden from us cannot be
    /// judged and is refused. Both are on record.
    fn memory<T>(&self, read: Result<T, Errno>) -> Result<T, Stop> {
        read.map_err(|errno| match errno {
            Errno::EFAULT => Stop::Unjudged(Unjudged::Unreadable, Errno::EFAULT),
            Errno::ENAMETOOLONG | Errno::EINVAL | Errno::EMSGSIZE | Errno::ENOBUFS => Stop::Errno(errno),
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
        self.judge_with(access, asked, Standing::default())
    }

    /// The same with what is known of the action beforehand.
    fn judge_with(&self, access: Access, asked: Option<String>, standing: Standing) -> Judged {
        let event = Event { subject: Arc::clone(&self.task.subject), access, standing };
        self.shared.gate.judge(event, asked, self.call.stopped.received)
    }

    /// The action that a program is to be marked with that the caller starts now, if it is not the caller's: what the
    /// agent's own process starts is an action, and all that comes of it belongs to it.
    fn begins_action(&self) -> Option<ActionId> {
        let subject = &self.task.subject;
        if self.shared.lineage.is_command(subject) { None } else { self.shared.gate.action_for_command(subject) }
    }

    /// Answers and settles.
    fn conclude(&self, judged: Judged, reply: Reply) -> Handled {
        self.settle(judged, self.call.stopped.answer(reply));
        Ok(())
    }

    /// Settles with what the caller was answered.
    fn settle(&self, judged: Judged, answered: Result<(), Errno>) {
        let outcome = answered.map_or_else(|errno| Outcome::Errno(errno as i32), |()| Outcome::Ok);
        self.shared.gate.settle(judged, outcome);
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

    /// Lets another worker take up calls before this one waits; false if this one is the last and must not wait.
    fn may_wait(&self) -> bool {
        self.term.is_none_or(|term| Shared::hand_over(self.shared, term))
    }

    /// Carries out what may wait for long: another worker takes up calls meanwhile, and what would interrupt the caller
    /// interrupts this (`EINTR`). `EAGAIN` if there is nobody else to take up calls.
    fn wait<T>(&self, act: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
        if self.may_wait() { self.shared.waits.interruptible(self, act) } else { Err(Errno::EAGAIN) }
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
