//! Which names the box was given for which addresses, and who asks the resolver.
//!
//! A box's programs ask for names and then connect to addresses. Rules speak of names, so what the resolver answered is
//! kept: a connection goes by the names that the box was given for its address. A remembered name grants nothing unless
//! a rule allows it.
//!
//! The resolver's thread writes, workers read; each table is one lock around a map of bounded size.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::event::{Subject, Transport};

/// The address that stands for the loopback of the host, under the name [`crate::event::HOST_NAME`]: of the IPv4 service
/// continuity prefix (RFC 7335), so never that of a real destination.
pub const HOST_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 1);

/// How long a name is remembered beyond the lifetime of the answer.
///
/// Clients keep answers for a time of their own, whatever the answer says: the JVM 30 seconds, browsers 60.
const GRACE: Duration = Duration::from_secs(60);
/// The longest lifetime that is believed.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);
/// How many pairs of name and address are kept; then the oldest go.
const PAIRS: usize = 100_000;
/// How many askers are kept; then the oldest go.
const ASKERS: usize = 8192;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The memory of names.
///
/// A pair of name and address is kept for the answer's lifetime and a minute, for clients keep answers for a time of
/// their own (the JVM 30 seconds, browsers 60). At most 100,000 pairs are kept; then the oldest go.
#[derive(Debug, Default)]
pub struct Names(Mutex<Memory>);

#[derive(Debug, Default)]
struct Memory {
    known: HashMap<IpAddr, Vec<Pair>>,
    /// The pairs that can be forgotten, oldest first; some may be forgotten already.
    order: VecDeque<(IpAddr, Arc<str>)>,
}

#[derive(Debug)]
struct Pair {
    name: Arc<str>,
    /// `None`: for good.
    until: Option<Instant>,
}

impl Pair {
    fn is_over(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| until < now)
    }
}

impl Names {
    /// Remembers that the box was given `address` for `name`, in an answer that may be kept for `lifetime`.
    pub fn learn(&self, name: &Arc<str>, address: IpAddr, lifetime: Duration) {
        let now = Instant::now();
        lock(&self.0).learn(name, address, Some(now + lifetime.min(LONGEST) + GRACE), now);
    }

    /// Remembers a pair until the run ends. Such pairs do not count against the bound.
    pub fn learn_for_good(&self, name: &Arc<str>, address: IpAddr) {
        lock(&self.0).learn(name, address, None, Instant::now());
    }

    /// The names that are remembered for `address`, oldest first. An IPv4-mapped address is the IPv4 address.
    pub fn of(&self, address: IpAddr) -> Vec<Arc<str>> {
        lock(&self.0).of(address, Instant::now())
    }
}

impl Memory {
    fn learn(&mut self, name: &Arc<str>, address: IpAddr, until: Option<Instant>, now: Instant) {
        let address = address.to_canonical();
        let pairs = self.known.entry(address).or_default();
        if let Some(pair) = pairs.iter_mut().find(|pair| pair.name == *name && !pair.is_over(now)) {
            // What is known for good, or for longer, stays so.
            pair.until = pair.until.and_then(|old| until.map(|new| old.max(new)));
            return;
        }
        pairs.retain(|pair| !pair.is_over(now));
        pairs.push(Pair { name: Arc::clone(name), until });
        if until.is_some() {
            self.order.push_back((address, Arc::clone(name)));
        }
        while self.order.len() > PAIRS {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some((address, name)) = self.order.pop_front() else { return };
        let Some(pairs) = self.known.get_mut(&address) else { return };
        pairs.retain(|pair| pair.until.is_none() || pair.name != name);
        if pairs.is_empty() {
            self.known.remove(&address);
        }
    }

    fn of(&self, address: IpAddr, now: Instant) -> Vec<Arc<str>> {
        let pairs = self.known.get(&address.to_canonical()).into_iter().flatten();
        pairs.filter(|pair| !pair.is_over(now)).map(|pair| Arc::clone(&pair.name)).collect()
    }
}

/// Which process speaks from which address of the box's own network, so that a question to the resolver can be put on
/// record with the program that asked it.
///
/// At most 8192 are kept; then the oldest go. A wrong or missing entry changes what a record says of the asker, never
/// what is decided.
#[derive(Debug, Default)]
pub struct Askers(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// The asker, and the number under which it stands in the order.
    askers: HashMap<Source, (u64, Arc<Subject>)>,
    /// Oldest first; those that were told of again stand here twice, and only the later number counts.
    order: VecDeque<(u64, Source)>,
    next: u64,
}

type Source = (Transport, SocketAddr);

impl Askers {
    /// Takes note that `subject` speaks from `from`, the local address of its socket after the connect.
    pub fn tell(&self, transport: Transport, from: SocketAddr, subject: Arc<Subject>) {
        let source = (transport, canonical(from));
        let mut known = lock(&self.0);
        let number = known.next;
        known.next += 1;
        known.askers.insert(source, (number, subject));
        known.order.push_back((number, source));
        while known.order.len() > ASKERS {
            known.forget_oldest();
        }
    }

