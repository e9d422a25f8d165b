//! The git state of one file: what git would say of it by its stat data alone, without running git.
//!
//! Asked by a worker about a file that is about to be changed or removed. The work tree is found upwards from the
//! directory that is held open, and everything of git's is opened from there, never through a link and never waiting for
//! anybody. A file is clean only if its stat data are those that git noted when it took the content, and were noted
//! before the index was written: at equal times a later change could not be told. Git compares contents then; here such
//! a file is modified, the safe side, and the sizes alone prove nothing.
//!
//! Programs in the box may write the index and the repository, and could make a file look held that is not. The state is
//! evidence about honest work, to tell how much an act may cost; it is no proof, and no fence may rest on it.

mod ignored;
mod index;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::lock;
use crate::event::GitState;
use crate::sys::file::{self, OpenHow};
use ignored::{Effort, Rule};
use index::{Hash, Index, Said, Time};

/// How long it is believed to which work tree a directory belongs.
const KEPT: Duration = Duration::from_millis(500);
/// How long an index is believed to be the one that was read.
const FRESH: Duration = Duration::from_millis(50);
/// How many directories are remembered.
const DIRECTORIES: usize = 4096;
/// How many repositories are remembered, and how many bytes their indexes take together unless one alone takes more.
const REPOSITORIES: usize = 8;
const INDEXES: usize = 64 << 20;
/// The largest index that is read.
const LARGEST_INDEX: u64 = 256 << 20;
/// How deep rules about what to leave out are looked for, and how much is done for one question about them.
const LEVELS: usize = 64;
const EFFORT: u32 = 2_000_000;
/// How many bytes of such rules are remembered for one repository.
const RULES: usize = 256 << 10;
/// More than any of git's small files holds.
const SMALL: u64 = 64 << 10;

/// The work tree that a directory belongs to: a repository, none, or one that cannot be read, which says nothing.
type Found = Option<Arc<Repository>>;

/// The work trees that files were asked about lately. Shared by all workers.
#[derive(Default)]
pub struct WorkTrees {
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    directories: HashMap<PathBuf, (Instant, Found)>,
    /// The one used last comes last.
    repositories: Vec<Arc<Repository>>,
}

/// One work tree and its part of the repository.
struct Repository {
    /// The real path of the work tree's top directory.
    root: PathBuf,
    /// Device and inode of the git directory.
    identity: (u64, u64),
    /// The git directory: where the index lies.
    own: OwnedFd,
    /// The one that all work trees of the repository share, where the configuration lies; `None` if it is the same.
    common: Option<OwnedFd>,
    loaded: Mutex<Loaded>,
    /// How many bytes its index takes.
    weight: AtomicUsize,
    levels: Mutex<Levels>,
}

/// What is to be left out, for directories below the root that were asked about lately.
#[derive(Default)]
struct Levels {
    known: HashMap<PathBuf, Arc<Level>>,
    /// How long the texts of their rules are.
    length: usize,
}

/// What git was told to leave out in one directory.
struct Level {
    above: Option<Arc<Level>>,
    /// How long the directory's path is, with a slash behind it.
    base: usize,
    rules: Vec<Rule>,
    /// Whether the whole directory is left out.
    whole: bool,
    read: Instant,
}

/// An index as it was last read.
#[derive(Default)]
struct Loaded {
    checked: Option<Instant>,
    seen: Option<Stamp>,
    /// `None` if it cannot be read.
    index: Option<Index>,
}

/// What tells one version of a file from the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: i64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Why a work tree's state cannot be told: it is not as git would accept it, or is not readable.
struct Untellable;

