//! A box whose network has rules, in a small internet (`fixtures/internet.py`): what sockets and programs see, and what
//! leaves the box.
//!
//! The internet lives on the loopback of a network namespace of its own and tells afterwards what reached whom, down to
//! the packets. Each attempt to reach what is not allowed runs without a box first, and arrives.

mod common;

use std::collections::BTreeMap;
use std::fs;

use common::internet::{Internet, Report};
use common::{Outcome, Scene, compiler, program, root, text};
use serde_json::Value;

const SOCKETS: &str = include_str!("fixtures/sockets.py");
const PORTS: &str = include_str!("fixtures/ports.py");
const NET: &str = include_str!("escape/net.c");
const RACE_NET: &str = include_str!("escape/race_net.c");

const WEB: &str = "203.0.113.10";
const WEB6: &str = "2001:db8::10";
const SINK: &str = "203.0.113.66";
const SINK6: &str = "2001:db8::66";
const METADATA: &str = "169.254.169.254";

/// Rules for all of the internet but who takes all.
const OPEN: &[&str] =
    &["--net-allow", "203.0.113.0/24", "--net-allow", "2001:db8::/32", "--net-allow", "*.example.org"];

/// An internet with the programs that try to get out, or the host fact that is missing.
macro_rules! hostile {
    () => {{
        if compiler().is_none() {
            skip!("no C compiler (cc)");
        }
        let internet = internet!();
        internet.scene.c("net", NET, &[]);
        internet.scene.c("race_net", RACE_NET, &[]);
        internet
    }};
}

/// Lines `NAME: RESULT` by name.
fn by_name(text: &str) -> BTreeMap<&str, &str> {
    text.lines().filter_map(|line| line.split_once(": ")).collect()
}

// What sockets do.

/// Situations that end otherwise in a box: what they end in, and why.
const KNOWN: &[(&str, &str, &str)] = &[
    ("held_by_a_child", "(256, 'echoed')", "no call puts a descriptor into a task that has not stopped"),
    ("bound_public", "EACCES", "an address of the host is not the box's to take; published ports lead in"),
];

/// The situations that differ, each with what it is free and boxed.
fn differing(internet: &Internet, only: &[&str]) -> BTreeMap<String, (String, String)> {
    let argv = [&[text(&internet.python), "sockets.py"], only].concat();
    let (free, _) = internet.free(&argv);
    let (boxed, _) = internet.boxed(OPEN, &argv);
    free.exits(0);
    boxed.exits(0);
    let (was, is) = (by_name(&free.out), by_name(&boxed.out));
    assert!(was.len() > 40 || was.len() == only.len(), "all have run\n{free}");
    let found = was.iter().map(|(name, was)| (*name, *was, is.get(name).copied().unwrap_or("nothing")));
    let as_known = |name: &str, is: &str| KNOWN.iter().any(|(known, ends, _)| *known == name && *ends == is);
    let differs = found.filter(|(name, was, is)| was != is && !as_known(name, is));
    differs.map(|(name, was, is)| (name.to_string(), (was.to_string(), is.to_string()))).collect()
}

fn situations(internet: &Internet) {
    internet.scene.file("home/work/sockets.py", SOCKETS);
    let first = differing(internet, &[]);
    if first.is_empty() {
        return;
    }
    // Some measure how long a thing takes, which a busy machine may spoil once.
    let names: Vec<&str> = first.keys().map(String::as_str).collect();
    let second = differing(internet, &names);
    assert!(second.is_empty(), "not as without a box (free, boxed): {second:#?}");
}

#[test]
fn sockets_do_in_a_box_what_they_do_without() {
    situations(&internet!());
}

/// Here agentbox has no right in the network that it connects in.
#[test]
fn sockets_do_in_a_box_of_an_ordinary_user_what_they_do_without() {
    if !root() {
        skip!("the test's user is an ordinary one already");
    }
    if program("setpriv").is_none() {
        skip!("no setpriv (util-linux) to become an ordinary user with");
    }
    situations(&internet!().run_by_an_ordinary_user());
}

// What is not allowed.

/// Who takes all, in each spelling, with a friend of the same family.
const SINKS: &[(&str, &str, &str)] =
    &[(WEB, SINK, SINK), ("::ffff:203.0.113.10", "::ffff:203.0.113.66", SINK), (WEB6, SINK6, "[2001:db8::66]")];
const REACHING: &[&str] = &["tcp:connect", "udp:connect", "udp:sendto", "udp:sendmsg", "udp:sendmmsg"];

#[test]
fn what_is_not_allowed_gets_no_byte_and_no_packet_and_is_on_record() {
    let internet = hostile!();
    let ports = ["22", "80", "4444"];
    let lines = SINKS.iter().flat_map(|(friend, enemy, _)| {
        ports.iter().map(move |port| format!("./net {friend} 7 {enemy} {port} {}\n", REACHING.join(" ")))
    });
    let line: String = lines.collect();
    let (free, reached) = internet.free(&["sh", "-c", &line]);
    let heard = reached.heard();
    let times = |way: &str| heard.iter().filter(|told| **told == way).count();
    // Datagrams are only listened to at one of the ports.
    let expected = REACHING.iter().map(|way| if *way == "tcp:connect" { 9 } else { 3 });
    free.must(REACHING.iter().map(|way| times(way)).eq(expected), &format!("the control arrives: {heard:?}"));
    assert_eq!((reached.count("connections", SINK), reached.count("connections", SINK6)), (6, 3));

    for (flags, place) in [(&["--net", "none"][..], " in place of --net none"), (&["--net-allow", WEB], "")] {
        let report = internet.scene.root.join(format!("report-{}.json", flags.len() + place.len()));
        let (boxed, reached) = internet.boxed(&[flags, &["--report", text(&report)]].concat(), &["sh", "-c", &line]);
        assert_eq!(reached.heard(), [""; 0], "{flags:?}\n{boxed}");
        for sink in [SINK, SINK6] {
            let counts = ["connections", "bytes", "datagrams", "packets"].map(|what| reached.count(what, sink));
            boxed.must(counts == [0; 4], &format!("{flags:?}: something got to {sink}: {counts:?}"));
        }
        let connects = boxed.out.lines().filter(|line| line.contains("connect: "));
        boxed.must(connects.clone().count() == 18, "all have been tried");
        boxed.must(connects.clone().all(|line| line.ends_with("EACCES")), "each connect is refused");
        let report: Value = serde_json::from_slice(&fs::read(&report).expect("a report")).expect("JSON");
        let fixes: Vec<_> = report["denials"].as_array().expect("denials").iter().map(|one| &one["fix"]).collect();
        for (host, port) in SINKS.iter().flat_map(|(_, _, host)| ports.iter().map(move |port| (host, port))) {
            let address = format!("{host}:{port}");
            // An IPv4 address is written in two ways.
            let times = if *host == SINK { 4 } else { 2 };
            let denied = boxed.records.iter().filter(|record| {
                record["op"] == "connect" && record["target"]["address"] == *address && record["verdict"] == "deny"
            });
            boxed.must(denied.count() == times, &format!("each connect to {address} is on record"));
            let quoted = |prefix: &str| match host.starts_with('[') {
                true => format!("--net-allow '{prefix}{address}'{place}"),
                false => format!("--net-allow {prefix}{address}{place}"),
            };
            let told = ["", "udp://"].map(|prefix| fixes.contains(&&Value::from(quoted(prefix))));
            boxed.must(told == [true; 2], &format!("how to allow {address} is told: {fixes:?}"));
        }
    }
}

