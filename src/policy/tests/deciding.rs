use std::path::{Path, PathBuf};

use super::{Lab, strings};
use crate::event::{
    Access, BoxPath, Effect, Endpoint, Event, Exec, FileOp, MoveOp, Place, Reason, Stream, Subject, Transport,
    Unjudged, Verdict,
};
use crate::policy::{Policy, Request, decide, suggest};

fn event(access: Access) -> Event {
    Event::new(Subject::default().into(), access)
}

fn place(path: impl Into<PathBuf>) -> Place {
    Place::of(BoxPath::new(path).unwrap())
}

fn directory(path: impl Into<PathBuf>) -> Place {
    Place { directory: true, ..place(path) }
}

fn own(place: Place) -> Place {
    Place { own_repository: true, ..place }
}

fn file(policy: &Policy, op: FileOp, at: Place) -> Verdict {
    decide(policy, &event(Access::File { op, at }))
}

fn two(policy: &Policy, op: MoveOp, from: Place, to: Place) -> Verdict {
    decide(policy, &event(Access::Move { op, from, to }))
}

fn exec(policy: &Policy, program: &str, called: &str, interpreter: Option<&str>) -> Verdict {
    let interpreter = interpreter.map(|path| BoxPath::new(path).unwrap());
    let program = BoxPath::new(program).unwrap();
    decide(policy, &event(Access::Exec(Exec { interpreter, ..Exec::of(program, called, vec![]) })))
}

const CHANGES: [FileOp; 12] = [
    FileOp::Write,
    FileOp::Create,
    FileOp::Truncate,
    FileOp::Mkdir,
    FileOp::Mknod,
    FileOp::Symlink,
    FileOp::Unlink,
    FileOp::Rmdir,
    FileOp::Chmod,
    FileOp::Chown,
    FileOp::Utime,
    FileOp::Xattr,
];

/// What the protected list leaves to the trees.
const NOTHING_PUT_THERE: [FileOp; 3] = [FileOp::Chmod, FileOp::Chown, FileOp::Utime];

#[test]
fn every_change_needs_a_writable_tree() {
    let lab = Lab::new();
    let policy = lab.default_policy();
    for op in CHANGES {
        let inside = file(&policy, op, place(lab.project().join("src/a")));
        assert_eq!((inside.effect, inside.reason), (Effect::Allow, Reason::Granted), "{op:?}");
        assert_eq!(&*inside.rule.0, "default.yaml filesystem.write[0]");
        let outside = file(&policy, op, place("/etc/hosts"));
        assert_eq!((outside.effect, outside.reason), (Effect::Deny, Reason::NotGranted), "{op:?}");
        assert_eq!(&*outside.rule.0, "default.yaml filesystem");
        assert_eq!(file(&policy, op, place("/srv/elsewhere")).effect, Effect::Deny, "{op:?}");
        assert_eq!(file(&policy, op, place("/tmp/x")).effect, Effect::Allow, "{op:?}");
    }
}

#[test]
fn the_longest_tree_decides() {
    let lab = Lab::new();
    lab.write("home/project/vendor/lib/x", "");
    let policy = lab.policy("filesystem: {read: [vendor, /usr], write: [., vendor/lib]}\n");
    let writes = |below: &str| file(&policy, FileOp::Write, place(lab.project().join(below))).effect;
    assert_eq!(writes("a"), Effect::Allow);
    assert_eq!(writes("vendor/a"), Effect::Deny);
    assert_eq!(writes("vendor/lib/a"), Effect::Allow);
    assert_eq!(writes("vendored"), Effect::Allow);
}

#[test]
fn a_read_tree_that_is_missing_takes_nothing_out_of_the_private_home() {
    let lab = Lab::new();
    let policy = lab.default_policy();
    assert_eq!(file(&policy, FileOp::Mkdir, place(lab.home().join(".nvm"))).effect, Effect::Allow);
}

