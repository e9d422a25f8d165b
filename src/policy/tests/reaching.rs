//! What may be reached, looked up and published: decisions about the network.

use std::sync::Arc;

use super::{Lab, strings};
use crate::event::{
    Access, Effect, Endpoint, Event, HOST_NAME, Question, Reason, RuleId, Subject, Transport, Verdict, Visit,
};
use crate::policy::{NetworkMode, Policy, Request, decide, suggest};

fn event(access: Access) -> Event {
    Event::new(Arc::new(Subject::default()), access)
}

/// An address outside, written `[udp://|icmp://]ADDRESS:PORT`, with the names that the box was given it for.
fn outside(text: &str, names: &[&str]) -> Endpoint {
    let (transport, address) = match text.split_once("://") {
        Some(("udp", rest)) => (Transport::Udp, rest),
        Some(("icmp", rest)) => (Transport::Icmp, rest),
        _ => (Transport::Tcp, text),
    };
    let names = names.iter().map(|name| (*name).into()).collect();
    Endpoint::Inet { address: address.parse().unwrap(), outside: true, transport, names }
}

fn connect(policy: &Policy, to: &str, names: &[&str]) -> Verdict {
    decide(policy, &event(Access::Connect { to: outside(to, names) }))
}

fn route(policy: &Policy, to: &str, names: &[&str]) -> Verdict {
    decide(policy, &event(Access::Route { to: outside(to, names) }))
}

fn resolve(policy: &Policy, name: &str) -> Verdict {
    decide(policy, &event(Access::Resolve(Question { name: name.into(), record: "A".into() })))
}

/// The effect and the rule without the file's name.
fn said(verdict: &Verdict) -> (Effect, &str) {
    (verdict.effect, said_of(&verdict.rule))
}

fn said_of(rule: &RuleId) -> &str {
    rule.0.strip_prefix("./test.yaml ").unwrap_or(&rule.0)
}

const NO: Effect = Effect::Deny;
const YES: Effect = Effect::Allow;

#[test]
fn an_address_is_reached_by_address_by_name_or_by_a_rule_for_any_host() {
    let lab = Lab::new();
    let policy = lab.policy(
        "network: {allow: ['192.0.2.0/24:80', 'example.org:443', '*.example.net:8000-8010', 'udp://dns.example:53', \
         ':22', '[2001:db8::/32]:443', 'icmp://192.0.2.9', 'any.example'], deny: ['192.0.2.7', 'bad.example.net', \
         {host: '198.51.100.0/24', message: out of bounds}]}\n",
    );
    for (to, names, expected) in [
        ("192.0.2.1:80", &[][..], (YES, "network.allow[0]")),
        ("192.0.2.1:81", &[], (NO, "network.allow")),
        ("udp://192.0.2.1:80", &[], (NO, "network.allow")),
        ("203.0.113.1:443", &[], (NO, "network.allow")),
        ("203.0.113.1:443", &["example.org"], (YES, "network.allow[1]")),
        ("203.0.113.1:443", &["other.org", "EXAMPLE.org."], (YES, "network.allow[1]")),
        ("203.0.113.1:443", &["www.example.org"], (NO, "network.allow")),
        ("203.0.113.1:443", &["not-example.org"], (NO, "network.allow")),
        ("203.0.113.1:80", &["example.org"], (NO, "network.allow")),
        ("203.0.113.1:8000", &["a.example.net"], (YES, "network.allow[2]")),
        ("203.0.113.1:8010", &["a.b.example.net"], (YES, "network.allow[2]")),
        ("203.0.113.1:8011", &["a.example.net"], (NO, "network.allow")),
        ("203.0.113.1:8000", &["example.net"], (NO, "network.allow")),
        ("udp://203.0.113.1:53", &["dns.example"], (YES, "network.allow[3]")),
        ("203.0.113.1:53", &["dns.example"], (NO, "network.allow")),
        ("203.0.113.1:22", &[], (YES, "network.allow[4]")),
        ("[2001:db8::7]:22", &["example.org"], (YES, "network.allow[4]")),
        ("[2001:db8:ffff::7]:443", &[], (YES, "network.allow[5]")),
        ("[2001:db9::7]:443", &[], (NO, "network.allow")),
        ("icmp://192.0.2.9:0", &[], (YES, "network.allow[6]")),
        ("icmp://192.0.2.9:7", &[], (YES, "network.allow[6]")),
        ("icmp://192.0.2.8:0", &[], (NO, "network.allow")),
        ("203.0.113.1:1", &["any.example"], (YES, "network.allow[7]")),
        ("udp://203.0.113.1:1", &["any.example"], (NO, "network.allow")),
        ("192.0.2.7:80", &[], (NO, "network.deny[0]")),
        ("192.0.2.7:443", &["example.org"], (NO, "network.deny[0]")),
        ("203.0.113.1:443", &["example.org", "bad.example.net"], (NO, "network.deny[1]")),
        ("198.51.100.1:22", &[], (NO, "network.deny[2]")),
        ("203.0.113.1:443", &["not a name", "exämple.org"], (NO, "network.allow")),
    ] {
        assert_eq!(said(&connect(&policy, to, names)), expected, "{to} {names:?}");
    }
    assert_eq!(connect(&policy, "198.51.100.1:22", &[]).message.as_deref(), Some("out of bounds"));
    assert_eq!(connect(&policy, "198.51.100.1:22", &[]).reason, Reason::DenyRule);
    assert_eq!(connect(&policy, "203.0.113.1:1", &[]).reason, Reason::NotGranted);
}

