//! A list that stops growing, and counts what it has no room for.

use std::collections::HashMap;
use std::hash::Hash;

/// A list that stops growing.
#[derive(Debug)]
pub struct Kept<K, V> {
    list: Vec<(K, V)>,
    known: HashMap<K, usize>,
    limit: usize,
    /// How often something came that is not in the list because the list is full.
    pub more: u64,
}

impl<K: Hash + Eq + Clone, V: Default> Kept<K, V> {
    pub(super) fn new(limit: usize) -> Self {
        Self { list: Vec::new(), known: HashMap::new(), limit, more: 0 }
    }

    /// The entry of that name, made if there is room.
    pub(super) fn at(&mut self, key: &K) -> Option<&mut V> {
        let at = match self.known.get(key) {
            Some(&at) => at,
            None if self.is_full() => {
                self.more += 1;
                return None;
            }
            None => {
                self.known.insert(key.clone(), self.list.len());
                self.list.push((key.clone(), V::default()));
                self.list.len() - 1
            }
        };
        self.list.get_mut(at).map(|(_, value)| value)
    }

    pub(super) fn has(&self, key: &K) -> bool {
        self.known.contains_key(key)
    }

    pub(super) fn is_full(&self) -> bool {
        self.list.len() >= self.limit
    }

    /// What is kept, in the order in which it first came.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&K, &V)> {
        self.list.iter().map(|(key, value)| (key, value))
    }

    /// What is kept of that name.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.known.get(key).and_then(|&at| self.list.get(at)).map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_list_counts_what_it_has_no_room_for() {
        let mut kept: Kept<u32, u64> = Kept::new(2);
        for key in [1, 2, 1, 3, 3, 2] {
            if let Some(value) = kept.at(&key) {
                *value += 1;
            }
        }
        assert_eq!(kept.iter().collect::<Vec<_>>(), [(&1, &2), (&2, &2)]);
        assert_eq!(kept.more, 2);
    }
}
