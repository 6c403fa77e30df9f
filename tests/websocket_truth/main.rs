//! The truth about every end: what access lines say of WebSockets, against what scripted ends did.

#![allow(clippy::unwrap_used)]

mod blackhole;
mod causes;
mod chain;
mod hops;
mod random;
mod records;
mod rig;
mod script;
mod trace;

use std::io::Write;
use std::time::Duration;

use rig::{EXE, Rig, Tunnel, WIRES, check};
use wssgate_testkit::{
    Frame, Handshake, Instance, Upstream, binary, close, continuation, ping, pong, text,
};
use wssgate_ws::Opcode;

/// How both ends bring about an end, and what the line says of it: who, code, cause.
type Script = fn(&mut Tunnel, bool) -> &'static str;

/// Runs a script for the client and for the upstream, over all wires.
#[track_caller]
fn run(location: &str, what: &str, script: Script) {
    let mut rig = Rig::new();
    for wires in WIRES {
        for client in [true, false] {
            let mut tunnel = rig.open(location, wires);
            tunnel.pass(true, &[text("hello"), ping("1")]);
            tunnel.pass(
                false,
                &[binary([7; 300]), pong("1"), text("wor").more(), continuation("ld")],
            );
            let expected = script(&mut tunnel, client);
            tunnel.finish();
            let line = rig.line(tunnel.number);
            check(&line, expected, tunnel.said(), &format!("{what} {wires:?}"));
        }
    }
    assert!(rig.server.stop().success());
}

/// The word for the one that does it, and for the one across.
fn of<'a>(client: bool, by_client: &'a str, by_upstream: &'a str) -> &'a str {
    if client { by_client } else { by_upstream }
}

#[test]
fn a_closing_handshake_is_that_of_who_began_it() {
    run("plain", "close", |tunnel, client| {
        tunnel.pass(client, &[close(4001, "bye")]);
        tunnel.pass(!client, &[close(1000, "")]);
        of(client, "client 4001 client_close", "upstream 4001 upstream_close")
    });
}

/// Who gets a Close discards what follows it (RFC 6455 §1.4); it does not even get it.
#[test]
fn what_follows_a_close_reaches_nobody_where_rules_are_checked() {
    run("check", "data behind a Close", |tunnel, client| {
        tunnel.pass(client, &[close(4001, "bye")]);
        tunnel.ends(client).0.send(&[text("late"), ping("late")]);
        tunnel.pass(!client, &[close(1000, "")]);
        let (from, to) = tunnel.ends(client);
        from.conn().shutdown_write().unwrap();
        to.conn().expect_eof();
        of(client, "client 4001 client_close", "upstream 4001 upstream_close")
    });
}

#[test]
fn a_close_without_a_code_is_1005() {
    run("plain", "empty close", |tunnel, client| {
        tunnel.pass(client, &[Frame::new(Opcode::Close, "")]);
        tunnel.pass(!client, &[Frame::new(Opcode::Close, "")]);
        of(client, "client 1005 client_close", "upstream 1005 upstream_close")
    });
}

#[test]
fn an_end_without_a_close_is_a_fin() {
    run("plain", "fin", |tunnel, client| {
        let (from, to) = tunnel.ends(client);
        from.conn().shutdown_write().unwrap();
        to.conn().recv_to_end();
        of(client, "client - client_fin", "upstream - upstream_fin")
    });
}

#[test]
fn a_broken_connection_is_a_reset() {
    run("plain", "reset", |tunnel, client| {
        let (from, to) = tunnel.ends(client);
        from.reset();
        to.conn().recv_to_end();
        of(client, "client - client_reset", "upstream - upstream_reset")
    });
}

#[test]
fn who_has_closed_may_break() {
    run("plain", "close and reset", |tunnel, client| {
        tunnel.pass(client, &[close(1001, "")]);
        let (from, to) = tunnel.ends(client);
        from.reset();
        to.conn().recv_to_end();
        of(client, "client 1001 client_close", "upstream 1001 upstream_close")
    });
}

#[test]
fn a_close_may_be_answered_by_a_fin() {
    run("plain", "close and fin across", |tunnel, client| {
        tunnel.pass(client, &[close(1000, "done")]);
        let (from, to) = tunnel.ends(client);
        to.conn().shutdown_write().unwrap();
        from.conn().recv_to_end();
        of(client, "client 1000 client_close", "upstream 1000 upstream_close")
    });
}

