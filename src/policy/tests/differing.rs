//! What a comparison of two policies says must be what their decisions say.

use super::filing::Dice;
use super::{Lab, strings};
use crate::event::{
    Access, BoxPath, Effect, Endpoint, Event, Exec, FileOp, MoveOp, Place, Question, Subject, Transport,
};
use crate::policy::decide::decide;
use crate::policy::diff::{Diff, Line};
use crate::policy::{LoadError, Policy, Request};

fn words(lines: &[Line]) -> Vec<String> {
    lines.iter().map(|line| format!("{} ({})", line.what, line.rule.0.trim_start_matches("./"))).collect()
}

/// Two policies of one lab, as `a.yaml` and `b.yaml`; either keeps both files.
fn pair(lab: &Lab, a: &str, b: &str) -> Result<(Policy, Policy), LoadError> {
    for (name, rules) in [("a", a), ("b", b)] {
        lab.write(&format!("home/project/{name}.yaml"), &format!("version: 1\n{rules}"));
    }
    let own = vec![lab.project().join("a.yaml"), lab.project().join("b.yaml")];
    let load = |name: &str| {
        let request = Request { own: own.clone(), policies: strings(&[name]), ..Request::default() };
        lab.load(&request).map(|loaded| loaded.policy)
    };
    Ok((load("./a.yaml")?, load("./b.yaml")?))
}

#[test]
fn each_kind_of_rule_is_told_with_its_rule() {
    let lab = Lab::new();
    lab.write("home/project/src/x", "");
    lab.write("data/x", "");
    let (data, src) = (lab.path("data"), lab.path("home/project/src"));
    let (data, src) = (data.display(), src.display());
    let tree = |key: &str| format!("filesystem: {{{key}: [{data}]}}");
    for (a, b, more, less, other) in [
        ("", tree("read").as_str(), vec![format!("may read {data} (b.yaml filesystem.read[0])")], vec![], vec![]),
        (
            &tree("read"),
            &tree("write"),
            vec![format!("may change {data} (b.yaml filesystem.write[0])")],
            vec![],
            vec![],
        ),
        (
            &tree("write"),
            "",
            vec![],
            vec![format!("may not read or change {data} (a.yaml filesystem.write[0])")],
            vec![],
        ),
        // What the tree around it grants is nothing more.
        ("filesystem: {write: [.]}", &format!("filesystem: {{write: [., {src}], read: []}}"), vec![], vec![], vec![]),
        (
            "filesystem: {write: [.]}",
            "filesystem: {write: [.], deny: [\"**/.env\"], deny_read: [\"*.key\"]}",
            vec![],
            vec![
                "may not read or change **/.env (b.yaml filesystem.deny[0])".into(),
                "may not read *.key (b.yaml filesystem.deny_read[0])".into(),
            ],
            vec![],
        ),
        // What nothing grants cannot be taken.
        ("", "filesystem: {deny: [/srv/x], deny_read: ['/srv/*.y'], protect: [/srv/z]}", vec![], vec![], vec![]),
        ("filesystem: {deny: [src]}", "filesystem: {deny: [src], deny_read: [src/x]}", vec![], vec![], vec![]),
        (
            "filesystem: {write: [.], protect: [\"**/.git/hooks/**\"]}",
            "filesystem: {write: [., .git/hooks], protect: [\"**/.git/hooks/**\"]}",
            vec![format!(
                "may change {}, protected as **/.git/hooks/** (b.yaml filesystem.write[1])",
                lab.path("home/project/.git/hooks").display()
            )],
            vec![],
            vec![],
        ),
        (
            "exec: {allow: [git, ls], deny: [curl]}",
            "exec: {allow: [git, git status, cat], ask: [git push *], deny: [curl, curl -s]}",
            vec!["may start cat (b.yaml exec.allow[2])".into()],
            vec![
                "may not start ls (a.yaml exec.allow[1])".into(),
                "must ask to start git push * (b.yaml exec.ask[0])".into(),
            ],
            vec![],
        ),
        (
            "network: {mode: rules, allow: [\"*.example.org\"]}",
            "network: {mode: rules, allow: [\"*.example.org\", \"a.example.org:443\", \"b.test:1\"], deny: [\"c.test\"]}",
            vec!["may reach b.test:1 (b.yaml network.allow[2])".into()],
            vec!["may not reach c.test, whatever allows it (b.yaml network.deny[0])".into()],
            vec![],
        ),
        (
            "tiers: {allow: 4, ask: 8}",
            "tiers: {allow: 5, ask: 7}",
            vec!["acts of tier 5 pass (b.yaml tiers.allow)".into()],
            vec!["acts of tier 8 are denied (b.yaml tiers.allow)".into()],
            vec![],
        ),
        (
            "filesystem: {secrets: none}\naudit: {level: minimal}",
            "filesystem: {secrets: none}\naudit: {level: all}",
            vec![],
            vec![],
            vec!["records programs, connections, denials, changes and reads (b.yaml audit.level)".into()],
        ),
        (
            "audit: {level: minimal}",
            "audit: {level: minimal, export: otlp}",
            vec![],
            vec![],
            vec!["is exported while it runs, as otlp (b.yaml audit.export)".into()],
        ),
        (
            "audit: {key: /keys/a}",
            "audit: {key: /keys/b}",
            vec![],
            vec![],
            vec!["signs its record with /keys/b (b.yaml audit.key)".into()],
        ),
        (
            "env: {set: {X: \"1\"}}",
            "env: {set: {Y: \"1\"}}",
            vec!["gets the variable Y (b.yaml env)".into()],
            vec!["does not get the variable X (a.yaml env)".into()],
            vec![],
        ),
    ] {
        let (one, two) = pair(&lab, a, b).unwrap_or_else(|e| panic!("{e}: {a} → {b}"));
        let diff = Diff::of(&one, &two);
        let told = (words(&diff.more), words(&diff.less), words(&diff.other));
        assert_eq!(told, (more, less, other), "{a} → {b}");
        assert!(Diff::of(&one, &one).is_empty(), "{a}");
        // What is more one way is less the other way.
        let back = Diff::of(&two, &one);
        assert_eq!((diff.more.is_empty(), diff.less.is_empty()), (back.less.is_empty(), back.more.is_empty()), "{a}");
    }
}

