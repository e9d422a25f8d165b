//! `agentbox log`: questions to a log, one record, the tree, the numbers, and a run watched while it goes on.

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use common::{Scene, agentbox, await_until, finish, start, text, unique_seconds};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// A log with a right chain: `(kind, fields)` a record.
fn chained(records: &[(&str, Value)]) -> String {
    let (mut log, mut prev) = (String::new(), "0".repeat(64));
    for (n, (kind, fields)) in records.iter().enumerate() {
        let fields = fields.to_string();
        let line = format!(r#"{{"v":1,"seq":{},"prev":"{prev}","kind":"{kind}",{}"#, n + 1, &fields[1..]);
        prev = Sha256::digest(&line).iter().map(|byte| format!("{byte:02x}")).collect();
        log.push_str(&line);
        log.push('\n');
    }
    log
}

const RUN: &str = "20261123-010000-000001";

fn at(second: u32) -> String {
    format!("2026-11-23T01:00:{second:02}.000000Z")
}

fn begin() -> (&'static str, Value) {
    let policy = json!({"name": "default.yaml", "digest": "00"});
    let start = json!({"time": at(0), "run": RUN, "agentbox": "0.1.0", "command": ["agent"], "policy": policy,
        "coverage": null});
    ("start", start)
}

fn end() -> (&'static str, Value) {
    let result = json!({"exit": 0, "signal": null, "timed_out": false});
    let end = json!({"time": at(59), "run": RUN, "result": result, "counts": {}, "recorded": 9, "dropped": 0,
        "write_errors": 0});
    ("end", end)
}

fn decision(
    second: u32,
    action: &str,
    (pid, parents): (i32, &[i32]),
    op: &str,
    target: Value,
) -> (&'static str, Value) {
    let process = json!({"pid": pid, "host": 1000 + pid, "exe": "/usr/bin/sh", "parents": parents});
    let record = json!({"time": at(second), "run": RUN, "action": action, "process": process, "op": op,
        "target": target, "verdict": "allow", "rule": "default.yaml filesystem.write[0]", "reason": "granted",
        "layer": "supervisor", "outcome": "ok", "latency_us": 12.5});
    ("decision", record)
}

fn exec(argv: &[&str]) -> Value {
    let called = argv[0];
    json!({"program": format!("/usr/bin/{called}"), "called": called, "argv": argv, "argc": argv.len()})
}

/// A scene, and the log of a run in it that wrote, deleted and was refused.
fn ran() -> (Scene, PathBuf) {
    let scene = Scene::new();
    let line = "mkdir src; echo x > src/a; echo y > b; rm b; echo z > ../../outside/f; exit 0";
    let flags = ["-r", text(&scene.outside)];
    scene.boxed_sh(&flags, line).exits(0);
    let log = scene.root.join("audit-0.jsonl");
    (scene, log)
}

#[test]
fn a_question_prints_the_lines_that_fit_byte_for_byte() {
    let (scene, log) = ran();
    let whole = fs::read_to_string(&log).expect("the log");
    let fitting = |fits: &dyn Fn(&Value) -> bool| -> String {
        let lines = whole.split_inclusive('\n');
        lines.filter(|line| fits(&serde_json::from_str(line).expect("a record"))).collect()
    };
    let ask = |flags: &[&str]| {
        let asked = scene.agentbox(&[&["log", text(&log), "--json"], flags].concat());
        asked.exits(0).must(asked.err.is_empty(), "nothing is wrong");
        asked.out
    };
    let path = |record: &Value| record["target"]["path"].as_str().unwrap_or_default().to_string();
    let src = format!("{}/src", scene.work.display());
    let third: Value = serde_json::from_str(whole.lines().nth(2).expect("a third line")).expect("JSON");
    let pid = third["process"]["pid"].to_string();
    let (noted, ended) = (|r: &Value| r["op"] == "mkdir" || r["op"] == "unlink", |r: &Value| r["kind"] == "end");
    type Fits<'a> = &'a dyn Fn(&Value) -> bool;
    let cases: [(&[&str], Fits<'_>); 9] = [
        (&[], &|_| true),
        (&["--denied"], &|r| r["verdict"] == "deny"),
        (&["--op", "mkdir,unlink"], &noted),
        (&["--op", "mkdir", "--op", "unlink"], &noted),
        (&["--path", "src"], &|r| path(r).starts_with(&src)),
        (&["--path", "**/src/*", "--op", "create"], &|r| path(r).starts_with(&format!("{src}/"))),
        (&["--rule", "exec.allow"], &|r| r["rule"].to_string().contains("exec.allow")),
        (&["--pid", &pid], &|r| r["process"]["pid"] == third["process"]["pid"]),
        (&["--since", "0s"], &ended),
    ];
    for (flags, fits) in cases {
        let expected = fitting(fits);
        assert!(!expected.is_empty(), "{flags:?} has something to find");
        assert_eq!(ask(flags), expected, "{flags:?}");
    }
    assert_eq!(ask(&["--until", "2001-01-01T00:00:00Z"]), "");
    assert_eq!(ask(&["--denied", "--op", "mkdir"]), "", "all must hold");
    assert_eq!(ask(&["--limit", "2"]), whole.split_inclusive('\n').take(2).collect::<String>());
}

#[test]
fn a_question_in_words_says_how_much_fits() {
    let (scene, log) = ran();
    let asked = scene.agentbox(&["log", text(&log), "--denied"]);
    asked.exits(0).must(asked.out.contains("DENY ") && asked.out.contains("outside/f"), "the refusal");
    let records = fs::read_to_string(&log).expect("the log").lines().count();
    asked.must(asked.out.ends_with(&format!("\n1 of {records} records\n")), "how many of how many");
    asked.must(!asked.out.contains(" allow "), "nothing else");
    let asked = scene.agentbox(&["log", text(&log), "--limit", "2"]);
    let told = ["exec ", "BEGIN a1"].iter().all(|word| asked.out.contains(word));
    asked.exits(0).must(told && !asked.out.contains("mkdir    "), "the head is none of them");
    asked.must(asked.out.ends_with("\nstopped after 2 records, as --limit says\n"), "why there are no more");
}

#[test]
fn a_bad_question_is_one_line_and_125() {
    let (scene, log) = ran();
    let alone = scene.file("alone.jsonl", chained(&[begin(), end()]));
    let ask = |flags: &[&str]| scene.agentbox(&[&["log"], flags].concat());
    for (flags, said) in [
        (&[text(&log), "--op", "wirte"][..], "did you mean `write`? there are read, write, "),
        (&[text(&log), "--op", "zzz"], "--op zzz: there is no such operation: there are read, "),
        (&[text(&log), "--since", "yesterday"], "--since yesterday: not a time: write 15:46"),
        (&[text(&log), "--path", "src/[a"], "--path src/[a: `[` is never closed"),
        (&[text(&alone), "--path", "src"], "the log stands alone"),
        (&["show", "last"], "`last` is no record: write RUN:SEQ"),
        (&["show", &format!("{}:99", text(&alone))], "there is no record 99"),
        (&["show", "none:1"], "no run `none`"),
        (&["tree", "none"], "no run `none`"),
        (&["stats", "none"], "no run `none`"),
        (&["follow", "none"], "no run `none`"),
    ] {
        let asked = ask(flags);
        asked.exits(125).must(asked.err.contains(said) && asked.err.lines().count() == 1, said);
        asked.must(asked.out.is_empty(), "nothing else");
    }
    ask(&[text(&alone), "--path", "**/src"]).exits(0);
}

#[test]
fn times_are_of_the_runs_day_or_count_back_from_its_end() {
    let scene = Scene::new();
    let write = |second| decision(second, "session", (2, &[1]), "write", json!({"path": format!("/f{second}")}));
    let log = scene.file("log.jsonl", chained(&[begin(), write(10), write(20), write(30), end()]));
    for (flags, expected) in [
        (&["--since", "01:00:20"][..], "/f20 /f30"),
        (&["--since", "01:00:20", "--until", "01:00:25"], "/f20"),
        (&["--since", "2026-11-23T02:00:20+01:00", "--until", "2026-11-23T01:00:29"], "/f20"),
        (&["--since", "39s"], "/f20 /f30"),
        (&["--until", "35s"], "/f10 /f20"),
        (&["--since", "2h"], "/f10 /f20 /f30"),
    ] {
        let asked = scene.agentbox(&[&["log", text(&log), "--json", "--op", "write"], flags].concat());
        let paths = asked.out.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        let paths: Vec<String> = paths.map(|r| r["target"]["path"].as_str().expect("a path").into()).collect();
        assert_eq!(paths.join(" "), expected, "{flags:?} {asked}");
    }
}

#[test]
fn one_record_is_shown_whole() {
    let (scene, log) = ran();
    let lines: Vec<String> = fs::read_to_string(&log).expect("the log").lines().map(String::from).collect();
    let denied = lines.iter().position(|line| line.contains(r#""verdict":"deny""#)).expect("a refusal");
    let name = format!("{}:{}", text(&log), denied + 1);
    let raw = scene.agentbox(&["log", "show", &name, "--json"]);
    assert_eq!(raw.exits(0).out, lines[denied].clone() + "\n");
    let shown = scene.agentbox(&["log", "show", &name]);
    let record: Value = serde_json::from_str(&lines[denied]).expect("JSON");
    shown.exits(0);
    for word in [&record["target"]["path"], &record["rule"], &record["prev"], &record["time"], &record["action"]] {
        shown.must(shown.out.contains(word.as_str().expect("text")), &word.to_string());
    }
    shown.must(shown.out.contains("written after it as it is"), "the chain around it");
    shown.must(shown.out.contains("agentbox why --event "), "the way out");

    let forged = fs::read_to_string(&log).expect("the log").replace("outside/f\"", "outside/g\"");
    let forged = scene.file("forged.jsonl", forged);
    let shown = scene.agentbox(&["log", "show", &format!("{}:{}", text(&forged), denied + 1)]);
    shown.exits(1).must(shown.err.contains(&format!("line {}: changed", denied + 1)), "it was changed");
    shown.must(shown.out.contains("nothing behind it vouches for it"), "and says so");
}

#[test]
fn a_tree_of_a_run_shows_which_process_did_what() {
    let scene = Scene::new();
    let line = "sh -c 'mkdir d; (sh -c \"echo x > d/f; true\"); true'; echo x > ../../outside/f; true";
    scene.boxed_sh(&["-r", text(&scene.outside)], line).exits(0);
    let tree = scene.agentbox(&["log", "tree"]);
    tree.exits(0);
    let row = |words: &[&str]| {
        let found = tree.out.lines().position(|line| words.iter().all(|word| line.contains(word)));
        found.unwrap_or_else(|| panic!("no line with {words:?}\n{tree}"))
    };
    let outer = row(&["a1  ", "sh -c 'mkdir d;"]);
    let (made, inner, wrote) = (row(&["created", " d"]), row(&["echo x > d/f; true'"]), row(&["created", "d/f"]));
    assert!(outer < made && made < inner && inner < wrote, "{tree}");
    let indent = |line: usize| tree.out.lines().nth(line).expect("a line").chars().position(char::is_alphanumeric);
    assert!(indent(wrote) > indent(inner) && indent(inner) > indent(outer), "what a child did stands below it: {tree}");
    row(&["DENIED", "create ", "outside/f"]);
    let json = scene.agentbox(&["log", "tree", "--json"]);
    let value: Value = serde_json::from_str(&json.exits(0).out).expect("JSON");
    let session = &value["actions"][0];
    assert_eq!((&session["action"], &session["processes"][0]["pid"]), (&"session".into(), &2.into()), "{value}");
    assert_eq!(session["processes"][0]["did"]["denied"]["count"], 1, "{value}");
    let denied = scene.agentbox(&["log", "tree", "--denied"]);
    denied.exits(0).must(denied.out.contains("DENIED") && !denied.out.contains("created"), "only what fits");
}

/// A log of an agentbox that opens and closes actions.
fn with_actions(scene: &Scene) -> PathBuf {
    let root = json!({"pid": 5, "host": 1005, "exe": "/usr/bin/sh", "parents": [2, 1]});
    let opened = json!({"time": at(2), "run": RUN, "action": "a1", "attribution": "subtree", "process": root,
        "parent": "session", "command": ["npm", "test"],
        "claim": {"tool": "Bash", "params": {"command": "npm test"}, "reason": "run the \u{1b}[2Jtests"}});
    let claim = json!({"time": at(4), "run": RUN, "action": "a1", "process": root, "claim": {"note": "half way"}});
    let mut weighty = decision(8, "a2", (8, &[7, 5, 2, 1]), "write", json!({"path": "/work/x"}));
    for (name, value) in [("reach", json!("B2")), ("reversibility", json!("R3")), ("tier", json!(8))] {
        weighty.1[name] = value;
    }
    weighty.1["taint"] = json!(["ssh-key"]);
    let inner = json!({"time": at(5), "run": RUN, "action": "a2", "parent": "a1", "command": ["make"]});
    let effects = json!({"files": {"created": 3, "deleted": 1, "places": {"workspace": 4}}, "programs": 2});
    let destinations = json!([{"kind": "others", "allowed": 1, "denied": 0}]);
    let ended = json!({"time": at(9), "run": RUN, "action": "a1", "effects": effects,
        "destinations": destinations, "denied": 0, "reach": "B1",
        "reversibility": "R2", "tier": 3, "taint": ["ssh-key"]});
    let log = [
        begin(),
        decision(1, "session", (2, &[1]), "exec", exec(&["agent"])),
        ("action", opened),
        decision(3, "a1", (5, &[2, 1]), "exec", exec(&["npm", "test"])),
        ("claim", claim),
        ("action", inner),
        decision(6, "a2", (8, &[7, 5, 2, 1]), "exec", exec(&["make"])),
        decision(7, "a2", (8, &[7, 5, 2, 1]), "write", json!({"path": "/work/out\u{1b}]0;x\u{7}"})),
        weighty,
        ("action_end", ended),
        ("invented", json!({"time": at(10)})),
        end(),
    ];
    scene.file("actions.jsonl", chained(&log))
}

#[test]
fn actions_and_what_the_agent_claims_of_them_are_told_apart() {
    let scene = Scene::new();
    let log = with_actions(&scene);
    scene.agentbox(&["log", "verify", text(&log)]).exits(0);
    let tree = scene.agentbox(&["log", "tree", text(&log)]);
    tree.exits(0);
    for said in [
        "\na1  npm test  ",
        "  says, unverified: Bash {\"command\":\"npm test\"}: run the \\u{1b}[2Jtests\n",
        "  says, unverified: half way\n",
        "  in all: tier 3 (B1 R2)   files: 3 created, 1 deleted   2 programs   has read secrets: ssh-key\n",
        "\n└─ npm[5]",
        "\n   a2  make  ",
        "\n   └─ make[8]",
        "created",
    ] {
        tree.must(tree.out.contains(said), said);
    }
    let trail = scene.agentbox(&["log", text(&log)]);
    trail.exits(0).must(
        trail.out.contains(r#" BEGIN a1       npm test  says: Bash {"command":"npm test"}: run the"#),
        "how it began",
    );
    trail.must(
        trail.out.contains(" END   a1       tier 3 (B1 R2)   files: 3 created, 1 deleted   2 programs"),
        "what came of it",
    );
    trail.must(trail.out.contains("/work/x  B2 R3 tier 8, has seen ssh-key  sh[8]"), "how grave it is");
    trail.must(trail.out.contains("invented (a record of a newer agentbox)"), "what is not known yet");
    let one = scene.agentbox(&["log", text(&log), "--action", "a2", "--json"]);
    assert_eq!(one.exits(0).out.lines().count(), 4, "{one}");
    let one = scene.agentbox(&["log", text(&log), "--pid", "5", "--json"]);
    assert_eq!(one.exits(0).out.lines().count(), 3, "{one}");
    let stats = scene.agentbox(&["log", "stats", text(&log), "--json"]);
    let stats: Value = serde_json::from_str(&stats.exits(0).out).expect("JSON");
    assert_eq!((&stats["kinds"]["action"], &stats["ops"]["exec"]["allowed"]), (&2.into(), &3.into()), "{stats}");
}

#[test]
fn an_action_that_began_with_a_claim_is_named_by_it_and_its_commands_stand_below() {
    let scene = Scene::new();
    let root = json!({"pid": 2, "host": 1002, "exe": "/usr/bin/agent", "parents": [1]});
    let claim = json!({"tool": "edit", "params": {"file": "src/\u{1b}main.rs"}, "reason": "the test fails"});
    let opened = json!({"time": at(2), "run": RUN, "action": "a1", "attribution": "bracket", "process": root,
        "parent": "session", "claim": claim});
    let ended = json!({"time": at(4), "run": RUN, "action": "a1", "process": root, "claim": {"outcome": "passes"}});
    let log = [
        begin(),
        ("action", opened),
        decision(3, "a1", (5, &[2, 1]), "exec", exec(&["cargo", "fmt"])),
        ("claim", ended),
        end(),
    ];
    let log = scene.file("claimed.jsonl", chained(&log));
    let tree = scene.agentbox(&["log", "tree", text(&log)]);
    for said in [
        "\na1  claims, unverified: edit {\"file\":\"src/\\u001bmain.rs\"}  at 2.000s, over by 4.000s\n",
        "\n  says, unverified: the test fails\n  says, unverified: passes\n",
        "cargo[5]  cargo fmt\n",
    ] {
        tree.exits(0).must(tree.out.contains(said), said);
    }
    let json = scene.agentbox(&["log", "tree", text(&log), "--json"]);
    let action = &serde_json::from_str::<Value>(&json.exits(0).out).expect("JSON")["actions"][0];
    assert_eq!((&action["command"], &action["claim_unverified"]["params"]), (&json!(""), &claim["params"]), "{action}");
    assert_eq!(action["claim_unverified"]["outcome"], "passes", "{action}");
    assert_eq!(action["processes"][1]["ran"], json!(["cargo fmt"]), "{action}");
}

#[test]
fn nothing_that_a_log_holds_drives_the_terminal() {
    let scene = Scene::new();
    let log = with_actions(&scene);
    for args in [&["log"][..], &["log", "tree"], &["log", "stats"], &["log", "follow"]] {
        let printed = scene.agentbox(&[args, &[text(&log)]].concat());
        let safe = |text: &str| text.chars().all(|c| !c.is_control() || c == '\n');
        printed.exits(0).must(safe(&printed.out) && safe(&printed.err), &format!("{args:?}"));
    }
    for seq in 1..=12 {
        let shown = scene.agentbox(&["log", "show", &format!("{}:{seq}", text(&log))]);
        shown.exits(0).must(shown.out.chars().all(|c| !c.is_control() || c == '\n'), "a record");
    }
}

#[test]
fn numbers_come_from_the_whole_log() {
    let scene = Scene::new();
    let mut log = vec![begin()];
    for n in 0..200 {
        let (kind, mut record) = decision(1, "session", (2, &[1]), "write", json!({"path": "/f"}));
        record["latency_us"] = if n < 190 { 10.0 } else { 5000.0 }.into();
        if n % 4 == 0 {
            record["verdict"] = "deny".into();
            record["rule"] = "team.yaml filesystem.deny[0]".into();
        }
        log.push((kind, record));
    }
    log.push(end());
    let log = scene.file("log.jsonl", chained(&log));
    let stats = scene.agentbox(&["log", "stats", text(&log), "--json"]);
    let stats: Value = serde_json::from_str(&stats.exits(0).out).expect("JSON");
    let write = &stats["ops"]["write"];
    assert_eq!((&write["allowed"], &write["denied"]), (&150.into(), &50.into()), "{stats}");
    let about = |name: &str, right: f64| (write[name].as_f64().expect("a number") / right - 1.0).abs() < 0.04;
    assert!(about("p50_us", 10.0) && about("p99_us", 5000.0), "{write}");
    assert_eq!(stats["rules"]["named"][1]["name"], "team.yaml filesystem.deny[0]", "{stats}");
    assert_eq!(stats["rules"]["named"][1]["denied"], 50, "{stats}");
    assert_eq!(stats["programs"]["named"][0]["name"], "/usr/bin/sh", "{stats}");
    let text_of = scene.agentbox(&["log", "stats", text(&log)]);
    text_of.exits(0).must(text_of.out.starts_with("200 decisions in 202 records, "), "the head");
    text_of.must(text_of.out.contains("10.0 µs       5.1 ms"), "the latency");
}

#[test]
fn a_broken_log_is_read_as_far_as_it_can_be_by_every_question() {
    let (scene, log) = ran();
    let whole = fs::read_to_string(&log).expect("the log");
    let lines: Vec<&str> = whole.lines().collect();
    let with = |at: usize, line: &str| {
        let mut lines = lines.clone();
        lines[at] = line;
        lines.join("\n") + "\n"
    };
    let newer = lines[3].replacen("\"v\":1", "\"v\":9", 1);
    let shapeless = lines[3].replacen("\"latency_us\":", "\"latency_ms\":", 1);
    let cut = &whole[..whole.len() - 9];
    let swapped = [&lines[..2], &[lines[3], lines[2]], &lines[4..]].concat().join("\n") + "\n";
    for (what, content, said) in [
        ("corrupt", with(3, "\u{1b}[2J{"), "line 4: not a record"),
        ("newer", with(3, &newer), "line 4: written by a newer agentbox"),
        ("shapeless", with(3, &shapeless), "line 4: "),
        ("cut", cut.to_string(), &format!("line {}: cut off in the middle", lines.len())),
        ("swapped", swapped, "line 3: record"),
        ("foreign", "hello\nworld\n".into(), "line 1: not a record"),
    ] {
        let broken = scene.file(format!("{what}.jsonl"), content);
        for command in [&["log"][..], &["log", "tree"], &["log", "stats"], &["log", "follow"], &["log", "--json"]] {
            let read = scene.agentbox(&[command, &[text(&broken)]].concat());
            read.exits(1).must(read.err.contains(said), &format!("{what}: {command:?}: {said}"));
            read.must(!read.err.contains('\u{1b}'), "nothing drives the terminal");
            let rest = if command == ["log", "stats"] { "default.yaml filesystem\n" } else { "outside/f" };
            read.must(what == "foreign" || read.out.contains(rest), "the rest is read");
            read.must(command != ["log", "--json"] || read.out.lines().all(|l| lines.contains(&l)), "as it is");
        }
    }
}

/// `agentbox log follow` on its way.
fn follower(scene: &Scene, args: &[&str]) -> Child {
    let mut command = Command::new(agentbox());
    command.arg("log").args(args);
    scene.dress(&mut command);
    start_piped(command)
}

/// Reads what a follower says while there is nothing to follow yet.
fn waits(follower: &mut Child) {
    let mut line = String::new();
    let said = BufReader::new(follower.stderr.take().expect("a pipe")).read_line(&mut line);
    assert!(said.is_ok() && line.starts_with("agentbox: waiting for "), "{said:?} {line}");
}

fn start_piped(mut command: Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    start(command)
}

#[test]
fn a_run_is_followed_to_its_end_by_readers_that_came_before_and_after() {
    let scene = Scene::new();
    let go = scene.work.join("go");
    let (command, log) =
        scene.boxed_command(&[], &["/bin/sh", "-c", "mkdir a; until test -e go; do sleep 0.05; done; mkdir b"]);
    let none = Path::new("/nonexistent");
    let mut early = follower(&scene, &["follow", text(&log), "--json"]);
    let mut next = follower(&scene, &["-f", "next", "--op", "mkdir", "--json"]);
    // What is newest is settled once they say that they wait.
    waits(&mut next);
    waits(&mut early);
    let run = start_piped(command);
    await_until("the first directory", || scene.work.join("a").exists());
    let late = follower(&scene, &["follow", text(&log), "--json"]);
    let words = follower(&scene, &["-f", text(&log), "--op", "mkdir"]);
    fs::write(&go, "").expect("let it go on");
    finish(run, b"", none).exits(0);
    let whole = fs::read_to_string(&log).expect("the log");
    for reader in [early, late] {
        let read = finish(reader, b"", none);
        assert_eq!(read.exits(0).out, whole, "{read}");
    }
    let made: String = whole.split_inclusive('\n').filter(|line| line.contains(r#""op":"mkdir""#)).collect();
    assert_eq!(made.lines().count(), 2);
    assert_eq!(finish(next, b"", none).exits(0).out, made);
    let words = finish(words, b"", none);
    words.exits(0).must(words.out.lines().filter(|line| line.contains(" allow mkdir")).count() == 2, "both");
}

#[test]
fn a_watch_that_begins_before_the_first_run_of_all_waits_for_it() {
    let scene = Scene::new();
    let mut watch = follower(&scene, &["follow"]);
    waits(&mut watch);
    let binary = agentbox();
    let argv = [text(&binary), "run", "-q", "--", "/bin/sh", "-c", "mkdir a"];
    finish(start_piped(scene.free_command(&argv)), b"", Path::new("/nonexistent")).exits(0);
    let seen = finish(watch, b"", Path::new("/nonexistent"));
    seen.exits(0).must(seen.out.contains(" allow mkdir ") && seen.out.contains(" end   exit 0"), "from start to end");
}

#[test]
fn a_run_that_was_killed_ends_the_watch_with_a_line_that_says_so() {
    let scene = Scene::new();
    let seconds = unique_seconds();
    let (command, log) = scene.boxed_command(&[], &["/bin/sh", "-c", &format!("mkdir a; exec sleep {seconds}")]);
    let mut run = start_piped(command);
    await_until("the directory", || scene.work.join("a").exists());
    let words = follower(&scene, &["follow", text(&log)]);
    let json = follower(&scene, &["follow", text(&log), "--json"]);
    await_until("the record of it", || fs::read_to_string(&log).is_ok_and(|log| log.contains("mkdir")));
    run.kill().expect("kill the run");
    run.wait().expect("reap the run");
    let words = finish(words, b"", Path::new("/nonexistent"));
    words.exits(1).must(words.out.contains("mkdir"), "what there was");
    words.must(words.out.ends_with("no end record: cut off (agentbox was killed, or the end was removed)\n"), "why");
    let json = finish(json, b"", Path::new("/nonexistent"));
    json.exits(1).must(json.err.contains("no end record: cut off"), "why");
}

#[test]
fn a_watch_ends_cleanly_between_two_records() {
    let scene = Scene::new();
    let seconds = unique_seconds();
    let (command, log) = scene.boxed_command(&[], &["/bin/sh", "-c", &format!("mkdir a; exec sleep {seconds}")]);
    let mut run = start_piped(command);
    await_until("the directory", || scene.work.join("a").exists());
    let mut watch = follower(&scene, &["follow", text(&log)]);
    let mut out = BufReader::new(watch.stdout.take().expect("a pipe"));
    let mut line = String::new();
    while !line.contains("mkdir    ") {
        line.clear();
        assert_ne!(out.read_line(&mut line).expect("a line"), 0, "the record comes while the run goes on");
    }
    kill(Pid::from_raw(watch.id() as i32), Signal::SIGINT).expect("interrupt the watch");
    let mut rest = String::new();
    out.read_to_string(&mut rest).expect("the rest");
    let ended = finish(watch, b"", Path::new("/nonexistent"));
    ended.exits(130).must(ended.err.is_empty(), "no word");
    assert!(rest.is_empty() || rest.ends_with('\n'), "{rest}");

    // Whoever reads what is printed goes away.
    let mut watch = follower(&scene, &["follow", text(&log), "--json"]);
    drop(watch.stdout.take());
    finish(watch, b"", Path::new("/nonexistent")).exits(0);
    run.kill().expect("kill the run");
    run.wait().expect("reap the run");
}

/// What somebody may do to a log, at one line of it: gives the lines, and the one at which it must be found at the latest.
type Tampering = (&'static str, fn(&mut Vec<String>, usize) -> usize);

#[test]
fn every_kind_of_tampering_is_found_where_it_is_in_a_long_log() {
    const RECORDS: usize = 100_000;
    const KINDS: [Tampering; 8] = [
        ("a word is changed", |lines, at| {
            lines[at] = lines[at].replace("\"allow\"", "\"denyy\"");
            at
        }),
        ("a byte is changed", |lines, at| {
            let from = lines[at].find("/work/").expect("a path") + 6;
            let digit = if &lines[at][from..=from] == "7" { "8" } else { "7" };
            lines[at].replace_range(from..=from, digit);
            at
        }),
        ("a record is removed", |lines, at| {
            lines.remove(at);
            at
        }),
        ("a record is added", |lines, at| {
            lines.insert(at, lines[at].clone());
            at + 1
        }),
        ("a record of another place is put in", |lines, at| {
            lines[at] = lines[at - 5].clone();
            at
        }),
        ("two records change places", |lines, at| {
            lines.swap(at, at + 1);
            at
        }),
        ("the rest is cut off", |lines, at| {
            lines.truncate(at);
            at.saturating_sub(1)
        }),
        ("the rest is cut off within a line", |lines, at| {
            lines.truncate(at + 1);
            let half = lines[at].len() / 2;
            lines[at].truncate(half);
            at
        }),
    ];
    let records: Vec<(&str, Value)> = std::iter::once(begin())
        .chain((2..RECORDS).map(|n| decision(1, "a1", (5, &[2, 1]), "write", json!({"path": format!("/work/{n}")}))))
        .chain([end()])
        .collect();
    let whole: Vec<String> = chained(&records).lines().map(String::from).collect();
    let scene = Scene::new();
    let seed = std::time::UNIX_EPOCH.elapsed().map_or(1, |time| u64::from(time.subsec_nanos()));
    let try_one = |n: usize, (what, tamper): Tampering| {
        // Somewhere within, wherever that is.
        let at = 10
            + (seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(n as u64 * 7919) >> 20) as usize
                % (RECORDS - 20);
        let mut lines = whole.clone();
        let latest = tamper(&mut lines, at);
        let torn = what.ends_with("within a line");
        let log = scene.file(format!("{n}.jsonl"), lines.join("\n") + if torn { "" } else { "\n" });
        let verified = scene.agentbox(&["log", "verify", text(&log)]);
        let found = verified.out.split("line ").nth(1).and_then(|rest| rest.split(':').next()?.parse::<usize>().ok());
        let told = format!("seed {seed}: {what} at line {}: {verified}", at + 1);
        assert_eq!(verified.code, 1, "{told}");
        match found {
            Some(line) => assert!((latest..=latest + 2).contains(&line), "{told}"),
            // Without what follows nothing is wrong but that the end is missing.
            None => assert!(what.starts_with("the rest") && verified.out.contains("no end"), "{told}"),
        }
        fs::remove_file(log).expect("tidy");
    };
    let log = scene.file("whole.jsonl", whole.join("\n") + "\n");
    scene.agentbox(&["log", "verify", text(&log)]).exits(0);
    std::thread::scope(|scope| {
        for half in 0..2 {
            let try_one = &try_one;
            scope.spawn(move || {
                KINDS.into_iter().enumerate().filter(|(n, _)| n % 2 == half).for_each(|(n, kind)| try_one(n, kind));
            });
        }
    });
}
