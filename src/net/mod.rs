//! The box's way to and from the outside: names, connections on its behalf, published ports.
//!
//! Two threads, started only for a box whose network has rules or published ports. One runs everything that waits, in
//! the host's network namespace, with the right to trace and no other. The other ([`Inside`]) sits in the box's network
//! namespace and makes sockets there. What may happen is asked of the gate.

pub mod dial;
pub mod dns;
pub mod flows;
mod inside;
pub mod lookup;
mod message;
pub mod names;
pub mod publish;
pub mod twin;
mod upstream;

use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use caps::{CapSet, Capability, CapsHashSet};
use nix::errno::Errno;
use tokio::runtime;
use tokio::sync::oneshot;

use crate::gate::Gate;
use crate::sys::socket;
use dns::{Resolver, Sockets};
use flows::Flows;
pub use inside::Inside;
use names::{Askers, Names};
use publish::{Doors, Published};

/// Where name servers listen.
const DNS_PORT: u16 = 53;

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
    /// Questions to name servers need random numbers.
    #[error("cannot open /dev/urandom")]
    Random(#[source] std::io::Error),
}

/// What a box's network is to have.
#[derive(Debug)]
pub struct Start {
    /// Where everything is decided and counted.
    pub gate: Arc<Gate>,
    /// The box's network namespace.
    pub box_network: OwnedFd,
    /// Whether rules let anything out: then names are answered and bytes are counted.
    pub rules: bool,
    /// Whether rules let pings out.
    pub ping: bool,
    /// The ports that are open to the outside.
    pub published: Vec<Published>,
}

/// The way out of a running box, until [`Net::finish`].
#[derive(Debug)]
pub struct Net {
    /// Which names the box was given for which addresses.
    pub names: Arc<Names>,
    /// Who asks the box's resolver: to be told of each socket that is connected to it.
    pub askers: Arc<Askers>,
    /// Sockets in the box's network namespace.
    pub inside: Arc<Inside>,
    /// Bytes of the connections that the box is given.
    pub flows: Flows,
    /// Sockets in place of others.
    pub twins: twin::Twins,
    doors: Arc<Doors>,
    /// Runs what waits.
    handle: runtime::Handle,
    thread: Mutex<Option<Thread>>,
}

/// The network's thread. Dropping the word ends it.
type Thread = (oneshot::Sender<()>, JoinHandle<()>);

impl Net {
    /// Starts both threads, the box's resolver where there are rules, and lets visitors of published ports in. To be called
    /// in the host's network namespace. When this returns, the box can ask for names.
    pub fn start(start: Start) -> Result<Arc<Self>, NetError> {
        let Start { gate, box_network, rules, ping, published } = start;
        let inside = Arc::new(Inside::start(box_network, ping)?);
        let (names, askers) = (Arc::new(Names::default()), Arc::new(Askers::default()));
        host_network().map_err(|errno| NetError::Step("tell the host's network from the box's", errno))?;
        let runtime = runtime::Builder::new_current_thread().enable_all().build().map_err(NetError::Thread)?;
        let handle = runtime.handle().clone();
        let doors = Doors::new(Arc::clone(&gate), Arc::clone(&inside));
        for one in published {
            handle.spawn(publish::serve(Arc::clone(&doors), one));
        }
        let flows = if rules { Flows::start(&gate, &handle) } else { Flows::default() };
        if rules {
            let sockets = Sockets::take(&inside)?;
            let resolver = Arc::new(Resolver::new(gate, Arc::clone(&names), Arc::clone(&askers))?);
            let _on = runtime.enter();
            resolver.serve(sockets).map_err(NetError::Thread)?;
        }
        let (thread, twins) = (Mutex::new(Some(thread(runtime)?)), twin::Twins::default());
        Ok(Arc::new(Self { names, askers, inside, flows, twins, doors, handle, thread }))
    }

    /// Runs `work` on the network's thread.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.handle.spawn(work);
    }

    /// Passes on what the box has said, for which whoever it was said to has `limit`; counts what is left to count; and ends
    /// all that runs on the network's thread, and the thread. What was under way is on record when this returns.
    ///
    /// To be called in the host's network namespace, not on that thread, once the box's processes have ended and before the
    /// gate sums up.
    pub fn finish(&self, limit: Duration) {
        self.doors.finish(limit);
        self.flows.finish();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((end, thread)) = thread {
            drop(end);
            let _ = thread.join();
        }
    }
}

fn thread(runtime: runtime::Runtime) -> Result<Thread, NetError> {
    let (end, ended) = oneshot::channel::<()>();
    let (ready, is_ready) = sync_channel(1);
    let run = move || {
        let dropped = drop_rights();
        let failed = dropped.is_err();
        // Whoever started this waits for the word.
        let _ = ready.send(dropped);
        if !failed {
            let _ = runtime.block_on(ended);
        }
    };
    let thread = std::thread::Builder::new().name("net".into()).spawn(run).map_err(NetError::Thread)?;
    is_ready.recv().unwrap_or(Err(NetError::Step("start the network's thread", Errno::ESRCH)))?;
    Ok((end, thread))
}

/// Keeps the right to trace, as workers do, to look at the descriptors of callers that hide them; no other.
fn drop_rights() -> Result<(), NetError> {
    let held = caps::read(None, CapSet::Permitted).map_err(NetError::Capabilities)?;
    let trace: CapsHashSet = held.intersection(&CapsHashSet::from([Capability::CAP_SYS_PTRACE])).copied().collect();
    for set in [CapSet::Effective, CapSet::Permitted] {
        caps::set(None, set, &trace).map_err(NetError::Capabilities)?;
    }
    Ok(())
}

/// Stands for the network namespace of the calling thread: see [`socket::network_of`].
pub fn host_network() -> Result<u64, Errno> {
    let socket = socket::new(libc::AF_INET, libc::SOCK_STREAM, 0)?;
    socket::network_of(socket.as_fd())
}
