//! Sums a log up for a page that people read: what was done, by whom, to what, and what was refused.
//!
//! Main process of `agentbox report`. Takes the log line by line and keeps a bounded part of it, however long it is:
//! each list has a limit, and counts what it has no room for. What is grave has room of its own, so that it cannot be
//! crowded out by many harmless things.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::Hash;

use jiff::Timestamp;

use super::detail::{Claim, Detail, Effects};
use super::entry::{Decided, Entry};
use super::read::{Line, Located};
use super::record::{End, Op, Start};
use super::text::{shorten, target};
use crate::event::{Access, Endpoint, Reason};

/// The longest text that is kept of anything, in characters.
const WIDTH: usize = 400;
/// From this tier on an action is grave.
const GRAVE: u8 = 5;

/// A list that stops growing.
#[derive(Debug)]
pub struct Kept<K, V> {
    list: Vec<(K, V)>,
    known: HashMap<K, usize>,
    limit: usize,
    /// How often something came that is not in the list because the list is full.
    pub more: u64,
}

impl<K: Hash + Eq + Clone, V: Default> Kept<K, V> {
    fn new(limit: usize) -> Self {
        Self { list: Vec::new(), known: HashMap::new(), limit, more: 0 }
    }

    /// The entry of that name, made if there is room.
    fn at(&mut self, key: &K) -> Option<&mut V> {
        let at = match self.known.get(key) {
            Some(&at) => at,
            None if self.list.len() >= self.limit => {
                self.more += 1;
                return None;
            }
            None => {
                self.known.insert(key.clone(), self.list.len());
                self.list.push((key.clone(), V::default()));
                self.list.len() - 1
            }
        };
        self.list.get_mut(at).map(|(_, value)| value)
    }

    fn has(&self, key: &K) -> bool {
        self.known.contains_key(key)
    }

    /// What is kept, in the order in which it first came.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&K, &V)> {
        self.list.iter().map(|(key, value)| (key, value))
    }

    /// What is kept of that name.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.known.get(key).and_then(|&at| self.list.get(at)).map(|(_, value)| value)
    }
}

/// An action, as far as the log tells.
#[derive(Debug, Default)]
pub struct Action {
    /// Where it begins.
    pub seq: u64,
    /// When it begins.
    pub time: Option<Timestamp>,
    /// What it runs.
    pub command: String,
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
    /// `B0` to `B3`.
    pub reach: Option<String>,
    /// `R0` to `R3`.
    pub reversibility: Option<String>,
    /// 1 to 10.
    pub tier: Option<u8>,
    /// Secrets that it has seen.
    pub taint: Vec<String>,
}

impl Action {
    /// What it came to.
    pub fn effects(&self) -> &Effects {
        self.effects.as_ref().unwrap_or(&self.seen)
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
    /// The kind of reason.
    pub reason: Option<Reason>,
    /// The rule's own words.
    pub message: Option<String>,
    /// Whether the process was ended in the act.
    pub killed: bool,
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

/// The kinds of act that the timeline tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// Opens for reading, calls.
    Other,
    /// Changes to files.
    Files,
    /// Programs.
    Programs,
    /// Names, connections, datagrams.
    Network,
    /// Anything that was refused.
    Refused,
}

impl Group {
    /// All, in the order in which they are drawn.
    pub const ALL: [Self; 5] = [Self::Other, Self::Files, Self::Programs, Self::Network, Self::Refused];

