//! The index of a git work tree: which files git holds, and what it last saw of each: gitformat-index(5).
//!
//! Bytes in, values out; no file is touched here. The bytes may be anybody's, so every length is checked and whatever does
//! not add up is no index at all. The checksum at the end is not worked out: git itself leaves that to `git fsck`, since
//! it would hash the whole index each time it is read. An own reader, because the crates that read this format bring
//! dozens of others, for two hundred lines that do not change.

use std::cmp::Ordering;

/// More entries, or more bytes of names, than this are not read.
const MOST_ENTRIES: u32 = 1_000_000;
const MOST_NAMES: usize = 128 << 20;
/// What the kernel takes as one path: nothing longer can be asked about.
const LONGEST_NAME: usize = 4096;

/// By what hash a repository names its objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hash {
    /// 20 bytes.
    Sha1,
    /// 32 bytes.
    Sha256,
}

impl Hash {
    fn length(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        }
    }

    /// The name of the object that holds nothing.
    fn of_nothing(self) -> &'static [u8] {
        match self {
            Self::Sha1 => b"\xe6\x9d\xe2\x9b\xb2\xd1\xd6\x43\x4b\x8b\x29\xae\x77\x5a\xd8\xc2\xe4\x8c\x53\x91",
            Self::Sha256 => {
                b"\x47\x3a\x0f\x4c\x3b\xe8\xa9\x36\x81\xa2\x67\xe3\xb1\xe9\xa7\xdc\
                  \xda\x11\x85\x43\x6f\xe1\x41\xf7\x74\x91\x20\xa3\x03\x72\x18\x13"
            }
        }
    }
}

/// A time as the index keeps it: seconds, cut to 32 bits, and nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(u32, u32);

impl Time {
    /// A time of `stat(2)`.
    pub fn new(seconds: i64, nanoseconds: i64) -> Self {
        Self(seconds as u32, nanoseconds as u32)
    }
}

/// What git last saw of one file.
#[derive(Debug)]
struct Entry {
    /// Where its name lies among the names.
    start: u32,
    end: u32,
    modified: Time,
    changed: Time,
    inode: u32,
    size: u32,
    mode: u32,
    standing: Standing,
}

/// What an entry's flags make of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It speaks of the file in the work tree, and the content git saw there is in its store.
    Held,
    /// It does not, or not for sure: a conflict, a name without content yet (`add --intent-to-add`), a file that is to be
    /// left out of the work tree, or one that was seen to be changed in the instant in which the index was written.
    NotHeld,
}

/// The files that git holds.
#[derive(Debug, Default)]
pub struct Index {
    names: Vec<u8>,
    entries: Vec<Entry>,
}

/// What the index says of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// It is as git saw it when it took its content.
    Same,
    /// It differs, or may.
    Differs,
    /// It is not in the index.
    Absent,
}

impl Index {
    /// Reads an index; `None` for what is none, is too large, or has part of its entries elsewhere (a split index) or
    /// folded into directories (a sparse index).
    pub fn parse(bytes: &[u8], hash: Hash) -> Option<Self> {
        let mut rest = bytes;
        let header = take(&mut rest, 12)?;
        let version = number(header, 4)?;
        let count = number(header, 8)?;
        if &header[..4] != b"DIRC" || !(2..=4).contains(&version) || count > MOST_ENTRIES {
            return None;
        }
        // An entry takes 62 bytes at least, so that a wild count allocates no more than the file itself.
        let room = (count as usize).min(bytes.len() / 62);
        let mut index = Self { names: Vec::with_capacity(bytes.len() / 4), entries: Vec::with_capacity(room) };
        let mut before = Before::default();
        for _ in 0..count {
            index.entry(&mut rest, version, hash, &mut before)?;
        }
        extensions(rest, hash)?;
        index.names.shrink_to_fit();
        Some(index)
    }

    /// How many bytes it takes.
    pub fn weight(&self) -> usize {
        self.names.len() + self.entries.len() * size_of::<Entry>()
    }

