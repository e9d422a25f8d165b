//! A log as events of the Open Cybersecurity Schema Framework, one JSON object each, for those who collect such
//! events.
//!
//! Main process of `agentbox log export`. Pure: takes lines one by one and keeps nothing of them but the last link of
//! the events' own chain (profile `record_integrity`). What OCSF has no place for is kept under `unmapped`.

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::detail::Detail;
use super::entry::{Decided, Entry, Noted};
use super::read::Line;
use super::record::{Destination, End, Op, Party, PolicyRef, RunResult, Start};
use super::text;
use crate::event::{Access, Effect, Endpoint, Exec, Place, Reason, Subject, Transport};

/// The version of the schema that events say they are of.
const SCHEMA: &str = "1.9.0-dev";
/// The tier from which on a refusal is a finding of its own.
const FINDING_TIER: u8 = 9;

const BASE: u32 = 0;
const FILE: u32 = 1001;
const PROCESS: u32 = 1007;
const FINDING: u32 = 2004;
const NETWORK: u32 = 4001;
const DNS: u32 = 4003;
const API: u32 = 6003;

/// `Other`, in every enumeration of the schema.
const OTHER: u32 = 99;

/// SHA-256, among the schema's algorithms.
const SHA256: u32 = 3;

/// Turns lines into events.
#[derive(Debug)]
pub struct Ocsf {
    run: String,
    version: String,
    policy: PolicyRef,
    /// The last event: its uid, type and fingerprint.
    prev: Option<Value>,
}

/// What an event is, before what all have is put around it.
struct Draft {
    class: u32,
    activity: u32,
    severity: u32,
    fields: Map<String, Value>,
}

impl Draft {
    fn new(class: u32, activity: u32, severity: u32, fields: Value) -> Self {
        let Value::Object(fields) = fields else { return Self { class, activity, severity, fields: Map::new() } };
        Self { class, activity, severity, fields }
    }

    fn put(&mut self, name: &str, value: Value) {
        self.fields.insert(name.into(), value);
    }
}

impl Ocsf {
    /// Begins with a log of the run `run`; its first record says the rest.
    pub fn new(run: &str) -> Self {
        let policy = PolicyRef { name: "unknown".into(), digest: String::new() };
        Self { run: run.into(), version: env!("CARGO_PKG_VERSION").into(), policy, prev: None }
    }

    /// The events that a line comes to: one for most, more for a refusal that is a finding and for the end of a log.
    pub fn events(&mut self, line: &Line) -> Vec<Value> {
        let Some(entry) = &line.entry else { return Vec::new() };
        let detail = Detail::of(&line.raw);
        let drafts = match entry {
            Entry::Start(start) => self.start(start),
            Entry::Decision(decided) => self.decision(line, decided, &detail),
            Entry::Note(note) => vec![noted(note)],
            Entry::End(end) => self.end(end),
            other => vec![self.newer(&kind_of(line, other), &detail)],
        };
        let mut rest = rest(&line.raw);
        drafts.into_iter().enumerate().map(|(at, draft)| self.seal(line, &detail, at, draft, rest.take())).collect()
    }

    fn start(&mut self, start: &Start) -> Vec<Draft> {
        self.run = start.run.to_string();
        self.version = start.agentbox.clone();
        self.policy = start.policy.clone();
        let mut launch = Draft::new(PROCESS, 1, 1, json!({"launch_type_id": 3, "actor": {"app_name": "agentbox"}}));
        launch.put("process", self.command(&start.command));
        launch.put("policy", self.policy());
        vec![launch]
    }

    /// The command itself: the box's process 2.
    fn command(&self, words: &[String]) -> Value {
        json!({
            "uid": self.process_uid(2),
            "namespace_pid": 2,
            "name": base_name(words.first().map_or("", String::as_str)),
            "cmd_line": text::command_line(words),
        })
    }

