//! Tunnels with TLS on one leg or both, rustls at the other ends.

use rustls::CipherSuite;
use rustls::{AlertDescription, Error};
use wssgate_records::Role;
use wssgate_records::testing::{SUITES, Session, session};

use super::peer::TlsPeer;
use super::*;

/// A tunnel with TLS on both legs.
pub(super) fn secure(
    rig: &mut Rig,
    client_suite: CipherSuite,
    upstream_suite: CipherSuite,
    edit: impl FnOnce(&mut Handover, &mut rustls::Connection),
) -> (TlsPeer, TlsPeer) {
    let mut client = session(client_suite, Role::Server);
    let upstream = session(upstream_suite, Role::Client);
    let Session { keys, peer: upstream_tls, tickets } = upstream;
    let (client_wire, upstream_wire) = rig.hand_over(|handover| {
        handover.client.tls = LegTls::Keys(Box::new(client.keys));
        handover.upstream.tls = LegTls::Keys(Box::new(keys));
        handover.upstream.ciphertext = tickets;
        edit(handover, &mut client.peer);
    });
    (TlsPeer::new(client_wire, client.peer), TlsPeer::new(upstream_wire, upstream_tls))
}

pub(super) fn tls_in_front(rig: &mut Rig, suite: CipherSuite) -> (TlsPeer, Peer) {
    let Session { keys, peer, .. } = session(suite, Role::Server);
    let (client, upstream) =
        rig.hand_over(|handover| handover.client.tls = LegTls::Keys(Box::new(keys)));
    (TlsPeer::new(client, peer), upstream)
}

impl Rig {
    pub(super) fn expect_tls(&mut self, to: &mut TlsPeer, expected: &[u8]) {
        self.until("bytes", || {
            to.poll();
            to.received.len() >= expected.len() || to.wire.ended || to.error.is_some()
        });
        assert_eq!(to.error, None);
        assert!(to.received == expected, "{} of {}", to.received.len(), expected.len());
        to.received.clear();
    }

    pub(super) fn expect_close_notify(&mut self, of: &mut TlsPeer) {
        self.until("close_notify", || {
            of.poll();
            of.wire.ended
        });
        assert!(of.closed && of.error.is_none() && of.received.is_empty());
    }
}

#[test]
fn bytes_pass_both_ways_under_every_pair_of_suites() {
    for client_suite in SUITES {
        for upstream_suite in SUITES {
            let mut rig = Rig::new();
            let (mut client, mut upstream) =
                secure(&mut rig, client_suite, upstream_suite, |_, _| {});
            client.send(b"ping");
            rig.expect_tls(&mut upstream, b"ping");
            let answer = noise(100_000);
            upstream.send(&answer);
            rig.expect_tls(&mut client, &answer);
        }
    }
}

#[test]
fn bytes_read_ahead_arrive_first_whether_opened_or_not() {
    for suite in SUITES {
        let mut rig = Rig::new();
        let (mut client, mut upstream) = secure(&mut rig, suite, suite, |handover, tls| {
            let mut wire = Vec::new();
            for part in [&b"second "[..], b"third ", b"fourth "] {
                std::io::Write::write_all(&mut tls.writer(), part).unwrap();
                tls.write_tls(&mut wire).unwrap();
            }
            handover.client.plaintext = b"first ".to_vec();
            // The last record is cut; its end is still on its way.
            let rest = wire.split_off(wire.len() - 10);
            handover.client.ciphertext = wire;
            LATE.set(rest);
        });
        client.wire.send(&LATE.take());
        client.send(b"fifth");
        rig.expect_tls(&mut upstream, b"first second third fourth fifth");
    }
}

thread_local! {
    static LATE: std::cell::Cell<Vec<u8>> = const { std::cell::Cell::new(Vec::new()) };
}

/// The tunnel ends, and its client is told why.
fn expect_alert_for_bad_record(rig: &mut Rig, client: &mut TlsPeer, upstream: &mut Peer) {
    rig.expect_end(upstream);
    rig.until("alert", || {
        client.poll();
        client.error.is_some()
    });
    assert_eq!(client.error, Some(Error::AlertReceived(AlertDescription::BadRecordMac)));
    assert_eq!(rig.end().cause, EndCause::Tls(Side::Client, TlsFault::BadRecordMac));
}

#[test]
fn nothing_is_kept_of_what_stands_behind_an_end() {
    let mut rig = Rig::new();
    let (mut client, mut upstream) = tls_in_front(&mut rig, SUITES[0]);
    let mut wire = client.close_notify();
    wire.extend_from_slice(&noise(1000));
    client.wire.send(&wire);
    rig.expect_end(&mut upstream);
    assert_eq!((rig.engine.kept_bytes(), rig.handle.live()), (0, 1));
}

