//! Reading a shell's command line as far as it is plain: words, quotes, redirections, and the operators between simple
//! commands. Anything that a shell would work out (variables, substitutions, wildcards, compound commands) makes the whole
//! line one that is not read.

use super::programs::Word;

/// The words of a simple command, assignments and redirections left out; there is at least one.
pub(super) type Simple = Vec<Vec<u8>>;

/// Words that mean a compound command, or start something else than a program.
const RESERVED: &str = "if then else elif fi for while until do done case esac select function coproc [[ ]] in";

/// Commands that shells have built in, which start without an exec.
const BUILTIN: &str = ". : [ alias bg bind cd dirs disown echo enable eval exit export false fc fg getopts hash help \
                       history jobs kill let logout popd printf pushd pwd read readonly return set shift shopt source \
                       suspend test times trap true type ulimit umask unalias unset wait";

/// Whether shells carry the command out themselves.
pub(super) fn is_builtin(name: &[u8]) -> bool {
    lists(BUILTIN, name)
}

fn lists(words: &str, name: &[u8]) -> bool {
    words.split(' ').any(|word| word.as_bytes() == name)
}

/// The command line in a shell's arguments: what `-c` names. `None` in doubt, and where there is none.
pub(super) fn line<'a>(args: &'a [Word<'_>]) -> Option<&'a [u8]> {
    const LONG: &[&[u8]] =
        &[b"--norc", b"--noprofile", b"--login", b"--posix", b"--restricted", b"--verbose", b"--noediting"];
    let (mut at, mut commands) = (0, false);
    while let Some(argument) = args.get(at) {
        let argument = &**argument;
        let letters = match argument {
            b"-" | b"--" => {
                at += 1;
                break;
            }
            long if LONG.contains(&long) => b"",
            [b'-', b'-', ..] => return None,
            [b'-' | b'+', letters @ ..] if !letters.is_empty() => letters,
            _ => break,
        };
        let given = |letter| letters.contains(&letter);
        // It is read and not run.
        if given(b'n') {
            return None;
        }
        commands |= argument[0] == b'-' && given(b'c');
        at += 1 + usize::from(given(b'o') || given(b'O'));
    }
    args.get(at).filter(|_| commands).map(|line| &**line)
}

/// The simple commands of a line; `None` if it is not plain.
pub(super) fn commands(line: &[u8]) -> Option<Vec<Simple>> {
    let mut read = Read { left: line, done: Vec::new(), words: Vec::new(), redirected: false };
    while !read.left.is_empty() {
        read.token()?;
    }
    read.end()?;
    Some(read.done)
}

/// The most commands of one line that are looked at.
const MOST: usize = 256;

struct Read<'a> {
    left: &'a [u8],
    done: Vec<Simple>,
    /// The words of the command so far, and where quotes start in each.
    words: Vec<(Vec<u8>, usize)>,
    /// Whether the next word is where a redirection goes.
    redirected: bool,
}

impl Read<'_> {
    fn take(&mut self, text: &[u8]) -> bool {
        let rest = self.left.strip_prefix(text);
        self.left = rest.unwrap_or(self.left);
        rest.is_some()
    }

    fn token(&mut self) -> Option<()> {
        match self.left[0] {
            b' ' | b'\t' => {
                self.left = &self.left[1..];
                Some(())
            }
            b'<' | b'>' => self.redirection(),
            b'&' if self.left.starts_with(b"&>") => {
                self.left = &self.left[1..];
                self.redirection()
            }
            b'&' | b'|' | b';' | b'\n' => self.operator(),
            _ => self.word(),
        }
    }

    fn redirection(&mut self) -> Option<()> {
        const PLAIN: [&[u8]; 6] = [b">>", b">&", b">|", b"<&", b">", b"<"];
        if [&b"<<"[..], b"<(", b">(", b"<>"].iter().any(|other| self.left.starts_with(other)) || self.redirected {
            return None;
        }
        PLAIN.iter().any(|one| self.take(one));
        self.redirected = true;
        Some(())
    }

    fn operator(&mut self) -> Option<()> {
        if [&b";;"[..], b";&"].iter().any(|other| self.left.starts_with(other)) {
            return None;
        }
        const ALL: [&[u8]; 7] = [b"&&", b"||", b"|&", b"|", b";", b"&", b"\n"];
        ALL.iter().any(|one| self.take(one));
        self.end()
    }

    fn word(&mut self) -> Option<()> {
        let (mut word, mut quotes) = (Vec::new(), usize::MAX);
        while let Some((&byte, rest)) = self.left.split_first() {
            match byte {
                b' ' | b'\t' | b'\n' | b'&' | b'|' | b';' => break,
                b'<' | b'>' => {
                    // The number of a descriptor belongs to the redirection.
                    if quotes == usize::MAX && word.iter().all(u8::is_ascii_digit) {
                        return Some(());
                    }
                    break;
                }
                b'$' | b'`' | b'*' | b'?' | b'[' | b'{' | b'}' | b'(' | b')'
                    if !(byte == b'[' && is_test(&word, rest)) =>
                {
                    return None;
                }
                b'~' | b'#' if word.is_empty() && quotes == usize::MAX => return None,
                b'\\' => {
                    let (&next, rest) = rest.split_first().filter(|(next, _)| **next != b'\n')?;
                    quotes = quotes.min(word.len());
                    word.push(next);
                    self.left = rest;
                    continue;
                }
                b'\'' => {
                    let end = rest.iter().position(|byte| *byte == b'\'')?;
                    quotes = quotes.min(word.len());
                    word.extend(&rest[..end]);
                    self.left = &rest[end + 1..];
                    continue;
                }
                b'"' => {
                    quotes = quotes.min(word.len());
                    self.left = in_quotes(rest, &mut word)?;
                    continue;
                }
                byte => word.push(byte),
            }
            self.left = rest;
        }
        match std::mem::take(&mut self.redirected) {
            true => {}
            false => self.words.push((word, quotes)),
        }
        Some(())
    }

    /// Ends a command.
    fn end(&mut self) -> Option<()> {
        let is_assignment = |(word, quotes): &(Vec<u8>, usize)| {
            let name = word.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count();
            name > 0 && !word[0].is_ascii_digit() && word.get(name) == Some(&b'=') && *quotes > name
        };
        if self.redirected {
            return None;
        }
        let mut words = std::mem::take(&mut self.words);
        let negated = usize::from(words.first().is_some_and(|(word, quotes)| word == b"!" && *quotes == usize::MAX));
        let assigned = words[negated..].iter().take_while(|word| is_assignment(word)).count();
        words.drain(..negated + assigned);
        if let Some((first, quotes)) = words.first() {
            if self.done.len() >= MOST || (*quotes == usize::MAX && lists(RESERVED, first)) || first.is_empty() {
                return None;
            }
            self.done.push(words.into_iter().map(|(word, _)| word).collect());
        }
        Some(())
    }
}

