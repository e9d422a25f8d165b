//! The long sections of the page: each a list that shows its beginning and folds the rest away.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;

use jiff::Timestamp;

use super::super::detail::Effects;
use super::super::record::{Destination, Op};
use super::super::report::{describe_party, size};
use super::super::story::{Action, Changed, Group, Kept, Process, Reached, Refusal, RefusalKey, Story};
use super::super::text::{quoted, shorten};
use super::{Facts, Shown, command, number, rated, seconds, sum, tier_class};
use crate::event::Reason;

/// Writes a list: the first `open` of its rows, the rest folded away, and how many there was no room for.
pub(super) fn rows(html: &mut String, rows: impl Iterator<Item = String>, open: usize, more: u64, what: &str) {
    let rows: Vec<String> = rows.collect();
    let put = |html: &mut String, rows: &[String]| {
        html.push_str("<ul class=\"rows\">\n");
        rows.iter().for_each(|row| {
            let _ = writeln!(html, "<li>{row}</li>");
        });
        html.push_str("</ul>\n");
    };
    // A fold for a row or two is more to read than they are.
    let (first, folded) = rows.split_at(if rows.len() <= open + 2 { rows.len() } else { open });
    put(html, first);
    if !folded.is_empty() {
        let _ = writeln!(html, "<details><summary>{} more {what}</summary>", folded.len());
        put(html, folded);
        html.push_str("</details>\n");
    }
    if more > 0 {
        let _ = writeln!(
            html,
            "<p class=\"soft\">and {} more {what} that are not listed here: the log has them</p>",
            number(more)
        );
    }
}

pub(super) fn happened(html: &mut String, story: &Story<'_>) {
    html.push_str("<section id=\"happened\"><h2>What happened</h2>\n");
    timeline(html, story);
    operations(html, story);
    html.push_str("</section>\n");
}

const HEIGHT: f64 = 100.0;

fn group_words(group: Group) -> &'static str {
    match group {
        Group::Other => "reads and calls",
        Group::Files => "changes to files",
        Group::Programs => "programs",
        Group::Network => "network",
        Group::Refused => "refused",
    }
}

fn timeline(html: &mut String, story: &Story<'_>) {
    let line = &story.timeline;
    let most = line.columns.iter().map(|acts| acts.iter().sum::<u64>()).max().unwrap_or_default();
    if most == 0 {
        html.push_str("<p class=\"soft\">No act is on record.</p>\n");
        return;
    }
    let used = line.used();
    let long = seconds(used as f64 * line.width as f64 / 1000.0);
    let _ = write!(
        html,
        "<svg viewBox=\"0 0 {} {HEIGHT}\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"acts over {long}, \
         at most {most} in one column\">",
        used * 10
    );
    for (at, acts) in line.columns.iter().take(used).enumerate() {
        column(html, at, acts, most);
    }
    html.push_str("</svg>\n");
    let _ = writeln!(
        html,
        "<div class=\"axis\"><span>start</span><span>at most {} acts at a time</span><span>{long}</span></div>",
        number(most)
    );
    html.push_str("<ul class=\"legend\">");
    for group in Group::ALL {
        let acts: u64 = line.columns.iter().map(|acts| acts[group as usize]).sum();
        let _ = write!(
            html,
            "<li><svg viewBox=\"0 0 1 1\" aria-hidden=\"true\"><rect class=\"g{}\" width=\"1\" \
             height=\"1\"/></svg>{} {}</li>",
            group as usize,
            number(acts),
            group_words(group)
        );
    }
    html.push_str("</ul>\n");
}

fn column(html: &mut String, at: usize, acts: &[u64; 5], most: u64) {
    let mut base = HEIGHT;
    for group in Group::ALL {
        let count = acts[group as usize];
        if count == 0 {
            continue;
        }
        // A single act must be seen beside thousands.
        let height = (count as f64 / most as f64 * (HEIGHT - 16.0)).max(4.0);
        base -= height;
        let _ = write!(
            html,
            "<rect class=\"g{}\" x=\"{}\" y=\"{base:.1}\" width=\"9\" height=\"{height:.1}\"/>",
            group as usize,
            at * 10
        );
    }
}

