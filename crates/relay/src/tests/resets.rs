//! Ends out of order: resets in every state of a tunnel, and TLS that ends without close_notify.

use std::os::fd::AsFd;

use rustls::{CipherSuite, Connection};
use wssgate_records::Role;
use wssgate_records::testing::{SUITES, Session, session};

use super::peer::TlsPeer;
use super::*;

const TLS13: CipherSuite = SUITES[0];
const TLS12: CipherSuite = SUITES[3];
const SIDES: [Side; 2] = [Side::Client, Side::Upstream];

/// What protects a leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wire {
    Plain,
    Keys(CipherSuite),
}

const TLS: [Wire; 2] = [Wire::Keys(TLS13), Wire::Keys(TLS12)];
const WIRES: [Wire; 3] = [Wire::Plain, TLS[0], TLS[1]];

/// The other end of a leg, plain or TLS.
struct Far {
    wire: Option<Peer>,
    tls: Option<Box<TlsPeer>>,
}

impl Far {
    fn new(wire: Peer, tls: Option<Connection>) -> Self {
        match tls {
            None => Self { wire: Some(wire), tls: None },
            Some(tls) => Self { wire: None, tls: Some(Box::new(TlsPeer::new(wire, tls))) },
        }
    }

    fn wire(&mut self) -> &mut Peer {
        match &mut self.tls {
            Some(tls) => &mut tls.wire,
            None => self.wire.as_mut().unwrap(),
        }
    }

    /// What `plain` becomes on the wire.
    fn sealed(&mut self, plain: &[u8]) -> Vec<u8> {
        self.tls.as_mut().map_or_else(|| plain.to_vec(), |tls| tls.sealed(plain))
    }

    fn send(&mut self, plain: &[u8]) {
        let wire = self.sealed(plain);
        self.wire().send(&wire);
    }

    /// Reads what is there, to `received` of the one that is spoken to.
    fn poll(&mut self) {
        match &mut self.tls {
            Some(tls) => tls.poll(),
            None => self.wire().poll(),
        }
    }

    fn received(&mut self) -> &mut Vec<u8> {
        match &mut self.tls {
            Some(tls) => &mut tls.received,
            None => &mut self.wire.as_mut().unwrap().received,
        }
    }

    /// Ends its direction in good order.
    fn end(&mut self) {
        let goodbye = self.tls.as_mut().map(|tls| tls.close_notify()).unwrap_or_default();
        self.wire().send(&goodbye);
        self.wire().end();
    }

    fn reset(self) {
        self.tls.map_or_else(|| self.wire.unwrap(), |tls| tls.wire).reset();
    }
}

impl Rig {
    /// A tunnel with `wire` on one side.
    fn carry(&mut self, wire: Wire, on: Side, edit: impl FnOnce(&mut Handover)) -> (Far, Far) {
        let we = if on == Side::Client { Role::Server } else { Role::Client };
        let (ours, theirs, tickets) = match wire {
            Wire::Plain => (LegTls::Plain, None, Vec::new()),
            Wire::Keys(suite) => {
                let Session { keys, peer, tickets } = session(suite, we);
                (LegTls::Keys(Box::new(keys)), Some(peer), tickets)
            }
        };
        let (client, upstream) = self.hand_over(|handover| {
            handover.protocol = Protocol::WebSocket(conversation::Settings::default());
            let leg = match on {
                Side::Client => &mut handover.client,
                Side::Upstream => &mut handover.upstream,
            };
            leg.tls = ours;
            leg.ciphertext = tickets;
            edit(handover);
        });
        match on {
            Side::Client => (Far::new(client, theirs), Far::new(upstream, None)),
            Side::Upstream => (Far::new(client, None), Far::new(upstream, theirs)),
        }
    }

    /// Steps until this much has arrived, and takes it.
    fn take(&mut self, to: &mut Far, expected: &[u8]) {
        self.until("bytes", || {
            to.poll();
            to.received().len() >= expected.len() || to.wire().ended
        });
        assert!(to.received() == expected, "{} of {}", to.received().len(), expected.len());
        to.received().clear();
    }

    fn expect_quiet(&mut self) {
        for _ in 0..3 {
            self.step();
        }
        assert!(self.ends.try_recv().is_err(), "ended before the reset");
    }
}

/// Where a tunnel stands when a side resets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Bytes went both ways, none is under way.
    Idle,
    /// This side has sent half a frame.
    MidFrame(Side),
    /// The client has sent half a TLS record.
    MidRecord,
    /// This side has ended its direction.
    HalfClosed(Side),
    /// This side has ended, and the other has not taken all that it said.
    Draining(Side),
    /// This side takes nothing, and the other one sends.
    Blocked(Side),
}

