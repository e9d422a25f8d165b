//! Obeys a plan: makes the box and starts the command in it.
//!
//! `launch` is agentbox's side, `init` the box's; they talk over `handshake`. Every mechanism has one file that applies
//! it: `identity` (user namespace), `mounts` (view), `landlock`, `seccomp`; `attend` looks after the running box and
//! `terminal` after a pty. Nothing here knows a rule of the policy.

pub mod attend;
pub mod handshake;
mod identity;
mod init;
mod landlock;
pub mod launch;
mod mounts;
mod seccomp;
pub mod terminal;

pub use launch::{Command, LaunchError, Running, launch};
