//! `agentbox log export`: a log in the shape that other tools read: OCSF events, an OpenTelemetry trace, or as it is.
//!
//! Main process, no box; with `--follow` while a run goes on, and so also beside the box of `agentbox run --export`.
//! Reads line by line; what is no record is named and passed over. Nothing is ever changed here but how far a collector
//! is: one that cannot be reached costs nothing but the call.

pub(super) mod beside;
mod deliver;
mod send;

use std::cell::RefCell;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::log::follow::{self, Watch};
use super::log::{Output, Source, being_written, located, unfinished};
use super::place::{Placed, Replaces};
use crate::audit::cursor::{Cursor, Mark};
use crate::audit::entry::Entry;
use crate::audit::ocsf::Ocsf;
use crate::audit::otlp::{Resource, SPANS, Trace};
use crate::audit::read::{Line, Reader, still_written};
use crate::audit::run::{self, Found, RunFile};
use crate::audit::tail::Wait;
use crate::audit::text::printable;
use crate::cli::{Export, Format};
use crate::sys;
use deliver::{Delivered, Delivery, Halt, Patience};
use send::Collector;

/// All is well.
const FINE: u8 = 0;
/// The log is broken or unreadable in places.
const BROKEN: u8 = 1;
/// How often it is looked whether another exporter has come to its end.
const PAUSE: Duration = Duration::from_millis(50);

/// Runs `agentbox log export` on the runs in `state`; gives the exit status.
pub(super) fn export(state: &Path, args: &Export, output: &mut Output<'_>) -> Result<u8> {
    let collector = match (args.format, &args.output) {
        (Format::Otlp, None) => Collector::from_variables(variable)?,
        _ => None,
    };
    match (args.follow, collector) {
        (true, collector) => follow(state, args, collector, output),
        (false, Some(collector)) => {
            let patient = |pause| {
                thread::sleep(pause);
                Wait::Again
            };
            sent(&run::find(state, args.run.as_deref())?, collector, args.again, patient, output)
        }
        (false, None) => {
            let found = run::find(state, args.run.as_deref())?;
            let write = |output: &mut Output<'_>| {
                whole(&found, &mut Reader::open(&found.log)?, args.format, Grouped::Widely, output)
            };
            match args.output.as_deref().filter(|path| *path != Path::new("-")) {
                Some(path) => to_file(path, &found.log, |out| write(&mut Output { out, ..reborrowed(output) })),
                None => write(output),
            }
        }
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Goes on until the run ends, or somebody ends us between two records.
fn follow(state: &Path, args: &Export, collector: Option<Collector>, output: &mut Output<'_>) -> Result<u8> {
    if args.output.as_deref().is_some_and(|path| path != Path::new("-")) {
        bail!("--follow writes to the standard output: leave -o out, and send that to a file (`> FILE`)");
    }
    let mut watch = Watch::begin()?;
    let Some(found) = follow::await_run(state, args.run.as_deref(), &mut watch, output)? else {
        return Ok(watch.status());
    };
    let (status, ended) = match collector {
        Some(collector) => followed(&found, collector, args.again, |pause| watch.wait(pause), output)?,
        None => {
            let mut reader = follow::open(&found.log, |pause| watch.wait(pause))?;
            (whole(&found, &mut reader, args.format, Grouped::Singly, output)?, reader.ended())
        }
    };
    if watch.over() {
        return Ok(watch.status());
    }
    if !ended {
        writeln!(output.err, "agentbox: {}", unfinished(&found.log))?;
    }
    Ok(if ended { status } else { BROKEN })
}

/// The same output for a while.
fn reborrowed<'a>(output: &'a mut Output<'_>) -> Output<'a> {
    Output { out: &mut *output.out, err: &mut *output.err, colour: output.colour }
}

/// Writes a file whole or not at all; a pipe or a device is written as it is.
fn to_file(path: &Path, log: &Path, write: impl FnOnce(&mut dyn Write) -> Result<u8>) -> Result<u8> {
    let cannot = || format!("cannot write {}", path.display());
    if fs::metadata(path).is_ok_and(|facts| !facts.is_file() && !facts.is_dir()) {
        let mut out = OpenOptions::new().write(true).open(path).with_context(cannot)?;
        return write(&mut out);
    }
    let mut placed = Placed::begin(path, Replaces::Any, log)?;
    let status = write(&mut placed).with_context(cannot)?;
    placed.finish()?;
    Ok(status)
}

/// How many spans are written in one line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Grouped {
    /// As many as a collector takes at once.
    Widely,
    /// One, as soon as it is complete.
    Singly,
}