const NAMES: [&str; 10] =
    ["src", "src/x", "src/x/y", ".env", "src/.env", ".git/hooks", ".git/hooks", ".git/config", "../other", "."];
const PATTERNS: [&str; 9] =
    ["src", "src/x", "**/.env", "src/.env", "*.key", "src/{x,.env}", "../other", ".git", "**/.git/hooks/**"];
const PROTECTED: [&str; 3] = ["\"**/.git/hooks/**\"", "src/x", "\"**/.env\""];
const PROGRAMS: [&str; 6] = ["git", "git push *", "\"*\"", "ls", "ls -l", "curl"];
const HOSTS: [&str; 8] = [
    "\"*\"",
    "a.example.org",
    "\"*.example.org\"",
    "\"a.example.org:443\"",
    "10.0.0.0/8",
    "\"10.1.0.0/16:443\"",
    "198.51.100.7",
    "host.agentbox.internal",
];

/// A policy of one random rule of each of a few kinds.
fn rules(dice: &mut Dice) -> String {
    let mut list = |words: &[&str], most: usize| {
        let count = dice.roll(most + 1);
        let chosen: Vec<&str> = (0..count).map(|_| dice.of(words)).collect();
        format!("[{}]", chosen.join(", "))
    };
    let (read, write, private) = (list(&NAMES, 2), list(&NAMES, 2), list(&["src", "src/x", "/tmp", "/dev/shm"], 1));
    let quoted: Vec<String> = PATTERNS.iter().map(|text| format!("\"{text}\"")).collect();
    let quoted: Vec<&str> = quoted.iter().map(String::as_str).collect();
    let (deny, unread, unwritten, protect) =
        (list(&quoted, 1), list(&quoted, 1), list(&quoted, 1), list(&PROTECTED, 1));
    let (allow, ask, forbid) = (list(&PROGRAMS, 2), list(&PROGRAMS, 1), list(&PROGRAMS, 1));
    let (reach, shut) = (list(&HOSTS, 2), list(&HOSTS, 1));
    let devices = list(&["/dev", "/dev/null"], 1);
    let mode = if reach == "[]" && shut == "[]" { dice.of(&["none", "rules", "host"]) } else { "rules" };
    let network =
        if mode == "rules" { format!("mode: rules, allow: {reach}, deny: {shut}") } else { format!("mode: {mode}") };
    let tiers = dice.of(&[
        "",
        "",
        "tiers: {allow: 3, ask: 6}",
        "tiers: {allow: 4, ask: 6}",
        "tiers: {allow: 3, ask: 6, irreversible: deny}",
    ]);
    let read = if devices == "[]" { read } else { devices };
    format!(
        "filesystem: {{read: {read}, write: {write}, private: {private}, deny: {deny}, deny_read: {unread}, \
         deny_write: {unwritten}, protect: {protect}}}\nexec: {{allow: {allow}, ask: {ask}, deny: {forbid}}}\n\
         network: {{{network}}}\n{tiers}\n"
    )
}

