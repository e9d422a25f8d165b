//! How records become words: times, errno names, targets, and text that is safe to show.
//!
//! Names from inside the box are hostile: whatever goes to a terminal passes through [`printable`] first.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use jiff::Timestamp;
use jiff::fmt::temporal::DateTimePrinter;
use nix::errno::Errno;

use crate::event::{Access, Bound, Endpoint, Exec, Receiver, Signal, Transport, Visit, unescape_bytes};

/// Writes `time` as RFC 3339 with microseconds, in UTC.
pub fn rfc3339(time: SystemTime) -> String {
    const PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(6));
    let mut text = String::with_capacity(32);
    // A clock outside jiff's years -9999..9999 is the only failure; such a time is written as the epoch.
    let stamp = Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH);
    match PRINTER.print_timestamp(&stamp, &mut text) {
        Ok(()) => text,
        Err(_) => stamp.to_string(),
    }
}

/// Names an errno as `errno.h` does: `EACCES`.
pub fn errno_name(number: i32) -> String {
    match Errno::from_raw(number) {
        Errno::UnknownErrno => format!("errno {number}"),
        known => format!("{known:?}"),
    }
}

/// Writes bytes as lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    let mut digits = vec![0; bytes.len() * 2];
    put_hex(bytes, &mut digits);
    digits.into_iter().map(char::from).collect()
}

