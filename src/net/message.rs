//! DNS messages, as far as a resolver that passes them on must understand them: RFC 1035, RFC 6891.
//!
//! What comes in is hostile: every index is checked, nothing is allocated by a count that a packet claims. An answer
//! from upstream is passed on as it came, but for the number and the spelling of the question; so it stays what the
//! host's resolver said, whatever kinds of records it holds.
//!
//! `simple-dns` is not used for this: it fails on questions for types that it does not know (TLSA, SSHFP), and keeps
//! neither the DO bit nor records of unknown classes. The tests hold what is built here against it.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::ops::Range;
use std::time::Duration;

/// The length of a message's fixed beginning.
const HEADER: usize = 12;
/// The longest name, as it is written in a message.
const LONGEST_NAME: usize = 255;
/// What a client takes by UDP that says nothing about it.
const PLAIN_SIZE: u16 = 512;
/// The most that is sent by UDP, however much a client would take.
const LARGEST_UDP: u16 = 4096;
/// What is told to the servers asked: an answer of this size is not cut into fragments.
const OWN_SIZE: u16 = 1232;

/// Numbers of record types that mean something here.
pub mod kind {
    #![allow(missing_docs, reason = "each is the number of the type it is named after")]
    pub const A: u16 = 1;
    pub const PTR: u16 = 12;
    pub const AAAA: u16 = 28;
    pub const OPT: u16 = 41;
    pub const SVCB: u16 = 64;
    pub const HTTPS: u16 = 65;
}

/// Response codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// An answer, perhaps with no records in it.
    Ok = 0,
    /// The question could not be understood.
    BadFormat = 1,
    /// The servers that know could not be asked.
    Failure = 2,
    /// There is no such name.
    NoName = 3,
    /// Not a kind of question that is answered here.
    NotImplemented = 4,
    /// An EDNS version that is not known.
    BadVersion = 16,
}

const RESPONSE: u16 = 0x8000;
const TRUNCATED: u16 = 0x0200;
const RECURSION_DESIRED: u16 = 0x0100;
const RECURSION_AVAILABLE: u16 = 0x0080;
const OPCODE: u16 = 0x7800;
const CODE: u16 = 0x000f;
const CLASS_IN: u16 = 1;
/// In the OPT record: signatures are wanted.
const DNSSEC_OK: u32 = 0x8000;
/// A pointer to the question's name.
const TO_QUESTION: [u8; 2] = [0xc0, HEADER as u8];

/// A question, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    id: u16,
    flags: u16,
    /// The name in the client's own spelling, the type and the class, as they stood in the message.
    question: Vec<u8>,
    /// The type that is asked for.
    pub kind: u16,
    edns: Option<Edns>,
}

/// What a client says of itself by an OPT record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Edns {
    size: u16,
    dnssec: bool,
}

/// A message that gets no answer from the policy.
#[derive(Debug, PartialEq, Eq)]
pub enum Unfit {
    /// Not a question at all: it gets no answer.
    Silent,
    /// It gets this answer.
    Answer(Vec<u8>),
}

/// A name, for rules and records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spelled {
    /// In lower case, without the last dot.
    Host(String),
    /// With bytes that no host name has; those are written `\xNN`.
    Odd(String),
}

/// A record that is answered from here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// An address.
    Address(IpAddr),
    /// A name.
    Pointer(String),
}

impl Query {
    /// Reads a question: class IN, one question, EDNS 0 or none.
    pub fn parse(packet: &[u8]) -> Result<Self, Unfit> {
        let header = Header::parse(packet).ok_or(Unfit::Silent)?;
        if header.flags & RESPONSE != 0 {
            return Err(Unfit::Silent);
        }
        let unfit = |code| Unfit::Answer(bare(&header, code));
        if header.flags & OPCODE != 0 {
            return Err(unfit(Code::NotImplemented));
        }
        if header.counts[..3] != [1, 0, 0] {
            return Err(unfit(Code::BadFormat));
        }
        let end = question_end(packet).ok_or_else(|| unfit(Code::BadFormat))?;
        let question = packet[HEADER..end].to_vec();
        let (kind, class) = (u16_at(packet, end - 4).unwrap_or_default(), u16_at(packet, end - 2).unwrap_or_default());
        let edns = edns(packet, end, header.counts[3]).map_err(unfit)?;
        if class != CLASS_IN {
            return Err(unfit(Code::NotImplemented));
        }
        if kind == kind::OPT {
            return Err(unfit(Code::BadFormat));
        }
        Ok(Self { id: header.id, flags: header.flags, question, kind, edns })
    }

