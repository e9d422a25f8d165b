//! `agentbox policy` and `agentbox trust` as a person uses them: what they print, where, and how they exit.
#![allow(missing_docs)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// A home with a project in it.
struct Lab(TempDir);

impl Lab {
    fn new() -> Self {
        let top = tempfile::tempdir().unwrap();
        fs::create_dir_all(top.path().join("home/project/.git")).unwrap();
        Self(top)
    }

    fn project(&self) -> PathBuf {
        fs::canonicalize(self.0.path()).unwrap().join("home/project")
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::write(self.project().join(name), text).unwrap();
    }

    fn agentbox(&self, dir: &Path, args: &[&str]) -> Output {
        let binary = std::env::var_os("AGENTBOX_BIN").unwrap_or(env!("CARGO_BIN_EXE_agentbox").into());
        let mut command = Command::new(binary);
        command
            .args(args)
            .current_dir(dir)
            .env_clear()
            .env("HOME", self.project().parent().unwrap())
            .env("PATH", "/usr/bin:/bin");
        command.output().unwrap()
    }

    /// Runs in the project and returns the exit status, stdout and stderr.
    fn run(&self, args: &[&str]) -> (i32, String, String) {
        let out = self.agentbox(&self.project(), args);
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (out.status.code().unwrap(), text(out.stdout), text(out.stderr))
    }
}

#[test]
fn show_prints_each_rule_with_its_origin() {
    let lab = Lab::new();
    let (code, out, err) = lab.run(&["policy", "show", "--deny", "**/.env", "--net", "host"]);
    assert_eq!((code, err.as_str()), (0, ""));
    for line in [
        "policy   default.yaml",
        "network  host",
        "command line --net host",
        "default.yaml filesystem.write[0]",
        "base.yaml filesystem.read[0]",
        "command line --deny **/.env",
        "protected.yaml filesystem.protect[",
        "not run  sudo",
        "env      AGENTBOX HOME PATH TMPDIR",
    ] {
        assert!(out.contains(line), "no `{line}` in\n{out}");
    }
}

#[test]
fn show_names_the_key_that_signs_where_the_policy_says_so() {
    let lab = Lab::new();
    lab.write("team.yaml", "version: 1\nextends: [default]\naudit: {key: ~/keys/log.pem}\n");
    let (code, out, err) = lab.run(&["policy", "show", "-p", "./team.yaml"]);
    assert_eq!((code, err.as_str()), (0, ""));
    let line = out.lines().find(|line| line.starts_with("key ")).unwrap_or_else(|| panic!("{out}"));
    assert!(line.contains("/keys/log.pem ") && line.ends_with("./team.yaml:3:14"), "{line}");
    let (_, out, _) = lab.run(&["policy", "show", "-p", "./team.yaml", "--json"]);
    let value: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert!(value["audit"]["key"].as_str().unwrap().ends_with("/keys/log.pem"), "{out}");
}

#[test]
fn show_as_json_is_one_object() {
    let lab = Lab::new();
    let (code, out, _) = lab.run(&["policy", "show", "--json"]);
    let value: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(code, 0);
    assert_eq!(value["name"], "default.yaml");
    assert_eq!(value["network"]["mode"], "none");
    assert_eq!(value["filesystem"]["write"][0]["path"], lab.project().to_str().unwrap());
    assert!(value["filesystem"]["protect"].as_array().unwrap().len() > 20);
}

#[test]
fn list_names_the_shipped_profiles() {
    let lab = Lab::new();
    let (code, out, _) = lab.run(&["policy", "list"]);
    assert_eq!(code, 0);
    for name in ["base", "default", "python", "toolchains", "protected"] {
        assert!(out.lines().any(|line| line.starts_with(&format!("{name} "))), "{out}");
    }
    let (_, json, _) = lab.run(&["policy", "list", "--json"]);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap()[0]["name"], "base");
}

