//! A run as a tree: its actions, the processes of each, and what every process did.
//!
//! One pass and bounded memory: so many actions and processes are told apart, and so many names of each kind of deed
//! kept; the rest is counted, and the last lines say what was left out.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::{Map, Value, json};

use super::question::workdir;
use super::trail::{BOLD, CYAN, Clock, DIM, Paint, RED, Trail, command, short_name, span};
use super::{Output, put_json, scan, unfinished, warn_about_run};
use crate::audit::actions::{Closed, Opened, SESSION, words};
use crate::audit::brief::{Brief, Sight, Who};
use crate::audit::query::Query;
use crate::audit::read::Reader;
use crate::audit::report::{describe_destination, describe_sum};
use crate::audit::run::Found;
use crate::audit::text::{printable, shorten, target};
use crate::event::{Access, Claim, Endpoint, Exec, FileOp, MoveOp};

/// How many actions are told apart.
const ACTIONS: usize = 500;
/// How many processes, in all actions together.
const PROCESSES: usize = 2000;
/// How many names of each kind of deed are kept for a process.
const NAMES: usize = 4;
/// How many claims are kept for an action, and command lines for a process.
const LINES: usize = 4;
/// The longest line, in characters.
const WIDTH: usize = 120;
/// The longest name of what something was done to.
const NAME: usize = 80;
/// Where branches stop to be moved further to the right.
const DEPTH: usize = 24;

/// Prints a run as a tree of what fits the query; gives the exit status.
pub fn tree(found: &Found, query: &Query, as_json: bool, output: &mut Output<'_>) -> Result<u8> {
    let status = warn_about_run(found, output)?;
    let mut trail = Trail::new(output);
    if !as_json && let Ok(Some(about)) = &found.about {
        trail.about(about, output.out)?;
    }
    let mut tree = Tree { workdir: workdir(found), ..Tree::default() };
    let mut reader = Reader::open(&found.log)?;
    let beside = &["start", "action", "action_end"];
    let read = scan(&mut reader, found, (query, beside), output, |line, sight, _, output| {
        if let (Sight::Start(_), false) = (sight, as_json) {
            trail.record(line.seq, sight, output.out)?;
        }
        tree.record(sight);
        Ok(ControlFlow::Continue(()))
    })?;
    if !query.takes_all() {
        tree.actions.retain(|action| !action.is_idle());
    }
    match as_json {
        true => put_json(&tree.json(reader.ended()), output.out)?,
        false => {
            Page { tree: &tree, paint: Paint { colour: output.colour }, out: &mut *output.out }.put()?;
            if !reader.ended() {
                writeln!(output.out, "\n{}", unfinished(&found.log))?;
            }
        }
    }
    Ok(status.max(read))
}

/// What kind of thing was done, in the order in which it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Deed {
    Killed,
    Denied,
    Created,
    Wrote,
    Deleted,
    Moved,
    Attributes,
    Reached,
    Resolved,
    Visited,
    Bound,
    Signalled,
    Read,
    Failed,
}

impl Deed {
    fn word(self) -> &'static str {
        match self {
            Self::Killed => "KILLED",
            Self::Denied => "DENIED",
            Self::Created => "created",
            Self::Wrote => "wrote",
            Self::Deleted => "deleted",
            Self::Moved => "moved",
            Self::Attributes => "marked",
            Self::Reached => "reached",
            Self::Resolved => "looked up",
            Self::Visited => "visited by",
            Self::Bound => "bound",
            Self::Signalled => "sent",
            Self::Read => "read",
            Self::Failed => "failed",
        }
    }

    /// What an access does when it is done; `None` for the start of a program, which is told otherwise, and for what
    /// leaves no trace.
    fn of(access: &Access) -> Option<Self> {
        Some(match access {
            Access::File { op, .. } => match op {
                FileOp::Read => Self::Read,
                FileOp::Write | FileOp::Truncate => Self::Wrote,
                FileOp::Create | FileOp::Mkdir | FileOp::Mknod | FileOp::Symlink => Self::Created,
                FileOp::Unlink | FileOp::Rmdir => Self::Deleted,
                FileOp::Chmod | FileOp::Chown | FileOp::Utime | FileOp::Xattr => Self::Attributes,
            },
            Access::Move { op: MoveOp::Link, .. } => Self::Created,
            Access::Move { op: MoveOp::Rename | MoveOp::Exchange, .. } => Self::Moved,
            Access::Connect { to: Endpoint::Unspecified | Endpoint::Netlink } => return None,
            Access::Connect { .. } | Access::Send { .. } => Self::Reached,
            Access::Resolve(_) => Self::Resolved,
            Access::Accept(_) => Self::Visited,
            Access::Bind { .. } => Self::Bound,
            Access::Signal(_) => Self::Signalled,
            Access::Exec(_) | Access::Route { .. } | Access::Call { .. } => return None,
        })
    }
}

