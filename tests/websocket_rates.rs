//! How much a WebSocket may send in a time: `websocket_message_rate`, `websocket_byte_rate`, `websocket_limit` and
//! `limit_rate`.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use wssgate_testkit::{Conn, Handshake, Instance, Pki, Upstream, text, wait_until};

const WSSGATE: &str = env!("CARGO_BIN_EXE_wssgate");

/// A server whose only location has these lines.
fn server(upstream: &Upstream, zones: &str, lines: &str) -> Instance {
    let conf = format!(
        "{zones} server {{ listen %%LISTEN_0%%; location / {{ {lines} proxy_pass http://%%UP%%; }} }}"
    );
    Instance::setup(WSSGATE)
        .main_and_http("worker_processes 2;", &conf)
        .var("UP", upstream.addr())
        .start()
}

/// The same rates hold where TLS is spoken with both ends: what is counted are the bytes of WebSocket.
#[test]
fn rates_are_the_same_over_tls() {
    let pki = Pki::new();
    let leaf = pki.leaf(&["localhost"]);
    let upstream = Upstream::builder().tls(leaf.server_config()).echo();
    let server = |lines: &str| {
        let conf = format!(
            "server {{ listen %%LISTEN_0%% ssl; ssl_certificate %%CHAIN%%; ssl_certificate_key %%KEY%%;
                       location / {{ {lines} proxy_pass https://%%UP%%; }} }}"
        );
        Instance::setup(WSSGATE)
            .main_and_http("", &conf)
            .var("UP", upstream.addr())
            .var("CHAIN", leaf.fullchain.display())
            .var("KEY", leaf.key.display())
            .start()
    };
    let open = |server: &Instance| {
        Handshake::to(server.listen(0)).tls(pki.client_config(), "localhost").open()
    };
    for (lines, messages, len, seconds) in [
        ("websocket_message_rate client=20r/s burst=0;", 30, 9, 1.5),
        ("websocket_byte_rate client=40k burst=4000; proxy_read_timeout 300ms;", 64, 992, 1.5),
        ("limit_rate 50000; limit_rate_after 20000;", 145, 996, 1.5),
    ] {
        let server = server(lines);
        let mut client = open(&server);
        let took = echo_all(&mut client, messages, len) + echo_all(&mut client, 1, 9);
        assert_took(took, seconds);
    }
    let server = server("websocket_message_rate 1r/m burst=3 close;");
    let mut client = open(&server);
    for _ in 0..9 {
        client.send([text("many more")]);
    }
    assert_eq!(recv_close(&mut client)[..2], 1008_u16.to_be_bytes());
}

/// Sends so many messages at once and waits for their echoes; says how long that took.
fn echo_all(client: &mut Conn, messages: usize, len: usize) -> Duration {
    let message = "m".repeat(len);
    let began = Instant::now();
    for _ in 0..messages {
        client.send([text(&message)]);
    }
    for _ in 0..messages {
        client.expect([text(&message)]);
    }
    began.elapsed()
}

/// The payload of the Close that comes behind echoes.
fn recv_close(client: &mut Conn) -> Vec<u8> {
    loop {
        let frame = client.recv();
        if frame.close_code().is_some() {
            return frame.payload;
        }
    }
}

fn assert_took(took: Duration, expected: f64) {
    let took = took.as_secs_f64();
    // Never faster; a machine that is busy may be slower.
    assert!(took > expected * 0.95 && took < expected * 1.05 + 1.0, "{took} s, not {expected}");
}

#[test]
fn a_client_that_sends_too_fast_waits_and_loses_nothing() {
    let upstream = Upstream::echo();
    // The read timeout is less than the waits, in which nobody is read.
    for (lines, messages, len, seconds) in [
        ("websocket_message_rate client=20r/s burst=0;", 30, 9, 1.5),
        // Each is 1000 bytes with its header.
        ("websocket_byte_rate client=40k burst=4000; proxy_read_timeout 300ms;", 64, 992, 1.5),
    ] {
        let server = server(&upstream, "", lines);
        let mut client = Handshake::to(server.listen(0)).open();
        let took = echo_all(&mut client, messages, len);
        // The last read is passed on before it is paid for.
        let took = took.as_secs_f64();
        assert!(took < seconds + 1.0, "{lines}: {took} s");
        let again = echo_all(&mut client, 1, 9) + Duration::from_secs_f64(took);
        assert!(again.as_secs_f64() > seconds * 0.95, "{lines}: {again:?}");
    }
}

#[test]
fn limit_rate_holds_for_what_the_upstream_sends() {
    let upstream = Upstream::echo();
    let server = server(&upstream, "", "limit_rate 50000; limit_rate_after 20000;");
    let mut client = Handshake::to(server.listen(0)).open();
    // 996 bytes and a header of 4: 170,000 bytes, of which 70,000 are free or come at once.
    let took = echo_all(&mut client, 169, 996) + echo_all(&mut client, 1, 996);
    assert_took(took, 2.0);
}

#[test]
fn a_client_that_sends_too_much_is_told_so_and_nobody_else_is_blamed() {
    let upstream = Upstream::echo();
    for (lines, reason, what) in [
        ("websocket_message_rate 1r/m burst=3 close;", "message rate exceeded", "messages"),
        ("websocket_byte_rate client=1 burst=40 close;", "byte rate exceeded", "bytes"),
    ] {
        let server = server(&upstream, "", lines);
        let mut client = Handshake::to(server.listen(0)).open();
        echo_all(&mut client, 1, 9);
        for _ in 0..9 {
            client.send([text("many more")]);
        }
        let payload = recv_close(&mut client);
        assert_eq!(payload, [&1008_u16.to_be_bytes()[..], reason.as_bytes()].concat(), "{lines}");
        let line = format!("WebSocket closed by the proxy with 1008, client sent too many {what}");
        server.wait_for_log(&line);
    }
}

#[test]
fn the_websockets_of_one_key_share_a_zone_over_workers_and_reloads() {
    let upstream = Upstream::echo();
    let zones = "websocket_limit_zone $arg_user zone=users:1m rate=1r/m;";
    let server = server(&upstream, zones, "websocket_limit zone=users burst=20 close;");
    let address = server.listen(0);
    let open = |user: &str| Handshake::to(address).path(&format!("/?user={user}")).open();
    // So many that both workers have some.
    let mut sockets: Vec<_> = (0..6).map(|_| open("ann")).collect();
    for socket in &mut sockets {
        echo_all(socket, 2, 9);
    }
    server.signal("HUP");
    server.wait_for_log("reconfigured, generation 2");
    // Some of these begin with the new generation; 21 are allowed, and 12 were sent.
    sockets.extend((0..3).map(|_| open("ann")));
    for socket in &mut sockets {
        echo_all(socket, 1, 9);
    }
    let mut other = open("bob");
    echo_all(&mut other, 20, 9);
    let mut nobody = Handshake::to(address).open();
    echo_all(&mut nobody, 30, 9);
    let mut last = sockets.pop().unwrap();
    last.send([text("one too many")]);
    assert_eq!(recv_close(&mut last)[..2], 1008_u16.to_be_bytes());
    wait_until("the line of the one", || {
        server.error_log().matches("with 1008, client sent too many messages").count() == 1
    });
}