    fn of(op: Op) -> Self {
        match op {
            Op::Read | Op::Signal | Op::Call => Self::Other,
            Op::Exec => Self::Programs,
            Op::Connect | Op::Send | Op::Route | Op::Resolve | Op::Accept | Op::Bind => Self::Network,
            Op::Write
            | Op::Create
            | Op::Truncate
            | Op::Mkdir
            | Op::Mknod
            | Op::Symlink
            | Op::Unlink
            | Op::Rmdir
            | Op::Chmod
            | Op::Chown
            | Op::Utime
            | Op::Xattr
            | Op::Rename
            | Op::Exchange
            | Op::Link => Self::Files,
        }
    }
}

/// How many acts there were when. Its columns grow wider as the run grows longer.
#[derive(Debug)]
pub struct Timeline {
    origin: Option<Timestamp>,
    /// The width of a column in milliseconds.
    pub width: i64,
    /// Acts by column and [`Group::ALL`].
    pub columns: Vec<[u64; 5]>,
    /// The last moment that is part of it, in milliseconds.
    last: i64,
}

impl Timeline {
    const COLUMNS: usize = 60;

    fn new() -> Self {
        Self { origin: None, width: 1, columns: vec![[0; 5]; Self::COLUMNS], last: 0 }
    }

    fn add(&mut self, time: Timestamp, group: Group) {
        let column = self.reach(time);
        if let Some(acts) = self.columns.get_mut(column) {
            acts[group as usize] += 1;
        }
    }

    /// Makes room up to `time`, and gives its column.
    fn reach(&mut self, time: Timestamp) -> usize {
        let origin = *self.origin.get_or_insert(time);
        let since = time.as_millisecond().saturating_sub(origin.as_millisecond()).max(0);
        self.last = self.last.max(since);
        while since / self.width >= Self::COLUMNS as i64 {
            self.widen();
        }
        usize::try_from(since / self.width).unwrap_or_default()
    }

    /// The columns up to the last moment.
    pub fn used(&self) -> usize {
        usize::try_from(self.last / self.width).map_or(Self::COLUMNS, |last| (last + 1).min(Self::COLUMNS))
    }