    /// The name that is asked for.
    pub fn name(&self) -> Spelled {
        let mut text = String::new();
        let mut odd = false;
        for label in labels(&self.question) {
            if !text.is_empty() {
                text.push('.');
            }
            for byte in label {
                match byte.to_ascii_lowercase() {
                    plain @ (b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_') => text.push(char::from(plain)),
                    other => {
                        odd = true;
                        let _ = write!(text, "\\x{other:02x}");
                    }
                }
            }
        }
        // The root has no name that a rule could speak of.
        if text.is_empty() {
            return Spelled::Odd(".".into());
        }
        if odd { Spelled::Odd(text) } else { Spelled::Host(text) }
    }

    /// The question as it goes upstream: built anew, so that it carries nothing but name and type. Not even the case of
    /// the letters, which a resolver could pass on.
    pub fn upstream(&self, id: u16) -> Vec<u8> {
        let mut message = Vec::with_capacity(HEADER + self.question.len() + 11);
        let additional = u16::from(self.edns.is_some());
        put_header(&mut message, id, RECURSION_DESIRED, [1, 0, 0, additional]);
        message.extend(self.lower());
        if let Some(edns) = self.edns {
            put_opt(&mut message, edns.size.clamp(PLAIN_SIZE, OWN_SIZE), 0, edns.dnssec, &[]);
        }
        message
    }

    /// The question with the name in lower case. Lengths of labels are below any letter.
    fn lower(&self) -> Vec<u8> {
        let (name, rest) = self.question.split_at(self.question.len() - 4);
        let mut lower = name.to_ascii_lowercase();
        lower.extend(rest);
        lower
    }

    /// An answer without records. `why` is told to a client that understands it: RFC 8914, code 15, blocked.
    pub fn answer(&self, code: Code, why: Option<&str>) -> Vec<u8> {
        self.build(code as u16, &[], Duration::ZERO, why)
    }

    /// An answer with these records, perhaps none.
    pub fn answer_with(&self, data: &[Data], lifetime: Duration) -> Vec<u8> {
        self.build(Code::Ok as u16, data, lifetime, None)
    }

    fn build(&self, code: u16, data: &[Data], lifetime: Duration, why: Option<&str>) -> Vec<u8> {
        let mut message = Vec::new();
        let flags = RESPONSE | RECURSION_AVAILABLE | self.flags & RECURSION_DESIRED | code & CODE;
        let counts = [1, data.len() as u16, 0, u16::from(self.edns.is_some())];
        put_header(&mut message, self.id, flags, counts);
        message.extend(&self.question);
        for record in data {
            put_record(&mut message, record, lifetime);
        }
        if let Some(edns) = self.edns {
            let options = why.map(blocked).unwrap_or_default();
            put_opt(&mut message, OWN_SIZE, code >> 4, edns.dnssec, &options);
        }
        message
    }

    /// Makes an answer from upstream the client's own: with its number and its spelling of the name.
    pub fn pass_on(&self, answer: &Answer<'_>) -> Vec<u8> {
        let mut message = answer.packet.to_vec();
        message[..2].copy_from_slice(&self.id.to_be_bytes());
        let flags = answer.flags & !RECURSION_DESIRED | self.flags & RECURSION_DESIRED;
        message[2..4].copy_from_slice(&flags.to_be_bytes());
        message[HEADER..][..self.question.len()].copy_from_slice(&self.question);
        message
    }

    /// Cuts an answer that is longer than the client takes by UDP down to the question, so that it asks again by TCP.
    pub fn fit_udp(&self, message: Vec<u8>) -> Vec<u8> {
        let most = self.edns.map_or(PLAIN_SIZE, |edns| edns.size.clamp(PLAIN_SIZE, LARGEST_UDP));
        if message.len() <= usize::from(most) {
            return message;
        }
        let mut cut = self.answer(Code::Ok, None);
        let flags = u16_at(&message, 2).unwrap_or_default() | TRUNCATED;
        cut[2..4].copy_from_slice(&flags.to_be_bytes());
        cut
    }

    /// Understands what came back for [`Self::upstream`]; `None` if it is not an answer to that, or is broken.
    pub fn read_answer<'a>(&self, id: u16, packet: &'a [u8]) -> Option<Answer<'a>> {
        let header = Header::parse(packet)?;
        if header.id != id || header.flags & RESPONSE == 0 || header.flags & OPCODE != 0 {
            return None;
        }
        let code = header.flags & CODE;
        let mut answer = Answer { packet, flags: header.flags, code, records: Vec::new(), bare: false };
        if header.counts[0] == 0 && code != 0 {
            // A server that understood nothing need not repeat the question.
            answer.bare = true;
            return Some(answer);
        }
        let end = HEADER + self.question.len();
        if header.counts[0] != 1 || !packet.get(HEADER..end)?.eq_ignore_ascii_case(&self.question) {
            return None;
        }
        let mut records = Records { packet, at: end, left: header.counts[1] };
        answer.records.extend(records.by_ref());
        // A truncated answer may end in the middle of a record; old clients make do with what is there.
        (records.left == 0 || header.flags & TRUNCATED != 0).then_some(answer)
    }
}

