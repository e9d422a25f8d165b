//! One file per subcommand: what a person typed in, a line printed and an exit status out. The only printers to stdout.

pub mod policy;
pub mod trust;

use std::io::{self, Write};

/// Writes to stdout; a reader that has gone away (`| head`) is no error.
pub(crate) fn print(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
