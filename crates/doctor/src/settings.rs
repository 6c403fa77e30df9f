//! What may be said besides the URL.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use thiserror::Error;

/// What may be said besides the URL.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long anything may take that somebody has to answer.
    pub timeout: Duration,
    /// What takes longer than this is worth a warning.
    pub slow: Duration,
    /// `Origin` of the handshake; that of a page of the same host if it is not said.
    pub origin: Option<String>,
    /// Subprotocols to offer.
    pub protocols: Vec<String>,
    /// Further headers of the handshake.
    pub headers: Vec<(String, String)>,
    /// Certificates that are trusted besides the public roots.
    pub ca: Vec<CertificateDer<'static>>,
    /// The DNS server to ask instead of the system.
    pub dns: Option<SocketAddr>,
    /// How many pings are sent.
    pub pings: usize,
    /// Messages are sent up to this size, in bytes.
    pub size: Option<u64>,
    /// Silence is tried up to this long.
    pub idle: Option<Duration>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(10),
            slow: Duration::from_secs(2),
            origin: None,
            protocols: Vec::new(),
            headers: Vec::new(),
            ca: Vec::new(),
            dns: None,
            pings: 5,
            size: None,
            idle: None,
        }
    }
}

/// Why a file has no certificates.
#[derive(Debug, Error)]
pub enum Unreadable {
    /// It cannot be read, or is no PEM.
    #[error("{}", in_words(.0))]
    Pem(#[from] rustls::pki_types::pem::Error),
    /// There is none in it.
    #[error("there is no certificate in it")]
    Empty,
    /// One cannot be trusted, whatever it says.
    #[error("certificate {0} in it is not a CA certificate: {1}")]
    NoAnchor(usize, webpki::Error),
}

/// What the system said of a file, without its number.
fn in_words(error: &rustls::pki_types::pem::Error) -> String {
    match error {
        rustls::pki_types::pem::Error::Io(error) => {
            let text = error.to_string();
            text.split(" (os error ").next().unwrap_or_default().to_owned()
        }
        other => other.to_string(),
    }
}

/// The certificates of a file in PEM, for [`Settings::ca`].
///
/// # Errors
/// When there are none, or one that cannot be read.
pub fn certificates_in(path: &Path) -> Result<Vec<CertificateDer<'static>>, Unreadable> {
    let certificates: Vec<_> = CertificateDer::pem_file_iter(path)?.collect::<Result<_, _>>()?;
    for (index, certificate) in certificates.iter().enumerate() {
        webpki::anchor_from_trusted_cert(certificate)
            .map_err(|error| Unreadable::NoAnchor(index + 1, error))?;
    }
    if certificates.is_empty() { Err(Unreadable::Empty) } else { Ok(certificates) }
}