/// An answer from upstream.
#[derive(Debug)]
pub struct Answer<'a> {
    packet: &'a [u8],
    flags: u16,
    code: u16,
    records: Vec<Record>,
    bare: bool,
}

impl Answer<'_> {
    /// The response code, without what EDNS adds.
    pub fn code(&self) -> u16 {
        self.code
    }

    /// Whether it repeats the question, so that it can be passed on.
    pub fn is_whole(&self) -> bool {
        !self.bare
    }

    /// Whether another server may do better: this one failed, knows nothing of the question, or refused.
    pub fn is_failure(&self) -> bool {
        self.bare || matches!(self.code, 2 | 4 | 5)
    }

    /// Every address in the answer, hints of service records included, and how long it may be kept.
    pub fn addresses(&self) -> Vec<(IpAddr, Duration)> {
        let mut found = Vec::new();
        for record in &self.records {
            let data = &self.packet[record.data.clone()];
            let addresses = match record.kind {
                kind::A => v4(data),
                kind::AAAA => v6(data),
                kind::SVCB | kind::HTTPS => hints(data).unwrap_or_default(),
                _ => Vec::new(),
            };
            found.extend(addresses.into_iter().map(|address| (address, record.lifetime)));
        }
        found
    }
}

/// One record of class IN.
#[derive(Debug)]
struct Record {
    kind: u16,
    lifetime: Duration,
    data: Range<usize>,
}

/// Goes through records until one is broken; those of other classes are passed over.
struct Records<'a> {
    packet: &'a [u8],
    at: usize,
    /// How many are still to come. Not zero at the end: one is broken.
    left: u16,
}

impl Iterator for Records<'_> {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        while self.left > 0 {
            let (class, record) = read_record(self.packet, self.at)?;
            (self.at, self.left) = (record.data.end, self.left - 1);
            if class == CLASS_IN {
                return Some(record);
            }
        }
        None
    }
}

fn read_record(packet: &[u8], at: usize) -> Option<(u16, Record)> {
    let at = name_end(packet, at)?;
    let (kind, class) = (u16_at(packet, at)?, u16_at(packet, at + 2)?);
    let lifetime = u32_at(packet, at + 4)?;
    let length = usize::from(u16_at(packet, at + 8)?);
    let data = at + 10..at + 10 + length;
    packet.get(data.clone())?;
    // A lifetime with the highest bit set counts as none: RFC 2181, section 8.
    let lifetime = if lifetime >> 31 == 0 { lifetime } else { 0 };
    Some((class, Record { kind, lifetime: Duration::from_secs(lifetime.into()), data }))
}

fn v4(data: &[u8]) -> Vec<IpAddr> {
    data.as_chunks::<4>().0.iter().map(|bytes| IpAddr::from(*bytes)).collect()
}

fn v6(data: &[u8]) -> Vec<IpAddr> {
    data.as_chunks::<16>().0.iter().map(|bytes| IpAddr::from(*bytes)).collect()
}

/// The addresses that a service record hints at (RFC 9460): browsers connect to them without another question.
fn hints(data: &[u8]) -> Option<Vec<IpAddr>> {
    let mut found = Vec::new();
    let mut at = name_end(data, 2)?;
    while at < data.len() {
        let (key, length) = (u16_at(data, at)?, usize::from(u16_at(data, at + 2)?));
        let value = data.get(at + 4..at + 4 + length)?;
        match key {
            4 => found.extend(v4(value)),
            6 => found.extend(v6(value)),
            _ => {}
        }
        at += 4 + length;
    }
    Some(found)
}

/// A message's fixed beginning.
struct Header {
    id: u16,
    flags: u16,
    /// Questions, answers, authorities, additional records.
    counts: [u16; 4],
}

