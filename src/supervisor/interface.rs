//! Questions about the network's interfaces that are asked by a socket (`ioctl`, netdevice(7)).
//!
//! They are answered for the network that the socket belongs to. One that stands for a connection to the outside belongs
//! to the host's, whose names, addresses and neighbours are nobody's business in the box. So a worker asks, by the
//! caller's own socket, and only where that is the box's. Nothing here is decided by rules.

use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;

use super::notification::Reply;
use super::{Context, Handled, Stop, net, outside};
use crate::net::twin::{Kind, Side};
use crate::sys::socket::{self, INTERFACE};
use crate::syscalls::Arg;

/// More than the interfaces of a box will ever need.
const MOST: usize = 64 << 10;

/// `ioctl` about interfaces.
pub fn interface(context: &Context<'_>) -> Handled {
    let socket = net::socket_of(context)?;
    context.still_there()?;
    // What is no socket has no such requests.
    Kind::of(socket.as_fd()).map_err(|_| Stop::Errno(Errno::ENOTTY))?;
    if outside::side(context, &socket) == Side::Host && context.shared.target.own_network {
        return Err(Stop::Errno(Errno::EPERM));
    }
    let (target, at) = (context.call.stopped.target, context.call.word(Arg::Parameter));
    let request = context.call.int(Arg::Request) as u32;
    if u64::from(request) == libc::SIOCGIFCONF {
        return list(context, socket.as_fd());
    }
    let about = context.memory(target.bytes(at, INTERFACE))?;
    let mut about: [u8; INTERFACE] = about.try_into().map_err(|_| Stop::Errno(Errno::EFAULT))?;
    // Others change something, for which nobody in the box has the right, or are for devices that it does not have.
    socket::interface(socket.as_fd(), request, &mut about).map_err(Stop::Errno)?;
    target.write(at, &about).map_err(Stop::Errno)?;
    let _ = context.call.stopped.answer(Reply::Value(0));
    Ok(())
}

/// `SIOCGIFCONF`: all of them, or where there is no place for them, how much that would take.
fn list(context: &Context<'_>, socket: BorrowedFd<'_>) -> Handled {
    let (target, at) = (context.call.stopped.target, context.call.word(Arg::Parameter));
    let [length, place] = context.memory(target.words::<2>(at))?;
    let room = if place == 0 { MOST } else { usize::try_from(length as u32 as i32).unwrap_or(0).min(MOST) };
    let found = socket::interfaces(socket, room).map_err(Stop::Errno)?;
    if place != 0 {
        target.write(place, &found).map_err(Stop::Errno)?;
    }
    target.write(at, &(found.len() as i32).to_ne_bytes()).map_err(Stop::Errno)?;
    let _ = context.call.stopped.answer(Reply::Value(0));
    Ok(())
}
