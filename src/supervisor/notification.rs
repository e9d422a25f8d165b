//! One stopped call: what was asked, and the answer.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use nix::errno::Errno;

use super::affinity::{Held, Prices};
use super::target::Target;
use crate::sys::notify;
use crate::syscalls::{Arg, Family, Row, Rule};

/// Where calls are received and answered.
#[derive(Debug, Clone, Copy)]
pub struct Listener<'a> {
    /// The listener.
    pub fd: BorrowedFd<'a>,
    /// What it costs to hand descriptors over, where a stopped caller waits through signals (Linux 5.19): elsewhere it may
    /// be gone between two steps, so one has to do.
    pub prices: Option<&'a Prices>,
}

/// A call that waits for an answer.
pub struct Stopped<'a> {
    listener: Listener<'a>,
    id: u64,
    /// The call's number.
    pub number: u32,
    /// Its arguments, as in the registers.
    pub args: [u64; 6],
    /// Who made it.
    pub target: Target,
    /// When it was received.
    pub received: Instant,
}

/// A stopped call that nobody is at: it waits for something.
#[derive(Debug)]
pub struct Parked {
    id: u64,
    number: u32,
    args: [u64; 6],
    target: Target,
    received: Instant,
}

impl Parked {
    /// The call, to be answered through `listener`.
    pub fn resume<'a>(&self, listener: Listener<'a>) -> Stopped<'a> {
        let Self { id, number, args, target, received } = *self;
        Stopped { listener, id, number, args, target, received }
    }
}

/// An answer to a stopped call.
#[derive(Debug)]
pub enum Reply {
    /// The call fails with this error.
    Errno(Errno),
    /// A signal came while the call waited: the kernel repeats it or lets it fail with `EINTR`, as the signal's handler
    /// asked for.
    Interrupted,
    /// The call returns this value.
    Value(i64),
    /// The kernel carries the call out.
    Continue(Because),
}

/// The sound reasons to let a stopped call go on although its memory can change under it.
///
/// A continue never grants anything: what the kernel layers forbid stays forbidden.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Because {
    /// The result of the exec is compared with what was approved before the new program runs its first instruction.
    ExecIsVerified,
    /// A flag in a register makes the exec a question of whether the file may be run (`AT_EXECVE_CHECK`).
    NothingStarts,
    /// The call changes nothing but where its caller stands, and grants nothing.
    OnlyTheCallerChanges,
    /// Numbers in registers name the signal and whom it is for, so what was judged is what is sent. They name a task of
    /// the box: the pid namespace holds no other, and Landlock lets no signal out. What number a descriptor has
    /// (`pidfd_send_signal`) nobody else can change, or the call is not let go on. One gap remains, within these walls: a
    /// number can pass to a new process of the box, as it can under any sender.
    SignalStaysInTheBox,
}

impl<'a> Stopped<'a> {
    /// Waits for the next call.
    pub fn next(listener: Listener<'a>, proc: BorrowedFd<'_>) -> nix::Result<Self> {
        let notification = notify::receive(listener.fd)?;
        Ok(Self {
            listener,
            id: notification.id,
            number: notification.data.nr as u32,
            args: notification.data.args,
            target: Target { tid: notification.pid as i32, proc: proc.as_raw_fd() },
            received: Instant::now(),
        })
    }

    /// The number by which the kernel knows this call.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Whether the caller still waits: if so, all that was read of it so far is its own.
    pub fn alive(&self) -> bool {
        notify::alive(self.listener.fd, self.id)
    }

    /// Lays the call aside.
    pub fn park(&self) -> Parked {
        let Self { id, number, args, target, received, .. } = *self;
        Parked { id, number, args, target, received }
    }

    /// Puts `file` in place of the caller's descriptor `number`. The call still waits for its answer.
    pub fn replace(&self, number: i32, file: &OwnedFd, close_on_exec: bool) -> Result<(), Errno> {
        self.beside_the_caller(|_held| {
            notify::replace_fd(self.listener.fd, self.id, file.as_fd(), number, close_on_exec)
        })
    }

    /// Gives the caller a new descriptor for `file`, and returns its number. The call still waits for its answer.
    pub fn give(&self, file: &OwnedFd, close_on_exec: bool) -> Result<i32, Errno> {
        self.beside_the_caller(|_held| notify::add_fd(self.listener.fd, self.id, file.as_fd(), close_on_exec))
    }