impl Header {
    fn parse(packet: &[u8]) -> Option<Self> {
        let mut counts = [0; 4];
        for (i, count) in counts.iter_mut().enumerate() {
            *count = u16_at(packet, 4 + 2 * i)?;
        }
        Some(Self { id: u16_at(packet, 0)?, flags: u16_at(packet, 2)?, counts })
    }
}

/// Where the question ends. Its name is the first of the message, so there is nothing that a pointer in it could mean.
fn question_end(packet: &[u8]) -> Option<usize> {
    let mut at = HEADER;
    loop {
        match *packet.get(at)? {
            0 => break,
            length @ 1..=63 => at += 1 + usize::from(length),
            _ => return None,
        }
        if at - HEADER >= LONGEST_NAME {
            return None;
        }
    }
    let end = at + 5;
    (end <= packet.len()).then_some(end)
}

/// The labels of a name without pointers.
fn labels(name: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = name;
    std::iter::from_fn(move || {
        let (&length, tail) = rest.split_first()?;
        let (label, tail) = tail.split_at_checked(usize::from(length)).filter(|_| length > 0)?;
        rest = tail;
        Some(label)
    })
}

/// Where a name ends that may end in a pointer; what that points to is not looked at.
fn name_end(packet: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *packet.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=63 => at += 1 + usize::from(length),
            192.. => return Some(at + 2),
            _ => return None,
        }
    }
}

/// Finds the OPT record among the additional ones.
fn edns(packet: &[u8], mut at: usize, count: u16) -> Result<Option<Edns>, Code> {
    let mut found = None;
    for _ in 0..count {
        let (class, record) = read_record(packet, at).ok_or(Code::BadFormat)?;
        at = record.data.end;
        if record.kind != kind::OPT {
            continue;
        }
        let flags = u32_at(packet, record.data.start - 6).ok_or(Code::BadFormat)?;
        if found.is_some() {
            return Err(Code::BadFormat);
        }
        if flags & 0x00ff_0000 != 0 {
            return Err(Code::BadVersion);
        }
        found = Some(Edns { size: class, dnssec: flags & DNSSEC_OK != 0 });
    }
    Ok(found)
}

/// An answer to what was not understood: a header alone, and an OPT record where the code needs one.
fn bare(header: &Header, code: Code) -> Vec<u8> {
    let mut message = Vec::new();
    let code = code as u16;
    let extended = code > CODE;
    let flags = RESPONSE | header.flags & (OPCODE | RECURSION_DESIRED) | code & CODE;
    put_header(&mut message, header.id, flags, [0, 0, 0, u16::from(extended)]);
    if extended {
        put_opt(&mut message, OWN_SIZE, code >> 4, false, &[]);
    }
    message
}

fn put_header(message: &mut Vec<u8>, id: u16, flags: u16, counts: [u16; 4]) {
    for word in [id, flags].into_iter().chain(counts) {
        message.extend(word.to_be_bytes());
    }
}

fn put_record(message: &mut Vec<u8>, record: &Data, lifetime: Duration) {
    let (kind, data) = match record {
        Data::Address(IpAddr::V4(address)) => (kind::A, address.octets().to_vec()),
        Data::Address(IpAddr::V6(address)) => (kind::AAAA, address.octets().to_vec()),
        Data::Pointer(name) => (kind::PTR, wire_name(name)),
    };
    message.extend(TO_QUESTION);
    message.extend(kind.to_be_bytes());
    message.extend(CLASS_IN.to_be_bytes());
    message.extend((lifetime.as_secs() as u32).to_be_bytes());
    message.extend((data.len() as u16).to_be_bytes());
    message.extend(data);
}

/// A name that was read from a message, or from a file with the same check, as messages have it.
fn wire_name(name: &str) -> Vec<u8> {
    let mut wire = Vec::with_capacity(name.len() + 2);
    for label in name.split('.') {
        wire.push(label.len() as u8);
        wire.extend(label.as_bytes());
    }
    wire.push(0);
    wire
}

fn put_opt(message: &mut Vec<u8>, size: u16, code: u16, dnssec: bool, options: &[u8]) {
    let flags = u32::from(code) << 24 | if dnssec { DNSSEC_OK } else { 0 };
    message.push(0);
    message.extend(kind::OPT.to_be_bytes());
    message.extend(size.to_be_bytes());
    message.extend(flags.to_be_bytes());
    message.extend((options.len() as u16).to_be_bytes());
    message.extend(options);
}

