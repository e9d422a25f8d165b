//! Which policy files of projects this user has read and trusts, by their exact content.
//!
//! A repository must not be able to open its own box, so its `agentbox.yaml` counts only while its digest is on record
//! here: one file per path under `$XDG_STATE_HOME/agentbox/trusted/`, which no box can write to.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::event::escape_bytes;

/// What a project's policy file is called.
pub const PROJECT_FILE: &str = "agentbox.yaml";

/// Why trust cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The operating system refused.
    #[error("cannot {act} {path}")]
    Io {
        /// What we were doing.
        act: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Somebody else could have written it.
    #[error(
        "{0} belongs to another user or can be written by others: nothing in it can be believed; chmod go-w it, or remove it"
    )]
    Open(PathBuf),
}

/// Finds the project's policy file: in `workdir` or above it, up to the top of the git repository, the home or the root.
pub fn find_project(workdir: &Path, home: &Path) -> Option<PathBuf> {
    for dir in workdir.ancestors() {
        let file = dir.join(PROJECT_FILE);
        if fs::symlink_metadata(&file).is_ok() {
            return Some(file);
        }
        if dir == home || fs::symlink_metadata(dir.join(".git")).is_ok() {
            return None;
        }
    }
    None
}

/// Whether `content` is what the user trusted at `file`; the inner error says why not.
pub fn is_trusted(state: &Path, file: &Path, content: &[u8]) -> Result<Result<(), &'static str>, TrustError> {
    let dir = state.join("trusted");
    let entry = dir.join(entry_name(file));
    let record = match fs::read(&entry) {
        Ok(record) => record,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Err("its content is not trusted")),
        Err(source) => return Err(TrustError::Io { act: "read", path: entry, source }),
    };
    for path in [state, &dir, &entry] {
        check_owner(path)?;
    }
    let same = record.split(|b| *b == b'\n').next() == Some(hex(content).as_bytes());
    Ok(if same { Ok(()) } else { Err("its content has changed since it was trusted") })
}

/// Records that the user trusts `content` at `file`.
pub fn trust(state: &Path, file: &Path, content: &[u8]) -> Result<(), TrustError> {
    let dir = state.join("trusted");
    let failed = |act, path: &Path| {
        let path = path.to_path_buf();
        move |source| TrustError::Io { act, path, source }
    };
    DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(failed("create", &dir))?;
    for path in [state, &dir] {
        check_owner(path)?;
    }
    let (entry, fresh) =
        (dir.join(entry_name(file)), dir.join(format!(".{}.{}", entry_name(file), std::process::id())));
    let record = format!("{}\n{}\n", hex(content), escape_bytes(file.as_os_str().as_bytes()));
    let open = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh);
    open.and_then(|mut f| f.write_all(record.as_bytes())).map_err(failed("write", &fresh))?;
    fs::rename(&fresh, &entry).map_err(failed("write", &entry))
}

/// Takes the trust in `file` back; says whether there was any.
pub fn revoke(state: &Path, file: &Path) -> Result<bool, TrustError> {
    let entry = state.join("trusted").join(entry_name(file));
    match fs::remove_file(&entry) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(TrustError::Io { act: "remove", path: entry, source }),
    }
}

fn check_owner(path: &Path) -> Result<(), TrustError> {
    let found = fs::metadata(path).map_err(|source| TrustError::Io { act: "look at", path: path.into(), source })?;
    let ours = found.uid() == nix::unistd::geteuid().as_raw() && found.mode() & 0o022 == 0;
    if ours { Ok(()) } else { Err(TrustError::Open(path.into())) }
}

fn entry_name(file: &Path) -> String {
    hex(file.as_os_str().as_bytes())
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
