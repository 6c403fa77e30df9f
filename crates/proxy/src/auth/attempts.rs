//! How often a client has failed to log in, and how long its next attempt has to wait.
//!
//! The first failures of a minute cost nothing: people mistype, and browsers ask for many things at
//! once with a password that is no longer right. Whoever fails on has one attempt checked per second.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How many failures cost nothing.
const FREE: u32 = 20;

/// Within which time they are counted; after this long without one, all is forgotten.
const PERIOD: Duration = Duration::from_secs(60);

/// How far apart later attempts are checked.
const APART: Duration = Duration::from_secs(1);

/// How long an attempt may have to wait; one that would wait longer is refused.
const MAX_WAIT: Duration = Duration::from_secs(5);

/// How many clients are remembered.
const MAX_CLIENTS: usize = 10_000;

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

/// The clients that failed.
#[derive(Debug, Default)]
pub(super) struct Attempts(Mutex<HashMap<Option<IpAddr>, Record>>);

/// What is known of one client.
#[derive(Clone, Copy, Debug)]
struct Record {
    failures: u32,
    /// When the last one was.
    last: Instant,
    /// When the next attempt may be checked, once they are slowed.
    next: Instant,
}

impl Attempts {
    /// When an attempt of `client` may be checked; Unix sockets are one client.
    pub(super) fn turn(&self, client: Option<IpAddr>, now: Instant) -> Turn {
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(record) = clients.get_mut(&network(client)) else { return Turn::Now };
        if record.failures < FREE || now.saturating_duration_since(record.last) > PERIOD {
            return Turn::Now;
        }
        let at = record.next.max(now);
        if at - now > MAX_WAIT {
            return Turn::Never;
        }
        record.next = at + APART;
        if at == now { Turn::Now } else { Turn::At(at) }
    }

    /// An attempt of `client` failed.
    pub(super) fn failed(&self, client: Option<IpAddr>, now: Instant) {
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let client = network(client);
        if clients.len() >= MAX_CLIENTS && !clients.contains_key(&client) {
            clients.retain(|_, record| now.saturating_duration_since(record.last) <= PERIOD);
            if clients.len() >= MAX_CLIENTS {
                clients.clear();
            }
        }
        let new = Record { failures: 0, last: now, next: now };
        let record = clients.entry(client).or_insert(new);
        if now.saturating_duration_since(record.last) > PERIOD {
            *record = new;
        }
        record.failures = record.failures.saturating_add(1);
        record.last = now;
    }
}

/// One customer has a whole IPv6 network of 64 bits.
fn network(client: Option<IpAddr>) -> Option<IpAddr> {
    client.map(|ip| match ip.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX))),
        ip => ip,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn who_fails_on_waits_and_is_refused_in_the_end() {
        let attempts = Attempts::default();
        let now = Instant::now();
        let (eve, ada) = (ip("192.0.2.1"), ip("192.0.2.2"));
        for _ in 0..FREE {
            assert_eq!(attempts.turn(eve, now), Turn::Now);
            attempts.failed(eve, now);
        }
        assert_eq!(attempts.turn(eve, now), Turn::Now);
        for second in 1..=5 {
            assert_eq!(attempts.turn(eve, now), Turn::At(now + APART * second));
        }
        assert_eq!(attempts.turn(eve, now), Turn::Never);
        assert_eq!(attempts.turn(ada, now), Turn::Now, "others do not wait");
        assert_eq!(attempts.turn(eve, now + APART * 3), Turn::At(now + APART * 6));
        assert_eq!(attempts.turn(eve, now + PERIOD * 2), Turn::Now, "all is forgotten");
    }

    #[test]
    fn failures_that_are_far_apart_cost_nothing() {
        let attempts = Attempts::default();
        let mut now = Instant::now();
        for _ in 0..5 * FREE {
            attempts.failed(None, now);
            now += PERIOD * 2;
        }
        assert_eq!(attempts.turn(None, now), Turn::Now);
    }

    #[test]
    fn a_network_of_ipv6_is_one_client() {
        let attempts = Attempts::default();
        let now = Instant::now();
        for number in 0..FREE {
            attempts.failed(ip(&format!("2001:db8::{number}")), now);
        }
        assert_eq!(attempts.turn(ip("2001:db8::ff"), now), Turn::Now);
        assert_eq!(attempts.turn(ip("2001:db8::fe"), now), Turn::At(now + APART));
        assert_eq!(attempts.turn(ip("2001:db8:0:1::1"), now), Turn::Now);
    }

    #[test]
    fn no_more_than_so_many_clients_are_remembered() {
        let attempts = Attempts::default();
        let now = Instant::now();
        for number in 0..u32::try_from(MAX_CLIENTS).unwrap() + 10 {
            attempts.failed(Some(IpAddr::V4(number.into())), now);
        }
        assert!(attempts.0.lock().unwrap().len() <= MAX_CLIENTS);
    }
}