    /// Who speaks from `from`, if that is known. A socket that was never connected is known by its port alone.
    pub fn of(&self, transport: Transport, from: SocketAddr) -> Option<Arc<Subject>> {
        let any = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
        let sources =
            [from.ip().to_canonical(), any[0], any[1]].map(|ip| (transport, SocketAddr::new(ip, from.port())));
        let known = lock(&self.0);
        sources.into_iter().find_map(|source| known.askers.get(&source).map(|(_, subject)| Arc::clone(subject)))
    }
}

impl Known {
    fn forget_oldest(&mut self) {
        let Some((number, source)) = self.order.pop_front() else { return };
        if self.askers.get(&source).is_some_and(|(latest, _)| *latest == number) {
            self.askers.remove(&source);
        }
    }
}

/// Without IPv4 in IPv6 dress, flow labels and scopes.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Arc<str> {
        text.into()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn names_are_given_oldest_first_and_each_once() {
        let names = Names::default();
        for text in ["b.example", "a.example", "b.example"] {
            names.learn(&name(text), ip("192.0.2.1"), Duration::from_secs(5));
        }
        names.learn(&name("c.example"), ip("::ffff:192.0.2.1"), Duration::ZERO);
        assert_eq!(names.of(ip("192.0.2.1")), ["b.example", "a.example", "c.example"].map(name));
        assert_eq!(names.of(ip("::ffff:192.0.2.1")).len(), 3);
        assert_eq!(names.of(ip("192.0.2.2")), []);
    }

    #[test]
    fn a_name_is_kept_for_its_lifetime_and_a_minute_and_extended_by_each_answer() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut memory = Memory::default();
        let until = |seconds: u32| Some(start + seconds * second + GRACE);
        memory.learn(&name("short"), ip("192.0.2.1"), until(0), start);
        memory.learn(&name("long"), ip("192.0.2.1"), until(10), start);
        assert_eq!(memory.of(ip("192.0.2.1"), start + 60 * second).len(), 2);
        assert_eq!(memory.of(ip("192.0.2.1"), start + 61 * second), [name("long")]);
        memory.learn(&name("long"), ip("192.0.2.1"), until(20), start + 10 * second);
        memory.learn(&name("long"), ip("192.0.2.1"), until(1), start + 11 * second);
        assert_eq!(memory.of(ip("192.0.2.1"), start + 80 * second), [name("long")]);
        assert_eq!(memory.of(ip("192.0.2.1"), start + 81 * second), []);
        memory.learn(&name("new"), ip("192.0.2.1"), until(90), start + 90 * second);
        assert_eq!(memory.known[&ip("192.0.2.1")].len(), 1, "what is over is dropped");
    }

    #[test]
    fn what_is_known_for_good_stays_so() {
        let start = Instant::now();
        let mut memory = Memory::default();
        memory.learn(&name("a"), ip("::1"), None, start);
        memory.learn(&name("a"), ip("::1"), Some(start), start);
        memory.learn(&name("b"), ip("::1"), Some(start), start);
        memory.learn(&name("b"), ip("::1"), None, start);
        assert_eq!(memory.of(ip("::1"), start + Duration::from_secs(1_000_000)), ["a", "b"].map(name));
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many() {
        let names = Names::default();
        names.learn_for_good(&name("kept"), ip("192.0.2.1"));
        for i in 0..PAIRS as u32 + 10 {
            names.learn(&name("flood"), IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + i)), Duration::from_secs(9));
        }
        let memory = lock(&names.0);
        assert_eq!(memory.order.len(), PAIRS);
        assert_eq!(memory.known.len(), PAIRS + 1);
        drop(memory);
        assert_eq!(names.of(ip("10.0.0.9")), []);
        assert_eq!(names.of(ip("10.0.0.10")), [name("flood")]);
        assert_eq!(names.of(ip("192.0.2.1")), [name("kept")]);
    }

    #[test]
    fn an_absurd_lifetime_is_cut() {
        let names = Names::default();
        names.learn(&name("a"), ip("192.0.2.1"), Duration::from_secs(u64::MAX));
        assert_eq!(names.of(ip("192.0.2.1")), [name("a")]);
    }

    #[test]
    fn an_asker_is_known_by_its_address_or_by_its_port() {
        let askers = Askers::default();
        let subject = |pid| Arc::new(Subject { pid, ..Subject::default() });
        let udp = Transport::Udp;
        let at = |text: &str| -> SocketAddr { text.parse().unwrap() };
        askers.tell(udp, at("127.0.0.1:50001"), subject(1));
        askers.tell(udp, at("[::ffff:127.0.0.1]:50002"), subject(2));
        askers.tell(udp, at("[::]:50003"), subject(3));
        let pid = |from| askers.of(udp, at(from)).map(|subject| subject.pid);
        assert_eq!(pid("127.0.0.1:50001"), Some(1));
        assert_eq!(pid("127.0.0.1:50002"), Some(2));
        assert_eq!(pid("127.0.0.1:50003"), Some(3));
        assert_eq!(pid("[::1]:50001"), None);
        assert!(askers.of(Transport::Tcp, at("127.0.0.1:50001")).is_none());
        askers.tell(udp, at("127.0.0.1:50001"), subject(4));
        for port in 1..ASKERS as u16 {
            askers.tell(udp, SocketAddr::new(ip("127.0.0.1"), port), subject(5));
        }
        assert_eq!(pid("127.0.0.1:50002"), None);
        assert_eq!(pid("127.0.0.1:50001"), Some(4), "told of again");
        assert_eq!(lock(&askers.0).askers.len(), ASKERS);
    }
}
