//! The testkit against itself: a client that talks to an upstream with nothing between them.
#![allow(clippy::unwrap_used)]

use std::{io::ErrorKind, net::Ipv6Addr, os::unix::fs::PermissionsExt, sync::mpsc, time::Duration};

use wssgate_testkit::{
    Conn, End, Gate, Handshake, Instance, Listener, Pki, Upstream, binary, close, continuation,
    http, ping, pki::KeyKind, pong, text, upstream::any_port_on,
};

#[test]
fn an_echo_answers_fragments_pings_and_the_close() {
    let upstream = Upstream::echo();
    let mut client = Handshake::to(upstream.addr()).host("a.test").path("/chat?x=1").open();
    client.send([text("hel").more(), ping("?"), pong("!"), continuation("lo")]);
    client.expect([text("hel").more(), pong("?"), continuation("lo")]);
    let big = binary(vec![7; 1 << 20]);
    client.send([big.clone(), close(1000, "bye")]);
    client.expect([big, close(1000, "bye")]);
    client.expect_eof();

    let request = upstream.next_request();
    assert_eq!((request.method(), request.target()), ("GET", "/chat?x=1"));
    assert_eq!(request.field("host"), Some("a.test"));
    upstream.finish();
}

#[test]
fn a_handshake_shows_the_fields_as_they_were_received() {
    let upstream = Upstream::serve(|conn| {
        let request = conn.recv_request();
        conn.accept_websocket(&request, "sec-websocket-PROTOCOL: b\r\nX-Up: 1\r\n");
        conn.send([text("at once")]);
    });
    let handshake = Handshake::to(upstream.addr())
        .field("X-Odd-CASE", "  spaced ")
        .field("Sec-WebSocket-Protocol", "a, b");
    let (mut client, head) = handshake.open_with_head();
    client.expect([text("at once")]);
    assert_eq!(head.start, "HTTP/1.1 101 Switching Protocols");
    assert_eq!(head.lines()[3..], ["sec-websocket-PROTOCOL: b", "X-Up: 1"]);
    assert_eq!(upstream.next_request().head.fields[5], ("X-Odd-CASE".into(), "spaced".into()));
}

#[test]
#[should_panic(expected = "invalid 101 answer: its \"Sec-WebSocket-Accept\"")]
fn a_wrong_accept_fails_the_handshake() {
    let upstream = Upstream::says(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\
         Sec-WebSocket-Accept: AAAA\r\n\r\n",
    );
    Handshake::to(upstream.addr()).open();
}

#[test]
fn an_answer_other_than_101_is_shown_with_its_body() {
    let upstream = Upstream::text("no sockets here");
    let (_conn, response) = Handshake::to(upstream.addr()).answer();
    assert_eq!((response.status, &*response.text()), (200, "no sockets here"));
}

#[test]
fn a_websocket_upstream_refuses_requests_without_a_key() {
    let upstream = Upstream::echo();
    let response = http::get(upstream.addr(), "a", "/");
    assert_eq!((response.status, &*response.text()), (400, "no upgrade"));
}

#[test]
fn early_bytes_leave_with_the_request() {
    let upstream = Upstream::websocket(|conn| conn.expect([text("early")]));
    let early = text("early").encode(Some([1, 2, 3, 4]));
    let mut client = Handshake::to(upstream.addr()).early(early).open();
    client.expect_eof();
    upstream.finish();
}

