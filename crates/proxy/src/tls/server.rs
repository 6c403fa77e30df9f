//! TLS towards clients: which certificate and which settings, by name.
//!
//! The ClientHello is read first, its name picks a `server` block as nginx would pick it, and the
//! handshake goes on with that server's settings.

mod by_algorithm;
mod challenge;
mod compression;
mod resumption;
mod variables;
mod verify;

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use rustls::server::{Acceptor as HelloReader, ClientHello, ServerConfig};
use rustls::sign::CertifiedKey;
use rustls::{HandshakeKind, NamedGroup};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};
use wssgate_acme::Challenges;
use wssgate_config::model::{
    AddressRoute, CertificateFiles, Http, RewriteOp, Server, ServerId, ServerTls, SessionCache,
    VariableCertificate, VerifyClient,
};
use wssgate_syntax::{Diagnostic, Report};
use wssgate_x509::Fault;

use super::certificates::{self, Caches, OnDemand, Wanted};
use super::ciphers;
use super::keys::{self, RecordBoundary, SecretLog, SessionId, Settled};
use super::served::Served;
use super::sessions::Sessions;
use super::slot::Slot;
use super::stapling::{self, Answers, Ask, Stapler};
use super::watch::{self, Watched, Watcher};
use crate::log::ErrorLog;
use crate::resolve::{Job, Resolver, ResolverThread};

use by_algorithm::ByAlgorithm;
use resumption::Resumption;

pub use verify::ClientVerify;

/// What nginx offers by ALPN besides HTTP/2.
const ALPN: [&[u8]; 3] = [b"http/1.1", b"http/1.0", b"http/0.9"];

/// A fatal alert `unrecognized_name` (RFC 6066 §3), for `ssl_reject_handshake`.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// A fatal alert `internal_error` (RFC 8446 §6.2), for a certificate that cannot be loaded.
const INTERNAL_ERROR: [u8; 7] = [21, 3, 3, 0, 2, 2, 80];

/// Whether the first byte of a connection begins TLS (a record, or SSLv2's hello) and not HTTP.
pub fn begins_tls(byte: u8) -> bool {
    byte == 22 || byte & 0x80 != 0
}

/// Shakes hands for every TLS socket of a configuration.
#[derive(Debug, Default)]
pub struct Acceptor {
    /// By [`ServerId`]; `None` for servers without certificates.
    contexts: Vec<Option<Context>>,
    /// What CAs may look for; nothing where no certificate is obtained by ACME.
    challenges: Option<Arc<Challenges>>,
    /// Certificates whose CAs are asked, and for which server.
    staplers: Vec<(Stapler, ServerId)>,
    /// Certificates whose files are looked at.
    watched: Arc<[Watched]>,
}

/// What a server has besides its context.
#[derive(Default)]
struct Aside {
    staplers: Vec<Stapler>,
    watched: Vec<Watched>,
}

/// What outlives the acceptors of a configuration.
#[derive(Clone, Debug, Default)]
pub struct Lasting {
    /// Session caches and ticket keys.
    sessions: Arc<Sessions>,
    /// What CAs have said of certificates.
    answers: Arc<Answers>,
}

/// The settings of one server.
#[derive(Debug)]
struct Context {
    /// `None` when the server only rejects.
    config: Option<Arc<ServerConfig>>,
    /// `ssl_reject_handshake`.
    reject: bool,
    /// The same with ChaCha20 first, for clients who prefer that (`PrioritizeChaCha`).
    chacha: Option<Arc<ServerConfig>>,
    /// Certificates that every handshake loads.
    variable: Option<Variable>,
    /// The certificate that others obtain.
    obtained: Option<Arc<Slot>>,
    /// Certificates of files that are shown, with their paths.
    shown: Vec<(PathBuf, Arc<Served>)>,
    /// Whether there is no certificate besides.
    has_no_other: bool,
    verify: verify::Verify,
    /// `ssl_session_cache` is not `off`.
    has_session_ids: bool,
}

/// Certificates whose paths have variables.
#[derive(Debug)]
struct Variable {
    certificates: Vec<VariableCertificate>,
    on_demand: Arc<OnDemand>,
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
    /// The identifier of the session.
    pub session_id: SessionId,
    /// Suites that the client offers; few configurations ask for their names.
    pub offered_ciphers: Box<[rustls::CipherSuite]>,
    /// Groups that the client offers.
    pub offered_curves: Box<[NamedGroup]>,
    /// The client's certificate in DER.
    pub client_certificate: Option<Box<[u8]>>,
    /// What came of verifying it.
    pub client_verify: ClientVerify,
}