    /// Reads one entry off the front of `rest`.
    fn entry(&mut self, rest: &mut &[u8], version: u32, hash: Hash, before: &mut Before) -> Option<()> {
        let whole = rest.len();
        let fixed = take(rest, 40)?;
        let object = take(rest, hash.length())?;
        let flags = short(take(rest, 2)?);
        let more = match (flags & 0x4000 != 0, version) {
            (false, _) => 0,
            (true, 3..) => short(take(rest, 2)?),
            (true, _) => return None,
        };
        let start = self.names.len();
        if version == 4 {
            let dropped = varint(rest)?;
            let kept = before.name.len().checked_sub(dropped)?;
            before.name.truncate(kept);
        } else {
            before.name.clear();
        }
        let end = rest.iter().take(LONGEST_NAME).position(|byte| *byte == 0)?;
        before.name.extend_from_slice(take(rest, end)?);
        // The NUL, and as many more as make the entry's length a multiple of eight.
        let length = whole - rest.len();
        take(rest, if version == 4 { 1 } else { 8 - length % 8 })?;
        let name = &before.name;
        let told = usize::from(flags & 0xfff);
        let stage = flags >> 12 & 3;
        if name.is_empty() || name.len() >= LONGEST_NAME || start + name.len() > MOST_NAMES {
            return None;
        }
        if told != name.len().min(0xfff) || !self.is_next(name, before.start, before.stage, stage) {
            return None;
        }
        self.names.extend_from_slice(name);
        (before.start, before.stage) = (start, stage);
        let field = |at| number(fixed, at);
        let size = field(36)?;
        // Git writes a size of 0 for what it saw to be changed and could not tell by time: git's "racy git" text.
        let smudged = size == 0 && object != hash.of_nothing();
        let held = stage == 0 && more == 0 && !smudged;
        self.entries.push(Entry {
            start: start as u32,
            end: self.names.len() as u32,
            changed: Time(field(0)?, field(4)?),
            modified: Time(field(8)?, field(12)?),
            inode: field(20)?,
            mode: field(24)?,
            size,
            standing: if held { Standing::Held } else { Standing::NotHeld },
        });
        Some(())
    }

    /// Whether a name may follow the last one, at `start`: entries are sorted, and only the sides of a conflict share a
    /// name.
    fn is_next(&self, name: &[u8], start: usize, stage_before: u16, stage: u16) -> bool {
        let last = &self.names[start..];
        match last.cmp(name) {
            Ordering::Less => true,
            Ordering::Equal => 0 < stage_before && stage_before < stage,
            Ordering::Greater => false,
        }
    }

    /// What is said of the file `name` (relative to the work tree), which `stat` was just seen of. `written` is when the
    /// index itself was.
    pub fn look(&self, name: &[u8], stat: &libc::stat, written: Time) -> Said {
        let found = self.entries.binary_search_by(|entry| self.name(entry).cmp(name));
        match found.ok().and_then(|at| self.entries.get(at)) {
            None => Said::Absent,
            Some(entry) if entry.standing == Standing::Held && entry.fits(stat) && entry.modified < written => {
                Said::Same
            }
            Some(_) => Said::Differs,
        }
    }
}

impl Index {
    fn name(&self, entry: &Entry) -> &[u8] {
        &self.names[entry.start as usize..entry.end as usize]
    }
}

impl Entry {
    /// Whether a file looks as it did when git took its content.
    fn fits(&self, stat: &libc::stat) -> bool {
        // Tools other than git leave the time of the last change out.
        let unknown = Time(0, 0);
        self.modified == Time::new(stat.st_mtime, stat.st_mtime_nsec)
            && (self.changed == unknown || self.changed == Time::new(stat.st_ctime, stat.st_ctime_nsec))
            && self.inode == stat.st_ino as u32
            && self.size == size(stat.st_size)
            && mode(stat.st_mode) == Some(self.mode)
    }
}

/// A size as the index keeps it: cut to 32 bits, but never to 0, which would say that there is nothing.
fn size(size: i64) -> u32 {
    match size as u32 {
        0 if size != 0 => 1 << 31,
        cut => cut,
    }
}

/// A mode as git keeps it: a file that its owner may execute or not, or a link; nothing else is held.
fn mode(mode: libc::mode_t) -> Option<u32> {
    match (mode & libc::S_IFMT, mode & libc::S_IXUSR) {
        (libc::S_IFREG, 0) => Some(0o100_644),
        (libc::S_IFREG, _) => Some(0o100_755),
        (libc::S_IFLNK, _) => Some(0o120_000),
        _ => None,
    }
}

/// The entry before: version 4 writes names as what differs from the last one.
#[derive(Default)]
struct Before {
    name: Vec<u8>,
    start: usize,
    stage: u16,
}

/// Walks over what follows the entries, which must end exactly at the checksum. What only speeds git up is marked by a
/// capital letter; anything else changes what the entries mean.
fn extensions(mut rest: &[u8], hash: Hash) -> Option<()> {
    while rest.len() > hash.length() {
        let header = take(&mut rest, 8)?;
        if !header[0].is_ascii_uppercase() {
            return None;
        }
        take(&mut rest, number(header, 4)? as usize)?;
    }
    (rest.len() == hash.length()).then_some(())
}

/// A number of variable length, as version 4 and packs write offsets: gitformat-pack(5).
fn varint(rest: &mut &[u8]) -> Option<usize> {
    let mut byte = *take(rest, 1)?.first()?;
    let mut value = usize::from(byte & 0x7f);
    while byte & 0x80 != 0 {
        byte = *take(rest, 1)?.first()?;
        value = value.checked_add(1)?.checked_mul(128)? | usize::from(byte & 0x7f);
    }
    Some(value)
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(taken)
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn short(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |value, byte| value << 8 | u16::from(*byte))
}
