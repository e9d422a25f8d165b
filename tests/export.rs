//! `agentbox log export`: a log in the shapes that other tools read.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;

use common::{
    Outcome, Scene, agent_records, agentbox, await_until, chained, finish, processes_with, program, run, text,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// What OCSF requires of every event, and of each class besides.
const ALWAYS: [&str; 9] = [
    "activity_id",
    "category_uid",
    "class_uid",
    "metadata.product.name",
    "metadata.version",
    "severity_id",
    "time",
    "type_uid",
    "device.type_id",
];
const REQUIRED: [(u64, &[&str], &[u64]); 7] = [
    (0, &[], &[0]),
    (1001, &["actor", "file.name", "file.type_id"], &[1, 2, 3, 4, 5, 6, 7, 12, 14, 99]),
    (1007, &["actor", "process"], &[1, 2, 3, 4, 5, 99]),
    (2004, &["finding_info.uid", "finding_info.title"], &[1, 2, 3]),
    (4001, &["dst_endpoint"], &[1, 2, 4, 5, 6, 7, 99]),
    (4003, &["query.hostname", "dst_endpoint"], &[1, 2]),
    (6003, &["actor", "api.operation", "src_endpoint"], &[1, 2, 3, 4, 99]),
];

fn at<'a>(event: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(event, |value, name| &value[name])
}

/// Holds an event against the schema.
fn is_ocsf(event: &Value) {
    let class = event["class_uid"].as_u64().expect("a class");
    let (_, fields, activities) = REQUIRED.iter().find(|(known, ..)| *known == class).expect("a class of the table");
    for field in ALWAYS.iter().chain(*fields) {
        assert!(!at(event, field).is_null(), "{field} is missing: {event:#}");
    }
    let activity = event["activity_id"].as_u64().expect("an activity");
    assert!(activities.contains(&activity), "activity {activity} of {class}");
    assert_eq!(event["type_uid"], class * 100 + activity);
    assert_eq!(event["category_uid"], class / 1000);
    assert!((1..=6).contains(&event["severity_id"].as_u64().expect("a severity")));
    assert!(event["time"].as_i64().expect("milliseconds") > 1_500_000_000_000, "{event:#}");
    if activity == 99 {
        assert!(event["activity_name"].is_string() || class == 4001, "Other has a name: {event:#}");
    }
}

/// Follows the events' own chain: each is hashed without its fingerprint, keys sorted, no blanks.
fn is_chained(events: &[Value]) {
    let mut prev = Value::Null;
    for event in events {
        let mut bare = event.clone();
        let attested = bare["attestation_list"][0].as_object_mut().expect("an attestation");
        let fingerprint = attested.remove("fingerprint").expect("a fingerprint");
        let digest: String = Sha256::digest(bare.to_string()).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!((&fingerprint["algorithm_id"], &fingerprint["value"]), (&3.into(), &digest.into()));
        assert_eq!(bare["attestation_list"][0]["prev_event"]["fingerprint"], prev, "{event:#}");
        prev = fingerprint;
    }
}

fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

fn ocsf(scene: &Scene, log: &str) -> Vec<Value> {
    let exported = scene.agentbox(&["log", "export", log, "--format", "ocsf"]);
    exported.exits(0).must(exported.err.is_empty(), "quiet");
    let events = json_lines(&exported.out);
    events.iter().for_each(is_ocsf);
    is_chained(&events);
    events
}

#[test]
fn every_record_of_a_run_is_an_event_of_the_schema() {
    let scene = Scene::new();
    let line = "echo x > a; mkdir d; mv a b; ln b c; chmod 600 b; rm c; rmdir d; ln -s b l; echo x > ../.bashrc; uname";
    scene.boxed_sh(&["--audit-level", "all", "--net", "rules"], line).exits(0);
    let log = scene.root.join("audit-0.jsonl");
    let events = ocsf(&scene, text(&log));
    let lines = fs::read_to_string(&log).expect("the log").lines().count() as u64;
    let sequences: BTreeSet<u64> = events.iter().filter_map(|event| event["metadata"]["sequence"].as_u64()).collect();
    assert!(sequences.into_iter().eq(1..=lines), "a record without an event");
    let types: BTreeSet<u64> = events.iter().filter_map(|event| event["type_uid"].as_u64()).collect();
    for (kind, what) in
        [(100_101, "create"), (100_104, "delete"), (100_105, "rename"), (100_701, "launch"), (100_702, "terminate")]
    {
        assert!(types.contains(&kind), "no {what}: {types:?}");
    }
    let finding = events.iter().find(|event| event["class_uid"] == 2004).expect("the protected file is a finding");
    assert!(finding["evidences"][0]["file"]["path"].as_str().is_some_and(|path| path.ends_with("/home/.bashrc")));
    assert_eq!((&finding["action_id"], &finding["disposition_id"]), (&2.into(), &2.into()));
    let related = &finding["finding_info"]["related_events"][0]["uid"];
    let denial = events.iter().find(|event| event["metadata"]["uid"] == *related).expect("what was found");
    assert_eq!((&denial["class_uid"], &denial["status_id"]), (&1001.into(), &2.into()));
    assert_eq!(denial["authorizations"][0]["policy"]["uid"], "protected.yaml filesystem.protect[0]");
}