/// A connection whose ClientHello was read.
pub struct Greeting<'a, S> {
    start: StartHandshake<RecordBoundary<S>>,
    offer: Offer,
    context: &'a Context,
    server: ServerId,
}

/// Why a handshake failed.
#[derive(Debug)]
pub enum HandshakeError {
    /// The connection broke.
    Io(io::Error),
    /// The server of that name rejects handshakes, or has nothing to shake hands with.
    Rejected,
    /// A certificate whose path has variables cannot be loaded.
    Certificate(String),
    /// The certificate has not been obtained yet; it is told from time to time.
    NotObtained {
        /// Whether this is such a time.
        tell: bool,
    },
    /// It was a CA that has seen now that a name is ours, and wants nothing more.
    Convinced,
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => {
                write!(formatter, "SSL_do_handshake() failed ({error}) while SSL handshaking")
            }
            Self::Rejected => formatter.write_str("handshake rejected while SSL handshaking"),
            Self::Certificate(error) => write!(formatter, "{error} while SSL handshaking"),
            Self::Convinced => formatter.write_str("challenge shown to a CA while SSL handshaking"),
            Self::NotObtained { .. } => formatter
                .write_str("the certificate has not been obtained yet while SSL handshaking"),
        }
    }
}

impl Acceptor {
    /// Reads all certificates and makes the settings of every server.
    ///
    /// `now` is in seconds since the Unix epoch. What is wrong goes to `report`.
    /// `obtained` are the certificates of [`Acme::certificates`](wssgate_config::model::Acme), and `challenges`
    /// is what their CAs may look for.
    pub fn build(
        http: &Http,
        lasting: &Lasting,
        obtained: &[Arc<Slot>],
        challenges: Option<Arc<Challenges>>,
        caches: &mut Caches,
        now: i64,
        report: &mut Report,
    ) -> Self {
        let used = tls_servers(http);
        let (mut staplers, mut watched) = (Vec::new(), Vec::new());
        let contexts = http.servers.iter().enumerate().map(|(index, server)| {
            // Also where nobody needs them: whoever writes to a pipe waits for a reader.
            let _ = caches.passphrases(server.tls.password_file.as_ref(), report);
            // One that is not named has none, now and for ever.
            let slot = || server.acme.map_or_else(Arc::default, |id| Arc::clone(&obtained[id.0]));
            let slot = server.tls.acme.then(slot);
            let mut build = || Context::build(server, slot.clone(), lasting, caches, now, report);
            let (context, aside) = used[index].then(&mut build).flatten()?;
            staplers.extend(aside.staplers.into_iter().map(|stapler| (stapler, ServerId(index))));
            watched.extend(aside.watched);
            Some(context)
        });
        let contexts = contexts.collect();
        Self { contexts, challenges, staplers, watched: watched.into() }
    }

    /// Reads all certificates and keys, and keeps none. `now` is in seconds since the Unix epoch.
    pub(crate) fn check_certificates(http: &Http, now: i64, report: &mut Report) {
        let mut caches = Caches::default();
        let used = tls_servers(http);
        for (server, _) in http.servers.iter().zip(used).filter(|(_, used)| *used) {
            let passphrases = caches.passphrases(server.tls.password_file.as_ref(), report);
            let Some(passphrases) = passphrases else { continue };
            let read = (&caches.contents, &*passphrases);
            for files in &server.tls.certificates {
                certificates::load(files, read, wanted(server), now, report);
            }
        }
    }

    /// Has the files of its certificates looked at, instead of those of the acceptor before.
    pub(crate) fn watch(&self, watcher: &Watcher, log: &Arc<ErrorLog>) {
        watcher.follow(&self.watched, log);
    }

    /// When the certificates that servers show end, in seconds since the Unix epoch: by the path of each, or `acme`.
    /// Those whose paths have variables are not told.
    pub(crate) fn ends(&self) -> impl Iterator<Item = (ServerId, Cow<'_, str>, i64)> {
        let contexts = self.contexts.iter().enumerate();
        let contexts = contexts.filter_map(|(id, context)| Some((ServerId(id), context.as_ref()?)));
        contexts.flat_map(|(id, context)| {
            let files = context.shown.iter();
            let files = files.map(|(path, key)| (path.to_string_lossy(), key.end()));
            let obtained = context.obtained.iter().map(|slot| (Cow::from("acme"), slot.end()));
            let all = files.chain(obtained);
            all.filter_map(move |(name, end)| Some((id, name, end?)))
        })
    }

