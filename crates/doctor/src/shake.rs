//! One TLS handshake with whatever is offered.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;
use rustls::version::{TLS12, TLS13};
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, ProtocolVersion, StreamOwned,
    SupportedProtocolVersion,
};

use crate::take_all::TakeAll;
use crate::target::Host;
use crate::trust::server_name;
use crate::wire::{Timed, Wire, tls_error};

/// What a client offers.
#[derive(Clone, Copy)]
pub(crate) struct Offer {
    /// Versions of TLS.
    versions: &'static [&'static SupportedProtocolVersion],
    alpn: &'static [&'static [u8]],
    /// Whether the name is sent.
    sni: bool,
}

impl Offer {
    /// That of a browser that opens a WebSocket.
    pub(crate) const USUAL: Self =
        Self { versions: &[&TLS13, &TLS12], alpn: &[b"http/1.1"], sni: true };

    /// Only the older of the two versions.
    pub(crate) const OLD: Self = Self { versions: &[&TLS12], ..Self::USUAL };

    /// Only HTTP/2.
    pub(crate) const H2: Self = Self { alpn: &[b"h2"], ..Self::USUAL };

    /// HTTP/2 as well, as browsers do for pages.
    pub(crate) const H2_TOO: Self = Self { alpn: &[b"h2", b"http/1.1"], ..Self::USUAL };

    /// No name.
    pub(crate) const NO_SNI: Self = Self { sni: false, ..Self::USUAL };
}

/// A completed handshake.
pub(crate) struct Shaken {
    pub(crate) wire: Wire,
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) version: Option<ProtocolVersion>,
    pub(crate) cipher: Option<String>,
    pub(crate) alpn: Option<String>,
    pub(crate) took: Duration,
}

/// Why a handshake was not completed.
#[derive(Debug)]
pub(crate) enum Unshaken {
    /// The server sent an alert.
    Alert(AlertDescription),
    /// It closed the connection.
    Closed,
    /// It reset the connection.
    Reset,
    /// It did not answer.
    Late,
    /// What it sent is no TLS: the first bytes of it.
    NotTls(Vec<u8>),
    /// Anything else, in words.
    Other(String),
}

impl Unshaken {
    /// What happened, as a sentence.
    pub(crate) fn words(&self) -> String {
        match self {
            Self::Alert(alert) => format!("the server refused with the alert {alert:?}"),
            Self::Closed => "the server closed the connection".into(),
            Self::Reset => "the server reset the connection".into(),
            Self::Late => "the server did not respond".into(),
            Self::NotTls(first) => format!("the server sent \"{}\"", first.escape_ascii()),
            Self::Other(text) => text.clone(),
        }
    }
}

/// Connects and makes a handshake.
pub(crate) fn shake(
    address: SocketAddr,
    host: &Host,
    offer: Offer,
    timeout: Duration,
) -> Result<Shaken, Unshaken> {
    let other = |error: &dyn std::fmt::Display| Unshaken::Other(error.to_string());
    let name =
        server_name(host).ok_or_else(|| other(&"the host is not a valid TLS server name"))?;
    let config = config(offer).map_err(|error| other(&error))?;
    let mut conn = ClientConnection::new(config, name).map_err(|error| other(&error))?;
    let mut timed = Timed::connect(address, timeout).map_err(|error| match error.kind() {
        ErrorKind::TimedOut => Unshaken::Late,
        _ => other(&error),
    })?;
    let begun = Instant::now();
    while conn.is_handshaking() {
        if let Err(error) = conn.complete_io(&mut timed) {
            return Err(why(&error, timed.first()));
        }
    }
    Ok(Shaken {
        took: begun.elapsed(),
        chain: conn.peer_certificates().unwrap_or_default().to_vec(),
        version: conn.protocol_version(),
        cipher: conn.negotiated_cipher_suite().map(|suite| format!("{:?}", suite.suite())),
        alpn: conn.alpn_protocol().map(|name| name.escape_ascii().to_string()),
        wire: Wire::Tls(Box::new(StreamOwned::new(conn, timed))),
    })
}

fn why(error: &io::Error, first: &[u8]) -> Unshaken {
    // Records of a handshake or alert begin so (RFC 8446 §5.1).
    if !first.is_empty() && !matches!(first, [0x15 | 0x16] | [0x15 | 0x16, 3, ..]) {
        return Unshaken::NotTls(first.to_vec());
    }
    match (tls_error(error), error.kind()) {
        (Some(rustls::Error::AlertReceived(alert)), _) => Unshaken::Alert(*alert),
        (Some(error), _) => Unshaken::Other(error.to_string()),
        (None, ErrorKind::UnexpectedEof) => Unshaken::Closed,
        (None, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => Unshaken::Reset,
        (None, ErrorKind::TimedOut) => Unshaken::Late,
        (None, _) => Unshaken::Other(error.to_string()),
    }
}

fn config(offer: Offer) -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = Arc::new(TakeAll::new(Arc::clone(&provider)));
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(offer.versions)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = offer.alpn.iter().map(|name| name.to_vec()).collect();
    config.enable_sni = offer.sni;
    // Each handshake is to show the chain.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}