    fn decision(&self, line: &Line, decided: &Decided, detail: &Detail) -> Vec<Draft> {
        let mut draft = match decided.access() {
            Some(access) => self.of_access(decided, &access),
            None => Draft::new(BASE, 0, 1, json!({})),
        };
        draft.severity = severity(decided, detail);
        self.judge(&mut draft, decided, detail);
        let finding = is_finding(decided, detail).then(|| self.finding(line, decided, detail, &draft));
        [Some(draft), finding].into_iter().flatten().collect()
    }

    fn of_access(&self, decided: &Decided, access: &Access) -> Draft {
        let actor = self.actor(&decided.process);
        match access {
            Access::File { at, .. } => {
                Draft::new(FILE, file_activity(decided.op), 1, json!({"actor": actor, "file": file(decided.op, at)}))
            }
            Access::Move { from, to, .. } => {
                let (subject, result) = if decided.op == Op::Link { (to, from) } else { (from, to) };
                let (subject, result) = (file(decided.op, subject), file(decided.op, result));
                let fields = json!({"actor": actor, "file": subject, "file_result": result});
                Draft::new(FILE, file_activity(decided.op), 1, fields)
            }
            Access::Exec(exec) => {
                let process = self.launched(&decided.process, exec, &decided.target);
                Draft::new(PROCESS, 1, 1, json!({"actor": actor, "process": process, "launch_type_id": 3}))
            }
            Access::Signal(signal) => {
                let process = self.process(&decided.process);
                let name = format!("signal {}", signal.name);
                Draft::new(PROCESS, OTHER, 1, json!({"actor": actor, "process": process, "activity_name": name}))
            }
            Access::Call { name, .. } => {
                let process = self.process(&decided.process);
                Draft::new(PROCESS, OTHER, 1, json!({"actor": actor, "process": process, "activity_name": name}))
            }
            Access::Resolve(question) => {
                let query = json!({"hostname": question.name, "type": question.record, "class": "IN"});
                let resolver = json!({"name": "agentbox", "svc_name": "resolver"});
                Draft::new(DNS, 1, 1, json!({"actor": actor, "query": query, "dst_endpoint": resolver}))
            }
            Access::Accept(visit) => {
                let fields = json!({
                    "actor": {"app_name": "outside"},
                    "src_endpoint": {"ip": visit.from.ip().to_string(), "port": visit.from.port()},
                    "dst_endpoint": {"ip": visit.at.ip().to_string(), "port": visit.port},
                    "connection_info": connection(Transport::Tcp, INBOUND),
                });
                Draft::new(NETWORK, network_activity(decided), 1, fields)
            }
            Access::Connect { to } | Access::Send { to } | Access::Route { to } | Access::Bind { at: to } => {
                let fields =
                    json!({"actor": actor, "dst_endpoint": endpoint(to), "connection_info": way(decided.op, to)});
                Draft::new(NETWORK, network_activity(decided), 1, fields)
            }
        }
    }

    /// What became of it, by which rule: the profile `security_control`.
    fn judge(&self, draft: &mut Draft, decided: &Decided, detail: &Detail) {
        let (action, disposition) = verdict(decided);
        let done = decided.done();
        draft.put("action_id", action.into());
        draft.put("disposition_id", disposition.into());
        draft.put("policy", self.policy());
        draft.put("authorizations", json!([{"decision": decision_word(decided), "policy": rule(decided)}]));
        draft.put("status_id", if done { 1 } else { 2 }.into());
        draft.put("status_detail", decided.outcome.as_str().into());
        if let Some(message) = &decided.message {
            draft.put("message", message.as_str().into());
        }
        if matches!(draft.class, NETWORK | DNS) {
            draft.put("firewall_rule", json!({"uid": decided.rule, "name": decided.rule}));
        }
        if let Some(tier) = detail.tier {
            draft.put("risk_score", (u32::from(tier) * 10).into());
        }
    }

