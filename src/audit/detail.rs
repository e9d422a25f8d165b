//! What a record says beyond what every version of the schema knows: its action, the effects, the claims.
//!
//! For those who show or pass on a log, not for those who decide by it. A log may be older or newer than this program,
//! and its lines may come from anywhere: a field that is missing, or is not what it should be, is as if it were not
//! there.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::record::{Destination, Op};
use crate::event::Subject;

/// The fields that not every record has.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Detail {
    /// When, RFC 3339.
    #[serde(deserialize_with = "loose")]
    pub time: Option<String>,
    /// The action that the record belongs to.
    #[serde(deserialize_with = "loose")]
    pub action: Option<String>,
    /// How it is known to: `subtree`, `bracket` or `session`.
    #[serde(deserialize_with = "loose")]
    pub attribution: Option<String>,
    /// The action that this one was started by.
    #[serde(deserialize_with = "loose")]
    pub parent: Option<String>,
    /// Who acts.
    #[serde(deserialize_with = "loose")]
    pub process: Option<Subject>,
    /// What the action runs, escaped as paths are.
    #[serde(deserialize_with = "loose")]
    pub command: Vec<String>,
    /// What the agent says of it.
    #[serde(deserialize_with = "loose")]
    pub claim: Option<Claim>,
    /// Where a change took place: `workspace`, `home`, `elsewhere`, `system` or `private`.
    #[serde(deserialize_with = "loose")]
    pub place: Option<String>,
    /// What the action came to.
    #[serde(deserialize_with = "loose")]
    pub effects: Option<Effects>,
    /// What it had to do with each party outside.
    #[serde(deserialize_with = "loose")]
    pub destinations: Vec<Destination>,
    /// At the end of a log, what all actions came to.
    #[serde(deserialize_with = "loose")]
    pub total: Option<Box<Detail>>,
    /// How many of its acts were refused.
    #[serde(deserialize_with = "loose")]
    pub denied: Option<u64>,
    /// How far it reaches: `B0` to `B3`.
    #[serde(deserialize_with = "loose")]
    pub reach: Option<String>,
    /// Whether it can be undone: `R0` to `R3`.
    #[serde(deserialize_with = "loose")]
    pub reversibility: Option<String>,
    /// Both in one number, 1 to 10.
    #[serde(deserialize_with = "loose")]
    pub tier: Option<u8>,
    /// What secrets the acting process has seen.
    #[serde(deserialize_with = "loose")]
    pub taint: Vec<String>,
    /// The worst that the act could come to.
    #[serde(deserialize_with = "loose")]
    pub bound: Option<Value>,
}

/// What the agent says of an action. Nobody has verified it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Claim {
    /// The tool that it calls.
    #[serde(deserialize_with = "loose")]
    pub tool: Option<String>,
    /// With what.
    pub params: Value,
    /// Why.
    #[serde(deserialize_with = "loose")]
    pub reason: Option<String>,
    /// As part of what.
    #[serde(deserialize_with = "loose")]
    pub plan: Option<String>,
    /// Anything else.
    #[serde(deserialize_with = "loose")]
    pub note: Option<String>,
}

/// What an action came to, counted from what its processes did.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Effects {
    /// Files and directories.
    #[serde(deserialize_with = "loose")]
    pub files: FileEffects,
    /// Reads of secrets, by label.
    #[serde(deserialize_with = "loose")]
    pub secrets: BTreeMap<String, u64>,
    /// Changes to what is run again later: shell start files, hooks, timers.
    #[serde(deserialize_with = "loose")]
    pub persistence: u64,
    /// Programs that were started.
    #[serde(deserialize_with = "loose")]
    pub programs: u64,
    /// Signals to processes of other actions.
    #[serde(deserialize_with = "loose")]
    pub signals: u64,
    /// Parties outside.
    #[serde(skip)]
    pub destinations: Vec<Destination>,
}

