//! A log in numbers: what was asked, how it came out, how long it took, by which rule and which program.
//!
//! One pass, constant memory: latencies go into buckets, and of rules and programs the first thousand are told apart.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};
use std::ops::ControlFlow;

use anyhow::Result;
use serde_json::{Map, Value, json};

use super::trail::{BOLD, Clock, Paint, span};
use super::{FINE, Fit, Output, put_json, scan, unfinished, warn_about_run};
use crate::audit::Destination;
use crate::audit::brief::{Brief, Sight};
use crate::audit::query::Query;
use crate::audit::read::Reader;
use crate::audit::record::{Counts, Op};
use crate::audit::report::describe_destination;
use crate::audit::run::Found;
use crate::audit::text::{printable, shorten};
use crate::event::Effect;

/// How many rules, and how many programs, are told apart.
const NAMES: usize = 1000;
/// How many of them are printed.
const SHOWN: usize = 20;
/// The longest name in a table.
const WIDTH: usize = 100;

/// Counts what fits the query and prints the sums; gives the exit status.
pub fn stats(found: &Found, query: &Query, as_json: bool, output: &mut Output<'_>) -> Result<u8> {
    let status = warn_about_run(found, output)?;
    let mut reader = Reader::open(&found.log)?;
    let mut sums = Sums::default();
    let read = scan(&mut reader, found, (query, &["start", "end"]), output, |_, sight, fit, _| {
        sums.record(sight, fit);
        Ok(ControlFlow::Continue(()))
    })?;
    sums.lines = reader.number();
    match as_json {
        true => put_json(&sums.json(reader.ended()), output.out)?,
        false => {
            sums.put(query.takes_all() && read == FINE, Paint { colour: output.colour }, output.out)?;
            if !reader.ended() {
                writeln!(output.out, "\n{}", unfinished(&found.log))?;
            }
        }
    }
    Ok(status.max(read))
}

/// Everything that is counted.
#[derive(Debug, Default)]
struct Sums {
    lines: u64,
    clock: Clock,
    first: Option<String>,
    last: Option<String>,
    kinds: BTreeMap<String, u64>,
    ops: BTreeMap<Op, Count>,
    rules: Table,
    programs: Table,
    /// What the end record says of the whole run.
    whole: Option<Counts>,
    destinations: Vec<Destination>,
    dropped: u64,
}

/// How questions came out.
#[derive(Debug, Clone, Default)]
struct Outcomes {
    allowed: u64,
    asked: u64,
    denied: u64,
    killed: u64,
    /// Allowed, and then refused by the kernel.
    failed: u64,
}

/// One operation.
#[derive(Debug, Default)]
struct Count {
    outcomes: Outcomes,
    latency: Latency,
}

/// Outcomes by name, with a bound.
#[derive(Debug, Default)]
struct Table {
    named: HashMap<String, Outcomes>,
    /// All who came when the table was full.
    others: Outcomes,
}

impl Sums {
    fn record(&mut self, sight: &Sight<'_>, fit: Fit) {
        match sight {
            Sight::Start(start) => self.clock = Clock::from(start),
            Sight::End(end) => {
                self.whole = Some(end.counts.clone());
                self.destinations.clone_from(&end.destinations);
                self.dropped = end.dropped;
            }
            _ => {}
        }
        if fit == Fit::Beside {
            return;
        }
        if !sight.time().is_empty() {
            let last = self.last.get_or_insert_default();
            last.clear();
            last.push_str(sight.time());
            self.first.get_or_insert_with(|| sight.time().to_string());
        }
        add_to(&mut self.kinds, kind(sight));
        if let Sight::Decision(brief) = sight {
            self.decision(brief);
        }
    }

    fn decision(&mut self, brief: &Brief<'_>) {
        let count = self.ops.entry(brief.op).or_default();
        count.outcomes.add(brief);
        count.latency.add(brief.latency_us);
        self.rules.of(&brief.rule).add(brief);
        let program = if brief.process.pid == 0 { "(from outside)" } else { &brief.process.exe };
        self.programs.of(if program.is_empty() { "(unknown)" } else { program }).add(brief);
    }

    /// Prints the sums; what the end record says of the run is put beside them if they are of `all` that it holds.
    fn put(&self, all: bool, paint: Paint, out: &mut dyn Write) -> io::Result<()> {
        let decisions: u64 = self.ops.values().map(|count| count.outcomes.total()).sum();
        let time = match (&self.first, &self.last) {
            (Some(first), Some(last)) => {
                let from = self.clock.since(first).unwrap_or_default();
                let took = self.clock.since(last).unwrap_or_default() - from;
                format!(", {} to {}", span(from), span(from + took))
            }
            _ => String::new(),
        };
        let fits = if all { "" } else { " that fit" };
        writeln!(out, "{decisions} decisions{fits} in {} records{time}", self.lines)?;
        self.put_unrecorded(all, decisions, out)?;
        if decisions == 0 {
            return Ok(());
        }
        self.put_ops(paint, out)?;
        self.rules.put("rule", paint, out)?;
        self.programs.put("program", paint, out)?;
        if all && !self.destinations.is_empty() {
            writeln!(out, "\n{}", paint.paint(BOLD, "destination"))?;
            for destination in self.destinations.iter().take(SHOWN) {
                writeln!(out, "  {}", printable(&describe_destination(destination)))?;
            }
            left_out(self.destinations.len().saturating_sub(SHOWN) as u64, "destinations", out)?;
        }
        Ok(())
    }

