//! `agentbox report`: one page that tells people what a run was asked to do, and what it did.
//!
//! Main process, no box. Reads the log once to prove its chain and once to sum it up; the memory it takes is bounded.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::log::{being_written, expected};
use super::place::{Placed, Replaces};
use super::why::{as_run_has_it, request};
use crate::audit::entry::Decided;
use crate::audit::page::{Facts, MARK, page};
use crate::audit::read::{self, Chain, Proof, Reader};
use crate::audit::run::{self, Found};
use crate::audit::story::{Fixer, Story};
use crate::audit::text::printable;
use crate::cli;
use crate::event::Effect;
use crate::policy::{self, Policy, World, decide, remedy};

/// All is well.
const FINE: u8 = 0;
/// The log is broken: the page says so.
const BROKEN: u8 = 1;

/// Runs `agentbox report` and returns the exit status.
pub fn report(args: &cli::Report, world: &World) -> Result<u8> {
    let found = run::find(&world.state, args.run.as_deref())?;
    let (name, html, status) = written(&found, world)?;
    match args.output.as_deref() {
        Some(path) if path == Path::new("-") => super::print(&html),
        path => {
            let path = path.map_or_else(|| PathBuf::from(format!("agentbox-report-{name}.html")), Path::to_path_buf);
            place(&path, &html, args.force, &found.log)?;
            super::print(&format!("{}\n", printable(&path.to_string_lossy())));
        }
    }
    if status == BROKEN {
        eprintln!("agentbox: the log is broken: `agentbox log verify {}` says where", printable(&name));
    }
    Ok(status)
}

fn place(path: &Path, html: &str, force: bool, log: &Path) -> Result<()> {
    let mut placed = Placed::begin(path, if force { Replaces::Any } else { Replaces::Begins(MARK) }, log)?;
    placed.write_all(html.as_bytes()).with_context(|| format!("cannot write {}", path.display()))?;
    placed.finish()
}

/// The run's name, its page, and the exit status.
fn written(found: &Found, world: &World) -> Result<(String, String, u8)> {
    let about = found.about.as_ref().ok().and_then(Option::as_ref);
    let expected = expected(found, None);
    let Proof { chain, signed } = read::prove(&found.log, &expected)?;
    let policy = about.and_then(|about| policy_of(found, &about.policy.digest, world));
    let mut story = Story::new(about.map_or("", |about| &about.cwd), fixer(policy.as_ref()));
    let mut reader = Reader::open(&found.log)?;
    while let Some(mut line) = reader.next_line()? {
        line.faults.retain(|fault| !being_written(&found.log, fault));
        story.take(&line);
    }
    let run = about.map(|about| about.id.to_string()).or(story.start.as_ref().map(|start| start.run.to_string()));
    let run = run.unwrap_or_else(|| "unknown".into());
    let facts = Facts {
        run: &run,
        about,
        chain: &chain,
        signed: signed.as_ref(),
        compared: expected.head.is_some(),
        running: read::still_written(&found.log),
        log: &found.log.to_string_lossy(),
    };
    let html = page(&story, &facts);
    // A log may name its run as it likes: in the name of a file only what an id has.
    let name = run.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(64).collect();
    Ok((name, html, if matches!(chain, Chain::Broken(_)) { BROKEN } else { FINE }))
}

/// The policy that the run had, if the one that a run there would have today is still the same.
fn policy_of(found: &Found, digest: &str, world: &World) -> Option<Policy> {
    let loaded = policy::load(&request(&cli::PolicyArgs::default(), Some(found)), world).ok()?;
    (loaded.policy.digest == digest).then(|| as_run_has_it(loaded.policy).0)
}

/// Says what would allow a refusal, where the policy is known.
fn fixer(policy: Option<&Policy>) -> Fixer<'_> {
    let Some(policy) = policy else { return Box::new(|_| None) };
    Box::new(move |decided: &Decided| {
        let event = decided.event()?;
        let verdict = decide(policy, &event);
        if verdict.effect == Effect::Allow {
            return None;
        }
        remedy(policy, &event, &verdict).map(|fix| fix.to_string())
    })
}
