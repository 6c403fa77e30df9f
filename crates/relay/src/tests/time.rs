//! What ends tunnels when nothing moves, in the engine's time.

use wssgate_ws::OwnFrame;

use super::*;
use crate::deadlines::FINEST_MS;

const SHORT: Duration = Duration::from_millis(120);

/// How late a short wait may end: by its rounding, and the millisecond of the step.
const LATE: Duration = Duration::from_millis(FINEST_MS + 2);

fn timers(edit: impl FnOnce(&mut Timers)) -> Timers {
    let mut timers = Timers::default();
    edit(&mut timers);
    timers
}

/// Fills the direction towards a peer that does not read, until the relay keeps bytes for it.
fn stuff(rig: &mut Rig, from: &mut Peer) {
    let bytes = noise(1 << 16);
    let mut quiet = 0;
    while quiet < 20 {
        quiet = if from.send_some(&bytes) == 0 { quiet + 1 } else { 0 };
        rig.step();
        if rig.ends.try_recv().is_ok() {
            panic!("it ended while it was being filled");
        }
    }
}

#[test]
fn silence_ends_a_tunnel_in_time_and_not_a_moment_early() {
    for wait in [SHORT, Duration::from_secs(60)] {
        let mut rig = Rig::new();
        let began = rig.now;
        let (mut client, mut upstream) =
            rig.hand_over(|handover| handover.timers = timers(|t| t.read = wait));
        let end = rig.pass_until_end();
        let late = LATE.max(wait / 100);
        assert!((wait..=wait + late).contains(&(rig.now - began)), "{:?}", rig.now);
        assert!((wait..=wait + late).contains(&end.duration), "{:?}", end.duration);
        assert_eq!(end.cause, EndCause::ReadTimeout);
        rig.expect_end(&mut client);
        rig.expect_end(&mut upstream);
    }
}

#[test]
fn bytes_of_either_side_put_the_silence_off() {
    for from_client in [true, false] {
        let mut rig = Rig::new();
        let (mut client, mut upstream) =
            rig.hand_over(|handover| handover.timers = timers(|t| t.read = SHORT));
        let mut last = rig.now;
        for _ in 0..20 {
            rig.pass(SHORT - Duration::from_millis(1));
            let (from, to) = match from_client {
                true => (&mut client, &mut upstream),
                false => (&mut upstream, &mut client),
            };
            last = rig.now;
            from.send(b".");
            rig.expect(to, b".");
        }
        let end = rig.pass_until_end();
        assert!(rig.now - last >= SHORT && end.duration >= 20 * SHORT);
        assert_eq!(end.cause, EndCause::ReadTimeout);
    }
}

#[test]
fn a_client_that_takes_nothing_ends_by_its_own_timer_and_not_by_silence() {
    let mut rig = Rig::new();
    let (_client, mut upstream) = rig.hand_over(|handover| {
        handover.timers = timers(|t| {
            t.client_send = Duration::from_secs(120);
            t.read = Duration::from_secs(30);
        });
    });
    stuff(&mut rig, &mut upstream);
    let stuffed = rig.now;
    assert_eq!(rig.pass_until_end().cause, EndCause::SendTimeout(Side::Client));
    assert!(rig.now - stuffed > Duration::from_secs(30));
}

#[test]
fn an_upstream_that_takes_nothing_ends_by_its_own_timer() {
    let mut rig = Rig::new();
    let (mut client, _upstream) = rig.hand_over(|handover| {
        handover.timers = timers(|t| t.upstream_send = Duration::from_secs(30));
    });
    stuff(&mut rig, &mut client);
    assert_eq!(rig.pass_until_end().cause, EndCause::SendTimeout(Side::Upstream));
}

#[test]
fn a_half_closed_tunnel_is_bounded() {
    let mut rig = Rig::new();
    let (mut client, mut upstream) =
        rig.hand_over(|handover| handover.timers = timers(|t| t.half_close = SHORT));
    client.end();
    rig.expect_end(&mut upstream);
    assert_eq!(rig.pass_until_end().cause, EndCause::HalfCloseTimeout);
    rig.expect_end(&mut client);
}

/// The wait is for what the other side still has to say to the end, however quiet both were before.
#[test]
fn the_wait_of_a_half_closed_tunnel_begins_with_the_end() {
    let mut rig = Rig::new();
    let (mut client, mut upstream) =
        rig.hand_over(|handover| handover.timers = timers(|t| t.half_close = 2 * SHORT));
    rig.pass(3 * SHORT);
    let ended = rig.now;
    client.end();
    rig.expect_end(&mut upstream);
    assert_eq!(rig.pass_until_end().cause, EndCause::HalfCloseTimeout);
    assert!(rig.now - ended >= 2 * SHORT);
}

