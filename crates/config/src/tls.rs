//! TLS towards clients.

pub(crate) mod conf_command;
pub(crate) mod key_file;
pub(crate) mod session_cache;

use std::path::PathBuf;
use std::time::Duration;

use wssgate_syntax::{self as syntax, Diagnostic, Span, Word, printable};

use crate::directive::Arity::{AtLeast, Between, Exactly, Flag};
use crate::directive::{AnyDirective, Directive, HS};
use crate::read::{
    Reading, Reads, conf_path, flag, invalid_value, located_text, number, one_of, seconds,
    set_once, size,
};
use crate::scope::Scope;
use crate::tls::conf_command::{TlsCommand, conf_command};
use crate::tls::key_file::{
    CertificateCache, CertificateFiles, KeyFile, VariableCertificate, certificate_cache,
    server_key_file,
};
use crate::tls::session_cache::{SessionCache, session_cache};
use crate::value::Located;

/// The rows.
pub(crate) static ROWS: &[&dyn AnyDirective] = &[
    &SSL,
    &SSL_BUFFER_SIZE,
    &SSL_CERTIFICATE,
    &SSL_CERTIFICATE_CACHE,
    &SSL_CERTIFICATE_COMPRESSION,
    &SSL_CERTIFICATE_KEY,
    &SSL_CERTIFICATE_WATCH,
    &SSL_CIPHERS,
    &SSL_CLIENT_CERTIFICATE,
    &SSL_CONF_COMMAND,
    &SSL_CRL,
    &SSL_DHPARAM,
    &SSL_ECDH_CURVE,
    &SSL_PASSWORD_FILE,
    &SSL_PREFER_SERVER_CIPHERS,
    &SSL_PROTOCOLS,
    &SSL_REJECT_HANDSHAKE,
    &SSL_SESSION_CACHE,
    &SSL_SESSION_TICKET_KEY,
    &SSL_SESSION_TICKETS,
    &SSL_SESSION_TIMEOUT,
    &SSL_STAPLING,
    &SSL_STAPLING_FILE,
    &SSL_STAPLING_RESPONDER,
    &SSL_STAPLING_VERIFY,
    &SSL_TRUSTED_CERTIFICATE,
    &SSL_VERIFY_CLIENT,
    &SSL_VERIFY_DEPTH,
];

/// `ssl`
pub(crate) static SSL: Directive<bool> = Directive {
    name: "ssl",
    contexts: HS,
    arity: Flag,
    default: "off",
    doc: "Enables TLS on every address whose default server sets it. Supported for configurations \
          written for nginx before 1.25.1; use `listen 443 ssl` instead.",
    ..Directive::once(old_ssl)
};

/// `ssl_buffer_size`
pub(crate) static SSL_BUFFER_SIZE: Directive<u64> = Directive {
    name: "ssl_buffer_size",
    contexts: HS,
    arity: Exactly(1),
    default: "16k",
    doc: "Limits the size of TLS records sent to clients.",
    ..Directive::once(size)
};

/// `ssl_certificate`
pub(crate) static SSL_CERTIFICATE: Directive<KeyFile> = Directive {
    name: "ssl_certificate",
    contexts: HS,
    arity: Exactly(1),
    doc: "Sets the file with the certificate chain of a server, in PEM, its own certificate first. \
          A path with variables is read at each handshake, with the privileges of a worker. \
          `$acme_certificate` is the certificate of `acme_certificate`.",
    ..Directive::repeated(server_key_file)
};

/// `ssl_certificate_cache`
pub(crate) static SSL_CERTIFICATE_CACHE: Directive<Option<Located<CertificateCache>>> = Directive {
    name: "ssl_certificate_cache",
    contexts: HS,
    arity: Between(1, 3),
    default: "off",
    doc: "Keeps up to `max=` certificates and keys whose paths have variables; one that has not \
          been used for `inactive=` (10s) is dropped, and its file is checked again after `valid=` \
          (60s).",
    ..Directive::once(certificate_cache)
};

/// `ssl_certificate_compression`
pub(crate) static SSL_CERTIFICATE_COMPRESSION: Directive<bool> = Directive {
    name: "ssl_certificate_compression",
    contexts: HS,
    arity: Flag,
    default: "off",
    doc: "Sends certificates compressed with zlib (RFC 8879) to TLS 1.3 clients that support it. \
          Each is compressed once; certificates whose paths have variables are sent uncompressed.",
    ..Directive::once(flag)
};

