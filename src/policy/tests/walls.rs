//! Which refusals mode audit lets through.

use super::{Lab, strings};
use crate::event::Transport;
use crate::event::{Access, BoxPath, Effect, Endpoint, Event, Exec, FileOp, Labels, MoveOp, Place, Question, Subject};
use crate::policy::decide::decide;
use crate::policy::walls::Walls;

#[test]
fn only_what_the_walls_hold_without_is_let_through() {
    let lab = Lab::new();
    let policy = lab.policy(
        "filesystem:\n  write: [., .git/hooks]\n  read: [/usr]\n  deny: ['**/*.lock', './plain']\n  \
         deny_read: ['**/*.key']\n  protect: ['**/.git/hooks/**', '**/.git/config']\n  secrets: ['**/s.key']\n\
         exec: {allow: [ls], deny: [curl], ask: [git push *]}\n\
         network: {mode: rules, allow: [a.test], deny: [b.test]}\ntiers: {allow: 1, ask: 1}\n",
    );
    let walls = Walls::of(&policy);
    let at = |path: &str| Place::of(BoxPath::new(lab.project().join(path)).unwrap());
    let file = |op, path: &str| Access::File { op, at: at(path) };
    let exec = |argv: &[&str]| {
        let program = BoxPath::new(format!("/usr/bin/{}", argv[0])).unwrap();
        Access::Exec(Exec::of(program, argv[0], strings(argv)))
    };
    let moved = |from: &str, to: &str| Access::Move { op: MoveOp::Rename, from: at(from), to: at(to) };
    let labelled = Place { labels: Labels::from(["env"]), ..at("copy.lock") };
    let inet = |names: &[&str]| Endpoint::Inet {
        address: "203.0.113.9:443".parse().unwrap(),
        outside: true,
        transport: Transport::Tcp,
        names: names.iter().map(|&name| name.into()).collect(),
    };
    for (passes, access) in [
        (true, exec(&["curl"])),
        (true, exec(&["git", "push", "x"])),
        (true, exec(&["make"])),
        (true, file(FileOp::Write, "a.lock")),
        (true, file(FileOp::Read, "a.key")),
        (true, file(FileOp::Unlink, "notes")),
        (true, moved("a.key", "b")),
        // What nothing grants, plain paths, the protected list, secrets.
        (false, file(FileOp::Write, "/srv/a.lock")),
        (false, file(FileOp::Write, "/usr/a.lock")),
        (false, file(FileOp::Write, "plain")),
        (false, file(FileOp::Write, ".git/config")),
        (false, file(FileOp::Write, ".git/hooks/x")),
        (false, moved(".git", "g")),
        (false, moved("x", ".git/hooks/x")),
        (false, file(FileOp::Read, "s.key")),
        (false, moved("s.key", "b")),
        (false, Access::File { op: FileOp::Read, at: labelled }),
        // The network, tiers over it included.
        (false, Access::Connect { to: inet(&["a.test"]) }),
        (false, Access::Send { to: inet(&["b.test"]) }),
        (false, Access::Resolve(Question { name: "c.test".into(), record: "A".into() })),
    ] {
        let event = Event::new(Subject::default().into(), access);
        let verdict = decide(&policy, &event);
        assert_ne!(verdict.effect, Effect::Allow, "{:?}", event.access);
        assert_eq!(walls.hold_without(&event, &verdict), passes, "{:?} {verdict:?}", event.access);
    }
}
