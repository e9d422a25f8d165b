//! What is known beside who asks for what: the action that a question belongs to, what stood at a name before, what the
//! asker has read; and what a deed weighs. Nouns like their elders: plain values, serialisable, without logic.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::BoxPath;

/// Names an action: the session itself, or the n-th action of the run (`a7`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct ActionId(u32);

impl ActionId {
    /// What belongs to no action: the deeds of the agent's own process.
    pub const SESSION: Self = Self(0);

    /// The action of that number; 0 is the session.
    pub fn new(number: u32) -> Self {
        Self(number)
    }

    /// Its number.
    pub fn number(self) -> u32 {
        self.0
    }

    /// Reads what [`fmt::Display`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix('a') {
            Some(digits) => digits.parse().ok().filter(|&number| number > 0).map(Self),
            None => (text == "session").then_some(Self::SESSION),
        }
    }
}

impl fmt::Display for ActionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("session"),
            number => write!(f, "a{number}"),
        }
    }
}

impl Serialize for ActionId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ActionId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| D::Error::custom(format!("`{text}` names no action")))
    }
}

/// How it is known which action a deed belongs to, the strongest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Attribution {
    /// The process descends from the one that the action started: a mark that it cannot shed says so.
    Subtree,
    /// The process said that it begins an action, and has not said that it ended.
    Bracket,
    /// By nothing: the agent's own process, outside of any action.
    #[default]
    Session,
}

/// What is known of the asker's action when a question comes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Standing {
    /// Which action it is.
    #[serde(default)]
    pub action: ActionId,
    /// How that is known.
    #[serde(default)]
    pub attribution: Attribution,
    /// Other actions that the same process has open: what it does may belong to any of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shared: Vec<ActionId>,
    /// Labels of the secrets that it may have read.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub taint: Labels,
    /// What the action has destroyed already.
    #[serde(default, skip_serializing_if = "Losses::is_none")]
    pub so_far: Losses,
    /// What all actions of the run have.
    #[serde(default, skip_serializing_if = "Losses::is_none")]
    pub in_run: Losses,
    /// What would be gone if the process went on as it has begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound: Option<Arc<Bound>>,
}

/// Labels of secrets, each once, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Labels(Vec<Arc<str>>);

impl Labels {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<str>> {
        self.0.iter()
    }

    /// Adds one; false if it was there.
    pub fn add(&mut self, label: &Arc<str>) -> bool {
        match self.0.binary_search(label) {
            Ok(_) => false,
            Err(at) => {
                self.0.insert(at, Arc::clone(label));
                true
            }
        }
    }

    /// Adds all of `others`.
    pub fn extend(&mut self, others: &Self) {
        others.iter().for_each(|label| {
            self.add(label);
        });
    }
}

impl<const N: usize> From<[&str; N]> for Labels {
    fn from(labels: [&str; N]) -> Self {
        let mut all = Self::default();
        labels.into_iter().for_each(|label| {
            all.add(&label.into());
        });
        all
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

/// What an action has destroyed: what can be made again (build output, caches) is not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Losses {
    /// Files that were deleted or replaced.
    pub files: u64,
    /// What they and those that were opened for writing held.
    pub bytes: u64,
}

impl Losses {
    /// Whether it is nothing.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// What lies below the directory that a process works its way through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// The directory.
    pub root: BoxPath,
    /// Files and directories below it.
    pub entries: u64,
    /// The files among them.
    pub files: u64,
    /// What these hold; absent if not all were looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// The files among these of which nothing is held elsewhere, or that were not looked at.
    pub unheld: u64,
    /// Whether there are more than were counted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
}

/// What stood at a name before it is changed or removed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Before {
    /// Its size.
    pub bytes: u64,
    /// What git knows of it; absent outside of work trees.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git: Option<GitState>,
    /// Whether what stood there before this run is to be had elsewhere, or nothing did: the file was made in this run,
    /// git held its content when the run first changed it, or it has another name.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub held: bool,
}

/// A file system and a file's number there.
pub type FileId = (u64, u64);

/// How a file stands with git: whether git could bring it back as it is.
///
/// Told from git's own notes in the work tree, which programs in the box may write: evidence about honest work, no proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GitState {
    /// Git holds its content.
    Clean,
    /// Git holds another content under its name, or none for sure.
    Modified,
    /// Git knows nothing of it.
    Untracked,
    /// Git was told to leave it out.
    Ignored,
}

/// Where a change takes place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Where {
    /// On a file system of the box alone, which vanishes with it.
    Private,
    /// Below the directory that the command started in.
    Workspace,
    /// Elsewhere in the user's home.
    Home,
    /// In some other tree that was granted.
    Elsewhere,
    /// In a directory of the system.
    System,
}

