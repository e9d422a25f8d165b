//! One record with everything in it, also what this version of agentbox does not know.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::trail::{BOLD, Clock, DIM, Paint, RED, aim, mark};
use super::{BROKEN, Output, located, warn_about_run};
use crate::audit::brief::Sight;
use crate::audit::read::{Fault, Located, Reader};
use crate::audit::run::{self, Found};
use crate::audit::text::{printable, quoted};

/// A record, and what the lines around it say of it.
struct Picked {
    line: u64,
    raw: Vec<u8>,
    kind: Option<String>,
    clock: Clock,
    faults: Vec<Located>,
    /// Whether the line behind it was written after it as it is.
    sealed: bool,
    /// Whether the log has signed heads, the first of which stands at its start.
    signed: bool,
}

/// Prints the record that `spec` names, as RUN:SEQ.
pub fn show(state: &Path, spec: &str, json: bool, output: &mut Output<'_>) -> Result<u8> {
    let (run, number) = spec.rsplit_once(':').map_or((None, spec), |(run, number)| (Some(run), number));
    let seq: u64 = number.parse().with_context(|| format!("`{spec}` is no record: write RUN:SEQ, such as last:12"))?;
    let found = run::find(state, run)?;
    let picked = pick(&found, seq)?;
    let mut status = warn_about_run(&found, output)?;
    for fault in &picked.faults {
        status = BROKEN;
        writeln!(output.err, "agentbox: {}", located(&found.log, fault))?;
    }
    if json {
        output.out.write_all(&picked.raw)?;
        writeln!(output.out)?;
        return Ok(status);
    }
    match serde_json::from_slice(&picked.raw) {
        Ok(value) => put(&found, seq, &picked, &value, output)?,
        Err(error) => {
            status = BROKEN;
            let fault = Located { line: picked.line, fault: Fault::Foreign(error.to_string()) };
            writeln!(output.err, "agentbox: {}", located(&found.log, &fault))?;
            writeln!(output.out, "{}", printable(&String::from_utf8_lossy(&picked.raw)))?;
        }
    }
    Ok(status)
}

/// Reads up to the record and one line further.
fn pick(found: &Found, seq: u64) -> Result<Picked> {
    let mut reader = Reader::open(&found.log)?;
    let mut clock = Clock::default();
    let (mut picked, mut signed): (Option<Picked>, bool) = (None, false);
    while let Some(line) = reader.next_seen()? {
        if let Some(mut picked) = picked {
            picked.sealed = line.faults.is_empty();
            picked.signed = signed || line.kind == Some("head");
            picked.faults.extend(line.faults.into_iter().filter(|fault| fault.line < line.number));
            return Ok(picked);
        }
        if line.kind == Some("start")
            && let Ok(Sight::Start(start)) = Sight::of("start", line.raw)
        {
            clock = Clock::from(&start);
        }
        signed |= line.kind == Some("head");
        picked = (line.seq == Some(seq)).then(|| Picked {
            line: line.number,
            raw: line.raw.to_vec(),
            kind: line.kind.map(str::to_string),
            clock,
            faults: line.faults.into_iter().filter(|fault| fault.line == line.number).collect(),
            sealed: false,
            signed,
        });
    }
    let last = reader.head().seq;
    match picked {
        Some(picked) => Ok(Picked { sealed: reader.ended(), ..picked }),
        None => bail!("there is no record {seq} in {}: its last is {last}", found.log.display()),
    }
}

fn put(found: &Found, seq: u64, picked: &Picked, value: &Value, output: &mut Output<'_>) -> Result<()> {
    let paint = Paint { colour: output.colour };
    let sight = picked.kind.as_deref().and_then(|kind| Sight::of(kind, &picked.raw).ok());
    let out = &mut output.out;
    let log = printable(&found.log.to_string_lossy());
    writeln!(out, "{} {seq} of {log}", paint.paint(BOLD, "record"))?;
    if let Some(sight) = &sight {
        let offset = picked.clock.column(sight.time());
        match sight {
            Sight::Decision(brief) => {
                let (colour, mark) = mark(brief);
                let mark = paint.paint(colour, mark.trim_end());
                writeln!(out, "{} {mark} {} {}", offset.trim_start(), brief.op.name(), printable(&aim(brief)))?;
            }
            _ => writeln!(out, "{} into the run", offset.trim_start())?,
        }
    }
    writeln!(out)?;
    let fields = fields(value);
    let width = fields.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
    for (name, text) in &fields {
        writeln!(out, "  {}  {}", paint.paint(DIM, &format!("{name:<width$}")), printable(text))?;
    }
    writeln!(out)?;
    let signed = if picked.signed { "signed: `agentbox log verify` checks it" } else { "not signed" };
    match picked.sealed {
        true => writeln!(out, "the chain holds up to it, and what follows was written after it as it is; {signed}")?,
        false => writeln!(out, "{}", paint.paint(RED, "nothing behind it vouches for it"))?,
    }
    if let Some(Sight::Decision(brief)) = &sight
        && brief.denied()
    {
        let run = found.about.as_ref().ok().and_then(Option::as_ref).map(|about| about.id.to_string());
        let run = run.unwrap_or_else(|| quoted(&found.log.to_string_lossy()));
        writeln!(out, "what would allow it: agentbox why --event {}:{seq}", printable(&run))?;
    }
    Ok(())
}

/// The order in which people look for things; what is not here comes behind.
const ORDER: [&str; 27] = [
    "kind",
    "time",
    "op",
    "target",
    "to",
    "asked",
    "verdict",
    "rule",
    "reason",
    "message",
    "answer",
    "outcome",
    "layer",
    "latency_us",
    "process",
    "action",
    "attribution",
    "parent",
    "command",
    "claim",
    "effect",
    "effects",
    "reach",
    "reversibility",
    "tier",
    "taint",
    "bound",
];
const LAST: [&str; 4] = ["run", "seq", "prev", "v"];

/// Every field of a record by its path, in the order in which people look for them.
fn fields(record: &Value) -> Vec<(String, String)> {
    let mut fields = Vec::new();
    let Some(object) = record.as_object() else { return fields };
    let known = |name: &&String| ORDER.contains(&name.as_str()) || LAST.contains(&name.as_str());
    let others = object.keys().filter(|name| !known(name)).map(String::as_str);
    for name in ORDER.into_iter().chain(others).chain(LAST) {
        if let Some(value) = object.get(name) {
            flatten(name.to_string(), value, &mut fields);
        }
    }
    fields
}

fn flatten(name: String, value: &Value, fields: &mut Vec<(String, String)>) {
    let flat = |value: &Value| !value.is_object() && !value.is_array();
    match value {
        Value::Object(object) if !object.is_empty() => {
            for (part, value) in object {
                flatten(format!("{name}.{part}"), value, fields);
            }
        }
        Value::Array(items) if items.iter().all(flat) && !items.is_empty() => {
            let words: Vec<String> = items.iter().map(|item| quoted(&plain(item))).collect();
            fields.push((name, words.join(" ")));
        }
        Value::Array(items) if !items.is_empty() => {
            for (at, item) in items.iter().enumerate() {
                flatten(format!("{name}[{at}]"), item, fields);
            }
        }
        value => fields.push((name, plain(value))),
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_string)
}
