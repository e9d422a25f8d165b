//! Whole runs: exit status, signals, standard streams, terminals, environment, and what is left when a run ends.
//!
//! Where a line says "as outside", the same command runs free first and the two results are compared.

mod common;

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use common::{
    Outcome, Scene, agentbox, compiler, degraded, processes_with, program, root, run, run_logged, text, unique_seconds,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const REACH: &str = include_str!("escape/reach.c");
const EVERYTHING_PY: &str = include_str!("fixtures/everything.py");
const EVERYTHING_GO: &str = include_str!("fixtures/everything.go");
const TERMINAL_PY: &str = include_str!("fixtures/terminal.py");

/// Same output and exit code as outside.
#[track_caller]
fn as_outside(free: &Outcome, boxed: &Outcome) {
    assert_eq!((free.code, &free.out), (boxed.code, &boxed.out), "free:\n{free}\nboxed:\n{boxed}");
}

// Exit status.

#[test]
fn the_exit_code_is_the_commands_own() {
    let scene = Scene::new();
    for code in [0, 1, 7, 124, 125, 255] {
        let line = format!("exit {code}");
        scene.free_sh(&line).exits(code);
        scene.boxed_sh(&[], &line).exits(code);
    }
}

#[test]
fn a_command_that_a_signal_ends_gives_128_and_its_number() {
    let scene = Scene::new();
    for signal in [Signal::SIGTERM, Signal::SIGKILL, Signal::SIGSEGV, Signal::SIGINT, Signal::SIGPIPE] {
        let line = format!("ulimit -c 0; kill -{} $$", signal as i32);
        scene.free_sh(&line).exits(128 + signal as i32);
        scene.boxed_sh(&[], &line).exits(128 + signal as i32);
    }
}

#[test]
fn what_keeps_the_box_from_starting_gives_125_and_one_line() {
    let scene = Scene::new();
    scene.file("bad.yaml", "version: 1\nfilesystm: {}\n");
    let bad = scene.root.join("bad.yaml");
    let touch = ["/bin/sh", "-c", "touch ran"];
    for flags in [
        &["--no-such-flag"][..],
        &["-p", text(&bad)],
        &["-p", "no-such-profile"],
        &["-p", "/nonexistent/policy.yaml"],
        &["-C", "/nonexistent"],
        &["-t", "soon"],
        &["--require", "luck"],
        &["--net", "some"],
        &["--publish", "8000:0"],
    ] {
        let boxed = scene.boxed(flags, &touch);
        boxed.exits(125).must(!boxed.err.is_empty() && boxed.out.is_empty(), "the reason goes to stderr");
        boxed.must(!scene.work.join("ran").exists(), "the command ran");
    }
    scene.boxed(&[], &[""; 0]).exits(125);
    scene.boxed(&[], &touch).exits(0);
    assert!(scene.work.join("ran").exists(), "the control does not run");
}

#[test]
fn what_cannot_be_executed_gives_126_and_what_is_not_there_127() {
    let scene = Scene::new();
    scene.file("home/work/plain", "no program\n");
    scene.script("home/work/orphan", "#!/nonexistent/interpreter\n");
    for (command, code) in [("./plain", 126), ("/etc", 126), ("./missing", 127), ("no-such-program", 127)] {
        scene.free(&["env", command]).exits(code);
        let boxed = scene.boxed(&[], &[command]);
        boxed.exits(code).must(boxed.err.contains(command), "the message names the command");
        scene.boxed(&[], &["env", command]).exits(code);
    }
    let free = scene.free(&["env", "./orphan"]);
    let boxed = scene.boxed(&[], &["env", "./orphan"]);
    as_outside(&free, &boxed);
}

#[test]
fn what_the_policy_refuses_to_execute_gives_126_and_a_record() {
    let scene = Scene::new();
    let policy = scene.file("policy.yaml", "version: 1\nextends: [default]\nexec:\n  deny: [uname]\n");
    scene.free(&["uname"]).exits(0);
    scene.boxed(&[], &["uname"]).exits(0);
    let boxed = scene.boxed(&["-p", text(&policy)], &["uname"]);
    boxed.exits(126).must(boxed.denied(&["exec"], "uname"), "no record of the refusal");
    let boxed = scene.boxed_sh(&["-p", text(&policy)], "uname; echo code $?");
    boxed.exits(0).must(boxed.out.trim() == "code 126", "the shell sees a refused program");
}

#[test]
fn a_command_that_overruns_its_time_gets_term_and_then_kill() {
    let scene = Scene::new();
    let boxed = scene.boxed_sh(&["-t", "300ms"], "sleep 60");
    boxed.exits(124).must(boxed.took < Duration::from_secs(4), "a command that obeys TERM ends at once");
    let deaf = "trap 'echo heard' TERM; touch up; while :; do sleep 0.1; done";
    let boxed = scene.boxed_sh(&["-t", "300ms"], deaf);
    boxed.exits(124).must(boxed.out.contains("heard"), "TERM comes first");
    let (least, most) = (Duration::from_secs(4), Duration::from_secs(15));
    boxed.must(boxed.took > least && boxed.took < most, "KILL comes 5 s later");
    scene.boxed_sh(&["-t", "60s"], "exit 3").exits(3);
}

// Signals.

/// Starts `line`, waits until it made the file `up`, sends `signal` to agentbox.
fn signalled(scene: &Scene, line: &str, signal: Signal) -> Outcome {
    let (mut command, log) = scene.boxed_command(&[], &["/bin/sh", "-c", line]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = common::start(command);
    common::await_until("the command is up", || scene.work.join("up").exists());
    kill(Pid::from_raw(child.id() as i32), signal).expect("send a signal to agentbox");
    common::finish(child, b"", &log)
}

#[test]
fn signals_reach_the_command() {
    for (name, signal) in [
        ("INT", Signal::SIGINT),
        ("TERM", Signal::SIGTERM),
        ("HUP", Signal::SIGHUP),
        ("QUIT", Signal::SIGQUIT),
        ("USR1", Signal::SIGUSR1),
        ("USR2", Signal::SIGUSR2),
        ("WINCH", Signal::SIGWINCH),
    ] {
        let scene = Scene::new();
        let line = format!("trap 'echo got {name}; exit 5' {name}; touch up; while :; do sleep 0.05; done");
        let boxed = signalled(&scene, &line, signal);
        boxed.exits(5).must(boxed.out.trim() == format!("got {name}"), "the trap runs once");
    }
}

#[test]
fn a_signal_that_is_not_caught_ends_the_run_as_it_ends_the_command() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGUSR1] {
        let scene = Scene::new();
        signalled(&scene, "ulimit -c 0; touch up; exec sleep 60", signal).exits(128 + signal as i32);
    }
}