#[test]
fn deny_beats_every_grant_for_reading_and_changing() {
    let lab = Lab::new();
    let policy = lab.policy("filesystem: {write: [.], deny: [{path: '**/.env', message: ask first}, secrets/key]}\n");
    for path in [".env", "sub/.env", "secrets/key", "secrets/key/below"] {
        for op in CHANGES.into_iter().chain([FileOp::Read]) {
            let verdict = file(&policy, op, place(lab.project().join(path)));
            assert_eq!((verdict.effect, verdict.reason), (Effect::Deny, Reason::DenyRule), "{op:?} {path}");
        }
    }
    let verdict = file(&policy, FileOp::Read, place(lab.project().join(".env")));
    assert_eq!((&*verdict.rule.0, verdict.message.as_deref()), ("./test.yaml filesystem.deny[0]", Some("ask first")));
}

#[test]
fn protected_names_may_be_read_and_never_changed() {
    let lab = Lab::new();
    let policy = lab.default_policy();
    let (home, project) = (lab.home(), lab.project());
    for path in [
        home.join(".bashrc"),
        home.join(".zshrc"),
        home.join(".profile"),
        home.join(".config/fish/config.fish"),
        home.join(".gitconfig"),
        home.join(".config/git/config"),
        home.join(".ssh/authorized_keys"),
        home.join(".aws/credentials"),
        home.join(".config/gcloud/x"),
        home.join(".docker/config.json"),
        home.join(".netrc"),
        home.join(".npmrc"),
        home.join(".git-credentials"),
        home.join(".config/autostart/x.desktop"),
        home.join(".config/systemd/user/x.service"),
        home.join(".claude.json"),
        project.join(".git/hooks/pre-commit"),
        project.join(".git/config"),
        project.join(".git/config.worktree"),
        project.join("sub/.git/config"),
        project.join(".git/modules/a/b/config"),
        project.join(".git/modules/a/hooks/x"),
        project.join(".claude/settings.json"),
        project.join(".claude/settings.local.json"),
        project.join(".claude/hooks/x.sh"),
        project.join(".claude/commands/x.md"),
        project.join(".mcp.json"),
        project.join(".codex/config.toml"),
        project.join(".gemini/settings.json"),
        project.join(".cursor/mcp.json"),
        project.join(".vscode/tasks.json"),
        project.join("agentbox.yaml"),
        project.join(".agentbox/x"),
    ] {
        for op in CHANGES.into_iter().filter(|op| !NOTHING_PUT_THERE.contains(op)) {
            let verdict = file(&policy, op, place(&path));
            assert_eq!(
                (verdict.effect, verdict.reason),
                (Effect::Deny, Reason::Protected),
                "{op:?} {}",
                path.display()
            );
            assert!(verdict.rule.0.starts_with("protected.yaml filesystem.protect["), "{}", verdict.rule);
        }
        assert_eq!(file(&policy, FileOp::Read, place(&path)).effect, Effect::Allow, "{}", path.display());
    }
}

#[test]
fn the_mode_of_a_protected_name_is_its_owners_as_long_as_nobody_else_may_write() {
    let lab = Lab::new();
    let policy = lab.default_policy();
    let config = || place(lab.project().join(".git/config"));
    for op in NOTHING_PUT_THERE {
        assert_eq!(file(&policy, op, config()).effect, Effect::Allow, "{op:?}");
    }
    let shared = file(&policy, FileOp::Chmod, Place { shares: true, ..config() });
    assert_eq!(shared.reason, Reason::Protected);
    let ordinary = Place { shares: true, ..place(lab.project().join("src/a")) };
    assert_eq!(file(&policy, FileOp::Chmod, ordinary).effect, Effect::Allow);
}