/// A name, and what it is asked for, is a message to whoever serves it.
#[test]
fn a_name_that_is_not_allowed_is_not_asked_for() {
    let internet = internet!();
    const ASK: &str = "\
import socket, struct
def told(act):
    try: act()
    except OSError as e: print(type(e).__name__)
wire = lambda name: b''.join(bytes([len(part)]) + part.encode() for part in name.split('.')) + bytes(1)
query = lambda name: struct.pack('!6H', 7, 0x100, 1, 0, 0, 0) + wire(name) + struct.pack('!2H', 16, 1)
def by_datagram():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(1)
    s.sendto(query('two.sink.example.net'), ('203.0.113.53', 53))
    s.recv(512)
def by_stream():
    text = query('three.sink.example.net')
    s = socket.create_connection(('203.0.113.53', 53), 1)
    s.sendall(struct.pack('!H', len(text)) + text)
    s.recv(512)
def by_resolver():
    server = next(line.split()[1] for line in open('/etc/resolv.conf') if line.startswith('nameserver'))
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(1)
    s.sendto(query('four.sink.example.net'), (server, 53))
    s.recv(512)
told(lambda: socket.getaddrinfo('one.sink.example.net', 80))
for act in [by_datagram, by_stream, by_resolver]: told(act)
print(socket.gethostbyname('v4.example.org'))
";
    let argv = [text(&internet.python), "-c", ASK];
    let tunnelled = |reached: &Report| {
        let names = reached.names();
        ["one", "two", "three", "four"].map(|word| names.contains(&format!("{word}.sink.example.net").as_str()))
    };
    let (free, reached) = internet.free(&argv);
    free.exits(0).must(tunnelled(&reached) == [true; 4], &format!("the control is asked: {:?}", reached.names()));
    let (boxed, reached) = internet.boxed(&["--net-allow", "*.example.org"], &argv);
    boxed.exits(0).must(boxed.out.ends_with("203.0.113.10\n"), "an allowed name is found");
    let asked = reached.names();
    boxed.must(asked.iter().all(|name| name.ends_with("example.org")), &format!("a name left the box: {asked:?}"));
    boxed.must(boxed.denied(&["resolve"], "one.sink.example.net"), "the question is on record");
}

// What only an explicit rule opens.

/// Rules that are as wide as can be.
const WIDE: &[&str] = &[
    "--net-allow",
    "*",
    "--net-allow",
    "udp://*",
    "--net-allow",
    "0.0.0.0/0",
    "--net-allow",
    "[::/0]",
    "--net-allow",
    "udp://0.0.0.0/0",
    "--net-allow",
    "*.example.org",
];

/// One `net` for each address, with a friend of its family.
fn each(addresses: &[&str], port: &str, way: &str) -> String {
    let friend = |address: &str| if address.contains(':') { WEB6 } else { WEB };
    addresses.iter().map(|address| format!("./net {} 7 {address} {port} {way}\n", friend(address))).collect()
}

#[test]
fn metadata_services_are_opened_by_their_own_address_alone() {
    let internet = hostile!();
    let spellings = [METADATA, "::ffff:169.254.169.254", "100.100.100.200", "::ffff:6464:64c8", "fd00:ec2::254"];
    let line = each(&spellings, "80", "tcp:connect");
    let (free, reached) = internet.free(&["sh", "-c", &line]);
    free.must(reached.heard().len() == 5, "the control arrives");
    // Here it is not routed, so it has no control: addresses that carry an IPv4 one, and other links.
    let line = line + &each(&["64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1", "fe80::1", "240.0.0.1"], "80", "tcp:connect");
    let (boxed, reached) = internet.boxed(WIDE, &["sh", "-c", &line]);
    boxed.must(boxed.out == "tcp:connect: EACCES\n".repeat(9), "each is refused");
    for address in [METADATA, "100.100.100.200", "fd00:ec2::254"] {
        boxed.must(reached.count("packets", address) == 0, &format!("a packet to {address}"));
    }
    let named = boxed.records.iter().filter(|r| r["verdict"] == "deny" && r["message"].as_str().is_some());
    boxed.must(named.count() == 9, "each is on record, and says what the address is");
    let told = "allow with: --net-allow 169.254.169.254:80\n";
    boxed.must(boxed.err.ends_with(told), "it is said what opens it");

    let line = each(&spellings[..2], "80", "tcp:connect");
    let (boxed, reached) = internet.boxed(&["--net-allow", "169.254.169.254:80"], &["sh", "-c", &line]);
    boxed.must(reached.count("connections", METADATA) == 2, "a rule for the address opens it");
}

#[test]
fn a_datagram_to_many_leaves_the_box_by_no_wide_rule() {
    let internet = hostile!();
    let many = ["224.0.0.251", "239.255.255.250", "255.255.255.255"];
    let line: String = ["udp:connect", "udp:sendto", "udp:sendmsg"].map(|way| each(&many, "5353", way)).concat();
    let (free, reached) = internet.free(&["sh", "-c", &line]);
    let packets = |reached: &Report| many.map(|address| reached.count("packets", address));
    free.must(packets(&reached) == [3; 3], &format!("the control is sent: {:?}", packets(&reached)));
    let (boxed, reached) = internet.boxed(WIDE, &["sh", "-c", &line]);
    boxed.must(packets(&reached) == [0; 3], "a packet left the box");
    boxed.must(many.iter().all(|address| boxed.denied(&["connect"], address)), "each connect is on record");
}

