//! The rest of the walk from outside: policy files and their messages, trust, coverage, records, the end-of-run verdict.

mod common;

use std::fs;

use common::{Scene, agentbox, records, run, text};
use serde_json::Value;

// Policy.

#[test]
fn a_policy_that_cannot_be_understood_is_refused_in_one_message_with_its_place() {
    let deep = format!("version: 1\nfilesystem: {}{}\n", "[".repeat(100_000), "]".repeat(100_000));
    let bomb = "version: 1\na: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n\
                d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\nfilesystem: {read: *d}\n";
    let large = format!("version: 1\n# {}\n", "x".repeat(10 << 20));
    for (content, said) in [
        ("version: 1\nfilesystem:\n  raed: [/usr]\n", &["bad.yaml", "3", "`read`"][..]),
        ("version: 1\nfilesystem:\n  read: 7\n", &["bad.yaml", "3"]),
        ("version: 1\nfilesystem:\n  deny: [\"[\"]\n", &["bad.yaml", "3"]),
        ("version: 1\nextends: [no-such-profile]\n", &["bad.yaml", "no-such-profile"]),
        ("version: 1\nextends: [./bad.yaml]\n", &["bad.yaml"]),
        ("version: 1\nnetwork:\n  allow: [\"https://example.org/x\"]\n", &["bad.yaml", "3", "`example.org:443`"]),
        ("version: 1\nlimits: {memory: 2G}\n", &["bad.yaml", "limits"]),
        ("version: 1\nfilesystem:\n  ask: [\"~/x\"]\n", &["bad.yaml", "ask"]),
        ("version: 99\n", &["bad.yaml"]),
        (&deep, &["bad.yaml"]),
        (bomb, &["bad.yaml"]),
        (&large, &["bad.yaml"]),
    ] {
        let scene = Scene::new();
        let bad = scene.file("bad.yaml", content);
        for outcome in
            [scene.boxed(&["-p", text(&bad)], &["touch", "ran"]), scene.agentbox(&["policy", "check", text(&bad)])]
        {
            let shown = &content[..content.len().min(80)];
            outcome.must(outcome.code != 0, &format!("accepted: {shown}"));
            let whole = said.iter().all(|part| outcome.err.contains(part));
            outcome.must(whole, &format!("{shown}: the message must say {said:?}"));
            outcome.must(outcome.err.len() < 4096, "one message, not a flood");
            outcome.must(outcome.took.as_secs() < 5, "hostile input stalls");
        }
        assert!(!scene.work.join("ran").exists(), "the command ran");
    }
}

#[test]
fn shipped_profiles_are_listed_shown_and_checked() {
    let scene = Scene::new();
    let list = scene.agentbox(&["policy", "list"]);
    for name in ["base", "default", "python"] {
        list.exits(0).must(list.out.contains(name), name);
        scene.agentbox(&["policy", "show", "-p", name]).exits(0);
    }
    let show = scene.agentbox(&["policy", "show", "--plan", "--json"]);
    show.exits(0);
    serde_json::from_str::<Value>(&show.out).unwrap_or_else(|e| panic!("not JSON: {e}\n{show}"));
    let good = scene.file("good.yaml", "version: 1\nextends: [default]\nfilesystem: {read: [/opt]}\n");
    scene.agentbox(&["policy", "check", text(&good)]).exits(0);
}

#[test]
fn a_project_policy_counts_only_with_the_content_that_was_trusted() {
    let scene = Scene::new();
    scene.file("outside/f", "theirs\n");
    let open = format!("version: 1\nextends: [default]\nfilesystem:\n  read: [{}]\n", text(&scene.outside));
    scene.file("home/work/agentbox.yaml", &open);
    let look = format!("cat {}/f", text(&scene.outside));
    let untrusted = scene.boxed_sh(&[], &look);
    untrusted.must(!untrusted.out.contains("theirs"), "an untrusted file opened the box");
    untrusted.must(untrusted.err.contains("agentbox.yaml"), "it is named");
    scene.agentbox(&["trust"]).exits(0);
    scene.boxed_sh(&[], &look).exits(0);
    scene.file("home/work/agentbox.yaml", format!("{open}# changed\n"));
    let changed = scene.boxed_sh(&[], &look);
    changed.must(!changed.out.contains("theirs"), "a changed file is still trusted");
    scene.file("home/work/agentbox.yaml", &open);
    scene.boxed_sh(&[], &look).exits(0);
    scene.agentbox(&["trust", "--revoke"]).exits(0);
    let revoked = scene.boxed_sh(&[], &look);
    revoked.must(!revoked.out.contains("theirs"), "a revoked file is still trusted");
    // From inside nothing can be trusted: the digests lie outside of the workspace.
    let binary = agentbox();
    let inside = scene.boxed(&["-r", text(&binary)], &[text(&binary), "trust"]);
    let after = scene.boxed_sh(&[], &look);
    after.must(!after.out.contains("theirs"), &format!("the box trusted its own policy\n{inside}"));
}

