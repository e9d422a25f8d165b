//! A run as one page for people: HTML that needs nothing but itself, no script and no other file.
//!
//! Main process of `agentbox report`. Pure text from a [`Story`]. Whatever came from the box is hostile: it enters the
//! page through [`Shown`] alone, which writes control characters out and escapes what HTML would act on. The page
//! forbids itself everything but its own style, for the case that something gets through all the same.

mod actions;
mod files;
mod parts;
mod processes;

use std::fmt::{self, Display, Write as _};

use jiff::Timestamp;
use serde_json::Value;

use super::actions::{SESSION, reason_words, tool_words};
use super::detail::{reach_words, reversibility_words};
use super::head::Signed;
use super::read::Chain;
use super::record::{OpCount, RunResult};
use super::report::{counted, size};
use super::run::RunFile;
use super::story::Story;
use super::text::{command_line, printable, quoted, shorten};
use crate::event::{Claim, Effects};

/// What a page begins with: by it a file is known to be one.
pub const MARK: &str = "<!doctype html>\n<!-- agentbox report -->\n";

const STYLE: &str = include_str!("style.css");

/// The longest command that is shown, in characters.
const COMMAND: usize = 2000;

/// What is known of a run besides what its log says.
#[derive(Debug)]
pub struct Facts<'a> {
    /// The run.
    pub run: &'a str,
    /// Its `run.json`.
    pub about: Option<&'a RunFile>,
    /// What the log's chain proves.
    pub chain: &'a Chain,
    /// How far its heads are signed, if they are.
    pub signed: Option<&'a Signed>,
    /// Whether the end was compared with what `run.json` says.
    pub compared: bool,
    /// Whether the run still goes on.
    pub running: bool,
    /// The log's path.
    pub log: &'a str,
}

/// Text from anywhere, as a page can hold it.
struct Shown<'a>(&'a str);

impl Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in printable(self.0).chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// Writes the page.
pub fn page(story: &Story<'_>, facts: &Facts<'_>) -> String {
    let mut html = String::with_capacity(64 * 1024);
    head(&mut html, facts);
    top(&mut html, story, facts);
    asked(&mut html, story, facts);
    claimed(&mut html, story);
    parts::happened(&mut html, story);
    parts::refusals(&mut html, story, facts);
    actions::actions(&mut html, story, facts);
    files::files(&mut html, story);
    parts::network(&mut html, story);
    processes::processes(&mut html, story);
    notes(&mut html, story);
    coverage(&mut html, story, facts);
    record(&mut html, story, facts);
    let _ = writeln!(
        html,
        "<footer><p>Made by agentbox {} from <code>{}</code>. Names and texts from the box are shown with their \
         control characters written out.</p></footer>\n</main>\n</body>\n</html>",
        env!("CARGO_PKG_VERSION"),
        Shown(facts.log)
    );
    html
}

fn head(html: &mut String, facts: &Facts<'_>) {
    let _ = write!(
        html,
        "{MARK}<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; \
         base-uri 'none'; form-action 'none'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<meta name=\"referrer\" content=\"no-referrer\">\n\
         <title>agentbox run {}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n",
        Shown(facts.run)
    );
}

/// What one must know at a glance.
fn top(html: &mut String, story: &Story<'_>, facts: &Facts<'_>) {
    let _ = writeln!(html, "<header>\n<p class=\"over\">agentbox report · run {}</p>", Shown(facts.run));
    let _ = writeln!(html, "<h1><code>{}</code></h1>", Shown(&shorten(&command(story, facts), 120)));
    let _ = writeln!(html, "<p>{}</p>", Shown(&ending(story, facts)));
    let _ = writeln!(html, "<div class=\"badges\">{}</div>", badges(story, facts));
    tiles(html, story);
    gist(html, story, facts);
    html.push_str("</header>\n");
    if let Chain::Broken(fault) = facts.chain {
        let _ = writeln!(
            html,
            "<section class=\"alarm\"><h2>The record was changed</h2><p>Line {} of the log: {}. Do not rely on what \
             follows: what it says may have been put there, and what is missing may have been taken out.</p></section>",
            fault.line,
            Shown(&fault.fault.to_string())
        );
    }
}