/// Hands over a tunnel that has both Closes and the end of its upstream, and more for the upstream than
/// it takes at once; says what that is.
fn hand_over_closed(rig: &mut Rig, timers: Timers) -> (Peer, Peer, Vec<u8>) {
    // One masked frame of 16 MiB, and a Close.
    let mut frames = vec![0x82, 0xff, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
    frames.resize(frames.len() + (16 << 20), 7);
    frames.extend_from_slice(&[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8]);
    let (client, upstream) = rig.hand_over(|handover| {
        handover.timers = timers;
        handover.protocol = Protocol::WebSocket(conversation::Settings::default());
        handover.client.plaintext = frames.clone();
        handover.upstream.plaintext = vec![0x88, 0x02, 0x03, 0xe8];
        handover.upstream.ended = true;
    });
    assert!(rig.engine.kept_bytes() > 0);
    (client, upstream, frames)
}

/// A Close that the relay has read has not arrived: an upstream that takes the bytes before it slowly
/// has its send timeout for them.
#[test]
fn after_both_closes_what_is_unsent_has_its_time() {
    let mut rig = Rig::new();
    let wait = Duration::from_secs(30);
    let _peers = hand_over_closed(&mut rig, timers(|t| t.upstream_send = wait));
    let began = rig.now;
    assert_eq!(rig.pass_until_end().cause, EndCause::SendTimeout(Side::Upstream));
    assert!(rig.now - began >= wait, "{:?}", rig.now);
}

/// And when it has taken them, it has as long to end as if it had been quick.
#[test]
fn after_both_closes_the_time_to_end_begins_when_all_is_sent() {
    let mut rig = Rig::new();
    let (_client, mut upstream, frames) = hand_over_closed(&mut rig, Timers::default());
    for _ in 0..10_000 {
        rig.pass(Duration::from_millis(1));
    }
    assert!(rig.ends.try_recv().is_err());
    rig.expect(&mut upstream, &frames);
    let sent = rig.now;
    assert_eq!(rig.pass_until_end().cause, EndCause::Ended(Side::Upstream));
    let waited = rig.now - sent;
    // Some steps may be between the last bytes and their arrival here.
    assert!(waited > Duration::from_millis(2_900) && waited < Duration::from_secs(4), "{waited:?}");
}

/// What a conversation wants to do at some time need not be its end: it acts, and what else is to come
/// keeps its time.
#[test]
fn a_conversation_acts_when_a_deadline_fires_and_goes_on() {
    let mut rig = Rig::new();
    let (mut client, mut upstream) = rig.hand_over(|handover| {
        handover.timers = timers(|t| t.read = SHORT);
        handover.protocol = Protocol::WebSocket(conversation::Settings::default());
    });
    rig.pass(SHORT / 2);
    upstream.send(b"\x81\x02hi");
    rig.expect(&mut client, b"\x81\x02hi");
    let last = rig.now;
    // Nothing but the entry, which that message has made too early, tells the tunnel of it.
    for conversation in rig.engine.conversations() {
        conversation.inject(wssgate_ws::Side::Client, OwnFrame::Ping(*b"own ping"));
    }
    rig.pass(last + SHORT - rig.now);
    rig.expect(&mut client, b"\x89\x08own ping");
    assert!(rig.now < last + SHORT + Duration::from_millis(20) && !rig.engine.is_empty());
    assert_eq!(rig.pass_until_end().cause, EndCause::ReadTimeout);
    assert!(rig.now - last >= SHORT, "a frame of our own is no sign of life");
    assert!(rig.engine.is_empty());
}

/// A tunnel that was armed for its silence is armed anew for what its conversation wants before.
#[test]
fn a_deadline_of_a_conversation_is_kept_whatever_the_tunnel_is_armed_for() {
    let mut rig = Rig::new();
    let (mut client, mut upstream) = rig.hand_over(|handover| {
        handover.protocol = Protocol::WebSocket(conversation::Settings::default());
    });
    for conversation in rig.engine.conversations() {
        conversation.close(conversation::Cause::Drain(CloseCode::GOING_AWAY), 1);
    }
    assert!(rig.sleep() > Duration::from_secs(55), "nobody has looked");
    // A frame that is not finished leaves the tunnel as quiescent as it was.
    upstream.send(b"\x81\x05h");
    rig.expect(&mut client, b"\x88\x02\x03\xe9");
    assert!(rig.sleep() < Duration::from_secs(2), "{:?}", rig.sleep());
    assert_eq!(rig.pass_until_end().cause, EndCause::Drained);
}

/// After both Closes only the ends of the connections are missing; a client that does not close its
/// own must not hold the tunnel for the hour that a half-close may take.
#[test]
fn after_both_closes_a_tunnel_does_not_linger() {
    let mut rig = Rig::new();
    let (mut client, mut upstream) = rig.hand_over(|handover| {
        handover.timers = timers(|t| t.half_close = Duration::from_secs(3600));
        handover.protocol = Protocol::WebSocket(conversation::Settings::default());
    });
    let from_client = [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8];
    client.send(&from_client);
    rig.expect(&mut upstream, &from_client);
    let from_upstream = [0x88, 0x02, 0x03, 0xe8];
    upstream.send(&from_upstream);
    rig.expect(&mut client, &from_upstream);
    let ended = rig.now;
    upstream.end();
    rig.expect_end(&mut client);
    assert_eq!(rig.pass_until_end().cause, EndCause::Ended(Side::Upstream));
    let waited = rig.now - ended;
    assert!(waited >= Duration::from_secs(3) && waited < Duration::from_secs(4), "{waited:?}");
    rig.expect_end(&mut upstream);
}

/// A server that is gone has its place back soon, although its client sleeps and does not close.
#[test]
fn a_websocket_whose_upstream_ends_without_a_close_does_not_linger() {
    let mut rig = Rig::new();
    let (mut client, mut upstream) = rig.hand_over(|handover| {
        handover.timers = timers(|t| t.half_close = Duration::from_secs(3600));
        handover.protocol = Protocol::WebSocket(conversation::Settings::default());
    });
    upstream.send(b"\x81\x02hi");
    upstream.end();
    rig.expect(&mut client, b"\x81\x02hi");
    rig.expect_end(&mut client);
    // What the client is still sending arrives.
    let ping = [0x89, 0x80, 0, 0, 0, 0];
    let mut last = rig.now;
    for _ in 0..3 {
        rig.pass(Duration::from_secs(2));
        client.send(&ping);
        rig.expect(&mut upstream, &ping);
        last = rig.now;
    }
    assert_eq!(rig.pass_until_end().cause, EndCause::Ended(Side::Upstream));
    let waited = rig.now - last;
    assert!(waited > Duration::from_millis(2_900) && waited < Duration::from_secs(4), "{waited:?}");
    rig.expect_end(&mut upstream);
}

#[test]
fn an_idle_engine_sleeps_until_the_next_deadline() {
    let mut rig = Rig::new();
    for _ in 0..100 {
        // The peers go; their sockets' ends are noticed below.
        let _ = rig.tunnel();
    }
    while rig.handle.live() > 0 {
        rig.step();
    }
    let _peers: Vec<_> = (0..100).map(|_| rig.tunnel()).collect();
    rig.step();
    rig.step();
    assert!(rig.sleep() > Duration::from_secs(55), "{:?}", rig.sleep());
}

/// Tunnels that begin together tell of themselves in turn, each once in an interval, whatever else passes.
#[test]
fn progress_is_told_in_every_interval_and_not_by_all_at_once() {
    const INTERVAL: Duration = Duration::from_secs(60);
    let mut rig = Rig::new();
    let mut peers: Vec<_> = (0..8)
        .map(|_| {
            rig.hand_over(|handover| {
                let hour = Duration::from_secs(3_600);
                handover.timers = timers(|t| (t.read, t.progress) = (hour, Some(INTERVAL)));
            })
        })
        .collect();
    let mut told = vec![Vec::new(); peers.len()];
    for second in 0..180 {
        rig.pass(Duration::from_secs(1));
        let (client, upstream) = &mut peers[second % 8];
        client.send(b"x");
        rig.expect(upstream, b"x");
        while let Ok((ticket, report)) = rig.reports.try_recv() {
            let Report::Progress(progress) = report else { panic!("{report:?}") };
            assert!(progress.duration.as_secs().abs_diff(second as u64) <= 2, "{progress:?}");
            told[ticket as usize].push(second);
        }
    }
    for seconds in &told {
        assert_eq!(seconds.len(), 3, "{told:?}");
        assert!(
            seconds.windows(2).all(|pair| (59..=61).contains(&(pair[1] - pair[0]))),
            "{told:?}"
        );
    }
    let mut first: Vec<_> = told.iter().map(|seconds| seconds[0] / 8).collect();
    first.dedup();
    assert!(first.len() >= 4, "spread over the interval: {told:?}");
}
