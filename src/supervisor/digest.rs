//! Digests of the programs that a box could have written: a path does not tell what such a file holds.
//!
//! Runs in a worker, at the stop that follows an exec, when another worker has the lead. What a digest cannot be taken
//! of says so in its place: a record never just lacks one. That is a file which its owner may run and not read: a worker
//! reads what the caller could. To change its mode for a moment would show, and undo what another does to it meanwhile;
//! and of the program's own memory only part is the file.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::sys::statfs::{BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, fstatfs};
use sha2::{Digest, Sha256};

use super::lock;
use super::resolve::own_fd;
use crate::sys::file;

/// Larger files are not read: it would keep the program waiting for most of a second.
const MOST: u64 = 64 << 20;
/// How many digests are remembered.
const REMEMBERED: usize = 1024;
/// How often a file is read that changes meanwhile.
const TRIES: usize = 3;
/// A file that has rested for so long gets another time with its next change, however coarse the kernel's clock is.
const RESTED: Duration = Duration::from_secs(1);

/// The digests that were taken, by the file and all that changes with what it holds.
#[derive(Default)]
pub struct Digests {
    taken: Mutex<HashMap<State, String>>,
}

/// A file as it was at some time.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct State {
    file: (u64, u64),
    size: i64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl State {
    fn of(file: &OwnedFd) -> Result<(Self, libc::mode_t), Errno> {
        let stat = file::fstatat(file.as_raw_fd(), c"", libc::AT_EMPTY_PATH)?;
        let state = Self {
            file: (stat.st_dev, stat.st_ino),
            size: stat.st_size,
            modified: (stat.st_mtime, stat.st_mtime_nsec),
            changed: (stat.st_ctime, stat.st_ctime_nsec),
        };
        Ok((state, stat.st_mode))
    }

    /// Whether whatever is written from now on gives the file another state.
    fn has_rested(&self) -> bool {
        let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(self.changed.0.max(0) as u64 + 1);
        SystemTime::now().duration_since(changed).is_ok_and(|since| since > RESTED)
    }
}

impl Digests {
    /// The digest of a file that runs, or that it cannot be taken. The kernel lets nobody write to such a file
    /// (`deny_write_access`; the first releases of 6.11 and 6.12 did), so what is read is what runs.
    pub fn of_running(&self, program: &OwnedFd) -> String {
        let known = State::of(program).ok().filter(|_| tells_every_change(program)).map(|(state, _)| state);
        if let Some(digest) = known.and_then(|state| lock(&self.taken).get(&state).cloned()) {
            return digest;
        }
        // Asked before the file is read: what is written after that is told by its time.
        let lasting = known.filter(State::has_rested);
        let digest = told(take(program));
        if let Some(state) = lasting {
            let mut taken = lock(&self.taken);
            if taken.len() >= REMEMBERED {
                taken.clear();
            }
            taken.insert(state, digest.clone());
        }
        digest
    }
}

/// Whether the file system gives a file another time with each change, however it is made. On a tmpfs and in a memfd a
/// change through a mapping leaves no trace.
fn tells_every_change(file: &OwnedFd) -> bool {
    let kinds = [EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, BTRFS_SUPER_MAGIC];
    fstatfs(file).is_ok_and(|found| kinds.contains(&found.filesystem_type()))
}

/// The digest of a file as it is now, or that it cannot be taken. Somebody may write to it before it is used.
pub fn of_now(object: &OwnedFd) -> String {
    told(at_rest(object))
}

fn told(taken: Result<String, Untaken>) -> String {
    taken.unwrap_or_else(|why| format!("none: {why}"))
}

/// The digest of what a file held at one time, and not of half of this and half of that.
fn at_rest(object: &OwnedFd) -> Result<String, Untaken> {
    for _ in 0..TRIES {
        let before = State::of(object)?;
        let digest = take(object)?;
        if State::of(object)? == before {
            return Ok(digest);
        }
    }
    Err(Untaken::Changed)
}