#[test]
fn deny_read_keeps_content_in_and_lets_it_be_written() {
    let lab = Lab::new();
    let policy = lab
        .policy("filesystem: {write: [.], read: [/usr], deny_read: ['**/.env', secrets/key]}\nexec: {allow: ['*']}\n");
    let at = |below: &str| lab.project().join(below);
    for name in [".env", "sub/.env", "secrets/key", "secrets/key/below"] {
        let verdict = file(&policy, FileOp::Read, place(at(name)));
        assert_eq!((verdict.effect, verdict.reason), (Effect::Deny, Reason::DenyRule), "{name}");
        assert!(verdict.rule.0.starts_with("./test.yaml filesystem.deny_read["), "{}", verdict.rule);
        for op in CHANGES {
            assert_eq!(file(&policy, op, place(at(name))).effect, Effect::Allow, "{op:?} {name}");
        }
        for op in [FileOp::Write, FileOp::Create] {
            let both = Place { reads: true, ..place(at(name)) };
            assert_eq!(file(&policy, op, both).reason, Reason::DenyRule, "{op:?} that reads {name}");
        }
        for op in [MoveOp::Rename, MoveOp::Link, MoveOp::Exchange] {
            assert_eq!(
                two(&policy, op, place(at(name)), place(at("x"))).reason,
                Reason::DenyRule,
                "{op:?} {name} away"
            );
            assert_eq!(two(&policy, op, place(at("x")), place(at(name))).reason, Reason::DenyRule, "{op:?} to {name}");
        }
    }
    let carried = two(&policy, MoveOp::Rename, directory(at("secrets")), place(at("open")));
    assert_eq!(carried.reason, Reason::AboveProtected);
    let run = |name: &str| exec(&policy, &at(name).to_string_lossy(), "x", None).reason;
    assert_eq!((run(".env"), run("tool")), (Reason::DenyRule, Reason::Granted));
    let read_by = exec(&policy, "/usr/bin/x", "x", Some(&at(".env").to_string_lossy()));
    assert_eq!(read_by.reason, Reason::DenyRule, "as an interpreter");
}

#[test]
fn deny_write_holds_a_name_and_lets_it_be_read() {
    let lab = Lab::new();
    let policy =
        lab.policy("filesystem: {write: [.], deny_write: ['**/*.lock', conf/app.yaml]}\nexec: {allow: ['*']}\n");
    let at = |below: &str| lab.project().join(below);
    for name in ["a.lock", "sub/b.lock", "conf/app.yaml", "conf/app.yaml/below"] {
        assert_eq!(file(&policy, FileOp::Read, place(at(name))).effect, Effect::Allow, "{name}");
        for op in CHANGES {
            let verdict = file(&policy, op, place(at(name)));
            assert_eq!((verdict.effect, verdict.reason), (Effect::Deny, Reason::DenyRule), "{op:?} {name}");
            assert!(verdict.rule.0.starts_with("./test.yaml filesystem.deny_write["), "{}", verdict.rule);
        }
        for op in [MoveOp::Rename, MoveOp::Link, MoveOp::Exchange] {
            assert_eq!(two(&policy, op, place(at(name)), place(at("x"))).effect, Effect::Deny, "{op:?} {name} away");
            assert_eq!(two(&policy, op, place(at("x")), place(at(name))).effect, Effect::Deny, "{op:?} to {name}");
        }
        assert_eq!(exec(&policy, &at(name).to_string_lossy(), "x", None).effect, Effect::Allow);
    }
    for (what, op, from, to) in [
        ("away", MoveOp::Rename, directory(at("conf")), place(at("open"))),
        ("in", MoveOp::Rename, directory(at("other")), place(at("conf"))),
        ("exchanged", MoveOp::Exchange, directory(at("other")), directory(at("conf"))),
    ] {
        assert_eq!(two(&policy, op, from, to).reason, Reason::AboveProtected, "{what}");
    }
    assert_eq!(file(&policy, FileOp::Symlink, place(at("conf"))).reason, Reason::AboveProtected);
    assert_eq!(file(&policy, FileOp::Write, place(at("b.locked"))).effect, Effect::Allow);
}

#[test]
fn deny_goes_before_deny_read_before_deny_write_before_protect() {
    let lab = Lab::new();
    let policy = lab.policy(
        "filesystem: {write: [.], protect: [a, b, c, d], deny_write: [a, b, c], deny_read: [a, b], deny: [a]}\n",
    );
    let rule = |name: &str, op| {
        let both = Place { reads: true, ..place(lab.project().join(name)) };
        file(&policy, op, both).rule.0.split('.').next_back().unwrap_or_default().to_string()
    };
    assert_eq!(rule("a", FileOp::Write), "deny[0]");
    assert_eq!(rule("b", FileOp::Write), "deny_read[1]");
    assert_eq!(rule("c", FileOp::Write), "deny_write[2]");
    assert_eq!(rule("d", FileOp::Write), "protect[3]");
    assert_eq!(rule("a", FileOp::Read), "deny[0]");
    assert_eq!(rule("b", FileOp::Read), "deny_read[1]");
    assert_eq!(rule("c", FileOp::Read), "write[0]");
}

