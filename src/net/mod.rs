//! The box's way to and from the outside: names, connections on its behalf, published ports.
//!
//! Two threads, started only for a box whose network has rules. One runs everything that waits, in the host's network
//! namespace. The other ([`Inside`]) sits in the box's network namespace and makes sockets there. Neither holds a
//! right; what may happen is asked of the gate.

pub mod dial;
mod inside;
pub mod names;
pub mod twin;

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use tokio::runtime;
use tokio::sync::oneshot;

use crate::gate::Gate;
use crate::sys::socket;
pub use inside::Inside;
use names::Names;

/// The way out could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// A call failed.
    #[error("cannot {0}")]
    Step(&'static str, #[source] Errno),
    /// No thread, or no event queue for it.
    #[error("cannot start the network's thread")]
    Thread(#[source] std::io::Error),
    /// Capabilities could not be dropped.
    #[error("cannot drop the network's capabilities")]
    Capabilities(#[source] caps::errors::CapsError),
}

/// The way out of a running box. Dropping it ends what it runs.
#[derive(Debug)]
pub struct Net {
    /// Which names the box was given for which addresses.
    pub names: Names,
    /// Who asks for names.
    pub askers: names::Askers,
    /// Sockets in the box's network namespace.
    pub inside: Inside,
    /// Sockets in place of others.
    pub twins: twin::Twins,
    /// The network that connections are made in.
    pub host_network: u64,
    /// Runs what waits.
    handle: runtime::Handle,
    _end: oneshot::Sender<()>,
}

impl Net {
    /// Starts both threads. `box_network` is the box's network namespace.
    pub fn start(_gate: Arc<Gate>, box_network: OwnedFd) -> Result<Arc<Self>, NetError> {
        let inside = Inside::start(box_network)?;
        let host_network =
            host_network().map_err(|errno| NetError::Step("tell the host's network from the box's", errno))?;
        let runtime = runtime::Builder::new_current_thread().enable_all().build().map_err(NetError::Thread)?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel::<()>();
        let run = move || {
            // A thread that keeps its rights can do no harm that its code does not: it runs nothing of the box's.
            let _ = caps::clear(None, caps::CapSet::Effective);
            let _ = runtime.block_on(ended);
        };
        std::thread::Builder::new().name("net".into()).spawn(run).map_err(NetError::Thread)?;
        Ok(Arc::new(Self {
            names: Names::default(),
            askers: names::Askers::default(),
            inside,
            twins: twin::Twins::default(),
            host_network,
            handle,
            _end: end,
        }))
    }

    /// Runs `work` on the network's thread.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.handle.spawn(work);
    }
}

fn host_network() -> Result<u64, Errno> {
    let socket = socket::new(libc::AF_INET, libc::SOCK_STREAM, 0)?;
    socket::network_of(socket.as_fd())
}
