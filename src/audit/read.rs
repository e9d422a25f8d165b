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
    /// The record's own number, if the line says one.
    pub seq: Option<u64>,
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
        let mut line = Line { number: self.number, seq: None, raw, entry: None, faults: Vec::new() };
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
                line.seq = Some(header.seq);
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
        // A running writer's last line may be seen half written.
        if line.faults.iter().any(|found| found.fault == Fault::Torn) && still_written(path) {
            return Ok(Chain::Unfinished { records: reader.number - 1, head: reader.head });
        }
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::SystemTime;

    use serde_json::Value;

    use super::super::record::{Note, Record, RunResult, Start};
    use super::super::report::Summary;
    use super::super::writer::Writer;
    use super::*;

    const RECORDS: usize = 1000;

    fn push_notes(writer: &Writer, count: usize) {
        for i in 0..count {
            writer.push(Record::Note(Note { time: SystemTime::UNIX_EPOCH, text: format!("note {i}") }));
        }
    }

    /// A log of a thousand records, its lines, and the head that its run.json would have.
    fn log(dir: &Path) -> (PathBuf, Vec<String>, Head) {
        let path = dir.join("audit.jsonl");
        let writer = Writer::create(&path, &Start::example()).unwrap();
        push_notes(&writer, RECORDS - 2);
        let head = writer.finish(&RunResult::default(), &Summary::example()).unwrap().head;
        let lines = fs::read_to_string(&path).unwrap().lines().map(str::to_string).collect();
        (path, lines, head)
    }

    /// Places all over the log, the same in every run.
    fn places() -> impl Iterator<Item = usize> {
        let draw = |x: &usize| Some(x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407));
        std::iter::successors(Some(42), draw).map(|x| 1 + (x >> 33) % (RECORDS - 3)).take(15)
    }

    fn verify_lines(path: &Path, lines: &[String], head: Option<&Head>) -> Chain {
        fs::write(path, lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
        verify(path, head).unwrap()
    }

    fn broken(chain: Chain) -> (u64, Fault) {
        match chain {
            Chain::Broken(Located { line, fault }) => (line, fault),
            other => panic!("not found: {other:?}"),
        }
    }

    #[test]
    fn an_untouched_log_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let (path, lines, head) = log(dir.path());
        let whole = Chain::Verified { records: RECORDS as u64, head: head.clone(), dropped: 0 };
        assert_eq!(verify_lines(&path, &lines, Some(&head)), whole);
        assert_eq!(verify_lines(&path, &lines, None), whole);
        assert_eq!(run_of(&path), Some(Start::example().run));
    }

    #[test]
    fn an_edited_line_is_found_where_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let (path, lines, head) = log(dir.path());
        for at in places() {
            let mut edited = lines.clone();
            edited[at] = edited[at].replace("note ", "nota ");
            let found = broken(verify_lines(&path, &edited, Some(&head)));
            assert_eq!(found, (at as u64 + 1, Fault::Changed));
        }
        let mut edited = lines.clone();
        edited[RECORDS - 1] = edited[RECORDS - 1].replace("\"dropped\":0", "\"dropped\":1");
        assert_eq!(broken(verify_lines(&path, &edited, Some(&head))).0, RECORDS as u64, "the last line");
    }

    #[test]
    fn a_deleted_line_is_found_where_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let (path, lines, _) = log(dir.path());
        for at in places() {
            let mut shorter = lines.clone();
            shorter.remove(at);
            let seq = at as u64 + 1;
            let fault = Fault::Missing { expected: seq, found: seq + 1 };
            assert_eq!(broken(verify_lines(&path, &shorter, None)), (seq, fault));
        }
        assert_eq!(broken(verify_lines(&path, &lines[1..], None)), (1, Fault::NoStart));
    }

    #[test]
    fn an_inserted_line_is_found_where_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let (path, lines, _) = log(dir.path());
        for at in places() {
            let mut copied = lines.clone();
            copied.insert(at + 1, lines[at].clone());
            let (line, fault) = broken(verify_lines(&path, &copied, None));
            assert_eq!(line, at as u64 + 2);
            assert!(matches!(fault, Fault::OutOfPlace { .. }), "{fault}");

            // One that continues the chain as a writer would is found by the line behind it.
            let mut forged = lines.clone();
            let mut record: Value = serde_json::from_str(&lines[at]).unwrap();
            record["seq"] = (at as u64 + 2).into();
            record["prev"] = text::hex(&Sha256::digest(lines[at].as_bytes())).into();
            forged.insert(at + 1, record.to_string());
            assert_eq!(broken(verify_lines(&path, &forged, None)).0, at as u64 + 3);

            let mut foreign = lines.clone();
            foreign.insert(at, "hello\x1b[2J".into());
            let (line, fault) = broken(verify_lines(&path, &foreign, None));
            assert_eq!(line, at as u64 + 1);
            assert!(matches!(&fault, Fault::Foreign(_)) && !fault.to_string().contains('\x1b'));
        }
    }

    #[test]
    fn swapped_lines_are_found_where_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let (path, lines, _) = log(dir.path());
        for at in places() {
            let mut swapped = lines.clone();
            swapped.swap(at, at + 1);
            assert_eq!(broken(verify_lines(&path, &swapped, None)).0, at as u64 + 1);
        }
    }

    #[test]
    fn a_truncated_log_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let (path, lines, head) = log(dir.path());
        for at in places() {
            let (line, fault) = broken(verify_lines(&path, &lines[..at], Some(&head)));
            assert_eq!((line, fault), (at as u64, Fault::OtherHead { expected: RECORDS as u64 }));
            let unfinished = verify_lines(&path, &lines[..at], None);
            assert!(matches!(unfinished, Chain::Unfinished { records, .. } if records == at as u64), "{unfinished:?}");

            let length = fs::metadata(&path).unwrap().len();
            File::options().write(true).open(&path).unwrap().set_len(length - 7).unwrap();
            assert_eq!(broken(verify(&path, Some(&head)).unwrap()), (at as u64, Fault::Torn));
        }
        assert!(matches!(verify_lines(&path, &[], Some(&head)), Chain::Broken(_)));
    }

    #[test]
    fn lines_behind_the_end_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let (path, mut lines, _) = log(dir.path());
        let mut record: Value = serde_json::from_str(&lines[5]).unwrap();
        record["seq"] = (RECORDS as u64 + 1).into();
        record["prev"] = text::hex(&Sha256::digest(lines[RECORDS - 1].as_bytes())).into();
        lines.push(record.to_string());
        assert_eq!(broken(verify_lines(&path, &lines, None)), (RECORDS as u64 + 1, Fault::AfterEnd));
    }

    #[test]
    fn a_rewritten_log_with_a_right_chain_of_its_own_is_found_by_the_runs_file() {
        let dir = tempfile::tempdir().unwrap();
        let (_, _, head) = log(dir.path());
        let path = dir.path().join("other.jsonl");
        let writer = Writer::create(&path, &Start::example()).unwrap();
        push_notes(&writer, RECORDS - 3);
        writer.finish(&RunResult::default(), &Summary::example()).unwrap();
        assert!(matches!(verify(&path, None).unwrap(), Chain::Verified { .. }));
        assert!(matches!(broken(verify(&path, Some(&head)).unwrap()).1, Fault::OtherHead { .. }));
    }

    #[test]
    fn a_newer_version_is_said_to_be_newer() {
        let dir = tempfile::tempdir().unwrap();
        let (path, lines, _) = log(dir.path());
        for newer in [lines[0].replacen("\"v\":1", "\"v\":2", 1), "{\"v\":2,\"shape\":\"other\"}".into()] {
            let found = broken(verify_lines(&path, &[newer], None));
            assert_eq!(found, (1, Fault::Newer(2)));
        }
    }

    #[test]
    fn a_bad_line_does_not_hide_the_ones_behind_it() {
        let dir = tempfile::tempdir().unwrap();
        let (path, mut lines, _) = log(dir.path());
        for at in [100, 200, 300] {
            lines[at] = "\u{fffd} no record".into();
        }
        lines.swap(500, 501);
        lines.remove(700);
        verify_lines(&path, &lines, None);
        let mut reader = Reader::open(&path).unwrap();
        let (mut faults, mut entries) = (vec![], 0);
        while let Some(line) = reader.next_line().unwrap() {
            faults.extend(line.faults.iter().map(|located| located.line));
            entries += usize::from(line.entry.is_some());
        }
        assert_eq!(faults, [101, 201, 301, 501, 502, 701]);
        assert_eq!(entries, RECORDS - 4);
        assert!(reader.ended());
    }

    #[test]
    fn a_line_without_end_takes_no_more_memory_than_the_longest_record() {
        let endless = io::repeat(b'x').take(3 * LONGEST as u64);
        let mut reader = Reader::new(BufReader::new(endless.chain(&b"\n{}\n"[..])), Path::new("endless"));
        let line = reader.next_line().unwrap().unwrap();
        assert!(line.raw.len() <= 4096 && matches!(line.faults[0].fault, Fault::Foreign(_)));
        assert_eq!(reader.next_line().unwrap().unwrap().raw, b"{}");
        assert!(reader.next_line().unwrap().is_none());
    }

    #[test]
    fn readers_see_whole_records_while_a_run_writes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        let writer = Writer::create(&path, &Start::example()).unwrap();
        writer.start().unwrap();
        let done = std::sync::atomic::AtomicBool::new(false);
        let relaxed = std::sync::atomic::Ordering::Relaxed;
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !done.load(relaxed) {
                        match verify(&path, None).unwrap() {
                            Chain::Unfinished { .. } | Chain::Verified { .. } => {}
                            broken => panic!("{broken:?}"),
                        }
                    }
                });
            }
            assert!(still_written(&path));
            (0..20).for_each(|_| {
                push_notes(&writer, 200);
                std::thread::sleep(std::time::Duration::from_millis(3));
            });
            let head = writer.finish(&RunResult::default(), &Summary::example()).unwrap().head;
            done.store(true, relaxed);
            assert!(matches!(verify(&path, Some(&head)).unwrap(), Chain::Verified { records: 4002, .. }));
        });
        assert!(!still_written(&path));
    }
}
