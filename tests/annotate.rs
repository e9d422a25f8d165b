//! Programs in a box say what they do, by `agentbox annotate` and by the socket itself: what is said goes on record as a
//! claim of who said it, and nothing that is wrong with it does harm.

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use common::{Outcome, Scene, program, root, run_logged, text};
use serde_json::Value;

/// A client in a few lines: what a program needs that would rather not start another.
const CLIENT: &str = r#"
import json, os, socket
class Annotate:
    def __init__(self):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(os.environ["AGENTBOX_ANNOTATE"])
        self.answers = self.socket.makefile("rb")
    def say(self, type, **fields):
        return self.raw(json.dumps({"v": 1, "type": type, **fields}).encode() + b"\n")
    def raw(self, line):
        self.socket.sendall(line)
        return json.loads(self.answers.readline() or b'{"error": "closed"}')
"#;

/// A scene and the user who runs in it.
struct Stage {
    scene: Scene,
    who: Vec<&'static str>,
    agentbox: PathBuf,
    logs: AtomicU32,
}

impl Stage {
    /// This user, and where that is root an ordinary one, too.
    fn all() -> Vec<Self> {
        let mut all =
            vec![Self { scene: Scene::new(), who: Vec::new(), agentbox: common::agentbox(), logs: AtomicU32::new(0) }];
        if root() && program("setpriv").is_some() {
            let scene = Scene::new();
            // The one under test may lie where only root may go.
            let agentbox = scene.root.join("agentbox");
            fs::copy(common::agentbox(), &agentbox).expect("copy agentbox");
            let who = vec!["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--"];
            all.push(Self { scene, who, agentbox, logs: AtomicU32::new(0) });
        }
        all.into_iter().filter(Self::has_views).collect()
    }

    fn has_views(&self) -> bool {
        let probe = self.boxed(&[], &["true"]);
        probe.exits(0);
        let coverage = probe.records[0]["coverage"].to_string();
        let has = coverage.contains(r#""layer":"view","state":"enforced""#);
        if !has {
            println!("skipped: no user namespaces here, so boxes have no views");
        }
        has
    }

    fn command(&self, flags: &[&str], argv: &[&str]) -> (Command, PathBuf) {
        if !self.who.is_empty() {
            let owned = Command::new("chown").args(["-R", "65534:65534"]).arg(&self.scene.root).status();
            assert!(owned.expect("run chown").success());
        }
        let log = self.scene.root.join(format!("state/audit-{}.jsonl", self.logs.fetch_add(1, Ordering::Relaxed)));
        let agentbox = [text(&self.agentbox), "run", "--log", text(&log)];
        let all = [&self.who, &agentbox[..], flags, &["--"], argv].concat();
        (self.scene.free_command(&all), log)
    }

    fn boxed(&self, flags: &[&str], argv: &[&str]) -> Outcome {
        let (command, log) = self.command(flags, argv);
        run_logged(command, b"", &log)
    }

    fn shell(&self, flags: &[&str], line: &str) -> Outcome {
        self.boxed(flags, &["sh", "-c", line])
    }

    /// Runs a Python program that has the client.
    fn python(&self, flags: &[&str], program: &str) -> Outcome {
        self.scene.file("home/work/client.py", format!("{CLIENT}\n{program}"));
        self.boxed(flags, &["python3", "client.py"])
    }
}

/// The records of what was said and of what was refused.
fn told<'a>(outcome: &'a Outcome, part: &str) -> Vec<&'a Value> {
    let said = |record: &&Value| match record["kind"].as_str() {
        Some("action") => !record["claim"].is_null(),
        kind => kind == Some("claim") || kind == Some("note"),
    };
    outcome.records.iter().filter(said).filter(|record| record.to_string().contains(part)).collect()
}

