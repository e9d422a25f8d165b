//! From a path in the caller's memory to a directory that is held open and one name in it.
//!
//! Runs in a worker, which sees the box's view. The kernel walks the directories; what it cannot walk for somebody else
//! (`/proc/self`, descriptors, other magic links) is walked step by step. The decision is made on the directory that was
//! opened and the name in it, and the call is carried out on exactly these, so nothing can be swapped in between.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use nix::errno::Errno;

use super::lineage::{Lineage, Task};
use super::target::{NO_RIGHT, Target, flags_in};
use super::view::View;
use crate::event::BoxPath;
use crate::sys::file::{self, OpenHow};

/// The kernel's own limit on links in one path: path_resolution(7).
pub const MOST_LINKS: usize = 40;

/// Who asks for a path.
#[derive(Clone, Copy)]
pub struct Caller<'a> {
    /// The task that waits.
    pub target: Target,
    /// Who it is.
    pub task: &'a Task,
    /// What is known of tasks.
    pub lineage: &'a Lineage,
    /// The box's own view, if it has one.
    pub view: Option<&'a View>,
    /// When its call was received.
    pub received: Instant,
}

impl Caller<'_> {
    /// Opens the directory that a path starts from: a descriptor of the task's, or its working directory.
    pub fn base(&self, dir: i32) -> std::result::Result<Arc<OwnedFd>, Errno> {
        match dir {
            libc::AT_FDCWD => self.lineage.working_directory(self.target, self.received),
            number => self.target.descriptor(number).map(Arc::new),
        }
    }
}

/// Whether a symbolic link as the last component is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Last {
    /// It is.
    Followed,
    /// The link itself is meant.
    Itself,
}

/// A name in a directory that is held open.
#[derive(Debug)]
pub struct Resolved {
    /// What the name stands for, and how to reach it.
    pub spot: Spot,
    /// The real path: what rules are asked about.
    pub path: BoxPath,
    /// What was there when it was looked at; `None` if nothing.
    pub stat: Option<libc::stat>,
}

/// How to reach what was resolved.
#[derive(Debug)]
pub enum Spot {
    /// By one name in a directory.
    Name {
        /// The directory.
        parent: Arc<OwnedFd>,
        /// The name, with its trailing slash if it was written with one.
        name: CString,
    },
    /// As an object that has no name to act on, or whose name is not the point: what a descriptor stands for, a directory
    /// named as itself.
    Object {
        /// An `O_PATH` descriptor of it.
        object: Arc<OwnedFd>,
        /// Where it stands.
        standing: Standing,
    },
}

/// Where an object stands that was reached without its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Its path leads to it.
    Named,
    /// It has no name: a pipe, a socket, a deleted file.
    Nameless,
    /// It lies outside the view: a file that was handed in as a standard stream, opened with these flags.
    HandedIn(i32),
}

/// A path that leads nowhere.
#[derive(Debug)]
pub struct Unresolved {
    /// What the kernel would say.
    pub errno: Errno,
    /// Where it would have led: the deepest directory that exists, and what was to come.
    pub path: Option<BoxPath>,
}

impl From<Errno> for Unresolved {
    fn from(errno: Errno) -> Self {
        Self { errno, path: None }
    }
}

type Result<T> = std::result::Result<T, Unresolved>;

impl Resolved {
    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.is(libc::S_IFDIR)
    }

    /// Whether it is of this type.
    pub fn is(&self, kind: libc::mode_t) -> bool {
        self.stat.is_some_and(|stat| stat.st_mode & libc::S_IFMT == kind)
    }

    /// Whether it has no name that a rule could be about.
    pub fn is_nameless(&self) -> bool {
        matches!(self.spot, Spot::Object { standing: Standing::Nameless, .. })
    }

    /// The flags of the descriptor, if it is a file that was handed in as a standard stream.
    pub fn handed_in(&self) -> Option<i32> {
        match self.spot {
            Spot::Object { standing: Standing::HandedIn(flags), .. } => Some(flags),
            _ => None,
        }
    }

    /// Opens the object without any right but to act on it by descriptor. A name that has become a link since gives
    /// `ELOOP`.
    pub fn object(&self) -> std::result::Result<Arc<OwnedFd>, Errno> {
        match &self.spot {
            Spot::Object { object, .. } => Ok(Arc::clone(object)),
            Spot::Name { parent, name } if self.is(libc::S_IFLNK) => {
                file::openat(parent.as_raw_fd(), name, libc::O_PATH | libc::O_NOFOLLOW, 0).map(Arc::new)
            }
            Spot::Name { parent, name } => {
                let how = OpenHow { flags: libc::O_PATH as u64, mode: 0, resolve: libc::RESOLVE_NO_SYMLINKS };
                file::openat2(parent.as_raw_fd(), name, how).map(Arc::new)
            }
        }
    }
}

