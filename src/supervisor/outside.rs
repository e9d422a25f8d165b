//! Connections that leave the box's network: made by a worker in the host's.
//!
//! A socket of the box has no way out. So the worker makes its twin in the host's network namespace, connects that to the
//! address that was judged, and puts it in the socket's place. From then on the kernel carries the data at its own speed.
//! What has taken its place once is connected anew, and disconnected, like any socket of the host's: by the worker, on
//! the caller's own, after a new decision. It can neither listen nor be bound: both stop, too.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{Shutdown, getsockopt, shutdown, sockopt};
use nix::sys::time::TimeValLike;

use super::address::{Inet, Parsed, is_loopback, parse};
use super::exchange::{Place, exchange};
use super::notification::{Parked, Reply, Stopped};
use super::workers::Shared;
use super::{Context, Handled, Stop, net};
use crate::event::{Access, Endpoint, HOST_NAME, Transport};
use crate::gate::{Judged, Outcome};
use crate::net::Net;
use crate::net::dial::{self, Waited};
use crate::net::names::HOST_ADDRESS;
use crate::net::twin::{Kind, Side};
use crate::sys::socket;
use crate::syscalls::Arg;

/// `connect` to an IP address.
pub fn connect(context: &Context<'_>, socket: OwnedFd, inet: Inet) -> Handled {
    let to = destination(context, &socket, inet);
    let Endpoint::Inet { address, outside, transport, .. } = to else { return Err(Stop::Errno(Errno::EINVAL)) };
    let judged = context.judge(Access::Connect { to: to.clone() }, None);
    let bytes = inet.bytes(address);
    if !judged.allowed() {
        return match (transport, context.shared.net()) {
            (Transport::Udp, Some(net)) => route(context, net, judged, socket, to, &bytes),
            _ => context.conclude_refused(judged, None),
        };
    }
    let (here, there) = (side(context, &socket), if outside { Side::Host } else { Side::Box });
    let state = state(&socket, transport);
    match context.shared.net() {
        Some(net) if here != there && state == CLOSE => elsewhere(context, net, judged, socket, there, &bytes),
        // One that sends datagrams is connected once, before the box has it: what it still holds back for one destination
        // (`MSG_MORE`) goes astray when it is connected to another (`inet->cork.fl` in `__ip4_datagram_connect`).
        Some(net) if outside && transport != Transport::Tcp => elsewhere(context, net, judged, socket, there, &bytes),
        // It must not be tried on this one: what stands in the way can be undone by another thread at any moment, and then
        // the address would be the host's own.
        Some(_) if (here, there) == (Side::Host, Side::Box) => {
            let errno = if state == SYN_SENT { Errno::EALREADY } else { Errno::EISCONN };
            context.conclude(judged, Reply::Errno(errno))
        }
        net => {
            if let (Some(net), Side::Host, true) = (net, here, state == CLOSE) {
                net.flows.watch(socket.as_fd(), &judged.event);
            }
            let connect = |socket: &OwnedFd| {
                let done = socket::connect(socket.as_fd(), &bytes);
                if let (Some(net), false, Ok(()) | Err(Errno::EINPROGRESS)) = (net, outside, done) {
                    asks(context, net, socket, transport, address);
                }
                if !outside && transport == Transport::Tcp && is_refused(socket, done) {
                    context.shared.sought.in_vain(context, address.port());
                }
                done
            };
            match transport {
                Transport::Tcp => net::act(context, judged, &socket, connect),
                // What sends datagrams never waits for its connect.
                Transport::Udp | Transport::Icmp => context.conclude(judged, super::fs::reply(connect(&socket))),
            }
        }
    }
}

/// Remembers who asks for names through `socket`, if that is what it is for: so the questions have an asker.
pub fn asks(context: &Context<'_>, net: &Net, socket: &OwnedFd, transport: Transport, to: SocketAddr) {
    if to.port() != 53 {
        return;
    }
    let from = socket::bound_to(socket.as_fd()).ok().and_then(|bytes| parse(&bytes));
    if let Some(Parsed::Inet(from)) = from {
        net.askers.tell(transport, from.address, Arc::clone(&context.task.subject));
    }
}

/// A datagram socket that may not send to an address may still ask which way datagrams would take: to sort addresses, the C
/// library connects one to each and looks at its own end. It gets one that cannot send.
fn route(
    context: &Context<'_>,
    net: &Arc<Net>,
    refused: Judged,
    socket: OwnedFd,
    to: Endpoint,
    bytes: &[u8],
) -> Handled {
    let judged = context.judge(Access::Route { to }, None);
    if !judged.allowed() {
        return context.conclude_refused(refused, None);
    }
    let made = net.twins.make(socket.as_fd(), Side::Host, &net.inside).and_then(|twin| {
        // Once shut, it stays shut, whatever it is connected to (`sock_alloc_send_pskb`, net/core/sock.c).
        socket::connect(twin.as_fd(), bytes)?;
        shutdown(twin.as_raw_fd(), Shutdown::Write)?;
        take_place(context.shared, context.call.stopped, place(context, socket), twin)
    });
    context.conclude(judged, super::fs::reply(made))
}

