//! Names that are looked up while the server runs.

#![allow(clippy::unwrap_used)]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use wssgate_testkit::net::loopback;
use wssgate_testkit::{Conn, Dns, Handshake, Instance, Says, Upstream, text, wait_until};

const EXE: &str = env!("CARGO_BIN_EXE_wssgate");

/// Two upstreams on the same port of two addresses; the first echoes, the second says "b".
fn two_upstreams() -> (Upstream, Upstream) {
    let first = Upstream::builder().at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).echo();
    let second = SocketAddr::new(loopback().into(), first.port());
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\nb";
    (first, Upstream::builder().at(second).http(move |_| answer))
}

fn second() -> String {
    IpAddr::from(loopback()).to_string()
}

/// Passes requests to the port of `upstream` at the name in their argument.
fn passing_to_argument(dns: &Dns, upstream: &Upstream) -> Instance {
    Instance::setup(EXE)
        .http(
            "resolver %%DNS%% ipv6=off;
             server { listen %%LISTEN_0%%;
                 location / { proxy_pass http://$arg_name:%%PORT%%; } }",
        )
        .var("DNS", dns.addr())
        .var("PORT", upstream.port())
        .start()
}

fn get(address: SocketAddr, path: &str) -> u16 {
    let mut client = Conn::connect(address);
    client.send_raw(format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
    client.recv_response().status
}

#[test]
fn a_name_in_a_variable_is_followed_while_its_tunnels_live() {
    let (first, second_upstream) = two_upstreams();
    let dns = Dns::start();
    dns.set("app.test", Says::addresses(&["127.0.0.1"]).ttl(1));
    let server = Instance::setup(EXE)
        .http(
            "resolver %%DNS%%;
             server { listen %%LISTEN_0%%;
                 location / { set $app app.test; proxy_pass http://$app:%%PORT%%; } }",
        )
        .var("DNS", dns.addr())
        .var("PORT", first.port())
        .start();
    let handshake = Handshake::to(server.listen(0));
    let mut tunnel = handshake.open();
    dns.set("app.test", Says::addresses(&[&second()]).ttl(1));
    wait_until("the new address", || handshake.answer().1.status == 200);
    tunnel.send([text("still here")]);
    tunnel.expect([text("still here")]);
    assert!(!dns.asked("app.test").iter().any(|asked| asked.tcp));
    second_upstream.finish();
}

#[test]
fn what_cannot_be_looked_up_is_a_502_that_says_why() {
    let dns = Dns::start();
    dns.set("broken.test", Says::code(2));
    dns.set("silent.test", Says::nothing());
    let server = Instance::setup(EXE)
        .http(
            "server { listen %%LISTEN_0%%;
                 location / { proxy_pass http://$arg_name; resolver %%DNS%%; resolver_timeout 1s; }
                 location /none { proxy_pass http://$arg_name; } }",
        )
        .var("DNS", dns.addr())
        .start();
    for (path, words) in [
        ("/?name=nosuch.test", "nosuch.test could not be resolved (3: Host not found)"),
        ("/?name=broken.test", "broken.test could not be resolved (2: Server failure)"),
        ("/?name=silent.test", "silent.test could not be resolved (110: Operation timed out)"),
        ("/?name=a..test", "a..test could not be resolved (3: Host not found)"),
        ("/none?name=app.test", "no resolver defined to resolve app.test"),
    ] {
        assert_eq!(get(server.listen(0), path), 502, "{path}");
        server.wait_for_log(words);
    }
    assert_eq!(dns.asked("a..test"), []);
}

#[test]
fn a_client_that_does_not_wait_for_a_name_is_told_in_the_log() {
    let dns = Dns::start();
    dns.set("silent.test", Says::nothing());
    let server = Instance::setup(EXE)
        .http(
            "resolver %%DNS%%;
             server { listen %%LISTEN_0%%; location / { proxy_pass http://$arg_name; } }",
        )
        .var("DNS", dns.addr())
        .start();
    let mut client = Conn::connect(server.listen(0));
    client.send_raw("GET /?name=silent.test HTTP/1.1\r\nHost: a\r\n\r\n");
    wait_until("the question", || !dns.asked("silent.test").is_empty());
    drop(client);
    server.wait_for_access(" 499 ");
}

#[test]
fn answers_are_looked_for_beyond_the_first_datagram() {
    let upstream = Upstream::builder().at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).echo();
    let dns = Dns::start();
    dns.set("long.test", Says::addresses(&["127.0.0.1"]).truncated());
    dns.set("forged.test", Says::addresses(&["127.0.0.1"]).after_another());
    dns.set("alias.test", Says::alias("long.test"));
    dns.set("circle.test", Says::alias("circle.test"));
    let server = passing_to_argument(&dns, &upstream);
    for name in ["long.test", "forged.test", "alias.test"] {
        let path = format!("/?name={name}");
        Handshake::to(server.listen(0)).path(&path).open();
    }
    server.wait_for_log("wrong ident in DNS response for forged.test");
    assert_eq!(get(server.listen(0), "/?name=circle.test"), 502);
    let kinds: Vec<_> =
        dns.asked("long.test").iter().map(|asked| (asked.kind, asked.tcp)).collect();
    let once = [(1, false), (1, true)];
    assert_eq!(kinds, [once, once].concat(), "for itself and for its alias, A alone");
}

#[test]
fn requests_for_a_name_wait_for_one_answer() {
    let upstream = Upstream::builder().at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).echo();
    let dns = Dns::start();
    dns.set("app.test", Says::nothing());
    let server = Instance::setup(EXE)
        .http(
            "resolver %%DNS%% ipv6=off;
             server { listen %%LISTEN_0%%; location / {
                 set $app app.test; proxy_pass http://$app:%%PORT%%; } }",
        )
        .var("DNS", dns.addr())
        .var("PORT", upstream.port())
        .start();
    let handshake = Handshake::to(server.listen(0));
    let mut clients: Vec<_> = (0..20).map(|_| handshake.send()).collect();
    wait_until("the question", || !dns.asked("app.test").is_empty());
    // Silence is asked again.
    dns.set("app.test", Says::addresses(&["127.0.0.1"]));
    for client in &mut clients {
        assert_eq!(client.recv_response().status, 101);
    }
    let asked = dns.asked("app.test").len();
    assert!(asked < 10, "{asked} questions for 20 requests");
}

#[test]
fn old_addresses_serve_on_while_no_server_answers() {
    let upstream = Upstream::builder().at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).echo();
    let dns = Dns::start();
    dns.set("app.test", Says::addresses(&["127.0.0.1"]).ttl(1));
    let server = Instance::setup(EXE)
        .http(
            "resolver %%DNS%%;
             server { listen %%LISTEN_0%%; location / {
                 set $app app.test; proxy_pass http://$app:%%PORT%%; } }",
        )
        .var("DNS", dns.addr())
        .var("PORT", upstream.port())
        .start();
    let handshake = Handshake::to(server.listen(0));
    handshake.open();
    drop(dns);
    wait_until("the answer to expire", || {
        handshake.open();
        server
            .error_log()
            .contains("fail or do not respond, using addresses of app.test that expired")
    });
    handshake.open();
    assert_eq!(server.error_log().matches("using addresses of").count(), 1);
}

#[test]
fn old_addresses_serve_on_while_servers_fail_but_not_when_the_name_is_gone() {
    let upstream = Upstream::builder().at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).echo();
    let dns = Dns::start();
    for (name, code) in [("fails.test", 2), ("refused.test", 5), ("gone.test", 3)] {
        dns.set(name, Says::addresses(&["127.0.0.1"]).ttl(1));
        let server = passing_to_argument(&dns, &upstream);
        let path = format!("/?name={name}");
        let handshake = Handshake::to(server.listen(0)).path(&path);
        handshake.open();
        dns.set(name, Says::code(code));
        if code == 3 {
            wait_until("the end of the name", || handshake.answer().1.status == 502);
            continue;
        }
        let stale = format!("fail or do not respond, using addresses of {name} that expired");
        wait_until("the answer to expire", || {
            handshake.open();
            server.error_log().contains(&stale)
        });
        handshake.open();
    }
}

#[test]
fn a_group_has_the_peers_that_its_names_have_now() {
    let (first, second_upstream) = two_upstreams();
    let dns = Dns::start();
    dns.set("app.test", Says::nothing());
    let mut server = Instance::setup(EXE)
        .http(
            "upstream app { server app.test:%%PORT%% resolve max_fails=%%FAILS%%; }
             resolver %%DNS%% valid=1s;
             resolver_timeout 1s;
             server { listen %%LISTEN_0%%; location / { proxy_pass http://app; } }",
        )
        .var("DNS", dns.addr())
        .var("PORT", first.port())
        .var("FAILS", 1)
        .start();
    let handshake = Handshake::to(server.listen(0));
    assert_eq!(handshake.answer().1.status, 502);
    server.wait_for_log("no live upstreams while connecting to upstream");
    server.wait_for_log("app.test could not be resolved (110: Operation timed out)");

    dns.set("app.test", Says::addresses(&["127.0.0.1"]));
    wait_until("an address", || handshake.answer().1.status == 101);
    let mut tunnel = handshake.open();
    dns.set("app.test", Says::addresses(&[&second()]));
    wait_until("the other address", || handshake.answer().1.status == 200);
    tunnel.send([text("still here")]);
    tunnel.expect([text("still here")]);

    // Nobody knows better, and the next generation begins with what this one knows.
    dns.set("app.test", Says::code(2));
    server.wait_for_log("app.test could not be resolved (2: Server failure)");
    dns.set("app.test", Says::nothing());
    server.set_var("FAILS", 2);
    server.rewrite();
    server.signal("HUP");
    server.wait_for_log("reconfigured, generation 2");
    assert_eq!(handshake.answer().1.status, 200);

    dns.set("app.test", Says::code(3));
    wait_until("no peers", || handshake.answer().1.status == 502);
    tunnel.send([text("and here")]);
    tunnel.expect([text("and here")]);
    second_upstream.finish();
}

#[test]
fn hosts_of_a_service_are_peers_by_priority() {
    let (first, second_upstream) = two_upstreams();
    let dns = Dns::start();
    let port = first.port();
    let hosts = [(2, 1, port, "echo.test"), (1, 1, port, "b.test")];
    dns.set("_ws._tcp.app.test", Says::service(&hosts));
    dns.set("echo.test", Says::addresses(&["127.0.0.1"]));
    dns.set("b.test", Says::addresses(&[&second()]));
    let server = Instance::setup(EXE)
        .http(
            "upstream app { zone app 64k; server app.test service=ws resolve; resolver %%DNS%% valid=1s; }
             server { listen %%LISTEN_0%%; location / { proxy_pass http://app; } }",
        )
        .var("DNS", dns.addr())
        .start();
    let handshake = Handshake::to(server.listen(0));
    wait_until("the service", || handshake.answer().1.status == 200);
    let all: Vec<_> = (0..4).map(|_| handshake.answer().1.status).collect();
    assert_eq!(all, [200; 4], "the other is a backup");
    // Of a host that is gone only the other is left.
    dns.set("b.test", Says::code(3));
    wait_until("the backup", || handshake.answer().1.status == 101);
    second_upstream.finish();
}
