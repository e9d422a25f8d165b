//! `agentbox why`: puts one act to a policy and says what it answers, by which rule, and what would allow it.
//!
//! Main process, no box. The answer is the box's own: the same event goes to the same functions.

pub mod view;

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::print;
use crate::audit::entry::{Decided, Entry};
use crate::audit::read::Reader;
use crate::audit::record::Op;
use crate::audit::run::{self, Found};
use crate::audit::text::{printable, target};
use crate::cli;
use crate::event::{Access, BoxPath, Effect, Event, FileOp, Place, Reason, Subject, Verdict, unescape_bytes};
use crate::host::HostFacts;
use crate::policy::{self, Fix, Policy, Request, World, decide, remedy};
use view::{Asked, View};

/// It is allowed.
const ALLOWED: u8 = 0;
/// It is denied, or a person would be asked.
const DENIED: u8 = 1;

/// Runs `agentbox why` and returns the exit status.
pub fn why(args: &cli::Why, world: &World) -> Result<u8> {
    let question = &args.question;
    let record = match (&question.event, question.last) {
        (Some(event), _) => Some(numbered(&world.state, event)?),
        (None, true) => Some(last_denial(&world.state)?),
        (None, false) => None,
    };
    let request = request(&args.policy.0, record.as_ref().map(|record| &record.found));
    let loaded = policy::load(&request, world)?;
    super::policy::print_notes(&loaded.notes);
    let (policy, whole) = as_run_has_it(loaded.policy);
    let view = View::new(&policy, whole);
    let answer = match &record {
        Some(record) => recorded(&policy, record)?,
        None => Answer::of(&policy, asked(&view, question)?),
    };
    print(&if args.json {
        format!("{:#}\n", answer.json(record.as_ref()))
    } else {
        answer.text(&policy, record.as_ref())
    });
    Ok(if answer.verdict.effect == Effect::Allow { ALLOWED } else { DENIED })
}

/// What the flags ask for; what is asked about a run starts where that run started.
pub(super) fn request(args: &cli::PolicyArgs, run: Option<&Found>) -> Request {
    let request = super::policy::request(args);
    let about = run.and_then(|found| found.about.as_ref().ok()?.as_ref());
    let started = about.and_then(|about| unescape_bytes(&about.cwd)).map(|bytes| {
        use std::os::unix::ffi::OsStringExt;
        std::path::PathBuf::from(std::ffi::OsString::from_vec(bytes))
    });
    Request { chdir: request.chdir.or(started.filter(|dir| dir.is_dir())), ..request }
}

/// The policy as `run` would hold it on this host, and whether there is no view.
pub(super) fn as_run_has_it(policy: Policy) -> (Policy, bool) {
    let whole = HostFacts::probe().no_user_namespace.is_some();
    (if whole { policy.without_view() } else { policy }, whole)
}

fn asked(view: &View<'_>, question: &cli::Question) -> Result<Asked> {
    let cli::Question { write, read, create, delete, connect, resolve, exec, event: _, last: _ } = question;
    if let Some(path) = write {
        view.write(path)
    } else if let Some(path) = read {
        view.read(path)
    } else if let Some(path) = create {
        view.create(path)
    } else if let Some(path) = delete {
        view.delete(path)
    } else if let Some(to) = connect {
        view.connect(to)
    } else if let Some(name) = resolve {
        Ok(View::resolve(name))
    } else if let Some(argv) = exec {
        view.exec(argv)
    } else {
        bail!("nothing is asked")
    }
}

/// What a policy answers.
pub struct Answer {
    /// What was asked for.
    pub access: Access,
    /// The same in a few words.
    pub target: String,
    /// The answer.
    pub verdict: Verdict,
    /// What would allow it.
    pub fix: Option<Fix>,
    /// What else there is to say.
    pub notes: Vec<String>,
}

