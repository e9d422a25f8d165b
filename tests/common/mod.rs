//! The harness of the whole-run tests: a scene (fake home, workspace, state directory) in which a command is run
//! *free*, as a control, and *boxed*, under `agentbox run`.
//!
//! Runs in the test processes. It needs neither root nor a home nor write access to the checkout: fixtures are embedded
//! and written into the scene. It ends only processes that it started.
#![allow(dead_code, reason = "each test file uses its own part of the harness")]

pub mod browser;
pub mod internet;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::Value;
use sha2::{Digest, Sha256};

/// What every command finds its programs by: system directories, the same free and boxed, for every user.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How long a run may take before it counts as hung.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Says which host fact a test misses and leaves the test. `scripts/test` shows and counts these lines.
#[macro_export]
macro_rules! skip {
    ($($fact:tt)*) => {{
        println!("skipped: {}", format_args!($($fact)*));
        return;
    }};
}

/// The binary under test.
pub fn agentbox() -> PathBuf {
    std::env::var_os("AGENTBOX_BIN").map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_agentbox")), PathBuf::from)
}

/// Where scenes are made.
pub fn base() -> PathBuf {
    std::env::var_os("AGENTBOX_TEST_DIR").map_or_else(|| PathBuf::from("/tmp"), PathBuf::from)
}

/// Whether the tests run as root.
pub fn root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// The program's path, if this user can reach it on [`PATH`].
pub fn program(name: &str) -> Option<PathBuf> {
    let usable = |p: &PathBuf| fs::metadata(p).is_ok_and(|m| m.is_file() && m.mode() & 0o111 != 0);
    PATH.split(':').map(|dir| Path::new(dir).join(name)).find(usable)
}

/// A fake home with a workspace, removed when dropped.
///
/// `root/home` is `$HOME`, `root/home/work` the workspace and current directory, `root/outside` a directory that no
/// default policy grants, `root/state` the private `XDG_STATE_HOME`.
pub struct Scene {
    dir: tempfile::TempDir,
    /// Everything below is in here.
    pub root: PathBuf,
    /// `$HOME`.
    pub home: PathBuf,
    /// The workspace.
    pub work: PathBuf,
    /// A directory that belongs to the user and to no policy.
    pub outside: PathBuf,
    logs: AtomicU32,
}

