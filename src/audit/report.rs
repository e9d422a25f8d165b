//! Sums a run up: one quiet line when something was denied, a longer text for `-v`, JSON for `--report`.
//!
//! Pure text from a [`Summary`]; prints nothing itself.

use std::fmt::Write as _;
use std::net::IpAddr;

use serde::Serialize;
use serde_json::{Value, json};

use super::actions::{ActionSum, tool_words};
use super::key::PublicKey;
use super::record::{Counts, Destination, Op, Party, RunResult};
use super::run::RunId;
use super::text::{command_line, printable, shorten};
use crate::event::{ActionId, Attribution, Effects, Files, Mode, Reason, Transport};

/// How many different denials are kept by name; all are counted and recorded.
pub const DENIALS: usize = 1000;

/// What a run came to.
#[derive(Debug, Clone)]
pub struct Summary {
    /// The run.
    pub run: RunId,
    /// Every question, by operation.
    pub counts: Counts,
    /// What became of refusals.
    pub mode: Mode,
    /// How many were refused.
    pub denied: u64,
    /// How many would have been, and were let through in mode audit.
    pub let_through: u64,
    /// The different refusals in the order they first came, at most [`DENIALS`].
    pub denials: Vec<Denial>,
    /// Refusals that are not in `denials` because it was full.
    pub more: u64,
    /// What it had to do with each party outside.
    pub destinations: Vec<Destination>,
    /// What each action came to, the session first.
    pub actions: Vec<ActionSum>,
    /// Ended actions that are not in `actions`: the lightest of too many.
    pub actions_left_out: u64,
    /// What all came to.
    pub total: ActionSum,
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
    /// Whether mode audit let it through.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub let_through: bool,
    /// How often.
    pub count: u64,
}

impl Summary {
    /// The summary of a run in which nothing was asked.
    pub fn empty(run: RunId) -> Self {
        Self {
            run,
            counts: Counts::new(),
            mode: Mode::Enforce,
            denied: 0,
            let_through: 0,
            denials: Vec::new(),
            more: 0,
            destinations: Vec::new(),
            actions: Vec::new(),
            actions_left_out: 0,
            total: ActionSum::new(ActionId::SESSION, Attribution::Session),
            notes: Vec::new(),
        }
    }

    /// The summary of a run that only a test has made.
    #[cfg(test)]
    pub(crate) fn example() -> Self {
        Self::empty(RunId::new(std::time::SystemTime::UNIX_EPOCH, 0))
    }
}