#[test]
fn responses_are_framed_by_length_chunks_or_close_and_connections_are_reused() {
    let upstream = Upstream::http(|request| match request.target() {
        "/length" => "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
        "/chunks" => {
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
             2;x=y\r\nab\r\n1\r\nc\r\n0\r\nT: 1\r\n\r\n"
        }
        _ => "HTTP/1.1 204 No Content\r\n\r\n",
    });
    let mut client = Conn::connect(upstream.addr());
    let post = "POST /chunks HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
                5\r\nhello\r\n0\r\n\r\n";
    let pipelined = "GET /length HTTP/1.1\r\nHost: a\r\n\r\nGET /none HTTP/1.1\r\nHost: a\r\n\r\n";
    client.send_raw(post);
    client.send_raw(pipelined);
    let answers = [client.recv_response(), client.recv_response(), client.recv_response()];
    let seen = answers.map(|answer| (answer.status, answer.text()));
    assert_eq!(seen, [(200, "abc".into()), (200, "abc".into()), (204, String::new())]);
    assert_eq!(upstream.next_request().body, b"hello");
    assert_eq!(upstream.requests().iter().map(|r| r.connection).collect::<Vec<_>>(), [0, 0]);
    assert_eq!(upstream.connections(), 1);

    let until_close = Upstream::says("HTTP/1.0 200 OK\r\n\r\nall of it");
    assert_eq!(http::get(until_close.addr(), "a", "/").text(), "all of it");
}

#[test]
fn both_ends_tell_a_reset_from_an_end_in_order() {
    let (sender, ends) = mpsc::channel();
    let upstream = Upstream::websocket(move |conn| sender.send(conn.recv_to_end()).unwrap());
    let mut client = Handshake::to(upstream.addr()).open();
    client.send_raw("half");
    client.shutdown_write().unwrap();
    client.expect_eof();
    assert_eq!(ends.recv().unwrap(), (b"half".to_vec(), End::Eof));

    Handshake::to(upstream.addr()).open().reset().unwrap();
    assert_eq!(ends.recv().unwrap(), (Vec::new(), End::Reset));
}

#[test]
fn a_half_closed_client_still_receives() {
    let upstream = Upstream::websocket(|conn| {
        assert_eq!(conn.try_recv().unwrap_err().kind(), ErrorKind::UnexpectedEof);
        conn.send([text("late")]);
    });
    let mut client = Handshake::to(upstream.addr()).open();
    client.shutdown_write().unwrap();
    client.expect([text("late")]);
    client.expect_eof();
    upstream.finish();
}

