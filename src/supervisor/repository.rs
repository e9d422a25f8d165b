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
    /// Remembers what was just made if git takes it for a repository: a directory named `.git`, a file of that name, which
    /// sends git elsewhere, or the part of a repository that belongs to one linked work tree.
    pub(super) fn note(&self, made: &Resolved) {
        let Spot::Name { parent, name } = &made.spot else { return };
        let path = made.path.as_path();
        let repository = path.file_name() == Some(".git".as_ref());
        if !repository && !path.parent().is_some_and(|above| above.ends_with("worktrees")) {
            return;
        }
        if let Ok(stat) = file::fstatat(parent.as_raw_fd(), name, libc::AT_SYMLINK_NOFOLLOW) {
            lock(&self.repositories).insert((stat.st_dev, stat.st_ino));
        }
        if repository {
            lock(&self.repository_paths).push(path.to_path_buf());
        }
    }

    /// Whether a resolved name is, or lies in, a git directory that was made in this run, or one linked work tree's part of
    /// one.
    ///
    /// Judged on the directory that is held open and those above it, not on the path's text: a directory that was moved
    /// is the same directory.
    pub(super) fn owns(&self, resolved: &Resolved) -> bool {
        let path = resolved.path.as_path();
        // Most names have no such component, and most runs make no repository.
        let levels = [depth_below_git(path), depth_in_linked(path)];
        if levels == [None, None] || lock(&self.repositories).is_empty() {
            return false;
        }
        levels.into_iter().flatten().any(|levels| self.owns_above(resolved, levels))
    }

    /// Whether what stands `levels` above a resolved name was made in this run.
    fn owns_above(&self, resolved: &Resolved, levels: usize) -> bool {
        match &resolved.spot {
            // The name itself: what it is now.
            Spot::Name { .. } if levels == 0 => {
                resolved.stat.is_some_and(|stat| self.is_own((stat.st_dev, stat.st_ino)))
            }
            Spot::Name { parent, .. } => self.ancestor_is_own(parent, levels - 1),
            // Reached by descriptor: its path was seen to lead to it.
            Spot::Object { standing: Standing::Named, .. } => {
                resolved.path.as_path().ancestors().nth(levels).is_some_and(|above| self.is_own_path(above))
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

/// How many names below a linked work tree's part of a repository (`worktrees/NAME`) a path ends, if that is at most one:
/// what lies deeper may have been moved there.
fn depth_in_linked(path: &Path) -> Option<usize> {
    (0..=1).find(|levels| path.ancestors().nth(levels + 1).is_some_and(|above| above.ends_with("worktrees")))
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
        let linked =
            ["/r.git/worktrees/a", "/r.git/worktrees/a/gitdir", "/r.git/worktrees/a/b/config", "/r.git/worktrees"];
        assert_eq!(linked.map(|path| depth_in_linked(Path::new(path))), [Some(0), Some(1), None, None]);
    }
}
