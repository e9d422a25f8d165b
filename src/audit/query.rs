//! Chooses records: who, what, when, by which rule. Criteria are combined with *and*.
//!
//! Most lines of a long log are of no interest, and parsing costs more than all else: a line whose bytes cannot hold
//! what is asked for is passed over unread. That is sound for lines that are spelt as this program spells them, without
//! blanks and needless escapes; a line that begins otherwise is always parsed.

use std::path::Path;

use jiff::Timestamp;
use memchr::memmem::Finder;

use super::brief::{Brief, Sight};
use super::read::Seen;
use super::record::Op;
use crate::event::{Access, Endpoint, Exec};

/// Says whether a path is of interest.
pub type PathTest = Box<dyn Fn(&Path) -> bool>;

/// What is looked for; what is `None` or empty leaves all in.
#[derive(Default)]
pub struct Criteria {
    /// Only what was refused.
    pub denied: bool,
    /// One of these operations.
    pub ops: Vec<Op>,
    /// Not before.
    pub since: Option<Timestamp>,
    /// Not after.
    pub until: Option<Timestamp>,
    /// Of this action.
    pub action: Option<String>,
    /// By the process of this number in the box.
    pub pid: Option<i32>,
    /// With a path that this holds for.
    pub path: Option<PathTest>,
    /// A word that stands in every such path.
    pub path_word: Option<String>,
    /// With a rule that contains this.
    pub rule: Option<String>,
}

/// Criteria made ready for many lines.
#[derive(Default)]
pub struct Query {
    criteria: Criteria,
    /// One of each group must occur in a compact line that fits.
    needles: Vec<Vec<Finder<'static>>>,
    /// Whether only decisions can fit.
    decisions: bool,
}

