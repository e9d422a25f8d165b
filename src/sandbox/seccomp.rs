//! Installs the compiled filter on the calling thread. Runs in the command's process, last of all layers.

use std::os::fd::OwnedFd;

use crate::plan::seccomp::Filter;
use crate::sys::notify;

/// Installs `filter`; returns the listener if it stops calls.
pub fn install(filter: &Filter, wait_killable: bool) -> nix::Result<Option<OwnedFd>> {
    if filter.listens {
        return notify::install_listener(&filter.program, wait_killable).map(Some);
    }
    notify::install(&filter.program).map(|()| None)
}
