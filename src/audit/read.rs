//! Reads a log in constant memory and proves its chain: an edited, missing, added or moved line is found and located.
//!
//! Main process of `agentbox log`. A log is data from anywhere: lines are bounded, nothing in them is trusted, and a bad
//! line never hides the ones behind it.

use std::borrow::Cow;
use std::fmt;
use std::fs::{File, TryLockError};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::brief::Sight;
use super::entry::{self, Entry, Header};
use super::head::{Forged, Heads, Signed};
use super::key::PublicKey;
use super::record::{Head, VERSION};
use super::run::RunId;
use super::text;

/// The longest line that is read as a record; the writer's longest are argument vectors of 64 KiB, escaped.
const LONGEST: usize = 16 * 1024 * 1024;
/// How much is read at once.
const BLOCK: usize = 64 * 1024;

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
    /// The line comes after the record that ends the log, and is not the head that signs it.
    AfterEnd,
    /// The log does not end as the run's own file says it did.
    OtherHead {
        /// The number of the last record that the run's file names.
        expected: u64,
    },
    /// The log is of another run than the one that was asked for.
    OtherRun {
        /// The run that was asked for.
        expected: RunId,
        /// The run that the log says it is of.
        found: RunId,
    },
    /// The signed heads speak against the log.
    Forged(Forged),
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
            Self::OtherRun { expected, found } => {
                let [expected, found] = [expected, found].map(|run| text::printable(run.as_str()));
                write!(f, "the log of run {found} in the place of run {expected}'s")
            }
            Self::Forged(forged) => forged.fmt(f),
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

/// One line of a log, looked at where the reader holds it: put to the chain, its body not read yet.
#[derive(Debug)]
pub struct Seen<'a> {
    /// Its number, from 1.
    pub number: u64,
    /// The record's own number, if the line says one.
    pub seq: Option<u64>,
    /// The line as it is, without its newline.
    pub raw: &'a [u8],
    /// The kind of record, if it is one that this version reads.
    pub kind: Option<&'a str>,
    /// Whether the line begins byte for byte as this program writes it, without a blank between its parts.
    pub compact: bool,
    /// What is wrong with the line or with the one before it.
    pub faults: Vec<Located>,
}

/// Reads a log line by line, checking the chain on the way.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    path: PathBuf,
    number: u64,
    /// The number of the last link.
    seq: u64,
    /// Its hash, in hexadecimal digits as the next line has it.
    hash: [u8; DIGITS],
    end: End,
    /// The last line was no record, so that the next cannot be put to the chain.
    lost: bool,
    /// The line that was read last; its memory is used for the next.
    line: Vec<u8>,
}

/// How far a log is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Open,
    /// The record that ends it, with this number, was seen.
    At(u64),
    /// So was the head that signs that one, behind which nothing stands.
    Signed(u64),
}

impl End {
    /// The number of the record that ends the log.
    fn record(self) -> Option<u64> {
        match self {
            Self::Open => None,
            Self::At(seq) | Self::Signed(seq) => Some(seq),
        }
    }

    /// A record of `kind` follows.
    fn then(self, kind: &str, seq: u64) -> Self {
        match (self, kind) {
            (Self::Open, "end") => Self::At(seq),
            (Self::At(end), "head") => Self::Signed(end),
            _ => self,
        }
    }
}

/// How many digits a hash has.
const DIGITS: usize = 64;

/// What a line turned out to be, as ranges and numbers that hold no borrow.
#[derive(Debug, Default)]
struct Checked {
    seq: Option<u64>,
    kind: Option<KindAt>,
    compact: bool,
    faults: Vec<Located>,
}

/// Where a line names its kind: in plain sight, or in a word that had to be unescaped.
#[derive(Debug)]
enum KindAt {
    Here(std::ops::Range<usize>),
    Spelt(&'static str),
}

impl Reader<BufReader<File>> {
    /// Opens the log at `path`.
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        let file = File::open(path).map_err(|source| ReadError::Read { path: path.into(), source })?;
        Ok(Self::new(BufReader::with_capacity(BLOCK, file), path))
    }
}

impl<R: BufRead> Reader<R> {
    /// Reads from `input`; `path` is for messages.
    pub fn new(input: R, path: &Path) -> Self {
        let hash = [b'0'; DIGITS];
        let (number, seq, end, lost, line) = (0, 0, End::Open, false, Vec::new());
        Self { input, path: path.into(), number, seq, hash, end, lost, line }
    }

    /// The last link seen.
    pub fn head(&self) -> Head {
        Head { seq: self.seq, hash: String::from_utf8_lossy(&self.hash).into_owned() }
    }

    /// Whether the record that ends a log was seen.
    pub fn ended(&self) -> bool {
        self.end != End::Open
    }