#[test]
fn a_mapped_address_is_the_ipv4_address() {
    let policy = Lab::new().policy("network: {allow: ['::ffff:192.0.2.0/120'], deny: ['::ffff:192.0.2.7']}\n");
    for (to, effect) in [
        ("192.0.2.1:80", YES),
        ("[::ffff:192.0.2.1]:80", YES),
        ("192.0.2.7:80", NO),
        ("[::ffff:192.0.2.7]:80", NO),
        ("[::ffff:c000:207]:80", NO),
    ] {
        assert_eq!(connect(&policy, to, &[]).effect, effect, "{to}");
    }
}

#[test]
fn a_deny_rule_holds_for_the_address_inside_an_address() {
    let policy = Lab::new().policy("network: {allow: ['*'], deny: ['10.0.0.0/8', 'udp://*']}\n");
    for to in [
        "10.0.0.1:80",
        "[::ffff:10.0.0.1]:80",
        "[::10.0.0.1]:80",
        "[::ffff:0:10.0.0.1]:80",
        "[64:ff9b::10.0.0.1]:80",
        "[64:ff9b:1::10.0.0.1]:80",
        "[2002:a00:1::1]:80",
    ] {
        assert_eq!(said(&connect(&policy, to, &[])), (NO, "network.deny[0]"), "{to}");
        assert_eq!(said(&route(&policy, to, &[])), (NO, "network.deny[0]"), "{to}");
    }
    assert_eq!(connect(&policy, "[2001:db8::10.0.0.1]:80", &[]).effect, YES);
}

#[test]
fn the_way_is_told_where_anything_may_be_sent() {
    let policy = Lab::new().policy(
        "network: {allow: ['192.0.2.1:443', 'example.org:80', '198.51.100.0/24:1-99'], deny: ['198.51.100.7:1-50', \
         '198.51.100.7:51-99', '198.51.100.8:1-50', '192.0.2.1:1-442']}\n",
    );
    for (to, names, expected) in [
        ("udp://192.0.2.1:0", &[][..], (YES, "network.allow[0]")),
        ("udp://192.0.2.2:9", &[], (NO, "network.allow")),
        ("udp://203.0.113.1:9", &["example.org"], (YES, "network.allow[1]")),
        ("udp://198.51.100.7:9", &[], (NO, "network.deny[0]")),
        ("udp://198.51.100.8:9", &[], (YES, "network.allow[2]")),
    ] {
        assert_eq!(said(&route(&policy, to, names)), expected, "{to} {names:?}");
    }
}