    fn finding(&self, line: &Line, decided: &Decided, detail: &Detail, of: &Draft) -> Draft {
        let title = match (decided.outcome.as_str(), decided.reason) {
            ("killed", _) => "a process did something other than what was approved, and was ended",
            (_, Reason::Protected | Reason::AboveProtected) => "a protected place was to be changed or read",
            _ => "an act of the highest tiers was refused",
        };
        let aim = decided.access().map(|access| text::shorten(&text::target(&access), 400)).unwrap_or_default();
        let mut evidence = json!({"actor": self.actor(&decided.process)});
        for name in ["file", "process", "dst_endpoint", "query"] {
            if let (Some(value), Some(fields)) = (of.fields.get(name), evidence.as_object_mut()) {
                fields.insert(name.into(), value.clone());
            }
        }
        let info = json!({
            "uid": self.uid(line, 1),
            "title": title,
            "desc": format!("{} {aim}", decided.op.name()),
            "analytic": {"type_id": 1, "uid": decided.rule, "name": decided.rule},
            "related_events": [{"uid": self.uid(line, 0), "type_uid": type_uid(of.class, of.activity)}],
        });
        let mut finding =
            Draft::new(FINDING, 1, 4, json!({"finding_info": info, "evidences": [evidence], "is_alert": true}));
        self.judge(&mut finding, decided, detail);
        // The status of a finding is that of its handling.
        finding.put("status_id", 1.into());
        finding.fields.remove("status_detail");
        finding
    }

    fn end(&self, end: &End) -> Vec<Draft> {
        let failed = end.result.exit != Some(0) || end.result.error.is_some();
        let fields = json!({
            "actor": {"app_name": "agentbox"},
            "process": {"uid": self.process_uid(2), "namespace_pid": 2},
            "status_id": if failed { 2 } else { 1 },
            "status_detail": ending(&end.result),
            "policy": self.policy(),
        });
        let mut last = Draft::new(PROCESS, 2, if end.dropped > 0 { 3 } else { 1 }, fields);
        if let Some(exit) = end.result.exit {
            last.put("exit_code", exit.into());
        }
        // The end first: it alone carries what the record has beyond these.
        std::iter::once(last).chain(end.destinations.iter().map(traffic)).collect()
    }

    /// A kind of record that has no class of its own: an action begins, is claimed, or has ended.
    fn newer(&self, kind: &str, detail: &Detail) -> Draft {
        let tool = detail.claim.as_ref().and_then(|claim| claim.tool.clone());
        if !matches!(kind, "action" | "claim" | "action_end") {
            return Draft::new(BASE, 0, 1, json!({"message": kind}));
        }
        let operation = tool.or_else(|| detail.command.first().map(|word| base_name(word).to_string()));
        let mut draft = Draft::new(API, api_activity(kind, detail), api_severity(detail), json!({}));
        draft.put("api", json!({"operation": operation.unwrap_or_else(|| "command".into())}));
        draft.put("src_endpoint", json!({"name": "agentbox"}));
        draft.put("actor", detail.process.as_ref().map_or_else(|| json!({"app_name": "agent"}), |who| self.actor(who)));
        draft.put("policy", self.policy());
        if draft.activity == OTHER {
            draft.put("activity_name", kind.into());
        }
        if kind == "action_end" {
            const OBSERVED: u32 = 3;
            draft.put("action_id", OBSERVED.into());
            draft.put("disposition_id", 17.into());
        }
        if let Some(tier) = detail.tier {
            draft.put("risk_score", (u32::from(tier) * 10).into());
        }
        draft
    }

