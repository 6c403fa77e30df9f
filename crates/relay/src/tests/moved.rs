//! Tunnels that move to another relay, as they do to another process.

use std::os::fd::{AsFd, OwnedFd};

use wssgate_records::testing::SUITES;
use wssgate_sys::memory::Secret;

use super::bounds::{narrow, stuff};
use super::keep_alive::INTERVAL;
use super::peer::TlsPeer;
use super::secure::{secure, tls_in_front};
use super::*;
use crate::listing::Label;
use crate::moving::{
    Announcement, Arriving, Binding, Expected, Fate, Frozen, Page, Record, Refused, Resume,
    announcements,
};

impl Rig {
    /// Another process, whose clock shows something else.
    fn elsewhere() -> Self {
        Self { now: Duration::from_secs(100_000), ..Self::new() }
    }

    fn now_ms(&self) -> u64 {
        self.now.as_millis() as u64
    }

    fn freeze(&mut self) -> Page {
        let page = self.handle.take_frozen(0, false).unwrap();
        self.step();
        self.handle.owing(page.recv().unwrap())
    }

    fn announce(&mut self) -> Vec<Announcement> {
        let states = self.handle.take_states(0).unwrap();
        self.step();
        announcements(states.recv().unwrap()).tunnels
    }

    /// Expects what is announced.
    fn expect_arrival(&self, announcement: Announcement) -> Expected {
        let (ticket, mut record) = (announcement.ticket, Secret::default());
        announcement.record(b"extra", &mut record);
        let arriving = Arriving::decode(&record).unwrap();
        assert_eq!((arriving.extra(), arriving.instead_of()), (&b"extra"[..], None));
        arriving.expect_at(binding(ticket), &self.handle, self.now_ms()).unwrap()
    }

    /// Goes on with all of these.
    fn go_on(&mut self, frozen: &Frozen, edit: impl Fn(&mut Binding)) {
        let tunnels = (0..frozen.len()).map(|number| {
            let record = record(frozen, number, b"extra");
            let arriving = Arriving::decode(&record).unwrap();
            assert_eq!(arriving.extra(), b"extra");
            let mut binding = binding(frozen.tickets()[number]);
            edit(&mut binding);
            let bound = arriving.expect_at(binding, &self.handle, self.now_ms());
            bound.unwrap().connect(passed(frozen, number))
        });
        let tunnels: Vec<Resume> = tunnels.collect();
        self.handle.resume(tunnels).unwrap();
        self.step();
    }
}

fn binding(ticket: u64) -> Binding {
    Binding {
        ticket,
        origin: Origin::default(),
        label: Some(Label::new(ticket)),
        timers: Timers::default(),
        buffer_size: 4096,
        policy: None,
        meters: None,
    }
}

fn record(frozen: &Frozen, number: usize, extra: &[u8]) -> Secret {
    let mut record = Secret::default();
    frozen.record(number, extra, &mut record);
    record
}

/// The sockets as another process receives them.
fn passed(frozen: &Frozen, number: usize) -> [OwnedFd; 2] {
    frozen.sockets(number).map(|socket| socket.try_clone_to_owned().unwrap())
}

/// Moves all tunnels, and makes sure that nothing is left behind.
fn move_all(from: &mut Rig, to: &mut Rig) -> usize {
    let page = from.freeze();
    assert_eq!((page.stays, page.next), (0, None));
    let (frozen, live) = (page.frozen, from.handle.live());
    let moved = frozen.len();
    to.go_on(&frozen, |_| {});
    frozen.settle(|_| Fate::Moved);
    from.step();
    from.pass(Duration::from_millis(10));
    assert!(from.ends.try_recv().is_err(), "what has moved has not ended");
    let reports: Vec<_> = from.reports.try_iter().filter(|(_, it)| *it == Report::Moved).collect();
    assert_eq!((reports.len(), from.handle.live()), (moved, live - moved));
    assert!(from.engine.is_empty());
    moved
}

