//! The counts of `limit_conn`.

use std::sync::Arc;

use super::table::{Table, TooLarge};
use super::{KeyState, Shards, ZoneName};

/// The table of one zone: how many requests and tunnels of each key are in progress. A key that has none is not there.
#[derive(Debug)]
pub(crate) struct ConnectionZone {
    name: ZoneName,
    shards: Shards<Table<u32>>,
}

/// Why a request may not be in progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Occupied {
    /// As many as may be are already.
    Limit,
    /// There is no room for its key.
    NoRoom,
}

impl ConnectionZone {
    pub(super) fn new(name: ZoneName, size: u64) -> Result<Self, TooLarge> {
        Ok(Self { name, shards: Shards::new(size, Table::new)? })
    }

    /// What it is known by.
    pub(super) fn name(&self) -> &ZoneName {
        &self.name
    }

    /// Counts one more of `key`, until the answer is dropped, unless `most` are counted.
    pub(crate) fn enter(self: &Arc<Self>, key: &[u8], most: u16) -> Result<Held, Occupied> {
        self.count(key, u32::from(most))
    }

    /// Counts one that has been let in elsewhere, however many there are; not if there is no room for its key.
    pub(crate) fn take_over(self: &Arc<Self>, key: &[u8]) -> Option<Held> {
        self.count(key, u32::MAX).ok()
    }

    fn count(self: &Arc<Self>, key: &[u8], most: u32) -> Result<Held, Occupied> {
        let place = self.shards.place(key);
        let mut table = self.shards.lock(place.shard);
        let number = match table.find(place.hash, key) {
            Some(number) => {
                let count = table.value_mut(number);
                if *count >= most {
                    return Err(Occupied::Limit);
                }
                *count += 1;
                number
            }
            None => table.insert(place.hash, key, 1).ok_or(Occupied::NoRoom)?,
        };
        drop(table);
        Ok(Held { zone: Arc::clone(self), shard: place.shard, number })
    }
}

/// One request or tunnel in progress.
#[derive(Debug)]
pub(crate) struct Held {
    zone: Arc<ConnectionZone>,
    shard: u32,
    number: u32,
}

impl Held {
    /// What another process has to know to count it.
    pub(crate) fn state(&self) -> KeyState<'_> {
        let table = self.zone.shards.lock(self.shard);
        self.zone.name.of(table.key(self.number).to_vec().into())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut table = self.zone.shards.lock(self.shard);
        let count = table.value_mut(self.number);
        *count -= 1;
        if *count == 0 {
            table.remove(self.number);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn as_many_as_may_be_are_in_progress() {
        let zone = Arc::new(ConnectionZone::new(ZoneName::default(), 32 << 10).unwrap());
        let first = zone.enter(b"a", 2).unwrap();
        let second = zone.enter(b"a", 2).unwrap();
        assert_eq!(zone.enter(b"a", 2).unwrap_err(), Occupied::Limit);
        assert!(zone.enter(b"b", 2).is_ok());
        drop(first);
        assert!(zone.enter(b"a", 2).is_ok());
        drop(second);
        assert_eq!(zone.shards.lock(0).find(zone.shards.place(b"a").hash, b"a"), None);
    }

    #[test]
    fn one_that_was_let_in_elsewhere_counts_beyond_the_limit() {
        let zone = |size| Arc::new(ConnectionZone::new(ZoneName::default(), size).unwrap());
        let (old, new) = (zone(32 << 10), zone(64 << 10));
        let long = [b'k'; 300];
        for key in [&b"a"[..], b"", &long] {
            let held = old.enter(key, 1).unwrap();
            let state = held.state();
            assert!(state.is_of(new.name()));
            let taken: Vec<_> = (0..3).filter_map(|_| new.take_over(state.key())).collect();
            assert_eq!(taken.len(), 3);
            assert_eq!(new.enter(key, 3).unwrap_err(), Occupied::Limit);
            drop(taken);
            assert!(new.enter(key, 1).is_ok());
        }
        let held: Vec<_> = (0u32..).map_while(|key| new.take_over(&key.to_be_bytes())).collect();
        assert!(held.len() > 1_000, "{}", held.len());
    }

    #[test]
    fn a_full_zone_takes_known_keys_only() {
        let zone = Arc::new(ConnectionZone::new(ZoneName::default(), 32 << 10).unwrap());
        let mut held = Vec::new();
        let refused = (0u32..).find_map(|key| match zone.enter(&key.to_be_bytes(), 9) {
            Ok(one) => {
                held.push(one);
                None
            }
            Err(reason) => Some(reason),
        });
        assert_eq!(refused, Some(Occupied::NoRoom));
        // nginx has room for 64 bytes a key here, in six of eight pages.
        assert!(held.len() >= 6 * 4096 / 64, "{}", held.len());
        assert!(zone.enter(&0u32.to_be_bytes(), 9).is_ok());
        drop(held);
        assert!(zone.enter(b"another", 9).is_ok());
    }
}
