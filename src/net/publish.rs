//! Published ports: listeners on the host whose visitors are led to a port of the box.
//!
//! The listeners are opened before the box starts. From then on everything happens on the network's thread: a visit is
//! put to the gate, a socket in the box's network namespace is connected to the box's own loopback, and bytes are copied
//! both ways and counted. The box sees a connection from its loopback; it has no part in the listener.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::pin::pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};

use super::Inside;
use crate::event::{Access, Event, Subject, Visit};
use crate::gate::{Gate, Moved, Outcome, Toward};

/// How many visits are led at once; those who come then wait.
const VISITS: usize = 1024;
/// How much is copied at once.
const CHUNK: usize = 64 * 1024;
/// How long a server in the box may take to let a visitor in.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long accepting pauses when it fails, as it does when no descriptor is free.
const PAUSE: Duration = Duration::from_millis(100);

/// A port could not be published.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen at {at} for port {port} of the box ({})", fix(source, *at))]
pub struct ListenError {
    /// Where on the host.
    pub at: SocketAddr,
    /// The port in the box.
    pub port: u16,
    source: io::Error,
}

fn fix(error: &io::Error, at: SocketAddr) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "publish it at another port, or at port 0 for any that is free",
        io::ErrorKind::AddrNotAvailable => "use an address of this host, such as 127.0.0.1",
        io::ErrorKind::PermissionDenied if at.port() < 1024 => "publish it at port 1024 or above",
        _ => "publish it elsewhere",
    }
}

/// A listener on the host for a port of the box. Visitors are led as soon as the network runs; until then they wait.
#[derive(Debug)]
pub struct Published {
    listener: TcpListener,
    /// Where it listens.
    pub at: SocketAddr,
    /// The port in the box.
    pub port: u16,
    /// Whether the host's port was the kernel's choice.
    pub chosen: bool,
}

/// Listens at each address on the host for the port of the box that stands with it; port 0 on the host is any free one.
/// To be called in the host's network namespace. All of it or nothing: the first that fails is the error.
pub fn listen(wanted: impl IntoIterator<Item = (SocketAddr, u16)>) -> Result<Vec<Published>, ListenError> {
    let open = |(at, port)| open(at, port).map_err(|source| ListenError { at, port, source });
    wanted.into_iter().map(open).collect()
}

/// The standard library sets `SO_REUSEADDR`, so that connections of an earlier run do not hold the port, and close-on-exec.
fn open(at: SocketAddr, port: u16) -> io::Result<Published> {
    let listener = TcpListener::bind(at)?;
    listener.set_nonblocking(true)?;
    Ok(Published { at: listener.local_addr()?, port, chosen: at.port() == 0, listener })
}

/// What the visits to a box share.
#[derive(Debug)]
pub(super) struct Doors {
    gate: Arc<Gate>,
    inside: Arc<Inside>,
    places: Arc<Semaphore>,
    /// Visits to which the box may still have something to say.
    speaking: Mutex<usize>,
    silence: Condvar,
}

impl Doors {
    pub fn new(gate: Arc<Gate>, inside: Arc<Inside>) -> Arc<Self> {
        let places = Arc::new(Semaphore::new(VISITS));
        Arc::new(Self { gate, inside, places, speaking: Mutex::default(), silence: Condvar::new() })
    }

