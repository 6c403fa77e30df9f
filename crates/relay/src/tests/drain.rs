//! Ends that are spread over a time, in the engine's time.

use std::sync::atomic::{AtomicUsize, Ordering};

use wssgate_ws::conversation::{CLOSING_MS, Cause, Farewell, Policy};

use super::closing::{AWAY, MASKED_CLOSE};
use super::*;
use crate::listing::{Handle, Label};

const RESTART: &[u8] = b"\x88\x02\x03\xf4";
const SECOND: Duration = Duration::from_secs(1);

fn pace(over: Duration) -> Pace {
    let (code, order) = (CloseCode::SERVICE_RESTART, Order::Oldest);
    Pace { over, code, order, jitter: Duration::ZERO }
}

fn order(whom: Whom, paces: Paces, progress: Arc<DrainProgress>) -> Drain {
    let why = Why::Ordered;
    Drain { whom, why, paces, words: None, takes_over: false, seed: 1, progress }
}

/// A drain under way, and how often it was told that something has changed.
struct Told {
    progress: Arc<DrainProgress>,
    changes: Arc<AtomicUsize>,
}

impl Told {
    fn counts(&self) -> [u64; 3] {
        let DrainCounts { tunnels, told, ended, spared } = self.progress.counts().unwrap();
        assert_eq!(spared, 0);
        [tunnels, told, ended]
    }
}

impl Rig {
    fn drain(&mut self, selection: Selection, paces: Paces) -> Told {
        self.begin(|progress| order(Whom::Selected(selection), paces, progress))
    }

    fn begin(&mut self, drain: impl FnOnce(Arc<DrainProgress>) -> Drain) -> Told {
        let changes = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&changes);
        let progress = DrainProgress::new(move || {
            counted.fetch_add(1, Ordering::Relaxed);
        });
        self.handle.drain(drain(Arc::clone(&progress))).unwrap();
        assert_eq!(progress.counts(), None);
        progress.all_have_it();
        self.step();
        assert_eq!(changes.load(Ordering::Relaxed), 1);
        Told { progress, changes }
    }

    fn websocket_of(&mut self, origin: Origin) -> (Peer, Peer) {
        self.hand_over(|handover| {
            handover.protocol = Protocol::WebSocket(conversation::Settings::default());
            handover.origin = origin;
        })
    }
}

/// The order in which clients hear their Close, when all are told within a time and nobody answers.
fn heard(rig: &mut Rig, clients: &mut [Peer], within: Duration) -> Vec<usize> {
    let (mut heard, end) = (Vec::new(), rig.now + within);
    while rig.now < end {
        rig.pass(Duration::from_millis(1));
        for (number, client) in clients.iter_mut().enumerate() {
            client.poll();
            if client.received.starts_with(b"\x88\x02") && !heard.contains(&number) {
                heard.push(number);
            }
        }
    }
    heard
}

#[test]
fn closes_are_spread_evenly_and_stand_between_frames() {
    let mut rig = Rig::new();
    let mut peers: Vec<_> = (0..200).map(|_| rig.websocket()).collect();
    // Some are in the middle of a frame, which ends before their time does, or their end has not come yet.
    for (_, upstream) in peers.iter_mut().step_by(4) {
        upstream.send(b"\x02\x05hel");
    }
    rig.until("the frames", || {
        peers.iter_mut().step_by(4).all(|(client, _)| {
            client.poll();
            client.received == b"\x02\x05hel"
        })
    });
    let told = rig.drain(Selection::All, Paces::One(pace(20 * SECOND)));
    assert_eq!(told.counts(), [200, 0, 0]);
    let began = rig.now;
    let mut before = 0;
    for second in 1..=20 {
        while rig.now < began + second * SECOND {
            rig.pass(Duration::from_millis(1));
            for (number, (client, upstream)) in peers.iter_mut().enumerate() {
                upstream.poll();
                client.poll();
                if number % 4 == 0 && upstream.received.len() == 8 {
                    assert_eq!(client.received, b"\x02\x05hel", "nothing is put into a frame");
                    upstream.received.clear();
                    upstream.send(b"lo");
                }
            }
        }
        let now = told.counts()[1];
        assert!((8..=12).contains(&(now - before)), "{} in second {second}", now - before);
        before = now;
    }
    assert_eq!(before, 200);
    rig.pass(2 * SECOND);
    rig.pass(SECOND);
    assert_eq!(told.counts(), [200, 200, 200]);
    assert_eq!(told.changes.load(Ordering::Relaxed), 2, "its beginning and its end");
    for (number, (mut client, _)) in peers.into_iter().enumerate() {
        client.poll();
        let frame: &[u8] = if number % 4 == 0 { b"\x02\x05hello" } else { b"" };
        assert_eq!(client.received, [frame, RESTART].concat());
        assert!(client.ended);
    }
    assert!(rig.ends.try_iter().all(|(_, end)| {
        end.cause == EndCause::Drained
            && end.client.own_close == Some(CloseCode::SERVICE_RESTART)
            && end.upstream.own_close == Some(CloseCode::GOING_AWAY)
    }));
    assert!(rig.engine.is_empty());
}

