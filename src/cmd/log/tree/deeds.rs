//! What processes did, in a word and a few names each.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::audit::brief::Brief;
use crate::audit::text::{shorten, target};
use crate::event::{Access, Endpoint, FileOp, MoveOp};

/// How many names of each kind of deed are kept for a process.
const NAMES: usize = 4;
/// The longest name of what something was done to.
const NAME: usize = 80;

/// What kind of thing was done, in the order in which it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Deed {
    Killed,
    Denied,
    Created,
    Wrote,
    Deleted,
    Moved,
    Attributes,
    Reached,
    Resolved,
    Visited,
    Bound,
    Signalled,
    Read,
    Failed,
}

impl Deed {
    pub fn word(self) -> &'static str {
        match self {
            Self::Killed => "KILLED",
            Self::Denied => "DENIED",
            Self::Created => "created",
            Self::Wrote => "wrote",
            Self::Deleted => "deleted",
            Self::Moved => "moved",
            Self::Attributes => "marked",
            Self::Reached => "reached",
            Self::Resolved => "looked up",
            Self::Visited => "visited by",
            Self::Bound => "bound",
            Self::Signalled => "sent",
            Self::Read => "read",
            Self::Failed => "failed",
        }
    }

    /// What an access does when it is done; `None` for the start of a program, which is told otherwise, and for what
    /// leaves no trace.
    fn of(access: &Access) -> Option<Self> {
        Some(match access {
            Access::File { op, .. } => match op {
                FileOp::Read => Self::Read,
                FileOp::Write | FileOp::Truncate => Self::Wrote,
                FileOp::Create | FileOp::Mkdir | FileOp::Mknod | FileOp::Symlink => Self::Created,
                FileOp::Unlink | FileOp::Rmdir => Self::Deleted,
                FileOp::Chmod | FileOp::Chown | FileOp::Utime | FileOp::Xattr => Self::Attributes,
            },
            Access::Move { op: MoveOp::Link, .. } => Self::Created,
            Access::Move { op: MoveOp::Rename | MoveOp::Exchange, .. } => Self::Moved,
            Access::Connect { to: Endpoint::Unspecified | Endpoint::Netlink } => return None,
            Access::Connect { .. } | Access::Send { .. } => Self::Reached,
            Access::Resolve(_) => Self::Resolved,
            Access::Accept(_) => Self::Visited,
            Access::Bind { .. } => Self::Bound,
            Access::Signal(_) => Self::Signalled,
            Access::Exec(_) | Access::Route { .. } | Access::Call { .. } => return None,
        })
    }
}

/// Names, each as often as it came; the first few are kept.
#[derive(Debug, Default)]
pub(super) struct Names {
    kept: Vec<(String, u64)>,
    /// How often others came.
    others: u64,
}

impl Names {
    fn add(&mut self, name: String) {
        let full = self.kept.len() >= NAMES;
        match self.kept.iter_mut().find(|(kept, _)| *kept == name) {
            Some((_, count)) => *count += 1,
            None if full => self.others += 1,
            None => self.kept.push((name, 1)),
        }
    }

    fn count(&self) -> u64 {
        self.others + self.kept.iter().map(|(_, count)| count).sum::<u64>()
    }

    pub fn words(&self) -> String {
        let times = |(name, count): &(String, u64)| match count {
            1 => name.clone(),
            count => format!("{name} ×{count}"),
        };
        let mut words: Vec<String> = self.kept.iter().map(times).collect();
        words.extend((self.others > 0).then(|| format!("and {} more", self.others)));
        words.join(", ")
    }

    fn json(&self) -> Value {
        let named: Map<String, Value> = self.kept.iter().map(|(name, count)| (name.clone(), (*count).into())).collect();
        json!({"count": self.count(), "named": named, "others": self.others})
    }
}

/// What was done, by kind.
pub(super) type Deeds = BTreeMap<Deed, Names>;

/// Adds one.
pub(super) fn note(deeds: &mut Deeds, done: Option<(Deed, String)>) {
    if let Some((deed, name)) = done {
        deeds.entry(deed).or_default().add(name);
    }
}

/// Tells what came of a decision, in a word and a name.
pub(super) fn deed(brief: &Brief<'_>, access: &Access, workdir: Option<&Path>) -> Option<(Deed, String)> {
    if let Access::File { at, .. } = access
        && is_plain_device(at.path.as_path())
    {
        return None;
    }
    let name = || shorten(&name(access, workdir), NAME);
    let told = || format!("{} {}", brief.op.name(), name());
    match (brief.denied(), brief.done()) {
        (true, _) if brief.outcome == "killed" => Some((Deed::Killed, told())),
        (true, _) => Some((Deed::Denied, told())),
        // A program that looks for a file that is not there has done nothing.
        (_, false) if matches!(&*brief.outcome, "ENOENT" | "EEXIST" | "gone") => None,
        (_, false) => Some((Deed::Failed, format!("{} ({})", told(), brief.outcome))),
        (_, true) => Deed::of(access).map(|deed| (deed, name())),
    }
}

/// Whether what is written there goes nowhere, or to the terminal: nobody looks for that in a tree.
fn is_plain_device(path: &Path) -> bool {
    let plain = ["/dev/null", "/dev/zero", "/dev/full", "/dev/tty", "/dev/pts", "/dev/ptmx"];
    plain.iter().any(|device| path.starts_with(device))
}

/// A target by the shortest name that is still plain: paths from where the run started.
fn name(access: &Access, workdir: Option<&Path>) -> String {
    let near = |path: &Path| {
        let inner = workdir.and_then(|workdir| path.strip_prefix(workdir).ok());
        let shown = inner.filter(|inner| !inner.as_os_str().is_empty()).unwrap_or(path);
        shown.to_string_lossy().into_owned()
    };
    match access {
        Access::File { at, .. } => near(at.path.as_path()),
        Access::Move { op: MoveOp::Link, to, .. } => near(to.path.as_path()),
        Access::Move { from, to, .. } => format!("{} -> {}", near(from.path.as_path()), near(to.path.as_path())),
        other => target(other),
    }
}

/// The same for programs.
pub(super) fn json(deeds: &Deeds) -> Value {
    deeds.iter().map(|(deed, names)| (deed.word().replace(' ', "_").to_lowercase(), names.json())).collect()
}