// Standard streams.

#[test]
fn a_large_input_comes_through_whole() {
    let scene = Scene::new();
    let input: Vec<u8> = (0..4_000_000u32).flat_map(|n| n.to_le_bytes()).collect();
    let argv = ["/bin/sh", "-c", "sha256sum; cat /dev/stdin | wc -c"];
    let free = run(scene.free_command(&argv), &input);
    let (command, log) = scene.boxed_command(&[], &argv);
    let boxed = run_logged(command, &input, &log);
    free.exits(0).must(free.out.lines().count() == 2, "the control reads the input");
    as_outside(&free, &boxed);
}

#[test]
fn streams_are_what_they_were_outside() {
    let input = "one\ntwo\nthree\n";
    for line in [
        "cat",
        "cat /dev/stdin",
        "cat /dev/fd/0",
        "cat /proc/self/fd/0",
        "read first; echo got $first; cat",
        "echo out > /dev/stdout; echo err > /dev/stderr",
        "echo out | tee /dev/stderr",
        "echo out > /dev/fd/1",
        "exec 3>&1; echo three >&3",
        "echo a > a; cat < a > b; cat /dev/stdin < b; wc -l < b",
        "cat <<X | tr a-z A-Z\nhere\nX",
        "head -c 3; echo; cat",
        "echo null > /dev/null; cat /dev/null; head -c 4 /dev/zero | od -c; test -c /dev/full && echo full",
        "echo x >/dev/full; echo code $?",
        "test -t 0; echo $?; test -t 1; echo $?",
    ] {
        let scene = Scene::new();
        let free = run(scene.free_command(&["/bin/sh", "-c", line]), input.as_bytes());
        let scene = Scene::new();
        let (command, log) = scene.boxed_command(&["-q"], &["/bin/sh", "-c", line]);
        let boxed = run_logged(command, input.as_bytes(), &log);
        assert_eq!((free.code, &free.out), (boxed.code, &boxed.out), "`{line}`\n{boxed}");
        assert_eq!(free.err, boxed.err, "stderr of `{line}`\n{boxed}");
    }
}