#[test]
fn bytes_pass_both_ways_under_every_suite_behind_a_move() {
    for suite in SUITES {
        let (mut rig, mut other) = (Rig::new(), Rig::elsewhere());
        let (mut client, mut upstream) = secure(&mut rig, suite, suite, |_, _| {});
        for round in 0..3 {
            client.send(b"ping");
            rig.expect_tls(&mut upstream, b"ping");
            upstream.send(&noise(40_000));
            rig.expect_tls(&mut client, &noise(40_000));
            assert_eq!(move_all(&mut rig, &mut other), 1, "{round}");
            std::mem::swap(&mut rig, &mut other);
        }
        let wire = client.close_notify();
        client.wire.send(&wire);
        client.wire.end();
        rig.expect_close_notify(&mut upstream);
        let wire = upstream.close_notify();
        upstream.wire.send(&wire);
        upstream.wire.end();
        let end = rig.end();
        assert_eq!(end.cause, EndCause::Ended(Side::Client));
        assert_eq!((end.client.received, end.client.sent), (12, 120_000));
        assert_eq!((end.upstream.received, end.upstream.sent), (120_000, 12));
    }
}

#[test]
fn a_record_whose_rest_has_not_come_goes_on_where_it_was_cut() {
    for cut in [1, 4, 5, 6, 20, 30] {
        let (mut rig, mut other) = (Rig::new(), Rig::elsewhere());
        let (mut client, mut upstream) = tls_in_front(&mut rig, SUITES[0]);
        let wire = client.sealed(b"a record in two parts");
        client.wire.send(&wire[..cut]);
        (0..5).for_each(|_| rig.step());
        move_all(&mut rig, &mut other);
        client.wire.send(&wire[cut..]);
        other.expect(&mut upstream, b"a record in two parts");
    }
}

#[test]
fn what_the_kernel_has_received_waits_in_the_socket() {
    let (mut rig, mut other) = (Rig::new(), Rig::elsewhere());
    let (mut client, mut upstream) = rig.tunnel();
    let page = rig.freeze();
    client.send(b"while nobody reads");
    upstream.send(b"and this");
    client.end();
    (0..5).for_each(|_| rig.step());
    other.go_on(&page.frozen, |_| {});
    page.frozen.settle(|_| Fate::Moved);
    rig.step();
    other.expect(&mut upstream, b"while nobody reads");
    other.expect_end(&mut upstream);
    upstream.end();
    other.until("the answer", || {
        client.poll();
        client.ended
    });
    assert_eq!(client.received, b"and this");
    assert_eq!(other.end().cause, EndCause::Ended(Side::Client));
}

#[test]
fn bytes_for_a_slow_side_arrive_from_the_new_place() {
    let (mut rig, mut other) = (Rig::new(), Rig::elsewhere());
    let (mut client, mut upstream) = rig.hand_over(narrow);
    let bytes = noise(3 << 20);
    // Until the relay keeps some, because the client takes nothing.
    let sent = stuff(&mut rig, &mut upstream, &bytes);
    let mut left = &bytes[sent..];
    assert!(rig.engine.kept_bytes() > 0, "nothing waits");
    move_all(&mut rig, &mut other);
    other.until("all bytes", || {
        left = &left[upstream.send_some(left)..];
        client.poll();
        client.received.len() >= bytes.len()
    });
    assert!(client.received == bytes);
    drop((client, upstream));
    let end = other.end();
    assert_eq!((end.upstream.received, end.client.sent), (bytes.len() as u64, bytes.len() as u64));
    assert!(end.client.blocked > Duration::ZERO);
}

#[test]
fn a_half_closed_tunnel_moves_and_ends_as_it_would_have() {
    for suite in SUITES {
        let (mut rig, mut other) = (Rig::new(), Rig::elsewhere());
        let (mut client, mut upstream) = tls_in_front(&mut rig, suite);
        upstream.end();
        rig.expect_close_notify_only(&mut client);
        move_all(&mut rig, &mut other);
        client.send(b"still");
        other.expect(&mut upstream, b"still");
        let wire = client.close_notify();
        client.wire.send(&wire);
        client.wire.end();
        other.expect_end(&mut upstream);
        let end = other.end();
        assert_eq!(end.cause, EndCause::Ended(Side::Upstream), "{suite:?}");
        assert_eq!((end.client.received, end.upstream.sent), (5, 5));
    }
}

