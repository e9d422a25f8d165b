//! The tools agents use give the same results inside and outside: what they print, how they end, and the tree they
//! leave (names, modes, content; not times).

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use common::{Outcome, Scene, compiler, listing, program, text};

const GIT: &str = "git -c user.name=a -c user.email=a@example.org -c init.defaultBranch=main";
/// Commits are the same bytes whenever they are made.
const DATES: &str = "export GIT_AUTHOR_DATE=2026-01-01T00:00:00Z GIT_COMMITTER_DATE=2026-01-01T00:00:00Z; set -e";

/// What a line left: the workspace's tree without what `but` names.
fn tree(scene: &Scene, but: &[&str]) -> BTreeMap<String, String> {
    let mut tree = listing(&scene.work);
    tree.retain(|path, _| !but.iter().any(|part| path.contains(part)));
    tree
}

/// Runs the same shell line in two scenes laid out alike, free and boxed, and compares code, output and tree.
///
/// Scenes have different paths: what is printed is compared with the scene's own path replaced.
#[track_caller]
fn same(flags: &[&str], lay: impl Fn(&Scene), line: &str, but: &[&str]) -> Outcome {
    let plain = |scene: &Scene, text_in: &str| text_in.replace(text(&scene.root), "SCENE");
    let outside = Scene::new();
    lay(&outside);
    let free = outside.free_sh(line);
    free.exits(0);
    let inside = Scene::new();
    lay(&inside);
    let boxed = inside.boxed_sh(flags, line);
    boxed.exits(0);
    assert_eq!(plain(&outside, &free.out), plain(&inside, &boxed.out), "{boxed}");
    let (left, right) = (tree(&outside, but), tree(&inside, but));
    for (path, entry) in &left {
        assert_eq!(Some(entry), right.get(path), "{path}\n{boxed}");
    }
    let more: Vec<_> = right.keys().filter(|path| !left.contains_key(*path)).collect();
    assert!(more.is_empty(), "only in the box: {more:?}\n{boxed}");
    boxed
}

#[test]
fn git_init_and_commit() {
    if program("git").is_none() {
        skip!("no git in the system directories");
    }
    let line = format!(
        "{DATES}; {GIT} init -q new; cd new; echo one > f; {GIT} add f; {GIT} commit -q -m first; echo two >> f; \
         {GIT} commit -q -am second; {GIT} checkout -q -b side HEAD~1; echo three > g; {GIT} add g; {GIT} commit -q -m third; \
         {GIT} merge -q --no-edit main; {GIT} log --format='%H %s'; {GIT} status --short; {GIT} config user.name; \
         {GIT} stash list; {GIT} gc -q; {GIT} fsck --strict; ls .git/hooks | sort | head -n 3"
    );
    // The index holds times and inode numbers, the reflogs' names are the same.
    same(&[], |_| (), &line, &[".git/index"]);
}

#[test]
fn git_config_of_a_repository_made_in_the_box_is_its_own() {
    if program("git").is_none() {
        skip!("no git in the system directories");
    }
    let line = "git init -q new && git -C new config user.name somebody && git -C new config user.name";
    let boxed = same(&[], |_| (), line, &[".git/index"]);
    boxed.must(boxed.out.trim() == "somebody", "its config is writable");
}

#[test]
fn git_clone_of_a_local_repository() {
    if program("git").is_none() {
        skip!("no git in the system directories");
    }
    let lay = |scene: &Scene| {
        let origin = format!(
            "{DATES}; {GIT} init -q origin; cd origin; echo one > f; {GIT} add f; {GIT} commit -q -m first; {GIT} tag v1"
        );
        scene.free_sh(&origin).exits(0);
    };
    let line = format!(
        "{DATES}; {GIT} clone -q origin copy; cd copy; {GIT} log --format=%H; cat f; {GIT} remote | cat; \
         echo two > g; {GIT} add g; {GIT} commit -q -m second; {GIT} push -q origin HEAD:refs/heads/side; cd ..; \
         {GIT} clone -q --no-local origin copy2; {GIT} -C copy2 log --format=%H origin/side"
    );
    // Clones record the scene's own path; packs are compared through the commits printed above.
    same(&[], lay, &line, &[".git/index", ".git/config", ".git/logs", "FETCH_HEAD", ".git/objects/pack"]);
}