fn command(story: &Story<'_>, facts: &Facts<'_>) -> String {
    let words = facts.about.map(|about| &about.command).or(story.start.as_ref().map(|start| &start.command));
    words.map(|words| command_line(words)).unwrap_or_default()
}

fn ending(story: &Story<'_>, facts: &Facts<'_>) -> String {
    let started = story.start.as_ref().and_then(|start| start.time.parse::<Timestamp>().ok());
    let mut text = match (&story.end, facts.running) {
        (Some(end), _) => ended(&end.result),
        (None, true) => "Still running".into(),
        (None, false) => "Did not reach its end: agentbox was killed, or the end of the log was removed".into(),
    };
    if let (Some(start), Some(last)) = (started, story.last) {
        let _ = write!(text, " after {}", seconds(last.duration_since(start).as_secs_f64()));
    }
    if let Some(start) = started {
        let _ = write!(text, ", started {}", day(start));
    }
    text + "."
}

fn ended(result: &RunResult) -> String {
    let mut text = match (result.exit, result.signal) {
        (_, Some(signal)) => format!("Ended by signal {signal}"),
        (Some(0), None) => "Ended well (exit 0)".into(),
        (Some(exit), None) => format!("Ended with exit {exit}"),
        (None, None) => "Did not run".into(),
    };
    if result.timed_out {
        text.push_str(", out of time,");
    }
    if let Some(error) = &result.error {
        let _ = write!(text, " ({})", shorten(error, 200));
    }
    text
}

fn badges(story: &Story<'_>, facts: &Facts<'_>) -> String {
    let mut badges = String::new();
    let mut put = |class: &str, text: &str| {
        let _ = write!(badges, "<span class=\"badge {class}\">{}</span>", Shown(text));
    };
    match facts.chain {
        Chain::Verified { dropped: 0, .. } => put("good", "record verified"),
        Chain::Verified { .. } => put("warn", "record verified, some lost"),
        Chain::Unfinished { .. } => put("warn", "record not finished"),
        Chain::Broken(_) => put("bad", "record broken"),
    }
    match (refused(story), let_through(story)) {
        (0, 0) => put("good", "nothing refused"),
        (count, 0) => put("warn", &format!("{} refused", number(count))),
        (_, count) => put("warn", &format!("mode audit: {} would have been refused", number(count))),
    }
    match &story.worst {
        Some((tier, _)) => put(tier_class(*tier), &format!("highest tier {tier} of 10")),
        None => put("plain", "tiers not recorded"),
    }
    match weak_layers(story, facts) {
        0 => put("good", "all layers held"),
        1 => put("warn", "one layer not in full"),
        count => put("warn", &format!("{count} layers not in full")),
    }
    badges
}

/// How a tier is coloured: what is allowed, asked and denied unless a policy says otherwise.
fn tier_class(tier: u8) -> &'static str {
    match tier {
        ..=4 => "good",
        5..=8 => "warn",
        _ => "bad",
    }
}

/// All refusals, recorded or not, that held.
fn refused(story: &Story<'_>) -> u64 {
    match &story.end {
        Some(end) => sum(end.counts.values().map(OpCount::refused)).saturating_sub(end.let_through),
        None => story.counts.values().map(|(_, denied)| denied).sum(),
    }
}

/// All that mode audit let through against the policy.
fn let_through(story: &Story<'_>) -> u64 {
    story.end.as_ref().map_or(0, |end| end.let_through)
}