/// Resolves `path` as `caller` would, from its directory `dir`.
pub fn resolve(caller: &Caller<'_>, dir: i32, path: &CStr, last: Last) -> Result<Resolved> {
    let bytes = path.to_bytes();
    if bytes.is_empty() {
        return Err(Errno::ENOENT.into());
    }
    let base = if bytes[0] == b'/' { None } else { Some(caller.base(dir)?) };
    Walk { caller, links: 0 }.resolve(base, bytes.to_vec(), last)
}

/// What the caller's descriptor `number` stands for (`AT_EMPTY_PATH`, or a call by descriptor).
pub fn descriptor(caller: &Caller<'_>, number: i32) -> Result<Resolved> {
    let target = caller.target;
    let found = if number == libc::AT_FDCWD { target.working_directory() } else { target.descriptor(number) };
    object(caller.view, found?, || target.descriptor_flags(number))
}

/// The same for a call that acts on an open file: `EBADF` for a descriptor without any right to it (`O_PATH`).
pub fn opened_descriptor(caller: &Caller<'_>, number: i32) -> Result<Resolved> {
    let target = caller.target;
    let found = target.descriptor(number)?;
    let flags = target.descriptor_flags(number);
    if flags & libc::O_PATH != 0 {
        return Err(Errno::EBADF.into());
    }
    object(caller.view, found, || flags)
}

/// A resolved object, from an `O_PATH` descriptor of it. `flags` tells those of the descriptor it was reached through.
pub fn object(view: Option<&View>, object: impl Into<Arc<OwnedFd>>, flags: impl FnOnce() -> i32) -> Result<Resolved> {
    let object = object.into();
    let stat = file::fstatat(object.as_raw_fd(), c"", libc::AT_EMPTY_PATH)?;
    let path = real_path(&object)?;
    let standing = if stat.st_nlink == 0 || !path.is_absolute() {
        Standing::Nameless
    } else if leads_to(view, &path, &object, &stat) {
        Standing::Named
    } else {
        Standing::HandedIn(flags())
    };
    // What is nowhere is named for the record only.
    let shown = if path.is_absolute() { path } else { Path::new("/").join(path) };
    let path = BoxPath::new(shown).ok_or(Errno::ENOENT)?;
    Ok(Resolved { spot: Spot::Object { object, standing }, path, stat: Some(stat) })
}

/// Whether a path means this object in the view. A file from outside shows the path it has there, which may mean
/// another file inside, or one that rules grant.
fn leads_to(view: Option<&View>, path: &Path, object: &OwnedFd, stat: &libc::stat) -> bool {
    let Ok(c_path) = CString::new(path.as_os_str().as_bytes()) else { return false };
    match file::fstatat(libc::AT_FDCWD, &c_path, libc::AT_SYMLINK_NOFOLLOW) {
        Ok(found) => (found.st_dev, found.st_ino) == (stat.st_dev, stat.st_ino),
        // Who holds a descriptor needs no way to the file. Where a directory above it cannot be entered, the path is still
        // the object's if it was reached through one of the view's mounts, and has not lost this name to another one.
        Err(Errno::EACCES) => {
            view.is_some_and(|view| view.holds(object)) && !c_path.to_bytes().ends_with(b" (deleted)")
        }
        Err(_) => false,
    }
}

/// A name in a directory that is held open already; a symbolic link there is a loop.
pub fn named(target: Target, parent: Arc<OwnedFd>, name: CString) -> Result<Resolved> {
    let stat = match file::fstatat(parent.as_raw_fd(), &name, libc::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) if stat.st_mode & libc::S_IFMT == libc::S_IFLNK => return Err(Errno::ELOOP.into()),
        Ok(stat) => Some(stat),
        Err(Errno::ENOENT) => None,
        Err(errno) => return Err(errno.into()),
    };
    let path = BoxPath::new(directory_path(target.proc, &parent)?.join(OsStr::from_bytes(name.to_bytes())))
        .ok_or(Errno::ENOENT)?;
    Ok(Resolved { spot: Spot::Name { parent, name }, path, stat })
}

