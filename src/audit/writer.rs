//! Appends records to the log, each chained to the one before it.
//!
//! The file is opened, and the first record written, before agentbox forks, so that a log that cannot be written stops
//! the run; the thread that serialises and writes starts after the fork. Workers only push. A full queue makes them
//! wait: a box is slowed down rather than going unrecorded. A write that fails later is counted, never hidden.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use sha2::{Digest, Sha256};

use super::head;
use super::key::SigningKey;
use super::line::{self, Link};
use super::record::{End, Head, NO_LINE, Note, Record, RunResult, Start};
use super::report::Summary;
use super::run::RunId;
use super::text;

/// How many records may wait before those who push must.
const QUEUE: usize = 65_536;
/// How long the writer leaves the queue alone after it looked, so that a busy box wakes it rarely.
const PAUSE: Duration = Duration::from_millis(5);
/// How much is written at once.
const CHUNK: usize = 64 * 1024;
/// The writer's stack: it serialises flat values.
const STACK: usize = 256 * 1024;

/// Why a log could not be opened or is not whole.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the fields are the path and numbers in the message
pub enum WriteError {
    /// The file could not be opened.
    #[error("cannot open the audit log {}", path.display())]
    Open { path: PathBuf, source: io::Error },
    /// The file holds something.
    #[error(
        "the audit log {} already exists and is not empty: agentbox neither appends to nor replaces it; \
         name a new file or remove it",
        path.display()
    )]
    Taken { path: PathBuf },
    /// Another run writes to the file.
    #[error("the audit log {} is being written by another run: name another file", path.display())]
    Busy { path: PathBuf },
    /// The first record could not be written.
    #[error("cannot write the audit log {}", path.display())]
    First { path: PathBuf, source: io::Error },
    /// The thread could not be started.
    #[error("cannot start the thread that writes the audit log")]
    Thread { source: io::Error },
    /// Records are missing.
    #[error(
        "the audit log {} is not whole: {} records are missing after {} failed writes",
        written.path.display(), written.dropped, written.write_errors
    )]
    Incomplete { written: Written, source: io::Error },
    /// The log was finished before.
    #[error("the audit log was finished before")]
    Finished,
}

/// What a finished log holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The log.
    pub path: PathBuf,
    /// Records in it, start and end included.
    pub recorded: u64,
    /// Records that should be in it and are not.
    pub dropped: u64,
    /// Writes that failed.
    pub write_errors: u64,
    /// The last link of its chain.
    pub head: Head,
}

impl WriteError {
    /// What was written all the same, if the log was finished.
    pub fn written(&self) -> Option<&Written> {
        match self {
            Self::Incomplete { written, .. } => Some(written),
            _ => None,
        }
    }
}

/// The log of one run.
#[derive(Debug)]
pub struct Writer {
    queue: Arc<Queue>,
    /// Empty once the log is finished. Whoever drains the queue holds this lock, so that records keep their order.
    sink: Arc<Mutex<Option<Sink>>>,
}

impl Writer {
    /// Opens the log at `path` and writes its first record; starts no thread.
    ///
    /// A file that exists is taken only if it is empty or special, such as `/dev/null` or a pipe.
    pub fn create(path: &Path, start: &Start) -> Result<Self, WriteError> {
        let file = open(path)?;
        let sink = Sink::begin(file, path, start)?;
        Ok(Self { queue: Arc::default(), sink: Arc::new(Mutex::new(Some(sink))) })
    }

    /// Signs what there is, and from now on the head of the chain: often, and at the end.
    ///
    /// To be called before the thread starts.
    pub fn sign(&self, key: SigningKey) -> Result<(), WriteError> {
        lock(&self.sink).as_mut().ok_or(WriteError::Finished)?.sign_with(key)
    }

    /// Starts the thread that writes; to be called once, after the last fork.
    pub fn start(&self) -> Result<(), WriteError> {
        if lock(&self.sink).is_none() {
            return Err(WriteError::Finished);
        }
        let (queue, sink) = (Arc::clone(&self.queue), Arc::clone(&self.sink));
        let thread = std::thread::Builder::new().name("audit".into()).stack_size(STACK);
        // Nobody joins it: once the log is closed it ends by itself, and what it left is written by who closes.
        thread.spawn(move || write_all(&queue, &sink)).map_err(|source| WriteError::Thread { source })?;
        lock(&self.queue.state).running = true;
        Ok(())
    }

