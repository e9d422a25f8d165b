//! A record as it is read back: one line of a log, its kind and what that kind holds.
//!
//! What this version does not know of a line is skipped, and a kind that it does not know is told by its name.

use std::borrow::Cow;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::head::SignedHead;
use super::record::{Answer, End, Layer, Op, Start};
use crate::event::{Access, ActionId, Attribution, Bound, Effect, Event, Labels, Losses, Mode, Reach, Reason};
use crate::event::{Reversibility, RuleId, Standing, Subject, Verdict, Weight, Where};

/// A record as a reader finds it.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    /// The first record.
    Start(Box<Start>),
    /// A question and its answer.
    Decision(Box<Decided>),
    /// Something worth knowing.
    Note(Noted),
    /// A signed head.
    Head(Box<SignedHead>),
    /// The record that ends a log.
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

    /// Tells whether a program was started with more arguments than the record holds: a rule may have gone by any of
    /// them.
    pub fn is_abridged(&self) -> bool {
        let arguments = self.target["argv"].as_array().map_or(0, |argv| argv.len() as u64);
        self.op == Op::Exec && self.target["argc"].as_u64().is_some_and(|argc| argc > arguments)
    }

    /// What the policy answered then, as far as it is on record.
    pub fn verdict(&self) -> Verdict {
        let (rule, message) = (self.rule.clone(), self.message.as_deref().map(Into::into));
        Verdict { effect: self.verdict, rule, reason: self.reason, message, weight: Weight::default() }
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

    /// Tells whether it happened.
    pub fn done(&self) -> bool {
        !self.denied() && happened(&self.outcome)
    }
}

/// Tells whether what was let through happened: a connection that is under way goes on without another question.
pub(super) fn happened(outcome: &str) -> bool {
    matches!(outcome, "ok" | "EINPROGRESS")
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
        "head" => Entry::Head(serde_json::from_slice(line)?),
        "end" => Entry::End(serde_json::from_slice(line)?),
        other => Entry::Other(other.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::super::line::tests::{accesses, decision_of, line_of, place};
    use super::super::line::{Link, put_end, put_record};
    use super::super::record::{Counts, Decision, Destination, NO_LINE, Outcome, Party, Record, RunResult};
    use super::super::run::RunId;
    use super::super::text;
    use super::*;
    use crate::event::{FileOp, Receiver, Signal, Transport};

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
}
