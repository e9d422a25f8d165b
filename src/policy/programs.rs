//! The matchers for programs: [`ProgramPattern`] for which one, [`Arguments`] for what it is given, [`Programs`] for a list
//! of rules that is looked up by name.
//!
//! Arguments are bytes, as the program gets them. Nothing in here looks at the file system.

use std::collections::HashMap;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use super::glob::{braces, check_ranges, class_end, first_brace, glob_matches};
use super::options;
use super::rules::{Base, Pattern, PatternError, component, escaped};
use crate::event::RuleId;

/// One program rule.
#[derive(Debug, Clone)]
pub struct ProgramRule {
    /// `*`, a name (`sudo`, `python3*`) or an absolute path pattern.
    pub program: ProgramPattern,
    /// What its arguments must be; `None` for any.
    pub args: Option<Arguments>,
    /// Where it stands.
    pub rule: RuleId,
    /// Its own words.
    pub message: Option<Arc<str>>,
}

impl fmt::Display for ProgramRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.args {
            None => write!(f, "{}", self.program),
            Some(args) if args.words().next().is_none() => write!(f, "{} (no arguments)", self.program),
            Some(args) => write!(f, "{} {args}", self.program),
        }
    }
}

/// A command as far as it is known: what rules are held against.
#[derive(Debug, Clone, Copy)]
pub struct Command<'a> {
    /// The file, where it is known.
    pub path: Option<&'a Path>,
    /// The names it goes by, besides that of its file.
    pub names: &'a [&'a [u8]],
    /// Its arguments, without its own name.
    pub args: &'a [Word<'a>],
    /// Whether more arguments may follow that are not known.
    pub more: bool,
}

/// One argument.
pub type Word<'a> = std::borrow::Cow<'a, [u8]>;

impl<'a> Command<'a> {
    /// All names it goes by, that of its file first.
    pub fn all_names(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let own = self.path.and_then(Path::file_name).map(OsStrExt::as_bytes);
        own.into_iter().chain(self.names.iter().copied())
    }
}

/// A list of program rules.
#[derive(Debug, Clone, Default)]
pub struct Programs {
    rules: Vec<ProgramRule>,
    /// Where the rules for one plain name stand.
    named: HashMap<Box<[u8]>, Vec<usize>>,
    /// Where the others stand.
    others: Vec<usize>,
}

impl Programs {
    /// Adds a rule behind those before it.
    pub fn push(&mut self, rule: ProgramRule) {
        let at = self.rules.len();
        match &rule.program {
            ProgramPattern::Name(name) if !name.bytes().any(|b| b"*?[\\".contains(&b)) => {
                self.named.entry(name.as_bytes().into()).or_default().push(at);
            }
            _ => self.others.push(at),
        }
        self.rules.push(rule);
    }

    /// All rules, in order.
    pub fn iter(&self) -> impl Iterator<Item = &ProgramRule> {
        self.rules.iter()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The first rule that speaks of a program with this file or one of these names and that `holds`.
    pub fn first(
        &self,
        path: Option<&Path>,
        names: &[&[u8]],
        mut holds: impl FnMut(&ProgramRule) -> bool,
    ) -> Option<&ProgramRule> {
        let own = path.and_then(Path::file_name).map(OsStrExt::as_bytes);
        let mut first: Option<usize> = None;
        for name in own.into_iter().chain(names.iter().copied()) {
            let listed = self.named.get(name).map(Vec::as_slice).unwrap_or_default();
            let found = listed.iter().find(|at| holds(&self.rules[**at]));
            first = first.into_iter().chain(found.copied()).min();
        }
        let speaks = |rule: &ProgramRule| {
            path.is_some_and(|path| rule.program.matches(path)) || names.iter().any(|name| rule.program.names(name))
        };
        let mut others = self.others.iter().take_while(|at| first.is_none_or(|first| **at < first));
        let other = others.find(|at| speaks(&self.rules[**at]) && holds(&self.rules[**at]));
        other.copied().or(first).map(|at| &self.rules[at])
    }
}

/// What a rule says of arguments: a pattern for each, and whether more may follow.
#[derive(Debug, Clone)]
pub struct Arguments {
    fixed: Vec<Argument>,
    /// Whether the last word was a lone `*`.
    rest: bool,
}

/// A pattern for one argument.
#[derive(Debug, Clone)]
struct Argument {
    text: Arc<str>,
    /// Its alternatives, braces written out.
    globs: Vec<Box<[u8]>>,
}

impl Argument {
    /// Compiles `text`; `~` and variables are worked out.
    fn parse(text: &str, base: &Base) -> Result<Self, PatternError> {
        let whole = base.argument(text)?;
        let mut written = Vec::new();
        braces(&whole, &mut written)?;
        written.iter().try_for_each(|glob| check_glob(glob))?;
        Ok(Self { text: text.into(), globs: written.into_iter().map(Vec::into_boxed_slice).collect() })
    }

