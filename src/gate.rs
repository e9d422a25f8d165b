//! The one door to a decision: whoever mediates something asks here, acts, and says here what came of it.
//!
//! Called by all workers at once. An allowed event that the level does not record costs a few atomic additions; a
//! recorded one is moved, not copied, into the writer's queue. Nothing here touches the kernel, files or the target.

mod actions;
mod tally;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::audit::record::{Answer, Note};
use crate::audit::report::DENIALS;
use crate::audit::{Counts, Decision, Denial, Layer, Op, OpCount, Record, RunId, RunResult, Summary, text};
use crate::audit::{WriteError, Writer, Written, redact};
use crate::event::{
    Access, ActionId, BoxPath, Claim, Effect, Event, FileId, GitState, Mode, Reason, RuleId, Standing, Subject,
};
use crate::event::{Unjudged, Verdict, Where};
use crate::policy::decide::{decide, suggest};
use crate::policy::walls::Walls;
use crate::policy::{Policy, tiers};

pub use crate::audit::Outcome;
use actions::{Actions, Asking, Came};
pub use tally::{Moved, Toward};

/// How many notes are kept for the summary; all are recorded.
const NOTES: usize = 100;
/// How many unknown calls are told apart; beyond that every occurrence is recorded.
const CALLS: usize = 1024;
/// How many asks are remembered; beyond that each is asked anew.
const ASKS: usize = 4096;
/// The longest target that a summary keeps, in characters.
const TARGET: usize = 4096;

/// The door.
#[derive(Debug)]
pub struct Gate {
    policy: Arc<Policy>,
    writer: Arc<Writer>,
    run: RunId,
    meters: [Meter; Op::ALL.len()],
    told: Mutex<Told>,
    actions: Mutex<Actions>,
    /// In mode audit: what lets denials through.
    walls: Option<Walls>,
}

/// An event and the answer to it, until it is settled.
#[must_use = "act on it, then hand it to Gate::settle"]
#[derive(Debug)]
pub struct Judged {
    /// What was asked.
    pub event: Event,
    /// What the policy says.
    pub verdict: Verdict,
    /// The layer that holds the answer.
    pub layer: Layer,
    asked: Option<String>,
    received: Instant,
    made: Option<FileId>,
    /// Whether the refusal is one that mode audit lets through.
    let_through: bool,
    /// Keeps the action from ending.
    asking: Option<Arc<Asking>>,
}

impl Judged {
    /// Tells whether it may happen. An ask that nobody answers may not; in mode audit a refusal may be let through.
    pub fn allowed(&self) -> bool {
        match self.verdict.effect {
            Effect::Allow => true,
            Effect::Ask | Effect::Deny => self.let_through,
        }
    }

    /// Says which file was made by what was asked.
    pub fn made(&mut self, file: FileId) {
        self.made = Some(file);
    }
}

impl Gate {
    /// Makes the door of one run.
    pub fn new(policy: Arc<Policy>, writer: Arc<Writer>, run: RunId) -> Self {
        let meters = std::array::from_fn(|_| Meter::default());
        Self { policy, writer, run, meters, told: Mutex::default(), actions: Mutex::default(), walls: None }
    }

    /// The same door in `mode`, from the start of the run to its end.
    pub fn in_mode(self, mode: Mode) -> Self {
        let walls = match mode {
            Mode::Enforce => None,
            Mode::Audit => Some(Walls::of(&self.policy)),
        };
        Self { walls, ..self }
    }

    /// What becomes of denials.
    pub fn mode(&self) -> Mode {
        if self.walls.is_some() { Mode::Audit } else { Mode::Enforce }
    }

    /// The policy that decides.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Whether the box could have written what lies at `path`, so that the path does not tell what that is.
    pub fn is_the_boxs_own(&self, path: &BoxPath) -> bool {
        // `/dev/shm` is a file system of the box alone, and no tree of the policy.
        self.policy.files.is_writable(path.as_path()) || path.as_path().starts_with("/dev/shm")
    }

