//! Connections as the kernel counts them: socket cookies and the sock_diag reports on TCP sockets.
//!
//! Both need no right. They speak of the network namespace that the calling thread is in when it opens the socket.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvfrom, sendto, setsockopt, socket,
    sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::check;

/// The kernel's number for the socket `fd`, which no other socket gets while the kernel runs: `SO_COOKIE`.
pub fn cookie(fd: BorrowedFd<'_>) -> nix::Result<u64> {
    let mut cookie = 0u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `cookie` and the new length to `length`; both are ours.
    let done = unsafe {
        let into = (&raw mut cookie).cast();
        libc::getsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_COOKIE, into, &raw mut length)
    };
    check(done.into())?;
    Ok(cookie)
}

/// Bytes of data that the TCP socket `fd` has sent and received on its present connection, as in a [`Report`].
pub fn bytes_of_socket(fd: BorrowedFd<'_>) -> nix::Result<(u64, u64)> {
    let mut info = [0u8; 256];
    let mut length = info.len() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `info` and the new length to `length`; both are ours.
    let done = unsafe {
        let into = info.as_mut_ptr().cast();
        libc::getsockopt(fd.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, into, &raw mut length)
    };
    check(done.into())?;
    bytes_of(&info[..length as usize]).ok_or(Errno::ENOTSUP)
}

/// What the kernel says of a TCP socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// Its cookie.
    pub cookie: u64,
    /// Bytes of data sent and received, the other side's end counted as one received. `None` if the kernel has forgotten
    /// them, as it does when a connection is dissolved or torn down (`AF_UNSPEC`, a linger time of zero).
    pub bytes: Option<(u64, u64)>,
}

/// Groups of the messages about destroyed sockets: `SKNLGRP_INET_TCP_DESTROY` (1) and `SKNLGRP_INET6_TCP_DESTROY` (3).
const DESTROYED: u32 = 1 | 1 << 2;
/// How much the kernel may keep for us; it takes less if `net.core.rmem_max` is less.
const QUEUE: usize = 4 << 20;
/// `INET_DIAG_INFO`, the attribute that holds a `tcp_info`.
const INFO: u16 = 2;
/// `SOCK_DIAG_BY_FAMILY`, the one type of request and report.
const BY_FAMILY: u16 = 20;
/// `TCP_TIME_WAIT`: what the kernel keeps of a connection after its socket, under the same cookie and without its counters.
const REMAINS: u32 = 1 << 6;
/// The bytes of `struct nlmsghdr`.
const HEADER: usize = 16;
/// The bytes of `struct inet_diag_msg`.
const MESSAGE: usize = 72;

/// Opens a non-blocking socket at which a message arrives for each TCP socket that the kernel gives up from now on.
pub fn open_destroyed() -> nix::Result<OwnedFd> {
    let fd = open(SockFlag::SOCK_NONBLOCK)?;
    setsockopt(&fd, sockopt::RcvBuf, &QUEUE)?;
    bind(fd.as_raw_fd(), &NetlinkAddr::new(0, DESTROYED))?;
    Ok(fd)
}

fn open(flags: SockFlag) -> nix::Result<OwnedFd> {
    let flags = flags | SockFlag::SOCK_CLOEXEC;
    socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkSockDiag)
}

