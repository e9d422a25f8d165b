use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::policy::glob::glob_matches;
use crate::policy::programs::ProgramPattern;
use crate::policy::rules::{Base, Pattern, PatternError};

fn parse(text: &str) -> Result<Pattern, PatternError> {
    let var = |name: &str| (name == "DATA").then(|| "/srv/[data]".into());
    Pattern::parse(text, &Base { workdir: Path::new("/home/u/p"), home: Path::new("/home/u"), var: &var })
}

fn pattern(text: &str) -> Pattern {
    parse(text).unwrap_or_else(|e| panic!("{text}: {e}"))
}

#[test]
fn a_pattern_matches_a_name_and_what_is_below() {
    for (text, path, expected) in [
        ("/etc/shadow", "/etc/shadow", true),
        ("/etc/shadow", "/etc/shadow/x", true),
        ("/etc/shadow", "/etc/shadow-", false),
        ("/etc/shadow", "/etc", false),
        ("/etc/shadow/", "/etc/shadow", true),
        ("~/.ssh", "/home/u/.ssh/id", true),
        ("~", "/home/u", true),
        ("~", "/home/user", false),
        ("~x", "/home/u/p/~x", true),
        (".env", "/home/u/p/.env", true),
        (".env", "/home/u/p/sub/.env", false),
        ("./a/../b", "/home/u/p/b", true),
        ("../q", "/home/u/q", true),
        ("**/.env", "/home/u/p/.env", true),
        ("**/.env", "/.env", true),
        ("**/.env", "/a/b/c/.env/d", true),
        ("**/.env", "/a/.environment", false),
        ("/**/.env", "/a/.env", true),
        ("*.key", "/home/u/p/a.key", true),
        ("*.key", "/home/u/p/d/a.key", false),
        ("/a/*/c", "/a/b/c", true),
        ("/a/*/c", "/a/b/x/c", false),
        ("/a/**/c", "/a/c", true),
        ("/a/**/c", "/a/x/y/c", true),
        ("/a/**/c", "/a/x/y/d", false),
        ("/a/**", "/a", false),
        ("/a/**", "/a/b", true),
        ("/a/**", "/a/b/c", true),
        ("**", "/x", true),
        ("**/x/**/y/**/z", "/1/x/2/y/3/z", true),
        ("**/x/**/y/**/z", "/1/x/2/z/3/y", false),
        ("/a/{b,c/d}", "/a/c/d", true),
        ("/a/{b,c/d}", "/a/b", true),
        ("/a/{b,c/d}", "/a/c", false),
        ("/a/x{,.toml}", "/a/x", true),
        ("/a/x{,.toml}", "/a/x.toml", true),
        ("/a/[a-c]?", "/a/bz", true),
        ("/a/[!a-c]?", "/a/bz", false),
        ("/a/[]]", "/a/]", true),
        (r"/a/\*", "/a/*", true),
        (r"/a/\*", "/a/b", false),
        ("/a/?", "/a/ß", true),
        ("$DATA/x", "/srv/[data]/x", true),
        ("$DATA/x", "/srv/d/x", false),
        ("${NOPE:-/tmp}/x", "/tmp/x", true),
        ("${NOPE:-~/c}/x", "/home/u/c/x", true),
        ("${WORKDIR}/x", "/home/u/p/x", true),
        ("$HOME/x", "/home/u/x", true),
        ("/", "/anything", true),
    ] {
        assert_eq!(pattern(text).matches(Path::new(path)), expected, "{text} on {path}");
    }
}

#[test]
fn a_name_that_is_not_utf8_is_matched_like_any_other() {
    let path = Path::new(OsStr::from_bytes(b"/home/u/p/\xff\xfe/.env"));
    assert!(pattern("**/.env").matches(path));
    assert!(pattern("*/.env").matches(path));
    assert!(!pattern("**/.envx").matches(path));
}