#[test]
fn the_loopback_of_the_host_is_reached_by_its_name_alone() {
    let internet = hostile!();
    let spellings = ["127.0.0.1", "0.0.0.0", "::1", "::", "::ffff:127.0.0.1", "::ffff:0.0.0.0"];
    let line = each(&spellings, "8080", "tcp:connect");
    let arrived = |reached: &Report| reached.count("connections", "127.0.0.1") + reached.count("connections", "::1");
    let (free, reached) = internet.free(&["sh", "-c", &line]);
    free.must(arrived(&reached) == 6, "the control arrives");
    // A number that no host has stands for the host's loopback, once the name is allowed.
    let line = line + &each(&["192.0.0.1", "::ffff:192.0.0.1"], "8080", "tcp:connect");
    let (boxed, reached) = internet.boxed(WIDE, &["sh", "-c", &line]);
    let expected = ["tcp:connect: ECONNREFUSED\n".repeat(6), "tcp:connect: EACCES\n".repeat(2)].concat();
    boxed.must(boxed.out == expected, "the box has a loopback of its own, with nobody there");
    boxed.must(arrived(&reached) == 0, "somebody came to the host's loopback");

    let fetch = "import urllib.request as r; print(r.urlopen('http://host.agentbox.internal:8080').read().decode())";
    let argv = [text(&internet.python), "-c", fetch];
    let (boxed, reached) = internet.boxed(WIDE, &argv);
    boxed.exits(1).must(arrived(&reached) == 0, "no wide rule takes in the host");
    boxed.must(boxed.denied(&["resolve"], "host.agentbox.internal"), "its name is not found, on record");
    let (boxed, _) = internet.boxed(&["--net-allow", "host.agentbox.internal:80"], &argv);
    boxed.exits(1).must(boxed.denied(&["connect"], "host.agentbox.internal"), "another port is not allowed");
    let (boxed, reached) = internet.boxed(&["--net-allow", "host.agentbox.internal:8080"], &argv);
    boxed.exits(0).must(boxed.out == "hello from 127.0.0.1\n\n", "its page");
    assert_eq!(arrived(&reached), 1);
}

/// What most mean by `localhost` has another name in a box.
#[test]
fn who_looks_for_the_host_on_the_loopback_of_the_box_is_told_its_name() {
    let internet = internet!();
    const SEEK: &str = "\
import socket, sys
blocking, port = sys.argv[1] == 'blocking', int(sys.argv[2])
for _ in range(3):
    s = socket.socket()
    s.setblocking(blocking)
    print(s.connect_ex(('127.0.0.1', port)))
    s = socket.socket(socket.AF_INET6)
    s.setblocking(blocking)
    print(s.connect_ex(('::1', port)))
";
    let told = "agentbox: nobody listens at port 8080 of the box's own loopback, but somebody on this machine's: that is \
                host.agentbox.internal:8080, allow with: --net-allow host.agentbox.internal:8080\n";
    for how in ["blocking", "not"] {
        for flags in [&[][..], &["--net-allow", WEB]] {
            let seek = |port| internet.boxed(flags, &[text(&internet.python), "-c", SEEK, how, port]).0;
            let (served, not) = (seek("8080"), seek("8081"));
            served.exits(0).must(served.err == told, "it is told once");
            let on_record = |r: &&Value| r["kind"] == "note" && r["text"].as_str().is_some_and(|t| told.contains(t));
            served.must(served.records.iter().filter(on_record).count() == 1, "it is on record");
            not.exits(0).must(not.err.is_empty(), "there is nothing to tell where the host has nobody either");
        }
    }
}

#[test]
fn an_answer_opens_nothing_that_its_name_should_not_lead_to() {
    let internet = internet!();
    const GO: &str = "\
import socket
for name, port in [('rebind', 80), ('inward', 8080), ('zero', 8080)]:
    try:
        socket.create_connection((name + '.example.org', port), 2).sendall(b'x')
        print(name + ': done')
    except OSError as e:
        print(f'{name}: {type(e).__name__}')
";
    let argv = [text(&internet.python), "-c", GO];
    let arrived = |reached: &Report| [METADATA, "127.0.0.1"].map(|address| reached.count("connections", address));
    let (free, reached) = internet.free(&argv);
    free.must(arrived(&reached) == [1, 2], "the control arrives");
    let (boxed, reached) = internet.boxed(WIDE, &argv);
    boxed.must(arrived(&reached) == [0, 0], "an answer led somewhere");
    boxed.must(reached.count("packets", METADATA) == 0, "a packet to the metadata service");
    boxed.must(!boxed.out.contains("done"), "a connection was made");
    boxed.must(boxed.denied(&["connect"], "rebind.example.org"), "it is on record, by its name");
}

// Ways from what is allowed to what is not.

/// By sockets that carry connections; each is refused.
const BY_CONNECTION: &[&str] = &[
    "tcp:connect",
    "dissolved:connect",
    "failed:connect",
    "tcp:fast-sendto",
    "tcp:fast-sendmsg",
    "tcp:fast-sendmmsg",
    "dissolved:fast-sendto",
    "dissolved:fast-sendmsg",
    "dissolved:fast-sendmmsg",
    "failed:fast-sendto",
    "failed:fast-sendmsg",
    "failed:fast-sendmmsg",
    "connected:passed",
    "connected:own-table",
    "tcp:vfork",
    "dissolved:vfork",
];
/// By sockets that carry datagrams, to the sink.
const BY_DATAGRAM: &[&str] = &[
    "udp:connect",
    "udp:sendto",
    "udp:sendmsg",
    "udp:sendmmsg",
    "udp-connected:sendto",
    "udp-connected:sendmsg",
    "udp-connected:sendmmsg",
    "udp-dissolved:connect",
    "udp-dissolved:sendto",
    "udp-dissolved:sendmsg",
    "udp-dissolved:sendmmsg",
];
/// By the same, to the friend.
const TO_THE_FRIEND: &[&str] = &[
    "udp-connected:same-sendto",
    "udp-connected:same-sendmsg",
    "udp-connected:same-sendmmsg",
    "udp-connected:write",
    "udp-connected:file",
    "udp-connected:friend-sendto",
    "udp-connected:friend-sendmsg",
    "udp-dissolved:friend-sendto",
    "udp-dissolved:friend-sendmsg",
];