    /// A log of a low level holds fewer questions than were asked.
    fn put_unrecorded(&self, all: bool, decisions: u64, out: &mut dyn Write) -> io::Result<()> {
        let asked = |counts: &Counts| counts.values().map(|count| count.allow + count.ask + count.deny).sum::<u64>();
        let asked = self.whole.as_ref().filter(|_| all).map(asked);
        if let Some(more) = asked.and_then(|asked| asked.checked_sub(decisions)).filter(|more| *more > 0) {
            writeln!(out, "{more} more were asked and not recorded: `audit: {{level: all}}` records every open")?;
        }
        if self.dropped > 0 {
            writeln!(out, "{} records were lost", self.dropped)?;
        }
        Ok(())
    }

    fn put_ops(&self, paint: Paint, out: &mut dyn Write) -> io::Result<()> {
        let title = format!(
            "{:<10}{:>11}{:>11}{:>11}{:>11}{:>9}{:>13}{:>13}",
            "operation", "allowed", "failed", "asked", "denied", "killed", "p50", "p99"
        );
        writeln!(out, "\n{}", paint.paint(BOLD, &title))?;
        for (op, count) in &self.ops {
            let Outcomes { allowed, asked, denied, killed, failed } = count.outcomes;
            let [p50, p99] = [0.50, 0.99].map(|share| micros(count.latency.quantile(share)));
            let [allowed, failed, asked, denied, killed] = [allowed, failed, asked, denied, killed].map(or_dash);
            let line = format!("{:<10}{allowed:>11}{failed:>11}{asked:>11}{denied:>11}{killed:>9}", op.name());
            writeln!(out, "{line}{p50:>13}{p99:>13}")?;
        }
        Ok(())
    }

    fn json(&self, ended: bool) -> Value {
        let op = |(op, count): (&Op, &Count)| {
            let mut fields = count.outcomes.json();
            for (name, share) in [("p50_us", 0.50), ("p99_us", 0.99)] {
                fields.insert(name.into(), count.latency.quantile(share).into());
            }
            (op.name().to_string(), Value::Object(fields))
        };
        json!({
            "records": self.lines,
            "ended": ended,
            "first": self.first,
            "last": self.last,
            "kinds": self.kinds,
            "dropped": self.dropped,
            "ops": self.ops.iter().map(op).collect::<Map<String, Value>>(),
            "rules": self.rules.json(),
            "programs": self.programs.json(),
            "destinations": self.destinations,
        })
    }
}

fn add_to(kinds: &mut BTreeMap<String, u64>, kind: &str) {
    let full = kinds.len() >= NAMES;
    match kinds.get_mut(kind) {
        Some(count) => *count += 1,
        None if full => {}
        None => drop(kinds.insert(kind.into(), 1)),
    }
}

fn kind<'a>(sight: &Sight<'a>) -> &'a str {
    match sight {
        Sight::Start(_) => "start",
        Sight::Decision(_) => "decision",
        Sight::Note(_) => "note",
        Sight::Opened(_) => "action",
        Sight::Claimed(_) => "claim",
        Sight::Closed(_) => "action_end",
        Sight::Head(_) => "head",
        Sight::End(_) => "end",
        Sight::Other(kind) => kind,
    }
}

fn or_dash(count: u64) -> String {
    if count == 0 { "-".into() } else { count.to_string() }
}

/// Microseconds in a unit that needs few digits.
fn micros(time: f64) -> String {
    match time {
        time if time < 1000.0 => format!("{time:.1} µs"),
        time if time < 1_000_000.0 => format!("{:.1} ms", time / 1000.0),
        time => format!("{:.1} s", time / 1_000_000.0),
    }
}

fn left_out(more: u64, what: &str, out: &mut dyn Write) -> io::Result<()> {
    match more {
        0 => Ok(()),
        more => writeln!(out, "  and {more} more {what} (--json has them)"),
    }
}

impl Outcomes {
    fn add(&mut self, brief: &Brief<'_>) {
        match brief.verdict {
            Effect::Allow => self.allowed += 1,
            Effect::Ask => self.asked += 1,
            Effect::Deny => self.denied += 1,
        }
        match () {
            () if brief.outcome == "killed" => self.killed += 1,
            () if brief.denied() || brief.done() => {}
            () => self.failed += 1,
        }
    }