impl Scene {
    /// Makes an empty scene.
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("agentbox-test-").tempdir_in(base()).expect("make a scene");
        let root = dir.path().canonicalize().expect("canonical scene");
        let scene = Self {
            home: root.join("home"),
            work: root.join("home/work"),
            outside: root.join("outside"),
            root,
            dir,
            logs: AtomicU32::new(0),
        };
        for made in [&scene.work, &scene.outside, &scene.root.join("state")] {
            fs::create_dir_all(made).expect("make a directory of the scene");
        }
        scene
    }

    /// Writes a file below `root` and the directories above it.
    pub fn file(&self, path: impl AsRef<Path>, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.root.join(path);
        fs::create_dir_all(path.parent().expect("a file has a parent")).expect("make parents");
        fs::write(&path, text).expect("write a fixture");
        path
    }

    /// Writes an executable file below `root`.
    pub fn script(&self, path: impl AsRef<Path>, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.root.join(path);
        let draft = self.file(path.with_extension("draft"), text);
        install(&draft, &path);
        fs::remove_file(draft).expect("remove the draft");
        path
    }

    /// Compiles a C program of [`compiled`] into the workspace under `name`.
    pub fn c(&self, name: &str, source: &str, flags: &[&str]) -> PathBuf {
        let path = self.work.join(name);
        install(&compiled(name, source, flags), &path);
        path
    }

    /// The command with the scene's environment, not started.
    pub fn free_command<S: AsRef<OsStr>>(&self, argv: &[S]) -> Command {
        let mut command = Command::new(&argv[0]);
        command.args(&argv[1..]);
        self.dress(&mut command);
        command
    }

    /// The same command under `agentbox run`, and where its records go.
    pub fn boxed_command<S: AsRef<OsStr>>(&self, flags: &[&str], argv: &[S]) -> (Command, PathBuf) {
        let log = self.root.join(format!("audit-{}.jsonl", self.logs.fetch_add(1, Ordering::Relaxed)));
        let mut command = Command::new(agentbox());
        command.arg("run").arg("--log").arg(&log).args(flags).arg("--").args(argv);
        self.dress(&mut command);
        (command, log)
    }

    /// Any other `agentbox` command in the scene.
    pub fn agentbox<S: AsRef<OsStr>>(&self, args: &[S]) -> Outcome {
        let mut command = Command::new(agentbox());
        command.args(args);
        self.dress(&mut command);
        run(command, b"")
    }

    /// Runs the command as it is.
    pub fn free<S: AsRef<OsStr>>(&self, argv: &[S]) -> Outcome {
        run(self.free_command(argv), b"")
    }

    /// Runs the command in the box.
    pub fn boxed<S: AsRef<OsStr>>(&self, flags: &[&str], argv: &[S]) -> Outcome {
        let (command, log) = self.boxed_command(flags, argv);
        run_logged(command, b"", &log)
    }

    /// Runs a shell line in the box.
    pub fn boxed_sh(&self, flags: &[&str], line: &str) -> Outcome {
        self.boxed(flags, &["/bin/sh", "-c", line])
    }

    /// Runs a shell line as it is.
    pub fn free_sh(&self, line: &str) -> Outcome {
        self.free(&["/bin/sh", "-c", line])
    }

    /// Gives a command the scene's home, workspace, state directory and a small, known environment.
    pub fn dress(&self, command: &mut Command) {
        command.env_clear().current_dir(&self.work);
        command.env("PATH", PATH).env("HOME", &self.home).env("LANG", "C.UTF-8");
        command.env("XDG_STATE_HOME", self.root.join("state"));
        if let Some(backtrace) = std::env::var_os("RUST_BACKTRACE") {
            command.env("RUST_BACKTRACE", backtrace);
        }
    }
}

/// What a run left: how it ended, what it printed, what it recorded.
#[derive(Debug)]
pub struct Outcome {
    /// How it ended.
    pub status: ExitStatus,
    /// Its exit code, 128+N when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
    /// The records; empty for a free run.
    pub records: Vec<Value>,
    /// How long it took.
    pub took: Duration,
}

impl Outcome {
    /// The decision records whose text contains `text`.
    pub fn decisions(&self, text: &str) -> Vec<&Value> {
        let fits = |r: &&Value| r["kind"] == "decision" && r.to_string().contains(text);
        self.records.iter().filter(fits).collect()
    }

    /// Whether something named `text` was denied, by any of `ops` (any operation if empty).
    pub fn denied(&self, ops: &[&str], text: &str) -> bool {
        let fits = |r: &&Value| ops.is_empty() || ops.iter().any(|op| r["op"] == *op);
        self.decisions(text).into_iter().filter(fits).any(|r| r["verdict"] == "deny")
    }

    /// Whether a record says that something named `text` did not happen: denied, or allowed and failed.
    pub fn failed_on_record(&self, text: &str) -> bool {
        let ok = |r: &&Value| r["outcome"] == "ok";
        self.decisions(text).into_iter().any(|r| r["verdict"] == "deny" || !ok(&r))
    }

    /// Panics with everything that is known unless the exit code is `code`.
    #[track_caller]
    pub fn exits(&self, code: i32) -> &Self {
        assert_eq!(self.code, code, "exit code\n{self}");
        self
    }

    /// Panics with everything that is known unless `fact` holds.
    #[track_caller]
    pub fn must(&self, fact: bool, claim: &str) -> &Self {
        assert!(fact, "{claim}\n{self}");
        self
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "ended: {:?} after {:?}\n--- out\n{}\n--- err\n{}", self.status, self.took, self.out, self.err)?;
        writeln!(f, "--- records ({})", self.records.len())?;
        let interesting = |r: &&Value| r["kind"] != "decision" || r["verdict"] == "deny" || r["outcome"] != "ok";
        for record in self.records.iter().filter(interesting).take(60) {
            writeln!(f, "{record}")?;
        }
        Ok(())
    }
}

