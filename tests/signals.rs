//! Signals between actions: what one sends to another is judged and on record, what stays within is nobody's concern,
//! and nothing else changes.

mod common;

use std::fs;

use common::{Outcome, Scene, compiler, degraded, program, run, text};
use serde_json::{Value, json};

const SIGNALS: (&str, &str) = ("signals", include_str!("fixtures/signals.c"));

/// A scene with the program that sends and takes signals.
fn scene() -> Option<Scene> {
    compiler()?;
    let scene = Scene::new();
    scene.c(SIGNALS.0, SIGNALS.1, &[]);
    Some(scene)
}

/// The records of signals: by which action, which signal, to whom, and what came of it.
fn sent(outcome: &Outcome) -> Vec<Value> {
    let signals = outcome.records.iter().filter(|record| record["kind"] == "decision" && record["op"] == "signal");
    let tell = |record: &Value| {
        let target = &record["target"];
        json!([record["action"], target["name"], target["to"], record["outcome"]])
    };
    signals.map(tell).collect()
}

/// Runs with `--report` and gives that, too.
fn reported(scene: &Scene, flags: &[&str], argv: &[&str]) -> (Outcome, Value) {
    let report = scene.root.join("report.json");
    let outcome = scene.boxed(&[flags, &["--report", text(&report)]].concat(), argv);
    let report = fs::read_to_string(report).unwrap_or_else(|error| panic!("no report: {error}\n{outcome}"));
    (outcome, serde_json::from_str(&report).unwrap())
}

fn sum<'a>(report: &'a Value, action: &str) -> &'a Value {
    let sums = report["actions"].as_array().unwrap();
    sums.iter().find(|sum| sum["action"] == action).unwrap_or_else(|| panic!("no {action}: {report:#}"))
}

/// What was printed, in no order: sender and receiver print at the same time.
fn lines(outcome: &Outcome) -> Vec<&str> {
    let mut lines: Vec<&str> = outcome.out.lines().collect();
    lines.sort_unstable();
    lines
}

