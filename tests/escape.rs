//! Attempts to leave the box. Each one runs free first and succeeds, which proves that the attempt is a real one; then
//! it runs boxed, fails with a named error, changes nothing outside, and where the supervisor decides, is on record.
//!
//! The attempts are small C programs in `tests/escape`. A control that cannot succeed on this host or for this user is
//! reported as skipped, with the fact that is missing.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use common::{Outcome, Scene, compiler, listing, program, root, run_logged, text, unique_seconds};

const CHANGE: (&str, &str) = ("change", include_str!("escape/change.c"));
const KERNEL: (&str, &str) = ("kernel", include_str!("escape/kernel.c"));
const FOREIGN: (&str, &str) = ("foreign", include_str!("escape/foreign.c"));
const REACH: (&str, &str) = ("reach", include_str!("escape/reach.c"));
const RACE_PATH: (&str, &str) = ("race_path", include_str!("escape/race_path.c"));
const RACE_EXEC: (&str, &str) = ("race_exec", include_str!("escape/race_exec.c"));
const MARK: (&str, &str) = ("mark", include_str!("escape/mark.c"));

/// What a change outside may fail with: the supervisor's answer, or the mount's own.
const WALL: &str = "EACCES EPERM EROFS EXDEV";
/// What reaching something that is not in the view may fail with.
const UNSEEN: &str = "ENOENT EACCES EPERM ENOTDIR";
/// What a call that a box does not have may fail with.
const ABSENT: &str = "EPERM ENOSYS EACCES";
/// What an address family that a box does not have may fail with.
const NO_FAMILY: &str = "EAFNOSUPPORT EPERM EACCES";

/// One attempt. `{work}`, `{home}`, `{outside}` and `{root}` in arguments and flags stand for the scene's directories.
struct Attempt {
    source: (&'static str, &'static str),
    args: Vec<&'static str>,
    flags: Vec<&'static str>,
    /// What the control runs under, for acts that need a privilege which anyone can have in namespaces of their own.
    control: Vec<&'static str>,
    /// The errors it may fail with in the box.
    fails: &'static str,
    /// Operations and a part of the path that a deny record must have.
    record: Option<(&'static str, &'static str)>,
}

