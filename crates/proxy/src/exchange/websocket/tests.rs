use wssgate_ws::FrameError;
use wssgate_ws::conversation::Lapse;

use super::*;

/// An end for this reason, with the codes that the client and the upstream have sent.
fn record(cause: EndCause, first: Option<Side>, codes: [Option<u16>; 2]) -> Record {
    let totals = |code: Option<u16>| Totals { close: code.map(CloseCode), ..Totals::default() };
    let [client, upstream] = codes.map(totals);
    let passed = Progress { first_close: first, client, upstream, ..Progress::default() };
    Record { event: Event::Close, cause: Some(cause), passed }
}

fn shown(record: &Record, variable: Builtin) -> String {
    let value = record.value(variable).map(|value| String::from_utf8(value.into()).unwrap());
    value.unwrap_or_else(|| "-".to_owned())
}

#[test]
fn who_why_and_code_belong_together() {
    use Side::{Client, Upstream};
    let broken = |side| EndCause::Broken(side, ECONNRESET);
    for (cause, first, codes, expected) in [
        (EndCause::Ended(Client), None, [None, None], "client client_fin -"),
        (EndCause::Ended(Upstream), None, [None, None], "upstream upstream_fin -"),
        (
            EndCause::Ended(Upstream),
            Some(Client),
            [Some(1000), Some(1000)],
            "client client_close 1000",
        ),
        // The upstream answers by the end of its connection.
        (EndCause::Ended(Upstream), Some(Client), [Some(1001), None], "client client_close 1001"),
        // The client says something when the upstream has gone already.
        (EndCause::Ended(Upstream), None, [Some(1001), None], "upstream upstream_fin -"),
        (broken(Client), None, [None, None], "client client_reset -"),
        (broken(Client), Some(Client), [Some(1001), None], "client client_close 1001"),
        (broken(Client), Some(Upstream), [Some(4000), Some(4000)], "upstream upstream_close 4000"),
        // A Close that is answered by a break.
        (broken(Upstream), Some(Client), [Some(1000), None], "client upstream_reset 1000"),
        // It had closed before it broke, which was seen first.
        (broken(Upstream), None, [None, Some(1011)], "upstream upstream_close 1011"),
        (EndCause::Broken(Upstream, 110), None, [None, None], "upstream upstream_error -"),
        (EndCause::ReadTimeout, None, [None, None], "proxy read_timeout -"),
        (
            EndCause::HalfCloseTimeout,
            Some(Client),
            [Some(1000), None],
            "client half_close_timeout 1000",
        ),
        (EndCause::SendTimeout(Client), None, [None, None], "proxy client_send_timeout -"),
        (EndCause::Lost(Upstream), None, [None, None], "proxy upstream_pong_timeout -"),
        // Their Closes came before ours had a place.
        (EndCause::Drained, None, [Some(1001), Some(1001)], "proxy drain -"),
        (Cause::IdleTimeout.into(), None, [Some(1000), None], "proxy idle_timeout -"),
        (Cause::IdleTimeout.into(), Some(Client), [Some(1000), None], "client idle_timeout 1000"),
        (EndCause::Stopped, None, [None, None], "proxy shutdown -"),
    ] {
        let record = record(cause, first, codes);
        let told = [
            shown(&record, Builtin::WebSocketClosedBy),
            shown(&record, Builtin::WebSocketCloseCause),
            shown(&record, Builtin::WebSocketCloseCode),
        ];
        assert_eq!(told.join(" "), expected, "{cause:?} {first:?} {codes:?}");
    }
}

#[test]
fn what_we_close_has_the_code_that_the_offender_was_sent() {
    let cause = Cause::MessageTooBig(wssgate_ws::Side::Server);
    let mut record = record(cause.into(), None, [Some(1001), Some(1009)]);
    record.passed.client.own_close = Some(CloseCode::GOING_AWAY);
    record.passed.upstream.own_close = Some(CloseCode::MESSAGE_TOO_BIG);
    assert_eq!(shown(&record, Builtin::WebSocketCloseCode), "1009");
    assert_eq!(shown(&record, Builtin::WebSocketCloseReason), "message too big");
    assert_eq!(shown(&record, Builtin::WebSocketCloseCause), "upstream_message_too_big");
    // It could not be told.
    record.passed.upstream.own_close = None;
    assert_eq!(shown(&record, Builtin::WebSocketCloseCode), "1001");
}

/// Whatever comes together: no line names one who has closed beside the code of another, and a tunnel that goes on has
/// no cause.
#[test]
fn the_fields_of_a_line_agree() {
    let closes = [None, Some(1000)];
    let firsts = [None, Some(Side::Client), Some(Side::Upstream)];
    let causes = causes().into_iter().map(Some).chain([None]);
    for (cause, first) in causes.flat_map(|cause| firsts.map(|first| (cause, first))) {
        for bits in 0..16 {
            let bit = |number: u32| closes[usize::from(bits >> number & 1 == 1)];
            // Who has closed first has closed.
            let theirs = [(0, Side::Client), (1, Side::Upstream)]
                .map(|(number, side)| bit(number).or(first.filter(|&it| it == side).map(|_| 1001)));
            let mut record = record(EndCause::Stopped, first, theirs);
            (record.cause, record.event) =
                (cause, if cause.is_some() { Event::Close } else { Event::Progress });
            record.passed.client.own_close = bit(2).map(|_| CloseCode(1008));
            record.passed.upstream.own_close = bit(3).map(|_| CloseCode(1014));
            let [by, code, why] = [
                Builtin::WebSocketClosedBy,
                Builtin::WebSocketCloseCode,
                Builtin::WebSocketCloseCause,
            ]
            .map(|variable| shown(&record, variable));
            let what = format!("{by} {code} {why}: {record:?}");
            let of =
                |side: usize| theirs[side].map_or("-".to_owned(), |code: u16| code.to_string());
            let is_own = ["-", "1008", "1014"].contains(&&*code);
            match &*by {
                "client" => assert!(code == of(0) || of(0) == "-" && is_own, "{what}"),
                "upstream" => assert!(code == of(1) || of(1) == "-" && is_own, "{what}"),
                "proxy" => assert!(is_own, "{what}"),
                _ => assert_eq!((&*code, cause), ("-", None), "{what}"),
            }
            if let Some(side) = why.strip_suffix("_close").filter(|it| !it.contains("invalid")) {
                assert!(by == side && code == of(usize::from(side == "upstream")), "{what}");
            }
            assert_eq!(why == "-", cause.is_none(), "{what}");
            assert_eq!(
                record.is_complete(),
                why == format!("{by}_close") || why.ends_with("_fin"),
                "{what}"
            );
        }
    }
}

