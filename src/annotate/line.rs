//! Puts lines together from what arrives in pieces, and keeps in mind who wrote each.

/// The longest line, without its end.
pub const LONGEST: usize = 64 * 1024;

/// Who wrote a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Author {
    /// One process; `None` where the kernel does not say which.
    One(Option<i32>),
    /// Several processes that hold the same connection.
    Several,
}

/// What is to be taken of a connection next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<'a> {
    /// A line.
    Line(&'a [u8], Author),
    /// More than a line can be.
    TooLong(Author),
    /// More has to arrive.
    Nothing,
}

/// What has arrived and was not taken yet: at most a line's beginning and one piece.
#[derive(Debug)]
pub struct Lines {
    bytes: Vec<u8>,
    /// How much of it was taken.
    taken: usize,
    /// How much of it holds no line's end.
    looked_at: usize,
    /// Who wrote what is not taken, up to the first end of a line; and who wrote last.
    author: Author,
    last: Author,
}

impl Default for Lines {
    fn default() -> Self {
        Self { bytes: Vec::new(), taken: 0, looked_at: 0, author: Author::One(None), last: Author::One(None) }
    }
}

impl Lines {
    /// Takes in a piece; to be called when [`Lines::next`] has nothing more.
    pub fn add(&mut self, piece: &[u8], sender: Option<i32>) {
        self.bytes.drain(..self.taken);
        (self.looked_at, self.taken) = (self.looked_at - self.taken, 0);
        self.last = Author::One(sender);
        if self.bytes.is_empty() {
            self.author = self.last;
        } else if self.author != self.last {
            self.author = Author::Several;
        }
        self.bytes.extend_from_slice(piece);
    }

    /// The next line that is complete.
    pub fn next(&mut self) -> Next<'_> {
        let author = self.author;
        let Some(end) = self.bytes[self.looked_at..].iter().position(|byte| *byte == b'\n') else {
            self.looked_at = self.bytes.len();
            return if self.bytes.len() - self.taken > LONGEST { Next::TooLong(author) } else { Next::Nothing };
        };
        let (start, end) = (self.taken, self.looked_at + end);
        if end - start > LONGEST {
            return Next::TooLong(author);
        }
        (self.taken, self.looked_at, self.author) = (end + 1, end + 1, self.last);
        Next::Line(&self.bytes[start..end], author)
    }

    /// Nothing more arrives: what is left is a line without an end.
    pub fn end(&mut self) {
        if self.bytes.len() > self.taken {
            self.bytes.push(b'\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(lines: &mut Lines) -> Vec<(String, Author)> {
        let mut found = Vec::new();
        while let Next::Line(line, author) = lines.next() {
            found.push((String::from_utf8_lossy(line).into_owned(), author));
        }
        found
    }

    #[test]
    fn lines_come_whole_however_they_arrive() {
        let mut lines = Lines::default();
        let one = Author::One(Some(7));
        lines.add(b"ab", Some(7));
        assert_eq!(lines.next(), Next::Nothing);
        lines.add(b"c\n\nde", Some(7));
        assert_eq!(all(&mut lines), [("abc".into(), one), (String::new(), one)]);
        lines.add(b"f", Some(7));
        assert_eq!(lines.next(), Next::Nothing);
        lines.end();
        assert_eq!(all(&mut lines), [("def".into(), one)]);
        lines.end();
        assert_eq!(lines.next(), Next::Nothing);
    }

    #[test]
    fn a_line_of_two_writers_has_no_author_and_the_next_one_has() {
        let mut lines = Lines::default();
        lines.add(b"a", Some(1));
        assert_eq!(lines.next(), Next::Nothing);
        lines.add(b"b\nc\nd", Some(2));
        let found = all(&mut lines);
        assert_eq!(found, [("ab".into(), Author::Several), ("c".into(), Author::One(Some(2)))]);
        lines.add(b"e\n", Some(2));
        assert_eq!(all(&mut lines), [("de".into(), Author::One(Some(2)))]);
        lines.add(b"f", Some(2));
        assert_eq!(lines.next(), Next::Nothing);
        lines.add(b"g", Some(3));
        lines.add(b"h\n", Some(2));
        assert_eq!(all(&mut lines), [("fgh".into(), Author::Several)]);
    }

    #[test]
    fn the_longest_line_is_taken_and_a_longer_one_is_not_kept() {
        for (length, expected) in [(LONGEST, true), (LONGEST + 1, false)] {
            let mut lines = Lines::default();
            lines.add(&[&vec![b'x'; length][..], b"\n"].concat(), Some(1));
            assert_eq!(matches!(lines.next(), Next::Line(..)), expected, "{length}");
        }
        let mut lines = Lines::default();
        lines.add(&vec![b'x'; LONGEST + 1], Some(1));
        assert_eq!(lines.next(), Next::TooLong(Author::One(Some(1))));
    }
}