impl Rig {
    /// The end of one direction; the connection stays.
    fn expect_close_notify_only(&mut self, of: &mut TlsPeer) {
        self.until("close_notify", || {
            of.poll();
            of.closed
        });
    }
}

#[test]
fn a_websocket_is_followed_to_its_last_byte() {
    let (mut rig, mut other) = (Rig::new(), Rig::elsewhere());
    let (mut client, mut upstream) = rig.websocket();
    // Two messages and a half; the rest of the third comes behind the move.
    let message = b"\x82\x83\0\0\0\0abc";
    let sent = [&message[..], message, &message[..7]].concat();
    client.send(&sent);
    rig.expect(&mut upstream, &sent);
    rig.pass(Duration::from_secs(2));
    move_all(&mut rig, &mut other);
    client.send(&message[7..]);
    other.expect(&mut upstream, &message[7..]);
    other.pass(Duration::from_secs(3));
    client.send(b"\x88\x82\0\0\0\0\x03\xe8");
    other.expect(&mut upstream, b"\x88\x82\0\0\0\0\x03\xe8");
    upstream.send(b"\x88\x02\x03\xe8");
    other.expect(&mut client, b"\x88\x02\x03\xe8");
    drop((client, upstream));
    let end = other.end();
    let counts = end.client.frames.unwrap();
    assert_eq!((counts.messages, counts.payload, counts.frames), (3, 9, 4));
    assert_eq!(
        (end.client.close, end.upstream.close),
        (Some(CloseCode(1000)), Some(CloseCode(1000)))
    );
    assert_eq!(end.first_close, Some(Side::Client));
    assert!(end.duration >= Duration::from_secs(5) && end.duration < Duration::from_secs(20));
}

#[test]
fn pings_go_on_and_a_dead_peer_is_found_behind_a_move() {
    let (mut rig, mut other) = (Rig::new(), Rig::elsewhere());
    let (mut client, mut upstream) = rig.asked();
    rig.answered_pings(&mut client, &mut upstream);
    // With a ping that has its answer still to come.
    let [to_client, to_upstream] = rig.pings(&mut client, &mut upstream);
    move_all(&mut rig, &mut other);
    client.send(&[b"\x8a\x88\0\0\0\0", &to_client[..]].concat());
    upstream.send(&[b"\x8a\x08", &to_upstream[..]].concat());
    other.until_answered(&[wssgate_ws::Side::Client, wssgate_ws::Side::Server]);
    let [_, to_upstream] = other.pings(&mut client, &mut upstream);
    upstream.send(&[b"\x8a\x08", &to_upstream[..]].concat());
    let end = other.pass_until_end();
    assert_eq!(end.cause, EndCause::Lost(Side::Client));
    assert!(end.client.rtt.is_some() && end.duration < INTERVAL * 20, "{:?}", end.duration);
    assert_eq!(end.client.frames.unwrap().pongs, 0, "they answer ours");
}

#[test]
fn what_was_not_taken_goes_on_where_it_was() {
    for dropped in [false, true] {
        let mut rig = Rig::new();
        let (mut client, mut upstream) = rig.tunnel();
        let (mut slow, mut fast) = rig.hand_over(narrow);
        let bytes = noise(3 << 20);
        let sent = stuff(&mut rig, &mut fast, &bytes);
        let mut left = &bytes[sent..];
        let page = rig.freeze();
        assert_eq!(page.frozen.len(), 2);
        client.send(b"meanwhile");
        (0..3).for_each(|_| rig.step());
        upstream.poll();
        assert!(upstream.received.is_empty(), "nobody reads it");
        match dropped {
            true => drop(page),
            false => page.frozen.settle(|_| Fate::Back),
        }
        rig.expect(&mut upstream, b"meanwhile");
        rig.until("all bytes", || {
            left = &left[fast.send_some(left)..];
            slow.poll();
            slow.received.len() >= bytes.len()
        });
        assert!(slow.received == bytes);
        assert_eq!((rig.handle.live(), rig.freeze().frozen.len()), (2, 2));
    }
}

