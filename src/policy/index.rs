//! Finding the rules that could speak of a path without asking each: what a decision costs does not grow with the rules.
//!
//! Each rule is filed under the rarest thing that a path must have for it to apply: the path itself, the tree it starts in, a
//! name, the start or the end of a name. A path is then looked up by all it has, and only what is found is asked, so
//! the answer is that of asking all in order. Nothing in here looks at the file system.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hasher};
use std::path::Path;

use super::glob::literal_ends;
use super::rules::{Alternative, Part, Probe};
use super::{Guard, GuardKind, Root};

/// All guards of a policy, in the order in which they decide: deny, deny_read, deny_write, protect, and as written.
#[derive(Debug, Clone, Default)]
pub struct Guards {
    list: Vec<Guard>,
    /// By what they match.
    names: Table,
    /// By the places above that they name.
    above: Table,
    /// By the places above that an inner `**` of theirs stands for.
    within: Table,
}

impl Guards {
    /// Orders and files them.
    pub fn new(mut list: Vec<Guard>) -> Self {
        list.sort_by_key(|guard| guard.kind);
        let mut filing = Filing::default();
        for (at, guard) in list.iter().enumerate() {
            guard.pattern.alternatives().iter().for_each(|alternative| filing.add(at as u32, alternative));
        }
        let Filing { names, above, within } = filing;
        Self { list, names: Table::of(&names), above: Table::of(&above), within: Table::of(&within) }
    }

    /// In the order in which they decide.
    pub fn iter(&self) -> std::slice::Iter<'_, Guard> {
        self.list.iter()
    }

    /// Those of one kind, as written.
    pub fn of(&self, kind: GuardKind) -> &[Guard] {
        let from = self.list.partition_point(|guard| guard.kind < kind);
        let to = self.list.partition_point(|guard| guard.kind <= kind);
        &self.list[from..to]
    }

    /// The first that matches and is accepted.
    pub(super) fn first(&self, probe: &Probe, accept: impl Fn(&Guard) -> bool) -> Option<&Guard> {
        let found = self.names.first(probe, usize::MAX, |at| {
            let guard = &self.list[at];
            guard.pattern.matches_probe(probe) && accept(guard)
        });
        found.map(|at| &self.list[at])
    }

    /// The first that names a place above what it matches, as [`Pattern::names_above`](super::Pattern::names_above) has
    /// it, and is accepted.
    pub(super) fn first_named_above(&self, probe: &Probe, accept: impl Fn(&Guard) -> bool) -> Option<&Guard> {
        let found = self.above.first(probe, usize::MAX, |at| {
            let guard = &self.list[at];
            guard.pattern.names_above_probe(probe) && accept(guard)
        });
        found.map(|at| &self.list[at])
    }

    /// The same for [`Pattern::matches_above`](super::Pattern::matches_above).
    pub(super) fn first_above(&self, probe: &Probe, accept: impl Fn(&Guard) -> bool) -> Option<&Guard> {
        let is_above = |at: usize| {
            let guard = &self.list[at];
            guard.pattern.matches_above_probe(probe) && accept(guard)
        };
        let named = self.above.first(probe, usize::MAX, is_above);
        let found = self.within.first(probe, named.unwrap_or(usize::MAX), is_above).or(named);
        found.map(|at| &self.list[at])
    }
}

/// What grants a path: which list and where in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Granted {
    Write(usize),
    Private(usize),
    Read(usize),
}

/// The granted trees by path.
#[derive(Debug, Clone, Default)]
pub(super) struct Trees {
    by_path: HashMap<u64, Vec<Granted>, Ready>,
}

impl Trees {
    /// Files them; of two with the same path the first of write, private and read counts.
    pub fn new(write: &[Root], private: &[Root], read: &[Root]) -> Self {
        let count = write.len() + private.len() + read.len();
        let mut by_path: HashMap<u64, Vec<Granted>, Ready> = HashMap::with_capacity_and_hasher(count, Ready::default());
        let mut add = |root: &Root, granted| by_path.entry(path_key(&root.path)).or_default().push(granted);
        write.iter().enumerate().for_each(|(at, root)| add(root, Granted::Write(at)));
        private.iter().enumerate().for_each(|(at, root)| add(root, Granted::Private(at)));
        // A tree that may be read but is not there must not take a name out of the tree around it.
        let there = read.iter().enumerate().filter(|(_, root)| root.exists);
        there.for_each(|(at, root)| add(root, Granted::Read(at)));
        Self { by_path }
    }