/// How far a deed reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub enum Reach {
    /// Nothing but reads of what was granted.
    #[default]
    B0,
    /// The workspace.
    B1,
    /// What else is the user's.
    B2,
    /// Beyond.
    B3,
}

/// Whether a deed can be undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub enum Reversibility {
    /// There is nothing to undo.
    #[default]
    R0,
    /// What was there before is held.
    R1,
    /// It can be made again.
    R2,
    /// It cannot.
    R3,
}

/// What a deed weighs: how far it reaches, whether it can be undone, and the tier that follows from the published table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Weight {
    /// How far it reaches.
    pub reach: Reach,
    /// Whether it can be undone.
    pub reversibility: Reversibility,
    /// 1 to 10; 0 where nothing was weighed.
    pub tier: u8,
    /// Where it takes place, if it changes files.
    pub place: Option<Where>,
    /// What kind of deed it is, as far as the table tells kinds apart.
    pub kind: Kind,
    /// Labels of the secrets that are read by it.
    pub secrets: Labels,
    /// Labels that go with a file to another name, by which it would not be known for what it is.
    pub carried: Labels,
}

/// The kinds of deed that the table of tiers tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// It reads, starts a program, or talks to what is in the box.
    #[default]
    Plain,
    /// It changes files: the table has a tier for each reach and reversibility.
    Change,
    /// It reads a secret.
    SecretRead,
    /// It changes what runs later, or what guards the person.
    Persistence,
    /// It sends to a destination that a rule lists.
    Listed,
    /// It sends to any other.
    Unlisted,
    /// The same after a secret was read.
    ListedTainted,
    /// The same after a secret was read.
    UnlistedTainted,
    /// It talks to a service that acts with the person's rights.
    Authority,
    /// It signals a process of another action.
    Signal,
}

/// What an action, or a run, has done: counted from what was let through.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Effects {
    /// Programs that were started.
    #[serde(skip_serializing_if = "is_zero")]
    pub programs: u64,
    /// What became of files.
    #[serde(skip_serializing_if = "Files::is_empty")]
    pub files: Files,
    /// How often a secret was opened, by label.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<Arc<str>, u64>,
    /// Changes to what runs later, or to what guards the person.
    #[serde(skip_serializing_if = "is_zero")]
    pub persistence: u64,
    /// Connections to services that act with the person's rights.
    #[serde(skip_serializing_if = "is_zero")]
    pub authority: u64,
    /// Signals to processes of other actions.
    #[serde(skip_serializing_if = "is_zero")]
    pub signals: u64,
    /// Connections and datagrams to the outside.
    #[serde(skip_serializing_if = "is_zero")]
    pub connections: u64,
    /// Those of them that were made after a secret was read.
    #[serde(skip_serializing_if = "is_zero")]
    pub tainted_connections: u64,
    /// Names that were asked for.
    #[serde(skip_serializing_if = "is_zero")]
    pub names: u64,
}

/// What became of files. On the box's own file systems, which vanish with it, nothing is counted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Files {
    /// Files, links and other names that were made.
    #[serde(skip_serializing_if = "is_zero")]
    pub created: u64,
    /// Files that were there and were opened for writing or cut, each once.
    #[serde(skip_serializing_if = "is_zero")]
    pub changed: u64,
    /// Names of files that were removed.
    #[serde(skip_serializing_if = "is_zero")]
    pub deleted: u64,
    /// Files in whose place another was moved.
    #[serde(skip_serializing_if = "is_zero")]
    pub replaced: u64,
    /// Names that were moved.
    #[serde(skip_serializing_if = "is_zero")]
    pub moved: u64,
    /// Directories that were made.
    #[serde(skip_serializing_if = "is_zero")]
    pub directories_made: u64,
    /// Directories that were removed.
    #[serde(skip_serializing_if = "is_zero")]
    pub directories_removed: u64,
    /// Changes of modes, owners, times and attributes, as far as they stop.
    #[serde(skip_serializing_if = "is_zero")]
    pub attributes: u64,
    /// What the files that were changed, deleted or replaced held.
    #[serde(skip_serializing_if = "is_zero")]
    pub bytes_lost: u64,
    /// Those of the files that were changed, deleted or replaced of which nothing is held elsewhere.
    #[serde(skip_serializing_if = "is_zero")]
    pub unheld: u64,
    /// All of this by place.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub places: BTreeMap<Where, u64>,
    /// The files that were changed, deleted or replaced, by what git knew of them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub git: BTreeMap<GitState, u64>,
}

impl Files {
    /// Whether nothing became of any.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// What a process says of itself. Never believed: it is kept beside what was seen.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Claim {
    /// The tool that it says it uses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// With which parameters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub params: Option<serde_json::Value>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// As part of which plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// Anything else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// The action that it says this one belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// How it says the action came out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
}
