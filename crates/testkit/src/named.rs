//! Debian's BIND, for tests of changes in the DNS.

use std::{
    fmt::Write as _,
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::{skipped, wait_until};

const NAMED: &str = "/usr/sbin/named";

/// The keys that may change zones, both with the secret `secret`.
const KEYS: &str = r#"
    key "acme" { algorithm hmac-sha256; secret "c2VjcmV0"; };
    key "long" { algorithm hmac-sha512; secret "c2VjcmV0"; };
"#;

const CONF: &str = r#"
    options {
        directory "DIR"; pid-file "DIR/named.pid"; session-keyfile "DIR/session.key";
        listen-on port PORT { 127.0.0.1; }; listen-on-v6 { none; };
        recursion no; notify no; dnssec-validation no;
    };
    controls { };
"#;

/// Its server is this host.
const ZONE: &str = "$TTL 60
@ IN SOA ns root 1 3600 600 86400 60
@ IN NS ns
ns IN A 127.0.0.1
";

/// BIND with some zones, until it is dropped.
pub struct Named {
    child: Child,
    address: SocketAddr,
    _dir: tempfile::TempDir,
}

/// A type of records.
#[derive(Clone, Copy)]
pub enum Kind {
    /// Where a zone begins.
    Soa = 6,
    /// Texts.
    Txt = 16,
}

impl Named {
    /// A file with a key that may change zones, as `tsig-keygen` writes it.
    pub const KEY: &str = "key \"acme\" {\n\talgorithm hmac-sha256;\n\tsecret \"c2VjcmV0\";\n};\n";

    /// One with these zones; those with `true` can be changed. Nothing where it is not installed: then `what` is
    /// said to be skipped.
    #[track_caller]
    pub fn start(what: &str, zones: &[(&str, bool)]) -> Option<Self> {
        if !Path::new(NAMED).exists() {
            skipped(&format!("{what}: BIND is not installed"));
            return None;
        }
        // Somebody else may take the port between our asking for one and its start.
        let started = (0..5).find_map(|_| Self::try_start(zones));
        Some(started.expect("BIND starts"))
    }

    fn try_start(zones: &[(&str, bool)]) -> Option<Self> {
        let dir = tempfile::tempdir().expect("a directory");
        let port = free_port()?;
        let conf = CONF.replace("DIR", &dir.path().display().to_string());
        let mut conf = conf.replace("PORT", &port.to_string()) + KEYS;
        for (zone, may_change) in zones {
            let _ = write!(conf, "zone \"{zone}\" {{ type primary; file \"{zone}\"; ");
            conf.push_str(if *may_change {
                "allow-update { key acme; key long; }; };\n"
            } else {
                "};\n"
            });
            fs::write(dir.path().join(zone), ZONE).expect("it can be written");
        }
        fs::write(dir.path().join("named.conf"), conf).expect("it can be written");
        let child = Command::new(NAMED)
            .args(["-f", "-n", "1", "-c"])
            .arg(dir.path().join("named.conf"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("BIND is started");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut named = Self { child, address, _dir: dir };
        let mut ended = false;
        wait_until("BIND", || {
            ended = named.child.try_wait().expect("it is ours").is_some();
            ended || zones.iter().all(|(zone, _)| named.count(zone, Kind::Soa) == Some(1))
        });
        (!ended).then_some(named)
    }

    /// Its address, for UDP and TCP.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// How many records of a kind it has at a name; nothing while nobody answers.
    pub fn count(&self, name: &str, kind: Kind) -> Option<u16> {
        // One question; nothing else is wanted.
        let mut question = vec![0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            question.push(u8::try_from(label.len()).expect("labels are short"));
            question.extend(label.as_bytes());
        }
        question.extend([0, 0, kind as u8, 0, 1]);
        let reply = self.exchange(&question)?;
        Some(u16::from_be_bytes([*reply.get(6)?, *reply.get(7)?]))
    }

    /// What it sends back on UDP; nothing when nobody is there yet.
    pub fn exchange(&self, message: &[u8]) -> Option<Vec<u8>> {
        exchange(self.address, message)
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a DNS server sends back on UDP; nothing when nobody is there.
pub fn exchange(server: SocketAddr, message: &[u8]) -> Option<Vec<u8>> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(1))).expect("it is no zero");
    socket.connect(server).expect("an address");
    socket.send(message).ok()?;
    let mut bytes = vec![0; 65_535];
    let len = socket.recv(&mut bytes).ok()?;
    bytes.truncate(len);
    Some(bytes)
}

/// A port that is free for UDP and TCP.
fn free_port() -> Option<u16> {
    let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = udp.local_addr().expect("it is bound").port();
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok().map(|_| port)
}
