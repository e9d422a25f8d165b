//! Who a task is: its process, program and ancestors inside the box; and where it stands: its working directory and
//! creation mask.
//!
//! Read from the host's `/proc` and kept for a moment, because one process makes many calls. Process numbers come back
//! to use only after all others have been used, which takes far longer than an entry is kept. What a task can change of
//! itself stops ([`Family::Surroundings`](crate::syscalls::Family)), so that nothing is believed beyond such a change.

use std::collections::{HashMap, HashSet, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::lock;
use super::marks::Marks;
use super::target::Target;
use crate::event::{ActionId, Subject, escape_bytes};
use crate::sys::{file, process};

/// How long an entry is believed.
const KEPT: Duration = Duration::from_millis(250);
/// More entries than this are swept of old ones.
const MANY: usize = 1024;
/// How many working directories are held open at most.
const DIRECTORIES: usize = 16;

/// A task as the box and the host know it.
#[derive(Debug, Clone)]
pub struct Task {
    /// The process, for events.
    pub subject: Arc<Subject>,
    /// The task's own number inside the box.
    pub box_tid: i32,
}

struct Entry {
    task: Task,
    parent: i32,
    read: Instant,
    mask: u32,
    /// What `Known::changes` was when the mask was read.
    as_of: u64,
}

/// A working directory that is held open.
struct Held {
    tid: i32,
    read: Instant,
    as_of: u64,
    directory: Arc<OwnedFd>,
}

/// The tasks seen lately.
pub struct Lineage {
    /// init's number on the host: where ancestry ends.
    init: i32,
    marks: Marks,
    /// The command's own process: the first that starts a program.
    command: OnceLock<Arc<Subject>>,
    known: Mutex<Known>,
    /// The process that each action started.
    roots: Mutex<HashMap<ActionId, Arc<Subject>>>,
}

#[derive(Default)]
struct Known {
    entries: HashMap<i32, Entry>,
    directories: VecDeque<Held>,
    /// How often any task has changed its surroundings.
    changes: u64,
    /// Processes one of whose threads has: the others go on meanwhile, so nobody can tell from when on it holds.
    unsteady: HashSet<i32>,
}

impl Lineage {
    /// Starts with nobody.
    pub fn new(init: i32) -> Self {
        let (known, roots) = (Mutex::default(), Mutex::default());
        Self { init, marks: Marks::new(), command: OnceLock::new(), known, roots }
    }

    /// Whether a process that is about to start a program is the command's own, which is in no action: the first that
    /// does.
    pub fn is_command(&self, subject: &Arc<Subject>) -> bool {
        self.command.get_or_init(|| Arc::clone(subject)).host == subject.host
    }

    /// Marks a process, which has just started the first program of an action, and all that will descend from it.
    pub fn mark(&self, subject: &Arc<Subject>, action: ActionId) -> Result<(), Errno> {
        self.marks.set(subject.host, action)?;
        lock(&self.roots).entry(action).or_insert_with(|| Arc::clone(subject));
        Ok(())
    }

    /// The actions of which no process is left; they are forgotten. Looks through `/proc` only if one has lost the process
    /// that it started.
    pub fn ended(&self) -> Vec<ActionId> {
        let mut roots = lock(&self.roots);
        let mut orphaned: HashSet<ActionId> =
            roots.iter().filter(|(_, subject)| is_gone(subject.host)).map(|(action, _)| *action).collect();
        if !orphaned.is_empty() {
            // A process of another box may have the same mark: then the end is seen later.
            let living = numbers_in("/proc").unwrap_or_default();
            living.into_iter().for_each(|process| {
                orphaned.remove(&self.marks.of(process));
            });
        }
        orphaned.iter().for_each(|action| {
            roots.remove(action);
        });
        orphaned.into_iter().collect()
    }

    /// Who `target` is. A task that vanishes while it is looked at has number 0.
    pub fn task(&self, target: Target, now: Instant) -> Task {
        self.lookup(target, now, 0).0
    }

    /// Forgets a process whose program has changed.
    pub fn forget(&self, tid: i32) {
        let mut known = self.lock();
        known.entries.remove(&tid);
        known.directories.retain(|held| held.tid != tid);
    }

    /// The creation mask of `target`, which waits in a stopped call.
    pub fn umask(&self, target: Target) -> u32 {
        let known = self.lock();
        if let Some(entry) = known.entries.get(&target.tid)
            && entry.as_of == known.changes
            && !known.unsteady.contains(&entry.task.subject.host)
        {
            return entry.mask;
        }
        let as_of = known.changes;
        drop(known);
        let mask = Status::read(target).umask;
        if let Some(entry) = self.lock().entries.get_mut(&target.tid) {
            (entry.mask, entry.as_of) = (mask, as_of);
        }
        mask
    }

    /// The working directory of `target`, which waits in a stopped call since `now`.
    pub fn working_directory(&self, target: Target, now: Instant) -> Result<Arc<OwnedFd>, Errno> {
        let known = self.lock();
        let as_of = known.changes;
        let fits = |held: &&Held| {
            held.tid == target.tid && held.as_of == as_of && now.saturating_duration_since(held.read) < KEPT
        };
        if let Some(held) = known.directories.iter().find(fits) {
            return Ok(Arc::clone(&held.directory));
        }
        let process = known.entries.get(&target.tid).map(|entry| entry.task.subject.host);
        let steady = process.is_some_and(|process| !known.unsteady.contains(&process));
        drop(known);
        let directory = Arc::new(target.working_directory()?);
        if steady {
            let mut known = self.lock();
            known.directories.retain(|held| held.tid != target.tid);
            known.directories.truncate(DIRECTORIES - 1);
            known.directories.push_front(Held { tid: target.tid, read: now, as_of, directory: Arc::clone(&directory) });
        }
        Ok(directory)
    }

    /// Notes that `target` is about to change its working directory or creation mask. To be called before it goes on.
    pub fn changes(&self, target: Target) {
        let status = Status::read(target);
        let mut known = self.lock();
        known.changes += 1;
        if status.threads != 1 {
            known.unsteady.insert(status.tgid);
            known.directories.clear();
        }
    }

    /// The host's number of process `number` of the box, for one of its tasks; `ENOENT` if there is none.
    pub fn host_process(&self, target: Target, task: &Task, number: i32) -> Result<i32, Errno> {
        if number == task.subject.pid {
            return Ok(task.subject.host);
        }
        let own = namespace(target, target.tid).ok_or(Errno::ENOENT)?;
        let is_it = |host: &i32| {
            Status::read(Target { tid: *host, ..target }).box_tgid == number
                && namespace(target, *host).as_ref() == Some(&own)
        };
        numbers_in(".")?.into_iter().find(is_it).ok_or(Errno::ENOENT)
    }

    /// The host's number of the process of the box to which task `number` belongs, for one of its tasks; `ENOENT` if
    /// there is none.
    pub fn host_process_of(&self, target: Target, task: &Task, number: i32) -> Result<i32, Errno> {
        if number == task.subject.pid || number == task.box_tid {
            return Ok(task.subject.host);
        }
        let namespace = file::openat(target.proc, &target.entry("ns/pid"), libc::O_RDONLY, 0)?;
        match process::process_in(namespace.as_fd(), number) {
            Err(Errno::ENOTTY) => self.search(target, task, number),
            Err(Errno::ESRCH) => Err(Errno::ENOENT),
            found => found,
        }
    }

    /// The same where the kernel does not tell: first among processes, then among their threads.
    fn search(&self, target: Target, task: &Task, number: i32) -> Result<i32, Errno> {
        self.host_process(target, task, number).or_else(|_| {
            let has_it = |process: &i32| self.host_thread(target, *process, number).is_ok();
            self.processes_around(target)?.into_iter().find(has_it).ok_or(Errno::ENOENT)
        })
    }

    /// The host's numbers of all processes in the pid namespace of a task.
    pub fn processes_around(&self, target: Target) -> Result<Vec<i32>, Errno> {
        let own = namespace(target, target.tid).ok_or(Errno::ENOENT)?;
        Ok(numbers_in(".")?.into_iter().filter(|host| namespace(target, *host).as_ref() == Some(&own)).collect())
    }

    /// Whether a process is one of the box, and not its init.
    pub fn is_in_box(&self, target: Target, process: &Subject) -> bool {
        if process.host == self.init || namespace(target, process.host) != namespace(target, target.tid) {
            return false;
        }
        // Where the box has a pid namespace of its own, all in there is the box's; else what descends from its init.
        let init = Status::read(Target { tid: self.init, ..target }).box_tgid;
        init == 1 || process.parents.last() == Some(&init)
    }

    /// The number of `target`'s process group inside the box; 0 if that was made outside.
    pub fn group(target: Target) -> i32 {
        Status::read(target).box_group
    }

    /// The host's number of thread `number` of the box, of a process by its number on the host.
    pub fn host_thread(&self, target: Target, process: i32, number: i32) -> Result<i32, Errno> {
        let is_it = |host: &i32| Status::read(Target { tid: *host, ..target }).box_tid == number;
        numbers_in(&format!("{process}/task"))?.into_iter().find(is_it).ok_or(Errno::ENOENT)
    }

    fn lookup(&self, target: Target, now: Instant, depth: usize) -> (Task, i32) {
        let tid = target.tid;
        let known = self.lock();
        if let Some(entry) = known.entries.get(&tid)
            && now.saturating_duration_since(entry.read) < KEPT
        {
            return (entry.task.clone(), entry.parent);
        }
        let as_of = known.changes;
        drop(known);
        let status = Status::read(target);
        let mark = self.marks.of(tid);
        let parents = self.parents(target, &status, mark, now, depth);
        let exe = target.link("exe").map(|path| escape_bytes(&path)).unwrap_or_default();
        let subject = Subject { pid: status.box_tgid, host: status.tgid, exe, parents, mark };
        let task = Task { subject: Arc::new(subject), box_tid: status.box_tid };
        let entries = &mut self.lock().entries;
        if entries.len() > MANY {
            entries.retain(|_, entry| now.saturating_duration_since(entry.read) < KEPT);
        }
        let entry = Entry { task: task.clone(), parent: status.parent, read: now, mask: status.umask, as_of };
        entries.insert(tid, entry);
        (task, status.parent)
    }

    fn parents(&self, child: Target, status: &Status, mark: ActionId, now: Instant, depth: usize) -> Vec<i32> {
        const DEEPEST: usize = 64;
        if status.parent <= 0 || status.tgid == self.init || depth > DEEPEST {
            return Vec::new();
        }
        if status.parent == self.init
            && let Some(above) = self.stand_in(status.tgid, mark)
        {
            return std::iter::once(above.pid).chain(above.parents.iter().copied()).collect();
        }
        let (parent, _) = self.lookup(Target { tid: status.parent, ..child }, now, depth + 1);
        let mut parents = vec![parent.subject.pid];
        parents.extend(&parent.subject.parents);
        parents
    }

    /// init takes in whoever has lost its parent: the process that its action started stands in for that, and for the
    /// parent of this one the command, from which all descend.
    fn stand_in(&self, process: i32, mark: ActionId) -> Option<Arc<Subject>> {
        let root = lock(&self.roots).get(&mark).cloned();
        let is_other = |above: &Arc<Subject>| above.host != process;
        root.filter(is_other).or_else(|| self.command.get().cloned().filter(is_other))
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // Nothing panics under this lock, and each use leaves the value whole.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether there is no process of this number on the host any more. For threads in the host's view.
pub fn is_gone(process: i32) -> bool {
    !Path::new("/proc").join(process.to_string()).exists()
}

/// What the pid namespace of a task goes by.
fn namespace(target: Target, tid: i32) -> Option<Vec<u8>> {
    Target { tid, ..target }.link("ns/pid").ok()
}

/// The names in a directory of the host's `/proc`, where a worker stands, that are numbers.
fn numbers_in(directory: &str) -> Result<Vec<i32>, Errno> {
    let entries = std::fs::read_dir(directory).map_err(|_| Errno::ENOENT)?;
    Ok(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

/// What `/proc/PID/status` says; zeroes for a task that is gone.
#[derive(Debug, Default)]
pub struct Status {
    tgid: i32,
    parent: i32,
    box_tgid: i32,
    box_tid: i32,
    box_group: i32,
    /// How many threads its process has.
    pub threads: u32,
    /// File mode creation mask.
    pub umask: u32,
    /// Whether a signal waits that the task itself would handle.
    pub interrupted: bool,
    /// Whether a signal waits that the task could handle, unless another of its process does.
    pub process_interrupted: bool,
}

impl Status {
    /// Reads a task's status.
    pub fn read(target: Target) -> Self {
        Self::parse(&target.text("status"))
    }

    fn parse(text: &str) -> Self {
        let mut status = Self::default();
        let number = |value: &str| value.trim().parse().unwrap_or(0);
        // The innermost namespace stands last.
        let last = |value: &str| value.split_whitespace().last().map_or(0, number);
        let mask = |value: &str| u64::from_str_radix(value.trim(), 16).unwrap_or(0);
        let (mut own, mut shared, mut blocked) = (0, 0, 0);
        for line in text.lines() {
            let Some((key, value)) = line.split_once(':') else { continue };
            match key {
                "Umask" => status.umask = u32::from_str_radix(value.trim(), 8).unwrap_or(0o022),
                "Tgid" => status.tgid = number(value),
                "PPid" => status.parent = number(value),
                "NStgid" => status.box_tgid = last(value),
                "NSpid" => status.box_tid = last(value),
                "NSpgid" => status.box_group = last(value),
                "Threads" => status.threads = value.trim().parse().unwrap_or(0),
                "SigPnd" => own = mask(value),
                "ShdPnd" => shared = mask(value),
                "SigBlk" => blocked = mask(value),
                "SigCgt" => {
                    let handled = !blocked & mask(value);
                    status.process_interrupted = shared & handled != 0;
                    status.interrupted = own & handled != 0 || (status.threads == 1 && status.process_interrupted);
                    break;
                }
                _ => {}
            }
        }
        status
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn a_status_gives_numbers_of_the_innermost_namespace() {
        let text = "Name:\tsh\nUmask:\t0027\nState:\tS\nTgid:\t812\nNgid:\t0\nPid:\t813\nPPid:\t800\nNStgid:\t812\t5\nNSpid:\t813\t6\nNSpgid:\t700\t4\n";
        let status = Status::parse(text);
        assert_eq!((status.tgid, status.parent, status.box_tgid, status.box_tid), (812, 800, 5, 6));
        assert_eq!((status.umask, status.box_group), (0o027, 4));
        let signals = |text: &str| {
            let status = Status::parse(text);
            (status.interrupted, status.process_interrupted)
        };
        let (alone, one_of_many) = ("Threads:\t1\n", "Threads:\t3\n");
        let own = "SigPnd:\t2000\nShdPnd:\t0\nSigBlk:\t0\nSigCgt:\t2000\n";
        let shared = "SigPnd:\t0\nShdPnd:\t2000\nSigBlk:\t1\nSigCgt:\t2000\n";
        assert_eq!(signals(&[one_of_many, own].concat()), (true, false));
        assert_eq!(signals(&[alone, shared].concat()), (true, true));
        assert_eq!(signals(&[one_of_many, shared].concat()), (false, true));
        assert_eq!(signals("SigPnd:\t2000\nShdPnd:\t0\nSigBlk:\t2000\nSigCgt:\t2000\n"), (false, false));
        assert_eq!(signals("SigPnd:\t2000\nShdPnd:\t0\nSigBlk:\t0\nSigCgt:\t0\n"), (false, false));
    }

    #[test]
    fn a_number_leads_to_the_process_of_a_thread_with_and_without_the_kernels_help() {
        let (numbers, given) = std::sync::mpsc::channel();
        let (wait, waits) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || {
            numbers.send(nix::unistd::gettid().as_raw()).unwrap();
            let _ = waits.recv();
        });
        let (me, thread) = (std::process::id() as i32, given.recv().unwrap());
        let proc = std::fs::File::open("/proc").unwrap();
        let target = Target { tid: me, proc: proc.as_raw_fd() };
        let lineage = Lineage::new(1);
        let elsewhere = Task { subject: Arc::new(Subject::default()), box_tid: 0 };
        let namespace = std::fs::File::open("/proc/self/ns/pid").unwrap();
        match process::process_in(namespace.as_fd(), thread) {
            Err(Errno::ENOTTY) => println!("skipped: the kernel does not tell (before Linux 6.11)"),
            told => assert_eq!(told, Ok(me)),
        }
        for number in [me, thread] {
            assert_eq!(lineage.host_process_of(target, &elsewhere, number), Ok(me));
        }
        assert_eq!(lineage.host_process_of(target, &elsewhere, 1 << 23), Err(Errno::ENOENT));
        drop(wait);
        other.join().unwrap();
    }
}
