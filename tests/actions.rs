//! Actions: whose deed each record is, and what follows from what it weighs.

mod common;

use std::fs;

use common::{Outcome, Scene, compiler, program, sink, text};
use serde_json::{Value, json};

/// Runs with `--report` and gives that, too.
fn reported(scene: &Scene, flags: &[&str], argv: &[&str]) -> (Outcome, Value) {
    let report = scene.root.join("report.json");
    let outcome = scene.boxed(&[flags, &["--report", text(&report)]].concat(), argv);
    let report = fs::read_to_string(report).unwrap_or_else(|error| panic!("no report: {error}\n{outcome}"));
    (outcome, serde_json::from_str(&report).unwrap())
}

fn actions(report: &Value) -> Vec<&Value> {
    report["actions"].as_array().unwrap().iter().filter(|sum| sum["action"] != "session").collect()
}

fn action<'a>(report: &'a Value, part: &str) -> &'a Value {
    let fits = |sum: &&&Value| sum["command"].to_string().contains(part);
    actions(report).iter().find(fits).copied().unwrap_or_else(|| panic!("no action with {part}: {report:#}"))
}

#[test]
fn an_orphan_keeps_its_action_and_its_line_leads_to_the_command() {
    let scene = Scene::new();
    let line = "sh -c 'setsid sh -c \"(sleep 0.3; echo x > orphan) &\" & exit 0'; echo y > own; sleep 0.7";
    let (outcome, report) = reported(&scene, &[], &["/bin/sh", "-c", line]);
    outcome.exits(0);
    assert_eq!(fs::read_to_string(scene.work.join("orphan")).unwrap(), "x\n");
    let starter = action(&report, "setsid");
    assert_eq!(starter["effects"]["files"]["created"], 1, "{report:#}");
    let record = outcome.decisions("/orphan")[0];
    assert_eq!((&record["action"], &record["attribution"]), (&starter["action"], &json!("subtree")), "{record}");
    let parents: Vec<i64> = record["process"]["parents"].as_array().unwrap().iter().filter_map(Value::as_i64).collect();
    assert!(parents.ends_with(&[2, 1]), "{record}");
    let own = outcome.decisions("/own")[0];
    assert_eq!((&own["action"], &own["attribution"]), (&json!("session"), &json!("session")), "{own}");
    assert!(outcome.records.iter().filter(|r| r["kind"] == "decision").all(|r| r["action"].is_string()));
}

/// Prints its limit of file locks, tries to change it by both calls, and prints what came of that.
const SHED_PY: &str = r#"
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
LOCKS = 10
limits = (ctypes.c_uint64 * 2)()
def lower(call, *args):
    return f"{call.__name__} {'ok' if call(*args) == 0 else os.strerror(ctypes.get_errno())}"
libc.prlimit(0, LOCKS, None, limits)
lowered = (ctypes.c_uint64 * 2)(5, 5)
high = (ctypes.c_uint64 * 2)(limits[0] - 1, limits[1] - 1)
for mine in lowered, high:
    print(lower(libc.prlimit, 0, LOCKS, mine, None))
    print("setrlimit", "ok" if libc.syscall(160, LOCKS, mine) == 0 else os.strerror(ctypes.get_errno()))
after = (ctypes.c_uint64 * 2)()
libc.prlimit(0, LOCKS, None, after)
print("same" if list(after) == list(limits) else "changed")
open("done", "w").close()
"#;

#[test]
fn a_process_cannot_shed_its_mark_or_take_anothers() {
    let Some(python) = program("python3") else { skip!("python3 is needed") };
    let scene = Scene::new();
    let shed = scene.file("home/work/shed.py", SHED_PY);
    let free = scene.free(&[text(&python), text(&shed)]);
    free.must(free.out.contains("prlimit ok\nsetrlimit ok") && free.out.ends_with("changed\n"), "the calls work free");
    let line = format!("{} {}; true", text(&python), text(&shed));
    let (outcome, report) = reported(&scene, &[], &["/bin/sh", "-c", &line]);
    let refused = "prlimit Operation not permitted\nsetrlimit Operation not permitted\n".repeat(2) + "same\n";
    assert_eq!(outcome.out, refused, "{outcome}");
    let record = outcome.decisions("/done")[0];
    assert_eq!(record["action"], action(&report, "shed.py")["action"]);
}