#[test]
fn actions_and_what_they_came_to_are_events_too() {
    let scene = Scene::new();
    let log = scene.file("agent.jsonl", chained(agent_records()));
    let events = ocsf(&scene, text(&log));
    let of = |sequence: u64| events.iter().find(|event| event["metadata"]["sequence"] == sequence).expect("an event");
    let (begun, ended) = (of(2), of(14));
    assert_eq!((&begun["type_uid"], &begun["api"]["operation"]), (&600_399.into(), &"Bash".into()));
    assert_eq!((&ended["type_uid"], &ended["risk_score"]), (&600_304.into(), &100.into()));
    assert_eq!(ended["metadata"]["correlation_uid"], "a2");
    assert_eq!(ended["unmapped"]["agentbox"]["effects"]["files"]["bytes_lost"], 245_760);
    let exec = of(6);
    assert_eq!(exec["process"]["file"]["hashes"][0]["value"], "cd".repeat(32));
    assert_eq!((&exec["process"]["pid"], &exec["process"]["namespace_pid"]), (&4009.into(), &9.into()));
    assert_eq!(of(9)["query"]["hostname"], "paste.example.net");
    assert_eq!((&of(11)["type_uid"], &of(11)["action_id"]), (&400_105.into(), &2.into()));
    let findings: Vec<&Value> = events.iter().filter(|event| event["class_uid"] == 2004).collect();
    assert_eq!(findings.len(), 2, "one by its tier, one by its place");
    let traffic = events.iter().find(|event| event["activity_id"] == 6).expect("bytes of a destination");
    assert_eq!(traffic["traffic"]["bytes_out"], 48211);
}

fn otlp(scene: &Scene, log: &str) -> Value {
    let exported = scene.agentbox(&["log", "export", log, "--format", "otlp"]);
    exported.exits(0);
    serde_json::from_str(&exported.out).expect("one request")
}

fn spans(request: &Value) -> &Vec<Value> {
    request["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().expect("spans")
}

fn attribute<'a>(span: &'a Value, key: &str) -> &'a Value {
    let all = span["attributes"].as_array().expect("attributes");
    all.iter().find(|attribute| attribute["key"] == key).map_or(&Value::Null, |found| &found["value"])
}

#[test]
fn a_run_is_a_trace_of_its_actions_and_always_the_same_one() {
    let scene = Scene::new();
    let log = scene.file("agent.jsonl", chained(agent_records()));
    let request = otlp(&scene, text(&log));
    assert_eq!(request, otlp(&scene, text(&log)), "exported twice");
    let spans = spans(&request);
    let names: Vec<&str> = spans.iter().filter_map(|span| span["name"].as_str()).collect();
    assert_eq!(names, ["execute_tool Bash", "command git", "agentbox run agent"], "as they are complete");
    let [first, second, root] = spans.as_slice() else { panic!("{request:#}") };
    assert!(root["parentSpanId"].is_null());
    assert_eq!((&first["parentSpanId"], &second["parentSpanId"]), (&root["spanId"], &first["spanId"]));
    let hex = |value: &Value| value.as_str().expect("an id").bytes().all(|b| b.is_ascii_hexdigit());
    for span in spans {
        assert!(hex(&span["traceId"]) && span["traceId"].as_str().map(str::len) == Some(32), "{span}");
        assert!(hex(&span["spanId"]) && span["spanId"].as_str().map(str::len) == Some(16), "{span}");
        let nanoseconds = |key: &str| span[key].as_str().expect("text").parse::<u64>().expect("a number");
        assert!(nanoseconds("startTimeUnixNano") <= nanoseconds("endTimeUnixNano"));
        assert_eq!((&span["kind"], &span["events"]), (&1.into(), &Value::Null), "no act is an event of a span");
        assert_eq!(span["traceId"], root["traceId"]);
    }
    assert_eq!(first["startTimeUnixNano"], "1795435201000000000");
    assert_eq!(attribute(first, "gen_ai.operation.name")["stringValue"], "execute_tool");
    assert_eq!(attribute(first, "gen_ai.tool.name")["stringValue"], "Bash");
    assert_eq!(attribute(second, "agentbox.tier")["intValue"], "10");
    assert_eq!(attribute(second, "agentbox.blast.files.deleted")["intValue"], "60");
    assert_eq!(attribute(second, "agentbox.verdict")["stringValue"], "denied");
    assert_eq!(attribute(second, "agentbox.policy.rule")["stringValue"], "agent.yaml network");
    assert_eq!(root["status"], serde_json::json!({"code": 2, "message": "exit 3"}));
    assert!(!request.to_string().contains("which test fails"), "what may hold secrets stays in the log");
}

