//! Services of this machine that a program looks for on the box's own loopback, where nobody is.
//!
//! Nothing refuses that: it is the box's own affair, and fails as anywhere. But what most people mean by `localhost` has
//! another name in a box, so that is told, once for each port and only where somebody listens at it outside.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Mutex;

use super::{Context, lock};
use crate::event::HOST_NAME;
use crate::sys::file;

/// How many ports are looked up; a program may try them all.
const MOST: usize = 64;

/// The ports that were sought in vain.
#[derive(Default)]
pub struct Sought(Mutex<HashSet<u16>>);

impl Sought {
    /// Notes that nobody was at a port of the box's loopback.
    pub fn in_vain(&self, context: &Context<'_>, port: u16) {
        if !self.is_news(port) || !serves(&context.shared.target.host_proc, port) {
            return;
        }
        context.shared.gate.note(format!(
            "nobody listens at port {port} of the box's own loopback, but somebody on this machine's: that is \
             {HOST_NAME}:{port}, allow with: --net-allow {HOST_NAME}:{port}"
        ));
    }

    fn is_news(&self, port: u16) -> bool {
        let mut sought = lock(&self.0);
        sought.len() < MOST && sought.insert(port)
    }
}

/// Whether somebody listens at a TCP port of the host's loopback, as far as the host tells.
fn serves(host_proc: &OwnedFd, port: u16) -> bool {
    [c"self/net/tcp", c"self/net/tcp6"].into_iter().any(|table| {
        let mut text = String::new();
        let opened = file::openat(host_proc.as_raw_fd(), table, libc::O_RDONLY | libc::O_CLOEXEC, 0);
        opened.is_ok_and(|table| File::from(table).read_to_string(&mut text).is_ok()) && listens(&text, port)
    })
}

/// Whether a line of such a table is a socket that listens at `port` of loopback or of all addresses.
fn listens(table: &str, port: u16) -> bool {
    /// As the kernel prints them: words of four bytes, each in the machine's order.
    const NEAR: [&str; 4] =
        ["0100007F", "00000000", "00000000000000000000000001000000", "00000000000000000000000000000000"];
    const LISTEN: &str = "0A";
    table.lines().any(|line| {
        let mut words = line.split_whitespace();
        let (at, state) = (words.nth(1).and_then(|at| at.split_once(':')), words.nth(1));
        let near = |(ip, number)| NEAR.contains(&ip) && u16::from_str_radix(number, 16) == Ok(port);
        at.is_some_and(near) && state == Some(LISTEN)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_sockets_tells_who_listens_on_loopback() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue\n   \
             0: 0100007F:1538 00000000:0000 0A 00000000:00000000 00:00000000\n   \
             1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000\n   \
             2: 0100007F:1F90 0100007F:9C40 01 00000000:00000000 00:00000000\n   \
             3: 0200000A:0050 00000000:0000 0A 00000000:00000000 00:00000000\n   \
             4: 00000000000000000000000001000000:0277 00000000000000000000000000000000:0000 0A 0 0\n";
        let found = [5432, 22, 8080, 80, 631, 1].map(|port| listens(table, port));
        assert_eq!(found, [true, true, false, false, true, false]);
    }
}
