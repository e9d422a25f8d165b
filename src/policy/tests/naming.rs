//! The grammar of network rules, and looking rules up by host.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::filing::Dice;
use crate::event::RuleId;
use crate::policy::network::{Destination, Destinations, Host, HostName, NetworkRule, Publish, Subnet};

fn parsed(text: &str) -> String {
    Destination::parse(text).map(|to| to.to_string()).unwrap_or_else(|error| format!("error: {error}"))
}

#[test]
fn a_rule_is_read_and_shown_in_one_spelling() {
    for (text, shown) in [
        ("example.org", "example.org"),
        ("Example.ORG.:443", "example.org:443"),
        ("tcp://example.org:443", "example.org:443"),
        ("udp://example.org:53", "udp://example.org:53"),
        ("icmp://example.org", "icmp://example.org"),
        ("_dmarc.x-y.xn--bcher-kva.example", "_dmarc.x-y.xn--bcher-kva.example"),
        ("a", "a"),
        ("1a.2b", "1a.2b"),
        ("0x7f.example", "0x7f.example"),
        ("*.Example.org:8443,443", "*.example.org:443,8443"),
        ("*.org", "*.org"),
        ("*", "*"),
        ("udp://*", "udp://*"),
        ("*:443", "*:443"),
        (":443", "*:443"),
        ("udp://:53", "udp://*:53"),
        ("host.agentbox.internal:11434", "host.agentbox.internal:11434"),
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1/32:80", "192.0.2.1:80"),
        ("10.0.0.0/8:5432", "10.0.0.0/8:5432"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("126.0.0.0/7", "126.0.0.0/7"),
        ("2001:DB8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:443", "[2001:db8::1]:443"),
        ("2001:db8::/32", "2001:db8::/32"),
        ("[2001:db8::/32]:443", "[2001:db8::/32]:443"),
        ("2001:db8::1/128", "2001:db8::1"),
        ("2001:db8::1:443", "2001:db8::1:443"),
        ("::/0", "::/0"),
        ("udp://[::/0]:53", "udp://[::/0]:53"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("[::ffff:a00:1]:80", "10.0.0.1:80"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
        ("a:443,8443,9000-9100", "a:443,8443,9000-9100"),
        ("a:3,1,2", "a:1-3"),
        ("a:1-10,5-20,22", "a:1-20,22"),
        ("a:1-65535", "a"),
        ("a:080", "a:80"),
    ] {
        assert_eq!(parsed(text), shown, "{text}");
        assert_eq!(parsed(shown), shown, "{text} does not read back");
    }
}

#[test]
fn what_is_no_rule_says_what_to_write() {
    let number = |text: &str| {
        format!(
            "`{text}` reads as a number, which programs take for an address: write the plain address, as in `192.0.2.1`"
        )
    };
    let port = |text: &str| {
        format!("{text} is no port: write numbers from 1 to 65535, as in `443,9000-9100`, or no `:` for any port")
    };
    let loopback = |port: &str| {
        format!(
            "loopback in a box is the box's own and always open: to reach a service on this machine, write \
             `host.agentbox.internal:{port}`"
        )
    };
    let url = |hint: &str| format!("a rule names a host and ports, not a URL: write `{hint}`");
    let path = |hint: &str| format!("a rule names a host and ports, not a path: write `{hint}`");
    let colons = |text: &str| {
        format!(
            "`{text}` is neither one host with ports nor an IPv6 address, which goes in brackets with ports: \
             `[2001:db8::1]:443`"
        )
    };
    let bits = |hint: &str| {
        format!("the address has bits beyond its prefix: write `{hint}` for the network, or the address alone")
    };
    let length = |text: &str, most| format!("`/{text}` is not a length of a network prefix: write /0 to /{most}");
    let empty = "the rule is empty: write a host, as in `example.org:443`, or `*` for any".to_string();
    let wildcard = "`*` stands alone or as the whole first part of a name, as in `*.example.org`".to_string();
    let brackets = "brackets hold an IPv6 address or network, and ports come after them: `[2001:db8::/32]:443`";
    let label = "there is nothing between two dots, or before the first: a name is written as in `www.example.org`";
    let hyphen = "a part of a name neither starts nor ends with `-`";
    let ascii = "a name holds ASCII characters only: write it in punycode, which starts with `xn--`";
    for (text, expected) in [
        ("", empty.clone()),
        ("udp://", empty),
        (".", "the name is empty".into()),
        ("https://example.org/x", url("example.org:443")),
        ("https://user@example.org:8443/x?y#z", url("example.org:8443")),
        ("HTTP://example.org", url("example.org:80")),
        ("https://[2001:db8::1]/x", url("[2001:db8::1]:443")),
        ("quic://example.org", url("example.org")),
        ("://", url("example.org:443")),
        ("example.org/x", path("example.org")),
        ("tcp://example.org:443/x", path("example.org:443")),
        ("*.example.org/24", wildcard.clone()),
        ("a..b", label.into()),
        ("a.b..", label.into()),
        ("..a", label.into()),
        (".example.org", "a name does not start with a dot: write `*.example.org` for all names below".into()),
        ("exämple.org", ascii.into()),
        ("exa mple.org", "` ` cannot stand in a host name".into()),
        (" example.org", "` ` cannot stand in a host name".into()),
        ("a\0b", "`\\u{0}` cannot stand in a host name".into()),
        ("a@b", "`@` cannot stand in a host name".into()),
        ("-a.org", hyphen.into()),
        ("a-.org", hyphen.into()),
        (&"a".repeat(64), "a part of a name is longer than the 63 characters that a host name takes".into()),
        (&"a.".repeat(128), "the name is longer than the 253 characters that a host name takes".into()),
        ("**.example.org", wildcard.clone()),
        ("*.*.org", wildcard.clone()),
        ("a.*.org", wildcard.clone()),
        ("a*.org", wildcard.clone()),
        ("*a", wildcard),
        ("*.", "the name is empty".into()),
        ("2130706433", number("2130706433")),
        ("127.1", number("127.1")),
        ("0177.0.0.1", number("0177.0.0.1")),
        ("0x7f000001:80", number("0x7f000001")),
        ("0x7f.0.0.0X1", number("0x7f.0.0.0X1")),
        ("example.123", number("example.123")),
        ("256.0.0.1", number("256.0.0.1")),
        ("10.0/8", number("10.0")),
        ("*.10.0.0.1", number("10.0.0.1")),
        ("10.0.0.5/8", bits("10.0.0.0/8")),
        ("2001:db8::1/32", bits("2001:db8::/32")),
        ("::ffff:10.0.0.5/104", bits("10.0.0.0/8")),
        ("10.0.0.0/33", length("33", 32)),
        ("10.0.0.0/", length("", 32)),
        ("10.0.0.0/+8", length("+8", 32)),
        ("2001:db8::/129", length("129", 128)),
        ("2001:db8::/32:443", colons("2001:db8::/32:443")),
        ("a:1:2", colons("a:1:2")),
        ("2001:db8::g", colons("2001:db8::g")),
        ("[2001:db8::1", brackets.into()),
        ("[2001:db8::1]443", brackets.into()),
        ("[2001:db8::]/32", brackets.into()),
        ("[10.0.0.1]:80", brackets.into()),
        ("[example.org]", brackets.into()),
        ("fe80::1%eth0", "an address in a rule names no interface: leave out `%eth0`".into()),
        ("icmp://a:7", "icmp has no ports: write `icmp://a`".into()),
        ("a:", port("nothing")),
        ("a:80,", port("nothing")),
        ("a:0", port("`0`")),
        ("a:65536", port("`65536`")),
        ("a:80-", port("`80-`")),
        ("a:-80", port("`-80`")),
        ("a:+80", port("`+80`")),
        ("a:0-80", port("`0-80`")),
        ("a:80, 443", port("` 443`")),
        ("a:https", port("`https`")),
        ("a:*", port("`*`")),
        ("a:90-80", "`90-80` runs backwards and holds nothing: write `80-90`".into()),
        ("localhost", loopback("PORT")),
        ("LOCALHOST.:80", loopback("80")),
        ("x.localhost:80", loopback("80")),
        ("*.localhost", loopback("PORT")),
        ("127.0.0.1:5432", loopback("5432")),
        ("127.0.0.0/8", loopback("PORT")),
        ("127.1.2.0/24", loopback("PORT")),
        ("0.0.0.0:80", loopback("80")),
        ("0.0.0.0/8", loopback("PORT")),
        ("::", loopback("PORT")),
        ("[::]:80", loopback("80")),
        ("::1", loopback("PORT")),
        ("::1:443", loopback("PORT")),
        ("[::1]:80-90", loopback("80-90")),
        ("::ffff:127.0.0.1", loopback("PORT")),
        ("::127.0.0.1", loopback("PORT")),
        ("64:ff9b::7f00:1", loopback("PORT")),
    ] {
        assert_eq!(parsed(text), format!("error: {expected}"), "{text:?}");
    }
}

#[test]
fn a_published_port_is_read_in_each_form() {
    let parsed = |text: &str| match Publish::parse(text, RuleId::new("t", "publish")) {
        Ok(publish) => format!("{} {}", publish.host, publish.port),
        Err(error) => format!("error: {error}"),
    };
    let form = "error: a published port is written `8000`, `8000:80` (host, box) or `127.0.0.1:8000:80`";
    let port = |text: &str| {
        format!("error: {text} is no port: write a number from 1 to 65535; on the host 0 stands for one that is free")
    };
    let address = |text: &str| {
        format!(
            "error: `{text}` is no address of this machine: write one, as in `127.0.0.1:8000:80` or `[::1]:8000:80`"
        )
    };
    for (text, expected) in [
        ("8000", "127.0.0.1:8000 8000".to_string()),
        ("8000:80", "127.0.0.1:8000 80".into()),
        ("0:80", "127.0.0.1:0 80".into()),
        ("127.0.0.1:8000:80", "127.0.0.1:8000 80".into()),
        ("0.0.0.0:0:80", "0.0.0.0:0 80".into()),
        ("[::1]:8000:80", "[::1]:8000 80".into()),
        ("0.0.0.0:8000", "0.0.0.0:8000 8000".into()),
        ("[::1]:8000", "[::1]:8000 8000".into()),
        ("", port("nothing")),
        ("0", port("`0`")),
        ("80:0", port("`0`")),
        ("80:", port("nothing")),
        ("65536", port("`65536`")),
        ("+80", port("`+80`")),
        ("127.0.0.1:0", port("`0`")),
        ("8000-8010", port("`8000-8010`")),
        ("8000/udp", port("`8000/udp`")),
        ("localhost:8000:80", address("localhost")),
        (":8000:80", address("")),
        ("1.2.3:8000:80", address("1.2.3")),
        ("1.2.3:8000", address("1.2.3")),
        ("[127.0.0.1]:8000:80", address("127.0.0.1")),
        ("127.0.0.1", form.into()),
        ("[::1]", form.into()),
        ("::1:8000:80", form.into()),
    ] {
        assert_eq!(parsed(text), expected, "{text}");
    }
}

fn rule(number: usize, text: &str) -> NetworkRule {
    NetworkRule { to: Destination::parse(text).unwrap(), rule: RuleId::new("t", &number.to_string()), message: None }
}

const LABELS: [&str; 4] = ["a", "b", "org", "a-b"];

fn name(dice: &mut Dice) -> String {
    (0..=dice.roll(3)).map(|_| dice.of(&LABELS)).collect::<Vec<_>>().join(".")
}

fn address(dice: &mut Dice) -> IpAddr {
    let byte = |dice: &mut Dice| [1, 2, 128, 192][dice.roll(4)];
    if dice.roll(2) == 0 {
        IpAddr::from([byte(dice), byte(dice), 0, byte(dice)])
    } else {
        IpAddr::from([0x2100 + u16::from(byte(dice)), 0, 0, u16::from(byte(dice)) << 8, 0, 0, 0, u16::from(byte(dice))])
    }
}

fn text(dice: &mut Dice) -> String {
    let host = match dice.roll(8) {
        0 => "*".to_string(),
        1..=3 => name(dice),
        4 | 5 => format!("*.{}", name(dice)),
        _ => {
            let address = address(dice);
            let prefix = dice.roll(if address.is_ipv4() { 33 } else { 129 }) as u8;
            let subnet = Subnet::around(address, prefix).to_string();
            if subnet.contains(':') { format!("[{subnet}]") } else { subnet }
        }
    };
    let ports = ["", ":80", ":1-100", ":80,443", ":1-65535"][dice.roll(5)];
    format!("{}{host}{ports}", dice.of(&["", "udp://"]))
}

/// Whether the rule's host is the name, by the words of the grammar.
fn names(host: &Host, asked: &str) -> bool {
    match host {
        Host::Name(own) => own.as_str() == asked,
        Host::Below(own) => asked.ends_with(&format!(".{own}")),
        Host::Any | Host::Subnet(_) => false,
    }
}

#[test]
fn what_is_found_is_what_asking_each_rule_finds() {
    let sorted = |found: &mut dyn Iterator<Item = &NetworkRule>| {
        let mut rules: Vec<String> = found.map(|rule| format!("{} {}", rule.rule, rule.to)).collect();
        rules.sort();
        rules
    };
    for seed in 1..100 {
        let mut dice = Dice(seed * 0x9E37_79B9);
        let count = 1 + dice.roll(60);
        let rules: Vec<NetworkRule> = (0..count).map(|at| rule(at, &text(&mut dice))).collect();
        let filed = Destinations::new(rules.clone());
        for _ in 0..50 {
            let name = HostName::new(&name(&mut dice)).unwrap();
            let linear = sorted(&mut rules.iter().filter(|rule| names(&rule.to.host, name.as_str())));
            assert_eq!(sorted(&mut filed.by_name(&name)), linear, "seed {seed}, {name}");
            let ip = address(&mut dice);
            let holds = |rule: &&NetworkRule| matches!(rule.to.host, Host::Subnet(own) if Subnet::of(ip).lies_in(own));
            assert_eq!(sorted(&mut filed.by_address(ip)), sorted(&mut rules.iter().filter(holds)), "seed {seed}, {ip}");
            // A rule that covers another must take all that the other takes.
            let other = Destination::parse(&text(&mut dice)).unwrap();
            if let Some(around) = filed.covering(&other) {
                for (transport, port) in [("", 80), ("", 443), ("udp", 80), ("udp", 7), ("", 0)] {
                    let transport = if transport == "udp" { crate::event::Transport::Udp } else { Default::default() };
                    assert!(around.to.covers(transport, port) || !other.covers(transport, port));
                }
                let hosts = match (&around.to.host, &other.host) {
                    (Host::Any, _) => true,
                    (Host::Subnet(wide), Host::Subnet(own)) => own.lies_in(*wide),
                    (wide, Host::Name(own)) => names(wide, own.as_str()),
                    (Host::Below(wide), Host::Below(own)) => wide == own || names(&around.to.host, own.as_str()),
                    _ => false,
                };
                assert!(hosts, "{} does not cover {other}", around.to);
            }
        }
    }
}

#[test]
fn ten_thousand_rules_of_each_kind_are_looked_up_as_one() {
    let rules = (0..10_000).flat_map(|n| {
        let address = format!("10.{}.{}.0/24:443", n / 256, n % 256);
        [format!("name-{n}.example:443"), format!("*.tree-{n}.example:443"), address]
    });
    let start = Instant::now();
    let filed = Destinations::new(rules.enumerate().map(|(at, text)| rule(at, &text)).collect());
    let found = |name: &str| filed.by_name(&HostName::new(name).unwrap()).count();
    for n in 0..10_000 {
        assert_eq!(found(&format!("name-{n}.example")), 1);
        assert_eq!(found(&format!("a.b.tree-{n}.example")), 1);
        assert_eq!(found(&format!("other-{n}.example")), 0);
        assert_eq!(filed.by_address(IpAddr::from([10, (n / 256) as u8, (n % 256) as u8, 7])).count(), 1);
        assert_eq!(filed.by_address(IpAddr::from([11, (n / 256) as u8, (n % 256) as u8, 7])).count(), 0);
    }
    // Asking each rule would take 1.5 billion comparisons.
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}