    /// How many lines were read.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// What it reads from.
    pub fn input(&self) -> &R {
        &self.input
    }

    /// Reads the next line and its record; `None` at the end of the file.
    pub fn next_line(&mut self) -> Result<Option<Line>, ReadError> {
        let Some(seen) = self.next_seen()? else { return Ok(None) };
        let Seen { number, seq, raw, kind, mut faults, .. } = seen;
        let mut entry = None;
        match kind.map(|kind| entry::parse(kind, raw)) {
            Some(Ok(parsed)) => entry = Some(parsed),
            Some(Err(error)) => faults.push(Located { line: number, fault: Fault::Foreign(error.to_string()) }),
            None => {}
        }
        Ok(Some(Line { number, seq, raw: raw.to_vec(), entry, faults }))
    }

    /// Reads the next line and puts it to the chain; `None` at the end of the file.
    pub fn next_seen(&mut self) -> Result<Option<Seen<'_>>, ReadError> {
        let mut line = std::mem::take(&mut self.line);
        line.clear();
        let checked = self.read_line(&mut line);
        self.line = line;
        let Some(Checked { seq, kind, compact, faults }) = checked? else { return Ok(None) };
        let kind = kind.and_then(|kind| match kind {
            KindAt::Here(range) => self.line.get(range).and_then(|word| std::str::from_utf8(word).ok()),
            KindAt::Spelt(word) => Some(word),
        });
        Ok(Some(Seen { number: self.number, seq, raw: &self.line, kind, compact, faults }))
    }

    fn read_line(&mut self, line: &mut Vec<u8>) -> Result<Option<Checked>, ReadError> {
        // One long line must not keep its memory for the rest of the log.
        line.shrink_to(BLOCK);
        let mut bounded = self.input.by_ref().take(LONGEST as u64);
        let read = bounded.read_until(b'\n', line);
        if read.map_err(|source| ReadError::Read { path: self.path.clone(), source })? == 0 {
            return Ok(None);
        }
        self.number += 1;
        match line.pop_if(|last| *last == b'\n') {
            Some(_) => Ok(Some(self.check(line))),
            None => self.end_of_unfinished(line).map(Some),
        }
    }

    /// A line without its newline is the torn end of a file, or longer than any record.
    fn end_of_unfinished(&mut self, line: &mut Vec<u8>) -> Result<Checked, ReadError> {
        let fault = match line.len() < LONGEST {
            true => Fault::Torn,
            false => Fault::Foreign(format!("longer than {LONGEST} bytes")),
        };
        line.truncate(4096);
        self.lost = true;
        self.skip_line().map_err(|source| ReadError::Read { path: self.path.clone(), source })?;
        Ok(Checked { faults: vec![Located { line: self.number, fault }], ..Checked::default() })
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

    fn check(&mut self, raw: &[u8]) -> Checked {
        if let Some((header, kind)) = compact_header(raw) {
            let faults = self.link(&header, raw).into_iter().collect();
            self.end = self.end.then(&header.kind, header.seq);
            return Checked { seq: Some(header.seq), kind: Some(KindAt::Here(kind)), compact: true, faults };
        }
        match serde_json::from_slice::<Header<'_>>(raw) {
            Err(error) => {
                // What follows may be right; it is taken as the new start of the chain.
                self.lost = true;
                let fault = Located { line: self.number, fault: foreign(raw, &error) };
                Checked { faults: vec![fault], ..Checked::default() }
            }
            Ok(header) => self.check_loose(&header, raw),
        }
    }

    /// A line that this version of agentbox did not write as it stands.
    fn check_loose(&mut self, header: &Header<'_>, raw: &[u8]) -> Checked {
        let mut faults: Vec<Located> = self.link(header, raw).into_iter().collect();
        let mut kind = None;
        if header.v > VERSION {
            faults.push(Located { line: self.number, fault: Fault::Newer(header.v) });
        } else {
            self.end = self.end.then(&header.kind, header.seq);
            kind = Some(kind_at(&header.kind, raw));
        }
        Checked { seq: Some(header.seq), kind, compact: false, faults }
    }

    fn is_behind_the_end(&self, header: &Header<'_>) -> bool {
        match self.end {
            End::Open => false,
            End::At(_) => header.kind != "head",
            End::Signed(_) => true,
        }
    }

    /// Puts the line to the chain, and moves the head to it if it belongs there.
    fn link(&mut self, header: &Header<'_>, raw: &[u8]) -> Option<Located> {
        let (number, expected, found) = (self.number, self.seq + 1, header.seq);
        let fault = if self.is_behind_the_end(header) {
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
        } else if header.prev.as_bytes() != self.hash {
            Some(Located { line: number.saturating_sub(1).max(1), fault: Fault::Changed })
        } else {
            None
        };
        self.lost = false;
        self.seq = found;
        text::put_hex(&Sha256::digest(raw), &mut self.hash);
        fault
    }
}

