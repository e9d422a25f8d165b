//! What git was told to leave out: gitignore(5).
//!
//! Bytes in, values out; no file is touched here. The rules may be anybody's: matching takes time in proportion to the
//! length of pattern and path, whatever the pattern, and an [`Effort`] ends it where there are too many. An own matcher,
//! because the crates that know these rules bring an engine for regular expressions.

/// More rules of one file than this are left out.
const MOST_RULES: usize = 4096;

/// One line of a `.gitignore`.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    tokens: Vec<Token>,
    /// Whether it takes back what others said.
    again: bool,
    directories_only: bool,
    matched: Matched,
}

/// What a pattern is held against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Matched {
    /// The last name.
    Name,
    /// The path from the directory of the file that has the rule.
    Path,
}

#[derive(Debug, PartialEq, Eq)]
enum Token {
    Byte(u8),
    /// `?`: any byte of a name.
    Any,
    /// `[…]`: each byte of a name that the set has.
    Class(Box<[bool; 256]>),
    /// `*`: any part of a name.
    Part,
    /// `**/`: any number of whole directories.
    Directories,
    /// `**` at the end: everything below.
    Rest,
}

/// How much may still be done for one question.
#[derive(Debug)]
pub struct Effort(pub u32);

/// Reads the rules of a file.
pub fn rules(text: &[u8]) -> Vec<Rule> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    text.split(|byte| *byte == b'\n').filter_map(Rule::parse).take(MOST_RULES).collect()
}

/// What the rules of one file say of a path below its directory: whether it is left out; `None` if they say nothing, or
/// looking at them would take too long.
pub fn say(rules: &[Rule], path: &[u8], is_directory: bool, effort: &mut Effort) -> Option<bool> {
    rules.iter().rev().find(|rule| rule.matches(path, is_directory, effort)).map(|rule| !rule.again)
}

impl Rule {
    fn parse(line: &[u8]) -> Option<Self> {
        let line = without_spaces(line.strip_suffix(b"\r").unwrap_or(line));
        if line.first() == Some(&b'#') {
            return None;
        }
        let (again, pattern) = line.strip_prefix(b"!").map_or((false, line), |rest| (true, rest));
        let (directories_only, pattern) = pattern.strip_suffix(b"/").map_or((false, pattern), |rest| (true, rest));
        let matched = if pattern.contains(&b'/') { Matched::Path } else { Matched::Name };
        let tokens = tokens(pattern.strip_prefix(b"/").unwrap_or(pattern))?;
        (!tokens.is_empty()).then_some(Self { tokens, again, directories_only, matched })
    }

    fn matches(&self, path: &[u8], is_directory: bool, effort: &mut Effort) -> bool {
        if self.directories_only && !is_directory {
            return false;
        }
        let text = match self.matched {
            Matched::Path => path,
            Matched::Name => path.rsplit(|byte| *byte == b'/').next().unwrap_or(path),
        };
        matches(&self.tokens, text, effort)
    }
}

/// A line without the spaces at its end, but with one that is escaped.
fn without_spaces(line: &[u8]) -> &[u8] {
    let (mut at, mut end) = (0, 0);
    while let Some(byte) = line.get(at) {
        at += if *byte == b'\\' { 2 } else { 1 };
        if *byte != b' ' {
            end = at;
        }
    }
    &line[..end.min(line.len())]
}

/// `None` for a pattern that matches nothing.
fn tokens(pattern: &[u8]) -> Option<Vec<Token>> {
    // Git holds what comes before the first wildcard against the path by itself, so that `**` there starts anew.
    let first = pattern.iter().position(|byte| matches!(byte, b'*' | b'?' | b'[' | b'\\')).unwrap_or(pattern.len());
    let (mut tokens, mut at) = (Vec::new(), 0);
    while let Some(&byte) = pattern.get(at) {
        let rest = &pattern[at..];
        let starts_name = at == first || at > 0 && pattern[at - 1] == b'/';
        let (token, length) = match byte {
            b'*' => {
                let stars = rest.iter().take_while(|byte| **byte == b'*').count();
                match rest.get(stars) {
                    Some(b'/') if starts_name && stars >= 2 => (Token::Directories, stars + 1),
                    None if starts_name && stars >= 2 => (Token::Rest, stars),
                    _ => (Token::Part, stars),
                }
            }
            b'?' => (Token::Any, 1),
            b'[' => class(rest)?,
            b'\\' => (Token::Byte(*rest.get(1)?), 2),
            byte => (Token::Byte(byte), 1),
        };
        tokens.push(token);
        at += length;
    }
    Some(tokens)
}