#[test]
fn what_passed_is_told_by_side_and_kind() {
    let counts = Counts {
        bytes: 99,
        frames: 7,
        messages: 3,
        pings: 1,
        pongs: 2,
        texts: 2,
        payload: 60,
        text_payload: 50,
        largest: 40,
    };
    let mut record = record(EndCause::ReadTimeout, None, [None, None]);
    record.passed.client.received = 99;
    record.passed.client.frames = Some(counts);
    record.passed.client.rtt = Some(Duration::from_millis(12));
    record.passed.client.blocked = Duration::from_millis(1_500);
    record.passed.duration = Duration::from_millis(61_002);
    for (variable, expected) in [
        (Builtin::WebSocketClientBinaryBytes, "10"),
        (Builtin::WebSocketClientBinaryMessages, "1"),
        (Builtin::WebSocketClientBlockedTime, "1.500"),
        (Builtin::WebSocketClientBytes, "99"),
        (Builtin::WebSocketClientCloseCode, "-"),
        (Builtin::WebSocketClientCloseReason, "-"),
        (Builtin::WebSocketClientFrames, "7"),
        (Builtin::WebSocketClientLargestMessage, "40"),
        (Builtin::WebSocketClientMessages, "3"),
        (Builtin::WebSocketClientPayloadBytes, "60"),
        (Builtin::WebSocketClientPings, "1"),
        (Builtin::WebSocketClientPongs, "2"),
        (Builtin::WebSocketClientRtt, "0.012"),
        (Builtin::WebSocketClientTextBytes, "50"),
        (Builtin::WebSocketClientTextMessages, "2"),
        (Builtin::WebSocketEvent, "close"),
        (Builtin::WebSocketLifetime, "61.002"),
        // Of that side nobody knows frames.
        (Builtin::WebSocketUpstreamBytes, "0"),
        (Builtin::WebSocketUpstreamFrames, "-"),
        (Builtin::WebSocketUpstreamRtt, "-"),
        (Builtin::WebSocketUpstreamBlockedTime, "0.000"),
    ] {
        assert!(is_of_tunnel(variable));
        assert_eq!(shown(&record, variable), expected, "{variable:?}");
    }
}

/// Every reason for an end, one of its kind for both sides.
fn causes() -> Vec<EndCause> {
    use wssgate_ws::close::CloseError;
    let ours = [wssgate_ws::Side::Client, wssgate_ws::Side::Server].into_iter().flat_map(|side| {
        [
            Cause::Violation(side, FrameError::ReservedOpcode(3)),
            Cause::InvalidClose(side, CloseError::Reason),
            Cause::InvalidText(side),
            Cause::FrameTooBig(side),
            Cause::MessageTooBig(side),
            Cause::TooManyFragments(side),
            Cause::ControlFlood(side),
            Cause::Rate(side, Excess::Messages),
            Cause::Rate(side, Excess::Bytes),
            Cause::SlowReader(side),
        ]
    });
    let ours = ours.chain([
        Cause::Drain(CloseCode::GOING_AWAY),
        Cause::Kill,
        Cause::Unhealthy,
        Cause::IdleTimeout,
        Cause::MaxLifetime,
        Cause::Credentials(Lapse::Revoked),
    ]);
    let sides = [Side::Client, Side::Upstream].into_iter().flat_map(|side| {
        [
            EndCause::Ended(side),
            EndCause::Broken(side, ECONNRESET),
            EndCause::Broken(side, 110),
            EndCause::Tls(side, wssgate_records::TlsFault::KeysExhausted),
            EndCause::SendTimeout(side),
            EndCause::Lost(side),
        ]
    });
    let rest = [
        EndCause::ReadTimeout,
        EndCause::HalfCloseTimeout,
        EndCause::Stopped,
        EndCause::Refused(24),
    ];
    ours.map(EndCause::from).chain(sides).chain(rest).collect()
}

#[test]
fn every_word_is_documented_and_nothing_else() {
    let mut words: Vec<_> =
        causes().into_iter().map(|cause| record(cause, None, [None; 2]).word().unwrap()).collect();
    words.extend(["client_close", "upstream_close"]);
    for side in [Side::Client, Side::Upstream] {
        let mut cut = record(EndCause::Ended(side), None, [None; 2]);
        cut.passed.client.truncated = side == Side::Client;
        cut.passed.upstream.truncated = side == Side::Upstream;
        words.extend(cut.word());
    }
    words.sort_unstable();
    let document = include_str!("../../../../../docs/websocket-ends.md");
    let rows = document.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let words_of = rows.map(|(word, _)| word).filter(|word| !word.starts_with('$'));
    let mut documented: Vec<_> = words_of.collect();
    documented.sort_unstable();
    assert_eq!(words, documented);
}
