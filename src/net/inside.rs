//! Sockets in the box's network namespace, made by a thread that lives there.

use std::os::fd::OwnedFd;
use std::sync::mpsc::{Sender, channel, sync_channel};

use caps::{CapSet, Capability, CapsHashSet};
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};

use super::NetError;

type Work = Box<dyn FnOnce() + Send>;

/// The thread in the box's network namespace.
#[derive(Debug)]
pub struct Inside {
    work: Sender<Work>,
}

impl Inside {
    /// Starts the thread, which joins `network` and keeps the right to bind low ports there, no other. `ping` lets the box's
    /// programs have sockets that ping.
    pub(super) fn start(network: OwnedFd, ping: bool) -> Result<Self, NetError> {
        let (work, given) = channel::<Work>();
        let (ready, joined) = sync_channel(1);
        let run = move || {
            let entered = enter(network, ping);
            let failed = entered.is_err();
            // Whoever started this waits for the word.
            let _ = ready.send(entered);
            if !failed {
                given.iter().for_each(|work| work());
            }
        };
        std::thread::Builder::new().name("inside".into()).spawn(run).map_err(NetError::Thread)?;
        joined.recv().unwrap_or(Err(NetError::Step("enter the box's network", Errno::ESRCH)))?;
        Ok(Self { work })
    }

    /// Runs `act` in the box's network namespace and waits for it; `ESRCH` if the thread is gone. `act` must not wait.
    pub fn run<T: Send + 'static>(&self, act: impl FnOnce() -> Result<T, Errno> + Send + 'static) -> Result<T, Errno> {
        let (answer, answered) = sync_channel(1);
        let work = move || {
            let _ = answer.send(act());
        };
        self.work.send(Box::new(work)).map_err(|_| Errno::ESRCH)?;
        answered.recv().unwrap_or(Err(Errno::ESRCH))
    }
}

fn enter(network: OwnedFd, ping: bool) -> Result<(), NetError> {
    setns(network, CloneFlags::CLONE_NEWNET).map_err(|errno| NetError::Step("enter the box's network", errno))?;
    if ping {
        let_ping();
    }
    let bind = CapsHashSet::from([Capability::CAP_NET_BIND_SERVICE]);
    for set in [CapSet::Ambient, CapSet::Inheritable] {
        caps::clear(None, set).map_err(NetError::Capabilities)?;
    }
    for set in [CapSet::Effective, CapSet::Permitted] {
        caps::set(None, set, &bind).map_err(NetError::Capabilities)?;
    }
    Ok(())
}

/// Opens ping sockets of the box's network to the box's own group, icmp(7). Where that cannot be had, ping fails in the box
/// as it does for most users outside.
fn let_ping() {
    let group = nix::unistd::getegid();
    if let Err(error) = std::fs::write("/proc/sys/net/ipv4/ping_group_range", format!("{group} {group}")) {
        tracing::warn!(%error, "no ping sockets in the box");
    }
}