    /// What has to be done so that CAs are asked about certificates; nothing when none is.
    pub(crate) fn stapling(
        &self,
        http: &Http,
        resolvers: &[Arc<Resolver>],
        thread: &Arc<ResolverThread>,
    ) -> Option<Job> {
        let ask = |(stapler, server): &(Stapler, ServerId)| {
            let location = http.servers[server.0].location;
            let settings = &http.locations[location.0].settings;
            let resolver = settings.resolver.and_then(|id| resolvers.get(id.0));
            let resolver = resolver.map(|found| (Arc::clone(found), settings.resolver_timeout));
            (stapler.clone(), Ask { resolver, thread: Arc::clone(thread) })
        };
        (!self.staplers.is_empty()).then(|| stapling::job(self.staplers.iter().map(ask).collect()))
    }

    /// Reads the ClientHello of a client that connected to the address of `route`. `read` is what was
    /// read of its bytes already.
    ///
    /// The caller bounds the time.
    ///
    /// # Errors
    /// When the client gives up, breaks the protocol, or is rejected.
    pub async fn greet<S>(
        &self,
        stream: S,
        read: Vec<u8>,
        route: &AddressRoute,
    ) -> Result<Greeting<'_, S>, HandshakeError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let io = RecordBoundary::new(stream).with_late_tickets().with_read(read);
        let start = LazyConfigAcceptor::new(HelloReader::default(), io)
            .await
            .map_err(HandshakeError::Io)?;
        let shown = self.challenges.as_ref();
        if let Some(shown) = shown.and_then(|all| challenge::find(all, &start.client_hello())) {
            return Err(challenge::show(start, &shown).await);
        }
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
        Ok(Greeting { start, offer, context, server })
    }
}

impl<S> Greeting<'_, S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    /// The server that the name picked.
    pub fn server(&self) -> ServerId {
        self.server
    }

    /// The certificates whose paths have to be told.
    pub fn certificates(&self) -> &[VariableCertificate] {
        let variable = self.context.variable.as_ref().filter(|_| !self.context.reject);
        variable.map_or(&[], |variable| &variable.certificates)
    }

    /// What is known before the handshake, for the variables of those paths.
    pub fn known(&self) -> TlsInfo {
        self.offer.known()
    }

    /// Shakes hands; `paths` are those of [`Greeting::certificates`], each with its key's.
    ///
    /// The caller bounds the time.
    ///
    /// # Errors
    /// When the client gives up, breaks the protocol, or is rejected, and when a certificate cannot
    /// be loaded.
    pub async fn shake_hands(
        mut self,
        paths: Vec<(PathBuf, PathBuf)>,
    ) -> Result<Accepted<S>, HandshakeError> {
        let context = self.context;
        let config = match (&context.config, &context.chacha) {
            _ if context.reject => None,
            (_, Some(chacha)) if self.offer.prefers_chacha() => Some(chacha),
            (config, _) => config.as_ref(),
        };
        let Some(config) = config else {
            self.alert(UNRECOGNIZED_NAME).await;
            return Err(HandshakeError::Rejected);
        };
        let mut config = Arc::clone(config);
        if let Some(slot) = &context.obtained
            && context.has_no_other
            && slot.certificate().is_none()
        {
            self.alert(INTERNAL_ERROR).await;
            return Err(HandshakeError::NotObtained { tell: slot.tells() });
        }
        if let Some(variable) = &context.variable {
            match variable.load(paths).await {
                Ok(keys) => {
                    let own = Arc::make_mut(&mut config);
                    let keys = keys.into_iter().map(|key| Arc::new(Served::new(key)));
                    let obtained = context.obtained.clone();
                    own.cert_resolver = Arc::new(ByAlgorithm { keys: keys.collect(), obtained });
                    compression::disable(own);
                }
                Err(error) => {
                    self.alert(INTERNAL_ERROR).await;
                    return Err(HandshakeError::Certificate(error));
                }
            }
        }
        // The secrets are made at once when the settings are known, so inside the capture.
        let handshake = async { self.start.into_stream(config).await };
        let stream = keys::capture(handshake).await.map_err(HandshakeError::Io)?;
        let mut info = self.offer.settle(stream.get_ref().1, &context.verify);
        info.session_id = session_id(stream.get_ref().0, &info, context.has_session_ids);
        Ok(Accepted { stream, info, server: self.server })
    }

    /// Tells the client why, as far as it still listens.
    async fn alert(&mut self, alert: [u8; 7]) {
        let _ = self.start.io.write_all(&alert).await;
        let _ = self.start.io.flush().await;
    }
}