    /// What could grant `probe`'s path, longest path first; the caller compares the paths.
    pub fn holding<'a>(&'a self, probe: &'a Probe) -> impl Iterator<Item = (&'a [u8], Granted)> {
        let depths = (0..=probe.depth()).rev();
        depths.flat_map(move |depth| {
            let found = self.by_path.get(&probe.path_key(depth)).map_or(&[][..], Vec::as_slice);
            found.iter().map(move |granted| (probe.prefix(depth), *granted))
        })
    }
}

/// The key of a whole path.
fn path_key(path: &Path) -> u64 {
    let probe = Probe::new(path);
    probe.path_key(probe.depth())
}

/// The longest start or end of a name that is filed.
const ENDS: usize = 16;

/// Numbers by keys.
#[derive(Debug, Clone, Default)]
struct Table {
    /// The first and the last card of each key.
    keys: HashMap<u64, (u32, u32), Ready>,
    cards: Vec<Card>,
    /// The numbers that no key finds.
    rest: Vec<u32>,
    /// Which lengths of starts and ends of names are filed, a bit each.
    heads: u32,
    tails: u32,
    /// Whether anything is filed by a name's distance from the path's end or by a tree and a depth.
    distances: bool,
    depths: bool,
}

/// A number, and the card behind it with the same key; numbers ascend.
#[derive(Debug, Clone, Copy)]
struct Card {
    number: u32,
    next: u32,
}

/// No card.
const LAST: u32 = u32::MAX;

/// Numbers with the keys that each could be filed under.
#[derive(Default)]
struct Pile {
    keys: Vec<Key>,
    /// The number and where its keys end; ascending.
    numbers: Vec<(u32, usize)>,
}

impl Pile {
    fn add(&mut self, number: u32, keys: impl IntoIterator<Item = Key>) {
        self.keys.extend(keys);
        self.numbers.push((number, self.keys.len()));
    }

    fn iter(&self) -> impl Iterator<Item = (u32, &[Key])> {
        let mut from = 0;
        self.numbers.iter().map(move |(number, to)| (*number, &self.keys[std::mem::replace(&mut from, *to)..*to]))
    }
}

impl Table {
    /// Files each number under the rarest of its keys.
    fn of(pile: &Pile) -> Self {
        let mut common: HashMap<u64, u32, Ready> = HashMap::default();
        for key in pile.iter().filter(|(_, keys)| keys.len() > 1).flat_map(|(_, keys)| keys) {
            *common.entry(key.hash()).or_default() += 1;
        }
        let mut table = Self::default();
        table.cards.reserve(pile.numbers.len());
        table.keys.reserve(pile.numbers.len() / 2);
        for (number, keys) in pile.iter() {
            match keys {
                [] => table.rest.push(number),
                [only] => table.file(*only, number),
                many => {
                    let rarest = many.iter().min_by_key(|key| common[&key.hash()]);
                    table.file(*rarest.expect("there are several"), number);
                }
            }
        }
        table
    }

    fn file(&mut self, key: Key, number: u32) {
        self.note(key);
        let new = self.cards.len() as u32;
        match self.keys.entry(key.hash()) {
            Entry::Vacant(place) => {
                place.insert((new, new));
            }
            Entry::Occupied(mut place) => {
                let last = &mut place.get_mut().1;
                if self.cards[*last as usize].number == number {
                    return;
                }
                self.cards[*last as usize].next = new;
                *last = new;
            }
        }
        self.cards.push(Card { number, next: LAST });
    }

    fn note(&mut self, key: Key) {
        match key {
            Key::Head(bytes) => self.heads |= 1 << bytes.length,
            Key::Tail(bytes) => self.tails |= 1 << bytes.length,
            Key::Before(..) => self.distances = true,
            Key::Below(..) => self.depths = true,
            Key::Path(_) | Key::Above(_) | Key::Name(_) => {}
        }
    }