    /// Whether the person's own rules tell programs apart.
    pub fn tells_programs_apart(&self) -> bool {
        self.policy.exec.told_apart
    }

    /// Decides `event`. `asked` is the target as the caller wrote it, escaped, where it differs from the resolved one;
    /// `received` is when the question came.
    pub fn judge(&self, mut event: Event, asked: Option<String>, received: Instant) -> Judged {
        let Standing { action, bound, .. } = std::mem::take(&mut event.standing);
        let asking = self.actions().prepare(&mut event, action, bound);
        let mut verdict = decide(&self.policy, &event);
        let let_through = self.walls.as_ref().is_some_and(|walls| walls.hold_without(&event, &verdict));
        // Where nobody is asked, nobody was asked before.
        if verdict.reason == Reason::Tier
            && verdict.effect == Effect::Ask
            && !let_through
            && !self.told().is_first_ask(&event, &verdict)
        {
            (verdict.effect, verdict.reason) = (Effect::Deny, Reason::Answered);
        }
        Judged { event, verdict, layer: Layer::Supervisor, asked, received, made: None, let_through, asking }
    }

    /// The action to which a program will belong that a process is about to start, if it is another than its own: to be put
    /// into the standing of that event.
    pub fn action_for_command(&self, subject: &Subject) -> Option<ActionId> {
        self.actions().for_command(subject)
    }

    /// Takes down that a process says it begins an action. A claim opens the action and allows nothing.
    pub fn claim_begins(&self, subject: &Subject, claim: Claim) -> Result<ActionId, String> {
        let (action, record) = self.actions().claim_begins(subject, claim)?;
        self.writer.push(record);
        Ok(action)
    }

    /// Takes down that a process says it ends an action that it began: `which`, or the last one.
    pub fn claim_ends(&self, subject: &Subject, which: Option<ActionId>, claim: Claim) -> Result<ActionId, String> {
        let (action, records) = self.actions().claim_ends(subject, which, claim)?;
        records.into_iter().for_each(|record| self.writer.push(record));
        Ok(action)
    }

    /// Takes down what a process says of the action that it is in.
    pub fn claim_notes(&self, subject: &Subject, claim: Claim) -> ActionId {
        let (action, record) = self.actions().claim_notes(subject, claim);
        self.writer.push(record);
        action
    }

    /// Whether a file lies where tools keep what they make.
    pub fn can_be_made_again(&self, path: &Path, git: Option<GitState>) -> bool {
        tiers::can_be_made_again(path, git)
    }

    /// Ends an action of which no process is left.
    pub fn end_action(&self, action: ActionId) {
        let ended = self.actions().end(action);
        ended.into_iter().for_each(|record| self.writer.push(record));
    }

    /// Ends what processes said they began that are gone by now; `is_gone` tells by the number on the host.
    pub fn end_abandoned(&self, is_gone: impl Fn(i32) -> bool) {
        let ended = self.actions().abandon(is_gone);
        ended.into_iter().for_each(|record| self.writer.push(record));
    }

    /// Counts and records what came of a decision; to be called after the act and before or after the answer.
    pub fn settle(&self, mut judged: Judged, outcome: Outcome) {
        let latency = judged.received.elapsed();
        if let Access::Exec(exec) = &mut judged.event.access {
            // What was judged is the true one; no secret of it goes on.
            exec.argv = redact::argv(&exec.argv);
        }
        let op = Op::of(&judged.event.access);
        let killed = outcome == Outcome::Killed;
        self.meters[op as usize].count(judged.verdict.effect, killed, latency);
        let came = Came::of(judged.allowed(), outcome);
        let begins = self.actions().settled(&judged.event, &judged.verdict.weight, judged.made, came);
        begins.into_iter().for_each(|record| self.writer.push(record));
        let record = match judged.allowed() && !judged.let_through && !killed {
            // Who has opened a secret is worth a record whatever is recorded else.
            true => op.level() <= self.policy.audit || !judged.verdict.weight.secrets.is_empty(),
            false => self.tell_denial(&judged, op, killed),
        };
        let (action, asking) = (judged.event.standing.action, judged.asking.take());
        if record {
            self.writer.push(Record::Decision(decision(judged, outcome, latency)));
        }
        let ended = asking.and_then(|asking| self.actions().answered(action, asking));
        ended.into_iter().for_each(|record| self.writer.push(record));
    }

