//! A look at the rules taken together: grants that a rule takes back in the same breath, and denials that leave the command
//! nowhere to start.
//!
//! A rule that takes back what an earlier file grants is what files are for, and no fault. Nothing in here looks at the
//! file system.

use std::collections::HashMap;
use std::path::Path;

use super::load::{Layer, LoadError};
use super::network::NetworkRule;
use super::rules::Probe;
use super::{ExecRules, FileRules, Guard, GuardKind, Network, ProgramRule, Programs, Root};
use crate::event::RuleId;

/// Refuses what cannot have been meant; what probably was not is returned as lines for the person.
pub(super) fn review(
    files: &FileRules,
    network: &Network,
    exec: &ExecRules,
    workdir: &Path,
    layers: &[Layer],
) -> Result<Vec<String>, LoadError> {
    let origins = Origins { layers };
    let mut notes = Vec::new();
    for (roots, of) in [(&files.read, GuardKind::DenyRead), (&files.write, GuardKind::DenyWrite)] {
        for root in roots {
            notes.extend(taken_back(files, root, of, &origins)?);
        }
    }
    notes.extend(workdir_denied(files, workdir, &origins)?);
    notes.extend(network.allow.iter().filter_map(|rule| closed_again(network, rule, &origins)));
    notes.extend(never_used(&exec.allow, &[(&exec.deny, "denied"), (&exec.ask, "asked about")], &origins));
    notes.extend(never_used(&exec.ask, &[(&exec.deny, "denied")], &origins));
    Ok(notes)
}

/// Where rules come from.
struct Origins<'a> {
    layers: &'a [Layer],
}

impl Origins<'_> {
    /// The place of a rule in the order of files; flags come last. What is built in has none.
    fn order(&self, rule: &RuleId) -> Option<usize> {
        if rule.0.starts_with("command line ") {
            return Some(self.layers.len());
        }
        self.layers.iter().position(|layer| key(layer, rule).is_some())
    }

    /// The rule with file, line and column.
    fn place(&self, rule: &RuleId) -> String {
        let found = self.layers.iter().find_map(|layer| {
            let key = key(layer, rule)?;
            let mark = entry(layer, key)?;
            Some(format!("{}:{}:{}: {key}", layer.name, mark.line, mark.column))
        });
        found.unwrap_or_else(|| rule.to_string())
    }
}

/// The rule's key path, if it stands in this file.
fn key<'a>(layer: &Layer, rule: &'a RuleId) -> Option<&'a str> {
    rule.0.strip_prefix(&*layer.name)?.strip_prefix(' ')
}

/// Where an entry of a list stands.
fn entry(layer: &Layer, key: &str) -> Option<super::file::Mark> {
    let (list, index) = key.strip_suffix(']')?.split_once('[')?;
    let file = &layer.file;
    let entries = match list {
        "filesystem.read" => &file.read,
        "filesystem.write" => &file.write,
        "filesystem.private" => &file.private,
        "filesystem.deny" => &file.deny,
        "filesystem.deny_read" => &file.deny_read,
        "filesystem.deny_write" => &file.deny_write,
        "exec.allow" => &file.exec_allow,
        "exec.ask" => &file.exec_ask,
        "exec.deny" => &file.exec_deny,
        "network.allow" => file.network.allow.as_ref()?,
        "network.deny" => &file.network.deny,
        _ => return None,
    };
    entries.get(index.parse::<usize>().ok()?).map(|entry| entry.mark)
}

/// Looks for a denial, of everything or of what is granted, that covers all of a grant: an error if both were said at
/// once, a note if the grant came later.
fn taken_back(files: &FileRules, root: &Root, of: GuardKind, origins: &Origins) -> Result<Option<String>, LoadError> {
    let covers = |guard: &Guard| guard.kind == GuardKind::Deny || guard.kind == of;
    let Some(guard) = files.guards.first(&Probe::new(&root.path), covers) else { return Ok(None) };
    let (Some(granted), Some(denied)) = (origins.order(&root.rule), origins.order(&guard.rule)) else {
        return Ok(None);
    };
    let (grant, denial) = (origins.place(&root.rule), origins.place(&guard.rule));
    let path = root.path.display().to_string();
    match granted.cmp(&denied) {
        std::cmp::Ordering::Less => Ok(None),
        std::cmp::Ordering::Equal => Err(LoadError::Contradiction { grant, path, denial }),
        std::cmp::Ordering::Greater => Ok(Some(format!("{grant}: {path} is denied all the same, by {denial}"))),
    }
}

/// Looks for a deny rule, said at once or before, that leaves nothing of an allow rule.
fn closed_again(network: &Network, allow: &NetworkRule, origins: &Origins) -> Option<String> {
    let deny = network.deny.covering(&allow.to)?;
    let (allowed, denied) = (origins.order(&allow.rule)?, origins.order(&deny.rule)?);
    let (grant, denial) = (origins.place(&allow.rule), origins.place(&deny.rule));
    (allowed >= denied).then(|| format!("{grant}: {} is denied all the same, by {denial}", allow.to))
}

/// Looks for rules for programs that leave nothing of another, said at once or before: the same program, with the same
/// arguments or any.
fn never_used(rules: &Programs, over: &[(&Programs, &str)], origins: &Origins) -> Vec<String> {
    let text = |rule: &ProgramRule| rule.to_string();
    let mut before: HashMap<String, (&ProgramRule, &str)> = HashMap::new();
    for (stronger, what) in over {
        for rule in stronger.iter() {
            before.entry(text(rule)).or_insert((rule, what));
        }
    }
    let note = |rule: &ProgramRule| {
        let (other, what) = before.get(&text(rule)).or_else(|| before.get(&rule.program.to_string()))?;
        let said = origins.order(&rule.rule)? >= origins.order(&other.rule)?;
        let (place, by) = (origins.place(&rule.rule), origins.place(&other.rule));
        said.then(|| format!("{place}: {rule} is {what} all the same, by {by}"))
    };
    rules.iter().filter_map(note).collect()
}

/// The command starts in the working directory.
fn workdir_denied(files: &FileRules, workdir: &Path, origins: &Origins) -> Result<Option<String>, LoadError> {
    let reading = |guard: &Guard| matches!(guard.kind, GuardKind::Deny | GuardKind::DenyRead);
    let Some(guard) = files.guards.first(&Probe::new(workdir), reading) else { return Ok(None) };
    let (rule, text, workdir) = (origins.place(&guard.rule), guard.pattern.text(), workdir.display().to_string());
    if guard.kind == GuardKind::Deny {
        return Err(LoadError::WorkdirDenied { rule, text: text.into(), workdir });
    }
    Ok(Some(format!("{rule}: `{text}` covers the working directory {workdir}: nothing in it can be read")))
}
