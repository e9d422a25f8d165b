//! Sockets: addresses as raw bytes, interface flags.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::check;

/// `connect(2)` with the address as the caller wrote it.
pub fn connect(fd: BorrowedFd<'_>, address: &[u8]) -> nix::Result<()> {
    // SAFETY: the kernel reads `address.len()` bytes during the call.
    let done = unsafe { libc::syscall(libc::SYS_connect, fd.as_raw_fd(), address.as_ptr(), address.len()) };
    check(done).map(drop)
}

/// `bind(2)` with the address as the caller wrote it.
pub fn bind(fd: BorrowedFd<'_>, address: &[u8]) -> nix::Result<()> {
    // SAFETY: the kernel reads `address.len()` bytes during the call.
    let done = unsafe { libc::syscall(libc::SYS_bind, fd.as_raw_fd(), address.as_ptr(), address.len()) };
    check(done).map(drop)
}

/// Brings the loopback interface of the calling process's network namespace up.
pub fn raise_loopback() -> nix::Result<()> {
    let any = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: all-zero bytes are a valid value of this plain structure.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the kernel reads the structure during the call; the name ends in NUL.
    check(unsafe { libc::ioctl(any.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) }.into()).map(drop)
}
