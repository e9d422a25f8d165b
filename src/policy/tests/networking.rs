//! Loading network rules: modes, layers, flags, notes.

use super::{Lab, strings};
use crate::policy::{Network, NetworkMode, Policy, Request};

/// What rules came out, each with where it stands.
fn rules(network: &Network) -> Vec<String> {
    let lists = [("allow", &network.allow), ("deny", &network.deny)];
    let rules = lists.iter().flat_map(|(key, rules)| rules.iter().map(move |r| format!("{key} {} {}", r.to, r.rule)));
    let published = network.publish.iter().map(|p| format!("publish {} {} {}", p.host, p.port, p.rule));
    rules.chain(published).collect()
}

fn mode(policy: &Policy) -> (NetworkMode, &str) {
    (policy.network.mode, &policy.network.rule.0)
}

#[test]
fn rules_without_a_mode_ask_for_the_mode_that_has_them() {
    use NetworkMode::{Host, None, Rules};
    let lab = Lab::new();
    for (section, expected) in [
        ("", (None, "built-in network.mode")),
        ("network: none\n", (None, "./test.yaml network.mode")),
        ("network: rules\n", (Rules, "./test.yaml network.mode")),
        ("network: host\n", (Host, "./test.yaml network.mode")),
        ("network: {mode: rules}\n", (Rules, "./test.yaml network.mode")),
        ("network: {allow: [a]}\n", (Rules, "./test.yaml network.allow")),
        ("network: {allow: []}\n", (Rules, "./test.yaml network.allow")),
        ("network: {deny: [a]}\n", (Rules, "./test.yaml network.deny")),
        ("network: {deny: []}\n", (None, "built-in network.mode")),
        ("network: {publish: [80]}\n", (None, "built-in network.mode")),
        ("network: {mode: none, publish: [80]}\n", (None, "./test.yaml network.mode")),
        ("network: {mode: none, allow: []}\n", (None, "./test.yaml network.mode")),
        ("network: {}\n", (None, "built-in network.mode")),
        ("network:\n", (None, "built-in network.mode")),
    ] {
        assert_eq!(mode(&lab.policy(section)), expected, "{section}");
    }
}

#[test]
fn later_files_add_rules_and_a_later_mode_without_rules_takes_them_away() {
    let lab = Lab::new();
    lab.write(
        "home/project/first.yaml",
        "version: 1\nnetwork: {allow: [a], deny: ['b:80'], publish: [8000, '8001:80', 0:81, '22:22']}\n",
    );
    let second = |section: &str| {
        let policy = lab.policy(&format!("extends: [./first.yaml]\nnetwork: {section}\n"));
        (policy.network.mode, rules(&policy.network))
    };
    let first = [
        "allow a ./first.yaml network.allow[0]",
        "deny b:80 ./first.yaml network.deny[0]",
        "publish 127.0.0.1:8000 8000 ./first.yaml network.publish[0]",
        "publish 127.0.0.1:8001 80 ./first.yaml network.publish[1]",
        "publish 127.0.0.1:0 81 ./first.yaml network.publish[2]",
        "publish 127.0.0.1:22 22 ./first.yaml network.publish[3]",
    ];
    let with = |at: usize, more: &[&'static str]| {
        let mut all = first.to_vec();
        all.splice(at..at, more.iter().copied());
        (NetworkMode::Rules, strings(&all))
    };
    assert_eq!(second("{}"), with(0, &[]));
    assert_eq!(second("rules"), with(0, &[]));
    assert_eq!(second("{allow: []}"), with(0, &[]));
    assert_eq!(second("{allow: [{host: c, why: it is there}]}"), with(1, &["allow c ./test.yaml network.allow[0]"]));
    assert_eq!(second("{deny: [c]}"), with(2, &["deny c ./test.yaml network.deny[0]"]));
    assert_eq!(
        second("{publish: ['8001:80', '0:81']}"),
        with(6, &["publish 127.0.0.1:0 81 ./test.yaml network.publish[1]"])
    );
    assert_eq!(second("none"), (NetworkMode::None, strings(&first[2..])));
    assert_eq!(second("host"), (NetworkMode::Host, vec![]));
    lab.write("home/project/first.yaml", "version: 1\nnetwork: host\n");
    assert_eq!(
        second("{allow: [c]}"),
        (NetworkMode::Rules, strings(&["allow c ./test.yaml network.allow[0]"])),
        "rules are less than the host's network"
    );
}

