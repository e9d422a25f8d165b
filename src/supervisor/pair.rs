//! Pairs of unix datagram sockets (`socketpair`): made by a worker, of the kind that speaks to its other end alone.
//!
//! A unix datagram socket sends to any name in reach, also when it is one of a pair, and `sendmsg` names whom where no
//! filter sees it: so the box has none. `SOCK_SEQPACKET` keeps messages apart in the same way and passes the same things,
//! but its other end is settled for good: the kernel looks at no address (`unix_seqpacket_sendmsg`, net/unix/af_unix.c)
//! and connects it to nobody else. It differs where the other end is closed: that is an end (`EPIPE`) and no silence.
//!
//! The two belong to the host's network, as their maker does. Abstract names there are kept from them by
//! [`super::net::bind`] (one that the kernel gives to who passes credentials leads nowhere: nobody listens), and what
//! there is to know of its interfaces by [`super::interface`].

use nix::errno::Errno;

use super::notification::Reply;
use super::{Context, Handled, Stop};
use crate::sys::socket;
use crate::syscalls::Arg;

/// The bits of a type that are no flags (`SOCK_TYPE_MASK`, include/linux/net.h).
const TYPE: i32 = 0xf;

/// `socketpair` for datagrams.
pub fn pair(context: &Context<'_>) -> Handled {
    let (stopped, at) = (context.call.stopped, context.call.word(Arg::Pair));
    let flags = context.call.int(Arg::SocketType) & !TYPE;
    let ends = socket::pair(flags | libc::SOCK_SEQPACKET, context.call.int(Arg::Protocol)).map_err(Stop::Errno)?;
    // What is handed over cannot be taken back, so there must be room for both, and for their numbers.
    stopped.target.has_descriptors_left(2).map_err(Stop::Errno)?;
    stopped.target.write(at, &[0xff; 8]).map_err(Stop::Errno)?;
    let mut numbers = Vec::new();
    for end in &ends {
        let number = stopped.give(end, flags & libc::SOCK_CLOEXEC != 0).map_err(|errno| match errno {
            Errno::ENOENT => Stop::Gone,
            errno => Stop::Errno(errno),
        })?;
        numbers.extend(number.to_ne_bytes());
    }
    stopped.target.write(at, &numbers).map_err(Stop::Errno)?;
    let _ = stopped.answer(Reply::Value(0));
    Ok(())
}
