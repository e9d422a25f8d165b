//! Rules for programs with arguments, in whole runs: each spelling of a denied command works free, as a control, and is
//! refused in the box, with a record that names the rule.
//!
//! `AGENTBOX_RACE_TRIES=20000` runs the races that often.

mod common;

use std::fs;
use std::path::Path;
use std::time::Duration;

use common::{Outcome, PATIENCE, Scene, compiler, program, records_with, run_for, text};
use serde_json::Value;
use sha2::{Digest, Sha256};

const POLICY: &str = "version: 1\nextends: [default]\nexec:\n  deny: [{run: 'git push *', message: no pushing}]\n";
const RULE: &str = "exec.deny[0]";
const RACE: (&str, &str) = ("race_argv", include_str!("escape/race_argv.c"));
/// Where programs of the GNU C library find their dynamic loader.
const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";
const NOTED: &str = include_str!("escape/noted.c");
const ROADS: (&str, &str) = ("roads", include_str!("escape/roads.c"));
const MARK: (&str, &str) = ("mark", include_str!("escape/mark.c"));

/// A repository in the workspace and a remote to push to.
fn repository() -> Scene {
    let scene = Scene::new();
    scene.file("policy.yaml", POLICY);
    scene.file("home/work/Makefile", "push:\n\tgit push origin main\n");
    scene.script("home/work/push.sh", "#!/bin/sh\ncd . && git push \"$@\"\n");
    let made = "git init -q -b main . && git init -q --bare remote.git && git remote add origin ./remote.git && \
                git -c user.name=a -c user.email=a@example.org commit -q --allow-empty -m one && \
                git config alias.p 'push origin main' && git config alias.q '!git push origin main'";
    scene.free_sh(made).exits(0);
    scene
}

/// Whether something was pushed; takes it away again.
fn pushed(scene: &Scene) -> bool {
    let there = scene.work.join("remote.git/refs/heads/main").exists();
    if there {
        scene.free_sh("git --git-dir=remote.git update-ref -d refs/heads/main").exits(0);
    }
    let _ = fs::remove_file(scene.work.join("ended"));
    let _ = fs::remove_file(scene.work.join("tool"));
    there
}

fn boxed(scene: &Scene, line: &str) -> Outcome {
    let policy = scene.root.join("policy.yaml");
    scene.boxed(&["-p", text(&policy)], &["/bin/bash", "-c", line])
}

fn lacks_git() -> bool {
    program("git").is_none() || program("bash").is_none()
}