#[test]
fn git_config_of_an_existing_repository_is_refused_with_the_way_out() {
    if program("git").is_none() {
        skip!("no git in the system directories");
    }
    let scene = Scene::new();
    scene.free(&["git", "init", "-q", "old"]).exits(0);
    let config = scene.work.join("old/.git/config");
    let before = fs::read(&config).expect("read the config");
    let act = ["git", "-C", "old", "config", "core.fsmonitor", "touch owned"];
    let boxed = scene.boxed(&[], &act);
    boxed.must(boxed.code != 0, "the config was changed");
    assert_eq!(fs::read(&config).expect("read the config"), before, "{boxed}");
    boxed.must(boxed.denied(&[], "old/.git/config"), "no record of the refusal");
    boxed.must(boxed.err.contains("agentbox:") && boxed.err.contains("protect"), "the message names the opt-out");
    // Ordinary work in it goes on.
    let work = format!("cd old && echo x > f && {GIT} add f && {GIT} commit -q -m work && {GIT} log --format=%s");
    let boxed = scene.boxed_sh(&[], &work);
    boxed.exits(0).must(boxed.out.trim() == "work", "ordinary git work in an existing repository");
    scene.free(&act).exits(0);
    assert_ne!(fs::read(&config).expect("read the config"), before, "the control does not change it");
}

#[test]
fn a_new_repository_that_runs_programs_is_mentioned_at_the_end() {
    if program("git").is_none() {
        skip!("no git in the system directories");
    }
    let scene = Scene::new();
    let plain = scene.boxed_sh(&[], "git init -q plain");
    plain.exits(0).must(!plain.err.contains("plain"), "a harmless repository is not worth a line");
    let line = "git init -q live && git -C live config core.fsmonitor 'touch owned'";
    let boxed = scene.boxed_sh(&[], line);
    boxed.exits(0).must(boxed.err.contains("live"), "the summary says that its config runs programs");
}

#[test]
fn python_venv() {
    let Some(python) = program("python3") else { skip!("no python3 in the system directories") };
    let scene = Scene::new();
    if scene.free(&[text(&python), "-c", "import venv, ensurepip"]).code != 0 {
        skip!("no venv or ensurepip module for {}", python.display());
    }
    let line = "python3 -m venv --without-pip plain && plain/bin/python -c 'import sys; print(sys.prefix)' && \
                python3 -m venv env && env/bin/python -c 'import pip; print(pip.__version__)'";
    // Compiled files hold times; scripts hold the scene's path.
    let but = ["__pycache__", "env/bin/", "plain/bin/", "pyvenv.cfg", "RECORD", "direct_url"];
    same(&["-p", "python"], |_| (), line, &but);
}

const WHEEL: &str = r#"
import zipfile, base64, hashlib
files = {
    "shapes/__init__.py": "def area(side):\n    return side * side\n",
    "shapes-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: shapes\nVersion: 1.0\n",
    "shapes-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: agentbox-test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
}
record = "shapes-1.0.dist-info/RECORD"
def digest(text):
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
files[record] = "".join(f"{n},sha256={digest(t)},{len(t)}\n" for n, t in files.items()) + f"{record},,\n"
with zipfile.ZipFile("shapes-1.0-py3-none-any.whl", "w") as wheel:
    for name, text in files.items():
        wheel.writestr(zipfile.ZipInfo(name), text)
"#;

#[test]
fn pip_installs_a_local_wheel() {
    let Some(python) = program("python3") else { skip!("no python3 in the system directories") };
    let scene = Scene::new();
    if scene.free(&[text(&python), "-m", "pip", "--version"]).code != 0 {
        skip!("no pip module for {}", python.display());
    }
    let lay = |scene: &Scene| {
        scene.file("home/work/wheel.py", WHEEL);
        scene.free(&["python3", "wheel.py"]).exits(0);
    };
    let line = "python3 -m pip install -q --no-index --disable-pip-version-check --no-warn-script-location \
                --root-user-action=ignore --target lib ./shapes-1.0-py3-none-any.whl && \
                PYTHONPATH=lib python3 -c 'import shapes; print(shapes.area(7))'";
    let boxed = same(&["-p", "python"], lay, line, &["__pycache__", "direct_url.json", "RECORD"]);
    boxed.must(boxed.out.trim().ends_with("49"), "the package works");
}

