//! The decision: a policy and an event in, a verdict out. Pure, so that an old log can be judged again by another policy.
//!
//! The order: deny rules, then those for reading or writing alone, then the protected list, then the grant with the longest
//! path, then no. What the box brings itself (its devices, a process's own harmless `/proc` files) is built in and named
//! as such.

mod network;
mod programs;

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use super::fix::Fix;
use super::index::Granted;
use super::rules::{Probe, contains};
use super::{Exception, FileRules, Guard, GuardKind, Policy, Root, tiers};
use crate::event::{Access, Effect, Endpoint, Event, FileOp, MoveOp, Place, Reason, RuleId, Stream, Verdict, Weight};
pub use programs::kept_from_running;

static DEVICES: LazyLock<RuleId> = LazyLock::new(|| RuleId::new("built-in", "dev"));
static PROCESSES: LazyLock<RuleId> = LazyLock::new(|| RuleId::new("built-in", "proc"));
static KERNEL: LazyLock<RuleId> = LazyLock::new(|| RuleId::new("built-in", "kernel files"));
static VIEW: LazyLock<RuleId> = LazyLock::new(|| RuleId::new("built-in", "view"));
static SOCKETS: LazyLock<RuleId> = LazyLock::new(|| RuleId::new("built-in", "own sockets"));
static SIGNALS: LazyLock<RuleId> = LazyLock::new(|| RuleId::new("built-in", "signals"));
static CALLS: LazyLock<RuleId> = LazyLock::new(|| RuleId::new("built-in", "calls"));
static STREAMS: LazyLock<RuleId> = LazyLock::new(|| RuleId::new("built-in", "standard streams"));
static NOTHING: LazyLock<RuleId> = LazyLock::new(|| RuleId::new("built-in", "nothing is granted"));

/// Answers `event` from `policy` alone: by its rules, and by what the deed weighs.
pub fn decide(policy: &Policy, event: &Event) -> Verdict {
    tiers::weighed(policy, event, by_rules(policy, event))
}

/// By its rules alone.
pub(super) fn by_rules(policy: &Policy, event: &Event) -> Verdict {
    match &event.access {
        Access::File { at: Place { stream: Some(stream), .. }, .. } => reopened(*stream),
        Access::File { op, at } => file(policy, Use::plain(*op), at),
        Access::Move { op, from, to } => two_names(policy, *op, from, to),
        Access::Exec(exec) => programs::program(policy, exec),
        Access::Connect { to } | Access::Send { to } => endpoint(policy, to, Wish::Reach),
        Access::Route { to } => endpoint(policy, to, Wish::Route),
        Access::Resolve(question) => network::resolve(policy, question),
        Access::Accept(visit) => network::accept(policy, visit),
        Access::Bind { at } => endpoint(policy, at, Wish::Bind),
        // Who is in the box may signal whom else is: the walls around it are the kernel's. `tiers` may say otherwise.
        Access::Signal(_) => granted(&SIGNALS),
        Access::Call { .. } => verdict(Effect::Deny, &CALLS, Reason::Unjudged, None),
    }
}

/// A file that was handed in was the person's choice, with the rights it was handed in with and no more.
fn reopened(stream: Stream) -> Verdict {
    match stream {
        Stream::WithinRights => granted(&STREAMS),
        Stream::BeyondRights => verdict(Effect::Deny, &STREAMS, Reason::NotGranted, None),
    }
}

fn verdict(effect: Effect, rule: &RuleId, reason: Reason, message: Option<&Arc<str>>) -> Verdict {
    Verdict { effect, rule: rule.clone(), reason, message: message.cloned(), weight: Weight::default() }
}

fn granted(rule: &RuleId) -> Verdict {
    verdict(Effect::Allow, rule, Reason::Granted, None)
}

/// The refusal by a guard that matches.
fn guarded(guard: &Guard) -> Verdict {
    let reason = if guard.kind == GuardKind::Protect { Reason::Protected } else { Reason::DenyRule };
    verdict(Effect::Deny, &guard.rule, reason, guard.message.as_ref())
}

/// The refusal by a guard of a name below.
fn guarded_below(guard: &Guard) -> Verdict {
    verdict(Effect::Deny, &guard.rule, Reason::AboveProtected, guard.message.as_ref())
}

