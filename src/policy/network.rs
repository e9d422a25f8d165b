//! Network rules: what may be reached, and which ports of the box are reached from outside.
//!
//! A rule is read once (`destination`) and filed by what it speaks of, so that what a question costs does not grow with the
//! number of rules. Pure: no name is looked up and no socket opened.

mod destination;
mod host_name;
pub mod reserved;
mod subnet;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use super::{NetworkMode, Root};
use crate::event::RuleId;
use destination::quoted;

pub use destination::{Destination, DestinationError, Host, Ports};
pub use host_name::{HostName, HostNameError};
pub use subnet::Subnet;

/// What a run may reach, and from where it is reached.
#[derive(Debug, Clone)]
pub struct Network {
    /// The mode.
    pub mode: NetworkMode,
    /// The rule that chose it.
    pub rule: RuleId,
    /// What may be reached in mode rules; empty in the others.
    pub allow: Destinations,
    /// What may not, whatever `allow` says; empty in the other modes.
    pub deny: Destinations,
    /// Socket files of the host that may be connected to.
    pub unix: Vec<Root>,
    /// Ports of the box that are reached from outside.
    pub publish: Vec<Publish>,
}

impl Network {
    /// A network in this mode and without a rule.
    pub fn new(mode: NetworkMode, rule: RuleId) -> Self {
        let (allow, deny) = (Destinations::default(), Destinations::default());
        Self { mode, rule, allow, deny, unix: Vec::new(), publish: Vec::new() }
    }
}

/// One network rule.
#[derive(Debug, Clone)]
pub struct NetworkRule {
    /// What it speaks of.
    pub to: Destination,
    /// Where it stands.
    pub rule: RuleId,
    /// Its own words.
    pub message: Option<Arc<str>>,
}

/// A list of rules, filed by host.
///
/// A question asks the exact name, each name above it, and the address at each prefix length that occurs, whatever the
/// number of rules.
#[derive(Debug, Clone, Default)]
pub struct Destinations {
    rules: Vec<NetworkRule>,
    names: HashMap<Arc<str>, Vec<u32>>,
    below: HashMap<Arc<str>, Vec<u32>>,
    subnets: HashMap<Subnet, Vec<u32>>,
    /// The prefix lengths that occur, longest first: IPv4 and IPv6.
    lengths: [Vec<u8>; 2],
    any: Vec<u32>,
}

impl Destinations {
    /// Files `rules`.
    pub fn new(rules: Vec<NetworkRule>) -> Self {
        let mut filed = Self { rules, ..Self::default() };
        for (at, rule) in filed.rules.iter().enumerate() {
            let at = at as u32;
            match &rule.to.host {
                Host::Any => filed.any.push(at),
                Host::Name(name) => filed.names.entry(name.shared()).or_default().push(at),
                Host::Below(name) => filed.below.entry(name.shared()).or_default().push(at),
                Host::Subnet(subnet) => filed.subnets.entry(*subnet).or_default().push(at),
            }
        }
        for subnet in filed.subnets.keys() {
            filed.lengths[usize::from(!subnet.is_ipv4())].push(subnet.prefix());
        }
        for lengths in &mut filed.lengths {
            lengths.sort_unstable_by(|a, b| b.cmp(a));
            lengths.dedup();
        }
        filed
    }

    /// As written.
    pub fn iter(&self) -> std::slice::Iter<'_, NetworkRule> {
        self.rules.iter()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The rules with exactly this name.
    pub fn exactly(&self, name: &str) -> impl Iterator<Item = &NetworkRule> {
        self.at(self.names.get(name))
    }

    /// The rules that speak of `name` by a name: the exact ones, then by wildcard, the nearest first.
    pub fn by_name<'a>(&'a self, name: &'a HostName) -> impl Iterator<Item = &'a NetworkRule> {
        let below = name.above().flat_map(|above| self.at(self.below.get(above)));
        self.exactly(name.as_str()).chain(below)
    }

    /// The rules that speak of `address` by an address or a network, the narrowest first.
    pub fn by_address(&self, address: IpAddr) -> impl Iterator<Item = &NetworkRule> {
        let address = address.to_canonical();
        let lengths = &self.lengths[usize::from(address.is_ipv6())];
        lengths.iter().flat_map(move |length| self.at(self.subnets.get(&Subnet::around(address, *length))))
    }