/// The toolchain itself, past rustup's proxies: a home elsewhere does not confuse it.
fn toolchain() -> Option<PathBuf> {
    let asked = std::process::Command::new("rustc").args(["--print", "sysroot"]).output().ok()?;
    let sysroot = PathBuf::from(String::from_utf8(asked.stdout).ok()?.trim()).canonicalize().ok()?;
    let usable = std::process::Command::new(sysroot.join("bin/cargo")).arg("--version").output().ok()?;
    usable.status.success().then_some(sysroot)
}

#[test]
fn cargo_builds_a_crate_offline() {
    let (Some(sysroot), Some(_)) = (toolchain(), compiler()) else {
        skip!("no cargo that this user can reach, or no cc");
    };
    let lay = |scene: &Scene| {
        scene.file("home/work/Cargo.toml", "[package]\nname = \"small\"\nversion = \"0.1.0\"\nedition = \"2021\"\n");
        scene.file("home/work/src/main.rs", "mod part;\nfn main() {\n    println!(\"{}\", part::two() + 40);\n}\n");
        scene.file(
            "home/work/src/part.rs",
            "pub fn two() -> i32 {\n    2\n}\n#[test]\nfn it() {\n    assert_eq!(two(), 2);\n}\n",
        );
        scene.file("home/work/build.rs", "fn main() {\n    println!(\"cargo:rerun-if-changed=build.rs\");\n}\n");
    };
    let line = format!(
        "export CARGO_HOME=$PWD/.cargo-home PATH={}/bin:$PATH; cargo build -q --offline && ./target/debug/small && \
         cargo test -q --offline 2>&1 | grep -c 'test result: ok'",
        text(&sysroot)
    );
    let boxed = same(&["-r", text(&sysroot)], lay, &line, &["target", ".cargo-home"]);
    boxed.must(boxed.out.starts_with("42\n"), "the program works");
}

#[test]
fn make_builds_a_c_project_in_parallel() {
    if program("make").is_none() || compiler().is_none() {
        skip!("no make or no cc");
    }
    let lay = |scene: &Scene| {
        scene.file(
            "home/work/Makefile",
            "OBJECTS = main.o a.o b.o c.o\nprogram: $(OBJECTS)\n\tcc -o $@ $(OBJECTS)\n%.o: %.c all.h\n\tcc -O1 -c -o $@ $<\n",
        );
        scene.file("home/work/all.h", "int a(void); int b(void); int c(void);\n");
        for name in ["a", "b", "c"] {
            scene.file(
                format!("home/work/{name}.c"),
                format!("#include \"all.h\"\nint {name}(void) {{ return '{name}'; }}\n"),
            );
        }
        let main = "#include <stdio.h>\n#include \"all.h\"\nint main(void) { printf(\"%c%c%c\\n\", a(), b(), c()); return 0; }\n";
        scene.file("home/work/main.c", main);
    };
    let boxed =
        same(&[], lay, "make -s -j2 && ./program && make -s -j2 && touch all.h && make -s -j2 && ls | sort", &[]);
    boxed.must(boxed.out.starts_with("abc\n"), "the program works");
}

#[test]
fn node_and_npm_run_scripts() {
    if program("node").is_none() || program("npm").is_none() {
        skip!("no node or npm in the system directories");
    }
    let lay = |scene: &Scene| {
        scene.file(
            "home/work/package.json",
            "{\"name\": \"small\", \"version\": \"1.0.0\", \"scripts\": {\"go\": \"node main.js && echo done > done\"}}\n",
        );
        scene.file(
            "home/work/main.js",
            "const fs = require('fs'), http = require('http'), cp = require('child_process');\n\
             const { Worker, isMainThread, parentPort } = require('worker_threads');\n\
             if (!isMainThread) { parentPort.postMessage('from a worker'); return; }\n\
             fs.writeFileSync('written', 'x'.repeat(1000));\n\
             console.log(cp.execFileSync('echo', ['from a child']).toString().trim());\n\
             new Worker(__filename).on('message', (text) => {\n\
               console.log(text);\n\
               const server = http.createServer((_, answer) => answer.end('hello')).listen(0, '127.0.0.1', () =>\n\
                 http.get({ port: server.address().port, host: '127.0.0.1', agent: false }, (answer) => {\n\
                   answer.on('data', (data) => console.log(String(data)));\n\
                   answer.on('end', () => server.close());\n\
                 }));\n\
             });\n",
        );
    };
    let line = "node main.js && npm run --silent --no-update-notifier go && cat done";
    let boxed = same(&[], lay, line, &[]);
    boxed.must(boxed.out.ends_with("hello\ndone\n"), "the script works");
}

