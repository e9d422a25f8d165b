//! Asks the kernel once what it can do and returns that as a value, [`HostFacts`].
//!
//! Runs in agentbox before it forks. `probe` makes a handful of cheap calls, because every run pays for them; what it
//! cannot know without trying (whether this user may make a user namespace) the launcher finds out by doing it, and
//! `doctor` by [`try_user_namespace`] in a child.

use std::fs;
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid};
use serde::Serialize;

use crate::sys;
use crate::sys::process::Alone;

/// What this host's kernel can do for a box.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HostFacts {
    /// Effective user and group.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
    /// Landlock ABI; 0 when absent or switched off.
    pub landlock_abi: i32,
    /// The kernel can stop calls for a supervisor (Linux 5.0; fds can be handed over atomically from 5.14).
    pub notify: bool,
    /// A stopped call waits through signals (Linux 5.19).
    pub wait_killable: bool,
    /// Why user namespaces cannot be had, if that is known without trying.
    pub no_user_namespace: Option<String>,
    /// The host's `/etc/resolv.conf`, if there is one.
    pub resolv_conf: Option<ResolvConf>,
    /// This host has an IPv6 address by which more than its own link can be reached.
    pub ipv6: bool,
    /// The first standard stream that the command will hold and that has a name on the host (a file, a FIFO, a terminal):
    /// through it, mode, owner and times can be set, wherever it lies.
    pub named_stream: Option<&'static str>,
    /// The first standard stream that is a socket of the host's which could be turned to somebody else.
    pub socket_stream: Option<&'static str>,
    /// agentbox's own executable, if that is still where it was started from.
    pub program: Option<PathBuf>,
    /// This process already runs under a seccomp filter: inside a container or another box.
    pub filtered: bool,
}

/// The host's `/etc/resolv.conf`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ResolvConf {
    /// Where it really lies: often it is a link.
    pub path: PathBuf,
    /// Those of its lines that mean the same whoever answers: where short names are looked for, and how patiently.
    pub habits: String,
}

impl HostFacts {
    /// Asks the kernel.
    pub fn probe() -> Self {
        Self {
            uid: nix::unistd::geteuid().as_raw(),
            gid: nix::unistd::getegid().as_raw(),
            landlock_abi: landlock_abi(),
            notify: sys::notify::sizes().is_ok(),
            wait_killable: sys::notify::knows_flags(
                libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
            ),
            no_user_namespace: no_user_namespace(),
            resolv_conf: resolv_conf(Path::new("/etc/resolv.conf")),
            ipv6: has_ipv6(),
            named_stream: named_stream(),
            socket_stream: socket_stream(),
            program: program(),
            filtered: filtered(),
        }
    }
}

/// The kernel says of a file that was replaced since, as by an update, that it is deleted; such a path is not there.
fn program() -> Option<PathBuf> {
    std::env::current_exe().ok().filter(|path| path.exists())
}

/// Pipes and sockets have no name, and the box puts a `/dev/null` of its own in the place of the host's; so it does with
/// terminals where input and output both are.
fn named_stream() -> Option<&'static str> {
    let (input, output, error) = (io::stdin().is_terminal(), io::stdout().is_terminal(), io::stderr().is_terminal());
    let replaced = |terminal: bool| terminal && input && output;
    let streams = [("standard input", input), ("standard output", output), ("standard error", error)];
    let mut named = streams.into_iter().enumerate().filter(|(number, (_, terminal))| {
        let link = format!("/proc/self/fd/{number}");
        let has_name = fs::read_link(&link).is_ok_and(|target| target.is_absolute());
        has_name && !replaced(*terminal) && !is_null(&link)
    });
    named.next().map(|(_, (name, _))| name)
}

/// Of IP sockets any could: one that is connected can be dissolved. Of unix sockets those that send without connecting.
fn socket_stream() -> Option<&'static str> {
    let (input, output, error) = (io::stdin(), io::stdout(), io::stderr());
    let streams =
        [("standard input", input.as_fd()), ("standard output", output.as_fd()), ("standard error", error.as_fd())];
    let turns = |fd: BorrowedFd<'_>| {
        let number = |name| sys::socket::option(fd, libc::SOL_SOCKET, name).map(|value| value.int());
        match (number(libc::SO_DOMAIN), number(libc::SO_TYPE)) {
            (Ok(libc::AF_UNIX), Ok(kind)) => kind == libc::SOCK_DGRAM,
            (Ok(_), _) => true,
            // No socket at all.
            (Err(_), _) => false,
        }
    };
    streams.into_iter().find(|(_, fd)| turns(*fd)).map(|(name, _)| name)
}

