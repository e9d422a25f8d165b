//! Sums a log up for a page that people read: what was done, by whom, to what, and what was refused.
//!
//! Main process of `agentbox report`. Takes the log line by line and keeps a bounded part of it, however long it is:
//! each list has a limit, and counts what it has no room for. What is grave has room of its own, so that it cannot be
//! crowded out by many harmless things.

mod kept;
mod timeline;

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;

pub use self::kept::Kept;
pub use self::timeline::{Group, Timeline};
use super::actions::add_claim;
use super::detail::{self, Detail};
use super::entry::{Decided, Entry};
use super::read::{Line, Located};
use super::record::{Destination, End, Op, Start};
use super::text::{command_line, shorten, target};
use crate::event::{Access, Claim, Effects, Endpoint, Reason, Where};

/// The longest text that is kept of anything, in characters.
const WIDTH: usize = 400;
/// From this tier on an action is grave.
const GRAVE: u8 = 5;

/// An action, as far as the log tells.
#[derive(Debug, Default)]
pub struct Action {
    /// Where it begins.
    pub seq: u64,
    /// When it begins.
    pub time: Option<Timestamp>,
    /// The command that it began with; empty if it began with a claim.
    pub command: String,
    /// The first program that it started.
    pub first: String,
    /// What the agent says of it.
    pub claim: Option<Claim>,
    /// How it is known what belongs to it.
    pub attribution: Option<String>,
    /// How many decisions there were.
    pub decisions: u64,
    /// How many of them refused.
    pub denied: u64,
    /// What was counted by its record.
    pub effects: Option<Effects>,
    /// What was counted here, for logs without such a record.
    pub seen: Effects,
    /// What it had to do with each party outside.
    pub destinations: Vec<Destination>,
    /// `B0` to `B3`.
    pub reach: Option<String>,
    /// `R0` to `R3`.
    pub reversibility: Option<String>,
    /// 1 to 10: the highest of what was let through.
    pub tier: Option<u8>,
    /// The highest of what was refused.
    pub refused_tier: Option<u8>,
    /// Secrets that it has seen.
    pub taint: Vec<String>,
}

impl Action {
    /// What it came to.
    pub fn effects(&self) -> &Effects {
        self.effects.as_ref().unwrap_or(&self.seen)
    }

    /// The highest tier of all that it did or tried.
    pub fn gravest(&self) -> Option<u8> {
        self.tier.max(self.refused_tier)
    }
}

/// What happened to a file.
#[derive(Debug, Default)]
pub struct Changed {
    /// Which operations, in the order in which they first came, and how often.
    pub done: Vec<(Op, u64)>,
    /// `to` or `from`, and the other name, if it was renamed.
    pub other: Option<(&'static str, String)>,
}

/// Where a file lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the directory that the command was started in.
    Workspace,
    /// In a place for temporary files.
    Temporary,
    /// Anywhere else.
    Elsewhere,
}

impl Place {
    /// By what the record itself says.
    fn of(place: Where) -> Self {
        match place {
            Where::Workspace => Self::Workspace,
            Where::Private => Self::Temporary,
            Where::Home | Where::Elsewhere | Where::System => Self::Elsewhere,
        }
    }
}

/// What is refused: the operation, its aim, and the rule.
pub type RefusalKey = (Op, String, String);

/// A refusal, as often as it came.
#[derive(Debug, Default)]
pub struct Refusal {
    /// How often.
    pub count: u64,
    /// Its first record.
    pub seq: u64,
    /// When it came first.
    pub time: Option<Timestamp>,
    /// Who was refused.
    pub process: String,
    /// In which action.
    pub action: String,
    /// What it weighed.
    pub tier: Option<u8>,
    /// The kind of reason.
    pub reason: Option<Reason>,
    /// The rule's own words.
    pub message: Option<String>,
    /// Whether the process was ended in the act.
    pub killed: bool,
    /// Whether mode audit let it through.
    pub let_through: bool,
    /// What would allow it.
    pub fix: Option<String>,
}

/// A process.
#[derive(Debug, Default)]
pub struct Process {
    /// The process that started it.
    pub parent: i32,
    /// The programs it ran, the first few.
    pub ran: Vec<String>,
    /// How many more it ran.
    pub more: u64,
    /// What it was, for a process that no start is recorded of.
    pub exe: String,
    /// How many decisions it asked for.
    pub decisions: u64,
    /// How many were refused.
    pub denied: u64,
}

/// What was asked of the network, for logs that do not end.
#[derive(Debug, Default)]
pub struct Reached {
    /// Let out.
    pub allowed: u64,
    /// Refused.
    pub denied: u64,
}

/// Says what would allow what was refused.
pub type Fixer<'a> = Box<dyn Fn(&Decided) -> Option<String> + 'a>;

