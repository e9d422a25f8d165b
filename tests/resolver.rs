//! The box's own resolver: what is allowed resolves, what is refused never leaves the host, and everything is on record.
//!
//! Each test runs in a network and a mount namespace of its own, with a name server in it (`fixtures/names.py`).

mod common;

use std::fs;
use std::time::Duration;

use common::{Outcome, Scene, agentbox, program, root, run_logged, text};
use serde_json::{Value, json};

const NAMES_PY: &str = include_str!("fixtures/names.py");

/// Looks each argument up, as `NAME` or `NAME/TYPE`, and prints the addresses or the error.
const LOOK_UP: &str = r#"
import socket, sys, time
for name in sys.argv[1:]:
    begun = time.monotonic()
    try:
        found = sorted({entry[4][0] for entry in socket.getaddrinfo(name, 80, socket.AF_INET, socket.SOCK_STREAM)})
        told = " ".join(found) if len(found) < 9 else f"{len(found)} addresses"
    except socket.gaierror as error:
        told = {socket.EAI_NONAME: "no such name", socket.EAI_AGAIN: "try again"}.get(error.errno, str(error))
    slow = " (slow)" if time.monotonic() - begun > 1.5 else ""
    print(f"{name}: {told}{slow}")
"#;

const RESOLV: &str = "search corp.example example.org\nnameserver 203.0.113.53\noptions timeout:1 attempts:1 rotate\n";
const ALLOW: [&str; 8] = [
    "--net",
    "rules",
    "--net-allow",
    "*.example.org:80",
    "--net-allow",
    "host.corp.example:80",
    "--net-allow",
    "db.internal:5432",
];

/// A run in namespaces of its own, and what the name server was asked.
struct Ran {
    outcome: Outcome,
    asked: Vec<Value>,
    untouched: bool,
}

impl Ran {
    /// The names that reached the server.
    fn names(&self) -> Vec<&str> {
        self.asked.iter().filter_map(|asked| asked[0].as_str()).collect()
    }

    /// The decisions about names: `NAME TYPE VERDICT OUTCOME`, each once, in order.
    fn resolved(&self) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        for record in self.outcome.records.iter().filter(|record| record["op"] == "resolve") {
            let word = |value: &Value| value.as_str().unwrap_or("?").to_string();
            let target = &record["target"];
            let parts = [&target["name"], &target["record"], &record["verdict"], &record["outcome"]].map(word);
            let line = parts.join(" ");
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
        lines
    }

    #[track_caller]
    fn says(&self, lines: &[&str]) -> &Self {
        let out: Vec<&str> = self.outcome.out.lines().collect();
        assert_eq!(out, lines, "asked: {:?}\n{}", self.names(), self.outcome);
        self
    }
}

/// Why no such namespaces can be had here, if so.
fn missing(scene: &Scene) -> Option<String> {
    for name in ["python3", "ip", "unshare"] {
        if program(name).is_none() {
            return Some(format!("no {name} on this host"));
        }
    }
    let tried = scene.free(&[&unshare()[..], &["true"]].concat());
    (tried.code != 0).then(|| format!("no namespaces for this user: {}", tried.err.trim()))
}

fn unshare() -> Vec<&'static str> {
    let kinds = if root() { "-mn" } else { "-Urmn" };
    vec!["unshare", kinds, "--propagation", "private", "--"]
}

/// Runs `argv` in the box, in namespaces that are furnished as `options` say; `before` stands between them and the box.
#[track_caller]
fn run_as(scene: &Scene, before: &[&str], options: Value, flags: &[&str], argv: &[&str]) -> Ran {
    let fixture = scene.file("names.py", NAMES_PY);
    let (report, log) = (scene.root.join("report.json"), scene.root.join("audit.jsonl"));
    let _ = (fs::remove_file(&report), fs::remove_file(&log));
    let binary = agentbox();
    let python = program("python3").expect("looked for before");
    let options = options.to_string();
    let server = [text(&python), text(&fixture), text(&report), &options];
    let boxed = [text(&binary), "run", "--log", text(&log)];
    let words = [&unshare()[..], &server, before, &boxed, flags, &["--"], argv].concat();
    let outcome = run_logged(scene.free_command(&words), b"", &log);
    let told: Value = serde_json::from_slice(&fs::read(&report).unwrap_or_else(|error| panic!("{error}\n{outcome}")))
        .expect("the server's report");
    let asked = told["asked"].as_array().expect("a list").clone();
    Ran { untouched: told["untouched"] == true, asked, outcome }
}

