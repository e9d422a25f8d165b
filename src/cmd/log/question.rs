//! Flags become a question to a log: words become operations, times and patterns, checked before a line is read.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use jiff::civil::{DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};

use crate::audit::query::{Criteria, PathTest, Query};
use crate::audit::read;
use crate::audit::record::Op;
use crate::audit::run::Found;
use crate::cli::LogFilter;
use crate::event::unescape_bytes;
use crate::policy::rules::{Base, Pattern};

/// Makes the query that the flags ask for. `home` is what `~` stands for in a pattern.
pub fn query(filter: &LogFilter, found: &Found, home: Option<&Path>) -> Result<Query> {
    let when = |flag: &str, text: &Option<String>| {
        let moment = text.as_ref().map(|text| moment(text, found).with_context(|| format!("{flag} {text}")));
        moment.transpose()
    };
    Ok(Query::new(Criteria {
        denied: filter.denied,
        ops: filter.op.iter().map(|word| operation(word)).collect::<Result<_>>()?,
        since: when("--since", &filter.since)?,
        until: when("--until", &filter.until)?,
        action: filter.action.clone(),
        pid: filter.pid,
        path: filter.path.as_ref().map(|glob| path_test(glob, found, home)).transpose()?,
        path_word: filter.path.as_deref().and_then(sure_word).map(str::to_string),
        rule: filter.rule.clone(),
    }))
}

fn operation(word: &str) -> Result<Op> {
    if let Some(op) = Op::ALL.into_iter().find(|op| op.name() == word) {
        return Ok(op);
    }
    let near = Op::ALL.into_iter().map(|op| (strsim::jaro_winkler(word, op.name()), op));
    let near = near.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(likeness, _)| *likeness > 0.7);
    let guess = near.map(|(_, op)| format!("did you mean `{}`? ", op.name())).unwrap_or_default();
    let all: Vec<&str> = Op::ALL.into_iter().map(Op::name).collect();
    bail!("--op {word}: there is no such operation: {guess}there are {}", all.join(", "))
}

/// A pattern of the policy's kind, from the directory that the run started in.
fn path_test(glob: &str, found: &Found, home: Option<&Path>) -> Result<PathTest> {
    let cwd = workdir(found);
    let floats = glob == "**" || ["/", "~", "**/", "$"].iter().any(|start| glob.starts_with(start));
    if cwd.is_none() && !floats {
        bail!("--path {glob}: the log stands alone, nothing says where the run started: write `/…` or `**/{glob}`");
    }
    let base = Base {
        workdir: cwd.as_deref().unwrap_or(Path::new("/")),
        home: home.unwrap_or(Path::new("/")),
        var: &|name| std::env::var_os(name),
    };
    let pattern = Pattern::parse(glob, &base).with_context(|| format!("--path {glob}"))?;
    Ok(Box::new(move |path| pattern.matches(path)))
}

/// The longest name in a pattern that every path it matches holds as it is written.
fn sure_word(glob: &str) -> Option<&str> {
    // A name before `..` is left again, which a variable may hold, too; one in braces is a choice.
    if glob.contains(['{', '}', '\\', '$']) || glob.split('/').any(|name| name == "..") {
        return None;
    }
    let plain = |name: &&str| !name.is_empty() && *name != "." && !name.contains(['*', '?', '[', ']', '~']);
    glob.split('/').filter(plain).max_by_key(|name| name.len())
}

/// Where the run of a log started, if its `run.json` is there.
pub fn workdir(found: &Found) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStringExt;
    let about = found.about.as_ref().ok()?.as_ref()?;
    unescape_bytes(&about.cwd).map(|bytes| std::ffi::OsString::from_vec(bytes).into())
}

