//! The matcher for names in the file system: [`Pattern`].
//!
//! Paths are bytes here, never text: a name that is not UTF-8 is matched like any other. A pattern is compiled once,
//! component by component; matching allocates nothing and takes time in proportion to the path, whatever the pattern.
//! Nothing in here looks at the file system.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::glob::{braces, check_ranges, class_end, glob_matches};
use super::index;

/// Where relative patterns start and what `~` and variables stand for.
pub struct Base<'a> {
    /// The directory that relative patterns start from.
    pub workdir: &'a Path,
    /// What `~` stands for.
    pub home: &'a Path,
    /// Looks a variable up.
    pub var: &'a dyn Fn(&str) -> Option<OsString>,
}

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Nothing in it.
    #[error("the pattern is empty")]
    Empty,
    /// A zero byte, which no name can hold.
    #[error("a name cannot hold a zero byte")]
    Zero,
    /// A variable that is not set.
    #[error("`${0}` is not set: set it, or give a default as in `${{{0}:-/tmp}}`")]
    Unset(String),
    /// An opening bracket without its partner.
    #[error("`{0}` is never closed: close it, or write `\\{0}` for the character itself")]
    Unclosed(char),
    /// A trailing backslash.
    #[error("the backslash at the end has nothing to escape: write `\\\\` for the character itself")]
    Backslash,
    /// `a**`.
    #[error("`**` stands alone between slashes, as in `a/**/b`")]
    DoubleStar,
    /// `*/..`.
    #[error("`..` cannot follow a wildcard")]
    Parent,
    /// `..` with nothing left to leave.
    #[error("`..` leads above `/`, where there is nothing: leave it out")]
    AboveRoot,
    /// `[z-a]`.
    #[error("`{0}` runs backwards and holds nothing: write `{1}`")]
    Backwards(String, String),
    /// `/a/{{,b}}`.
    #[error("a choice in `{{…}}` leaves no name between two slashes: write it out as rules of its own")]
    NoName,
    /// More than 255 bytes between two slashes.
    #[error("a name is longer than the 255 bytes that a file system takes, so nothing could match")]
    LongName,
    /// A character class outside ASCII.
    #[error("`[…]` takes ASCII characters only: use `?` or `{{a,b}}`")]
    Class,
    /// Braces that multiply beyond 64 alternatives, or more than 60 components.
    #[error("the pattern is too large: write several")]
    TooLarge,
    /// `a**` in an argument.
    #[error("`**` is for paths: in an argument `*` stands for any characters, and at the end for any arguments")]
    Stars,
    /// Arguments said twice.
    #[error("the arguments stand in `run` and in `args`: write them in one place")]
    Twice,
    /// A path where only a name or an absolute path can stand.
    #[error("a program is `*`, a name such as `git`, or a path that starts with `/`, `~` or `./`")]
    Program,
}

