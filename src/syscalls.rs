//! THE table: every system call that agentbox stops or refuses, with what each argument means.
//!
//! The seccomp filter (`plan::seccomp`) and the handlers (`supervisor`) are both made from it, so a call cannot be
//! stopped without a handler or handled without being stopped. Calls that are not in it run at native speed; calls
//! newer than [`LAST_KNOWN`] stop and are refused with `ENOSYS`, so that a new kernel opens no hole.

use std::sync::LazyLock;

use libc::{EAFNOSUPPORT, ENOSYS, EOPNOTSUPP, EPERM, EPROTONOSUPPORT};

/// One system call.
#[derive(Debug)]
pub struct Row {
    /// Its name as in the manual.
    pub name: &'static str,
    /// Its number on each architecture.
    pub number: Number,
    /// What becomes of it.
    pub rule: Rule,
}

/// System call numbers; `None` where the architecture never had the call.
#[derive(Debug, Clone, Copy)]
pub struct Number {
    /// On x86_64.
    pub x86_64: Option<u32>,
    /// On aarch64 and the other architectures with the generic table.
    pub aarch64: Option<u32>,
}

impl Number {
    /// The number on the architecture this was compiled for.
    pub const fn here(self) -> Option<u32> {
        if cfg!(target_arch = "x86_64") { self.x86_64 } else { self.aarch64 }
    }
}

/// The newest call whose meaning is known here (`file_setattr`, Linux 6.17); the tables of both architectures agree on it.
pub const LAST_KNOWN: u32 = 469;

/// What becomes of a call.
#[derive(Debug)]
pub enum Rule {
    /// It stops and waits for the supervisor.
    Stop {
        /// The handler.
        family: Family,
        /// The role of each argument, in order.
        args: &'static [Arg],
        /// Flags that this spelling of the call implies.
        implied: i32,
    },
    /// The filter refuses it with this error number.
    Refuse {
        /// The error number the caller sees.
        errno: i32,
        /// Any of these lists of tests must hold in full; empty: always.
        when: &'static [&'static [Test]],
    },
}

/// Groups of calls with one handler each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// `open` and its kin.
    Open,
    /// `unlink`, `rmdir`.
    Unlink,
    /// `rename` and its kin.
    Rename,
    /// Hard links.
    Link,
    /// Symbolic links.
    Symlink,
    /// Directories.
    Mkdir,
    /// FIFOs, sockets, device nodes, plain files.
    Mknod,
    /// Cutting by path.
    Truncate,
    /// Modes.
    Chmod,
    /// Owners.
    Chown,
    /// Times.
    Utime,
    /// Setting an extended attribute.
    SetXattr,
    /// Removing an extended attribute.
    RemoveXattr,
    /// Starting a program.
    Exec,
    /// Connecting a socket.
    Connect,
    /// Giving a socket an address.
    Bind,
    /// Waiting for connections.
    Listen,
    /// Joining a group of receivers: a socket option.
    Join,
    /// Sending to an address that is an argument.
    SendTo,
    /// Sending a message that may name an address.
    SendMessage,
    /// Sending several.
    SendMessages,
    /// Making a pair of unix sockets for datagrams.
    Pair,
    /// Asking for the network's interfaces by a socket.
    Interface,
    /// Making an epoll instance: not judged, but known from then on.
    Epoll,
    /// Sending a signal.
    Signal,
    /// Changing the working directory or the creation mask: noted, not judged.
    Surroundings,
}

