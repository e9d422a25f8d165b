//! Calls on files give in the box what they give outside: return value, errno, what an opened file is, and the tree that
//! is left.
//!
//! `differential/calls.c` draws calls at random from a seed. It runs free and boxed on equal trees without any
//! capability, and its two accounts are compared line by line; then an observer outside looks through both trees. What is
//! known to differ stands in [`KNOWN`] with the reason, to be taken out when it is mended.
//!
//! `AGENTBOX_SEEDS=FROM-TO` asks for other seeds, `AGENTBOX_STRICT=1` lets nothing known pass.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use common::{Scene, compiler, run, text};

const CALLS: (&str, &str) = ("calls", include_str!("differential/calls.c"));

/// Rounds for each seed, each with a tree of its own, and calls in each.
const ROUNDS: usize = 10;
const PER_ROUND: usize = 20;

/// A difference that is known.
struct Known {
    /// What the kernel does, and what we do instead.
    why: &'static str,
    /// Whether a difference is this one.
    is: fn(&Difference) -> bool,
}

/// The differences that are known, most important first.
const KNOWN: &[Known] = &[
    Known {
        why: "openat2 with O_PATH is ENOSYS: such a descriptor cannot be handed over",
        is: |d| d.of(&["openat2"]) && d.inside == "-1 ENOSYS",
    },
    Known {
        why: "openat2 with restrictions is the kernel's walk alone, and that has no /proc/self of the caller's: ENOENT",
        is: |d| d.of(&["openat2"]) && d.restricted() && d.says(&["ENOENT"]) && d.magic(),
    },
    Known {
        why: "the link /proc/self/fd/N itself can be given to its owner again, and its times be set; but /proc is read-only",
        is: |d| {
            let changes = d.of(&["lchown", "fchownat", "utimensat"]);
            changes && d.outside == "0" && d.says(&["EACCES", "EROFS"]) && d.magic()
        },
    },
    Known {
        why: "F_GETFL tells O_NOFOLLOW; a file found by an openat2 with restrictions is opened by descriptor, without it",
        is: |d| d.of(&["openat2"]) && d.restricted() && without_no_follow(&d.outside) == without_no_follow(&d.inside),
    },
    Known {
        why: "names below /proc cannot be made, moved or removed: EPERM, ENOENT, ENOTDIR or EXDEV; but before that a rule \
              refuses (EACCES), or /proc is read-only (EROFS)",
        is: |d| d.fails() && d.says(&["EACCES", "EROFS"]) && d.magic(),
    },
    Known {
        why: "of two paths the first one's failure counts, and EXDEV before either name is looked up",
        is: |d| {
            let two = ["rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat"];
            d.of(&two) && d.fails()
        },
    },
    Known {
        why: "O_CREAT and a slash behind a name that is too long is EISDIR all the same",
        is: |d| (d.opens() || d.of(&["creat"])) && d.outside == "-1 EISDIR" && d.says(&["ENAMETOOLONG"]),
    },
    Known {
        why: "openat2 with restrictions and O_CREAT: which of several errors",
        is: |d| d.of(&["openat2"]) && d.restricted() && d.fails(),
    },
    Known {
        why: "mounts of the view have no devices: a device that was made there is EACCES whether it has a driver or not",
        is: |d| (d.opens() || d.of(&["creat"])) && d.outside == "-1 ENXIO" && d.says(&["EACCES"]),
    },
    Known {
        why: "in a removed working directory a name with a slash behind it: which of several errors",
        is: |d| d.call.starts_with("gone ") && d.fails() && d.call.contains("/\""),
    },
];

/// One call that gave something else, or one entry of the tree (`call` is then "tree").
#[derive(Debug, Clone)]
struct Difference {
    round: usize,
    number: usize,
    call: String,
    outside: String,
    inside: String,
}

impl Difference {
    /// Whether the call is one of these.
    fn of(&self, names: &[&str]) -> bool {
        let name = self.call.split('(').next().unwrap_or_default();
        names.contains(&name.rsplit(' ').next().unwrap_or_default())
    }

    /// Whether it failed on both sides: the tree is then still the same.
    fn fails(&self) -> bool {
        self.outside.starts_with("-1") && self.inside.starts_with("-1")
    }

