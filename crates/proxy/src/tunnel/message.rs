//! What the error log says of the end of a tunnel: who, with which code, and why.

use std::io;

use wssgate_relay::{EndCause, Side, TunnelEnd};
use wssgate_ws::conversation::meter::Excess;
use wssgate_ws::conversation::{Cause, Lapse};

use crate::exchange::websocket::Record;

/// What ended a tunnel, where it was no orderly end; nginx's words where it has some.
pub(super) fn of(end: &TunnelEnd, record: &Record) -> Option<String> {
    if record.is_complete() {
        return None;
    }
    let what = match &end.cause {
        EndCause::Ended(_) => return None,
        EndCause::Broken(side, number) => {
            format!("{} connection failed ({})", name(*side), errno(*number))
        }
        EndCause::Tls(side, fault) => {
            format!("TLS error on the {} connection: {fault}", name(*side))
        }
        EndCause::ReadTimeout | EndCause::SendTimeout(Side::Upstream) => timed_out("upstream"),
        EndCause::SendTimeout(Side::Client) => timed_out("client"),
        EndCause::HalfCloseTimeout => timed_out("half-closed connection"),
        EndCause::Lost(side) => format!("{} no longer answers pings", name(*side)),
        EndCause::Closed(cause) => closed(cause, record),
        EndCause::Drained => "tunnel closed by drain".to_owned(),
        EndCause::Killed => match record.own_close() {
            Some((code, _)) => format!("WebSocket closed by an operator with {}", code.0),
            None => "tunnel closed by an operator".to_owned(),
        },
        EndCause::Unhealthy => "tunnel closed, its upstream server is unhealthy".to_owned(),
        EndCause::Stopped => "tunnel closed by shutdown".to_owned(),
        EndCause::Refused(number) => format!("tunnel setup failed ({})", errno(*number)),
    };
    let closing = end.first_close.zip(record.first_close());
    Some(match closing {
        Some((side, (code, _))) => {
            format!("{what} after the {} had closed with {}", name(side), code.0)
        }
        None => what,
    })
}

/// Why we closed a WebSocket.
fn closed(cause: &Cause, record: &Record) -> String {
    let why = match cause {
        // Said in other words above.
        Cause::Drain(_) | Cause::Kill => "requested by an operator".to_owned(),
        Cause::Unhealthy => "its upstream server is unhealthy".to_owned(),
        Cause::IdleTimeout => "no data frame for websocket_idle_timeout".to_owned(),
        Cause::MaxLifetime => "websocket_max_lifetime expired".to_owned(),
        Cause::Credentials(Lapse::Expired) => "the token of the client has expired".to_owned(),
        Cause::Credentials(Lapse::Refused) => {
            "websocket_reauth no longer authorizes the client".to_owned()
        }
        Cause::Credentials(Lapse::Revoked) => {
            "the credentials of the client are revoked".to_owned()
        }
        Cause::Violation(side, error) => format!("{} broke the protocol: {error}", of_peer(*side)),
        Cause::InvalidClose(side, error) => {
            format!("{} sent an invalid Close: {error}", of_peer(*side))
        }
        Cause::InvalidText(side) => format!("{} sent text that is not UTF-8", of_peer(*side)),
        Cause::FrameTooBig(side) => format!("{} sent too big a frame", of_peer(*side)),
        Cause::MessageTooBig(side) => format!("{} sent too big a message", of_peer(*side)),
        Cause::TooManyFragments(side) => {
            format!("{} sent a message in too many frames", of_peer(*side))
        }
        Cause::ControlFlood(side) => format!("{} sent too many control frames", of_peer(*side)),
        Cause::Rate(side, Excess::Messages) => {
            format!("{} sent too many messages", of_peer(*side))
        }
        Cause::Rate(side, Excess::Bytes) => format!("{} sent too many bytes", of_peer(*side)),
        Cause::SlowReader(side) => {
            format!("{} did not read what was sent to it", of_peer(*side))
        }
    };
    match record.own_close() {
        Some((code, _)) => format!("WebSocket closed by the proxy with {}, {why}", code.0),
        None => format!("WebSocket ended by the proxy without a Close, {why}"),
    }
}

fn name(side: Side) -> &'static str {
    match side {
        Side::Client => "client",
        Side::Upstream => "upstream",
    }
}

fn of_peer(side: wssgate_ws::Side) -> &'static str {
    name(side.into())
}

fn errno(number: i32) -> String {
    crate::errno_text(&io::Error::from_raw_os_error(number))
}

fn timed_out(who: &str) -> String {
    format!("{who} timed out (110: Connection timed out)")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use wssgate_relay::Totals;
    use wssgate_ws::CloseCode;

    use super::*;

    fn told(cause: EndCause, edit: impl FnOnce(&mut TunnelEnd)) -> Option<String> {
        let (client, upstream) = <(Totals, Totals)>::default();
        let mut end =
            TunnelEnd { cause, duration: Duration::ZERO, first_close: None, client, upstream };
        edit(&mut end);
        of(&end, &Record::from(&end))
    }

    #[test]
    fn timeouts_are_told_in_nginx_words() {
        for (cause, expected) in [
            (EndCause::Ended(Side::Client), None),
            (EndCause::ReadTimeout, Some("upstream timed out (110: Connection timed out)")),
            (
                EndCause::SendTimeout(Side::Client),
                Some("client timed out (110: Connection timed out)"),
            ),
            (
                EndCause::Broken(Side::Upstream, 104),
                Some("upstream connection failed (104: Connection reset by peer)"),
            ),
        ] {
            assert_eq!(told(cause, |_| {}).as_deref(), expected);
        }
    }

    #[test]
    fn a_close_of_ours_is_told_with_its_code_and_why() {
        let cause = EndCause::Closed(Cause::MessageTooBig(wssgate_ws::Side::Client));
        let sent = |end: &mut TunnelEnd| end.client.own_close = Some(CloseCode::MESSAGE_TOO_BIG);
        assert_eq!(
            told(cause, sent).as_deref(),
            Some("WebSocket closed by the proxy with 1009, client sent too big a message")
        );
        assert_eq!(
            told(cause, |_| {}).as_deref(),
            Some("WebSocket ended by the proxy without a Close, client sent too big a message")
        );
    }

    #[test]
    fn who_had_begun_to_close_is_told_where_that_came_to_nothing() {
        let closed = |end: &mut TunnelEnd| {
            end.first_close = Some(Side::Client);
            end.client.close = Some(CloseCode::GOING_AWAY);
        };
        assert_eq!(
            told(EndCause::ReadTimeout, closed).as_deref(),
            Some(
                "upstream timed out (110: Connection timed out) after the client had closed with 1001"
            )
        );
        let idle = EndCause::Closed(Cause::IdleTimeout);
        assert_eq!(
            told(idle, closed).as_deref(),
            Some(
                "WebSocket ended by the proxy without a Close, no data frame for websocket_idle_timeout \
                 after the client had closed with 1001"
            )
        );
        // Who has closed may break its connection.
        assert_eq!(told(EndCause::Broken(Side::Client, 104), closed), None);
    }
}
