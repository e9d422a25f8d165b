//! Connecting and naming sockets: done by a worker on the caller's own socket.
//!
//! The worker takes a copy of the caller's descriptor, which stands for the very same socket, and acts on that with the
//! address that was read and judged; neither can be swapped. What leads out of the box's network is `outside`'s.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;

use super::address::{Inet, Parsed, of_path, parse, parse_v4};
use super::notification::Reply;
use super::resolve::{Last, Resolved, Spot, resolve};
use super::{Context, Handled, Stop, lock, outside};
use crate::event::{Access, Endpoint, FileOp, Place, Unjudged, escape_bytes};
use crate::gate::Judged;
use crate::net::twin::Side;
use crate::sys::{self, file, socket};
use crate::syscalls::Arg;

/// The largest address the kernel takes: `struct sockaddr_storage`.
const MOST: u64 = 128;

/// Where the C library asks for a caching daemon before it looks names up itself. Every other program does; where there
/// is no daemon that is no event.
const NAME_CACHE: [&str; 2] = ["/var/run/nscd/socket", "/run/nscd/socket"];

/// Reads the address argument once.
pub fn address(context: &Context<'_>) -> Result<Vec<u8>, Stop> {
    let length = context.call.word(Arg::AddressLength) & 0xffff_ffff;
    if length > MOST {
        return Err(Stop::Errno(Errno::EINVAL));
    }
    context.memory(context.call.stopped.target.bytes(context.call.word(Arg::Address), length as usize))
}

/// Takes a copy of the caller's socket.
pub fn socket_of(context: &Context<'_>) -> Result<OwnedFd, Stop> {
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
    match parsed {
        Parsed::Path(path) => connect_path(context, &socket, &path),
        Parsed::Inet(inet) => outside::connect(context, socket, inet),
        other => {
            let dissolves = other == Parsed::Unspecified;
            let judged = context.judge(Access::Connect { to: endpoint(context, &socket, other)? }, None);
            if !judged.allowed() {
                return context.conclude_refused(judged, None);
            }
            if let (true, Some(net)) = (dissolves, context.shared.net()) {
                net.flows.dissolve(socket.as_fd());
                if outside::would_hear_anybody(context, &socket) {
                    return outside::bring_in(context, net, judged, socket);
                }
            }
            act(context, judged, &socket, |socket| socket::connect(socket.as_fd(), &address))
        }
    }
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
    let address = of_path(format!("self/fd/{}", object.as_raw_fd()).as_bytes());
    act(context, judged, socket, |socket| socket::connect(socket.as_fd(), &address))
}

/// `bind`.
pub fn bind(context: &Context<'_>) -> Handled {
    let address = address(context)?;
    let socket = socket_of(context)?;
    context.still_there()?;
    let Some(parsed) = parse(&address) else { return Err(Stop::Errno(Errno::EINVAL)) };
    let parsed = match parsed {
        Parsed::Path(path) => return bind_path(context, &socket, &path),
        // IPv4 takes an address of no family, too (`__inet_bind`, net/ipv4/af_inet.c).
        Parsed::Unspecified => parse_v4(&address).map_or(Parsed::Unspecified, Parsed::Inet),
        // Who is connected has no use for a name, and an end of a `pair` would take one of the host's.
        Parsed::Abstract(_) if socket::has_peer(socket.as_fd()) => return Err(Stop::Errno(Errno::EINVAL)),
        parsed => parsed,
    };
    let abstract_name = match &parsed {
        Parsed::Abstract(name) => Some(name.clone()),
        _ => None,
    };
    let at = endpoint(context, &socket, parsed)?;
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
    let bound = socket::bind(socket.as_fd(), &of_path(name.to_bytes()));
    let made = file::fstatat(libc::AT_FDCWD, name, libc::AT_SYMLINK_NOFOLLOW);
    file::fchdir(context.shared.target.host_proc.as_raw_fd())?;
    bound?;
    if let Ok(stat) = made {
        lock(&context.shared.made.sockets).insert((stat.st_dev, stat.st_ino));
    }
    Ok(())
}

