//! The schema of a record: what is handed to the writer, and what the first and the last record of a log hold.
//!
//! A line is one JSON object with `v`, `seq`, `prev` (SHA-256 of the line before it, without its newline) and `kind`.
//! Within version 1 fields and kinds may be added, never changed; a reader skips what it does not know.
//! Workers only hand over a [`Record`]: `line` makes a line of it in the writer's thread, `entry` reads one back.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::actions::{ActionSum, Began, Claiming};
use super::run::RunId;
use super::text;
use crate::event::{Access, Effect, Event, FileOp, Level, Mode, MoveOp, Transport, Verdict};

/// The version of the schema that this program writes, and the newest that it reads.
pub const VERSION: u32 = 1;

/// What `prev` holds in the first record: no line stands before it.
pub const NO_LINE: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// The kinds of record that can be handed to the writer during a run.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // nearly all are decisions; a box would be one more allocation for each
pub enum Record {
    /// A question and its answer.
    Decision(Decision),
    /// Something worth knowing that is no decision.
    Note(Note),
    /// An action begins.
    Began(Box<Began>),
    /// A process says something of an action.
    Claimed(Box<Claiming>),
    /// An action has ended.
    Ended(Box<ActionSum>, SystemTime),
}

/// How a run began: the first record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Start {
    /// When, RFC 3339.
    pub time: String,
    /// The run.
    pub run: RunId,
    /// The version of agentbox that wrote the log.
    pub agentbox: String,
    /// The command and its arguments, escaped as paths are.
    pub command: Vec<String>,
    /// The policy.
    pub policy: PolicyRef,
    /// What becomes of denials.
    #[serde(default)]
    pub mode: Mode,
    /// Which layer was enforced, partial or absent, and why.
    pub coverage: Value,
}

#[cfg(test)]
impl Start {
    /// The first record of a log that only a test writes.
    pub(super) fn example() -> Self {
        use std::time::SystemTime;
        Self {
            time: super::text::rfc3339(SystemTime::UNIX_EPOCH),
            run: RunId::new(SystemTime::UNIX_EPOCH, 1),
            agentbox: "0.1.0".into(),
            command: vec!["true".into()],
            policy: PolicyRef { name: "default.yaml".into(), digest: "00".into() },
            mode: Mode::Enforce,
            coverage: Value::Null,
        }
    }
}

/// Names a policy and its exact content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRef {
    /// The top file or profile.
    pub name: String,
    /// SHA-256 of the normalised policy.
    pub digest: String,
}

/// A question, its answer and what came of it, as the gate hands it over.
#[derive(Debug)]
pub struct Decision {
    /// When it was settled.
    pub time: SystemTime,
    /// Who asked for what.
    pub event: Event,
    /// The target as the caller wrote it, escaped as paths are.
    pub asked: Option<String>,
    /// The policy's answer.
    pub verdict: Verdict,
    /// Who answered when the policy said to ask.
    pub answer: Option<Answer>,
    /// Whether mode audit let a refusal through.
    pub mode: Mode,
    /// The layer that holds the answer.
    pub layer: Layer,
    /// What came of it.
    pub outcome: Outcome,
    /// From the question's arrival to the answer.
    pub latency: Duration,
}

/// How an ask was answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Allow or deny.
    pub effect: Effect,
    /// Who said so.
    pub by: Cow<'static, str>,
}

/// Something worth knowing, such as a new repository that carries hooks.
#[derive(Debug, Clone)]
pub struct Note {
    /// When.
    pub time: SystemTime,
    /// What.
    pub text: String,
}

/// How a run ended: the last record but for the head that signs it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct End {
    /// When, RFC 3339.
    pub time: String,
    /// The run.
    pub run: RunId,
    /// How the command ended.
    pub result: RunResult,
    /// Every question of the run, recorded or not.
    pub counts: Counts,
    /// What the run had to do with each party outside; left out when there was none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub destinations: Vec<Destination>,
    /// What the run came to in all.
    #[serde(default)]
    pub total: Option<Box<ActionSum>>,
    /// Refusals that mode audit let through.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub let_through: u64,
    /// Records in this log up to this one, which is included.
    pub recorded: u64,
    /// Records that should be in this log and are not.
    pub dropped: u64,
    /// Writes that failed.
    pub write_errors: u64,
}