/// Whether a socket would take datagrams from anybody on the host's network, were it connected to nobody: the next send,
/// even one that fails, gives it a port (`inet_send_prepare`, net/ipv4/af_inet.c).
pub fn would_hear_anybody(context: &Context<'_>, socket: &OwnedFd) -> bool {
    transport(socket) != Transport::Tcp && side(context, socket) == Side::Host
}

/// Dissolves the connection of a datagram socket of the host's network: one of the box's takes its place.
pub fn bring_in(context: &Context<'_>, net: &Net, judged: Judged, socket: OwnedFd) -> Handled {
    let made = net.twins.make(socket.as_fd(), Side::Box, &net.inside);
    let done = made.and_then(|twin| take_place(context.shared, context.call.stopped, place(context, socket), twin));
    context.conclude(judged, super::fs::reply(done))
}

/// Connects a twin of `socket` on the other side and puts it in its place.
fn elsewhere(context: &Context<'_>, net: &Arc<Net>, judged: Judged, socket: OwnedFd, on: Side, to: &[u8]) -> Handled {
    let twin = match net.twins.make(socket.as_fd(), on, &net.inside) {
        Ok(twin) => twin,
        Err(errno) => return context.conclude(judged, Reply::Errno(errno)),
    };
    let place = place(context, socket);
    match socket::connect(twin.as_fd(), to) {
        Ok(()) => finish(context.shared, context.call.stopped, judged, place, Waited::Connected(twin)),
        Err(Errno::EINPROGRESS) if !waits(&place.socket) => {
            finish(context.shared, context.call.stopped, judged, place, Waited::TimedOut(twin));
        }
        Err(Errno::EINPROGRESS) => match dial::settled(twin, to) {
            Ok(waited) => finish(context.shared, context.call.stopped, judged, place, waited),
            Err(twin) => wait(context, net, judged, place, twin, to.to_vec()),
        },
        Err(errno) => return context.conclude(judged, Reply::Errno(errno)),
    }
    Ok(())
}

/// The socket that the call is about, and where the caller has it.
pub fn place(context: &Context<'_>, socket: OwnedFd) -> Place {
    Place { process: context.task.subject.host, number: context.call.int(Arg::Fd), socket }
}

/// Leaves the wait for a connection to the network's thread.
fn wait(context: &Context<'_>, net: &Net, judged: Judged, place: Place, twin: OwnedFd, to: Vec<u8>) {
    let (shared, stopped) = (Arc::clone(context.shared), context.call.stopped);
    let interrupt = shared.waits.on_the_network(stopped.id(), stopped.target);
    let (parked, limit) = (stopped.park(), limit(&place.socket));
    net.spawn(async move {
        let waited = dial::connected(twin, to, limit, interrupt).await;
        conclude(&shared, &parked, judged, place, waited);
    });
}

fn conclude(shared: &Arc<Shared>, parked: &Parked, judged: Judged, place: Place, waited: Waited) {
    if let Some(stopped) = shared.resume(parked) {
        finish(shared, &stopped, judged, place, waited);
        shared.waits.over(stopped.id());
    }
}

/// Answers with what became of a connection, and puts the twin in its place if it is one, or may yet become one.
fn finish(shared: &Shared, stopped: &Stopped<'_>, judged: Judged, place: Place, waited: Waited) {
    if !stopped.alive() {
        return shared.gate.settle(judged, Outcome::Gone);
    }
    let (twin, reply) = match waited {
        Waited::Connected(twin) => (twin, Reply::Value(0)),
        Waited::TimedOut(twin) => (twin, Reply::Errno(Errno::EINPROGRESS)),
        // A wait with a limit is not begun anew (`sock_intr_errno`, include/net/sock.h).
        Waited::Interrupted(twin) if limit(&place.socket).is_some() => (twin, Reply::Errno(Errno::EINTR)),
        Waited::Interrupted(twin) => (twin, Reply::Interrupted),
        Waited::Failed(errno) => return settle(shared, stopped, judged, Reply::Errno(errno)),
    };
    if let Some(net) = shared.net() {
        net.flows.watch(twin.as_fd(), &judged.event);
    }
    let reply = match take_place(shared, stopped, place, twin) {
        Ok(()) => reply,
        Err(errno) => Reply::Errno(errno),
    };
    settle(shared, stopped, judged, reply);
}

fn settle(shared: &Shared, stopped: &Stopped<'_>, judged: Judged, reply: Reply) {
    let answered = stopped.answer(reply);
    let outcome = answered.map_or_else(|errno| Outcome::Errno(errno as i32), |()| Outcome::Ok);
    shared.gate.settle(judged, outcome);
}