/// `net` with the web server for a friend and the sink for an enemy.
fn net<'a>(ways: &[&'a str]) -> Vec<&'a str> {
    [&["./net", WEB, "7", SINK, "4444"], ways].concat()
}

/// All that was sent has arrived.
#[track_caller]
fn arrives(internet: &Internet, ways: &[&str]) {
    let (free, reached) = internet.free(&net(ways));
    let heard = reached.heard();
    let missing: Vec<_> = ways.iter().filter(|way| !heard.contains(way)).collect();
    free.must(missing.is_empty(), &format!("the control does not arrive: {missing:?}"));
}

#[test]
fn no_way_leads_a_connection_from_an_allowed_address_to_another() {
    let internet = hostile!();
    let argv = net(BY_CONNECTION);
    arrives(&internet, BY_CONNECTION);
    let (boxed, reached) = internet.boxed(&["--net-allow", WEB], &argv);
    let ends = by_name(&boxed.out);
    let refused = |way: &&&str| ends.get(**way).is_some_and(|end| ["EACCES", "EOPNOTSUPP"].contains(end));
    let others: Vec<_> = BY_CONNECTION.iter().filter(|way| !refused(way)).collect();
    boxed.must(others.is_empty(), &format!("not refused: {others:?}"));
    boxed.must(reached.count("packets", SINK) == 0, "a packet to what is not allowed");
    boxed.must(reached.count("connections", WEB) == 7, "what is allowed was reached");
    let denied = |r: &&Value| r["op"] == "connect" && r["target"]["address"] == "203.0.113.66:4444";
    boxed.must(boxed.records.iter().filter(denied).count() == 7, "each connect is on record");
}

#[test]
fn a_socket_that_may_ask_for_its_way_sends_nothing() {
    let internet = hostile!();
    let ways = [BY_DATAGRAM, TO_THE_FRIEND].concat();
    arrives(&internet, &ways);
    let (boxed, reached) = internet.boxed(&["--net-allow", WEB], &net(&ways));
    boxed.must(by_name(&boxed.out).len() == ways.len(), "all have been tried");
    boxed.must(!boxed.out.contains("cannot"), "the way may be asked for");
    let packets = [WEB, SINK].map(|address| reached.count("packets", address));
    boxed.must(packets == [0, 0], &format!("packets left the box: {packets:?}, {:?}", reached.heard()));
    let end = boxed.records.last().expect("records");
    boxed.must(end["counts"]["route"]["allow"] == 16, "each question is counted");
}

#[test]
fn datagrams_that_may_go_to_one_address_go_to_no_other() {
    let internet = hostile!();
    let sent = ["udp-sent:sendto", "udp-sent:sendmsg", "udp-sent:sendmmsg"];
    let ways = [BY_DATAGRAM, &sent, TO_THE_FRIEND].concat();
    let rules = ["--net-allow", "udp://203.0.113.10:7"];
    let (boxed, reached) = internet.boxed(&rules, &net(&ways));
    boxed.must(by_name(&boxed.out).len() == ways.len(), "all have been tried");
    boxed.must(!boxed.out.contains("cannot"), "the friend may be sent to");
    let heard = reached.heard();
    boxed.must(TO_THE_FRIEND.iter().all(|way| heard.contains(way)), &format!("what is allowed arrives: {heard:?}"));
    boxed.must(reached.count("packets", SINK) == 0, &format!("a packet to what is not allowed: {heard:?}"));
}

/// The kernel makes an address of parts of two where a socket is connected anew while it holds back what it was to send.
#[test]
fn what_is_held_back_for_one_address_goes_to_no_other() {
    let internet = hostile!();
    let rules = ["--net-allow", "udp://203.0.113.10:7", "--net-allow", "udp://[2001:db8::10]:7"];
    let (boxed, reached) = internet.boxed(&rules, &["./net", WEB6, "7", SINK6, "4444", "udp-connected:hold-back"]);
    boxed.must(!boxed.out.contains("cannot") && boxed.out.ends_with("done\n"), "it is sent");
    let packets = reached.0["packets"].as_object().expect("counts");
    // The web server's IPv4 address in hexadecimal.
    let made_up = packets.keys().filter(|address| address.starts_with("cb00:710a")).count();
    boxed.must(made_up == 0, &format!("packets to made-up addresses: {packets:?}"));
}

/// A packet for the friend that is to go by way of the enemy leaves with the enemy's address on it.
#[test]
fn the_sender_chooses_no_route() {
    let internet = hostile!();
    let ways: [(&str, &[&str]); 4] = [
        ("tcp:options", &[WEB, "7", SINK, "4444"]),
        ("udp:options", &[WEB, "7", SINK, "4444"]),
        ("udp-connected:control", &[WEB, "7", SINK, "4444"]),
        ("tcp:header", &[WEB6, "7", SINK6, "4444"]),
    ];
    for (way, places) in ways {
        let argv = [&["./net"], places, &[way]].concat();
        let enemy = places[2];
        let (free, reached) = internet.free(&argv);
        let sends = way == "udp:options" || reached.count("packets", enemy) > 0;
        free.must(sends && free.out.ends_with("done\n"), "the control goes by way of the enemy");
        let rules = ["--net-allow", "*", "--net-allow", "udp://203.0.113.10:7", "--net-deny", enemy];
        let (boxed, reached) = internet.boxed(&rules, &argv);
        boxed.must(reached.count("packets", enemy) == 0, &format!("{way}: a packet went by way of the enemy"));
        boxed.must(!boxed.out.contains("cannot"), "the friend may be reached");
    }
}