/// What an argument means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arg {
    /// Directory that the path starts from.
    Dir,
    /// The path.
    Path,
    /// Directory that the second path starts from.
    NewDir,
    /// The second path.
    NewPath,
    /// A descriptor that is acted on itself.
    Fd,
    /// `open` flags.
    OpenFlags,
    /// Pointer to `struct open_how`.
    How,
    /// Size of the structure before it.
    Size,
    /// `AT_*` flags.
    AtFlags,
    /// `RENAME_*` flags.
    RenameFlags,
    /// File mode.
    Mode,
    /// Device number.
    Device,
    /// A length.
    Length,
    /// User id.
    Uid,
    /// Group id.
    Gid,
    /// Pointer to `struct utimbuf`.
    Utimbuf,
    /// Pointer to two `struct timeval`.
    Timevals,
    /// Pointer to two `struct timespec`.
    Timespecs,
    /// Name of an extended attribute.
    XattrName,
    /// Its value.
    XattrValue,
    /// The value's size.
    XattrSize,
    /// `XATTR_*` flags.
    XattrFlags,
    /// Pointer to `struct xattr_args`.
    XattrArgs,
    /// Text of a symbolic link.
    Text,
    /// Argument vector.
    Argv,
    /// Environment.
    Envp,
    /// Socket address.
    Address,
    /// Its length.
    AddressLength,
    /// Pointer to data; [`Arg::Length`] is its length.
    Data,
    /// `MSG_*` flags.
    SendFlags,
    /// Pointer to `struct msghdr`, or to an array of `struct mmsghdr`.
    Message,
    /// How many of them.
    Count,
    /// How many connections may wait.
    Backlog,
    /// The level of a socket option; the filter looks at it and at the option.
    OptionLevel,
    /// A socket option.
    OptionName,
    /// Its value.
    OptionValue,
    /// The value's length.
    OptionLength,
    /// The family of a socket; the filter looks at it.
    SocketFamily,
    /// The type of a socket with `SOCK_*` flags; the filter looks at it.
    SocketType,
    /// The protocol of a socket.
    Protocol,
    /// Pointer to two descriptors.
    Pair,
    /// What is asked of a device or socket; the filter looks at it.
    Request,
    /// Pointer to what belongs to that.
    Parameter,
    /// `EPOLL_*` flags.
    EpollFlags,
    /// Whom `kill` is for: a process, a group or everybody.
    Receiver,
    /// A process, by its number or that of one of its threads.
    Process,
    /// A thread.
    Thread,
    /// A descriptor that stands for a process.
    Pidfd,
    /// A signal; the filter looks at it.
    Signal,
    /// Pointer to `siginfo_t`.
    SignalInfo,
    /// `PIDFD_SIGNAL_*` flags.
    PidfdFlags,
}

/// A test on one argument that the filter itself can make.
#[derive(Debug, Clone, Copy)]
pub enum Test {
    /// The low 32 bits of the argument equal this value: the kernel looks at no more for an `int`.
    Is(u8, u32),
    /// The low 32 bits differ from this value.
    IsNot(u8, u32),
    /// The low 32 bits of the argument, masked by the first number, equal the second.
    Masked(u8, u32, u32),
    /// All these bits are set.
    Has(u8, u64),
    /// The argument is a pointer, and not null.
    Given(u8),
}

impl Row {
    /// The value of the first argument with `role`, if this call has one.
    pub fn value(&self, args: &[u64; 6], role: Arg) -> Option<u64> {
        let Rule::Stop { args: roles, .. } = &self.rule else { return None };
        roles.iter().position(|r| *r == role).map(|at| args[at])
    }
}

/// The row of system call `number` on this architecture.
pub fn row(number: u32) -> Option<&'static Row> {
    static BY_NUMBER: LazyLock<Vec<Option<&'static Row>>> = LazyLock::new(|| {
        let mut rows = vec![None; LAST_KNOWN as usize + 1];
        for row in TABLE {
            let Some(slot) = row.number.here().and_then(|number| rows.get_mut(number as usize)) else { continue };
            // A call that stops may have further rows that refuse some uses of it; its own is the one that has a handler.
            if slot.is_none_or(|known: &Row| matches!(known.rule, Rule::Refuse { .. })) {
                *slot = Some(row);
            }
        }
        rows
    });
    *BY_NUMBER.get(number as usize)?
}

/// Flag bits of an open that make it more than reading. `O_TMPFILE` shares `O_DIRECTORY`; only its own bit counts.
pub const WRITE_FLAGS: [u32; 5] = [
    libc::O_WRONLY as u32,
    libc::O_RDWR as u32,
    libc::O_CREAT as u32,
    libc::O_TRUNC as u32,
    (libc::O_TMPFILE & !libc::O_DIRECTORY) as u32,
];

/// Requests about interfaces (`SIOC*`, include/uapi/linux/sockios.h and wireless.h): all of the socket layer's but the few
/// about the socket itself, below 0x8910.
pub const INTERFACE_REQUESTS: &[&[Test]] = &[
    &[Test::Masked(1, 0xffff_ff10, 0x8910)],
    &[Test::Masked(1, 0xffff_ff20, 0x8920)],
    &[Test::Masked(1, 0xffff_ff40, 0x8940)],
    &[Test::Masked(1, 0xffff_ff80, 0x8980)],
    &[Test::Masked(1, 0xffff_ff00, 0x8b00)],
];

