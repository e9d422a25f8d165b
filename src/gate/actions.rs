//! The book of actions: which are open, what each has done, and what it has read.
//!
//! Asked and told by the gate under one lock, a few lookups each time. What it keeps is bounded: an action that has ended
//! is on record, and only the weightiest are kept for the summary.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::SystemTime;

use super::Toward;
use super::tally::{Moved, Tally};
use crate::audit::actions::{ActionSum, Began, Claiming};
use crate::audit::{Outcome, Record};
use crate::event::{Access, ActionId, Attribution, Before, Bound, Claim, Event, FileId, FileOp, Kind, Labels};
use crate::event::{Losses, MoveOp, Place, Reversibility, Standing, Subject, Weight, Where};

/// How many actions are kept for the summary.
const KEPT: usize = 1000;
/// How many changed files of one action are told apart; a further one is counted each time it is opened.
const FILES: usize = 1 << 16;
/// How many files are remembered as holding secrets; beyond that all count as tainted.
const LABELLED: usize = 1 << 18;
/// How many actions a process may have open at once.
const BRACKETS: usize = 16;
/// How many processes may have any.
const SPEAKERS: usize = 1024;
/// How many processes of the session are remembered as tainted; beyond that all count as tainted.
const TAINTED: usize = 4096;

/// The book.
#[derive(Debug)]
pub(super) struct Actions {
    open: HashMap<ActionId, Open>,
    /// What processes have said they began and not ended, by their number in the box.
    brackets: HashMap<i32, Bracket>,
    /// What processes of the session have read, by their number in the box.
    tainted: HashMap<i32, Labels>,
    /// Labels of the secrets that may have been written into files.
    labelled: HashMap<FileId, Labels>,
    /// What has been read by processes, or written into files, that are not remembered.
    tainting_all: Labels,
    /// Actions that are over but for questions that are not settled yet.
    ending: Vec<ActionId>,
    last: u32,
    total: Open,
    /// What ended actions came to, the lightest and oldest first.
    ended: BTreeMap<(Grade, ActionId), ActionSum>,
    left_out: u64,
}

/// How much an action that has ended is worth keeping.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Grade {
    tier: u8,
    denied: u64,
}

/// The actions that a process has open by its own word.
#[derive(Debug)]
struct Bracket {
    /// What it was marked with when it began them: who bears that mark as well, among its descendants, is in them, too.
    mark: ActionId,
    /// The process, by its number on the host.
    host: i32,
    actions: Vec<ActionId>,
}

/// A question is open that counts in an action.
#[derive(Debug, Default)]
pub(super) struct Asking;

#[derive(Debug)]
struct Open {
    /// Whether a program was started in it, so that it lasts until its processes have ended.
    runs: bool,
    /// Held by each question of it that is not settled yet: until then it cannot end.
    asking: Arc<Asking>,
    sum: ActionSum,
    losses: Losses,
    /// Files that were made or changed in it, and by which process: each counts as changed once.
    touched: HashMap<FileId, i32>,
    tally: Tally,
}

impl Open {
    fn new(action: ActionId, attribution: Attribution) -> Self {
        let sum = ActionSum::new(action, attribution);
        Self {
            runs: false,
            asking: Arc::default(),
            sum,
            losses: Losses::default(),
            touched: HashMap::new(),
            tally: Tally::default(),
        }
    }
}

impl Default for Actions {
    fn default() -> Self {
        let session = Open::new(ActionId::SESSION, Attribution::Session);
        Self {
            open: HashMap::from([(ActionId::SESSION, session)]),
            brackets: HashMap::new(),
            tainted: HashMap::new(),
            labelled: HashMap::new(),
            tainting_all: Labels::default(),
            last: 0,
            total: Open::new(ActionId::SESSION, Attribution::Session),
            ending: Vec::new(),
            ended: BTreeMap::new(),
            left_out: 0,
        }
    }
}

