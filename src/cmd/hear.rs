//! What becomes of what programs in the box say of themselves: secrets are taken out, and it goes on record as a claim.

use std::sync::Arc;

use crate::annotate::{Claim, Hear, Said};
use crate::audit::redact;
use crate::event::{ActionId, Subject};
use crate::gate::Gate;

/// Tells who a process is, by its number on the host.
pub type Who = Box<dyn Fn(i32) -> Arc<Subject> + Send + Sync>;

/// Puts on record what is said, as a claim. Nothing is allowed for it.
pub struct OnRecord {
    gate: Arc<Gate>,
    who: Who,
}

impl OnRecord {
    /// With the log of this gate.
    pub fn new(gate: Arc<Gate>, who: Who) -> Self {
        Self { gate, who }
    }
}

impl Hear for OnRecord {
    fn hear(&self, speaker: i32, said: Said) -> Result<String, String> {
        let subject = (self.who)(speaker);
        let action = match said {
            Said::Begin(claim) => self.gate.claim_begins(&subject, redacted(claim))?,
            Said::End { action, outcome } => {
                let which =
                    action.map(|id| ActionId::parse(&id).ok_or(format!("`{id}` names no action"))).transpose()?;
                self.gate.claim_ends(&subject, which, redacted(Claim { outcome, ..Claim::default() }))?
            }
            Said::Note(claim) => self.gate.claim_notes(&subject, redacted(claim)),
        };
        Ok(action.to_string())
    }

    fn refused(&self, speaker: i32, what: String) {
        let what = redact::text(&what);
        match speaker {
            0 => self.gate.remark(format!("an annotation was refused: {what}")),
            speaker => {
                let pid = (self.who)(speaker).pid;
                self.gate.remark(format!("an annotation of process {pid} was refused: {what}"));
            }
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
        outcome: without_secrets(claim.outcome),
    }
}

fn without_secrets(text: Option<String>) -> Option<String> {
    text.map(|text| redact::text(&text).into_owned())
}