/// The real path of an open directory, in the worker's view; `ENOENT` if it was removed or cannot be reached from there.
///
/// By way of the working directory, which each worker has for itself: asking `/proc` costs four times as much.
fn directory_path(proc: RawFd, directory: &OwnedFd) -> std::result::Result<PathBuf, Errno> {
    let entered = file::fchdir(directory.as_raw_fd());
    let path = entered.and_then(|()| nix::unistd::getcwd());
    file::fchdir(proc)?;
    match path {
        Ok(path) if path.is_absolute() => Ok(path),
        Ok(_) => Err(Errno::ENOENT),
        // A directory may be listed, and so opened, by somebody who may not enter it.
        Err(Errno::EACCES) => standing_path(directory),
        // Among others a base that is no directory: the caller named a name below a file.
        Err(errno) => Err(errno),
    }
}

/// The path where a directory stands, though its own name may be gone, as that of what covers a denied directory is:
/// rules speak of what is covered.
fn standing_path(directory: &OwnedFd) -> std::result::Result<PathBuf, Errno> {
    let path = real_path(directory)?;
    let stat = file::fstatat(directory.as_raw_fd(), c"", libc::AT_EMPTY_PATH)?;
    let named = path.as_os_str().as_bytes().strip_suffix(b" (deleted)").filter(|_| stat.st_nlink == 0);
    Ok(named.map(|name| PathBuf::from(OsStr::from_bytes(name))).unwrap_or(path))
}

/// The path of an open descriptor, in the worker's view.
pub fn real_path(fd: &OwnedFd) -> std::result::Result<PathBuf, Errno> {
    let mut buffer = [0u8; 4096 + 16];
    let mut name = [0u8; 24];
    let length = file::readlinkat(libc::AT_FDCWD, own_fd(fd.as_raw_fd(), &mut name), &mut buffer)?;
    if length >= buffer.len() {
        return Err(Errno::ENAMETOOLONG);
    }
    Ok(PathBuf::from(OsStr::from_bytes(&buffer[..length])))
}

/// `self/fd/N` for a worker's own descriptor, relative to its working directory, the host's `/proc`.
pub fn own_fd(number: i32, buffer: &mut [u8; 24]) -> &CStr {
    use std::io::Write;
    buffer.fill(0);
    let fits = write!(&mut buffer[..], "self/fd/{number}");
    debug_assert!(fits.is_ok());
    CStr::from_bytes_until_nul(buffer).unwrap_or_default()
}

struct Walk<'a> {
    caller: &'a Caller<'a>,
    links: usize,
}