/// A log, summed up.
pub struct Story<'a> {
    fixer: Fixer<'a>,
    workspace: String,
    /// How it began.
    pub start: Option<Start>,
    /// How it ended.
    pub end: Option<End>,
    /// What the whole run came to, if its end says so.
    pub effects: Option<Effects>,
    /// What was counted here, for logs that do not end.
    pub seen: Effects,
    /// When the last record was written.
    pub last: Option<Timestamp>,
    /// Lines.
    pub lines: u64,
    /// Decisions by operation: all, and those that were refused.
    pub counts: BTreeMap<Op, (u64, u64)>,
    /// When what was done.
    pub timeline: Timeline,
    /// Actions.
    pub actions: Kept<String, Action>,
    /// Actions that are grave, for which there was no room.
    pub grave: Kept<String, Action>,
    /// The highest tier of all, and whose it is.
    pub worst: Option<(u8, String)>,
    /// Files in the workspace that were changed.
    pub inside: Kept<String, Changed>,
    /// Files elsewhere that were changed.
    pub elsewhere: Kept<String, Changed>,
    /// Temporary files that were changed.
    pub temporary: Kept<String, Changed>,
    /// Refusals.
    pub refusals: Kept<RefusalKey, Refusal>,
    /// Processes, by their number in the box.
    pub processes: Kept<i32, Process>,
    /// Addresses, for logs that do not end.
    pub reached: Kept<String, Reached>,
    /// Names that were looked up.
    pub names: Kept<String, Reached>,
    /// What the agent said: the action, and the claim.
    pub claims: Vec<(String, Claim)>,
    /// Claims for which there was no room.
    pub more_claims: u64,
    /// Things worth knowing.
    pub notes: Vec<String>,
    /// Notes for which there was no room.
    pub more_notes: u64,
    /// Faults of the log.
    pub faults: u64,
    /// The first of them.
    pub fault: Option<Located>,
}

impl fmt::Debug for Story<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Story").field("start", &self.start).field("lines", &self.lines).finish_non_exhaustive()
    }
}

impl<'a> Story<'a> {
    /// Begins with nothing; `workspace` is where the command started, as records write paths.
    pub fn new(workspace: &str, fixer: Fixer<'a>) -> Self {
        Self {
            fixer,
            workspace: workspace.trim_end_matches('/').to_string(),
            start: None,
            end: None,
            effects: None,
            seen: Effects::default(),
            last: None,
            lines: 0,
            counts: BTreeMap::new(),
            timeline: Timeline::new(),
            actions: Kept::new(200),
            grave: Kept::new(200),
            worst: None,
            inside: Kept::new(500),
            elsewhere: Kept::new(300),
            temporary: Kept::new(100),
            refusals: Kept::new(300),
            processes: Kept::new(400),
            reached: Kept::new(200),
            names: Kept::new(200),
            claims: Vec::new(),
            more_claims: 0,
            notes: Vec::new(),
            more_notes: 0,
            faults: 0,
            fault: None,
        }
    }

    /// Takes the next line of the log.
    pub fn take(&mut self, line: &Line) {
        self.lines += 1;
        self.faults += line.faults.len() as u64;
        self.fault = self.fault.take().or_else(|| line.faults.first().cloned());
        let Some(entry) = &line.entry else { return };
        let detail = Detail::of(&line.raw);
        let time: Option<Timestamp> = detail.time.as_deref().and_then(|time| time.parse().ok());
        self.last = time.or(self.last);
        match entry {
            Entry::Start(start) => {
                self.timeline.origin = time;
                self.start = Some((**start).clone());
            }
            Entry::Decision(decided) => self.decision(line.seq.unwrap_or_default(), decided, time),
            Entry::Note(note) => self.note(&note.text),
            Entry::Head(_) => {}
            Entry::End(end) => {
                self.end = Some((**end).clone());
                if let Some(time) = time {
                    self.timeline.reach(time);
                }
                self.effects = detail.total.as_ref().and_then(|total| total.effects.clone());
            }
            Entry::Other(kind) => {
                // What is claimed stands where it was said; the end of an action only says it again.
                if kind != "action_end" {
                    self.claimed(&detail);
                }
                self.newer(line.seq.unwrap_or_default(), &detail, time);
            }
        }
    }

    fn note(&mut self, text: &str) {
        match self.notes.len() < 100 {
            true => self.notes.push(shorten(text, WIDTH)),
            false => self.more_notes += 1,
        }
    }

