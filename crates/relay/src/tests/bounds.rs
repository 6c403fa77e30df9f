//! What a tunnel may keep, take and leave behind.

use wssgate_records::testing::{SUITES, Session, session};
use wssgate_records::{Records, Role, sealed_len};

use super::peer::TlsPeer;
use super::*;
use crate::tunnel::Tunnel;

/// Sockets that hold little, so that the relay is soon the one that must keep bytes.
pub(super) fn narrow(handover: &mut Handover) {
    for leg in [&handover.client, &handover.upstream] {
        let socket = socket2::SockRef::from(&leg.socket);
        socket.set_send_buffer_size(32 * 1024).unwrap();
        socket.set_recv_buffer_size(32 * 1024).unwrap();
    }
}

/// Sends until the relay takes no more; says how much that was.
pub(super) fn stuff(rig: &mut Rig, from: &mut Peer, bytes: &[u8]) -> usize {
    let (mut sent, mut quiet) = (0, 0);
    while quiet < 20 {
        let more = from.send_some(&bytes[sent..]);
        sent += more;
        quiet = if more == 0 { quiet + 1 } else { 0 };
        rig.step();
    }
    sent
}

#[test]
fn a_peer_that_does_not_read_bounds_what_is_kept_and_then_gets_all_of_it() {
    let mut rig = Rig::new();
    let (mut client, mut upstream) = rig.hand_over(narrow);
    let bytes = noise(16 << 20);
    let sent = stuff(&mut rig, &mut upstream, &bytes);
    assert!(bytes.len() - sent > 1 << 20, "the kernel swallowed everything");
    let kept = rig.engine.kept_bytes();
    assert!(0 < kept && kept <= READ_SIZE, "{kept}");
    rig.expect(&mut client, &bytes[..sent]);
    rig.pour(&mut upstream, &bytes[sent..], &mut client);
    assert_eq!(rig.engine.kept_bytes(), 0);
}

#[test]
fn the_same_holds_under_tls() {
    let mut rig = Rig::new();
    let Session { keys, peer, .. } = session(SUITES[0], Role::Server);
    let (client, mut upstream) = rig.hand_over(|handover| {
        handover.client.tls = LegTls::Keys(Box::new(keys));
        narrow(handover);
    });
    let mut client = TlsPeer::new(client, peer);
    let bytes = noise(16 << 20);
    let sent = stuff(&mut rig, &mut upstream, &bytes);
    assert!(bytes.len() - sent > 1 << 20, "the kernel swallowed everything");
    let kept = rig.engine.kept_bytes();
    assert!(0 < kept && kept <= sealed_len(READ_SIZE), "{kept}");
    rig.until("bytes", || {
        client.poll();
        client.received.len() >= sent
    });
    assert!(client.received == bytes[..sent]);
    assert_eq!(rig.engine.kept_bytes(), 0);
}

#[test]
fn a_slow_peer_is_read_for_by_small_pieces() {
    let mut rig = Rig::new();
    let (mut client, mut upstream) = rig.hand_over(narrow);
    let bytes = noise(8 << 20);
    let mut left = &bytes[..];
    let mut most = 0;
    rig.until("bytes", || {
        left = &left[upstream.send_some(left)..];
        let mut buffer = [0; 1500];
        if let Ok(n) = std::io::Read::read(&mut client.stream, &mut buffer) {
            client.received.extend_from_slice(&buffer[..n]);
        }
        most = most.max(client.received.len());
        most > 1 << 19
    });
    // Not always one buffer: the window grows again with what the kernel takes between two refusals.
    // For one of 64 KiB that would be 60 KiB at once, more than this one has room for.
    let kept = rig.engine.kept_bytes();
    assert!(kept <= 32 * 1024, "{kept}");
    assert!(client.received == bytes[..client.received.len()]);
}

#[test]
fn a_flood_leaves_its_neighbour_every_other_turn() {
    let mut rig = Rig::with(Settings { turn_bytes: 4096, ..Settings::default() });
    let (mut flooder, mut sink) = rig.hand_over(|handover| handover.buffer_size = 1024);
    let (mut client, mut upstream) = rig.tunnel();
    let flood = noise(1 << 18);
    let sent = flooder.send_some(&flood);
    assert!(sent > 1 << 16);
    client.send(b"me too");
    let mut steps = 0;
    rig.until("neighbour", || {
        steps += 1;
        upstream.poll();
        sink.poll();
        !upstream.received.is_empty()
    });
    assert_eq!(upstream.received, b"me too");
    assert!(sink.received.len() < sent / 2, "{} of {sent}", sink.received.len());
    assert!(steps <= 4, "{steps}");
    rig.expect(&mut sink, &flood[..sent]);
}

