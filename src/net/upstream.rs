//! The host's own resolvers: who they are, and asking them.
//!
//! Runs on the network's thread, in the host's network namespace. Each question goes out from a socket of its own with a
//! random number, so that an answer can only be forged by who sees the question.

use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::message::Query;
use super::{DNS_PORT, NetError};

/// The most that is read of a configuration file.
const LONGEST_FILE: u64 = 1 << 20;
/// The longest answer that is taken by UDP; more was never asked for.
const LONGEST_UDP: usize = 4096;

/// Which servers are asked and how: what `resolv.conf(5)` says, with its limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Servers {
    /// In the order in which they are asked.
    pub list: Vec<SocketAddr>,
    /// How long one is waited for.
    pub timeout: Duration,
    /// How often each is asked.
    pub attempts: u32,
}

impl Servers {
    /// Reads the text of a `resolv.conf`. Without a server in it the host itself is asked, as libc does.
    pub fn parse(text: &str) -> Self {
        const MOST: usize = 3;
        let mut servers = Self { list: Vec::new(), timeout: Duration::from_secs(5), attempts: 2 };
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => servers.list.extend(words.next().and_then(server)),
                Some("options") => words.for_each(|option| servers.option(option)),
                _ => {}
            }
        }
        servers.list.truncate(MOST);
        if servers.list.is_empty() {
            servers.list.push((Ipv4Addr::LOCALHOST, DNS_PORT).into());
        }
        servers
    }

    fn option(&mut self, option: &str) {
        let number = |value: &str, most: u32| value.parse().map_or(most, |number: u32| number.clamp(1, most));
        if let Some(value) = option.strip_prefix("timeout:") {
            self.timeout = Duration::from_secs(number(value, 30).into());
        } else if let Some(value) = option.strip_prefix("attempts:") {
            self.attempts = number(value, 5);
        }
    }
}

/// A server's address, perhaps with the interface it is reached by (`fe80::1%eth0`).
fn server(word: &str) -> Option<SocketAddr> {
    let Some((address, interface)) = word.split_once('%') else {
        return word.parse().ok().map(|address: IpAddr| SocketAddr::new(address, DNS_PORT));
    };
    let plain = !interface.contains('/') && !interface.starts_with('.');
    let index = || std::fs::read_to_string(format!("/sys/class/net/{interface}/ifindex")).ok()?.trim().parse().ok();
    let scope = interface.parse().ok().or_else(|| if plain { index() } else { None })?;
    Some(SocketAddrV6::new(address.parse().ok()?, DNS_PORT, 0, scope).into())
}

/// Reads a file of the host as text, up to a length beyond which no such file goes.
pub fn read_text(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(LONGEST_FILE).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The way to the host's resolvers.
#[derive(Debug)]
pub struct Upstream {
    file: PathBuf,
    known: Mutex<Known>,
    random: File,
}

#[derive(Debug)]
struct Known {
    servers: Servers,
    /// When the file that says so was changed last; `None`: there was none.
    changed: Option<SystemTime>,
}

impl Upstream {
    /// Takes the servers from `file`, a `resolv.conf`, and again whenever it changes.
    pub fn new(file: &Path) -> Result<Self, NetError> {
        let random = File::open("/dev/urandom").map_err(NetError::Random)?;
        let known = Known { changed: changed(file), servers: servers(file) };
        Ok(Self { file: file.into(), known: Mutex::new(known), random })
    }

    /// Asks these servers.
    #[cfg(test)]
    pub fn of(servers: Servers) -> Self {
        let known = Mutex::new(Known { servers, changed: None });
        Self { file: "/nonexistent".into(), known, random: File::open("/dev/urandom").unwrap() }
    }

    /// Asks one server after the other until one knows; returns the number of the question and the answer.
    ///
    /// Where none knows, what the last of them answered is returned, if any did; else why it could not be asked.
    pub async fn ask(&self, query: &Query, stream: bool) -> Result<(u16, Vec<u8>), Errno> {
        let servers = self.servers();
        let mut last = Err(Errno::ETIMEDOUT);
        for _ in 0..servers.attempts {
            for server in &servers.list {
                match self.ask_one(query, stream, *server, servers.timeout).await {
                    Ok((id, packet, false)) => return Ok((id, packet)),
                    Ok((id, packet, true)) => last = Ok((id, packet)),
                    Err(errno) => last = last.or(Err(errno)),
                }
            }
            if last.is_ok() {
                break;
            }
        }
        last
    }

    /// The third value tells whether another server may do better.
    async fn ask_one(
        &self,
        query: &Query,
        stream: bool,
        server: SocketAddr,
        patience: Duration,
    ) -> Result<(u16, Vec<u8>, bool), Errno> {
        let id = self.number()?;
        let sent = query.upstream(id);
        let packet = match stream {
            true => timeout(patience, ask_stream(server, &sent)).await,
            false => {
                timeout(patience, ask_packet(server, &sent, |packet| query.read_answer(id, packet).is_some())).await
            }
        };
        let packet = packet.map_err(|_| Errno::ETIMEDOUT)?.map_err(|error| errno(&error))?;
        let failure = query.read_answer(id, &packet).ok_or(Errno::EBADMSG)?.is_failure();
        Ok((id, packet, failure))
    }

    fn number(&self) -> Result<u16, Errno> {
        let mut bytes = [0; 2];
        (&self.random).read_exact(&mut bytes).map_err(|error| errno(&error))?;
        Ok(u16::from_ne_bytes(bytes))
    }

    fn servers(&self) -> Servers {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = changed(&self.file);
        if changed != known.changed {
            *known = Known { changed, servers: servers(&self.file) };
        }
        known.servers.clone()
    }
}

fn changed(file: &Path) -> Option<SystemTime> {
    file.metadata().and_then(|found| found.modified()).ok()
}

fn servers(file: &Path) -> Servers {
    Servers::parse(&read_text(file).unwrap_or_default())
}

/// Asks by UDP. What does not answer the question is passed over.
async fn ask_packet(server: SocketAddr, sent: &[u8], fits: impl Fn(&[u8]) -> bool) -> io::Result<Vec<u8>> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    // Connected, the kernel passes on nothing from anybody else, and says when nobody is there.
    socket.connect(server).await?;
    socket.send(sent).await?;
    let mut packet = vec![0; LONGEST_UDP];
    loop {
        let length = socket.recv(&mut packet).await?;
        if fits(&packet[..length]) {
            packet.truncate(length);
            return Ok(packet);
        }
    }
}

