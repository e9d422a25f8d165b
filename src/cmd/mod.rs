//! One file per subcommand. They run in the main process and are the only printers to stdout.
//!
//! Each takes its flags as plain data and returns the exit status, or an error that main prints once.

pub mod doctor;
pub mod log;
pub mod policy;
pub mod run;
pub mod trust;
