//! How much an act may cost: what lies below the directory that a process is evidently working through.
//!
//! A worker that is about to answer the first of many removals asks here how many may follow. Both halves look and change
//! nothing. What is said of the process is taken from its real arguments and descriptors, not from any text that an agent
//! shows of its commands; still, a process may do less than its arguments name, or more: a bound is evidence, no fence.

use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use nix::dir::{Dir, Type};
use nix::errno::Errno;

use super::resolve::own_fd;
use super::target::{PATH_MAX, Target};
use crate::event::{Bound, BoxPath};
use crate::sys::file::{self, OpenHow};

/// How far a count goes.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// So many entries.
    pub entries: u64,
    /// So long. For half of it each file is looked at; then entries are only counted.
    pub time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { entries: 100_000, time: Duration::from_secs(1) }
    }
}

/// How many bytes of names of directories that are still to be read are kept.
const MOST_AHEAD: usize = 16 << 20;

/// Counts what lies below `root`, whose real path is `path`: on its own mount, and not behind links.
///
/// `is_held` tells of a file, by the directory that holds it, whether what it holds is to be had elsewhere. What appears or
/// vanishes meanwhile may be counted or not. One directory is open at a time, however deep the tree.
pub fn count(root: BorrowedFd<'_>, path: BoxPath, is_held: &IsHeld<'_>, limits: Limits) -> Bound {
    let bound = Bound { root: path, entries: 0, files: 0, bytes: Some(0), more: false, unheld: 0 };
    let now = Instant::now();
    let mut count = Count { root, is_held, limits, started: now, now, ahead: Vec::new(), length: 0, bound };
    count.ahead.push(PathBuf::new());
    while let Some(below) = count.ahead.pop() {
        count.length -= below.as_os_str().len();
        if !count.directory(&below) {
            count.bound.more = true;
            break;
        }
    }
    count.bound
}

/// Whether what a file holds is to be had elsewhere: the directory that holds it, its path, what was just seen of it.
pub type IsHeld<'a> = dyn Fn(BorrowedFd<'_>, &Path, &libc::stat, Instant) -> bool + 'a;

struct Count<'a> {
    root: BorrowedFd<'a>,
    is_held: &'a IsHeld<'a>,
    limits: Limits,
    started: Instant,
    /// Now, or a few entries ago.
    now: Instant,
    /// Directories that are still to be read, relative to the root.
    ahead: Vec<PathBuf>,
    /// How long their paths are together.
    length: usize,
    bound: Bound,
}

impl Count<'_> {
    /// Counts the entries of one directory; false once a limit is reached.
    fn directory(&mut self, below: &Path) -> bool {
        let opened = self.open(below).and_then(Dir::from_fd);
        let mut directory = match opened {
            Ok(directory) => directory,
            // Removed or replaced meanwhile, or another file system.
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::EXDEV) => return true,
            Err(_) => {
                self.bound.more = true;
                return true;
            }
        };
        let mut path = self.bound.root.join(below);
        // An entry of the directory borrows it, so that it cannot be asked for its descriptor meanwhile.
        let Ok(place) = directory.as_fd().try_clone_to_owned() else { return false };
        for entry in directory.iter() {
            let Ok(entry) = entry else {
                self.bound.more = true;
                return true;
            };
            if matches!(entry.file_name().to_bytes(), b"." | b"..") {
                continue;
            }
            if self.reached() {
                return false;
            }
            self.bound.entries += 1;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            match entry.file_type().or_else(|| kind(&place, entry.file_name())) {
                Some(Type::Directory) => self.later(below.join(name)),
                Some(Type::File) => {
                    path.push(name);
                    self.file(&place, entry.file_name(), &path);
                    path.pop();
                }
                _ => {}
            }
        }
        true
    }

    /// Keeps a directory in mind, if there is room.
    fn later(&mut self, directory: PathBuf) {
        let length = self.length + directory.as_os_str().len();
        if length > MOST_AHEAD {
            self.bound.more = true;
            return;
        }
        self.length = length;
        self.ahead.push(directory);
    }

    fn open(&self, below: &Path) -> Result<OwnedFd, Errno> {
        let path = if below.as_os_str().is_empty() { ".".as_ref() } else { below.as_os_str() };
        let path = CString::new(path.as_bytes()).map_err(|_| Errno::EINVAL)?;
        let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let resolve = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_SYMLINKS | libc::RESOLVE_NO_XDEV;
        file::openat2_unnoticed(self.root.as_raw_fd(), &path, OpenHow { flags: flags as u64, mode: 0, resolve })
    }

    /// Whether there were as many entries, or it took as long, as is allowed.
    fn reached(&mut self) -> bool {
        if self.bound.entries.is_multiple_of(64) {
            self.now = Instant::now();
        }
        self.bound.entries >= self.limits.entries || self.spent() >= self.limits.time
    }

    fn spent(&self) -> Duration {
        self.now.saturating_duration_since(self.started)
    }

    /// Counts a regular file, and looks at it while there is time.
    fn file(&mut self, directory: &OwnedFd, name: &CStr, path: &Path) {
        self.bound.files += 1;
        let there_is_time = self.spent() < self.limits.time / 2;
        let stat = there_is_time.then(|| file::fstatat(directory.as_raw_fd(), name, libc::AT_SYMLINK_NOFOLLOW).ok());
        let Some(stat) = stat.flatten() else {
            self.bound.bytes = None;
            self.bound.unheld += 1;
            return;
        };
        self.bound.bytes = self.bound.bytes.map(|bytes| bytes.saturating_add(stat.st_size as u64));
        if !(self.is_held)(directory.as_fd(), path, &stat, self.now) {
            self.bound.unheld += 1;
        }
    }
}