fn operations(html: &mut String, story: &Story<'_>) {
    let mut counts: BTreeMap<Op, (u64, u64)> = story.counts.clone();
    if let Some(end) = &story.end {
        counts = end.counts.iter().map(|(op, count)| (*op, (count.asked(), count.refused()))).collect();
    }
    if counts.is_empty() {
        return;
    }
    html.push_str(
        "<details><summary>By operation</summary>\n<table><thead><tr><th>operation</th><th>asked</th>\
         <th>refused</th><th class=\"wide\">on record</th></tr></thead><tbody>\n",
    );
    for (op, (asked, refused)) in &counts {
        let recorded = story.counts.get(op).map_or(0, |(all, _)| *all);
        let _ = writeln!(
            html,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td class=\"wide\">{}</td></tr>",
            op.name(),
            number(*asked),
            number(*refused),
            number(recorded)
        );
    }
    html.push_str("</tbody></table></details>\n");
    let asked = sum(counts.values().map(|(asked, _)| *asked));
    let recorded: u64 = story.counts.values().map(|(all, _)| all).sum();
    if asked > recorded && story.end.is_some() {
        let _ = writeln!(
            html,
            "<p class=\"soft small\">{} acts were counted and are not on record one by one: the audit level of the \
             run leaves them out.</p>",
            number(asked - recorded)
        );
    }
}

pub(super) fn actions(html: &mut String, story: &Story<'_>, facts: &Facts<'_>) {
    html.push_str("<section id=\"actions\"><h2>Actions</h2>\n");
    html.push_str(
        "<p class=\"soft\">What the command itself did, and each command or tool call that it started, \
        with all that came of it.</p>\n",
    );
    let mut listed: Vec<(&String, &Action)> = story.actions.iter().chain(story.grave.iter()).collect();
    // The grave ones first, then those that were refused something, then in order.
    listed
        .sort_by_key(|(_, action)| (std::cmp::Reverse(action.tier), std::cmp::Reverse(action.denied > 0), action.seq));
    let start = story.start.as_ref().and_then(|start| start.time.parse().ok());
    let list = listed.into_iter().map(|(id, act)| action(id, act, start, &command(story, facts)));
    rows(html, list, 10, 0, "actions");
    if story.actions.more > 0 {
        let _ = writeln!(
            html,
            "<p class=\"soft\">and more: {} records belong to actions that are not listed here</p>",
            number(story.actions.more)
        );
    }
    html.push_str("</section>\n");
}

fn action(id: &str, action: &Action, start: Option<Timestamp>, own: &str) -> String {
    let what = match (id, action.command.as_str()) {
        ("session", _) => shorten(own, 300),
        (_, "") => String::new(),
        (_, command) => shorten(command, 300),
    };
    let tier = match action.tier {
        Some(tier) => format!("<span class=\"badge {}\">tier {tier} of 10</span>", tier_class(tier)),
        None => String::new(),
    };
    let what = if what.is_empty() {
        "a process with no program on record".into()
    } else {
        format!("<code>{}</code>", Shown(&what))
    };
    let mut row = format!("<div class=\"split\"><span>{what}</span><span>{tier}</span></div>");
    let words = rated(action.reach.as_deref(), action.reversibility.as_deref());
    if !words.is_empty() {
        let _ = write!(row, "<div>{}</div>", Shown(&words));
    }
    let mut said = vec![if id == "session" { "the command itself".to_string() } else { id.to_string() }];
    if let (Some(start), Some(time)) = (start, action.time) {
        said.push(format!("at {}", seconds(time.duration_since(start).as_secs_f64().max(0.0))));
    }
    said.extend(effects(action.effects()));
    if action.denied > 0 {
        said.push(format!("{} refused", action.denied));
    }
    if !action.taint.is_empty() {
        said.push(format!("has seen: {}", shorten(&action.taint.join(", "), 200)));
    }
    if let Some(how) = &action.attribution {
        said.push(format!("known by {how}"));
    }
    let _ = write!(row, "<div class=\"how\">{}</div>", Shown(&said.join(" · ")));
    if let Some(said) = &action.claim {
        let words = [said.tool.as_deref(), said.reason.as_deref(), said.note.as_deref()];
        let words: Vec<&str> = words.into_iter().flatten().collect();
        let words = shorten(&words.join(": "), 300);
        let _ = write!(
            row,
            "<div class=\"how\"><span class=\"badge warn\">claimed, unverified</span> {}</div>",
            Shown(&words)
        );
    }
    row
}

