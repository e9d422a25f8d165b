//! Sockets: addresses as raw bytes, interface flags.

use std::io::IoSliceMut;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
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

/// `listen(2)` with the backlog as the caller wrote it.
pub fn listen(fd: BorrowedFd<'_>, backlog: i32) -> nix::Result<()> {
    // SAFETY: plain numbers.
    check(unsafe { libc::listen(fd.as_raw_fd(), backlog) }.into()).map(drop)
}

/// `sendto(2)` with an address as the caller wrote it; never a `SIGPIPE`.
pub fn send_to(fd: BorrowedFd<'_>, data: &[u8], flags: i32, address: &[u8]) -> nix::Result<usize> {
    // SAFETY: the kernel reads both slices during the call.
    let sent = unsafe {
        libc::sendto(
            fd.as_raw_fd(),
            data.as_ptr().cast(),
            data.len(),
            flags | libc::MSG_NOSIGNAL,
            address.as_ptr().cast(),
            address.len() as libc::socklen_t,
        )
    };
    check(sent as libc::c_long).map(|sent| sent as usize)
}

/// `sendmsg(2)` with an address and control data as they are, either of which may be empty; never a `SIGPIPE`.
pub fn send_message(fd: BorrowedFd<'_>, data: &[u8], address: &[u8], control: &[u8], flags: i32) -> nix::Result<usize> {
    let mut slice = libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() };
    // SAFETY: all-zero bytes are a valid value of this plain structure.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut slice;
    header.msg_iovlen = 1;
    if !address.is_empty() {
        header.msg_name = address.as_ptr().cast_mut().cast();
        header.msg_namelen = address.len() as libc::socklen_t;
    }
    if !control.is_empty() {
        header.msg_control = control.as_ptr().cast_mut().cast();
        header.msg_controllen = control.len() as _;
    }
    // SAFETY: the kernel reads the header and the three slices during the call and writes to none of them.
    let sent = unsafe { libc::sendmsg(fd.as_raw_fd(), &raw const header, flags | libc::MSG_NOSIGNAL) };
    check(sent as libc::c_long).map(|sent| sent as usize)
}

/// The largest socket option that is carried over.
const OPTION: usize = 64;

/// A socket option's value. `ENOPROTOOPT` and the like where the socket has no such option.
pub fn option(fd: BorrowedFd<'_>, level: i32, name: i32) -> nix::Result<OptionValue> {
    option_of_length(fd, level, name, OPTION)
}

/// The same for an option of which the kernel only gives the whole; `length` is at most [`OPTION`].
fn option_of_length(fd: BorrowedFd<'_>, level: i32, name: i32, length: usize) -> nix::Result<OptionValue> {
    let mut value = OptionValue { bytes: [0; OPTION], length: length.min(OPTION) as libc::socklen_t };
    // SAFETY: the kernel writes at most `length` bytes, which the buffer holds, and the new length.
    let done = unsafe {
        libc::getsockopt(fd.as_raw_fd(), level, name, value.bytes.as_mut_ptr().cast(), &raw mut value.length)
    };
    check(done.into()).map(|_| value)
}

/// Sets a socket option.
pub fn set_option(fd: BorrowedFd<'_>, level: i32, name: i32, value: &[u8]) -> nix::Result<()> {
    // SAFETY: the kernel reads the slice during the call.
    let done =
        unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, value.as_ptr().cast(), value.len() as libc::socklen_t) };
    check(done.into()).map(drop)
}

/// The value of a socket option.
#[derive(Debug, Clone, Copy)]
pub struct OptionValue {
    bytes: [u8; OPTION],
    length: libc::socklen_t,
}

impl OptionValue {
    /// As the kernel gave it.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..(self.length as usize).min(OPTION)]
    }

    /// As a C `int`; 0 if it is shorter.
    pub fn int(&self) -> i32 {
        self.bytes().first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes))
    }
}