impl Base<'_> {
    /// Works out variables, `~` and a relative start, and returns an absolute path as bytes; `..` is left in.
    ///
    /// With `escape`, what is put in is escaped so that it only ever matches itself.
    fn absolute(&self, text: &str, escape: bool) -> Result<Vec<u8>, PatternError> {
        if text.is_empty() {
            return Err(PatternError::Empty);
        }
        if text.contains('\0') {
            return Err(PatternError::Zero);
        }
        let put = |path: &Path| {
            if escape { escaped(path.as_os_str().as_bytes()) } else { path.as_os_str().as_bytes().to_vec() }
        };
        let mut whole = Vec::new();
        let rest = if text == "~" || text.starts_with("~/") {
            whole = put(self.home);
            &text[1..]
        } else {
            text
        };
        let rest = self.variables(rest, escape)?;
        if !whole.is_empty() || rest.first() == Some(&b'/') {
            whole.extend(rest);
            return Ok(whole);
        }
        if escape && (rest == b"**" || rest.starts_with(b"**/")) {
            whole.push(b'/');
        } else {
            whole = put(self.workdir);
            whole.push(b'/');
        }
        whole.extend(rest);
        Ok(whole)
    }

    /// Works out `~` and variables in the pattern of an argument, which is no path: it is not made absolute.
    pub(super) fn argument(&self, text: &str) -> Result<Vec<u8>, PatternError> {
        if text.contains('\0') {
            return Err(PatternError::Zero);
        }
        if text == "~" || text.starts_with("~/") {
            let rest = self.variables(&text[1..], true)?;
            return Ok([escaped(self.home.as_os_str().as_bytes()), rest].concat());
        }
        self.variables(text, true)
    }

    /// Replaces `$NAME`, `${NAME}` and `${NAME:-default}`.
    fn variables(&self, text: &str, escape: bool) -> Result<Vec<u8>, PatternError> {
        let mut out = Vec::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            let (before, after) = rest.split_at(at);
            out.extend_from_slice(before.as_bytes());
            let after = &after[1..];
            if escape && before.ends_with('\\') {
                out.push(b'$');
                rest = after;
                continue;
            }
            let (name, default, tail) = variable(after)?;
            if name.is_empty() {
                out.push(b'$');
                rest = after;
                continue;
            }
            let value = self.lookup(name, default, escape)?;
            out.extend(value);
            rest = tail;
        }
        out.extend_from_slice(rest.as_bytes());
        Ok(out)
    }

    fn lookup(&self, name: &str, default: Option<&str>, escape: bool) -> Result<Vec<u8>, PatternError> {
        let value = match name {
            "WORKDIR" => Some(self.workdir.as_os_str().to_owned()),
            "HOME" => Some(self.home.as_os_str().to_owned()),
            _ => (self.var)(name).filter(|v| !v.is_empty()),
        };
        match (value, default) {
            (Some(value), _) if escape => Ok(escaped(value.as_bytes())),
            (Some(value), _) => Ok(value.into_vec()),
            (None, Some(default)) => self.default(default, escape),
            (None, None) => Err(PatternError::Unset(name.into())),
        }
    }

    /// A default may start with `~`.
    fn default(&self, text: &str, escape: bool) -> Result<Vec<u8>, PatternError> {
        if text == "~" || text.starts_with("~/") { self.absolute(text, escape) } else { self.variables(text, escape) }
    }

    /// Works a plain path out: absolute, without `.` and `..`, wildcards taken as ordinary characters.
    pub fn path(&self, text: &str) -> Result<PathBuf, PatternError> {
        let bytes = self.absolute(text, false)?;
        if is_plain(&bytes) {
            return Ok(PathBuf::from(OsString::from_vec(bytes)));
        }
        check_depth(&bytes)?;
        Ok(plain(Path::new(OsStr::from_bytes(&bytes))))
    }
}

/// Refuses a path that leaves the root by `..`.
fn check_depth(path: &[u8]) -> Result<(), PatternError> {
    let deeper = |depth: usize, name: &[u8]| match name {
        b"." => Some(depth),
        b".." => depth.checked_sub(1),
        _ => Some(depth + 1),
    };
    split(path).try_fold(0usize, deeper).map(drop).ok_or(PatternError::AboveRoot)
}

/// Drops `.`, `..` and doubled slashes by text alone.
pub(crate) fn plain(path: &Path) -> PathBuf {
    let mut out = PathBuf::from("/");
    for part in path.components() {
        match part {
            std::path::Component::Normal(name) => out.push(name),
            std::path::Component::ParentDir => {
                out.pop();
            }
            _ => {}
        }
    }
    out
}

/// Splits what follows a `$` into name, default and rest.
fn variable(after: &str) -> Result<(&str, Option<&str>, &str), PatternError> {
    let word = |s: &str| s.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(s.len());
    let Some(inner) = after.strip_prefix('{') else {
        let (name, tail) = after.split_at(word(after));
        return Ok((name, None, tail));
    };
    let (inner, tail) = inner.split_once('}').ok_or(PatternError::Unclosed('{'))?;
    let (name, default) = inner.split_at(word(inner));
    Ok((name, default.strip_prefix(":-"), tail))
}

pub(super) fn escaped(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    for byte in bytes {
        if b"\\*?[]{},$".contains(byte) {
            out.push(b'\\');
        }
        out.push(*byte);
    }
    out
}

/// A pattern over absolute paths: `*`, `?`, `[a-z]`, `{a,b}` within a component, `**` for any number of components.
///
/// It matches a name and everything below it. Written without a leading `/` or `~` it is relative to the working
/// directory; with a leading `**/` it matches anywhere.
#[derive(Debug, Clone)]
pub struct Pattern {
    text: Arc<str>,
    alternatives: Vec<Alternative>,
}

