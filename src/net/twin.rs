//! A socket's twin: a socket of the same kind and with the same options, in another network namespace.
//!
//! A socket cannot change its network namespace. So where the box's socket is to reach the outside, one that belongs to
//! the host's network takes its place, and has to be in all that can be told of it what the box made of its own.

use std::collections::HashMap;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use nix::errno::Errno;

use super::Inside;
use crate::sys::socket::{self, OptionValue};

/// Where a socket is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// In the host's network namespace.
    Host,
    /// In the box's.
    Box,
}

/// Family, type and protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Kind {
    /// `AF_INET` or `AF_INET6`.
    pub family: i32,
    /// `SOCK_STREAM` or `SOCK_DGRAM`.
    pub kind: i32,
    /// The protocol's number.
    pub protocol: i32,
}

impl Kind {
    /// The kind of a socket.
    pub fn of(socket: BorrowedFd<'_>) -> Result<Self, Errno> {
        let number = |name| socket::option(socket, libc::SOL_SOCKET, name).map(|value| value.int());
        Ok(Self {
            family: number(libc::SO_DOMAIN)?,
            kind: number(libc::SO_TYPE)?,
            protocol: number(libc::SO_PROTOCOL)?,
        })
    }
}

/// Makes twins; keeps what a fresh socket's options are on each side, for an option that nobody touched is left to be
/// what it is by default on the other side.
#[derive(Debug, Default)]
pub struct Twins {
    fresh: Mutex<HashMap<(Side, Kind), Arc<Options>>>,
}

type Options = Vec<Option<OptionValue>>;

impl Twins {
    /// A new socket on the other side than `original`, of the same kind, with the same options and the same local address.
    /// It is non-blocking until [`settle`] makes it what the original is.
    pub fn make(&self, original: BorrowedFd<'_>, on: Side, inside: &Inside) -> Result<OwnedFd, Errno> {
        let kind = Kind::of(original)?;
        let twin = fresh_socket(on, kind, inside)?;
        let from = if on == Side::Host { Side::Box } else { Side::Host };
        let untouched = self.untouched(from, kind, inside)?;
        for (option, untouched) in CARRIED.iter().zip(untouched.iter()) {
            // Most sockets are like new in most of what they do not have.
            if untouched.is_none() {
                continue;
            }
            let Ok(value) = socket::option(original, option.level, option.name) else { continue };
            if untouched.is_some_and(|untouched| untouched == value) {
                continue;
            }
            // What the other side refuses it refuses to anybody: the program would have been told, but it was not there.
            let _ = option.set(twin.as_fd(), &value);
        }
        bind_as(original, twin.as_fd(), kind, on)?;
        Ok(twin)
    }

    fn untouched(&self, side: Side, kind: Kind, inside: &Inside) -> Result<Arc<Options>, Errno> {
        let known = self.fresh.lock().unwrap_or_else(PoisonError::into_inner).get(&(side, kind)).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let fresh = fresh_socket(side, kind, inside)?;
        let read = |option: &Carried| socket::option(fresh.as_fd(), option.level, option.name).ok();
        let options = Arc::new(CARRIED.iter().map(read).collect::<Options>());
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner).insert((side, kind), Arc::clone(&options));
        Ok(options)
    }
}

fn fresh_socket(side: Side, kind: Kind, inside: &Inside) -> Result<OwnedFd, Errno> {
    let make = move || socket::new(kind.family, kind.kind | libc::SOCK_NONBLOCK, kind.protocol);
    match side {
        Side::Host => make(),
        Side::Box => inside.run(make),
    }
}

/// Binds `twin` as `original` is bound, if it is. A port that the kernel chose for the original may be taken here: then
/// it chooses another. So it does for every datagram socket: one with a port that is known would be open to all.
///
/// An address that the box could bind to is of its own loopback. The host's is another, and who comes from there is often
/// trusted; so the kernel chooses that, too.
fn bind_as(original: BorrowedFd<'_>, twin: BorrowedFd<'_>, kind: Kind, on: Side) -> Result<(), Errno> {
    const PORT: std::ops::Range<usize> = 2..4;
    let mut address = socket::bound_to(original)?;
    let (Some(port), Some((place, host))) = (address.get(PORT), host_part(&address)) else { return Ok(()) };
    let chosen = u16::from_be_bytes([port[0], port[1]]);
    let any = host.is_unspecified() || on == Side::Host && host.is_loopback();
    if kind.kind == libc::SOCK_DGRAM || chosen == 0 && any {
        return Ok(());
    }
    if any {
        address[place].fill(0);
    }
    match socket::bind(twin, &address) {
        Err(Errno::EADDRINUSE) if chosen >= CHOSEN_BY_THE_KERNEL => {
            address[PORT].fill(0);
            socket::bind(twin, &address)
        }
        bound => bound,
    }
}

/// Where the ports begin that Linux gives out by itself (`ip_local_port_range`, as it ships).
const CHOSEN_BY_THE_KERNEL: u16 = 32768;