#[test]
fn check_says_ok_or_what_is_wrong_and_exits_125() {
    let lab = Lab::new();
    lab.write("good.yaml", "version: 1\nextends: [default]\n");
    lab.write("bad.yaml", "version: 1\nfilesytem: {}\n");
    assert_eq!(lab.run(&["policy", "check", "good.yaml"]), (0, "good.yaml: ok\n".into(), String::new()));
    let (code, out, err) = lab.run(&["policy", "check", "good.yaml", "bad.yaml"]);
    assert_eq!((code, out.as_str()), (125, "good.yaml: ok\n"));
    assert_eq!(err, "agentbox: bad.yaml:2:1: unknown key `filesytem`: did you mean `filesystem`?\n");
}

#[test]
fn check_and_run_say_what_was_probably_not_meant() {
    let lab = Lab::new();
    lab.write("odd.yaml", "version: 1\nextends: [default]\nfilesystem: {read: [/etc/shadow]}\n");
    let (code, out, err) = lab.run(&["policy", "check", "odd.yaml"]);
    assert_eq!((code, out.as_str()), (0, "odd.yaml: ok\n"));
    assert!(
        err.starts_with("agentbox: odd.yaml:3:21: filesystem.read[0]: /etc/shadow is denied all the same"),
        "{err}"
    );
    assert_eq!(err.lines().count(), 1, "{err}");
    let noted = lab.run(&["run", "-p", "./odd.yaml", "--", "true"]);
    assert_eq!(noted.0, 0, "{}", noted.2);
    assert!(noted.2.contains("./odd.yaml:3:21: filesystem.read[0]") && noted.2.lines().count() == 1, "{}", noted.2);
    assert_eq!(lab.run(&["run", "-q", "-p", "./odd.yaml", "--", "true"]), (0, String::new(), String::new()));
}

#[test]
fn a_rule_that_denies_the_command_itself_is_refused_before_the_start() {
    let lab = Lab::new();
    for (flag, pattern) in [("--deny", "/usr/bin/*"), ("--deny-read", "**/true"), ("--deny", "**")] {
        let (code, _, err) = lab.run(&["run", flag, pattern, "--", "true"]);
        assert_eq!(code, 125, "{flag} {pattern}: {err}");
        assert_eq!(err.lines().count(), 1, "{err}");
        assert!(err.contains(&format!("command line {flag} {pattern}: `{pattern}` covers the")), "{err}");
    }
    let (code, _, err) = lab.run(&["run", "--deny", "/usr/bin/fals?", "--deny-write", "/usr/bin/*", "--", "true"]);
    assert_eq!((code, err.as_str()), (0, ""));
}

#[test]
fn the_plan_says_which_rule_costs_what() {
    let lab = Lab::new();
    let plan = |flags: &[&str]| lab.run(&[&["policy", "show", "--plan"], flags].concat()).1;
    assert!(plan(&[]).contains("calls     opens for reading run at native speed"), "{}", plan(&[]));
    assert!(plan(&[]).contains("calls     times (utime) run at native speed"), "{}", plan(&[]));
    let denied = plan(&["--deny", "**/.env"]);
    for line in [
        "opens for reading stop: command line --deny **/.env is a pattern, which no mount can mask",
        "times (utime) stop: command line --deny **/.env is a pattern, which no mount can hold",
        "attributes (xattr) stop: command line --deny **/.env is a pattern, which no mount can hold",
    ] {
        assert!(denied.contains(line), "no `{line}` in\n{denied}");
    }
    let fixed = plan(&["--deny-write", "**/*.lock"]);
    assert!(fixed.contains("opens for reading run at native speed"), "{fixed}");
    let (_, json, _) = lab.run(&["policy", "show", "--plan", "--json", "--deny-read", "**/.env"]);
    let stops = &serde_json::from_str::<serde_json::Value>(&json).unwrap()["plan"]["plan"]["stops"];
    let why = stops["read_open"].as_str().unwrap();
    assert!(why.starts_with("command line --deny-read **/.env"), "{stops}");
    assert_eq!(stops["metadata"]["utime"], serde_json::Value::Null, "{stops}");
}