    /// Puts around an event what all have, and chains it to the one before.
    fn seal(&mut self, line: &Line, detail: &Detail, at: usize, draft: Draft, rest: Option<Value>) -> Value {
        let Draft { class, activity, severity, mut fields } = draft;
        let stamp = detail.time.as_deref().and_then(|time| time.parse::<Timestamp>().ok()).unwrap_or_default();
        let uid = self.uid(line, at);
        let mut metadata = json!({
            "version": SCHEMA,
            "product": {"name": "agentbox", "vendor_name": "agentbox", "version": self.version},
            "profiles": profiles(class, &fields),
            "uid": uid,
            "sequence": line.seq,
            "log_name": "audit.jsonl",
            "original_time": detail.time,
        });
        if let (Some(action), Some(metadata)) = (&detail.action, metadata.as_object_mut()) {
            metadata.insert("correlation_uid".into(), action.as_str().into());
        }
        for (name, value) in [
            ("class_uid", class.into()),
            ("category_uid", (class / 1000).into()),
            ("activity_id", activity.into()),
            ("type_uid", type_uid(class, activity).into()),
            ("severity_id", severity.into()),
            ("time", stamp.as_millisecond().into()),
            ("metadata", metadata),
            ("device", json!({"type_id": OTHER, "type": "Sandbox", "uid": self.run, "name": "agentbox"})),
        ] {
            fields.insert(name.into(), value);
        }
        if let Some(rest) = rest {
            fields.insert("unmapped".into(), rest);
        }
        self.attest(fields, uid, type_uid(class, activity))
    }

    /// Fingerprints an event over all but the fingerprint itself: keys sorted, no blanks, UTF-8.
    fn attest(&mut self, mut fields: Map<String, Value>, uid: String, type_uid: u32) -> Value {
        let mut attestation = json!({"chain_uid": self.run});
        if let Some(prev) = self.prev.take() {
            attestation["prev_event"] = prev;
        }
        fields.insert("attestation_list".into(), json!([attestation]));
        let mut event = Value::Object(fields);
        let value = text::hex(&Sha256::digest(event.to_string()));
        let fingerprint = json!({"algorithm_id": SHA256, "value": value});
        event["attestation_list"][0]["fingerprint"] = fingerprint.clone();
        self.prev = Some(json!({"uid": uid, "type_uid": type_uid, "fingerprint": fingerprint}));
        event
    }

    /// Names the event number `at` of a line.
    fn uid(&self, line: &Line, at: usize) -> String {
        let seq = line.seq.unwrap_or_default();
        if at == 0 { format!("{}:{seq}", self.run) } else { format!("{}:{seq}:{at}", self.run) }
    }

    fn policy(&self) -> Value {
        json!({"name": self.policy.name, "uid": self.policy.digest, "version": "1"})
    }

    fn process_uid(&self, pid: i32) -> String {
        format!("{}/{pid}", self.run)
    }

    fn process(&self, who: &Subject) -> Value {
        let parent = who.parents.first().map(|&pid| json!({"uid": self.process_uid(pid), "namespace_pid": pid}));
        let mut process = json!({
            "pid": who.host,
            "namespace_pid": who.pid,
            "uid": self.process_uid(who.pid),
            "name": base_name(&who.exe),
            "file": {"name": base_name(&who.exe), "path": who.exe, "type_id": 1},
        });
        if let Some(parent) = parent {
            process["parent_process"] = parent;
        }
        process
    }

    fn actor(&self, who: &Subject) -> Value {
        json!({"process": self.process(who)})
    }

    /// The process as it is once it runs the program.
    fn launched(&self, who: &Subject, exec: &Exec, target: &Value) -> Value {
        let program = exec.program.to_string();
        let mut process = self.process(who);
        process["name"] = base_name(&program).into();
        process["cmd_line"] = text::command_line(&exec.argv).into();
        process["file"] = json!({"name": base_name(&program), "path": program, "type_id": 1});
        if let Some(digest) = target["digest"].as_str().and_then(|digest| digest.strip_prefix("sha256:")) {
            process["file"]["hashes"] = json!([{"algorithm_id": SHA256, "value": digest}]);
        }
        process
    }
}

/// The kind as the line has it.
fn kind_of(line: &Line, entry: &Entry) -> String {
    if let Entry::Other(kind) = entry {
        return kind.clone();
    }
    let whole: Value = serde_json::from_slice(&line.raw).unwrap_or_default();
    whole["kind"].as_str().unwrap_or_default().to_string()
}