    fn matches(&self, argument: &[u8]) -> bool {
        self.globs.iter().any(|glob| glob_matches(glob, argument))
    }
}

/// Refuses a glob that can match nothing or says something else than it seems to.
fn check_glob(glob: &[u8]) -> Result<(), PatternError> {
    let mut at = 0;
    while let Some(&byte) = glob.get(at) {
        match byte {
            b'\\' if at + 1 == glob.len() => return Err(PatternError::Backslash),
            b'\\' => at += 1,
            b'*' if glob.get(at + 1) == Some(&b'*') => return Err(PatternError::Stars),
            b'[' => {
                let end = class_end(glob, at).ok_or(PatternError::Unclosed('['))?;
                if !glob[at..end].is_ascii() {
                    return Err(PatternError::Class);
                }
                check_ranges(&glob[at + 1..end - 1])?;
                at = end - 1;
            }
            _ => {}
        }
        at += 1;
    }
    Ok(())
}

impl Arguments {
    /// Compiles one pattern for each argument; a last lone `*` stands for any number, also none.
    pub fn parse<S: AsRef<str>>(words: &[S], base: &Base) -> Result<Self, PatternError> {
        let (fixed, rest) = match words {
            [fixed @ .., last] if last.as_ref() == "*" => (fixed, true),
            fixed => (fixed, false),
        };
        let fixed = fixed.iter().map(|word| Argument::parse(word.as_ref(), base)).collect::<Result<_, _>>()?;
        Ok(Self { fixed, rest })
    }

    /// The patterns as they were written.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        self.fixed.iter().map(|one| &*one.text).chain(self.rest.then_some("*"))
    }

    /// Whether these are exactly the arguments that the patterns speak of.
    pub fn matches(&self, args: &[Word<'_>]) -> bool {
        self.matches_some(args, false)
    }

    /// The same; with `more`, arguments that are not known may follow, and the answer holds whatever they are.
    fn matches_some(&self, args: &[Word<'_>], more: bool) -> bool {
        let count = self.fixed.len();
        let fits = if self.rest { args.len() >= count } else { args.len() == count && !more };
        fits && self.fixed.iter().zip(args).all(|(pattern, argument)| pattern.matches(argument))
    }

    /// Whether a command is one that the patterns speak of, options that stand before them left aside: what `git push *`
    /// denies is denied as `git -C dir push` too. For rules that refuse; a rule that allows is exact.
    pub fn holds(&self, command: &Command<'_>) -> bool {
        let Command { args, more, .. } = *command;
        if self.matches_some(args, more) {
            return true;
        }
        let mut left = args;
        // What starts with anything or with nothing has no place where options would stop.
        while !self.fixed.is_empty() {
            let Some(skipped) = options::leading(command, left) else { return false };
            left = &left[skipped..];
            if self.matches_some(left, more) {
                return true;
            }
        }
        false
    }

    /// Hands out what it compiles to, piece by piece: equal for equal meanings.
    pub(crate) fn pieces(&self, mut take: impl FnMut(&[u8])) {
        for argument in &self.fixed {
            take(b"argument");
            argument.globs.iter().for_each(|glob| take(glob));
        }
        take(if self.rest { b"more" } else { b"end" });
    }
}

impl fmt::Display for Arguments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, word) in self.words().enumerate() {
            let space = if at == 0 { "" } else { " " };
            match word.is_empty() || word.contains([' ', '\t', '\'', '"']) {
                true => write!(f, "{space}'{}'", word.replace('\'', r"'\''"))?,
                false => write!(f, "{space}{word}")?,
            }
        }
        Ok(())
    }
}

