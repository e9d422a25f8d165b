//! Takes secrets out of what is about to be recorded: argument vectors, and what a program says of itself.
//!
//! In the place of a secret stands a digest of it, so that a reader can tell one from another and find one he knows. Only
//! what looks like a secret is taken: by the shape of a token, by the name it stands under, by the flag before it. Pure
//! text work.

use std::borrow::Cow;

use serde_json::Value;
use sha2::{Digest, Sha256};

/// A kind of token: how it begins, how much follows at least, and of what.
type Shape = (&'static str, usize, fn(u8) -> bool);

/// As their issuers document them; all are issued longer than what is asked for here.
const SHAPES: [Shape; 22] = [
    ("ghp_", 20, alnum),
    ("gho_", 20, alnum),
    ("ghu_", 20, alnum),
    ("ghs_", 20, alnum),
    ("ghr_", 20, alnum),
    ("github_pat_", 20, word),
    ("glpat-", 16, word),
    ("sk-", 16, word),
    ("sk_live_", 16, word),
    ("rk_live_", 16, word),
    ("xoxa-", 10, word),
    ("xoxb-", 10, word),
    ("xoxp-", 10, word),
    ("xoxr-", 10, word),
    ("xoxs-", 10, word),
    ("AKIA", 16, alnum),
    ("ASIA", 16, alnum),
    ("AIza", 30, word),
    ("npm_", 30, alnum),
    ("hf_", 30, alnum),
    ("pypi-", 30, word),
    (WEB_TOKEN, 20, dotted),
];

/// A JSON web token: three parts with dots between, the first of which is an object.
const WEB_TOKEN: &str = "eyJ";

/// How the words in front of a key are put on whatever stands in the header of a request.
const SCHEMES: [&str; 3] = ["bearer ", "basic ", "token "];

/// What makes a name that of a secret wherever it stands in it, and as its last word.
const ANYWHERE: [&str; 6] = ["password", "passwd", "passphrase", "authorization", "apikey", "credential"];
const LAST: [&str; 5] = ["token", "secret", "secrets", "pwd", "pass"];
/// The same, of two words.
const PAIRS: [(&str, &str); 4] = [("api", "key"), ("access", "key"), ("private", "key"), ("secret", "key")];

fn alnum(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
}

fn word(byte: u8) -> bool {
    alnum(byte) || byte == b'_' || byte == b'-'
}

fn dotted(byte: u8) -> bool {
    word(byte) || byte == b'.'
}

/// What stands in the place of a secret. What stands there already stays.
fn digest(secret: &str) -> String {
    const SHOWN: usize = 8;
    let hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let known = secret.strip_prefix("sha256:").is_some_and(|rest| rest.len() == 2 * SHOWN && rest.bytes().all(hex));
    if known || secret.is_empty() {
        return secret.into();
    }
    let digest = Sha256::digest(secret.as_bytes());
    digest.iter().take(SHOWN).fold("sha256:".into(), |text, byte| format!("{text}{byte:02x}"))
}

/// The text without what has the shape of a token or of a private key.
pub fn text(text: &str) -> Cow<'_, str> {
    let (mut out, mut kept, mut at) = (String::new(), 0, 0);
    while at < text.len() {
        let Some(length) = secret_at(text, at) else {
            at += 1;
            continue;
        };
        out.push_str(&text[kept..at]);
        out.push_str(&digest(&text[at..at + length]));
        at += length;
        kept = at;
    }
    if kept == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(&text[kept..]);
    Cow::Owned(out)
}

/// How long the secret is that begins at byte `at`, if one does. What it is made of is ASCII, so it ends between
/// characters.
fn secret_at(text: &str, at: usize) -> Option<usize> {
    let (before, rest) = text.as_bytes().split_at(at);
    if rest[0] == b'-' {
        return private_key(text.get(at..)?);
    }
    SHAPES.iter().find_map(|shape| token(before.last().copied(), rest, shape))
}

/// A token is a word of its own: the middle of another is none. So no byte is looked at twice for one shape, however the
/// text was made up.
fn token(before: Option<u8>, rest: &[u8], (prefix, least, of): &Shape) -> Option<usize> {
    if before.is_some_and(|byte| of(byte) || byte == b'_') {
        return None;
    }
    let body = rest.strip_prefix(prefix.as_bytes())?;
    let length = body.iter().take_while(|byte| of(**byte)).count();
    let parts = *prefix != WEB_TOKEN || body[..length].iter().filter(|byte| **byte == b'.').count() == 2;
    (length >= *least && parts).then_some(prefix.len() + length)
}