#[test]
fn who_cannot_move_is_not_taken_out_again() {
    let mut rig = Rig::new();
    let (mut client, mut upstream) = rig.tunnel();
    rig.freeze().frozen.settle(|_| Fate::Stays);
    rig.step();
    let page = rig.freeze();
    assert_eq!((page.frozen.len(), page.stays), (0, 1));
    client.send(b"hello");
    rig.expect(&mut upstream, b"hello");
    // Another program may take it.
    let page = rig.handle.take_frozen(0, true).unwrap();
    rig.step();
    assert_eq!(rig.handle.owing(page.recv().unwrap()).frozen.len(), 1);
}

#[test]
fn who_is_about_to_end_stays() {
    let mut rig = Rig::new();
    let _closing = rig.websocket();
    rig.order(EndCause::Drained);
    let _open = rig.websocket();
    let page = rig.freeze();
    assert_eq!((page.frozen.len(), page.stays), (1, 1));
}

/// A WebSocket over TLS that has sent a message and the front of another one.
fn recorded(rig: &mut Rig) -> (TlsPeer, Peer) {
    let session = wssgate_records::testing::session(SUITES[0], wssgate_records::Role::Server);
    let (client, mut upstream) = rig.hand_over(|handover| {
        handover.client.tls = LegTls::Keys(Box::new(session.keys));
        handover.protocol = Protocol::WebSocket(conversation::Settings::default());
    });
    let mut client = TlsPeer::new(client, session.peer);
    let said = b"\x82\x83\0\0\0\0abc\x82\x83\0\0";
    client.send(said);
    rig.expect(&mut upstream, said);
    (client, upstream)
}

/// What the first release with this format wrote of [`recorded`]: later ones go on with it. `UPDATE_RECORD=1` writes it
/// anew, which is right only before that release.
#[test]
fn a_record_of_the_first_release_is_read() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/tests/data/tunnel-1.cbor");
    let (mut rig, mut other) = (Rig::new(), Rig::elsewhere());
    let (_client, _upstream) = recorded(&mut rig);
    let page = rig.freeze();
    if std::env::var_os("UPDATE_RECORD").is_some() {
        std::fs::write(path, &*record(&page.frozen, 0, b"extra")).unwrap();
    }
    let bytes = std::fs::read(path).unwrap();
    let arriving = Arriving::decode(&bytes).unwrap();
    assert_eq!(arriving.extra(), b"extra");
    let (sockets, now_ms) = (passed(&page.frozen, 0), other.now_ms());
    let bound = arriving.expect_at(binding(7), &other.handle, now_ms).unwrap().connect(sockets);
    assert_eq!(bound.kind(), [true, false, true]);
    other.handle.resume(vec![bound]).unwrap();
    other.step();
    other.order(EndCause::Stopped);
    let end = other.end();
    let counts = end.client.frames.unwrap();
    assert_eq!((counts.messages, counts.payload, end.client.received), (1, 3, 13));
    assert_eq!((end.upstream.sent, end.upstream.received), (13, 0));
    // And what this release writes has all that one said.
    let ours = record(&page.frozen, 0, b"extra").len();
    assert!(ours.abs_diff(bytes.len()) < 64, "{ours} and {} bytes", bytes.len());
}

