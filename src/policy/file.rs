//! The shape of a policy file: YAML text in, a [`PolicyFile`] out, every entry with the line it stands on.
//!
//! Nothing is resolved here: no path is looked at, no profile is opened. What is not understood is an error, because
//! a rule that is skipped is a fence that is missing. `build.rs` includes this file too, to turn the shipped profiles
//! into a form that needs no YAML parser at run time; so it imports nothing of the crate but `event`.

// Named by its path, since build.rs takes this file in under a path, too.
#[path = "file/network.rs"]
mod network;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::de::{self, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_yaml::{Location, MessageFormatter, Spanned};

use crate::event::{Effect, Export, Level};
pub use network::{NetworkFile, NetworkMode};

/// The heaviest tier.
pub const MOST_TIER: u8 = 10;

/// The largest policy file that is read.
pub const MAX_BYTES: usize = 1 << 20;

/// A policy file as written.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PolicyFile {
    /// Shipped profiles and files whose rules come first.
    pub extends: Vec<Entry>,
    /// `filesystem.read`.
    pub read: Vec<Entry>,
    /// `filesystem.write`.
    pub write: Vec<Entry>,
    /// `filesystem.private`.
    pub private: Vec<Entry>,
    /// `filesystem.deny`.
    pub deny: Vec<Entry>,
    /// `filesystem.deny_read`.
    #[serde(default)]
    pub deny_read: Vec<Entry>,
    /// `filesystem.deny_write`.
    #[serde(default)]
    pub deny_write: Vec<Entry>,
    /// `filesystem.protect`.
    pub protect: Option<Protect>,
    /// `filesystem.secrets`.
    #[serde(default)]
    pub secrets: Option<Protect>,
    /// `exec.allow`.
    pub exec_allow: Vec<Entry>,
    /// `exec.ask`.
    #[serde(default)]
    pub exec_ask: Vec<Entry>,
    /// `exec.deny`.
    pub exec_deny: Vec<Entry>,
    /// `env.pass`.
    pub env_pass: Vec<Entry>,
    /// `env.deny`.
    pub env_deny: Vec<Entry>,
    /// `env.set`.
    pub env_set: BTreeMap<String, String>,
    /// `network`.
    #[serde(default)]
    pub network: NetworkFile,
    /// `audit.level`.
    pub audit: Option<Level>,
    /// `audit.export`.
    #[serde(default)]
    pub export: Option<Export>,
    /// `audit.key`.
    #[serde(default)]
    pub audit_key: Option<Entry>,
    /// `tiers`.
    #[serde(default)]
    pub tiers: Option<TiersFile>,
}

/// `tiers`: which deeds pass, by what they weigh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TiersFile {
    /// Up to this tier they pass.
    pub allow: u8,
    /// Up to this one a person is asked; above they are denied.
    pub ask: u8,
    /// What becomes of those that cannot be undone, whatever their tier.
    pub irreversible: Option<Effect>,
}

/// One rule of a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The path, pattern, program or name.
    pub text: String,
    /// The arguments of a program, where they are a list of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub args: Option<Vec<String>>,
    /// What the agent and the person are shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<Arc<str>>,
    /// What a protected name lets pass.
    #[serde(default, skip_serializing_if = "Exception::is_none")]
    pub except: Exception,
    /// What to call a secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<Arc<str>>,
    /// Where it stands.
    pub mark: Mark,
}

/// A place in a file, counted from 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The line.
    pub line: u32,
    /// The column.
    pub column: u32,
}

/// `filesystem.protect`, `filesystem.secrets`: a shipped list, or names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Protect {
    /// The shipped list.
    Default,
    /// Lifts every list that came before.
    None,
    /// More names.
    List(Vec<Entry>),
}

/// What a protected name lets pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exception {
    /// Nothing.
    #[default]
    None,
    /// Names that end in `.sample`: git never runs those.
    Samples,
    /// Names that end as examples do, such as `.env.example`.
    Examples,
    /// Names in a git directory that was made inside this run.
    OwnRepository,
}

impl Exception {
    fn is_none(&self) -> bool {
        *self == Self::None
    }
}

/// Where in which file something is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct At {
    /// The file as the user named it.
    pub file: Arc<str>,
    /// The line and column, if it is one place.
    pub mark: Option<Mark>,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mark {
            Some(mark) => write!(f, "{}:{}:{}", self.file, mark.line, mark.column),
            None => f.write_str(&self.file),
        }
    }
}

