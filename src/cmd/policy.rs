//! `agentbox policy show|check|list`, and the two values that every policy is loaded from: what the flags ask for and
//! what this process's world is.

use std::collections::BTreeMap;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::print;
use crate::cli::{AuditLevel, ExportAs, Net, PolicyArgs};
use crate::event::{Export, Level};
use crate::policy::network::{Destinations, NetworkRule};
use crate::policy::{
    self, ExecRules, Guard, GuardKind, LoadError, NetworkMode, Policy, ProgramRule, Programs, Publish, Request, Root,
    World,
};

/// The flags as plain data.
pub fn request(args: &PolicyArgs) -> Request {
    Request {
        own: Vec::new(),
        key: None,
        policies: args.policy.clone(),
        inline: Vec::new(),
        read: args.read.clone(),
        write: args.write.clone(),
        deny: args.deny.clone(),
        deny_read: args.deny_read.clone(),
        deny_write: args.deny_write.clone(),
        env: args.env.clone(),
        clean_env: args.clean_env,
        chdir: args.chdir.clone(),
        net: args.net.map(|net| match net {
            Net::None => NetworkMode::None,
            Net::Rules => NetworkMode::Rules,
            Net::Host => NetworkMode::Host,
        }),
        net_allow: args.net_allow.clone(),
        net_deny: args.net_deny.clone(),
        publish: args.publish.clone(),
        unix: args.net_unix.clone(),
        audit: args.audit_level.map(|level| match level {
            AuditLevel::Minimal => Level::Minimal,
            AuditLevel::Actions => Level::Actions,
            AuditLevel::All => Level::All,
        }),
        export: args.export.map(|export| match export {
            ExportAs::None => Export::None,
            ExportAs::Otlp => Export::Otlp,
        }),
    }
}

/// The world of this process.
pub fn world() -> Result<World> {
    let vars: BTreeMap<OsString, OsString> = env::vars_os().collect();
    let absolute = |name: &str| vars.get(OsStr::new(name)).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = absolute("HOME").or_else(home_on_record).context("cannot find the home directory: set HOME")?;
    let state = absolute("XDG_STATE_HOME").unwrap_or_else(|| home.join(".local/state")).join("agentbox");
    Ok(World { cwd: env::current_dir().context("cannot find the current directory")?, home, state, vars })
}

/// The home that `/etc/passwd` names, read as text: a static binary has no name service.
fn home_on_record() -> Option<PathBuf> {
    let uid = nix::unistd::geteuid().to_string();
    let passwd = fs::read_to_string("/etc/passwd").ok()?;
    let line = passwd.lines().find(|line| line.split(':').nth(2) == Some(&uid))?;
    line.split(':').nth(5).filter(|home| home.starts_with('/')).map(PathBuf::from)
}

/// Prints notes on stderr.
pub fn print_notes(notes: &[String]) {
    for note in notes {
        eprintln!("agentbox: {note}");
    }
}

/// Prints a policy with the origin of each rule; `plan` is what it comes to, as text and as JSON, if that was asked for.
pub fn show(policy: &Policy, json: bool, plan: Option<(String, Value)>) -> u8 {
    if json {
        let mut value = as_json(policy);
        if let (Some(object), Some((_, plan))) = (value.as_object_mut(), plan) {
            object.insert("plan".into(), plan);
        }
        print(&format!("{value:#}\n"));
    } else {
        print(&as_text(policy));
        if let Some((text, _)) = plan {
            print(&format!("\n{text}"));
        }
    }
    0
}

/// The policy as a person reads it.
pub fn as_text(policy: &Policy) -> String {
    let mut out = String::new();
    let mut line = |text: String| {
        let _ = writeln!(out, "{}", text.trim_end());
    };
    line(format!("policy   {}", policy.name));
    line(format!("digest   {}", policy.digest));
    line(format!("workdir  {}", policy.workdir.display()));
    line(format!("home     {}", policy.home.display()));
    line(format!("network  {:<44} {}", policy.network.mode.name(), policy.network.rule));
    for (title, rules) in [("reach", &policy.network.allow), ("no reach", &policy.network.deny)] {
        rules.iter().for_each(|rule| line(format!("{title:<8} {:<44} {}", rule.to.to_string(), rule.rule)));
    }
    for publish in &policy.network.publish {
        line(format!("publish  {:<44} {}", format!("{} → {}", publish.host, publish.port), publish.rule));
    }
    policy.network.unix.iter().for_each(|socket| line(root_line("connect", socket)));
    line(format!("audit    {}{}", level_name(policy.audit), exported(policy.export)));
    policy.audit_key.iter().for_each(|key| line(format!("key      {:<44} {}", key.path.display(), key.at)));
    for (title, roots) in
        [("write", &policy.files.write), ("private", &policy.files.private), ("read", &policy.files.read)]
    {
        roots.iter().filter(|root| root.exists).for_each(|root| line(root_line(title, root)));
    }
    let all = [&policy.files.write, &policy.files.private, &policy.files.read].into_iter().flatten();
    let missing: Vec<_> = all.filter(|root| !root.exists).map(|root| root.path.to_string_lossy()).collect();
    if !missing.is_empty() {
        line(format!("missing  {}", missing.join(" ")));
    }
    if let Some(tiers) = &policy.tiers {
        line(tiers.to_string());
    }
    for guard in policy.files.guards.iter().chain(policy.secrets.iter()) {
        let title = match guard.kind {
            GuardKind::Deny => "deny",
            GuardKind::DenyRead => "no read",
            GuardKind::DenyWrite => "no write",
            GuardKind::Protect => "protect",
            GuardKind::Secret => "secret",
        };
        line(format!("{title:<8} {:<44} {}", guard.pattern.text(), guard.rule));
    }
    let ExecRules { allow, ask, deny, otherwise: _, told_apart: _ } = &policy.exec;
    for (title, rules) in [("run", allow), ("ask", ask), ("not run", deny)] {
        rules.iter().for_each(|rule| line(format!("{title:<8} {:<44} {}", rule.to_string(), rule.rule)));
    }
    let names: Vec<_> = policy.env.vars.keys().map(|name| name.to_string_lossy()).collect();
    line(format!("env      {}", names.join(" ")));
    if !policy.env.withheld.is_empty() {
        line(format!("withheld {}", policy.env.withheld.join(" ")));
    }
    out
}

