//! `agentbox policy diff`: says what one policy permits more and less than another.
//!
//! Main process, no box. Both are loaded as a run here would load them.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::print;
use crate::audit::text::printable;
use crate::policy::diff::{Diff, Line};
use crate::policy::{self, Policy, Request, World};

/// They permit the same.
const SAME: u8 = 0;
/// They do not.
const DIFFERENT: u8 = 1;

/// Runs `agentbox policy diff` and returns the exit status.
pub fn diff(a: &str, b: &str, json: bool, world: &World) -> Result<u8> {
    let files = [a, b].map(PathBuf::from);
    let (a, b) = (loaded(a, &files, world)?, loaded(b, &files, world)?);
    let diff = Diff::of(&a, &b);
    print(&if json { format!("{:#}\n", as_json(&a, &b, &diff)) } else { as_text(&a, &b, &diff) });
    Ok(if diff.is_empty() { SAME } else { DIFFERENT })
}

/// A run keeps the files that its policy comes from; here both are kept by either, so that this is no difference.
fn loaded(name: &str, files: &[PathBuf], world: &World) -> Result<Policy> {
    let own = files.iter().filter(|file| file.is_file()).cloned().collect();
    let request = Request { own, policies: vec![name.into()], ..Request::default() };
    let loaded = policy::load(&request, world).with_context(|| format!("cannot take `{name}` as a policy"))?;
    super::policy::print_notes(&loaded.notes);
    Ok(loaded.policy)
}

fn as_text(a: &Policy, b: &Policy, diff: &Diff) -> String {
    if diff.is_empty() {
        let digest = if a.digest == b.digest { format!("digest {}", a.digest) } else { "other words".into() };
        return printable(&format!("{} and {} permit the same ({digest})", a.name, b.name)) + "\n";
    }
    let group = |(title, lines): (&str, &Vec<Line>)| {
        let told = lines.iter().map(|line| format!("  {}   ({})\n", printable(&line.what), printable(&line.rule.0)));
        if lines.is_empty() { String::new() } else { format!("{title}:\n{}", told.collect::<String>()) }
    };
    [("more", &diff.more), ("less", &diff.less), ("other", &diff.other)].into_iter().map(group).collect()
}

fn as_json(a: &Policy, b: &Policy, diff: &Diff) -> Value {
    let named = |policy: &Policy| json!({"name": policy.name, "digest": policy.digest});
    json!({
        "same": diff.is_empty(),
        "a": named(a),
        "b": named(b),
        "more": diff.more,
        "less": diff.less,
        "other": diff.other,
    })
}
