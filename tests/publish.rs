//! Published ports: visitors on the host's loopback are led to a server in the box, and are on record.
//!
//! The servers run in the box, the visitors in the test process. Hosts' ports are ones that the kernel chooses.

mod common;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use common::{Outcome, Scene, await_until, program, text};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde_json::Value;

const SERVED: &str = include_str!("fixtures/served.py");

/// A box that is up, with its ports published. It ends with the test, also when that fails.
struct Served {
    child: Option<Child>,
    log: PathBuf,
    /// Where each port is on the host, in the order of the policy.
    at: Vec<SocketAddr>,
}

/// Starts `argv` in a box and waits until its ports are published.
fn start(scene: &Scene, flags: &[&str], argv: &[&str]) -> Served {
    let (mut command, log) = scene.boxed_command(flags, argv);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = common::start(command);
    let wanted = flags.iter().filter(|flag| **flag == "--publish").count();
    let published = || -> Vec<SocketAddr> {
        let text = fs::read_to_string(&log).unwrap_or_default();
        let notes = text.lines().filter_map(|line| line.split_once(" of the box is at "));
        notes.map(|(_, rest)| rest.split('"').next().expect("an address").parse().expect("an address")).collect()
    };
    await_until("the ports are published", || published().len() == wanted);
    let at = published();
    Served { child: Some(child), log, at }
}

/// Starts a server in the box at `address`, port 8000, which is published.
fn serve(scene: &Scene, python: &std::path::Path, kind: &str, address: &str, flags: &[&str]) -> Served {
    scene.file("home/work/served.py", SERVED);
    let flags = [&["-p", "python", "--publish", "0:8000"], flags].concat();
    let served = start(scene, &flags, &[text(python), "served.py", kind, address, "8000"]);
    await_until("the server is up", || {
        answer(served.at[0], b"HEAD / HTTP/1.0\r\n\r\n").is_ok_and(|got| !got.is_empty())
    });
    served
}

impl Served {
    /// Waits for the end of the run.
    fn finish(mut self) -> Outcome {
        common::finish(self.child.take().expect("it is up"), b"", &self.log)
    }

    /// Asks the server to end, and waits for the end of the run.
    fn stop(self) -> Outcome {
        let _ = answer(self.at[0], b"GET /stop HTTP/1.0\r\n\r\n");
        self.finish()
    }

    /// Ends the box.
    fn end(self) -> Outcome {
        let pid = self.child.as_ref().expect("it is up").id();
        nix::sys::signal::kill(Pid::from_raw(pid as i32), Signal::SIGTERM).expect("end the run");
        self.finish()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill().and_then(|()| child.wait());
        }
    }
}

/// Sends all of `request`, then ends that direction, and reads to the end.
fn answer(at: SocketAddr, request: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut visitor = TcpStream::connect(at)?;
    visitor.set_read_timeout(Some(Duration::from_secs(30)))?;
    visitor.write_all(request)?;
    visitor.shutdown(Shutdown::Write)?;
    let mut got = Vec::new();
    visitor.read_to_end(&mut got)?;
    Ok(got)
}

/// The end record's sums of the visitors of port 8000.
fn visitors(outcome: &Outcome) -> Value {
    let end = outcome.records.last().expect("records");
    let destinations = end["destinations"].as_array().cloned().unwrap_or_default();
    destinations.into_iter().find(|one| one["kind"] == "visitors").unwrap_or_else(|| panic!("no visitors\n{outcome}"))
}

#[test]
fn a_download_from_the_box_is_whole_counted_and_on_record() {
    let Some(python) = program("python3") else { skip!("no python3 in the system directories") };
    let scene = Scene::new();
    let content: Vec<u8> = (0..5_000_000u32).flat_map(u32::to_le_bytes).collect();
    scene.file("home/work/big", &content);
    let served = serve(&scene, &python, "http", "127.0.0.1", &[]);
    let at = served.at[0];
    let request = b"GET /big HTTP/1.0\r\n\r\n";
    let got = answer(at, request).expect("a download");
    assert!(got.ends_with(&content), "{} bytes of {}", got.len(), content.len());
    let outcome = served.stop();
    outcome.exits(0).must(outcome.err.contains(&format!("port 8000 of the box is at {at}\n")), "it is said where");
    let visits: Vec<&Value> = outcome.records.iter().filter(|record| record["op"] == "accept").collect();
    // Behind it the one that ends the server.
    let visit = visits[visits.len() - 2];
    assert_eq!(visit["target"]["at"], at.to_string(), "{visit}");
    assert_eq!((&visit["target"]["port"], &visit["outcome"]), (&8000.into(), &"ok".into()), "{visit}");
    assert!(visit["rule"].as_str().is_some_and(|rule| rule.contains("publish")), "{visit}");
    assert_eq!(visit["process"]["pid"], 0, "nobody in the box asked: {visit}");
    let sums = visitors(&outcome);
    assert_eq!((&sums["allowed"], &sums["denied"]), (&visits.len().into(), &0.into()), "{sums}");
    let shown = scene.agentbox(&["log", text(&scene.root.join("audit-0.jsonl"))]);
    shown.exits(0).must(shown.out.contains(" allow accept   127.0.0.1:"), "a line for a visit");
    shown.must(shown.out.contains(&format!("visitors of port 8000 at {at}   ")), "a line for the sums");
    let runs = scene.agentbox(&["log", "list", "--json"]);
    let runs: Value = serde_json::from_str(&runs.exits(0).out).expect("JSON");
    assert_eq!(runs[0]["destinations"][0], sums, "run.json has the same sums");
}