#[test]
fn a_peer_that_sends_byte_by_byte_is_understood() {
    for suite in [SUITES[0], SUITES[3]] {
        let mut rig = Rig::new();
        let (mut client, mut upstream) = tls_in_front(&mut rig, suite);
        for byte in client.sealed(b"slowly") {
            client.wire.send(&[byte]);
            rig.step();
        }
        rig.expect(&mut upstream, b"slowly");
    }
}

#[test]
fn close_notify_passes_and_leaves_the_other_direction_open() {
    for suite in &SUITES[..3] {
        let mut rig = Rig::new();
        let (mut client, mut upstream) = secure(&mut rig, *suite, *suite, |_, _| {});
        client.send(b"question");
        let goodbye = client.close_notify();
        client.wire.send(&goodbye);
        rig.expect_tls(&mut upstream, b"question");
        rig.expect_close_notify(&mut upstream);
        let answer = noise(100_000);
        upstream.send(&answer);
        let goodbye = upstream.close_notify();
        upstream.wire.send(&goodbye);
        rig.expect_tls(&mut client, &answer);
        rig.expect_close_notify(&mut client);
        let end = rig.end();
        assert_eq!(end.cause, EndCause::Ended(Side::Client));
        assert!(!end.client.truncated && !end.upstream.truncated);
        assert_eq!((end.client.sent, end.upstream.sent), (100_000, 8));
    }
}

#[test]
fn close_notify_of_tls_12_is_answered_at_once_and_ends_the_tunnel() {
    for suite in &SUITES[3..] {
        let mut rig = Rig::new();
        let (mut client, mut upstream) = secure(&mut rig, *suite, *suite, |_, _| {});
        upstream.send(b"on its way");
        rig.expect_tls(&mut client, b"on its way");
        client.send(b"last words");
        let goodbye = client.close_notify();
        client.wire.send(&goodbye);
        // The upstream says nothing at all.
        rig.expect_close_notify(&mut client);
        rig.expect_tls(&mut upstream, b"last words");
        rig.expect_close_notify(&mut upstream);
        let end = rig.end();
        assert_eq!(end.cause, EndCause::Ended(Side::Client));
        assert_eq!((end.client.sent, end.upstream.sent), (10, 10));
    }
}

/// What was cut on one side must not look whole on the other.
#[test]
fn a_cut_stream_stays_cut_behind_us() {
    for suite in [SUITES[0], SUITES[3]] {
        for from in [Side::Client, Side::Upstream] {
            let mut rig = Rig::new();
            let (mut client, mut upstream) = secure(&mut rig, suite, suite, |_, _| {});
            let (cut, other) = match from {
                Side::Client => (&mut client, &mut upstream),
                Side::Upstream => (&mut upstream, &mut client),
            };
            cut.send(b"half of it");
            cut.wire.end();
            rig.expect_tls(other, b"half of it");
            rig.until("end", || {
                other.poll();
                other.wire.ended
            });
            assert!(!other.closed && other.error.is_none(), "{from:?} FIN alone");
        }
    }
}

/// Many peers end without close_notify once they have said all.
#[test]
fn behind_a_close_frame_nothing_is_cut() {
    let mut rig = Rig::new();
    let (mut client, mut upstream) = secure(&mut rig, SUITES[0], SUITES[0], |handover, _| {
        handover.protocol = Protocol::WebSocket(conversation::Settings::default());
    });
    let close = [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8];
    client.send(&close);
    client.wire.end();
    rig.expect_tls(&mut upstream, &close);
    rig.expect_close_notify(&mut upstream);
}

#[test]
fn a_fatal_alert_reaches_a_peer_that_goes_on_sending() {
    let mut rig = Rig::new();
    let (mut client, mut upstream) = tls_in_front(&mut rig, SUITES[0]);
    let mut bad = client.sealed(b"bad");
    *bad.last_mut().unwrap() ^= 1;
    client.wire.send(&bad);
    rig.expect_end(&mut upstream);
    upstream.end();
    assert_eq!(rig.end().cause, EndCause::Tls(Side::Client, TlsFault::BadRecordMac));
    // It has not looked at what we say, and says more than was thrown away so far.
    for _ in 0..20 {
        client.wire.send(&noise(20_000));
        rig.step();
    }
    assert_eq!(rig.engine.lingering(), 1);
    rig.until("alert", || {
        client.poll();
        client.error.is_some()
    });
    assert_eq!(client.error, Some(Error::AlertReceived(AlertDescription::BadRecordMac)));
    assert!(!client.wire.reset);
    client.wire.end();
    while rig.engine.lingering() > 0 {
        rig.step();
    }
}

#[test]
fn a_peer_that_never_ends_is_left_after_its_time() {
    let mut rig = Rig::new();
    let (mut client, mut upstream) = tls_in_front(&mut rig, SUITES[0]);
    client.wire.send(&[99, 3, 3, 0, 1]);
    rig.expect_end(&mut upstream);
    upstream.end();
    rig.end();
    assert!(rig.engine.lingering() > 0);
    assert!(rig.sleep() <= Duration::from_secs(2));
    rig.pass(Duration::from_secs(3));
    assert_eq!(rig.engine.lingering(), 0);
}

