//! Many tunnels that are ready at once, which take the steps of their turns together.

use std::io::ErrorKind;

use wssgate_records::Role;
use wssgate_records::testing::{SUITES, Session, session};

use super::peer::TlsPeer;
use super::*;

/// One end of a tunnel, with TLS or without.
enum End {
    Plain(Peer),
    Secure(Box<TlsPeer>),
}

impl End {
    fn wire(&mut self) -> &mut Peer {
        match self {
            Self::Plain(peer) => peer,
            Self::Secure(peer) => &mut peer.wire,
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        match self {
            Self::Plain(peer) => peer.send(bytes),
            Self::Secure(peer) => peer.send(bytes),
        }
    }

    /// What has arrived, taken away.
    fn take(&mut self) -> Vec<u8> {
        match self {
            Self::Plain(peer) => {
                peer.poll();
                std::mem::take(&mut peer.received)
            }
            Self::Secure(peer) => {
                peer.poll();
                assert_eq!(peer.error, None);
                std::mem::take(&mut peer.received)
            }
        }
    }
}

/// What protects a leg: by turns nothing, and keys of every suite.
fn protection(number: usize, ours: Role) -> (LegTls, Option<rustls::Connection>, Vec<u8>) {
    let suite = SUITES[number / 2 % SUITES.len()];
    match number % 2 {
        0 => (LegTls::Plain, None, Vec::new()),
        _ => {
            let Session { keys, peer, tickets } = session(suite, ours);
            (LegTls::Keys(Box::new(keys)), Some(peer), tickets)
        }
    }
}

fn end(wire: Peer, tls: Option<rustls::Connection>) -> End {
    match tls {
        None => End::Plain(wire),
        Some(tls) => End::Secure(Box::new(TlsPeer::new(wire, tls))),
    }
}

/// A tunnel with one of all pairs of protections.
fn tunnel(rig: &mut Rig, number: usize, buffer_size: usize) -> [End; 2] {
    let (client_tls, client, _) = protection(number, Role::Server);
    let (upstream_tls, upstream, tickets) = protection(number / 2, Role::Client);
    let (client_wire, upstream_wire) = rig.hand_over(|handover| {
        handover.client.tls = client_tls;
        handover.upstream.tls = upstream_tls;
        handover.upstream.ciphertext = tickets;
        handover.buffer_size = buffer_size;
    });
    [end(client_wire, client), end(upstream_wire, upstream)]
}

/// A rig that makes calls together, and one that does not.
fn both() -> impl Iterator<Item = Rig> {
    [false, true].into_iter().filter_map(|io_uring| {
        let rig = Rig::with(Settings { io_uring, ..Settings::default() });
        if io_uring && !rig.engine.is_joint() {
            eprintln!("SKIPPED: joint calls, for the kernel refuses io_uring");
            return None;
        }
        Some(rig)
    })
}

/// More than one group of each protection on either side.
const CROWD: usize = 90;

#[test]
fn every_message_reaches_the_other_end_of_its_own_tunnel() {
    for mut rig in both() {
        let mut tunnels: Vec<_> = (0..CROWD).map(|number| tunnel(&mut rig, number, 4096)).collect();
        // Short ones, one that fills a window, and ones that come in parts of records.
        for (round, len) in [1, 125, 4096, 20_000, 60_000, 125].into_iter().enumerate() {
            for from in [0, 1] {
                let message = |number: usize| noise(len + number)[number..].to_vec();
                for (number, ends) in tunnels.iter_mut().enumerate() {
                    ends[from].send(&message(number));
                }
                for (number, ends) in tunnels.iter_mut().enumerate() {
                    let mut arrived = Vec::new();
                    rig.until("message", || {
                        arrived.extend(ends[1 - from].take());
                        arrived.len() >= len
                    });
                    assert!(arrived == message(number), "tunnel {number}, round {round}");
                }
            }
        }
        assert!(rig.ends.try_recv().is_err(), "no tunnel ends");
        assert_eq!(rig.engine.kept_bytes(), 0);
    }
}

#[test]
fn one_that_ends_breaks_or_is_blocked_takes_nobody_along() {
    const OF_EACH: usize = 12;
    for mut rig in both() {
        let mut tunnels: Vec<_> = (0..OF_EACH)
            .map(|number| {
                let whole = tunnel(&mut rig, number, 4096);
                let [ending, resetting] = [rig.tunnel(), rig.tunnel()];
                let blocked = rig.hand_over(super::bounds::narrow);
                let [client, upstream] =
                    [&blocked.0, &blocked.1].map(|peer| socket2::SockRef::from(&peer.stream));
                client.set_send_buffer_size(32 * 1024).unwrap();
                upstream.set_recv_buffer_size(32 * 1024).unwrap();
                let Session { keys, peer, .. } = session(SUITES[0], Role::Server);
                let (wire, upstream) = rig.hand_over(|handover| {
                    handover.client.tls = LegTls::Keys(Box::new(keys));
                });
                (whole, ending, Some(resetting), blocked, (TlsPeer::new(wire, peer), upstream))
            })
            .collect();
        let flood = noise(2 << 20);
        let mut poured = Vec::new();
        for (.., (client, _), _) in &mut tunnels {
            poured.push(super::bounds::stuff(&mut rig, client, &flood));
        }
        assert!(poured.iter().all(|&sent| sent < flood.len()), "the kernel swallowed everything");

        // All of this is there when the next step begins.
        for (whole, ending, resetting, blocked, garbled) in &mut tunnels {
            whole[0].send(b"hello");
            ending.0.send(b"last");
            ending.0.end();
            if let Some((client, upstream)) = resetting.take() {
                client.reset();
                drop(upstream);
            }
            blocked.1.send(b"back");
            garbled.0.send(b"right");
            garbled
                .0
                .wire
                .send(&[23, 3, 3, 0, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        }
        for (whole, ending, _, blocked, garbled) in &mut tunnels {
            let mut arrived = Vec::new();
            rig.until("hello", || {
                arrived.extend(whole[1].take());
                arrived.len() >= 5
            });
            assert_eq!(arrived, b"hello");
            rig.until("the end", || {
                ending.1.poll();
                ending.1.ended
            });
            assert_eq!(ending.1.received, b"last");
            ending.1.end();
            rig.expect(&mut blocked.0, b"back");
            rig.until("the end", || {
                garbled.1.poll();
                garbled.1.ended
            });
            assert_eq!(garbled.1.received, b"right");
        }
        for ((_, _, _, (client, upstream), _), sent) in tunnels.iter_mut().zip(poured) {
            rig.expect(upstream, &flood[..sent]);
            rig.pour(client, &flood[sent..], upstream);
        }
        let (mut ended, mut broken, mut at_fault) = (0, 0, 0);
        for _ in 0..3 * OF_EACH {
            match rig.end().cause {
                EndCause::Ended(Side::Client) => ended += 1,
                EndCause::Broken(..) => broken += 1,
                EndCause::Tls(Side::Client, TlsFault::BadRecordMac) => at_fault += 1,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!([ended, broken, at_fault], [OF_EACH; 3]);
        assert!(rig.ends.try_recv().is_err(), "no other tunnel ends");
    }
}

/// In groups nothing may lie beyond the buffers, whatever the protections bring to light at once.
#[test]
fn records_that_become_whole_together_find_room() {
    for mut rig in both() {
        let mut tunnels: Vec<_> = (0..64)
            .map(|number| tunnel(&mut rig, if number % 2 == 0 { 1 } else { 3 }, 4096))
            .collect();
        let message = noise(1 << 14);
        let wires: Vec<_> = tunnels
            .iter_mut()
            .map(|[client, _]| match client {
                End::Plain(_) => panic!("it has TLS"),
                End::Secure(client) => client.sealed(&message),
            })
            .collect();
        // No part fills a window, so windows stay small and groups large.
        for start in (0..wires[0].len()).step_by(4000) {
            for ([client, _], wire) in tunnels.iter_mut().zip(&wires) {
                client.wire().send(&wire[start..wire.len().min(start + 4000)]);
            }
            for _ in 0..3 {
                rig.step();
            }
        }
        for [_, upstream] in &mut tunnels {
            let mut arrived = Vec::new();
            rig.until("message", || {
                arrived.extend(upstream.take());
                arrived.len() >= message.len()
            });
            assert!(arrived == message);
        }
    }
}

/// What had a turn, when it was the turn of all `upstreams` at once to say something short.
fn turns_of_short_messages(rig: &mut Rig, tunnels: &mut [(Peer, Peer)]) -> Vec<(usize, bool)> {
    rig.engine.take_turns();
    for (_, upstream) in tunnels.iter_mut() {
        upstream.send(b"short");
    }
    for (client, _) in tunnels {
        rig.expect(client, b"short");
    }
    rig.engine.take_turns()
}

#[test]
fn tunnels_that_have_carried_much_soon_go_together_again() {
    for buffer_size in [4096, 64 << 10, 1 << 20] {
        let mut rig = Rig::new();
        let mut tunnels: Vec<_> =
            (0..6).map(|_| rig.hand_over(|handover| handover.buffer_size = buffer_size)).collect();
        let much = noise(1 << 20);
        for (client, upstream) in &mut tunnels {
            rig.pour(upstream, &much, client);
        }
        for _ in 0..4 {
            turns_of_short_messages(&mut rig, &mut tunnels);
        }
        let mut turns = turns_of_short_messages(&mut rig, &mut tunnels);
        turns.sort_unstable();
        assert_eq!(turns, (0..6).map(|key| (key, true)).collect::<Vec<_>>(), "{buffer_size}");
    }
}

#[test]
fn a_short_message_does_not_wait_for_long_ones_behind_it() {
    let mut rig = Rig::new();
    let mut quiet = rig.tunnel();
    let mut floods: Vec<_> = (0..6).map(|_| rig.tunnel()).collect();
    let much = noise(1 << 20);
    for (client, upstream) in &mut floods {
        rig.pour(upstream, &much, client);
    }
    // Until one step brings it together with those that go alone.
    let mut beside = 0;
    for _ in 0..100 {
        rig.engine.take_turns();
        quiet.1.send(b"short");
        let sent: Vec<_> =
            floods.iter_mut().map(|(_, upstream)| upstream.send_some(&much)).collect();
        rig.step();
        let turns = rig.engine.take_turns();
        if let Some(at) = turns.iter().position(|&turn| turn == (0, true)) {
            assert!(turns[..at].iter().all(|&(_, together)| together), "{turns:?}");
            beside += turns[at..].iter().filter(|&&(_, together)| !together).count();
        }
        rig.expect(&mut quiet.0, b"short");
        for ((client, _), sent) in floods.iter_mut().zip(sent) {
            rig.expect(client, &much[..sent]);
        }
        if beside > 0 {
            return;
        }
    }
    panic!("it was always by itself");
}

#[cfg(target_os = "linux")]
#[test]
fn a_kernel_that_refuses_io_uring_is_told_of_and_asked_again() {
    wssgate_testkit::sandbox::forbid_io_uring().unwrap();
    let mut rig = Rig::new();
    assert_eq!(rig.refusals.try_recv(), Ok(ErrorKind::PermissionDenied));
    let (mut client, mut upstream) = rig.tunnel();
    rig.handle.use_io_uring(true).unwrap();
    upstream.send(b"hello");
    rig.expect(&mut client, b"hello");
    assert_eq!(rig.refusals.try_recv(), Ok(ErrorKind::PermissionDenied));
    rig.handle.use_io_uring(false).unwrap();
    upstream.send(b"again");
    rig.expect(&mut client, b"again");
    assert!(rig.refusals.try_recv().is_err() && !rig.engine.is_joint());
}
