//! The long sections of the page: each a list that shows its beginning and folds the rest away.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::super::actions::SESSION;
use super::super::record::{Destination, Op};
use super::super::report::{describe_party, describe_traffic};
use super::super::story::{Group, Kept, Reached, Refusal, RefusalKey, Story};
use super::super::text::{quoted, shorten};
use super::{Facts, Shown, number, seconds, since_start, sum};
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
    let long = seconds(line.length().as_secs_f64());
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
        "<details><summary>By operation</summary>\n<table><caption>What was asked of agentbox, and how often</caption>\
         <thead><tr><th scope=\"col\">operation</th><th scope=\"col\">asked</th><th scope=\"col\">refused</th>\
         <th scope=\"col\" class=\"wide\">on record</th></tr></thead><tbody>\n",
    );
    for (op, (asked, refused)) in &counts {
        let recorded = story.counts.get(op).map_or(0, |(all, _)| *all);
        let _ = writeln!(
            html,
            "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td class=\"wide\">{}</td></tr>",
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

pub(super) fn network(html: &mut String, story: &Story<'_>) {
    html.push_str("<section id=\"network\"><h2>Network</h2>\n");
    let summed = story.end.as_ref().map(|end| end.destinations.as_slice());
    match summed {
        Some([]) => html.push_str("<p class=\"soft\">Nothing outside was reached, or asked for.</p>\n"),
        Some(destinations) => {
            let mut list: Vec<&Destination> = destinations.iter().collect();
            list.sort_by_key(|to| Reverse((to.bytes_out.unwrap_or_default(), to.allowed)));
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

/// A party outside, and what there was to do with it.
pub(super) fn destination(to: &Destination) -> String {
    split(&shorten(&describe_party(&to.party), 400), &describe_traffic(to).join(" · "))
}

/// A name, and in few words what there is to say of it; both may come from anywhere.
fn split(name: &str, said: &str) -> String {
    let (name, said) = (Shown(name), Shown(said));
    format!("<div class=\"split\"><span><code>{name}</code></span><span class=\"how\">{said}</span></div>")
}

fn reached(html: &mut String, list: &Kept<String, Reached>, title: &str, what: &str) {
    let _ = writeln!(html, "<h3>{title}</h3>");
    let row = |(name, reached): (&String, &Reached)| {
        let refused =
            if reached.denied > 0 { format!(" · {} refused", number(reached.denied)) } else { String::new() };
        split(name, &format!("{} allowed{refused}", number(reached.allowed)))
    };
    rows(html, list.iter().map(row), 12, list.more, what);
}

pub(super) fn refusals(html: &mut String, story: &Story<'_>, facts: &Facts<'_>) {
    html.push_str("<section id=\"refusals\"><h2>What was refused</h2>\n");
    if story.refusals.iter().len() == 0 {
        html.push_str("<p class=\"soft\">None.</p></section>\n");
        return;
    }
    let mut list: Vec<(&RefusalKey, &Refusal)> = story.refusals.iter().collect();
    // A call that a library merely tried tells least.
    list.sort_by_key(|((op, ..), refusal)| (*op == Op::Call, !refusal.killed, refusal.seq));
    rows(
        html,
        list.into_iter().map(|(key, refusal)| refused(key, refusal, story, facts)),
        15,
        story.refusals.more,
        "refusals",
    );
    html.push_str("</section>\n");
}

fn refused((op, aim, rule): &RefusalKey, refusal: &Refusal, story: &Story<'_>, facts: &Facts<'_>) -> String {
    let times = times(refusal.count);
    let mut row = format!(
        "<div class=\"split\"><span><b>{}</b> <code>{}</code></span><span class=\"how\">{times}</span></div>\
         <div class=\"how\">by <code>{}</code>{} · {}</div>",
        op.name(),
        Shown(aim),
        Shown(rule),
        if refusal.killed { ": it did not do what was approved, and was ended" } else { because(refusal.reason) },
        Shown(&whose(refusal, story).join(" · ")),
    );
    if refusal.let_through {
        row.push_str("<div><span class=\"badge warn\">mode audit: let through all the same</span></div>");
    }
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

/// Who was refused, in which action, when, and how grave it would have been.
fn whose(refusal: &Refusal, story: &Story<'_>) -> Vec<String> {
    let mut said = vec![refusal.process.clone()];
    said.extend((refusal.action != SESSION).then(|| format!("in {}", refusal.action)));
    said.extend(since_start(story, refusal.time));
    said.extend(refusal.tier.filter(|tier| *tier > 0).map(|tier| format!("tier {tier}")));
    said
}

/// `once`, `3 times`.
pub(super) fn times(count: u64) -> String {
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