/// Has the event queue of the calling thread's runtime say when `fd` can be read. To be called within a runtime.
pub fn register(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` always stands for the same descriptor, and keeps it open until it is dropped with the `AsyncFd`.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
}

/// Receives what waits at a socket of [`open_destroyed`]. `ENOBUFS` says that messages were lost, `EAGAIN` that none wait.
pub fn receive(fd: BorrowedFd<'_>) -> nix::Result<Vec<Report>> {
    let mut buffer = [0; 8192];
    let (length, from) = recvfrom::<NetlinkAddr>(fd.as_raw_fd(), &mut buffer)?;
    // Only the kernel sends as 0.
    let trusted = from.is_some_and(|from| from.pid() == 0);
    Ok(if trusted { messages(&buffer[..length]).filter_map(|(_, body)| report(body)).collect() } else { Vec::new() })
}

/// Reports on the TCP sockets of `family` that are not closed, towards `port`.
pub fn connected(family: AddressFamily, port: u16) -> nix::Result<Vec<Report>> {
    dump(family, port, !REMAINS)
}

/// Asks whether the kernel reports on TCP sockets at all; `ENOENT` if not.
pub fn available() -> nix::Result<()> {
    dump(AddressFamily::Inet, 0, 0).map(drop)
}

fn dump(family: AddressFamily, port: u16, states: u32) -> nix::Result<Vec<Report>> {
    let fd = open(SockFlag::empty())?;
    // The kernel answers as it is read from; the limit is for what should not happen.
    setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::milliseconds(500))?;
    sendto(fd.as_raw_fd(), &request(family, port, states), &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut found = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let (length, from) = recvfrom::<NetlinkAddr>(fd.as_fd().as_raw_fd(), &mut buffer)?;
        if from.is_none_or(|from| from.pid() != 0) {
            continue;
        }
        for (kind, body) in messages(&buffer[..length]) {
            match i32::from(kind) {
                libc::NLMSG_DONE | libc::NLMSG_ERROR => {
                    let status = body.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
                    return if status < 0 { Err(Errno::from_raw(-status)) } else { Ok(found) };
                }
                _ => found.extend(report(body)),
            }
        }
    }
}

/// A `struct nlmsghdr` and a `struct inet_diag_req_v2`, which ask for all sockets that fit.
fn request(family: AddressFamily, port: u16, states: u32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + 56);
    bytes.extend((HEADER as u32 + 56).to_ne_bytes());
    bytes.extend(BY_FAMILY.to_ne_bytes());
    bytes.extend(((libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16).to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend([family as i32 as u8, libc::IPPROTO_TCP as u8, 1 << (INFO - 1), 0]);
    bytes.extend(states.to_ne_bytes());
    bytes.extend([0; 2]);
    bytes.extend(port.to_be_bytes());
    bytes.extend([0; 44]);
    bytes
}

/// Takes netlink messages apart: type and body.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
        let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
        let body = bytes.get(HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, body))
    })
}

/// Reads a `struct inet_diag_msg` and the `tcp_info` behind it.
fn report(body: &[u8]) -> Option<Report> {
    let cookie = u64::from(word(body, 44)?) | u64::from(word(body, 48)?) << 32;
    // The other side's port is forgotten with the counters.
    let forgotten = body.get(6..8)? == [0, 0];
    let info = attribute(body.get(MESSAGE..)?, INFO);
    Some(Report { cookie, bytes: info.filter(|_| !forgotten).and_then(bytes_of) })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

fn attribute(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
        let kind = u16::from_ne_bytes(*bytes.get(2..)?.first_chunk()?);
        let value = bytes.get(4..length)?;
        if kind == wanted {
            return Some(value);
        }
        bytes = bytes.get(length.next_multiple_of(4)..)?;
    }
}

/// Bytes of data sent, without what was sent again, and received, from a `struct tcp_info` (`tcpi_bytes_sent` and
/// `tcpi_bytes_retrans` since Linux 4.19; `tcpi_bytes_received`).
fn bytes_of(info: &[u8]) -> Option<(u64, u64)> {
    let number = |at: usize| Some(u64::from_ne_bytes(*info.get(at..)?.first_chunk()?));
    Some((number(200)?.saturating_sub(number(208)?), number(128)?))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    use super::*;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0)
    }

    /// The report of the end of the socket with this cookie, among those of all others on the host.
    fn end_of(fd: &OwnedFd, cookie: u64) -> Option<Report> {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(5) {
            match receive(fd.as_fd()) {
                Ok(reports) => {
                    if let Some(found) = reports.into_iter().find(|report| report.cookie == cookie) {
                        return Some(found);
                    }
                }
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        None
    }

    #[test]
    fn the_kernel_tells_a_sockets_bytes_while_it_is_open_and_when_it_ends() {
        if available().is_err() {
            println!("skipped: the kernel has no inet_diag");
            return;
        }
        let destroyed = open_destroyed().unwrap();
        let (mut client, mut server) = pair();
        client.write_all(&[1; 1000]).unwrap();
        server.read_exact(&mut [0; 1000]).unwrap();
        server.write_all(&[2; 5000]).unwrap();
        client.read_exact(&mut [0; 5000]).unwrap();
        let number = cookie(client.as_fd()).unwrap();
        let port = client.peer_addr().unwrap().port();
        assert_eq!(bytes_of_socket(client.as_fd()), Ok((1000, 5000)));
        let open = connected(AddressFamily::Inet, port).unwrap();
        assert!(open.contains(&Report { cookie: number, bytes: Some((1000, 5000)) }), "{open:?}");
        drop(client);
        drop(server);
        let (sent, received) = end_of(&destroyed, number).unwrap().bytes.unwrap();
        assert_eq!(sent, 1000);
        assert!(received == 5000 || received == 5001, "the other side's end counts as one: {received}");
        assert!(!connected(AddressFamily::Inet, port).unwrap().iter().any(|report| report.cookie == number));
    }

    #[test]
    fn counters_that_were_forgotten_are_none() {
        if available().is_err() {
            println!("skipped: the kernel has no inet_diag");
            return;
        }
        let destroyed = open_destroyed().unwrap();
        let (mut client, _server) = pair();
        client.write_all(&[1; 1000]).unwrap();
        let number = cookie(client.as_fd()).unwrap();
        setsockopt(&client, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 }).unwrap();
        drop(client);
        assert_eq!(end_of(&destroyed, number), Some(Report { cookie: number, bytes: None }));
    }

    #[test]
    fn cut_messages_are_none() {
        assert_eq!(messages(&[1, 2, 3]).count(), 0);
        assert_eq!(messages(&[0; 64]).count(), 0, "a length of zero");
        assert_eq!(messages(&request(AddressFamily::Inet, 80, 0)[..40]).count(), 0);
        assert_eq!(messages(&request(AddressFamily::Inet, 80, 0)).count(), 1);
        assert_eq!(report(&[0; 71]), None);
        assert_eq!(report(&[1; MESSAGE]).unwrap().bytes, None);
        assert_eq!(attribute(&[0; 8], INFO), None, "an attribute without a length");
    }
}