    /// Whether the box gave one of these errors.
    fn says(&self, errors: &[&str]) -> bool {
        self.inside.strip_prefix("-1 ").is_some_and(|error| errors.contains(&error))
    }

    fn opens(&self) -> bool {
        self.of(&["open", "openat", "openat2"])
    }

    /// Whether it is an `openat2` that restricts how the path is walked.
    fn restricted(&self) -> bool {
        self.call.contains("resolve 0x")
    }

    /// Whether the path goes by way of links that mean something else to each process.
    fn magic(&self) -> bool {
        ["/proc/", "/dev/fd/"].iter().any(|place| self.call.contains(place))
    }
}

/// A result without the one flag of those that `F_GETFL` gave.
fn without_no_follow(result: &str) -> String {
    let Some((before, rest)) = result.split_once(" flags 0") else { return result.into() };
    let (octal, behind) = rest.split_once(' ').unwrap_or((rest, ""));
    let flags = i32::from_str_radix(octal, 8).unwrap_or_default() & !libc::O_NOFOLLOW;
    format!("{before} flags 0{flags:o} {behind}")
}

/// What a program of calls told, and the tree it left, by round.
struct Account {
    lines: Vec<String>,
    tree: BTreeMap<usize, BTreeSet<String>>,
}

/// Where programs of calls run: a directory deep in a scene, so that no `..` of theirs leads out of it.
struct Place {
    scene: Scene,
    top: tempfile::TempDir,
    program: PathBuf,
    how: &'static str,
}

impl Place {
    fn new(base: &Path) -> Self {
        let top = tempfile::Builder::new().prefix("agentbox-test-").tempdir_in(base).expect("make a place");
        let scene = Scene::new();
        let program = scene.c(CALLS.0, CALLS.1, &[]);
        Self { scene, top, program, how: "run" }
    }

    /// Runs a program of calls, free without `flags`, boxed with them.
    fn account(&self, flags: Option<&[&str]>, arguments: &[String]) -> Account {
        let dir = tempfile::tempdir_in(self.top.path()).expect("make a tree");
        let deep = dir.path().join("1/2/3/4");
        fs::create_dir_all(&deep).expect("make the tree");
        let mut argv = vec![text(&self.program).to_string(), self.how.into()];
        argv.extend_from_slice(arguments);
        let outcome = match flags {
            None => {
                let mut command = self.scene.free_command(&argv);
                command.current_dir(&deep);
                run(command, b"")
            }
            Some(flags) => {
                let flags: Vec<&str> = [&["-q", "-w", text(dir.path()), "-r", text(&self.program)], flags].concat();
                let (mut command, _) = self.scene.boxed_command(&flags, &argv);
                command.current_dir(&deep);
                run(command, b"")
            }
        };
        outcome.exits(0);
        let dump = run(self.scene.free_command(&[text(&self.program), "dump", text(&deep)]), b"");
        dump.exits(0);
        let mut tree: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
        for line in dump.out.lines() {
            let round = line.strip_prefix("./r").and_then(|rest| rest.split(['/', ' ']).next()?.parse().ok());
            // The top of a round is whatever its calls made of it; all else is equal or not.
            if let Some(round) = round {
                tree.entry(round).or_default().insert(line.to_string());
            }
        }
        Account { lines: outcome.out.lines().map(str::to_string).collect(), tree }
    }

    /// Whether `O_PATH` works in the box: of 0 calls, the laying out ends well.
    fn opens_without_rights(&self, flags: &[&str]) -> bool {
        let flags = [&["-q", "-r", text(&self.program)], flags].concat();
        self.scene.boxed(&flags, &[text(&self.program), "run", "0", "1", "0"]).code == 0
    }

    fn differences(&self, flags: &[&str], arguments: &[String]) -> Vec<Difference> {
        differences(&self.account(None, arguments), &self.account(Some(flags), arguments))
    }
}

