//! Ends that are there no more and say nothing of it: one end is in a network of its own, whose cable is cut.
//!
//! Only root can make networks; for others this is skipped.

use std::net::SocketAddr;
use std::process::Command;

use wssgate_testkit::sandbox::Network;
use wssgate_testkit::{Listener, binary, close, pong, skipped, text};
use wssgate_ws::Opcode;

use crate::rig::{Rig, Tunnel, WIRES, Wires, check};

const NEAR: [u8; 4] = [10, 0, 0, 1];
const FAR: [u8; 4] = [10, 0, 0, 2];

/// The server with one end in a network, where this thread is too, and the other end behind a cable.
struct Cable {
    near: Network,
    far: Network,
}

impl Cable {
    /// `None` if nobody lets us.
    fn new() -> Option<Self> {
        let networks = || -> std::io::Result<Self> {
            let far = Network::new()?;
            ip("link set lo up");
            let near = Network::new()?;
            ip("link set lo up");
            Ok(Self { near, far })
        };
        let cable =
            networks().inspect_err(|error| skipped(&format!("blackholes: {error}"))).ok()?;
        ip("link add near type veth peer name far");
        ip(&format!("link set far netns {}", cable.far.path()));
        ip("address add 10.0.0.1/24 dev near");
        ip("link set near up");
        cable.far(|| {
            ip("address add 10.0.0.2/24 dev far");
            ip("link set far up");
        });
        Some(cable)
    }

    /// Does something behind the cable; sockets that are made there stay there.
    fn far<T>(&self, work: impl FnOnce() -> T) -> T {
        self.far.enter().unwrap();
        let done = work();
        self.near.enter().unwrap();
        done
    }

    /// From now on nothing comes through it.
    fn cut(&self) {
        self.far(|| ip("link set far down"));
    }

    fn mend(&self) {
        self.far(|| ip("link set far up"));
    }

    /// The server, with its upstreams on either side of the cable.
    fn rig(&self, far_upstreams: bool) -> Rig {
        let listeners = match far_upstreams {
            true => self.far(|| [FAR, FAR].map(|ip| Listener::bind_on(ip.into()))),
            false => [Listener::bind(), Listener::bind()],
        };
        Rig::with(listeners, |setup| {
            setup.var("LISTEN_0", "10.0.0.1:80").var("LISTEN_1", "10.0.0.1:443")
        })
    }

    /// A tunnel whose one end is behind the cable: the client or the upstream.
    fn open(&self, rig: &mut Rig, location: &str, wires: Wires, far_client: bool) -> Tunnel {
        let port = if wires[0] { 443 } else { 80 };
        let path = format!("/{}/{location}/", crate::rig::wire(wires[1]));
        let mut open = || rig.open_at(SocketAddr::from((NEAR, port)).into(), &path, wires);
        if far_client { self.far(open) } else { open() }
    }
}

/// Runs `ip` in the network of this thread.
#[track_caller]
fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status();
    assert!(status.is_ok_and(|status| status.success()), "ip {arguments}");
}

/// What is said of an end that vanishes after it has answered a ping and said something.
fn run(location: &str, far_client: bool, end: fn(&mut Tunnel), expected: &str) {
    let Some(cable) = Cable::new() else { return };
    let mut rig = cable.rig(!far_client);
    let mut tunnels = WIRES.map(|wires| {
        let mut tunnel = cable.open(&mut rig, location, wires, far_client);
        if location.starts_with("ask") {
            let (far, _) = tunnel.ends(far_client);
            let first = far.recv();
            assert_eq!(first.opcode, Opcode::Ping);
            far.answer(pong(first.payload));
        }
        tunnel.pass(far_client, &[text("I am here")]);
        tunnel
    });
    cable.cut();
    tunnels.iter_mut().for_each(end);
    for (mut tunnel, wires) in tunnels.into_iter().zip(WIRES) {
        tunnel.ends(!far_client).0.conn().recv_to_end();
        let line = rig.line(tunnel.number);
        check(&line, expected, tunnel.said(), &format!("{location} {wires:?}"));
        // Pings and their timeout are short, and what it has not acknowledged excuses nobody who is gone.
        let lifetime: f64 = line["lifetime"].parse().unwrap();
        assert!(!location.starts_with("ask") || lifetime < 6.0, "{line:?}");
    }
    assert!(rig.server.terminate().success());
}

#[test]
fn a_client_that_is_no_more_is_a_pong_timeout() {
    run("ask-client", true, |_| {}, "proxy - client_pong_timeout");
}

#[test]
fn an_application_that_is_no_more_is_a_pong_timeout() {
    run("ask-upstream", false, |_| {}, "proxy - upstream_pong_timeout");
}

/// The kernel gives up what it sent to a peer that acknowledges nothing.
#[test]
fn a_client_that_acknowledges_nothing_is_an_error() {
    let say = |tunnel: &mut Tunnel| tunnel.upstream.send(&[binary([7; 300])]);
    run("user-timeout", true, say, "client - client_error");
}

#[test]
fn an_application_that_acknowledges_nothing_is_an_error() {
    let say = |tunnel: &mut Tunnel| tunnel.client.send(&[binary([7; 300])]);
    run("user-timeout", false, say, "upstream - upstream_error");
}

#[test]
fn silence_of_a_client_that_is_no_more_is_a_read_timeout() {
    run("read", true, |_| {}, "proxy - read_timeout");
}

/// The one that is there answers; the other one has its time.
#[test]
fn who_is_no_more_need_not_answer_a_close() {
    let answer = |tunnel: &mut Tunnel| {
        tunnel.upstream.expect(&[close(1001, "idle timeout")]);
        tunnel.upstream.send(&[close(1001, "")]);
    };
    run("idle", true, answer, "proxy 1001 idle_timeout");
}

#[test]
fn who_comes_back_in_time_has_missed_nothing() {
    let Some(cable) = Cable::new() else { return };
    let mut rig = cable.rig(false);
    for wires in WIRES {
        let mut tunnel = cable.open(&mut rig, "plain", wires, true);
        tunnel.pass(true, &[text("I am here")]);
        cable.cut();
        tunnel.upstream.send(&[text("are you?")]);
        tunnel.client.send(&[text("am I?")]);
        cable.mend();
        tunnel.client.expect(&[text("are you?")]);
        tunnel.upstream.expect(&[text("am I?")]);
        tunnel.pass(true, &[close(1000, "")]);
        tunnel.pass(false, &[close(1000, "")]);
        tunnel.finish();
        let line = rig.line(tunnel.number);
        check(&line, "client 1000 client_close", tunnel.said(), &format!("back {wires:?}"));
    }
    assert!(rig.server.stop().success());
}

/// Who takes nothing because it is not there is no other than who does not want to.
#[test]
fn a_flood_towards_a_client_that_is_no_more_is_a_timeout() {
    for (location, expected) in
        [("send", "proxy - client_send_timeout"), ("slow", "proxy - client_slow_reader")]
    {
        let Some(cable) = Cable::new() else { return };
        let mut rig = cable.rig(false);
        let mut tunnel = cable.open(&mut rig, location, [false, false], true);
        tunnel.pass(true, &[text("I am here")]);
        cable.cut();
        crate::stuff(&mut tunnel, true);
        assert_eq!(crate::stuffed(&rig.line(tunnel.number)), expected);
        assert!(rig.server.terminate().success());
    }
}