/// Runs `agentbox run FLAGS -- sh -c LINE` where no user namespace can be made; `None` if even that cannot be had.
pub fn degraded(scene: &Scene, flags: &[&str], line: &str) -> Option<Outcome> {
    let lock = "echo 0 > /proc/sys/user/max_user_namespaces && ! unshare -U true 2>/dev/null && exec \"$@\"";
    let log = scene.root.join("degraded.jsonl");
    let _ = fs::remove_file(&log);
    let binary = agentbox();
    let prefix = ["unshare", "-Ur", "sh", "-c", lock, "sh", text(&binary), "run", "--log", text(&log)];
    let argv = [&prefix[..], flags, &["--", "/bin/sh", "-c", line]].concat();
    let able = scene.free(&["unshare", "-Ur", "sh", "-c", lock, "sh", "true"]);
    (able.code == 0).then(|| run_logged(scene.free_command(&argv), b"", &log))
}

/// Runs to the end with `input` on a pipe as standard input.
#[track_caller]
pub fn run(command: Command, input: &[u8]) -> Outcome {
    run_logged(command, input, Path::new("/nonexistent"))
}

/// As [`run`], and reads the records at `log`.
#[track_caller]
pub fn run_logged(mut command: Command, input: &[u8], log: &Path) -> Outcome {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    finish(start(command), input, log)
}

/// As [`run`], for a run that may take longer than [`PATIENCE`].
#[track_caller]
pub fn run_for(patience: Duration, mut command: Command) -> Outcome {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    finish_within(patience, start(command), b"", Path::new("/nonexistent"))
}

/// Starts a command; the failure names it.
#[track_caller]
pub fn start(mut command: Command) -> Child {
    match command.spawn() {
        Ok(child) => child,
        Err(error) => panic!("cannot start {command:?}: {error}"),
    }
}

/// Feeds, drains and awaits a started command. Its pipes, where it has any, must reach their end with it.
#[track_caller]
pub fn finish(child: Child, input: &[u8], log: &Path) -> Outcome {
    finish_within(PATIENCE, child, input, log)
}

#[track_caller]
fn finish_within(patience: Duration, mut child: Child, input: &[u8], log: &Path) -> Outcome {
    let begun = Instant::now();
    if let Some(mut stdin) = child.stdin.take() {
        let input = input.to_vec();
        // A command that does not read its input breaks the pipe, which is its right.
        std::thread::spawn(move || stdin.write_all(&input));
    }
    let out = drain(child.stdout.take());
    let err = drain(child.stderr.take());
    let status = wait(&mut child, patience);
    let took = begun.elapsed();
    let rest = |pipe: mpsc::Receiver<Vec<u8>>, name| match pipe.recv_timeout(Duration::from_secs(10)) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => panic!("{name} is still open 10 s after the end: something was left running"),
    };
    let (out, err) = (rest(out, "stdout"), rest(err, "stderr"));
    let Some(status) = status else {
        panic!("still running after {patience:?}\n--- out\n{out}\n--- err\n{err}");
    };
    let code = status.code().unwrap_or_else(|| 128 + status.signal().expect("ended by code or signal"));
    Outcome { status, code, out, err, records: records(log), took }
}

fn drain(pipe: Option<impl Read + Send + 'static>) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            pipe.read_to_end(&mut bytes).expect("read a pipe");
        }
        sender.send(bytes)
    });
    receiver
}

/// Waits for the end of a child; one that overruns is killed and `None` returned.
pub fn wait(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    let begun = Instant::now();
    let mut nap = Duration::from_micros(200);
    while begun.elapsed() < patience {
        if let Some(status) = child.try_wait().expect("wait for a child") {
            return Some(status);
        }
        std::thread::sleep(nap);
        nap = (nap * 2).min(Duration::from_millis(20));
    }
    child.kill().expect("kill an overrunning child");
    child.wait().expect("reap an overrunning child");
    None
}