/// The option that says why: RFC 8914.
fn blocked(why: &str) -> Vec<u8> {
    const EXTENDED_ERROR: u16 = 15;
    const BLOCKED: u16 = 15;
    let why = &why[..why.floor_char_boundary(200)];
    let mut option = Vec::with_capacity(6 + why.len());
    for word in [EXTENDED_ERROR, 2 + why.len() as u16, BLOCKED] {
        option.extend(word.to_be_bytes());
    }
    option.extend(why.as_bytes());
    option
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|chunk| u16::from_be_bytes(*chunk))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|chunk| u32::from_be_bytes(*chunk))
}

/// The name of a record type, as zone files write it.
pub fn kind_name(kind: u16) -> String {
    let name = match kind {
        1 => "A",
        2 => "NS",
        5 => "CNAME",
        6 => "SOA",
        12 => "PTR",
        13 => "HINFO",
        15 => "MX",
        16 => "TXT",
        28 => "AAAA",
        29 => "LOC",
        33 => "SRV",
        35 => "NAPTR",
        39 => "DNAME",
        43 => "DS",
        44 => "SSHFP",
        46 => "RRSIG",
        47 => "NSEC",
        48 => "DNSKEY",
        50 => "NSEC3",
        52 => "TLSA",
        61 => "OPENPGPKEY",
        64 => "SVCB",
        65 => "HTTPS",
        99 => "SPF",
        251 => "IXFR",
        252 => "AXFR",
        255 => "ANY",
        256 => "URI",
        257 => "CAA",
        other => return format!("TYPE{other}"),
    };
    name.into()
}

/// The address that a name below `in-addr.arpa` or `ip6.arpa` stands for.
pub fn reverse(name: &str) -> Option<IpAddr> {
    if let Some(digits) = name.strip_suffix(".in-addr.arpa") {
        let parts: Vec<u8> = digits.split('.').rev().map(|part| part.parse().ok()).collect::<Option<_>>()?;
        return <[u8; 4]>::try_from(parts).ok().map(IpAddr::from);
    }
    let digits = name.strip_suffix(".ip6.arpa")?;
    let nibble = |part: &str| u8::from_str_radix(part, 16).ok().filter(|_| part.len() == 1);
    let nibbles: Vec<u8> = digits.split('.').rev().map(nibble).collect::<Option<_>>()?;
    let bytes: Vec<u8> = nibbles.as_chunks::<2>().0.iter().map(|[high, low]| high << 4 | low).collect();
    <[u8; 16]>::try_from(bytes).ok().filter(|_| nibbles.len() == 32).map(IpAddr::from)
}

#[cfg(test)]
pub(super) mod tests {
    use simple_dns::rdata::{A, AAAA, CNAME, OPT, RData};
    use simple_dns::{CLASS, Name, Packet, PacketFlag, QTYPE, RCODE, ResourceRecord, TYPE};

    use super::*;

    /// A question as a client writes it.
    pub fn ask(name: &str, kind: u16, edns: Option<u16>) -> Vec<u8> {
        let mut message = Vec::new();
        put_header(&mut message, 0x1234, RECURSION_DESIRED, [1, 0, 0, u16::from(edns.is_some())]);
        message.extend(wire_name(name));
        message.extend(kind.to_be_bytes());
        message.extend(CLASS_IN.to_be_bytes());
        if let Some(size) = edns {
            put_opt(&mut message, size, 0, true, b"\0\x0a\0\x08client!!");
        }
        message
    }

    fn query(name: &str, kind: u16, edns: Option<u16>) -> Query {
        Query::parse(&ask(name, kind, edns)).unwrap()
    }

