//! Signed heads: a log that was written anew from end to end is told from the one that the run has left.

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use agentbox::audit::key::SigningKey;
use agentbox::audit::record::Note;
use agentbox::audit::{PolicyRef, Record, RunId, RunResult, Start, Summary, Writer};
use agentbox::event::Mode;
use common::{Outcome, Scene, await_until, degraded, finish, start, text, unique_seconds};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Makes the key with which every run in the scene signs; gives its public half.
fn standard_key(scene: &Scene) -> String {
    public(&scene.agentbox(&["log", "key"]))
}

fn public(printed: &Outcome) -> String {
    let key = printed.exits(0).out.lines().find_map(|line| line.strip_prefix("public key   "));
    key.unwrap_or_else(|| panic!("{printed}")).to_string()
}

fn private_key(scene: &Scene, path: &Path) -> String {
    public(&scene.agentbox(&["log", "key", text(path)]))
}

fn records(log: &Path) -> Vec<Value> {
    let log = fs::read_to_string(log).expect("the log");
    log.lines().map(|line| serde_json::from_str(line).expect("a record")).collect()
}

#[test]
fn a_run_signs_once_there_is_a_key_and_says_so_wherever_the_chain_is_spoken_of() {
    let scene = Scene::new();
    scene.boxed_sh(&["-q"], "echo x > a").exits(0);
    let log = scene.root.join("audit-0.jsonl");
    let verified = scene.agentbox(&["log", "verify", text(&log)]);
    verified.exits(0).must(verified.out.contains("\nnot signed\n"), "without a key");
    let told = scene.agentbox(&["doctor"]);
    told.must(told.out.contains("logs: not signed; `agentbox log key` makes a key"), "what to do");

    let key = standard_key(&scene);
    let file = scene.root.join("state/agentbox/log.key");
    let mode = fs::metadata(&file).expect("the key").permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    assert_eq!(standard_key(&scene), key, "it is made once");
    let told = scene.agentbox(&["doctor"]);
    told.must(told.out.contains(&format!("logs: signed by {key}")), "which key");

    let report = scene.root.join("report.json");
    let ran = scene.boxed_sh(&["-v", "--report", text(&report)], "echo x > b");
    ran.exits(0).must(ran.err.contains(&format!("(signed by {}…)", &key[..20])), "at the end of the run");
    let log = scene.root.join("audit-1.jsonl");
    let report: Value = serde_json::from_slice(&fs::read(report).expect("the report")).expect("JSON");
    assert_eq!(report["signed_by"], *key);
    let kinds: Vec<Value> = records(&log).iter().map(|record| record["kind"].clone()).collect();
    assert_eq!(
        (&kinds[..2], &kinds[kinds.len() - 2..]),
        (&["start", "head"].map(Value::from)[..], &["end", "head"].map(Value::from)[..])
    );

    let verified = scene.agentbox(&["log", "verify", text(&log)]);
    verified.exits(0).must(verified.out.contains(&format!("signed to its end by {key} (unchecked: ")), "whose");
    for named in [&key, text(&file)] {
        let verified = scene.agentbox(&["log", "verify", text(&log), "--key", named]);
        verified.exits(0).must(verified.out.contains(&format!("signed to its end by {key}, the key given; ")), named);
    }
    let pem = scene.file("public.pem", scene.agentbox(&["log", "key", "--pem"]).exits(0).out.clone());
    scene.agentbox(&["log", "verify", text(&log), "--key", text(&pem)]).exits(0);
    let other = private_key(&scene, &scene.root.join("other.key"));
    let verified = scene.agentbox(&["log", "verify", text(&log), "--key", &other]);
    let said = format!("BROKEN {} line 2: signed with {key}, and not with {other}", log.display());
    verified.exits(1).must(verified.out.contains(&said), "another key");
    let unsigned = scene.root.join("audit-0.jsonl");
    let verified = scene.agentbox(&["log", "verify", text(&unsigned), "--key", &key]);
    verified.exits(1).must(verified.out.contains(&format!(": not signed: no head in it is of {key}")), "no head");

    let whole = fs::read_to_string(&log).expect("the log");
    let read = scene.agentbox(&["log", text(&log)]);
    read.exits(0).must(read.out.matches("all before it signed by ed25519:").count() >= 2, "the trail");
    assert_eq!(scene.agentbox(&["log", "follow", text(&log), "--json"]).exits(0).out, whole);
    let shown = scene.agentbox(&["log", "show", &format!("{}:3", log.display())]);
    shown.exits(0).must(shown.out.contains("signed: `agentbox log verify` checks it"), "one record");
    for command in [&["log", "tree"][..], &["log", "stats"], &["log", "export", "-f", "ocsf"]] {
        let read = scene.agentbox(&[command, &[text(&log)]].concat());
        read.exits(0).must(read.err.is_empty() && !read.out.contains("newer"), "known to each reader");
    }
    let page = scene.agentbox(&["report", text(&log), "-o", "-"]);
    page.exits(0).must(page.out.contains(&key), "the page");
}

