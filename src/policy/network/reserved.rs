//! Addresses that no wide rule and no name opens: they reach the machine's own neighbourhood, and services there that hand
//! out credentials to whoever asks. Only a rule that names them as addresses does.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::subnet::Subnet;

/// One kind of them.
#[derive(Debug, PartialEq, Eq)]
pub struct Reserved {
    /// What its rule is called, after `built-in`.
    pub name: &'static str,
    /// What an address of it is.
    pub what: &'static str,
    subnets: &'static [Subnet],
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Subnet {
    Subnet::known(IpAddr::V4(Ipv4Addr::new(a, b, c, d)), prefix)
}

const fn v6(first: u16, second: u16, last: u16, prefix: u8) -> Subnet {
    Subnet::known(IpAddr::V6(Ipv6Addr::new(first, second, 0, 0, 0, 0, 0, last)), prefix)
}

const LOOPBACK: Reserved =
    Reserved { name: "loopback", what: "the loopback of the host", subnets: &[v4(127, 0, 0, 0, 8), v6(0, 0, 1, 128)] };

/// Linux takes `0.0.0.0` and `::` for loopback.
const UNSPECIFIED: Reserved = Reserved {
    name: "unspecified address",
    what: "an address of no host",
    subnets: &[v4(0, 0, 0, 0, 8), v6(0, 0, 0, 128)],
};

/// In the order in which they are asked: narrow ones before the wide ones that hold them.
const ALL: &[Reserved] = &[
    LOOPBACK,
    UNSPECIFIED,
    Reserved {
        name: "metadata",
        what: "a metadata service of a cloud, which hands out credentials",
        subnets: &[
            // AWS, Azure, Google and most others; AWS and Google over IPv6; Alibaba; Azure's wire server; Oracle's old one.
            v4(169, 254, 169, 254, 32),
            v6(0xfd00, 0xec2, 0x254, 128),
            v6(0xfd20, 0xce, 0x254, 128),
            v4(100, 100, 100, 200, 32),
            v4(168, 63, 129, 16, 32),
            v4(192, 0, 0, 192, 32),
        ],
    },
    Reserved {
        name: "link-local",
        what: "a link-local address",
        subnets: &[v4(169, 254, 0, 0, 16), v6(0xfe80, 0, 0, 10)],
    },
    Reserved { name: "multicast", what: "a multicast address", subnets: &[v4(224, 0, 0, 0, 4), v6(0xff00, 0, 0, 8)] },
    Reserved { name: "broadcast", what: "the broadcast address", subnets: &[v4(255, 255, 255, 255, 32)] },
    Reserved { name: "reserved", what: "a reserved address", subnets: &[v4(240, 0, 0, 0, 4)] },
];

impl Reserved {
    /// The kind that `address` is of, itself or by the IPv4 address that packets for it may be carried to.
    pub fn of(address: IpAddr) -> Option<&'static Self> {
        let address = Subnet::of(address);
        ALL.iter().find(|kind| kind.holds(address))
    }

    /// Whether a rule for the address opens it. Loopback is opened by the host's name alone, and what Linux takes for it
    /// by nothing.
    pub fn can_be_opened(&self) -> bool {
        *self != LOOPBACK && *self != UNSPECIFIED
    }

    /// Whether all of `subnet` is of this kind, so that a rule for it means just these addresses.
    pub fn holds(&self, subnet: Subnet) -> bool {
        let lies_in = |subnet: Subnet| self.subnets.iter().any(|own| subnet.lies_in(*own));
        lies_in(subnet) || subnet.embedded().is_some_and(lies_in)
    }
}

/// Whether `subnet` is what the box has for itself: loopback, or what Linux takes for it.
pub(super) fn is_own(subnet: Subnet) -> bool {
    LOOPBACK.holds(subnet) || UNSPECIFIED.holds(subnet)
}