/// Level and name of the socket options that join a group of receivers. A machine that joins one tells its network so.
pub const JOINS: [(u32, u32); 7] = [
    (libc::IPPROTO_IP as u32, libc::IP_ADD_MEMBERSHIP as u32),
    (libc::IPPROTO_IP as u32, libc::IP_ADD_SOURCE_MEMBERSHIP as u32),
    (libc::IPPROTO_IP as u32, MCAST_JOIN_GROUP),
    (libc::IPPROTO_IP as u32, MCAST_JOIN_SOURCE_GROUP),
    (libc::IPPROTO_IPV6 as u32, libc::IPV6_ADD_MEMBERSHIP as u32),
    (libc::IPPROTO_IPV6 as u32, MCAST_JOIN_GROUP),
    (libc::IPPROTO_IPV6 as u32, MCAST_JOIN_SOURCE_GROUP),
];
/// Signals that do nothing to whoever has not asked for them (`sig_kernel_ignore`, include/linux/signal.h) but to wake
/// who was stopped, and the test whether somebody is there. Go's runtime interrupts its own threads by one of them,
/// many times a second.
///
/// Those that C libraries keep for themselves (32 to 34) are not among them: threads seldom need them, and they end a
/// process that has no handler for them as any other does.
pub const HARMLESS_SIGNALS: [u32; 5] =
    [0, libc::SIGCONT as u32, libc::SIGCHLD as u32, libc::SIGWINCH as u32, libc::SIGURG as u32];

const MCAST_JOIN_GROUP: u32 = 42;
const MCAST_JOIN_SOURCE_GROUP: u32 = 46;

use Arg::{
    Address, AddressLength, Argv, AtFlags, Backlog, Count, Data, Device, Dir, Envp, EpollFlags, Fd, Gid, How, Length,
    Message, Mode, NewDir, NewPath, OpenFlags, OptionLength, OptionLevel, OptionName, OptionValue, Parameter, Path,
    Pidfd, PidfdFlags, Process, Protocol, Receiver, RenameFlags, Request, SendFlags, Signal, SignalInfo, Size,
    SocketFamily, SocketType, Text, Thread, Timespecs, Timevals, Uid, Utimbuf, XattrArgs, XattrFlags, XattrName,
    XattrSize, XattrValue,
};

const fn stop(name: &'static str, x86_64: i32, aarch64: i32, family: Family, args: &'static [Arg]) -> Row {
    stop_implying(0, name, x86_64, aarch64, family, args)
}

const fn stop_implying(
    implied: i32,
    name: &'static str,
    x86_64: i32,
    aarch64: i32,
    family: Family,
    args: &'static [Arg],
) -> Row {
    Row { name, number: number(x86_64, aarch64), rule: Rule::Stop { family, args, implied } }
}

const fn refuse(name: &'static str, x86_64: i32, aarch64: i32, errno: i32) -> Row {
    refuse_when(name, x86_64, aarch64, errno, &[])
}

const fn refuse_when(
    name: &'static str,
    x86_64: i32,
    aarch64: i32,
    errno: i32,
    when: &'static [&'static [Test]],
) -> Row {
    Row { name, number: number(x86_64, aarch64), rule: Rule::Refuse { errno, when } }
}

const fn number(x86_64: i32, aarch64: i32) -> Number {
    Number { x86_64: present(x86_64), aarch64: present(aarch64) }
}

const fn present(number: i32) -> Option<u32> {
    if number < 0 { None } else { Some(number as u32) }
}

/// The architecture never had the call.
const NONE: i32 = -1;

const NEW_NAMESPACE: &[&[Test]] = &[
    &[Test::Has(0, libc::CLONE_NEWNS as u64)],
    &[Test::Has(0, libc::CLONE_NEWUSER as u64)],
    &[Test::Has(0, libc::CLONE_NEWPID as u64)],
    &[Test::Has(0, libc::CLONE_NEWNET as u64)],
    &[Test::Has(0, libc::CLONE_NEWIPC as u64)],
    &[Test::Has(0, libc::CLONE_NEWUTS as u64)],
    &[Test::Has(0, libc::CLONE_NEWCGROUP as u64)],
];
// As an argument of clone the bit of CLONE_NEWTIME belongs to the exit signal, so only unshare tests it.
const NEW_TIME_NAMESPACE: &[&[Test]] = &[&[Test::Has(0, 0x80)]];

const TIOCSTI: u32 = 0x5412; // types into the terminal
const TIOCLINUX: u32 = 0x541c; // pastes the console's selection
const FS_IOC_SETFLAGS: u32 = 0x4008_6602; // inode flags: a change no path call shows
const FS_IOC32_SETFLAGS: u32 = 0x4004_6602;
const FS_IOC_FSSETXATTR: u32 = 0x401c_5820;

const RLIMIT_LOCKS: u32 = libc::RLIMIT_LOCKS;

const IPV6_FLOWLABEL_MGR: u32 = 32;

const AF_UNIX: u32 = libc::AF_UNIX as u32;
const AF_INET: u32 = libc::AF_INET as u32;
const AF_INET6: u32 = libc::AF_INET6 as u32;
const AF_NETLINK: u32 = libc::AF_NETLINK as u32;

