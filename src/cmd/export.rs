//! `agentbox log export`: a log in the shape that other tools read: OCSF events, an OpenTelemetry trace, or as it is.
//!
//! Main process, no box. Reads line by line; what is no record is named and passed over. Nothing is ever changed here:
//! a collector that cannot be reached costs nothing but the call.

mod send;

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, Result};

use super::log::{Output, being_written, located};
use super::place::{Placed, Replaces};
use crate::audit::ocsf::Ocsf;
use crate::audit::otlp::{Resource, Trace};
use crate::audit::read::{Line, Reader};
use crate::audit::run::{self, Found, RunFile};
use crate::audit::text::printable;
use crate::cli::{Export, Format};
use send::Collector;

/// All is well.
const FINE: u8 = 0;
/// The log is broken or unreadable in places.
const BROKEN: u8 = 1;

/// Runs `agentbox log export` on the runs in `state`; gives the exit status.
pub(super) fn export(state: &Path, args: &Export, output: &mut Output<'_>) -> Result<u8> {
    let found = run::find(state, args.run.as_deref())?;
    let stdout = args.output.as_deref().is_some_and(|path| path == Path::new("-"));
    match (args.format, args.output.as_deref().filter(|_| !stdout)) {
        (Format::Otlp, None) if !stdout => {
            let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
            match Collector::from_variables(variable)? {
                Some(collector) => sent(&found, &collector, output),
                None => whole(&found, Format::Otlp, output),
            }
        }
        (format, None) => whole(&found, format, output),
        (format, Some(path)) => {
            to_file(path, &found.log, |out| whole(&found, format, &mut Output { out, ..reborrowed(output) }))
        }
    }
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

/// Writes the log in a format.
fn whole(found: &Found, format: Format, output: &mut Output<'_>) -> Result<u8> {
    match format {
        Format::Jsonl => each(found, output, |line, out| match line.entry {
            Some(_) => out.write_all(&line.raw).and_then(|()| out.write_all(b"\n")),
            None => Ok(()),
        }),
        Format::Ocsf => {
            let mut ocsf = Ocsf::new(&name(found));
            each(found, output, |line, out| ocsf.events(line).iter().try_for_each(|event| writeln!(out, "{event}")))
        }
        Format::Otlp => {
            let (trace, status) = trace(found, output)?;
            for request in trace.requests(&resource()) {
                writeln!(output.out, "{request}")?;
            }
            Ok(status)
        }
    }
}

/// Hands each line on; says what is wrong with the log, and so the exit status.
fn each(
    found: &Found,
    output: &mut Output<'_>,
    mut take: impl FnMut(&Line, &mut dyn Write) -> io::Result<()>,
) -> Result<u8> {
    let mut reader = Reader::open(&found.log)?;
    let mut status = FINE;
    while let Some(line) = reader.next_line()? {
        for fault in line.faults.iter().filter(|fault| !being_written(&found.log, fault)) {
            status = BROKEN;
            writeln!(output.err, "agentbox: {}", located(&found.log, fault))?;
        }
        take(&line, output.out)?;
    }
    Ok(status)
}

fn about(found: &Found) -> Option<&RunFile> {
    found.about.as_ref().ok().and_then(Option::as_ref)
}

/// The run's name: a log that stands alone says it itself.
fn name(found: &Found) -> String {
    let named = about(found).map(|about| about.id.clone()).or_else(|| crate::audit::read::run_of(&found.log));
    named.map_or_else(|| "unknown".into(), |run| run.to_string())
}

fn trace(found: &Found, output: &mut Output<'_>) -> Result<(Trace, u8)> {
    let mut trace = Trace::new(&name(found), about(found));
    let status = each(found, output, |line, _| {
        trace.take(line);
        Ok(())
    })?;
    Ok((trace, status))
}

fn resource() -> Resource {
    let variable = |name: &str| std::env::var(name).ok();
    Resource::from_text(variable("OTEL_SERVICE_NAME").as_deref(), variable("OTEL_RESOURCE_ATTRIBUTES").as_deref())
}

/// Sends the trace to a collector.
fn sent(found: &Found, collector: &Collector, output: &mut Output<'_>) -> Result<u8> {
    let (trace, status) = trace(found, output)?;
    let spans = trace.spans();
    for request in trace.requests(&resource()) {
        collector
            .send(&request)
            .with_context(|| format!("cannot send the trace to {}", printable(&collector.told())))?;
    }
    writeln!(output.out, "{spans} spans sent to {}", printable(&collector.told()))?;
    Ok(status)
}
