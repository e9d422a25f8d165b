//! Decisions about addresses outside of the box, names and published ports.
//!
//! The order: deny rules, then what only an explicit rule opens, then allow rules, then no. A name counts for an address
//! only if the box was given the address for it, so an answer to one name opens nothing by another.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::{granted, verdict};
use crate::event::{Access, Effect, Endpoint, HOST_NAME, Question, Reason, RuleId, Transport, Verdict, Visit};
use crate::policy::fix::{Before, Fix};
use crate::policy::network::reserved::Reserved;
use crate::policy::network::{Destinations, Host, HostName, Network, NetworkRule, Subnet};
use crate::policy::{NetworkMode, Policy};

/// Where name servers listen.
const DNS_PORT: u16 = 53;

/// An address outside, and the names that the box was given it for.
struct Target {
    ip: IpAddr,
    names: Vec<HostName>,
    /// Whether it is the loopback of the host.
    loopback: bool,
}

impl Target {
    fn new(address: SocketAddr, names: &[Arc<str>]) -> Self {
        let ip = address.ip().to_canonical();
        let names = names.iter().filter_map(|name| HostName::new(name).ok()).collect();
        Self { ip, names, loopback: ip.is_loopback() }
    }

    /// Whether the box came to it by the name that stands for the host's loopback, and for nothing else.
    fn is_host(&self) -> bool {
        self.loopback && self.names.iter().any(|name| name.as_str() == HOST_NAME)
    }

    /// The kind of address that only an explicit rule opens, if it is of one.
    fn reserved(&self) -> Option<&'static Reserved> {
        Reserved::of(self.ip).filter(|_| !self.is_host())
    }
}

/// Judges a connection or a datagram to an address outside.
pub(super) fn reach(policy: &Policy, address: SocketAddr, transport: Transport, names: &[Arc<str>]) -> Verdict {
    let network = &policy.network;
    if let Some(verdict) = by_mode(network) {
        return verdict;
    }
    let target = Target::new(address, names);
    let covers = |rule: &&NetworkRule| rule.to.covers(transport, address.port());
    if let Some(rule) = denying(&network.deny, &target).find(covers) {
        return denied(rule);
    }
    let found = allowing(&network.allow, &target).into_iter().find(covers);
    found.map_or_else(|| refused(network, &target, transport, address.port()), |rule| granted(&rule.rule))
}

/// Judges a question about the way to an address: any rule that allows something there allows it.
pub(super) fn route(policy: &Policy, address: SocketAddr, transport: Transport, names: &[Arc<str>]) -> Verdict {
    let network = &policy.network;
    if let Some(verdict) = by_mode(network) {
        return verdict;
    }
    let target = Target::new(address, names);
    let (denies, allows) = (denying(&network.deny, &target).collect::<Vec<_>>(), allowing(&network.allow, &target));
    match (still_open(&allows, &denies), closing(&allows, &denies)) {
        (Some(rule), _) => granted(&rule.rule),
        (None, Some(rule)) => denied(rule),
        (None, None) => refused(network, &target, transport, address.port()),
    }
}

/// Judges a question for a name: it is answered if a rule by name, or one for any host, leaves something open there.
pub(super) fn resolve(policy: &Policy, question: &Question) -> Verdict {
    let network = &policy.network;
    if let Some(verdict) = by_mode(network) {
        return verdict;
    }
    let not_granted = || verdict(Effect::Deny, &network.rule, Reason::NotGranted, None);
    let Ok(name) = HostName::new(&question.name) else { return not_granted() };
    let allows: Vec<_> = allowing_name(&network.allow, &name).collect();
    let denies: Vec<_> = network.deny.by_name(&name).chain(network.deny.for_any_host()).collect();
    let whole = || denies.iter().find(|rule| rule.to.ports.is_all()).copied();
    match (still_open(&allows, &denies), closing(&allows, &denies).or_else(whole)) {
        (Some(rule), _) => granted(&rule.rule),
        (None, Some(rule)) => denied(rule),
        (None, None) => not_granted(),
    }
}

/// Judges a connection from outside: only what is published leads in.
pub(super) fn accept(policy: &Policy, visit: &Visit) -> Verdict {
    let network = &policy.network;
    match network.publish.iter().find(|publish| publish.leads(visit.at, visit.port)) {
        Some(publish) => granted(&publish.rule),
        None => verdict(Effect::Deny, &network.rule, Reason::NotGranted, None),
    }
}

/// Judges taking an address that others than the box could reach.
pub(super) fn bind(policy: &Policy) -> Verdict {
    const MESSAGE: &str = "a box is reached from outside by its published ports alone, which lead to its loopback";
    let network = &policy.network;
    by_mode(network).unwrap_or_else(|| verdict(Effect::Deny, &network.rule, Reason::NotGranted, Some(&MESSAGE.into())))
}

/// The answer of a mode that has no rules.
fn by_mode(network: &Network) -> Option<Verdict> {
    match network.mode {
        NetworkMode::Host => Some(granted(&network.rule)),
        NetworkMode::None => Some(verdict(Effect::Deny, &network.rule, Reason::NoNetwork, None)),
        NetworkMode::Rules => None,
    }
}

fn denied(rule: &NetworkRule) -> Verdict {
    verdict(Effect::Deny, &rule.rule, Reason::DenyRule, rule.message.as_ref())
}