/// Writes the log in a format.
fn whole<S: Source>(
    found: &Found,
    reader: &mut Reader<S>,
    format: Format,
    grouped: Grouped,
    output: &mut Output<'_>,
) -> Result<u8> {
    match format {
        Format::Jsonl => each(reader, found, output, |line, out| {
            if line.entry.is_some() {
                out.write_all(&line.raw).and_then(|()| out.write_all(b"\n"))?;
            }
            Ok(Wait::Again)
        }),
        Format::Ocsf => {
            let mut ocsf = Ocsf::new(&name(found));
            each(reader, found, output, |line, out| {
                ocsf.events(line).iter().try_for_each(|event| writeln!(out, "{event}"))?;
                Ok(Wait::Again)
            })
        }
        Format::Otlp => requests(found, reader, grouped, output),
    }
}

/// Writes the trace as a collector would get it, a request a line.
fn requests<S: Source>(found: &Found, reader: &mut Reader<S>, grouped: Grouped, output: &mut Output<'_>) -> Result<u8> {
    let (mut trace, resource) = (Trace::new(&name(found), about(found)), resource());
    let most = if grouped == Grouped::Singly { 1 } else { SPANS };
    let mut spans = Vec::new();
    let status = each(reader, found, output, |line, out| {
        spans.extend(trace.take(line));
        if spans.len() == most {
            writeln!(out, "{}", trace.request(&resource, std::mem::take(&mut spans)))?;
        }
        Ok(Wait::Again)
    })?;
    if grouped == Grouped::Singly && still_written(&found.log) {
        // We were ended before the run was: what it has open is not complete yet.
        return Ok(status);
    }
    while let Some(span) = trace.rest() {
        spans.push(span);
        if spans.len() == most {
            writeln!(output.out, "{}", trace.request(&resource, std::mem::take(&mut spans)))?;
        }
    }
    if !spans.is_empty() {
        writeln!(output.out, "{}", trace.request(&resource, spans))?;
    }
    Ok(status)
}

/// Hands each line on, as long as more is wanted; says what is wrong with the log, and so the exit status.
fn each<S: Source>(
    reader: &mut Reader<S>,
    found: &Found,
    output: &mut Output<'_>,
    mut take: impl FnMut(&Line, &mut dyn Write) -> Result<Wait>,
) -> Result<u8> {
    let mut status = FINE;
    loop {
        if reader.input().keeps_waiting() {
            output.out.flush()?;
        }
        let Some(line) = reader.next_line()? else { return Ok(status) };
        for fault in line.faults.iter().filter(|fault| !being_written(&found.log, fault)) {
            status = BROKEN;
            writeln!(output.err, "agentbox: {}", located(&found.log, fault))?;
        }
        if take(&line, output.out)? == Wait::Enough {
            return Ok(status);
        }
    }
}

fn about(found: &Found) -> Option<&RunFile> {
    found.about.as_ref().ok().and_then(Option::as_ref)
}

/// The run's name: a log that stands alone says it itself.
fn name(found: &Found) -> String {
    let named = about(found).map(|about| about.id.clone()).or_else(|| crate::audit::read::run_of(&found.log));
    named.map_or_else(|| "unknown".into(), |run| run.to_string())
}

