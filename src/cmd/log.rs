//! `agentbox log`: prints, searches, sums up and follows a run's trail, lists runs, proves a log's chain.
//!
//! Main process, no box. Every way to read a log goes through [`scan`]: line by line, in constant memory, the chain
//! checked on the way. Everything a record holds may come from inside a box, so nothing is printed unescaped except
//! the raw lines of `--json`, where JSON's own escapes hold.

pub(super) mod follow;
mod key;
mod question;
mod show;
mod stats;
mod trail;
mod tree;
mod verify;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, IsTerminal, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::{Value, json};

use crate::audit::brief::Sight;
use crate::audit::query::Query;
use crate::audit::read::{self, Fault, Located, Reader, Seen};
use crate::audit::record::RunResult;
use crate::audit::run::{self, Found, RunFile, RunId};
use crate::audit::text::{printable, shorten};
use crate::cli::{Log, LogCommand, LogFilter, LogPrint};

use trail::{Trail, command, ending};
pub(super) use verify::expected;

/// All is well.
const FINE: u8 = 0;
/// The log is broken or unreadable in places.
const BROKEN: u8 = 1;

/// Where output goes and how.
pub struct Output<'a> {
    /// What was asked for.
    pub out: &'a mut dyn Write,
    /// What is wrong with it.
    pub err: &'a mut dyn Write,
    /// Whether `out` understands colours.
    pub colour: bool,
}

/// Where runs are kept, and whose they are.
pub struct Keeper {
    /// agentbox's state directory.
    pub state: PathBuf,
    /// What `~` stands for in a pattern.
    pub home: Option<PathBuf>,
}

/// Runs `agentbox log` on the real terminal and environment; gives the exit status.
pub fn log(args: &Log) -> anyhow::Result<u8> {
    let lookup = |name: &str| std::env::var_os(name);
    let keeper = Keeper { state: run::state_dir(lookup)?, home: lookup("HOME").map(PathBuf::from) };
    let stdout = io::stdout().lock();
    let colour = stdout.is_terminal() && wants_colour(lookup);
    let mut out = BufWriter::with_capacity(64 * 1024, stdout);
    let status = log_to(&keeper, args, &mut Output { out: &mut out, err: &mut io::stderr().lock(), colour });
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

/// Runs `agentbox log` on the runs of `keeper`; gives the exit status.
pub fn log_to(keeper: &Keeper, args: &Log, output: &mut Output<'_>) -> anyhow::Result<u8> {
    let find = |run: &Option<String>| run::find(&keeper.state, run.as_deref());
    let ask = |found: &Found, filter: &LogFilter| question::query(filter, found, keeper.home.as_deref());
    match &args.command {
        None if args.follow => follow::follow(keeper, args.run.as_deref(), &args.filter, &args.print, output),
        Some(LogCommand::Follow { run, filter, print }) => {
            follow::follow(keeper, run.as_deref(), filter, print, output)
        }
        None => {
            let found = find(&args.run)?;
            let query = ask(&found, &args.filter)?;
            let status = warn_about_run(&found, output)?;
            let printed = print(&found, Reader::open(&found.log)?, &query, &args.print, output)?;
            Ok(status.max(printed.status))
        }
        Some(LogCommand::Show { record, json }) => show::show(&keeper.state, record, *json, output),
        Some(LogCommand::Tree { run, filter, json }) => {
            let found = find(run)?;
            tree::tree(&found, &ask(&found, filter)?, *json, output)
        }
        Some(LogCommand::Stats { run, filter, json }) => {
            let found = find(run)?;
            stats::stats(&found, &ask(&found, filter)?, *json, output)
        }
        Some(LogCommand::Verify { run, key }) => verify::verify(&find(run)?, key.as_deref(), output),
        Some(LogCommand::Key { file, pem }) => key::key(&keeper.state, file.as_deref(), *pem, output),
        Some(LogCommand::List { json }) => list(&keeper.state, *json, output),
        Some(LogCommand::Export(export)) => super::export::export(&keeper.state, export, output),
    }
}

/// A log as it can be read: a file, or the tail of one that grows.
pub(super) trait Source: BufRead {
    /// Whether the next line would have to be waited for.
    fn keeps_waiting(&self) -> bool;
}

impl Source for BufReader<File> {
    fn keeps_waiting(&self) -> bool {
        false
    }
}

/// Why a record is handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    /// It is what the query asks for.
    Asked,
    /// It is of a kind that is wanted in any case.
    Beside,
}