#[test]
fn nothing_that_is_said_of_a_tunnel_can_do_harm() {
    let mut rig = Rig::new();
    let (_client, _upstream) = tls_in_front(&mut rig, SUITES[0]);
    let (_other_client, _other_upstream) = rig.websocket();
    let page = rig.freeze();
    let kinds = [[true, false, false], [false, false, true]];
    for (number, kind) in kinds.into_iter().enumerate() {
        let record = record(&page.frozen, number, b"");
        // Also small numbers that no variant has.
        let values = |byte: u8| [byte ^ 1, byte ^ 4, byte ^ 0x20, byte ^ 0xff, 0x16, 0x17];
        let changes = (0..record.len()).flat_map(|at| values(record[at]).map(|value| (at, value)));
        for (at, value) in changes {
            let mut changed = record.to_vec();
            changed[at] = value;
            let Ok(arriving) = Arriving::decode(&changed) else { continue };
            let binding = binding(0);
            let sockets = passed(&page.frozen, number);
            match arriving.expect_at(binding, &rig.handle, rig.now_ms()) {
                // What has keys is never taken for something without, nor a WebSocket for anything else.
                Ok(expected) => {
                    assert_eq!(expected.connect(sockets).kind(), kind, "byte {at} as {value}");
                }
                Err(error) => assert_eq!(error, Refused::Unsound),
            }
        }
        for cut in 0..record.len() {
            assert_eq!(Arriving::decode(&record[..cut]).unwrap_err(), Refused::Unknown);
        }
    }
    assert!(page.frozen.sockets(0)[0].as_fd().try_clone_to_owned().is_ok());
}

#[test]
fn the_time_on_the_way_counts_for_the_age_of_a_tunnel() {
    const AWAY: Duration = Duration::from_millis(60);
    let (ended, ends) = mpsc::channel();
    let on_report = move |_, report| {
        if let Report::End(end) = report {
            ended.send(end).unwrap();
        }
    };
    let relay = start("test", Settings::default(), Arc::default(), on_report, |_| {}).unwrap();
    let (_client, near_client) = peer::tcp_pair();
    let (_upstream, near_upstream) = peer::tcp_pair();
    let handle = relay.handle();
    handle.hand_over(plain(0, near_client, near_upstream)).unwrap();
    handle.wake();
    for _ in 0..3 {
        let page = handle.freeze(0, true).unwrap();
        assert_eq!(page.frozen.len(), 1);
        std::thread::sleep(AWAY);
        let record = record(&page.frozen, 0, b"");
        let arriving = Arriving::decode(&record).unwrap();
        let bound = arriving.bind(passed(&page.frozen, 0), binding(0), &handle).unwrap();
        page.frozen.settle(|_| Fate::Moved);
        handle.resume(vec![bound]).unwrap();
    }
    relay.stop().unwrap();
    let end = ends.recv_timeout(PATIENCE).unwrap();
    // Moments are in whole milliseconds.
    assert!(end.duration + Duration::from_millis(6) >= AWAY * 3, "{:?}", end.duration);
}

fn plain(ticket: u64, client: OwnedFd, upstream: OwnedFd) -> Handover {
    Handover {
        ticket,
        origin: Origin::default(),
        client: Leg::plain(client, Vec::new()),
        upstream: Leg::plain(upstream, Vec::new()),
        protocol: Protocol::Other,
        timers: Timers::default(),
        buffer_size: 4096,
        label: None,
    }
}

#[test]
fn who_is_quiet_behind_its_announcement_goes_on_by_its_sockets_alone() {
    for suite in SUITES {
        let (mut rig, mut other) = (Rig::new(), Rig::elsewhere());
        let (mut client, mut upstream) = secure(&mut rig, suite, suite, |_, _| {});
        client.send(b"before");
        rig.expect_tls(&mut upstream, b"before");
        let announced = rig.announce();
        let expected: Vec<_> = announced.into_iter().map(|it| other.expect_arrival(it)).collect();
        let page = rig.freeze();
        assert_eq!((page.frozen.len(), expected.len()), (1, 1));
        assert!(page.frozen.as_announced(0).is_some());
        client.send(b"while nobody reads");
        let resumed = expected.into_iter().map(|it| it.connect(passed(&page.frozen, 0)));
        other.handle.resume(resumed.collect()).unwrap();
        page.frozen.settle(|_| Fate::Moved);
        rig.step();
        other.expect_tls(&mut upstream, b"while nobody reads");
        upstream.send(b"and back");
        other.expect_tls(&mut client, b"and back");
        other.order(EndCause::Stopped);
        let end = other.end();
        assert_eq!((end.client.received, end.client.sent), (24, 8));
    }
}

