//! Reads a log in constant memory and proves its chain: an edited, missing, added or moved line is found and located.
//!
//! Main process of `agentbox log`. A log is data from anywhere: lines are bounded, nothing in them is trusted, and a bad
//! line never hides the ones behind it.

use std::fmt;
use std::fs::{File, TryLockError};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::record::{self, Entry, Head, Header, NO_LINE, VERSION};
use super::run::RunId;
use super::text;

/// The longest line that is read as a record; the writer's longest are argument vectors of 64 KiB, escaped.
const LONGEST: usize = 16 * 1024 * 1024;

/// Why a log could not be read.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the field is the path in the message
pub enum ReadError {
    /// It could not be opened or read.
    #[error("cannot read the audit log {}", path.display())]
    Read { path: PathBuf, source: io::Error },
}

/// What is wrong with a line, or between it and the one before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The line is no record.
    Foreign(String),
    /// The file ends in the middle of the line.
    Torn,
    /// A newer agentbox wrote it.
    Newer(u32),
    /// Records are missing before the line.
    Missing {
        /// The number the line should have.
        expected: u64,
        /// The number it has.
        found: u64,
    },
    /// The line is a copy, was moved, or was put in.
    OutOfPlace {
        /// The number the line should have.
        expected: u64,
        /// The number it has.
        found: u64,
    },
    /// The line before is not the one that this line was written after.
    Changed,
    /// The log does not begin with a start record.
    NoStart,
    /// The line comes after the record that ends the log.
    AfterEnd,
    /// The log does not end as the run's own file says it did.
    OtherHead {
        /// The number of the last record that the run's file names.
        expected: u64,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign(why) => write!(f, "not a record: {}", text::printable(why)),
            Self::Torn => f.write_str("cut off in the middle of a record"),
            Self::Newer(version) => {
                write!(f, "written by a newer agentbox (records version {version}, this one reads {VERSION})")
            }
            Self::Missing { expected, found } if expected + 1 == *found => {
                write!(f, "record {expected} is missing before it")
            }
            Self::Missing { expected, found } => write!(f, "records {expected} to {} are missing before it", found - 1),
            Self::OutOfPlace { expected, found } => {
                write!(f, "record {found} stands where record {expected} belongs: copied, moved or put in")
            }
            Self::Changed => f.write_str("changed after it was written, or the next line was put in its place"),
            Self::NoStart => f.write_str("the first record is not a start record"),
            Self::AfterEnd => f.write_str("stands after the record that ends the log"),
            Self::OtherHead { expected } => {
                write!(f, "the log does not end with record {expected} as run.json has it: cut off or rewritten")
            }
        }
    }
}

/// A fault and the line it is at, counted from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// The line.
    pub line: u64,
    /// What is wrong there.
    pub fault: Fault,
}

/// One line of a log.
#[derive(Debug)]
pub struct Line {
    /// Its number, from 1.
    pub number: u64,
    /// The line as it is, without its newline.
    pub raw: Vec<u8>,
    /// The record, if it is one.
    pub entry: Option<Entry>,
    /// What is wrong with the line or with the one before it.
    pub faults: Vec<Located>,
}

/// Reads a log line by line, checking the chain on the way.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    path: PathBuf,
    number: u64,
    head: Head,
    ended: bool,
    /// The last line was no record, so that the next cannot be put to the chain.
    lost: bool,
}

impl Reader<BufReader<File>> {
    /// Opens the log at `path`.
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        let file = File::open(path).map_err(|source| ReadError::Read { path: path.into(), source })?;
        Ok(Self::new(BufReader::with_capacity(64 * 1024, file), path))
    }
}

impl<R: BufRead> Reader<R> {
    /// Reads from `input`; `path` is for messages.
    pub fn new(input: R, path: &Path) -> Self {
        let head = Head { seq: 0, hash: NO_LINE.into() };
        Self { input, path: path.into(), number: 0, head, ended: false, lost: false }
    }

    /// The last link seen.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Whether the record that ends a log was seen.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// Reads the next line; `None` at the end of the file.
    pub fn next_line(&mut self) -> Result<Option<Line>, ReadError> {
        let mut raw = Vec::new();
        let mut bounded = self.input.by_ref().take(LONGEST as u64);
        let read = bounded.read_until(b'\n', &mut raw);
        if read.map_err(|source| ReadError::Read { path: self.path.clone(), source })? == 0 {
            return Ok(None);
        }
        self.number += 1;
        let whole = raw.pop_if(|last| *last == b'\n').is_some();
        let mut line = Line { number: self.number, raw, entry: None, faults: Vec::new() };
        if !whole {
            self.end_of_unfinished(&mut line)?;
        } else {
            self.check(&mut line);
        }
        Ok(Some(line))
    }

