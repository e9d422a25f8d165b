//! The policy in the making: the rules of each file and of the flags, one after the other, each worked out against the
//! file system and checked as it is added.
//!
//! `load` finds and reads the files; of the file system only [`Real`] knows here.

mod network;

use std::collections::{BTreeMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::file::{At, Entry, PolicyFile, Protect};
use super::load::{Layer, LoadError, Request, RuleError, SHIPPED, World};
use super::programs::{Arguments, ProgramPattern, ProgramRule, words};
use super::real::{Found, Real, resolved};
use super::rules::{Base, Pattern, PatternError, contains, escaped};
use super::worktree;
use super::{AuditKey, Exception, ExecRules, FileRules, Guard, GuardKind, Guards, Network, Policy, Root, Tiers};
use crate::event::{Export, Level, RuleId};

/// How a rule that comes from a flag is named.
const FLAGS: &str = "command line";

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
pub(super) struct Build<'a> {
    workdir: &'a Path,
    home: &'a Path,
    vars: &'a BTreeMap<OsString, OsString>,
    real: Real,
    /// The trees so far; the guards are kept apart until all are known.
    files: FileRules,
    guards: Vec<Guard>,
    /// The paths of the trees so far.
    granted: HashSet<PathBuf>,
    exec: ExecRules,
    env: super::env::Rules,
    network: network::Draft,
    audit: Level,
    export: Export,
    audit_key: Option<AuditKey>,
    secrets: Vec<Guard>,
    /// Whether any layer has said which names are secrets.
    labelled: bool,
    tiers: Option<Tiers>,
    name: Arc<str>,
    /// The rule of a file that makes `.` writable.
    dot: Option<(At, RuleId)>,
}

