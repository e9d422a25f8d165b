//! The user namespace: agentbox moves into one in which its user is who it was, so that it may make the others.
//!
//! Runs on agentbox's side while it is single-threaded. An ordinary user maps its own id; root maps every id it has, so
//! that files of other users keep their owners in the box.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, getegid, geteuid, getpid};

use crate::sys;
use crate::sys::process::Alone;

/// The user namespace could not be had.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    /// The kernel or an outer sandbox refused to make one.
    #[error("the kernel refused a user namespace")]
    Refused(#[source] Errno),
    /// It was made, but its ids could not be mapped.
    #[error("cannot map user ids into the namespace")]
    Map(#[source] std::io::Error),
    /// The helper that maps root's ids failed.
    #[error("the process that maps root's ids failed")]
    Helper,
}

/// Ids that are being mapped.
#[derive(Debug)]
pub struct Mapping {
    /// The process that maps root's ids; an ordinary user's are mapped already.
    helper: Option<Pid>,
}

impl Mapping {
    /// Waits until the ids are mapped; before that no further namespace can be made.
    pub fn finish(self) -> Result<(), NamespaceError> {
        let Some(helper) = self.helper else { return Ok(()) };
        match waitpid(helper, None) {
            Ok(WaitStatus::Exited(_, 0)) => Ok(()),
            _ => Err(NamespaceError::Helper),
        }
    }
}

/// Moves this process into a new user namespace that maps its own id (as root: all ids) to itself.
///
/// The process gets every capability in the new namespace and keeps its rights on files.
pub fn enter_user_namespace(alone: &Alone) -> Result<Mapping, NamespaceError> {
    if geteuid().is_root() { enter_as_root(alone) } else { enter_as_user() }
}

fn enter_as_user() -> Result<Mapping, NamespaceError> {
    let (uid, gid) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER).map_err(NamespaceError::Refused)?;
    // Without the right to set groups outside, a user must give it up inside before mapping a group: user_namespaces(7).
    write("/proc/self/setgroups", "deny")?;
    write("/proc/self/uid_map", &format!("{uid} {uid} 1"))?;
    write("/proc/self/gid_map", &format!("{gid} {gid} 1"))?;
    Ok(Mapping { helper: None })
}

/// Only a process outside with the right to set ids may map more than one: a child made before.
fn enter_as_root(alone: &Alone) -> Result<Mapping, NamespaceError> {
    let (mut here, mut there) = UnixStream::pair().map_err(NamespaceError::Map)?;
    let parent = getpid();
    match sys::process::fork(alone).map_err(NamespaceError::Refused)? {
        ForkResult::Child => {
            drop(here);
            let done = there.read_exact(&mut [0]).is_ok() && map_all(parent.as_raw()).is_ok();
            sys::process::exit_now(i32::from(!done))
        }
        ForkResult::Parent { child } => {
            drop(there);
            let mapping = Mapping { helper: Some(child) };
            if let Err(errno) = unshare(CloneFlags::CLONE_NEWUSER) {
                // Without a word from here the helper ends and maps nothing.
                drop(here);
                let _ = mapping.finish();
                return Err(NamespaceError::Refused(errno));
            }
            here.write_all(&[1]).map_err(NamespaceError::Map)?;
            Ok(mapping)
        }
    }
}

/// Maps every id that this namespace has to itself in that of process `pid`.
fn map_all(pid: i32) -> Result<(), NamespaceError> {
    for map in ["uid_map", "gid_map"] {
        let ours = fs::read_to_string(format!("/proc/self/{map}")).map_err(NamespaceError::Map)?;
        let same: Vec<String> = ours
            .lines()
            .filter_map(|line| {
                let mut fields = line.split_whitespace();
                let (inside, _outside, count) = (fields.next()?, fields.next()?, fields.next()?);
                Some(format!("{inside} {inside} {count}"))
            })
            .collect();
        write(&format!("/proc/{pid}/{map}"), &same.join("\n"))?;
    }
    Ok(())
}

fn write(path: &str, text: &str) -> Result<(), NamespaceError> {
    fs::write(path, text).map_err(NamespaceError::Map)
}
