//! `proxy_ssl_…`: TLS towards upstreams.

use std::path::PathBuf;

use wssgate_syntax as syntax;

use crate::directive::Arity::{AtLeast, Between, Exactly, Flag};
use crate::directive::{AnyDirective, Directive, HSL};
use crate::read::{Reading, Reads, conf_path, flag, located_text, number, template};
use crate::scope::Scope;
use crate::template::Template;
use crate::tls::conf_command::{TlsCommand, conf_command};
use crate::tls::key_file::{
    CertificateCache, KeyFile, Pairs, VariableCertificate, certificate_cache, key_file, pairs,
};
use crate::tls::{TlsProtocols, protocols, union};
use crate::value::Located;

/// The rows.
pub(crate) static ROWS: &[&dyn AnyDirective] = &[
    &PROXY_SSL_CERTIFICATE,
    &PROXY_SSL_CERTIFICATE_CACHE,
    &PROXY_SSL_CERTIFICATE_KEY,
    &PROXY_SSL_CIPHERS,
    &PROXY_SSL_CONF_COMMAND,
    &PROXY_SSL_CRL,
    &PROXY_SSL_NAME,
    &PROXY_SSL_PASSWORD_FILE,
    &PROXY_SSL_PROTOCOLS,
    &PROXY_SSL_SERVER_NAME,
    &PROXY_SSL_SESSION_REUSE,
    &PROXY_SSL_TRUSTED_CERTIFICATE,
    &PROXY_SSL_VERIFY,
    &PROXY_SSL_VERIFY_DEPTH,
];

/// `proxy_ssl_certificate`
pub(crate) static PROXY_SSL_CERTIFICATE: Directive<Option<KeyFile>> = Directive {
    name: "proxy_ssl_certificate",
    contexts: HSL,
    arity: Exactly(1),
    doc: "Sets the client certificate for upstream servers, in PEM; an empty value disables it. A \
          path with variables is read for each connection.",
    ..Directive::once(own_key_file)
};

/// `proxy_ssl_certificate_cache`
pub(crate) static PROXY_SSL_CERTIFICATE_CACHE: Directive<Option<Located<CertificateCache>>> =
    Directive {
        name: "proxy_ssl_certificate_cache",
        contexts: HSL,
        arity: Between(1, 3),
        default: "off",
        doc: "Keeps client certificates and keys whose paths have variables; see \
              `ssl_certificate_cache`.",
        ..Directive::once(certificate_cache)
    };

/// `proxy_ssl_certificate_key`
pub(crate) static PROXY_SSL_CERTIFICATE_KEY: Directive<Option<KeyFile>> = Directive {
    name: "proxy_ssl_certificate_key",
    contexts: HSL,
    arity: Exactly(1),
    doc: "Sets the private key of `proxy_ssl_certificate`, in PEM.",
    ..Directive::once(own_key_file)
};

/// `proxy_ssl_ciphers`
pub(crate) static PROXY_SSL_CIPHERS: Directive<Located<Box<[u8]>>> = Directive {
    name: "proxy_ssl_ciphers",
    contexts: HSL,
    arity: Exactly(1),
    default: "DEFAULT",
    doc: "Sets the cipher suites for connections to upstream servers, in OpenSSL's format.",
    ..Directive::once(located_text)
};

/// `proxy_ssl_conf_command`
pub(crate) static PROXY_SSL_CONF_COMMAND: Directive<TlsCommand> = Directive {
    name: "proxy_ssl_conf_command",
    contexts: HSL,
    arity: Exactly(2),
    doc: "Runs an OpenSSL configuration command for connections to upstream servers; see \
          `ssl_conf_command`.",
    ..Directive::repeated(conf_command)
};

/// `proxy_ssl_crl`
pub(crate) static PROXY_SSL_CRL: Directive<Located<PathBuf>> = Directive {
    name: "proxy_ssl_crl",
    contexts: HSL,
    arity: Exactly(1),
    doc: "Sets the file with revocation lists for the certificates of upstream servers, in PEM.",
    ..Directive::once(conf_path)
};

/// `proxy_ssl_name`
pub(crate) static PROXY_SSL_NAME: Directive<Template> = Directive {
    name: "proxy_ssl_name",
    contexts: HSL,
    arity: Exactly(1),
    doc: "Sets the name that is verified in the certificates of upstream servers and sent with \
          `proxy_ssl_server_name`; by default it is the host of `proxy_pass`.",
    ..Directive::once(template)
};

/// `proxy_ssl_password_file`
pub(crate) static PROXY_SSL_PASSWORD_FILE: Directive<Located<PathBuf>> = Directive {
    name: "proxy_ssl_password_file",
    contexts: HSL,
    arity: Exactly(1),
    doc: "Sets the file with passphrases for `proxy_ssl_certificate_key`, one per line; each is \
          tried in turn.",
    ..Directive::once(conf_path)
};

/// `proxy_ssl_protocols`
pub(crate) static PROXY_SSL_PROTOCOLS: Directive<TlsProtocols> = Directive {
    name: "proxy_ssl_protocols",
    contexts: HSL,
    arity: AtLeast(1),
    default: "TLSv1.2 TLSv1.3",
    doc: "Sets the TLS versions for connections to upstream servers.",
    ..Directive::repeated(protocols)
};

/// `proxy_ssl_server_name`
pub(crate) static PROXY_SSL_SERVER_NAME: Directive<bool> = Directive {
    name: "proxy_ssl_server_name",
    contexts: HSL,
    arity: Flag,
    default: "off",
    doc: "Sends the server name (SNI) to upstream servers.",
    ..Directive::once(flag)
};

