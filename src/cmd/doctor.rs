//! `agentbox doctor`: what this host can hold, layer by layer, and the exact step that mends what it cannot.

use std::fmt::Write as _;

use anyhow::{Context as _, Result, anyhow};
use serde_json::json;

use crate::audit::key::{PublicKey, SigningKey};
use crate::host::{HostFacts, apparmor_restricts_user_namespaces, try_user_namespace};
use crate::plan::{self, Coverage, State};
use crate::policy::{self, Request, World};
use crate::sys::process::alone;

/// Prints the coverage that the default policy would have here. Exit status 1 if a layer is absent.
pub fn doctor(json: bool) -> Result<u8> {
    let world = super::policy::world()?;
    let (host, coverage) = examine(&world)?;
    let key = SigningKey::standard(&world.state).map(|key| key.map(|key| key.public()));
    let key = key.map_err(|error| format!("{:#}", anyhow!(error)));
    let log_key = key.as_ref().ok();
    let usable = !coverage.layers.iter().any(|entry| matches!(entry.state, State::Absent { .. }));
    if json {
        println!(
            "{:#}",
            json!({ "schema": 1, "usable": usable, "host": host, "layers": coverage.layers, "log_key": log_key })
        );
    } else {
        print!("{}", text(&host, &coverage, &key, usable));
    }
    Ok(u8::from(!usable))
}

fn examine(world: &World) -> Result<(HostFacts, Coverage)> {
    let host = examined_host()?;
    // What the default policy asks of the host, whatever project this is run in.
    let request = Request { policies: vec!["base".into()], ..Request::default() };
    let policy = policy::load(&request, world)?.policy;
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

fn text(host: &HostFacts, coverage: &Coverage, key: &Result<Option<PublicKey>, String>, usable: bool) -> String {
    let mut text = String::new();
    for entry in &coverage.layers {
        let _ = writeln!(text, "{entry}");
    }
    if host.filtered {
        let _ = writeln!(text, "note: this process runs under a seccomp filter already (a container, or another box)");
    }
    let _ = match key {
        Ok(Some(key)) => writeln!(text, "logs: signed by {key}"),
        Err(why) => writeln!(text, "logs: no run starts here, because none can be signed: {why}"),
        Ok(None) => writeln!(text, "logs: not signed; `agentbox log key` makes a key, with which every run then signs"),
    };
    let verdict =
        if usable { "this host can hold every layer" } else { "runs here need --allow-degraded for what is absent" };
    let _ = writeln!(text, "{verdict}");
    text
}
