//! The one door to a decision: whoever mediates something asks here, acts, and says here what came of it.
//!
//! Called by all workers at once. An allowed event that the level does not record costs a few atomic additions; a
//! recorded one is moved, not copied, into the writer's queue. Nothing here touches the kernel, files or the target.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::audit::record::{Answer, Note};
use crate::audit::report::DENIALS;
use crate::audit::{Counts, Decision, Denial, Layer, Op, OpCount, Record, RunId, RunResult, Summary, text};
use crate::audit::{WriteError, Writer, Written};
use crate::event::{Access, Effect, Event, Unjudged, Verdict};
use crate::policy::Policy;
use crate::policy::decide::{decide, suggest};

pub use crate::audit::Outcome;

/// How many notes are kept for the summary; all are recorded.
const NOTES: usize = 100;
/// How many unknown calls are told apart; beyond that every occurrence is recorded.
const CALLS: usize = 1024;
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
}

impl Judged {
    /// Tells whether it may happen. An ask that nobody answers may not.
    pub fn allowed(&self) -> bool {
        match self.verdict.effect {
            Effect::Allow => true,
            Effect::Ask | Effect::Deny => false,
        }
    }
}

impl Gate {
    /// Makes the door of one run.
    pub fn new(policy: Arc<Policy>, writer: Arc<Writer>, run: RunId) -> Self {
        Self { policy, writer, run, meters: std::array::from_fn(|_| Meter::default()), told: Mutex::default() }
    }

    /// The policy that decides.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Decides `event`. `asked` is the target as the caller wrote it, escaped, where it differs from the resolved one;
    /// `received` is when the question came.
    pub fn judge(&self, event: Event, asked: Option<String>, received: Instant) -> Judged {
        let verdict = decide(&self.policy, &event);
        Judged { event, verdict, layer: Layer::Supervisor, asked, received }
    }

    /// Counts and records what came of a decision; to be called after the act and before or after the answer.
    pub fn settle(&self, judged: Judged, outcome: Outcome) {
        let latency = judged.received.elapsed();
        let op = Op::of(&judged.event.access);
        let killed = outcome == Outcome::Killed;
        self.meters[op as usize].count(judged.verdict.effect, killed, latency);
        let record = match judged.allowed() && !killed {
            true => op.level() <= self.policy.audit,
            false => self.tell_denial(&judged, op, killed),
        };
        if record {
            self.writer.push(Record::Decision(decision(judged, outcome, latency)));
        }
    }

    /// Records something worth knowing.
    pub fn note(&self, text: impl Into<String>) {
        let text = text.into();
        let mut told = self.told();
        if told.notes.len() < NOTES {
            told.notes.push(text.clone());
        }
        drop(told);
        self.writer.push(Record::Note(Note { time: SystemTime::now(), text }));
    }

    /// Sums up what was decided so far.
    pub fn summary(&self) -> Summary {
        let told = self.told();
        Summary {
            run: self.run.clone(),
            counts: self.counts(),
            denied: told.denied,
            denials: told.denials.clone(),
            more: told.more,
            notes: told.notes.clone(),
        }
    }

    /// Ends the log. Fails, so that the run fails, if any record is missing from it.
    pub fn finish(&self, result: &RunResult) -> Result<Written, WriteError> {
        self.writer.finish(result, &self.counts())
    }

    fn counts(&self) -> Counts {
        let counted = Op::ALL.iter().zip(&self.meters).map(|(&op, meter)| (op, meter.read()));
        counted.filter(|(_, count)| count.allow + count.ask + count.deny > 0).collect()
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
    let nobody = || Answer { effect: Effect::Deny, by: "nobody to ask".into() };
    Decision {
        time: SystemTime::now(),
        answer: (judged.verdict.effect == Effect::Ask).then(nobody),
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
    denials: Vec<Denial>,
    /// Where in `denials` each is.
    known: HashMap<(Op, String), usize>,
    more: u64,
    calls: HashSet<String>,
    notes: Vec<String>,
}

impl Told {
    fn count(&mut self, judged: &Judged, op: Op, killed: bool, fix: impl Fn() -> Option<String>) {
        self.denied += 1;
        let key = (op, text::shorten(&text::target(&judged.event.access), TARGET));
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

fn denial(judged: &Judged, (op, target): &(Op, String), killed: bool, fix: Option<String>) -> Denial {
    Denial {
        op: *op,
        target: target.clone(),
        rule: judged.verdict.rule.to_string(),
        reason: judged.verdict.reason,
        message: judged.verdict.message.as_deref().map(str::to_string),
        fix,
        killed,
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