impl Actions {
    /// The action that a process begins, or takes part in, by starting a program: the one it has said it began, else a
    /// new one if it belongs to none.
    pub fn for_command(&mut self, subject: &Subject) -> Option<ActionId> {
        let begun = self.begun_by(subject).and_then(|begun| begun.last().copied());
        begun.or_else(|| (subject.mark == ActionId::SESSION).then(|| self.next()))
    }

    fn next(&mut self) -> ActionId {
        self.last += 1;
        ActionId::new(self.last)
    }

    fn begun_by(&self, subject: &Subject) -> Option<&[ActionId]> {
        if self.brackets.is_empty() {
            return None;
        }
        let line = std::iter::once(&subject.pid).chain(&subject.parents);
        let bracket = line.filter_map(|pid| self.brackets.get(pid)).find(|bracket| bracket.mark == subject.mark);
        bracket.map(|bracket| bracket.actions.as_slice())
    }

    /// Adds to a question what is known of the asker and of the file that it reads. `action` is the one that a command
    /// begins, if it does. What is returned keeps the action from ending, and is for [`Actions::settled`].
    pub fn prepare(&self, event: &mut Event, action: ActionId, bound: Option<Arc<Bound>>) -> Option<Arc<Asking>> {
        event.standing = Standing { bound, ..self.standing(&event.subject, action) };
        self.add_labels(event);
        self.open.get(&event.standing.action).map(|open| Arc::clone(&open.asking))
    }

    fn add_labels(&self, event: &mut Event) {
        if self.labelled.is_empty() {
            return;
        }
        if let Access::File { at, .. } | Access::Move { from: at, .. } = &mut event.access
            && let Some(labels) = at.file.and_then(|file| self.labelled.get(&file))
        {
            at.labels = labels.clone();
        }
    }

    /// What is known of the asker of a question. `action` is the one that a command begins, if it does.
    fn standing(&self, subject: &Subject, action: ActionId) -> Standing {
        let (action, attribution, shared) = match self.begun_by(subject).and_then(<[_]>::split_last) {
            _ if action != ActionId::SESSION => (action, Attribution::Subtree, Vec::new()),
            Some((last, others)) => (*last, Attribution::Bracket, others.to_vec()),
            None if subject.mark != ActionId::SESSION => (subject.mark, Attribution::Subtree, Vec::new()),
            None => (ActionId::SESSION, Attribution::Session, Vec::new()),
        };
        let so_far = self.open.get(&action).map(|open| open.losses).unwrap_or_default();
        let taint = self.taint_of(subject, action);
        let in_run = self.total.losses;
        Standing { action, attribution, shared, taint, so_far, in_run, bound: None }
    }

    /// An action and those that it is a part of, the session apart.
    fn line(&self, action: ActionId) -> impl Iterator<Item = &Open> {
        let find = |action: ActionId| self.open.get(&action).filter(|_| action != ActionId::SESSION);
        std::iter::successors(find(action), move |open| find(open.sum.parent))
    }

    /// What an action and those around it have read, and what the asker and its ancestors read outside of one.
    fn taint_of(&self, subject: &Subject, action: ActionId) -> Labels {
        let mut taint = self.tainting_all.clone();
        self.line(action).for_each(|open| taint.extend(&open.sum.taint));
        if !self.tainted.is_empty() {
            let line = std::iter::once(&subject.pid).chain(&subject.parents);
            line.filter_map(|pid| self.tainted.get(pid)).for_each(|labels| taint.extend(labels));
        }
        taint
    }

    /// Takes down what came of a question; gives the record of the action if it begins with this.
    pub fn settled(&mut self, event: &Event, weight: &Weight, made: Option<FileId>, outcome: Came) -> Option<Record> {
        let Event { access, standing, .. } = event;
        let begins = matches!(access, Access::Exec(_)) && !self.open.contains_key(&standing.action);
        let begins = begins.then(|| self.begin(event));
        if let (Access::Exec(_), Came::Done, Some(open)) = (access, outcome, self.open.get_mut(&standing.action)) {
            open.runs = true;
        }
        let toward = Toward::of(event);
        for open in self.open.get_mut(&standing.action).into_iter().chain([&mut self.total]) {
            if let Some(toward) = &toward {
                open.tally.decided(toward, outcome != Came::Refused);
            }
            match outcome {
                Came::Refused => {
                    open.sum.denied += 1;
                    open.sum.refused_tier = open.sum.refused_tier.max(Some(weight.tier));
                }
                Came::Failed => {}
                Came::Done => {
                    open.weigh(weight, &standing.taint);
                    open.count(access, weight, &standing.taint);
                }
            }
        }
        if outcome == Came::Done {
            self.spread(event, weight, made);
        }
        begins
    }

