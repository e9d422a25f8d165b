//! A run watched while it goes on: what is there, then each record as it is written, until the one that ends the log.
//!
//! Nothing is asked of the run, which does not know that it is watched: the file is looked at again and again. A
//! signal, or a reader of our output that has gone away, ends the watch between two records, never inside of one.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::{BROKEN, FINE, Keeper, Output, Source, print, question, warn_about_run};
use crate::audit::read::Reader;
use crate::audit::run::{self, Found, RunError};
use crate::audit::tail::{Tail, Wait};
use crate::cli::{LogFilter, LogPrint};

/// How long until it is looked whether a run has started.
const PAUSE: Duration = Duration::from_millis(50);
/// What a shell adds to the signal that ended a program.
const SIGNALLED: u8 = 128;

impl<W: FnMut(Duration) -> Wait> Source for Tail<W> {
    fn keeps_waiting(&self) -> bool {
        !self.holds_a_line()
    }
}

/// Prints a run's records until it ends; gives the exit status.
pub fn follow(
    keeper: &Keeper,
    run: Option<&str>,
    filter: &LogFilter,
    how: &LogPrint,
    output: &mut Output<'_>,
) -> Result<u8> {
    let mut watch = Watch::begin()?;
    let Some(found) = await_run(&keeper.state, run, &mut watch, output)? else { return Ok(watch.status()) };
    let query = question::query(filter, &found, keeper.home.as_deref())?;
    let status = warn_about_run(&found, output)?;
    let printed = print(&found, open(&found.log, |pause| watch.wait(pause))?, &query, how, output)?;
    if watch.over() {
        return Ok(watch.status());
    }
    let cut_off = printed.to_its_end && !printed.ended;
    if cut_off && how.json {
        writeln!(output.err, "agentbox: {}", super::unfinished(&found.log))?;
    }
    Ok(status.max(printed.status).max(if cut_off { BROKEN } else { FINE }))
}

/// Opens a log that grows.
pub(in crate::cmd) fn open<W: FnMut(Duration) -> Wait>(log: &Path, wait: W) -> Result<Reader<Tail<W>>> {
    let file = File::open(log).with_context(|| format!("cannot read the audit log {}", log.display()))?;
    Ok(Reader::new(Tail::new(file, wait), log))
}

/// Finds the run, or waits until it starts: the next one, or the one that makes the file that is named.
pub(in crate::cmd) fn await_run(
    state: &Path,
    run: Option<&str>,
    watch: &mut Watch,
    output: &mut Output<'_>,
) -> Result<Option<Found>> {
    let newest = || run::list(state).map(|runs| runs.into_iter().next());
    let before = newest()?;
    let mut said = false;
    loop {
        let found = match run {
            Some("next") if newest()? == before => None,
            // Its run.json is there once its log is.
            Some("next") => run::find(state, None).ok().filter(|found| matches!(found.about, Ok(Some(_)))),
            run => match run::find(state, run) {
                Err(RunError::NotFound { spec }) if spec.contains('/') => None,
                Err(RunError::NoRuns { .. }) => None,
                found => Some(found?),
            },
        };
        if let Some(found) = found.filter(|found| found.log.exists()) {
            return Ok(Some(found));
        }
        if !std::mem::replace(&mut said, true) {
            writeln!(output.err, "agentbox: waiting for {} to start", run.unwrap_or("a run"))?;
        }
        if watch.wait(PAUSE) == Wait::Enough {
            return Ok(None);
        }
    }
}

/// Looks out for what ends the watch before the run ends.
pub(in crate::cmd) struct Watch {
    signals: SignalFd,
    ended_by: Option<Ended>,
}

#[derive(Debug, Clone, Copy)]
enum Ended {
    Signal(u8),
    /// Nobody reads what is printed.
    Unread,
}

impl Watch {
    /// Takes the signals that end a program in hand, so that none comes in the middle of a record.
    pub(in crate::cmd) fn begin() -> Result<Self> {
        let mask: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
        mask.thread_block().context("cannot hold signals back")?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Self { signals: SignalFd::with_flags(&mask, flags).context("cannot collect signals")?, ended_by: None })
    }

    /// Whether it is over.
    pub(in crate::cmd) fn over(&self) -> bool {
        self.ended_by.is_some()
    }

    /// The exit status of a watch that is over.
    pub(in crate::cmd) fn status(&self) -> u8 {
        match self.ended_by {
            Some(Ended::Signal(number)) => SIGNALLED + number,
            Some(Ended::Unread) | None => FINE,
        }
    }

    /// Waits for `pause`, or until the watch is over.
    pub(in crate::cmd) fn wait(&mut self, pause: Duration) -> Wait {
        let stdout = io::stdout();
        let (signals, reader) = (self.signals.as_fd(), stdout.as_fd());
        // No event is asked for on stdout: that its reader is gone is told in any case.
        let mut fds = [PollFd::new(signals, PollFlags::POLLIN), PollFd::new(reader, PollFlags::empty())];
        match poll(&mut fds, PollTimeout::try_from(pause).unwrap_or(PollTimeout::ZERO)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return Wait::Enough,
        }
        let unread = fds[1].revents().is_some_and(|events| events.intersects(PollFlags::POLLERR | PollFlags::POLLHUP));
        self.ended_by = match self.signals.read_signal() {
            Ok(Some(signal)) => Some(Ended::Signal(u8::try_from(signal.ssi_signo).unwrap_or_default())),
            _ if unread => Some(Ended::Unread),
            _ => self.ended_by,
        };
        if self.over() { Wait::Enough } else { Wait::Again }
    }
}