#[test]
fn an_end_without_close_notify_is_noted_as_truncation() {
    let mut rig = Rig::new();
    let (mut client, mut upstream) = tls_in_front(&mut rig, SUITES[0]);
    let wire = client.sealed(b"cut");
    client.wire.send(&wire[..wire.len() - 1]);
    client.wire.end();
    rig.expect_end(&mut upstream);
    upstream.end();
    rig.expect_close_notify(&mut client);
    let end = rig.end();
    assert_eq!(end.cause, EndCause::Ended(Side::Client));
    assert!(end.client.truncated && !end.upstream.truncated);
    assert_eq!(end.client.received, 0);
}

#[test]
fn a_bad_record_is_answered_with_an_alert_and_what_came_before_arrives() {
    for suite in SUITES {
        let mut rig = Rig::new();
        let (mut client, mut upstream) = tls_in_front(&mut rig, suite);
        let mut wire = client.sealed(b"good");
        let bad = client.sealed(b"bad");
        wire.extend_from_slice(&bad[..bad.len() - 1]);
        wire.push(bad[bad.len() - 1] ^ 1);
        client.wire.send(&wire);
        rig.expect(&mut upstream, b"good");
        expect_alert_for_bad_record(&mut rig, &mut client, &mut upstream);
    }
}

#[test]
fn an_alert_of_a_peer_ends_the_tunnel() {
    let mut rig = Rig::new();
    let (mut client, mut upstream) = tls_in_front(&mut rig, SUITES[0]);
    upstream.send(b"x");
    // A client that finds our record broken says so.
    rig.until("record", || {
        client.wire.poll();
        client.wire.received.len() > 5
    });
    *client.wire.received.last_mut().unwrap() ^= 1;
    client.poll();
    assert!(client.error.is_some());
    let alert = client.sealed(&[]);
    client.wire.send(&alert);
    rig.expect_end(&mut upstream);
    assert_eq!(rig.end().cause, EndCause::Tls(Side::Client, TlsFault::Alert(20)));
}

#[test]
fn keys_are_updated_under_way_by_either_side() {
    for suite in &SUITES[..2] {
        let mut rig = Rig::with(Settings { tls_record_limit: 3, ..Settings::default() });
        let (mut client, mut upstream) = secure(&mut rig, *suite, *suite, |_, _| {});
        for round in 0..20_u8 {
            if round % 3 == 0 {
                client.tls.refresh_traffic_keys().unwrap();
                upstream.tls.refresh_traffic_keys().unwrap();
            }
            client.send(&[round]);
            rig.expect_tls(&mut upstream, &[round]);
            upstream.send(&[round, 7]);
            rig.expect_tls(&mut client, &[round, 7]);
        }
    }
}

#[test]
fn idle_keys_rest_and_wake_with_the_next_record() {
    let mut rig = Rig::new();
    let (mut client, mut upstream) = tls_in_front(&mut rig, SUITES[1]);
    client.send(b"one");
    rig.expect(&mut upstream, b"one");
    assert_eq!(rig.engine.expanded_keys(), 1);
    // A quiet engine wakes up for it, and then for nothing before the tunnel's own deadline.
    assert!(rig.sleep() <= Duration::from_secs(2));
    rig.pass(Duration::from_secs(3));
    assert_eq!(rig.engine.expanded_keys(), 0);
    assert!(rig.sleep() > Duration::from_secs(30));
    client.send(b"two");
    upstream.send(b"three");
    rig.expect(&mut upstream, b"two");
    rig.expect_tls(&mut client, b"three");
}

#[test]
fn a_drain_says_close_notify() {
    let mut rig = Rig::new();
    let (mut client, mut upstream) = secure(&mut rig, SUITES[0], SUITES[3], |_, _| {});
    rig.handle.close(Selection::Generation(0), EndCause::Drained).unwrap();
    rig.expect_close_notify(&mut client);
    rig.expect_close_notify(&mut upstream);
    assert_eq!(rig.end().cause, EndCause::Drained);
}

#[test]
fn exhausted_keys_of_tls_12_end_in_good_order() {
    let mut rig = Rig::new();
    let Session { mut keys, .. } = session(SUITES[3], Role::Server);
    // So many full records that the key is exhausted at once.
    keys.tx.sequence = u64::MAX / 2;
    let (mut client, mut upstream) =
        rig.hand_over(|handover| handover.client.tls = LegTls::Keys(Box::new(keys)));
    upstream.send(b"too much");
    rig.until("end", || {
        client.poll();
        client.ended
    });
    // An alert and nothing else: its record is 5 + 8 + 2 + 16 bytes.
    assert_eq!((client.received.len(), client.received[0]), (31, 21));
    client.end();
    rig.expect_end(&mut upstream);
    assert_eq!(rig.end().cause, EndCause::Tls(Side::Client, TlsFault::KeysExhausted));
}
