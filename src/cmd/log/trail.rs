//! The trail of a run for people: a line a record, times counted from the start.

use std::io::{self, Write};
use std::path::PathBuf;

use jiff::{SignedDuration, Timestamp};

use super::Output;
use crate::audit::actions::{Claimed, Closed, Opened, SESSION, words};
use crate::audit::brief::{Brief, Sight, Who};
use crate::audit::record::{End, RunResult, Start};
use crate::audit::report::{describe_destination, describe_sum};
use crate::audit::run::RunFile;
use crate::audit::text::{command_line, digests, printable, shorten, target};
use crate::event::{Access, Claim, Effect};

/// The longest target on a line of the trail, in characters.
const WIDTH: usize = 160;

/// How text is told apart on a terminal.
#[derive(Debug, Clone, Copy)]
pub struct Paint {
    /// Whether the terminal understands colours.
    pub colour: bool,
}

pub const BOLD: &str = "1";
pub const DIM: &str = "2";
pub const RED: &str = "31";
pub const GREEN: &str = "32";
pub const YELLOW: &str = "33";
pub const CYAN: &str = "36";

impl Paint {
    /// Colours text that is safe to print.
    pub fn paint(self, colour: &str, text: &str) -> String {
        match self.colour {
            true => format!("\x1b[{colour}m{text}\x1b[0m"),
            false => text.to_string(),
        }
    }
}

/// Counts time from the start of a run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Clock {
    started: Option<Timestamp>,
}

impl Clock {
    /// Starts at the time of a start record.
    pub fn from(start: &Start) -> Self {
        Self { started: start.time.parse().ok() }
    }

    /// How long after the start `time` is.
    pub fn since(self, time: &str) -> Option<SignedDuration> {
        Some(time.parse::<Timestamp>().ok()?.duration_since(self.started?))
    }

    /// The same, in a column's width: `   12.345s`, `1h02m03.4s`.
    pub fn column(self, time: &str) -> String {
        format!("{:>10}", self.since(time).map_or_else(|| "?".into(), span))
    }
}

/// Writes a duration: `0.120s`, `75.200s`, `1h02m03.4s`.
pub fn span(time: SignedDuration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 3600.0 {
        return format!("{seconds:.3}s");
    }
    // In tenths, so that 59.96 s do not become 60.0.
    let tenths = (seconds * 10.0).round() as u64;
    format!("{}h{:02}m{:02}.{}s", tenths / 36_000, tenths / 600 % 60, tenths / 10 % 60, tenths % 10)
}

/// Prints records for people.
#[derive(Debug)]
pub struct Trail {
    clock: Clock,
    paint: Paint,
    /// Where the run started, where that is known.
    workdir: Option<PathBuf>,
}

impl Trail {
    /// A trail for a terminal, of a run that started in `workdir`: what is asked for from there is not said twice.
    pub fn new(output: &Output<'_>, workdir: Option<PathBuf>) -> Self {
        Self { clock: Clock::default(), paint: Paint { colour: output.colour }, workdir }
    }

    /// Prints what `run.json` says of the run.
    pub fn about(&self, about: &RunFile, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{} {}", self.title("run"), about.id)?;
        if let Some(result) = &about.result {
            let denied = about.denied.unwrap_or_default();
            let took = elapsed(&about.started, about.ended.as_deref()).unwrap_or_default();
            writeln!(out, "{} {}{took}, {denied} denied", self.title("result"), ending(result))?;
        }
        writeln!(out, "{} {}", self.title("in"), printable(&about.cwd))
    }

    /// Prints a record on a line of its own.
    pub fn record(&mut self, seq: Option<u64>, record: &Sight<'_>, out: &mut dyn Write) -> io::Result<()> {
        if let Sight::Start(start) = record {
            return self.start(start, out);
        }
        let number = seq.map_or_else(|| "?".into(), |seq| seq.to_string());
        write!(out, "{} {}", self.paint.paint(DIM, &format!("{number:>6}")), self.clock.column(record.time()))?;
        match record {
            Sight::Start(_) => Ok(()),
            Sight::Decision(brief) => self.decision(brief, out),
            Sight::Note(note) => self.about_all("note", &note.text, out),
            Sight::Opened(opened) => self.opened(opened, out),
            Sight::Claimed(claimed) => self.claimed(claimed, out),
            Sight::Closed(closed) => self.closed(closed, out),
            Sight::Head(head) => self.about_all("head", &format!("all before it signed by {}", head.key.short()), out),
            Sight::End(end) => self.end(end, out),
            Sight::Other(kind) => self.about_all("?", &format!("{kind} (a record of a newer agentbox)"), out),
        }
    }

