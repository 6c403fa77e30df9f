//! Tunnels whose frames somebody looks at.

use std::num::NonZeroU32;

use wssgate_ws::Opcode;
use wssgate_ws::conversation::{Cause, Farewell};

use super::*;
use crate::listing::{Handle, Label};
use crate::tap::{Entry, Outlet, QUEUE, Sender, Tap, Tapped};

impl Rig {
    /// A WebSocket, and how it is called.
    fn named(&mut self, name: &'static str) -> (Peer, Peer, Handle) {
        let label = Label::new(name);
        let (client, upstream) = self.hand_over(|handover| {
            handover.protocol = Protocol::WebSocket(conversation::Settings::default());
            handover.label = Some(label.clone());
        });
        let answer = self.handle.page(0).unwrap();
        self.step();
        let page = answer.try_recv().unwrap();
        let live = page.tunnels.into_iter().map(|live| live.handle);
        let is_it = |handle: &Handle| {
            let found = handle.label().about::<&'static str>();
            found.is_some_and(|found| *found == name)
        };
        (client, upstream, live.into_iter().find(is_it).unwrap())
    }

    fn tap(&mut self, handles: &[&Handle]) -> (u64, Outlet) {
        let (tap, outlet) = Tap::new(NonZeroU32::MIN);
        let number = tap.number();
        let tunnels = handles.iter().map(|&handle| (handle.clone(), 100)).collect();
        let answer = self.handle.tap(tunnels, tap).unwrap();
        self.step();
        assert_eq!(answer.try_recv().unwrap(), handles.len());
        (number, outlet)
    }
}

/// What was told since the last time.
fn told(outlet: &Outlet) -> Vec<(Sender, Opcode, Vec<u8>)> {
    let frames = outlet.frames.try_iter().map(|entry| match entry.tapped {
        Tapped::Frame(frame) => (frame.sender, frame.header.opcode, frame.payload),
        other => panic!("{other:?}"),
    });
    frames.collect()
}

const CLIENT: Sender = Sender::Side(Side::Client);
const UPSTREAM: Sender = Sender::Side(Side::Upstream);

#[test]
fn frames_of_both_sides_and_our_own_are_told_until_the_end() {
    let mut rig = Rig::new();
    let (mut client, mut upstream, handle) = rig.named("first");
    let (mut other, mut other_upstream, _) = rig.named("second");
    // In the middle of a frame.
    upstream.send(b"\x81\x04ha");
    rig.expect(&mut client, b"\x81\x04ha");
    let (_, outlet) = rig.tap(&[&handle]);
    upstream.send(b"lf\x81\x02hi");
    rig.expect(&mut client, b"lf\x81\x02hi");
    client.send(b"\x89\x81\x01\x01\x01\x01\x3e");
    rig.expect(&mut upstream, b"\x89\x81\x01\x01\x01\x01\x3e");
    other_upstream.send(b"\x81\x02no");
    rig.expect(&mut other, b"\x81\x02no");
    let expected =
        [(UPSTREAM, Opcode::Text, b"hi".to_vec()), (CLIENT, Opcode::Ping, b"?".to_vec())];
    assert_eq!(told(&outlet), expected);
    let words = Farewell { code: CloseCode(4001), reason: "bye".into() };
    let answer = rig.handle.end(vec![handle.clone()], Cause::Kill, Some(Arc::new(words))).unwrap();
    rig.step();
    assert_eq!(answer.try_recv(), Ok(1));
    let own = [
        (Sender::Us(Side::Client), Opcode::Close, b"\x0f\xa1bye".to_vec()),
        (Sender::Us(Side::Upstream), Opcode::Close, b"\x03\xe9".to_vec()),
    ];
    assert_eq!(told(&outlet), own);
    drop((client, upstream));
    assert_eq!(rig.end().cause, EndCause::Killed);
    assert!(matches!(outlet.frames.try_recv(), Ok(Entry { tapped: Tapped::Ended { .. }, .. })));
    // Nobody holds the tap any more.
    assert_eq!(outlet.frames.try_recv().unwrap_err(), mpsc::TryRecvError::Disconnected);
    // The place may belong to another one by now.
    let (tap, _outlet) = Tap::new(NonZeroU32::MIN);
    let answer = rig.handle.tap(vec![(handle, 0)], tap).unwrap();
    rig.step();
    assert_eq!(answer.try_recv(), Ok(0));
}

#[test]
fn several_look_at_the_same_and_each_ends_for_itself() {
    let mut rig = Rig::new();
    let (mut client, mut upstream, handle) = rig.named("first");
    let (number, first) = rig.tap(&[&handle]);
    let (_, second) = rig.tap(&[&handle]);
    rig.handle.untap(vec![handle.clone()], number).unwrap();
    rig.step();
    assert_eq!(first.frames.try_recv().unwrap_err(), mpsc::TryRecvError::Disconnected);
    upstream.send(b"\x82\x01x");
    rig.expect(&mut client, b"\x82\x01x");
    assert_eq!(told(&second), [(UPSTREAM, Opcode::Binary, b"x".to_vec())]);
    // Whoever goes without a word is forgotten with the next frame.
    drop(second);
    upstream.send(b"\x82\x01x");
    rig.expect(&mut client, b"\x82\x01x");
}

#[test]
fn who_does_not_read_keeps_no_tunnel_waiting() {
    let mut rig = Rig::new();
    let (mut client, mut upstream, handle) = rig.named("first");
    let (_, outlet) = rig.tap(&[&handle]);
    for _ in 0..2 * QUEUE / 100 {
        upstream.send(&b"\x81\x02hi".repeat(100));
        rig.expect(&mut client, &b"\x81\x02hi".repeat(100));
    }
    assert_eq!(told(&outlet).len(), QUEUE);
    assert_eq!(outlet.take_missed() as usize, 2 * QUEUE / 100 * 100 - QUEUE);
    upstream.send(b"\x81\x02hi");
    rig.expect(&mut client, b"\x81\x02hi");
    assert_eq!(told(&outlet).len(), 1, "there is room again");
}