#[test]
fn a_reset_is_no_answer_to_a_close() {
    run("plain", "close and reset across", |tunnel, client| {
        tunnel.pass(client, &[close(1000, "done")]);
        let (from, to) = tunnel.ends(client);
        to.reset();
        from.conn().recv_to_end();
        of(client, "client 1000 upstream_reset", "upstream 1000 client_reset")
    });
}

#[test]
fn silence_is_a_read_timeout() {
    run("read", "silence", |tunnel, _| {
        tunnel.client.conn().recv_to_end();
        tunnel.upstream.conn().recv_to_end();
        "proxy - read_timeout"
    });
}

#[test]
fn silence_behind_a_close_is_a_timeout_of_what_the_close_has_begun() {
    run("read", "close without an answer", |tunnel, client| {
        tunnel.pass(client, &[close(1000, "done")]);
        tunnel.client.conn().recv_to_end();
        tunnel.upstream.conn().recv_to_end();
        of(client, "client 1000 read_timeout", "upstream 1000 read_timeout")
    });
}

/// The answer was given, and what nobody has done is to end a connection.
#[test]
fn silence_behind_both_closes_is_no_timeout() {
    run("read", "two closes", |tunnel, client| {
        tunnel.pass(client, &[close(1000, "done")]);
        tunnel.pass(!client, &[close(1000, "")]);
        tunnel.client.conn().recv_to_end();
        tunnel.upstream.conn().recv_to_end();
        of(client, "client 1000 client_close", "upstream 1000 upstream_close")
    });
}

#[test]
fn silence_behind_a_fin_is_a_half_close_timeout() {
    run("read", "fin without an answer", |tunnel, client| {
        let (from, to) = tunnel.ends(client);
        from.conn().shutdown_write().unwrap();
        to.conn().recv_to_end();
        from.conn().recv_to_end();
        "proxy - half_close_timeout"
    });
}

/// Sends until nobody takes more.
fn stuff(tunnel: &mut Tunnel, client: bool) {
    let (to, from) = tunnel.ends(client);
    to.conn().shrink_buffers(4 << 10).unwrap();
    from.conn().set_guard(Duration::from_millis(100)).unwrap();
    let frame = binary(vec![0; 64 << 10]).encode((!client).then_some([0; 4]));
    while from.conn().try_send_raw(&frame).is_ok() {}
}

/// What is told of an end without its code: who takes nothing can be told one only where a frame ends.
fn stuffed(line: &rig::Line) -> String {
    format!("{} - {}", line["by"], line["cause"])
}

/// What is under way when a tunnel ends is counted by nobody but us.
#[track_caller]
fn run_stuffed(location: &str, expected: [&str; 2]) {
    for (client, expected) in [true, false].into_iter().zip(expected) {
        let mut rig = Rig::new();
        for wires in WIRES {
            let mut tunnel = rig.open(location, wires);
            stuff(&mut tunnel, client);
            let line = rig.line(tunnel.number);
            assert_eq!(stuffed(&line), expected, "{wires:?}: {line:?}");
            let blocked = of(client, "client_blocked_time", "upstream_blocked_time");
            assert!(line[blocked].parse::<f64>().unwrap() >= 0.3, "{line:?}");
        }
        assert!(rig.server.stop().success());
    }
}

#[test]
fn who_takes_nothing_has_a_send_timeout() {
    run_stuffed("send", ["proxy - client_send_timeout", "proxy - upstream_send_timeout"]);
}

#[test]
fn who_takes_nothing_is_a_slow_reader() {
    run_stuffed("slow", ["proxy - client_slow_reader", "proxy - upstream_slow_reader"]);
}

/// Answers the first ping, as all do that are there, and then is there no more.
#[track_caller]
fn run_frozen(client: bool) {
    let location = of(client, "ask-client", "ask-upstream");
    let mut rig = Rig::new();
    for wires in WIRES {
        let mut tunnel = rig.open(location, wires);
        tunnel.freeze(client);
        let expected = of(client, "proxy - client_pong_timeout", "proxy - upstream_pong_timeout");
        let line = rig.line(tunnel.number);
        check(&line, expected, tunnel.said(), &format!("frozen {wires:?}"));
        let rtt = of(client, "client_rtt", "upstream_rtt");
        assert!(line[rtt].parse::<f64>().is_ok_and(|rtt| rtt < 60.0), "{line:?}");
    }
    assert!(rig.server.stop().success());
}

#[test]
fn a_client_that_answers_no_more_is_a_pong_timeout() {
    run_frozen(true);
}

