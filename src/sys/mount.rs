//! The mount API of Linux 5.2 and later: trees are cloned and placed by descriptor.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::check;

const OPEN_TREE_CLONE: u32 = 1;
const OPEN_TREE_CLOEXEC: u32 = libc::O_CLOEXEC as u32;
const AT_RECURSIVE: u32 = 0x8000;
const MOVE_MOUNT_F_EMPTY_PATH: u32 = 0x4;
const MOVE_MOUNT_T_EMPTY_PATH: u32 = 0x40;

/// Mount attributes as `mount_setattr(2)` takes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes(pub u64);

impl Attributes {
    /// Nothing on the mount can be changed.
    pub const READ_ONLY: u64 = 0x1;
    /// Set-user-id bits on the mount have no effect.
    pub const NO_SUID: u64 = 0x2;
    /// Device nodes on the mount cannot be opened.
    pub const NO_DEV: u64 = 0x4;
}

/// Clones the mount tree at `path` (relative to `dir`), detached: `open_tree(2)` with `OPEN_TREE_CLONE`.
///
/// With `deep` everything mounted below comes along. In a user namespace a shallow clone of a tree that has mounts below
/// it is refused with `EINVAL`, as it would uncover what they hide.
pub fn clone_tree(dir: RawFd, path: &CStr, deep: bool) -> nix::Result<OwnedFd> {
    let mut flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | libc::AT_SYMLINK_NOFOLLOW as u32;
    if path.is_empty() {
        flags |= libc::AT_EMPTY_PATH as u32;
    }
    if deep {
        flags |= AT_RECURSIVE;
    }
    // SAFETY: `path` lives across the call; the new descriptor is ours alone.
    unsafe {
        let fd = check(libc::syscall(libc::SYS_open_tree, dir, path.as_ptr(), flags))?;
        Ok(OwnedFd::from_raw_fd(fd as RawFd))
    }
}

/// Sets attributes on a tree and all below it, and cuts it off from mounts that the host makes later.
pub fn set_attributes(tree: BorrowedFd<'_>, set: Attributes) -> nix::Result<()> {
    #[repr(C)]
    struct MountAttr {
        set: u64,
        clear: u64,
        propagation: u64,
        userns_fd: u64,
    }
    let attr = MountAttr { set: set.0, clear: 0, propagation: libc::MS_PRIVATE, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH as u32 | AT_RECURSIVE;
    // SAFETY: the empty path and the structure live across the call, and the size is that of the structure.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    check(done).map(drop)
}

/// Places a detached tree on `target`, an open directory or file (`O_PATH` will do).
pub fn place(tree: BorrowedFd<'_>, target: BorrowedFd<'_>) -> nix::Result<()> {
    let empty = c"".as_ptr();
    let flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;
    // SAFETY: the empty paths are static.
    let done =
        unsafe { libc::syscall(libc::SYS_move_mount, tree.as_raw_fd(), empty, target.as_raw_fd(), empty, flags) };
    check(done).map(drop)
}