/// A unix datagram socket sends to any name in reach without ever connecting to it, descriptors included. `SOCK_RAW` is
/// another word for it (`unix_create`, net/unix/af_unix.c); the type's low four bits leave its flags aside.
pub const UNIX_DATAGRAMS: &[&[Test]] = &[UNIX_DATAGRAM, UNIX_RAW];
const UNIX_DATAGRAM: &[Test] = &[Test::Is(0, AF_UNIX), Test::Masked(1, 0xf, libc::SOCK_DGRAM as u32)];
const UNIX_RAW: &[Test] = &[Test::Is(0, AF_UNIX), Test::Masked(1, 0xf, libc::SOCK_RAW as u32)];

const STREAM: Test = Test::Masked(1, 0xf, libc::SOCK_STREAM as u32);
const DATAGRAM: Test = Test::Masked(1, 0xf, libc::SOCK_DGRAM as u32);
const SEQUENCED: Test = Test::Masked(1, 0xf, libc::SOCK_SEQPACKET as u32);
const DCCP: u32 = 6; // SOCK_DCCP
const TCP: u32 = libc::IPPROTO_TCP as u32;
const UDP: u32 = libc::IPPROTO_UDP as u32;
const ICMP: u32 = libc::IPPROTO_ICMP as u32;
const ICMPV6: u32 = libc::IPPROTO_ICMPV6 as u32;

const NOFOLLOW: i32 = libc::AT_SYMLINK_NOFOLLOW;