#[test]
fn whoever_is_touched_behind_its_announcement_is_told_anew() {
    let mut rig = Rig::new();
    let tunnels: Vec<_> = (0..4).map(|_| rig.websocket()).collect();
    let tickets: Vec<_> = rig.announce().into_iter().map(|it| it.ticket).collect();
    assert_eq!(tickets, [0, 1, 2, 3]);
    let mut peers = tunnels.into_iter();
    let (mut client, mut upstream) = peers.next().unwrap();
    client.send(b"\x81\x80\0\0\0\0");
    rig.expect(&mut upstream, b"\x81\x80\0\0\0\0");
    let (_second, mut server) = peers.next().unwrap();
    server.end();
    (0..3).for_each(|_| rig.step());
    let page = rig.freeze();
    let known = [0, 1, 2, 3].map(|number| page.frozen.as_announced(number).is_some());
    assert_eq!((page.frozen.tickets(), known), (tickets, [false, false, true, true]));
    // They are as they were told of when they come back; but what comes afterwards is new.
    page.frozen.settle(|_| Fate::Back);
    rig.pass(Duration::from_millis(10));
    let page = rig.freeze();
    assert_eq!([0, 3].map(|number| page.frozen.as_announced(number)), [None; 2]);
}

#[test]
fn a_record_says_which_announcement_it_stands_for() {
    let mut rig = Rig::new();
    let (mut client, mut upstream) = rig.tunnel();
    let announced = rig.announce().remove(0).number;
    client.send(b"touched");
    rig.expect(&mut upstream, b"touched");
    let page = rig.freeze();
    let mut bytes = record(&page.frozen, 0, b"");
    let Ok(Record::Whole(arriving)) = Record::decode(&bytes) else { panic!("it is whole") };
    assert_eq!(arriving.instead_of(), Some(announced));
    bytes.clear();
    let number = std::num::NonZeroU32::new(300).unwrap();
    Frozen::record_as_announced(number, &mut bytes);
    assert!(matches!(Record::decode(&bytes), Ok(Record::AsAnnounced(it)) if it == number));
    for unknown in [&b""[..], b"\x40", b"\xf6", b"\0", &bytes[..1]] {
        assert_eq!(Record::decode(unknown).unwrap_err(), Refused::Unknown);
    }
}

/// A ticket may be another tunnel's by then, and an announcement one of long ago.
#[test]
fn no_announcement_is_taken_for_another() {
    let mut rig = Rig::new();
    let (first, server) = rig.tunnel();
    let announced = rig.announce().remove(0);
    drop((first, server));
    rig.end();
    // It has the same ticket and the same place.
    rig.next_ticket = announced.ticket;
    let _second = rig.tunnel();
    let again = rig.announce().remove(0);
    assert_eq!(again.ticket, announced.ticket);
    let page = rig.freeze();
    assert_eq!(page.frozen.as_announced(0), Some(again.number));
    assert_ne!(again.number, announced.number);
}

#[test]
fn only_those_are_announced_that_can_move_and_hold_nothing_back() {
    let mut rig = Rig::new();
    let (mut client, _upstream) = tls_in_front(&mut rig, SUITES[0]);
    let wire = client.sealed(b"a record in two parts");
    client.wire.send(&wire[..9]);
    let (_slow, mut fast) = rig.hand_over(narrow);
    stuff(&mut rig, &mut fast, &noise(3 << 20));
    let _closing = rig.websocket();
    rig.handle.close(Selection::Ticket(2), EndCause::Drained).unwrap();
    rig.step();
    let _open = rig.websocket();
    let tickets: Vec<_> = rig.announce().into_iter().map(|it| it.ticket).collect();
    assert_eq!(tickets, [3]);
}

/// The old process closes its copies later.
#[test]
fn who_has_moved_is_told_the_end_before_the_old_process_closes_its_sockets() {
    let (mut rig, mut other) = (Rig::new(), Rig::elsewhere());
    let (mut client, mut upstream) = rig.tunnel();
    let page = rig.freeze();
    other.go_on(&page.frozen, |_| {});
    client.end();
    other.expect_end(&mut upstream);
    upstream.end();
    other.expect_end(&mut client);
    assert_eq!(other.end().cause, EndCause::Ended(Side::Client));
    page.frozen.settle(|_| Fate::Moved);
    rig.step();
}

