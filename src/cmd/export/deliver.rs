//! Brings a run's spans to a collector: in the order in which the log completes them, a batch after the other, each
//! until it is taken.
//!
//! The log is the buffer. While a batch is not taken nothing more is read, so that a collector which is down costs no
//! memory, and what it has taken is kept beside the log. A batch that was taken by a collector just before somebody
//! ended us is sent twice: the spans have the same ids, and a collector that cares can tell.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Error, Result, anyhow};
use serde_json::Value;

use super::send::{Collector, Line as Way, Refusal};
use crate::audit::cursor::{Cursor, Mark, Rest};
use crate::audit::otlp::{Resource, SPANS, Trace};
use crate::audit::read::{Line, still_written};
use crate::audit::tail::Wait;

/// How long spans gather before they are sent, where the last were sent just before.
const GATHER: Duration = Duration::from_secs(1);
/// How long until a request is made again: at first, doubled each time, and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));
/// How long after the end of a run, or after what was taken last, a collector that takes nothing is tried.
const LAST_TRIES: Duration = Duration::from_secs(30);
/// How often a busy collector is asked when the log is already whole, and for how long.
const BUSY: (u32, Duration) = (5, Duration::from_secs(30));
/// How often we look around while we wait.
const TICK: Duration = Duration::from_millis(50);

/// How long a collector is asked again.
#[derive(Debug)]
pub(super) enum Patience {
    /// One that is down is an error; a busy one is asked for a while.
    Short,
    /// As long as the run goes on, and a while longer.
    WhileItRuns,
}

/// Why a delivery ended before everything was taken.
#[derive(Debug)]
pub(super) enum Halt {
    /// Whoever waits says that it is enough.
    Told,
    /// The collector does not take it.
    Refused(Error),
}

/// A trace on its way.
pub(super) struct Delivery<'a> {
    log: &'a Path,
    trace: Trace,
    resource: Resource,
    way: Way,
    cursor: Cursor,
    /// What the cursor says once the batch is taken.
    next: Mark,
    batch: Vec<Value>,
    patience: Patience,
    /// Waits, and says whether to go on.
    wait: Box<dyn FnMut(Duration) -> Wait + 'a>,
    /// When the last batch was taken.
    taken: Option<Instant>,
    /// Since when nobody writes to the log.
    over: Option<Instant>,
    sent: u64,
    halted: Option<Halt>,
}

/// What came of it.
pub(super) struct Delivered {
    /// Spans that were sent now.
    pub sent: u64,
    /// Spans that had been taken before.
    pub before: u64,
}