/// The calls. Numbers: x86_64, then aarch64.
pub static TABLE: &[Row] = &[
    // Opens. `open` for reading only passes by a test on its flags; see `plan::seccomp`.
    stop("open", 2, NONE, Family::Open, &[Path, OpenFlags, Mode]),
    stop("openat", 257, 56, Family::Open, &[Dir, Path, OpenFlags, Mode]),
    stop("openat2", 437, 437, Family::Open, &[Dir, Path, How, Size]),
    stop_implying(libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC, "creat", 85, NONE, Family::Open, &[Path, Mode]),
    // Changes by path, and those by descriptor that need no right to write.
    stop("unlink", 87, NONE, Family::Unlink, &[Path]),
    stop_implying(libc::AT_REMOVEDIR, "rmdir", 84, NONE, Family::Unlink, &[Path]),
    stop("unlinkat", 263, 35, Family::Unlink, &[Dir, Path, AtFlags]),
    stop("rename", 82, NONE, Family::Rename, &[Path, NewPath]),
    stop("renameat", 264, 38, Family::Rename, &[Dir, Path, NewDir, NewPath]),
    stop("renameat2", 316, 276, Family::Rename, &[Dir, Path, NewDir, NewPath, RenameFlags]),
    stop("link", 86, NONE, Family::Link, &[Path, NewPath]),
    stop("linkat", 265, 37, Family::Link, &[Dir, Path, NewDir, NewPath, AtFlags]),
    stop("symlink", 88, NONE, Family::Symlink, &[Text, Path]),
    stop("symlinkat", 266, 36, Family::Symlink, &[Text, Dir, Path]),
    stop("mkdir", 83, NONE, Family::Mkdir, &[Path, Mode]),
    stop("mkdirat", 258, 34, Family::Mkdir, &[Dir, Path, Mode]),
    stop("mknod", 133, NONE, Family::Mknod, &[Path, Mode, Device]),
    stop("mknodat", 259, 33, Family::Mknod, &[Dir, Path, Mode, Device]),
    stop("truncate", 76, 45, Family::Truncate, &[Path, Length]),
    stop("chmod", 90, NONE, Family::Chmod, &[Path, Mode]),
    stop("fchmod", 91, 52, Family::Chmod, &[Fd, Mode]),
    stop("fchmodat", 268, 53, Family::Chmod, &[Dir, Path, Mode]),
    stop("fchmodat2", 452, 452, Family::Chmod, &[Dir, Path, Mode, AtFlags]),
    stop("chown", 92, NONE, Family::Chown, &[Path, Uid, Gid]),
    stop_implying(NOFOLLOW, "lchown", 94, NONE, Family::Chown, &[Path, Uid, Gid]),
    stop("fchown", 93, 55, Family::Chown, &[Fd, Uid, Gid]),
    stop("fchownat", 260, 54, Family::Chown, &[Dir, Path, Uid, Gid, AtFlags]),
    stop("utime", 132, NONE, Family::Utime, &[Path, Utimbuf]),
    stop("utimes", 235, NONE, Family::Utime, &[Path, Timevals]),
    stop("futimesat", 261, NONE, Family::Utime, &[Dir, Path, Timevals]),
    stop("utimensat", 280, 88, Family::Utime, &[Dir, Path, Timespecs, AtFlags]),
    stop("setxattr", 188, 5, Family::SetXattr, &[Path, XattrName, XattrValue, XattrSize, XattrFlags]),
    stop_implying(
        NOFOLLOW,
        "lsetxattr",
        189,
        6,
        Family::SetXattr,
        &[Path, XattrName, XattrValue, XattrSize, XattrFlags],
    ),
    stop("fsetxattr", 190, 7, Family::SetXattr, &[Fd, XattrName, XattrValue, XattrSize, XattrFlags]),
    stop("setxattrat", 463, 463, Family::SetXattr, &[Dir, Path, AtFlags, XattrName, XattrArgs, Size]),
    stop("removexattr", 197, 14, Family::RemoveXattr, &[Path, XattrName]),
    stop_implying(NOFOLLOW, "lremovexattr", 198, 15, Family::RemoveXattr, &[Path, XattrName]),
    stop("fremovexattr", 199, 16, Family::RemoveXattr, &[Fd, XattrName]),
    stop("removexattrat", 466, 466, Family::RemoveXattr, &[Dir, Path, AtFlags, XattrName]),
    // Programs and sockets.
    stop("execve", 59, 221, Family::Exec, &[Path, Argv, Envp]),
    stop("execveat", 322, 281, Family::Exec, &[Dir, Path, Argv, Envp, AtFlags]),
    stop("connect", 42, 203, Family::Connect, &[Fd, Address, AddressLength]),
    stop("bind", 49, 200, Family::Bind, &[Fd, Address, AddressLength]),
    stop("listen", 50, 201, Family::Listen, &[Fd, Backlog]),
    stop("setsockopt", 54, 208, Family::Join, &[Fd, OptionLevel, OptionName, OptionValue, OptionLength]),
    stop("sendto", 44, 206, Family::SendTo, &[Fd, Data, Length, SendFlags, Address, AddressLength]),
    stop("sendmsg", 46, 211, Family::SendMessage, &[Fd, Message, SendFlags]),
    stop("sendmmsg", 307, 269, Family::SendMessages, &[Fd, Message, Count, SendFlags]),
    stop("socketpair", 53, 199, Family::Pair, &[SocketFamily, SocketType, Protocol, Arg::Pair]),
    stop("ioctl", 16, 29, Family::Interface, &[Fd, Request, Parameter]),
    stop("epoll_create", 213, NONE, Family::Epoll, &[Size]),
    stop("epoll_create1", 291, 20, Family::Epoll, &[EpollFlags]),
    // Signals, but for those that do no harm.
    stop("kill", 62, 129, Family::Signal, &[Receiver, Signal]),
    stop("tkill", 200, 130, Family::Signal, &[Thread, Signal]),
    stop("tgkill", 234, 131, Family::Signal, &[Process, Thread, Signal]),
    stop("rt_sigqueueinfo", 129, 138, Family::Signal, &[Process, Signal, SignalInfo]),
    stop("rt_tgsigqueueinfo", 297, 240, Family::Signal, &[Process, Thread, Signal, SignalInfo]),
    stop("pidfd_send_signal", 424, 424, Family::Signal, &[Pidfd, Signal, SignalInfo, PidfdFlags]),
    // What relative paths and new files start from: known to the supervisor as long as nobody changes it.
    stop("chdir", 80, 49, Family::Surroundings, &[Path]),
    stop("fchdir", 81, 50, Family::Surroundings, &[Fd]),
    stop("umask", 95, 166, Family::Surroundings, &[Mode]),
    // Ways to start what the filter could not see: libc falls back to calls it can.
    refuse("clone3", 435, 435, ENOSYS),
    refuse("io_uring_setup", 425, 425, ENOSYS),
    refuse("io_uring_enter", 426, 426, ENOSYS),
    refuse("io_uring_register", 427, 427, ENOSYS),
    refuse("file_setattr", 469, 469, ENOSYS),
    // New views of the system.
    refuse_when("clone", 56, 220, EPERM, NEW_NAMESPACE),
    refuse_when("unshare", 272, 97, EPERM, NEW_NAMESPACE),
    refuse_when("unshare", 272, 97, EPERM, NEW_TIME_NAMESPACE),
    refuse("setns", 308, 268, EPERM),
    refuse("mount", 165, 40, EPERM),
    refuse("umount2", 166, 39, EPERM),
    refuse("pivot_root", 155, 41, EPERM),
    refuse("chroot", 161, 51, EPERM),
    refuse("open_tree", 428, 428, EPERM),
    refuse("open_tree_attr", 467, 467, EPERM),
    refuse("move_mount", 429, 429, EPERM),
    refuse("fsopen", 430, 430, EPERM),
    refuse("fsconfig", 431, 431, EPERM),
    refuse("fsmount", 432, 432, EPERM),
    refuse("fspick", 433, 433, EPERM),
    refuse("mount_setattr", 442, 442, EPERM),
    // Reaching into other processes.
    refuse("ptrace", 101, 117, EPERM),
    refuse("process_vm_readv", 310, 270, EPERM),
    refuse("process_vm_writev", 311, 271, EPERM),
    refuse("pidfd_getfd", 438, 438, EPERM),
    refuse("kcmp", 312, 272, EPERM),
    // Kernel surface that no agent needs.
    refuse("bpf", 321, 280, EPERM),
    refuse("perf_event_open", 298, 241, EPERM),
    refuse("userfaultfd", 323, 282, EPERM),
    refuse("add_key", 248, 217, EPERM),
    refuse("request_key", 249, 218, EPERM),
    refuse("keyctl", 250, 219, EPERM),
    refuse("init_module", 175, 105, EPERM),
    refuse("finit_module", 313, 273, EPERM),
    refuse("delete_module", 176, 106, EPERM),
    refuse("kexec_load", 246, 104, EPERM),
    refuse("kexec_file_load", 320, 294, EPERM),
    refuse("open_by_handle_at", 304, 265, EPERM),
    refuse("fanotify_init", 300, 262, EPERM),
    refuse("quotactl", 179, 60, EPERM),
    refuse("quotactl_fd", 443, 443, EPERM),
    refuse("acct", 163, 89, EPERM),
    refuse("swapon", 167, 224, EPERM),
    refuse("swapoff", 168, 225, EPERM),
    refuse("reboot", 169, 142, EPERM),
    refuse("syslog", 103, 116, EPERM),
    refuse("iopl", 172, NONE, EPERM),
    refuse("ioperm", 173, NONE, EPERM),
    refuse("modify_ldt", 154, NONE, EPERM),
    refuse_when(
        "ioctl",
        16,
        29,
        EPERM,
        &[
            &[Test::Is(1, TIOCSTI)],
            &[Test::Is(1, TIOCLINUX)],
            &[Test::Is(1, FS_IOC_SETFLAGS)],
            &[Test::Is(1, FS_IOC32_SETFLAGS)],
            &[Test::Is(1, FS_IOC_FSSETXATTR)],
        ],
    ),
    // The limit on file locks means nothing to the kernel; it is the mark that says which action a process belongs to.
    refuse_when("setrlimit", 160, 164, EPERM, &[&[Test::Is(0, RLIMIT_LOCKS)]]),
    refuse_when("prlimit64", 302, 261, EPERM, &[&[Test::Is(1, RLIMIT_LOCKS), Test::Given(2)]]),
    // PER_LINUX, with and without UNAME26 (0x20000) and PER_LINUX32 (8), and the query (all ones) stay.
    refuse_when(
        "personality",
        135,
        92,
        EPERM,
        &[&[
            Test::IsNot(0, 0),
            Test::IsNot(0, 8),
            Test::IsNot(0, 0x20000),
            Test::IsNot(0, 0x20008),
            Test::IsNot(0, 0xffff_ffff),
        ]],
    ),
    refuse_when(
        "socket",
        41,
        198,
        EAFNOSUPPORT,
        &[
            &[Test::IsNot(0, AF_UNIX), Test::IsNot(0, AF_INET), Test::IsNot(0, AF_INET6), Test::IsNot(0, AF_NETLINK)],
            UNIX_DATAGRAM,
            UNIX_RAW,
            // Of netlink only the route family, which libc uses to list addresses.
            &[Test::Is(0, AF_NETLINK), Test::IsNot(2, libc::NETLINK_ROUTE as u32)],
        ],
    ),
    // Over IP only TCP, UDP and ICMP echo: what else there is (MPTCP, SCTP, DCCP, UDP-Lite) opens connections by other ways.
    refuse_when(
        "socket",
        41,
        198,
        EPROTONOSUPPORT,
        &[
            &[Test::Is(0, AF_INET), STREAM, Test::IsNot(2, 0), Test::IsNot(2, TCP)],
            &[Test::Is(0, AF_INET6), STREAM, Test::IsNot(2, 0), Test::IsNot(2, TCP)],
            &[Test::Is(0, AF_INET), DATAGRAM, Test::IsNot(2, 0), Test::IsNot(2, UDP), Test::IsNot(2, ICMP)],
            &[Test::Is(0, AF_INET6), DATAGRAM, Test::IsNot(2, 0), Test::IsNot(2, UDP), Test::IsNot(2, ICMPV6)],
            &[Test::Is(0, AF_INET), SEQUENCED],
            &[Test::Is(0, AF_INET6), SEQUENCED],
            &[Test::Is(0, AF_INET), Test::Masked(1, 0xf, DCCP)],
            &[Test::Is(0, AF_INET6), Test::Masked(1, 0xf, DCCP)],
        ],
    ),
    refuse_when(
        "socket",
        41,
        198,
        EPERM,
        &[
            &[Test::Is(0, AF_INET), Test::Masked(1, 0xf, libc::SOCK_RAW as u32)],
            &[Test::Is(0, AF_INET6), Test::Masked(1, 0xf, libc::SOCK_RAW as u32)],
        ],
    ),
    // A connect by another name. Programs fall back, as where the kernel's TCP fast open is switched off.
    refuse_when("sendto", 44, 206, EOPNOTSUPP, &[&[Test::Has(3, libc::MSG_FASTOPEN as u64)]]),
    refuse_when("sendmsg", 46, 211, EOPNOTSUPP, &[&[Test::Has(2, libc::MSG_FASTOPEN as u64)]]),
    refuse_when("sendmmsg", 307, 269, EOPNOTSUPP, &[&[Test::Has(3, libc::MSG_FASTOPEN as u64)]]),
    // Routes that the sender chooses: a connected socket would send its packets to another host first.
    refuse_when(
        "setsockopt",
        54,
        208,
        EPERM,
        &[
            &[Test::Is(1, libc::IPPROTO_IP as u32), Test::Is(2, libc::IP_OPTIONS as u32)],
            &[Test::Is(1, libc::IPPROTO_IPV6 as u32), Test::Is(2, libc::IPV6_RTHDR as u32)],
            &[Test::Is(1, libc::IPPROTO_IPV6 as u32), Test::Is(2, libc::IPV6_2292RTHDR as u32)],
            &[Test::Is(1, libc::IPPROTO_IPV6 as u32), Test::Is(2, libc::IPV6_2292PKTOPTIONS as u32)],
            // A flow label can carry a route, too (`fl_create`, net/ipv6/ip6_flowlabel.c).
            &[Test::Is(1, libc::IPPROTO_IPV6 as u32), Test::Is(2, IPV6_FLOWLABEL_MGR)],
        ],
    ),
];