/// `ssl_certificate_key`
pub(crate) static SSL_CERTIFICATE_KEY: Directive<KeyFile> = Directive {
    name: "ssl_certificate_key",
    contexts: HS,
    arity: Exactly(1),
    doc: "Sets the file with the private key of a certificate, in PEM; `$acme_certificate_key` for \
          `$acme_certificate`.",
    ..Directive::repeated(server_key_file)
};

/// `ssl_certificate_watch`
pub(crate) static SSL_CERTIFICATE_WATCH: Directive<Option<Duration>> = Directive {
    name: "ssl_certificate_watch",
    contexts: HS,
    arity: Exactly(1),
    default: "1m",
    doc: "Sets how often to check whether certificate and key files have changed. A new pair is \
          used from the next handshake on, without a reload, if certificate and key match, the \
          certificate is currently valid and it is not older than the previous one. `off` leaves \
          that to reloads, as in nginx. Other files, and paths with variables, are not watched.",
    ..Directive::once(watch)
};

/// `ssl_ciphers`
pub(crate) static SSL_CIPHERS: Directive<Located<Box<[u8]>>> = Directive {
    name: "ssl_ciphers",
    contexts: HS,
    arity: Exactly(1),
    default: "HIGH:!aNULL:!MD5",
    doc: "Sets the cipher suites, in OpenSSL's format.",
    ..Directive::once(located_text)
};

/// `ssl_client_certificate`
pub(crate) static SSL_CLIENT_CERTIFICATE: Directive<Located<PathBuf>> = Directive {
    name: "ssl_client_certificate",
    contexts: HS,
    arity: Exactly(1),
    doc: "Sets the file with trusted CA certificates for client certificates, in PEM; their names \
          are sent to clients.",
    ..Directive::once(conf_path)
};

/// `ssl_conf_command`
pub(crate) static SSL_CONF_COMMAND: Directive<TlsCommand> = Directive {
    name: "ssl_conf_command",
    contexts: HS,
    arity: Exactly(2),
    doc: "Runs an OpenSSL configuration command: `Ciphersuites` (of TLS 1.3), `CipherString`, \
          `Groups` or `Curves`, `MinProtocol`, `MaxProtocol`, `Certificate` and `PrivateKey`, \
          `NumTickets`, and `Options` with `SessionTicket`, `ServerPreference` and \
          `PrioritizeChaCha`.",
    ..Directive::repeated(conf_command)
};

/// `ssl_crl`
pub(crate) static SSL_CRL: Directive<Located<PathBuf>> = Directive {
    name: "ssl_crl",
    contexts: HS,
    arity: Exactly(1),
    doc: "Sets the file with revocation lists for client certificates, in PEM.",
    ..Directive::once(conf_path)
};

/// `ssl_dhparam`
pub(crate) static SSL_DHPARAM: Directive<Located<PathBuf>> = Directive {
    name: "ssl_dhparam",
    contexts: HS,
    arity: Exactly(1),
    doc: "Names a file that is checked but not used: there are no DHE cipher suites.",
    ..Directive::once(conf_path)
};

/// `ssl_ecdh_curve`
pub(crate) static SSL_ECDH_CURVE: Directive<Vec<Located<Box<[u8]>>>> = Directive {
    name: "ssl_ecdh_curve",
    contexts: HS,
    arity: Exactly(1),
    default: "auto",
    doc: "Sets the key exchange groups, separated by colons.",
    ..Directive::once(curves)
};

/// `ssl_password_file`
pub(crate) static SSL_PASSWORD_FILE: Directive<Located<PathBuf>> = Directive {
    name: "ssl_password_file",
    contexts: HS,
    arity: Exactly(1),
    doc: "Sets the file with passphrases for private keys, one per line; each is tried in turn. \
          Keys must be PKCS#8 with AES.",
    ..Directive::once(conf_path)
};

/// `ssl_prefer_server_ciphers`
pub(crate) static SSL_PREFER_SERVER_CIPHERS: Directive<bool> = Directive {
    name: "ssl_prefer_server_ciphers",
    contexts: HS,
    arity: Flag,
    default: "off",
    doc: "Prefers the cipher suite order of the server to that of the client.",
    ..Directive::once(flag)
};

