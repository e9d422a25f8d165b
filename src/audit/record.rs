//! The schema of a record: what a line of `audit.jsonl` holds, and how it is written and read back.
//!
//! A line is one JSON object with `v`, `seq`, `prev` (SHA-256 of the line before it, without its newline) and `kind`.
//! Within version 1 fields and kinds may be added, never changed; a reader skips what it does not know.
//! Lines are put together in the writer's thread; workers only hand over a [`Record`].

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::actions::{self, ActionSum, Began, Claiming};
use super::run::RunId;
use super::text;
use crate::event::{Access, Effect, Endpoint, Event, Exec, FileOp, Level, Mode, MoveOp, Place, Question, Reason};
use crate::event::{ActionId, Attribution, Bound, Labels, Losses, Reach, Reversibility, Standing, Where};
use crate::event::{RuleId, Signal, Subject, Transport, Unjudged, Verdict, Visit};

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

/// How a run ended: the last record.
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
    /// Records in this log, this one included.
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

/// Where a line stands in the chain.
#[derive(Debug, Clone, Copy)]
pub(super) struct Link<'a> {
    pub seq: u64,
    pub prev: &'a str,
    pub run: &'a RunId,
}

/// A line: what all have, and what its kind adds.
#[derive(Serialize)]
pub(super) struct Line<'a, T> {
    v: u32,
    seq: u64,
    prev: &'a str,
    kind: &'static str,
    #[serde(flatten)]
    body: T,
}

impl<'a, T> Line<'a, T> {
    pub(super) fn new(link: Link<'a>, kind: &'static str, body: T) -> Self {
        Self { v: VERSION, seq: link.seq, prev: link.prev, kind, body }
    }
}

#[derive(Serialize)]
struct NoteLine<'a> {
    v: u32,
    seq: u64,
    prev: &'a str,
    kind: &'static str,
    time: String,
    run: &'a str,
    text: &'a str,
}

#[derive(Serialize)]
struct DecisionLine<'a> {
    v: u32,
    seq: u64,
    prev: &'a str,
    kind: &'static str,
    time: String,
    run: &'a str,
    action: ActionId,
    attribution: Attribution,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    shared: &'a [ActionId],
    process: &'a Subject,
    op: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    asked: Option<&'a str>,
    target: TargetLine<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<&'a Place>,
    verdict: Effect,
    rule: &'a RuleId,
    reason: Reason,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<&'a Answer>,
    #[serde(skip_serializing_if = "is_enforced")]
    mode: Mode,
    #[serde(skip_serializing_if = "Option::is_none")]
    place: Option<Where>,
    reach: Reach,
    reversibility: Reversibility,
    tier: u8,
    #[serde(skip_serializing_if = "Labels::is_empty")]
    secrets: &'a Labels,
    #[serde(skip_serializing_if = "Labels::is_empty")]
    taint: &'a Labels,
    #[serde(skip_serializing_if = "Losses::is_none")]
    so_far: &'a Losses,
    #[serde(skip_serializing_if = "Losses::is_none")]
    in_run: &'a Losses,
    #[serde(skip_serializing_if = "Option::is_none")]
    bound: Option<&'a Bound>,
    layer: Layer,
    outcome: Cow<'static, str>,
    latency_us: f64,
}

fn is_enforced(mode: &Mode) -> bool {
    *mode == Mode::Enforce
}

