//! What becomes of WebSockets.

use std::time::Duration;

use wssgate_testkit::{Conn, Upstream, close, ping, pong, text};
use wssgate_ws::Opcode;

use crate::requests::reset;
use crate::*;

/// Shorter than the longest silence that is tried.
const CUT: Duration = Duration::from_millis(300);

/// Answers the five pings before the first silence, and echoes until nothing has come for [`CUT`].
fn until_silence(conn: &mut Conn) {
    answer_pings(conn, 5);
    conn.set_guard(CUT).unwrap();
    conn.echo();
}

fn answer_pings(conn: &mut Conn, count: usize) {
    for _ in 0..count {
        let ping = conn.recv();
        conn.send([pong(ping.payload)]);
    }
}

fn idle(server: &Upstream) -> Report {
    let mut client = Client::new();
    client.settings.idle = Some(Duration::from_millis(1600));
    client.ws(server)
}

fn idle_facts(report: &Report) -> serde_json::Value {
    let step = serde_json::to_value(report.steps.last().unwrap()).unwrap();
    assert_eq!(step["step"], "idle");
    step["facts"].clone()
}

#[test]
fn a_connection_that_is_cut_when_it_is_idle() {
    let fin = Upstream::websocket(until_silence);
    let rst = Upstream::websocket(|conn| {
        until_silence(conn);
        reset(conn.tcp().unwrap());
    });
    let told = Upstream::websocket(|conn| {
        until_silence(conn);
        conn.send([close(1001, "idle")]);
        drop(conn.recv_to_end());
    });
    for (server, how) in [
        (fin, "FIN without a Close"),
        (rst, "RST without a Close"),
        (told, "a Close with code 1001 (going away), \"idle\""),
    ] {
        let report = idle(&server);
        let words = ["of silence", how, "websocket_ping_interval"];
        expect(&report, Verdict::Warning, "idle_cut", &words);
        let facts = idle_facts(&report);
        let after = facts["cut_after_seconds"].as_f64().unwrap();
        // The server's clock begins earlier, by the time that a pong takes.
        assert!((0.0..1.6).contains(&after), "{facts}");
        assert_eq!(facts["cut_by"], how);
    }
}

#[test]
fn a_connection_that_is_forgotten_without_a_word() {
    let server = Upstream::websocket(|conn| {
        // The five pings before the silence and the one behind the first.
        answer_pings(conn, 6);
        drop(conn.recv_to_end());
    });
    let mut client = Client::new();
    client.settings.idle = Some(Duration::from_millis(400));
    client.settings.timeout = Duration::from_secs(3);
    let report = client.ws(&server);
    expect(&report, Verdict::Warning, "idle_forgotten", &["firewall or NAT"]);
    let facts = idle_facts(&report);
    assert_eq!((&facts["cut_after_seconds"], &facts["cut_by"]), (&0.1.into(), &"silence".into()));
}

#[test]
fn a_connection_that_stays() {
    let report = idle(&Upstream::echo());
    assert_eq!(codes(&report), [""; 0]);
    let facts = idle_facts(&report);
    assert!(facts["survived_seconds"].as_f64().unwrap() >= 1.6, "{facts}");
    assert_eq!(facts["tried_seconds"], serde_json::json!([0.2, 0.4, 0.8, 1.6]));
    assert_eq!(facts["cut_after_seconds"], serde_json::Value::Null);
}

#[test]
fn pings_of_the_server_are_answered_and_counted() {
    let server = Upstream::websocket(|conn| {
        let (mut pings, mut pongs) = (0, 0);
        loop {
            let frame = conn.recv();
            match frame.opcode {
                // Each pong is followed by a ping and a message, whose payload asks for nothing.
                Opcode::Ping => {
                    conn.send([pong(frame.payload), ping("server"), text("news")]);
                    pings += 1;
                }
                Opcode::Pong => {
                    assert_eq!(frame.payload, b"server");
                    pongs += 1;
                }
                // The last one is read behind it.
                Opcode::Close => return assert_eq!(pongs + 1, pings),
                other => panic!("{other:?}"),
            }
        }
    });
    let mut client = Client::new();
    client.settings.idle = Some(Duration::from_millis(80));
    let report = client.ws(&server);
    assert_eq!(codes(&report), [""; 0]);
    assert!(idle_facts(&report)["pings"].as_u64().unwrap() >= 4, "{report:#?}");
    server.finish();
}

#[test]
fn a_websocket_that_ends_at_once() {
    let client = Client::new();
    let server = Upstream::websocket(|conn| conn.send([close(4001, "no token")]));
    let words = ["code 4001 (private use), \"no token\"", "token"];
    expect_fault(&client.ws(&server), "closed_at_once", &words);
    let server = Upstream::websocket(|conn| drop(conn.try_recv()));
    expect_fault(&client.ws(&server), "cut_at_once", &["FIN"]);
    let server = Upstream::websocket(|conn| {
        drop(conn.try_send_raw("<html>"));
        drop(conn.try_recv());
    });
    expect_fault(&client.ws(&server), "not_websocket", &["0xc is reserved"]);
}

#[test]
fn a_websocket_without_pongs() {
    let mut client = Client::new();
    client.settings.timeout = Duration::from_secs(3);
    let server = Upstream::websocket(|conn| drop(conn.recv_to_end()));
    expect_fault(&client.ws(&server), "no_pong", &["5.5.3"]);
}

#[test]
fn messages_that_are_too_long() {
    let mut client = Client::new();
    client.settings.size = Some(100_000);
    let server = Upstream::websocket(|conn| {
        while let Ok(frame) = conn.try_recv() {
            match frame.opcode {
                Opcode::Ping => conn.send([pong(frame.payload)]),
                Opcode::Text if frame.payload.len() > 20_000 => {
                    conn.send([close(1009, "too big")]);
                    return drop(conn.recv_to_end());
                }
                _ => {}
            }
        }
    });
    let words = ["message of 65536 bytes", "1009 (message too big), \"too big\""];
    expect_fault(&client.ws(&server), "message_refused", &words);
    let report = client.ws(&Upstream::echo());
    assert_eq!(codes(&report), [""; 0], "{report:#?}");
    let step = serde_json::to_value(report.steps.last().unwrap()).unwrap();
    assert_eq!((&step["step"], &step["facts"]["largest"]), (&"size".into(), &100_000.into()));
    assert_eq!(step["facts"]["echoed"], true);
}
