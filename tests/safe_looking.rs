//! Command lines that look harmless to whoever reads them, and run, read or reach what is denied.
//!
//! Each line is run free first, as a control, and does what it hides. In the box it comes to the same as the plain
//! spelling: refused, with a record that names the act, its object and the rule. Nothing here reads a command line.

mod common;

use std::os::unix::net::UnixListener;

use common::{Outcome, PATH, Scene, program, text};
use serde_json::Value;

const POLICY: &str = "version: 1\nextends: [default]\nexec:\n  deny: [{run: touchmark, message: never this}]\n\
                      filesystem:\n  deny: ['**/.env']\n";

/// What a line hides.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Hidden {
    /// Runs `touchmark`, which leaves a mark.
    Run,
    /// Prints what `.env` holds.
    Read,
    /// Connects to a socket of somebody outside.
    Connect,
}
use Hidden::{Connect, Read, Run};

impl Hidden {
    /// The operation, the object and the rule that a record must have.
    fn denial(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Run => ("exec", "touchmark", "exec.deny[0]"),
            Read => ("read", ".env", "filesystem.deny[0]"),
            Connect => ("connect", "work/sock", "default"),
        }
    }

    fn plain(self) -> &'static str {
        match self {
            Run => "touchmark",
            Read => "cat .env",
            Connect => CONNECT_PYTHON,
        }
    }
}

const CONNECT_PYTHON: &str = "python3 -c 'import socket; socket.socket(socket.AF_UNIX).connect(\"sock\")'";

