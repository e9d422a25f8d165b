//! The user namespace: its user is who agentbox's user is, so files keep their owners in the box.
//!
//! Runs on agentbox's side while it is single-threaded, after init was forked into the new namespace. An ordinary user
//! maps its own id; root maps every id it has. Then agentbox joins, so that its workers hold rights in the box.

use std::fs;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::unistd::{Pid, getegid, geteuid};

/// The user namespace could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Its ids could not be mapped.
    #[error("cannot map user ids into the box")]
    Map(#[source] std::io::Error),
    /// It could not be joined.
    #[error("cannot join the box's user namespace")]
    Join(#[source] Errno),
}

/// Maps ids to themselves in the user namespace of `init`, and joins it.
///
/// agentbox gets every capability there and keeps its rights on files.
pub fn adopt(init: Pid, init_fd: &OwnedFd) -> Result<(), IdentityError> {
    if geteuid().is_root() {
        map_all(init)?
    } else {
        map_own(init)?
    }
    setns(init_fd, CloneFlags::CLONE_NEWUSER).map_err(IdentityError::Join)
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
