//! Actions: whose deed each record is, what an action did as somebody sees it who looks at the tree and the network alone,
//! and what follows from what it weighs.

mod common;

use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::sync::mpsc;

use common::{Outcome, Scene, compiler, program, text};
use serde_json::{Value, json};

const THIRTY_PY: &str = include_str!("fixtures/thirty.py");

/// A service on this machine's loopback: its port, and the bytes of each connection as it ends.
fn sink() -> (u16, mpsc::Receiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        for visitor in listener.incoming().flatten() {
            let mut bytes = Vec::new();
            let _ = { visitor }.read_to_end(&mut bytes);
            if tell.send(bytes).is_err() {
                return;
            }
        }
    });
    (port, told)
}

/// A repository with tracked and other files.
fn repository() -> Scene {
    let scene = Scene::new();
    for name in ["tracked.txt", "second.txt", "clean.txt"] {
        scene.file(format!("home/work/{name}"), "a line\n");
    }
    let made = "git init -q -b main . && git add . && git -c user.name=a -c user.email=a@example.org commit -q -m one";
    scene.free_sh(made).exits(0);
    // Git compares contents where a file is as young as its index: let the index be younger.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    scene.free_sh("touch -d '1 hour ago' *.txt && git update-index --refresh -q && git add .").exits(0);
    scene.file("home/work/mine.txt", "mine\n");
    scene.file("home/work/big.bin", vec![b'x'; 5000]);
    scene.file("home/work/.env", "TOKEN=1\n");
    scene.file("home/work/package.sh", "echo installed > installed.txt\nrm installed.txt\nmkdir installed\n");
    (0..55).for_each(|i| drop(scene.file(format!("home/work/many/{i}"), "x")));
    (0..3).for_each(|i| drop(scene.file(format!("home/work/node_modules/m/{i}.js"), "x")));
    scene
}

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
fn thirty_actions_are_told_as_somebody_saw_them_who_only_looked() {
    let (Some(python), Some(_)) = (program("python3"), program("git")) else { skip!("python3 and git are needed") };
    let scene = repository();
    let agent = scene.file("outside/thirty.py", THIRTY_PY);
    let ((listed, heard), (unlisted, unheard)) = (sink(), sink());
    let policy = scene.file(
        "policy.yaml",
        format!(
            "version: 1\nextends: [default]\nfilesystem: {{read: [{:?}], secrets: default}}\n\
             network: {{allow: ['host.agentbox.internal:{listed}']}}\n",
            text(&scene.outside)
        ),
    );
    let flags = ["-p", text(&policy), "--env", "GIT_AUTHOR_NAME=a", "--env", "GIT_AUTHOR_EMAIL=a@example.org"];
    let flags = [&flags[..], &["--env", "GIT_COMMITTER_NAME=a", "--env", "GIT_COMMITTER_EMAIL=a@example.org"]].concat();
    let argv = [text(&python), text(&agent), &listed.to_string(), &unlisted.to_string()].map(str::to_string);
    let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
    let (outcome, report) = reported(&scene, &flags, &argv);
    outcome.exits(0);
    let told: Vec<Value> = outcome.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let sums = actions(&report);
    assert_eq!((told.len(), sums.len()), (30, 30), "{outcome}");
    let mut wrong = Vec::new();
    for (told, sum) in told.iter().zip(&sums) {
        let differs = differences(told, sum);
        if !differs.is_empty() {
            wrong.push(format!("{}: {differs:?}\n  {sum}", told["command"]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // What the records say of the network is what arrived there.
    let arrived: Vec<Vec<u8>> = (0..2).map(|_| heard.recv().unwrap()).collect();
    assert_eq!(arrived, [b"hello".to_vec(), b"hello".to_vec()]);
    assert!(unheard.try_recv().is_err(), "the refused one arrived");
    let total = &report["total"]["effects"];
    assert_eq!((&total["connections"], &total["tainted_connections"]), (&json!(2), &json!(1)), "{total:#}");
    let destination = &report["destinations"][0];
    assert_eq!((&destination["allowed"], &destination["bytes_out"]), (&json!(2), &json!(10)), "{destination}");
    let tainted = action(&report, "cat .env > /dev/null; exec");
    assert_eq!(tainted["destinations"][0]["bytes_out"], 5, "{tainted:#}");
    // Each action has a record of its beginning and of its end, and the last says the same as the report.
    for sum in &sums {
        let id = &sum["action"];
        let of_kind = |kind| outcome.records.iter().filter(move |r| r["kind"] == kind && r["action"] == *id);
        assert_eq!((of_kind("action").count(), of_kind("action_end").count()), (1, 1), "{id}");
        assert_eq!(of_kind("action_end").next().unwrap()["effects"], sum["effects"]);
    }
}

/// Where the sum of an action differs from what it must be and from what the tree showed.
fn differences(told: &Value, sum: &Value) -> Vec<String> {
    let (expected, seen, files) = (&told["expected"], &told["seen"], &sum["effects"]["files"]);
    let mut found = Vec::new();
    let mut compare = |what: &str, is: &Value, should: &Value| {
        let (is, none) = (if is.is_null() { &json!(0) } else { is }, json!(0));
        let should = if should.is_null() { &none } else { should };
        if is != should {
            found.push(format!("{what} {is}, not {should}"));
        }
    };
    compare("command", &sum["command"], &told["command"]);
    compare("tier", &sum["tier"], &expected["tier"]);
    if !expected["programs"].is_null() {
        compare("programs", &sum["effects"]["programs"], &expected["programs"]);
    }
    compare("denied", &sum["denied"], &expected["denied"]);
    compare("refused tier", &sum["refused_tier"], &expected["refused"]);
    for (what, of) in [("secrets", "secrets"), ("connections", "connections"), ("tainted_connections", "tainted")] {
        compare(what, &sum["effects"][what], &expected[of]);
    }
    compare("taint", &sum["taint"], &expected["taint"]);
    // Git makes and moves files that are gone before anybody looks.
    if expected["scratch"] == true {
        return found;
    }
    compare("unheld", &files["unheld"], &expected["unheld"]);
    if !expected["git"].is_null() {
        compare("git", &files["git"], &expected["git"]);
    }
    if !expected["lost"].is_null() {
        compare("bytes lost", &files["bytes_lost"], &expected["lost"]);
    }
    if told["command"][1] == "package.sh" {
        // The same: a file that comes and goes.
        compare("created", &files["created"], &json!(1));
        compare("deleted", &files["deleted"], &json!(1));
        return found;
    }
    for what in ["created", "changed", "deleted", "replaced", "moved", "directories_made", "directories_removed"] {
        compare(what, &files[what], &seen[what]);
    }
    found
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
