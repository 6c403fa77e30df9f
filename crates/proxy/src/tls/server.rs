//! TLS towards clients: which certificate and which settings, by name.
//!
//! The ClientHello is read first, its name picks a `server` block as nginx would pick it, and the
//! handshake goes on with that server's settings.

mod variables;
mod verify;

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::server::{Acceptor as HelloReader, ClientHello, ResolvesServerCert, ServerConfig};
use rustls::sign::CertifiedKey;
use rustls::{HandshakeKind, NamedGroup};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use wssgate_config::model::{AddressRoute, Http, Server, ServerId, ServerTls, VerifyClient};
use wssgate_syntax::{Diagnostic, Report};

use super::certificates::{self, Passphrases, Wanted};
use super::ciphers;
use super::keys::{self, RecordBoundary, SecretLog};
use super::sessions::Sessions;
use super::trust::Fault;

pub use verify::ClientVerify;

/// What nginx offers by ALPN besides HTTP/2.
const ALPN: [&[u8]; 3] = [b"http/1.1", b"http/1.0", b"http/0.9"];

/// A fatal alert `unrecognized_name` (RFC 6066 §3), for `ssl_reject_handshake`.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// Whether the first byte of a connection begins TLS (a record, or SSLv2's hello) and not HTTP.
pub fn begins_tls(byte: u8) -> bool {
    byte == 22 || byte & 0x80 != 0
}

/// Shakes hands for every TLS socket of a configuration.
#[derive(Debug, Default)]
pub struct Acceptor {
    /// By [`ServerId`]; `None` for servers without certificates.
    contexts: Vec<Option<Context>>,
}

/// The settings of one server.
#[derive(Debug)]
struct Context {
    /// `None` when the server only rejects.
    config: Option<Arc<ServerConfig>>,
    /// `ssl_reject_handshake`.
    reject: bool,
    verify: verify::Verify,
}

/// A client connection after its handshake.
#[derive(Debug)]
pub struct Accepted<S> {
    /// The connection.
    pub stream: TlsStream<RecordBoundary<S>>,
    /// What the handshake settled.
    pub info: TlsInfo,
    /// The server that the name picked.
    pub server: ServerId,
}

/// What a handshake settled: all that `$ssl_*` variables tell.
#[derive(Debug)]
pub struct TlsInfo {
    /// `TLSv1.2` or `TLSv1.3`.
    pub protocol: &'static str,
    /// The suite in OpenSSL's words.
    pub cipher: &'static str,
    /// The key exchange group; empty for a resumed TLS 1.2 session.
    pub curve: String,
    /// The name that the client asked for, lower case.
    pub server_name: Option<Box<str>>,
    /// The protocol chosen by ALPN.
    pub alpn: Option<Box<[u8]>>,
    /// Whether a session was resumed.
    pub reused: bool,
    /// Suites that the client offers; few configurations ask for their names.
    pub offered_ciphers: Box<[rustls::CipherSuite]>,
    /// Groups that the client offers.
    pub offered_curves: Box<[NamedGroup]>,
    /// The client's certificate in DER.
    pub client_certificate: Option<Box<[u8]>>,
    /// What came of verifying it.
    pub client_verify: ClientVerify,
}

/// Why a handshake failed. All of it is the client's affair, logged at `info`.
#[derive(Debug)]
pub enum HandshakeError {
    /// The connection broke.
    Io(io::Error),
    /// The server of that name rejects handshakes, or has nothing to shake hands with.
    Rejected,
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => {
                write!(formatter, "SSL_do_handshake() failed ({error}) while SSL handshaking")
            }
            Self::Rejected => formatter.write_str("handshake rejected while SSL handshaking"),
        }
    }
}

impl Acceptor {
    /// Reads all certificates and makes the settings of every server.
    ///
    /// `now` is in seconds since the Unix epoch. What is wrong goes to `report`.
    pub fn build(http: &Http, sessions: &Sessions, now: i64, report: &mut Report) -> Self {
        let used = tls_servers(http);
        let contexts = http.servers.iter().enumerate().map(|(index, server)| {
            let context = used[index].then(|| Context::build(server, sessions, now, report));
            context.flatten()
        });
        Self { contexts: contexts.collect() }
    }