impl<'a> Build<'a> {
    pub fn new(workdir: &'a Path, home: &'a Path, vars: &'a BTreeMap<OsString, OsString>, mut real: Real) -> Self {
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
            guards: Vec::new(),
            granted: HashSet::new(),
            exec: Default::default(),
            env: Default::default(),
            network: network::Draft::default(),
            audit: Level::default(),
            export: Export::default(),
            audit_key: None,
            secrets: Vec::new(),
            labelled: false,
            tiers: None,
            name: "empty".into(),
            dot: None,
        }
    }

    fn with_base<T>(&self, f: impl FnOnce(&Base) -> T) -> T {
        let var = |name: &str| self.vars.get(OsStr::new(name)).cloned();
        f(&Base { workdir: self.workdir, home: self.home, var: &var })
    }

    /// Adds one file's rules to those before it.
    pub fn layer(&mut self, layer: &Layer) -> Result<(), LoadError> {
        let Layer { name, file, .. } = layer;
        self.name = name.clone();
        for (kind, entries) in [(Kind::Private, &file.private), (Kind::Read, &file.read), (Kind::Write, &file.write)] {
            for (index, entry) in entries.iter().enumerate() {
                self.granted(layer, kind, index, entry)?;
            }
        }
        self.guards(layer, GuardKind::Deny, &file.deny)?;
        self.guards(layer, GuardKind::DenyRead, &file.deny_read)?;
        self.guards(layer, GuardKind::DenyWrite, &file.deny_write)?;
        match &file.protect {
            None => {}
            Some(Protect::None) => self.guards.retain(|guard| guard.kind != GuardKind::Protect),
            Some(Protect::List(entries)) => self.guards(layer, GuardKind::Protect, entries)?,
            Some(Protect::Default) => self.protect_default()?,
        }
        self.labelled |= file.secrets.is_some();
        match &file.secrets {
            None => {}
            Some(Protect::None) => self.secrets.clear(),
            Some(Protect::List(entries)) => self.secrets(layer, entries)?,
            Some(Protect::Default) => self.secrets_default()?,
        }
        self.programs(layer, "exec.allow", &file.exec_allow)?;
        self.programs(layer, "exec.ask", &file.exec_ask)?;
        self.programs(layer, "exec.deny", &file.exec_deny)?;
        self.env.pass.extend(file.env_pass.iter().map(|e| e.text.clone()));
        self.env.deny.extend(file.env_deny.iter().map(|e| e.text.clone()));
        self.env.set.extend(file.env_set.iter().map(|(k, v)| (k.into(), v.into())));
        self.network.layer(name, &file.network)?;
        for (index, entry) in file.network.unix.iter().enumerate() {
            let wrong = |why| rule_error(name, "network.unix", entry, why);
            let path = self.with_base(|base| base.path(&entry.text)).map_err(wrong)?;
            self.socket(&path, numbered(name, "network.unix", index))?;
        }
        self.audit = file.audit.unwrap_or(self.audit);
        self.export = file.export.unwrap_or(self.export);
        if let Some(entry) = &file.audit_key {
            let wrong = |why| rule_error(name, "audit.key", entry, why);
            let path = self.with_base(|base| base.path(&entry.text)).map_err(wrong)?;
            self.audit_key = Some(AuditKey { path, at: At { file: name.clone(), mark: Some(entry.mark) } });
        }
        if let Some(tiers) = &file.tiers {
            self.tiers = Some(Tiers::new(tiers, name));
        }
        self.files.otherwise = Some(RuleId::new(name, "filesystem"));
        self.exec.otherwise = Some(RuleId::new(name, "exec"));
        Ok(())
    }

    fn granted(&mut self, layer: &Layer, kind: Kind, index: usize, entry: &Entry) -> Result<(), LoadError> {
        let at = || At { file: layer.name.clone(), mark: Some(entry.mark) };
        let wrong = |why| rule_error(&layer.name, kind.key(), entry, why);
        let path = self.with_base(|base| base.path(&entry.text)).map_err(wrong)?;
        let found = self.real.find(&path);
        if !found.exists && path.as_os_str().as_bytes().iter().any(|b| b"*?[{".contains(b)) {
            return Err(LoadError::Wildcard { at: at(), key: kind.key(), text: entry.text.clone() });
        }
        let rule = numbered(&layer.name, kind.key(), index);
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
        let before = if self.granted.insert(path.clone()) { &[][..] } else { &Kind::ALL };
        for other in before.iter().copied() {
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

    /// Lets a socket file be connected to. Each is named by itself: a directory may hold one that leads to much more.
    fn socket(&mut self, path: &Path, rule: RuleId) -> Result<(), LoadError> {
        let found = self.real.find(path);
        if found.exists && !is_socket(&found.path) {
            return Err(LoadError::NoSocket { rule, path: path.to_string_lossy().into() });
        }
        let link = (found.exists && found.path != path).then(|| path.to_path_buf());
        self.network.unix.push(Root { path: found.path, rule, link, exists: found.exists });
        Ok(())
    }

    fn roots(&mut self, kind: Kind) -> &mut Vec<Root> {
        match kind {
            Kind::Private => &mut self.files.private,
            Kind::Read => &mut self.files.read,
            Kind::Write => &mut self.files.write,
        }
    }

    fn guards(&mut self, layer: &Layer, kind: GuardKind, entries: &[Entry]) -> Result<(), LoadError> {
        for (index, entry) in entries.iter().enumerate() {
            let guard = self.guard(layer, kind, index, entry)?;
            self.guards.push(guard);
        }
        Ok(())
    }

    fn guard(&mut self, layer: &Layer, kind: GuardKind, index: usize, entry: &Entry) -> Result<Guard, LoadError> {
        let wrong = |why| rule_error(&layer.name, kind.key(), entry, why);
        let pattern = self.pattern(&entry.text).map_err(wrong)?;
        let rule = numbered(&layer.name, kind.key(), index);
        let (message, label) = (entry.message.clone(), entry.label.clone());
        Ok(Guard { kind, pattern, rule, message, except: entry.except, label })
    }

    fn secrets(&mut self, layer: &Layer, entries: &[Entry]) -> Result<(), LoadError> {
        for (index, entry) in entries.iter().enumerate() {
            let guard = self.guard(layer, GuardKind::Secret, index, entry)?;
            let label = guard.label.clone().or_else(|| Some(entry.text.as_str().into()));
            self.secrets.push(Guard { label, ..guard });
        }
        Ok(())
    }

    fn pattern(&mut self, text: &str) -> Result<Pattern, PatternError> {
        let mut pattern = self.with_base(|base| Pattern::parse(text, base))?;
        pattern.resolve(|start| self.real.other(start));
        Ok(pattern)
    }

    /// Adds the shipped list, once.
    fn protect_default(&mut self) -> Result<(), LoadError> {
        let there = self.guards.iter().any(|g| g.rule.0.starts_with("protected.yaml "));
        let layer = shipped("protected");
        match &layer.file.protect {
            Some(Protect::List(entries)) if !there => self.guards(&layer, GuardKind::Protect, entries),
            _ => Ok(()),
        }
    }

    /// The same for secrets.
    fn secrets_default(&mut self) -> Result<(), LoadError> {
        let there = self.secrets.iter().any(|g| g.rule.0.starts_with("secrets.yaml "));
        let layer = shipped("secrets");
        match &layer.file.secrets {
            Some(Protect::List(entries)) if !there => self.secrets(&layer, entries),
            _ => Ok(()),
        }
    }

    fn programs(&mut self, layer: &Layer, key: &'static str, entries: &[Entry]) -> Result<(), LoadError> {
        for (index, entry) in entries.iter().enumerate() {
            let wrong = |why| rule_error(&layer.name, key, entry, why);
            let (program, args) = self.command(entry).map_err(wrong)?;
            let rule = numbered(&layer.name, key, index);
            self.exec.told_apart |= !layer.is_shipped() && (key != "exec.allow" || entry.text != "*");
            let list = match key {
                "exec.allow" => &mut self.exec.allow,
                "exec.ask" => &mut self.exec.ask,
                _ => &mut self.exec.deny,
            };
            list.push(ProgramRule { program, args, rule, message: entry.message.clone() });
        }
        Ok(())
    }

    /// The program of a rule and its arguments, which stand behind it or in a list of their own.
    fn command(&mut self, entry: &Entry) -> Result<(ProgramPattern, Option<Arguments>), PatternError> {
        let written = words(&entry.text)?;
        let (program, behind) = written.split_first().ok_or(PatternError::Empty)?;
        let args = match (&entry.args, behind) {
            (Some(_), [_, ..]) => return Err(PatternError::Twice),
            (Some(args), []) => Some(self.with_base(|base| Arguments::parse(args, base))?),
            (None, []) => None,
            (None, behind) => Some(self.with_base(|base| Arguments::parse(behind, base))?),
        };
        Ok((self.program(program)?, args))
    }

    fn program(&mut self, text: &str) -> Result<ProgramPattern, PatternError> {
        let mut program = self.with_base(|base| ProgramPattern::parse(text, base))?;
        if let ProgramPattern::Path(pattern) = &mut program {
            pattern.resolve(|start| self.real.other(start));
        }
        Ok(program)
    }

    /// Adds what the flags say, on top of every file.
    pub fn flags(&mut self, request: &Request) -> Result<(), LoadError> {
        for path in &request.read {
            self.flag_root(Kind::Read, "-r", path)?;
        }
        for path in &request.write {
            self.flag_root(Kind::Write, "-w", path)?;
        }
        for (kind, flag, texts) in [
            (GuardKind::Deny, "--deny", &request.deny),
            (GuardKind::DenyRead, "--deny-read", &request.deny_read),
            (GuardKind::DenyWrite, "--deny-write", &request.deny_write),
        ] {
            for text in texts {
                let pattern = self.pattern(text).map_err(|why| flag_error(flag, text, why))?;
                let rule = RuleId::new(FLAGS, &format!("{flag} {text}"));
                self.guards.push(Guard { kind, pattern, rule, message: None, except: Exception::None, label: None });
            }
        }
        for path in &request.unix {
            let asked = resolved(&self.workdir.join(path));
            if !self.real.find(&asked).exists {
                return Err(LoadError::Missing { flag: "--net-unix", path: path.to_string_lossy().into() });
            }
            self.socket(&asked, RuleId(format!("{FLAGS} --net-unix {}", path.to_string_lossy()).into()))?;
        }
        self.network.flags(request)?;
        self.audit = request.audit.unwrap_or(self.audit);
        self.export = request.export.unwrap_or(self.export);
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
    pub fn check_workdir(&self) -> Result<(), LoadError> {
        let Some((at, rule)) = &self.dot else { return Ok(()) };
        if !self.files.write.iter().any(|root| root.rule == *rule) {
            return Ok(());
        }
        let workdir = self.workdir.as_os_str().as_bytes();
        let mut protected = self.guards.iter().filter(|guard| guard.kind == GuardKind::Protect);
        let guard = protected.find(|guard| guard.pattern.is_granted_by(self.workdir));
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

    /// Keeps the files of private keys from being read inside, whatever was granted.
    pub fn guard_keys(&mut self, request: &Request, world: &World) -> Result<(), LoadError> {
        let of_policy = self.audit_key.as_ref().map(|key| key.path.clone());
        let of_flags = request.key.as_ref().map(|key| world.cwd.join(key));
        for path in of_policy.into_iter().chain(of_flags) {
            self.guard_own(&path, "the key that signs the record", Own::Hidden("key"))?;
        }
        Ok(())
    }

    /// Keeps `path` from being changed inside, whatever was granted, and from being read too if it is to be hidden.
    pub fn guard_own(&mut self, path: &Path, what: &'static str, own: Own) -> Result<(), LoadError> {
        let mut pattern = Pattern::of_path(path);
        pattern.resolve(|start| self.real.other(start));
        if let Some(root) = self.files.write.iter().find(|root| pattern.matches(&root.path)) {
            return Err(LoadError::Own { rule: root.rule.clone(), path: root.path.to_string_lossy().into(), what });
        }
        let (kind, name) = match own {
            Own::Hidden(name) => (GuardKind::Deny, name),
            Own::Shown => (GuardKind::Protect, "policy file"),
        };
        let rule = RuleId::new("built-in", name);
        self.guards.push(Guard {
            kind,
            pattern,
            rule,
            message: Some(what.into()),
            except: Exception::None,
            label: None,
        });
        Ok(())
    }

    /// Grants the repository of a work tree whose `.git` leads elsewhere, as far as the work tree is granted. Returns a line
    /// for the person where that cannot be done.
    pub fn grant_repository(&mut self) -> Result<Option<String>, LoadError> {
        let holds = |roots: &[Root]| roots.iter().any(|root| root.path == self.workdir);
        let (written, read) = (holds(&self.files.write), holds(&self.files.read));
        let repository = match worktree::repository(self.workdir).filter(|_| written || read) {
            None => return Ok(None),
            Some(Err(line)) => return Ok(Some(line)),
            Some(Ok(repository)) => repository,
        };
        let rule = RuleId::new("built-in", "repository of the work tree");
        let named_as_usual = repository.ancestors().any(|dir| dir.file_name() == Some(".git".as_ref()));
        let protects = self.guards.iter().any(|guard| guard.kind == GuardKind::Protect);
        if protects && !named_as_usual && self.protect_repository(&repository, &rule).is_err() {
            return Ok(Some(format!(
                "the repository {} cannot be protected, so it is not granted",
                repository.display()
            )));
        }
        let found = Found { path: repository, exists: true, link: None };
        self.root(if written { Kind::Write } else { Kind::Read }, found, rule)?;
        Ok(None)
    }

    /// Guards what the protected list guards by the name `.git`, in a repository of another name.
    fn protect_repository(&mut self, repository: &Path, rule: &RuleId) -> Result<(), PatternError> {
        const GUARDED: [&str; 7] = [
            "hooks",
            "config",
            "config.worktree",
            "info/attributes",
            "commondir",
            "worktrees/*/{config.worktree,commondir,gitdir}",
            "modules/**/{config,commondir,hooks}",
        ];
        for name in GUARDED {
            let above =
                String::from_utf8(escaped(repository.as_os_str().as_bytes())).map_err(|_| PatternError::NoName)?;
            let pattern = self.pattern(&format!("{above}/{name}"))?;
            let message = Some("git would run programs by it outside the box".into());
            let (kind, except) = (GuardKind::Protect, Exception::OwnRepository);
            self.guards.push(Guard { kind, pattern, rule: rule.clone(), message, except, label: None });
        }
        Ok(())
    }

    /// The rules about files, the network and programs, for a look at them without a run.
    pub fn rules(self) -> (FileRules, Network, ExecRules) {
        (filed(self.files, self.guards), self.network.finish(), self.exec)
    }

    /// Where deeds are weighed for a verdict, or every open is recorded anyway, the shipped list of secrets counts unless
    /// another was given.
    pub fn label_secrets(&mut self) -> Result<(), LoadError> {
        let wanted = self.tiers.is_some() || self.audit == Level::All;
        if wanted && !self.labelled { self.secrets_default() } else { Ok(()) }
    }

    pub fn finish(self, request: &Request, world: &World) -> Result<Policy, LoadError> {
        let env = super::env::work_out(&self.env, request, self.home, &world.vars)?;
        let mut policy = Policy {
            name: self.name,
            digest: String::new(),
            workdir: self.workdir.into(),
            home: self.home.into(),
            files: filed(self.files, self.guards),
            exec: self.exec,
            env,
            network: self.network.finish(),
            audit: self.audit,
            export: self.export,
            audit_key: self.audit_key,
            secrets: Guards::new(self.secrets),
            tiers: self.tiers,
        };
        policy.digest = digest(&policy);
        Ok(policy)
    }
}

/// What of a file of agentbox's own the command may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Own {
    /// Nothing, by the built-in rule of this name.
    Hidden(&'static str),
    /// It may read it where that is granted.
    Shown,
}

/// A profile that is shipped as a list of its own.
fn shipped(name: &str) -> Layer {
    let (_, _, json) = SHIPPED.iter().find(|p| p.0 == name).expect("the lists are shipped");
    let file: PolicyFile = serde_json::from_str(json).expect("build.rs wrote this JSON from the same type");
    Layer { identity: format!("shipped:{name}"), name: format!("{name}.yaml").into(), file }
}

/// The rule at one place of a list in a file.
fn numbered(file: &str, key: &str, index: usize) -> RuleId {
    RuleId(format!("{file} {key}[{index}]").into())
}

fn rule_error(file: &Arc<str>, key: &'static str, entry: &Entry, why: impl Into<RuleError>) -> LoadError {
    let at = At { file: file.clone(), mark: Some(entry.mark) };
    LoadError::Rule { at, key, text: entry.text.clone(), why: why.into() }
}

fn flag_error(flag: &'static str, text: &str, why: impl Into<RuleError>) -> LoadError {
    LoadError::Flag { flag, text: text.into(), why: why.into() }
}

fn is_socket(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    path.symlink_metadata().is_ok_and(|found| found.file_type().is_socket())
}

fn filed(trees: FileRules, guards: Vec<Guard>) -> FileRules {
    let FileRules { read, write, private, otherwise, .. } = trees;
    FileRules::new([read, write, private], Guards::new(guards), otherwise)
}

/// Hashes what decisions depend on; the values of variables are left out.
fn digest(policy: &Policy) -> String {
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
    for guard in files.guards.iter() {
        add(guard.kind.key(), &[guard.except as u8]);
        guard.pattern.pieces(|piece| add("piece", piece));
    }
    let ExecRules { allow, ask, deny, otherwise: _, told_apart: _ } = &policy.exec;
    for (key, rules) in [("exec.allow", allow), ("exec.ask", ask), ("exec.deny", deny)] {
        for rule in rules.iter() {
            add(key, b"");
            rule.program.pieces(|piece| add("piece", piece));
            if let Some(args) = &rule.args {
                args.pieces(|piece| add("args", piece));
            }
        }
    }
    for name in policy.env.vars.keys() {
        add("env", name.as_bytes());
    }
    network::digest(&policy.network, &mut add);
    add("audit", &[policy.audit as u8]);
    if policy.export != Export::None {
        add("export", &[policy.export as u8]);
    }
    for secret in policy.secrets.iter() {
        add(secret.kind.key(), secret.label.as_deref().unwrap_or_default().as_bytes());
        secret.pattern.pieces(|piece| add("piece", piece));
    }
    if let Some(tiers) = &policy.tiers {
        let irreversible = tiers.irreversible.map_or(0, |effect| 1 + effect as u8);
        add("tiers", &[tiers.allow, tiers.ask, irreversible]);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
