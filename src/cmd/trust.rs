//! `agentbox trust`: puts the exact content of a policy file on record as read and wanted, or takes it off.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};

use super::print;
use crate::cli;
use crate::policy::World;
use crate::policy::load;
use crate::policy::trust;

/// Runs `agentbox trust` and returns the exit status.
pub fn run(args: &cli::Trust, world: &World) -> Result<u8> {
    let file = file(args, world)?;
    if args.revoke {
        let text = if trust::revoke(&world.state, &file)? { "is no longer trusted" } else { "was not trusted" };
        print(&format!("{} {text}\n", file.display()));
        return Ok(0);
    }
    let shown: Arc<str> = file.to_string_lossy().into();
    let content = load::read_file(&file, &shown)?;
    super::policy::print_notes(&load::check_content(&file, &shown, &content, world)?);
    trust::trust(&world.state, &file, &content)?;
    print(&format!("{shown} is trusted as it is now; a change to it takes the trust away\n"));
    Ok(0)
}

/// The file as runs will find it: its directory real, its own name as it is.
fn file(args: &cli::Trust, world: &World) -> Result<PathBuf> {
    let Some(file) = &args.file else {
        let cwd = fs::canonicalize(&world.cwd).context("cannot find the current directory")?;
        let home = fs::canonicalize(&world.home).unwrap_or_else(|_| world.home.clone());
        return match trust::find_project(&cwd, &home) {
            Some(file) => Ok(file),
            None => {
                bail!("there is no {} here or above, up to the top of the project: name a file", trust::PROJECT_FILE)
            }
        };
    };
    let path = world.cwd.join(file);
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else { bail!("{} is not a file", file.display()) };
    match fs::canonicalize(dir) {
        Ok(dir) => Ok(dir.join(name)),
        Err(e) => Err(e).with_context(|| format!("cannot find {}", dir.display())),
    }
}
