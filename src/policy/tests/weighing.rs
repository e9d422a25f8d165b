//! What deeds weigh, and what a policy makes of it.

use std::sync::Arc;

use super::Lab;
use crate::event::{Access, Before, Bound, BoxPath, Effect, Endpoint, Event, FileOp, GitState, Kind, Losses, MoveOp};
use crate::event::{ActionId, Receiver, Signal};
use crate::event::{Place, Question, Reach, Reason, Reversibility, Standing, Subject, Transport, Verdict, Where};
use crate::policy::file::PolicyFile;
use crate::policy::{Policy, decide};

fn at(path: impl Into<std::path::PathBuf>) -> Place {
    Place::of(BoxPath::new(path).unwrap())
}

fn holding(path: impl Into<std::path::PathBuf>, git: Option<GitState>) -> Place {
    Place { before: Some(Before { bytes: 100, git, held: false }), ..at(path) }
}

fn ask(policy: &Policy, access: Access, standing: Standing) -> Verdict {
    decide(policy, &Event { subject: Subject::default().into(), access, standing })
}

fn file(policy: &Policy, op: FileOp, at: Place) -> Verdict {
    ask(policy, Access::File { op, at }, Standing::default())
}

fn says(verdict: &Verdict) -> (String, u8) {
    (format!("{:?}{:?}", verdict.weight.reach, verdict.weight.reversibility), verdict.weight.tier)
}

fn is(level: &str, tier: u8) -> (String, u8) {
    (level.into(), tier)
}

#[test]
fn the_published_table_is_whole() {
    let lab = Lab::new();
    let policy = lab.policy("filesystem: {write: [.]}\n");
    assert_eq!(crate::policy::tiers::table_version(), 2);
    // Each row is read by name; a missing one would panic here.
    for kind in [
        Kind::Plain,
        Kind::SecretRead,
        Kind::Persistence,
        Kind::Listed,
        Kind::Unlisted,
        Kind::ListedTainted,
        Kind::UnlistedTainted,
        Kind::Authority,
        Kind::Signal,
    ] {
        let tier = crate::policy::tiers::tier_of(kind);
        assert!((1..=10).contains(&tier), "{kind:?}");
    }
    assert_eq!(says(&file(&policy, FileOp::Read, at(lab.project().join("a")))), is("B0R0", 1));
}

#[test]
fn a_change_weighs_by_where_it_is_and_what_was_there() {
    let lab = Lab::new();
    let other = lab.home().join("other");
    std::fs::create_dir_all(&other).unwrap();
    let policy = lab.policy(&format!("filesystem: {{write: [., {:?}], private: [/tmp/private]}}\n", other));
    let here = |name: &str| lab.project().join(name);
    let before = |held, bytes, git| Some(Before { bytes, git, held });
    for (what, op, place, expected) in [
        ("made", FileOp::Create, at(here("new")), is("B1R1", 2)),
        ("a directory", FileOp::Mkdir, at(here("new")), is("B1R1", 2)),
        ("held by git", FileOp::Unlink, holding(here("a"), Some(GitState::Clean)), is("B1R1", 2)),
        ("changed since", FileOp::Unlink, holding(here("a"), Some(GitState::Modified)), is("B1R3", 6)),
        ("unknown to git", FileOp::Write, holding(here("a"), Some(GitState::Untracked)), is("B1R3", 6)),
        ("no git", FileOp::Truncate, holding(here("a"), None), is("B1R3", 6)),
        ("empty", FileOp::Unlink, Place { before: before(false, 0, None), ..at(here("a")) }, is("B1R1", 2)),
        ("made in the run", FileOp::Unlink, Place { before: before(true, 9, None), ..at(here("a")) }, is("B1R1", 2)),
        ("a cache", FileOp::Unlink, holding(here("node_modules/x/a.js"), None), is("B1R2", 3)),
        ("a tracked cache", FileOp::Unlink, holding(here("node_modules/a"), Some(GitState::Modified)), is("B1R3", 6)),
        ("output", FileOp::Unlink, holding(here("target/a.o"), Some(GitState::Ignored)), is("B1R2", 3)),
        ("no output", FileOp::Unlink, holding(here("target/a.o"), Some(GitState::Untracked)), is("B1R3", 6)),
        ("ignored, no output", FileOp::Unlink, holding(here("notes"), Some(GitState::Ignored)), is("B1R3", 6)),
        ("git's notes", FileOp::Unlink, holding(here(".git/refs/heads/x"), None), is("B1R2", 3)),
        ("git's objects", FileOp::Unlink, holding(here(".git/objects/12/34"), None), is("B1R3", 6)),
        ("home, made", FileOp::Create, at(other.join("new")), is("B2R1", 5)),
        ("home, lost", FileOp::Unlink, holding(other.join("a"), None), is("B2R3", 8)),
        ("private", FileOp::Unlink, holding("/tmp/private/a", None), is("B0R0", 1)),
        ("system", FileOp::Unlink, holding("/etc/a", None), is("B3R3", 10)),
        ("mode", FileOp::Chmod, holding(here("a"), None), is("B1R1", 2)),
    ] {
        assert_eq!(says(&file(&policy, op, place)), expected, "{what}");
    }
    let rename = |from: Place, to: Place| {
        says(&ask(&policy, Access::Move { op: MoveOp::Rename, from, to }, Standing::default()))
    };
    assert_eq!(rename(at(here("a")), at(here("b"))), is("B1R1", 2));
    assert_eq!(rename(at(here("a")), holding(here("b"), None)), is("B1R3", 6));
    assert_eq!(rename(at(other.join("a")), at(here("b"))), is("B2R1", 5));
    assert_eq!(file(&policy, FileOp::Create, at(here("x"))).weight.place, Some(Where::Workspace));
}

