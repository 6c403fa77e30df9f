//! Pings of our own in tunnels.

use wssgate_metrics::Seconds;
use wssgate_ws::conversation::{KeepAlive, PerSide, Policy};

use super::*;

pub(super) const INTERVAL: Duration = Duration::from_secs(5);
pub(super) const TIMEOUT: Duration = Duration::from_secs(2);

impl Rig {
    /// A WebSocket whose sides are asked whether they are there.
    pub(super) fn asked(&mut self) -> (Peer, Peer) {
        let keep_alive = KeepAlive {
            interval_ms: INTERVAL.as_millis() as u64,
            pong_timeout_ms: Some(TIMEOUT.as_millis() as u64),
        };
        let policy = Policy { keep_alive: PerSide::both(Some(keep_alive)), ..Policy::default() };
        self.hand_over(|handover| {
            handover.protocol = Protocol::WebSocket(conversation::Settings {
                policy: Arc::new(policy),
                mark: *b"mark",
                ..conversation::Settings::default()
            });
        })
    }

    /// Lets an interval go by and takes the pings that both sides get; the upstream's payload comes unmasked.
    pub(super) fn pings(&mut self, client: &mut Peer, upstream: &mut Peer) -> [Vec<u8>; 2] {
        self.pass(INTERVAL + Duration::from_millis(200));
        self.until("pings", || {
            client.poll();
            upstream.poll();
            client.received.len() >= 10 && upstream.received.len() >= 14
        });
        let at_client = std::mem::take(&mut client.received);
        let at_upstream = std::mem::take(&mut upstream.received);
        assert_eq!((&at_client[..2], at_client.len()), (&b"\x89\x08"[..], 10));
        assert_eq!((&at_upstream[..2], at_upstream.len()), (&b"\x89\x88"[..], 14));
        let mut unmasked = at_upstream[6..].to_vec();
        (0..8).for_each(|at| unmasked[at] ^= at_upstream[2 + at % 4]);
        [at_client[2..].to_vec(), unmasked]
    }
}

impl Rig {
    /// The same, and both answer.
    pub(super) fn answered_pings(&mut self, client: &mut Peer, upstream: &mut Peer) {
        let [to_client, to_upstream] = self.pings(client, upstream);
        client.send(&masked_pong(&to_client));
        upstream.send(&pong(&to_upstream));
        self.until_answered(&BOTH);
    }

    /// Steps until nothing is asked of these sides any more.
    pub(super) fn until_answered(&mut self, sides: &[wssgate_ws::Side]) {
        let begin = Instant::now();
        let owes = |rig: &mut Self| {
            let mut open = rig.engine.conversations();
            open.any(|it| sides.iter().any(|&side| it.late_ms(side, u64::MAX).is_some()))
        };
        while owes(self) {
            assert!(begin.elapsed() < PATIENCE, "a pong was not heard");
            self.step();
        }
    }
}

const BOTH: [wssgate_ws::Side; 2] = [wssgate_ws::Side::Client, wssgate_ws::Side::Server];

fn pong(payload: &[u8]) -> Vec<u8> {
    [b"\x8a\x08", payload].concat()
}

fn masked_pong(payload: &[u8]) -> Vec<u8> {
    [b"\x8a\x88\0\0\0\0", payload].concat()
}

#[test]
fn pings_are_answered_and_their_pongs_go_nowhere() {
    let mut rig = Rig::new();
    let (mut client, mut upstream) = rig.asked();
    for _ in 0..3 {
        let [to_client, to_upstream] = rig.pings(&mut client, &mut upstream);
        assert!(to_client.starts_with(b"mark") && to_client == to_upstream);
        // One in two pieces, and frames of theirs around.
        let pong = masked_pong(&to_client);
        client.send(&pong[..9]);
        rig.step();
        client.send(&[&pong[9..], b"\x82\x82\0\0\0\0hi"].concat());
        rig.expect(&mut upstream, b"\x82\x82\0\0\0\0hi");
        upstream.send(&[b"\x81\x02ho\x8a\x08", &to_upstream[..], b"\x8a\x01x"].concat());
        rig.expect(&mut client, b"\x81\x02ho\x8a\x01x");
    }
    client.send(b"\x88\x80\0\0\0\0");
    upstream.send(b"\x88\x00");
    client.end();
    upstream.end();
    let end = rig.end();
    assert!(end.client.rtt.is_some() && end.upstream.rtt.is_some());
    let [client, upstream] = [end.client, end.upstream].map(|totals| totals.frames.unwrap());
    assert_eq!((client.messages, client.pongs), (3, 0));
    assert_eq!((upstream.messages, upstream.pongs), (3, 3));
    assert!(rig.reports.try_recv().is_err());
    let counters = rig.handle.counters();
    let answers =
        [&counters.client.rtt, &counters.upstream.rtt].map(|rtt| Seconds::of([rtt]).count());
    assert_eq!(answers, [3, 3], "each answer counts, and none is told to the front");
}

