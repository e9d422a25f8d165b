use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::{Lab, paths, strings};
use crate::policy::file::PolicyFile;
use crate::policy::load::{check, profiles};
use crate::policy::{Exception, GuardKind, LoadError, NetworkMode, Policy, Request, Root, trust};

fn root<'a>(roots: &'a [Root], path: &Path) -> Option<&'a Root> {
    roots.iter().find(|root| root.path == path)
}

fn vars(policy: &Policy) -> Vec<String> {
    policy.env.vars.iter().map(|(k, v)| format!("{}={}", k.to_string_lossy(), v.to_string_lossy())).collect()
}

#[test]
fn what_is_embedded_is_what_the_yaml_says() {
    for (name, yaml, json) in crate::policy::load::SHIPPED {
        let parsed = PolicyFile::parse(name, yaml.as_bytes()).unwrap();
        assert_eq!(serde_json::from_str::<PolicyFile>(json).unwrap(), parsed, "{name}");
    }
}

#[test]
fn every_shipped_profile_loads_and_every_rule_says_why() {
    let lab = Lab::new();
    for profile in profiles() {
        lab.load(&Request { policies: strings(&[profile.name]), ..Request::default() })
            .unwrap_or_else(|e| panic!("{e}"));
        assert!(profile.about.len() > 20, "{} has no comment at its top", profile.name);
        for line in profile.yaml.lines().filter(|line| line.trim_start().starts_with("- ")) {
            assert!(line.contains("why:"), "{}: {line}", profile.name);
        }
    }
}

#[test]
fn the_default_is_base_and_toolchains_and_a_writable_workdir() {
    let lab = Lab::new();
    fs::create_dir_all(lab.home().join(".rustup")).unwrap();
    let policy = lab.default_policy();
    assert_eq!(&*policy.name, "default.yaml");
    assert_eq!(root(&policy.files.write, &lab.project()).unwrap().rule.0.as_ref(), "default.yaml filesystem.write[0]");
    assert!(root(&policy.files.private, &lab.home()).is_some());
    assert!(root(&policy.files.read, &lab.home().join(".rustup")).unwrap().exists);
    assert!(!root(&policy.files.read, &lab.home().join(".pyenv")).unwrap().exists);
    assert_eq!(policy.network.mode, NetworkMode::None);
    assert!(policy.files.guards.of(GuardKind::Protect).iter().any(|g| g.except == Exception::OwnRepository));
    assert_eq!(policy.digest.len(), 64);
}

#[test]
fn python_adds_to_the_default() {
    let lab = Lab::new();
    let policy = lab.load(&Request { policies: strings(&["python"]), ..Request::default() }).unwrap().policy;
    assert_eq!(&*policy.name, "python.yaml");
    assert!(root(&policy.files.write, &lab.project()).is_some());
}

#[test]
fn lists_add_up_and_the_last_scalar_wins() {
    let lab = Lab::new();
    lab.write(
        "home/project/a.yaml",
        "version: 1\nfilesystem: {read: [/usr]}\nnetwork: {mode: host}\nenv: {set: {A: a, B: b}}\n",
    );
    lab.write(
        "home/project/b.yaml",
        "version: 1\nextends: [a.yaml]\nfilesystem: {read: [/etc]}\nnetwork: {mode: none}\nenv: {set: {A: c}}\n",
    );
    let policy = lab.load(&Request { policies: strings(&["./b.yaml"]), ..Request::default() }).unwrap().policy;
    let read: Vec<_> = policy.files.read.iter().map(|r| (r.path.to_str().unwrap(), &*r.rule.0)).collect();
    assert_eq!(read, [("/usr", "a.yaml filesystem.read[0]"), ("/etc", "./b.yaml filesystem.read[0]")]);
    assert_eq!(policy.network.mode, NetworkMode::None);
    assert_eq!(vars(&policy), ["A=c", "AGENTBOX=1", "B=b"]);
}

#[test]
fn extends_is_relative_to_the_file_that_says_so() {
    let lab = Lab::new();
    lab.write("home/project/conf/inner.yaml", "version: 1\nfilesystem: {write: [out]}\n");
    lab.write("home/project/conf/outer.yaml", "version: 1\nextends: [./inner.yaml]\n");
    let policy = lab.load(&Request { policies: strings(&["conf/outer.yaml"]), ..Request::default() }).unwrap().policy;
    // Paths inside it are relative to the working directory all the same.
    assert_eq!(policy.files.write[0].path, lab.project().join("out"));
}