impl PartialEq for OptionValue {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

/// Stands for the network namespace that a socket belongs to: equal for sockets of the same one. Linux 5.14.
pub fn network_of(fd: BorrowedFd<'_>) -> nix::Result<u64> {
    const SO_NETNS_COOKIE: i32 = 71;
    let value = option_of_length(fd, libc::SOL_SOCKET, SO_NETNS_COOKIE, size_of::<u64>())?;
    value.bytes().first_chunk().map(|bytes| u64::from_ne_bytes(*bytes)).ok_or(Errno::EINVAL)
}

/// A new socket (close-on-exec) of any family, type and protocol.
pub fn new(family: i32, kind: i32, protocol: i32) -> nix::Result<OwnedFd> {
    // SAFETY: plain numbers.
    let fd = check(unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) }.into())?;
    // SAFETY: a successful call returns a new descriptor that is ours alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// The bytes of `struct ifreq`.
pub const INTERFACE: usize = size_of::<libc::ifreq>();

/// `ioctl(2)` with a request that reads and writes a `struct ifreq` without pointers in it; `EOPNOTSUPP` for any other.
pub fn interface(fd: BorrowedFd<'_>, request: u32, about: &mut [u8; INTERFACE]) -> nix::Result<()> {
    if !INTERFACE_REQUESTS.contains(&request) {
        return Err(Errno::EOPNOTSUPP);
    }
    // SAFETY: sockets alone know these requests, and read and write no more than the structure, which the array holds.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), request as _, about.as_mut_ptr()) }.into()).map(drop)
}

/// Requests that tell something about one interface in the structure itself: `SIOCGIFNAME`, `FLAGS`, `ADDR`, `DSTADDR`,
/// `BRDADDR`, `NETMASK`, `METRIC`, `MEM`, `MTU`, `HWADDR`, `INDEX`, `TXQLEN`, `MAP` (include/uapi/linux/sockios.h).
const INTERFACE_REQUESTS: [u32; 13] =
    [0x8910, 0x8913, 0x8915, 0x8917, 0x8919, 0x891b, 0x891d, 0x891f, 0x8921, 0x8927, 0x8933, 0x8942, 0x8970];

/// `SIOCGIFCONF`: the interfaces that have an IPv4 address, as an array of `struct ifreq` of at most `room` bytes.
pub fn interfaces(fd: BorrowedFd<'_>, room: usize) -> nix::Result<Vec<u8>> {
    let mut found = vec![0u8; room];
    // SAFETY: all-zero bytes are a valid value of this plain structure.
    let mut all: libc::ifconf = unsafe { std::mem::zeroed() };
    all.ifc_len = room as i32;
    all.ifc_ifcu.ifcu_buf = found.as_mut_ptr().cast();
    // SAFETY: the kernel writes at most `ifc_len` bytes to the buffer, which is as long, and the new length.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::SIOCGIFCONF as _, &raw mut all) }.into())?;
    found.truncate(all.ifc_len as usize);
    Ok(found)
}

