//! `agentbox policy replay`: puts every decision of a log to another policy and prints those that would come out otherwise.
//!
//! Main process, no box. Reads line by line; a line that is no record is named, counted and passed over.

use std::io::{self, BufWriter, Write};

use anyhow::{Context, Result};
use serde_json::json;

use super::log::{being_written, is_broken_pipe, located};
use super::why::{as_run_has_it, request};
use crate::audit::entry::{Decided, Entry};
use crate::audit::read::Reader;
use crate::audit::record::Op;
use crate::audit::run;
use crate::audit::text::{printable, shorten, target};
use crate::cli;
use crate::event::{Effect, Event, Reason, Verdict};
use crate::policy::{self, Policy, World, decide};

/// Nothing would change.
const SAME: u8 = 0;
/// Something would, or the log is broken in places.
const OTHER: u8 = 1;
/// The longest target on a line, in characters.
const WIDTH: usize = 160;

/// Runs `agentbox policy replay` and returns the exit status.
pub fn replay(spec: &str, flags: &cli::PolicyArgs, json: bool, world: &World) -> Result<u8> {
    let found = run::find(&world.state, Some(spec))?;
    let loaded = policy::load(&request(flags, Some(&found)), world)?;
    super::policy::print_notes(&loaded.notes);
    let (policy, _) = as_run_has_it(loaded.policy);
    let mut out = BufWriter::new(io::stdout().lock());
    let status = replay_to(&found, &policy, json, &mut out);
    let flushed = out.flush().context("cannot write the output");
    match status.and_then(|status| flushed.map(|()| status)) {
        Err(error) if is_broken_pipe(&error) => Ok(OTHER),
        status => status,
    }
}

fn replay_to(found: &run::Found, policy: &Policy, json: bool, out: &mut dyn Write) -> Result<u8> {
    let mut reader = Reader::open(&found.log)?;
    let (mut decisions, mut changed, mut abridged, mut faults) = (0u64, 0u64, 0u64, 0u64);
    while let Some(line) = reader.next_line()? {
        for fault in line.faults.iter().filter(|fault| !being_written(&found.log, fault)) {
            faults += 1;
            eprintln!("agentbox: {}", located(&found.log, fault));
        }
        let Some(Entry::Decision(decided)) = line.entry else { continue };
        let seq = line.seq.unwrap_or_default();
        let Some(event) = decided.event() else {
            faults += 1;
            let log = printable(&found.log.to_string_lossy());
            eprintln!("agentbox: {log} line {}: the record says less than a decision needs", line.number);
            continue;
        };
        decisions += 1;
        if decided.is_abridged() {
            abridged += 1;
            continue;
        }
        let verdict = decide(policy, &event);
        if verdict.effect != asked_of_policy(&decided) {
            changed += 1;
            put(seq, &decided, &event, &verdict, json, out)?;
        }
    }
    match json {
        true => {
            let sums = json!({"decisions": decisions, "changed": changed, "abridged": abridged, "faults": faults});
            writeln!(out, "{sums}")?;
        }
        false => {
            let faults = if faults > 0 { format!(", {faults} faults in the log") } else { String::new() };
            writeln!(out, "{decisions} decisions, {changed} would change with {}{faults}", printable(&policy.name))?;
            if abridged > 0 {
                writeln!(out, "{abridged} starts of programs are not told: the log does not hold all their arguments")?;
            }
        }
    }
    Ok(if changed + faults > 0 { OTHER } else { SAME })
}

/// What the policy said then: of what had been asked and answered before, that a person must say.
fn asked_of_policy(decided: &Decided) -> Effect {
    if decided.reason == Reason::Answered { Effect::Ask } else { decided.verdict }
}

fn put(seq: u64, then: &Decided, event: &Event, now: &Verdict, json: bool, out: &mut dyn Write) -> io::Result<()> {
    let (op, aim) = (Op::of(&event.access).name(), target(&event.access));
    if json {
        let line = json!({
            "seq": seq,
            "op": op,
            "target": aim,
            "then": {"verdict": then.verdict, "rule": then.rule},
            "now": {"verdict": now.effect, "rule": now.rule, "reason": now.reason, "message": now.message},
        });
        return writeln!(out, "{line}");
    }
    let line = format!(
        "{seq:>7}  {:<5} → {:<5}  {op:<8} {}  by {}",
        word(then.verdict),
        word(now.effect),
        shorten(&aim, WIDTH),
        now.rule
    );
    writeln!(out, "{}", printable(&line))
}

fn word(effect: Effect) -> &'static str {
    match effect {
        Effect::Allow => "allow",
        Effect::Ask => "ask",
        Effect::Deny => "deny",
    }
}
