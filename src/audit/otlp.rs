//! A log as a trace of OpenTelemetry: one span for the run, one for each action, in OTLP's JSON encoding.
//!
//! Main process of `agentbox log export`. Pure: the environment is handed in. A span is handed out as soon as the log
//! says how its action ended, so a trace can be followed while it comes about. Ids are drawn from the run's id, so that
//! the same log gives the same spans whenever it is exported. Single acts are not part of it, only their numbers: what
//! was done one by one is the log's to say, and arguments may hold secrets.

use std::collections::{BTreeMap, HashMap, VecDeque};

use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::actions::add_claim;
use super::detail::{Detail, count};
use super::entry::{Decided, Entry};
use super::read::Line;
use super::record::{End, Op, Start};
use super::run::RunFile;
use super::text;
use crate::event::{Claim, Effects};

/// How many actions may be open at once; acts of further ones are counted and get no span.
const OPEN: usize = 10_000;
/// How many of the actions that ended last are remembered: an act that was under way may be on record after them.
const ENDED: usize = 1024;
/// How many spans go in one request, as in the SDKs of OpenTelemetry: collectors bound what they take.
pub const SPANS: usize = 512;

/// The trace that a caller is part of, as W3C Trace Context writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceParent {
    trace: String,
    span: String,
}

impl TraceParent {
    /// Reads `00-<trace>-<span>-<flags>`; nothing that the recommendation says to ignore.
    pub fn parse(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.split('-').collect();
        let &[version, trace, span, flags, ..] = parts.as_slice() else { return None };
        let hex = |part: &str, length: usize| {
            part.len() == length && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        };
        let some = |part: &str| part.bytes().any(|b| b != b'0');
        let fits = hex(version, 2) && hex(trace, 32) && hex(span, 16) && hex(flags, 2) && version != "ff";
        let whole = version != "00" || parts.len() == 4;
        (fits && whole && some(trace) && some(span)).then(|| Self { trace: trace.into(), span: span.into() })
    }
}

/// Who says what is exported: the resource of OpenTelemetry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resource {
    /// `service.name`.
    pub service: Option<String>,
    /// Anything else.
    pub attributes: Vec<(String, String)>,
}

impl Resource {
    /// Reads `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` (`key=value`, with commas between, percent-encoded).
    pub fn from_text(service: Option<&str>, attributes: Option<&str>) -> Self {
        let mut resource = Self::default();
        for pair in attributes.unwrap_or_default().split(',') {
            let Some((key, value)) = pair.split_once('=') else { continue };
            match key.trim() {
                "" => {}
                "service.name" => resource.service = Some(percent_decoded(value.trim())),
                key => resource.attributes.push((key.to_string(), percent_decoded(value.trim()))),
            }
        }
        if let Some(service) = service.filter(|service| !service.is_empty()) {
            resource.service = Some(service.to_string());
        }
        resource
    }
}

/// Decodes `%20` and the like; anything else stays as it is.
pub fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let digits = bytes.get(at + 1..at + 3).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(value) if byte == b'%' => {
                decoded.push(value);
                at += 3;
            }
            _ => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// The trace of one run, in memory that grows with what is open at once and not with the log.
#[derive(Debug)]
pub struct Trace {
    run: String,
    caller: Option<TraceParent>,
    version: String,
    /// The run itself, until its span is handed out.
    root: Option<Action>,
    policy: Option<(String, String)>,
    end: Option<End>,
    /// Actions that have not ended, in the order in which they began.
    open: BTreeMap<u64, Action>,
    /// The numbers of those, and the names of those that ended last.
    known: HashMap<String, Option<u64>>,
    ended: VecDeque<String>,
    /// How many actions have begun.
    begun: u64,
    /// Acts of actions that have no span.
    more: u64,
}

/// What becomes a span.
#[derive(Debug, Default)]
struct Action {
    id: String,
    parent: Option<String>,
    attribution: Option<String>,
    program: Option<String>,
    claim: Option<Claim>,
    first: Option<Timestamp>,
    last: Option<Timestamp>,
    decisions: u64,
    denied: u64,
    /// The rule that refused first.
    rule: Option<String>,
    /// What was seen of files, for logs that do not say what an action came to.
    seen: Effects,
    effects: Option<Effects>,
    /// How many parties outside it had to do with.
    destinations: u64,
    reach: Option<String>,
    reversibility: Option<String>,
    tier: Option<u8>,
    taint: Vec<String>,
}