fn tiles(html: &mut String, story: &Story<'_>) {
    let total = total(story);
    let files = &total.files;
    let reached = || story.end.iter().flat_map(|end| &end.destinations);
    let (out, into) = (sum(reached().filter_map(|to| to.bytes_out)), sum(reached().filter_map(|to| to.bytes_in)));
    html.push_str("<ul class=\"tiles\">");
    let mut tile = |count: String, words: &str, hot: bool| {
        let _ = write!(html, "<li{}><b>{count}</b> {words}</li>", if hot { " class=\"hot\"" } else { "" });
    };
    let mut always =
        |count: u64, one: &str, more: &str| tile(number(count), if count == 1 { one } else { more }, false);
    always(total.programs, "program started", "programs started");
    always(files.created, "file made", "files made");
    always(sum([files.changed, files.replaced]), "file changed", "files changed");
    always(files.deleted, "file removed", "files removed");
    always(destinations(story), "destination reached", "destinations reached");
    tile(size(out), "sent out", false);
    tile(size(into), "taken in", false);
    let grave = [
        (refused(story), "refusal", "refusals"),
        (files.unheld, "file whose content is lost for good", "files whose content is lost for good"),
        (sum(total.secrets.values().copied()), "read of a secret", "reads of secrets"),
        (total.tainted_connections, "connection after reading a secret", "connections after reading a secret"),
        (total.persistence, "change to what runs later", "changes to what runs later"),
        (total.authority, "call on a service that acts for you", "calls on services that act for you"),
        (total.signals, "signal to another action", "signals to other actions"),
    ];
    for (count, one, more) in grave.into_iter().filter(|(count, ..)| *count > 0) {
        tile(number(count), if count == 1 { one } else { more }, true);
    }
    html.push_str("</ul>\n");
}

/// How many parties outside were reached.
fn destinations(story: &Story<'_>) -> u64 {
    let reached = match &story.end {
        Some(end) => end.destinations.iter().filter(|to| to.allowed > 0).count(),
        None => story.reached.iter().filter(|(_, reached)| reached.allowed > 0).count(),
    };
    reached as u64
}

/// The weightiest action by name: what one would ask about first.
fn gist(html: &mut String, story: &Story<'_>, facts: &Facts<'_>) {
    let Some((tier, id)) = &story.worst else { return };
    let Some(action) = story.actions.get(id).or_else(|| story.grave.get(id)) else { return };
    let listed = story.actions.iter().chain(story.grave.iter());
    let count = listed.filter(|(id, _)| *id != SESSION).count();
    let _ = writeln!(
        html,
        "<p class=\"gist\">{}{}. The weightiest has tier {tier} of 10: <code>{}</code> {}.</p>",
        counted(count as u64, "action", "actions"),
        if story.actions.more > 0 { " and more" } else { "" },
        Shown(&shorten(&actions::title(id, action, story, facts), 120)),
        Shown(&rated(action.reach.as_deref(), action.reversibility.as_deref()))
    );
}

/// What the whole run came to: as its end says, or as it was counted here.
fn total<'s>(story: &'s Story<'_>) -> &'s Effects {
    story.effects.as_ref().unwrap_or(&story.seen)
}

fn asked(html: &mut String, story: &Story<'_>, facts: &Facts<'_>) {
    html.push_str("<section id=\"asked\"><h2>What was asked</h2>\n");
    let _ = writeln!(html, "<pre>{}</pre>\n<dl>", Shown(&shorten(&command(story, facts), COMMAND)));
    if let Some(about) = facts.about {
        fact(html, "in", &format!("<code>{}</code>", Shown(&shorten(&about.cwd, 600))));
    }
    let policy = facts.about.map(|about| &about.policy).or(story.start.as_ref().map(|start| &start.policy));
    if let Some(policy) = policy {
        let sources = facts.about.map(|about| about.sources.join(", ")).filter(|sources| *sources != policy.name);
        let sources = sources.map(|sources| format!(" · from {}", Shown(&shorten(&sources, 600)))).unwrap_or_default();
        fact(html, "policy", &format!("<code>{}</code>{sources}", Shown(&shorten(&policy.name, 600))));
        fact(html, "its digest", &format!("<code>sha256 {}</code>", Shown(&shorten(&policy.digest, 100))));
    }
    if let Some(start) = &story.start {
        fact(html, "agentbox", &Shown(&shorten(&start.agentbox, 60)).to_string());
    }
    html.push_str("</dl></section>\n");
}