#[derive(Serialize)]
#[serde(untagged)]
enum TargetLine<'a> {
    Place(&'a Place),
    Exec(&'a Exec),
    Endpoint(&'a Endpoint),
    Question(&'a Question),
    Visit(&'a Visit),
    Signal(&'a Signal),
    Call { name: &'a str, why: Unjudged },
}

/// Appends a start record's line to `buffer`, without its newline.
pub(super) fn put_start(buffer: &mut Vec<u8>, link: Link<'_>, start: &Start) -> serde_json::Result<()> {
    put(buffer, &Line::new(link, "start", start))
}

/// Appends an end record's line to `buffer`, without its newline.
pub(super) fn put_end(buffer: &mut Vec<u8>, link: Link<'_>, end: &End) -> serde_json::Result<()> {
    put(buffer, &Line::new(link, "end", end))
}

/// Appends a record's line to `buffer`, without its newline.
pub(super) fn put_record(buffer: &mut Vec<u8>, link: Link<'_>, record: &Record) -> serde_json::Result<()> {
    match record {
        Record::Decision(decision) => put(buffer, &decision_line(link, decision)),
        Record::Note(note) => put(buffer, &note_line(link, note)),
        Record::Began(began) => actions::put_began(buffer, link, began),
        Record::Claimed(claimed) => actions::put_claimed(buffer, link, claimed),
        Record::Ended(sum, time) => actions::put_ended(buffer, link, *time, sum),
    }
}

pub(super) fn put(buffer: &mut Vec<u8>, line: &impl Serialize) -> serde_json::Result<()> {
    serde_json::to_writer(buffer, line)
}

fn note_line<'a>(link: Link<'a>, note: &'a Note) -> NoteLine<'a> {
    NoteLine {
        v: VERSION,
        seq: link.seq,
        prev: link.prev,
        kind: "note",
        time: text::rfc3339(note.time),
        run: link.run.as_str(),
        text: &note.text,
    }
}

fn decision_line<'a>(link: Link<'a>, decision: &'a Decision) -> DecisionLine<'a> {
    let (target, to) = targets(&decision.event.access);
    let (standing, weight) = (&decision.event.standing, &decision.verdict.weight);
    DecisionLine {
        v: VERSION,
        seq: link.seq,
        prev: link.prev,
        kind: "decision",
        time: text::rfc3339(decision.time),
        run: link.run.as_str(),
        action: standing.action,
        attribution: standing.attribution,
        shared: &standing.shared,
        process: &decision.event.subject,
        op: Op::of(&decision.event.access).name(),
        asked: decision.asked.as_deref(),
        target,
        to,
        verdict: decision.verdict.effect,
        rule: &decision.verdict.rule,
        reason: decision.verdict.reason,
        message: decision.verdict.message.as_deref(),
        answer: decision.answer.as_ref(),
        mode: decision.mode,
        place: weight.place,
        reach: weight.reach,
        reversibility: weight.reversibility,
        tier: weight.tier,
        secrets: &weight.secrets,
        taint: &standing.taint,
        so_far: &standing.so_far,
        in_run: &standing.in_run,
        bound: standing.bound.as_deref(),
        layer: decision.layer,
        outcome: decision.outcome.word(),
        latency_us: micros(decision.latency),
    }
}

fn targets(access: &Access) -> (TargetLine<'_>, Option<&Place>) {
    match access {
        Access::File { at, .. } => (TargetLine::Place(at), None),
        Access::Move { from, to, .. } => (TargetLine::Place(from), Some(to)),
        Access::Exec(exec) => (TargetLine::Exec(exec), None),
        Access::Connect { to } | Access::Send { to } | Access::Route { to } => (TargetLine::Endpoint(to), None),
        Access::Resolve(question) => (TargetLine::Question(question), None),
        Access::Accept(visit) => (TargetLine::Visit(visit), None),
        Access::Bind { at } => (TargetLine::Endpoint(at), None),
        Access::Signal(signal) => (TargetLine::Signal(signal), None),
        Access::Call { name, why } => (TargetLine::Call { name, why: *why }, None),
    }
}

/// Microseconds with one digit behind the point.
pub(super) fn micros(time: Duration) -> f64 {
    (time.as_nanos() as f64 / 100.0).round() / 10.0
}

/// A record as a reader finds it.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    /// The first record.
    Start(Box<Start>),
    /// A question and its answer.
    Decision(Box<Decided>),
    /// Something worth knowing.
    Note(Noted),
    /// The last record.
    End(Box<End>),
    /// A kind that this version does not know.
    Other(String),
}

/// A decision read back from a log.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Decided {
    /// When, RFC 3339.
    pub time: String,
    /// `session`, or an action's id; in logs of earlier versions `command:<pid>`.
    pub action: String,
    /// How it is known which action it belongs to.
    #[serde(default)]
    pub attribution: Attribution,
    /// Other actions that it may belong to.
    #[serde(default)]
    pub shared: Vec<ActionId>,
    /// Who asked.
    pub process: Subject,
    /// What was asked for.
    pub op: Op,
    /// The target as the caller wrote it.
    #[serde(default)]
    pub asked: Option<String>,
    /// The target as it was resolved; its fields depend on `op`.
    pub target: Value,
    /// The second name of a two-name call.
    #[serde(default)]
    pub to: Option<Value>,
    /// The policy's answer.
    pub verdict: Effect,
    /// The rule that said so.
    pub rule: RuleId,
    /// The kind of reason.
    pub reason: Reason,
    /// The rule's own words.
    #[serde(default)]
    pub message: Option<String>,
    /// Who answered an ask.
    #[serde(default)]
    pub answer: Option<Answer>,
    /// `audit` where a refusal was let through.
    #[serde(default)]
    pub mode: Mode,
    /// Where it took place, if it changed files.
    #[serde(default)]
    pub place: Option<Where>,
    /// How far it reached.
    #[serde(default)]
    pub reach: Option<Reach>,
    /// Whether it can be undone.
    #[serde(default)]
    pub reversibility: Option<Reversibility>,
    /// What it weighed.
    #[serde(default)]
    pub tier: Option<u8>,
    /// Labels of the secrets that it read.
    #[serde(default)]
    pub secrets: Labels,
    /// Labels of the secrets that the process may have read before.
    #[serde(default)]
    pub taint: Labels,
    /// What its action had destroyed before.
    #[serde(default)]
    pub so_far: Losses,
    /// What all actions of the run had.
    #[serde(default)]
    pub in_run: Losses,
    /// What would be gone if the process went on as it had begun.
    #[serde(default)]
    pub bound: Option<Bound>,
    /// The layer that holds the answer.
    pub layer: Layer,
    /// `ok`, an errno's name, `killed` or `gone`.
    pub outcome: String,
    /// Microseconds from the question to the answer.
    pub latency_us: f64,
}

/// A note read back from a log.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Noted {
    /// When, RFC 3339.
    pub time: String,
    /// What.
    pub text: String,
}

impl Decided {
    /// Gives back what was asked for, so that a log can be put to another policy.
    pub fn access(&self) -> Option<Access> {
        let (op, target) = (self.op, &self.target);
        let access = match op {
            Op::Rename | Op::Exchange | Op::Link => json!({"kind": "move", "op": op, "from": target, "to": self.to}),
            Op::Connect | Op::Send | Op::Route => json!({"kind": op, "to": target}),
            Op::Bind => json!({"kind": "bind", "at": target}),
            Op::Exec | Op::Resolve | Op::Accept | Op::Signal | Op::Call => {
                let mut fields = target.as_object()?.clone();
                fields.insert("kind".into(), op.name().into());
                Value::Object(fields)
            }
            _ => json!({"kind": "file", "op": op, "at": target}),
        };
        serde_json::from_value(access).ok()
    }

    /// Gives back the whole question: who asked for what, and what was known then.
    pub fn event(&self) -> Option<Event> {
        let standing = Standing {
            action: ActionId::parse(&self.action).unwrap_or_default(),
            attribution: self.attribution,
            shared: self.shared.clone(),
            taint: self.taint.clone(),
            so_far: self.so_far,
            in_run: self.in_run,
            bound: self.bound.clone().map(Arc::new),
        };
        Some(Event { subject: self.process.clone().into(), access: self.access()?, standing })
    }

    /// Tells whether it was refused and mode audit let it through.
    pub fn let_through(&self) -> bool {
        self.mode == Mode::Audit && self.verdict != Effect::Allow && self.outcome != "killed"
    }

    /// Tells whether the policy was against it, whether or not it was kept from happening.
    pub fn is_refusal(&self) -> bool {
        self.denied() || self.let_through()
    }

    /// Tells whether it was kept from happening: denied, asked and not granted, or ended in the act.
    pub fn denied(&self) -> bool {
        !self.let_through() && refused(self.verdict, self.answer.as_ref(), &self.outcome)
    }
}

/// Tells whether what was decided so was kept from happening.
pub(super) fn refused(verdict: Effect, answer: Option<&Answer>, outcome: &str) -> bool {
    match verdict {
        Effect::Allow => outcome == "killed",
        Effect::Ask => answer.is_none_or(|answer| answer.effect != Effect::Allow),
        Effect::Deny => true,
    }
}

/// What every line has, whatever its kind.
#[derive(Debug, Deserialize)]
pub(super) struct Header<'a> {
    pub v: u32,
    pub seq: u64,
    #[serde(borrow)]
    pub prev: Cow<'a, str>,
    #[serde(borrow)]
    pub kind: Cow<'a, str>,
}

/// Reads the body of a line whose header said `kind`.
pub(super) fn parse(kind: &str, line: &[u8]) -> serde_json::Result<Entry> {
    Ok(match kind {
        "start" => Entry::Start(serde_json::from_slice(line)?),
        "decision" => Entry::Decision(serde_json::from_slice(line)?),
        "note" => Entry::Note(serde_json::from_slice(line)?),
        "end" => Entry::End(serde_json::from_slice(line)?),
        other => Entry::Other(other.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use super::*;
    use crate::event::{BoxPath, Loaded, Part, Receiver, Transport, Weight};

    fn place(path: &[u8]) -> Place {
        Place { own_repository: true, ..Place::of(BoxPath::new(OsStr::from_bytes(path)).unwrap()) }
    }

    fn accesses() -> Vec<Access> {
        let exec = Exec {
            program: BoxPath::new("/usr/bin/python3").unwrap(),
            called: "agent.py".into(),
            interpreter: BoxPath::new("/bin/sh"),
            line: vec!["/bin/sh".into(), "agent.py".into()],
            loaded: Some(Loaded { program: BoxPath::new("/usr/bin/x").unwrap(), at: 1 }),
            argv: vec!["a".into(), "b\n\u{1b}".into()],
            argc: 2,
            rest: Vec::new(),
            digest: Some("sha256:00".into()),
            parts: vec![Part { file: BoxPath::new("/work/x").unwrap(), digest: "none: larger".into() }],
        };
        let file = |op| Access::File { op, at: place(b"/x/\xff\n\x1b") };
        let two = |op| Access::Move { op, from: place(b"/a\\b"), to: place(b"/b") };
        let unix = Endpoint::Unix { path: BoxPath::new("/run/s").unwrap(), own: true };
        let inet = |transport| Endpoint::Inet {
            address: "[::1]:80".parse().unwrap(),
            outside: true,
            transport,
            names: vec!["api.example.org".into()],
        };
        vec![
            file(FileOp::Read),
            file(FileOp::Write),
            file(FileOp::Create),
            file(FileOp::Truncate),
            file(FileOp::Mkdir),
            file(FileOp::Mknod),
            file(FileOp::Symlink),
            file(FileOp::Unlink),
            file(FileOp::Rmdir),
            file(FileOp::Chmod),
            file(FileOp::Chown),
            file(FileOp::Utime),
            file(FileOp::Xattr),
            two(MoveOp::Rename),
            two(MoveOp::Exchange),
            two(MoveOp::Link),
            Access::Exec(exec),
            Access::Connect { to: inet(Transport::Tcp) },
            Access::Send { to: inet(Transport::Udp) },
            Access::Route { to: inet(Transport::Udp) },
            Access::Resolve(Question { name: "api.example.org".into(), record: "AAAA".into() }),
            Access::Accept(Visit {
                from: "127.0.0.1:50000".parse().unwrap(),
                at: "127.0.0.1:8000".parse().unwrap(),
                port: 80,
            }),
            Access::Bind { at: unix },
            Access::Signal(Signal {
                signal: 15,
                name: "SIGTERM".into(),
                to: Receiver::Process { pid: 7, action: ActionId::new(3) },
                below: true,
            }),
            Access::Call { name: "mseal".into(), why: Unjudged::UnknownCall },
        ]
    }

    fn decision_of(access: Access) -> Decision {
        let (action, attribution) = (ActionId::new(5), Attribution::Subtree);
        let standing = Standing { action, attribution, taint: ["env"].into(), ..Standing::default() };
        let subject = Subject {
            pid: 7,
            host: 4711,
            exe: "/usr/bin/python3".into(),
            parents: vec![5, 2, 1],
            ..Subject::default()
        };
        Decision {
            time: SystemTime::UNIX_EPOCH,
            event: Event { subject: subject.into(), access, standing },
            asked: Some("../x".into()),
            verdict: Verdict {
                effect: Effect::Deny,
                rule: RuleId::new("default.yaml", "filesystem"),
                reason: Reason::NotGranted,
                message: Some("no".into()),
                weight: Weight {
                    reach: Reach::B1,
                    reversibility: Reversibility::R3,
                    tier: 6,
                    place: Some(Where::Workspace),
                    ..Weight::default()
                },
            },
            answer: None,
            mode: Mode::Enforce,
            layer: Layer::Supervisor,
            outcome: Outcome::Errno(13),
            latency: Duration::from_nanos(12_345),
        }
    }

    fn line_of(access: Access) -> Vec<u8> {
        let run = RunId::new(SystemTime::UNIX_EPOCH, 1);
        let mut line = Vec::new();
        let link = Link { seq: 2, prev: NO_LINE, run: &run };
        put_record(&mut line, link, &Record::Decision(decision_of(access))).unwrap();
        line
    }

    #[test]
    fn every_operation_is_read_back_as_it_was_asked() {
        let accesses = accesses();
        assert!(accesses.iter().map(Op::of).eq(Op::ALL));
        for access in accesses {
            let line = line_of(access.clone());
            let header: Header<'_> = serde_json::from_slice(&line).unwrap();
            assert_eq!((header.v, header.seq, &*header.prev, &*header.kind), (1, 2, NO_LINE, "decision"));
            let Entry::Decision(decided) = parse(&header.kind, &line).unwrap() else { panic!() };
            let brief: super::super::brief::Brief<'_> = serde_json::from_slice(&line).unwrap();
            assert_eq!((brief.access(), brief.denied()), (decided.access(), decided.denied()));
            assert_eq!(decided.access(), Some(access));
            assert_eq!(decided.op.name(), serde_json::to_value(decided.op).unwrap());
            assert_eq!((decided.action.as_str(), decided.outcome.as_str()), ("a5", "EACCES"));
            assert_eq!(decided.latency_us, 12.3);
        }
    }

    #[test]
    fn each_receiver_of_a_signal_is_read_back_as_it_was_written() {
        let action = ActionId::new(3);
        for (to, written) in [
            (Receiver::Process { pid: 7, action }, r#""to":{"process":{"pid":7,"action":"a3"}}"#),
            (Receiver::Group { pgid: 5, action: ActionId::SESSION }, r#""to":{"group":{"pgid":5,"action":"session"}}"#),
            (Receiver::Everybody, r#""to":"everybody""#),
        ] {
            let access = Access::Signal(Signal { signal: 9, name: "SIGKILL".into(), to, below: false });
            let line = line_of(access.clone());
            let target = format!(r#""op":"signal","asked":"../x","target":{{"signal":9,"name":"SIGKILL",{written}}}"#);
            assert!(String::from_utf8_lossy(&line).contains(&target), "{}", String::from_utf8_lossy(&line));
            let Entry::Decision(decided) = parse("decision", &line).unwrap() else { panic!() };
            assert_eq!(decided.access(), Some(access));
        }
    }

    #[test]
    fn what_was_let_through_was_not_denied() {
        for (mode, outcome, denied, let_through) in [
            (Mode::Enforce, Outcome::Errno(13), true, false),
            (Mode::Audit, Outcome::Ok, false, true),
            (Mode::Audit, Outcome::Errno(2), false, true),
            (Mode::Audit, Outcome::Killed, true, false),
        ] {
            let access = Access::File { op: FileOp::Write, at: place(b"/x") };
            let (decision, run) = (decision_of(access), RunId::new(SystemTime::UNIX_EPOCH, 1));
            let mut line = Vec::new();
            let link = Link { seq: 2, prev: NO_LINE, run: &run };
            put_record(&mut line, link, &Record::Decision(Decision { mode, outcome, ..decision })).unwrap();
            let Entry::Decision(decided) = parse("decision", &line).unwrap() else { panic!() };
            assert_eq!((decided.denied(), decided.let_through()), (denied, let_through), "{mode:?} {outcome:?}");
            assert!(decided.is_refusal());
        }
    }

    #[test]
    fn no_name_can_break_a_line() {
        for access in accesses() {
            let line = line_of(access);
            assert!(line.iter().all(|byte| !byte.is_ascii_control()), "{}", String::from_utf8_lossy(&line));
        }
    }

    #[test]
    fn the_schema_is_what_readers_rely_on() {
        let line = line_of(Access::File { op: FileOp::Write, at: place(b"/etc/hosts") });
        let expected = concat!(
            r#"{"v":1,"seq":2,"prev":"0000000000000000000000000000000000000000000000000000000000000000","#,
            r#""kind":"decision","time":"1970-01-01T00:00:00.000000Z","run":"19700101-000000-000001","#,
            r#""action":"a5","attribution":"subtree","process":{"pid":7,"host":4711,"exe":"/usr/bin/python3","parents":[5,2,1]},"#,
            r#""op":"write","asked":"../x","target":{"path":"/etc/hosts","own_repository":true},"verdict":"deny","#,
            r#""rule":"default.yaml filesystem","reason":"not_granted","message":"no","#,
            r#""place":"workspace","reach":"B1","reversibility":"R3","tier":6,"taint":["env"],"layer":"supervisor","#,
            r#""outcome":"EACCES","latency_us":12.3}"#,
        );
        assert_eq!(String::from_utf8(line).unwrap(), expected);
    }

    #[test]
    fn destinations_are_read_back_from_the_end_as_they_were_summed_up() {
        let service = Party::Service {
            names: vec!["api.example.org".into()],
            addresses: vec!["192.0.2.7".parse().unwrap(), "2001:db8::7".parse().unwrap()],
            port: 443,
            transport: Transport::Tcp,
        };
        let bare = Party::Service {
            names: vec![],
            addresses: vec!["192.0.2.53".parse().unwrap()],
            port: 53,
            transport: Transport::Udp,
        };
        let visitors = Party::Visitors { at: "127.0.0.1:8000".parse().unwrap(), port: 80 };
        let sums = |party, allowed, denied, bytes: Option<u64>, uncounted| Destination {
            party,
            allowed,
            denied,
            bytes_out: bytes,
            bytes_in: bytes,
            uncounted,
        };
        let end = End {
            time: text::rfc3339(SystemTime::UNIX_EPOCH),
            run: RunId::new(SystemTime::UNIX_EPOCH, 1),
            result: RunResult::default(),
            counts: Counts::new(),
            destinations: vec![
                sums(service, 3, 1, Some(12), 2),
                sums(bare, 0, 1, None, 0),
                sums(visitors, 1, 0, Some(0), 0),
                sums(Party::Others, 9, 0, None, 0),
            ],
            total: None,
            let_through: 0,
            recorded: 2,
            dropped: 0,
            write_errors: 0,
        };
        let mut line = Vec::new();
        let link = Link { seq: 2, prev: NO_LINE, run: &end.run };
        put_end(&mut line, link, &end).unwrap();
        assert_eq!(parse("end", &line).unwrap(), Entry::End(Box::new(end.clone())));
        let expected = concat!(
            r#""destinations":[{"kind":"service","names":["api.example.org"],"#,
            r#""addresses":["192.0.2.7","2001:db8::7"],"port":443,"transport":"tcp","#,
            r#""allowed":3,"denied":1,"bytes_out":12,"bytes_in":12,"uncounted":2},"#,
            r#"{"kind":"service","addresses":["192.0.2.53"],"port":53,"transport":"udp","allowed":0,"denied":1},"#,
            r#"{"kind":"visitors","at":"127.0.0.1:8000","port":80,"allowed":1,"denied":0,"bytes_out":0,"bytes_in":0},"#,
            r#"{"kind":"others","allowed":9,"denied":0}]"#,
        );
        let line = String::from_utf8(line).unwrap();
        assert!(line.contains(expected), "{line}");
        let older = line.replace(&format!("{expected},"), "");
        assert_ne!(older, line);
        let Entry::End(read) = parse("end", older.as_bytes()).unwrap() else { panic!() };
        assert_eq!(read.destinations, [], "a log of an earlier agentbox");
    }

    #[test]
    fn a_level_includes_the_lower_ones() {
        assert!(Op::Exec.level() < Op::Write.level() && Op::Write.level() < Op::Read.level());
    }
}
