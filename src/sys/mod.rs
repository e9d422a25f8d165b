//! The only unsafe code: one wrapper for each kernel call that nix lacks.
//!
//! A wrapper makes one call, takes borrowed or owned descriptors and plain Rust types, returns a `Result`, and holds no
//! policy. Everything else in agentbox is safe Rust.
#![allow(unsafe_code)]
#![deny(unsafe_op_in_unsafe_fn)]

pub mod diag;
pub mod file;
pub mod mount;
pub mod notify;
pub mod process;
pub mod socket;

use nix::errno::Errno;

/// Turns a raw system call's result into a `Result`.
fn check(result: libc::c_long) -> nix::Result<libc::c_long> {
    Errno::result(result)
}
