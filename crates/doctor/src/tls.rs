//! TLS as a browser and a phone see it: versions, ALPN, SNI, the chain.

use std::net::SocketAddr;
use std::time::Duration;

use rustls::{AlertDescription, ProtocolVersion};

use crate::facts::TlsFacts;
use crate::report::Finding;
use crate::settings::Settings;
use crate::shake::{Offer, Shaken, Unshaken, shake};
use crate::target::{Host, Target};
use crate::trust::{Trust, Trusted};
use crate::wire::Timed;

/// Makes the handshake of a browser and a few others; whether the first was completed says whether
/// there is anything behind it. `now` is in seconds since the Unix epoch.
pub(crate) fn examine(
    address: SocketAddr,
    target: &Target,
    settings: &Settings,
    now: i64,
) -> (Vec<Finding>, TlsFacts, bool) {
    let sni = match &target.host {
        Host::Name(name) => Some(name.clone()),
        Host::Address(_) => None,
    };
    let mut facts = TlsFacts { address: address.to_string(), sni, ..TlsFacts::default() };
    let trust = Trust::new(&settings.ca);
    let timeout = settings.timeout;
    let plain_url = Target { tls: false, ..target.clone() }.to_string();
    let host = &target.host;
    let probe = Probe { address, host, plain_url, timeout, trust: &trust, now };
    let shaken = match probe.shake(Offer::USUAL) {
        Ok(shaken) => shaken,
        Err(unshaken) => return (vec![probe.failed(&unshaken, &mut facts)], facts, false),
    };
    let judged = trust.judge(&shaken.chain, &target.host, now);
    let mut findings = judged.findings;
    (facts.chain, facts.names) = (judged.chain, judged.names);
    facts.trusted_by = judged.trusted.map(|trusted| match trusted {
        Trusted::Public => "public root".to_owned(),
        Trusted::Added => "--ca".to_owned(),
    });
    facts.version = shaken.version.map(version_name);
    (facts.cipher, facts.alpn) = (shaken.cipher.clone(), shaken.alpn.clone());
    if shaken.took > settings.slow {
        findings.push(Finding::warning(
            "tls_slow",
            format!("the TLS handshake took {:.1} s", shaken.took.as_secs_f64()),
            "check the load of the server that terminates TLS, and at the network if TCP was slow \
             too",
        ));
    }
    probe.versions(&shaken, &mut facts);
    facts.alpn_with_h2 = probe.shake(Offer::H2_TOO).ok().and_then(|shaken| shaken.alpn);
    if facts.sni.is_some() {
        facts.without_sni = Some(probe.without_sni(&shaken));
    }
    (findings, facts, true)
}

/// What is wrong with the TLS of another address of the name and not known from the first ones: of
/// several servers, one may have been forgotten when the certificate was renewed.
pub(crate) fn elsewhere(
    address: SocketAddr,
    target: &Target,
    settings: &Settings,
    now: i64,
    known: &[Finding],
) -> Vec<Finding> {
    let found = match shake(address, &target.host, Offer::USUAL, settings.timeout) {
        Ok(shaken) => Trust::new(&settings.ca).judge(&shaken.chain, &target.host, now).findings,
        Err(unshaken) => vec![Finding::fault(
            "tls_at_other_address",
            unshaken.words(),
            "give this server the same TLS configuration as the others, or remove its address from \
             the DNS",
        )],
    };
    let is_new = |finding: &Finding| known.iter().all(|known| known.code != finding.code);
    let here =
        |finding: Finding| Finding { what: format!("at {address}: {}", finding.what), ..finding };
    found.into_iter().filter(is_new).map(here).collect()
}

fn version_name(version: ProtocolVersion) -> String {
    match version {
        ProtocolVersion::TLSv1_3 => "TLS 1.3".into(),
        ProtocolVersion::TLSv1_2 => "TLS 1.2".into(),
        other => format!("{other:?}"),
    }
}

/// Whom further handshakes are made with.
struct Probe<'a> {
    address: SocketAddr,
    host: &'a Host,
    /// The URL without TLS.
    plain_url: String,
    timeout: Duration,
    trust: &'a Trust,
    now: i64,
}

