//! Networks of addresses. Pure arithmetic.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address with the number of bits of it that count. The other bits are zero, and a network of IPv4-mapped addresses is
/// the IPv4 network that it stands for, so that one network has one spelling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subnet {
    address: IpAddr,
    prefix: u8,
}

impl Subnet {
    /// The network of the first `prefix` bits of `address`; `Err` with the network that was meant if other bits are set.
    /// `prefix` must not be more than the address has bits.
    pub fn new(address: IpAddr, prefix: u8) -> Result<Self, Self> {
        let (address, prefix) = match address {
            IpAddr::V6(v6) if prefix >= 96 => match v6.to_ipv4_mapped() {
                Some(v4) => (IpAddr::V4(v4), prefix - 96),
                None => (address, prefix),
            },
            _ => (address, prefix),
        };
        let meant = Self::around(address, prefix);
        if meant.address == address { Ok(meant) } else { Err(meant) }
    }

    /// A network that is known to be written well.
    pub(super) const fn known(address: IpAddr, prefix: u8) -> Self {
        Self { address, prefix }
    }

    /// The network of `address` alone.
    pub fn of(address: IpAddr) -> Self {
        let address = address.to_canonical();
        Self { address, prefix: bits(address) }
    }

    /// The network with `prefix` bits that `address` lies in.
    pub fn around(address: IpAddr, prefix: u8) -> Self {
        let address = match address {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & mask))
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask))
            }
        };
        Self { address, prefix }
    }

    /// Its first address.
    pub fn address(self) -> IpAddr {
        self.address
    }

    /// How many bits count.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// Whether it holds IPv4 addresses.
    pub fn is_ipv4(self) -> bool {
        self.address.is_ipv4()
    }

    /// Whether all of it lies in `other`.
    pub fn lies_in(self, other: Self) -> bool {
        self.is_ipv4() == other.is_ipv4()
            && self.prefix >= other.prefix
            && Self::around(self.address, other.prefix) == other
    }

    /// The IPv4 network to which packets for this IPv6 network may be carried: the addresses in IPv4-compatible
    /// (`::/96`), IPv4-translated (`::ffff:0:0:0/96`), NAT64 (`64:ff9b::/96`, and the end of `64:ff9b:1::/48`) and 6to4
    /// (`2002::/16`) addresses.
    pub fn embedded(self) -> Option<Self> {
        let IpAddr::V6(v6) = self.address else { return None };
        let bits = v6.to_bits();
        let (v4, prefix) = match v6.segments() {
            [0, 0, 0, 0, 0 | 0xffff, 0, _, _] | [0x64, 0xff9b, 0, 0, 0, 0, _, _] | [0x64, 0xff9b, 1, ..]
                if self.prefix >= 96 =>
            {
                (bits as u32, self.prefix - 96)
            }
            [0x2002, ..] if self.prefix >= 16 => ((bits >> 80) as u32, (self.prefix - 16).min(32)),
            _ => return None,
        };
        Some(Self::around(IpAddr::V4(Ipv4Addr::from_bits(v4)), prefix))
    }
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.prefix == bits(self.address) {
            write!(f, "{}", self.address)
        } else {
            write!(f, "{}/{}", self.address, self.prefix)
        }
    }
}
