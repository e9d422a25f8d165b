//! The view as a list of mount steps. Data only; `sandbox::mounts` carries the steps out in order.
//!
//! The root is an empty tmpfs; what the policy grants is bound into it, read-only or writable, shallow paths first, so
//! that a deeper grant lies on top of the tree around it. Denied names that exist are covered last.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::host::HostFacts;
use crate::policy::{FileRules, GuardKind, NetworkMode, Policy, Root};

/// What a box sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct View {
    /// In the order they are carried out.
    pub steps: Vec<Step>,
}

/// A path on the host; in the view it usually appears under the same name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct HostPath(pub PathBuf);

/// One step. Paths named `at` are in the view.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum Step {
    /// A tree of the host appears.
    Bind {
        /// Where it is outside.
        from: HostPath,
        /// Where it appears.
        at: PathBuf,
        /// Whether it can be changed.
        writable: bool,
    },
    /// An empty file system that ends with the box.
    Private {
        /// Where.
        at: PathBuf,
        /// Mode of its top directory.
        mode: u32,
    },
    /// A symbolic link.
    Link {
        /// Where.
        at: PathBuf,
        /// Its text.
        text: PathBuf,
    },
    /// `/dev`: the harmless devices, own terminals, own shared memory.
    Devices,
    /// `/proc` of the box's own process namespace, read-only: root in the box is root to the kernel's files, whatever the
    /// capabilities, and could write to some and set the mode and owner of all, for everybody.
    Processes,
    /// A file with this text, that cannot be changed, in the place of a file or a link.
    Text {
        /// Where.
        at: PathBuf,
        /// What is in it.
        text: String,
    },
    /// A directory that cannot be changed, with the socket at which agentbox listens for what programs say of themselves.
    Annotate {
        /// Where.
        at: PathBuf,
        /// agentbox's own executable, if it is to appear beside it.
        program: Option<HostPath>,
    },
    /// What the view shows there cannot be changed.
    ReadOnly {
        /// Where; passed over if it is not there.
        at: PathBuf,
    },
    /// A name that exists is covered by something empty that nobody may open.
    Mask {
        /// Where.
        at: PathBuf,
    },
}

/// Parts of `/proc` that show root the whole machine.
const PROC_HIDDEN: [&str; 7] = ["kcore", "kmsg", "keys", "timer_list", "sched_debug", "kallsyms", "slabinfo"];

/// Works out the view of a policy.
pub fn view(policy: &Policy, host: &HostFacts, annotate: &Path) -> View {
    let files = &policy.files;
    let mut steps = grants(files);
    steps.extend(sockets(policy));
    if policy.network.mode == NetworkMode::Host
        && let Some(real) = host.resolv_conf.as_ref().map(|file| &file.path).filter(|path| !path.starts_with("/etc"))
    {
        steps.push(Step::Bind { from: HostPath(real.clone()), at: real.clone(), writable: false });
    }
    steps.push(Step::Devices);
    steps.push(Step::Processes);
    steps.extend(own_resolver(policy, host));
    steps.extend(annotations(policy, host, annotate));
    if host.uid == 0 {
        steps.extend(PROC_HIDDEN.iter().map(|name| Step::Mask { at: Path::new("/proc").join(name) }));
    }
    steps.extend(read_only(files));
    steps.extend(masks(files));
    View { steps }
}

/// The socket in its directory.
pub const SOCKET: &str = "annotate.sock";
/// agentbox's executable beside it.
pub const PROGRAM: &str = "agentbox";

/// Where agentbox listens in the view of a policy. Where a tree of the host lies over the usual place nothing can be made
/// there; `/dev` is the box's own in every view.
pub(super) fn annotate(policy: &Policy) -> &'static Path {
    let (usual, other) = (Path::new("/run/agentbox"), Path::new("/dev/agentbox"));
    let files = &policy.files;
    let shown = files.read.iter().chain(&files.write).filter(|root| root.exists && usual.starts_with(&root.path));
    let private = files.private.iter().filter(|root| usual.starts_with(&root.path));
    let depth = |root: &Root| root.path.components().count();
    if shown.map(depth).max() > private.map(depth).max() { other } else { usual }
}

/// The socket, and agentbox's executable beside it: by a link where the box sees it anyway and cannot change it, as that is
/// made faster than a mount.
fn annotations(policy: &Policy, host: &HostFacts, at: &Path) -> impl Iterator<Item = Step> {
    let files = &policy.files;
    let shown = |program: &PathBuf| in_a_tree(files, program) && !files.is_writable(program);
    let (link, program) = match host.program.clone() {
        Some(program) if shown(&program) => (Some(Step::Link { at: at.join(PROGRAM), text: program }), None),
        program => (None, program.map(HostPath)),
    };
    link.into_iter().chain([Step::Annotate { at: at.into(), program }])
}

/// Where libc reads who knows names.
pub(super) const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Names are asked of the box's own resolver: libc is told so in the place of the host's file. Where there is none, it asks
/// the loopback anyway.
fn own_resolver(policy: &Policy, host: &HostFacts) -> Option<Step> {
    let file = host.resolv_conf.as_ref().filter(|_| policy.network.mode == NetworkMode::Rules)?;
    Some(Step::Text { at: RESOLV_CONF.into(), text: format!("nameserver 127.0.0.1\n{}", file.habits) })
}

