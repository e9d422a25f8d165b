//! Git directories made inside the run: which they are, and what they carry that would run programs later.

use std::fmt;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Component, Path};

use super::resolve::{Resolved, Spot, Standing};
use super::{Made, lock};
use crate::sys::file;

/// Something in a new repository that runs programs when the repository is used outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// An active hook.
    Hook(String),
    /// A setting that names a program.
    Setting(String),
    /// Git is sent elsewhere for settings and hooks.
    Elsewhere(String),
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hook(name) => write!(f, "hook {name}"),
            Self::Setting(key) => write!(f, "setting {key}"),
            Self::Elsewhere(path) => write!(f, "what lies in {path}"),
        }
    }
}

impl Made {
    /// Remembers a directory named `.git` that was just made below `parent`.
    pub(super) fn note_directory(&self, made: &Resolved) {
        let Spot::Name { parent, name } = &made.spot else { return };
        if made.path.as_path().file_name() != Some(".git".as_ref()) {
            return;
        }
        if let Ok(stat) = file::fstatat(parent.as_raw_fd(), name, libc::AT_SYMLINK_NOFOLLOW) {
            lock(&self.repositories).insert((stat.st_dev, stat.st_ino));
            lock(&self.repository_paths).push(made.path.as_path().to_path_buf());
        }
    }

    /// Remembers a file named `.git` that was just made: it sends git elsewhere.
    pub(super) fn note_file(&self, made: &Resolved) {
        if made.path.as_path().file_name() == Some(".git".as_ref()) {
            lock(&self.repository_paths).push(made.path.as_path().to_path_buf());
        }
    }

    /// Whether a resolved name is, or lies in, a git directory that was made in this run.
    ///
    /// Judged on the directory that is held open and those above it, not on the path's text: a directory that was moved
    /// is the same directory.
    pub(super) fn owns(&self, resolved: &Resolved) -> bool {
        let path = resolved.path.as_path();
        // Most names have no such component, and most runs make no repository.
        let Some(depth) = depth_below_git(path) else { return false };
        if lock(&self.repositories).is_empty() {
            return false;
        }
        match &resolved.spot {
            // `.git` itself: what it is now.
            Spot::Name { .. } if depth == 0 => {
                resolved.stat.is_some_and(|stat| self.is_own((stat.st_dev, stat.st_ino)))
            }
            Spot::Name { parent, .. } => self.ancestor_is_own(parent, depth - 1),
            // Reached by descriptor: its path was seen to lead to it.
            Spot::Object { standing: Standing::Named, .. } => {
                path.ancestors().nth(depth).is_some_and(|git_dir| self.is_own_path(git_dir))
            }
            Spot::Object { .. } => false,
        }
    }

    fn ancestor_is_own(&self, parent: &OwnedFd, levels: usize) -> bool {
        let up = if levels == 0 { ".".to_string() } else { vec![".."; levels].join("/") };
        let Ok(up) = std::ffi::CString::new(up) else { return false };
        file::fstatat(parent.as_raw_fd(), &up, libc::AT_SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| self.is_own((stat.st_dev, stat.st_ino)))
    }

    fn is_own_path(&self, git_dir: &Path) -> bool {
        use std::os::unix::fs::MetadataExt;
        git_dir.symlink_metadata().is_ok_and(|found| self.is_own((found.dev(), found.ino())))
    }

    fn is_own(&self, identity: (u64, u64)) -> bool {
        lock(&self.repositories).contains(&identity)
    }
}

/// How many names below the last `.git` component a path ends; `None` without such a component.
fn depth_below_git(path: &Path) -> Option<usize> {
    path.components().rev().position(|component| component == Component::Normal(".git".as_ref()))
}

/// Looks through a git directory for what would run programs outside.
pub fn inspect(git_dir: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    const MOST: u64 = 1 << 20;
    let small = |path: &Path| path.metadata().is_ok_and(|meta| meta.is_file() && meta.len() <= MOST);
    for pointer in [git_dir.to_path_buf(), git_dir.join("commondir")] {
        if small(&pointer)
            && let Ok(text) = std::fs::read_to_string(&pointer)
        {
            let elsewhere = text.trim().trim_start_matches("gitdir:").trim();
            findings.push(Finding::Elsewhere(elsewhere.to_string()));
        }
    }
    if let Ok(hooks) = std::fs::read_dir(git_dir.join("hooks")) {
        let names = hooks.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
        findings.extend(names.filter(|name| !name.ends_with(".sample")).map(Finding::Hook));
    }
    for name in ["config", "config.worktree"] {
        let path = git_dir.join(name);
        if small(&path)
            && let Ok(text) = std::fs::read_to_string(&path)
        {
            findings.extend(settings_that_run(&text).map(Finding::Setting));
        }
    }
    findings
}

/// The keys of a git configuration that name a program: git-config(1).
fn settings_that_run(text: &str) -> impl Iterator<Item = String> {
    let mut section = String::new();
    let mut found = Vec::new();
    for line in text.lines().map(str::trim) {
        let mut rest = line;
        if let Some(header) = line.strip_prefix('[') {
            let (name, after) = header.split_once(']').unwrap_or((header, ""));
            section = name.split_whitespace().next().unwrap_or("").to_ascii_lowercase();
            rest = after.trim();
        }
        let key = rest.split(['=', ' ', '\t', '#', ';']).next().unwrap_or("").to_ascii_lowercase();
        if !key.is_empty() && runs(&section, &key) {
            found.push(format!("{section}.{key}"));
        }
    }
    found.into_iter()
}

fn runs(section: &str, key: &str) -> bool {
    match section {
        "core" => matches!(
            key,
            "hookspath"
                | "fsmonitor"
                | "sshcommand"
                | "editor"
                | "pager"
                | "askpass"
                | "gitproxy"
                | "alternaterefscommand"
        ),
        "filter" => matches!(key, "clean" | "smudge" | "process"),
        "diff" => matches!(key, "external" | "command" | "textconv"),
        "merge" => key == "driver",
        "credential" => key == "helper",
        "gpg" => key == "program",
        "include" | "includeif" => key == "path",
        "alias" | "pager" | "difftool" | "mergetool" | "browser" | "man" => true,
        "remote" => matches!(key, "uploadpack" | "receivepack" | "vcs"),
        "sequence" => key == "editor",
        "interactive" => key == "difffilter",
        "uploadpack" => key == "packobjectshook",
        "submodule" => key == "update",
        "url" => matches!(key, "insteadof" | "pushinsteadof"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_run_programs_are_found_in_every_spelling() {
        let text = "[core]\n\tbare = false\n\tfsMonitor=/tmp/x\n[alias] st = !sh\n[filter \"lfs\"]\nclean = x\n[user]\nname = a\n";
        let found: Vec<String> = settings_that_run(text).collect();
        assert_eq!(found, ["core.fsmonitor", "alias.st", "filter.clean"]);
    }

    #[test]
    fn a_git_file_tells_where_it_points() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(".git"), "gitdir: ../evil\n").unwrap();
        assert_eq!(inspect(&dir.path().join(".git")), [Finding::Elsewhere("../evil".into())]);
    }

    #[test]
    fn depth_counts_from_the_last_git_component() {
        assert_eq!(depth_below_git(Path::new("/w/.git/config")), Some(1));
        assert_eq!(depth_below_git(Path::new("/w/.git/modules/a/config")), Some(3));
        assert_eq!(depth_below_git(Path::new("/w/.git")), Some(0));
        assert_eq!(depth_below_git(Path::new("/w/git/config")), None);
    }
}