/// Its sockets are watched until it has moved, and its place may be another one's before.
#[test]
fn what_comes_for_a_tunnel_on_its_way_does_not_wake_the_one_in_its_place() {
    let mut rig = Rig::new();
    let (mut client, mut upstream) = rig.tunnel();
    let page = rig.freeze();
    let (mut second, mut server) = rig.tunnel();
    second.send(b"first");
    rig.expect(&mut server, b"first");
    client.send(b"waits");
    rig.engine.take_turns();
    (0..3).for_each(|_| rig.step());
    assert_eq!(rig.engine.take_turns(), [], "nobody has a turn");
    drop(page);
    rig.expect(&mut upstream, b"waits");
    second.send(b"second");
    rig.expect(&mut server, b"second");
}

/// Two relays that run by the clock, and tunnels that move between them while their peers talk.
#[test]
fn a_dialogue_goes_on_while_its_tunnel_moves_to_and_fro() {
    const MOVES: usize = 60;
    let (ended, ends) = mpsc::channel();
    let relays = [0, 1].map(|number| {
        let ended = ended.clone();
        let on_report = move |ticket, report| {
            if let Report::End(end) = report {
                ended.send((number, ticket, end)).unwrap();
            }
        };
        start("test", Settings::default(), Arc::default(), on_report, |_| {}).unwrap()
    });
    let handles = [relays[0].handle(), relays[1].handle()];
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let dialogues: Vec<_> = (0..8)
        .map(|ticket| {
            let (client, near_client) = peer::tcp_pair();
            let (upstream, near_upstream) = peer::tcp_pair();
            handles[0].hand_over(plain(ticket, near_client, near_upstream)).unwrap();
            handles[0].wake();
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || talk(client, upstream, &stop))
        })
        .collect();
    let mut moved = 0;
    for number in 0..MOVES {
        let (from, to) = (&handles[number % 2], &handles[(number + 1) % 2]);
        let page = from.freeze(0, true).unwrap();
        let resumed = (0..page.frozen.len()).map(|number| {
            let record = record(&page.frozen, number, b"");
            let binding = binding(page.frozen.tickets()[number]);
            let arriving = Arriving::decode(&record).unwrap();
            arriving.bind(passed(&page.frozen, number), binding, to).unwrap()
        });
        to.resume(resumed.collect()).unwrap();
        moved += page.frozen.len();
        page.frozen.settle(|_| Fate::Moved);
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let said: u64 = dialogues.into_iter().map(|dialogue| dialogue.join().unwrap()).sum();
    assert_eq!(moved, 8 * MOVES);
    let ends: Vec<_> = (0..8).map(|_| ends.recv_timeout(PATIENCE).unwrap()).collect();
    assert!(ends.iter().all(|(number, ..)| *number == MOVES % 2));
    assert_eq!(ends.iter().map(|(_, _, end)| end.client.received).sum::<u64>(), said);
    assert_eq!(ends.iter().map(|(_, _, end)| end.client.sent).sum::<u64>(), said);
}

/// Has an upstream echo what its client says, and says how many bytes that were.
fn talk(
    client: std::net::TcpStream,
    upstream: std::net::TcpStream,
    stop: &std::sync::atomic::AtomicBool,
) -> u64 {
    use std::io::{Read, Write};
    let echo = std::thread::spawn(move || {
        let (mut from, mut to) = (upstream.try_clone().unwrap(), upstream);
        std::io::copy(&mut from, &mut to).unwrap();
    });
    let (mut client, mut said, mut len) = (client, 0, 1);
    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
        let message = noise(len);
        client.write_all(&message).unwrap();
        let mut answer = vec![0; len];
        client.read_exact(&mut answer).unwrap();
        assert!(answer == message);
        said += len as u64;
        len = len * 3 % 20_011;
    }
    drop(client);
    echo.join().unwrap();
    said
}