/// Names, each as often as it came; the first few are kept.
#[derive(Debug, Default)]
struct Names {
    kept: Vec<(String, u64)>,
    /// How often others came.
    others: u64,
}

impl Names {
    fn add(&mut self, name: String) {
        let full = self.kept.len() >= NAMES;
        match self.kept.iter_mut().find(|(kept, _)| *kept == name) {
            Some((_, count)) => *count += 1,
            None if full => self.others += 1,
            None => self.kept.push((name, 1)),
        }
    }

    fn count(&self) -> u64 {
        self.others + self.kept.iter().map(|(_, count)| count).sum::<u64>()
    }

    fn words(&self) -> String {
        let times = |(name, count): &(String, u64)| match count {
            1 => name.clone(),
            count => format!("{name} ×{count}"),
        };
        let mut words: Vec<String> = self.kept.iter().map(times).collect();
        words.extend((self.others > 0).then(|| format!("and {} more", self.others)));
        words.join(", ")
    }

    fn json(&self) -> Value {
        let named: Map<String, Value> = self.kept.iter().map(|(name, count)| (name.clone(), (*count).into())).collect();
        json!({"count": self.count(), "named": named, "others": self.others})
    }
}

/// What was done, by kind.
type Deeds = BTreeMap<Deed, Names>;

/// The whole run.
#[derive(Debug, Default)]
struct Tree {
    workdir: Option<PathBuf>,
    clock: Clock,
    actions: Vec<Action>,
    at: HashMap<String, usize>,
    processes: usize,
    /// What was done in actions that are not told apart.
    others: Deeds,
}

/// One action.
#[derive(Debug, Default)]
struct Action {
    id: String,
    /// Its first process, and the action that it was started in, where a record says so.
    opened: Option<(Option<i32>, Option<String>)>,
    /// What it was asked to do; empty where no record says so.
    asked: String,
    /// What the agent says of it, in a few words each.
    claims: Vec<String>,
    more_claims: u64,
    /// How it ended, its effects left out, and those in words.
    closed: Option<Closed>,
    in_all: Option<String>,
    destinations: Vec<String>,
    first: String,
    last: String,
    processes: Vec<Process>,
    /// Where the process that has this number in the box now is.
    at: HashMap<i32, usize>,
    /// What processes did that are not told apart.
    others: Deeds,
}

/// One process within an action.
#[derive(Debug, Default)]
struct Process {
    pid: i32,
    /// 0 while it is known only as an ancestor.
    host: i32,
    /// The program it is, or was when it ended.
    program: String,
    /// The command lines that it became.
    ran: Vec<String>,
    more_ran: u64,
    deeds: Deeds,
    /// What it started; each stands behind it in the list, so that there is no way round.
    children: Vec<usize>,
    parent: Option<usize>,
}

impl Tree {
    fn record(&mut self, sight: &Sight<'_>) {
        match sight {
            Sight::Start(start) => self.clock = Clock::from(start),
            Sight::Decision(brief) => self.decision(brief),
            Sight::Opened(opened) => {
                if let Some(action) = self.action(&opened.action, &opened.time) {
                    action.open(opened);
                }
            }
            Sight::Claimed(claimed) => {
                if let Some(action) = self.action(&claimed.action, &claimed.time) {
                    action.claim(&claimed.claim);
                }
            }
            Sight::Closed(closed) => {
                if let Some(action) = self.action(&closed.action, &closed.time) {
                    action.close(closed);
                }
            }
            Sight::Note(_) | Sight::Head(_) | Sight::End(_) | Sight::Other(_) => {}
        }
    }