#[test]
fn the_environment_names_a_policy() {
    let scene = Scene::new();
    let policy = scene.file("policy.yaml", "version: 1\nextends: [default]\nexec:\n  deny: [uname]\n");
    let (mut command, log) = scene.boxed_command(&[], &["uname"]);
    command.env("AGENTBOX_POLICY", &policy);
    common::run_logged(command, b"", &log).exits(126);
    scene.boxed(&[], &["uname"]).exits(0);
}

// Coverage.

#[test]
fn doctor_speaks_of_every_layer() {
    let scene = Scene::new();
    let doctor = scene.agentbox(&["doctor"]);
    for layer in ["view", "processes", "network", "landlock", "seccomp", "supervisor"] {
        doctor.must(doctor.out.to_lowercase().contains(layer), layer);
    }
    let json = scene.agentbox(&["doctor", "--json"]);
    serde_json::from_str::<Value>(&json.out).unwrap_or_else(|e| panic!("not JSON: {e}\n{json}"));
}

// Records.

#[test]
fn a_run_leaves_a_chain_that_every_change_breaks() {
    let scene = Scene::new();
    // What is readable and not writable is the wall to run into: should it fail, nothing of the host is hurt.
    let line = "echo one > a; mkdir d; mv a d/b; rm d/b; rmdir d; echo x > ../../outside/x";
    let boxed = scene.boxed_sh(&["-r", text(&scene.outside)], line);
    let seqs: Vec<u64> = boxed.records.iter().filter_map(|r| r["seq"].as_u64()).collect();
    boxed.must(seqs.len() >= 7 && seqs.windows(2).all(|w| w[1] == w[0] + 1), "numbered without a gap");
    boxed.must(boxed.records.iter().all(|r| r["v"] == 1), "versioned");
    boxed.must(boxed.records[0]["kind"] == "start", "the first record is the start");
    boxed.must(boxed.records[boxed.records.len() - 1]["kind"] == "end", "the last one is the end");
    for (op, path) in [("mkdir", "work/d"), ("rename", "work/d/b"), ("unlink", "work/d/b"), ("rmdir", "work/d")] {
        let ok = boxed.decisions(path).iter().any(|r| r["op"] == op && r["outcome"] == "ok");
        boxed.must(ok, &format!("no record of {op} {path}"));
    }
    boxed.must(boxed.denied(&["write", "create"], "outside/x"), "no record of the denied write");

    let log = scene.root.join("audit-0.jsonl");
    let verify = |scene: &Scene, log: &str| scene.agentbox(&["log", "verify", log]).code;
    assert_eq!(verify(&scene, text(&log)), 0, "a sound log");
    let whole = fs::read_to_string(&log).expect("read the log");
    let lines: Vec<&str> = whole.lines().collect();
    let swapped = [&[lines[0], lines[2], lines[1]], &lines[3..]].concat().join("\n") + "\n";
    let dropped = [&lines[..3], &lines[4..]].concat().join("\n") + "\n";
    let cut = lines[..lines.len() - 1].join("\n") + "\n";
    let edited = whole.replacen("mkdir", "rmdir", 1);
    let doubled = format!("{whole}{}\n", lines[lines.len() - 1]);
    for (how, content) in
        [("swapped", swapped), ("dropped", dropped), ("cut", cut), ("edited", edited), ("doubled", doubled)]
    {
        assert_ne!(content, whole, "{how} is no change");
        let forged = scene.file("forged.jsonl", content);
        assert_ne!(verify(&scene, text(&forged)), 0, "a {how} log passes");
    }
}

