//! Connecting and naming sockets: done by a worker on the caller's own socket.
//!
//! The worker takes a copy of the caller's descriptor, which stands for the very same socket, and acts on that with the
//! address that was read and judged; neither can be swapped. The socket stays in the box's network namespace.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::notification::Reply;
use super::resolve::{Last, Resolved, Spot, resolve};
use super::{Context, Handled, Stop, lock};
use crate::event::{Access, Endpoint, FileOp, Place, Transport, Unjudged, escape_bytes};
use crate::gate::Judged;
use crate::sys::{self, file, socket};
use crate::syscalls::Arg;

/// The largest address the kernel takes: `struct sockaddr_storage`.
const MOST: u64 = 128;

/// Where the C library asks for a caching daemon before it looks names up itself. Every other program does; where there
/// is no daemon that is no event.
const NAME_CACHE: [&str; 2] = ["/var/run/nscd/socket", "/run/nscd/socket"];

/// Reads the address argument once.
fn address(context: &Context<'_>) -> Result<Vec<u8>, Stop> {
    let length = context.call.word(Arg::AddressLength) & 0xffff_ffff;
    if length > MOST {
        return Err(Stop::Errno(Errno::EINVAL));
    }
    context.memory(context.call.stopped.target.bytes(context.call.word(Arg::Address), length as usize))
}

/// Takes a copy of the caller's socket.
fn socket_of(context: &Context<'_>) -> Result<OwnedFd, Stop> {
    // The thread's own table; kernels before 6.9 only know the process by its first thread.
    let tid = context.call.stopped.target.tid;
    let pidfd = sys::process::open_pidfd(tid, true)
        .or_else(|_| sys::process::open_pidfd(context.task.subject.host, false))
        .map_err(|_| Stop::Gone)?;
    match sys::process::take_fd(pidfd.as_fd(), context.call.int(Arg::Fd)) {
        Err(Errno::EBADF) => Err(Stop::Errno(Errno::EBADF)),
        Err(Errno::ESRCH) => Err(Stop::Gone),
        Err(_) => Err(Stop::Unjudged(Unjudged::Unreadable, Errno::EACCES)),
        Ok(fd) => Ok(fd),
    }
}

/// `connect`.
pub fn connect(context: &Context<'_>) -> Handled {
    let address = address(context)?;
    let socket = socket_of(context)?;
    context.still_there()?;
    let Some(parsed) = parse(&address) else { return Err(Stop::Errno(Errno::EINVAL)) };
    if let Parsed::Path(path) = parsed {
        return connect_path(context, &socket, &path);
    }
    let to = endpoint(context, parsed)?;
    let judged = context.judge(Access::Connect { to }, None);
    if !judged.allowed() {
        return context.conclude_refused(judged, None);
    }
    act(context, judged, &socket, |socket| socket::connect(socket.as_fd(), &address))
}

/// Connects to a socket file: to the file that was resolved and judged, whatever its name means by then.
fn connect_path(context: &Context<'_>, socket: &OwnedFd, path: &std::ffi::CStr) -> Handled {
    let found = match resolve(&context.caller(), libc::AT_FDCWD, path, Last::Followed) {
        Ok(found) => found,
        Err(missing) if NAME_CACHE.iter().any(|name| path.to_bytes() == name.as_bytes()) => {
            return Err(Stop::Errno(missing.errno));
        }
        Err(missing) => {
            return context.nowhere(missing, |at| Access::Connect { to: Endpoint::Unix { path: at.path, own: false } });
        }
    };
    context.still_there()?;
    let own = found.stat.is_some_and(|stat| is_own(context, &stat));
    let to = Endpoint::Unix { path: found.path.clone(), own };
    let judged = context.judge(Access::Connect { to }, None);
    if found.stat.is_none() {
        return context.conclude(judged, Reply::Errno(Errno::ENOENT));
    }
    if !judged.allowed() {
        return context.conclude_refused(judged, None);
    }
    let object = match found.object() {
        Ok(object) => object,
        Err(errno) => return context.conclude(judged, Reply::Errno(errno)),
    };
    let address = path_address(format!("self/fd/{}", object.as_raw_fd()).as_bytes());
    act(context, judged, socket, |socket| socket::connect(socket.as_fd(), &address))
}

