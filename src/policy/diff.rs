//! What one policy permits more and less than another. Pure: two policies in, lines out.
//!
//! Compared by decision, so that what another rule covers anyway is not told: granted trees (at the top of each tree of
//! either policy, where alone the answer can change), names that a grant takes off the protected list, the box's own
//! devices, symbolic links to trees, and tiers (tier by tier). Compared by rule, since a wildcard or a list of
//! arguments cannot be tried out: guards, secrets, programs, destinations, sockets, ports and variables. Of these a
//! rule is left out where one rule of the other policy by itself does the same and more, and a guard where nothing that
//! it names is granted. So nothing that differs is left out; what is told may be without effect, as a rule that two
//! others make up for.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::decide::{by_rules, holding};
use super::index::Granted;
use super::network::reserved::Reserved;
use super::network::{Destination, Host, NetworkRule};
use super::rules::Probe;
use super::{Exception, Guard, GuardKind, NetworkMode, Policy, ProgramPattern, ProgramRule, Programs, Publish, Root};
use crate::event::{Access, BoxPath, Effect, Event, Export, FileOp, HOST_NAME, Level, Place, RuleId, Subject};

/// What the second of two policies permits more and less than the first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Diff {
    /// What it permits and the first does not.
    pub more: Vec<Line>,
    /// What the first permits and it does not.
    pub less: Vec<Line>,
    /// What is otherwise and permits neither more nor less.
    pub other: Vec<Line>,
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    /// In words.
    pub what: String,
    /// The rule, of the policy that has it.
    pub rule: RuleId,
}

