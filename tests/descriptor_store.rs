//! A service manager that keeps descriptors keeps the tunnels: `systemctl restart` ends none.

#![allow(clippy::unwrap_used)]

#[path = "descriptor_store/manager.rs"]
mod manager;

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::Arc;

use manager::{Manager, Unit};
use rustls::ClientConfig;
use wssgate_sys::sealed::Unsealed;
use wssgate_testkit::pki::Leaf;
use wssgate_testkit::{
    Conn, Gate, Handshake, Pki, Upstream, close, free_addr, http, ping, pong, text, wait_until,
};

/// One line for each WebSocket that has ended.
const LOG: &str = "log_format ends '$uri $status $connection $websocket_client_messages \
     $websocket_upstream_text_bytes $websocket_close_cause $websocket_close_code';
     access_log ends.log ends;";

/// What is stored.
const STORED: &str = "wssgate-tunnels";

/// A plain server on the address of the socket unit.
fn plain(manager: &Manager, upstream: &Upstream, more: &str) -> String {
    let (address, upstream) = (manager.address(), upstream.addr());
    format!(
        "{LOG} server {{ listen {address}; {more}
         location / {{ return 200 here; }} location /ws {{ proxy_pass http://{upstream}; }} }}"
    )
}

fn open(address: SocketAddr, path: &str) -> Conn {
    Handshake::to(address).path(path).open()
}

/// One message there and back.
#[track_caller]
fn echo(client: &mut Conn, message: &str) {
    client.send([text(message)]);
    client.expect([text(message)]);
}

/// Ends it as browsers do.
#[track_caller]
fn end(mut client: Conn) {
    client.send([close(1000, "")]);
    assert_eq!(client.recv().close_code(), Some(1000));
    client.expect_eof();
}

/// Over TLS 1.3, TLS 1.2 and without, and to an upstream at a Unix socket.
struct Everything {
    pki: Pki,
    leaf: Leaf,
    addresses: [SocketAddr; 2],
    upstream: Upstream,
    _local: Upstream,
}

impl Everything {
    fn new(manager: &Manager) -> Self {
        let pki = Pki::new();
        let leaf = pki.leaf(&["localhost"]);
        let local = Upstream::builder().unix(manager.path("upstream")).echo();
        fs::set_permissions(manager.path("upstream"), fs::Permissions::from_mode(0o777)).unwrap();
        let addresses = [free_addr(), free_addr()];
        Self { pki, leaf, addresses, upstream: Upstream::echo(), _local: local }
    }

    fn http(&self, manager: &Manager) -> String {
        let (chain, key) = (self.leaf.fullchain.display(), self.leaf.key.display());
        let [newer, older] = self.addresses;
        let (plain, upstream) = (manager.address(), self.upstream.addr());
        let local = manager.path("upstream");
        format!(
            "{LOG} ssl_certificate {chain}; ssl_certificate_key {key};
             server {{ listen {newer} ssl; listen {plain}; ssl_protocols TLSv1.3;
                 location /ws {{ proxy_pass http://{upstream}; }}
                 location /local {{ proxy_pass http://unix:{}:/; }} }}
             server {{ listen {older} ssl; ssl_protocols TLSv1.2;
                 location /ws {{ proxy_pass http://{upstream}; }} }}",
            local.display()
        )
    }

    fn clients(&self, manager: &Manager) -> Vec<Conn> {
        let config: Arc<ClientConfig> = self.pki.client_config();
        let tls = |address: SocketAddr, path: &str| {
            Handshake::to(address).tls(Arc::clone(&config), "localhost").path(path).open()
        };
        vec![
            tls(self.addresses[0], "/ws/newer"),
            tls(self.addresses[1], "/ws/older"),
            open(manager.address(), "/ws/plain"),
            open(manager.address(), "/local"),
        ]
    }
}

#[test]
fn a_restart_ends_no_tunnel_and_loses_no_byte() {
    let mut manager = Manager::new(Unit::keeping(1));
    let everything = Everything::new(&manager);
    let http = everything.http(&manager);
    manager.start("", &http);
    let mut clients = everything.clients(&manager);
    for client in &mut clients {
        echo(client, "first");
    }
    for (at, signal) in ["TERM", "QUIT", "TERM"].into_iter().enumerate() {
        // Half a message, and half a frame of it.
        let rest = text(&"second half".repeat(1000)).encode(Some([1, 2, 3, 4]));
        let (half, other) = rest.split_at(5000);
        for client in &mut clients {
            client.send([text("some")]);
            client.send_raw(half);
            client.expect([text("some")]);
        }
        manager.signal(signal);
        assert!(manager.wait().success());
        assert_eq!(manager.stored(), [STORED], "one for all");
        // Nobody serves, and nobody notices.
        for client in &mut clients {
            client.send_raw(other);
            client.send([ping("there?"), text(&format!("between {at}"))]);
        }
        manager.start("", &http);
        assert_eq!(manager.stored(), [""; 0], "it was taken up");
        for client in &mut clients {
            client.expect([text(&"second half".repeat(1000)), pong("there?")]);
            client.expect([text(&format!("between {at}"))]);
        }
    }
    let log = manager.read("error.log");
    assert_eq!(log.matches("4 tunnels wait in the service manager's store").count(), 3, "{log}");
    assert_eq!(log.matches("4 tunnels taken up from the service manager's store").count(), 3);
    assert_eq!(manager.read("ends.log"), "");
    // The numbers of connections go on behind theirs.
    let new = open(manager.address(), "/ws/new");
    clients.into_iter().chain([new]).for_each(end);
    for path in ["newer", "older", "plain", "new"] {
        manager.wait_for("ends.log", &format!("/ws/{path} "));
    }
    manager.wait_for("ends.log", "/local ");
    let mut lines: Vec<_> = manager.read("ends.log").lines().map(str::to_owned).collect();
    lines.sort();
    // Once "first", and in each round "some", the long one and "between".
    let bytes = 5 + 3 * (4 + 11_000 + 9);
    assert_eq!(
        lines,
        [
            format!("/local 101 4 10 {bytes} client_close 1000"),
            "/ws/new 101 5 0 0 client_close 1000".to_owned(),
            format!("/ws/newer 101 1 10 {bytes} client_close 1000"),
            format!("/ws/older 101 2 10 {bytes} client_close 1000"),
            format!("/ws/plain 101 3 10 {bytes} client_close 1000"),
        ]
    );
}

#[test]
fn new_clients_wait_in_the_socket_unit_and_requests_in_work_are_answered_first() {
    let mut manager = Manager::new(Unit::keeping(1));
    let (upstream, gate) = (Upstream::echo(), Gate::new());
    let door = gate.clone();
    let slow = Upstream::http(move |_| {
        door.wait();
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow"
    });
    // Storing comes before draining.
    let more =
        format!("websocket_drain 1h; location /slow {{ proxy_pass http://{}; }}", slow.addr());
    let http = plain(&manager, &upstream, &more);
    manager.start("", &http);
    let mut client = open(manager.address(), "/ws");
    echo(&mut client, "first");
    let mut waiting = Conn::connect(manager.address());
    waiting.send_raw("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    slow.next_request();
    manager.signal("QUIT");
    wait_until("STOPPING=1", || manager.told("STOPPING=1"));
    echo(&mut client, "still served");
    assert!(!manager.told("FDSTORE=1"));
    gate.open();
    assert_eq!(waiting.recv_response().text(), "slow");
    assert!(manager.wait().success());
    assert!(manager.told("FDSTORE=1") && manager.told("FDPOLL=0"));
    let mut late = Conn::connect(manager.address());
    manager.start("", &http);
    echo(&mut client, "again");
    late.send_raw("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(late.recv_response().text(), "here");
    end(client);
    manager.wait_for("ends.log", " client_close 1000");
}

/// A request that does not end must not hold up the tunnels for ever. One that becomes a tunnel later is stored beside
/// them.
#[test]
fn tunnels_do_not_wait_for_ever_and_late_ones_are_stored_too() {
    let mut manager = Manager::new(Unit::keeping(2));
    let (upstream, gate) = (Upstream::echo(), Gate::new());
    let door = gate.clone();
    let slow = Upstream::serve(move |conn| {
        let request = conn.recv_request();
        door.wait();
        conn.accept_websocket(&request, "");
        conn.echo();
    });
    let more = format!("location /slow {{ proxy_pass http://{}; }}", slow.addr());
    let http = plain(&manager, &upstream, &more);
    manager.start("", &http);
    let mut client = open(manager.address(), "/ws");
    echo(&mut client, "first");
    let mut late = Handshake::to(manager.address()).path("/slow").send();
    slow.next_request();
    manager.signal("QUIT");
    manager.wait_for("error.log", "1 tunnel waits in the service manager's store");
    assert!(!manager.has_ended());
    gate.open();
    let head = late.try_recv_head().unwrap();
    assert!(head.field("Sec-WebSocket-Accept").is_some());
    echo(&mut late, "late");
    manager.signal("TERM");
    assert!(manager.wait().success());
    assert_eq!(manager.stored(), [STORED, STORED]);
    manager.start("", &http);
    echo(&mut client, "again");
    echo(&mut late, "again");
    assert!(manager.read("error.log").contains("2 tunnels taken up from"));
}

#[test]
fn without_a_store_everything_is_as_it_was() {
    let mut manager = Manager::new(Unit::keeping(0));
    let upstream = Upstream::echo();
    let http = plain(&manager, &upstream, "");
    manager.start("", &http);
    let mut client = open(manager.address(), "/ws");
    echo(&mut client, "first");
    manager.signal("QUIT");
    wait_until("STOPPING=1", || manager.told("STOPPING=1"));
    echo(&mut client, "it lives on");
    manager.signal("TERM");
    assert_eq!(client.recv().close_code(), Some(1001));
    assert!(manager.wait().success());
    assert!(!manager.told("FDSTORE=1") && !manager.told("BARRIER=1"));
    assert!(!manager.read("error.log").contains("store"));
}

#[test]
fn what_the_manager_does_not_keep_ends_as_always() {
    // It says that there is room, and there is none.
    let mut manager = Manager::new(Unit { max: 0, told: 1 });
    let upstream = Upstream::echo();
    let http = plain(&manager, &upstream, "");
    manager.start("", &http);
    let mut client = open(manager.address(), "/ws");
    echo(&mut client, "first");
    manager.signal("QUIT");
    let why = "1 tunnel stays in this process: the service manager has not kept it";
    manager.wait_for("error.log", why);
    echo(&mut client, "it lives on");
    manager.signal("TERM");
    assert_eq!(client.recv().close_code(), Some(1001));
    assert!(manager.wait().success() && manager.stored().is_empty());
    assert_eq!(manager.read("error.log").matches("has not kept it").count(), 1, "asked once");
    manager.wait_for("ends.log", "/ws 101 1 2 16 shutdown 1001");
}

/// Whatever it reads later, tunnels that went on here are not there any more.
#[test]
fn a_manager_that_does_not_answer_gets_nothing() {
    let mut manager = Manager::new(Unit::keeping(5));
    let upstream = Upstream::echo();
    let http = plain(&manager, &upstream, "");
    manager.start("", &http);
    let mut client = open(manager.address(), "/ws");
    echo(&mut client, "first");
    manager.be_busy(true);
    manager.signal("QUIT");
    manager.wait_for("error.log", "the service manager does not answer (timed out)");
    echo(&mut client, "it lives on");
    end(client);
    assert!(manager.wait().success());
    manager.be_busy(false);
    wait_until("the store", || manager.stored() == [STORED]);
    manager.start("", &http);
    manager.wait_for("error.log", "has kept is not taken up: nothing is left in it");
    assert_eq!(manager.stored(), [""; 0]);
    assert_eq!(http::get(manager.address(), "a", "/").text(), "here");
}

#[test]
fn what_makes_no_sense_is_told_and_dropped() {
    let mut manager = Manager::new(Unit::keeping(5));
    let upstream = Upstream::echo();
    let http = plain(&manager, &upstream, "");
    let mut file = Unsealed::create().unwrap();
    std::io::Write::write_all(&mut file, b"WSGS\x01 and so on").unwrap();
    manager.keep(STORED, file.seal().unwrap());
    let (ours, theirs) = UnixStream::pair().unwrap();
    std::io::Write::write_all(&mut &ours, b"WSGS\x09\0\0\0 of another release").unwrap();
    manager.keep(STORED, theirs.into());
    manager.start("", &http);
    let log =
        manager.wait_for("error.log", "it is stored in format 9 and this program reads format 1");
    assert!(log.contains("is not taken up: it cannot be read: "), "{log}");
    assert!(log.contains(" 0 tunnels taken up "), "{log}");
    assert!(manager.told("FDSTOREREMOVE=1") && manager.stored().is_empty());
    assert_eq!(http::get(manager.address(), "a", "/").text(), "here");
}

#[test]
fn a_tunnel_goes_on_where_its_location_is_gone() {
    let mut manager = Manager::new(Unit::keeping(1));
    let upstream = Upstream::echo();
    let http = plain(&manager, &upstream, "");
    manager.start("", &http);
    let mut client = open(manager.address(), "/ws");
    echo(&mut client, "first");
    manager.signal("TERM");
    assert!(manager.wait().success());
    let address = manager.address();
    let other = format!("{LOG} server {{ listen {address}; location / {{ return 200 other; }} }}");
    manager.start("", &other);
    echo(&mut client, "here");
    assert_eq!(http::get(address, "a", "/ws").text(), "other");
    end(client);
    manager.wait_for("ends.log", "/ws 101 1 2 9 client_close 1000");
}

#[test]
fn a_service_that_is_stopped_and_not_restarted_keeps_nobody() {
    let mut manager = Manager::new(Unit::keeping(1));
    let upstream = Upstream::echo();
    let http = plain(&manager, &upstream, "");
    manager.start("", &http);
    let mut client = open(manager.address(), "/ws");
    echo(&mut client, "first");
    manager.signal("TERM");
    assert!(manager.wait().success());
    manager.discard();
    // No Close, for nobody was there to send one.
    assert!(client.try_recv().is_err());
}

/// A process that is replaced gives its tunnels to the next one, and only that stores them.
#[test]
fn a_process_that_is_replaced_stores_nothing() {
    let mut manager = Manager::new(Unit::keeping(1));
    let upstream = Upstream::echo();
    let http = plain(&manager, &upstream, "");
    manager.start("", &http);
    let mut client = open(manager.address(), "/ws");
    echo(&mut client, "first");
    let old = manager.pid();
    manager.signal("USR2");
    let moved = format!("1 tunnel taken over from old process {old}");
    manager.wait_for("error.log", &moved);
    let new: u32 = manager.read("nginx.pid").trim().parse().unwrap();
    assert_ne!(new, old);
    manager.signal("QUIT");
    assert!(manager.wait().success());
    assert!(!manager.told("FDSTORE=1"));
    echo(&mut client, "over there");
    let killed = Command::new("kill").arg(new.to_string()).status();
    assert!(killed.unwrap().success());
    wait_until("the store", || manager.stored() == [STORED]);
    wait_until("the end of the new process", || has_ended(new));
    manager.start("", &http);
    echo(&mut client, "and here");
    end(client);
    manager.wait_for("ends.log", "/ws 101 1 3 23 client_close 1000");
}

/// Of somebody else's child.
fn has_ended(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_none_or(|rest| rest.is_empty() || rest.starts_with('Z'))
}