/// Runs each line free and boxed. A line may start with the programs that it needs and a colon.
fn never_pushes(lines: &[&str]) {
    let scene = repository();
    let mut wrong = Vec::new();
    for line in lines {
        let (needs, line) = line.split_once(" :: ").unwrap_or(("", line));
        if let Some(missing) = needs.split_whitespace().find(|name| !name.starts_with('/') && program(name).is_none()) {
            println!("not tried without {missing}: {line}");
            continue;
        }
        if needs.split_whitespace().any(|name| name.starts_with('/') && !Path::new(name).exists()) {
            println!("not tried without {needs}: {line}");
            continue;
        }
        let free = scene.free(&["/bin/bash", "-c", line]);
        free.must(pushed(&scene), &format!("the control of `{line}` does not push"));
        let outcome = boxed(&scene, line);
        if pushed(&scene) {
            wrong.push(format!("`{line}` pushed\n{outcome}"));
        } else if !outcome.decisions(RULE).iter().any(|record| record["op"] == "exec" && record["verdict"] == "deny") {
            wrong.push(format!("`{line}` left no record of its denial\n{outcome}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_not_denied_runs_with_the_same_rules() {
    if lacks_git() {
        skip!("no git or no bash");
    }
    let scene = repository();
    let line = "git status && git fetch origin && git -C . log && sh -c 'echo git push' && echo push | xargs echo git";
    boxed(&scene, line).exits(0).must(!pushed(&scene), "nothing was to be pushed");
    let free = scene.boxed(&[], &["git", "push", "origin", "main"]);
    free.exits(0).must(pushed(&scene), "without the rule a push works in the box");
}

#[test]
fn every_spelling_of_a_denied_command_is_refused() {
    if lacks_git() {
        skip!("no git or no bash");
    }
    never_pushes(&[
        "git push origin main",
        "git -C . push origin main",
        "git -c a.b=c --no-pager push origin main",
        "git --git-dir .git push origin main",
        "\"$(git --exec-path)\"/git-push origin main",
        "env git push origin main",
        "env -i PATH=\"$PATH\" git push origin main",
        "env -S 'git push origin' main",
        "nice -n 1 git push origin main",
        "nohup git push origin main",
        "timeout 20 git push origin main",
        "stdbuf -oL git push origin main",
        "setsid -w git push origin main",
        "echo main | xargs git push origin",
        "echo push origin main | xargs git",
        "echo push | xargs -I{} git {} origin main",
        "sh -c 'git push origin main'",
        "bash -c 'cd . && git push origin main'",
        "sh -c 'X=push; git $X origin main'",
        "sh <<E\ngit push origin main\nE",
        "echo \"$(git push origin main)\"",
        "eval 'gi''t pu''sh origin main'",
        "g() { git \"$@\"; }; g push origin main",
        "exec -a other git push origin main",
        "ln -s \"$(command -v git)\" tool && ./tool push origin main",
        "./push.sh origin main",
    ]);
}

#[test]
fn every_child_at_any_depth_is_judged() {
    if lacks_git() {
        skip!("no git or no bash");
    }
    never_pushes(&[
        "python3 :: python3 -c \"import subprocess as s; s.run(['git', 'push', 'origin', 'main'])\"",
        "python3 :: python3 -c \"import os; os.system('git push origin main')\"",
        "perl :: perl -e 'system(\"git\", \"push\", \"origin\", \"main\")'",
        "make :: make push",
        "find . -maxdepth 1 -name Makefile -exec git push origin main ';'",
        "awk :: awk 'BEGIN { system(\"git push origin main\") }'",
        "busybox :: busybox sh -c 'git push origin main'",
        "busybox :: busybox env git push origin main",
        // The orphan of a double fork, in a session of its own.
        "(setsid sh -c 'sleep 0.1; git push origin main; touch ended' &) ; until [ -e ended ]; do sleep 0.05; done",
        // Git starts itself for what its aliases stand for.
        "git p",
        "git q",
        "git -c alias.r='push origin' r main",
        "git -c alias.s='!f() { git push \"$@\"; }; f' s origin main",
    ]);
}

#[test]
fn what_the_loader_runs_is_judged() {
    if lacks_git() {
        skip!("no git or no bash");
    }
    if !Path::new(LOADER).exists() {
        skip!("no dynamic loader at {LOADER}");
    }
    never_pushes(&[
        &format!("{LOADER} \"$(command -v git)\" push origin main"),
        &format!("{LOADER} --argv0 x \"$(command -v git)\" -C . push origin main"),
        &format!("{LOADER} --inhibit-cache --library-path /lib \"$(command -v git)\" push origin main"),
        &format!("ln -s \"$(command -v git)\" tool; {LOADER} ./tool push origin main"),
        &format!("env {LOADER} \"$(command -v git)\" push origin main"),
    ]);
}

#[test]
fn an_applet_of_busybox_is_refused_under_each_of_its_names() {
    let Some(busybox) = program("busybox") else { skip!("no busybox") };
    let scene = Scene::new();
    let policy = scene.file("policy.yaml", "version: 1\nextends: [default]\nexec:\n  deny: [touch]\n");
    for line in ["busybox touch made", "busybox sh -c 'busybox touch made'", "ln -s BUSYBOX touch; ./touch made"] {
        let line = line.replace("BUSYBOX", text(&busybox));
        let clear = || ["made", "touch"].iter().for_each(|name| drop(fs::remove_file(scene.work.join(name))));
        clear();
        scene.free_sh(&line).must(scene.work.join("made").exists(), &format!("the control of `{line}` does nothing"));
        clear();
        let outcome = scene.boxed_sh(&["-p", text(&policy)], &line);
        outcome.must(!scene.work.join("made").exists(), &format!("`{line}` ran a denied applet"));
        outcome.must(outcome.denied(&["exec"], RULE), &format!("`{line}` left no record"));
    }
}

#[test]
fn a_copy_under_another_name_is_not_held_and_is_on_record() {
    if lacks_git() {
        skip!("no git or no bash");
    }
    let scene = repository();
    let outcome = boxed(&scene, "cp \"$(command -v git)\" tool && PATH=$PATH ./tool push origin main");
    let ran = outcome.decisions("work/tool");
    outcome.must(ran.iter().any(|r| r["op"] == "exec" && r["outcome"] == "ok"), "what ran is not on record");
}

#[test]
fn an_ask_with_nobody_to_ask_is_refused() {
    let scene = Scene::new();
    let policy = scene
        .file("policy.yaml", "version: 1\nextends: [default]\nexec:\n  ask: [{run: 'ls -l *', message: ask first}]\n");
    let outcome = scene.boxed(&["-p", text(&policy)], &["ls", "-l", "/"]);
    outcome.exits(126);
    let asked = outcome.decisions("exec.ask[0]");
    let record = asked.first().unwrap_or_else(|| panic!("no record\n{outcome}"));
    assert_eq!((&record["verdict"], &record["reason"]), (&"ask".into(), &"ask_rule".into()), "{outcome}");
    assert_eq!(record["answer"], serde_json::json!({"effect": "deny", "by": "nobody to ask"}), "{outcome}");
    assert_eq!((&record["outcome"], &record["message"]), (&"EACCES".into(), &"ask first".into()), "{outcome}");
    outcome.must(outcome.err.contains("exec.ask[0]: nobody to ask): ask first"), "the last line does not say why");
    scene.boxed(&["-p", text(&policy)], &["ls", "/"]).exits(0);
    let inner = scene.boxed_sh(&["-p", text(&policy)], "ls -l / || echo \"ended $?\"");
    inner.exits(0).must(inner.out == "ended 126\n" && inner.err.contains("Permission denied"), "EACCES for the caller");
}

#[test]
fn long_argument_vectors_are_judged_whole() {
    let Some(python) = program("python3") else { skip!("no python3") };
    let scene = Scene::new();
    let policy = scene
        .file("policy.yaml", "version: 1\nextends: [default]\nexec:\n  deny: [{run: 'true', args: ['*', last]}]\n");
    let start = |words: &str| format!("import os; os.execv('/bin/true', ['true'] + {words})");
    for (words, code) in [
        // Only the first argument fits the record.
        ("['x' * 100000, 'last']", 1),
        ("['x' * 100000, 'next']", 0),
        ("[str(n) for n in range(100000)]", 0),
        ("['x' * 130000] * 15", 0),
    ] {
        let outcome = scene.boxed(&["-p", text(&policy)], &[text(&python), "-c", &start(words)]);
        outcome.exits(code).must(outcome.took < Duration::from_secs(20), &format!("{words} took too long"));
        let started = outcome.decisions("");
        let is_true = |r: &&&Value| r["target"]["program"].as_str().is_some_and(|program| program.ends_with("/true"));
        let record = started.iter().find(is_true).unwrap_or_else(|| panic!("no record\n{outcome}"));
        assert_eq!(record["verdict"], if code == 0 { "allow" } else { "deny" }, "{words}");
        assert!(record.to_string().len() < 200_000, "{words}: the record is not cut");
    }
}

#[test]
fn the_last_of_very_many_or_very_long_arguments_is_judged() {
    let Some(python) = program("python3") else { skip!("no python3") };
    let scene = Scene::new();
    let policy = scene.file("policy.yaml", "version: 1\nextends: [default]\nexec:\n  deny: [uname]\n");
    // The program that `env` starts comes behind all of the variables.
    let start = |before: &str, words: &str, last: &str| {
        format!(
            "import os, resource
hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
resource.setrlimit(resource.RLIMIT_STACK, (hard, hard)) if {before} else None
os.execve('/usr/bin/env', ['env'] + {words} + ['{last}'], {{'PATH': '/usr/bin:/bin'}})"
        )
    };
    // 100,000 of them; 2 MB, as much as there can be with a usual stack; and as much as there can be at all.
    for (before, words, length) in [
        ("False", "['a=%05d' % n for n in range(100000)]", 100_002),
        ("False", "['a=' + 'x' * 130000] * 15", 17),
        ("True", "['a=' + 'x' * 130000] * 45", 47),
    ] {
        if before == "True" && !lets_the_stack_grow(&scene, &python) {
            println!("not tried where the stack's hard limit is low: {words}");
            continue;
        }
        for (last, code) in [("uname", 1), ("true", 0)] {
            let argv = [text(&python), "-c", &start(before, words, last)];
            scene.free(&argv).exits(0);
            let outcome = scene.boxed(&["-p", text(&policy)], &argv);
            outcome.exits(code).must(outcome.took < Duration::from_secs(20), &format!("{words} took too long"));
            let started = outcome.decisions("\"called\":\"env\"");
            let record = started.last().unwrap_or_else(|| panic!("no record\n{outcome}"));
            assert_eq!(record["verdict"], if code == 0 { "allow" } else { "deny" }, "{words} {last}");
            assert_eq!(record["target"]["argc"], length, "{words} {last}");
            if code != 0 {
                assert!(
                    record["rule"].as_str().is_some_and(|rule| rule.ends_with(RULE)),
                    "{words}: {}",
                    record["rule"]
                );
            }
        }
    }
}

/// Whether processes may have a stack that holds 6 MB of arguments, the most that the kernel takes.
fn lets_the_stack_grow(scene: &Scene, python: &Path) -> bool {
    let ask = "import resource as r; h = r.getrlimit(r.RLIMIT_STACK)[1]; print(h == -1 or h >= 64 << 20)";
    scene.free(&[text(python), "-c", ask]).out == "True\n"
}

/// The digest of a file, as records write it.
fn digest(path: &Path) -> String {
    let hash = Sha256::digest(fs::read(path).expect("read a program"));
    format!("sha256:{}", hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

/// The digests in a record of an exec.
fn digests(record: &Value) -> Vec<&str> {
    let parts = record["target"]["parts"].as_array().into_iter().flatten();
    parts.map(|part| &part["digest"]).chain([&record["target"]["digest"]]).filter_map(Value::as_str).collect()
}

/// A place where `mark` is denied by its name, and the digest of it.
fn marked() -> (Scene, String) {
    let scene = Scene::new();
    scene.file("policy.yaml", "version: 1\nextends: [default]\nexec:\n  deny: [mark]\n");
    let mark = scene.c(MARK.0, MARK.1, &["-pie", "-fPIE"]);
    let digest = digest(&mark);
    (scene, digest)
}

#[test]
fn a_denied_program_runs_by_no_other_road_without_its_digest_on_record() {
    if compiler().is_none() || program("bash").is_none() {
        skip!("no C compiler (cc) or no bash");
    }
    const PYTHON: &str = "python3 -c 'import os, sys
file = os.memfd_create(\"x\")
os.write(file, open(\"mark\", \"rb\").read())
";
    let (scene, digest) = marked();
    scene.c(ROADS.0, ROADS.1, &[]);
    let policy = scene.root.join("policy.yaml");
    let marks = scene.work.join("marks");
    let mut wrong = Vec::new();
    // What each needs, what it does, and whether the rule still knows the program.
    for (needs, line, denied) in [
        ("", "./mark".to_string(), true),
        ("", "ln -s mark other && ./other".into(), true),
        ("", "exec 9<mark; /proc/self/fd/9".into(), true),
        ("", "exec 9<mark; mv mark gone; /proc/self/fd/9; mv gone mark".into(), false),
        (LOADER, format!("{LOADER} ./mark"), true),
        ("", "printf '#!%s\\n' \"$PWD/mark\" >script; chmod +x script; ./script".into(), true),
        ("", "./roads empty ./mark".into(), true),
        ("", "./roads opath ./mark".into(), true),
        ("", "./roads below mark".into(), true),
        ("", "./roads nofollow mark".into(), true),
        ("", "./roads self ./mark opath".into(), true),
        ("", "cp mark other && ./roads empty ./other".into(), false),
        ("", "cp mark other && ./roads self ./other opath".into(), false),
        ("", "cp mark other && exec 9<other && rm other && ./roads opath /proc/self/fd/9".into(), false),
        ("", "cp mark other && ./other".into(), false),
        ("", "cp mark /dev/shm/other && /dev/shm/other".into(), false),
        ("", "cp mark /tmp/other && /tmp/other".into(), false),
        ("", "ln mark other && ./other".into(), false),
        ("", "cp mark other && exec 9<other && rm other && /proc/self/fd/9".into(), false),
        ("", "cp mark other && printf '#!%s\\n' \"$PWD/other\" >script && chmod +x script && ./script".into(), false),
        (
            "",
            "cp mark other && printf '#!%s\\n' \"$PWD/other\" >inner && printf '#!%s\\n' \"$PWD/inner\" >script && \
             chmod +x inner script && ./script"
                .into(),
            false,
        ),
        (LOADER, format!("cp mark other && {LOADER} ./other"), false),
        (LOADER, format!("cp mark other && chmod -x other && {LOADER} --argv0 x ./other"), false),
        (LOADER, format!("cp mark other && exec 9<other && rm other && {LOADER} /proc/self/fd/9"), false),
        ("python3", format!("{PYTHON}os.execve(file, [\"x\"], os.environ)'"), false),
        ("python3", format!("{PYTHON}os.execv(f\"/proc/self/fd/{{file}}\", [\"x\"])'"), false),
        ("python3", format!("{PYTHON}os.execv(f\"/proc/{{os.getpid()}}/fd/{{file}}\", [\"x\"])'"), false),
        (
            "python3 /lib64/ld-linux-x86-64.so.2",
            format!(
                "{PYTHON}os.set_inheritable(file, True)\nos.execv(\"{LOADER}\", [\"x\", f\"/proc/self/fd/{{file}}\"])'"
            ),
            false,
        ),
    ] {
        let there = |need: &str| program(need).is_some() || need.starts_with('/') && Path::new(need).exists();
        if !needs.split_whitespace().all(there) {
            println!("not tried without {needs}: {line}");
            continue;
        }
        let clear = || {
            let made = ["other", "script", "inner"].map(|name| scene.work.join(name));
            made.iter().chain([&marks, &"/tmp/other".into(), &"/dev/shm/other".into()]).for_each(|path| {
                let _ = fs::remove_file(path);
            });
        };
        clear();
        let free = scene.free(&["/bin/bash", "-c", &line]);
        free.must(marks.exists(), &format!("the control of `{line}` runs nothing"));
        clear();
        let outcome = scene.boxed(&["-p", text(&policy)], &["/bin/bash", "-c", &line]);
        let told = |record: &&&Value| record["outcome"] == "ok" && digests(record).contains(&digest.as_str());
        let on_record = match denied {
            true => outcome.denied(&["exec"], RULE) && !marks.exists(),
            false => marks.exists() && outcome.decisions("exec").iter().any(|record| told(&record)),
        };
        if !on_record {
            let all: Vec<String> = outcome.decisions("\"exec\"").iter().map(|record| record.to_string()).collect();
            wrong.push(format!("`{line}`\n{outcome}\n{}", all.join("\n")));
        }
        clear();
    }
    assert!(wrong.is_empty(), "not as it should be on record ({digest}):\n{}", wrong.join("\n"));
}

#[test]
fn a_script_that_rewrites_or_removes_itself_runs_as_outside() {
    let Some(python) = program("python3") else { skip!("no python3") };
    let scene = Scene::new();
    for text_of in [
        format!("#!{}\nopen(__file__, 'w').write('changed')\nprint('ran')\n", text(&python)),
        format!("#!{}\nimport os\nos.remove(__file__)\nprint('ran')\n", text(&python)),
        "#!/bin/sh\necho changed >\"$0\"\necho ran\n".into(),
    ] {
        let run = |boxed: bool| {
            let script = scene.script("home/work/script", &text_of);
            let argv = ["/bin/sh", "-c", "./script; echo $?"];
            let outcome = if boxed { scene.boxed(&[], &argv) } else { scene.free(&argv) };
            (outcome.code, outcome.out, fs::read_to_string(script).ok())
        };
        let free = run(false);
        assert!(free.1.starts_with("ran\n"), "{free:?}");
        assert_eq!(run(true), free, "{text_of}");
    }
}

#[test]
fn who_asks_whether_a_file_may_be_run_is_answered_and_starts_nothing() {
    if compiler().is_none() {
        skip!("no C compiler (cc)");
    }
    let (scene, _) = marked();
    scene.c(ROADS.0, ROADS.1, &[]);
    fs::copy(scene.work.join("mark"), scene.work.join("other")).expect("copy a program");
    scene.script("home/work/script", "#!/nowhere/at/all\n");
    scene.file("home/work/text", "no program\n");
    if scene.free(&["./roads", "check", "./other"]).out != "yes\n" {
        skip!("the kernel does not answer (before Linux 6.14)");
    }
    let policy = scene.root.join("policy.yaml");
    for how in ["check", "check-empty"] {
        for name in ["./other", "./script", "./text", "."] {
            let argv = ["./roads", how, name];
            let (free, boxed) = (scene.free(&argv), scene.boxed(&["-p", text(&policy)], &argv));
            assert_eq!((boxed.code, &boxed.out), (free.code, &free.out), "{how} {name}\n{boxed}");
            let execs = boxed.decisions("\"op\":\"exec\"");
            assert!(execs.iter().all(|record| record["target"]["called"] == "roads"), "{how} {name}: {execs:#?}");
        }
        let denied = scene.boxed(&["-p", text(&policy)], &["./roads", how, "./mark"]);
        assert_eq!((denied.code, denied.out.as_str()), (1, "EACCES\n"), "{how}\n{denied}");
        denied.must(denied.denied(&["exec"], RULE), "the refusal is not on record");
    }
    assert!(!scene.work.join("marks").exists(), "nothing was to run");
}

#[test]
fn what_the_host_registered_an_interpreter_for_runs_nothing_that_was_not_judged() {
    let scene = Scene::new();
    if program("unshare").is_none() {
        skip!("no unshare");
    }
    scene.script("home/work/foreign", "XMAGIC\n");
    let log = scene.root.join("foreign.jsonl");
    let within = |line: &str| {
        let register = "mkdir -p formats && mount -t binfmt_misc formats formats && \
                        echo ':foreign:M::XMAGIC::/bin/echo:' >formats/register && ";
        let line = format!("{register} {line}");
        scene.free(&["unshare", "-Ur", "-m", "--propagation", "private", "/bin/sh", "-c", &line])
    };
    let free = within("./foreign x");
    if free.code != 0 {
        skip!("no formats of a user namespace's own (before Linux 6.7): {}", free.err.trim());
    }
    free.must(free.out == "./foreign x\n", "the interpreter runs");
    let (agentbox, log_path) = (common::agentbox(), text(&log));
    let boxed = within(&format!("{} run --log {log_path} -- /bin/sh -c './foreign x; echo $?'", text(&agentbox)));
    boxed.exits(0).must(boxed.out == "137\n", "it was ended before its first instruction");
    let records = records_with(&log, "\"called\":\"foreign\"");
    let outcomes: Vec<&Value> = records.iter().map(|record| &record["outcome"]).collect();
    assert_eq!(outcomes, ["killed"], "{records:#?}");
}

#[test]
fn interpreters_of_interpreters_run_as_deep_as_outside() {
    let scene = Scene::new();
    scene.script("home/work/s0", "#!/bin/sh -e\necho \"$#\" ran\n");
    for depth in 1..8 {
        scene.script(format!("home/work/s{depth}"), format!("#!{}/s{} a\n", text(&scene.work), depth - 1));
    }
    let mut ran = Vec::new();
    for depth in 0..8 {
        let argv = ["/usr/bin/env", &format!("./s{depth}"), "x"];
        let (free, boxed) = (scene.free(&argv), scene.boxed(&[], &argv));
        assert_eq!((boxed.code, &boxed.out), (free.code, &free.out), "depth {depth}\n{free}\n{boxed}");
        ran.push(free.code == 0);
    }
    assert_eq!(ran, [true, true, true, true, true, false, false, false], "the kernel follows five lines");
}

#[test]
fn a_script_is_on_record_with_its_digest_and_a_program_of_the_system_without() {
    let scene = Scene::new();
    let script = scene.script("home/work/script", "#!/bin/sh\n/bin/true\n");
    let large = scene.script("home/work/large", "#!/bin/true\n");
    fs::OpenOptions::new().write(true).open(&large).and_then(|file| file.set_len(65 << 20)).expect("make it large");
    let outcome = scene.boxed_sh(
        &[],
        "./script && ./script; sed -i s/true/false/ script; ./script; ./large; \
                                       cp /bin/true closed; chmod 111 closed; ./closed",
    );
    outcome.exits(0);
    let told = |name: &str| -> Vec<&Value> {
        let named = |record: &&&Value| record["target"]["program"].as_str().is_some_and(|path| path.ends_with(name));
        outcome.decisions("\"exec\"").iter().filter(named).copied().collect()
    };
    let scripts: Vec<Vec<&str>> = told("work/script").into_iter().map(digests).collect();
    let after = digest(&script);
    assert!(scripts.len() == 3 && scripts[0] == scripts[1] && scripts[2] == [after.as_str()], "{scripts:?}");
    assert_ne!(scripts[0], scripts[2]);
    assert_eq!(told("work/large").into_iter().map(digests).next(), Some(vec!["none: larger than 64 MiB"]));
    let closed: Vec<&str> = told("work/closed").into_iter().flat_map(digests).collect();
    outcome.must(closed.len() == 1 && closed[0].starts_with("none: cannot be read: EACCES"), "why there is none");
    for name in ["/true", "/false", "/sed"] {
        outcome.must(told(name).iter().all(|record| digests(record).is_empty()), &format!("{name} was read"));
    }
    outcome.must(!told("/true").is_empty(), "the system's program is on record");

    let log = scene.root.join("audit-0.jsonl");
    let shown = scene.agentbox(&["log", text(&log)]);
    shown.exits(0).must(shown.out.contains(&format!(" (sha256 {})", &after[7..19])), "the digest in short");
    let replay = scene.agentbox(&["policy", "replay", text(&log)]);
    replay.exits(0).must(replay.out.contains(" 0 would change"), "a digest changes no verdict");
}

fn tries() -> u32 {
    std::env::var("AGENTBOX_RACE_TRIES").ok().map_or(200, |tries| tries.parse().expect("a number of tries"))
}

/// `A` may be noted, `B` not; the argument turns from one into the other while the exec is judged.
fn race(how: &str) {
    if compiler().is_none() {
        skip!("no C compiler (cc)");
    }
    let tries = tries();
    let marks = |scene: &Scene| {
        let marks = fs::read_to_string(scene.work.join("marks")).unwrap_or_default();
        ["A", "B"].map(|argument| marks.lines().filter(|line| *line == argument).count())
    };
    let lay_out = || {
        let scene = Scene::new();
        scene.file("policy.yaml", "version: 1\nextends: [default]\nexec:\n  deny: [mark B *]\n");
        scene.c(RACE.0, RACE.1, &[]);
        scene.c(MARK.0, MARK.1, &[]);
        scene
    };
    let argv = ["./race_argv", how, &tries.to_string(), "./mark"];
    let controlled = (0..20).any(|_| {
        let scene = lay_out();
        scene.free(&["./race_argv", how, "200", "./mark"]).exits(0);
        let [a, b] = marks(&scene);
        a > 0 && b > 0
    });
    assert!(controlled, "the control never runs both");
    let mut raced = false;
    for _ in 0..5 {
        let scene = lay_out();
        let policy = scene.root.join("policy.yaml");
        let (command, log) = scene.boxed_command(&["-p", text(&policy)], &argv);
        let mut boxed = run_for(PATIENCE + Duration::from_millis(30) * tries, command);
        boxed.records = records_with(&log, "\"noted\"");
        let [a, b] = marks(&scene);
        boxed.exits(0).must(b == 0, "a denied argument was noted");
        let told = |verdict: &str, argument: &str, outcome: &str| {
            let fits = |r: &&Value| r["verdict"] == verdict && r["target"]["argv"][1] == argument;
            boxed.records.iter().filter(fits).filter(|r| r["outcome"] == outcome).count()
        };
        boxed.must(told("allow", "A", "ok") == a, &format!("{a} ran, {} on record", told("allow", "A", "ok")));
        boxed.must(told("allow", "B", "ok") + told("allow", "B", "killed") == 0, "a denied argument was allowed");
        let (refused, killed) = (told("deny", "B", "EACCES"), told("allow", "A", "killed"));
        boxed.must(a + refused + killed == tries as usize, "an exec is not on record");
        println!("{how}: {a} ran, {refused} were refused, {killed} were killed of {tries}");
        raced |= a > 0 && refused > 0;
        if raced {
            break;
        }
    }
    assert!(raced, "never was one allowed and another denied: the race was not run");
}

#[test]
fn arguments_that_another_thread_rewrites_never_run_what_is_denied() {
    race("thread");
}

#[test]
fn arguments_that_another_process_rewrites_never_run_what_is_denied() {
    race("process");
}

/// `good/x` may run, `hood/x` not; what an exec takes for its program turns from one into the other while it is judged.
fn race_start(how: &str, who: &str) {
    if compiler().is_none() {
        skip!("no C compiler (cc)");
    }
    if how == "loader" && !Path::new(LOADER).exists() {
        skip!("no dynamic loader at {LOADER}");
    }
    let tries = tries();
    let lay_out = || {
        let scene = Scene::new();
        scene.c("race_start", include_str!("escape/race_start.c"), &[]);
        for place in ["good", "hood"] {
            fs::create_dir(scene.work.join(place)).expect("make a directory");
            // The loader starts a static program by an exec of its own.
            let made = scene.c("x", NOTED, &[&format!("-DNAME=\"{place}\""), "-pie", "-fPIE"]);
            fs::rename(made, scene.work.join(place).join("x")).expect("put the program in its place");
            let interpreter = if how == "env" { "/usr/bin/env sh" } else { "/bin/sh" };
            scene.script(format!("home/work/{place}/script"), format!("#!{interpreter}\necho {place} >>$MARKS\n"));
        }
        scene.script("home/work/script", "#!./x\n");
        // What replaces a file goes by the name it replaces, and is held to that name's rules.
        let denied = match how {
            "file" | "loader" | "text" | "env" => "/bin/false".into(),
            "script" => scene.work.join("hood/script"),
            _ => scene.work.join("hood/x"),
        };
        scene.file("policy.yaml", format!("version: 1\nextends: [default]\nexec:\n  deny: [{}]\n", text(&denied)));
        let marks = format!("MARKS={}", text(&scene.work.join("marks")));
        (scene, marks)
    };
    let marks = |scene: &Scene| {
        let marks = fs::read_to_string(scene.work.join("marks")).unwrap_or_default();
        ["good", "hood"].map(|place| marks.lines().filter(|line| *line == place).count())
    };
    let controlled = (0..20).any(|_| {
        let (scene, variable) = lay_out();
        scene.free(&["env", &variable, "./race_start", how, who, "200"]).exits(0);
        marks(&scene).into_iter().all(|count| count > 0)
    });
    assert!(controlled, "{how} {who}: the control never runs both");
    let raced = (0..5).any(|_| {
        let (scene, variable) = lay_out();
        let policy = scene.root.join("policy.yaml");
        let argv = ["env", &variable, "./race_start", how, who, &tries.to_string()];
        let (command, log) = scene.boxed_command(&["-p", text(&policy)], &argv);
        let mut boxed = run_for(PATIENCE + Duration::from_millis(30) * tries, command);
        boxed.records = records_with(&log, "\"exec\"");
        boxed.records.retain(|record| record["target"]["argv"][0] == "x");
        boxed.exits(0);
        let [good, hood] = marks(&scene);
        let count = |verdict: &str, outcome: &str, part: &str| {
            let fits = |r: &&&Value| r["verdict"] == verdict && r["outcome"] == outcome;
            boxed.decisions(part).iter().filter(fits).count()
        };
        let refused = count("deny", "EACCES", "");
        let killed = count("allow", "killed", "");
        // Ended when their interpreter opened something else: the record of the start comes before that.
        let ended = records_with(&log, "\"execve\"").iter().filter(|record| record["outcome"] == "killed").count();
        if how == "script" {
            boxed.must(hood == 0, "a denied script ran");
            let runs = count("allow", "ok", &digest(&scene.work.join("good/script")));
            boxed.must(runs == good + ended, &format!("{good} ran and {ended} were ended, {runs} on record"));
            boxed.must(count("deny", "EACCES", "hood/script\"") == refused, "something else was refused");
        } else if matches!(how, "loader" | "text" | "env") {
            let name = if how == "loader" { "x" } else { "script" };
            let of = |place: &str| count("allow", "ok", &digest(&scene.work.join(place).join(name)));
            let runs = ["good", "hood"].map(of);
            let told = runs[0] >= good && runs[1] >= hood && runs[0] + runs[1] == good + hood + ended;
            boxed.must(told, &format!("{good} and {hood} ran and {ended} were ended, {runs:?} are on record"));
        } else if how == "file" {
            let runs = ["good", "hood"].map(|place| count("allow", "ok", &digest(&scene.work.join(place).join("x"))));
            boxed.must(runs == [good, hood], &format!("{good} and {hood} ran, {runs:?} are on record by their digest"));
        } else {
            boxed.must(hood == 0, "a denied program ran");
            let runs = count("allow", "ok", "good/x\"");
            boxed.must(runs == good && count("allow", "ok", "") == good, &format!("{good} ran, {runs} on record"));
        }
        println!(
            "{how} {who}: {good} and {hood} ran, {refused} were refused, {killed} and {ended} were killed of {tries}"
        );
        good > 0 && hood + refused > 0
    });
    assert!(raced, "{how} {who}: never was it the one and then the other: the race was not run");
}

macro_rules! races {
    ($($name:ident: $how:literal,)*) => {$(
        mod $name {
            #[test]
            fn by_another_thread() {
                super::race_start($how, "thread");
            }

            #[test]
            fn by_another_process() {
                super::race_start($how, "process");
            }
        }
    )*};
}

races! {
    a_path_that_changes_runs_nothing_denied: "path",
    a_link_that_turns_runs_nothing_denied: "link",
    a_file_that_is_replaced_is_on_record_as_what_ran: "file",
    a_script_behind_a_link_that_turns_runs_nothing_denied: "script",
    a_script_that_is_replaced_is_on_record_as_what_ran: "text",
    a_script_that_is_replaced_is_on_record_when_env_finds_its_interpreter: "env",
    a_program_for_the_loader_that_is_replaced_is_on_record_as_what_ran: "loader",
    a_working_directory_that_changes_runs_nothing_denied: "cwd",
    a_script_that_is_rewritten_runs_no_denied_interpreter: "line",
    a_script_that_is_replaced_runs_no_denied_interpreter: "swap",
    an_interpreter_relative_to_a_directory_that_changes_is_not_a_denied_one: "relative",
}
