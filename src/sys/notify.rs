//! The seccomp listener: install, receive, answer. `seccomp_unotify(2)`.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;

use super::check;

/// A stopped call, as the kernel reports it.
pub type Notification = libc::seccomp_notif;

const SYNC_WAKE_UP: u64 = 1;
const IOCTL_SET_FLAGS: libc::c_ulong = 0x4008_2104; // _IOW('!', 4, __u64), Linux 6.6

const IOCTL_RECV: libc::c_ulong = 0xc050_2100;
const IOCTL_SEND: libc::c_ulong = 0xc018_2101;
const IOCTL_ID_VALID: libc::c_ulong = 0x4008_2102;
const IOCTL_ADDFD: libc::c_ulong = 0x4018_2103;

/// Installs a filter on the calling thread. The kernel copies the program.
pub fn install(program: &[libc::sock_filter]) -> nix::Result<()> {
    load(program, 0).map(drop)
}

/// Installs a filter whose notify action stops calls, and returns the listener (close-on-exec).
///
/// `killable` makes a stopped caller wait through every signal but a fatal one, from the moment its call is received
/// (`WAIT_KILLABLE_RECV`, Linux 5.19): without it a signal makes the kernel repeat calls that have already been
/// carried out.
pub fn install_listener(program: &[libc::sock_filter], killable: bool) -> nix::Result<OwnedFd> {
    let mut flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    if killable {
        flags |= libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    }
    let fd = load(program, flags)?;
    // SAFETY: with NEW_LISTENER a successful call returns a new descriptor that is ours alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

fn load(program: &[libc::sock_filter], flags: libc::c_ulong) -> nix::Result<libc::c_long> {
    let length = u16::try_from(program.len()).map_err(|_| Errno::E2BIG)?;
    let fprog = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    // SAFETY: the kernel reads `length` of them during the call and
    // never writes through the pointer.
    check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const fprog) })
}

/// Whether the kernel knows the notify action, and the sizes of its structures: `(notification, response)`.
pub fn sizes() -> nix::Result<(usize, usize)> {
    let mut sizes = libc::seccomp_notif_sizes { seccomp_notif: 0, seccomp_notif_resp: 0, seccomp_data: 0 };
    // SAFETY: the kernel fills the structure that we borrow exclusively.
    check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_NOTIF_SIZES, 0, &raw mut sizes) })?;
    Ok((sizes.seccomp_notif.into(), sizes.seccomp_notif_resp.into()))
}

/// Whether the kernel accepts `flags` for a new filter: it answers `EFAULT` for a null program if it does, `EINVAL` if not.
pub fn knows_flags(flags: libc::c_ulong) -> bool {
    // SAFETY: a null program is never read; the call cannot succeed.
    let answer = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, std::ptr::null::<libc::sock_fprog>())
    };
    check(answer) == Err(Errno::EFAULT)
}

/// Asks for wake-ups on the caller's own CPU: the largest part of a round trip. `EINVAL` before Linux 6.6.
pub fn wake_on_same_cpu(listener: BorrowedFd<'_>) -> nix::Result<()> {
    // SAFETY: this ioctl takes the flags as its argument, not a pointer.
    check(unsafe { libc::ioctl(listener.as_raw_fd(), IOCTL_SET_FLAGS as _, SYNC_WAKE_UP) }.into()).map(drop)
}

/// Waits for the next stopped call.
///
/// `EINTR` after a signal; `ENOENT` if the caller died meanwhile, or when no task uses the filter any more.
pub fn receive(listener: BorrowedFd<'_>) -> nix::Result<Notification> {
    // A kernel with a larger structure writes past ours unless there is room; the kernel also insists on zeroes.
    #[repr(C)]
    struct Roomy(Notification, [u8; 512]);
    // SAFETY: all-zero bytes are a valid value of this plain structure.
    let mut roomy: Roomy = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one notification into a buffer that is large enough and borrowed exclusively.
    check(unsafe { libc::ioctl(listener.as_raw_fd(), IOCTL_RECV as _, &raw mut roomy) }.into())?;
    Ok(roomy.0)
}

/// Whether the stopped call still waits: what was read from its caller before this belongs to that caller.
pub fn alive(listener: BorrowedFd<'_>, id: u64) -> bool {
    // SAFETY: the kernel reads one u64.
    check(unsafe { libc::ioctl(listener.as_raw_fd(), IOCTL_ID_VALID as _, &raw const id) }.into()).is_ok()
}

/// Answers with a value or, if `errno` is not 0, with that error.
pub fn answer(listener: BorrowedFd<'_>, id: u64, value: i64, errno: i32) -> nix::Result<()> {
    send(listener, libc::seccomp_notif_resp { id, val: value, error: -errno, flags: 0 })
}

/// Lets the kernel carry the call out as if it had not been stopped. The caller states why that is sound; see
/// `supervisor::Because`.
pub fn let_go_on(listener: BorrowedFd<'_>, id: u64) -> nix::Result<()> {
    let flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32;
    send(listener, libc::seccomp_notif_resp { id, val: 0, error: 0, flags })
}

fn send(listener: BorrowedFd<'_>, mut response: libc::seccomp_notif_resp) -> nix::Result<()> {
    // SAFETY: the kernel reads the structure during the call.
    check(unsafe { libc::ioctl(listener.as_raw_fd(), IOCTL_SEND as _, &raw mut response) }.into()).map(drop)
}

/// Puts a copy of `file` into the caller's descriptor table and answers the call with its number, in one step. Returns the
/// number.
///
/// `EMFILE` if the caller's table is full: the call is then still unanswered.
pub fn answer_with_fd(
    listener: BorrowedFd<'_>,
    id: u64,
    file: BorrowedFd<'_>,
    close_on_exec: bool,
) -> nix::Result<RawFd> {
    add_fd(listener, id, file, libc::SECCOMP_ADDFD_FLAG_SEND as u32, 0, close_on_exec)
}

/// Puts a copy of `file` into the caller's descriptor table, and returns its number. The call still waits for its answer.
pub fn give_fd(listener: BorrowedFd<'_>, id: u64, file: BorrowedFd<'_>, close_on_exec: bool) -> nix::Result<RawFd> {
    add_fd(listener, id, file, 0, 0, close_on_exec)
}

/// Puts a copy of `file` in place of the caller's descriptor `number`. The call still waits for its answer.
pub fn replace_fd(
    listener: BorrowedFd<'_>,
    id: u64,
    file: BorrowedFd<'_>,
    number: RawFd,
    close_on_exec: bool,
) -> nix::Result<()> {
    let number = u32::try_from(number).map_err(|_| Errno::EBADF)?;
    add_fd(listener, id, file, libc::SECCOMP_ADDFD_FLAG_SETFD as u32, number, close_on_exec).map(drop)
}

fn add_fd(
    listener: BorrowedFd<'_>,
    id: u64,
    file: BorrowedFd<'_>,
    flags: u32,
    newfd: u32,
    close_on_exec: bool,
) -> nix::Result<RawFd> {
    let newfd_flags = if close_on_exec { libc::O_CLOEXEC as u32 } else { 0 };
    let mut addfd = libc::seccomp_notif_addfd { id, flags, srcfd: file.as_raw_fd() as u32, newfd, newfd_flags };
    // SAFETY: the kernel reads the structure during the call; `file` stays ours, the caller gets its own reference.
    check(unsafe { libc::ioctl(listener.as_raw_fd(), IOCTL_ADDFD as _, &raw mut addfd) }.into())
        .map(|number| number as RawFd)
}