impl WorkTrees {
    /// The state of the file at `path`, an absolute real path, of which `stat` was just seen (the file itself, not what a
    /// link leads to). `directory` is the one that holds it.
    ///
    /// `None` for what is no file or link, does not lie in a work tree, or cannot be told.
    pub fn state(&self, directory: BorrowedFd<'_>, path: &Path, stat: &libc::stat, now: Instant) -> Option<GitState> {
        if !matches!(stat.st_mode & libc::S_IFMT, libc::S_IFREG | libc::S_IFLNK) {
            return None;
        }
        let repository = self.repository(directory, path.parent()?, now)?;
        let name = path.strip_prefix(&repository.root).ok()?.as_os_str().as_bytes();
        let weight = repository.weight.load(Ordering::Relaxed);
        let said = repository.look(name, stat, now);
        if repository.weight.load(Ordering::Relaxed) > weight {
            lock(&self.known).make_room();
        }
        Some(match said? {
            Said::Same => GitState::Clean,
            Said::Differs => GitState::Modified,
            Said::Absent if repository.ignores(directory, name, now) => GitState::Ignored,
            Said::Absent => GitState::Untracked,
        })
    }

    /// The work tree that a directory belongs to.
    fn repository(&self, directory: BorrowedFd<'_>, path: &Path, now: Instant) -> Found {
        if let Some(found) = lock(&self.known).remembered(path, now) {
            return found;
        }
        let found = self.search(directory, path, now).unwrap_or(None);
        lock(&self.known).remember(path, &found, now);
        found
    }

    /// Looks for a `.git` upwards from a directory, up to one whose work tree is remembered.
    fn search(&self, directory: BorrowedFd<'_>, path: &Path, now: Instant) -> Result<Found, Untellable> {
        let mut up = String::from("./");
        for above in path.ancestors() {
            // Not the directory itself: that is what is being looked for.
            if above != path
                && let Some(found) = lock(&self.known).remembered(above, now)
            {
                return Ok(found);
            }
            if above.file_name() == Some(".git".as_ref()) {
                return Ok(None);
            }
            if let Some(found) = self.at(directory, &up, above)? {
                return Ok(Some(found));
            }
            up.push_str("../");
        }
        Ok(None)
    }

    /// The work tree whose top directory is `root`, reached from `directory` by `up`.
    fn at(&self, directory: BorrowedFd<'_>, up: &str, root: &Path) -> Result<Found, Untellable> {
        let entry = match open_path(&directory, &c_string(format!("{up}.git"))?, libc::O_NOFOLLOW) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(None),
            found => found?,
        };
        let stat = file::fstatat(entry.as_raw_fd(), c"", libc::AT_EMPTY_PATH)?;
        let own = match stat.st_mode & libc::S_IFMT {
            libc::S_IFDIR => entry,
            libc::S_IFREG => pointed_to(directory, up)?,
            _ => return Err(Untellable),
        };
        let identity = identity(&file::fstatat(own.as_raw_fd(), c"", libc::AT_EMPTY_PATH)?);
        if let Some(known) = lock(&self.known).repository(identity, root) {
            return Ok(Some(known));
        }
        let Some(repository) = Repository::new(own, identity, directory, up, root)? else { return Ok(None) };
        let repository = Arc::new(repository);
        lock(&self.known).keep(Arc::clone(&repository));
        Ok(Some(repository))
    }
}

impl Known {
    fn remembered(&self, path: &Path, now: Instant) -> Option<Found> {
        let (at, found) = self.directories.get(path)?;
        (now.saturating_duration_since(*at) < KEPT).then(|| found.clone())
    }

    fn remember(&mut self, path: &Path, found: &Found, now: Instant) {
        if self.directories.len() >= DIRECTORIES {
            self.directories.retain(|_, (at, _)| now.saturating_duration_since(*at) < KEPT);
        }
        if self.directories.len() >= DIRECTORIES {
            self.directories.clear();
        }
        self.directories.insert(path.to_path_buf(), (now, found.clone()));
    }

    fn repository(&mut self, identity: (u64, u64), root: &Path) -> Found {
        let at = self.repositories.iter().position(|known| known.identity == identity && known.root == root)?;
        let repository = self.repositories.remove(at);
        self.repositories.push(Arc::clone(&repository));
        Some(repository)
    }

    fn keep(&mut self, repository: Arc<Repository>) {
        self.repositories.push(repository);
        self.make_room();
    }