/// What became of files.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct FileEffects {
    /// Made.
    #[serde(deserialize_with = "loose")]
    pub created: u64,
    /// Opened for writing, or cut.
    #[serde(deserialize_with = "loose")]
    pub changed: u64,
    /// Removed.
    #[serde(deserialize_with = "loose")]
    pub deleted: u64,
    /// Replaced by another file that took their name.
    #[serde(deserialize_with = "loose")]
    pub replaced: u64,
    /// Given another name.
    #[serde(deserialize_with = "loose")]
    pub moved: u64,
    /// The sizes of what was removed, cut or replaced.
    #[serde(deserialize_with = "loose")]
    pub bytes_lost: u64,
}

impl Detail {
    /// Reads what it can of a line.
    pub fn of(line: &[u8]) -> Self {
        let mut detail: Self = serde_json::from_slice(line).unwrap_or_default();
        if let Some(effects) = &mut detail.effects {
            effects.destinations.append(&mut detail.destinations);
        }
        detail
    }
}

impl Claim {
    /// Adds what is claimed later: it may be a note alone.
    pub fn add(&mut self, later: &Self) {
        let Self { tool, params, reason, plan, note } = later;
        for (mine, theirs) in
            [(&mut self.tool, tool), (&mut self.reason, reason), (&mut self.plan, plan), (&mut self.note, note)]
        {
            if theirs.is_some() {
                mine.clone_from(theirs);
            }
        }
        if !params.is_null() {
            self.params.clone_from(params);
        }
    }
}

impl Effects {
    /// Counts an act that was done, for logs that do not say what an action came to.
    pub fn count(&mut self, op: Op) {
        let files = &mut self.files;
        let number = match op {
            Op::Create | Op::Mkdir | Op::Mknod | Op::Symlink | Op::Link => &mut files.created,
            Op::Write | Op::Truncate | Op::Chmod | Op::Chown | Op::Utime | Op::Xattr => &mut files.changed,
            Op::Unlink | Op::Rmdir => &mut files.deleted,
            Op::Rename | Op::Exchange => &mut files.moved,
            Op::Exec => &mut self.programs,
            Op::Signal => &mut self.signals,
            Op::Read | Op::Connect | Op::Send | Op::Route | Op::Resolve | Op::Accept | Op::Bind | Op::Call => return,
        };
        *number += 1;
    }
}

/// Takes a value if it is what it should be.
fn loose<'de, D: Deserializer<'de>, T: DeserializeOwned + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(serde_json::from_value(Value::deserialize(deserializer)?).unwrap_or_default())
}

/// Says in words how far an action reaches.
pub fn reach_words(reach: &str) -> &'static str {
    match reach {
        "B0" => "changes nothing",
        "B1" => "stays inside the workspace",
        "B2" => "reaches the rest of the user's account",
        "B3" => "reaches beyond the user's account",
        _ => "reaches we do not know how far",
    }
}

/// Says in words whether an action can be undone.
pub fn reversibility_words(reversibility: &str) -> &'static str {
    match reversibility {
        "R0" => "nothing to undo",
        "R1" => "can be undone",
        "R2" => "can be made again",
        "R3" => "cannot be undone",
        _ => "not known whether it can be undone",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_that_is_not_what_it_should_be_hides_no_other() {
        let line = br#"{"action":7,"tier":"high","reach":"B2","taint":["ssh-key"],"process":"none",
            "claim":{"tool":"Bash","params":{"a":1}},"effects":{"files":{"created":3,"changed":-1},"programs":2},
            "destinations":[{"kind":"others","allowed":1,"denied":0}],"more":{}}"#;
        let detail = Detail::of(line);
        assert_eq!((detail.action, detail.tier, detail.process), (None, None, None));
        assert_eq!((detail.reach.as_deref(), detail.taint), (Some("B2"), vec!["ssh-key".to_string()]));
        assert_eq!(detail.claim.unwrap().tool.as_deref(), Some("Bash"));
        let effects = detail.effects.unwrap();
        assert_eq!((effects.files.created, effects.files.changed, effects.programs), (3, 0, 2));
        assert_eq!(effects.destinations.len(), 1);
        assert_eq!(Detail::of(b"no JSON").tier, None);
    }
}
