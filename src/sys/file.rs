//! Calls on files that nix lacks or wraps with less than the kernel offers.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::check;

/// `O_*` and `RESOLVE_*` of `openat2(2)` as the caller wrote them.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OpenHow {
    /// `O_*`.
    pub flags: u64,
    /// Mode of a file that is made.
    pub mode: u64,
    /// `RESOLVE_*`.
    pub resolve: u64,
}

/// `openat(2)`, always close-on-exec. `dir` may be `AT_FDCWD`.
///
/// Unlike nix it takes the raw flags word, so bits that nix does not know reach the kernel unchanged.
pub fn openat(dir: RawFd, path: &CStr, flags: i32, mode: u32) -> nix::Result<OwnedFd> {
    // SAFETY: `path` lives across the call and ends in NUL; on success the kernel made a new descriptor that nobody
    // else owns.
    unsafe {
        let fd = check(libc::syscall(libc::SYS_openat, dir, path.as_ptr(), flags | libc::O_CLOEXEC, mode))?;
        Ok(OwnedFd::from_raw_fd(fd as RawFd))
    }
}

/// `openat2(2)`, always close-on-exec. `dir` may be `AT_FDCWD`.
pub fn openat2(dir: RawFd, path: &CStr, mut how: OpenHow) -> nix::Result<OwnedFd> {
    how.flags |= libc::O_CLOEXEC as u64;
    // SAFETY: `path` and `how` live across the call; the size is that of the structure we pass; the new descriptor is
    // ours alone.
    unsafe {
        let size = size_of::<OpenHow>();
        let fd = check(libc::syscall(libc::SYS_openat2, dir, path.as_ptr(), &raw const how, size))?;
        Ok(OwnedFd::from_raw_fd(fd as RawFd))
    }
}

/// Opens for reading and leaves the time of the last access alone where the kernel lets the caller (open(2), `O_NOATIME`):
/// a look of ours is not one of the box's. Elsewhere opens as it is.
pub fn openat2_unnoticed(dir: RawFd, path: &CStr, how: OpenHow) -> nix::Result<OwnedFd> {
    match openat2(dir, path, OpenHow { flags: how.flags | libc::O_NOATIME as u64, ..how }) {
        Err(nix::errno::Errno::EPERM) => openat2(dir, path, how),
        opened => opened,
    }
}

/// Reads a small file of `/proc` whole. Those give as much as there is room for, so less than that is the end.
pub fn read_small(dir: RawFd, path: &CStr) -> nix::Result<Vec<u8>> {
    let file = openat(dir, path, libc::O_RDONLY, 0)?;
    let mut bytes = Vec::with_capacity(4096);
    let mut page = [0u8; 4096];
    loop {
        let read = nix::unistd::read(&file, &mut page)?;
        bytes.extend_from_slice(&page[..read]);
        if read < page.len() {
            return Ok(bytes);
        }
    }
}

/// `readlinkat(2)` into `buffer`; returns how many bytes were written. A result that fills the buffer may be cut.
pub fn readlinkat(dir: RawFd, path: &CStr, buffer: &mut [u8]) -> nix::Result<usize> {
    // SAFETY: the kernel writes at most `buffer.len()` bytes into a buffer that we borrow exclusively.
    let read = unsafe { libc::syscall(libc::SYS_readlinkat, dir, path.as_ptr(), buffer.as_mut_ptr(), buffer.len()) };
    check(read).map(|n| n as usize)
}

/// `fstatat(2)`.
pub fn fstatat(dir: RawFd, path: &CStr, flags: i32) -> nix::Result<libc::stat> {
    let mut stat = std::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: the kernel fills the whole structure when it returns 0, and only then is it read.
    unsafe {
        check(libc::fstatat(dir, path.as_ptr(), stat.as_mut_ptr(), flags).into())?;
        Ok(stat.assume_init())
    }
}