/// What a head signs, put together from its record as the documentation says.
fn signed_bytes(head: &Value) -> String {
    let word = |name: &str| head[name].as_str().expect("a word").to_string();
    let (key, run, prev, time) = (word("key"), word("run"), word("prev"), word("time"));
    format!("agentbox log head 1\nkey {key}\nrun {run}\nseq {}\nprev {prev}\ntime {time}\n", head["seq"])
}

#[test]
fn openssl_makes_keys_that_sign_and_checks_what_is_signed() {
    let scene = Scene::new();
    if scene.free_sh("openssl version").code != 0 {
        println!("skipped: there is no openssl here");
        return;
    }
    let (key, public) = (scene.root.join("mine.pem"), scene.root.join("public.pem"));
    let made = format!("umask 077; openssl genpkey -algorithm ed25519 -out {}", key.display());
    scene.free_sh(&made).exits(0);
    scene.boxed_sh(&["--key", text(&key)], "echo x > a; echo y > b").exits(0);
    let log = scene.root.join("audit-0.jsonl");
    let pem = scene.agentbox(&["log", "key", text(&key), "--pem"]).exits(0).out.clone();
    let theirs = scene.free_sh(&format!("openssl pkey -in {} -pubout", key.display()));
    assert_eq!(pem, theirs.exits(0).out, "the same public key");
    fs::write(&public, pem).expect("the public key");
    let mut prev = String::new();
    let mut heads = 0;
    for (line, record) in fs::read_to_string(&log).expect("the log").lines().zip(records(&log)) {
        if record["kind"] == "head" {
            assert_eq!(record["prev"], *prev, "what the chain has come to");
            let bytes = signed_bytes(&record);
            let check = |bytes: String| {
                let digits = record["signature"].as_str().expect("digits");
                let signature: Vec<u8> = (0..64)
                    .map(|at| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).expect("hexadecimal"))
                    .collect();
                let (bytes, signature) = (scene.file("bytes", bytes), scene.file("signature", signature));
                scene.free(&[
                    "openssl",
                    "pkeyutl",
                    "-verify",
                    "-pubin",
                    "-inkey",
                    text(&public),
                    "-rawin",
                    "-in",
                    text(&bytes),
                    "-sigfile",
                    text(&signature),
                ])
            };
            check(bytes.clone()).exits(0);
            check(bytes.replace("\nseq ", "\nseq 1")).exits(1);
            heads += 1;
        }
        prev = Sha256::digest(line).iter().map(|byte| format!("{byte:02x}")).collect();
    }
    assert!(heads >= 2);
    scene.agentbox(&["log", "verify", text(&log), "--key", text(&public)]).exits(0);
}

/// Puts the lines from `at` on into a right chain again, as whoever can write the file may do.
fn chain_anew(lines: &mut [String], at: usize) {
    let mut prev = at.checked_sub(1).map_or("0".repeat(64), |before| digest(&lines[before]));
    for (number, line) in lines.iter_mut().enumerate().skip(at) {
        let (_, rest) = line.split_once("\",\"kind\":").expect("a record");
        *line = format!("{{\"v\":1,\"seq\":{},\"prev\":\"{prev}\",\"kind\":{rest}", number + 1);
        prev = digest(line);
    }
}

