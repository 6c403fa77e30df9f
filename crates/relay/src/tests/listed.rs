//! What others are told of live tunnels, and what they can do to one of them.

use wssgate_ws::conversation::{Cause, Farewell, Lapse};

use super::*;
use crate::listing::{Handle, Label, Live, MAX_KILLS, PAGE};

impl Rig {
    fn labelled(&mut self, label: &'static str) -> (Peer, Peer) {
        self.hand_over(|handover| {
            handover.protocol = Protocol::WebSocket(conversation::Settings::default());
            handover.label = Some(Label::new(label));
        })
    }

    /// All parts, and how many those were.
    fn listed(&mut self) -> (Vec<Live>, usize) {
        let (mut all, mut parts, mut next) = (Vec::new(), 0, Some(0));
        while let Some(from) = next {
            let answer = self.handle.page(from).unwrap();
            self.step();
            let page = answer.try_recv().expect("it answers in the next step");
            assert!(page.tunnels.len() <= PAGE);
            all.extend(page.tunnels);
            (parts, next) = (parts + 1, page.next);
        }
        (all, parts)
    }

    fn kill(&mut self, handles: &[&Handle], words: Option<&Arc<Farewell>>) -> usize {
        let handles = handles.iter().map(|&handle| handle.clone()).collect();
        let answer = self.handle.end(handles, Cause::Kill, words.cloned()).unwrap();
        self.step();
        answer.try_recv().unwrap()
    }
}

fn label(live: &Live) -> &'static str {
    *live.handle.label().about::<&'static str>().unwrap()
}

#[test]
fn live_tunnels_are_told_with_what_has_passed() {
    let mut rig = Rig::new();
    assert_eq!(rig.listed().0.len(), 0);
    let _unlisted = rig.tunnel();
    let (_first, _first_upstream) = rig.labelled("first");
    let (mut client, mut upstream) = rig.labelled("second");
    upstream.send(b"\x81\x02hi");
    rig.expect(&mut client, b"\x81\x02hi");
    rig.pass(Duration::from_millis(500));
    let (all, parts) = rig.listed();
    assert_eq!(all.iter().map(label).collect::<Vec<_>>(), ["first", "second"]);
    assert_eq!(parts, 1);
    let second = &all[1];
    assert!(second.is_websocket && !second.is_ending);
    assert!(second.idle >= Duration::from_millis(500) && second.idle <= second.passed.duration);
    assert_eq!((second.passed.upstream.received, second.passed.client.sent), (4, 4));
    assert_eq!(second.passed.upstream.frames.unwrap().messages, 1);
    upstream.send(b"\x88\x02\x03\xe8");
    rig.expect(&mut client, b"\x88\x02\x03\xe8");
    assert!(rig.listed().0[1].is_ending);
}

#[test]
fn many_tunnels_are_told_in_parts() {
    let mut rig = Rig::new();
    let tunnels: Vec<_> = (0..PAGE + 1).map(|_| rig.labelled("one of many")).collect();
    let (all, parts) = rig.listed();
    assert_eq!(all.len(), tunnels.len());
    assert!(parts > 1, "{parts}");
}

#[test]
fn a_client_is_told_why_it_is_killed() {
    let mut rig = Rig::new();
    let (mut client, mut upstream) = rig.labelled("it");
    // In the middle of a message to it.
    upstream.send(b"\x81\x02h");
    rig.expect(&mut client, b"\x81\x02h");
    let it = rig.listed().0.remove(0).handle;
    let words = Arc::new(Farewell { code: CloseCode(4000), reason: "banned".into() });
    assert_eq!(rig.kill(&[&it], Some(&words)), 1);
    upstream.send(b"i");
    rig.expect(&mut client, b"i\x88\x08\x0f\xa0banned");
    assert_eq!(rig.kill(&[&it], None), 0, "its end has begun");
    assert!(rig.listed().0[0].is_ending);
    let end = rig.pass_until_end();
    assert_eq!(end.cause, EndCause::Killed);
    assert_eq!(end.client.own_close, Some(CloseCode(4000)));
    assert_eq!(&*end.client.own_reason, "banned");
    assert_eq!(end.upstream.own_close, Some(CloseCode::GOING_AWAY));
}

/// In order, so that others who ended it before keep the say.
#[test]
fn some_are_ended_for_a_cause_between_two_frames() {
    let mut rig = Rig::new();
    let (mut client, mut upstream) = rig.labelled("it");
    upstream.send(b"\x81\x02h");
    rig.expect(&mut client, b"\x81\x02h");
    let it = rig.listed().0.remove(0).handle;
    let cause = Cause::Credentials(Lapse::Revoked);
    let ended = |rig: &mut Rig, cause| {
        let answer = rig.handle.end(vec![it.clone()], cause, None).unwrap();
        rig.step();
        answer.try_recv().unwrap()
    };
    assert_eq!(ended(&mut rig, cause), 1);
    assert_eq!(ended(&mut rig, Cause::Unhealthy), 0, "its end has begun");
    upstream.send(b"i");
    rig.expect(&mut client, b"i\x88\x15\x03\xf0credentials revoked");
    let end = rig.pass_until_end();
    assert_eq!(end.cause, EndCause::Closed(cause));
    assert_eq!(end.client.own_close, Some(CloseCode::POLICY_VIOLATION));
    assert_eq!(end.upstream.own_close, Some(CloseCode::GOING_AWAY));
}

/// The place in the slab is the same, the tunnel is not.
#[test]
fn a_tunnel_in_the_place_of_another_is_not_killed_for_it() {
    let mut rig = Rig::new();
    let (client, upstream) = rig.labelled("old");
    let old = rig.listed().0.remove(0).handle;
    drop((client, upstream));
    rig.end();
    let _new = rig.labelled("new");
    let new = rig.listed().0.remove(0).handle;
    assert_eq!(old.key(), new.key());
    assert_eq!(rig.kill(&[&old], None), 0);
    assert_eq!(rig.kill(&[&old, &new], None), 1);
}

#[test]
#[should_panic(expected = "tunnels at once")]
fn a_relay_is_not_asked_for_more_than_it_can_do_in_a_moment() {
    let mut rig = Rig::new();
    let _tunnel = rig.labelled("it");
    let it = rig.listed().0.remove(0).handle;
    rig.handle.end(vec![it; MAX_KILLS + 1], Cause::Kill, None).ok();
}
