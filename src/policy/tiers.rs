//! What a deed weighs: how far it reaches, whether it can be undone, and the tier of the published table
//! (`profiles/tiers.yaml`); and the verdict that a policy's `tiers` draw from it.
//!
//! Pure, like the rest of the decision: from the policy, the event and what the rules said. The facts (what stood there,
//! what git knows of it, what the asker has read, what the action has destroyed) come with the event.

use std::collections::BTreeMap;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use serde::Deserialize;

use super::decide::{is_private, is_whole};
use super::file::{Exception, MOST_TIER, TiersFile};
use super::fix::Fix;
use super::glob::glob_matches;
use super::rules::{Probe, contains};
use super::{GuardKind, NetworkMode, Policy};
use crate::event::{Access, Before, Effect, Endpoint, Event, FileOp, GitState, Kind, Labels, MoveOp, Place};
use crate::event::{Losses, Reach, Reason, Reversibility, RuleId, Standing, Verdict, Weight, Where};

/// Which deeds pass, by what they weigh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tiers {
    /// Up to this tier they pass.
    pub allow: u8,
    /// Up to this one a person is asked; above they are denied.
    pub ask: u8,
    /// What becomes of those that cannot be undone, whatever their tier.
    pub irreversible: Option<Effect>,
    rules: [RuleId; 3],
}

impl Tiers {
    /// Takes over what stands in the policy file `name`.
    pub(super) fn new(written: &TiersFile, name: &Arc<str>) -> Self {
        let TiersFile { allow, ask, irreversible } = *written;
        let rules = ["tiers.allow", "tiers.ask", "tiers.irreversible"].map(|key| RuleId::new(name, key));
        Self { allow, ask, irreversible, rules }
    }

    /// What becomes of a deed of this tier that the rules allow; `for_good` if it cannot be undone.
    pub(super) fn answer(&self, tier: u8, for_good: bool) -> Effect {
        let reversibility = if for_good { Reversibility::R3 } else { Reversibility::R0 };
        self.effect(&Weight { tier, reversibility, ..Weight::default() }).0
    }

    /// The smallest change to these lines by which a deed of this weight passes.
    pub(super) fn remedy(&self, weight: &Weight) -> Fix {
        let allow = self.allow.max(weight.tier);
        let for_good = weight.reversibility == Reversibility::R3;
        let irreversible = self.irreversible.map(|effect| if for_good { Effect::Allow } else { effect });
        let file = self.rules[0].0.strip_suffix(" tiers.allow").unwrap_or_default().to_string();
        Fix::Tiers { allow, ask: self.ask.max(allow), irreversible, file }
    }

    /// Where they stand.
    pub(super) fn rule(&self) -> &RuleId {
        &self.rules[0]
    }

    /// What becomes of a deed that the rules allow, and by which key.
    fn effect(&self, weight: &Weight) -> (Effect, &RuleId) {
        let [allow, ask, irreversible] = &self.rules;
        let by_tier = match weight.tier {
            tier if tier <= self.allow => (Effect::Allow, allow),
            tier if tier <= self.ask => (Effect::Ask, allow),
            _ => (Effect::Deny, ask),
        };
        match self.irreversible.filter(|_| weight.reversibility == Reversibility::R3) {
            // Of two that say the same this one tells more.
            Some(effect) if strictness(effect) >= strictness(by_tier.0) => (effect, irreversible),
            _ => by_tier,
        }
    }
}

impl fmt::Display for Tiers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tiers    allow up to {}, ask up to {}, deny above", self.allow, self.ask)?;
        match self.irreversible {
            None | Some(Effect::Allow) => {}
            Some(Effect::Ask) => f.write_str("; ask of what cannot be undone")?,
            Some(Effect::Deny) => f.write_str("; deny what cannot be undone")?,
        }
        write!(f, "   {}", self.rules[0])
    }
}

fn strictness(effect: Effect) -> u8 {
    match effect {
        Effect::Allow => 0,
        Effect::Ask => 1,
        Effect::Deny => 2,
    }
}

