//! A work tree whose `.git` is a file: its git directory lies elsewhere and is granted with it.
//!
//! The file itself proves nothing, for who may write to the work tree wrote it perhaps. So the place it names must lead
//! back: git keeps the work tree's path there, in a linked work tree's `gitdir` file (gitrepository-layout(5)) or a
//! submodule's `core.worktree`, and boxes may change neither.

use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// More than any of these files holds.
const MOST: u64 = 64 << 10;

/// The repository to which the `.git` of `workdir` leads, if that is a file; an error is a line for the person.
pub(super) fn repository(workdir: &Path) -> Option<Result<PathBuf, String>> {
    let pointer = workdir.join(".git");
    if !fs::symlink_metadata(&pointer).ok()?.is_file() {
        return None;
    }
    let named = PathBuf::from(small(&pointer)?.trim_ascii_end().strip_prefix("gitdir: ")?);
    let lost = |why: String| {
        let (pointer, place) = (pointer.display(), named.display());
        format!("{pointer} leads to {place}, which {why}: git will not find its repository inside")
    };
    let Ok(own) = fs::canonicalize(workdir.join(&named)) else {
        return Some(Err(lost("is not there (mend it with `git worktree repair` in the repository)".into())));
    };
    let found = linked(&own, &pointer).or_else(|| submodule(&own, workdir));
    let found =
        found.filter(|repository| ["HEAD", "objects", "refs"].iter().all(|name| repository.join(name).exists()));
    let fix = |place: &Path| format!("does not lead back here (allow with -w {} if it is yours)", place.display());
    Some(found.ok_or_else(|| lost(fix(&own))))
}

/// The repository of a linked work tree: `REPOSITORY/worktrees/NAME`, whose `gitdir` file names the pointer.
fn linked(own: &Path, pointer: &Path) -> Option<PathBuf> {
    let worktrees = own.parent().filter(|above| above.file_name() == Some("worktrees".as_ref()))?;
    let back = small(&own.join("gitdir"))?;
    let leads_back = fs::canonicalize(own.join(back.trim_ascii_end())).ok()? == fs::canonicalize(pointer).ok()?;
    leads_back.then(|| worktrees.parent().map(Path::to_path_buf))?
}

/// The repository of a submodule: below `.git/modules` of the one around it, whose configuration names the work tree.
fn submodule(own: &Path, workdir: &Path) -> Option<PathBuf> {
    let bytes = own.as_os_str().as_bytes();
    let below = b"/.git/modules/";
    bytes.windows(below.len()).position(|window| window == below)?;
    let config = small(&own.join("config"))?;
    let back = config.lines().find_map(|line| line.trim().strip_prefix("worktree = "))?;
    (fs::canonicalize(own.join(back)).ok()? == workdir).then(|| own.to_path_buf())
}

/// The text of a small regular file.
fn small(path: &Path) -> Option<String> {
    let mut text = String::new();
    let file = fs::File::open(path).ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let read = file.take(MOST).read_to_string(&mut text).ok()?;
    ((read as u64) < MOST).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scene(tempfile::TempDir);

    impl Scene {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn path(&self, name: &str) -> PathBuf {
            fs::canonicalize(self.0.path()).unwrap().join(name)
        }

        fn file(&self, name: &str, text: &str) {
            fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
            fs::write(self.path(name), text).unwrap();
        }

        fn repository(&self, at: &str) {
            for name in ["HEAD", "objects/x", "refs/x"] {
                self.file(&format!("{at}/{name}"), "");
            }
        }

        fn look(&self) -> Option<Result<PathBuf, String>> {
            repository(&self.path("tree"))
        }
    }

    #[test]
    fn a_linked_work_tree_and_its_repository_lead_to_each_other() {
        let scene = Scene::new();
        scene.repository("main/.git");
        scene.file("tree/.git", "gitdir: ../main/.git/worktrees/tree\n");
        scene.file("main/.git/worktrees/tree/gitdir", &format!("{}\n", scene.path("tree/.git").display()));
        assert_eq!(scene.look(), Some(Ok(scene.path("main/.git"))));
        scene.file("main/.git/worktrees/tree/gitdir", "../../../../tree/.git\n");
        assert_eq!(scene.look(), Some(Ok(scene.path("main/.git"))));
        scene.file("other/.git", "");
        scene.file("main/.git/worktrees/tree/gitdir", "../../../../other/.git\n");
        assert!(scene.look().unwrap().unwrap_err().contains("does not lead back"));
    }

    #[test]
    fn a_submodule_and_its_repository_lead_to_each_other() {
        let scene = Scene::new();
        scene.repository("super/.git/modules/tree");
        scene.file("tree/.git", "gitdir: ../super/.git/modules/tree\n");
        scene.file("super/.git/modules/tree/config", "[core]\n\tworktree = ../../../../tree\n");
        assert_eq!(scene.look(), Some(Ok(scene.path("super/.git/modules/tree"))));
        scene.file("super/.git/modules/tree/config", "[core]\n\tworktree = ../../../../other\n");
        assert!(scene.look().unwrap().is_err());
    }

    #[test]
    fn a_pointer_to_anything_else_grants_nothing() {
        let scene = Scene::new();
        scene.file("tree/x", "");
        assert_eq!(scene.look(), None);
        scene.file("secret/HEAD", "");
        scene.file("tree/.git", "gitdir: ../secret");
        assert!(scene.look().unwrap().is_err());
        scene.file("tree/.git", "gitdir: ../gone");
        assert!(scene.look().unwrap().unwrap_err().contains("not there"));
        scene.file("tree/.git", "no pointer");
        assert_eq!(scene.look(), None);
    }
}
