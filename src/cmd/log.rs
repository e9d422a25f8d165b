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

use crate::audit::read::{self, Chain, Fault, Line, Located, Reader};
use crate::audit::record::{Decided, End, Entry, RunResult, Start};
use crate::audit::report::describe_destination;
use crate::audit::run::{self, Found, RunFile, RunId};
use crate::audit::text::{digests, printable, quoted, shorten, target};
use crate::cli::{Log, LogCommand};
use crate::event::Effect;

/// All is well.
const FINE: u8 = 0;
/// The log is broken or unreadable in places.
const BROKEN: u8 = 1;
/// The longest target on a line of the trail, in characters.
const WIDTH: usize = 160;

/// Where output goes and how.
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

/// Whether output ended because nobody reads it any more.
pub(super) fn is_broken_pipe(error: &anyhow::Error) -> bool {
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
        for fault in line.faults.iter().filter(|fault| !being_written(&found.log, fault)) {
            status = BROKEN;
            writeln!(output.err, "agentbox: {}", located(&found.log, fault))?;
        }
        let wanted = !denied || matches!(&line.entry, Some(Entry::Decision(decided)) if decided.is_refusal());
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

/// A running writer's last line may be seen half written: that is no fault.
pub(super) fn being_written(log: &Path, found: &Located) -> bool {
    found.fault == Fault::Torn && read::still_written(log)
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

/// Says what is wrong, and where.
pub(super) fn located(log: &Path, fault: &Located) -> String {
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
            Some(Entry::Decision(decided)) if !self.denied || decided.is_refusal() => self.decision(decided, out),
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
        let digest: String = start.policy.digest.chars().take(12).collect();
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
        if let Some(digest) = decided.access().as_ref().and_then(digests) {
            write!(out, " ({})", printable(&shorten(&digest, WIDTH)))?;
        }
        if decided.outcome != "ok" {
            write!(out, "  {}", self.paint(colour, &printable(&decided.outcome)))?;
        }
        if decided.is_refusal() {
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
        let refused = refused.saturating_sub(end.let_through);
        write!(out, "; {all} decisions, {refused} denied, {} records", end.recorded)?;
        if end.let_through > 0 {
            write!(out, ", {} would have been denied", end.let_through)?;
        }
        match end.dropped {
            0 => writeln!(out)?,
            dropped => writeln!(out, ", {}", self.paint(RED, &format!("{dropped} records lost")))?,
        }
        for destination in &end.destinations {
            let told = printable(&describe_destination(destination));
            writeln!(out, "{:>10} {} {told}", "", self.paint(CYAN, "net  "))?;
        }
        Ok(())
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
        Effect::Ask | Effect::Deny if decided.let_through() => (YELLOW, "WOULD"),
        Effect::Deny => (RED, "DENY "),
        Effect::Ask if decided.denied() => (RED, "DENY "),
        Effect::Allow if decided.denied() => (RED, "KILL "),
        Effect::Ask | Effect::Allow if decided.outcome == "ok" => (GREEN, "allow"),
        Effect::Ask | Effect::Allow => (YELLOW, "allow"),
    }
}

fn process(decided: &Decided) -> String {
    // What no process of the box asked for: a visit from outside.
    if decided.process.pid == 0 {
        return "outside".into();
    }
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
    let state = match &about.result {
        Some(result) => briefly(result),
        None => state_of(about),
    };
    format!("{state:<14} {denied:<12} {words}")
}

/// [`ending`] in a column's width; `agentbox log RUN` has the rest.
fn briefly(result: &RunResult) -> String {
    match (result.timed_out, result.signal, result.exit) {
        (true, ..) => "out of time".into(),
        (_, Some(signal), _) => format!("signal {signal}"),
        (_, None, Some(exit)) if result.error.is_some() => format!("exit {exit}, failed"),
        (_, None, Some(exit)) => format!("exit {exit}"),
        (_, None, None) => "did not run".into(),
    }
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::audit::record::{Counts, Decision, Layer, Note, Outcome, PolicyRef, Record};
    use crate::audit::run::RunDir;
    use crate::audit::{Summary, Writer, text};
    use crate::event::{
        Access, BoxPath, Event, FileOp, Mode, Place, Reason, RuleId, Subject, Verdict, Weight, escape_bytes,
    };

    struct World {
        state: tempfile::TempDir,
        run: RunDir,
        about: RunFile,
    }

    /// A finished run that was refused a hostile name.
    fn world() -> World {
        let state = tempfile::tempdir().unwrap();
        let run = RunDir::choose(state.path(), SystemTime::UNIX_EPOCH);
        run.make().unwrap();
        let start = Start {
            time: text::rfc3339(SystemTime::UNIX_EPOCH),
            run: run.id().clone(),
            agentbox: "0.1.0".into(),
            command: vec!["sh".into(), "-c".into(), "echo \x1b[2J".into()],
            policy: PolicyRef { name: "default.yaml".into(), digest: "0123456789abcdef".into() },
            mode: Mode::Enforce,
            coverage: Value::Null,
        };
        let writer = Writer::create(&run.log_path(), &start).unwrap();
        writer.push(decision("/work/a", Effect::Allow, Outcome::Ok));
        writer.push(decision("/etc/\x1b]0;owned\x07\nhosts", Effect::Deny, Outcome::Errno(13)));
        writer.push(Record::Note(Note { time: SystemTime::UNIX_EPOCH, text: "hooks\r!".into() }));
        let result = RunResult { exit: Some(0), ..RunResult::default() };
        let written = writer.finish(&result, &Summary::example()).unwrap();
        let about = RunFile {
            v: RunFile::VERSION,
            id: run.id().clone(),
            agentbox: start.agentbox,
            command: start.command,
            cwd: "/work".into(),
            policy: start.policy,
            mode: Mode::Enforce,
            sources: vec![],
            coverage: Value::Null,
            log: escape_bytes(run.log_path().as_os_str().as_encoded_bytes()),
            started: start.time,
            ended: Some(text::rfc3339(SystemTime::UNIX_EPOCH + Duration::from_millis(2310))),
            result: Some(result),
            counts: Some(Counts::new()),
            destinations: Vec::new(),
            actions: Vec::new(),
            total: None,
            denied: Some(1),
            let_through: 0,
            head: Some(written.head),
        };
        run.write(run.open_next().unwrap(), &about).unwrap();
        World { state, run, about }
    }

    fn decision(path: &str, effect: Effect, outcome: Outcome) -> Record {
        let at = Place::of(BoxPath::new(path).unwrap());
        let subject =
            Subject { pid: 5, host: 105, exe: "/usr/bin/python3".into(), parents: vec![2, 1], ..Subject::default() };
        let rule = RuleId::new("default.yaml", "filesystem");
        Record::Decision(Decision {
            time: SystemTime::UNIX_EPOCH + Duration::from_millis(120),
            event: Event::new(subject.into(), Access::File { op: FileOp::Write, at }),
            asked: None,
            verdict: Verdict { effect, rule, reason: Reason::NotGranted, message: None, weight: Weight::default() },
            answer: None,
            mode: Mode::Enforce,
            layer: Layer::Supervisor,
            outcome,
            latency: Duration::ZERO,
        })
    }

    impl World {
        fn log(&self, args: &[&str]) -> (Option<u8>, String, String) {
            self.log_in(args, false)
        }

        fn log_in(&self, args: &[&str], colour: bool) -> (Option<u8>, String, String) {
            use clap::Parser;
            let cli = crate::cli::Cli::try_parse_from(["agentbox", "log"].iter().chain(args)).unwrap();
            let crate::cli::Command::Log(log) = cli.command else { panic!() };
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let status = log_to(self.state.path(), &log, &mut Output { out: &mut out, err: &mut err, colour });
            (status.ok(), String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
        }

        fn edit(&self, from: &str, to: &str) {
            let text = fs::read_to_string(self.run.log_path()).unwrap();
            fs::write(self.run.log_path(), text.replacen(from, to, 1)).unwrap();
        }
    }

    #[test]
    fn the_trail_reads_at_a_glance() {
        let world = world();
        let expected = format!(
            "run      {}\n\
             result   exit 0 after 2.310 s, 1 denied\n\
             in       /work\n\
             command  sh -c 'echo \\u{{1b}}[2J'\n\
             policy   default.yaml (sha256 0123456789ab)\n\
             started  1970-01-01 00:00:00 UTC, agentbox 0.1.0\n    \
             0.120s allow write    /work/a  python3[5]\n    \
             0.120s DENY  write    /etc/\\u{{1b}}]0;owned\\u{{7}}\\nhosts  EACCES  by default.yaml filesystem  python3[5]\n    \
             0.000s note  hooks\\r!\n",
            world.run.id()
        );
        let (status, out, err) = world.log(&[]);
        assert_eq!((status, err.as_str()), (Some(FINE), ""));
        let trail: Vec<&str> = out.lines().collect();
        assert_eq!(trail[..trail.len() - 1], expected.lines().collect::<Vec<_>>());
        assert!(trail.last().unwrap().ends_with("end   exit 0; 0 decisions, 0 denied, 5 records"), "{out}");
    }

    #[test]
    fn colours_are_the_only_escapes_in_a_trail() {
        let (_, plain, _) = world().log(&[]);
        assert!(!plain.chars().any(|c| c.is_control() && c != '\n'));
        let (_, coloured, _) = world().log_in(&[], true);
        assert!(coloured.contains("\x1b[31mDENY \x1b[0m") && !coloured.contains("\x1b]"));
    }

    #[test]
    fn only_denials_are_shown_when_asked_for() {
        let world = world();
        let (status, out, _) = world.log(&["--denied"]);
        assert_eq!(status, Some(FINE));
        assert!(out.contains("DENY ") && !out.contains("/work/a") && !out.contains("hooks"), "{out}");
        let (_, raw, _) = world.log(&["--denied", "--json"]);
        assert_eq!(raw.lines().count(), 1);
        let record: Value = serde_json::from_str(&raw).unwrap();
        assert_eq!((&record["seq"], &record["verdict"]), (&3.into(), &"deny".into()));
    }

    #[test]
    fn raw_records_are_the_log_itself() {
        let world = world();
        let (_, raw, _) = world.log(&["--json"]);
        assert_eq!(raw, fs::read_to_string(world.run.log_path()).unwrap());
    }

    #[test]
    fn a_whole_log_is_proven_and_an_edited_one_is_not() {
        let world = world();
        let head = world.about.head.clone().unwrap();
        let (status, out, _) = world.log(&["verify"]);
        assert_eq!(status, Some(FINE));
        assert!(
            out.contains("whole, 5 records") && out.contains(&head.hash) && out.contains("as in run.json"),
            "{out}"
        );

        let copy = world.state.path().join("copy.jsonl");
        fs::copy(world.run.log_path(), &copy).unwrap();
        let (status, out, _) = world.log(&["verify", copy.to_str().unwrap()]);
        assert_eq!(status, Some(FINE));
        assert!(out.contains("as in run.json"), "a copy answers for its run: {out}");

        world.edit("/work/a", "/work/b");
        let (status, out, _) = world.log(&["verify"]);
        assert_eq!(status, Some(BROKEN));
        assert!(out.starts_with("BROKEN ") && out.contains("line 2: changed"), "{out}");
        let (status, out, err) = world.log(&[]);
        assert_eq!(status, Some(BROKEN));
        assert!(err.contains("line 2: changed") && out.contains("DENY"), "{err}{out}");
    }

    #[test]
    fn a_corrupt_line_is_reported_and_the_rest_is_printed() {
        let world = world();
        world.edit("{\"v\":1,\"seq\":2", "{\"v\":1,\x1b\"seq\":2");
        let (status, out, err) = world.log(&[]);
        assert_eq!(status, Some(BROKEN));
        assert!(err.contains("line 2: not a record") && !err.contains('\x1b'), "{err}");
        assert!(out.contains("DENY") && out.contains("note"));
    }

    #[test]
    fn a_log_without_an_end_says_so() {
        let world = world();
        let text = fs::read_to_string(world.run.log_path()).unwrap();
        let cut: String = text.lines().take(3).map(|line| format!("{line}\n")).collect();
        fs::write(world.run.log_path(), cut).unwrap();
        let about = RunFile { result: None, head: None, ended: None, ..world.about.clone() };
        world.run.write(world.run.open_next().unwrap(), &about).unwrap();
        let (status, out, _) = world.log(&["verify"]);
        assert_eq!(status, Some(BROKEN));
        assert!(out.contains("no end record: cut off"), "{out}");
        let (status, out, _) = world.log(&[]);
        assert_eq!(status, Some(FINE));
        assert!(out.ends_with("was removed)\n"), "{out}");
        let (_, out, _) = world.log(&["list"]);
        assert!(out.contains("cut off"), "{out}");
        let lock = fs::File::options().append(true).open(world.run.log_path()).unwrap();
        lock.lock().unwrap();
        assert!(world.log(&["list"]).1.contains("running"));
        assert!(world.log(&["verify"]).1.contains("still running"));
        (&lock).write_all(b"{\"v\":1,\"se").unwrap();
        let (status, out, err) = world.log(&[]);
        assert_eq!((status, err.as_str()), (Some(FINE), ""), "a line on its way to the file is no fault");
        assert!(out.contains("still running") && world.log(&["verify"]).1.contains("still running"));
        drop(lock);
        assert!(world.log(&["verify"]).1.contains("line 4: cut off in the middle"));
    }

    #[test]
    fn runs_are_listed_newest_first() {
        let world = world();
        let newer = RunDir::choose(world.state.path(), SystemTime::UNIX_EPOCH + Duration::from_secs(9));
        newer.make().unwrap();
        let (status, out, _) = world.log(&["list"]);
        assert_eq!(status, Some(FINE));
        let lines: Vec<&str> = out.lines().collect();
        assert!(lines[0].starts_with(newer.id().as_str()) && lines[0].contains("cannot be read"), "{out}");
        assert!(lines[1].contains("exit 0") && lines[1].contains("1 denied") && lines[1].contains("sh -c"), "{out}");
        assert!(!out.contains('\x1b'));
        let listed: Value = serde_json::from_str(&world.log(&["list", "--json"]).1).unwrap();
        assert_eq!(listed[1]["state"], "exit 0");
    }

    #[test]
    fn a_run_that_is_not_there_is_an_error() {
        let world = world();
        assert_eq!(world.log(&["nothing"]).0, None);
        assert_eq!(world.log(&["verify", "./nothing"]).0, None);
        fs::remove_file(world.run.log_path()).unwrap();
        assert_eq!(world.log(&[]).0, None);
    }

    #[test]
    fn a_reader_that_has_seen_enough_is_no_failure() {
        let closed: anyhow::Error = io::Error::from(io::ErrorKind::BrokenPipe).into();
        assert!(is_broken_pipe(&closed.context("cannot write the output")));
        assert!(!is_broken_pipe(&anyhow::anyhow!("other")));
    }

    #[test]
    fn colour_is_for_terminals_that_want_it() {
        let wants = |vars: &[(&str, &str)]| {
            wants_colour(|name| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into()))
        };
        assert!(wants(&[("TERM", "xterm")]) && wants(&[("TERM", "xterm"), ("NO_COLOR", "")]));
        assert!(!wants(&[("TERM", "xterm"), ("NO_COLOR", "1")]) && !wants(&[("TERM", "dumb")]) && !wants(&[]));
    }
}
