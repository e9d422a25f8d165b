//! Records of actions: how one begins, what is said of it, and what it came to.
//!
//! What was counted and what was claimed stand side by side and are never mixed: a claim is a process's own word.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::line::{Line, Link, put};
use super::record::Destination;
use super::report::{describe_effects, describe_weight};
use super::text::{self, shorten};
use crate::event::{ActionId, Attribution, Claim, Effects, Labels, Reach, Reversibility, Subject};

/// An action begins.
#[derive(Debug)]
pub struct Began {
    /// When.
    pub time: SystemTime,
    /// Which.
    pub action: ActionId,
    /// How its deeds will be known.
    pub attribution: Attribution,
    /// The process that begins it.
    pub process: Subject,
    /// The action that this one belongs to.
    pub parent: ActionId,
    /// The command line, escaped, if it begins with a command.
    pub command: Vec<String>,
    /// What that process says of it.
    pub claim: Option<Claim>,
}

/// A process says something of an action.
#[derive(Debug)]
pub struct Claiming {
    /// When.
    pub time: SystemTime,
    /// Of which.
    pub action: ActionId,
    /// Who says it.
    pub process: Subject,
    /// What.
    pub claim: Claim,
}

/// What an action came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ActionSum {
    /// Which.
    #[serde(default)]
    pub action: ActionId,
    /// How its deeds are known.
    #[serde(default)]
    pub attribution: Attribution,
    /// The action that it belongs to.
    #[serde(default)]
    pub parent: ActionId,
    /// The command line, escaped, if it began with a command.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// What was said of it. Not verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<Claim>,
    /// What it did.
    #[serde(default)]
    pub effects: Effects,
    /// What it had to do with each party outside.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub destinations: Vec<Destination>,
    /// How much was refused.
    #[serde(default)]
    pub denied: u64,
    /// How far the heaviest of its deeds reached.
    #[serde(default)]
    pub reach: Reach,
    /// Whether all can be undone.
    #[serde(default)]
    pub reversibility: Reversibility,
    /// The highest tier of what was let through.
    #[serde(default)]
    pub tier: u8,
    /// The highest tier of what was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused_tier: Option<u8>,
    /// Labels of the secrets that it may have read.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub taint: Labels,
}

impl ActionSum {
    /// An action that has done nothing yet.
    pub fn new(action: ActionId, attribution: Attribution) -> Self {
        Self {
            action,
            attribution,
            parent: ActionId::SESSION,
            command: Vec::new(),
            claim: None,
            effects: Effects::default(),
            destinations: Vec::new(),
            denied: 0,
            reach: Reach::default(),
            reversibility: Reversibility::default(),
            tier: 0,
            refused_tier: None,
            taint: Labels::default(),
        }
    }
}

#[derive(Serialize)]
struct BeganBody<'a> {
    time: String,
    run: &'a str,
    action: ActionId,
    attribution: Attribution,
    process: &'a Subject,
    parent: ActionId,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    command: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    claim: Option<&'a Claim>,
}

#[derive(Serialize)]
struct ClaimBody<'a> {
    time: String,
    run: &'a str,
    action: ActionId,
    process: &'a Subject,
    claim: &'a Claim,
}

#[derive(Serialize)]
struct EndedBody<'a> {
    time: String,
    run: &'a str,
    #[serde(flatten)]
    sum: &'a ActionSum,
}

pub(super) fn put_began(buffer: &mut Vec<u8>, link: Link<'_>, began: &Began) -> serde_json::Result<()> {
    let Began { time, action, attribution, process, parent, command, claim } = began;
    let (time, run, claim) = (text::rfc3339(*time), link.run.as_str(), claim.as_ref());
    let (action, attribution, parent) = (*action, *attribution, *parent);
    let body = BeganBody { time, run, action, attribution, process, parent, command, claim };
    put(buffer, &Line::new(link, "action", body))
}

pub(super) fn put_claimed(buffer: &mut Vec<u8>, link: Link<'_>, claimed: &Claiming) -> serde_json::Result<()> {
    let Claiming { time, action, process, claim } = claimed;
    let (time, run) = (text::rfc3339(*time), link.run.as_str());
    put(buffer, &Line::new(link, "claim", ClaimBody { time, run, action: *action, process, claim }))
}

pub(super) fn put_ended(
    buffer: &mut Vec<u8>,
    link: Link<'_>,
    time: SystemTime,
    sum: &ActionSum,
) -> serde_json::Result<()> {
    let (time, run) = (text::rfc3339(time), link.run.as_str());
    put(buffer, &Line::new(link, "action_end", EndedBody { time, run, sum }))
}

/// The action of the agent's own process, which nothing opens.
pub const SESSION: &str = "session";