    /// Lets go of the repositories used longest ago if there are too many, or their indexes take too much. The last one stays in any
    /// case; what is let go is read again if it is asked about again.
    fn make_room(&mut self) {
        let (mut kept, mut total) = (0, 0);
        for repository in self.repositories.iter().rev() {
            total += repository.weight.load(Ordering::Relaxed);
            if kept > 0 && (kept == REPOSITORIES || total > INDEXES) {
                break;
            }
            kept += 1;
        }
        let gone: Vec<_> = self.repositories.drain(..self.repositories.len() - kept).collect();
        let is_gone =
            |found: &Found| found.as_ref().is_some_and(|one| gone.iter().any(|other| Arc::ptr_eq(one, other)));
        if !gone.is_empty() {
            self.directories.retain(|_, (_, found)| !is_gone(found));
        }
    }
}

impl Repository {
    /// Opens a repository; `None` if git would not take it for one and look further up.
    fn new(
        own: OwnedFd,
        identity: (u64, u64),
        directory: BorrowedFd<'_>,
        up: &str,
        root: &Path,
    ) -> Result<Option<Self>, Untellable> {
        let common = match read_small(&own, c"commondir") {
            Ok(text) => Some(open_path(&own, &c_string(text.trim_ascii_end())?, libc::O_DIRECTORY)?),
            Err(Errno::ENOENT) => None,
            Err(errno) => return Err(errno.into()),
        };
        let shared = common.as_ref().unwrap_or(&own);
        let is_there = |directory: &OwnedFd, name| file::fstatat(directory.as_raw_fd(), name, 0).is_ok();
        if !is_there(&own, c"HEAD") || !is_there(shared, c"objects") || !is_there(shared, c"refs") {
            return Ok(None);
        }
        // The settings about the work tree are those of the main one.
        if common.is_none() {
            let settings = Settings::read(&own)?;
            let top = file::fstatat(directory.as_raw_fd(), &c_string(up)?, 0)?;
            let elsewhere = |place: Vec<u8>| {
                let place = c_string(place).map(|place| file::fstatat(own.as_raw_fd(), &place, 0));
                !matches!(place, Ok(Ok(place)) if self::identity(&place) == self::identity(&top))
            };
            if settings.bare || settings.work_tree.is_some_and(elsewhere) {
                return Err(Untellable);
            }
        }
        Ok(Some(Self {
            root: root.to_path_buf(),
            identity,
            own,
            common,
            loaded: Mutex::default(),
            weight: AtomicUsize::new(0),
            levels: Mutex::default(),
        }))
    }

    /// What the index says of a file.
    fn look(&self, name: &[u8], stat: &libc::stat, now: Instant) -> Option<Said> {
        let mut loaded = lock(&self.loaded);
        if loaded.checked.is_none_or(|checked| now.saturating_duration_since(checked) >= FRESH) {
            self.refresh(&mut loaded);
            loaded.checked = Some(now);
        }
        let written = loaded.seen.map_or(Time::new(0, 0), |seen| Time::new(seen.modified.0, seen.modified.1));
        Some(loaded.index.as_ref()?.look(name, stat, written))
    }

    /// Reads the index if it is another than before.
    fn refresh(&self, loaded: &mut Loaded) {
        let seen =
            file::fstatat(self.own.as_raw_fd(), c"index", libc::AT_SYMLINK_NOFOLLOW).map(|stat| Stamp::of(&stat));
        if loaded.checked.is_some() && loaded.seen == seen.ok() {
            return;
        }
        (loaded.seen, loaded.index) = match self.read() {
            Ok((stamp, index)) => (stamp, Some(index)),
            Err(Untellable) => (seen.ok(), None),
        };
        self.weight.store(loaded.index.as_ref().map_or(0, Index::weight), Ordering::Relaxed);
    }

