//! What a drain and a stop leave of a WebSocket.

use wssgate_records::Role;
use wssgate_records::testing::{SUITES, Session, session};
use wssgate_ws::conversation::{CLOSING_MS, Cause};

use super::bounds::narrow;
use super::peer::TlsPeer;
use super::*;

const CLOSING: Duration = Duration::from_millis(CLOSING_MS);
pub(super) const AWAY: &[u8] = b"\x88\x02\x03\xe9";
/// A Close without a code, as a client says it.
pub(super) const MASKED_CLOSE: &[u8] = b"\x88\x80\x01\x02\x03\x04";

impl Rig {
    pub(super) fn websocket(&mut self) -> (Peer, Peer) {
        self.hand_over(|handover| {
            handover.protocol = Protocol::WebSocket(conversation::Settings::default())
        })
    }

    pub(super) fn order(&mut self, cause: EndCause) {
        self.handle.close(Selection::All, cause).unwrap();
        self.step();
    }

    /// Steps until the upstream has heard that we go away.
    pub(super) fn expect_masked_away(&mut self, upstream: &mut Peer) {
        self.until("a Close", || {
            upstream.poll();
            upstream.received.len() >= 8
        });
        let received = std::mem::take(&mut upstream.received);
        let [0x88, 0x82, a, b, _, _, x, y] = received[..] else {
            panic!("no masked Close but {received:?}");
        };
        assert_eq!([a ^ x, b ^ y], [0x03, 0xe9]);
    }

    fn is_open(&mut self) -> bool {
        self.ends.try_recv().is_err()
    }
}

#[test]
fn a_drained_websocket_ends_when_both_sides_have_answered() {
    let mut rig = Rig::new();
    let (mut client, mut upstream) = rig.websocket();
    upstream.send(b"\x81\x02hi");
    rig.expect(&mut client, b"\x81\x02hi");
    let began = rig.now;
    rig.order(EndCause::Drained);
    rig.expect(&mut client, AWAY);
    rig.expect_masked_away(&mut upstream);
    client.send(MASKED_CLOSE);
    rig.step();
    rig.step();
    assert!(rig.is_open() && !client.ended);
    upstream.send(AWAY);
    rig.expect_end(&mut client);
    rig.expect_end(&mut upstream);
    let end = rig.end();
    assert!(rig.now - began < CLOSING);
    assert_eq!((end.cause, end.client.sent, end.upstream.sent), (EndCause::Drained, 8, 8));
    assert_eq!((end.client.received, end.upstream.received), (6, 8));
    assert_eq!(end.client.close, Some(CloseCode::NO_STATUS));
    assert_eq!(end.upstream.close, Some(CloseCode::GOING_AWAY));
}

/// One server is ill, and those of others have nothing to do with it.
#[test]
fn only_the_tunnels_of_one_peer_end() {
    const UNAVAILABLE: &[u8] = b"\x88\x14\x03\xe9server unavailable";
    let mut rig = Rig::new();
    let websocket = |rig: &mut Rig, server: u32| {
        rig.hand_over(|handover| {
            handover.origin.server = server;
            handover.protocol = Protocol::WebSocket(conversation::Settings::default());
        })
    };
    let (mut client, mut upstream) = websocket(&mut rig, 1);
    let (mut other, mut other_upstream) = websocket(&mut rig, 2);
    let unhealthy = EndCause::Closed(Cause::Unhealthy);
    rig.handle.close(Selection::Server(1), unhealthy).unwrap();
    rig.expect(&mut client, UNAVAILABLE);
    rig.until("a Close", || {
        upstream.poll();
        upstream.received.len() == 6 + 2 + b"server unavailable".len()
    });
    upstream.received.clear();
    assert!(rig.is_open(), "it waits for answers");
    client.send(MASKED_CLOSE);
    upstream.send(AWAY);
    assert_eq!(rig.end().cause, unhealthy);
    rig.expect_end(&mut client);
    rig.expect_end(&mut upstream);

    other_upstream.send(b"\x81\x02hi");
    rig.expect(&mut other, b"\x81\x02hi");
    let began = rig.now;
    rig.handle.close(Selection::Server(2), EndCause::Unhealthy).unwrap();
    let end = rig.end();
    assert!(rig.now - began < CLOSING, "nobody is waited for");
    assert_eq!(
        (end.cause, end.client.own_close),
        (EndCause::Unhealthy, Some(CloseCode::GOING_AWAY))
    );
    rig.expect(&mut other, UNAVAILABLE);
    rig.expect_end(&mut other);
}

