//! Races for what a rule denies: one thread turns a path between an allowed and a denied name as fast as it can while
//! another makes the call. Free, the denied object is hit. Boxed it never is; and the log tells of exactly as many
//! changes as the command made, and of each name that was made.
//!
//! `AGENTBOX_RACE_TRIES=100000` runs each call that often, `AGENTBOX_RACE_CALLS=write,unlink` only these.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use common::{Outcome, PATIENCE, Scene, compiler, records_with, run_for, text};
use serde_json::Value;

const RACE_PATH: (&str, &str) = ("race_path", include_str!("escape/race_path.c"));

/// The calls as `race_path` names them, and the operations of their records.
const CALLS: &[(&str, &[&str])] = &[
    ("create", &["create", "write"]),
    ("exclusive", &["create"]),
    ("write", &["write"]),
    ("cut", &["write"]),
    ("truncate", &["truncate"]),
    ("unlink", &["unlink"]),
    ("rmdir", &["rmdir"]),
    ("rename", &["rename"]),
    ("replace", &["rename"]),
    ("link", &["link"]),
    ("linkto", &["link"]),
    ("symlink", &["symlink"]),
    ("mkdir", &["mkdir"]),
    ("mknod", &["mknod"]),
    ("chmod", &["chmod"]),
    ("chown", &["chown"]),
    ("utime", &["utime"]),
    ("xattr", &["xattr"]),
    ("bind", &["mknod"]),
];

/// Calls on attributes need not be on record at a lower one.
const LEVEL: &str = "all";

fn tries() -> u32 {
    std::env::var("AGENTBOX_RACE_TRIES").ok().map_or(200, |tries| tries.parse().expect("a number of tries"))
}

/// Whether this call is asked for.
fn asked(call: &str) -> bool {
    std::env::var("AGENTBOX_RACE_CALLS").map_or(true, |calls| calls.split(',').any(|asked| asked == call))
}

/// How long a run of so many tries may take: a busy machine takes a millisecond for one.
fn patience(tries: u32) -> Duration {
    PATIENCE + Duration::from_millis(5) * tries
}

/// `good` and `hood` are alike; `hood` is denied. `turn` is a link to it.
fn lay_out(call: &str) -> Scene {
    let scene = Scene::new();
    for place in ["good", "hood"] {
        let x = scene.work.join(place).join("x");
        fs::create_dir(scene.work.join(place)).expect("make a directory");
        if call == "rmdir" {
            fs::create_dir(&x).expect("make what can be removed");
        } else if call != "create" || place == "good" {
            fs::write(&x, "content\n").expect("make a file");
        }
    }
    std::os::unix::fs::symlink("hood", scene.work.join("turn")).expect("make the link");
    scene
}

/// All there is to see of a directory and what it holds; the time of change betrays every touch.
fn look(dir: &Path) -> Vec<String> {
    let line = |path: &Path| {
        let m = fs::symlink_metadata(path).expect("stat");
        let content = if m.is_file() { fs::read(path).expect("read") } else { Vec::new() };
        let (changed, accessed) = ((m.ctime(), m.ctime_nsec()), m.nlink());
        format!("{} {:o} {}:{} {changed:?} {accessed} {content:?}", path.display(), m.mode(), m.uid(), m.gid())
    };
    let mut lines: Vec<String> =
        fs::read_dir(dir).expect("list").map(|entry| line(&entry.expect("an entry").path())).collect();
    lines.push(line(dir));
    lines.sort();
    lines
}

fn names(dir: &Path) -> BTreeSet<String> {
    let name =
        |entry: std::io::Result<fs::DirEntry>| entry.expect("an entry").file_name().to_string_lossy().into_owned();
    fs::read_dir(dir).expect("list").map(name).collect()
}

/// How many calls the command saw succeed.
fn succeeded(outcome: &Outcome) -> usize {
    let number = outcome.out.split(' ').next().and_then(|number| number.parse().ok());
    number.unwrap_or_else(|| panic!("no count\n{outcome}"))
}