/// Reads a log, says what is wrong with it, and hands out each record that fits or is of a kind in `beside`.
pub(super) fn scan<S: Source>(
    reader: &mut Reader<S>,
    found: &Found,
    (query, beside): (&Query, &[&str]),
    output: &mut Output<'_>,
    mut take: impl FnMut(&Seen<'_>, &Sight<'_>, Fit, &mut Output<'_>) -> anyhow::Result<ControlFlow<()>>,
) -> anyhow::Result<u8> {
    let mut status = FINE;
    loop {
        if reader.input().keeps_waiting() {
            output.out.flush()?;
        }
        let Some(line) = reader.next_seen()? else { return Ok(status) };
        for fault in line.faults.iter().filter(|fault| !being_written(&found.log, fault)) {
            status = BROKEN;
            writeln!(output.err, "agentbox: {}", located(&found.log, fault))?;
        }
        let Some(kind) = line.kind else { continue };
        let beside = beside.contains(&kind);
        if !beside && !query.may_fit(&line) {
            continue;
        }
        let sight = match Sight::of(kind, line.raw) {
            Ok(sight) => sight,
            Err(error) => {
                status = BROKEN;
                let fault = Located { line: line.number, fault: Fault::Foreign(error.to_string()) };
                writeln!(output.err, "agentbox: {}", located(&found.log, &fault))?;
                continue;
            }
        };
        let fit = if query.fits(&sight) { Fit::Asked } else { Fit::Beside };
        if (fit == Fit::Asked || beside) && take(&line, &sight, fit, output)?.is_break() {
            return Ok(status);
        }
    }
}

/// What came of printing a log.
struct Printed {
    status: u8,
    /// It was read as far as it goes, not only as far as was asked for.
    to_its_end: bool,
    /// The record that ends a log was seen.
    ended: bool,
}

fn print<S: Source>(
    found: &Found,
    mut reader: Reader<S>,
    query: &Query,
    how: &LogPrint,
    output: &mut Output<'_>,
) -> anyhow::Result<Printed> {
    let mut trail = Trail::new(output, question::workdir(found));
    if !how.json
        && let Ok(Some(about)) = &found.about
    {
        trail.about(about, output.out)?;
    }
    let (mut shown, mut to_its_end) = (0, true);
    let beside: &[&str] = if how.json { &[] } else { &["start"] };
    let status = scan(&mut reader, found, (query, beside), output, |line, sight, fit, output| {
        match how.json {
            true => output.out.write_all(line.raw).and_then(|()| output.out.write_all(b"\n"))?,
            false => trail.record(line.seq, sight, output.out)?,
        }
        // For people the start is the head of the page.
        let counts = fit == Fit::Asked && (how.json || !matches!(sight, Sight::Start(_)));
        shown += u64::from(counts);
        to_its_end = how.limit.is_none_or(|limit| shown < limit);
        Ok(if to_its_end { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })?;
    let ended = reader.ended();
    if !how.json {
        let out = &mut output.out;
        match (to_its_end, query.takes_all()) {
            (false, _) if !ended => writeln!(out, "stopped after {shown} records, as --limit says")?,
            (true, false) => writeln!(out, "{shown} of {} records", reader.number())?,
            _ => {}
        }
        if to_its_end && !ended {
            writeln!(out, "{}", unfinished(&found.log))?;
        }
    }
    Ok(Printed { status, to_its_end, ended })
}

/// A running writer's last line may be seen half written: that is no fault.
pub(super) fn being_written(log: &Path, found: &Located) -> bool {
    found.fault == Fault::Torn && read::still_written(log)
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

/// Says why no record ends the log.
pub(super) fn unfinished(log: &Path) -> &'static str {
    match read::still_written(log) {
        true => "no end record: still running",
        false => "no end record: cut off (agentbox was killed, or the end was removed)",
    }
}

/// Prints JSON for people and programs alike.
fn put_json(value: &Value, out: &mut dyn Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value).map_err(io::Error::from)?;
    writeln!(out)
}

fn list(state: &Path, as_json: bool, output: &mut Output<'_>) -> anyhow::Result<u8> {
    let runs = run::list(state)?;
    let dir = |id: &RunId| state.join("runs").join(id.as_str());
    let each = runs.iter().map(|id| (id, run::load(&dir(id)).ok().flatten()));
    if as_json {
        let values: Vec<Value> = each.map(|(id, about)| listed_json(id, about)).collect();
        put_json(&values.into(), output.out)?;
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
    use crate::audit::record::Start;
    use crate::audit::record::{Counts, Decision, Layer, Note, Outcome, PolicyRef, Record};
    use crate::audit::run::RunDir;
    use crate::audit::{Summary, Writer, text};
    use crate::event::Effect;
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
            traceparent: None,
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
            key: None,
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
            let keeper = Keeper { state: self.state.path().into(), home: None };
            let status = log_to(&keeper, &log, &mut Output { out: &mut out, err: &mut err, colour });
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
             started  1970-01-01 00:00:00 UTC, agentbox 0.1.0\n     \
             2     0.120s allow write    /work/a  python3[5]\n     \
             3     0.120s DENY  write    /etc/\\u{{1b}}]0;owned\\u{{7}}\\nhosts  EACCES  by default.yaml filesystem  python3[5]\n     \
             4     0.000s note  hooks\\r!\n",
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
