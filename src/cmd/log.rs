//! `agentbox log`: prints a run's trail, lists runs, proves a log's chain.
//!
//! Main process, no box. Everything a record holds may come from inside a box, so nothing is printed unescaped except
//! the raw lines of `--json`, where JSON's own escapes hold.

use std::ffi::OsString;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::Path;

use anyhow::Context;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::audit::read::{self, Chain, Line, Located, Reader};
use crate::audit::record::{Decided, End, Entry, RunResult, Start};
use crate::audit::run::{self, Found, RunFile, RunId};
use crate::audit::text::{printable, quoted, shorten, target};
use crate::cli::{Log, LogCommand};
use crate::event::Effect;

/// All is well.
const FINE: u8 = 0;
/// The log is broken or unreadable in places.
const BROKEN: u8 = 1;
/// The longest target on a line of the trail, in characters.
const WIDTH: usize = 160;

/// Where output goes and how.
#[allow(missing_debug_implementations)]
pub struct Output<'a> {
    /// What was asked for.
    pub out: &'a mut dyn Write,
    /// What is wrong with it.
    pub err: &'a mut dyn Write,
    /// Whether `out` understands colours.
    pub colour: bool,
}

/// Runs `agentbox log` on the real terminal and environment; gives the exit status.
pub fn log(args: &Log) -> anyhow::Result<u8> {
    let lookup = |name: &str| std::env::var_os(name);
    let state = run::state_dir(lookup)?;
    let stdout = io::stdout().lock();
    let colour = stdout.is_terminal() && wants_colour(lookup);
    let mut out = BufWriter::new(stdout);
    let status = log_to(&state, args, &mut Output { out: &mut out, err: &mut io::stderr().lock(), colour });
    let flushed = out.flush().context("cannot write the output");
    match status.and_then(|status| flushed.map(|()| status)) {
        // Whoever read the output, such as `head`, has seen enough.
        Err(error) if is_broken_pipe(&error) => Ok(FINE),
        status => status,
    }
}

fn wants_colour(lookup: impl Fn(&str) -> Option<OsString>) -> bool {
    let no_colour = lookup("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = lookup("TERM").is_none_or(|term| term == "dumb");
    !no_colour && !dumb
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let kinds = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind);
    kinds.into_iter().any(|kind| kind == io::ErrorKind::BrokenPipe)
}

/// Runs `agentbox log` on the runs in `state`; gives the exit status.
pub fn log_to(state: &Path, args: &Log, output: &mut Output<'_>) -> anyhow::Result<u8> {
    match &args.command {
        None => print(&run::find(state, args.run.as_deref())?, args.json, args.denied, output),
        Some(LogCommand::Verify { run }) => verify(&run::find(state, run.as_deref())?, output),
        Some(LogCommand::List { json }) => list(state, *json, output),
    }
}

fn print(found: &Found, json: bool, denied: bool, output: &mut Output<'_>) -> anyhow::Result<u8> {
    let mut reader = Reader::open(&found.log)?;
    let mut trail = Trail { started: None, colour: output.colour, denied };
    let mut status = warn_about_run(found, output)?;
    if !json && let Ok(Some(about)) = &found.about {
        trail.about(about, output.out)?;
    }
    while let Some(line) = reader.next_line()? {
        for fault in &line.faults {
            status = BROKEN;
            writeln!(output.err, "agentbox: {}", located(&found.log, fault))?;
        }
        let wanted = !denied || matches!(&line.entry, Some(Entry::Decision(decided)) if decided.denied());
        match json {
            true if wanted => put_raw(&line, output.out)?,
            true => {}
            false => trail.line(&line, output.out)?,
        }
    }
    if !json && !reader.ended() {
        writeln!(output.out, "{}", unfinished(&found.log))?;
    }
    Ok(status)
}

fn put_raw(line: &Line, out: &mut dyn Write) -> io::Result<()> {
    // What is no record is not JSON either; it was reported.
    match line.entry {
        Some(_) => out.write_all(&line.raw).and_then(|()| out.write_all(b"\n")),
        None => Ok(()),
    }
}

fn warn_about_run(found: &Found, output: &mut Output<'_>) -> io::Result<u8> {
    match &found.about {
        Ok(_) => Ok(FINE),
        Err(error) => {
            let source = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
            writeln!(output.err, "agentbox: {}", printable(&format!("{error}{source}")))?;
            Ok(BROKEN)
        }
    }
}

fn located(log: &Path, fault: &Located) -> String {
    format!("{} line {}: {}", printable(&log.to_string_lossy()), fault.line, fault.fault)
}

