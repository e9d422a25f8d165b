//! The shape of a file of cases for `agentbox policy test`: YAML text in, a [`CasesFile`] out, every case with its place.
//!
//! As strict as a policy file and read by the same parser: a case that is skipped tests nothing.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_yaml::Spanned;

use super::file::{At, FileError, PolicyFile, Written, mark, read};
use crate::event::Effect;

/// A file of cases.
#[derive(Debug, Clone)]
pub struct CasesFile {
    /// Shipped profiles and files; they come first.
    pub policies: Vec<String>,
    /// Policies that are written out in the file.
    pub inline: Vec<PolicyFile>,
    /// The working directory.
    pub workdir: Option<PathBuf>,
    /// The cases.
    pub cases: Vec<Case>,
}

/// One case.
#[derive(Debug, Clone)]
pub struct Case {
    /// Where it stands.
    pub at: At,
    /// What is asked.
    pub question: Question,
    /// What the policy should answer.
    pub expect: Effect,
    /// The rule that should say so.
    pub rule: Option<String>,
}

/// What a case asks.
#[derive(Debug, Clone)]
pub enum Question {
    /// May the path be written to?
    Write(PathBuf),
    /// May it be read?
    Read(PathBuf),
    /// May it be made?
    Create(PathBuf),
    /// May it be removed?
    Delete(PathBuf),
    /// May it be connected to?
    Connect(String),
    /// May the name be looked up?
    Resolve(String),
    /// May the program be started with these arguments?
    Exec(Vec<String>),
}

impl CasesFile {
    /// Reads the text of a file; `file` is what errors call it.
    pub fn parse(file: &str, bytes: &[u8]) -> Result<Self, FileError> {
        let file: Arc<str> = file.into();
        let written: Cases = read(&file, bytes)?;
        let (mut policies, mut inline) = (Vec::new(), Vec::new());
        for source in written.policy {
            match source {
                Source::Named(name) => policies.push(name),
                Source::Inline(policy) => inline.push(policy.check(&file)?),
            }
        }
        let cases = written.cases.into_iter().map(|case| {
            let at = At { file: file.clone(), mark: mark(case.referenced) };
            case.value.check(at)
        });
        Ok(Self { policies, inline, workdir: written.workdir, cases: cases.collect::<Result<_, _>>()? })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "the keys policy, workdir and cases")]
struct Cases {
    #[serde(default)]
    policy: Vec<Source>,
    workdir: Option<PathBuf>,
    cases: Vec<Spanned<Keys>>,
}

/// A policy by its name, or written out.
enum Source {
    Named(String),
    Inline(Box<Written>),
}

impl<'de> Deserialize<'de> for Source {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SourceVisitor)
    }
}

struct SourceVisitor;

impl<'de> Visitor<'de> for SourceVisitor {
    type Value = Source;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a policy, or a policy such as {version: 1, …}")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Source, E> {
        Ok(Source::Named(name.into()))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Source, A::Error> {
        Written::deserialize(de::value::MapAccessDeserializer::new(map))
            .map(|written| Source::Inline(Box::new(written)))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a case such as {write: PATH, expect: deny}")]
struct Keys {
    write: Option<PathBuf>,
    read: Option<PathBuf>,
    create: Option<PathBuf>,
    delete: Option<PathBuf>,
    connect: Option<String>,
    resolve: Option<String>,
    exec: Option<Vec<String>>,
    expect: Effect,
    rule: Option<String>,
}

impl Keys {
    fn check(self, at: At) -> Result<Case, FileError> {
        let questions = [
            self.write.map(Question::Write),
            self.read.map(Question::Read),
            self.create.map(Question::Create),
            self.delete.map(Question::Delete),
            self.connect.map(Question::Connect),
            self.resolve.map(Question::Resolve),
            self.exec.map(Question::Exec),
        ];
        let mut questions = questions.into_iter().flatten();
        match (questions.next(), questions.next()) {
            (Some(question), None) => Ok(Case { at, question, expect: self.expect, rule: self.rule }),
            (first, _) => {
                let found = if first.is_none() { "none" } else { "more than one" };
                let expected = "one of write, read, create, delete, connect, resolve, exec".into();
                Err(FileError::WrongType { at, expected, found: found.into() })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> String {
        CasesFile::parse("t.yaml", text.as_bytes()).map_or_else(|error| error.to_string(), |_| "fine".into())
    }

    #[test]
    fn a_file_of_cases_is_read_with_the_place_of_each() {
        let text = "policy: [default, {version: 1, exec: {deny: [curl]}}]\nworkdir: /w\ncases:\n  \
                    - {write: a, expect: allow}\n  - exec: [curl, -s]\n    expect: deny\n    rule: t.yaml exec.deny[0]\n";
        let file = CasesFile::parse("t.yaml", text.as_bytes()).unwrap();
        assert_eq!((file.policies.as_slice(), file.inline.len()), (&["default".to_string()][..], 1));
        let places: Vec<String> = file.cases.iter().map(|case| case.at.to_string()).collect();
        assert_eq!(places, ["t.yaml:4:5", "t.yaml:5:5"]);
        assert!(matches!(&file.cases[1].question, Question::Exec(argv) if argv == &["curl", "-s"]));
        assert_eq!((file.cases[1].expect, file.cases[1].rule.as_deref()), (Effect::Deny, Some("t.yaml exec.deny[0]")));
    }

    #[test]
    fn a_mistake_is_told_with_its_place() {
        for (text, expected) in [
            ("case: []\n", "t.yaml:1:1: unknown key `case`: did you mean `cases`?"),
            ("policy: [default]\n", "the key `cases` is missing"),
            ("cases:\n  - {wriet: a, expect: deny}\n", "t.yaml:2:6: unknown key `wriet`: did you mean `write`?"),
            ("cases:\n  - {write: a, expect: denied}\n", "`denied` is not one of the choices: did you mean `deny`?"),
            ("cases:\n  - {write: a}\n", "the key `expect` is missing"),
            ("cases:\n  - {expect: deny}\n", "t.yaml:2:5: expected one of write, "),
            ("cases:\n  - {write: a, read: b, expect: deny}\n", "found more than one"),
            ("policy: [{version: 1, exce: {}}]\ncases: []\n", "unknown key `exce`: did you mean `exec`?"),
            ("policy: [{exec: {}}]\ncases: []\n", "the key `version` is missing"),
        ] {
            assert!(said(text).contains(expected), "{text}: {}", said(text));
        }
    }
}