impl Walk<'_> {
    fn resolve(&mut self, mut base: Option<Arc<OwnedFd>>, mut path: Vec<u8>, last: Last) -> Result<Resolved> {
        loop {
            let (dir, name) = split(&path);
            let Some(name) = name else {
                return self.directory_itself(base, &path);
            };
            let slash = path.ends_with(b"/");
            // A name that must be a directory is one that is entered, links and all; but calls that make or remove
            // names look at the name itself even with a slash behind it.
            if slash && last == Last::Followed {
                return self.directory_itself(base, &path);
            }
            let (parent, path_of_parent) = self.parent(base, dir, name)?;
            let mut c_name = name.to_vec();
            let stat = match file::fstatat(parent.as_raw_fd(), &c_string(&c_name)?, libc::AT_SYMLINK_NOFOLLOW) {
                Ok(stat) => Some(stat),
                Err(Errno::ENOENT) => None,
                Err(Errno::EACCES) if last == Last::Followed && self.is_own_table(&path_of_parent) => {
                    let flags = || number(name).map_or(NO_RIGHT, |number| self.caller.target.descriptor_flags(number));
                    return object(self.caller.view, self.hidden_descriptor(name)?, flags);
                }
                Err(errno) => {
                    let path = BoxPath::new(path_of_parent.join(OsStr::from_bytes(name)));
                    return Err(Unresolved { errno, path });
                }
            };
            let is_link = stat.is_some_and(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFLNK);
            if !is_link || last == Last::Itself {
                let full = BoxPath::new(path_of_parent.join(OsStr::from_bytes(name)));
                if slash {
                    c_name.push(b'/');
                }
                let spot = Spot::Name { parent, name: c_string(&c_name)? };
                return Ok(Resolved { spot, path: full.ok_or(Errno::ENOENT)?, stat });
            }
            self.count_link()?;
            if path_of_parent.starts_with("/proc") {
                match self.proc_link(&parent, &path_of_parent, name)? {
                    ProcLink::Object(found) => {
                        let name = OsStr::from_bytes(name);
                        let info = path_of_parent.with_file_name("fdinfo").join(name);
                        return object(self.caller.view, found, || {
                            flags_in(&std::fs::read_to_string(&info).unwrap_or_default()).unwrap_or(NO_RIGHT)
                        });
                    }
                    ProcLink::Text(text) => path = text,
                }
            } else {
                path = read_link(&parent, &c_string(name)?)?;
            }
            base = (path.first() != Some(&b'/')).then_some(parent);
        }
    }

    /// A directory that was named as itself (`/`, `.`, `x/..`, `x/`).
    fn directory_itself(&mut self, base: Option<Arc<OwnedFd>>, path: &[u8]) -> Result<Resolved> {
        let (directory, path) = match (self.directory(base.clone(), path), base) {
            // The base was removed: it is still there for who stands in it.
            (Err(Unresolved { errno: Errno::ENOENT, path: None }), Some(base)) if components(path).is_empty() => {
                return object(self.caller.view, base, || libc::O_RDONLY);
            }
            (found, _) => found?,
        };
        let stat = file::fstatat(directory.as_raw_fd(), c"", libc::AT_EMPTY_PATH)?;
        let path = BoxPath::new(path).ok_or(Errno::ENOENT)?;
        Ok(Resolved { spot: Spot::Object { object: directory, standing: Standing::Named }, path, stat: Some(stat) })
    }

    /// Opens the directory that holds the last name, and finds its real path.
    fn parent(&mut self, base: Option<Arc<OwnedFd>>, dir: &[u8], name: &[u8]) -> Result<(Arc<OwnedFd>, PathBuf)> {
        match (base, dir) {
            (Some(base), b"") => {
                let path = directory_path(self.caller.target.proc, &base)?;
                Ok((base, path))
            }
            (base, dir) => self.directory(base, dir).map_err(|missing| missing.below(name)),
        }
    }

    /// Opens a directory and finds its real path: by the kernel where it can, step by step where it cannot.
    fn directory(&mut self, base: Option<Arc<OwnedFd>>, path: &[u8]) -> Result<(Arc<OwnedFd>, PathBuf)> {
        let how =
            OpenHow { flags: (libc::O_PATH | libc::O_DIRECTORY) as u64, mode: 0, resolve: libc::RESOLVE_NO_MAGICLINKS };
        let from = base.as_ref().map_or(libc::AT_FDCWD, AsRawFd::as_raw_fd);
        match file::openat2(from, &c_string(path)?, how) {
            Ok(found) => {
                let real = directory_path(self.caller.target.proc, &found)?;
                // `/proc/self` would be the worker's own wherever the worker is visible: never trust it.
                if real.starts_with("/proc") { self.step_by_step(base, path) } else { Ok((Arc::new(found), real)) }
            }
            Err(Errno::ELOOP | Errno::ENOENT) => self.step_by_step(base, path),
            Err(errno) => {
                let so_far = base.as_ref().and_then(|base| real_path(base).ok()).unwrap_or_else(|| "/".into());
                Err(Unresolved { errno, path: lexical(&so_far, path) })
            }
        }
    }

    fn step_by_step(&mut self, base: Option<Arc<OwnedFd>>, path: &[u8]) -> Result<(Arc<OwnedFd>, PathBuf)> {
        let mut here = match base {
            Some(base) if path.first() != Some(&b'/') => base,
            _ => Arc::new(open_root()?),
        };
        let mut rest: Vec<Vec<u8>> = components(path);
        while let Some(name) = rest.pop() {
            let c_name = c_string(&name)?;
            let opened = file::openat(here.as_raw_fd(), &c_name, libc::O_PATH | libc::O_NOFOLLOW, 0);
            if opened.as_ref().is_err_and(|errno| *errno == Errno::EACCES) && self.is_own_table(&real_path(&here)?) {
                self.count_link()?;
                here = Arc::new(self.hidden_descriptor(&name)?);
                continue;
            }
            let missing = |errno| {
                let so_far = real_path(&here).unwrap_or_else(|_| "/".into());
                let tail: Vec<&[u8]> = std::iter::once(&name[..]).chain(rest.iter().rev().map(Vec::as_slice)).collect();
                Unresolved { errno, path: lexical(&so_far, &tail.join(&b'/')) }
            };
            let next = opened.map_err(missing)?;
            let stat = file::fstatat(next.as_raw_fd(), c"", libc::AT_EMPTY_PATH)?;
            if stat.st_mode & libc::S_IFMT != libc::S_IFLNK {
                here = Arc::new(next);
                continue;
            }
            self.count_link()?;
            let directory = real_path(&here)?;
            let text = if directory.starts_with("/proc") {
                match self.proc_link(&here, &directory, &name)? {
                    ProcLink::Object(found) => {
                        here = Arc::new(found);
                        continue;
                    }
                    ProcLink::Text(text) => text,
                }
            } else {
                read_link(&here, &c_name)?
            };
            if text.first() == Some(&b'/') {
                here = Arc::new(open_root()?);
            }
            rest.extend(components(&text));
        }
        let stat = file::fstatat(here.as_raw_fd(), c"", libc::AT_EMPTY_PATH)?;
        if stat.st_mode & libc::S_IFMT != libc::S_IFDIR {
            return Err(Errno::ENOTDIR.into());
        }
        let path = directory_path(self.caller.target.proc, &here)?;
        Ok((here, path))
    }

    /// Whether a directory lists the descriptors of the caller, which may look into it even if it is not dumpable and all
    /// that is the worker's is shut out.
    fn is_own_table(&self, directory: &Path) -> bool {
        let (process, thread) = (self.caller.task.subject.pid, self.caller.task.box_tid);
        let of_process = Path::new("/proc").join(process.to_string());
        directory == of_process.join("task").join(thread.to_string()).join("fd")
            || process == thread && directory == of_process.join("fd")
    }

    fn hidden_descriptor(&self, name: &[u8]) -> std::result::Result<OwnedFd, Errno> {
        match self.caller.target.descriptor(number(name).ok_or(Errno::ENOENT)?) {
            Err(Errno::EBADF) => Err(Errno::ENOENT),
            found => found,
        }
    }

    /// Follows a link in `/proc` as the caller would.
    fn proc_link(&self, parent: &OwnedFd, directory: &Path, name: &[u8]) -> Result<ProcLink> {
        let Ok(inside) = directory.strip_prefix("/proc") else { return Err(Errno::EACCES.into()) };
        let process = self.caller.task.subject.pid;
        let Some(Component::Normal(owner)) = inside.components().next() else {
            // At the top: the two that depend on who looks, and plain links.
            return Ok(ProcLink::Text(match name {
                b"self" => process.to_string().into_bytes(),
                b"thread-self" => format!("{process}/task/{}", self.caller.task.box_tid).into_bytes(),
                _ => read_link(parent, &c_string(name)?)?,
            }));
        };
        let owner: i32 = owner.to_str().and_then(|digits| digits.parse().ok()).ok_or(Errno::EACCES)?;
        self.magic_link(parent, owner, name).map(ProcLink::Object)
    }

    /// Opens what a magic link of process `owner` (numbered as in the box) stands for.
    ///
    /// A process may always follow its own; another's only if it could trace it. A worker could trace everybody, so for
    /// others that right is laid down, and init is nobody's to look into.
    fn magic_link(&self, parent: &OwnedFd, owner: i32, name: &[u8]) -> Result<OwnedFd> {
        let name = c_string(name)?;
        let open = || file::openat(parent.as_raw_fd(), &name, libc::O_PATH, 0);
        if owner == self.caller.task.subject.pid {
            return Ok(open()?);
        }
        if owner <= 1 {
            return Err(Errno::EACCES.into());
        }
        super::without_trace_right(open).map_err(Unresolved::from)
    }

    fn count_link(&mut self) -> Result<()> {
        self.links += 1;
        if self.links > MOST_LINKS { Err(Errno::ELOOP.into()) } else { Ok(()) }
    }
}

