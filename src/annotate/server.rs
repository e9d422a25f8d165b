//! The thread's work: accepts connections, reads and answers lines, and never waits for any one of them.
//!
//! Memory is bounded whatever the box does: so many connections, each with a line's beginning, one piece and the answers
//! to that; nothing more is read from one that does not take its answers. So is time: who writes faster than he is heard
//! is read from so many times a second.

use std::io::{ErrorKind, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::line::{Author, LONGEST, Lines, Next};
use super::rate::{A_SECOND, AT_ONCE, Bucket, Flood};
use super::speaker::Inside;
use super::{Hear, protocol};
use crate::sys::socket::receive_with_sender;

/// Connections at most; then the one that was silent for the longest makes room.
const CONNECTIONS: usize = 64;
/// How many are accepted before those there are served again: so that none makes room before it was read from.
const ACCEPTED: usize = 16;
/// How much is read at once.
const PIECE: usize = 16 * 1024;
/// How long one who writes too fast is not read from, and how long nobody is accepted when that fails.
const PAUSE: Duration = Duration::from_millis(10);
/// How many refusals are told one by one; those beyond are counted.
const TOLD: u32 = 32;
/// How often what has arrived is looked at once more when the box has ended.
const LAST_TURNS: usize = 8;

/// What the thread works on.
pub struct Server {
    listener: UnixListener,
    /// Its other end is closed when the box has ended.
    ended: OwnedFd,
    connections: Vec<Connection>,
    ear: Ear,
    /// Until when nobody is accepted.
    closed: Option<Instant>,
}

impl Server {
    /// Waits for [`Server::run`].
    pub fn new(listener: OwnedFd, ended: OwnedFd, inside: Inside, hear: Arc<dyn Hear>) -> Self {
        let ear =
            Ear { inside, hear, bucket: Bucket::new(Instant::now()), flood: Flood::default(), told: TOLD, untold: 0 };
        Self { listener: listener.into(), ended, connections: Vec::new(), ear, closed: None }
    }

    /// Serves until the box has ended.
    pub fn run(mut self) {
        // The listener came from the box's side, which is trusted to have made it so; accepting must never wait.
        let _ = self.listener.set_nonblocking(true);
        while self.wait() {
            self.turn();
        }
        for _ in 0..LAST_TURNS {
            self.turn();
        }
        self.ear.finish();
    }

    /// Waits until there is something to do; false when the box has ended.
    fn wait(&self) -> bool {
        let now = Instant::now();
        let mut fds = vec![PollFd::new(self.ended.as_fd(), PollFlags::POLLIN)];
        if self.closed.is_none_or(|until| until <= now) {
            fds.push(PollFd::new(self.listener.as_fd(), PollFlags::POLLIN));
        }
        fds.extend(self.connections.iter().filter_map(|connection| connection.interest(now)));
        match poll(&mut fds, self.timeout(now)) {
            Ok(_) | Err(Errno::EINTR) => fds[0].revents().is_none_or(|events| events.is_empty()),
            Err(_) => false,
        }
    }

    fn timeout(&self, now: Instant) -> PollTimeout {
        let paused = self.connections.iter().filter_map(|connection| connection.paused);
        let next = paused.chain(self.closed).filter(|until| *until > now).chain(self.ear.flood.ends()).min();
        let Some(next) = next else { return PollTimeout::NONE };
        // Rounded up, so that the wait does not spin.
        let left = next.saturating_duration_since(now) + Duration::from_millis(1);
        PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
    }

    /// Gives everybody a turn, then lets others in.
    fn turn(&mut self) {
        let now = Instant::now();
        let ear = &mut self.ear;
        self.connections.retain_mut(|connection| {
            connection.serve(ear, now);
            connection.stage != Stage::Done
        });
        ear.look_up(now);
        self.accept(now);
    }

    fn accept(&mut self, now: Instant) {
        self.closed = None;
        for _ in 0..ACCEPTED {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    self.make_room();
                    self.connections.extend(Connection::new(stream, now));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // Whoever it was is gone.
                Err(error) if [ErrorKind::Interrupted, ErrorKind::ConnectionAborted].contains(&error.kind()) => {}
                Err(error) => {
                    tracing::warn!(%error, "nobody is accepted for now");
                    self.closed = Some(now + PAUSE);
                    return;
                }
            }
        }
    }

    fn make_room(&mut self) {
        if self.connections.len() < CONNECTIONS {
            return;
        }
        let silent = self.connections.iter().enumerate().min_by_key(|(_, connection)| connection.spoke);
        if let Some((at, _)) = silent {
            self.connections.remove(at);
        }
    }
}

