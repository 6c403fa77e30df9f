//! How long a WebSocket may be silent.
//!
//! Silence is tried by doubling: who cuts by FIN, RST or Close is seen at the moment when he does. Who
//! forgets the connection (NAT, firewalls) says nothing; that is seen by a ping at the end of each
//! silence.

use std::time::{Duration, Instant};

use crate::facts::{IdleFacts, seconds};
use crate::report::Finding;
use crate::settings::Settings;
use crate::socket::{Ended, Event, Socket};

/// The first silence; less if the longest is not eight times as long.
const FIRST: Duration = Duration::from_secs(5);

/// Is silent for longer and longer, up to `max`.
pub(crate) fn examine(
    mut socket: Socket,
    max: Duration,
    settings: &Settings,
) -> (Vec<Finding>, IdleFacts) {
    let mut facts = IdleFacts::default();
    let mut silence = FIRST.min(max / 8);
    loop {
        facts.tried_seconds.push(seconds(silence));
        if let Err((after, ended)) = be_silent(&mut socket, silence, &mut facts) {
            return (vec![cut(after, &ended, &mut facts)], facts);
        }
        match socket.round_trip(settings.timeout) {
            Ok((_, between)) => count(&between, &mut facts),
            Err(Ended::Late) => return (vec![forgotten(silence, &mut facts)], facts),
            // The ping has met a connection that was gone.
            Err(ended) => return (vec![cut(silence, &ended, &mut facts)], facts),
        }
        if silence >= max {
            socket.close();
            return (Vec::new(), facts);
        }
        silence = (silence * 2).min(max);
    }
}

/// Sends nothing for so long but pongs; fails with the silence after which the end came.
fn be_silent(
    socket: &mut Socket,
    silence: Duration,
    facts: &mut IdleFacts,
) -> Result<(), (Duration, Ended)> {
    let end = Instant::now() + silence;
    let mut quiet_since = Instant::now();
    loop {
        let came = socket.next(end);
        let quiet = quiet_since.elapsed();
        match came {
            Ok(event) => {
                count(&[event], facts);
                quiet_since = Instant::now();
            }
            Err(Ended::Late) => {
                facts.survived_seconds = facts.survived_seconds.max(seconds(quiet));
                return Ok(());
            }
            Err(ended) => return Err((quiet, ended)),
        }
        facts.survived_seconds = facts.survived_seconds.max(seconds(quiet));
        if Instant::now() >= end {
            return Ok(());
        }
    }
}

fn count(events: &[Event], facts: &mut IdleFacts) {
    facts.pings += events.iter().filter(|event| matches!(event, Event::Ping)).count() as u64;
}

fn cut(after: Duration, ended: &Ended, facts: &mut IdleFacts) -> Finding {
    facts.cut_after_seconds = Some(seconds(after));
    facts.cut_by = Some(ended.to_string());
    let after = after.as_secs_f64();
    let hint = match after {
        59.0..62.0 => " 60 s is the default of nginx (`proxy_read_timeout`) and of AWS's ALB.",
        _ => "",
    };
    Finding::warning(
        "idle_cut",
        format!("after {after:.1} s of silence the connection was ended by {ended}.{hint}"),
        every(after),
    )
}

fn forgotten(silence: Duration, facts: &mut IdleFacts) -> Finding {
    facts.cut_after_seconds = Some(seconds(silence));
    facts.cut_by = Some("silence".into());
    Finding::warning(
        "idle_forgotten",
        format!(
            "after {:.1} s of silence a ping was not answered and no data arrived: a firewall or \
             NAT on the path has silently dropped the connection",
            silence.as_secs_f64()
        ),
        every(silence.as_secs_f64()),
    )
}

fn every(after: f64) -> String {
    format!(
        "send pings more often than every {:.0} s, from the app server or a proxy (wssgate: \
         `websocket_ping_interval`, 25 s by default), or raise the timeout of the hop that closes \
         the connection",
        (after / 2.0).max(1.0)
    )
}
