//! When a peer is used again, and whose fault it is when none is.

#![allow(clippy::unwrap_used)]

use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Barrier, mpsc};
use std::thread;
use std::time::Duration;

use wssgate_testkit::{
    Conn, GUARD, Handshake, Instance, Listener, Upstream, free_addr, text, wait_until,
};

const EXE: &str = env!("CARGO_BIN_EXE_wssgate");

fn echo(client: &mut Conn, message: &str) {
    client.send([text(message)]);
    client.expect([text(message)]);
}

/// A tunnel ends after hours. Until then its peer must not be taken for one that has still to
/// prove itself, and nobody has to wait for `fail_timeout`.
#[test]
fn servers_that_are_back_are_used_at_once() {
    let addresses = [free_addr(), free_addr(), free_addr()];
    let start = |address: SocketAddr| Upstream::builder().at(address).echo();
    let mut setup = Instance::setup(EXE).main_and_http(
        "worker_processes 2;",
        "upstream app { server %%A%% fail_timeout=1h; server %%B%% fail_timeout=1h;
             server %%C%% fail_timeout=1h; }
         server { listen %%LISTEN_0%%; location / { proxy_pass http://app; } }",
    );
    for (name, address) in ["A", "B", "C"].into_iter().zip(addresses) {
        setup = setup.var(name, address);
    }
    let server = setup.start();
    let handshake = Handshake::to(server.listen(0));
    let statuses = |count: usize| -> (Vec<Conn>, Vec<u16>) {
        let answers = (0..count).map(|_| handshake.answer());
        answers.map(|(client, answer)| (client, answer.status)).unzip()
    };
    let upstreams = addresses.map(start);
    let (clients, before) = statuses(12);
    assert_eq!(before, [101; 12]);
    drop(clients);
    upstreams.into_iter().for_each(Upstream::finish);
    assert_eq!(statuses(6).1, [502; 6], "nobody is there");

    let second = start(addresses[1]);
    let (mut clients, statuses) = statuses(60);
    assert_eq!(statuses, [101; 60], "one is there, and stays with all its tunnels");
    let others = [start(addresses[0]), start(addresses[2])];
    wait_until("the others to be asked again", || {
        clients.push(handshake.open());
        others.iter().all(|upstream| upstream.connections() > 0)
    });
    server.wait_for_log("has responded and is in use again");
    assert!(!server.error_log().contains("no live upstreams"));
    clients.iter_mut().for_each(|client| echo(client, "still there"));
    drop(clients);
    others.into_iter().chain([second]).for_each(Upstream::finish);
}

/// WebSockets stay where they are, so what the first moments make uneven is so for hours.
#[test]
fn servers_that_come_back_together_share_their_clients() {
    const CLIENTS: usize = 200;
    let addresses = [free_addr(), free_addr(), free_addr()];
    let mut setup = Instance::setup(EXE).main_and_http(
        "worker_processes 2;",
        "upstream app { server %%A%%; server %%B%%; server %%C%%; }
         server { listen %%LISTEN_0%%; location / { proxy_pass http://app; } }",
    );
    for (name, address) in ["A", "B", "C"].into_iter().zip(addresses) {
        setup = setup.var(name, address);
    }
    let server = setup.start();
    let handshake = Handshake::to(server.listen(0));
    let back = Barrier::new(21);
    let upstreams = thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| {
                assert_eq!(handshake.answer().1.status, 502);
                back.wait();
                back.wait();
                let clients: Vec<_> = (0..CLIENTS / 20).map(|_| handshake.open()).collect();
                back.wait();
                drop(clients);
            });
        }
        back.wait();
        let upstreams = addresses.map(|address| Upstream::builder().at(address).echo());
        back.wait();
        back.wait();
        upstreams
    });
    let shares = upstreams.each_ref().map(Upstream::connections);
    assert_eq!(shares.iter().sum::<usize>(), CLIENTS);
    assert!(shares.iter().all(|share| *share >= CLIENTS / 3 / 2), "{shares:?}");
    upstreams.into_iter().for_each(Upstream::finish);
}

