//! The smallest edit that would allow what was denied: as a flag, and as an entry of a policy file. Pure text.

use std::fmt;

use crate::event::{Effect, RuleId};

/// An edit. Paths are as one would write them in the working directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fix {
    /// `-r PATH`.
    Read(String),
    /// `-w PATH`.
    Write(String),
    /// `--net-unix PATH`.
    Unix(String),
    /// `--net-allow RULE`.
    Reach {
        /// The rule.
        rule: String,
        /// What the network's mode is before.
        before: Before,
    },
    /// A rule for each name that the program looks up: it was kept from the only name server there is.
    Names,
    /// `--publish ADDRESS:PORT`.
    Publish {
        /// Both.
        port: String,
        /// What the network's mode is before.
        before: Before,
    },
    /// A program that must be allowed; there is no flag for that.
    Program(String),
    /// Lines drawn further up in the file that draws them; there is no flag for that.
    Tiers {
        /// Up to which tier deeds would pass.
        allow: u8,
        /// Up to which a person would be asked.
        ask: u8,
        /// What would become of what cannot be undone.
        irreversible: Option<Effect>,
        /// The file.
        file: String,
    },
    /// A flag that must go.
    WithoutFlag(String),
    /// A rule of a file that must go.
    WithoutRule(RuleId),
}

/// The network's mode, as far as it stands in the way of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    /// It takes rules.
    Rules,
    /// It is `none`.
    None,
    /// It is `none` because of the flag `--net none`, which a rule cannot stand beside.
    NoneByFlag,
}

impl Fix {
    /// The flag, if a flag does it.
    pub fn flag(&self) -> Option<String> {
        match self {
            Self::Read(path) => Some(format!("-r {}", word(path))),
            Self::Write(path) => Some(format!("-w {}", word(path))),
            Self::Unix(path) => Some(format!("--net-unix {}", word(path))),
            Self::Reach { rule, .. } => Some(format!("--net-allow {}", bracketed(rule))),
            Self::Publish { port, .. } => Some(format!("--publish {}", bracketed(port))),
            Self::Names | Self::Program(_) | Self::Tiers { .. } | Self::WithoutFlag(_) | Self::WithoutRule(_) => None,
        }
    }

    /// The entry in a policy file, if an entry does it.
    pub fn yaml(&self) -> Option<String> {
        let mode = |before: &Before| if *before == Before::Rules { "" } else { "mode: rules, " };
        match self {
            Self::Read(path) => Some(format!("filesystem: {{read: [{}]}}", path_scalar(path))),
            Self::Write(path) => Some(format!("filesystem: {{write: [{}]}}", path_scalar(path))),
            Self::Unix(path) => Some(format!("network: {{unix: [{}]}}", path_scalar(path))),
            Self::Reach { rule, before } => Some(format!("network: {{{}allow: [{}]}}", mode(before), scalar(rule))),
            Self::Publish { port, .. } => Some(format!("network: {{publish: [{}]}}", scalar(port))),
            Self::Program(path) => Some(format!("exec: {{allow: [{}]}}", scalar(path))),
            Self::Tiers { allow, ask, irreversible, .. } => Some(tiers(*allow, *ask, *irreversible)),
            Self::Names | Self::WithoutFlag(_) | Self::WithoutRule(_) => None,
        }
    }
}

fn tiers(allow: u8, ask: u8, irreversible: Option<Effect>) -> String {
    let ask = if ask > allow { format!(", ask: {ask}") } else { String::new() };
    let irreversible = match irreversible {
        None => "",
        Some(Effect::Allow) => ", irreversible: allow",
        Some(Effect::Ask) => ", irreversible: ask",
        Some(Effect::Deny) => ", irreversible: deny",
    };
    format!("tiers: {{allow: {allow}{ask}{irreversible}}}")
}