    /// Shakes hands with a client that connected to the address of `route`. `read` is what was read of
    /// its bytes already.
    ///
    /// The caller bounds the time.
    ///
    /// # Errors
    /// When the client gives up, breaks the protocol, or is rejected.
    pub async fn accept<S>(
        &self,
        stream: S,
        read: Vec<u8>,
        route: &AddressRoute,
    ) -> Result<Accepted<S>, HandshakeError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let io = RecordBoundary::new(stream).with_late_tickets().with_read(read);
        let mut start = LazyConfigAcceptor::new(HelloReader::default(), io)
            .await
            .map_err(HandshakeError::Io)?;
        let offer = Offer::read(&start.client_hello());
        let server = route.server_for(offer.name.as_deref());
        let default = route.default_server;
        let (server, context) = match (&self.contexts[server.0], &self.contexts[default.0]) {
            (Some(context), _) => (server, context),
            // As in nginx, a server without certificates borrows those of its address's default
            // server.
            (None, Some(context)) => (default, context),
            (None, None) => return Err(HandshakeError::Rejected),
        };
        let config = match &context.config {
            Some(config) if !context.reject => Arc::clone(config),
            _ => {
                // The client learns why, as far as it still listens.
                let _ = start.io.write_all(&UNRECOGNIZED_NAME).await;
                let _ = start.io.flush().await;
                return Err(HandshakeError::Rejected);
            }
        };
        // The secrets are made at once when the settings are known, so inside the capture.
        let handshake = async { start.into_stream(config).await };
        let stream = keys::capture(handshake).await.map_err(HandshakeError::Io)?;
        let info = offer.settle(stream.get_ref().1, &context.verify);
        Ok(Accepted { stream, info, server })
    }
}

/// The part of a route that this module adds: the server for a name.
trait ServerFor {
    fn server_for(&self, name: Option<&str>) -> ServerId;
}

impl ServerFor for AddressRoute {
    fn server_for(&self, name: Option<&str>) -> ServerId {
        let found = name.and_then(|name| self.names.find(name.as_bytes()));
        found.map_or(self.default_server, |(server, _)| *server)
    }
}

/// Which servers are reachable over TLS.
fn tls_servers(http: &Http) -> Vec<bool> {
    let mut used = vec![false; http.servers.len()];
    for route in http.sockets.iter().flat_map(|socket| &socket.routes).filter(|route| route.ssl) {
        used[route.default_server.0] = true;
        route.names.values().for_each(|server| used[server.0] = true);
    }
    used
}

impl Context {
    fn build(server: &Server, sessions: &Sessions, now: i64, report: &mut Report) -> Option<Self> {
        let tls = &server.tls;
        let verify = verify::Verify::build(tls, report);
        if tls.certificates.is_empty() {
            return tls.reject_handshake.then_some(Self { config: None, reject: true, verify });
        }
        if let Some(file) = &tls.dhparam {
            certificates::check_dhparam(file, report);
        }
        let passphrases = Passphrases::load(tls.password_file.as_ref(), report)?;
        let wanted = Wanted { names: &server.names, ignored: &server.ignored };
        let keys: Vec<_> = tls
            .certificates
            .iter()
            .filter_map(|files| certificates::load(files, &passphrases, wanted, now, report))
            .collect();
        if keys.len() < tls.certificates.len() {
            return None;
        }
        let config = server_config(server, keys, &verify, sessions, report)?;
        Some(Self { config: Some(Arc::new(config)), reject: tls.reject_handshake, verify })
    }
}

fn server_config(
    server: &Server,
    keys: Vec<Arc<CertifiedKey>>,
    verify: &verify::Verify,
    sessions: &Sessions,
    report: &mut Report,
) -> Option<ServerConfig> {
    let tls = &server.tls;
    let groups = super::groups(&tls.ecdh_curves, report);
    let provider = super::provider_for(&tls.ciphers, tls.protocols, groups, report)?;
    let fail = |error: &dyn fmt::Display| {
        Diagnostic::error(format!("TLS settings cannot be used: {error}"))
            .at(server.span, "in this server")
    };
    let builder = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&super::versions(tls.protocols))
        .map_err(|error| report.push(fail(&error)))
        .ok()?;
    let builder = match verify.verifier() {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(ByAlgorithm::new(keys)));
    config.alpn_protocols = ALPN.iter().map(|name| name.to_vec()).collect();
    config.ignore_client_order = tls.prefer_server_ciphers;
    config.key_log = Arc::new(SecretLog);
    config.enable_secret_extraction = true;
    config.max_fragment_size = fragment_size(tls);
    resumption(&mut config, tls, &identity(server), sessions)
        .map_err(|error| report.push(fail(&error)))
        .ok()?;
    Some(config)
}