    /// The rules for any host.
    pub fn for_any_host(&self) -> impl Iterator<Item = &NetworkRule> {
        self.at(Some(&self.any))
    }

    /// The rule that leaves nothing of `to`, if one by itself does.
    pub fn covering<'a>(&'a self, to: &'a Destination) -> Option<&'a NetworkRule> {
        let mut around: Vec<&NetworkRule> = match &to.host {
            Host::Any => Vec::new(),
            Host::Name(name) => self.by_name(name).collect(),
            Host::Below(name) => std::iter::once(name.as_str())
                .chain(name.above())
                .flat_map(|top| self.at(self.below.get(top)))
                .collect(),
            Host::Subnet(subnet) => {
                let around = |rule: &&NetworkRule| matches!(rule.to.host, Host::Subnet(own) if subnet.lies_in(own));
                self.by_address(subnet.address()).filter(around).collect()
            }
        };
        around.extend(self.for_any_host());
        let ports = |rule: &NetworkRule| to.ports.are_within(std::iter::once(&rule.to.ports));
        around.into_iter().find(|rule| rule.to.transport == to.transport && ports(rule))
    }

    fn at<'a>(&'a self, numbers: Option<&'a Vec<u32>>) -> impl Iterator<Item = &'a NetworkRule> {
        numbers.into_iter().flatten().map(|at| &self.rules[*at as usize])
    }
}

/// A port of the box that is reached from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    /// The address on the host; port 0 stands for one that is free.
    pub host: SocketAddr,
    /// The port in the box.
    pub port: u16,
    /// Where it was asked for.
    pub rule: RuleId,
}

/// Why a text is no published port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// Not of the form.
    #[error("a published port is written `8000`, `8000:80` (host, box) or `127.0.0.1:8000:80`")]
    Form,
    /// No port number.
    #[error("{} is no port: write a number from 1 to 65535; on the host 0 stands for one that is free", quoted(.0))]
    Port(String),
    /// Something else than an address in front.
    #[error("`{0}` is no address of this machine: write one, as in `127.0.0.1:8000:80` or `[::1]:8000:80`")]
    Address(String),
}

impl Publish {
    /// Reads `[ADDRESS:]PORT[:PORT]`; without an address the port is published on the host's loopback alone, and without a
    /// second port it is the same in the box.
    pub fn parse(text: &str, rule: RuleId) -> Result<Self, PublishError> {
        let (address, ports) = address_and_ports(text)?;
        let (host, inside) = match ports.split_once(':') {
            Some((host, inside)) => (host, inside),
            None => (ports, ports),
        };
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            text.parse::<u16>().ok().filter(|_| digits).ok_or_else(|| PublishError::Port(text.into()))
        };
        let (host, port) = (number(host)?, number(inside)?);
        if port == 0 {
            return Err(PublishError::Port(inside.into()));
        }
        Ok(Self { host: SocketAddr::new(address, host), port, rule })
    }

    /// Whether it is what `at` on the host leads to.
    pub fn leads(&self, at: SocketAddr, port: u16) -> bool {
        let same_address = self.host.ip() == at.ip() || self.host.ip().is_unspecified();
        let same_port = self.host.port() == at.port() || self.host.port() == 0;
        same_address && same_port && self.port == port
    }
}

fn address_and_ports(text: &str) -> Result<(IpAddr, &str), PublishError> {
    let wrong = |text: &str| PublishError::Address(text.escape_debug().to_string());
    if let Some(rest) = text.strip_prefix('[') {
        let (address, ports) = rest.split_once("]:").ok_or(PublishError::Form)?;
        let address = address.parse().map_err(|_| wrong(address))?;
        return Ok((IpAddr::V6(address), ports));
    }
    match text.matches(':').count() {
        0 | 1 if !text.contains('.') => Ok((IpAddr::V4(Ipv4Addr::LOCALHOST), text)),
        1 | 2 => {
            let (address, ports) = text.split_once(':').ok_or(PublishError::Form)?;
            Ok((IpAddr::V4(address.parse().map_err(|_| wrong(address))?), ports))
        }
        _ => Err(PublishError::Form),
    }
}
