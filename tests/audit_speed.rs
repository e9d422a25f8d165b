//! How fast decisions are recorded. Run alone, in release:
//! `cargo test --release --test audit_speed -- --ignored --nocapture --test-threads=1`

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use agentbox::audit::record::Note;
use agentbox::audit::{Counts, Decision, Layer, Outcome, PolicyRef, Record, RunId, RunResult, Start, Writer, read};
use agentbox::event::{Access, BoxPath, Effect, Event, FileOp, Level, Place, Reason, RuleId, Subject, Verdict};
use agentbox::gate::Gate;
use agentbox::policy::{Environment, ExecRules, FileRules, NetworkMode, Policy, Root};

fn start() -> Start {
    Start {
        time: "1970-01-01T00:00:00.000000Z".into(),
        run: RunId::new(SystemTime::UNIX_EPOCH, 1),
        agentbox: "0.1.0".into(),
        command: vec!["true".into()],
        policy: PolicyRef { name: "default.yaml".into(), digest: "00".into() },
        coverage: serde_json::Value::Null,
    }
}

fn event(op: FileOp) -> Event {
    let path = BoxPath::new("/home/user/project/src/some_directory/module.rs").unwrap();
    let subject = Subject { pid: 57, host: 41_234, exe: "/usr/bin/python3.12".into(), parents: vec![12, 5, 2, 1] };
    Event { subject, access: Access::File { op, at: Place { path, directory: false, own_repository: false } } }
}

fn decision(rule: &RuleId) -> Record {
    let verdict = Verdict { effect: Effect::Allow, rule: rule.clone(), reason: Reason::Granted, message: None };
    Record::Decision(Decision {
        time: SystemTime::now(),
        event: event(FileOp::Write),
        asked: Some("src/some_directory/module.rs".into()),
        verdict,
        answer: None,
        layer: Layer::Supervisor,
        outcome: Outcome::Ok,
        latency: Duration::from_nanos(11_300),
    })
}

fn policy(level: Level) -> Policy {
    let rule = RuleId::new("default.yaml", "filesystem.write[0]");
    let root = Root { path: "/home/user/project".into(), rule: rule.clone(), link: None, exists: true };
    Policy {
        name: "default.yaml".into(),
        digest: "00".into(),
        workdir: "/home/user/project".into(),
        home: "/home/user".into(),
        files: FileRules { write: vec![root.clone()], read: vec![root], ..FileRules::default() },
        exec: ExecRules::default(),
        env: Environment::default(),
        network: (NetworkMode::None, rule),
        audit: level,
    }
}

#[test]
#[ignore = "a measurement: run in release, alone"]
fn records_serialised_and_chained_on_one_core() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = dir.path().join("audit.jsonl");
    let rule = RuleId::new("default.yaml", "filesystem.write[0]");
    // Without its thread the writer does all its work in finish, on this core.
    let (mut busy, mut records) = (Duration::ZERO, 0);
    for round in 0..10 {
        let path = dir.path().join(format!("{round}.jsonl"));
        let writer = Writer::create(&path, &start()).unwrap();
        (0..60_000).for_each(|_| writer.push(decision(&rule)));
        let begin = Instant::now();
        records += writer.finish(&RunResult::default(), &Counts::new()).unwrap().recorded;
        busy += begin.elapsed();
        std::fs::rename(&path, dir.path().join("audit.jsonl")).unwrap();
    }
    let bytes = std::fs::metadata(&path).unwrap().len();
    println!(
        "serialise, chain, write: {:.0} records/s, {} bytes a record",
        records as f64 / busy.as_secs_f64(),
        bytes / 60_000
    );
    let begin = Instant::now();
    assert!(matches!(read::verify(&path, None).unwrap(), read::Chain::Verified { .. }));
    println!("verify: {:.0} records/s", 60_000.0 / begin.elapsed().as_secs_f64());
}

#[test]
#[ignore = "a measurement: run in release, alone"]
fn judging_and_settling_on_the_hot_path() {
    for (name, level, op, count) in [
        ("write, recorded", Level::Actions, FileOp::Write, 60_000),
        ("read, not recorded", Level::Actions, FileOp::Read, 1_000_000),
        ("write, denied", Level::Actions, FileOp::Write, 60_000),
    ] {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let writer = Arc::new(Writer::create(&dir.path().join("log"), &start()).unwrap());
        let mut policy = policy(level);
        if name.ends_with("denied") {
            policy.files.write.clear();
        }
        let gate = Gate::new(Arc::new(policy), Arc::clone(&writer), start().run);
        writer.start().unwrap();
        let events: Vec<Event> = (0..count).map(|_| event(op)).collect();
        let begin = Instant::now();
        for event in events {
            let judged = gate.judge(event, None, begin);
            let _ = black_box(judged.allowed());
            gate.settle(judged, Outcome::Ok);
        }
        println!("{name}: {:.0} ns each, judge and settle", begin.elapsed().as_nanos() as f64 / count as f64);
        // The event's own making and freeing is the caller's; without it for comparison:
        let begin = Instant::now();
        (0..count).for_each(|_| drop(black_box(event(op))));
        println!("  (making and freeing the event: {:.0} ns)", begin.elapsed().as_nanos() as f64 / count as f64);
        gate.finish(&RunResult::default()).unwrap();
    }
}

#[test]
#[ignore = "a measurement: run in release, alone"]
fn an_idle_log_opens_and_closes_quickly() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let mut spent = [Duration::ZERO; 4];
    for round in 0..1000 {
        let mut timed = |step: usize, work: &mut dyn FnMut()| {
            let begin = Instant::now();
            work();
            spent[step] += begin.elapsed();
        };
        let mut writer = None;
        timed(0, &mut || writer = Writer::create(&dir.path().join(round.to_string()), &start()).ok());
        let writer = writer.unwrap();
        timed(1, &mut || writer.start().unwrap());
        timed(2, &mut || writer.push(Record::Note(Note { time: SystemTime::now(), text: "x".into() })));
        std::thread::sleep(Duration::from_millis(1));
        timed(3, &mut || drop(writer.finish(&RunResult::default(), &Counts::new()).unwrap()));
    }
    for (name, spent) in ["create", "start", "push", "finish"].iter().zip(spent) {
        println!("{name}: {:.1} µs", spent.as_micros() as f64 / 1000.0);
    }
}