/// `bind`.
pub fn bind(context: &Context<'_>) -> Handled {
    let address = address(context)?;
    let socket = socket_of(context)?;
    context.still_there()?;
    let Some(parsed) = parse(&address) else { return Err(Stop::Errno(Errno::EINVAL)) };
    if let Parsed::Path(path) = parsed {
        return bind_path(context, &socket, &path);
    }
    let abstract_name = match &parsed {
        Parsed::Abstract(name) => Some(name.clone()),
        _ => None,
    };
    let at = endpoint(context, parsed)?;
    let judged = context.judge(Access::Bind { at }, None);
    if !judged.allowed() {
        return context.conclude_refused(judged, None);
    }
    let done = socket::bind(socket.as_fd(), &address);
    if let (Some(name), Ok(())) = (abstract_name, &done) {
        lock(&context.shared.made.abstract_names).insert(name);
    }
    context.conclude(judged, super::fs::reply(done))
}

/// Makes a socket file: a name like any other, so judged like one.
fn bind_path(context: &Context<'_>, socket: &OwnedFd, path: &std::ffi::CStr) -> Handled {
    let found = match resolve(&context.caller(), libc::AT_FDCWD, path, Last::Itself) {
        Ok(found) => found,
        Err(missing) => return context.nowhere(missing, |at| Access::File { op: FileOp::Mknod, at }),
    };
    context.still_there()?;
    if found.stat.is_some() {
        return Err(Stop::Errno(Errno::EADDRINUSE));
    }
    let own_repository = context.shared.made.owns(&found);
    let place = Place { own_repository, ..Place::of(found.path.clone()) };
    let judged = context.judge(Access::File { op: FileOp::Mknod, at: place }, None);
    if !judged.allowed() {
        return context.conclude_refused(judged, None);
    }
    let done = bind_at(context, socket, &found);
    context.conclude(judged, super::fs::reply(done))
}

/// Binds below a held directory: by entering it, as bind has no `*at` form and its paths are short.
fn bind_at(context: &Context<'_>, socket: &OwnedFd, found: &Resolved) -> Result<(), Errno> {
    let Spot::Name { parent, name } = &found.spot else { return Err(Errno::EADDRINUSE) };
    super::fs::take_umask(context);
    file::fchdir(parent.as_raw_fd())?;
    let bound = socket::bind(socket.as_fd(), &path_address(name.to_bytes()));
    let made = file::fstatat(libc::AT_FDCWD, name, libc::AT_SYMLINK_NOFOLLOW);
    file::fchdir(context.shared.target.host_proc.as_raw_fd())?;
    bound?;
    if let Ok(stat) = made {
        lock(&context.shared.made.sockets).insert((stat.st_dev, stat.st_ino));
    }
    Ok(())
}

/// Connects, and answers with what came of it; another worker takes over where this may wait.
fn act(
    context: &Context<'_>,
    judged: Judged,
    socket: &OwnedFd,
    connect: impl FnOnce(&OwnedFd) -> Result<(), Errno>,
) -> Handled {
    let waits = fcntl(socket, FcntlArg::F_GETFL).is_ok_and(|flags| flags & OFlag::O_NONBLOCK.bits() == 0);
    let done = if waits { context.wait(|| connect(socket)) } else { connect(socket) };
    context.conclude(judged, super::fs::reply(done))
}

/// Whether a socket file belongs to this box: it was made in this run, or lies where only this run can make any.
fn is_own(context: &Context<'_>, stat: &libc::stat) -> bool {
    lock(&context.shared.made.sockets).contains(&(stat.st_dev, stat.st_ino)) || context.shared.is_private(stat.st_dev)
}

/// An address, taken apart.
#[derive(Debug, PartialEq, Eq)]
enum Parsed {
    Inet(SocketAddr),
    Path(std::ffi::CString),
    Abstract(Vec<u8>),
    Unspecified,
    Netlink,
    Other(u16),
}

