//! How often logging in has failed, and how long the next attempt has to wait.
//!
//! The first failures of a minute cost nothing: people mistype, and browsers ask for many things at
//! once with a password that is no longer right. Who fails on has one attempt for that user checked
//! per second. Behind one address there may be many, so all its users together have more.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How many failures of a client cost nothing, and how far apart later attempts are checked.
#[derive(Clone, Copy, Debug)]
struct Bound {
    free: u32,
    apart: Duration,
}

/// For one user.
const OF_USER: Bound = Bound { free: 20, apart: Duration::from_secs(1) };

/// For all users together.
const OF_CLIENT: Bound = Bound { free: 100, apart: Duration::from_millis(200) };

/// Within which time they are counted; after this long without one, all is forgotten.
const PERIOD: Duration = Duration::from_secs(60);

/// How long an attempt may have to wait; one that would wait longer is refused.
const MAX_WAIT: Duration = Duration::from_secs(5);

/// How many clients, and how many of their users, are remembered.
const MAX_REMEMBERED: usize = 10_000;

/// When an attempt may be checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// At once.
    Now,
    /// Then.
    At(Instant),
    /// Too many are waiting already.
    Never,
}

/// Who fails.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    /// Names may be long, so that hashes of them are kept; nobody else knows the key.
    names: RandomState,
    tables: Mutex<Tables>,
}

#[derive(Debug, Default)]
struct Tables {
    users: HashMap<(Option<IpAddr>, u64), Record>,
    clients: HashMap<Option<IpAddr>, Record>,
}

/// What is known of one client, or of one of its users.
#[derive(Clone, Copy, Debug)]
struct Record {
    failures: u32,
    /// When the last one was.
    last: Instant,
    /// When the next attempt may be checked, once they are slowed.
    next: Instant,
}

impl Record {
    fn is_slowed(&self, bound: Bound, now: Instant) -> bool {
        self.failures >= bound.free && now.saturating_duration_since(self.last) <= PERIOD
    }
}

impl Attempts {
    /// When an attempt of `client` to log in as `user` may be checked; Unix sockets are one client.
    pub(super) fn turn(&self, client: Option<IpAddr>, user: &[u8], now: Instant) -> Turn {
        let (client, user) = (network(client), self.names.hash_one(user));
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let Tables { users, clients } = &mut *tables;
        let slowed =
            [(users.get_mut(&(client, user)), OF_USER), (clients.get_mut(&client), OF_CLIENT)];
        let slowed = slowed.map(|(record, bound)| {
            record.filter(|record| record.is_slowed(bound, now)).map(|record| (record, bound))
        });
        let nexts = slowed.iter().flatten().map(|(record, _)| record.next);
        let at = nexts.fold(now, Instant::max);
        if at - now > MAX_WAIT {
            return Turn::Never;
        }
        for (record, bound) in slowed.into_iter().flatten() {
            // From where its own turns are: one who waits for the other bound takes no later ones.
            record.next = record.next.max(now) + bound.apart;
        }
        if at == now { Turn::Now } else { Turn::At(at) }
    }

    /// An attempt of `client` to log in as `user` failed.
    pub(super) fn failed(&self, client: Option<IpAddr>, user: &[u8], now: Instant) {
        let (client, user) = (network(client), self.names.hash_one(user));
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        count(&mut tables.users, (client, user), now);
        count(&mut tables.clients, client, now);
    }
}

fn count<K: Eq + Hash>(records: &mut HashMap<K, Record>, key: K, now: Instant) {
    if records.len() >= MAX_REMEMBERED && !records.contains_key(&key) {
        records.retain(|_, record| now.saturating_duration_since(record.last) <= PERIOD);
        if records.len() >= MAX_REMEMBERED {
            records.clear();
        }
    }
    let new = Record { failures: 0, last: now, next: now };
    let record = records.entry(key).or_insert(new);
    if now.saturating_duration_since(record.last) > PERIOD {
        *record = new;
    }
    record.failures = record.failures.saturating_add(1);
    record.last = now;
}

/// One customer has a whole IPv6 network of 64 bits.
pub(super) fn network(client: Option<IpAddr>) -> Option<IpAddr> {
    client.map(|ip| match ip.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX))),
        ip => ip,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const FREE: u32 = OF_USER.free;
    const APART: Duration = OF_USER.apart;

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn who_fails_on_waits_and_is_refused_in_the_end() {
        let attempts = Attempts::default();
        let now = Instant::now();
        let (here, there) = (ip("192.0.2.1"), ip("192.0.2.2"));
        for _ in 0..FREE {
            assert_eq!(attempts.turn(here, b"eve", now), Turn::Now);
            attempts.failed(here, b"eve", now);
        }
        assert_eq!(attempts.turn(here, b"eve", now), Turn::Now);
        for second in 1..=5 {
            assert_eq!(attempts.turn(here, b"eve", now), Turn::At(now + APART * second));
        }
        assert_eq!(attempts.turn(here, b"eve", now), Turn::Never);
        assert_eq!(attempts.turn(here, b"ada", now), Turn::Now, "another behind this address");
        assert_eq!(attempts.turn(there, b"eve", now), Turn::Now, "others do not wait");
        assert_eq!(attempts.turn(here, b"eve", now + APART * 3), Turn::At(now + APART * 6));
        assert_eq!(attempts.turn(here, b"eve", now + PERIOD * 2), Turn::Now, "all is forgotten");
    }

    #[test]
    fn who_guesses_names_is_slowed_as_a_whole() {
        let attempts = Attempts::default();
        let now = Instant::now();
        let client = ip("192.0.2.1");
        for number in 0..OF_CLIENT.free {
            attempts.failed(client, &number.to_be_bytes(), now);
        }
        assert_eq!(attempts.turn(client, b"a", now), Turn::Now);
        assert_eq!(attempts.turn(client, b"b", now), Turn::At(now + OF_CLIENT.apart));
        assert_eq!(attempts.turn(ip("192.0.2.2"), b"b", now), Turn::Now);
    }

    #[test]
    fn failures_that_are_far_apart_cost_nothing() {
        let attempts = Attempts::default();
        let mut now = Instant::now();
        for _ in 0..5 * FREE {
            attempts.failed(None, b"eve", now);
            now += PERIOD * 2;
        }
        assert_eq!(attempts.turn(None, b"eve", now), Turn::Now);
    }

    #[test]
    fn a_network_of_ipv6_is_one_client() {
        let attempts = Attempts::default();
        let now = Instant::now();
        for number in 0..FREE {
            attempts.failed(ip(&format!("2001:db8::{number}")), b"eve", now);
        }
        assert_eq!(attempts.turn(ip("2001:db8::ff"), b"eve", now), Turn::Now);
        assert_eq!(attempts.turn(ip("2001:db8::fe"), b"eve", now), Turn::At(now + APART));
        assert_eq!(attempts.turn(ip("2001:db8:0:1::1"), b"eve", now), Turn::Now);
    }

    #[test]
    fn no_more_than_so_many_are_remembered() {
        let attempts = Attempts::default();
        let now = Instant::now();
        for number in 0..u32::try_from(MAX_REMEMBERED).unwrap() + 10 {
            attempts.failed(Some(IpAddr::V4(number.into())), b"eve", now);
        }
        let tables = attempts.tables.lock().unwrap();
        assert!(tables.clients.len() <= MAX_REMEMBERED && tables.users.len() <= MAX_REMEMBERED);
    }
}
