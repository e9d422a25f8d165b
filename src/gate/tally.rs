//! What a run had to do with each party outside: connections allowed and refused, bytes both ways.
//!
//! Filled by the gate as decisions are settled, and by the network as bytes are counted. Bounded: whoever comes when
//! the list is full is summed up with the others.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::audit::{Destination, Party};
use crate::event::{Access, ActionId, Endpoint, Event, Transport, Visit};

/// How many parties are told apart.
const PARTIES: usize = 1000;

/// A party outside, as the tally tells parties apart: by name where the box was given one, else by address. Services on
/// different ports, and the visitors of different published ports, are different parties.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Toward {
    key: Key,
    /// The address behind a name.
    address: Option<IpAddr>,
    /// The action that has to do with it.
    pub(super) action: ActionId,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Named { names: Vec<Arc<str>>, port: u16, transport: Transport },
    Address { address: SocketAddr, transport: Transport },
    Visitors { at: SocketAddr, port: u16 },
}

impl Toward {
    /// Tells whom outside an event is about, if anybody: whoever is connected or sent to, or visits.
    pub fn of(event: &Event) -> Option<Self> {
        let action = event.standing.action;
        match &event.access {
            Access::Connect { to } | Access::Send { to } => Self::service(to, action),
            Access::Accept(Visit { at, port, .. }) => {
                Some(Self { key: Key::Visitors { at: *at, port: *port }, address: None, action })
            }
            Access::File { .. } | Access::Move { .. } | Access::Exec(_) | Access::Route { .. } => None,
            Access::Resolve(_) | Access::Bind { .. } | Access::Signal(_) | Access::Call { .. } => None,
        }
    }

    fn service(to: &Endpoint, action: ActionId) -> Option<Self> {
        let Endpoint::Inet { address, outside: true, transport, names } = to else { return None };
        let (address, transport) = (*address, *transport);
        Some(match names.as_slice() {
            [] => Self { key: Key::Address { address, transport }, address: None, action },
            names => Self {
                key: Key::Named { names: names.to_vec(), port: address.port(), transport },
                address: Some(address.ip()),
                action,
            },
        })
    }

    fn party(&self) -> Party {
        match &self.key {
            Key::Named { names, port, transport } => Party::Service {
                names: names.clone(),
                addresses: self.address.into_iter().collect(),
                port: *port,
                transport: *transport,
            },
            Key::Address { address, transport } => Party::Service {
                names: Vec::new(),
                addresses: vec![address.ip()],
                port: address.port(),
                transport: *transport,
            },
            Key::Visitors { at, port } => Party::Visitors { at: *at, port: *port },
        }
    }
}

/// Bytes that went over a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Moved {
    /// Out of the box.
    pub out: u64,
    /// Into the box.
    pub inward: u64,
}

/// The parties and their sums.
#[derive(Debug, Default)]
pub(super) struct Tally {
    destinations: Vec<Destination>,
    /// Where in `destinations` each is.
    known: HashMap<Key, usize>,
    others: Option<Destination>,
}

impl Tally {
    /// Counts a decision.
    pub fn decided(&mut self, toward: &Toward, allowed: bool) {
        let sums = self.at(toward);
        if allowed {
            sums.allowed += 1;
        } else {
            sums.denied += 1;
        }
    }

    /// Adds the bytes of a connection, or that they could not be counted.
    pub fn transferred(&mut self, toward: &Toward, moved: Option<Moved>) {
        let sums = self.at(toward);
        let Some(moved) = moved else {
            sums.uncounted += 1;
            return;
        };
        let add = |sum: &mut Option<u64>, more: u64| *sum = Some(sum.unwrap_or(0).saturating_add(more));
        add(&mut sums.bytes_out, moved.out);
        add(&mut sums.bytes_in, moved.inward);
    }

    /// The sums so far, in the order in which the parties first came; those who are not told apart last.
    pub fn destinations(&self) -> Vec<Destination> {
        self.destinations.iter().chain(&self.others).cloned().collect()
    }

    fn at(&mut self, toward: &Toward) -> &mut Destination {
        let found = match self.known.get(&toward.key) {
            Some(&at) => at,
            None if self.destinations.len() >= PARTIES => {
                return self.others.get_or_insert_with(|| nothing_yet(Party::Others));
            }
            None => {
                self.known.insert(toward.key.clone(), self.destinations.len());
                self.destinations.push(nothing_yet(toward.party()));
                self.destinations.len() - 1
            }
        };
        let destination = &mut self.destinations[found];
        if let (Party::Service { addresses, .. }, Some(address)) = (&mut destination.party, toward.address)
            && addresses.len() < Party::ADDRESSES
            && !addresses.contains(&address)
        {
            addresses.push(address);
        }
        destination
    }
}