impl Diff {
    /// Compares two policies that were loaded for the same directory.
    pub fn of(a: &Policy, b: &Policy) -> Self {
        let mut diff = Self::default();
        diff.trees(a, b);
        diff.devices_and_links(a, b);
        diff.lifted(a, b);
        diff.guards(a, b);
        diff.programs(a, b);
        diff.network(a, b);
        diff.tiers(a, b);
        diff.secrets(a, b);
        diff.settings(a, b);
        diff
    }

    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.more.is_empty() && self.less.is_empty() && self.other.is_empty()
    }

    fn more(&mut self, what: impl Into<String>, rule: &RuleId) {
        put(&mut self.more, what.into(), rule);
    }

    fn less(&mut self, what: impl Into<String>, rule: &RuleId) {
        put(&mut self.less, what.into(), rule);
    }

    fn other(&mut self, what: impl Into<String>, rule: &RuleId) {
        put(&mut self.other, what.into(), rule);
    }

    /// Between two tops of trees the answer is that of the upper one, so all tops tell all.
    fn trees(&mut self, a: &Policy, b: &Policy) {
        let tops: BTreeSet<&Path> = roots(a).chain(roots(b)).map(|root| root.path.as_path()).collect();
        for top in &tops {
            let pair = |path: &Path| (standing(a, path), standing(b, path));
            let above = top.ancestors().skip(1).find(|path| tops.contains(path)).map(pair);
            let here = pair(top);
            let kinds = |(a, b): &(Stand, Stand)| (a.kind, b.kind);
            // What is the same below as above was told above.
            if here.0.kind != here.1.kind && above.as_ref().map(kinds) != Some(kinds(&here)) {
                self.tree(&shown(top), &here.0, &here.1);
            }
        }
    }

    fn tree(&mut self, path: &str, a: &Stand, b: &Stand) {
        use Tree::{None, Private, Read, Write};
        match (a.kind, b.kind) {
            (None, Read) => self.more(format!("may read {path}"), &b.rule),
            (None, Write) => self.more(format!("may read and change {path}"), &b.rule),
            (Read, Write) => self.more(format!("may change {path}"), &b.rule),
            (None, Private) => self.more(format!("has an empty directory of its own at {path}"), &b.rule),
            (Private, Write) => self.more(format!("may read and change {path} as it is outside"), &b.rule),
            (Write, Private) => self.less(format!("has an empty directory of its own in place of {path}"), &b.rule),
            (Read, Private) => {
                self.more(format!("may change {path}, an empty directory of its own"), &b.rule);
                self.less(format!("may not read what is in {path} outside"), &a.rule);
            }
            (Private, Read) => {
                self.more(format!("may read {path} as it is outside"), &b.rule);
                self.less(format!("may not change {path}"), &a.rule);
            }
            (Write, Read) => self.less(format!("may not change {path}"), &a.rule),
            (Write, None) => self.less(format!("may not read or change {path}"), &a.rule),
            (Read, None) => self.less(format!("may not read {path}"), &a.rule),
            (Private, None) => self.less(format!("has no directory of its own at {path}"), &a.rule),
            (None, None) | (Read, Read) | (Write, Write) | (Private, Private) => {}
        }
    }

    /// A grant inside of `/dev` closes the devices that the box brings; a link is seen where it is granted.
    fn devices_and_links(&mut self, a: &Policy, b: &Policy) {
        const OWN: [&str; 9] = ["null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts/0", "shm/0"];
        let own = OWN.iter().map(|name| Path::new("/dev").join(name));
        let links = roots(a).chain(roots(b)).filter_map(|root| root.link.clone());
        let paths: BTreeSet<PathBuf> = own.chain(links).collect();
        for path in &paths {
            let ops = if path.starts_with("/dev") {
                &[FileOp::Read, FileOp::Write, FileOp::Create][..]
            } else {
                &[FileOp::Read]
            };
            let differs = |op: &FileOp| {
                let (one, two) = (touch(a, *op, path)?, touch(b, *op, path)?);
                (one.0 != two.0).then_some((one, two))
            };
            match ops.iter().find_map(differs) {
                Some((_, (true, rule))) => self.more(format!("may use {}", shown(path)), &rule),
                Some((_, (false, rule))) => self.less(format!("may not use {}", shown(path)), &rule),
                None => {}
            }
        }
    }

    /// A grant of a protected name itself takes it off the list, even in a tree that is granted anyway.
    fn lifted(&mut self, a: &Policy, b: &Policy) {
        for (root, guard) in lifts(a, b) {
            self.more(format!("may change {}, protected as {}", shown(&root.path), guard.pattern), &root.rule);
        }
        for (root, guard) in lifts(b, a) {
            self.less(format!("may not change {}, protected as {}", shown(&root.path), guard.pattern), &root.rule);
        }
    }

    fn guards(&mut self, a: &Policy, b: &Policy) {
        for guard in only(a.files.guards.iter(), b.files.guards.iter(), guard_key) {
            if !is_held(guard, b) && is_within_reach(guard, b) {
                self.more(format!("may {} {}", kept_from(guard.kind), guard.pattern), &guard.rule);
            }
        }
        for guard in only(b.files.guards.iter(), a.files.guards.iter(), guard_key) {
            if !is_held(guard, a) && is_within_reach(guard, a) {
                self.less(format!("may not {} {}", kept_from(guard.kind), guard.pattern), &guard.rule);
            }
        }
    }

    fn programs(&mut self, a: &Policy, b: &Policy) {
        let (one, two) = (&a.exec, &b.exec);
        for rule in new_rules(&two.allow, &[&one.allow]) {
            self.more(format!("may start {rule}"), &rule.rule);
        }
        for rule in new_rules(&one.allow, &[&two.allow]) {
            self.less(format!("may not start {rule}"), &rule.rule);
        }
        // A rule that asks is as good as gone where another denies.
        for rule in new_rules(&two.ask, &[&one.ask, &one.deny]) {
            self.less(format!("must ask to start {rule}"), &rule.rule);
        }
        for rule in new_rules(&one.ask, &[&two.ask, &two.deny]) {
            self.more(format!("need not ask to start {rule}"), &rule.rule);
        }
        for rule in new_rules(&two.deny, &[&one.deny]) {
            self.less(format!("may not start {rule}, whatever allows it"), &rule.rule);
        }
        for rule in new_rules(&one.deny, &[&two.deny]) {
            self.more(format!("is not kept from starting {rule}"), &rule.rule);
        }
    }

    fn network(&mut self, a: &Policy, b: &Policy) {
        use NetworkMode::{Host, None, Rules};
        let (one, two) = (&a.network, &b.network);
        match (one.mode, two.mode) {
            (None | Rules, Host) => self.more("may reach all that this host reaches", &two.rule),
            (Host, None) => self.less("may reach nothing outside", &two.rule),
            (Host, Rules) => self.less("may reach nothing outside but what rules allow", &two.rule),
            (None, Rules) => self.other("the network has rules", &two.rule),
            (Rules, None) => self.other("the network has no rules", &two.rule),
            (None, None) | (Rules, Rules) | (Host, Host) => {}
        }
        // In the mode `host` nobody asks for rules, and the line above says what that comes to.
        if one.mode != Host && two.mode != Host {
            self.destinations(a, b);
        }
        self.sockets_and_ports(a, b);
    }

    fn destinations(&mut self, a: &Policy, b: &Policy) {
        let (one, two) = (&a.network, &b.network);
        let open = |to: &Destination, policy: &Policy| is_open(to, policy);
        for rule in only(two.allow.iter(), one.allow.iter(), destination_key).filter(|rule| !open(&rule.to, a)) {
            self.more(format!("may reach {}", rule.to), &rule.rule);
        }
        for rule in only(one.allow.iter(), two.allow.iter(), destination_key).filter(|rule| !open(&rule.to, b)) {
            self.less(format!("may not reach {}", rule.to), &rule.rule);
        }
        // Without a network there was nothing to deny.
        let closed = |rule: &&NetworkRule, policy: &Policy| {
            policy.network.mode == NetworkMode::None || policy.network.deny.covering(&rule.to).is_some()
        };
        for rule in only(two.deny.iter(), one.deny.iter(), destination_key).filter(|rule| !closed(rule, a)) {
            self.less(format!("may not reach {}, whatever allows it", rule.to), &rule.rule);
        }
        for rule in only(one.deny.iter(), two.deny.iter(), destination_key).filter(|rule| !closed(rule, b)) {
            self.more(format!("is not kept from reaching {}", rule.to), &rule.rule);
        }
    }

    fn sockets_and_ports(&mut self, a: &Policy, b: &Policy) {
        let path = |root: &Root| root.path.clone();
        for root in only(b.network.unix.iter(), a.network.unix.iter(), path) {
            self.more(format!("may connect to the socket {}", shown(&root.path)), &root.rule);
        }
        for root in only(a.network.unix.iter(), b.network.unix.iter(), path) {
            self.less(format!("may not connect to the socket {}", shown(&root.path)), &root.rule);
        }
        let ports = |publish: &Publish| (publish.host, publish.port);
        for publish in only(b.network.publish.iter(), a.network.publish.iter(), ports) {
            self.more(format!("is reached at {} (its port {})", publish.host, publish.port), &publish.rule);
        }
        for publish in only(a.network.publish.iter(), b.network.publish.iter(), ports) {
            self.less(format!("is not reached at {} (its port {})", publish.host, publish.port), &publish.rule);
        }
    }

    /// Tier by tier; those that are treated alike are told together.
    fn tiers(&mut self, a: &Policy, b: &Policy) {
        let rule = [b, a].into_iter().find_map(|policy| policy.tiers.as_ref()).map(|tiers| tiers.rule().clone());
        let Some(rule) = rule else { return };
        let change = |tier, for_good| (passes(a, tier, for_good), passes(b, tier, for_good));
        let reversible = |tier| Some(change(tier, false));
        // Only where it is told otherwise than what can be undone.
        let for_good = |tier| Some(change(tier, true)).filter(|pair| Some(*pair) != reversible(tier));
        self.runs(&rule, "", reversible);
        self.runs(&rule, " that cannot be undone", for_good);
        self.whole_trees(a, b);
    }

    fn runs(&mut self, rule: &RuleId, which: &str, change: impl Fn(u8) -> Option<(Effect, Effect)>) {
        let mut first = 1;
        while first <= super::file::MOST_TIER {
            let here = change(first);
            let last =
                (first..=super::file::MOST_TIER).take_while(|tier| change(*tier) == here).last().unwrap_or(first);
            let tiers = if first == last { format!("tier {first}") } else { format!("tiers {first} to {last}") };
            first = last + 1;
            let Some((was, is)) = here.filter(|(was, is)| was != is) else { continue };
            let what = |word: &str| format!("acts of {tiers}{which} {word}");
            match (was, is) {
                (_, Effect::Allow) => self.more(what("pass"), rule),
                (Effect::Deny, _) => self.more(what("are asked about"), rule),
                (Effect::Allow, Effect::Ask) => self.less(what("are asked about"), rule),
                (_, Effect::Deny | Effect::Ask) => self.less(what("are denied"), rule),
            }
        }
    }

    /// Who removes a granted tree as a whole removes more than what is in it, as tiers have it.
    fn whole_trees(&mut self, a: &Policy, b: &Policy) {
        let path = |root: &Root| root.path.clone();
        let told = |root: &&Root| standing(a, &root.path).kind == standing(b, &root.path).kind;
        for root in only(b.files.write.iter(), a.files.write.iter(), path).filter(told).filter(|_| b.tiers.is_some()) {
            self.less(format!("to remove {} weighs as a whole tree", shown(&root.path)), &root.rule);
        }
        for root in only(a.files.write.iter(), b.files.write.iter(), path).filter(told).filter(|_| a.tiers.is_some()) {
            self.more(format!("to remove {} does not weigh as a whole tree", shown(&root.path)), &root.rule);
        }
    }

    /// To read a secret weighs something only where there are tiers; elsewhere it is told in the record.
    fn secrets(&mut self, a: &Policy, b: &Policy) {
        for (what, rule) in told_secrets(only(b.secrets.iter(), a.secrets.iter(), guard_key), "counts", "count") {
            if b.tiers.is_some() { self.less(what, &rule) } else { self.other(what, &rule) }
        }
        let gone = only(a.secrets.iter(), b.secrets.iter(), guard_key);
        for (what, rule) in told_secrets(gone, "does not count", "do not count") {
            if a.tiers.is_some() { self.more(what, &rule) } else { self.other(what, &rule) }
        }
    }

    fn settings(&mut self, a: &Policy, b: &Policy) {
        let (one, two) = (&a.env.vars, &b.env.vars);
        let rule = |policy: &Policy, key: &str| RuleId::new(&policy.name, key);
        for (name, value) in two {
            match one.get(name) {
                None => self.more(format!("gets the variable {}", name.to_string_lossy()), &rule(b, "env")),
                Some(before) if before != value => {
                    self.other(format!("the variable {} has another value", name.to_string_lossy()), &rule(b, "env"));
                }
                Some(_) => {}
            }
        }
        for name in one.keys().filter(|name| !two.contains_key(*name)) {
            self.less(format!("does not get the variable {}", name.to_string_lossy()), &rule(a, "env"));
        }
        if a.audit != b.audit {
            self.other(format!("records {}", level(b.audit)), &rule(b, "audit.level"));
        }
        if a.export != b.export {
            self.other(exported(b.export).to_string(), &rule(b, "audit.export"));
        }
        let key = |policy: &Policy| policy.audit_key.as_ref().map(|key| key.path.clone());
        if key(a) != key(b) {
            let with = key(b).map_or("no key that it names".into(), |path| path.to_string_lossy().into_owned());
            self.other(format!("signs its record with {with}"), &rule(b, "audit.key"));
        }
    }
}

