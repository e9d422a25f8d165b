//! From names, files and flags to a checked [`Policy`]: finds the policy, follows `extends`, and hands each file in turn to
//! [`Build`].
//!
//! Runs in agentbox before anything is forked. Of the process itself it knows only what [`World`] says, so that a test
//! can hand in any other.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::build::{Build, Own};
use super::file::{self, At, FileError, PolicyFile};
use super::network::{DestinationError, PublishError};
use super::real::Real;
use super::review::review;
use super::rules::{PatternError, plain};
use super::trust::{self, TrustError};
use super::{NetworkMode, Policy};
use crate::event::{Export, Level, RuleId};

/// The shipped profiles: name, YAML, and the same as JSON.
pub(crate) const SHIPPED: &[(&str, &str, &str)] = include!(concat!(std::env!("OUT_DIR"), "/shipped.rs"));

/// What a person asks for, flags and all.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Shipped profiles and policy files; empty: find one.
    pub policies: Vec<String>,
    /// Policies that stand in another file: what that is called and what they say. They add to the named ones.
    pub inline: Vec<(Arc<str>, PolicyFile)>,
    /// `--read`.
    pub read: Vec<PathBuf>,
    /// `--write`.
    pub write: Vec<PathBuf>,
    /// `--deny`.
    pub deny: Vec<String>,
    /// `--deny-read`.
    pub deny_read: Vec<String>,
    /// `--deny-write`.
    pub deny_write: Vec<String>,
    /// `--env`: a name, or a name, `=` and a value.
    pub env: Vec<String>,
    /// `--clean-env`.
    pub clean_env: bool,
    /// `--chdir`.
    pub chdir: Option<PathBuf>,
    /// `--net`.
    pub net: Option<NetworkMode>,
    /// `--net-allow`.
    pub net_allow: Vec<String>,
    /// `--net-deny`.
    pub net_deny: Vec<String>,
    /// `--publish`.
    pub publish: Vec<String>,
    /// `--net-unix`.
    pub unix: Vec<PathBuf>,
    /// `--audit-level`.
    pub audit: Option<Level>,
    /// `--export`.
    pub export: Option<Export>,
    /// Files that agentbox writes during the run and the command must not change.
    pub own: Vec<PathBuf>,
    /// `--key`: the file of a private key, which the command must not even read.
    pub key: Option<PathBuf>,
}

/// What loading knows of the process it runs in.
#[derive(Debug, Clone)]
pub struct World {
    /// The current directory.
    pub cwd: PathBuf,
    /// The user's home.
    pub home: PathBuf,
    /// agentbox's own state: `$XDG_STATE_HOME/agentbox`.
    pub state: PathBuf,
    /// The environment.
    pub vars: BTreeMap<OsString, OsString>,
}

/// A policy and what there is to say about how it was found.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The policy.
    pub policy: Policy,
    /// Lines for the person, such as a policy file that was found and is not trusted.
    pub notes: Vec<String>,
}

