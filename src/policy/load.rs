//! From names, files and flags to a checked [`Policy`]: finds the policy, follows `extends`, adds what the flags say,
//! and works every path out against the file system.
//!
//! Runs in agentbox before anything is forked. Of the process itself it knows only what [`World`] says, so that a test
//! can hand in any other.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::file::{self, At, Entry, FileError, PolicyFile, Protect};
use super::rules::{Base, Pattern, PatternError, ProgramPattern, contains, plain};
use super::trust::{self, TrustError};
use super::{Exception, Guard, NetworkMode, Policy, ProgramRule, Root};
use crate::event::{Level, RuleId};

/// The shipped profiles: name, YAML, and the same as JSON.
pub(crate) const SHIPPED: &[(&str, &str, &str)] = include!(concat!(std::env!("OUT_DIR"), "/shipped.rs"));

/// How a rule that comes from a flag is named.
const FLAGS: &str = "command line";

/// What a person asks for, flags and all.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Shipped profiles and policy files; empty: find one.
    pub policies: Vec<String>,
    /// `--read`.
    pub read: Vec<PathBuf>,
    /// `--write`.
    pub write: Vec<PathBuf>,
    /// `--deny`.
    pub deny: Vec<String>,
    /// `--env`: a name, or a name, `=` and a value.
    pub env: Vec<String>,
    /// `--clean-env`.
    pub clean_env: bool,
    /// `--chdir`.
    pub chdir: Option<PathBuf>,
    /// `--net`.
    pub net: Option<NetworkMode>,
    /// `--audit-level`.
    pub audit: Option<Level>,
    /// Files that agentbox writes during the run and the command must not change.
    pub own: Vec<PathBuf>,
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
    #[error("{}there is no profile `{name}`{}; for a file write {}", in_file(.at), near_profile(.name), as_file(.name))]
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
        why: PatternError,
    },
    /// A bad rule in a flag.
    #[error("{flag} {text}: {why}")]
    Flag {
        /// Which flag.
        flag: &'static str,
        /// Its value.
        text: String,
        /// What is wrong with it.
        why: PatternError,
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
    /// A program rule with arguments.
    #[error("{at}: {key} `{text}`: argv rules are not there yet: name the program alone")]
    Argv {
        /// Where.
        at: At,
        /// Which list.
        key: &'static str,
        /// The rule.
        text: String,
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
    let notes = reader.read_all(request, &workdir, &home)?;
    let Reader { layers, files, .. } = reader;
    let mut build = Build::new(&workdir, &home, &world.vars, real);
    for layer in &layers {
        build.layer(layer)?;
    }
    build.flags(request)?;
    build.check_workdir()?;
    build.guard_own(&world.state, "agentbox's own state", true)?;
    for file in &files {
        build.guard_own(file, "the policy of this run", false)?;
    }
    for file in &request.own {
        build.guard_own(&world.cwd.join(file), "the record of this run", false)?;
    }
    let policy = build.finish(request, world)?;
    Ok(Loaded { policy, notes })
}

/// Reads and checks one policy file as far as that goes without a run: its text, what it extends, its rules.
pub fn check(path: &Path, world: &World) -> Result<(), LoadError> {
    let shown: Arc<str> = path.to_string_lossy().into();
    let path = world.cwd.join(path);
    check_content(&path, &shown, &read_file(&path, &shown)?, world)
}

/// The same for content that was read already.
pub fn check_content(path: &Path, shown: &Arc<str>, content: &[u8], world: &World) -> Result<(), LoadError> {
    let mut reader = Reader { world, layers: Vec::new(), stack: Vec::new(), files: Vec::new(), pinned: false };
    reader.bytes(path, shown, content)?;
    let (workdir, home) = (plain(&world.cwd), plain(&world.home));
    let mut build = Build::new(&workdir, &home, &world.vars, Real::default());
    reader.layers.iter().try_for_each(|layer| build.layer(layer))
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
struct Layer {
    /// What tells it from every other: the profile or the real path.
    identity: String,
    name: Arc<str>,
    file: PolicyFile,
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
        if !request.policies.is_empty() {
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

/// The file system as far as it was looked at: what each path really is, if it is.
#[derive(Default)]
struct Real {
    known: HashMap<OsString, Option<PathBuf>>,
    /// A directory most of whose names are asked for, and for each whether it is a symbolic link: one look instead of
    /// eighty.
    listed: Option<(PathBuf, HashMap<OsString, bool>)>,
}

/// What a path comes to.
struct Found {
    path: PathBuf,
    exists: bool,
    link: Option<PathBuf>,
}

impl Real {
    /// Takes a directory as known to be real, with all above it.
    fn know(&mut self, dir: &Path) {
        for dir in dir.ancestors() {
            self.known.insert(dir.into(), Some(dir.into()));
        }
    }

    /// Lists a real directory, unless it is large.
    fn list(&mut self, dir: &Path) {
        let Ok(entries) = fs::read_dir(dir) else { return };
        let mut names = HashMap::new();
        for entry in entries {
            match entry.and_then(|e| Ok((e.file_name(), e.file_type()?.is_symlink()))) {
                Ok((name, is_link)) if names.len() < 512 => names.insert(name, is_link),
                _ => return,
            };
        }
        self.listed = Some((dir.into(), names));
    }

    fn find(&mut self, path: &Path) -> Found {
        let Some((dir, name)) = split_last(path) else {
            return Found { path: path.into(), exists: true, link: None };
        };
        let Some(own) = self.directory(dir).map(|dir| dir.join(name)) else {
            return Found { path: self.place(path), exists: false, link: None };
        };
        match self.follow(&own) {
            Some(real) => {
                Found { link: (own.as_os_str() != real.as_os_str()).then_some(own), path: real, exists: true }
            }
            None => Found { path: own, exists: false, link: None },
        }
    }

    /// The real path of `path`, if that is another one.
    fn other(&mut self, path: &Path) -> Option<PathBuf> {
        Some(self.find(path).path).filter(|real| real.as_os_str() != path.as_os_str())
    }

    /// The real path of what exists, with the rest as it stands.
    fn place(&mut self, path: &Path) -> PathBuf {
        match (self.directory(path), split_last(path)) {
            (Some(real), _) => real,
            (None, Some((dir, name))) => self.place(dir).join(name),
            (None, None) => path.into(),
        }
    }

    /// The real path, if all of it exists, kept for the next who asks.
    fn directory(&mut self, path: &Path) -> Option<PathBuf> {
        if let Some(known) = self.known.get(path.as_os_str()) {
            return known.clone();
        }
        let found = match split_last(path) {
            None => Some(path.to_path_buf()),
            Some((dir, name)) => self.directory(dir).and_then(|dir| self.follow(&dir.join(name))),
        };
        self.known.insert(path.into(), found.clone());
        found
    }

    /// Looks at one name in a real directory, and follows it if it is a link.
    fn follow(&mut self, path: &Path) -> Option<PathBuf> {
        let (dir, name) = split_last(path)?;
        let is_link = match &self.listed {
            Some((listed, names)) if listed.as_os_str() == dir.as_os_str() => *names.get(name)?,
            _ => fs::symlink_metadata(path).ok()?.file_type().is_symlink(),
        };
        if is_link { fs::canonicalize(path).ok() } else { Some(path.into()) }
    }
}

/// Cuts a plain absolute path into directory and name; `Path`'s own way looks at every component each time.
fn split_last(path: &Path) -> Option<(&Path, &OsStr)> {
    let bytes = path.as_os_str().as_bytes();
    let slash = bytes.iter().rposition(|b| *b == b'/').filter(|_| bytes.len() > 1)?;
    let (dir, name) = (&bytes[..slash.max(1)], &bytes[slash + 1..]);
    Some((Path::new(OsStr::from_bytes(dir)), OsStr::from_bytes(name)))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Private,
    Read,
    Write,
}

impl Kind {
    const ALL: [Kind; 3] = [Kind::Private, Kind::Read, Kind::Write];

    fn key(self) -> &'static str {
        match self {
            Kind::Private => "filesystem.private",
            Kind::Read => "filesystem.read",
            Kind::Write => "filesystem.write",
        }
    }
}

/// A policy in the making.
struct Build<'a> {
    workdir: &'a Path,
    home: &'a Path,
    vars: &'a BTreeMap<OsString, OsString>,
    real: Real,
    files: super::FileRules,
    exec: super::ExecRules,
    env: super::env::Rules,
    network: (NetworkMode, RuleId),
    audit: Level,
    name: Arc<str>,
    /// The rule of a file that makes `.` writable.
    dot: Option<(At, RuleId)>,
}

impl<'a> Build<'a> {
    fn new(workdir: &'a Path, home: &'a Path, vars: &'a BTreeMap<OsString, OsString>, mut real: Real) -> Self {
        if real.find(home).exists {
            real.know(home);
            real.list(home);
        }
        Self {
            workdir,
            home,
            vars,
            real,
            files: Default::default(),
            exec: Default::default(),
            env: Default::default(),
            network: (NetworkMode::None, RuleId::new("built-in", "network.mode")),
            audit: Level::default(),
            name: "empty".into(),
            dot: None,
        }
    }

    fn with_base<T>(&self, f: impl FnOnce(&Base) -> T) -> T {
        let var = |name: &str| self.vars.get(OsStr::new(name)).cloned();
        f(&Base { workdir: self.workdir, home: self.home, var: &var })
    }

    /// Adds one file's rules to those before it.
    fn layer(&mut self, layer: &Layer) -> Result<(), LoadError> {
        let Layer { name, file, .. } = layer;
        self.name = name.clone();
        for (kind, entries) in [(Kind::Private, &file.private), (Kind::Read, &file.read), (Kind::Write, &file.write)] {
            for (index, entry) in entries.iter().enumerate() {
                self.granted(layer, kind, index, entry)?;
            }
        }
        self.guards(layer, Kind::DENY, &file.deny)?;
        match &file.protect {
            None => {}
            Some(Protect::None) => self.files.protect.clear(),
            Some(Protect::List(entries)) => self.guards(layer, Kind::PROTECT, entries)?,
            Some(Protect::Default) => self.protect_default()?,
        }
        self.programs(layer, "exec.allow", &file.exec_allow)?;
        self.programs(layer, "exec.deny", &file.exec_deny)?;
        self.env.pass.extend(file.env_pass.iter().map(|e| e.text.clone()));
        self.env.deny.extend(file.env_deny.iter().map(|e| e.text.clone()));
        self.env.set.extend(file.env_set.iter().map(|(k, v)| (k.into(), v.into())));
        if let Some(mode) = file.network {
            self.network = (mode, RuleId::new(name, "network.mode"));
        }
        self.audit = file.audit.unwrap_or(self.audit);
        self.files.otherwise = Some(RuleId::new(name, "filesystem"));
        self.exec.otherwise = Some(RuleId::new(name, "exec"));
        Ok(())
    }

    fn granted(&mut self, layer: &Layer, kind: Kind, index: usize, entry: &Entry) -> Result<(), LoadError> {
        let at = || At { file: layer.name.clone(), mark: Some(entry.mark) };
        let path = self.with_base(|base| base.path(&entry.text)).map_err(|why| LoadError::Rule {
            at: at(),
            key: kind.key(),
            text: entry.text.clone(),
            why,
        })?;
        let found = self.real.find(&path);
        if !found.exists && path.as_os_str().as_bytes().iter().any(|b| b"*?[{".contains(b)) {
            return Err(LoadError::Wildcard { at: at(), key: kind.key(), text: entry.text.clone() });
        }
        let rule = RuleId(format!("{} {}[{index}]", layer.name, kind.key()).into());
        if kind == Kind::Private && found.path.as_os_str() == "/" {
            // A home of `/` (some containers) hides nothing.
            return Ok(());
        }
        if kind == Kind::Write && matches!(&*entry.text, "." | "./" | "$WORKDIR" | "${WORKDIR}") {
            self.dot = Some((at(), rule.clone()));
        }
        self.root(kind, found, rule)
    }

    /// Adds a root; a later one takes the place of an earlier one of the same path, whatever that granted.
    fn root(&mut self, kind: Kind, found: Found, rule: RuleId) -> Result<(), LoadError> {
        let Found { path, exists, link } = found;
        let bytes = path.as_os_str().as_bytes();
        // Where `.` is the root, `wide` says it better.
        if bytes == b"/" && self.dot.as_ref().is_none_or(|(_, dot)| *dot != rule) {
            return Err(LoadError::Whole { rule });
        }
        let kernel = contains(b"/proc", bytes) || contains(b"/sys", bytes);
        if kernel && kind != Kind::Read {
            return Err(LoadError::Kernel { rule, path: path.to_string_lossy().into() });
        }
        let mut links = Vec::new();
        for other in Kind::ALL {
            let roots = self.roots(other);
            for at in
                (0..roots.len()).rev().filter(|at| roots[*at].path.as_os_str() == path.as_os_str()).collect::<Vec<_>>()
            {
                if other == kind && roots[at].link != link {
                    continue;
                }
                let mut old = roots.remove(at);
                if old.link.is_some() && old.link != link {
                    old.rule = rule.clone();
                    links.push(old);
                }
            }
        }
        let roots = self.roots(kind);
        roots.extend(links);
        roots.push(Root { path, rule, link, exists });
        Ok(())
    }

    fn roots(&mut self, kind: Kind) -> &mut Vec<Root> {
        match kind {
            Kind::Private => &mut self.files.private,
            Kind::Read => &mut self.files.read,
            Kind::Write => &mut self.files.write,
        }
    }

    fn guards(&mut self, layer: &Layer, key: &'static str, entries: &[Entry]) -> Result<(), LoadError> {
        for (index, entry) in entries.iter().enumerate() {
            let guard = self.guard(layer, key, index, entry)?;
            let list = if key == Kind::DENY { &mut self.files.deny } else { &mut self.files.protect };
            list.push(guard);
        }
        Ok(())
    }

    fn guard(&mut self, layer: &Layer, key: &'static str, index: usize, entry: &Entry) -> Result<Guard, LoadError> {
        let pattern = self.pattern(&entry.text).map_err(|why| LoadError::Rule {
            at: At { file: layer.name.clone(), mark: Some(entry.mark) },
            key,
            text: entry.text.clone(),
            why,
        })?;
        let rule = RuleId(format!("{} {key}[{index}]", layer.name).into());
        Ok(Guard { pattern, rule, message: entry.message.clone(), except: entry.except })
    }

    fn pattern(&mut self, text: &str) -> Result<Pattern, PatternError> {
        let mut pattern = self.with_base(|base| Pattern::parse(text, base))?;
        pattern.resolve(|start| self.real.other(start));
        Ok(pattern)
    }

    /// Adds the shipped list, once.
    fn protect_default(&mut self) -> Result<(), LoadError> {
        let (_, _, json) = SHIPPED.iter().find(|p| p.0 == "protected").expect("profiles/protected.yaml is shipped");
        let file: PolicyFile = serde_json::from_str(json).expect("build.rs wrote this JSON from the same type");
        let layer = Layer { identity: "shipped:protected".into(), name: "protected.yaml".into(), file };
        let there = self.files.protect.iter().any(|g| g.rule.0.starts_with("protected.yaml "));
        match &layer.file.protect {
            Some(Protect::List(entries)) if !there => self.guards(&layer, Kind::PROTECT, entries),
            _ => Ok(()),
        }
    }

    fn programs(&mut self, layer: &Layer, key: &'static str, entries: &[Entry]) -> Result<(), LoadError> {
        for (index, entry) in entries.iter().enumerate() {
            let at = At { file: layer.name.clone(), mark: Some(entry.mark) };
            let text = entry.text.clone();
            if text.contains(char::is_whitespace) {
                return Err(LoadError::Argv { at, key, text });
            }
            let program = self.program(&text).map_err(|why| LoadError::Rule { at, key, text, why })?;
            let rule = RuleId(format!("{} {key}[{index}]", layer.name).into());
            let list = if key == "exec.allow" { &mut self.exec.allow } else { &mut self.exec.deny };
            list.push(ProgramRule { program, rule, message: entry.message.clone() });
        }
        Ok(())
    }

    fn program(&mut self, text: &str) -> Result<ProgramPattern, PatternError> {
        let mut program = self.with_base(|base| ProgramPattern::parse(text, base))?;
        if let ProgramPattern::Path(pattern) = &mut program {
            pattern.resolve(|start| self.real.other(start));
        }
        Ok(program)
    }

    /// Adds what the flags say, on top of every file.
    fn flags(&mut self, request: &Request) -> Result<(), LoadError> {
        for path in &request.read {
            self.flag_root(Kind::Read, "-r", path)?;
        }
        for path in &request.write {
            self.flag_root(Kind::Write, "-w", path)?;
        }
        for text in &request.deny {
            let flag = |why| LoadError::Flag { flag: "--deny", text: text.clone(), why };
            let pattern = self.pattern(text).map_err(flag)?;
            let rule = RuleId::new(FLAGS, &format!("--deny {text}"));
            self.files.deny.push(Guard { pattern, rule, message: None, except: Exception::None });
        }
        if let Some(mode) = request.net {
            self.network = (mode, RuleId::new(FLAGS, "--net"));
        }
        self.audit = request.audit.unwrap_or(self.audit);
        Ok(())
    }

    fn flag_root(&mut self, kind: Kind, flag: &'static str, path: &Path) -> Result<(), LoadError> {
        // The shell has worked `~` and variables out already.
        let found = self.real.find(&resolved(&self.workdir.join(path)));
        if !found.exists {
            return Err(LoadError::Missing { flag, path: path.to_string_lossy().into() });
        }
        let rule = RuleId(format!("{FLAGS} {flag} {}", path.to_string_lossy()).into());
        self.root(kind, found, rule)
    }

    /// Refuses a `.` that nobody can have meant.
    fn check_workdir(&self) -> Result<(), LoadError> {
        let Some((at, rule)) = &self.dot else { return Ok(()) };
        if !self.files.write.iter().any(|root| root.rule == *rule) {
            return Ok(());
        }
        let workdir = self.workdir.as_os_str().as_bytes();
        let guard = self.files.protect.iter().find(|g| g.pattern.is_granted_by(self.workdir));
        let what = if workdir == b"/" {
            "the root of the file system".to_string()
        } else if self.home == self.workdir {
            "the home directory".to_string()
        } else if contains(workdir, self.home.as_os_str().as_bytes()) {
            "which holds the home directory".to_string()
        } else if let Some(guard) = guard {
            format!("protected by {}", guard.rule)
        } else {
            return Ok(());
        };
        Err(LoadError::TooWide { at: at.clone(), workdir: self.workdir.to_string_lossy().into(), what })
    }

    /// Keeps `path` from being changed inside, whatever was granted; with `hide`, from being read too.
    fn guard_own(&mut self, path: &Path, what: &'static str, hide: bool) -> Result<(), LoadError> {
        let mut pattern = Pattern::of_path(path);
        pattern.resolve(|start| self.real.other(start));
        if let Some(root) = self.files.write.iter().find(|root| pattern.matches(&root.path)) {
            return Err(LoadError::Own { rule: root.rule.clone(), path: root.path.to_string_lossy().into(), what });
        }
        let rule = RuleId::new("built-in", if hide { "state" } else { "policy file" });
        let guard = Guard { pattern, rule, message: Some(what.into()), except: Exception::None };
        if hide {
            self.files.deny.push(guard)
        } else {
            self.files.protect.push(guard)
        }
        Ok(())
    }

    fn finish(self, request: &Request, world: &World) -> Result<Policy, LoadError> {
        let env = super::env::work_out(&self.env, request, self.home, &world.vars)?;
        let mut policy = Policy {
            name: self.name,
            digest: String::new(),
            workdir: self.workdir.into(),
            home: self.home.into(),
            files: self.files,
            exec: self.exec,
            env,
            network: self.network,
            audit: self.audit,
        };
        policy.digest = digest(&policy);
        Ok(policy)
    }
}

impl Kind {
    const DENY: &'static str = "filesystem.deny";
    const PROTECT: &'static str = "filesystem.protect";
}

/// Takes `..` out the way the kernel would where that is possible.
fn resolved(path: &Path) -> PathBuf {
    let dots = path.components().any(|c| c == Component::ParentDir);
    if dots { fs::canonicalize(path).unwrap_or_else(|_| plain(path)) } else { plain(path) }
}

/// Hashes what decisions depend on; the values of variables are left out.
pub(crate) fn digest(policy: &Policy) -> String {
    let mut hash = Sha256::new();
    let mut add = |key: &str, value: &[u8]| {
        for part in [key.as_bytes(), value] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
    };
    add("workdir", policy.workdir.as_os_str().as_bytes());
    add("home", policy.home.as_os_str().as_bytes());
    let files = &policy.files;
    for (key, roots) in [("read", &files.read), ("write", &files.write), ("private", &files.private)] {
        for root in roots {
            add(key, root.path.as_os_str().as_bytes());
            add(
                if root.exists { "there" } else { "missing" },
                root.link.as_deref().unwrap_or(Path::new("")).as_os_str().as_bytes(),
            );
        }
    }
    for (key, guards) in [("deny", &files.deny), ("protect", &files.protect)] {
        for guard in guards {
            add(key, &[guard.except as u8]);
            guard.pattern.pieces(|piece| add("piece", piece));
        }
    }
    for (key, rules) in [("exec.allow", &policy.exec.allow), ("exec.deny", &policy.exec.deny)] {
        for rule in rules {
            add(key, b"");
            rule.program.pieces(|piece| add("piece", piece));
        }
    }
    for name in policy.env.vars.keys() {
        add("env", name.as_bytes());
    }
    add("network", &[policy.network.0 as u8]);
    add("audit", &[policy.audit as u8]);
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
