//! Processes: forking into namespaces, pidfds, what a process shows of itself.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::resource::Resource;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::unistd::Pid;

use super::check;

/// Which side of a fork this is.
#[derive(Debug)]
pub enum Fork {
    /// The new process.
    Child,
    /// The old one, with the new one's number (in the caller's namespace) and descriptor (close-on-exec).
    Parent {
        /// Process number.
        pid: i32,
        /// Process descriptor.
        pidfd: OwnedFd,
    },
}

/// Proof that this process had one thread when it was asked, which forking and changing what all threads share need.
///
/// Only its holder starts threads afterwards: agentbox drops it before the first one, and init and the command never
/// start any.
#[derive(Debug)]
pub struct Alone(());

/// Asks the kernel whether this is the only thread of the process; `EBUSY` if not.
pub fn alone() -> nix::Result<Alone> {
    let stat = super::file::read_small(libc::AT_FDCWD, c"/proc/self/stat")?;
    let stat = String::from_utf8_lossy(&stat);
    // Behind the program's name, which ends at the last parenthesis, the number of threads is the 18th field.
    let threads = stat.rsplit_once(')').and_then(|(_, fields)| fields.split_whitespace().nth(17));
    if threads == Some("1") { Ok(Alone(())) } else { Err(Errno::EBUSY) }
}

/// Forks into the new namespaces that `flags` (`CLONE_NEW*`) name.
///
/// C library functions that cache the thread id (`raise`, `abort`) see the parent's in the child.
pub fn fork_into(_: &Alone, flags: libc::c_int) -> nix::Result<Fork> {
    let mut pidfd: RawFd = -1;
    let flags = flags | libc::CLONE_PIDFD | libc::SIGCHLD;
    // SAFETY: the process has one thread, so no lock is held by a thread that the child would lack. With a null stack
    // and without CLONE_VM the child goes on with a copy of this stack, as after fork; the kernel writes the descriptor's number before it returns in the parent. (This is clone, not clone3, so that an
    // outer filter that refuses clone3 does not stop us. Argument order is x86_64's and aarch64's common part.)
    let pid = check(unsafe { libc::syscall(libc::SYS_clone, flags, 0, &raw mut pidfd, 0, 0) })?;
    if pid == 0 {
        return Ok(Fork::Child);
    }
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(Fork::Parent { pid: pid as i32, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } })
}

/// `pidfd_getfd(2)`: a copy of descriptor `number` of another process.
pub fn take_fd(pidfd: BorrowedFd<'_>, number: RawFd) -> nix::Result<OwnedFd> {
    // SAFETY: on success the kernel made a new descriptor that is ours alone.
    unsafe {
        let fd = check(libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), number, 0))?;
        Ok(OwnedFd::from_raw_fd(fd as RawFd))
    }
}

/// `pidfd_open(2)`; with `thread` the number may be that of any thread (`PIDFD_THREAD`, Linux 6.9).
pub fn open_pidfd(pid: i32, thread: bool) -> nix::Result<OwnedFd> {
    let flags = if thread { libc::O_EXCL } else { 0 };
    // SAFETY: on success the kernel made a new descriptor that is ours alone.
    unsafe {
        let fd = check(libc::syscall(libc::SYS_pidfd_open, pid, flags))?;
        Ok(OwnedFd::from_raw_fd(fd as RawFd))
    }
}

/// Whether the epoll instance that is descriptor `epoll` of task `tid` has an entry for our `file` under `number`, by
/// `kcmp(2)`. `EINVAL` or `EBADF` if that is no epoll instance, `ENOSYS` where the kernel cannot compare.
pub fn is_in_epoll(file: BorrowedFd<'_>, tid: i32, epoll: RawFd, number: RawFd) -> nix::Result<bool> {
    const KCMP_EPOLL_TFD: libc::c_long = 7;
    /// Entries under one number: of files whose descriptors were closed while a duplicate lives on.
    const MOST: u32 = 16;
    for nth in 0..MOST {
        // `struct kcmp_epoll_slot`.
        let slot = [epoll as u32, number as u32, nth];
        // SAFETY: the kernel reads three u32 during the call.
        let compared = unsafe {
            let own = libc::gettid();
            libc::syscall(libc::SYS_kcmp, own, tid, KCMP_EPOLL_TFD, file.as_raw_fd(), slot.as_ptr())
        };
        match check(compared) {
            Ok(0) => return Ok(true),
            Ok(_) => {}
            Err(Errno::ENOENT) => return Ok(false),
            Err(errno) => return Err(errno),
        }
    }
    Ok(false)
}

/// `pidfd_send_signal(2)`: exactly the process the descriptor names, even if its number was given away since.
pub fn signal(pidfd: BorrowedFd<'_>, signal: Signal) -> nix::Result<()> {
    let null = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo is allowed.
    check(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal as i32, null, 0) }).map(drop)
}