impl Query {
    /// Prepares to look for `criteria`.
    pub fn new(criteria: Criteria) -> Self {
        let mut needles = Vec::new();
        if criteria.denied {
            needles.push(vec![r#""verdict":"deny""#.into(), r#""verdict":"ask""#.into(), r#""killed""#.into()]);
        }
        if !criteria.ops.is_empty() {
            needles.push(criteria.ops.iter().map(|op| format!(r#""op":"{}""#, op.name())).collect());
        }
        needles.extend(criteria.action.as_ref().map(|action| vec![format!(r#""action":{}"#, in_json(action))]));
        needles.extend(criteria.pid.map(|pid| vec![format!(r#""pid":{pid}"#)]));
        needles.extend(criteria.path_word.as_ref().map(|word| vec![inside(&in_json(word)).to_string()]));
        needles.extend(criteria.rule.as_ref().map(|rule| vec![inside(&in_json(rule)).to_string()]));
        let finder = |text: String| Finder::new(&text).into_owned();
        let needles = needles.into_iter().map(|group| group.into_iter().map(finder).collect()).collect();
        let decisions =
            criteria.denied || !criteria.ops.is_empty() || criteria.path.is_some() || criteria.rule.is_some();
        Self { criteria, needles, decisions }
    }

    /// Whether every record fits.
    pub fn takes_all(&self) -> bool {
        let Criteria { since, until, action, pid, .. } = &self.criteria;
        !self.decisions && since.is_none() && until.is_none() && action.is_none() && pid.is_none()
    }

    /// Whether the line could fit, by its bytes alone: false only if it surely does not.
    pub fn may_fit(&self, line: &Seen<'_>) -> bool {
        if line.kind.is_none_or(|kind| self.decisions && kind != "decision") {
            return false;
        }
        !line.compact || (self.may_be_in_time(line.raw) && self.holds_needles(line.raw))
    }

    fn holds_needles(&self, raw: &[u8]) -> bool {
        self.needles.iter().all(|group| group.iter().any(|needle| needle.find(raw).is_some()))
    }

    /// Whether the time near the start of the line lies within the bounds, if it stands there.
    fn may_be_in_time(&self, raw: &[u8]) -> bool {
        if self.criteria.since.is_none() && self.criteria.until.is_none() {
            return true;
        }
        let head = raw.get(..TIME_BEFORE).unwrap_or(raw);
        let Some(at) = memchr::memmem::find(head, b",\"time\":\"") else { return true };
        let time = raw[at + 9..].split(|byte| *byte == b'"').next().unwrap_or_default();
        std::str::from_utf8(time).map_or(true, |time| self.in_time(time))
    }

    fn in_time(&self, time: &str) -> bool {
        let Criteria { since, until, .. } = &self.criteria;
        if since.is_none() && until.is_none() {
            return true;
        }
        let Ok(time) = time.parse::<Timestamp>() else { return false };
        since.is_none_or(|since| time >= since) && until.is_none_or(|until| time <= until)
    }

    /// Whether the record fits.
    pub fn fits(&self, record: &Sight<'_>) -> bool {
        let Criteria { action, pid, .. } = &self.criteria;
        let fits = action.as_deref().is_none_or(|wanted| record.action() == Some(wanted))
            && pid.is_none_or(|wanted| record.pid() == Some(wanted))
            && self.in_time(record.time());
        match record {
            Sight::Decision(brief) => fits && self.decision_fits(brief),
            _ => fits && !self.decisions,
        }
    }

    fn decision_fits(&self, brief: &Brief<'_>) -> bool {
        let Criteria { denied, ops, path, rule, .. } = &self.criteria;
        (!denied || brief.is_refusal())
            && (ops.is_empty() || ops.contains(&brief.op))
            && rule.as_ref().is_none_or(|text| brief.rule.contains(text.as_str()))
            && path.as_ref().is_none_or(|test| brief.access().is_some_and(|access| any_path(&access, test)))
    }
}

/// How far from the start of a compact line its time can begin: behind a number, a hash and the longest kind.
const TIME_BEFORE: usize = 160;

/// The text as a record writes it, with its quotes.
fn in_json(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A JSON text without its quotes.
fn inside(json: &str) -> &str {
    json.get(1..json.len() - 1).unwrap_or(json)
}

/// Whether one of the paths that an access names passes the test.
fn any_path(access: &Access, test: &PathTest) -> bool {
    let endpoint = |endpoint: &Endpoint| matches!(endpoint, Endpoint::Unix { path, .. } if test(path.as_path()));
    match access {
        Access::File { at, .. } => test(at.path.as_path()),
        Access::Move { from, to, .. } => test(from.path.as_path()) || test(to.path.as_path()),
        Access::Exec(Exec { program, interpreter, loaded, .. }) => {
            let loaded = loaded.as_ref().map(|loaded| &loaded.program);
            [Some(program), interpreter.as_ref(), loaded].into_iter().flatten().any(|path| test(path.as_path()))
        }
        Access::Connect { to } | Access::Send { to } | Access::Route { to } => endpoint(to),
        Access::Bind { at } => endpoint(at),
        Access::Resolve(_) | Access::Accept(_) | Access::Signal(_) | Access::Call { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::super::read::Reader;
    use super::super::record::{Decision, Layer, Note, Outcome, Record, RunResult, Start};
    use super::super::report::Summary;
    use super::super::writer::Writer;
    use super::*;
    use crate::event::{
        ActionId, BoxPath, Effect, Event, FileOp, Mode, Place, Reason, RuleId, Standing, Subject, Verdict, Weight,
    };

    fn record(n: u64) -> Record {
        if n.is_multiple_of(7) {
            return Record::Note(Note {
                time: SystemTime::UNIX_EPOCH + Duration::from_secs(n),
                text: "\"deny\"".into(),
            });
        }
        let path = ["/a/\"x\"", "/a/ü\u{1b}", "/b", "/a/b/c"][n as usize % 4];
        let at = Place::of(BoxPath::new(path).unwrap());
        let op = if n.is_multiple_of(3) { FileOp::Write } else { FileOp::Unlink };
        let pid = 2 + n as i32 % 5;
        let action = if pid > 2 { ActionId::new(pid as u32) } else { ActionId::SESSION };
        let standing = Standing { action, ..Standing::default() };
        let subject =
            Subject { pid, host: 100 + pid, exe: "/bin/sh".into(), parents: vec![2, 1], ..Subject::default() };
        let effect = if n.is_multiple_of(5) { Effect::Deny } else { Effect::Allow };
        let rule =
            RuleId::new("team \"x\".yaml", if n.is_multiple_of(2) { "filesystem.write[ü]" } else { "filesystem" });
        Record::Decision(Decision {
            time: SystemTime::UNIX_EPOCH + Duration::from_secs(n),
            event: Event { subject: subject.into(), access: Access::File { op, at }, standing },
            asked: None,
            verdict: Verdict { effect, rule, reason: Reason::Granted, message: None, weight: Weight::default() },
            answer: None,
            mode: Mode::Enforce,
            layer: Layer::Supervisor,
            outcome: if n.is_multiple_of(11) { Outcome::Killed } else { Outcome::Ok },
            latency: Duration::ZERO,
        })
    }

    fn log(dir: &Path) -> std::path::PathBuf {
        let path = dir.join("log");
        let writer = Writer::create(&path, &Start::example()).unwrap();
        (1..300).for_each(|n| writer.push(record(n)));
        writer.finish(&RunResult::default(), &Summary::example()).unwrap();
        path
    }

    fn criteria() -> Vec<Criteria> {
        let one = Criteria::default;
        let second = |second| Timestamp::from_second(second).ok();
        vec![
            one(),
            Criteria { denied: true, ..one() },
            Criteria { ops: vec![Op::Write, Op::Mkdir], ..one() },
            Criteria { since: second(40), until: second(50), ..one() },
            Criteria { action: Some("session".into()), ..one() },
            Criteria { action: Some("a6".into()), denied: true, ..one() },
            Criteria { pid: Some(4), ..one() },
            Criteria { rule: Some("x\".yaml filesystem.write[ü".into()), ..one() },
            Criteria { rule: Some("\"".into()), ..one() },
            Criteria { path: Some(Box::new(|path| path.starts_with("/a/ü\u{1b}"))), ..one() },
            Criteria { path: Some(Box::new(|path| path.ends_with("b/c"))), path_word: Some("b".into()), ..one() },
            Criteria {
                path: Some(Box::new(|path| path.starts_with("/a/\"x\""))),
                path_word: Some("\"x\"".into()),
                ..one()
            },
        ]
    }

    #[test]
    fn what_is_passed_over_unread_would_not_have_fitted() {
        let dir = tempfile::tempdir().unwrap();
        let path = log(dir.path());
        for (at, criteria) in criteria().into_iter().enumerate() {
            let query = Query::new(criteria);
            let mut reader = Reader::open(&path).unwrap();
            let (mut fitting, mut passed) = (0, 0);
            while let Some(line) = reader.next_seen().unwrap() {
                let fits = query.fits(&Sight::of(line.kind.unwrap(), line.raw).unwrap());
                assert!(line.compact && (query.may_fit(&line) || !fits), "{at}: line {}", line.number);
                fitting += u64::from(fits);
                passed += u64::from(!query.may_fit(&line));
            }
            assert!(fitting > 0, "{at} finds nothing");
            assert_eq!(query.takes_all(), at == 0);
            // A path is found by parsing alone; notes and the like are passed over for it.
            assert_eq!(passed > 0, at > 0, "{at}");
        }
    }

    #[test]
    fn a_line_that_is_spelt_otherwise_is_never_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = log(dir.path());
        let text = std::fs::read_to_string(&path).unwrap().replace("{\"v\":1", "{ \"v\" : 1");
        std::fs::write(&path, text.replace("\"op\":\"write\"", "\"op\": \"wr\\u0069te\"")).unwrap();
        let query = Query::new(Criteria { ops: vec![Op::Write], ..Criteria::default() });
        let mut reader = Reader::open(&path).unwrap();
        let mut found = 0;
        while let Some(line) = reader.next_seen().unwrap() {
            let fits = query.may_fit(&line) && query.fits(&Sight::of(line.kind.unwrap(), line.raw).unwrap());
            found += u64::from(fits);
        }
        assert_eq!(found, (1..300_u64).filter(|n| n.is_multiple_of(3) && !n.is_multiple_of(7)).count() as u64);
    }
}