/// Why a text is no rule.
#[derive(Debug, thiserror::Error)]
pub enum RuleError {
    /// No name, pattern or program.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// No host with ports.
    #[error(transparent)]
    Destination(#[from] DestinationError),
    /// No published port.
    #[error(transparent)]
    Publish(#[from] PublishError),
}

/// Why there is no policy.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file that is no policy.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file that cannot be read.
    #[error("{}cannot read policy {file}", in_file(.at))]
    Read {
        /// The file that extends it, if one does.
        at: Option<At>,
        /// As the user named it.
        file: Arc<str>,
        /// Why.
        source: io::Error,
    },
    /// Not a regular file.
    #[error("{0}: a policy is a regular file")]
    NotAFile(Arc<str>),
    /// A profile that is not shipped.
    #[error("{}there is no profile `{name}`{}", in_file(.at), instead(.at, .name))]
    NoProfile {
        /// The file that extends it, if one does.
        at: Option<At>,
        /// Its name.
        name: String,
    },
    /// Files that extend each other.
    #[error("{at}: `extends` goes in a circle: {}", .chain.join(" → "))]
    Circle {
        /// Where it closes.
        at: At,
        /// The names along it.
        chain: Vec<String>,
    },
    /// A bad rule in a file.
    #[error("{at}: {key} `{text}`: {why}")]
    Rule {
        /// Where.
        at: At,
        /// Which list.
        key: &'static str,
        /// The rule.
        text: String,
        /// What is wrong with it.
        why: RuleError,
    },
    /// A bad rule in a flag.
    #[error("{flag} {text}: {why}")]
    Flag {
        /// Which flag.
        flag: &'static str,
        /// Its value.
        text: String,
        /// What is wrong with it.
        why: RuleError,
    },
    /// Rules at once with a mode that has none.
    #[error("{flag} and --net {mode} exclude each other: leave one of the two out")]
    NetFlags {
        /// Which flag.
        flag: &'static str,
        /// The mode.
        mode: &'static str,
    },
    /// A port of the host that would lead to two ports in the box.
    #[error(
        "{rule}: {host} is published by {other} too, and leads to port {port} in the box: leave one of the two out"
    )]
    PublishedTwice {
        /// The rule.
        rule: RuleId,
        /// The address on the host.
        host: std::net::SocketAddr,
        /// The rule before.
        other: RuleId,
        /// The port in the box that the rule before names.
        port: u16,
    },
    /// A granted path with wildcards.
    #[error(
        "{at}: {key} `{text}`: a grant is a plain path, wildcards are for `deny` and `protect`: name the directory"
    )]
    Wildcard {
        /// Where.
        at: At,
        /// Which list.
        key: &'static str,
        /// The rule.
        text: String,
    },
    /// A path that should be a socket.
    #[error("{rule}: {path} is no socket: name the socket file itself, each one by its own path")]
    NoSocket {
        /// The rule.
        rule: RuleId,
        /// The path as given.
        path: String,
    },
    /// A flag that names a path that is not there.
    #[error("{flag} {path}: there is no such file or directory: make it first, or leave the flag out")]
    Missing {
        /// Which flag.
        flag: &'static str,
        /// The path as given.
        path: String,
    },
    /// `--chdir` or the current directory is no directory.
    #[error("the working directory {0} is not a directory that can be entered")]
    Workdir(PathBuf),
    /// The working directory is too much to be writable without being named.
    #[error(
        "{at}: `.` would let the command change all of {workdir} ({what}): go into a project first{}",
        if workdir == "/" { String::new() } else { format!(", or say so with -w {workdir}") }
    )]
    TooWide {
        /// The rule that grants `.`.
        at: At,
        /// The working directory.
        workdir: String,
        /// What it is.
        what: String,
    },
    /// A grant of everything.
    #[error("{rule}: / as a whole cannot be granted: name the directories that are needed")]
    Whole {
        /// The rule.
        rule: RuleId,
    },
    /// A grant that would open the kernel's own files.
    #[error("{rule}: {path} lies in the kernel's own files, which cannot be granted for writing")]
    Kernel {
        /// The rule.
        rule: RuleId,
        /// The path.
        path: String,
    },
    /// A grant that would let the command change agentbox's state or its own policy.
    #[error("{rule}: {path} is {what}, which is never writable from inside: leave it out")]
    Own {
        /// The rule.
        rule: RuleId,
        /// The path.
        path: String,
        /// What it is.
        what: &'static str,
    },
    /// A grant and a denial of the same, said at once.
    #[error("{grant}: {path} is granted, and {denial} denies all of it: leave one of the two out")]
    Contradiction {
        /// The rule that grants, and where it stands.
        grant: String,
        /// The path.
        path: String,
        /// The rule that denies, and where it stands.
        denial: String,
    },
    /// A denial that leaves the command nowhere to start.
    #[error(
        "{rule}: `{text}` covers the working directory {workdir}, where the command starts: deny less, or start elsewhere with -C"
    )]
    WorkdirDenied {
        /// The rule, and where it stands.
        rule: String,
        /// Its pattern.
        text: String,
        /// The working directory.
        workdir: String,
    },
    /// `--env` without a name.
    #[error("--env {0}: a variable is written K or K=V")]
    Env(String),
    /// A file that a trusted file extends and that is not trusted itself.
    #[error("{at}: extends {file}, whose content is not trusted: read it, then run `agentbox trust {file}`")]
    Untrusted {
        /// Where.
        at: At,
        /// The file.
        file: String,
    },
    /// The record of trust cannot be used.
    #[error(transparent)]
    Trust(#[from] TrustError),
}

fn in_file(at: &Option<At>) -> String {
    at.as_ref().map(|at| format!("{at}: ")).unwrap_or_default()
}

fn as_file(name: &str) -> String {
    if is_file_name(name) { name.to_string() } else { format!("./{name}") }
}

/// What may have been meant by a name that no profile has; to other tools `-p` means ports.
fn instead(at: &Option<At>, name: &str) -> String {
    let is_port = |text: &str| text.parse::<u16>().is_ok();
    if at.is_none() && name.rsplit(':').next().is_some_and(is_port) {
        return format!("; to publish a port write --publish {name}");
    }
    format!("{}; for a file write {}", near_profile(name), as_file(name))
}

fn near_profile(name: &str) -> String {
    let near = SHIPPED.iter().map(|p| (strsim::jaro_winkler(name, p.0), p.0)).max_by(|a, b| a.0.total_cmp(&b.0));
    match near {
        Some((score, best)) if score > 0.75 => format!(": did you mean `{best}`?"),
        _ => format!(": there are {}", SHIPPED.iter().map(|p| p.0).collect::<Vec<_>>().join(", ")),
    }
}

