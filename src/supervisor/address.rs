//! Socket addresses: taken apart as the kernel does, and put together again from what was judged.

use std::ffi::CString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// An address, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed {
    /// IPv4 or IPv6.
    Inet(Inet),
    /// A unix socket with a name in the file system.
    Path(CString),
    /// A unix socket with an abstract name, or with none.
    Abstract(Vec<u8>),
    /// `AF_UNSPEC`.
    Unspecified,
    /// Netlink.
    Netlink,
    /// Any other family.
    Other(u16),
}

/// An IP address and port in the form in which they were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inet {
    /// An IPv4-mapped address is the IPv4 address it stands for, so that no rule can be passed by another spelling.
    pub address: SocketAddr,
    /// Whether it was written as IPv6.
    pub as_v6: bool,
}

impl Inet {
    /// The bytes of a `sockaddr` with the same spelling for `address`.
    pub fn bytes(self, address: SocketAddr) -> Vec<u8> {
        match (address, self.as_v6) {
            (SocketAddr::V4(address), false) => {
                let mut bytes = (libc::AF_INET as u16).to_ne_bytes().to_vec();
                bytes.extend(address.port().to_be_bytes());
                bytes.extend(address.ip().octets());
                bytes.extend([0; 8]);
                bytes
            }
            (SocketAddr::V4(address), true) => {
                v6(SocketAddrV6::new(address.ip().to_ipv6_mapped(), address.port(), 0, 0))
            }
            (SocketAddr::V6(address), _) => v6(address),
        }
    }
}

fn v6(address: SocketAddrV6) -> Vec<u8> {
    let mut bytes = (libc::AF_INET6 as u16).to_ne_bytes().to_vec();
    bytes.extend(address.port().to_be_bytes());
    bytes.extend(address.flowinfo().to_be_bytes());
    bytes.extend(address.ip().octets());
    bytes.extend(address.scope_id().to_ne_bytes());
    bytes
}

/// Takes an address apart; `None` if it is too short for its family.
pub fn parse(bytes: &[u8]) -> Option<Parsed> {
    let family = u16::from_ne_bytes(*bytes.first_chunk()?);
    Some(match i32::from(family) {
        libc::AF_UNSPEC => Parsed::Unspecified,
        libc::AF_INET => Parsed::Inet(parse_v4(bytes)?),
        libc::AF_INET6 => Parsed::Inet(parse_v6(bytes)?),
        libc::AF_UNIX => match &bytes[2..] {
            [] => Parsed::Abstract(Vec::new()),
            [0, name @ ..] => Parsed::Abstract(name.to_vec()),
            path => {
                let end = path.iter().position(|byte| *byte == 0).unwrap_or(path.len());
                Parsed::Path(CString::new(&path[..end]).ok()?)
            }
        },
        libc::AF_NETLINK => Parsed::Netlink,
        _ => Parsed::Other(family),
    })
}

/// An IPv4 address, whatever family it says it is.
pub fn parse_v4(bytes: &[u8]) -> Option<Inet> {
    // The kernel wants the whole `struct sockaddr_in`, its padding included.
    let bytes: &[u8; 16] = bytes.first_chunk()?;
    let port = u16::from_be_bytes([bytes[2], bytes[3]]);
    let address = Ipv4Addr::new(bytes[4], bytes[5], bytes[6], bytes[7]);
    Some(Inet { address: SocketAddr::new(IpAddr::V4(address), port), as_v6: false })
}

/// The kernel takes an address without its last field, the scope, too (`SIN6_LEN_RFC2133`).
fn parse_v6(bytes: &[u8]) -> Option<Inet> {
    let port = u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?);
    let flow = u32::from_be_bytes(*bytes.get(4..)?.first_chunk()?);
    let address: [u8; 16] = *bytes.get(8..)?.first_chunk()?;
    let scope = bytes.get(24..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u32::from_ne_bytes(*bytes));
    let address = Ipv6Addr::from(address);
    let address = match address.to_ipv4_mapped() {
        Some(address) => SocketAddr::new(IpAddr::V4(address), port),
        None => SocketAddr::V6(SocketAddrV6::new(address, port, flow, scope)),
    };
    Some(Inet { address, as_v6: true })
}

/// Loopback, and the unspecified address, which the kernel takes for loopback in connect and for "any" in bind.
pub fn is_loopback(address: IpAddr) -> bool {
    address.is_loopback() || address.is_unspecified()
}

/// A unix address for `path`, which must be short.
pub fn of_path(path: &[u8]) -> Vec<u8> {
    let mut address = (libc::AF_UNIX as u16).to_ne_bytes().to_vec();
    address.extend_from_slice(path);
    address.push(0);
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v6(address: &str, port: u16) -> Vec<u8> {
        let mut bytes = (libc::AF_INET6 as u16).to_ne_bytes().to_vec();
        bytes.extend(port.to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend(address.parse::<Ipv6Addr>().unwrap().octets());
        bytes.extend([0; 4]);
        bytes
    }

    #[test]
    fn a_mapped_address_is_the_address_it_stands_for() {
        for (written, stands_for) in [("::ffff:10.0.0.1", "10.0.0.1:80"), ("::1", "[::1]:80")] {
            let bytes = v6(written, 80);
            let Some(Parsed::Inet(inet)) = parse(&bytes) else { panic!("{written}") };
            assert_eq!(inet, Inet { address: stands_for.parse().unwrap(), as_v6: true });
            assert_eq!(inet.bytes(inet.address), bytes);
        }
    }

    #[test]
    fn an_address_that_is_too_short_is_none_at_all() {
        assert_eq!(parse(&[]), None);
        assert_eq!(parse(&[2]), None);
        assert_eq!(parse(&v6("::1", 1)[..20]), None);
        assert_eq!(parse(&[2, 0, 0, 80, 127, 0, 0]), None);
        assert_eq!(parse(&[2, 0, 0, 80, 127, 0, 0, 1]), None, "as for the kernel, which answers EINVAL");
    }

    #[test]
    fn unix_addresses_end_at_their_nul_or_begin_with_one() {
        assert_eq!(parse(b"\x01\0/a/b\0junk"), Some(Parsed::Path(c"/a/b".into())));
        assert_eq!(parse(b"\x01\0\0name"), Some(Parsed::Abstract(b"name".to_vec())));
        assert_eq!(parse(b"\x01\0"), Some(Parsed::Abstract(vec![])));
    }
}
