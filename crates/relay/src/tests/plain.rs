//! Bytes of tunnels without TLS, and their thread.

use super::*;

#[test]
fn bytes_pass_both_ways() {
    let mut rig = Rig::new();
    let (mut client, mut upstream) = rig.tunnel();
    client.send(b"to the upstream");
    rig.expect(&mut upstream, b"to the upstream");
    upstream.send(b"to the client");
    rig.expect(&mut client, b"to the client");
    // That the peers took it is no news.
    rig.step();
    assert_eq!(rig.engine.events(), 0);
}

#[test]
fn bytes_read_behind_the_switch_arrive_first() {
    let mut rig = Rig::new();
    let (mut client, mut upstream) = rig.hand_over(|handover| {
        handover.client.plaintext = b"early question".to_vec();
        handover.upstream.plaintext = b"early answer".to_vec();
    });
    client.send(b", late question");
    upstream.send(b", late answer");
    rig.expect(&mut upstream, b"early question, late question");
    rig.expect(&mut client, b"early answer, late answer");
}

#[test]
fn a_client_that_ends_still_gets_the_whole_answer() {
    let mut rig = Rig::new();
    let (mut client, mut upstream) = rig.tunnel();
    client.send(b"question");
    client.end();
    rig.expect(&mut upstream, b"question");
    rig.expect_end(&mut upstream);
    let answer = noise(100_000);
    upstream.send(&answer);
    upstream.end();
    rig.expect(&mut client, &answer);
    rig.expect_end(&mut client);
    let end = rig.end();
    assert_eq!(end.cause, EndCause::Ended(Side::Client));
    assert_eq!((end.client.received, end.client.sent), (8, 100_000));
    assert_eq!((end.upstream.received, end.upstream.sent), (100_000, 8));
}

#[test]
fn an_upstream_that_ends_still_hears_the_client_out() {
    let mut rig = Rig::new();
    let (mut client, mut upstream) = rig.tunnel();
    upstream.send(b"bye");
    upstream.end();
    rig.expect(&mut client, b"bye");
    rig.expect_end(&mut client);
    let rest = noise(100_000);
    client.send(&rest);
    client.end();
    rig.expect(&mut upstream, &rest);
    rig.expect_end(&mut upstream);
    assert_eq!(rig.end().cause, EndCause::Ended(Side::Upstream));
}

/// Passes on the ends among what a relay tells.
fn ends_only(ended: mpsc::Sender<(u64, TunnelEnd)>) -> impl FnMut(u64, Report) + Send {
    move |ticket, report| {
        if let Report::End(end) = report {
            ended.send((ticket, *end)).unwrap();
        }
    }
}

#[test]
fn a_relay_thread_carries_ends_and_stops() {
    let (ended, ends) = mpsc::channel();
    let relay =
        start("relay", Settings::default(), Arc::default(), ends_only(ended), |_| {}).unwrap();
    let handle = relay.handle();
    let mut peers = Vec::new();
    for ticket in 1..=2 {
        let (client, upstream, handover) = said_hello(ticket);
        handle.hand_over(handover).unwrap();
        peers.push((client, upstream));
    }
    handle.wake();
    let mut hello = [0; 5];
    std::io::Read::read_exact(&mut peers[0].1, &mut hello).unwrap();
    assert_eq!((&hello, handle.live()), (b"hello", 2));
    handle.close(Selection::Generation(1), EndCause::Drained).unwrap();
    let (ticket, end) = ends.recv_timeout(PATIENCE).unwrap();
    assert_eq!((ticket, end.cause), (1, EndCause::Drained));
    relay.stop().unwrap();
    let (ticket, end) = ends.recv_timeout(PATIENCE).unwrap();
    assert_eq!((ticket, end.cause), (2, EndCause::Stopped));
    assert_eq!(handle.live(), 0);
    assert!(handle.close(Selection::All, EndCause::Killed).is_err());
}

/// A stop that comes behind a drain leaves it its time, and nobody else.
#[test]
fn a_drained_websocket_is_heard_out_before_the_thread_stops() {
    use std::io::{Read, Write};

    let (ended, ends) = mpsc::channel();
    let relay =
        start("relay", Settings::default(), Arc::default(), ends_only(ended), |_| {}).unwrap();
    let mut peers = Vec::new();
    for ticket in 1..=2 {
        let (client, mut upstream, mut handover) = said_hello(ticket);
        handover.protocol = Protocol::WebSocket(conversation::Settings::default());
        handover.client.plaintext = b"\x82\x85\0\0\0\0hel".to_vec();
        relay.handle().hand_over(handover).unwrap();
        relay.handle().wake();
        upstream.read_exact(&mut [0; 9]).unwrap();
        peers.push((client, upstream));
    }
    relay.handle().close(Selection::Ticket(1), EndCause::Drained).unwrap();
    let stopping = std::thread::spawn(move || relay.stop());
    let (ticket, end) = ends.recv_timeout(PATIENCE).unwrap();
    assert_eq!((ticket, end.cause), (2, EndCause::Stopped));
    let (client, upstream) = &mut peers[0];
    client.write_all(b"lo").unwrap();
    let mut heard = [0; 10];
    upstream.read_exact(&mut heard).unwrap();
    assert!(heard.starts_with(b"lo\x88\x82"));
    client.write_all(b"\x88\x80\0\0\0\0").unwrap();
    upstream.write_all(b"\x88\x00").unwrap();
    let mut heard = Vec::new();
    client.read_to_end(&mut heard).unwrap();
    assert_eq!(heard, b"\x88\x02\x03\xe9");
    let (ticket, end) = ends.recv_timeout(PATIENCE).unwrap();
    assert_eq!((ticket, end.cause), (1, EndCause::Drained));
    stopping.join().unwrap().unwrap();
}

/// A front that is never idle must not keep its tunnels waiting.
#[test]
fn so_many_tunnels_are_heard_of_without_a_wake() {
    let relay = start("relay", Settings::default(), Arc::default(), |_, _| {}, |_| {}).unwrap();
    let mut peers = Vec::new();
    for ticket in 0..MAX_UNWOKEN as u64 {
        let (client, upstream, handover) = said_hello(ticket);
        relay.handle().hand_over(handover).unwrap();
        peers.push((client, upstream));
    }
    let mut hello = [0; 5];
    for (_, upstream) in &mut peers {
        upstream.set_read_timeout(Some(PATIENCE)).unwrap();
        std::io::Read::read_exact(upstream, &mut hello).unwrap();
    }
    relay.stop().unwrap();
}

/// The peers of a tunnel whose client has said hello already, and its hand-over.
fn said_hello(ticket: u64) -> (std::net::TcpStream, std::net::TcpStream, Handover) {
    let (client, near_client) = peer::tcp_pair();
    let (upstream, near_upstream) = peer::tcp_pair();
    let handover = Handover {
        ticket,
        origin: Origin { generation: ticket, ..Origin::default() },
        client: Leg::plain(near_client, b"hello".to_vec()),
        upstream: Leg::plain(near_upstream, Vec::new()),
        protocol: Protocol::Other,
        timers: Timers::default(),
        buffer_size: 4096,
        label: None,
    };
    (client, upstream, handover)
}