/// Takes an address apart as the kernel does; `None` if it is too short for its family.
fn parse(bytes: &[u8]) -> Option<Parsed> {
    let family = u16::from_ne_bytes(*bytes.first_chunk()?);
    Some(match i32::from(family) {
        libc::AF_UNSPEC => Parsed::Unspecified,
        libc::AF_INET => Parsed::Inet(parse_v4(bytes)?),
        libc::AF_INET6 => Parsed::Inet(parse_v6(bytes)?),
        libc::AF_UNIX => match &bytes[2..] {
            [] => Parsed::Abstract(Vec::new()),
            [0, name @ ..] => Parsed::Abstract(name.to_vec()),
            path => {
                let end = path.iter().position(|byte| *byte == 0).unwrap_or(path.len());
                Parsed::Path(std::ffi::CString::new(&path[..end]).ok()?)
            }
        },
        libc::AF_NETLINK => Parsed::Netlink,
        _ => Parsed::Other(family),
    })
}

fn parse_v4(bytes: &[u8]) -> Option<SocketAddr> {
    let port = u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?);
    let address: [u8; 4] = *bytes.get(4..)?.first_chunk()?;
    Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::from(address)), port))
}

/// An IPv4-mapped address is the IPv4 address it stands for, so that no rule can be passed by another spelling.
fn parse_v6(bytes: &[u8]) -> Option<SocketAddr> {
    let port = u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?);
    let address: [u8; 16] = *bytes.get(8..)?.first_chunk()?;
    let address = Ipv6Addr::from(address);
    Some(SocketAddr::new(address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4), port))
}

fn endpoint(context: &Context<'_>, parsed: Parsed) -> Result<Endpoint, Stop> {
    Ok(match parsed {
        Parsed::Inet(address) => {
            let inside = context.shared.target.own_network && is_loopback(address.ip());
            Endpoint::Inet { address, outside: !inside, transport: Transport::Tcp, names: Vec::new() }
        }
        // Landlock keeps the box's own tasks from abstract sockets outside; a worker has no Landlock, so it must know.
        Parsed::Abstract(name) => Endpoint::Abstract {
            own: context.shared.target.own_network || lock(&context.shared.made.abstract_names).contains(&name),
            name: escape_bytes(&name),
        },
        Parsed::Unspecified => Endpoint::Unspecified,
        Parsed::Netlink => Endpoint::Netlink,
        Parsed::Other(number) => Endpoint::Other { number },
        Parsed::Path(_) => return Err(Stop::Errno(Errno::EINVAL)),
    })
}

/// Loopback, and the unspecified address, which the kernel takes for loopback in connect and for "any" in bind.
fn is_loopback(address: IpAddr) -> bool {
    address.is_loopback() || address.is_unspecified()
}

/// A unix address for `path`, which must be short.
fn path_address(path: &[u8]) -> Vec<u8> {
    let mut address = (libc::AF_UNIX as u16).to_ne_bytes().to_vec();
    address.extend_from_slice(path);
    address.push(0);
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v6(address: &str, port: u16) -> Vec<u8> {
        let mut bytes = (libc::AF_INET6 as u16).to_ne_bytes().to_vec();
        bytes.extend(port.to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend(address.parse::<Ipv6Addr>().unwrap().octets());
        bytes.extend([0; 4]);
        bytes
    }

    #[test]
    fn a_mapped_address_is_the_address_it_stands_for() {
        assert_eq!(parse(&v6("::ffff:10.0.0.1", 80)), Some(Parsed::Inet("10.0.0.1:80".parse().unwrap())));
        assert_eq!(parse(&v6("::1", 1)), Some(Parsed::Inet("[::1]:1".parse().unwrap())));
    }

    #[test]
    fn an_address_that_is_too_short_is_none_at_all() {
        assert_eq!(parse(&[]), None);
        assert_eq!(parse(&[2]), None);
        assert_eq!(parse(&v6("::1", 1)[..20]), None);
        assert_eq!(parse(&[2, 0, 0, 80, 127, 0, 0]), None);
    }

    #[test]
    fn unix_addresses_end_at_their_nul_or_begin_with_one() {
        assert_eq!(parse(b"\x01\0/a/b\0junk"), Some(Parsed::Path(c"/a/b".into())));
        assert_eq!(parse(b"\x01\0\0name"), Some(Parsed::Abstract(b"name".to_vec())));
        assert_eq!(parse(b"\x01\0"), Some(Parsed::Abstract(vec![])));
    }
}
