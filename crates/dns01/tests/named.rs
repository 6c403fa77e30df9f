//! Changes of a zone that BIND serves: what it takes, and in which words it refuses.
#![allow(clippy::unwrap_used)]

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::task::JoinSet;
use wssgate_dns::Name;
use wssgate_dns::tsig::{Algorithm, Key, Unverified};
use wssgate_dns::update::{Change, Kind, Reply, change, question};
use wssgate_dns01::Update;
use wssgate_testkit::{Named, named::exchange};

/// BIND with two zones, of which `a.test` can be changed.
struct Zones(Named);

impl Zones {
    fn start() -> Option<Self> {
        Named::start("changes of a zone", &[("a.test", true), ("b.test", false)]).map(Self)
    }

    fn update(&self, key: Option<Key>) -> Update {
        let propagation = Duration::from_secs(30);
        Update { server: self.0.addr(), zone: None, key, ttl: 60, propagation }
    }

    /// The texts at a name, in order.
    fn texts(&self, at: &str) -> Vec<String> {
        let at = name(at);
        let bytes = self.0.exchange(&question(1, &at, Kind::Txt)).unwrap();
        let reply = Reply::decode(&bytes, 1).unwrap();
        let mut texts: Vec<_> =
            reply.texts(&at).map(|text| String::from_utf8_lossy(text).into_owned()).collect();
        texts.sort();
        texts
    }
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
    let Some(named) = Zones::start() else { return };
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
    let Some(named) = Zones::start() else { return };
    let good = || Some(key("acme", Algorithm::Sha256, b"secret"));
    let acme = |algorithm, secret: &[u8]| Some(key("acme", algorithm, secret));
    let mut refused = JoinSet::new();
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
        // What is not signed is not believed until time is up.
        refused.spawn(async move {
            let error = update.present(record, "v").await.unwrap_err();
            assert!(error.contains(expected), "{expected}: {error}");
        });
    }
    refused.join_all().await;
    assert!(named.texts(RECORD).is_empty());
    // Nobody is there at all.
    let gone = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let update = Update { server: gone, zone: Some("a.test".to_owned()), ..named.update(good()) };
    let error = update.present(RECORD, "v").await.unwrap_err();
    assert!(error.contains("cannot be asked: Connection refused"), "{error}");
}

/// Whoever guesses the number of a message can answer sooner than the server (RFC 8945 §5.3).
#[tokio::test]
async fn a_forger_who_is_faster_than_the_server_changes_nothing() {
    let Some(named) = Zones::start() else { return };
    let key = || Some(key("acme", Algorithm::Sha256, b"secret"));
    for (code, is_honest, expected) in [
        // What is said to be done is not, and the other way round.
        (0, true, Ok(&["v"][..])),
        (5, true, Ok(&["v"])),
        (0, false, Err("do not agree on the key \"acme\": the answer is not signed")),
        (5, false, Err("did not change the zone a.test: REFUSED")),
    ] {
        let forger = forger(named.0.addr(), code, is_honest);
        let update = Update {
            server: forger,
            zone: Some("a.test".to_owned()),
            propagation: Duration::ZERO,
            ..named.update(key())
        };
        let presented = update.present(RECORD, "v").await;
        match expected {
            Ok(texts) => {
                presented.unwrap();
                assert_eq!(named.texts(RECORD), texts);
            }
            Err(expected) => {
                let error = presented.unwrap_err();
                assert!(error.contains(expected), "{expected}: {error}");
            }
        }
        if is_honest {
            update.cleanup(RECORD, "v").await.unwrap();
        }
        assert!(named.texts(RECORD).is_empty());
    }
}

/// Answers each message at once with this code, and then as `server` does if he is honest.
fn forger(server: SocketAddr, code: u8, is_honest: bool) -> SocketAddr {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok((len, from)) = socket.recv_from(&mut bytes) {
            let mut forged = bytes[..12].to_vec();
            forged[2] |= 0x80;
            forged[3] |= code;
            // No records follow.
            forged[4..].fill(0);
            socket.send_to(&forged, from).unwrap();
            if is_honest {
                socket.send_to(&exchange(server, &bytes[..len]).unwrap(), from).unwrap();
            }
        }
    });
    address
}

#[test]
fn a_clock_that_is_wrong_is_told_apart() {
    let Some(named) = Zones::start() else { return };
    let key = key("acme", Algorithm::Sha256, b"secret");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let message = change(7, &name("a.test"), &name(RECORD), "v", Change::Add { ttl: 60 });
    let signed = key.sign(&message, now - 3600);
    let answer = named.0.exchange(&signed.bytes).unwrap();
    let Err(Unverified::BadTime { theirs, ours }) = key.verify(&answer, &signed, now - 3600) else {
        panic!("{:?}", key.verify(&answer, &signed, now - 3600));
    };
    assert_eq!(ours, now - 3600);
    assert!((3600..3700).contains(&(theirs - ours)), "{theirs}");
    assert!(named.texts(RECORD).is_empty());
}