#[test]
fn sqlite_with_a_write_ahead_log() {
    if program("sqlite3").is_none() {
        skip!("no sqlite3 in the system directories");
    }
    let line = "sqlite3 data.db 'PRAGMA journal_mode=WAL; CREATE TABLE t(n INTEGER, s TEXT);' && \
                for i in 1 2 3 4; do sqlite3 -cmd '.timeout 20000' data.db \"INSERT INTO t VALUES($i, hex(zeroblob(20000)));\" & done; wait; \
                sqlite3 data.db 'SELECT count(*), sum(n), sum(length(s)) FROM t; PRAGMA integrity_check; VACUUM;' && ls | sort";
    let boxed = same(&[], |_| (), line, &["data.db"]);
    boxed.must(boxed.out.contains("4|10|160000") && boxed.out.contains("ok"), "the data is there");
}

#[test]
fn git_works_on_a_large_repository() {
    if program("git").is_none() {
        skip!("no git in the system directories");
    }
    let line = format!(
        "{DATES}; {GIT} init -q big; cd big; for d in $(seq 1 40); do mkdir -p src/$d; for f in $(seq 1 50); do \
         echo $d $f > src/$d/$f.txt; done; done; {GIT} add .; {GIT} commit -q -m all; {GIT} branch side; \
         {GIT} checkout -q -b work; for d in $(seq 1 40); do echo more >> src/$d/7.txt; rm src/$d/8.txt; \
         mv src/$d/9.txt src/$d/moved.txt; done; {GIT} add -A; {GIT} commit -q -m work; {GIT} checkout -q side; \
         echo side > src/1/side.txt; {GIT} add .; {GIT} commit -q -m side; {GIT} merge -q --no-edit work; \
         {GIT} checkout -q -b turned main; echo turned > turned; {GIT} add turned; {GIT} commit -q -m turned; \
         {GIT} rebase -q side; echo kept >> src/2/2.txt; {GIT} stash -q; {GIT} stash pop -q; {GIT} checkout -q -- src/2; \
         {GIT} worktree add -q ../tree side~1; ls ../tree/src | wc -l; {GIT} gc -q; \
         {GIT} fsck --strict; {GIT} status --short; {GIT} log --format='%H %s' --all; {GIT} clone -q . ../copy; \
         git -C ../copy log -1 --format=%H; git -C ../copy status --short; ls -R src ../copy/src | sort | uniq -c | wc -l"
    );
    let but = [
        ".git/index",
        "copy/.git/",
        "ORIG_HEAD",
        ".git/objects/pack",
        ".git/objects/info",
        ".git/worktrees",
        "tree/.git",
    ];
    same(&[], |_| (), &line, &but);
}

#[test]
fn a_worktree_added_in_the_box_can_be_removed_in_it() {
    if program("git").is_none() {
        skip!("no git in the system directories");
    }
    let line = format!(
        "{DATES}; {GIT} init -q old; cd old; echo x > f; {GIT} add f; {GIT} commit -q -m x; {GIT} worktree add -q ../tree; \
         {GIT} worktree remove ../tree; ls .."
    );
    same(&[], |_| (), &line, &["old/.git"]);
}

/// A work tree that is all of the scene's workspace, of a repository outside it.
fn linked_tree(repository: &str, bare: bool) -> Scene {
    let scene = Scene::new();
    let kind = if bare { "--bare" } else { "" };
    let line = format!(
        "{DATES}; {GIT} init -q seed; cd seed; echo x > f; {GIT} add f; {GIT} commit -q -m x; cd ..; \
         {GIT} clone -q {kind} seed ../{repository}; cd ..; rm -r work; {GIT} -C {repository} worktree add -q -b side ../work"
    );
    scene.free_sh(&line).exits(0);
    scene
}