/// The host's number of the process that a record of something said names.
fn speaker(record: &Value) -> i64 {
    let in_text = || record["text"].as_str()?.strip_prefix("process ")?.split(' ').next()?.parse().ok();
    record["process"]["host"].as_i64().or_else(in_text).unwrap_or_else(|| panic!("who says {record}"))
}

macro_rules! python {
    () => {
        if program("python3").is_none() {
            skip!("no python3 in the system directories");
        }
    };
}

#[test]
fn a_shell_says_what_it_does_by_the_command() {
    for stage in Stage::all() {
        let ran = stage.shell(
            &[],
            "id=$(agentbox annotate begin --tool edit --params '{\"file\": \"a\"}' --reason 'to mend it' --plan 'step 2'); \
             echo \"id $id\"; echo '{\"big\": [1]}' > params; \
             agentbox annotate begin --tool other --params @params --parent \"$id\" > /dev/null; \
             agentbox annotate begin --tool third --params - < params > /dev/null; \
             agentbox annotate end \"$id\" --outcome 'it is mended'; \
             agentbox annotate note '--all is well'; agentbox annotate --for self note 'mine'; echo \"done $?\"",
        );
        ran.exits(0);
        ran.must(ran.out.lines().any(|line| line.starts_with("id a")), "begin prints the action's id");
        ran.must(ran.out.contains("done 0") && ran.err.is_empty(), "nothing else is said");
        for part in ["to mend it", "step 2", "other", "third", "it is mended", "--all is well", "mine"] {
            ran.must(!told(&ran, part).is_empty(), &format!("{part} is on record"));
        }
        let shell = speaker(told(&ran, "to mend it")[0]);
        let started = ran.decisions("\"exec\"").into_iter().find(|exec| exec.to_string().contains("\"begin\""));
        ran.must(started.is_some(), "the command's start is on record");
        ran.must(speaker(told(&ran, "it is mended")[0]) == shell, "it is the shell that is spoken for");
        ran.must(speaker(told(&ran, "mine")[0]) != shell, "unless the command speaks for itself");
    }
}

#[test]
fn what_cannot_be_said_is_one_clear_line() {
    let scene = Scene::new();
    let outside = scene.agentbox(&["annotate", "note", "x"]);
    outside.exits(125);
    assert_eq!(outside.err, "agentbox: not in a box: only what `agentbox run` starts can be annotated\n");
    for stage in Stage::all() {
        let ran = stage.shell(
            &[],
            "agentbox annotate begin --tool x --params '{'; echo $?; agentbox annotate begin --tool x --params @none; \
             echo $?; agentbox annotate note \"$(head -c 70000 /dev/zero | tr '\\0' x)\"; echo $?; \
             agentbox annotate begin --tool ''; echo $?; AGENTBOX_ANNOTATE=/none agentbox annotate note x; echo $?; \
             unset AGENTBOX_ANNOTATE; agentbox annotate note found; echo $?",
        );
        assert_eq!(ran.out, "125\n125\n1\n1\n125\n0\n", "{ran}");
        for line in [
            "agentbox: --params: the argument is no JSON: ",
            "agentbox: --params: cannot read none: ",
            "agentbox: refused: a line is longer than 65536 bytes",
            "agentbox: refused: `tool` is empty",
            "agentbox: cannot speak to agentbox at /none: ",
        ] {
            ran.must(ran.err.lines().any(|said| said.starts_with(line)), line);
        }
        ran.must(!told(&ran, "found").is_empty(), "the usual place is known");
    }
}

