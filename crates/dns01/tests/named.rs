//! Changes of a zone that BIND serves: what it takes, and in which words it refuses.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tempfile::TempDir;
use wssgate_dns::Name;
use wssgate_dns::tsig::{Algorithm, Key, Unverified};
use wssgate_dns::update::{Change, Kind, Reply, change, question};
use wssgate_dns01::Update;
use wssgate_testkit::{skipped, wait_until};

const NAMED: &str = "/usr/sbin/named";

/// BIND with the zone `a.test`, which the keys `acme` and `long` may change.
struct Named {
    child: Child,
    address: SocketAddr,
    _dir: TempDir,
}

impl Drop for Named {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const CONF: &str = "
    options {
        directory \"DIR\"; pid-file \"DIR/named.pid\"; session-keyfile \"DIR/session.key\";
        listen-on port PORT { 127.0.0.1; }; listen-on-v6 { none; };
        recursion no; notify no; dnssec-validation no;
    };
    controls { };
    key \"acme\" { algorithm hmac-sha256; secret \"c2VjcmV0\"; };
    key \"long\" { algorithm hmac-sha512; secret \"c2VjcmV0\"; };
    zone \"a.test\" { type primary; file \"a.test\"; allow-update { key acme; key long; }; };
    zone \"b.test\" { type primary; file \"a.test.2\"; };
";

const ZONE: &str = "$TTL 60
@ IN SOA ns.a.test. root.a.test. 1 3600 600 86400 60
@ IN NS ns.a.test.
";

impl Named {
    /// Nothing where it is not installed, which is said.
    fn start() -> Option<Self> {
        if !Path::new(NAMED).exists() {
            skipped("changes of a zone: BIND is not installed");
            return None;
        }
        // Somebody else may take the port between our asking for one and its start.
        (0..5).find_map(|_| Self::try_start())
    }

    fn try_start() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let port = free_port()?;
        let conf = CONF.replace("DIR", &dir.path().display().to_string());
        fs::write(dir.path().join("named.conf"), conf.replace("PORT", &port.to_string())).unwrap();
        fs::write(dir.path().join("a.test"), format!("{ZONE}ns IN A 127.0.0.1\n")).unwrap();
        fs::write(dir.path().join("a.test.2"), ZONE).unwrap();
        let mut child = Command::new(NAMED)
            .args(["-f", "-n", "1", "-c"])
            .arg(dir.path().join("named.conf"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let zone = name("a.test");
        wait_until("BIND", || {
            let ended = child.try_wait().unwrap().is_some();
            ended || exchange(address, &question(1, &zone, Kind::Soa)).is_some()
        });
        let lives = child.try_wait().unwrap().is_none();
        lives.then_some(Self { child, address, _dir: dir })
    }

    fn update(&self, key: Option<Key>) -> Update {
        let propagation = Duration::from_secs(30);
        Update { server: self.address, zone: None, key, ttl: 60, propagation }
    }

    /// The texts at a name, in order.
    fn texts(&self, at: &str) -> Vec<String> {
        let at = name(at);
        let bytes = exchange(self.address, &question(1, &at, Kind::Txt)).unwrap();
        let reply = Reply::decode(&bytes, 1).unwrap();
        let mut texts: Vec<_> =
            reply.texts(&at).map(|text| String::from_utf8_lossy(text).into_owned()).collect();
        texts.sort();
        texts
    }
}

/// A port that is free for UDP and TCP.
fn free_port() -> Option<u16> {
    let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = udp.local_addr().unwrap().port();
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok().map(|_| port)
}

/// What a server sends back; nothing when nobody is there yet.
fn exchange(server: SocketAddr, message: &[u8]) -> Option<Vec<u8>> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    socket.connect(server).unwrap();
    socket.send(message).ok()?;
    let mut bytes = vec![0; 65_535];
    let len = socket.recv(&mut bytes).ok()?;
    bytes.truncate(len);
    Some(bytes)
}

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

fn key(name: &str, algorithm: Algorithm, secret: &[u8]) -> Key {
    Key::new(name, algorithm, secret.to_vec()).unwrap()
}

const RECORD: &str = "_acme-challenge.www.a.test";

#[tokio::test]
async fn a_record_stands_beside_others_and_goes_alone() {
    let Some(named) = Named::start() else { return };
    for key in
        [key("acme", Algorithm::Sha256, b"secret"), key("LONG.", Algorithm::Sha512, b"secret")]
    {
        let update = named.update(Some(key));
        // A name and its wildcard are proved at once.
        update.present(RECORD, "one").await.unwrap();
        update.present(RECORD, "two").await.unwrap();
        assert_eq!(named.texts(RECORD), ["one", "two"]);
        update.present(RECORD, "two").await.unwrap();
        assert_eq!(named.texts(RECORD), ["one", "two"]);
        update.cleanup(RECORD, "one").await.unwrap();
        assert_eq!(named.texts(RECORD), ["two"]);
        update.cleanup(RECORD, "one").await.unwrap();
        update.cleanup(RECORD, "two").await.unwrap();
        assert!(named.texts(RECORD).is_empty());
    }
}

#[tokio::test]
async fn a_refusal_is_told_in_the_words_of_the_server() {
    let Some(named) = Named::start() else { return };
    let good = || Some(key("acme", Algorithm::Sha256, b"secret"));
    let acme = |algorithm, secret: &[u8]| Some(key("acme", algorithm, secret));
    for (key, zone, record, expected) in [
        (acme(Algorithm::Sha256, b"other"), None, RECORD, "BADSIG: the server has another secret"),
        (acme(Algorithm::Sha384, b"secret"), None, RECORD, "on the key \"acme\": BADKEY"),
        (
            Some(key("who", Algorithm::Sha256, b"x")),
            None,
            RECORD,
            "BADKEY: the server knows no key",
        ),
        (None, None, RECORD, "did not change the zone a.test: REFUSED: the server's policy"),
        (good(), None, "_acme-challenge.b.test", "did not change the zone b.test: REFUSED"),
        (good(), Some("c.test"), "x.c.test", "did not change the zone c.test: NOTAUTH"),
        (good(), Some("a.test"), "x.b.test", "did not change the zone a.test: NOTZONE"),
        (good(), None, "x.c.test", "has no zone of x.c.test (REFUSED"),
    ] {
        let update = Update { zone: zone.map(str::to_owned), ..named.update(key) };
        let error = update.present(record, "v").await.unwrap_err();
        assert!(error.contains(expected), "{expected}: {error}");
    }
    assert!(named.texts(RECORD).is_empty());
    // Nobody is there at all.
    let gone = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let update = Update { server: gone, zone: Some("a.test".to_owned()), ..named.update(good()) };
    let error = update.present(RECORD, "v").await.unwrap_err();
    assert!(error.contains("cannot be asked: Connection refused"), "{error}");
}

#[test]
fn a_clock_that_is_wrong_is_told_apart() {
    let Some(named) = Named::start() else { return };
    let key = key("acme", Algorithm::Sha256, b"secret");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let message = change(7, &name("a.test"), &name(RECORD), "v", Change::Add { ttl: 60 });
    let signed = key.sign(&message, now - 3600);
    let answer = exchange(named.address, &signed.bytes).unwrap();
    let Err(Unverified::BadTime { theirs, ours }) = key.verify(&answer, &signed, now - 3600) else {
        panic!("{:?}", key.verify(&answer, &signed, now - 3600));
    };
    assert_eq!(ours, now - 3600);
    assert!((3600..3700).contains(&(theirs - ours)), "{theirs}");
    assert!(named.texts(RECORD).is_empty());
}