/// One connection.
struct Connection {
    stream: UnixStream,
    lines: Lines,
    /// Answers that were not taken yet.
    unread: Vec<u8>,
    /// When it last said something.
    spoke: Instant,
    /// Until when it is not read from.
    paused: Option<Instant>,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// More may come.
    Open,
    /// Nothing more is read; what was read is still answered.
    Last,
    /// Of no use any more.
    Done,
}

impl Connection {
    fn new(stream: UnixStream, now: Instant) -> Option<Self> {
        stream.set_nonblocking(true).ok()?;
        let (lines, unread) = (Lines::default(), Vec::new());
        Some(Self { stream, lines, unread, spoke: now, paused: None, stage: Stage::Open })
    }

    /// What to wait for. One that is paused is not looked at: that nobody is there any more would wake the thread again
    /// and again.
    fn interest(&self, now: Instant) -> Option<PollFd<'_>> {
        if self.paused.is_some_and(|until| until > now) {
            return None;
        }
        let flags = if self.unread.is_empty() { PollFlags::POLLIN } else { PollFlags::POLLOUT };
        Some(PollFd::new(self.stream.as_fd(), flags))
    }

    /// Does what can be done without waiting, and no more than is fair to the others.
    fn serve(&mut self, ear: &mut Ear, now: Instant) {
        if self.paused.is_some_and(|until| until > now) {
            return;
        }
        self.paused = None;
        self.flush();
        if !self.answer_lines(ear, now) {
            return;
        }
        if self.stage == Stage::Open {
            self.read(now);
            self.answer_lines(ear, now);
        }
        if self.stage == Stage::Last && self.unread.is_empty() && self.paused.is_none() {
            self.stage = Stage::Done;
        }
    }

    /// Answers the lines that are there; false if some are left for later.
    fn answer_lines(&mut self, ear: &mut Ear, now: Instant) -> bool {
        while self.unread.is_empty() && self.paused.is_none() && self.stage != Stage::Done {
            let heard = match self.lines.next() {
                Next::Nothing => return true,
                Next::Line(line, _) if line.trim_ascii().is_empty() => continue,
                Next::Line(line, author) => ear.hear(line, author, now),
                Next::TooLong(author) => {
                    self.stage = Stage::Last;
                    self.lines = Lines::default();
                    ear.too_long(author)
                }
            };
            if heard == Heard::TooFast {
                self.paused = Some(now + PAUSE);
            }
            self.unread = protocol::answer(&heard.said());
            self.flush();
        }
        false
    }

    fn read(&mut self, now: Instant) {
        let mut piece = [0; PIECE];
        match receive_with_sender(self.stream.as_fd(), &mut piece) {
            Ok((0, _)) => {
                self.lines.end();
                self.stage = Stage::Last;
            }
            Ok((length, sender)) => {
                self.lines.add(&piece[..length], sender);
                self.spoke = now;
            }
            Err(Errno::EAGAIN) => {}
            Err(_) => self.stage = Stage::Done,
        }
    }

    /// Passes on what is taken of the answers.
    fn flush(&mut self) {
        while !self.unread.is_empty() {
            match self.stream.write(&self.unread) {
                Ok(written) => drop(self.unread.drain(..written)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // Nobody is there to take them.
                Err(_) => {
                    self.unread.clear();
                    self.stage = Stage::Done;
                }
            }
        }
    }
}

/// What became of a line.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    /// It was handed on: with the answer to it.
    Said(Result<String, String>),
    /// It was not looked at.
    TooFast,
}

impl Heard {
    fn said(self) -> Result<String, String> {
        match self {
            Self::Said(said) => said,
            Self::TooFast => Err(format!("too fast: {A_SECOND} lines a second are heard, {AT_ONCE} at once")),
        }
    }
}

/// Hands on what can be heard, and tells of what cannot.
struct Ear {
    inside: Inside,
    hear: Arc<dyn Hear>,
    bucket: Bucket,
    flood: Flood,
    /// How many more refusals are told one by one.
    told: u32,
    /// How many were only counted.
    untold: u64,
}

impl Ear {
    fn hear(&mut self, line: &[u8], author: Author, now: Instant) -> Heard {
        if !self.bucket.take(now) {
            self.flood.add(now);
            return Heard::TooFast;
        }
        let refuse = |ear: &mut Self, sender, what: String| {
            ear.refuse(ear.inside.named(sender).unwrap_or(0), &what);
            Heard::Said(Err(what))
        };
        let Author::One(sender) = author else {
            return refuse(self, None, "one line was written by several processes".into());
        };
        let request = match protocol::parse(line) {
            Ok(request) => request,
            Err(what) => return refuse(self, sender, what),
        };
        match self.inside.speaker(sender, request.speaks_for) {
            Ok(speaker) => {
                let heard = self.hear.hear(speaker, request.said);
                if let Err(what) = &heard {
                    self.refuse(speaker, what);
                }
                Heard::Said(heard)
            }
            Err(what) => refuse(self, sender, what),
        }
    }