impl Probe<'_> {
    fn shake(&self, offer: Offer) -> Result<Shaken, Unshaken> {
        shake(self.address, self.host, offer, self.timeout)
    }

    /// Whether the server speaks 1.2 as well; it would have chosen 1.3.
    fn versions(&self, shaken: &Shaken, facts: &mut TlsFacts) {
        facts.versions.extend(facts.version.clone());
        if shaken.version == Some(ProtocolVersion::TLSv1_3) && self.shake(Offer::OLD).is_ok() {
            facts.versions.push("TLS 1.2".into());
        }
    }

    /// What the server does without SNI.
    fn without_sni(&self, with: &Shaken) -> String {
        match self.shake(Offer::NO_SNI) {
            Ok(without) if without.chain.first() == with.chain.first() => "same certificate".into(),
            Ok(without) => self.whose(&without),
            Err(unshaken) => unshaken.words(),
        }
    }

    /// The names of a certificate.
    fn whose(&self, shaken: &Shaken) -> String {
        let judged = self.trust.judge(&shaken.chain, self.host, self.now);
        match (&judged.names[..], judged.chain.first()) {
            ([], Some(leaf)) => format!("certificate of {}", leaf.subject),
            ([], None) => "unreadable certificate".into(),
            (names, _) => format!("certificate of {}", names.join(", ")),
        }
    }

    /// Why the handshake of a browser fails.
    fn failed(&self, unshaken: &Unshaken, facts: &mut TlsFacts) -> Finding {
        if let Unshaken::NotTls(first) = unshaken {
            // Some answer what they do not understand by a page alone.
            let is_http = first.starts_with(b"HTTP/") || self.speaks_http();
            return if is_http { self.plain_http() } else { not_tls(first, self.address.port()) };
        }
        let is_alpn = matches!(unshaken, Unshaken::Alert(AlertDescription::NoApplicationProtocol));
        if is_alpn && let Ok(shaken) = self.shake(Offer::H2) {
            facts.alpn_with_h2 = shaken.alpn;
            return h2_only();
        }
        // Who does not answer is not asked in yet another way.
        if let Host::Name(name) = self.host
            && !matches!(unshaken, Unshaken::Late)
        {
            let without = self.shake(Offer::NO_SNI);
            facts.without_sni = Some(match &without {
                Ok(shaken) => self.whose(shaken),
                Err(unshaken) => unshaken.words(),
            });
            let is_alert = matches!(unshaken, Unshaken::Alert(AlertDescription::UnrecognisedName));
            if is_alert || without.is_ok() {
                let shown = facts.without_sni.as_deref().filter(|_| without.is_ok());
                return unknown_sni(name, unshaken, shown);
            }
        }
        self.silent(unshaken)
    }

    /// The handshake fails with and without a name.
    fn silent(&self, unshaken: &Unshaken) -> Finding {
        let is_mute = matches!(unshaken, Unshaken::Closed | Unshaken::Reset | Unshaken::Late);
        if is_mute && self.speaks_http() {
            return self.plain_http();
        }
        match unshaken {
            Unshaken::Alert(AlertDescription::ProtocolVersion) => Finding::fault(
                "tls_version",
                "the server speaks neither TLS 1.2 nor TLS 1.3",
                "allow them: `ssl_protocols TLSv1.2 TLSv1.3;`",
            ),
            Unshaken::Alert(
                AlertDescription::HandshakeFailure | AlertDescription::InsufficientSecurity,
            ) => Finding::fault(
                "tls_nothing_in_common",
                format!(
                    "client and server have no cipher, curve or version in common: {}",
                    unshaken.words()
                ),
                "allow ECDHE ciphers with AES-GCM or ChaCha20 (`ssl_ciphers`), and check that the server \
                 has a certificate for this name",
            ),
            Unshaken::Alert(alert) => Finding::fault(
                "tls_alert",
                format!("the server refused the TLS handshake with the alert {alert:?}"),
                "check the error log of the server that terminates TLS; it may have no certificate \
                 for this name",
            ),
            Unshaken::Late => Finding::fault(
                "tls_timeout",
                format!(
                    "the TLS handshake was not answered within {} s",
                    self.timeout.as_secs_f64()
                ),
                "check that the port terminates TLS (`listen … ssl;`) and does not expect a PROXY \
                 protocol header",
            ),
            Unshaken::Other(text) => Finding::fault(
                "tls_failed",
                format!("the TLS handshake failed: {text}"),
                "check the error log of the server that terminates TLS",
            ),
            Unshaken::Closed | Unshaken::Reset | Unshaken::NotTls(_) => Finding::fault(
                "tls_closed",
                format!("{} in the TLS handshake, with and without SNI", unshaken.words()),
                "check that the port terminates TLS and has a certificate; a firewall that filters by \
                 name also does this",
            ),
        }
    }

    fn plain_http(&self) -> Finding {
        let (port, url) = (self.address.port(), &self.plain_url);
        Finding::fault(
            "http_on_tls_port",
            format!("port {port} speaks plain HTTP where TLS was expected"),
            format!(
                "use {url} for this port, or the port that terminates TLS, or terminate TLS here \
                 (`listen {port} ssl;` with a certificate)"
            ),
        )
    }

    /// Whether the port answers plain HTTP.
    fn speaks_http(&self) -> bool {
        use std::io::{Read as _, Write as _};
        let Ok(mut timed) = Timed::connect(self.address, self.timeout) else { return false };
        let request =
            format!("HEAD / HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.host);
        let mut start = [0; 5];
        timed.write_all(request.as_bytes()).is_ok()
            && timed.read_exact(&mut start).is_ok()
            && start == *b"HTTP/"
    }
}

fn not_tls(first: &[u8], port: u16) -> Finding {
    Finding::fault(
        "not_tls",
        format!(
            "the service on port {port} does not speak TLS; it sent \"{}\"",
            first.escape_ascii()
        ),
        "check the port of the URL",
    )
}

fn h2_only() -> Finding {
    Finding::fault(
        "alpn_h2_only",
        "the server offers only HTTP/2 (ALPN \"h2\"); clients open WebSockets with \"http/1.1\"",
        "offer http/1.1 in ALPN as well, after h2",
    )
}

fn unknown_sni(name: &str, unshaken: &Unshaken, shown: Option<&str>) -> Finding {
    let without = match shown {
        Some(shown) => format!("; without SNI it presents the {shown}"),
        None => String::new(),
    };
    Finding::fault(
        "sni_unknown",
        format!(
            "the server does not know the name {name}: {} when it was sent as SNI{without}",
            unshaken.words()
        ),
        format!(
            "add {name} to the server that terminates TLS (`server_name {name};` with its \
             certificate); if that is done, check that the DNS record points to that server"
        ),
    )
}