/// Says in one line that something was denied, and in one that something would have been; `None` when nothing was.
pub fn summary_line(summary: &Summary) -> Option<String> {
    let line = |count, word, passed| {
        let first = first_denial(&summary.denials, passed).map(|first| line_of(count, word, first));
        // The list may be full of the others.
        first.or_else(|| (count > 0).then(|| format!("agentbox: {count} {word}")))
    };
    let lines = [line(summary.denied, "denied", false), line(summary.let_through, "would have been denied", true)];
    let lines: Vec<String> = lines.into_iter().flatten().collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

fn line_of(count: u64, word: &str, first: &Denial) -> String {
    let mut line = format!("agentbox: {count} {word}, first: {}", describe(first));
    // A message that names the way out itself says it in fewer words below.
    if let Some(message) = first.message.as_ref().filter(|message| !message.contains("allow with")) {
        let _ = write!(line, ": {}", printable(message));
    }
    if let Some(fix) = &first.fix {
        let _ = write!(line, " — allow with: {}", printable(fix));
    }
    line
}

/// The first refusal that a person can act on: an unknown call that a library merely tried comes last.
fn first_denial(denials: &[Denial], let_through: bool) -> Option<&Denial> {
    let mut denials = denials.iter().filter(|denial| denial.let_through == let_through);
    let first = denials.clone().next();
    denials.find(|denial| denial.op != Op::Call).or(first)
}

fn describe(denial: &Denial) -> String {
    let target = printable(&shorten(&denial.target, 200));
    let nobody = if denial.reason == Reason::AskRule && !denial.let_through { ": nobody to ask" } else { "" };
    match denial.killed {
        false => format!("{} {target} ({}{nobody})", denial.op.name(), printable(&denial.rule)),
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
    if summary.let_through > 0 {
        let _ = writeln!(text, "  {} would have been denied (mode audit)", summary.let_through);
    }
    put_actions(&mut text, summary);
    put_destinations(&mut text, summary);
    put_denials(&mut text, summary);
    for note in &summary.notes {
        let _ = writeln!(text, "  note: {}", printable(note));
    }
    text
}

/// Says in one line what a run had to do with a party outside, and how many bytes went which way:
/// `api.example.org:443 (192.0.2.7)   3 connections   12.3 kB out   1.2 MB in`.
pub fn describe_destination(destination: &Destination) -> String {
    let party = describe_party(&destination.party);
    std::iter::once(party).chain(describe_traffic(destination)).collect::<Vec<_>>().join("   ")
}

/// Says what there was to do with a party: `3 connections`, `1 denied`, `12.3 kB out`.
pub(super) fn describe_traffic(destination: &Destination) -> Vec<String> {
    let connects = !matches!(destination.party, Party::Service { transport: Transport::Udp | Transport::Icmp, .. });
    let mut said = Vec::new();
    said.extend(match destination.allowed {
        0 => None,
        count if connects => Some(counted(count, "connection", "connections")),
        count => Some(counted(count, "time", "times")),
    });
    said.extend((destination.denied > 0).then(|| format!("{} denied", destination.denied)));
    said.extend(destination.bytes_out.map(|bytes| format!("{} out", size(bytes))));
    said.extend(destination.bytes_in.map(|bytes| format!("{} in", size(bytes))));
    said.extend((destination.uncounted > 0).then(|| format!("({} not counted)", destination.uncounted)));
    said
}

/// `1 program`, `2 programs`.
pub(super) fn counted(count: u64, one: &str, more: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { more })
}

/// How many addresses of one name a line shows.
const ADDRESSES: usize = 3;

/// Names a party in a few words.
pub(super) fn describe_party(party: &Party) -> String {
    match party {
        Party::Service { names, addresses, port, transport } => {
            let carried = if *transport == Transport::Tcp { String::new() } else { format!("{transport} ") };
            let behind = if *port == 0 { String::new() } else { format!(":{port}") };
            let mut list: Vec<String> = addresses.iter().take(ADDRESSES).map(ToString::to_string).collect();
            if addresses.len() > ADDRESSES {
                list.push("...".into());
            }
            match (names.as_slice(), addresses.as_slice()) {
                ([], [IpAddr::V6(address)]) if *port != 0 => format!("{carried}[{address}]{behind}"),
                ([], _) => format!("{carried}{}{behind}", list.join(", ")),
                (names, _) => {
                    let names = shorten(&names.join(", "), 200);
                    format!("{carried}{names}{behind} ({})", list.join(", "))
                }
            }
        }
        Party::Visitors { at, port } => format!("visitors of port {port} at {at}"),
        Party::Others => "all others".into(),
    }
}

/// Writes a number of bytes with at most one digit behind the point: `999 B`, `12.3 kB`, `1.2 MB`.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1000.0;
    let mut unit = 0;
    // 999.95 would be written as 1000.0.
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// How many refusals, and how many destinations, the longer text names.
const SHOWN: usize = 20;

/// The actions that did or were refused anything worth a line, the weightiest first, and what all came to.
fn put_actions(text: &mut String, summary: &Summary) {
    let mut actions: Vec<&ActionSum> = summary.actions.iter().filter(|sum| is_worth_a_line(sum)).collect();
    actions.sort_by_key(|sum| std::cmp::Reverse((sum.tier.max(sum.refused_tier.unwrap_or(0)), sum.denied)));
    for sum in actions.iter().take(SHOWN) {
        let name = printable(&shorten(&describe_action(sum), 100));
        let _ = writeln!(text, "  {name}\n      {}", describe_sum(sum));
    }
    let more = actions.len().saturating_sub(SHOWN) as u64 + summary.actions_left_out;
    if more > 0 {
        let _ = writeln!(text, "  and {more} more actions: agentbox log {}", summary.run);
    }
    if summary.actions.len() > 1 {
        let _ = writeln!(text, "  in all\n      {}", describe_sum(&summary.total));
    }
}

fn is_worth_a_line(sum: &ActionSum) -> bool {
    sum.action != ActionId::SESSION || sum.tier > 1 || sum.denied > 0
}

/// `a7 git commit -m 'a message'`, with what it says of itself.
pub fn describe_action(sum: &ActionSum) -> String {
    let mut line = sum.action.to_string();
    if !sum.command.is_empty() {
        let _ = write!(line, " {}", command_line(&sum.command));
    }
    if let Some(said) = sum.claim.as_ref().map(tool_words).filter(|said| !said.is_empty()) {
        let _ = write!(line, " (says: {said})");
    }
    line
}

/// `tier 6 (B1 R3)   2 files created, 51 deleted (1.2 MB, 51 for good)   1 denied`.
pub fn describe_sum(sum: &ActionSum) -> String {
    let mut parts = vec![describe_weight(sum)];
    parts.extend(describe_effects(&sum.effects));
    if !sum.taint.is_empty() {
        parts.push(format!("has read secrets: {}", printable(&sum.taint.to_string())));
    }
    if sum.denied > 0 {
        let tier = sum.refused_tier.map(|tier| format!(" (up to tier {tier})")).unwrap_or_default();
        parts.push(format!("{} denied{tier}", sum.denied));
    }
    parts.join("   ")
}

/// `tier 6 (B1 R3)`.
pub fn describe_weight(sum: &ActionSum) -> String {
    match sum.tier {
        0 => "nothing was done".into(),
        tier => format!("tier {tier} ({:?} {:?})", sum.reach, sum.reversibility),
    }
}

/// Says each effect that there was: `files: 3 created, 1 deleted`.
pub fn describe_effects(effects: &Effects) -> Vec<String> {
    let files = &effects.files;
    let mut parts = Vec::new();
    let changes = [
        (files.created, "created"),
        (files.changed, "changed"),
        (files.deleted, "deleted"),
        (files.replaced, "replaced"),
        (files.moved, "moved"),
    ];
    let told: Vec<String> =
        changes.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
    if !told.is_empty() {
        parts.push(format!("files: {}{}", told.join(", "), describe_loss(files)));
    }
    for (count, one, more) in [
        (files.directories_made, "directory made", "directories made"),
        (files.directories_removed, "directory removed", "directories removed"),
        (effects.programs, "program", "programs"),
        (effects.connections, "connection", "connections"),
        (effects.tainted_connections, "of them after reading a secret", "of them after reading a secret"),
        (effects.persistence, "change to what runs later", "changes to what runs later"),
        (effects.authority, "call on a service that acts for you", "calls on services that act for you"),
        (effects.signals, "signal to another action", "signals to other actions"),
    ] {
        if count > 0 {
            parts.push(counted(count, one, more));
        }
    }
    parts
}

fn describe_loss(files: &Files) -> String {
    match (files.bytes_lost, files.unheld) {
        (0, _) => String::new(),
        (bytes, 0) => format!(" ({}, all held elsewhere or made again)", size(bytes)),
        (bytes, unheld) => format!(" ({}, {unheld} held nowhere else)", size(bytes)),
    }
}

fn put_destinations(text: &mut String, summary: &Summary) {
    for destination in summary.destinations.iter().take(SHOWN) {
        let _ = writeln!(text, "  {}", printable(&describe_destination(destination)));
    }
    let more = summary.destinations.len().saturating_sub(SHOWN);
    if more > 0 {
        let _ = writeln!(text, "  and {more} more destinations: agentbox log {}", summary.run);
    }
}

fn put_denials(text: &mut String, summary: &Summary) {
    for denial in summary.denials.iter().take(SHOWN) {
        let times = if denial.count > 1 { format!(" ({} times)", denial.count) } else { String::new() };
        let fix = denial.fix.as_ref().map(|fix| format!(" — allow with: {}", printable(fix))).unwrap_or_default();
        let word = if denial.let_through { "would deny" } else { "denied" };
        let _ = writeln!(text, "  {word} {}{times}{fix}", describe(denial));
        if let Some(message) = &denial.message {
            let _ = writeln!(text, "    {}", printable(message));
        }
    }
    let named: u64 = summary.denials.iter().take(SHOWN).map(|denial| denial.count).sum();
    let all = summary.denied + summary.let_through;
    if all > named {
        let _ = writeln!(text, "  and {} more: agentbox log {} --denied", all - named, summary.run);
    }
}

/// The version of the report's shape.
const VERSION: u32 = 1;

/// Gives the report that `--report` writes.
pub fn report_json(
    summary: &Summary,
    result: &RunResult,
    coverage: &Value,
    (log, signed_by): (&str, Option<PublicKey>),
) -> Value {
    json!({
        "v": VERSION,
        "run": summary.run,
        "result": result,
        "log": log,
        "signed_by": signed_by,
        "counts": summary.counts,
        "mode": summary.mode,
        "denied": summary.denied,
        "let_through": summary.let_through,
        "denials": summary.denials,
        "denials_not_listed": summary.more,
        "destinations": summary.destinations,
        "actions": summary.actions,
        "actions_not_listed": summary.actions_left_out,
        "total": summary.total,
        "notes": summary.notes,
        "coverage": coverage,
    })
}

#[cfg(test)]
mod tests {
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
            let_through: false,
            count: 1,
        }
    }

    fn summary(denials: Vec<Denial>) -> Summary {
        Summary {
            denied: denials.iter().map(|denial| denial.count).sum(),
            denials,
            notes: vec!["a new repository carries hooks".into()],
            ..Summary::example()
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
    fn destinations_are_told_with_their_sizes() {
        let service = |names: &[&str], addresses: &[&str], port, transport| Party::Service {
            names: names.iter().map(|&name| name.into()).collect(),
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            port,
            transport,
        };
        let told = |party, allowed, denied, bytes: Option<(u64, u64)>, uncounted| {
            let (bytes_out, bytes_in) = bytes.unzip();
            describe_destination(&Destination { party, allowed, denied, bytes_out, bytes_in, uncounted })
        };
        let api = service(&["api.example.org"], &["192.0.2.7"], 443, Transport::Tcp);
        assert_eq!(
            told(api.clone(), 3, 0, Some((12_345, 1_234_567)), 0),
            "api.example.org:443 (192.0.2.7)   3 connections   12.3 kB out   1.2 MB in"
        );
        assert_eq!(
            told(api, 1, 2, Some((999, 999_960)), 1),
            "api.example.org:443 (192.0.2.7)   1 connection   2 denied   999 B out   1.0 MB in   (1 not counted)"
        );
        let address = service(&[], &["2001:db8::1"], 53, Transport::Udp);
        assert_eq!(told(address, 2, 0, None, 0), "udp [2001:db8::1]:53   2 times");
        let ping = service(&[], &["192.0.2.1"], 0, Transport::Icmp);
        assert_eq!(told(ping, 0, 1, None, 0), "icmp 192.0.2.1   1 denied");
        let many = service(&["a", "b"], &["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"], 80, Transport::Tcp);
        assert_eq!(told(many, 0, 0, None, 0), "a, b:80 (192.0.2.1, 192.0.2.2, 192.0.2.3, ...)");
        let visitors = Party::Visitors { at: "127.0.0.1:8000".parse().unwrap(), port: 80 };
        assert_eq!(
            told(visitors, 1, 0, Some((u64::MAX, 0)), 0),
            "visitors of port 80 at 127.0.0.1:8000   1 connection   18.4 EB out   0 B in"
        );
        assert_eq!(told(Party::Others, 7, 0, None, 0), "all others   7 connections");
    }

    #[test]
    fn the_longer_text_names_some_destinations_and_the_report_all() {
        let visitors = |port| Destination {
            party: Party::Visitors { at: "127.0.0.1:8000".parse().unwrap(), port },
            allowed: 1,
            denied: 0,
            bytes_out: None,
            bytes_in: None,
            uncounted: 0,
        };
        let summary = Summary { destinations: (1..=23).map(visitors).collect(), ..summary(vec![]) };
        let text = verbose(&summary);
        assert_eq!(text.matches("visitors of port").count(), SHOWN);
        assert!(text.contains("  and 3 more destinations: agentbox log 1970"), "{text}");
        let report = report_json(&summary, &RunResult::default(), &Value::Null, ("/log", None));
        assert_eq!(report["destinations"][22]["port"], 23);
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
        let report = report_json(&summary, &RunResult::default(), &Value::Null, ("/log", None));
        assert_eq!(report["denied"], 1);
        assert_eq!(report["denials"][0]["fix"], "-w /etc/hosts");
        assert_eq!(report["denials"][0]["op"], "write");
        assert_eq!(report["notes"][0], "a new repository carries hooks");
    }
}
