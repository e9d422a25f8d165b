//! Seeing through programs that start another one named in plain words: `env`, `nice`, `timeout`, busybox.
//!
//! What they start is judged by its own exec, so this is only for refusing early, and for what starts without an exec: the
//! applets of busybox and the commands that a shell has built in. Where anything is in doubt (an option that is not known,
//! a word that a shell would work out) nothing is said.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::programs::{Command, Word};
use super::shell;

/// How many launchers one behind the other are seen through.
const DEPTH: usize = 8;

/// Hands `command` and what it is certain to start to `found`, one by one, until that says true.
pub(super) fn each(command: &Command<'_>, found: &mut dyn FnMut(&Command<'_>) -> bool) -> bool {
    Walk { found, inside: false }.command(command, DEPTH)
}

struct Walk<'f> {
    found: &'f mut dyn FnMut(&Command<'_>) -> bool,
    /// Whether it is busybox that starts what comes, which needs no exec for that.
    inside: bool,
}

impl Walk<'_> {
    fn command(&mut self, command: &Command<'_>, depth: usize) -> bool {
        if (self.found)(command) {
            return true;
        }
        if depth == 0 {
            return false;
        }
        let names: Vec<&[u8]> = command.all_names().collect();
        for (at, name) in names.iter().enumerate() {
            if !names[..at].contains(name) && self.through(command, name, depth - 1) {
                return true;
            }
        }
        false
    }

    /// Looks at what a command starts that goes by `name`.
    fn through(&mut self, command: &Command<'_>, name: &[u8], depth: usize) -> bool {
        let args = command.args;
        if let Some(subcommand) = name.strip_prefix(b"git-") {
            let words: Vec<Word<'_>> = [Word::Borrowed(&b"git"[..]), Word::Borrowed(subcommand)]
                .into_iter()
                .chain(args.iter().map(|word| Word::Borrowed(&**word)))
                .collect();
            return self.started(&words, command.more, depth);
        }
        if name == b"env" {
            return self.env(args, command.more, depth);
        }
        if is_shell(name) {
            return self.shell(command, depth);
        }
        if is_busybox(name) {
            // It goes by its first argument only where it is not called by an applet's name.
            return command.names.last().is_none_or(|called| is_busybox(called)) && self.applet(args, depth);
        }
        let Some(launcher) = launcher(name) else { return false };
        let Some(start) = launcher.operands(args) else { return false };
        let words = args.get(start + launcher.operands..).unwrap_or_default();
        self.started(words, command.more || launcher.adds, depth)
    }

    /// A command in words, its program first.
    fn started(&mut self, words: &[Word<'_>], more: bool, depth: usize) -> bool {
        let Some((program, args)) = words.split_first() else { return false };
        let name = last_name(program);
        if name.is_empty() {
            return false;
        }
        let path = program.starts_with(b"/").then(|| Path::new(OsStr::from_bytes(program)));
        self.command(&Command { path, names: &[name], args, more }, depth)
    }

    fn applet(&mut self, args: &[Word<'_>], depth: usize) -> bool {
        if args.first().is_none_or(|applet| applet.starts_with(b"-")) {
            return false;
        }
        let before = std::mem::replace(&mut self.inside, true);
        let found = self.started(args, false, depth);
        self.inside = before;
        found
    }

    /// `env`: options, `NAME=value`, then the command; `-S` holds more words of all three kinds.
    fn env(&mut self, args: &[Word<'_>], more: bool, depth: usize) -> bool {
        let Some((start, split)) = ENV.parse(args, b'S', "split-string") else { return false };
        if let Some(text) = split {
            if depth == 0 || !text.iter().all(|byte| byte.is_ascii_alphanumeric() || b" \t-_./:=,+@%^".contains(byte)) {
                return false;
            }
            let inner = text.split(|byte| b" \t".contains(byte)).filter(|word| !word.is_empty()).map(Cow::Borrowed);
            let words: Vec<Word<'_>> = inner.chain(args[start..].iter().map(|word| Word::Borrowed(&**word))).collect();
            return self.env(&words, more, depth - 1);
        }
        let words = &args[start..];
        let assigned = words.iter().take_while(|word| word.contains(&b'=')).count();
        self.started(&words[assigned..], more, depth)
    }

    /// `sh -c LINE`, if the line is plain: what the shell carries out itself. It is not refused for what has an exec of its
    /// own, since it may go on when that fails, and its caller expects the shell to start.
    fn shell(&mut self, command: &Command<'_>, depth: usize) -> bool {
        let inside = self.inside || command.all_names().any(is_busybox);
        let Some(commands) = shell::line(command.args).and_then(shell::commands) else { return false };
        let before = std::mem::replace(&mut self.inside, inside);
        let found = commands.iter().any(|words| {
            let prefixed = words.len() > 1 && [&b"command"[..], b"builtin"].contains(&&words[0][..]);
            let words: Vec<Word<'_>> =
                words[usize::from(prefixed)..].iter().map(|word| Word::Borrowed(&word[..])).collect();
            (inside || shell::is_builtin(&words[0])) && self.started(&words, false, depth)
        });
        self.inside = before;
        found
    }
}

/// The name behind the last slash, without the dash of a login shell.
pub(super) fn last_name(word: &[u8]) -> &[u8] {
    let name = word.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    name.strip_prefix(b"-").unwrap_or(name)
}

fn is_busybox(name: &[u8]) -> bool {
    name.starts_with(b"busybox")
}

fn is_shell(name: &[u8]) -> bool {
    matches!(name, b"sh" | b"bash" | b"dash" | b"ash" | b"zsh" | b"ksh" | b"mksh" | b"rbash")
}

/// The options of a launcher. One that is not listed is in doubt.
struct Launcher {
    /// Letters without and with a value.
    flags: &'static [u8],
    values: &'static [u8],
    /// Words without and with a value.
    long_flags: &'static [&'static str],
    long_values: &'static [&'static str],
    /// How many operands stand before the command.
    operands: usize,
    /// Whether a number with a dash is an option, as in `nice -10`.
    numbers: bool,
    /// Whether it adds arguments of its own behind the command's.
    adds: bool,
}

