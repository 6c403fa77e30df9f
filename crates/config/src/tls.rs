//! TLS towards clients.

pub(crate) mod session_cache;

use std::path::PathBuf;
use std::time::Duration;

use wssgate_syntax::{Diagnostic, Directive, Word, printable};

use crate::directive::Arity::{AtLeast, Between, Exactly, Flag};
use crate::directive::{HS, Row, Value, works};
use crate::read::{
    Reading, Reads, conf_path, flag, has_variables, invalid_value, located_text, number, one_of,
    seconds, size,
};
use crate::resolve::Resolver;
use crate::scope::Scope;
use crate::tls::session_cache::{SessionCache, session_cache};
use crate::value::Located;

/// The rows.
pub(crate) const ROWS: &[Row] = &[
    works("ssl_buffer_size", HS, Exactly(1), "16k", "Bounds the TLS records that we send.", size),
    works(
        "ssl_certificate",
        HS,
        Exactly(1),
        "",
        "The certificate chain of a server, in PEM.",
        key_file,
    )
    .many(),
    works(
        "ssl_certificate_key",
        HS,
        Exactly(1),
        "",
        "The private key of a certificate, in PEM.",
        key_file,
    )
    .many(),
    works(
        "ssl_ciphers",
        HS,
        Exactly(1),
        "HIGH:!aNULL:!MD5",
        "Cipher suites in OpenSSL's words.",
        located_text,
    ),
    works(
        "ssl_client_certificate",
        HS,
        Exactly(1),
        "",
        "CAs of client certificates; their names are sent.",
        conf_path,
    ),
    works("ssl_crl", HS, Exactly(1), "", "Revoked client certificates.", conf_path),
    works(
        "ssl_dhparam",
        HS,
        Exactly(1),
        "",
        "Checked but not used: there are no DHE cipher suites.",
        conf_path,
    ),
    works(
        "ssl_ecdh_curve",
        HS,
        Exactly(1),
        "auto",
        "Key exchange groups, separated by colons.",
        curves,
    ),
    works(
        "ssl_password_file",
        HS,
        Exactly(1),
        "",
        "Passphrases of private keys, one a line; each is tried. Keys are PKCS#8 with AES.",
        conf_path,
    ),
    works(
        "ssl_prefer_server_ciphers",
        HS,
        Flag,
        "off",
        "Lets our order of cipher suites decide.",
        flag,
    ),
    works("ssl_protocols", HS, AtLeast(1), "TLSv1.2 TLSv1.3", "Protocol versions.", protocols)
        .many(),
    works(
        "ssl_reject_handshake",
        HS,
        Flag,
        "off",
        "Refuses handshakes with this server's names.",
        flag,
    ),
    works(
        "ssl_session_cache",
        HS,
        Between(1, 2),
        "none",
        "Where sessions are kept for resumption.",
        session_cache,
    ),
    works(
        "ssl_session_ticket_key",
        HS,
        Exactly(1),
        "",
        "Key of session tickets, for several machines.",
        conf_path,
    )
    .many(),
    works("ssl_session_tickets", HS, Flag, "on", "Allows resumption with session tickets.", flag),
    works(
        "ssl_session_timeout",
        HS,
        Exactly(1),
        "5m",
        "How long a session may be resumed.",
        seconds,
    ),
    works(
        "ssl_trusted_certificate",
        HS,
        Exactly(1),
        "",
        "CAs of client certificates; not sent.",
        conf_path,
    ),
    works(
        "ssl_verify_client",
        HS,
        Exactly(1),
        "off",
        "Whether clients must show a certificate.",
        verify_client,
    ),
    works(
        "ssl_verify_depth",
        HS,
        Exactly(1),
        "1",
        "Bounds the chain of client certificates.",
        number,
    ),
];