#[test]
fn a_file_named_like_a_profile_is_not_the_profile() {
    let lab = Lab::new();
    lab.write("home/project/base.yaml", "version: 1\nextends: [base]\nfilesystem: {read: [/srv]}\n");
    let policy = lab.load(&Request { policies: strings(&["base.yaml"]), ..Request::default() }).unwrap().policy;
    assert!(root(&policy.files.read, Path::new("/usr")).is_some());
    assert!(policy.files.read.iter().any(|r| r.path == Path::new("/srv")));
}

#[test]
fn mistakes_in_rules_name_file_line_and_column() {
    let lab = Lab::new();
    lab.write("home/project/loop.yaml", "version: 1\nextends: [./test.yaml]\n");
    for (rules, expected) in [
        (
            "extends: [bsae]\n",
            "./test.yaml:2:11: there is no profile `bsae`: did you mean `base`?; for a file write ./bsae",
        ),
        ("extends: [./none.yaml]\n", "cannot read policy ./none.yaml"),
        (
            "extends: [./loop.yaml]\n",
            "./loop.yaml:2:11: `extends` goes in a circle: ./test.yaml → ./loop.yaml → ./test.yaml",
        ),
        ("extends: [./test.yaml]\n", "./test.yaml:2:11: `extends` goes in a circle: ./test.yaml → ./test.yaml"),
        ("filesystem: {deny: ['/a/[b']}\n", "./test.yaml:2:21: filesystem.deny `/a/[b`: `[` is never closed"),
        ("filesystem: {protect: ['a**']}\n", "./test.yaml:2:24: filesystem.protect `a**`: `**` stands alone"),
        ("filesystem: {read: [$NOPE]}\n", "./test.yaml:2:21: filesystem.read `$NOPE`: `$NOPE` is not set"),
        ("filesystem: {read: ['/usr/*']}\n", "./test.yaml:2:21: filesystem.read `/usr/*`: a grant is a plain path"),
        ("exec: {deny: ['git \"push *']}\n", "./test.yaml:2:15: exec.deny `git \"push *`: `\"` is never closed"),
        ("exec: {deny: ['git pu[sh']}\n", "./test.yaml:2:15: exec.deny `git pu[sh`: `[` is never closed"),
        ("exec: {deny: ['git a**']}\n", "./test.yaml:2:15: exec.deny `git a**`: `**` is for paths"),
        ("exec: {ask: ['git {a']}\n", "./test.yaml:2:14: exec.ask `git {a`: `{` is never closed"),
        ("exec: {ask: ['git $NOPE']}\n", "./test.yaml:2:14: exec.ask `git $NOPE`: `$NOPE` is not set"),
        (
            "exec: {allow: [{run: git push, args: [x]}]}\n",
            "./test.yaml:2:16: exec.allow `git push`: the arguments stand in",
        ),
        ("exec: {allow: ['bin/x push']}\n", "./test.yaml:2:16: exec.allow `bin/x push`: a program is"),
        ("exec: {allow: [' ']}\n", "./test.yaml:2:16: exec.allow ` `: the pattern is empty"),
        (
            "filesystem: {deny: [{run: /x, args: [y]}]}\n",
            "./test.yaml:2:21: `args` stands beside `run`, in a rule of `exec`",
        ),
        ("exec: {allow: [bin/x]}\n", "./test.yaml:2:16: exec.allow `bin/x`: a program is"),
        (
            "filesystem: {write: [/proc/sys]}\n",
            "./test.yaml filesystem.write[0]: /proc/sys lies in the kernel's own files",
        ),
        (
            "filesystem: {deny_read: ['/a/[z-a]']}\n",
            "./test.yaml:2:26: filesystem.deny_read `/a/[z-a]`: `z-a` runs backwards",
        ),
        ("filesystem: {read: [/../x]}\n", "./test.yaml:2:21: filesystem.read `/../x`: `..` leads above `/`"),
        (
            "filesystem: {read: [/usr/share], deny: [/usr/share]}\n",
            "./test.yaml:2:21: filesystem.read[0]: /usr/share is granted, and ./test.yaml:2:41: filesystem.deny[0] denies \
             all of it: leave one of the two out",
        ),
        ("filesystem: {write: [out], deny_write: ['*']}\n", "./test.yaml:2:22: filesystem.write[0]"),
        (
            "extends: [default]\nfilesystem: {deny: ['~/*']}\n",
            "./test.yaml:3:21: filesystem.deny[0]: `~/*` covers the working directory",
        ),
        ("filesystem: {write: [./test.yaml]}\n", "is the policy of this run, which is never writable"),
        ("filesystem: {write: [~/.local/state/agentbox/runs]}\n", "is agentbox's own state, which is never writable"),
    ] {
        let error = lab.error(rules);
        assert!(error.contains(expected), "{rules:?}\n  gave     {error}\n  expected {expected}");
    }
}

