//! The nouns of a decision: who asks (`Subject`), for what (`Access`), and what the answer is (`Verdict`).
//!
//! Plain serialisable values without logic, shared by the policy, the gate, the records and the supervisor.
//! Nothing in here reads a file, a clock or another process.

// Named by its path, since build.rs takes this file in under a path, too.
#[path = "event/standing.rs"]
mod standing;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use standing::{ActionId, Attribution, Before, Bound, Claim, Effects, FileId, Files, GitState, Kind, Labels};
pub use standing::{Losses, Reach, Reversibility, Standing, Weight, Where};

/// An absolute path as processes in the box see it, free of `.`, `..` and doubled slashes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BoxPath(#[serde(with = "lossless_path")] PathBuf);

impl BoxPath {
    /// Takes `path` if it is absolute and has no `.` or `..` component.
    pub fn new(path: impl Into<PathBuf>) -> Option<Self> {
        use std::path::Component;
        let path: PathBuf = path.into();
        let plain =
            path.is_absolute() && path.components().all(|c| matches!(c, Component::RootDir | Component::Normal(_)));
        // Collecting drops doubled slashes and a trailing one.
        plain.then(|| Self(path.components().collect()))
    }

    /// The same path as a `Path`.
    pub fn as_path(&self) -> &Path {
        &self.0
    }

    /// This path with one more component.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.join(name)
    }
}

impl fmt::Display for BoxPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_string_lossy())
    }
}

/// Paths are bytes; JSON holds text. Bytes that are not UTF-8 are written `\xNN`, a backslash `\\`, so that two
/// different paths never read alike.
mod lossless_path {
    use std::ffi::OsString;
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    use std::path::{Path, PathBuf};

    use serde::{Deserialize, Deserializer, Serializer, de};

    pub fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::escape_bytes(path.as_os_str().as_bytes()))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = super::unescape_bytes(&text).ok_or_else(|| de::Error::custom("bad escape in path"))?;
        Ok(PathBuf::from(OsString::from_vec(bytes)))
    }
}

/// Writes bytes as text that can be turned back: valid UTF-8 as it is, other bytes as `\xNN`, a backslash doubled.
pub fn escape_bytes(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c == '\\' {
                text.push('\\');
            }
            text.push(c);
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

/// Reverses [`escape_bytes`]; `None` if `text` holds an escape that it never writes.
pub fn unescape_bytes(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        match (first, tail) {
            (b'\\', [b'\\', tail @ ..]) => {
                bytes.push(b'\\');
                rest = tail;
            }
            (b'\\', [b'x', high, low, tail @ ..]) => {
                let digits = [*high, *low];
                bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
                rest = tail;
            }
            (b'\\', _) => return None,
            _ => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    Some(bytes)
}

/// What is asked and by whom: the whole input of a decision besides the policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Who asks.
    pub subject: Arc<Subject>,
    /// For what.
    pub access: Access,
    /// What else is known when the question comes.
    pub standing: Standing,
}

impl Event {
    /// A question of which no more is known than who asks for what.
    pub fn new(subject: Arc<Subject>, access: Access) -> Self {
        Self { subject, access, standing: Standing::default() }
    }
}

/// The process that asks.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Subject {
    /// Process number inside the box.
    pub pid: i32,
    /// Process number on the host.
    pub host: i32,
    /// The program it runs, as the kernel names it; empty when it could not be read.
    pub exe: String,
    /// Its ancestors inside the box, nearest first, up to init (1). Where one has ended, the process that its action
    /// started stands in for those that are not known any more.
    pub parents: Vec<i32>,
    /// The action that it is marked with.
    #[serde(skip)]
    pub mark: ActionId,
}

/// What is asked for. Paths are resolved: they name the object that will be acted on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Access {
    /// One name in the file system is read or changed.
    File {
        /// What is done to it.
        op: FileOp,
        /// The name it is done to.
        at: Place,
    },
    /// Two names take part.
    Move {
        /// Which of the two-name calls.
        op: MoveOp,
        /// The existing name.
        from: Place,
        /// The name that comes into being, or the other one of an exchange.
        to: Place,
    },
    /// A program is started.
    Exec(Exec),
    /// A socket is connected.
    Connect {
        /// Where to.
        to: Endpoint,
    },
    /// A datagram is sent to an address that the call names.
    Send {
        /// Where to.
        to: Endpoint,
    },
    /// It is asked which way datagrams to an address would take; none can be sent.
    Route {
        /// Which address.
        to: Endpoint,
    },
    /// A name is looked up.
    Resolve(Question),
    /// Somebody outside connects to a port of the box that is published.
    Accept(Visit),
    /// A socket takes an address or a name.
    Bind {
        /// Which one.
        at: Endpoint,
    },
    /// A signal is sent to processes that are not the sender's own: of another action.
    Signal(Signal),
    /// A call that could not be understood or is not known.
    Call {
        /// Its name, or its number as text.
        name: String,
        /// Why it could not be judged on its arguments.
        why: Unjudged,
    },
}

