//! The addresses of a host that agentbox itself is to reach, by the host's own `hosts` file and resolvers.
//!
//! Main process, in the host's network; nothing that a box asks comes here. libc's way would load libraries into a
//! static program.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::time::Duration;

use super::message::Query;
use super::upstream::{Upstream, parse_hosts, read_text};

const HOSTS: &str = "/etc/hosts";
const SERVERS: &str = "/etc/resolv.conf";
const TYPES: [u16; 2] = [1, 28]; // A, AAAA

/// Looks names up.
#[derive(Debug)]
pub struct Lookup {
    limit: Duration,
}

impl Lookup {
    /// Waits for no more than `limit` in all.
    pub fn new(limit: Duration) -> Self {
        Self { limit }
    }

    /// The addresses of `host`: a name, or an address as it stands in a URL. None where there are none.
    pub fn addresses(&self, host: &str) -> Vec<IpAddr> {
        let host = host.trim_matches(['[', ']']).trim_end_matches('.').to_ascii_lowercase();
        if let Ok(address) = host.parse() {
            return vec![address];
        }
        let listed = parse_hosts(&read_text(Path::new(HOSTS)).unwrap_or_default());
        let listed: Vec<IpAddr> = listed.into_iter().filter(|(name, _)| *name == host).map(|(_, ip)| ip).collect();
        if !listed.is_empty() {
            return listed;
        }
        if host == "localhost" || host.ends_with(".localhost") {
            return vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        }
        self.asked(&host).unwrap_or_default()
    }

    fn asked(&self, host: &str) -> Option<Vec<IpAddr>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
        let upstream = Upstream::new(Path::new(SERVERS)).ok()?;
        let names = candidates(host, &read_text(Path::new(SERVERS)).unwrap_or_default());
        let found = async {
            for name in names {
                let mut found = Vec::new();
                for kind in TYPES {
                    found.extend(ask(&upstream, &name, kind).await.unwrap_or_default());
                }
                if !found.is_empty() {
                    return found;
                }
            }
            Vec::new()
        };
        runtime.block_on(async { tokio::time::timeout(self.limit, found).await }).ok()
    }
}

/// The names that a short one may stand for, by the search list of `resolv.conf(5)`.
fn candidates(host: &str, servers: &str) -> Vec<String> {
    let mut suffixes = Vec::new();
    for line in servers.lines() {
        let mut words = line.split_whitespace();
        if matches!(words.next(), Some("search" | "domain")) {
            suffixes = words.take(6).map(|suffix| format!("{host}.{}", suffix.trim_end_matches('.'))).collect();
        }
    }
    // A name with a dot is most likely whole.
    let first = if host.contains('.') { 0 } else { suffixes.len() };
    suffixes.insert(first, host.to_string());
    suffixes
}

async fn ask(upstream: &Upstream, name: &str, kind: u16) -> Option<Vec<IpAddr>> {
    let query = Query::parse(&question(name, kind)?).ok()?;
    for stream in [false, true] {
        let (id, packet) = upstream.ask(&query, stream).await.ok()?;
        let answer = query.read_answer(id, &packet)?;
        if answer.is_whole() {
            return Some(answer.addresses().into_iter().map(|(ip, _)| ip).collect());
        }
    }
    None
}

/// A question as a message: one name, class IN, recursion wanted.
fn question(name: &str, kind: u16) -> Option<Vec<u8>> {
    let mut message = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length))?;
        message.push(length);
        message.extend(label.bytes());
    }
    message.push(0);
    message.extend(kind.to_be_bytes());
    message.extend([0, 1]);
    (name.len() <= 253).then_some(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_without_asking_where_nobody_need_be_asked() {
        let lookup = Lookup::new(Duration::from_millis(1));
        assert_eq!(lookup.addresses("[::1]"), [IpAddr::V6(Ipv6Addr::LOCALHOST)]);
        assert_eq!(lookup.addresses("192.0.2.7"), ["192.0.2.7".parse::<IpAddr>().unwrap()]);
        assert!(lookup.addresses("LocalHost.").iter().all(IpAddr::is_loopback));
        assert!(!lookup.addresses("x.localhost").is_empty());
        assert!(lookup.addresses("a..b").is_empty() && lookup.addresses(&"a".repeat(64)).is_empty());
    }

    #[test]
    fn a_question_is_one_and_short_names_are_searched() {
        let query = Query::parse(&question("otel.example.org", 28).unwrap()).unwrap();
        assert_eq!(query.kind, 28);
        assert_eq!(query.name(), super::super::message::Spelled::Host("otel.example.org".into()));
        let servers = "nameserver 127.0.0.1\nsearch a.example. b.example\n";
        assert_eq!(candidates("otel", servers), ["otel.a.example", "otel.b.example", "otel"]);
        assert_eq!(candidates("otel.ns", servers)[0], "otel.ns");
    }
}