/// How a command ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunResult {
    /// Its exit status, unless a signal ended it.
    pub exit: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Whether it was ended for taking too long.
    pub timed_out: bool,
    /// What kept agentbox from running it to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Counts and latencies of a run by operation; operations that never occurred are left out.
pub type Counts = BTreeMap<Op, OpCount>;

/// Counts and latencies of one operation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct OpCount {
    /// How often the policy allowed it.
    pub allow: u64,
    /// How often the policy said to ask.
    pub ask: u64,
    /// How often the policy denied it.
    pub deny: u64,
    /// How often it was allowed and the process was then ended because it did not do what was approved.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub killed: u64,
    /// The median latency in microseconds.
    pub p50_us: f64,
    /// The latency that 99 of 100 stay below, in microseconds.
    pub p99_us: f64,
}

pub(super) fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl OpCount {
    /// How often it was asked for. Counts that are read back may be anything, so sums stop at the largest number.
    pub fn asked(&self) -> u64 {
        self.allow.saturating_add(self.ask).saturating_add(self.deny)
    }

    /// How often it was kept from happening.
    pub fn refused(&self) -> u64 {
        self.ask.saturating_add(self.deny).saturating_add(self.killed)
    }
}

/// What a run had to do with one party outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destination {
    /// Which.
    #[serde(flatten)]
    pub party: Party,
    /// Connections and datagrams that were allowed, whatever came of them.
    pub allowed: u64,
    /// Connections and datagrams that were refused.
    pub denied: u64,
    /// Bytes that left the box, as far as they were counted; absent when nothing could be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_out: Option<u64>,
    /// Bytes that came to the box, as far as they were counted; absent when nothing could be. The kernel counts the end
    /// of a connection as one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_in: Option<u64>,
    /// Connections whose bytes could not be counted, and are missing above.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub uncounted: u64,
}

/// Who is on the other side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Party {
    /// A service that the box reaches, or tried to.
    Service {
        /// The names for which the box was given its addresses; empty when it had none.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        names: Vec<Arc<str>>,
        /// Its addresses, the first [`Party::ADDRESSES`] of them.
        addresses: Vec<IpAddr>,
        /// Its port; 0 where there is none.
        port: u16,
        /// What carries it.
        transport: Transport,
    },
    /// The visitors of a published port.
    Visitors {
        /// The address on the host.
        at: SocketAddr,
        /// The port in the box.
        port: u16,
    },
    /// Everybody who is not listed because the list is full.
    Others,
}

impl Party {
    /// How many addresses of one name are listed.
    pub const ADDRESSES: usize = 16;
}

/// The last link of a chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The last record's number.
    pub seq: u64,
    /// SHA-256 of its line.
    pub hash: String,
}

/// The layer that holds an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layer {
    /// The supervisor, which answers the stopped call.
    #[default]
    Supervisor,
    /// The seccomp filter.
    Seccomp,
    /// Landlock.
    Landlock,
    /// The mount view.
    View,
}

/// What came of a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Ok,
    /// The call returned this errno: the policy's refusal, or the kernel's own.
    Errno(i32),
    /// The process was ended because what it did was not what was approved.
    Killed,
    /// The caller was gone before the answer.
    Gone,
}

impl Outcome {
    /// Says it in a word: `ok`, `EACCES`, `killed`, `gone`.
    pub fn word(self) -> Cow<'static, str> {
        match self {
            Self::Ok => "ok".into(),
            Self::Errno(number) => text::errno_name(number).into(),
            Self::Killed => "killed".into(),
            Self::Gone => "gone".into(),
        }
    }
}