    fn action(&mut self, id: &str, time: &str) -> Option<&mut Action> {
        let at = match self.at.get(id) {
            Some(at) => *at,
            None if self.actions.len() < ACTIONS => {
                self.at.insert(id.to_string(), self.actions.len());
                self.actions.push(Action { id: id.into(), first: time.into(), ..Action::default() });
                self.actions.len() - 1
            }
            None => return None,
        };
        let action = self.actions.get_mut(at)?;
        time.clone_into(&mut action.last);
        Some(action)
    }

    fn decision(&mut self, brief: &Brief<'_>) {
        let access = brief.access();
        let done = access.as_ref().and_then(|access| deed(brief, access, self.workdir.as_deref()));
        let room = PROCESSES.saturating_sub(self.processes);
        let Some(action) = self.action(&brief.action, &brief.time) else {
            return note(&mut self.others, done);
        };
        let before = action.processes.len();
        let Some(process) = action.process(&brief.process, room) else {
            return note(&mut action.others, done);
        };
        match access {
            Some(Access::Exec(exec)) if brief.done() => process.became(&exec),
            _ => note(&mut process.deeds, done),
        }
        self.processes += action.processes.len() - before;
    }
}

fn note(deeds: &mut Deeds, done: Option<(Deed, String)>) {
    if let Some((deed, name)) = done {
        deeds.entry(deed).or_default().add(name);
    }
}

/// Tells what came of a decision, in a word and a name.
fn deed(brief: &Brief<'_>, access: &Access, workdir: Option<&Path>) -> Option<(Deed, String)> {
    if let Access::File { at, .. } = access
        && is_plain_device(at.path.as_path())
    {
        return None;
    }
    let name = || shorten(&name(access, workdir), NAME);
    let told = || format!("{} {}", brief.op.name(), name());
    match (brief.denied(), brief.done()) {
        (true, _) if brief.outcome == "killed" => Some((Deed::Killed, told())),
        (true, _) => Some((Deed::Denied, told())),
        // A program that looks for a file that is not there has done nothing.
        (_, false) if matches!(&*brief.outcome, "ENOENT" | "EEXIST" | "gone") => None,
        (_, false) => Some((Deed::Failed, format!("{} ({})", told(), brief.outcome))),
        (_, true) => Deed::of(access).map(|deed| (deed, name())),
    }
}

/// Whether what is written there goes nowhere, or to the terminal: nobody looks for that in a tree.
fn is_plain_device(path: &Path) -> bool {
    let plain = ["/dev/null", "/dev/zero", "/dev/full", "/dev/tty", "/dev/pts", "/dev/ptmx"];
    plain.iter().any(|device| path.starts_with(device))
}

/// A target by the shortest name that is still plain: paths from where the run started.
fn name(access: &Access, workdir: Option<&Path>) -> String {
    let near = |path: &Path| {
        let inner = workdir.and_then(|workdir| path.strip_prefix(workdir).ok());
        let shown = inner.filter(|inner| !inner.as_os_str().is_empty()).unwrap_or(path);
        shown.to_string_lossy().into_owned()
    };
    match access {
        Access::File { at, .. } => near(at.path.as_path()),
        Access::Move { op: MoveOp::Link, to, .. } => near(to.path.as_path()),
        Access::Move { from, to, .. } => format!("{} -> {}", near(from.path.as_path()), near(to.path.as_path())),
        other => target(other),
    }
}

impl Action {
    fn open(&mut self, opened: &Opened) {
        self.opened = Some((opened.process.as_ref().map(|process| process.pid), opened.parent.clone()));
        self.asked = shorten(&command(&opened.command), WIDTH);
        if let Some(claim) = &opened.claim {
            self.claim(claim);
        }
    }

    fn claim(&mut self, claim: &Claim) {
        match self.claims.len() < LINES {
            true => self.claims.push(shorten(&words(claim), WIDTH)),
            false => self.more_claims += 1,
        }
    }