#[test]
fn the_oldest_or_the_idlest_is_told_first() {
    for (order, notes_data, expected) in [
        (Order::Oldest, false, [0, 1, 2]),
        // The first has said something last; a ping is nothing to who notes data.
        (Order::Idlest, true, [1, 2, 0]),
        (Order::Idlest, false, [2, 0, 1]),
    ] {
        let mut rig = Rig::new();
        let policy = Arc::new(Policy { notes_data, ..Policy::default() });
        let mut peers = Vec::new();
        for _ in 0..3 {
            peers.push(rig.hand_over(|handover| {
                let policy = Arc::clone(&policy);
                let settings = conversation::Settings { policy, ..Default::default() };
                handover.protocol = Protocol::WebSocket(settings);
            }));
            rig.pass(SECOND);
        }
        for (number, frame) in [(0, b"\x81\x02hi"), (1, b"\x89\x02hi")] {
            let (client, upstream) = &mut peers[number];
            upstream.send(frame);
            rig.expect(client, frame);
            rig.pass(SECOND);
        }
        rig.drain(Selection::All, Paces::One(Pace { order, ..pace(3 * SECOND) }));
        let (mut clients, _upstreams): (Vec<_>, Vec<_>) = peers.into_iter().unzip();
        assert_eq!(heard(&mut rig, &mut clients, 4 * SECOND), expected, "{order:?}");
    }
}

#[test]
fn only_those_who_are_meant_are_told() {
    let origin = |generation, location, server| Origin { generation, location, server };
    for (selection, expected) in [
        (Selection::Generation(1), &[0, 1, 2][..]),
        (Selection::Location(1, 1), &[1, 2]),
        (Selection::Server(7), &[2, 3]),
        (Selection::ServerIn(1, 7), &[2]),
        (Selection::Ticket(3), &[3]),
    ] {
        let mut rig = Rig::new();
        let origins = [origin(1, 0, 6), origin(1, 1, 6), origin(1, 1, 7), origin(2, 1, 7)];
        let peers = origins.map(|origin| rig.websocket_of(origin));
        let other = rig.tunnel();
        let told = rig.drain(selection, Paces::One(pace(Duration::ZERO)));
        assert_eq!(told.counts(), [expected.len() as u64, expected.len() as u64, 0]);
        let (mut clients, _upstreams): (Vec<_>, Vec<_>) = peers.into_iter().unzip();
        let mut heard = heard(&mut rig, &mut clients, SECOND / 2);
        heard.sort_unstable();
        assert_eq!(heard, expected, "{selection:?}");
        drop(other);
    }
}

#[test]
fn each_location_has_its_pace_and_one_without_stays() {
    let mut rig = Rig::new();
    let of = |location| Origin { location, ..Origin::default() };
    let peers = [0, 1, 2, 9].map(|location| rig.websocket_of(of(location)));
    let (mut clients, _upstreams): (Vec<_>, Vec<_>) = peers.into_iter().unzip();
    let away = Pace { code: CloseCode::GOING_AWAY, ..pace(2 * SECOND) };
    let paces = Paces::ByLocation([Some(pace(SECOND)), None, Some(away)].into());
    let told = rig.drain(Selection::Generation(0), paces);
    assert_eq!(told.counts()[0], 2);
    assert_eq!(heard(&mut rig, &mut clients, 2 * SECOND).len(), 2);
    assert_eq!([0, 2].map(|number: usize| &clients[number].received[..]), [RESTART, AWAY]);
    assert!(clients[1].received.is_empty() && clients[3].received.is_empty());
}