#[test]
fn streams_can_be_files() {
    let scene = Scene::new();
    scene.file("home/work/in", "line 1\nline 2\n");
    // Standard output and error share one open file: what is written comes out in the order of writing.
    let line = "cat; for i in 1 2 3 4 5; do echo out $i; echo err $i >&2; done; exit 4";
    let binary = agentbox();
    let shell = |name: &str, prefix: &str| {
        let outcome = scene.free_sh(&format!("{prefix} /bin/sh -c '{line}' <in >{name} 2>&1; code=$?; exit $code"));
        outcome.exits(4);
        fs::read_to_string(scene.work.join(name)).expect("read the output")
    };
    let free = shell("free.txt", "");
    let boxed = shell("boxed.txt", &format!("{} run -q --", text(&binary)));
    assert!(free.starts_with("line 1\nline 2\nout 1\nerr 1\nout 2"), "{free}");
    assert_eq!(free, boxed);
    // Appending appends.
    scene.free_sh(&format!("{} run -q -- echo more >>boxed.txt", text(&binary))).exits(0);
    assert_eq!(fs::read_to_string(scene.work.join("boxed.txt")).expect("read"), free + "more\n");
}

#[test]
fn a_reader_that_leaves_ends_the_run() {
    let scene = Scene::new();
    let binary = agentbox();
    let outcome = scene.free_sh(&format!("{} run -q -- yes | head -n 1", text(&binary)));
    outcome.exits(0).must(outcome.out == "y\n", "one line");
    let outcome = scene.free_sh(&format!("{} run -q -- /bin/sh -c 'exit 6' <&- ; echo $?", text(&binary)));
    outcome.must(outcome.out == "6\n", "a closed standard input");
}

