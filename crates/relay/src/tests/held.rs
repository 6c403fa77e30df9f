//! A side that has sent too much for the moment, and leaves.

use wssgate_ws::conversation::PerSide;
use wssgate_ws::conversation::meter::{Charge, Meter, Toll};

use super::*;

/// Whatever comes is enough for an hour.
#[derive(Debug)]
struct Miser;

const HOUR: Duration = Duration::from_secs(3_600);

impl Meter for Miser {
    fn charge(&self, charge: Charge, now_ms: u64) -> Toll {
        match charge.bytes {
            0 => Toll::Free,
            _ => Toll::Wait { until_ms: now_ms + HOUR.as_millis() as u64 },
        }
    }
}

/// A message of the client, behind which it is held.
fn held(rig: &mut Rig) -> (Peer, Peer) {
    let (mut client, mut upstream) = rig.hand_over(|handover| {
        let meters = Box::new(PerSide { client: vec![Arc::new(Miser) as _], server: vec![] });
        let meters = Some(meters);
        let settings = conversation::Settings { meters, ..conversation::Settings::default() };
        handover.protocol = Protocol::WebSocket(settings);
    });
    client.send(MESSAGE);
    rig.expect(&mut upstream, MESSAGE);
    (client, upstream)
}

const MESSAGE: &[u8] = b"\x82\x82\0\0\0\0hi";

#[test]
fn its_end_is_told_at_once_behind_what_it_has_sent() {
    for last in [&b""[..], MESSAGE, &MESSAGE.repeat(100)] {
        let mut rig = Rig::new();
        let (mut client, mut upstream) = held(&mut rig);
        client.send(last);
        for _ in 0..10 {
            rig.step();
        }
        upstream.poll();
        assert!(upstream.received.is_empty(), "it is held");
        client.end();
        rig.expect(&mut upstream, last);
        rig.expect_end(&mut upstream);
        upstream.end();
        assert_eq!(rig.end().cause, EndCause::Ended(Side::Client));
        assert!(rig.now < HOUR);
    }
}

#[test]
fn a_reset_is_told_at_once() {
    let mut rig = Rig::new();
    let (client, mut upstream) = held(&mut rig);
    client.reset();
    rig.expect_end(&mut upstream);
    assert!(matches!(rig.end().cause, EndCause::Broken(Side::Client, _)));
}

/// A flood that ends is not faster than one that goes on.
#[test]
fn more_than_one_read_brings_has_to_wait_and_arrives_in_its_order() {
    let mut rig = Rig::new();
    let (mut client, mut upstream) = held(&mut rig);
    let payload = noise(40_000);
    let last = [&b"\x82\xfe\x9c\x40\0\0\0\0"[..], &payload].concat();
    client.send(&last);
    client.end();
    let mut came = Vec::new();
    for hours in 0.. {
        for _ in 0..20 {
            rig.step();
        }
        upstream.poll();
        assert!(upstream.received.len() <= 16 << 10, "{} at once", upstream.received.len());
        came.append(&mut upstream.received);
        if upstream.ended {
            assert!(hours > 1, "{hours}");
            break;
        }
        assert!(hours < 20, "it does not end");
        rig.pass(HOUR);
    }
    assert!(came == last);
}