#[test]
fn above_is_a_place_whose_move_would_carry_a_name_along() {
    // Above at all, and named by the pattern itself.
    for (text, path, above, named) in [
        ("**/.git/hooks/**", "/home/u/p/.git", true, true),
        ("**/.git/hooks/**", "/home/u/p/.git/hooks", true, true),
        ("**/.git/hooks/**", "/home/u/p/.git/hooks/x", false, false),
        ("**/.git/hooks/**", "/home/u/p", false, false),
        ("**/.git/hooks/**", "/home/u/p/.git/refs", false, false),
        ("**/.env", "/home/u/p", false, false),
        ("**/.git/modules/**/config", "/p/.git/modules/a", true, false),
        ("**/.git/modules/**/config", "/p/.git/modules", true, true),
        ("secrets/key", "/home/u/p/secrets", true, true),
        ("secrets/key", "/home/u/p", true, true),
        ("secrets/key", "/home/u/q", false, false),
        ("secrets/*/key", "/home/u/p/secrets/a", true, true),
        ("secrets/**/key", "/home/u/p/secrets/a", true, false),
        ("~/.ssh", "/home/u", true, true),
        ("~/.ssh", "/home/u/.ssh", false, false),
    ] {
        let pattern = pattern(text);
        assert_eq!(pattern.matches_above(Path::new(path)), above, "{text} above {path}");
        assert_eq!(pattern.names_above(Path::new(path)), named, "{text} names {path}");
    }
}

#[test]
fn a_grant_of_the_directory_of_a_final_double_star_is_a_grant_of_it() {
    let hooks = pattern("**/.git/hooks/**");
    assert!(hooks.is_granted_by(Path::new("/p/.git/hooks")));
    assert!(hooks.is_granted_by(Path::new("/p/.git/hooks/x")));
    assert!(!hooks.is_granted_by(Path::new("/p/.git")));
    assert!(!hooks.is_granted_by(Path::new("/p")));
}

#[test]
fn exact_is_the_path_of_a_pattern_without_wildcards() {
    assert_eq!(pattern("/etc/shadow").exact(), Some(Path::new("/etc/shadow")));
    assert_eq!(pattern("/etc/*").exact(), None);
    assert_eq!(pattern("**/.env").exact(), None);
    assert_eq!(pattern("/a/{b,c}").exacts().count(), 2);
}

#[test]
fn a_bad_pattern_says_what_is_bad() {
    for (text, expected) in [
        ("", PatternError::Empty),
        ("/a/[b", PatternError::Unclosed('[')),
        ("/a/{b", PatternError::Unclosed('{')),
        ("/a/${b", PatternError::Unclosed('{')),
        ("/a/b\\", PatternError::Backslash),
        ("/a/b**", PatternError::DoubleStar),
        ("/a/*/..", PatternError::Parent),
        ("/a/[ä]", PatternError::Class),
        ("$NOPE/x", PatternError::Unset("NOPE".into())),
        ("a\0b", PatternError::Zero),
        ("/../x", PatternError::AboveRoot),
        ("../../../../x", PatternError::AboveRoot),
        ("/a/../../*.x", PatternError::AboveRoot),
        ("/a/[z-a]", PatternError::Backwards("z-a".into(), "a-z".into())),
        ("/a/[!xz-a]", PatternError::Backwards("z-a".into(), "a-z".into())),
        ("/a/{,b}", PatternError::NoName),
        ("/a/{b,}/c", PatternError::NoName),
        ("{}/c", PatternError::NoName),
        ("{/etc,/usr}/x", PatternError::NoName),
        (&format!("/a/{}", "n".repeat(256)), PatternError::LongName),
        (&format!("**/{}", "n".repeat(256)), PatternError::LongName),
        (&"{a,b}".repeat(7), PatternError::TooLarge),
        (&"{".repeat(100_000), PatternError::TooLarge),
        (&"*/".repeat(70), PatternError::TooLarge),
    ] {
        assert_eq!(parse(text).err(), Some(expected), "{text:.40}");
    }
}

