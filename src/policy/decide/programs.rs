//! Programs: who may be started, and with which arguments.
//!
//! Rules that refuse speak of the program by every name it goes by, of the interpreter of a script, of what the dynamic
//! loader runs, and of what launchers are certain to start. A rule that allows speaks of the file and its very arguments.

use std::borrow::Cow;
use std::path::Path;

use super::{granted, guarded, is_writable, not_granted, verdict};
use crate::event::{Effect, Exec, Reason, Verdict, unescape_bytes};
use crate::policy::launchers::{each, last_name};
use crate::policy::programs::{Command, ProgramPattern, ProgramRule, Word};
use crate::policy::rules::Probe;
use crate::policy::{Guard, GuardKind, Policy};

/// Judges the start of a program.
pub(super) fn program(policy: &Policy, exec: &Exec) -> Verdict {
    let loaded = exec.loaded.as_ref().map(|loaded| &loaded.program);
    let files = [Some(&exec.program), exec.interpreter.as_ref(), loaded];
    if let Some(guard) = files.into_iter().flatten().find_map(|file| kept_from_running(policy, file.as_path())) {
        return guarded(guard);
    }
    let words = Words::of(exec);
    if let Some(refused) = refused(policy, exec, &words) {
        return refused;
    }
    match policy.exec.allow.first(Some(exec.program.as_path()), &[], |rule| allows(policy, rule, exec, &words)) {
        Some(rule) => granted(&rule.rule),
        None => not_granted(policy.exec.otherwise.as_ref()),
    }
}

/// Finds the guard that keeps a program from being run: to run a file is to read it.
pub fn kept_from_running<'a>(policy: &'a Policy, program: &Path) -> Option<&'a Guard> {
    let reading = |guard: &Guard| matches!(guard.kind, GuardKind::Deny | GuardKind::DenyRead);
    policy.files.guards.first(&Probe::new(program), reading)
}

/// The argument vector as bytes.
struct Words<'a> {
    argv: Vec<Word<'a>>,
    /// Whether there are more than are known, as in a record that was cut.
    cut: bool,
}

impl<'a> Words<'a> {
    fn of(exec: &'a Exec) -> Self {
        let argv: Vec<Word<'a>> = exec.argv.iter().chain(&exec.rest).map(|text| plain(text)).collect();
        Self { cut: argv.len() < exec.argc, argv }
    }

    /// All but the program's own name.
    fn args(&self) -> &[Word<'a>] {
        self.argv.get(1..).unwrap_or_default()
    }

    /// The last part of what the program is told its name is.
    fn own_name(&self) -> Option<&[u8]> {
        self.argv.first().map(|name| last_name(name))
    }
}

fn plain(text: &str) -> Word<'_> {
    match text.contains('\\').then(|| unescape_bytes(text)).flatten() {
        Some(bytes) => Cow::Owned(bytes),
        None => Cow::Borrowed(text.as_bytes()),
    }
}

/// The refusal of a rule that denies, else of one that asks, by anything that the exec is certain to start.
fn refused(policy: &Policy, exec: &Exec, words: &Words) -> Option<Verdict> {
    let rules = &policy.exec;
    if rules.deny.is_empty() && rules.ask.is_empty() {
        return None;
    }
    let (mut denied, mut asked, mut unknown) = (None, None, None);
    let mut found = |command: &Command<'_>| {
        let mut holds = |rule: &'_ ProgramRule| {
            let fits = rule.args.as_ref().is_none_or(|args| args.holds(command));
            if !fits && words.cut {
                unknown.get_or_insert_with(|| rule.rule.clone());
            }
            fits
        };
        denied = rules.deny.first(command.path, command.names, &mut holds);
        if asked.is_none() {
            asked = rules.ask.first(command.path, command.names, &mut holds);
        }
        denied.is_some()
    };
    each_start(exec, words, &mut found);
    let refusal = |effect, reason, rule: &ProgramRule| verdict(effect, &rule.rule, reason, rule.message.as_ref());
    let denied = denied.map(|rule| refusal(Effect::Deny, Reason::DenyRule, rule));
    denied
        .or(unknown.map(|rule| verdict(Effect::Deny, &rule, Reason::Unjudged, None)))
        .or(asked.map(|rule| refusal(Effect::Ask, Reason::AskRule, rule)))
}

/// Hands every command that the exec is certain to start to `found`, until that says true: the program, the interpreter of
/// a script, what the dynamic loader runs, and what any of them launches.
fn each_start(exec: &Exec, words: &Words, found: &mut dyn FnMut(&Command<'_>) -> bool) -> bool {
    let called = exec.called.contains('\\').then(|| unescape_bytes(&exec.called)).flatten();
    let called = called.as_deref().unwrap_or(exec.called.as_bytes());
    let names = [called, words.own_name().unwrap_or(called)];
    let path = Some(exec.program.as_path());
    if each(&Command { path, names: &names, args: words.args(), more: words.cut }, found) {
        return true;
    }
    if exec.interpreter.is_none() && exec.loaded.is_none() {
        return false;
    }
    let line: Vec<Word<'_>> = exec.line.iter().map(|text| plain(text)).collect();
    let own = line.first().or(words.argv.first()).map(|name| last_name(name));
    let names = own.as_slice();
    let given = line.iter().skip(1).map(|word| Cow::Borrowed(&**word));
    let args: Vec<Word<'_>> = given.chain(words.args().iter().map(|word| Cow::Borrowed(&**word))).collect();
    if let Some(interpreter) = &exec.interpreter {
        let path = Some(interpreter.as_path());
        if each(&Command { path, names, args: &args, more: words.cut }, found) {
            return true;
        }
    }
    let Some(loaded) = &exec.loaded else { return false };
    let Some((name, args)) = args.get(loaded.at.wrapping_sub(1)..).and_then(<[_]>::split_first) else { return false };
    let path = Some(loaded.program.as_path());
    each(&Command { path, names: &[last_name(name)], args, more: words.cut }, found)
}

/// A bare name allows the system's program of that name, not a file that the command could write under it; what the
/// program is called is the caller's choice and counts for nothing here.
///
/// With arguments it allows just these, and only where the program is told its own name: some do other things by another.
fn allows(policy: &Policy, rule: &ProgramRule, exec: &Exec, words: &Words) -> bool {
    let program = exec.program.as_path();
    let own = || is_writable(&policy.files, program);
    let Some(args) = &rule.args else { return !(matches!(rule.program, ProgramPattern::Name(_)) && own()) };
    let named = || words.own_name().is_some_and(|name| goes_by(rule, program, name));
    !words.cut && args.matches(words.args()) && named() && !(matches!(rule.program, ProgramPattern::Name(_)) && own())
}

/// Whether `name` is one that the rule or the file itself gives the program.
fn goes_by(rule: &ProgramRule, program: &Path, name: &[u8]) -> bool {
    use std::os::unix::ffi::OsStrExt;
    let ends = |path: &Path| path.file_name().is_some_and(|own| own.as_bytes() == name);
    ends(program)
        || match &rule.program {
            ProgramPattern::Path(pattern) => pattern.exacts().any(ends),
            other => other.names(name),
        }
}
