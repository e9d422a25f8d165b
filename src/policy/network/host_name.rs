//! Host names in the one spelling that rules and questions are compared in. Pure text: nothing is looked up.

use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// A host name: lower case, without the last dot; up to 253 characters in labels of 1 to 63 of `a-z`, `0-9`, `-` and `_`,
/// none with a `-` at its start or end. It is never an address, however that is spelled.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostName(Arc<str>);

/// Why a text is no host name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostNameError {
    /// Nothing in it.
    #[error("the name is empty")]
    Empty,
    /// Two dots in a row, or one at the start.
    #[error("there is nothing between two dots, or before the first: a name is written as in `www.example.org`")]
    EmptyLabel,
    /// Outside ASCII.
    #[error("a name holds ASCII characters only: write it in punycode, which starts with `xn--`")]
    NotAscii,
    /// A character that no name has.
    #[error("`{}` cannot stand in a host name", .0.escape_default())]
    Character(char),
    /// A `*` that is not the whole first label.
    #[error("`*` stands alone or as the whole first part of a name, as in `*.example.org`")]
    Wildcard,
    /// A label with a `-` at its start or end.
    #[error("a part of a name neither starts nor ends with `-`")]
    Hyphen,
    /// A label of more than 63 characters.
    #[error("a part of a name is longer than the 63 characters that a host name takes")]
    LongLabel,
    /// More than 253 characters.
    #[error("the name is longer than the 253 characters that a host name takes")]
    Long,
    /// `127.1`, `0x7f000001` and the like.
    #[error("`{0}` reads as a number, which programs take for an address: write the plain address, as in `192.0.2.1`")]
    Number(String),
}

impl HostName {
    /// The most characters that a name has.
    const LONGEST: usize = 253;

    /// Takes `text` if it is a host name; case and one last dot do not matter.
    pub fn new(text: &str) -> Result<Self, HostNameError> {
        let name = text.strip_suffix('.').unwrap_or(text);
        if name.is_empty() {
            return Err(HostNameError::Empty);
        }
        if !name.is_ascii() {
            return Err(HostNameError::NotAscii);
        }
        if name.len() > Self::LONGEST {
            return Err(HostNameError::Long);
        }
        name.split('.').try_for_each(check_label)?;
        if is_number(name) {
            return Err(HostNameError::Number(name.into()));
        }
        Ok(Self(name.to_ascii_lowercase().into()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name, shared.
    pub(super) fn shared(&self) -> Arc<str> {
        self.0.clone()
    }

    /// The names that this one lies below, nearest first.
    pub fn above(&self) -> impl Iterator<Item = &str> {
        self.0.match_indices('.').map(|(dot, _)| &self.0[dot + 1..])
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn check_label(label: &str) -> Result<(), HostNameError> {
    if label.is_empty() {
        return Err(HostNameError::EmptyLabel);
    }
    if label.contains('*') {
        return Err(HostNameError::Wildcard);
    }
    if let Some(other) = label.chars().find(|c| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '_')) {
        return Err(HostNameError::Character(other));
    }
    if label.starts_with('-') || label.ends_with('-') {
        return Err(HostNameError::Hyphen);
    }
    if label.len() > 63 {
        return Err(HostNameError::LongLabel);
    }
    Ok(())
}

/// Whether programs may take the name for an IPv4 address: its last label is a number, as in `inet_aton` and in URLs.
fn is_number(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    let hexadecimal = |text: &str| text.bytes().all(|b| b.is_ascii_hexdigit());
    let prefixed = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    last.bytes().all(|b| b.is_ascii_digit()) || prefixed.is_some_and(hexadecimal) || name.parse::<Ipv4Addr>().is_ok()
}