#[test]
fn a_grant_that_changes_nothing_is_a_note_and_a_denial_that_takes_back_is_none() {
    let lab = Lab::new();
    let notes = |rules: &str, request: Request| {
        lab.write("home/project/test.yaml", &format!("version: 1\nextends: [base]\n{rules}"));
        lab.load(&Request { policies: strings(&["./test.yaml"]), ..request }).unwrap_or_else(|e| panic!("{e}")).notes
    };
    let none: Vec<String> = vec![];
    assert_eq!(notes("filesystem: {deny: [/opt]}\n", Request::default()), none, "takes back what base grants");
    assert_eq!(notes("filesystem: {read: [/srv], deny_write: [/srv]}\n", Request::default()), none);
    assert_eq!(
        notes("filesystem: {read: [/etc/shadow]}\n", Request::default()),
        [
            "./test.yaml:3:21: filesystem.read[0]: /etc/shadow is denied all the same, by base.yaml:25:7: filesystem.deny[0]"
        ]
    );
    let flag = notes(
        "filesystem: {deny_read: [/usr/share]}\n",
        Request { read: vec!["/usr/share".into()], ..Request::default() },
    );
    assert_eq!(
        flag,
        ["command line -r /usr/share: /usr/share is denied all the same, by ./test.yaml:3:26: filesystem.deny_read[0]"]
    );
    let blind = notes("filesystem: {write: [.], deny_read: ['~/**']}\n", Request::default());
    assert!(blind[0].starts_with("./test.yaml:3:38: filesystem.deny_read[0]: `~/**` covers the working"), "{blind:?}");
    let both = Request { read: vec!["/usr".into()], deny: strings(&["/usr"]), ..Request::default() };
    let error = lab.load(&both).unwrap_err().to_string();
    assert!(error.starts_with("command line -r /usr: /usr is granted, and command line --deny /usr denies"), "{error}");
}

#[test]
fn flags_go_on_top_and_must_exist() {
    let lab = Lab::new();
    lab.write("home/project/data/x", "");
    let request = Request {
        read: paths(&[Path::new("data")]),
        write: paths(&[Path::new("/usr")]),
        deny: strings(&["data/x"]),
        net: Some(NetworkMode::Host),
        ..Request::default()
    };
    let policy = lab.load(&request).unwrap().policy;
    assert_eq!(&*root(&policy.files.read, &lab.project().join("data")).unwrap().rule.0, "command line -r data");
    assert_eq!(&*root(&policy.files.write, Path::new("/usr")).unwrap().rule.0, "command line -w /usr");
    assert!(root(&policy.files.read, Path::new("/usr")).is_none(), "a later grant takes the earlier one's place");
    assert_eq!(policy.network.mode, NetworkMode::Host);
    assert!(policy.files.guards.of(GuardKind::Deny).iter().any(|g| &*g.rule.0 == "command line --deny data/x"));
    let missing = lab.load(&Request { write: paths(&[Path::new("nope")]), ..Request::default() }).unwrap_err();
    assert!(missing.to_string().starts_with("-w nope: there is no such file or directory"), "{missing}");
}

#[test]
fn a_granted_link_keeps_both_its_names() {
    let lab = Lab::new();
    fs::create_dir_all(lab.path("real")).unwrap();
    symlink(lab.path("real"), lab.home().join("link")).unwrap();
    let policy = lab.policy("filesystem: {read: [~/link]}\n");
    assert_eq!(policy.files.read[0].path, lab.path("real"));
    assert_eq!(policy.files.read[0].link, Some(lab.home().join("link")));
}

#[test]
fn a_guard_on_a_link_holds_its_target_too() {
    let lab = Lab::new();
    lab.write("home/dotfiles/bashrc", "");
    symlink(lab.home().join("dotfiles/bashrc"), lab.home().join(".bashrc")).unwrap();
    symlink(lab.home().join("dotfiles"), lab.home().join("dots")).unwrap();
    let policy = lab.policy("filesystem: {deny: [~/.bashrc, '~/dots/*.key']}\n");
    let denied = |path: PathBuf| policy.files.guards.of(GuardKind::Deny).iter().any(|g| g.pattern.matches(&path));
    assert!(denied(lab.home().join(".bashrc")));
    assert!(denied(lab.home().join("dotfiles/bashrc")));
    assert!(denied(lab.home().join("dotfiles/a.key")));
    assert!(!denied(lab.home().join("dotfiles/other")));
}