/// A line of a list of facts; `html` of the fact is safe already.
fn fact(html: &mut String, name: &str, safe: &str) {
    let _ = writeln!(html, "<div><dt>{name}</dt><dd>{safe}</dd></div>");
}

fn claimed(html: &mut String, story: &Story<'_>) {
    html.push_str("<section id=\"claimed\"><h2>What was claimed <span class=\"badge warn\">unverified</span></h2>\n");
    if story.claims.is_empty() {
        html.push_str(
            "<p class=\"soft\">Nothing: no reasons were handed to agentbox. What follows was observed.</p>\n",
        );
    } else {
        html.push_str(
            "<p class=\"soft\">What the agent said of itself. Nobody checked it; what follows was observed.</p>\n",
        );
        let rows = story.claims.iter().map(|(action, said)| format!("<code>{}</code>{}", Shown(action), claim(said)));
        parts::rows(html, rows, 8, story.more_claims, "claims");
    }
    html.push_str("</section>\n");
}

/// What an agent says, boxed.
fn claim(claim: &Claim) -> String {
    let mut text = String::from("<div class=\"claim\">");
    let params = match &claim.params {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(text.clone()),
        Some(other) => Some(other.to_string()),
    };
    let parts = [
        ("tool", &claim.tool),
        ("with", &params),
        ("because", &claim.reason),
        ("as part of", &claim.plan),
        ("note", &claim.note),
        ("outcome", &claim.outcome),
    ];
    for (name, said) in parts {
        if let Some(said) = said {
            let _ = write!(text, "<div><span class=\"soft\">{name}</span> {}</div>", Shown(&shorten(said, 600)));
        }
    }
    text + "</div>"
}

/// The same in one line.
fn claim_words(claim: &Claim) -> String {
    let tool = Some(tool_words(claim)).filter(|tool| !tool.is_empty());
    tool.into_iter().chain(reason_words(claim).map(str::to_string)).collect::<Vec<_>>().join(": ")
}

fn notes(html: &mut String, story: &Story<'_>) {
    if story.notes.is_empty() {
        return;
    }
    html.push_str("<section id=\"notes\"><h2>Worth knowing</h2>\n");
    parts::rows(html, story.notes.iter().map(|note| Shown(note).to_string()), 20, story.more_notes, "notes");
    html.push_str("</section>\n");
}

fn layers<'a>(story: &'a Story<'_>, facts: &'a Facts<'_>) -> impl Iterator<Item = &'a Value> {
    let coverage = facts.about.map(|about| &about.coverage).or(story.start.as_ref().map(|start| &start.coverage));
    coverage.and_then(Value::as_array).into_iter().flatten().take(32)
}

fn weak_layers(story: &Story<'_>, facts: &Facts<'_>) -> usize {
    layers(story, facts).filter(|layer| matches!(layer["state"].as_str(), Some("partial" | "absent"))).count()
}

fn coverage(html: &mut String, story: &Story<'_>, facts: &Facts<'_>) {
    html.push_str("<section id=\"coverage\"><h2>What held the box</h2>\n");
    let rows: Vec<String> = layers(story, facts).map(layer).collect();
    match rows.is_empty() {
        true => html.push_str("<p class=\"soft\">The record does not say.</p>\n"),
        false => parts::rows(html, rows.into_iter(), 32, 0, "layers"),
    }
    html.push_str("</section>\n");
}