#[test]
fn flags_add_rules_on_top() {
    let lab = Lab::new();
    lab.write("home/project/test.yaml", "version: 1\nnetwork: {allow: [a], deny: [b], publish: [8000]}\n");
    lab.write("home/project/host.yaml", "version: 1\nnetwork: host\n");
    let load = |file: &str, net: Option<NetworkMode>, lists: [&[&str]; 3]| {
        let [net_allow, net_deny, publish] = lists.map(strings);
        let policies = strings(&[file]);
        let policy = lab.load(&Request { policies, net, net_allow, net_deny, publish, ..Request::default() });
        policy.map(|loaded| loaded.policy.network).map_err(|error| error.to_string())
    };
    let all = load("./test.yaml", None, [&["c:443"], &["udp://d"], &["80"]]).unwrap();
    assert_eq!((all.mode, &*all.rule.0), (NetworkMode::Rules, "./test.yaml network.allow"));
    assert_eq!(
        rules(&all),
        [
            "allow a ./test.yaml network.allow[0]",
            "allow c:443 command line --net-allow c:443",
            "deny b ./test.yaml network.deny[0]",
            "deny udp://d command line --net-deny udp://d",
            "publish 127.0.0.1:8000 8000 ./test.yaml network.publish[0]",
            "publish 127.0.0.1:80 80 command line --publish 80",
        ]
    );
    for file in ["default", "./host.yaml"] {
        let allowed = load(file, None, [&["c"], &["d"], &[]]).unwrap();
        assert_eq!((allowed.mode, &*allowed.rule.0), (NetworkMode::Rules, "command line --net-allow"));
        let denied = load(file, None, [&[], &["d"], &[]]).unwrap();
        assert_eq!((denied.mode, &*denied.rule.0), (NetworkMode::Rules, "command line --net-deny"));
    }
    assert_eq!(load("default", None, [&[], &[], &["80"]]).unwrap().mode, NetworkMode::None);
    let none = load("./test.yaml", Some(NetworkMode::None), [&[], &[], &["80"]]).unwrap();
    assert_eq!((none.mode, none.allow.is_empty(), none.publish.len()), (NetworkMode::None, true, 2));
    let same = load("default", Some(NetworkMode::Rules), [&["c"], &[], &[]]).unwrap();
    assert_eq!((same.mode, &*same.rule.0), (NetworkMode::Rules, "command line --net rules"));
    for (net, lists, expected) in [
        (
            Some(NetworkMode::None),
            [&["c"][..], &[], &[]],
            "--net-allow and --net none exclude each other: leave one of the two out",
        ),
        (
            Some(NetworkMode::Host),
            [&["c"], &[], &[]],
            "--net-allow and --net host exclude each other: leave one of the two out",
        ),
        (
            Some(NetworkMode::None),
            [&[], &["c"], &[]],
            "--net-deny and --net none exclude each other: leave one of the two out",
        ),
        (
            Some(NetworkMode::Host),
            [&[], &[], &["80"]],
            "--publish and --net host exclude each other: leave one of the two out",
        ),
        (None, [&["localhost"], &[], &[]], "--net-allow localhost: loopback in a box is the box's own"),
        (None, [&[], &["a:0"], &[]], "--net-deny a:0: `0` is no port"),
        (None, [&[], &[], &["x"]], "--publish x: `x` is no port"),
        (
            None,
            [&[], &[], &["8000:81"]],
            "command line --publish 8000:81: 127.0.0.1:8000 is published by ./test.yaml network.publish[0] too, and leads \
             to port 8000 in the box: leave one of the two out",
        ),
    ] {
        let error = load("./test.yaml", net, lists).unwrap_err();
        assert!(error.starts_with(expected), "{error}");
    }
}