fn is_denied(verdict: &Verdict) -> bool {
    verdict.effect == Effect::Deny
}

/// What is done to one name, as far as guards tell it apart.
#[derive(Clone, Copy)]
struct Use {
    op: FileOp,
    /// Whether it goes or comes by a rename or a link, so that what it holds could be read or changed under another name.
    moved: bool,
}

impl Use {
    fn plain(op: FileOp) -> Self {
        Self { op, moved: false }
    }

    fn moved(op: FileOp) -> Self {
        Self { op, moved: true }
    }
}

/// Judges one name.
fn file(policy: &Policy, by: Use, place: &Place) -> Verdict {
    let (files, op) = (&policy.files, by.op);
    let probe = Probe::new(place.path.as_path());
    if let Some(guard) = files.guards.first(&probe, |guard| forbids(files, guard, by, &probe, place)) {
        return guarded(guard);
    }
    // A symbolic link, or a file that points elsewhere as git's `.git` files do, stands for a directory.
    let points = match op {
        FileOp::Symlink => true,
        FileOp::Write | FileOp::Truncate | FileOp::Unlink => !place.directory,
        _ => false,
    };
    let own = place.own_repository && op != FileOp::Symlink;
    if points && let Some(guard) = above(files, &probe, Onto::Name, own) {
        return guarded_below(guard);
    }
    grant(policy, op, &probe)
}

/// Whether a guard that matches keeps the name from what is done to it.
fn forbids(files: &FileRules, guard: &Guard, by: Use, probe: &Probe, place: &Place) -> bool {
    match guard.kind {
        GuardKind::Deny => true,
        GuardKind::DenyRead => by.op == FileOp::Read || place.reads || by.moved,
        GuardKind::DenyWrite => by.op != FileOp::Read,
        GuardKind::Secret => false,
        GuardKind::Protect => {
            changes_what_counts(by.op, place) && !excepted(guard, probe, place) && !lifted(files, guard, probe)
        }
    }
}

/// Whether an operation is one that the protected list is there to stop.
///
/// It guards what a program of the person's will later run, obey or send: what a name holds and what stands there. Its
/// owner, its times and a mode that lets nobody new write to it put nothing there, and `deny_write` holds them where they
/// matter. Extended attributes are among what counts: an access control list lets others write.
fn changes_what_counts(op: FileOp, place: &Place) -> bool {
    match op {
        FileOp::Read | FileOp::Chown | FileOp::Utime => false,
        FileOp::Chmod => place.shares,
        FileOp::Write
        | FileOp::Create
        | FileOp::Truncate
        | FileOp::Mkdir
        | FileOp::Mknod
        | FileOp::Symlink
        | FileOp::Unlink
        | FileOp::Rmdir
        | FileOp::Xattr => true,
    }
}

fn excepted(guard: &Guard, probe: &Probe, place: &Place) -> bool {
    match guard.except {
        Exception::None => false,
        Exception::Examples => false,
        Exception::Samples => probe.bytes.ends_with(b".sample"),
        Exception::OwnRepository => place.own_repository,
    }
}

/// Whether somebody granted the protected name itself, and not just a tree that happens to hold it.
fn lifted(files: &FileRules, guard: &Guard, probe: &Probe) -> bool {
    let mut written = holding(files, probe).filter(|(_, granted)| matches!(granted, Granted::Write(_)));
    written.any(|(root, _)| guard.pattern.is_granted_by(&root.path))
}

/// What comes to stand at a name, as far as it matters to the names below it.
#[derive(Clone, Copy)]
enum Onto {
    /// A directory, with names in it.
    Directory,
    /// Anything else; a symbolic link can stand in for a directory.
    Name,
}

/// Finds the guard whose names would come or go with what stands at this place. What is the run's `own` needs no
/// protection from it.
fn above<'a>(files: &'a FileRules, probe: &Probe, onto: Onto, own: bool) -> Option<&'a Guard> {
    let counts = |guard: &Guard| guard.kind != GuardKind::Protect || !(own || lifted(files, guard, probe));
    match onto {
        Onto::Directory => files.guards.first_above(probe, counts),
        Onto::Name => files.guards.first_named_above(probe, counts),
    }
}

