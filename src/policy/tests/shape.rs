use std::time::{Duration, Instant};

use crate::policy::file::{PolicyFile, Protect};

fn error(text: &str) -> String {
    error_of(text.as_bytes())
}

fn error_of(bytes: &[u8]) -> String {
    PolicyFile::parse("p.yaml", bytes).map(|_| String::from("accepted")).unwrap_or_else(|e| e.to_string())
}

#[test]
fn every_mistake_is_one_line_with_its_place_and_what_to_do() {
    let mut wrong = Vec::new();
    for (text, expected) in [
        ("version: 1\nfilesytem: {}\n", "p.yaml:2:1: unknown key `filesytem`: did you mean `filesystem`?"),
        ("version: 1\nfilesystem:\n  raed: []\n", "p.yaml:3:3: unknown key `raed`: did you mean `read`?"),
        ("version: 1\nfilesystem:\n  read: /usr\n", "p.yaml:3:9: expected a list"),
        ("version: 1\nfilesystem:\n  read: [7]\n", "p.yaml:3:10: expected a string or a mapping"),
        (
            "version: 1\nfilesystem:\n  read: [{path: /a, wy: b}]\n",
            "p.yaml:3:21: unknown key `wy`: there are path, run, args, name, host, why, message",
        ),
        ("version: 1\nfilesystem:\n  read: [{why: b}]\n", "names exactly one of `path`, `run`, `name` or `host`"),
        (
            "version: 1\nfilesystem: {read: [~]}\n",
            "p.yaml:2:21: a rule is empty here: YAML reads a bare `~` as nothing, so quote it",
        ),
        ("version: 1\nfilesystem: {read: [\"\"]}\n", "p.yaml:2:21: expected a rule, found an empty string"),
        ("version: 1\nnetwork: {mode: hots}\n", "p.yaml:2:17: `hots` is not one of the choices: did you mean `host`?"),
        ("version: 1\nnetwork: hots\n", "p.yaml:2:1: `hots` is not one of the choices: did you mean `host`?"),
        ("version: 1\nnetwork: [a]\n", "p.yaml:2:1: expected `none`, `rules`, `host`, or the keys mode, allow"),
        ("version: 1\nnetwork: {alow: []}\n", "p.yaml:2:11: unknown key `alow`: did you mean `allow`?"),
        (
            "version: 1\nnetwork: {allow: [{host: a, port: 80}]}\n",
            "p.yaml:2:29: unknown key `port`: ports stand behind the host, as in `example.org:443`",
        ),
        ("version: 1\nnetwork: {allow: a}\n", "p.yaml:2:18: expected a list"),
        ("version: 1\nnetwork: {allow: [80]}\n", "p.yaml:2:19: expected a string or a mapping"),
        ("version: 1\nnetwork: {publish: [1.5]}\n", "p.yaml:2:21: expected a port such as 8000"),
        (
            "version: 1\nnetwork: {mode: none, allow: [a]}\n",
            "p.yaml:2:31: `network.allow` does nothing with `mode: none`: leave one of the two out, or write `mode: rules`",
        ),
        (
            "version: 1\nnetwork: {mode: host, deny: [a]}\n",
            "p.yaml:2:30: `network.deny` does nothing with `mode: host`: leave one of the two out",
        ),
        (
            "version: 1\nnetwork: {mode: host, publish: [80]}\n",
            "p.yaml:2:33: `network.publish` does nothing with `mode: host`: leave one of the two out",
        ),
        ("version: 1\naudit: {level: loud}\n", "p.yaml:2:16: `loud` is not one of the choices"),
        ("version: 1\naudit: {export: ocsf}\n", "p.yaml:2:17: `ocsf` is not one of the choices"),
        ("version: 1\naudit: {key: \"\"}\n", "p.yaml:2:14: expected a rule, found an empty string"),
        ("version: 1\naudit: {kye: a}\n", "p.yaml:2:9: unknown key `kye`: there are level, export, key"),
        ("version: 1\nfilesystem: {protect: maybe}\n", "p.yaml:2:14: `maybe` is not one of the choices"),
        ("version: 1\nversion: 1\n", "p.yaml:2:1: the key `version` stands there twice"),
        ("version: 2\n", "p.yaml:1:10: version 2 is not known"),
        ("version: one\n", "p.yaml:1:10: "),
        ("env: {}\n", "the key `version` is missing: a policy starts with `version: 1`"),
        ("", "p.yaml: the file is empty"),
        ("# only a comment\n\n---\n", "p.yaml: the file is empty"),
        ("just words", "p.yaml:1:1: expected keys, such as {a: b}"),
        ("- a\n- b\n", "p.yaml:1:1: expected keys, such as {a: b}"),
        ("version: 1\n  bad: indent\n", "p.yaml:"),
        ("version: 1\nexec: {allow: [\n", "p.yaml:"),
        ("version: 1\nenv: {set: {A: !!python/object x}}\n", "p.yaml:2:"),
        ("version: 1\nbase: &b {read: [/]}\nfilesystem:\n  <<: *b\n", "p.yaml:"),
        ("version: 1\n---\nversion: 1\n", "p.yaml:"),
    ] {
        let error = error(text);
        if !error.contains(expected) {
            wrong.push(format!("{text:?}\n  gave     {error}\n  expected {expected}"));
        }
        assert!(!error.contains('\n'), "{error}");
        assert!(error.starts_with("p.yaml"), "{error}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_feature_that_is_not_there_yet_is_refused_by_name() {
    for (section, key) in [
        ("limits: {memory: 2G}", "limits"),
        ("workspace: overlay", "workspace"),
        ("ask: {via: [tty]}", "ask"),
        ("filesystem: {ask: [/a]}", "filesystem.ask"),
        ("network: {ask: [a]}", "network.ask"),
    ] {
        let error = error(&format!("version: 1\n{section}\n"));
        assert!(error.starts_with("p.yaml:2:") && error.contains(&format!("`{key}` is not there yet")), "{error}");
    }
}

#[test]
fn merge_keys_are_refused_even_in_a_known_place() {
    let error = error("version: 1\nenv:\n  set: &s {A: b}\nexec:\n  <<: *s\n");
    assert!(error.contains("merge keys"), "{error}");
}

#[test]
fn ten_thousand_rules_are_a_policy() {
    let rules: String = (0..10_000).map(|n| format!("  - {{path: '**/secret-{n}.env', why: one of many}}\n")).collect();
    let text = format!("version: 1\nfilesystem:\n  deny:\n{rules}");
    let file = PolicyFile::parse("p.yaml", text.as_bytes()).unwrap();
    assert_eq!((file.deny.len(), file.deny[9_999].mark.line), (10_000, 10_003));
}

#[test]
fn hostile_files_are_refused_quickly() {
    let mut bomb = String::from("version: 1\na0: &a0 [x,x,x,x,x,x,x,x,x]\n");
    for n in 1..9 {
        let again = format!("*a{},", n - 1).repeat(9);
        bomb.push_str(&format!("a{n}: &a{n} [{again}]\n"));
    }
    let aliased = format!("version: 1\nenv: {{set: &a {{A: b}}}}\nexec: {{allow: [{}]}}\n", "*a,".repeat(5000));
    let binary: Vec<u8> = (0..=255).collect();
    let cases: [(&str, Vec<u8>); 9] = [
        ("alias bomb", bomb.into()),
        ("aliases", aliased.into()),
        ("deep flow", format!("version: 1\nenv: {}", "[".repeat(100_000)).into()),
        ("deep map", format!("version: 1\nenv: {}", "{a: ".repeat(50_000)).into()),
        ("deep block", (0..2000).map(|n| format!("{}a:\n", " ".repeat(n % 200))).collect::<String>().into()),
        ("10 MB", vec![b'#'; 10 << 20]),
        ("binary", binary),
        ("zero byte", b"version: 1\nexec: {allow: ['a\0b']}".to_vec()),
        ("many nodes", format!("version: 1\nexec: {{allow: [{}]}}\n", "a,".repeat(100_000)).into()),
    ];
    for (what, bytes) in cases {
        let start = Instant::now();
        let error = error_of(&bytes);
        assert!(error.starts_with("p.yaml") && !error.contains('\n'), "{what}: {error}");
        assert!(start.elapsed() < Duration::from_secs(2), "{what} took {:?}", start.elapsed());
    }
}

#[test]
fn any_cut_or_broken_file_gives_an_error_and_no_panic() {
    let whole = crate::policy::load::profiles().map(|p| p.yaml).collect::<String>();
    for cut in (0..whole.len()).step_by(97).filter(|at| whole.is_char_boundary(*at)) {
        let _ = error(&whole[..cut]);
        let mut broken = whole.as_bytes()[..whole.len().min(cut + 500)].to_vec();
        if let Some(byte) = broken.get_mut(cut) {
            *byte = b"{[&*!|>%@`\"'#-:\0\xff"[cut % 17];
        }
        let _ = error_of(&broken);
    }
}

#[test]
fn a_rule_keeps_its_message_exception_and_place() {
    let text =
        "version: 1\nfilesystem:\n  protect:\n    - {path: '**/x', except: samples, why: because, message: no}\n";
    let Some(Protect::List(entries)) = PolicyFile::parse("p.yaml", text.as_bytes()).unwrap().protect else { panic!() };
    let entry = &entries[0];
    assert_eq!((entry.text.as_str(), entry.message.as_deref()), ("**/x", Some("no")));
    assert_eq!((entry.mark.line, entry.mark.column), (4, 7));
}

#[test]
fn a_value_may_be_a_number_where_text_is_wanted() {
    let file = PolicyFile::parse("p.yaml", b"version: 1\nenv: {set: {CI: 1, NO: no}}\n").unwrap();
    assert_eq!(file.env_set["CI"], "1");
    assert_eq!(file.env_set["NO"], "no");
}