/// A change to the file system, with `{outside}` readable so that the wall is met and not just missing.
fn change(args: &[&'static str]) -> Attempt {
    Attempt { flags: vec!["-r", "{outside}"], ..plain(CHANGE, args, WALL) }
}

/// The same without any grant.
fn bare(args: &[&'static str]) -> Attempt {
    plain(CHANGE, args, WALL)
}

/// A system call that a box does not have.
fn kernel(args: &[&'static str]) -> Attempt {
    plain(KERNEL, args, ABSENT)
}

fn plain(source: (&'static str, &'static str), args: &[&'static str], fails: &'static str) -> Attempt {
    Attempt { source, args: args.to_vec(), flags: vec![], control: vec![], fails, record: None }
}

impl Attempt {
    fn fails(mut self, errors: &'static str) -> Self {
        self.fails = errors;
        self
    }
    fn flags(mut self, flags: &[&'static str]) -> Self {
        self.flags.extend(flags);
        self
    }
    fn control(mut self, prefix: &[&'static str]) -> Self {
        self.control = prefix.to_vec();
        self
    }
    fn record(mut self, ops: &'static str, path: &'static str) -> Self {
        self.record = Some((ops, path));
        self
    }
}

/// Every attempt meets the same scene: things outside, a repository, agent settings, a home with start-up files.
fn furnish(scene: &Scene) {
    for (path, content) in [
        ("outside/f", "theirs\n"),
        ("outside/dir/inner", "theirs\n"),
        ("outside/secret", "s3cret\n"),
        ("home/.bashrc", "# theirs\n"),
        ("home/.ssh/id_ed25519", "PRIVATE KEY\n"),
        ("home/work/mine", "mine\n"),
        ("home/work/conf/app", "theirs\n"),
        ("home/work/other/app", "mine\n"),
        ("home/work/.env", "TOKEN=s3cret\n"),
        ("home/work/.mcp.json", "{}\n"),
        ("home/work/.claude/notes", "\n"),
        ("home/work/p.yaml", "version: 1\nextends: [default]\n"),
        ("home/work/repo/.git/HEAD", "ref: refs/heads/main\n"),
        ("home/work/repo/.git/config", "[core]\n\tbare = false\n"),
        ("home/work/repo/.git/hooks/README.sample", "\n"),
        ("home/work/repo/.git/objects/info/none", "\n"),
        ("state/agentbox/kept", "\n"),
        ("home/work/linked/.git", "gitdir: ../repo/.git\n"),
        ("home/work/hookless/.git/HEAD", "ref: refs/heads/main\n"),
        ("home/work/hookless/.git/config", "[core]\n\tbare = false\n"),
    ] {
        scene.file(path, content);
    }
    fs::create_dir(scene.outside.join("empty")).expect("make outside/empty");
}

/// What no attempt may change.
fn precious(scene: &Scene) -> BTreeMap<String, String> {
    let kept = [
        "outside",
        "home/.",
        "home/work/.",
        "home/work/conf",
        "home/work/repo",
        "home/work/hookless",
        "home/work/p.yaml",
    ];
    let mut all = listing(&scene.root);
    all.retain(|path, _| kept.iter().any(|top| path.starts_with(top)));
    all
}

fn fill(scene: &Scene, words: &[&str]) -> Vec<String> {
    let places =
        [("{work}", &scene.work), ("{home}", &scene.home), ("{outside}", &scene.outside), ("{root}", &scene.root)];
    let fill = |word: &&str| places.iter().fold(word.to_string(), |word, (name, path)| word.replace(name, text(path)));
    words.iter().map(fill).collect()
}

fn check(attempt: Attempt) {
    if compiler().is_none() {
        skip!("no C compiler (cc)");
    }
    let (name, source) = attempt.source;

    let scene = Scene::new();
    furnish(&scene);
    scene.c(name, source, &[]);
    let act: Vec<&str> = [&attempt.control[..], &["./attempt"], &attempt.args[..]].concat();
    fs::rename(scene.work.join(name), scene.work.join("attempt")).expect("name the attempt");
    let free = scene.free(&fill(&scene, &act));
    if free.code != 0 {
        let error = free.out.trim();
        let missing = ["EOPNOTSUPP", "ENOSYS", "EAFNOSUPPORT"].contains(&error);
        let kernel_file =
            ["/proc/", "/sys/", "/dev/", "/etc/"].iter().any(|d| attempt.args[1..].concat().starts_with(d));
        let not_for_users = !root() && (error == "EPERM" || (error == "EACCES" && kernel_file));
        if missing || not_for_users || (kernel_file && error == "ENOENT") {
            skip!("free, {} ends in {error} for this user on this host", attempt.args.join(" "));
        }
        if !attempt.control.is_empty() && free.err.contains("unshare failed") {
            skip!("no user namespaces for this user: {}", free.err.trim());
        }
    }
    free.must(free.code == 0, "the control does not succeed");

    let scene = Scene::new();
    furnish(&scene);
    scene.c(name, source, &[]);
    fs::rename(scene.work.join(name), scene.work.join("attempt")).expect("name the attempt");
    let before = precious(&scene);
    let act: Vec<&str> = [&["./attempt"], &attempt.args[..]].concat();
    let flags = fill(&scene, &attempt.flags);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let boxed = guarded(&scene, &flags, &fill(&scene, &act));
    boxed.must(boxed.code != 0, "the attempt succeeded in the box");
    boxed.must(boxed.code == 1, "the attempt did not come to its end");
    boxed.must(attempt.fails.split(' ').any(|e| e == boxed.out.trim()), &format!("expected {}", attempt.fails));
    boxed.must(precious(&scene) == before, "something precious has changed");
    if let Some((ops, path)) = attempt.record {
        let ops: Vec<&str> = ops.split(' ').collect();
        boxed.must(boxed.denied(&ops, path), &format!("expected a record that {ops:?} of …{path} was denied"));
        named_reason(&boxed);
    }
}

/// Runs boxed, as root in a mount namespace of its own: should the box fail to hold a mount call, the host must not
/// suffer from the test.
fn guarded<S: AsRef<std::ffi::OsStr>>(scene: &Scene, flags: &[&str], argv: &[S]) -> Outcome {
    let (command, log) = scene.boxed_command(flags, argv);
    if !root() {
        return run_logged(command, b"", &log);
    }
    let mut guard = scene.free_command(&["unshare", "--mount", "--propagation", "private", "--"]);
    guard.arg(command.get_program()).args(command.get_args());
    run_logged(guard, b"", &log)
}

/// Each denial names its rule and its reason.
fn named_reason(boxed: &Outcome) {
    for record in boxed.records.iter().filter(|r| r["verdict"] == "deny") {
        let said = |key: &str| record[key].as_str().is_some_and(|text| !text.is_empty());
        boxed.must(said("rule") && said("reason"), &format!("a denial without rule or reason: {record}"));
    }
}

macro_rules! attempts {
    ($($name:ident: $attempt:expr;)*) => { $(#[test] fn $name() { check($attempt); })* };
}

// Reading what was not granted.
attempts! {
    read_a_key_in_the_home: bare(&["read", "{home}/.ssh/id_ed25519"]).fails(UNSEEN);
    read_a_file_outside: bare(&["read", "{outside}/secret"]).fails(UNSEEN);
    read_the_password_hashes: bare(&["read", "/etc/shadow"]).fails(UNSEEN);
    read_what_a_pattern_denies: bare(&["read", "{work}/.env"]).fails("EACCES")
        .flags(&["--deny", "**/.env"]).record("read", "work/.env");
    read_the_kernel_log: bare(&["read", "/dev/kmsg"]).fails(UNSEEN);
}

// Changing what was granted for reading only: every call that changes a name or what it holds.
attempts! {
    open_outside: change(&["open", "{outside}/f"]).record("write", "outside/f");
    append_outside: change(&["append", "{outside}/f"]).record("write", "outside/f");
    open_read_write_outside: change(&["rdwr", "{outside}/f"]).record("write", "outside/f");
    read_only_open_that_truncates: change(&["trunc-rdonly", "{outside}/f"]).record("write truncate", "outside/f");
    creat_outside: change(&["creat", "{outside}/new"]).record("write create", "outside/new");
    raw_open_outside: change(&["raw-open", "{outside}/new"]).record("write create", "outside/new");
    create_outside: change(&["create", "{outside}/new"]).record("write create", "outside/new");
    create_excl_outside: change(&["create-excl", "{outside}/new"]).record("write create", "outside/new");
    read_only_open_that_creates: change(&["create-rdonly", "{outside}/new"]).record("write create", "outside/new");
    openat2_outside: change(&["openat2", "{outside}/new"]).record("write create", "outside/new");
    unnamed_file_linked_outside: change(&["tmpfile-link", "{outside}/new"]).record("link create", "outside/new");
    dirfd_outside: change(&["dirfd", "{outside}/dir", "new"]).record("write create", "outside/dir/new");
    procfd_outside: change(&["procfd", "{outside}/dir", "new"]).record("write create", "outside/dir/new");
    cwd_outside: change(&["cwd", "{outside}/dir", "new"]).record("write create", "outside/dir/new");
    dotdot_outside: change(&["create", "{work}/../../outside/new"]).record("write create", "outside/new");
    reopen_outside: change(&["reopen", "{outside}/f"]).record("write", "outside/f");
    truncate_outside: change(&["truncate", "{outside}/f"]).record("truncate", "outside/f");
    rename_from_outside: change(&["rename", "{outside}/f", "{work}/g"]).record("rename", "outside/f");
    rename_to_outside: change(&["rename", "{work}/mine", "{outside}/g"]).record("rename", "outside/g");
    rename_within_outside: change(&["rename", "{outside}/f", "{outside}/g"]).record("rename", "outside/g");
    rename_noreplace_outside: change(&["noreplace", "{outside}/f", "{outside}/g"]).record("rename", "outside/g");
    exchange_with_outside: change(&["exchange", "{work}/mine", "{outside}/f"]).record("exchange", "outside/f");
    link_to_outside: change(&["link", "{work}/mine", "{outside}/g"]).record("link", "outside/g");
    link_from_outside_and_write: change(&["link-write", "{outside}/f", "{work}/g"]).record("link", "outside/f");
    symlink_outside: change(&["symlink", "/etc/passwd", "{outside}/g"]).record("symlink", "outside/g");
    symlink_inside_and_write: change(&["symlink-write", "{outside}/f", "{work}/g"]).record("write", "outside/f");
    mkdir_outside: change(&["mkdir", "{outside}/g"]).record("mkdir", "outside/g");
    fifo_outside: change(&["fifo", "{outside}/g"]).record("mknod", "outside/g");
    mknod_file_outside: change(&["mknod-file", "{outside}/g"]).record("create mknod", "outside/g");
    unlink_outside: change(&["unlink", "{outside}/f"]).record("unlink", "outside/f");
    rmdir_outside: change(&["rmdir", "{outside}/empty"]).record("rmdir", "outside/empty");
    chmod_outside: change(&["chmod", "{outside}/f"]).record("chmod", "outside/f");
    fchmod_outside: change(&["fchmod", "{outside}/f"]);
    fchmodat2_outside: change(&["fchmodat2", "{outside}/f"]);
    chown_outside: change(&["chown", "{outside}/f"]).flags(ALL).record("chown", "outside/f");
    fchown_outside: change(&["fchown", "{outside}/f"]);
    utimensat_outside: change(&["utimensat", "{outside}/f"]).flags(ALL).record("utime", "outside/f");
    chmod_at_native_speed_outside: change(&["chmod-plain", "{outside}/f"]);
    chown_at_native_speed_outside: change(&["chown", "{outside}/f"]);
    utimensat_at_native_speed_outside: change(&["utimensat", "{outside}/f"]);
    mode_of_a_host_device: bare(&["chmod-same", "/dev/null"]);
    times_of_a_host_device: bare(&["utime-same", "/dev/null"]);
    mode_of_a_kernel_file: bare(&["chmod-same", "/proc/version"]);
    futimens_outside: change(&["futimens", "{outside}/f"]);
    setxattr_outside: change(&["setxattr", "{outside}/f"]).record("xattr", "outside/f");
    fsetxattr_outside: change(&["fsetxattr", "{outside}/f"]);
    socket_file_outside: change(&["bind", "{outside}/s"]).record("bind mknod", "outside/s");
    device_node_in_the_workspace: bare(&["mknod-device", "{work}/null"]).fails("EPERM");
    change_a_file_outside_the_view: bare(&["open", "{outside}/f"]).fails(UNSEEN);
    delete_a_file_outside_the_view: bare(&["unlink", "{outside}/f"]).fails(UNSEEN);
}

const ALL: &[&str] = &["--audit-level", "all"];

// A denied pattern in a writable tree: whatever is done to a name it matches, there already or new.
const DENY: &[&str] = &["--deny", "**/.env"];
attempts! {
    denied_by_reading_through_a_link: bare(&["symlink-read", ".env", "x"]).flags(DENY).record("read", "work/.env");
    denied_by_open: bare(&["open", ".env"]).flags(DENY).record("write", "work/.env");
    denied_by_open_read_write: bare(&["rdwr", ".env"]).flags(DENY).record("write", "work/.env");
    denied_by_create: bare(&["create", "repo/.env"]).flags(DENY).record("create", "repo/.env");
    denied_by_mkdir: bare(&["mkdir", "repo/.env"]).flags(DENY).record("mkdir", "repo/.env");
    denied_by_mknod: bare(&["mknod-file", "repo/.env"]).flags(DENY).record("create", "repo/.env");
    denied_by_symlink: bare(&["symlink", "../mine", "repo/.env"]).flags(DENY).record("symlink", "repo/.env");
    denied_by_unnamed_file: bare(&["tmpfile-link", "repo/.env"]).flags(DENY).record("link create", "repo/.env");
    denied_by_truncate: bare(&["truncate", ".env"]).flags(DENY).record("truncate", "work/.env");
    denied_by_unlink: bare(&["unlink", ".env"]).flags(DENY).record("unlink", "work/.env");
    denied_by_rename_over: bare(&["rename", "mine", ".env"]).flags(DENY).record("rename", "work/.env");
    denied_by_rename_away: bare(&["rename", ".env", "x"]).flags(DENY).record("rename", "work/.env");
    denied_by_exchange: bare(&["exchange", "mine", ".env"]).flags(DENY).record("exchange", "work/.env");
    denied_by_link: bare(&["link", ".env", "x"]).flags(DENY).record("link", "work/.env");
    denied_by_chmod: bare(&["chmod-plain", ".env"]).flags(DENY).record("chmod", "work/.env");
    denied_by_utime: bare(&["utimensat", ".env"]).flags(DENY).record("utime", "work/.env");
    denied_by_xattr: bare(&["setxattr", ".env"]).flags(DENY).record("xattr", "work/.env");
}

// A pattern that must not be read: every way to what it holds.
const UNREAD: &[&str] = &["--deny-read", "**/app"];
attempts! {
    unread_by_open: bare(&["read", "conf/app"]).flags(UNREAD).record("read", "conf/app");
    unread_by_open_read_write: bare(&["rdwr", "conf/app"]).flags(UNREAD).record("write", "conf/app");
    unread_by_create_read_write: bare(&["create-rdwr", "repo/app"]).flags(UNREAD).record("create", "repo/app");
    unread_by_link: bare(&["link", "conf/app", "x"]).flags(UNREAD).record("link", "conf/app");
    unread_by_rename: bare(&["rename", "conf/app", "x"]).flags(UNREAD).record("rename", "conf/app");
    unread_by_exchange: bare(&["exchange", "mine", "conf/app"]).flags(UNREAD).record("exchange", "conf/app");
    unread_through_a_link: bare(&["symlink-read", "conf/app", "x"]).flags(UNREAD).record("read", "conf/app");
    unread_by_moving_the_directory: bare(&["rename", "conf", "x"]).flags(&["--deny-read", "conf/app"])
        .record("rename", "work/conf");
    unread_by_path: bare(&["read", "conf/app"]).flags(&["--deny-read", "conf/app"]).record("read", "conf/app");
}

// A path that must not be changed, and a pattern.
const FIXED: &[&str] = &["--deny-write", "conf/app"];
const FIXED_PATTERN: &[&str] = &["--deny-write", "conf/*"];
attempts! {
    fixed_by_append: bare(&["append", "conf/app"]).flags(FIXED).record("write", "conf/app");
    fixed_by_open_read_write: bare(&["rdwr", "conf/app"]).flags(FIXED).record("write", "conf/app");
    fixed_by_truncate: bare(&["truncate", "conf/app"]).flags(FIXED).record("truncate", "conf/app");
    fixed_by_truncating_open: bare(&["trunc-rdonly", "conf/app"]).flags(FIXED).record("write", "conf/app");
    fixed_by_unlink: bare(&["unlink", "conf/app"]).flags(FIXED).record("unlink", "conf/app");
    fixed_by_rename_over: bare(&["rename", "mine", "conf/app"]).flags(FIXED).record("rename", "conf/app");
    fixed_by_rename_away: bare(&["rename", "conf/app", "x"]).flags(FIXED).record("rename", "conf/app");
    fixed_by_exchange: bare(&["exchange", "mine", "conf/app"]).flags(FIXED).record("exchange", "conf/app");
    fixed_by_second_name: bare(&["link-write", "conf/app", "x"]).flags(FIXED).record("link", "conf/app");
    fixed_by_symlink: bare(&["symlink-write", "conf/app", "x"]).flags(FIXED).record("write", "conf/app");
    fixed_by_reopening: bare(&["reopen", "conf/app"]).flags(FIXED).record("write", "conf/app");
    fixed_by_moving_the_directory: bare(&["away-and-back", "conf", "app"]).flags(FIXED).record("rename", "work/conf");
    fixed_by_exchanging_the_directory: bare(&["exchange", "other", "conf"]).flags(FIXED)
        .record("exchange", "work/conf");
    fixed_by_chmod: bare(&["chmod-plain", "conf/app"]).flags(FIXED);
    fixed_by_utime: bare(&["utimensat", "conf/app"]).flags(FIXED);
    fixed_by_xattr: bare(&["setxattr", "conf/app"]).flags(FIXED);
    fixed_pattern_by_create: bare(&["create", "conf/new"]).flags(FIXED_PATTERN).record("create", "conf/new");
    fixed_pattern_by_chmod: bare(&["chmod-plain", "conf/app"]).flags(FIXED_PATTERN).record("chmod", "conf/app");
    fixed_pattern_by_utime: bare(&["utimensat", "conf/app"]).flags(FIXED_PATTERN).record("utime", "conf/app");
}

/// What rules that leave one half open leave open.
#[test]
fn unread_is_written_and_fixed_is_read() {
    let scene = Scene::new();
    furnish(&scene);
    let line = "echo more >>conf/app && ! cat conf/app && chmod 600 conf/app && rm conf/app";
    scene.boxed_sh(&["--deny-read", "**/app"], line).exits(0);
    let boxed = scene.boxed_sh(&["--deny-write", "other/app"], "cat other/app && ! echo more >>other/app");
    boxed.exits(0).must(boxed.out == "mine\n", "it cannot be read");
}

/// A file handed in as a stream lies outside: through its descriptor its mode and times could be set at native speed.
#[test]
fn a_stream_lends_no_mode_and_no_times() {
    if compiler().is_none() {
        skip!("no C compiler (cc)");
    }
    let verbs = ["fchmod-stdin", "futimens-stdin", "chmod-proc-stdin"];
    for (verb, hidden) in verbs.iter().flat_map(|verb| [(*verb, false), (*verb, true)]) {
        let act = if hidden { vec!["./change", "hidden", verb] } else { vec!["./change", verb] };
        let scene = Scene::new();
        furnish(&scene);
        scene.c("change", CHANGE.1, &[]);
        let secret = scene.outside.join("secret");
        let with_stdin = |mut command: Command, log: &std::path::Path| {
            let file = fs::File::open(&secret).expect("open outside/secret");
            command.stdin(file).stdout(Stdio::piped()).stderr(Stdio::piped());
            common::finish(common::start(command), b"", log)
        };
        let metadata = || {
            let found = fs::metadata(&secret).expect("look at outside/secret");
            (found.mode(), found.mtime())
        };
        let before = metadata();
        let (command, log) = scene.boxed_command(&[], &act);
        let boxed = with_stdin(command, &log);
        boxed.exits(1).must(WALL.split(' ').any(|e| e == boxed.out.trim()), "expected a refusal");
        boxed.must(metadata() == before, "the file outside has changed");
        with_stdin(scene.free_command(&act), &log).exits(0);
        boxed.must(metadata() != before, "the control changed nothing");
    }
}

// Who hides its memory and its descriptors is asked all the same.
attempts! {
    hidden_write_outside: change(&["hidden", "open", "{outside}/f"]).record("write", "outside/f");
    hidden_create_outside: change(&["hidden", "create", "{outside}/new"]).record("write create", "outside/new");
    hidden_read: plain(CHANGE, &["hidden", "symlink-read", "{work}/.env", "alias"], "EACCES")
        .flags(&["--deny", "**/.env"]).record("read", "work/.env");
    hidden_removal: bare(&["hidden", "unlink", "conf/app"]).flags(FIXED_PATTERN).record("unlink", "conf/app");
    hidden_rename: bare(&["hidden", "rename", "conf/app", "gone"]).flags(FIXED_PATTERN).record("rename", "conf/app");
    hidden_directory_descriptor: bare(&["hidden", "dirfd", "conf", "new"]).flags(FIXED_PATTERN)
        .record("write create", "conf/new");
    hidden_directory_link: bare(&["hidden", "procfd", "conf", "new"]).flags(FIXED_PATTERN)
        .record("write create", "conf/new");
    hidden_working_directory: bare(&["hidden", "cwd", "conf", "new"]).flags(FIXED_PATTERN)
        .record("write create", "conf/new");
    hidden_reopening: bare(&["hidden", "reopen", "conf/app"]).flags(FIXED_PATTERN).record("write", "conf/app");
    hidden_chmod: bare(&["hidden", "fchmod", "conf/app"]).flags(FIXED_PATTERN).record("chmod", "conf/app");
    hidden_times: bare(&["hidden", "futimens", "conf/app"]).flags(FIXED_PATTERN).record("utime", "conf/app");
    hidden_exec: plain(CHANGE, &["hidden", "exec", "/bin/true"], "EACCES").flags(&["--deny", "**/true"])
        .record("exec", "true");
}

// The protected list: names in a writable tree that run code or hold settings, also those that do not exist yet.
attempts! {
    git_sent_elsewhere: bare(&["create", "repo/.git/commondir"]).record("create", ".git/commondir");
    git_file_pointed_anew: bare(&["open", "linked/.git"]).record("write", "linked/.git");
    git_file_removed: bare(&["unlink", "linked/.git"]).record("unlink", "linked/.git");
    hook_by_open: bare(&["create", "repo/.git/hooks/pre-commit"]).record("write create", ".git/hooks/pre-commit");
    hook_by_open_exclusive: bare(&["create-excl", "repo/.git/hooks/x"]).record("write create", ".git/hooks/x");
    hook_by_open_read_only: bare(&["create-rdonly", "repo/.git/hooks/x"]).record("write create", ".git/hooks/x");
    hook_by_openat2: bare(&["openat2", "repo/.git/hooks/x"]).record("write create", ".git/hooks/x");
    hook_by_mknod: bare(&["mknod-file", "repo/.git/hooks/x"]).record("create mknod", ".git/hooks/x");
    hook_by_unnamed_file: bare(&["tmpfile-link", "repo/.git/hooks/x"]).record("link create", ".git/hooks/x");
    hook_by_rename: bare(&["rename", "mine", "repo/.git/hooks/x"]).record("rename", ".git/hooks/x");
    hook_by_link: bare(&["link", "mine", "repo/.git/hooks/x"]).record("link", ".git/hooks/x");
    hook_by_symlink: bare(&["symlink", "/bin/true", "repo/.git/hooks/x"]).record("symlink", ".git/hooks/x");
    hook_by_dirfd: bare(&["dirfd", "repo/.git/hooks", "x"]).record("write create", ".git/hooks/x");
    hook_by_dirfd_above: bare(&["dirfd", "repo/.git", "hooks/x"]).record("write create", ".git/hooks/x");
    hook_by_procfd: bare(&["procfd", "repo/.git/hooks", "x"]).record("write create", ".git/hooks/x");
    hook_by_cwd: bare(&["cwd", "repo/.git/hooks", "x"]).record("write create", ".git/hooks/x");
    hook_by_symlinked_directory: bare(&["via-symlinked-dir", "repo/.git/hooks", "x"])
        .record("write create", ".git/hooks/x");
    hook_by_moving_git_away_and_back: bare(&["away-and-back", "repo/.git", "hooks/x"]).record("rename", "repo/.git");
    hook_by_moving_hooks_away_and_back: bare(&["away-and-back", "repo/.git/hooks", "x"]).record("rename", ".git/hooks");
    hooks_made_aside_and_moved_in: bare(&["build-and-rename", "hookless/.git/hooks", "x"])
        .record("rename", ".git/hooks");
    git_config_by_append: bare(&["append", "repo/.git/config"]).record("write", ".git/config");
    git_config_by_truncate: bare(&["truncate", "repo/.git/config"]).record("truncate", ".git/config");
    git_config_by_rename: bare(&["rename", "mine", "repo/.git/config"]).record("rename", ".git/config");
    git_config_by_exchange: bare(&["exchange", "mine", "repo/.git/config"]).record("exchange", ".git/config");
    git_config_by_second_name: bare(&["link-write", "repo/.git/config", "alias"]).record("link", ".git/config");
    git_config_by_symlink: bare(&["symlink-write", "repo/.git/config", "alias"]).record("write", ".git/config");
    git_config_by_reopening: bare(&["reopen", "repo/.git/config"]).record("write", ".git/config");
    git_config_removed: bare(&["unlink", "repo/.git/config"]).record("unlink", ".git/config");
    git_config_moved_away: bare(&["rename", "repo/.git/config", "gone"]).record("rename", ".git/config");
    start_up_file_in_the_private_home: bare(&["create", "{home}/.bashrc"]).record("write create", ".bashrc");
    start_up_file_in_a_writable_home: bare(&["append", "{home}/.bashrc"]).flags(&["-w", "{home}"])
        .record("write", ".bashrc");
    start_up_file_by_rename: bare(&["rename", "mine", "{home}/.bashrc"]).flags(&["-w", "{home}"])
        .record("rename", ".bashrc");
    start_up_file_that_is_new: bare(&["create", "{home}/.profile"]).flags(&["-w", "{home}"])
        .record("write create", ".profile");
    agent_settings_that_are_new: bare(&["create", ".claude/settings.json"])
        .record("write create", ".claude/settings.json");
    agent_settings_by_moving_the_directory: bare(&["away-and-back", ".claude", "settings.json"])
        .record("rename", ".claude");
    mcp_servers_that_exist: bare(&["append", ".mcp.json"]).record("write", ".mcp.json");
    mcp_servers_by_rename: bare(&["rename", "mine", ".mcp.json"]).record("rename", ".mcp.json");
    the_policy_itself: bare(&["append", "{work}/p.yaml"]).flags(&["-p", "{work}/p.yaml"])
        .record("write", "work/p.yaml");
    the_policy_itself_by_rename: bare(&["rename", "mine", "{work}/p.yaml"]).flags(&["-p", "{work}/p.yaml"])
        .record("rename", "work/p.yaml");
    agentbox_state: bare(&["create", "{root}/state/agentbox/note"]).flags(&["-w", "{root}"]).fails(UNSEEN_OR_WALL);
}

/// State of agentbox itself may be absent from the view or stand there read-only.
const UNSEEN_OR_WALL: &str = "ENOENT EACCES EPERM EROFS";

// The kernel's own files as root: uid 0 of an identity-mapped namespace is the host's uid 0 for permission bits.
attempts! {
    core_pattern: bare(&["open-only", "/proc/sys/kernel/core_pattern"]).fails("EACCES EPERM EROFS ENOENT");
    overcommit: bare(&["open-only", "/proc/sys/vm/overcommit_memory"]).fails("EACCES EPERM EROFS ENOENT");
    sysfs: bare(&["open-only", "/sys/kernel/mm/ksm/run"]).fails("EACCES EPERM EROFS ENOENT");
    another_process_oom_score: bare(&["open-only", "/proc/1/oom_score_adj"]).fails("EACCES EPERM EROFS ENOENT");
}

const OWN_MOUNTS: &[&str] = &["unshare", "-Urm"];

// Calls that a box does not have.
attempts! {
    mount: kernel(&["mount", "{work}"]).control(OWN_MOUNTS);
    bind_mount: kernel(&["bind-mount", "{work}"]).control(OWN_MOUNTS);
    new_mount_interface: kernel(&["fsopen"]).control(OWN_MOUNTS);
    open_tree: kernel(&["open_tree", "{work}"]).control(OWN_MOUNTS);
    chroot: kernel(&["chroot", "{work}"]).control(OWN_MOUNTS);
    unshare_user: kernel(&["unshare-user"]);
    unshare_user_and_mount: kernel(&["unshare-user-mount"]);
    unshare_mount: kernel(&["unshare-mount"]).control(OWN_MOUNTS);
    clone_new_user: kernel(&["clone-user"]);
    clone_new_network: kernel(&["clone-net"]);
    clone3_is_absent: kernel(&["clone3"]).fails("ENOSYS");
    setns_by_file: kernel(&["setns"]).control(&["unshare", "-Uru"]);
    setns_by_process: kernel(&["setns-pidfd"]).control(&["unshare", "-Uru"]);
    ptrace_a_child: kernel(&["ptrace"]);
    ptrace_traceme: kernel(&["traceme"]);
    write_process_memory: kernel(&["vm_writev"]);
    read_process_memory: kernel(&["vm_readv"]);
    bpf: kernel(&["bpf"]);
    perf_events: kernel(&["perf_event_open"]);
    userfaultfd: kernel(&["userfaultfd"]);
    keyctl: kernel(&["keyctl"]);
    add_key: kernel(&["add_key"]);
    io_uring: kernel(&["io_uring_setup"]);
    open_by_handle: kernel(&["open_by_handle_at", "{work}"]);
    packet_socket: kernel(&["af_packet"]).fails(NO_FAMILY).control(&["unshare", "-Urn"]);
    raw_socket: kernel(&["raw-socket"]).fails(NO_FAMILY).control(&["unshare", "-Urn"]);
    vsock_socket: kernel(&["af_vsock"]).fails(NO_FAMILY);
    crypto_socket: kernel(&["af_alg"]).fails(NO_FAMILY);
}

/// A control that needs a mount of its own first.
fn mount_control(line: &'static str, verb: &'static str, boxed_target: &str) {
    if compiler().is_none() {
        skip!("no C compiler (cc)");
    }
    let scene = Scene::new();
    scene.c("kernel", KERNEL.1, &[]);
    let line = format!("mkdir m && {line} && exec ./kernel {verb} m");
    let free = scene.free(&["unshare", "-Urm", "sh", "-c", &line]);
    if free.err.contains("unshare failed") {
        skip!("no user namespaces for this user: {}", free.err.trim());
    }
    free.exits(0);
    let boxed = guarded(&scene, &[], &["./kernel", verb, boxed_target]);
    boxed.exits(1).must(ABSENT.split(' ').any(|e| e == boxed.out.trim()), "expected a refusal");
}

#[test]
fn umount() {
    mount_control("mount -t tmpfs none m", "umount", "/proc");
}

#[test]
fn remount_writable() {
    mount_control("mount --bind m m && mount -o remount,bind,ro m", "remount-rw", "/usr");
}

#[test]
fn pivot_root() {
    mount_control("mount --bind m m", "pivot", ".");
}

#[test]
fn foreign_entries_kill() {
    if compiler().is_none() {
        skip!("no C compiler (cc)");
    }
    let scene = Scene::new();
    scene.c("foreign", FOREIGN.1, &[]);
    let killed = 128 + nix::libc::SIGSYS;
    // x32 is not built into most kernels: free it is ENOSYS there, which is still another answer than death.
    let free = scene.free(&["./foreign", "x32"]);
    free.must(free.code != killed, "killed without a box");
    scene.boxed(&[], &["./foreign", "x32"]).exits(killed);
    let free = scene.free(&["./foreign", "int80"]);
    if free.code != 0 {
        skip!("no 32-bit system calls (int 0x80) on this host");
    }
    scene.boxed(&[], &["./foreign", "int80"]).exits(killed);
}

#[test]
fn typing_into_the_terminal() {
    let (Some(_), Some(python)) = (compiler(), program("python3")) else { skip!("no cc or no python3") };
    const PTY: &str = include_str!("fixtures/on_pty.py");
    let scene = Scene::new();
    scene.c("kernel", KERNEL.1, &[]);
    let helper = scene.file("on_pty.py", PTY);
    let on_pty = |argv: &[&str]| scene.free(&[&[text(&python), text(&helper)], argv].concat());
    let free = on_pty(&["./kernel", "tiocsti"]);
    let control = free.code == 0;
    let binary = common::agentbox();
    for call in ["tiocsti", "tiocsti-high"] {
        let boxed = on_pty(&[text(&binary), "run", "-q", "--", "./kernel", call]);
        boxed.must(boxed.code == 1, "TIOCSTI must be refused");
        // EIO is the host's own refusal (dev.tty.legacy_tiocsti=0): the box must answer before it.
        boxed.must(["EPERM", "EACCES"].iter().any(|e| boxed.out.contains(e)), "expected EPERM");
    }
    if !control {
        skip!("dev.tty.legacy_tiocsti is off for this user: no control");
    }
}

/// Runs `reach` boxed beside a bystander in the same process group, and says whether the bystander survived.
fn bystander(how: &[&str], boxed: bool) -> (bool, Outcome) {
    let scene = Scene::new();
    scene.c("reach", REACH.1, &[]);
    let unique = unique_seconds();
    // The shell gives its children the default action back, and itself survives the signal by the empty trap.
    let mut bystander = Command::new("sleep");
    bystander.arg(&unique).process_group(0).stdin(Stdio::null()).stdout(Stdio::null());
    let mut bystander = common::start(bystander);
    let pid = bystander.id().to_string();
    let argv: Vec<String> = ["./reach"].iter().chain(how).map(|word| word.replace("{pid}", &pid)).collect();
    let (mut command, log) = scene.boxed_command(&[], &argv);
    if !boxed {
        command = scene.free_command(&argv);
    }
    command.process_group(pid.parse().expect("a pid"));
    let outcome = run_logged(command, b"", &log);
    std::thread::sleep(Duration::from_millis(50));
    let alive = bystander.try_wait().expect("look at the bystander").is_none();
    if alive {
        bystander.kill().expect("end the bystander");
    }
    bystander.wait().expect("reap the bystander");
    (alive, outcome)
}

#[test]
fn signals_do_not_leave_the_box() {
    if compiler().is_none() {
        skip!("no C compiler (cc)");
    }
    for how in [&["group"][..], &["kill", "{pid}"], &["tgkill", "{pid}"], &["sigqueue", "{pid}"]] {
        let (alive, free) = bystander(how, false);
        free.must(!alive && free.code == 0, "the control does not reach the bystander");
        let (alive, boxed) = bystander(how, true);
        boxed.must(alive, "a signal left the box");
        let expected = if how[0] == "group" { boxed.code == 0 } else { boxed.code == 1 };
        boxed.must(expected, "an unexpected end of the attempt");
    }
}

#[test]
fn processes_outside_do_not_exist() {
    if compiler().is_none() {
        skip!("no C compiler (cc)");
    }
    for how in [&["exists", "{pid}"][..], &["pidfd", "{pid}"], &["environ", "{pid}"], &["fds", "{pid}"], &["everyone"]]
    {
        let (_, free) = bystander(how, false);
        free.exits(0);
        let (_, boxed) = bystander(how, true);
        boxed.exits(1).must(["ESRCH", "ENOENT", "EPERM"].contains(&boxed.out.trim()), "expected ESRCH or ENOENT");
    }
}

#[test]
fn init_tells_nothing() {
    if compiler().is_none() {
        skip!("no C compiler (cc)");
    }
    let scene = Scene::new();
    scene.c("reach", REACH.1, &[]);
    for what in ["environ", "fds", "root"] {
        // The control looks at the test itself: not even root may look at pid 1 on every host.
        scene.free(&["./reach", what, &std::process::id().to_string()]).exits(0);
        let boxed = scene.boxed(&[], &["./reach", what, "1"]);
        boxed.exits(1).must(["EACCES", "EPERM", "ENOENT"].contains(&boxed.out.trim()), "init of the box is readable");
    }
}

#[test]
fn set_user_id_programs_gain_nothing() {
    if compiler().is_none() {
        skip!("no C compiler (cc)");
    }
    if !root() {
        skip!("only root can make a set-user-ID program of another user");
    }
    let scene = Scene::new();
    let path = scene.c("reach", REACH.1, &[]);
    std::os::unix::fs::chown(&path, Some(65534), Some(65534)).expect("chown");
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o6755)).expect("set-user-ID");
    let free = scene.free(&["./reach", "euid"]);
    if free.out.trim() == "0" {
        skip!("the test directory is mounted nosuid");
    }
    free.must(free.out.trim() == "65534", "the control does not change user");
    let boxed = scene.boxed(&[], &["./reach", "euid"]);
    boxed.exits(0).must(boxed.out.trim() == "0", "the set-user-ID bit took effect");
}

#[test]
fn the_box_holds_no_capability_and_no_way_to_get_one() {
    let scene = Scene::new();
    let boxed = scene.boxed_sh(&[], "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status");
    boxed.exits(0);
    let value = |key: &str| {
        let line = boxed.out.lines().find(|l| l.starts_with(key)).unwrap_or_else(|| panic!("no {key} in {boxed}"));
        line.split_whitespace().nth(1).expect("a value").to_string()
    };
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(u64::from_str_radix(&value(set), 16), Ok(0), "{set}\n{boxed}");
    }
    assert_eq!(value("NoNewPrivs"), "1", "{boxed}");
    assert_eq!(value("Seccomp:"), "2", "{boxed}");
}

/// Counts the connections that arrive at a listener of the host.
fn host_listener() -> (u16, Arc<AtomicU32>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("listen on loopback");
    let port = listener.local_addr().expect("an address").port();
    let arrived = Arc::new(AtomicU32::new(0));
    let count = arrived.clone();
    std::thread::spawn(move || {
        for _ in listener.incoming().flatten() {
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    (port, arrived)
}

#[test]
fn the_loopback_of_the_host_is_another_one() {
    if compiler().is_none() {
        skip!("no C compiler (cc)");
    }
    let scene = Scene::new();
    scene.c("reach", REACH.1, &[]);
    let (port, arrived) = host_listener();
    let port = port.to_string();
    scene.free(&["./reach", "tcp", "127.0.0.1", &port]).exits(0);
    common::await_until("the control arrives", || arrived.load(Ordering::SeqCst) == 1);
    for address in ["127.0.0.1", "127.1.2.3", "0.0.0.0"] {
        let boxed = scene.boxed(&[], &["./reach", "tcp", address, &port]);
        boxed.exits(1).must(["ECONNREFUSED", "EACCES"].contains(&boxed.out.trim()), "expected a refused connection");
        boxed.must(boxed.failed_on_record(&port), "no record of the attempt");
    }
    for address in ["::1", "::ffff:127.0.0.1", "::"] {
        let boxed = scene.boxed(&[], &["./reach", "tcp6", address, &port]);
        let errors = ["ECONNREFUSED", "EACCES", "EADDRNOTAVAIL", "EAFNOSUPPORT", "ENETUNREACH"];
        boxed.exits(1).must(errors.contains(&boxed.out.trim()), "expected a refused connection");
    }
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(arrived.load(Ordering::SeqCst), 1, "a connection left the box");
    scene.free(&["./reach", "own-loopback"]).exits(0);
    scene.boxed(&[], &["./reach", "own-loopback"]).exits(0);
}

#[test]
fn datagrams_do_not_leave_the_box() {
    if compiler().is_none() {
        skip!("no C compiler (cc)");
    }
    let scene = Scene::new();
    scene.c("reach", REACH.1, &[]);
    let receiver = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a receiver on loopback");
    receiver.set_read_timeout(Some(Duration::from_millis(300))).expect("a timeout");
    let port = receiver.local_addr().expect("an address").port().to_string();
    let mut buffer = [0; 16];
    for how in ["sendto", "sendmsg", "sendmmsg"] {
        scene.free(&["./reach", how, "127.0.0.1", &port]).exits(0);
        receiver.recv(&mut buffer).expect("the control arrives");
        if how == "sendmmsg" {
            receiver.recv(&mut buffer).expect("both arrive");
        }
        let boxed = scene.boxed(&[], &["./reach", how, "127.0.0.1", &port]);
        // A datagram to the box's own loopback may be sent into nothing; either way the attempt comes to its end.
        boxed.must(["done", "ECONNREFUSED", "EACCES", "EPERM"].contains(&boxed.out.trim()), "an unexpected end");
        assert!(receiver.recv(&mut buffer).is_err(), "a datagram left the box by {how}");
    }
}

#[test]
fn addresses_beyond_loopback_are_refused_on_record() {
    let (Some(_), Some(_)) = (compiler(), program("ip")) else { skip!("no cc or no ip(8)") };
    let scene = Scene::new();
    scene.c("reach", REACH.1, &[]);
    // A network of our own in which the address answers, so that the control is real and nothing leaves the machine.
    let own_network = "ip link set lo up && ip addr add 192.0.2.1/32 dev lo && exec \"$@\"";
    let listen = "import socket,subprocess,sys\n\
                  s = socket.create_server(('192.0.2.1', 4443))\n\
                  sys.exit(subprocess.call(sys.argv[1:]))\n";
    let Some(python) = program("python3") else { skip!("no python3") };
    let prefix = ["unshare", "-Urn", "sh", "-c", own_network, "sh", text(&python), "-c", listen];
    let act = ["./reach", "tcp", "192.0.2.1", "4443"];
    let free = scene.free(&[&prefix[..], &act].concat());
    if free.err.contains("unshare failed") {
        skip!("no user namespaces for this user: {}", free.err.trim());
    }
    free.exits(0);
    let log = scene.root.join("beyond.jsonl");
    let binary = common::agentbox();
    let run = [text(&binary), "run", "--log", text(&log), "--"];
    let mut command = scene.free_command(&[&prefix[..], &run, &act].concat());
    command.stdin(Stdio::null());
    let boxed = run_logged(command, b"", &log);
    boxed.exits(1).must(boxed.denied(&["connect"], "192.0.2.1"), "expected a record of the refused connection");
    named_reason(&boxed);
}

#[test]
fn abstract_sockets_of_the_host_are_out_of_reach() {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener};
    if compiler().is_none() {
        skip!("no C compiler (cc)");
    }
    let scene = Scene::new();
    scene.c("reach", REACH.1, &[]);
    let name = format!("agentbox-test-{}", unique_seconds());
    let address = SocketAddr::from_abstract_name(&name).expect("an abstract name");
    let listener = UnixListener::bind_addr(&address).expect("an abstract listener");
    scene.free(&["./reach", "abstract", &name]).exits(0);
    listener.accept().expect("the control arrives");
    listener.set_nonblocking(true).expect("nonblocking");
    for flags in [&[][..], &["--net", "host"]] {
        let boxed = scene.boxed(flags, &["./reach", "abstract", &name]);
        let errors = ["ECONNREFUSED", "EPERM", "EACCES"];
        boxed.exits(1).must(errors.contains(&boxed.out.trim()), "expected a refused connection");
        assert!(listener.accept().is_err(), "a connection left the box with {flags:?}");
    }
}

#[test]
fn socket_files_of_the_host_are_out_of_reach() {
    use std::os::unix::net::UnixListener;
    if compiler().is_none() {
        skip!("no C compiler (cc)");
    }
    let scene = Scene::new();
    scene.c("reach", REACH.1, &[]);
    let path = scene.outside.join("daemon.sock");
    let listener = UnixListener::bind(&path).expect("a socket file");
    scene.free(&["./reach", "unix", text(&path)]).exits(0);
    listener.accept().expect("the control arrives");
    listener.set_nonblocking(true).expect("nonblocking");
    // Readable is not connectable: a read-only bind does not stop a connect.
    for flags in [&[][..], &["-r", text(&scene.outside)]] {
        let boxed = scene.boxed(flags, &["./reach", "unix", text(&path)]);
        boxed.must(boxed.code == 1, "the attempt succeeded in the box");
        assert!(listener.accept().is_err(), "a connection left the box with {flags:?}");
        if !flags.is_empty() {
            boxed.must(boxed.denied(&["connect"], "daemon.sock"), "expected a record of the refused connection");
        }
    }
}

#[test]
fn a_denied_pattern_follows_the_file() {
    let ways = ["cat .env", "mv .env e && cat e", "ln .env e && cat e", "ln -s .env e && cat e", "cat ./repo/../.env"];
    for way in ways {
        let scene = Scene::new();
        furnish(&scene);
        let free = scene.free_sh(way);
        free.exits(0).must(free.out.contains("s3cret"), "the control does not read it");
        let scene = Scene::new();
        furnish(&scene);
        let boxed = scene.boxed_sh(&["--deny", "**/.env"], way);
        boxed.must(!boxed.out.contains("s3cret") && boxed.code != 0, way);
        boxed.must(boxed.denied(&[], "work/.env"), "expected a record that .env was denied");
    }
}

#[test]
fn a_denied_link_and_the_file_it_leads_to_are_both_hidden() {
    let scene = Scene::new();
    for (secret, name) in [("outside/file", "file"), ("outside/tree/file", "tree")] {
        scene.file(secret, "treasure");
        std::os::unix::fs::symlink(scene.outside.join(name), scene.work.join(name)).expect("a link");
    }
    let line = "cat file ../../outside/file tree/file ../../outside/tree/file";
    let free = scene.free_sh(line);
    assert_eq!(free.exits(0).out.matches("treasure").count(), 4, "without a box");
    let flags = ["-r", text(&scene.outside), "--deny", "file", "--deny", "tree"];
    let boxed = scene.boxed_sh(&flags, &format!("echo begun; {line}"));
    boxed.must(boxed.out.starts_with("begun") && !boxed.out.contains("treasure"), "by neither name");
}

#[test]
fn links_left_behind_are_not_followed_out() {
    let scene = Scene::new();
    furnish(&scene);
    let link = format!("ln -s {} lane", text(&scene.outside));
    scene.boxed_sh(&[], &link).exits(0);
    let write = "echo owned > lane/f";
    let before = precious(&scene);
    let boxed = scene.boxed_sh(&[], write);
    boxed.must(boxed.code != 0, "the next run wrote through the link");
    assert_eq!(precious(&scene), before, "{boxed}");
    scene.free_sh(write).exits(0);
    assert_ne!(precious(&scene), before, "the control does not write");
}

#[test]
fn a_directory_as_standard_input_is_refused() {
    let scene = Scene::new();
    furnish(&scene);
    let look = ["/bin/sh", "-c", "cat /proc/self/fd/0/secret"];
    let mut command = scene.free_command(&look);
    command.stdin(fs::File::open(&scene.outside).expect("open a directory"));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let free = common::finish(common::start(command), b"", "/nonexistent".as_ref());
    free.must(free.out.contains("s3cret"), "the control does not read through the descriptor");
    let (mut command, log) = scene.boxed_command(&[], &look);
    command.stdin(fs::File::open(&scene.outside).expect("open a directory"));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let boxed = common::finish(common::start(command), b"", &log);
    boxed.exits(125).must(boxed.err.contains("director"), "the message must say what is wrong");
}

#[test]
fn a_file_as_standard_input_is_not_writable_and_not_reopened_with_more_rights() {
    let scene = Scene::new();
    let input = scene.file("outside/input", "line\n");
    let act = ["/bin/sh", "-c", "echo owned >> /proc/self/fd/0; exec 3<>/dev/stdin && echo owned >&3"];
    let came = ["/bin/sh", "-c", "cat"];
    let from_file = |mut command: Command| {
        command.stdin(fs::File::open(&input).expect("open the input"));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        common::finish(common::start(command), b"", "/nonexistent".as_ref())
    };
    from_file(scene.free_command(&act));
    assert_ne!(fs::read_to_string(&input).expect("read"), "line\n", "the control does not write");
    fs::write(&input, "line\n").expect("reset");
    let boxed = from_file(scene.boxed_command(&[], &act).0);
    assert_eq!(fs::read_to_string(&input).expect("read"), "line\n", "{boxed}");
    let boxed = from_file(scene.boxed_command(&[], &came).0);
    boxed.exits(0).must(boxed.out == "line\n", "the input itself comes through");
}

#[test]
fn earlier_content_of_standard_output_is_unreadable() {
    let scene = Scene::new();
    let output = scene.file("outside/output", "s3cret\n");
    let act = ["/bin/sh", "-c", "exec 3>&1; timeout 1 cat /proc/self/fd/3 >&2; echo mine"];
    let to_file = |mut command: Command| {
        let file = fs::OpenOptions::new().append(true).open(&output).expect("open the output");
        command.stdin(Stdio::null()).stdout(file).stderr(Stdio::piped());
        common::finish(common::start(command), b"", "/nonexistent".as_ref())
    };
    let free = to_file(scene.free_command(&act));
    free.must(free.err.contains("s3cret"), "the control does not read it");
    let boxed = to_file(scene.boxed_command(&[], &act).0);
    boxed.must(!boxed.err.contains("s3cret"), "the box read what was there before it");
    let written = fs::read_to_string(&output).expect("read the output");
    boxed.must(written == "s3cret\nmine\nmine\n", "what the command writes is appended once");
}

#[test]
fn a_flipping_path_never_makes_a_protected_file() {
    race_path("flip");
}

#[test]
fn a_turning_directory_never_makes_a_protected_file() {
    race_path("swap");
}

/// Lays a race out twice: free it must be won, boxed never.
fn race_path(how: &str) {
    if compiler().is_none() {
        skip!("no C compiler (cc)");
    }
    let race = |boxed: bool| {
        let scene = Scene::new();
        furnish(&scene);
        scene.c("race_path", RACE_PATH.1, &[]);
        let won = "repo/.git/hooks/x";
        let (first, second) = if how == "flip" {
            // Both lie below the repository's directory and differ in one byte.
            fs::create_dir_all(scene.work.join("repo/Agit/hooks")).expect("make the harmless twin");
            ("Agit/hooks/x", ".git/hooks/x")
        } else {
            fs::create_dir(scene.work.join("repo/lane")).expect("make the harmless directory");
            std::os::unix::fs::symlink(".git/hooks", scene.work.join("repo/turn")).expect("make the link");
            ("lane", "turn")
        };
        let script = format!("cd repo && exec ../race_path {how} 20000 {first} {second}");
        let outcome = if boxed { scene.boxed_sh(&[], &script) } else { scene.free_sh(&script) };
        (scene.work.join(won).exists(), outcome)
    };
    let (won, free) = race(false);
    free.must(won, "the control does not win the race");
    let (won, boxed) = race(true);
    boxed.must(!won, "the race was won in the box");
    boxed.exits(0).must(boxed.denied(&[], ".git/hooks/x"), "no attempt was denied on record: the race was not run");
}

const NO_FORBIDDEN: &str = "version: 1\nextends: [default]\nexec:\n  deny: [forbidden]\n";

/// Free, the denied program runs at least once; boxed, never.
fn race_exec(how: &str, first: &str, second: &str) {
    if compiler().is_none() {
        skip!("no C compiler (cc)");
    }
    let race = |boxed: bool| {
        let scene = Scene::new();
        scene.file("policy.yaml", NO_FORBIDDEN);
        scene.c("race_exec", RACE_EXEC.1, &[]);
        scene.c("forbidden", MARK.1, &[]);
        // The allowed twin does nothing; its name differs from the other in one byte.
        scene.c("Forbidden", "int main(void) { return 0; }", &[]);
        let policy = scene.root.join("policy.yaml");
        let argv = ["./race_exec", how, "3000", first, second];
        let outcome = if boxed { scene.boxed(&["-p", text(&policy)], &argv) } else { scene.free(&argv) };
        (scene.work.join("marks").exists(), outcome)
    };
    let (ran, free) = race(false);
    free.must(ran, "the control never ran the other program");
    let (ran, boxed) = race(true);
    boxed.must(!ran, "a denied program ran");
    boxed.exits(0).must(boxed.denied(&["exec"], "forbidden"), "no attempt was denied on record: the race was not run");
}

#[test]
fn a_flipping_program_path_never_runs_a_denied_program() {
    race_exec("flip", "Forbidden", "forbidden");
}

#[test]
fn a_turning_link_never_runs_a_denied_program() {
    race_exec("link", "./Forbidden", "./forbidden");
}

#[test]
fn what_ran_is_what_was_recorded() {
    if compiler().is_none() {
        skip!("no C compiler (cc)");
    }
    let scene = Scene::new();
    scene.c("race_exec", RACE_EXEC.1, &[]);
    scene.c("mark", MARK.1, &[]);
    let argv = ["./race_exec", "argv", "1500", "./mark", "-"];
    let counts = |scene: &Scene| {
        let marks = fs::read_to_string(scene.work.join("marks")).unwrap_or_default();
        ["A", "B"].map(|arg| marks.lines().filter(|line| *line == arg).count())
    };
    scene.free(&argv).exits(0);
    let [a, b] = counts(&scene);
    assert!(a > 0 && b > 0, "the control does not race: {a} and {b}");
    fs::remove_file(scene.work.join("marks")).expect("clear the marks");
    let boxed = scene.boxed(&[], &argv);
    boxed.exits(0);
    for (arg, ran) in ["A", "B"].into_iter().zip(counts(&scene)) {
        let says = format!("[\"noted\",\"{arg}\"]");
        let recorded = boxed.decisions(&says).into_iter().filter(|r| r["op"] == "exec" && r["outcome"] == "ok").count();
        boxed.must(ran <= recorded, &format!("{ran} runs with {arg}, but only {recorded} on record"));
    }
}

#[test]
fn a_script_does_not_smuggle_in_a_denied_interpreter() {
    if compiler().is_none() {
        skip!("no C compiler (cc)");
    }
    let scene = Scene::new();
    let policy = scene.file("policy.yaml", NO_FORBIDDEN);
    let interpreter = scene.c("forbidden", MARK.1, &[]);
    scene.script("home/work/innocent", format!("#!{}\n", text(&interpreter)));
    let marks = scene.work.join("marks");
    for act in ["./innocent", "env ./innocent", "./forbidden", "timeout 5 ./forbidden", "ln -s forbidden f && ./f"] {
        let _ = fs::remove_file(scene.work.join("f"));
        scene.free_sh(act).exits(0);
        assert!(marks.exists(), "the control of `{act}` leaves no mark");
        fs::remove_file(&marks).expect("clear the mark");
        let _ = fs::remove_file(scene.work.join("f"));
        let boxed = scene.boxed_sh(&["-p", text(&policy)], act);
        boxed.must(!marks.exists(), &format!("`{act}` ran a denied program"));
        boxed.must(boxed.denied(&["exec"], "forbidden"), &format!("no record for `{act}`"));
    }
}

#[test]
fn descriptors_above_two_do_not_leak_in() {
    let scene = Scene::new();
    furnish(&scene);
    let binary = common::agentbox();
    // The shell opens a directory and a file of the host on 3 and 9 and starts the command with them.
    let open = |command: &str| format!("exec 3<{0}/secret 9<{0}; {command}", text(&scene.outside));
    let free = scene.free_sh(&open("cat /proc/self/fd/9/secret <&3"));
    free.exits(0).must(free.out.contains("s3cret"), "the control does not use the descriptor");
    let list = "ls /proc/self/fd; cat <&3; cat /proc/self/fd/9/secret";
    let boxed = scene.free_sh(&open(&format!("exec {} run -q -- /bin/sh -c '{list}'", text(&binary))));
    boxed.must(boxed.out.lines().any(|fd| fd == "2"), "the list of descriptors is there");
    boxed.must(!boxed.out.contains("s3cret"), "a descriptor leaked into the box");
    // `ls` itself holds the directory it lists, and a shell may hold its own script: both are below ten and not ours.
    boxed.must(!boxed.out.lines().any(|fd| fd == "9"), "descriptor 9 leaked into the box");
}

#[test]
fn a_box_outlives_no_signal_that_clears_its_death_signal() {
    if compiler().is_none() {
        skip!("no C compiler (cc)");
    }
    // Clears PDEATHSIG, leaves its session and parent, and waits: only the end of the process namespace ends it.
    let source = "#include \"attempt.h\"\n#include <sys/prctl.h>\nint main(int argc, char **argv) {\n\
        if (argc < 2) return 99;\n\
        prctl(PR_SET_PDEATHSIG, 0); if (fork()) { sleep(1); return 0; }\n\
        setsid(); if (fork()) _exit(0);\n\
        for (int s = 1; s < 65; s++) signal(s, SIG_IGN);\n\
        close(0); close(1); close(2); for (;;) pause(); }\n";
    let scene = Scene::new();
    scene.c("clinging", source, &[]);
    let unique = unique_seconds();
    scene.free(&["./clinging", &unique]).exits(0);
    let left = common::processes_with(&unique);
    assert_eq!(left.len(), 1, "the control leaves no process behind");
    for pid in left {
        let pid = nix::unistd::Pid::from_raw(pid);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("end the control");
    }
    let unique = unique_seconds();
    scene.boxed(&[], &["./clinging", &unique]).exits(0);
    assert_eq!(common::processes_with(&unique), [0; 0], "a process outlived the run");

    let unique = unique_seconds();
    let (mut command, _) = scene.boxed_command(&[], &["./clinging", &unique]);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let mut agentbox = common::start(command);
    common::await_until("the box has its processes", || common::processes_with(&unique).len() >= 2);
    agentbox.kill().expect("SIGKILL to agentbox");
    agentbox.wait().expect("reap agentbox");
    common::await_until("no process is left", || common::processes_with(&unique).is_empty());
}

/// Processes at awkward moments.
const PROCESS: (&str, &str) = ("process", include_str!("escape/process.c"));

#[test]
fn a_process_killed_in_its_exec_is_seen_to_end() {
    if compiler().is_none() {
        skip!("no C compiler (cc)");
    }
    let scene = Scene::new();
    scene.c(PROCESS.0, PROCESS.1, &["-pthread"]);
    scene.free(&["./process", "killed", "400"]).exits(0);
    scene.boxed(&["-t", "60s"], &["./process", "killed", "400"]).exits(0);
}

#[test]
fn a_process_without_its_first_thread_is_answered() {
    if compiler().is_none() {
        skip!("no C compiler (cc)");
    }
    let scene = Scene::new();
    scene.c(PROCESS.0, PROCESS.1, &["-pthread"]);
    scene.free(&["./process", "leader"]).exits(0);
    scene.boxed(&["-t", "20s"], &["./process", "leader"]).exits(0);
}

#[test]
fn unix_datagrams_reach_no_socket_of_the_host() {
    if program("python3").is_none() {
        skip!("no python3");
    }
    let scene = Scene::new();
    let send = "import socket; s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.sendto(b'out', 'host.sock')";
    let host = std::os::unix::net::UnixDatagram::bind(scene.work.join("host.sock")).expect("bind on the host");
    host.set_nonblocking(true).expect("set nonblocking");
    let mut bytes = [0u8; 8];
    scene.free(&["python3", "-c", send]).exits(0);
    assert_eq!(host.recv(&mut bytes).expect("the control arrives"), 3);
    let boxed = scene.boxed(&[], &["python3", "-c", send]);
    boxed.must(boxed.code != 0, "the datagram was sent");
    assert!(host.recv(&mut bytes).is_err(), "the datagram arrived");
}

/// One of a pair sends to any name, too, where it is one for datagrams.
#[test]
fn a_pair_of_unix_datagram_sockets_carries_messages_between_its_ends_alone() {
    if program("python3").is_none() {
        skip!("no python3");
    }
    let scene = Scene::new();
    const PAIR: &str = r#"
import array, os, resource, socket, struct
def attempt(what, act):
    try: print(what, act())
    except OSError as e: print(what, e.strerror)
a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
for text in [b'one', b'', b'three']: a.send(text)
print([b.recv(9) for _ in range(3)])
b.sendall(b'x' * 5000)
print(len(a.recv(10)), a.send(b'next'), b.recv(99))
r, w = os.pipe()
a.sendmsg([b'file'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [w]))])
text, control, _, _ = b.recvmsg(99, 99)
os.write(array.array('i', control[0][2])[0], b'through')
print(text, os.read(r, 9))
b.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
a.send(b'me')
told = struct.unpack('3i', b.recvmsg(99, 99)[1][0][2])
print(told == (os.getpid(), os.getuid(), os.getgid()), os.get_inheritable(a.fileno()), a.getblocking())
if os.fork() == 0:
    b.send(b'from the child')
    os._exit(0)
print(a.recv(99), os.wait()[1])
c, d = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
attempt('empty', lambda: c.recv(1))
attempt('protocol', lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM, 7))
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
full = []
try:
    while True: full.append(os.dup(0))
except OSError: os.close(full.pop())
before = os.listdir('/proc/self/fd')
attempt('full', lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM))
print(os.listdir('/proc/self/fd') == before)
"#;
    let (free, boxed) = (scene.free(&["python3", "-c", PAIR]), scene.boxed(&[], &["python3", "-c", PAIR]));
    free.exits(0).must(free.out.lines().count() == 9, "the control speaks");
    boxed.exits(0).must(boxed.out == free.out, &format!("as without a box:\n{}", free.out));

    const OUT: &str = r#"
import os, socket
def attempt(act):
    try: act()
    except OSError as e: print(e.strerror)
kind = lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0]
attempt(lambda: kind().sendto(b'to', 'host.sock'))
attempt(lambda: kind().sendmsg([b'message'], [], 0, 'host.sock'))
end = kind()
attempt(lambda: end.connect('host.sock'))
attempt(lambda: end.sendto(b'connected', 'host.sock'))
attempt(lambda: kind().bind('\0agentbox-pair-%d' % os.getuid()))
"#;
    let host = std::os::unix::net::UnixDatagram::bind(scene.work.join("host.sock")).expect("bind on the host");
    host.set_nonblocking(true).expect("set nonblocking");
    let mut bytes = [0u8; 16];
    let free = scene.free(&["python3", "-c", OUT]);
    free.exits(0).must(free.out.is_empty(), "the control does all of it");
    for sent in ["to", "message", "connected"] {
        let length = host.recv(&mut bytes).expect("the control arrives");
        assert_eq!(&bytes[..length], sent.as_bytes());
    }
    for flags in [&[][..], &["--net", "rules"], &["--net", "host"], &["--net-allow", "udp://192.0.2.1:9"]] {
        let boxed = scene.boxed(flags, &["python3", "-c", OUT]);
        boxed.exits(0).must(boxed.out.contains("Invalid argument"), "it takes no name of the host's");
        boxed.must(host.recv(&mut bytes).is_err(), "nothing arrives");
    }
}

#[test]
fn nothing_is_left_behind_that_lends_rights_outside() {
    let scene = Scene::new();
    for act in ["cp /bin/true f; chmod u+s f", "cp /bin/true f; chmod 2755 f"] {
        scene.free_sh(act).exits(0);
        fs::remove_file(scene.work.join("f")).expect("remove the control's file");
        let boxed = scene.boxed_sh(&[], act);
        boxed.must(boxed.code != 0, "the bit was set");
        let mode = fs::metadata(scene.work.join("f")).expect("the copy").permissions();
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o6000, 0);
        fs::remove_file(scene.work.join("f")).expect("remove the copy");
    }
    scene.boxed_sh(&[], "mkdir d && chmod g+s d").exits(0);
}

#[test]
fn the_report_and_the_log_are_not_the_command_s_to_place_or_change() {
    let scene = Scene::new();
    let victim = scene.file("home/victim", "precious\n");
    let report = scene.work.join("report.json");
    std::os::unix::fs::symlink(&victim, &report).expect("plant a link");
    let refused = scene.agentbox(&["run", "--report", text(&report), "--", "true"]);
    refused.exits(125).must(refused.err.contains("report.json"), "the message names the report");
    fs::remove_file(&report).expect("remove the link");
    let plant = "rm -f report.json; ln -s ../victim report.json";
    let run = scene.agentbox(&["run", "-q", "--report", "report.json", "--", "sh", "-c", plant]);
    run.must(run.code != 0, "the report's place was taken");
    assert_eq!(fs::read_to_string(&victim).expect("read the victim"), "precious\n");
    assert!(fs::read_to_string(&report).expect("read the report").contains("denials"));
    for act in ["echo x > log.jsonl", "rm -f log.jsonl", "mv log.jsonl other"] {
        let _ = fs::remove_file(scene.work.join("log.jsonl"));
        let run = scene.agentbox(&["run", "-q", "--log", "log.jsonl", "--", "sh", "-c", act]);
        run.must(run.code != 0, &format!("`{act}` succeeded"));
        assert!(fs::read_to_string(scene.work.join("log.jsonl")).expect("read the log").contains("\"kind\":\"end\""));
    }
}

#[test]
fn a_repository_made_in_the_box_is_its_own_by_descriptor_too() {
    if program("git").is_none() {
        skip!("no git");
    }
    let scene = Scene::new();
    let act = "git init -q q && touch q/.git/config && chmod 600 q/.git/config && cp -a q q2";
    scene.free_sh(act).exits(0);
    let scene = Scene::new();
    scene.boxed_sh(&[], act).exits(0);
}

#[test]
fn a_turning_descriptor_never_runs_a_denied_script() {
    if compiler().is_none() {
        skip!("no C compiler (cc)");
    }
    let scene = Scene::new();
    scene.c(PROCESS.0, PROCESS.1, &["-pthread"]);
    scene.script("home/work/good.sh", "#!/bin/sh\necho good >> ran\n");
    let bad = scene.script("home/work/bad.sh", "#!/bin/sh\necho bad >> ran\n");
    let policy =
        scene.file("policy.yaml", format!("version: 1\nextends: [default]\nexec: {{deny: [\"{}\"]}}\n", text(&bad)));
    let argv = ["./process", "script", "300", "good.sh", "bad.sh"];
    let ran = || fs::read_to_string(scene.work.join("ran")).unwrap_or_default();
    scene.free(&argv).exits(0);
    assert!(ran().contains("bad"), "the control never runs the other script");
    fs::remove_file(scene.work.join("ran")).expect("clear");
    let boxed = scene.boxed(&["-t", "60s", "-p", text(&policy)], &argv);
    boxed.must(boxed.denied(&["exec"], "bad.sh"), "the denied script was never seen");
    // An exec gives the new program a table of its own, so what was looked at is what the interpreter opens.
    boxed.must(!ran().contains("bad"), "the denied script ran");
}

#[test]
fn who_waits_for_a_reader_can_be_killed_and_interrupted() {
    if compiler().is_none() {
        skip!("no C compiler (cc)");
    }
    for act in [&["./process", "fifo", "300"][..], &["./process", "alarm"], &["./process", "crowd", "400"]] {
        let scene = Scene::new();
        scene.c(PROCESS.0, PROCESS.1, &["-pthread"]);
        scene.free(act).exits(0);
        let scene = Scene::new();
        scene.c(PROCESS.0, PROCESS.1, &["-pthread"]);
        scene.boxed(&["-t", "60s"], act).exits(0);
    }
}

#[test]
fn a_descriptor_that_was_sent_gives_no_more_than_its_receiver_may_do() {
    if program("python3").is_none() {
        skip!("no python3");
    }
    let lay = || {
        let scene = Scene::new();
        for (name, content) in
            [("free/x", ""), ("repo/.git/hooks/x.sample", ""), ("secret.env", "token"), ("passed.py", PASSED)]
        {
            scene.file(format!("home/work/{name}"), content);
        }
        // From `free` a way leads to the repository.
        std::os::unix::fs::symlink("../repo", scene.work.join("free/repo")).expect("a link");
        scene
    };
    const PASSED: &str = include_str!("fixtures/passed.py");
    let argv = ["python3", "passed.py"];
    let free = lay().free(&argv);
    free.exits(0).must(free.out.lines().all(|line| line.ends_with(" ok")), "the control succeeds");
    let boxed = lay().boxed(&["--deny", "**/*.env", "-p", "python"], &argv);
    let (first, rest) = boxed.out.split_once('\n').unwrap_or_default();
    boxed.must(first == "make in a passed directory ok", "what may be done can be done");
    boxed.must(rest.lines().count() == 5 && rest.lines().all(|line| line.ends_with(" 13")), "the rest is refused");
    for target in ["hooks/pre-commit", "hooks/pre-push", "hooks/post-commit", "secret.env"] {
        boxed.must(boxed.denied(&[], target), &format!("no record of {target}"));
    }
}