    /// The lowest number below `limit` that could be meant by the path and is accepted.
    fn first(&self, probe: &Probe, limit: usize, accept: impl Fn(usize) -> bool) -> Option<usize> {
        let mut best = limit;
        if let Some(found) = self.rest.iter().map(|number| *number as usize).find(|number| accept(*number)) {
            best = best.min(found);
        }
        if !self.keys.is_empty() {
            self.keys_of(probe, |key| {
                let mut at = self.keys.get(&key.hash()).map_or(LAST, |(first, _)| *first);
                while let Some(Card { number, next }) = self.cards.get(at as usize)
                    && (*number as usize) < best
                {
                    if accept(*number as usize) {
                        best = *number as usize;
                    }
                    at = *next;
                }
            });
        }
        (best < limit).then_some(best)
    }

    /// Hands out all keys that the path has and that could be filed.
    fn keys_of(&self, probe: &Probe, mut take: impl FnMut(Key)) {
        let depth = probe.depth();
        take(Key::Above(probe.path_key(depth)));
        for at in 0..=depth {
            take(Key::Path(probe.path_key(at)));
            if self.depths {
                take(Key::Below(probe.path_key(at), depth as u32));
            }
        }
        for at in 0..depth {
            let name = probe.name_key(at);
            take(Key::Name(name));
            if self.distances {
                take(Key::Before(name, (depth - 1 - at) as u32));
            }
            if self.heads | self.tails != 0 {
                self.ends_of(probe.name(at), &mut take);
            }
        }
    }

    fn ends_of(&self, name: &[u8], take: &mut impl FnMut(Key)) {
        let longest = name.len().min(ENDS);
        for length in (1..=longest).filter(|length| self.heads & (1 << length) != 0) {
            take(Key::Head(End::of(&name[..length])));
        }
        for length in (1..=longest).filter(|length| self.tails & (1 << length) != 0) {
            take(Key::Tail(End::of(&name[name.len() - length..])));
        }
    }
}

/// Something that a path has, and that a rule can be filed under.
#[derive(Debug, Clone, Copy)]
enum Key {
    /// It is this path or lies below it.
    Path(u64),
    /// It is this path, above what the rule names.
    Above(u64),
    /// It lies below this path, so many names deep in all.
    Below(u64, u32),
    /// A name in it.
    Name(u64),
    /// A name in it, so many names before its last.
    Before(u64, u32),
    /// The start of a name in it.
    Head(End),
    /// The end of a name in it.
    Tail(End),
}

/// The start or end of a name.
#[derive(Debug, Clone, Copy)]
struct End {
    length: u32,
    hash: u64,
}

impl End {
    fn of(bytes: &[u8]) -> Self {
        Self { length: bytes.len() as u32, hash: hash(0, bytes) }
    }
}

impl Key {
    fn hash(self) -> u64 {
        let (kind, value, more) = match self {
            Self::Path(path) => (1, path, 0),
            Self::Above(path) => (2, path, 0),
            Self::Below(path, depth) => (3, path, depth),
            Self::Name(name) => (4, name, 0),
            Self::Before(name, distance) => (5, name, distance),
            Self::Head(end) => (6, end.hash, end.length),
            Self::Tail(end) => (7, end.hash, end.length),
        };
        mix(value ^ (kind << 56) ^ (u64::from(more) << 40))
    }
}

/// What is to be filed of all guards.
#[derive(Default)]
struct Filing {
    names: Pile,
    above: Pile,
    within: Pile,
}

impl Filing {
    fn add(&mut self, guard: u32, alternative: &Alternative) {
        match alternative.exact() {
            Some(path) => self.exact(guard, path),
            None => self.wild(guard, alternative.parts()),
        }
    }

    fn exact(&mut self, guard: u32, path: &Path) {
        let probe = Probe::new(path);
        self.names.add(guard, [Key::Path(probe.path_key(probe.depth()))]);
        (0..probe.depth()).for_each(|depth| self.above.add(guard, [Key::Above(probe.path_key(depth))]));
    }

    fn wild(&mut self, guard: u32, parts: &[Part]) {
        let start = Start::of(parts);
        self.names.add(guard, parts[start.count..].iter().filter_map(part_key).chain(start.key()));
        self.places_above(guard, parts, &start);
    }

