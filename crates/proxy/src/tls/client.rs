//! TLS towards upstreams (`proxy_pass https://…`, `proxy_ssl_*`).

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConfig, ResolvesClientCert, Resumption};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{ClientConnection, Error, ProtocolVersion, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use wssgate_config::model::ProxyTls;
use wssgate_syntax::{Diagnostic, Report, Span};
use wssgate_x509::{Certificate, Fault, Peer, Trust};

use super::certificates::{self, Caches, Contents, OnDemand};
use super::keys::{self, RecordBoundary, SecretLog};
use super::proof;
use crate::errno_text;

/// Sessions kept for coming back to upstreams, per set of settings.
const SESSIONS: usize = 256;

/// The `proxy_ssl_*` settings of one location, ready to connect.
pub struct UpstreamTls {
    config: Arc<ClientConfig>,
    /// What loads a certificate whose path has variables.
    on_demand: Option<Arc<OnDemand>>,
    /// Whom `proxy_ssl_verify` trusts.
    trust: Option<Trust>,
}

impl std::fmt::Debug for UpstreamTls {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("UpstreamTls").field("trust", &self.trust).finish_non_exhaustive()
    }
}

impl UpstreamTls {
    /// Reads the files that the settings name. `span` is where the location was written. `None`
    /// when they cannot be used; the report then has an error.
    pub fn build(
        settings: &ProxyTls,
        span: Span,
        caches: &mut Caches,
        report: &mut Report,
    ) -> Option<Self> {
        let wanted = super::Crypto {
            ciphers: &settings.ciphers,
            ciphersuites: settings.ciphersuites.as_ref(),
            protocols: settings.protocols,
            groups: &settings.groups,
        };
        let provider = super::provider_for(&wanted, report)?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&super::versions(settings.protocols))
            .map_err(|error| report.push(unusable(&error, span)))
            .ok()?;
        let trust = if settings.verify {
            Some(trust(settings, span, &caches.contents, report)?)
        } else {
            None
        };
        let verifier = Arc::new(ProofOnly);
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
        let mut config = match &settings.certificate {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                let passphrases = caches.passphrases(settings.password_file.as_ref(), report)?;
                let shown = certificates::load_client(
                    chain,
                    key,
                    (&caches.contents, &passphrases),
                    report,
                )?;
                builder.with_client_cert_resolver(Arc::new(Shown(shown)))
            }
        };
        config.enable_sni = settings.server_name;
        config.enable_secret_extraction = true;
        config.key_log = Arc::new(SecretLog);
        // A session that one certificate has opened must not be resumed for another.
        let reuse = settings.session_reuse && settings.variable_certificate.is_none();
        config.resumption = match reuse {
            true => Resumption::in_memory_sessions(SESSIONS),
            false => Resumption::disabled(),
        };
        let on_demand = match &settings.variable_certificate {
            None => None,
            Some(_) => {
                let passphrases = caches.passphrases(settings.password_file.as_ref(), report)?;
                let cache = settings.certificate_cache.as_ref();
                Some(OnDemand::new(passphrases, cache, caches))
            }
        };
        Some(Self { config: Arc::new(config), on_demand, trust })
    }

    /// The certificate to show on a connection, where its path has variables.
    ///
    /// # Errors
    /// nginx's words for what cannot be loaded.
    pub async fn certificate(
        &self,
        (chain, key): (PathBuf, PathBuf),
    ) -> Result<Option<Arc<CertifiedKey>>, String> {
        match &self.on_demand {
            Some(on_demand) => on_demand.load(chain, key).await.map(Some),
            None => Ok(None),
        }
    }

    /// Shakes hands with an upstream. `name` is what the certificate must say and SNI sends; `shown`
    /// is our own, in place of the one in the settings.
    ///
    /// # Errors
    /// When the handshake fails, or the upstream is not trusted.
    pub async fn connect<S>(
        &self,
        stream: S,
        name: &[u8],
        shown: Option<Arc<CertifiedKey>>,
    ) -> Result<TlsStream<RecordBoundary<S>>, UpstreamHandshakeError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let config = match shown {
            None => Arc::clone(&self.config),
            Some(shown) => {
                let mut config = (*self.config).clone();
                config.client_auth_cert_resolver = Arc::new(Shown(shown));
                Arc::new(config)
            }
        };
        let stream = RecordBoundary::new(stream);
        let connecting = TlsConnector::from(config).connect(server_name(name), stream);
        let stream = keys::capture(connecting).await?;
        if let Some(trust) = &self.trust {
            // Of a resumed session as well: it may be older than the last change of trust.
            check(trust, stream.get_ref().1, name)?;
        }
        Ok(stream)
    }
}

/// The name for SNI.
fn server_name(name: &[u8]) -> ServerName<'static> {
    let text = std::str::from_utf8(without_port(name)).unwrap_or_default();
    // SNI has no final dot (RFC 6066 §3), and an address is never sent.
    let name = ServerName::try_from(text.trim_end_matches('.').to_owned());
    name.unwrap_or(ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into()))
}