/// The `ssl_*` directives of a server.
#[derive(Clone, Debug)]
pub struct ServerTls {
    /// Certificate chain and key files, in pairs.
    pub certificates: Vec<CertificateFiles>,
    /// `ssl_password_file`: one passphrase a line.
    pub password_file: Option<Located<PathBuf>>,
    /// `ssl_protocols`.
    pub protocols: TlsProtocols,
    /// `ssl_ciphers`, an OpenSSL cipher string.
    pub ciphers: Located<Box<[u8]>>,
    /// `ssl_prefer_server_ciphers`.
    pub prefer_server_ciphers: bool,
    /// `ssl_ecdh_curve`: groups, in order; empty for `auto`.
    pub ecdh_curves: Vec<Located<Box<[u8]>>>,
    /// `ssl_dhparam`: checked, not used.
    pub dhparam: Option<Located<PathBuf>>,
    /// `ssl_session_cache`.
    pub session_cache: SessionCache,
    /// `ssl_session_timeout`.
    pub session_timeout: Duration,
    /// `ssl_session_tickets`.
    pub session_tickets: bool,
    /// `ssl_session_ticket_key` files.
    pub ticket_keys: Vec<Located<PathBuf>>,
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

/// One `ssl_certificate` with its `ssl_certificate_key`.
#[derive(Clone, Debug)]
pub struct CertificateFiles {
    /// The chain in PEM, leaf first; relative paths are below the configuration's directory.
    pub chain: Located<PathBuf>,
    /// The private key in PEM.
    pub key: Located<PathBuf>,
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

/// Reads the path of a certificate or key, which may not be anything but a file.
pub(crate) fn key_file(reading: &mut Reading<'_>, directive: &Directive) -> Reads {
    let word = &directive.args[0];
    let refuse = |what: &str, help: &str| {
        let message = format!("{what} in \"{}\" are not supported", directive.name);
        Err(Diagnostic::error(message).at(word.span, "").help(help))
    };
    if has_variables(word) {
        return refuse("variables", "write one `server` with its certificate for each name");
    }
    if ["data:", "engine:", "store:"].iter().any(|scheme| word.value.starts_with(scheme.as_bytes()))
    {
        return refuse(
            "keys outside of files",
            "write the key into a file that only root can read",
        );
    }
    conf_path(reading, directive)
}

/// Reads the groups of `ssl_ecdh_curve`; none for `auto`.
fn curves(_: &mut Reading<'_>, directive: &Directive) -> Reads {
    let word = &directive.args[0];
    if word.is("auto") {
        return Ok(Value::new(Vec::<Located<Box<[u8]>>>::new()));
    }
    let names = word.value.split(|&byte| byte == b':').filter(|name| !name.is_empty());
    let names: Vec<_> =
        names.map(|name| Located { value: Box::<[u8]>::from(name), span: word.span }).collect();
    if names.is_empty() { Err(invalid_value(word)) } else { Ok(Value::new(names)) }
}

/// Reads protocol versions; those before TLS 1.2 are not there, which is noted.
pub(crate) fn protocols(reading: &mut Reading<'_>, directive: &Directive) -> Reads {
    let mut protocols = TlsProtocols { tls12: false, tls13: false };
    for word in &directive.args {
        match word.value.to_ascii_lowercase().as_slice() {
            b"tlsv1.2" => set(reading, &mut protocols.tls12, word),
            b"tlsv1.3" => set(reading, &mut protocols.tls13, word),
            b"sslv2" | b"sslv3" | b"tlsv1" | b"tlsv1.1" => {
                let message =
                    format!("{word} is not offered: TLSv1.2 is the oldest version there is");
                reading.report.push(Diagnostic::information(message).at(word.span, ""));
            }
            _ => return Err(invalid_value(word).help("e.g. `TLSv1.2 TLSv1.3`")),
        }
    }
    if !protocols.tls12 && !protocols.tls13 {
        let message = format!("\"{}\" leaves no protocol that is supported", directive.name);
        return Err(Diagnostic::error(message)
            .at(directive.head(), "")
            .help("add `TLSv1.2 TLSv1.3`"));
    }
    Ok(Value::new(protocols))
}

fn set(reading: &mut Reading<'_>, version: &mut bool, word: &Word) {
    if std::mem::replace(version, true) {
        let message = format!("duplicate value \"{word}\"");
        reading.report.push(Diagnostic::warning(message).at(word.span, ""));
    }
}

fn verify_client(_: &mut Reading<'_>, directive: &Directive) -> Reads {
    let choices = [
        ("off", VerifyClient::Off),
        ("on", VerifyClient::On),
        ("optional", VerifyClient::Optional),
        ("optional_no_ca", VerifyClient::OptionalNoCa),
    ];
    one_of(&directive.args[0], &choices).map(Value::new)
}

impl Resolver<'_, '_> {
    pub(crate) fn server_tls(&mut self, scope: &Scope<'_, '_>) -> ServerTls {
        let chains: Vec<Located<PathBuf>> = scope.all("ssl_certificate");
        let mut keys: Vec<Located<PathBuf>> = scope.all("ssl_certificate_key");
        if keys.len() < chains.len() {
            let chain = &chains[chains.len() - 1];
            let path = printable(chain.value.as_os_str().as_encoded_bytes());
            let message =
                format!("no \"ssl_certificate_key\" is defined for certificate \"{path}\"");
            self.error(message, chain.span);
            // Said once is enough: elsewhere the server counts as one that has certificates.
            keys.extend_from_slice(&chains[keys.len()..]);
        }
        let protocols = scope.all::<TlsProtocols>("ssl_protocols");
        let tls = ServerTls {
            certificates: chains
                .into_iter()
                .zip(keys)
                .map(|(chain, key)| CertificateFiles { chain, key })
                .collect(),
            password_file: scope.maybe("ssl_password_file"),
            protocols: union(&protocols),
            ciphers: scope.one("ssl_ciphers"),
            prefer_server_ciphers: scope.one("ssl_prefer_server_ciphers"),
            ecdh_curves: scope.one("ssl_ecdh_curve"),
            dhparam: scope.maybe("ssl_dhparam"),
            session_cache: scope.one("ssl_session_cache"),
            session_timeout: scope.one("ssl_session_timeout"),
            session_tickets: scope.one("ssl_session_tickets"),
            ticket_keys: scope.all("ssl_session_ticket_key"),
            reject_handshake: scope.one("ssl_reject_handshake"),
            buffer_size: scope.count("ssl_buffer_size"),
            verify_client: scope.one("ssl_verify_client"),
            verify_depth: scope.small("ssl_verify_depth"),
            client_certificate: scope.maybe("ssl_client_certificate"),
            trusted_certificate: scope.maybe("ssl_trusted_certificate"),
            crl: scope.maybe("ssl_crl"),
        };
        self.check_client_verification(&tls, scope);
        tls
    }

    /// Who asks for certificates must say which CAs count; only servers that speak TLS are asked.
    fn check_client_verification(&mut self, tls: &ServerTls, scope: &Scope<'_, '_>) {
        let speaks = !tls.certificates.is_empty() || tls.reject_handshake;
        let verifies = matches!(tls.verify_client, VerifyClient::On | VerifyClient::Optional);
        let knows = tls.client_certificate.is_some() || tls.trusted_certificate.is_some();
        if speaks && verifies && !knows {
            let message =
                "no ssl_client_certificate or ssl_trusted_certificate for ssl_verify_client";
            let mut problem = Diagnostic::error(message);
            let written = scope.nearest(&["ssl_verify_client"]);
            if let Some(entry) =
                written.and_then(|found| found.level.named("ssl_verify_client").next())
            {
                problem = problem.at(entry.directive.head(), "");
            }
            self.reading.report.push(problem);
        }
    }
}

/// Versions of several lines, taken together.
pub(crate) fn union(lines: &[TlsProtocols]) -> TlsProtocols {
    TlsProtocols {
        tls12: lines.iter().any(|line| line.tls12),
        tls13: lines.iter().any(|line| line.tls13),
    }
}
