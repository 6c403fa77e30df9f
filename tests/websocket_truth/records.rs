//! `websocket_log`: WebSockets that live are seen in logs.

use wssgate_testkit::{Handshake, Instance, Upstream, close, http, text};

use crate::rig::EXE;

/// A format that can be made ready when a tunnel begins, and one that looks at its end through a map.
const FORMATS: [&str; 2] = [
    "log_format records '$arg_id $websocket_event $websocket_client_messages $websocket_close_cause;';",
    "map $websocket_close_cause $how { default $websocket_close_cause; '' none; client_close good; }
     log_format records '$arg_id $websocket_event $websocket_client_messages $how;';",
];

const SERVER: &str = "
    websocket_log records.log records open interval=1s;
    websocket_log ends.log records;
    server { listen %%LISTEN_0%%;
             location / { proxy_pass http://%%UP%%; }
             location /off { websocket_log off; proxy_pass http://%%UP%%; } }";

#[test]
fn a_websocket_is_recorded_when_it_begins_while_it_lives_and_when_it_ends() {
    let upstream = Upstream::echo();
    for (format, [none, good]) in FORMATS.into_iter().zip([["-", "client_close"], ["none", "good"]])
    {
        let server = Instance::setup(EXE)
            .http(&format!("{format} {SERVER}"))
            .var("UP", upstream.addr())
            .start();
        let mut off = Handshake::to(server.listen(0)).path("/off?id=2").open();
        let mut client = Handshake::to(server.listen(0)).path("/?id=1").open();
        server.wait_for_line("records.log", &format!("1 open 0 {none};"));
        for _ in 0..2 {
            client.send([text("hello")]);
            client.expect([text("hello")]);
        }
        server.wait_for_line("records.log", &format!("1 progress 2 {none};"));
        client.send([text("hello"), close(1000, "")]);
        off.send([close(1000, "")]);
        client.recv_to_end();
        off.recv_to_end();
        server.wait_for_line("records.log", &format!("1 close 3 {good};"));
        let ends = server.wait_for_line("ends.log", "1 ");
        assert_eq!(ends, format!("1 close 3 {good};"));
        server.wait_for_access("/off?id=2 ");
        assert!(http::exchange(server.listen(0), PLAIN).status == 400);
        server.wait_for_access("/?id=3 ");
        for (file, count) in [("records.log", 3), ("ends.log", 1)] {
            let text = server.read(file);
            // Of progress there may be several lines on a busy machine.
            let other = text.lines().filter(|line| !line.contains(" progress ")).count();
            assert_eq!(other, count.min(2), "{text}");
            assert!(text.lines().all(|line| line.starts_with("1 ")), "{text}");
        }
        assert!(server.stop().success());
    }
    upstream.finish();
}

/// No WebSocket, so that nothing is recorded of it.
const PLAIN: &str = "GET /?id=3 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
