//! Datagrams to an address that the call names: each is decided, and sent by the worker.
//!
//! The worker sends a copy of the data, on a copy of the caller's descriptor, to the address that was judged. Nothing goes on
//! by itself: the descriptor's number could mean another socket by then. `sendmsg` stops only where some datagram may
//! leave the box, as the filter cannot see whether it names an address; there all its other uses come here, too.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::signal::Signal;

use super::address::{Inet, Parsed, parse, parse_v4};
use super::message::{Control, Message};
use super::notification::Reply;
use super::{Context, Handled, Stop, net, outside};
use crate::event::{Access, Endpoint, Transport};
use crate::gate::Judged;
use crate::net::twin::{Kind, Side};
use crate::sys::{self, socket};
use crate::syscalls::Arg;

/// The most that one call takes of a stream, and more than the largest datagram.
pub const MOST: usize = 1 << 20;
/// `UIO_MAXIOV`: the most messages, and pieces of one, that the kernel takes.
const MOST_MESSAGES: u64 = 1024;

/// `sendto` with an address.
pub fn send_to(context: &Context<'_>) -> Handled {
    let address = net::address(context)?;
    let length = context.call.word(Arg::Length).min(MOST as u64) as usize;
    let data = context.memory(context.call.stopped.target.bytes(context.call.word(Arg::Data), length))?;
    let message = Message { address: Some(address), data, control: Vec::new() };
    answer(context, send(context, message)?)
}

/// `sendmsg`.
pub fn message(context: &Context<'_>) -> Handled {
    let message = context.memory(Message::read(context.call.stopped.target, context.call.word(Arg::Message)))?;
    answer(context, send(context, message)?)
}

/// `sendmmsg`: one after the other until one fails.
pub fn messages(context: &Context<'_>) -> Handled {
    /// `struct mmsghdr`: the header, what was sent of it, padding.
    const SIZE: u64 = 64;
    const SENT: u64 = 56;
    let (target, start) = (context.call.stopped.target, context.call.word(Arg::Message));
    let count = (context.call.int(Arg::Count) as u32 as u64).min(MOST_MESSAGES);
    let mut done = 0;
    while done < count {
        let at = start.wrapping_add(done * SIZE);
        let sent = match context.memory(Message::read(target, at)).and_then(|message| send(context, message)) {
            Ok(Sent { judged, done: sent }) => {
                if let Some(judged) = judged {
                    context.settle(judged, sent.map(drop));
                }
                sent
            }
            Err(Stop::Errno(errno)) => Err(errno),
            Err(stop) if done == 0 => return Err(stop),
            Err(_) => break,
        };
        context.still_there()?;
        let told = sent.and_then(|sent| target.write(at.wrapping_add(SENT), &(sent as u32).to_ne_bytes()));
        match told {
            Ok(()) => done += 1,
            Err(errno) if done == 0 => return Err(Stop::Errno(errno)),
            Err(_) => break,
        }
    }
    let _ = context.call.stopped.answer(Reply::Value(done as i64));
    Ok(())
}

/// What came of a message, and the decision, if there was one to make.
struct Sent {
    judged: Option<Judged>,
    done: Result<usize, Errno>,
}

fn answer(context: &Context<'_>, sent: Sent) -> Handled {
    let reply = match sent.done {
        Ok(sent) => Reply::Value(sent as i64),
        Err(errno) => Reply::Errno(errno),
    };
    match sent.judged {
        Some(judged) => context.conclude(judged, reply),
        None => {
            let _ = context.call.stopped.answer(reply);
            Ok(())
        }
    }
}