#[track_caller]
fn look_up(scene: &Scene, options: Value, names: &[&str]) -> Ran {
    let ran = run_as(scene, &[], options, &ALLOW, &[&["python3", "-c", LOOK_UP], names].concat());
    ran.outcome.exits(0);
    ran
}

macro_rules! scene {
    () => {{
        let scene = Scene::new();
        if let Some(why) = missing(&scene) {
            skip!("{why}");
        }
        scene
    }};
}

#[test]
fn what_is_allowed_resolves_and_what_is_refused_stays_here() {
    let scene = scene!();
    let names = [
        "www.example.org",
        "WwW.eXaMpLe.OrG",
        "fresh.example.org.",
        "alias.example.org",
        "big.example.org",
        "host",
        "localhost",
        "secret.evil.example.",
        "gone.example.org.",
    ];
    let ran = look_up(&scene, json!({ "resolv": RESOLV }), &names);
    ran.says(&[
        "www.example.org: 203.0.113.10",
        "WwW.eXaMpLe.OrG: 203.0.113.10",
        "fresh.example.org.: 203.0.113.11",
        "alias.example.org: 203.0.113.12",
        "big.example.org: 200 addresses",
        "host: 203.0.113.13",
        "localhost: 127.0.0.1",
        "secret.evil.example.: no such name",
        "gone.example.org.: no such name",
    ]);
    let asked = ran.names();
    assert!(asked.iter().all(|name| name.ends_with(".example.org") || *name == "host.corp.example"), "{asked:?}");
    assert!(asked.iter().all(|name| name.bytes().all(|byte| !byte.is_ascii_uppercase())), "{asked:?}");
    assert!(ran.asked.iter().all(|asked| asked[3] == false), "something beside the question went out");
    assert!(ran.asked.contains(&json!(["big.example.org", 1, "tcp", false])), "{:?}", ran.asked);
    let resolved = ran.resolved();
    for line in [
        "www.example.org A allow ok",
        "host.corp.example A allow ok",
        "secret.evil.example A deny EACCES",
        "gone.example.org A allow ENOENT",
    ] {
        assert!(resolved.iter().any(|known| known == line), "{line} is missing: {resolved:?}");
    }
    let python = ran.outcome.decisions("not_granted");
    assert!(python[0]["process"]["exe"].as_str().is_some_and(|exe| exe.contains("python")), "{python:?}");
    assert!(ran.untouched, "the host's file has changed");
}

#[test]
fn what_is_no_name_of_a_host_never_leaves() {
    let scene = scene!();
    let script = r#"
import socket, struct
def ask(labels, kind=1, more=b""):
    name = b"".join(bytes([len(l)]) + l for l in labels) + b"\0"
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.settimeout(3)
    sock.connect(("127.0.0.1", 53))
    sock.send(struct.pack("!6H", 7, 0x100, 1, 0, 0, 0) + name + struct.pack("!HH", kind, 1) + more)
    try: return sock.recv(4096)[3] & 15
    except TimeoutError: return "silence"
org = [b"example", b"org"]
print(ask([b"a\0b"] + org), ask([b"a b"] + org), ask([b"www.example.org"]), ask([b"\xc3\xa9"] + org), ask([]))
print(ask([b"a" * 63] * 3 + [b"b" * 70]), ask([b"a" * 63] * 5), ask([b"www"] + org, 252))
print(ask([b"www"] + org, 1, b"secret" * 20), ask([b"_x", b"_tcp"] + org, 33), ask([b"txt"] + org, 16))
"#;
    let ran = run_as(&scene, &[], json!({ "resolv": RESOLV }), &ALLOW, &["python3", "-c", script]);
    ran.outcome.exits(0);
    ran.says(&["3 3 3 3 3", "1 1 4", "0 0 0"]);
    assert_eq!(ran.names(), ["www.example.org", "_x._tcp.example.org", "txt.example.org"]);
    assert!(ran.asked.iter().all(|asked| asked[3] == false), "{:?}", ran.asked);
    let resolved = ran.resolved();
    assert!(resolved.iter().any(|line| line.starts_with(r"a\x00b.example.org A")), "{resolved:?}");
    assert!(resolved.iter().any(|line| line.starts_with(r"www\x2eexample\x2eorg A")), "{resolved:?}");
}

