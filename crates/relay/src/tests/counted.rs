//! What the thread counts of all its tunnels.

use super::bounds::{narrow, stuff};
use super::*;

#[test]
fn messages_count_while_their_tunnel_lives() {
    let mut rig = Rig::new();
    let handle = rig.handle.clone();
    let counters = handle.counters();
    let (mut client, mut upstream) = rig.hand_over(|handover| {
        handover.protocol = Protocol::WebSocket(conversation::Settings::default());
        // A text that came along with the 101.
        handover.upstream.plaintext = b"\x81\x02hi".to_vec();
    });
    rig.expect(&mut client, b"\x81\x02hi");
    // A text in two frames with a ping between them, and a binary message.
    let said = b"\x01\x81\0\0\0\0a\x89\x80\0\0\0\0\x80\x82\0\0\0\0bc\x82\x81\0\0\0\0d";
    client.send(said);
    rig.expect(&mut upstream, said);
    upstream.send(b"\x8a\x00");
    rig.expect(&mut client, b"\x8a\x00");
    rig.until("the turn that carried the pong", || counters.upstream.pongs.value() == 1);
    let of = |side: &SideCounters| {
        [
            &side.bytes,
            &side.texts,
            &side.binaries,
            &side.text_bytes,
            &side.binary_bytes,
            &side.pings,
        ]
        .map(|counter| counter.value())
    };
    assert_eq!(of(&counters.client), [said.len() as u64, 1, 1, 3, 1, 1]);
    assert_eq!(of(&counters.upstream), [6, 1, 0, 2, 0, 0]);
    drop((client, upstream));
    rig.end();
    assert_eq!(counters.client.texts.value(), 1, "an end counts nothing twice");
}

#[test]
fn what_waits_is_counted_when_its_wait_is_over() {
    let mut rig = Rig::new();
    let handle = rig.handle.clone();
    let blocked = &handle.counters().upstream.blocked_ms;
    let (mut client, mut upstream) = rig.hand_over(narrow);
    let bytes = noise(1 << 22);
    let sent = stuff(&mut rig, &mut client, &bytes);
    // Small ones are over already.
    let before = blocked.value();
    rig.pass(Duration::from_secs(3));
    assert_eq!(blocked.value(), before, "it goes on");
    let begin = Instant::now();
    while blocked.value() == before {
        assert!(begin.elapsed() < PATIENCE);
        upstream.poll();
        rig.step();
    }
    let first = blocked.value() - before;
    assert!(first >= 3_000, "{first}");
    // What still waits when a tunnel ends has waited until then.
    stuff(&mut rig, &mut client, &bytes[sent..]);
    rig.pass(Duration::from_secs(2));
    rig.handle.close(Selection::All, EndCause::Killed).unwrap();
    let end = rig.end();
    assert_eq!(u128::from(blocked.value()), end.upstream.blocked.as_millis());
}