/// The size of the kernel's `siginfo_t`.
pub const SIGNAL_INFO: usize = 128;

/// `pidfd_send_signal(2)` as somebody else asked for it: any signal, with the information that is to go with it.
///
/// # Panics
/// If the information is not of that size.
pub fn signal_with(pidfd: BorrowedFd<'_>, signal: i32, info: Option<&[u8]>, flags: u32) -> nix::Result<()> {
    assert!(info.is_none_or(|info| info.len() == SIGNAL_INFO));
    let info = info.map_or(std::ptr::null(), <[u8]>::as_ptr);
    // SAFETY: the kernel copies as many bytes as there are, in no alignment, or none for null.
    check(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, info, flags) }).map(drop)
}

/// Whether two tasks have one table of descriptors, by `kcmp(2)`; true if nobody can tell. A task that is gone has none.
pub fn share_descriptors(one: i32, other: i32) -> bool {
    const KCMP_FILES: libc::c_long = 2;
    // SAFETY: the call takes numbers only.
    match check(unsafe { libc::syscall(libc::SYS_kcmp, one, other, KCMP_FILES, 0, 0) }) {
        Ok(order) => order == 0,
        Err(errno) => errno != Errno::ESRCH,
    }
}

/// The number, in this process's namespace, of the process to which task `number` of the pid namespace belongs.
///
/// `ESRCH` if there is no such task, `ENOTTY` before Linux 6.11. Found like any receiver of a signal: zombies count.
pub fn process_in(namespace: BorrowedFd<'_>, number: i32) -> nix::Result<i32> {
    const NS_GET_TGID_FROM_PIDNS: libc::c_ulong = 0x8004_b707; // _IOR(0xb7, 7, int)
    // SAFETY: the argument is a number; no memory is touched.
    check(unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_TGID_FROM_PIDNS as _, number) }.into())
        .map(|pid| pid as i32)
}

/// The soft limit of another task on a resource: prlimit(2).
pub fn limit(tid: i32, resource: Resource) -> nix::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: without new limits the kernel only fills the structure that we borrow exclusively.
    check(unsafe {
        libc::syscall(libc::SYS_prlimit64, tid, resource as u32, std::ptr::null::<libc::rlimit>(), &raw mut limit)
    })?;
    Ok(limit.rlim_cur)
}

/// Lowers both limits of another process on a resource: prlimit(2). `EPERM` if its limit is lower already, or if it runs
/// under other ids.
pub fn set_limit(process: i32, resource: Resource, limit: u64) -> nix::Result<()> {
    let limit = libc::rlimit { rlim_cur: limit, rlim_max: limit };
    // SAFETY: the kernel only reads the structure that we borrow, and is not asked for the old limits.
    check(unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            process,
            resource as u32,
            &raw const limit,
            std::ptr::null_mut::<libc::rlimit>(),
        )
    })
    .map(drop)
}

/// How a traced task goes on from where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resume {
    /// To the begin or end of its next call, with this signal; 0 for none.
    ToNextCall(i32),
    /// As its stop by a signal asks: it stays there, and its tracer hears what ends that.
    Paused,
    /// Traced no more, with this signal; 0 for none.
    Untraced(i32),
}

/// Resumes a task that the calling thread traces and that stands still. Unlike nix's, these take every signal.
pub fn resume(task: Pid, how: Resume) -> nix::Result<()> {
    let (request, signal) = match how {
        Resume::ToNextCall(signal) => (libc::PTRACE_SYSCALL, signal),
        Resume::Paused => (libc::PTRACE_LISTEN, 0),
        Resume::Untraced(signal) => (libc::PTRACE_DETACH, signal),
    };
    // SAFETY: these requests take numbers only.
    check(unsafe { libc::ptrace(request, task.as_raw(), 0, libc::c_long::from(signal)) }).map(drop)
}

/// Sends a signal to one thread: tgkill(2).
pub fn signal_thread(process: i32, tid: i32, signal: Signal) -> nix::Result<()> {
    // SAFETY: the call takes numbers only.
    check(unsafe { libc::syscall(libc::SYS_tgkill, process, tid, signal as i32) }).map(drop)
}

/// Ends the process at once: no destructors, no buffers flushed, which would be the parent's.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: _exit does not return and touches no memory of ours.
    unsafe { libc::_exit(status) }
}