#[test]
fn who_is_being_drained_keeps_its_time_and_others_get_theirs() {
    let mut rig = Rig::new();
    let (mut first, _upstream) = rig.websocket();
    let slow = rig.drain(Selection::All, Paces::One(pace(100 * SECOND)));
    let (mut second, _upstream) = rig.websocket();
    let quick = rig.drain(Selection::All, Paces::One(pace(SECOND)));
    assert_eq!((slow.counts(), quick.counts()), ([1, 0, 0], [2, 0, 0]));
    rig.pass(SECOND);
    rig.pass(CLOSING_MS as u32 * Duration::from_millis(2));
    assert_eq!((slow.counts(), quick.counts()), ([1, 0, 0], [2, 1, 1]));
    second.poll();
    assert_eq!(second.received, RESTART);
    // The end of all patience has the code of the drain.
    rig.handle.close(Selection::All, EndCause::Drained).unwrap();
    rig.step();
    rig.expect(&mut first, RESTART);
    rig.pass(2 * SECOND);
    assert_eq!(slow.counts(), [1, 0, 1]);
    assert_eq!(slow.changes.load(Ordering::Relaxed), 2);
}

/// Nobody is told in the place of one that has left, and a new tunnel in its place is nobody's business.
#[test]
fn who_leaves_by_itself_is_not_told() {
    let mut rig = Rig::new();
    let (mut client, mut upstream) = rig.websocket();
    let told = rig.drain(Selection::All, Paces::One(pace(10 * SECOND)));
    client.send(MASKED_CLOSE);
    rig.expect(&mut upstream, MASKED_CLOSE);
    upstream.send(b"\x88\x00");
    rig.expect(&mut client, b"\x88\x00");
    drop((client, upstream));
    assert_eq!(rig.end().cause, EndCause::Ended(Side::Client));
    assert_eq!(told.counts(), [1, 0, 1]);
    let (mut client, _upstream) = rig.websocket();
    rig.pass(10 * SECOND);
    client.poll();
    assert!(client.received.is_empty() && rig.ends.try_recv().is_err());
    assert!(rig.sleep() > 20 * SECOND, "nothing is due");
}

/// Whoever it is that ends it first says why.
#[test]
fn who_loses_its_server_does_not_wait_for_its_turn() {
    let mut rig = Rig::new();
    let of = |server| Origin { server, ..Origin::default() };
    let [(mut client, _upstream), (mut other, _other_upstream)] =
        [1, 2].map(|server| rig.websocket_of(of(server)));
    let told = rig.drain(Selection::All, Paces::One(pace(10 * SECOND)));
    rig.handle.close(Selection::Server(1), EndCause::Unhealthy).unwrap();
    assert_eq!(rig.end().cause, EndCause::Unhealthy);
    client.poll();
    assert!(client.received.starts_with(b"\x88\x14\x03\xe9"), "{:?}", client.received);
    assert_eq!(told.counts(), [2, 0, 1]);
    assert_eq!(rig.pass_until_end().cause, EndCause::Drained);
    rig.expect(&mut other, RESTART);
    assert_eq!(told.counts(), [2, 1, 2]);
}

#[test]
fn a_stop_ends_those_whose_time_has_not_come() {
    let mut rig = Rig::new();
    let (mut client, mut upstream) = rig.websocket();
    let told = rig.drain(Selection::All, Paces::One(pace(10 * SECOND)));
    rig.order(EndCause::Stopped);
    assert_eq!(rig.end().cause, EndCause::Stopped);
    rig.expect(&mut client, AWAY);
    rig.expect_masked_away(&mut upstream);
    assert_eq!(told.counts(), [1, 0, 1]);
}

#[test]
fn a_relay_that_has_stopped_keeps_no_drain_waiting() {
    let relay = start("test", Settings::default(), Arc::default(), |_, _| {}, |_| {}).unwrap();
    let handle = relay.handle();
    relay.stop().unwrap();
    let progress = DrainProgress::new(|| {});
    let paces = Paces::One(pace(SECOND));
    let drain = order(Whom::Selected(Selection::All), paces, Arc::clone(&progress));
    assert!(handle.drain(drain).is_err());
    progress.all_have_it();
    assert_eq!(progress.counts(), Some(DrainCounts::default()));
}

fn left(told: &Told) -> DrainCounts {
    told.progress.counts().unwrap()
}

