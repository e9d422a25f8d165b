//! The file system as a policy being loaded sees it: what each path really is.
//!
//! Looks, follows links, and remembers; changes nothing. Runs in agentbox before anything is forked.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use super::rules::plain;

/// The file system as far as it was looked at: what each path really is, if it is.
#[derive(Default)]
pub(super) struct Real {
    known: HashMap<OsString, Option<PathBuf>>,
    /// A directory most of whose names are asked for, and for each whether it is a symbolic link: one look instead of
    /// eighty.
    listed: Option<(PathBuf, HashMap<OsString, bool>)>,
}

/// What a path comes to.
pub(super) struct Found {
    /// The real path; where it is missing, that of what exists, with the rest as it stands.
    pub path: PathBuf,
    /// Whether it is there.
    pub exists: bool,
    /// The path itself, if it is a symbolic link.
    pub link: Option<PathBuf>,
}

impl Real {
    /// Takes a directory as known to be real, with all above it.
    pub fn know(&mut self, dir: &Path) {
        for dir in dir.ancestors() {
            self.known.insert(dir.into(), Some(dir.into()));
        }
    }

    /// Lists a real directory, unless it is large.
    pub fn list(&mut self, dir: &Path) {
        let Ok(entries) = fs::read_dir(dir) else { return };
        let mut names = HashMap::new();
        for entry in entries {
            match entry.and_then(|e| Ok((e.file_name(), e.file_type()?.is_symlink()))) {
                Ok((name, is_link)) if names.len() < 512 => names.insert(name, is_link),
                _ => return,
            };
        }
        self.listed = Some((dir.into(), names));
    }

    pub fn find(&mut self, path: &Path) -> Found {
        let Some((dir, name)) = split_last(path) else {
            return Found { path: path.into(), exists: true, link: None };
        };
        let Some(own) = self.directory(dir).map(|dir| dir.join(name)) else {
            return Found { path: self.place(path), exists: false, link: None };
        };
        match self.follow(&own) {
            Some(real) => {
                Found { link: (own.as_os_str() != real.as_os_str()).then_some(own), path: real, exists: true }
            }
            None => Found { path: own, exists: false, link: None },
        }
    }

    /// The real path of `path`, if that is another one.
    pub fn other(&mut self, path: &Path) -> Option<PathBuf> {
        Some(self.find(path).path).filter(|real| real.as_os_str() != path.as_os_str())
    }

    /// The real path of what exists, with the rest as it stands.
    fn place(&mut self, path: &Path) -> PathBuf {
        match (self.directory(path), split_last(path)) {
            (Some(real), _) => real,
            (None, Some((dir, name))) => self.place(dir).join(name),
            (None, None) => path.into(),
        }
    }

    /// The real path, if all of it exists, kept for the next who asks.
    fn directory(&mut self, path: &Path) -> Option<PathBuf> {
        if let Some(known) = self.known.get(path.as_os_str()) {
            return known.clone();
        }
        let found = match split_last(path) {
            None => Some(path.to_path_buf()),
            Some((dir, name)) => self.directory(dir).and_then(|dir| self.follow(&dir.join(name))),
        };
        self.known.insert(path.into(), found.clone());
        found
    }

    /// Looks at one name in a real directory, and follows it if it is a link.
    fn follow(&mut self, path: &Path) -> Option<PathBuf> {
        let (dir, name) = split_last(path)?;
        let is_link = match &self.listed {
            Some((listed, names)) if listed.as_os_str() == dir.as_os_str() => *names.get(name)?,
            _ => fs::symlink_metadata(path).ok()?.file_type().is_symlink(),
        };
        if is_link { fs::canonicalize(path).ok() } else { Some(path.into()) }
    }
}

/// Cuts a plain absolute path into directory and name; `Path`'s own way looks at every component each time.
fn split_last(path: &Path) -> Option<(&Path, &OsStr)> {
    let bytes = path.as_os_str().as_bytes();
    let slash = bytes.iter().rposition(|b| *b == b'/').filter(|_| bytes.len() > 1)?;
    let (dir, name) = (&bytes[..slash.max(1)], &bytes[slash + 1..]);
    Some((Path::new(OsStr::from_bytes(dir)), OsStr::from_bytes(name)))
}

/// Takes `..` out the way the kernel would where that is possible.
pub(super) fn resolved(path: &Path) -> PathBuf {
    let dots = path.components().any(|c| c == Component::ParentDir);
    if dots { fs::canonicalize(path).unwrap_or_else(|_| plain(path)) } else { plain(path) }
}
