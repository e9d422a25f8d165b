//! What agentbox, init and the command tell each other while the box comes up: typed messages, one packet each.
//!
//! A `SOCK_SEQPACKET` pair; descriptors travel beside the message (`SCM_RIGHTS`). When one side dies, the other's next
//! call fails or reads an end of file, so nobody waits for the dead.

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, send, sendmsg, socketpair};
use serde::{Deserialize, Serialize};

use crate::sys::socket::receive_with_fd;

/// What there is to say, in the order it comes. All but `Begin` and `Enter` come from the box's side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// Ids are mapped: the view can be built.
    Begin,
    /// The box's network namespace stands, if agentbox is to make sockets in it; with that namespace.
    Network,
    /// Programs of the box can speak of themselves, where the box has a view; with the socket at which they are heard.
    Annotate,
    /// The view stands; with its mount namespace, if the box has one of its own.
    View,
    /// Records can be written: the command may enter.
    Enter,
    /// The box's terminal, if one was asked for: its master side.
    Terminal,
    /// The command's process exists; with its process descriptor.
    Command,
    /// The filter is installed; the listener has this number in the command's process.
    Listener {
        /// Its descriptor there.
        number: RawFd,
    },
    /// The command could not be started.
    NotStarted {
        /// Its path, as far as it was found.
        path: String,
        /// Why.
        errno: i32,
    },
    /// A step failed before the command could be tried.
    Failed {
        /// What was being done, with the error chain.
        step: String,
    },
    /// The command ended.
    Ended(Ended),
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ended {
    /// By itself, with this status.
    Exit(i32),
    /// By this signal.
    Signal(i32),
}

impl Ended {
    /// The status by which shells report it: 128 and the signal's number.
    pub fn status(self) -> u8 {
        match self {
            Self::Exit(status) => status as u8,
            Self::Signal(signal) => 128u8.wrapping_add(signal as u8),
        }
    }
}

/// One end of the pair.
#[derive(Debug)]
pub struct Channel(OwnedFd);

/// A message that is longer than any of ours is cut by the kernel and then fails to parse.
const LONGEST: usize = 8192;

impl Channel {
    /// Makes both ends, close-on-exec.
    pub fn pair() -> nix::Result<(Self, Self)> {
        let (a, b) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        Ok((Self(a), Self(b)))
    }

    /// The socket, to wait on.
    pub fn fd(&self) -> &OwnedFd {
        &self.0
    }

    /// Sends a message, with a descriptor beside it. One without goes by a call that no filter of the box stops: the command
    /// still has something to say when nobody listens to its filter yet.
    pub fn send(&self, message: &Message, fd: Option<BorrowedFd<'_>>) -> nix::Result<()> {
        let mut bytes = serde_json::to_vec(message).map_err(|_| Errno::EINVAL)?;
        bytes.truncate(LONGEST);
        let Some(fd) = fd else {
            return send(self.0.as_raw_fd(), &bytes, MsgFlags::MSG_NOSIGNAL).map(drop);
        };
        let fds = [fd.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&fds)];
        sendmsg::<()>(self.0.as_raw_fd(), &[IoSlice::new(&bytes)], &rights, MsgFlags::MSG_NOSIGNAL, None).map(drop)
    }

    /// Receives the next message; `None` when the other side is gone.
    pub fn receive(&self) -> nix::Result<Option<(Message, Option<OwnedFd>)>> {
        let mut bytes = [0u8; LONGEST];
        let (length, fd) = match receive_with_fd(self.0.as_fd(), &mut bytes) {
            // Said once, when the other side ended with words of ours unread; its own come behind it.
            Err(Errno::ECONNRESET) => receive_with_fd(self.0.as_fd(), &mut bytes)?,
            received => received?,
        };
        if length == 0 {
            return Ok(None);
        }
        let message = serde_json::from_slice(&bytes[..length]).map_err(|_| Errno::EBADMSG)?;
        Ok(Some((message, fd)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_arrives_with_its_descriptor_and_silence_is_an_end() {
        let (here, there) = Channel::pair().unwrap();
        let (other, _) = Channel::pair().unwrap();
        there.send(&Message::Command, Some(other.fd().as_fd())).unwrap();
        there.send(&Message::Ended(Ended::Signal(9)), None).unwrap();
        let (message, fd) = here.receive().unwrap().unwrap();
        assert_eq!(message, Message::Command);
        assert!(fd.is_some());
        assert_eq!(here.receive().unwrap().unwrap().0, Message::Ended(Ended::Signal(9)));
        drop(there);
        assert!(here.receive().unwrap().is_none());
    }
}