#[test]
fn every_bad_file_gives_one_line_and_125() {
    let lab = Lab::new();
    let mut bomb = String::from("version: 1\na0: &a0 [x,x,x,x,x,x,x,x,x]\n");
    for n in 1..9 {
        bomb.push_str(&format!("a{n}: &a{n} [{}]\n", format!("*a{},", n - 1).repeat(9)));
    }
    let cases: [(&str, Vec<u8>); 18] = [
        ("unknown key", "version: 1\nfoo: 1\n".into()),
        ("wrong type", "version: 1\nfilesystem: {read: 1}\n".into()),
        ("bad pattern", "version: 1\nfilesystem: {deny: ['[']}\n".into()),
        ("empty range", "version: 1\nfilesystem: {deny: ['[z-a]']}\n".into()),
        ("above the root", "version: 1\nfilesystem: {deny_write: ['/../x']}\n".into()),
        ("contradiction", "version: 1\nfilesystem: {read: [/srv], deny: [/srv]}\n".into()),
        ("no place to start", "version: 1\nfilesystem: {deny: ['**']}\n".into()),
        ("missing profile", "version: 1\nextends: [nope]\n".into()),
        ("missing file", "version: 1\nextends: [./nope.yaml]\n".into()),
        ("circle", "version: 1\nextends: [./bad.yaml]\n".into()),
        ("not yet", "version: 1\nlimits: {memory: 1G}\n".into()),
        ("argv", "version: 1\nexec: {deny: ['git \"push']}\n".into()),
        ("bomb", bomb.into()),
        ("large", vec![b'a'; 10 << 20]),
        ("deep", format!("version: 1\nenv: {}", "[".repeat(100_000)).into()),
        ("binary", (0..=255).collect()),
        ("empty", Vec::new()),
        ("elf", fs::read("/proc/self/exe").unwrap()[..4096].to_vec()),
    ];
    for (what, content) in cases {
        lab.write("bad.yaml", content);
        for args in [["policy", "check", "bad.yaml"], ["policy", "show", "-p./bad.yaml"]] {
            let (code, out, err) = lab.run(&args);
            assert_eq!((code, out.as_str()), (125, ""), "{what}: {err}");
            assert_eq!(err.lines().count(), 1, "{what}: {err}");
            assert!(err.starts_with("agentbox: ") && err.contains("bad.yaml"), "{what}: {err}");
        }
    }
}

#[test]
fn a_file_that_cannot_be_read_says_why_once() {
    let lab = Lab::new();
    let (code, _, err) = lab.run(&["policy", "show", "-p", "./none.yaml"]);
    assert_eq!(
        (code, err.as_str()),
        (125, "agentbox: cannot read policy ./none.yaml: No such file or directory (os error 2)\n")
    );
}

#[test]
fn the_home_and_the_root_are_refused_as_working_directory() {
    let lab = Lab::new();
    for dir in [lab.project().parent().unwrap(), Path::new("/")] {
        let out = lab.agentbox(dir, &["policy", "show"]);
        let err = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(125), "{err}");
        assert!(err.contains("go into a project first"), "{err}");
        // The root is no grant at all, so that way out is not offered.
        assert_eq!(err.contains("or say so with -w"), dir != Path::new("/"), "{err}");
    }
}

#[test]
fn a_bad_flag_is_said_once() {
    let lab = Lab::new();
    for (flag, value, expected) in [
        ("--deny", "[", "agentbox: --deny [: `[` is never closed: close it, or write `\\[` for the character itself\n"),
        ("--deny", "", "agentbox: --deny : the pattern is empty\n"),
        (
            "-r",
            "/",
            "agentbox: command line -r /: / as a whole cannot be granted: name the directories that are needed\n",
        ),
        (
            "-w",
            "/",
            "agentbox: command line -w /: / as a whole cannot be granted: name the directories that are needed\n",
        ),
    ] {
        let (code, _, err) = lab.run(&["policy", "show", flag, value]);
        assert_eq!((code, err.as_str()), (125, expected));
    }
}