/// The operations that are counted, one for each thing an [`Access`] can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // each is named after the event's variant
pub enum Op {
    Read,
    Write,
    Create,
    Truncate,
    Mkdir,
    Mknod,
    Symlink,
    Unlink,
    Rmdir,
    Chmod,
    Chown,
    Utime,
    Xattr,
    Rename,
    Exchange,
    Link,
    Exec,
    Connect,
    Send,
    Route,
    Resolve,
    Accept,
    Bind,
    Signal,
    Call,
}

impl Op {
    /// Every operation, in order.
    pub const ALL: [Self; 25] = [
        Self::Read,
        Self::Write,
        Self::Create,
        Self::Truncate,
        Self::Mkdir,
        Self::Mknod,
        Self::Symlink,
        Self::Unlink,
        Self::Rmdir,
        Self::Chmod,
        Self::Chown,
        Self::Utime,
        Self::Xattr,
        Self::Rename,
        Self::Exchange,
        Self::Link,
        Self::Exec,
        Self::Connect,
        Self::Send,
        Self::Route,
        Self::Resolve,
        Self::Accept,
        Self::Bind,
        Self::Signal,
        Self::Call,
    ];

    /// Tells which operation an access is.
    pub fn of(access: &Access) -> Self {
        match access {
            Access::File { op, .. } => match op {
                FileOp::Read => Self::Read,
                FileOp::Write => Self::Write,
                FileOp::Create => Self::Create,
                FileOp::Truncate => Self::Truncate,
                FileOp::Mkdir => Self::Mkdir,
                FileOp::Mknod => Self::Mknod,
                FileOp::Symlink => Self::Symlink,
                FileOp::Unlink => Self::Unlink,
                FileOp::Rmdir => Self::Rmdir,
                FileOp::Chmod => Self::Chmod,
                FileOp::Chown => Self::Chown,
                FileOp::Utime => Self::Utime,
                FileOp::Xattr => Self::Xattr,
            },
            Access::Move { op, .. } => match op {
                MoveOp::Rename => Self::Rename,
                MoveOp::Exchange => Self::Exchange,
                MoveOp::Link => Self::Link,
            },
            Access::Exec(_) => Self::Exec,
            Access::Connect { .. } => Self::Connect,
            Access::Send { .. } => Self::Send,
            Access::Route { .. } => Self::Route,
            Access::Resolve(_) => Self::Resolve,
            Access::Accept(_) => Self::Accept,
            Access::Bind { .. } => Self::Bind,
            Access::Signal(_) => Self::Signal,
            Access::Call { .. } => Self::Call,
        }
    }

    /// Names it as records do.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Create => "create",
            Self::Truncate => "truncate",
            Self::Mkdir => "mkdir",
            Self::Mknod => "mknod",
            Self::Symlink => "symlink",
            Self::Unlink => "unlink",
            Self::Rmdir => "rmdir",
            Self::Chmod => "chmod",
            Self::Chown => "chown",
            Self::Utime => "utime",
            Self::Xattr => "xattr",
            Self::Rename => "rename",
            Self::Exchange => "exchange",
            Self::Link => "link",
            Self::Exec => "exec",
            Self::Connect => "connect",
            Self::Send => "send",
            Self::Route => "route",
            Self::Resolve => "resolve",
            Self::Accept => "accept",
            Self::Bind => "bind",
            Self::Signal => "signal",
            Self::Call => "call",
        }
    }

    /// Tells the lowest level at which it is recorded when it is allowed; what is denied always is.
    pub fn level(self) -> Level {
        match self {
            Self::Exec | Self::Connect | Self::Resolve | Self::Accept | Self::Bind | Self::Call => Level::Minimal,
            Self::Read | Self::Route => Level::All,
            _ => Level::Actions,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_includes_the_lower_ones() {
        assert!(Op::Exec.level() < Op::Write.level() && Op::Write.level() < Op::Read.level());
    }
}
