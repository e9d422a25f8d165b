//! One file per subcommand: what a person typed in, a line printed and an exit status out. The only printers to stdout.

pub mod policy;
pub mod trust;