impl Variable {
    async fn load(&self, paths: Vec<(PathBuf, PathBuf)>) -> Result<Vec<Arc<CertifiedKey>>, String> {
        let mut keys = Vec::new();
        for (chain, key) in paths {
            keys.push(self.on_demand.load(chain, key).await?);
        }
        Ok(keys)
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
    fn build(
        server: &Server,
        obtained: Option<Arc<Slot>>,
        lasting: &Lasting,
        caches: &mut Caches,
        now: i64,
        report: &mut Report,
    ) -> Option<(Self, Aside)> {
        let tls = &server.tls;
        let verify = verify::Verify::build(tls, &caches.contents, report);
        let has_session_ids = tls.session_cache != SessionCache::Off;
        if !tls.has_certificates() {
            let only = Self {
                config: None,
                reject: true,
                chacha: None,
                variable: None,
                obtained: None,
                shown: Vec::new(),
                has_no_other: false,
                verify,
                has_session_ids,
            };
            return tls.reject_handshake.then_some((only, Aside::default()));
        }
        if let Some(file) = &tls.dhparam {
            certificates::check_dhparam(file, &caches.contents, report);
        }
        let passphrases = caches.passphrases(tls.password_file.as_ref(), report)?;
        let wanted = wanted(server);
        let read = (&caches.contents, &*passphrases);
        let keys: Vec<_> = tls
            .certificates
            .iter()
            .filter_map(|files| certificates::load(files, read, wanted, now, report))
            .collect();
        if keys.len() < tls.certificates.len() {
            return None;
        }
        let keys: Vec<_> = keys.into_iter().map(|key| Arc::new(Served::new(key))).collect();
        let shown = last_of_kinds(&keys, &tls.certificates, report);
        let staplers = tls.stapling.iter().flat_map(|stapling| {
            let pairs = keys.iter().zip(&tls.certificates);
            let asking = pairs.filter_map(|(key, files)| {
                let of = (key, files.chain.value.as_path());
                Stapler::build(stapling, tls, of, &lasting.answers, &caches.contents, report)
            });
            asking.collect::<Vec<_>>()
        });
        let staplers = staplers.collect();
        let watched = tls.certificate_watch.into_iter().flat_map(|every| {
            let pairs = keys.iter().zip(&tls.certificates);
            let pairs = pairs.filter(|(_, files)| watch::can_watch(files));
            pairs.map(move |(key, files)| (every, key, files)).collect::<Vec<_>>()
        });
        let watched = watched.map(|(every, key, files)| Watched {
            files: files.clone(),
            passphrases: Arc::clone(&passphrases),
            names: wanted.names.into(),
            ignored: server.ignored.clone().into(),
            every,
            served: Arc::clone(key),
            state: Mutex::new(watch::State::new(watch::stamps(files, &caches.contents))),
        });
        let aside = Aside { staplers, watched: watched.collect() };
        let resumption = Resumption::build(server, &lasting.sessions, report)?;
        let config = |first, report: &mut Report| {
            let keys = ByAlgorithm { keys: shown.clone(), obtained: obtained.clone() };
            server_config(server, keys, &verify, &resumption, first, report).map(Arc::new)
        };
        let own = config(First::AsConfigured, report)?;
        let chacha = (tls.prioritize_chacha && tls.prefer_server_ciphers)
            // What is to be said of the settings was said.
            .then(|| config(First::ChaCha, &mut Report::default()))
            .flatten();
        let variable = (!tls.variable_certificates.is_empty()).then(|| Variable {
            certificates: tls.variable_certificates.clone(),
            on_demand: OnDemand::new(passphrases, tls.certificate_cache.as_ref(), caches),
        });
        let reject = tls.reject_handshake;
        let has_no_other = shown.is_empty() && variable.is_none();
        let path = |key: &Arc<Served>| {
            let mut pairs = keys.iter().zip(&tls.certificates);
            let found = pairs.find(|(one, _)| Arc::ptr_eq(one, key));
            found.map(|(_, files)| (files.chain.value.clone(), Arc::clone(key)))
        };
        let shown = shown.iter().filter_map(path).collect();
        let this = Self {
            config: Some(own),
            reject,
            chacha,
            variable,
            obtained,
            shown,
            has_no_other,
            verify,
            has_session_ids,
        };
        Some((this, aside))
    }
}

/// Of several keys of one kind the last counts, as in OpenSSL.
fn last_of_kinds(
    keys: &[Arc<Served>],
    files: &[CertificateFiles],
    report: &mut Report,
) -> Vec<Arc<Served>> {
    let kind = |key: &Served| key.bare().key.algorithm();
    let mut shown = Vec::new();
    for (at, key) in keys.iter().enumerate() {
        match keys[at + 1..].iter().rposition(|later| kind(later) == kind(key)) {
            None => shown.push(Arc::clone(key)),
            Some(later) => {
                let (this, other) = (&files[at].chain, &files[at + 1 + later].chain);
                let (path, by) = (this.value.display(), other.value.display());
                let text = format!(
                    "certificate \"{path}\" is never used: \"{by}\" has a key of the same type"
                );
                report.push(
                    Diagnostic::warning(text).at(this.span, "the last one of each type is used"),
                );
            }
        }
    }
    shown
}

/// Which suites are preferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum First {
    /// In the order of the configuration.
    AsConfigured,
    /// Those of ChaCha20, then the others: for a client without hardware for AES.
    ChaCha,
}