/// What an action came to, in a few words each.
fn effects(effects: &Effects) -> Vec<String> {
    let files = &effects.files;
    let counted = [
        (effects.programs, "programs", "program"),
        (files.created, "created", "created"),
        (files.changed, "changed", "changed"),
        (files.replaced, "replaced", "replaced"),
        (files.moved, "moved", "moved"),
        (files.deleted, "removed", "removed"),
        (effects.persistence, "changes to what runs later", "change to what runs later"),
        (effects.signals, "signals to others", "signal to others"),
    ];
    let counted = counted.into_iter().filter(|(count, ..)| *count > 0);
    let mut said: Vec<String> =
        counted.map(|(count, many, one)| format!("{count} {}", if count == 1 { one } else { many })).collect();
    if files.bytes_lost > 0 {
        said.push(format!("{} lost", size(files.bytes_lost)));
    }
    for (label, count) in effects.secrets.iter().take(8) {
        said.push(format!("read {} {}", shorten(label, 60), times(*count)));
    }
    for to in effects.destinations.iter().take(5) {
        said.push(format!("reached {}", shorten(&describe_party(&to.party), 120)));
    }
    if effects.destinations.len() > 5 {
        said.push(format!("and {} more destinations", effects.destinations.len() - 5));
    }
    said
}

pub(super) fn files(html: &mut String, story: &Story<'_>) {
    html.push_str("<section id=\"files\"><h2>Files changed</h2>\n");
    let lists = [
        (if story.knows_workspace() { "Outside the workspace" } else { "Files" }, &story.elsewhere, 20),
        ("In the workspace", &story.inside, 12),
        ("Temporary", &story.temporary, 4),
    ];
    if lists.iter().all(|(_, list, _)| list.iter().len() == 0) {
        html.push_str("<p class=\"soft\">None on record.</p>\n");
    }
    for (title, list, open) in lists.into_iter().filter(|(_, list, _)| list.iter().len() > 0) {
        let _ = writeln!(
            html,
            "<h3>{title} <span class=\"soft\">({}{})</span></h3>",
            list.iter().len(),
            if list.more > 0 { "+" } else { "" }
        );
        let mut changed: Vec<(&String, &Changed)> = list.iter().collect();
        // What git keeps for itself comes last.
        changed.sort_by_key(|(path, _)| (path.contains("/.git/"), *path));
        rows(
            html,
            changed.into_iter().map(|(path, changed)| file(story.relative(path), changed, story)),
            open,
            list.more,
            "changes",
        );
    }
    html.push_str("</section>\n");
}

fn file(path: &str, changed: &Changed, story: &Story<'_>) -> String {
    let words: Vec<String> = changed.done.iter().map(|(op, count)| done(*op, *count)).collect();
    let other = changed.other.as_ref();
    let other = other.map(|(way, other)| format!(" {way} <code>{}</code>", Shown(story.relative(other))));
    let other = other.unwrap_or_default();
    format!(
        "<div class=\"split\"><span><code>{}</code></span><span class=\"how\">{}{other}</span></div>",
        Shown(path),
        words.join(", ")
    )
}

fn done(op: Op, count: u64) -> String {
    let word = match op {
        Op::Create => "created",
        Op::Mkdir => "directory made",
        Op::Mknod => "special file made",
        Op::Symlink => "link made",
        Op::Link => "second name",
        Op::Write => "written",
        Op::Truncate => "cut",
        Op::Unlink => "removed",
        Op::Rmdir => "directory removed",
        Op::Rename => "renamed",
        Op::Exchange => "exchanged",
        Op::Chmod => "mode set",
        Op::Chown => "owner set",
        Op::Utime => "times set",
        Op::Xattr => "attribute set",
        Op::Read
        | Op::Exec
        | Op::Connect
        | Op::Send
        | Op::Route
        | Op::Resolve
        | Op::Accept
        | Op::Bind
        | Op::Signal
        | Op::Call => op.name(),
    };
    if count > 1 { format!("{word} {count}×") } else { word.to_string() }
}

pub(super) fn network(html: &mut String, story: &Story<'_>) {
    html.push_str("<section id=\"network\"><h2>Network</h2>\n");
    let summed = story.end.as_ref().map(|end| end.destinations.as_slice());
    match summed {
        Some([]) => html.push_str("<p class=\"soft\">Nothing outside was reached, or asked for.</p>\n"),
        Some(destinations) => {
            let mut list: Vec<&Destination> = destinations.iter().collect();
            list.sort_by_key(|to| std::cmp::Reverse((to.bytes_out.unwrap_or_default(), to.allowed)));
            let beyond = list.len().saturating_sub(DESTINATIONS) as u64;
            rows(html, list.into_iter().take(DESTINATIONS).map(destination), 15, beyond, "destinations");
        }
        None => reached(html, &story.reached, "Addresses", "addresses"),
    }
    if story.names.iter().len() > 0 {
        reached(html, &story.names, "Names that were looked up", "names");
    }
    html.push_str("</section>\n");
}