    fn read(&self) -> Result<(Option<Stamp>, Index), Untellable> {
        let (bytes, stat) = match read(&self.own, c"index", LARGEST_INDEX) {
            // Nothing was ever added.
            Err(Errno::ENOENT) => return Ok((None, Index::default())),
            read => read?,
        };
        let settings = Settings::read(self.common.as_ref().unwrap_or(&self.own))?;
        let index = Index::parse(&bytes, settings.hash).ok_or(Untellable)?;
        Ok((Some(Stamp::of(&stat)), index))
    }
}

/// What git was told to leave out. The person's own file of such rules is not read: it lies outside of the work tree, and
/// what it names counts as untracked.
impl Repository {
    /// Whether a file that is not in the index is to be left out. No, if that cannot be told.
    fn ignores(&self, directory: BorrowedFd<'_>, name: &[u8], now: Instant) -> bool {
        let place = Path::new(OsStr::from_bytes(name)).parent().unwrap_or(Path::new(""));
        if place.components().count() > LEVELS {
            return false;
        }
        let mut effort = Effort(EFFORT);
        let level = self.level(directory, place, "./", &mut effort, now);
        level.whole || level.says(name, false, &mut effort)
    }

    /// The rules for what lies in `place`, which is reached from `directory` by `up`.
    fn level(
        &self,
        directory: BorrowedFd<'_>,
        place: &Path,
        up: &str,
        effort: &mut Effort,
        now: Instant,
    ) -> Arc<Level> {
        if let Some(level) = lock(&self.levels).known.get(place)
            && now.saturating_duration_since(level.read) < KEPT
        {
            return Arc::clone(level);
        }
        let name = place.as_os_str().as_bytes();
        let above = match place.parent() {
            Some(parent) => self.level(directory, parent, &format!("{up}../"), effort, now),
            None => Arc::new(self.outermost(now)),
        };
        let whole = above.whole || !name.is_empty() && above.says(name, true, effort);
        let base = if name.is_empty() { 0 } else { name.len() + 1 };
        let text =
            c_string(format!("{up}.gitignore")).and_then(|path| read_small(&directory, &path)).unwrap_or_default();
        let rules = ignored::rules(&text);
        let level = Arc::new(Level { above: Some(above), base, rules, whole, read: now });
        lock(&self.levels).remember(place, &level, text.len());
        level
    }

    /// The rules of the repository itself, which count least.
    fn outermost(&self, now: Instant) -> Level {
        let text = read_small(self.common.as_ref().unwrap_or(&self.own), c"info/exclude");
        let rules = ignored::rules(&text.unwrap_or_default());
        Level { above: None, base: 0, rules, whole: false, read: now }
    }
}

impl Levels {
    fn remember(&mut self, place: &Path, level: &Arc<Level>, length: usize) {
        self.length += length;
        if self.known.len() >= DIRECTORIES || self.length > RULES {
            (self.known, self.length) = (HashMap::new(), length);
        }
        self.known.insert(place.to_path_buf(), Arc::clone(level));
    }
}

impl Level {
    /// Whether the nearest rules that say anything of a path below the root leave it out.
    fn says(&self, path: &[u8], is_directory: bool, effort: &mut Effort) -> bool {
        let levels = std::iter::successors(Some(self), |level| level.above.as_deref());
        let mut said = levels.map(|level| {
            let below = path.get(level.base..).unwrap_or_default();
            ignored::say(&level.rules, below, is_directory, effort)
        });
        said.find_map(|said| said).unwrap_or(false)
    }
}

impl Stamp {
    fn of(stat: &libc::stat) -> Self {
        Self {
            inode: stat.st_ino,
            size: stat.st_size,
            modified: (stat.st_mtime, stat.st_mtime_nsec),
            changed: (stat.st_ctime, stat.st_ctime_nsec),
        }
    }
}

impl From<Errno> for Untellable {
    fn from(_: Errno) -> Self {
        Self
    }
}

/// The little of a repository's configuration that says how to read the rest: git-config(1).
struct Settings {
    hash: Hash,
    bare: bool,
    work_tree: Option<Vec<u8>>,
}