#[test]
fn a_run_ends_though_its_input_stays_open() {
    let scene = Scene::new();
    let (mut command, log) = scene.boxed_command(&[], &["/bin/sh", "-c", "exit 8"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = common::start(command);
    let input = child.stdin.take();
    let boxed = common::finish(child, b"", &log);
    drop(input);
    boxed.exits(8).must(boxed.took < Duration::from_secs(10), "it waited for its input");
}

// Nothing is left.

#[test]
fn orphans_end_with_the_run() {
    let scene = Scene::new();
    let line = |unique: &str| {
        format!("setsid sh -c 'sleep {unique} & sleep {unique}' >/dev/null 2>&1 </dev/null & sleep 0.3; exit 2")
    };
    let unique = unique_seconds();
    scene.free_sh(&line(&unique)).exits(2);
    let left: Vec<i32> = processes_with(&unique);
    assert_eq!(left.len(), 2, "the control leaves its orphans");
    for pid in left {
        kill(Pid::from_raw(pid), Signal::SIGKILL).expect("end the control");
    }
    let unique = unique_seconds();
    scene.boxed_sh(&[], &line(&unique)).exits(2);
    assert_eq!(processes_with(&unique), [0; 0], "processes outlived the run");
}

#[test]
fn nothing_outlives_agentbox_that_is_killed() {
    for signal in [Signal::SIGKILL, Signal::SIGABRT] {
        let scene = Scene::new();
        let unique = unique_seconds();
        let line = format!("trap '' TERM HUP INT; setsid sleep {unique} & touch up; sleep {unique}");
        let (mut command, _) = scene.boxed_command(&[], &["/bin/sh", "-c", &line]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = common::start(command);
        common::await_until("both are up", || processes_with(&unique).len() >= 2);
        kill(Pid::from_raw(child.id() as i32), signal).expect("kill agentbox");
        child.wait().expect("reap agentbox");
        common::await_until("nothing is left", || processes_with(&unique).is_empty());
    }
}

#[test]
fn init_reaps_orphans_and_the_command_is_not_init() {
    let scene = Scene::new();
    let line = "for i in 1 2 3 4 5 6 7 8; do (sleep 0.05 &) ; done; sleep 0.6; \
                cat /proc/[0-9]*/stat | grep -c ' Z '; echo pid $$; ls /proc | grep -c '^[0-9]'";
    let boxed = scene.boxed_sh(&[], line);
    let seen: Vec<&str> = boxed.out.lines().collect();
    boxed.must(seen.len() == 3 && seen[0] == "0", "zombies are left in the box");
    boxed.must(seen[1] != "pid 1", "the command is init");
    boxed.must(seen[2].parse().is_ok_and(|n: u32| n <= 5), "processes of the host are seen");
}

// Programs behave as outside.

#[test]
fn c_programs_static_and_dynamic() {
    if compiler().is_none() {
        skip!("no C compiler (cc)");
    }
    let source = "#include <stdio.h>\n#include <unistd.h>\nint main(int argc, char **argv) {\n\
        char cwd[4096]; printf(\"%s %d %s\\n\", argv[1], argc, getcwd(cwd, sizeof cwd)); return 3; }\n";
    let scene = Scene::new();
    for (name, flags) in [("static", &[][..]), ("dynamic", &["-pie"])] {
        scene.c(name, source, flags);
        let program = format!("./{name}");
        let free = scene.free(&[&program, "word"]);
        free.exits(3);
        as_outside(&free, &scene.boxed(&[], &[&program, "word"]));
    }
}

#[test]
fn shell_scripts() {
    let scene = Scene::new();
    scene.script(
        "home/work/script",
        "#!/bin/sh -e\necho \"$0 $1\"\nfor f in a b; do echo $f > $f; done\ncat a b | sort -r\nexit 3\n",
    );
    scene.file("home/work/bare", "echo no interpreter line\n");
    for line in
        ["./script one", "PATH=$PWD:$PATH script two", "sh ./bare", "sh -c 'ls -d /usr /bin/sh; id -u; umask; pwd'"]
    {
        let free = scene.free_sh(line);
        as_outside(&free, &scene.boxed_sh(&[], line));
    }
}

#[test]
fn python_with_threads_subprocesses_and_multiprocessing() {
    let Some(python) = program("python3") else { skip!("no python3 in the system directories") };
    let scene = Scene::new();
    scene.file("home/work/everything.py", EVERYTHING_PY);
    let argv = [text(&python), "everything.py"];
    let free = scene.free(&argv);
    free.exits(0).must(free.out.contains("loopback hello"), "the control works");
    as_outside(&free, &scene.boxed(&["-p", "python"], &argv));
    as_outside(&free, &scene.boxed(&[], &argv));
}

/// Runs a fixture free and in a box that mediates every open, and wants the same lines of both.
fn the_same_lines(fixture: &str) {
    let Some(python) = program("python3") else { skip!("no python3 in the system directories") };
    let argv = [text(&python), "fixture.py"];
    let scenes = [(); 2].map(|()| {
        let scene = Scene::new();
        scene.file("home/work/fixture.py", fixture);
        scene
    });
    let free = scenes[0].free(&argv);
    free.exits(0);
    as_outside(&free, &scenes[1].boxed(&["-p", "python", "--audit-level", "all"], &argv));
}

#[test]
fn signals_end_waits_as_outside() {
    the_same_lines(include_str!("fixtures/waits.py"));
}

#[test]
fn directories_and_masks_are_those_of_the_moment() {
    the_same_lines(include_str!("fixtures/surroundings.py"));
}

#[test]
fn opens_leave_programs_on_the_cpus_that_they_had() {
    the_same_lines(include_str!("fixtures/cpus.py"));
}

#[test]
fn a_process_and_its_children_can_be_tuned_by_their_files() {
    let line = "sleep 5 & p=$!; echo 300 > /proc/$p/oom_score_adj; cat /proc/$p/oom_score_adj; kill $p; \
                echo 500 > /proc/self/oom_score_adj; cat /proc/self/oom_score_adj; \
                printf mine > /proc/self/task/$$/comm; cat /proc/$$/comm";
    let scene = Scene::new();
    scene.free_sh(line).exits(0).must(scene.free_sh(line).out == "300\n500\nmine\n", "free");
    as_outside(&scene.free_sh(line), &scene.boxed_sh(&[], line));
}

#[test]
fn a_go_program() {
    let Some(go) = program("go") else { skip!("no go in the system directories") };
    let scene = Scene::new();
    scene.file("home/work/everything.go", EVERYTHING_GO);
    let mut build = scene.free_command(&[text(&go), "build", "-o", "everything", "everything.go"]);
    build.env("GOCACHE", scene.root.join("cache")).env("GOPROXY", "off").env("GOFLAGS", "-mod=mod");
    let built = run(build, b"");
    if built.code != 0 {
        skip!("go cannot build here: {}", built.err.lines().next().unwrap_or_default());
    }
    let free = scene.free(&["./everything"]);
    free.exits(0);
    as_outside(&free, &scene.boxed(&[], &["./everything"]));
    assert!(scene.work.join("written").exists());
}

#[test]
fn the_user_stays_who_they_are() {
    let scene = Scene::new();
    let line = "id -u; id -g; touch mine; stat -c '%u %g %a' mine; umask 027; touch closed; stat -c %a closed";
    let free = scene.free_sh(line);
    fs::remove_file(scene.work.join("mine")).expect("remove");
    fs::remove_file(scene.work.join("closed")).expect("remove");
    as_outside(&free, &scene.boxed_sh(&[], line));
}

// Environment, directory, grants.

#[test]
fn only_listed_variables_pass_and_no_credential_unless_named() {
    let scene = Scene::new();
    let secrets = [
        ("GITHUB_TOKEN", "aaa1"),
        ("AWS_SECRET_ACCESS_KEY", "aaa2"),
        ("OPENAI_API_KEY", "aaa3"),
        ("MY_SECRET", "aaa4"),
        ("AWS_PROFILE", "aaa5"),
        ("DB_PASSWORD", "aaa6"),
        ("UNLISTED", "aaa7"),
    ];
    let with = |flags: &[&str], boxed: bool| {
        let (mut command, log) = scene.boxed_command(flags, &["/usr/bin/env"]);
        if !boxed {
            command = scene.free_command(&["/usr/bin/env"]);
        }
        command.envs(secrets);
        run_logged(command, b"", &log)
    };
    let free = with(&[], false);
    let boxed = with(&[], true);
    for (name, value) in secrets {
        free.must(free.out.contains(value), "the control passes everything");
        boxed.must(!boxed.out.contains(value), &format!("{name} passes"));
    }
    let has = |outcome: &Outcome, line: &str| outcome.out.lines().any(|l| l == line);
    boxed.exits(0).must(has(&boxed, "LANG=C.UTF-8"), "LANG passes");
    boxed.must(has(&boxed, &format!("HOME={}", text(&scene.home))), "HOME passes");
    let boxed = with(&["--env", "GITHUB_TOKEN", "--env", "UNLISTED", "--env", "NEW=made"], true);
    boxed.exits(0).must(has(&boxed, "GITHUB_TOKEN=aaa1"), "a named credential passes");
    boxed.must(has(&boxed, "UNLISTED=aaa7") && has(&boxed, "NEW=made"), "named variables pass");
    boxed.must(!boxed.out.contains("aaa2"), "the others do not");
    let boxed = with(&["--clean-env", "--env", "NEW=made"], true);
    boxed.exits(0).must(has(&boxed, "NEW=made"), "a set variable passes");
    boxed.must(!boxed.out.contains("LANG=") && !boxed.out.contains("HOME="), "nothing else does");
    // What does not pass is not in init's memory of it either.
    let (mut command, log) =
        scene.boxed_command(&[], &["/bin/sh", "-c", "cat /proc/*/environ 2>/dev/null | tr '\\0' '\\n'"]);
    command.envs(secrets);
    let boxed = run_logged(command, b"", &log);
    boxed.must(secrets.iter().all(|(_, value)| !boxed.out.contains(value)), "init's environment is readable");
}

#[test]
fn the_command_starts_where_it_is_told_to() {
    let scene = Scene::new();
    fs::create_dir(scene.work.join("deeper")).expect("make a directory");
    let here = scene.boxed(&[], &["pwd"]);
    here.exits(0).must(here.out.trim() == text(&scene.work), "in the current directory");
    let there = scene.boxed(&["-C", "deeper"], &["pwd"]);
    there.exits(0).must(there.out.trim() == text(&scene.work.join("deeper")), "in the directory given");
}

#[test]
fn grants_by_flag_hold_and_stand_out() {
    let scene = Scene::new();
    scene.file("outside/f", "theirs\n");
    let outside = text(&scene.outside).to_string();
    let read = format!("cat {outside}/f");
    let write = format!("echo ours > {outside}/g");
    scene.boxed_sh(&[], &read).must(true, "").must(!scene.boxed_sh(&[], &read).out.contains("theirs"), "unseen");
    scene.boxed_sh(&["-r", &outside], &read).exits(0);
    let boxed = scene.boxed_sh(&["-r", &outside], &write);
    boxed.must(boxed.code != 0 && !scene.outside.join("g").exists(), "readable is not writable");
    let named = boxed.err.contains("1 denied") && boxed.err.contains(&outside) && boxed.err.contains("-w ");
    boxed.must(named, "the last line says what was denied and how to allow it");
    scene.boxed_sh(&["-w", &outside], &write).exits(0);
    assert!(scene.outside.join("g").exists());
    let boxed = scene.boxed_sh(&["-w", &outside, "--deny", &format!("{outside}/f")], &read);
    boxed.must(boxed.code != 0 && !boxed.out.contains("theirs"), "deny wins");
    let quiet = scene.boxed_sh(&["-q", "-r", &outside], &write);
    quiet.must(!quiet.err.contains("agentbox:"), "-q says nothing at the end");
}

#[test]
fn the_host_network_is_there_when_asked_for() {
    if compiler().is_none() {
        skip!("no C compiler (cc)");
    }
    let scene = Scene::new();
    scene.c("reach", REACH, &[]);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("listen on loopback");
    let port = listener.local_addr().expect("an address").port().to_string();
    let boxed = scene.boxed(&["--net", "host"], &["./reach", "tcp", "127.0.0.1", &port]);
    boxed.exits(0).must(!boxed.decisions(&port).is_empty(), "the connection is on record");
    listener.accept().expect("the connection arrives");
}

#[test]
fn a_listed_socket_of_the_host_is_there_and_no_other() {
    let Some(python) = program("python3") else { skip!("no python3 in the system directories") };
    let scene = Scene::new();
    let serve = |path: &Path| {
        let listener = std::os::unix::net::UnixListener::bind(path).expect("a socket");
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = std::io::Write::write_all(&mut &stream, b"hello");
            }
        });
    };
    let (listed, other) = (scene.outside.join("listed"), scene.outside.join("other"));
    let (at_home, here) = (scene.home.join("agent.sock"), scene.work.join("here.sock"));
    for path in [&listed, &other, &at_home, &here] {
        serve(path);
        // Whoever runs the test may connect, if the file lets it.
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("open the socket");
    }
    let alias = scene.outside.join("alias");
    std::os::unix::fs::symlink("listed", &alias).expect("a link");
    let say =
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); print(s.recv(9).decode())";
    let connect = |flags: &[&str], to: &Path| {
        let argv = [text(&python), "-c", say, text(to)];
        (scene.free(&argv).exits(0).out.clone(), scene.boxed(&[&["-p", "python"], flags].concat(), &argv))
    };
    for path in [&listed, &at_home, &here, &alias] {
        let (free, boxed) = connect(&["--net-unix", text(path)], path);
        boxed.exits(0).must(boxed.out == free && free == "hello\n", "the listed socket answers");
    }
    for (path, granted) in [(&other, &listed), (&here, &listed)] {
        let (_, boxed) = connect(&["--net-unix", text(granted)], path);
        boxed.must(boxed.code != 0 && boxed.denied(&["connect"], text(path)), "another socket answers");
    }
    let (_, seen) = connect(&[], &here);
    seen.must(seen.err.contains("--net-unix here.sock"), "the fix is named");
    let policy = scene.file("policy.yaml", "version: 1\nextends: [default]\nnetwork: {unix: [\"~/agent.sock\"]}\n");
    connect(&["-p", text(&policy)], &at_home).1.exits(0);
    for (path, claim) in [("/etc/hosts", "is no socket"), ("nowhere", "there is no such file")] {
        let refused = scene.boxed(&["--net-unix", path], &["true"]);
        refused.exits(125).must(refused.err.contains(claim), claim);
    }
}