/// Adds to what the rules said what the deed weighs, and what follows from that.
pub(super) fn weighed(policy: &Policy, event: &Event, by_rules: Verdict) -> Verdict {
    let weight = weigh(policy, event, &by_rules);
    let verdict = Verdict { weight, ..by_rules };
    let Some(tiers) = policy.tiers.as_ref().filter(|_| verdict.effect == Effect::Allow) else { return verdict };
    match tiers.effect(&verdict.weight) {
        (Effect::Allow, _) => verdict,
        (effect, rule) => Verdict { effect, rule: rule.clone(), reason: Reason::Tier, ..verdict },
    }
}

/// The published table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    version: u32,
    changes: BTreeMap<Reach, [u8; 4]>,
    deeds: BTreeMap<Kind, Row>,
    burst: Burst,
    caches: Vec<String>,
    outputs: Vec<String>,
    git: Vec<String>,
    system: Vec<String>,
    authority: Vec<String>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    reach: Reach,
    reversibility: Reversibility,
    tier: u8,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Burst {
    files: u64,
    bytes: u64,
    adds: u8,
    foreseen: u8,
    /// How many times as many are many in a whole run.
    run: u64,
}

impl Burst {
    /// Whether so much is lost already that the next loss is one of many.
    fn holds(&self, standing: &Standing) -> bool {
        let reach = |lost: &Losses, times: u64| lost.files >= self.files * times || lost.bytes >= self.bytes * times;
        reach(&standing.so_far, 1) || reach(&standing.in_run, self.run)
    }
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    const JSON: &str = include_str!(concat!(env!("OUT_DIR"), "/tiers.json"));
    serde_json::from_str(JSON).expect("the shipped table is complete: a test reads it")
});

/// The version of the published table.
pub fn table_version() -> u32 {
    TABLE.version
}

/// The tier of a kind of deed; that of changes to files depends on more.
#[cfg(test)]
pub(super) fn tier_of(kind: Kind) -> u8 {
    of_kind(kind).tier
}

/// What a deed weighs.
pub(super) fn weigh(policy: &Policy, event: &Event, by_rules: &Verdict) -> Weight {
    let taint = &event.standing.taint;
    match &event.access {
        Access::File { at: Place { stream: Some(_), .. }, .. } => of_kind(Kind::Plain),
        Access::File { op: FileOp::Read, at } => read(policy, at),
        Access::File { op, at } => with_secrets(policy, at, change(policy, event, *op, at)),
        Access::Move { op, from, to } => moved(policy, event, *op, from, to),
        Access::Connect { to } | Access::Send { to } => endpoint(policy, to, taint, by_rules),
        // What a name server is asked leaves the host as well.
        Access::Resolve(_) => egress(by_rules.reason == Reason::Granted, taint),
        Access::Signal(signal) if !signal.below => of_kind(Kind::Signal),
        Access::Signal(_) => of_kind(Kind::Plain),
        Access::Exec(_) | Access::Route { .. } | Access::Accept(_) | Access::Bind { .. } | Access::Call { .. } => {
            of_kind(Kind::Plain)
        }
    }
}

fn of_kind(kind: Kind) -> Weight {
    let Row { reach, reversibility, tier } = TABLE.deeds[&kind];
    Weight { reach, reversibility, tier, kind, ..Weight::default() }
}

fn of_change(reach: Reach, reversibility: Reversibility, place: Where) -> Weight {
    let tier = TABLE.changes[&reach][reversibility as usize];
    Weight { reach, reversibility, tier, kind: Kind::Change, place: Some(place), ..Weight::default() }
}

/// Of two deeds in one the heavier counts.
fn heavier(one: Weight, other: Weight) -> Weight {
    let (mut secrets, mut carried) = (one.secrets.clone(), one.carried.clone());
    secrets.extend(&other.secrets);
    carried.extend(&other.carried);
    let heavier = if other.tier > one.tier { other } else { one };
    Weight { secrets, carried, ..heavier }
}

fn read(policy: &Policy, at: &Place) -> Weight {
    let secrets = secrets(policy, at);
    if secrets.is_empty() {
        return of_kind(Kind::Plain);
    }
    Weight { secrets, ..of_kind(Kind::SecretRead) }
}

/// The labels of what is read through a name: those of the policy, and those that the file carries.
fn secrets(policy: &Policy, at: &Place) -> Labels {
    let mut labels = at.labels.clone();
    let probe = Probe::new(at.path.as_path());
    let applies = |guard: &super::Guard| guard.except != Exception::Examples || !is_example(probe.bytes);
    if let Some(label) = policy.secrets.first(&probe, applies).and_then(|guard| guard.label.as_ref()) {
        labels.add(label);
    }
    labels
}

