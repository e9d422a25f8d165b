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
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::message::{self, Code, Data, Query, Spelled, Unfit, kind};
use super::names::{Askers, HOST_ADDRESS, Names};
use super::upstream::{Upstream, parse_hosts, read_message, read_text, write_message};
use super::{DNS_PORT, Inside, NetError};
use crate::event::{Access, Event, HOST_NAME, Question, Transport};
use crate::gate::{Gate, Judged, Outcome};

/// The longest question taken by UDP.
const LONGEST_UDP: usize = 4096;
/// How many questions the host's resolvers are asked at once.
const ASKING: usize = 256;
/// How many may be on their way at once, those that wait for their turn included; what comes beyond fails.
const WAITING: usize = 4096;
/// How many TCP connections may be open at once.
const CONNECTIONS: usize = 64;
/// How long a TCP connection may be silent.
const IDLE: Duration = Duration::from_secs(10);
/// How long nothing is taken after the kernel could not give: it is out of memory or descriptors.
const PAUSE: Duration = Duration::from_millis(50);
/// How many records an answer from here has at most.
const MOST_OWN: usize = 64;
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
    asking: Semaphore,
    waiting: Arc<Semaphore>,
    under_way: UnderWay,
}

/// What the host's resolvers said: the number of the question, and the answer.
type Said = Result<(u16, Vec<u8>), Errno>;

/// The questions that the host's resolvers are being asked. Who asks the same meanwhile, by the same transport, waits for
/// the same answer: programs that start many connections at once ask for one name as often, and name servers drop bursts.
#[derive(Debug, Default)]
struct UnderWay(Mutex<Questions>);

/// By the question as it goes out, and whether it goes by TCP.
type Questions = HashMap<(Vec<u8>, bool), Arc<OnceCell<Said>>>;

impl UnderWay {
    async fn ask(&self, question: Vec<u8>, stream: bool, ask: impl Future<Output = Said>) -> Said {
        let key = (question, stream);
        let said = Arc::clone(self.lock().entry(key.clone()).or_default());
        let answer = said.get_or_init(|| ask).await.clone();
        let mut under_way = self.lock();
        // By now it may be asked anew.
        if under_way.get(&key).is_some_and(|current| Arc::ptr_eq(current, &said)) {
            under_way.remove(&key);
        }
        answer
    }

    fn lock(&self) -> MutexGuard<'_, Questions> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who asks, and when.
#[derive(Debug, Clone, Copy)]
struct Client {
    transport: Transport,
    from: SocketAddr,
    asked: Instant,
}

impl Client {
    fn new(transport: Transport, from: SocketAddr) -> Self {
        Self { transport, from, asked: Instant::now() }
    }