/// What a line needs besides a shell, what it hides, and the line.
const LINES: &[(&str, Hidden, &str)] = &[
    // The shell's own ways to run one thing inside another.
    ("", Run, "echo \"today is $(touchmark)\""),
    ("", Run, "echo `touchmark`"),
    ("", Run, "to\"uch\"ma\\rk"),
    ("", Run, "$'\\x74ouchmark'"),
    ("", Run, "t=touch; ${t}mark"),
    ("", Run, "bin/touch?ark"),
    ("", Run, "cat <<E\n$(touchmark)\nE"),
    ("", Run, "bash <<'E'\ntouchmark\nE"),
    ("", Run, "diff <(touchmark) /dev/null"),
    ("", Run, "echo x > >(touchmark); sleep 0.3"),
    ("", Run, "trap touchmark EXIT"),
    ("", Run, "eval \"$(printf 'touch%s' mark)\""),
    ("", Run, "printf touchmark | sh"),
    ("", Run, "echo dG91Y2htYXJr | base64 -d | sh"),
    ("", Run, "sh -c 'sh -c \"sh -c touchmark\"'"),
    ("", Run, "echo touchmark >made; . ./made"),
    ("", Run, "echo touchmark >made; BASH_ENV=./made bash -c :"),
    ("", Run, "coproc touchmark; wait"),
    ("", Run, "ls() { touchmark; }; ls"),
    ("", Run, "shopt -s expand_aliases; alias ls=touchmark\nls"),
    ("", Run, "exec -a ls touchmark"),
    ("", Run, "ln -s bin/touchmark git; PATH=.:$PATH; git status"),
    ("", Run, "test -n \"${x:=$(touchmark)}\"; echo"),
    ("", Run, "a=; ((a[$(touchmark)]))"),
    // Programs that start others, as everybody knows.
    ("", Run, "nice touchmark"),
    ("", Run, "timeout 9 touchmark"),
    ("", Run, "setsid -w touchmark"),
    ("", Run, "env -S 'touchmark'"),
    ("", Run, "echo x | xargs touchmark"),
    ("", Run, "find . -maxdepth 0 -exec touchmark ';'"),
    ("flock", Run, "flock made touchmark"),
    ("make", Run, "printf 'all:\\n\\t@touchmark\\n' | make -f -"),
    ("make", Run, "make -f /dev/null --eval='x := $(shell touchmark)'"),
    // Programs that start others, as few remember.
    ("awk", Run, "awk 'BEGIN { system(\"touchmark\") }'"),
    ("awk", Run, "awk 'BEGIN { \"touchmark\" | getline }'"),
    ("", Run, "sed -n '1e touchmark' text"),
    ("", Run, "seq 200000 | sort -S 1k --compress-program=touchmark"),
    ("", Run, "split --filter=touchmark text"),
    ("tar", Run, "tar cf /dev/null --checkpoint=1 --checkpoint-action=exec=touchmark text"),
    ("tar", Run, "tar cf made text; tar xf made --to-command=touchmark"),
    ("zip", Run, "zip -q made.zip text -T -TT 'touchmark #'"),
    ("rsync", Run, "rsync -e touchmark host:text ."),
    ("ssh", Run, "ssh -F /dev/null -o ProxyCommand=touchmark host.invalid"),
    ("ed", Run, "printf '!touchmark\\nq\\n' | ed -s"),
    ("vim", Run, "vim -u NONE -es -c '!touchmark' -c 'q!' </dev/null"),
    ("less", Run, "LESSOPEN='|touchmark %s' less text"),
    ("script git", Run, "script -qc 'git -c core.pager=touchmark -p status' /dev/null"),
    ("script man", Run, "script -qc 'man -P touchmark -l text' /dev/null"),
    ("script", Run, "script -qc touchmark /dev/null"),
    ("ex", Run, "printf '!touchmark\\nq!\\n' | ex -s"),
    ("busybox", Run, "busybox sh -c touchmark"),
    // Languages.
    ("python3", Run, "python3 -c 'import os; os.system(\"touchmark\")'"),
    ("perl", Run, "perl -e 'system \"touchmark\"'"),
    ("perl", Run, "perl -e 'open my $pipe, \"touchmark |\"; print <$pipe>'"),
    ("node", Run, "node -e 'require(\"child_process\").execSync(\"touchmark\")'"),
    // Git runs what its settings, its environment and its addresses say.
    ("git", Run, "git -c alias.st='!touchmark' st"),
    ("git", Run, "git -c core.fsmonitor=touchmark status"),
    ("git", Run, "git -c core.hooksPath=hooks -c user.name=a -c user.email=a@b commit --allow-empty -m x"),
    ("git", Run, "GIT_EDITOR=touchmark git -c user.name=a -c user.email=a@b commit --allow-empty"),
    ("git", Run, "GIT_SSH_COMMAND=touchmark git ls-remote ssh://host.invalid/x"),
    ("git", Run, "git -c protocol.ext.allow=always ls-remote 'ext::touchmark'"),
    ("git", Run, "git -c diff.external=touchmark diff --no-index --ext-diff text /dev/null"),
    // Roads to a file.
    ("", Read, "head -n1 .e??"),
    ("", Read, "grep -rh TOKEN ."),
    ("", Read, "dd if=.env status=none"),
    ("", Read, "echo \"$(<.env)\""),
    ("", Read, "while read -r line; do echo \"$line\"; done <.env"),
    ("", Read, ". ./.env; echo \"$TOKEN\""),
    ("", Read, "ln -s .env made; cat made"),
    ("", Read, "cp .env made; cat made"),
    ("", Read, "cat /proc/self/cwd/.env"),
    ("", Read, "cd bin; cat ../bin/../.env"),
    ("", Read, "find . -name '.e*' -exec cat {} +"),
    ("", Read, "xargs -a .env echo"),
    ("", Read, "sed -n 'r .env' text; sed '' .env"),
    ("tar", Read, "tar c .env | tar xO"),
    ("git", Read, "git diff --no-index /dev/null .env"),
    ("curl", Read, "curl -s \"file://$PWD/.env\""),
    ("python3", Read, "python3 -c 'print(open(\".env\").read())'"),
    // Roads to a service.
    ("python3 curl", Connect, "curl -s -m 5 --unix-socket sock http://localhost/ -o made"),
    ("python3 perl", Connect, "perl -MIO::Socket::UNIX -e 'IO::Socket::UNIX->new(\"sock\") or die'"),
    ("python3 node", Connect, "node -e 'require(\"net\").connect(\"sock\", () => process.exit())'"),
    ("python3", Connect, "ln -s sock made; python3 -c 'import socket; socket.socket(1).connect(\"made\")'"),
];

const _: () = assert!(LINES.len() >= 40);