    /// A line without its newline is the torn end of a file, or longer than any record.
    fn end_of_unfinished(&mut self, line: &mut Line) -> Result<(), ReadError> {
        let fault = match line.raw.len() < LONGEST {
            true => Fault::Torn,
            false => Fault::Foreign(format!("longer than {LONGEST} bytes")),
        };
        line.faults.push(Located { line: line.number, fault });
        line.raw.truncate(4096);
        self.lost = true;
        self.skip_line().map_err(|source| ReadError::Read { path: self.path.clone(), source })
    }

    fn skip_line(&mut self) -> io::Result<()> {
        loop {
            let buffer = self.input.fill_buf()?;
            let (used, done) = match buffer.iter().position(|&byte| byte == b'\n') {
                Some(at) => (at + 1, true),
                None => (buffer.len(), buffer.is_empty()),
            };
            self.input.consume(used);
            if done {
                return Ok(());
            }
        }
    }

    fn check(&mut self, line: &mut Line) {
        match serde_json::from_slice::<Header<'_>>(&line.raw) {
            Err(error) => {
                // What follows may be right; it is taken as the new start of the chain.
                self.lost = true;
                line.faults.push(Located { line: line.number, fault: foreign(&line.raw, &error) });
            }
            Ok(header) => {
                line.faults.extend(self.link(line.number, &header, &line.raw));
                let fault = self.body(&header, &line.raw, &mut line.entry);
                line.faults.extend(fault.map(|fault| Located { line: line.number, fault }));
            }
        }
    }

    /// Puts the line to the chain, and moves the head to it if it belongs there.
    fn link(&mut self, number: u64, header: &Header<'_>, raw: &[u8]) -> Option<Located> {
        let expected = self.head.seq + 1;
        let found = header.seq;
        let fault = if self.ended {
            Some(Located { line: number, fault: Fault::AfterEnd })
        } else if number == 1 && header.kind != "start" {
            Some(Located { line: number, fault: Fault::NoStart })
        } else if self.lost {
            None
        } else if found > expected {
            Some(Located { line: number, fault: Fault::Missing { expected, found } })
        } else if found < expected {
            // The head stays: the next line is likely the one that belongs here.
            return Some(Located { line: number, fault: Fault::OutOfPlace { expected, found } });
        } else if header.prev != self.head.hash {
            Some(Located { line: number.saturating_sub(1).max(1), fault: Fault::Changed })
        } else {
            None
        };
        self.lost = false;
        self.head = Head { seq: found, hash: text::hex(&Sha256::digest(raw)) };
        fault
    }

    fn body(&mut self, header: &Header<'_>, raw: &[u8], entry: &mut Option<Entry>) -> Option<Fault> {
        if header.v > VERSION {
            return Some(Fault::Newer(header.v));
        }
        self.ended |= header.kind == "end";
        match record::parse(&header.kind, raw) {
            Ok(parsed) => *entry = Some(parsed),
            Err(error) => return Some(Fault::Foreign(error.to_string())),
        }
        None
    }
}

fn foreign(raw: &[u8], error: &serde_json::Error) -> Fault {
    // A record of another version may have another shape: its version alone can be read then.
    #[derive(serde::Deserialize)]
    struct Version {
        v: u32,
    }
    match serde_json::from_slice::<Version>(raw) {
        Ok(Version { v }) if v > VERSION => Fault::Newer(v),
        _ => Fault::Foreign(error.to_string()),
    }
}

/// What a log's chain proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chain {
    /// Every record is there, as it was written.
    Verified {
        /// How many.
        records: u64,
        /// The last link; it was compared with the run's own file if that was given.
        head: Head,
        /// Records that the run itself says it could not write.
        dropped: u64,
    },
    /// A record was changed, removed, added or moved.
    Broken(Located),
    /// All is right as far as it goes, but nothing ends it: the run is still going, or was cut off.
    Unfinished {
        /// How many records there are.
        records: u64,
        /// The last link.
        head: Head,
    },
}

/// Proves the log at `path`; `expected` is the last link that the run's own file names.
pub fn verify(path: &Path, expected: Option<&Head>) -> Result<Chain, ReadError> {
    let mut reader = Reader::open(path)?;
    let mut dropped = 0;
    while let Some(line) = reader.next_line()? {
        if let Some(first) = line.faults.into_iter().next() {
            return Ok(Chain::Broken(first));
        }
        if let Some(Entry::End(end)) = line.entry {
            dropped = end.dropped;
        }
    }
    let (records, head) = (reader.number, reader.head.clone());
    Ok(match expected {
        Some(theirs) if *theirs != head => {
            Chain::Broken(Located { line: records.max(1), fault: Fault::OtherHead { expected: theirs.seq } })
        }
        _ if reader.ended => Chain::Verified { records, head, dropped },
        _ => Chain::Unfinished { records, head },
    })
}

/// Tells the run that a log's first record names.
pub fn run_of(path: &Path) -> Option<RunId> {
    match Reader::open(path).ok()?.next_line().ok()??.entry? {
        Entry::Start(start) => Some(start.run),
        _ => None,
    }
}

/// Tells whether a run still writes to the log at `path`.
pub fn still_written(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}
