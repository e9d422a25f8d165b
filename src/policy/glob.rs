//! The wildcards within one name: `*`, `?`, `[a-z]`, and the alternatives of `{a,b}`.

use super::rules::PatternError;

/// Refuses a range in a class that no character lies in.
pub(super) fn check_ranges(class: &[u8]) -> Result<(), PatternError> {
    let mut set = class.strip_prefix(b"!").or(class.strip_prefix(b"^")).unwrap_or(class);
    while let [low, rest @ ..] = set {
        set = match rest {
            [b'-', high, rest @ ..] if low <= high => rest,
            [b'-', high, ..] => {
                let range = |from: u8, to: u8| format!("{}-{}", char::from(from), char::from(to));
                return Err(PatternError::Backwards(range(*low, *high), range(*high, *low)));
            }
            rest => rest,
        };
    }
    Ok(())
}

/// What each name that a glob matches starts and ends with, escapes taken off.
pub(super) fn literal_ends(glob: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (mut head, mut run, mut at) = (None, Vec::new(), 0);
    while let Some(&byte) = glob.get(at) {
        match byte {
            b'*' | b'?' | b'[' => {
                head.get_or_insert_with(|| run.clone());
                run.clear();
                if byte == b'[' {
                    at = class_end(glob, at).unwrap_or(glob.len()) - 1;
                }
            }
            b'\\' => {
                at += 1;
                run.extend(glob.get(at));
            }
            _ => run.push(byte),
        }
        at += 1;
    }
    (head.unwrap_or_else(|| run.clone()), run)
}

/// The index after the `]` that closes the class at `open`.
pub(super) fn class_end(text: &[u8], open: usize) -> Option<usize> {
    let mut at = open + 1;
    if matches!(text.get(at), Some(b'!' | b'^')) {
        at += 1;
    }
    // A `]` that comes first is one of the characters.
    let close = text.get(at + 1..)?.iter().position(|b| *b == b']')?;
    Some(at + 1 + close + 1)
}

/// Writes `{a,b}` out, depth first.
pub(super) fn braces(text: &[u8], out: &mut Vec<Vec<u8>>) -> Result<(), PatternError> {
    let Some((open, close, commas)) = first_brace(text)? else {
        if out.len() >= 64 {
            return Err(PatternError::TooLarge);
        }
        out.push(text.to_vec());
        return Ok(());
    };
    let mut from = open + 1;
    for to in commas.into_iter().chain([close]) {
        braces(&[&text[..open], &text[from..to], &text[close + 1..]].concat(), out)?;
        from = to + 1;
    }
    Ok(())
}

/// Finds the first `{`, its `}` and the commas between them.
pub(super) fn first_brace(text: &[u8]) -> Result<Option<(usize, usize, Vec<usize>)>, PatternError> {
    let (mut open, mut depth, mut commas, mut at) = (None, 0, Vec::new(), 0);
    while let Some(&byte) = text.get(at) {
        match byte {
            b'\\' => at += 1,
            b'{' => {
                open = open.or(Some(at));
                depth += 1;
            }
            b',' if depth == 1 => commas.push(at),
            b'}' if depth > 0 => {
                depth -= 1;
                if let Some(open) = open.filter(|_| depth == 0) {
                    return Ok(Some((open, at, commas)));
                }
            }
            _ => {}
        }
        at += 1;
    }
    if open.is_some() { Err(PatternError::Unclosed('{')) } else { Ok(None) }
}

/// Matches one name against `*`, `?`, `[…]` and escapes, going back to the last `*` only.
pub(super) fn glob_matches(glob: &[u8], name: &[u8]) -> bool {
    let (mut at, mut in_name, mut star) = (0, 0, None);
    while in_name < name.len() {
        if glob.get(at) == Some(&b'*') {
            at += 1;
            star = Some((at, in_name));
        } else if let Some((next, eaten)) = glob_step(&glob[at..], &name[in_name..]) {
            at += next;
            in_name += eaten;
        } else if let Some((after, from)) = star {
            (at, in_name, star) = (after, from + 1, Some((after, from + 1)));
        } else {
            return false;
        }
    }
    glob[at..].iter().all(|b| *b == b'*')
}

/// Matches one character: how far to go on in the glob and in the name.
fn glob_step(glob: &[u8], name: &[u8]) -> Option<(usize, usize)> {
    match glob.first()? {
        b'?' => Some((1, character(name))),
        b'[' => {
            let end = class_end(glob, 0)?;
            class_holds(&glob[1..end - 1], name[0]).then(|| (end, character(name)))
        }
        b'\\' => (glob.get(1)? == &name[0]).then_some((2, 1)),
        byte => (*byte == name[0]).then_some((1, 1)),
    }
}

/// The length of the UTF-8 character at the start, or 1.
fn character(name: &[u8]) -> usize {
    if name[0] < 0xC0 {
        return 1;
    }
    1 + name[1..].iter().take(3).take_while(|b| (0x80..0xC0).contains(*b)).count()
}

fn class_holds(class: &[u8], byte: u8) -> bool {
    let (negated, set) = match class {
        [b'!' | b'^', set @ ..] => (true, set),
        set => (false, set),
    };
    let (mut found, mut at) = (false, 0);
    while at < set.len() {
        if let [low, b'-', high, ..] = set[at..] {
            found |= (low..=high).contains(&byte);
            at += 3;
        } else {
            found |= set[at] == byte;
            at += 1;
        }
    }
    found != negated
}
