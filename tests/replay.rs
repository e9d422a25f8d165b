//! `agentbox policy replay`: a policy is tried on a log.

mod common;

use std::fs;

use common::{Scene, text};
use serde_json::Value;

#[test]
fn a_log_is_put_to_another_policy() {
    let scene = Scene::new();
    let read = ["-r", text(&scene.outside)];
    let line = "echo x > new; mkdir d; echo x > ../../outside/f; uname; exit 0";
    let ran = scene.boxed_sh(&read, line);
    ran.exits(0);
    let log = scene.root.join("audit-0.jsonl");
    let decisions = ran.records.iter().filter(|record| record["kind"] == "decision").count();
    let replay = |log: &str, flags: &[&str]| scene.agentbox(&[&["policy", "replay", log], flags].concat());

    let same = replay(text(&log), &read);
    let expected = format!("{decisions} decisions, 0 would change with default.yaml\n");
    assert_eq!((same.code, same.out.as_str(), same.err.as_str()), (0, expected.as_str(), ""));

    scene.file("new.yaml", "version: 1\nextends: [default]\nfilesystem: {deny_write: [d]}\nexec: {deny: [uname]}\n");
    let policy = scene.root.join("new.yaml");
    let flags = ["-p", text(&policy), "-w", text(&scene.outside)];
    let changed = replay(text(&log), &flags);
    changed.exits(1).must(changed.out.ends_with("new.yaml\n"), "the count comes last");
    let lines: Vec<&str> = changed.out.lines().collect();
    changed.must(lines.len() == 4, "three changes and their count");
    for (line, change, aim, rule) in [
        (lines[0], "allow → deny ", "mkdir    ", "filesystem.deny_write[0]"),
        (lines[1], "deny  → allow", "outside/f", "command line -w "),
        (lines[2], "allow → deny ", "exec     ", "exec.deny[0]"),
    ] {
        changed.must([change, aim, rule].iter().all(|part| line.contains(part)), line);
    }
    let json = replay(text(&log), &[&flags[..], &["--json"]].concat());
    let values: Vec<Value> = json.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!((json.code, values.len()), (1, 4));
    assert_eq!((&values[1]["then"]["verdict"], &values[1]["now"]["verdict"]), (&"deny".into(), &"allow".into()));
    assert_eq!(values[3], serde_json::json!({"decisions": decisions, "changed": 3, "faults": 0}));
}

#[test]
fn a_broken_log_is_replayed_as_far_as_it_can_be_read() {
    let scene = Scene::new();
    scene.boxed_sh(&[], "mkdir a; mkdir b; mkdir c").exits(0);
    let log = scene.root.join("audit-0.jsonl");
    let whole = fs::read_to_string(&log).expect("read the log");
    let mut lines: Vec<String> = whole.lines().map(String::from).collect();
    let at = lines.iter().position(|line| line.contains("\"mkdir\"")).expect("a mkdir");
    lines[at] = "\u{1b}[2J no record".into();
    let broken = scene.file("broken.jsonl", lines.join("\n") + "\n");
    let replay = scene.agentbox(&["policy", "replay", text(&broken)]);
    replay.exits(1).must(replay.err.contains(&format!("line {}: not a record", at + 1)), "where");
    replay.must(!replay.err.contains('\u{1b}'), "nothing drives the terminal");
    let count = whole.matches("\"kind\":\"decision\"").count() - 1;
    replay.must(replay.out.contains(&format!("{count} decisions, 0 would change")), "the rest");
    replay.must(replay.out.contains("1 faults in the log"), "the count");
    scene.agentbox(&["policy", "replay", "no-such-run"]).exits(125);
}