#[test]
fn a_frozen_application_is_a_pong_timeout() {
    run_frozen(false);
}

/// We close: both sides are told and answer. The one is told `code`, and behind the other, which is told that it
/// goes away.
#[track_caller]
fn answer(tunnel: &mut Tunnel, offender: bool, code: u16, reason: &str) {
    for client in [!offender, offender] {
        let (end, _) = tunnel.ends(client);
        let code = if client == offender { code } else { 1001 };
        end.conn().expect([close(code, reason)]);
        end.send(&[close(code, reason)]);
    }
}

#[test]
fn too_old_and_too_idle_are_closed_by_us() {
    for (location, reason, expected) in [
        ("idle", "idle timeout", "proxy 1001 idle_timeout"),
        ("life", "maximum lifetime reached", "proxy 1001 max_lifetime"),
    ] {
        let mut rig = Rig::new();
        for wires in WIRES {
            let mut tunnel = rig.open(location, wires);
            answer(&mut tunnel, true, 1001, reason);
            let line = rig.line(tunnel.number);
            assert_eq!(line["reason"], reason);
            check(&line, expected, tunnel.said(), &format!("{location} {wires:?}"));
        }
        assert!(rig.server.stop().success());
    }
}

#[test]
fn who_is_no_longer_authorized_is_closed_by_us() {
    let mut rig = Rig::new();
    for wires in WIRES {
        let mut tunnel = rig.open("denied", wires);
        answer(&mut tunnel, true, 1008, "no longer authorized");
        let line = rig.line(tunnel.number);
        assert_eq!(line["reason"], "no longer authorized");
        check(&line, "proxy 1008 credentials", tunnel.said(), &format!("{wires:?}"));
    }
    assert!(rig.server.stop().success());
}

#[test]
fn a_frame_too_big_is_named() {
    run("frame", "frame", |tunnel, client| {
        let frames = [binary([1; 1001])];
        tunnel.ends(client).0.send(&frames);
        answer(tunnel, client, 1009, "frame too big");
        of(client, "proxy 1009 client_frame_too_big", "proxy 1009 upstream_frame_too_big")
    });
}

#[test]
fn a_message_too_big_is_named() {
    run("message", "message", |tunnel, client| {
        tunnel.pass(client, &[text("x").more()]);
        tunnel.ends(client).0.send(&[continuation([b'x'; 1000])]);
        answer(tunnel, client, 1009, "message too big");
        of(client, "proxy 1009 client_message_too_big", "proxy 1009 upstream_message_too_big")
    });
}

#[test]
fn too_many_fragments_are_named() {
    run("fragments", "fragments", |tunnel, client| {
        tunnel
            .pass(client, &[text("a").more(), continuation("b").more(), continuation("c").more()]);
        tunnel.ends(client).0.send(&[continuation("d")]);
        answer(tunnel, client, 1008, "too many fragments");
        of(client, "proxy 1008 client_too_many_fragments", "proxy 1008 upstream_too_many_fragments")
    });
}

#[test]
fn a_flood_of_control_frames_is_named() {
    const REASON: &str = "too many control frames";
    run("control", "control frames", |tunnel, client| {
        let (from, _) = tunnel.ends(client);
        // One was sent before, and it may be a second ago on a busy machine.
        let flood: Vec<_> = (0..45).map(|_| ping("")).collect();
        from.send(&flood);
        let (from, to) = tunnel.ends(client);
        let frames = std::iter::repeat_with(|| to.conn().recv());
        let close_of_ours = frames.skip_while(|frame| *frame == ping("")).take(1).next().unwrap();
        assert_eq!(close_of_ours, close(1001, REASON));
        to.send(&[close(1001, "")]);
        from.conn().expect([close(1008, REASON)]);
        from.send(&[close(1008, "")]);
        of(client, "proxy 1008 client_control_flood", "proxy 1008 upstream_control_flood")
    });
}

/// What was read at once has passed when it turns out to be too much.
fn flood(tunnel: &mut Tunnel, client: bool, message: &Frame, reason: &str) {
    let (from, to) = tunnel.ends(client);
    from.send(&vec![message.clone(); 9]);
    let mut frames = std::iter::repeat_with(|| to.conn().recv());
    assert_eq!(frames.find(|frame| frame != message), Some(close(1001, reason)));
    to.send(&[close(1001, "")]);
    from.conn().expect([close(1008, reason)]);
    from.send(&[close(1008, "")]);
}