/// Gives `twin` the file flags of a socket, and its place.
pub fn take_place(shared: &Shared, stopped: &Stopped<'_>, place: Place, twin: OwnedFd) -> Result<(), Errno> {
    let flags = OFlag::from_bits_retain(fcntl(&place.socket, FcntlArg::F_GETFL)?);
    fcntl(&twin, FcntlArg::F_SETFL(flags))?;
    exchange(shared, stopped, place, &twin)
}

/// What `inet` means on a socket of the caller's: its own loopback, the host's, or beyond.
pub fn endpoint(context: &Context<'_>, socket: &OwnedFd, inet: Inet) -> Endpoint {
    let own = || side(context, socket) == Side::Box;
    meaning(context, inet, transport(socket), own)
}

/// What it means to connect there. A loopback address is the box's own, also for a socket of the host's network that
/// carries connections: it is exchanged for one of the box's before it is connected.
fn destination(context: &Context<'_>, socket: &OwnedFd, inet: Inet) -> Endpoint {
    let transport = transport(socket);
    let exchanged = transport == Transport::Tcp && context.shared.net().is_some();
    let own = || exchanged || side(context, socket) == Side::Box;
    meaning(context, inet, transport, own)
}

fn meaning(context: &Context<'_>, inet: Inet, transport: Transport, own_loopback: impl FnOnce() -> bool) -> Endpoint {
    let Inet { address, .. } = inet;
    let ip = address.ip();
    if context.shared.target.own_network && is_loopback(ip) && own_loopback() {
        return Endpoint::Inet { address, outside: false, transport, names: Vec::new() };
    }
    let Some(net) = context.shared.net() else {
        // Without a network of its own the box's loopback is the host's.
        let names = if is_loopback(ip) { vec![HOST_NAME.into()] } else { Vec::new() };
        return Endpoint::Inet { address, outside: true, transport, names };
    };
    if ip == IpAddr::V4(HOST_ADDRESS) {
        let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), address.port());
        return Endpoint::Inet { address, outside: true, transport, names: vec![HOST_NAME.into()] };
    }
    Endpoint::Inet { address, outside: true, transport, names: net.names.of(ip) }
}

/// Where a socket of the caller's is. One that it was handed in as a standard stream can be the host's, too.
pub fn side(context: &Context<'_>, socket: &OwnedFd) -> Side {
    if !context.shared.target.own_network {
        return Side::Host;
    }
    match (context.shared.host_network(), socket::network_of(socket.as_fd())) {
        (Some(host), Ok(network)) if network != host => Side::Box,
        (None, _) => Side::Box,
        // Where that cannot be told, it counts as the host's, with which less can be done.
        _ => Side::Host,
    }
}

/// What a socket carries.
pub fn transport(socket: &OwnedFd) -> Transport {
    match Kind::of(socket.as_fd()) {
        Ok(Kind { protocol: libc::IPPROTO_ICMP | libc::IPPROTO_ICMPV6, .. }) => Transport::Icmp,
        Ok(Kind { kind: libc::SOCK_DGRAM, .. }) => Transport::Udp,
        _ => Transport::Tcp,
    }
}

/// Nothing is connected, nor about to be (include/net/tcp_states.h).
const CLOSE: u8 = 7;
/// A connection is being made.
const SYN_SENT: u8 = 2;

/// What stands in the way of connecting a socket: the state of its connection. Datagrams have none.
fn state(socket: &OwnedFd, transport: Transport) -> u8 {
    if transport != Transport::Tcp {
        return CLOSE;
    }
    let info = socket::option(socket.as_fd(), libc::IPPROTO_TCP, libc::TCP_INFO);
    info.ok().and_then(|info| info.bytes().first().copied()).unwrap_or(0)
}

/// Whether nobody was there: loopback answers before the connect returns, also to one that does not wait.
fn is_refused(socket: &OwnedFd, done: Result<(), Errno>) -> bool {
    match done {
        Err(Errno::ECONNREFUSED) => true,
        Err(Errno::EINPROGRESS) => state(socket, Transport::Tcp) == CLOSE,
        _ => false,
    }
}

/// Whether a call on the socket waits for what it wants.
pub fn waits(socket: &OwnedFd) -> bool {
    fcntl(socket, FcntlArg::F_GETFL).is_ok_and(|flags| flags & OFlag::O_NONBLOCK.bits() == 0)
}

/// How long a connect on the socket waits, if not for ever: `SO_SNDTIMEO`.
fn limit(socket: &OwnedFd) -> Option<Duration> {
    let limit = getsockopt(socket, sockopt::SendTimeout).ok()?;
    let micros = u64::try_from(limit.num_microseconds()).ok()?;
    (micros > 0).then(|| Duration::from_micros(micros))
}