#[test]
fn the_home_is_not_opened_by_standing_in_it() {
    let lab = Lab::new();
    fs::create_dir_all(lab.home().join(".ssh")).unwrap();
    let stand =
        |dir: PathBuf| lab.load(&Request { chdir: Some(dir), policies: strings(&["default"]), ..Request::default() });
    for (dir, what) in [
        (lab.home(), "the home directory"),
        (lab.path(""), "which holds the home directory"),
        (PathBuf::from("/"), "the root of the file system"),
        (lab.home().join(".ssh"), "protected by protected.yaml"),
        (lab.project().join(".git/hooks"), "protected by protected.yaml"),
    ] {
        let error = stand(dir.clone()).map(|_| ()).unwrap_err().to_string();
        assert!(error.starts_with("default.yaml:") && error.contains(what), "{error}");
        // The root cannot be granted at all: a view of everything is no box.
        let whole = dir == Path::new("/");
        assert_eq!(error.contains("-w /"), !whole, "{error}");
        let said = Request {
            chdir: Some(dir.clone()),
            write: vec![dir],
            policies: strings(&["default"]),
            ..Request::default()
        };
        let told = lab.load(&said);
        match &told {
            Err(LoadError::Whole { .. }) => assert!(whole),
            Ok(_) | Err(LoadError::Own { .. }) => assert!(!whole),
            Err(error) => panic!("{error}"),
        }
    }
    assert!(stand(lab.project()).is_ok());
}

#[test]
fn a_working_directory_that_is_none_is_an_error() {
    let lab = Lab::new();
    let error = lab.load(&Request { chdir: Some("nope".into()), ..Request::default() }).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("nope is not a directory"), "{error}");
}

#[test]
fn own_state_and_policy_files_are_guarded() {
    let lab = Lab::new();
    let policy = lab.policy("filesystem: {write: ['~']}\n");
    let state = lab.home().join(".local/state/agentbox/runs/x");
    assert!(policy.files.guards.of(GuardKind::Deny).iter().any(|g| g.pattern.matches(&state)));
    assert!(
        policy.files.guards.of(GuardKind::Protect).iter().any(|g| g.pattern.matches(&lab.project().join("test.yaml")))
    );
}

#[test]
fn the_digest_depends_on_what_decides_and_on_nothing_else() {
    let lab = Lab::new();
    let digest = |rules: &str| lab.policy(rules).digest;
    assert_eq!(
        digest("filesystem: {read: [/usr]}\n"),
        digest("# said otherwise\nfilesystem:\n  read:\n  - {path: /usr/, why: x}\n")
    );
    assert_ne!(digest("filesystem: {read: [/usr]}\n"), digest("filesystem: {write: [/usr]}\n"));
    assert_ne!(digest("filesystem: {deny: ['/a?']}\n"), digest("filesystem: {deny: ['/a*']}\n"));
    assert_ne!(digest("exec: {allow: [a]}\n"), digest("exec: {deny: [a]}\n"));
    assert_ne!(digest("network: {mode: host}\n"), digest("network: {mode: none}\n"));
}

#[test]
fn only_listed_variables_pass_and_credentials_only_by_name() {
    let lab = Lab::new();
    let mut world = lab.world();
    for name in [
        "PATH",
        "LC_ALL",
        "LD_PRELOAD",
        "GITHUB_TOKEN",
        "AWS_REGION",
        "MY_KEY",
        "PY_X",
        "PY_SECRET",
        "DENIED",
        "lower_token",
    ] {
        world.vars.insert(name.into(), "v".into());
    }
    lab.write(
        "home/project/t.yaml",
        "version: 1\nextends: [base]\nenv: {pass: ['PY_*', MY_KEY, DENIED], deny: ['DEN*'], set: {X: 1}}\n",
    );
    let get = |env: &[&str], clean_env| {
        let request = Request { policies: strings(&["./t.yaml"]), env: strings(env), clean_env, ..Request::default() };
        crate::policy::load(&request, &world).unwrap().policy
    };
    let policy = get(&[], false);
    assert_eq!(vars(&policy), ["AGENTBOX=1", "LC_ALL=v", "MY_KEY=v", "PATH=v", "PY_X=v", "TMPDIR=/tmp", "X=1"]);
    assert_eq!(policy.env.withheld, ["AWS_REGION", "GITHUB_TOKEN", "PY_SECRET", "lower_token"]);
    assert_eq!(vars(&get(&["GITHUB_TOKEN", "A=b=c", "UNSET"], true)), ["A=b=c", "GITHUB_TOKEN=v"]);
    let bad = Request { env: strings(&["=x"]), ..Request::default() };
    assert!(lab.load(&bad).is_err());
}