#[test]
fn git_works_in_a_linked_work_tree() {
    if program("git").is_none() {
        skip!("no git in the system directories");
    }
    for (repository, bare) in [("main", false), ("main.git", true)] {
        let line = format!(
            "{DATES}; set -e; echo y > g; {GIT} add g; {GIT} commit -q -m y; {GIT} log --format=%s; {GIT} status --short; \
             {GIT} branch other; {GIT} checkout -q other; {GIT} gc -q; {GIT} fsck; {GIT} worktree list | wc -l; \
             {GIT} worktree add -q sub; {GIT} worktree remove sub; cat f g"
        );
        let free = linked_tree(repository, bare).free_sh(&line);
        let boxed = linked_tree(repository, bare).boxed_sh(&[], &line);
        free.exits(0);
        boxed.must((free.code, &free.out) == (boxed.code, &boxed.out), &format!("{repository}: outside\n{}", free.out));
    }
}

#[test]
fn the_repository_of_a_linked_work_tree_is_protected() {
    if program("git").is_none() {
        skip!("no git in the system directories");
    }
    for (repository, bare) in [("main", false), ("main.git", true)] {
        for (line, target) in [
            ("echo x > $(git rev-parse --git-common-dir)/hooks/pre-commit", "hooks/pre-commit"),
            ("git config core.fsmonitor ./evil", "config"),
            ("echo /tmp > $(git rev-parse --git-dir)/commondir", "commondir"),
            ("echo /tmp > $(git rev-parse --git-dir)/gitdir", "gitdir"),
            ("mv $(git rev-parse --git-dir) $(git rev-parse --git-common-dir)/worktrees/gone", "worktrees"),
            ("echo 'gitdir: /tmp/x' > .git", "work/.git"),
            ("rm .git", "work/.git"),
        ] {
            linked_tree(repository, bare).free_sh(line).exits(0);
            let boxed = linked_tree(repository, bare).boxed_sh(&[], line);
            boxed.must(boxed.code != 0 && boxed.denied(&[], target), line);
        }
    }
}

#[test]
fn a_git_file_that_does_not_lead_back_grants_nothing() {
    if program("git").is_none() {
        skip!("no git in the system directories");
    }
    let scene = Scene::new();
    let line = format!("cd ..; {GIT} init -q secret; echo 'gitdir: ../secret/.git' > work/.git");
    scene.free_sh(&line).exits(0);
    let read = "git status && cat ../secret/.git/config";
    scene.free_sh(read).exits(0);
    let boxed = scene.boxed_sh(&[], read);
    boxed.must(boxed.code != 0 && boxed.err.contains("does not lead back here"), "the person is told");
}

#[test]
fn trees_of_files_are_unpacked_copied_and_deleted() {
    let lay = |scene: &Scene| {
        let line = "mkdir from; for d in $(seq 1 60); do mkdir from/$d; for f in $(seq 1 50); do echo $d.$f > from/$d/$f; done; done; \
                    ln -s 1/1 from/link; ln from/1/2 from/hard; mkfifo from/pipe; chmod 640 from/2/3; find from -exec touch -h -d 2001-02-03 {} +; \
                    tar -cf files.tar from && rm -rf from";
        scene.free_sh(line).exits(0);
    };
    let line = "set -e; tar -xf files.tar; cp -a from copy; cp -rl copy linked; find copy -type f -name '*7' -delete; find linked -delete; \
                mv from/10 from/ten; rm -r from/11; find . ! -name . -printf '%P %y %m %s %n %l\\n' | sort | cksum; \
                find from/1 copy linked -type f -printf '%P %T@\\n' | sort | cksum";
    same(&[], lay, line, &[]);
    if program("rsync").is_none() {
        println!("without rsync: it is not in the system directories");
        return;
    }
    same(
        &[],
        lay,
        "tar -xf files.tar; rsync -a --delete from/ to/; rm -r from/12; rsync -a --delete from/ to/; ls to | wc -l",
        &[],
    );
}