/// `proxy_ssl_session_reuse`
pub(crate) static PROXY_SSL_SESSION_REUSE: Directive<bool> = Directive {
    name: "proxy_ssl_session_reuse",
    contexts: HSL,
    arity: Flag,
    default: "on",
    doc: "Resumes TLS sessions with upstream servers.",
    ..Directive::once(flag)
};

/// `proxy_ssl_trusted_certificate`
pub(crate) static PROXY_SSL_TRUSTED_CERTIFICATE: Directive<Located<PathBuf>> = Directive {
    name: "proxy_ssl_trusted_certificate",
    contexts: HSL,
    arity: Exactly(1),
    doc: "Sets the file with trusted CA certificates for upstream servers, in PEM.",
    ..Directive::once(conf_path)
};

/// `proxy_ssl_verify`
pub(crate) static PROXY_SSL_VERIFY: Directive<bool> = Directive {
    name: "proxy_ssl_verify",
    contexts: HSL,
    arity: Flag,
    default: "off",
    doc: "Verifies the certificates of upstream servers.",
    ..Directive::once(flag)
};

/// `proxy_ssl_verify_depth`
pub(crate) static PROXY_SSL_VERIFY_DEPTH: Directive<u64> = Directive {
    name: "proxy_ssl_verify_depth",
    contexts: HSL,
    arity: Exactly(1),
    default: "1",
    doc: "Sets how many intermediate certificates are allowed between the certificate of an \
          upstream server and a root, six at most.",
    ..Directive::once(number)
};

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
    /// The same where a path has variables; an empty path shows no certificate.
    pub variable_certificate: Option<VariableCertificate>,
    /// `proxy_ssl_certificate_cache`: for that.
    pub certificate_cache: Option<Located<CertificateCache>>,
    /// `proxy_ssl_password_file`: one passphrase a line.
    pub password_file: Option<Located<PathBuf>>,
    /// `proxy_ssl_protocols`.
    pub protocols: TlsProtocols,
    /// `proxy_ssl_ciphers`, an OpenSSL cipher string.
    pub ciphers: Located<Box<[u8]>>,
    /// `Ciphersuites` of `proxy_ssl_conf_command`: suites of TLS 1.3, in order.
    pub ciphersuites: Option<Located<Box<[u8]>>>,
    /// `Groups` of `proxy_ssl_conf_command`; empty for all.
    pub groups: Vec<Located<Box<[u8]>>>,
    /// `proxy_ssl_session_reuse`.
    pub session_reuse: bool,
}

/// Reads a certificate or key; `None` for the empty text, which undoes what an outer level says.
fn own_key_file(
    reading: &mut Reading<'_>,
    directive: &syntax::Directive,
) -> Reads<Option<KeyFile>> {
    if directive.args[0].value.is_empty() {
        return Ok(None);
    }
    key_file(reading, directive).map(Some)
}

/// What must be said where TLS is spoken to upstreams.
pub(crate) fn check_tls(reading: &mut Reading<'_>, scope: &Scope<'_, '_>) {
    let key = scope.maybe(&PROXY_SSL_CERTIFICATE_KEY).flatten();
    if let (Some(certificate), None) = (scope.maybe(&PROXY_SSL_CERTIFICATE).flatten(), key) {
        let path = certificate.path.value.display();
        let message =
            format!("no \"proxy_ssl_certificate_key\" is defined for certificate \"{path}\"");
        reading.error(message, certificate.path.span);
    }
    if scope.get(&PROXY_SSL_VERIFY) && scope.maybe(&PROXY_SSL_TRUSTED_CERTIFICATE).is_none() {
        let message = "no proxy_ssl_trusted_certificate for proxy_ssl_verify";
        let written = scope.written_at(&PROXY_SSL_VERIFY, reading.nowhere);
        reading.error(message, written.unwrap_or(reading.nowhere));
    }
}

/// What applies on a level.
pub(crate) fn proxy_tls(reading: &mut Reading<'_>, scope: &Scope<'_, '_>) -> ProxyTls {
    let certificate = scope.maybe(&PROXY_SSL_CERTIFICATE).flatten();
    let key = scope.maybe(&PROXY_SSL_CERTIFICATE_KEY).flatten();
    let Pairs { fixed, variable, .. } =
        pairs(certificate.into_iter().collect(), key.into_iter().collect());
    let mut tls = ProxyTls {
        server_name: scope.get(&PROXY_SSL_SERVER_NAME),
        name: scope.maybe(&PROXY_SSL_NAME),
        verify: scope.get(&PROXY_SSL_VERIFY),
        verify_depth: scope.small(&PROXY_SSL_VERIFY_DEPTH),
        trusted_certificate: scope.maybe(&PROXY_SSL_TRUSTED_CERTIFICATE),
        crl: scope.maybe(&PROXY_SSL_CRL),
        certificate: fixed.into_iter().next().map(|files| (files.chain, files.key)),
        variable_certificate: variable.into_iter().next(),
        certificate_cache: scope.get(&PROXY_SSL_CERTIFICATE_CACHE),
        password_file: scope.maybe(&PROXY_SSL_PASSWORD_FILE),
        protocols: union(&scope.all(&PROXY_SSL_PROTOCOLS)),
        ciphers: scope.get(&PROXY_SSL_CIPHERS),
        ciphersuites: None,
        groups: Vec::new(),
        session_reuse: scope.get(&PROXY_SSL_SESSION_REUSE),
    };
    for command in scope.all(&PROXY_SSL_CONF_COMMAND) {
        command.apply_to_proxy(reading, &mut tls);
    }
    tls
}
