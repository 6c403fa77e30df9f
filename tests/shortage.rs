//! New clients when no descriptor is left.

#![allow(clippy::unwrap_used)]

use std::thread;

use wssgate_testkit::{Conn, Handshake, Instance, Pki, Response, Upstream, text, wait_until};

const EXE: &str = env!("CARGO_BIN_EXE_wssgate");

/// A server with few descriptors, on a plain address and on one of TLS.
struct Full {
    server: Instance,
    tunnels: Vec<Conn>,
    /// What holds the last descriptor, and perhaps who waits for one.
    idle: Vec<Conn>,
}

impl Full {
    fn new(upstream: &Upstream, workers: usize) -> Self {
        let pki = Pki::new();
        let leaf = pki.leaf(&["localhost"]);
        let server = Instance::setup(EXE)
            .main_and_http(
                &format!("worker_processes {workers}; worker_rlimit_nofile 64;"),
                "server { listen %%LISTEN_0%%; listen %%LISTEN_1%% ssl;
                     ssl_certificate %%CERT%%; ssl_certificate_key %%KEY%%;
                     location / { proxy_pass http://%%UP%%; } }",
            )
            .var("CERT", leaf.fullchain.display())
            .var("KEY", leaf.key.display())
            .var("UP", upstream.addr())
            .start();
        let mut full = Self { server, tunnels: Vec::new(), idle: Vec::new() };
        full.fill();
        full
    }

    fn handshake(&self) -> Handshake {
        Handshake::to(self.server.listen(0))
    }

    /// Opens tunnels until there is no descriptor left for a client.
    fn fill(&mut self) {
        let mut refused = None;
        wait_until("the last descriptor to be in use", || {
            let (conn, answer) = self.handshake().answer();
            match answer.status {
                101 => self.tunnels.push(conn),
                // It was served, and its own descriptor is free now.
                _ if answer.field("date").is_some() => {
                    self.idle.push(Conn::connect(self.server.listen(0)))
                }
                _ => refused = Some(answer),
            }
            refused.is_some()
        });
    }

    /// Ends some tunnels, and waits until their descriptors are free.
    fn end_tunnels(&mut self, count: usize) {
        let ended = |server: &Instance| server.access_log().matches(" 101 ").count();
        let before = ended(&self.server);
        self.tunnels.drain(..count);
        wait_until("tunnels to have ended", || ended(&self.server) == before + count);
    }

    fn expect_tunnels(&mut self) {
        for (number, tunnel) in self.tunnels.iter_mut().enumerate() {
            let message = format!("still {number}");
            tunnel.send([text(&message)]);
            tunnel.expect([text(&message)]);
        }
    }
}

/// A refusal that does not end in a reset. It is short if there was a descriptor for nothing else.
#[track_caller]
fn expect_refused(mut conn: Conn) -> Response {
    let answer = conn.recv_response();
    assert_eq!((answer.status, answer.field("connection")), (503, Some("close")), "{answer:?}");
    conn.expect_eof();
    answer
}

#[track_caller]
fn expect_refused_shortly(conn: Conn) {
    assert_eq!(expect_refused(conn).field("date"), None);
}

/// Everybody is told, whatever he sends, and those who are connected notice nothing. When there are
/// descriptors again, new clients are served; and the next shortage is no different.
#[test]
fn clients_without_a_descriptor_are_told_and_tunnels_go_on() {
    let upstream = Upstream::echo();
    let mut full = Full::new(&upstream, 1);
    let address = full.server.listen(0);
    for _ in 0..3 {
        for _ in 0..50 {
            expect_refused_shortly(full.handshake().send());
        }
        let mut upload = Conn::connect(address);
        upload.send_raw("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 20000\r\n\r\n");
        upload.send_raw([b'x'; 20_000]);
        expect_refused_shortly(upload);
        // Nothing has come of it yet that could be answered.
        Conn::connect(address).expect_eof();
        full.expect_tunnels();

        full.end_tunnels(4);
        full.tunnels.push(full.handshake().open());
        full.fill();
    }
    full.tunnels.clear();
    wait_until("the end of the shortage", || {
        full.handshake().answer();
        full.server.error_log().contains("accepting again, after")
    });
    let log = full.server.error_log();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("accept4()")).collect();
    assert!(lines[0].contains("[crit]"), "{}", lines[0]);
    assert!(lines[0].contains("accept4() failed (24: Too many open files)"), "{}", lines[0]);
    assert!(lines[0].contains("raise worker_rlimit_nofile"), "{}", lines[0]);
    assert!(lines.len() < 10, "{lines:#?}");
}

/// A handshake takes time, and what it takes is not there.
#[test]
fn a_client_of_tls_without_a_descriptor_is_closed_at_once() {
    let upstream = Upstream::echo();
    let mut full = Full::new(&upstream, 1);
    for _ in 0..20 {
        let mut client = Conn::connect(full.server.listen(1));
        let (bytes, _) = client.recv_to_end();
        assert_eq!(bytes, b"");
    }
    expect_refused_shortly(full.handshake().send());
    full.expect_tunnels();
}

/// Workers share one limit, and take descriptors from each other.
#[test]
fn a_flood_of_clients_without_a_descriptor_is_told_and_tunnels_go_on() {
    let upstream = Upstream::echo();
    let mut full = Full::new(&upstream, 2);
    let handshake = full.handshake();
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let handshake = handshake.clone();
            thread::spawn(move || {
                for _ in 0..40 {
                    expect_refused(handshake.send());
                }
            })
        })
        .collect();
    while !clients.iter().all(thread::JoinHandle::is_finished) {
        full.expect_tunnels();
    }
    clients.into_iter().for_each(|client| client.join().unwrap());
}