    fn total(&self) -> u64 {
        self.allowed + self.asked + self.denied
    }

    fn json(&self) -> Map<String, Value> {
        let Self { allowed, asked, denied, killed, failed } = *self;
        let fields =
            [("allowed", allowed), ("asked", asked), ("denied", denied), ("killed", killed), ("failed", failed)];
        fields.into_iter().map(|(name, count)| (name.to_string(), count.into())).collect()
    }
}

impl Table {
    fn of(&mut self, name: &str) -> &mut Outcomes {
        // Looked up first, so that a name is copied once and not for each record.
        if self.named.len() < NAMES && !self.named.contains_key(name) {
            self.named.insert(name.to_string(), Outcomes::default());
        }
        match self.named.get_mut(name) {
            Some(outcomes) => outcomes,
            None => &mut self.others,
        }
    }

    /// The most frequent first.
    fn sorted(&self) -> Vec<(&String, &Outcomes)> {
        let mut rows: Vec<_> = self.named.iter().collect();
        rows.sort_unstable_by(|a, b| b.1.total().cmp(&a.1.total()).then_with(|| a.0.cmp(b.0)));
        rows
    }

    fn put(&self, title: &str, paint: Paint, out: &mut dyn Write) -> io::Result<()> {
        let head = format!("{:>11}{:>11}{:>11}  {title}", "allowed", "asked", "denied");
        writeln!(out, "\n{}", paint.paint(BOLD, &head))?;
        let rows = self.sorted();
        for (name, outcomes) in rows.iter().take(SHOWN) {
            let [allowed, asked, denied] = [outcomes.allowed, outcomes.asked, outcomes.denied].map(or_dash);
            writeln!(out, "{allowed:>11}{asked:>11}{denied:>11}  {}", printable(&shorten(name, WIDTH)))?;
        }
        left_out(rows.len().saturating_sub(SHOWN) as u64, &format!("{title}s"), out)?;
        match self.others.total() {
            0 => Ok(()),
            count => writeln!(out, "  and {count} decisions of others, of which more than {NAMES} are not told apart"),
        }
    }

    fn json(&self) -> Value {
        let rows = self.sorted();
        let mut list: Vec<Value> = Vec::with_capacity(rows.len());
        for (name, outcomes) in rows {
            let mut fields = outcomes.json();
            fields.insert("name".into(), name.as_str().into());
            list.push(fields.into());
        }
        json!({"named": list, "others": self.others.json()})
    }
}

/// Latencies in buckets: sixteen to each doubling of nanoseconds, so that a quantile is right to one part in 32.
#[derive(Debug)]
struct Latency {
    buckets: Box<[u64; Self::BUCKETS]>,
    count: u64,
}

impl Default for Latency {
    fn default() -> Self {
        Self { buckets: Box::new([0; Self::BUCKETS]), count: 0 }
    }
}

impl Latency {
    /// Up to 2^42 nanoseconds, more than an hour.
    const BUCKETS: usize = 42 * 16;

    fn add(&mut self, micros: f64) {
        let nanos = (micros * 1000.0).max(16.0) as u64;
        let doubling = nanos.ilog2();
        let part = (nanos >> (doubling - 4)) & 15;
        let at = (doubling as usize * 16 + part as usize).min(Self::BUCKETS - 1);
        self.buckets[at] += 1;
        self.count += 1;
    }

    /// The middle of the bucket that holds the quantile, in microseconds.
    fn quantile(&self, share: f64) -> f64 {
        let rank = ((self.count as f64 * share).ceil() as u64).clamp(1, self.count.max(1));
        let mut seen = 0;
        let at = self.buckets.iter().position(|count| {
            seen += count;
            seen >= rank
        });
        let Some(at) = at else { return 0.0 };
        let doubling = 2f64.powi((at / 16) as i32);
        let nanos = doubling * (16.5 + (at % 16) as f64) / 16.0;
        (nanos / 100.0).round() / 10.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_right_to_one_part_in_32() {
        let mut latency = Latency::default();
        assert_eq!(latency.quantile(0.5), 0.0);
        (1..=1000).for_each(|micros| latency.add(f64::from(micros)));
        for (share, right) in [(0.50, 500.0), (0.99, 990.0)] {
            let found = latency.quantile(share);
            assert!((found / right - 1.0).abs() < 1.0 / 32.0, "{found} for {right}");
        }
        for odd in [f64::NAN, -1.0, 0.0, f64::INFINITY, 1e300] {
            latency.add(odd);
        }
    }

    #[test]
    fn a_table_that_is_full_counts_on() {
        let mut table = Table::default();
        (0..NAMES + 7).for_each(|n| table.of(&format!("rule {n}")).denied += 1);
        table.of("rule 0").allowed += 1;
        assert_eq!((table.named.len(), table.others.denied), (NAMES, 7));
        assert_eq!(table.sorted()[0].0, "rule 0");
    }
}