    /// Adds what a connection moved to the sums of its party; `None` if that could not be counted. Costs a lookup.
    pub fn transferred(&self, toward: &Toward, moved: Option<Moved>) {
        self.actions().transferred(toward, moved);
    }

    /// Records something worth knowing, and keeps it for the summary.
    pub fn note(&self, text: impl Into<String>) {
        let text = text.into();
        let mut told = self.told();
        if told.notes.len() < NOTES {
            told.notes.push(text.clone());
        }
        drop(told);
        self.remark(text);
    }

    /// Records something for the log alone: what is as it should be, or was said already.
    pub fn remark(&self, text: impl Into<String>) {
        self.writer.push(Record::Note(Note { time: SystemTime::now(), text: text.into() }));
    }

    /// Sums up what was decided so far.
    pub fn summary(&self) -> Summary {
        let actions = self.actions();
        let (sums, actions_left_out, total) = (actions.sums(), actions.left_out(), actions.total());
        drop(actions);
        let told = self.told();
        Summary {
            run: self.run.clone(),
            counts: self.counts(),
            mode: self.mode(),
            denied: told.denied,
            let_through: told.let_through,
            denials: told.denials.clone(),
            more: told.more,
            destinations: total.destinations.clone(),
            actions: sums,
            actions_left_out,
            total,
            notes: told.notes.clone(),
        }
    }

    /// Ends the log. Fails, so that the run fails, if any record is missing from it.
    pub fn finish(&self, result: &RunResult) -> Result<Written, WriteError> {
        let ended = self.actions().end_all();
        let session = self.actions().session();
        ended.into_iter().chain(session).for_each(|record| self.writer.push(record));
        self.writer.finish(result, &self.summary())
    }

    fn counts(&self) -> Counts {
        let counted = Op::ALL.iter().zip(&self.meters).map(|(&op, meter)| (op, meter.read()));
        counted.filter(|(_, count)| count.allow + count.ask + count.deny > 0).collect()
    }

    fn actions(&self) -> MutexGuard<'_, Actions> {
        self.actions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a denial for the summary, and says whether it is to be recorded.
    fn tell_denial(&self, judged: &Judged, op: Op, killed: bool) -> bool {
        let fix = || suggest(&self.policy, &judged.event, &judged.verdict);
        let mut told = self.told();
        told.count(judged, op, killed, fix);
        match &judged.event.access {
            Access::Call { name, why: Unjudged::UnknownCall } => told.is_new_call(name),
            _ => true,
        }
    }
}

fn decision(judged: Judged, outcome: Outcome, latency: Duration) -> Decision {
    let answer = || match judged.let_through {
        true => Answer { effect: Effect::Allow, by: "mode audit".into() },
        false => Answer { effect: Effect::Deny, by: "nobody to ask".into() },
    };
    Decision {
        time: SystemTime::now(),
        answer: (judged.verdict.effect == Effect::Ask).then(answer),
        mode: if judged.let_through { Mode::Audit } else { Mode::Enforce },
        event: judged.event,
        asked: judged.asked,
        verdict: judged.verdict,
        layer: judged.layer,
        outcome,
        latency,
    }
}

/// What the summary tells by name.
#[derive(Debug, Default)]
struct Told {
    denied: u64,
    let_through: u64,
    denials: Vec<Denial>,
    /// Where in `denials` each is.
    known: HashMap<Key, usize>,
    more: u64,
    calls: HashSet<String>,
    notes: Vec<String>,
    /// What a person was asked about, or would have been.
    asked: HashSet<Asked>,
}