#[test]
fn a_socket_of_the_host_opens_no_port_there() {
    let internet = hostile!();
    let ports = internet.scene.file("ports.py", PORTS);
    let around = [text(&internet.python), text(&ports)];
    let states = ["dissolved", "failed", "bound-failed"];
    let acts = ["listen", "bind-any", "bind-loopback", "bind-none"];
    let mut ways: Vec<String> = states.iter().flat_map(|s| acts.map(|act| format!("{s}:{act}"))).collect();
    // One that is bound is bound once.
    ways.retain(|way| !way.starts_with("bound-failed:bind"));
    let connectionless = ["bind-datagram", "bind-none-datagram", "speak"].map(|act| format!("udp-dissolved:{act}"));
    let all: Vec<&str> = ways.iter().chain(&connectionless).map(String::as_str).collect();
    let argv = net(&all);
    let (free, _) = internet.free(&[&around[..], &argv].concat());
    let opened =
        |way: &&str| free.out.lines().any(|line| line.starts_with(&format!("{way}: ")) && !line.ends_with("done"));
    free.must(all.iter().all(opened) && free.out.matches("done").count() == all.len(), "the control opens ports");
    for more in [&[][..], &["--net-allow", "udp://203.0.113.10"]] {
        let flags = [&["--net-allow", WEB], more].concat();
        let (boxed, _) = internet.boxed_under(&around, &flags, &argv);
        let refused = |way: &String| boxed.out.contains(&format!("{way}: EACCES\n"));
        boxed.must(ways.iter().all(refused), "each is refused");
        // One that sends datagrams is the box's own again, once it is dissolved.
        let unseen = |way: &String| boxed.out.contains(&format!("{way}: \n{way}: done\n"));
        boxed.must(connectionless.iter().all(unseen), "none of them is open to the host");
        boxed.must(boxed.denied(&["bind"], "0.0.0.0"), "that is on record");
    }
    // The box's own sockets listen as they like, and are seen by nobody outside.
    let own = ["tcp:listen", "tcp:bind-any", "tcp:bind-loopback", "udp:bind-datagram"];
    let (boxed, _) = internet.boxed_under(&around, &["--net-allow", WEB], &net(&own));
    let expected: String = own.iter().map(|way| format!("{way}: \n{way}: done\n")).collect();
    boxed.must(boxed.out == expected, "ports of the box are not the host's");
}

/// A machine that joins a group of receivers tells its network which: that is a message, from a socket that may send none.
#[test]
fn a_socket_of_the_host_joins_no_group() {
    let internet = internet!();
    const JOIN: &str = "\
import socket, struct, sys, time
group = lambda last: struct.pack('=HH4s8x', 2, 0, socket.inet_aton('239.7.7.' + str(last))) + bytes(112)
address = lambda last: socket.inet_aton('239.7.7.' + str(last))
# Loopback is the first interface; 0 stands for the one that the routes lead to.
dev, own = (1, '127.0.0.1') if sys.argv[1] == 'inside' else (0, '0.0.0.0')
own = socket.inet_aton(own)
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
if sys.argv[1] == 'outside':
    s.connect(('203.0.113.10', 7))
source = struct.pack('=HH4s8x', 2, 0, socket.inet_aton('203.0.113.10')) + bytes(112)
for option, value in [
    (35, address(1) + own + struct.pack('i', dev)),
    (39, address(2) + own + socket.inet_aton('203.0.113.10')),
    (42, struct.pack('i4x', dev) + group(3)),
    (46, struct.pack('i4x', dev) + group(4) + source),
]:
    try:
        s.setsockopt(socket.IPPROTO_IP, option, value)
        print('joined')
    except OSError as e:
        print(e.strerror)
time.sleep(0.2)
";
    // Who joins is told of at this address (RFC 3376).
    let told = |reached: &Report| reached.count("packets", "224.0.0.22");
    let joined = "joined\n".repeat(4);
    let argv = |place| [text(&internet.python), "-c", JOIN, place];
    let (free, reached) = internet.free(&argv("outside"));
    free.exits(0).must(free.out == joined && told(&reached) > 0, "the control is told to the network");
    for rule in [WEB, "udp://203.0.113.10:7"] {
        let (boxed, reached) = internet.boxed(&["--net-allow", rule], &argv("outside"));
        boxed.must(boxed.out == "Permission denied\n".repeat(4), "each is refused");
        boxed.must(told(&reached) == 0, "the network was told");
        boxed.must(boxed.denied(&["bind"], "239.7.7.4"), "that is on record");
    }
    let (boxed, _) = internet.boxed(&["--net-allow", WEB], &argv("inside"));
    boxed.must(boxed.out == joined, "the box's own sockets join what they like on its loopback");
}

/// It belongs to the host's network, which would answer for itself.
#[test]
fn a_socket_of_the_host_tells_nothing_of_its_interfaces() {
    let internet = internet!();
    const ASK: &str = "\
import array, fcntl, socket, struct
def told(what, act):
    try: print(what + ':', act())
    except OSError as e: print(what + ':', e.strerror)
def interfaces(s):
    room = array.array('B', bytes(4096))
    asked = bytearray(struct.pack('iP', len(room), room.buffer_info()[0]))
    fcntl.ioctl(s, 0x8912, asked)
    found = [bytes(room[at:at + 40]) for at in range(0, struct.unpack('iP', asked)[0], 40)]
    return [(one[:16].strip(b'\\0').decode(), socket.inet_ntoa(one[20:24])) for one in found]
def size(s):
    return struct.unpack('iP', fcntl.ioctl(s, 0x8912, struct.pack('iP', 0, 0)))[0] // 40
def about(s, request, name=b'lo'):
    return fcntl.ioctl(s, request, name.ljust(40, b'\\0'))[16:]
own = socket.socket()
told('own', lambda: interfaces(own)[0])
told('own size', lambda: size(own) == len(interfaces(own)))
told('own address', lambda: socket.inet_ntoa(about(own, 0x8915)[4:8]))
told('own flags', lambda: struct.unpack_from('h', about(own, 0x8913))[0] & 1)
told('own index', lambda: struct.unpack_from('i', about(own, 0x8933))[0])
told('own name', lambda: fcntl.ioctl(own, 0x8910, struct.pack('16si20x', b'', 1))[:2])
told('own nobody', lambda: about(own, 0x8915, b'nobody'))
told('own file', lambda: about(open('/dev/null'), 0x8915))
out = socket.create_connection(('203.0.113.10', 7))
pair, _ = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
for which, s in [('connected', out), ('pair', pair)]:
    told(which, lambda: interfaces(s))
    told(which + ' size', lambda: size(s))
    told(which + ' hardware', lambda: about(s, 0x8927, b'mute').hex())
    told(which + ' name', lambda: fcntl.ioctl(s, 0x8910, struct.pack('16si20x', b'', 1))[:2])
    told(which + ' neighbour', lambda: fcntl.ioctl(s, 0x8954, struct.pack('HH12x52x', 2, 0)))
";
    let argv = [text(&internet.python), "-c", ASK];
    let (free, _) = internet.free(&argv);
    free.exits(0).must(free.out.matches(SINK).count() == 2, "the control tells the host's addresses");
    let (boxed, _) = internet.boxed(OPEN, &argv);
    let (was, is) = (by_name(&free.out), by_name(&boxed.out));
    boxed.exits(0).must(was.len() == 18 && is.len() == was.len(), "all is asked");
    for (what, told) in is {
        let expected = if what.starts_with("own") { was[what] } else { "Operation not permitted" };
        boxed.must(told == expected, &format!("{what}: {told}"));
    }
}