    fn close(&mut self, closed: &Closed) {
        self.in_all = Some(shorten(&describe_sum(&closed.sum), 2 * WIDTH));
        let destinations = closed.sum.destinations.iter().take(NAMES);
        self.destinations = destinations.map(|party| shorten(&describe_destination(party), WIDTH)).collect();
        self.closed = Some(closed.clone());
    }

    /// The process that it began with, where that is known.
    fn root(&self) -> Option<i32> {
        let opened = self.opened.as_ref().and_then(|(root, _)| *root);
        let by_name = || self.id.strip_prefix("command:").and_then(|pid| pid.parse().ok());
        // The command is the second process of every box.
        opened.or_else(by_name).or((self.id == SESSION).then_some(2))
    }

    /// Finds or adds a process and those between it and the action's first; `None` if there is no `room`.
    fn process(&mut self, who: &Who<'_>, room: usize) -> Option<&mut Process> {
        let known = self.at.get(&who.pid).copied();
        let same = known.filter(|at| self.processes.get(*at).is_some_and(|process| process.is(who.host)));
        let at = match same {
            Some(at) => at,
            None => {
                let root = self.root();
                let above = who.parents.iter().position(|pid| Some(*pid) == root).map_or(0, |root| root + 1);
                let missing = who.parents[..above].iter().filter(|pid| !self.at.contains_key(pid)).count();
                if missing >= room {
                    return None;
                }
                let mut parent = who.parents.iter().skip(above).find_map(|pid| self.at.get(pid).copied());
                for pid in who.parents[..above].iter().rev() {
                    parent = Some(match self.at.get(pid) {
                        Some(at) => *at,
                        None => self.add(*pid, &who.exe, parent),
                    });
                }
                self.add(who.pid, &who.exe, parent)
            }
        };
        let process = self.processes.get_mut(at)?;
        process.host = who.host;
        Some(process)
    }

    fn add(&mut self, pid: i32, program: &str, parent: Option<usize>) -> usize {
        let at = self.processes.len();
        if let Some(parent) = parent.and_then(|parent| self.processes.get_mut(parent)) {
            parent.children.push(at);
        }
        let program = shorten(short_name(program), WIDTH);
        self.processes.push(Process { pid, program, parent, ..Process::default() });
        self.at.insert(pid, at);
        at
    }

    /// Whether nothing is known of it but that it was there.
    fn is_idle(&self) -> bool {
        self.processes.is_empty() && self.others.is_empty() && self.more_claims == 0
    }

    /// The action that it was started in, unless that is the agent itself.
    fn parent(&self) -> Option<&str> {
        let parent = self.opened.as_ref()?.1.as_deref()?;
        (parent != SESSION && parent != self.id).then_some(parent)
    }

    /// What it was asked to do, as well as is known.
    fn command(&self) -> &str {
        match self.asked.as_str() {
            "" => self.processes.iter().find_map(|process| process.ran.first()).map_or("", String::as_str),
            asked => asked,
        }
    }
}

impl Process {
    fn is(&self, host: i32) -> bool {
        self.host == 0 || self.host == host
    }

    fn became(&mut self, exec: &Exec) {
        let program = exec.program.to_string();
        self.program = shorten(short_name(&program), WIDTH);
        match self.ran.len() < LINES {
            true => self.ran.push(shorten(&command(&exec.argv), WIDTH)),
            false => self.more_ran += 1,
        }
    }

    /// Whether it did nothing but start one other.
    fn passes_on(&self) -> Option<usize> {
        match self.children.as_slice() {
            [only] if self.ran.is_empty() && self.deeds.is_empty() => Some(*only),
            _ => None,
        }
    }
}

/// A process that is to be printed, and where.
struct Twig {
    at: usize,
    margin: String,
    depth: usize,
    /// Whether it is the last of those that stand side by side.
    last: bool,
}

impl Twig {
    /// Those that stand side by side, the first at the end.
    fn of(side_by_side: &[usize], margin: &str, depth: usize) -> Vec<Self> {
        let twig = |at: &usize| Self { at: *at, margin: margin.into(), depth, last: false };
        let mut twigs: Vec<Self> = side_by_side.iter().rev().map(twig).collect();
        twigs.iter_mut().take(1).for_each(|twig| twig.last = true);
        twigs
    }
}

