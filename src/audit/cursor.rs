//! How far a collector has taken a run's trace: who exports the run again goes on from there.
//!
//! Exporters, in the host's view. The run's own directory, which no box can reach, holds a small file for each collector;
//! who has it locked is the one that sends there. It is a help, not a record: where it is lost, cannot be written or
//! cannot be read, spans are sent again, and those have the same ids each time.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// What a cursor says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The version of this shape.
    pub v: u32,
    /// The collector, without what its address may hold of secrets.
    pub collector: String,
    /// It has taken the spans that the log's lines up to this one have completed.
    pub line: u64,
    /// And what it has taken of those that no line has completed.
    pub rest: Option<Rest>,
    /// How many spans that is in all.
    pub spans: u64,
    /// Why it did not take the next ones when they were sent last.
    pub failure: Option<String>,
}

/// Spans that a log leaves incomplete where it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rest {
    /// How many lines the log had.
    pub lines: u64,
    /// How many of those spans, in their order.
    pub spans: u64,
}

impl Mark {
    const VERSION: u32 = 1;
    /// No cursor is longer.
    const LONGEST: u64 = 64 * 1024;

    /// Reads what a file says, if it is a cursor that this program writes.
    fn read(file: &File) -> Option<Self> {
        let mut text = Vec::new();
        file.take(Self::LONGEST).read_to_end(&mut text).ok()?;
        serde_json::from_slice(&text).ok().filter(|mark: &Self| mark.v == Self::VERSION)
    }
}

/// The cursor of a run and a collector.
#[derive(Debug, Default)]
pub struct Cursor {
    /// None where nothing can be kept.
    file: Option<File>,
    mark: Mark,
}

impl Cursor {
    /// Opens the cursor in the run's directory `dir` that is named by `key`; keeps nothing where that cannot be written.
    pub fn open(dir: &Path, key: &str) -> Self {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        Self { file: options.open(path(dir, key)).ok(), mark: Mark::default() }
    }

    /// Takes it for this process alone and reads it; `false` while another process has it.
    pub fn claim(&mut self) -> bool {
        let Some(file) = &self.file else { return true };
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            return false;
        }
        self.mark = Mark::read(file).unwrap_or_default();
        true
    }

    /// What it says.
    pub fn mark(&self) -> &Mark {
        &self.mark
    }

    /// Puts it to `mark`. What cannot be kept costs no more than that spans are sent again.
    pub fn put(&mut self, mark: Mark) {
        self.mark = Mark { v: Mark::VERSION, ..mark };
        let _ = self.keep();
    }

    /// In place, by one write: who is killed leaves the old text or the new one.
    fn keep(&self) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let mut text = serde_json::to_vec(&self.mark)?;
        text.push(b'\n');
        file.write_all_at(&text, 0)?;
        file.set_len(text.len() as u64)
    }
}

/// What the cursor in `dir` says now, whoever has it.
pub fn look(dir: &Path, key: &str) -> Option<Mark> {
    Mark::read(&File::open(path(dir, key)).ok()?)
}

fn path(dir: &Path, key: &str) -> PathBuf {
    dir.join(format!("exported-{key}.json"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn mark(line: u64, failure: &str) -> Mark {
        let rest = Some(Rest { lines: line, spans: 2 });
        Mark { v: Mark::VERSION, collector: "http://h".into(), line, rest, spans: line, failure: Some(failure.into()) }
    }

    #[test]
    fn what_one_has_kept_the_next_goes_on_from_and_only_one_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = Cursor::open(dir.path(), "a");
        assert!(first.claim());
        assert_eq!(first.mark(), &Mark::default());
        first.put(mark(7, "a long reason that the next one is shorter than"));
        first.put(mark(9, "short"));
        assert_eq!(look(dir.path(), "a"), Some(mark(9, "short")));
        let mut second = Cursor::open(dir.path(), "a");
        assert!(!second.claim(), "the first has it");
        let mut other = Cursor::open(dir.path(), "b");
        assert!(other.claim() && other.mark() == &Mark::default(), "another collector has its own");
        drop(first);
        assert!(second.claim());
        assert_eq!(second.mark(), &mark(9, "short"));
    }

    #[test]
    fn what_is_no_cursor_counts_as_none() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["", "{", "[]", r#"{"v":2,"collector":"","line":9,"rest":null,"spans":9,"failure":null}"#] {
            fs::write(path(dir.path(), "a"), text).unwrap();
            let mut cursor = Cursor::open(dir.path(), "a");
            assert!(cursor.claim() && cursor.mark() == &Mark::default(), "{text}");
        }
        let mut nowhere = Cursor::open(&dir.path().join("gone"), "a");
        assert!(nowhere.claim());
        nowhere.put(mark(1, ""));
        assert_eq!(nowhere.mark().line, 1, "as long as it lasts");
    }
}