    /// Follows what was read into what may be written: by the processes of the action, into files that it has open.
    fn spread(&mut self, event: &Event, weight: &Weight, made: Option<FileId>) {
        let Event { subject, access, standing } = event;
        let written = match access {
            Access::File { op: FileOp::Write | FileOp::Truncate, at } => at.file,
            _ => None,
        };
        if let Some(made) = made {
            // Its number may have been another's.
            self.labelled.remove(&made);
        }
        if let Some(file) = made.or(written) {
            self.label(file, &standing.taint);
            self.label(file, &weight.secrets);
            for open in self.open.get_mut(&standing.action).into_iter().chain([&mut self.total]) {
                open.touch(file, subject.pid);
            }
        }
        if let Access::Move { from: Place { file: Some(file), .. }, .. } = access {
            self.label(*file, &weight.carried);
        }
        if weight.secrets.is_empty() {
            return;
        }
        self.files_within_reach(event).into_iter().for_each(|file| self.label(file, &weight.secrets));
        // To say that a part begins must not make the rest forget what the part has read.
        let line: Vec<ActionId> = self.line(standing.action).map(|open| open.sum.action).collect();
        for action in line {
            if let Some(open) = self.open.get_mut(&action) {
                open.sum.taint.extend(&weight.secrets);
            }
        }
        if standing.attribution != Attribution::Subtree {
            self.taint(subject.pid, &weight.secrets);
        }
    }

    /// The files that the asker may have open for writing: its own, and those of all the processes of its commands.
    fn files_within_reach(&self, event: &Event) -> Vec<FileId> {
        let Event { subject, standing, .. } = event;
        let commands = |open: &&Open| match standing.attribution {
            Attribution::Subtree if open.sum.action == standing.action => true,
            _ => open.sum.attribution == Attribution::Subtree,
        };
        let shared = self.line(standing.action).filter(commands).flat_map(|open| open.touched.keys());
        let touched = self.open.values().flat_map(|open| &open.touched);
        let own = touched.filter(|(_, by)| **by == subject.pid).map(|(file, _)| file);
        shared.chain(own).copied().collect()
    }

    /// A file may hold secrets from now on.
    fn label(&mut self, file: FileId, labels: &Labels) {
        if labels.is_empty() {
            return;
        }
        if self.labelled.len() >= LABELLED && !self.labelled.contains_key(&file) {
            return self.tainting_all.extend(labels);
        }
        self.labelled.entry(file).or_default().extend(labels);
    }

    /// A process of the session has read secrets: they stay with it and its descendants, whatever action comes next.
    fn taint(&mut self, pid: i32, secrets: &Labels) {
        if self.tainted.len() >= TAINTED && !self.tainted.contains_key(&pid) {
            return self.tainting_all.extend(secrets);
        }
        self.tainted.entry(pid).or_default().extend(secrets);
    }

    fn begin(&mut self, event: &Event) -> Record {
        let Event { subject, access, standing } = event;
        let mut open = Open::new(standing.action, standing.attribution);
        if let Access::Exec(exec) = access {
            open.sum.command = exec.argv.clone();
        }
        let command = open.sum.command.clone();
        self.open.insert(standing.action, open);
        let (action, attribution, process) = (standing.action, standing.attribution, subject.as_ref().clone());
        let (time, parent) = (SystemTime::now(), subject.mark);
        Record::Began(Box::new(Began { time, action, attribution, process, parent, command, claim: None }))
    }

