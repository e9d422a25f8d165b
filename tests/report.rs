//! `agentbox report`: a log becomes one page that people can read and that a box cannot write into.

mod common;

use std::collections::BTreeMap;
use std::fs;

use common::browser::measured;
use common::{Outcome, Scene, agent_records, chained, program, run, text};
use serde_json::{Value, json};

/// What no page may hold, wherever its parts come from.
fn is_safe(page: &str) {
    assert!(page.starts_with("<!doctype html>\n"), "{page:.200}");
    assert!(page.contains("content=\"default-src 'none'; style-src 'unsafe-inline';"), "no policy for itself");
    assert!(page.chars().all(|c| !c.is_control() || c == '\n'), "a control character");
    assert!(!page.contains('\u{202e}'), "a mark that turns text around");
    for part in ["<script", "javascript:", "http://", "https://", "url(", "@import", " src=", " href="] {
        assert!(!page.contains(part), "{part} in the page");
    }
}

fn whole(scene: &Scene, page: &str) {
    let script = scene.file("page.py", include_str!("fixtures/page.py"));
    let Some(python) = program("python3") else {
        println!("skipped: no python3: the page is not parsed");
        return;
    };
    let parsed = run(scene.free_command(&[python.as_path(), &script]), page.as_bytes());
    assert_eq!((parsed.code, parsed.out.trim()), (0, "whole"), "{parsed}");
}

fn page_of(scene: &Scene, args: &[&str]) -> Outcome {
    scene.agentbox(&[&["report", "-o", "-"], args].concat())
}

#[test]
fn a_run_becomes_a_page_that_needs_nothing_but_itself() {
    let scene = Scene::new();
    let line = "echo x > '<script>alert(1)<x>'; echo x > \"$(printf 'evil\\033[31m\\n\\342\\200\\256name')\"; mkdir d; \
                echo x > /etc/hosts; cat d; uname > new; exit 3";
    scene.agentbox(&["run", "--", "/bin/sh", "-c", line]).exits(3);
    let log = scene.agentbox(&["log", "--json"]);
    log.must(log.out.contains("<script>alert(1)<x>") && log.out.contains("\\u001b["), "the names are on record");
    let report = page_of(&scene, &[]);
    report.exits(0).must(report.err.is_empty(), "quiet");
    is_safe(&report.out);
    whole(&scene, &report.out);
    for part in [
        "Ended with exit 3 after",
        "record verified",
        "1 refused",
        "&lt;script&gt;alert(1)&lt;x&gt;",
        "evil\\u{1b}[31m\\n\\u{202e}name",
        "its end is the one that run.json names",
        "tier 2",
        "no reasons were handed to agentbox",
        "uname",
        "by <code>default.yaml filesystem</code>: nothing grants it",
        // The policy of a run without flags can be had again, and so what would allow it.
        "would allow it: <code>-w /etc/hosts</code>",
        "processes that asked for something",
    ] {
        report.must(report.out.contains(part), part);
    }
}

#[test]
fn what_is_claimed_stays_apart_from_what_was_seen() {
    let scene = Scene::new();
    let log = scene.file("agent.jsonl", chained(agent_records()));
    let report = page_of(&scene, &[text(&log)]);
    report.exits(0);
    is_safe(&report.out);
    whole(&scene, &report.out);
    for part in [
        "What was claimed <span class=\"badge warn\">unverified</span>",
        "which test fails?",
        "&lt;script&gt;alert(1)&lt;/script&gt;\\u{1b}[31m\\u{202e}",
        "highest tier 10 of 10",
        "reaches beyond the user&#39;s account (B3); cannot be undone (R3)",
        "stays inside the workspace (B1); can be made again (R2)",
        "files: 60 deleted (245.8 kB, all held elsewhere or made again)",
        "read secrets: ssh-key once",
        "git.example.org:443 (192.0.2.7)",
        "run later",
        "agentbox why --event 20261123-120000-abc123:11",
        "a new repository carries hooks",
        "one layer not in full",
        "were counted and are not on record one by one",
        "no run.json says how it must end",
    ] {
        report.must(report.out.contains(part), part);
    }
    assert_eq!(report.out.matches("1 2 3</div>").count(), 1, "what is claimed is told once, where it was said");
    let seen = report.out.find("id=\"happened\"").expect("what happened");
    let said = report.out.find("id=\"claimed\"").expect("what was claimed");
    assert!(said < seen);
}