#[test]
fn a_dry_run_prints_the_plan_and_runs_nothing() {
    let scene = Scene::new();
    let boxed = scene.boxed_sh(&["--dry-run"], "touch ran");
    boxed.exits(0).must(!scene.work.join("ran").exists(), "the command ran");
    let said = boxed.out.to_lowercase();
    boxed.must(["landlock", "seccomp", "view"].iter().all(|l| said.contains(l)), "the plan and the coverage");
    boxed.must(boxed.out.contains(text(&scene.work)), "the plan names the workspace");
    boxed.must(boxed.records.is_empty(), "a dry run leaves no record");
}

// Coverage.

#[test]
fn a_host_without_user_namespaces_is_refused_with_the_fix() {
    let scene = Scene::new();
    let Some(boxed) = degraded(&scene, &[], "touch ran") else { skip!("no user namespace to take namespaces away in") };
    boxed.exits(125).must(!scene.work.join("ran").exists(), "the command ran");
    let said = boxed.err.to_lowercase();
    boxed.must(
        said.contains("user namespace") || said.contains("max_user_namespaces"),
        "the message says what is missing",
    );
    boxed.must(said.contains("--allow-degraded"), "the message says how to go on all the same");
    let some = degraded(&scene, &["--allow-degraded", "processes"], "touch ran").expect("as before");
    some.exits(125).must(!scene.work.join("ran").exists(), "one layer allowed is not all");
}