#[test]
fn many_losses_in_one_action_weigh_more_than_each() {
    let lab = Lab::new();
    let policy = lab.policy("filesystem: {write: [.]}\n");
    let delete = |so_far: Losses, git| {
        let access = Access::File { op: FileOp::Unlink, at: holding(lab.project().join("a"), git) };
        ask(&policy, access, Standing { so_far, ..Standing::default() }).weight.tier
    };
    let few = Losses { files: 49, bytes: 0 };
    let many = Losses { files: 50, bytes: 0 };
    let large = Losses { files: 1, bytes: 20_000_000 };
    assert_eq!([few, many, large].map(|so_far| delete(so_far, None)), [6, 8, 8]);
    assert_eq!([few, many, large].map(|so_far| delete(so_far, Some(GitState::Clean))), [2, 4, 4]);
}

#[test]
fn many_losses_weigh_the_same_when_they_are_split_up_into_many_actions() {
    let lab = Lab::new();
    let policy = lab.policy("filesystem: {write: [.]}\n");
    let delete = |in_run: Losses| {
        let access = Access::File { op: FileOp::Unlink, at: holding(lab.project().join("a"), None) };
        ask(&policy, access, Standing { in_run, ..Standing::default() }).weight.tier
    };
    let lost = |files, bytes| Losses { files, bytes };
    assert_eq!([lost(199, 0), lost(200, 0), lost(1, 79_999_999), lost(1, 80_000_000)].map(delete), [6, 8, 6, 8]);
}

#[test]
fn the_first_removal_weighs_what_the_whole_would() {
    let lab = Lab::new();
    let policy = lab.policy("filesystem: {write: [.]}\n");
    let delete = |root: &std::path::Path, unheld: u64| {
        let bound =
            Bound { root: BoxPath::new(root).unwrap(), entries: 90, files: 80, bytes: None, unheld, more: false };
        let access = Access::File { op: FileOp::Unlink, at: holding(lab.project().join("d/a"), Some(GitState::Clean)) };
        says(&ask(&policy, access, Standing { bound: Some(Arc::new(bound)), ..Standing::default() }))
    };
    let below = lab.project().join("d");
    assert_eq!(delete(&below, 0), is("B1R1", 2), "all of it is held");
    assert_eq!(delete(&below, 1), is("B1R3", 6));
    assert_eq!(delete(&below, 51), is("B1R3", 8), "and many");
    assert_eq!(delete(&lab.project(), 1), is("B3R3", 10), "the workspace as a whole");
    assert_eq!(delete(lab.home().as_path(), 0), is("B3R1", 8), "what holds it");
}

#[test]
fn many_losses_that_were_counted_beforehand_can_be_asked_about() {
    let lab = Lab::new();
    let other = lab.home().join("other");
    std::fs::create_dir_all(other.join("d")).unwrap();
    let policy = lab.policy(&format!("filesystem: {{write: [., {other:?}]}}\n"));
    let delete = |more: bool, bound: bool, so_far: u64| {
        let root = BoxPath::new(other.join("d")).unwrap();
        let bound = bound.then(|| Arc::new(Bound { root, entries: 900, files: 800, bytes: None, unheld: 800, more }));
        let access = Access::File { op: FileOp::Unlink, at: holding(other.join("d/a"), None) };
        says(&ask(
            &policy,
            access,
            Standing { bound, so_far: Losses { files: so_far, bytes: 0 }, ..Standing::default() },
        ))
    };
    assert_eq!(delete(false, true, 0), is("B2R3", 8));
    assert_eq!(delete(false, true, 400), is("B2R3", 8), "half-way");
    assert_eq!(delete(true, true, 0), is("B2R3", 10), "nobody knows how many");
    assert_eq!(delete(false, false, 400), is("B2R3", 10), "one by one");
}