enum ProcLink {
    /// A magic link: the object itself.
    Object(OwnedFd),
    /// An ordinary link's text.
    Text(Vec<u8>),
}

impl Unresolved {
    /// The same failure for a name below the directory that was looked for.
    fn below(mut self, name: &[u8]) -> Self {
        self.path = self.path.and_then(|path| BoxPath::new(path.join(OsStr::from_bytes(name))));
        self
    }
}

/// The last component of a path as it is written, empty for the root.
pub fn last_component(path: &CStr) -> &[u8] {
    path.to_bytes().rsplit(|byte| *byte == b'/').find(|name| !name.is_empty()).unwrap_or_default()
}

/// Splits into the directory part and the last name; no name where the path ends in a directory itself.
fn split(path: &[u8]) -> (&[u8], Option<&[u8]>) {
    let end = path.iter().rposition(|byte| *byte != b'/').map_or(0, |at| at + 1);
    let trimmed = &path[..end];
    let start = trimmed.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
    match &trimmed[start..] {
        b"" | b"." | b".." => (path, None),
        name => (&trimmed[..start], Some(name)),
    }
}

/// The number that a name in a table of descriptors stands for: only as the kernel writes it.
fn number(name: &[u8]) -> Option<i32> {
    let number: i32 = std::str::from_utf8(name).ok()?.parse().ok()?;
    (number.to_string().as_bytes() == name).then_some(number)
}