    /// Waits until what the box has said has been passed on, at most for `limit`. To be called once its processes have
    /// ended.
    pub fn finish(&self, limit: Duration) {
        let waited = self.silence.wait_timeout_while(self.speaking(), limit, |speaking| *speaking > 0);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    fn speaking(&self) -> MutexGuard<'_, usize> {
        self.speaking.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Leads visitors of `published` into the box, until it is dropped.
pub(super) async fn serve(doors: Arc<Doors>, published: Published) {
    let Published { listener, at, port, .. } = published;
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return doors.gate.note(format!("port {port} is not published: {error}")),
    };
    doors.gate.remark(format!("port {port} of the box is at {at}"));
    loop {
        let Ok((visitor, from)) = listener.accept().await else {
            sleep(PAUSE).await;
            continue;
        };
        let Ok(place) = Arc::clone(&doors.places).acquire_owned().await else { return };
        let visit = Visit { from: plain(from), at, port };
        tokio::spawn(lead(Arc::clone(&doors), visitor, visit, place));
    }
}

/// An IPv4 visitor of a listener for both families comes as a mapped address.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

async fn lead(doors: Arc<Doors>, mut visitor: TcpStream, visit: Visit, _place: OwnedSemaphorePermit) {
    let speaking = Speaking::new(&doors);
    let port = visit.port;
    let access = Access::Accept(visit);
    // Nobody in the box asked.
    let event = Event::new(Arc::new(Subject::default()), access);
    let toward = Toward::of(&event);
    let judged = doors.gate.judge(event, None, Instant::now());
    if !judged.allowed() {
        turn_away(&visitor);
        return doors.gate.settle(judged, Outcome::Errno(Errno::ECONNREFUSED as i32));
    }
    match reach(&doors.inside, port).await {
        Err(errno) => {
            turn_away(&visitor);
            doors.gate.settle(judged, Outcome::Errno(errno as i32));
        }
        Ok(mut server) => {
            doors.gate.settle(judged, Outcome::Ok);
            let mut counted = Counted { gate: &doors.gate, toward, moved: Moved::default() };
            if relay(&mut visitor, &mut server, &mut counted.moved, speaking).await.is_err() {
                // What was cut off on one side must not look like an end on the other.
                turn_away(&visitor);
                turn_away(&server);
            }
        }
    }
}

/// Has the connection reset when it is closed, as it is where nobody listens.
fn turn_away(stream: &TcpStream) {
    let _ = stream.set_zero_linger();
}

/// A connection to the box's own loopback, by IPv4 or else by IPv6. `Err` is what the first of them failed with.
async fn reach(inside: &Inside, port: u16) -> Result<TcpStream, Errno> {
    let [first, second] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    match connect(inside, SocketAddr::new(first, port)).await {
        Ok(stream) => Ok(stream),
        Err(errno) => connect(inside, SocketAddr::new(second, port)).await.map_err(|_| errno),
    }
}

async fn connect(inside: &Inside, to: SocketAddr) -> Result<TcpStream, Errno> {
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    // A socket stays in the network namespace that it was made in.
    let socket = inside.run(move || socket(family, SockType::Stream, flags, None))?;
    let connecting = TcpSocket::from_std_stream(socket.into()).connect(to);
    let connected = timeout(PATIENCE, connecting).await.map_err(|_| Errno::ETIMEDOUT)?;
    connected.map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
}

/// Copies both ways until both sides have ended, or one failed.
async fn relay(
    visitor: &mut TcpStream,
    server: &mut TcpStream,
    moved: &mut Moved,
    speaking: Speaking<'_>,
) -> io::Result<()> {
    // What is small is passed on at once.
    let _ = visitor.set_nodelay(true).and_then(|()| server.set_nodelay(true));
    let (from_visitor, to_visitor) = visitor.split();
    let (from_server, to_server) = server.split();
    let outward = async {
        let passed = pass(from_server, to_visitor, &mut moved.out).await;
        drop(speaking);
        passed
    };
    both(outward, pass(from_visitor, to_server, &mut moved.inward)).await
}

/// Copies one way, and passes the end on. `count` is what was passed on, at any time.
async fn pass(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, count: &mut u64) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let length = from.read(&mut chunk).await?;
        if length == 0 {
            return to.shutdown().await;
        }
        to.write_all(&chunk[..length]).await?;
        *count += length as u64;
    }
}