    /// An answer as a server writes it, with `records` for the question in `packet`.
    pub fn reply(packet: &[u8], records: &[(&str, u32, RData<'_>)]) -> Vec<u8> {
        let asked = Packet::parse(packet).unwrap();
        let mut reply = Packet::new_reply(asked.id());
        reply.set_flags(PacketFlag::RECURSION_AVAILABLE | PacketFlag::RECURSION_DESIRED);
        reply.questions = asked.questions.clone();
        for (name, ttl, data) in records {
            reply.answers.push(ResourceRecord::new(Name::new_unchecked(name), CLASS::IN, *ttl, data.clone()));
        }
        *reply.opt_mut() = asked.opt().map(|_| OPT { opt_codes: vec![], udp_packet_size: 4096, version: 0 });
        reply.build_bytes_vec_compressed().unwrap()
    }

    #[test]
    fn a_question_is_read_as_another_parser_reads_it() {
        for (name, kind, edns) in [("Api.Example.org", kind::A, None), ("_sip._tcp.x", 33, Some(4096))] {
            let bytes = ask(name, kind, edns);
            let (ours, theirs) = (Query::parse(&bytes).unwrap(), Packet::parse(&bytes).unwrap());
            assert_eq!(ours.id, theirs.id());
            assert_eq!(ours.name(), Spelled::Host(theirs.questions[0].qname.to_string().to_ascii_lowercase()));
            assert_eq!(ours.kind, u16::from(theirs.questions[0].qtype));
            assert_eq!(ours.edns.map(|edns| edns.size), theirs.opt().map(|opt| opt.udp_packet_size));
        }
    }

    #[test]
    fn names_that_no_host_has_are_escaped_beyond_confusion() {
        let odd = |name: &[u8]| {
            let mut bytes = ask("x", kind::A, None);
            bytes.splice(HEADER..HEADER + 3, [&[name.len() as u8], name, &[0]].concat());
            Query::parse(&bytes).unwrap().name()
        };
        assert_eq!(odd(b"Plain-_9"), Spelled::Host("plain-_9".into()));
        assert_eq!(odd(b"example.org"), Spelled::Odd(r"example\x2eorg".into()));
        assert_eq!(odd(b"a\0b"), Spelled::Odd(r"a\x00b".into()));
        assert_eq!(odd(b"a\\x00"), Spelled::Odd(r"a\x5cx00".into()));
        assert_eq!(odd("é*".as_bytes()), Spelled::Odd(r"\xc3\xa9\x2a".into()));
        let root = Query::parse(&[&ask("x", 2, None)[..HEADER], &[0, 0, 2, 0, 1]].concat()).unwrap();
        assert_eq!(root.name(), Spelled::Odd(".".into()));
    }

    #[test]
    fn what_is_no_fit_question_gets_its_code_or_silence() {
        let code = |packet: &[u8]| match Query::parse(packet) {
            Err(Unfit::Answer(answer)) => Some(Packet::parse(&answer).unwrap().rcode()),
            Err(Unfit::Silent) => None,
            Ok(query) => panic!("{query:?}"),
        };
        let plain = ask("example.org", kind::A, None);
        let with = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut packet = plain.clone();
            change(&mut packet);
            packet
        };
        assert_eq!(code(&plain[..11]), None);
        assert_eq!(code(&with(&|p| p[2] |= 0x80)), None, "an answer");
        assert_eq!(code(&with(&|p| p[2] |= 0x28)), Some(RCODE::NotImplemented), "an update");
        assert_eq!(code(&with(&|p| p[5] = 2)), Some(RCODE::FormatError), "two questions");
        assert_eq!(code(&with(&|p| p[5] = 0)), Some(RCODE::FormatError), "none");
        assert_eq!(code(&with(&|p| p[7] = 1)), Some(RCODE::FormatError), "an answer in it");
        assert_eq!(code(&with(&|p| p[11] = 1)), Some(RCODE::FormatError), "a record that is not there");
        assert_eq!(code(&with(&|p| p.truncate(20))), Some(RCODE::FormatError), "cut");
        assert_eq!(code(&with(&|p| p[HEADER] = 0xc0)), Some(RCODE::FormatError), "a pointer");
        assert_eq!(code(&with(&|p| *p.last_mut().unwrap() = 3)), Some(RCODE::NotImplemented), "chaos");
        assert_eq!(code(&ask("example.org", kind::OPT, None)), Some(RCODE::FormatError));
        let long = vec!["a".repeat(63); 4].join(".");
        assert_eq!(code(&ask(&long, kind::A, None)), Some(RCODE::FormatError), "257 octets");
        assert!(Query::parse(&ask(&long[..253], kind::A, None)).is_ok(), "255 octets");
        let mut version = ask("example.org", kind::A, Some(512));
        let at = version.len() - 17;
        version[at] = 1;
        let Err(Unfit::Answer(answer)) = Query::parse(&version) else { panic!("version 1") };
        assert_eq!(answer[HEADER..], [0, 0, 41, 4, 208, 1, 0, 0, 0, 0, 0], "16, its lower half in the header");
    }

    #[test]
    fn what_goes_upstream_holds_name_type_and_dnssec_alone() {
        let sent = query("MiXed.Example.org", kind::AAAA, Some(4096)).upstream(77);
        let read = Packet::parse(&sent).unwrap();
        assert_eq!(
            (read.id(), read.questions.len(), read.questions[0].qname.to_string()),
            (77, 1, "mixed.example.org".into())
        );
        assert_eq!(read.questions[0].qtype, QTYPE::TYPE(TYPE::AAAA));
        let opt = read.opt().unwrap();
        assert_eq!((opt.udp_packet_size, opt.opt_codes.len()), (1232, 0), "no option of the client's");
        assert!(Query::parse(&sent).unwrap().edns.unwrap().dnssec);
        assert!(!sent.windows(8).any(|part| part == b"client!!"));
        let plain = query("a.b", kind::A, None).upstream(1);
        assert_eq!((plain.len(), &plain[2..4]), (HEADER + 5 + 4, &[1, 0][..]));
    }

    #[test]
    fn an_answer_from_here_is_read_by_another_parser() {
        let asked = query("Host.Example", kind::A, Some(1400));
        let data = [Data::Address([192, 0, 0, 1].into())];
        let built = asked.answer_with(&data, Duration::from_secs(9));
        let read = Packet::parse(&built).unwrap();
        assert_eq!((read.id(), read.rcode(), read.answers.len()), (0x1234, RCODE::NoError, 1));
        assert_eq!(read.questions[0].qname.get_labels()[0].as_ref(), b"Host");
        assert_eq!((read.answers[0].ttl, &read.answers[0].rdata), (9, &RData::A(A { address: 0xc000_0001 })));
        let refused = asked.answer(Code::NoName, Some("no"));
        let read = Packet::parse(&refused).unwrap();
        let option = &read.opt().unwrap().opt_codes[0];
        assert_eq!((read.rcode(), option.code, &*option.data), (RCODE::NameError, 15, &b"\0\x0fno"[..]));
        assert!(Packet::parse(&query("a.b", 1, None).answer(Code::NoName, Some("no"))).unwrap().opt().is_none());
        let pointer = query("1.2.0.192.in-addr.arpa", kind::PTR, None);
        let built = pointer.answer_with(&[Data::Pointer("a.example".into())], Duration::ZERO);
        assert!(
            matches!(&Packet::parse(&built).unwrap().answers[0].rdata, RData::PTR(name) if name.0.to_string() == "a.example")
        );
    }

    #[test]
    fn an_answer_is_passed_on_with_the_clients_number_and_spelling() {
        let asked = query("WWW.Example.org", kind::A, Some(1400));
        let records = [
            ("www.example.org", 30, RData::CNAME(CNAME(Name::new_unchecked("cdn.example.net")))),
            ("cdn.example.net", 0, RData::A(A { address: 0x0102_0304 })),
            ("cdn.example.net", 7, RData::AAAA(AAAA { address: 1 })),
        ];
        let bytes = reply(&asked.upstream(99), &records);
        let answer = asked.read_answer(99, &bytes).unwrap();
        let seconds = Duration::from_secs;
        assert_eq!(answer.addresses(), [([1, 2, 3, 4].into(), seconds(0)), ("::1".parse().unwrap(), seconds(7))]);
        let passed = asked.pass_on(&answer);
        let read = Packet::parse(&passed).unwrap();
        assert_eq!((read.id(), read.questions[0].qname.get_labels()[0].as_ref()), (0x1234, &b"WWW"[..]));
        assert_eq!(read.answers[0].name.to_string(), "WWW.Example.org", "a pointer to the question");
        assert_eq!(read.answers.len(), 3);
    }

    #[test]
    fn an_answer_to_something_else_is_none() {
        let asked = query("a.example", kind::A, None);
        let good = reply(&asked.upstream(5), &[("a.example", 1, RData::A(A { address: 1 }))]);
        assert!(asked.read_answer(5, &good).is_some());
        assert!(asked.read_answer(6, &good).is_none(), "the number");
        assert!(query("b.example", kind::A, None).read_answer(5, &good).is_none(), "the name");
        assert!(query("a.example", kind::AAAA, None).read_answer(5, &good).is_none(), "the type");
        assert!(asked.read_answer(5, &asked.upstream(5)).is_none(), "a question");
        assert!(asked.read_answer(5, &good[..good.len() - 1]).is_none(), "cut");
        let mut cut = good[..good.len() - 1].to_vec();
        cut[2] |= 2;
        assert!(asked.read_answer(5, &cut).unwrap().addresses().is_empty(), "cut, and says so");
        let mut bare = good[..HEADER].to_vec();
        bare[3..8].copy_from_slice(&[5, 0, 0, 0, 0]);
        let answer = asked.read_answer(5, &bare).unwrap();
        assert!(answer.is_failure() && !answer.is_whole());
    }

    #[test]
    fn hints_of_service_records_are_addresses() {
        let asked = query("a.example", kind::HTTPS, None);
        let mut packet = asked.upstream(5);
        (packet[2], packet[7]) = (0x81, 1);
        packet.extend(b"\xc0\x0c\0\x41\0\x01\0\0\0\x3c\0\x2d\0\x01\0");
        packet.extend(b"\0\x01\0\x03\x02h3\0\x04\0\x08\x01\x02\x03\x04\x05\x06\x07\x08\0\x06\0\x10");
        packet.extend(1u128.to_be_bytes());
        packet[HEADER + 11 + 4 + 11] = (packet.len() - HEADER - 15 - 12) as u8;
        let answer = asked.read_answer(5, &packet).unwrap();
        let found: Vec<String> = answer.addresses().iter().map(|(address, _)| address.to_string()).collect();
        assert_eq!(found, ["1.2.3.4", "5.6.7.8", "::1"]);
    }

    #[test]
    fn an_answer_too_long_for_udp_is_cut_to_the_question() {
        let records: Vec<_> = (0..100).map(|i| ("a.example", 1, RData::A(A { address: i }))).collect();
        for (edns, whole) in [(None, false), (Some(100), false), (Some(1232), false), (Some(4096), true)] {
            let asked = query("A.example", kind::A, edns);
            let long = asked.pass_on(&asked.read_answer(5, &reply(&asked.upstream(5), &records)).unwrap());
            assert!(long.len() > 1600);
            let sent = asked.fit_udp(long);
            let read = Packet::parse(&sent).unwrap();
            assert_eq!(read.has_flags(PacketFlag::TRUNCATION), !whole, "{edns:?}");
            assert_eq!((read.answers.len() == 100, read.opt().is_some()), (whole, edns.is_some()));
        }
    }

    #[test]
    fn reverse_names_are_addresses() {
        assert_eq!(reverse("4.3.2.1.in-addr.arpa"), Some([1, 2, 3, 4].into()));
        let v6 = format!("1.{}8.b.d.0.1.0.0.2.ip6.arpa", "0.".repeat(23));
        assert_eq!(reverse(&v6), Some("2001:db8::1".parse().unwrap()));
        for name in ["3.2.1.in-addr.arpa", "x.3.2.1.in-addr.arpa", "1.ip6.arpa", "in-addr.arpa", "example.org"] {
            assert_eq!(reverse(name), None, "{name}");
        }
    }

    /// Numbers that look random and are the same in every run (xorshift).
    pub struct Dice(pub u64);

    impl Dice {
        pub fn roll(&mut self, sides: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 % sides as u64) as usize
        }

        pub fn spoil(&mut self, packet: &mut Vec<u8>) {
            for _ in 0..1 + self.roll(4) {
                match self.roll(5) {
                    0 => packet.truncate(self.roll(packet.len() + 1)),
                    1 => packet.push(self.roll(256) as u8),
                    2 if !packet.is_empty() => {
                        packet.remove(self.roll(packet.len()));
                    }
                    _ if !packet.is_empty() => {
                        let at = self.roll(packet.len());
                        packet[at] = [0, 1, 0x3f, 0x40, 0xc0, 0xff, self.roll(256) as u8][self.roll(7)];
                    }
                    _ => {}
                }
            }
        }
    }