/// Reads a class and how long it is; `None` if it does not end.
fn class(text: &[u8]) -> Option<(Token, usize)> {
    let negated = matches!(text.get(1)?, b'!' | b'^');
    let start = if negated { 2 } else { 1 };
    let (mut set, mut at, mut before) = (Box::new([false; 256]), start, None);
    loop {
        let byte = *text.get(at)?;
        if byte == b']' && at > start {
            break;
        }
        if let Some((name, length)) = named_class(&text[at..]) {
            (0..=255u8).filter(|byte| is_of(name, *byte)).for_each(|byte| set[usize::from(byte)] = true);
            (at, before) = (at + length, None);
            continue;
        }
        let (byte, length) = literal(&text[at..])?;
        match (byte, before, text.get(at + 1)) {
            (b'-', Some(low), Some(next)) if length == 1 && *next != b']' => {
                let (high, length) = literal(&text[at + 1..])?;
                (low..=high).for_each(|byte| set[usize::from(byte)] = true);
                (at, before) = (at + 1 + length, None);
            }
            _ => {
                set[usize::from(byte)] = true;
                (at, before) = (at + length, Some(byte));
            }
        }
    }
    if negated {
        set.iter_mut().for_each(|has| *has = !*has);
    }
    set[usize::from(b'/')] = false;
    Some((Token::Class(set), at + 1))
}

fn literal(text: &[u8]) -> Option<(u8, usize)> {
    match text {
        [b'\\', byte, ..] => Some((*byte, 2)),
        [b'\\'] | [] => None,
        [byte, ..] => Some((*byte, 1)),
    }
}

/// `[:NAME:]` at the start of `text`, and its length.
fn named_class(text: &[u8]) -> Option<(&[u8], usize)> {
    let rest = text.strip_prefix(b"[:")?;
    let end = rest.iter().position(|byte| *byte == b']')?;
    Some((rest[..end].strip_suffix(b":")?, end + 3))
}

fn is_of(class: &[u8], byte: u8) -> bool {
    match class {
        b"alnum" => byte.is_ascii_alphanumeric(),
        b"alpha" => byte.is_ascii_alphabetic(),
        b"blank" => matches!(byte, b' ' | b'\t'),
        b"cntrl" => byte.is_ascii_control(),
        b"digit" => byte.is_ascii_digit(),
        b"graph" => byte.is_ascii_graphic(),
        b"lower" => byte.is_ascii_lowercase(),
        b"print" => byte.is_ascii_graphic() || byte == b' ',
        b"punct" => byte.is_ascii_punctuation(),
        b"space" => byte.is_ascii_whitespace() || byte == 0x0b,
        b"upper" => byte.is_ascii_uppercase(),
        b"xdigit" => byte.is_ascii_hexdigit(),
        _ => false,
    }
}

/// Whether the tokens match all of `text`: all ways of matching are followed at once, byte by byte.
fn matches(tokens: &[Token], text: &[u8], effort: &mut Effort) -> bool {
    if let (Some(Token::Byte(first)), Some(byte)) = (tokens.first(), text.first())
        && first != byte
    {
        return false;
    }
    let mut here = vec![false; tokens.len() + 1];
    let mut next = here.clone();
    reach(tokens, &mut here, 0);
    for byte in text {
        let cost = u32::try_from(tokens.len()).unwrap_or(u32::MAX);
        let Some(left) = effort.0.checked_sub(cost) else { return false };
        effort.0 = left;
        next.fill(false);
        for (at, token) in tokens.iter().enumerate().filter(|(at, _)| here[*at]) {
            match token {
                Token::Byte(wanted) if wanted == byte => reach(tokens, &mut next, at + 1),
                Token::Any if *byte != b'/' => reach(tokens, &mut next, at + 1),
                Token::Class(set) if set[usize::from(*byte)] => reach(tokens, &mut next, at + 1),
                Token::Part if *byte != b'/' => reach(tokens, &mut next, at),
                Token::Rest => reach(tokens, &mut next, at),
                Token::Directories => {
                    // Inside a name of a directory: what follows begins behind a slash only.
                    next[at] = true;
                    if *byte == b'/' {
                        reach(tokens, &mut next, at + 1);
                    }
                }
                Token::Byte(_) | Token::Any | Token::Class(_) | Token::Part => {}
            }
        }
        std::mem::swap(&mut here, &mut next);
    }
    here[tokens.len()]
}

/// Marks a place in the pattern, and those behind it that are reached without any text.
fn reach(tokens: &[Token], places: &mut [bool], mut at: usize) {
    places[at] = true;
    while let Some(Token::Part | Token::Rest | Token::Directories) = tokens.get(at) {
        at += 1;
        places[at] = true;
    }
}
