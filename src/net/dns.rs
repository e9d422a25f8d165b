//! The box's resolver: port 53 on its loopback, by UDP and TCP.
//!
//! Runs on the network's thread, over sockets that were made in the box's network namespace. Each question about a name
//! is put to the gate and is on record with what came of it. What is refused never leaves the host: it is answered as a
//! name that does not exist, because a refusal in DNS's own words (REFUSED) makes musl wait for its whole timeout and
//! glibc ask again. What is allowed is asked of the host's resolvers anew, so that nothing but name and type goes out,
//! and every address in the answer is remembered under the name that was asked for.
//!
//! What an answer points to is of no concern here: whether the box may connect there is decided when it tries.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::message::{self, Code, Data, Query, Spelled, Unfit, kind};
use super::names::{Askers, HOST_ADDRESS, Names};
use super::upstream::{Upstream, parse_hosts, read_message, read_text, write_message};
use super::{DNS_PORT, Inside, NetError};
use crate::event::{Access, Event, HOST_NAME, Question, Transport};
use crate::gate::{Gate, Judged, Outcome};

/// The longest question taken by UDP.
const LONGEST_UDP: usize = 4096;
/// How many questions may wait for the host's resolvers at once.
const WAITING: usize = 256;
/// How many TCP connections may be open at once.
const CONNECTIONS: usize = 64;
/// How long a TCP connection may be silent.
const IDLE: Duration = Duration::from_secs(10);
/// How long nothing is taken after the kernel could not give: it is out of memory or descriptors.
const PAUSE: Duration = Duration::from_millis(50);
/// How long clients may keep what is answered from here.
const OWN_LIFETIME: Duration = Duration::from_secs(60);
/// Types of questions that are not about records: TSIG, transfers of whole zones, and their ancient kin.
const NOT_RECORDS: std::ops::RangeInclusive<u16> = 249..=254;

/// The sockets of the resolver, made in the box's network namespace.
#[derive(Debug)]
pub struct Sockets {
    packets: Vec<std::net::UdpSocket>,
    streams: Vec<std::net::TcpListener>,
}

impl Sockets {
    /// Takes port 53 of the box's loopback: 127.0.0.1, and ::1 where there is IPv6.
    pub fn take(inside: &Inside) -> Result<Self, NetError> {
        let taken = inside.run(|| {
            let mut sockets = Self { packets: Vec::new(), streams: Vec::new() };
            sockets.listen(Ipv4Addr::LOCALHOST.into())?;
            match sockets.listen(Ipv6Addr::LOCALHOST.into()) {
                Ok(()) | Err(Errno::EADDRNOTAVAIL | Errno::EAFNOSUPPORT) => Ok(sockets),
                Err(errno) => Err(errno),
            }
        });
        taken.map_err(|errno| NetError::Step("take the name service's port in the box", errno))
    }

    fn listen(&mut self, address: IpAddr) -> Result<(), Errno> {
        let at = SocketAddr::new(address, DNS_PORT);
        let errno = |error: std::io::Error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
        let packets = std::net::UdpSocket::bind(at).map_err(errno)?;
        let streams = std::net::TcpListener::bind(at).map_err(errno)?;
        packets.set_nonblocking(true).and_then(|()| streams.set_nonblocking(true)).map_err(errno)?;
        self.packets.push(packets);
        self.streams.push(streams);
        Ok(())
    }
}

/// The resolver of one box.
#[derive(Debug)]
pub struct Resolver {
    gate: Arc<Gate>,
    names: Arc<Names>,
    askers: Arc<Askers>,
    /// What the host's `/etc/hosts` says.
    hosts: HashMap<Arc<str>, Vec<IpAddr>>,
    upstream: Upstream,
    waiting: Arc<Semaphore>,
}

/// Who asks, and when.
#[derive(Debug, Clone, Copy)]
struct Client {
    from: SocketAddr,
    asked: Instant,
}

impl Client {
    fn new(from: SocketAddr) -> Self {
        Self { from, asked: Instant::now() }
    }
}

/// What becomes of a packet.
enum Taken {
    /// It gets no answer.
    Silent,
    /// It gets this answer.
    Answer(Vec<u8>),
    /// The host's resolvers are to be asked.
    Forward(Box<Forward>),
}

/// An allowed question on its way to the host's resolvers.
struct Forward {
    query: Query,
    name: Arc<str>,
    asked: Asked,
    _permit: OwnedSemaphorePermit,
}

/// A question that was judged. It is put on record even if the run ends before the answer comes.
struct Asked {
    gate: Arc<Gate>,
    judged: Option<Judged>,
}

impl Asked {
    fn settle(mut self, outcome: Outcome) {
        if let Some(judged) = self.judged.take() {
            self.gate.settle(judged, outcome);
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if let Some(judged) = self.judged.take() {
            self.gate.settle(judged, Outcome::Gone);
        }
    }
}

impl Resolver {
    /// Makes the resolver, with the servers and names of the host's `/etc/resolv.conf` and `/etc/hosts`.
    ///
    /// The latter's names are remembered at once: programs in the box that can read that file never ask for them.
    pub fn new(gate: Arc<Gate>, names: Arc<Names>, askers: Arc<Askers>) -> Result<Self, NetError> {
        let upstream = Upstream::new(Path::new("/etc/resolv.conf"))?;
        let hosts = read_text(Path::new("/etc/hosts")).unwrap_or_default();
        Ok(Self::with(gate, names, askers, upstream, &hosts))
    }

