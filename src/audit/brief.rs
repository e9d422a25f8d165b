//! A record looked at where the reader holds it: fields are borrowed from the line, and the target stays unparsed until
//! somebody asks for it.
//!
//! What [`Decided`](super::entry::Decided) is to a single record, [`Brief`] is to millions.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::actions::{Claimed, Closed, Opened};
use super::entry::{Noted, happened, refused};
use super::head::SignedHead;
use super::record::{Answer, End, Layer, Op, Start};
use super::text;
use crate::event::{Access, Bound, Effect, FileOp, Mode, MoveOp, Reason, Unjudged};

/// A record of a log, by its kind.
#[derive(Debug)]
pub enum Sight<'a> {
    /// The first record.
    Start(Box<Start>),
    /// A question and its answer.
    Decision(Box<Brief<'a>>),
    /// Something worth knowing.
    Note(Noted),
    /// An action opened.
    Opened(Box<Opened>),
    /// The agent said something.
    Claimed(Box<Claimed>),
    /// An action ended.
    Closed(Box<Closed>),
    /// A signed head.
    Head(Box<SignedHead>),
    /// The record that ends a log.
    End(Box<End>),
    /// A kind that this version does not know.
    Other(&'a str),
}

impl<'a> Sight<'a> {
    /// Reads the body of a line whose header said `kind`.
    pub fn of(kind: &'a str, line: &'a [u8]) -> serde_json::Result<Self> {
        Ok(match kind {
            "start" => Self::Start(serde_json::from_slice(line)?),
            "decision" => Self::Decision(serde_json::from_slice(line)?),
            "note" => Self::Note(serde_json::from_slice(line)?),
            "action" => Self::Opened(serde_json::from_slice(line)?),
            "claim" => Self::Claimed(serde_json::from_slice(line)?),
            "action_end" => Self::Closed(serde_json::from_slice(line)?),
            "head" => Self::Head(serde_json::from_slice(line)?),
            "end" => Self::End(serde_json::from_slice(line)?),
            other => Self::Other(other),
        })
    }

    /// When it was written, RFC 3339; empty where it does not say.
    pub fn time(&self) -> &str {
        match self {
            Self::Start(start) => &start.time,
            Self::Decision(brief) => &brief.time,
            Self::Note(note) => &note.time,
            Self::Opened(opened) => &opened.time,
            Self::Claimed(claimed) => &claimed.time,
            Self::Closed(closed) => &closed.time,
            Self::Head(head) => &head.time,
            Self::End(end) => &end.time,
            Self::Other(_) => "",
        }
    }

    /// The action it belongs to.
    pub fn action(&self) -> Option<&str> {
        match self {
            Self::Decision(brief) => Some(&brief.action),
            Self::Opened(opened) => Some(&opened.action),
            Self::Claimed(claimed) => Some(&claimed.action),
            Self::Closed(closed) => Some(&closed.action),
            Self::Start(_) | Self::Note(_) | Self::Head(_) | Self::End(_) | Self::Other(_) => None,
        }
    }

    /// The number, inside the box, of the process it is about.
    pub fn pid(&self) -> Option<i32> {
        match self {
            Self::Decision(brief) => Some(brief.process.pid),
            Self::Opened(opened) => opened.process.as_ref().map(|process| process.pid),
            Self::Claimed(claimed) => claimed.process.as_ref().map(|process| process.pid),
            Self::Start(_) | Self::Note(_) | Self::Closed(_) | Self::Head(_) | Self::End(_) | Self::Other(_) => None,
        }
    }
}

/// From this tier on a record says what it weighs.
const GRAVE: u64 = 3;

/// A decision, borrowed from its line.
#[derive(Debug, Deserialize)]
pub struct Brief<'a> {
    /// When, RFC 3339.
    #[serde(borrow)]
    pub time: Cow<'a, str>,
    /// `session`, `command:<pid>`, or an action's id.
    #[serde(borrow)]
    pub action: Cow<'a, str>,
    /// Who asked.
    #[serde(borrow)]
    pub process: Who<'a>,
    /// What was asked for.
    pub op: Op,
    /// The target as the caller wrote it.
    #[serde(borrow, default)]
    pub asked: Option<Cow<'a, str>>,
    /// The target as it was resolved; its fields depend on `op`.
    #[serde(borrow)]
    pub target: &'a RawValue,
    /// The second name of a two-name call.
    #[serde(borrow, default)]
    pub to: Option<&'a RawValue>,
    /// The policy's answer.
    pub verdict: Effect,
    /// The rule that said so.
    #[serde(borrow)]
    pub rule: Cow<'a, str>,
    /// The kind of reason.
    pub reason: Reason,
    /// The rule's own words.
    #[serde(borrow, default)]
    pub message: Option<Cow<'a, str>>,
    /// Who answered an ask.
    #[serde(default)]
    pub answer: Option<Answer>,
    /// Whether a refusal was to hold.
    #[serde(default)]
    pub mode: Mode,
    /// The layer that holds the answer.
    pub layer: Layer,
    /// `ok`, an errno's name, `killed` or `gone`.
    #[serde(borrow)]
    pub outcome: Cow<'a, str>,
    /// Microseconds from the question to the answer.
    pub latency_us: f64,
    /// How far it reaches, `B0` to `B3`; as this and the next three stand in the log, whatever they are there.
    #[serde(borrow, default)]
    pub reach: Option<&'a RawValue>,
    /// Whether it can be undone, `R0` to `R3`.
    #[serde(borrow, default)]
    pub reversibility: Option<&'a RawValue>,
    /// Both in one number.
    #[serde(borrow, default)]
    pub tier: Option<&'a RawValue>,
    /// The labels of secrets that the process has seen.
    #[serde(borrow, default)]
    pub taint: Option<&'a RawValue>,
    /// What would be gone if the process went on as it had begun.
    #[serde(borrow, default)]
    pub bound: Option<&'a RawValue>,
}

