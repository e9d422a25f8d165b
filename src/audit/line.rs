//! A record as it is written: how a line of the log is put together, in the writer's thread.
//!
//! Which fields a line has, and in which order, is settled here alone; `entry` and `brief` read it back.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::actions;
use super::head;
use super::key::SigningKey;
use super::record::{Answer, Decision, End, Layer, Op, Record, Start, VERSION};
use super::run::RunId;
use super::text;
use crate::event::{
    Access, ActionId, Attribution, Bound, Effect, Endpoint, Exec, Labels, Losses, Mode, Place, Question,
};
use crate::event::{Reach, Reason, Reversibility, RuleId, Signal, Subject, Unjudged, Visit, Where};

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
struct NoteBody<'a> {
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

/// Appends the line of a signed head to `buffer`, without its newline.
pub(super) fn put_head(buffer: &mut Vec<u8>, link: Link<'_>, key: &SigningKey) -> serde_json::Result<()> {
    put(buffer, &Line::new(link, "head", head::Body::sign(key, link, SystemTime::now())))
}

/// Appends a record's line to `buffer`, without its newline.
pub(super) fn put_record(buffer: &mut Vec<u8>, link: Link<'_>, record: &Record) -> serde_json::Result<()> {
    match record {
        Record::Decision(decision) => put(buffer, &decision_line(link, decision)),
        Record::Note(note) => {
            let body = NoteBody { time: text::rfc3339(note.time), run: link.run.as_str(), text: &note.text };
            put(buffer, &Line::new(link, "note", body))
        }
        Record::Began(began) => actions::put_began(buffer, link, began),
        Record::Claimed(claimed) => actions::put_claimed(buffer, link, claimed),
        Record::Ended(sum, time) => actions::put_ended(buffer, link, *time, sum),
    }
}

pub(super) fn put(buffer: &mut Vec<u8>, line: &impl Serialize) -> serde_json::Result<()> {
    serde_json::to_writer(buffer, line)
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

#[cfg(test)]
pub(super) mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::time::SystemTime;

    use super::super::record::{NO_LINE, Outcome};
    use super::*;
    use crate::event::{BoxPath, Event, FileOp, Loaded, MoveOp, Part, Receiver, Standing, Transport, Verdict, Weight};

    pub fn place(path: &[u8]) -> Place {
        Place { own_repository: true, ..Place::of(BoxPath::new(OsStr::from_bytes(path)).unwrap()) }
    }

    pub fn accesses() -> Vec<Access> {
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

    pub fn decision_of(access: Access) -> Decision {
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

    pub fn line_of(access: Access) -> Vec<u8> {
        let run = RunId::new(SystemTime::UNIX_EPOCH, 1);
        let mut line = Vec::new();
        let link = Link { seq: 2, prev: NO_LINE, run: &run };
        put_record(&mut line, link, &Record::Decision(decision_of(access))).unwrap();
        line
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
}