    /// Files it under what a place above can be: one for each part but the last that the place's own name can match,
    /// and one for an inner `**`.
    fn places_above(&mut self, guard: u32, parts: &[Part], start: &Start) {
        (1..=start.count).for_each(|depth| self.above.add(guard, [Key::Above(start.path_keys[depth])]));
        if !start.floating {
            self.within.add(guard, [Key::Above(ROOT)]);
        }
        let first = start.count.max(usize::from(start.floating));
        for at in first..parts.len() - 1 {
            if parts[at] == Part::Deep {
                self.within.add(guard, reaching(parts, start, at));
            } else {
                self.above.add(guard, named_at(parts, start, at));
            }
        }
    }
}

/// The plain start of a pattern that begins with `/`.
struct Start {
    floating: bool,
    /// How many names it has.
    count: usize,
    /// The key of each path along it, from the root on.
    path_keys: Vec<u64>,
}

impl Start {
    fn of(parts: &[Part]) -> Self {
        let mut path_keys = vec![ROOT];
        for part in parts {
            let Part::Name(name) = part else { break };
            path_keys.push(step(path_keys[path_keys.len() - 1], hash(0, name)));
        }
        Self { floating: parts.first() == Some(&Part::Deep), count: path_keys.len() - 1, path_keys }
    }

    /// The tree that all it matches lies in.
    fn key(&self) -> Option<Key> {
        (!self.floating).then(|| Key::Path(self.path_keys[self.count]))
    }
}

fn part_key(part: &Part) -> Option<Key> {
    match part {
        Part::Deep | Part::Any => None,
        Part::Name(name) => Some(Key::Name(hash(0, name))),
        Part::Glob(glob) => {
            let (head, tail) = literal_ends(glob);
            let (head, tail) = (&head[..head.len().min(ENDS)], &tail[tail.len().saturating_sub(ENDS)..]);
            match (head.len(), tail.len()) {
                (0, 0) => None,
                (h, t) if h > t => Some(Key::Head(End::of(head))),
                _ => Some(Key::Tail(End::of(tail))),
            }
        }
    }
}

/// The keys of a path whose last name matches the part at `at`.
fn named_at(parts: &[Part], start: &Start, at: usize) -> Vec<Key> {
    let mut keys: Vec<Key> = Vec::new();
    if let glob @ Part::Glob(_) = &parts[at] {
        keys.extend(part_key(glob));
    }
    for back in (0..=at).rev() {
        match &parts[back] {
            Part::Name(name) => {
                keys.push(Key::Before(hash(0, name), (at - back) as u32));
                break;
            }
            Part::Deep => {
                keys.extend(reaching(parts, start, back));
                return keys;
            }
            Part::Any | Part::Glob(_) => {}
        }
    }
    let deep = parts[..at].contains(&Part::Deep);
    if !deep {
        keys.push(Key::Below(start.path_keys[start.count], at as u32 + 1));
    }
    keys
}

/// The keys of a path that has gone through all parts before the `**` at `at`.
fn reaching(parts: &[Part], start: &Start, at: usize) -> Vec<Key> {
    let mut keys: Vec<Key> = parts[start.count.min(at)..at].iter().filter_map(part_key).collect();
    keys.extend(start.key());
    keys
}

/// The key of `/`.
pub(super) const ROOT: u64 = 0x9E37_79B9_7F4A_7C15;

/// The key of a path with one more name.
pub(super) fn step(path: u64, name: u64) -> u64 {
    (path.rotate_left(23) ^ name).wrapping_mul(FACTOR)
}

const FACTOR: u64 = 0xF135_7AEA_2E62_A9C5;

/// Hashes a name, eight bytes at a time. Whoever finds two names with one hash makes a wrong rule be asked, no more.
pub(super) fn hash(seed: u64, bytes: &[u8]) -> u64 {
    let mut hash = seed ^ (bytes.len() as u64);
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        hash = step(hash, u64::from_le_bytes(chunk.try_into().expect("chunks_exact gives eight bytes")));
    }
    let mut last = [0u8; 8];
    last[..chunks.remainder().len()].copy_from_slice(chunks.remainder());
    step(hash, u64::from_le_bytes(last))
}

fn mix(value: u64) -> u64 {
    let value = value.wrapping_mul(FACTOR);
    value ^ (value >> 32)
}

/// Keys are hashes already.
type Ready = BuildHasherDefault<AsIs>;

#[derive(Debug, Clone, Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = hash(self.0, bytes);
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}