#[test]
fn too_many_messages_in_a_time_are_named() {
    run("messages", "messages", |tunnel, client| {
        flood(tunnel, client, &text("more"), "message rate exceeded");
        of(client, "proxy 1008 client_message_rate", "proxy 1008 upstream_message_rate")
    });
}

#[test]
fn too_many_bytes_in_a_time_are_named() {
    run("bytes", "bytes", |tunnel, client| {
        flood(tunnel, client, &binary([5; 200]), "byte rate exceeded");
        of(client, "proxy 1008 client_byte_rate", "proxy 1008 upstream_byte_rate")
    });
}

/// One message more than it may have sent now, so that it is held for a minute.
fn hold(tunnel: &mut Tunnel, client: bool) {
    // Of the client there was one before, of the upstream two.
    for _ in 0..if client { 2 } else { 1 } {
        tunnel.pass(client, &[text("more")]);
    }
}

/// What it sent before arrives, and nobody has to wait for the end of the minute.
#[test]
fn who_leaves_while_it_is_held_is_seen_to_leave() {
    run("held", "fin", |tunnel, client| {
        hold(tunnel, client);
        let (from, to) = tunnel.ends(client);
        from.conn().shutdown_write().unwrap();
        to.conn().expect_eof();
        of(client, "client - client_fin", "upstream - upstream_fin")
    });
    run("held", "close and fin", |tunnel, client| {
        hold(tunnel, client);
        tunnel.ends(client).0.send(&[text("the last"), close(1001, "bye")]);
        let (from, to) = tunnel.ends(client);
        from.conn().shutdown_write().unwrap();
        to.expect(&[text("the last"), close(1001, "bye")]);
        to.conn().expect_eof();
        of(client, "client 1001 client_close", "upstream 1001 upstream_close")
    });
    run("held", "reset", |tunnel, client| {
        hold(tunnel, client);
        let (from, to) = tunnel.ends(client);
        from.reset();
        to.conn().recv_to_end();
        of(client, "client - client_reset", "upstream - upstream_reset")
    });
}

/// A record of a type that does not exist.
#[test]
fn broken_tls_is_named() {
    let mut rig = Rig::new();
    for (wires, client) in [([true, false], true), ([true, true], true), ([true, true], false)] {
        let mut tunnel = rig.open("plain", wires);
        let (from, to) = tunnel.ends(client);
        from.conn().tcp().unwrap().write_all(&[99, 3, 3, 0, 1, 0]).unwrap();
        to.conn().recv_to_end();
        let expected = of(client, "client - client_tls", "upstream - upstream_tls");
        check(&rig.line(tunnel.number), expected, tunnel.said(), "TLS");
    }
    assert!(rig.server.stop().success());
}

/// FIN without close_notify: something may be missing.
#[test]
fn an_end_of_tls_without_close_notify_is_told_apart() {
    let mut rig = Rig::new();
    for (wires, client) in [([true, false], true), ([true, true], true), ([true, true], false)] {
        let mut tunnel = rig.open("plain", wires);
        let (from, to) = tunnel.ends(client);
        from.conn().tcp().unwrap().shutdown(std::net::Shutdown::Write).unwrap();
        to.conn().recv_to_end();
        let expected = of(client, "client - client_truncated", "upstream - upstream_truncated");
        // What the other side is told ends its direction as well.
        tunnel.ends(!client).0.conn().shutdown_write().unwrap();
        check(&rig.line(tunnel.number), expected, tunnel.said(), "cut");
    }
    assert!(rig.server.stop().success());
}

/// The kernel gives up a client that takes nothing: neither a reset nor a timeout of ours.
#[test]
fn a_connection_that_fails_otherwise_is_an_error() {
    let mut rig = Rig::new();
    let mut tunnel = rig.open("user-timeout", [false, false]);
    stuff(&mut tunnel, true);
    assert_eq!(rig::told(&rig.line(tunnel.number)), "client - client_error");
}

#[test]
fn text_that_is_not_utf_8_is_named() {
    run("check", "invalid text", |tunnel, client| {
        tunnel.ends(client).0.send(&[Frame::new(Opcode::Text, *b"\xff")]);
        answer(tunnel, client, 1007, "invalid UTF-8 in text message");
        of(client, "proxy 1007 client_invalid_text", "proxy 1007 upstream_invalid_text")
    });
}

#[test]
fn an_invalid_close_is_named() {
    const REASON: &str = "invalid close frame";
    run("check", "invalid close", |tunnel, client| {
        let (from, to) = tunnel.ends(client);
        from.send(&[close(999, "?")]);
        to.conn().expect([close(1001, REASON)]);
        to.send(&[close(1001, "")]);
        from.conn().expect([close(1002, REASON)]);
        of(client, "proxy 1002 client_invalid_close", "proxy 1002 upstream_invalid_close")
    });
}