impl Settings {
    fn read(directory: &OwnedFd) -> Result<Self, Untellable> {
        match read_small(directory, c"config") {
            Ok(text) => Self::parse(&text),
            Err(Errno::ENOENT) => Self::parse(b""),
            Err(errno) => Err(errno.into()),
        }
    }

    fn parse(text: &[u8]) -> Result<Self, Untellable> {
        let mut settings = Self { hash: Hash::Sha1, bare: false, work_tree: None };
        let mut section = Vec::new();
        for line in text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii) {
            let mut rest = line;
            if let Some(header) = line.strip_prefix(b"[") {
                let end = header.iter().position(|byte| *byte == b']').ok_or(Untellable)?;
                section = header[..end].trim_ascii().to_ascii_lowercase();
                rest = header[end + 1..].trim_ascii();
            }
            let (key, value) = match rest.iter().position(|byte| *byte == b'=') {
                Some(at) => (rest[..at].trim_ascii(), rest[at + 1..].trim_ascii()),
                None => (rest, &b"true"[..]),
            };
            match (&section[..], &key.to_ascii_lowercase()[..]) {
                (b"extensions", b"objectformat") => settings.hash = hash(value)?,
                (b"core", b"bare") => settings.bare = !matches!(value, b"false" | b"no" | b"off" | b"0"),
                (b"core", b"worktree") => settings.work_tree = Some(value.to_vec()),
                _ => {}
            }
        }
        Ok(settings)
    }
}

fn hash(name: &[u8]) -> Result<Hash, Untellable> {
    match name {
        b"sha1" => Ok(Hash::Sha1),
        b"sha256" => Ok(Hash::Sha256),
        _ => Err(Untellable),
    }
}

/// The git directory that a `.git` file leads to, from the directory that holds it.
fn pointed_to(directory: BorrowedFd<'_>, up: &str) -> Result<OwnedFd, Untellable> {
    let text = read_small(&directory, &c_string(format!("{up}.git"))?)?;
    let place = text.strip_prefix(b"gitdir: ").ok_or(Untellable)?.trim_ascii_end();
    let absolute = place.first() == Some(&b'/');
    let place = if absolute { place.to_vec() } else { [up.as_bytes(), place].concat() };
    Ok(open_path(&directory, &c_string(place)?, libc::O_DIRECTORY)?)
}

/// Opens a place, not what it holds.
fn open_path(directory: &impl AsRawFd, path: &CStr, flags: i32) -> Result<OwnedFd, Errno> {
    let how = OpenHow { flags: (libc::O_PATH | flags) as u64, mode: 0, resolve: libc::RESOLVE_NO_MAGICLINKS };
    file::openat2(directory.as_raw_fd(), path, how)
}

fn read_small(directory: &impl AsRawFd, name: &CStr) -> Result<Vec<u8>, Errno> {
    read(directory, name, SMALL).map(|(bytes, _)| bytes)
}

/// Reads a regular file of at most `most` bytes whole. A pipe or a device under its name is not waited for.
fn read(directory: &impl AsRawFd, name: &CStr, most: u64) -> Result<(Vec<u8>, libc::stat), Errno> {
    let flags = libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let how = OpenHow { flags: flags as u64, mode: 0, resolve: 0 };
    let opened = file::openat2_unnoticed(directory.as_raw_fd(), name, how)?;
    let stat = file::fstatat(opened.as_raw_fd(), c"", libc::AT_EMPTY_PATH)?;
    let size = stat.st_size as u64;
    if stat.st_mode & libc::S_IFMT != libc::S_IFREG {
        return Err(Errno::EINVAL);
    }
    if size > most {
        return Err(Errno::EFBIG);
    }
    let mut bytes = Vec::with_capacity(size as usize);
    let failed = |error: std::io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO));
    File::from(opened).take(size).read_to_end(&mut bytes).map_err(failed)?;
    Ok((bytes, stat))
}

fn identity(stat: &libc::stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

fn c_string(text: impl Into<Vec<u8>>) -> Result<CString, Errno> {
    CString::new(text).map_err(|_| Errno::EINVAL)
}
