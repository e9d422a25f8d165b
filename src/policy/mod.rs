//! The policy: what a run may do, checked and immutable, every rule with its origin.
//!
//! `load` finds YAML text (`file`), profiles and flags, and `build` turns them into a [`Policy`]; `rules` holds the
//! matcher for names, `programs` the one for programs, `network` those for hosts; `decide` answers an
//! [`Event`](crate::event::Event) from the policy alone, and `fix` words what would change the answer; `diff` says what
//! one policy permits more and less than another. Only `load` and `trust` read files, and `real` looks at the file system;
//! nothing reads the environment.

mod build;
pub mod cases;
pub mod decide;
pub mod diff;
pub mod env;
pub mod file;
pub mod fix;
mod glob;
mod index;
mod launchers;
pub mod load;
pub mod network;
mod options;
pub mod programs;
mod real;
mod review;
pub mod rules;
mod shell;
pub mod tiers;
pub mod trust;
pub mod walls;
mod worktree;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::event::{Export, Level, RuleId};

pub use decide::{decide, kept_from_running, remedy, suggest};
pub use file::{At, Exception, NetworkMode};
pub use fix::Fix;
pub use index::Guards;
use index::Trees;
pub use load::{LoadError, Loaded, Request, World, load};
pub use network::{Network, Publish};
pub use programs::{ProgramPattern, ProgramRule, Programs};
pub use rules::Pattern;
use rules::Probe;
pub use tiers::Tiers;

/// What a run may do.
///
/// All paths are absolute and, where they exist, canonical; all patterns are compiled. Later rooms read it and never
/// change it: a grant during a run makes a new one.
#[derive(Debug, Clone)]
pub struct Policy {
    /// What to call it: the top file or profile, such as `default.yaml`.
    pub name: Arc<str>,
    /// SHA-256 of the normalised policy, hexadecimal: equal digests decide alike.
    pub digest: String,
    /// The directory that relative paths start from, and where the command starts.
    pub workdir: PathBuf,
    /// The user's home as the box sees it.
    pub home: PathBuf,
    /// Trees and patterns.
    pub files: FileRules,
    /// Programs.
    pub exec: ExecRules,
    /// Variables, already worked out: what the command gets.
    pub env: Environment,
    /// What may be reached, and from where it is reached.
    pub network: Network,
    /// How much is recorded.
    pub audit: Level,
    /// What the run is exported as while it goes on.
    pub export: Export,
    /// What the record is signed with, where the policy says so.
    pub audit_key: Option<AuditKey>,
    /// Names that hold secrets, each with its label.
    pub secrets: Guards,
    /// Which deeds pass, by what they weigh; `None` lets all pass that rules allow.
    pub tiers: Option<Tiers>,
}

/// `audit.key`: the file of the private key that signs the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditKey {
    /// The file.
    pub path: PathBuf,
    /// Where the policy says so.
    pub at: At,
}

/// File rules. Guards go before grants; among `read`, `write` and `private` the longest path that contains the name decides.
#[derive(Debug, Clone, Default)]
pub struct FileRules {
    /// Trees that may be read.
    pub read: Vec<Root>,
    /// Trees that may be read and changed.
    pub write: Vec<Root>,
    /// Directories that start empty, belong to this run alone and vanish with it; readable and writable.
    pub private: Vec<Root>,
    /// Names that are kept from something, inside any tree.
    pub guards: Guards,
    /// The rule to name when nothing grants an access.
    pub otherwise: Option<RuleId>,
    /// The trees by path.
    trees: Trees,
}

impl FileRules {
    /// Takes the rules as they are to stay: their lists are filed for looking up.
    pub fn new([read, write, private]: [Vec<Root>; 3], guards: Guards, otherwise: Option<RuleId>) -> Self {
        let trees = Trees::new(&write, &private, &read);
        Self { read, write, private, guards, otherwise, trees }
    }

