//! Debian's `pebble`: an ACME server that validates for real, for tests.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
};

use crate::{Conn, Dns, Pki, free_addr, instance::wait_until, pki::Leaf, skipped};

const PEBBLE: &str = "/usr/bin/pebble";

/// An ACME server, until it is dropped.
pub struct Pebble {
    child: Child,
    api: SocketAddr,
    management: SocketAddr,
    dir: tempfile::TempDir,
}

/// A [`Pebble`] that is about to be started.
pub struct Setup {
    api: SocketAddr,
    management: SocketAddr,
    http_port: u16,
    tls_port: u16,
    validity: u64,
    more: String,
    envs: Vec<(String, String)>,
}

impl Pebble {
    /// Whether there is one; else `what` is said to be skipped.
    pub fn is_here(what: &str) -> bool {
        let here = Path::new(PEBBLE).exists();
        if !here {
            skipped(&format!("{what}: no pebble"));
        }
        here
    }

    /// One that waits for nothing and refuses nothing at random, on free addresses.
    pub fn setup() -> Setup {
        Setup {
            api: free_addr(),
            management: free_addr(),
            http_port: 1,
            tls_port: 1,
            validity: 90 * 86_400,
            more: String::new(),
            // It would wait and refuse at random.
            envs: [("PEBBLE_VA_NOSLEEP", "1"), ("PEBBLE_WFE_NONCEREJECT", "0")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
        }
    }

    /// The URL of its directory.
    pub fn directory(&self) -> String {
        format!("https://{}/dir", self.api)
    }

    /// The root of what it signs, as PEM; another one with every start.
    pub fn root(&self, pki: &Pki) -> String {
        let ip = self.management.ip().to_string();
        let conn = Conn::try_connect_tls(self.management, pki.client_config(), &ip);
        let mut conn = conn.unwrap_or_else(|error| panic!("pebble's management: {error}"));
        conn.send_raw(format!("GET /roots/0 HTTP/1.1\r\nHost: {ip}\r\n\r\n"));
        conn.recv_response().text()
    }

    /// What it has said until now.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Setup {
    /// Where challenges of http-01 are looked for.
    #[must_use]
    pub fn http_port(self, http_port: u16) -> Self {
        Self { http_port, ..self }
    }

    /// Where those of tls-alpn-01 are.
    #[must_use]
    pub fn tls_port(self, tls_port: u16) -> Self {
        Self { tls_port, ..self }
    }

    /// How long certificates are valid, in seconds.
    #[must_use]
    pub fn validity(self, validity: u64) -> Self {
        Self { validity, ..self }
    }

    /// More settings, as JSON: `"name": value`.
    #[must_use]
    pub fn more(mut self, json: &str) -> Self {
        self.more.push_str(", ");
        self.more.push_str(json);
        self
    }

    /// A variable of its environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.envs.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Where its directory will be.
    pub fn directory(&self) -> String {
        format!("https://{}/dir", self.api)
    }

    /// Starts it. Its own certificate is of `pki`, and names are what `dns` says.
    #[track_caller]
    pub fn start(self, pki: &Pki, dns: &Dns) -> Pebble {
        self.start_with_dns(pki, dns.addr())
    }

    /// The same with a DNS server of somebody else's.
    #[track_caller]
    pub fn start_with_dns(self, pki: &Pki, dns: SocketAddr) -> Pebble {
        let Self { api, management, http_port, tls_port, validity, more, envs } = self;
        let Leaf { fullchain, key, .. } = pki.leaf(&[&api.ip().to_string()]);
        let dir = tempfile::tempdir().expect("a directory");
        let config = dir.path().join("pebble.json");
        let text = format!(
            r#"{{"pebble": {{"listenAddress": "{api}", "managementListenAddress": "{management}",
                "certificate": {fullchain:?}, "privateKey": {key:?}, "httpPort": {http_port},
                "tlsPort": {tls_port}, "ocspResponderURL": "",
                "certificateValidityPeriod": {validity}{more}}}}}"#
        );
        fs::write(&config, text).expect("it can be written");
        let log = fs::File::create(dir.path().join("log")).expect("it can be made");
        let child = Command::new(PEBBLE)
            .arg("-config")
            .arg(config)
            .args(["-strict", "-dnsserver", &dns.to_string()])
            .envs(envs)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("it is open"))
            .stderr(log)
            .spawn()
            .expect("pebble starts");
        let pebble = Pebble { child, api, management, dir };
        wait_until("pebble", || {
            [api, management].iter().all(|addr| TcpStream::connect(addr).is_ok())
        });
        pebble
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