    /// A process says that it begins an action.
    pub fn claim_begins(&mut self, subject: &Subject, claim: Claim) -> Result<(ActionId, Record), String> {
        let bracket = self.brackets.get(&subject.pid);
        if bracket.is_some_and(|bracket| bracket.actions.len() >= BRACKETS) {
            return Err(format!("{BRACKETS} actions are open already: end one"));
        }
        if bracket.is_none() && self.brackets.len() >= SPEAKERS {
            return Err(format!("{SPEAKERS} processes have actions open already"));
        }
        let action = self.next();
        let (time, process, attribution) = (SystemTime::now(), subject.clone(), Attribution::Bracket);
        let parent = self.standing(subject, ActionId::SESSION).action;
        let mut open = Open::new(action, attribution);
        (open.sum.parent, open.sum.claim) = (parent, Some(claim.clone()));
        self.open.insert(action, open);
        let bracket = self.brackets.entry(subject.pid);
        let (mark, host) = (subject.mark, subject.host);
        bracket.or_insert_with(|| Bracket { mark, host, actions: Vec::new() }).actions.push(action);
        let began = Began { time, action, attribution, process, parent, command: Vec::new(), claim: Some(claim) };
        Ok((action, Record::Began(Box::new(began))))
    }

    /// A process says that an action which it began has ended; without a number the last one.
    pub fn claim_ends(
        &mut self,
        subject: &Subject,
        which: Option<ActionId>,
        claim: Claim,
    ) -> Result<(ActionId, Vec<Record>), String> {
        let begun = self.brackets.get_mut(&subject.pid).ok_or("this process has begun no action")?;
        let begun = &mut begun.actions;
        let at = match which {
            None => begun.len().checked_sub(1),
            Some(which) => begun.iter().position(|action| *action == which),
        };
        let at = at.ok_or_else(|| {
            which.map_or("no action".into(), |which| format!("{which} is no open action of this process"))
        })?;
        let action = begun.remove(at);
        if begun.is_empty() {
            self.brackets.remove(&subject.pid);
        }
        if let (Some(said), outcome @ Some(_)) =
            (self.open.get_mut(&action).and_then(|o| o.sum.claim.as_mut()), &claim.outcome)
        {
            said.outcome.clone_from(outcome);
        }
        let (time, process) = (SystemTime::now(), subject.clone());
        let claimed = Record::Claimed(Box::new(Claiming { time, action, process, claim }));
        // What still runs keeps it open.
        let lasts = self.open.get(&action).is_some_and(|open| open.runs);
        let ended = if lasts { None } else { self.end(action) };
        Ok((action, std::iter::once(claimed).chain(ended).collect()))
    }

    /// Ends what processes began that are gone and have not said so: who gets their numbers next has nothing to do with it.
    /// What still runs keeps its action open.
    pub fn abandon(&mut self, is_gone: impl Fn(i32) -> bool) -> Vec<Record> {
        let gone: Vec<i32> = self.brackets.iter().filter(|(_, by)| is_gone(by.host)).map(|(pid, _)| *pid).collect();
        let abandoned: Vec<ActionId> =
            gone.iter().filter_map(|pid| self.brackets.remove(pid)).flat_map(|bracket| bracket.actions).collect();
        let lasts = |action: &ActionId| self.open.get(action).is_some_and(|open| open.runs);
        // Of questions that were never settled nobody tells.
        let ending = std::mem::take(&mut self.ending);
        let over: Vec<ActionId> = abandoned.into_iter().filter(|action| !lasts(action)).chain(ending).collect();
        over.into_iter().filter_map(|action| self.end(action)).collect()
    }

    /// A process says something of what it does.
    pub fn claim_notes(&mut self, subject: &Subject, claim: Claim) -> (ActionId, Record) {
        let action = self.standing(subject, ActionId::SESSION).action;
        let (time, process) = (SystemTime::now(), subject.clone());
        (action, Record::Claimed(Box::new(Claiming { time, action, process, claim })))
    }

    /// Adds what a connection moved.
    pub fn transferred(&mut self, toward: &Toward, moved: Option<Moved>) {
        for open in self.open.get_mut(&toward.action).into_iter().chain([&mut self.total]) {
            open.tally.transferred(toward, moved);
        }
    }

