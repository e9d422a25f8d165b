//! `agentbox log key`: the key that signs logs, made if there is none.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use anyhow::{Context, Result};

use super::{FINE, Output};
use crate::audit::key::{SigningKey, standard};
use crate::audit::text::printable;

/// Prints the public key to the private one in `file`, or to the one in `state` with which every run signs.
pub fn key(state: &Path, file: Option<&Path>, pem: bool, output: &mut Output<'_>) -> Result<u8> {
    let own = standard(state);
    let path = file.unwrap_or(&own);
    let missing = fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    if missing && file.is_none() {
        let made = DirBuilder::new().mode(0o700).recursive(true).create(state);
        made.with_context(|| format!("cannot make {} for the key", state.display()))?;
    }
    let key = if missing { SigningKey::make(path)? } else { SigningKey::read(path)? };
    let public = key.public();
    if pem {
        write!(output.out, "{}", public.pem())?;
        return Ok(FINE);
    }
    let signs = match file {
        None => "every run signs with it",
        Some(_) => "runs with --key and this file sign with it",
    };
    let made = if missing { "made now; " } else { "" };
    writeln!(output.out, "public key   {public}")?;
    writeln!(output.out, "private key  {} ({made}{signs})", printable(&path.to_string_lossy()))?;
    Ok(FINE)
}