#[test]
fn a_drained_websocket_that_does_not_answer_ends_in_its_time() {
    let mut rig = Rig::new();
    let (mut client, mut upstream) = rig.websocket();
    let began = rig.now;
    rig.order(EndCause::Drained);
    rig.expect(&mut client, AWAY);
    rig.expect_masked_away(&mut upstream);
    assert_eq!(rig.pass_until_end().cause, EndCause::Drained);
    let waited = rig.now - began;
    assert!(waited >= CLOSING && waited < CLOSING * 11 / 10, "{waited:?}");
    rig.expect_end(&mut client);
    rig.expect_end(&mut upstream);
}

/// The frame under way is finished, the Close follows it, and nothing follows that.
#[test]
fn a_drain_cuts_no_frame_of_a_peer_that_goes_on() {
    let mut rig = Rig::new();
    let (mut client, mut upstream) = rig.websocket();
    upstream.send(b"\x02\x05hel");
    client.send(b"\x82\x85\0\0\0\0");
    rig.expect(&mut client, b"\x02\x05hel");
    rig.expect(&mut upstream, b"\x82\x85\0\0\0\0");
    rig.order(EndCause::Drained);
    // Still nothing of ours, in either direction.
    client.send(b"hel");
    rig.expect(&mut upstream, b"hel");
    upstream.send(b"lo\x80\x01!\x81\x7e");
    rig.expect(&mut client, &[b"lo\x80\x01!", AWAY].concat());
    upstream.send(b"\0\x7e, and what is not heard");
    client.send(b"lo");
    rig.until("a Close", || {
        upstream.poll();
        upstream.received.len() >= 10
    });
    assert!(upstream.received.starts_with(b"lo\x88\x82"));
    upstream.received.clear();
    client.send(MASKED_CLOSE);
    rig.step();
    assert!(rig.is_open(), "the upstream is in a frame of its own still");
    upstream.send(&[b'x'; 0x7e - 23]);
    upstream.send(b"\x88\x00");
    rig.expect_end(&mut client);
    rig.expect_end(&mut upstream);
    let end = rig.end();
    assert_eq!((end.cause, end.client.sent, end.upstream.sent), (EndCause::Drained, 14, 19));
    assert_eq!(end.upstream.received, 5 + 7 + 25 + 103 + 2);
}

/// What the relay keeps for a client that reads slowly is still sent, to the end of the frame.
#[test]
fn a_drain_waits_for_what_is_unsent() {
    let mut rig = Rig::new();
    let (mut client, mut upstream) = rig.hand_over(|handover| {
        handover.protocol = Protocol::WebSocket(conversation::Settings::default());
        narrow(handover);
    });
    let header = b"\x82\x7f\0\0\0\0\0\x20\0\0";
    let said = [&header[..], &noise(1 << 21), b"\x88\x00"].concat();
    let mut left = &said[..];
    while rig.engine.kept_bytes() == 0 {
        left = &left[upstream.send_some(left)..];
        rig.step();
    }
    rig.order(EndCause::Drained);
    rig.expect_masked_away(&mut upstream);
    client.send(MASKED_CLOSE);
    // However long the kernel takes, it is not the relay's time.
    let begin = Instant::now();
    while !client.ended {
        assert!(begin.elapsed() < PATIENCE, "{} bytes came", client.received.len());
        left = &left[upstream.send_some(left)..];
        rig.pass(Duration::ZERO);
        client.poll();
    }
    assert!(client.received == said, "{}", client.received.len());
    assert_eq!(rig.end().client.sent, client.received.len() as u64);
}

/// What a side still says behind our Close needs no room at the other one.
#[test]
fn an_answer_is_read_while_the_other_side_takes_nothing() {
    let mut rig = Rig::new();
    let (_client, mut upstream) = rig.hand_over(|handover| {
        handover.protocol = Protocol::WebSocket(conversation::Settings::default());
        let header = b"\x82\x7f\0\0\0\0\x01\0\0\0";
        handover.upstream.plaintext = [&header[..], &noise(1 << 24)].concat();
    });
    assert!(rig.engine.kept_bytes() > 0);
    rig.order(EndCause::Drained);
    upstream.send(b"\x88\x00");
    rig.step();
    rig.step();
    let end = rig.pass_until_end();
    assert_eq!(end.cause, EndCause::Drained);
    assert_eq!(end.upstream.close, Some(CloseCode::NO_STATUS));
    assert!(end.duration >= CLOSING);
}