/// The kind of an entry where the file system does not tell it along with the name.
fn kind(directory: &OwnedFd, name: &CStr) -> Option<Type> {
    let stat = file::fstatat(directory.as_raw_fd(), name, libc::AT_SYMLINK_NOFOLLOW).ok()?;
    match stat.st_mode & libc::S_IFMT {
        libc::S_IFDIR => Some(Type::Directory),
        libc::S_IFREG => Some(Type::File),
        _ => None,
    }
}

/// How much of a process's arguments is read.
const MOST_ARGUMENTS: u64 = 256 << 10;
/// How many of them are resolved that do not lead to the object by their text.
const MOST_RESOLVED: usize = 32;
/// How many descriptors are looked at.
const MOST_DESCRIPTORS: usize = 256;

/// The topmost directory, above the object at `object` or the object itself, that the task is evidently working through:
/// one that its arguments name (`rm -rf DIR`), or one that it holds open (a program that walks down a tree).
///
/// Not the mere working directory, which it was given and may never look at, and not `/`, which would say nothing. To be
/// asked while the task waits in a stopped call, by a thread in the box's view. What cannot be read is left out, and so
/// are arguments beyond a limit.
pub fn aimed_at(target: Target, object: &Path) -> Option<(OwnedFd, BoxPath)> {
    let working_directory = target.working_directory().ok();
    let working_path = working_directory.as_ref().and_then(|directory| real_path(target, directory));
    let aim = Aim { target, object, working_directory, working_path };
    let mut top: Option<(OwnedFd, BoxPath)> = None;
    for (directory, path) in aim.arguments().into_iter().chain(aim.descriptors()) {
        if top.as_ref().is_none_or(|(_, top)| top.as_path().starts_with(path.as_path())) {
            top = Some((directory, path));
        }
    }
    top
}

struct Aim<'a> {
    target: Target,
    object: &'a Path,
    working_directory: Option<OwnedFd>,
    working_path: Option<PathBuf>,
}

