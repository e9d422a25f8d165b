//! Signed heads: a record that vouches, with a key, for all records before it.
//!
//! The chain alone proves nothing against who can write the file: it can be computed anew from any line on. A head
//! cannot, without the key. It is a record like others, whose place the chain fixes, and signs what that has come to:
//!
//! ```text
//! agentbox log head 1
//! key ed25519:<64 digits>
//! run 20261122-154627-7d3a1f
//! seq 17
//! prev <64 digits: SHA-256 of record 16's line>
//! time 2026-11-22T15:46:28.000000Z
//! ```
//!
//! These lines, each with its newline, with the values of the head's own record, are the bytes that Ed25519 signs. The
//! writer signs after the first record, then again and again, and at last after the record that ends the log.

use std::fmt;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::key::{PublicKey, Signature, SigningKey};
use super::line::Link;
use super::run::RunId;
use super::text;

/// How many records may follow a head before there is another.
pub const RECORDS: u64 = 4096;
/// How long a record may wait for its head.
pub const WAIT: Duration = Duration::from_secs(1);

/// A head as its record holds it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct SignedHead {
    /// Its number.
    pub seq: u64,
    /// SHA-256 of the line before it.
    pub prev: String,
    /// When it was signed, RFC 3339.
    pub time: String,
    /// The run.
    pub run: RunId,
    /// The key that signed it.
    pub key: PublicKey,
    /// The signature.
    pub signature: Signature,
}

/// What a head has beyond what every line has.
#[derive(Debug, Serialize)]
pub(super) struct Body<'a> {
    time: String,
    run: &'a str,
    key: PublicKey,
    signature: Signature,
}

impl<'a> Body<'a> {
    /// Signs all that stands before `link`.
    pub(super) fn sign(key: &SigningKey, link: Link<'a>, now: SystemTime) -> Self {
        let (time, run) = (text::rfc3339(now), link.run.as_str());
        let signature = key.sign(signed(&key.public(), run, link.seq, link.prev, &time).as_bytes());
        Self { time, run, key: key.public(), signature }
    }
}

impl SignedHead {
    /// Whether its key has signed it as it stands.
    pub fn holds(&self) -> bool {
        let bytes = signed(&self.key, self.run.as_str(), self.seq, &self.prev, &self.time);
        self.key.has_signed(bytes.as_bytes(), &self.signature)
    }
}

/// The bytes that are signed.
fn signed(key: &PublicKey, run: &str, seq: u64, prev: &str, time: &str) -> String {
    format!("agentbox log head 1\nkey {key}\nrun {run}\nseq {seq}\nprev {prev}\ntime {time}\n")
}

/// How far a log is signed: what stands before the last head whose signature holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// The key. Whether it is the right one is another question.
    pub key: PublicKey,
    /// How many heads there are.
    pub heads: u64,
    /// The number of the last record that a head vouches for.
    pub to: u64,
    /// When that was signed, RFC 3339.
    pub time: String,
}

/// What the heads of a log have against it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Forged {
    /// The signature is not one of what stands before it.
    Signature {
        /// The first record that may have been changed.
        from: u64,
        /// The head's own number, the last that may have been.
        to: u64,
    },
    /// Another key has signed.
    OtherKey {
        /// The key that was to sign.
        expected: PublicKey,
        /// The key that did.
        found: PublicKey,
    },
    /// It is a head of another run.
    OtherRun {
        /// The run whose log it is.
        expected: RunId,
        /// The run that the head names.
        found: RunId,
    },
    /// There is no head.
    NotSigned {
        /// The key that was to sign.
        expected: PublicKey,
    },
    /// The log is ended, and no head vouches for that.
    EndNotSigned {
        /// The first record that no head vouches for.
        from: u64,
    },
}

impl fmt::Display for Forged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signature { from, to } => {
                write!(
                    f,
                    "its signature does not hold: within records {from} to {to} something was changed, removed or "
                )?;
                f.write_str("added, and the chain written anew")
            }
            Self::OtherKey { expected, found } => write!(f, "signed with {found}, and not with {expected}"),
            Self::OtherRun { expected, found } => {
                let [expected, found] = [expected, found].map(|run| text::printable(run.as_str()));
                write!(f, "a head of run {found} in the log of run {expected}")
            }
            Self::NotSigned { expected } => write!(f, "not signed: no head in it is of {expected}"),
            Self::EndNotSigned { from } => {
                write!(
                    f,
                    "its end is not signed: the last head was removed, or what stands from record {from} on was "
                )?;
                f.write_str("put in the place of other records")
            }
        }
    }
}