/// Everything that differs, up to the first call of a round after which its trees cannot be compared any more.
fn differences(free: &Account, boxed: &Account) -> Vec<Difference> {
    let mut found = Vec::new();
    let mut over = BTreeSet::new();
    assert_eq!(free.lines.len(), boxed.lines.len(), "one of the two stopped early");
    for (left, right) in free.lines.iter().zip(&boxed.lines) {
        let (Some((round, number, call, outside)), Some((_, _, _, inside))) = (parse(left), parse(right)) else {
            assert_eq!(left, right, "how the tree was laid out");
            continue;
        };
        if left == right || over.contains(&round) {
            continue;
        }
        let difference = Difference { round, number, call, outside, inside };
        if !difference.fails() {
            over.insert(round);
        }
        found.push(difference);
    }
    for (round, left) in free.tree.iter().filter(|(round, _)| !over.contains(round)) {
        let right = boxed.tree.get(round).cloned().unwrap_or_default();
        let join = |lines: Vec<&String>| lines.into_iter().map(String::as_str).collect::<Vec<_>>().join("\n");
        if *left != right {
            found.push(Difference {
                round: *round,
                number: PER_ROUND,
                call: "tree".into(),
                outside: join(left.difference(&right).collect()),
                inside: join(right.difference(left).collect()),
            });
        }
    }
    found
}

/// `ROUND.NUMBER umask MASK CALL = RESULT`.
fn parse(line: &str) -> Option<(usize, usize, String, String)> {
    let (at, rest) = line.split_once(" umask ")?;
    let (round, number) = at.split_once('.')?;
    let (call, result) = rest.get(4..)?.rsplit_once(") = ")?;
    Some((round.parse().ok()?, number.parse().ok()?, format!("{call})"), result.trim_end().to_string()))
}

/// Runs seeds, and panics with the smallest program that still shows the first difference that is not known.
fn compare(base: &Path, flags: &[&str], seeds: Range<u64>) {
    if compiler().is_none() {
        skip!("no C compiler (cc)");
    }
    let strict = std::env::var_os("AGENTBOX_STRICT").is_some();
    let mut place = Place::new(base);
    if !place.opens_without_rights(flags) {
        println!("known: where reads stop, every open with O_PATH is EBADF; the trees are laid out without");
        assert!(!strict, "an open with O_PATH fails");
        place.how = "run-without-o_path";
    }
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    let mut unknown = Vec::new();
    for seed in asked_seeds().unwrap_or(seeds) {
        let program = [seed.to_string(), ROUNDS.to_string(), PER_ROUND.to_string()];
        for difference in place.differences(flags, &program) {
            match KNOWN.iter().find(|known| (known.is)(&difference)) {
                Some(known) if !strict => *seen.entry(known.why).or_default() += 1,
                _ => unknown.push((seed, difference)),
            }
        }
    }
    for (why, times) in &seen {
        println!("known, {times} times: {why}");
    }
    let Some((seed, first)) = unknown.first() else { return };
    let smallest = smallest(&place, flags, *seed, first);
    let all: Vec<String> = unknown.iter().map(|(seed, d)| told(*seed, d)).collect();
    panic!("{} differences\n{}\n\nThe first one comes down to:\n{smallest}", all.len(), all.join("\n"));
}

fn told(seed: u64, d: &Difference) -> String {
    format!("seed {seed}, {}.{} {}\n  outside: {}\n  inside:  {}", d.round, d.number, d.call, d.outside, d.inside)
}

/// Leaves out every call that the difference does not need.
fn smallest(place: &Place, flags: &[&str], seed: u64, first: &Difference) -> String {
    let program = |calls: &[usize]| {
        let mut arguments = vec![seed.to_string(), ROUNDS.to_string(), PER_ROUND.to_string(), first.round.to_string()];
        arguments.extend(calls.iter().map(usize::to_string));
        arguments
    };
    let differs = |calls: &[usize]| {
        let found = place.differences(flags, &program(calls));
        found.iter().any(|d| d.call == first.call && !KNOWN.iter().any(|known| (known.is)(d)))
    };
    let mut calls: Vec<usize> = (0..PER_ROUND.min(first.number + 1)).collect();
    for call in calls.clone() {
        let fewer: Vec<usize> = calls.iter().copied().filter(|kept| *kept != call).collect();
        if call != first.number && !fewer.is_empty() && differs(&fewer) {
            calls = fewer;
        }
    }
    let program = program(&calls);
    let (free, boxed) = (place.account(None, &program), place.account(Some(flags), &program));
    let both =
        [("outside", free), ("inside", boxed)].map(|(side, account)| format!("{side}:\n{}", account.lines.join("\n")));
    format!("calls run {}\n{}", program.join(" "), both.join("\n"))
}