/// Reads the start of a line that is written as this program writes it, without looking at the rest, and tells where
/// its kind stands; any other spelling of the same goes the long way.
fn compact_header(raw: &[u8]) -> Option<(Header<'_>, std::ops::Range<usize>)> {
    const VERSION_ONE: &[u8] = b"{\"v\":1,\"seq\":";
    let rest = raw.strip_prefix(VERSION_ONE).filter(|_| raw.last() == Some(&b'}'))?;
    // Twenty digits might not fit.
    let digits = rest.iter().take(19).take_while(|byte| byte.is_ascii_digit()).count();
    let seq = rest[..digits].iter().fold(0, |seq: u64, digit| seq * 10 + u64::from(digit - b'0'));
    let rest = rest[digits..].strip_prefix(b",\"prev\":\"").filter(|_| digits > 0)?;
    let (prev, rest) = rest.split_at_checked(DIGITS)?;
    let rest = rest.strip_prefix(b"\",\"kind\":\"").filter(|_| prev.iter().all(u8::is_ascii_hexdigit))?;
    let word = rest.iter().take_while(|byte| byte.is_ascii_lowercase() || **byte == b'_').count();
    rest[word..].strip_prefix(b"\",")?;
    let from = raw.len() - rest.len();
    let text = |bytes| std::str::from_utf8(bytes).ok().map(Cow::Borrowed);
    Some((Header { v: 1, seq, prev: text(prev)?, kind: text(&rest[..word])? }, from..from + word))
}