    /// By UDP goes what the client takes by UDP.
    fn fit(self, query: &Query, message: Vec<u8>) -> Vec<u8> {
        if self.transport == Transport::Tcp { message } else { query.fit_udp(message) }
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
    client: Client,
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
        let (asking, waiting) = (Semaphore::new(ASKING), Arc::new(Semaphore::new(WAITING)));
        Self { gate, names, askers, hosts: known, upstream, asking, waiting, under_way: UnderWay::default() }
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
            match self.take(&packet[..length], Client::new(Transport::Udp, from)) {
                Taken::Silent => {}
                Taken::Answer(answer) => drop(socket.send_to(&answer, from).await),
                Taken::Forward(forward) => {
                    let (resolver, socket) = (Arc::clone(&self), Arc::clone(&socket));
                    tokio::spawn(async move {
                        let answer = resolver.forward(*forward).await;
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
            let answer = match self.take(&packet, Client::new(Transport::Tcp, from)) {
                Taken::Silent => return,
                Taken::Answer(answer) => answer,
                Taken::Forward(forward) => self.forward(*forward).await,
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
        let answer = |message| Taken::Answer(client.fit(&query, message));
        let name = match query.name() {
            Spelled::Host(name) => name,
            Spelled::Odd(name) => return answer(self.refuse_odd(&query, &name, client)),
        };
        if let Some(message) = self.without_asking(&query, &name) {
            return answer(message);
        }
        let asked = self.judge(&query, &name, client);
        match self.decide(&query, &name, &asked) {
            Ok(permit) => {
                let name = name.into();
                Taken::Forward(Box::new(Forward { query, name, client, asked, _permit: permit }))
            }
            Err((message, outcome)) => {
                asked.settle(outcome);
                answer(message)
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
        let found: Vec<Data> = asked_for.take(MOST_OWN).map(|name| Data::Pointer(name.to_string())).collect();
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
        let subject = self.askers.of(client.transport, client.from).unwrap_or_default();
        let question = Question { name: name.to_string(), record: message::kind_name(query.kind) };
        let judged = self.gate.judge(Event::new(subject, Access::Resolve(question)), None, client.asked);
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
        let data: Vec<Data> =
            addresses.iter().filter(fits).take(MOST_OWN).map(|address| Data::Address(*address)).collect();
        query.answer_with(&data, OWN_LIFETIME)
    }

    /// Asks the host's resolvers and remembers what they say, before the client can act on it.
    async fn forward(&self, forward: Forward) -> Vec<u8> {
        let Forward { query, name, client, asked, _permit } = forward;
        let stream = client.transport == Transport::Tcp;
        let ask = async {
            let _turn = self.asking.acquire().await;
            self.upstream.ask(&query, stream).await
        };
        let (message, outcome) = match self.under_way.ask(query.upstream(0), stream, ask).await {
            Ok((id, packet)) => self.learn(&query, &name, id, &packet),
            Err(errno) => (query.answer(Code::Failure, None), Outcome::Errno(errno as i32)),
        };
        asked.settle(outcome);
        client.fit(&query, message)
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::SystemTime;

    use simple_dns::rdata::{A, CNAME, RData};
    use simple_dns::{Name, Packet, RCODE};

    use super::super::message::tests::{Dice, ask, reply};
    use super::super::upstream::Servers;
    use super::*;
    use crate::audit::entry::Entry;
    use crate::audit::read::Reader;
    use crate::audit::{PolicyRef, RunId, RunResult, Start, Writer, text};
    use crate::event::{Level, RuleId, Subject};
    use crate::policy::network::{Destination, Destinations, Network, NetworkRule};
    use crate::policy::{Environment, ExecRules, FileRules, Guards, NetworkMode, Policy};

    const HOSTS: &str =
        "127.0.0.1 localhost\n10.0.0.5 db.example.org db\nfd00::5 db.example.org\n127.0.1.1 me.example.org\n";

    /// A resolver with a log; names below example.org and the host's are allowed.
    struct Bench {
        resolver: Arc<Resolver>,
        log: std::path::PathBuf,
        _dir: tempfile::TempDir,
    }

    fn policy(allowed: &[&str]) -> Policy {
        let rule = |text: &&str| NetworkRule {
            to: Destination::parse(text).unwrap(),
            rule: RuleId::new("test.yaml", "network.allow"),
            message: None,
        };
        let otherwise = RuleId::new("test.yaml", "network");
        let allow = Destinations::new(allowed.iter().map(rule).collect());
        Policy {
            name: "test.yaml".into(),
            digest: "00".into(),
            workdir: "/".into(),
            home: "/".into(),
            files: FileRules::default(),
            exec: ExecRules::default(),
            env: Environment::default(),
            network: Network { allow, ..Network::new(NetworkMode::Rules, otherwise) },
            audit: Level::Minimal,
            export: crate::event::Export::None,
            audit_key: None,
            secrets: Guards::default(),
            tiers: None,
        }
    }

    fn bench(servers: &[SocketAddr]) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("audit.jsonl");
        let run = RunId::new(SystemTime::UNIX_EPOCH, 1);
        let start = Start {
            time: text::rfc3339(SystemTime::UNIX_EPOCH),
            run: run.clone(),
            agentbox: "0".into(),
            command: vec![],
            policy: PolicyRef { name: "test.yaml".into(), digest: "00".into() },
            mode: crate::event::Mode::Enforce,
            coverage: serde_json::Value::Null,
        };
        let allowed = ["*.example.org:443", "db:5432", &format!("{HOST_NAME}:80"), "*.in-addr.arpa:1"];
        let writer = Arc::new(Writer::create(&log, &start).unwrap());
        let gate = Arc::new(Gate::new(Arc::new(policy(&allowed)), writer, run));
        let servers = Servers { list: servers.to_vec(), timeout: Duration::from_millis(100), attempts: 2 };
        let (names, askers) = (Arc::new(Names::default()), Arc::new(Askers::default()));
        let resolver = Resolver::with(gate, names, askers, Upstream::of(servers), HOSTS);
        Bench { resolver: Arc::new(resolver), log, _dir: dir }
    }

    impl Bench {
        async fn ask_by(&self, transport: Transport, packet: &[u8]) -> Option<Vec<u8>> {
            match self.resolver.take(packet, Client::new(transport, "127.0.0.1:7".parse().unwrap())) {
                Taken::Silent => None,
                Taken::Answer(answer) => Some(answer),
                Taken::Forward(forward) => Some(self.resolver.forward(*forward).await),
            }
        }

        /// The code and the records of the answer to a question by UDP.
        async fn ask(&self, name: &str, kind: u16) -> (RCODE, Vec<String>) {
            let answer = self.ask_by(Transport::Udp, &ask(name, kind, Some(1232))).await.unwrap();
            let read = Packet::parse(&answer).unwrap();
            let shown = |data: &RData<'_>| match data {
                RData::A(a) => Ipv4Addr::from(a.address).to_string(),
                RData::AAAA(a) => Ipv6Addr::from(a.address).to_string(),
                RData::PTR(name) => name.0.to_string(),
                RData::CNAME(name) => name.0.to_string(),
                other => format!("{other:?}"),
            };
            (read.rcode(), read.answers.iter().map(|record| shown(&record.rdata)).collect())
        }

        fn names_of(&self, address: &str) -> Vec<String> {
            self.resolver.names.of(address.parse().unwrap()).iter().map(ToString::to_string).collect()
        }

        /// Ends the log and gives its decisions as `target outcome`.
        fn recorded(self) -> Vec<String> {
            self.resolver.gate.finish(&RunResult::default()).unwrap();
            let mut reader = Reader::open(&self.log).unwrap();
            let mut found = Vec::new();
            while let Some(line) = reader.next_line().unwrap() {
                if let Some(Entry::Decision(decided)) = line.entry
                    && let Some(Access::Resolve(question)) = decided.access()
                {
                    found.push(format!("{} {} {}", question.name, question.record, decided.outcome));
                }
            }
            found
        }
    }

    /// A name server on the loopback that answers with what `say` makes of each question.
    struct Server {
        at: SocketAddr,
        asked: Arc<Mutex<Vec<Vec<u8>>>>,
    }

    impl Server {
        async fn start(say: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + Sync + 'static) -> Self {
            let (listener, socket) = loop {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                if let Ok(socket) = UdpSocket::bind(listener.local_addr().unwrap()).await {
                    break (listener, socket);
                }
            };
            let server = Self { at: listener.local_addr().unwrap(), asked: Arc::default() };
            let (say, asked) = (Arc::new(say), Arc::clone(&server.asked));
            let told = (Arc::clone(&say), Arc::clone(&asked));
            tokio::spawn(async move {
                let mut packet = [0; 4096];
                while let Ok((length, from)) = socket.recv_from(&mut packet).await {
                    asked.lock().unwrap().push(packet[..length].to_vec());
                    for answer in say(&packet[..length]) {
                        socket.send_to(&answer, from).await.unwrap();
                    }
                }
            });
            tokio::spawn(async move {
                while let Ok((mut stream, _)) = listener.accept().await {
                    let question = read_message(&mut stream).await.unwrap();
                    told.1.lock().unwrap().push([b"tcp", &question[..]].concat());
                    for answer in told.0(&question) {
                        write_message(&mut stream, &answer).await.unwrap();
                    }
                }
            });
            server
        }

        fn asked(&self) -> usize {
            self.asked.lock().unwrap().len()
        }
    }

    fn one(address: u32) -> impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + Sync + 'static {
        move |packet| vec![reply(packet, &[("x", 30, RData::A(A { address }))])]
    }

    fn with_code(code: u8) -> impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + Sync + 'static {
        move |packet| {
            let mut answer = reply(packet, &[]);
            answer[3] |= code;
            vec![answer]
        }
    }

    fn run(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
    }

    fn none<T>() -> Vec<T> {
        Vec::new()
    }

    #[test]
    fn what_is_allowed_goes_upstream_and_is_remembered_under_the_asked_name() {
        run(async {
            let server = Server::start(|packet| {
                let cdn = RData::CNAME(CNAME(Name::new_unchecked("cdn.example.net")));
                let records =
                    [("www.example.org", 30, cdn), ("cdn.example.net", 0, RData::A(A { address: 0x0102_0304 }))];
                vec![reply(packet, &records)]
            });
            let server = server.await;
            let bench = bench(&[server.at]);
            let (code, records) = bench.ask("WWW.Example.Org", kind::A).await;
            assert_eq!((code, records), (RCODE::NoError, vec!["cdn.example.net".into(), "1.2.3.4".into()]));
            assert_eq!(bench.names_of("1.2.3.4"), ["www.example.org"]);
            assert!(server.asked.lock().unwrap()[0].windows(4).any(|part| part == b"\x03www"));
            assert_eq!(bench.recorded(), ["www.example.org A ok"]);
        });
    }

    #[test]
    fn what_is_refused_stays_here_and_says_why() {
        run(async {
            let server = Server::start(one(1)).await;
            let bench = bench(&[server.at]);
            for (name, kind) in [("secret.example.com", kind::A), ("secret.example.com", 16), ("org", kind::AAAA)] {
                assert_eq!(bench.ask(name, kind).await, (RCODE::NameError, none()));
            }
            let answer = bench.ask_by(Transport::Tcp, &ask("a.example.net", 1, Some(512))).await.unwrap();
            let read = Packet::parse(&answer).unwrap();
            assert_eq!(read.opt().unwrap().opt_codes[0].data[..4], *b"\0\x0fag", "blocked, and by whom");
            assert_eq!(server.asked(), 0);
            let expected = ["secret.example.com A EACCES", "secret.example.com TXT EACCES", "org AAAA EACCES"];
            assert_eq!(bench.recorded(), [&expected[..], &["a.example.net A EACCES"]].concat());
        });
    }

    #[test]
    fn names_that_no_host_has_are_refused_whatever_is_allowed() {
        run(async {
            let server = Server::start(one(1)).await;
            let bench = bench(&[server.at]);
            for label in [&b"a\0b"[..], b"x y", b"www.evil", b"\xff"] {
                let mut packet = ask("x.example.org", kind::A, None);
                packet.splice(12..14, [&[label.len() as u8], label].concat());
                let answer = bench.ask_by(Transport::Udp, &packet).await.unwrap();
                assert_eq!(Packet::parse(&answer).unwrap().rcode(), RCODE::NameError);
            }
            assert_eq!(server.asked(), 0);
            let recorded = bench.recorded();
            assert_eq!(recorded.len(), 4);
            assert!(recorded[2].starts_with(r"www\x2eevil.example.org A E"), "{recorded:?}");
        });
    }

    #[test]
    fn the_boxs_own_names_and_the_hosts_are_answered_from_here() {
        run(async {
            let server = Server::start(one(1)).await;
            let bench = bench(&[server.at]);
            let ok = |records: &[&str]| (RCODE::NoError, records.iter().map(ToString::to_string).collect::<Vec<_>>());
            assert_eq!(bench.ask("localhost", kind::A).await, ok(&["127.0.0.1"]));
            assert_eq!(bench.ask("App.Localhost", kind::AAAA).await, ok(&["::1"]));
            assert_eq!(bench.ask("localhost", 15).await, ok(&[]));
            assert_eq!(bench.ask(HOST_NAME, kind::A).await, ok(&["192.0.0.1"]));
            assert_eq!(bench.ask(HOST_NAME, kind::AAAA).await, ok(&[]));
            assert_eq!(bench.names_of("192.0.0.1"), [HOST_NAME]);
            assert_eq!(bench.names_of("10.0.0.5"), ["db.example.org", "db"], "before anybody asks");
            assert_eq!(bench.names_of("127.0.1.1"), none::<String>());
            assert_eq!(bench.ask("DB.example.org", kind::A).await, ok(&["10.0.0.5"]));
            assert_eq!(bench.ask("db.example.org", kind::AAAA).await, ok(&["fd00::5"]));
            assert_eq!(bench.ask("db", kind::AAAA).await, ok(&[]));
            assert_eq!(bench.ask("me.example.org", kind::A).await, ok(&["127.0.1.1"]));
            assert_eq!(server.asked(), 0);
            assert_eq!(bench.ask("db.example.org", 15).await.0, RCODE::NoError);
            assert_eq!(server.asked(), 1, "what a hosts file cannot say");
            let recorded = bench.recorded();
            assert_eq!(recorded[..2], [format!("{HOST_NAME} A ok"), format!("{HOST_NAME} AAAA ok")]);
            assert_eq!(recorded.len(), 7, "localhost is on no record: {recorded:?}");
        });
    }

    #[test]
    fn the_name_of_an_address_is_told_to_who_asked_for_the_name() {
        run(async {
            let server = Server::start(one(0xcb00_710a)).await;
            let bench = bench(&[server.at]);
            assert_eq!(bench.ask("10.113.0.203.in-addr.arpa", kind::PTR).await, (RCODE::NameError, none()));
            bench.ask("www.example.org", kind::A).await;
            let (code, records) = bench.ask("10.113.0.203.in-addr.arpa", kind::PTR).await;
            assert_eq!((code, records), (RCODE::NoError, vec!["www.example.org".into()]));
            let (code, _) = bench.ask("5.0.0.10.in-addr.arpa", kind::PTR).await;
            assert_eq!((code, server.asked()), (RCODE::NameError, 1), "the host's names are not listed");
            assert_eq!(bench.recorded(), ["www.example.org A ok"]);
        });
    }

    #[test]
    fn an_answer_from_here_is_cut_as_well() {
        run(async {
            let bench = bench(&[]);
            for i in 0..50 {
                let name = format!("{}.example.org", "a".repeat(10 + i)).into();
                bench.resolver.names.learn(&name, [1, 2, 3, 4].into(), Duration::ZERO);
            }
            let question = ask("4.3.2.1.in-addr.arpa", kind::PTR, None);
            let cut = bench.ask_by(Transport::Udp, &question).await.unwrap();
            assert_eq!((cut.len(), cut[2] & 2), (question.len(), 2));
            let whole = bench.ask_by(Transport::Tcp, &question).await.unwrap();
            assert_eq!(Packet::parse(&whole).unwrap().answers.len(), 50);
        });
    }

    #[test]
    fn a_server_that_fails_is_passed_over_and_the_record_says_when_none_is_left() {
        run(async {
            let (good, failing) = (Server::start(one(7)).await, Server::start(with_code(2)).await);
            let (mute, closed) = (Server::start(|_| vec![]).await, UdpSocket::bind("127.0.0.1:0").await.unwrap());
            let gone = closed.local_addr().unwrap();
            drop(closed);
            let both = bench(&[gone, failing.at, mute.at, good.at]);
            assert_eq!(both.ask("a.example.org", kind::A).await.0, RCODE::NoError);
            assert_eq!(both.recorded(), ["a.example.org A ok"]);
            for (server, code, outcome, times) in [
                (gone, RCODE::ServerFailure, "ECONNREFUSED", 0),
                (mute.at, RCODE::ServerFailure, "ETIMEDOUT", 2),
                (failing.at, RCODE::ServerFailure, "EREMOTEIO", 1),
            ] {
                let before = mute.asked() + failing.asked();
                let alone = bench(&[server]);
                assert_eq!(alone.ask("a.example.org", kind::A).await, (code, none()));
                assert_eq!(alone.recorded(), [format!("a.example.org A {outcome}")]);
                assert_eq!(mute.asked() + failing.asked() - before, times, "{outcome}");
            }
            let missing = Server::start(with_code(3)).await;
            let alone = bench(&[missing.at, good.at]);
            assert_eq!(alone.ask("a.example.org", kind::A).await.0, RCODE::NameError);
            assert_eq!(alone.recorded(), ["a.example.org A ENOENT"]);
        });
    }

    #[test]
    fn answers_to_other_questions_are_passed_over() {
        run(async {
            let server = Server::start(|packet| {
                let good = one(0x0102_0304)(packet).remove(0);
                let (mut number, mut name, mut kind) = (good.clone(), good.clone(), good.clone());
                (number[0], name[13]) = (number[0] ^ 1, b'z');
                kind[12 + 15 + 1] = 28;
                vec![number, name, kind, vec![], vec![0; 12], packet.to_vec(), good]
            });
            let bench = bench(&[server.await.at]);
            assert_eq!(bench.ask("w.example.org", kind::A).await, (RCODE::NoError, vec!["1.2.3.4".into()]));
            assert_eq!(bench.recorded(), ["w.example.org A ok"]);
        });
    }

    #[test]
    fn what_is_too_long_for_udp_comes_by_tcp() {
        run(async {
            let many: Vec<_> = (0..200).map(|i| ("x", 30, RData::A(A { address: 0x0a00_0000 + i }))).collect();
            let server = Server::start(move |packet| vec![reply(packet, &many)]).await;
            let bench = bench(&[server.at]);
            let question = ask("big.example.org", kind::A, None);
            let cut = bench.ask_by(Transport::Udp, &question).await.unwrap();
            assert_eq!((cut.len(), cut[2] & 2), (question.len(), 2), "the question, and that there is more");
            let whole = bench.ask_by(Transport::Tcp, &question).await.unwrap();
            assert_eq!(Packet::parse(&whole).unwrap().answers.len(), 200);
            assert!(server.asked.lock().unwrap()[1].starts_with(b"tcp"));
            assert_eq!(bench.names_of("10.0.0.199"), ["big.example.org"]);
        });
    }

    #[test]
    fn more_questions_than_may_wait_fail_and_those_that_never_end_are_on_record() {
        run(async {
            let bench = bench(&["192.0.2.1:53".parse().unwrap()]);
            let question = ask("a.example.org", kind::A, None);
            let client = Client::new(Transport::Udp, "127.0.0.1:7".parse().unwrap());
            let taken: Vec<Taken> = (0..=WAITING).map(|_| bench.resolver.take(&question, client)).collect();
            let waiting = taken.iter().filter(|taken| matches!(taken, Taken::Forward(_))).count();
            let Some(Taken::Answer(answer)) = taken.last() else { panic!("not the last") };
            assert_eq!((waiting, Packet::parse(answer).unwrap().rcode()), (WAITING, RCODE::ServerFailure));
            drop(taken);
            let recorded = bench.recorded();
            assert_eq!(
                (recorded[0].as_str(), recorded[1].as_str()),
                ("a.example.org A EAGAIN", "a.example.org A gone")
            );
            assert_eq!(recorded.len(), WAITING + 1);
        });
    }

    #[test]
    fn what_is_asked_meanwhile_is_asked_of_the_host_once() {
        run(async {
            let server = Server::start(one(0x0102_0304)).await;
            let bench = bench(&[server.at]);
            let client = Client::new(Transport::Udp, "127.0.0.1:7".parse().unwrap());
            let question = |name: &str, kind: u16| {
                let Taken::Forward(forward) = bench.resolver.take(&ask(name, kind, Some(1232)), client) else {
                    panic!("{name} is not forwarded")
                };
                let resolver = Arc::clone(&bench.resolver);
                tokio::spawn(async move { resolver.forward(*forward).await })
            };
            let same = ["a.example.org", "A.Example.org", "a.example.org"].map(|name| question(name, kind::A));
            let others = [question("b.example.org", kind::A), question("a.example.org", kind::AAAA)];
            for waiting in same.into_iter().chain(others) {
                let answer = waiting.await.unwrap();
                let read = Packet::parse(&answer).unwrap();
                assert_eq!((read.rcode(), read.answers.len()), (RCODE::NoError, 1));
            }
            assert_eq!(server.asked(), 3);
            assert!(bench.resolver.under_way.lock().is_empty());
            assert_eq!(bench.ask("a.example.org", kind::A).await.1, ["1.2.3.4"]);
            assert_eq!(server.asked(), 4, "an answer is for those who wait for it");
            assert_eq!(bench.recorded().len(), 6, "each question is on record");
        });
    }

    #[test]
    fn transfers_are_not_answered_and_the_asker_is_on_record() {
        run(async {
            let server = Server::start(one(1)).await;
            let bench = bench(&[server.at]);
            let subject = Subject { pid: 7, exe: "/usr/bin/dig".into(), ..Subject::default() };
            bench.resolver.askers.tell(Transport::Udp, "127.0.0.1:7".parse().unwrap(), subject.into());
            assert_eq!(bench.ask("a.example.org", 252).await.0, RCODE::NotImplemented);
            assert_eq!(server.asked(), 0);
            bench.resolver.gate.finish(&RunResult::default()).unwrap();
            let text = std::fs::read_to_string(&bench.log).unwrap();
            assert!(text.contains("EOPNOTSUPP") && text.contains("/usr/bin/dig"), "{text}");
        });
    }

    #[test]
    fn no_packet_makes_the_resolver_panic() {
        run(async {
            let bench = bench(&["127.0.0.1:1".parse().unwrap()]);
            let mut dice = Dice(0xdead_beef_cafe_f00d);
            let seeds = [
                ask("www.example.com", kind::A, Some(1232)),
                ask("1.0.0.10.in-addr.arpa", kind::PTR, None),
                ask("db.example.org", kind::AAAA, Some(512)),
            ];
            let mut answered = 0;
            for turn in 0..30_000 {
                let mut packet = seeds[turn % 3].clone();
                dice.spoil(&mut packet);
                match bench.resolver.take(&packet, Client::new(Transport::Udp, "127.0.0.1:7".parse().unwrap())) {
                    Taken::Answer(answer) => {
                        assert!(answer.len() >= 12 && answer[..2] == packet[..2] && answer[2] & 0x80 != 0);
                        answered += 1;
                    }
                    Taken::Silent | Taken::Forward(_) => {}
                }
            }
            assert!(answered > 10_000);
        });
    }
}