/// What lies in the workspace before a line runs.
fn lay_out() -> Scene {
    let scene = Scene::new();
    scene.file("policy.yaml", POLICY);
    scene.script("home/work/bin/touchmark", format!("#!/bin/sh\necho ran >>'{}/marks'\n", text(&scene.work)));
    scene.script("home/work/hooks/pre-commit", "#!/bin/sh\ntouchmark\n");
    scene.file("home/work/.env", "TOKEN=s3cret\n");
    scene.file("home/work/text", "one\ntwo\n");
    if program("git").is_some() {
        scene.free_sh("git init -q .").exits(0);
    }
    scene
}

/// Runs the line in a fresh scene, and says whether it did what it hides.
fn run(hidden: Hidden, line: &str, boxed: bool) -> (bool, Outcome) {
    let scene = lay_out();
    let socket = UnixListener::bind(scene.work.join("sock")).expect("listen");
    socket.set_nonblocking(true).expect("look without waiting");
    let path = format!("PATH={}/bin:{PATH}", text(&scene.work));
    let argv = ["/usr/bin/env", &path, "/bin/bash", "-c", line];
    let policy = scene.root.join("policy.yaml");
    let outcome = if boxed { scene.boxed(&["-p", text(&policy)], &argv) } else { scene.free(&argv) };
    let did = match hidden {
        Run => scene.work.join("marks").exists(),
        Read => outcome.out.contains("s3cret") || outcome.err.contains("s3cret"),
        Connect => socket.accept().is_ok(),
    };
    (did, outcome)
}

/// The denials of what is hidden, without the file that holds the rule: each scene has its own.
fn denials(hidden: Hidden, outcome: &Outcome) -> Vec<[String; 5]> {
    let (op, object, rule) = hidden.denial();
    let word = |value: &Value| value.as_str().unwrap_or("-").rsplit('/').next().unwrap_or_default().to_string();
    let mut found = Vec::new();
    for record in outcome.decisions(rule).into_iter().filter(|record| record["target"].to_string().contains(object)) {
        if record["op"] == op && record["verdict"] == "deny" && record["outcome"] == "EACCES" {
            found.push(["op", "verdict", "rule", "reason", "message"].map(|field| word(&record[field])));
        }
    }
    found
}

/// Tries every line that hides this.
fn come_to_the_same_as_the_plain_spelling(hidden: Hidden) {
    if program("bash").is_none() {
        skip!("no bash");
    }
    if hidden == Connect && program("python3").is_none() {
        skip!("no python3");
    }
    let (did, free) = run(hidden, hidden.plain(), false);
    free.must(did, "the control of the plain spelling does nothing");
    let (did, plain) = run(hidden, hidden.plain(), true);
    let expected = denials(hidden, &plain).pop();
    plain.must(!did && expected.is_some(), "the plain spelling is not refused on record");
    let (mut tried, mut wrong) = (0, Vec::new());
    for (needs, _, line) in LINES.iter().filter(|(_, hides, _)| *hides == hidden) {
        if let Some(missing) = needs.split_whitespace().find(|name| program(name).is_none()) {
            println!("not tried without {missing}: {line}");
            continue;
        }
        tried += 1;
        let (did, free) = run(hidden, line, false);
        if !did {
            wrong.push(format!("the control of `{line}` does nothing\n{free}"));
            continue;
        }
        let (did, boxed) = run(hidden, line, true);
        if did {
            wrong.push(format!("`{line}` did it\n{boxed}"));
        } else if !denials(hidden, &boxed).contains(expected.as_ref().expect("looked at above")) {
            wrong.push(format!("`{line}` left no such record as {expected:?}\n{boxed}"));
        }
    }
    println!("{tried} lines that {hidden:?}");
    assert!(wrong.is_empty(), "{} of {tried}:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn what_runs_a_denied_program_is_refused_however_it_looks() {
    come_to_the_same_as_the_plain_spelling(Run);
}

#[test]
fn what_reads_a_denied_file_is_refused_however_it_looks() {
    come_to_the_same_as_the_plain_spelling(Read);
}

#[test]
fn what_connects_to_a_service_outside_is_refused_however_it_looks() {
    come_to_the_same_as_the_plain_spelling(Connect);
}
