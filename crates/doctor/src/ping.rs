//! Round trips of pings.

use crate::facts::{PingFacts, ms};
use crate::report::Finding;
use crate::settings::Settings;
use crate::socket::{Ended, Event, Socket};

/// Sends pings, one after the other; gives the socket back while it lives.
pub(crate) fn examine(
    mut socket: Socket,
    settings: &Settings,
) -> (Vec<Finding>, PingFacts, Option<Socket>) {
    let mut facts = PingFacts::default();
    for _ in 0..settings.pings {
        match socket.round_trip(settings.timeout) {
            Ok((took, between)) => {
                facts.ms.push(ms(took));
                facts.messages +=
                    between.iter().filter(|event| matches!(event, Event::Data(_))).count() as u64;
            }
            Err(ended) => return (vec![unanswered(&ended)], facts, None),
        }
    }
    let slowest = facts.ms.iter().copied().fold(0.0, f64::max);
    let mut findings = Vec::new();
    if slowest > ms(settings.slow) {
        findings.push(Finding::warning(
            "ping_slow",
            format!("a ping took {:.1} s", slowest / 1e3),
            "check the load of the app server: pongs wait for whatever its event loop is doing",
        ));
    }
    (findings, facts, Some(socket))
}

fn unanswered(ended: &Ended) -> Finding {
    match ended {
        Ended::Late => Finding::fault(
            "no_pong",
            "a ping was not answered, as RFC 6455 §5.5.3 requires",
            "look for an app server that is blocked, or a hop that sends the 101 but passes no \
             frames on",
        ),
        Ended::Close(..) => Finding::fault(
            "closed_at_once",
            format!("the server ended the WebSocket at once with {ended}"),
            "check the app server's log; it may require a token, a subprotocol or a first message",
        ),
        Ended::Cut(_) => Finding::fault(
            "cut_at_once",
            format!("the WebSocket was ended at once by {ended}"),
            "check the app server's log for a crash, and look for a hop that passes the 101 on but \
             treats the connection as ordinary HTTP",
        ),
        Ended::Broken(_) => Finding::fault(
            "not_websocket",
            format!("what follows the 101 is not WebSocket data: {ended}"),
            "look for a hop that changes bytes after the 101, such as compression, or an app \
             server that writes to the wrong connection",
        ),
    }
}