/// A shipped profile as it is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Profile {
    /// Its name.
    pub name: &'static str,
    /// What it is for: the comment it starts with.
    pub about: &'static str,
    /// Its text.
    #[serde(skip)]
    pub yaml: &'static str,
}

/// The shipped profiles, by name.
pub fn profiles() -> impl Iterator<Item = Profile> {
    SHIPPED.iter().map(|(name, yaml, _)| {
        let about = yaml.lines().next().unwrap_or_default().trim_start_matches(['#', ' ']);
        Profile { name, about, yaml }
    })
}

/// Finds, reads and checks the policy that `request` asks for.
pub fn load(request: &Request, world: &World) -> Result<Loaded, LoadError> {
    let mut real = Real::default();
    let home = real.find(&plain(&world.home)).path;
    let workdir = workdir(request, world, &mut real)?;
    let mut reader = Reader { world, layers: Vec::new(), stack: Vec::new(), files: Vec::new(), pinned: false };
    let mut notes = reader.read_all(request, &workdir, &home)?;
    let Reader { layers, files, .. } = reader;
    let mut build = Build::new(&workdir, &home, &world.vars, real);
    for layer in &layers {
        build.layer(layer)?;
    }
    build.flags(request)?;
    build.check_workdir()?;
    notes.extend(build.grant_repository()?);
    build.guard_own(&world.state, "agentbox's own state", Own::Hidden("state"))?;
    build.guard_keys(request, world)?;
    for file in &files {
        build.guard_own(file, "the policy of this run", Own::Shown)?;
    }
    for file in &request.own {
        build.guard_own(&world.cwd.join(file), "the record of this run", Own::Shown)?;
    }
    build.label_secrets()?;
    let policy = build.finish(request, world)?;
    notes.extend(review(&policy.files, &policy.network, &policy.exec, &workdir, &layers)?);
    Ok(Loaded { policy, notes })
}

/// Reads and checks one policy file as far as that goes without a run: its text, what it extends, its rules. Returns lines
/// for the person.
pub fn check(path: &Path, world: &World) -> Result<Vec<String>, LoadError> {
    let shown: Arc<str> = path.to_string_lossy().into();
    let path = world.cwd.join(path);
    check_content(&path, &shown, &read_file(&path, &shown)?, world)
}

/// The same for content that was read already.
pub fn check_content(path: &Path, shown: &Arc<str>, content: &[u8], world: &World) -> Result<Vec<String>, LoadError> {
    let mut reader = Reader { world, layers: Vec::new(), stack: Vec::new(), files: Vec::new(), pinned: false };
    reader.bytes(path, shown, content)?;
    let (workdir, home) = (plain(&world.cwd), plain(&world.home));
    let mut build = Build::new(&workdir, &home, &world.vars, Real::default());
    reader.layers.iter().try_for_each(|layer| build.layer(layer))?;
    let (files, network, exec) = build.rules();
    review(&files, &network, &exec, &workdir, &reader.layers)
}

fn workdir(request: &Request, world: &World, real: &mut Real) -> Result<PathBuf, LoadError> {
    let asked = match &request.chdir {
        Some(dir) => world.cwd.join(dir),
        None => world.cwd.clone(),
    };
    match fs::canonicalize(&asked) {
        Ok(dir) if dir.is_dir() => {
            real.know(&dir);
            Ok(dir)
        }
        _ => Err(LoadError::Workdir(asked)),
    }
}

fn is_file_name(name: &str) -> bool {
    name.contains('/') || name.ends_with(".yaml") || name.ends_with(".yml")
}

/// Reads at most a policy's worth of a regular file, without waiting on anything else.
pub fn read_file(path: &Path, shown: &Arc<str>) -> Result<Vec<u8>, LoadError> {
    let failed = |source| LoadError::Read { at: None, file: shown.clone(), source };
    let open = |path| OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open(path);
    let file: File = open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(LoadError::NotAFile(shown.clone()));
    }
    let mut bytes = Vec::new();
    file.take(file::MAX_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// One policy file with the name that its rules carry.
pub(super) struct Layer {
    /// What tells it from every other: the profile or the real path.
    pub identity: String,
    /// What its rules are named after.
    pub name: Arc<str>,
    /// Its content.
    pub file: PolicyFile,
}

impl Layer {
    /// Whether it is a profile that agentbox brings along.
    pub fn is_shipped(&self) -> bool {
        self.identity.starts_with("shipped:")
    }
}

/// Follows names and `extends` to the layers they mean, each once, the extended ones first.
struct Reader<'a> {
    world: &'a World,
    layers: Vec<Layer>,
    /// What is being read: identity and name of each.
    stack: Vec<(String, String)>,
    /// The files that were read.
    files: Vec<PathBuf>,
    /// Whether every file must be trusted.
    pinned: bool,
}