/// The id of the mount that an open file was reached through: `statx(2)` with `STATX_MNT_ID`. `ENODATA` where the kernel
/// does not tell it (before Linux 5.8).
pub fn mount_id(object: RawFd) -> nix::Result<u64> {
    let mut stat = std::mem::MaybeUninit::<libc::statx>::uninit();
    // SAFETY: the kernel fills the whole structure when it returns 0, and only then is it read.
    let stat = unsafe {
        let (flags, mask) = (libc::AT_EMPTY_PATH, libc::STATX_MNT_ID);
        check(libc::statx(object, c"".as_ptr(), flags, mask, stat.as_mut_ptr()).into())?;
        stat.assume_init()
    };
    if stat.stx_mask & libc::STATX_MNT_ID == 0 { Err(nix::errno::Errno::ENODATA) } else { Ok(stat.stx_mnt_id) }
}

/// `fchmodat2(2)`; falls back to `fchmodat` semantics through the same path where flags are empty (before Linux 6.6).
pub fn fchmodat2(dir: RawFd, path: &CStr, mode: u32, flags: i32) -> nix::Result<()> {
    // SAFETY: `path` lives across the call.
    let done = unsafe {
        if flags == 0 {
            libc::syscall(libc::SYS_fchmodat, dir, path.as_ptr(), mode)
        } else {
            libc::syscall(libc::SYS_fchmodat2, dir, path.as_ptr(), mode, flags)
        }
    };
    check(done).map(drop)
}

/// `fchownat(2)`.
pub fn fchownat(dir: RawFd, path: &CStr, uid: u32, gid: u32, flags: i32) -> nix::Result<()> {
    // SAFETY: `path` lives across the call.
    check(unsafe { libc::syscall(libc::SYS_fchownat, dir, path.as_ptr(), uid, gid, flags) }).map(drop)
}

/// `utimensat(2)`; `None` sets both times to now.
pub fn utimensat(dir: RawFd, path: &CStr, times: Option<&[libc::timespec; 2]>, flags: i32) -> nix::Result<()> {
    let times = times.map_or(std::ptr::null(), |t| t.as_ptr());
    // SAFETY: `path` and `times` live across the call; a null `times` means now.
    check(unsafe { libc::syscall(libc::SYS_utimensat, dir, path.as_ptr(), times, flags) }).map(drop)
}

/// `mknodat(2)`.
pub fn mknodat(dir: RawFd, path: &CStr, mode: u32, device: u64) -> nix::Result<()> {
    // SAFETY: `path` lives across the call.
    check(unsafe { libc::syscall(libc::SYS_mknodat, dir, path.as_ptr(), mode, device) }).map(drop)
}

/// `mkdirat(2)`.
pub fn mkdirat(dir: RawFd, path: &CStr, mode: u32) -> nix::Result<()> {
    // SAFETY: `path` lives across the call.
    check(unsafe { libc::syscall(libc::SYS_mkdirat, dir, path.as_ptr(), mode) }).map(drop)
}

/// `unlinkat(2)`.
pub fn unlinkat(dir: RawFd, path: &CStr, flags: i32) -> nix::Result<()> {
    // SAFETY: `path` lives across the call.
    check(unsafe { libc::syscall(libc::SYS_unlinkat, dir, path.as_ptr(), flags) }).map(drop)
}

/// `symlinkat(2)`.
pub fn symlinkat(text: &CStr, dir: RawFd, path: &CStr) -> nix::Result<()> {
    // SAFETY: both strings live across the call.
    check(unsafe { libc::syscall(libc::SYS_symlinkat, text.as_ptr(), dir, path.as_ptr()) }).map(drop)
}

/// `linkat(2)`.
pub fn linkat(dir: RawFd, path: &CStr, new_dir: RawFd, new_path: &CStr, flags: i32) -> nix::Result<()> {
    // SAFETY: both strings live across the call.
    let done = unsafe { libc::syscall(libc::SYS_linkat, dir, path.as_ptr(), new_dir, new_path.as_ptr(), flags) };
    check(done).map(drop)
}

/// `renameat2(2)`.
pub fn renameat2(dir: RawFd, path: &CStr, new_dir: RawFd, new_path: &CStr, flags: u32) -> nix::Result<()> {
    // SAFETY: both strings live across the call.
    let done = unsafe { libc::syscall(libc::SYS_renameat2, dir, path.as_ptr(), new_dir, new_path.as_ptr(), flags) };
    check(done).map(drop)
}

