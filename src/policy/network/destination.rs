//! The grammar of a network rule: `[tcp://|udp://|icmp://]HOST[:PORTS]`. Pure text: nothing is looked up.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::host_name::{HostName, HostNameError};
use super::reserved;
use super::subnet::Subnet;
use crate::event::{HOST_NAME, Transport};

/// What a rule speaks of: hosts, what carries the data, and ports.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Destination {
    /// Which hosts.
    pub host: Host,
    /// What carries it.
    pub transport: Transport,
    /// Which ports; all for ICMP, which has none.
    pub ports: Ports,
}

/// Which hosts a rule speaks of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// `*`: every host outside of the box but those that only an explicit rule opens, and the host it runs on.
    Any,
    /// `example.org`: this name alone.
    Name(HostName),
    /// `*.example.org`: every name below this one, and not this one.
    Below(HostName),
    /// `192.0.2.1`, `10.0.0.0/8`, `2001:db8::/32`.
    Subnet(Subnet),
}

/// Why a text is no network rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DestinationError {
    /// Nothing in it.
    #[error("the rule is empty: write a host, as in `example.org:443`, or `*` for any")]
    Empty,
    /// `https://example.org/x`.
    #[error("a rule names a host and ports, not a URL: write `{hint}`")]
    Url {
        /// What was probably meant.
        hint: String,
    },
    /// `example.org/x`.
    #[error("a rule names a host and ports, not a path: write `{hint}`")]
    Path {
        /// The rule without it.
        hint: String,
    },
    /// No host name.
    #[error(transparent)]
    Name(#[from] HostNameError),
    /// `.example.org`.
    #[error("a name does not start with a dot: write `*{0}` for all names below")]
    LeadingDot(String),
    /// Something with more than one colon that is no IPv6 address.
    #[error(
        "`{0}` is neither one host with ports nor an IPv6 address, which goes in brackets with ports: \
         `[2001:db8::1]:443`"
    )]
    Colons(String),
    /// Brackets around something else, or behind an address.
    #[error("brackets hold an IPv6 address or network, and ports come after them: `[2001:db8::/32]:443`")]
    Brackets,
    /// `fe80::1%eth0`.
    #[error("an address in a rule names no interface: leave out `%{0}`")]
    Interface(String),
    /// `10.0.0.0/33`.
    #[error("`/{prefix}` is not a length of a network prefix: write /0 to /{most}")]
    Prefix {
        /// As written.
        prefix: String,
        /// The longest there is.
        most: u8,
    },
    /// `10.0.0.5/8`.
    #[error("the address has bits beyond its prefix: write `{0}` for the network, or the address alone")]
    HostBits(Subnet),
    /// `localhost`, `127.0.0.1`.
    #[error(
        "loopback in a box is the box's own and always open: to reach a service on this machine, write \
         `{HOST_NAME}:{ports}`"
    )]
    Loopback {
        /// As written, or `PORT`.
        ports: String,
    },
    /// No port, or no number from 1 to 65535.
    #[error("{} is no port: write numbers from 1 to 65535, as in `443,9000-9100`, or no `:` for any port", quoted(.0))]
    Port(String),
    /// `90-80`.
    #[error("`{0}-{1}` runs backwards and holds nothing: write `{1}-{0}`")]
    Backwards(u16, u16),
    /// `icmp://example.org:7`.
    #[error("icmp has no ports: write `icmp://{0}`")]
    IcmpPort(String),
}

/// What is quoted in a message; control characters are escaped.
pub(super) fn quoted(text: &str) -> String {
    if text.is_empty() { "nothing".into() } else { format!("`{}`", text.escape_debug()) }
}

impl Destination {
    /// Reads a rule.
    pub fn parse(text: &str) -> Result<Self, DestinationError> {
        let (transport, rest) = transport(text)?;
        let (host, ports) = split(rest)?;
        if host.is_empty() && ports.is_none() {
            return Err(DestinationError::Empty);
        }
        if let (Transport::Icmp, Some(_)) = (transport, ports) {
            return Err(DestinationError::IcmpPort(host.into()));
        }
        let host = Host::parse(host, ports)?;
        let ports = ports.map_or(Ok(Ports::all()), Ports::parse)?;
        Ok(Self { host, transport, ports })
    }