#[test]
fn a_changed_record_is_the_first_thing_that_the_page_says() {
    let scene = Scene::new();
    let log = chained(agent_records()).replacen("which test fails?", "nothing", 1);
    let log = scene.file("changed.jsonl", log);
    let report = page_of(&scene, &[text(&log)]);
    report.exits(1).must(report.err.contains("the log is broken"), "said");
    is_safe(&report.out);
    report.must(report.out.contains("<h2>The record was changed</h2><p>Line 2 of the log: changed after"), "the alarm");
    report.must(report.out.contains("record broken") && !report.out.contains("record verified"), "the badge");

    let torn = scene.file("torn.jsonl", &chained(agent_records())[..3000]);
    let report = page_of(&scene, &[text(&torn)]);
    report.exits(1).must(report.out.contains("Did not reach its end"), "no end");
    whole(&scene, &report.out);
    let none = scene.file("none.jsonl", "no record\n\u{1b}[2J\n");
    let report = page_of(&scene, &[text(&none)]);
    report.exits(1);
    is_safe(&report.out);
    whole(&scene, &report.out);
    page_of(&scene, &["no-such-run"]).exits(125);
}

#[test]
fn a_page_takes_no_place_that_is_not_its_own() {
    let scene = Scene::new();
    let log = scene.file("agent.jsonl", chained(agent_records()));
    let report = |args: &[&str]| scene.agentbox(&[&["report", text(&log)], args].concat());
    let name = "agentbox-report-20261123-120000-abc123.html";
    for _ in 0..2 {
        let made = report(&[]);
        made.exits(0).must(made.out.trim() == name, "the name");
        is_safe(&fs::read_to_string(scene.work.join(name)).expect("the page"));
    }
    scene.file("home/work/mine.html", "my own page");
    let refused = report(&["-o", "mine.html"]);
    refused.exits(125).must(refused.err.contains("no report") && refused.err.contains("--force"), "what to do");
    assert_eq!(fs::read_to_string(scene.work.join("mine.html")).expect("still there"), "my own page");
    report(&["-o", "mine.html", "--force"]).exits(0);
    is_safe(&fs::read_to_string(scene.work.join("mine.html")).expect("the page"));
    let target = scene.file("outside/target", "theirs");
    std::os::unix::fs::symlink(&target, scene.work.join("link.html")).expect("a link");
    report(&["-o", "link.html"]).exits(125);
    report(&["-o", "."]).exits(125);
    report(&["-o", "no/such/dir.html"]).exits(125);
    assert_eq!(fs::read_to_string(&target).expect("the target"), "theirs");
}

/// Puts `text` wherever a record holds text that is free, and the largest number wherever it counts.
fn spoil(value: &mut Value, key: &str, text: &str) {
    const CHOSEN: [&str; 15] = [
        "kind",
        "time",
        "op",
        "verdict",
        "reason",
        "layer",
        "family",
        "transport",
        "address",
        "addresses",
        "why",
        "reach",
        "reversibility",
        "attribution",
        "place",
    ];
    const COUNTS: [&str; 8] = ["allowed", "denied", "bytes_out", "bytes_in", "allow", "deny", "created", "bytes_lost"];
    match value {
        // A claim's reason is free; a decision's is not.
        Value::String(held) if !CHOSEN.contains(&key) || held.contains(' ') => *held = text.into(),
        Value::Number(held) if COUNTS.contains(&key) => *held = u64::MAX.into(),
        Value::Array(items) => items.iter_mut().for_each(|item| spoil(item, key, text)),
        Value::Object(fields) => fields.iter_mut().for_each(|(key, value)| spoil(value, key, text)),
        _ => {}
    }
}

#[test]
fn nothing_that_a_record_holds_can_leave_its_place_on_the_page() {
    let scene = Scene::new();
    for hostile in
        ["\"><script>alert(1)</script>\u{1b}[2J\r\n\u{202e}", "'/></code></ul></section>&<!--", "]]></style>{}", ""]
    {
        let mut records = agent_records();
        records.iter_mut().for_each(|record| spoil(record, "", hostile));
        let log = scene.file("hostile.jsonl", chained(records));
        let verified = scene.agentbox(&["log", "verify", text(&log)]);
        verified.exits(0).must(verified.out.contains("whole, 17 records"), "all are records still");
        let report = page_of(&scene, &[text(&log)]);
        report.exits(0);
        is_safe(&report.out);
        whole(&scene, &report.out);
        assert_eq!(report.out.matches("<section").count(), report.out.matches("</section>").count());
        assert_eq!(report.out.matches("<!--").count(), 1, "the mark alone");
    }
}

/// A log of many different things of each sort.
fn crowded(count: usize) -> String {
    let mut records = agent_records();
    let end = records.pop().expect("an end");
    let pattern = records[5].clone();
    for i in 0..count {
        let mut record = pattern.clone();
        record["action"] = format!("b{i}").into();
        record["process"] = json!({"pid": 100 + i, "host": i, "exe": format!("/bin/p{i}"), "parents": [99 + i, 2, 1]});
        let (op, verdict) = [("create", "allow"), ("write", "deny"), ("resolve", "allow")][i % 3];
        (record["op"], record["verdict"]) = (op.into(), verdict.into());
        record["target"] = match op {
            "resolve" => json!({"name": format!("n{i}.example.org"), "record": "A"}),
            _ => json!({"path": format!("/work/{}/{i}", "long".repeat(40))}),
        };
        records.push(record);
        records.push(json!({"kind": "claim", "time": "2026-11-23T12:00:08.000000Z", "run": "20261123-120000-abc123",
            "action": format!("b{i}"), "claim": {"reason": format!("{i}{}", "because".repeat(500))}}));
    }
    // What is grave comes last, behind all that is not.
    let mut grave = pattern;
    (grave["action"], grave["tier"]) = ("zz-grave".into(), 8.into());
    records.extend([grave, end]);
    chained(records)
}

