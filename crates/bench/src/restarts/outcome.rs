//! What a restart meant for clients, in figures.

use std::fmt;
use std::time::{Duration, Instant};

use super::clients::{Attempt, History};
use super::servers::{Change, SERVERS};

/// The figures of one restart.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Outcome {
    /// Handshakes that were tried while no server was there, some of the time at least.
    pub(super) tried_without: usize,
    /// Those of them that failed.
    pub(super) failed_without: usize,
    /// Handshakes that were tried while some server was there all the time.
    pub(super) tried: usize,
    /// Those of them that failed.
    pub(super) failed: usize,
    /// Seconds from the first moment at which clients could be back until all of them were. Of
    /// several restarts the longest.
    pub(super) back_after: f64,
    /// Clients that were not back at the end.
    pub(super) missing: usize,
}

impl Outcome {
    pub(super) fn new(
        clients: &History,
        servers: &[Change],
        count: usize,
        began: Instant,
        ended: Instant,
    ) -> Self {
        let present = presence(servers, began);
        let with = |attempt: &&Attempt| {
            present
                .iter()
                .any(|&(from, to)| from <= attempt.began && to.is_none_or(|to| attempt.ended < to))
        };
        let (with, without): (Vec<_>, Vec<_>) = clients.attempts.iter().partition(with);
        let failed =
            |attempts: &[&Attempt]| attempts.iter().filter(|attempt| !attempt.succeeded).count();
        let connected = clients.connected.last().map_or(count, |(_, connected)| *connected);
        Self {
            tried_without: without.len(),
            failed_without: failed(&without),
            tried: with.len(),
            failed: failed(&with),
            back_after: longest_absence(clients, &present, servers, count, ended).as_secs_f64(),
            missing: count - connected.min(count),
        }
    }

    /// The share of handshakes that failed although a server was there, in percent.
    pub(super) fn failed_share(&self) -> f64 {
        100.0 * self.failed as f64 / self.tried.max(1) as f64
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {} handshakes failed while a server was there ({} of {} before); all back after \
             {:.1} s",
            self.failed, self.tried, self.failed_without, self.tried_without, self.back_after
        )?;
        if self.missing > 0 { write!(f, " but for {}", self.missing) } else { Ok(()) }
    }
}

/// The times between which at least one server was there; the last one lasts.
fn presence(servers: &[Change], began: Instant) -> Vec<(Instant, Option<Instant>)> {
    let mut up = [true; SERVERS];
    let mut present = vec![(began, None)];
    for change in servers {
        let before = up.contains(&true);
        up[change.server] = change.is_up;
        match (before, up.contains(&true)) {
            (true, false) => present.last_mut().expect("there is one").1 = Some(change.at),
            (false, true) => present.push((change.at, None)),
            _ => {}
        }
    }
    present
}

/// The longest of the times from when on clients could be back until all were: from the first
/// server's return if there was none, else from each time that one went.
fn longest_absence(
    clients: &History,
    present: &[(Instant, Option<Instant>)],
    servers: &[Change],
    count: usize,
    ended: Instant,
) -> Duration {
    let returns: Vec<_> = present.iter().skip(1).map(|(from, _)| *from).collect();
    let stops = servers.iter().filter(|change| !change.is_up).map(|change| change.at);
    let starts: Vec<_> = if returns.is_empty() { stops.collect() } else { returns };
    let until = |index: usize| starts.get(index + 1).copied().unwrap_or(ended);
    let absence = |(index, from): (usize, &Instant)| {
        let within = |at: Instant| *from <= at && at < until(index);
        let mut changes = clients.connected.iter().filter(|(at, _)| within(*at));
        let Some((at, connected)) = changes.next_back() else { return Duration::ZERO };
        let back = if *connected >= count { *at } else { until(index) };
        back - *from
    };
    starts.iter().enumerate().map(absence).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(began: Instant, second: u64, server: usize, is_up: bool) -> Change {
        Change { at: began + Duration::from_secs(second), server, is_up }
    }

    fn attempt(began: Instant, from: u64, to: u64, succeeded: bool) -> Attempt {
        let at = |seconds| began + Duration::from_secs(seconds);
        Attempt { began: at(from), ended: at(to), succeeded }
    }

    #[test]
    fn only_attempts_with_a_server_all_the_time_count_against_a_proxy() {
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let mut servers: Vec<_> =
            (0..SERVERS).map(|server| change(began, 1, server, false)).collect();
        servers.extend((0..SERVERS).map(|server| change(began, 5 + server as u64, server, true)));
        let clients = History {
            attempts: vec![
                attempt(began, 0, 0, true),
                attempt(began, 0, 2, false),
                attempt(began, 3, 4, false),
                attempt(began, 4, 6, true),
                attempt(began, 5, 6, false),
                attempt(began, 7, 8, true),
            ],
            connected: vec![(at(1), 0), (at(6), 1), (at(8), 2)],
        };
        let outcome = Outcome::new(&clients, &servers, 2, began, at(20));
        let expected = Outcome {
            tried_without: 3,
            failed_without: 2,
            tried: 3,
            failed: 1,
            back_after: 3.0,
            missing: 0,
        };
        assert_eq!(outcome, expected);
        let missing = Outcome::new(&clients, &servers, 3, began, at(20));
        assert_eq!((missing.missing, missing.back_after), (1, 15.0));
    }

    #[test]
    fn in_a_rolling_restart_each_stop_is_waited_for() {
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let servers = [
            change(began, 1, 0, false),
            change(began, 4, 0, true),
            change(began, 10, 1, false),
            change(began, 14, 1, true),
        ];
        let connected = vec![(at(1), 1), (at(3), 2), (at(10), 1), (at(16), 2)];
        let clients = History { attempts: vec![attempt(began, 2, 3, true)], connected };
        let outcome = Outcome::new(&clients, &servers, 2, began, at(20));
        assert_eq!((outcome.tried, outcome.back_after), (1, 6.0));
    }
}