/// A unix socket for datagrams can be one of a pair where the supervisor makes it; where there is none, there is none.
pub static WITHOUT_SUPERVISOR: &[Row] = &[refuse_when("socketpair", 53, 199, EAFNOSUPPORT, UNIX_DATAGRAMS)];

/// Without a network namespace a datagram socket reaches anybody with calls that nobody looks at, so there is none.
pub static WITHOUT_OWN_NETWORK: &[Row] = &[refuse_when(
    "socket",
    41,
    198,
    EAFNOSUPPORT,
    &[&[Test::Is(0, AF_INET), DATAGRAM], &[Test::Is(0, AF_INET6), DATAGRAM]],
)];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_libc() {
        for (name, number) in [
            ("open", libc::SYS_open),
            ("openat", libc::SYS_openat),
            ("openat2", libc::SYS_openat2),
            ("creat", libc::SYS_creat),
            ("unlink", libc::SYS_unlink),
            ("rmdir", libc::SYS_rmdir),
            ("unlinkat", libc::SYS_unlinkat),
            ("rename", libc::SYS_rename),
            ("renameat", libc::SYS_renameat),
            ("renameat2", libc::SYS_renameat2),
            ("link", libc::SYS_link),
            ("linkat", libc::SYS_linkat),
            ("symlink", libc::SYS_symlink),
            ("symlinkat", libc::SYS_symlinkat),
            ("mkdir", libc::SYS_mkdir),
            ("mkdirat", libc::SYS_mkdirat),
            ("mknod", libc::SYS_mknod),
            ("mknodat", libc::SYS_mknodat),
            ("truncate", libc::SYS_truncate),
            ("chmod", libc::SYS_chmod),
            ("fchmod", libc::SYS_fchmod),
            ("fchmodat", libc::SYS_fchmodat),
            ("fchmodat2", libc::SYS_fchmodat2),
            ("chown", libc::SYS_chown),
            ("lchown", libc::SYS_lchown),
            ("fchown", libc::SYS_fchown),
            ("fchownat", libc::SYS_fchownat),
            ("utime", libc::SYS_utime),
            ("utimes", libc::SYS_utimes),
            ("futimesat", libc::SYS_futimesat),
            ("utimensat", libc::SYS_utimensat),
            ("setxattr", libc::SYS_setxattr),
            ("lsetxattr", libc::SYS_lsetxattr),
            ("fsetxattr", libc::SYS_fsetxattr),
            ("removexattr", libc::SYS_removexattr),
            ("lremovexattr", libc::SYS_lremovexattr),
            ("fremovexattr", libc::SYS_fremovexattr),
            ("execve", libc::SYS_execve),
            ("execveat", libc::SYS_execveat),
            ("connect", libc::SYS_connect),
            ("bind", libc::SYS_bind),
            ("listen", libc::SYS_listen),
            ("sendto", libc::SYS_sendto),
            ("sendmsg", libc::SYS_sendmsg),
            ("sendmmsg", libc::SYS_sendmmsg),
            ("setsockopt", libc::SYS_setsockopt),
            ("epoll_create", libc::SYS_epoll_create),
            ("epoll_create1", libc::SYS_epoll_create1),
            ("kill", libc::SYS_kill),
            ("tkill", libc::SYS_tkill),
            ("tgkill", libc::SYS_tgkill),
            ("rt_sigqueueinfo", libc::SYS_rt_sigqueueinfo),
            ("rt_tgsigqueueinfo", libc::SYS_rt_tgsigqueueinfo),
            ("pidfd_send_signal", libc::SYS_pidfd_send_signal),
            ("clone3", libc::SYS_clone3),
            ("io_uring_setup", libc::SYS_io_uring_setup),
            ("io_uring_enter", libc::SYS_io_uring_enter),
            ("io_uring_register", libc::SYS_io_uring_register),
            ("clone", libc::SYS_clone),
            ("unshare", libc::SYS_unshare),
            ("setns", libc::SYS_setns),
            ("mount", libc::SYS_mount),
            ("umount2", libc::SYS_umount2),
            ("pivot_root", libc::SYS_pivot_root),
            ("chroot", libc::SYS_chroot),
            ("open_tree", libc::SYS_open_tree),
            ("move_mount", libc::SYS_move_mount),
            ("fsopen", libc::SYS_fsopen),
            ("fsconfig", libc::SYS_fsconfig),
            ("fsmount", libc::SYS_fsmount),
            ("fspick", libc::SYS_fspick),
            ("mount_setattr", libc::SYS_mount_setattr),
            ("ptrace", libc::SYS_ptrace),
            ("process_vm_readv", libc::SYS_process_vm_readv),
            ("process_vm_writev", libc::SYS_process_vm_writev),
            ("pidfd_getfd", libc::SYS_pidfd_getfd),
            ("kcmp", libc::SYS_kcmp),
            ("bpf", libc::SYS_bpf),
            ("perf_event_open", libc::SYS_perf_event_open),
            ("userfaultfd", libc::SYS_userfaultfd),
            ("add_key", libc::SYS_add_key),
            ("request_key", libc::SYS_request_key),
            ("keyctl", libc::SYS_keyctl),
            ("init_module", libc::SYS_init_module),
            ("finit_module", libc::SYS_finit_module),
            ("delete_module", libc::SYS_delete_module),
            ("kexec_load", libc::SYS_kexec_load),
            ("kexec_file_load", libc::SYS_kexec_file_load),
            ("open_by_handle_at", libc::SYS_open_by_handle_at),
            ("fanotify_init", libc::SYS_fanotify_init),
            ("quotactl", libc::SYS_quotactl),
            ("quotactl_fd", libc::SYS_quotactl_fd),
            ("acct", libc::SYS_acct),
            ("swapon", libc::SYS_swapon),
            ("swapoff", libc::SYS_swapoff),
            ("reboot", libc::SYS_reboot),
            ("syslog", libc::SYS_syslog),
            ("iopl", libc::SYS_iopl),
            ("ioperm", libc::SYS_ioperm),
            ("modify_ldt", libc::SYS_modify_ldt),
            ("ioctl", libc::SYS_ioctl),
            ("personality", libc::SYS_personality),
            ("socket", libc::SYS_socket),
            ("socketpair", libc::SYS_socketpair),
        ] {
            let rows = TABLE.iter().filter(|row| row.name == name);
            for row in rows.clone() {
                assert_eq!(row.number.x86_64.map(i64::from), Some(number), "{name}");
            }
            assert!(rows.count() > 0, "{name} is not in the table");
        }
    }

    #[test]
    fn a_stopped_call_has_one_row_and_is_refused_only_in_some_uses() {
        for (at, row) in TABLE.iter().enumerate() {
            if matches!(row.rule, Rule::Stop { .. }) {
                let twins = TABLE.iter().enumerate().filter(|(i, r)| *i != at && r.name == row.name);
                let always = |rule: &Rule| !matches!(rule, Rule::Refuse { when: [_, ..], .. });
                assert_eq!(twins.filter(|(_, r)| always(&r.rule)).count(), 0, "{}", row.name);
            }
            for n in [row.number.x86_64, row.number.aarch64].into_iter().flatten() {
                assert!(n <= LAST_KNOWN, "{}", row.name);
            }
        }
    }
}