/// Puts the tree on paper.
struct Page<'a> {
    tree: &'a Tree,
    paint: Paint,
    out: &'a mut dyn Write,
}

impl Page<'_> {
    fn put(&mut self) -> io::Result<()> {
        let tree = self.tree;
        let mut done = vec![false; tree.actions.len()];
        let known = |id: &str| tree.actions.iter().any(|action| action.id == id);
        for (at, action) in tree.actions.iter().enumerate() {
            if action.parent().is_none_or(|parent| !known(parent)) {
                self.action(at, 0, &mut done)?;
            }
        }
        // Actions that name each other as parents can only stand in a log that was made up.
        for at in 0..tree.actions.len() {
            self.action(at, 0, &mut done)?;
        }
        let actions = if tree.actions.len() == 1 { "action" } else { "actions" };
        let processes = if tree.processes == 1 { "process" } else { "processes" };
        writeln!(self.out, "\n{} {actions}, {} {processes}", tree.actions.len(), tree.processes)?;
        self.left_out(&tree.others, &format!("in further actions, of which only {ACTIONS} are told apart"), "")
    }

    fn action(&mut self, at: usize, depth: usize, done: &mut [bool]) -> io::Result<()> {
        let tree = self.tree;
        let Some(action) = tree.actions.get(at) else { return Ok(()) };
        if std::mem::replace(&mut done[at], true) {
            return Ok(());
        }
        let margin = "   ".repeat(depth.min(DEPTH));
        writeln!(self.out)?;
        self.head(action, &margin)?;
        self.processes(action, &margin)?;
        let those = format!("by further processes, of which only {PROCESSES} are told apart");
        self.left_out(&action.others, &those, &margin)?;
        let inner = |other: &Action| other.parent() == Some(&action.id);
        for at in (0..tree.actions.len()).filter(|at| inner(&tree.actions[*at])) {
            self.action(at, depth + 1, done)?;
        }
        Ok(())
    }

    fn head(&mut self, action: &Action, margin: &str) -> io::Result<()> {
        let clock = self.tree.clock;
        let began = clock.since(&action.first).unwrap_or_default();
        let took = clock.since(&action.last).unwrap_or_default() - began;
        let id = self.paint.paint(BOLD, &printable(&action.id));
        let when = self.paint.paint(DIM, &format!("at {} for {}", span(began), span(took)));
        let command = action.command();
        let gap = if command.is_empty() { "" } else { "  " };
        writeln!(self.out, "{margin}{id}  {}{gap}{when}", printable(command))?;
        for claim in &action.claims {
            writeln!(self.out, "{margin}  {} {}", self.paint.paint(CYAN, "says, unverified:"), printable(claim))?;
        }
        if action.more_claims > 0 {
            writeln!(self.out, "{margin}  and {} more claims", action.more_claims)?;
        }
        if let Some(in_all) = action.in_all.as_ref().filter(|in_all| !in_all.is_empty()) {
            writeln!(self.out, "{margin}  in all: {}", printable(in_all))?;
        }
        for destination in &action.destinations {
            writeln!(self.out, "{margin}  {}", printable(destination))?;
        }
        Ok(())
    }

    /// Prints processes and what they started, each below its parent; a list of what is to come stands in for the
    /// stack, which a long line of descent would use up.
    fn processes(&mut self, action: &Action, margin: &str) -> io::Result<()> {
        let roots: Vec<usize> =
            (0..action.processes.len()).filter(|at| action.processes[*at].parent.is_none()).collect();
        let mut to_come = Twig::of(&roots, margin, 0);
        while let Some(mut twig) = to_come.pop() {
            while let Some(only) = action.processes.get(twig.at).and_then(Process::passes_on) {
                twig.at = only;
            }
            let Some(process) = action.processes.get(twig.at) else { continue };
            self.process(action, process, &twig)?;
            let margin = if twig.depth < DEPTH { self.inside(&twig) } else { twig.margin };
            to_come.extend(Twig::of(&process.children, &margin, twig.depth + 1));
        }
        Ok(())
    }

    /// The margin of what stands below a process.
    fn inside(&self, twig: &Twig) -> String {
        let rail = if twig.last { " ".into() } else { self.paint.paint(DIM, "│") };
        format!("{}{rail}  ", twig.margin)
    }

    fn process(&mut self, action: &Action, process: &Process, twig: &Twig) -> io::Result<()> {
        let branch = self.paint.paint(DIM, if twig.last { "└─" } else { "├─" });
        let name = if process.pid == 0 { "outside".into() } else { format!("{}[{}]", process.program, process.pid) };
        // The action's own line says it already.
        let line = process.ran.first().filter(|line| *line != action.command());
        let line = line.map(|line| format!("  {}", printable(line))).unwrap_or_default();
        writeln!(self.out, "{}{branch} {}{line}", twig.margin, self.paint.paint(BOLD, &printable(&name)))?;
        let rail = if process.children.is_empty() { " ".into() } else { self.paint.paint(DIM, "│") };
        let margin = format!("{}{rail}  ", self.inside(twig));
        for line in process.ran.iter().skip(1) {
            writeln!(self.out, "{margin}{:<10} {}", "then", printable(line))?;
        }
        if process.more_ran > 0 {
            writeln!(self.out, "{margin}{:<10} {} more programs", "then", process.more_ran)?;
        }
        self.deeds(&process.deeds, &margin)
    }

    fn deeds(&mut self, deeds: &Deeds, margin: &str) -> io::Result<()> {
        for (deed, names) in deeds {
            let word = format!("{:<10}", deed.word());
            let word = if *deed <= Deed::Denied { self.paint.paint(RED, &word) } else { word };
            writeln!(self.out, "{margin}{word} {}", printable(&names.words()))?;
        }
        Ok(())
    }

    fn left_out(&mut self, deeds: &Deeds, whose: &str, margin: &str) -> io::Result<()> {
        if deeds.is_empty() {
            return Ok(());
        }
        writeln!(self.out, "{margin}left out: what was done {whose}")?;
        self.deeds(deeds, &format!("{margin}   "))
    }
}

