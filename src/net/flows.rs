//! How many bytes went over the connections that the box was given.
//!
//! Such a connection is the box's own, in the host's network namespace. When the kernel gives its socket up, it says to
//! whoever listens how many bytes it carried; so nothing stands in the way of the data, and no descriptor is kept.
//! Needs no right. A socket is told from others by its cookie.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::AddressFamily;
use tokio::runtime::Handle;

use crate::event::{Access, Endpoint, Event, Transport};
use crate::gate::{Gate, Moved, Toward};
use crate::sys::diag::{self, Report};

/// How long the next of the kernel's last words about sockets is waited for, once the box's processes have ended.
const LAST_WORDS: Duration = Duration::from_millis(20);
/// How often, while they keep coming.
const PATIENCE: usize = 10;

/// The connections whose bytes are being counted.
#[derive(Debug, Clone, Default)]
pub struct Flows {
    /// `None` where there is nothing to count, or the kernel does not tell.
    shared: Option<Arc<Shared>>,
}

#[derive(Debug)]
struct Shared {
    gate: Arc<Gate>,
    open: Mutex<Open>,
    /// The last of the open ones was counted.
    none_left: Condvar,
}

#[derive(Debug, Default)]
struct Open {
    flows: HashMap<u64, Flow>,
    /// Some messages did not reach us.
    lost: bool,
}

#[derive(Debug)]
struct Flow {
    toward: Toward,
    port: u16,
}

impl Flows {
    /// Begins to listen, in the network namespace of the calling thread.
    ///
    /// Where the kernel does not tell, that is on record, and no bytes are counted.
    pub(super) fn start(gate: &Arc<Gate>, handle: &Handle) -> Self {
        let socket = match diag::available().and_then(|()| diag::open_destroyed()) {
            Ok(socket) => socket,
            Err(errno) => {
                let why = errno.desc();
                gate.remark(format!("bytes are not counted: the kernel does not report on TCP sockets ({why})"));
                return Self::default();
            }
        };
        let shared = Shared { gate: Arc::clone(gate), open: Mutex::default(), none_left: Condvar::new() };
        let shared = Arc::new(shared);
        handle.spawn(listen(Arc::clone(&shared), socket));
        Self { shared: Some(shared) }
    }

    /// Counts the bytes of `socket` for the party that `event` is about, from its first to its last. To be called before the
    /// box gets the socket. What is no TCP connection to a party outside is not counted.
    pub fn watch(&self, socket: BorrowedFd<'_>, event: &Event) {
        let Some(shared) = &self.shared else { return };
        let Access::Connect { to: Endpoint::Inet { address, transport: Transport::Tcp, .. } } = &event.access else {
            return;
        };
        let Some(toward) = Toward::of(event) else { return };
        match diag::cookie(socket) {
            Ok(cookie) => shared.watch(cookie, Flow { toward, port: address.port() }),
            Err(_) => shared.gate.transferred(&toward, None),
        }
    }

    /// Counts what `socket` has carried so far. To be called right before its connection is dissolved (a connect to
    /// `AF_UNSPEC`), for then the kernel forgets it; from then on the socket is not watched. Nothing happens if it was not.
    pub fn dissolve(&self, socket: BorrowedFd<'_>) {
        let Some(shared) = &self.shared else { return };
        if let Ok(cookie) = diag::cookie(socket) {
            shared.settle(Report { cookie, bytes: diag::bytes_of_socket(socket).ok() });
        }
    }

    /// Counts what is still open, and says if anything could not be counted. To be called in the host's network namespace,
    /// once the box's processes have ended; what the kernel still sends for them by then is not waited for.
    pub fn finish(&self) {
        let Some(shared) = &self.shared else { return };
        shared.wait();
        shared.ask();
        shared.wait();
        let uncounted = shared.give_up();
        if uncounted > 0 {
            let count = if uncounted == 1 { "1 connection".into() } else { format!("{uncounted} connections") };
            shared.gate.remark(format!("byte counts are incomplete: the kernel's word on {count} did not arrive"));
        }
    }
}

async fn listen(shared: Arc<Shared>, socket: OwnedFd) {
    let Ok(socket) = diag::register(socket) else { return };
    while let Ok(mut ready) = socket.readable().await {
        match diag::receive(ready.get_inner().as_fd()) {
            Ok(reports) => reports.into_iter().for_each(|report| shared.settle(report)),
            Err(Errno::EAGAIN) => {
                ready.clear_ready();
                // All that did arrive has been seen.
                shared.look_for_the_lost();
            }
            Err(Errno::ENOBUFS) => shared.open().lost = true,
            Err(_) => {}
        }
    }
}

