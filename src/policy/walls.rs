//! What a box holds without the softer rules: what decides in mode audit which refusals are let through. Pure.
//!
//! Let through is what rules refuse that stand inside the walls, and that a person may want to try out before they
//! hold: rules for programs, patterns in `deny`, `deny_read` and `deny_write` inside trees that are granted otherwise,
//! and tiers over files and signals. Not let through, whatever the mode, is
//! - what nothing grants: view, Landlock and namespaces keep it away, and cannot be lifted for one call;
//! - a denial of plain paths: they are masked or read-only in the view;
//! - the protected list, also where a grant has lifted it and only tiers stand there: what it holds runs outside the
//!   box;
//! - whatever reads, changes, moves or carries a secret: what was read cannot be taken back, and the network is open to
//!   some;
//! - the network and sockets, tiers over them included: what has left is gone;
//! - calls that could not be understood.
//!
//! What tiers hold because it cannot be undone is let through: rules grant it, and without the key `tiers` it would
//! pass.

use std::path::Path;

use super::decide::by_rules;
use super::programs::Programs;
use super::rules::Probe;
use super::tiers::is_persistent;
use super::{ExecRules, FileRules, Guard, GuardKind, Guards, Policy, ProgramPattern, ProgramRule};
use crate::event::{Access, Effect, Event, FileOp, Place, RuleId, Verdict};

/// The same in one line, for a person.
pub const LET_THROUGH: &str = "what rules for programs, patterns in granted trees and tiers deny is recorded and let \
                               through, but for secrets, protected names and the network";

/// The walls of a policy.
#[derive(Debug)]
pub struct Walls {
    policy: Policy,
    /// The same without what is let through.
    alone: Policy,
}

impl Walls {
    /// Takes from a policy what is let through.
    pub fn of(policy: &Policy) -> Self {
        let FileRules { read, write, private, guards, otherwise, .. } = policy.files.clone();
        let kept: Vec<Guard> = guards.iter().filter(|guard| !is_soft(guard)).cloned().collect();
        let files = FileRules::new([read, write, private], Guards::new(kept), otherwise);
        let alone = Policy { files, exec: any_program(), tiers: None, ..policy.clone() };
        Self { policy: policy.clone(), alone }
    }

    /// Whether the box holds without this refusal, so that mode audit lets it through.
    pub fn hold_without(&self, event: &Event, verdict: &Verdict) -> bool {
        let touches: &[(FileOp, &Place)] = match &event.access {
            Access::File { op, at } => &[(*op, at)],
            Access::Move { from, to, .. } => &[(FileOp::Unlink, from), (FileOp::Create, to)],
            Access::Exec(_) | Access::Signal(_) => &[],
            Access::Connect { .. }
            | Access::Send { .. }
            | Access::Route { .. }
            | Access::Resolve(_)
            | Access::Accept(_)
            | Access::Bind { .. }
            | Access::Call { .. } => return false,
        };
        let guards_the_person =
            |(op, at): &(FileOp, &Place)| is_persistent(&self.policy, *op, at) || self.is_secret(at);
        verdict.effect != Effect::Allow
            && verdict.weight.secrets.is_empty()
            && verdict.weight.carried.is_empty()
            && !touches.iter().any(guards_the_person)
            && by_rules(&self.alone, event).effect == Effect::Allow
    }

    fn is_secret(&self, at: &Place) -> bool {
        let path: &Path = at.path.as_path();
        !at.labels.is_empty() || self.policy.secrets.first(&Probe::new(path), |_| true).is_some()
    }
}

/// A guard that nothing but the supervisor holds, and that is not there for the person's sake.
fn is_soft(guard: &Guard) -> bool {
    match guard.kind {
        GuardKind::Deny | GuardKind::DenyRead | GuardKind::DenyWrite => guard.pattern.exacts().next().is_none(),
        GuardKind::Protect | GuardKind::Secret => false,
    }
}

fn any_program() -> ExecRules {
    let mut allow = Programs::default();
    let rule = RuleId::new("mode audit", "exec");
    allow.push(ProgramRule { program: ProgramPattern::Any, args: None, rule, message: None });
    ExecRules { allow, ..ExecRules::default() }
}