#[test]
fn a_run_is_part_of_the_trace_that_its_caller_names() {
    let scene = Scene::new();
    let given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    for (given, trace, parent) in
        [(given, Value::from(&given[3..35]), Value::from(&given[36..52])), ("00-no-trace", Value::Null, Value::Null)]
    {
        let (mut command, log) = scene.boxed_command(&[], &["/bin/sh", "-c", "uname; echo x > a"]);
        command.env("TRACEPARENT", given);
        run(command, b"").exits(0);
        let request = otlp(&scene, text(&log));
        let spans = spans(&request);
        let root = spans.last().expect("the run's own");
        assert_eq!((&root["name"], &root["parentSpanId"]), (&"agentbox run sh".into(), &parent));
        assert!(trace.is_null() || spans.iter().all(|span| span["traceId"] == trace), "{request:#}");
        assert!(spans.iter().any(|span| span["name"] == "command uname"), "{request:#}");
    }
}

#[test]
fn records_are_passed_on_as_they_are_and_a_broken_log_as_far_as_it_goes() {
    let scene = Scene::new();
    let whole = chained(agent_records());
    let log = scene.file("agent.jsonl", &whole);
    let same = scene.agentbox(&["log", "export", text(&log), "-f", "jsonl", "-o", "copy.jsonl"]);
    same.exits(0).must(same.out.is_empty(), "quiet");
    assert_eq!(fs::read_to_string(scene.work.join("copy.jsonl")).expect("the copy"), whole);
    let broken = scene.file("broken.jsonl", whole.replacen("\"v\":1", "\u{1b}", 1));
    for format in ["jsonl", "ocsf", "otlp"] {
        let exported = scene.agentbox(&["log", "export", text(&broken), "-f", format]);
        exported.exits(1).must(exported.err.contains("line 1: not a record"), "where");
        exported.must(!exported.out.is_empty() && !exported.out.contains('\u{1b}'), "the rest");
    }
    let itself = scene.agentbox(&["log", "export", text(&log), "-f", "ocsf", "-o", text(&log)]);
    itself.exits(125).must(itself.err.contains("is the log itself"), "why");
    assert_eq!(fs::read_to_string(&log).expect("the log"), whole);
    for bad in [&["-f", "xml"][..], &["-f", "ocsf", "-o", "no/such/dir"], &["no-such-run", "-f", "ocsf"], &[]] {
        scene.agentbox(&[&["log", "export"], bad].concat()).exits(125);
    }
}

/// `agentbox log export --format otlp` with these variables besides the scene's own.
fn sent(scene: &Scene, log: &Path, variables: &[(&str, &str)]) -> Outcome {
    let mut command = Command::new(agentbox());
    scene.dress(&mut command);
    command.args(["log", "export", text(log), "--format", "otlp"]).envs(variables.iter().copied());
    run(command, b"")
}

/// What a collector was sent: the head and the body of a request.
type Requests = mpsc::Receiver<(String, Value)>;

/// A collector that answers one request after the other with these, and tells what it was sent.
fn collector(answers: impl IntoIterator<Item = &'static str> + Send + 'static) -> (String, Requests) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let endpoint = format!("http://127.0.0.1:{}", listener.local_addr().expect("an address").port());
    (endpoint, collector_at(listener, answers))
}

fn collector_at(listener: TcpListener, answers: impl IntoIterator<Item = &'static str> + Send + 'static) -> Requests {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut unanswered = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().expect("a request");
            let mut input = BufReader::new(stream.try_clone().expect("the same stream"));
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                assert!(input.read_line(&mut head).expect("a line") > 0, "cut off: {head}");
            }
            let head = head.to_ascii_lowercase();
            let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
            let mut body = vec![0; length.expect("a length").parse().expect("a number")];
            input.read_exact(&mut body).expect("a body");
            let _ = sender.send((head, serde_json::from_slice(&body).expect("JSON")));
            // Who asked may be gone.
            let _ = stream.write_all(answer.as_bytes());
            if answer.is_empty() {
                unanswered.push(stream);
            }
        }
    });
    receiver
}

/// Never answers, and keeps the connection.
const HANGS: &str = "";
const TAKEN: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
const BUSY: &str = "HTTP/1.1 503 Busy\r\nretry-after: 0\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