/// How many destinations the page lists.
const DESTINATIONS: usize = 200;

fn destination(to: &Destination) -> String {
    let mut said = Vec::new();
    for (count, word) in [(to.allowed, "let out"), (to.denied, "refused")] {
        if count > 0 {
            said.push(format!("{} {word}", number(count)));
        }
    }
    said.extend(to.bytes_out.map(|bytes| format!("{} out", size(bytes))));
    said.extend(to.bytes_in.map(|bytes| format!("{} in", size(bytes))));
    if to.uncounted > 0 {
        said.push(format!("{} not counted", number(to.uncounted)));
    }
    format!(
        "<div class=\"split\"><span><code>{}</code></span><span class=\"how\">{}</span></div>",
        Shown(&shorten(&describe_party(&to.party), 400)),
        said.join(" · ")
    )
}

fn reached(html: &mut String, list: &Kept<String, Reached>, title: &str, what: &str) {
    let _ = writeln!(html, "<h3>{title}</h3>");
    let row = |(name, reached): (&String, &Reached)| {
        let refused =
            if reached.denied > 0 { format!(" · {} refused", number(reached.denied)) } else { String::new() };
        format!(
            "<div class=\"split\"><span><code>{}</code></span><span class=\"how\">{} allowed{refused}</span></div>",
            Shown(name),
            number(reached.allowed)
        )
    };
    rows(html, list.iter().map(row), 12, list.more, what);
}

pub(super) fn refusals(html: &mut String, story: &Story<'_>, facts: &Facts<'_>) {
    html.push_str("<section id=\"refusals\"><h2>Refusals</h2>\n");
    if story.refusals.iter().len() == 0 {
        html.push_str("<p class=\"soft\">None.</p></section>\n");
        return;
    }
    let mut list: Vec<(&RefusalKey, &Refusal)> = story.refusals.iter().collect();
    // A call that a library merely tried tells least.
    list.sort_by_key(|((op, ..), refusal)| (*op == Op::Call, !refusal.killed, refusal.seq));
    rows(
        html,
        list.into_iter().map(|(key, refusal)| refused(key, refusal, facts)),
        15,
        story.refusals.more,
        "refusals",
    );
    html.push_str("</section>\n");
}

fn refused((op, aim, rule): &RefusalKey, refusal: &Refusal, facts: &Facts<'_>) -> String {
    let times = times(refusal.count);
    let mut row = format!(
        "<div class=\"split\"><span><b>{}</b> <code>{}</code></span><span class=\"how\">{times}</span></div>\
         <div class=\"how\">by <code>{}</code>{} · {}</div>",
        op.name(),
        Shown(aim),
        Shown(rule),
        if refusal.killed { ": it did not do what was approved, and was ended" } else { because(refusal.reason) },
        Shown(&refusal.process),
    );
    if let Some(message) = &refusal.message {
        let _ = write!(row, "<div>{}</div>", Shown(message));
    }
    let _ = match &refusal.fix {
        Some(fix) => write!(row, "<div class=\"how\">would allow it: <code>{}</code></div>", Shown(fix)),
        None => write!(
            row,
            "<div class=\"how\">what would allow it: <code>agentbox why --event {}:{}</code></div>",
            Shown(&quoted(facts.run)),
            refusal.seq
        ),
    };
    row
}

fn times(count: u64) -> String {
    if count == 1 { "once".into() } else { format!("{} times", number(count)) }
}

fn because(reason: Option<Reason>) -> &'static str {
    match reason {
        None => "",
        Some(Reason::Granted) => "",
        Some(Reason::DenyRule) => ": a rule denies it",
        Some(Reason::AskRule) => ": a person would have to say",
        Some(Reason::Protected) => ": it is on the protected list",
        Some(Reason::AboveProtected) => ": it lies above a protected name",
        Some(Reason::NotGranted) => ": nothing grants it",
        Some(Reason::NoNetwork) => ": there is no network",
        Some(Reason::KernelFile) => ": it is the kernel's own file",
        Some(Reason::Unjudged) => ": it could not be judged",
        Some(Reason::Tier) => ": it weighs more than passes without a person",
        Some(Reason::Answered) => ": a person was asked about the like before",
    }
}

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
    let _ = write!(text, " <span class=\"how\">[{pid}] {} acts", number(process.decisions));
    if process.denied > 0 {
        let _ = write!(text, ", {} refused", number(process.denied));
    }
    text + "</span>"
}