#[test]
fn a_denied_file_cannot_be_run() {
    let lab = Lab::new();
    let policy = lab.policy("filesystem: {write: [.], deny: ['**/tool']}\nexec: {allow: ['*']}\n");
    let path = lab.project().join("bin/tool").to_string_lossy().into_owned();
    assert_eq!(exec(&policy, &path, "x", None).reason, Reason::DenyRule);
}

#[test]
fn ordinary_git_work_is_allowed() {
    let lab = Lab::new();
    let policy = lab.default_policy();
    let git = lab.project().join(".git");
    for path in ["index.lock", "HEAD.lock", "objects/ab/tmp_obj", "refs/heads/main.lock", "logs/HEAD", "COMMIT_EDITMSG"]
    {
        assert_eq!(file(&policy, FileOp::Create, place(git.join(path))).effect, Effect::Allow, "{path}");
    }
    for (from, to) in
        [("index.lock", "index"), ("refs/heads/x.lock", "refs/heads/x"), ("modules/a/HEAD.lock", "modules/a/HEAD")]
    {
        assert_eq!(
            two(&policy, MoveOp::Rename, place(git.join(from)), place(git.join(to))).effect,
            Effect::Allow,
            "{to}"
        );
    }
    assert_eq!(
        two(&policy, MoveOp::Link, place(git.join("objects/a")), place(git.join("objects/b"))).effect,
        Effect::Allow
    );
}

#[test]
fn a_git_file_that_points_elsewhere_is_not_pointed_anew() {
    let lab = Lab::new();
    let policy = lab.default_policy();
    let pointer = lab.project().join("worktree/.git");
    for op in [FileOp::Write, FileOp::Truncate, FileOp::Unlink] {
        assert_eq!(file(&policy, op, place(pointer.clone())).reason, Reason::AboveProtected, "{op:?}");
    }
    let away = two(&policy, MoveOp::Rename, place(pointer.clone()), place(lab.project().join("x")));
    assert_eq!(away.effect, Effect::Deny);
    assert_eq!(file(&policy, FileOp::Create, place(pointer)).effect, Effect::Allow, "a new worktree or submodule");
    let common = lab.project().join(".git/commondir");
    assert_eq!(file(&policy, FileOp::Create, place(common)).reason, Reason::Protected);
}

#[test]
fn git_init_in_the_box_succeeds() {
    let lab = Lab::new();
    let policy = lab.default_policy();
    let git = lab.project().join("new/.git");
    assert_eq!(file(&policy, FileOp::Mkdir, directory(&git)).effect, Effect::Allow);
    assert_eq!(file(&policy, FileOp::Mkdir, own(directory(git.join("hooks")))).effect, Effect::Allow);
    assert_eq!(file(&policy, FileOp::Create, own(place(git.join("hooks/pre-commit.sample")))).effect, Effect::Allow);
    assert_eq!(file(&policy, FileOp::Create, own(place(git.join("config.lock")))).effect, Effect::Allow);
    let renamed = two(&policy, MoveOp::Rename, own(place(git.join("config.lock"))), own(place(git.join("config"))));
    assert_eq!(renamed.effect, Effect::Allow);
    let hook = file(&policy, FileOp::Create, own(place(git.join("hooks/pre-commit"))));
    assert_eq!(hook.reason, Reason::Protected);
    let sample = two(&policy, MoveOp::Rename, own(place(git.join("hooks/x.sample"))), own(place(git.join("hooks/x"))));
    assert_eq!(sample.reason, Reason::Protected);
    let link = two(&policy, MoveOp::Link, own(place(git.join("hooks/x.sample"))), own(place(git.join("hooks/x"))));
    assert_eq!(link.reason, Reason::Protected);
}

