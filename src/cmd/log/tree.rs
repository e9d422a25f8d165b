//! A run as a tree: its actions, the processes of each, and what every process did.
//!
//! One pass and bounded memory: so many actions and processes are told apart, and so many names of each kind of deed
//! kept; the rest is counted, and the last lines say what was left out.

mod deeds;
mod paper;

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::PathBuf;

use anyhow::Result;
use serde_json::{Map, Value, json};

use self::deeds::{Deeds, deed, note};
use self::paper::Page;
use super::question::workdir;
use super::trail::{Clock, Paint, Trail, command, short_name};
use super::{Output, put_json, scan, unfinished, warn_about_run};
use crate::audit::actions::{ActionSum, Closed, Opened, SESSION, add_claim, reason_words, tool_words, words};
use crate::audit::brief::{Brief, Sight, Who};
use crate::audit::query::Query;
use crate::audit::read::Reader;
use crate::audit::report::{describe_destination, describe_sum};
use crate::audit::run::Found;
use crate::audit::text::shorten;
use crate::event::{Access, Claim, Exec};

/// How many actions are told apart.
const ACTIONS: usize = 500;
/// How many processes, in all actions together.
const PROCESSES: usize = 2000;
/// How many claims and destinations are kept for an action, and command lines for a process.
const LINES: usize = 4;
/// The longest line, in characters.
const WIDTH: usize = 120;
/// Where branches stop to be moved further to the right.
const DEPTH: usize = 24;

/// Prints a run as a tree of what fits the query; gives the exit status.
pub fn tree(found: &Found, query: &Query, as_json: bool, output: &mut Output<'_>) -> Result<u8> {
    let status = warn_about_run(found, output)?;
    let mut trail = Trail::new(output, workdir(found));
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

/// What an action began with.
#[derive(Debug, Default)]
enum Began {
    /// No record says so.
    #[default]
    Unknown,
    /// A program.
    Command(String),
    /// A process's word.
    Claim,
}

/// One action.
#[derive(Debug, Default)]
struct Action {
    id: String,
    /// Its first process, and the action that it was started in, where a record says so.
    opened: Option<(Option<i32>, Option<String>)>,
    began: Began,
    /// All that the agent says of it.
    claim: Option<Claim>,
    /// The same as it was said, in a few words each.
    claims: Vec<String>,
    more_claims: u64,
    /// How it ended, its effects left out, and those in words.
    closed: Option<Closed>,
    in_all: Option<String>,
    destinations: Vec<String>,
    more_destinations: u64,
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

impl Action {
    fn open(&mut self, opened: &Opened) {
        self.opened = Some((opened.process.as_ref().map(|process| process.pid), opened.parent.clone()));
        self.began = match (opened.command.as_slice(), &opened.claim) {
            ([], None) => Began::Unknown,
            ([], Some(_)) => Began::Claim,
            (words, _) => Began::Command(shorten(&command(words), WIDTH)),
        };
        if let Some(claim) = &opened.claim {
            self.claim(claim);
        }
    }

    fn claim(&mut self, claim: &Claim) {
        // What the action's own line says of the claim that it began with is not said twice.
        let said = match (&self.began, &self.claim) {
            (Began::Claim, None) => reason_words(claim).map(str::to_string),
            _ => Some(words(claim)),
        };
        add_claim(self.claim.get_or_insert_default(), claim);
        match said {
            None => {}
            Some(said) if self.claims.len() < LINES => self.claims.push(shorten(&said, WIDTH)),
            Some(_) => self.more_claims += 1,
        }
    }

    fn close(&mut self, closed: &Closed) {
        self.in_all = Some(shorten(&describe_sum(&closed.sum), 2 * WIDTH));
        let destinations = closed.sum.destinations.iter();
        self.destinations =
            destinations.take(LINES).map(|party| shorten(&describe_destination(party), WIDTH)).collect();
        self.more_destinations = closed.sum.destinations.len().saturating_sub(LINES) as u64;
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

    /// The command that it began with, as well as is known; empty where it began with a claim.
    fn command(&self) -> &str {
        match &self.began {
            Began::Command(command) => command,
            Began::Claim => "",
            Began::Unknown => self.processes.iter().find_map(|process| process.ran.first()).map_or("", String::as_str),
        }
    }

    /// What it is claimed to be, where nothing else names it: the tool, and with what.
    fn claimed(&self) -> Option<String> {
        let Began::Claim = self.began else { return None };
        let said = tool_words(self.claim.as_ref()?);
        Some(if said.is_empty() { "something".into() } else { shorten(&said, WIDTH) })
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

impl Tree {
    fn json(&self, ended: bool) -> Value {
        let actions: Vec<Value> = self.actions.iter().map(Action::json).collect();
        json!({"actions": actions, "processes": self.processes, "others": deeds::json(&self.others), "ended": ended})
    }
}

impl Action {
    fn json(&self) -> Value {
        let mut fields = self.closed.as_ref().map(|closed| sum_json(&closed.sum)).unwrap_or_default();
        let own = json!({
            "action": self.id,
            "parent": self.opened.as_ref().and_then(|(_, parent)| parent.as_ref()),
            "command": self.command(),
            "claim_unverified": self.claim,
            "claims_unverified": self.claims,
            "first": self.first,
            "last": self.last,
            "processes": self.processes.iter().map(|process| self.process_json(process)).collect::<Vec<_>>(),
            "others": deeds::json(&self.others),
        });
        fields.extend(own.as_object().cloned().unwrap_or_default());
        fields.into()
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
            "did": deeds::json(&process.deeds),
        })
    }
}

/// What an action came to, but for the names that the tree has in words of its own.
fn sum_json(sum: &ActionSum) -> Map<String, Value> {
    let mut fields = match serde_json::to_value(sum) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    };
    fields.remove("claim");
    fields
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
