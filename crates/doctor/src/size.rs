//! Long messages.

use std::time::Instant;

use crate::exchange::{Ask, Route};
use crate::facts::SizeFacts;
use crate::report::Finding;
use crate::socket::{Ended, Event, Socket};

/// The first message, in bytes; each further one is four times as long.
const FIRST: u64 = 1 << 10;

/// Sends longer and longer messages, up to `max` bytes. A pong behind each shows that it was read; a
/// message of the same length, that it came back.
pub(crate) fn examine(route: &Route<'_>, max: u64) -> (Vec<Finding>, SizeFacts) {
    let mut facts = SizeFacts::default();
    // Compressed, an echo has another length.
    let ask = Ask { deflate: false, ..Ask::usual(route.target, route.settings) };
    let mut socket = match route.exchange(&ask) {
        Ok(answered) if answered.head.status() == 101 => {
            Socket::new(answered.wire, answered.rest, route.target.tls)
        }
        _ => return (vec![second_handshake()], facts),
    };
    let mut len = FIRST.min(max);
    loop {
        match send(&mut socket, len, route) {
            Ok(is_echoed) => {
                facts.largest = Some(len);
                facts.echoed |= is_echoed;
            }
            Err(ended) => return (vec![refused(len, &ended)], facts),
        }
        if len >= max {
            socket.close();
            return (Vec::new(), facts);
        }
        len = len.saturating_mul(4).min(max);
    }
}

/// What a further connection that is refused means.
pub(crate) fn second_handshake() -> Finding {
    Finding::fault(
        "second_handshake_failed",
        "a second handshake, like the first but without compression, did not get a 101",
        "look for per-client connection limits, and for a failing app server among several",
    )
}

fn send(socket: &mut Socket, len: u64, route: &Route<'_>) -> Result<bool, Ended> {
    let timeout = route.settings.timeout;
    let sent = socket.message(len, Instant::now() + timeout);
    // Who refuses a message may say so before all of it was sent.
    if let Err(ended) = sent {
        return Err(match socket.next(Instant::now() + timeout) {
            Err(told @ Ended::Close(..)) => told,
            _ => ended,
        });
    }
    let (_, between) = socket.round_trip(timeout)?;
    Ok(between.contains(&Event::Data(len)))
}

fn refused(len: u64, ended: &Ended) -> Finding {
    Finding::fault(
        "message_refused",
        format!("a message of {len} bytes was answered with {ended}"),
        "raise the message size limit in the app server, or on a hop (wssgate: \
         `websocket_max_message_size`); an app server may also refuse text that it does not \
         understand",
    )
}