#[test]
fn the_runs_own_directory_holds_records_and_the_result() {
    let scene = Scene::new();
    let binary = agentbox();
    let line = "echo x > ../../outside/x; exit 4";
    let argv = [text(&binary), "run", "-r", text(&scene.outside), "--", "/bin/sh", "-c", line];
    run(scene.free_command(&argv), b"").exits(4);
    let runs: Vec<_> = fs::read_dir(scene.root.join("state/agentbox/runs")).expect("runs").flatten().collect();
    assert_eq!(runs.len(), 1, "one directory for one run");
    let dir = runs[0].path();
    let log = records(&dir.join("audit.jsonl"));
    assert!(log.len() >= 3, "{log:?}");
    let result: Value = serde_json::from_slice(&fs::read(dir.join("run.json")).expect("run.json")).expect("JSON");
    for key in ["command", "policy", "coverage"] {
        assert!(!result[key].is_null(), "{key} is missing in {result}");
    }
    let trail = scene.agentbox(&["log"]);
    trail.exits(0).must(trail.out.contains("outside/x"), "the trail of the last run");
    let json = scene.agentbox(&["log", "last", "--json"]);
    json.exits(0).must(json.out.lines().count() == log.len(), "every record");
    let denied = scene.agentbox(&["log", "--denied"]);
    denied.exits(0).must(denied.out.contains("outside/x"), "what was denied");
    scene.agentbox(&["log", "verify"]).exits(0);
    let list = scene.agentbox(&["log", "list", "--json"]);
    list.exits(0).must(list.out.contains(&*runs[0].file_name().to_string_lossy()), "the list names the run");
}

#[test]
fn the_verdict_names_the_first_denial_and_the_report_holds_the_same() {
    let scene = Scene::new();
    let report = scene.root.join("report.json");
    let flags = ["-r", text(&scene.outside), "--report", text(&report)];
    let boxed = scene.boxed_sh(&flags, "echo x > ../../outside/x; echo y > ../../outside/y; exit 0");
    let verdict: Vec<&str> = boxed.err.lines().filter(|l| l.starts_with("agentbox:")).collect();
    boxed.must(verdict.len() == 1, "one quiet line");
    let whole = ["2 denied", "outside/x", "-w "].iter().all(|part| verdict[0].contains(part));
    boxed.must(whole, "count, first denial, and the flag that allows it");
    let report: Value = serde_json::from_slice(&fs::read(&report).expect("the report")).expect("JSON");
    assert!(report.to_string().contains("outside/x"), "{report}");
    let clean = scene.boxed(&[], &["true"]);
    clean.exits(0).must(clean.err.is_empty(), "nothing denied, nothing said");
}

#[test]
fn audit_levels_record_what_they_say() {
    let scene = Scene::new();
    scene.file("home/work/readable", "text\n");
    let line = "cat readable; echo x > written; echo x > ../../outside/x";
    let ops = |level: &str| {
        let boxed = scene.boxed_sh(&["-r", text(&scene.outside), "--audit-level", level], line);
        let has = |op: &str, path: &str| boxed.decisions(path).iter().any(|r| r["op"] == op);
        let written = has("write", "work/written") || has("create", "work/written");
        let denied = boxed.denied(&["write", "create"], "outside/x");
        (has("exec", "/cat"), has("read", "work/readable"), written, denied)
    };
    assert_eq!(ops("minimal"), (true, false, false, true));
    assert_eq!(ops("actions"), (true, false, true, true));
    assert_eq!(ops("all"), (true, true, true, true));
}

#[test]
fn a_secret_on_a_command_line_is_on_record_as_a_digest() {
    let scene = Scene::new();
    let token = "ghp_abcdefghijklmnopqrstuvwxyz0123456789";
    let line = format!("/bin/echo {token}; /bin/echo --password hunter22 'Authorization: Bearer {token}'; true");
    let report = scene.root.join("report.json");
    scene.file("home/work/talk.sh", line);
    let run = scene.boxed(&["-v", "--report", text(&report)], &["/bin/sh", "talk.sh"]);
    run.exits(0).must(run.out.matches(token).count() == 2, "the programs get what they were given");
    let told = fs::read_to_string(report).expect("the report");
    for (what, said) in [("the records", format!("{:?}", run.records)), ("the report", told), ("the summary", run.err)]
    {
        assert!(!said.contains(token) && !said.contains("hunter22"), "{what}: {said}");
        assert!(said.contains("sha256:"), "{what}: {said}");
    }
}