#[test]
fn a_directory_above_a_protected_name_can_be_neither_moved_nor_replaced() {
    let lab = Lab::new();
    let policy = lab.default_policy();
    let at = |below: &str| lab.project().join(below);
    for (what, op, from, to) in [
        ("git directory away", MoveOp::Rename, directory(at(".git")), place(at("moved"))),
        ("hooks away", MoveOp::Rename, directory(at(".git/hooks")), place(at("moved"))),
        ("prepared git directory in", MoveOp::Rename, directory(at("mygit")), place(at(".git"))),
        ("prepared in over an own one", MoveOp::Rename, directory(at("mygit")), own(directory(at(".git")))),
        ("prepared hooks in", MoveOp::Rename, directory(at("evil")), directory(at(".git/hooks"))),
        ("a link in", MoveOp::Rename, place(at("link")), place(at(".git"))),
        ("a second name of a link in", MoveOp::Link, place(at("link")), place(at(".git/hooks"))),
        ("exchange", MoveOp::Exchange, directory(at("mygit")), directory(at(".git"))),
        ("exchange the other way", MoveOp::Exchange, directory(at(".git")), directory(at("mygit"))),
        ("exchange with a file", MoveOp::Exchange, place(at("file")), directory(at(".git"))),
        ("agent settings in", MoveOp::Rename, directory(at("x")), place(at(".claude"))),
        ("editor settings in", MoveOp::Rename, directory(at("x")), place(at(".vscode"))),
        ("inside modules", MoveOp::Rename, directory(at("x")), place(at(".git/modules/m"))),
        ("home settings away", MoveOp::Rename, directory(lab.home().join(".config")), place("/tmp/x")),
    ] {
        let verdict = two(&policy, op, from, to);
        assert_eq!((verdict.effect, verdict.reason), (Effect::Deny, Reason::AboveProtected), "{what}");
    }
    for (what, op, from, to) in [
        ("a project", MoveOp::Rename, directory(at("sub")), place(at("renamed"))),
        ("a file", MoveOp::Rename, place(at("a")), place(at("b"))),
        ("two files", MoveOp::Exchange, place(at("a")), place(at("b"))),
        ("an own git directory away", MoveOp::Rename, own(directory(at("sub/.git"))), place(at("moved"))),
    ] {
        assert_eq!(two(&policy, op, from, to).effect, Effect::Allow, "{what}");
    }
    assert_eq!(file(&policy, FileOp::Symlink, place(at(".git"))).reason, Reason::AboveProtected);
    assert_eq!(file(&policy, FileOp::Symlink, place(at("sub/.git/hooks"))).reason, Reason::AboveProtected);
    assert_eq!(file(&policy, FileOp::Symlink, place(at("link"))).effect, Effect::Allow);
    assert_eq!(file(&policy, FileOp::Rmdir, directory(at(".git/hooks"))).effect, Effect::Allow);
}

#[test]
fn a_directory_above_a_denied_name_cannot_be_moved() {
    let lab = Lab::new();
    let policy = lab.policy("filesystem: {write: [.], deny: [secrets/key, '**/.env']}\n");
    let at = |below: &str| lab.project().join(below);
    let moved = two(&policy, MoveOp::Rename, directory(at("secrets")), place(at("open")));
    assert_eq!(moved.reason, Reason::AboveProtected);
    assert_eq!(two(&policy, MoveOp::Rename, directory(at("sub")), place(at("open"))).effect, Effect::Allow);
    assert_eq!(two(&policy, MoveOp::Link, place(at(".env")), place(at("open"))).reason, Reason::DenyRule);
    assert_eq!(two(&policy, MoveOp::Rename, place(at("x")), place(at(".env"))).reason, Reason::DenyRule);
}

#[test]
fn both_names_of_a_move_count() {
    let lab = Lab::new();
    let policy = lab.default_policy();
    let mine = lab.project().join("a");
    for op in [MoveOp::Rename, MoveOp::Exchange, MoveOp::Link] {
        assert_eq!(two(&policy, op, place("/etc/hosts"), place(&mine)).reason, Reason::NotGranted, "{op:?}");
        assert_eq!(two(&policy, op, place(&mine), place("/etc/hosts")).reason, Reason::NotGranted, "{op:?}");
        assert_eq!(
            two(&policy, op, place(lab.home().join(".ssh/id")), place(&mine)).reason,
            Reason::Protected,
            "{op:?}"
        );
    }
}

#[test]
fn a_grant_of_the_name_itself_lifts_the_protection_and_nothing_else() {
    let lab = Lab::new();
    lab.write("home/project/.git/config", "");
    let lift = |path: &str| {
        let request = Request { write: vec![path.into()], ..Request::default() };
        lab.load(&request).unwrap().policy
    };
    let config = lab.project().join(".git/config");
    let hook = lab.project().join(".git/hooks/x");
    assert_eq!(file(&lift(".git/config"), FileOp::Write, place(&config)).effect, Effect::Allow);
    assert_eq!(file(&lift(".git/config"), FileOp::Write, place(&hook)).reason, Reason::Protected);
    assert_eq!(file(&lift(".git/hooks"), FileOp::Write, place(&hook)).effect, Effect::Allow);
    assert_eq!(file(&lift(".git/hooks"), FileOp::Write, place(&config)).reason, Reason::Protected);
    assert_eq!(file(&lift(".git"), FileOp::Write, place(&config)).reason, Reason::Protected);
}