impl Answer {
    /// Puts a question to a policy.
    pub fn of(policy: &Policy, asked: Asked) -> Self {
        let Asked { access, wanted, target: aim, hidden, missing, proviso, mut notes } = asked;
        let put = |access: &Access| Event::new(Subject::default().into(), access.clone());
        let event = put(&access);
        let verdict = hidden_or(policy, hidden, looked_up(policy, &event));
        let fix = remedy(policy, &wanted.as_ref().map_or_else(|| event.clone(), put), &verdict);
        let fix = fix.filter(|fix| !(missing && matches!(fix, Fix::Read(_) | Fix::Unix(_))));
        if let Some(Fix::Read(path) | Fix::Write(path) | Fix::Unix(path)) = &fix
            && policy.workdir.join(path).symlink_metadata().is_err()
        {
            notes.push("the flag takes only what is there already; a policy file also what is not".into());
        }
        notes.extend(proviso.filter(|_| verdict.effect == Effect::Allow).map(str::to_string));
        let target = aim.unwrap_or_else(|| target(&access));
        Self { access, target, verdict, fix, notes }
    }

    /// What was asked, in a few words.
    pub fn told(&self) -> String {
        format!("{} {}", Op::of(&self.access).name(), self.target)
    }

    /// The answer as a person reads it.
    fn text(&self, policy: &Policy, record: Option<&Recorded>) -> String {
        let mut lines = Vec::new();
        if let Some(Recorded { decided, .. }) = record {
            let word = word(decided.verdict);
            let passed = if decided.let_through() { " (let through in mode audit)" } else { "" };
            lines.push(format!("then    {word} by {}  {}{passed}", decided.rule, decided.outcome));
        }
        lines.push(format!("{:<7} {}", word(self.verdict.effect), self.told()));
        lines.push(format!("rule    {}{}", self.verdict.rule, self.because(policy)));
        if let Some(message) = &self.verdict.message {
            lines.push(format!("        {message}"));
        }
        if self.verdict.effect != Effect::Allow {
            match &self.fix {
                Some(fix) => lines.push(format!("allow   {fix}")),
                None => lines.push(format!("allow   {}", self.no_fix())),
            }
            let yaml = self.fix.as_ref().filter(|fix| fix.flag().is_some()).and_then(Fix::yaml);
            lines.extend(yaml.map(|yaml| format!("        {yaml}")));
        }
        lines.extend(self.notes.iter().map(|note| format!("note    {note}")));
        lines.iter().map(|line| format!("{}\n", printable(line))).collect()
    }

    /// What the rule says, in parentheses.
    fn because(&self, policy: &Policy) -> String {
        let guard = policy.files.guards.iter().find(|guard| guard.rule == self.verdict.rule);
        let pattern = guard.map(|guard| format!(" `{}`", guard.pattern.text())).unwrap_or_default();
        let why = match self.verdict.reason {
            Reason::Granted => return pattern,
            Reason::DenyRule => "it is denied",
            Reason::AskRule => "a person must say",
            Reason::Protected => "on the protected list",
            Reason::AboveProtected => "it would move or replace what lies above such a name",
            Reason::NotGranted => "nothing grants it",
            Reason::NoNetwork => "there is no network",
            Reason::KernelFile => "the kernel's own file",
            Reason::Unjudged => "it cannot be judged",
            Reason::Tier => "it weighs more than passes without a person",
            Reason::Answered => "a person was asked about the like before",
        };
        format!("{pattern} ({why})")
    }

    /// Why no edit of one rule allows it.
    fn no_fix(&self) -> &'static str {
        match self.verdict.reason {
            Reason::AboveProtected => "no flag does; the rule, or the names below, would have to go",
            Reason::NotGranted => "no flag can name it",
            _ => "nothing does",
        }
    }

    /// The answer as JSON.
    fn json(&self, record: Option<&Recorded>) -> Value {
        let fix = self.fix.as_ref().map(|fix| json!({"edit": fix.to_string(), "flag": fix.flag(), "yaml": fix.yaml()}));
        let then = record.map(|Recorded { seq, found, decided }| {
            json!({
                "seq": seq,
                "log": found.log.to_string_lossy(),
                "verdict": decided.verdict,
                "rule": decided.rule,
                "reason": decided.reason,
                "message": decided.message,
                "outcome": decided.outcome,
            })
        });
        json!({
            "verdict": self.verdict.effect,
            "op": Op::of(&self.access).name(),
            "target": self.target,
            "rule": self.verdict.rule,
            "reason": self.verdict.reason,
            "message": self.verdict.message,
            "allow": fix,
            "notes": self.notes,
            "then": then,
        })
    }
}