/// Sends a message that was read from the caller.
fn send(context: &Context<'_>, message: Message) -> Result<Sent, Stop> {
    let socket = net::socket_of(context)?;
    context.still_there()?;
    let flags = context.call.int(Arg::SendFlags);
    if flags & libc::MSG_ZEROCOPY != 0 {
        // The pages would be the worker's; a program that hears this sends a copy (`Documentation/networking/msg_zerocopy.rst`).
        return Err(Stop::Errno(Errno::ENOBUFS));
    }
    let kind = Kind::of(socket.as_fd()).map_err(Stop::Errno)?;
    let control = Control::take(context.call.stopped.target, kind, &message.control).map_err(Stop::Errno)?;
    let Some(address) = &message.address else {
        return Ok(Sent { judged: None, done: plain(context, &socket, &message, &control, flags) });
    };
    if address.is_empty() && kind.kind == libc::SOCK_DGRAM && kind.family != libc::AF_NETLINK {
        // No datagram is longer, and that is looked at first.
        let errno = if message.data.len() > usize::from(u16::MAX) { Errno::EMSGSIZE } else { Errno::EINVAL };
        return Err(Stop::Errno(errno));
    }
    match destination(kind, address) {
        Some(inet) => datagram(context, socket, inet, &message.data, &control, flags),
        // A socket of the box's own reaches nobody else, whatever it is told.
        None if is_harmless(kind) || outside::side(context, &socket) == Side::Box => {
            Ok(Sent { judged: None, done: plain(context, &socket, &message, &control, flags) })
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

/// Sends where nothing is to be decided: the socket's own peer, or the box's own loopback.
fn plain(
    context: &Context<'_>,
    socket: &OwnedFd,
    message: &Message,
    control: &Control,
    flags: i32,
) -> Result<usize, Errno> {
    let address = message.address.as_deref().unwrap_or_default();
    let now = |data: &[u8], control: &[u8], flags| socket::send_message(socket.as_fd(), data, address, control, flags);
    let waits = outside::waits(socket) && flags & libc::MSG_DONTWAIT == 0;
    let sent = match now(&message.data, control.bytes(), flags | libc::MSG_DONTWAIT) {
        Err(Errno::EAGAIN) if waits => context.wait(|| now(&message.data, control.bytes(), flags)),
        // A stream that waits takes all it is given.
        Ok(part) if waits && part < message.data.len() => {
            Ok(part + context.wait(|| now(&message.data[part..], &[], flags)).unwrap_or(0))
        }
        sent => sent,
    };
    if sent == Err(Errno::EPIPE) && flags & libc::MSG_NOSIGNAL == 0 {
        let (process, target) = (context.task.subject.host, context.call.stopped.target);
        // One that is gone needs none.
        let _ = sys::process::signal_thread(process, target.tid, Signal::SIGPIPE);
    }
    sent
}

fn datagram(
    context: &Context<'_>,
    socket: OwnedFd,
    inet: Inet,
    data: &[u8],
    control: &Control,
    flags: i32,
) -> Result<Sent, Stop> {
    let to = outside::endpoint(context, &socket, inet);
    let Endpoint::Inet { address, outside, transport, .. } = to else { return Err(Stop::Errno(Errno::EINVAL)) };
    let bytes = inet.bytes(address);
    let send_on = |socket: &OwnedFd| {
        let now = |flags| socket::send_message(socket.as_fd(), data, &bytes, control.bytes(), flags);
        let waits = outside::waits(socket) && flags & libc::MSG_DONTWAIT == 0;
        match now(flags | libc::MSG_DONTWAIT) {
            // What was sent before is not on its way yet: a neighbour does not answer, or the line is slow.
            Err(Errno::EAGAIN) if waits => context.wait(|| now(flags)),
            sent => sent,
        }
    };
    if !outside {
        // The box's own loopback is its own business.
        let done = send_on(&socket);
        if let (Ok(_), Transport::Udp, Some(net)) = (&done, transport, context.shared.net()) {
            outside::asks(context, net, &socket, transport, address);
        }
        return Ok(Sent { judged: None, done });
    }
    let judged = context.judge(Access::Send { to }, None);
    if !judged.allowed() {
        return Ok(Sent { judged: Some(judged), done: Err(Errno::EACCES) });
    }
    let done = match context.shared.net() {
        Some(net) if outside::side(context, &socket) == Side::Box => {
            let twin = net.twins.make(socket.as_fd(), Side::Host, &net.inside);
            twin.and_then(|twin| {
                let sent = send_on(&twin)?;
                outside::take_place(context.shared, context.call.stopped, outside::place(context, socket), twin)?;
                Ok(sent)
            })
        }
        _ => send_on(&socket),
    };
    Ok(Sent { judged: Some(judged), done })
}
