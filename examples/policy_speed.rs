//! Measures what every start and every stopped call pays for the policy: `cargo run --release --example policy_speed`.
#![allow(missing_docs)]

use std::hint::black_box;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use agentbox::cmd::policy::world;
use agentbox::event::{Access, BoxPath, Event, Exec, FileOp, MoveOp, Place, Subject};
use agentbox::policy::{Policy, Request, World, decide, load};

fn main() {
    let mut world = world().expect("a world");
    world.cwd = std::env::args().nth(1).map_or(std::env::temp_dir(), PathBuf::from);
    let request = Request { policies: vec!["default".into()], ..Request::default() };
    let start = Instant::now();
    let policy = load(&request, &world).expect("the default policy").policy;
    println!("load, first        {:>9.1} µs", start.elapsed().as_secs_f64() * 1e6);
    print("load, warm", 200, || drop(black_box(load(&request, &world))));
    let dir = policy.workdir.clone();
    let file = |op, path: PathBuf| Access::File { op, at: place(path) };
    measure(&policy, "write in workspace", file(FileOp::Write, dir.join("src/deep/er/module.rs")));
    measure(&policy, "write .git/index", file(FileOp::Write, dir.join(".git/index")));
    measure(&policy, "write /etc/hosts", file(FileOp::Write, "/etc/hosts".into()));
    measure(&policy, "write ~/.bashrc", file(FileOp::Write, policy.home.join(".bashrc")));
    measure(&policy, "write .git/hooks/x", file(FileOp::Write, dir.join(".git/hooks/x")));
    measure(&policy, "read /usr/lib/x", file(FileOp::Read, "/usr/lib/x86_64-linux-gnu/libc.so.6".into()));
    let rename = |directory| Access::Move {
        op: MoveOp::Rename,
        from: Place { directory, ..place(dir.join("target/debug/a")) },
        to: place(dir.join("target/debug/b")),
    };
    measure(&policy, "rename file", rename(false));
    measure(&policy, "rename directory", rename(true));
    let program = BoxPath::new("/usr/bin/git").expect("an absolute path");
    measure(&policy, "exec", Access::Exec(Exec::of(program, "git", vec!["git".into(), "status".into()])));
    for count in [1, 100, 10_000] {
        grow(&mut world, count);
    }
}

/// Measures one policy of `count` rules of each kind: what loading takes and what decisions cost.
fn grow(world: &mut World, count: usize) {
    let dir = tempfile::tempdir().expect("a directory");
    world.cwd = dir.path().to_path_buf();
    let rules: String = (0..count)
        .map(|n| match n % 8 {
            0 => format!("    - {{path: '**/secret-{n}.env', why: as one would write}}\n"),
            1 => format!("    - conf{n}/*.key\n"),
            2 => format!("    - '*.ext{n}'\n"),
            3 => format!("    - /data/tree{n}/**\n"),
            4 => format!("    - '**/.tool/{n}/**'\n"),
            5 => format!("    - 'same/*/deep/x{n}'\n"),
            6 => format!("    - '~/.hidden{n}'\n"),
            _ => format!("    - '**/v{n}-*/**/z'\n"),
        })
        .collect();
    let text = format!("version: 1\nextends: [default]\nfilesystem:\n  deny:\n{rules}");
    std::fs::write(dir.path().join("many.yaml"), text).expect("write the policy");
    let request = Request { policies: vec!["./many.yaml".into()], ..Request::default() };
    println!("{count} rules");
    print("  load", 3, || drop(black_box(load(&request, world).expect("a good policy"))));
    let policy = load(&request, world).expect("a good policy").policy;
    let at = |below: &str| policy.workdir.join(below);
    let file = |op, below: &str| Access::File { op, at: place(at(below)) };
    let rename = |directory| Access::Move {
        op: MoveOp::Rename,
        from: Place { directory, ..place(at("target/debug/a")) },
        to: place(at("same/x/deep/b")),
    };
    measure(&policy, "  read", file(FileOp::Read, "src/deep/er/module.rs"));
    measure(&policy, "  write", file(FileOp::Write, "src/deep/er/module.rs"));
    measure(&policy, "  write denied", file(FileOp::Write, "src/secret-0.env"));
    measure(&policy, "  rename file", rename(false));
    measure(&policy, "  rename directory", rename(true));
}

fn place(path: PathBuf) -> Place {
    Place::of(BoxPath::new(path).expect("an absolute path"))
}

fn measure(policy: &Policy, what: &str, access: Access) {
    let event = Event::new(Subject::default().into(), access);
    print(what, 200_000, || drop(black_box(decide(policy, black_box(&event)))));
}

/// Prints the best of five rounds.
fn print(what: &str, times: u32, mut act: impl FnMut()) {
    let mut round = || {
        let start = Instant::now();
        (0..times).for_each(|_| act());
        start.elapsed() / times
    };
    let best: Duration = (0..5).map(|_| round()).min().unwrap_or_default();
    println!("{what:<18} {:>9.3} µs", best.as_secs_f64() * 1e6);
}