fn word(effect: Effect) -> &'static str {
    match effect {
        Effect::Allow => "allowed",
        Effect::Ask => "ask",
        Effect::Deny => "denied",
    }
}

/// The policy's answer. A name that is not looked up leads nowhere, whatever is allowed there.
fn looked_up(policy: &Policy, event: &Event) -> Verdict {
    use crate::event::Endpoint;
    let verdict = decide(policy, event);
    let Access::Connect { to: Endpoint::Inet { names, .. } } = &event.access else { return verdict };
    let Some(name) = names.first().filter(|_| verdict.effect == Effect::Allow) else { return verdict };
    let resolved = decide(policy, &Event { access: View::resolve(name).access, ..event.clone() });
    if resolved.effect == Effect::Allow { verdict } else { resolved }
}

/// What the box does not find it cannot have, whatever may be done under that name.
fn hidden_or(policy: &Policy, hidden: Option<BoxPath>, verdict: Verdict) -> Verdict {
    let Some(path) = hidden.filter(|_| verdict.effect == Effect::Allow) else { return verdict };
    let access = Access::File { op: FileOp::Read, at: Place::of(path) };
    let read = decide(policy, &Event::new(Subject::default().into(), access));
    match read.effect {
        Effect::Allow => Verdict { effect: Effect::Deny, reason: Reason::NotGranted, ..read },
        Effect::Ask | Effect::Deny => read,
    }
}

/// A decision of a log.
struct Recorded {
    seq: u64,
    found: Found,
    decided: Box<Decided>,
}

/// Finds the record that `RUN:SEQ` names; `SEQ` alone is one of the last run.
fn numbered(state: &Path, spec: &str) -> Result<Recorded> {
    let (run, number) = spec.rsplit_once(':').map_or((None, spec), |(run, number)| (Some(run), number));
    let seq: u64 = number.parse().with_context(|| format!("`{spec}` is no record: write RUN:SEQ, such as last:12"))?;
    let found = run::find(state, run)?;
    let mut reader = Reader::open(&found.log)?;
    while let Some(line) = reader.next_line()? {
        match line.entry {
            Some(Entry::Decision(decided)) if line.seq == Some(seq) => return Ok(Recorded { seq, found, decided }),
            Some(_) if line.seq == Some(seq) => bail!("record {seq} of {} is no decision", found.log.display()),
            _ => {}
        }
    }
    bail!("there is no record {seq} in {}", found.log.display())
}

/// Finds the last denial of the last run, let through or not.
fn last_denial(state: &Path) -> Result<Recorded> {
    let found = run::find(state, None)?;
    let mut reader = Reader::open(&found.log)?;
    let mut last = None;
    while let Some(line) = reader.next_line()? {
        if let Some(Entry::Decision(decided)) = line.entry
            && decided.is_refusal()
        {
            last = Some((line.seq.unwrap_or_default(), decided));
        }
    }
    let (seq, decided) = last.with_context(|| format!("nothing was denied in {}", found.log.display()))?;
    Ok(Recorded { seq, found, decided })
}

/// What a policy answers to what was recorded.
fn recorded(policy: &Policy, record: &Recorded) -> Result<Answer> {
    let decided = &record.decided;
    let event = decided.event().context("the record says less than a decision needs")?;
    let mut notes = Vec::new();
    let verdict = match decided.is_abridged() {
        false => decide(policy, &event),
        true => {
            let how = "the record does not hold all of its arguments: this is what was decided then; ask with --exec";
            notes.push(how.to_string());
            decided.verdict()
        }
    };
    let about = record.found.about.as_ref().ok().and_then(Option::as_ref);
    if about.is_some_and(|about| about.policy.digest != policy.digest) {
        notes.push("this is not the policy that the run had: give the flags that it was started with".into());
    }
    if decided.reason == Reason::Answered && verdict.effect != Effect::Allow {
        notes.push("then it was refused like the one before it in its action: a person is asked once".into());
    }
    if decided.outcome == "killed" {
        notes.push("it was allowed; the process did something else and was ended".into());
    }
    let fix = remedy(policy, &event, &verdict);
    Ok(Answer { target: target(&event.access), access: event.access, verdict, fix, notes })
}