#[test]
fn protect_none_lifts_all() {
    let lab = Lab::new();
    let policy = lab.policy("extends: [default]\nfilesystem: {protect: none}\n");
    assert_eq!(file(&policy, FileOp::Write, place(lab.project().join(".git/config"))).effect, Effect::Allow);
    assert_eq!(file(&policy, FileOp::Write, place(lab.project().join("test.yaml"))).reason, Reason::Protected);
}

#[test]
fn devices_may_be_written_and_not_remade() {
    let lab = Lab::new();
    let policy = lab.default_policy();
    for path in
        ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/ptmx", "/dev/pts/3"]
    {
        let verdict = file(&policy, FileOp::Write, place(path));
        assert_eq!((verdict.effect, &*verdict.rule.0), (Effect::Allow, "built-in dev"), "{path}");
    }
    assert_eq!(file(&policy, FileOp::Create, place("/dev/shm/sem.x")).effect, Effect::Allow);
    for (op, path) in [
        (FileOp::Chmod, "/dev/null"),
        (FileOp::Unlink, "/dev/null"),
        (FileOp::Write, "/dev/sda"),
        (FileOp::Mknod, "/dev/x"),
    ] {
        assert_eq!(file(&policy, op, place(path)).effect, Effect::Deny, "{op:?} {path}");
    }
    assert_eq!(two(&policy, MoveOp::Link, place("/dev/null"), place(lab.project().join("x"))).effect, Effect::Deny);
}

#[test]
fn only_harmless_files_of_processes_may_be_written() {
    let lab = Lab::new();
    let policy = lab.default_policy();
    for path in ["/proc/7/comm", "/proc/7/task/8/comm", "/proc/7/oom_score_adj", "/proc/12/coredump_filter"] {
        let verdict = file(&policy, FileOp::Write, place(path));
        assert_eq!((verdict.effect, &*verdict.rule.0), (Effect::Allow, "built-in proc"), "{path}");
    }
    for path in [
        "/proc/7/mem",
        "/proc/7/uid_map",
        "/proc/7/comm/x",
        "/proc/x/comm",
        "/proc//comm",
        "/proc/7/task/comm",
        "/proc/sys/kernel/core_pattern",
        "/proc/sysrq-trigger",
        "/proc/7/attr/exec",
        "/sys/power/state",
        "/sys/fs/cgroup/x",
        "/proc",
    ] {
        assert_eq!(file(&policy, FileOp::Write, place(path)).reason, Reason::KernelFile, "{path}");
    }
    assert_eq!(file(&policy, FileOp::Unlink, place("/proc/7/comm")).reason, Reason::KernelFile);
}

#[test]
fn programs_are_denied_by_any_of_their_names() {
    let lab = Lab::new();
    let policy = lab.default_policy();
    assert_eq!(exec(&policy, "/usr/bin/ls", "ls", None).effect, Effect::Allow);
    for (program, called, interpreter) in [
        ("/usr/bin/sudo", "sudo", None),
        ("/usr/bin/sudo", "innocent", None),
        ("/usr/bin/multi", "sudo", None),
        ("/opt/x/su", "x", None),
        ("/home/x/script", "script", Some("/usr/bin/sudo")),
    ] {
        let verdict = exec(&policy, program, called, interpreter);
        assert_eq!((verdict.effect, verdict.reason), (Effect::Deny, Reason::DenyRule), "{program} {called}");
        assert!(verdict.message.is_some());
    }
}

