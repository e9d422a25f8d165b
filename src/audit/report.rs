//! Sums a run up: one quiet line when something was denied, a longer text for `-v`, JSON for `--report`.
//!
//! Pure text from a [`Summary`]; prints nothing itself.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::{Value, json};

use super::record::{Counts, Op, RunResult};
use super::run::RunId;
use super::text::{printable, shorten};
use crate::event::Reason;

/// How many different denials are kept by name; all are counted and recorded.
pub const DENIALS: usize = 1000;

/// What a run came to.
#[derive(Debug, Clone)]
pub struct Summary {
    /// The run.
    pub run: RunId,
    /// Every question, by operation.
    pub counts: Counts,
    /// How many were refused.
    pub denied: u64,
    /// The different refusals in the order they first came, at most [`DENIALS`].
    pub denials: Vec<Denial>,
    /// Refusals that are not in `denials` because it was full.
    pub more: u64,
    /// Things worth knowing.
    pub notes: Vec<String>,
}

/// A refusal, as often as it came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Denial {
    /// What was asked for.
    pub op: Op,
    /// Of what.
    pub target: String,
    /// The rule that refused it.
    pub rule: String,
    /// The kind of reason.
    pub reason: Reason,
    /// The rule's own words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The smallest flag that would allow it.
    pub fix: Option<String>,
    /// Whether it was approved and the process was then ended because it did something else.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub killed: bool,
    /// How often.
    pub count: u64,
}

/// Says in one line that something was denied; `None` when nothing was.
pub fn summary_line(summary: &Summary) -> Option<String> {
    let first = first_denial(&summary.denials)?;
    let mut line = format!("agentbox: {} denied, first: {}", summary.denied, describe(first));
    // A message that names the way out itself says it in fewer words below.
    if let Some(message) = first.message.as_ref().filter(|message| !message.contains("allow with")) {
        let _ = write!(line, ": {}", printable(message));
    }
    if let Some(fix) = &first.fix {
        let _ = write!(line, " — allow with: {}", printable(fix));
    }
    Some(line)
}

/// The first refusal that a person can act on: an unknown call that a library merely tried comes last.
fn first_denial(denials: &[Denial]) -> Option<&Denial> {
    denials.iter().find(|denial| denial.op != Op::Call).or(denials.first())
}

fn describe(denial: &Denial) -> String {
    let target = printable(&shorten(&denial.target, 200));
    match denial.killed {
        false => format!("{} {target} ({})", denial.op.name(), printable(&denial.rule)),
        true => format!("{} {target} (ended: it did not run what was approved)", denial.op.name()),
    }
}

/// Says at length what a run came to: refusals with their fixes, notes, counts and latencies.
pub fn verbose(summary: &Summary) -> String {
    let mut text = format!("run {}\n", summary.run);
    for (op, count) in &summary.counts {
        let total = count.allow + count.ask + count.deny;
        let refused = count.ask + count.deny;
        let _ = writeln!(
            text,
            "  {:<9} {total:>8} asked {refused:>7} denied   p50 {:>8.1} µs   p99 {:>8.1} µs",
            op.name(),
            count.p50_us,
            count.p99_us
        );
    }
    put_denials(&mut text, summary);
    for note in &summary.notes {
        let _ = writeln!(text, "  note: {}", printable(note));
    }
    text
}

/// How many refusals the longer text names.
const SHOWN: usize = 20;

fn put_denials(text: &mut String, summary: &Summary) {
    for denial in summary.denials.iter().take(SHOWN) {
        let times = if denial.count > 1 { format!(" ({} times)", denial.count) } else { String::new() };
        let fix = denial.fix.as_ref().map(|fix| format!(" — allow with: {}", printable(fix))).unwrap_or_default();
        let _ = writeln!(text, "  denied {}{times}{fix}", describe(denial));
        if let Some(message) = &denial.message {
            let _ = writeln!(text, "    {}", printable(message));
        }
    }
    let named: u64 = summary.denials.iter().take(SHOWN).map(|denial| denial.count).sum();
    if summary.denied > named {
        let _ = writeln!(text, "  and {} more: agentbox log {} --denied", summary.denied - named, summary.run);
    }
}

/// The version of the report's shape.
const VERSION: u32 = 1;

/// Gives the report that `--report` writes.
pub fn report_json(summary: &Summary, result: &RunResult, coverage: &Value, log: &str) -> Value {
    json!({
        "v": VERSION,
        "run": summary.run,
        "result": result,
        "log": log,
        "counts": summary.counts,
        "denied": summary.denied,
        "denials": summary.denials,
        "denials_not_listed": summary.more,
        "notes": summary.notes,
        "coverage": coverage,
    })
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn denial(op: Op, target: &str, fix: Option<&str>) -> Denial {
        Denial {
            op,
            target: target.into(),
            rule: "default.yaml filesystem".into(),
            reason: Reason::NotGranted,
            message: None,
            fix: fix.map(str::to_string),
            killed: false,
            count: 1,
        }
    }

    fn summary(denials: Vec<Denial>) -> Summary {
        Summary {
            run: RunId::new(SystemTime::UNIX_EPOCH, 0),
            counts: Counts::new(),
            denied: denials.iter().map(|denial| denial.count).sum(),
            denials,
            more: 0,
            notes: vec!["a new repository carries hooks".into()],
        }
    }

    #[test]
    fn the_line_names_the_first_denial_and_its_fix() {
        let call = denial(Op::Call, "mseal", None);
        let write = Denial { count: 2, ..denial(Op::Write, "/etc/hosts", Some("-w /etc/hosts")) };
        let line = summary_line(&summary(vec![call.clone(), write]));
        let expected =
            "agentbox: 3 denied, first: write /etc/hosts (default.yaml filesystem) — allow with: -w /etc/hosts";
        assert_eq!(line.as_deref(), Some(expected));
        let line = summary_line(&summary(vec![call])).unwrap();
        assert_eq!(line, "agentbox: 1 denied, first: call mseal (default.yaml filesystem)");
        assert_eq!(summary_line(&summary(vec![])), None);
    }

    #[test]
    fn a_hostile_name_stays_on_its_line() {
        let hostile = summary(vec![denial(Op::Write, "/x\n\x1b]0;owned\x07", Some("-w '/x\n\x1b'"))]);
        let line = summary_line(&hostile).unwrap();
        assert!(!line.chars().any(char::is_control), "{line:?}");
        assert!(!verbose(&hostile).contains('\x1b'));
    }

    #[test]
    fn the_report_lists_denials_with_their_fix() {
        let summary = summary(vec![denial(Op::Write, "/etc/hosts", Some("-w /etc/hosts"))]);
        let report = report_json(&summary, &RunResult::default(), &Value::Null, "/log");
        assert_eq!(report["denied"], 1);
        assert_eq!(report["denials"][0]["fix"], "-w /etc/hosts");
        assert_eq!(report["denials"][0]["op"], "write");
        assert_eq!(report["notes"][0], "a new repository carries hooks");
    }
}