/// How many secrets are told one by one.
const SECRETS: usize = 3;

/// A few secrets one by one; a whole list by its labels.
fn told_secrets<'a>(guards: impl Iterator<Item = &'a Guard>, one: &str, all: &str) -> Vec<(String, RuleId)> {
    let guards: Vec<&Guard> = guards.collect();
    let label = |guard: &&Guard| guard.label.as_deref().unwrap_or("secret").to_string();
    if guards.len() <= SECRETS {
        let told = |guard: &&Guard| format!("{} {one} as a secret ({})", guard.pattern, label(guard));
        return guards.iter().map(|guard| (told(guard), guard.rule.clone())).collect();
    }
    let labels: BTreeSet<String> = guards.iter().map(label).collect();
    let labels = labels.into_iter().collect::<Vec<_>>().join(", ");
    vec![(format!("{} patterns {all} as secrets ({labels})", guards.len()), guards[0].rule.clone())]
}

fn put(lines: &mut Vec<Line>, what: String, rule: &RuleId) {
    let line = Line { what, rule: rule.clone() };
    if !lines.contains(&line) {
        lines.push(line);
    }
}

fn shown(path: &Path) -> Cow<'_, str> {
    path.to_string_lossy()
}

fn exported(export: Export) -> &'static str {
    match export {
        Export::None => "is not exported while it runs",
        Export::Otlp => "is exported while it runs, as otlp",
    }
}