/// `ssl_protocols`
pub(crate) static SSL_PROTOCOLS: Directive<TlsProtocols> = Directive {
    name: "ssl_protocols",
    contexts: HS,
    arity: AtLeast(1),
    default: "TLSv1.2 TLSv1.3",
    doc: "Sets the TLS versions.",
    ..Directive::repeated(protocols)
};

/// `ssl_reject_handshake`
pub(crate) static SSL_REJECT_HANDSHAKE: Directive<bool> = Directive {
    name: "ssl_reject_handshake",
    contexts: HS,
    arity: Flag,
    default: "off",
    doc: "Rejects TLS handshakes for the names of this server.",
    ..Directive::once(flag)
};

/// `ssl_session_cache`
pub(crate) static SSL_SESSION_CACHE: Directive<SessionCache> = Directive {
    name: "ssl_session_cache",
    contexts: HS,
    arity: Between(1, 2),
    default: "none",
    doc: "Sets where sessions are stored for resumption: `shared:NAME:SIZE`, `builtin`, `none` or \
          `off`.",
    ..Directive::once(session_cache)
};

/// `ssl_session_ticket_key`
pub(crate) static SSL_SESSION_TICKET_KEY: Directive<Located<PathBuf>> = Directive {
    name: "ssl_session_ticket_key",
    contexts: HS,
    arity: Exactly(1),
    doc: "Sets a file with 48 or 80 random bytes from which ticket keys are derived, so that \
          sessions can be resumed after a restart and on other hosts with the same file and \
          server. If there are several, the first one encrypts tickets, and all decrypt them. \
          Without it, random keys are used, each for ssl_session_timeout.",
    ..Directive::repeated(conf_path)
};

/// `ssl_session_tickets`
pub(crate) static SSL_SESSION_TICKETS: Directive<bool> = Directive {
    name: "ssl_session_tickets",
    contexts: HS,
    arity: Flag,
    default: "on",
    doc: "Enables session resumption with tickets.",
    ..Directive::once(flag)
};

/// `ssl_session_timeout`
pub(crate) static SSL_SESSION_TIMEOUT: Directive<Duration> = Directive {
    name: "ssl_session_timeout",
    contexts: HS,
    arity: Exactly(1),
    default: "5m",
    doc: "Sets how long a session can be resumed: seven days at most.",
    ..Directive::once(session_timeout)
};

/// `ssl_stapling`
pub(crate) static SSL_STAPLING: Directive<bool> = Directive {
    name: "ssl_stapling",
    contexts: HS,
    arity: Flag,
    default: "off",
    doc: "Staples OCSP responses from the CA's responder to certificates. Responses are fetched \
          ahead of time, over plain HTTP, from hosts that `resolver` resolves; no handshake waits \
          for them.",
    ..Directive::once(flag)
};

/// `ssl_stapling_file`
pub(crate) static SSL_STAPLING_FILE: Directive<Located<PathBuf>> = Directive {
    name: "ssl_stapling_file",
    contexts: HS,
    arity: Exactly(1),
    doc: "Sets a file with an OCSP response in DER, which is stapled instead of querying the \
          responder.",
    ..Directive::once(conf_path)
};

/// `ssl_stapling_responder`
pub(crate) static SSL_STAPLING_RESPONDER: Directive<Located<Box<[u8]>>> = Directive {
    name: "ssl_stapling_responder",
    contexts: HS,
    arity: Exactly(1),
    doc: "Sets the URL of the OCSP responder (`http://`), instead of the one in the certificate.",
    ..Directive::once(located_text)
};

/// `ssl_stapling_verify`
pub(crate) static SSL_STAPLING_VERIFY: Directive<bool> = Directive {
    name: "ssl_stapling_verify",
    contexts: HS,
    arity: Flag,
    default: "off",
    doc: "Staples only responses signed by the issuer of the certificate or by a responder it has \
          authorized, up to a certificate in `ssl_trusted_certificate`.",
    ..Directive::once(flag)
};

/// `ssl_trusted_certificate`
pub(crate) static SSL_TRUSTED_CERTIFICATE: Directive<Located<PathBuf>> = Directive {
    name: "ssl_trusted_certificate",
    contexts: HS,
    arity: Exactly(1),
    doc: "Sets the file with trusted CA certificates for client certificates, in PEM; their names \
          are not sent to clients.",
    ..Directive::once(conf_path)
};