impl Pattern {
    /// Compiles `text`.
    pub fn parse(text: &str, base: &Base) -> Result<Self, PatternError> {
        let absolute = base.absolute(text, true)?;
        if absolute.len() > 8192 {
            return Err(PatternError::TooLarge);
        }
        let mut written = Vec::new();
        braces(&absolute, &mut written)?;
        if !lacks_a_name(&absolute) && written.iter().any(|text| lacks_a_name(text)) {
            return Err(PatternError::NoName);
        }
        let alternatives = written.iter().map(|w| Alternative::parse(w)).collect::<Result<_, _>>()?;
        Ok(Self { text: text.into(), alternatives })
    }

    /// The pattern that names exactly `path` and what is below it.
    pub fn of_path(path: &Path) -> Self {
        Self { text: path.to_string_lossy().into(), alternatives: vec![Alternative::of_path(plain(path))] }
    }

    pub(super) fn alternatives(&self) -> &[Alternative] {
        &self.alternatives
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it names `path` or something that `path` lies below.
    pub fn matches(&self, path: &Path) -> bool {
        self.matches_probe(&Probe::new(path))
    }

    pub(crate) fn matches_probe(&self, probe: &Probe) -> bool {
        self.alternatives.iter().any(|a| a.matches(probe))
    }

    /// Whether `path` is a place above something it could match, so that moving a directory there or away would bring
    /// names under it or take them out.
    ///
    /// A leading `**` does not count: `.git` is above `**/.git/hooks/**`, a project that holds it is not.
    pub fn matches_above(&self, path: &Path) -> bool {
        self.matches_above_probe(&Probe::new(path))
    }

    pub(crate) fn matches_above_probe(&self, probe: &Probe) -> bool {
        self.alternatives.iter().any(|a| matches!(a.above(probe), Above::Named | Above::Within))
    }

    /// Whether `path` is a place above it that the pattern itself names, as `.git` and `.git/hooks` are for
    /// `**/.git/hooks/**`; an inner `**` does not count either.
    pub fn names_above(&self, path: &Path) -> bool {
        self.names_above_probe(&Probe::new(path))
    }

    pub(crate) fn names_above_probe(&self, probe: &Probe) -> bool {
        self.alternatives.iter().any(|a| a.above(probe) == Above::Named)
    }

    /// Whether a grant of `path` is a grant of what this pattern names: it matches, or is the directory of a final `/**`.
    pub fn is_granted_by(&self, path: &Path) -> bool {
        let probe = Probe::new(path);
        self.alternatives
            .iter()
            .any(|a| a.matches(&probe) || (a.tree && a.above(&probe) == Above::Named && a.is_last(&probe)))
    }

    /// The one path it names, if it holds no wildcard; the first, if braces or a symbolic link make it several.
    pub fn exact(&self) -> Option<&Path> {
        self.exacts().next().filter(|_| self.alternatives.iter().all(|a| a.exact.is_some()))
    }

    /// Whether it could match something in one of the trees, or all of it.
    pub fn reaches(&self, trees: &[&Path]) -> bool {
        self.alternatives.iter().any(|alternative| alternative.reaches(trees))
    }

    /// Whether a wildcard in it could match something in one of the trees.
    pub fn reaches_by_wildcard(&self, trees: &[&Path]) -> bool {
        self.alternatives.iter().any(|alternative| alternative.exact.is_none() && alternative.reaches(trees))
    }

    /// All paths it names outright: a mask on each holds it as far as they exist.
    pub fn exacts(&self) -> impl Iterator<Item = &Path> {
        self.alternatives.iter().filter_map(|a| a.exact.as_deref())
    }

    /// Adds what the pattern means where its plain start runs through symbolic links; `real` gives the real path of a
    /// path if that is another one.
    pub(crate) fn resolve(&mut self, mut real: impl FnMut(&Path) -> Option<PathBuf>) {
        let anchored = self.alternatives.iter().filter(|a| !a.floating());
        let more: Vec<_> = anchored.filter_map(|a| a.restarted(&mut real)).filter(Alternative::is_small).collect();
        self.alternatives.extend(more);
    }

    /// Hands out what it compiles to, piece by piece: equal for equal meanings.
    pub(crate) fn pieces(&self, mut take: impl FnMut(&[u8])) {
        for alternative in &self.alternatives {
            take(alternative.exact.as_ref().map_or(b"", |path| path.as_os_str().as_bytes()));
            alternative.parts.iter().for_each(|part| take(part.bytes()));
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A path made ready to be tried against many patterns: its names, and what each is looked up by.
pub(crate) struct Probe<'a> {
    pub(crate) bytes: &'a [u8],
    /// Which names it holds, one bit each.
    names: u64,
    depth: usize,
    /// The first names, which are all for most paths, so that nothing is allocated.
    first: [Step; FEW],
    rest: Vec<Step>,
}

/// How many names a path usually has at most.
const FEW: usize = 16;

/// One name of a path.
#[derive(Clone, Copy, Default)]
struct Step {
    start: u32,
    end: u32,
    name: u64,
    /// The key of the path up to here.
    path: u64,
}

impl<'a> Probe<'a> {
    pub(crate) fn new(path: &'a Path) -> Self {
        let bytes = path.as_os_str().as_bytes();
        let mut probe = Self { bytes, names: 0, depth: 0, first: [Step::default(); FEW], rest: Vec::new() };
        let mut path = index::ROOT;
        for name in split(bytes) {
            let start = name.as_ptr() as usize - bytes.as_ptr() as usize;
            let key = index::hash(0, name);
            path = index::step(path, key);
            probe.names |= bit(name);
            probe.push(Step { start: start as u32, end: (start + name.len()) as u32, name: key, path });
        }
        probe
    }

    fn push(&mut self, step: Step) {
        match self.first.get_mut(self.depth) {
            Some(place) => *place = step,
            None => self.rest.push(step),
        }
        self.depth += 1;
    }

    fn step(&self, at: usize) -> &Step {
        self.first.get(at).unwrap_or_else(|| &self.rest[at - FEW])
    }

    /// How many names it has.
    pub(super) fn depth(&self) -> usize {
        self.depth
    }

    pub(super) fn name(&self, at: usize) -> &'a [u8] {
        let step = self.step(at);
        &self.bytes[step.start as usize..step.end as usize]
    }

    pub(super) fn name_key(&self, at: usize) -> u64 {
        self.step(at).name
    }

    /// The path's first `depth` names as a path.
    pub(super) fn prefix(&self, depth: usize) -> &'a [u8] {
        if depth == 0 { b"/" } else { &self.bytes[..self.step(depth - 1).end as usize] }
    }

    /// The key of [`Self::prefix`].
    pub(super) fn path_key(&self, depth: usize) -> u64 {
        if depth == 0 { index::ROOT } else { self.step(depth - 1).path }
    }
}

fn split(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split(|b| *b == b'/').filter(|name| !name.is_empty())
}

/// One of 64 bits for a name: length and ends are enough to tell most apart.
fn bit(name: &[u8]) -> u64 {
    let byte = |at: usize| u32::from(name.get(at).copied().unwrap_or(0));
    let last = u32::from(name.last().copied().unwrap_or(0));
    let mixed = byte(0) ^ (byte(1) << 3) ^ (byte(2) << 7) ^ (last << 11) ^ ((name.len() as u32) << 16);
    1 << (mixed.wrapping_mul(0x9E37_79B9) >> 26)
}

/// A pattern with its braces written out.
#[derive(Debug, Clone)]
pub(super) struct Alternative {
    /// The path, if there is no wildcard.
    exact: Option<PathBuf>,
    /// The components otherwise.
    parts: Vec<Part>,
    /// The bits of its plain names: a path that lacks one cannot match.
    needs: u64,
    /// The bit of the first plain name: a path that lacks it cannot be above, unless the pattern starts with `/`.
    first: u64,
    /// Whether it was written with a final `/**`.
    tree: bool,
}

/// What stands between two slashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// `**`.
    Deep,
    /// `*`.
    Any,
    /// A plain name.
    Name(Box<[u8]>),
    /// A name with wildcards.
    Glob(Box<[u8]>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Above {
    No,
    /// At a name of the pattern.
    Named,
    /// Somewhere an inner `**` stands for.
    Within,
}

impl Alternative {
    fn parse(text: &[u8]) -> Result<Self, PatternError> {
        if is_plain(text) {
            return Ok(Self::of_path(PathBuf::from(OsStr::from_bytes(text))));
        }
        let mut parts: Vec<Part> = Vec::new();
        for name in split(text) {
            match name {
                b"." => {}
                b".." => match parts.last() {
                    None => return Err(PatternError::AboveRoot),
                    Some(Part::Name(_)) => {
                        parts.pop();
                    }
                    Some(_) => return Err(PatternError::Parent),
                },
                b"**" if parts.last() == Some(&Part::Deep) => {}
                b"**" => parts.push(Part::Deep),
                b"*" => parts.push(Part::Any),
                name => parts.push(component(name)?),
            }
        }
        let tree = parts.last() == Some(&Part::Deep);
        if let Some(last) = parts.last_mut().filter(|_| tree) {
            // What matches also matches below, so a final `**` is any one name.
            *last = Part::Any;
            if parts.len() == 1 {
                parts.insert(0, Part::Deep);
            }
        }
        let whole = Self::of(parts, tree);
        if whole.is_small() { Ok(whole) } else { Err(PatternError::TooLarge) }
    }

    /// Whether its states fit one word; a plain path needs none.
    fn is_small(&self) -> bool {
        self.exact.is_some() || self.parts.len() <= 60
    }

    /// The path, if there is no wildcard.
    pub fn exact(&self) -> Option<&Path> {
        self.exact.as_deref()
    }

    /// The components, if there are wildcards.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    fn of_path(path: PathBuf) -> Self {
        let needs = split(path.as_os_str().as_bytes()).fold(0, |bits, name| bits | bit(name));
        Self { exact: Some(path), parts: Vec::new(), needs, first: 0, tree: false }
    }

    fn of(parts: Vec<Part>, tree: bool) -> Self {
        if parts.iter().all(|p| matches!(p, Part::Name(_))) {
            return Self::of_path(joined(&parts));
        }
        let bits = |part: &Part| if let Part::Name(name) = part { bit(name) } else { 0 };
        let needs = parts.iter().map(bits).fold(0, |all, bit| all | bit);
        let first = parts.iter().find(|p| !matches!(p, Part::Deep)).map_or(0, bits);
        Self { exact: None, parts, needs, first, tree }
    }

    fn floating(&self) -> bool {
        self.parts.first() == Some(&Part::Deep)
    }

    fn reaches(&self, trees: &[&Path]) -> bool {
        let count = self.parts.iter().take_while(|p| matches!(p, Part::Name(_))).count();
        let start = self.exact.clone().unwrap_or_else(|| joined(&self.parts[..count]));
        let start = start.as_os_str().as_bytes();
        trees.iter().any(|tree| meets(start, tree.as_os_str().as_bytes()))
    }

    /// The same with its plain start replaced, if `real` knows another for it.
    fn restarted(&self, real: &mut impl FnMut(&Path) -> Option<PathBuf>) -> Option<Self> {
        if let Some(exact) = &self.exact {
            return real(exact).map(Self::of_path);
        }
        let count = self.parts.iter().take_while(|p| matches!(p, Part::Name(_))).count();
        let (start, rest) = self.parts.split_at(count);
        let other = real(&joined(start))?;
        let names = split(other.as_os_str().as_bytes()).map(|n| Part::Name(n.into()));
        Some(Self::of(names.chain(rest.iter().cloned()).collect(), self.tree))
    }

    fn matches(&self, probe: &Probe) -> bool {
        if self.needs & !probe.names != 0 {
            return false;
        }
        match &self.exact {
            Some(exact) => contains(exact.as_os_str().as_bytes(), probe.bytes),
            None => self.walk(probe.bytes).is_none(),
        }
    }

    fn above(&self, probe: &Probe) -> Above {
        if let Some(exact) = &self.exact {
            let exact = exact.as_os_str().as_bytes();
            let above = exact != probe.bytes && contains(probe.bytes, exact);
            return if above { Above::Named } else { Above::No };
        }
        if self.floating() && self.first & !probe.names != 0 {
            return Above::No;
        }
        self.walk(probe.bytes).map_or(Above::No, |end| self.place(end))
    }

    fn place(&self, end: End) -> Above {
        // With a leading `**`, the states before it and right after it are held by every path.
        let held = if self.floating() { 0b11 } else { 0 };
        match (end.named & !held, end.all & !held) {
            (0, 0) => Above::No,
            (0, _) => Above::Within,
            _ => Above::Named,
        }
    }

    /// Whether only the last part is left to match.
    fn is_last(&self, probe: &Probe) -> bool {
        self.walk(probe.bytes).is_some_and(|end| end.named & (1 << (self.parts.len() - 1)) != 0)
    }

    /// Walks the path one name at a time, holding every state (the number of parts done) it could be in; `None` as soon
    /// as all parts are done, else the states at its end.
    fn walk(&self, path: &[u8]) -> Option<End> {
        let done = 1u64 << self.parts.len();
        let mut end = End { named: 0, all: self.past_deep(1) };
        for name in split(path) {
            let (mut stays, mut named, mut left) = (0u64, 0u64, end.all);
            while left != 0 {
                let at = left.trailing_zeros() as usize;
                left &= left - 1;
                match self.parts.get(at) {
                    Some(Part::Deep) => stays |= 1 << at,
                    Some(part) if part.matches(name) => named |= 2 << at,
                    _ => {}
                }
            }
            if named & done != 0 {
                return None;
            }
            end = End { named, all: self.past_deep(stays | named) };
            if end.all == 0 {
                break;
            }
        }
        (done != 1).then_some(end)
    }

    /// Adds the states that a `**` standing for nothing leads to.
    fn past_deep(&self, mut states: u64) -> u64 {
        for (at, part) in self.parts.iter().enumerate() {
            if *part == Part::Deep && states & (1 << at) != 0 {
                states |= 2 << at;
            }
        }
        states
    }
}

/// Where a walk ended.
#[derive(Clone, Copy)]
struct End {
    /// States entered by the last name.
    named: u64,
    /// All states.
    all: u64,
}

/// Whether there is nothing between two slashes, or behind the last.
fn lacks_a_name(text: &[u8]) -> bool {
    text.ends_with(b"/") || text.windows(2).any(|pair| pair == b"//")
}

/// The most bytes that a file system takes for a name: `NAME_MAX`.
const LONGEST_NAME: usize = 255;

/// Whether `text` is a path that needs no work: no wildcard, escape, `.`, `..` or slash too many.
fn is_plain(text: &[u8]) -> bool {
    let plain_name = |name: &[u8]| !matches!(name, b"" | b"." | b"..") && name.len() <= LONGEST_NAME;
    !text.iter().any(|b| b"*?[\\".contains(b)) && text.len() > 1 && text[1..].split(|b| *b == b'/').all(plain_name)
}

impl Part {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Deep => b"**",
            Self::Any => b"*",
            Self::Name(name) | Self::Glob(name) => name,
        }
    }

    fn matches(&self, name: &[u8]) -> bool {
        match self {
            Self::Deep | Self::Any => true,
            Self::Name(own) => **own == *name,
            Self::Glob(glob) => glob_matches(glob, name),
        }
    }
}