const STATES: [State; 10] = [
    State::Idle,
    State::MidFrame(Side::Client),
    State::MidFrame(Side::Upstream),
    State::MidRecord,
    State::HalfClosed(Side::Client),
    State::HalfClosed(Side::Upstream),
    State::Draining(Side::Client),
    State::Draining(Side::Upstream),
    State::Blocked(Side::Client),
    State::Blocked(Side::Upstream),
];

/// More than the narrow sockets of a leg and its peer hold.
const MUCH: usize = 1 << 20;

/// Half a text message of ten bytes.
fn half_a_frame(from: Side) -> &'static [u8] {
    match from {
        Side::Client => b"\x81\x8a\0\0\0\0hello",
        Side::Upstream => b"\x81\x0ahello",
    }
}

/// Makes the kernel hold little, so that the relay is soon the one that must keep bytes.
fn narrow(socket: &impl AsFd) {
    let socket = socket2::SockRef::from(socket);
    socket.set_send_buffer_size(32 * 1024).unwrap();
    socket.set_recv_buffer_size(32 * 1024).unwrap();
}

/// Whether a tunnel with `wire` towards its client can stand there: TLS 1.2 is never half closed.
fn exists(state: State, wire: Wire) -> bool {
    match state {
        State::MidRecord => wire != Wire::Plain,
        State::HalfClosed(Side::Client) => wire != Wire::Keys(TLS12),
        _ => true,
    }
}

/// Brings a new tunnel into a state.
fn tunnel_in(rig: &mut Rig, state: State, wire: Wire) -> (Far, Far) {
    let (mut client, mut upstream) = rig.carry(wire, Side::Client, |handover| {
        narrow(&handover.client.socket);
        narrow(&handover.upstream.socket);
        // Only at a hand-over and with TLS are bytes and their end read together.
        if let State::Draining(side) = state {
            let leg = match side {
                Side::Client => &mut handover.client,
                Side::Upstream => &mut handover.upstream,
            };
            leg.plaintext = noise(MUCH);
            leg.ended = true;
        }
    });
    narrow(&client.wire().stream);
    narrow(&upstream.wire().stream);
    match state {
        State::Idle => {
            client.send(b"question");
            rig.take(&mut upstream, b"question");
            upstream.send(b"answer");
            rig.take(&mut client, b"answer");
        }
        State::MidFrame(Side::Client) => {
            client.send(half_a_frame(Side::Client));
            rig.take(&mut upstream, half_a_frame(Side::Client));
        }
        State::MidFrame(Side::Upstream) => {
            upstream.send(half_a_frame(Side::Upstream));
            rig.take(&mut client, half_a_frame(Side::Upstream));
        }
        State::MidRecord => {
            let wire = client.sealed(b"cut");
            client.wire().send(&wire[..wire.len() / 2]);
        }
        State::HalfClosed(side) => {
            let (from, to) = match side {
                Side::Client => (&mut client, &mut upstream),
                Side::Upstream => (&mut upstream, &mut client),
            };
            from.end();
            rig.until("end", || {
                to.poll();
                to.wire().ended
            });
        }
        State::Draining(_) => assert!(rig.engine.kept_bytes() > 0),
        State::Blocked(side) => {
            let from = if side == Side::Client { &mut upstream } else { &mut client };
            let bytes = from.sealed(&noise(MUCH));
            let (mut sent, mut quiet) = (0, 0);
            while quiet < 10 {
                let more = from.wire().send_some(&bytes[sent..]);
                sent += more;
                quiet = if more == 0 { quiet + 1 } else { 0 };
                rig.step();
            }
            assert!(sent < bytes.len() && rig.engine.kept_bytes() > 0);
        }
    }
    rig.expect_quiet();
    (client, upstream)
}

/// Who is named. A side that ended in good order and then resets has only closed its socket at once.
fn named(end: &TunnelEnd, state: State, by: Side) -> bool {
    match (state, end.cause) {
        (State::HalfClosed(ended) | State::Draining(ended), EndCause::Ended(side)) => {
            side == ended && ended == by
        }
        (_, EndCause::Broken(side, _)) => side == by,
        _ => false,
    }
}

fn that_side_first(side: Side, client: Far, upstream: Far) -> (Far, Far) {
    match side {
        Side::Client => (client, upstream),
        Side::Upstream => (upstream, client),
    }
}