/// One name in the file system with the facts about it that rules speak of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The resolved path: the real path of the directory, and the last name.
    pub path: BoxPath,
    /// Whether it is a directory now.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub directory: bool,
    /// Whether it lies in a git directory that was made inside this run.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub own_repository: bool,
    /// Whether an open for writing, or one that makes the file, can read through the same descriptor.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reads: bool,
    /// Whether a mode that is set lets others than the owner write.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shares: bool,
    /// Set for a file that was handed to the command as a standard stream and is reopened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<Stream>,
    /// The file that stands there now, if one does.
    #[serde(skip)]
    pub file: Option<FileId>,
    /// What it holds, if it would be changed, removed or replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Before>,
    /// Labels of the secrets that whoever wrote the file in this run may have read.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
}

impl Place {
    /// A name about which no more is known than its path.
    pub fn of(path: BoxPath) -> Self {
        Self {
            path,
            directory: false,
            own_repository: false,
            reads: false,
            shares: false,
            stream: None,
            file: None,
            before: None,
            labels: Labels::default(),
        }
    }
}

/// How a file that was handed in as a standard stream is reopened (`/dev/stdin`, `/proc/self/fd/1`).
///
/// It lies outside the view, so no rule about paths can speak of it; its path is the one it has outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// With rights that the descriptor has, too.
    WithinRights,
    /// With more: to read what was handed in for writing, to write to input, or to cut what is to be appended to.
    BeyondRights,
}

/// What is done to one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileOp {
    /// Opened for reading only.
    Read,
    /// Opened for writing; made if the call says so and it is missing.
    Write,
    /// A file is made: by an open that makes what is missing, by `mknod`, or as an unnamed temporary one that may get a
    /// name later.
    Create,
    /// Cut to a length.
    Truncate,
    /// A directory is made.
    Mkdir,
    /// A FIFO, socket or device node is made.
    Mknod,
    /// A symbolic link is made.
    Symlink,
    /// A name is removed.
    Unlink,
    /// A directory is removed.
    Rmdir,
    /// The mode is set.
    Chmod,
    /// The owner or group is set.
    Chown,
    /// The times are set.
    Utime,
    /// An extended attribute is set or removed.
    Xattr,
}

/// The calls that take two names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MoveOp {
    /// `from` becomes `to`.
    Rename,
    /// `from` and `to` change places.
    Exchange,
    /// `to` becomes a second name of `from`.
    Link,
}

/// A program about to be started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    /// The resolved file.
    pub program: BoxPath,
    /// The last component of the path as the caller wrote it: what a multi-call program goes by.
    pub called: String,
    /// The interpreter that the file's `#!` line names, resolved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interpreter: Option<BoxPath>,
    /// What the last interpreter is given before the script's own arguments: its name, what its `#!` line adds, the
    /// script's name. Escaped; empty where the file is no script.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub line: Vec<String>,
    /// The file that the dynamic loader is told to run, where the program or its interpreter is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loaded: Option<Loaded>,
    /// The argument vector, escaped as paths are; cut at 64 KiB in all.
    pub argv: Vec<String>,
    /// How many arguments there were.
    pub argc: usize,
    /// The arguments beyond the cut, escaped: they are judged, and not recorded.
    #[serde(skip)]
    pub rest: Vec<String>,
    /// What the file held when it was started: `sha256:` and hexadecimal digits, or `none:` and why that is not known.
    /// Only for a file that the box could have written; any other is known by its path. The interpreter of a script
    /// reads it later than that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The same for other files that take part and that the box could have written: interpreters, what the loader runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Part>,
}

/// A file that takes part in the start of a program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Which, resolved.
    pub file: BoxPath,
    /// What it held, as [`Exec::digest`] says it.
    pub digest: String,
}

impl Exec {
    /// The start of a program about which no more is known than its file, what it was called, and its arguments.
    pub fn of(program: BoxPath, called: impl Into<String>, argv: Vec<String>) -> Self {
        let (called, argc) = (called.into(), argv.len());
        Self {
            program,
            called,
            interpreter: None,
            line: Vec::new(),
            loaded: None,
            argv,
            argc,
            rest: Vec::new(),
            digest: None,
            parts: Vec::new(),
        }
    }
}

/// A program that the dynamic loader runs without an exec of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loaded {
    /// The resolved file.
    pub program: BoxPath,
    /// Which of the loader's arguments names it; the program's own come behind it.
    pub at: usize,
}

/// A question to the box's resolver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// The name: lower case, without the last dot; bytes that no host name has are escaped.
    pub name: String,
    /// The type of record that is asked for, such as `A`.
    pub record: String,
}

/// A connection from outside to a published port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Visit {
    /// Who connects.
    pub from: SocketAddr,
    /// The address on the host.
    pub at: SocketAddr,
    /// The port in the box.
    pub port: u16,
}