/// The action of the agent's own process: the root span stands for it.
const SESSION: &str = "session";
/// The record that says what an action came to: its last.
const ACTION_END: &str = "action_end";

impl Trace {
    /// Begins the trace of the run `run`; `about` says which trace it is part of.
    pub fn new(run: &str, about: Option<&RunFile>) -> Self {
        Self {
            run: run.into(),
            caller: about.and_then(|about| TraceParent::parse(about.traceparent.as_deref()?)),
            version: env!("CARGO_PKG_VERSION").into(),
            root: Some(Action::default()),
            policy: None,
            end: None,
            open: BTreeMap::new(),
            known: HashMap::new(),
            ended: VecDeque::new(),
            begun: 0,
            more: 0,
        }
    }

    /// Takes the next line of the log; gives the span that it completes.
    pub fn take(&mut self, line: &Line) -> Option<Value> {
        let entry = line.entry.as_ref()?;
        let detail = Detail::of(&line.raw);
        let time = detail.time.as_deref().and_then(|time| time.parse().ok());
        let root = self.root.as_mut()?;
        root.saw(time);
        match entry {
            Entry::Start(start) => self.start(start),
            Entry::Decision(decided) => self.decision(decided, &detail, time),
            Entry::End(end) => {
                root.close(detail.total.as_deref().unwrap_or(&detail));
                self.end = Some((**end).clone());
            }
            _ => self.newer(&detail, time),
        }
        let id = detail.action.filter(|_| matches!(entry, Entry::Other(kind) if kind == ACTION_END))?;
        self.ended(id)
    }

    /// When the log has no more lines: the next of the spans that none has completed, the run's own last.
    pub fn rest(&mut self) -> Option<Value> {
        match self.open.pop_first() {
            Some((_, action)) => Some(self.span(&action)),
            None => self.root.take().map(|root| self.root_span(&root)),
        }
    }

    fn ended(&mut self, id: String) -> Option<Value> {
        let action = self.open.remove(&self.known.get_mut(&id)?.take()?)?;
        self.ended.push_back(id);
        if self.ended.len() > ENDED {
            self.ended.pop_front().map(|oldest| self.known.remove(&oldest));
        }
        Some(self.span(&action))
    }

    fn start(&mut self, start: &Start) {
        self.version = start.agentbox.clone();
        self.policy = Some((start.policy.name.clone(), start.policy.digest.clone()));
        if let Some(root) = &mut self.root {
            root.program = start.command.first().cloned();
        }
    }

    fn decision(&mut self, decided: &Decided, detail: &Detail, time: Option<Timestamp>) {
        if let Some(root) = &mut self.root {
            root.decided(decided);
        }
        let Some(action) = self.action(&decided.action) else { return };
        action.saw(time);
        action.decided(decided);
        action.attribution = action.attribution.take().or_else(|| detail.attribution.clone());
        action.tier = action.tier.max(detail.tier);
        // The end of an action says it for all of it; one that was cut off has no end.
        action.reach = action.reach.take().max(detail.reach.clone());
        action.reversibility = action.reversibility.take().max(detail.reversibility.clone());
        if decided.op == Op::Exec && decided.done() && action.program.is_none() {
            action.program = decided.target["program"].as_str().map(str::to_string);
        }
    }

    /// A record of an action itself: it begins, something is claimed of it, it has ended.
    fn newer(&mut self, detail: &Detail, time: Option<Timestamp>) {
        let Some(id) = detail.action.as_deref() else { return };
        if let (SESSION, Some(root)) = (id, &mut self.root) {
            return root.close(detail);
        }
        let Some(action) = self.action(id) else { return };
        action.saw(time);
        action.parent = action.parent.take().or_else(|| detail.parent.clone());
        action.attribution = action.attribution.take().or_else(|| detail.attribution.clone());
        action.program = detail.command.first().cloned().or(action.program.take());
        action.close(detail);
    }

    /// The open action of that name, which may begin with this; none where there are too many, or it has ended.
    fn action(&mut self, id: &str) -> Option<&mut Action> {
        if id == SESSION {
            return None;
        }
        let number = match self.known.get(id) {
            Some(&number) => number?,
            None if self.open.len() == OPEN => {
                self.more += 1;
                return None;
            }
            None => {
                self.begun += 1;
                self.known.insert(id.into(), Some(self.begun));
                self.begun
            }
        };
        Some(self.open.entry(number).or_insert_with(|| Action { id: id.into(), ..Action::default() }))
    }

