//! The example agent outside and inside: outside the work and every attack succeed against a fake home; inside the
//! work succeeds, every attack fails, and each has a record.

mod common;

use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use common::{Outcome, Scene, program, run_logged, text};

const AGENT: &str = include_str!("../examples/agent/agent.py");

/// A home with things worth taking, and a repository in the workspace.
fn furnished() -> Scene {
    let scene = Scene::new();
    scene.file("home/.ssh/id_ed25519", "-----BEGIN OPENSSH PRIVATE KEY-----\n");
    scene.file("home/.bashrc", "# mine\n");
    scene.file("home/Documents/thesis.txt", "years of work\n");
    scene.file("home/work/agent.py", AGENT);
    scene.free(&["git", "init", "-q", "repo"]).exits(0);
    scene
}

/// A listener of the host, and how many have called.
fn beacon() -> (String, Arc<AtomicU32>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen on loopback");
    let address = listener.local_addr().expect("an address").to_string();
    let calls = Arc::new(AtomicU32::new(0));
    let count = calls.clone();
    std::thread::spawn(move || {
        for mut call in listener.incoming().flatten() {
            count.fetch_add(1, Ordering::SeqCst);
            let _ = call.read(&mut [0]);
        }
    });
    (address, calls)
}

fn lines<'a>(outcome: &'a Outcome, kind: &str, end: &str) -> Vec<&'a str> {
    outcome.out.lines().filter(|l| l.starts_with(kind) && l.contains(end)).collect()
}

#[test]
fn the_example_agent_works_and_every_attack_of_it_fails_with_a_record() {
    let (Some(python), Some(_), Some(_)) = (program("python3"), program("git"), program("bash")) else {
        skip!("no python3, git or bash in the system directories");
    };
    let (address, calls) = beacon();
    let argv = [text(&python), "agent.py", "--beacon", &address];

    let scene = furnished();
    let mut command = scene.free_command(&argv);
    command.env("AGENT_API_TOKEN", "t0ken");
    let free = common::run(command, b"");
    free.exits(0);
    free.must(lines(&free, "work: ", " ok").len() == 7, "the work fails outside the box");
    free.must(lines(&free, "attack: ", " succeeded").len() == 6, "the control: each attack succeeds");
    assert!(!scene.home.join("Documents").exists(), "the control deletes the documents\n{free}");
    assert!(fs::read_to_string(scene.home.join(".bashrc")).expect("read").contains("owned"), "{free}");
    assert!(scene.work.join("repo/.git/hooks/pre-commit").exists(), "{free}");
    common::await_until("the control arrives", || calls.load(Ordering::SeqCst) == 1);

    let scene = furnished();
    let (mut command, log) = scene.boxed_command(&["--audit-level", "all"], &argv);
    command.env("AGENT_API_TOKEN", "t0ken");
    let boxed = run_logged(command, b"", &log);
    boxed.exits(0);
    boxed.must(lines(&boxed, "work: ", " ok").len() == 7, "the work fails inside the box");
    boxed.must(lines(&boxed, "attack: ", " refused").len() == 6, "an attack succeeded");
    boxed.must(!boxed.out.contains("t0ken") && !boxed.err.contains("t0ken"), "the token is printed");

    // The work is really there, the home is as it was.
    assert!(scene.work.join("plan.json").exists() && scene.work.join("site/notes.txt").exists(), "{boxed}");
    scene.free(&["git", "-C", "site", "fsck", "--strict"]).exits(0);
    assert_eq!(fs::read_to_string(scene.home.join(".bashrc")).expect("read"), "# mine\n");
    assert_eq!(fs::read_to_string(scene.home.join("Documents/thesis.txt")).expect("read"), "years of work\n");
    assert!(!scene.work.join("repo/.git/hooks/pre-commit").exists(), "{boxed}");
    assert_eq!(calls.load(Ordering::SeqCst), 1, "a connection left the box");

    // Each attack on the file system and the network is on record as something that did not happen.
    let port = address.rsplit(':').next().expect("a port");
    for trace in [".ssh/id_ed25519", ".bashrc", "repo/.git/hooks/pre-commit", "Documents/thesis.txt", port] {
        boxed.must(boxed.failed_on_record(trace), &format!("no record of the failed attack on {trace}"));
    }
    for (op, trace) in [("write", ".bashrc"), ("write", "repo/.git/hooks/pre-commit")] {
        boxed.must(boxed.denied(&[op, "create"], trace), &format!("{op} of {trace} must be denied by a rule"));
    }
    // The work is on record too.
    let ran = |name: &str| boxed.decisions(name).iter().any(|r| r["op"] == "exec" && r["outcome"] == "ok");
    boxed.must(ran("bash") && ran("git"), "the programs it ran are not on record");
    boxed.must(boxed.err.contains("denied"), "the end-of-run line says how many were denied");
}