/// What makes denials alike: the operation, its target, and whether it was let through.
type Key = (Op, String, bool);

/// What one question covers: the like of it in the same action, in the same place, is not asked again.
type Asked = (ActionId, RuleId, Op, Option<BoxPath>, Option<Where>);

impl Told {
    fn count(&mut self, judged: &Judged, op: Op, killed: bool, fix: impl Fn() -> Option<String>) {
        // What was ended in the act did not come to pass, whatever mode it was.
        let passed = judged.let_through && !killed;
        *(if passed { &mut self.let_through } else { &mut self.denied }) += 1;
        let key = (op, text::shorten(&text::target(&judged.event.access), TARGET), passed);
        match self.known.get(&key) {
            Some(&at) => self.denials[at].count += 1,
            None if self.denials.len() >= DENIALS => self.more += 1,
            None => {
                let fix = if killed { None } else { fix() };
                self.denials.push(denial(judged, &key, killed, fix));
                self.known.insert(key, self.denials.len() - 1);
            }
        }
    }

    fn is_first_ask(&mut self, event: &Event, verdict: &Verdict) -> bool {
        let root = event.standing.bound.as_ref().map(|bound| bound.root.clone());
        // To remove a tree is to remove files and directories.
        let op = match Op::of(&event.access) {
            Op::Rmdir => Op::Unlink,
            op => op,
        };
        let place = if root.is_some() { None } else { verdict.weight.place };
        self.asked.len() >= ASKS || self.asked.insert((event.standing.action, verdict.rule.clone(), op, root, place))
    }

    fn is_new_call(&mut self, name: &str) -> bool {
        if self.calls.contains(name) {
            return false;
        }
        if self.calls.len() < CALLS {
            self.calls.insert(name.to_string());
        }
        true
    }
}

fn denial(judged: &Judged, (op, target, let_through): &Key, killed: bool, fix: Option<String>) -> Denial {
    Denial {
        op: *op,
        target: target.clone(),
        rule: judged.verdict.rule.to_string(),
        reason: judged.verdict.reason,
        message: judged.verdict.message.as_deref().map(str::to_string),
        fix,
        killed,
        let_through: *let_through,
        count: 1,
    }
}

/// Buckets of latency: four to each doubling of nanoseconds, up to 2^36 (69 seconds).
const BUCKETS: usize = 36 * 4;

/// Counts and latencies of one operation, added to by all workers without a lock.
#[derive(Debug)]
struct Meter {
    allow: AtomicU64,
    ask: AtomicU64,
    deny: AtomicU64,
    killed: AtomicU64,
    latency: [AtomicU64; BUCKETS],
}

impl Default for Meter {
    fn default() -> Self {
        let [allow, ask, deny, killed] = std::array::from_fn(|_| AtomicU64::new(0));
        Self { allow, ask, deny, killed, latency: std::array::from_fn(|_| AtomicU64::new(0)) }
    }
}

impl Meter {
    fn count(&self, effect: Effect, killed: bool, latency: Duration) {
        let counter = match effect {
            Effect::Allow => &self.allow,
            Effect::Ask => &self.ask,
            Effect::Deny => &self.deny,
        };
        counter.fetch_add(1, Relaxed);
        self.killed.fetch_add(u64::from(killed), Relaxed);
        self.latency[bucket(latency)].fetch_add(1, Relaxed);
    }

    fn read(&self) -> OpCount {
        let latency = self.latency.each_ref().map(|bucket| bucket.load(Relaxed));
        OpCount {
            allow: self.allow.load(Relaxed),
            ask: self.ask.load(Relaxed),
            deny: self.deny.load(Relaxed),
            killed: self.killed.load(Relaxed),
            p50_us: quantile(&latency, 0.50),
            p99_us: quantile(&latency, 0.99),
        }
    }
}

