//! The directory that a run leaves behind: `runs/<id>/` in agentbox's state directory, with `audit.jsonl` and `run.json`.
//!
//! Main process, host's view. The state directory is handed in; nothing here reads the environment, and nothing but
//! a run's own directory is ever written.

use std::collections::hash_map::RandomState;
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::actions::ActionSum;
use super::key::PublicKey;
use super::record::{Counts, Destination, Head, PolicyRef, RunResult, is_zero};
use super::report::Summary;
use super::text;
use crate::event::{Mode, escape_bytes};

const LOG: &str = "audit.jsonl";
const ABOUT: &str = "run.json";
const NEXT: &str = ".run.json.new";

/// Why a run's directory could not be made, read or found.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the fields are the path or name in the message
pub enum RunError {
    /// Neither XDG_STATE_HOME nor HOME says where state goes.
    #[error("no place for the run's records: set HOME, or XDG_STATE_HOME to an absolute path")]
    NoHome,
    /// A directory could not be made.
    #[error("cannot make {} for the run's records (set XDG_STATE_HOME to a directory you can write)", path.display())]
    Make { path: PathBuf, source: io::Error },
    /// `run.json` could not be written.
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    /// A directory or file could not be read.
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// There are no runs.
    #[error("no runs on record in {}", state.display())]
    NoRuns { state: PathBuf },
    /// No run's id starts so, and no such file exists.
    #[error("no run `{spec}`: {}", instead(spec))]
    NotFound { spec: String },
    /// More than one run's id starts so.
    #[error("`{spec}` is the start of {count} runs, among them {first} and {second}: give more of it")]
    Ambiguous { spec: String, count: usize, first: RunId, second: RunId },
}

/// What may have been meant by a name that is no run's.
fn instead(spec: &str) -> String {
    match spec.rsplit_once(':') {
        Some((_, seq)) if seq.parse::<u64>().is_ok() => format!("`agentbox log show {spec}` prints one record"),
        _ => "`agentbox log list` shows what there is".into(),
    }
}

/// Names a run; ids sort by the time they were made, such as `20261122-154627-7d3a1f`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(Arc<str>);

impl RunId {
    /// Makes the id of a run that starts at `now`, with twelve bits of `salt` to keep runs of one instant apart.
    pub fn new(now: SystemTime, salt: u64) -> Self {
        // The first three digits of the last part are the second's fraction, so that ids of one second sort too.
        let time = text::rfc3339(now);
        let part = |range: std::ops::Range<usize>| time.get(range).unwrap_or_default().to_string();
        let (date, clock) = (part(0..10).replace('-', ""), part(11..19).replace(':', ""));
        let fraction = part(20..26).parse::<u64>().unwrap_or_default() * 4096 / 1_000_000;
        Self(format!("{date}-{clock}-{fraction:03x}{:03x}", salt & 0xfff).into())
    }

