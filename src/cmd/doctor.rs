//! `agentbox doctor`: what this host can hold, layer by layer, and the exact step that mends what it cannot.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::host::{HostFacts, apparmor_restricts_user_namespaces, try_user_namespace};
use crate::plan::{self, Coverage, State};
use crate::policy::{self, Request};
use crate::sys::process::alone;

/// Prints the coverage that the default policy would have here. Exit status 1 if a layer is absent.
pub fn doctor(json: bool) -> Result<u8> {
    let (host, coverage) = examine()?;
    let usable = !coverage.layers.iter().any(|entry| matches!(entry.state, State::Absent { .. }));
    if json {
        println!("{:#}", json!({ "schema": 1, "usable": usable, "host": host, "layers": coverage.layers }));
    } else {
        print!("{}", text(&host, &coverage, usable));
    }
    Ok(u8::from(!usable))
}

fn examine() -> Result<(HostFacts, Coverage)> {
    let host = examined_host()?;
    // What the default policy asks of the host, whatever project this is run in.
    let request = Request { policies: vec!["base".into()], ..Request::default() };
    let policy = policy::load(&request, &super::policy::world()?)?.policy;
    let (_, coverage) = plan::compile(&policy, &host);
    Ok((host, coverage))
}

/// The facts about this host, with a try of what only a try can tell.
pub fn examined_host() -> Result<HostFacts> {
    let mut host = HostFacts::probe();
    if host.no_user_namespace.is_none()
        && let Err(errno) = try_user_namespace(&alone().context("agentbox has a thread already")?)
    {
        host.no_user_namespace = Some(refusal(&host, errno));
    }
    Ok(host)
}

/// Why a user namespace was refused, in the words that `plan::namespace_fix` knows the remedy for.
pub fn refusal(host: &HostFacts, errno: nix::errno::Errno) -> String {
    if apparmor_restricts_user_namespaces() {
        "AppArmor keeps programs without a profile from making them".into()
    } else if host.filtered {
        format!("a seccomp filter around this process forbids them ({})", errno.desc())
    } else if errno == nix::errno::Errno::ENOSPC {
        "user.max_user_namespaces is reached".into()
    } else {
        format!("the kernel says: {}", errno.desc())
    }
}

fn text(host: &HostFacts, coverage: &Coverage, usable: bool) -> String {
    let mut text = String::new();
    for entry in &coverage.layers {
        let _ = writeln!(text, "{entry}");
    }
    if host.filtered {
        let _ = writeln!(text, "note: this process runs under a seccomp filter already (a container, or another box)");
    }
    let verdict =
        if usable { "this host can hold every layer" } else { "runs here need --allow-degraded for what is absent" };
    let _ = writeln!(text, "{verdict}");
    text
}
