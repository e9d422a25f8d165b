//! A run of thirty actions, told by everything that tells of runs (the report, the log, its tree and numbers, the
//! page), and held against what somebody saw who only looked at the tree and the network.

mod common;

use std::collections::BTreeSet;
use std::fs;

use common::browser::measured;
use common::{Outcome, Scene, program, records, run, sink, text};
use serde_json::{Value, json};

const THIRTY_PY: &str = include_str!("fixtures/thirty.py");
const TOLD_PY: &str = include_str!("fixtures/told.py");

/// A repository with tracked and other files.
fn repository() -> Scene {
    let scene = Scene::new();
    for name in ["tracked.txt", "second.txt", "clean.txt"] {
        scene.file(format!("home/work/{name}"), "a line\n");
    }
    let made = "git init -q -b main . && git add . && git -c user.name=a -c user.email=a@example.org commit -q -m one";
    scene.free_sh(made).exits(0);
    // Git compares contents where a file is as young as its index: let the index be younger.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    scene.free_sh("touch -d '1 hour ago' *.txt && git update-index --refresh -q && git add .").exits(0);
    scene.file("home/.profile", "cd ~\n");
    scene.file("home/work/mine.txt", "mine\n");
    scene.file("home/work/big.bin", vec![b'x'; 5000]);
    scene.file("home/work/.env", "TOKEN=1\n");
    scene.file("home/work/package.sh", "echo installed > installed.txt\nrm installed.txt\nmkdir installed\n");
    (0..55).for_each(|i| drop(scene.file(format!("home/work/many/{i}"), "x")));
    (0..3).for_each(|i| drop(scene.file(format!("home/work/node_modules/m/{i}.js"), "x")));
    scene
}

/// The run, and what was seen of it.
struct Thirty {
    scene: Scene,
    outcome: Outcome,
    /// `HOST:PORT` of the service that a rule lists, and of the one that none lists.
    parties: [String; 2],
    /// What somebody saw, action by action.
    seen: Vec<Value>,
    /// What `--report` says.
    report: Value,
}

impl Thirty {
    /// `None` where the host lacks what the agent needs.
    fn run() -> Option<Self> {
        let (python, _) = (program("python3")?, program("git")?);
        let scene = repository();
        let agent = scene.file("outside/thirty.py", THIRTY_PY);
        let ((listed, heard), (unlisted, unheard)) = (sink(), sink());
        let policy = scene.file(
            "policy.yaml",
            format!(
                "version: 1\nextends: [default]\n\
                 filesystem: {{read: [{:?}], write: ['~/.profile'], secrets: default}}\n\
                 network: {{allow: ['host.agentbox.internal:{listed}']}}\n",
                text(&scene.outside)
            ),
        );
        let path = scene.root.join("report.json");
        let known = ["AUTHOR_NAME=a", "AUTHOR_EMAIL=a@b.org", "COMMITTER_NAME=a", "COMMITTER_EMAIL=a@b.org"];
        let known = known.map(|fact| ["--env".to_string(), format!("GIT_{fact}")]).concat();
        let args = ["run", "-p", text(&policy), "--report", text(&path)].map(str::to_string);
        let (listed, unlisted) = (listed.to_string(), unlisted.to_string());
        let argv = ["--", text(&python), text(&agent), &listed, &unlisted].map(str::to_string);
        let mut outcome = scene.agentbox(&[&args[..], &known, &argv].concat());
        outcome.exits(0);
        // What is said of the network is what arrived there.
        let arrived: Vec<Vec<u8>> = (0..2).map(|_| heard.recv().expect("a visit")).collect();
        assert_eq!(arrived, [b"hello".to_vec(), b"hello".to_vec()]);
        assert!(unheard.try_recv().is_err(), "the refused one arrived");
        let seen: Vec<Value> = outcome.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(seen.len(), 30, "{outcome}");
        let report = fs::read_to_string(&path).expect("a report");
        let report: Value = serde_json::from_str(&report).expect("JSON");
        outcome.records = records(report["log"].as_str().expect("where the log is").as_ref());
        let parties = [listed, unlisted].map(|port| format!("host.agentbox.internal:{port}"));
        Some(Self { scene, outcome, parties, seen, report })
    }