impl Tree {
    fn json(&self, ended: bool) -> Value {
        let actions: Vec<Value> = self.actions.iter().map(Action::json).collect();
        json!({"actions": actions, "processes": self.processes, "others": deeds_json(&self.others), "ended": ended})
    }
}

impl Action {
    fn json(&self) -> Value {
        let closed = self.closed.as_ref();
        json!({
            "action": self.id,
            "parent": self.opened.as_ref().and_then(|(_, parent)| parent.as_ref()),
            "command": self.command(),
            "claims_unverified": self.claims,
            "first": self.first,
            "last": self.last,
            "denied": closed.map(|closed| closed.sum.denied),
            "reach": closed.map(|closed| closed.sum.reach),
            "reversibility": closed.map(|closed| closed.sum.reversibility),
            "tier": closed.map(|closed| closed.sum.tier),
            "processes": self.processes.iter().map(|process| self.process_json(process)).collect::<Vec<_>>(),
            "others": deeds_json(&self.others),
        })
    }

    /// Processes stand side by side: JSON that is nested as deep as processes are is refused by many readers.
    fn process_json(&self, process: &Process) -> Value {
        let parent = process.parent.and_then(|at| self.processes.get(at)).map(|parent| parent.pid);
        json!({
            "pid": process.pid,
            "host": process.host,
            "parent": parent,
            "program": process.program,
            "ran": process.ran,
            "more_ran": process.more_ran,
            "did": deeds_json(&process.deeds),
        })
    }
}