    /// Whether the trees let the name at `path` be changed, whatever guards say.
    pub fn is_writable(&self, path: &Path) -> bool {
        decide::is_writable(self, path)
    }

    /// Whether what stands at `path` outside is what stands there in the box's view.
    pub fn shows(&self, path: &Path) -> bool {
        decide::shows(self, path)
    }

    /// Whether the trees let the name at `path` be changed, and no rule against that closes it.
    pub fn may_be_written(&self, path: &Path) -> bool {
        let closes = |guard: &Guard| matches!(guard.kind, GuardKind::Deny | GuardKind::DenyWrite);
        self.is_writable(path) && self.guards.first(&Probe::new(path), closes).is_none()
    }

    /// The tops of all trees that can be changed.
    pub fn writable(&self) -> impl Iterator<Item = &Path> {
        self.write.iter().chain(&self.private).map(|root| root.path.as_path())
    }
}

/// A granted tree.
#[derive(Debug, Clone)]
pub struct Root {
    /// Its top: absolute, and canonical if it exists.
    pub path: PathBuf,
    /// Where it was granted.
    pub rule: RuleId,
    /// The path as granted, when that is a symbolic link to `path`: the view shows it as a link. For a socket also when the
    /// way to it leads over one.
    pub link: Option<PathBuf>,
    /// Whether it existed when the policy was loaded; one that did not is not shown and grants only inside other trees.
    pub exists: bool,
}

/// What a guard keeps a name from, in the order in which guards decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum GuardKind {
    /// Everything.
    Deny,
    /// Being read, run, moved or linked.
    DenyRead,
    /// Every change: to what it holds, to the name, to its mode, owner, times and attributes.
    DenyWrite,
    /// Changes to what it holds and to the name: persistence and secrets.
    Protect,
    /// Nothing: who opens it is tainted by its label. Never among the guards of a policy, but in a list of its own.
    Secret,
}

impl GuardKind {
    /// The key of its list in a policy file.
    pub fn key(self) -> &'static str {
        match self {
            Self::Deny => "filesystem.deny",
            Self::DenyRead => "filesystem.deny_read",
            Self::DenyWrite => "filesystem.deny_write",
            Self::Protect => "filesystem.protect",
            Self::Secret => "filesystem.secrets",
        }
    }
}

/// A name or pattern that is kept from something.
#[derive(Debug, Clone)]
pub struct Guard {
    /// From what.
    pub kind: GuardKind,
    /// What it matches.
    pub pattern: Pattern,
    /// Where it stands.
    pub rule: RuleId,
    /// Its own words.
    pub message: Option<Arc<str>>,
    /// What is excepted from it.
    pub except: Exception,
    /// What to call a secret.
    pub label: Option<Arc<str>>,
}

/// Rules for programs.
#[derive(Debug, Clone, Default)]
pub struct ExecRules {
    /// What may run.
    pub allow: Programs,
    /// What a person must be asked about, whatever `allow` says.
    pub ask: Programs,
    /// What may not, whatever `ask` and `allow` say.
    pub deny: Programs,
    /// The rule to name when nothing allows a program.
    pub otherwise: Option<RuleId>,
    /// Whether rules beside the shipped ones tell programs apart: then it matters which script an interpreter opens in
    /// the end, and it is followed until it has.
    pub told_apart: bool,
}

/// The command's environment.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// Name and value, as the command gets them.
    pub vars: BTreeMap<std::ffi::OsString, std::ffi::OsString>,
    /// Names that were set outside and are not passed because they look like credentials.
    pub withheld: Vec<String>,
}

impl Policy {
    /// The same policy where there is no mount view: directories that start empty cannot be had, so none is granted.
    pub fn without_view(mut self) -> Self {
        let FileRules { read, write, guards, otherwise, .. } = self.files;
        self.files = FileRules::new([read, write, Vec::new()], guards, otherwise);
        self
    }
}

#[cfg(test)]
mod tests;
