//! One file per subcommand. They run in the main process and are the only printers to stdout.
//!
//! Each takes its flags as plain data and returns the exit status, or an error that main prints once.

pub mod annotate;
pub mod cases;
pub mod diff;
pub mod doctor;
mod export;
mod hear;
pub mod log;
mod place;
pub mod policy;
pub mod replay;
pub mod report;
pub mod run;
pub mod trust;
pub mod why;

use std::io::{self, Write};

/// Writes to stdout; a reader that has gone away (`| head`) is no error.
pub(crate) fn print(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