/// Connects, and answers with what came of it; another worker takes over where this may wait.
pub fn act(
    context: &Context<'_>,
    judged: Judged,
    socket: &OwnedFd,
    connect: impl FnOnce(&OwnedFd) -> Result<(), Errno>,
) -> Handled {
    let waits = outside::waits(socket);
    let done = if waits { context.wait(|| connect(socket)) } else { connect(socket) };
    context.conclude(judged, super::fs::reply(done))
}

/// Whether a socket file belongs to this box: it was made in this run, or lies where only this run can make any.
fn is_own(context: &Context<'_>, stat: &libc::stat) -> bool {
    lock(&context.shared.made.sockets).contains(&(stat.st_dev, stat.st_ino)) || context.shared.is_private(stat.st_dev)
}

/// `listen`. A socket that belongs to the host's network would get a port there without a bind.
pub fn listen(context: &Context<'_>) -> Handled {
    let socket = socket_of(context)?;
    context.still_there()?;
    let backlog = context.call.int(Arg::Backlog);
    if outside::side(context, &socket) == Side::Box {
        socket::listen(socket.as_fd(), backlog).map_err(Stop::Errno)?;
        return Err(Stop::Nothing);
    }
    let at = socket::bound_to(socket.as_fd()).map_err(Stop::Errno)?;
    let Some(parsed) = parse(&at) else { return Err(Stop::Errno(Errno::EINVAL)) };
    let judged = context.judge(Access::Bind { at: endpoint(context, &socket, parsed)? }, None);
    if !judged.allowed() {
        return context.conclude_refused(judged, None);
    }
    let done = socket::listen(socket.as_fd(), backlog);
    context.conclude(judged, super::fs::reply(done))
}

/// `setsockopt` that joins a group of receivers. The host would tell its network that it did, and what group that is: on
/// behalf of a socket that may send nothing.
pub fn join(context: &Context<'_>) -> Handled {
    /// `struct group_source_req`; what is behind it the kernel does not look at.
    const LONGEST: usize = 264;
    let length = usize::try_from(context.call.int(Arg::OptionLength)).map_err(|_| Stop::Errno(Errno::EINVAL))?;
    let at = context.call.word(Arg::OptionValue);
    let value = context.memory(context.call.stopped.target.bytes(at, length.min(LONGEST)))?;
    let socket = socket_of(context)?;
    context.still_there()?;
    let (level, name) = (context.call.int(Arg::OptionLevel), context.call.int(Arg::OptionName));
    if outside::side(context, &socket) == Side::Box {
        socket::set_option(socket.as_fd(), level, name, &value).map_err(Stop::Errno)?;
        return Err(Stop::Nothing);
    }
    let inet = group(level, name, &value).ok_or(Stop::Errno(Errno::EINVAL))?;
    let at = outside::endpoint(context, &socket, inet);
    let judged = context.judge(Access::Bind { at }, None);
    if !judged.allowed() {
        return context.conclude_refused(judged, None);
    }
    let done = socket::set_option(socket.as_fd(), level, name, &value);
    context.conclude(judged, super::fs::reply(done))
}

/// The group that one of [`crate::syscalls::JOINS`] joins.
fn group(level: i32, name: i32, value: &[u8]) -> Option<Inet> {
    let ip = match (level, name) {
        (libc::IPPROTO_IP, libc::IP_ADD_MEMBERSHIP | libc::IP_ADD_SOURCE_MEMBERSHIP) => {
            IpAddr::from(*value.first_chunk::<4>()?)
        }
        (libc::IPPROTO_IPV6, libc::IPV6_ADD_MEMBERSHIP) => IpAddr::from(*value.first_chunk::<16>()?),
        // An interface, padding, an address.
        _ => match parse(value.get(8..)?)? {
            Parsed::Inet(inet) => return Some(inet),
            _ => return None,
        },
    };
    Some(Inet { address: SocketAddr::new(ip, 0), as_v6: ip.is_ipv6() })
}

/// What an address means on a socket of the caller's.
pub fn endpoint(context: &Context<'_>, socket: &OwnedFd, parsed: Parsed) -> Result<Endpoint, Stop> {
    Ok(match parsed {
        Parsed::Inet(inet) => outside::endpoint(context, socket, inet),
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