impl Aim<'_> {
    /// The directories above the object among the task's arguments.
    fn arguments(&self) -> Vec<(OwnedFd, BoxPath)> {
        let text = self.command_line().unwrap_or_default();
        let mut left = MOST_RESOLVED;
        let arguments = text.split(|byte| *byte == 0).skip(1).filter(|argument| !argument.is_empty());
        let worth_a_look = |argument: &&[u8]| {
            let sure = self.leads_there(Path::new(OsStr::from_bytes(argument)));
            if !sure {
                left = left.saturating_sub(1);
            }
            sure || left > 0
        };
        arguments.filter(worth_a_look).filter_map(|argument| self.named(argument)).collect()
    }

    /// The task's arguments, each ended by a NUL. It may have written over them.
    fn command_line(&self) -> Result<Vec<u8>, Errno> {
        let opened = file::openat(self.target.proc, &self.target.entry("cmdline"), libc::O_RDONLY, 0)?;
        let mut text = Vec::new();
        File::from(opened).take(MOST_ARGUMENTS).read_to_end(&mut text).map_err(|_| Errno::EIO)?;
        Ok(text)
    }

    /// Whether an argument names what lies above the object by its text alone: cheap to see, which counts where there are
    /// thousands of arguments.
    fn leads_there(&self, argument: &Path) -> bool {
        let argument = argument.strip_prefix(".").unwrap_or(argument);
        match (argument.is_absolute(), &self.working_path) {
            (true, _) => self.object.starts_with(argument),
            (false, Some(path)) => self.object.strip_prefix(path).is_ok_and(|below| below.starts_with(argument)),
            (false, None) => false,
        }
    }

    /// The directory above the object that an argument names, as the kernel resolves it.
    fn named(&self, argument: &[u8]) -> Option<(OwnedFd, BoxPath)> {
        let from = match (argument.first(), &self.working_directory) {
            (Some(b'/'), _) => libc::AT_FDCWD,
            (_, Some(directory)) => directory.as_raw_fd(),
            (_, None) => return None,
        };
        if argument.len() >= PATH_MAX {
            return None;
        }
        let how =
            OpenHow { flags: (libc::O_PATH | libc::O_DIRECTORY) as u64, mode: 0, resolve: libc::RESOLVE_NO_MAGICLINKS };
        self.above_object(file::openat2(from, &CString::new(argument).ok()?, how).ok()?)
    }

    /// The directories above the object that the task holds open.
    fn descriptors(&self) -> Vec<(OwnedFd, BoxPath)> {
        let numbers = self.numbers().unwrap_or_default();
        numbers.into_iter().filter_map(|number| self.held(number)).collect()
    }

    fn numbers(&self) -> Result<Vec<i32>, Errno> {
        let flags = libc::O_RDONLY | libc::O_DIRECTORY;
        let mut table = Dir::from_fd(file::openat(self.target.proc, &self.target.entry("fd"), flags, 0)?)?;
        let number = |entry: nix::Result<nix::dir::Entry>| entry.ok()?.file_name().to_str().ok()?.parse().ok();
        Ok(table.iter().filter_map(number).take(MOST_DESCRIPTORS).collect())
    }

    fn held(&self, number: i32) -> Option<(OwnedFd, BoxPath)> {
        let path = PathBuf::from(OsStr::from_bytes(&self.target.link(&format!("fd/{number}")).ok()?));
        // Programs hold it open to come back to it (`find`).
        let is_working_directory = self.working_path.as_ref() == Some(&path);
        if is_working_directory || !self.is_above_object(&path) {
            return None;
        }
        self.above_object(self.target.descriptor(number).ok()?)
    }

    /// The directory and its path, if it is above the object.
    fn above_object(&self, directory: OwnedFd) -> Option<(OwnedFd, BoxPath)> {
        let path = real_path(self.target, &directory)?;
        let stat = file::fstatat(directory.as_raw_fd(), c"", libc::AT_EMPTY_PATH).ok()?;
        let is_directory = stat.st_mode & libc::S_IFMT == libc::S_IFDIR;
        (is_directory && self.is_above_object(&path)).then(|| BoxPath::new(path).map(|path| (directory, path)))?
    }

    fn is_above_object(&self, path: &Path) -> bool {
        path.components().any(|part| matches!(part, Component::Normal(_))) && self.object.starts_with(path)
    }
}