    #[test]
    fn no_packet_makes_it_panic() {
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
        let asked = query("www.example.org", kind::HTTPS, Some(1400));
        let records = [
            ("www.example.org", 30, RData::CNAME(CNAME(Name::new_unchecked("cdn.example.net")))),
            ("cdn.example.net", 7, RData::AAAA(AAAA { address: 1 })),
        ];
        let (question, answer) = (ask("www.example.org", 1, Some(1400)), reply(&asked.upstream(5), &records));
        let mut understood = [0, 0];
        for _ in 0..200_000 {
            let mut packet = question.clone();
            dice.spoil(&mut packet);
            if let Ok(query) = Query::parse(&packet) {
                understood[0] += 1;
                let (built, sent) = (query.answer(Code::NoName, Some("x")), query.upstream(1));
                assert!(Query::parse(&sent).is_ok() && query.name() == Query::parse(&sent).unwrap().name());
                assert!(query.fit_udp(built).len() < 600);
            }
            let mut packet = answer.clone();
            dice.spoil(&mut packet);
            if let Some(read) = asked.read_answer(5, &packet) {
                understood[1] += 1;
                let _ = read.addresses();
                if read.is_whole() {
                    assert_eq!(asked.pass_on(&read).len(), packet.len());
                }
            }
        }
        assert!(understood.iter().all(|count| *count > 1000), "{understood:?}");
    }
}