#[test]
fn a_destination_weighs_by_being_listed_and_by_what_was_read() {
    let lab = Lab::new();
    let listed = lab.policy("network: {allow: [\"192.0.2.1:443\"]}\n");
    let open = lab.policy("network: {mode: host}\n");
    let connect = |policy: &Policy, address: &str, taint: &[&str]| {
        let to = Endpoint::Inet {
            address: address.parse().unwrap(),
            outside: true,
            transport: Transport::Tcp,
            names: Vec::new(),
        };
        let mut standing = Standing::default();
        taint.iter().for_each(|&label| {
            standing.taint.add(&label.into());
        });
        says(&ask(policy, Access::Connect { to }, standing))
    };
    assert_eq!(connect(&listed, "192.0.2.1:443", &[]), is("B2R0", 3));
    assert_eq!(connect(&listed, "192.0.2.1:443", &["env"]), is("B2R3", 8));
    assert_eq!(connect(&listed, "192.0.2.2:443", &[]), is("B3R0", 7));
    assert_eq!(connect(&open, "192.0.2.2:443", &[]), is("B3R0", 7));
    assert_eq!(connect(&open, "192.0.2.2:443", &["env"]), is("B3R3", 9));
    let question = Question { name: "example.org".into(), record: "A".into() };
    let asked = ask(&open, Access::Resolve(question), Standing { taint: ["env"].into(), ..Standing::default() });
    assert!(asked.weight.tier >= 8, "a name can carry a secret: {:?}", asked.weight);
    for (path, tier) in [("/run/docker.sock", 9), ("/run/user/1000/bus", 9), ("/run/postgresql/.s.PGSQL.5432", 7)] {
        let to = Endpoint::Unix { path: BoxPath::new(path).unwrap(), own: false };
        assert_eq!(ask(&open, Access::Connect { to }, Standing::default()).weight.tier, tier, "{path}");
    }
}

#[test]
fn secrets_have_labels_and_examples_are_none() {
    let lab = Lab::new();
    let policy = lab.policy("filesystem: {write: [.], secrets: default}\n");
    let label = |path: std::path::PathBuf| {
        let verdict = file(&policy, FileOp::Read, at(path));
        let labels = verdict.weight.secrets.to_string();
        assert_eq!(verdict.weight.kind, if labels.is_empty() { Kind::Plain } else { Kind::SecretRead });
        labels
    };
    let here = lab.project();
    for (path, expected) in [
        (here.join(".env"), "env"),
        (here.join("sub/.env.production"), "env"),
        (here.join(".env.example"), ""),
        (here.join("environment"), ""),
        (lab.home().join(".ssh/config"), "ssh-key"),
        (here.join("keys/id_ed25519"), "ssh-key"),
        (here.join("keys/id_ed25519.pub"), ""),
        (lab.home().join(".aws/credentials"), "cloud"),
        (here.join(".npmrc"), "registry"),
    ] {
        assert_eq!(label(path.clone()), expected, "{}", path.display());
    }
    let both = Place { reads: true, ..at(here.join(".env")) };
    assert_eq!(file(&policy, FileOp::Write, both).weight.secrets.to_string(), "env");
    let written = Place { labels: ["cloud"].into(), ..at(here.join("copy")) };
    assert_eq!(file(&policy, FileOp::Read, written).weight.secrets.to_string(), "cloud", "a file that carries it");
    let own = lab.policy("filesystem: {secrets: [{path: \"**/*.token\", label: token}, \"**/plain\"]}\n");
    assert_eq!(file(&own, FileOp::Read, at("/x/a.token")).weight.secrets.to_string(), "token");
    assert_eq!(file(&own, FileOp::Read, at("/x/plain")).weight.secrets.to_string(), "**/plain");
}

#[test]
fn a_change_to_what_runs_later_weighs_as_such_where_it_was_lifted() {
    let lab = Lab::new();
    let hooks = lab.project().join(".git/hooks");
    std::fs::create_dir_all(&hooks).unwrap();
    let policy = lab.policy("filesystem: {write: [., .git/hooks], protect: default}\n");
    let verdict = file(&policy, FileOp::Create, at(hooks.join("pre-commit")));
    assert_eq!((verdict.effect, verdict.weight.kind, verdict.weight.tier), (Effect::Allow, Kind::Persistence, 8));
}