    fn with(gate: Arc<Gate>, names: Arc<Names>, askers: Arc<Askers>, upstream: Upstream, hosts: &str) -> Self {
        let mut known: HashMap<Arc<str>, Vec<IpAddr>> = HashMap::new();
        for (name, address) in parse_hosts(hosts) {
            let name: Arc<str> = name.into();
            // Loopback is the box's own, whatever it is called.
            if !address.is_loopback() && !address.is_unspecified() {
                names.learn_for_good(&name, address);
            }
            known.entry(name).or_default().push(address);
        }
        let waiting = Arc::new(Semaphore::new(WAITING));
        Self { gate, names, askers, hosts: known, upstream, waiting }
    }

    /// Serves until the runtime ends. To be called on it.
    pub fn serve(self: &Arc<Self>, sockets: Sockets) -> std::io::Result<()> {
        for socket in sockets.packets {
            tokio::spawn(Arc::clone(self).serve_packets(Arc::new(UdpSocket::from_std(socket)?)));
        }
        let connections = Arc::new(Semaphore::new(CONNECTIONS));
        for listener in sockets.streams {
            let listener = TcpListener::from_std(listener)?;
            tokio::spawn(Arc::clone(self).serve_streams(listener, Arc::clone(&connections)));
        }
        Ok(())
    }

    async fn serve_packets(self: Arc<Self>, socket: Arc<UdpSocket>) {
        // One more than is taken, to tell what was cut.
        let mut packet = [0; LONGEST_UDP + 1];
        loop {
            let Ok((length, from)) = socket.recv_from(&mut packet).await else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            if length > LONGEST_UDP {
                continue;
            }
            match self.take(&packet[..length], Client::new(from)) {
                Taken::Silent => {}
                Taken::Answer(answer) => drop(socket.send_to(&answer, from).await),
                Taken::Forward(forward) => {
                    let (resolver, socket) = (Arc::clone(&self), Arc::clone(&socket));
                    tokio::spawn(async move {
                        let answer = resolver.forward(forward, Transport::Udp).await;
                        let _ = socket.send_to(&answer, from).await;
                    });
                }
            }
        }
    }

    async fn serve_streams(self: Arc<Self>, listener: TcpListener, connections: Arc<Semaphore>) {
        loop {
            let Ok((stream, from)) = listener.accept().await else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            // Beyond the bound it is closed at once.
            let Ok(permit) = Arc::clone(&connections).try_acquire_owned() else { continue };
            let resolver = Arc::clone(&self);
            tokio::spawn(async move {
                resolver.serve_stream(stream, from).await;
                drop(permit);
            });
        }
    }

    /// Answers one question after the other, until the client closes, is silent for too long, or sends what is none.
    async fn serve_stream(&self, mut stream: TcpStream, from: SocketAddr) {
        while let Ok(Ok(packet)) = timeout(IDLE, read_message(&mut stream)).await {
            let answer = match self.take(&packet, Client::new(from)) {
                Taken::Silent => return,
                Taken::Answer(answer) => answer,
                Taken::Forward(forward) => self.forward(forward, Transport::Tcp).await,
            };
            if !matches!(timeout(IDLE, write_message(&mut stream, &answer)).await, Ok(Ok(()))) {
                return;
            }
        }
    }

    /// Understands a packet, has it judged, and answers what can be answered from here.
    fn take(&self, packet: &[u8], client: Client) -> Taken {
        let query = match Query::parse(packet) {
            Ok(query) => query,
            Err(Unfit::Silent) => return Taken::Silent,
            Err(Unfit::Answer(answer)) => return Taken::Answer(answer),
        };
        let name = match query.name() {
            Spelled::Host(name) => name,
            Spelled::Odd(name) => return Taken::Answer(self.refuse_odd(&query, &name, client)),
        };
        if let Some(answer) = self.without_asking(&query, &name) {
            return Taken::Answer(answer);
        }
        let asked = self.judge(&query, &name, client);
        match self.decide(&query, &name, &asked) {
            Ok(permit) => {
                let name = name.into();
                Taken::Forward(Box::new(Forward { query, name, asked, _permit: permit }))
            }
            Err((answer, outcome)) => {
                asked.settle(outcome);
                Taken::Answer(answer)
            }
        }
    }