#[test]
fn a_busy_collector_is_asked_again_and_gets_the_whole_trace() {
    let scene = Scene::new();
    let log = scene.file("agent.jsonl", chained(agent_records()));
    let (endpoint, requests) = collector([BUSY, BUSY, TAKEN]);
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-key=a%20b,other=1"),
        ("OTEL_SERVICE_NAME", "builds"),
        ("OTEL_RESOURCE_ATTRIBUTES", "team=blue"),
    ];
    let exported = sent(&scene, &log, &variables);
    exported.exits(0).must(exported.out == format!("3 spans sent to {endpoint}/v1/traces\n"), "what was sent");
    let requests: Vec<(String, Value)> = requests.iter().collect();
    assert_eq!(requests.len(), 3);
    for (head, body) in &requests {
        assert!(head.starts_with("post /v1/traces http/1.1\r\n") && head.contains("x-key: a b\r\n"), "{head}");
        assert!(head.contains("content-type: application/json\r\n"), "{head}");
        assert_eq!(spans(body), spans(&otlp(&scene, text(&log))));
        let resource = &body["resourceSpans"][0]["resource"];
        assert_eq!(attribute(resource, "service.name")["stringValue"], "builds");
        assert_eq!(attribute(resource, "team")["stringValue"], "blue");
    }
}

#[test]
fn a_collector_that_does_not_take_it_is_one_error_and_the_log_stays() {
    const REFUSED: &str =
        "HTTP/1.1 401 Unauthorized\r\ncontent-length: 23\r\nconnection: close\r\n\r\n{\"message\":\"no \\u001b\"}";
    const PARTLY: &str = "HTTP/1.1 200 OK\r\ncontent-length: 70\r\nconnection: close\r\n\r\n\
                          {\"partialSuccess\":{\"rejectedSpans\":\"2\",\"errorMessage\":\"out of quota\"}}";
    const ELSEWHERE: &str =
        "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let scene = Scene::new();
    let whole = chained(agent_records());
    let log = scene.file("agent.jsonl", &whole);
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        format!("http://127.0.0.1:{}", listener.local_addr().expect("an address").port())
    };
    for (endpoint, said) in [
        (closed, "refused"),
        (collector([REFUSED]).0, "the collector answered 401 Unauthorized: no \\u{1b}"),
        (collector([PARTLY]).0, "the collector refused 2 spans: out of quota"),
        (collector([ELSEWHERE]).0, "the collector answered 302"),
        ("http://no-such-host.invalid:4318".into(), "host not found"),
        ("localhost:4318".into(), "must begin with http://"),
    ] {
        let exported = sent(&scene, &log, &[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)]);
        exported.exits(125).must(exported.err.contains(said), said);
        exported.must(exported.err.lines().count() == 1 && !exported.err.contains('\u{1b}'), "one line");
        exported.must(exported.out.is_empty(), "nothing is said to be sent");
    }
    assert_eq!(fs::read_to_string(&log).expect("the log"), whole);
}

/// A Python that has the protocol's own definition: `$PYTHON`, or the system's.
fn python() -> Option<PathBuf> {
    let python = std::env::var_os("PYTHON").map(PathBuf::from).or_else(|| program("python3"))?;
    let mut command = Command::new(&python);
    command
        .args(["-c", "import opentelemetry.proto.collector.trace.v1.trace_service_pb2, google.protobuf.json_format"]);
    (command.stderr(Stdio::null()).status().ok()?.success()).then_some(python)
}

/// A child that is ended with the test.
struct Served(Child);

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the collector of the fixtures: its port, and the lines that it prints.
fn real_collector(scene: &Scene, python: &Path, args: &[&Path]) -> (Served, u16, Box<dyn Iterator<Item = String>>) {
    let script = scene.file("collector.py", include_str!("fixtures/collector.py"));
    let mut command = Command::new(python);
    command.arg(script).args(args).stdout(Stdio::piped());
    let mut child = common::start(command);
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines().map(|line| line.expect("a line"));
    let port = lines.next().and_then(|line| line.parse().ok()).expect("a port");
    (Served(child), port, Box::new(lines))
}

#[test]
fn a_real_reader_of_the_protocol_understands_every_span() {
    let Some(python) = python() else {
        skip!("no Python with opentelemetry-proto ($PYTHON names another): the protocol's own definition is not asked")
    };
    let scene = Scene::new();
    let log = scene.file("agent.jsonl", chained(agent_records()));
    let (_served, port, lines) = real_collector(&scene, &python, &[]);
    let endpoint = format!("http://localhost:{port}/");
    sent(&scene, &log, &[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint), ("OTEL_EXPORTER_OTLP_HEADERS", "x-key=k")])
        .exits(0);
    let spans: Vec<Value> = lines.take(3).map(|line| serde_json::from_str(&line).expect("JSON")).collect();
    let [tool, git, run] = spans.as_slice() else { panic!("{spans:#?}") };
    assert_eq!(tool["name"], "execute_tool Bash");
    assert_eq!((&tool["parent"], &git["parent"]), (&run["span"], &tool["span"]));
    assert_eq!((&run["kind"], &run["status"], &run["key"]), (&1.into(), &2.into(), &"k".into()));
    assert_eq!(git["attributes"]["agentbox.tier"], "int_value: 10");
    assert_eq!(run["attributes"]["agentbox.finished"], "bool_value: true");
}