/// Load must come back to the one that was away first, as the other may be away next.
#[test]
fn after_a_rolling_restart_both_servers_are_used() {
    for method in ["", "least_conn;"] {
        let addresses = [free_addr(), free_addr()];
        let start = |address: SocketAddr| Upstream::builder().at(address).echo();
        let server = Instance::setup(EXE)
            .http(
                "upstream app { %%METHOD%% server %%A%%; server %%B%%; }
                 server { listen %%LISTEN_0%%; location / { proxy_pass http://app; } }",
            )
            .var("METHOD", method)
            .var("A", addresses[0])
            .var("B", addresses[1])
            .start();
        let handshake = Handshake::to(server.listen(0));
        let mut upstreams = addresses.map(start);
        for restarted in [0, 1] {
            let clients: Vec<_> = (0..4).map(|_| handshake.open()).collect();
            let other = free_addr();
            let old = std::mem::replace(&mut upstreams[restarted], start(other));
            drop(clients);
            old.finish();
            // All that come while it is away are served by the other one.
            drop((0..4).map(|_| handshake.open()).collect::<Vec<_>>());
            upstreams[restarted] = start(addresses[restarted]);
            let mut clients = Vec::new();
            wait_until("the server that was away to be used", || {
                clients.push(handshake.open());
                upstreams[restarted].connections() > 1
            });
        }
        let [first, second] = upstreams;
        second.finish();
        drop((0..4).map(|_| handshake.open()).collect::<Vec<_>>());
        first.finish();
    }
}

#[test]
fn nginx_s_way_refuses_while_all_servers_rest() {
    let address = free_addr();
    let server = Instance::setup(EXE)
        .http(
            "websocket_recovery nginx;
             upstream app { server %%A%% fail_timeout=1h; server %%B%% fail_timeout=1h; }
             upstream eager { websocket_recovery eager; server %%A%%; server %%B%%; }
             server { listen %%LISTEN_0%%; location / { proxy_pass http://app; }
                 location /eager { proxy_pass http://eager; } }",
        )
        .var("A", address)
        .var("B", free_addr())
        .start();
    let handshake = Handshake::to(server.listen(0));
    let eager = handshake.clone().path("/eager");
    let status = |handshake: &Handshake| handshake.answer().1.status;
    assert_eq!([status(&handshake), status(&eager)], [502, 502]);
    assert_eq!(server.error_log().matches("temporarily disabled").count(), 4);
    let upstream = Upstream::builder().at(address).echo();
    assert_eq!([status(&handshake), status(&handshake), status(&eager)], [502, 502, 101]);
    server.wait_for_log("no live upstreams");
    upstream.finish();
}

/// That somebody would not wait any longer for a peer that hangs is no sign that it is back.
#[test]
fn a_client_that_leaves_does_not_bring_a_hanging_peer_back() {
    let (told, asked) = mpsc::channel();
    let told_by_a = told.clone();
    let failed = AtomicBool::new(false);
    let a = Upstream::serve(move |conn| {
        conn.recv_request();
        told_by_a.send("a").unwrap();
        // The first request is broken off, all others hang.
        if failed.swap(true, Ordering::Relaxed) {
            conn.recv_to_end();
        }
    });
    let b = Upstream::http(move |_| {
        told.send("b").unwrap();
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nb"
    });
    let server = Instance::setup(EXE)
        .main_and_http(
            "worker_processes 1;",
            "upstream app { server %%A%%; server %%B%%; }
             server { listen %%LISTEN_0%%; location / { proxy_pass http://app; } }",
        )
        .var("A", a.addr())
        .var("B", b.addr())
        .start();
    let address = server.listen(0);
    let ask = || {
        let mut client = Conn::connect(address);
        client.send_raw("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        (client, asked.recv_timeout(GUARD).unwrap())
    };
    let (mut client, first) = ask();
    assert_eq!((first, asked.recv_timeout(GUARD).unwrap()), ("a", "b"));
    assert_eq!(client.recv_response().text(), "b");
    server.wait_for_log("temporarily disabled");
    let mut probe = None;
    wait_until("a probe", || {
        let (client, peer) = ask();
        probe = (peer == "a").then_some(client);
        probe.is_some()
    });
    drop(probe);
    server.wait_for_log("client prematurely closed connection");
    // Were it in use, it would have every second request.
    let mut in_a_row = 0;
    wait_until("requests that all go to the other one", || {
        in_a_row = if ask().1 == "b" { in_a_row + 1 } else { 0 };
        in_a_row == 4
    });
    a.finish();
}

/// Behind its 101 stands a server that is going down; its like would have every new socket.
#[test]
fn a_tunnel_that_is_reset_at_once_is_a_failure_of_its_peer() {
    let a = Listener::bind();
    let b = Upstream::echo();
    let server = Instance::setup(EXE)
        .main_and_http(
            "worker_processes 1;",
            "upstream app { websocket_recovery nginx; server %%A%% fail_timeout=1h; server %%B%%; }
             server { listen %%LISTEN_0%%; location / { proxy_pass http://app; } }",
        )
        .var("A", a.addr())
        .var("B", b.addr())
        .start();
    let handshake = Handshake::to(server.listen(0));
    let open_at_a = || {
        let client = handshake.send();
        let mut upstream = a.accept();
        let request = upstream.recv_request();
        upstream.accept_websocket(&request, "");
        (client, upstream)
    };
    let (mut client, upstream) = open_at_a();
    assert_eq!(client.recv_response().status, 101);
    drop(upstream);
    client.expect_eof();
    let mut other = handshake.open();
    echo(&mut other, "a peer that closes in good order stays in use");
    let (mut client, upstream) = open_at_a();
    assert_eq!(client.recv_response().status, 101);
    upstream.reset().unwrap();
    server.wait_for_log("it reset an upgraded connection at once");
    let others: Vec<_> = (0..4).map(|_| handshake.open()).collect();
    assert_eq!(b.connections(), 5);
    drop(others);
}

/// Where each socket takes a place at its server, the next one may wait for it.
#[test]
fn a_handshake_waits_in_the_queue_until_a_tunnel_ends() {
    let upstream = Upstream::echo();
    let server = Instance::setup(EXE)
        .main_and_http(
            "worker_processes 1;",
            "upstream app { server %%A%% max_conns=1; queue 1; }
             upstream hasty { server %%A%% max_conns=1; queue 1 timeout=10ms; }
             server { listen %%LISTEN_0%%; location / { proxy_pass http://app; }
                 location /hasty { proxy_pass http://hasty; } }",
        )
        .var("A", upstream.addr())
        .start();
    let handshake = Handshake::to(server.listen(0));
    let mut tunnel = handshake.open();
    let mut waiting = handshake.send();
    // The queue is full as soon as it waits; a request that came first would wait itself.
    wait_until("it to wait", || {
        let mut other = handshake.send();
        other.set_guard(Duration::from_millis(50)).unwrap();
        other.try_recv_raw(12).is_ok_and(|answer| answer == b"HTTP/1.1 502")
    });
    echo(&mut tunnel, "the place is taken");
    drop(tunnel);
    assert_eq!(waiting.recv_response().status, 101);
    echo(&mut waiting, "the place is given on");
    drop(waiting);

    let hasty = handshake.path("/hasty");
    let tunnel = hasty.open();
    assert_eq!(hasty.answer().1.status, 502);
    drop(tunnel);
    upstream.finish();
}

#[test]
fn connections_are_kept_for_a_location_unless_the_group_says_otherwise() {
    for (keepalive, connections) in [("", 2), ("keepalive 4 local;", 2), ("keepalive 4;", 1)] {
        let upstream = Upstream::text("a");
        let server = Instance::setup(EXE)
            .main_and_http(
                "worker_processes 1;",
                "upstream app { server %%A%%; %%KEEPALIVE%% }
                 server { listen %%LISTEN_0%%; location /a { proxy_pass http://app; }
                     location /b { proxy_pass http://app; } }",
            )
            .var("A", upstream.addr())
            .var("KEEPALIVE", keepalive)
            .start();
        let mut client = Conn::connect(server.listen(0));
        for path in ["/a", "/b", "/a", "/b"] {
            client.send_raw(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
            assert_eq!(client.recv_response().text(), "a");
        }
        assert_eq!(upstream.connections(), connections, "{keepalive}");
    }
}

/// An idle connection that its peer gives up just as the next request comes says nothing about the
/// peer: servers that restart do that to each of them.
#[test]
fn a_stale_idle_connection_is_no_failure_of_its_peer() {
    let a = Listener::bind();
    let b = Upstream::text("b");
    let server = Instance::setup(EXE)
        .main_and_http(
            "worker_processes 1;",
            "upstream app { server %%A%% fail_timeout=1h; server %%B%%; keepalive 4; }
             server { listen %%LISTEN_0%%; location / { proxy_pass http://app; } }",
        )
        .var("A", a.addr())
        .var("B", b.addr())
        .start();
    let mut client = Conn::connect(server.listen(0));
    const REQUEST: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    const RESPONSE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na";
    client.send_raw(REQUEST);
    let mut first = a.accept();
    first.recv_request();
    first.send_raw(RESPONSE);
    assert_eq!(client.recv_response().text(), "a");
    client.send_raw(REQUEST);
    assert_eq!(client.recv_response().text(), "b");
    client.send_raw(REQUEST);
    first.recv_request();
    drop(first);
    let mut second = a.accept();
    second.recv_request();
    second.send_raw(RESPONSE);
    assert_eq!(client.recv_response().text(), "a", "the same one is asked over another");
    server.wait_for_log("upstream prematurely closed connection");
    let log = server.error_log();
    assert!(!log.contains("[error]"), "{log}");
    // Its successor may be gone as well.
    client.send_raw(REQUEST);
    assert_eq!(client.recv_response().text(), "b");
    client.send_raw(REQUEST);
    second.recv_request();
    drop((second, a));
    assert_eq!(client.recv_response().text(), "b");
    server.wait_for_log("temporarily disabled");
}

/// A host that was cut off and is back resets what it does not know, connection by connection.
#[test]
fn idle_connections_that_are_all_dead_leave_a_request_its_peers() {
    let peers = [Listener::bind(), Listener::bind()];
    let server = Instance::setup(EXE)
        .main_and_http(
            "worker_processes 1;",
            "upstream app { server %%A%%; server %%B%%; keepalive 4; }
             server { listen %%LISTEN_0%%; location / { proxy_pass http://app; } }",
        )
        .var("A", peers[0].addr())
        .var("B", peers[1].addr())
        .start();
    let mut client = Conn::connect(server.listen(0));
    const REQUEST: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    const RESPONSE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na";
    let serve = |conn: &mut Conn| {
        conn.recv_request();
        conn.send_raw(RESPONSE);
    };
    let mut kept = peers.each_ref().map(|peer| {
        client.send_raw(REQUEST);
        let mut conn = peer.accept();
        serve(&mut conn);
        assert_eq!(client.recv_response().text(), "a");
        conn
    });
    client.send_raw(REQUEST);
    kept[0].recv_request();
    let [dead, mut other] = kept;
    dead.reset().unwrap();
    serve(&mut peers[0].accept());
    assert_eq!(client.recv_response().text(), "a");
    client.send_raw(REQUEST);
    other.recv_request();
    other.reset().unwrap();
    // The peer itself resets as well, so the next one is asked, which has no idle connection.
    let mut fresh = peers[1].accept();
    fresh.recv_request();
    fresh.reset().unwrap();
    serve(&mut peers[0].accept());
    let answer = client.recv_response();
    assert_eq!((answer.status, answer.text().as_str()), (200, "a"));
}

/// Without descriptors no connection can be made to any peer. When there are some again the peers
/// are used at once, because nothing was wrong with them.
#[test]
fn a_shortage_of_descriptors_is_no_failure_of_a_peer() {
    let upstreams = [Upstream::echo(), Upstream::echo()];
    let server = Instance::setup(EXE)
        .main_and_http(
            "worker_processes 1; worker_rlimit_nofile 48;",
            "upstream app { server %%A%%; server %%B%%; }
             server { listen %%LISTEN_0%%; location / { proxy_pass http://app; } }",
        )
        .var("A", upstreams[0].addr())
        .var("B", upstreams[1].addr())
        .start();
    let address = server.listen(0);
    // Accepted before descriptors are short, and so asking for peers while they are.
    const CLIENTS: usize = 10;
    let clients: [Conn; CLIENTS] = std::array::from_fn(|_| Conn::connect(address));
    let others: Vec<_> = (0..60).map(|_| TcpStream::connect(address).unwrap()).collect();
    server.wait_for_log("accept4() failed (24: Too many open files)");
    for mut client in clients {
        // Something may have closed since; whoever waits to be accepted takes that up.
        wait_until("the last descriptor to be in use", || {
            client.send_raw("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            let answer = client.recv_response();
            let refused = answer.status == 503;
            let fate = if refused { "close" } else { "keep-alive" };
            assert_eq!(answer.field("connection"), Some(fate));
            refused
        });
        client.expect_eof();
    }
    drop(others);
    let handshake = Handshake::to(address);
    wait_until("descriptors to be free", || handshake.answer().1.status == 101);
    let statuses: Vec<_> = (0..4).map(|_| handshake.answer().1.status).collect();
    assert_eq!(statuses, [101; 4]);
    let log = server.error_log();
    let alerts: Vec<_> = log.lines().filter(|line| line.contains("[alert]")).collect();
    assert!(alerts[0].contains("socket() failed (24: Too many open files)"), "{}", alerts[0]);
    assert!(alerts[0].contains("worker_rlimit_nofile"), "{}", alerts[0]);
    assert!(alerts.len() < CLIENTS / 2, "{alerts:#?}");
    assert!(!log.contains("temporarily disabled"), "{log}");
}

/// One port is a small range of ports; it is in use as long as a tunnel is open.
#[test]
fn a_port_of_proxy_bind_that_is_in_use_is_no_failure_of_a_peer() {
    let upstreams = [Upstream::echo(), Upstream::echo()];
    let server = Instance::setup(EXE)
        .http(
            "upstream app { server %%A%%; server %%B%%; }
             server { listen %%LISTEN_0%%;
                 location / { proxy_pass http://app; }
                 location /bound { proxy_pass http://app; proxy_bind %%BIND%%; } }",
        )
        .var("A", upstreams[0].addr())
        .var("B", upstreams[1].addr())
        .var("BIND", free_addr())
        .start();
    let handshake = Handshake::to(server.listen(0));
    let mut client = handshake.clone().path("/bound").open();
    for _ in 0..3 {
        assert_eq!(handshake.clone().path("/bound").answer().1.status, 503);
    }
    echo(&mut client, "the tunnel on that port");
    let tunnels: Vec<_> = (0..4).map(|_| handshake.open()).collect();
    assert_eq!(upstreams.each_ref().map(Upstream::connections), [3, 2]);
    drop(tunnels);
    let log = server.error_log();
    let alerts: Vec<_> = log.lines().filter(|line| line.contains("[alert]")).collect();
    assert!(alerts[0].contains("bind() failed (98: Address already in use)"), "{}", alerts[0]);
    assert!(alerts[0].contains("proxy_bind"), "{}", alerts[0]);
    assert!(!log.contains("temporarily disabled"), "{log}");
}