    fn decision(&mut self, seq: u64, decided: &Decided, time: Option<Timestamp>) {
        let denied = decided.denied();
        let access = decided.access();
        let count = self.counts.entry(decided.op).or_default();
        count.0 += 1;
        count.1 += u64::from(denied);
        if let Some(time) = time {
            self.timeline.add(time, if denied { Group::Refused } else { Group::of(decided.op) });
        }
        detail::count(&mut self.seen, decided);
        self.acted(seq, decided, access.as_ref(), time);
        self.process(decided, access.as_ref());
        if decided.is_refusal() {
            self.refuse(seq, decided, access.as_ref(), time);
        }
        if decided.done() {
            self.changed(decided.op, access.as_ref(), decided.place.map(Place::of));
        }
        self.asked_outside(access.as_ref(), denied);
    }

    fn acted(&mut self, seq: u64, decided: &Decided, access: Option<&Access>, time: Option<Timestamp>) {
        let denied = decided.denied();
        if !denied {
            self.rate(&decided.action, decided.tier);
        }
        let Some(action) = self.action(&decided.action, is_grave(decided.tier)) else { return };
        if action.decisions == 0 && action.time.is_none() {
            (action.seq, action.time) = (seq, time);
        }
        action.decisions += 1;
        action.attribution.get_or_insert_with(|| word(decided.attribution));
        detail::count(&mut action.seen, decided);
        if denied {
            // A record of the action may have said any number before.
            action.denied = action.denied.saturating_add(1);
            action.refused_tier = action.refused_tier.max(decided.tier);
            return;
        }
        action.tier = action.tier.max(decided.tier);
        // The end of an action says it for all of it; one that was cut off has no end.
        action.reach = action.reach.take().max(decided.reach.map(word));
        action.reversibility = action.reversibility.take().max(decided.reversibility.map(word));
        if let Some(access @ Access::Exec(_)) = access
            && action.first.is_empty()
        {
            action.first = shorten(&target(access), WIDTH);
        }
    }

    /// The action of that name; one that is grave always finds some room.
    fn action(&mut self, id: &str, grave: bool) -> Option<&mut Action> {
        let id = id.to_string();
        match grave && !self.actions.has(&id) && self.actions.is_full() {
            true => self.grave.at(&id),
            false if self.grave.has(&id) => self.grave.at(&id),
            false => self.actions.at(&id),
        }
    }

    fn rate(&mut self, action: &str, tier: Option<u8>) {
        if let Some(tier) = tier
            && self.worst.as_ref().is_none_or(|(worst, _)| tier > *worst)
        {
            self.worst = Some((tier, action.to_string()));
        }
    }

    fn claimed(&mut self, detail: &Detail) {
        let (Some(claim), Some(id)) = (&detail.claim, &detail.action) else { return };
        match self.claims.len() < 200 {
            true => self.claims.push((shorten(id, 40), claim.clone())),
            false => self.more_claims += 1,
        }
    }

    /// A record of an action itself: it begins, something is claimed of it, it has ended.
    fn newer(&mut self, seq: u64, detail: &Detail, time: Option<Timestamp>) {
        self.close(detail);
        let grave = is_grave(detail.tier.max(detail.refused_tier));
        let Some(action) = detail.action.as_deref().and_then(|id| self.action(id, grave)) else { return };
        if action.time.is_none() {
            (action.seq, action.time) = (seq, time);
        }
        action.attribution = action.attribution.take().or_else(|| detail.attribution.clone());
    }

    /// Takes what a record says an action came to.
    fn close(&mut self, detail: &Detail) {
        let Some(id) = detail.action.as_deref() else { return };
        self.rate(id, detail.tier);
        let Some(action) = self.action(id, is_grave(detail.tier.max(detail.refused_tier))) else { return };
        if !detail.command.is_empty() {
            action.command = shorten(&command_line(&detail.command), WIDTH);
        }
        if let Some(claim) = &detail.claim {
            add_claim(action.claim.get_or_insert_default(), claim);
        }
        if !detail.destinations.is_empty() {
            action.destinations.clone_from(&detail.destinations);
        }
        action.effects = detail.effects.clone().or(action.effects.take());
        action.reach = detail.reach.clone().or(action.reach.take());
        action.reversibility = detail.reversibility.clone().or(action.reversibility.take());
        action.tier = action.tier.max(detail.tier);
        action.refused_tier = action.refused_tier.max(detail.refused_tier);
        action.denied = action.denied.max(detail.denied.unwrap_or_default());
        if !detail.taint.is_empty() {
            action.taint.clone_from(&detail.taint);
        }
    }

    fn process(&mut self, decided: &Decided, access: Option<&Access>) {
        const PROGRAMS: usize = 3;
        let who = &decided.process;
        // What comes from outside is no process of the box.
        if who.pid <= 0 {
            return;
        }
        let Some(process) = self.processes.at(&who.pid) else { return };
        process.parent = who.parents.first().copied().unwrap_or_default();
        process.decisions += 1;
        process.denied += u64::from(decided.denied());
        process.exe = shorten(&who.exe, WIDTH);
        if let Some(access @ Access::Exec(_)) = access
            && decided.done()
        {
            match process.ran.len() < PROGRAMS {
                true => process.ran.push(shorten(&target(access), WIDTH)),
                false => process.more += 1,
            }
        }
    }