/// The components of a path, last first, without `.` and empty ones.
fn components(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|byte| *byte == b'/').rev().filter(|c| !c.is_empty() && *c != b".").map(<[u8]>::to_vec).collect()
}

/// Where a path that cannot be walked would lead, by its text alone.
pub fn lexical(from: &Path, path: &[u8]) -> Option<BoxPath> {
    let mut full = if path.first() == Some(&b'/') { PathBuf::from("/") } else { from.to_path_buf() };
    for component in Path::new(OsStr::from_bytes(path)).components() {
        match component {
            Component::Normal(name) => full.push(name),
            Component::ParentDir => {
                full.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    BoxPath::new(full)
}

/// The text of a symbolic link.
pub fn read_link(parent: &OwnedFd, name: &CStr) -> Result<Vec<u8>> {
    let mut buffer = [0u8; 4096];
    let length = file::readlinkat(parent.as_raw_fd(), name, &mut buffer)?;
    if length == buffer.len() {
        return Err(Errno::ENAMETOOLONG.into());
    }
    if length == 0 {
        return Err(Errno::ENOENT.into());
    }
    Ok(buffer[..length].to_vec())
}

fn open_root() -> std::result::Result<OwnedFd, Errno> {
    file::openat(libc::AT_FDCWD, c"/", libc::O_PATH | libc::O_DIRECTORY, 0)
}

fn c_string(bytes: &[u8]) -> std::result::Result<CString, Errno> {
    CString::new(bytes).map_err(|_| Errno::EINVAL)
}

/// Keeps a lossless path for records: what was asked, byte for byte.
pub fn as_asked(path: &CStr) -> PathBuf {
    PathBuf::from(std::ffi::OsString::from_vec(path.to_bytes().to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_splits_into_directory_and_last_name() {
        assert_eq!(split(b"a"), (&b""[..], Some(&b"a"[..])));
        assert_eq!(split(b"/a"), (&b"/"[..], Some(&b"a"[..])));
        assert_eq!(split(b"/a/b//"), (&b"/a/"[..], Some(&b"b"[..])));
        assert_eq!(split(b"a/.."), (&b"a/.."[..], None));
        assert_eq!(split(b"/"), (&b"/"[..], None));
        assert_eq!(split(b"."), (&b"."[..], None));
    }

    #[test]
    fn a_path_that_leads_nowhere_is_named_by_its_text() {
        let path = lexical(Path::new("/home/u"), b"gone/../x/./y").unwrap();
        assert_eq!(path.as_path(), Path::new("/home/u/x/y"));
        assert_eq!(lexical(Path::new("/home/u"), b"/etc/../../passwd").unwrap().as_path(), Path::new("/passwd"));
    }
}