impl Reader<'_> {
    /// Reads what `-p` names, else the environment, else the project's trusted file, else `default`.
    fn read_all(&mut self, request: &Request, workdir: &Path, home: &Path) -> Result<Vec<String>, LoadError> {
        for name in &request.policies {
            self.named(name, &self.world.cwd, None)?;
        }
        for (index, (name, file)) in request.inline.iter().enumerate() {
            self.push(&format!("inline:{index}"), name, &self.world.cwd, None, || Ok(file.clone()))?;
        }
        if !(request.policies.is_empty() && request.inline.is_empty()) {
            return Ok(Vec::new());
        }
        if let Some(name) = self.world.vars.get(OsStr::new("AGENTBOX_POLICY")).filter(|v| !v.is_empty()) {
            self.named(&name.to_string_lossy(), &self.world.cwd, None)?;
            return Ok(Vec::new());
        }
        let Some(path) = trust::find_project(workdir, home) else {
            self.named("default", workdir, None)?;
            return Ok(Vec::new());
        };
        self.project(&path)
    }

    fn project(&mut self, path: &Path) -> Result<Vec<String>, LoadError> {
        let shown: Arc<str> = path.to_string_lossy().into();
        let bytes = read_file(path, &shown)?;
        if let Err(reason) = trust::is_trusted(&self.world.state, path, &bytes)? {
            self.named("default", path, None)?;
            return Ok(vec![format!("{shown} is not used: {reason}; read it, then run `agentbox trust {shown}`")]);
        }
        self.pinned = true;
        let name: Arc<str> = path.file_name().unwrap_or_default().to_string_lossy().into();
        self.bytes(path, &name, &bytes)?;
        Ok(Vec::new())
    }

    fn named(&mut self, name: &str, dir: &Path, at: Option<&At>) -> Result<(), LoadError> {
        if is_file_name(name) {
            return self.file(&dir.join(name), &name.into(), at);
        }
        let Some((name, _, json)) = SHIPPED.iter().find(|p| p.0 == name) else {
            return Err(LoadError::NoProfile { at: at.cloned(), name: name.into() });
        };
        let file = serde_json::from_str(json).expect("build.rs wrote this JSON from the same type");
        self.push(&format!("shipped:{name}"), &format!("{name}.yaml").into(), dir, at, || Ok(file))
    }

    fn file(&mut self, path: &Path, shown: &Arc<str>, at: Option<&At>) -> Result<(), LoadError> {
        let bytes = read_file(path, shown).map_err(|error| match error {
            LoadError::Read { file, source, .. } => LoadError::Read { at: at.cloned(), file, source },
            other => other,
        })?;
        if let (true, Some(at)) = (self.pinned, at) {
            let trusted = trust::is_trusted(&self.world.state, &plain(path), &bytes)?;
            if trusted.is_err() {
                return Err(LoadError::Untrusted { at: at.clone(), file: plain(path).to_string_lossy().into() });
            }
        }
        self.files.push(plain(path));
        let identity = fs::canonicalize(path).unwrap_or_else(|_| path.into());
        let dir = path.parent().unwrap_or(Path::new("/"));
        self.push(&identity.to_string_lossy(), shown, dir, at, || Ok(PolicyFile::parse(shown, &bytes)?))
    }

    fn bytes(&mut self, path: &Path, shown: &Arc<str>, bytes: &[u8]) -> Result<(), LoadError> {
        self.files.push(path.into());
        let dir = path.parent().unwrap_or(Path::new("/"));
        self.push(&path.to_string_lossy(), shown, dir, None, || Ok(PolicyFile::parse(shown, bytes)?))
    }

    /// Adds a file after what it extends.
    fn push(
        &mut self,
        identity: &str,
        name: &Arc<str>,
        dir: &Path,
        at: Option<&At>,
        read: impl FnOnce() -> Result<PolicyFile, LoadError>,
    ) -> Result<(), LoadError> {
        if let Some(from) = self.stack.iter().position(|open| open.0 == identity) {
            let names = self.stack[from..].iter().map(|open| open.1.clone());
            let chain = names.chain([name.to_string()]).collect();
            let at = at.cloned().unwrap_or(At { file: name.clone(), mark: None });
            return Err(LoadError::Circle { at, chain });
        }
        if self.layers.iter().any(|layer| layer.identity == identity) {
            return Ok(());
        }
        let file = read()?;
        self.stack.push((identity.into(), name.to_string()));
        for entry in &file.extends {
            let at = At { file: name.clone(), mark: Some(entry.mark) };
            self.named(&entry.text, dir, Some(&at))?;
        }
        self.stack.pop();
        self.layers.push(Layer { identity: identity.into(), name: name.clone(), file });
        Ok(())
    }
}