#[test]
fn a_projects_policy_is_named_until_it_is_trusted_and_again_once_it_changes() {
    let lab = Lab::new();
    lab.write("agentbox.yaml", "version: 1\nextends: [base]\nfilesystem: {write: [.]}\n");
    let name = |lab: &Lab| {
        let (code, out, err) = lab.run(&["policy", "show"]);
        assert_eq!(code, 0, "{err}");
        (out.lines().next().unwrap().to_string(), err)
    };
    let (policy, note) = name(&lab);
    assert_eq!(policy, "policy   default.yaml");
    assert!(note.contains("is not used: its content is not trusted") && note.lines().count() == 1, "{note}");
    assert_eq!(lab.run(&["trust"]).0, 0);
    assert_eq!(name(&lab), ("policy   agentbox.yaml".into(), String::new()));
    lab.write("agentbox.yaml", "version: 1\nextends: [base]\nfilesystem: {write: [., /usr]}\n");
    assert!(name(&lab).1.contains("has changed since it was trusted"));
    assert_eq!(lab.run(&["trust", "agentbox.yaml"]).0, 0);
    assert_eq!(name(&lab).0, "policy   agentbox.yaml");
    assert_eq!(lab.run(&["trust", "--revoke"]).0, 0);
    assert_eq!(name(&lab).0, "policy   default.yaml");
}

#[test]
fn a_broken_file_is_not_trusted() {
    let lab = Lab::new();
    lab.write("agentbox.yaml", "version: 1\nfoo: 1\n");
    let (code, _, err) = lab.run(&["trust"]);
    assert_eq!(code, 125);
    assert!(err.contains("unknown key `foo`"), "{err}");
    let (code, _, err) = Lab::new().run(&["trust"]);
    assert_eq!(code, 125);
    assert!(err.contains("there is no agentbox.yaml here or above"), "{err}");
}

#[test]
fn rules_for_programs_are_shown_with_their_arguments() {
    let lab = Lab::new();
    lab.write(
        "exec.yaml",
        "version: 1\nextends: [default]\nexec:\n  allow: ['git status *', curl]\n  ask: ['git push *']\n  \
         deny: [{run: git, args: [commit, -m, a b], message: no}, {run: tool, args: []}, curl]\n",
    );
    let (code, out, err) = lab.run(&["policy", "show", "-p", "./exec.yaml"]);
    let note = "./exec.yaml:4:27: exec.allow[1]: curl is denied all the same, by ./exec.yaml:6:83: exec.deny[2]";
    assert_eq!((code, err.as_str()), (0, &*format!("agentbox: {note}\n")));
    let shown: Vec<String> = out.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for line in [
        "run git status * ./exec.yaml exec.allow[0]",
        "ask git push * ./exec.yaml exec.ask[0]",
        "not run git commit -m 'a b' ./exec.yaml exec.deny[0]",
        "not run tool (no arguments) ./exec.yaml exec.deny[1]",
    ] {
        assert!(shown.iter().any(|shown| shown == line), "no `{line}` in\n{out}");
    }
    let (_, json, _) = lab.run(&["policy", "show", "--json", "-p", "./exec.yaml"]);
    let exec = &serde_json::from_str::<serde_json::Value>(&json).unwrap()["exec"];
    assert_eq!(
        exec["ask"][0],
        serde_json::json!({"program": "git", "args": ["push", "*"], "message": null, "rule": "./exec.yaml exec.ask[0]"})
    );
    let denied = exec["deny"].as_array().unwrap();
    assert!(denied.iter().any(|rule| rule["args"] == serde_json::json!([])), "{exec}");
    assert!(denied.iter().any(|rule| rule["program"] == "sudo" && rule["args"].is_null()), "{exec}");
}

