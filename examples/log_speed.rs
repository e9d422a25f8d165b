//! Writes a log as a run does, to measure the writer and to have something to read:
//! `cargo run --release --example log_speed -- RECORDS FILE [KEY]`. With the file of a key the log is signed.
//! `scripts/bench-log` calls it.
#![allow(missing_docs)]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use agentbox::audit::key::SigningKey;
use agentbox::audit::record::Decision;
use agentbox::audit::{Layer, Outcome, PolicyRef, Record, RunId, RunResult, Start, Summary, Writer};
use agentbox::event::{
    Access, BoxPath, Effect, Endpoint, Event, Exec, FileOp, Mode, Place, Reason, RuleId, Subject, Transport, Verdict,
    Weight,
};

fn main() {
    let mut args = std::env::args().skip(1);
    let count: u64 = args.next().and_then(|word| word.parse().ok()).expect("how many records");
    let path = PathBuf::from(args.next().expect("a file that is not there yet"));
    let key = args.next().map(|file| SigningKey::read(file.as_ref()).expect("a key"));
    // The last record is of now, like the one that ends the log.
    let now = SystemTime::now() - Duration::from_micros(count * 40);
    let start = Start {
        time: agentbox::audit::text::rfc3339(now),
        run: RunId::new(now, 1),
        agentbox: "0.1.0".into(),
        command: vec!["agent".into()],
        policy: PolicyRef { name: "default.yaml".into(), digest: "0".repeat(64) },
        mode: Mode::Enforce,
        coverage: serde_json::Value::Null,
    };
    let subjects: Vec<Arc<Subject>> = (0..1000).map(|n| Arc::new(subject(n))).collect();
    let rules = Rules::new();
    let begun = Instant::now();
    let writer = Writer::create(&path, &start).expect("a log");
    key.into_iter().for_each(|key| writer.sign(key).expect("a head"));
    writer.start().expect("a thread");
    for n in 0..count.saturating_sub(2) {
        let time = now + Duration::from_micros(n * 40);
        let subject = Arc::clone(&subjects[(n / 50 % 1000) as usize]);
        writer.push(Record::Decision(decision(n, time, subject, &rules)));
    }
    let written = writer.finish(&RunResult::default(), &Summary::empty(start.run.clone())).expect("a whole log");
    let (took, bytes) = (begun.elapsed().as_secs_f64(), std::fs::metadata(&path).expect("the log").len());
    println!("{} records, {bytes} bytes, {took:.3} s", written.recorded);
}

fn subject(n: i32) -> Subject {
    let exe = ["/usr/bin/python3.11", "/usr/bin/git", "/usr/lib/gcc/x86_64-linux-gnu/12/cc1", "/usr/bin/bash"];
    let exe = exe[n as usize % exe.len()].into();
    Subject { pid: 100 + n, host: 40_000 + n, exe, parents: vec![10 + n % 40, 2, 1], ..Subject::default() }
}

struct Rules {
    write: RuleId,
    no_write: RuleId,
    exec: RuleId,
    network: RuleId,
}

impl Rules {
    fn new() -> Self {
        let rule = |key| RuleId::new("default.yaml", key);
        Self {
            write: rule("filesystem.write[0]"),
            no_write: rule("filesystem"),
            exec: rule("exec.allow[0]"),
            network: rule("network.mode"),
        }
    }
}

/// What a run asks for, mixed as a build does: mostly writes, some programs, here and there a refusal.
fn decision(n: u64, time: SystemTime, subject: Arc<Subject>, rules: &Rules) -> Decision {
    let place = |path: String| Place::of(BoxPath::new(path).expect("an absolute path"));
    let file = |op, path| Access::File { op, at: place(path) };
    let (access, rule, effect) = match n % 20 {
        0 => {
            let argv = vec!["cc".into(), "-O2".into(), "-c".into(), format!("src/part_{}.c", n % 997)];
            let program = BoxPath::new("/usr/bin/x86_64-linux-gnu-gcc-12").expect("an absolute path");
            (Access::Exec(Exec::of(program, "cc", argv)), &rules.exec, Effect::Allow)
        }
        1 if n % 1000 == 1 => (file(FileOp::Write, format!("/etc/hosts.{}", n % 7)), &rules.no_write, Effect::Deny),
        2 if n % 500 == 2 => {
            let address = "192.0.2.7:443".parse().expect("an address");
            let names = vec!["api.example.org".into()];
            let to = Endpoint::Inet { address, outside: true, transport: Transport::Tcp, names };
            (Access::Connect { to }, &rules.network, Effect::Deny)
        }
        3..=6 => (file(FileOp::Unlink, format!("/home/user/work/target/tmp_{n}")), &rules.write, Effect::Allow),
        _ => (file(FileOp::Write, format!("/home/user/work/src/part_{}.o", n % 9973)), &rules.write, Effect::Allow),
    };
    let allowed = effect == Effect::Allow;
    let reason = if allowed { Reason::Granted } else { Reason::NotGranted };
    Decision {
        time,
        event: Event::new(subject, access),
        asked: n.is_multiple_of(3).then(|| format!("target/../src/part_{}.o", n % 9973)),
        verdict: Verdict { effect, rule: rule.clone(), reason, message: None, weight: Weight::default() },
        answer: None,
        mode: Mode::Enforce,
        layer: Layer::Supervisor,
        outcome: if allowed { Outcome::Ok } else { Outcome::Errno(13) },
        latency: Duration::from_nanos(8_000 + n * 7919 % 30_000),
    }
}
