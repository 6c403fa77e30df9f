//! `proxy_ssl_…`: TLS towards upstreams.

use std::path::PathBuf;

use wssgate_syntax::Directive;

use crate::directive::Arity::{AtLeast, Exactly, Flag};
use crate::directive::{HSL, Row, Value, works};
use crate::read::{Reading, Reads, conf_path, flag, located_text, number, template};
use crate::resolve::Resolver;
use crate::scope::Scope;
use crate::template::Template;
use crate::tls::{TlsProtocols, key_file, protocols, union};
use crate::value::Located;

/// The rows.
pub(crate) const ROWS: &[Row] = &[
    works(
        "proxy_ssl_certificate",
        HSL,
        Exactly(1),
        "",
        "Our certificate towards upstreams; empty for none.",
        own_key_file,
    ),
    works(
        "proxy_ssl_certificate_key",
        HSL,
        Exactly(1),
        "",
        "The key of that certificate.",
        own_key_file,
    ),
    works(
        "proxy_ssl_ciphers",
        HSL,
        Exactly(1),
        "DEFAULT",
        "Cipher suites towards upstreams.",
        located_text,
    ),
    works("proxy_ssl_crl", HSL, Exactly(1), "", "Revoked upstream certificates.", conf_path),
    works(
        "proxy_ssl_name",
        HSL,
        Exactly(1),
        "",
        "The name that upstream certificates must have.",
        template,
    ),
    works(
        "proxy_ssl_password_file",
        HSL,
        Exactly(1),
        "",
        "Passphrases of that key, one a line; each is tried.",
        conf_path,
    ),
    works(
        "proxy_ssl_protocols",
        HSL,
        AtLeast(1),
        "TLSv1.2 TLSv1.3",
        "Protocol versions towards upstreams.",
        protocols,
    )
    .many(),
    works(
        "proxy_ssl_server_name",
        HSL,
        Flag,
        "off",
        "Sends the upstream's name in the handshake.",
        flag,
    ),
    works("proxy_ssl_session_reuse", HSL, Flag, "on", "Resumes sessions with upstreams.", flag),
    works(
        "proxy_ssl_trusted_certificate",
        HSL,
        Exactly(1),
        "",
        "CAs of upstream certificates.",
        conf_path,
    ),
    works("proxy_ssl_verify", HSL, Flag, "off", "Verifies upstream certificates.", flag),
    works(
        "proxy_ssl_verify_depth",
        HSL,
        Exactly(1),
        "1",
        "Bounds the chain of upstream certificates.",
        number,
    ),
];

/// `proxy_ssl_*`.
#[derive(Clone, Debug)]
pub struct ProxyTls {
    /// `proxy_ssl_server_name`: send SNI.
    pub server_name: bool,
    /// `proxy_ssl_name`; `$proxy_host` without its port by default.
    pub name: Option<Template>,
    /// `proxy_ssl_verify`.
    pub verify: bool,
    /// `proxy_ssl_verify_depth`.
    pub verify_depth: u32,
    /// `proxy_ssl_trusted_certificate`.
    pub trusted_certificate: Option<Located<PathBuf>>,
    /// `proxy_ssl_crl`.
    pub crl: Option<Located<PathBuf>>,
    /// `proxy_ssl_certificate` and its key, without variables.
    pub certificate: Option<(Located<PathBuf>, Located<PathBuf>)>,
    /// `proxy_ssl_password_file`: one passphrase a line.
    pub password_file: Option<Located<PathBuf>>,
    /// `proxy_ssl_protocols`.
    pub protocols: TlsProtocols,
    /// `proxy_ssl_ciphers`, an OpenSSL cipher string.
    pub ciphers: Located<Box<[u8]>>,
    /// `proxy_ssl_session_reuse`.
    pub session_reuse: bool,
}

/// Reads a certificate or key; `None` for the empty text, which undoes what an outer level says.
fn own_key_file(reading: &mut Reading<'_>, directive: &Directive) -> Reads {
    if directive.args[0].value.is_empty() {
        return Ok(Value::new(None::<Located<PathBuf>>));
    }
    let file = key_file(reading, directive)?;
    Ok(Value::new(file.downcast::<Located<PathBuf>>().cloned()))
}

impl Resolver<'_, '_> {
    pub(crate) fn proxy_tls(&mut self, scope: &Scope<'_, '_>, used: bool) -> ProxyTls {
        let certificate =
            scope.maybe::<Option<Located<PathBuf>>>("proxy_ssl_certificate").flatten();
        let key = scope.maybe::<Option<Located<PathBuf>>>("proxy_ssl_certificate_key").flatten();
        if let (true, Some(certificate), None) = (used, &certificate, &key) {
            let path = certificate.value.display();
            let message =
                format!("no \"proxy_ssl_certificate_key\" is defined for certificate \"{path}\"");
            self.error(message, certificate.span);
        }
        let verify: bool = scope.one("proxy_ssl_verify");
        let trusted_certificate = scope.maybe("proxy_ssl_trusted_certificate");
        if used && verify && trusted_certificate.is_none() {
            let found = scope.nearest(&["proxy_ssl_verify"]);
            let entry = found.and_then(|found| found.level.named("proxy_ssl_verify").next());
            let message = "no proxy_ssl_trusted_certificate for proxy_ssl_verify";
            let span = entry.map_or(self.nowhere, |entry| entry.directive.head());
            self.error(message, span);
        }
        ProxyTls {
            server_name: scope.one("proxy_ssl_server_name"),
            name: scope.maybe("proxy_ssl_name"),
            verify,
            verify_depth: scope.small("proxy_ssl_verify_depth"),
            trusted_certificate,
            crl: scope.maybe("proxy_ssl_crl"),
            certificate: certificate.zip(key),
            password_file: scope.maybe("proxy_ssl_password_file"),
            protocols: union(&scope.all::<TlsProtocols>("proxy_ssl_protocols")),
            ciphers: scope.one("proxy_ssl_ciphers"),
            session_reuse: scope.one("proxy_ssl_session_reuse"),
        }
    }
}
