//! What a record says beyond what every version of the schema knows: its action, the effects, the claims.
//!
//! For those who show or pass on a log, not for those who decide by it. A log may be older or newer than this program,
//! and its lines may come from anywhere: a field that is missing, or is not what it should be, is as if it were not
//! there.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::entry::Decided;
use super::record::{Destination, Op};
use crate::event::{Claim, Effects, Subject, Where};

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
    /// Both in one number, 1 to 10, of what was let through.
    #[serde(deserialize_with = "loose")]
    pub tier: Option<u8>,
    /// The same of what was refused.
    #[serde(deserialize_with = "loose")]
    pub refused_tier: Option<u8>,
    /// What secrets the acting process has seen.
    #[serde(deserialize_with = "loose")]
    pub taint: Vec<String>,
    /// The worst that the act could come to.
    #[serde(deserialize_with = "loose")]
    pub bound: Option<Value>,
}

impl Detail {
    /// Reads what it can of a line.
    pub fn of(line: &[u8]) -> Self {
        serde_json::from_slice(line).unwrap_or_default()
    }
}

/// Counts a decision for logs that do not say what an action came to.
pub fn count(effects: &mut Effects, decided: &Decided) {
    // On the box's own file systems, which vanish with it, nothing is counted.
    if !decided.done() || decided.place == Some(Where::Private) {
        return;
    }
    let files = &mut effects.files;
    let number = match decided.op {
        Op::Create | Op::Mknod | Op::Symlink | Op::Link => &mut files.created,
        Op::Mkdir => &mut files.directories_made,
        Op::Write | Op::Truncate => &mut files.changed,
        Op::Chmod | Op::Chown | Op::Utime | Op::Xattr => &mut files.attributes,
        Op::Unlink => &mut files.deleted,
        Op::Rmdir => &mut files.directories_removed,
        Op::Rename | Op::Exchange => &mut files.moved,
        Op::Exec => &mut effects.programs,
        Op::Signal => &mut effects.signals,
        Op::Resolve => &mut effects.names,
        Op::Read | Op::Connect | Op::Send | Op::Route | Op::Accept | Op::Bind | Op::Call => return,
    };
    *number += 1;
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
        let whole = br#"{"effects":{"files":{"created":3,"more":1},"programs":2}}"#;
        let detail = Detail::of(line);
        assert_eq!((detail.action, detail.tier, detail.process), (None, None, None));
        assert_eq!((detail.reach.as_deref(), detail.taint), (Some("B2"), vec!["ssh-key".to_string()]));
        assert_eq!(detail.claim.unwrap().tool.as_deref(), Some("Bash"));
        assert_eq!((detail.effects, detail.destinations.len()), (None, 1));
        let effects = Detail::of(whole).effects.unwrap();
        assert_eq!((effects.files.created, effects.files.changed, effects.programs), (3, 0, 2));
        assert_eq!(Detail::of(b"no JSON").tier, None);
    }
}
