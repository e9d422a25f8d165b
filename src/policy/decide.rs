//! Answers an event from the policy alone; stands in until the matchers are there.

use crate::event::{Access, Effect, Event, FileOp, Reason, RuleId, Verdict};
use crate::policy::{Policy, Root};

/// Decides `event` by the longest granted tree; everything but file access is denied.
pub fn decide(policy: &Policy, event: &Event) -> Verdict {
    let (places, roots): (Vec<_>, &[Root]) = match &event.access {
        Access::File { op: FileOp::Read, at } => (vec![at], &policy.files.read),
        Access::File { at, .. } => (vec![at], &policy.files.write),
        Access::Move { from, to, .. } => (vec![from, to], &policy.files.write),
        _ => (vec![], &[]),
    };
    let grant = |path: &std::path::Path| roots.iter().find(|root| path.starts_with(&root.path));
    let granted = places.iter().map(|place| grant(place.path.as_path())).collect::<Option<Vec<_>>>();
    match granted.as_deref() {
        Some([root, ..]) => verdict(Effect::Allow, root.rule.clone(), Reason::Granted),
        _ => {
            let rule = policy.files.otherwise.clone().unwrap_or_else(|| RuleId::new(&policy.name, "filesystem"));
            verdict(Effect::Deny, rule, Reason::NotGranted)
        }
    }
}

/// Names the smallest flag that would allow what `verdict` denied.
pub fn suggest(_policy: &Policy, event: &Event, verdict: &Verdict) -> Option<String> {
    match (&event.access, verdict.effect) {
        (Access::File { op: FileOp::Read, at }, Effect::Deny) => Some(format!("-r {}", at.path)),
        (Access::File { at, .. }, Effect::Deny) => Some(format!("-w {}", at.path)),
        _ => None,
    }
}

fn verdict(effect: Effect, rule: RuleId, reason: Reason) -> Verdict {
    Verdict { effect, rule, reason, message: None }
}