/// What of a record has no place elsewhere in the event.
fn rest(raw: &[u8]) -> Option<Value> {
    const PLACED: [&str; 10] =
        ["v", "seq", "time", "run", "action", "process", "verdict", "rule", "message", "agentbox"];
    let mut whole: Map<String, Value> = serde_json::from_slice(raw).ok()?;
    whole.retain(|name, _| !PLACED.contains(&name.as_str()));
    whole.insert("line_sha256".into(), text::hex(&Sha256::digest(raw)).into());
    Some(json!({"agentbox": whole}))
}

fn noted(note: &Noted) -> Draft {
    Draft::new(BASE, 0, 1, json!({"message": note.text}))
}

fn type_uid(class: u32, activity: u32) -> u32 {
    class * 100 + activity
}

/// The profiles that an event's fields are of.
fn profiles(class: u32, fields: &Map<String, Value>) -> Vec<&'static str> {
    let mut profiles = vec!["record_integrity", "host"];
    if fields.contains_key("action_id") {
        profiles.push("security_control");
    }
    if matches!(class, PROCESS | FILE) {
        profiles.push("container");
    }
    profiles
}

fn severity(decided: &Decided, detail: &Detail) -> u32 {
    match (decided.denied(), detail.tier) {
        _ if decided.outcome == "killed" => 4,
        (true, _) if is_finding(decided, detail) => 4,
        (true, _) => 3,
        (false, Some(7..)) => 3,
        (false, Some(5..=6)) => 2,
        (false, _) => 1,
    }
}

fn api_severity(detail: &Detail) -> u32 {
    match detail.tier {
        Some(9..) => 4,
        Some(7..=8) => 3,
        Some(5..=6) => 2,
        _ => 1,
    }
}

fn is_finding(decided: &Decided, detail: &Detail) -> bool {
    let guarded = matches!(decided.reason, Reason::Protected | Reason::AboveProtected);
    let grave = detail.tier.is_some_and(|tier| tier >= FINDING_TIER);
    decided.denied() && (guarded || grave || decided.outcome == "killed")
}

/// `action_id` and `disposition_id`.
fn verdict(decided: &Decided) -> (u32, u32) {
    const ALLOWED: u32 = 1;
    const DENIED: u32 = 2;
    match (decided.verdict, &decided.answer) {
        (Effect::Ask, Some(_)) if decided.denied() => (DENIED, 25),
        (Effect::Ask, Some(_)) => (ALLOWED, 8),
        _ if decided.denied() => (DENIED, 2),
        _ => (ALLOWED, 1),
    }
}

fn decision_word(decided: &Decided) -> &'static str {
    if decided.denied() { "denied" } else { "allowed" }
}

/// The rule, as a policy of its own that the answer rests on.
fn rule(decided: &Decided) -> Value {
    json!({"uid": decided.rule, "name": decided.rule, "desc": decided.reason})
}

fn file_activity(op: Op) -> u32 {
    match op {
        Op::Create | Op::Mkdir | Op::Mknod | Op::Symlink | Op::Link => 1,
        Op::Read => 2,
        Op::Write | Op::Truncate => 3,
        Op::Unlink | Op::Rmdir => 4,
        Op::Rename | Op::Exchange => 5,
        Op::Utime | Op::Xattr => 6,
        Op::Chmod | Op::Chown => 7,
        Op::Exec | Op::Connect | Op::Send | Op::Route | Op::Resolve | Op::Accept | Op::Bind => OTHER,
        Op::Signal | Op::Call => OTHER,
    }
}

fn file(op: Op, at: &Place) -> Value {
    const REGULAR: u32 = 1;
    const FOLDER: u32 = 2;
    const LINK: u32 = 7;
    let kind = match op {
        Op::Mkdir | Op::Rmdir => FOLDER,
        _ if at.directory => FOLDER,
        Op::Symlink => LINK,
        Op::Write | Op::Create | Op::Truncate => REGULAR,
        _ => 0,
    };
    let path = at.path.to_string();
    let parent = at.path.as_path().parent().map(|parent| parent.to_string_lossy());
    json!({"name": base_name(&path), "path": path, "parent_folder": parent, "type_id": kind})
}