fn level(level: Level) -> &'static str {
    match level {
        Level::Minimal => "programs, connections and denials",
        Level::Actions => "programs, connections, denials and changes",
        Level::All => "programs, connections, denials, changes and reads",
    }
}

/// What the trees let be done with a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tree {
    None,
    Read,
    Private,
    Write,
}

struct Stand {
    kind: Tree,
    rule: RuleId,
}

/// What the trees of a policy say of a path, guards left aside.
fn standing(policy: &Policy, path: &Path) -> Stand {
    let probe = Probe::new(path);
    match holding(&policy.files, &probe).next() {
        Some((root, granted)) => {
            let kind = match granted {
                Granted::Read(_) => Tree::Read,
                Granted::Write(_) => Tree::Write,
                Granted::Private(_) => Tree::Private,
            };
            Stand { kind, rule: root.rule.clone() }
        }
        None => Stand { kind: Tree::None, rule: RuleId::new(&policy.name, "filesystem") },
    }
}

fn roots(policy: &Policy) -> impl Iterator<Item = &Root> {
    let files = &policy.files;
    files.read.iter().chain(&files.write).chain(&files.private)
}

/// Asks a policy about one name: whether its rules allow it, and which.
fn touch(policy: &Policy, op: FileOp, path: &Path) -> Option<(bool, RuleId)> {
    let access = Access::File { op, at: Place::of(BoxPath::new(path)?) };
    let verdict = by_rules(policy, &Event::new(Subject::default().into(), access));
    Some((verdict.effect == Effect::Allow, verdict.rule))
}