/// A pair of connected unix sockets (close-on-exec).
pub fn pair(kind: i32, protocol: i32) -> nix::Result<[OwnedFd; 2]> {
    let mut fds = [-1; 2];
    // SAFETY: the kernel writes two descriptors to the array during the call.
    let done = unsafe { libc::socketpair(libc::AF_UNIX, kind | libc::SOCK_CLOEXEC, protocol, fds.as_mut_ptr()) };
    check(done.into())?;
    // SAFETY: a successful call returns new descriptors that are ours alone.
    Ok(fds.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// Whether a socket is connected to another.
pub fn has_peer(fd: BorrowedFd<'_>) -> bool {
    nix::sys::socket::getpeername::<nix::sys::socket::SockaddrStorage>(fd.as_raw_fd()).is_ok()
}

/// The address a socket is bound to, as raw bytes.
pub fn bound_to(fd: BorrowedFd<'_>) -> nix::Result<Vec<u8>> {
    let mut bytes = vec![0u8; size_of::<libc::sockaddr_storage>()];
    let mut length = bytes.len() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, which is what the buffer holds, and the new length.
    check(unsafe { libc::getsockname(fd.as_raw_fd(), bytes.as_mut_ptr().cast(), &raw mut length) }.into())?;
    bytes.truncate(length as usize);
    Ok(bytes)
}

/// Brings the loopback interface of the calling process's network namespace up.
pub fn raise_loopback() -> nix::Result<()> {
    let any = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let mut request = request_for(b"lo");
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    interface_call(&any, libc::SIOCSIFFLAGS, &request)
}

/// Gives the loopback interface of the calling process's network namespace one more address, alone in its network.
/// 127.0.0.1 and ::1 stay as they are; there can be one more IPv4 address.
pub fn add_loopback_address(address: IpAddr) -> nix::Result<()> {
    match address {
        IpAddr::V4(address) => add_loopback_v4(address),
        IpAddr::V6(address) => add_loopback_v6(address),
    }
}

fn add_loopback_v4(address: Ipv4Addr) -> nix::Result<()> {
    let any = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let mut request = request_for(b"lo:1");
    request.ifr_ifru.ifru_addr = socket_address(address);
    interface_call(&any, SIOCSIFADDR, &request)?;
    request.ifr_ifru.ifru_netmask = socket_address(Ipv4Addr::BROADCAST);
    interface_call(&any, SIOCSIFNETMASK, &request)
}

fn add_loopback_v6(address: Ipv6Addr) -> nix::Result<()> {
    /// What the loopback interface is numbered in every network namespace: include/net/flow.h.
    const LOOPBACK: i32 = 1;
    let any = socket(AddressFamily::Inet6, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let address = libc::in6_addr { s6_addr: address.octets() };
    let request = libc::in6_ifreq { ifr6_addr: address, ifr6_prefixlen: 128, ifr6_ifindex: LOOPBACK };
    interface_call(&any, SIOCSIFADDR, &request)
}

const SIOCSIFADDR: libc::c_ulong = 0x8916;
const SIOCSIFNETMASK: libc::c_ulong = 0x891c;

fn request_for(interface: &[u8]) -> libc::ifreq {
    // SAFETY: all-zero bytes are a valid value of this plain structure.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The name is shorter than its place, so a NUL ends it.
    for (place, byte) in request.ifr_name[..libc::IFNAMSIZ - 1].iter_mut().zip(interface) {
        *place = *byte as libc::c_char;
    }
    request
}

fn socket_address(address: Ipv4Addr) -> libc::sockaddr {
    let mut data = [0; 14];
    for (place, byte) in data[2..].iter_mut().zip(address.octets()) {
        *place = byte as libc::c_char;
    }
    libc::sockaddr { sa_family: libc::AF_INET as libc::sa_family_t, sa_data: data }
}

/// `call` must be one that reads a `T` and writes nothing back.
fn interface_call<T>(socket: &OwnedFd, call: libc::c_ulong, request: &T) -> nix::Result<()> {
    let request: *const T = request;
    // SAFETY: the kernel reads the structure during the call, and all of these calls read one of this type.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), call as _, request) }.into()).map(drop)
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

/// Receives from a connection that says who sends (`SO_PASSCRED`), without waiting: bytes of one sender and his process,
/// as the caller's process namespace numbers it; nobody is named where descriptors came along, for which there is no room,
/// so that the kernel drops them. A length of 0 is the other side's end.
pub fn receive_with_sender(socket: BorrowedFd<'_>, into: &mut [u8]) -> nix::Result<(usize, Option<i32>)> {
    let mut space = nix::cmsg_space!(nix::sys::socket::UnixCredentials);
    let mut slices = [IoSliceMut::new(into)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let received = recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut space), flags)?;
    let sender = received.cmsgs().ok().and_then(|mut messages| {
        messages.find_map(|message| match message {
            ControlMessageOwned::ScmCredentials(sender) => Some(sender.pid()),
            _ => None,
        })
    });
    Ok((received.bytes, sender))
}