fn asked_seeds() -> Option<Range<u64>> {
    let asked = std::env::var("AGENTBOX_SEEDS").ok()?;
    let (from, to) = asked.split_once('-').expect("AGENTBOX_SEEDS is FROM-TO");
    Some(from.parse().expect("a seed")..to.parse().expect("a seed"))
}

/// Where most trees are made: in memory, where there is such a place.
fn quick() -> PathBuf {
    let shm = PathBuf::from("/dev/shm");
    if in_memory(&shm) && tempfile::tempdir_in(&shm).is_ok() { shm } else { common::base() }
}

fn in_memory(path: &Path) -> bool {
    use nix::sys::statfs::{TMPFS_MAGIC, statfs};
    statfs(path).is_ok_and(|fs| fs.filesystem_type() == TMPFS_MAGIC)
}

#[test]
fn random_calls_give_the_same_where_changes_are_recorded() {
    compare(&quick(), &["--audit-level", "actions"], 1..41);
}

#[test]
fn random_calls_give_the_same_where_every_open_is_recorded() {
    compare(&quick(), &["--audit-level", "all"], 101..131);
}

#[test]
fn random_calls_give_the_same_where_little_is_recorded() {
    compare(&quick(), &["--audit-level", "minimal"], 201..211);
}

#[test]
fn random_calls_give_the_same_where_a_pattern_makes_reads_stop() {
    compare(&quick(), &["--audit-level", "minimal", "--deny", "**/never-there-*.env"], 301..311);
}

#[test]
fn random_calls_give_the_same_on_a_disk() {
    if in_memory(&common::base()) {
        skip!("the tests run on a tmpfs: AGENTBOX_TEST_DIR or TMPDIR on a disk would do");
    }
    compare(&common::base(), &["--audit-level", "actions"], 401..404);
}

/// Runs `test`, which has this very name, with a directory on which `line` has mounted something, in namespaces of its own:
/// nobody else sees the mount.
fn mounted(name: &str, line: &str, test: impl FnOnce(&Path)) {
    const PLACE: &str = "AGENTBOX_MOUNTED";
    if compiler().is_none() {
        skip!("no C compiler (cc)");
    }
    if let Some(place) = std::env::var_os(PLACE) {
        return test(&PathBuf::from(place).join("at"));
    }
    let place = tempfile::tempdir_in(common::base()).expect("make a directory");
    fs::create_dir(place.path().join("at")).expect("make a directory");
    let apart = if common::root() { "-m" } else { "-Urm" };
    let inside = |then: &str| {
        let mut command = std::process::Command::new("unshare");
        command.args([
            apart,
            "--propagation",
            "private",
            "sh",
            "-c",
            &format!("cd {} && {line} && {then}", text(place.path())),
        ]);
        command.arg(std::env::current_exe().expect("this program")).env("AGENTBOX_TEST_DIR", place.path());
        command.env("AGENTBOX_BIN", common::agentbox()).env(PLACE, place.path());
        run(command, b"")
    };
    let possible = inside("true");
    if possible.code != 0 {
        skip!("this user cannot mount in namespaces of its own: {}", possible.err.trim());
    }
    let outcome = inside(&format!("exec \"$0\" --exact {name} --show-output"));
    outcome.exits(0).must(outcome.out.contains("1 passed"), "this very test, and no other, is run there");
    // Not its result, which is not this one's.
    let told = |line: &&str| line.starts_with("known") || line.starts_with("skipped: ");
    outcome.out.lines().filter(told).for_each(|line| println!("{line}"));
}

#[test]
fn random_calls_give_the_same_on_an_overlay() {
    let line = "mount -t tmpfs none at && mkdir at/lower at/upper at/work at/top && \
                mount -t overlay -o userxattr,lowerdir=at/lower,upperdir=at/upper,workdir=at/work none at/top";
    mounted("random_calls_give_the_same_on_an_overlay", line, |at| {
        compare(&at.join("top"), &["--audit-level", "actions"], 501..504);
        compare(&at.join("top"), &["--audit-level", "all"], 511..513);
    });
}