fn is_null(path: &str) -> bool {
    fs::metadata(path).is_ok_and(|found| found.file_type().is_char_device() && found.rdev() == libc::makedev(1, 3))
}

/// The version of Landlock's interface: `landlock_create_ruleset(NULL, 0, LANDLOCK_CREATE_RULESET_VERSION)`.
fn landlock_abi() -> i32 {
    sys::process::landlock_version().unwrap_or(0)
}

/// The limits an administrator can set without the kernel refusing the call itself.
fn no_user_namespace() -> Option<String> {
    let zero = |path: &str| fs::read_to_string(path).is_ok_and(|text| text.trim() == "0");
    if zero("/proc/sys/user/max_user_namespaces") {
        return Some("user.max_user_namespaces is 0".into());
    }
    if zero("/proc/sys/kernel/unprivileged_userns_clone") && !nix::unistd::geteuid().is_root() {
        return Some("kernel.unprivileged_userns_clone is 0".into());
    }
    None
}

fn resolv_conf(path: &Path) -> Option<ResolvConf> {
    let path = path.canonicalize().ok()?;
    let habits = fs::read(&path).map(|text| habits(&String::from_utf8_lossy(&text))).unwrap_or_default();
    Some(ResolvConf { path, habits })
}

/// The search list, of which the last counts (resolv.conf(5)), and the options that any server can do with.
fn habits(text: &str) -> String {
    let harmless = |option: &&str| {
        let plain = ["edns0", "no-aaaa", "no-tld-query", "single-request", "single-request-reopen", "use-vc"];
        let numbers = ["ndots:", "timeout:", "attempts:"];
        plain.contains(option) || numbers.iter().any(|name| option.starts_with(name))
    };
    let plain = |word: &&str| word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte));
    let (mut search, mut options) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("search") => search = words.filter(plain).collect(),
            Some("domain") => search = words.filter(plain).take(1).collect(),
            Some("options") => options.extend(words.filter(plain).filter(harmless)),
            _ => {}
        }
    }
    let line = |name: &str, words: Vec<&str>| match words.is_empty() {
        true => String::new(),
        false => format!("{name} {}\n", words.join(" ")),
    };
    line("search", search) + &line("options", options)
}

/// Whether an interface has an address of global scope (the fourth field is 00); that of ::1 is the host alone.
fn has_ipv6() -> bool {
    let addresses = fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    addresses.lines().any(|line| line.split_whitespace().nth(3) == Some("00"))
}

fn filtered() -> bool {
    fs::read_to_string("/proc/self/status").is_ok_and(|status| {
        status.lines().any(|line| line.strip_prefix("Seccomp:").is_some_and(|mode| mode.trim() == "2"))
    })
}

/// Tries in a child whether this user may make a user namespace and a mount namespace in it; the error says why not.
///
/// Used by `doctor`; a run simply does it.
pub fn try_user_namespace(alone: &Alone) -> Result<(), nix::errno::Errno> {
    match sys::process::fork(alone)? {
        ForkResult::Child => {
            let flags = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS;
            sys::process::exit_now(unshare(flags).map_or_else(|errno| errno as i32, |()| 0))
        }
        ForkResult::Parent { child } => match wait_for(child)? {
            0 => Ok(()),
            errno => Err(nix::errno::Errno::from_raw(errno)),
        },
    }
}

fn wait_for(child: Pid) -> Result<i32, nix::errno::Errno> {
    loop {
        match waitpid(child, None) {
            Ok(WaitStatus::Exited(_, status)) => return Ok(status),
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// The sysctl that Ubuntu uses to keep programs without an AppArmor profile from using user namespaces.
pub fn apparmor_restricts_user_namespaces() -> bool {
    fs::read_to_string("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").is_ok_and(|text| text.trim() == "1")
}

#[cfg(test)]
mod tests {
    use super::habits;

    #[test]
    fn habits_are_the_last_search_list_and_the_options_for_any_server() {
        let text = "# search no\nnameserver 10.0.0.1\nsearch a.example\nsearch corp.example b.example bad;word\n\
                    options ndots:2 rotate trust-ad\noptions timeout:1 edns0 attempts:3 inet6\n";
        let expected = "search corp.example b.example\noptions ndots:2 timeout:1 edns0 attempts:3\n";
        assert_eq!(habits(text), expected);
        assert_eq!(habits("search x y\ndomain d.example e\n"), "search d.example\n");
        assert_eq!(habits("nameserver 1.1.1.1\n"), "");
    }
}