    /// A line that is no decision.
    fn about_all(&self, word: &str, text: &str, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, " {} {}", self.paint.paint(CYAN, &format!("{word:<5}")), printable(text))
    }

    fn title(&self, title: &str) -> String {
        self.paint.paint(BOLD, &format!("{title:<8}"))
    }

    fn start(&mut self, start: &Start, out: &mut dyn Write) -> io::Result<()> {
        self.clock = Clock::from(start);
        let digest: String = start.policy.digest.chars().take(12).collect();
        let time = start.time.get(..19).unwrap_or(&start.time).replace('T', " ");
        let policy = format!("{} (sha256 {digest})", start.policy.name);
        let started = format!("{time} UTC, agentbox {}", start.agentbox);
        for (title, text) in [("command", command(&start.command)), ("policy", policy), ("started", started)] {
            writeln!(out, "{} {}", self.title(title), printable(&text))?;
        }
        Ok(())
    }

    fn decision(&self, brief: &Brief<'_>, out: &mut dyn Write) -> io::Result<()> {
        let (colour, mark) = mark(brief);
        write!(out, " {} {:<8} {}", self.paint.paint(colour, mark), brief.op.name(), printable(&aim(brief)))?;
        if let Some(asked) = brief.asked.as_ref().filter(|asked| !self.is_plain(brief, asked)) {
            write!(out, " (as {})", printable(&shorten(asked, WIDTH)))?;
        }
        if let Some(digest) = brief.access().as_ref().and_then(digests) {
            write!(out, " ({})", printable(&shorten(&digest, WIDTH)))?;
        }
        if let Some(stake) = brief.stake() {
            write!(out, " ({})", printable(&shorten(&stake, WIDTH)))?;
        }
        if brief.outcome != "ok" {
            write!(out, "  {}", self.paint.paint(colour, &printable(&brief.outcome)))?;
        }
        if brief.is_refusal() {
            write!(out, "  by {}", printable(&brief.rule))?;
        }
        if let Some(message) = &brief.message {
            write!(out, ": {}", printable(message))?;
        }
        let weight = brief.weight();
        if !weight.is_empty() {
            write!(out, "  {}", self.paint.paint(YELLOW, &printable(&weight)))?;
        }
        writeln!(out, "  {}", self.paint.paint(DIM, &process(&brief.process)))
    }

    /// Whether the target as it was written is the target itself, from where the run started.
    fn is_plain(&self, brief: &Brief<'_>, asked: &str) -> bool {
        let Some(workdir) = &self.workdir else { return false };
        matches!(brief.access(), Some(Access::File { at, .. }) if at.path.as_path() == workdir.join(asked))
    }

    fn opened(&self, opened: &Opened, out: &mut dyn Write) -> io::Result<()> {
        let inside = opened.parent.as_deref().filter(|parent| *parent != SESSION);
        let inside = inside.map(|parent| format!("  in {parent}")).unwrap_or_default();
        let text = format!("{:<8} {}{inside}{}", opened.action, command(&opened.command), said(opened.claim.as_ref()));
        self.about_all("BEGIN", &text, out)
    }

    fn claimed(&self, claimed: &Claimed, out: &mut dyn Write) -> io::Result<()> {
        let text = format!("{:<8} {}  (unverified)", claimed.action, shorten(&words(&claimed.claim), WIDTH));
        self.about_all("says", &text, out)
    }

    fn closed(&self, closed: &Closed, out: &mut dyn Write) -> io::Result<()> {
        let did = describe_sum(&closed.sum);
        self.about_all("END", &format!("{:<8} {did}", closed.action), out)
    }

    fn end(&self, end: &End, out: &mut dyn Write) -> io::Result<()> {
        write!(out, " {} {}", self.paint.paint(BOLD, "end  "), ending(&end.result))?;
        let refused: u64 = end.counts.values().map(|count| count.ask + count.deny + count.killed).sum();
        let all: u64 = end.counts.values().map(|count| count.ask + count.deny + count.allow).sum();
        let refused = refused.saturating_sub(end.let_through);
        write!(out, "; {all} decisions, {refused} denied, {} records", end.recorded)?;
        if end.let_through > 0 {
            write!(out, ", {} would have been denied", end.let_through)?;
        }
        match end.dropped {
            0 => writeln!(out)?,
            dropped => writeln!(out, ", {}", self.paint.paint(RED, &format!("{dropped} records lost")))?,
        }
        for destination in &end.destinations {
            let told = printable(&describe_destination(destination));
            writeln!(out, "{:>17} {} {told}", "", self.paint.paint(CYAN, "net  "))?;
        }
        Ok(())
    }
}

/// What was asked for, in few words; not safe to print yet.
pub fn aim(brief: &Brief<'_>) -> String {
    let aim = brief.access().map_or_else(|| brief.target.get().to_string(), |access| target(&access));
    shorten(&aim, WIDTH)
}

/// The colour and the word for how a decision came out.
pub fn mark(brief: &Brief<'_>) -> (&'static str, &'static str) {
    match brief.verdict {
        Effect::Ask | Effect::Deny if brief.let_through() => (YELLOW, "WOULD"),
        Effect::Deny => (RED, "DENY "),
        Effect::Ask if brief.denied() => (RED, "DENY "),
        Effect::Allow if brief.denied() => (RED, "KILL "),
        Effect::Ask | Effect::Allow if brief.done() => (GREEN, "allow"),
        Effect::Ask | Effect::Allow => (YELLOW, "allow"),
    }
}

/// Names a process by its program and number.
pub fn process(who: &Who<'_>) -> String {
    // What no process of the box asked for: a visit from outside.
    if who.pid == 0 {
        return "outside".into();
    }
    format!("{}[{}]", printable(short_name(&who.exe)), who.pid)
}

/// The last name of a program's path.
pub fn short_name(exe: &str) -> &str {
    match exe.rsplit('/').next().unwrap_or_default() {
        "" => "?",
        name => name,
    }
}

fn said(claim: Option<&Claim>) -> String {
    claim.map(|claim| format!("  says: {} (unverified)", shorten(&words(claim), WIDTH))).unwrap_or_default()
}

/// Says how a command ended.
pub fn ending(result: &RunResult) -> String {
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

/// A command line as a shell would take it; not safe to print yet.
pub fn command(words: &[String]) -> String {
    shorten(&command_line(words), 4 * WIDTH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_fit_their_column() {
        for (millis, said) in [
            (0, "0.000s"),
            (12_345, "12.345s"),
            (3_599_999, "3599.999s"),
            (3_600_000, "1h00m00.0s"),
            (3_659_960, "1h01m00.0s"),
            (86_399_900, "23h59m59.9s"),
            (-1_500, "-1.500s"),
        ] {
            assert_eq!(span(SignedDuration::from_millis(millis)), said);
        }
    }
}