/// Splits a rule into words as a shell splits a line; what was quoted is escaped, so that it matches only itself.
pub fn words(text: &str) -> Result<Vec<String>, PatternError> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    let literal = |word: &mut Option<String>, c: char| {
        let word = word.get_or_insert_default();
        if c == '~' || (c.is_ascii() && escaped(&[c as u8]).len() > 1) {
            word.push('\\');
        }
        word.push(c);
    };
    while let Some(c) = chars.next() {
        match c {
            c if c.is_whitespace() => words.extend(word.take()),
            '\\' => literal(&mut word, chars.next().ok_or(PatternError::Backslash)?),
            '\'' | '"' => {
                word.get_or_insert_default();
                loop {
                    match chars.next().ok_or(PatternError::Unclosed(c))? {
                        end if end == c => break,
                        '\\' if c == '"' => {
                            let next = chars.next().ok_or(PatternError::Unclosed(c))?;
                            if !"$`\"\\".contains(next) {
                                literal(&mut word, '\\');
                            }
                            literal(&mut word, next);
                        }
                        inner => literal(&mut word, inner),
                    }
                }
            }
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

/// Which programs a rule speaks of.
#[derive(Debug, Clone)]
pub enum ProgramPattern {
    /// `*`: every program.
    Any,
    /// A name, wildcards allowed.
    Name(Arc<str>),
    /// A path pattern.
    Path(Pattern),
}

impl ProgramPattern {
    /// Compiles `text`.
    pub fn parse(text: &str, base: &Base) -> Result<Self, PatternError> {
        match text {
            "" => Err(PatternError::Empty),
            "*" => Ok(Self::Any),
            _ if text.starts_with(['/', '~', '$']) || text.starts_with("./") || text.starts_with("**/") => {
                Pattern::parse(text, base).map(Self::Path)
            }
            _ if text.contains('/') => Err(PatternError::Program),
            _ if first_brace(text.as_bytes())?.is_some() => Err(PatternError::Program),
            _ => component(text.as_bytes()).map(|_| Self::Name(text.into())),
        }
    }

    /// Whether it names the program at `path`, by its path or its last name.
    pub fn matches(&self, path: &Path) -> bool {
        match self {
            Self::Any => true,
            Self::Name(name) => path.file_name().is_some_and(|own| glob_matches(name.as_bytes(), own.as_bytes())),
            Self::Path(pattern) => pattern.matches(path),
        }
    }

    /// Hands out what it compiles to, piece by piece: equal for equal meanings.
    pub(crate) fn pieces(&self, mut take: impl FnMut(&[u8])) {
        match self {
            Self::Any => take(b"any"),
            Self::Name(name) => {
                take(b"name");
                take(name.as_bytes());
            }
            Self::Path(pattern) => pattern.pieces(take),
        }
    }

    /// Whether it is a name rule that speaks of `name`.
    pub fn names(&self, name: &[u8]) -> bool {
        match self {
            Self::Any => true,
            Self::Name(own) => glob_matches(own.as_bytes(), name),
            Self::Path(_) => false,
        }
    }
}

impl fmt::Display for ProgramPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Any => "*",
            Self::Name(name) => name,
            Self::Path(pattern) => pattern.text(),
        })
    }
}