fn deeds_json(deeds: &Deeds) -> Value {
    deeds.iter().map(|(deed, names)| (deed.word().replace(' ', "_").to_lowercase(), names.json())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(tree: &mut Tree, kind: &str, record: &Value) {
        tree.record(&Sight::of(kind, record.to_string().as_bytes()).unwrap());
    }

    fn write(action: &str, pid: i32, parents: &[i32], path: &str) -> Value {
        json!({
            "time": "2026-11-23T01:00:00Z", "action": action, "op": "write", "target": {"path": path},
            "process": {"pid": pid, "host": 10 + pid, "exe": "/bin/sh", "parents": parents},
            "verdict": "allow", "rule": "r", "reason": "granted", "layer": "supervisor", "outcome": "ok",
            "latency_us": 1.0,
        })
    }

    fn page(tree: &Tree) -> String {
        let mut out = Vec::new();
        Page { tree, paint: Paint { colour: false }, out: &mut out }.put().unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_is_too_much_to_tell_apart_is_counted_and_said() {
        let mut tree = Tree::default();
        for n in 0..ACTIONS as i32 + 3 {
            put(&mut tree, "decision", &write(&format!("a{n}"), 5, &[2, 1], "/x"));
        }
        for n in 0..PROCESSES as i32 {
            put(&mut tree, "decision", &write("a0", 10 + n, &[2, 1], "/y"));
        }
        for n in 0..9 {
            put(&mut tree, "decision", &write("a1", 5, &[2, 1], &format!("/z{n}")));
        }
        assert_eq!((tree.actions.len(), tree.processes), (ACTIONS, PROCESSES));
        let page = page(&tree);
        for said in [
            "in further actions, of which only 500 are told apart\n   wrote      /x ×3\n",
            "by further processes, of which only 2000 are told apart\n   wrote      /y ×500\n",
            "wrote      /x, /z0, /z1, /z2, and 6 more\n",
            "500 actions, 2000 processes\n",
        ] {
            assert!(page.contains(said), "{said}{page}");
        }
    }

    #[test]
    fn forks_that_did_nothing_but_fork_are_passed_over_and_others_shown() {
        let mut tree = Tree::default();
        put(&mut tree, "decision", &write("command:3", 9, &[7, 5, 3, 2, 1], "/a"));
        assert_eq!(tree.processes, 4);
        let page_of_one = page(&tree);
        assert!(page_of_one.contains("\n└─ sh[9]\n") && !page_of_one.contains("sh[5]"), "{page_of_one}");
        put(&mut tree, "decision", &write("command:3", 8, &[5, 3, 2, 1], "/b"));
        let page = page(&tree);
        let lines: Vec<&str> = page.lines().filter(|line| line.contains("─ ")).collect();
        assert_eq!(lines, ["└─ sh[5]", "   ├─ sh[9]", "   └─ sh[8]"], "{page}");
    }

    #[test]
    fn a_number_that_is_used_again_is_another_process() {
        let mut tree = Tree::default();
        let mut again = write("session", 5, &[1], "/b");
        again["process"]["host"] = 99.into();
        put(&mut tree, "decision", &write("session", 5, &[1], "/a"));
        put(&mut tree, "decision", &again);
        assert_eq!(tree.processes, 2);
    }

    #[test]
    fn a_log_that_was_made_up_is_no_way_round() {
        let mut tree = Tree::default();
        for (action, parent) in [("a1", "a2"), ("a2", "a1"), ("a3", "a3"), ("a4", "none")] {
            put(&mut tree, "action", &json!({"action": action, "parent": parent}));
            put(&mut tree, "decision", &write(action, 5, &[5, 5, 1], "/x"));
        }
        let page = page(&tree);
        for action in ["\na1 ", "\n   a2 ", "\na3 ", "\na4 "] {
            assert!(page.contains(action), "{action} {page}");
        }
        assert_eq!(page.matches("wrote").count(), 4);
    }

    #[test]
    fn the_deepest_line_of_descent_is_printed_within_bounds() {
        let mut tree = Tree::default();
        for pid in 3..PROCESSES as i32 {
            let parents: Vec<i32> = (1..pid).rev().collect();
            put(&mut tree, "decision", &write("command:3", pid, &parents, "/x"));
        }
        let page = page(&tree);
        assert_eq!(page.matches("wrote").count(), PROCESSES - 3);
        assert!(page.lines().all(|line| line.chars().count() < 250), "they do not move to the right for ever");
        assert!(tree.json(true).to_string().contains("\"parent\":1500"));
    }
}
