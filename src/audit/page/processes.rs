//! The processes of a run, each below the one that started it.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;

use super::super::report::counted;
use super::super::story::{Kept, Process, Story};
use super::super::text::shorten;
use super::{Shown, number};

/// How deep the tree is drawn: what is deeper stands at this depth.
const DEPTH: usize = 10;

pub(super) fn processes(html: &mut String, story: &Story<'_>) {
    html.push_str("<section id=\"processes\"><h2>Processes</h2>\n");
    let known = &story.processes;
    if known.iter().len() == 0 {
        html.push_str("<p class=\"soft\">None on record.</p></section>\n");
        return;
    }
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    let mut roots = Vec::new();
    for (pid, process) in known.iter() {
        match known.get(&process.parent).is_some() && process.parent != *pid {
            true => children.entry(process.parent).or_default().push(*pid),
            false => roots.push(*pid),
        }
    }
    let count = known.iter().len();
    let _ = writeln!(
        html,
        "<details{}><summary>{count} processes that asked for something</summary>",
        if count <= 30 { " open" } else { "" }
    );
    html.push_str("<ul class=\"tree\">\n");
    let mut tree = Tree { known, children, drawn: HashSet::new() };
    // Two that name each other as parent are no tree: whatever is left is drawn by itself.
    for pid in roots.into_iter().chain(known.iter().map(|(pid, _)| *pid)) {
        tree.draw(html, pid, 0);
    }
    html.push_str("</ul></details>\n");
    if known.more > 0 {
        let _ = writeln!(
            html,
            "<p class=\"soft\">and more: {} acts by processes that are not listed here</p>",
            number(known.more)
        );
    }
    html.push_str("</section>\n");
}

struct Tree<'a> {
    known: &'a Kept<i32, Process>,
    children: BTreeMap<i32, Vec<i32>>,
    drawn: HashSet<i32>,
}

impl Tree<'_> {
    fn draw(&mut self, html: &mut String, pid: i32, depth: usize) {
        let Some(process) = self.known.get(&pid) else { return };
        if !self.drawn.insert(pid) {
            return;
        }
        let _ = writeln!(html, "<li>{}", leaf(pid, process));
        let children = self.children.remove(&pid).unwrap_or_default();
        let nested = !children.is_empty() && depth < DEPTH;
        html.push_str(if nested { "<ul>\n" } else { "</li>\n" });
        for child in children {
            self.draw(html, child, depth + 1);
        }
        if nested {
            html.push_str("</ul></li>\n");
        }
    }
}

fn leaf(pid: i32, process: &Process) -> String {
    let ran: Vec<String> =
        process.ran.iter().map(|line| format!("<code>{}</code>", Shown(&shorten(line, 200)))).collect();
    let name = if process.exe.is_empty() { "?" } else { &process.exe };
    let mut text = match ran.is_empty() {
        true => format!("<code>{}</code>", Shown(&shorten(name, 200))),
        false => ran.join(", then "),
    };
    if process.more > 0 {
        let _ = write!(text, " and {} more", process.more);
    }
    let _ = write!(text, " <span class=\"how\">[{pid}] {}", counted(process.decisions, "act", "acts"));
    if process.denied > 0 {
        let _ = write!(text, ", {} refused", number(process.denied));
    }
    text + "</span>"
}