    /// Takes `text` if it has the form of an id.
    pub fn parse(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.split('-').collect();
        let &[date, clock, salt] = parts.as_slice() else { return None };
        let digits = |part: &str, length: usize| part.len() == length && part.bytes().all(|b| b.is_ascii_digit());
        let hex = salt.len() == 6 && salt.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        (digits(date, 8) && digits(clock, 6) && hex).then(|| Self(text.into()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Finds agentbox's state directory from the variables that `lookup` gives: `$XDG_STATE_HOME/agentbox`.
pub fn state_dir(lookup: impl Fn(&str) -> Option<OsString>) -> Result<PathBuf, RunError> {
    let absolute = |name: &str| lookup(name).map(PathBuf::from).filter(|path| path.is_absolute());
    // The specification says to ignore a relative one.
    absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
        .map(|state| state.join("agentbox"))
        .ok_or(RunError::NoHome)
}

/// What `run.json` holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunFile {
    /// The version of this file's shape.
    pub v: u32,
    /// The run.
    pub id: RunId,
    /// The version of agentbox that made it.
    pub agentbox: String,
    /// The command and its arguments, escaped as paths are.
    pub command: Vec<String>,
    /// Where the command started, escaped.
    pub cwd: String,
    /// The trace that the run is part of, as its caller said in `TRACEPARENT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// The policy.
    pub policy: PolicyRef,
    /// What became of denials.
    #[serde(default)]
    pub mode: Mode,
    /// The files and profiles that the policy came from.
    #[serde(default)]
    pub sources: Vec<String>,
    /// Which layer was enforced, partial or absent, and why.
    pub coverage: Value,
    /// The audit log, escaped.
    pub log: String,
    /// When it started, RFC 3339.
    pub started: String,
    /// When it ended.
    pub ended: Option<String>,
    /// How it ended.
    pub result: Option<RunResult>,
    /// Every question of the run.
    pub counts: Option<Counts>,
    /// What the run had to do with each party outside.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub destinations: Vec<Destination>,
    /// What each action came to, the session first; the lightest are left out where there are too many.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub actions: Vec<ActionSum>,
    /// What all came to.
    #[serde(default)]
    pub total: Option<Box<ActionSum>>,
    /// How many questions were refused.
    pub denied: Option<u64>,
    /// How many would have been, and were let through in mode audit.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub let_through: u64,
    /// The key that signs the log's heads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<PublicKey>,
    /// The last link of the log's chain: what the log must end with.
    pub head: Option<Head>,
}

impl RunFile {
    /// The version of this file's shape that this program writes.
    pub const VERSION: u32 = 1;

    /// Fills in how the run ended; `head` is the last link that was written.
    pub fn end(&mut self, now: SystemTime, result: RunResult, summary: &Summary, head: Option<Head>) {
        self.ended = Some(text::rfc3339(now));
        self.result = Some(result);
        self.counts = Some(summary.counts.clone());
        self.destinations = summary.destinations.clone();
        self.actions = summary.actions.clone();
        self.total = Some(Box::new(summary.total.clone()));
        self.denied = Some(summary.denied);
        self.let_through = summary.let_through;
        self.head = head;
    }

    /// The audit log's path.
    pub fn log_path(&self) -> Option<PathBuf> {
        use std::os::unix::ffi::OsStringExt;
        crate::event::unescape_bytes(&self.log).map(|bytes| PathBuf::from(OsString::from_vec(bytes)))
    }
}

/// A run's own directory.
#[derive(Debug, Clone)]
pub struct RunDir {
    path: PathBuf,
    id: RunId,
}

impl RunDir {
    /// Draws the id of a new run, and so the place of its directory in `state`; makes nothing yet.
    pub fn choose(state: &Path, now: SystemTime) -> Self {
        let runs = state.join("runs");
        let draw = || {
            let id = RunId::new(now, RandomState::new().build_hasher().finish());
            Self { path: runs.join(id.as_str()), id }
        };
        // An id that is taken was made in the same 0.2 ms with the same 12 bits: another draw settles it.
        let mut drawn = draw();
        for _ in 0..64 {
            if !drawn.path.exists() {
                break;
            }
            drawn = draw();
        }
        drawn
    }

    /// Makes the directory, readable by this user alone. Fails if another run has taken its place since it was chosen.
    pub fn make(&self) -> Result<(), RunError> {
        let runs = self.path.parent().unwrap_or(&self.path);
        let failed = |path: &Path| {
            let path = path.to_path_buf();
            move |source| RunError::Make { path, source }
        };
        make_private(runs, true).map_err(failed(runs))?;
        make_private(&self.path, false).map_err(failed(&self.path))
    }

    /// The run's id.
    pub fn id(&self) -> &RunId {
        &self.id
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the audit log goes unless `--log` says otherwise.
    pub fn log_path(&self) -> PathBuf {
        self.path.join(LOG)
    }

    /// Opens the file that becomes the next `run.json`.
    pub fn open_next(&self) -> Result<File, RunError> {
        let path = self.path.join(NEXT);
        private_file(&path).map_err(|source| RunError::Write { path, source })
    }

    /// Writes `run.json` by way of `next`, whole or not at all: a reader sees the old one or the new one.
    pub fn write(&self, mut next: File, about: &RunFile) -> Result<(), RunError> {
        let path = self.path.join(ABOUT);
        let written = to_json(about).and_then(|text| next.write_all(&text));
        let placed = written.and_then(|()| fs::rename(self.path.join(NEXT), &path));
        placed.map_err(|source| RunError::Write { path, source })
    }
}

fn to_json(about: &RunFile) -> io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(about)?;
    text.push(b'\n');
    Ok(text)
}

fn make_private(path: &Path, parents: bool) -> io::Result<()> {
    DirBuilder::new().mode(0o700).recursive(parents).create(path)
}

fn private_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

/// Lists the runs in `state`, newest first.
pub fn list(state: &Path) -> Result<Vec<RunId>, RunError> {
    let runs = state.join("runs");
    let failed = |source| RunError::Read { path: runs.clone(), source };
    let entries = match fs::read_dir(&runs) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut ids = Vec::new();
    for entry in entries {
        ids.extend(entry.map_err(failed)?.file_name().to_str().and_then(RunId::parse));
    }
    ids.sort_unstable_by(|a, b| b.cmp(a));
    Ok(ids)
}

/// A run that was asked for by name, or a log by itself.
#[derive(Debug)]
pub struct Found {
    /// Its audit log.
    pub log: PathBuf,
    /// The run's own directory; none when the log stands alone or is a copy.
    pub dir: Option<PathBuf>,
    /// The run whose place it has, whatever its files say; `None` when it was named by its own path.
    pub run: Option<RunId>,
    /// What its `run.json` holds; `Ok(None)` when the log stands alone.
    pub about: Result<Option<RunFile>, RunError>,
}

/// Finds a run by id, by the start of an id, or by the path of its directory or log; without `spec`, the newest.
pub fn find(state: &Path, spec: Option<&str>) -> Result<Found, RunError> {
    match spec {
        None | Some("last") => {
            let ids = list(state)?;
            let newest = ids.first().ok_or_else(|| RunError::NoRuns { state: state.into() })?;
            Ok(at_dir(&state.join("runs").join(newest.as_str())))
        }
        Some(spec) if spec.contains('/') => at_path(state, spec),
        Some(spec) => match by_prefix(state, spec)? {
            Some(id) => Ok(at_dir(&state.join("runs").join(id.as_str()))),
            None => at_path(state, spec),
        },
    }
}

fn by_prefix(state: &Path, spec: &str) -> Result<Option<RunId>, RunError> {
    let mut matching = list(state)?;
    matching.retain(|id| id.as_str().starts_with(spec));
    match matching.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(one.clone())),
        [first, second, ..] => Err(RunError::Ambiguous {
            spec: spec.into(),
            count: matching.len(),
            first: first.clone(),
            second: second.clone(),
        }),
    }
}

fn at_path(state: &Path, spec: &str) -> Result<Found, RunError> {
    let path = PathBuf::from(spec);
    match fs::metadata(&path) {
        Ok(facts) if facts.is_dir() => Ok(at_dir(&path)),
        Ok(_) => Ok(at_file(state, path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(RunError::NotFound { spec: spec.into() }),
        Err(source) => Err(RunError::Read { path, source }),
    }
}

fn at_dir(dir: &Path) -> Found {
    let about = load(dir);
    let log = about.as_ref().ok().and_then(|about| about.as_ref()?.log_path());
    Found { log: log.unwrap_or_else(|| dir.join(LOG)), dir: Some(dir.into()), run: place_of(dir), about }
}

/// The run whose directory `dir` is.
fn place_of(dir: &Path) -> Option<RunId> {
    RunId::parse(dir.file_name()?.to_str()?)
}

/// A log file by itself: its run is the one beside it, or the one in `state` that its first record names.
fn at_file(state: &Path, log: PathBuf) -> Found {
    let is_its_own = |about: &Result<Option<RunFile>, RunError>| match about.as_ref().ok().and_then(Option::as_ref) {
        Some(about) => match (about.log_path().map(fs::canonicalize), fs::canonicalize(&log)) {
            (Some(Ok(theirs)), Ok(ours)) => theirs == ours,
            _ => false,
        },
        None => false,
    };
    let beside = log.parent().map(|dir| (load(dir), dir.to_path_buf()));
    let (about, dir) = match beside.filter(|(about, _)| is_its_own(about)) {
        Some((about, dir)) => (about, Some(dir)),
        // A copied or moved log still answers for the run that it says it is of.
        None => match super::read::run_of(&log).map(|id| state.join("runs").join(id.as_str())) {
            Some(dir) => (load(&dir), Some(dir)),
            None => (Ok(None), None),
        },
    };
    let dir = dir.filter(|_| is_its_own(&about));
    let run = log.parent().filter(|_| log.ends_with(LOG)).and_then(place_of);
    Found { log, dir, run, about }
}

/// Reads the `run.json` in `dir`, if there is one.
pub fn load(dir: &Path) -> Result<Option<RunFile>, RunError> {
    let path = dir.join(ABOUT);
    let bytes = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        bytes => bytes.map_err(|source| RunError::Read { path: path.clone(), source })?,
    };
    serde_json::from_slice(&bytes).map(Some).map_err(|error| RunError::Read { path, source: error.into() })
}

/// Escapes the words of a command as records hold them.
pub fn escape_command(command: &[OsString]) -> Vec<String> {
    use std::os::unix::ffi::OsStrExt;
    command.iter().map(|word| escape_bytes(word.as_bytes())).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use super::*;

    fn made(state: &Path, now: SystemTime) -> Result<RunDir, RunError> {
        let run = RunDir::choose(state, now);
        run.make().map(|()| run)
    }

    fn at(seconds: f64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs_f64(seconds)
    }

    fn about(run: &RunDir) -> RunFile {
        RunFile {
            v: RunFile::VERSION,
            id: run.id().clone(),
            agentbox: "0.1.0".into(),
            command: vec!["true".into()],
            cwd: "/".into(),
            traceparent: None,
            policy: PolicyRef { name: "default.yaml".into(), digest: "00".into() },
            mode: Mode::Enforce,
            sources: vec![],
            coverage: Value::Null,
            log: escape_bytes(run.log_path().as_os_str().as_encoded_bytes()),
            started: text::rfc3339(at(0.0)),
            ended: None,
            result: None,
            counts: None,
            destinations: Vec::new(),
            actions: Vec::new(),
            total: None,
            denied: None,
            let_through: 0,
            key: None,
            head: None,
        }
    }

    #[test]
    fn ids_sort_by_time_even_within_a_second() {
        let ids = [0.0, 1.0, 1.001, 1.5, 1.9999, 2.0].map(|t| RunId::new(at(1_795_362_387.0 + t), 0xfff_ffff));
        assert!(ids.is_sorted() && ids[0] < ids[1], "{ids:?}");
        assert_eq!(RunId::parse(ids[3].as_str()), Some(ids[3].clone()));
        for bad in ["", "last", "20261122-154627-7d3a1", "20261122-154627-7D3A1F", "2026112x-154627-7d3a1f", "a-b-c-d"]
        {
            assert_eq!(RunId::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn state_lies_where_the_base_directory_specification_says() {
        let dir = |xdg: Option<&str>, home: Option<&str>| {
            state_dir(|name| if name == "HOME" { home } else { xdg }.map(OsString::from)).ok()
        };
        assert_eq!(dir(Some("/s"), Some("/h")), Some("/s/agentbox".into()));
        assert_eq!(dir(None, Some("/h")), Some("/h/.local/state/agentbox".into()));
        assert_eq!(dir(Some("relative"), Some("/h")), Some("/h/.local/state/agentbox".into()));
        assert_eq!(dir(None, None), None);
        assert_eq!(dir(Some(""), Some("")), None);
    }

    #[test]
    fn a_run_directory_is_private_and_its_file_is_replaced_whole() {
        let state = tempfile::tempdir().unwrap();
        let run = made(&state.path().join("a/b"), at(0.0)).unwrap();
        assert_eq!(fs::metadata(run.path()).unwrap().permissions().mode() & 0o777, 0o700);
        let mut about = about(&run);
        run.write(run.open_next().unwrap(), &about).unwrap();
        about.result = Some(RunResult { exit: Some(3), ..RunResult::default() });
        run.write(run.open_next().unwrap(), &about).unwrap();
        assert_eq!(load(run.path()).unwrap(), Some(about));
        assert_eq!(fs::read_dir(run.path()).unwrap().count(), 1);
    }

    #[test]
    fn runs_of_one_instant_get_different_directories() {
        let state = tempfile::tempdir().unwrap();
        let ids: std::collections::BTreeSet<_> =
            (0..200).map(|_| made(state.path(), at(1.0)).unwrap().id().clone()).collect();
        assert_eq!(ids.len(), 200);
        assert!(list(state.path()).unwrap().iter().eq(ids.iter().rev()));
    }

    #[test]
    fn a_state_directory_that_cannot_be_made_is_an_error_that_names_it() {
        let error = made(Path::new("/proc/nowhere"), at(0.0)).unwrap_err();
        assert!(error.to_string().contains("/proc/nowhere/runs"), "{error}");
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(made(file.path(), at(0.0)).is_err());
    }

    #[test]
    fn a_run_is_found_by_id_prefix_directory_log_and_recency() {
        let state = tempfile::tempdir().unwrap();
        assert!(matches!(find(state.path(), None), Err(RunError::NoRuns { .. })));
        let runs = [1.0, 100_000.0, 200_000.0].map(|t| made(state.path(), at(t)).unwrap());
        for run in &runs {
            run.write(run.open_next().unwrap(), &about(run)).unwrap();
            File::create(run.log_path()).unwrap();
        }
        let log = |spec: Option<&str>| find(state.path(), spec).map(|found| found.log);
        assert_eq!(log(None).unwrap(), runs[2].log_path());
        assert_eq!(log(Some("last")).unwrap(), runs[2].log_path());
        assert_eq!(log(Some(runs[0].id().as_str())).unwrap(), runs[0].log_path());
        assert_eq!(log(Some("19700102")).unwrap(), runs[1].log_path());
        assert_eq!(log(Some(runs[1].path().to_str().unwrap())).unwrap(), runs[1].log_path());
        let found = find(state.path(), Some(runs[1].log_path().to_str().unwrap())).unwrap();
        assert_eq!(found.about.unwrap().unwrap().id, *runs[1].id());
        assert!(matches!(log(Some("1970")), Err(RunError::Ambiguous { count: 3, .. })));
        assert!(matches!(log(Some("nothing")), Err(RunError::NotFound { .. })));
        assert!(matches!(log(Some("./nothing")), Err(RunError::NotFound { .. })));
    }

    #[test]
    fn a_broken_run_file_is_said_to_be_broken() {
        let state = tempfile::tempdir().unwrap();
        let run = made(state.path(), at(0.0)).unwrap();
        fs::write(run.path().join(ABOUT), "{").unwrap();
        assert!(matches!(find(state.path(), None).unwrap().about, Err(RunError::Read { .. })));
    }
}