    /// A request to a collector with these spans.
    pub fn request(&self, resource: &Resource, spans: Vec<Value>) -> Value {
        let mut attributes = vec![
            attribute("service.name", resource.service.as_deref().unwrap_or("agentbox")),
            attribute("service.version", self.version.as_str()),
        ];
        attributes.extend(resource.attributes.iter().map(|(key, value)| attribute(key, value.as_str())));
        let scope = json!({"name": "agentbox", "version": env!("CARGO_PKG_VERSION")});
        let spans = json!({"scope": scope, "spans": spans});
        json!({"resourceSpans": [{"resource": {"attributes": attributes}, "scopeSpans": [spans]}]})
    }

    fn trace_id(&self) -> String {
        match &self.caller {
            Some(caller) => caller.trace.clone(),
            None => drawn(&[&self.run, "trace"], 16),
        }
    }

    fn span_id(&self, action: &str) -> String {
        drawn(&[&self.run, "span", action], 8)
    }

    fn root_span(&self, root: &Action) -> Value {
        let program = root.program.as_deref().map(base_name).unwrap_or_default();
        let mut attributes = vec![attribute("agentbox.run.id", self.run.as_str())];
        if let Some((name, digest)) = &self.policy {
            attributes.push(attribute("agentbox.policy.name", name.as_str()));
            attributes.push(attribute("agentbox.policy.digest", digest.as_str()));
        }
        attributes.extend(root.attributes());
        attributes.push(attribute("agentbox.actions", self.begun));
        attributes.push(attribute("agentbox.finished", self.end.is_some()));
        if self.more > 0 {
            attributes.push(attribute("agentbox.actions.not_listed", true));
        }
        attributes.extend(self.end.iter().flat_map(end_attributes));
        let name = format!("agentbox run {}", text::shorten(&text::printable(program), 64));
        let mut span = self.named(&name, SESSION, root, attributes);
        if let Some(caller) = &self.caller {
            span["parentSpanId"] = caller.span.as_str().into();
        }
        if let Some(said) = self.end.as_ref().and_then(failure) {
            span["status"] = json!({"code": 2, "message": said});
        }
        span
    }

    fn span(&self, action: &Action) -> Value {
        let tool = action.claim.as_ref().and_then(|claim| claim.tool.as_deref()).filter(|tool| !tool.is_empty());
        let mut attributes = vec![attribute("agentbox.action.id", action.id.as_str())];
        let name = match tool {
            Some(tool) => {
                attributes.push(attribute("gen_ai.operation.name", "execute_tool"));
                attributes.push(attribute("gen_ai.tool.name", tool));
                attributes.push(attribute("gen_ai.tool.type", "function"));
                // What the agent says of itself: shown, never relied on.
                attributes.push(attribute("agentbox.claim.verified", false));
                format!("execute_tool {}", text::shorten(&text::printable(tool), 64))
            }
            None => {
                let program = action.program.as_deref().map(base_name).unwrap_or(&action.id);
                format!("command {}", text::shorten(&text::printable(program), 64))
            }
        };
        attributes.extend(action.program.as_deref().map(|path| attribute("process.executable.name", base_name(path))));
        attributes.extend(action.attribution.as_deref().map(|how| attribute("agentbox.attribution", how)));
        attributes.extend(action.attributes());
        let mut span = self.named(&name, &action.id, action, attributes);
        let parent = action.parent.as_deref().filter(|parent| *parent != action.id).unwrap_or(SESSION);
        span["parentSpanId"] = self.span_id(parent).into();
        span
    }

    fn named(&self, name: &str, id: &str, action: &Action, attributes: Vec<Value>) -> Value {
        const INTERNAL: u32 = 1;
        let run = self.root.as_ref().and_then(|root| root.first);
        let first = action.first.or(run).unwrap_or_default();
        let last = action.last.filter(|last| *last >= first).unwrap_or(first);
        json!({
            "traceId": self.trace_id(),
            "spanId": self.span_id(id),
            "name": name,
            "kind": INTERNAL,
            "startTimeUnixNano": nanoseconds(first),
            "endTimeUnixNano": nanoseconds(last),
            "attributes": attributes,
        })
    }
}

impl Action {
    fn saw(&mut self, time: Option<Timestamp>) {
        let Some(time) = time else { return };
        self.first = Some(self.first.map_or(time, |first| first.min(time)));
        self.last = Some(self.last.map_or(time, |last| last.max(time)));
    }