fn network_activity(decided: &Decided) -> u32 {
    match decided.op {
        _ if decided.denied() => 5,
        _ if !decided.done() => 4,
        Op::Bind => 7,
        Op::Send => 6,
        Op::Route => OTHER,
        _ => 1,
    }
}

const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;
const LOCAL: u32 = 3;

/// What carries a connection, and which way it goes.
fn connection(transport: Transport, direction: u32) -> Value {
    let number = match transport {
        Transport::Tcp => 6,
        Transport::Udp => 17,
        Transport::Icmp => 1,
    };
    json!({"direction_id": direction, "protocol_num": number, "protocol_name": transport.to_string()})
}

fn way(op: Op, to: &Endpoint) -> Value {
    match to {
        _ if op == Op::Bind => json!({"direction_id": INBOUND}),
        Endpoint::Inet { transport, outside, .. } => connection(*transport, if *outside { OUTBOUND } else { LOCAL }),
        _ => json!({"direction_id": LOCAL}),
    }
}

fn endpoint(to: &Endpoint) -> Value {
    match to {
        Endpoint::Inet { address, names, .. } => {
            let mut endpoint = json!({"ip": address.ip().to_string(), "port": address.port()});
            if let Some(name) = names.first() {
                endpoint["hostname"] = (**name).into();
            }
            endpoint
        }
        Endpoint::Unix { path, .. } => json!({"name": format!("unix:{path}")}),
        Endpoint::Abstract { name, .. } => json!({"name": format!("unix:@{name}")}),
        Endpoint::Unspecified => json!({"name": "unspecified"}),
        Endpoint::Netlink => json!({"name": "netlink"}),
        Endpoint::Other { number } => json!({"name": format!("family {number}")}),
    }
}

/// What a run had to do with a party outside, as far as bytes were counted.
fn traffic(destination: &Destination) -> Draft {
    let (end, info) = match &destination.party {
        Party::Service { names, addresses, port, transport } => {
            let mut end = json!({"ip": addresses.first().map(ToString::to_string), "port": port});
            end["hostname"] = names.first().map_or(Value::Null, |name| (**name).into());
            (end, connection(*transport, OUTBOUND))
        }
        Party::Visitors { at, port } => {
            (json!({"ip": at.ip().to_string(), "port": port}), connection(Transport::Tcp, INBOUND))
        }
        Party::Others => (json!({"name": "all others"}), json!({"direction_id": 0})),
    };
    let fields = json!({
        "dst_endpoint": known(end),
        "connection_info": info,
        "traffic": known(json!({"bytes_out": destination.bytes_out, "bytes_in": destination.bytes_in})),
        "count": destination.allowed.saturating_add(destination.denied),
        "unmapped": {"agentbox": destination},
    });
    let mut draft = Draft::new(NETWORK, 6, 1, fields);
    if destination.bytes_out.is_none() && destination.bytes_in.is_none() {
        draft.fields.remove("traffic");
    }
    draft
}

/// An object without what is not known.
fn known(mut object: Value) -> Value {
    if let Some(fields) = object.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
    object
}

/// The schema knows calls that create, read, update or delete: the gravest of what was observed.
fn api_activity(kind: &str, detail: &Detail) -> u32 {
    let Some(effects) = detail.effects.as_ref().filter(|_| kind == "action_end") else { return OTHER };
    let files = &effects.files;
    match () {
        () if files.deleted > 0 => 4,
        () if files.changed + files.replaced + files.moved > 0 => 3,
        () if files.created > 0 => 1,
        () => 2,
    }
}

fn ending(result: &RunResult) -> String {
    match (&result.error, result.timed_out, result.signal, result.exit) {
        (Some(error), ..) => error.clone(),
        (None, true, ..) => "out of time".into(),
        (None, false, Some(signal), _) => format!("signal {signal}"),
        (None, false, None, Some(exit)) => format!("exit {exit}"),
        (None, false, None, None) => "did not run".into(),
    }
}

fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}