#[test]
fn names_are_looked_up_where_a_rule_leaves_something_open() {
    let policy = Lab::new().policy(
        "network: {allow: ['example.org:443', '*.example.net', 'udp://u.example:53', 'half.example:80,443', \
         'gone.example:443', '192.0.2.0/24'], deny: ['half.example:80', 'gone.example', 'b.example.net:1-65535']}\n",
    );
    for (name, expected) in [
        ("example.org", (YES, "network.allow[0]")),
        ("Example.ORG.", (YES, "network.allow[0]")),
        ("www.example.org", (NO, "network.allow")),
        ("example.net", (NO, "network.allow")),
        ("a.example.net", (YES, "network.allow[1]")),
        ("a.a.example.net", (YES, "network.allow[1]")),
        ("b.example.net", (NO, "network.deny[2]")),
        ("u.example", (YES, "network.allow[2]")),
        ("half.example", (YES, "network.allow[3]")),
        ("gone.example", (NO, "network.deny[1]")),
        ("192.0.2.1", (NO, "network.allow")),
        ("", (NO, "network.allow")),
        ("a b", (NO, "network.allow")),
        ("exa\\x00mple.org", (NO, "network.allow")),
        ("-example.net", (NO, "network.allow")),
        (HOST_NAME, (NO, "network.allow")),
    ] {
        assert_eq!(said(&resolve(&policy, name)), expected, "{name}");
    }
}

#[test]
fn a_rule_for_any_host_lets_every_name_be_looked_up_but_the_hosts_own() {
    let lab = Lab::new();
    for rules in ["'*'", "':443'", "'udp://*:53'", "'*.internal', ':443'", "'*.agentbox.internal', '*'"] {
        let policy = lab.policy(&format!("network: {{allow: [{rules}]}}\n"));
        assert_eq!(resolve(&policy, "example.org").effect, YES, "{rules}");
        assert_eq!(resolve(&policy, HOST_NAME).effect, NO, "{rules}");
    }
}

#[test]
fn the_mode_without_rules_answers_alike_whatever_is_asked() {
    let lab = Lab::new();
    let (none, host) = (lab.policy("network: none\n"), lab.policy("network: host\n"));
    for access in [
        Access::Connect { to: outside("192.0.2.1:443", &["example.org"]) },
        Access::Send { to: outside("udp://192.0.2.1:53", &[]) },
        Access::Route { to: outside("udp://192.0.2.1:53", &[]) },
        Access::Resolve(Question { name: "example.org".into(), record: "AAAA".into() }),
        Access::Bind { at: outside("192.0.2.1:80", &[]) },
    ] {
        let (none, host) = (decide(&none, &event(access.clone())), decide(&host, &event(access.clone())));
        assert_eq!((none.effect, none.reason), (NO, Reason::NoNetwork), "{access:?}");
        assert_eq!(host.effect, YES, "{access:?}");
    }
}

#[test]
fn an_empty_list_of_what_is_allowed_allows_nothing() {
    let lab = Lab::new();
    for rules in ["network: {allow: []}", "network: rules", "network: {mode: rules}", "network: {deny: [example.org]}"]
    {
        let policy = lab.policy(&format!("{rules}\n"));
        let verdict = connect(&policy, "192.0.2.1:443", &["example.com"]);
        assert_eq!((verdict.effect, verdict.reason), (NO, Reason::NotGranted), "{rules}");
        assert_eq!(resolve(&policy, "example.com").effect, NO, "{rules}");
    }
}