fn resource() -> Resource {
    let variable = |name: &str| std::env::var(name).ok();
    Resource::from_text(variable("OTEL_SERVICE_NAME").as_deref(), variable("OTEL_RESOURCE_ATTRIBUTES").as_deref())
}

/// Sends the trace to a collector, as far as the log has come.
fn sent(
    found: &Found,
    collector: Collector,
    again: bool,
    wait: impl FnMut(Duration) -> Wait,
    output: &mut Output<'_>,
) -> Result<u8> {
    let told = collector.told();
    let Some(mut delivery) = delivery(found, collector, again, Patience::Short, wait, output)? else {
        return Ok(FINE);
    };
    let runs = still_written(&found.log);
    let mut reader = Reader::open(&found.log)?;
    let status = each(&mut reader, found, output, |line, _| Ok(delivery.take(line)))?;
    // What a run has open will be complete one day, and is sent once.
    if runs {
        delivery.send()
    } else {
        delivery.finish(reader.number())
    }
    say(delivery.end(), &told, runs, output)?;
    Ok(status)
}

/// Sends the trace to a collector while the run goes on; also says whether the record that ends the log was seen.
fn followed(
    found: &Found,
    collector: Collector,
    again: bool,
    wait: impl FnMut(Duration) -> Wait,
    output: &mut Output<'_>,
) -> Result<(u8, bool)> {
    let told = collector.told();
    let Some(delivery) = delivery(found, collector, again, Patience::WhileItRuns, wait, output)? else {
        return Ok((FINE, false));
    };
    let delivery = RefCell::new(delivery);
    // The tail waits, and the loop takes, never both: the cell is free whenever one of them comes to it.
    let mut reader = follow::open(&found.log, |pause| delivery.borrow_mut().idle(pause))?;
    let status = each(&mut reader, found, output, |line, _| {
        let goes_on = delivery.borrow_mut().take(line);
        Ok(if matches!(line.entry, Some(Entry::End(_))) { Wait::Enough } else { goes_on })
    })?;
    let (lines, ended) = (reader.number(), reader.ended());
    drop(reader);
    let mut delivery = delivery.into_inner();
    delivery.finish(lines);
    say(delivery.end(), &told, false, output)?;
    Ok((status, ended))
}

/// Begins where the collector is with this run; none if told to stop waiting for another exporter.
fn delivery<'a>(
    found: &'a Found,
    collector: Collector,
    again: bool,
    patience: Patience,
    mut wait: impl FnMut(Duration) -> Wait + 'a,
    output: &mut Output<'_>,
) -> Result<Option<Delivery<'a>>> {
    // The headers are in our environment.
    let _ = sys::process::hide();
    let mut cursor = found.dir.as_ref().map_or_else(Cursor::default, |dir| Cursor::open(dir, &collector.key()));
    let mut said = false;
    while !cursor.claim() {
        if !std::mem::replace(&mut said, true) {
            let told = printable(&collector.told());
            writeln!(output.err, "agentbox: another agentbox sends this run to {told}: waiting until it has ended")?;
        }
        if wait(PAUSE) == Wait::Enough {
            return Ok(None);
        }
    }
    if again {
        cursor.put(Mark::default());
    }
    let trace = Trace::new(&name(found), about(found));
    Delivery::begin((&found.log, trace, resource()), collector, cursor, patience, wait).map(Some)
}

/// Says what came of a delivery.
fn say(delivered: Result<Delivered, Halt>, told: &str, runs: bool, output: &mut Output<'_>) -> Result<()> {
    let told = printable(told);
    let Delivered { sent, before } = match delivered {
        Ok(delivered) => delivered,
        Err(Halt::Told) => return Ok(()),
        Err(Halt::Refused(why)) => return Err(why.context(format!("cannot send the trace to {told}"))),
    };
    let before = if before > 0 { format!(", {before} before") } else { String::new() };
    let open = if runs { "; the run goes on: --follow sends the rest as it comes" } else { "" };
    writeln!(output.out, "{sent} spans sent to {told}{before}{open}")?;
    Ok(())
}