fn joined(parts: &[Part]) -> PathBuf {
    let names = parts.iter().filter_map(|p| if let Part::Name(n) = p { Some(OsStr::from_bytes(n)) } else { None });
    std::iter::once(OsStr::new("/")).chain(names).collect()
}

/// Whether two trees have something in common.
fn meets(one: &[u8], other: &[u8]) -> bool {
    contains(one, other) || contains(other, one)
}

/// Whether `path` is `tree` or lies below it.
pub(crate) fn contains(tree: &[u8], path: &[u8]) -> bool {
    path.len() >= tree.len()
        && path.starts_with(tree)
        && (path.len() == tree.len() || path[tree.len()] == b'/' || tree == b"/")
}

/// Checks one component and strips its escapes if it is a plain name.
pub(super) fn component(text: &[u8]) -> Result<Part, PatternError> {
    let (mut plain, mut wild, mut at) = (Vec::with_capacity(text.len()), false, 0);
    while let Some(&byte) = text.get(at) {
        match byte {
            b'\\' => {
                at += 1;
                plain.push(*text.get(at).ok_or(PatternError::Backslash)?);
            }
            b'*' if text.get(at + 1) == Some(&b'*') => return Err(PatternError::DoubleStar),
            b'*' | b'?' => wild = true,
            b'[' => {
                let end = class_end(text, at).ok_or(PatternError::Unclosed('['))?;
                if !text[at..end].is_ascii() {
                    return Err(PatternError::Class);
                }
                check_ranges(&text[at + 1..end - 1])?;
                (wild, at) = (true, end - 1);
            }
            _ => plain.push(byte),
        }
        at += 1;
    }
    if !wild && plain.len() > LONGEST_NAME {
        return Err(PatternError::LongName);
    }
    Ok(if wild { Part::Glob(text.into()) } else { Part::Name(plain.into()) })
}