#[test]
fn the_lower_layer_of_an_overlay_is_copied_and_covered() {
    let line = "mount -t tmpfs none at && mkdir at/lower at/upper at/work at/top && \
                for d in free actions all; do mkdir -p at/lower/$d/sub at/lower/$d/dir && \
                for f in a b c d e f g h i j k sub/x; do echo content > at/lower/$d/$f; done; done && \
                mount -t overlay -o userxattr,lowerdir=at/lower,upperdir=at/upper,workdir=at/work none at/top";
    mounted("the_lower_layer_of_an_overlay_is_copied_and_covered", line, |at| {
        same_situation_and_names(&at.join("top"), &["lower-layer"]);
    });
}

#[test]
fn random_calls_give_the_same_through_a_bind_mount() {
    let line = "mount -t tmpfs none at && mkdir at/there at/here && mount --bind at/there at/here";
    mounted("random_calls_give_the_same_through_a_bind_mount", line, |at| {
        compare(&at.join("here"), &["--audit-level", "actions"], 521..524);
        compare(&at.join("here"), &["--audit-level", "all"], 531..533);
    });
}

#[test]
fn without_room_for_another_name_nothing_is_made() {
    let line = "mount -t tmpfs -o size=64k,nr_inodes=8 none at";
    mounted("without_room_for_another_name_nothing_is_made", line, |at| same_situation_and_names(at, &["no-room"]));
}

const SITUATIONS: (&str, &str) = ("situations", include_str!("differential/situations.c"));

/// Lines of a situation that are known to read otherwise in the box: level (empty for both), outside, inside, why.
type KnownLine = (&'static str, &'static str, &'static str, &'static str);

/// The situation prints the same free and boxed, at two levels; but for what is known.
fn same_situation(arguments: &[&str], known: &[KnownLine]) {
    if compiler().is_none() {
        skip!("no C compiler (cc)");
    }
    same_situation_at(&Scene::new().work, arguments, known);
}

/// Returns the names that each run left.
fn same_situation_at(place: &Path, arguments: &[&str], known: &[KnownLine]) -> Vec<BTreeSet<OsString>> {
    let strict = std::env::var_os("AGENTBOX_STRICT").is_some();
    let scene = Scene::new();
    let program = scene.c(SITUATIONS.0, SITUATIONS.1, &[]);
    let argv = [&[text(&program)], arguments].concat();
    // In the box nobody has a capability; outside root must have none either.
    let setpriv = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs", "--"];
    let free_argv = if common::root() { [&setpriv, &argv[..]].concat() } else { argv.clone() };
    // In a directory that is laid out already, or else in an empty one.
    let here = |laid_out: &str, mut command: std::process::Command| {
        let empty = tempfile::tempdir_in(place).expect("make a directory");
        let laid_out = place.join(laid_out);
        let dir = if laid_out.exists() { &laid_out } else { empty.path() };
        command.current_dir(dir);
        let outcome = run(command, b"");
        outcome.exits(0);
        let names: BTreeSet<_> =
            fs::read_dir(dir).expect("list").map(|entry| entry.expect("an entry").file_name()).collect();
        (outcome, names)
    };
    let (free, names) = here("free", scene.free_command(&free_argv));
    let mut left = vec![names];
    for level in ["actions", "all"] {
        let flags = ["-q", "-w", text(place), "-r", text(&program), "--audit-level", level];
        let (boxed, names) = here(level, scene.boxed_command(&flags, &argv).0);
        left.push(names);
        let count = |outcome: &common::Outcome| outcome.out.lines().count();
        boxed.must(count(&free) == count(&boxed), &format!("outside:\n{}", free.out));
        for (outside, inside) in free.out.lines().zip(boxed.out.lines()) {
            let fits = |k: &&KnownLine| (k.0.is_empty() || k.0 == level) && k.1 == outside && k.2 == inside;
            match known.iter().find(fits) {
                _ if outside == inside => {}
                Some(known) if !strict => println!("known at level {level}: {}", known.3),
                _ => panic!("level {level}\noutside: {outside}\ninside:  {inside}\n{boxed}"),
            }
        }
    }
    left
}

/// The same, and each run leaves the same names.
fn same_situation_and_names(place: &Path, arguments: &[&str]) {
    let left = same_situation_at(place, arguments, &[]);
    assert!(left.iter().all(|names| *names == left[0]), "what is left: {left:#?}");
}