/// Grants of `b` that take names off the protected list, and that no grant of `a` takes off.
fn lifts<'a>(a: &'a Policy, b: &'a Policy) -> impl Iterator<Item = (&'a Root, &'a Guard)> {
    let lifting = move |root: &'a Root| {
        let guards = b.files.guards.of(GuardKind::Protect).iter();
        let named = guards.filter(move |guard| guard.pattern.is_granted_by(&root.path));
        let in_a = move |guard: &&Guard| {
            let mut around = a.files.write.iter().filter(|own| root.path.starts_with(&own.path));
            around.any(|own| guard.pattern.is_granted_by(&own.path))
        };
        named.filter(move |guard| !in_a(guard)).map(move |guard| (root, guard))
    };
    b.files.write.iter().flat_map(lifting)
}

/// Those of `of` whose like is not in `beside`.
fn only<'a, T: 'a, K: Ord>(
    of: impl Iterator<Item = &'a T>,
    beside: impl Iterator<Item = &'a T>,
    key: impl Fn(&T) -> K,
) -> impl Iterator<Item = &'a T> {
    let known: BTreeSet<K> = beside.map(&key).collect();
    of.filter(move |one| !known.contains(&key(one)))
}

/// Equal for equal meanings.
fn guard_key(guard: &Guard) -> (GuardKind, u8, Vec<Vec<u8>>, Option<String>) {
    let mut pieces = Vec::new();
    guard.pattern.pieces(|piece| pieces.push(piece.to_vec()));
    (guard.kind, guard.except as u8, pieces, guard.label.as_deref().map(str::to_string))
}