/// A private key in its armour; one without an end goes on to the end of the text.
fn private_key(text: &str) -> Option<usize> {
    const ENDS: &str = "PRIVATE KEY-----";
    /// Between the words: the kind of key.
    const KIND: usize = 32;
    let head = text.strip_prefix("-----BEGIN ")?;
    let near = head.as_bytes().get(..KIND + ENDS.len()).unwrap_or(head.as_bytes());
    let kind = near.windows(ENDS.len()).position(|window| window == ENDS.as_bytes())?;
    let body = &head[kind + ENDS.len()..];
    let end = body.find("-----END ").and_then(|end| Some(end + body[end..].find(ENDS)? + ENDS.len()));
    Some(text.len() - body.len() + end.unwrap_or(body.len()))
}

/// Whether what goes by this name is a secret: `auth_token` is, `max_tokens` is not.
fn names_a_secret(name: &str) -> bool {
    let words = words(name);
    let last = words.last().map(String::as_str).unwrap_or_default();
    let pair = |pair: &[String]| PAIRS.iter().any(|(first, second)| pair[0] == *first && pair[1] == *second);
    words.iter().any(|word| ANYWHERE.iter().any(|part| word.contains(part)))
        || LAST.contains(&last)
        || words.windows(2).any(pair)
}

/// The words of a name, however they are joined: `api-key`, `API_KEY`, `apiKey`.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut lower = false;
    for c in name.chars() {
        if !c.is_alphanumeric() || (c.is_uppercase() && lower) {
            words.push(String::new());
        }
        lower = c.is_lowercase();
        if let Some(word) = words.last_mut()
            && c.is_alphanumeric()
        {
            word.extend(c.to_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// The value without secrets: what has their shape, and what stands under the name of one.
pub fn value(value: Value) -> Value {
    match value {
        Value::String(string) => Value::String(text(&string).into_owned()),
        Value::Array(items) => items.into_iter().map(self::value).collect(),
        Value::Object(map) => {
            let redacted = map.into_iter().map(|(name, value)| {
                let value = if names_a_secret(&name) { whole(value) } else { self::value(value) };
                (text(&name).into_owned(), value)
            });
            Value::Object(redacted.collect())
        }
        plain @ (Value::Null | Value::Bool(_) | Value::Number(_)) => plain,
    }
}

/// A value that is a secret as it stands.
fn whole(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(digest_of(&text)),
        Value::Number(number) => Value::String(digest(&number.to_string())),
        Value::Array(items) => items.into_iter().map(whole).collect(),
        Value::Object(map) => Value::Object(map.into_iter().map(|(name, value)| (name, whole(value))).collect()),
        plain @ (Value::Null | Value::Bool(_)) => plain,
    }
}

/// A secret that stands alone, but for the name of the scheme that it is used in.
fn digest_of(text: &str) -> String {
    let scheme = SCHEMES.iter().find(|scheme| text.get(..scheme.len()).is_some_and(|s| s.eq_ignore_ascii_case(scheme)));
    let (scheme, secret) = text.split_at(scheme.map_or(0, |scheme| scheme.len()));
    format!("{scheme}{}", digest(secret))
}

/// An argument vector without secrets: `--password X`, `--token=X`, `API_KEY=X`, `Authorization: X`, `https://user:X@host`
/// and whatever has the shape of one.
pub fn argv<S: AsRef<str>>(arguments: &[S]) -> Vec<String> {
    let mut of_flag = false;
    let redacted = arguments.iter().map(AsRef::as_ref).map(|argument| {
        if std::mem::take(&mut of_flag) && !argument.starts_with('-') {
            return digest_of(argument);
        }
        of_flag = argument.starts_with("--") && !argument.contains('=') && names_a_secret(argument);
        if of_flag { argument.into() } else { argument_of(argument) }
    });
    redacted.collect()
}

fn argument_of(argument: &str) -> String {
    if let Some((name, secret)) = argument.split_once('=')
        && is_name(name)
        && names_a_secret(name)
    {
        return format!("{name}={}", digest_of(secret));
    }
    if let Some((name, secret)) = argument.split_once(": ")
        && is_name(name)
        && names_a_secret(name)
    {
        return format!("{name}: {}", digest_of(secret));
    }
    without_user(&text(argument))
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(dotted)
}

/// An address without the password that stands before its host.
fn without_user(argument: &str) -> String {
    let Some((scheme, rest)) = argument.split_once("://") else { return argument.into() };
    let authority = rest.find(['/', '?', '#', ' ']).map_or(rest, |end| &rest[..end]);
    let Some((user, password)) = authority.rsplit_once('@').and_then(|(user, _)| user.split_once(':')) else {
        return argument.into();
    };
    let behind = &rest[user.len() + 1 + password.len()..];
    format!("{scheme}://{user}:{}{behind}", digest(password))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const JWT: &str = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P";

    #[test]
    fn tokens_are_known_by_their_shape_wherever_they_stand() {
        for token in [
            "ghp_0123456789abcdefghijABCDEFGHIJ012345",
            "ghs_0123456789abcdefghijABCDEFGHIJ012345",
            "github_pat_11ABCDEFG0_abcdefghijklmnopqrstuvwxyz",
            "glpat-abcdefghij0123456789",
            "sk-proj-abcdefghijklmnop0123",
            "sk-ant-api03-abcdefghijklmnop_-0123",
            "xoxb-123456789012-abcdefghij",
            "xoxp-123456789012-abcdefghij",
            "xoxa-123456789012-abcdefghij",
            "AKIAIOSFODNN7EXAMPLE",
            "AIzaSyA-0123456789abcdefghijklmnopqrstu",
            JWT,
            "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\n-----END RSA PRIVATE KEY-----",
            "-----BEGIN PRIVATE KEY-----\nMIIEow",
        ] {
            let expected = digest(token);
            assert_eq!(expected.len(), "sha256:".len() + 16);
            assert_eq!(text(token), expected);
            let redacted = text(&format!("ünder '{token}")).into_owned();
            assert_eq!(redacted, format!("ünder '{expected}"));
            assert_eq!(text(&redacted), redacted, "once is enough");
        }
        let two = "a=ghp_0123456789abcdefghijABCDEFGHIJ012345,b=AKIAIOSFODNN7EXAMPLE.";
        let expected =
            format!("a={},b={}.", digest("ghp_0123456789abcdefghijABCDEFGHIJ012345"), digest("AKIAIOSFODNN7EXAMPLE"));
        assert_eq!(text(two), expected);
    }

    #[test]
    fn ordinary_text_stays_as_it_is() {
        for plain in [
            "",
            "cargo test --test run",
            "sk-learn and task-based",
            "risk-abcdefghijklmnopqrstuvwxyz",
            "ghp_ is how they begin",
            "AKIA",
            "eyJust a word.with.dots but short",
            "eyJ0123456789012345678901.only-one-dot",
            "-----BEGIN CERTIFICATE-----\nMIID\n-----END CERTIFICATE-----",
            "------ a line ------",
            "日本語 — ünïcödé",
        ] {
            assert!(matches!(text(plain), Cow::Borrowed(same) if same == plain), "{plain}");
        }
    }

    #[test]
    fn what_stands_under_the_name_of_a_secret_is_one() {
        for name in [
            "password",
            "db_password",
            "passwd",
            "PASSPHRASE",
            "token",
            "authToken",
            "GITHUB_TOKEN",
            "access-token",
            "secret",
            "client_secret",
            "Authorization",
            "apiKey",
            "X-API-Key",
            "aws_secret_access_key",
            "private_key",
            "credentials",
        ] {
            assert!(names_a_secret(name), "{name}");
        }
        let plain =
            ["max_tokens", "tokens", "token_count", "tokenizer", "secretary", "key", "keyboard", "author", "path"];
        for name in plain {
            assert!(!names_a_secret(name), "{name}");
        }
    }

    #[test]
    fn values_are_searched_to_their_leaves() {
        let before = json!({
            "url": "https://example.org",
            "headers": [{ "Authorization": "Bearer hunter2" }],
            "password": { "new": "hunter2", "length": 7, "ok": true, "hint": null },
            "max_tokens": 4096,
            "text": format!("key {JWT}"),
        });
        let hunter = digest("hunter2");
        let after = json!({
            "url": "https://example.org",
            "headers": [{ "Authorization": format!("Bearer {hunter}") }],
            "password": { "new": hunter, "length": digest("7"), "ok": true, "hint": null },
            "max_tokens": 4096,
            "text": format!("key {}", digest(JWT)),
        });
        assert_eq!(value(before), after);
        assert_eq!(value(after.clone())["headers"], after["headers"], "once is enough");
    }

    #[test]
    fn arguments_are_known_by_flag_name_and_place() {
        let secret = digest("hunter2");
        for (before, after) in [
            (vec!["mysql", "--password", "hunter2", "x"], vec!["mysql", "--password", "S", "x"]),
            (vec!["mysql", "--password=hunter2"], vec!["mysql", "--password=S"]),
            (vec!["env", "API_KEY=hunter2", "run"], vec!["env", "API_KEY=S", "run"]),
            (vec!["curl", "-H", "Authorization: Bearer hunter2"], vec!["curl", "-H", "Authorization: Bearer S"]),
            (vec!["git", "clone", "https://me:hunter2@host/x"], vec!["git", "clone", "https://me:S@host/x"]),
            (vec!["git", "clone", "https://me@host:80/a:b@c"], vec!["git", "clone", "https://me@host:80/a:b@c"]),
            (vec!["x", "--token", "--verbose", "y"], vec!["x", "--token", "--verbose", "y"]),
            (vec!["--max-tokens", "5", "a b=c", "password"], vec!["--max-tokens", "5", "a b=c", "password"]),
        ] {
            let after: Vec<String> = after.iter().map(|word| word.replace('S', &secret)).collect();
            assert_eq!(argv(&before), after);
        }
        let token = "ghp_0123456789abcdefghijABCDEFGHIJ012345";
        assert_eq!(argv(&["gh", token]), ["gh".to_string(), digest(token)]);
    }
}