fn unfinished(log: &Path) -> &'static str {
    match read::still_written(log) {
        true => "no end record: still running",
        false => "no end record: cut off (agentbox was killed, or the end was removed)",
    }
}

/// Prints records for people.
struct Trail {
    started: Option<Timestamp>,
    colour: bool,
    denied: bool,
}

impl Trail {
    fn about(&self, about: &RunFile, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{} {}", self.paint(BOLD, "run     "), about.id)?;
        if let Some(result) = &about.result {
            let denied = about.denied.unwrap_or_default();
            let took = elapsed(&about.started, about.ended.as_deref()).unwrap_or_default();
            writeln!(out, "{} {}{took}, {denied} denied", self.paint(BOLD, "result  "), ending(result))?;
        }
        writeln!(out, "{} {}", self.paint(BOLD, "in      "), printable(&about.cwd))
    }

    fn line(&mut self, line: &Line, out: &mut dyn Write) -> io::Result<()> {
        match &line.entry {
            Some(Entry::Start(start)) => self.start(start, out),
            Some(Entry::Decision(decided)) if !self.denied || decided.denied() => self.decision(decided, out),
            Some(Entry::Note(note)) if !self.denied => {
                writeln!(out, "{} {} {}", self.offset(&note.time), self.paint(CYAN, "note "), printable(&note.text))
            }
            Some(Entry::End(end)) if !self.denied => self.end(end, out),
            Some(Entry::Other(kind)) if !self.denied => {
                writeln!(out, "{:>9}  {}", "", printable(&format!("{kind} (a record of a newer agentbox)")))
            }
            _ => Ok(()),
        }
    }

    fn start(&mut self, start: &Start, out: &mut dyn Write) -> io::Result<()> {
        self.started = start.time.parse().ok();
        let digest = shorten(&start.policy.digest, 12).replace('.', "");
        let time = start.time.get(..19).unwrap_or(&start.time).replace('T', " ");
        writeln!(out, "{} {}", self.paint(BOLD, "command "), printable(&command(&start.command)))?;
        let policy = format!("{} (sha256 {digest})", start.policy.name);
        writeln!(out, "{} {}", self.paint(BOLD, "policy  "), printable(&policy))?;
        writeln!(
            out,
            "{} {} UTC, agentbox {}",
            self.paint(BOLD, "started "),
            printable(&time),
            printable(&start.agentbox)
        )
    }

    fn decision(&self, decided: &Decided, out: &mut dyn Write) -> io::Result<()> {
        let (colour, mark) = mark(decided);
        let aim = decided.access().map_or_else(|| decided.target.to_string(), |access| target(&access));
        let aim = printable(&shorten(&aim, WIDTH));
        write!(out, "{} {} {:<8} {aim}", self.offset(&decided.time), self.paint(colour, mark), decided.op.name())?;
        if let Some(asked) = &decided.asked {
            write!(out, " (as {})", printable(&shorten(asked, WIDTH)))?;
        }
        if decided.outcome != "ok" {
            write!(out, "  {}", self.paint(colour, &printable(&decided.outcome)))?;
        }
        if decided.denied() {
            write!(out, "  by {}", printable(&decided.rule.0))?;
        }
        if let Some(message) = &decided.message {
            write!(out, ": {}", printable(message))?;
        }
        writeln!(out, "  {}", self.paint(DIM, &process(decided)))
    }

    fn end(&self, end: &End, out: &mut dyn Write) -> io::Result<()> {
        write!(out, "{} {} {}", self.offset(&end.time), self.paint(BOLD, "end  "), ending(&end.result))?;
        let refused: u64 = end.counts.values().map(|count| count.ask + count.deny + count.killed).sum();
        let all: u64 = end.counts.values().map(|count| count.ask + count.deny + count.allow).sum();
        write!(out, "; {all} decisions, {refused} denied, {} records", end.recorded)?;
        match end.dropped {
            0 => writeln!(out),
            dropped => writeln!(out, ", {}", self.paint(RED, &format!("{dropped} records lost"))),
        }
    }

    fn offset(&self, time: &str) -> String {
        let since = |start| time.parse::<Timestamp>().map(|time| time.duration_since(start));
        match self.started.map(since) {
            Some(Ok(offset)) => format!("{:>9.3}s", offset.as_secs_f64()),
            _ => format!("{:>10}", "?"),
        }
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        match self.colour {
            true => format!("\x1b[{colour}m{text}\x1b[0m"),
            false => text.to_string(),
        }
    }
}

const BOLD: &str = "1";
const DIM: &str = "2";
const RED: &str = "31";
const GREEN: &str = "32";
const YELLOW: &str = "33";
const CYAN: &str = "36";