    /// What a reader says in JSON of the run.
    fn asked(&self, args: &[&str]) -> Value {
        let asked = self.scene.agentbox(args);
        asked.exits(0).must(asked.err.is_empty(), "quiet");
        serde_json::from_str(&asked.out).expect("JSON")
    }

    /// The page, read as a person would.
    fn page(&self) -> Value {
        let page = self.scene.agentbox(&["report", "-o", "-"]);
        page.exits(0);
        let (python, script) = (program("python3").expect("it ran"), self.scene.file("told.py", TOLD_PY));
        let told = run(self.scene.free_command(&[&python, &script]), page.out.as_bytes());
        serde_json::from_str(&told.exits(0).out).expect("JSON")
    }

    /// Holds sums of actions, the session left out, against what was seen.
    fn holds(&self, who: &str, sums: &[Value]) {
        let sums: Vec<&Value> = sums.iter().filter(|sum| sum["action"] != "session").collect();
        assert_eq!(sums.len(), 30, "{who}");
        let told = self.seen.iter().zip(&sums);
        let wrong = told.map(|(seen, sum)| (differences(seen, sum), seen, sum));
        let wrong = wrong.filter(|(differences, ..)| !differences.is_empty());
        let wrong: Vec<String> =
            wrong.map(|(differences, seen, sum)| format!("{}: {differences:?}\n  {sum}", seen["command"])).collect();
        assert!(wrong.is_empty(), "{who}: {}", wrong.join("\n"));
    }
}

/// Where the sum of an action differs from what it must be and from what the tree showed.
fn differences(told: &Value, sum: &Value) -> Vec<String> {
    let (expected, seen, files) = (&told["expected"], &told["seen"], &sum["effects"]["files"]);
    let mut found = Vec::new();
    let mut compare = |what: &str, is: &Value, should: &Value| {
        let (is, none) = (if is.is_null() { &json!(0) } else { is }, json!(0));
        let should = if should.is_null() { &none } else { should };
        if is != should {
            found.push(format!("{what} {is}, not {should}"));
        }
    };
    compare("command", &sum["command"], &told["command"]);
    compare("tier", &sum["tier"], &expected["tier"]);
    if !expected["programs"].is_null() {
        compare("programs", &sum["effects"]["programs"], &expected["programs"]);
    }
    compare("denied", &sum["denied"], &expected["denied"]);
    compare("refused tier", &sum["refused_tier"], &expected["refused"]);
    for (what, of) in [("connections", "connections"), ("tainted_connections", "tainted")] {
        compare(what, &sum["effects"][what], &expected[of]);
    }
    for what in ["secrets", "persistence"] {
        compare(what, &sum["effects"][what], &expected[what]);
    }
    compare("taint", &sum["taint"], &expected["taint"]);
    // Git makes and moves files that are gone before anybody looks.
    if expected["scratch"] == true {
        return found;
    }
    compare("unheld", &files["unheld"], &expected["unheld"]);
    if !expected["git"].is_null() {
        compare("git", &files["git"], &expected["git"]);
    }
    if !expected["lost"].is_null() {
        compare("bytes lost", &files["bytes_lost"], &expected["lost"]);
    }
    if told["command"][1] == "package.sh" {
        // The same: a file that comes and goes.
        compare("created", &files["created"], &json!(1));
        compare("deleted", &files["deleted"], &json!(1));
        return found;
    }
    for what in ["created", "changed", "deleted", "replaced", "moved", "directories_made", "directories_removed"] {
        compare(what, &files[what], &seen[what]);
    }
    found
}

#[test]
fn thirty_actions_are_told_everywhere_as_somebody_saw_them_who_only_looked() {
    let Some(thirty) = Thirty::run() else { skip!("python3 and git are needed") };
    of_the_report(&thirty);
    of_the_log(&thirty);
    of_the_numbers(&thirty);
    of_the_page(&thirty);
    in_a_browser(&thirty);
}