#[test]
fn a_gate_holds_an_answer_back() {
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = Upstream::http(move |_| {
        held.wait();
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    });
    let mut client = Conn::connect(upstream.addr());
    client.send_raw("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    upstream.next_request();
    client.set_guard(Duration::from_millis(20)).unwrap();
    let early = client.try_recv_response("GET").unwrap_err();
    assert_eq!(early.kind(), ErrorKind::WouldBlock);
    gate.open();
    client.set_guard(wssgate_testkit::GUARD).unwrap();
    assert_eq!(client.recv_response().status, 200);
}

#[test]
fn upstreams_listen_on_ipv6_and_unix_sockets_too() {
    let v6 = Upstream::builder().at(any_port_on(Ipv6Addr::LOCALHOST)).echo();
    assert_eq!(v6.addr().to_string(), format!("[::1]:{}", v6.port()));
    let dir = tempfile::tempdir().unwrap();
    let unix = Upstream::builder().unix(dir.path().join("up.sock")).echo();
    for upstream in [v6, unix] {
        let mut client = Handshake::to(upstream.addr()).open();
        client.send([text("hello")]);
        client.expect([text("hello")]);
    }
}

#[test]
fn tls_works_both_ways_with_every_kind_of_key() {
    let pki = Pki::new();
    for kind in [KeyKind::EcdsaSec1, KeyKind::RsaPkcs1] {
        let leaf = pki.leaf_with(&["a.test"], kind);
        let upstream = Upstream::builder().tls(leaf.server_config()).echo();
        let handshake = Handshake::to(upstream.addr()).tls(pki.client_config(), "a.test");
        let mut client = handshake.open();
        client.send([text("hello"), close(1000, "")]);
        client.expect([text("hello"), close(1000, "")]);
        assert_eq!(client.tls_client().unwrap().peer_certificates().unwrap(), leaf.chain());
    }
}

#[test]
fn a_tls_connection_that_ends_without_close_notify_is_truncated() {
    let pki = Pki::new();
    let leaf = pki.leaf(&["a.test"]);
    let cut = Upstream::builder().tls(leaf.server_config()).websocket(|_| ());
    let mut client = Handshake::to(cut.addr()).tls(pki.client_config(), "a.test").open();
    assert_eq!(client.recv_to_end(), (Vec::new(), End::Truncated));

    let whole = Upstream::builder()
        .tls(leaf.server_config())
        .websocket(|conn| conn.shutdown_write().unwrap());
    let mut client = Handshake::to(whole.addr()).tls(pki.client_config(), "a.test").open();
    assert_eq!(client.recv_to_end(), (Vec::new(), End::Eof));
}

#[test]
fn certificates_that_do_not_fit_fail_the_handshake() {
    let pki = Pki::new();
    let cases = [
        (pki.leaf(&["a.test"]), &pki, "b.test", "NotValidForName"),
        (pki.expired_leaf(&["a.test"]), &pki, "a.test", "expired"),
        (Pki::new().leaf(&["a.test"]), &pki, "a.test", "UnknownIssuer"),
    ];
    for (leaf, trusted, name, reason) in cases {
        let upstream = Upstream::builder().tls(leaf.server_config()).echo();
        let handshake = Handshake::to(upstream.addr()).tls(trusted.client_config(), name);
        let error = handshake.try_send().unwrap_err();
        assert!(format!("{error:?} {error}").contains(reason), "{error:?}");
    }
}

#[test]
fn a_test_can_speak_for_both_ends_in_turn() {
    let listener = Listener::bind();
    let (mut client, mut upstream) = Handshake::to(listener.addr()).open_with(&listener);
    client.send([text("hel").more(), ping("?"), continuation("lo")]);
    upstream.expect([text("hel").more(), ping("?"), continuation("lo")]);
    upstream.send([close(1001, "")]);
    client.expect([close(1001, "")]);
    drop(upstream);
    client.expect_eof();
}

/// Stands for the program: does what its configuration, a shell script, says.
fn shell(dir: &std::path::Path) -> std::path::PathBuf {
    let exe = dir.join("program");
    std::fs::write(&exe, "#!/bin/sh\ncd \"$2\" && . ./$4\n").unwrap();
    std::fs::set_permissions(&exe, std::fs::Permissions::from_mode(0o755)).unwrap();
    exe
}

#[test]
fn an_instance_is_ready_with_its_pid_file_and_obeys_signals() {
    let dir = tempfile::tempdir().unwrap();
    let program = "trap 'echo \"$(cat extra/x) bye\" >>%%DIR%%/error.log; exit 3' QUIT\n\
                   trap 'echo reload >>error.log' HUP\n\
                   echo warned >&2; echo %%LISTEN_0%% %%LISTEN_1%% %%LISTEN_0%% >access.log\n\
                   echo $$ >nginx.pid\n\
                   while :; do sleep 0.01; done";
    let instance = Instance::setup(shell(dir.path())).conf(program).file("extra/x", "so").start();
    let (a, b) = (instance.listen(0), instance.listen(1));
    assert_eq!(instance.wait_for_access(" "), format!("{a} {b} {a}"));
    assert_ne!(a, b);
    assert_eq!(instance.stderr(), "warned\n");
    instance.signal("HUP");
    assert_eq!(instance.wait_for_log("rel"), "reload");
    let log = instance.dir().join("error.log");
    assert_eq!(instance.read("nginx.pid").trim(), instance.pid().to_string());
    let copy = dir.path().join("copy");
    std::fs::hard_link(log, &copy).unwrap();
    assert_eq!(instance.stop().code(), Some(3));
    assert_eq!(std::fs::read_to_string(copy).unwrap(), "reload\nso bye\n");
}

#[test]
fn an_instance_that_ends_at_once_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let setup = || Instance::setup(shell(dir.path())).conf("echo no such directive >&2; exit 1");
    let Err(failed) = setup().try_start() else { panic!("it has ended") };
    assert_eq!((failed.status.code(), &*failed.stderr), (Some(1), "no such directive\n"));
    let output = setup().run(&["-t"]);
    assert_eq!((output.status.code(), &*output.stderr), (Some(1), "no such directive\n"));
}