#[test]
fn a_trace_goes_by_tls_only_to_whom_the_certificates_vouch_for() {
    let Some(python) = python() else { skip!("no Python with opentelemetry-proto ($PYTHON names another)") };
    if program("openssl").is_none() {
        skip!("no openssl to make a certificate with");
    }
    let scene = Scene::new();
    let [key, certificate, other] = ["key.pem", "certificate.pem", "other.pem"].map(|name| scene.root.join(name));
    for path in [&other, &certificate] {
        let made = scene.free(&[
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
            "-days",
            "2",
            "-keyout",
            text(&key),
            "-out",
            text(path),
        ]);
        made.exits(0);
    }
    let log = scene.file("agent.jsonl", chained(agent_records()));
    let (_served, port, lines) = real_collector(&scene, &python, &[&certificate, &key]);
    let endpoint = format!("https://localhost:{port}");
    let sent = |trusted: &Path| {
        let variables =
            [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()), ("OTEL_EXPORTER_OTLP_CERTIFICATE", text(trusted))];
        sent(&scene, &log, &variables)
    };
    let refused = sent(&other);
    refused.exits(125).must(refused.err.contains("certificate"), "why");
    sent(&certificate).exits(0);
    assert_eq!(lines.take(3).count(), 3);
}

/// A run that is exported while it goes on: says `uname`, waits for a line of its input, then starts `true` and `id`.
struct Live {
    agentbox: Child,
    log: PathBuf,
}

/// A policy that has every run exported.
const EXPORTED: &str = "version: 1\nextends: [default]\naudit: {export: otlp}\n";

const LIVE: &str = "uname > a; read go; /bin/true; id > b; exit 7";

impl Live {
    fn start(scene: &Scene, endpoint: &str, flags: &[&str]) -> Self {
        let (mut command, log) = scene.boxed_command(flags, &["/bin/sh", "-c", LIVE]);
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint).env("OTEL_EXPORTER_OTLP_HEADERS", "x-key=a-secret");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self { agentbox: common::start(command), log }
    }

    /// Lets it go on, to its end.
    fn end(self) -> Outcome {
        finish(self.agentbox, b"go\n", &self.log)
    }
}

/// `agentbox log export` in the scene, with pipes.
fn exporter(scene: &Scene, endpoint: &str, args: &[&str]) -> Child {
    let mut command = Command::new(agentbox());
    scene.dress(&mut command);
    command.args(["log", "export"]).args(args);
    if !endpoint.is_empty() {
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    common::start(command)
}

/// The log of the scene's first run.
fn live_log(scene: &Scene) -> PathBuf {
    scene.root.join("audit-0.jsonl")
}

/// The directory of the scene's one run.
fn run_dir(scene: &Scene) -> PathBuf {
    let runs = fs::read_dir(scene.root.join("state/agentbox/runs")).expect("runs");
    let mut runs = runs.map(|run| run.expect("a run").path());
    match (runs.next(), runs.next()) {
        (Some(run), None) => run,
        other => panic!("one run, not {other:?}"),
    }
}

/// What is kept of how far the collector is.
fn cursor(scene: &Scene) -> String {
    let name = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with("exported-");
    let mut entries = fs::read_dir(run_dir(scene)).expect("the run's directory").flatten();
    entries.find(name).map(|entry| fs::read_to_string(entry.path()).expect("a cursor")).unwrap_or_default()
}

/// The exporters of the scene's one run.
fn exporters(scene: &Scene) -> Vec<i32> {
    processes_with(text(&run_dir(scene)))
}

/// The names of the spans of requests, and that no span is among them twice.
fn names(requests: impl IntoIterator<Item = (String, Value)>) -> Vec<String> {
    let bodies: Vec<Value> = requests.into_iter().map(|(_, body)| body).collect();
    let all: Vec<&Value> = bodies.iter().flat_map(spans).collect();
    let ids: BTreeSet<&str> = all.iter().filter_map(|span| span["spanId"].as_str()).collect();
    assert_eq!(ids.len(), all.len(), "a span twice: {all:#?}");
    all.iter().filter_map(|span| span["name"].as_str()).map(str::to_string).collect()
}

/// Holds all the requests of a [`Live`] run against what it did.
#[track_caller]
fn is_whole(requests: impl IntoIterator<Item = (String, Value)>) {
    let mut names = names(requests);
    names.sort_unstable();
    assert_eq!(names, ["agentbox run sh", "command id", "command true", "command uname"]);
}

fn next_names(requests: &Requests) -> Vec<String> {
    names([requests.recv_timeout(common::PATIENCE).expect("a request")])
}

/// The one line that a run leaves when not all was taken, and what the command in it then says.
fn sends_the_rest(scene: &Scene, ended: &Outcome, endpoint: &str) -> Outcome {
    let [line] = ended.err.lines().collect::<Vec<_>>()[..] else { panic!("one line\n{ended}") };
    assert!(line.starts_with(&format!("agentbox: {endpoint}/v1/traces has not taken the whole trace")), "{line}");
    let words: Vec<&str> = line.split('`').nth(1).expect("a command").split(' ').collect();
    assert_eq!(words[0], "agentbox");
    let mut command = Command::new(agentbox());
    scene.dress(&mut command);
    command.args(&words[1..]).env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint);
    command.env("OTEL_EXPORTER_OTLP_HEADERS", "x-key=a-secret");
    run(command, b"")
}

