//! Sockets: addresses as raw bytes, interface flags.

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, socket};

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

/// Receives one packet and the descriptor beside it, if any (close-on-exec). A length of 0 is the other side's end.
pub fn receive_with_fd(socket: BorrowedFd<'_>, into: &mut [u8]) -> nix::Result<(usize, Option<OwnedFd>)> {
    let mut space = nix::cmsg_space!([RawFd; 1]);
    let mut slices = [IoSliceMut::new(into)];
    let received = loop {
        match recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC) {
            Err(Errno::EINTR) => {}
            other => break other?,
        }
    };
    let fd = received.cmsgs()?.find_map(|message| match message {
        // SAFETY: the kernel has just put this descriptor into our table, and nobody else has its number.
        ControlMessageOwned::ScmRights(fds) => fds.first().map(|fd| unsafe { OwnedFd::from_raw_fd(*fd) }),
        _ => None,
    });
    Ok((received.bytes, fd))
}