/// The records of a log, each line a JSON object; empty when there is no such file.
#[track_caller]
pub fn records(log: &Path) -> Vec<Value> {
    records_with(log, "")
}

/// The records of a log whose text contains `part`; a log may be larger than what is worth keeping of it.
#[track_caller]
pub fn records_with(log: &Path, part: &str) -> Vec<Value> {
    let Ok(file) = fs::File::open(log) else { return Vec::new() };
    let lines = BufReader::new(file).lines().map(|line| line.expect("read a log"));
    let parse = |line: String| serde_json::from_str(&line).unwrap_or_else(|e| panic!("bad record: {e}: {line}"));
    lines.filter(|line| line.contains(part)).map(parse).collect()
}

/// A service on this machine's loopback: its port, and the bytes of each connection as it ends.
pub fn sink() -> (u16, mpsc::Receiver<Vec<u8>>) {
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

/// Waits until `fact` holds.
#[track_caller]
pub fn await_until(claim: &str, mut fact: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !fact() {
        assert!(begun.elapsed() < Duration::from_secs(20), "waited in vain: {claim}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The host pids of processes that have `word` as one of their arguments.
pub fn processes_with(word: &str) -> Vec<i32> {
    let has = |pid: &i32| {
        let cmdline = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        cmdline.split(|b| *b == 0).any(|arg| arg == word.as_bytes())
    };
    let number = |e: fs::DirEntry| e.file_name().to_str().and_then(|n| n.parse().ok());
    let all = fs::read_dir("/proc").expect("read /proc").flatten().filter_map(number);
    all.filter(has).collect()
}

/// A number of seconds that names one `sleep` among all processes of the host.
pub fn unique_seconds() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("7{:07}.{:05}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Copies an executable without ever holding it open for writing here: a fork on another thread would make it busy.
fn install(from: &Path, to: &Path) {
    let made = Command::new("install").args(["-m", "755", "--"]).arg(from).arg(to).status().expect("run install");
    assert!(made.success(), "install {} {}", from.display(), to.display());
}

/// Whether C programs can be built here.
pub fn compiler() -> Option<PathBuf> {
    program("cc")
}

/// Compiles a C program once per content and user; static unless `flags` say `-pie` or `-shared`.
///
/// `attempt.h` of `tests/escape` can be included.
#[track_caller]
pub fn compiled(name: &str, source: &str, flags: &[&str]) -> PathBuf {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let header = include_str!("../escape/attempt.h");
    let dir = base().join(format!("agentbox-cc-{}", nix::unistd::geteuid()));
    fs::create_dir_all(&dir).expect("make the compiler cache");
    let owner = fs::metadata(&dir).expect("stat the compiler cache").uid();
    assert_eq!(owner, nix::unistd::geteuid().as_raw(), "{} belongs to someone else", dir.display());
    let key = hex(&Sha256::digest([source, header, &flags.join(" ")].join("\0").as_bytes()));
    let done = dir.join(format!("{name}-{}", &key[..16]));
    if done.exists() {
        return done;
    }
    let build = tempfile::tempdir_in(&dir).expect("make a build directory");
    fs::write(build.path().join("attempt.h"), header).expect("write attempt.h");
    fs::write(build.path().join("program.c"), source).expect("write program.c");
    let dynamic = flags.iter().any(|f| ["-pie", "-shared"].contains(f));
    let mut cc = Command::new("cc");
    cc.args(["-O1", "-Wall", "-Werror", "-pthread", "-o", "program", "program.c"]).current_dir(build.path());
    cc.args(flags).args((!dynamic).then_some("-static"));
    let made = cc.output().expect("run cc");
    assert!(made.status.success(), "{name}: {}", String::from_utf8_lossy(&made.stderr));
    fs::rename(build.path().join("program"), &done).expect("keep the program");
    done
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// One line for each entry of a tree: kind, permission bits, and what it holds. Times and owners are left out.
pub fn listing(top: &Path) -> BTreeMap<String, String> {
    let mut lines = BTreeMap::new();
    list(top, top, &mut lines);
    lines
}

fn list(top: &Path, dir: &Path, lines: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(dir).unwrap_or_else(|e| panic!("list {}: {e}", dir.display())) {
        let path = entry.expect("read an entry").path();
        let meta = fs::symlink_metadata(&path).expect("stat an entry");
        let mode = meta.permissions().mode() & 0o7777;
        let kind = meta.file_type();
        let holds = if kind.is_dir() {
            list(top, &path, lines);
            "dir".to_string()
        } else if kind.is_symlink() {
            format!("link to {}", fs::read_link(&path).expect("read a link").display())
        } else if kind.is_file() {
            format!("file {}", &hex(&Sha256::digest(fs::read(&path).expect("read a file")))[..16])
        } else {
            "special".to_string()
        };
        let name = path.strip_prefix(top).expect("entries lie below the top").to_string_lossy().into_owned();
        lines.insert(name, format!("{mode:04o} {holds}"));
    }
}

/// `argv` as owned strings, for commands put together from paths and text.
pub fn argv(parts: &[&dyn AsRef<OsStr>]) -> Vec<OsString> {
    parts.iter().map(|part| part.as_ref().to_os_string()).collect()
}

/// The path as text; scenes have plain names.
pub fn text(path: &Path) -> &str {
    std::str::from_utf8(path.as_os_str().as_bytes()).expect("scene paths are UTF-8")
}

/// A log of these records, which say all but their place in the chain.
pub fn chained(records: impl IntoIterator<Item = Value>) -> String {
    let mut prev = "0".repeat(64);
    let mut log = String::new();
    for (at, mut record) in records.into_iter().enumerate() {
        for (name, value) in [("v", 1.into()), ("seq", (at + 1).into()), ("prev", prev.clone().into())] {
            record[name] = value;
        }
        let line = record.to_string();
        prev = hex(&Sha256::digest(line.as_bytes()));
        log.push_str(&line);
        log.push('\n');
    }
    log
}

/// The records of a run of an agent that says what it does and does something else, of every kind that there may be.
pub fn agent_records() -> Vec<Value> {
    use serde_json::json;
    let run = "20261123-120000-abc123";
    let time = |seconds: f64| format!("2026-11-23T12:00:{seconds:09.6}Z");
    let process = |pid: i32, exe: &str| json!({"pid": pid, "host": 4000 + pid, "exe": exe, "parents": [2, 1]});
    let decision = |seconds: f64, fields: Value| {
        let mut record = json!({
            "kind": "decision", "time": time(seconds), "run": run, "action": "a2", "attribution": "subtree",
            "process": process(9, "/usr/bin/git"), "verdict": "allow", "rule": "agent.yaml filesystem.write[0]",
            "reason": "granted", "layer": "supervisor", "outcome": "ok", "latency_us": 12.3,
        });
        record.as_object_mut().expect("an object").extend(fields.as_object().expect("an object").clone());
        record
    };
    let party = |name: &str, allowed: u32, denied: u32| {
        json!({"kind": "service", "names": [name], "addresses": ["192.0.2.7"], "port": 443, "transport": "tcp",
            "allowed": allowed, "denied": denied, "bytes_out": 48211, "bytes_in": 9000})
    };
    let effects = json!({"files": {"deleted": 60, "bytes_lost": 245_760, "places": {"workspace": 60}}, "programs": 2,
        "secrets": {"ssh-key": 1}});
    let total = json!({"effects": effects.clone()});
    vec![
        json!({"kind": "start", "time": time(0.0), "run": run, "agentbox": "0.1.0", "command": ["agent", "-p", "fix it"],
            "policy": {"name": "agent.yaml", "digest": "ab".repeat(32)}, "coverage": [
                {"layer": "view", "state": "enforced", "what": "own root"},
                {"layer": "landlock", "state": "partial", "why": "old", "fix": "a newer kernel"}]}),
        json!({"kind": "action", "time": time(1.0), "run": run, "action": "a1", "attribution": "subtree",
            "process": process(7, "/usr/bin/bash"), "parent": "session", "command": ["bash", "-c", "cargo test"],
            "claim": {"tool": "Bash", "params": {"command": "cargo test"}, "reason": "which test fails?",
                "plan": "1 2 3"}}),
        json!({"kind": "claim", "time": time(2.0), "run": run, "action": "a1",
            "process": process(7, "/usr/bin/bash"), "claim": {"note": "<script>alert(1)</script>\u{1b}[31m\u{202e}"}}),
        json!({"kind": "action_end", "time": time(3.0), "run": run, "action": "a1",
            "effects": {"files": {"created": 30}}, "denied": 0, "reach": "B1", "reversibility": "R2", "tier": 3,
            "taint": []}),
        json!({"kind": "action", "time": time(4.0), "run": run, "action": "a2", "attribution": "subtree",
            "process": process(9, "/usr/bin/git"), "parent": "a1", "command": ["git", "push", "--force"]}),
        decision(
            4.1,
            json!({"op": "exec", "target": {"program": "/usr/bin/git", "called": "git", "argv": ["git", "push"],
            "argc": 2, "digest": format!("sha256:{}", "cd".repeat(32))}}),
        ),
        decision(
            5.0,
            json!({"op": "unlink", "target": {"path": "/work/old.rs"}, "tier": 6, "reach": "B1",
            "reversibility": "R3", "place": "workspace",
            "taint": ["ssh-key"]}),
        ),
        decision(5.1, json!({"op": "rename", "target": {"path": "/work/a"}, "to": {"path": "/home/me/a"}})),
        decision(5.2, json!({"op": "resolve", "target": {"name": "paste.example.net", "record": "A"}})),
        decision(
            5.3,
            json!({"op": "connect", "target": {"family": "inet", "address": "192.0.2.7:443", "outside": true,
            "names": ["git.example.org"]}}),
        ),
        decision(
            6.0,
            json!({"op": "connect", "target": {"family": "inet", "address": "198.51.100.9:443", "outside": true},
            "verdict": "deny", "rule": "agent.yaml network", "reason": "not_granted", "outcome": "EACCES", "tier": 9}),
        ),
        decision(
            7.0,
            json!({"op": "write", "target": {"path": "/home/me/.bashrc"}, "verdict": "deny", "reason": "protected",
            "rule": "protected.yaml filesystem.protect[0]", "outcome": "EACCES", "message": "run later"}),
        ),
        decision(
            7.1,
            json!({"op": "call", "target": {"name": "mseal", "why": "unknown_call"}, "verdict": "deny",
            "reason": "unjudged", "rule": "agent.yaml calls", "outcome": "ENOSYS"}),
        ),
        json!({"kind": "action_end", "time": time(8.0), "run": run, "action": "a2", "effects": effects, "denied": 3,
            "destinations": [party("git.example.org", 1, 0)],
            "reach": "B3", "reversibility": "R3", "tier": 10, "taint": ["ssh-key"]}),
        json!({"kind": "note", "time": time(8.5), "run": run, "text": "a new repository carries hooks"}),
        json!({"kind": "unheard_of", "time": time(8.6), "run": run, "more": true}),
        json!({"kind": "end", "time": time(9.0), "run": run, "result": {"exit": 3, "signal": null, "timed_out": false},
            "counts": {"write": {"allow": 0, "ask": 0, "deny": 1, "p50_us": 1.0, "p99_us": 2.0},
                "read": {"allow": 1201, "ask": 0, "deny": 0, "p50_us": 1.0, "p99_us": 2.0}},
            "destinations": [party("git.example.org", 1, 0), party("paste.example.net", 0, 1)], "total": total,
            "recorded": 17, "dropped": 0, "write_errors": 0}),
    ]
}