/// Families and protocols that open connections by ways nobody decides.
#[test]
fn sockets_of_other_kinds_are_not_made() {
    let internet = hostile!();
    let kinds = [
        "raw",
        "raw6",
        "packet",
        "vsock",
        "netlink",
        "sctp",
        "sctp-many",
        "mptcp",
        "mptcp6",
        "smc",
        "dccp",
        "udplite",
        "udplite6",
        "l2tp",
        "rds",
        "tipc",
        "xdp",
        "ring",
    ];
    let ways: Vec<String> = kinds.iter().chain(&["route"]).map(|kind| format!("socket:{kind}")).collect();
    let argv = net(&ways.iter().map(String::as_str).collect::<Vec<_>>());
    let (free, _) = internet.free(&argv);
    let (boxed, _) = internet.boxed(OPEN, &argv);
    let (was, is) = (by_name(&free.out), by_name(&boxed.out));
    free.must(was["socket:raw"] == "done" && was["socket:route"] == "done", "the control makes sockets");
    let errors = ["EAFNOSUPPORT", "EPROTONOSUPPORT", "EPERM", "ENOSYS"];
    for kind in kinds {
        let way = format!("socket:{kind}");
        if was[way.as_str()] != "done" {
            println!("no control on this host: {way} ends in {}", was[way.as_str()]);
        }
        boxed.must(errors.contains(&is[way.as_str()]), &format!("{way} is refused"));
    }
    boxed.must(is["socket:route"] == "done", "the C library may list addresses");
}

// Races.

fn tries() -> u32 {
    std::env::var("AGENTBOX_RACE_TRIES").ok().map_or(300, |tries| tries.parse().expect("a number of tries"))
}

/// How many tries came through, were refused, ended otherwise.
fn tally(outcome: &Outcome) -> [u64; 3] {
    let numbers: Vec<u64> = outcome.out.split_whitespace().filter_map(|number| number.parse().ok()).collect();
    numbers.try_into().unwrap_or_else(|_| panic!("no tally\n{outcome}"))
}

/// How many records of `op` for `address` say `verdict`, by the log's last line.
fn on_record(outcome: &Outcome, address: &str, verdict: &str) -> u64 {
    let end = outcome.records.last().expect("records");
    let sums = end["destinations"].as_array().cloned().unwrap_or_default();
    let its = sums.iter().filter(|one| one["addresses"][0] == address);
    its.map(|one| one[verdict].as_u64().unwrap_or(0)).sum()
}

/// One thread turns the address from what is allowed to what is not and back, while another makes the call.
fn turning_address(call: &str, rule: &str, port: &str) {
    let count = tries();
    let internet = hostile!().of_many_tries(count);
    let tries = count.to_string();
    let what = if call == "connect" { "connections" } else { "datagrams" };
    let argv = ["./race_net", call, &tries, WEB, "7", SINK, port];
    let hit = (0..20).any(|_| {
        let (free, reached) = internet.free(&argv);
        free.exits(0);
        reached.count(what, SINK) > 0
    });
    assert!(hit, "{call}: the control never hits what is denied");
    let raced = (0..20).any(|_| {
        let (boxed, reached) = internet.boxed(&["--net-allow", rule], &argv);
        let [through, refused, other] = tally(boxed.exits(0));
        boxed.must(reached.count("packets", SINK) == 0, &format!("{call}: a packet to what is denied"));
        boxed.must(through + refused + other == u64::from(count) && other == 0, &format!("{call}: all are told of"));
        let arrived = reached.count(what, WEB);
        // Of many datagrams some are lost on the way.
        let all =
            if call == "connect" { arrived == through } else { arrived.min(1) == through.min(1) && arrived <= through };
        boxed.must(all, &format!("{call}: of {through} that came through {arrived} arrived"));
        boxed.must(on_record(&boxed, WEB, "allowed") == through, &format!("{call}: what came through is on record"));
        boxed.must(on_record(&boxed, SINK, "denied") == refused, &format!("{call}: what was refused is on record"));
        println!("{call}: {through} of {tries} came through, {refused} were refused ({:.1?})", boxed.took);
        through > 0 && refused > 0
    });
    assert!(raced, "{call}: never was one allowed and another denied: the race was not run");
}

#[test]
fn a_turning_address_never_connects_to_what_is_denied() {
    turning_address("connect", "203.0.113.10:7", "4444");
}

#[test]
fn a_turning_address_never_sends_to_what_is_denied() {
    for call in ["sendto", "sendmsg", "sendmmsg"] {
        turning_address(call, "udp://203.0.113.10:7", "4444");
    }
}

/// One thread turns the socket under the other's call: its number, or what it is connected to.
fn turning_socket(how: &str, enemy: &str, port: &str) {
    let count = tries() * 5;
    let internet = hostile!().of_many_tries(count);
    let tries = count.to_string();
    let argv = ["./race_net", how, &tries, WEB, "7", enemy, port];
    let hit = (0..20).any(|_| {
        let (free, reached) = internet.free(&argv);
        free.exits(0);
        // In the time between two tries the connection need not have been made.
        reached.count("packets", enemy) > 0
    });
    assert!(hit, "{how}: the control never hits what is denied");
    let (boxed, reached) = internet.boxed(&["--net-allow", "203.0.113.10:7"], &argv);
    let [through, refused, other] = tally(boxed.exits(0));
    boxed.must(through == 0, &format!("{how}: {through} came through"));
    boxed.must(reached.count("packets", enemy) == 0, &format!("{how}: a packet to what is denied"));
    boxed.must(reached.count("connections", WEB) > 0, &format!("{how}: the socket has turned"));
    println!("{how}: {refused} refused, {other} ended otherwise ({:.1?})", boxed.took);
}

#[test]
fn a_turning_descriptor_never_connects_to_what_is_denied() {
    turning_socket("number", SINK, "4444");
    turning_socket("number", "127.0.0.1", "8080");
}

#[test]
fn a_connection_that_dissolves_under_a_connect_never_leads_to_the_host_s_loopback() {
    turning_socket("dissolve", "127.0.0.1", "8080");
}