#[test]
fn a_reset_of_either_side_is_told_and_ends_the_other() {
    for side in [Side::Client, Side::Upstream] {
        let mut rig = Rig::new();
        let (client, upstream) = rig.tunnel();
        let (resetting, mut other) = match side {
            Side::Client => (client, upstream),
            Side::Upstream => (upstream, client),
        };
        resetting.reset();
        rig.expect_end(&mut other);
        let end = rig.end();
        assert_eq!(end.cause, EndCause::Broken(side, 104));
    }
}

#[test]
fn what_a_side_sent_before_its_reset_still_arrives() {
    let mut rig = Rig::new();
    let (mut client, mut upstream) = rig.tunnel();
    upstream.send(b"last words");
    // They are in the relay's hands before the reset is.
    rig.until("bytes", || {
        client.poll();
        !client.received.is_empty()
    });
    upstream.send(b", really");
    upstream.reset();
    rig.until("end", || {
        client.poll();
        client.ended
    });
    assert!(client.received.starts_with(b"last words"));
    assert!(matches!(rig.end().cause, EndCause::Broken(Side::Upstream, _)));
}

#[test]
fn a_reset_while_bytes_are_kept_ends_the_tunnel() {
    let mut rig = Rig::new();
    let (client, mut upstream) = rig.hand_over(narrow);
    stuff(&mut rig, &mut upstream, &noise(16 << 20));
    assert!(rig.engine.kept_bytes() > 0);
    client.reset();
    let end = rig.end();
    assert!(matches!(end.cause, EndCause::Broken(Side::Client, _)), "{:?}", end.cause);
    assert_eq!(rig.engine.kept_bytes(), 0);
}

/// A client that is not read while the upstream takes nothing is not forgotten: nobody need wait for
/// a timer to learn that it is gone.
#[test]
fn a_reset_of_a_side_that_is_not_read_is_noticed_at_once() {
    let hour = Duration::from_secs(3600);
    let soon = Duration::from_secs(300);
    let mut rig = Rig::new();
    let (mut client, mut upstream) = rig.hand_over(|handover| {
        narrow(handover);
        handover.timers = Timers {
            read: hour,
            upstream_send: hour,
            client_send: hour,
            half_close: soon,
            progress: None,
        };
    });
    let bytes = noise(16 << 20);
    stuff(&mut rig, &mut client, &bytes);
    assert!(rig.engine.kept_bytes() > 0 && rig.sleep() > 2 * soon);
    client.reset();
    rig.step();
    // Its direction to the upstream is half a tunnel from now on.
    assert!(rig.sleep() < 2 * soon);
    rig.until("end", || {
        upstream.poll();
        upstream.ended
    });
    assert!(!upstream.reset && bytes.starts_with(&upstream.received));
    let end = rig.end();
    assert_eq!(end.cause, EndCause::Broken(Side::Client, 104));
    // What the client had sent before is still carried.
    assert_eq!(end.upstream.sent, upstream.received.len() as u64);
    assert_eq!(end.upstream.sent, end.client.received);
}

/// RFC 6455 §7.1.1: an upstream may say why it gives up while the client is still sending.
#[test]
fn a_close_before_a_reset_is_heard_by_a_client_that_was_not_read_to_its_end() {
    let mut rig = Rig::new();
    let (mut client, mut upstream) = rig.hand_over(narrow);
    upstream.send(b"\x88\x02\x03\xf1");
    upstream.reset();
    client.send(&noise(100_000));
    assert!(matches!(rig.end().cause, EndCause::Broken(Side::Upstream, _)));
    rig.expect(&mut client, b"\x88\x02\x03\xf1");
    rig.expect_end(&mut client);
    assert!(!client.reset);
}

#[test]
fn a_reset_after_half_close_ends_the_tunnel() {
    for side in [Side::Client, Side::Upstream] {
        let mut rig = Rig::new();
        let (mut client, mut upstream) = rig.tunnel();
        client.end();
        rig.expect_end(&mut upstream);
        // The reset of a client that has ended only shows as an event, and says nothing new.
        let expected = match side {
            Side::Client => EndCause::Ended(Side::Client),
            Side::Upstream => EndCause::Broken(Side::Upstream, 104),
        };
        match side {
            Side::Client => client.reset(),
            Side::Upstream => upstream.reset(),
        }
        assert_eq!(rig.end().cause, expected);
    }
}

#[test]
fn a_side_that_had_ended_at_the_hand_over_ends_there() {
    let mut rig = Rig::new();
    let (mut client, mut upstream) = rig.hand_over(|handover| {
        handover.upstream.plaintext = b"all of it".to_vec();
        handover.upstream.ended = true;
    });
    rig.expect(&mut client, b"all of it");
    rig.expect_end(&mut client);
    client.send(b"thanks");
    client.end();
    rig.expect(&mut upstream, b"thanks");
    assert_eq!(rig.end().cause, EndCause::Ended(Side::Upstream));
}