#[test]
fn a_server_that_is_gone_is_a_failure_on_record() {
    let scene = scene!();
    let ran = look_up(&scene, json!({ "resolv": RESOLV, "silent": true }), &["www.example.org.", "www.evil.example."]);
    ran.says(&["www.example.org.: try again", "www.evil.example.: no such name"]);
    let resolved = ran.resolved();
    assert!(resolved.contains(&"www.example.org A allow ECONNREFUSED".to_string()), "{resolved:?}");
    assert!(resolved.contains(&"www.evil.example A deny EACCES".to_string()), "{resolved:?}");
}

#[test]
fn names_of_the_hosts_own_file_are_answered_without_a_server() {
    let scene = scene!();
    let hosts = "127.0.0.1 localhost\n203.0.113.77 db.internal db.secret\n";
    let script = r#"
import socket, struct
kinds, server = socket.AF_INET, "127.0.0.1"
def ask(name):
    sock = socket.socket(kinds, socket.SOCK_DGRAM)
    sock.settimeout(3)
    sock.connect((server, 53))
    wire = b"".join(bytes([len(l)]) + l.encode() for l in name.split(".")) + b"\0"
    sock.send(struct.pack("!6H", 7, 0x100, 1, 0, 0, 0) + wire + struct.pack("!HH", 1, 1))
    answer = sock.recv(4096)
    return answer[3] & 15, ".".join(map(str, answer[-4:])) if answer[7] else None
print(ask("DB.internal"), ask("db.secret"))
if open("/proc/net/if_inet6").read():
    kinds, server = socket.AF_INET6, "::1"
    assert ask("db.internal") == (0, "203.0.113.77")
"#;
    let options = json!({ "resolv": RESOLV, "hosts": hosts });
    let ran = run_as(&scene, &[], options, &ALLOW, &["python3", "-c", script]);
    ran.outcome.exits(0);
    ran.says(&["(0, '203.0.113.77') (3, None)"]);
    assert_eq!(ran.names(), [""; 0]);
    assert_eq!(ran.resolved(), ["db.internal A allow ok", "db.secret A deny EACCES"]);
}

#[test]
fn the_view_names_the_boxs_own_resolver_and_the_host_keeps_its_file() {
    let scene = scene!();
    let show = "cat /etc/resolv.conf; ls /dev/shm; (echo x >>/etc/resolv.conf); rm /etc/resolv.conf; \
                mv /etc/resolv.conf /etc/x; getent ahostsv4 host | head -n1 | cut -d' ' -f1";
    let expected = ["nameserver 127.0.0.1", "search corp.example example.org", "options timeout:1 attempts:1"];
    let linked = json!({ "resolv": RESOLV, "link": "/srv/resolve/stub-resolv.conf" });
    for (options, flags) in [
        (json!({ "resolv": RESOLV }), &["-q"][..]),
        (json!({ "resolv": RESOLV }), &["-q", "-w", "/etc"]),
        (linked.clone(), &["-q"]),
        (linked.clone(), &["-q", "-w", "/srv", "-w", "/etc"]),
        (linked, &["-q", "--audit-level", "all"]),
    ] {
        let flags = [&ALLOW[..], flags].concat();
        let ran = run_as(&scene, &[], options.clone(), &flags, &["sh", "-c", show]);
        ran.says(&[&expected[..], &["203.0.113.13"]].concat());
        let errors =
            ["cannot create /etc/resolv.conf", "cannot remove '/etc/resolv.conf'", "cannot move '/etc/resolv.conf'"];
        ran.outcome.must(errors.iter().all(|error| ran.outcome.err.contains(error)), "the file can be changed");
        assert!(ran.untouched, "{options} {flags:?}: the host's file has changed");
    }
}