fn event(lab: &Lab, dice: &mut Dice) -> Event {
    let place = |dice: &mut Dice| {
        let start = match dice.roll(8) {
            0 => "/dev/null".into(),
            1 => "/tmp/x".into(),
            2 => lab.path("home"),
            _ => {
                let name = dice.of(&NAMES);
                lab.project().join(name).components().collect()
            }
        };
        let more = dice.of(&["", "z", ".env", "x", "a.key", "x/y/w"]);
        let path = if more.is_empty() { start } else { start.join(more) };
        let path = crate::policy::rules::plain(&path);
        Place { directory: dice.roll(2) == 0, reads: dice.roll(3) == 0, ..Place::of(BoxPath::new(path).unwrap()) }
    };
    let access = match dice.roll(8) {
        0 => {
            let argv: &[&str] = match dice.roll(5) {
                0 => &["git", "push", "origin"],
                1 => &["git", "status"],
                2 => &["ls", "-l"],
                3 => &["ls"],
                _ => &["curl", "-s"],
            };
            let program = BoxPath::new(format!("/usr/bin/{}", argv[0])).unwrap();
            Access::Exec(Exec::of(program, argv[0], strings(argv)))
        }
        1 => Access::Resolve(Question {
            name: dice.of(&["a.example.org", "b.example.org", "x.test"]).into(),
            record: "A".into(),
        }),
        2 => {
            let address = dice.of(&["10.1.2.3", "10.2.2.3", "198.51.100.7", "203.0.113.9"]);
            let port = dice.of(&["443", "80"]);
            let names = match dice.roll(3) {
                0 => vec!["a.example.org".into()],
                1 => vec!["b.example.org".into()],
                _ => vec![],
            };
            let address = format!("{address}:{port}").parse().unwrap();
            Access::Connect { to: Endpoint::Inet { address, outside: true, transport: Transport::Tcp, names } }
        }
        3 => {
            let op = [MoveOp::Rename, MoveOp::Exchange, MoveOp::Link][dice.roll(3)];
            Access::Move { op, from: place(dice), to: place(dice) }
        }
        _ => {
            let ops = [FileOp::Read, FileOp::Write, FileOp::Create, FileOp::Unlink, FileOp::Chmod, FileOp::Symlink];
            Access::File { op: ops[dice.roll(ops.len())], at: place(dice) }
        }
    };
    Event::new(Subject::default().into(), access)
}

#[test]
fn what_is_told_is_what_random_policies_decide() {
    let lab = Lab::new();
    for name in ["home/project/src/x/y/z", "home/project/.env", "home/project/src/.env", "home/other/z"] {
        lab.write(name, "");
    }
    lab.write("home/project/.git/config", "");
    let (mut silent, mut grows) = (0, 0);
    for seed in 1..400u64 {
        let mut dice = Dice(seed * 0x9E37_79B9);
        let first = rules(&mut dice);
        // Mostly a small change to the first, so that often nothing, or only more, is told.
        let second = match dice.roll(4) {
            0 => rules(&mut dice),
            _ => changed(&mut dice, &first),
        };
        // A policy that contradicts itself is refused.
        let Ok((a, b)) = pair(&lab, &first, &second) else { continue };
        let diff = Diff::of(&a, &b);
        silent += usize::from(diff.is_empty());
        grows += usize::from(diff.less.is_empty() && !diff.more.is_empty());
        for _ in 0..200 {
            let event = event(&lab, &mut dice);
            let (was, is) = (decide(&a, &event).effect, decide(&b, &event).effect);
            let told = || format!("seed {seed}\n{first}\n{second}\n{diff:#?}\n{:?}: {was:?} → {is:?}", event.access);
            assert!(was == is || !diff.is_empty(), "nothing is told: {}", told());
            let gone = was == Effect::Allow && is != Effect::Allow;
            assert!(!gone || !diff.less.is_empty(), "no less is told: {}", told());
            let won = was != Effect::Allow && is == Effect::Allow;
            assert!(!won || !diff.more.is_empty(), "no more is told: {}", told());
        }
    }
    assert!(silent > 5 && grows > 5, "{silent} {grows}");
}

/// The same rules with one of their lists drawn anew or made longer by one.
fn changed(dice: &mut Dice, rules: &str) -> String {
    let lists: Vec<(usize, &str)> = rules.match_indices(": [").collect();
    let (at, _) = lists[dice.roll(lists.len())];
    let key = rules[..at].rsplit([' ', '{', '\n']).next().unwrap_or_default();
    let section = rules[..at].rsplit('\n').next().unwrap_or_default().split(':').next().unwrap_or_default();
    let quoted: Vec<String> = PATTERNS.iter().map(|text| format!("\"{text}\"")).collect();
    let quoted: Vec<&str> = quoted.iter().map(String::as_str).collect();
    let words: &[&str] = match (section, key) {
        ("exec", _) => &PROGRAMS,
        ("network", _) => &HOSTS,
        (_, "read" | "write") => &NAMES,
        (_, "private") => &["src", "src/x", "/tmp"],
        _ => &quoted,
    };
    let word = dice.of(words);
    let from = at + ": [".len();
    let comma = if rules[from..].starts_with(']') { "" } else { ", " };
    format!("{}{word}{comma}{}", &rules[..from], &rules[from..])
}
