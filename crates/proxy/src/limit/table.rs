//! A hash table of keys with a value each, in memory of fixed size.
//!
//! All entries lie in one block and name each other by number: of 32 bits, half of what a pointer takes. A short key
//! lies in its entry, a long one in memory of its own, which counts too. The block is reserved whole, so it never moves
//! and no insertion takes longer than another; what was never used is never touched, and the kernel gives no memory for
//! it.

/// The longest key that lies in its entry: an address as text, but not every IPv6 address.
const SHORT: usize = 22;

/// No entry; also the end of a chain. Entries are counted from 1 so that a block of zeros has none.
pub(super) const NONE: u32 = 0;

/// The table cannot have the memory that it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLarge;

/// The table; `V` is kept for each key.
#[derive(Debug)]
pub(super) struct Table<V> {
    /// The number of an entry is one more than its index.
    entries: Vec<Entry<V>>,
    /// The first entry of each chain.
    buckets: Box<[u32]>,
    /// The first of the entries that were removed.
    free: u32,
    /// Bytes in use.
    spent: usize,
    /// Bytes that may be in use.
    budget: usize,
}

#[derive(Debug)]
struct Entry<V> {
    hash: u32,
    /// The next of its chain, or of the entries that were removed.
    next: u32,
    key: Key,
    value: V,
}

#[derive(Debug)]
enum Key {
    Short { len: u8, bytes: [u8; SHORT] },
    Long(Box<[u8]>),
}

impl Key {
    fn new(key: &[u8]) -> Self {
        let mut bytes = [0; SHORT];
        match bytes.get_mut(..key.len()) {
            Some(start) => {
                start.copy_from_slice(key);
                Self::Short { len: key.len() as u8, bytes }
            }
            None => Self::Long(key.into()),
        }
    }

    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Short { len, bytes } => &bytes[..usize::from(*len)],
            Self::Long(key) => key,
        }
    }

    /// What a key takes beside its entry: allocators give multiples of 16 bytes and keep 8 for themselves.
    fn cost(len: usize) -> usize {
        if len <= SHORT { 0 } else { (len + 8).next_multiple_of(16) }
    }
}

impl<V> Table<V> {
    /// What an entry takes, with its bucket.
    pub(super) const ENTRY_SIZE: usize = size_of::<Entry<V>>() + size_of::<u32>();

    /// A table that takes no more than `budget` bytes.
    ///
    /// # Errors
    /// When there is no such memory, or more entries would fit than there are numbers for.
    pub(super) fn new(budget: usize) -> Result<Self, TooLarge> {
        let capacity = budget / Self::ENTRY_SIZE;
        u32::try_from(capacity).ok().filter(|&count| count < u32::MAX).ok_or(TooLarge)?;
        let mut entries = Vec::new();
        entries.try_reserve_exact(capacity).map_err(|_| TooLarge)?;
        // Zeroed by the kernel, page by page, when they are first used.
        let buckets = vec![NONE; capacity].into();
        Ok(Self { entries, buckets, free: NONE, spent: 0, budget })
    }

    /// The entry of a key.
    pub(super) fn find(&self, hash: u32, key: &[u8]) -> Option<u32> {
        let mut number = self.buckets[self.bucket(hash)];
        while number != NONE {
            let entry = self.entry(number);
            if entry.hash == hash && entry.key.as_bytes() == key {
                return Some(number);
            }
            number = entry.next;
        }
        None
    }

    /// Adds a key, which is not there yet; `None` when there is no room.
    pub(super) fn insert(&mut self, hash: u32, key: &[u8], value: V) -> Option<u32> {
        let cost = Self::ENTRY_SIZE + Key::cost(key.len());
        if self.spent + cost > self.budget {
            return None;
        }
        let bucket = self.bucket(hash);
        let entry = Entry { hash, next: self.buckets[bucket], key: Key::new(key), value };
        let number = match self.free {
            // The budget is enough for one more entry, and all that were removed are in use again.
            NONE => {
                self.entries.push(entry);
                self.entries.len() as u32
            }
            number => {
                self.free = self.entry(number).next;
                self.entries[number as usize - 1] = entry;
                number
            }
        };
        self.spent += cost;
        self.buckets[bucket] = number;
        Some(number)
    }