#[test]
fn the_bytes_of_a_visit_are_those_that_the_visitor_sent_and_got() {
    let Some(python) = program("python3") else { skip!("no python3 in the system directories") };
    let scene = Scene::new();
    let served = serve(&scene, &python, "count", "127.0.0.1", &["-q"]);
    let request = vec![7; 3_000_000];
    let got = answer(served.at[0], &request).expect("an answer");
    assert_eq!(got, b"3000000", "the end of one direction leaves the other open");
    let outcome = served.end();
    // The probes of `serve` are 19 bytes each, answered by two.
    let probes = outcome.records.iter().filter(|r| r["op"] == "accept" && r["outcome"] == "ok").count() as u64 - 1;
    let sums = visitors(&outcome);
    assert_eq!(sums["bytes_in"], 3_000_000 + 19 * probes, "{sums}");
    assert_eq!(sums["bytes_out"], 7 + 2 * probes, "{sums}");
    outcome.must(!outcome.err.contains("is at"), "nothing is said with -q");
}

#[test]
fn the_last_words_of_a_server_reach_its_visitor() {
    let Some(python) = program("python3") else { skip!("no python3 in the system directories") };
    let scene = Scene::new();
    let served = serve(&scene, &python, "http", "127.0.0.1", &[]);
    let mut visitor = TcpStream::connect(served.at[0]).expect("a visit");
    visitor.write_all(b"GET /stop HTTP/1.0\r\n\r\n").expect("a request");
    // The box is gone before the visitor begins to read.
    std::thread::sleep(Duration::from_millis(300));
    let mut got = Vec::new();
    visitor.read_to_end(&mut got).expect("the answer");
    assert!(got.ends_with(b"zzz") && got.len() > 1_000_000, "{} bytes", got.len());
    served.finish().exits(0);
}

#[test]
fn a_visitor_that_stays_does_not_hold_up_the_end() {
    let Some(python) = program("python3") else { skip!("no python3 in the system directories") };
    let scene = Scene::new();
    let served = serve(&scene, &python, "http", "127.0.0.1", &[]);
    let idle = TcpStream::connect(served.at[0]).expect("a visit");
    std::thread::sleep(Duration::from_millis(100));
    let begun = Instant::now();
    served.stop().exits(0);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    drop(idle);
}

#[test]
fn where_nobody_listens_in_the_box_a_visitor_is_reset() {
    let scene = Scene::new();
    let served = start(&scene, &["--publish", "0:8000"], &["sleep", "60"]);
    for _ in 0..3 {
        let error = answer(served.at[0], b"").expect_err("nobody listens");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
    }
    let outcome = served.end();
    let refused = outcome.records.iter().filter(|r| r["op"] == "accept" && r["outcome"] == "ECONNREFUSED").count();
    outcome.must(refused == 3, "three visits on record");
}

#[test]
fn a_server_on_ipv6_loopback_is_found() {
    let Some(python) = program("python3") else { skip!("no python3 in the system directories") };
    if !std::path::Path::new("/proc/net/if_inet6").exists() {
        skip!("no IPv6 on this host");
    }
    let scene = Scene::new();
    let served = serve(&scene, &python, "http", "::1", &[]);
    let got = answer(served.at[0], b"GET /served.py HTTP/1.0\r\n\r\n").expect("an answer");
    assert!(got.ends_with(SERVED.as_bytes()));
    served.stop().exits(0);
}

#[test]
fn two_boxes_can_serve_at_the_same_port_of_their_own() {
    let Some(python) = program("python3") else { skip!("no python3 in the system directories") };
    let scenes = [Scene::new(), Scene::new()];
    let served: Vec<Served> = scenes
        .iter()
        .enumerate()
        .map(|(number, scene)| {
            scene.file("home/work/mine", format!("box {number}"));
            serve(scene, &python, "http", "127.0.0.1", &[])
        })
        .collect();
    for (number, served) in served.iter().enumerate() {
        let got = answer(served.at[0], b"GET /mine HTTP/1.0\r\n\r\n").expect("an answer");
        assert!(got.ends_with(format!("box {number}").as_bytes()));
    }
    for served in served {
        served.stop().exits(0);
    }
}

#[test]
fn several_ports_lead_to_the_same_one_and_many_visit_at_once() {
    let Some(python) = program("python3") else { skip!("no python3 in the system directories") };
    let scene = Scene::new();
    let served = serve(&scene, &python, "http", "127.0.0.1", &["--publish", "0:8000"]);
    assert_eq!(served.at.len(), 2);
    std::thread::scope(|scope| {
        for visitor in 0..60 {
            let at = served.at[visitor % 2];
            scope.spawn(move || {
                let got = answer(at, b"GET /served.py HTTP/1.0\r\n\r\n").expect("an answer");
                assert!(got.ends_with(SERVED.as_bytes()));
            });
        }
    });
    served.stop().exits(0);
}

#[test]
fn a_port_that_is_taken_stops_the_run_before_it_starts() {
    let scene = Scene::new();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let at = taken.local_addr().expect("an address").to_string();
    let publish = format!("{at}:80");
    let touch = ["/bin/sh", "-c", "touch ran"];
    let refused = scene.boxed(&["--publish", &publish], &touch);
    refused.exits(125).must(refused.err.contains(&at) && refused.err.contains("port 0"), "the address and a way out");
    refused.must(refused.err.lines().count() == 1, "one line");
    refused.must(!scene.work.join("ran").exists(), "the command ran");
    drop(taken);
    scene.boxed(&["--publish", &publish], &touch).exits(0);
    assert!(scene.work.join("ran").exists(), "the control does not run");
}