/// Every kind of address that only a rule for the address itself opens: in all its spellings, the rule that says so, the
/// rules that open it and some that look as if they did.
const RESERVED: &[(&str, &str, &[&str], &[&str])] = &[
    ("169.254.169.254", "metadata", &["169.254.169.254"], &["169.254.0.0/16", "169.254.169.0/24"]),
    ("::ffff:169.254.169.254", "metadata", &["169.254.169.254", "::ffff:169.254.169.254"], &["::/0"]),
    ("::ffff:a9fe:a9fe", "metadata", &["169.254.169.254"], &["::/0"]),
    ("::a9fe:a9fe", "metadata", &["::169.254.169.254"], &["::/0", "169.254.169.254", "::/96"]),
    ("64:ff9b::169.254.169.254", "metadata", &["64:ff9b::a9fe:a9fe"], &["64:ff9b::/96", "169.254.169.254"]),
    ("2002:a9fe:a9fe::1", "metadata", &["2002:a9fe:a9fe::/48", "2002:a9fe:a9fe::1"], &["2002::/16"]),
    ("64:ff9b:1::a9fe:a9fe", "metadata", &["64:ff9b:1::a9fe:a9fe"], &["64:ff9b:1::/48", "64:ff9b:1::/96"]),
    ("::ffff:0:169.254.169.254", "metadata", &["::ffff:0:a9fe:a9fe"], &["::ffff:0:0:0/96"]),
    ("fd00:ec2::254", "metadata", &["fd00:ec2::254"], &["fd00::/8", "fd00:ec2::/64"]),
    ("fd20:ce::254", "metadata", &["fd20:ce::254"], &["fd20::/16"]),
    ("100.100.100.200", "metadata", &["100.100.100.200/32"], &["100.64.0.0/10"]),
    ("168.63.129.16", "metadata", &["168.63.129.16"], &["168.63.0.0/16"]),
    ("192.0.0.192", "metadata", &["192.0.0.192"], &["192.0.0.0/24"]),
    ("169.254.0.1", "link-local", &["169.254.0.1", "169.254.0.0/16", "169.254.0.0/24"], &["169.0.0.0/8"]),
    ("64:ff9b::169.254.0.1", "link-local", &["64:ff9b::a9fe:0/112"], &["64:ff9b::/96", "169.254.0.0/16"]),
    ("fe80::1", "link-local", &["fe80::1", "fe80::/10", "fe80::/64"], &["fe00::/8"]),
    ("febf:ffff::1", "link-local", &["febf:ffff::1"], &["fe00::/8"]),
    ("224.0.0.251", "multicast", &["224.0.0.251", "224.0.0.0/4"], &["224.0.0.0/3"]),
    ("ff02::fb", "multicast", &["ff02::fb", "ff00::/8"], &["f000::/4"]),
    ("255.255.255.255", "broadcast", &["255.255.255.255"], &["240.0.0.0/4", "255.0.0.0/8"]),
    ("240.0.0.1", "reserved", &["240.0.0.1", "240.0.0.0/4"], &["128.0.0.0/1"]),
    ("0.0.0.0", "unspecified address", &[], &[]),
    ("0.1.2.3", "unspecified address", &[], &[]),
    ("::", "unspecified address", &[], &[]),
    ("::ffff:0.0.0.0", "unspecified address", &[], &[]),
    ("64:ff9b::", "unspecified address", &[], &[]),
    ("127.0.0.1", "loopback", &[], &["126.0.0.0/7"]),
    ("127.1.2.3", "loopback", &[], &[]),
    ("::1", "loopback", &[], &[]),
    ("::ffff:127.0.0.1", "loopback", &[], &[]),
    ("::127.0.0.1", "loopback", &[], &[]),
    ("64:ff9b::127.0.0.1", "loopback", &[], &[]),
    ("2002:7f00:1::", "loopback", &[], &[]),
];

#[test]
fn what_is_reserved_is_opened_by_a_rule_for_the_address_alone() {
    let lab = Lab::new();
    let rules = |rules: &[&str]| lab.policy(&format!("network: {{allow: {rules:?}}}\n"));
    for (address, kind, open, closed) in RESERVED {
        let ip: std::net::IpAddr = address.parse().unwrap();
        let to = std::net::SocketAddr::new(ip, 80).to_string();
        let built_in = format!("built-in {kind}");
        let wide = ["*", ":80", "0.0.0.0/0", "::/0", "evil.example", "*.example"];
        for rules in closed.iter().chain(&wide).map(|rule| rules(&[rule])).chain([rules(&wide)]) {
            for names in [&[][..], &["evil.example"]] {
                let verdict = connect(&rules, &to, names);
                assert_eq!((verdict.effect, &*verdict.rule.0), (NO, &*built_in), "{to} {names:?}");
                assert_eq!(verdict.reason, Reason::NotGranted);
                assert!(verdict.message.is_some());
                assert_eq!(route(&rules, &to, names).effect, NO, "{to}");
            }
        }
        for rule in *open {
            let policy = rules(&[rule]);
            assert_eq!(connect(&policy, &to, &["evil.example"]).effect, YES, "{to} with {rule}");
            assert_eq!(route(&policy, &to, &[]).effect, YES, "{to} with {rule}");
            let ports = if rule.matches(':').count() > 1 { format!("[{rule}]:443") } else { format!("{rule}:443") };
            assert_eq!(connect(&rules(&[&ports, ":80"]), &to, &[]).effect, NO, "{to} with {ports}");
        }
    }
}

