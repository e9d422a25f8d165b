//! What becomes of what programs in the box say of themselves: secrets are taken out, and it goes on record.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use crate::annotate::{Claim, Hear, Said};
use crate::audit::redact;
use crate::gate::Gate;

/// Puts on record what is said, as a claim. Nothing is allowed for it.
pub struct OnRecord {
    gate: Arc<Gate>,
    begun: AtomicU64,
}

impl OnRecord {
    /// With the log of this gate.
    pub fn new(gate: Arc<Gate>) -> Self {
        Self { gate, begun: AtomicU64::new(0) }
    }

    fn remark(&self, speaker: i32, what: &str, said: &Value) {
        self.gate.remark(format!("process {speaker} claims: {what} {said}"));
    }
}

impl Hear for OnRecord {
    fn hear(&self, speaker: i32, said: Said) -> Result<String, String> {
        match said {
            Said::Begin(claim) => {
                let action = format!("a{}", self.begun.fetch_add(1, Ordering::Relaxed) + 1);
                self.remark(speaker, &format!("begin {action}"), &json!(redacted(claim)));
                Ok(action)
            }
            Said::End { action, outcome } => {
                let said = json!({ "action": without_secrets(action.clone()), "outcome": without_secrets(outcome) });
                self.remark(speaker, "end", &said);
                Ok(action.unwrap_or_else(|| "session".into()))
            }
            Said::Note(claim) => {
                self.remark(speaker, "note", &json!(redacted(claim)));
                Ok("session".into())
            }
        }
    }

    fn refused(&self, speaker: i32, what: String) {
        let what = redact::text(&what);
        match speaker {
            0 => self.gate.remark(format!("an annotation was refused: {what}")),
            speaker => self.gate.remark(format!("an annotation of process {speaker} was refused: {what}")),
        }
    }
}

/// A claim without secrets.
fn redacted(claim: Claim) -> Claim {
    Claim {
        tool: without_secrets(claim.tool),
        params: claim.params.map(redact::value),
        reason: without_secrets(claim.reason),
        plan: without_secrets(claim.plan),
        note: without_secrets(claim.note),
        parent: without_secrets(claim.parent),
    }
}

fn without_secrets(text: Option<String>) -> Option<String> {
    text.map(|text| redact::text(&text).into_owned())
}