fn is_example(path: &[u8]) -> bool {
    const ENDS: [&[u8]; 4] = [b".example", b".sample", b".template", b".dist"];
    ENDS.iter().any(|end| path.ends_with(end))
}

/// What is opened for writing may be read as well.
fn with_secrets(policy: &Policy, at: &Place, weight: Weight) -> Weight {
    if at.reads { heavier(weight, read(policy, at)) } else { weight }
}

fn change(policy: &Policy, event: &Event, op: FileOp, at: &Place) -> Weight {
    let place = place_of(policy, at.path.as_path());
    let lost = matches!(op, FileOp::Write | FileOp::Truncate | FileOp::Unlink).then_some(at.before.as_ref()).flatten();
    let removes = matches!(op, FileOp::Unlink | FileOp::Rmdir);
    let weight = loss(policy, event, place, at, lost, removes);
    if place != Where::Private && is_persistent(policy, op, at) {
        return persistent(weight);
    }
    weight
}

/// A change to what runs later is one however much more it weighs for what is lost by it.
fn persistent(weight: Weight) -> Weight {
    let place = weight.place;
    Weight { place, kind: Kind::Persistence, ..heavier(weight, of_kind(Kind::Persistence)) }
}

fn moved(policy: &Policy, event: &Event, op: MoveOp, from: &Place, to: &Place) -> Weight {
    let (here, there) = (place_of(policy, from.path.as_path()), place_of(policy, to.path.as_path()));
    let lost = if op == MoveOp::Rename { to.before.as_ref() } else { None };
    let second = loss(policy, event, there, to, lost, false);
    // A name that is moved can be moved back.
    let first = match op {
        MoveOp::Link => second.clone(),
        MoveOp::Rename | MoveOp::Exchange => of_change(reach(here), held(here), here),
    };
    let mut weight = heavier(second, first);
    for (op, at) in [(FileOp::Unlink, from), (FileOp::Create, to)] {
        if weight.place != Some(Where::Private) && is_persistent(policy, op, at) {
            weight = persistent(weight);
        }
    }
    weight.carried = secrets(policy, from);
    // What a directory holds cannot be told one by one: whoever moves it may read it by another name.
    let below = |_: &super::Guard| from.directory && op != MoveOp::Link;
    if let Some(guard) = policy.secrets.first_above(&Probe::new(from.path.as_path()), below) {
        let label = guard.label.clone().unwrap_or_default();
        weight = heavier(weight, Weight { secrets: Labels::from([&*label]), ..of_kind(Kind::SecretRead) });
    }
    weight
}

/// What a change weighs by what is lost in it: this one, those before it in the same action and in the run, and those to
/// come as far as they are bounded.
fn loss(policy: &Policy, event: &Event, place: Where, at: &Place, lost: Option<&Before>, removes: bool) -> Weight {
    let undo = lost.map_or(held(place), |before| undo(at, before, place));
    let mut weight = of_change(reach(place), undo, place);
    if place == Where::Private {
        return weight;
    }
    let burst = &TABLE.burst;
    let mut many = (lost.is_some() || removes) && burst.holds(&event.standing);
    let bound = event.standing.bound.as_ref().filter(|_| removes);
    if let Some(bound) = bound {
        let whole = is_whole(policy, bound.root.as_path());
        let reach = if whole { Reach::B3 } else { weight.reach };
        let undo = if bound.unheld > 0 { Reversibility::R3 } else { Reversibility::R1 };
        weight = heavier(weight, of_change(reach, undo, place));
        many |= bound.unheld > burst.files;
    }
    if many && undo != Reversibility::R2 {
        // Who is asked of the first of them is shown how many there are, and must not be overruled half-way.
        let foreseen = bound.is_some_and(|bound| !bound.more);
        let most = if foreseen { burst.foreseen } else { MOST_TIER };
        weight.tier = weight.tier.max((weight.tier + burst.adds).min(most));
    }
    weight
}