impl Shared {
    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch(&self, cookie: u64, flow: Flow) {
        let mut open = self.open();
        let before = open.flows.insert(cookie, flow);
        // A socket that is connected a second time, elsewhere: the kernel forgot what went before.
        if let Some(before) = before
            && open.flows.get(&cookie).is_some_and(|flow| flow.toward != before.toward)
        {
            self.gate.transferred(&before.toward, None);
        }
    }

    /// Whoever takes a flow out counts it, so none is counted twice.
    fn settle(&self, report: Report) {
        let mut open = self.open();
        let Some(flow) = open.flows.remove(&report.cookie) else { return };
        // Under the lock: who finds none left finds all counted.
        self.gate.transferred(&flow.toward, report.bytes.map(|(out, inward)| Moved { out, inward }));
        if open.flows.is_empty() {
            self.none_left.notify_all();
        }
    }

    fn wait(&self) {
        let mut open = self.open();
        for _ in 0..PATIENCE {
            let before = open.flows.len();
            let left = |open: &mut Open| !open.flows.is_empty();
            let waited = self.none_left.wait_timeout_while(open, LAST_WORDS, left);
            open = waited.unwrap_or_else(PoisonError::into_inner).0;
            if open.flows.is_empty() || open.flows.len() == before {
                return;
            }
        }
    }

    /// Asks the kernel for the sockets that are still open, and counts them as far as they are.
    fn ask(&self) {
        for report in self.still_open() {
            self.settle(report);
        }
    }

    fn still_open(&self) -> Vec<Report> {
        let mut ports: Vec<u16> = self.open().flows.values().map(|flow| flow.port).collect();
        ports.sort_unstable();
        ports.dedup();
        let families = [AddressFamily::Inet, AddressFamily::Inet6];
        let asked = ports.iter().flat_map(|&port| families.map(|family| diag::connected(family, port)));
        asked.flat_map(Result::unwrap_or_default).collect()
    }

    /// After messages were lost, forgets the flows that have ended without a word, so that they do not pile up.
    fn look_for_the_lost(&self) {
        if !std::mem::take(&mut self.open().lost) {
            return;
        }
        let known: Vec<u64> = self.open().flows.keys().copied().collect();
        let open: HashSet<u64> = self.still_open().into_iter().map(|report| report.cookie).collect();
        let gone: Vec<u64> = known.into_iter().filter(|cookie| !open.contains(cookie)).collect();
        if !gone.is_empty() {
            self.gate.remark(format!("byte counts are incomplete: {} reports were lost", gone.len()));
        }
        for cookie in gone {
            self.settle(Report { cookie, bytes: None });
        }
    }