/// The refusal where no allow rule speaks of it.
fn refused(network: &Network, target: &Target, transport: Transport, port: u16) -> Verdict {
    let Some(kind) = target.reserved() else {
        return verdict(Effect::Deny, &network.rule, Reason::NotGranted, None);
    };
    let rule = RuleId::new("built-in", kind.name);
    let wanted = opened_by(target).map(|host| written(transport, &host, port));
    let how = match wanted {
        Some(wanted) if target.loopback => {
            format!("it is reached by the name {HOST_NAME}, where a rule says `{wanted}`")
        }
        Some(wanted) => format!("only a rule for the address itself opens it, such as `{wanted}`"),
        None => "no rule opens it".into(),
    };
    let message = format!("{} is {}: {how}", target.ip, kind.what);
    verdict(Effect::Deny, &rule, Reason::NotGranted, Some(&message.into()))
}

/// The deny rules that speak of the target: by address, also the IPv4 one that packets may be carried to, by any of its
/// names, or for any host.
fn denying<'a>(deny: &'a Destinations, target: &'a Target) -> impl Iterator<Item = &'a NetworkRule> {
    let carried = Subnet::of(target.ip).embedded().map(|subnet| subnet.address());
    let addresses = [Some(target.ip), carried].into_iter().flatten();
    let by_address = addresses.flat_map(|ip| deny.by_address(ip));
    by_address.chain(target.names.iter().flat_map(|name| deny.by_name(name))).chain(deny.for_any_host())
}

/// The allow rules that speak of the target, those by address first.
fn allowing<'a>(allow: &'a Destinations, target: &'a Target) -> Vec<&'a NetworkRule> {
    if target.is_host() {
        return allow.exactly(HOST_NAME).collect();
    }
    let by_address = allow.by_address(target.ip);
    if let Some(kind) = target.reserved() {
        let explicit = |rule: &&NetworkRule| matches!(rule.to.host, Host::Subnet(subnet) if kind.holds(subnet));
        return by_address.filter(explicit).filter(|_| kind.can_be_opened()).collect();
    }
    let names = target.names.iter().filter(|name| name.as_str() != HOST_NAME);
    by_address.chain(names.flat_map(|name| allow.by_name(name))).chain(allow.for_any_host()).collect()
}

/// The allow rules that speak of a name. No wildcard takes in the host.
fn allowing_name<'a>(allow: &'a Destinations, name: &'a HostName) -> impl Iterator<Item = &'a NetworkRule> {
    let host = name.as_str() == HOST_NAME;
    let exact = allow.exactly(name.as_str());
    let wide = allow.by_name(name).chain(allow.for_any_host()).filter(move |_| !host);
    exact.filter(move |_| host).chain(wide)
}

/// The first allow rule that the deny rules leave something of.
fn still_open<'a>(allows: &[&'a NetworkRule], denies: &[&NetworkRule]) -> Option<&'a NetworkRule> {
    allows.iter().copied().find(|allow| !is_covered(allow, denies))
}

/// The first deny rule that takes from an allow rule.
fn closing<'a>(allows: &[&NetworkRule], denies: &[&'a NetworkRule]) -> Option<&'a NetworkRule> {
    let takes = |deny: &&&NetworkRule| allows.iter().any(|allow| allow.to.transport == deny.to.transport);
    denies.iter().find(takes).copied()
}

fn is_covered(allow: &NetworkRule, denies: &[&NetworkRule]) -> bool {
    let same = denies.iter().filter(|deny| deny.to.transport == allow.to.transport);
    allow.to.ports.are_within(same.map(|deny| &deny.to.ports))
}

/// The rule that would open it.
pub(super) fn remedy(policy: &Policy, access: &Access) -> Option<Fix> {
    let before = match policy.network.mode {
        NetworkMode::None if *policy.network.rule.0 == *"command line --net none" => Before::NoneByFlag,
        NetworkMode::None => Before::None,
        NetworkMode::Rules | NetworkMode::Host => Before::Rules,
    };
    match access {
        Access::Connect { to } | Access::Send { to } | Access::Route { to } => {
            let Endpoint::Inet { address, transport, names, .. } = to else { return None };
            let target = Target::new(*address, names);
            if policy.network.mode == NetworkMode::None && address.port() == DNS_PORT {
                // A rule for the name server would open nothing: with rules, names are looked up for the box.
                return Some(Fix::Names);
            }
            Some(Fix::Reach { rule: written(*transport, &opened_by(&target)?, address.port()), before })
        }
        Access::Resolve(question) => Some(Fix::Reach { rule: HostName::new(&question.name).ok()?.to_string(), before }),
        Access::Accept(visit) => Some(Fix::Publish { port: format!("{}:{}", visit.at, visit.port), before }),
        Access::File { .. } | Access::Move { .. } | Access::Exec(_) => None,
        Access::Bind { .. } | Access::Signal(_) | Access::Call { .. } => None,
    }
}

/// The narrowest host in a rule that opens the target: the last name that the box was given it for, or the address; `None`
/// if nothing does.
fn opened_by(target: &Target) -> Option<String> {
    if target.loopback {
        return Some(HOST_NAME.into());
    }
    if let Some(kind) = target.reserved() {
        return kind.can_be_opened().then(|| target.ip.to_string());
    }
    let name = target.names.iter().rfind(|name| name.as_str() != HOST_NAME);
    Some(name.map_or_else(|| target.ip.to_string(), |name| name.to_string()))
}

/// A rule as one would write it; port 0 stands for any.
fn written(transport: Transport, host: &str, port: u16) -> String {
    let prefix = if transport == Transport::Tcp { String::new() } else { format!("{transport}://") };
    match (host, port) {
        (_, 0) => format!("{prefix}{host}"),
        _ if transport == Transport::Icmp => format!("{prefix}{host}"),
        _ if host.contains(':') => format!("{prefix}[{host}]:{port}"),
        _ => format!("{prefix}{host}:{port}"),
    }
}