/// `ssl_verify_client`
pub(crate) static SSL_VERIFY_CLIENT: Directive<VerifyClient> = Directive {
    name: "ssl_verify_client",
    contexts: HS,
    arity: Exactly(1),
    default: "off",
    doc: "Verifies client certificates: `on` requires one, `optional` allows requests without one, \
          and `optional_no_ca` does not require a trusted CA.",
    ..Directive::once(verify_client)
};

/// `ssl_verify_depth`
pub(crate) static SSL_VERIFY_DEPTH: Directive<u64> = Directive {
    name: "ssl_verify_depth",
    contexts: HS,
    arity: Exactly(1),
    default: "1",
    doc: "Sets how many intermediate certificates are allowed between a client certificate and a \
          root, six at most.",
    ..Directive::once(number)
};

/// The `ssl_*` directives of a server.
#[derive(Clone, Debug)]
pub struct ServerTls {
    /// Certificate chain and key files, in pairs; none when `variable_certificates` are used.
    pub certificates: Vec<CertificateFiles>,
    /// The same where a path has variables; all of them are read for every handshake then.
    pub variable_certificates: Vec<VariableCertificate>,
    /// Whether `$acme_certificate` is one of them: the certificate of `acme_certificate`.
    pub acme: bool,
    /// `ssl_certificate_compression`.
    pub certificate_compression: bool,
    /// `ssl_certificate_watch`: how often files are looked at; never when it is `off`.
    pub certificate_watch: Option<Duration>,
    /// `ssl_certificate_cache`: for those with variables.
    pub certificate_cache: Option<Located<CertificateCache>>,
    /// `ssl_password_file`: one passphrase a line.
    pub password_file: Option<Located<PathBuf>>,
    /// `ssl_protocols`.
    pub protocols: TlsProtocols,
    /// `ssl_ciphers`, an OpenSSL cipher string.
    pub ciphers: Located<Box<[u8]>>,
    /// `Ciphersuites` of `ssl_conf_command`: suites of TLS 1.3, in order.
    pub ciphersuites: Option<Located<Box<[u8]>>>,
    /// `ssl_prefer_server_ciphers`.
    pub prefer_server_ciphers: bool,
    /// `Options PrioritizeChaCha`: unless the client prefers ChaCha20.
    pub prioritize_chacha: bool,
    /// `ssl_ecdh_curve`: groups, in order; empty for `auto`.
    pub ecdh_curves: Vec<Located<Box<[u8]>>>,
    /// `ssl_dhparam`: checked, not used.
    pub dhparam: Option<Located<PathBuf>>,
    /// `ssl_session_cache`.
    pub session_cache: SessionCache,
    /// `ssl_session_timeout`, seven days at most.
    pub session_timeout: Duration,
    /// `ssl_session_tickets`.
    pub session_tickets: bool,
    /// `ssl_session_ticket_key`: files, the one that seals first; none for keys of our own.
    pub ticket_keys: Vec<Located<PathBuf>>,
    /// `NumTickets`: how many tickets a handshake of TLS 1.3 sends.
    pub ticket_count: usize,
    /// `ssl_stapling`; none when it is off.
    pub stapling: Option<Stapling>,
    /// `ssl_reject_handshake`.
    pub reject_handshake: bool,
    /// `ssl_buffer_size`, bytes: the largest record that we send.
    pub buffer_size: usize,
    /// `ssl_verify_client`.
    pub verify_client: VerifyClient,
    /// `ssl_verify_depth`.
    pub verify_depth: u32,
    /// `ssl_client_certificate`.
    pub client_certificate: Option<Located<PathBuf>>,
    /// `ssl_trusted_certificate`.
    pub trusted_certificate: Option<Located<PathBuf>>,
    /// `ssl_crl`.
    pub crl: Option<Located<PathBuf>>,
}

/// How `ssl_stapling` learns what a CA says of a certificate.
#[derive(Clone, Debug)]
pub struct Stapling {
    /// Where it was switched on.
    pub span: Span,
    /// `ssl_stapling_file`: nobody is asked.
    pub file: Option<Located<PathBuf>>,
    /// `ssl_stapling_responder`.
    pub responder: Option<Located<Box<[u8]>>>,
    /// `ssl_stapling_verify`.
    pub verify: bool,
}

/// Protocol versions; those that we do not have are named by `-t`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsProtocols {
    /// TLS 1.2.
    pub tls12: bool,
    /// TLS 1.3.
    pub tls13: bool,
}

