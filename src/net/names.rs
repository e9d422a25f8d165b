//! Which names the box was given for which addresses.

use std::net::IpAddr;
use std::sync::Arc;

/// The memory of names.
#[derive(Debug, Default)]
pub struct Names {}

impl Names {
    /// The names that are remembered for `address`, oldest first.
    pub fn of(&self, _address: IpAddr) -> Vec<Arc<str>> {
        Vec::new()
    }
}
