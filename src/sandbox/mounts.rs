//! Builds the view: carries out the plan's mount steps, then makes the result the root.
//!
//! Runs in init, in the box's own mount namespace, with the host's root still attached. The view grows below a staging
//! directory; every target is opened from there by descriptor, without following symbolic links, because trees that an
//! earlier run could write to may hold links that lead out.

use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::fs::{File, Permissions};
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::socket::sockopt::PassCred;
use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, UnixAddr};
use nix::unistd::pivot_root;

use crate::plan::mounts::{PROGRAM, SOCKET, Step, View};
use crate::sys::file::{self, OpenHow};
use crate::sys::mount::{Attributes, clone_tree, place, set_attributes};

/// A step of building the view failed.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// A call failed.
    #[error("cannot {doing} {}", path.display())]
    Step {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why not.
        source: Errno,
    },
    /// The place for a mount is missing on a file system that is not the box's own: making it would leave a trace.
    #[error("cannot show {} there: it does not exist outside; create it first", path.display())]
    NoPlace {
        /// Where.
        path: PathBuf,
    },
    /// No directory to build the view on.
    #[error("no directory to build the view on: one of {STAGING:?} must exist and hold nothing the box needs")]
    NoStaging,
}

type Result<T> = std::result::Result<T, MountError>;

/// Directories that exist nearly everywhere and are rarely granted.
const STAGING: [&str; 7] = ["/mnt", "/media", "/srv", "/boot", "/dev/pts", "/run", "/tmp"];

/// A directory of the box's own that stands before any text is shown: what is mounted on it for a moment hides nothing yet.
const ASIDE: &str = "/dev/shm";

const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Builds `view` and makes it the root of all in this mount namespace; the host's root is gone afterwards. `shown` is called
/// in between: when the view is the root, and the host's is still to be let go of. Returns the socket that listens in the
/// view, if the plan has one.
pub fn build(view: &View, shown: impl FnOnce()) -> Result<Option<OwnedFd>> {
    let mut builder = Builder::start(view)?;
    for step in &view.steps {
        builder.carry_out(step)?;
    }
    let listener = builder.listener.take();
    builder.finish(shown)?;
    Ok(listener)
}

struct Builder {
    /// The view's root.
    root: OwnedFd,
    /// Device numbers of the file systems that belong to this box alone.
    own: HashSet<u64>,
    /// Directories of the view's own file system that were made here and are not covered.
    plain: HashSet<PathBuf>,
    /// What covers a file, and what covers a directory: the first of each that was placed.
    covers: [Option<OwnedFd>; 2],
    /// The socket that listens in the view.
    listener: Option<OwnedFd>,
}

impl Builder {
    fn start(view: &View) -> Result<Self> {
        let staging = staging(view)?;
        tmpfs(&staging, "mode=0755").map_err(step("mount a file system on", &staging))?;
        let root = open_dir(libc::AT_FDCWD, &c_path(&staging)).map_err(step("open", &staging))?;
        let plain = HashSet::from([PathBuf::from("/")]);
        let mut builder = Self { own: HashSet::new(), plain, root, covers: [None, None], listener: None };
        builder.adopt(&builder.root.try_clone().map_err(|_| MountError::NoStaging)?)?;
        Ok(builder)
    }