/// Puts the heads of one log, in their order, to its chain.
#[derive(Debug)]
pub(super) struct Heads {
    expected: Option<PublicKey>,
    run: Option<RunId>,
    signed: Option<Signed>,
}

impl Heads {
    /// Heads that must be of `expected`; without it, of whatever key the first is of.
    pub(super) fn of(expected: Option<PublicKey>) -> Self {
        Self { expected, run: None, signed: None }
    }

    /// The log is of this run.
    pub(super) fn begin(&mut self, run: RunId) {
        self.run = Some(run);
    }

    /// Takes a head that is in its place in the chain.
    pub(super) fn take(&mut self, head: SignedHead) -> Result<(), Forged> {
        let key = self.expected.or(self.signed.as_ref().map(|signed| signed.key));
        if let Some(expected) = key.filter(|key| *key != head.key) {
            return Err(Forged::OtherKey { expected, found: head.key });
        }
        if let Some(expected) = self.run.clone().filter(|run| *run != head.run) {
            return Err(Forged::OtherRun { expected, found: head.run });
        }
        if !head.holds() {
            // A head does not vouch for its own line: that is for the next one.
            let from = self.signed.as_ref().map_or(1, |signed| signed.to + 1);
            return Err(Forged::Signature { from, to: head.seq });
        }
        let heads = self.signed.as_ref().map_or(0, |signed| signed.heads) + 1;
        self.signed = Some(Signed { key: head.key, heads, to: head.seq.saturating_sub(1), time: head.time });
        Ok(())
    }

    /// The log goes no further; `end` is the number of the record that ends it.
    pub(super) fn end(&self, end: Option<u64>) -> Result<(), Forged> {
        match (&self.signed, self.expected, end) {
            (None, Some(expected), _) => Err(Forged::NotSigned { expected }),
            (Some(signed), _, Some(end)) if signed.to < end => Err(Forged::EndNotSigned { from: signed.to + 1 }),
            _ => Ok(()),
        }
    }

    /// What is signed so far.
    pub(super) fn signed(self) -> Option<Signed> {
        self.signed
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::NO_LINE;
    use super::*;

    #[test]
    fn the_signed_bytes_are_what_others_rely_on() {
        let key = PublicKey::parse(&format!("ed25519:{NO_LINE}")).unwrap();
        let expected = concat!(
            "agentbox log head 1\n",
            "key ed25519:0000000000000000000000000000000000000000000000000000000000000000\n",
            "run 19700101-000000-000001\n",
            "seq 2\n",
            "prev 1111111111111111111111111111111111111111111111111111111111111111\n",
            "time 1970-01-01T00:00:00.000000Z\n",
        );
        let prev = NO_LINE.replace('0', "1");
        assert_eq!(signed(&key, "19700101-000000-000001", 2, &prev, "1970-01-01T00:00:00.000000Z"), expected);
    }

    #[test]
    fn a_head_holds_as_it_was_signed_and_no_other_way() {
        let dir = tempfile::tempdir().unwrap();
        let key = SigningKey::make(&dir.path().join("key")).unwrap();
        let other = SigningKey::make(&dir.path().join("other")).unwrap().public();
        let run = RunId::new(SystemTime::UNIX_EPOCH, 1);
        let link = Link { seq: 2, prev: NO_LINE, run: &run };
        let mut line = Vec::new();
        super::super::line::put_head(&mut line, link, &key).unwrap();
        let head: SignedHead = serde_json::from_slice(&line).unwrap();
        assert!(head.holds());
        for changed in [
            SignedHead { seq: 3, ..head.clone() },
            SignedHead { prev: NO_LINE.replace('0', "1"), ..head.clone() },
            SignedHead { time: "1970-01-01T00:00:00.000000Z".into(), ..head.clone() },
            SignedHead { run: RunId::new(SystemTime::UNIX_EPOCH, 2), ..head.clone() },
            SignedHead { key: other, ..head.clone() },
            SignedHead { signature: key.sign(b"something else"), ..head },
        ] {
            assert!(!changed.holds(), "{changed:?}");
        }
    }
}