/// The page, all of it unfolded, is nowhere wider than its window, and the browser has nothing to complain of.
fn in_a_browser(thirty: &Thirty) {
    let Some(chromium) = program("chromium") else { skip!("no chromium: the page is not drawn") };
    let page = thirty.scene.agentbox(&["report", "-o", "-"]);
    let page = thirty.scene.file("page.html", page.exits(0).out.replace("<details>", "<details open>"));
    for (width, scheme, colour) in [(390, 0, "rgb(13, 17, 23)"), (1280, 1, "rgb(246, 247, 249)")] {
        let (measure, complaints) = measured(&thirty.scene, &chromium, &page, width, scheme);
        assert_eq!((measure, complaints.as_str()), (format!("{width} {width} {colour}"), ""));
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

fn of_the_report(thirty: &Thirty) {
    let report = &thirty.report;
    thirty.holds("the report", list(&report["actions"]));
    let total = &report["total"]["effects"];
    assert_eq!((&total["connections"], &total["tainted_connections"]), (&json!(2), &json!(1)), "{total:#}");
    assert_eq!(total["persistence"], 1, "{total:#}");
    let destination = &report["destinations"][0];
    assert_eq!((&destination["allowed"], &destination["bytes_out"]), (&json!(2), &json!(10)), "{destination}");
    let of_command = |part: &str| {
        let fits = |sum: &&Value| sum["command"].to_string().contains(part);
        list(&report["actions"]).iter().find(fits).expect("an action")
    };
    let tainted = of_command("cat .env > /dev/null; exec");
    assert_eq!(tainted["destinations"][0]["bytes_out"], 5, "{tainted:#}");
}

/// Each action has a record of its beginning and of its end, and its end says the same as the report and the tree. The
/// session ends with the run.
fn of_the_log(thirty: &Thirty) {
    let records = &thirty.outcome.records;
    let of_kind = |kind: &str| records.iter().filter(|r| r["kind"] == kind).cloned().collect::<Vec<Value>>();
    let mut ended = of_kind("action_end");
    ended.sort_by_key(|sum| sum["action"].as_str().and_then(|id| id.strip_prefix('a')?.parse::<u32>().ok()));
    thirty.holds("the log", &ended);
    assert_eq!((of_kind("action").len(), ended.len()), (30, 31));
    for (sum, record) in list(&thirty.report["actions"]).iter().zip(&ended) {
        let same = |what: &str| assert_eq!(sum[what], record[what], "{what} of {}", sum["action"]);
        ["action", "command", "effects", "destinations", "denied", "tier"].into_iter().for_each(same);
    }
    let tree = thirty.asked(&["log", "tree", "--json"]);
    let line = |words: &Value| {
        let quoted = list(words).iter().map(|word| quoted(word.as_str().expect("a word"))).collect::<Vec<_>>();
        quoted.join(" ")
    };
    let mut sums = list(&tree["actions"]).to_vec();
    for sum in &mut sums {
        let whole = thirty.seen.iter().map(|seen| &seen["command"]);
        let shown = sum["command"].as_str().expect("a line").trim_end_matches("...");
        let same = whole.into_iter().find(|words| line(words).starts_with(shown)).cloned();
        sum["command"] = same.unwrap_or_default();
    }
    thirty.holds("the tree", &sums);
}

/// As the log writes an argument that is not one plain word.
fn quoted(word: &str) -> String {
    match word.chars().all(|c| c.is_alphanumeric() || "-_./:=,+@%^".contains(c)) {
        true => word.into(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

fn sum_of(thirty: &Thirty, part: &str, what: &str) -> u64 {
    thirty.seen.iter().filter_map(|seen| seen[part][what].as_u64()).sum()
}

fn of_the_numbers(thirty: &Thirty) {
    let stats = thirty.asked(&["log", "stats", "--json"]);
    let denied: u64 =
        stats["ops"].as_object().expect("operations").values().filter_map(|op| op["denied"].as_u64()).sum();
    assert_eq!(denied, sum_of(thirty, "expected", "denied"), "{stats:#}");
    // A connection that is under way when the call returns has not failed.
    let connect = &stats["ops"]["connect"];
    assert_eq!((&connect["denied"], &connect["failed"]), (&json!(1), &json!(0)), "{connect}");
    let [listed, unlisted] = list(&stats["destinations"]) else { panic!("two parties: {stats:#}") };
    assert_eq!((&listed["allowed"], &listed["bytes_out"]), (&json!(2), &json!(10)), "{listed}");
    assert_eq!((&unlisted["allowed"], &unlisted["denied"]), (&json!(0), &json!(1)), "{unlisted}");
    assert_eq!((&stats["kinds"]["action"], &stats["kinds"]["action_end"]), (&json!(30), &json!(31)), "{stats:#}");
}

fn of_the_page(thirty: &Thirty) {
    let page = thirty.page();
    let mut actions = list(&page["actions"]).to_vec();
    let number = |action: &Value| action["name"].as_str().and_then(|name| name.strip_prefix('a')?.parse::<u32>().ok());
    actions.sort_by_key(number);
    let (session, actions) = actions.split_first().expect("the session");
    assert_eq!((&session["name"], &session["command"]), (&json!("the command itself"), &page["title"]));
    assert_eq!(session["did"], json!(["1 program"]), "what it does by itself is next to nothing");
    assert_eq!(actions.len(), 30);
    let wrong = thirty.seen.iter().zip(actions).map(|(seen, action)| (page_differences(seen, action), action));
    let wrong: Vec<_> = wrong.filter(|(differences, _)| !differences.is_empty()).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    of_its_network(thirty, &page);
    of_its_files(thirty, &page);
    // At a glance: the same as the sums of all.
    let total = &thirty.report["total"]["effects"];
    let tile = |words: &str| page["tiles"][words].as_str().unwrap_or("0").to_string();
    for (words, count) in [
        ("files made", &total["files"]["created"]),
        ("files removed", &total["files"]["deleted"]),
        ("files whose content is lost for good", &total["files"]["unheld"]),
        ("programs started", &total["programs"]),
        ("refusals", &thirty.report["denied"]),
        ("reads of secrets", &total["secrets"]["env"]),
        ("connection after reading a secret", &json!(1)),
        ("change to what runs later", &json!(1)),
        ("destination reached", &json!(1)),
    ] {
        assert_eq!(tile(words), count.to_string(), "{words}: {}", page["tiles"]);
    }
    assert_eq!(tile("sent out"), "10 B", "{}", page["tiles"]);
    let badges = json!(["record verified", "3 refused", "highest tier 8 of 10", "all layers held"]);
    assert_eq!(page["badges"], badges);
    let sections = ["asked", "claimed", "happened", "refusals", "actions", "files", "network", "processes", "coverage"];
    assert_eq!(list(&page["sections"])[..9], sections.map(Value::from));
}

/// Where what the page says of an action differs from what somebody saw.
fn page_differences(seen: &Value, action: &Value) -> Vec<String> {
    let (expected, mut found) = (&seen["expected"], Vec::new());
    let mut must = |fact: bool, what: String| found.extend((!fact).then_some(what));
    let line: Vec<String> = list(&seen["command"]).iter().map(|word| quoted(word.as_str().expect("a word"))).collect();
    must(action["command"] == line.join(" "), format!("command {}, not {}", action["command"], line.join(" ")));
    let mut badges = vec![format!("tier {} of 10", expected["tier"])];
    if let Some(denied) = expected["denied"].as_u64() {
        badges.push(format!("{denied} refused, up to tier {}", expected["refused"]));
    }
    must(action["badges"] == json!(badges), format!("badges {}, not {badges:?}", action["badges"]));
    let did: Vec<&str> = list(&action["did"]).iter().map(|said| said.as_str().expect("text")).collect();
    let did = did.join(" · ");
    let mut says = |number: &Value, one: &str, more: &str| {
        let said = said_of(&did, one).or_else(|| said_of(&did, more)).unwrap_or(0);
        must(said == number.as_u64().unwrap_or(0), format!("{said} {more}, not {number}: {did}"));
    };
    if !expected["programs"].is_null() {
        says(&expected["programs"], "program", "programs");
    }
    says(&expected["tainted"], "of them after reading a secret", "of them after reading a secret");
    says(&expected["persistence"], "change to what runs later", "changes to what runs later");
    if expected["scratch"] != true && seen["command"][1] != "package.sh" {
        for what in ["created", "changed", "deleted", "replaced", "moved"] {
            says(&seen["seen"][what], what, what);
        }
        says(&seen["seen"]["directories_made"], "directory made", "directories made");
        says(&seen["seen"]["directories_removed"], "directory removed", "directories removed");
        says(&expected["unheld"], "held nowhere else", "held nowhere else");
    }
    let secret = expected["secrets"]["env"].as_u64().map(|_| "read secrets: env once");
    must(did.contains("secrets") == secret.is_some() && did.contains(secret.unwrap_or("")), format!("secrets: {did}"));
    let connections = expected["connections"].as_u64().map(|_| "1 connection · 5 B out");
    must(did.contains(connections.unwrap_or("")), format!("bytes: {did}"));
    let lost = if expected["lost"] == 5000 { "5.0 kB" } else { "" };
    must(did.contains(lost), format!("lost bytes: {did}"));
    found
}

/// The number that stands before a word or words, which end there.
fn said_of(text: &str, what: &str) -> Option<u64> {
    let ends = |rest: &str| {
        rest.is_empty() || rest.starts_with([',', ')', '(']) || rest.starts_with(" ·") || rest.starts_with(" (")
    };
    let mut places = text.match_indices(what).filter(|(at, _)| ends(&text[at + what.len()..]));
    places.find_map(|(at, _)| text[..at].trim_end().rsplit([' ', '(']).next()?.parse().ok())
}

fn of_its_network(thirty: &Thirty, page: &Value) {
    let [listed, unlisted] = &thirty.parties;
    let rows = list(&page["network"]);
    let row = |party: &str| {
        let row = rows.iter().find(|row| row[0].as_str().is_some_and(|name| name.starts_with(party)));
        row.unwrap_or_else(|| panic!("{party}: {rows:?}"))[1].as_str().expect("text").to_string()
    };
    assert!(row(listed).starts_with("2 connections · 10 B out"), "{rows:?}");
    assert_eq!(row(unlisted), "1 denied");
    // Nothing outside but these two, and the name that both were asked for by.
    assert_eq!(rows.len(), 3, "{rows:?}");
    let refusals = list(&page["refusals"]);
    let refused = |op: &str, aim: &str, action: &str, tier: &str| {
        let fits = |row: &&Value| row[0] == op && row[1].as_str().is_some_and(|found| found.contains(aim));
        let row = refusals.iter().find(fits).unwrap_or_else(|| panic!("{op} {aim}: {refusals:?}"));
        let said = row[2].as_str().expect("text");
        assert!(said.contains(&format!("in {action} ")) && said.contains(tier), "{said}");
    };
    refused("connect", "host.agentbox.internal", "a24", "tier 7");
    refused("create", ".git/hooks/pre-commit", "a25", "tier 8");
    refused("create", "/etc/made-by-a-test", "a26", "tier 8");
    assert_eq!(refusals.len(), 3);
}

/// Every path of which somebody saw that it changed is named, and no other but what came and went unseen.
fn of_its_files(thirty: &Thirty, page: &Value) {
    let told: BTreeSet<&str> = page["files"].as_object().expect("files").keys().map(String::as_str).collect();
    let profile = thirty.scene.home.join(".profile");
    let seen = thirty.seen.iter().flat_map(|seen| list(&seen["paths"])).map(|path| path.as_str().expect("a path"));
    let seen: BTreeSet<&str> = seen.map(|path| path.strip_prefix("./").unwrap_or(text(&profile))).collect();
    // A directory that git made an entry in has changed for nobody who looks at files.
    let missing: Vec<&&str> = seen.difference(&told).collect();
    assert!(missing.is_empty(), "not on the page: {missing:?}");
    let more = told.difference(&seen).filter(|path| !path.starts_with(".git/"));
    assert_eq!(more.collect::<Vec<_>>(), [&"installed.txt"]);
    assert_eq!(page["files"]["deep/er/7"], "each created, removed");
    assert_eq!(page["files"]["many/7"], "each removed");
}
