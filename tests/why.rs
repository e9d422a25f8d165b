//! `agentbox why` says what the box says: the same rule for the same act, and an edit that does allow it.

mod common;

use std::fs;
use std::os::unix::net::UnixListener;

use common::{Outcome, Scene, agentbox, program, text};
use serde_json::Value;

/// What a record calls an open for writing.
const CHANGES: &[&str] = &["write", "create", "truncate"];

/// An act that a box denies, and the question that stands for it.
struct Act {
    name: &'static str,
    flags: Vec<String>,
    argv: Vec<String>,
    question: Vec<String>,
    /// The operations that the record may call it.
    ops: &'static [&'static str],
    /// Whether the command ends well once it is allowed.
    ends_well: bool,
}

fn words(parts: &[&str]) -> Vec<String> {
    parts.iter().map(|part| part.to_string()).collect()
}

fn strs(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

fn sh(name: &'static str, flags: &[&str], line: &str, question: &[&str], ops: &'static [&'static str]) -> Act {
    Act {
        name,
        flags: words(flags),
        argv: words(&["/bin/sh", "-c", line]),
        question: words(question),
        ops,
        ends_well: true,
    }
}

fn python(name: &'static str, flags: &[&str], code: &str, question: &[&str], ops: &'static [&'static str]) -> Act {
    let argv = words(&["python3", "-c", &format!("import socket\n{code}")]);
    Act { argv, ..sh(name, flags, "", question, ops) }
}

/// Asks, and gives the exit status and the answer.
fn why(scene: &Scene, flags: &[String], question: &[String]) -> (i32, Value) {
    let asked = scene.agentbox(&[&words(&["why", "--json"]), flags, question].concat());
    let answer = serde_json::from_str(&asked.out).unwrap_or_else(|e| panic!("no answer to {question:?}: {e}\n{asked}"));
    (asked.code, answer)
}

/// The first record of the act that says `verdict`.
fn record<'a>(outcome: &'a Outcome, ops: &[&str], verdict: &str) -> Option<&'a Value> {
    let is_op = |record: &&Value| ops.iter().any(|op| record["op"] == *op);
    outcome.records.iter().filter(is_op).find(|record| record["verdict"] == verdict)
}

/// Runs the act boxed, asks why, and tries every edit that is suggested.
#[track_caller]
fn holds(scene: &Scene, act: &Act, undo: impl Fn()) {
    let Act { name, flags, argv, question, ops, ends_well } = act;
    let denied = scene.boxed(&strs(flags), argv);
    let Some(then) = record(&denied, ops, "deny") else { panic!("{name}: it was not denied\n{denied}") };
    let (code, now) = why(scene, flags, question);
    assert_eq!(code, 1, "{name}: {now:#}");
    assert_eq!(then["rule"], now["rule"], "{name}: {then}\n{now:#}");
    assert_eq!(then["message"], now["message"], "{name}");

    let mut edits = Vec::new();
    if let Some(flag) = now["allow"]["flag"].as_str() {
        let more = flag.split_whitespace().map(|word| word.trim_matches('\'').to_string()).collect();
        edits.push([flags.clone(), more].concat());
    }
    if let Some(yaml) = now["allow"]["yaml"].as_str() {
        let at = flags.iter().position(|flag| flag == "-p");
        let base = at.map_or("default", |at| flags[at + 1].as_str());
        let file = scene.file("edited.yaml", format!("version: 1\nextends: [{base}]\n{yaml}\n"));
        let mut rest = flags.clone();
        at.map(|at| rest.drain(at..at + 2).count());
        edits.push([words(&["-p", text(&file)]), rest].concat());
    }
    if let Some(flag) = now["allow"]["edit"].as_str().and_then(|edit| edit.strip_prefix("a command line without ")) {
        let gone: Vec<&str> = flag.split_whitespace().collect();
        let at = flags.windows(2).position(|pair| pair == gone).unwrap_or_else(|| panic!("{name}: {flag}"));
        edits.push([&flags[..at], &flags[at + 2..]].concat());
    }
    assert!(!edits.is_empty(), "{name}: nothing is suggested: {now:#}");
    for edited in edits {
        undo();
        let outcome = scene.boxed(&strs(&[words(&["--audit-level", "all"]), edited.clone()].concat()), argv);
        outcome.must(record(&outcome, ops, "deny").is_none(), &format!("{name}: still denied with {edited:?}"));
        outcome.must(!ends_well || outcome.code == 0, &format!("{name}: with {edited:?}"));
        assert_eq!(why(scene, &edited, question).0, 0, "{name}: why says no to {edited:?}");
    }
}

#[test]
fn files_are_denied_for_the_reason_that_why_tells() {
    let scene = Scene::new();
    for name in ["outside/f", "outside/g", "home/work/a.key", "home/work/a.lock"] {
        scene.file(name, "old\n");
    }
    scene.file("home/work/.git/config", "[core]\n");
    scene.file("home/work/.git/hooks/one.sample", "");
    std::os::unix::fs::symlink(scene.outside.join("f"), scene.work.join("link")).expect("make a link");
    let outside = text(&scene.outside);
    let (f, g, new) = (format!("{outside}/f"), format!("{outside}/g"), format!("{outside}/new"));
    // In a file: a later `-r` of what an edit lets be written would take that back.
    let reads = format!("version: 1\nextends: [default]\nfilesystem: {{read: [{outside}]}}\n");
    let reads = scene.file("reads.yaml", reads);
    let read = ["-p", text(&reads)];
    let acts = [
        sh("write what may be read", &read, &format!("echo x > {f}"), &["--write", &f], CHANGES),
        sh("write through a link", &read, "echo x > link", &["--write", "link"], CHANGES),
        sh("write by way of ..", &read, "echo x > ../../outside/f", &["--write", "../../outside/f"], CHANGES),
        sh("make a file", &read, &format!("echo x > {new}"), &["--write", &new], CHANGES),
        sh("make a directory", &read, &format!("mkdir {new}"), &["--create", &new], &["mkdir"]),
        sh("remove a file", &read, &format!("rm -f {g}"), &["--delete", &g], &["unlink"]),
        sh("write a protected name", &[], "echo x >> .git/config", &["--write", ".git/config"], CHANGES),
        sh("make a protected name", &[], "echo x > .git/hooks/two", &["--write", ".git/hooks/two"], CHANGES),
        sh("read what may not be", &["--deny-read", "**/*.key"], "cat a.key", &["--read", "a.key"], &["read"]),
        sh(
            "change what may not be",
            &["--deny-write", "**/*.lock"],
            "echo x > a.lock",
            &["--write", "a.lock"],
            CHANGES,
        ),
        sh("touch what is closed", &["--deny", "**/*.lock"], "echo x > a.lock", &["--create", "a.lock"], CHANGES),
    ];
    let undo = || {
        let _ = fs::remove_dir_all(scene.outside.join("new"));
        let _ = fs::remove_file(scene.outside.join("new"));
        fs::write(scene.outside.join("g"), "old\n").expect("write g");
    };
    for act in &acts {
        undo();
        holds(&scene, act, undo);
    }
}

#[test]
fn programs_are_denied_for_the_reason_that_why_tells() {
    let scene = Scene::new();
    scene.file("deny.yaml", "version: 1\nextends: [default]\nexec: {deny: [{run: uname, message: not that}]}\n");
    let shells = "[sh, dash, bash, busybox]";
    let some = format!("version: 1\nextends: [base]\nfilesystem: {{write: [.]}}\nexec: {{allow: {shells}}}\n");
    scene.file("some.yaml", some);
    scene.script("home/work/script", "#!/usr/bin/env -S uname\n");
    scene.script("home/work/direct", "#! /usr/bin/uname -s\n");
    let (deny, some) = (scene.root.join("deny.yaml"), scene.root.join("some.yaml"));
    let some = sh("what nothing allows", &["-p", text(&some)], "uname", &["--exec", "uname"], &["exec"]);
    holds(&scene, &some, || ());
    for argv in [&["uname", "-a"][..], &["./direct"], &["./script"]] {
        let flags = words(&["-p", text(&deny)]);
        let outcome = scene.boxed(&strs(&flags), &[&["/usr/bin/env"], argv].concat());
        let then = record(&outcome, &["exec"], "deny").unwrap_or_else(|| panic!("{argv:?} was not denied\n{outcome}"));
        let question = words(&[&["--exec"], argv].concat());
        let (code, now) = why(&scene, &flags, &question);
        assert_eq!((code, &then["rule"], &now["message"]), (1, &now["rule"], &"not that".into()), "{now:#}");
        assert_eq!(now["allow"]["edit"], format!("a policy without the rule {}", then["rule"].as_str().unwrap()));
    }
}

#[test]
fn a_script_is_asked_about_with_all_that_its_interpreters_are_given() {
    let scene = Scene::new();
    let rule = "version: 1\nextends: [default]\nexec: {deny: [{run: uname, args: ['-s', '*']}]}\n";
    let policy = scene.file("policy.yaml", rule);
    scene.script("home/work/inner", "#!/usr/bin/uname -s\n");
    scene.script("home/work/outer", format!("#!{}/inner two words\n", text(&scene.work)));
    scene.script("home/work/other", "#!/usr/bin/uname -n\n");
    for (script, denied) in [("./inner", true), ("./outer", true), ("./other", false)] {
        let flags = words(&["-p", text(&policy)]);
        let outcome = scene.boxed(&strs(&flags), &["/usr/bin/env", script, "last"]);
        let then = record(&outcome, &["exec"], "deny");
        let (code, now) = why(&scene, &flags, &words(&["--exec", script, "last"]));
        assert_eq!((then.is_some(), code), (denied, i32::from(denied)), "{script}: {now:#}\n{outcome}");
        if let Some(then) = then {
            assert_eq!(then["rule"], now["rule"], "{script}");
        }
    }
}

#[test]
fn the_loopback_of_a_box_is_told_from_this_machine_s() {
    let scene = Scene::new();
    let told = "note    that is the box's own loopback; this machine's is host.agentbox.internal:5432\n";
    for (flags, tells) in [(&[][..], true), (&["--net", "rules"], true), (&["--net", "host"], false)] {
        let answer = scene.agentbox(&[&["why"], flags, &["--connect", "localhost:5432"]].concat());
        answer.exits(0).must(answer.out.ends_with(told) == tells, "whose loopback it is");
    }
}

#[test]
fn connections_are_denied_for_the_reason_that_why_tells() {
    if program("python3").is_none() {
        skip!("no python3");
    }
    let scene = Scene::new();
    let socket = scene.outside.join("s");
    let _listening = UnixListener::bind(&socket).expect("listen on a socket file");
    let unix = format!("socket.socket(socket.AF_UNIX).connect('{}')", text(&socket));
    let at = format!("unix:{}", text(&socket));
    holds(&scene, &python("a socket file", &[], &unix, &["--connect", &at], &["connect"]), || ());

    let host = std::net::TcpListener::bind("127.0.0.1:0").expect("listen");
    let port = host.local_addr().expect("an address").port();
    let to = format!("host.agentbox.internal:{port}");
    let code = format!("socket.create_connection(('host.agentbox.internal', {port}), 20)");
    let rules = ["--net", "rules"];
    let service = python("a service of this machine", &rules, &code, &["--connect", &to], &["resolve", "connect"]);
    holds(&scene, &service, || ());

    let short = "s = socket.socket(); s.settimeout(0.3); s.connect(('198.51.100.7', 81))";
    for flags in [&rules[..], &[], &["--net", "rules", "--net-deny", "198.51.100.0/24"]] {
        let address = python("an address", flags, short, &["--connect", "198.51.100.7:81"], &["connect"]);
        let mut act = Act { ends_well: false, ..address };
        if flags.len() > 2 {
            // Without the denial nothing allows it either.
            act.flags.extend(words(&["--net-allow", "198.51.100.7:81"]));
        }
        holds(&scene, &act, || ());
    }
    let metadata = "s = socket.socket(); s.settimeout(0.3); s.connect(('169.254.169.254', 80))";
    let act = python("metadata", &["--net-allow", "*"], metadata, &["--connect", "169.254.169.254:80"], &["connect"]);
    holds(&scene, &Act { ends_well: false, ..act }, || ());

    let lookup = "socket.getaddrinfo('a.example.invalid', 443)";
    let act = python("a name", &rules, lookup, &["--resolve", "a.example.invalid"], &["resolve"]);
    holds(&scene, &Act { ends_well: false, ..act }, || ());
}

#[test]
fn what_is_not_in_the_view_is_said_to_be_hidden() {
    let scene = Scene::new();
    let secret = scene.file("home/.secret", "s\n");
    let seen = scene.boxed(&[], &["cat", text(&secret)]);
    seen.must(seen.code != 0, "the box read it");
    let asked = scene.agentbox(&["why", "--read", text(&secret)]);
    asked.exits(1).must(asked.out.contains("not in the view"), "it is hidden");
    asked.must(asked.out.contains(&format!("allow   -r {}\n", text(&secret))), "what shows it");
    scene.boxed(&["-r", text(&secret)], &["cat", text(&secret)]).exits(0);
    scene.agentbox(&["why", "-r", text(&secret), "--read", text(&secret)]).exits(0);
    // What would be written to where its directory is not.
    let file = scene.file("outside/f", "");
    let line = format!("echo x > {}", text(&file));
    let outcome = scene.boxed_sh(&[], &line);
    outcome.must(outcome.code != 0, "the box wrote it");
    let (code, answer) = why(&scene, &[], &words(&["--write", text(&file)]));
    assert_eq!((code, &answer["rule"]), (1, &record(&outcome, CHANGES, "allow").expect("a record")["rule"]));
    assert_eq!(answer["allow"]["flag"], format!("-w {}", text(&file)));
    scene.boxed_sh(&["-w", text(&file)], &line).exits(0);
    let own = scene.agentbox(&["why", "--write", text(&scene.home.join("new"))]);
    own.exits(0).must(own.out.contains("vanishes with it"), "whose directory it is");
    // A link whose directory is not in the view leads nowhere.
    std::os::unix::fs::symlink("/etc", scene.home.join("link")).expect("make a link");
    let link = scene.home.join("link/passwd");
    assert_eq!(scene.boxed(&[], &["cat", text(&link)]).code, 1);
    scene.agentbox(&["why", "--read", text(&link)]).exits(1);
    // A program of a directory that is not in the view.
    let tool = scene.script("home/bin/tool", "#!/bin/sh\n");
    scene.agentbox(&["why", "--exec", text(&tool)]).exits(1);
    scene.agentbox(&["why", "-r", text(&scene.home.join("bin")), "--exec", text(&tool)]).exits(0);
}

#[test]
fn the_answer_is_short_and_the_exit_status_tells() {
    let scene = Scene::new();
    let path = "/etc/hosts";
    let denied = scene.agentbox(&["why", "--write", path]);
    let expected = format!(
        "denied  write {path}\nrule    default.yaml filesystem (nothing grants it)\nallow   -w {path}\n        \
         filesystem: {{write: [{path}]}}\n"
    );
    assert_eq!((denied.code, denied.out.as_str(), denied.err.as_str()), (1, expected.as_str(), ""));
    let allowed = scene.agentbox(&["why", "--write", "new"]);
    let expected = format!("allowed create {}/new\nrule    default.yaml filesystem.write[0]\n", text(&scene.work));
    assert_eq!((allowed.code, allowed.out.as_str()), (0, expected.as_str()));
    scene.file("home/work/notes", "");
    let plain = scene.agentbox(&["why", "--exec", "./notes"]);
    plain.exits(0).must(plain.out.ends_with("note    its mode does not let it be run\n"), "what no rule says");
    let missing = scene.agentbox(&["why", "--write", ".git/hooks/pre-push"]);
    missing.exits(1).must(missing.out.contains("-w .git/hooks") && missing.out.contains("there already"), "make it");
    for bad in [
        &["why"][..],
        &["why", "--read", "a", "--write", "b"],
        &["why", "--connect", "example.org"],
        &["why", "--connect", "https://example.org/"],
        &["why", "--exec", "no-such-program-here"],
        &["why", "--event", "last:x"],
        &["why", "--last"],
        &["why", "-p", "./nothing.yaml", "--read", "a"],
    ] {
        let outcome = scene.agentbox(bad);
        outcome.exits(125).must(outcome.out.is_empty() && !outcome.err.is_empty(), "one message");
    }
    let hostile = scene.agentbox(&["why", "--read", "/x/\u{1b}[2J"]);
    hostile.must(!hostile.out.contains('\u{1b}'), "nothing drives the terminal");
}

#[test]
fn a_record_is_put_to_the_policy_of_now() {
    let scene = Scene::new();
    scene.file("outside/f", "");
    let path = scene.outside.join("f");
    let line = format!("echo x > {}; exit 0", text(&path));
    let binary = agentbox();
    let ran = common::run(
        scene.free_command(&[text(&binary), "run", "-q", "-r", text(&scene.outside), "--", "/bin/sh", "-c", &line]),
        b"",
    );
    ran.exits(0);
    let read = words(&["-r", text(&scene.outside)]);
    let last = scene.agentbox(&["why", "-r", text(&scene.outside), "--last"]);
    last.exits(1).must(last.out.starts_with("then    denied by default.yaml filesystem  "), "what was decided then");
    let now = scene.agentbox(&["why", "-w", text(&path), "--last"]);
    now.exits(0).must(now.out.contains("\nallowed write "), "what would be now");
    now.must(now.out.contains("not the policy that the run had"), "it says so");
    last.must(!last.out.contains("not the policy"), "it is the same policy");
    let (_, answer) = why(&scene, &read, &words(&["--last"]));
    let seq = answer["then"]["seq"].as_u64().expect("a number");
    let same = why(&scene, &read, &words(&["--event", &format!("last:{seq}")])).1;
    assert_eq!(answer, same);
    assert_eq!(answer, why(&scene, &read, &words(&["--event", &seq.to_string()])).1);
    scene.agentbox(&["why", "--event", "last:1"]).exits(125);
    scene.agentbox(&["why", "--event", "last:9999"]).exits(125);
}

/// A way to be denied: what a policy file says besides the default, flags, and the act.
struct Kind {
    name: &'static str,
    rules: String,
    flags: Vec<String>,
    argv: Vec<String>,
    /// The operation that is denied.
    op: &'static str,
    /// Whether the command ends well once it is allowed.
    ends_well: bool,
}

/// A shell line, denied by the rules in a file. Each entry of a list stands on its own line, so that it can go.
fn kind(name: &'static str, op: &'static str, rules: &str, flags: &[&str], line: &str) -> Kind {
    let argv = words(&["/bin/sh", "-c", line]);
    Kind { name, rules: rules.into(), flags: words(flags), argv, op, ends_well: true }
}

/// The same in Python; the network is not there, so such a command ends as it can.
fn net_kind(name: &'static str, op: &'static str, rules: &str, flags: &[&str], code: &str) -> Kind {
    let code = format!("import socket\ns = socket.socket(); s.settimeout(0.3)\n{code}");
    let argv = words(&["python3", "-c", &code]);
    Kind { argv, ends_well: false, ..kind(name, op, rules, flags, "") }
}

/// The policy without the rule at `key`, such as `exec.deny[0]`.
fn without(policy: &str, key: &str) -> String {
    let (path, number) = key.strip_suffix(']').and_then(|key| key.rsplit_once('[')).expect("a rule of a list");
    let (section, list) = path.split_once('.').expect("a list of a section");
    let mut lines: Vec<&str> = policy.lines().collect();
    let find = |from: usize, what: &str| from + lines[from..].iter().position(|line| *line == what).expect(what);
    let at = find(find(0, &format!("{section}:")), &format!("  {list}:"));
    let gone = at + 1 + number.parse::<usize>().expect("a number");
    assert!(lines[gone].starts_with("    - "), "{policy}: {key}");
    lines.remove(gone);
    let empty = format!("  {list}: []");
    if !lines.get(at + 1).is_some_and(|line| line.starts_with("    - ")) {
        lines[at] = &empty;
    }
    lines.join("\n") + "\n"
}

/// Every edit that an answer suggests, as flags that replace those of the first run.
fn edits(scene: &Scene, kind: &Kind, policy: &str, flags: &[String], now: &Value) -> Vec<Vec<String>> {
    let rest = &flags[2..];
    let with =
        |name: &str, text: String| [words(&["-p", common::text(&scene.file(name, text))]), rest.to_vec()].concat();
    let mut edits = Vec::new();
    if let Some(flag) = now["allow"]["flag"].as_str() {
        let more = flag.split_whitespace().map(|word| word.trim_matches('\'').to_string()).collect();
        edits.push([flags.to_vec(), more].concat());
    }
    if let Some(yaml) = now["allow"]["yaml"].as_str() {
        edits.push(with("edited.yaml", format!("version: 1\nextends: [{}]\n{yaml}\n", flags[1])));
    }
    let edit = now["allow"]["edit"].as_str().unwrap_or_default();
    if let Some(flag) = edit.strip_prefix("a command line without ") {
        let gone: Vec<&str> = flag.split_whitespace().collect();
        let at = flags.windows(2).position(|pair| pair == gone).unwrap_or_else(|| panic!("{}: {flag}", kind.name));
        edits.push([&flags[..at], &flags[at + 2..]].concat());
    }
    if let Some(rule) = edit.strip_prefix("a policy without the rule ") {
        let (file, key) = rule.rsplit_once(' ').expect("a file and a key");
        assert_eq!(file, flags[1], "{}: the rule is of another file", kind.name);
        edits.push(with("edited.yaml", without(policy, key)));
    }
    edits
}

/// Runs what is denied, asks for the reason of the very record, and runs again with every edit that is suggested.
#[track_caller]
fn is_told_and_mended(scene: &Scene, kind: &Kind, undo: impl Fn()) {
    let Kind { name, rules, flags, argv, op, ends_well } = kind;
    undo();
    let base = if rules.starts_with("extends:") { "" } else { "extends: [default]\n" };
    let policy = format!("version: 1\n{base}{rules}");
    let file = scene.file("kind.yaml", &policy);
    let flags = [words(&["-p", text(&file)]), flags.clone()].concat();
    let (command, log) = scene.boxed_command(&strs(&flags), argv);
    let outcome = common::run_logged(command, b"", &log);
    let refused = |outcome: &Outcome| {
        let mut records = outcome.records.iter();
        records
            .find(|record| record["op"] == *op && record["verdict"] != "allow" && !record["verdict"].is_null())
            .cloned()
    };
    let then = refused(&outcome).unwrap_or_else(|| panic!("{name}: it was not denied\n{outcome}"));
    let event = format!("{}:{}", text(&log), then["seq"]);
    let (code, now) = why(scene, &flags, &words(&["--event", &event]));
    assert_eq!((code, &now["rule"], &now["reason"]), (1, &then["rule"], &then["reason"]), "{name}: {now:#}\n{then}");
    assert_eq!((&now["then"]["rule"], &now["op"]), (&then["rule"], &then["op"]), "{name}");
    let edits = edits(scene, kind, &policy, &flags, &now);
    assert!(!edits.is_empty(), "{name}: nothing is suggested: {now:#}");
    for edited in edits {
        undo();
        let again = scene.boxed(&strs(&edited), argv);
        again.must(refused(&again).is_none(), &format!("{name}: still denied with {edited:?} after {}", now["allow"]));
        again.must(!ends_well || again.code == 0, &format!("{name}: with {edited:?}"));
    }
}

#[test]
fn every_kind_of_denial_of_files_is_told_and_mended() {
    let scene = Scene::new();
    let out = text(&scene.outside).to_string();
    let read = format!("filesystem:\n  read:\n    - {out}\n");
    let list = |key: &str, item: &str| format!("filesystem:\n  {key}:\n    - {item}\n");
    let kinds = [
        kind("write outside", "write", &read, &[], &format!("echo x >> {out}/f")),
        kind("make a file outside", "create", &read, &[], &format!("echo x > {out}/new")),
        kind("make a directory outside", "mkdir", &read, &[], &format!("mkdir {out}/new")),
        kind("make a pipe outside", "mknod", &read, &[], &format!("mkfifo {out}/new")),
        kind("make a link outside", "symlink", &read, &[], &format!("ln -s f {out}/new")),
        kind("remove a file outside", "unlink", &read, &[], &format!("rm -f {out}/g")),
        kind("remove a directory outside", "rmdir", &read, &[], &format!("rmdir {out}/d")),
        kind("rename outside", "rename", &read, &[], &format!("mv {out}/g {out}/new")),
        kind("a second name outside", "link", &read, &[], &format!("ln {out}/g {out}/new")),
        kind("read what a pattern closes", "read", "", &["--deny", "**/*.closed"], "cat a.closed"),
        kind("change what a pattern closes", "write", &list("deny", "'**/*.closed'"), &[], "echo x >> a.closed"),
        kind("read what may not be", "read", "", &["--deny-read", "**/*.key"], "cat a.key"),
        kind("the same by a file", "read", &list("deny_read", "'**/*.key'"), &[], "cat a.key"),
        kind("rename what may not be read", "rename", &list("deny_read", "'**/*.key'"), &[], "mv a.key b"),
        kind("a second name for it", "link", &list("deny_read", "'**/*.key'"), &[], "ln a.key b"),
        kind("change what may not be", "write", "", &["--deny-write", "**/*.lock"], "echo x >> a.lock"),
        kind("remove it", "unlink", &list("deny_write", "'**/*.lock'"), &[], "rm -f a.lock"),
        kind("set its mode", "chmod", &list("deny_write", "'**/*.lock'"), &[], "chmod 600 a.lock"),
        kind("set its times", "utime", &list("deny_write", "'**/*.lock'"), &[], "touch -c -d '1 hour ago' a.lock"),
        kind("write a protected name", "write", "", &[], "echo x >> .git/config"),
        kind("make a protected name", "create", "", &[], "echo x > .git/hooks/two"),
        kind("a directory among protected names", "mkdir", "", &[], "mkdir .git/hooks/two"),
        kind("a link among protected names", "symlink", "", &[], "ln -s /bin/true .git/hooks/two"),
        kind("move onto a protected name", "rename", "", &[], "mv plain .git/hooks/two"),
    ];
    let undo = || {
        for name in ["outside/new", "home/work/b", "home/work/.git/hooks/two"] {
            let path = scene.root.join(name);
            let _ = fs::remove_dir(&path);
            let _ = fs::remove_file(&path);
        }
        for name in ["outside/f", "outside/g", "home/work/a.closed", "home/work/a.key", "home/work/a.lock"] {
            scene.file(name, "old\n");
        }
        for name in ["home/work/plain", "home/work/.git/config", "home/work/.git/hooks/one.sample"] {
            scene.file(name, "old\n");
        }
        fs::create_dir_all(scene.outside.join("d")).expect("make a directory");
    };
    kinds.iter().for_each(|kind| is_told_and_mended(&scene, kind, undo));
    if program("python3").is_none() {
        skip!("no python3: attributes and the exchange of two names are left out");
    }
    // What no plain program does, on every host.
    let act = |name, op, line: &str| Kind {
        argv: words(&["python3", "-c", &format!("import ctypes, os\n{line}")]),
        ..kind(name, op, &list("deny_write", "'**/*.lock'"), &[], "")
    };
    let exchange = "assert not ctypes.CDLL(None).renameat2(-100, b'plain', -100, b'a.lock', 2)";
    let kinds = [
        act("cut it", "truncate", "os.truncate('a.lock', 0)"),
        act("exchange it", "exchange", exchange),
        act("set its attributes", "xattr", "os.setxattr('a.lock', 'user.x', b'1')"),
        act("set its owner", "chown", "os.chown('a.lock', os.getuid(), os.getgid())"),
    ];
    kinds.iter().for_each(|kind| is_told_and_mended(&scene, kind, undo));
}

#[test]
fn every_kind_of_denial_of_programs_is_told_and_mended() {
    let scene = Scene::new();
    let list = |key: &str, item: &str| format!("exec:\n  {key}:\n    - {item}\n");
    let some = "extends: [base]\nfilesystem: {write: [.]}\nexec: {allow: [sh, dash, bash, busybox]}\n";
    let kinds = [
        kind("a denied program", "exec", &list("deny", "uname"), &[], "uname"),
        kind("denied arguments", "exec", &list("deny", "{run: uname -a, message: not that}"), &[], "uname -a"),
        kind("the second of two", "exec", &list("deny", "id\n    - uname"), &[], "uname"),
        kind("a program that a person is asked about", "exec", &list("ask", "uname *"), &[], "uname -s"),
        kind("a program that nothing allows", "exec", some, &[], "uname"),
        kind("what a launcher starts", "exec", &list("deny", "uname"), &[], "exec env uname"),
        kind("what a shell is told", "exec", &list("deny", "uname"), &[], "sh -c 'true; uname -a'"),
        kind("an interpreter", "exec", &list("deny", "echo"), &[], "./script"),
        kind("by another name", "exec", &list("deny", "uname"), &[], "./link"),
        kind("by a descriptor", "exec", &list("deny", "uname"), &[], "exec 3< /usr/bin/uname; /proc/self/fd/3"),
    ];
    scene.script("home/work/script", "#!/usr/bin/echo\n");
    std::os::unix::fs::symlink("/usr/bin/uname", scene.work.join("link")).expect("make a link");
    kinds.iter().for_each(|kind| is_told_and_mended(&scene, kind, || ()));
}

#[test]
fn every_kind_of_denial_of_the_network_is_told_and_mended() {
    if program("python3").is_none() {
        skip!("no python3");
    }
    let scene = Scene::new();
    let _listening = UnixListener::bind(scene.outside.join("s")).expect("listen on a socket file");
    let out = text(&scene.outside).to_string();
    let read = format!("filesystem:\n  read:\n    - {out}\n");
    let to = |address: &str, port: u16| format!("s.connect(('{address}', {port}))");
    let address = to("198.51.100.7", 81);
    let rules =
        |deny: &str| format!("network:\n  mode: rules\n  allow:\n    - '198.51.100.0/24'\n  deny:\n    - '{deny}'\n");
    let unix = |act: &str| format!("u = socket.socket(socket.AF_UNIX); u.{act}");
    let send = "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('198.51.100.7', 81))";
    let route = "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('198.51.100.7', 81))";
    let other = ["--net-allow", "198.51.100.7:82"];
    let kinds = [
        net_kind("a name", "resolve", "", &["--net", "rules"], "socket.getaddrinfo('a.example.invalid', 443)"),
        net_kind("an address", "connect", "", &["--net", "rules"], &address),
        net_kind("an address without a network", "connect", "", &[], &address),
        net_kind("a datagram", "send", "", &["--net", "rules"], send),
        net_kind("another port", "connect", "", &other, &address),
        net_kind("a denied network", "connect", &rules("198.51.100.0/25"), &[], &address),
        net_kind("a denied port", "connect", &rules("198.51.100.7:81"), &[], &address),
        net_kind("a socket for datagrams", "connect", "", &["--net", "rules"], route),
        net_kind("metadata", "connect", "", &["--net-allow", "*"], &to("169.254.169.254", 80)),
        net_kind("a socket file", "connect", &read, &[], &unix(&format!("connect('{out}/s')"))),
        net_kind("to make a socket file", "mknod", &read, &[], &unix(&format!("bind('{out}/new')"))),
    ];
    let undo = || drop(fs::remove_file(scene.outside.join("new")));
    kinds.iter().for_each(|kind| is_told_and_mended(&scene, kind, undo));
}

#[test]
fn every_kind_of_denial_by_tiers_is_told_and_mended() {
    let scene = Scene::new();
    let tiers = |lines: &str| format!("tiers: {{{lines}}}\n");
    let hooks = "filesystem:\n  write:\n    - .git/hooks\n";
    let secrets = "filesystem:\n  secrets: default\n";
    // Another action of the same agent: it is the first that ends it.
    let wait = "while ! test -e pid; do sleep 0.01; done; kill -USR1 $(cat pid)";
    let signal = format!("rm -f pid; sh -c 'echo $$ > pid; exec sleep 0.5' & sh -c '{wait}'");
    let mut kinds = vec![
        kind("a loss for good", "unlink", &tiers("allow: 2, ask: 3"), &[], "rm -f mine"),
        kind("a loss that a person is asked about", "unlink", &tiers("allow: 2, ask: 8"), &[], "rm -f mine"),
        kind("what replaces a file", "write", &tiers("allow: 5"), &[], "echo x > mine"),
        kind("a rename onto a file", "rename", &tiers("allow: 5"), &[], "mv plain mine"),
        kind("what cannot be undone", "unlink", &tiers("allow: 9, irreversible: deny"), &[], "rm -f mine"),
        kind("the same above the line", "unlink", &tiers("allow: 2, irreversible: ask"), &[], "rm -f mine"),
        kind("a directory", "mkdir", &tiers("allow: 1"), &[], "mkdir new"),
        kind("a secret", "read", &format!("{secrets}{}", tiers("allow: 4")), &[], "cat .env"),
        kind("a secret by another name", "rename", &format!("{secrets}{}", tiers("allow: 1")), &[], "mv .env e"),
        kind("a signal to another action", "signal", &tiers("allow: 2"), &[], &signal),
        kind("what runs later", "create", &format!("{hooks}{}", tiers("allow: 7")), &[], "echo x > .git/hooks/two"),
    ];
    let _listening = UnixListener::bind(scene.outside.join("docker.sock")).expect("listen on a socket file");
    if program("python3").is_some() {
        let at = text(&scene.outside.join("docker.sock")).to_string();
        let unix = format!("socket.socket(socket.AF_UNIX).connect('{at}')");
        let listed = "s.connect(('198.51.100.7', 81))";
        kinds.push(net_kind(
            "an act with the person's rights",
            "connect",
            &tiers("allow: 8"),
            &["--net-unix", &at],
            &unix,
        ));
        kinds.push(net_kind("a listed host", "connect", &tiers("allow: 2"), &["--net-allow", "198.51.100.7"], listed));
    }
    let undo = || {
        for name in ["home/work/new", "home/work/e", "home/work/.git/hooks/two"] {
            let path = scene.root.join(name);
            let _ = fs::remove_dir(&path);
            let _ = fs::remove_file(&path);
        }
        for name in ["mine", "plain", ".env", ".git/config", ".git/hooks/one.sample"] {
            scene.file(format!("home/work/{name}"), "old\n");
        }
    };
    kinds.iter().for_each(|kind| is_told_and_mended(&scene, kind, undo));
}

#[test]
fn what_was_refused_like_the_one_before_it_is_told_by_the_same_rule() {
    let scene = Scene::new();
    (0..3).for_each(|i| drop(scene.file(format!("home/work/d/{i}"), "x")));
    let (command, log) = scene.boxed_command(&["-p", "guarded"], &["/bin/sh", "-c", "rm -rf d; true"]);
    let outcome = common::run_logged(command, b"", &log);
    let then = outcome.records.iter().find(|record| record["reason"] == "answered").expect("one that was not asked");
    let (flags, event) = (words(&["-p", "guarded"]), format!("{}:{}", text(&log), then["seq"]));
    let (code, now) = why(&scene, &flags, &words(&["--event", &event]));
    // Asked for the first time it is a person's to say, which is what the edit spares.
    assert_eq!((code, &now["rule"], &now["reason"]), (1, &then["rule"], &"tier".into()), "{now:#}");
    assert!(now["notes"].to_string().contains("a person is asked once"), "{now:#}");
    let yaml = now["allow"]["yaml"].as_str().expect("an edit");
    let file = scene.file("edited.yaml", format!("version: 1\nextends: [guarded]\n{yaml}\n"));
    scene.boxed_sh(&["-p", text(&file)], "rm -r d").exits(0);
}

#[test]
fn a_start_whose_record_is_abridged_is_told_as_it_was_decided() {
    let scene = Scene::new();
    let policy = scene.file("policy.yaml", "version: 1\nextends: [default]\nexec: {deny: ['true * secret']}\n");
    let flags = words(&["-p", text(&policy)]);
    let line = "a=$(head -c 100000 /dev/zero | tr '\\0' a); exec env true $a secret";
    let (command, log) = scene.boxed_command(&strs(&flags), &["/bin/bash", "-c", line]);
    if program("bash").is_none() {
        skip!("no bash");
    }
    let outcome = common::run_logged(command, b"", &log);
    let fits = |record: &&Value| record["op"] == "exec" && record["verdict"] == "deny";
    let then = outcome.records.iter().find(fits).unwrap_or_else(|| panic!("it was not denied\n{outcome}"));
    assert!(then["target"]["argc"].as_u64() > then["target"]["argv"].as_array().map(|argv| argv.len() as u64));
    let (code, now) = why(&scene, &flags, &words(&["--event", &format!("{}:{}", text(&log), then["seq"])]));
    assert_eq!((code, &now["rule"], &now["reason"]), (1, &then["rule"], &then["reason"]), "{now:#}");
    assert!(now["notes"].to_string().contains("does not hold all of its arguments"), "{now:#}");
    let replayed = scene.agentbox(&["policy", "replay", text(&log), "-p", text(&policy)]);
    replayed.exits(0).must(replayed.out.contains(", 0 would change with "), "nothing is said of what is not known");
    replayed.must(replayed.out.contains("1 starts of programs are not told"), "and that is said");
}

/// No edit of a policy can allow these: `why` names the rule of the record all the same, and says that nothing does.
#[test]
fn what_no_edit_allows_is_told_with_its_rule_and_without_an_edit() {
    if program("python3").is_none() {
        skip!("no python3");
    }
    let scene = Scene::new();
    scene.file("home/work/.git/config", "[core]\n");
    scene.file("home/work/.git/hooks/one.sample", "");
    let call = |code: &str| words(&["python3", "-c", &format!("import ctypes, os, socket\n{code}")]);
    for (argv, op, reason, said) in [
        // A number that no table knows: what it would do cannot be judged.
        (call("ctypes.CDLL(None).syscall(999)"), "call", "unjudged", "nothing does"),
        // The kernel's own files, for which the box has no use.
        (call("open('/proc/self/uid_map', 'w')"), "write", "kernel_file", "nothing does"),
        // It carries protected names elsewhere: every one of them would have to be lifted.
        (call("os.rename('.git', 'git')"), "rename", "above_protected", "no flag does"),
        // The box's own root, and the directories that it makes itself, are not the host's to grant.
        (call("os.mkdir('/new')"), "mkdir", "not_granted", "no flag can name it"),
        (call("os.mkdir('/dev/new')"), "mkdir", "not_granted", "no flag can name it"),
        // Abstract sockets of the host are not in the box's network, whatever its rules are.
        (call("socket.socket(socket.AF_UNIX).connect(b'\\0none')"), "connect", "not_granted", "no flag can name it"),
    ] {
        let flags: &[&str] = if op == "connect" { &["--net", "host"] } else { &[] };
        let (command, log) = scene.boxed_command(flags, &argv);
        let outcome = common::run_logged(command, b"", &log);
        let Some(then) = record(&outcome, &[op], "deny") else { panic!("{argv:?}: it was not denied\n{outcome}") };
        let event = words(&["--event", &format!("{}:{}", text(&log), then["seq"])]);
        let (code, now) = why(&scene, &words(flags), &event);
        assert_eq!((code, &now["rule"], &now["reason"]), (1, &then["rule"], &reason.into()), "{argv:?}: {now:#}");
        assert_eq!(now["allow"], Value::Null, "{argv:?}: {now:#}");
        let told = scene.agentbox(&[&["why"], flags, &strs(&event)].concat());
        told.exits(1).must(told.out.contains(&format!("\nallow   {said}")), said);
    }
}