#[test]
fn a_program_speaks_by_the_socket_and_the_kernel_says_who_it_is() {
    python!();
    for stage in Stage::all() {
        let ran = stage.python(
            &["--audit-level", "all"],
            r#"
a = Annotate()
begun = a.say("begin", tool="edit", params={"n": 1}, reason="first")
assert begun["ok"], begun
assert a.say("end", action=begun["action"])["ok"]
line = b'{"v":1,"type":"note","note":"%s"}\n'
for way in ["write", "sendmsg"]:
    said = line % way.encode()
    os.write(a.socket.fileno(), said) if way == "write" else a.socket.sendmsg([said])
    print(way, json.loads(a.answers.readline()))
# A connection that is handed on speaks for who writes.
if os.fork() == 0:
    assert a.raw(line % b"child")["ok"]
    assert a.say("note", note="parent", **{"for": "parent"})["ok"]
    os._exit(0)
assert os.wait()[1] == 0
# Half a line from each of two is nobody's.
a.socket.sendall(b'{"v":1,"type":"note",')
if os.fork() == 0:
    a.socket.sendall(b'"note":"forged"}\n')
    os._exit(0)
os.wait()
print("two", a.answers.readline())
socket.send_fds(a.socket, [line % b"rights"], [0])
print("rights", a.answers.readline())
print(os.listdir("/run"), os.listdir("/run/agentbox"))
"#,
        );
        ran.exits(0);
        let python = speaker(told(&ran, "first")[0]);
        for (said, own) in [("\"write\"", true), ("sendmsg", true), ("child", false), ("\"parent\"}", true)] {
            let said = told(&ran, said);
            ran.must(said.len() == 1 && (speaker(said[0]) == python) == own, "who said it");
        }
        ran.must(ran.out.contains("written by several processes") && told(&ran, "forged").is_empty(), "two writers");
        ran.must(ran.out.contains("no descriptors can be sent along"), "descriptors");
    }
}

#[test]
fn what_agentbox_carries_out_itself_is_nobodys() {
    python!();
    for stage in Stage::all() {
        let ran = stage.python(
            &["--net", "rules", "--net-allow", "udp://192.0.2.1:53"],
            r#"
a = Annotate()
a.socket.sendmsg([b'{"v":1,"type":"note","note":"sendmsg"}\n'])
print(a.answers.readline())
assert a.say("note", note="plainly")["ok"]
"#,
        );
        ran.exits(0);
        ran.must(ran.out.contains("agentbox itself carries sendmsg() out here"), "the reason is clear");
        ran.must(!told(&ran, "plainly").is_empty(), "other ways are heard");
    }
}

#[test]
fn bad_input_is_refused_by_name_and_on_record_and_the_rest_is_heard() {
    python!();
    for stage in Stage::all() {
        let ran = stage.python(
            &[],
            r#"
a = Annotate()
for line in [b"\xff\xfe", b"hello", b'{"v":1,"type":"begin","tool":"x","pid":1}', b'{"v":1,"type":"end","action":7}',
             b'{"v":1,"type":"note","note":"a\\u0000b"}', b'{"v":1,"type":"begin","params":' + b"[" * 40 + b"]" * 40 + b"}",
             b"[" * 60000, b'{"v":1,"type":"note","note":"\x1b[31m"}']:
    print(a.raw(line + b"\n"))
assert a.say("note", note="esc \x1b]0;owned\x07 end")["ok"]
written, chunk = 0, b"x" * (1 << 20)
b = Annotate()
try:
    while written < 1 << 30:
        written += b.socket.send(chunk)
except BrokenPipeError:
    pass
print("written", written < 8 << 20, b.answers.readline())
assert Annotate().say("note", note="still heard")["ok"]
"#,
        );
        ran.exits(0);
        for part in [
            "no UTF-8 at byte 0",
            "no JSON",
            "`pid` is no field of",
            "`action` must be a string",
            "`note` holds a NUL",
            "nested deeper than 32",
            "longer than 65536 bytes",
        ] {
            ran.must(ran.out.contains(part), &format!("{part} is answered"));
            ran.must(!told(&ran, part).is_empty(), &format!("{part} is on record"));
        }
        ran.must(ran.out.contains("written True"), "a gigabyte is cut off early");
        ran.must(!told(&ran, "still heard").is_empty(), "others are heard");
        ran.must(!ran.err.contains('\x1b'), "nothing reaches a terminal as it is");
    }
}