    fn refuse(&mut self, seq: u64, decided: &Decided, access: Option<&Access>, time: Option<Timestamp>) {
        let aim = access.map_or_else(|| decided.target.to_string(), target);
        let key = (decided.op, shorten(&aim, WIDTH), shorten(&decided.rule.0, WIDTH));
        let fixer = &self.fixer;
        let Some(refusal) = self.refusals.at(&key) else { return };
        if refusal.count == 0 {
            *refusal = Refusal {
                count: 0,
                seq,
                time,
                process: format!("{}[{}]", base_name(&decided.process.exe), decided.process.pid),
                action: shorten(&decided.action, WIDTH),
                tier: decided.tier,
                reason: Some(decided.reason),
                message: decided.message.as_deref().map(|message| shorten(message, WIDTH)),
                killed: decided.outcome == "killed",
                let_through: decided.let_through(),
                fix: fixer(decided),
            };
        }
        refusal.count += 1;
    }

    fn changed(&mut self, op: Op, access: Option<&Access>, known: Option<Place>) {
        match access {
            // What is written to a terminal or to nothing changes no file.
            Some(Access::File { at, .. })
                if at.path.as_path().starts_with("/dev") && !at.path.as_path().starts_with("/dev/shm") => {}
            Some(Access::File { at, .. }) if op != Op::Read => self.change(op, &at.path.to_string(), None, known),
            Some(Access::Move { from, to, .. }) => {
                let (from, to) = (from.path.to_string(), to.path.to_string());
                // A link leaves its source as it was.
                if op != Op::Link {
                    self.change(op, &from, Some(("to", &to)), None);
                }
                self.change(op, &to, Some(("from", &from)), None);
            }
            _ => {}
        }
    }

    fn change(&mut self, op: Op, path: &str, other: Option<(&'static str, &str)>, known: Option<Place>) {
        let list = match known.unwrap_or_else(|| self.place(path)) {
            Place::Workspace => &mut self.inside,
            Place::Temporary => &mut self.temporary,
            Place::Elsewhere => &mut self.elsewhere,
        };
        let Some(changed) = list.at(&shorten(path, WIDTH)) else { return };
        match changed.done.iter_mut().find(|(done, _)| *done == op) {
            Some((_, count)) => *count += 1,
            None => changed.done.push((op, 1)),
        }
        changed.other = other.map(|(way, other)| (way, shorten(other, WIDTH))).or(changed.other.take());
    }

    /// Whether it is known what the workspace is.
    pub fn knows_workspace(&self) -> bool {
        !self.workspace.is_empty() || self.inside.iter().len() > 0
    }

    /// The path as one in the workspace would write it.
    pub fn relative<'p>(&self, path: &'p str) -> &'p str {
        let below = path.strip_prefix(&self.workspace).and_then(|rest| rest.strip_prefix('/'));
        below.filter(|rest| !rest.is_empty() && !self.workspace.is_empty()).unwrap_or(path)
    }

    fn place(&self, path: &str) -> Place {
        let below = |top: &str| path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        match () {
            () if !self.workspace.is_empty() && below(&self.workspace) => Place::Workspace,
            () if ["/tmp", "/var/tmp", "/dev"].into_iter().any(below) => Place::Temporary,
            () => Place::Elsewhere,
        }
    }

    fn asked_outside(&mut self, access: Option<&Access>, denied: bool) {
        let found = match access {
            Some(
                Access::Connect { to: to @ Endpoint::Inet { outside: true, .. } }
                | Access::Send { to: to @ Endpoint::Inet { outside: true, .. } },
            ) => {
                let access = Access::Connect { to: to.clone() };
                self.reached.at(&shorten(&target(&access), WIDTH))
            }
            Some(Access::Resolve(question)) => self.names.at(&shorten(&question.name, WIDTH)),
            _ => None,
        };
        if let Some(reached) = found {
            match denied {
                true => reached.denied += 1,
                false => reached.allowed += 1,
            }
        }
    }
}

fn is_grave(tier: Option<u8>) -> bool {
    tier.is_some_and(|tier| tier >= GRAVE)
}

/// A word of a record, as it is written there.
fn word(value: impl serde::Serialize) -> String {
    let word = serde_json::to_value(value).ok();
    word.and_then(|word| word.as_str().map(str::to_string)).unwrap_or_default()
}

fn base_name(path: &str) -> &str {
    match path.rsplit('/').next() {
        None | Some("") => "?",
        Some(name) => name,
    }
}