/// Writes bytes as lower-case hexadecimal into `digits`, as far as there is room.
pub(super) fn put_hex(bytes: &[u8], digits: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in digits.chunks_exact_mut(2).zip(bytes) {
        pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
}

/// Escapes whatever could move a cursor, change a colour, break a line or reorder text on a terminal.
pub fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if deceives(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// Whether a terminal acts on `c` instead of showing it: controls, line separators, invisible and direction marks.
fn deceives(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{00ad}' | '\u{061c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Cuts `text` to at most `limit` characters, with dots where something is missing.
pub fn shorten(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        None => text.to_string(),
        Some(_) => text.chars().take(limit.saturating_sub(3)).chain("...".chars()).collect(),
    }
}

/// Says in a few words what an access is aimed at: a path, two paths, a command line, an address.
pub fn target(access: &Access) -> String {
    match access {
        Access::File { at, .. } => at.path.to_string(),
        Access::Move { from, to, .. } => format!("{} -> {}", from.path, to.path),
        Access::Exec(exec) => program_line(exec),
        Access::Connect { to } | Access::Send { to } | Access::Route { to } => endpoint(to),
        Access::Resolve(question) => format!("{} {}", question.name, question.record),
        Access::Accept(Visit { from, at, port }) => format!("{from} at {at} -> port {port}"),
        Access::Bind { at } => endpoint(at),
        Access::Signal(signal) => sent(signal),
        Access::Call { name, .. } => name.clone(),
    }
}

/// `SIGTERM to process 7 (a3)`.
fn sent(Signal { name, to, .. }: &Signal) -> String {
    match to {
        Receiver::Process { pid, action } => format!("{name} to process {pid} ({action})"),
        Receiver::Group { pgid, action } => format!("{name} to process group {pgid} ({action})"),
        Receiver::Everybody => format!("{name} to everybody"),
    }
}

fn program_line(exec: &Exec) -> String {
    let mut line = exec.program.to_string();
    for argument in exec.argv.iter().skip(1) {
        line.push(' ');
        line.push_str(&quoted(argument));
    }
    if exec.argc > exec.argv.len() {
        let _ = write!(line, " ... ({} arguments)", exec.argc);
    }
    line
}

/// What is known of a program that the box could have written, in short: `sha256 0123456789ab, /work/lib sha256 …`.
pub fn digests(access: &Access) -> Option<String> {
    let Access::Exec(exec) = access else { return None };
    let short = |digest: &str| match digest.split_once(':') {
        Some(("sha256", hex)) => format!("sha256 {}", hex.get(..12).unwrap_or(hex)),
        Some(("none", why)) => format!("digest not known:{why}"),
        _ => digest.to_string(),
    };
    let parts = exec.parts.iter().map(|part| format!("{} {}", part.file, short(&part.digest)));
    let all: Vec<String> = exec.digest.iter().map(|digest| short(digest)).chain(parts).collect();
    (!all.is_empty()).then(|| all.join(", "))
}

/// How much would be gone: `of 57 entries below /work`.
pub fn bound(bound: &Bound) -> String {
    let Bound { root, entries, more, .. } = bound;
    let entries = match (entries, more) {
        (entries, true) => format!("more than {entries} entries"),
        (1, false) => "1 entry".into(),
        (entries, false) => format!("{entries} entries"),
    };
    format!("of {entries} below {root}")
}

fn endpoint(endpoint: &Endpoint) -> String {
    match endpoint {
        Endpoint::Inet { address, transport, names, .. } => inet(*address, *transport, names),
        Endpoint::Unix { path, .. } => format!("unix:{path}"),
        Endpoint::Abstract { name, .. } => format!("unix:@{name}"),
        Endpoint::Unspecified => "unspecified".into(),
        Endpoint::Netlink => "netlink".into(),
        Endpoint::Other { number } => format!("family {number}"),
    }
}

/// `api.example.org (192.0.2.7:443)`, `udp 192.0.2.53:53`.
fn inet(address: SocketAddr, transport: Transport, names: &[Arc<str>]) -> String {
    let transport = if transport == Transport::Tcp { String::new() } else { format!("{transport} ") };
    match names {
        [] => format!("{transport}{address}"),
        names => format!("{transport}{} ({address})", names.join(", ")),
    }
}

/// Puts single quotes around an argument that a shell would not read as one plain word. Of a record's escapes it keeps
/// those that stand for bytes which are no text.
pub fn quoted(argument: &str) -> String {
    let text = unescape_bytes(argument).and_then(|bytes| String::from_utf8(bytes).ok());
    let argument = text.as_deref().unwrap_or(argument);
    let plain = |c: char| c.is_alphanumeric() || "-_./:=,+@%^".contains(c);
    if !argument.is_empty() && argument.chars().all(plain) {
        argument.to_string()
    } else {
        format!("'{}'", argument.replace('\'', r"'\''"))
    }
}

/// A command line as a shell would take it.
pub fn command_line(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{ActionId, BoxPath, Part};

    #[test]
    fn times_have_microseconds_and_are_utc() {
        let time = SystemTime::UNIX_EPOCH + std::time::Duration::new(1_000_000_000, 123_456_789);
        assert_eq!(rfc3339(time), "2001-09-09T01:46:40.123456Z");
        assert_eq!(rfc3339(SystemTime::UNIX_EPOCH), "1970-01-01T00:00:00.000000Z");
    }

    #[test]
    fn a_hostile_name_cannot_drive_the_terminal() {
        let name = "a\x1b[2Jb\r\nc\u{9b}31m\u{202e}gpj.exe\u{2028}\u{7f}";
        let shown = printable(name);
        assert!(!shown.chars().any(deceives), "{shown:?}");
        assert_eq!(printable("héllo/ünï 日本"), "héllo/ünï 日本");
    }

    #[test]
    fn digests_are_shown_in_short() {
        let exec = |digest: Option<&str>, parts| {
            let exec = Exec::of(BoxPath::new("/work/x").unwrap(), "x", vec![]);
            digests(&Access::Exec(Exec { digest: digest.map(str::to_string), parts, ..exec }))
        };
        let part = |digest: &str| Part { file: BoxPath::new("/work/y").unwrap(), digest: digest.into() };
        assert_eq!(exec(None, vec![]), None);
        let long = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let shown = exec(Some(long), vec![part("none: no regular file")]);
        assert_eq!(shown.as_deref(), Some("sha256 e3b0c44298fc, /work/y digest not known: no regular file"));
        assert_eq!(exec(Some("sha256:é"), vec![]).as_deref(), Some("sha256 é"));
    }

    #[test]
    fn a_bound_says_how_much_of_what() {
        let said = |entries, more| {
            let root = BoxPath::new("/work").unwrap();
            bound(&Bound { root, entries, files: 0, bytes: None, unheld: 0, more })
        };
        assert_eq!(said(57, false), "of 57 entries below /work");
        assert_eq!(said(1, false), "of 1 entry below /work");
        assert_eq!(said(100_000, true), "of more than 100000 entries below /work");
    }

    #[test]
    fn a_signal_is_told_by_name_and_receiver() {
        let action = ActionId::new(3);
        let told = |to| target(&Access::Signal(Signal { signal: 15, name: "SIGTERM".into(), to, below: false }));
        assert_eq!(told(Receiver::Process { pid: 7, action }), "SIGTERM to process 7 (a3)");
        assert_eq!(
            told(Receiver::Group { pgid: 2, action: ActionId::SESSION }),
            "SIGTERM to process group 2 (session)"
        );
        assert_eq!(told(Receiver::Everybody), "SIGTERM to everybody");
    }

    #[test]
    fn errno_numbers_have_names() {
        assert_eq!(errno_name(13), "EACCES");
        assert_eq!(errno_name(4000), "errno 4000");
    }

    #[test]
    fn arguments_are_quoted_as_a_shell_wants_them() {
        assert_eq!(quoted("a/b-c"), "a/b-c");
        assert_eq!(quoted(""), "''");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(r#"say \\"a\\""#), r#"'say \"a\"'"#, "as it was typed");
        assert_eq!(quoted(r"\xff\\"), r"'\xff\\'", "no text");
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        assert_eq!(shorten("ééééé", 5), "ééééé");
        assert_eq!(shorten("éééééé", 5), "éé...");
    }
}