    /// Takes an entry out; its number is free for another key then.
    pub(super) fn remove(&mut self, number: u32) {
        let entry = self.entry(number);
        let (next, bucket) = (entry.next, self.bucket(entry.hash));
        self.spent -= Self::ENTRY_SIZE + Key::cost(entry.key.as_bytes().len());
        if self.buckets[bucket] == number {
            self.buckets[bucket] = next;
        } else {
            let mut before = self.buckets[bucket];
            while self.entry(before).next != number {
                before = self.entry(before).next;
            }
            self.entries[before as usize - 1].next = next;
        }
        let free = self.free;
        let entry = &mut self.entries[number as usize - 1];
        (entry.next, entry.key) = (free, Key::new(b""));
        self.free = number;
    }

    /// The value of an entry.
    pub(super) fn value(&self, number: u32) -> &V {
        &self.entry(number).value
    }

    /// The key of an entry.
    pub(super) fn key(&self, number: u32) -> &[u8] {
        self.entry(number).key.as_bytes()
    }

    /// The value of an entry.
    pub(super) fn value_mut(&mut self, number: u32) -> &mut V {
        &mut self.entries[number as usize - 1].value
    }

    fn entry(&self, number: u32) -> &Entry<V> {
        &self.entries[number as usize - 1]
    }

    /// Its share of all buckets is the hash's of all hashes.
    fn bucket(&self, hash: u32) -> usize {
        ((u64::from(hash) * self.buckets.len() as u64) >> 32) as usize
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn an_entry_is_no_larger_than_it_must_be() {
        assert_eq!(size_of::<Key>(), 24);
        assert_eq!(Table::<u32>::ENTRY_SIZE, 44);
    }

    #[test]
    fn the_budget_is_never_exceeded_and_what_is_removed_makes_room() {
        let entry = Table::<u8>::ENTRY_SIZE;
        let mut table = Table::<u8>::new(3 * entry).unwrap();
        let numbers = [1, 2, 3].map(|key| table.insert(7, &[key], key).unwrap());
        assert_eq!(table.insert(7, b"x", 0), None);
        table.remove(numbers[1]);
        let long = [b'l'; SHORT + 1];
        assert_eq!(table.insert(7, &long, 0), None, "its key needs more memory than is free");
        table.remove(numbers[0]);
        assert!(table.insert(9, &long, 4).is_some());
        assert_eq!(table.insert(7, b"x", 0), None);
        let found = |hash, key: &[u8]| table.find(hash, key).map(|number| *table.value(number));
        assert_eq!(found(9, &long), Some(4));
        assert_eq!(found(7, &[3]), Some(3));
        assert_eq!(found(7, &[1]), None);
        assert_eq!(found(8, &[3]), None);
    }

    proptest::proptest! {
        /// Hashes collide on purpose: with 4 of them chains are long.
        #[test]
        fn it_is_a_map(steps in proptest::collection::vec((0u8..3, 0usize..40), 0..200)) {
            let mut table = Table::<usize>::new(20 * Table::<usize>::ENTRY_SIZE).unwrap();
            let mut expected = HashMap::new();
            for (step, len) in steps {
                let (key, hash) = (vec![b'k'; len], (len as u32 % 4) << 30);
                let found = table.find(hash, &key);
                assert_eq!(found.map(|number| *table.value(number)), expected.get(&len).copied());
                match (step, found) {
                    (0, Some(number)) => {
                        table.remove(number);
                        expected.remove(&len);
                    }
                    (1, Some(number)) => {
                        *table.value_mut(number) += 1;
                        expected.entry(len).and_modify(|value| *value += 1);
                    }
                    (_, None) if table.insert(hash, &key, len).is_some() => {
                        expected.insert(len, len);
                    }
                    _ => {}
                }
            }
            let cost = |len: &usize| Table::<usize>::ENTRY_SIZE + Key::cost(*len);
            assert_eq!(table.spent, expected.keys().map(cost).sum::<usize>());
        }
    }
}