/// `truncate(2)`.
pub fn truncate(path: &CStr, length: i64) -> nix::Result<()> {
    // SAFETY: `path` lives across the call.
    check(unsafe { libc::syscall(libc::SYS_truncate, path.as_ptr(), length) }).map(drop)
}

/// `setxattr(2)` on `path`, following links.
pub fn setxattr(path: &CStr, name: &CStr, value: &[u8], flags: i32) -> nix::Result<()> {
    // SAFETY: all three live across the call and the size is that of `value`.
    let done =
        unsafe { libc::syscall(libc::SYS_setxattr, path.as_ptr(), name.as_ptr(), value.as_ptr(), value.len(), flags) };
    check(done).map(drop)
}

/// `removexattr(2)` on `path`, following links.
pub fn removexattr(path: &CStr, name: &CStr) -> nix::Result<()> {
    // SAFETY: both strings live across the call.
    check(unsafe { libc::syscall(libc::SYS_removexattr, path.as_ptr(), name.as_ptr()) }).map(drop)
}

/// `fchdir(2)`: the calling thread's working directory (its own after `unshare(CLONE_FS)`).
pub fn fchdir(dir: RawFd) -> nix::Result<()> {
    // SAFETY: the call takes a number; one that is not open fails with EBADF.
    check(unsafe { libc::syscall(libc::SYS_fchdir, dir) }).map(drop)
}

/// Closes every descriptor above 2 but `keep`, by `close_range(2)`.
///
/// For init, right after the fork: what it inherited belongs to agentbox's own side of the fork and is never used or
/// dropped on this one, because init ends without running destructors.
pub fn close_all_but(_: &super::process::Alone, keep: BorrowedFd<'_>) -> nix::Result<()> {
    let keep = keep.as_raw_fd() as u32;
    // SAFETY: the single thread of this process owns no other descriptor that it will use or close again; see above.
    unsafe {
        if keep > 3 {
            check(libc::syscall(libc::SYS_close_range, 3, keep - 1, 0))?;
        }
        check(libc::syscall(libc::SYS_close_range, keep + 1, u32::MAX, 0)).map(drop)
    }
}

/// `dup2(2)` onto one of the standard descriptors.
pub fn replace_standard(from: BorrowedFd<'_>, number: RawFd) -> nix::Result<()> {
    debug_assert!((0..=2).contains(&number));
    // SAFETY: nobody owns descriptors 0 to 2 as values; replacing them is what redirection means.
    check(unsafe { libc::dup2(from.as_raw_fd(), number) }.into()).map(drop)
}

/// Proof that the calling thread has a table of descriptors of its own: a copy, in which any number may be put to use. The
/// rest of the process keeps its own, and what this one holds is closed when the thread ends.
#[derive(Debug)]
pub struct OwnTable(std::marker::PhantomData<*const ()>);

impl OwnTable {
    /// Gives the calling thread a copy of the process's table, `unshare(CLONE_FILES)`. The thread should end soon: it
    /// keeps open what others close.
    pub fn take() -> nix::Result<Self> {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_FILES)?;
        Ok(Self(std::marker::PhantomData))
    }

    /// Another descriptor for the same file, above `number`.
    pub fn above(&self, file: BorrowedFd<'_>, number: RawFd) -> nix::Result<OwnedFd> {
        // SAFETY: plain numbers.
        let copy = check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_DUPFD_CLOEXEC, number + 1) }.into())?;
        // SAFETY: a successful call returns a new descriptor that is ours alone.
        Ok(unsafe { OwnedFd::from_raw_fd(copy as RawFd) })
    }

    /// Another descriptor for the same file: `number` itself, whatever stood there in this table.
    pub fn at(&self, file: BorrowedFd<'_>, number: RawFd) -> nix::Result<OwnedFd> {
        // SAFETY: plain numbers. Descriptors of others under this number live in their own table, unharmed.
        check(unsafe { libc::dup2(file.as_raw_fd(), number) }.into())?;
        // SAFETY: in this table the number is ours alone: it was a copy of somebody's or nothing.
        Ok(unsafe { OwnedFd::from_raw_fd(number) })
    }
}
