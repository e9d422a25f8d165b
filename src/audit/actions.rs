//! Actions as a reader finds them: how one opened, what the agent said of it, what it came to.
//!
//! Everything is optional: a log may be older than a field, or written by an agentbox that has more to say. What an
//! agent claims is never more than that, and whoever shows it says so.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::record::Destination;
use crate::event::Subject;

/// The action of the agent's own process, which nothing opens.
pub const SESSION: &str = "session";

/// An action opened.
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

/// The agent said something.
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

/// What an agent says of an action; nothing of it is verified.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Claim {
    /// The tool it uses.
    pub tool: Option<Value>,
    /// What it gives the tool.
    pub params: Option<Value>,
    /// Why.
    pub reason: Option<Value>,
    /// What for.
    pub plan: Option<Value>,
    /// Anything else.
    pub note: Option<Value>,
}

impl Claim {
    /// Says the claim in one line: the tool, and the words that tell most.
    pub fn words(&self) -> String {
        let told = [&self.reason, &self.note, &self.plan, &self.params].into_iter().flatten().next().map(plainly);
        match (self.tool.as_ref().map(plainly), told) {
            (Some(tool), Some(told)) => format!("{tool}: {told}"),
            (Some(only), None) | (None, Some(only)) => only,
            (None, None) => "nothing".into(),
        }
    }
}

/// A text as it is, anything else as JSON.
fn plainly(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_string)
}

/// An action ended.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Closed {
    /// When, RFC 3339.
    pub time: String,
    /// Its id.
    pub action: String,
    /// What it did.
    pub effects: Effects,
    /// How much of it was refused.
    pub denied: u64,
    /// How far it reached: `B0` to `B3`.
    pub reach: Option<String>,
    /// Whether it can be undone: `R0` to `R3`.
    pub reversibility: Option<String>,
    /// Both in one number, 1 to 10.
    pub tier: Option<u64>,
    /// The labels of secrets that it has seen.
    pub taint: Vec<String>,
}

/// What an action did.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Effects {
    /// To files.
    pub files: FileEffects,
    /// How often it opened what each label names.
    pub secrets: BTreeMap<String, u64>,
    /// Changes to what outlives the run.
    pub persistence: u64,
    /// Programs started.
    pub programs: u64,
    /// Signals sent outside of it.
    pub signals: u64,
    /// Parties outside that it had to do with, each as in the end record.
    pub destinations: Vec<Value>,
}

/// What an action did to files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct FileEffects {
    /// Files that were not there before.
    pub created: u64,
    /// Files with other content than before.
    pub changed: u64,
    /// Files that are gone.
    pub deleted: u64,
    /// Files that another took the place of.
    pub replaced: u64,
    /// Files with another name than before.
    pub moved: u64,
    /// Bytes of what was deleted or replaced.
    pub bytes_lost: u64,
}

impl Effects {
    /// The parties outside, as far as they read as an end record's do.
    pub fn destinations(&self) -> impl Iterator<Item = Destination> + '_ {
        self.destinations.iter().filter_map(|party| serde_json::from_value(party.clone()).ok())
    }

    /// Says each effect that there was: `3 created`, `1 deleted`.
    pub fn words(&self) -> Vec<String> {
        let files = &self.files;
        let counted = [
            (files.created, "created", "created"),
            (files.changed, "changed", "changed"),
            (files.deleted, "deleted", "deleted"),
            (files.replaced, "replaced", "replaced"),
            (files.moved, "moved", "moved"),
            (self.programs, "program", "programs"),
            (self.secrets.values().sum(), "open of a secret", "opens of secrets"),
            (self.persistence, "change to what outlives the run", "changes to what outlives the run"),
            (self.signals, "signal to others", "signals to others"),
            (self.destinations.len() as u64, "destination", "destinations"),
        ];
        let said = counted.into_iter().filter(|(count, ..)| *count > 0);
        said.map(|(count, one, more)| format!("{count} {}", if count == 1 { one } else { more })).collect()
    }
}

impl Closed {
    /// Says how far it reached and whether it can be undone: `B1 R1 tier 2`.
    pub fn weight(&self) -> String {
        let tier = self.tier.map(|tier| format!("tier {tier}"));
        let parts = [self.reach.clone(), self.reversibility.clone(), tier];
        parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_action_is_read_whatever_it_leaves_out() {
        let opened: Opened = serde_json::from_value(json!({"action": "a7"})).unwrap();
        assert_eq!((opened.action.as_str(), opened.claim, opened.process), ("a7", None, None));
        let closed: Closed = serde_json::from_value(json!({
            "action": "a7",
            "effects": {"files": {"created": 2, "new": 1}, "programs": 3, "destinations": [{"kind": "later"}]},
            "reach": "B1", "tier": 2, "later": true,
        }))
        .unwrap();
        assert_eq!(closed.effects.words(), ["2 created", "3 programs", "1 destination"]);
        assert_eq!((closed.weight().as_str(), closed.effects.destinations().count()), ("B1 tier 2", 0));
    }

    #[test]
    fn a_claim_is_said_by_what_tells_most() {
        let words = |claim: Value| serde_json::from_value::<Claim>(claim).unwrap().words();
        assert_eq!(words(json!({"tool": "Bash", "params": {"command": "ls"}})), r#"Bash: {"command":"ls"}"#);
        assert_eq!(words(json!({"tool": "Bash", "params": {}, "reason": "run the tests"})), "Bash: run the tests");
        assert_eq!(words(json!({"note": ["a"]})), r#"["a"]"#);
        assert_eq!(words(json!({})), "nothing");
    }
}