    fn carry_out(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::Bind { from, at, writable } if at == Path::new("/") => self.bind_root(&from.0, *writable),
            Step::Bind { from, at, writable } => self.bind(&from.0, at, *writable),
            Step::Private { at, mode } => self.private(at, *mode),
            Step::Link { at, text } => self.link(at, text),
            Step::Devices => self.devices(),
            Step::Processes => self.processes(),
            Step::Text { at, text } => self.text(at, text),
            Step::Annotate { at, program } => self.annotate(at, program.as_ref().map(|program| program.0.as_path())),
            Step::ReadOnly { at } => self.make_read_only(at),
            Step::Mask { at } => self.mask(at),
        }
    }

    /// The whole host tree as the root of the view; later steps lie on top.
    fn bind_root(&mut self, from: &Path, writable: bool) -> Result<()> {
        let tree = self.clone_from(from, writable)?;
        place(tree.as_fd(), self.root.as_fd()).map_err(step("show", from))?;
        self.root = tree;
        self.plain.clear();
        Ok(())
    }

    fn bind(&mut self, from: &Path, at: &Path, writable: bool) -> Result<()> {
        let tree = self.clone_from(from, writable)?;
        let stat = file::fstatat(tree.as_raw_fd(), c"", libc::AT_EMPTY_PATH).map_err(step("look at", from))?;
        let target = if is_directory(&stat) { self.directory(at, 0o755)? } else { self.file(at)? };
        self.place_at(&tree, &target, at)
    }

    fn clone_from(&self, from: &Path, writable: bool) -> Result<OwnedFd> {
        let tree = clone_tree(libc::AT_FDCWD, &c_path(from), true).map_err(step("find", from))?;
        let lock = if writable { 0 } else { Attributes::READ_ONLY };
        set_attributes(tree.as_fd(), Attributes(Attributes::NO_SUID | Attributes::NO_DEV | lock))
            .map_err(step("set mount attributes of", from))?;
        Ok(tree)
    }

    /// A directory of the box's own file system will do where there is one; elsewhere a new file system is mounted.
    fn private(&mut self, at: &Path, mode: u32) -> Result<()> {
        let above = at.parent().unwrap_or(at);
        if self.plain.contains(above) || self.is_own(&self.nearest(above)?)? {
            let directory = self.directory(at, 0o755)?;
            return chmod(&directory, mode).map_err(step("set the mode of", at));
        }
        let directory = self.directory(at, mode)?;
        mount_at(&directory, "tmpfs", &format!("mode={mode:o}")).map_err(step("mount a file system on", at))?;
        let mounted = self.open(at).map_err(step("open", at))?;
        self.adopt(&mounted)
    }

    /// A link that a bound tree already shows is left as it is.
    fn link(&mut self, at: &Path, text: &Path) -> Result<()> {
        let (Some(above), Some(name)) = (at.parent(), at.file_name()) else { return Ok(()) };
        if !self.plain.contains(above) && !self.is_own(&self.nearest(above)?)? {
            return Ok(());
        }
        let directory = self.directory(above, 0o755)?;
        match file::symlinkat(&c_path(text), directory.as_raw_fd(), &c_path(Path::new(name))) {
            Err(Errno::EEXIST) => Ok(()),
            done => done.map_err(step("link", at)),
        }
    }

    fn devices(&mut self) -> Result<()> {
        let dev = Path::new("/dev");
        self.private(dev, 0o755)?;
        let directory = self.directory(dev, 0o755)?;
        for name in DEVICES {
            let path = dev.join(name);
            let node = clone_tree(libc::AT_FDCWD, &c_path(&path), false).map_err(step("find", &path))?;
            // Read-only is for the node, which is the host's: mode, owner, times. What is written to a device is not of it.
            let attributes = Attributes(Attributes::NO_SUID | Attributes::READ_ONLY);
            set_attributes(node.as_fd(), attributes).map_err(step("show", &path))?;
            let target = self.file(&path)?;
            self.place_at(&node, &target, &path)?;
        }
        for (name, text) in [
            (c"fd", c"/proc/self/fd"),
            (c"stdin", c"/proc/self/fd/0"),
            (c"stdout", c"/proc/self/fd/1"),
            (c"stderr", c"/proc/self/fd/2"),
            (c"ptmx", c"pts/ptmx"),
        ] {
            file::symlinkat(text, directory.as_raw_fd(), name).map_err(step("link devices in", dev))?;
        }
        self.private(&dev.join("shm"), 0o1777)?;
        let pts = self.directory(&dev.join("pts"), 0o755)?;
        mount_at(&pts, "devpts", "newinstance,ptmxmode=0666,mode=620").map_err(step("mount terminals on", dev))
    }

    /// A new proc mount needs one that is fully visible beside it, so this comes before the host's root goes.
    ///
    /// It is the mount that is read-only, not the file system: the supervisor writes by way of the host's.
    fn processes(&mut self) -> Result<()> {
        let proc = Path::new("/proc");
        let directory = self.directory(proc, 0o555)?;
        mount_at(&directory, "proc", "").map_err(step("mount processes on", proc))?;
        let mounted = self.open(proc).map_err(step("open", proc))?;
        set_attributes(mounted.as_fd(), Attributes(Attributes::READ_ONLY)).map_err(step("make read-only", proc))
    }

    /// Where there is a link, it is the link that is covered, not what it leads to: the file has the name that rules and
    /// records speak of.
    ///
    /// The text stands in a file of a file system that is gone from the view when this returns: a name of the file that
    /// was removed would make the kernel call it deleted.
    fn text(&mut self, at: &Path, text: &str) -> Result<()> {
        let target = self.file(at)?;
        let aside = Path::new(ASIDE);
        let directory = self.directory(aside, 0o755)?;
        mount_at(&directory, "tmpfs", "mode=755").map_err(step("mount a file system on", aside))?;
        let mounted = self.open(aside).map_err(step("open", aside))?;
        let file = write_new(&mounted, c"text", text).map_err(step("write", at))?;
        let attributes = Attributes::READ_ONLY | Attributes::NO_SUID | Attributes::NO_DEV;
        set_attributes(file.as_fd(), Attributes(attributes)).map_err(step("make read-only", at))?;
        self.place_at(&file, &target, at)?;
        file::fchdir(mounted.as_raw_fd()).and_then(|()| umount2(".", MntFlags::MNT_DETACH)).map_err(step("tidy", aside))
    }

    /// The socket is made here, where its directory is still to be made read-only: from then on nothing can take its place.
    ///
    /// An executable that this user may not look up, or that was replaced a moment ago, is not shown; the socket serves
    /// without it. It is placed last, so that its mount need not be copied along with the directory.
    fn annotate(&mut self, at: &Path, program: Option<&Path>) -> Result<()> {
        let directory = self.directory(at, 0o755)?;
        self.listener = Some(listen(&directory).map_err(step("listen in", at))?);
        let tree = program.and_then(|program| self.clone_from(program, false).ok());
        let shown = at.join(PROGRAM);
        if tree.is_some() {
            self.file(&shown)?;
        }
        self.make_read_only(at)?;
        match (tree, self.existing(&shown)?) {
            (Some(tree), Some(target)) => self.place_at(&tree, &target, &shown),
            _ => Ok(()),
        }
    }

    fn make_read_only(&mut self, at: &Path) -> Result<()> {
        let Some(target) = self.existing(at)? else { return Ok(()) };
        let tree = clone_tree(target.as_raw_fd(), c"", true).map_err(step("find", at))?;
        let attributes = Attributes::READ_ONLY | Attributes::NO_SUID | Attributes::NO_DEV;
        set_attributes(tree.as_fd(), Attributes(attributes)).map_err(step("make read-only", at))?;
        place(tree.as_fd(), target.as_fd()).map_err(step("make read-only", at))
    }

    fn mask(&mut self, at: &Path) -> Result<()> {
        let Some(target) = self.existing(at)? else { return Ok(()) };
        let stat = file::fstatat(target.as_raw_fd(), c"", libc::AT_EMPTY_PATH).map_err(step("look at", at))?;
        let kind = usize::from(is_directory(&stat));
        if self.is_cover(kind, &stat) {
            return Ok(());
        }
        let cover = match &self.covers[kind] {
            Some(placed) => clone_tree(placed.as_raw_fd(), c"", false).map_err(step("cover", at))?,
            None => self.first_cover(kind)?,
        };
        place(cover.as_fd(), target.as_fd()).map_err(step("cover", at))?;
        // A tree that is never placed would be unmounted when it is closed, for which the kernel waits.
        self.covers[kind].get_or_insert(cover);
        Ok(())
    }

    /// Whether a name that is to be covered was covered under another name already: by a link that leads to it.
    fn is_cover(&self, kind: usize, found: &libc::stat) -> bool {
        let cover = self.covers[kind].as_ref();
        let cover = cover.and_then(|cover| file::fstatat(cover.as_raw_fd(), c"", libc::AT_EMPTY_PATH).ok());
        cover.is_some_and(|cover| (cover.st_dev, cover.st_ino) == (found.st_dev, found.st_ino))
    }

    /// An empty file or an empty directory that nobody may open; its name is removed at the end.
    fn first_cover(&self, kind: usize) -> Result<OwnedFd> {
        let root = self.root.as_raw_fd();
        let made = match kind {
            0 => file::mknodat(root, COVERS[kind], libc::S_IFREG, 0),
            _ => file::mkdirat(root, COVERS[kind], 0),
        };
        let cover = made.and_then(|()| {
            let tree = clone_tree(root, COVERS[kind], false)?;
            set_attributes(tree.as_fd(), Attributes(Attributes::READ_ONLY))?;
            Ok(tree)
        });
        cover.map_err(step("make a cover in", Path::new("/")))
    }

    fn finish(self, shown: impl FnOnce()) -> Result<()> {
        let root = Path::new("/");
        for (kind, cover) in self.covers.iter().enumerate() {
            if cover.is_some() {
                let flags = if kind == 0 { 0 } else { libc::AT_REMOVEDIR };
                file::unlinkat(self.root.as_raw_fd(), COVERS[kind], flags).map_err(step("tidy", root))?;
            }
        }
        // The old root ends up on top of the new one and is detached with all below it: pivot_root(2), NOTES.
        file::fchdir(self.root.as_raw_fd()).map_err(step("enter", root))?;
        pivot_root(".", ".").map_err(step("pivot to", root))?;
        shown();
        umount2(".", MntFlags::MNT_DETACH).map_err(step("detach the old", root))?;
        nix::unistd::chdir("/").map_err(step("enter", root))
    }

    /// Opens `at` in the view, making it and its parents where the file system is the box's own.
    fn directory(&mut self, at: &Path, mode: u32) -> Result<OwnedFd> {
        let own = at.parent().is_some_and(|above| self.plain.contains(above));
        let opened = self.open_or_make(at, |above, name| file::mkdirat(above, name, mode))?;
        if own {
            self.plain.insert(at.to_path_buf());
        }
        Ok(opened)
    }

    /// Opens `at` in the view, making an empty file where the file system is the box's own.
    fn file(&mut self, at: &Path) -> Result<OwnedFd> {
        self.open_or_make(at, |above, name| file::mknodat(above, name, libc::S_IFREG | 0o444, 0))
    }

    fn open_or_make(&mut self, at: &Path, make: impl Fn(RawFd, &CStr) -> nix::Result<()>) -> Result<OwnedFd> {
        // Below a directory of our own making there is no link to mind, so the name can be made without a look.
        if at.parent().is_some_and(|above| self.plain.contains(above)) {
            match make(self.root.as_raw_fd(), &relative(at)) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(errno) => return Err(step("make", at)(errno)),
            }
            return self.open(at).map_err(step("open", at));
        }
        match self.open(at) {
            Err(Errno::ENOENT) => {
                self.make(at, make)?;
                self.open(at).map_err(step("open", at))
            }
            opened => opened.map_err(step("open", at)),
        }
    }

    fn make(&mut self, at: &Path, make: impl Fn(RawFd, &CStr) -> nix::Result<()>) -> Result<()> {
        let (Some(above), Some(name)) = (at.parent(), at.file_name()) else {
            return Err(MountError::NoPlace { path: at.into() });
        };
        let above = self.directory(above, 0o755)?;
        if !self.is_own(&above)? {
            return Err(MountError::NoPlace { path: at.into() });
        }
        make(above.as_raw_fd(), &c_path(Path::new(name))).map_err(step("make", at))
    }

    /// Places `tree` at `at`: what is below is no longer of our making.
    fn place_at(&mut self, tree: &OwnedFd, target: &OwnedFd, at: &Path) -> Result<()> {
        self.plain.remove(at);
        place(tree.as_fd(), target.as_fd()).map_err(step("show", at))
    }

    /// Opens the nearest ancestor of `at` (or `at` itself) that the view has.
    fn nearest(&self, at: &Path) -> Result<OwnedFd> {
        for path in at.ancestors() {
            match self.open(path) {
                Err(Errno::ENOENT) => {}
                done => return done.map_err(step("open", path)),
            }
        }
        Err(MountError::NoPlace { path: at.into() })
    }

    fn open(&self, at: &Path) -> nix::Result<OwnedFd> {
        let how = OpenHow {
            flags: (libc::O_PATH | libc::O_NOFOLLOW) as u64,
            mode: 0,
            resolve: libc::RESOLVE_BENEATH | libc::RESOLVE_NO_SYMLINKS,
        };
        file::openat2(self.root.as_raw_fd(), &relative(at), how)
    }

    /// What a path to cover leads to inside the view, if it is there.
    fn existing(&self, at: &Path) -> Result<Option<OwnedFd>> {
        let how = OpenHow { flags: libc::O_PATH as u64, mode: 0, resolve: libc::RESOLVE_IN_ROOT };
        match file::openat2(self.root.as_raw_fd(), &relative(at), how) {
            Ok(found) => Ok(Some(found)),
            // What cannot be reached needs no cover.
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::EACCES) => Ok(None),
            Err(errno) => Err(step("find", at)(errno)),
        }
    }

    fn is_own(&self, directory: &OwnedFd) -> Result<bool> {
        let stat =
            file::fstatat(directory.as_raw_fd(), c"", libc::AT_EMPTY_PATH).map_err(step("look at", Path::new("/")))?;
        Ok(self.own.contains(&stat.st_dev))
    }

    fn adopt(&mut self, directory: &OwnedFd) -> Result<()> {
        let stat =
            file::fstatat(directory.as_raw_fd(), c"", libc::AT_EMPTY_PATH).map_err(step("look at", Path::new("/")))?;
        self.own.insert(stat.st_dev);
        Ok(())
    }
}

