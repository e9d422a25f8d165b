//! Rules for programs with arguments: which command lines they hold, in every spelling.

use super::Lab;
use crate::event::{Access, BoxPath, Effect, Event, Exec, Loaded, Reason, Subject, Verdict, escape_bytes};
use crate::policy::{Policy, decide};

/// The start of `/usr/bin/NAME` with these arguments, the first one its name as it is told.
fn start(program: &str, argv: &[&str]) -> Exec {
    let program = if program.starts_with('/') { program.to_string() } else { format!("/usr/bin/{program}") };
    let called = program.rsplit('/').next().unwrap().to_string();
    let argv = argv.iter().map(|argument| escape_bytes(argument.as_bytes())).collect();
    Exec::of(BoxPath::new(program).unwrap(), called, argv)
}

fn judge(policy: &Policy, exec: Exec) -> Verdict {
    decide(policy, &Event::new(Subject::default().into(), Access::Exec(exec)))
}

/// A command line in words, of which single quotes make one.
fn words(line: &str) -> Vec<&str> {
    let mut words = Vec::new();
    for (at, part) in line.split('\'').enumerate() {
        if at % 2 == 1 { words.push(part) } else { words.extend(part.split_whitespace()) }
    }
    words
}

/// Holds command lines against one rule in a list: `+` before those that it speaks of, `-` before the others.
fn table(key: &str, rule: &str, lines: &[&str]) {
    let lab = Lab::new();
    let policy = match key {
        "allow" => lab.policy(&format!("exec: {{allow: [{rule}]}}\n")),
        key => lab.policy(&format!("exec: {{allow: ['*'], {key}: [{rule}]}}\n")),
    };
    let spoken = match key {
        "allow" => Effect::Allow,
        "ask" => Effect::Ask,
        _ => Effect::Deny,
    };
    let mut wrong = Vec::new();
    for line in lines {
        let (expected, line) = line.split_at(1);
        let argv = words(line);
        let verdict = judge(&policy, start(argv[0], &argv));
        let named = *verdict.rule.0 == *format!("./test.yaml exec.{key}[0]");
        if (verdict.effect == spoken && named) != (expected == "+") {
            wrong.push(format!("{rule}: {line}: {:?} by {}", verdict.effect, verdict.rule));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn words_stand_for_arguments_one_by_one() {
    table("deny", "git", &["+git", "+git push", "+git status", "-gitk", "-git2 push"]);
    table("deny", "'git push *'", &["+git push", "+git push origin", "+git push -f origin x", "-git", "-git pull"]);
    table("deny", "git push", &["+git push", "-git push origin", "-git", "-git pushes"]);
    table("deny", "'git *'", &["+git", "+git push"]);
    table("deny", "{run: git, args: []}", &["+git", "-git push"]);
    table("deny", "{run: git, args: [push, '*']}", &["+git push", "+git push x y", "-git"]);
    table("deny", "{run: git, args: ['*', x]}", &["+git a x", "-git x", "-git a b x", "-git a"]);
    table("deny", "'rm -rf *'", &["+rm -rf /", "+rm -rf", "-rm -r -f /", "-rm x", "+rm -v -rf x"]);
    table("deny", "'git pu?h'", &["+git push", "-git puh", "-git puush"]);
    table("deny", "'git {push,pull} *'", &["+git push x", "+git pull", "-git {push,pull}", "-git fetch"]);
    table("deny", "'git [a-c]* --force'", &["+git checkout --force", "-git push --force", "-git checkout --force x"]);
    table("deny", "'curl *://*.example.org/* *'", &["+curl https://a.example.org/x", "-curl https://example.com/"]);
    table("deny", "'chmod *7 *'", &["+chmod 777 x", "+chmod 0007 x y", "-chmod 755 x"]);
    table("deny", "'python* -m pip *'", &["+python3 -m pip install x", "+python -m pip", "-python3 -m venv x"]);
}

#[test]
fn quotes_make_words_and_take_wildcards_their_meaning() {
    table("deny", r#""git commit -m 'a b'""#, &["+git commit -m 'a b'", "-git commit -m a b"]);
    table("deny", r#""git add '*'""#, &["+git add *", "-git add x", "-git add"]);
    table("deny", r#"'git add "a?"'"#, &["+git add a?", "-git add ab"]);
    table("deny", r"'git add \*'", &["+git add *", "-git add x"]);
    table("deny", r#""git commit -m ''""#, &["-git commit -m x", "+git commit -m ''"]);
    table("deny", r"'git add \{a,b}'", &["+git add {a,b}", "-git add a"]);
    table("deny", r"{run: git, args: [add, '\*']}", &["+git add *", "-git add x"]);
    table("deny", r"'to\ol x'", &["+tool x", "-to x"]);
}

#[test]
fn a_home_and_variables_are_worked_out_in_arguments() {
    let lab = Lab::new();
    let policy = lab.policy("exec: {allow: ['*'], deny: ['rm -rf ~', 'rm -rf $WORKDIR/*', \"rm -f '~'\"]}\n");
    let (home, below) = (lab.home(), lab.project().join("x"));
    for (args, effect) in [
        (["-rf", home.to_str().unwrap()], Effect::Deny),
        (["-rf", below.to_str().unwrap()], Effect::Deny),
        (["-rf", "~"], Effect::Allow),
        (["-f", "~"], Effect::Deny),
    ] {
        assert_eq!(judge(&policy, start("rm", &["rm", args[0], args[1]])).effect, effect, "{args:?}");
    }
}

#[test]
fn a_refusal_looks_behind_leading_options() {
    table(
        "deny",
        "'git push *'",
        &[
            "+git -C dir push origin",
            "+git -c a=b -C dir --no-pager push",
            "+git --git-dir=x push",
            "+git --git-dir x --work-tree y push",
            "+git --bare push",
            "-git -C push status",
            "-git status push",
            "-git -c push",
            "+git-push origin",
            "+/usr/lib/git-core/git-push",
        ],
    );
    table("ask", "'docker push *'", &["+docker -H x push y", "+docker --context=x push", "-docker -H push ps"]);
    table("ask", "'kubectl delete *'", &["+kubectl -n x delete pod y", "+kubectl --context x delete", "-kubectl get"]);
    table("ask", "'npm publish *'", &["+npm --prefix x publish", "+npm --silent publish", "-npm run publish"]);
    table("ask", "'cargo publish *'", &["+cargo +nightly publish", "+cargo -Z x publish", "-cargo build publish"]);
    table("deny", "'tool drop *'", &["+tool -v --now drop x", "-tool -o file drop"]);
}

#[test]
fn a_refusal_sees_through_launchers() {
    table(
        "deny",
        "'git push *'",
        &[
            "+env git push",
            "+env -i A=b git push",
            "+env -u X -C /tmp --unset=Y A=b C=d /usr/bin/git push",
            "+env -S 'git push' x",
            "+env -iS 'A=b git push'",
            "+env '--split-string=git push'",
            "-env -S 'git ${X}'",
            "-env git status",
            "-env --unheard-of git push",
            "+env - git push",
            "+nice git push",
            "+nice -n 5 git push",
            "+nice -10 git push",
            "+nice --adjustment=5 git push",
            "+nohup git push",
            "+timeout 5 git push",
            "+timeout -k 3 -s KILL 5 git push",
            "+timeout --signal=KILL --foreground 5 git push",
            "-timeout git push",
            "+stdbuf -oL git push",
            "+stdbuf -o L -e 0 git push",
            "+setsid -w git push",
            "+ionice -c 3 git push",
            "-ionice -p 7 git push",
            "+chrt -b 0 git push",
            "+time -f %e git push",
            "+xargs git push",
            "+xargs -0 -n 1 git push",
            "-xargs -r git push",
            "-xargs -I git git push",
            "-xargs git",
            "+env nice nohup timeout 5 stdbuf -oL git push",
            "+busybox env git push",
            "-echo git push",
            "-make push",
        ],
    );
    // What xargs adds is not known: neither is that nothing is added.
    table("deny", "git push", &["-xargs git push", "+nohup git push"]);
}

#[test]
fn a_shell_is_refused_for_what_it_carries_out_itself() {
    table(
        "deny",
        "'kill *'",
        &[
            "+kill 7",
            "+sh -c 'kill 7'",
            "+sh -c 'true; kill 7'",
            "+bash -ec 'x && A=b kill -9 7 >log 2>&1'",
            "+bash --norc -c 'command kill 7'",
            "+bash -c 'builtin kill 7'",
            "+dash -c 'echo y | kill 7'",
            "+env sh -c 'kill 7'",
            "+busybox sh -c 'kill 7'",
            "-sh -c 'killall x'",
            "-sh -c 'echo kill 7'",
            "-sh -c 'kill $X'",
            "-sh -nc 'kill 7'",
            "-sh 'kill 7'",
            "-sh -c 'if true; then kill 7; fi'",
            "-sh -c '# kill 7'",
        ],
    );
    // What has an exec of its own is refused there, and the shell goes on.
    table("deny", "'git push *'", &["-sh -c 'git push'", "-bash -c 'cd x && git push || true'"]);
    table("deny", "'git push *'", &["+busybox sh -c 'git push'", "+busybox sh -c 'cd x && git push'"]);
}

#[test]
fn an_applet_is_a_program() {
    let lines = ["+busybox wget x", "+/opt/busybox wget", "-busybox ls wget", "-busybox --list wget", "+wget x"];
    table("deny", "wget", &lines);
    table("deny", "'wget *://*'", &["+busybox wget http://x", "-busybox wget x"]);
    table("deny", "wget", &["+busybox sh -c 'true; wget x'", "-sh -c 'true; wget x'", "+busybox timeout 5 wget x"]);
    let lab = Lab::new();
    let policy = lab.policy("exec: {allow: ['*'], deny: [wget]}\n");
    for (argv, effect) in [
        (&["wget", "x"][..], Effect::Deny),
        (&["/x/wget"], Effect::Deny),
        // It is `ls` that runs, whatever it is given.
        (&["ls", "wget"], Effect::Allow),
        (&["-sh", "-c", "wget x"], Effect::Deny),
    ] {
        assert_eq!(judge(&policy, start("/bin/busybox", argv)).effect, effect, "{argv:?}");
    }
}

#[test]
fn an_allow_rule_is_exact() {
    table(
        "allow",
        "'git status *'",
        &[
            "+git status",
            "+git status -s",
            "-git",
            "-git -C x status",
            "-git push",
            "-env git status",
            "-sh -c 'git status'",
        ],
    );
    table("allow", "{run: git, args: [diff]}", &["+git diff", "-git diff x", "-git"]);
    table("allow", "'busybox ls *'", &["+busybox ls x", "-busybox sh"]);
    let lab = Lab::new();
    let policy = lab.policy("exec: {allow: ['busybox ls *', '/usr/bin/git log *']}\n");
    // Called by another name it does other things.
    for (program, argv, effect) in [
        ("busybox", &["sh", "ls"][..], Effect::Deny),
        ("busybox", &["/bin/busybox", "ls"], Effect::Allow),
        ("git", &["git-receive-pack", "log"], Effect::Deny),
        ("git", &["/usr/bin/git", "log"], Effect::Allow),
        ("git", &[], Effect::Deny),
    ] {
        assert_eq!(judge(&policy, start(program, argv)).effect, effect, "{argv:?}");
    }
}

#[test]
fn deny_goes_before_ask_and_ask_before_allow() {
    let lab = Lab::new();
    let policy = lab.policy(
        "exec:\n  allow: ['*', git push]\n  ask: [{run: 'git push *', message: pushing needs a person}, sudo]\n  \
         deny: [{run: git push --force *, message: never}, env]\n",
    );
    for (argv, effect, reason, key) in [
        (&["git", "push"][..], Effect::Ask, Reason::AskRule, "exec.ask[0]"),
        (&["git", "push", "--force", "x"], Effect::Deny, Reason::DenyRule, "exec.deny[0]"),
        (&["git", "status"], Effect::Allow, Reason::Granted, "exec.allow[0]"),
        // Deny goes first also where the ask rule speaks of the program itself.
        (&["sudo"], Effect::Ask, Reason::AskRule, "exec.ask[1]"),
        (&["nice", "env", "git", "push"], Effect::Deny, Reason::DenyRule, "exec.deny[1]"),
        (&["nice", "sudo"], Effect::Ask, Reason::AskRule, "exec.ask[1]"),
    ] {
        let verdict = judge(&policy, start(argv[0], argv));
        assert_eq!((verdict.effect, verdict.reason), (effect, reason), "{argv:?}");
        assert_eq!(&*verdict.rule.0, format!("./test.yaml {key}"), "{argv:?}");
    }
    assert_eq!(judge(&policy, start("git", &["git", "push"])).message.as_deref(), Some("pushing needs a person"));
}

#[test]
fn scripts_and_what_the_loader_runs_are_judged_with_their_arguments() {
    let lab = Lab::new();
    let policy = lab.policy("exec: {allow: ['*'], deny: ['deploy.sh prod *', 'git push *', 'python3 -I *', wget]}\n");
    let script = |line: &[&str], interpreter: &str, argv: &[&str]| Exec {
        interpreter: BoxPath::new(interpreter),
        line: line.iter().map(|word| word.to_string()).collect(),
        ..start("/opt/deploy.sh", argv)
    };
    let loaded = |program: &str, at, argv: &[&str]| Exec {
        loaded: Some(Loaded { program: BoxPath::new(program).unwrap(), at }),
        ..start("/lib/ld-linux-x86-64.so.2", argv)
    };
    for (exec, effect) in [
        (script(&["/bin/sh", "./deploy.sh"], "/bin/sh", &["./deploy.sh", "prod"]), Effect::Deny),
        (script(&["/bin/sh", "./deploy.sh"], "/bin/sh", &["./deploy.sh", "test"]), Effect::Allow),
        (script(&["/usr/bin/python3", "-I", "./x"], "/usr/bin/python3.13", &["./x"]), Effect::Deny),
        (script(&["/bin/busybox", "wget", "./x"], "/bin/busybox", &["./x"]), Effect::Deny),
        (script(&["/usr/bin/env", "-S git push", "./x"], "/usr/bin/env", &["./x"]), Effect::Deny),
        (loaded("/usr/bin/git", 1, &["ld.so", "/usr/bin/git", "push"]), Effect::Deny),
        (loaded("/usr/bin/git", 3, &["ld.so", "--argv0", "x", "./link", "push"]), Effect::Deny),
        (loaded("/usr/bin/git", 1, &["ld.so", "/usr/bin/git", "status"]), Effect::Allow),
        (loaded("/bin/busybox", 1, &["ld.so", "/bin/busybox", "wget"]), Effect::Deny),
    ] {
        let shown = format!("{exec:?}");
        assert_eq!(judge(&policy, exec).effect, effect, "{shown}");
    }
}

#[test]
fn arguments_are_judged_whole_or_refused() {
    let lab = Lab::new();
    let policy = lab.policy("exec: {allow: ['*'], deny: ['git * last'], ask: ['tool x']}\n");
    let mut whole = start("git", &["git", "a"]);
    (whole.rest, whole.argc) = (vec!["last".into()], 3);
    assert_eq!(judge(&policy, whole).reason, Reason::DenyRule);
    let mut cut = start("git", &["git", "a"]);
    cut.argc = 3;
    let verdict = judge(&policy, cut);
    assert_eq!((verdict.effect, verdict.reason), (Effect::Deny, Reason::Unjudged));
    // No rule about its arguments: nothing is missing.
    let mut other = start("ls", &["ls", "a"]);
    other.argc = 3;
    assert_eq!(judge(&policy, other).effect, Effect::Allow);
    let policy = lab.policy("exec: {allow: ['ls *']}\n");
    let mut cut = start("ls", &["ls", "a"]);
    cut.argc = 3;
    assert_eq!(judge(&policy, cut).effect, Effect::Deny);
}

#[test]
fn bytes_that_are_not_text_are_arguments_too() {
    let lab = Lab::new();
    let policy = lab.policy(r"exec: {allow: ['*'], deny: ['tool a?c', 'tool \\']}");
    for (argument, effect) in [(r"a\xffc", Effect::Deny), (r"\\", Effect::Deny), (r"a\\\\c", Effect::Allow)] {
        let mut exec = start("tool", &["tool", ""]);
        exec.argv[1] = argument.into();
        assert_eq!(judge(&policy, exec).effect, effect, "{argument}");
    }
}

#[test]
fn the_digest_depends_on_arguments() {
    let lab = Lab::new();
    let digest = |rules: &str| lab.policy(&format!("exec: {{allow: ['*'], {rules}}}\n")).digest;
    let all = [
        "deny: [git]",
        "deny: [git x]",
        "deny: ['git x *']",
        "deny: ['git *']",
        "deny: [{run: git, args: []}]",
        "ask: [git]",
        "deny: [git x y]",
        "deny: [git 'x y']",
    ];
    let digests: std::collections::BTreeSet<String> = all.iter().map(|rules| digest(rules)).collect();
    assert_eq!(digests.len(), all.len());
    assert_eq!(digest("deny: ['git  x  *']"), digest("deny: [{run: git, args: [x, '*']}]"));
}

#[test]
fn many_rules_and_many_arguments_are_judged_fast() {
    let lab = Lab::new();
    let rules: String = (0..10_000).map(|n| format!("'tool{n} drop *', ")).collect();
    let policy = lab.policy(&format!("exec: {{allow: ['*'], deny: [{rules} 'git push *']}}\n"));
    let begun = std::time::Instant::now();
    for _ in 0..1000 {
        assert_eq!(judge(&policy, start("git", &["git", "status"])).effect, Effect::Allow);
    }
    assert!(begun.elapsed().as_secs() < 10, "{:?}", begun.elapsed());
    let mut argv = vec!["env", "nice", "timeout", "5", "git", "-v"];
    argv.resize(100_000, "-x");
    argv.push("push");
    let begun = std::time::Instant::now();
    assert_eq!(judge(&policy, start("env", &argv)).effect, Effect::Deny);
    let long = format!("echo {}; true", "a b\\ 'c' ".repeat(20_000));
    assert_eq!(judge(&policy, start("sh", &["sh", "-c", &long])).effect, Effect::Allow);
    let many = "true;".repeat(20_000);
    assert_eq!(judge(&policy, start("sh", &["sh", "-c", &many])).effect, Effect::Allow);
    assert!(begun.elapsed().as_secs() < 10, "{:?}", begun.elapsed());
}

#[test]
fn scripts_are_followed_where_ones_own_rules_tell_programs_apart() {
    let lab = Lab::new();
    let told_apart = |text: &str| lab.policy(text).exec.told_apart;
    for (own, expected) in [
        ("extends: [default]\n", false),
        ("extends: [default]\nexec: {allow: [\"*\"]}\n", false),
        ("extends: [default]\nexec: {deny: [curl]}\n", true),
        ("extends: [default]\nexec: {ask: [\"git push *\"]}\n", true),
        ("extends: [base]\nexec: {allow: [git]}\n", true),
    ] {
        assert_eq!(told_apart(own), expected, "{own}");
    }
}
