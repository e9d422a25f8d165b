//! The actions of a run, the weightiest first: what each was claimed to be, what it did, and what it was refused.

use std::cmp::Reverse;
use std::fmt::Write as _;

use super::super::actions::{SESSION, tool_words};
use super::super::report::{describe_effects, describe_party, describe_traffic};
use super::super::story::{Action, Story};
use super::super::text::shorten;
use super::parts::{rows, times};
use super::{Facts, Shown, claim_words, command, number, rated, since_start, tier_class};

/// How many actions are shown before the rest is folded away.
const OPEN: usize = 10;
/// How many destinations of an action are shown.
const DESTINATIONS: usize = 5;

pub(super) fn actions(html: &mut String, story: &Story<'_>, facts: &Facts<'_>) {
    html.push_str("<section id=\"actions\"><h2>Actions</h2>\n");
    html.push_str(
        "<p class=\"soft\">What the command itself did, and each command or tool call that it started, with all that \
         came of it; the weightiest first. A tier tells how far something reached and whether it can be undone, from 1 \
         (nothing changed) to 10.</p>\n",
    );
    let mut listed: Vec<(&String, &Action)> = story.actions.iter().chain(story.grave.iter()).collect();
    listed.sort_by_key(|(_, action)| (Reverse((action.gravest(), action.tier, action.denied > 0)), action.seq));
    rows(html, listed.into_iter().map(|(id, action)| row(id, action, story, facts)), OPEN, 0, "actions");
    if story.actions.more > 0 {
        let _ = writeln!(
            html,
            "<p class=\"soft\">and more: {} records belong to actions that are not listed here</p>",
            number(story.actions.more)
        );
    }
    html.push_str("</section>\n");
}

/// What a person calls an action: its command, else what it is claimed to be.
pub(super) fn title(id: &str, action: &Action, story: &Story<'_>, facts: &Facts<'_>) -> String {
    let said = action.claim.as_ref().map(tool_words).unwrap_or_default();
    let name = match () {
        () if id == SESSION => command(story, facts),
        () if !action.command.is_empty() => action.command.clone(),
        () if !said.is_empty() => format!("claimed: {said}"),
        () if !action.first.is_empty() => action.first.clone(),
        () => return "an action with no program on record".into(),
    };
    shorten(&name, 300)
}

fn row(id: &str, action: &Action, story: &Story<'_>, facts: &Facts<'_>) -> String {
    let mut row = String::from("<div class=\"act\">");
    let _ = write!(
        row,
        "<div class=\"split\"><h3><code>{}</code></h3><span class=\"badges\">{}</span></div>",
        Shown(&title(id, action, story, facts)),
        badges(action)
    );
    claimed(&mut row, action);
    if action.tier.is_some_and(|tier| tier > 0) {
        let words = rated(action.reach.as_deref(), action.reversibility.as_deref());
        let _ = write!(row, "<p class=\"weight\">{}</p>", Shown(&words));
    }
    let did = did(action);
    if !did.is_empty() {
        let _ = write!(row, "<p class=\"did\">{}</p>", Shown(&did.join(" · ")));
    }
    for to in action.destinations.iter().take(DESTINATIONS) {
        let party = shorten(&describe_party(&to.party), 200);
        let _ = write!(
            row,
            "<p class=\"did\"><code>{}</code> {}</p>",
            Shown(&party),
            Shown(&describe_traffic(to).join(" · "))
        );
    }
    if action.destinations.len() > DESTINATIONS {
        let _ = write!(row, "<p class=\"did\">and {} more destinations</p>", action.destinations.len() - DESTINATIONS);
    }
    let _ = write!(row, "<p class=\"how\">{}</p></div>", Shown(&known(id, action, story).join(" · ")));
    row
}

/// What it weighed, and apart from that what it was kept from.
fn badges(action: &Action) -> String {
    let mut badges = match action.tier {
        Some(0) => "<span class=\"badge plain\">nothing was done</span>".into(),
        Some(tier) => format!("<span class=\"badge {}\">tier {tier} of 10</span>", tier_class(tier)),
        None => String::new(),
    };
    if action.denied > 0 {
        let tier = action.refused_tier.filter(|tier| *tier > 0);
        let tier = tier.map(|tier| format!(", up to tier {tier}")).unwrap_or_default();
        let _ = write!(badges, "<span class=\"badge warn\">{} refused{tier}</span>", number(action.denied));
    }
    badges
}

/// What it is claimed to be, and where its title is that claim, the first program that it started.
fn claimed(row: &mut String, action: &Action) {
    let Some(claim) = &action.claim else { return };
    let said = claim_words(claim);
    let _ = write!(
        row,
        "<p class=\"claim\"><span class=\"badge warn\">claimed, unverified</span> {}</p>",
        Shown(&shorten(&said, 300))
    );
    if action.command.is_empty() && !action.first.is_empty() {
        let _ = write!(row, "<p class=\"did\">first ran <code>{}</code></p>", Shown(&shorten(&action.first, 300)));
    }
}

/// What it came to, in a few words each.
fn did(action: &Action) -> Vec<String> {
    let effects = action.effects();
    let mut said = describe_effects(effects);
    let secret = |(label, count)| format!("read secrets: {} {}", shorten(label, 60), times(count));
    said.extend(effects.secrets.iter().take(8).map(|(label, count)| secret((&**label, *count))));
    // What it was handed by others: by the process that started it, or in a file that one wrote.
    let more: Vec<&str> =
        action.taint.iter().map(String::as_str).filter(|l| !effects.secrets.contains_key(*l)).collect();
    if !more.is_empty() {
        said.push(format!("may know secrets: {}", shorten(&more.join(", "), 200)));
    }
    said
}

/// Its name in the log, when it began, and how it is known what belongs to it.
fn known(id: &str, action: &Action, story: &Story<'_>) -> Vec<String> {
    let mut said = vec![if id == SESSION { "the command itself".to_string() } else { shorten(id, 40) }];
    said.extend(since_start(story, action.time));
    said.extend((action.attribution.as_deref() == Some("bracket")).then(|| "begun by its own word".to_string()));
    said
}