fn all(
    over: Duration,
    takes_over: bool,
    code: CloseCode,
) -> impl FnOnce(Arc<DrainProgress>) -> Drain {
    let paces = Paces::One(Pace { code, ..pace(over) });
    move |progress| Drain { takes_over, ..order(Whom::Selected(Selection::All), paces, progress) }
}

const OF_FIRST: CloseCode = CloseCode(4001);
const OF_SECOND: CloseCode = CloseCode(4002);

/// The operator who orders it wants an end by then, whatever was ordered before.
#[test]
fn a_drain_that_takes_over_tells_those_who_would_be_told_later() {
    let mut rig = Rig::new();
    let (mut client, _upstream) = rig.websocket();
    let slow = rig.begin(all(100 * SECOND, false, OF_FIRST));
    let later = rig.begin(all(200 * SECOND, true, OF_FIRST));
    let sooner = rig.begin(all(SECOND, true, OF_SECOND));
    // One that does not take over, however soon it is.
    let meek = rig.begin(all(Duration::ZERO, false, OF_FIRST));
    let drains = [&slow, &later, &sooner, &meek];
    assert!(drains.iter().all(|drain| drain.counts() == [1, 0, 0]));
    rig.pass(SECOND);
    rig.expect(&mut client, b"\x88\x02\x0f\xa2");
    // Who was told is not told again.
    let again = rig.begin(all(Duration::ZERO, true, OF_FIRST));
    assert_eq!(left(&again), DrainCounts::default());
    assert!(drains.iter().all(|drain| drain.counts() == [1, 1, 0]));
    rig.pass(2 * SECOND);
    for drain in drains {
        assert_eq!(drain.counts(), [1, 1, 1], "all of them know of its end");
        assert_eq!(drain.changes.load(Ordering::Relaxed), 2);
    }
    assert_eq!(rig.engine.drain_moments(), 0);
}

impl Rig {
    fn cancel(&mut self, told: &Told) {
        self.handle.cancel_drain(&told.progress).unwrap();
        self.step();
    }
}

/// Whichever of two drains is cancelled, the other one goes on, in its own time and words.
#[test]
fn who_is_let_go_by_a_cancelled_drain_belongs_to_the_other_one() {
    const SPARED: DrainCounts = DrainCounts { tunnels: 1, told: 0, ended: 0, spared: 1 };
    for (second, takes_over) in [(10, true), (10, false), (200, true), (200, false)] {
        for cancels_first in [false, true] {
            let case = (second, takes_over, cancels_first);
            let mut rig = Rig::new();
            let (mut client, _upstream) = rig.websocket();
            let first = rig.begin(all(100 * SECOND, true, OF_FIRST));
            let second = rig.begin(all(second * SECOND, takes_over, OF_SECOND));
            rig.pass(SECOND / 100);
            client.poll();
            assert!(client.received.is_empty());
            let (gone, stays) = if cancels_first { (&first, &second) } else { (&second, &first) };
            rig.cancel(gone);
            assert_eq!((left(gone), stays.counts()), (SPARED, [1, 0, 0]), "{case:?}");
            let over = if cancels_first { case.0 } else { 100 };
            rig.pass(over * SECOND);
            let code = if cancels_first { 0xa2 } else { 0xa1 };
            rig.expect(&mut client, &[0x88, 2, 0x0f, code]);
            rig.pass(2 * SECOND);
            assert_eq!((left(gone), stays.counts()), (SPARED, [1, 1, 1]), "{case:?}");
            assert!(rig.engine.is_empty());
        }
    }
}

/// A storm is not to come of it that their moments have passed meanwhile.
#[test]
fn those_whose_moment_is_past_are_spread_anew() {
    // What is left of the time, or if nothing is, the whole time again.
    for (waited, over) in [(6, 4), (15, 10)] {
        let mut rig = Rig::new();
        let (mut clients, _upstreams): (Vec<_>, Vec<_>) = (0..100).map(|_| rig.websocket()).unzip();
        // It keeps its time, which is longer.
        let operators = rig.begin(all(1_000_000 * SECOND, true, OF_FIRST));
        let reloads = rig.begin(all(10 * SECOND, false, OF_SECOND));
        rig.pass(waited * SECOND);
        assert!(operators.counts()[1] <= 1 && reloads.counts() == operators.counts());
        rig.cancel(&operators);
        let mut told = |rig: &mut Rig, within| heard(rig, &mut clients, within).len();
        let half = told(&mut rig, over * SECOND / 2);
        assert!((40..=60).contains(&half), "{half} in the first half of {over}");
        told(&mut rig, over * SECOND / 2 + 3 * SECOND);
        assert_eq!(reloads.counts(), [100; 3]);
        assert!(rig.engine.is_empty());
    }
}