    /// Ends an action; gives its record. Nothing happens if it is not open, or the process that began it has more to do; one
    /// with a question that is not settled ends after that.
    pub fn end(&mut self, action: ActionId) -> Option<Record> {
        if self.brackets.values().any(|bracket| bracket.actions.contains(&action)) {
            let open = self.open.get_mut(&action)?;
            open.runs = false;
            return None;
        }
        if action == ActionId::SESSION {
            return None;
        }
        if Arc::strong_count(&self.open.get(&action)?.asking) > 1 {
            if !self.ending.contains(&action) {
                self.ending.push(action);
            }
            return None;
        }
        self.close(action)
    }

    /// A question of the action has been settled, or never will be: it ends now if only that was missing.
    pub fn answered(&mut self, action: ActionId, asking: Arc<Asking>) -> Option<Record> {
        drop(asking);
        let at = self.ending.iter().position(|ending| *ending == action)?;
        self.ending.swap_remove(at);
        self.end(action)
    }

    fn close(&mut self, action: ActionId) -> Option<Record> {
        let sum = self.open.remove(&action)?.finished();
        self.keep(sum.clone());
        Some(Record::Ended(Box::new(sum), SystemTime::now()))
    }

    /// Keeps what an action came to for the summary; if there are too many the lightest goes.
    fn keep(&mut self, sum: ActionSum) {
        let grade = Grade { tier: sum.tier.max(sum.refused_tier.unwrap_or(0)), denied: sum.denied };
        self.ended.insert((grade, sum.action), sum);
        if self.ended.len() > KEPT {
            self.ended.pop_first();
            self.left_out += 1;
        }
    }

    /// Ends all that is still open but the session.
    pub fn end_all(&mut self) -> Vec<Record> {
        self.brackets.clear();
        let mut open: Vec<ActionId> = self.open.keys().copied().filter(|id| *id != ActionId::SESSION).collect();
        open.sort_unstable();
        open.into_iter().filter_map(|action| self.close(action)).collect()
    }

    /// The record of what the session came to: it ends with the run.
    pub fn session(&self) -> Option<Record> {
        let sum = self.open.get(&ActionId::SESSION)?.finished_so_far();
        Some(Record::Ended(Box::new(sum), SystemTime::now()))
    }

    /// What each action came to, in the order in which they began, those still open included; the session first.
    pub fn sums(&self) -> Vec<ActionSum> {
        let open = self.open.values().map(Open::finished_so_far);
        let mut sums: Vec<ActionSum> = open.chain(self.ended.values().cloned()).collect();
        sums.sort_by_key(|sum| sum.action);
        sums
    }

    /// What all came to.
    pub fn total(&self) -> ActionSum {
        self.total.finished_so_far()
    }

    /// How many actions are not in [`Actions::sums`].
    pub fn left_out(&self) -> u64 {
        self.left_out
    }
}

/// What came of a question, as the book tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Came {
    /// It was refused, or the process ended for it.
    Refused,
    /// It was let through, and the kernel failed it.
    Failed,
    /// It was done.
    Done,
}

impl Came {
    pub fn of(allowed: bool, outcome: Outcome) -> Self {
        match outcome {
            _ if !allowed => Self::Refused,
            Outcome::Killed => Self::Refused,
            Outcome::Ok => Self::Done,
            // A connection that is under way.
            Outcome::Errno(EINPROGRESS) => Self::Done,
            Outcome::Errno(_) | Outcome::Gone => Self::Failed,
        }
    }
}

const EINPROGRESS: i32 = nix::errno::Errno::EINPROGRESS as i32;

impl Open {
    fn finished(self) -> ActionSum {
        self.finished_so_far()
    }

    fn finished_so_far(&self) -> ActionSum {
        ActionSum { destinations: self.tally.destinations(), ..self.sum.clone() }
    }

