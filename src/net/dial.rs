//! Waits for a connection that is being made on a caller's behalf, on the network's thread.
//!
//! A thousand callers that wait cost a thousand small tasks and no thread.

use std::io;
use std::net::TcpStream as Stream;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt};
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// What became of the wait.
#[derive(Debug)]
pub enum Waited {
    /// The connection stands.
    Connected(OwnedFd),
    /// It was refused, or nobody answered.
    Failed(Errno),
    /// The limit is over; the connection is still being made.
    TimedOut(OwnedFd),
    /// Somebody interrupted the wait; the connection is still being made.
    Interrupted(OwnedFd),
}

/// Waits until the connection of `socket`, which is non-blocking and has begun to connect, stands or has failed; for
/// `limit` at most, and until `interrupt` is notified.
pub async fn connected(socket: OwnedFd, limit: Option<Duration>, interrupt: Arc<Notify>) -> Waited {
    let stream = match TcpStream::from_std(Stream::from(socket)) {
        Ok(stream) => stream,
        Err(error) => return Waited::Failed(errno(&error)),
    };
    let end = wait(&stream, limit, &interrupt).await;
    let socket = match stream.into_std() {
        Ok(stream) => OwnedFd::from(stream),
        Err(error) => return Waited::Failed(errno(&error)),
    };
    match end {
        End::Ready => outcome(socket),
        End::Failed(errno) => Waited::Failed(errno),
        End::TimedOut => Waited::TimedOut(socket),
        End::Interrupted => Waited::Interrupted(socket),
    }
}

enum End {
    Ready,
    Failed(Errno),
    TimedOut,
    Interrupted,
}

async fn wait(stream: &TcpStream, limit: Option<Duration>, interrupt: &Notify) -> End {
    let mut interrupted = pin!(interrupt.notified());
    let mut writable = pin!(stream.writable());
    let either = std::future::poll_fn(|context| match writable.as_mut().poll(context) {
        Poll::Ready(Ok(())) => Poll::Ready(End::Ready),
        Poll::Ready(Err(error)) => Poll::Ready(End::Failed(errno(&error))),
        Poll::Pending => interrupted.as_mut().poll(context).map(|()| End::Interrupted),
    });
    match limit {
        Some(limit) => tokio::time::timeout(limit, either).await.unwrap_or(End::TimedOut),
        None => either.await,
    }
}

/// What has become of a connection by now; the socket itself while it is still being made.
pub fn settled(socket: OwnedFd) -> Result<Waited, OwnedFd> {
    let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
    match poll(&mut fds, PollTimeout::ZERO) {
        Ok(1..) => Ok(outcome(socket)),
        _ => Err(socket),
    }
}

fn outcome(socket: OwnedFd) -> Waited {
    match getsockopt(&socket, sockopt::SocketError) {
        Ok(0) => Waited::Connected(socket),
        Ok(number) => Waited::Failed(Errno::from_raw(number)),
        Err(errno) => Waited::Failed(errno),
    }
}

fn errno(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}