fn layer(layer: &Value) -> String {
    let state = layer["state"].as_str().unwrap_or("unknown");
    let class = match state {
        "enforced" => "good",
        "not_asked" => "plain",
        _ => "warn",
    };
    let part = |name: &str| layer[name].as_str().map(|text| shorten(text, 600));
    let said: Vec<String> = ["what", "why", "fix"].iter().filter_map(|name| part(name)).collect();
    format!(
        "<div class=\"split\"><span><b>{}</b> <span class=\"how\">{}</span></span><span class=\"badge \
         {class}\">{}</span></div>",
        Shown(&part("layer").unwrap_or_default()),
        Shown(&said.join("; ")),
        Shown(&state.replace('_', " "))
    )
}

fn record(html: &mut String, story: &Story<'_>, facts: &Facts<'_>) {
    html.push_str("<section id=\"record\"><h2>The record</h2>\n");
    let compared = match facts.compared {
        true => "its end is the one that run.json names",
        false => "no run.json says how it must end, so a cut at the end would not show",
    };
    let said = match facts.chain {
        Chain::Verified { records, dropped: 0, .. } => {
            format!("Verified: {records} records, none changed, removed, added or moved; {compared}.")
        }
        Chain::Verified { records, dropped, .. } => format!(
            "Verified: {records} records, none changed, removed, added or moved; {compared}. But the run itself says \
             that {dropped} more could not be written."
        ),
        Chain::Unfinished { records, .. } => {
            format!("{records} records, whole as far as they go; nothing ends them.")
        }
        Chain::Broken(fault) => format!("Broken at line {}: {}.", fault.line, fault.fault),
    };
    let _ = writeln!(html, "<p>{}</p>\n<dl>", Shown(&said));
    if let Chain::Verified { head, .. } | Chain::Unfinished { head, .. } = facts.chain {
        fact(html, "last record", &format!("{} <code>{}</code>", head.seq, Shown(&head.hash)));
        fact(html, "signed", &signed(facts.signed));
    }
    let quoted = quoted(facts.run);
    let run = Shown(&quoted);
    fact(html, "check it again", &format!("<code>agentbox log verify {run}</code>"));
    fact(html, "read it whole", &format!("<code>agentbox log {run}</code>"));
    html.push_str("</dl>\n");
    if story.faults > 1 {
        let _ = writeln!(html, "<p>{} faults in all.</p>", story.faults);
    }
    html.push_str("</section>\n");
}

fn signed(signed: Option<&Signed>) -> String {
    match signed {
        Some(Signed { key, to, .. }) => format!("to record {to} by <code>{key}</code>; not checked whose key that is"),
        None => "no".into(),
    }
}

/// Reach, reversibility and tier in words.
fn rated(reach: Option<&str>, reversibility: Option<&str>) -> String {
    let reach = reach.map(|reach| format!("{} ({reach})", reach_words(reach)));
    let back = reversibility.map(|back| format!("{} ({back})", reversibility_words(back)));
    [reach, back].into_iter().flatten().collect::<Vec<_>>().join("; ")
}

/// A sum of numbers that may be anything.
fn sum(numbers: impl IntoIterator<Item = u64>) -> u64 {
    numbers.into_iter().fold(0, u64::saturating_add)
}

/// A number with its thousands apart.
fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// How long after the start of the run.
fn since_start(story: &Story<'_>, time: Option<Timestamp>) -> Option<String> {
    let start: Timestamp = story.start.as_ref()?.time.parse().ok()?;
    Some(format!("at {}", seconds(time?.duration_since(start).as_secs_f64().max(0.0))))
}

fn seconds(seconds: f64) -> String {
    match seconds {
        s if s < 10.0 => format!("{s:.2} s"),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

fn day(time: Timestamp) -> String {
    let text = time.to_string().replace('T', " ");
    format!("{} UTC", text.get(..19).unwrap_or(&text))
}