    /// What no rule is asked about: the box's own names, and the names of addresses.
    ///
    /// The name of an address (PTR) grants nothing, and the question says nothing to anybody outside, as it stays here.
    /// Programs ask such questions for their logs, without meaning to reach anything, so they are not on record either.
    fn without_asking(&self, query: &Query, name: &str) -> Option<Vec<u8>> {
        if name == "localhost" || name.ends_with(".localhost") {
            return Some(self.addresses(query, &[Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]));
        }
        let is_reverse = name.ends_with(".in-addr.arpa") || name.ends_with(".ip6.arpa");
        if query.kind != kind::PTR || !is_reverse {
            return None;
        }
        let names = message::reverse(name).map(|address| self.names.of(address)).unwrap_or_default();
        // The host's own names are for those who know them: a scan of addresses must not list them.
        let asked_for = names.into_iter().filter(|name| !self.hosts.contains_key(name));
        let found: Vec<Data> = asked_for.take(8).map(|name| Data::Pointer(name.to_string())).collect();
        Some(match found.is_empty() {
            true => query.answer(Code::NoName, None),
            false => query.answer_with(&found, OWN_LIFETIME),
        })
    }

    /// A name that no host has is refused whatever the rules say: they speak of host names alone.
    fn refuse_odd(&self, query: &Query, name: &str, client: Client) -> Vec<u8> {
        let asked = self.judge(query, name, client);
        let outcome = if asked.is_allowed() { Errno::EINVAL } else { Errno::EACCES };
        asked.settle(Outcome::Errno(outcome as i32));
        query.answer(Code::NoName, Some("agentbox: not a host name"))
    }

    fn judge(&self, query: &Query, name: &str, client: Client) -> Asked {
        let subject = self.askers.of(client.from).unwrap_or_default();
        let question = Question { name: name.to_string(), record: message::kind_name(query.kind) };
        let judged = self.gate.judge(Event { subject, access: Access::Resolve(question) }, None, client.asked);
        Asked { gate: Arc::clone(&self.gate), judged: Some(judged) }
    }

    /// Leave to ask the host's resolvers; or the answer, and what is to be put on record.
    fn decide(&self, query: &Query, name: &str, asked: &Asked) -> Result<OwnedSemaphorePermit, (Vec<u8>, Outcome)> {
        if !asked.is_allowed() {
            return Err((query.answer(Code::NoName, Some(asked.why())), Outcome::Errno(Errno::EACCES as i32)));
        }
        if NOT_RECORDS.contains(&query.kind) {
            return Err((query.answer(Code::NotImplemented, None), Outcome::Errno(Errno::EOPNOTSUPP as i32)));
        }
        if name == HOST_NAME {
            let name: Arc<str> = HOST_NAME.into();
            self.names.learn_for_good(&name, HOST_ADDRESS.into());
            return Err((self.addresses(query, &[HOST_ADDRESS.into()]), Outcome::Ok));
        }
        if let Some(addresses) = self.hosts.get(name)
            && matches!(query.kind, kind::A | kind::AAAA)
        {
            return Err((self.addresses(query, addresses), Outcome::Ok));
        }
        let permit = Arc::clone(&self.waiting).try_acquire_owned();
        permit.map_err(|_| (query.answer(Code::Failure, None), Outcome::Errno(Errno::EAGAIN as i32)))
    }

    /// Those of `addresses` that are of the type that is asked for.
    fn addresses(&self, query: &Query, addresses: &[IpAddr]) -> Vec<u8> {
        let fits = |address: &&IpAddr| match query.kind {
            kind::A => address.is_ipv4(),
            kind::AAAA => address.is_ipv6(),
            _ => false,
        };
        let data: Vec<Data> = addresses.iter().filter(fits).map(|address| Data::Address(*address)).collect();
        query.answer_with(&data, OWN_LIFETIME)
    }

    /// Asks the host's resolvers and remembers what they say, before the client can act on it.
    async fn forward(&self, forward: Box<Forward>, transport: Transport) -> Vec<u8> {
        let Forward { query, name, asked, _permit } = *forward;
        let stream = transport == Transport::Tcp;
        let (message, outcome) = match self.upstream.ask(&query, stream).await {
            Ok((id, packet)) => self.learn(&query, &name, id, &packet),
            Err(errno) => (query.answer(Code::Failure, None), Outcome::Errno(errno as i32)),
        };
        asked.settle(outcome);
        if stream { message } else { query.fit_udp(message) }
    }

    fn learn(&self, query: &Query, name: &Arc<str>, id: u16, packet: &[u8]) -> (Vec<u8>, Outcome) {
        let Some(answer) = query.read_answer(id, packet) else {
            return (query.answer(Code::Failure, None), Outcome::Errno(Errno::EBADMSG as i32));
        };
        for (address, lifetime) in answer.addresses() {
            self.names.learn(name, address, lifetime);
        }
        let outcome = match answer.code() {
            0 => Outcome::Ok,
            3 => Outcome::Errno(Errno::ENOENT as i32),
            _ => Outcome::Errno(Errno::EREMOTEIO as i32),
        };
        match answer.is_whole() {
            true => (query.pass_on(&answer), outcome),
            false => (query.answer(Code::Failure, None), outcome),
        }
    }
}

impl Asked {
    fn is_allowed(&self) -> bool {
        self.judged.as_ref().is_some_and(Judged::allowed)
    }

    /// What a client that asks why is told.
    fn why(&self) -> &str {
        let message = self.judged.as_ref().and_then(|judged| judged.verdict.message.as_deref());
        message.unwrap_or("agentbox: no rule allows this name")
    }
}
