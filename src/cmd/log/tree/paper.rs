//! Puts the tree on paper: actions, and below each its processes with what they did.

use std::io::{self, Write};

use super::super::trail::{BOLD, CYAN, DIM, Paint, RED, span};
use super::deeds::{Deed, Deeds};
use super::{ACTIONS, Action, DEPTH, PROCESSES, Process, Tree};
use crate::audit::text::printable;

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
pub(super) struct Page<'a> {
    pub tree: &'a Tree,
    pub paint: Paint,
    pub out: &'a mut dyn Write,
}

impl Page<'_> {
    pub fn put(&mut self) -> io::Result<()> {
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
        // An action's end is seen some moments after its last process has gone.
        let over = clock.since(&action.last).unwrap_or_default();
        let id = self.paint.paint(BOLD, &printable(&action.id));
        let when = self.paint.paint(DIM, &format!("at {}, over by {}", span(began), span(over)));
        let command = printable(action.command());
        let claimed = action.claimed();
        let claimed =
            claimed.map(|said| format!("{} {}", self.paint.paint(CYAN, "claims, unverified:"), printable(&said)));
        let name = claimed.unwrap_or(command);
        let gap = if name.is_empty() { "" } else { "  " };
        writeln!(self.out, "{margin}{id}  {name}{gap}{when}")?;
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
        if action.more_destinations > 0 {
            writeln!(self.out, "{margin}  and {} more destinations", action.more_destinations)?;
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