#[test]
fn a_page_stays_small_whatever_the_log_holds() {
    let scene = Scene::new();
    let size = |count: usize| {
        let log = scene.file(format!("crowded-{count}.jsonl"), crowded(count));
        let report = page_of(&scene, &[text(&log)]);
        report.exits(0).must(report.out.contains("zz-grave"), "the grave one is there");
        whole(&scene, &report.out);
        for what in ["refusals", "changes", "claims", "names"] {
            let said = format!("more {what} that are not listed here");
            report.must(report.out.contains(&said), &said);
        }
        report.out.len()
    };
    let (some, many) = (size(1200), size(2400));
    assert!(many < 1_500_000 && many - some < 2000, "{some} bytes became {many}");
}

#[test]
fn a_browser_shows_the_page_at_any_width_in_light_and_dark() {
    let Some(chromium) = program("chromium") else { skip!("no chromium: the page is not drawn") };
    let scene = Scene::new();
    let log = scene.file("crowded.jsonl", crowded(300));
    let page = page_of(&scene, &[text(&log)]).out.replace("<details>", "<details open>");
    let page = scene.file("page.html", page);
    let (dark, light) = ("rgb(13, 17, 23)", "rgb(246, 247, 249)");
    for (width, scheme, colour) in [(390, 0, dark), (390, 1, light), (1280, 0, dark), (1280, 1, light)] {
        let (measure, complaints) = measured(&scene, &chromium, &page, width, scheme);
        assert_eq!(measure, format!("{width} {width} {colour}"), "nothing is wider than the window");
        assert_eq!(complaints, "", "the browser complained");
    }
}

/// The luminance of `#rgb` or `#rrggbb`, as the Web Content Accessibility Guidelines define it.
fn luminance(colour: &str) -> f64 {
    let digits = colour.trim_start_matches('#');
    let wide = digits.len() / 3;
    let part = |at: usize| {
        let part = digits[at * wide..(at + 1) * wide].repeat(if wide == 1 { 2 } else { 1 });
        let value = f64::from(u8::from_str_radix(&part, 16).expect("digits")) / 255.0;
        if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
    };
    0.2126 * part(0) + 0.7152 * part(1) + 0.0722 * part(2)
}

#[test]
fn text_stands_out_from_what_is_behind_it_in_light_and_dark() {
    let style = include_str!("../src/audit/page/style.css");
    let colours = |set: &'static str| -> BTreeMap<&str, &str> {
        let set = set.split('}').next().expect("a set").trim_start_matches("color-scheme:light dark;");
        set.split(';').filter_map(|pair| pair.trim().strip_prefix("--")?.split_once(':')).collect()
    };
    let sets: Vec<_> = style.split(":root{").skip(1).map(colours).collect();
    assert_eq!(sets.len(), 2, "light and dark");
    let pairs = [("ink", "bg"), ("ink", "card"), ("ink", "code"), ("soft", "bg"), ("soft", "card"), ("soft", "code")];
    let badges = [("good", "goodbg"), ("warn", "warnbg"), ("bad", "badbg"), ("bad", "card"), ("link", "card")];
    for set in &sets {
        for (text, behind) in pairs.iter().chain(&badges) {
            let (text_is, behind_is) = (luminance(set[text]), luminance(set[behind]));
            let contrast = (text_is.max(behind_is) + 0.05) / (text_is.min(behind_is) + 0.05);
            assert!(contrast >= 4.5, "{text} on {behind}: {contrast:.2}");
        }
        // Graphics need less.
        for bar in ["g0", "g1", "g2", "g3", "g4"] {
            let (bar_is, behind_is) = (luminance(set[bar]), luminance(set["code"]));
            let contrast = (bar_is.max(behind_is) + 0.05) / (bar_is.min(behind_is) + 0.05);
            assert!(contrast >= 3.0, "{bar} on code: {contrast:.2}");
        }
    }
}

#[test]
fn the_records_that_tests_rely_on_are_read_as_records() {
    let scene = Scene::new();
    let log = scene.file("agent.jsonl", chained(agent_records()));
    let verified = scene.agentbox(&["log", "verify", text(&log)]);
    verified.exits(0).must(verified.out.contains("whole, 17 records"), "whole");
    let lines = fs::read_to_string(&log).expect("the log");
    let kinds = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")["kind"].clone());
    assert_eq!(kinds.filter(|kind| kind == "decision").count(), 8);
}