fn kept_from(kind: GuardKind) -> &'static str {
    match kind {
        GuardKind::Deny => "read or change",
        GuardKind::DenyRead => "read",
        GuardKind::DenyWrite | GuardKind::Protect => "change",
        GuardKind::Secret => "read unnoticed",
    }
}

/// Whether a policy keeps what a guard names at least as well by one guard: one with the same pattern, or, of plain
/// paths, one with a path above. (A pattern that floats does not keep the directories above what it names.)
fn is_held(guard: &Guard, policy: &Policy) -> bool {
    let stronger: &[GuardKind] = match guard.kind {
        GuardKind::Deny => &[GuardKind::Deny],
        GuardKind::DenyRead => &[GuardKind::Deny, GuardKind::DenyRead],
        GuardKind::DenyWrite => &[GuardKind::Deny, GuardKind::DenyWrite],
        GuardKind::Protect => &[GuardKind::Deny, GuardKind::DenyWrite],
        GuardKind::Secret => &[],
    };
    let others = || stronger.iter().flat_map(|kind| policy.files.guards.of(*kind));
    let plain = |other: &&Guard| other.except == Exception::None;
    let same = |other: &Guard| guard_key(other).2 == guard_key(guard).2;
    let above =
        |path: &Path| others().filter(plain).any(|other| other.pattern.exacts().any(|own| path.starts_with(own)));
    others().filter(plain).any(same) || (guard.pattern.exact().is_some() && guard.pattern.exacts().all(above))
}

/// Whether a policy grants anything that a guard names, so that to have the guard or not makes a difference to it. A
/// program that no tree shows cannot be started, whatever rules for programs say.
fn is_within_reach(guard: &Guard, policy: &Policy) -> bool {
    let own = ["/dev", "/proc"].map(Path::new);
    let granted = roots(policy).chain(&policy.network.unix);
    let shown = granted.flat_map(|root| root.link.iter().chain([&root.path])).map(PathBuf::as_path);
    guard.pattern.reaches(&shown.chain(own).collect::<Vec<_>>())
}

/// The rules that are in none of the other lists, and that no rule there for the same program with any arguments, or
/// for any program, makes up for.
fn new_rules<'a>(list: &'a Programs, others: &[&'a Programs]) -> Vec<&'a ProgramRule> {
    let known = |rule: &ProgramRule| {
        let mut others = others.iter().flat_map(|list| list.iter());
        others.any(|other| match (&other.program, &other.args) {
            (ProgramPattern::Any, None) => true,
            (_, None) => program_key(other) == program_key(rule),
            (_, Some(_)) => program_key(other) == program_key(rule) && args_key(other) == args_key(rule),
        })
    };
    list.iter().filter(|rule| !known(rule)).collect()
}

fn program_key(rule: &ProgramRule) -> Vec<Vec<u8>> {
    let mut pieces = Vec::new();
    rule.program.pieces(|piece| pieces.push(piece.to_vec()));
    pieces
}

fn args_key(rule: &ProgramRule) -> Option<Vec<Vec<u8>>> {
    rule.args.as_ref().map(|args| {
        let mut pieces = Vec::new();
        args.pieces(|piece| pieces.push(piece.to_vec()));
        pieces
    })
}

fn destination_key(rule: &NetworkRule) -> String {
    rule.to.to_string()
}

/// Whether one rule of a policy allows all that `to` names. What only an explicit rule opens, a wider one does not.
fn is_open(to: &Destination, policy: &Policy) -> bool {
    let Some(cover) = policy.network.allow.covering(to) else { return false };
    match (&to.host, &cover.to.host) {
        (own, other) if own == other => true,
        (Host::Name(name), _) => name.as_str() != HOST_NAME,
        (Host::Below(_), _) => true,
        (Host::Subnet(_), Host::Any) => false,
        (Host::Subnet(subnet), _) => Reserved::of(subnet.address()).is_none(),
        (Host::Any, _) => true,
    }
}

/// What becomes of a deed of this tier that rules allow.
fn passes(policy: &Policy, tier: u8, for_good: bool) -> Effect {
    policy.tiers.as_ref().map_or(Effect::Allow, |tiers| tiers.answer(tier, for_good))
}
