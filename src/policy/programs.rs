//! The matcher for programs: [`ProgramPattern`].

use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use super::glob::{first_brace, glob_matches};
use super::rules::{Base, Pattern, PatternError, component};

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
    pub fn matches_name(&self, name: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Name(own) => glob_matches(own.as_bytes(), name.as_bytes()),
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