const COVERS: [&CStr; 2] = [c".cover-file", c".cover-directory"];

fn step(doing: &'static str, path: &Path) -> impl FnOnce(Errno) -> MountError {
    let path = path.to_path_buf();
    move |source| MountError::Step { doing, path, source }
}

/// Picks a directory to build on that hides no source while the view grows.
fn staging(view: &View) -> Result<PathBuf> {
    let sources: Vec<&Path> = view
        .steps
        .iter()
        .filter_map(|step| match step {
            Step::Bind { from, .. } | Step::Annotate { program: Some(from), .. } => Some(from.0.as_path()),
            _ => None,
        })
        .collect();
    let free = |dir: &&Path| dir.is_dir() && !sources.iter().any(|source| source.starts_with(dir));
    STAGING.iter().map(Path::new).find(free).map(Path::to_path_buf).ok_or(MountError::NoStaging)
}

fn tmpfs(at: &Path, options: &str) -> nix::Result<()> {
    mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some(options))
}

/// Mounts a new file system on an open directory: through the working directory, which needs no `/proc`.
fn mount_at(directory: &OwnedFd, kind: &str, options: &str) -> nix::Result<()> {
    file::fchdir(directory.as_raw_fd())?;
    let flags = match kind {
        "devpts" => MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC,
        "proc" => MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
        _ => MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
    };
    mount(Some(kind), ".", Some(kind), flags, Some(options))
}

