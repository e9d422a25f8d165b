//! Which Landlock rights each tree gets. Data only; `sandbox::landlock` applies it.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::mounts;
use crate::host::HostFacts;
use crate::policy::{NetworkMode, Policy, Root};

/// The whole ruleset. What no rule grants, Landlock refuses, to the extent of its ABI.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rules {
    /// The interface version the rules are made for.
    pub abi: i32,
    /// Trees and what may be done below them.
    pub trees: Vec<Tree>,
    /// Whether TCP bind and connect are refused outright: where sockets of the host's network may be in the box. The
    /// supervisor carries out what is allowed, and is not confined.
    pub no_tcp: bool,
}

/// One tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tree {
    /// Its top, as the box sees it. One that is missing is passed over: a missing grant only tightens.
    pub path: PathBuf,
    /// What may be done.
    pub rights: Rights,
}

/// Sets of rights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rights {
    /// Directories may be listed.
    List,
    /// Files may be read and run, directories listed.
    Read,
    /// Device files may also be written to and controlled.
    Device,
    /// Everything.
    Write,
}

/// Works out the rules of a policy.
pub fn rules(policy: &Policy, host: &HostFacts, annotate: Option<&Path>, network: bool) -> Rules {
    // Wherever there is a view, agentbox listens in it.
    let view = annotate.is_some();
    let tree = |path: &str, rights| Tree { path: PathBuf::from(path), rights };
    let mut trees = vec![tree("/dev", Rights::Device), tree("/proc", Rights::Read)];
    if view {
        // All that can be listed in the view was put there by the plan.
        trees.push(tree("/", Rights::List));
        trees.push(tree("/dev/shm", Rights::Write));
        trees.push(tree("/dev/pts", Rights::Write));
    }
    trees.extend(annotate.map(|at| Tree { path: at.into(), rights: Rights::Read }));
    if view && policy.network.mode == NetworkMode::Rules && host.resolv_conf.is_some() {
        trees.push(tree(mounts::RESOLV_CONF, Rights::Read));
    }
    let files = &policy.files;
    let grant = |root: &Root, rights| Tree { path: root.path.clone(), rights };
    let mut granted: Vec<Tree> =
        files.write.iter().filter(|root| root.exists).map(|r| grant(r, Rights::Write)).collect();
    granted.extend(files.private.iter().map(|root| grant(root, Rights::Write)));
    granted.extend(files.read.iter().filter(|root| root.exists).map(|root| grant(root, Rights::Read)));
    granted.sort_by(|a, b| a.path.cmp(&b.path).then((b.rights as u8).cmp(&(a.rights as u8))));
    let mut held: HashMap<PathBuf, Rights> = trees.iter().map(|tree| (tree.path.clone(), tree.rights)).collect();
    for tree in granted {
        let mut above = tree.path.ancestors().filter_map(|path| held.get(path));
        if !above.any(|rights| rights.hold(tree.rights)) {
            held.insert(tree.path.clone(), tree.rights);
            trees.push(tree);
        }
    }
    let no_tcp = policy.network.mode == NetworkMode::Rules || (!network && !view);
    Rules { abi: host.landlock_abi, trees, no_tcp }
}

impl Rights {
    /// Whether a tree with these rights gives all that one below it is to get: rights reach down.
    fn hold(self, below: Self) -> bool {
        match self {
            Self::Write => true,
            Self::Read => below == Self::Read,
            Self::List | Self::Device => false,
        }
    }
}

/// What an ABI below 6 lacks.
pub fn lacks(abi: i32) -> &'static str {
    match abi {
        ..2 => "moves between directories, cutting files, TCP, device control, scopes",
        2 => "cutting files, TCP, device control, scopes",
        3 => "TCP, device control, scopes",
        4 => "device control, scopes",
        5 => "scopes for abstract sockets and signals",
        _ => "nothing",
    }
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::List => "list",
            Self::Read => "read",
            Self::Device => "device",
            Self::Write => "write",
        })
    }
}