#[test]
fn a_real_receiver_gets_the_spans_of_a_run_before_it_ends() {
    let Some(python) = python() else { skip!("no Python with opentelemetry-proto ($PYTHON names another)") };
    let scene = Scene::new();
    let (_served, port, mut lines) = real_collector(&scene, &python, &[]);
    let mut live = Live::start(&scene, &format!("http://localhost:{port}"), &["--export", "otlp"]);
    let mut next = || -> Value { serde_json::from_str(&lines.next().expect("a span")).expect("JSON") };
    let first = next();
    assert_eq!((&first["name"], &first["key"]), (&"command uname".into(), &"a-secret".into()));
    assert!(live.agentbox.try_wait().expect("look").is_none(), "it goes on");
    assert_eq!(exporters(&scene).len(), 1);
    let ended = live.end();
    ended.exits(7).must(ended.err.is_empty(), "nothing to say");
    let rest = [next(), next(), next()];
    let mut got: Vec<&str> = rest.iter().filter_map(|span| span["name"].as_str()).collect();
    assert_eq!(got.pop(), Some("agentbox run sh"), "the run itself is complete last");
    assert_eq!(BTreeSet::from_iter(got), BTreeSet::from(["command true", "command id"]));
    assert_eq!(rest[2]["span"], first["parent"]);
    assert_eq!(rest[2]["attributes"]["process.exit.code"], "int_value: 7");
    assert!(exporters(&scene).is_empty(), "nothing is left behind");
    for kept in [fs::read_to_string(live_log(&scene)).expect("the log"), cursor(&scene)] {
        assert!(!kept.contains("a-secret"), "{kept}");
    }
    let about = fs::read_to_string(run_dir(&scene).join("run.json")).expect("run.json");
    assert!(!about.contains("a-secret"), "{about}");
}

#[test]
fn a_box_neither_sees_the_exporter_nor_the_keys_of_the_collector() {
    let scene = Scene::new();
    let (endpoint, requests) = collector(std::iter::repeat(TAKEN));
    let passing = "version: 1\nextends: [default]\nenv:\n  pass: [\"*\"]\n";
    let policy = scene.file("passing.yaml", passing);
    let line = "uname; read go; env; cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ | tr '\\0' '\\n'";
    let (mut command, log) = scene.boxed_command(&["-p", text(&policy), "--export", "otlp"], &["/bin/sh", "-c", line]);
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint).env("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "x-key=a-secret");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let agentbox = common::start(command);
    assert_eq!(next_names(&requests), ["command uname"]);
    assert_eq!(exporters(&scene).len(), 1, "it is there, outside");
    let seen = finish(agentbox, b"go\n", &log);
    seen.exits(0)
        .must(seen.out.contains("OTEL_EXPORTER_OTLP_ENDPOINT"), "what is no secret is passed as the policy says");
    seen.must(!seen.out.contains("a-secret") && !seen.out.contains("--follow"), "the exporter");
}

#[test]
fn what_a_collector_that_is_down_has_missed_it_gets_when_it_is_back() {
    let scene = Scene::new();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let endpoint = format!("http://{address}");
    let live = Live::start(&scene, &endpoint, &["--export", "otlp"]);
    await_until("a first try", || {
        scene.root.join("state/agentbox/runs").exists() && cursor(&scene).contains("refused")
    });
    let requests = collector_at(TcpListener::bind(address).expect("the same port"), std::iter::repeat(TAKEN));
    let first = requests.recv_timeout(common::PATIENCE).expect("a request");
    let ended = live.end();
    ended.exits(7).must(ended.err.is_empty(), "nothing to say");
    is_whole([first].into_iter().chain(requests.try_iter()));
}

#[test]
fn a_run_ends_while_the_collector_hangs_and_says_what_sends_the_rest() {
    let scene = Scene::new();
    let (endpoint, requests) = collector(std::iter::once(HANGS).chain(std::iter::repeat(TAKEN)));
    let live = Live::start(&scene, &endpoint, &["--export", "otlp"]);
    assert_eq!(next_names(&requests), ["command uname"]);
    let ended = live.end();
    ended.exits(7);
    assert!(exporters(&scene).is_empty(), "nothing is left behind");
    let sent = sends_the_rest(&scene, &ended, &endpoint);
    sent.exits(0).must(sent.out == format!("4 spans sent to {endpoint}/v1/traces\n"), "all of it");
    is_whole(requests.try_iter());
    let nothing = sends_the_rest(&scene, &ended, &endpoint);
    nothing.exits(0).must(nothing.out.starts_with("0 spans sent to") && nothing.out.ends_with(", 4 before\n"), "once");
}