/// The number of the server that a run left behind in `ready`.
fn server(scene: &Scene) -> i32 {
    let ready = fs::read_to_string(scene.work.join("ready")).unwrap();
    ready.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn a_signal_to_another_actions_server_is_on_record_by_whatever_call_it_is_sent() {
    let Some(scene) = scene() else { skip!("no C compiler (cc)") };
    let line = "./signals server ready; ./signals each ready; true";
    let free = scene.free_sh(line);
    free.exits(0).must(free.out.matches("got\n").count() == 9, "all that are sent arrive");
    let (outcome, report) = reported(&scene, &[], &["/bin/sh", "-c", line]);
    assert_eq!((outcome.code, lines(&outcome)), (free.code, lines(&free)), "{outcome}");
    let pid = server(&scene);
    let process = |signal: &str| json!(["a2", signal, {"process": {"pid": pid, "action": "a1"}}, "ok"]);
    let mut expected = vec![process("SIGUSR1"); 8];
    expected.push(json!(["a2", "SIGUSR1", {"group": {"pgid": pid, "action": "a1"}}, "ok"]));
    expected.push(process("SIGKILL"));
    assert_eq!(sent(&outcome), expected);
    let sum = sum(&report, "a2");
    assert_eq!((&sum["effects"]["signals"], &sum["tier"]), (&json!(10), &json!(3)), "{sum:#}");
    assert_eq!((&sum["reach"], &sum["reversibility"]), (&json!("B1"), &json!("R2")), "{sum:#}");
    let record = outcome.decisions("SIGKILL")[0];
    assert_eq!((&record["verdict"], &record["rule"]), (&json!("allow"), &json!("built-in signals")), "{record}");
    assert_eq!(report["total"]["effects"]["signals"], 10);
    let minimal = scene.file("minimal.yaml", "version: 1\nextends: [default]\naudit: {level: minimal}\n");
    let outcome = scene.boxed(&["-p", text(&minimal)], &["/bin/sh", "-c", line]);
    assert_eq!((lines(&outcome), sent(&outcome)), (lines(&free), vec![]), "{outcome}");
}

#[test]
fn a_sender_that_shows_nothing_of_itself_is_seen_all_the_same() {
    let Some(scene) = scene() else { skip!("no C compiler (cc)") };
    let line = "./signals server ready; ./signals hidden ready; kill -9 $(cut -d' ' -f1 ready)";
    let (free, boxed) = (scene.free_sh(line), scene.boxed_sh(&[], line));
    assert_eq!((boxed.code, lines(&boxed)), (free.code, lines(&free)), "{boxed}");
    let to = json!({"process": {"pid": server(&scene), "action": "a1"}});
    let expected = [("a2", "SIGUSR1"), ("a2", "SIGUSR1"), ("session", "SIGKILL")];
    assert_eq!(sent(&boxed), expected.map(|(action, signal)| json!([action, signal, to, "ok"])));
}

#[test]
fn a_descriptor_that_turns_while_it_is_judged_signals_only_whom_it_was_judged_for() {
    let Some(scene) = scene() else { skip!("no C compiler (cc)") };
    let policy = scene.file("policy.yaml", "version: 1\nextends: [default]\ntiers: {allow: 2, ask: 2}\n");
    for how in ["turn", "turns"] {
        let line =
            format!("rm -f ready; ./signals server ready; ./signals {how} ready; kill -9 $(cut -d' ' -f1 ready)");
        let free = scene.free_sh(&line);
        free.exits(0).must(free.out.contains("got\n"), "the control never reaches the server");
        let boxed = scene.boxed_sh(&[], &line);
        let sent = sent(&boxed).iter().filter(|record| record[0] == "a3" && record[3] == "ok").count();
        boxed.must(boxed.out.contains("got\n") && boxed.out.contains("500 sent"), "all are sent where all may be");
        let got = boxed.out.matches("got\n").count();
        boxed.must((got..500).contains(&sent), &format!("{got} arrived at the server, {sent} on record"));
        fs::remove_file(scene.work.join("ready")).unwrap();
        let held = scene.boxed_sh(&["-p", text(&policy)], &line);
        held.must(!held.out.contains("got\n"), "the server got what was judged for the child");
        held.must(!held.out.contains("\n0 sent") && held.denied(&["signal"], "tiers"), "the race was not run");
    }
}

#[test]
fn tiers_keep_an_action_from_signalling_another_and_the_agent_from_nothing_it_started() {
    for level in ["actions", "minimal"] {
        let Some(scene) = scene() else { skip!("no C compiler (cc)") };
        let policy =
            format!("version: 1\nextends: [default]\naudit: {{level: {level}}}\ntiers: {{allow: 2, ask: 2}}\n");
        let policy = scene.file("policy.yaml", policy);
        let line = "./signals server ready; ./signals one ready; sh -c 'kill -9 -1' 2>/dev/null; echo $?; \
                    sh -c 'echo >&3; exec sleep 60' & read ready <&3; kill $!; wait $!; echo $?";
        scene.free_sh("mkfifo fifo").exits(0);
        let line = format!("exec 3<> fifo; {line}");
        let (outcome, report) = reported(&scene, &["-p", text(&policy)], &["/bin/sh", "-c", &line]);
        assert_eq!(outcome.out, "one EPERM\n1\n143\n", "{outcome}");
        let to = json!({"process": {"pid": server(&scene), "action": "a1"}});
        let refused = [json!(["a2", "SIGUSR1", to, "EPERM"]), json!(["a3", "SIGKILL", "everybody", "EPERM"])];
        assert_eq!(sent(&outcome)[..2], refused, "{outcome}");
        let (reason, sum) = (&outcome.decisions("SIGUSR1")[0]["reason"], sum(&report, "a2"));
        assert_eq!((reason, &sum["denied"], &sum["refused_tier"]), (&json!("tier"), &json!(1), &json!(3)), "{sum:#}");
        assert_eq!(sum["effects"]["signals"], Value::Null);
    }
}

#[test]
fn what_a_process_signals_of_its_own_is_not_recorded_and_works_as_outside() {
    let Some(scene) = scene() else { skip!("no C compiler (cc)") };
    for line in ["./signals own 500; echo $?", "exec ./signals own 500", "sh -c 'sleep 60 & kill $!; wait $!; echo $?'"]
    {
        let (free, boxed) = (scene.free_sh(line), scene.boxed_sh(&[], line));
        assert_eq!((boxed.code, &boxed.out), (free.code, &free.out), "{line}\n{boxed}");
        assert_eq!(sent(&boxed), [json!(null); 0], "{line}");
    }
}

#[test]
fn what_the_agent_does_to_its_own_actions_is_recorded_and_weighs_nothing() {
    let scene = Scene::new();
    let Some(bash) = program("bash") else { skip!("bash is needed") };
    scene.free_sh("mkfifo fifo").exits(0);
    // What has not begun its program yet is no action: `read` waits for that.
    let begin = |line: &str| format!("exec 3<> fifo; sh -c 'echo >&3; exec sleep 60' & read ready <&3; {line}");
    scene.file("home/work/one_action.sh", begin("kill $!; wait $!"));
    for (line, signals) in [
        (begin("kill $!; wait $!; echo $?"), &["SIGTERM"][..]),
        (format!("set -m; {}", begin("kill %1; wait %1; echo $?")), &["SIGTERM"]),
        (
            format!("set -m; {}", begin("kill -STOP %1; kill -CONT %1; kill -KILL %1; wait %1; echo $?")),
            &["SIGSTOP", "SIGKILL"],
        ),
        (begin("kill -0 $! && echo there; kill -9 $!; wait $!; kill -0 $! || echo gone"), &["SIGKILL"]),
        ("sh one_action.sh; echo $?".into(), &[]),
        ("timeout 0.2 sleep 60; echo $?".into(), &[]),
    ] {
        let line = line.as_str();
        let free = scene.free(&[text(&bash), "-c", line]);
        let (boxed, report) = reported(&scene, &[], &[text(&bash), "-c", line]);
        assert_eq!((boxed.code, &boxed.out), (free.code, &free.out), "{line}\n{boxed}");
        let sent = sent(&boxed);
        assert_eq!(sent.iter().map(|signal| &signal[1]).collect::<Vec<_>>(), signals, "{line}\n{sent:?}");
        let records = boxed.records.iter().filter(|record| record["op"] == "signal");
        assert!(records.clone().all(|record| record["target"]["below"] == true && record["tier"] == 1), "{line}");
        assert_eq!(report["total"]["effects"]["signals"], Value::Null, "{line}");
    }
}

#[test]
fn a_time_limit_ends_a_command_as_outside() {
    let scene = Scene::new();
    for argv in [&["timeout", "0.2", "sleep", "60"][..], &["timeout", "-s", "KILL", "0.2", "sleep", "60"]] {
        let (free, boxed) = (scene.free(argv), scene.boxed(&[], argv));
        assert_eq!((boxed.code, &boxed.out), (free.code, &free.out), "{boxed}");
        assert!(boxed.decisions("\"signal\"").iter().all(|record| record["verdict"] == "allow"), "{boxed}");
    }
}

#[test]
fn a_signal_from_an_action_to_the_agent_is_on_record() {
    let scene = Scene::new();
    let Some(python) = program("python3") else { skip!("python3 is needed") };
    let kill = "import os, signal; os.kill(os.getppid(), signal.SIGUSR1)";
    let line = format!("trap 'echo got' USR1; {} -c '{kill}'; echo done", text(&python));
    let free = scene.free_sh(&line);
    free.exits(0).must(free.out == "got\ndone\n", "it arrives");
    let (boxed, report) = reported(&scene, &[], &["/bin/sh", "-c", &line]);
    assert_eq!((boxed.code, &boxed.out), (free.code, &free.out), "{boxed}");
    assert_eq!(sent(&boxed), [json!(["a1", "SIGUSR1", {"process": {"pid": 2, "action": "session"}}, "ok"])]);
    assert_eq!(sum(&report, "a1")["effects"]["signals"], 1);
}

#[test]
fn a_group_is_its_leaders_and_everybody_is_everybody() {
    let scene = Scene::new();
    // Whoever ignores the signal lives on.
    let ignored = |kill: &str| format!("trap '' TERM; sh -c '{kill}'; echo $?");
    let free = {
        use std::os::unix::process::CommandExt;
        let mut command = scene.free_command(&["/bin/sh", "-c", &ignored("kill 0")]);
        command.process_group(0);
        run(command, b"")
    };
    let to_agent = json!(["a1", "SIGTERM", {"group": {"pgid": 2, "action": "session"}}, "ok"]);
    for (line, expected) in [
        (ignored("kill 0"), vec![to_agent]),
        (ignored("kill -TERM -1"), vec![json!(["a1", "SIGTERM", "everybody", "ok"])]),
        // The agent's own group, with its action in it.
        ("trap '' TERM; sleep 0.3 & kill 0; wait; echo $?".into(), vec![]),
    ] {
        let boxed = scene.boxed_sh(&[], &line);
        assert_eq!((boxed.code, &boxed.out), (free.code, &free.out), "{line}\n{boxed}");
        assert_eq!(sent(&boxed), expected, "{line}");
    }
    let ended = scene.boxed_sh(&[], "sh -c 'kill -9 -1'; echo not reached");
    assert_eq!((ended.code, ended.out.as_str()), (137, ""), "{ended}");
    assert_eq!(sent(&ended), [json!(["a1", "SIGKILL", "everybody", "ok"])]);
}

#[test]
fn a_group_whose_leader_is_gone_is_judged_by_its_members() {
    let scene = Scene::new();
    let Some(python) = program("python3") else { skip!("python3 is needed") };
    // Leads a group, leaves a member behind, and ends.
    let leave = "import os, time\nos.setpgid(0, 0)\nwith open('group', 'w') as file:\n    file.write(str(os.getpid()))\n\
                 if os.fork():\n    os._exit(0)\ntime.sleep(60)\n";
    let leave = scene.file("home/work/leave.py", leave);
    let line = format!("{} {}; sh -c 'kill -KILL -$(cat group); echo $?'", text(&python), text(&leave));
    let free = scene.free_sh(&line);
    free.must(free.out == "0\n", "somebody is left in the group");
    let boxed = scene.boxed_sh(&[], &line);
    assert_eq!((boxed.code, &boxed.out), (free.code, &free.out), "{boxed}");
    let pgid: i32 = fs::read_to_string(scene.work.join("group")).unwrap().trim().parse().unwrap();
    assert_eq!(sent(&boxed), [json!(["a2", "SIGKILL", {"group": {"pgid": pgid, "action": "a1"}}, "ok"])]);
}

#[test]
fn without_a_process_namespace_signals_work_and_are_told_by_the_numbers_of_the_host() {
    let Some(scene) = scene() else { skip!("no C compiler (cc)") };
    let line = "./signals server ready; ./signals each ready; ./signals own 5; kill -0 1 2>/dev/null; \
                kill 1 2>/dev/null; kill -9 1 2>/dev/null; true";
    let free = scene.free_sh("./signals server ready; ./signals each ready; ./signals own 5; true");
    let flags = ["--allow-degraded", "view", "--allow-degraded", "processes", "--allow-degraded", "network"];
    let Some(boxed) = degraded(&scene, &flags, line) else { skip!("no user namespace to take namespaces away in") };
    assert_eq!((boxed.code, lines(&boxed)), (free.code, lines(&free)), "{boxed}");
    let sent = sent(&boxed);
    let pid = server(&scene);
    assert_eq!(sent.len(), 10, "to its own server, and to nobody outside: {sent:?}");
    assert_eq!(sent[0], json!(["a2", "SIGUSR1", {"process": {"pid": pid, "action": "a1"}}, "ok"]));
}

const PREEMPTED_GO: &str = r#"package main

import (
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"
)

func main() {
	runtime.GOMAXPROCS(3)
	for i := 0; i < 2; i++ {
		// Only a signal gets such a loop to a halt.
		go func(n int) {
			for {
				n++
			}
		}(i)
	}
	for i := 0; i < 5; i++ {
		runtime.GC()
	}
	came := make(chan os.Signal, 1)
	signal.Notify(came, syscall.SIGUSR1)
	self, err := os.FindProcess(os.Getpid())
	fmt.Println(err, self.Signal(syscall.SIGUSR1), <-came)
}
"#;

#[test]
fn a_go_program_interrupts_itself_as_outside() {
    let Some(go) = program("go") else { skip!("no go in the system directories") };
    let scene = Scene::new();
    scene.file("home/work/preempted.go", PREEMPTED_GO);
    let mut build = scene.free_command(&[text(&go), "build", "-o", "preempted", "preempted.go"]);
    build.env("GOCACHE", scene.root.join("cache")).env("GOPROXY", "off").env("GOFLAGS", "-mod=mod");
    let built = run(build, b"");
    if built.code != 0 {
        skip!("go cannot build here: {}", built.err.lines().next().unwrap_or_default());
    }
    let (free, boxed) = (scene.free(&["./preempted"]), scene.boxed(&[], &["./preempted"]));
    free.exits(0);
    assert_eq!((boxed.code, &boxed.out, sent(&boxed)), (free.code, &free.out, vec![]), "{boxed}");
}
