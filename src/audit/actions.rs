//! Records of actions: how one begins, what is said of it, and what it came to.
//!
//! What was counted and what was claimed stand side by side and are never mixed: a claim is a process's own word.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::record::{Destination, Link, VERSION, put};
use super::text;
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
pub struct Claimed {
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
struct BeganLine<'a> {
    v: u32,
    seq: u64,
    prev: &'a str,
    kind: &'static str,
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
struct ClaimLine<'a> {
    v: u32,
    seq: u64,
    prev: &'a str,
    kind: &'static str,
    time: String,
    run: &'a str,
    action: ActionId,
    process: &'a Subject,
    claim: &'a Claim,
}

#[derive(Serialize)]
struct EndedLine<'a> {
    v: u32,
    seq: u64,
    prev: &'a str,
    kind: &'static str,
    time: String,
    run: &'a str,
    #[serde(flatten)]
    sum: &'a ActionSum,
}

pub(super) fn put_began(buffer: &mut Vec<u8>, link: Link<'_>, began: &Began) -> serde_json::Result<()> {
    let Began { time, action, attribution, process, parent, command, claim } = began;
    put(
        buffer,
        &BeganLine {
            v: VERSION,
            seq: link.seq,
            prev: link.prev,
            kind: "action",
            time: text::rfc3339(*time),
            run: link.run.as_str(),
            action: *action,
            attribution: *attribution,
            process,
            parent: *parent,
            command,
            claim: claim.as_ref(),
        },
    )
}

pub(super) fn put_claimed(buffer: &mut Vec<u8>, link: Link<'_>, claimed: &Claimed) -> serde_json::Result<()> {
    let Claimed { time, action, process, claim } = claimed;
    put(
        buffer,
        &ClaimLine {
            v: VERSION,
            seq: link.seq,
            prev: link.prev,
            kind: "claim",
            time: text::rfc3339(*time),
            run: link.run.as_str(),
            action: *action,
            process,
            claim,
        },
    )
}

pub(super) fn put_ended(
    buffer: &mut Vec<u8>,
    link: Link<'_>,
    time: SystemTime,
    sum: &ActionSum,
) -> serde_json::Result<()> {
    let (time, run) = (text::rfc3339(time), link.run.as_str());
    put(buffer, &EndedLine { v: VERSION, seq: link.seq, prev: link.prev, kind: "action_end", time, run, sum })
}
