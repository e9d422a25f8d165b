//! The sole reader, and writer, of a stopped task: its memory, directories and descriptors.
//!
//! Everything read here is hostile: lengths are bounded before anything is allocated, each argument is read once, and
//! the notification is checked to be alive afterwards, so that the bytes belong to the caller and not to a process that
//! was given its number. A worker's working directory is the host's `/proc`, so `"7/cwd"` names the task's directory.

use std::ffi::{CStr, CString};
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::resource::Resource;
use nix::sys::uio::{RemoteIoVec, process_vm_readv, process_vm_writev};
use nix::unistd::Pid;

use crate::sys::{file, process};

/// The longest path the kernel takes, with its NUL.
pub const PATH_MAX: usize = 4096;
const PAGE: usize = 4096;
const SHORT: usize = 256;

/// A task that waits in a stopped call.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its number on the host. A thread's, where a thread made the call.
    pub tid: i32,
    /// The host's `/proc`, where a worker's working directory is unless it says otherwise.
    pub proc: RawFd,
}

impl Target {
    /// Reads a path or other NUL-terminated string of fewer than `most` bytes.
    ///
    /// `EFAULT` where the caller's memory ends, `ENAMETOOLONG` where no NUL comes in time: what the kernel would say.
    pub fn string(self, address: u64, most: usize) -> Result<CString, Errno> {
        let mut bytes: Vec<u8> = Vec::with_capacity(256);
        while bytes.len() < most {
            // Never across a page end: the next page may not be there.
            let at = address.checked_add(bytes.len() as u64).ok_or(Errno::EFAULT)?;
            // Most paths are short, and copying what lies behind them costs, too.
            let room = (PAGE - at as usize % PAGE).min(SHORT.max(bytes.len()));
            let start = bytes.len();
            bytes.resize(start + room.min(most - start), 0);
            let read = self.read(at, &mut bytes[start..])?;
            bytes.truncate(start + read);
            if let Some(end) = bytes[start..].iter().position(|byte| *byte == 0) {
                bytes.truncate(start + end);
                return CString::new(bytes).map_err(|_| Errno::EFAULT);
            }
        }
        Err(Errno::ENAMETOOLONG)
    }

    /// Reads a path.
    pub fn path(self, address: u64) -> Result<CString, Errno> {
        self.string(address, PATH_MAX)
    }

    /// Reads exactly `length` bytes.
    pub fn bytes(self, address: u64, length: usize) -> Result<Vec<u8>, Errno> {
        let mut bytes = vec![0; length];
        if length > 0 && self.read(address, &mut bytes)? != length {
            return Err(Errno::EFAULT);
        }
        Ok(bytes)
    }