/// Judges a call with two names: each as a change, and directories also by what lies below them.
fn two_names(policy: &Policy, op: MoveOp, from: &Place, to: &Place) -> Verdict {
    // A hard link is a second name through which the first could be changed, so `from` counts as changed too.
    let first = file(policy, Use::moved(FileOp::Unlink), from);
    if is_denied(&first) {
        return first;
    }
    let second = file(policy, Use::moved(FileOp::Create), to);
    if is_denied(&second) {
        return second;
    }
    match carried(&policy.files, op, from, to) {
        Some(guard) => guarded_below(guard),
        None => second,
    }
}

/// Finds the guard around which the call would carry a directory or put a link.
fn carried<'a>(files: &'a FileRules, op: MoveOp, from: &Place, to: &Place) -> Option<&'a Guard> {
    let onto = if from.directory || (op == MoveOp::Exchange && to.directory) { Onto::Directory } else { Onto::Name };
    let (from_probe, to_probe) = (Probe::new(from.path.as_path()), Probe::new(to.path.as_path()));
    let away = match op {
        MoveOp::Link => None,
        // Git directories made in this run may go; nothing may come in their place.
        MoveOp::Rename if !from.directory || from.own_repository => None,
        MoveOp::Rename | MoveOp::Exchange => above(files, &from_probe, onto, false),
    };
    away.or_else(|| above(files, &to_probe, onto, false))
}

/// Answers from what the box brings, the trees, or the default.
fn grant(policy: &Policy, op: FileOp, probe: &Probe) -> Verdict {
    let path = probe.bytes;
    let reads = op == FileOp::Read;
    if !reads && (contains(b"/proc", path) || contains(b"/sys", path)) {
        let harmless = matches!(op, FileOp::Write | FileOp::Truncate) && is_harmless_proc(path);
        return if harmless { granted(&PROCESSES) } else { verdict(Effect::Deny, &KERNEL, Reason::KernelFile, None) };
    }
    let root = longest(&policy.files, probe);
    let named = root.is_some_and(|(root, _)| contains(b"/dev", bytes(&root.path)));
    if !named && is_own_device(op, path) {
        return granted(&DEVICES);
    }
    match root {
        Some((root, changes)) if reads || changes => granted(&root.rule),
        None if reads && (is_top(&policy.files, path) || is_agentbox(path)) => granted(&VIEW),
        _ => not_granted(policy.files.otherwise.as_ref()),
    }
}

fn not_granted(otherwise: Option<&RuleId>) -> Verdict {
    verdict(Effect::Deny, otherwise.unwrap_or(&NOTHING), Reason::NotGranted, None)
}

fn bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}

/// The granted trees that hold the path, the most specific first.
pub(super) fn holding<'a>(files: &'a FileRules, probe: &'a Probe) -> impl Iterator<Item = (&'a Root, Granted)> {
    let root = |granted| match granted {
        Granted::Write(at) => &files.write[at],
        Granted::Private(at) => &files.private[at],
        Granted::Read(at) => &files.read[at],
    };
    let found = files.trees.holding(probe).map(move |(prefix, granted)| (prefix, root(granted), granted));
    found.filter(|(prefix, root, _)| bytes(&root.path) == *prefix).map(|(_, root, granted)| (root, granted))
}

/// The most specific root that holds the path, and whether it may be changed there.
fn longest<'a>(files: &'a FileRules, probe: &'a Probe) -> Option<(&'a Root, bool)> {
    holding(files, probe).next().map(|(root, granted)| (root, !matches!(granted, Granted::Read(_))))
}

/// Whether the trees let the name at `path` be changed.
pub(super) fn is_writable(files: &FileRules, path: &Path) -> bool {
    longest(files, &Probe::new(path)).is_some_and(|(_, changes)| changes)
}

/// Whether what is at `path` belongs to the box alone and vanishes with it, or is nothing that lasts.
pub(super) fn is_private(policy: &Policy, path: &Path) -> bool {
    let path = bytes(path);
    match holding(&policy.files, &Probe::new(Path::new(std::ffi::OsStr::from_bytes(path)))).next() {
        Some((_, granted)) => matches!(granted, Granted::Private(_)),
        None => contains(b"/proc", path) || contains(b"/dev", path),
    }
}

/// Whether `path` is the workspace, the home, or a granted tree as a whole, or holds one.
pub(super) fn is_whole(policy: &Policy, path: &Path) -> bool {
    let roots = policy.files.write.iter().map(|root| root.path.as_path());
    let mut wholes = roots.chain([policy.workdir.as_path(), policy.home.as_path()]);
    wholes.any(|whole| contains(bytes(path), bytes(whole)))
}

