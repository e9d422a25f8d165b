//! How much is heard: so many lines a second, with a reserve for a burst.

use std::time::{Duration, Instant};

/// Lines a second, for the whole box.
pub const A_SECOND: u32 = 100;
/// Lines at once after a while of silence.
pub const AT_ONCE: u32 = 200;

/// A bucket of tokens: each line takes one.
#[derive(Debug)]
pub struct Bucket {
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    /// A full one.
    pub fn new(now: Instant) -> Self {
        Self { tokens: f64::from(AT_ONCE), filled: now }
    }

    /// Takes a token, if there is one.
    pub fn take(&mut self, now: Instant) -> bool {
        let gained = now.saturating_duration_since(self.filled).as_secs_f64() * f64::from(A_SECOND);
        self.tokens = (self.tokens + gained).min(f64::from(AT_ONCE));
        self.filled = now;
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }
}

/// How long there must be no line too many for a flood to be over.
const CALM: Duration = Duration::from_secs(1);

/// Lines that came too fast: told of once, when it is over.
#[derive(Debug, Default)]
pub struct Flood {
    count: u64,
    last: Option<Instant>,
}

impl Flood {
    /// One more.
    pub fn add(&mut self, now: Instant) {
        self.count += 1;
        self.last = Some(now);
    }

    /// When to look again whether it is over.
    pub fn ends(&self) -> Option<Instant> {
        self.last.map(|last| last + CALM)
    }

    /// How many lines it was, once it is over; then it is forgotten.
    pub fn over(&mut self, now: Instant) -> Option<u64> {
        self.ends().filter(|end| *end <= now)?;
        self.stop()
    }

    /// The same whether or not it is over.
    pub fn stop(&mut self) -> Option<u64> {
        let Self { count, last } = std::mem::take(self);
        last.map(|_| count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_taken_then_so_many_a_second() {
        let start = Instant::now();
        let mut bucket = Bucket::new(start);
        let taken = |bucket: &mut Bucket, at: u64| {
            let now = start + Duration::from_millis(at);
            (0..1000).filter(|_| bucket.take(now)).count()
        };
        assert_eq!(taken(&mut bucket, 0), 200);
        assert_eq!(taken(&mut bucket, 5), 0);
        assert_eq!(taken(&mut bucket, 500), 50);
        assert_eq!(taken(&mut bucket, 1500), 100);
        assert_eq!(taken(&mut bucket, 3_600_000), 200, "silence is not saved up");
    }

    #[test]
    fn a_flood_is_told_of_once_when_it_is_over() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut flood = Flood::default();
        assert_eq!((flood.ends(), flood.over(at(0))), (None, None));
        flood.add(at(0));
        flood.add(at(900));
        assert_eq!(flood.over(at(1800)), None);
        assert_eq!(flood.over(at(1900)), Some(2));
        assert_eq!((flood.over(at(9000)), flood.stop()), (None, None));
    }
}