    /// Each two columns become one.
    fn widen(&mut self) {
        for at in 0..Self::COLUMNS {
            let pair = [2 * at, 2 * at + 1].map(|from| self.columns.get(from).copied().unwrap_or_default());
            self.columns[at] = std::array::from_fn(|group| pair[0][group] + pair[1][group]);
        }
        self.width = self.width.saturating_mul(2);
    }
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
            Entry::Decision(decided) => self.decision(line.seq.unwrap_or_default(), decided, &detail, time),
            Entry::Note(note) => self.note(&note.text),
            Entry::End(end) => {
                self.end = Some((**end).clone());
                if let Some(time) = time {
                    self.timeline.reach(time);
                }
                self.effects = detail.total.as_ref().and_then(|total| total.effects.clone());
            }
            _ => self.newer(line.seq.unwrap_or_default(), &detail, time),
        }
    }

    fn note(&mut self, text: &str) {
        match self.notes.len() < 100 {
            true => self.notes.push(shorten(text, WIDTH)),
            false => self.more_notes += 1,
        }
    }

    fn decision(&mut self, seq: u64, decided: &Decided, detail: &Detail, time: Option<Timestamp>) {
        let denied = decided.denied();
        let access = decided.access();
        let count = self.counts.entry(decided.op).or_default();
        count.0 += 1;
        count.1 += u64::from(denied);
        if let Some(time) = time {
            self.timeline.add(time, if denied { Group::Refused } else { Group::of(decided.op) });
        }
        self.acted(seq, decided, detail, time);
        self.process(decided, access.as_ref());
        if denied {
            self.refuse(seq, decided, access.as_ref(), time);
        } else if decided.outcome == "ok" {
            self.changed(decided.op, access.as_ref(), place_of(detail));
        }
        self.asked_outside(access.as_ref(), denied);
    }

    fn acted(&mut self, seq: u64, decided: &Decided, detail: &Detail, time: Option<Timestamp>) {
        let denied = decided.denied();
        self.rate(&decided.action, detail.tier);
        let grave = detail.tier.is_some_and(|tier| tier >= GRAVE);
        let Some(action) = self.action(&decided.action, grave) else { return };
        if action.decisions == 0 && action.time.is_none() {
            (action.seq, action.time) = (seq, time);
        }
        action.decisions += 1;
        // A record of the action may have said any number before.
        action.denied = action.denied.saturating_add(u64::from(denied));
        action.tier = action.tier.max(detail.tier);
        // The end of an action says it for all of it; one that was cut off has no end.
        action.reach = action.reach.take().max(detail.reach.clone());
        action.reversibility = action.reversibility.take().max(detail.reversibility.clone());
        action.attribution = action.attribution.take().or_else(|| detail.attribution.clone());
        if !denied && decided.outcome == "ok" {
            action.seen.count(decided.op);
        }
        if action.command.is_empty() && decided.op == Op::Exec {
            action.command = decided.access().map(|access| shorten(&target(&access), WIDTH)).unwrap_or_default();
        }
    }

    /// The action of that name; one that is grave always finds some room.
    fn action(&mut self, id: &str, grave: bool) -> Option<&mut Action> {
        let id = id.to_string();
        match grave && !self.actions.has(&id) && self.actions.list.len() >= self.actions.limit {
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

    /// A record of an action itself: it begins, something is claimed of it, it has ended.
    fn newer(&mut self, seq: u64, detail: &Detail, time: Option<Timestamp>) {
        if let (Some(claim), Some(id)) = (&detail.claim, &detail.action) {
            match self.claims.len() < 200 {
                true => self.claims.push((shorten(id, 40), claim.clone())),
                false => self.more_claims += 1,
            }
        }
        self.close(detail);
        let grave = detail.tier.is_some_and(|tier| tier >= GRAVE);
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
        let grave = detail.tier.is_some_and(|tier| tier >= GRAVE);
        let Some(action) = self.action(id, grave) else { return };
        if !detail.command.is_empty() {
            let words: Vec<String> = detail.command.iter().map(|word| super::text::quoted(word)).collect();
            action.command = shorten(&words.join(" "), WIDTH);
        }
        if let Some(claim) = &detail.claim {
            action.claim.get_or_insert_default().add(claim);
        }
        action.effects = detail.effects.clone().or(action.effects.take());
        action.reach = detail.reach.clone().or(action.reach.take());
        action.reversibility = detail.reversibility.clone().or(action.reversibility.take());
        action.tier = action.tier.max(detail.tier);
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
            && !decided.denied()
            && decided.outcome == "ok"
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
                reason: Some(decided.reason),
                message: decided.message.as_deref().map(|message| shorten(message, WIDTH)),
                killed: decided.outcome == "killed",
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

/// Where the record itself says that a file lies.
fn place_of(detail: &Detail) -> Option<Place> {
    match detail.place.as_deref()? {
        "workspace" => Some(Place::Workspace),
        "private" => Some(Place::Temporary),
        "home" | "elsewhere" | "system" => Some(Place::Elsewhere),
        _ => None,
    }
}

fn base_name(path: &str) -> &str {
    match path.rsplit('/').next() {
        None | Some("") => "?",
        Some(name) => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_list_counts_what_it_has_no_room_for() {
        let mut kept: Kept<u32, u64> = Kept::new(2);
        for key in [1, 2, 1, 3, 3, 2] {
            if let Some(value) = kept.at(&key) {
                *value += 1;
            }
        }
        assert_eq!(kept.iter().collect::<Vec<_>>(), [(&1, &2), (&2, &2)]);
        assert_eq!(kept.more, 2);
    }

    #[test]
    fn a_timeline_holds_runs_of_any_length() {
        let at = |ms: i64| Timestamp::from_millisecond(ms).unwrap();
        let mut line = Timeline::new();
        for ms in [1000, 1059, 1060, 999] {
            line.add(at(ms), Group::Files);
        }
        assert_eq!(line.width, 2);
        assert_eq!((line.columns[0][1], line.columns[29][1], line.columns[30][1]), (2, 1, 1), "a clock may step back");
        line.add(at(9_999_999_999), Group::Refused);
        assert_eq!(line.columns.iter().flatten().sum::<u64>(), 5);
        assert!(line.width * 60 > 9_999_998_999);
    }
}
