//! Looking rules up must give what asking each in order gives.

use std::path::{Path, PathBuf};

use crate::event::RuleId;
use crate::policy::rules::{Base, Pattern, Probe};
use crate::policy::{Exception, Guard, GuardKind, Guards};

/// A small generator of numbers (xorshift64*): a failure names its seed.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % sides
    }

    pub fn of<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.roll(words.len())]
    }
}

const NAMES: [&str; 8] = ["a", "b", "ab", "ba.x", "a.lock", "secret-0001.env", "home", "p"];
const PARTS: [&str; 20] = [
    "a",
    "b",
    "ab",
    "ba.x",
    "home",
    "p",
    "**",
    "*",
    "**",
    "*",
    "a*",
    "*.x",
    "?",
    "[ab]",
    "[!a]*",
    "*b*",
    "secret-*.env",
    "*-0001.env",
    "{a,b}",
    "a.{lock,x}",
];

fn pattern(dice: &mut Dice) -> String {
    let mut parts: Vec<&str> = (0..=dice.roll(5)).map(|_| dice.of(&PARTS)).collect();
    // A `..` cannot follow a wildcard and `**` not itself; the rest goes.
    parts.dedup_by(|a, b| a == b && *a == "**");
    let start = dice.of(&["/", "/home/p/", "", "**/", "~/", "/"]);
    format!("{start}{}", parts.join("/"))
}

fn path(dice: &mut Dice) -> PathBuf {
    let start = dice.of(&["/", "/home/p", "/home", "/home/p/a"]);
    let names: Vec<&str> = (0..dice.roll(6)).map(|_| dice.of(&NAMES)).collect();
    Path::new(start).join(names.join("/"))
}

fn guards(dice: &mut Dice, count: usize) -> Vec<Guard> {
    let var = |_: &str| None;
    let base = Base { workdir: Path::new("/home/p"), home: Path::new("/home"), var: &var };
    let kinds = [GuardKind::Deny, GuardKind::DenyRead, GuardKind::DenyWrite, GuardKind::Protect];
    let made = (0..count).filter_map(|at| {
        let pattern = Pattern::parse(&pattern(dice), &base).ok()?;
        let rule = RuleId::new("t", &at.to_string());
        Some(Guard { kind: kinds[dice.roll(4)], pattern, rule, message: None, except: Exception::None, label: None })
    });
    made.collect()
}

#[test]
fn what_is_found_is_what_asking_each_in_order_finds() {
    for seed in 1..150 {
        let mut dice = Dice(seed * 0x9E37_79B9);
        let count = 1 + dice.roll(60);
        let mut list = guards(&mut dice, count);
        let filed = Guards::new(list.clone());
        list.sort_by_key(|guard| guard.kind);
        for _ in 0..100 {
            let path = path(&mut dice);
            let probe = Probe::new(&path);
            // Some guards do not apply to what is done.
            let skipped = dice.roll(5);
            let counts = |guard: &Guard| guard.kind as usize != skipped;
            let rule = |guard: Option<&Guard>| guard.map(|g| format!("{} {}", g.rule, g.pattern.text()));
            let linear = |is: &dyn Fn(&Pattern) -> bool| rule(list.iter().find(|g| is(&g.pattern) && counts(g)));
            let context = format!("seed {seed}, {}", path.display());
            assert_eq!(rule(filed.first(&probe, counts)), linear(&|p| p.matches(&path)), "matches, {context}");
            assert_eq!(
                rule(filed.first_above(&probe, counts)),
                linear(&|p| p.matches_above(&path)),
                "above, {context}"
            );
            let named = linear(&|p| p.names_above(&path));
            assert_eq!(rule(filed.first_named_above(&probe, counts)), named, "named, {context}");
        }
    }
}

#[test]
fn a_path_deeper_than_most_is_looked_up_by_all_its_names() {
    let var = |_: &str| None;
    let base = Base { workdir: Path::new("/w"), home: Path::new("/h"), var: &var };
    let guard = |text: &str| Guard {
        kind: GuardKind::Deny,
        pattern: Pattern::parse(text, &base).unwrap(),
        rule: RuleId::new("t", text),
        message: None,
        except: Exception::None,
        label: None,
    };
    let deep = "/d".repeat(40);
    let filed = Guards::new(vec![guard("**/last"), guard(&format!("{deep}/x/y"))]);
    let found = |path: String| {
        let probe = Probe::new(Path::new(&path));
        let rule = |guard: Option<&Guard>| guard.map(|guard| guard.rule.0.to_string());
        (rule(filed.first(&probe, |_| true)), rule(filed.first_above(&probe, |_| true)))
    };
    assert_eq!(found(format!("{deep}/last")), (Some("t **/last".into()), None));
    assert_eq!(found(format!("{deep}/x")), (None, Some(format!("t {deep}/x/y"))));
}