#[test]
fn network_rules_are_shown_with_their_origin() {
    let lab = Lab::new();
    lab.write(
        "net.yaml",
        "version: 1\nextends: [default]\nnetwork:\n  allow: ['Example.org:443', {host: 'udp://[2001:db8::/32]:53', why: names}]\n  \
         deny: [{host: 10.0.0.0/8, message: not the office}]\n  publish: [8000, '0:80']\n",
    );
    let flags = ["-p", "./net.yaml", "--net-allow", "*.example.net", "--net-deny", ":25", "--publish", "[::1]:81:80"];
    let (code, out, err) = lab.run(&[&["policy", "show"][..], &flags].concat());
    assert_eq!((code, err.as_str()), (0, ""));
    let shown: Vec<String> = out.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for line in [
        "network rules ./net.yaml network.allow",
        "reach example.org:443 ./net.yaml network.allow[0]",
        "reach udp://[2001:db8::/32]:53 ./net.yaml network.allow[1]",
        "reach *.example.net command line --net-allow *.example.net",
        "no reach 10.0.0.0/8 ./net.yaml network.deny[0]",
        "no reach *:25 command line --net-deny :25",
        "publish 127.0.0.1:8000 → 8000 ./net.yaml network.publish[0]",
        "publish 127.0.0.1:0 → 80 ./net.yaml network.publish[1]",
        "publish [::1]:81 → 80 command line --publish [::1]:81:80",
    ] {
        assert!(shown.iter().any(|shown| shown == line), "no `{line}` in\n{out}");
    }
    let (_, json, _) = lab.run(&[&["policy", "show", "--json"][..], &flags].concat());
    let network = &serde_json::from_str::<serde_json::Value>(&json).unwrap()["network"];
    assert_eq!((&network["mode"], &network["rule"]), (&"rules".into(), &"./net.yaml network.allow".into()));
    assert_eq!(
        network["allow"][0],
        serde_json::json!({"to": "example.org:443", "message": null, "rule": "./net.yaml network.allow[0]"})
    );
    assert_eq!(network["deny"][0]["message"], "not the office");
    assert_eq!(
        network["publish"][2],
        serde_json::json!({"host": "[::1]:81", "port": 80, "rule": "command line --publish [::1]:81:80"})
    );
}

#[test]
fn a_mistake_in_a_network_rule_is_one_line_and_125() {
    let lab = Lab::new();
    for (flags, expected) in [
        (
            &["--net", "none", "--net-allow", "example.org"][..],
            "agentbox: --net-allow and --net none exclude each other: leave one of the two out\n",
        ),
        (
            &["--net", "host", "--net-deny", "example.org"],
            "agentbox: --net-deny and --net host exclude each other: leave one of the two out\n",
        ),
        (
            &["--net-allow", "https://example.org/"],
            "agentbox: --net-allow https://example.org/: a rule names a host and ports, not a URL: write `example.org:443`\n",
        ),
        (
            &["--net-allow", "localhost:8080"],
            "agentbox: --net-allow localhost:8080: loopback in a box is the box's own and always open: to reach a service \
             on this machine, write `host.agentbox.internal:8080`\n",
        ),
        (
            &["--publish", "80:"],
            "agentbox: --publish 80:: nothing is no port: write a number from 1 to 65535; on the host 0 stands for one that is free\n",
        ),
    ] {
        for command in [&["policy", "show"][..], &["run"]] {
            let tail: &[&str] = if command[0] == "run" { &["--", "true"] } else { &[] };
            assert_eq!(lab.run(&[command, flags, tail].concat()), (125, String::new(), expected.into()));
        }
    }
    lab.write("bad.yaml", "version: 1\nnetwork:\n  mode: none\n  allow: [example.org]\n");
    let (code, _, err) = lab.run(&["policy", "check", "bad.yaml"]);
    assert_eq!(code, 125);
    assert_eq!(
        err,
        "agentbox: bad.yaml:4:11: `network.allow` does nothing with `mode: none`: leave one of the two out, or write `mode: rules`\n"
    );
    lab.write("odd.yaml", "version: 1\nnetwork: {allow: ['a.example:443'], deny: ['*.example']}\n");
    let (code, out, err) = lab.run(&["policy", "check", "odd.yaml"]);
    assert_eq!((code, out.as_str()), (0, "odd.yaml: ok\n"));
    let note =
        "odd.yaml:2:19: network.allow[0]: a.example:443 is denied all the same, by odd.yaml:2:44: network.deny[0]";
    assert_eq!(err, format!("agentbox: {note}\n"));
}