#[test]
fn a_collector_that_says_when_to_come_again_is_obeyed() {
    const LATER: &str = "HTTP/1.1 429 Slow\r\nretry-after: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let scene = Scene::new();
    let (endpoint, requests) = collector([LATER, BUSY].into_iter().chain(std::iter::repeat(TAKEN)));
    let policy = scene.file("exported.yaml", EXPORTED);
    let live = Live::start(&scene, &endpoint, &["-p", text(&policy)]);
    let next = || requests.recv_timeout(common::PATIENCE).expect("a request").1;
    let (first, second, third) = (next(), next(), next());
    assert!(first == second && second == third, "the same, in its turn");
    let ended = live.end();
    ended.exits(7).must(ended.err.is_empty(), "nothing to say");
    is_whole([(String::new(), third)].into_iter().chain(requests.try_iter()));
}

#[test]
fn what_an_exporter_that_was_killed_left_is_sent_later_and_nothing_twice() {
    let scene = Scene::new();
    let (endpoint, requests) = collector(std::iter::repeat(TAKEN));
    let live = Live::start(&scene, &endpoint, &["--export", "otlp"]);
    let first = requests.recv_timeout(common::PATIENCE).expect("a request");
    await_until("the answer is taken down", || cursor(&scene).contains(r#""spans":1,"#));
    let [exporter] = exporters(&scene)[..] else { panic!("one exporter") };
    kill(Pid::from_raw(exporter), Signal::SIGKILL).expect("kill the exporter");
    let ended = live.end();
    ended.exits(7);
    let sent = sends_the_rest(&scene, &ended, &endpoint);
    sent.exits(0).must(sent.out.starts_with("3 spans sent to") && sent.out.ends_with(", 1 before\n"), "the rest");
    is_whole([first].into_iter().chain(requests.try_iter()));
}

#[test]
fn the_records_of_an_agentbox_that_was_killed_still_arrive() {
    let scene = Scene::new();
    let (endpoint, requests) = collector(std::iter::repeat(TAKEN));
    let mut live = Live::start(&scene, &endpoint, &["--export", "otlp"]);
    let first = requests.recv_timeout(common::PATIENCE).expect("a request");
    live.agentbox.kill().expect("SIGKILL to agentbox");
    live.agentbox.wait().expect("reap it");
    let last = requests.recv_timeout(common::PATIENCE).expect("what is left");
    await_until("the exporter has ended", || exporters(&scene).is_empty());
    let root = spans(&last.1).last().expect("the run").clone();
    assert_eq!(attribute(&root, "agentbox.finished")["boolValue"], false);
    assert_eq!(names([first, last]), ["command uname", "agentbox run sh"]);
}

#[test]
fn of_two_exporters_at_once_one_waits_and_no_span_goes_twice() {
    let scene = Scene::new();
    let (endpoint, requests) = collector(std::iter::repeat(TAKEN));
    let live = Live::start(&scene, "", &[]);
    await_until("the run has begun", || scene.work.join("a").exists());
    let log = text(&live.log).to_string();
    let first = exporter(&scene, &endpoint, &["--format", "otlp", "--follow", &log]);
    let begun = requests.recv_timeout(common::PATIENCE).expect("a request");
    let mut second = exporter(&scene, &endpoint, &["--format", "otlp", "--follow", &log]);
    let mut said = String::new();
    BufReader::new(second.stderr.take().expect("a pipe")).read_line(&mut said).expect("a line");
    assert!(said.starts_with("agentbox: another agentbox sends this run to http://127.0.0.1:"), "{said}");
    live.end().exits(7);
    let none = Path::new("/nonexistent");
    finish(first, b"", none).exits(0);
    let second = finish(second, b"", none);
    second.exits(0).must(second.out.starts_with("0 spans sent to"), "nothing was left");
    is_whole([begun].into_iter().chain(requests.try_iter()));
}

#[test]
fn a_collector_goes_on_where_it_is_and_another_gets_all_of_it() {
    let scene = Scene::new();
    scene.boxed_sh(&[], "uname; id").exits(0);
    let log = live_log(&scene);
    let (endpoint, requests) = collector(std::iter::repeat(TAKEN));
    let to = ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str());
    let said = |variables: &[(&str, &str)]| sent(&scene, &log, variables).exits(0).out.clone();
    assert_eq!(said(&[to]), format!("3 spans sent to {endpoint}/v1/traces\n"));
    assert_eq!(said(&[to]), format!("0 spans sent to {endpoint}/v1/traces, 3 before\n"));
    assert_eq!(
        said(&[to, ("OTEL_EXPORTER_OTLP_HEADERS", "team=b")]),
        format!("3 spans sent to {endpoint}/v1/traces\n")
    );
    let again = exporter(&scene, &endpoint, &["--format", "otlp", "--again"]);
    assert_eq!(
        finish(again, b"", Path::new("/nonexistent")).exits(0).out,
        format!("3 spans sent to {endpoint}/v1/traces\n")
    );
    let bodies: Vec<Value> = requests.try_iter().map(|(_, body)| body).collect();
    assert!(bodies.len() == 3 && bodies.iter().all(|body| *body == bodies[0]), "the same spans each time");
}

#[test]
fn a_broken_line_is_named_and_what_is_around_it_arrives() {
    let scene = Scene::new();
    let mut lines: Vec<String> = chained(agent_records()).lines().map(str::to_string).collect();
    lines[6] = "\u{1b}not a record".into();
    let log = scene.file("broken.jsonl", lines.join("\n") + "\n");
    let (endpoint, requests) = collector(std::iter::repeat(TAKEN));
    let ended =
        finish(exporter(&scene, &endpoint, &["-f", "otlp", "--follow", text(&log)]), b"", Path::new("/nonexistent"));
    ended.exits(1).must(ended.err.contains("line 7: not a record") && !ended.err.contains('\u{1b}'), "where");
    ended.must(ended.out == format!("3 spans sent to {endpoint}/v1/traces\n"), "the rest");
    assert_eq!(names(requests.try_iter()), ["execute_tool Bash", "command git", "agentbox run agent"]);
}

#[test]
fn records_and_events_are_written_while_the_run_goes_on() {
    let scene = Scene::new();
    let live = Live::start(&scene, "", &[]);
    await_until("the run has begun", || scene.work.join("a").exists());
    let log = text(&live.log).to_string();
    let follow = |format| exporter(&scene, "", &["--follow", &log, "--format", format]);
    let (jsonl, ocsf, otlp, mut told) = (follow("jsonl"), follow("ocsf"), follow("otlp"), follow("jsonl"));
    let mut first = String::new();
    let mut output = BufReader::new(told.stdout.take().expect("a pipe"));
    output.read_line(&mut first).expect("a record");
    assert!(first.contains(r#""kind":"start""#), "{first}");
    kill(Pid::from_raw(told.id().cast_signed()), Signal::SIGINT).expect("end it");
    let mut rest = String::new();
    output.read_to_string(&mut rest).expect("its output");
    assert!(rest.is_empty() || rest.ends_with('\n'), "ended in the middle of a record: {rest}");
    let none = Path::new("/nonexistent");
    finish(told, b"", none).exits(130);
    live.end().exits(7);
    assert_eq!(finish(jsonl, b"", none).exits(0).out, fs::read_to_string(&log).expect("the log"));
    let events = json_lines(&finish(ocsf, b"", none).exits(0).out);
    events.iter().for_each(is_ocsf);
    is_chained(&events);
    let requests = json_lines(&finish(otlp, b"", none).exits(0).out);
    is_whole(requests.into_iter().map(|body| (String::new(), body)));
}

#[test]
fn a_run_that_cannot_be_exported_does_not_start() {
    let scene = Scene::new();
    let general = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1");
    let policy = scene.file("exported.yaml", EXPORTED);
    for (flags, variables, said) in [
        (&[][..], &[][..], "set OTEL_EXPORTER_OTLP_ENDPOINT, such as http://127.0.0.1:4318"),
        (&[], &[("OTEL_EXPORTER_OTLP_ENDPOINT", "127.0.0.1:1")], "must begin with http://"),
        (&[], &[general, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")], "set it to http/json"),
        (&[], &[general, ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon")], "must be milliseconds"),
        (&["--log", "/dev/null"], &[general], "leave --log out"),
        (&["-p", text(&policy)], &[], "or run with --export none"),
    ] {
        let mut command = Command::new(agentbox());
        scene.dress(&mut command);
        let flag: &[&str] = if flags.contains(&"-p") { &[] } else { &["--export", "otlp"] };
        command.arg("run").args(flag).args(flags).args(["--", "touch", "begun"]);
        command.envs(variables.iter().copied());
        let refused = run(command, b"");
        refused.exits(125).must(refused.err.contains(said) && refused.err.lines().count() == 1, said);
        refused.must(!scene.work.join("begun").exists(), "the command has not run");
    }
    scene.boxed(&["-p", text(&policy), "--export", "none"], &["touch", "begun"]).exits(0);
    let follow = exporter(&scene, "", &["--follow", "-f", "jsonl", "-o", "file"]);
    let refused = finish(follow, b"", Path::new("/nonexistent"));
    refused.exits(125).must(refused.err.contains("leave -o out"), "why");
}