/// Whether what stands at `path` outside is what stands there in the box's view: in a tree that is shown, or above one.
pub(super) fn shows(files: &FileRules, path: &Path) -> bool {
    match holding(files, &Probe::new(path)).next() {
        Some((root, Granted::Read(_) | Granted::Write(_))) if root.exists => true,
        _ => is_top(files, bytes(path)),
    }
}

/// Whether `path` is shown because something below it is, or is one of the box's own file systems.
fn is_top(files: &FileRules, path: &[u8]) -> bool {
    if contains(b"/proc", path) || contains(b"/dev", path) {
        return true;
    }
    let roots = files.read.iter().chain(&files.write).chain(&files.private);
    let mut shown = roots.filter(|root| root.exists).flat_map(|root| root.link.iter().chain([&root.path]));
    path == b"/" || path == b"/sys" || shown.any(|shown| contains(path, bytes(shown)))
}

/// Where agentbox listens in the view, and what is shown because of it.
fn is_agentbox(path: &[u8]) -> bool {
    path == b"/run" || contains(b"/run/agentbox", path)
}

/// The box's own devices: writing to them reaches nothing; their nodes are the host's and stay as they are.
fn is_own_device(op: FileOp, path: &[u8]) -> bool {
    let Some(name) = path.strip_prefix(b"/dev/") else { return false };
    match name {
        b"null" | b"zero" | b"full" | b"random" | b"urandom" | b"tty" | b"ptmx" => {
            matches!(op, FileOp::Read | FileOp::Write | FileOp::Truncate)
        }
        // File systems of this box alone.
        _ => name.starts_with(b"pts/") || name.starts_with(b"shm/"),
    }
}

/// Files under `/proc/N` through which a process sets nothing but its own name, how it is scheduled, dumped or killed, and
/// what is counted of its memory.
fn is_harmless_proc(path: &[u8]) -> bool {
    let number = |name: &[u8]| !name.is_empty() && name.iter().all(u8::is_ascii_digit);
    let mut names = path.split(|b| *b == b'/').skip(2);
    // init is nobody's to tune.
    if !names.next().is_some_and(|pid| number(pid) && pid != b"1") {
        return false;
    }
    let mut name = names.next();
    if name == Some(b"task") {
        if !names.next().is_some_and(number) {
            return false;
        }
        name = names.next();
    }
    const KNOWN: [&[u8]; 7] =
        [b"comm", b"oom_score_adj", b"oom_adj", b"coredump_filter", b"timerslack_ns", b"autogroup", b"clear_refs"];
    names.next().is_none() && name.is_some_and(|name| KNOWN.contains(&name))
}

/// What is to be done with an address.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wish {
    /// Connected or sent to.
    Reach,
    /// Asked the way to.
    Route,
    /// Taken.
    Bind,
}

/// Judges an address: outside by the rules of the network, inside always granted.
fn endpoint(policy: &Policy, endpoint: &Endpoint, wish: Wish) -> Verdict {
    let rule = &policy.network.rule;
    match (endpoint, wish) {
        (Endpoint::Inet { outside: false, .. }, _) => granted(rule),
        (Endpoint::Inet { address, transport, names, .. }, Wish::Reach) => {
            network::reach(policy, *address, *transport, names)
        }
        (Endpoint::Inet { address, transport, names, .. }, Wish::Route) => {
            network::route(policy, *address, *transport, names)
        }
        (Endpoint::Inet { .. }, Wish::Bind) => network::bind(policy),
        (Endpoint::Unix { path, .. }, Wish::Bind) => file(policy, Use::plain(FileOp::Mknod), &Place::of(path.clone())),
        (Endpoint::Unix { path, own }, _) => unix(policy, path.as_path(), *own),
        (Endpoint::Abstract { own: true, .. } | Endpoint::Unspecified | Endpoint::Netlink, _) => granted(&SOCKETS),
        (Endpoint::Abstract { own: false, .. }, Wish::Bind) => granted(&SOCKETS),
        (Endpoint::Abstract { own: false, .. } | Endpoint::Other { .. }, _) => {
            verdict(Effect::Deny, rule, Reason::NotGranted, None)
        }
    }
}