    fn weigh(&mut self, weight: &Weight, taint: &Labels) {
        let sum = &mut self.sum;
        sum.tier = sum.tier.max(weight.tier);
        sum.reach = sum.reach.max(weight.reach);
        sum.reversibility = sum.reversibility.max(weight.reversibility);
        sum.taint.extend(&weight.secrets);
        sum.taint.extend(taint);
    }

    fn count(&mut self, access: &Access, weight: &Weight, taint: &Labels) {
        let effects = &mut self.sum.effects;
        for secret in weight.secrets.iter() {
            *effects.secrets.entry(secret.clone()).or_default() += 1;
        }
        match weight.kind {
            Kind::Persistence => effects.persistence += 1,
            Kind::Authority => effects.authority += 1,
            Kind::Signal => effects.signals += 1,
            _ => {}
        }
        match access {
            Access::File { op, at } => self.count_file(*op, at, weight),
            Access::Move { op, to, .. } => self.count_move(*op, to, weight),
            Access::Exec(_) => effects.programs += 1,
            Access::Resolve(_) => effects.names += 1,
            Access::Connect { .. } | Access::Send { .. } if is_egress(weight.kind) => {
                effects.connections += 1;
                effects.tainted_connections += u64::from(!taint.is_empty());
            }
            Access::Connect { .. } | Access::Send { .. } | Access::Route { .. } => {}
            Access::Accept(_) | Access::Bind { .. } | Access::Signal(_) | Access::Call { .. } => {}
        }
    }

    fn count_file(&mut self, op: FileOp, at: &Place, weight: &Weight) {
        let Some(place) = weight.place.filter(|place| *place != Where::Private) else { return };
        let files = &mut self.sum.effects.files;
        match op {
            FileOp::Read => return,
            FileOp::Create | FileOp::Mknod | FileOp::Symlink => files.created += 1,
            FileOp::Mkdir => files.directories_made += 1,
            FileOp::Rmdir => files.directories_removed += 1,
            FileOp::Chmod | FileOp::Chown | FileOp::Utime | FileOp::Xattr => files.attributes += 1,
            FileOp::Unlink => files.deleted += 1,
            FileOp::Write | FileOp::Truncate => {
                // Made or changed before in this action: told already.
                if at.file.is_some_and(|file| self.touched.contains_key(&file)) {
                    return;
                }
                self.sum.effects.files.changed += 1;
            }
        }
        let files = &mut self.sum.effects.files;
        *files.places.entry(place).or_default() += 1;
        if let Some(before) = at.before.as_ref().filter(|_| op != FileOp::Create) {
            self.lose(before, weight, op == FileOp::Unlink);
        }
    }

    fn count_move(&mut self, op: MoveOp, to: &Place, weight: &Weight) {
        let Some(place) = weight.place.filter(|place| *place != Where::Private) else { return };
        let files = &mut self.sum.effects.files;
        match op {
            MoveOp::Link => files.created += 1,
            MoveOp::Rename | MoveOp::Exchange => files.moved += 1,
        }
        *files.places.entry(place).or_default() += 1;
        if let Some(before) = to.before.as_ref().filter(|_| op == MoveOp::Rename) {
            files.replaced += 1;
            self.lose(before, weight, true);
        }
    }

    fn touch(&mut self, file: FileId, by: i32) {
        if self.touched.len() < FILES {
            self.touched.entry(file).or_insert(by);
        }
    }

    /// What a file held is gone, or may be.
    fn lose(&mut self, before: &Before, weight: &Weight, whole: bool) {
        let files = &mut self.sum.effects.files;
        files.bytes_lost += before.bytes;
        if let Some(git) = before.git {
            *files.git.entry(git).or_default() += 1;
        }
        if weight.reversibility == Reversibility::R3 {
            files.unheld += 1;
        }
        if weight.reversibility != Reversibility::R2 && !(before.held && weight.reversibility != Reversibility::R3) {
            self.losses.files += u64::from(whole);
            self.losses.bytes += before.bytes;
        }
    }
}

fn is_egress(kind: Kind) -> bool {
    matches!(kind, Kind::Listed | Kind::Unlisted | Kind::ListedTainted | Kind::UnlistedTainted)
}

#[cfg(test)]
mod tests;