async fn ask_stream(server: SocketAddr, sent: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    write_message(&mut stream, sent).await?;
    read_message(&mut stream).await
}

/// Writes a message as TCP carries it, after its length.
pub async fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    let mut bytes = Vec::with_capacity(2 + message.len());
    bytes.extend(length.to_be_bytes());
    bytes.extend(message);
    stream.write_all(&bytes).await
}

/// Reads a message as TCP carries it.
pub async fn read_message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut message = vec![0; length.into()];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

fn errno(error: &io::Error) -> Errno {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Errno::ECONNRESET,
        _ => error.raw_os_error().map_or(Errno::EIO, Errno::from_raw),
    }
}

/// The names and addresses in the text of an `/etc/hosts`, in order, names in lower case. Names that no question can be
/// about are left out.
pub fn parse_hosts(text: &str) -> Vec<(String, IpAddr)> {
    let mut pairs = Vec::new();
    for line in text.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let Some(address) = words.next().and_then(|word| word.parse::<IpAddr>().ok()) else { continue };
        pairs.extend(words.filter_map(host_name).map(|name| (name, address)));
    }
    pairs
}

fn host_name(word: &str) -> Option<String> {
    let name = word.strip_suffix('.').unwrap_or(word).to_ascii_lowercase();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(plain);
    (name.len() <= 253 && name.split('.').all(label)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_as_libc_reads_them() {
        let text = "# x\nsearch a b\nnameserver 10.0.0.1\nnameserver  ::1 \nnameserver junk\noptions edns0 timeout:2 \
                    attempts:9\nnameserver 127.0.0.53\nnameserver 1.2.3.4\n";
        let servers = Servers::parse(text);
        let list: Vec<String> = servers.list.iter().map(ToString::to_string).collect();
        assert_eq!(list, ["10.0.0.1:53", "[::1]:53", "127.0.0.53:53"]);
        assert_eq!((servers.timeout, servers.attempts), (Duration::from_secs(2), 5));
        let empty = Servers::parse("nameserver\noptions timeout:0 attempts:x\n");
        assert_eq!(empty.list, ["127.0.0.1:53".parse().unwrap()]);
        assert_eq!((empty.timeout, empty.attempts), (Duration::from_secs(1), 5));
        assert_eq!(Servers::parse("nameserver fe80::1%3").list, ["[fe80::1%3]:53".parse().unwrap()]);
        assert_eq!(Servers::parse("nameserver fe80::1%../x").list, ["127.0.0.1:53".parse().unwrap()]);
    }

    #[test]
    fn hosts_are_read_with_all_their_names() {
        let text = "127.0.0.1 localhost\n10.0.0.5\tDB.Corp  db # the database\n::1 ip6-localhost\nbad line\n\
                    #9.9.9.9 no\n10.0.0.6 bad*name dot. é\n";
        let pairs: Vec<String> = parse_hosts(text).iter().map(|(name, address)| format!("{name}={address}")).collect();
        let expected = ["localhost=127.0.0.1", "db.corp=10.0.0.5", "db=10.0.0.5", "ip6-localhost=::1", "dot=10.0.0.6"];
        assert_eq!(pairs, expected);
    }
}