#[test]
fn floods_of_lines_and_connections_are_told_of_once_and_hold_nobody_up() {
    python!();
    for stage in Stage::all() {
        let ran = stage.python(
            &["--audit-level", "minimal"],
            r#"
import time
a = Annotate()
a.socket.settimeout(60)
# All at once, so that no slow machine makes the flood a trickle.
a.socket.sendall(b'{"v":1,"type":"note","note":"n"}\n' * 400)
answers = [json.loads(a.answers.readline())["ok"] for _ in range(400)]
print("heard", 200 <= sum(answers) < 400)
time.sleep(1.5)
assert a.say("note", note="after the flood")["ok"]
# Connections from many processes that say nothing, and one that never reads what it is answered.
for _ in range(10):
    if os.fork() == 0:
        idle = [Annotate() for _ in range(20)]
        time.sleep(2)
        os._exit(0)
deaf = Annotate()
deaf.socket.setblocking(False)
try:
    for _ in range(300):
        deaf.socket.send(b"x\n" * 1000)
except (BlockingIOError, BrokenPipeError, ConnectionResetError):
    pass
time.sleep(3)
for _ in range(50):
    try:
        if Annotate().say("note", note="after the crowd").get("ok"):
            break
    except (BrokenPipeError, ConnectionResetError):
        pass
    time.sleep(0.1)
else:
    raise SystemExit("nobody hears")
"#,
        );
        ran.exits(0);
        ran.must(ran.out.contains("heard True"), "a burst is heard, the rest is not");
        let floods = told(&ran, "lines came too fast");
        ran.must((1..=3).contains(&floods.len()), "a flood is one note");
        ran.must(!told(&ran, "after the flood").is_empty(), "then it is over");
        ran.must(!told(&ran, "after the crowd").is_empty(), "room is made");
        ran.must(told(&ran, "").len() < 500, "the log does not grow with the flood");
    }
}

#[test]
fn secrets_are_not_recorded() {
    python!();
    const TOKEN: &str = "ghp_0123456789abcdefghijABCDEFGHIJ012345";
    for stage in Stage::all() {
        let ran = stage.python(
            &[],
            &format!(
                r#"
a = Annotate()
assert a.say("begin", tool="login", params={{"user": "me", "password": "hunter2"}}, reason="with {TOKEN} it works")["ok"]
assert a.say("note", note="-----BEGIN PRIVATE KEY-----\nMIIEow\n-----END PRIVATE KEY-----")["ok"]
print(a.raw(b'{{"v":1,"type":"end","{TOKEN}":1}}\n'))
"#
            ),
        );
        ran.exits(0);
        let all: String = ran.records.iter().map(Value::to_string).collect();
        for secret in [TOKEN, "hunter2", "MIIEow"] {
            ran.must(!all.contains(secret), &format!("{secret} is on record"));
        }
        // What `sha256sum` says of hunter2.
        ran.must(!told(&ran, "sha256:f52fbd32b2b3b86f").is_empty(), "a digest is");
        ran.must(!told(&ran, "it works").is_empty(), "the rest is");
    }
}

#[test]
fn nothing_takes_the_sockets_place() {
    let acts = "rm \"$D/annotate.sock\"; mv \"$D\" \"$D.old\"; chmod 0 \"$D\"; true > \"$D/agentbox\"; true > \"$D/new\"; \
                ln -s x \"$D/link\"; ls -A \"$D\" \"$D.old\" 2>/dev/null | sort | tr '\\n' ' '";
    for stage in Stage::all() {
        stage.scene.file("outside/d/annotate.sock", "");
        let free = stage.scene.free_sh(&format!("D={}; {acts}", text(&stage.scene.outside.join("d"))));
        free.must(!free.out.contains("annotate.sock"), "the control: all of it succeeds");
        let ran = stage.shell(&[], &format!("D=/run/agentbox; {acts}; agentbox annotate note heard; echo $?"));
        ran.must(ran.out.ends_with("agentbox annotate.sock 0\n"), "nothing has changed");
        ran.must(!told(&ran, "heard").is_empty(), "and it works");
    }
}