fn mark(decided: &Decided) -> (&'static str, &'static str) {
    match decided.verdict {
        Effect::Deny => (RED, "DENY "),
        Effect::Ask if decided.denied() => (RED, "DENY "),
        Effect::Allow if decided.denied() => (RED, "KILL "),
        Effect::Ask | Effect::Allow if decided.outcome == "ok" => (GREEN, "allow"),
        Effect::Ask | Effect::Allow => (YELLOW, "allow"),
    }
}

fn process(decided: &Decided) -> String {
    let name = decided.process.exe.rsplit('/').next().unwrap_or_default();
    let name = if name.is_empty() { "?" } else { name };
    format!("{}[{}]", printable(name), decided.process.pid)
}

fn ending(result: &RunResult) -> String {
    let mut text = match (result.exit, result.signal) {
        (_, Some(signal)) => format!("ended by signal {signal}"),
        (Some(exit), None) => format!("exit {exit}"),
        (None, None) => "did not run".into(),
    };
    if result.timed_out {
        text.push_str(" (out of time)");
    }
    if let Some(error) = &result.error {
        text.push_str(&format!(" ({})", printable(error)));
    }
    text
}

fn elapsed(started: &str, ended: Option<&str>) -> Option<String> {
    let started: Timestamp = started.parse().ok()?;
    let took: SignedDuration = ended?.parse::<Timestamp>().ok()?.duration_since(started);
    Some(format!(" after {:.3} s", took.as_secs_f64()))
}

fn command(words: &[String]) -> String {
    let line: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    shorten(&line.join(" "), 4 * WIDTH)
}

fn verify(found: &Found, output: &mut Output<'_>) -> anyhow::Result<u8> {
    let mut status = warn_about_run(found, output)?;
    let about = found.about.as_ref().ok().and_then(Option::as_ref);
    let expected = about.and_then(|about| about.head.as_ref());
    let log = printable(&found.log.to_string_lossy());
    let out = &mut output.out;
    match read::verify(&found.log, expected)? {
        Chain::Verified { records, head, dropped } => {
            writeln!(out, "{log}: whole, {records} records")?;
            if dropped > 0 {
                writeln!(out, "the run itself says that {dropped} records could not be written")?;
            }
            writeln!(out, "head {} {}{}", head.seq, head.hash, compared(expected.is_some()))?;
        }
        Chain::Unfinished { records, head } => {
            status = BROKEN;
            writeln!(out, "{log}: {records} records, whole as far as it goes; {}", unfinished(&found.log))?;
            writeln!(out, "head {} {}", head.seq, head.hash)?;
        }
        Chain::Broken(fault) => {
            status = BROKEN;
            writeln!(out, "BROKEN {}", located(&found.log, &fault))?;
        }
    }
    Ok(status)
}

fn compared(was: bool) -> &'static str {
    match was {
        true => ", as in run.json",
        false => " (not compared: no run.json says how the log must end)",
    }
}

fn list(state: &Path, as_json: bool, output: &mut Output<'_>) -> anyhow::Result<u8> {
    let runs = run::list(state)?;
    let dir = |id: &RunId| state.join("runs").join(id.as_str());
    let each = runs.iter().map(|id| (id, run::load(&dir(id)).ok().flatten()));
    if as_json {
        let values: Vec<Value> = each.map(|(id, about)| listed_json(id, about)).collect();
        serde_json::to_writer_pretty(&mut output.out, &values).map_err(io::Error::from)?;
        writeln!(output.out)?;
        return Ok(FINE);
    }
    for (id, about) in each {
        writeln!(output.out, "{id}  {}", listed(about.as_ref()))?;
    }
    Ok(FINE)
}

fn listed(about: Option<&RunFile>) -> String {
    let Some(about) = about else { return "(its run.json is missing or cannot be read)".into() };
    let denied = about.denied.unwrap_or_default();
    let denied = if denied > 0 { format!("{denied} denied") } else { String::new() };
    let words = printable(&shorten(&command(&about.command), 100));
    format!("{:<12} {denied:<12} {words}", state_of(about))
}

fn state_of(about: &RunFile) -> String {
    match &about.result {
        Some(result) => ending(result),
        None if about.log_path().is_some_and(|log| read::still_written(&log)) => "running".into(),
        None => "cut off".into(),
    }
}

fn listed_json(id: &RunId, about: Option<RunFile>) -> Value {
    let Some(about) = about else { return json!({"id": id, "error": "run.json is missing or cannot be read"}) };
    let state = state_of(&about);
    let mut value = serde_json::to_value(&about).unwrap_or_default();
    if let Some(fields) = value.as_object_mut() {
        fields.insert("state".into(), state.into());
    }
    value
}