/// Waits for both; the first failure ends it.
async fn both(
    one: impl Future<Output = io::Result<()>>,
    other: impl Future<Output = io::Result<()>>,
) -> io::Result<()> {
    let (mut one, mut other) = (pin!(one), pin!(other));
    let mut done = [false; 2];
    poll_fn(|context| {
        if !done[0]
            && let Poll::Ready(ended) = one.as_mut().poll(context)
        {
            ended?;
            done[0] = true;
        }
        if !done[1]
            && let Poll::Ready(ended) = other.as_mut().poll(context)
        {
            ended?;
            done[1] = true;
        }
        if done == [true; 2] { Poll::Ready(Ok(())) } else { Poll::Pending }
    })
    .await
}

/// The bytes of a visit: counted however it ends, also when the network ends first.
struct Counted<'a> {
    gate: &'a Gate,
    toward: Option<Toward>,
    moved: Moved,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        if let Some(toward) = &self.toward {
            self.gate.transferred(toward, Some(self.moved));
        }
    }
}

/// Stands for a visit to which the box may still have something to say.
struct Speaking<'a>(&'a Doors);

impl<'a> Speaking<'a> {
    fn new(doors: &'a Doors) -> Self {
        *doors.speaking() += 1;
        Self(doors)
    }
}

impl Drop for Speaking<'_> {
    fn drop(&mut self) {
        let mut speaking = self.0.speaking();
        *speaking -= 1;
        if *speaking == 0 {
            self.0.silence.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(port: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
    }

    #[test]
    fn port_0_is_a_free_one_and_a_taken_one_is_an_error_with_a_way_out() {
        let free = listen([(local(0), 80), (local(0), 80)]).unwrap();
        assert!(free.iter().all(|one| one.chosen && one.at.port() != 0 && one.port == 80));
        assert_ne!(free[0].at, free[1].at);
        let error = listen([(local(0), 80), (free[0].at, 81)]).unwrap_err();
        let expected = format!(
            "cannot listen at {} for port 81 of the box (publish it at another port, or at port 0 for any that is free)",
            free[0].at
        );
        assert_eq!((error.to_string(), error.at), (expected, free[0].at));
        assert!(std::error::Error::source(&error).is_some());
        let foreign = listen([("192.0.2.1:0".parse().unwrap(), 80)]).unwrap_err();
        assert!(foreign.to_string().ends_with("(use an address of this host, such as 127.0.0.1)"), "{foreign}");
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = tokio::net::TcpListener::bind(local(0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let client = TcpStream::connect(address).await.unwrap();
        (client, listener.accept().await.unwrap().0)
    }

    #[test]
    fn each_direction_ends_by_itself_and_is_counted() {
        runtime().block_on(async {
            let ((mut visitor, at_door), (at_box, mut server)) = (pair().await, pair().await);
            let relayed = tokio::spawn(async move {
                let (mut at_door, mut at_box) = (at_door, at_box);
                let (visitor, server) = (at_door.split(), at_box.split());
                let mut moved = Moved::default();
                let inward = pass(visitor.0, server.1, &mut moved.inward);
                both(pass(server.0, visitor.1, &mut moved.out), inward).await.unwrap();
                moved
            });
            visitor.write_all(b"request").await.unwrap();
            visitor.shutdown().await.unwrap();
            let mut heard = Vec::new();
            server.read_to_end(&mut heard).await.unwrap();
            assert_eq!(heard, b"request", "the end is passed on while the other way stays open");
            let long = vec![7; 1_000_000];
            let writing = tokio::spawn(async move { server.write_all(&long).await });
            let mut answer = Vec::new();
            visitor.read_to_end(&mut answer).await.unwrap();
            writing.await.unwrap().unwrap();
            assert_eq!(answer.len(), 1_000_000);
            assert_eq!(relayed.await.unwrap(), Moved { out: 1_000_000, inward: 7 });
        });
    }

    #[test]
    fn a_failure_on_one_side_ends_both() {
        runtime().block_on(async {
            let never = std::future::pending::<io::Result<()>>();
            let fails = async { Err(io::Error::from(io::ErrorKind::ConnectionReset)) };
            assert!(both(never, fails).await.is_err());
        });
    }
}