/// Why there is no digest.
#[derive(Debug, thiserror::Error)]
enum Untaken {
    #[error("larger than {} MiB", MOST >> 20)]
    TooLarge,
    #[error("no regular file")]
    NoFile,
    #[error("changed while it was read")]
    Changed,
    #[error("cannot be read: {0}")]
    Unreadable(Errno),
}

impl From<Errno> for Untaken {
    fn from(errno: Errno) -> Self {
        Self::Unreadable(errno)
    }
}

impl From<io::Error> for Untaken {
    fn from(error: io::Error) -> Self {
        Self::Unreadable(Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))
    }
}

fn take(object: &OwnedFd) -> Result<String, Untaken> {
    let (state, mode) = State::of(object)?;
    if mode & libc::S_IFMT != libc::S_IFREG {
        return Err(Untaken::NoFile);
    }
    if state.size as u64 > MOST {
        return Err(Untaken::TooLarge);
    }
    let mut buffer = [0; 24];
    let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY;
    let opened = file::openat(libc::AT_FDCWD, own_fd(object.as_raw_fd(), &mut buffer), flags, 0)?;
    read(File::from(opened))
}

/// Reads no further than [`MOST`], however the file grows.
fn read(mut file: File) -> Result<String, Untaken> {
    let (mut hash, mut buffer, mut length) = (Sha256::new(), vec![0; 128 << 10], 0);
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                length += count as u64;
                hash.update(&buffer[..count]);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
        if length > MOST {
            return Err(Untaken::TooLarge);
        }
    }
    let hex: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("sha256:{hex}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::OpenOptionsExt;
    use std::path::Path;

    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const ABC: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn object(path: &Path) -> OwnedFd {
        std::fs::OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path).unwrap().into()
    }

    /// As a worker does.
    fn in_proc<T>(act: impl FnOnce() -> T + Send + 'static) -> T
    where
        T: Send + 'static,
    {
        let inside = move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS).unwrap();
            nix::unistd::chdir("/proc").unwrap();
            act()
        };
        std::thread::spawn(inside).join().unwrap()
    }

    #[test]
    fn a_digest_is_of_the_file_or_says_why_there_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("empty"), "").unwrap();
        std::fs::write(at("abc"), "abc").unwrap();
        std::fs::File::create(at("large")).unwrap().set_len(MOST + 1).unwrap();
        let paths = ["empty", "abc", "large", ""].map(at);
        let found = in_proc(move || paths.map(|path| of_now(&object(&path))));
        assert_eq!(found, [EMPTY, ABC, "none: larger than 64 MiB", "none: no regular file"]);
    }

    #[test]
    fn only_a_file_whose_time_tells_each_change_is_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let fresh = dir.path().join("program");
        std::fs::write(&fresh, "").unwrap();
        let (found, remembered, lasting) = in_proc(move || {
            let digests = Digests::default();
            let first = digests.of_running(&object(&fresh));
            std::fs::write(&fresh, "abc").unwrap();
            let found = [first, digests.of_running(&object(&fresh))];
            let none = lock(&digests.taken).len();
            let shell = object(&std::fs::canonicalize("/bin/sh").unwrap());
            assert_eq!(digests.of_running(&shell), digests.of_running(&shell));
            let one = lock(&digests.taken).len();
            (found, (none, one), tells_every_change(&shell))
        });
        assert_eq!((found, remembered), ([EMPTY.into(), ABC.into()], (0, usize::from(lasting))));
    }

    #[test]
    fn only_what_has_rested_is_remembered() {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() as i64;
        let state = |changed| State { file: (1, 2), size: 3, modified: (0, 0), changed: (changed, 0) };
        assert!(state(now - 10).has_rested());
        assert!(!state(now).has_rested() && !state(now + 1000).has_rested());
    }
}
