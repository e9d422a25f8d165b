//! How much was done when: a fixed number of columns, whatever the length of the run.

use std::time::Duration;

use jiff::Timestamp;

use super::super::record::Op;

/// The kinds of act that the timeline tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// Opens for reading, calls.
    Other,
    /// Changes to files.
    Files,
    /// Programs.
    Programs,
    /// Names, connections, datagrams.
    Network,
    /// Anything that was refused.
    Refused,
}

impl Group {
    /// All, in the order in which they are drawn.
    pub const ALL: [Self; 5] = [Self::Other, Self::Files, Self::Programs, Self::Network, Self::Refused];

    pub(super) fn of(op: Op) -> Self {
        match op {
            Op::Read | Op::Signal | Op::Call => Self::Other,
            Op::Exec => Self::Programs,
            Op::Connect | Op::Send | Op::Route | Op::Resolve | Op::Accept | Op::Bind => Self::Network,
            Op::Write
            | Op::Create
            | Op::Truncate
            | Op::Mkdir
            | Op::Mknod
            | Op::Symlink
            | Op::Unlink
            | Op::Rmdir
            | Op::Chmod
            | Op::Chown
            | Op::Utime
            | Op::Xattr
            | Op::Rename
            | Op::Exchange
            | Op::Link => Self::Files,
        }
    }
}

/// How many acts there were when. Its columns grow wider as the run grows longer.
#[derive(Debug)]
pub struct Timeline {
    pub(super) origin: Option<Timestamp>,
    /// The width of a column in milliseconds.
    pub width: i64,
    /// Acts by column and [`Group::ALL`].
    pub columns: Vec<[u64; 5]>,
    /// The last moment that is part of it, in milliseconds.
    last: i64,
}

impl Timeline {
    const COLUMNS: usize = 60;

    pub(super) fn new() -> Self {
        Self { origin: None, width: 1, columns: vec![[0; 5]; Self::COLUMNS], last: 0 }
    }

    pub(super) fn add(&mut self, time: Timestamp, group: Group) {
        let column = self.reach(time);
        if let Some(acts) = self.columns.get_mut(column) {
            acts[group as usize] += 1;
        }
    }

    /// Makes room up to `time`, and gives its column.
    pub(super) fn reach(&mut self, time: Timestamp) -> usize {
        let origin = *self.origin.get_or_insert(time);
        let since = time.as_millisecond().saturating_sub(origin.as_millisecond()).max(0);
        self.last = self.last.max(since);
        while since / self.width >= Self::COLUMNS as i64 {
            self.widen();
        }
        usize::try_from(since / self.width).unwrap_or_default()
    }

    /// How long it is.
    pub fn length(&self) -> Duration {
        Duration::from_millis(self.last.unsigned_abs())
    }

    /// The columns up to the last moment.
    pub fn used(&self) -> usize {
        usize::try_from(self.last / self.width).map_or(Self::COLUMNS, |last| (last + 1).min(Self::COLUMNS))
    }

    /// Each two columns become one.
    fn widen(&mut self) {
        for at in 0..Self::COLUMNS {
            let pair = [2 * at, 2 * at + 1].map(|from| self.columns.get(from).copied().unwrap_or_default());
            self.columns[at] = std::array::from_fn(|group| pair[0][group] + pair[1][group]);
        }
        self.width = self.width.saturating_mul(2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeline_holds_runs_of_any_length() {
        let at = |ms: i64| Timestamp::from_millisecond(ms).unwrap();
        let mut line = Timeline::new();
        for ms in [1000, 1059, 1060, 999] {
            line.add(at(ms), Group::Files);
        }
        assert_eq!(line.width, 2);
        assert_eq!((line.columns[0][1], line.columns[29][1], line.columns[30][1]), (2, 1, 1), "a clock may step back");
        line.add(at(9_999_999_999), Group::Refused);
        assert_eq!(line.columns.iter().flatten().sum::<u64>(), 5);
        assert!(line.width * 60 > 9_999_998_999);
    }
}
