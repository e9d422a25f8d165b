//! `agentbox annotate`: says something for the record of the run that this command is in.
//!
//! Runs in the box, as a short-lived child of the program it speaks for. Nothing of it is trusted: whatever speaks the same
//! lines to the socket is heard alike.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::{Map, Value, json};

use crate::audit::text;
use crate::cli::{AnnotateCommand, SpeaksFor};

/// The variable that tells a program in the box where it can speak of itself.
pub const VARIABLE: &str = "AGENTBOX_ANNOTATE";

/// The socket where the variable was not passed on.
const USUAL: [&str; 2] = ["/run/agentbox/annotate.sock", "/dev/agentbox/annotate.sock"];

/// agentbox answers at once; longer than this means that nobody does.
const PATIENCE: Duration = Duration::from_secs(10);

/// The exit status when what was said is refused.
const REFUSED: u8 = 1;

/// Says it, and prints the id of an action that begins.
pub fn annotate(command: &AnnotateCommand, speaks_for: SpeaksFor) -> Result<u8> {
    let line = line(command, speaks_for)?;
    let answer = ask(&socket()?, &line)?;
    match (&answer["ok"], answer["action"].as_str()) {
        (Value::Bool(true), Some(action)) => {
            if let AnnotateCommand::Begin { .. } = command {
                super::print(&format!("{action}\n"));
            }
            Ok(0)
        }
        _ => {
            let error = answer["error"].as_str().unwrap_or("for no reason");
            eprintln!("agentbox: refused: {}", text::printable(error));
            Ok(REFUSED)
        }
    }
}

/// The line that says it.
fn line(command: &AnnotateCommand, speaks_for: SpeaksFor) -> Result<String> {
    let speaks_for = match speaks_for {
        SpeaksFor::Oneself => "self",
        SpeaksFor::Parent => "parent",
    };
    let mut said = Map::from_iter([("v".into(), json!(1)), ("for".into(), json!(speaks_for))]);
    let mut say = |name: &str, value: Value| {
        if !value.is_null() {
            said.insert(name.into(), value);
        }
    };
    match command {
        AnnotateCommand::Begin { tool, params, reason, plan, parent } => {
            say("type", json!("begin"));
            say("tool", json!(tool));
            say("params", params.as_deref().map(parameters).transpose()?.unwrap_or_default());
            say("reason", json!(reason));
            say("plan", json!(plan));
            say("parent", json!(parent));
        }
        AnnotateCommand::End { action, outcome } => {
            say("type", json!("end"));
            say("action", json!(action));
            say("outcome", json!(outcome));
        }
        AnnotateCommand::Note { text } => {
            say("type", json!("note"));
            say("note", json!(text));
        }
    }
    Ok(format!("{}\n", Value::Object(said)))
}

/// The value of `--params`.
fn parameters(given: &str) -> Result<Value> {
    /// More than a line can be is not worth reading.
    const MOST: u64 = 1 << 20;
    let mut text = String::new();
    let (whence, text) = match given.strip_prefix('@') {
        Some(path) => {
            let file = std::fs::File::open(path).with_context(|| format!("--params: cannot read {path}"))?;
            file.take(MOST).read_to_string(&mut text).with_context(|| format!("--params: cannot read {path}"))?;
            (path, text.as_str())
        }
        None if given == "-" => {
            let read = std::io::stdin().take(MOST).read_to_string(&mut text);
            read.context("--params: cannot read standard input")?;
            ("standard input", text.as_str())
        }
        None => ("the argument", given),
    };
    serde_json::from_str(text).map_err(|error| anyhow!("--params: {whence} is no JSON: {error}"))
}

/// Where the run that this command is in can be spoken to.
fn socket() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(VARIABLE).filter(|path| !path.is_empty()) {
        return Ok(path.into());
    }
    if let Some(usual) = USUAL.into_iter().map(Path::new).find(|path| path.exists()) {
        return Ok(usual.into());
    }
    if std::env::var_os("AGENTBOX_RUN_ID").is_some() {
        bail!("this box has no view of its own, so nobody listens in it: `agentbox doctor` says why");
    }
    bail!("not in a box: only what `agentbox run` starts can be annotated")
}

fn ask(socket: &Path, line: &str) -> Result<Value> {
    let failed = || format!("cannot speak to agentbox at {}", socket.display());
    let mut stream = UnixStream::connect(socket).with_context(failed)?;
    stream.set_read_timeout(Some(PATIENCE)).with_context(failed)?;
    stream.set_write_timeout(Some(PATIENCE)).with_context(failed)?;
    // What is too long is answered before all of it is taken.
    let written = stream.write_all(line.as_bytes());
    let mut answer = String::new();
    BufReader::new(&stream).read_line(&mut answer).with_context(failed)?;
    if answer.is_empty() {
        written.with_context(failed)?;
        bail!("{}: no answer", failed());
    }
    serde_json::from_str(&answer).with_context(failed)
}