#[test]
fn half_a_close_code_is_an_invalid_close() {
    const REASON: &str = "invalid close frame";
    run("check", "half a code", |tunnel, client| {
        let (from, to) = tunnel.ends(client);
        from.send_odd(&Frame::new(Opcode::Close, [3]));
        from.said.close = Some((1005, String::new()));
        to.conn().expect([close(1001, REASON)]);
        to.send(&[close(1001, "")]);
        from.conn().expect([close(1002, REASON)]);
        of(client, "proxy 1002 client_invalid_close", "proxy 1002 upstream_invalid_close")
    });
}

/// What comes behind a broken rule is not understood, so nothing of it is counted but its bytes.
#[test]
fn a_broken_rule_is_named() {
    const REASON: &str = "protocol error";
    run("check", "broken rule", |tunnel, client| {
        let (from, to) = tunnel.ends(client);
        from.send_odd(&ping("").rsv(1));
        to.conn().expect([close(1001, REASON)]);
        to.send(&[text("answer"), close(1001, "")]);
        from.conn().expect([text("answer"), close(1002, REASON)]);
        // Its answer is found behind what is not understood, though nothing else of it is counted.
        from.send_odd(&close(1002, ""));
        from.said.close = Some((1002, String::new()));
        of(client, "proxy 1002 client_protocol_error", "proxy 1002 upstream_protocol_error")
    });
}

/// The side that did nothing wrong gives no answer.
fn offend_in_vain(tunnel: &mut Tunnel, client: bool, ends: bool) -> &'static str {
    const REASON: &str = "invalid UTF-8 in text message";
    let (from, to) = tunnel.ends(client);
    from.send(&[Frame::new(Opcode::Text, *b"\xff")]);
    to.conn().expect([close(1001, REASON)]);
    if ends {
        to.conn().shutdown_write().unwrap();
    }
    from.conn().expect([close(1007, REASON)]);
    from.send(&[close(1007, "")]);
    of(client, "proxy 1007 client_invalid_text", "proxy 1007 upstream_invalid_text")
}

#[test]
fn who_breaks_a_rule_is_told_though_nobody_answers() {
    run("check", "silence", |tunnel, client| offend_in_vain(tunnel, client, false));
    run("check", "end", |tunnel, client| offend_in_vain(tunnel, client, true));
}

#[test]
fn a_lost_upstream_is_told_to_the_client_if_that_is_wanted() {
    run("failure", "failure", |tunnel, reset| {
        let expected = match reset {
            true => {
                tunnel.upstream.reset();
                "upstream 1014 upstream_reset"
            }
            false => {
                tunnel.upstream.conn().shutdown_write().unwrap();
                "upstream 1014 upstream_fin"
            }
        };
        tunnel.client.conn().expect([close(1014, "")]);
        expected
    });
}

/// A client that leaves without a word has lost nobody, and no code stands beside its name.
#[test]
fn an_upstream_that_ends_behind_its_client_is_not_lost() {
    run("failure", "client left", |tunnel, _| {
        tunnel.client.conn().shutdown_write().unwrap();
        tunnel.upstream.conn().recv_to_end();
        tunnel.upstream.conn().shutdown_write().unwrap();
        tunnel.client.conn().expect_eof();
        "client - client_fin"
    });
}

#[test]
fn the_format_websocket_is_predefined_and_yields_to_one_of_that_name() {
    let upstream = Upstream::echo();
    let server = "server { listen %%LISTEN_0%%; location / { proxy_pass http://%%UP%%; } }";
    for (format, expected) in [
        ("", "by=\"client\" code=\"4001\" reason=\"a \\x22b\\x22\" cause=\"client_close\""),
        ("log_format websocket 'mine $websocket_close_cause';", "mine client_close"),
    ] {
        let http = format!("{format} access_log ws.log websocket; {server}");
        let server = Instance::setup(EXE).http(&http).var("UP", upstream.addr()).start();
        let mut client = Handshake::to(server.listen(0)).path("/chat?token=secret").open();
        client.send([close(4001, "a \"b\"")]);
        client.recv_to_end();
        let line = server.wait_for_line("ws.log", expected);
        assert!(!line.contains("secret") && !line.contains("= "), "{line}");
    }
    upstream.finish();
}