#[test]
fn a_signal_to_another_action_weighs_and_one_to_what_the_sender_started_does_not() {
    let lab = Lab::new();
    let process = Receiver::Process { pid: 7, action: ActionId::new(3) };
    let group = Receiver::Group { pgid: 2, action: ActionId::SESSION };
    for (tiers, to, below, expected) in [
        ("", process, false, (Effect::Allow, "built-in signals", 3)),
        ("", process, true, (Effect::Allow, "built-in signals", 1)),
        ("", Receiver::Everybody, false, (Effect::Allow, "built-in signals", 3)),
        ("tiers: {allow: 3, ask: 3}\n", group, false, (Effect::Allow, "built-in signals", 3)),
        ("tiers: {allow: 2, ask: 2}\n", group, false, (Effect::Deny, "./test.yaml tiers.ask", 3)),
        ("tiers: {allow: 2, ask: 3}\n", Receiver::Everybody, false, (Effect::Ask, "./test.yaml tiers.allow", 3)),
        ("tiers: {allow: 1, ask: 1}\n", process, true, (Effect::Allow, "built-in signals", 1)),
    ] {
        let policy = lab.policy(&format!("filesystem: {{write: [.]}}\n{tiers}"));
        let signal = Signal { signal: 15, name: "SIGTERM".into(), to, below };
        let verdict = ask(&policy, Access::Signal(signal), Standing::default());
        let rule = verdict.rule.to_string();
        assert_eq!((verdict.effect, rule.as_str(), verdict.weight.tier), expected, "{tiers} {to:?} {below}");
    }
}

#[test]
fn tiers_turn_weight_into_verdicts_and_never_loosen_one() {
    let lab = Lab::new();
    let policy = |tiers: &str| lab.policy(&format!("filesystem: {{write: [.]}}\ntiers: {tiers}\n"));
    let lost = |policy: &Policy, so_far: Losses| {
        let access = Access::File { op: FileOp::Unlink, at: holding(lab.project().join("a"), None) };
        let verdict = ask(policy, access, Standing { so_far, ..Standing::default() });
        (verdict.effect, verdict.reason, verdict.rule.to_string())
    };
    let none = Losses::default();
    let many = Losses { files: 60, bytes: 0 };
    let allow = |tiers: &str| lost(&policy(tiers), none).0;
    assert_eq!(allow("{allow: 6}"), Effect::Allow);
    assert_eq!(allow("{allow: 6, irreversible: ask}"), Effect::Ask);
    assert_eq!(allow("{allow: 10, irreversible: deny}"), Effect::Deny);
    let frozen = lost(&policy("{allow: 4, irreversible: deny}"), none);
    assert_eq!((frozen.0, frozen.2.as_str()), (Effect::Deny, "./test.yaml tiers.irreversible"), "not by its tier");
    let strict = policy("{allow: 4, ask: 7}");
    assert_eq!(lost(&strict, none), (Effect::Ask, Reason::Tier, "./test.yaml tiers.allow".into()));
    assert_eq!(lost(&strict, many), (Effect::Deny, Reason::Tier, "./test.yaml tiers.ask".into()));
    assert_eq!(allow("{ask: 5}"), Effect::Deny, "allow is as far as ask");
    let denied = file(&policy("{allow: 10}"), FileOp::Unlink, holding("/etc/a", None));
    assert_eq!((denied.effect, denied.reason, says(&denied)), (Effect::Deny, Reason::NotGranted, is("B3R3", 10)));
    assert_eq!(denied.weight.reach, Reach::B3);
    assert_eq!(denied.weight.reversibility, Reversibility::R3);
}

#[test]
fn tiers_bring_the_shipped_secrets_unless_others_are_given() {
    let lab = Lab::new();
    let count = |text: &str| lab.policy(text).secrets.iter().count();
    assert_eq!(count(""), 0);
    assert!(count("tiers: {allow: 4}\n") > 10);
    assert!(count("audit: {level: all}\n") > 10);
    assert_eq!(count("filesystem: {secrets: none}\ntiers: {allow: 4}\n"), 0);
    assert_eq!(count("filesystem: {secrets: [a]}\ntiers: {allow: 4}\n"), 1);
}

#[test]
fn tiers_that_are_none_are_refused_with_their_place() {
    for tiers in ["{allow: 0}", "{allow: 11}", "{allow: 5, ask: 4}", "{ask: 300}", "{alow: 4}", "[4]"] {
        let error = PolicyFile::parse("p.yaml", format!("version: 1\ntiers: {tiers}\n").as_bytes()).unwrap_err();
        assert!(error.to_string().starts_with("p.yaml:2:"), "{tiers}: {error}");
    }
}
