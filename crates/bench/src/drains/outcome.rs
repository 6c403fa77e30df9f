//! What a reload meant for clients and for the app server, in figures.

use std::fmt;
use std::time::{Duration, Instant};

use super::clients::{End, Ending, Entry, History};
use crate::stats::Spread;

/// All that was seen of one reload.
#[derive(Debug)]
pub(super) struct Events {
    /// When the reload was asked for.
    pub(super) began: Instant,
    /// What clients did since.
    pub(super) clients: History,
    /// When the app server granted WebSockets since.
    pub(super) arrivals: Vec<Instant>,
    /// CPU time of the proxy, about every second, from [`STEADY`](super::STEADY) before the reload on.
    pub(super) cpu: Vec<(Instant, Duration)>,
    /// Clients whose WebSocket did not end, and those that had none at the end.
    pub(super) kept: usize,
    pub(super) missing: usize,
}

/// The figures of one reload.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Outcome {
    /// WebSockets that ended with a Close and its code between two frames.
    pub(super) closed: usize,
    /// The codes of these, each once, in order.
    pub(super) codes: Vec<u16>,
    /// Those that ended between two frames without a Close.
    pub(super) cut: usize,
    /// Those that ended inside a frame.
    pub(super) cut_in_frame: usize,
    /// Those on which something came that should not.
    pub(super) broken: usize,
    /// Those that ended inside a message, in whatever way.
    pub(super) in_message: usize,
    /// Messages without an answer, or with a part of it.
    pub(super) unanswered: usize,
    /// The fewest and the most ends in a second, over the whole seconds from the first end on.
    pub(super) pace: (usize, usize),
    /// The most ends, tried handshakes and handshakes at the app server within any second.
    pub(super) most_ends: usize,
    pub(super) most_tried: usize,
    pub(super) most_arrived: usize,
    /// Handshakes that were refused with a time to come again, and those that failed.
    pub(super) refused: usize,
    pub(super) failed: usize,
    /// Granted handshakes whose TLS session was resumed.
    pub(super) resumed: usize,
    /// How long the slowest granted handshake took, in seconds.
    pub(super) slowest: f64,
    /// Seconds from the reload until all were back.
    pub(super) back_after: f64,
    /// Clients whose WebSocket did not end, and those that had none at the end.
    pub(super) kept: usize,
    pub(super) missing: usize,
    /// Seconds for which clients were away: the median and the longest.
    pub(super) away: (f64, f64),
    /// CPU of the proxy before the reload, and in its busiest second since, in percent of a core.
    pub(super) steady: f64,
    pub(super) busiest: f64,
    /// What happened in each second from the reload on.
    pub(super) seconds: Vec<Second>,
}

/// What happened in one second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Second {
    pub(super) ends: usize,
    pub(super) tried: usize,
    pub(super) arrived: usize,
}

const SECOND: Duration = Duration::from_secs(1);