/// The beginning of an action, as a reader finds it. Everything is optional: a log may be older than a field.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Opened {
    /// When, RFC 3339.
    pub time: String,
    /// Its id, such as `a7`.
    pub action: String,
    /// How what happens is known to belong to it: `subtree`, `bracket` or `session`.
    pub attribution: Option<String>,
    /// The process that it began with.
    pub process: Option<Subject>,
    /// The action that it was started in.
    pub parent: Option<String>,
    /// The command and its arguments, escaped.
    pub command: Vec<String>,
    /// What the agent said it would be.
    pub claim: Option<Claim>,
}

/// Something that a process said, as a reader finds it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Claimed {
    /// When, RFC 3339.
    pub time: String,
    /// The action it was said of.
    pub action: String,
    /// Who said it.
    pub process: Option<Subject>,
    /// What.
    pub claim: Claim,
}

/// The end of an action, as a reader finds it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Closed {
    /// When, RFC 3339.
    #[serde(default)]
    pub time: String,
    /// Its id, whatever it is.
    #[serde(default)]
    pub action: String,
    /// What it came to.
    #[serde(flatten)]
    pub sum: ActionSum,
}

impl ActionSum {
    /// Says each effect that there was, and what it weighed.
    pub fn words(&self) -> Vec<String> {
        describe_effects(&self.effects).into_iter().chain([describe_weight(self)]).collect()
    }
}

/// Adds what is claimed later of the same action: it may be a note alone.
pub fn add_claim(claim: &mut Claim, later: &Claim) {
    fn take<T: Clone>(mine: &mut Option<T>, theirs: &Option<T>) {
        if theirs.is_some() {
            mine.clone_from(theirs);
        }
    }
    let Claim { tool, params, reason, plan, note, parent, outcome } = later;
    take(&mut claim.params, params);
    for (mine, theirs) in [
        (&mut claim.tool, tool),
        (&mut claim.reason, reason),
        (&mut claim.plan, plan),
        (&mut claim.note, note),
        (&mut claim.parent, parent),
        (&mut claim.outcome, outcome),
    ] {
        take(mine, theirs);
    }
}

/// The longest parameters that a line has room for beside the rest, in characters.
const PARAMS: usize = 80;

/// Says which tool is claimed to be used with what: `edit {"file":"src/main.rs"}`; empty where neither is said.
pub fn tool_words(claim: &Claim) -> String {
    let params = claim.params.as_ref().filter(|params| !is_nothing(params));
    let params = params.map(|params| shorten(&params.to_string(), PARAMS));
    claim.tool.iter().cloned().chain(params).collect::<Vec<_>>().join(" ")
}

fn is_nothing(params: &Value) -> bool {
    params.is_null() || params.as_object().is_some_and(serde_json::Map::is_empty)
}

/// Says why: the words of a claim that tell most, if there are any.
pub fn reason_words(claim: &Claim) -> Option<&str> {
    let Claim { reason, note, outcome, plan, .. } = claim;
    [reason, note, outcome, plan].into_iter().flatten().next().map(String::as_str)
}

/// Says a claim in one line: the tool, its parameters, and the words that tell most.
pub fn words(claim: &Claim) -> String {
    match (tool_words(claim), reason_words(claim)) {
        (tool, None) if tool.is_empty() => "nothing".into(),
        (tool, None) => tool,
        (tool, Some(told)) if tool.is_empty() => told.into(),
        (tool, Some(told)) => format!("{tool}: {told}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn an_action_is_read_whatever_it_leaves_out() {
        let opened: Opened = serde_json::from_value(json!({"action": "a7"})).unwrap();
        assert_eq!((opened.action.as_str(), opened.claim, opened.process), ("a7", None, None));
        let closed: Closed = serde_json::from_value(json!({
            "action": "a7",
            "effects": {"files": {"created": 2, "new": 1}, "programs": 3},
            "reach": "B1", "tier": 2, "later": true,
        }))
        .unwrap();
        assert_eq!(closed.sum.words(), ["files: 2 created", "3 programs", "tier 2 (B1 R0)"]);
    }

    #[test]
    fn a_claim_is_said_by_what_tells_most() {
        let words = |claim: Value| words(&serde_json::from_value::<Claim>(claim).unwrap());
        assert_eq!(words(json!({"tool": "Bash", "params": {"command": "ls"}})), r#"Bash {"command":"ls"}"#);
        assert_eq!(words(json!({"tool": "Bash", "params": {"a": 1}, "reason": "b"})), r#"Bash {"a":1}: b"#);
        assert_eq!(words(json!({"tool": "Bash", "params": {}, "reason": "run the tests"})), "Bash: run the tests");
        assert_eq!(words(json!({"note": "a", "later": 1})), "a");
        assert_eq!(words(json!({})), "nothing");
    }
}
