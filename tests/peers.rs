//! When a peer is used again, and whose fault it is when none is.

#![allow(clippy::unwrap_used)]

use wssgate_testkit::{Conn, Handshake, Instance, Upstream, free_addr, text, wait_until};

const EXE: &str = env!("CARGO_BIN_EXE_wssgate");

fn echo(client: &mut Conn, message: &str) {
    client.send([text(message)]);
    client.expect([text(message)]);
}

/// A tunnel ends after hours. Until then its peer must not be taken for one that has still to
/// prove itself.
#[test]
fn servers_that_are_back_are_used_from_their_first_101_on() {
    let addresses = [free_addr(), free_addr(), free_addr()];
    let mut setup = Instance::setup(EXE).http(
        "upstream app { server %%A%% fail_timeout=1s; server %%B%% fail_timeout=1s;
             server %%C%% fail_timeout=1s; }
         server { listen %%LISTEN_0%%; location / { proxy_pass http://app; } }",
    );
    for (name, address) in ["A", "B", "C"].into_iter().zip(addresses) {
        setup = setup.var(name, address);
    }
    let server = setup.start();
    let handshake = Handshake::to(server.listen(0));
    assert_eq!(handshake.answer().1.status, 502);
    assert_eq!(server.error_log().matches("temporarily disabled").count(), 3);
    assert_eq!(handshake.answer().1.status, 502);
    server.wait_for_log("no live upstreams");

    let upstreams = addresses.map(|address| Upstream::builder().at(address).echo());
    let mut first = None;
    wait_until("fail_timeout", || {
        let (client, answer) = handshake.answer();
        first = (answer.status == 101).then_some(client);
        first.is_some()
    });
    let others: Vec<_> = (0..30).map(|_| handshake.answer()).collect();
    let statuses: Vec<_> = others.iter().map(|(_, answer)| answer.status).collect();
    assert_eq!(statuses, [101; 30], "one tunnel is open at each server");
    echo(&mut first.unwrap(), "still the first tunnel");
    drop(others);
    for upstream in upstreams {
        upstream.finish();
    }
}
