//! The user namespace: its user is who agentbox's user is, so files keep their owners in the box.
//!
//! Runs on agentbox's side while it is single-threaded, after init was forked into the new namespace. An ordinary user
//! maps its own id; root maps every id it has. Then agentbox joins, so that its workers hold rights in the box.

use std::fs;
use std::os::fd::OwnedFd;

use caps::{CapSet, Capability, CapsHashSet};
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::unistd::{Pid, getegid, geteuid};

/// The user namespace could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Its ids could not be mapped.
    #[error("cannot map user ids into the box")]
    Map(#[source] std::io::Error),
    /// Rights that come with joining could not be laid down.
    #[error("cannot lay down rights in the box's user namespace")]
    Rights(#[source] caps::errors::CapsError),
    /// It could not be joined.
    #[error("cannot join the box's user namespace")]
    Join(#[source] Errno),
}

/// Maps ids to themselves in the user namespace of `init`, and joins it.
///
/// agentbox gets what its workers need there, and keeps its rights on files: an ordinary user gains none by this.
pub fn adopt(init: Pid, init_fd: &OwnedFd) -> Result<(), IdentityError> {
    let root = geteuid().is_root();
    let mapped = if root { map_all(init) } else { map_own(init) };
    mapped?;
    setns(init_fd, CloneFlags::CLONE_NEWUSER).map_err(IdentityError::Join)?;
    if root { Ok(()) } else { keep_what_workers_need().map_err(IdentityError::Rights) }
}

/// Lays down all but the rights to enter the view, to trace, and to look after the box's network: with the others an ordinary
/// user's agentbox would pass over the permission bits of its own files.
fn keep_what_workers_need() -> Result<(), caps::errors::CapsError> {
    let needed = CapsHashSet::from([
        Capability::CAP_SYS_ADMIN,
        Capability::CAP_SYS_CHROOT,
        Capability::CAP_SYS_PTRACE,
        Capability::CAP_NET_ADMIN,
        Capability::CAP_NET_BIND_SERVICE,
    ]);
    caps::set(None, CapSet::Effective, &needed)?;
    caps::set(None, CapSet::Permitted, &needed)
}

fn map_own(init: Pid) -> Result<(), IdentityError> {
    let (uid, gid) = (geteuid(), getegid());
    // Without the right to set groups outside, a user must give it up inside before mapping a group: user_namespaces(7).
    write(init, "setgroups", "deny")?;
    write(init, "uid_map", &format!("{uid} {uid} 1"))?;
    write(init, "gid_map", &format!("{gid} {gid} 1"))
}

/// Maps every id that this namespace has.
fn map_all(init: Pid) -> Result<(), IdentityError> {
    for map in ["uid_map", "gid_map"] {
        let ours = fs::read_to_string(format!("/proc/self/{map}")).map_err(IdentityError::Map)?;
        let same: Vec<String> = ours
            .lines()
            .filter_map(|line| {
                let mut fields = line.split_whitespace();
                let (inside, _outside, count) = (fields.next()?, fields.next()?, fields.next()?);
                Some(format!("{inside} {inside} {count}"))
            })
            .collect();
        write(init, map, &same.join("\n"))?;
    }
    Ok(())
}

fn write(init: Pid, file: &str, text: &str) -> Result<(), IdentityError> {
    fs::write(format!("/proc/{init}/{file}"), text).map_err(IdentityError::Map)
}
