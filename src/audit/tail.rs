//! Reads a log that is still being written: waits at its end for more, until nobody writes to it any longer.
//!
//! The writer holds a lock on its file as long as it runs. A look at the lock takes it for an instant, shared, so that
//! readers never keep each other waiting; it is not looked at before the first record is there, because the writer
//! takes it before it writes that one and must not find it taken.

use std::fs::{File, TryLockError};
use std::io::{self, BufRead, Read};
use std::time::Duration;

/// Whether to go on waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Look again.
    Again,
    /// Take what there is for all.
    Enough,
}

/// How long until it is looked for more.
const PAUSE: Duration = Duration::from_millis(50);

/// A file that ends when its writer is gone.
pub struct Tail<W> {
    file: File,
    block: Vec<u8>,
    from: usize,
    to: usize,
    /// Waits as long as it is told.
    wait: W,
    /// Something was read.
    begun: bool,
    over: bool,
}

impl<W: FnMut(Duration) -> Wait> Tail<W> {
    /// Reads `file`; `wait` is called before each look at it, with how long to wait: not at all while there is more.
    pub fn new(file: File, wait: W) -> Self {
        Self { file, block: vec![0; 64 * 1024], from: 0, to: 0, wait, begun: false, over: false }
    }

    /// Whether a whole line is there to be read without waiting.
    pub fn holds_a_line(&self) -> bool {
        self.block[self.from..self.to].contains(&b'\n')
    }

    /// Whether the writer is gone. Where files have no locks nobody can tell, and nobody is kept waiting for ever.
    fn is_left(&self) -> bool {
        match self.file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => false,
            Err(TryLockError::Error(_)) => true,
            Ok(()) => {
                let _ = self.file.unlock();
                true
            }
        }
    }

    /// Reads what there is now.
    fn more(&mut self) -> io::Result<bool> {
        (self.from, self.to) = (0, self.file.read(&mut self.block)?);
        self.begun |= self.to > 0;
        Ok(self.to > 0)
    }
}

impl<W: FnMut(Duration) -> Wait> BufRead for Tail<W> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let mut pause = Duration::ZERO;
        while self.from == self.to && !self.over {
            // What was written between the look at the file and the one at the lock is read once more.
            self.over = (self.wait)(pause) == Wait::Enough
                || (!self.more()? && self.begun && self.is_left() && !self.more()?);
            pause = PAUSE;
        }
        Ok(&self.block[self.from..self.to])
    }

    fn consume(&mut self, amount: usize) {
        self.from = (self.from + amount).min(self.to);
    }
}

impl<W: FnMut(Duration) -> Wait> Read for Tail<W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut held = self.fill_buf()?;
        let read = held.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn what_is_written_is_read_until_the_writer_is_gone() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut writer = Some(File::options().append(true).open(file.path()).unwrap());
        writer.as_ref().unwrap().lock().unwrap();
        let mut parts = ["one\nt", "wo\n", "", "three\n"].into_iter();
        let mut waits = 0;
        let wait = |pause: Duration| {
            if !pause.is_zero() {
                waits += 1;
                match parts.next() {
                    Some(part) => writer.as_mut().unwrap().write_all(part.as_bytes()).unwrap(),
                    None => drop(writer.take()),
                }
            }
            Wait::Again
        };
        let mut tail = Tail::new(File::open(file.path()).unwrap(), wait);
        let mut line = String::new();
        assert_eq!((tail.read_line(&mut line).unwrap(), tail.holds_a_line()), (4, false));
        assert_eq!(tail.read_line(&mut line).unwrap(), 4);
        assert_eq!(tail.read_line(&mut line).unwrap(), 6);
        assert_eq!(tail.read_line(&mut line).unwrap(), 0, "the end");
        drop(tail);
        assert_eq!((line.as_str(), waits), ("one\ntwo\nthree\n", 5));
    }

    #[test]
    fn a_file_that_holds_nothing_yet_is_waited_for_without_a_look_at_its_lock() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut waits = 0;
        let wait = |_: Duration| {
            waits += 1;
            // The writer takes the lock before it writes: nobody else may hold it, not even shared.
            File::open(file.path()).unwrap().try_lock().unwrap();
            if waits < 5 { Wait::Again } else { Wait::Enough }
        };
        let mut tail = Tail::new(File::open(file.path()).unwrap(), wait);
        assert!(tail.fill_buf().unwrap().is_empty());
        drop(tail);
        assert_eq!(waits, 5, "only who waits can end it");
    }
}
