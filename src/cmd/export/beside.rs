//! The exporter of a run with `--export otlp` or `audit.export: otlp`: `agentbox log export --follow`, a process of its own beside the box.
//!
//! Main process. The exporter reads the log as anybody may and knows nothing of the box, so the supervisor waits for
//! nothing and keeps nothing for it; the box cannot see it. It has a process group of its own, because the signals of a
//! terminal are the command's, and it outlives an agentbox that is killed: then it sends what is left and ends.

use std::cell::OnceCell;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;

use super::send::Collector;
use super::variable;
use crate::audit::text::{printable, shorten};
use crate::audit::{RunDir, cursor};
use crate::sys;

/// How long the exporter may take over the rest when the run has ended.
const LAST_SPANS: Duration = Duration::from_secs(3);
/// The signals on which nobody waits for it any longer.
const HURRY: [Signal; 4] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT];

/// An exporter that can be started.
#[derive(Debug)]
pub(in crate::cmd) struct Exporter {
    program: PathBuf,
    /// The collector, as people are told of it, and as its cursor is named.
    told: String,
    key: String,
}

impl Exporter {
    /// Fails if the variables name no collector, or `log` is nothing that can be read while it is written.
    pub(in crate::cmd) fn prepare(log: Option<&Path>) -> Result<Self> {
        let Some(collector) = Collector::from_variables(variable).context("cannot export the run")? else {
            bail!(
                "cannot export the run: no variable names a collector: set OTEL_EXPORTER_OTLP_ENDPOINT, such as \
                 http://127.0.0.1:4318, or run with --export none"
            );
        };
        if let Some(log) = log.filter(|log| log.exists() && !log.is_file()) {
            bail!("cannot export the run: {} is no file to read back: leave --log out or name one", log.display());
        }
        let program = std::env::current_exe().context("cannot find agentbox's own executable")?;
        Ok(Self { program, told: collector.told(), key: collector.key() })
    }

    /// Makes it the exporter of a run.
    pub(in crate::cmd) fn of(self, dir: &RunDir) -> Beside {
        Beside { exporter: self, dir: dir.clone(), child: OnceCell::new() }
    }
}

/// The exporter of one run.
#[derive(Debug)]
pub(in crate::cmd) struct Beside {
    exporter: Exporter,
    dir: RunDir,
    child: OnceCell<io::Result<Child>>,
}

impl Beside {
    /// Starts it. If that fails the run goes on, and its end says so.
    pub(in crate::cmd) fn start(&self) {
        self.child.get_or_init(|| self.spawn());
    }

    fn spawn(&self) -> io::Result<Child> {
        let mut command = Command::new(&self.exporter.program);
        command.args(["log", "export", "--format", "otlp", "--follow", "--"]).arg(self.dir.path());
        // A pipe of ours that it held open would keep waiting whoever reads to its end.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.process_group(0).spawn()
    }

    /// Lets it send the rest of a log that has ended, for a while or until a signal comes; then ends it.
    ///
    /// Gives what is to be said if not everything was taken.
    pub(in crate::cmd) fn finish(mut self, signals: &SignalFd) -> Option<String> {
        // A box that did not come up has a log all the same.
        self.start();
        let why = match self.child.take()? {
            Ok(mut child) => {
                wait(&child, signals);
                // Where it is in its work does not matter: what was taken is kept after each request.
                let _ = child.kill();
                if child.wait().is_ok_and(|status| status.success()) {
                    return None;
                }
                cursor::look(self.dir.path(), &self.exporter.key).and_then(|mark| mark.failure)
            }
            Err(error) => Some(format!("the exporter could not be started: {error}")),
        };
        let why = why.map(|why| format!(" ({})", shorten(&why, 200))).unwrap_or_default();
        let said = format!(
            "{} has not taken the whole trace{why}: `agentbox log export {} --format otlp` sends the rest",
            self.exporter.told,
            self.dir.id()
        );
        Some(printable(&said))
    }
}

/// Waits for its end, for so long.
fn wait(child: &Child, signals: &SignalFd) {
    let Ok(process) = sys::process::open_pidfd(child.id().cast_signed(), false) else { return };
    let until = Instant::now() + LAST_SPANS;
    loop {
        let left = PollTimeout::try_from(until.saturating_duration_since(Instant::now())).unwrap_or(PollTimeout::ZERO);
        let mut fds =
            [PollFd::new(process.as_fd(), PollFlags::POLLIN), PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        let came = poll(&mut fds, left);
        let ended = fds[0].any().unwrap_or_default();
        let hurried = || matches!(signals.read_signal(), Ok(Some(signal)) if is_hurry(signal.ssi_signo));
        if !matches!(came, Ok(1..)) || ended || hurried() {
            return;
        }
    }
}

fn is_hurry(number: u32) -> bool {
    HURRY.iter().any(|signal| *signal as u32 == number)
}