/// Why a text is no policy.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// A key that there is not.
    #[error("{at}: unknown key `{key}`{}", instead(.key, .valid))]
    UnknownKey {
        /// Where.
        at: At,
        /// As written.
        key: String,
        /// What could stand there.
        valid: Vec<&'static str>,
    },
    /// A word that is none of the choices.
    #[error("{at}: `{word}` is not one of the choices{}", nearest(.word, .valid))]
    UnknownWord {
        /// Where.
        at: At,
        /// As written.
        word: String,
        /// What could stand there.
        valid: Vec<&'static str>,
    },
    /// A key of the design whose feature is not built yet.
    #[error("{at}: `{key}` is not there yet: this agentbox cannot hold such a rule; remove it to go on")]
    NotYet {
        /// Where.
        at: At,
        /// The key.
        key: &'static str,
    },
    /// A value of another type than the key wants.
    #[error("{at}: expected {expected}, found {found}")]
    WrongType {
        /// Where.
        at: At,
        /// What the key wants.
        expected: String,
        /// What stands there.
        found: String,
    },
    /// A key that must be there and is not.
    #[error("{at}: the key `{key}` is missing{}", if *.key == "version" { ": a policy starts with `version: 1`" } else { "" })]
    MissingKey {
        /// Where.
        at: At,
        /// The key.
        key: &'static str,
    },
    /// Arguments where no program is run.
    #[error("{at}: `args` stands beside `run`, in a rule of `exec`: leave it out")]
    Args {
        /// Where.
        at: At,
    },
    /// Tiers that are none, or in the wrong order.
    #[error(
        "{at}: tiers go from 1 to 10, and `allow` ({allow}) is at most `ask` ({ask}): such as {{allow: 4, ask: 8}}"
    )]
    Tiers {
        /// Where.
        at: At,
        /// As written.
        allow: u8,
        /// As written.
        ask: u8,
    },
    /// The same key twice.
    #[error("{at}: the key `{key}` stands there twice: put both values under one")]
    DuplicateKey {
        /// Where.
        at: At,
        /// The key.
        key: String,
    },
    /// Rules beside a mode that has none.
    #[error("{at}: `{key}` does nothing with `mode: {mode}`: leave one of the two out{}", if *.mode == "none" { ", or write `mode: rules`" } else { "" })]
    Idle {
        /// Where.
        at: At,
        /// The list.
        key: &'static str,
        /// The mode.
        mode: &'static str,
    },
    /// `<<`.
    #[error(
        "{at}: merge keys (`<<`) are not taken, since a merged rule is easy to miss: write the rules out or use `extends`"
    )]
    MergeKey {
        /// Where.
        at: At,
    },
    /// A version that is not 1.
    #[error("{at}: version {version} is not known to this agentbox, which reads version 1")]
    Version {
        /// Where.
        at: At,
        /// As written.
        version: u32,
    },
    /// Nothing in it.
    #[error("{at}: the file is empty: a policy starts with `version: 1`")]
    Empty {
        /// Which file.
        at: At,
    },
    /// More than [`MAX_BYTES`].
    #[error("{at}: the file is larger than 1 MiB: no policy is")]
    TooLarge {
        /// Which file.
        at: At,
    },
    /// Not UTF-8, or with control characters.
    #[error("{at}: the file is not text: a policy is YAML in UTF-8")]
    NotText {
        /// Where.
        at: At,
    },
    /// Nested, repeated or aliased beyond what a policy needs.
    #[error("{at}: the file is too deep or too long when its aliases are written out")]
    TooMuch {
        /// Where.
        at: At,
    },
    /// Anything else the YAML parser objects to.
    #[error("{at}: {text}")]
    Yaml {
        /// Where.
        at: At,
        /// Its words.
        text: String,
    },
}