#[test]
fn a_process_outside_is_not_heard() {
    for stage in Stage::all() {
        let seconds = common::unique_seconds();
        let (mut command, log) = stage.command(&[], &["sh", "-c", &format!("echo up; sleep {seconds} & read end")]);
        let mut child = common::start({
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            command
        });
        let mut up = String::new();
        let mut out = BufReader::new(child.stdout.take().expect("a pipe"));
        out.read_line(&mut up).expect("read");
        let mut found = Vec::new();
        common::await_until("the box's process", || {
            found = common::processes_with(&seconds);
            found.iter().any(|pid| is_sleep(*pid))
        });
        let inside = found.into_iter().find(|pid| is_sleep(*pid)).expect("just found");
        let path = format!("/proc/{inside}/root/run/agentbox/annotate.sock");
        // An ordinary user's boxes are looked into by root here.
        let mut stream = UnixStream::connect(&path).expect("the control: outside there is a way to the socket");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set a timeout");
        stream.write_all(b"{\"v\":1,\"type\":\"note\",\"note\":\"from outside\"}\n").expect("write");
        let mut answer = String::new();
        BufReader::new(&stream).read_line(&mut answer).expect("an answer");
        assert!(answer.contains("only processes of the box are heard"), "{answer}");
        let ran = common::finish(child, b"\n", &log);
        ran.must(told(&ran, "from outside").is_empty(), "what it says is not on record");
        ran.must(!told(&ran, "only processes of the box").is_empty(), "that it was refused is");
    }
}

fn is_sleep(pid: i32) -> bool {
    fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| !exe.ends_with("dash") && !exe.ends_with("agentbox"))
        && fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(b"sleep\0"))
}

#[test]
fn the_environment_says_where_unless_it_is_to_be_clean() {
    for stage in Stage::all() {
        let line = "echo \"${AGENTBOX_ANNOTATE-unset}\"; case :$PATH: in *:/run/agentbox:*) echo found;; esac";
        assert_eq!(stage.shell(&[], line).out, "/run/agentbox/annotate.sock\nfound\n");
        let clean = stage.shell(&["--clean-env", "--env", "PATH"], line);
        assert_eq!(clean.out, "unset\n");
        let direct = stage.shell(&["--clean-env"], "/run/agentbox/agentbox annotate note direct; echo $?");
        assert_eq!(direct.out, "0\n", "{direct}");
        direct.must(!told(&direct, "direct").is_empty(), "it is heard without the variable");
    }
}

#[test]
fn where_the_hosts_tree_is_shown_there_is_another_place() {
    if !std::path::Path::new("/run").is_dir() {
        skip!("no /run here");
    }
    for stage in Stage::all() {
        let ran = stage.shell(&["-r", "/run"], "echo $AGENTBOX_ANNOTATE; agentbox annotate note elsewhere; echo $?");
        assert_eq!(ran.out, "/dev/agentbox/annotate.sock\n0\n", "{ran}");
        ran.must(!told(&ran, "elsewhere").is_empty(), "it is heard there");
        assert!(!std::path::Path::new("/run/agentbox").exists(), "nothing was made outside");
    }
}

#[test]
fn where_the_box_sees_the_program_anyway_it_is_linked() {
    for mut stage in Stage::all() {
        let installed = stage.scene.outside.join("agentbox");
        fs::copy(&stage.agentbox, &installed).expect("copy agentbox");
        stage.agentbox = installed;
        let outside = text(&stage.scene.outside);
        let line = "readlink /run/agentbox/agentbox; agentbox annotate note linked; echo $?";
        let ran = stage.shell(&["-r", outside], line);
        assert_eq!(ran.out, format!("{}\n0\n", stage.agentbox.display()), "{ran}");
        let changeable = stage.shell(&["-w", outside], line);
        assert_eq!(changeable.out, "0\n", "what can be changed is not linked to\n{changeable}");
        for ran in [ran, changeable] {
            ran.must(!told(&ran, "linked").is_empty(), "it is heard");
        }
    }
}