#[test]
fn an_allowed_name_is_the_systems_program_of_that_name() {
    let lab = Lab::new();
    let policy = lab.policy("filesystem: {write: [.], read: [/usr]}\nexec: {allow: [git, ./tool, '/opt/*/run']}\n");
    let own = |name: &str| lab.project().join(name).to_string_lossy().into_owned();
    assert_eq!(exec(&policy, "/usr/bin/git", "git", None).effect, Effect::Allow);
    assert_eq!(exec(&policy, &own("tool"), "tool", None).effect, Effect::Allow);
    assert_eq!(exec(&policy, "/opt/a/run", "run", None).effect, Effect::Allow);
    for (program, called) in [("/usr/bin/ls", "ls"), ("/usr/bin/ls", "git"), (&own("git"), "git")] {
        let verdict = exec(&policy, program, called, None);
        assert_eq!((verdict.effect, verdict.reason), (Effect::Deny, Reason::NotGranted), "{program} as {called}");
        assert_eq!(&*verdict.rule.0, "./test.yaml exec");
    }
}

#[test]
fn the_network_mode_decides_on_addresses_outside() {
    let lab = Lab::new();
    let none = lab.default_policy();
    let host = lab.policy("network: {mode: host}\n");
    let inet = |outside| Endpoint::Inet {
        address: "192.0.2.1:443".parse().unwrap(),
        outside,
        transport: Transport::Tcp,
        names: Vec::new(),
    };
    let unix = |own| Endpoint::Unix { path: BoxPath::new("/tmp/s").unwrap(), own };
    for (to, in_none, in_host) in [
        (inet(false), Effect::Allow, Effect::Allow),
        (inet(true), Effect::Deny, Effect::Allow),
        (unix(true), Effect::Allow, Effect::Allow),
        (unix(false), Effect::Deny, Effect::Deny),
        (Endpoint::Abstract { name: "x".into(), own: true }, Effect::Allow, Effect::Allow),
        (Endpoint::Abstract { name: "x".into(), own: false }, Effect::Deny, Effect::Deny),
        (Endpoint::Unspecified, Effect::Allow, Effect::Allow),
        (Endpoint::Netlink, Effect::Allow, Effect::Allow),
        (Endpoint::Other { number: 40 }, Effect::Deny, Effect::Deny),
    ] {
        let connect = |policy| decide(policy, &event(Access::Connect { to: to.clone() })).effect;
        assert_eq!((connect(&none), connect(&host)), (in_none, in_host), "{to:?}");
    }
    let out = decide(&none, &event(Access::Connect { to: inet(true) }));
    assert_eq!((out.reason, &*out.rule.0), (Reason::NoNetwork, "default.yaml network.mode"));
}

#[test]
fn a_socket_of_the_host_is_reached_only_by_its_own_name() {
    let lab = Lab::new();
    let socket = lab.path("home/project/listed");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let policy = lab.policy("network: {unix: [listed, gone]}\n");
    let connect = |path: &Path| {
        let to = Endpoint::Unix { path: BoxPath::new(path).unwrap(), own: false };
        let event = event(Access::Connect { to });
        let verdict = decide(&policy, &event);
        (verdict.effect, verdict.rule.to_string(), suggest(&policy, &event, &verdict))
    };
    assert_eq!(connect(&socket), (Effect::Allow, "./test.yaml network.unix[0]".into(), None));
    let (effect, _, fix) = connect(&socket.with_file_name("other"));
    assert_eq!((effect, fix.as_deref()), (Effect::Deny, Some("--net-unix other")));
}

#[test]
fn a_stream_that_was_handed_in_is_reopened_with_its_own_rights_only() {
    let lab = Lab::new();
    let policy = lab.default_policy();
    for (stream, effect) in [(Stream::WithinRights, Effect::Allow), (Stream::BeyondRights, Effect::Deny)] {
        // The path lies in a private tree, which would grant anything.
        let at = Place { stream: Some(stream), ..Place::of(BoxPath::new("/tmp/out").unwrap()) };
        assert_eq!(decide(&policy, &event(Access::File { op: FileOp::Write, at })).effect, effect);
    }
}

#[test]
fn binding_a_unix_socket_is_making_a_file() {
    let lab = Lab::new();
    let policy = lab.default_policy();
    let bind = |path: PathBuf| {
        let at = Endpoint::Unix { path: BoxPath::new(path).unwrap(), own: false };
        decide(&policy, &event(Access::Bind { at })).effect
    };
    assert_eq!(bind(lab.project().join("s")), Effect::Allow);
    assert_eq!(bind("/run/s".into()), Effect::Deny);
    assert_eq!(bind(lab.home().join(".ssh/agent")), Effect::Deny);
}