impl Outcome {
    pub(super) fn new(events: &Events) -> Self {
        let History { attempts, ends, away } = &events.clients;
        let count = |with: &dyn Fn(&End) -> bool| ends.iter().filter(|end| with(end)).count();
        let mut codes: Vec<u16> = ends.iter().filter_map(|end| code(end.ending)).collect();
        let closed = codes.len();
        codes.sort_unstable();
        codes.dedup();
        let ended: Vec<Instant> = ends.iter().map(|end| end.at).collect();
        let tried: Vec<Instant> = attempts.iter().map(|attempt| attempt.began).collect();
        let granted = attempts.iter().filter(|it| matches!(it.entry, Entry::Granted { .. }));
        let entries = |with: &dyn Fn(Entry) -> bool| {
            attempts.iter().filter(|attempt| with(attempt.entry)).count()
        };
        let back = granted.clone().map(|attempt| attempt.ended).max();
        let slowest = granted.map(|attempt| attempt.ended - attempt.began).max();
        let away: Vec<f64> = away.iter().map(Duration::as_secs_f64).collect();
        let away = Spread::of(&away).map_or((0.0, 0.0), |spread| (spread.median, spread.max));
        let (steady, busiest) = cpu(&events.cpu, events.began);
        Self {
            closed,
            codes,
            cut: count(&|end| end.ending == Ending::Cut),
            cut_in_frame: count(&|end| end.ending == Ending::InFrame),
            broken: count(&|end| end.ending == Ending::Broken),
            in_message: count(&|end| end.in_message),
            unanswered: count(&|end| end.unanswered),
            pace: pace(&ended),
            most_ends: most(&ended),
            most_tried: most(&tried),
            most_arrived: most(&events.arrivals),
            refused: entries(&|entry| matches!(entry, Entry::Refused(_))),
            failed: entries(&|entry| entry == Entry::Failed),
            resumed: entries(&|entry| entry == Entry::Granted { resumed: true }),
            slowest: slowest.unwrap_or_default().as_secs_f64(),
            back_after: back.map_or(0.0, |back| (back - events.began).as_secs_f64()),
            kept: events.kept,
            missing: events.missing,
            away,
            steady,
            busiest,
            seconds: seconds(events.began, &ended, &tried, &events.arrivals),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} closed {:?}, {} cut, {} inside a frame, {} broken; at most {} ends, {} handshakes and {} \
             arrivals a second; {} refused, {} failed; all back after {:.1} s",
            self.closed,
            self.codes,
            self.cut,
            self.cut_in_frame,
            self.broken,
            self.most_ends,
            self.most_tried,
            self.most_arrived,
            self.refused,
            self.failed,
            self.back_after
        )?;
        if self.missing > 0 { write!(f, " but for {}", self.missing) } else { Ok(()) }
    }
}

fn code(ending: Ending) -> Option<u16> {
    match ending {
        Ending::Closed(code) => Some(code),
        _ => None,
    }
}

/// The most of these times within a second, wherever it begins.
fn most(times: &[Instant]) -> usize {
    let mut times = times.to_vec();
    times.sort_unstable();
    let mut first = 0;
    let within = |(last, at): (usize, &Instant)| {
        while *at - times[first] >= SECOND {
            first += 1;
        }
        last + 1 - first
    };
    times.iter().enumerate().map(within).max().unwrap_or(0)
}

/// The fewest and the most in a second, over the whole seconds from the first on; all of them if they took
/// no second.
fn pace(times: &[Instant]) -> (usize, usize) {
    let (Some(first), Some(last)) = (times.iter().min(), times.iter().max()) else { return (0, 0) };
    // The last one of an even pace is one interval short of its second.
    let whole = ((*last - *first).as_secs_f64().round() as usize).max(1);
    let mut counts = vec![0; whole];
    for at in times {
        if let Some(count) = counts.get_mut((*at - *first).as_secs() as usize) {
            *count += 1;
        }
    }
    (counts.iter().copied().min().unwrap_or(0), counts.iter().copied().max().unwrap_or(0))
}

/// CPU before the reload, and in the busiest second since, in percent of a core.
fn cpu(samples: &[(Instant, Duration)], began: Instant) -> (f64, f64) {
    let percent = |from: &(Instant, Duration), to: &(Instant, Duration)| {
        100.0 * to.1.saturating_sub(from.1).as_secs_f64() / (to.0 - from.0).as_secs_f64()
    };
    let (before, since): (Vec<_>, Vec<_>) = samples.iter().partition(|(at, _)| *at <= began);
    let (Some(first), Some(last)) = (before.first(), before.last()) else { return (0.0, 0.0) };
    let steady = if before.len() > 1 { percent(first, last) } else { 0.0 };
    let since: Vec<_> = [*last].into_iter().chain(since).collect();
    let busiest = since.windows(2).map(|pair| percent(&pair[0], &pair[1])).fold(0.0, f64::max);
    (steady, busiest)
}

fn seconds(
    began: Instant,
    ended: &[Instant],
    tried: &[Instant],
    arrived: &[Instant],
) -> Vec<Second> {
    let mut seconds = Vec::new();
    let mut add = |times: &[Instant], one: &dyn Fn(&mut Second)| {
        for at in times {
            let second = at.saturating_duration_since(began).as_secs() as usize;
            if seconds.len() <= second {
                seconds.resize(second + 1, Second::default());
            }
            one(&mut seconds[second]);
        }
    };
    add(ended, &|second| second.ends += 1);
    add(tried, &|second| second.tried += 1);
    add(arrived, &|second| second.arrived += 1);
    seconds
}