fn unix(policy: &Policy, path: &Path, own: bool) -> Verdict {
    // A socket is read from and written to.
    let talking = |guard: &Guard| guard.kind != GuardKind::Protect;
    if let Some(guard) = policy.files.guards.first(&Probe::new(path), talking) {
        return guarded(guard);
    }
    if own {
        return granted(&SOCKETS);
    }
    // A socket that was there before the run leads to a process outside the box.
    match policy.network.unix.iter().find(|socket| socket.path == path) {
        Some(socket) => granted(&socket.rule),
        None => verdict(Effect::Deny, &policy.network.rule, Reason::NotGranted, None),
    }
}

/// The smallest change to the command line, or failing that to the policy, that would allow what was denied.
pub fn suggest(policy: &Policy, event: &Event, verdict: &Verdict) -> Option<String> {
    remedy(policy, event, verdict).map(|fix| fix.to_string())
}

/// The same as a value.
pub fn remedy(policy: &Policy, event: &Event, verdict: &Verdict) -> Option<Fix> {
    if verdict.effect == Effect::Allow {
        return None;
    }
    match (verdict.reason, &event.access) {
        (Reason::DenyRule | Reason::AskRule, _) => Some(match verdict.rule.0.strip_prefix("command line ") {
            Some(flag) => Fix::WithoutFlag(flag.into()),
            None => Fix::WithoutRule(verdict.rule.clone()),
        }),
        (Reason::NotGranted | Reason::Protected, Access::File { op, at }) => grant_of(policy, verdict, *op, at),
        (Reason::NotGranted | Reason::Protected, Access::Move { from, to, .. }) => {
            let first = file(policy, Use::moved(FileOp::Unlink), from);
            if is_denied(&first) {
                grant_of(policy, verdict, FileOp::Unlink, from)
            } else {
                grant_of(policy, verdict, FileOp::Create, to)
            }
        }
        (Reason::NotGranted | Reason::Protected, Access::Bind { at: Endpoint::Unix { path, .. } }) => {
            let place = Place::of(path.clone());
            grant_of(policy, verdict, FileOp::Mknod, &place)
        }
        (Reason::NotGranted, Access::Connect { to: Endpoint::Unix { path, .. } }) => {
            Some(Fix::Unix(shown(policy, path.as_path())))
        }
        (Reason::NotGranted, Access::Exec(exec)) => Some(Fix::Program(exec.program.to_string())),
        (Reason::NotGranted | Reason::NoNetwork, access) => network::remedy(policy, access),
        (Reason::Tier | Reason::Answered, _) => policy.tiers.as_ref().map(|tiers| tiers.remedy(&verdict.weight)),
        _ => None,
    }
}

/// The grant of one name.
fn grant_of(policy: &Policy, verdict: &Verdict, op: FileOp, place: &Place) -> Option<Fix> {
    let path = place.path.as_path();
    if verdict.reason == Reason::Protected {
        let guard = policy.files.guards.iter().find(|g| g.rule == verdict.rule && !g.rule.0.starts_with("built-in"))?;
        let parent = path.parent().filter(|parent| guard.pattern.is_granted_by(parent));
        return Some(Fix::Write(shown(policy, parent.unwrap_or(path))));
    }
    match op {
        FileOp::Read => Some(Fix::Read(shown(policy, path))),
        FileOp::Write | FileOp::Truncate | FileOp::Chmod | FileOp::Chown | FileOp::Utime | FileOp::Xattr => {
            Some(Fix::Write(shown(policy, path)))
        }
        // A name comes and goes by a change to its directory.
        FileOp::Create | FileOp::Mkdir | FileOp::Mknod | FileOp::Symlink | FileOp::Unlink | FileOp::Rmdir => {
            let parent = path.parent()?;
            // What cannot be granted is not suggested: the root as a whole, and the directories that the box makes itself.
            let made = ["/", "/dev", "/proc", "/sys"].iter().any(|made| parent == Path::new(made));
            (!made).then(|| Fix::Write(shown(policy, parent)))
        }
    }
}

/// A path as one would write it in the working directory; empty for that itself.
fn shown(policy: &Policy, path: &Path) -> String {
    path.strip_prefix(&policy.workdir).unwrap_or(path).to_string_lossy().into_owned()
}