/// Each waits for its own; nobody else does.
#[test]
fn a_thousand_connects_that_wait_hold_up_nobody() {
    let internet = internet!();
    const WAIT: &str = "\
import os, resource, socket, threading, time
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
threading.stack_size(128 << 10)
sockets = [socket.socket() for _ in range(1000)]
ends = []
def wait(s):
    try: s.connect(('203.0.113.98', 80))
    except OSError: ends.append(1)
threads = [threading.Thread(target=wait, args=(s,), daemon=True) for s in sockets]
begun = time.monotonic()
[t.start() for t in threads]
longest = 0
for i in range(300):
    now = time.monotonic()
    with open(f'f{i}', 'w') as f: f.write('x')
    os.rename(f'f{i}', f'g{i}')
    longest = max(longest, time.monotonic() - now)
s = socket.create_connection(('203.0.113.10', 7), 5)
s.sendall(b'x')
assert s.recv(1) == b'x'
print(len(os.listdir('.')), len(ends), sum(t.is_alive() for t in threads), longest < 2, time.monotonic() - begun < 20)
";
    fs::remove_dir_all(&internet.scene.work).expect("empty the workspace");
    fs::create_dir(&internet.scene.work).expect("make the workspace");
    let argv = [text(&internet.python), "-c", WAIT];
    let (boxed, _) = internet.boxed(OPEN, &argv);
    boxed.exits(0).must(boxed.out == "300 0 1000 True True\n", "files are written, connections made");
    let allowed = boxed.records.last().expect("records")["counts"]["connect"]["allow"].as_u64();
    boxed.must(allowed == Some(1001), "each is counted");
}

// What is written wrongly.

#[test]
fn a_network_rule_that_is_none_ends_the_run_before_it_begins() {
    let scene = Scene::new();
    for (flag, rule) in [
        ("--net-allow", "exa mple.org"),
        ("--net-allow", "example.org:70000"),
        ("--net-allow", "10.0.0.1/8"),
        ("--net-deny", "ftp://example.org"),
        ("--net-allow", "https://example.org/path"),
        ("--net-allow", "example.org:"),
        ("--net-allow", ""),
        ("--net-allow", "localhost:5432"),
        ("--net-unix", "no.sock"),
        ("--publish", "0"),
        ("--publish", "localhost:80:80"),
        ("--publish", "80:8000:8000"),
        ("--publish", "8000:80/tcp"),
        ("--publish", "8000-8010"),
        ("-p", "8000:80"),
    ] {
        let refused = scene.agentbox(&["run", flag, rule, "--", "touch", "ran"]);
        refused.exits(125).must(refused.err.lines().count() == 1, "one line");
        refused.must(refused.err.contains(flag) || refused.err.contains(rule), "it names what is wrong");
        refused.must(!scene.work.join("ran").exists(), "the command has not run");
    }
    let meant = scene.agentbox(&["run", "-p", "8000:80", "--", "true"]);
    meant.exits(125).must(meant.err.ends_with("to publish a port write --publish 8000:80\n"), "it says what is meant");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port();
    let refused = scene.agentbox(&["run", "--publish", &format!("{port}:80"), "--", "touch", "ran"]);
    refused.exits(125).must(refused.err.lines().count() == 1, "one line");
    refused.must(refused.err.contains(&port.to_string()), "it names the port");
    refused.must(!scene.work.join("ran").exists(), "the command has not run");
}

#[test]
fn a_list_of_nothing_allows_nothing() {
    let internet = hostile!();
    let policy = internet.scene.file("home/p.yaml", "version: 1\nextends: [default]\nnetwork: {allow: []}\n");
    let (boxed, reached) = internet.boxed(&["-p", text(&policy)], &net(&["tcp:connect", "udp:connect", "udp:sendto"]));
    boxed.must(boxed.out.matches("EACCES").count() == 3, "each is refused");
    boxed.must(reached.count("packets", SINK) == 0, "a packet left the box");
}

// What is let out, and what is said of it.

/// Fetches twice by name, and fails to reach another.
const TRAFFIC: &str = r#"
import urllib.request

for _ in range(2):
    print(len(urllib.request.urlopen("http://v4.example.org/bytes/100000").read()))
try:
    urllib.request.urlopen("http://203.0.113.66/")
except OSError:
    pass
"#;

#[test]
fn the_end_of_the_record_sums_up_each_destination() {
    let internet = internet!();
    let script = internet.scene.file("home/work/traffic.py", TRAFFIC);
    let argv = [text(&internet.python), text(&script)];
    let (boxed, reached) = internet.boxed(&["--net-allow", "v4.example.org:80"], &argv);
    boxed.exits(0).must(boxed.out == "100000\n100000\n", "what is allowed arrives");
    let end = boxed.records.last().expect("an end record");
    let sums = |address: &str| {
        let of = |one: &&Value| one["addresses"][0] == *address;
        end["destinations"].as_array().and_then(|all| all.iter().find(of)).cloned().unwrap_or_default()
    };
    let (allowed, denied) = (sums(WEB), sums(SINK));
    boxed.must(allowed["names"][0] == "v4.example.org" && allowed["port"] == 80, "it goes by its name");
    boxed.must(allowed["allowed"] == 2 && denied["denied"] == 1 && denied["allowed"] == 0, "connections are counted");
    if boxed.records.iter().any(|r| r["text"].as_str().is_some_and(|text| text.starts_with("bytes are not counted"))) {
        skip!("the kernel does not report on TCP sockets (inet_diag)");
    }
    boxed.must(allowed["bytes_out"] == reached.count("bytes", WEB), "what left is what arrived");
    // The bodies, their headers, and one for each end of a connection.
    let inward = allowed["bytes_in"].as_u64().unwrap_or(0);
    boxed.must((200_000..200_200).contains(&inward), &format!("{inward} bytes came in"));
}

/// Pings each argument.
const PING: &str = r#"
import socket, struct, sys

for host in sys.argv[1:]:
    try:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
        sock.settimeout(5)
        sock.sendto(struct.pack("!BBHHH", 8, 0, 0, 0, 1) + b"abcdefgh", (host, 0))
        print(f"{host}: {sock.recv(99)[-8:].decode()}")
    except OSError as e:
        print(f"{host}: {e.strerror}")
"#;

