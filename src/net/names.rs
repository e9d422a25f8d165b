//! Which names the box was given for which addresses.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use crate::event::Subject;

/// The address that stands for the host's loopback in a box: never a real destination (RFC 7335).
pub const HOST_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 1);

/// Who asks for names.
#[derive(Debug, Default)]
pub struct Askers {}

impl Askers {
    /// Remembers that questions from `from` are asked by `subject`.
    pub fn tell(&self, _from: SocketAddr, _subject: Arc<Subject>) {}
}

/// The memory of names.
#[derive(Debug, Default)]
pub struct Names {}

impl Names {
    /// The names that are remembered for `address`, oldest first.
    pub fn of(&self, _address: IpAddr) -> Vec<Arc<str>> {
        Vec::new()
    }
}