#[test]
fn frames_are_counted_and_closes_noted() {
    let mut rig = Rig::new();
    let (mut client, mut upstream) = rig.hand_over(|handover| {
        handover.protocol = Protocol::WebSocket(conversation::Settings::default())
    });
    client.send(b"\x81\x82\0\0\0\0hi\x88\x82\0\0\0\0\x03\xe8");
    client.end();
    rig.expect(&mut upstream, b"\x81\x82\0\0\0\0hi\x88\x82\0\0\0\0\x03\xe8");
    upstream.send(b"\x88\x02\x03\xe9\xff\xff");
    upstream.end();
    rig.expect(&mut client, b"\x88\x02\x03\xe9\xff\xff");
    let end = rig.end();
    let frames = end.client.frames.unwrap();
    assert_eq!((frames.frames, frames.messages), (2, 1));
    assert_eq!(
        (end.client.close, end.upstream.close),
        (Some(CloseCode(1000)), Some(CloseCode(1001)))
    );
    assert!(end.client.broken.is_none() && end.upstream.broken.is_some());
    assert_eq!(end.first_close, Some(Side::Client));
}

fn unix_leg(near: std::os::unix::net::UnixStream, read_ahead: Vec<u8>) -> Leg {
    Leg { unix: true, ..Leg::plain(near, read_ahead) }
}

#[test]
fn unix_sockets_are_legs_too() {
    let mut rig = Rig::new();
    let (far, near) = std::os::unix::net::UnixStream::pair().unwrap();
    let (mut client, _upstream) =
        rig.hand_over(|handover| handover.upstream = unix_leg(near, b"from unix".to_vec()));
    rig.expect(&mut client, b"from unix");
    client.send(b"to unix");
    far.set_nonblocking(true).unwrap();
    let mut buffer = [0; 16];
    let mut read = 0;
    rig.until("bytes", || {
        read = std::io::Read::read(&mut &far, &mut buffer).unwrap_or(0);
        read > 0
    });
    assert_eq!(&buffer[..read], b"to unix");
    // That the peer has read is no news.
    rig.step();
    assert_eq!(rig.engine.events(), 0);
}

#[test]
fn a_unix_peer_that_was_slow_gets_the_rest() {
    let mut rig = Rig::new();
    let (far, near) = std::os::unix::net::UnixStream::pair().unwrap();
    let (mut client, _) = rig.hand_over(|handover| {
        handover.upstream = unix_leg(near, Vec::new());
        narrow(handover);
    });
    let bytes = noise(16 << 20);
    let mut sent = stuff(&mut rig, &mut client, &bytes);
    assert!(sent < bytes.len() && rig.engine.kept_bytes() > 0);
    far.set_nonblocking(true).unwrap();
    let mut received = Vec::new();
    rig.until("bytes", || {
        sent += client.send_some(&bytes[sent..]);
        // It reads to the end of what is there, and says so with an error.
        std::io::Read::read_to_end(&mut &far, &mut received).ok();
        received.len() == bytes.len()
    });
    assert!(received == bytes);
}

#[test]
fn a_thousand_tunnels_leave_nothing_behind() {
    let mut rig = Rig::new();
    let handle = rig.handle.clone();
    for _ in 0..10 {
        let mut peers: Vec<_> = (0..100).map(|_| rig.tunnel()).collect();
        assert_eq!(handle.live(), 100);
        for (client, upstream) in &mut peers {
            client.send(b"x");
            upstream.send(b"y");
        }
        for (at, (mut client, mut upstream)) in peers.into_iter().enumerate() {
            match at % 4 {
                0 => drop(client),
                1 => upstream.reset(),
                2 => {
                    client.end();
                    upstream.end();
                    rig.expect(&mut client, b"y");
                    rig.expect_end(&mut client);
                }
                _ => {
                    rig.handle.close(Selection::Ticket(rig.next_ticket), EndCause::Killed).unwrap()
                }
            }
        }
        rig.until("ends", || handle.live() == 0);
        assert!(rig.engine.is_empty());
        assert!(rig.engine.slots() <= 128);
    }
    assert_eq!(rig.ends.try_iter().count(), 1_000);
    assert_eq!(rig.handle.counters().tunnels.value(), 1_000);
}

#[test]
fn an_idle_tunnel_is_small() {
    // Of a plain one nothing is on the heap; TLS adds the records of a leg, and expanded keys while
    // bytes move.
    let (tunnel, records) = (size_of::<Tunnel>(), size_of::<Records>());
    assert!(tunnel <= 896, "{tunnel}");
    assert!(tunnel + 2 * records <= 1864, "{records}");
}