/// The process that asked.
#[derive(Debug, Default, Deserialize)]
pub struct Who<'a> {
    /// Its number inside the box.
    pub pid: i32,
    /// Its number on the host.
    pub host: i32,
    /// The program it ran when it asked; empty when that could not be read.
    #[serde(borrow)]
    pub exe: Cow<'a, str>,
    /// Its ancestors inside the box, nearest first.
    pub parents: Vec<i32>,
}

impl Brief<'_> {
    /// Tells whether it was kept from happening: denied, asked and not granted, or ended in the act.
    pub fn denied(&self) -> bool {
        !self.let_through() && refused(self.verdict, self.answer.as_ref(), &self.outcome)
    }

    /// Tells whether it was refused and mode audit let it through.
    pub fn let_through(&self) -> bool {
        self.mode == Mode::Audit && self.verdict != Effect::Allow && self.outcome != "killed"
    }

    /// Tells whether the policy was against it, whether or not it was kept from happening.
    pub fn is_refusal(&self) -> bool {
        self.denied() || self.let_through()
    }

    /// Tells whether it happened.
    pub fn done(&self) -> bool {
        !self.denied() && happened(&self.outcome)
    }

    /// Says how grave it is: `B2 R3 tier 8, has seen ssh-key`; empty where the log does not tell, and of what everybody
    /// does all day.
    pub fn weight(&self) -> String {
        let word = |part: Option<&RawValue>| read::<String>(part?);
        let tier = self.tier.and_then(read::<u64>).filter(|&tier| tier >= GRAVE || tier > 1 && self.denied());
        let tier = tier.map(|tier| format!("tier {tier}"));
        let word = |part| word(part).filter(|_| tier.is_some());
        let grave = [word(self.reach), word(self.reversibility), tier];
        let grave = grave.into_iter().flatten().collect::<Vec<_>>().join(" ");
        let taint = self.taint.and_then(read::<Vec<String>>).filter(|labels| !labels.is_empty());
        let taint = taint.map(|labels| format!("has seen {}", labels.join(", ")));
        [Some(grave).filter(|grave| !grave.is_empty()), taint].into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    /// Says how much would have been gone, of what was refused: `of 57 entries below /work`.
    pub fn stake(&self) -> Option<String> {
        let bound: Bound = read(self.bound.filter(|_| self.denied())?)?;
        Some(text::bound(&bound))
    }

    /// Gives back what was asked for; `None` if the record says less than that takes.
    pub fn access(&self) -> Option<Access> {
        #[derive(Deserialize)]
        struct Call {
            name: String,
            why: Unjudged,
        }
        let file = |op| Some(Access::File { op, at: read(self.target)? });
        let two = |op| Some(Access::Move { op, from: read(self.target)?, to: read(self.to?)? });
        match self.op {
            Op::Read => file(FileOp::Read),
            Op::Write => file(FileOp::Write),
            Op::Create => file(FileOp::Create),
            Op::Truncate => file(FileOp::Truncate),
            Op::Mkdir => file(FileOp::Mkdir),
            Op::Mknod => file(FileOp::Mknod),
            Op::Symlink => file(FileOp::Symlink),
            Op::Unlink => file(FileOp::Unlink),
            Op::Rmdir => file(FileOp::Rmdir),
            Op::Chmod => file(FileOp::Chmod),
            Op::Chown => file(FileOp::Chown),
            Op::Utime => file(FileOp::Utime),
            Op::Xattr => file(FileOp::Xattr),
            Op::Rename => two(MoveOp::Rename),
            Op::Exchange => two(MoveOp::Exchange),
            Op::Link => two(MoveOp::Link),
            Op::Exec => Some(Access::Exec(read(self.target)?)),
            Op::Connect => Some(Access::Connect { to: read(self.target)? }),
            Op::Send => Some(Access::Send { to: read(self.target)? }),
            Op::Route => Some(Access::Route { to: read(self.target)? }),
            Op::Resolve => Some(Access::Resolve(read(self.target)?)),
            Op::Accept => Some(Access::Accept(read(self.target)?)),
            Op::Bind => Some(Access::Bind { at: read(self.target)? }),
            Op::Signal => Some(Access::Signal(read(self.target)?)),
            Op::Call => read(self.target).map(|Call { name, why }| Access::Call { name, why }),
        }
    }
}

fn read<T: DeserializeOwned>(part: &RawValue) -> Option<T> {
    serde_json::from_str(part.get()).ok()
}
