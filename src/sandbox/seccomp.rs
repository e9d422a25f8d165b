//! Installs the compiled filter on the calling thread: refusals first, the listener last. Runs in the command's process.

use std::os::fd::OwnedFd;

use crate::plan::seccomp::Filter;
use crate::sys::notify;

/// Installs `filter`; returns the listener if it has a part that stops calls.
pub fn install(filter: &Filter, wait_killable: bool) -> nix::Result<Option<OwnedFd>> {
    for program in &filter.refuse {
        notify::install(program)?;
    }
    filter.notify.as_ref().map(|program| notify::install_listener(program, wait_killable)).transpose()
}