fn is_chacha(suite: rustls::CipherSuite) -> bool {
    ciphers::openssl_name(suite).is_some_and(|name| name.contains("CHACHA20"))
}

/// Whether a server closes the connection without an answer, whatever comes.
fn wanted(server: &Server) -> Wanted<'_> {
    // What is turned away may as well see a certificate of another name.
    let names: &[_] = if closes_all(server) { &[] } else { &server.names };
    Wanted { names, ignored: &server.ignored }
}

fn closes_all(server: &Server) -> bool {
    matches!(server.rewrite.first(), Some(RewriteOp::Return(answer)) if answer.status == 444)
}

fn server_config(
    server: &Server,
    keys: ByAlgorithm,
    verify: &verify::Verify,
    resumption: &Resumption,
    first: First,
    report: &mut Report,
) -> Option<ServerConfig> {
    let tls = &server.tls;
    let wanted = super::Crypto {
        ciphers: &tls.ciphers,
        ciphersuites: tls.ciphersuites.as_ref(),
        protocols: tls.protocols,
        groups: &tls.ecdh_curves,
    };
    let mut provider = super::provider_for(&wanted, report)?;
    if first == First::ChaCha {
        Arc::make_mut(&mut provider).cipher_suites.sort_by_key(|suite| !is_chacha(suite.suite()));
    }
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
    let mut config = builder.with_cert_resolver(Arc::new(keys));
    config.alpn_protocols = ALPN.iter().map(|name| name.to_vec()).collect();
    config.ignore_client_order = tls.prefer_server_ciphers;
    config.key_log = Arc::new(SecretLog);
    config.enable_secret_extraction = true;
    config.max_fragment_size = fragment_size(tls);
    if tls.certificate_compression {
        compression::enable(&mut config);
    }
    resumption.apply(&mut config);
    Some(config)
}

/// The payload of our records, when `ssl_buffer_size` is below a record's 16 KiB.
fn fragment_size(tls: &ServerTls) -> Option<usize> {
    (tls.buffer_size < 16384).then_some(tls.buffer_size.max(512))
}

/// What OpenSSL would call the session of this connection.
fn session_id<S>(boundary: &RecordBoundary<S>, info: &TlsInfo, has_ids: bool) -> SessionId {
    let is_tls13 = info.protocol == "TLSv1.3";
    let settled = Settled { is_tls13, is_resumed: info.reused, has_ids };
    boundary.server_hello().map(|hello| hello.session_id(settled)).unwrap_or_default()
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

    /// Whether the first suite that we know is one of ChaCha20: a client without hardware for AES.
    fn prefers_chacha(&self) -> bool {
        let known = self.ciphers.iter().find(|suite| ciphers::openssl_name(**suite).is_some());
        known.is_some_and(|suite| is_chacha(*suite))
    }

    fn known(&self) -> TlsInfo {
        TlsInfo {
            protocol: "",
            cipher: "",
            curve: String::new(),
            server_name: self.name.clone(),
            alpn: None,
            reused: false,
            session_id: SessionId::default(),
            offered_ciphers: self.ciphers.clone(),
            offered_curves: self.curves.clone(),
            client_certificate: None,
            client_verify: ClientVerify::None,
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
            session_id: SessionId::default(),
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
            (_, ClientVerify::Failed(fault)) => Some(CertificateRefusal::Invalid(*fault)),
        }
    }
}

#[cfg(test)]
mod tests;