#[test]
fn a_host_without_the_file_asks_its_own_loopback() {
    let scene = scene!();
    let line = "cat /etc/resolv.conf 2>&1; getent ahostsv4 www.example.org; echo $?";
    let ran = run_as(&scene, &[], json!({ "resolv": null }), &ALLOW, &["sh", "-c", line]);
    ran.outcome.exits(0).must(ran.outcome.out.contains("No such file") && ran.outcome.out.ends_with("2\n"), "no file");
    assert_eq!(ran.resolved(), ["www.example.org A allow ECONNREFUSED"]);
}

#[test]
fn other_resolvers_find_what_libc_finds() {
    let scene = scene!();
    let mut ran_any = false;
    for (name, line, marks) in [
        (
            "getent",
            "getent ahostsv4 www.example.org; getent ahostsv4 www.evil.example; echo $?",
            &["203.0.113.10", "2"][..],
        ),
        (
            "busybox",
            "busybox nslookup www.example.org; busybox nslookup www.evil.example",
            &["203.0.113.10", "NXDOMAIN"],
        ),
        ("dig", "dig +tcp +short www.example.org; dig www.evil.example", &["203.0.113.10", "NXDOMAIN", "EDE: 15"]),
        ("dig", "dig +short +nocookie -x 203.0.113.10; dig +short www.example.org", &["203.0.113.10"]),
        ("host", "host www.example.org", &["203.0.113.10"]),
    ] {
        if program(name).is_none() {
            continue;
        }
        ran_any = true;
        let ran = run_as(&scene, &[], json!({ "resolv": RESOLV }), &ALLOW, &["sh", "-c", line]);
        for mark in marks {
            ran.outcome.must(ran.outcome.out.contains(mark), &format!("{line}: {mark} is missing"));
        }
        ran.outcome.must(ran.outcome.took < Duration::from_secs(5), "it waits");
        assert!(!ran.names().iter().any(|name| name.ends_with("evil.example")), "{:?}", ran.names());
    }
    if !ran_any {
        skip!("no getent, busybox, dig or host on this host");
    }
}

#[test]
fn an_ordinary_user_has_the_same_resolver() {
    let scene = scene!();
    if !root() {
        skip!("only root can become an ordinary user; that user's own tests run the box as such");
    }
    if program("setpriv").is_none() {
        skip!("no setpriv on this host");
    }
    let owned = std::process::Command::new("chown").args(["-R", "65534:65534"]).arg(&scene.root).status();
    assert!(owned.expect("run chown").success());
    let user = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--"];
    let argv = [&["python3", "-c", LOOK_UP], &["www.example.org", "www.evil.example."][..]].concat();
    let ran = run_as(&scene, &user, json!({ "resolv": RESOLV }), &ALLOW, &argv);
    ran.outcome.exits(0);
    ran.says(&["www.example.org: 203.0.113.10", "www.evil.example.: no such name"]);
    assert!(ran.names().iter().all(|name| *name == "www.example.org"), "{:?}", ran.names());
}

#[test]
fn a_box_without_rules_has_no_resolver() {
    let scene = scene!();
    let line = "head -n1 /etc/resolv.conf; getent ahostsv4 www.example.org; echo $?; ip -br addr show lo | tr -s ' '";
    let ran = run_as(&scene, &[], json!({ "resolv": RESOLV }), &["--net", "none"], &["sh", "-c", line]);
    ran.says(&["search corp.example example.org", "2", "lo UNKNOWN 127.0.0.1/8 ::1/128 "]);
    assert_eq!((ran.names(), ran.resolved()), (vec![], vec![]));
}