#[test]
fn the_loopback_of_the_host_is_reached_by_its_name_where_a_rule_lists_it() {
    let lab = Lab::new();
    let policy = lab.policy(&format!("network: {{allow: ['{HOST_NAME}:5432', ':80'], deny: ['example.org']}}\n"));
    for (to, names, expected) in [
        ("127.0.0.1:5432", &[HOST_NAME][..], (YES, "network.allow[0]")),
        ("[::1]:5432", &[HOST_NAME], (YES, "network.allow[0]")),
        ("127.0.0.1:5432", &["Host.Agentbox.Internal."], (YES, "network.allow[0]")),
        ("127.0.0.1:80", &[HOST_NAME], (NO, "network.allow")),
        ("127.0.0.1:5432", &[], (NO, "built-in loopback")),
        ("127.0.0.1:5432", &["evil.example"], (NO, "built-in loopback")),
        ("127.0.0.1:5432", &[HOST_NAME, "example.org"], (NO, "network.deny[0]")),
        // The name is the host's loopback and opens nothing else.
        ("192.0.2.1:5432", &[HOST_NAME], (NO, "network.allow")),
        ("169.254.169.254:5432", &[HOST_NAME], (NO, "built-in metadata")),
    ] {
        assert_eq!(said(&connect(&policy, to, names)), expected, "{to} {names:?}");
    }
    assert_eq!(said(&resolve(&policy, HOST_NAME)), (YES, "network.allow[0]"));
    for rules in ["allow: ['*', '*.internal', '*.agentbox.internal']", "allow: [a]"] {
        let policy = lab.policy(&format!("network: {{{rules}}}\n"));
        assert_eq!(connect(&policy, "127.0.0.1:80", &[HOST_NAME]).effect, NO, "{rules}");
        assert_eq!(resolve(&policy, HOST_NAME).effect, NO, "{rules}");
    }
    for deny in ["*.internal", HOST_NAME, ":5432"] {
        let policy = lab.policy(&format!("network: {{allow: ['{HOST_NAME}:5432'], deny: ['{deny}']}}\n"));
        assert_eq!(said(&connect(&policy, "127.0.0.1:5432", &[HOST_NAME])), (NO, "network.deny[0]"), "{deny}");
        assert_eq!(said(&resolve(&policy, HOST_NAME)), (NO, "network.deny[0]"), "{deny}");
    }
}

#[test]
fn what_is_published_leads_in_and_nothing_else() {
    let lab = Lab::new();
    let rules = "network: {publish: [8000, '127.0.0.1:8001:80', '[::1]:0:81', '0.0.0.0:8002:82']}\n";
    let with_rules = lab.policy(&rules.replace("{publish", "{mode: rules, publish"));
    let none = lab.policy(&format!("extends: [default]\n{rules}"));
    assert_eq!((with_rules.network.mode, none.network.mode), (NetworkMode::Rules, NetworkMode::None));
    for policy in [none, with_rules] {
        let otherwise = said_of(&policy.network.rule);
        for (at, port, expected) in [
            ("127.0.0.1:8000", 8000, (YES, "network.publish[0]")),
            ("127.0.0.1:8001", 80, (YES, "network.publish[1]")),
            ("[::1]:49152", 81, (YES, "network.publish[2]")),
            ("0.0.0.0:8002", 82, (YES, "network.publish[3]")),
            ("192.0.2.1:8002", 82, (YES, "network.publish[3]")),
            ("192.0.2.1:8000", 8000, (NO, otherwise)),
            ("127.0.0.1:8000", 80, (NO, otherwise)),
            ("127.0.0.1:8001", 8001, (NO, otherwise)),
            ("127.0.0.1:49152", 81, (NO, otherwise)),
        ] {
            let from = "192.0.2.9:5000".parse().unwrap();
            let visit = Access::Accept(Visit { from, at: at.parse().unwrap(), port });
            assert_eq!(said(&decide(&policy, &event(visit))), expected, "{at} to {port}");
        }
    }
}

#[test]
fn binding_to_an_address_outside_says_what_is_reached() {
    let policy = Lab::new().policy("network: {allow: ['*']}\n");
    let verdict = decide(&policy, &event(Access::Bind { at: outside("192.0.2.1:80", &[]) }));
    assert_eq!((verdict.effect, verdict.reason), (NO, Reason::NotGranted));
    let message = verdict.message.unwrap();
    assert!(message.contains("by its published ports alone"), "{message}");
}