fn race(how: &str) {
    if compiler().is_none() {
        skip!("no C compiler (cc)");
    }
    let tries = tries();
    let (first, second) = if how == "flip" { ("good/x", "hood/x") } else { ("good", "turn") };
    for (call, ops) in CALLS.iter().filter(|(call, _)| asked(call)) {
        let act = |scene: &Scene, tries: u32| {
            let program = text(&scene.c("race_path", RACE_PATH.1, &[])).to_string();
            [program, how.into(), tries.to_string(), first.into(), second.into(), (*call).into()]
        };
        let scene = lay_out(call);
        let before = look(&scene.work.join("hood"));
        // On a busy machine the two threads may take turns for long.
        let hit = (0..200).any(|_| {
            scene.free(&act(&scene, if how == "flip" { 1000 } else { 100 }));
            look(&scene.work.join("hood")) != before
        });
        assert!(hit, "{call}: the control never hits what is denied");

        let raced = (0..20).any(|_| {
            let scene = lay_out(call);
            let before = look(&scene.work.join("hood"));
            let deny = ["--audit-level", LEVEL, "--deny", "**/hood/**", "--deny", "**/hood"];
            let (command, log) = scene.boxed_command(&deny, &act(&scene, tries));
            let mut boxed = run_for(patience(tries), command);
            // Without those of the other thread, which are the most.
            boxed.records = records_with(&log, "/x");
            let after = look(&scene.work.join("hood"));
            boxed.must(before == after, &format!("{call}: what is denied was touched:\n{before:#?}\n{after:#?}"));
            let count = account(&boxed, ops);
            let did = succeeded(&boxed);
            boxed.must(count.len() == did, &format!("{call}: {did} succeeded, {} are on record", count.len()));
            // Names that were made are there, and there is no other.
            if ["exclusive", "linkto", "symlink", "mkdir", "mknod", "bind"].contains(call) {
                let good = ["good", "turn"].map(|name| scene.work.join(name));
                let good = good.iter().find(|dir| dir.symlink_metadata().is_ok_and(|m| m.is_dir())).expect("the one");
                let mut there = names(good);
                there.remove("x");
                let told: BTreeSet<String> = count.iter().map(|record| made(record)).collect();
                boxed.must(there == told, &format!("{call}: there: {there:?}\non record: {told:?}"));
            }
            println!("{how} {call}: {did} of {tries} succeeded, all on record ({:.1?})", boxed.took);
            // Of both names, or the two threads took turns for long: then it was no race.
            did > 0 && boxed.denied(ops, "hood")
        });
        assert!(raced, "{call}: never was one allowed and another denied: the race was not run");
    }
}

/// The records of calls that were carried out, on names `x…`.
fn account<'a>(boxed: &'a Outcome, ops: &[&str]) -> Vec<&'a Value> {
    let raced = |record: &&&Value| {
        let text = [&record["target"]["path"], &record["to"]["path"]].map(|path| path.as_str().unwrap_or_default());
        text.iter().any(|path| path.rsplit('/').next().is_some_and(|name| name.starts_with('x')))
    };
    let done = |record: &&&Value| ops.iter().any(|op| record["op"] == *op) && record["outcome"] == "ok";
    let all: Vec<&Value> = boxed.decisions("");
    all.iter().filter(done).filter(raced).copied().collect()
}

/// The name that a record tells was made.
fn made(record: &Value) -> String {
    let path = record["to"]["path"].as_str().or(record["target"]["path"].as_str()).unwrap_or_default();
    path.rsplit('/').next().unwrap_or_default().to_string()
}

#[test]
fn a_flipping_path_never_reaches_what_is_denied_by_any_call() {
    race("flip");
}

#[test]
fn a_turning_directory_never_reaches_what_is_denied_by_any_call() {
    race("swap");
}
