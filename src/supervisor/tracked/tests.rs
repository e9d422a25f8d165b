//! What is told is held against what git itself tells of real repositories.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use super::*;

/// A directory for repositories, and numbers that look random but are the same each time.
struct Scene {
    top: PathBuf,
    _directory: tempfile::TempDir,
    seed: u64,
}

/// `None` where there is no git, said aloud.
fn scene(seed: u64) -> Option<Scene> {
    if Command::new("git").arg("--version").output().is_err() {
        println!("skipped: git is not installed");
        return None;
    }
    let directory = tempfile::tempdir().unwrap();
    let top = fs::canonicalize(directory.path()).unwrap();
    Some(Scene { top, _directory: directory, seed })
}

fn git(at: &Path, arguments: &[&str]) -> Vec<u8> {
    let output = run(at, arguments);
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Runs git, whoever runs this and whatever that person's settings are.
fn run(at: &Path, arguments: &[&str]) -> Output {
    let settings = ["user.name=a", "user.email=a@b", "protocol.file.allow=always", "commit.gpgsign=false", "gc.auto=0"];
    Command::new("git")
        .current_dir(at)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", at)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .args(settings.iter().flat_map(|setting| ["-c", setting]))
        .args(arguments)
        .output()
        .unwrap()
}

/// What git says of the files below a work tree that it does not pass over in silence. Directories end in a slash.
fn status(root: &Path) -> BTreeMap<Vec<u8>, GitState> {
    let arguments = ["--no-optional-locks", "status", "--porcelain", "-z", "--no-renames", "-uall", "--ignored"];
    let text = git(root, &arguments);
    let lines = text.split(|byte| *byte == 0).filter(|line| !line.is_empty());
    let state = |line: &[u8]| match (line[0], line[1]) {
        (b'?', _) => GitState::Untracked,
        (b'!', _) => GitState::Ignored,
        (_, b' ') => GitState::Clean,
        _ => GitState::Modified,
    };
    // A file that was taken out of the index and still lies there has two lines; the second one is about the file.
    lines.map(|line| (line[3..].to_vec(), state(line))).collect()
}

/// The files and links below a work tree, without those of git and of work trees inside it.
fn files(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![root.to_path_buf()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap().flatten() {
            let path = entry.path();
            if entry.file_name() == ".git" || path.join(".git").symlink_metadata().is_ok() {
                continue;
            }
            if entry.file_type().unwrap().is_dir() { directories.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

fn told(trees: &WorkTrees, path: &Path, now: Instant) -> Option<GitState> {
    let directory = fs::File::open(path.parent().unwrap()).unwrap();
    let name = CString::new(path.file_name().unwrap().as_bytes()).unwrap();
    let stat = file::fstatat(directory.as_raw_fd(), &name, libc::AT_SYMLINK_NOFOLLOW).unwrap();
    trees.state(directory.as_fd(), path, &stat, now)
}

/// How many files are in which state; each agrees with git, except that what git finds unchanged only by reading it is
/// told to be modified.
fn compare(root: &Path) -> BTreeMap<GitState, usize> {
    let said = status(root);
    let trees = WorkTrees::default();
    let mut counts = BTreeMap::new();
    for path in files(root) {
        let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes();
        let above = |(name_said, state): (&Vec<u8>, &GitState)| {
            (name_said.ends_with(b"/") && name.starts_with(name_said)).then_some(*state)
        };
        let expected = said.get(name).copied().or_else(|| said.iter().find_map(above)).unwrap_or(GitState::Clean);
        let found = told(&trees, &path, Instant::now()).unwrap_or_else(|| panic!("nothing told of {}", path.display()));
        let safe = expected == GitState::Clean && found == GitState::Modified;
        assert!(found == expected || safe, "{}: git says {expected:?}, told {found:?}", path.display());
        *counts.entry(found).or_default() += 1;
    }
    counts
}

impl Scene {
    fn number(&mut self, below: usize) -> usize {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 33) as usize % below
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.number(of.len())]
    }

    /// Some lines for a `.gitignore`, made of parts that fit the names in the repository.
    fn rules(&mut self) -> String {
        const PARTS: &[&str] = &[
            "d1",
            "d",
            "e2",
            "e",
            "file-",
            "file",
            "1",
            "2",
            "*",
            "*",
            "*",
            "?",
            "**",
            "**/",
            "/",
            "/",
            "[a-f]",
            "[!1-5]",
            "[[:digit:]]",
            "[^]x]",
            "[e",
            ".new",
            "\\1",
            "\\ ",
            " ",
            "***",
            "-",
            "[1-",
            "[]-a]",
            "x",
        ];
        let mut text = String::new();
        for _ in 0..1 + self.number(4) {
            text.push_str(self.pick(&["", "", "", "!", "/", "**/", "*", "#", "  "]));
            for _ in 0..1 + self.number(5) {
                text.push_str(self.pick(PARTS));
            }
            text.push_str(self.pick(&["\n", "\n", "\n", "/\n", " \n", "\r\n", "*\n", "/**\n"]));
        }
        text
    }

    fn write(&mut self, path: &Path) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let length = self.number(40);
        fs::write(path, "x".repeat(length)).unwrap();
    }

    /// A repository of some hundred files, all held, with an index that is younger than all of them.
    fn repository(&mut self, name: &str, options: &[&str]) -> PathBuf {
        let root = self.top.join(name);
        fs::create_dir_all(&root).unwrap();
        git(&root, &[&["init", "-q"], options].concat());
        for n in 0..200 {
            let (a, b) = (self.number(6), self.number(4));
            self.write(&root.join(format!("d{a}/e{b}/file-{n}")));
        }
        self.write(&root.join("a name\n with \\ and \u{fc}"));
        self.write(&root.join("e".repeat(200)).join("f".repeat(200)));
        std::os::unix::fs::symlink("nowhere", root.join("link")).unwrap();
        settle();
        git(&root, &["add", "-A"]);
        git(&root, &["commit", "-qm", "all"]);
        root
    }

    /// Does something to some of the files.
    fn stir(&mut self, root: &Path) {
        for (n, path) in files(root).into_iter().enumerate() {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_string();
            match self.number(16) {
                0 => fs::write(&path, format!("other {n}")).unwrap(),
                // The same size: only times tell.
                1 if path.metadata().is_ok() => {
                    let length = path.metadata().unwrap().len();
                    fs::write(&path, "y".repeat(length as usize)).unwrap();
                }
                2 => drop(git(root, &["rm", "-qf", "--cached", "--ignore-unmatch", "--", &name])),
                3 if path.metadata().is_ok() => {
                    let other = if path.metadata().unwrap().permissions().mode() & 0o100 == 0 { 0o755 } else { 0o644 };
                    fs::set_permissions(&path, fs::Permissions::from_mode(other)).unwrap();
                }
                4 => fs::rename(&path, path.with_extension("moved")).unwrap(),
                5 => self.write(&path.with_extension("new")),
                6 => fs::remove_file(&path).unwrap(),
                7 => {
                    let new = path.with_extension("promised");
                    self.write(&new);
                    git(root, &["add", "-N", "--", new.to_str().unwrap()]);
                }
                8 => {
                    let new = path.with_extension("added");
                    self.write(&new);
                    git(root, &["add", "--", new.to_str().unwrap()]);
                }
                // The same content in another file of the same name.
                9 if path.metadata().is_ok() => {
                    let content = fs::read(&path).unwrap();
                    fs::remove_file(&path).unwrap();
                    fs::write(&path, content).unwrap();
                }
                // The same content and time, but a link instead of a file.
                10 => {
                    fs::remove_file(&path).unwrap();
                    std::os::unix::fs::symlink("x", &path).unwrap();
                }
                _ => {}
            }
        }
    }
}

/// Until the clock of the file system has gone on, so that what comes is younger.
fn settle() {
    std::thread::sleep(Duration::from_millis(30));
}

#[test]
fn each_file_is_told_as_git_tells_it_whatever_was_done() {
    for (seed, options, version) in
        [(1, &[][..], "2"), (2, &[], "3"), (3, &[], "4"), (4, &["--object-format=sha256"], "2"), (5, &[], "4")]
    {
        let Some(mut scene) = scene(seed) else { return };
        let root = scene.repository("r", options);
        git(&root, &["update-index", "--index-version", version]);
        git(&root, &["status"]);
        let all = files(&root).len();
        assert_eq!(compare(&root), BTreeMap::from([(GitState::Clean, all)]), "seed {seed}");
        for _ in 0..3 {
            scene.stir(&root);
            compare(&root);
            settle();
            git(&root, &["status"]);
            let counts = compare(&root);
            let many = |state| counts.get(&state).is_some_and(|count| *count > 5);
            assert!(many(GitState::Clean) && many(GitState::Modified) && many(GitState::Untracked), "{counts:?}");
        }
    }
}

#[test]
fn what_git_was_told_to_leave_out_is_told_as_git_tells_it() {
    let Some(mut scene) = scene(6) else { return };
    let root = scene.repository("r", &[]);
    git(&root, &["rm", "-rfq", "--cached", "."]);
    let mut ignored = 0;
    for _ in 0..40 {
        for place in [".git/info/exclude", ".gitignore", "d1/.gitignore", "d2/.gitignore", "d3/e1/.gitignore"] {
            let text = scene.rules();
            fs::write(root.join(place), text).unwrap();
        }
        let counts = compare(&root);
        ignored += counts.get(&GitState::Ignored).copied().unwrap_or(0);
        assert!(!counts.contains_key(&GitState::Clean));
    }
    assert!(ignored > 400, "{ignored}");
}

#[test]
fn wildcards_reach_over_directories_where_git_lets_them() {
    let Some(mut scene) = scene(13) else { return };
    let root = scene.repository("r", &[]);
    git(&root, &["rm", "-rfq", "--cached", "."]);
    // The second is a whim of git's: what stands before the first wildcard is taken off, and `**` is then the start.
    for rule in ["**/file-1*", "d1**/file-*", "d1/***/file-*", "/d2/**", "d*/e1/", "d1/*", "*/e[0-2]/*", "!d1\n*\n!d2/"]
    {
        fs::write(root.join(".gitignore"), rule).unwrap();
        assert!(compare(&root).get(&GitState::Ignored).is_some_and(|count| *count > 3), "{rule}");
    }
    fs::write(root.join(".gitignore"), "xd1**/file-*\nd1*x**/file-*\nd1*/file-*\nd1/file-*\n/file-*").unwrap();
    assert!(!compare(&root).contains_key(&GitState::Ignored));
}

#[test]
fn rules_that_would_take_for_ever_are_given_up() {
    let rules = ignored::rules("*a*a*a*a*a*a*a*a*a*a*b\n".repeat(4000).as_bytes());
    let mut effort = Effort(EFFORT);
    assert_eq!(ignored::say(&rules, "a".repeat(200).as_bytes(), false, &mut effort), None);
    assert!(effort.0 < 100);
    assert_eq!(ignored::say(&rules, b"aaaaaaaaaab", false, &mut Effort(EFFORT)), Some(true));
}

#[test]
fn a_file_changed_in_the_instant_of_the_index_is_not_clean() {
    let Some(mut scene) = scene(7) else { return };
    let root = scene.repository("r", &[]);
    let path = root.join("quick");
    for round in 0..50 {
        fs::write(&path, format!("{round:4} a")).unwrap();
        git(&root, &["add", "quick"]);
        fs::write(&path, format!("{round:4} b")).unwrap();
        assert_eq!(told(&WorkTrees::default(), &path, Instant::now()), Some(GitState::Modified), "round {round}");
    }
}

#[test]
fn a_file_as_old_as_the_index_is_not_clean() {
    let Some(mut scene) = scene(14) else { return };
    let root = scene.repository("r", &[]);
    let index = Index::parse(&fs::read(root.join(".git/index")).unwrap(), Hash::Sha1).unwrap();
    let stat = file::fstatat(
        libc::AT_FDCWD,
        &c_string(root.join("link").as_os_str().as_bytes()).unwrap(),
        libc::AT_SYMLINK_NOFOLLOW,
    )
    .unwrap();
    let look = |seconds, nanoseconds| {
        index.look(b"link", &stat, Time::new(stat.st_mtime + seconds, stat.st_mtime_nsec + nanoseconds))
    };
    assert_eq!([look(0, 1), look(0, 0), look(-1, 0)], [Said::Same, Said::Differs, Said::Differs]);
    // Each of these alone tells another file.
    let changes: [fn(&mut libc::stat); 5] = [
        |stat| stat.st_ino += 1,
        |stat| stat.st_ctime_nsec += 1,
        |stat| stat.st_mtime_nsec += 1,
        |stat| stat.st_mode = libc::S_IFREG | 0o644,
        |stat| stat.st_size += 1,
    ];
    let others = changes.map(|change| {
        let mut other = stat;
        change(&mut other);
        other
    });
    let later = Time::new(i64::from(u32::MAX), 0);
    assert_eq!(others.map(|other| index.look(b"link", &other, later)), [Said::Differs; 5]);
}

#[test]
fn linked_work_trees_submodules_and_repositories_inside_others_have_their_own_state() {
    let Some(mut scene) = scene(8) else { return };
    let root = scene.repository("r", &[]);
    let other = scene.repository("other", &[]);
    let inner = scene.repository("r/inner", &[]);
    git(&root, &["worktree", "add", "-q", "../linked"]);
    git(&root, &["submodule", "--quiet", "add", other.to_str().unwrap(), "sub"]);
    let (linked, sub) = (scene.top.join("linked"), root.join("sub"));
    assert!(sub.join(".git").is_file() && linked.join(".git").is_file());
    for tree in [&root, &inner, &linked, &sub] {
        scene.stir(tree);
        settle();
        git(tree, &["status"]);
        let counts = compare(tree);
        assert!(counts.len() > 2, "{}: {counts:?}", tree.display());
    }
}

#[test]
fn conflicts_and_files_left_out_are_not_clean() {
    let Some(mut scene) = scene(9) else { return };
    let root = scene.repository("r", &[]);
    let path = root.join("link");
    git(&root, &["checkout", "-q", "-b", "one"]);
    fs::write(root.join("both"), "one").unwrap();
    git(&root, &["add", "both"]);
    git(&root, &["commit", "-qm", "one"]);
    git(&root, &["checkout", "-q", "-b", "two", "HEAD~1"]);
    fs::write(root.join("both"), "two").unwrap();
    git(&root, &["add", "both"]);
    git(&root, &["commit", "-qm", "two"]);
    settle();
    git(&root, &["status"]);
    let trees = WorkTrees::default();
    let now = Instant::now();
    assert_eq!(told(&trees, &root.join("both"), now), Some(GitState::Clean));
    assert_eq!(told(&trees, &path, now), Some(GitState::Clean));
    let merged = run(&root, &["merge", "-q", "one"]);
    assert!(String::from_utf8_lossy(&merged.stdout).contains("CONFLICT"), "{merged:?}");
    git(&root, &["update-index", "--skip-worktree", "link"]);
    // The index is looked at again after a moment.
    let now = now + FRESH;
    assert_eq!(told(&trees, &root.join("both"), now), Some(GitState::Modified));
    assert_eq!(told(&trees, &path, now), Some(GitState::Modified));
}

#[test]
fn nothing_is_told_where_git_is_not_or_cannot_be_read() {
    let Some(mut scene) = scene(10) else { return };
    let root = scene.repository("r", &[]);
    let plain = scene.top.join("plain");
    fs::write(&plain, "").unwrap();
    let fresh = |path: &Path| told(&WorkTrees::default(), path, Instant::now());
    assert_eq!(fresh(&plain), None);
    assert_eq!(fresh(&root.join("d1")), None);
    assert_eq!(fresh(&root.join(".git/HEAD")), None);
    let link = root.join("link");
    assert!(fresh(&link).is_some());
    git(&root, &["update-index", "--split-index"]);
    assert_eq!(fresh(&link), None);
    git(&root, &["update-index", "--no-split-index"]);
    assert!(fresh(&link).is_some());
    git(&root, &["config", "core.worktree", "/elsewhere"]);
    assert_eq!(fresh(&link), None);
    fs::remove_file(root.join(".git/config")).unwrap();
    assert!(fresh(&link).is_some());
    fs::remove_file(root.join(".git/index")).unwrap();
    assert_eq!(fresh(&link), Some(GitState::Untracked));
    // Nobody writes to this pipe, and nobody waits for that.
    nix::unistd::mkfifo(&root.join(".git/index"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert_eq!(fresh(&link), None);
    fs::rename(root.join(".git"), root.join("moved")).unwrap();
    std::os::unix::fs::symlink("moved", root.join(".git")).unwrap();
    assert_eq!(fresh(&link), None);
    fs::remove_file(root.join(".git")).unwrap();
    fs::create_dir(root.join(".git")).unwrap();
    assert_eq!(fresh(&link), None);
}

#[test]
fn an_empty_directory_named_git_does_not_hide_the_repository_above() {
    let Some(mut scene) = scene(11) else { return };
    let root = scene.repository("r", &[]);
    fs::create_dir(root.join("d1/.git")).unwrap();
    let path = files(&root).into_iter().find(|path| path.starts_with(root.join("d2"))).unwrap();
    let below = fs::read_dir(root.join("d1")).unwrap().flatten().find(|entry| entry.file_name() != ".git").unwrap();
    let below = fs::read_dir(below.path()).unwrap().flatten().next().unwrap().path();
    let trees = WorkTrees::default();
    let now = Instant::now();
    assert_eq!([told(&trees, &path, now), told(&trees, &below, now)], [Some(GitState::Clean); 2]);
}

#[test]
fn a_damaged_index_is_read_without_harm_and_never_vouches_for_what_it_did_not() {
    let Some(mut scene) = scene(12) else { return };
    for (name, options, hash, version) in [
        ("a", &[][..], Hash::Sha1, "2"),
        ("b", &[], Hash::Sha1, "4"),
        ("c", &["--object-format=sha256"], Hash::Sha256, "2"),
    ] {
        let root = scene.repository(name, options);
        scene.stir(&root);
        settle();
        git(&root, &["update-index", "--index-version", version]);
        git(&root, &["status"]);
        let bytes = fs::read(root.join(".git/index")).unwrap();
        let written = Time::new(i64::from(u32::MAX), 0);
        let seen: Vec<(Vec<u8>, libc::stat)> = files(&root)
            .iter()
            .map(|path| {
                let name = CString::new(path.as_os_str().as_bytes()).unwrap();
                let stat = file::fstatat(libc::AT_FDCWD, &name, libc::AT_SYMLINK_NOFOLLOW).unwrap();
                (path.strip_prefix(&root).unwrap().as_os_str().as_bytes().to_vec(), stat)
            })
            .collect();
        let whole = Index::parse(&bytes, hash).unwrap();
        let clean: Vec<bool> = seen.iter().map(|(name, stat)| whole.look(name, stat, written) == Said::Same).collect();
        assert!(clean.contains(&true) && clean.contains(&false));
        let (mut read, mut refused) = (0, 0);
        for round in 0..3000 {
            let mut damaged = bytes.clone();
            for _ in 0..=round % 4 {
                let at = scene.number(damaged.len());
                damaged[at] = scene.number(256) as u8;
            }
            if round % 7 == 0 {
                damaged.truncate(scene.number(bytes.len()));
            }
            let Some(index) = Index::parse(&damaged, hash) else {
                refused += 1;
                continue;
            };
            read += 1;
            for ((name, stat), clean) in seen.iter().zip(&clean) {
                assert!(*clean || index.look(name, stat, written) != Said::Same, "round {round}");
            }
        }
        assert!(read > 100 && refused > 100, "{read} read, {refused} refused");
        assert!(Index::parse(&[], hash).is_none());
    }
}
