//! A file that a command writes for its user: it appears whole or not at all, and never through somebody else's link.
//!
//! The user's directory may be a workspace in which a box has left things behind, so the name is taken, not followed.

use std::collections::hash_map::RandomState;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, Hasher};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::libc::{O_NOFOLLOW, O_NONBLOCK};

/// Which files may be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replaces {
    /// Any ordinary file.
    Any,
    /// Those that begin with these bytes.
    Begins(&'static str),
}

/// A file on its way to its place.
#[derive(Debug)]
pub struct Placed {
    out: BufWriter<File>,
    draft: PathBuf,
    path: PathBuf,
    done: bool,
}

impl Placed {
    /// Begins the file that is to be at `path`, which must not be `source`, what it is made of.
    pub fn begin(path: &Path, replaces: Replaces, source: &Path) -> Result<Self> {
        check(path, replaces)?;
        if fs::canonicalize(path).is_ok_and(|path| fs::canonicalize(source).is_ok_and(|source| source == path)) {
            bail!("{} is the log itself: name another file", path.display());
        }
        let name = path.file_name().with_context(|| format!("{} names no file", path.display()))?;
        let mut hidden = OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{:016x}", RandomState::new().build_hasher().finish()));
        let draft = path.with_file_name(hidden);
        // What it says of a run is for this user alone, as the log itself is.
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft);
        let file = made.with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self { out: BufWriter::new(file), draft, path: path.into(), done: false })
    }

    /// Puts the file in its place.
    pub fn finish(mut self) -> Result<()> {
        let placed = self.out.flush().and_then(|()| fs::rename(&self.draft, &self.path));
        placed.with_context(|| format!("cannot write {}", self.path.display()))?;
        self.done = true;
        Ok(())
    }
}

impl Write for Placed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        if !self.done {
            let _ = fs::remove_file(&self.draft);
        }
    }
}

fn check(path: &Path, replaces: Replaces) -> Result<()> {
    let facts = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        facts => facts.with_context(|| format!("cannot look at {}", path.display()))?,
    };
    let replaceable = facts.is_file() || (facts.is_symlink() && replaces == Replaces::Any);
    if !replaceable {
        bail!("{} is there and is no ordinary file: name another", path.display());
    }
    match replaces {
        Replaces::Any => Ok(()),
        Replaces::Begins(mark) if begins(path, mark).unwrap_or(false) => Ok(()),
        Replaces::Begins(_) => bail!("{} is there and is no report: name another, or add --force", path.display()),
    }
}

fn begins(path: &Path, mark: &str) -> io::Result<bool> {
    let mut file = OpenOptions::new().read(true).custom_flags(O_NOFOLLOW | O_NONBLOCK).open(path)?;
    let mut start = vec![0; mark.len()];
    Ok(file.read_exact(&mut start).is_ok() && start == mark.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn put(path: &Path, replaces: Replaces) -> Result<()> {
        let mut placed = Placed::begin(path, replaces, Path::new("/nonexistent"))?;
        placed.write_all(b"mark: new")?;
        placed.finish()
    }

    #[test]
    fn only_what_may_be_replaced_is_and_no_link_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let [path, other] = ["report", "other"].map(|name| dir.path().join(name));
        let mark = Replaces::Begins("mark");
        put(&path, mark).unwrap();
        put(&path, mark).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&other, "mine").unwrap();
        assert!(put(&other, mark).unwrap_err().to_string().contains("--force"));
        fs::remove_file(&path).unwrap();
        symlink(&other, &path).unwrap();
        assert!(put(&path, mark).is_err());
        put(&path, Replaces::Any).unwrap();
        assert_eq!(
            (fs::read_to_string(&other).unwrap(), fs::read_to_string(&path).unwrap()),
            ("mine".into(), "mark: new".into())
        );
        assert!(put(dir.path(), Replaces::Any).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "no draft is left");
    }
}