    /// Whether it speaks of this port by this transport, whatever the host.
    pub fn covers(&self, transport: Transport, port: u16) -> bool {
        self.transport == transport && (transport == Transport::Icmp || self.ports.contains(port))
    }
}

/// Takes the prefix that says what carries the data.
fn transport(text: &str) -> Result<(Transport, &str), DestinationError> {
    let Some((scheme, rest)) = text.split_once("://") else { return Ok((Transport::Tcp, text)) };
    match scheme {
        "tcp" => Ok((Transport::Tcp, rest)),
        "udp" => Ok((Transport::Udp, rest)),
        "icmp" => Ok((Transport::Icmp, rest)),
        _ => Err(DestinationError::Url { hint: meant_by_url(scheme, rest) }),
    }
}

/// The rule that comes nearest to a URL.
fn meant_by_url(scheme: &str, rest: &str) -> String {
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    let port = match scheme.to_ascii_lowercase().as_str() {
        "https" | "wss" => ":443",
        "http" | "ws" => ":80",
        "ssh" | "sftp" => ":22",
        "ftp" => ":21",
        "git" => ":9418",
        "postgres" | "postgresql" => ":5432",
        _ => "",
    };
    let has_port = host.rsplit(']').next().unwrap_or_default().contains(':');
    match host {
        "" => "example.org:443".into(),
        _ if has_port => host.into(),
        _ => format!("{host}{port}"),
    }
}

/// Splits host and ports; brackets around IPv6 are taken off.
fn split(text: &str) -> Result<(&str, Option<&str>), DestinationError> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, behind) = rest.split_once(']').ok_or(DestinationError::Brackets)?;
        let ports = match behind {
            "" => None,
            _ => Some(behind.strip_prefix(':').ok_or(DestinationError::Brackets)?),
        };
        return if host.contains(':') { Ok((host, ports)) } else { Err(DestinationError::Brackets) };
    }
    let Some((host, ports)) = text.split_once(':') else { return Ok((text, None)) };
    if ports.contains(':') {
        return Ok((text, None));
    }
    match ports.find('/') {
        Some(slash) => Err(DestinationError::Path { hint: format!("{host}:{}", &ports[..slash]) }),
        None => Ok((host, Some(ports))),
    }
}

impl Host {
    /// Reads a host; `ports` is what was written behind it.
    fn parse(text: &str, ports: Option<&str>) -> Result<Self, DestinationError> {
        if matches!(text, "" | "*") {
            return Ok(Self::Any);
        }
        if let Some(subnet) = subnet(text)? {
            return if reserved::is_own(subnet) { Err(loopback(ports)) } else { Ok(Self::Subnet(subnet)) };
        }
        let host = match text.strip_prefix("*.") {
            Some(name) => Self::Below(HostName::new(name)?),
            None if text.starts_with('.') && HostName::new(&text[1..]).is_ok() => {
                return Err(DestinationError::LeadingDot(text.into()));
            }
            None => Self::Name(HostName::new(text)?),
        };
        match &host {
            // RFC 6761: `localhost` and all names below it.
            Self::Name(name) | Self::Below(name) if name.as_str().rsplit('.').next() == Some("localhost") => {
                Err(loopback(ports))
            }
            _ => Ok(host),
        }
    }
}

fn loopback(ports: Option<&str>) -> DestinationError {
    DestinationError::Loopback { ports: ports.unwrap_or("PORT").into() }
}