/// Whether a bracket stands alone as a word: the command `[`.
fn is_test(word: &[u8], rest: &[u8]) -> bool {
    word.is_empty() && rest.first().is_some_and(|next| b" \t".contains(next))
}

/// Reads to the closing double quote and returns what follows it.
fn in_quotes<'a>(mut left: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        let (&byte, rest) = left.split_first()?;
        left = rest;
        match byte {
            b'"' => return Some(left),
            b'$' | b'`' => return None,
            b'\\' => {
                let (&next, rest) = left.split_first().filter(|(next, _)| **next != b'\n')?;
                if !b"$`\"\\".contains(&next) {
                    word.push(b'\\');
                }
                word.push(next);
                left = rest;
            }
            byte => word.push(byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each command with its words joined by `|`.
    fn read(line: &str) -> Option<Vec<String>> {
        let shown = |one: &Simple| {
            let words: Vec<_> = one.iter().map(|word| String::from_utf8_lossy(word)).collect();
            words.join("|")
        };
        commands(line.as_bytes()).map(|all| all.iter().map(shown).collect())
    }

    #[test]
    fn plain_lines_are_read_and_no_others() {
        for (line, expected) in [
            ("git push", &["git|push"][..]),
            ("  git   push  ", &["git|push"]),
            ("git 'push' \"or\"igin a\\ b", &["git|push|origin|a b"]),
            ("cd x && git push", &["cd|x", "git|push"]),
            ("a | b || c; d & e\nf", &["a", "b", "c", "d", "e", "f"]),
            ("A=1 B='x y' git push", &["git|push"]),
            ("! git push", &["git|push"]),
            ("git push >log 2>&1 </dev/null", &["git|push"]),
            ("git push &>log", &["git|push"]),
            ("git push 2> log; true", &["git|push", "true"]),
            ("'A=1' x", &["A=1|x"]),
            ("[ -d x ] && y", &["[|-d|x|]", "y"]),
            ("echo \"a\\\"b\\c\"", &["echo|a\"b\\c"]),
            ("", &[]),
            ("A=1", &[]),
        ] {
            assert_eq!(read(line), Some(expected.iter().map(|s| s.to_string()).collect()), "{line}");
        }
        for line in [
            "git $X",
            "git `x`",
            "git *",
            "(git push)",
            "{ git push; }",
            "if x; then y; fi",
            "git push <<E",
            "f() { x; }",
            "git \"$X\"",
            "git 'push",
            "git \"push",
            "git push \\",
            "~/x",
            "a # b",
            "for x in a; do b; done",
            "git push >",
            "a <(b)",
            "case x in esac",
        ] {
            assert_eq!(read(line), None, "{line}");
        }
    }

    #[test]
    fn the_line_of_a_shell_is_what_c_names() {
        let given = |args: &[&'static str]| {
            let words: Vec<Word<'_>> = args.iter().map(|arg| Word::Borrowed(arg.as_bytes())).collect();
            line(&words).map(|line| String::from_utf8_lossy(line).into_owned())
        };
        for args in [
            &["-c", "x"][..],
            &["-ec", "x"],
            &["-e", "-c", "x", "name", "arg"],
            &["-lc", "x"],
            &["-o", "pipefail", "-c", "x"],
            &["--norc", "-c", "x"],
            &["-c", "--", "x"],
            &["-c", "-e", "x"],
            &["+e", "-c", "x"],
        ] {
            assert_eq!(given(args).as_deref(), Some("x"), "{args:?}");
        }
        for args in [&["x"][..], &["-nc", "x"], &["--rcfile", "y", "-c", "x"], &["-c"], &["+c", "x"], &[]] {
            assert_eq!(given(args), None, "{args:?}");
        }
    }
}