    /// Reads `N` machine words.
    pub fn words<const N: usize>(self, address: u64) -> Result<[u64; N], Errno> {
        let bytes = self.bytes(address, N * 8)?;
        let mut words = [0; N];
        for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_ne_bytes(chunk.try_into().map_err(|_| Errno::EFAULT)?);
        }
        Ok(words)
    }

    /// Reads a null-terminated array of strings (an argument vector) of at most `most` bytes in all.
    ///
    /// `E2BIG` beyond that, as the kernel says of vectors beyond its own limit.
    pub fn strings(self, address: u64, most: usize) -> Result<Vec<CString>, Errno> {
        let mut strings = Vec::new();
        let (mut pointers, mut texts) = (Page::default(), Page::default());
        let mut total = 0;
        if address == 0 {
            return Ok(strings);
        }
        loop {
            let at = address.checked_add(strings.len() as u64 * 8).ok_or(Errno::EFAULT)?;
            let pointer = pointers.word(self, at)?;
            if pointer == 0 {
                return Ok(strings);
            }
            let text = texts.string(self, pointer, most)?;
            total += text.as_bytes_with_nul().len() + 8;
            if total > most {
                return Err(Errno::E2BIG);
            }
            strings.push(text);
        }
    }

    fn read(self, address: u64, into: &mut [u8]) -> Result<usize, Errno> {
        let remote = RemoteIoVec { base: address as usize, len: into.len() };
        process_vm_readv(Pid::from_raw(self.tid), &mut [IoSliceMut::new(into)], &[remote])
    }

    /// Writes where the kernel would write a result: `EFAULT` if not all of it could be written.
    pub fn write(self, address: u64, bytes: &[u8]) -> Result<(), Errno> {
        let remote = RemoteIoVec { base: address as usize, len: bytes.len() };
        let written = process_vm_writev(Pid::from_raw(self.tid), &[IoSlice::new(bytes)], &[remote])?;
        if written == bytes.len() { Ok(()) } else { Err(Errno::EFAULT) }
    }

    /// Opens the task's working directory, as an `O_PATH` descriptor.
    pub fn working_directory(self) -> Result<OwnedFd, Errno> {
        self.open("cwd")
    }

    /// Opens what the task's descriptor `number` stands for, as an `O_PATH` descriptor.
    pub fn descriptor(self, number: i32) -> Result<OwnedFd, Errno> {
        if number < 0 {
            return Err(Errno::EBADF);
        }
        match self.open(&format!("fd/{number}")) {
            Err(Errno::ENOENT) => Err(Errno::EBADF),
            Err(Errno::EACCES) => self.hidden_descriptor(number),
            other => other,
        }
    }

    /// The same where the task is not dumpable (`PR_SET_DUMPABLE`): its entries in `/proc` are then root's, but who may
    /// trace it may copy its descriptors. The copy itself is not kept, as it would keep locks and leases of the caller's.
    fn hidden_descriptor(self, number: i32) -> Result<OwnedFd, Errno> {
        let copy = self.copy_descriptor(number)?;
        let name = CString::new(format!("self/fd/{}", copy.as_raw_fd())).unwrap_or_default();
        file::openat(self.proc, &name, libc::O_PATH, 0)
    }

    /// Takes a copy of the task's descriptor `number`: the same open file.
    ///
    /// From the thread's own table; kernels before 6.9 know that of a process's first thread only, so others are refused.
    pub fn copy_descriptor(self, number: i32) -> Result<OwnedFd, Errno> {
        let pidfd = process::open_pidfd(self.tid, true).or_else(|_| process::open_pidfd(self.tid, false));
        match process::take_fd(pidfd.map_err(|_| Errno::EACCES)?.as_fd(), number) {
            Err(Errno::EBADF) => Err(Errno::EBADF),
            Err(Errno::ESRCH) => Err(Errno::ESRCH),
            copy => copy.map_err(|_| Errno::EACCES),
        }
    }

    /// The flags of the task's descriptor `number`; those of one with the least rights if they cannot be told.
    pub fn descriptor_flags(self, number: i32) -> i32 {
        let text = self.text(&format!("fdinfo/{number}"));
        let of_copy = || fcntl(self.copy_descriptor(number).ok()?, FcntlArg::F_GETFL).ok();
        flags_in(&text).or_else(of_copy).unwrap_or(NO_RIGHT)
    }

    fn open(self, name: &str) -> Result<OwnedFd, Errno> {
        file::openat(self.proc, &self.entry(name), libc::O_PATH, 0)
    }

    /// Whether the task's table of descriptors has room for so many more: `EMFILE` if not.
    pub fn has_descriptors_left(self, more: u64) -> Result<(), Errno> {
        // The size of this directory is the number of descriptors, since Linux 6.2; before it is 0.
        let used = file::fstatat(self.proc, &self.entry("fd"), 0)?.st_size as u64;
        let limit = process::limit(self.tid, Resource::RLIMIT_NOFILE)?;
        if used + more <= limit { Ok(()) } else { Err(Errno::EMFILE) }
    }

    /// Reads one of the task's entries in the host's `/proc`; empty for a task that is gone.
    pub fn text(self, name: &str) -> String {
        let bytes = file::read_small(self.proc, &self.entry(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The text of one of the task's links in the host's `/proc`.
    pub fn link(self, name: &str) -> Result<Vec<u8>, Errno> {
        let mut buffer = [0u8; PATH_MAX];
        let length = file::readlinkat(self.proc, &self.entry(name), &mut buffer)?;
        Ok(buffer[..length].to_vec())
    }

    /// A path to one of the task's entries in the host's `/proc`.
    pub fn entry(self, name: &str) -> CString {
        CString::new(format!("{}/{name}", self.tid)).unwrap_or_default()
    }
}

/// The flags of a descriptor with the least rights.
pub const NO_RIGHT: i32 = libc::O_RDONLY | libc::O_APPEND;

/// The flags in the text of a `/proc/PID/fdinfo/N`.
pub fn flags_in(fdinfo: &str) -> Option<i32> {
    let flags = fdinfo.lines().find_map(|line| line.strip_prefix("flags:"))?;
    i32::from_str_radix(flags.trim(), 8).ok()
}

/// One page of the task's memory, kept because the pointers of a vector lie side by side, and so do its strings.
struct Page {
    address: u64,
    bytes: Vec<u8>,
}

impl Default for Page {
    fn default() -> Self {
        Self { address: u64::MAX, bytes: Vec::new() }
    }
}

impl Page {
    /// The bytes from `address` to the end of its page.
    fn tail(&mut self, target: Target, address: u64) -> Result<&[u8], Errno> {
        let start = address - address % PAGE as u64;
        if self.address != start {
            self.bytes.resize(PAGE, 0);
            self.address = u64::MAX;
            if target.read(start, &mut self.bytes)? != PAGE {
                return Err(Errno::EFAULT);
            }
            self.address = start;
        }
        Ok(&self.bytes[(address - start) as usize..])
    }

    fn word(&mut self, target: Target, address: u64) -> Result<u64, Errno> {
        match self.tail(target, address)?.first_chunk() {
            Some(bytes) => Ok(u64::from_ne_bytes(*bytes)),
            // A word across a page end.
            None => target.words::<1>(address).map(|[word]| word),
        }
    }

    fn string(&mut self, target: Target, address: u64, most: usize) -> Result<CString, Errno> {
        let tail = self.tail(target, address)?;
        match CStr::from_bytes_until_nul(tail) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => target.string(address, most).map_err(|errno| match errno {
                Errno::ENAMETOOLONG => Errno::E2BIG,
                other => other,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn me() -> Target {
        Target { tid: nix::unistd::gettid().as_raw(), proc: libc::AT_FDCWD }
    }

    #[test]
    fn a_string_is_read_across_a_page_end() {
        let mut bytes = vec![b'a'; 3 * PAGE];
        bytes.push(0);
        let text = me().string(bytes.as_ptr() as u64, 4 * PAGE).unwrap();
        assert_eq!(text.as_bytes().len(), 3 * PAGE);
    }

    #[test]
    fn a_string_without_an_end_is_too_long_and_a_wild_address_is_a_fault() {
        let bytes = vec![b'a'; PATH_MAX];
        assert_eq!(me().string(bytes.as_ptr() as u64, PATH_MAX), Err(Errno::ENAMETOOLONG));
        assert_eq!(me().path(8), Err(Errno::EFAULT));
        assert_eq!(me().path(u64::MAX - 3), Err(Errno::EFAULT));
        assert_eq!(me().bytes(0, 16), Err(Errno::EFAULT));
    }

    #[test]
    fn a_vector_of_strings_is_read_whole_or_refused() {
        let texts: Vec<CString> = (0..1000).map(|n| CString::new(format!("argument {n}")).unwrap()).collect();
        let mut pointers: Vec<*const libc::c_char> = texts.iter().map(|text| text.as_ptr()).collect();
        pointers.push(std::ptr::null());
        let address = pointers.as_ptr() as u64;
        assert_eq!(me().strings(address, 1 << 20).unwrap(), texts);
        assert_eq!(me().strings(address, 4000), Err(Errno::E2BIG));
        assert_eq!(me().strings(0, 4000), Ok(vec![]));
    }
}