fn kind_at(kind: &str, raw: &[u8]) -> KindAt {
    let known = ["start", "decision", "note", "action", "claim", "action_end", "head", "end"];
    match known.into_iter().find(|word| *word == kind) {
        Some(word) => KindAt::Spelt(word),
        // A kind that nobody here knows is only ever shown: its own spelling will do.
        None => match memchr::memmem::find(raw, kind.as_bytes()) {
            Some(at) => KindAt::Here(at..at + kind.len()),
            None => KindAt::Spelt("unknown"),
        },
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

/// What is known of a log from elsewhere.
#[derive(Debug, Clone, Default)]
pub struct Expected<'a> {
    /// The last link that the run's own file names.
    pub head: Option<&'a Head>,
    /// The run that it is of.
    pub run: Option<&'a RunId>,
    /// The key that its heads are signed with.
    pub key: Option<PublicKey>,
}

/// What is proven of a log.
#[derive(Debug)]
pub struct Proof {
    /// By its chain and its heads together.
    pub chain: Chain,
    /// How far its heads vouch for it, up to where it is broken; `None` where it has none.
    pub signed: Option<Signed>,
}

/// Proves the log at `path`; `head` is the last link that the run's own file names.
pub fn verify(path: &Path, head: Option<&Head>) -> Result<Chain, ReadError> {
    Ok(prove(path, &Expected { head, ..Expected::default() })?.chain)
}

/// Proves the log at `path` by its chain, by its signed heads if it has any or must, and by what is known of it.
pub fn prove(path: &Path, expected: &Expected<'_>) -> Result<Proof, ReadError> {
    let mut heads = Heads::of(expected.key);
    let chain = follow(path, expected, &mut heads)?;
    Ok(Proof { chain, signed: heads.signed() })
}

fn follow(path: &Path, expected: &Expected<'_>, heads: &mut Heads) -> Result<Chain, ReadError> {
    let mut reader = Reader::open(path)?;
    let mut dropped = 0;
    while let Some(line) = reader.next_seen()? {
        let number = line.number;
        // A running writer's last line may be seen half written.
        if line.faults.iter().any(|found| found.fault == Fault::Torn) && still_written(path) {
            return Ok(Chain::Unfinished { records: number - 1, head: reader.head() });
        }
        let sight = line.kind.map(|kind| Sight::of(kind, line.raw));
        if let Some(first) = line.faults.into_iter().next() {
            return Ok(Chain::Broken(first));
        }
        let fault = match sight {
            Some(Ok(Sight::Start(start))) => other_run(expected.run, &start.run).or_else(|| {
                heads.begin(start.run);
                None
            }),
            Some(Ok(Sight::Head(head))) => heads.take(*head).err().map(Fault::Forged),
            Some(Ok(Sight::End(end))) => {
                dropped = end.dropped;
                None
            }
            Some(Err(error)) => Some(Fault::Foreign(error.to_string())),
            Some(Ok(_)) | None => None,
        };
        if let Some(fault) = fault {
            return Ok(Chain::Broken(Located { line: number, fault }));
        }
    }
    let (records, head) = (reader.number, reader.head());
    let at_the_end = |fault| Ok(Chain::Broken(Located { line: records.max(1), fault }));
    if let Some(theirs) = expected.head.filter(|theirs| **theirs != head) {
        return at_the_end(Fault::OtherHead { expected: theirs.seq });
    }
    match heads.end(reader.end.record()) {
        // The last head is on its way to the file.
        Err(Forged::EndNotSigned { .. }) if still_written(path) => Ok(Chain::Unfinished { records, head }),
        Err(forged) => at_the_end(Fault::Forged(forged)),
        Ok(()) if reader.ended() => Ok(Chain::Verified { records, head, dropped }),
        Ok(()) => Ok(Chain::Unfinished { records, head }),
    }
}

fn other_run(expected: Option<&RunId>, found: &RunId) -> Option<Fault> {
    let expected = expected.filter(|run| *run != found)?;
    Some(Fault::OtherRun { expected: expected.clone(), found: found.clone() })
}

/// Tells the run that a log's first record names.
pub fn run_of(path: &Path) -> Option<RunId> {
    match Reader::open(path).ok()?.next_line().ok()??.entry? {
        Entry::Start(start) => Some(start.run),
        _ => None,
    }
}

/// Tells when a log begins: the time of its first record.
pub fn first_time(path: &Path) -> Result<Option<Timestamp>, ReadError> {
    Ok(Reader::open(path)?.next_seen()?.and_then(|line| time_of(line.raw)))
}

/// Tells when a log ends: the time of the last record that is whole, found from the end of the file.
pub fn last_time(path: &Path) -> Result<Option<Timestamp>, ReadError> {
    let failed = |source| ReadError::Read { path: path.into(), source };
    let mut file = File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    let mut window = BLOCK as u64;
    loop {
        let mut end = Vec::new();
        file.seek(SeekFrom::Start(length.saturating_sub(window))).map_err(failed)?;
        (&file).take(window).read_to_end(&mut end).map_err(failed)?;
        // Where the window cuts a line in two, its second part is no record.
        let found = end.split(|byte| *byte == b'\n').rev().find_map(time_of);
        if found.is_some() || window >= length || window >= LONGEST as u64 {
            return Ok(found);
        }
        window *= 8;
    }
}

fn time_of(line: &[u8]) -> Option<Timestamp> {
    #[derive(serde::Deserialize)]
    struct Timed<'a> {
        #[serde(borrow)]
        time: Cow<'a, str>,
    }
    serde_json::from_slice::<Timed<'_>>(line).ok()?.time.parse().ok()
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
    fn a_log_tells_its_first_and_last_time_without_being_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let time = |second: u64| SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(second);
        let writer = Writer::create(&path, &Start::example()).unwrap();
        writer.push(Record::Note(Note { time: time(7), text: "x".repeat(300_000) }));
        drop(writer.finish(&RunResult::default(), &Summary::example()).unwrap());
        assert_eq!(first_time(&path).unwrap(), Some(Timestamp::UNIX_EPOCH));
        let mut lines: Vec<String> = fs::read_to_string(&path).unwrap().lines().map(str::to_string).collect();
        lines[2] = "{\"v\":1,\"torn".into();
        fs::write(&path, lines.join("\n")).unwrap();
        assert_eq!(last_time(&path).unwrap(), Timestamp::from_second(7).ok(), "behind a line longer than a block");
        fs::write(&path, "").unwrap();
        assert_eq!((first_time(&path).unwrap(), last_time(&path).unwrap()), (None, None));
    }

    #[test]
    fn a_header_is_read_the_short_way_only_if_it_is_spelt_so() {
        let dir = tempfile::tempdir().unwrap();
        let (path, lines, _) = log(dir.path());
        let compact = |line: &str| {
            fs::write(&path, format!("{line}\n")).unwrap();
            let mut reader = Reader::open(&path).unwrap();
            let seen = reader.next_seen().unwrap().unwrap();
            (seen.compact, seen.seq, seen.kind.map(str::to_string))
        };
        let seen = |compact, kind: &str| (compact, Some(1), Some(kind.to_string()));
        assert_eq!(compact(&lines[0]), seen(true, "start"));
        for (from, to) in [("{\"v\"", "{ \"v\""), ("\"seq\":1", "\"seq\": 1"), ("\"start\"", "\"st\\u0061rt\"")] {
            assert_eq!(compact(&lines[0].replacen(from, to, 1)), seen(false, "start"), "{to}");
        }
        let later = lines[0].replacen("\"start\"", "\"l\\u0061ter\"", 1);
        assert_eq!(compact(&later), seen(false, "unknown"), "a kind that is spelt so that it cannot be shown");
        let long = lines[0].replacen("\"seq\":1", "\"seq\":99999999999999999999", 1);
        assert_eq!(compact(&long), (false, None, None), "more than fits");
        assert_eq!(compact(&lines[0][..lines[0].len() - 1]), (false, None, None), "not to its end");
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