const NONE: Launcher =
    Launcher { flags: b"", values: b"", long_flags: &[], long_values: &[], operands: 0, numbers: false, adds: false };

const ENV: Launcher = Launcher {
    flags: b"iv",
    values: b"uCS",
    long_flags: &["ignore-environment", "debug", "block-signal", "default-signal", "ignore-signal"],
    long_values: &["unset", "chdir", "split-string"],
    ..NONE
};
const NICE: Launcher = Launcher { values: b"n", long_values: &["adjustment"], numbers: true, ..NONE };
const TIMEOUT: Launcher = Launcher {
    flags: b"vfp",
    values: b"ks",
    long_flags: &["verbose", "foreground", "preserve-status"],
    long_values: &["kill-after", "signal"],
    operands: 1,
    ..NONE
};
const STDBUF: Launcher = Launcher { values: b"ioe", long_values: &["input", "output", "error"], ..NONE };
const SETSID: Launcher = Launcher { flags: b"cfw", long_flags: &["ctty", "fork", "wait"], ..NONE };
const IONICE: Launcher =
    Launcher { flags: b"t", values: b"cn", long_flags: &["ignore"], long_values: &["class", "classdata"], ..NONE };
const CHRT: Launcher = Launcher {
    flags: b"abdforRiv",
    values: b"TPD",
    long_flags: &["all-tasks", "batch", "deadline", "fifo", "idle", "other", "rr", "reset-on-fork", "verbose"],
    long_values: &["sched-runtime", "sched-period", "sched-deadline"],
    operands: 1,
    ..NONE
};
const TIME: Launcher = Launcher {
    flags: b"apqv",
    values: b"fo",
    long_flags: &["append", "portability", "quiet", "verbose"],
    long_values: &["format", "output"],
    ..NONE
};
/// Without `-r`, which may start nothing, and `-I`, which changes words.
const XARGS: Launcher = Launcher {
    flags: b"0tx",
    values: b"adELnPs",
    long_flags: &["null", "verbose", "exit"],
    long_values: &["arg-file", "delimiter", "max-args", "max-procs", "max-chars"],
    adds: true,
    ..NONE
};

fn launcher(name: &[u8]) -> Option<&'static Launcher> {
    Some(match name {
        b"nice" => &NICE,
        b"nohup" => &NONE,
        b"timeout" => &TIMEOUT,
        b"stdbuf" => &STDBUF,
        b"setsid" => &SETSID,
        b"ionice" => &IONICE,
        b"chrt" => &CHRT,
        b"time" => &TIME,
        b"xargs" => &XARGS,
        _ => return None,
    })
}

impl Launcher {
    /// Where the operands start; `None` in doubt.
    fn operands(&self, args: &[Word<'_>]) -> Option<usize> {
        self.parse(args, 0, "").map(|(start, _)| start)
    }

    /// Where the operands start, and the value of the option `letter` or `word`, which ends the options where it stands.
    fn parse<'a>(&self, args: &'a [Word<'_>], letter: u8, word: &str) -> Option<(usize, Option<&'a [u8]>)> {
        let mut at = 0;
        while let Some(argument) = args.get(at) {
            let next = args.get(at + 1).map(|next| &**next);
            match &**argument {
                b"--" => return Some((at + 1, None)),
                // `env -` is `env -i`.
                b"-" if !self.flags.contains(&b'i') => return Some((at, None)),
                [b'-', b'-', long @ ..] => {
                    let (name, value) = match long.iter().position(|byte| *byte == b'=') {
                        Some(equals) => (&long[..equals], Some(&long[equals + 1..])),
                        None => (long, None),
                    };
                    let listed = |list: &[&str]| list.iter().any(|one| one.as_bytes() == name);
                    if listed(self.long_values) {
                        at += usize::from(value.is_none());
                        let value = value.or(next)?;
                        if name == word.as_bytes() {
                            return Some((at + 1, Some(value)));
                        }
                    } else if !listed(self.long_flags) {
                        return None;
                    }
                }
                [b'-', digits @ ..] if self.numbers && digits.iter().all(u8::is_ascii_digit) => {}
                [b'-', letters @ ..] => {
                    let valued = letters.iter().position(|one| !self.flags.contains(one));
                    if let Some(place) = valued {
                        if !self.values.contains(&letters[place]) {
                            return None;
                        }
                        let attached = Some(&letters[place + 1..]).filter(|value| !value.is_empty());
                        at += usize::from(attached.is_none());
                        let value = attached.or(next)?;
                        if letters[place] == letter {
                            return Some((at + 1, Some(value)));
                        }
                    }
                }
                _ => return Some((at, None)),
            }
            at += 1;
        }
        Some((at, None))
    }
}