#[test]
fn a_degraded_run_says_so_and_holds_what_it_can() {
    let scene = Scene::new();
    scene.file("outside/f", "theirs\n");
    let flags = ["-v", "--allow-degraded", "view", "--allow-degraded", "processes", "--allow-degraded", "network"];
    let line = format!("echo mine > made; echo owned > {}/f; exit 9", text(&scene.outside));
    let Some(boxed) = degraded(&scene, &flags, &line) else { skip!("no user namespace to take namespaces away in") };
    boxed.exits(9).must(scene.work.join("made").exists(), "the work is done");
    let kept = fs::read_to_string(scene.outside.join("f")).expect("read") == "theirs\n";
    boxed.must(kept, "without a view the other layers hold the fence");
    boxed.must(boxed.denied(&[], "outside/f"), "no record of the refusal");
    let said = boxed.err.to_lowercase();
    boxed.must(said.contains("view") && said.contains("absent"), "the coverage is said");
}

#[test]
fn a_required_layer_is_there_or_the_run_does_not_start() {
    let scene = Scene::new();
    let all = ["--require", "view", "--require", "processes", "--require", "seccomp", "--require", "supervisor"];
    scene.boxed_sh(&all, "exit 3").exits(3);
    let flags = ["--require", "view", "--allow-degraded", "processes", "--allow-degraded", "network"];
    let Some(boxed) = degraded(&scene, &flags, "touch ran") else {
        skip!("no user namespace to take namespaces away in")
    };
    boxed.exits(125).must(!scene.work.join("ran").exists(), "the command ran");
}