#[cfg(test)]
mod tests {
    use super::super::clients::Attempt;
    use super::*;

    #[test]
    fn the_most_in_a_second_is_found_wherever_it_begins() {
        let began = Instant::now();
        let at = |ms| began + Duration::from_millis(ms);
        assert_eq!(most(&[]), 0);
        assert_eq!(most(&[at(1_600), at(0), at(700), at(1_500), at(1_000)]), 4);
        assert_eq!(most(&[at(0), at(1_000), at(2_000)]), 1);
    }

    #[test]
    fn a_pace_is_counted_from_the_first_on() {
        let began = Instant::now();
        let every = |ms: u64, count: u64| -> Vec<Instant> {
            (0..count).map(|index| began + Duration::from_millis(500 + ms * index)).collect()
        };
        assert_eq!(pace(&every(4, 5_000)), (250, 250));
        assert_eq!(pace(&every(0, 5_000)), (5_000, 5_000));
        let mut uneven = every(100, 30);
        uneven.drain(12..17);
        assert_eq!(pace(&uneven), (5, 10));
    }

    #[test]
    fn cpu_is_that_before_and_that_of_the_busiest_second() {
        let began = Instant::now() + Duration::from_secs(10);
        let samples: Vec<_> = [(8, 100), (9, 250), (10, 300), (11, 900), (12, 1_200)]
            .into_iter()
            .map(|(second, ms)| {
                let at = began + Duration::from_secs(second) - Duration::from_secs(10);
                (at, Duration::from_millis(ms))
            })
            .collect();
        let (steady, busiest) = cpu(&samples, began);
        assert!((steady - 10.0).abs() < 0.1 && (busiest - 60.0).abs() < 0.1, "{steady} {busiest}");
        assert_eq!(cpu(&[], began), (0.0, 0.0));
    }

    #[test]
    fn every_end_and_every_handshake_is_counted_once() {
        let began = Instant::now();
        let at = |ms| began + Duration::from_millis(ms);
        let end =
            |ms, ending, in_message| End { at: at(ms), ending, in_message, unanswered: in_message };
        let attempt = |from, to, entry| Attempt { began: at(from), ended: at(to), entry };
        let clients = History {
            ends: vec![
                end(100, Ending::Closed(1012), false),
                end(200, Ending::Closed(1001), true),
                end(300, Ending::Closed(1001), false),
                end(1_400, Ending::Cut, false),
                end(1_500, Ending::InFrame, true),
                end(2_600, Ending::Broken, false),
            ],
            attempts: vec![
                attempt(150, 160, Entry::Refused(Duration::from_secs(1))),
                attempt(1_300, 1_900, Entry::Granted { resumed: true }),
                attempt(1_300, 1_310, Entry::Failed),
                attempt(2_300, 2_400, Entry::Granted { resumed: false }),
            ],
            away: vec![Duration::from_millis(1_800), Duration::from_millis(2_200)],
        };
        let arrivals = vec![at(1_850), at(2_390)];
        let events = Events { began, clients, arrivals, cpu: Vec::new(), kept: 1, missing: 4 };
        let outcome = Outcome::new(&events);
        assert_eq!((outcome.closed, &outcome.codes[..]), (3, &[1001, 1012][..]));
        assert_eq!((outcome.cut, outcome.cut_in_frame, outcome.broken), (1, 1, 1));
        assert_eq!((outcome.in_message, outcome.unanswered), (2, 2));
        assert_eq!((outcome.refused, outcome.failed, outcome.resumed), (1, 1, 1));
        assert_eq!((outcome.most_ends, outcome.most_tried, outcome.most_arrived), (3, 2, 2));
        assert_eq!((outcome.slowest, outcome.back_after), (0.6, 2.4));
        assert_eq!((outcome.kept, outcome.missing), (1, 4));
        assert_eq!(outcome.away, (2.0, 2.2));
        let seconds = [(3, 1, 0), (2, 2, 1), (1, 1, 1)].map(|(ends, tried, arrived)| Second {
            ends,
            tried,
            arrived,
        });
        assert_eq!(outcome.seconds, seconds);
    }
}