/// `ssl_verify_client`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerifyClient {
    /// Not asked for.
    Off,
    /// Required.
    On,
    /// Verified when sent.
    Optional,
    /// Taken when sent, not verified against a CA.
    OptionalNoCa,
}

impl ServerTls {
    /// Whether it has any certificate.
    pub fn has_certificates(&self) -> bool {
        !self.certificates.is_empty() || !self.variable_certificates.is_empty() || self.acme
    }
}

/// Reads `ssl`, which nginx has given up.
fn old_ssl(reading: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<bool> {
    let on = flag(reading, directive)?;
    if on {
        let message =
            "the \"ssl\" directive is deprecated, use the \"listen ... ssl\" directive instead";
        reading.report.push(Diagnostic::warning(message).at(directive.head(), ""));
    }
    Ok(on)
}

fn watch(reading: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<Option<Duration>> {
    if directive.args[0].is("off") {
        return Ok(None);
    }
    let every = seconds(reading, directive)?;
    match every.is_zero() {
        true => Err(invalid_value(&directive.args[0]).help("e.g. `1m`, or `off`")),
        false => Ok(Some(every)),
    }
}

/// "Servers MUST NOT use any value greater than 604800 seconds (7 days)" (RFC 8446 §4.6.1).
const LONGEST_SESSION: Duration = Duration::from_secs(604_800);

fn session_timeout(reading: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<Duration> {
    let timeout = seconds(reading, directive)?;
    if timeout > LONGEST_SESSION {
        let message = "TLS sessions are resumed for 7 days at most";
        reading.report.push(Diagnostic::information(message).at(directive.args[0].span, ""));
    }
    Ok(timeout.min(LONGEST_SESSION))
}

/// Reads the groups of `ssl_ecdh_curve`; none for `auto`.
fn curves(_: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<Vec<Located<Box<[u8]>>>> {
    group_names(&directive.args[0])
}

/// Names of groups between colons; none for `auto`.
fn group_names(word: &Word) -> Reads<Vec<Located<Box<[u8]>>>> {
    if word.is("auto") {
        return Ok(Vec::<Located<Box<[u8]>>>::new());
    }
    let names = word.value.split(|&byte| byte == b':').filter(|name| !name.is_empty());
    let names: Vec<_> =
        names.map(|name| Located { value: Box::<[u8]>::from(name), span: word.span }).collect();
    if names.is_empty() { Err(invalid_value(word)) } else { Ok(names) }
}

/// Reads protocol versions; those before TLS 1.2 are not there, which is noted.
pub(crate) fn protocols(
    reading: &mut Reading<'_>,
    directive: &syntax::Directive,
) -> Reads<TlsProtocols> {
    let mut protocols = TlsProtocols { tls12: false, tls13: false };
    let mut old = Vec::new();
    for word in &directive.args {
        match word.value.to_ascii_lowercase().as_slice() {
            b"tlsv1.2" => set_once(reading, &mut protocols.tls12, word),
            b"tlsv1.3" => set_once(reading, &mut protocols.tls13, word),
            b"sslv2" | b"sslv3" | b"tlsv1" | b"tlsv1.1" => old.push(word),
            _ => return Err(invalid_value(word).help("e.g. `TLSv1.2 TLSv1.3`")),
        }
    }
    if let Some(first) = old.first() {
        let names: Vec<_> = old.iter().map(ToString::to_string).collect();
        let are = if old.len() == 1 { "is" } else { "are" };
        let names = names.join(", ");
        let message =
            format!("{names} {are} not supported: TLSv1.2 is the oldest supported version");
        reading.report.push(Diagnostic::idle(names, message).at(first.span, ""));
    }
    if !protocols.tls12 && !protocols.tls13 {
        let message = format!("\"{}\" enables no supported protocol", directive.name);
        return Err(Diagnostic::error(message)
            .at(directive.head(), "")
            .help("add `TLSv1.2 TLSv1.3`"));
    }
    Ok(protocols)
}

fn verify_client(_: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<VerifyClient> {
    let choices = [
        ("off", VerifyClient::Off),
        ("on", VerifyClient::On),
        ("optional", VerifyClient::Optional),
        ("optional_no_ca", VerifyClient::OptionalNoCa),
    ];
    one_of(&directive.args[0], &choices)
}

pub(crate) fn server_tls(reading: &mut Reading<'_>, scope: &Scope<'_, '_>) -> ServerTls {
    let chains = scope.all(&SSL_CERTIFICATE);
    let mut keys = scope.all(&SSL_CERTIFICATE_KEY);
    if keys.len() < chains.len() {
        let chain = &chains[chains.len() - 1].path;
        let path = printable(chain.value.as_os_str().as_encoded_bytes());
        let message = format!("no \"ssl_certificate_key\" is defined for certificate \"{path}\"");
        reading.error(message, chain.span);
        // Said once is enough: elsewhere the server counts as one that has certificates.
        keys.extend_from_slice(&chains[keys.len()..]);
    }
    key_file::check_acme(reading, &chains, &keys);
    let pairs = key_file::pairs(chains, keys);
    let mut tls = ServerTls {
        certificates: pairs.fixed,
        variable_certificates: pairs.variable,
        acme: pairs.acme,
        certificate_compression: scope.get(&SSL_CERTIFICATE_COMPRESSION),
        certificate_watch: scope.get(&SSL_CERTIFICATE_WATCH),
        certificate_cache: scope.get(&SSL_CERTIFICATE_CACHE),
        password_file: scope.maybe(&SSL_PASSWORD_FILE),
        protocols: union(&scope.all(&SSL_PROTOCOLS)),
        ciphers: scope.get(&SSL_CIPHERS),
        ciphersuites: None,
        prioritize_chacha: false,
        ticket_count: 1,
        prefer_server_ciphers: scope.get(&SSL_PREFER_SERVER_CIPHERS),
        ecdh_curves: scope.get(&SSL_ECDH_CURVE),
        dhparam: scope.maybe(&SSL_DHPARAM),
        session_cache: scope.get(&SSL_SESSION_CACHE),
        session_timeout: scope.get(&SSL_SESSION_TIMEOUT),
        session_tickets: scope.get(&SSL_SESSION_TICKETS),
        ticket_keys: scope.all(&SSL_SESSION_TICKET_KEY),
        stapling: scope.get(&SSL_STAPLING).then(|| stapling(reading.nowhere, scope)),
        reject_handshake: scope.get(&SSL_REJECT_HANDSHAKE),
        buffer_size: scope.count(&SSL_BUFFER_SIZE),
        verify_client: scope.get(&SSL_VERIFY_CLIENT),
        verify_depth: scope.small(&SSL_VERIFY_DEPTH),
        client_certificate: scope.maybe(&SSL_CLIENT_CERTIFICATE),
        trusted_certificate: scope.maybe(&SSL_TRUSTED_CERTIFICATE),
        crl: scope.maybe(&SSL_CRL),
    };
    for command in scope.all(&SSL_CONF_COMMAND) {
        command.apply_to_server(reading, &mut tls);
    }
    check_client_verification(reading, &tls, scope);
    tls
}

fn stapling(nowhere: Span, scope: &Scope<'_, '_>) -> Stapling {
    Stapling {
        span: scope.written_at(&SSL_STAPLING, nowhere).unwrap_or(nowhere),
        file: scope.maybe(&SSL_STAPLING_FILE),
        responder: scope.maybe(&SSL_STAPLING_RESPONDER),
        verify: scope.get(&SSL_STAPLING_VERIFY),
    }
}

/// Who asks for certificates must say which CAs count; only servers that speak TLS are asked.
fn check_client_verification(reading: &mut Reading<'_>, tls: &ServerTls, scope: &Scope<'_, '_>) {
    let speaks = tls.has_certificates() || tls.reject_handshake;
    let verifies = matches!(tls.verify_client, VerifyClient::On | VerifyClient::Optional);
    let knows = tls.client_certificate.is_some() || tls.trusted_certificate.is_some();
    if speaks && verifies && !knows {
        let message = "no ssl_client_certificate or ssl_trusted_certificate for ssl_verify_client";
        let problem = Diagnostic::error(message);
        let written = scope.written_at(&SSL_VERIFY_CLIENT, reading.nowhere);
        reading.report.push(match written {
            Some(span) => problem.at(span, ""),
            None => problem,
        });
    }
}

/// Versions of several lines, taken together.
pub(crate) fn union(lines: &[TlsProtocols]) -> TlsProtocols {
    TlsProtocols {
        tls12: lines.iter().any(|line| line.tls12),
        tls13: lines.iter().any(|line| line.tls13),
    }
}