#[test]
fn a_user_who_is_root_in_a_small_namespace_gets_a_box() {
    let scene = Scene::new();
    let binary = agentbox();
    let argv = ["unshare", "-Ur", text(&binary), "run", "-q", "--", "/bin/sh", "-c", "id -u; touch made"];
    if scene.free(&["unshare", "-Ur", "true"]).code != 0 {
        skip!("no user namespaces for this user");
    }
    let boxed = scene.free(&argv);
    boxed.exits(0).must(boxed.out.trim() == "0" && scene.work.join("made").exists(), "root of one id");
}

// The log is there from the first line to the last, or the run is no success.

#[test]
fn a_log_that_cannot_be_written_stops_the_run_before_the_command() {
    let scene = Scene::new();
    let file = scene.file("file", "");
    let below = file.join("audit.jsonl");
    let mut command = scene.free_command(&[text(&agentbox()), "run", "--log", text(&below), "--", "touch", "ran"]);
    let boxed = run(command, b"");
    boxed.exits(125).must(boxed.err.contains(text(&below)), "the message names the log");
    command = scene.free_command(&[text(&agentbox()), "run", "--", "touch", "ran"]);
    command.env("XDG_STATE_HOME", &file);
    let boxed = run(command, b"");
    boxed.exits(125).must(boxed.err.contains(text(&file)), "the message names the state directory");
    assert!(!scene.work.join("ran").exists(), "the command ran without a log\n{boxed}");
    if !root() {
        let closed = scene.root.join("closed");
        fs::create_dir(&closed).expect("make a directory");
        fs::set_permissions(&closed, std::os::unix::fs::PermissionsExt::from_mode(0o500)).expect("close it");
        let log = closed.join("audit.jsonl");
        run(scene.free_command(&[text(&agentbox()), "run", "--log", text(&log), "--", "touch", "ran"]), b"").exits(125);
        assert!(!scene.work.join("ran").exists(), "the command ran without a log");
    }
}