/// What to write in place of an unknown key.
fn instead(key: &str, valid: &[&'static str]) -> String {
    match key {
        "port" | "ports" if valid.contains(&"host") => ": ports stand behind the host, as in `example.org:443`".into(),
        _ => nearest(key, valid),
    }
}

/// ": did you mean `x`?" if a valid word is near, else the list of them.
fn nearest(word: &str, valid: &[&'static str]) -> String {
    let near = valid.iter().map(|v| (strsim::jaro_winkler(word, v), v)).max_by(|a, b| a.0.total_cmp(&b.0));
    match near {
        Some((score, best)) if score > 0.75 => format!(": did you mean `{best}`?"),
        _ => format!(": there are {}", valid.join(", ")),
    }
}

impl PolicyFile {
    /// Reads the text of a policy; `file` is what errors call it.
    pub fn parse(file: &str, bytes: &[u8]) -> Result<Self, FileError> {
        let file: Arc<str> = file.into();
        read::<Written>(&file, bytes)?.check(&file)
    }
}

/// Reads YAML text into a shape, within the limits of a policy file.
pub(super) fn read<T: de::DeserializeOwned>(file: &Arc<str>, bytes: &[u8]) -> Result<T, FileError> {
    let whole = || At { file: file.clone(), mark: None };
    if bytes.len() > MAX_BYTES {
        return Err(FileError::TooLarge { at: whole() });
    }
    let text =
        std::str::from_utf8(bytes).map_err(|e| FileError::NotText { at: at_byte(file, bytes, e.valid_up_to()) })?;
    if let Some(at) = text.find(|c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) {
        return Err(FileError::NotText { at: at_byte(file, bytes, at) });
    }
    if text.lines().all(|l| l.trim().is_empty() || l.trim_start().starts_with('#') || l.trim() == "---") {
        return Err(FileError::Empty { at: whole() });
    }
    serde_yaml::from_str_with_options(text, options()).map_err(|e| translate(file, &e))
}

fn at_byte(file: &Arc<str>, bytes: &[u8], offset: usize) -> At {
    let before = &bytes[..offset.min(bytes.len())];
    let line = 1 + before.iter().filter(|b| **b == b'\n').count();
    let column = 1 + before.iter().rev().take_while(|b| **b != b'\n').count();
    At { file: file.clone(), mark: Some(Mark { line: line as u32, column: column as u32 }) }
}

fn options() -> serde_yaml::Options {
    serde_yaml::options! {
        budget: serde_yaml::budget! {
            max_depth: 32,
            max_nodes: 60_000,
            max_events: 80_000,
            flow_nesting_limit: 32,
            max_anchors: 256,
            max_aliases: 1024,
            max_documents: 1,
        },
        duplicate_keys: serde_yaml::DuplicateKeyPolicy::Error,
        merge_keys: serde_yaml::MergeKeyPolicy::Error,
        strict_booleans: true,
        reject_unsupported_tags: true,
        with_snippet: false,
    }
}

/// Turns the parser's error into one of ours.
fn translate(file: &Arc<str>, error: &serde_yaml::Error) -> FileError {
    use serde_yaml::Error as E;
    let error = error.without_snippet();
    let at = At { file: file.clone(), mark: error.location().and_then(mark) };
    match error {
        E::AliasError { error, .. } => translate(file, error),
        E::SerdeUnknownField { field, expected, .. } => {
            FileError::UnknownKey { at, key: field.clone(), valid: expected.clone() }
        }
        E::SerdeUnknownVariant { variant, expected, .. } => {
            FileError::UnknownWord { at, word: variant.clone(), valid: expected.clone() }
        }
        E::SerdeInvalidType { unexpected, expected, .. } | E::SerdeInvalidValue { unexpected, expected, .. } => {
            FileError::WrongType { at, expected: expected.clone(), found: unexpected.clone() }
        }
        E::Unexpected { expected: "sequence start", .. } => {
            FileError::WrongType { at, expected: "a list, such as [a, b]".into(), found: "something else".into() }
        }
        E::Unexpected { expected: "mapping start", .. } => {
            FileError::WrongType { at, expected: "keys, such as {a: b}".into(), found: "something else".into() }
        }
        E::SerdeMissingField { field, .. } => FileError::MissingKey { at, key: field },
        E::DuplicateMappingKey { key, .. } => FileError::DuplicateKey { at, key: key.clone().unwrap_or_default() },
        E::MergeKeyNotAllowed { .. } => FileError::MergeKey { at },
        E::Budget { .. }
        | E::AliasReplayLimitExceeded { .. }
        | E::AliasExpansionLimitExceeded { .. }
        | E::AliasReplayStackDepthExceeded { .. }
        | E::AliasReplayCounterOverflow { .. } => FileError::TooMuch { at },
        other => {
            let text = serde_yaml::DefaultMessageFormatter.format_message(other).escape_debug().to_string();
            FileError::Yaml { at, text: text.replace("\\\"", "\"").replace("\\'", "'") }
        }
    }
}

/// The place that the parser means.
pub(super) fn mark(location: Location) -> Option<Mark> {
    let number = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    (location.line() > 0).then(|| Mark { line: number(location.line()), column: number(location.column()) })
}

/// The keys of DESIGN 7, those to come included: they are known so that they can be refused by name.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a policy: `version: 1` and sections of rules")]
pub(super) struct Written {
    version: Spanned<u32>,
    #[serde(default)]
    extends: Items,
    filesystem: Option<Filesystem>,
    exec: Option<ExecKeys>,
    env: Option<EnvKeys>,
    network: Option<network::Section>,
    audit: Option<AuditKeys>,
    tiers: Option<Spanned<TiersKeys>>,
    limits: NotYet,
    workspace: NotYet,
    ask: NotYet,
}

#[derive(Deserialize, Default)]
#[serde(
    deny_unknown_fields,
    expecting = "the keys read, write, private, deny, deny_read, deny_write, protect, secrets"
)]
struct Filesystem {
    #[serde(default)]
    read: Items,
    #[serde(default)]
    write: Items,
    #[serde(default)]
    private: Items,
    #[serde(default)]
    deny: Items,
    #[serde(default)]
    deny_read: Items,
    #[serde(default)]
    deny_write: Items,
    protect: Option<ProtectValue>,
    secrets: Option<ProtectValue>,
    ask: NotYet,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, expecting = "the keys allow, ask, deny")]