/// Where the address without its port stands, and what it is.
fn host_part(address: &[u8]) -> Option<(std::ops::Range<usize>, IpAddr)> {
    let family = u16::from_ne_bytes(*address.first_chunk()?);
    let (place, host): (_, IpAddr) = match i32::from(family) {
        libc::AF_INET => (4..8, address.get(4..)?.first_chunk::<4>().copied()?.into()),
        libc::AF_INET6 => (8..24, address.get(8..)?.first_chunk::<16>().copied()?.into()),
        _ => return None,
    };
    Some((place, host.to_canonical()))
}

/// An option that a program may have set before it connects.
struct Carried {
    level: i32,
    name: i32,
    /// The kernel gives back twice what was set (`sock_setsockopt`, net/core/sock.c).
    doubled: bool,
}

impl Carried {
    fn set(&self, twin: BorrowedFd<'_>, value: &OptionValue) -> Result<(), Errno> {
        if self.doubled {
            return socket::set_option(twin, self.level, self.name, &(value.int() / 2).to_ne_bytes());
        }
        socket::set_option(twin, self.level, self.name, value.bytes())
    }
}

const fn carried(level: i32, name: i32) -> Carried {
    Carried { level, name, doubled: false }
}

const fn doubled(name: i32) -> Carried {
    Carried { level: libc::SOL_SOCKET, name, doubled: true }
}

const SOCKET: i32 = libc::SOL_SOCKET;
const TCP: i32 = libc::IPPROTO_TCP;
const IP: i32 = libc::IPPROTO_IP;
const IPV6: i32 = libc::IPPROTO_IPV6;

/// The options that are carried over: all that an unprivileged program can set on a socket before it connects, but for
/// filters, upper-layer protocols, group memberships and devices.
const CARRIED: &[Carried] = &[
    carried(SOCKET, libc::SO_REUSEADDR),
    carried(SOCKET, libc::SO_REUSEPORT),
    carried(SOCKET, libc::SO_KEEPALIVE),
    carried(SOCKET, libc::SO_LINGER),
    carried(SOCKET, libc::SO_BROADCAST),
    carried(SOCKET, libc::SO_DONTROUTE),
    carried(SOCKET, libc::SO_OOBINLINE),
    carried(SOCKET, libc::SO_PRIORITY),
    carried(SOCKET, libc::SO_RCVLOWAT),
    carried(SOCKET, libc::SO_RCVTIMEO),
    carried(SOCKET, libc::SO_SNDTIMEO),
    carried(SOCKET, libc::SO_TIMESTAMP),
    carried(SOCKET, libc::SO_TIMESTAMPNS),
    carried(SOCKET, libc::SO_RXQ_OVFL),
    carried(SOCKET, libc::SO_ZEROCOPY),
    carried(SOCKET, libc::SO_MAX_PACING_RATE),
    doubled(libc::SO_SNDBUF),
    doubled(libc::SO_RCVBUF),
    carried(TCP, libc::TCP_NODELAY),
    carried(TCP, libc::TCP_CORK),
    carried(TCP, libc::TCP_MAXSEG),
    carried(TCP, libc::TCP_KEEPIDLE),
    carried(TCP, libc::TCP_KEEPINTVL),
    carried(TCP, libc::TCP_KEEPCNT),
    carried(TCP, libc::TCP_SYNCNT),
    carried(TCP, libc::TCP_LINGER2),
    carried(TCP, libc::TCP_WINDOW_CLAMP),
    carried(TCP, libc::TCP_QUICKACK),
    carried(TCP, libc::TCP_CONGESTION),
    carried(TCP, libc::TCP_THIN_LINEAR_TIMEOUTS),
    carried(TCP, libc::TCP_USER_TIMEOUT),
    carried(TCP, libc::TCP_NOTSENT_LOWAT),
    carried(TCP, libc::TCP_FASTOPEN_CONNECT),
    carried(TCP, libc::TCP_INQ),
    carried(IP, libc::IP_TOS),
    carried(IP, libc::IP_TTL),
    carried(IP, libc::IP_MTU_DISCOVER),
    carried(IP, libc::IP_RECVERR),
    carried(IP, libc::IP_RECVTTL),
    carried(IP, libc::IP_RECVTOS),
    carried(IP, libc::IP_PKTINFO),
    carried(IP, libc::IP_BIND_ADDRESS_NO_PORT),
    carried(IPV6, libc::IPV6_V6ONLY),
    carried(IPV6, libc::IPV6_UNICAST_HOPS),
    carried(IPV6, libc::IPV6_TCLASS),
    carried(IPV6, libc::IPV6_MTU_DISCOVER),
    carried(IPV6, libc::IPV6_RECVERR),
    carried(IPV6, libc::IPV6_RECVPKTINFO),
    carried(IPV6, libc::IPV6_RECVHOPLIMIT),
    carried(IPV6, libc::IPV6_RECVTCLASS),
];