/// Reads an address or a network; `None` if it looks like a name.
fn subnet(text: &str) -> Result<Option<Subnet>, DestinationError> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let address = if address.contains(':') {
        if let Some((_, interface)) = address.split_once('%') {
            return Err(DestinationError::Interface(interface.into()));
        }
        IpAddr::V6(address.parse::<Ipv6Addr>().map_err(|_| DestinationError::Colons(text.into()))?)
    } else {
        match (address.parse::<Ipv4Addr>(), prefix) {
            (Ok(v4), _) => IpAddr::V4(v4),
            (Err(_), None) => return Ok(None),
            (Err(_), Some(_)) => {
                // `10.0/8` says that it is a number, `example.org/x` that a path is too much.
                HostName::new(address)?;
                return Err(DestinationError::Path { hint: address.into() });
            }
        }
    };
    let Some(prefix) = prefix else { return Ok(Some(Subnet::of(address))) };
    let most = if address.is_ipv4() { 32 } else { 128 };
    let wrong = || {
        if address.is_ipv6() && prefix.contains(':') {
            return DestinationError::Colons(text.into());
        }
        DestinationError::Prefix { prefix: prefix.escape_debug().to_string(), most }
    };
    let length = number(prefix).filter(|length| *length <= u16::from(most)).ok_or_else(wrong)?;
    Subnet::new(address, length as u8).map(Some).map_err(DestinationError::HostBits)
}

/// Reads digits and nothing else.
fn number(text: &str) -> Option<u16> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// A set of ports.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Ports(
    /// First and last of each range; ascending, and none touches the next.
    Vec<(u16, u16)>,
);

impl Ports {
    /// Every port.
    pub fn all() -> Self {
        Self(vec![(0, u16::MAX)])
    }

    /// Reads `443,8443,9000-9100`.
    fn parse(text: &str) -> Result<Self, DestinationError> {
        text.split(',').map(range).collect::<Result<Vec<_>, _>>().map(Self::of)
    }

    fn of(mut ranges: Vec<(u16, u16)>) -> Self {
        ranges.sort_unstable();
        let mut merged: Vec<(u16, u16)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match merged.last_mut() {
                Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
                _ => merged.push((first, last)),
            }
        }
        // Nobody can write port 0, so all that can be written is all there is.
        if merged == [(1, u16::MAX)] { Self::all() } else { Self(merged) }
    }

    /// Whether `port` is among them.
    pub fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|(first, last)| (*first..=*last).contains(&port))
    }

    /// Whether all of them are in the sets of `others` taken together.
    pub fn are_within<'a>(&self, others: impl Iterator<Item = &'a Ports>) -> bool {
        let together = Self::of(others.flat_map(|other| other.0.iter().copied()).collect());
        let covered = |(first, last): &(u16, u16)| together.0.iter().any(|(from, to)| from <= first && last <= to);
        self.0.iter().all(covered)
    }

    /// The port, if it is one alone.
    pub fn single(&self) -> Option<u16> {
        match self.0.as_slice() {
            [(first, last)] if first == last => Some(*first),
            _ => None,
        }
    }

    /// Whether it is every port.
    pub fn is_all(&self) -> bool {
        self.0 == [(0, u16::MAX)]
    }
}

fn range(text: &str) -> Result<(u16, u16), DestinationError> {
    let port = |part: &str| number(part).filter(|port| *port > 0).ok_or_else(|| DestinationError::Port(text.into()));
    match text.split_once('-') {
        None => port(text).map(|port| (port, port)),
        Some((first, last)) => match (port(first)?, port(last)?) {
            (first, last) if first > last => Err(DestinationError::Backwards(first, last)),
            ordered => Ok(ordered),
        },
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (first, last)) in self.0.iter().enumerate() {
            f.write_str(if at == 0 { "" } else { "," })?;
            if first == last { write!(f, "{first}") } else { write!(f, "{first}-{last}") }?;
        }
        Ok(())
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Name(name) => write!(f, "{name}"),
            Self::Below(name) => write!(f, "*.{name}"),
            Self::Subnet(subnet) => write!(f, "{subnet}"),
        }
    }
}

/// The rule as it is normalised; it reads as the same rule again.
impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.transport != Transport::Tcp {
            write!(f, "{}://", self.transport)?;
        }
        match &self.host {
            host if self.ports.is_all() => write!(f, "{host}"),
            Host::Subnet(subnet) if !subnet.is_ipv4() => write!(f, "[{subnet}]:{}", self.ports),
            host => write!(f, "{host}:{}", self.ports),
        }
    }
}