#[test]
fn what_could_not_be_judged_is_refused() {
    let lab = Lab::new();
    for why in [Unjudged::UnknownCall, Unjudged::Unreadable, Unjudged::Raced, Unjudged::TooLarge] {
        let verdict = decide(&lab.default_policy(), &event(Access::Call { name: "x".into(), why }));
        assert_eq!((verdict.effect, verdict.reason), (Effect::Deny, Reason::Unjudged));
    }
}

#[test]
fn an_empty_policy_allows_nothing() {
    let lab = Lab::new();
    let policy = lab.policy("");
    assert_eq!(file(&policy, FileOp::Read, place("/usr/bin/ls")).effect, Effect::Deny);
    assert_eq!(file(&policy, FileOp::Write, place("/tmp/x")).effect, Effect::Deny);
    assert_eq!(exec(&policy, "/usr/bin/ls", "ls", None).effect, Effect::Deny);
}

#[test]
fn the_suggestion_is_the_smallest_flag_that_allows() {
    let lab = Lab::new();
    let policy = lab.default_policy();
    let (project, home) = (lab.project(), lab.home());
    let file = |op, at: PathBuf| Access::File { op, at: place(at) };
    let outside = Endpoint::Inet {
        address: "192.0.2.1:443".parse().unwrap(),
        outside: true,
        transport: Transport::Tcp,
        names: Vec::new(),
    };
    for (access, expected) in [
        (file(FileOp::Write, "/etc/hosts".into()), Some("-w /etc/hosts".to_string())),
        (file(FileOp::Create, "/srv/new".into()), Some("-w /srv".into())),
        (file(FileOp::Read, "/srv/it's".into()), Some(r"-r '/srv/it'\''s'".into())),
        (file(FileOp::Write, project.join(".git/config")), Some("-w .git/config".into())),
        (file(FileOp::Create, project.join(".git/hooks/x")), Some("-w .git/hooks".into())),
        (file(FileOp::Write, home.join(".bashrc")), Some(format!("-w {}", home.join(".bashrc").display()))),
        (
            file(FileOp::Read, "/etc/shadow".into()),
            Some("a policy without the rule base.yaml filesystem.deny[0]".into()),
        ),
        (file(FileOp::Write, "/proc/sys/x".into()), None),
        (file(FileOp::Create, "/new".into()), None),
        (file(FileOp::Create, "/dev/new".into()), None),
        (file(FileOp::Write, project.join("ok")), None),
        (Access::Connect { to: outside }, Some("--net-allow 192.0.2.1:443".into())),
        (
            Access::Move { op: MoveOp::Rename, from: place(project.join("a")), to: place("/srv/b") },
            Some("-w /srv".into()),
        ),
    ] {
        let event = event(access);
        assert_eq!(suggest(&policy, &event, &decide(&policy, &event)), expected, "{event:?}");
    }
}

#[test]
fn a_denial_by_a_flag_suggests_a_command_line_without_it() {
    let lab = Lab::new();
    let request = Request { deny: strings(&["**/.env"]), policies: strings(&["default"]), ..Request::default() };
    let policy = lab.load(&request).unwrap().policy;
    let event = event(Access::File { op: FileOp::Read, at: place(lab.project().join(".env")) });
    let said = suggest(&policy, &event, &decide(&policy, &event));
    assert_eq!(said.as_deref(), Some("a command line without --deny **/.env"));
}

#[test]
fn a_suggested_flag_does_allow_it() {
    let lab = Lab::new();
    lab.write("home/project/.git/config", "");
    lab.write("home/.bashrc", "");
    let policy = lab.default_policy();
    for path in [
        lab.project().join(".git/config"),
        lab.project().join(".git/hooks/x"),
        lab.home().join(".bashrc"),
        PathBuf::from("/usr/share/x"),
    ] {
        let event = event(Access::File { op: FileOp::Create, at: place(&path) });
        let flag = suggest(&policy, &event, &decide(&policy, &event)).unwrap();
        let path = Path::new(flag.strip_prefix("-w ").unwrap()).to_path_buf();
        let again =
            lab.load(&Request { write: vec![path], policies: strings(&["default"]), ..Request::default() }).unwrap();
        assert_eq!(decide(&again.policy, &event).effect, Effect::Allow, "{flag}");
    }
}