#[test]
fn where_the_program_may_not_run_the_socket_still_serves() {
    python!();
    for stage in Stage::all() {
        let policy = stage.scene.file("home/strict.yaml", "version: 1\nextends: [default]\nexec: {deny: [agentbox]}\n");
        let ran = stage.python(
            &["-p", text(&policy)],
            r#"
import subprocess
try:
    subprocess.run(["agentbox", "annotate", "note", "by the program"])
    print("it ran")
except PermissionError:
    print("it may not run")
assert Annotate().say("note", note="by the socket")["ok"]
"#,
        );
        ran.exits(0);
        ran.must(ran.out == "it may not run\n" && told(&ran, "by the program").is_empty(), "the rule holds");
        ran.must(!told(&ran, "by the socket").is_empty(), "the socket serves");
    }
}

#[test]
fn what_is_done_between_begin_and_end_belongs_to_the_action_that_was_claimed() {
    python!();
    for stage in Stage::all() {
        let ran = stage.python(
            &[],
            r#"
import subprocess
def touch(name):
    open(name, "w").close()
touch("before")
a = Annotate()
first = a.say("begin", tool="edit", reason="one")["action"]
touch("by-itself")
subprocess.run(["touch", "by-a-program"])
second = a.say("begin", tool="look", parent=first)["action"]
touch("in-both")
assert a.say("end", action=second)["ok"]
touch("in-the-first-again")
wrong = [a.say("end", action="a999"), a.say("end", action="session"), a.say("end", action="x"), a.say("end", action=second)]
assert not any(answer["ok"] for answer in wrong), wrong
child = os.fork()
if child == 0:
    # Nobody ends what another began.
    os._exit(0 if not Annotate().say("end", action=first)["ok"] else 1)
assert os.waitpid(child, 0)[1] == 0
assert a.say("end", outcome="fine")["action"] == first
touch("after")
print(first, second)
"#,
        );
        ran.exits(0);
        let (first, second) = ran.out.trim().split_once(' ').expect("two actions");
        for (name, action, attribution, shared) in [
            ("before", "session", "session", false),
            ("by-itself", first, "bracket", false),
            ("by-a-program", first, "subtree", false),
            ("in-both", second, "bracket", true),
            ("in-the-first-again", first, "bracket", false),
            ("after", "session", "session", false),
        ] {
            let record = ran.decisions(&format!("/{name}\""))[0];
            ran.must(record["action"] == action && record["attribution"] == attribution, &format!("{name}: {record}"));
            ran.must((record["shared"][0] == first) == shared, &format!("{name}: {record}"));
        }
        let ended = ran.records.iter().find(|r| r["kind"] == "action_end" && r["action"] == first).expect("its end");
        ran.must(ended["effects"]["files"]["created"] == 3, "three files are its own");
        ran.must(ended["claim"]["tool"] == "edit" && ended["claim"]["outcome"] == "fine", "what was said of it");
    }
}

#[test]
fn what_a_program_began_ends_with_it() {
    python!();
    for stage in Stage::all() {
        stage.scene.file("home/work/client.py", format!("{CLIENT}\nAnnotate().say('begin', tool='forgotten')\n"));
        let ran = stage.shell(&[], "python3 client.py; sleep 1.5; true > later");
        ran.exits(0);
        let at = |kind: &str, part: &str| {
            let fits = |record: &Value| record["kind"] == kind && record.to_string().contains(part);
            ran.records.iter().position(fits).unwrap_or_else(|| panic!("no {kind} with {part}: {ran}"))
        };
        ran.must(at("action_end", "forgotten") < at("decision", "/later"), "while the run goes on");
    }
}