/// Steps that show the sockets that may be connected to, where no granted tree does. A name that leads over a link is shown
/// as one.
fn sockets(policy: &Policy) -> impl Iterator<Item = Step> {
    let shown = policy.network.unix.iter().filter(|socket| socket.exists);
    shown.flat_map(move |socket| {
        let path = &socket.path;
        let bind = (!in_a_tree(&policy.files, path)).then(|| Step::Bind {
            from: HostPath(path.clone()),
            at: path.clone(),
            writable: false,
        });
        let link = socket.link.iter().map(|at| Step::Link { at: at.clone(), text: path.clone() });
        bind.into_iter().chain(link)
    })
}

/// Whether a granted tree of the host shows the path.
fn in_a_tree(files: &FileRules, path: &Path) -> bool {
    let holding =
        files.read.iter().chain(&files.write).chain(&files.private).filter(|root| path.starts_with(&root.path));
    holding
        .max_by_key(|root| root.path.components().count())
        .is_some_and(|nearest| nearest.exists && !files.private.iter().any(|private| private.path == nearest.path))
}

/// One step for each path that must not be changed and that a writable tree would show as such.
fn read_only(files: &FileRules) -> impl Iterator<Item = Step> {
    let paths = files.guards.of(GuardKind::DenyWrite).iter().flat_map(|guard| guard.pattern.exacts());
    let shown = paths.filter(|path| files.is_writable(path) || files.writable().any(|tree| tree.starts_with(path)));
    shown.map(|path| Step::ReadOnly { at: path.into() })
}

/// One step for each path that must not be read; one that may still be written to cannot be covered.
fn masks(files: &FileRules) -> impl Iterator<Item = Step> {
    let denied = files.guards.of(GuardKind::Deny).iter().flat_map(|guard| guard.pattern.exacts());
    let unread = files.guards.of(GuardKind::DenyRead).iter().flat_map(|guard| guard.pattern.exacts());
    denied.chain(unread.filter(|path| !files.may_be_written(path))).map(|path| Step::Mask { at: path.into() })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Grant {
    Read,
    Write,
    Private,
}

/// One step for each granted tree that differs from the tree around it; shallow first.
fn grants(files: &FileRules) -> Vec<Step> {
    let mut trees: BTreeMap<&Path, Grant> = BTreeMap::new();
    let shown = |root: &&Root| root.exists;
    trees.extend(files.read.iter().filter(shown).map(|root| (root.path.as_path(), Grant::Read)));
    trees.extend(files.private.iter().map(|root| (root.path.as_path(), Grant::Private)));
    trees.extend(files.write.iter().filter(shown).map(|root| (root.path.as_path(), Grant::Write)));

    let mut sorted: Vec<_> = trees.iter().map(|(path, grant)| (*path, *grant)).collect();
    sorted.sort_by_key(|(path, _)| path.components().count());
    let mut steps: Vec<Step> =
        sorted.iter().filter(|tree| !covered(&trees, tree)).map(|(path, grant)| step(path, *grant)).collect();
    let roots = files.read.iter().chain(&files.write).filter(shown);
    steps.extend(roots.filter_map(|root| {
        let at = root.link.clone()?;
        Some(Step::Link { at, text: root.path.clone() })
    }));
    steps
}

/// Whether the nearest granted tree above grants the same and shows this one already.
fn covered(trees: &BTreeMap<&Path, Grant>, (path, grant): &(&Path, Grant)) -> bool {
    let above = path.ancestors().skip(1).find_map(|ancestor| trees.get(ancestor));
    *grant != Grant::Private && above == Some(grant)
}

fn step(path: &Path, grant: Grant) -> Step {
    let at = path.to_path_buf();
    match grant {
        Grant::Read => Step::Bind { from: HostPath(at.clone()), at, writable: false },
        Grant::Write => Step::Bind { from: HostPath(at.clone()), at, writable: true },
        // Everybody's directories keep the sticky bit that programs expect of them.
        Grant::Private if path.ends_with("tmp") => Step::Private { at, mode: 0o1777 },
        Grant::Private => Step::Private { at, mode: 0o700 },
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind { at, writable: false, .. } => write!(f, "read     {}", at.display()),
            Self::Bind { at, writable: true, .. } => write!(f, "write    {}", at.display()),
            Self::Private { at, .. } => write!(f, "private  {}", at.display()),
            Self::Link { at, text } => write!(f, "link     {} -> {}", at.display(), text.display()),
            Self::Devices => write!(f, "devices  /dev"),
            Self::Processes => write!(f, "own      /proc, read-only"),
            Self::Text { at, .. } => write!(f, "text     {}", at.display()),
            Self::Annotate { at, .. } => write!(f, "annotate {}", at.display()),
            Self::ReadOnly { at } => write!(f, "keep     {}", at.display()),
            Self::Mask { at } => write!(f, "mask     {}", at.display()),
        }
    }
}