impl fmt::Display for Fix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Names => {
                let how = "for each name it looks up (run it with --net rules, and the log says which)";
                return write!(f, "--net-allow HOST {how}");
            }
            Self::Program(path) => return write!(f, "exec: {{allow: [{path}]}} in the policy"),
            Self::Tiers { allow, ask, irreversible, file } => {
                return write!(f, "{} in {file}", tiers(*allow, *ask, *irreversible));
            }
            Self::WithoutFlag(flag) => return write!(f, "a command line without {flag}"),
            Self::WithoutRule(rule) => return write!(f, "a policy without the rule {rule}"),
            Self::Read(_) | Self::Write(_) | Self::Unix(_) | Self::Reach { .. } | Self::Publish { .. } => {}
        }
        f.write_str(&self.flag().unwrap_or_default())?;
        match self {
            Self::Reach { before: Before::NoneByFlag, .. } | Self::Publish { before: Before::NoneByFlag, .. } => {
                f.write_str(" in place of --net none")
            }
            _ => Ok(()),
        }
    }
}

/// A path as one would type it in a shell.
fn word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,:@%=".contains(c);
    match text {
        "" => ".".into(),
        t if t.chars().all(plain) && !t.starts_with('-') => text.into(),
        t if t.starts_with('-') => format!("'./{}'", t.replace('\'', r"'\''")),
        t => format!("'{}'", t.replace('\'', r"'\''")),
    }
}

/// Brackets are wildcards to a shell.
fn bracketed(text: &str) -> String {
    if text.contains('[') { format!("'{text}'") } else { text.into() }
}

/// A path as a policy file takes it: a `~` or a wildcard at its start is none.
fn path_scalar(text: &str) -> String {
    match text {
        "" => scalar("."),
        t if t.starts_with('~') => scalar(&format!("./{t}")),
        t => scalar(t),
    }
}

/// A string as YAML takes it inside a list in brackets.
fn scalar(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@%=".contains(c);
    let starts = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/' || c == '.');
    // `yes`, `null` and the like, and what might be a number, are quoted with the rest.
    let is_path = text.contains(['/', '.']) && text.len() > 1 || text == ".";
    if starts && is_path && text.chars().all(plain) { text.into() } else { quoted(text) }
}

/// A double-quoted scalar takes what JSON takes.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edit_is_told_as_a_flag_and_as_yaml() {
        let reach = |rule: &str, before| Fix::Reach { rule: rule.into(), before };
        for (fix, flag, yaml) in [
            (Fix::Write("/etc/hosts".into()), "-w /etc/hosts", "filesystem: {write: [/etc/hosts]}"),
            (Fix::Write("".into()), "-w .", "filesystem: {write: [.]}"),
            (Fix::Read("a b".into()), "-r 'a b'", "filesystem: {read: [\"a b\"]}"),
            (Fix::Read("~x".into()), "-r '~x'", "filesystem: {read: [\"./~x\"]}"),
            (Fix::Read("yes".into()), "-r yes", "filesystem: {read: [\"yes\"]}"),
            (
                reach("[2001:db8::1]:443", Before::Rules),
                "--net-allow '[2001:db8::1]:443'",
                "network: {allow: [\"[2001:db8::1]:443\"]}",
            ),
            (
                reach("a.example:443", Before::NoneByFlag),
                "--net-allow a.example:443 in place of --net none",
                "network: {mode: rules, allow: [\"a.example:443\"]}",
            ),
        ] {
            assert_eq!((fix.to_string().as_str(), fix.yaml().as_deref()), (flag, Some(yaml)));
        }
        let tiers = |allow, ask, irreversible| Fix::Tiers { allow, ask, irreversible, file: "team.yaml".into() };
        let drawn = tiers(6, 8, Some(Effect::Deny));
        assert_eq!(drawn.to_string(), "tiers: {allow: 6, ask: 8, irreversible: deny} in team.yaml");
        assert_eq!((tiers(8, 8, None).yaml().as_deref(), drawn.flag()), (Some("tiers: {allow: 8}"), None));
    }
}