fn bucket(latency: Duration) -> usize {
    let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX).max(4);
    let doubling = nanos.ilog2();
    // The two bits behind the leading one.
    let quarter = (nanos >> (doubling - 2)) & 3;
    (doubling as usize * 4 + quarter as usize).min(BUCKETS - 1)
}

/// The middle of the bucket that holds the quantile, in microseconds: right to one part in nine.
fn quantile(latency: &[u64; BUCKETS], share: f64) -> f64 {
    let total: u64 = latency.iter().sum();
    let rank = ((total as f64 * share).ceil() as u64).clamp(1, total.max(1));
    let mut seen = 0;
    let at = latency.iter().position(|count| {
        seen += count;
        seen >= rank
    });
    let Some(at) = at else { return 0.0 };
    let lower = (4 + at % 4) as f64 / 4.0 * 2f64.powi((at / 4) as i32);
    let width = 2f64.powi((at / 4) as i32) / 4.0;
    ((lower + width / 2.0) / 100.0).round() / 10.0
}

/// A gate with a log of its own, for tests of those who ask it.
#[cfg(test)]
pub fn bench() -> (Gate, tempfile::TempDir) {
    let tests::Bench { gate, _dir: dir, .. } = tests::bench(crate::event::Level::Minimal);
    (gate, dir)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use serde_json::Value;

    use super::*;
    use crate::audit::entry::Entry;
    use crate::audit::read::Reader;
    use crate::audit::{PolicyRef, Start};
    use crate::event::{BoxPath, FileOp, Level, Place, RuleId, Subject};
    use crate::policy::rules::Base;
    use crate::policy::{Environment, Exception, ExecRules, FileRules, Guard, GuardKind, Guards, Network, NetworkMode};
    use crate::policy::{Pattern, Root};

    pub struct Bench {
        pub gate: Gate,
        log: PathBuf,
        pub _dir: tempfile::TempDir,
    }

    fn policy(level: Level) -> Policy {
        let rule = RuleId::new("default.yaml", "filesystem.write[0]");
        let root = |path: &str| Root { path: path.into(), rule: rule.clone(), link: None, exists: true };
        let otherwise = Some(RuleId::new("default.yaml", "filesystem"));
        Policy {
            name: "default.yaml".into(),
            digest: "00".into(),
            workdir: "/work".into(),
            home: "/home/u".into(),
            files: FileRules::new([vec![root("/usr")], vec![root("/work")], vec![]], Guards::default(), otherwise),
            exec: ExecRules::default(),
            env: Environment::default(),
            network: Network::new(NetworkMode::None, RuleId::new("default.yaml", "network")),
            audit: level,
            export: crate::event::Export::None,
            audit_key: None,
            secrets: Guards::default(),
            tiers: None,
        }
    }

    pub fn bench(level: Level) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("audit.jsonl");
        let run = RunId::new(SystemTime::UNIX_EPOCH, 1);
        let start = Start {
            time: text::rfc3339(SystemTime::UNIX_EPOCH),
            run: run.clone(),
            agentbox: "0.1.0".into(),
            command: vec!["true".into()],
            policy: PolicyRef { name: "default.yaml".into(), digest: "00".into() },
            mode: Mode::Enforce,
            coverage: Value::Null,
        };
        let writer = Arc::new(Writer::create(&log, &start).unwrap());
        Bench { gate: Gate::new(Arc::new(policy(level)), writer, run), log, _dir: dir }
    }

    impl Bench {
        fn ask(&self, access: Access) -> Judged {
            let subject =
                Subject { pid: 5, host: 105, exe: "/usr/bin/sh".into(), parents: vec![2, 1], ..Subject::default() };
            self.gate.judge(Event::new(subject.into(), access), None, Instant::now())
        }

        fn file(&self, op: FileOp, path: &str) -> bool {
            let at = Place::of(BoxPath::new(path).unwrap());
            let judged = self.ask(Access::File { op, at });
            let allowed = judged.allowed();
            self.gate.settle(judged, if allowed { Outcome::Ok } else { Outcome::Errno(13) });
            allowed
        }

        fn call(&self, name: &str) {
            let judged = self.ask(Access::Call { name: name.into(), why: Unjudged::UnknownCall });
            assert!(!judged.allowed());
            self.gate.settle(judged, Outcome::Errno(38));
        }

        /// Finishes the log and gives its decisions as `op target verdict`.
        fn recorded(self) -> Vec<String> {
            self.gate.finish(&RunResult::default()).unwrap();
            let mut reader = Reader::open(&self.log).unwrap();
            let mut found = Vec::new();
            while let Some(line) = reader.next_line().unwrap() {
                assert_eq!(line.faults, []);
                if let Some(Entry::Decision(decided)) = line.entry {
                    let target = text::target(&decided.access().unwrap());
                    found.push(format!("{} {target} {}", decided.op.name(), decided.outcome));
                }
            }
            found
        }
    }

    #[test]
    fn a_level_chooses_what_is_recorded_and_denials_always_are() {
        for (level, expected) in [
            (Level::Minimal, vec!["read /root/x EACCES", "write /etc/hosts EACCES"]),
            (Level::Actions, vec!["write /work/a ok", "read /root/x EACCES", "write /etc/hosts EACCES"]),
            (Level::All, vec!["write /work/a ok", "read /usr/b ok", "read /root/x EACCES", "write /etc/hosts EACCES"]),
        ] {
            let bench = bench(level);
            assert!(bench.file(FileOp::Write, "/work/a"));
            assert!(bench.file(FileOp::Read, "/usr/b"));
            assert!(!bench.file(FileOp::Read, "/root/x"));
            assert!(!bench.file(FileOp::Write, "/etc/hosts"));
            let counts = bench.gate.summary().counts;
            let read = &counts[&Op::Read];
            assert_eq!((read.allow, read.deny, counts[&Op::Write].allow), (1, 1, 1));
            assert!(read.p50_us > 0.0 && read.p50_us <= read.p99_us);
            assert_eq!(bench.recorded(), expected, "{level:?}");
        }
    }

    #[test]
    fn the_same_denial_is_recorded_each_time_and_listed_once() {
        let bench = bench(Level::Actions);
        bench.file(FileOp::Write, "/etc/passwd");
        for _ in 0..3000 {
            bench.file(FileOp::Write, "/etc/hosts");
        }
        let summary = bench.gate.summary();
        assert_eq!((summary.denied, summary.denials.len()), (3001, 2));
        assert_eq!((summary.denials[0].target.as_str(), summary.denials[0].count), ("/etc/passwd", 1));
        assert_eq!((summary.denials[1].target.as_str(), summary.denials[1].count), ("/etc/hosts", 3000));
        assert_eq!(bench.recorded().len(), 3001);
    }

    #[test]
    fn more_different_denials_than_are_listed_are_still_counted() {
        let bench = bench(Level::Actions);
        for i in 0..DENIALS + 5 {
            bench.file(FileOp::Write, &format!("/etc/{i}"));
        }
        let summary = bench.gate.summary();
        assert_eq!((summary.denied, summary.denials.len(), summary.more), (DENIALS as u64 + 5, DENIALS, 5));
    }

    #[test]
    fn an_unknown_call_is_recorded_once_and_counted_always() {
        let bench = bench(Level::Minimal);
        (0..100).for_each(|_| bench.call("mseal"));
        bench.call("futex_waitv");
        let summary = bench.gate.summary();
        assert_eq!((summary.denied, summary.counts[&Op::Call].deny), (101, 101));
        assert_eq!(bench.recorded(), ["call mseal ENOSYS", "call futex_waitv ENOSYS"]);
    }

    #[test]
    fn a_process_that_did_something_else_counts_as_refused() {
        let bench = bench(Level::Minimal);
        let at = Place::of(BoxPath::new("/work/a").unwrap());
        let judged = bench.ask(Access::File { op: FileOp::Write, at });
        assert!(judged.allowed());
        bench.gate.settle(judged, Outcome::Killed);
        let summary = bench.gate.summary();
        assert!(summary.denials[0].killed && summary.denials[0].fix.is_none());
        assert_eq!((summary.denied, summary.counts[&Op::Write].killed), (1, 1));
        assert_eq!(bench.recorded(), ["write /work/a killed"]);
    }

    #[test]
    fn an_ask_with_nobody_to_answer_is_refused_and_says_so() {
        let bench = bench(Level::Minimal);
        let at = Place::of(BoxPath::new("/work/a").unwrap());
        let mut judged = bench.ask(Access::File { op: FileOp::Write, at });
        judged.verdict.effect = Effect::Ask;
        assert!(!judged.allowed());
        let record = decision(judged, Outcome::Errno(13), Duration::ZERO);
        assert_eq!(record.answer.unwrap().by, "nobody to ask");
    }

    #[test]
    fn in_mode_audit_a_softer_rule_is_recorded_and_let_through() {
        let mut policy = policy(Level::Minimal);
        let var = |_: &str| None;
        let base = Base { workdir: Path::new("/work"), home: Path::new("/home/u"), var: &var };
        let guard = |text: &str| Guard {
            kind: GuardKind::Deny,
            pattern: Pattern::parse(text, &base).unwrap(),
            rule: RuleId::new("default.yaml", "filesystem.deny[0]"),
            message: None,
            except: Exception::None,
            label: None,
        };
        let FileRules { read, write, private, otherwise, .. } = policy.files.clone();
        let guards = Guards::new(vec![guard("**/*.lock"), guard("/work/own")]);
        policy.files = FileRules::new([read, write, private], guards, otherwise);
        for (mode, passed) in [(Mode::Enforce, 0), (Mode::Audit, 1)] {
            let mut bench = bench(Level::Minimal);
            bench.gate.policy = Arc::new(policy.clone());
            bench.gate = bench.gate.in_mode(mode);
            assert_eq!(bench.file(FileOp::Write, "/work/a.lock"), mode == Mode::Audit);
            for held in ["/work/own", "/etc/hosts", "/etc/a.lock"] {
                assert!(!bench.file(FileOp::Write, held), "{held} {mode:?}");
            }
            assert!(bench.file(FileOp::Write, "/work/a"));
            let summary = bench.gate.summary();
            assert_eq!((summary.mode, summary.let_through, summary.denied), (mode, passed, 4 - passed));
            assert_eq!(summary.counts[&Op::Write].deny, 4, "what the policy says stays what it says");
            let first = if passed > 0 { "ok" } else { "EACCES" };
            assert_eq!(bench.recorded()[0], format!("write /work/a.lock {first}"));
        }
    }

    #[test]
    fn notes_are_recorded_and_summed_up() {
        let bench = bench(Level::Minimal);
        bench.gate.note("new repository /work/x carries hooks");
        assert_eq!(bench.gate.summary().notes, ["new repository /work/x carries hooks"]);
        assert_eq!(bench.gate.finish(&RunResult::default()).unwrap().recorded, 4, "start, note, session, end");
    }

    #[test]
    fn quantiles_are_right_to_one_part_in_eight() {
        let meter = Meter::default();
        for micros in 1..=1000 {
            meter.count(Effect::Allow, false, Duration::from_micros(micros));
        }
        let read = meter.read();
        assert!((read.p50_us / 500.0 - 1.0).abs() < 0.125, "{}", read.p50_us);
        assert!((read.p99_us / 990.0 - 1.0).abs() < 0.125, "{}", read.p99_us);
        for extreme in [Duration::ZERO, Duration::from_nanos(5), Duration::from_secs(3600), Duration::MAX] {
            meter.count(Effect::Deny, false, extreme);
        }
        assert_eq!(meter.read().deny, 4);
    }
}
