//! `agentbox policy replay` and `agentbox policy test`: a policy is tried on a log, and on cases.

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
    assert_eq!(values[3], serde_json::json!({"decisions": decisions, "changed": 3, "abridged": 0, "faults": 0}));
}

#[test]
fn a_broken_log_is_replayed_as_far_as_it_can_be_read() {
    let scene = Scene::new();
    scene.boxed_sh(&[], "mkdir a; mkdir b; mkdir c").exits(0);
    let log = scene.root.join("audit-0.jsonl");
    let whole = fs::read_to_string(&log).expect("read the log");
    let mut lines: Vec<String> = whole.lines().map(String::from).collect();
    let at = lines.iter().position(|line| line.contains("\"op\":\"mkdir\"")).expect("a mkdir");
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

#[test]
fn cases_are_tested_and_failures_named_with_their_place() {
    let scene = Scene::new();
    scene.file("home/work/team.yaml", "version: 1\nextends: [default]\nfilesystem: {deny_write: [Cargo.lock]}\n");
    let text_of = |rule: &str, expect: &str| {
        format!(
            "policy: [./team.yaml, {{version: 1, exec: {{deny: [uname]}}, network: {{allow: ['*.example.org:443']}}}}]\n\
             workdir: .\n\
             cases:\n\
             - {{write: src/new.rs, expect: allow}}\n\
             - {{write: Cargo.lock, expect: deny, rule: '{rule}'}}\n\
             - {{read: /etc/shadow, expect: deny}}\n\
             - {{read: /etc/passwd, expect: {expect}}}\n\
             - {{create: /opt/x, expect: deny}}\n\
             - {{delete: .git/config, expect: deny}}\n\
             - {{exec: [uname, -a], expect: deny, rule: 'cases.yaml exec.deny[0]'}}\n\
             - {{connect: 'api.example.org:443', expect: allow}}\n\
             - {{connect: 'api.example.org:80', expect: deny}}\n\
             - {{resolve: other.example, expect: deny}}\n"
        )
    };
    scene.file("home/work/.git/config", "");
    let path = scene.file("home/work/cases.yaml", text_of("./team.yaml filesystem.deny_write[0]", "allow"));
    let good = scene.agentbox(&["policy", "test", "cases.yaml"]);
    assert_eq!((good.code, good.out.as_str()), (0, "cases.yaml: 10 cases, 0 failed\n"), "{good}");
    scene.agentbox(&["policy", "test", text(&path)]).exits(0);

    scene.file("home/work/cases.yaml", text_of("default.yaml filesystem.write[0]", "deny"));
    let bad = scene.agentbox(&["policy", "test", "cases.yaml"]);
    let lines: Vec<&str> = bad.out.lines().collect();
    assert_eq!((bad.code, lines.len()), (1, 3), "{bad}");
    bad.must(lines[0].starts_with("cases.yaml:5:3: create ") && lines[0].contains("but by ./team.yaml"), "the rule");
    let expected = "cases.yaml:7:3: read /etc/passwd: expected deny, got allow by base.yaml filesystem.read[";
    bad.must(lines[1].starts_with(expected), "the answer");
    assert_eq!(lines[2], "cases.yaml: 10 cases, 2 failed");
}

/// What the shipped profiles and the kinds of rules answer, as anybody would write it down.
const CASES: [(&str, &str); 4] = [
    ("default.yaml", include_str!("cases/default.yaml")),
    ("files.yaml", include_str!("cases/files.yaml")),
    ("network.yaml", include_str!("cases/network.yaml")),
    ("programs.yaml", include_str!("cases/programs.yaml")),
];

#[test]
fn decisions_are_those_of_the_cases_and_no_others() {
    let scene = Scene::new();
    for (file, text) in CASES {
        let many = text.matches("expect: ").count();
        scene.file(format!("home/work/{file}"), text);
        let tested = scene.agentbox(&["policy", "test", file]);
        assert_eq!((tested.code, tested.out), (0, format!("{file}: {many} cases, 0 failed\n")), "{}", tested.err);

        let turned = [("allow", "!"), ("deny", "allow"), ("ask", "deny"), ("!", "deny")];
        let other = turned.iter().fold(text.to_string(), |text, (from, to)| {
            text.replace(&format!("expect: {from}"), &format!("expect: {to}"))
        });
        scene.file(format!("home/work/{file}"), &other);
        let tested = scene.agentbox(&["policy", "test", file]);
        let told = format!("{file}: {many} cases, {many} failed\n");
        assert!(tested.code == 1 && tested.out.ends_with(&told), "{tested}");
    }
}

#[test]
fn a_case_starts_in_the_home_and_needs_no_program_installed() {
    let scene = Scene::new();
    let cases = "policy: [{version: 1, extends: [default], exec: {deny: [no-such-tool]}}]\ncases:\n\
                 - {create: ~/.bashrc, expect: deny}\n- {exec: [no-such-tool, x], expect: deny}\n\
                 - {exec: [no-other-tool], expect: allow}\n- {exec: [./no-script], expect: allow}\n";
    scene.file("home/work/cases.yaml", cases);
    let tested = scene.agentbox(&["policy", "test", "cases.yaml"]);
    tested
        .exits(125)
        .must(tested.err.contains("there is no program ./no-script"), "a file that is named is to be there");
    let cases = cases.rsplit_once("- {exec: [./no-script]").unwrap().0;
    scene.file("home/work/cases.yaml", cases);
    let tested = scene.agentbox(&["policy", "test", "cases.yaml"]);
    assert_eq!((tested.code, tested.out.as_str()), (0, "cases.yaml: 3 cases, 0 failed\n"), "{tested}");
}

#[test]
fn cases_without_a_working_directory_get_an_empty_one() {
    let scene = Scene::new();
    scene.file("home/work/cases.yaml", "cases:\n- {write: a/b, expect: allow}\n- {write: .git/config, expect: deny}\n");
    let tested = scene.agentbox(&["policy", "test", "cases.yaml"]);
    assert_eq!((tested.code, tested.out.as_str()), (0, "cases.yaml: 2 cases, 0 failed\n"), "{tested}");
}

#[test]
fn bad_cases_are_one_line_and_125() {
    let scene = Scene::new();
    for (content, said) in [
        ("cases: [{wriet: a, expect: deny}]\n", "cases.yaml:1:10: unknown key `wriet`: did you mean `write`?"),
        ("policy: [./none.yaml]\ncases: []\n", "./none.yaml"),
        ("cases:\n- {connect: example.org, expect: deny}\n", "cases.yaml:2:3: name one port"),
        ("policy: [{version: 1, filesystem: {raed: [a]}}]\ncases: []\n", "unknown key `raed`"),
        ("", "cases.yaml"),
        ("workdir: ./none\ncases: []\n", "none"),
    ] {
        scene.file("home/work/cases.yaml", content);
        let tested = scene.agentbox(&["policy", "test", "cases.yaml"]);
        tested.exits(125).must(tested.err.contains(said) && tested.err.lines().count() == 1, content);
        tested.must(tested.out.is_empty(), "nothing else");
    }
}