/// The real path of a directory that is held open.
fn real_path(target: Target, directory: &OwnedFd) -> Option<PathBuf> {
    let (mut buffer, mut name) = ([0u8; PATH_MAX + 16], [0u8; 24]);
    let name = own_fd(directory.as_raw_fd(), &mut name);
    let length = file::readlinkat(target.proc, name, &mut buffer).ok()?;
    (length < buffer.len()).then(|| PathBuf::from(OsStr::from_bytes(&buffer[..length])))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::{Child, Command, Stdio};

    use super::super::tracked::WorkTrees;
    use super::*;
    use crate::event::GitState;

    fn proc() -> OwnedFd {
        file::openat(libc::AT_FDCWD, c"/proc", libc::O_PATH | libc::O_DIRECTORY, 0).unwrap()
    }

    struct Scene {
        top: PathBuf,
        proc: OwnedFd,
        _directory: tempfile::TempDir,
    }

    impl Scene {
        /// `a/b/c`, two files in each.
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let top = fs::canonicalize(directory.path()).unwrap();
            fs::create_dir_all(top.join("a/b/c")).unwrap();
            for place in ["a", "a/b", "a/b/c"] {
                fs::write(top.join(place).join("1"), "1").unwrap();
                fs::write(top.join(place).join("22"), "22").unwrap();
            }
            Self { top, proc: proc(), _directory: directory }
        }

        fn count(&self, below: &str, limits: Limits) -> Bound {
            let path = self.top.join(below);
            let name = CString::new(path.as_os_str().as_bytes()).unwrap();
            let root = file::openat(libc::AT_FDCWD, &name, libc::O_PATH | libc::O_DIRECTORY, 0).unwrap();
            let trees = WorkTrees::default();
            let clean = |directory: BorrowedFd<'_>, path: &Path, stat: &libc::stat, now: Instant| {
                trees.state(directory, path, stat, now) == Some(GitState::Clean)
            };
            count(root.as_fd(), BoxPath::new(path).unwrap(), &clean, limits)
        }

        /// At what below the top a process aims that stands in `at` and is about to remove `object`.
        fn aim(&self, at: &str, command: &[&str], object: &str) -> Option<String> {
            let mut child = self.start(at, command);
            let target = Target { tid: child.id() as i32, proc: self.proc.as_raw_fd() };
            let aimed = aimed_at(target, &self.top.join(object));
            child.kill().unwrap();
            child.wait().unwrap();
            let below = |path: BoxPath| path.as_path().strip_prefix(&self.top).map(|path| path.display().to_string());
            aimed.map(|(_, path)| below(path).unwrap_or("above".into()))
        }

        /// Starts a command, and waits until it has said that it is where it shall be looked at.
        fn start(&self, at: &str, command: &[&str]) -> Child {
            let mut child = Command::new(command[0])
                .args(&command[1..])
                .current_dir(self.top.join(at))
                .env("TOP", &self.top)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut byte = [0];
            child.stdout.as_mut().unwrap().read_exact(&mut byte).unwrap();
            child
        }
    }

    /// A command with these arguments that says when it is there and waits until it is ended.
    fn waiting<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
        [&["sh", "-c", "echo; read x; :", "sh"], arguments].concat()
    }

    #[test]
    fn all_below_is_counted_and_links_are_not_followed() {
        let scene = Scene::new();
        std::os::unix::fs::symlink(&scene.top, scene.top.join("a/b/up")).unwrap();
        nix::unistd::mkfifo(&scene.top.join("a/pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let root = BoxPath::new(scene.top.join("a")).unwrap();
        let expected = Bound { root, entries: 10, files: 6, bytes: Some(9), more: false, unheld: 6 };
        assert_eq!(scene.count("a", Limits::default()), expected);
        assert_eq!(scene.count("a/b/c", Limits::default()).entries, 2);
    }

    #[test]
    fn a_count_ends_at_its_limits() {
        let scene = Scene::new();
        let few = scene.count("a", Limits { entries: 3, ..Limits::default() });
        assert!(few.more && few.entries == 3, "{few:?}");
        let all = scene.count("a", Limits { entries: 9, ..Limits::default() });
        assert!(!all.more && all.entries == 8, "{all:?}");
        let soon = scene.count("a", Limits { time: Duration::ZERO, ..Limits::default() });
        assert!(soon.more && soon.entries == 0, "{soon:?}");
    }

    #[test]
    fn a_tree_deeper_than_any_path_is_counted_as_far_as_paths_go() {
        let scene = Scene::new();
        let name = CString::new("d".repeat(200)).unwrap();
        let mut here = file::openat(
            libc::AT_FDCWD,
            &CString::new(scene.top.join("a/b/c").as_os_str().as_bytes()).unwrap(),
            libc::O_PATH,
            0,
        )
        .unwrap();
        for _ in 0..60 {
            file::mkdirat(here.as_raw_fd(), &name, 0o755).unwrap();
            here = file::openat(here.as_raw_fd(), &name, libc::O_PATH, 0).unwrap();
        }
        let deep = scene.count("a", Limits::default());
        assert!(deep.more && deep.entries > 8 + 15 && deep.entries < 8 + 60, "{deep:?}");
    }

    #[test]
    fn what_git_holds_is_told_apart() {
        let scene = Scene::new();
        let git = |arguments: &[&str]| {
            let mut command = Command::new("git");
            command.arg("-C").arg(scene.top.join("a")).args(arguments).env("GIT_CONFIG_GLOBAL", "/dev/null");
            command.output().is_ok_and(|output| output.status.success())
        };
        if !git(&["init", "-q"]) {
            println!("skipped: git is not installed");
            return;
        }
        // Younger than the files, or they could not be told from what changes now.
        std::thread::sleep(Duration::from_millis(30));
        assert!(git(&["add", "b"]));
        fs::write(scene.top.join("a/b/1"), "x").unwrap();
        let found = scene.count("a/b", Limits::default());
        assert_eq!((found.files, found.unheld), (4, 1));
    }

    #[test]
    fn arguments_tell_what_a_process_is_working_through() {
        let scene = Scene::new();
        let aim = |at, arguments: &[&str], object| scene.aim(at, &waiting(arguments), object);
        let absolute = scene.top.join("a/b").display().to_string();
        assert_eq!(aim("", &["-rf", "a"], "a/b/c/1"), Some("a".into()));
        assert_eq!(aim("", &["-rf", "a/"], "a"), Some("a".into()));
        assert_eq!(aim("", &["-rf", &absolute], "a/b/c"), Some("a/b".into()));
        assert_eq!(aim("a/b", &[".", "-delete"], "a/b/c/1"), Some("a/b".into()));
        assert_eq!(aim("a/b/c", &["../../b"], "a/b/c/1"), Some("a/b".into()));
        // The topmost.
        assert_eq!(aim("", &["a/b/c", "a/b"], "a/b/c/1"), Some("a/b".into()));
        // A working directory alone, a name that only begins alike, files, what is elsewhere, and the root say nothing.
        assert_eq!(aim("a", &["-fdx"], "a/b/c/1"), None);
        fs::create_dir(scene.top.join("a/bb")).unwrap();
        assert_eq!(aim("", &["a/b"], "a/bb/x"), None);
        assert_eq!(aim("", &["a/b/1"], "a/b/1"), None);
        assert_eq!(aim("", &["/"], "a/b/1"), None);
        // By way of a link, and behind many others.
        std::os::unix::fs::symlink("a/b", scene.top.join("link")).unwrap();
        assert_eq!(aim("", &["link/"], "a/b/1"), Some("a/b".into()));
        let mut many = vec!["x"; 5000];
        many.push("a/b");
        assert_eq!(aim("", &many, "a/b/1"), Some("a/b".into()));
    }

    #[test]
    fn descriptors_tell_what_a_process_is_working_through() {
        let scene = Scene::new();
        let held = |directories: &str| format!("exec {directories}; echo; read x; :");
        let aim = |at, directories: &str, object| scene.aim(at, &["sh", "-c", &held(directories)], object);
        assert_eq!(aim("", "8<a/b 9<a/b/c", "a/b/c/1"), Some("a/b".into()));
        assert_eq!(aim("", "8<a/b/1 9</", "a/b/1"), None);
        assert_eq!(aim("a/b", "8<. 9<c", "a/b/c/1"), Some("a/b/c".into()));
        assert_eq!(aim("a/b", "8<. 9<c", "a/b/1"), None);
    }

    #[test]
    fn real_programs_show_what_they_remove() {
        let scene = Scene::new();
        // It asks before it goes on, and nobody answers.
        let rm = "exec rm -ri a 2>&1";
        assert_eq!(scene.aim("", &["sh", "-c", rm], "a/b/1"), Some("a".into()));
        // Removes below directories that it holds open; none is among its arguments.
        let asked = "import os, shutil, sys
def ask(*names, **place):
    print('', flush=True)
    sys.stdin.read()
os.unlink = ask
shutil.rmtree('a')";
        if Command::new("python3").arg("-c").arg("").status().is_ok_and(|status| status.success()) {
            assert_eq!(scene.aim("", &["python3", "-c", asked], "a/b/c/1"), Some("a".into()));
        } else {
            println!("skipped: python3 is not installed");
        }
    }

    #[test]
    fn nothing_is_told_of_a_process_that_is_gone() {
        let scene = Scene::new();
        let mut child = scene.start("", &waiting(&["a"]));
        child.kill().unwrap();
        child.wait().unwrap();
        let target = Target { tid: child.id() as i32, proc: scene.proc.as_raw_fd() };
        assert!(aimed_at(target, &scene.top.join("a/1")).is_none());
    }
}
