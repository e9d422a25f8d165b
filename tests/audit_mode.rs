//! `agentbox run --mode audit`: what softer rules deny is recorded and happens; what the walls hold stays held.

mod common;

use std::fs;
use std::net::TcpListener;

use common::{Outcome, Scene, program, text};
use serde_json::Value;

const RULES: &str = "\
version: 1
extends: [default]
filesystem: {deny: [\"**/*.closed\"], deny_read: [\"**/*.unread\"], deny_write: [\"**/*.lock\"]}
exec: {deny: [uname, {run: id, message: not that}], ask: [whoami]}
";

fn scene() -> Scene {
    let scene = Scene::new();
    scene.file("rules.yaml", RULES);
    for name in ["a.closed", "a.unread", "a.lock"] {
        scene.file(format!("home/work/{name}"), "old\n");
    }
    scene
}

fn rules(scene: &Scene) -> String {
    text(&scene.root.join("rules.yaml")).to_string()
}

/// Refusals of a run: operation, target, rule, verdict.
fn refusals(outcome: &Outcome) -> Vec<(String, String, String)> {
    let refused = outcome.records.iter().filter(|record| record["kind"] == "decision" && record["verdict"] != "allow");
    let word = |value: &Value| value.as_str().unwrap_or_default().to_string();
    refused.map(|record| (word(&record["op"]), word(&record["rule"]), word(&record["verdict"]))).collect()
}

#[test]
fn what_softer_rules_deny_happens_and_is_recorded_by_the_same_rule() {
    let scene = scene();
    let policy = rules(&scene);
    for (line, rule) in [
        ("uname", "exec.deny[0]"),
        ("id", "exec.deny[1]"),
        ("whoami", "exec.ask[0]"),
        ("cat a.closed", "filesystem.deny[0]"),
        ("echo x > b.closed", "filesystem.deny[0]"),
        ("cat a.unread", "filesystem.deny_read[0]"),
        ("echo new >> a.lock", "filesystem.deny_write[0]"),
        ("mkdir d.closed", "filesystem.deny[0]"),
        ("mv a.unread b", "filesystem.deny_read[0]"),
    ] {
        let enforced = scene.boxed_sh(&["-p", &policy], line);
        enforced.must(enforced.code != 0, "enforce refuses it");
        let audited = scene.boxed_sh(&["-p", &policy, "--mode", "audit"], line);
        audited.exits(0);
        let (held, passed) = (refusals(&enforced), refusals(&audited));
        audited.must(!held.is_empty() && held[0] == passed[0], "the record says the same");
        audited.must(passed[0].1.ends_with(rule), rule);
        let record = audited.records.iter().find(|record| record["mode"] == "audit" && record["kind"] == "decision");
        let record = record.unwrap_or_else(|| panic!("{line}: no record of what was let through\n{audited}"));
        audited.must(record["outcome"] == "ok", "what came of it");
        audited.must(audited.err.contains("1 would have been denied, first: ") || passed.len() > 1, "the last line");
        enforced
            .must(!enforced.records.iter().any(|record| record["kind"] == "decision" && record["mode"] == "audit"), "");
    }
    assert_eq!(fs::read_to_string(scene.work.join("a.lock")).unwrap(), "old\nnew\n");
}

#[test]
fn tiers_let_through_what_can_not_be_undone_and_say_so() {
    let scene = scene();
    scene.file("tiers.yaml", "version: 1\nextends: [default]\ntiers: {allow: 2, ask: 3}\n");
    let policy = scene.root.join("tiers.yaml");
    let line = "echo new > a.lock; rm a.closed; exit 0";
    let held = scene.boxed_sh(&["-p", text(&policy)], line);
    held.must(scene.work.join("a.closed").exists(), "enforce holds it");
    let passed = scene.boxed_sh(&["-p", text(&policy), "--mode", "audit"], line);
    passed.exits(0).must(!scene.work.join("a.closed").exists(), "audit lets it through");
    passed.must(refusals(&passed).iter().all(|(_, rule, _)| rule.contains("tiers.")), "by the tiers");
    passed.must(!refusals(&passed).is_empty(), "on record");
}

#[test]
fn what_the_walls_hold_stays_held() {
    let scene = scene();
    let policy = rules(&scene);
    scene.file("outside/f", "old\n");
    scene.file("home/work/.env", "KEY=1\n");
    scene.file("home/work/.git/config", "[core]\n");
    scene.file(
        "secret.yaml",
        "version: 1\nextends: [default]\nfilesystem: {secrets: default, deny_read: [\"**/.env*\"]}\n",
    );
    scene.file(
        "exact.yaml",
        "version: 1\nextends: [default]\nfilesystem: {deny: [./a.closed], deny_write: [./a.lock]}\n",
    );
    let (secret, exact) = (scene.root.join("secret.yaml"), scene.root.join("exact.yaml"));
    let outside = text(&scene.outside);
    let mut held = vec![
        (policy.as_str(), format!("echo x > {outside}/f"), "nothing grants it"),
        (&policy, format!("echo x > {outside}/n.lock"), "nothing grants it, and a pattern denies it"),
        (&policy, "echo x >> .git/config".into(), "the protected list"),
        (&policy, "mv .git g".into(), "what lies above protected names"),
        (text(&secret), "cat .env".into(), "a secret"),
        (text(&secret), "mv .env e".into(), "a secret by another name"),
        (text(&exact), "cat a.closed".into(), "a plain path"),
        (text(&exact), "echo x >> a.lock".into(), "a plain path"),
    ];
    if program("python3").is_some() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let port = listener.local_addr().expect("an address").port();
        let connect = format!("python3 -c \"import socket; socket.create_connection(('127.0.0.1', {port}), 5)\"");
        held.push((&policy, connect, "the host's loopback"));
        let reach =
            "python3 -c \"import socket; s = socket.socket(); s.settimeout(1); s.connect(('198.51.100.7', 81))\"";
        held.push((&policy, reach.into(), "the network"));
    }
    for (policy, line, what) in held {
        // Mounts of a box that grants `outside` show that the line itself is right.
        let audited = scene.boxed_sh(&["-p", policy, "-r", outside, "--mode", "audit"], &line);
        audited.must(audited.code != 0, what);
        let passed = |record: &&Value| record["mode"] == "audit" && record["kind"] == "decision";
        audited.must(!audited.records.iter().any(|record| passed(&record)), what);
    }
    assert_eq!(fs::read_to_string(scene.outside.join("f")).unwrap(), "old\n");
    assert!(scene.work.join(".env").exists() && scene.work.join(".git").exists());
    // The same lines, free, are no mistakes.
    scene.free_sh(&format!("echo x > {outside}/f; echo x >> .git/config; cat .env; cat a.closed")).exits(0);
}

#[test]
fn the_mode_is_told_everywhere_and_chosen_on_the_command_line_alone() {
    let scene = scene();
    let policy = rules(&scene);
    let report = scene.root.join("report.json");
    let run = scene.boxed_sh(&["-p", &policy, "--mode", "audit", "-v", "--report", text(&report)], "uname; true");
    run.exits(0).must(run.err.contains("agentbox: mode audit: "), "at the start");
    run.must(run.err.contains("1 would have been denied") && run.err.contains("would deny exec"), "at the end");
    let report: Value = serde_json::from_str(&fs::read_to_string(&report).unwrap()).unwrap();
    assert_eq!((&report["mode"], &report["denied"], &report["let_through"]), (&"audit".into(), &0.into(), &1.into()));
    assert_eq!(report["denials"][0]["let_through"], true);
    let kind = |kind: &str| run.records.iter().find(|record| record["kind"] == kind).expect("a record");
    assert_eq!((&kind("start")["mode"], &kind("end")["let_through"]), (&"audit".into(), &1.into()));
    let log = run.records.len();
    let shown = scene.agentbox(&["log", text(&scene.root.join("audit-0.jsonl")), "--denied"]);
    shown.exits(0).must(shown.out.contains("WOULD exec"), "the trail");
    assert!(log > 2);

    let plain = scene.boxed_sh(&["-p", &policy], "uname; true");
    let start = plain.records.iter().find(|record| record["kind"] == "start").expect("a record");
    assert_eq!(start["mode"], "enforce");
    scene.file("mode.yaml", "version: 1\nextends: [default]\nmode: audit\n");
    let file = scene.root.join("mode.yaml");
    scene.agentbox(&["run", "-p", text(&file), "--", "true"]).exits(125);
    let mut command = scene.boxed_command(&["-p", &policy], &["/bin/sh", "-c", "AGENTBOX_MODE=audit uname"]).0;
    command.env("AGENTBOX_MODE", "audit");
    let asked = common::run(command, b"");
    asked.must(asked.code != 0, "no variable switches it on");
    scene.agentbox(&["run", "--mode", "off", "--", "true"]).exits(125);
}