    fn give_up(&self) -> usize {
        let left = std::mem::take(&mut self.open().flows);
        for flow in left.values() {
            self.gate.transferred(&flow.toward, None);
        }
        left.len()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::audit::Destination;

    /// A gate of its own, flows that are listened to, and what keeps them so.
    struct Bench {
        gate: Arc<Gate>,
        flows: Flows,
        end: Option<tokio::sync::oneshot::Sender<()>>,
        thread: Option<std::thread::JoinHandle<()>>,
        _dir: tempfile::TempDir,
    }

    impl Bench {
        /// `None` where the kernel does not tell.
        fn new() -> Option<Self> {
            if diag::available().is_err() {
                println!("skipped: the kernel has no inet_diag");
                return None;
            }
            let (gate, dir) = crate::gate::bench();
            let gate = Arc::new(gate);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let flows = Flows::start(&gate, runtime.handle());
            let (end, ended) = tokio::sync::oneshot::channel::<()>();
            let thread = std::thread::spawn(move || drop(runtime.block_on(ended)));
            Some(Self { gate, flows, end: Some(end), thread: Some(thread), _dir: dir })
        }

        fn watch(&self, stream: &TcpStream, name: &str) {
            let address = stream.peer_addr().unwrap();
            let to = Endpoint::Inet { address, outside: true, transport: Transport::Tcp, names: vec![name.into()] };
            self.flows.watch(stream.as_fd(), &Event::new(Default::default(), Access::Connect { to }));
        }

        fn destinations(&self) -> Vec<Destination> {
            self.gate.summary().destinations
        }
    }

    impl Drop for Bench {
        fn drop(&mut self) {
            drop(self.end.take());
            self.thread.take().map(std::thread::JoinHandle::join);
        }
    }

    fn pair(at: &str) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind(at).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0)
    }

    fn exchange(client: &mut TcpStream, server: &mut TcpStream, out: usize, inward: usize) {
        client.write_all(&vec![1; out]).unwrap();
        server.read_exact(&mut vec![0; out]).unwrap();
        server.write_all(&vec![2; inward]).unwrap();
        client.read_exact(&mut vec![0; inward]).unwrap();
    }

    fn sums(destination: &Destination) -> (Option<u64>, Option<u64>, u64) {
        (destination.bytes_out, destination.bytes_in, destination.uncounted)
    }

    #[test]
    fn closed_and_open_connections_are_counted_for_their_party() {
        let Some(bench) = Bench::new() else { return };
        let (mut first, mut first_server) = pair("127.0.0.1:0");
        bench.watch(&first, "first");
        exchange(&mut first, &mut first_server, 1000, 3000);
        let (mut second, mut second_server) = pair("127.0.0.1:0");
        bench.watch(&second, "second");
        exchange(&mut second, &mut second_server, 50, 60);
        drop(first);
        bench.flows.finish();
        let found = bench.destinations();
        let mut counted: Vec<_> = found.iter().map(sums).collect();
        counted.sort_unstable();
        assert_eq!(counted, [(Some(50), Some(60), 0), (Some(1000), Some(3000), 0)]);
        drop(second);
        bench.flows.finish();
        assert_eq!(bench.destinations(), found, "nothing is counted twice");
        assert_eq!(bench.gate.summary().notes, [""; 0]);
    }

    #[test]
    fn ipv6_is_counted_too() {
        let Some(bench) = Bench::new() else { return };
        if TcpListener::bind("[::1]:0").is_err() {
            println!("skipped: the host has no IPv6 loopback");
            return;
        }
        let (mut client, mut server) = pair("[::1]:0");
        bench.watch(&client, "six");
        exchange(&mut client, &mut server, 10, 20);
        drop(client);
        bench.flows.finish();
        assert_eq!(sums(&bench.destinations()[0]), (Some(10), Some(20), 0));
    }

    #[test]
    fn what_the_kernel_forgot_is_uncounted() {
        let Some(bench) = Bench::new() else { return };
        let (mut client, mut server) = pair("127.0.0.1:0");
        bench.watch(&client, "hidden");
        exchange(&mut client, &mut server, 1000, 1);
        reset_at_end(&client);
        drop(client);
        bench.flows.finish();
        assert_eq!(sums(&bench.destinations()[0]), (None, None, 1));
    }

    fn reset_at_end(stream: &TcpStream) {
        use nix::sys::socket::{setsockopt, sockopt};
        setsockopt(stream, sockopt::Linger, &nix::libc::linger { l_onoff: 1, l_linger: 0 }).unwrap();
    }

    #[test]
    fn a_socket_that_is_connected_elsewhere_leaves_the_first_party_uncounted() {
        let Some(bench) = Bench::new() else { return };
        let (mut client, mut server) = pair("127.0.0.1:0");
        bench.watch(&client, "first");
        bench.watch(&client, "first");
        bench.watch(&client, "second");
        exchange(&mut client, &mut server, 5, 6);
        drop(client);
        bench.flows.finish();
        assert_eq!(bench.destinations().iter().map(sums).collect::<Vec<_>>(), [(None, None, 1), (Some(5), Some(6), 0)]);
    }

    #[test]
    fn what_is_dissolved_is_counted_before_the_kernel_forgets_it() {
        let Some(bench) = Bench::new() else { return };
        let (mut client, mut server) = pair("127.0.0.1:0");
        bench.flows.dissolve(client.as_fd());
        bench.watch(&client, "one");
        exchange(&mut client, &mut server, 500, 600);
        bench.flows.dissolve(client.as_fd());
        crate::sys::socket::connect(client.as_fd(), &[0; 16]).unwrap();
        drop(client);
        bench.flows.finish();
        assert_eq!(bench.destinations().iter().map(sums).collect::<Vec<_>>(), [(Some(500), Some(600), 0)]);
    }

    #[test]
    fn many_connections_that_end_at_once_are_all_accounted_for() {
        let Some(bench) = Bench::new() else { return };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let pairs: Vec<_> = (0..300)
            .map(|_| {
                let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                bench.watch(&client, "many");
                client.write_all(&[0; 10]).unwrap();
                (client, listener.accept().unwrap())
            })
            .collect();
        drop(pairs);
        bench.flows.finish();
        let (out, _, uncounted) = sums(&bench.destinations()[0]);
        assert_eq!(out.unwrap_or(0) + uncounted * 10, 3000, "{uncounted} uncounted");
    }
}