fn reach(place: Where) -> Reach {
    match place {
        Where::Private => Reach::B0,
        Where::Workspace => Reach::B1,
        Where::Home | Where::Elsewhere => Reach::B2,
        Where::System => Reach::B3,
    }
}

/// Whether a change that destroys nothing can be undone.
fn held(place: Where) -> Reversibility {
    if place == Where::Private { Reversibility::R0 } else { Reversibility::R1 }
}

/// Whether what stood at a name can be had again.
fn undo(at: &Place, before: &Before, place: Where) -> Reversibility {
    if place == Where::Private {
        return Reversibility::R0;
    }
    if before.held || before.bytes == 0 || before.git == Some(GitState::Clean) {
        Reversibility::R1
    } else if can_be_made_again(at.path.as_path(), before.git) {
        Reversibility::R2
    } else {
        Reversibility::R3
    }
}

/// Whether a file lies where tools keep what they make, or is one of git's notes. What is tracked is somebody's work.
pub fn can_be_made_again(path: &Path, git: Option<GitState>) -> bool {
    let below = |names: &[String]| {
        let mut above = path.parent().into_iter().flat_map(Path::components);
        above.any(|name| names.iter().any(|known| name.as_os_str() == known.as_str()))
    };
    let mut below_git = path.components().skip_while(|name| name.as_os_str() != ".git").skip(1);
    if below_git.any(|name| TABLE.git.iter().any(|known| name.as_os_str() == known.as_str())) {
        return true;
    }
    match git {
        Some(GitState::Clean | GitState::Modified) => false,
        Some(GitState::Ignored) => below(&TABLE.caches) || below(&TABLE.outputs),
        Some(GitState::Untracked) | None => below(&TABLE.caches),
    }
}

/// Where a change to `path` takes place.
fn place_of(policy: &Policy, path: &Path) -> Where {
    let bytes = path.as_os_str().as_bytes();
    let below = |tree: &Path| contains(tree.as_os_str().as_bytes(), bytes);
    if is_private(policy, path) {
        Where::Private
    } else if below(&policy.workdir) {
        Where::Workspace
    } else if TABLE.system.iter().any(|tree| below(Path::new(tree))) {
        Where::System
    } else if below(&policy.home) {
        Where::Home
    } else {
        Where::Elsewhere
    }
}

/// Whether a change puts something where it runs later, or takes away what guards the person: such names are on the
/// protected list, and somebody lifted this one.
pub(super) fn is_persistent(policy: &Policy, op: FileOp, at: &Place) -> bool {
    let probe = Probe::new(at.path.as_path());
    let counts = |guard: &super::Guard| guard.kind == GuardKind::Protect && guard.except != Exception::OwnRepository;
    let changes = match op {
        FileOp::Read | FileOp::Chown | FileOp::Utime => false,
        FileOp::Chmod => at.shares,
        _ => true,
    };
    changes && !at.own_repository && policy.files.guards.first(&probe, counts).is_some()
}

fn endpoint(policy: &Policy, to: &Endpoint, taint: &Labels, by_rules: &Verdict) -> Weight {
    match to {
        Endpoint::Inet { outside: true, .. } => {
            let listed = policy.network.mode == NetworkMode::Rules && by_rules.reason == Reason::Granted;
            egress(listed, taint)
        }
        Endpoint::Unix { path, own: false } if acts_for_the_person(path.as_path()) => of_kind(Kind::Authority),
        Endpoint::Unix { own: false, .. } => egress(by_rules.reason == Reason::Granted, taint),
        Endpoint::Inet { .. } | Endpoint::Unix { .. } | Endpoint::Abstract { .. } => of_kind(Kind::Plain),
        Endpoint::Unspecified | Endpoint::Netlink | Endpoint::Other { .. } => of_kind(Kind::Plain),
    }
}

fn egress(listed: bool, taint: &Labels) -> Weight {
    of_kind(match (listed, taint.is_empty()) {
        (true, true) => Kind::Listed,
        (true, false) => Kind::ListedTainted,
        (false, true) => Kind::Unlisted,
        (false, false) => Kind::UnlistedTainted,
    })
}

fn acts_for_the_person(path: &Path) -> bool {
    let name = path.file_name().map(OsStrExt::as_bytes).unwrap_or_default();
    TABLE.authority.iter().any(|glob| glob_matches(glob.as_bytes(), name))
}
