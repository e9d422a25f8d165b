//! A small internet (`fixtures/internet.py`) on the loopback of a network namespace of its own, which tells afterwards
//! what reached whom, down to the packets.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::Value;

use super::{Outcome, PATIENCE, Scene, agentbox, program, records_with, root, run_for, text};

const INTERNET: &str = include_str!("../fixtures/internet.py");

/// Gives a test its internet, or leaves it with the host fact that is missing.
#[macro_export]
macro_rules! internet {
    () => {
        match $crate::common::internet::Internet::new() {
            Ok(internet) => internet,
            Err(fact) => $crate::skip!("{fact}"),
        }
    };
}

/// An ordinary user's id.
pub const ORDINARY: &str = "65534";

/// A scene in the internet.
pub struct Internet {
    /// Where commands run.
    pub scene: Scene,
    /// The interpreter that serves it.
    pub python: PathBuf,
    /// What commands run under: nothing, or what makes root another user.
    pub who: Vec<&'static str>,
    /// The binary under test, where that user reaches it.
    pub agentbox: PathBuf,
    /// How long a run may take.
    pub patience: Duration,
    /// What a record must contain to be worth keeping.
    pub kept: &'static str,
}

/// What reached whom.
pub struct Report(pub Value);

impl Report {
    /// `what` is `connections`, `bytes`, `datagrams` or `packets`.
    pub fn count(&self, what: &str, address: &str) -> u64 {
        self.0[what][address].as_u64().unwrap_or(0)
    }

    /// What came to those who take all.
    pub fn heard(&self) -> Vec<&str> {
        let heard = self.0["heard"].as_array().expect("a list");
        heard.iter().map(|text| text.as_str().expect("a text")).collect()
    }

    /// The names that the internet's name server was asked for.
    pub fn names(&self) -> Vec<&str> {
        let names = self.0["names"].as_array().expect("a list");
        names.iter().map(|asked| asked[0].as_str().expect("a name")).collect()
    }
}

impl Internet {
    /// The internet of the test's own user.
    pub fn new() -> Result<Self, String> {
        static WORKS: OnceLock<Result<(), String>> = OnceLock::new();
        let python = program("python3").ok_or("no python3 in the system directories")?;
        let scene = Scene::new();
        scene.file("internet.py", INTERNET);
        let internet = Self { scene, python, who: vec![], agentbox: agentbox(), patience: PATIENCE, kept: "" };
        // Asked once for all tests of this file.
        let works = || match internet.free(&["true"]) {
            (outcome, _) if outcome.code == 0 => Ok(()),
            (outcome, _) => Err(format!("no internet on a loopback of our own: {}", outcome.err.trim())),
        };
        WORKS.get_or_init(works).clone()?;
        Ok(internet)
    }

    /// For so many tries: a busy machine takes a millisecond for one, and a record for each is much to keep.
    pub fn of_many_tries(mut self, tries: u32) -> Self {
        (self.patience, self.kept) = (PATIENCE + Duration::from_millis(5) * tries, "\"kind\":\"end\"");
        self
    }

    /// Lets commands, agentbox too, run as a user who has no right in the internet's namespaces.
    pub fn run_by_an_ordinary_user(mut self) -> Self {
        self.who = vec!["setpriv", "--reuid", ORDINARY, "--regid", ORDINARY, "--clear-groups", "--"];
        // The one under test may lie where only root may go.
        let copy = self.scene.root.join("agentbox");
        fs::copy(&self.agentbox, &copy).expect("copy agentbox");
        self.agentbox = copy;
        self
    }

    /// Runs in the internet without a box.
    pub fn free(&self, argv: &[&str]) -> (Outcome, Report) {
        self.run(&[&self.who, argv].concat(), Path::new("/nonexistent"))
    }

    /// Runs in the internet in a box.
    pub fn boxed(&self, flags: &[&str], argv: &[&str]) -> (Outcome, Report) {
        self.boxed_under(&[], flags, argv)
    }

    /// Runs in a box that is itself started by `around`, which runs in the internet.
    pub fn boxed_under(&self, around: &[&str], flags: &[&str], argv: &[&str]) -> (Outcome, Report) {
        let (command, log) = self.scene.boxed_command(flags, argv);
        let args: Vec<&str> = command.get_args().map(|arg| arg.to_str().expect("plain arguments")).collect();
        self.run(&[&self.who, around, &[text(&self.agentbox)], &args].concat(), &log)
    }

    fn run(&self, argv: &[&str], log: &Path) -> (Outcome, Report) {
        let (scene, report) = (&self.scene, self.scene.root.join("reached.json"));
        let namespaces = if root() { "-nm" } else { "-Urnm" };
        let internet = scene.root.join("internet.py");
        let own = ["unshare", namespaces, "--propagation", "private", text(&self.python), text(&internet)];
        if !self.who.is_empty() {
            let done = Command::new("chown").args(["-R", ORDINARY]).arg(&scene.root).status().expect("run chown");
            assert!(done.success(), "give the scene away");
        }
        let command = scene.free_command(&[&own, &[text(&report)][..], argv].concat());
        let mut outcome = run_for(self.patience, command);
        outcome.records = records_with(log, self.kept);
        let reached = fs::read(&report).map_or(Value::Null, |json| serde_json::from_slice(&json).expect("a report"));
        (outcome, Report(reached))
    }
}