    fn too_long(&mut self, author: Author) -> Heard {
        let what = format!("a line is longer than {LONGEST} bytes: the connection is closed");
        let sender = if let Author::One(sender) = author { sender } else { None };
        self.refuse(self.inside.named(sender).unwrap_or(0), &what);
        Heard::Said(Err(what))
    }

    fn refuse(&mut self, speaker: i32, what: &str) {
        match self.told.checked_sub(1) {
            Some(left) => {
                self.told = left;
                self.hear.refused(speaker, what.into());
            }
            None => self.untold += 1,
        }
    }

    /// Tells of a flood that is over.
    fn look_up(&mut self, now: Instant) {
        if let Some(count) = self.flood.over(now) {
            self.refuse(0, &flooded(count));
        }
    }

    fn finish(&mut self) {
        if let Some(count) = self.flood.stop() {
            self.refuse(0, &flooded(count));
        }
        if self.untold > 0 {
            self.hear.refused(0, format!("{} more refusals", self.untold));
        }
    }
}

fn flooded(count: u64) -> String {
    format!("{count} lines came too fast: {A_SECOND} a second are heard, {AT_ONCE} at once")
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read};
    use std::sync::Mutex;

    use nix::fcntl::OFlag;
    use nix::sys::socket::setsockopt;
    use nix::sys::socket::sockopt::PassCred;

    use super::*;
    use crate::annotate::{Annotate, Said};

    #[derive(Default)]
    struct Notebook {
        said: Mutex<Vec<(i32, Said)>>,
        refused: Mutex<Vec<String>>,
    }

    impl Hear for Notebook {
        fn hear(&self, speaker: i32, said: Said) -> Result<String, String> {
            if let Said::End { action: Some(action), .. } = &said
                && action == "a99"
            {
                return Err("a99 is not yours".into());
            }
            let mut all = self.said.lock().unwrap();
            all.push((speaker, said));
            Ok(format!("a{}", all.len()))
        }

        fn refused(&self, _: i32, what: String) {
            self.refused.lock().unwrap().push(what);
        }
    }

    struct Bench {
        notebook: Arc<Notebook>,
        path: std::path::PathBuf,
        _dir: tempfile::TempDir,
        thread: Option<Annotate>,
    }

    impl Bench {
        /// A server that takes the test's own process for one of the box.
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("socket");
            let listener = UnixListener::bind(&path).unwrap();
            setsockopt(&listener, PassCred, &true).unwrap();
            let (ended, end) = nix::unistd::pipe2(OFlag::O_CLOEXEC).unwrap();
            let notebook = Arc::new(Notebook::default());
            let inside = Inside::apart_from(1, 0).unwrap();
            let server = Server::new(listener.into(), ended, inside, Arc::clone(&notebook) as Arc<dyn Hear>);
            let thread = Some(Annotate { end, thread: std::thread::spawn(move || server.run()) });
            Self { notebook, path, _dir: dir, thread }
        }

        fn connect(&self) -> UnixStream {
            let stream = UnixStream::connect(&self.path).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            stream
        }

        /// What was heard and what was refused, when all is over.
        fn end(mut self) -> (Vec<(i32, Said)>, Vec<String>) {
            self.thread.take().unwrap().finish();
            let said = std::mem::take(&mut *self.notebook.said.lock().unwrap());
            (said, std::mem::take(&mut *self.notebook.refused.lock().unwrap()))
        }
    }

    fn ask(stream: &UnixStream, line: &str) -> String {
        let mut stream = stream;
        stream.write_all(format!("{line}\n").as_bytes()).unwrap();
        answer(stream)
    }

    fn answer(stream: &UnixStream) -> String {
        let mut line = String::new();
        BufReader::with_capacity(1, stream).read_line(&mut line).unwrap();
        line
    }

    const NOTE: &str = r#"{"v":1,"type":"note","note":"x"}"#;

    #[test]
    fn what_is_said_arrives_with_who_said_it() {
        let bench = Bench::new();
        let stream = bench.connect();
        assert_eq!(ask(&stream, NOTE), "{\"action\":\"a1\",\"ok\":true}\n");
        assert_eq!(
            ask(&stream, r#"{"v":1,"type":"end","action":"a99"}"#),
            "{\"error\":\"a99 is not yours\",\"ok\":false}\n"
        );
        // A last line needs no end.
        (&stream).write_all(NOTE.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(answer(&stream), "{\"action\":\"a2\",\"ok\":true}\n");
        assert_eq!(answer(&stream), "", "then the connection ends");
        let (said, refused) = bench.end();
        assert_eq!(said.iter().map(|(speaker, _)| *speaker).collect::<Vec<_>>(), [std::process::id() as i32; 2]);
        assert_eq!(refused, ["a99 is not yours"]);
    }

    #[test]
    fn garbage_is_answered_and_what_follows_is_heard() {
        let bench = Bench::new();
        let stream = bench.connect();
        (&stream).write_all(b"\xff\xfe\n\n \r\n").unwrap();
        assert_eq!(answer(&stream), "{\"error\":\"no UTF-8 at byte 0\",\"ok\":false}\n");
        assert_eq!(ask(&stream, NOTE), "{\"action\":\"a1\",\"ok\":true}\n");
        assert_eq!(bench.end().1, ["no UTF-8 at byte 0"]);
    }

    #[test]
    fn a_line_without_an_end_is_refused_once_and_not_kept() {
        let bench = Bench::new();
        let stream = bench.connect();
        let mut written = 0u64;
        let chunk = vec![b'x'; 1 << 20];
        while written < 1 << 30 {
            match (&stream).write(&chunk) {
                Ok(length) => written += length as u64,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
                    break;
                }
            }
        }
        assert!(written < 8 << 20, "it is cut off early: {written}");
        assert!(answer(&stream).contains("longer than 65536 bytes"));
        assert_eq!(ask(&bench.connect(), NOTE), "{\"action\":\"a1\",\"ok\":true}\n");
        let (_, refused) = bench.end();
        assert_eq!(refused, ["a line is longer than 65536 bytes: the connection is closed"]);
    }

    #[test]
    fn a_flood_is_refused_and_told_of_in_one_note() {
        let bench = Bench::new();
        let stream = bench.connect();
        // All at once, so that no slow machine makes the flood a trickle.
        (&stream).write_all(format!("{NOTE}\n").repeat(250).as_bytes()).unwrap();
        let answers: Vec<String> = (0..250).map(|_| answer(&stream)).collect();
        let heard = answers.iter().filter(|answer| answer.contains("\"ok\":true")).count();
        assert!((200..250).contains(&heard), "{heard}");
        assert!(answers.iter().any(|answer| answer.contains("too fast")));
        let (said, refused) = bench.end();
        assert_eq!(said.len(), heard);
        assert_eq!(refused, [format!("{} lines came too fast: 100 a second are heard, 200 at once", 250 - heard)]);
    }

    #[test]
    fn refusals_beyond_many_are_counted() {
        let bench = Bench::new();
        let stream = bench.connect();
        for _ in 0..40 {
            assert!(ask(&stream, "x").contains("no JSON"));
        }
        let (_, refused) = bench.end();
        assert_eq!(refused.len(), 33);
        assert_eq!(refused[32], "8 more refusals");
    }

    #[test]
    fn who_takes_no_answers_holds_nobody_up() {
        let bench = Bench::new();
        let deaf = bench.connect();
        deaf.set_nonblocking(true).unwrap();
        // Until neither its answers nor its lines are taken any more.
        let mut stuck = 0;
        while stuck < 20 {
            match (&deaf).write(format!("{NOTE}\n").repeat(100).as_bytes()) {
                Ok(_) => stuck = 0,
                Err(_) => {
                    stuck += 1;
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
            // The rate would hold it up first: not what is looked at here.
            if bench.notebook.said.lock().unwrap().len() > 150 {
                break;
            }
        }
        assert!(ask(&bench.connect(), NOTE).contains("ok"));
        drop(deaf);
        bench.end();
    }

    #[test]
    fn the_silent_make_room_and_the_talking_stay() {
        let bench = Bench::new();
        let silent: Vec<UnixStream> = (0..CONNECTIONS).map(|_| bench.connect()).collect();
        let talking = &silent[0];
        assert!(ask(talking, NOTE).contains("true"));
        let more: Vec<UnixStream> = (0..100).map(|_| bench.connect()).collect();
        assert!(ask(more.last().unwrap(), NOTE).contains("true"), "the newest is heard");
        let mut rest = String::new();
        (&silent[1]).read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "", "the connection that was silent for the longest was closed");
        bench.end();
    }
}