fn root_line(title: &str, root: &Root) -> String {
    let mut path = root.path.display().to_string();
    if let Some(link) = &root.link {
        path = format!("{} → {path}", link.display());
    }
    format!("{title:<8} {path:<44} {}", root.rule)
}

/// The policy as JSON.
pub fn as_json(policy: &Policy) -> Value {
    let roots = |roots: &[Root]| {
        let one = |root: &Root| json!({"path": text(&root.path), "link": root.link.as_deref().map(text), "exists": root.exists, "rule": root.rule});
        roots.iter().map(one).collect::<Value>()
    };
    let guards = |kind: GuardKind| {
        let one = |guard: &Guard| json!({"pattern": guard.pattern.text(), "except": guard.except, "message": guard.message, "rule": guard.rule});
        policy.files.guards.of(kind).iter().map(one).collect::<Value>()
    };
    let programs = |rules: &Programs| {
        let args = |rule: &ProgramRule| rule.args.as_ref().map(|args| args.words().map(Value::from).collect::<Value>());
        let one = |rule: &ProgramRule| json!({"program": rule.program.to_string(), "args": args(rule), "message": rule.message, "rule": rule.rule});
        rules.iter().map(one).collect::<Value>()
    };
    let destinations = |rules: &Destinations| {
        let one = |rule: &NetworkRule| json!({"to": rule.to.to_string(), "message": rule.message, "rule": rule.rule});
        rules.iter().map(one).collect::<Value>()
    };
    let published = |one: &Publish| json!({"host": one.host.to_string(), "port": one.port, "rule": one.rule});
    let names: Vec<_> = policy.env.vars.keys().map(|name| name.to_string_lossy()).collect();
    json!({
        "name": policy.name,
        "digest": policy.digest,
        "workdir": text(&policy.workdir),
        "home": text(&policy.home),
        "filesystem": {
            "read": roots(&policy.files.read),
            "write": roots(&policy.files.write),
            "private": roots(&policy.files.private),
            "deny": guards(GuardKind::Deny),
            "deny_read": guards(GuardKind::DenyRead),
            "deny_write": guards(GuardKind::DenyWrite),
            "protect": guards(GuardKind::Protect),
        },
        "exec": {
            "allow": programs(&policy.exec.allow),
            "ask": programs(&policy.exec.ask),
            "deny": programs(&policy.exec.deny),
        },
        "env": {"pass": names, "withheld": policy.env.withheld},
        "network": {
            "mode": policy.network.mode,
            "rule": policy.network.rule,
            "allow": destinations(&policy.network.allow),
            "deny": destinations(&policy.network.deny),
            "publish": policy.network.publish.iter().map(published).collect::<Value>(),
            "unix": roots(&policy.network.unix),
        },
        "audit": {
            "level": policy.audit,
            "export": policy.export,
            "key": policy.audit_key.as_ref().map(|key| text(&key.path)),
        },
    })
}

fn text(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    crate::event::escape_bytes(path.as_os_str().as_bytes())
}

fn exported(export: Export) -> &'static str {
    match export {
        Export::None => "",
        Export::Otlp => ", exported as otlp",
    }
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::Minimal => "minimal",
        Level::Actions => "actions",
        Level::All => "all",
    }
}

/// Checks each file, says what is wrong with it, and returns 125 if any is.
pub fn check(files: &[PathBuf], world: &World) -> u8 {
    let mut code = 0;
    for file in files {
        match policy::load::check(file, world) {
            Ok(notes) => {
                print_notes(&notes);
                print(&format!("{}: ok\n", file.display()));
            }
            Err(error) => {
                eprintln!("agentbox: {}", chain(&error));
                code = 125;
            }
        }
    }
    code
}

/// An error with its sources, on one line.
fn chain(error: &LoadError) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(source) = next {
        let _ = write!(text, ": {source}");
        next = source.source();
    }
    text
}

/// Lists the shipped profiles.
pub fn list(json: bool) -> u8 {
    let profiles: Vec<_> = policy::load::profiles().collect();
    if json {
        print(&format!("{:#}\n", json!(profiles)));
    } else {
        profiles.iter().for_each(|profile| print(&format!("{:<12} {}\n", profile.name, profile.about)));
    }
    0
}
