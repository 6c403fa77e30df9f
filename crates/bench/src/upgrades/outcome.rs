//! What an upgrade meant for clients, in figures.

use std::fmt;
use std::time::{Duration, Instant};

use crate::load::{Seen, Slot};

/// All that was seen of one upgrade.
pub(super) struct Events {
    /// When the upgrade was asked for, and for how long it was watched from then on.
    pub(super) began: Instant,
    pub(super) watched: Duration,
    /// For how long messages were sent before, and the CPU that the proxy used for that.
    pub(super) steady_for: Duration,
    pub(super) steady: Duration,
    /// CPU of all its processes while it was watched.
    pub(super) cpu: Duration,
    /// What the proxy says of tunnels that have moved.
    pub(super) moved: Option<Moved>,
    pub(super) before: Seen,
    pub(super) during: Seen,
}

/// Tunnels that have moved.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Moved {
    pub(super) tunnels: usize,
    /// How long that took, from the first one frozen to the last one served.
    pub(super) ms: f64,
    /// The longest for which one stood still, if that is told.
    pub(super) still_ms: Option<f64>,
}

/// Reads the last lines of a log in which the old process and the new one tell of tunnels that have moved:
/// `9000 tunnels have moved to new binary process 902 in 31 ms, none was out of work for more than 4 ms` and
/// `9000 tunnels taken over from old process 811 in 33 ms`.
pub(super) fn moved(log: &str) -> Option<Moved> {
    let line = |words: &str| log.lines().rfind(|line| line.contains(words));
    let before = |line: &str, word| line.split_once(word)?.0.rsplit(' ').next()?.parse().ok();
    let (left, came) = (line(" moved to "), line(" taken over from old process ")?);
    let still = left.and_then(|line| line.split_once("for more than "));
    Some(Moved {
        tunnels: before(came, " tunnel")? as usize,
        ms: before(came, " ms")?,
        still_ms: still.and_then(|(_, rest)| before(rest, " ms")),
    })
}

/// The figures of one upgrade.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Outcome {
    pub(super) moved: Option<Moved>,
    /// Tunnels that ended, and messages that were under way on them.
    pub(super) lost: usize,
    pub(super) unanswered: usize,
    /// Messages that were not sent as their client was away.
    pub(super) unsent: usize,
    /// Handshakes to come back, and those that failed.
    pub(super) handshakes: usize,
    pub(super) failed: usize,
    /// Seconds from the upgrade to the last client that came back, if one was away.
    pub(super) back_after: Option<f64>,
    /// Clients without a tunnel at the end.
    pub(super) missing: usize,
    /// Delays of messages, before and during the upgrade.
    pub(super) before: Delays,
    pub(super) during: Delays,
    /// CPU seconds beyond those of the same messages without an upgrade: of the proxy, and of clients and app server.
    pub(super) proxy_cpu: f64,
    pub(super) load_cpu: f64,
    /// What the proxy and the load use without an upgrade, in percent of a core.
    pub(super) proxy_steady: f64,
    pub(super) load_steady: f64,
    pub(super) slots: Vec<Slot>,
}

/// How much later than planned echoes were complete, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Delays {
    pub(super) median: f64,
    pub(super) p99: f64,
    pub(super) p999: f64,
    pub(super) longest: f64,
}

impl Delays {
    fn of(seen: &mut Seen) -> Self {
        let mut at = |share| seen.latencies.percentile_us(share).unwrap_or_default() / 1000.0;
        Self { median: at(0.5), p99: at(0.99), p999: at(0.999), longest: at(1.0) }
    }
}

impl Outcome {
    pub(super) fn new(events: Events) -> Self {
        let Events { began, watched, steady_for, steady, cpu, moved, mut before, mut during } =
            events;
        let share = |of: Duration| of.as_secs_f64() / steady_for.as_secs_f64();
        let beyond =
            |all: Duration, of: Duration| all.as_secs_f64() - share(of) * watched.as_secs_f64();
        Self {
            moved,
            lost: during.lost,
            unanswered: during.unanswered,
            unsent: during.unsent,
            handshakes: during.handshakes,
            failed: during.failed,
            back_after: during.back.map(|back| (back - began).as_secs_f64()),
            missing: during.away,
            before: Delays::of(&mut before),
            during: Delays::of(&mut during),
            proxy_cpu: beyond(cpu, steady),
            load_cpu: beyond(during.busy, before.busy),
            proxy_steady: 100.0 * share(steady),
            load_steady: 100.0 * share(before.busy),
            slots: during.slots,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.moved {
            Some(Moved { tunnels, ms, .. }) => write!(f, "{tunnels} tunnels moved in {ms} ms, ")?,
            None => write!(f, "none moved, ")?,
        }
        write!(
            f,
            "{} lost, {} handshakes ({} failed), longest delay {:.1} ms ({:.1} before), {:.2} s CPU more",
            self.lost,
            self.handshakes,
            self.failed,
            self.during.longest,
            self.before.longest,
            self.proxy_cpu
        )?;
        if self.missing > 0 { write!(f, ", {} not back", self.missing) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Latencies;

    #[test]
    fn the_log_tells_what_has_moved() {
        let log = "[notice] 7#7: start new binary process 902\n\
                   [notice] 7#7: 9000 tunnels have moved to new binary process 902 in 31 ms, none was out of work for more than 4.5 ms\n\
                   [notice] 9#9: 9000 tunnels taken over from old process 7 in 33.1 ms\n\
                   [notice] 7#7: exit\n";
        let still_ms = Some(4.5);
        assert_eq!(moved(log), Some(Moved { tunnels: 9000, ms: 33.1, still_ms }));
        let one = "[notice] 1 tunnel taken over from old process 902 in 0.4 ms";
        assert_eq!(moved(one), Some(Moved { tunnels: 1, ms: 0.4, still_ms: None }));
        assert_eq!(moved("[notice] 7#7: start new binary process 902"), None);
    }

    #[test]
    fn what_is_spent_anyway_does_not_count() {
        let seen = |ms: &[u64], busy| {
            let mut latencies = Latencies::default();
            ms.iter().for_each(|&ms| latencies.add(Duration::from_millis(ms)));
            Seen { latencies, busy: Duration::from_millis(busy), ..Seen::default() }
        };
        let began = Instant::now();
        let back = Some(began + Duration::from_secs(7));
        let outcome = Outcome::new(Events {
            began,
            watched: Duration::from_secs(20),
            steady_for: Duration::from_secs(10),
            steady: Duration::from_secs(1),
            cpu: Duration::from_secs(6),
            moved: None,
            before: seen(&[1, 2, 3], 1_000),
            during: Seen { lost: 3, back, ..seen(&[1, 2, 40], 5_000) },
        });
        assert!((outcome.proxy_cpu - 4.0).abs() < 1e-9 && (outcome.load_cpu - 3.0).abs() < 1e-9);
        assert_eq!((outcome.before.longest, outcome.during.longest), (3.0, 40.0));
        assert_eq!((outcome.lost, outcome.back_after), (3, Some(7.0)));
        assert!((outcome.proxy_steady - 10.0).abs() < 1e-9);
    }
}