fn nothing_yet(party: Party) -> Destination {
    Destination { party, allowed: 0, denied: 0, bytes_out: None, bytes_in: None, uncounted: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connect(names: &[&str], address: &str) -> Access {
        let names = names.iter().map(|&name| name.into()).collect();
        let address = address.parse().unwrap();
        Access::Connect { to: Endpoint::Inet { address, outside: true, transport: Transport::Tcp, names } }
    }

    fn whom(access: Access) -> Option<Toward> {
        Toward::of(&Event::new(Default::default(), access))
    }

    fn toward(names: &[&str], address: &str) -> Toward {
        whom(connect(names, address)).unwrap()
    }

    #[test]
    fn addresses_of_one_name_are_one_party_and_ports_are_two() {
        let mut tally = Tally::default();
        tally.decided(&toward(&["api.example.org"], "192.0.2.1:443"), true);
        tally.decided(&toward(&["api.example.org"], "192.0.2.2:443"), true);
        tally.decided(&toward(&["api.example.org"], "192.0.2.2:443"), false);
        tally.decided(&toward(&["api.example.org"], "192.0.2.2:80"), true);
        tally.decided(&toward(&[], "192.0.2.2:443"), false);
        let found = tally.destinations();
        let sums: Vec<_> = found.iter().map(|one| (one.allowed, one.denied)).collect();
        assert_eq!(sums, [(2, 1), (1, 0), (0, 1)]);
        let Party::Service { names, addresses, port: 443, .. } = &found[0].party else { panic!() };
        assert_eq!((names.len(), addresses.len()), (1, 2));
    }

    #[test]
    fn what_stays_inside_has_no_party() {
        let address = "127.0.0.1:80".parse().unwrap();
        let inside = Endpoint::Inet { address, outside: false, transport: Transport::Tcp, names: Vec::new() };
        assert_eq!(whom(Access::Connect { to: inside.clone() }), None);
        assert_eq!(whom(Access::Bind { at: inside }), None);
        assert_eq!(whom(Access::Connect { to: Endpoint::Netlink }), None);
        let visit = |from: &str| Visit { from: from.parse().unwrap(), at: address, port: 8000 };
        let visitors = whom(Access::Accept(visit("127.0.0.1:5000")));
        assert!(visitors.is_some() && visitors == whom(Access::Accept(visit("127.0.0.1:5001"))));
    }

    #[test]
    fn bytes_are_absent_until_some_are_counted() {
        let mut tally = Tally::default();
        let api = toward(&["api.example.org"], "192.0.2.1:443");
        tally.decided(&api, true);
        assert_eq!(tally.destinations()[0].bytes_out, None);
        tally.transferred(&api, None);
        assert_eq!((tally.destinations()[0].bytes_in, tally.destinations()[0].uncounted), (None, 1));
        tally.transferred(&api, Some(Moved { out: 5, inward: 7 }));
        tally.transferred(&api, Some(Moved { out: 1, inward: u64::MAX }));
        let sums = &tally.destinations()[0];
        assert_eq!((sums.bytes_out, sums.bytes_in), (Some(6), Some(u64::MAX)));
    }

    #[test]
    fn parties_beyond_the_bound_are_summed_up() {
        let mut tally = Tally::default();
        for port in 1..=PARTIES as u16 + 5 {
            tally.decided(&toward(&[], &format!("192.0.2.1:{port}")), true);
        }
        tally.transferred(&toward(&[], "192.0.2.9:9"), Some(Moved { out: 3, inward: 0 }));
        let found = tally.destinations();
        let last = found.last().unwrap();
        assert_eq!((found.len(), &last.party, last.allowed, last.bytes_out), (PARTIES + 1, &Party::Others, 5, Some(3)));
        for last in 0..100u8 {
            tally.decided(&toward(&["api.example.org"], &format!("192.0.2.{last}:443")), true);
        }
        assert_eq!(tally.destinations().len(), PARTIES + 1);
    }

    #[test]
    fn addresses_of_a_name_are_bounded() {
        let mut tally = Tally::default();
        for last in 0..100u8 {
            tally.decided(&toward(&["api.example.org"], &format!("192.0.2.{last}:443")), true);
        }
        let Party::Service { addresses, .. } = &tally.destinations()[0].party else { panic!() };
        assert_eq!(addresses.len(), Party::ADDRESSES);
    }
}