#[test]
fn odd_patterns_that_mean_something_are_taken() {
    for (text, path) in [
        ("/a//b/", "/a/b"),
        ("/a/[a-]", "/a/-"),
        ("/a/[a-a]", "/a/a"),
        ("/a/[!]x]", "/a/y"),
        ("/a/b{,.c}/d", "/a/b/d"),
        ("/a/../b", "/b"),
        (&format!("/a/{}", "n".repeat(255)), &format!("/a/{}", "n".repeat(255))),
        ("/a/{b,c}{1,2}", "/a/c2"),
        ("/a/{b,{c,d}/e}", "/a/d/e"),
        ("/a/[[]", "/a/["),
        ("/a/*.{js,ts}", "/a/x.ts"),
        ("~/${WORKDIR}", "/home/u/home/u/p"),
    ] {
        assert!(pattern(text).matches(Path::new(path)), "{text:.60} on {path:.60}");
    }
}

#[test]
fn a_pattern_reaches_the_trees_that_it_could_match_in() {
    for (text, tree, reaches, by_wildcard) in [
        ("**/.env", "/home/u/p", true, true),
        ("*.key", "/home/u/p", true, true),
        ("*.key", "/usr", false, false),
        ("/usr/*/x", "/usr", true, true),
        ("/usr/*/x", "/usr/lib", true, true),
        ("/usr/a/*", "/usr/lib", false, false),
        ("/usr/a", "/usr", true, false),
        ("/usr", "/usr/lib", true, false),
        ("/usr/a", "/usr/ab", false, false),
        ("/{usr/a,srv/*}", "/usr", true, false),
    ] {
        let (pattern, trees) = (pattern(text), [Path::new(tree)]);
        assert_eq!(pattern.reaches(&trees), reaches, "{text} in {tree}");
        assert_eq!(pattern.reaches_by_wildcard(&trees), by_wildcard, "{text} in {tree} by wildcard");
    }
}

#[test]
fn a_long_plain_path_is_no_trouble() {
    let deep = "/d".repeat(500);
    let pattern = pattern(&deep);
    assert!(pattern.matches(Path::new(&format!("{deep}/x"))));
    assert!(pattern.matches_above(Path::new("/d/d")));
}

#[test]
fn many_wildcards_cost_no_more_than_the_name_is_long() {
    let glob = "*a".repeat(60);
    assert!(!glob_matches(glob.as_bytes(), "a".repeat(255).replace("aaaaa", "b").as_bytes()));
    let path = format!("{}/x", "/a".repeat(1000));
    let start = std::time::Instant::now();
    assert!(!pattern(&"**/a/".repeat(25)).matches(Path::new("/b")));
    assert!(!pattern(&format!("{}z", "**/a/".repeat(25))).matches(Path::new(&path)));
    assert!(start.elapsed().as_secs() < 1);
}

#[test]
fn programs_go_by_name_or_by_path() {
    let var = |_: &str| None;
    let base = Base { workdir: Path::new("/home/u/p"), home: Path::new("/home/u"), var: &var };
    let matches = |text: &str, path: &str| ProgramPattern::parse(text, &base).unwrap().matches(Path::new(path));
    assert!(matches("*", "/usr/bin/ls"));
    assert!(matches("python3*", "/usr/bin/python3.12"));
    assert!(!matches("git", "/usr/bin/git-lfs"));
    assert!(matches("/usr/bin/*", "/usr/bin/ls"));
    assert!(matches("./tool", "/home/u/p/tool"));
    assert!(matches("~/bin", "/home/u/bin/x"));
    for bad in ["", "bin/ls", "{a,b}", "x["] {
        assert!(ProgramPattern::parse(bad, &base).is_err(), "{bad}");
    }
}