#[test]
fn what_a_secret_was_read_into_carries_it_on() {
    let scene = Scene::new();
    scene.file("home/work/.env", "TOKEN=1\n");
    let (port, heard) = sink();
    let Some(python) = program("python3") else { skip!("python3 is needed") };
    let policy = scene.file(
        "policy.yaml",
        format!(
            "version: 1\nextends: [default]\nfilesystem: {{secrets: default}}\n\
             network: {{allow: ['host.agentbox.internal:{port}']}}\ntiers: {{allow: 7}}\n"
        ),
    );
    let send = format!(
        "{} -c \"import socket; socket.create_connection(('host.agentbox.internal', {port}), 5).sendall(b'x')\"",
        text(&python)
    );
    let sent = |line: String| {
        let outcome = scene.boxed(&["-p", text(&policy)], &["/bin/sh", "-c", &line]);
        let tainted =
            outcome.records.iter().filter(|record| record["op"] == "resolve" || record["op"] == "connect").any(
                |record| {
                    record["tier"] == 8
                        && record["verdict"] == "deny"
                        && record["reason"] == "tier"
                        && record["taint"][0] == "env"
                },
            );
        let arrived = heard.recv_timeout(std::time::Duration::from_millis(300)).is_ok();
        assert!(arrived != tainted, "either it arrives or a record says why not: {outcome}");
        arrived
    };
    assert!(sent(format!("{send}; true")), "nothing was read");
    for line in [
        format!("sh -c 'cat .env >/dev/null; {send2}'; true", send2 = send.replace('\'', "'\\''")),
        format!("cp .env a; sh -c 'cat a > /dev/null; {send2}'; true", send2 = send.replace('\'', "'\\''")),
        format!(
            "cp .env a; mv a b; ln b c; sh -c 'cat c > /dev/null; {send2}'; true",
            send2 = send.replace('\'', "'\\''")
        ),
        format!("mv .env d; sh -c 'cat d > /dev/null; {send2}'; mv d .env; true", send2 = send.replace('\'', "'\\''")),
        // The agent's own process reads it: whatever it starts from then on may carry it.
        format!("read line < .env; {send}; true"),
    ] {
        assert!(!sent(line.clone()), "{line}");
        scene.free_sh("rm -f a b c; test -e .env || mv d .env").exits(0);
    }
}

#[test]
fn an_ask_that_nobody_answers_is_asked_once_and_refused_each_time() {
    let scene = Scene::new();
    (0..20).for_each(|i| drop(scene.file(format!("home/work/d/{i}"), "x")));
    let free = scene.free_sh("cp -r d e && rm -rf e && test ! -e e");
    free.exits(0);
    let (outcome, report) = reported(&scene, &["-p", "guarded"], &["/bin/sh", "-c", "rm -rf d; true"]);
    assert_eq!(fs::read_dir(scene.work.join("d")).unwrap().count(), 20, "{outcome}");
    let unlinks: Vec<&Value> = outcome.records.iter().filter(|r| r["op"] == "unlink").collect();
    let asked = unlinks.iter().filter(|r| r["verdict"] == "ask").count();
    assert_eq!((asked, unlinks.len()), (1, 20), "{outcome}");
    assert_eq!(unlinks[0]["answer"]["by"], "nobody to ask");
    assert!(unlinks[1..].iter().all(|r| r["verdict"] == "deny" && r["reason"] == "answered"), "{outcome}");
    assert_eq!(unlinks[0]["bound"]["entries"], 20, "{}", unlinks[0]);
    assert_eq!(action(&report, "rm")["denied"].as_u64(), Some(20), "{report:#}");
}

#[test]
fn the_first_call_of_a_new_program_belongs_to_its_action() {
    if compiler().is_none() {
        skip!("no C compiler (cc)");
    }
    let scene = Scene::new();
    let source =
        "#include <sys/stat.h>\nint main(int argc, char **argv) { return argc == 2 && mkdir(argv[1], 0700); }\n";
    scene.c("first", source, &[]);
    let (outcome, report) = reported(&scene, &[], &["/bin/sh", "-c", "for i in $(seq 300); do ./first d$i; done"]);
    let made: Vec<&Value> = outcome.records.iter().filter(|record| record["op"] == "mkdir").collect();
    assert_eq!(made.len(), 300, "{outcome}");
    for record in made {
        let path = record["target"]["path"].as_str().unwrap();
        let argument = path.rsplit('/').next().unwrap();
        let sum = actions(&report).into_iter().find(|sum| sum["command"] == json!(["./first", argument])).unwrap();
        assert_eq!(
            (&record["action"], &sum["effects"]["files"]["directories_made"]),
            (&sum["action"], &json!(1)),
            "{record}"
        );
        assert!(record["process"]["exe"].as_str().unwrap().ends_with("/first"), "{record}");
    }
}
