//! The box's way to and from the outside: names, connections on its behalf, published ports.
//!
//! Two threads, started only for a box whose network has rules or published ports. One runs everything that waits, in
//! the host's network namespace. The other ([`Inside`]) sits in the box's network namespace and makes sockets there.
//! Neither holds a right; what may happen is asked of the gate.

pub mod dial;
pub mod flows;
mod inside;
pub mod names;
pub mod publish;
pub mod twin;

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::errno::Errno;
use tokio::runtime;
use tokio::sync::oneshot;

use crate::gate::Gate;
use crate::sys::socket;
use flows::Flows;
pub use inside::Inside;
use names::Names;
use publish::{Doors, Published};

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

/// What a box's network is to have.
#[derive(Debug)]
pub struct Start {
    /// Where everything is decided and counted.
    pub gate: Arc<Gate>,
    /// Stands for the box's network namespace: init's process descriptor.
    pub box_network: OwnedFd,
    /// Whether rules let anything out: then bytes are counted.
    pub rules: bool,
    /// The ports that are open to the outside.
    pub published: Vec<Published>,
}

/// The way out of a running box. Dropping it ends what it runs.
#[derive(Debug)]
pub struct Net {
    /// Which names the box was given for which addresses.
    pub names: Names,
    /// Who asks for names.
    pub askers: names::Askers,
    /// Sockets in the box's network namespace.
    pub inside: Arc<Inside>,
    /// Bytes of the connections that the box is given.
    pub flows: Flows,
    /// Sockets in place of others.
    pub twins: twin::Twins,
    /// The network that connections are made in.
    pub host_network: u64,
    doors: Arc<Doors>,
    /// Runs what waits.
    handle: runtime::Handle,
    thread: Mutex<Option<Thread>>,
}

/// The network's thread. Dropping the word ends it.
type Thread = (oneshot::Sender<()>, JoinHandle<()>);

impl Net {
    /// Starts both threads. To be called in the host's network namespace.
    pub fn start(start: Start) -> Result<Arc<Self>, NetError> {
        let Start { gate, box_network, rules, published } = start;
        let inside = Arc::new(Inside::start(box_network)?);
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
        let thread = std::thread::Builder::new().name("net".into()).spawn(run).map_err(NetError::Thread)?;
        let flows = if rules { Flows::start(&gate, &handle) } else { Flows::default() };
        let doors = Doors::new(gate, Arc::clone(&inside));
        for one in published {
            handle.spawn(publish::serve(Arc::clone(&doors), one));
        }
        let (names, askers, twins) = (Names::default(), names::Askers::default(), twin::Twins::default());
        let thread = Mutex::new(Some((end, thread)));
        Ok(Arc::new(Self { names, askers, inside, flows, twins, host_network, doors, handle, thread }))
    }

    /// Runs `work` on the network's thread.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.handle.spawn(work);
    }

    /// Passes on what the box has said, counts what is left to count, and ends everything. To be called in the host's
    /// network namespace, once the box's processes have ended and before the gate sums up. Whoever listens in on the box's
    /// last words has `limit` to take them.
    pub fn finish(&self, limit: Duration) {
        self.doors.finish(limit);
        self.flows.finish();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((end, thread)) = thread {
            drop(end);
            // Whatever was under way is counted when its thread is gone.
            let _ = thread.join();
        }
    }
}

fn host_network() -> Result<u64, Errno> {
    let socket = socket::new(libc::AF_INET, libc::SOCK_STREAM, 0)?;
    socket::network_of(socket.as_fd())
}
