//! Which CPU a stopped caller wakes up on.
//!
//! A descriptor is put into the caller's table by the caller itself, which wakes up for it while the worker waits. The
//! kernel wakes it on an idle CPU if there is one. Where idle CPUs are halted, as in most virtual machines, to rouse that
//! one, and then again the worker's, takes several times as long as all the rest of an open. What a listener can ask for
//! (`SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP`, Linux 6.6) covers the call and its answer, but not this. To hold caller and
//! worker to one CPU meanwhile does; but that has its price, too, and where CPUs are busy or wake up quickly it is not
//! worth it. So both are timed, and the cheaper way is taken.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use nix::sched::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};
use nix::unistd::Pid;

/// How many calls make a round, at whose beginning the way that was the dearer one is tried again.
const ROUND: u32 = 512;
/// How many calls that takes: the first ones of either way still pay for where caller and worker were before.
const TRIAL: u32 = 8;
/// So many after each change tell nothing yet.
const SETTLING: u32 = 4;
/// A new time counts for one part in so many.
const WEIGHT: u32 = 4;
/// No time counts for more, in nanoseconds: something else came between.
const MOST: u32 = 100_000;
/// The calling thread, to the calls that set where a task may run.
const MYSELF: i32 = 0;

/// What handing descriptors over has cost lately, in nanoseconds.
#[derive(Debug, Default)]
pub struct Prices {
    held: AtomicU32,
    free: AtomicU32,
    turn: AtomicU32,
}

impl Prices {
    /// Times `act`, which puts a descriptor into the table of the task `tid`. It is given the hold on that task, if there is
    /// to be one, and lets go of it before it answers the call.
    pub fn put<T>(&self, tid: i32, act: impl FnOnce(Option<Held>) -> T) -> T {
        let begun = Instant::now();
        let place = self.turn.fetch_add(1, Ordering::Relaxed) % ROUND;
        let held = if self.hold(place) { Held::here(tid) } else { None };
        // The caller rouses the worker in turn.
        let _this_worker = held.as_ref().and_then(|_| Held::here(MYSELF));
        let price = if held.is_some() { &self.held } else { &self.free };
        let done = act(held);
        if tells(place) {
            let took = u32::try_from(begun.elapsed().as_nanos()).map_or(MOST, |took| took.min(MOST));
            let before = price.load(Ordering::Relaxed);
            let now = if before == 0 { took } else { before - before / WEIGHT + took / WEIGHT };
            price.store(now, Ordering::Relaxed);
        }
        done
    }

    /// Whether to hold the next caller: if that saves a quarter, so that what varies by chance decides little.
    fn hold(&self, place: u32) -> bool {
        let worth_it = self.held.load(Ordering::Relaxed) < self.free.load(Ordering::Relaxed) / 4 * 3;
        worth_it != (place < TRIAL)
    }
}

/// Whether the price of the call at this place of a round says what its way costs.
fn tells(place: u32) -> bool {
    let since_change = if place < TRIAL { place } else { place - TRIAL };
    since_change >= SETTLING
}

/// Holds a stopped caller to the CPU that this worker is on, until dropped.
///
/// To be dropped before the caller is answered: while it is inside its call it starts no thread and no process that could
/// inherit the hold. What it may use afterwards is what it might before, unless somebody has set that meanwhile.
#[derive(Debug)]
#[must_use]
pub struct Held {
    task: Pid,
    before: CpuSet,
    here: CpuSet,
}

impl Held {
    /// Holds the task `tid`; `None` if it has no other CPU to wake up on, may not run
    /// here, or may not be held (`sched_setaffinity(2)`).
    pub fn here(tid: i32) -> Option<Self> {
        let task = Pid::from_raw(tid);
        let before = sched_getaffinity(task).ok()?;
        let cpu = sched_getcpu().ok()?;
        let mut here = CpuSet::new();
        here.set(cpu).ok()?;
        if before == here || !before.is_set(cpu).ok()? {
            return None;
        }
        sched_setaffinity(task, &here).ok()?;
        Some(Self { task, before, here })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // A task that is gone needs nothing back.
        if sched_getaffinity(self.task).is_ok_and(|now| now == self.here) {
            let _ = sched_setaffinity(self.task, &self.before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask() -> CpuSet {
        sched_getaffinity(Pid::from_raw(MYSELF)).unwrap()
    }

    fn cpus(mask: &CpuSet) -> Vec<usize> {
        (0..CpuSet::count()).filter(|cpu| mask.is_set(*cpu).unwrap()).collect()
    }

    #[test]
    fn a_task_is_held_to_one_cpu_and_then_has_what_it_had() {
        let before = mask();
        if cpus(&before).len() < 2 {
            eprintln!("skipped: this host has one CPU");
            return;
        }
        let held = Held::here(MYSELF).unwrap();
        assert_eq!(cpus(&mask()).len(), 1);
        assert!(Held::here(MYSELF).is_none(), "there is no other CPU to wake up on");
        drop(held);
        assert_eq!(mask(), before);
    }

    #[test]
    fn what_somebody_sets_meanwhile_stands() {
        let before = mask();
        let Some(held) = Held::here(MYSELF) else {
            eprintln!("skipped: this host has one CPU");
            return;
        };
        let other = *cpus(&before).iter().find(|cpu| !held.here.is_set(**cpu).unwrap()).unwrap();
        let mut set = CpuSet::new();
        set.set(other).unwrap();
        sched_setaffinity(Pid::from_raw(MYSELF), &set).unwrap();
        drop(held);
        assert_eq!(mask(), set);
    }

    #[test]
    fn callers_are_held_where_that_saves_a_quarter_and_the_other_way_is_tried_again() {
        let held = |held: u32, free: u32| {
            let prices = Prices { held: held.into(), free: free.into(), turn: 0.into() };
            (0..ROUND).filter(|place| prices.hold(*place)).count() as u32
        };
        assert_eq!(held(10_000, 45_000), ROUND - TRIAL);
        assert_eq!(held(10_000, 12_000), TRIAL);
        assert_eq!(held(0, 0), TRIAL, "nothing is known yet");
        let telling: Vec<u32> = (0..16).filter(|place| tells(*place)).collect();
        assert_eq!(telling, [4, 5, 6, 7, 12, 13, 14, 15]);
    }
}