fn digest(line: &str) -> String {
    Sha256::digest(line).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A signed log as a run leaves it, of `records` notes.
fn signed_log(path: &Path, key: &Path, records: usize, salt: u64) -> Vec<String> {
    let run = RunId::new(SystemTime::UNIX_EPOCH, salt);
    let start = Start {
        time: "1970-01-01T00:00:00.000000Z".into(),
        run: run.clone(),
        agentbox: "0.1.0".into(),
        command: vec!["agent".into()],
        policy: PolicyRef { name: "default.yaml".into(), digest: "00".into() },
        mode: Mode::Enforce,
        coverage: Value::Null,
    };
    let writer = Writer::create(path, &start).expect("a log");
    writer.sign(SigningKey::read(key).expect("a key")).expect("a head");
    writer.start().expect("a thread");
    for number in 0..records {
        writer.push(Record::Note(Note { time: SystemTime::UNIX_EPOCH, text: format!("note {number}") }));
    }
    writer.finish(&RunResult::default(), &Summary::empty(run)).expect("a whole log");
    fs::read_to_string(path).expect("the log").lines().map(String::from).collect()
}

fn is_head(line: &str) -> bool {
    line.contains("\",\"kind\":\"head\",")
}

/// The first head at `at` or behind it.
fn next_head(lines: &[String], at: usize) -> usize {
    (at..lines.len()).find(|at| is_head(&lines[*at])).expect("a head")
}

/// What somebody does to a log at one of its lines, so that the chain is right again: gives the lines, and where it must
/// be said to be wrong: at the head that vouches for what was changed, or at the end.
type Rewriting = (&'static str, fn(&mut Vec<String>, usize) -> usize, &'static str);

const FAILS: &str = "its signature does not hold: within records ";
const NO_END: &str = "its end is not signed: ";

const REWRITINGS: [Rewriting; 11] = [
    (
        "a word is changed",
        |lines, at| {
            lines[at] = lines[at].replace("\"note ", "\"nota ");
            chain_anew(lines, at);
            next_head(lines, at)
        },
        FAILS,
    ),
    (
        "a record is removed",
        |lines, at| {
            lines.remove(at);
            chain_anew(lines, at);
            next_head(lines, at)
        },
        FAILS,
    ),
    (
        "a record is added",
        |lines, at| {
            lines.insert(at, lines[at].clone());
            chain_anew(lines, at);
            next_head(lines, at)
        },
        FAILS,
    ),
    (
        "two records change places",
        |lines, at| {
            lines.swap(at, at + 1);
            chain_anew(lines, at);
            next_head(lines, at)
        },
        FAILS,
    ),
    (
        "a head is removed",
        |lines, at| {
            let head = next_head(lines, at);
            lines.remove(head);
            chain_anew(lines, head);
            next_head(lines, head)
        },
        FAILS,
    ),
    (
        "a head's time is changed",
        |lines, at| {
            let head = next_head(lines, at);
            lines[head] = lines[head].replace("\"time\":\"2", "\"time\":\"1");
            chain_anew(lines, head);
            head
        },
        FAILS,
    ),
    (
        "a head is put in the place of another",
        |lines, at| {
            let (first, second) = (next_head(lines, 0), next_head(lines, at));
            lines[second] = lines[first].clone();
            chain_anew(lines, second);
            second
        },
        FAILS,
    ),
    (
        "the heads from a place on are removed",
        |lines, at| {
            let kept = lines.drain(at..).filter(|line| !is_head(line)).collect::<Vec<_>>();
            lines.extend(kept);
            chain_anew(lines, at);
            lines.len() - 1
        },
        NO_END,
    ),
    (
        "the rest is cut off behind a head, and an end forged",
        |lines, at| {
            let end = lines[lines.len() - 2].clone();
            lines.truncate(next_head(lines, at) + 1);
            lines.push(end);
            chain_anew(lines, 1);
            lines.len() - 1
        },
        NO_END,
    ),
    (
        "the last head is cut off",
        |lines, _| {
            lines.pop();
            lines.len() - 1
        },
        NO_END,
    ),
    (
        "every head is removed",
        |lines, _| {
            lines.retain(|line| !is_head(line));
            chain_anew(lines, 1);
            lines.len() - 1
        },
        "not signed: no head in it is of ed25519:",
    ),
];

#[test]
fn every_kind_of_rewriting_is_found_and_narrowed_down_in_a_long_log() {
    const RECORDS: usize = 100_000;
    let scene = Scene::new();
    let private = scene.root.join("key");
    let key = private_key(&scene, &private);
    let path = scene.root.join("whole.jsonl");
    let whole = signed_log(&path, &private, RECORDS, 1);
    let heads = whole.iter().filter(|line| is_head(line)).count();
    assert!(heads >= RECORDS / 4096 + 2, "{heads} heads");
    let verify = |log: &Path| scene.agentbox(&["log", "verify", text(log), "--key", &key]);
    let whole_one = verify(&path);
    whole_one.exits(0).must(whole_one.out.contains(&format!("the key given; {heads} heads")), "as it was left");
    let seed = std::time::UNIX_EPOCH.elapsed().map_or(1, |time| u64::from(time.subsec_nanos()));
    let try_one = |n: usize, (what, rewrite, said): Rewriting| {
        let draw = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(n as u64 * 7919) >> 20;
        let mut at = 10 + draw as usize % (RECORDS - 8192);
        while is_head(&whole[at]) || is_head(&whole[at + 1]) {
            at += 2;
        }
        let mut lines = whole.clone();
        let found_at = rewrite(&mut lines, at);
        let log = scene.file(format!("{n}.jsonl"), lines.join("\n") + "\n");
        let told = format!("seed {seed}: {what} at line {}", at + 1);
        // The chain alone is right.
        let mut chain = agentbox::audit::read::Reader::open(&log).expect("a log");
        while let Some(seen) = chain.next_seen().expect("a line") {
            assert!(seen.faults.is_empty(), "{told}: {:?}", seen.faults);
        }
        let verified = verify(&log);
        assert_eq!(verified.code, 1, "{told}: {verified}");
        let line = format!("BROKEN {} line {}: {said}", log.display(), found_at + 1);
        assert!(verified.out.starts_with(&line), "{told}: {line}\n{verified}");
        if said == FAILS {
            let range = verified.out.split(FAILS).nth(1).and_then(|rest| rest.split(" something").next());
            let (from, to) = range.and_then(|range| range.split_once(" to ")).expect("a range");
            let (from, to): (usize, usize) = (from.parse().expect("a number"), to.parse().expect("a number"));
            assert!(to == found_at + 1 && to - from <= 2 * 4097, "{told}: {from} to {to}");
            let changed = (0..lines.len()).find(|at| lines.get(*at) != whole.get(*at)).expect("a change") + 1;
            assert!((from..=to).contains(&changed), "{told}: {changed} is not within {from} to {to}");
        }
        fs::remove_file(log).expect("tidy");
    };
    std::thread::scope(|scope| {
        for half in 0..2 {
            let try_one = &try_one;
            scope.spawn(move || {
                REWRITINGS.into_iter().enumerate().filter(|(n, _)| n % 2 == half).for_each(|(n, one)| try_one(n, one));
            });
        }
    });
}

#[test]
fn a_log_that_ends_at_a_head_is_signed_as_far_as_it_goes_and_has_no_end() {
    let scene = Scene::new();
    let private = scene.root.join("key");
    let key = private_key(&scene, &private);
    let mut lines = signed_log(&scene.root.join("whole.jsonl"), &private, 10_000, 1);
    let head = next_head(&lines, 5000);
    lines.truncate(head + 3);
    for (kept, more) in [(head + 3, "; what follows is chained and not signed"), (head + 1, "\n")] {
        let log = scene.file("cut.jsonl", lines[..kept].join("\n") + "\n");
        let verified = scene.agentbox(&["log", "verify", text(&log), "--key", &key]);
        verified.exits(1).must(verified.out.contains("no end record: cut off"), "the end");
        verified.must(verified.out.contains(&format!("signed to record {head} by {key}, the key given; ")), "how far");
        verified.must(verified.out.contains(more), "the rest");
    }
    let mut edited = lines.clone();
    edited[head + 1] = edited[head + 1].replace("note", "nota");
    let log = scene.file("edited.jsonl", edited.join("\n") + "\n");
    let verified = scene.agentbox(&["log", "verify", text(&log), "--key", &key]);
    let said = format!("before that, what stands up to record {head} was signed by {key}, the key given; ");
    verified
        .exits(1)
        .must(verified.out.contains(": changed after it was written") && verified.out.contains(&said), "both");
}

#[test]
fn whoever_signs_a_rewritten_log_with_a_key_of_their_own_is_told_by_the_key() {
    let scene = Scene::new();
    let key = standard_key(&scene);
    let theirs = scene.root.join("theirs");
    let other = private_key(&scene, &theirs);
    // A whole log of the same run, by somebody who can write it and has another key.
    scene.agentbox(&["run", "-q", "--", "true"]).exits(0);
    let log = scene.agentbox(&["log", "list", "--json"]);
    let listed: Value = serde_json::from_str(&log.exits(0).out).expect("JSON");
    assert_eq!(listed[0]["key"], *key);
    let path = PathBuf::from(listed[0]["log"].as_str().expect("a path"));
    let run = records(&path)[0]["run"].as_str().expect("a run").to_string();
    let forged = scene.root.join("forged.jsonl");
    signed_log(&forged, &theirs, 10, 1);
    fs::copy(&forged, &path).expect("put it in the place of the true one");
    let verified = scene.agentbox(&["log", "verify", &run]);
    let said = format!("line 1: the log of run 19700101-000000-000001 in the place of run {run}'s");
    verified.exits(1).must(verified.out.contains(&said), "another run");
    // By its own path there is nothing that says whose it must be but the key.
    scene.agentbox(&["log", "verify", text(&forged)]).exits(0);
    let verified = scene.agentbox(&["log", "verify", text(&forged), "--key", &key]);
    verified.exits(1).must(verified.out.contains(&format!("signed with {other}, and not with {key}")), "another key");
}

#[test]
fn the_log_of_another_run_is_told_though_the_same_key_has_signed_it_and_run_json_was_replaced_too() {
    let scene = Scene::new();
    let key = standard_key(&scene);
    for _ in 0..2 {
        scene.agentbox(&["run", "-q", "--", "true"]).exits(0);
    }
    let runs = scene.root.join("state/agentbox/runs");
    let mut ids: Vec<PathBuf> = fs::read_dir(&runs).expect("the runs").map(|run| run.expect("a run").path()).collect();
    ids.sort();
    let id = ids[1].file_name().and_then(|name| name.to_str()).expect("an id").to_string();
    scene.agentbox(&["log", "verify", &id, "--key", &key]).exits(0);
    let about = fs::read_to_string(ids[0].join("run.json")).expect("run.json");
    let about = about.replace(text(&ids[0]), text(&ids[1]));
    fs::write(ids[1].join("run.json"), about).expect("put in its place");
    fs::copy(ids[0].join("audit.jsonl"), ids[1].join("audit.jsonl")).expect("put in its place");
    for named in [&id, text(&ids[1]), text(&ids[1].join("audit.jsonl"))] {
        let verified = scene.agentbox(&["log", "verify", named, "--key", &key]);
        verified.exits(1).must(verified.out.contains(&format!("in the place of run {id}'s")), named);
    }
    // Taking the heads out of a log whose run.json says that there were some does not make it one without.
    let log = ids[0].join("audit.jsonl");
    let mut lines: Vec<String> = fs::read_to_string(&log).expect("the log").lines().map(String::from).collect();
    lines.retain(|line| !is_head(line));
    chain_anew(&mut lines, 1);
    fs::write(&log, lines.join("\n") + "\n").expect("write it anew");
    let about = fs::read_to_string(ids[0].join("run.json")).expect("run.json");
    let mut about: Value = serde_json::from_str(&about).expect("JSON");
    about["head"] = Value::Null;
    fs::write(ids[0].join("run.json"), about.to_string()).expect("write it anew");
    let verified = scene.agentbox(&["log", "verify", text(&ids[0])]);
    verified.exits(1).must(verified.out.contains(&format!("not signed: no head in it is of {key}")), "no heads");
}

#[test]
fn a_run_that_is_killed_has_signed_what_it_wrote_until_then() {
    let scene = Scene::new();
    let key = standard_key(&scene);
    let seconds = unique_seconds();
    let line = format!("mkdir a; exec sleep {seconds}");
    let (command, log) = scene.boxed_command(&[], &["/bin/sh", "-c", &line]);
    let mut run = start(command);
    let signed = || {
        let log = fs::read_to_string(&log).unwrap_or_default();
        let made = log.lines().position(|line| line.contains("mkdir"));
        made.is_some_and(|made| log.lines().skip(made).any(is_head))
    };
    await_until("the head behind the record", signed);
    let verified = scene.agentbox(&["log", "verify", text(&log), "--key", &key]);
    verified
        .exits(1)
        .must(verified.out.contains("still running") && verified.out.contains("signed to record "), "meanwhile");
    run.kill().expect("kill the run");
    run.wait().expect("reap the run");
    let verified = scene.agentbox(&["log", "verify", text(&log), "--key", &key]);
    verified.exits(1).must(verified.out.contains("no end record: cut off"), "afterwards");
    verified.must(verified.out.contains(&format!(" by {key}, the key given; ")), "signed");
}

#[test]
fn the_box_never_reads_changes_or_removes_the_key() {
    let scene = Scene::new();
    standard_key(&scene);
    let state = scene.root.join("state/agentbox/log.key");
    let (near, far) = (scene.work.join("near.key"), scene.outside.join("far.key"));
    private_key(&scene, &near);
    private_key(&scene, &far);
    symlink(&far, scene.work.join("link.key")).expect("a link");
    scene.file("home/work/team.yaml", "version: 1\nextends: [default]\naudit: {key: near.key}\n");
    let (root, link) = (text(&scene.root), scene.work.join("link.key"));
    for (flags, key) in [
        (&["-r", root][..], &state),
        (&["-w", root], &state),
        (&["--key", "near.key"], &near),
        (&["-p", "./team.yaml"], &near),
        (&["-r", root, "--key", text(&far)], &far),
        (&["-w", text(&scene.outside), "--key", text(&link)], &far),
        (&["-w", text(&scene.outside), "--key", text(&link)], &link),
    ] {
        let content = fs::read_to_string(key).expect("the key");
        let secret = content.lines().nth(1).expect("its bytes");
        let free = scene.free_sh(&format!("cat {}", key.display()));
        free.exits(0).must(free.out.contains(secret), "outside it can be read");
        let key = key.display();
        for line in [
            format!("cat {key}"),
            format!("cp {key} copy"),
            format!("ln {key} copy && cat copy"),
            format!("mv {key} copy && cat copy"),
            format!("rm -f {key}"),
            format!("echo x > {key}"),
            format!("exec 3<{key}; cat <&3"),
        ] {
            let boxed = scene.boxed_sh(flags, &format!("echo begun; {line}"));
            boxed.must(boxed.out.starts_with("begun\n"), "the box runs");
            boxed.must(boxed.code != 0 && !boxed.out.contains(secret), &format!("{flags:?}: {line}"));
            let copied = fs::read_to_string(scene.work.join("copy")).unwrap_or_default();
            assert!(!copied.contains(secret), "{flags:?}: {line}");
            let _ = fs::remove_file(scene.work.join("copy"));
            assert_eq!(fs::read_to_string(key.to_string()).expect("the key"), content, "{flags:?}: {line}");
        }
        // Nor where it is at home: no copy is left in what the box can see of agentbox.
        let hunt = "for p in /proc/[0-9]*; do cat $p/environ $p/cmdline 2>/dev/null; done; cat /proc/self/mountinfo";
        let boxed = scene.boxed_sh(flags, hunt);
        boxed.must(!boxed.out.contains(secret), "no trace of it");
    }
    let accept = ["--allow-degraded", "view", "--allow-degraded", "processes", "--allow-degraded", "network"];
    let flags = [&["-r", root, "--key", "near.key"][..], &accept].concat();
    match degraded(&scene, &flags, &format!("cat {} {}", near.display(), state.display())) {
        Some(boxed) => {
            let secret = |key: &Path| fs::read_to_string(key).expect("the key").lines().nth(1).map(String::from);
            let [near, state] = [&near, &state].map(|key| secret(key).expect("its bytes"));
            boxed.must(boxed.code != 0 && !boxed.out.contains(&near) && !boxed.out.contains(&state), "without a view");
        }
        None => println!("skipped: without a view (no user namespace can be made here to take namespaces away in)"),
    }
}

#[test]
fn a_bad_key_is_one_line_with_file_line_and_remedy_and_nothing_is_run() {
    let scene = Scene::new();
    let good = scene.root.join("good.key");
    private_key(&scene, &good);
    scene.boxed_sh(&["-q"], ":").exits(0);
    let log = scene.root.join("audit-0.jsonl");
    let content = fs::read_to_string(&good).expect("the key");
    let public = scene.agentbox(&["log", "key", text(&good), "--pem"]).exits(0).out.clone();
    let bad = |name: &str, content: &str, mode: u32| {
        let path = scene.file(name, content);
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
        path
    };
    let cases = [
        (bad("empty", "", 0o600), "line 1: no key begins here"),
        (bad("torn", &content[..60], 0o600), "line 1: the key that begins here has no end"),
        (bad("hurt", &content.replace("MC4C", "MC4*"), 0o600), "line 2: not base64"),
        (bad("public", &public, 0o600), "line 1: a public key, which cannot sign"),
        (bad("open", &content, 0o644), ": others can read this private key (mode 644): chmod 600 it"),
        (scene.outside.clone(), ": a key is a regular file"),
        (scene.root.join("none"), "cannot read the key "),
    ];
    let refused = |args: &[&str], path: &Path, said: &str| {
        let run = scene.agentbox(&[args, &["--", "/bin/sh", "-c", "echo x > made"]].concat());
        run.exits(125).must(run.err.contains(said) && run.err.contains(text(path)), said);
        run.must(run.err.lines().count() == 1 && !run.err.contains('\u{1b}'), "one line");
        run.must(!scene.work.join("made").exists(), "nothing was run");
        run.err.clone()
    };
    for (path, said) in &cases {
        refused(&["run", "--key", text(path)], path, said);
        let policy = format!("version: 1\nextends: [default]\naudit:\n  key: {}\n", path.display());
        scene.file("home/work/team.yaml", policy);
        let err = refused(&["run", "-p", "./team.yaml"], path, said);
        assert!(err.contains("team.yaml:4:8: audit.key: "), "{err}");
    }
    // A key that is there for every run is never passed over.
    let own = bad("state/agentbox/log.key", "", 0o600);
    refused(&["run"], &own, "line 1: no key begins here");
    let told = scene.agentbox(&["doctor"]);
    told.must(told.out.contains("logs: no run starts here, because none can be signed: "), "doctor");
    let made = scene.agentbox(&["log", "key"]);
    made.exits(125).must(made.err.contains("line 1: no key begins here"), "nor replaced");
    for (named, said) in [("ed25519:12", "is neither a public key"), ("no-such-file", "is neither a public key")] {
        let verified = scene.agentbox(&["log", "verify", text(&log), "--key", named]);
        verified.exits(125).must(verified.err.contains(said) && verified.err.lines().count() == 1, named);
    }
}

#[test]
fn readers_see_a_right_log_while_a_run_signs() {
    let scene = Scene::new();
    let key = standard_key(&scene);
    let (command, log) =
        scene.boxed_command(&[], &["/bin/sh", "-c", "for i in 1 2 3 4 5 6 7 8; do echo $i > f; sleep 0.2; done"]);
    let run = start(command);
    await_until("the log", || fs::metadata(&log).is_ok_and(|log| log.len() > 0));
    let mut looks = 0;
    loop {
        let verified = scene.agentbox(&["log", "verify", text(&log), "--key", &key]);
        verified.must(!verified.out.contains("BROKEN") && verified.out.contains("signed to "), "whole and signed");
        looks += 1;
        if verified.code == 0 {
            break;
        }
        verified.exits(1);
    }
    assert!(looks > 1);
    finish(run, b"", &log).exits(0);
}