impl<'a> Delivery<'a> {
    /// Begins where `cursor` says the collector is; it must have been claimed.
    pub(super) fn begin(
        (log, trace, resource): (&'a Path, Trace, Resource),
        collector: Collector,
        cursor: Cursor,
        patience: Patience,
        wait: impl FnMut(Duration) -> Wait + 'a,
    ) -> Result<Self> {
        let next = Mark { collector: collector.told(), ..cursor.mark().clone() };
        Ok(Self {
            log,
            trace,
            resource,
            way: Way::open(collector)?,
            cursor,
            next,
            batch: Vec::new(),
            patience,
            wait: Box::new(wait),
            taken: None,
            over: None,
            sent: 0,
            halted: None,
        })
    }

    /// Takes the next line of the log; says whether to read on.
    pub(super) fn take(&mut self, line: &Line) -> Wait {
        if let Some(span) = self.trace.take(line).filter(|_| line.number > self.cursor.mark().line) {
            self.next.line = line.number;
            self.push(span);
        }
        self.goes_on()
    }

    /// The log has no more for now: sends what there is, and waits for `pause`.
    pub(super) fn idle(&mut self, pause: Duration) -> Wait {
        let gathers = self.taken.is_some_and(|taken| taken.elapsed() < GATHER);
        if !pause.is_zero() && !gathers {
            self.send();
        }
        if self.halted.is_none() {
            self.look_around(pause);
        }
        self.goes_on()
    }

    /// The log had `lines` lines and gets no more: sends the rest.
    pub(super) fn finish(&mut self, lines: u64) {
        let rest = self.cursor.mark().rest.filter(|rest| rest.lines == lines);
        let before = rest.map_or(0, |rest| rest.spans);
        let mut spans = 0;
        while self.halted.is_none()
            && let Some(span) = self.trace.rest()
        {
            spans += 1;
            if spans > before {
                self.next.rest = Some(Rest { lines, spans });
                self.push(span);
            }
        }
        self.send();
    }

    /// What came of it.
    pub(super) fn end(self) -> Result<Delivered, Halt> {
        let delivered = Delivered { sent: self.sent, before: self.cursor.mark().spans - self.sent };
        self.halted.map_or(Ok(delivered), Err)
    }

    fn goes_on(&self) -> Wait {
        if self.halted.is_some() { Wait::Enough } else { Wait::Again }
    }

    fn push(&mut self, span: Value) {
        self.next.spans += 1;
        self.batch.push(span);
        if self.batch.len() == SPANS {
            self.send();
        }
    }

    /// Sends what is complete, again and again, until it is taken or there is no sense in it.
    pub(super) fn send(&mut self) {
        if self.batch.is_empty() || self.halted.is_some() {
            return;
        }
        let request = self.trace.request(&self.resource, std::mem::take(&mut self.batch));
        let body: Arc<[u8]> = request.to_string().into_bytes().into();
        let begun = Instant::now();
        for tries in 1.. {
            self.way.ask(Arc::clone(&body));
            let Some(answer) = self.answer() else { return };
            let Err(refusal) = answer else { return self.was_taken() };
            let nap = self.nap(&refusal, tries, begun);
            let firm = matches!(refusal, Refusal::Busy(_, Some(_)));
            let why = self.refused(refusal);
            match nap {
                None => return self.halted = Some(Halt::Refused(why)),
                Some(nap) => self.sleep(nap, firm, why),
            }
            if self.halted.is_some() {
                return;
            }
        }
    }

    fn was_taken(&mut self) {
        self.taken = Some(Instant::now());
        self.sent += self.next.spans - self.cursor.mark().spans;
        self.next.failure = None;
        self.cursor.put(self.next.clone());
    }

    /// Keeps why the batch was not taken, for whoever asks how far we are.
    fn refused(&mut self, refusal: Refusal) -> Error {
        let why = Error::from(refusal);
        let failure = Some(format!("{why:#}"));
        if self.cursor.mark().failure != failure {
            self.cursor.put(Mark { collector: self.next.collector.clone(), failure, ..self.cursor.mark().clone() });
        }
        why
    }

    /// Waits for the answer to a request; none if it is no use to wait longer.
    fn answer(&mut self) -> Option<Result<(), Refusal>> {
        loop {
            if let Some(answer) = self.way.answer(TICK) {
                return Some(answer);
            }
            self.look_around(Duration::ZERO);
            if self.halted.is_none() && self.is_late() {
                self.halted = Some(Halt::Refused(anyhow!("it does not answer")));
            }
            if self.halted.is_some() {
                return None;
            }
        }
    }

    /// How long to wait before the next try; none if there is none.
    fn nap(&self, refusal: &Refusal, tries: u32, begun: Instant) -> Option<Duration> {
        let (first, longest) = BACKOFF;
        let backoff = first.saturating_mul(1 << (tries - 1).min(16)).min(longest);
        let nap = match refusal {
            Refusal::Final(_) => return None,
            Refusal::Unreached(_) => backoff,
            Refusal::Busy(_, after) => after.unwrap_or(backoff),
        };
        let goes_on = match (&self.patience, refusal) {
            (Patience::WhileItRuns, _) => true,
            (Patience::Short, Refusal::Busy(..)) => tries < BUSY.0 && begun.elapsed() + nap <= BUSY.1,
            (Patience::Short, _) => false,
        };
        goes_on.then_some(nap)
    }

    /// Waits for the next try. When the run ends that one is made at once, unless the collector has said when.
    fn sleep(&mut self, nap: Duration, firm: bool, why: Error) {
        let until = Instant::now() + nap;
        while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            let went_on = self.over.is_none();
            self.look_around(left.min(TICK));
            if self.halted.is_some() {
                return;
            }
            if self.is_late() {
                return self.halted = Some(Halt::Refused(why));
            }
            if went_on && self.over.is_some() && !firm {
                return;
            }
        }
    }

    fn look_around(&mut self, pause: Duration) {
        if (self.wait)(pause) == Wait::Enough {
            self.halted = Some(Halt::Told);
        }
    }

    /// Whether the collector has had all the time that it gets.
    fn is_late(&mut self) -> bool {
        if matches!(self.patience, Patience::Short) {
            return false;
        }
        if self.over.is_none() && !still_written(self.log) {
            self.over = Some(Instant::now());
        }
        self.over.is_some_and(|over| self.taken.map_or(over, |taken| taken.max(over)).elapsed() > LAST_TRIES)
    }
}