/// Overwrites the environment strings this process was started with, so that nobody who may read
/// `/proc/PID/environ` finds them. Afterwards every variable reads as empty.
pub fn scrub_environment(_: &Alone) {
    unsafe extern "C" {
        static mut environ: *mut *mut libc::c_char;
    }
    // SAFETY: `environ` is a null-terminated array of NUL-terminated strings in memory that this process owns and may
    // write (the initial stack, or the heap); no other thread reads it. Each string stays NUL-terminated.
    unsafe {
        let mut entry = environ;
        while !entry.is_null() && !(*entry).is_null() {
            let text = *entry;
            libc::memset(text.cast(), 0, libc::strlen(text));
            entry = entry.add(1);
        }
    }
}

/// Makes the terminal `fd` the controlling terminal of the calling session leader.
pub fn take_terminal(fd: BorrowedFd<'_>) -> nix::Result<()> {
    // SAFETY: TIOCSCTTY takes an integer.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCSCTTY as _, 0) }.into()).map(drop)
}

/// The window size of a terminal.
pub fn window_size(fd: BorrowedFd<'_>) -> nix::Result<libc::winsize> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the kernel fills the structure that we borrow exclusively.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCGWINSZ as _, &raw mut size) }.into())?;
    Ok(size)
}

/// Sets the window size of a terminal.
pub fn set_window_size(fd: BorrowedFd<'_>, size: &libc::winsize) -> nix::Result<()> {
    // SAFETY: the kernel reads the structure during the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCSWINSZ as _, &raw const *size) }.into()).map(drop)
}

/// Sets flags of the calling process by `prctl(2)` with one argument.
fn prctl(option: libc::c_int, value: libc::c_ulong) -> nix::Result<()> {
    // SAFETY: the options used in this file take plain numbers.
    check(unsafe { libc::prctl(option, value, 0, 0, 0) }.into()).map(drop)
}

/// Has the kernel kill this process when the thread that made it ends.
pub fn die_with_parent() -> nix::Result<()> {
    prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong)
}

/// Hides this process's memory, descriptors and environment from other processes of the same user.
pub fn hide() -> nix::Result<()> {
    prctl(libc::PR_SET_DUMPABLE, 0)
}

/// Empties the capability bounding set: what is not in it cannot be gained by an exec.
pub fn empty_bounding_set() -> nix::Result<()> {
    // Capabilities are numbered without gaps; the first number that the kernel does not know ends them.
    for cap in 0.. {
        match prctl(libc::PR_CAPBSET_DROP, cap) {
            Ok(()) => {}
            Err(Errno::EINVAL) if cap > 0 => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Gives up gaining rights by exec, for good, for this thread and what it starts.
pub fn no_new_privileges() -> nix::Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1)
}

/// Takes in orphans among the descendants, as pid 1 does: the stand-in where there is no process namespace.
pub fn adopt_orphans() -> nix::Result<()> {
    prctl(libc::PR_SET_CHILD_SUBREAPER, 1)
}

/// Joins a new session keyring, so that keys of the user's session are out of reach.
pub fn new_session_keyring() -> nix::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
    let anonymous = std::ptr::null::<libc::c_char>();
    // SAFETY: a null name asks for an anonymous keyring.
    check(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, anonymous) }).map(drop)
}

/// `fork(2)`.
pub fn fork(_: &Alone) -> nix::Result<nix::unistd::ForkResult> {
    // SAFETY: the process is single-threaded, so no lock is held by a thread that the child would lack.
    unsafe { nix::unistd::fork() }
}

/// The version of Landlock's interface; an error where the kernel lacks it (`ENOSYS`) or it is off (`EOPNOTSUPP`).
pub fn landlock_version() -> nix::Result<i32> {
    const VERSION: u32 = 1;
    let null = std::ptr::null::<libc::c_void>();
    // SAFETY: with the version flag the kernel takes a null attribute of size 0.
    check(unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, null, 0, VERSION) }).map(|abi| abi as i32)
}

/// Has all threads allocate from one arena: an arena each would cost every worker a mapping of its own at start, and
/// they allocate little at the same time.
pub fn share_one_arena() {
    // SAFETY: mallopt only changes how later allocations are made.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

/// Gives `signal` its default action back.
pub fn restore_default(signal: Signal) -> nix::Result<()> {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: the default action runs no code of ours.
    unsafe { sigaction(signal, &default) }.map(drop)
}

/// Has `signal` interrupt what a thread waits for in the kernel (`EINTR`), and do nothing else.
pub fn take_note(signal: Signal) -> nix::Result<()> {
    extern "C" fn nothing(_: libc::c_int) {}
    let note = SigAction::new(SigHandler::Handler(nothing), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler touches nothing.
    unsafe { sigaction(signal, &note) }.map(drop)
}

/// Has this process ignore `signal`.
pub fn ignore(signal: Signal) -> nix::Result<()> {
    let ignore = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
    // SAFETY: ignoring runs no code of ours.
    unsafe { sigaction(signal, &ignore) }.map(drop)
}