/// Reads a moment: RFC 3339, a time of the run's day, or a duration that ends with the log.
fn moment(text: &str, found: &Found) -> Result<Timestamp> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    if let Ok(time) = text.parse::<DateTime>() {
        return Ok(TimeZone::UTC.to_timestamp(time)?);
    }
    // Before durations, which may be written with colons, too.
    if let (Ok(time), true) = (text.parse::<Time>(), text.contains(':')) {
        return of_the_runs_day(time, found);
    }
    if let Ok(before) = text.parse::<SignedDuration>() {
        let end = read::last_time(&found.log)?.context("the log holds no record with a time")?;
        return Ok(end.checked_sub(before.unsigned_abs())?);
    }
    bail!("not a time: write 15:46, 15:46:27, 2026-11-22T15:46:27Z, or a duration such as 10m or 1h30m")
}

/// The time on the day that the run started (UTC), or on the next if the run went on past midnight and had not begun
/// by then.
fn of_the_runs_day(time: Time, found: &Found) -> Result<Timestamp> {
    let start =
        read::first_time(&found.log)?.context("the log does not begin with a start record: give a date, too")?;
    let day = TimeZone::UTC.to_datetime(start).date();
    let moment = TimeZone::UTC.to_timestamp(day.to_datetime(time))?;
    let next = moment.checked_add(24.hours())?;
    match moment < start && read::last_time(&found.log)?.is_some_and(|end| next <= end) {
        true => Ok(next),
        false => Ok(moment),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A log by itself that runs from `first` to `last`.
    fn log(dir: &Path, first: &str, last: &str) -> Found {
        let path = dir.join("log");
        let start = format!(r#"{{"v":1,"seq":1,"prev":"","kind":"start","time":"{first}"}}"#);
        let end = format!(r#"{{"v":1,"seq":2,"prev":"","kind":"end","time":"{last}"}}"#);
        fs::write(&path, format!("{start}\n{end}\n")).unwrap();
        Found { log: path, dir: None, run: None, about: Ok(None) }
    }

    #[test]
    fn a_time_of_the_day_is_one_that_the_run_went_through() {
        let dir = tempfile::tempdir().unwrap();
        let at = |found: &Found, text: &str| moment(text, found).unwrap().to_string();
        let day = log(dir.path(), "2026-11-22T15:40:00Z", "2026-11-22T16:20:00Z");
        assert_eq!(at(&day, "15:46"), "2026-11-22T15:46:00Z");
        assert_eq!(at(&day, "15:46:27"), "2026-11-22T15:46:27Z");
        assert_eq!(at(&day, "09:00"), "2026-11-22T09:00:00Z", "before it began is from its beginning");
        let night = log(dir.path(), "2026-11-22T23:40:00Z", "2026-11-23T01:20:00Z");
        assert_eq!(at(&night, "23:50"), "2026-11-22T23:50:00Z");
        assert_eq!(at(&night, "00:30"), "2026-11-23T00:30:00Z", "past midnight");
        assert_eq!(at(&night, "1h"), "2026-11-23T00:20:00Z");
        assert_eq!(at(&night, "1h30m"), "2026-11-22T23:50:00Z");
        assert_eq!(at(&night, "2026-11-23T00:30:00"), "2026-11-23T00:30:00Z");
        for wrong in ["", "10", "noon", "25:00", "999999999999999999h"] {
            assert!(moment(wrong, &night).is_err(), "{wrong}");
        }
        fs::write(&night.log, "no log\n").unwrap();
        assert!(moment("10m", &night).is_err() && moment("15:46", &night).is_err());
    }

    #[test]
    fn a_word_of_a_pattern_is_sure_only_if_every_path_holds_it() {
        for (glob, word) in [
            ("/etc/**", Some("etc")),
            ("src/*/deep.rs", Some("deep.rs")),
            ("**/.env", Some(".env")),
            ("./a", Some("a")),
            ("$HOME/x", None),
            ("~/*.rs", None),
            ("a/../bb", None),
            ("{aa,bb}/c", None),
            ("a\\*b", None),
            ("**", None),
            ("a[xy]b", None),
        ] {
            assert_eq!(sure_word(glob), word, "{glob}");
        }
    }

    #[test]
    fn every_operation_has_a_name_that_is_found() {
        for op in Op::ALL {
            assert_eq!(operation(op.name()).unwrap(), op);
        }
    }
}