    /// Hands a record to the writer; waits while too many are waiting.
    pub fn push(&self, record: Record) {
        self.queue.push(record);
    }

    /// Writes what waits and the last record, and closes the log.
    ///
    /// Fails if any record is missing from the log; the error then says what was written.
    pub fn finish(&self, result: &RunResult, summary: &Summary) -> Result<Written, WriteError> {
        self.queue.close();
        let mut sink = lock(&self.sink).take().ok_or(WriteError::Finished)?;
        let _ = sink.append(self.queue.drain());
        sink.append_late(self.queue.refused());
        sink.end(result, summary)
    }
}

/// The writer's thread.
fn write_all(queue: &Queue, sink: &Mutex<Option<Sink>>) {
    let mut due = None;
    while queue.wait(due) {
        match lock(sink).as_mut() {
            Some(sink) => due = sink.append(queue.drain()),
            None => return,
        }
        queue.pause();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code that can panic runs under these locks, and the data is whole at every step.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open(path: &Path) -> Result<File, WriteError> {
    let fresh = OpenOptions::new().append(true).create_new(true).mode(0o600).open(path);
    let file = match fresh {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => open_existing(path)?,
        fresh => fresh.map_err(|source| WriteError::Open { path: path.into(), source })?,
    };
    // The lock tells `agentbox log` that the run is still going. File systems without locks do without.
    match file.try_lock() {
        Err(TryLockError::WouldBlock) if is_regular(&file) => Err(WriteError::Busy { path: path.into() }),
        _ => Ok(file),
    }
}

fn open_existing(path: &Path) -> Result<File, WriteError> {
    let failed = |source| WriteError::Open { path: path.into(), source };
    let file = OpenOptions::new().append(true).custom_flags(libc::O_NOCTTY).open(path).map_err(failed)?;
    let facts = file.metadata().map_err(failed)?;
    let kind = facts.file_type();
    let special = kind.is_char_device() || kind.is_fifo() || kind.is_socket();
    match special || (kind.is_file() && facts.len() == 0) {
        true => Ok(file),
        false => Err(WriteError::Taken { path: path.into() }),
    }
}

fn is_regular(file: &File) -> bool {
    file.metadata().is_ok_and(|facts| facts.is_file())
}

/// What lies between those who push and the writer.
#[derive(Debug, Default)]
struct Queue {
    state: Mutex<State>,
    /// Wakes the writer.
    wake: Condvar,
    /// Wakes those who wait for room.
    room: Condvar,
}

#[derive(Debug, Default)]
struct State {
    records: Vec<Record>,
    /// The writer has found nothing and must be woken.
    asleep: bool,
    running: bool,
    closed: bool,
    /// Records that came after the end, or with nobody to make room for them.
    refused: u64,
}

impl Queue {
    fn push(&self, record: Record) {
        let mut state = lock(&self.state);
        while state.records.len() >= QUEUE && state.running && !state.closed {
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.closed || state.records.len() >= QUEUE {
            state.refused += 1;
            return;
        }
        state.records.push(record);
        let full = state.records.len() == QUEUE / 2;
        if std::mem::take(&mut state.asleep) || full {
            self.wake.notify_one();
        }
    }

    /// Sleeps until something waits, or something else is `due`; false once the queue is closed.
    fn wait(&self, due: Option<Instant>) -> bool {
        let mut state = lock(&self.state);
        let left = || due.map_or(Duration::MAX, |due| due.saturating_duration_since(Instant::now()));
        while state.records.is_empty() && !state.closed && !left().is_zero() {
            state.asleep = true;
            state = match due {
                None => self.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(_) => self.wake.wait_timeout(state, left()).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
        state.asleep = false;
        !state.closed
    }

    /// Takes all that waits.
    fn drain(&self) -> Vec<Record> {
        let mut state = lock(&self.state);
        let records = std::mem::take(&mut state.records);
        // The next batch is likely as large; a rare huge one must not keep its memory.
        state.records.reserve(records.len().min(256));
        self.room.notify_all();
        records
    }

    /// Lets records gather for a while, unless the queue fills up or is closed.
    fn pause(&self) {
        let state = lock(&self.state);
        let idle = |state: &mut State| !state.closed && state.records.len() < QUEUE / 2;
        drop(self.wake.wait_timeout_while(state, PAUSE, idle).unwrap_or_else(PoisonError::into_inner));
    }

    /// Refuses all that comes from now on.
    fn close(&self) {
        lock(&self.state).closed = true;
        self.wake.notify_all();
        self.room.notify_all();
    }

    fn refused(&self) -> u64 {
        lock(&self.state).refused
    }
}

/// The file and the chain's state.
#[derive(Debug)]
struct Sink {
    file: File,
    path: PathBuf,
    run: RunId,
    /// The last record that is surely in the file.
    head: Head,
    /// How long the file is up to that record.
    length: u64,
    dropped: u64,
    errors: u64,
    first_error: Option<io::Error>,
    /// Records lost since the last note about it.
    unsaid: u64,
    chunk: Chunk,
    /// Boxed: a run without a key pays for a pointer.
    signer: Option<Box<Signer>>,
}

/// What signs the head of the chain, and how far it has.
#[derive(Debug)]
struct Signer {
    key: SigningKey,
    /// The number of the last head.
    last: u64,
    /// When what stands behind that is to be signed; `None` where nothing does.
    due: Option<Instant>,
}

/// Lines that are on their way to the file, and the head that the chain has once they are there.
#[derive(Debug, Default)]
struct Chunk {
    lines: Vec<u8>,
    records: u64,
    head: Option<Head>,
}

impl Sink {
    fn begin(file: File, path: &Path, start: &Start) -> Result<Self, WriteError> {
        let mut sink = Self {
            file,
            path: path.into(),
            run: start.run.clone(),
            head: Head { seq: 0, hash: NO_LINE.into() },
            length: 0,
            dropped: 0,
            errors: 0,
            first_error: None,
            unsaid: 0,
            chunk: Chunk::default(),
            signer: None,
        };
        sink.line(|buffer, link| line::put_start(buffer, link, start));
        sink.flush();
        match sink.first_error.take() {
            Some(source) => Err(WriteError::First { path: path.into(), source }),
            None => Ok(sink),
        }
    }

    fn sign_with(&mut self, key: SigningKey) -> Result<(), WriteError> {
        self.signer = Some(Box::new(Signer { key, last: 0, due: None }));
        self.put_head();
        self.flush();
        match self.first_error.take() {
            Some(source) => Err(WriteError::First { path: self.path.clone(), source }),
            None => Ok(()),
        }
    }

    /// Writes what is handed over; says until when it must be called again if nothing more is.
    fn append(&mut self, records: Vec<Record>) -> Option<Instant> {
        for record in &records {
            self.line(|buffer, link| line::put_record(buffer, link, record));
            self.sign_the_many();
            if self.chunk.lines.len() >= CHUNK {
                self.flush();
            }
        }
        let due = self.sign_the_old();
        self.flush();
        due
    }

    /// Signs if many records stand behind the last head.
    fn sign_the_many(&mut self) {
        let seq = self.seq();
        if self.signer.as_ref().is_some_and(|signer| seq.saturating_sub(signer.last) >= head::RECORDS) {
            self.put_head();
        }
    }

    /// Signs if the records behind the last head have stood there for long; else says when they will have.
    fn sign_the_old(&mut self) -> Option<Instant> {
        let (seq, now) = (self.seq(), Instant::now());
        let signer = self.signer.as_mut().filter(|signer| seq > signer.last)?;
        let due = *signer.due.get_or_insert(now + head::WAIT);
        if now < due {
            return Some(due);
        }
        self.put_head();
        None
    }

    /// Signs all that stands in the chain.
    fn put_head(&mut self) {
        let Some(mut signer) = self.signer.take() else { return };
        self.line(|buffer, link| line::put_head(buffer, link, &signer.key));
        (signer.last, signer.due) = (self.seq(), None);
        self.signer = Some(signer);
    }

    /// The number of the last record, in the file or on its way there.
    fn seq(&self) -> u64 {
        self.chunk.head.as_ref().unwrap_or(&self.head).seq
    }

    fn append_late(&mut self, refused: u64) {
        self.dropped += refused;
        self.unsaid += refused;
    }

    /// Adds one line to the chunk.
    fn line(&mut self, put: impl Fn(&mut Vec<u8>, Link<'_>) -> serde_json::Result<()>) {
        let head = self.chunk.head.get_or_insert_with(|| self.head.clone());
        let from = self.chunk.lines.len();
        let link = Link { seq: head.seq + 1, prev: &head.hash, run: &self.run };
        if let Err(error) = put(&mut self.chunk.lines, link) {
            self.chunk.lines.truncate(from);
            return self.lost(1, error.into());
        }
        head.hash = text::hex(&Sha256::digest(&self.chunk.lines[from..]));
        head.seq += 1;
        self.chunk.lines.push(b'\n');
        self.chunk.records += 1;
    }

    /// Writes the chunk. If that fails the file is cut back to its last whole line, so that the chain goes on there.
    fn flush(&mut self) {
        let Some(head) = self.chunk.head.take() else { return };
        let records = std::mem::take(&mut self.chunk.records);
        let written = self.file.write_all(&self.chunk.lines);
        let length = self.chunk.lines.len() as u64;
        self.chunk.lines.clear();
        match written {
            Ok(()) => {
                self.head = head;
                self.length += length;
                self.say_what_was_lost();
            }
            Err(error) => {
                // Only a regular file can be cut; elsewhere a torn line stays, and shows.
                let _ = self.file.set_len(self.length);
                // A head may be among what is lost; it must not count as the last one.
                self.signer.iter_mut().for_each(|signer| signer.last = signer.last.min(self.head.seq));
                self.lost(records, error);
            }
        }
    }

    fn lost(&mut self, records: u64, error: io::Error) {
        self.dropped += records;
        self.unsaid += records;
        self.errors += 1;
        self.first_error.get_or_insert(error);
    }

    /// Once writing works again, the log itself says that something is missing before what follows.
    fn say_what_was_lost(&mut self) {
        let lost = std::mem::take(&mut self.unsaid);
        if lost > 0 {
            let text = format!("{lost} records could not be written and are missing here");
            let note = Record::Note(Note { time: SystemTime::now(), text });
            self.line(|buffer, link| line::put_record(buffer, link, &note));
        }
    }

    fn end(mut self, result: &RunResult, summary: &Summary) -> Result<Written, WriteError> {
        // A note about losses may still wait in the chunk.
        self.flush();
        let end = End {
            time: text::rfc3339(SystemTime::now()),
            run: self.run.clone(),
            result: result.clone(),
            counts: summary.counts.clone(),
            destinations: summary.destinations.clone(),
            total: Some(Box::new(summary.total.clone())),
            let_through: summary.let_through,
            recorded: self.head.seq + 1,
            dropped: self.dropped,
            write_errors: self.errors,
        };
        self.line(|buffer, link| line::put_end(buffer, link, &end));
        self.put_head();
        self.flush();
        self.written()
    }

    fn written(mut self) -> Result<Written, WriteError> {
        let failure = self.first_error.take();
        let (recorded, dropped, write_errors) = (self.head.seq, self.dropped, self.errors);
        let written = Written { path: self.path, recorded, dropped, write_errors, head: self.head };
        match failure {
            Some(source) => Err(WriteError::Incomplete { written, source }),
            None if dropped > 0 => {
                let source = io::Error::other("records came after the log was closed");
                Err(WriteError::Incomplete { written, source })
            }
            None => Ok(written),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use serde_json::Value;

    use super::super::read::{self, Chain};
    use super::*;

    fn note(text: impl Into<String>) -> Record {
        Record::Note(Note { time: SystemTime::UNIX_EPOCH, text: text.into() })
    }

    fn finish(writer: &Writer) -> Result<Written, WriteError> {
        writer.finish(&RunResult { exit: Some(0), ..RunResult::default() }, &Summary::example())
    }

    fn lines(path: &Path) -> Vec<Value> {
        fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn records_of_many_threads_make_one_chain() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        let writer = Writer::create(&path, &Start::example()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        writer.start().unwrap();
        std::thread::scope(|scope| {
            for worker in 0..4 {
                let writer = &writer;
                scope.spawn(move || (0..500).for_each(|i| writer.push(note(format!("{worker}.{i}")))));
            }
        });
        let written = finish(&writer).unwrap();
        assert_eq!((written.recorded, written.dropped), (2002, 0));
        let chain = read::verify(&path, Some(&written.head)).unwrap();
        assert_eq!(chain, Chain::Verified { records: 2002, head: written.head, dropped: 0 });
        let end = lines(&path).pop().unwrap();
        assert_eq!((&end["kind"], &end["recorded"]), (&"end".into(), &2002.into()));
    }

    #[test]
    fn a_record_reaches_the_file_without_waiting_for_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        let writer = Writer::create(&path, &Start::example()).unwrap();
        writer.start().unwrap();
        for i in 1..=3 {
            writer.push(note("x"));
            let deadline = std::time::Instant::now() + Duration::from_secs(10);
            while fs::read_to_string(&path).unwrap().lines().count() <= i {
                assert!(std::time::Instant::now() < deadline);
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        finish(&writer).unwrap();
    }

    #[test]
    fn a_log_is_finished_even_if_its_thread_never_started() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        let writer = Writer::create(&path, &Start::example()).unwrap();
        writer.push(note("x"));
        assert_eq!(finish(&writer).unwrap().recorded, 3);
        assert!(matches!(finish(&writer), Err(WriteError::Finished)));
        assert!(matches!(writer.start(), Err(WriteError::Finished)));
    }

    #[test]
    fn a_file_that_holds_something_is_neither_appended_to_nor_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mine.txt");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(Writer::create(&path, &Start::example()), Err(WriteError::Taken { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
        assert!(matches!(Writer::create(dir.path(), &Start::example()), Err(WriteError::Open { .. })));
        assert!(matches!(Writer::create(&dir.path().join("no/log"), &Start::example()), Err(WriteError::Open { .. })));
    }

    #[test]
    fn an_empty_or_special_file_is_taken() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for path in [file.path(), Path::new("/dev/null")] {
            let writer = Writer::create(path, &Start::example()).unwrap();
            assert_eq!(finish(&writer).unwrap().recorded, 2);
        }
    }

    #[test]
    fn a_file_that_another_run_is_about_to_write_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().lock().unwrap();
        assert!(matches!(Writer::create(file.path(), &Start::example()), Err(WriteError::Busy { .. })));
    }

    #[test]
    fn a_full_disk_stops_the_run_before_it_starts() {
        let error = Writer::create(Path::new("/dev/full"), &Start::example()).unwrap_err();
        let WriteError::First { source, .. } = error else { panic!("{error}") };
        assert_eq!(source.kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn a_disk_that_fills_up_during_the_run_fails_it_at_its_end_and_the_chain_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        let writer = Writer::create(&path, &Start::example()).unwrap();
        let swap = |path: &Path| {
            let file = OpenOptions::new().append(true).open(path).unwrap();
            std::mem::replace(&mut lock(&writer.sink).as_mut().unwrap().file, file)
        };
        let push = |text: &str| lock(&writer.sink).as_mut().unwrap().append(vec![note(text)]);
        push("before");
        swap(Path::new("/dev/full"));
        push("lost");
        push("lost");
        swap(&path);
        push("after");
        let error = finish(&writer).unwrap_err();
        assert!(error.to_string().contains("2 records are missing after 2 failed writes"), "{error}");
        let WriteError::Incomplete { written, source } = error else { panic!("{error}") };
        assert_eq!(source.kind(), io::ErrorKind::StorageFull);
        let texts: Vec<Value> = lines(&path).iter().map(|line| line["text"].clone()).collect();
        let gap = "2 records could not be written and are missing here";
        assert_eq!(texts, [Value::Null, "before".into(), "after".into(), gap.into(), Value::Null]);
        let expected = Chain::Verified { records: 5, head: written.head.clone(), dropped: 2 };
        assert_eq!(read::verify(&path, Some(&written.head)).unwrap(), expected);
    }

    #[test]
    fn a_disk_that_stays_full_leaves_a_log_without_an_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        let writer = Writer::create(&path, &Start::example()).unwrap();
        let full = OpenOptions::new().append(true).open("/dev/full").unwrap();
        lock(&writer.sink).as_mut().unwrap().file = full;
        writer.start().unwrap();
        writer.push(note("lost"));
        let WriteError::Incomplete { written, .. } = finish(&writer).unwrap_err() else { panic!() };
        assert_eq!((written.recorded, written.dropped, written.write_errors), (1, 2, 2));
        let chain = read::verify(&path, Some(&written.head)).unwrap();
        assert_eq!(chain, Chain::Unfinished { records: 1, head: written.head });
    }

    #[test]
    fn a_full_queue_makes_those_who_push_wait_and_loses_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipe");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let reader = std::thread::spawn({
            let path = path.clone();
            move || {
                let file = File::open(path).unwrap();
                wait.recv().unwrap();
                io::BufRead::lines(io::BufReader::new(file)).count()
            }
        });
        let writer = Arc::new(Writer::create(&path, &Start::example()).unwrap());
        writer.start().unwrap();
        let count = 2 * QUEUE + 10_000;
        let worker = std::thread::spawn({
            let writer = Arc::clone(&writer);
            move || (0..count).for_each(|_| writer.push(note("x")))
        });
        while lock(&writer.queue.state).records.len() < QUEUE {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(!worker.is_finished());
        go.send(()).unwrap();
        worker.join().unwrap();
        assert_eq!(finish(&writer).unwrap().recorded, count as u64 + 2);
        // The pipe ends when the last writing end is closed.
        drop(writer);
        assert_eq!(reader.join().unwrap(), count + 2);
    }

    /// The numbers of the heads in the log, all of which hold.
    fn heads(path: &Path) -> Vec<u64> {
        let heads = lines(path).into_iter().filter(|line| line["kind"] == "head");
        heads.map(|line| line["seq"].as_u64().unwrap()).collect()
    }

    fn signing(dir: &Path) -> (Writer, PathBuf) {
        let path = dir.join("audit.jsonl");
        let writer = Writer::create(&path, &Start::example()).unwrap();
        writer.sign(SigningKey::make(&dir.join("key")).unwrap()).unwrap();
        (writer, path)
    }

    #[test]
    fn a_head_stands_behind_the_first_record_the_last_and_every_few_thousand() {
        let dir = tempfile::tempdir().unwrap();
        let (writer, path) = signing(dir.path());
        assert_eq!(heads(&path), [2], "before anything runs");
        (0..2 * head::RECORDS).for_each(|_| writer.push(note("x")));
        let written = finish(&writer).unwrap();
        let each = head::RECORDS + 1;
        assert_eq!(heads(&path), [2, 2 + each, 2 + 2 * each, written.recorded]);
        let chain = read::verify(&path, Some(&written.head)).unwrap();
        assert!(matches!(chain, Chain::Verified { dropped: 0, .. }), "{chain:?}");
    }

    #[test]
    fn what_stands_unsigned_is_signed_though_nothing_follows_and_only_once() {
        let dir = tempfile::tempdir().unwrap();
        let (writer, path) = signing(dir.path());
        writer.start().unwrap();
        writer.push(note("x"));
        let deadline = Instant::now() + 20 * head::WAIT;
        while heads(&path) != [2, 4] {
            assert!(Instant::now() < deadline, "{:?}", heads(&path));
            std::thread::sleep(Duration::from_millis(10));
        }
        std::thread::sleep(head::WAIT + Duration::from_millis(200));
        assert_eq!(heads(&path), [2, 4], "there is nothing more to sign");
        finish(&writer).unwrap();
        assert_eq!(heads(&path), [2, 4, 6]);
    }

    #[test]
    fn a_head_that_could_not_be_written_is_made_up_for_by_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let (writer, path) = signing(dir.path());
        let swap = |path: &Path| {
            let file = OpenOptions::new().append(true).open(path).unwrap();
            lock(&writer.sink).as_mut().unwrap().file = file;
        };
        let push = |count: u64| lock(&writer.sink).as_mut().unwrap().append((0..count).map(|_| note("x")).collect());
        swap(Path::new("/dev/full"));
        push(1);
        lock(&writer.sink).as_mut().unwrap().put_head();
        lock(&writer.sink).as_mut().unwrap().flush();
        swap(&path);
        push(head::RECORDS);
        assert!(matches!(finish(&writer), Err(WriteError::Incomplete { .. })));
        assert_eq!(heads(&path)[..2], [2, 3 + head::RECORDS]);
        let chain = read::verify(&path, None).unwrap();
        assert!(matches!(chain, Chain::Verified { dropped: 2, .. }), "{chain:?}");
    }

    #[test]
    fn a_record_after_the_end_is_not_lost_silently() {
        let dir = tempfile::tempdir().unwrap();
        let writer = Writer::create(&dir.path().join("log"), &Start::example()).unwrap();
        writer.queue.close();
        writer.push(note("late"));
        let error = finish(&writer).unwrap_err();
        assert!(matches!(error, WriteError::Incomplete { written: Written { dropped: 1, .. }, .. }), "{error}");
    }
}
