//! Who speaks: a process of the box, as the kernel names the sender of what arrived.
//!
//! A connection does not tell, as it can be handed on, and as agentbox itself makes it on the box's behalf. What is known
//! is a process's number; one that has ended before it is looked at is not heard, and its number comes back to use only
//! after all others have been used.

use std::ffi::{CString, OsString};
use std::fs;
use std::io::ErrorKind;

use nix::errno::Errno;

use super::protocol::For;

const STRANGER: &str = "only processes of the box are heard";
const GONE: &str = "the process that wrote this has ended: it must wait for the answer";
const UNKNOWN: &str = "nobody knows who wrote this: no descriptors can be sent along";
/// Where datagrams may leave the box, every `sendmsg` is looked at and sent by agentbox.
const CARRIED_OUT: &str =
    "agentbox itself carries sendmsg() out here, so nobody knows who wrote this: use write() or send()";

/// Tells the box's processes from others.
#[derive(Debug)]
pub struct Inside {
    /// The box's init.
    init: i32,
    /// agentbox itself.
    own: i32,
    /// The box's user namespace. Only agentbox is in it besides, and nobody inside can make another.
    namespace: OsString,
}

impl Inside {
    /// The box that the calling thread's user namespace belongs to.
    pub fn new(init: i32) -> Result<Self, Errno> {
        Self::apart_from(init, std::process::id() as i32)
    }

    /// The same, where `own` is nobody who could speak for himself.
    pub(super) fn apart_from(init: i32, own: i32) -> Result<Self, Errno> {
        let namespace = fs::read_link("/proc/thread-self/ns/user").map_err(|_| Errno::last())?;
        Ok(Self { init, own, namespace: namespace.into() })
    }

    /// The process for which `sender` speaks, or why it speaks for none.
    pub fn speaker(&self, sender: Option<i32>, speaks_for: For) -> Result<i32, String> {
        // A process outside of what agentbox can see has the number 0.
        if sender == Some(self.own) {
            return Err(CARRIED_OUT.into());
        }
        let sender = self.named(sender).ok_or(UNKNOWN)?;
        self.check(sender)?;
        match speaks_for {
            For::Oneself => Ok(sender),
            For::Parent => self.parent(sender),
        }
    }

    /// The number of a sender that may be told; a process outside of what agentbox can see has the number 0.
    pub fn named(&self, sender: Option<i32>) -> Option<i32> {
        sender.filter(|pid| *pid > 0 && *pid != self.own)
    }

    fn check(&self, pid: i32) -> Result<(), String> {
        match fs::read_link(format!("/proc/{pid}/ns/user")) {
            Ok(namespace) if namespace.as_os_str() == self.namespace => Ok(()),
            Ok(_) => Err(STRANGER.into()),
            // What lies in a namespace around the box's is not to be looked into from there.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => Err(STRANGER.into()),
            Err(_) => Err(GONE.into()),
        }
    }

    fn parent(&self, child: i32) -> Result<i32, String> {
        let parent = parent(child).ok_or(GONE)?;
        if parent == self.init || parent <= 0 || self.check(parent).is_err() {
            return Err("the process that wrote this has no parent to speak for: it speaks for itself".into());
        }
        Ok(parent)
    }
}

fn parent(pid: i32) -> Option<i32> {
    let path = CString::new(format!("/proc/{pid}/status")).ok()?;
    let status = crate::sys::file::read_small(libc::AT_FDCWD, &path).ok()?;
    let status = String::from_utf8_lossy(&status);
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    fn sleeper() -> Child {
        Command::new("sleep").arg("60").stdout(Stdio::null()).spawn().unwrap()
    }

    #[test]
    fn a_sender_speaks_for_itself_or_its_parent_inside() {
        let mut child = sleeper();
        let (pid, own) = (child.id() as i32, std::process::id() as i32);
        let inside = Inside::apart_from(1, 0).unwrap();
        assert_eq!(inside.speaker(Some(pid), For::Oneself), Ok(pid));
        assert_eq!(inside.speaker(Some(pid), For::Parent), Ok(own));
        let init = Inside::apart_from(own, 0).unwrap().speaker(Some(pid), For::Parent);
        assert!(init.unwrap_err().contains("no parent to speak for"));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(inside.speaker(Some(pid), For::Oneself).unwrap_err().contains("has ended"));
    }

    #[test]
    fn nobody_agentbox_and_strangers_are_not_heard() {
        let mut child = sleeper();
        let pid = child.id() as i32;
        let mut inside = Inside::apart_from(1, pid).unwrap();
        assert!(inside.speaker(None, For::Oneself).unwrap_err().contains("nobody knows"));
        assert!(inside.speaker(Some(0), For::Oneself).unwrap_err().contains("nobody knows"));
        assert!(inside.speaker(Some(pid), For::Oneself).unwrap_err().contains("use write() or send()"));
        inside.own = 0;
        inside.namespace = "user:[1]".into();
        assert!(inside.speaker(Some(pid), For::Oneself).unwrap_err().contains("only processes of the box"));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