/// Makes a file that everybody may read and clones it as a mount.
fn write_new(directory: &OwnedFd, name: &CStr, text: &str) -> nix::Result<OwnedFd> {
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL;
    let mut made = File::from(file::openat(directory.as_raw_fd(), name, flags, 0o444)?);
    made.write_all(text.as_bytes()).map_err(|_| Errno::last())?;
    // Whatever the umask is.
    made.set_permissions(Permissions::from_mode(0o444)).map_err(|_| Errno::last())?;
    clone_tree(directory.as_raw_fd(), name, false)
}

/// Makes the socket at which agentbox is spoken to. The kernel is to tell the sender of every piece: what arrives before the
/// connection is accepted is marked, too, because the listener asks for it.
fn listen(directory: &OwnedFd) -> nix::Result<OwnedFd> {
    /// Who comes while so many wait waits, too.
    const WAITING: i32 = 64;
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let listener = socket::socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    socket::setsockopt(&listener, PassCred, &true)?;
    file::fchdir(directory.as_raw_fd())?;
    socket::bind(listener.as_raw_fd(), &UnixAddr::new(SOCKET)?)?;
    // Whatever the umask is.
    file::fchmodat2(libc::AT_FDCWD, &c_path(Path::new(SOCKET)), 0o666, 0)?;
    socket::listen(&listener, Backlog::new(WAITING)?)?;
    Ok(listener)
}

fn chmod(directory: &OwnedFd, mode: u32) -> nix::Result<()> {
    file::fchdir(directory.as_raw_fd())?;
    file::fchmodat2(libc::AT_FDCWD, c".", mode, 0)
}

fn open_dir(dir: i32, path: &CStr) -> nix::Result<OwnedFd> {
    file::openat(dir, path, libc::O_PATH | libc::O_DIRECTORY, 0)
}

fn is_directory(stat: &libc::stat) -> bool {
    stat.st_mode & libc::S_IFMT == libc::S_IFDIR
}

/// `at` relative to the view's root.
fn relative(at: &Path) -> CString {
    let inside = at.strip_prefix("/").unwrap_or(at);
    if inside.as_os_str().is_empty() { c".".into() } else { c_path(inside) }
}

fn c_path(path: &Path) -> CString {
    // A NUL ends the path, as it would for the kernel; the policy's loader refuses such paths with a message.
    let bytes = path.as_os_str().as_bytes();
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    CString::new(&bytes[..end]).unwrap_or_default()
}