struct ExecKeys {
    #[serde(default)]
    allow: Items,
    #[serde(default)]
    ask: Items,
    #[serde(default)]
    deny: Items,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, expecting = "the keys pass, set, deny")]
struct EnvKeys {
    #[serde(default)]
    pass: Items,
    #[serde(default)]
    set: BTreeMap<String, String>,
    #[serde(default)]
    deny: Items,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, expecting = "the keys level, export, key")]
struct AuditKeys {
    level: Option<Level>,
    export: Option<Export>,
    key: Option<Spanned<Item>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "the keys allow, ask, irreversible")]
struct TiersKeys {
    allow: Option<u8>,
    ask: Option<u8>,
    irreversible: Option<Effect>,
}

type NotYet = Option<Spanned<IgnoredAny>>;
type Items = Vec<Spanned<Item>>;

/// One element of a list: a string, or a mapping that says more.
struct Item {
    text: String,
    args: Option<Vec<String>>,
    message: Option<Arc<str>>,
    except: Exception,
    label: Option<Arc<str>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ItemKeys {
    path: Option<String>,
    run: Option<String>,
    args: Option<Vec<String>>,
    name: Option<String>,
    host: Option<String>,
    #[serde(rename = "why")]
    _why: Option<String>,
    message: Option<Arc<str>>,
    label: Option<Arc<str>>,
    #[serde(default)]
    except: Exception,
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ItemVisitor)
    }
}

struct ItemVisitor;

impl<'de> Visitor<'de> for ItemVisitor {
    type Value = Item;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or a mapping such as {path: …, why: …, message: …}")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Item, E> {
        Ok(Item { text: text.into(), args: None, message: None, except: Exception::None, label: None })
    }

    fn visit_unit<E: de::Error>(self) -> Result<Item, E> {
        Err(E::custom("a rule is empty here: YAML reads a bare `~` as nothing, so quote it"))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Item, A::Error> {
        let keys = ItemKeys::deserialize(de::value::MapAccessDeserializer::new(map))?;
        let runs = keys.run.is_some();
        let mut texts = [keys.path, keys.run, keys.name, keys.host].into_iter().flatten();
        match (texts.next(), texts.next()) {
            (Some(_), None) if keys.args.is_some() && !runs => Err(de::Error::custom("`args` stands beside `run`")),
            (Some(text), None) => {
                let ItemKeys { args, message, except, label, .. } = keys;
                Ok(Item { text, args, message, except, label })
            }
            _ => Err(de::Error::custom("a rule names exactly one of `path`, `run`, `name` or `host`")),
        }
    }
}

enum ProtectValue {
    Word(Protect),
    List(Items),
}

impl<'de> Deserialize<'de> for ProtectValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ProtectVisitor)
    }
}

struct ProtectVisitor;

impl<'de> Visitor<'de> for ProtectVisitor {
    type Value = ProtectValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`default`, `none` or a list of patterns")
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<ProtectValue, E> {
        match word {
            "default" => Ok(ProtectValue::Word(Protect::Default)),
            "none" => Ok(ProtectValue::Word(Protect::None)),
            other => Err(E::unknown_variant(other, &["default", "none"])),
        }
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, seq: A) -> Result<ProtectValue, A::Error> {
        Items::deserialize(de::value::SeqAccessDeserializer::new(seq)).map(ProtectValue::List)
    }
}