/// Long before any timer, for those of a tunnel here are a minute.
#[test]
fn a_reset_ends_a_tunnel_in_every_state_and_no_other() {
    for wire in WIRES {
        for state in STATES {
            if !exists(state, wire) {
                continue;
            }
            for by in SIDES {
                let row = format!("{wire:?}, {state:?}, reset by the {by:?}");
                let mut rig = Rig::new();
                let (mut neighbour, mut behind) = rig.tunnel();
                let (client, upstream) = tunnel_in(&mut rig, state, wire);
                let (resetting, mut other) = that_side_first(by, client, upstream);
                resetting.reset();
                // Who had stopped to read goes on now.
                rig.until(&row, || {
                    other.poll();
                    other.wire().ended
                });
                let end = rig.end();
                assert!(named(&end, state, by), "{row}: {end:?}");
                assert_eq!(rig.engine.kept_bytes(), 0, "{row}");
                // What a side said before it ended in good order is no one else's to lose.
                if state == State::Draining(by) {
                    assert!(*other.received() == noise(MUCH), "{row}");
                }
                assert_eq!(rig.handle.live(), 1, "{row}");
                neighbour.send(b"still");
                rig.expect(&mut behind, b"still");
                behind.send(b"here");
                rig.expect(&mut neighbour, b"here");
                assert!(rig.ends.try_recv().is_err(), "{row}: ended twice");
            }
        }
    }
}

/// As in the table, but that the one who blocks is the one who resets, and nobody reads.
#[test]
fn a_side_that_takes_nothing_and_resets_lets_go_of_what_was_kept_for_it() {
    for wire in WIRES {
        for side in SIDES {
            let mut rig = Rig::new();
            let (client, upstream) = tunnel_in(&mut rig, State::Blocked(side), wire);
            let (resetting, _silent) = that_side_first(side, client, upstream);
            resetting.reset();
            let end = rig.end();
            assert!(matches!(end.cause, EndCause::Broken(broken, _) if broken == side), "{end:?}");
            assert!(rig.engine.is_empty() && rig.engine.kept_bytes() == 0);
        }
    }
}

/// A reset and the word of a drain that the relay hears of together: the tunnel ends once.
#[test]
fn a_reset_during_a_drain_changes_nothing() {
    for wire in WIRES {
        for state in STATES {
            if !exists(state, wire) {
                continue;
            }
            for by in SIDES {
                let mut rig = Rig::new();
                let (mut neighbour, mut behind) =
                    rig.hand_over(|handover| handover.origin.generation = 1);
                let (client, upstream) = tunnel_in(&mut rig, state, wire);
                let (resetting, _other) = that_side_first(by, client, upstream);
                rig.handle.close(Selection::Generation(0), EndCause::Drained).unwrap();
                resetting.reset();
                let end = rig.pass_until_end();
                assert_eq!(end.cause, EndCause::Drained, "{wire:?}, {state:?}, {by:?}");
                assert_eq!((rig.engine.kept_bytes(), rig.handle.live()), (0, 1));
                neighbour.send(b"still here");
                rig.expect(&mut behind, b"still here");
                assert!(rig.ends.try_recv().is_err(), "ended twice");
            }
        }
    }
}

/// FIN without close_notify, at the border of a record and at every kind of place inside of one.
#[test]
fn tls_without_a_close_notify_delivers_what_is_whole_and_notes_the_side() {
    // How much of the next record comes: none, a part of its head, its head, more, all but a byte.
    let cuts: [fn(usize) -> usize; 5] = [|_| 0, |_| 3, |_| 5, |len| len / 2, |len| len - 1];
    for wire in TLS {
        for side in SIDES {
            for cut in cuts {
                let mut rig = Rig::new();
                let (client, upstream) = rig.carry(wire, side, |_| {});
                let (mut truncated, mut other) = that_side_first(side, client, upstream);
                truncated.send(b"whole");
                let next = truncated.sealed(b"never whole");
                let cut = cut(next.len());
                truncated.wire().send(&next[..cut]);
                truncated.wire().end();
                let row = format!("{wire:?} of the {side:?}, {cut} bytes of a record");
                rig.take(&mut other, b"whole");
                rig.until(&row, || {
                    other.poll();
                    other.wire().ended
                });
                assert!(other.received().is_empty(), "{row}");
                // The other direction is still in order.
                other.send(b"answer");
                other.end();
                rig.take(&mut truncated, b"answer");
                rig.until(&row, || {
                    truncated.poll();
                    truncated.wire().ended
                });
                let tls = truncated.tls.as_ref().unwrap();
                assert!(tls.closed && tls.error.is_none(), "{row}: {:?}", tls.error);
                let end = rig.end();
                assert_eq!(end.cause, EndCause::Ended(side), "{row}");
                let (of_it, of_other) = match side {
                    Side::Client => (end.client, end.upstream),
                    Side::Upstream => (end.upstream, end.client),
                };
                assert_eq!((of_it.truncated, of_other.truncated), (true, false), "{row}");
                assert_eq!((of_it.received, of_other.received), (5, 6), "{row}");
                assert!(rig.engine.is_empty() && rig.engine.kept_bytes() == 0, "{row}");
            }
        }
    }
}
