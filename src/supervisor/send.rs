//! Datagrams to an address that the call names: each is decided, and sent by the worker.
//!
//! The worker sends a copy of the data, on a copy of the caller's descriptor, to the address that was judged. Nothing goes on
//! by itself: the descriptor's number could mean another socket by then.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;

use super::address::{Inet, Parsed, parse, parse_v4};
use super::notification::Reply;
use super::{Context, Handled, Stop, net, outside};
use crate::event::{Access, Endpoint, Transport};
use crate::net::twin::{Kind, Side};
use crate::sys::socket;
use crate::syscalls::Arg;

/// More than the largest datagram; a stream takes what it is given in parts anyway.
const MOST: u64 = 128 * 1024;

/// `sendto` with an address.
pub fn send_to(context: &Context<'_>) -> Handled {
    let address = net::address(context)?;
    let length = context.call.word(Arg::Length).min(MOST);
    let data = context.memory(context.call.stopped.target.bytes(context.call.word(Arg::Data), length as usize))?;
    let socket = net::socket_of(context)?;
    context.still_there()?;
    let kind = Kind::of(socket.as_fd()).map_err(Stop::Errno)?;
    let flags = context.call.int(Arg::SendFlags);
    match destination(kind, &address) {
        Some(inet) => datagram(context, socket, inet, &data, flags),
        // A socket of the box's own reaches nobody else, whatever it is told.
        None if is_harmless(kind) || outside::side(context, &socket) == Side::Box => {
            let sent = socket::send_to(socket.as_fd(), &data, flags, &address);
            let _ = context.call.stopped.answer(reply(sent));
            Ok(())
        }
        None => Err(Stop::Errno(Errno::EAFNOSUPPORT)),
    }
}

/// Where a datagram socket would send to, as the kernel reads the address; `None` for other sockets.
///
/// UDP over IPv4 takes an address of no family for an IPv4 address (`udp_sendmsg`, net/ipv4/udp.c).
fn destination(kind: Kind, address: &[u8]) -> Option<Inet> {
    if kind.kind != libc::SOCK_DGRAM {
        return None;
    }
    match (kind.family, parse(address)?) {
        (libc::AF_INET | libc::AF_INET6, Parsed::Inet(inet)) => Some(inet),
        (libc::AF_INET, Parsed::Unspecified) => parse_v4(address),
        _ => None,
    }
}

/// Whether an address on such a socket leads nowhere that is decided: a stream ignores or refuses it, and the kernel's own
/// netlink is left to the rights of the caller, which has none.
fn is_harmless(kind: Kind) -> bool {
    kind.kind == libc::SOCK_STREAM || kind.family == libc::AF_NETLINK
}

fn datagram(context: &Context<'_>, socket: OwnedFd, inet: Inet, data: &[u8], flags: i32) -> Handled {
    let to = outside::endpoint(context, &socket, inet);
    let Endpoint::Inet { address, outside, transport, .. } = to else { return Ok(()) };
    let bytes = inet.bytes(address);
    if !outside {
        // The box's own loopback is its own business.
        let sent = socket::send_to(socket.as_fd(), data, flags, &bytes);
        if let (Ok(_), Transport::Udp, Some(net)) = (&sent, transport, context.shared.net()) {
            outside::asks(context, net, &socket, address);
        }
        let _ = context.call.stopped.answer(reply(sent));
        return Ok(());
    }
    let judged = context.judge(Access::Send { to }, None);
    if !judged.allowed() {
        return context.conclude_refused(judged, None);
    }
    let sent = match context.shared.net() {
        Some(net) if outside::side(context, &socket) == Side::Box => {
            let twin = net.twins.make(socket.as_fd(), Side::Host, &net.inside);
            twin.and_then(|twin| {
                let sent = socket::send_to(twin.as_fd(), data, flags, &bytes)?;
                outside::take_place(context.shared, context.call.stopped, outside::place(context, socket), twin)?;
                Ok(sent)
            })
        }
        _ => socket::send_to(socket.as_fd(), data, flags, &bytes),
    };
    context.conclude(judged, reply(sent))
}

fn reply(sent: Result<usize, Errno>) -> Reply {
    match sent {
        Ok(sent) => Reply::Value(sent as i64),
        Err(errno) => Reply::Errno(errno),
    }
}