#[test]
fn a_drain_is_heard_inside_of_tls() {
    for suite in [SUITES[0], SUITES[3]] {
        let mut rig = Rig::new();
        let Session { keys, peer, .. } = session(suite, Role::Server);
        let (client, mut upstream) = rig.hand_over(|handover| {
            handover.protocol = Protocol::WebSocket(conversation::Settings::default());
            handover.client.tls = LegTls::Keys(Box::new(keys));
        });
        let mut client = TlsPeer::new(client, peer);
        upstream.send(b"\x81\x05he");
        rig.step();
        rig.order(EndCause::Drained);
        upstream.send(b"llo\x88\x00");
        rig.until("the end of the frame", || {
            client.poll();
            client.received.len() >= 9
        });
        assert_eq!(
            client.received, b"\x81\x05hello\x88\x00",
            "the upstream's own Close is the last"
        );
        rig.expect_masked_away(&mut upstream);
        client.send(MASKED_CLOSE);
        rig.until("the end", || {
            client.poll();
            client.wire.ended
        });
        assert!(client.closed && client.error.is_none());
        assert_eq!(rig.end().cause, EndCause::Drained);
    }
}

#[test]
fn nothing_is_put_into_a_frame_or_behind_a_close() {
    let cases: [&[u8]; 3] = [b"\x81\x05he", b"\x88\x02\x03\xe8", b"\xff\xff"];
    for (sent, cause) in
        cases.into_iter().flat_map(|sent| [EndCause::Drained, EndCause::Stopped].map(|c| (sent, c)))
    {
        let mut rig = Rig::new();
        let (mut client, mut upstream) = rig.websocket();
        upstream.send(sent);
        rig.expect(&mut client, sent);
        rig.order(cause);
        if cause == EndCause::Drained {
            rig.pass(2 * CLOSING);
        }
        rig.expect_end(&mut client);
        assert_eq!(rig.end().cause, cause);
    }
}

#[test]
fn a_stop_waits_for_nobody_and_ends_a_drain() {
    for drained in [false, true] {
        let mut rig = Rig::new();
        let (mut client, mut upstream) = rig.websocket();
        client.send(b"\x81\x85\0\0\0\0he");
        rig.expect(&mut upstream, b"\x81\x85\0\0\0\0he");
        if drained {
            rig.order(EndCause::Drained);
        }
        rig.order(EndCause::Stopped);
        let (_, end) = rig.ends.try_recv().unwrap();
        assert_eq!(end.cause, if drained { EndCause::Drained } else { EndCause::Stopped });
        rig.expect(&mut client, AWAY);
        rig.expect_end(&mut client);
        rig.expect_end(&mut upstream);
    }
}

/// Linux answers the close of a socket with unread bytes by RST, and throws away what was written.
#[test]
fn a_stop_is_heard_by_a_client_whose_bytes_were_not_read() {
    let mut rig = Rig::new();
    let (mut client, _upstream) = rig.websocket();
    client.send(&noise(20_000));
    rig.handle.close(Selection::All, EndCause::Stopped).unwrap();
    assert_eq!(rig.end().client.received, 0, "the stop was to come first");
    rig.expect(&mut client, AWAY);
    rig.expect_end(&mut client);
    assert!(!client.reset);
}

#[test]
fn a_drain_ends_at_once_what_is_no_websocket() {
    let mut rig = Rig::new();
    let (mut client, mut upstream) = rig.tunnel();
    rig.order(EndCause::Drained);
    assert_eq!(rig.ends.try_recv().unwrap().1.cause, EndCause::Drained);
    rig.expect_end(&mut client);
    rig.expect_end(&mut upstream);
}

#[test]
fn a_side_that_is_gone_is_not_waited_for() {
    let mut rig = Rig::new();
    let (mut client, upstream) = rig.websocket();
    rig.order(EndCause::Drained);
    rig.expect(&mut client, AWAY);
    drop(upstream);
    rig.step();
    client.send(MASKED_CLOSE);
    let end = rig.end();
    assert_eq!(end.cause, EndCause::Drained);
    assert!(end.duration < CLOSING);
    rig.expect_end(&mut client);
}