    fn decided(&mut self, decided: &Decided) {
        self.decisions += 1;
        if decided.denied() {
            // A record of the action may have said any number before.
            self.denied = self.denied.saturating_add(1);
            self.rule.get_or_insert_with(|| decided.rule.to_string());
        }
        count(&mut self.seen, decided);
    }

    fn close(&mut self, detail: &Detail) {
        let take = |mine: &mut Option<String>, theirs: &Option<String>| {
            if theirs.is_some() {
                mine.clone_from(theirs);
            }
        };
        take(&mut self.reach, &detail.reach);
        take(&mut self.reversibility, &detail.reversibility);
        self.tier = self.tier.max(detail.tier);
        self.denied = self.denied.max(detail.denied.unwrap_or_default());
        if let Some(claim) = &detail.claim {
            add_claim(self.claim.get_or_insert_default(), claim);
        }
        self.effects = detail.effects.clone().or(self.effects.take());
        if !detail.destinations.is_empty() {
            self.destinations = detail.destinations.len() as u64;
        }
        if !detail.taint.is_empty() {
            self.taint.clone_from(&detail.taint);
        }
    }

    fn attributes(&self) -> Vec<Value> {
        let mut attributes = vec![
            attribute("agentbox.verdict", if self.denied > 0 { "denied" } else { "allowed" }),
            attribute("agentbox.decisions", self.decisions),
            attribute("agentbox.denied", self.denied),
        ];
        let words = [
            ("agentbox.policy.rule", &self.rule),
            ("agentbox.blast.reach", &self.reach),
            ("agentbox.reversibility", &self.reversibility),
        ];
        attributes.extend(words.into_iter().filter_map(|(key, word)| Some(attribute(key, word.as_deref()?))));
        attributes.extend(self.tier.map(|tier| attribute("agentbox.tier", u64::from(tier))));
        if !self.taint.is_empty() {
            attributes.push(attribute("agentbox.taint", self.taint.join(",")));
        }
        attributes.extend(blast(self.effects.as_ref().unwrap_or(&self.seen), self.destinations));
        attributes
    }
}

/// What an action came to, as numbers; what did not occur is left out.
fn blast(effects: &Effects, destinations: u64) -> impl Iterator<Item = Value> {
    let files = &effects.files;
    let numbers = [
        ("files.created", files.created),
        ("files.changed", files.changed),
        ("files.deleted", files.deleted),
        ("files.replaced", files.replaced),
        ("files.moved", files.moved),
        ("files.bytes_lost", files.bytes_lost),
        ("secrets", effects.secrets.values().fold(0, |sum, count| sum.saturating_add(*count))),
        ("persistence", effects.persistence),
        ("programs", effects.programs),
        ("signals", effects.signals),
        ("destinations", destinations),
    ];
    let numbers = numbers.into_iter().filter(|(_, number)| *number > 0);
    numbers.map(|(name, number)| attribute(&format!("agentbox.blast.{name}"), number))
}

fn end_attributes(end: &End) -> Vec<Value> {
    let sum = |bytes: fn(&super::record::Destination) -> Option<u64>| {
        end.destinations.iter().filter_map(bytes).fold(0u64, u64::saturating_add)
    };
    let mut attributes = vec![
        attribute("agentbox.records", end.recorded),
        attribute("agentbox.records.lost", end.dropped),
        attribute("agentbox.destinations", end.destinations.len() as u64),
        attribute("agentbox.bytes_out", sum(|destination| destination.bytes_out)),
        attribute("agentbox.bytes_in", sum(|destination| destination.bytes_in)),
    ];
    attributes.extend(end.result.exit.map(|exit| attribute("process.exit.code", i64::from(exit))));
    attributes
}

fn failure(end: &End) -> Option<String> {
    let result = &end.result;
    match (&result.error, result.timed_out, result.signal, result.exit) {
        (Some(error), ..) => Some(text::printable(error)),
        (None, true, ..) => Some("out of time".into()),
        (None, false, Some(signal), _) => Some(format!("signal {signal}")),
        (None, false, None, Some(0)) => None,
        (None, false, None, Some(exit)) => Some(format!("exit {exit}")),
        (None, false, None, None) => Some("did not run".into()),
    }
}

/// A value of an attribute.
enum Scalar {
    Text(String),
    Number(i64),
    Fact(bool),
}