    /// Answers with a new descriptor for `file`, and returns its number; none if the caller died meanwhile. On failure,
    /// such as a full table of descriptors (`EMFILE`), the call still waits for its answer.
    pub fn hand_over(&self, file: &OwnedFd, close_on_exec: bool) -> Result<Option<i32>, Errno> {
        let given = self.beside_the_caller(|held| match held {
            None => notify::answer_with_fd(self.listener.fd, self.id, file.as_fd(), close_on_exec),
            Some(held) => {
                let number = notify::add_fd(self.listener.fd, self.id, file.as_fd(), close_on_exec)?;
                drop(held);
                self.answer(Reply::Value(number.into())).map(|()| number)
            }
        });
        match given {
            Err(Errno::ENOENT) => Ok(None),
            done => done.map(Some),
        }
    }

    /// Puts something into the caller's table of descriptors, with the caller held where that is cheaper.
    fn beside_the_caller<T>(&self, put: impl FnOnce(Option<Held>) -> T) -> T {
        match self.listener.prices {
            Some(prices) => prices.put(self.target.tid, put),
            None => put(None),
        }
    }

    /// Answers.
    ///
    /// Returns the error number the caller sees, if any; a caller that died meanwhile needs no answer.
    pub fn answer(&self, reply: Reply) -> Result<(), Errno> {
        match reply {
            Reply::Errno(errno) => {
                let _ = notify::answer(self.listener.fd, self.id, 0, errno as i32);
                Err(errno)
            }
            Reply::Interrupted => {
                // Not for programs to see: the kernel replaces it on the way back (signal_setup_done, errno.h).
                const ERESTARTSYS: i32 = 512;
                let _ = notify::answer(self.listener.fd, self.id, 0, ERESTARTSYS);
                Err(Errno::EINTR)
            }
            Reply::Value(value) => {
                let _ = notify::answer(self.listener.fd, self.id, value, 0);
                Ok(())
            }
            Reply::Continue(
                Because::ExecIsVerified
                | Because::NothingStarts
                | Because::OnlyTheCallerChanges
                | Because::SignalStaysInTheBox,
            ) => notify::let_go_on(self.listener.fd, self.id),
        }
    }
}

/// A stopped call with its row of the table: arguments by role.
pub struct Call<'a> {
    /// The call.
    pub stopped: &'a Stopped<'a>,
    /// Its row.
    pub row: &'static Row,
    /// Its handler.
    pub family: Family,
    implied: i32,
}

impl<'a> Call<'a> {
    /// Pairs a call with its row; `None` if the row does not stop it.
    pub fn new(stopped: &'a Stopped<'a>, row: &'static Row) -> Option<Self> {
        match row.rule {
            Rule::Stop { family, implied, .. } => Some(Self { stopped, row, family, implied }),
            Rule::Refuse { .. } => None,
        }
    }

    /// The argument with `role`, or 0.
    pub fn word(&self, role: Arg) -> u64 {
        self.row.value(&self.stopped.args, role).unwrap_or(0)
    }

    /// The argument with `role` as the kernel takes an `int`: the low 32 bits.
    pub fn int(&self, role: Arg) -> i32 {
        self.word(role) as u32 as i32
    }

    /// Whether this spelling of the call has an argument with `role`.
    pub fn has(&self, role: Arg) -> bool {
        self.row.value(&self.stopped.args, role).is_some()
    }

    /// The directory argument `role`, or the working directory where the spelling has none.
    pub fn dir(&self, role: Arg) -> i32 {
        if self.has(role) { self.int(role) } else { libc::AT_FDCWD }
    }

    /// `AT_*` flags, with those that the spelling implies.
    pub fn at_flags(&self) -> i32 {
        self.int(Arg::AtFlags) | self.implied
    }

    /// Open flags, with those that the spelling implies.
    pub fn open_flags(&self) -> i32 {
        self.int(Arg::OpenFlags) | self.implied
    }

    /// Reads the path argument `role`.
    pub fn path(&self, role: Arg) -> Result<std::ffi::CString, Errno> {
        self.stopped.target.path(self.word(role))
    }
}
