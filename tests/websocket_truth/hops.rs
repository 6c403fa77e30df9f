//! Two hops: what the edge says of the end when its gateway ends it, is told to end, or is killed.

use wssgate_testkit::{Conn, Handshake, Instance, Upstream, close, text, wait_until};

use crate::rig::{EXE, format, lines, told};

/// An edge, its gateway and an open WebSocket through both.
struct Hops {
    edge: Instance,
    gateway: Instance,
    client: Conn,
}

const SERVER: &str = "server { listen %%LISTEN_0%%; location / { proxy_pass http://%%UP%%; } }";

impl Hops {
    fn open(main: &str, upstream: &Upstream) -> Self {
        let http = format!("{} {SERVER}", format());
        let gateway =
            Instance::setup(EXE).main_and_http(main, &http).var("UP", upstream.addr()).start();
        let edge = Instance::setup(EXE).http(&http).var("UP", gateway.listen(0)).start();
        let mut client = Handshake::to(edge.listen(0)).path("/?id=1").open();
        client.send([text("hello")]);
        client.expect([text("hello")]);
        Self { edge, gateway, client }
    }
}

/// What the line of the only tunnel says.
fn only(server: &Instance) -> String {
    let mut found = None;
    wait_until("the line", || {
        found = lines(server).remove(&1);
        found.is_some()
    });
    told(&found.unwrap())
}

#[test]
fn a_killed_gateway_is_a_fin_to_its_edge() {
    let upstream = Upstream::echo();
    let mut hops = Hops::open("", &upstream);
    hops.gateway.signal("KILL");
    hops.client.expect_eof();
    assert_eq!(only(&hops.edge), "upstream - upstream_fin");
    upstream.finish();
}

#[test]
fn a_drained_gateway_closes_and_its_edge_sees_that() {
    let upstream = Upstream::echo();
    for signal in ["HUP", "QUIT"] {
        let mut hops = Hops::open("worker_shutdown_timeout 100ms;", &upstream);
        hops.gateway.signal(signal);
        hops.client.expect([close(1001, "")]);
        hops.client.send([close(1001, "")]);
        hops.client.expect_eof();
        assert_eq!(only(&hops.gateway), "proxy 1001 drain", "{signal}");
        assert_eq!(only(&hops.edge), "upstream 1001 upstream_close", "{signal}");
    }
    upstream.finish();
}

#[test]
fn a_gateway_that_is_shut_down_says_so_and_its_edge_sees_a_close() {
    let upstream = Upstream::echo();
    let mut hops = Hops::open("", &upstream);
    hops.gateway.signal("TERM");
    hops.client.expect([close(1001, "")]);
    hops.client.expect_eof();
    assert_eq!(only(&hops.gateway), "proxy 1001 shutdown");
    assert_eq!(only(&hops.edge), "upstream 1001 upstream_close");
    upstream.finish();
}