#[test]
fn a_mistake_in_a_rule_names_file_line_and_column() {
    let lab = Lab::new();
    for (section, expected) in [
        (
            "network: {allow: ['https://example.org/']}\n",
            "./test.yaml:2:19: network.allow `https://example.org/`: a rule names a host and ports, not a URL: write \
             `example.org:443`",
        ),
        (
            "network:\n  deny:\n    - {host: 10.0.0.5/8, why: x}\n",
            "./test.yaml:4:7: network.deny `10.0.0.5/8`: the address has bits beyond its prefix: write `10.0.0.0/8`",
        ),
        ("network: {publish: [a]}\n", "./test.yaml:2:21: network.publish `a`: `a` is no port"),
        ("network: {publish: [-1]}\n", "./test.yaml:2:21: network.publish `-1`: `-1` is no port"),
        (
            "network: {publish: ['80:81', '80:82']}\n",
            "./test.yaml network.publish[1]: 127.0.0.1:80 is published by ./test.yaml network.publish[0] too",
        ),
    ] {
        let error = lab.error(section);
        assert!(error.starts_with(expected), "{section}  gave     {error}\n  expected {expected}");
    }
}

#[test]
fn a_rule_that_allows_nothing_is_a_note() {
    let lab = Lab::new();
    let none: Vec<String> = vec![];
    let notes = |section: &str| {
        lab.write("home/project/test.yaml", &format!("version: 1\nextends: [./first.yaml]\nnetwork: {section}\n"));
        lab.load(&Request { policies: strings(&["./test.yaml"]), ..Request::default() }).unwrap().notes
    };
    lab.write("home/project/first.yaml", "version: 1\nnetwork: {allow: ['*.later.example'], deny: ['10.0.0.0/8']}\n");
    assert_eq!(
        notes("{allow: ['10.1.0.0/16:443']}"),
        ["./test.yaml:3:19: network.allow[0]: 10.1.0.0/16:443 is denied all the same, by ./first.yaml:2:46: \
             network.deny[0]"]
    );
    for (section, count) in [
        ("{deny: ['*.later.example']}", 0),
        ("{allow: ['a.example:443'], deny: ['*.example:400-500']}", 1),
        ("{allow: ['*.a.example'], deny: ['*.a.example']}", 1),
        ("{allow: ['*.a.example'], deny: ['*.example']}", 1),
        ("{allow: [':443'], deny: ['*']}", 1),
        ("{allow: ['192.0.2.1:443'], deny: [':443']}", 1),
        ("{allow: ['a.example'], deny: ['*.a.example', 'a.example:443', 'udp://a.example']}", 0),
        ("{allow: ['*.example'], deny: ['a.example', '*.a.example']}", 0),
        ("{allow: ['*'], deny: ['0.0.0.0/0', '*.example']}", 0),
        ("{allow: ['10.0.0.0/7']}", 0),
        ("none", 0),
    ] {
        assert_eq!(notes(section).len(), count, "{section}: {:?}", notes(section));
    }
    assert_eq!(notes("{}"), none);
}

#[test]
fn the_digest_tells_rules_apart_and_not_their_spelling() {
    let lab = Lab::new();
    let digest = |section: &str| lab.policy(&format!("network: {section}\n")).digest;
    let sections = [
        "none",
        "rules",
        "host",
        "{allow: [a]}",
        "{allow: ['a:443']}",
        "{allow: ['udp://a']}",
        "{allow: ['*.a']}",
        "{allow: [a], deny: [b]}",
        "{deny: [a]}",
        "{publish: [80]}",
        "{publish: ['80:81']}",
        "{publish: ['0.0.0.0:80:80']}",
    ];
    let digests: std::collections::HashSet<String> = sections.iter().map(|section| digest(section)).collect();
    assert_eq!(digests.len(), sections.len());
    assert_eq!(digest("{allow: ['A.:80,81']}"), digest("{allow: ['tcp://a:80-81']}"));
}

#[test]
fn ten_thousand_names_are_a_policy() {
    let lab = Lab::new();
    let names: String = (0..10_000).map(|n| format!("    - 'name-{n}.example:443'\n")).collect();
    let policy = lab.policy(&format!("network:\n  allow:\n{names}"));
    assert_eq!(policy.network.allow.iter().count(), 10_000);
    assert_eq!(
        &*policy.network.allow.exactly("name-9999.example").next().unwrap().rule.0,
        "./test.yaml network.allow[9999]"
    );
}