#[test]
fn a_side_that_has_answered_before_is_lost_when_it_does_not() {
    let mut rig = Rig::new();
    let (mut client, mut upstream) = rig.asked();
    rig.answered_pings(&mut client, &mut upstream);
    let [_, to_upstream] = rig.pings(&mut client, &mut upstream);
    upstream.send(&pong(&to_upstream));
    rig.until_answered(&BOTH[1..]);
    // A client that has not acknowledged the ping yet would be excused; the kernel has a clock of its own.
    let begin = Instant::now();
    while rig.engine.unacknowledged() > 0 {
        assert!(begin.elapsed() < PATIENCE, "the ping was not acknowledged");
        rig.step();
    }
    let began = rig.now;
    assert_eq!(rig.pass_until_end().cause, EndCause::Lost(Side::Client));
    let waited = rig.now - began;
    assert!(waited <= TIMEOUT + Duration::from_millis(200), "{waited:?}");
    rig.expect_end(&mut upstream);
}

/// Small devices may not know what a ping is.
#[test]
fn a_side_that_never_answers_is_noted_once_and_stays() {
    let mut rig = Rig::new();
    let (mut client, mut upstream) = rig.asked();
    for _ in 0..3 {
        let [_, to_upstream] = rig.pings(&mut client, &mut upstream);
        upstream.send(&pong(&to_upstream));
        rig.until_answered(&BOTH[1..]);
        rig.pass(TIMEOUT + Duration::from_millis(200));
    }
    let (_, report) = rig.reports.try_recv().unwrap();
    let Report::Note(notes) = report else { panic!("{report:?}") };
    assert!(notes.silent.client && !notes.silent.server);
    assert!(rig.reports.try_recv().is_err() && rig.ends.try_recv().is_err());
}

/// What fills the way to the other side is no silence: nothing is read then, a pong neither.
#[test]
fn a_side_that_is_not_read_is_not_lost() {
    let mut rig = Rig::new();
    let (mut client, mut upstream) = rig.asked();
    rig.answered_pings(&mut client, &mut upstream);
    // More than the upstream's socket takes.
    let message = noise(1 << 25);
    let header = [&b"\x82\xff"[..], &(1_u64 << 25).to_be_bytes(), &[0; 4]].concat();
    client.send(&header);
    let mut left = &message[..];
    for _ in 0..200 {
        left = &left[client.send_some(left)..];
        rig.step();
    }
    assert!(!left.is_empty());
    // The upstream is there all the time; the client cannot be heard.
    for _ in 0..4 {
        rig.pass(TIMEOUT / 2);
        upstream.send(b"\x8a\x00");
        rig.step();
        rig.pass(TIMEOUT / 2);
    }
    assert!(rig.ends.try_recv().is_err());
}

/// Of two pings a side may answer the later one alone, and the pong that we swallow would be missed.
#[test]
fn a_side_that_the_other_end_asks_is_not_asked_by_us_too() {
    let mut rig = Rig::new();
    let (mut client, mut upstream) = rig.asked();
    rig.pass(INTERVAL - Duration::from_millis(500));
    upstream.send(b"\x89\x02hi");
    rig.expect(&mut client, b"\x89\x02hi");
    rig.pass(Duration::from_secs(1));
    client.poll();
    assert!(client.received.is_empty(), "{:?}", client.received);
    // It does not answer that one either: then it is ours to find out.
    rig.pass(TIMEOUT);
    rig.until("a ping", || {
        client.poll();
        client.received.len() >= 10
    });
    assert!(client.received.starts_with(b"\x89\x08mark"));
}

/// A ping may stand behind much that is still on its way.
#[test]
fn a_side_that_takes_what_was_sent_before_is_not_lost() {
    let mut rig = Rig::new();
    let (mut client, mut upstream) = rig.asked();
    rig.answered_pings(&mut client, &mut upstream);
    // More than the client's socket takes, but what the kernel holds for it is all that was sent.
    let message = noise(1 << 21);
    upstream.send(&[&b"\x82\x7f"[..], &(1_u64 << 21).to_be_bytes()].concat());
    let mut left = &message[..];
    rig.until("the message to be on its way", || {
        left = &left[upstream.send_some(left)..];
        left.is_empty()
    });
    rig.pass(INTERVAL + Duration::from_millis(200));
    for _ in 0..4 {
        rig.pass(TIMEOUT / 2);
        upstream.send(b"\x8a\x00");
        rig.step();
        rig.pass(TIMEOUT / 2);
    }
    assert!(rig.ends.try_recv().is_err());
}
