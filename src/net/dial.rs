//! Waits for a connection that is being made on a caller's behalf, on the network's thread.
//!
//! A thousand callers that wait cost a thousand small tasks and no thread.

use std::io;
use std::net::TcpStream as Stream;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use nix::errno::Errno;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::sys::socket;

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

/// Waits until the connection of `socket` to `to`, which is non-blocking and has begun to connect, stands or has failed;
/// for `limit` at most, and until `interrupt` is notified.
pub async fn connected(socket: OwnedFd, to: Vec<u8>, limit: Option<Duration>, interrupt: Arc<Notify>) -> Waited {
    let stream = match TcpStream::from_std(Stream::from(socket)) {
        Ok(stream) => stream,
        Err(error) => return Waited::Failed(errno(&error)),
    };
    let end = wait(&stream, &to, limit, &interrupt).await;
    let socket = match stream.into_std() {
        Ok(stream) => OwnedFd::from(stream),
        Err(error) => return Waited::Failed(errno(&error)),
    };
    match end {
        End::Connected => Waited::Connected(socket),
        End::Failed(errno) => Waited::Failed(errno),
        End::TimedOut => Waited::TimedOut(socket),
        End::Interrupted => Waited::Interrupted(socket),
    }
}

enum End {
    Connected,
    Failed(Errno),
    TimedOut,
    Interrupted,
}

async fn wait(stream: &TcpStream, to: &[u8], limit: Option<Duration>, interrupt: &Notify) -> End {
    let mut interrupted = pin!(interrupt.notified());
    let mut connected = pin!(stream.async_io(Interest::WRITABLE, || match outcome(stream.as_fd(), to) {
        None => Err(io::ErrorKind::WouldBlock.into()),
        Some(outcome) => Ok(outcome),
    }));
    let either = std::future::poll_fn(|context| match connected.as_mut().poll(context) {
        Poll::Ready(Ok(Ok(()))) => Poll::Ready(End::Connected),
        Poll::Ready(Ok(Err(errno))) => Poll::Ready(End::Failed(errno)),
        Poll::Ready(Err(error)) => Poll::Ready(End::Failed(errno(&error))),
        Poll::Pending => interrupted.as_mut().poll(context).map(|()| End::Interrupted),
    });
    match limit {
        Some(limit) => tokio::time::timeout(limit, either).await.unwrap_or(End::TimedOut),
        None => either.await,
    }
}

/// What has become of a connection by now; the socket itself while it is still being made.
pub fn settled(socket: OwnedFd, to: &[u8]) -> Result<Waited, OwnedFd> {
    match outcome(socket.as_fd(), to) {
        None => Err(socket),
        Some(Ok(())) => Ok(Waited::Connected(socket)),
        Some(Err(errno)) => Ok(Waited::Failed(errno)),
    }
}

/// What has become of a connection; `None` while it is being made.
///
/// Asked by a second connect: it also tells the socket that somebody has seen it connected, or failed, as a blocking one
/// does (`__inet_stream_connect`, net/ipv4/af_inet.c).
fn outcome(socket: BorrowedFd<'_>, to: &[u8]) -> Option<Result<(), Errno>> {
    match socket::connect(socket, to) {
        Ok(()) | Err(Errno::EISCONN) => Some(Ok(())),
        Err(Errno::EALREADY | Errno::EINPROGRESS) => None,
        Err(errno) => Some(Err(errno)),
    }
}

fn errno(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}