/// How a client may come back to this server.
fn resumption(
    config: &mut ServerConfig,
    tls: &ServerTls,
    identity: &[u8],
    sessions: &Sessions,
) -> Result<(), rustls::Error> {
    config.session_storage = sessions.store(tls, identity);
    if tls.session_tickets {
        config.ticketer = sessions.ticketer(tls, identity)?;
    }
    let resumable = tls.session_tickets || config.session_storage.can_cache();
    config.send_tls13_tickets = usize::from(resumable);
    Ok(())
}

/// The payload of our records, when `ssl_buffer_size` is below a record's 16 KiB.
fn fragment_size(tls: &ServerTls) -> Option<usize> {
    (tls.buffer_size < 16384).then_some(tls.buffer_size.max(512))
}

/// What tells this server from others, also in the next generation: its names and whether it
/// verifies clients, and against what.
fn identity(server: &Server) -> Box<[u8]> {
    let mut identity = format!("{:?}", server.tls.verify_client).into_bytes();
    if let Some(file) = &server.tls.client_certificate {
        identity.extend_from_slice(file.value.as_os_str().as_encoded_bytes());
    }
    for name in &server.names {
        identity.push(0);
        identity.extend_from_slice(&name.value);
    }
    identity.into()
}

/// A server's keys; the first whose algorithm the client knows is used, ECDSA before RSA.
#[derive(Debug)]
struct ByAlgorithm {
    keys: Vec<Arc<CertifiedKey>>,
}

impl ByAlgorithm {
    fn new(mut keys: Vec<Arc<CertifiedKey>>) -> Self {
        keys.sort_by_key(|key| key.key.algorithm() == rustls::SignatureAlgorithm::RSA);
        Self { keys }
    }
}

impl ResolvesServerCert for ByAlgorithm {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let offered = hello.signature_schemes();
        let usable = self.keys.iter().find(|key| key.key.choose_scheme(offered).is_some());
        usable.or(self.keys.first()).cloned()
    }
}

/// What the client offered.
struct Offer {
    name: Option<Box<str>>,
    ciphers: Box<[rustls::CipherSuite]>,
    curves: Box<[NamedGroup]>,
}

impl Offer {
    fn read(hello: &ClientHello<'_>) -> Self {
        Self {
            name: hello.server_name().map(|name| name.to_ascii_lowercase().into()),
            ciphers: hello.cipher_suites().into(),
            curves: hello.named_groups().unwrap_or_default().into(),
        }
    }

    fn settle(self, connection: &rustls::ServerConnection, verify: &verify::Verify) -> TlsInfo {
        let suite = connection.negotiated_cipher_suite().map(|suite| suite.suite());
        let group = connection.negotiated_key_exchange_group();
        let certificates = connection.peer_certificates();
        TlsInfo {
            protocol: super::version_name(connection.protocol_version()),
            cipher: suite.and_then(ciphers::openssl_name).unwrap_or_default(),
            curve: group.map(|group| super::group_name(group.name())).unwrap_or_default(),
            server_name: self.name,
            alpn: connection.alpn_protocol().map(Into::into),
            reused: connection.handshake_kind() == Some(HandshakeKind::Resumed),
            offered_ciphers: self.ciphers,
            offered_curves: self.curves,
            client_certificate: certificates
                .and_then(<[_]>::first)
                .map(|certificate| certificate.as_ref().into()),
            client_verify: verify.judge(certificates),
        }
    }
}

/// Why a client certificate does not let a request in; the texts are nginx's.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CertificateRefusal {
    /// None was sent.
    #[error("client sent no required SSL certificate")]
    Missing,
    /// It does not verify.
    #[error("client SSL certificate verify error: ({number}:{0})", number = .0.number())]
    Invalid(Fault),
}

impl CertificateRefusal {
    /// nginx's status for it, which becomes a 400 unless an `error_page` says otherwise.
    pub fn status(&self) -> u16 {
        match self {
            Self::Missing => 496,
            Self::Invalid(_) => 495,
        }
    }
}

impl TlsInfo {
    /// Why every request of this connection is refused, if it is.
    pub fn refusal(&self, mode: VerifyClient) -> Option<CertificateRefusal> {
        match (mode, &self.client_verify) {
            (VerifyClient::On, ClientVerify::None) => Some(CertificateRefusal::Missing),
            (VerifyClient::Off, _) | (_, ClientVerify::None | ClientVerify::Success) => None,
            (VerifyClient::OptionalNoCa, ClientVerify::Failed(fault))
                if fault.passes_without_ca() =>
            {
                None
            }
            (_, ClientVerify::Failed(fault)) => Some(CertificateRefusal::Invalid(fault.clone())),
        }
    }
}

#[cfg(test)]
mod tests;