#[test]
fn drains_without_end_keep_no_moments_of_those_who_are_gone() {
    let mut rig = Rig::new();
    let _peers: Vec<_> = (0..10).map(|_| rig.websocket()).collect();
    let kept = rig.begin(all(1_000_000 * SECOND, true, OF_FIRST));
    for round in 0..1_000 {
        let sooner = rig.begin(all((900_000 - round) * SECOND, true, OF_SECOND));
        rig.cancel(&sooner);
        assert!(rig.engine.drain_moments() <= 40, "{}", rig.engine.drain_moments());
    }
    assert_eq!(kept.counts(), [10, 0, 0]);
}

#[test]
fn a_cancelled_drain_leaves_those_who_were_not_told() {
    let mut rig = Rig::new();
    let (mut told, _told_upstream) = rig.websocket();
    let now = rig.drain(Selection::All, Paces::One(pace(Duration::ZERO)));
    rig.expect(&mut told, RESTART);
    let (mut spared, _upstream) = rig.websocket();
    let slow = rig.drain(Selection::All, Paces::One(pace(10 * SECOND)));
    for drain in [&now, &slow] {
        rig.handle.cancel_drain(&drain.progress).unwrap();
    }
    rig.step();
    assert_eq!(now.counts(), [1, 1, 0], "its closing goes on");
    assert_eq!(left(&slow), DrainCounts { tunnels: 1, spared: 1, ..DrainCounts::default() });
    rig.pass(2 * SECOND);
    assert_eq!(now.counts(), [1, 1, 1]);
    rig.pass(11 * SECOND);
    spared.poll();
    assert!(spared.received.is_empty() && !spared.ended);
    // It may be drained again.
    let again = rig.drain(Selection::All, Paces::One(pace(Duration::ZERO)));
    assert_eq!(again.counts()[..2], [1, 1]);
    rig.expect(&mut spared, RESTART);
}

#[test]
fn some_are_drained_in_words_of_their_own() {
    let mut rig = Rig::new();
    let label = Label::new(7_u32);
    let mut websocket = |label: &Label| {
        rig.hand_over(|handover| {
            handover.protocol = Protocol::WebSocket(conversation::Settings::default());
            handover.label = Some(label.clone());
        })
    };
    let (mut meant, _upstream) = websocket(&label);
    let (mut other, _other_upstream) = websocket(&Label::new(8_u32));
    // Of one that has ended and one that is somebody else's now nobody is left.
    let handles = [Handle::new(0, &label), Handle::new(1, &label), Handle::new(99, &label)];
    let words = Farewell { code: CloseCode(4001), reason: "moved".into() };
    let told = rig.begin(|progress| Drain {
        words: Some(Arc::new(words)),
        ..order(Whom::These(handles.into()), Paces::One(pace(Duration::ZERO)), progress)
    });
    assert_eq!(told.counts(), [1, 1, 0]);
    rig.expect(&mut meant, b"\x88\x07\x0f\xa1moved");
    rig.pass(2 * SECOND);
    let end = rig.end();
    assert_eq!((end.cause, &*end.client.own_reason), (EndCause::Drained, "moved"));
    other.poll();
    assert!(other.received.is_empty());
}

/// Nothing else can be done for tunnels of other protocols.
#[test]
fn who_loses_its_server_is_drained_whatever_it_speaks() {
    let mut rig = Rig::new();
    let (mut websocket, _upstream) = rig.websocket();
    let (mut other, _other_upstream) = rig.tunnel();
    let told = rig.begin(|progress| Drain {
        why: Why::Unhealthy,
        ..order(Whom::Selected(Selection::All), Paces::One(pace(SECOND)), progress)
    });
    assert_eq!(told.counts()[0], 2);
    rig.pass(SECOND);
    websocket.poll();
    assert!(websocket.received.ends_with(b"server unavailable"), "{:?}", websocket.received);
    other.poll();
    assert!(other.ended);
    rig.pass(2 * SECOND);
    assert_eq!(told.counts(), [2, 2, 2]);
    for _ in 0..2 {
        assert_eq!(rig.end().cause, EndCause::Closed(Cause::Unhealthy));
    }
}