#[test]
fn the_environment_can_name_the_policy() {
    let lab = Lab::new();
    let mut world = lab.world();
    world.vars.insert("AGENTBOX_POLICY".into(), "python".into());
    assert_eq!(&*crate::policy::load(&Request::default(), &world).unwrap().policy.name, "python.yaml");
}

#[test]
fn a_projects_policy_counts_only_while_its_exact_content_is_trusted() {
    let lab = Lab::new();
    let text = "version: 1\nextends: [base]\nfilesystem: {write: [., /usr]}\n";
    let file = lab.write("home/project/agentbox.yaml", text);
    fs::create_dir_all(lab.project().join("deep/er")).unwrap();
    let deep = Request { chdir: Some("deep/er".into()), ..Request::default() };
    let untrusted = lab.load(&deep).unwrap();
    assert_eq!(&*untrusted.policy.name, "default.yaml");
    assert_eq!(untrusted.notes.len(), 1);
    assert!(untrusted.notes[0].contains("agentbox trust"), "{}", untrusted.notes[0]);
    trust::trust(&lab.world().state, &file, text.as_bytes()).unwrap();
    let trusted = lab.load(&deep).unwrap();
    assert_eq!((&*trusted.policy.name, trusted.notes.len()), ("agentbox.yaml", 0));
    lab.write("home/project/agentbox.yaml", &format!("{text}# changed\n"));
    let changed = lab.load(&deep).unwrap();
    assert_eq!(&*changed.policy.name, "default.yaml");
    assert!(changed.notes[0].contains("has changed"), "{}", changed.notes[0]);
    lab.write("home/project/agentbox.yaml", text);
    assert!(trust::revoke(&lab.world().state, &file).unwrap());
    assert_eq!(&*lab.load(&deep).unwrap().policy.name, "default.yaml");
}

#[test]
fn what_a_trusted_file_extends_must_be_trusted_too() {
    let lab = Lab::new();
    let inner = "version: 1\nfilesystem: {write: [/usr]}\n";
    let outer = "version: 1\nextends: [base, ./inner.yaml]\n";
    let (inner_file, outer_file) =
        (lab.write("home/project/inner.yaml", inner), lab.write("home/project/agentbox.yaml", outer));
    let state = lab.world().state;
    trust::trust(&state, &outer_file, outer.as_bytes()).unwrap();
    let error = lab.load(&Request::default()).map(|_| ()).unwrap_err().to_string();
    assert!(error.starts_with("agentbox.yaml:2:17: extends") && error.contains("agentbox trust"), "{error}");
    trust::trust(&state, &inner_file, inner.as_bytes()).unwrap();
    assert!(lab.load(&Request::default()).is_ok());
}

#[test]
fn the_search_for_a_project_ends_at_its_repository() {
    let lab = Lab::new();
    lab.write("home/agentbox.yaml", "version: 1\n");
    assert_eq!(trust::find_project(&lab.project(), &lab.home()), None);
    fs::remove_dir_all(lab.project().join(".git")).unwrap();
    assert_eq!(trust::find_project(&lab.project(), &lab.home()), Some(lab.home().join("agentbox.yaml")));
    lab.write("agentbox.yaml", "version: 1\n");
    fs::remove_file(lab.home().join("agentbox.yaml")).unwrap();
    assert_eq!(trust::find_project(&lab.project(), &lab.home()), None);
}

#[test]
fn a_record_of_trust_that_others_can_write_is_an_error() {
    let lab = Lab::new();
    let state = lab.world().state;
    let file = lab.write("home/project/agentbox.yaml", "version: 1\n");
    trust::trust(&state, &file, b"version: 1\n").unwrap();
    assert_eq!(fs::metadata(state.join("trusted")).unwrap().permissions().mode() & 0o777, 0o700);
    fs::set_permissions(state.join("trusted"), fs::Permissions::from_mode(0o777)).unwrap();
    assert!(trust::is_trusted(&state, &file, b"version: 1\n").is_err());
}

#[test]
fn a_file_that_is_no_file_is_an_error_at_once() {
    let lab = Lab::new();
    let fifo = lab.project().join("fifo.yaml");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for path in [fifo, lab.project(), PathBuf::from("/dev/zero"), lab.project().join("none.yaml")] {
        assert!(check(&path, &lab.world()).is_err(), "{}", path.display());
    }
}