#[test]
fn sqlite_of_python_with_a_write_ahead_log() {
    let Some(python) = program("python3") else { skip!("no python3 in the system directories") };
    if Scene::new().free(&[text(&python), "-c", "import sqlite3"]).code != 0 {
        skip!("no sqlite3 module for {}", python.display());
    }
    let source = "import sqlite3, os, sys\n\
         if len(sys.argv) == 1:\n\
         \x20   db = sqlite3.connect('data.db', timeout=60)\n\
         \x20   db.execute('PRAGMA journal_mode=WAL'); db.execute('CREATE TABLE t(n INTEGER)'); db.commit()\n\
         \x20   for k in range(4):\n\
         \x20       os.spawnl(os.P_NOWAIT, sys.executable, sys.executable, sys.argv[0], str(k))\n\
         \x20   print(sorted(os.waitpid(-1, 0)[1] for _ in range(4)))\n\
         \x20   print(db.execute('SELECT count(*), sum(n) FROM t').fetchall(), sorted(os.listdir('.')))\n\
         \x20   db.execute('PRAGMA wal_checkpoint(TRUNCATE)'); db.close(); print(sorted(os.listdir('.')))\n\
         else:\n\
         \x20   db = sqlite3.connect('data.db', timeout=60, isolation_level=None)\n\
         \x20   for n in range(25):\n\
         \x20       db.execute('INSERT INTO t VALUES(?)', (n,))\n";
    let lay = |scene: &Scene| drop(scene.file("home/work/wal.py", source));
    let boxed = same(&["-p", "python"], lay, "python3 wal.py", &["data.db"]);
    boxed.must(boxed.out.contains("(100, 1200)"), "every row is there");
}

#[test]
fn editors_save_by_rename_and_by_backup() {
    let Some(python) = program("python3") else { skip!("no python3 in the system directories") };
    let source = "import os, stat, tempfile\n\
         open('text', 'w').write('one\\n'); os.chmod('text', 0o640)\n\
         fd, draft = tempfile.mkstemp(dir='.'); os.write(fd, b'two\\n'); os.fsync(fd); os.close(fd)\n\
         os.chmod(draft, stat.S_IMODE(os.stat('text').st_mode)); os.rename(draft, 'text')\n\
         d = os.open('.', os.O_RDONLY); os.fsync(d); os.close(d)\n\
         fd = os.open('4913', os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644); os.close(fd); os.unlink('4913')\n\
         fd = os.open('.text.swp', os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600); os.write(fd, b'swap'); os.fsync(fd)\n\
         os.rename('text', 'text~'); f = open('text', 'x'); f.write('three\\n'); f.flush(); os.fsync(f.fileno()); f.close()\n\
         os.chmod('text', 0o640); os.setxattr('text', 'user.editor', b'1') if hasattr(os, 'setxattr') else None\n\
         os.close(fd); os.unlink('.text.swp'); os.utime('text', (1e9, 1e9))\n\
         os.symlink('text', 'lock-link'); os.link('text', 'lock'); print(os.stat('lock').st_nlink); os.unlink('lock'); os.replace('text~', 'backup')\n\
         print(sorted(os.listdir('.')), open('text').read(), open('backup').read(), int(os.stat('text').st_mtime))\n";
    let lay = |scene: &Scene| drop(scene.file("home/work/edit.py", source));
    same(&["-p", "python"], lay, &format!("{} edit.py", text(&python)), &[]);
}

/// A Python with its own tests that this user can reach, and where it is installed.
fn python_with_tests() -> Option<(PathBuf, PathBuf)> {
    let ask = "import sys, test.test_os, test.test_pathlib; print(sys.executable, sys.base_prefix, sep='\\n')";
    let told = std::process::Command::new("python3").args(["-c", ask]).output().ok()?;
    let told = String::from_utf8(told.stdout).ok().filter(|_| told.status.success())?;
    let mut lines = told.lines().map(PathBuf::from);
    Some((lines.next()?.canonicalize().ok()?, lines.next()?))
}

/// Outside nobody has a capability either: which of these tests fail is then the same, and how many run.
#[test]
fn pythons_own_tests_of_files() {
    let Some((python, prefix)) = python_with_tests() else {
        skip!("no python3 with its test package that this user can reach");
    };
    let line = format!(
        "drop='setpriv --bounding-set=-all --inh-caps=-all --no-new-privs --'; $drop true 2>/dev/null || drop=; \
         for t in os posix shutil tempfile pathlib; do timeout 60 $drop {} -B -m unittest -q test.test_$t >told 2>&1; \
         grep -oE '^(ERROR|FAIL): .*|^Ran [0-9]+ tests|^(OK|FAILED).*' told | sort; done; rm told",
        text(&python)
    );
    let boxed = same(&["-p", "python", "-r", text(&prefix)], |_| (), &line, &[]);
    boxed.must(boxed.out.contains("Ran "), "no test ran");
}