#[test]
fn a_ping_needs_a_rule_and_a_host_that_lets_its_users_ping() {
    let internet = internet!();
    let script = internet.scene.file("home/work/ping.py", PING);
    let argv = [text(&internet.python), text(&script), WEB, SINK];
    // A network namespace begins with nobody.
    let all = "echo 0 0 >/proc/sys/net/ipv4/ping_group_range && exec \"$@\"";
    let (everybody, nobody) = (["sh", "-c", all, "sh"], ["env"]);
    let (free, _) = internet.free(&[&everybody[..], &argv].concat());
    if free.code != 0 {
        skip!("who may ping cannot be set here: {}", free.err.trim());
    }
    free.must(free.out.matches("abcdefgh").count() == 2, "the control is not answered");
    let rule = ["--net-allow", "icmp://203.0.113.10"];
    let (boxed, reached) = internet.boxed_under(&everybody, &rule, &argv);
    let answers = by_name(&boxed.out);
    boxed.exits(0).must(answers[WEB] == "abcdefgh" && answers[SINK] == "Permission denied", "one may be pinged");
    boxed.must(boxed.denied(&["send"], SINK) && reached.count("packets", SINK) == 0, "the other gets nothing");
    for (how, flags) in [(&nobody[..], &rule), (&everybody, &["--net-allow", WEB])] {
        let (boxed, reached) = internet.boxed_under(how, flags, &argv);
        boxed.exits(0).must(!boxed.out.contains("abcdefgh"), "there is no ping");
        assert_eq!((reached.count("packets", WEB), reached.count("packets", SINK)), (0, 0));
    }
}

// Where sockets are the host's.

/// Turns a stream socket that was handed in as standard input, and a datagram socket that is.
const HANDED_IN: &str = r#"
import ctypes, socket, struct, subprocess, sys

libc = ctypes.CDLL(None, use_errno=True)

def attempt(what, act):
    try:
        act()
        print(f"{what}: done")
    except OSError as e:
        print(f"{what}: {e.strerror}")

if sys.argv[1] == "outside":
    kind = socket.SOCK_STREAM if sys.argv[-1] == "stream" else socket.SOCK_DGRAM
    sock = socket.socket(socket.AF_INET, kind)
    sock.connect(("203.0.113.10", 7))
    subprocess.run(sys.argv[2:], stdin=sock.fileno())
else:
    sock = socket.socket(fileno=0)
    if sys.argv[1] == "stream":
        for to in [("203.0.113.66", 80), ("127.0.0.1", 8080)]:
            libc.connect(0, struct.pack("H14x", socket.AF_UNSPEC), 16)
            attempt(f"connect {to[0]}", lambda: sock.connect(to))
        libc.connect(0, struct.pack("H14x", socket.AF_UNSPEC), 16)
        attempt("listen", lambda: sock.listen())
    else:
        attempt("send to", lambda: sock.sendto(b"out", ("203.0.113.66", 53)))
        attempt("send message", lambda: sock.sendmsg([b"out"], [], 0, ("203.0.113.66", 53)))
        attempt("speak to its own peer", lambda: sock.send(b"in"))
"#;

#[test]
fn a_socket_that_was_handed_in_is_not_turned_to_somebody_else() {
    let internet = internet!();
    let script = internet.scene.file("home/work/handed_in.py", HANDED_IN);
    let python = [text(&internet.python), text(&script)];
    let around = [&python[..], &["outside"]].concat();
    for (how, attempts) in [("stream", 3), ("datagram", 2)] {
        let argv = [&python[..], &[how]].concat();
        let (free, reached) = internet.free(&[&around[..], &argv].concat());
        free.exits(0).must(free.out.matches(": done").count() == 3, "the control is stopped");
        assert!(reached.count("packets", SINK) > 0, "nothing arrives");
        for flags in [&[][..], &["--net-allow", "www.example.org"]] {
            let (boxed, reached) = internet.boxed_under(&around, flags, &argv);
            // With rules the socket is exchanged for one of the box's, on whose loopback nobody listens.
            let ends = [": Permission denied", "127.0.0.1: Connection refused"];
            let refused: usize = ends.iter().map(|end| boxed.out.matches(end).count()).sum();
            boxed.exits(0).must(refused == attempts, "not all is refused");
            boxed.must(how == "stream" || boxed.out.contains("own peer: done"), "it speaks to whom it was made for");
            assert_eq!((reached.count("packets", SINK), reached.count("connections", "127.0.0.1")), (0, 0));
        }
    }
}

/// Connects, listens and sends where no user namespace can be had.
const DEGRADED: &str = r#"
import socket

def attempt(what, act):
    try:
        act()
        print(f"{what}: done")
    except OSError as e:
        print(f"{what}: {e.strerror}")

for host, port in [("203.0.113.10", 7), ("203.0.113.66", 80), ("127.0.0.1", 8080)]:
    attempt(f"connect {host}", lambda: socket.create_connection((host, port)))
attempt("listen", lambda: socket.socket().listen())
attempt("bind", lambda: socket.socket().bind(("127.0.0.1", 0)))
attempt("datagrams", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
"#;

#[test]
fn without_a_network_of_its_own_a_box_connects_by_rules_and_nothing_else() {
    let internet = internet!();
    let script = internet.scene.file("home/work/degraded.py", DEGRADED);
    let python = [text(&internet.python), text(&script)];
    let (free, _) = internet.free(&python);
    free.exits(0).must(free.out.matches(": done").count() == 6, "the control is stopped");
    // In a user namespace of its own the limit is nobody else's.
    let none = "echo 0 >/proc/sys/user/max_user_namespaces && exec \"$@\"";
    let around = ["unshare", "-Ur", "sh", "-c", none, "sh"];
    let degraded = ["view", "processes", "network"].map(|layer| ["--allow-degraded", layer]).concat();
    for (flags, done) in [
        (&["--net-allow", WEB][..], &["connect 203.0.113.10"][..]),
        (&["--net-allow", "host.agentbox.internal:8080"], &["connect 127.0.0.1"]),
        (&[], &[]),
    ] {
        let (boxed, reached) = internet.boxed_under(&around, &[&degraded[..], flags].concat(), &python);
        let succeeded: Vec<&str> = boxed.out.lines().filter_map(|line| line.strip_suffix(": done")).collect();
        boxed.exits(0).must(succeeded == done, &format!("{flags:?} lets through {succeeded:?}"));
        assert_eq!(reached.count("packets", SINK), 0);
    }
    let (refused, _) = internet.boxed_under(&around, &["--net-allow", WEB], &python);
    refused.exits(125).must(refused.err.contains("--allow-degraded"), "it says what it lacks");
}