/// A signal to processes of another action.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signal {
    /// Its number.
    pub signal: i32,
    /// Its name, such as `SIGTERM`; `signal 32` where it has none.
    pub name: String,
    /// Who gets it.
    pub to: Receiver,
    /// Whether the receiver descends from the sender: whoever started something may end it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub below: bool,
}

/// Who gets a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Receiver {
    /// One process.
    Process {
        /// Its number inside the box.
        pid: i32,
        /// The action that it belongs to.
        action: ActionId,
    },
    /// A process group.
    Group {
        /// Its number inside the box: that of the process which leads it.
        pgid: i32,
        /// The action that this one belongs to; where it is gone, that of a member.
        action: ActionId,
    },
    /// Every process of the box but init and the sender.
    Everybody,
}

/// What carries data over IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// ICMP echo (ping sockets).
    Icmp,
}

impl Transport {
    fn is_tcp(&self) -> bool {
        *self == Self::Tcp
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
        })
    }
}

/// The name by which a box reaches the loopback of the host it runs on, where a rule lists it.
pub const HOST_NAME: &str = "host.agentbox.internal";

/// An address a socket is connected or bound to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "family", rename_all = "snake_case")]
pub enum Endpoint {
    /// IPv4 or IPv6.
    Inet {
        /// Address and port, IPv4-mapped addresses unwrapped. A loopback address that is `outside` is the host's.
        address: SocketAddr,
        /// Whether it leaves the box's own loopback.
        outside: bool,
        /// What carries it.
        #[serde(default, skip_serializing_if = "Transport::is_tcp")]
        transport: Transport,
        /// The names for which the box was given this address, as far as they are still remembered.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        names: Vec<Arc<str>>,
    },
    /// A unix socket with a name in the file system.
    Unix {
        /// The resolved socket file.
        path: BoxPath,
        /// Whether the socket was made inside this run, or lies on one of the box's private file systems.
        own: bool,
    },
    /// A unix socket with an abstract or no name.
    Abstract {
        /// The name, escaped; empty for an unnamed one.
        name: String,
        /// Whether it lies in the box's own network namespace, or was bound inside this run.
        own: bool,
    },
    /// `AF_UNSPEC`: dissolves an earlier connect.
    Unspecified,
    /// Netlink, the one kernel family left in the box.
    Netlink,
    /// Any other family.
    Other {
        /// The family's number.
        number: u16,
    },
}

/// Why a call could not be judged on its arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unjudged {
    /// The table has no row for it.
    UnknownCall,
    /// The caller's memory, directory or descriptor could not be read.
    Unreadable,
    /// Something changed between look and act more often than we try.
    Raced,
    /// An argument is longer than any that is accepted.
    TooLarge,
}

/// What the policy says to an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Allow, ask or deny.
    pub effect: Effect,
    /// The rule that said so.
    pub rule: RuleId,
    /// The kind of reason.
    pub reason: Reason,
    /// The rule's own words for the agent and the person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<Arc<str>>,
    /// What the deed weighs.
    #[serde(skip)]
    pub weight: Weight,
}

/// The three answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// It may happen.
    Allow,
    /// A person must say.
    Ask,
    /// It may not happen.
    Deny,
}

/// Why a verdict came out as it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// A rule grants it.
    Granted,
    /// A deny rule names it.
    DenyRule,
    /// An ask rule names it.
    AskRule,
    /// It is on the protected list.
    Protected,
    /// It would move, replace or alias a directory above a denied or protected name.
    AboveProtected,
    /// No rule grants it.
    NotGranted,
    /// The network mode does not let it out.
    NoNetwork,
    /// It touches the kernel's own files (`/proc`) in a way that is not harmless.
    KernelFile,
    /// It could not be judged.
    Unjudged,
    /// It weighs more than the policy lets pass without a person.
    Tier,
    /// A person was asked about the like in the same action, and it was not allowed.
    Answered,
}

/// Names a rule: the file that holds it and the key path in that file, such as `python.yaml network.allow[2]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RuleId(pub Arc<str>);

impl RuleId {
    /// Joins file and key path.
    pub fn new(file: &str, key: &str) -> Self {
        Self(format!("{file} {key}").into())
    }
}

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What becomes of a denial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// It holds.
    #[default]
    Enforce,
    /// It is recorded, and let through where the walls of the box hold without it.
    Audit,
}

/// What a run is exported as while it goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Export {
    /// It is not.
    #[default]
    None,
    /// A trace of OpenTelemetry, sent by OTLP over HTTP.
    Otlp,
}

/// How much is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Programs, connections, and everything that is denied.
    Minimal,
    /// Also every change to what files hold and to names; to modes, owners, times and attributes where a rule needs it.
    #[default]
    Actions,
    /// Also every open for reading, and every change to modes, owners, times and attributes.
    All,
}