/// `proxy_ssl_verify`. As in nginx, the handshake is over by then, and no request was sent.
fn check(trust: &Trust, connection: &ClientConnection, name: &[u8]) -> Result<(), Distrust> {
    let chain = connection.peer_certificates().unwrap_or_default();
    let Some((shown, sent)) = chain.split_first() else {
        return Err(Distrust::Chain(Fault::UNSPECIFIED));
    };
    super::judge(Some(trust), shown, sent).map_err(Distrust::Chain)?;
    let leaf = Certificate::parse(shown).ok_or(Distrust::Chain(Fault::UNSPECIFIED))?;
    // nginx does not even complete the handshake then.
    let is_old = connection.protocol_version() != Some(ProtocolVersion::TLSv1_3);
    if is_old && !leaf.may_sign_handshakes() {
        return Err(Distrust::Chain(Fault::PURPOSE));
    }
    let name = host(name);
    match leaf.is_for_host(name) {
        true => Ok(()),
        false => Err(Distrust::Name(String::from_utf8_lossy(name).into())),
    }
}

/// The one certificate that we show to an upstream.
#[derive(Debug)]
struct Shown(Arc<CertifiedKey>);

impl ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.key.choose_scheme(schemes).is_some().then(|| Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// A name without its port; `$http_host` and `$proxy_host` may have one.
fn without_port(name: &[u8]) -> &[u8] {
    if let Some(rest) = name.strip_prefix(b"[") {
        return rest.split(|byte| *byte == b']').next().unwrap_or_default();
    }
    match memchr::memrchr(b':', name) {
        Some(colon) if !name[..colon].contains(&b':') => &name[..colon],
        _ => name,
    }
}

/// The name that a certificate must say: without its port, and an address of IPv6 in brackets, as
/// nginx compares it.
fn host(name: &[u8]) -> &[u8] {
    let end = match memchr::memchr(b']', name).filter(|_| name.starts_with(b"[")) {
        Some(bracket) => Some(bracket + 1),
        None => memchr::memchr(b':', name),
    };
    &name[..end.unwrap_or(name.len())]
}

fn unusable(error: &dyn std::fmt::Display, span: Span) -> Diagnostic {
    Diagnostic::error(format!("\"proxy_ssl_*\" settings cannot be used: {error}"))
        .at(span, "in this location")
}

/// Whom `proxy_ssl_verify` trusts.
fn trust(
    settings: &ProxyTls,
    span: Span,
    contents: &Contents,
    report: &mut Report,
) -> Option<Trust> {
    let Some(file) = &settings.trusted_certificate else {
        report.push(
            Diagnostic::error("no proxy_ssl_trusted_certificate for proxy_ssl_verify")
                .at(span, "in this location")
                .help("proxy_ssl_trusted_certificate /etc/ssl/certs/ca-certificates.crt;"),
        );
        return None;
    };
    let authorities = certificates::load_authorities(file, Peer::Server, contents, report);
    let lists = settings.crl.as_ref().map(|crl| certificates::load_crls(crl, contents, report));
    Trust::new(Peer::Server, authorities, &lists.unwrap_or_default(), settings.verify_depth)
}

/// Why a handshake with an upstream failed; the texts are nginx's.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamHandshakeError {
    /// The connection broke, or one side broke the protocol.
    #[error("SSL_do_handshake() failed ({error})", error = errno_text(.0))]
    Io(#[from] io::Error),
    /// The upstream's certificate does not verify.
    #[error(transparent)]
    Distrusted(#[from] Distrust),
}

/// What is wrong with the certificate of an upstream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    /// Its chain is not trusted.
    #[error("upstream SSL certificate verify error: ({number}:{0})", number = .0.number())]
    Chain(Fault),
    /// It is for other names than this.
    #[error("upstream SSL certificate does not match \"{0}\"")]
    Name(Box<str>),
}

/// Checks that the upstream has the key of the certificate it shows, and nothing else.
#[derive(Debug)]
struct ProofOnly;

impl ServerCertVerifier for ProofOnly {
    fn verify_server_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // Judged after the handshake.
        Ok(ServerCertVerified::assertion())
    }

    proof::verify_by_proof!();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_loses_its_port() {
        for (name, expected) in [
            ("a.test", "a.test"),
            ("a.test:8443", "a.test"),
            ("[::1]:8443", "::1"),
            ("[::1]", "::1"),
            ("::1", "::1"),
            ("", ""),
        ] {
            assert_eq!(without_port(name.as_bytes()), expected.as_bytes(), "{name}");
        }
    }

    #[test]
    fn a_certificate_must_say_the_name_that_nginx_asks_for() {
        for (name, expected) in [
            ("a.test", "a.test"),
            ("a.test.:8443", "a.test."),
            ("[::1]:8443", "[::1]"),
            ("[::1]", "[::1]"),
            ("[::1:443", "["),
            ("::1", ""),
            ("", ""),
        ] {
            assert_eq!(host(name.as_bytes()), expected.as_bytes(), "{name}");
        }
    }
}