impl From<&str> for Scalar {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Scalar {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<u64> for Scalar {
    fn from(number: u64) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<i64> for Scalar {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl From<bool> for Scalar {
    fn from(fact: bool) -> Self {
        Self::Fact(fact)
    }
}

/// JSON has no 64-bit integers: the encoding writes them as text.
fn attribute(key: &str, value: impl Into<Scalar>) -> Value {
    let value = match value.into() {
        Scalar::Text(text) => json!({"stringValue": text}),
        Scalar::Number(number) => json!({"intValue": number.to_string()}),
        Scalar::Fact(fact) => json!({"boolValue": fact}),
    };
    json!({"key": key, "value": value})
}

fn nanoseconds(time: Timestamp) -> String {
    time.as_nanosecond().max(0).to_string()
}

/// Draws an id of `length` bytes from words that name a thing.
fn drawn(words: &[&str], length: usize) -> String {
    let digest = Sha256::digest(words.join("\0"));
    text::hex(&digest[..length])
}

fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_parent_is_taken_only_if_it_is_one() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let parsed = TraceParent::parse(good).unwrap();
        assert_eq!((parsed.trace.as_str(), parsed.span.as_str()), (&good[3..35], &good[36..52]));
        assert!(TraceParent::parse(&good.replacen("00", "01", 1).replace("-01", "-01-more")).is_some());
        for bad in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
        ] {
            assert_eq!(TraceParent::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_resource_is_read_as_the_specification_has_it() {
        let resource = Resource::from_text(None, Some("team=a%20b, service.name=x ,bad,=y,env=%zz"));
        assert_eq!(resource.service.as_deref(), Some("x"));
        let pairs: Vec<(&str, &str)> = resource.attributes.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(pairs, [("team", "a b"), ("env", "%zz")]);
        let named = Resource::from_text(Some("mine"), Some("service.name=x"));
        assert_eq!(named.service.as_deref(), Some("mine"), "the variable of its own wins");
    }
    /// A line of a log of which only the record is looked at.
    fn line(number: u64, fields: &str) -> Line {
        let raw = format!(r#"{{"v":1,"seq":{number},"prev":"","time":"2026-11-23T12:00:00Z","run":"r",{fields}}}"#);
        let kind = serde_json::from_str::<Value>(&raw).unwrap()["kind"].as_str().unwrap().to_string();
        let entry = super::super::entry::parse(&kind, raw.as_bytes()).ok();
        Line { number, seq: Some(number), raw: raw.into_bytes(), entry, faults: Vec::new() }
    }

    #[test]
    fn a_span_is_handed_out_once_when_its_action_ends_and_the_rest_at_the_end() {
        let mut trace = Trace::new("r", None);
        let begin = |id: &str| format!(r#""kind":"action","action":"{id}","command":["{id}"]"#);
        let end = |id: &str| format!(r#""kind":"action_end","action":"{id}""#);
        let lines = [begin("a1"), begin("a2"), end("a2"), end("a2"), begin("a3"), end("a9"), end("session")];
        let mut names = Vec::new();
        for (number, fields) in (1..).zip(&lines) {
            names.extend(trace.take(&line(number, fields)).map(|span| (number, span["name"].clone())));
        }
        assert_eq!(names, [(3, "command a2".into()), (6, "command a9".into())]);
        let rest: Vec<Value> = std::iter::from_fn(|| trace.rest()).map(|span| span["name"].clone()).collect();
        assert_eq!(rest, ["command a1", "command a3", "agentbox run "]);
        assert_eq!(trace.take(&line(8, &end("a1"))), None, "nothing comes after the run's own");
    }

    #[test]
    fn a_trace_remembers_what_is_open_and_little_of_what_has_ended() {
        let mut trace = Trace::new("r", None);
        for number in 0..2 * ENDED as u64 {
            let fields = |kind: &str| format!(r#""kind":"{kind}","action":"a{number}""#);
            assert_eq!(trace.take(&line(1, &fields("action"))), None);
            assert!(trace.take(&line(2, &fields("action_end"))).is_some());
        }
        assert_eq!((trace.open.len(), trace.known.len(), trace.ended.len()), (0, ENDED, ENDED));
        for number in 0..2 * OPEN as u64 {
            trace.take(&line(1, &format!(r#""kind":"action","action":"b{number}""#)));
        }
        assert_eq!((trace.open.len(), trace.more), (OPEN, OPEN as u64), "counted, not kept");
    }
}