#[test]
fn of_two_processes_one_wins_each_name() {
    same_situation(&["race", "1000"], &[]);
}

#[test]
fn five_hundred_threads_call_at_once() {
    same_situation(&["crowd", "500"], &[]);
}

#[test]
fn threads_have_a_working_directory_and_a_mask_of_their_own() {
    same_situation(&["own"], &[]);
}

const INTERRUPTED: KnownLine = (
    "",
    "interrupted: no",
    "interrupted: yes",
    "a handled signal without SA_RESTART that comes before a worker has received the call gives EINTR (nothing was done)",
);

#[test]
fn signals_that_are_handled_neither_interrupt_nor_double_a_call() {
    same_situation(&["signals", "0"], &[INTERRUPTED]);
}

#[test]
fn signals_whose_handler_makes_calls_neither_interrupt_nor_double_a_call() {
    same_situation(&["signals", "1"], &[INTERRUPTED]);
}

#[test]
fn signals_that_restart_calls_are_not_seen() {
    same_situation(&["signals", "2"], &[]);
    same_situation(&["signals", "3"], &[]);
}

#[test]
fn a_process_stopped_and_continued_all_the_time_loses_no_call() {
    same_situation(&["stopped"], &[]);
}

#[test]
fn who_waits_for_a_writer_is_interrupted() {
    same_situation(&["fifo-read"], &[]);
}

#[test]
fn who_waits_for_a_reader_is_interrupted() {
    same_situation(&["fifo-write"], &[]);
}

#[test]
fn who_waits_at_a_fifo_goes_on_after_a_signal_that_restarts() {
    same_situation(&["fifo-read-restart"], &[]);
    same_situation(&["fifo-write-restart"], &[]);
}

#[test]
fn without_a_descriptor_left_nothing_is_made_or_cut() {
    let known = ("", "missing EMFILE", "missing ENOENT", "EMFILE is said before the path is looked at");
    same_situation(&["descriptors"], &[known]);
}

#[test]
fn truncate_minds_the_callers_file_size_limit() {
    same_situation(&["size"], &[]);
}

#[test]
fn two_writers_append() {
    same_situation(&["append", "1000"], &[]);
}

#[test]
fn locks_belong_to_the_caller() {
    same_situation(&["locks"], &[]);
}

#[test]
fn leases_are_granted_and_broken() {
    same_situation(&["leases"], &[]);
}

#[test]
fn who_holds_a_descriptor_needs_no_way_to_the_file() {
    same_situation(&["no-way"], &[]);
}

#[test]
fn who_hides_its_memory_is_served_alike() {
    same_situation(&["hidden"], &[]);
}

#[test]
fn a_file_handed_in_stays_one_where_there_is_no_way_to_it() {
    if compiler().is_none() {
        skip!("no C compiler (cc)");
    }
    let scene = Scene::new();
    let program = scene.c(SITUATIONS.0, SITUATIONS.1, &[]);
    let file = scene.file("home/work/shut/f", "content\n");
    let shut = |mode| fs::set_permissions(scene.work.join("shut"), fs::Permissions::from_mode(mode)).expect("chmod");
    let act = |mut command: std::process::Command| {
        let stdin = fs::File::open(&file).expect("open the file");
        shut(0);
        command.stdin(stdin).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        let outcome = common::finish(common::start(command), b"", Path::new("/nonexistent"));
        shut(0o755);
        outcome.exits(0);
        outcome
    };
    let argv = [text(&program), "handed-in"];
    let free = act(scene.free_command(&argv));
    assert_eq!(free.out, "chmod ok\n", "the control");
    for level in ["actions", "all"] {
        let boxed = act(scene.boxed_command(&["-q", "-w", text(&scene.work), "--audit-level", level], &argv).0);
        assert_eq!(boxed.out, "chmod EACCES\n", "{boxed}");
    }
}

#[test]
fn a_sparse_file_takes_no_room() {
    same_situation(&["sparse"], &[]);
}

#[test]
fn signals_say_the_same_of_whoever_is_there_and_whoever_is_not() {
    same_situation(&["sending"], &[]);
}

#[test]
fn a_process_tells_the_kernel_about_itself() {
    same_situation(&["itself"], &[]);
}