#[test]
fn a_log_that_fills_up_fails_the_run_loudly() {
    let scene = Scene::new();
    let mut command = scene.free_command(&[text(&agentbox()), "run", "--log", "/dev/full", "--", "true"]);
    command.stdin(Stdio::null());
    let boxed = run(command, b"");
    boxed.exits(125).must(boxed.err.contains("/dev/full"), "the message names the log");

    // A small file system of our own: the first records fit, later ones do not.
    let mount = "mount -t tmpfs -o size=32k none small && exec \"$@\"";
    fs::create_dir(scene.work.join("small")).expect("make the mount point");
    let line = "i=0; while [ $i -lt 400 ]; do mkdir d && rmdir d; i=$((i+1)); done; touch ended";
    let binary = agentbox();
    let prefix = ["unshare", "-Urm", "sh", "-c", mount, "sh"];
    if scene.free(&[&prefix[..], &["true"]].concat()).code != 0 {
        skip!("no mount namespace to make a small file system in");
    }
    let run_line = [text(&binary), "run", "--log", "small/audit.jsonl", "--", "/bin/sh", "-c", line];
    let boxed = scene.free(&[&prefix[..], &run_line].concat());
    boxed.exits(125).must(scene.work.join("ended").exists(), "the command itself is not stopped half way");
    let said = boxed.err.to_lowercase();
    boxed.must(said.contains("record") || said.contains("log"), "the message says that records are lost");
}

// Terminals.

/// Plays a scenario at plain bash as the control, then at bash in the box.
fn at_a_terminal(scenario: &str) {
    let (Some(python), Some(bash)) = (program("python3"), program("bash")) else { return skip_terminal() };
    let scene = Scene::new();
    let player = scene.file("terminal.py", TERMINAL_PY);
    let bash = [text(&bash), "--norc", "--noprofile", "-i"];
    let play = |prefix: &[&str]| {
        let mut command = scene.free_command(&[&[text(&python), text(&player), scenario], prefix, &bash].concat());
        command.env("TERM", "xterm");
        run(command, b"")
    };
    let free = play(&[]);
    free.exits(0).must(free.out.trim() == "ok", "the control");
    let binary = agentbox();
    let boxed = play(&[text(&binary), "run", "-q", "--"]);
    boxed.exits(0).must(boxed.out.trim() == "ok", "in the box");
}

fn skip_terminal() {
    skip!("no python3 or bash in the system directories");
}

#[test]
fn a_terminal_keeps_its_size_and_follows_changes() {
    at_a_terminal("window");
}

#[test]
fn job_control_works_in_a_shell() {
    at_a_terminal("jobs");
}

#[test]
fn the_terminal_is_restored_however_the_run_ends() {
    at_a_terminal("restored");
}

#[test]
fn output_to_a_pipe_is_no_terminal_though_input_is_one() {
    let Some(python) = program("python3") else { skip!("no python3 in the system directories") };
    let scene = Scene::new();
    let helper = scene.file("on_pty.py", include_str!("fixtures/on_pty.py"));
    // Standard input is a terminal, standard output a file: `agentbox run … > file` must leave plain bytes in it.
    let on_pty = |command: &str| {
        scene.free(&[text(&python), text(&helper), "/bin/sh", "-c", command]).exits(0);
        fs::read(scene.work.join("out")).expect("read the output")
    };
    let line = "printf \"a\\nb\\n\"; test -t 1; echo $?; test -t 0; echo $?";
    let free = on_pty(&format!("sh -c '{line}' > out"));
    assert_eq!(free, b"a\nb\n1\n0\n");
    assert_eq!(on_pty(&format!("{} run -q -- sh -c '{line}' > out", text(&agentbox()))), free);
}

#[test]
fn a_broken_command_line_reads_nothing() {
    let scene = Scene::new();
    let (mut command, _) = scene.boxed_command(&["--no-such-flag"], &["cat"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = common::start(command);
    let status = common::wait(&mut child, Duration::from_secs(10)).expect("ends at once");
    assert_eq!(status.code(), Some(125));
    let mut said = String::new();
    child.stderr.take().expect("stderr").read_to_string(&mut said).expect("read");
    assert!(said.contains("--no-such-flag"), "{said}");
}