impl Written {
    /// Refuses what is not there yet and flattens the rest.
    pub(super) fn check(self, file: &Arc<str>) -> Result<PolicyFile, FileError> {
        if self.version.value != 1 {
            let at = At { file: file.clone(), mark: mark(self.version.referenced) };
            return Err(FileError::Version { at, version: self.version.value });
        }
        let (files, exec) = (self.filesystem.unwrap_or_default(), self.exec.unwrap_or_default());
        let audit = self.audit.unwrap_or_default();
        let (env, network) = (self.env.unwrap_or_default(), self.network.unwrap_or_default());
        let not_yet = [
            ("limits", &self.limits),
            ("workspace", &self.workspace),
            ("ask", &self.ask),
            ("filesystem.ask", &files.ask),
            ("network.ask", network.ask()),
        ];
        for (key, found) in not_yet {
            if let Some(found) = found {
                let at = At { file: file.clone(), mark: mark(found.referenced) };
                return Err(FileError::NotYet { at, key });
            }
        }
        Ok(PolicyFile {
            extends: entries(file, self.extends)?,
            read: entries(file, files.read)?,
            write: entries(file, files.write)?,
            private: entries(file, files.private)?,
            deny: entries(file, files.deny)?,
            deny_read: entries(file, files.deny_read)?,
            deny_write: entries(file, files.deny_write)?,
            protect: files.protect.map(|p| protect(file, p)).transpose()?,
            secrets: files.secrets.map(|p| protect(file, p)).transpose()?,
            exec_allow: programs(file, exec.allow)?,
            exec_ask: programs(file, exec.ask)?,
            exec_deny: programs(file, exec.deny)?,
            env_pass: entries(file, env.pass)?,
            env_deny: entries(file, env.deny)?,
            env_set: env.set,
            network: network.check(file)?,
            audit: audit.level,
            export: audit.export,
            audit_key: audit.key.map(|key| entry(file, key)).transpose()?,
            tiers: self.tiers.map(|keys| tiers(file, keys)).transpose()?,
        })
    }
}

/// What is not said is as strict as what is: without `ask` nobody is asked, without `allow` nothing is in the way.
fn tiers(file: &Arc<str>, keys: Spanned<TiersKeys>) -> Result<TiersFile, FileError> {
    let at = || At { file: file.clone(), mark: mark(keys.referenced) };
    let TiersKeys { allow, ask, irreversible } = keys.value;
    let allow = allow.unwrap_or(ask.unwrap_or(MOST_TIER));
    let ask = ask.unwrap_or(allow);
    let in_range = |tier: u8| (1..=MOST_TIER).contains(&tier);
    if !in_range(allow) || !in_range(ask) || allow > ask {
        return Err(FileError::Tiers { at: at(), allow, ask });
    }
    Ok(TiersFile { allow, ask, irreversible })
}

fn protect(file: &Arc<str>, value: ProtectValue) -> Result<Protect, FileError> {
    match value {
        ProtectValue::Word(word) => Ok(word),
        ProtectValue::List(items) => Ok(Protect::List(entries(file, items)?)),
    }
}

fn entries(file: &Arc<str>, items: Items) -> Result<Vec<Entry>, FileError> {
    items.into_iter().map(|item| entry(file, item)).collect()
}

fn programs(file: &Arc<str>, items: Items) -> Result<Vec<Entry>, FileError> {
    items.into_iter().map(|item| program(file, item)).collect()
}

fn entry(file: &Arc<str>, item: Spanned<Item>) -> Result<Entry, FileError> {
    let entry = program(file, item)?;
    if entry.args.is_some() {
        return Err(FileError::Args { at: At { file: file.clone(), mark: Some(entry.mark) } });
    }
    Ok(entry)
}

/// An entry of a list of programs, which may have arguments.
fn program(file: &Arc<str>, item: Spanned<Item>) -> Result<Entry, FileError> {
    let found = mark(item.referenced);
    let Item { text, args, message, except, label } = item.value;
    if text.is_empty() {
        let at = At { file: file.clone(), mark: found };
        return Err(FileError::WrongType { at, expected: "a rule".into(), found: "an empty string".into() });
    }
    Ok(Entry { text, args, message, except, label, mark: found.unwrap_or_default() })
}