#[test]
fn the_suggested_rule_does_allow_it() {
    let lab = Lab::new();
    let connect = |to: &str, names: &[&str]| Access::Connect { to: outside(to, names) };
    let route = |to: &str| Access::Route { to: outside(to, &[]) };
    let resolve = |name: &str| Access::Resolve(Question { name: name.into(), record: "A".into() });
    for (access, expected) in [
        (connect("192.0.2.1:443", &[]), "192.0.2.1:443"),
        (connect("192.0.2.1:443", &["old.example", "new.example"]), "new.example:443"),
        (connect("[2001:db8::1]:443", &[]), "'[2001:db8::1]:443'"),
        (connect("[2001:db8::1]:443", &["b c"]), "'[2001:db8::1]:443'"),
        (connect("udp://192.0.2.1:123", &["time.example"]), "udp://time.example:123"),
        (connect("icmp://192.0.2.1:0", &[]), "icmp://192.0.2.1"),
        (connect("icmp://[2001:db8::1]:0", &[]), "icmp://2001:db8::1"),
        (connect("127.0.0.1:80", &[HOST_NAME]), "host.agentbox.internal:80"),
        (connect("169.254.169.254:80", &["evil.example"]), "169.254.169.254:80"),
        (connect("[fe80::1]:80", &[]), "'[fe80::1]:80'"),
        (connect("192.0.2.1:80", &["a.example", HOST_NAME]), "a.example:80"),
        (connect("224.0.0.251:5353", &[]), "224.0.0.251:5353"),
        (connect("[64:ff9b::a9fe:a9fe]:80", &[]), "'[64:ff9b::a9fe:a9fe]:80'"),
        (route("udp://192.0.2.1:9"), "udp://192.0.2.1:9"),
        (route("192.0.2.1:0"), "192.0.2.1"),
        (resolve("Example.org"), "example.org"),
        (resolve(HOST_NAME), HOST_NAME),
    ] {
        let event = event(access);
        for net in ["none", "rules"] {
            let policy = lab.policy(&format!("network: {net}\n"));
            let flag = suggest(&policy, &event, &decide(&policy, &event)).unwrap();
            assert_eq!(flag, format!("--net-allow {expected}"), "{event:?}");
            let rule = expected.trim_matches('\'').to_string();
            let request = Request { policies: strings(&["./test.yaml"]), net_allow: vec![rule], ..Request::default() };
            let again = lab.load(&request).unwrap().policy;
            assert_eq!(decide(&again, &event).effect, YES, "{flag}");
        }
    }
}

#[test]
fn a_name_server_is_suggested_only_where_the_box_has_one_already() {
    let lab = Lab::new();
    let suggestion = |net: &str, to: &str| {
        let policy = lab.policy(&format!("network: {net}\n"));
        let event = event(Access::Connect { to: outside(to, &[]) });
        suggest(&policy, &event, &decide(&policy, &event)).unwrap()
    };
    for to in ["udp://192.0.2.53:53", "192.0.2.53:53"] {
        assert_eq!(suggestion("rules", to), format!("--net-allow {to}"));
        assert!(suggestion("none", to).starts_with("--net-allow HOST for each name it looks up"), "{to}");
    }
}

#[test]
fn what_no_rule_could_allow_has_no_suggestion() {
    let lab = Lab::new();
    let policy = lab.policy("network: {deny: ['example.org']}\n");
    let suggestion = |policy: &Policy, access: Access| {
        let event = event(access);
        suggest(policy, &event, &decide(policy, &event))
    };
    let question = |name: &str| Access::Resolve(Question { name: name.into(), record: "A".into() });
    assert_eq!(suggestion(&policy, question("a b")), None);
    for never in ["0.0.0.0:80", "[::127.0.0.1]:80", "[64:ff9b::7f00:1]:80"] {
        assert_eq!(suggestion(&policy, Access::Connect { to: outside(never, &[]) }), None, "{never}");
        assert!(connect(&policy, never, &[]).message.unwrap().ends_with(": no rule opens it"), "{never}");
    }
    assert_eq!(suggestion(&policy, Access::Bind { at: outside("192.0.2.1:80", &[]) }), None);
    let denied = suggestion(&policy, Access::Connect { to: outside("192.0.2.1:80", &["example.org"]) });
    assert_eq!(denied.as_deref(), Some("a policy without the rule ./test.yaml network.deny[0]"));
    let request = Request { net: Some(NetworkMode::None), ..Request::default() };
    let none = lab.load(&request).unwrap().policy;
    assert_eq!(suggestion(&none, question("a.example")).unwrap(), "--net-allow a.example in place of --net none");
}
