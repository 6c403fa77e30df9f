//! `ssl_conf_command` and `proxy_ssl_conf_command`: OpenSSL's configuration commands, as far as they
//! have a meaning here.

use std::path::PathBuf;

use wssgate_syntax::{self as syntax, Diagnostic, Word};

use super::{ServerTls, TlsProtocols, group_names};
use crate::proxy::tls::ProxyTls;
use crate::read::{Reading, Reads};
use crate::tls::key_file::CertificateFiles;
use crate::value::{self, Located};

/// One command.
#[derive(Clone)]
pub(crate) enum TlsCommand {
    /// `Ciphersuites`.
    Ciphersuites(Located<Box<[u8]>>),
    /// `CipherString`.
    CipherString(Located<Box<[u8]>>),
    /// `Groups` or `Curves`.
    Groups(Vec<Located<Box<[u8]>>>),
    /// `MinProtocol` or `MaxProtocol`: the versions that it leaves, and where it was written.
    Protocols(Located<TlsProtocols>),
    /// `Options`: those that have a meaning.
    Options(Vec<(TlsOption, bool)>),
    /// `Certificate`.
    Certificate(Located<PathBuf>),
    /// `PrivateKey`.
    PrivateKey(Located<PathBuf>),
    /// `NumTickets`.
    NumTickets(usize),
}

/// An option that changes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TlsOption {
    /// Sessions are resumed with tickets.
    SessionTicket,
    /// The server's order of suites counts.
    ServerPreference,
    /// Unless the client's first one is ChaCha20.
    PrioritizeChaCha,
}

/// Options with which nothing is otherwise here, in lower case.
const IDLE: [&str; 15] = [
    "antireplay",
    "bugs",
    "dhsingle",
    "ecdhsingle",
    "emptyfragments",
    "encryptthenmac",
    "extendedmastersecret",
    "ktls",
    "middleboxcompat",
    "norenegotiation",
    "noresumptiononrenegotiation",
    "prefernodhekex",
    "rxcertificatecompression",
    "strictcertcheck",
    "txcertificatecompression",
];

/// Options that would weaken something that is always strong here; turning them off asks for nothing.
const UNSAFE: [&str; 4] =
    ["allownodhekex", "compression", "unsafelegacyrenegotiation", "unsafelegacyserverconnect"];

/// Commands that are refused, in lower case, and what to write instead.
const REFUSED: [(&str, &str); 10] = [
    ("chaincafile", "append the intermediate certificates to `ssl_certificate`"),
    ("clientcafile", "use `ssl_client_certificate`"),
    ("clientsignaturealgorithms", "remove the line: signature algorithms are not configurable"),
    ("protocol", "use `ssl_protocols`, or `MinProtocol` and `MaxProtocol`"),
    ("recordpadding", "remove the line: records are not padded"),
    ("requestcafile", "use `ssl_client_certificate`"),
    ("serverinfofile", "remove the line: there are no further extensions"),
    ("signaturealgorithms", "remove the line: signature algorithms are not configurable"),
    ("verifycafile", "use `ssl_trusted_certificate`"),
    ("verifymode", "use `ssl_verify_client`"),
];

/// Reads a command; its name counts without letter case, as in files of OpenSSL.
pub(crate) fn conf_command(
    reading: &mut Reading<'_>,
    directive: &syntax::Directive,
) -> Reads<TlsCommand> {
    let [name, word] = &directive.args[..] else {
        unreachable!("the row asks for two arguments");
    };
    let text = || Located { value: word.value.clone(), span: word.span };
    let path = || Located { value: reading.paths.below_conf(&word.value), span: word.span };
    Ok(match name.value.to_ascii_lowercase().as_slice() {
        b"ciphersuites" => TlsCommand::Ciphersuites(text()),
        b"cipherstring" => TlsCommand::CipherString(text()),
        b"groups" | b"curves" => TlsCommand::Groups(group_names(word)?),
        b"minprotocol" => protocols(directive, word, |version| TlsProtocols {
            tls12: version <= 12,
            tls13: version <= 13,
        })?,
        b"maxprotocol" => protocols(directive, word, |version| TlsProtocols {
            tls12: version == 0 || version >= 12,
            tls13: version == 0 || version >= 13,
        })?,
        b"options" => TlsCommand::Options(options(reading, directive, word)?),
        b"certificate" => TlsCommand::Certificate(path()),
        b"privatekey" => TlsCommand::PrivateKey(path()),
        b"numtickets" => {
            let count = value::number(&word.value).and_then(|count| usize::try_from(count).ok());
            let count = count.filter(|&count| count <= MAX_TICKETS);
            TlsCommand::NumTickets(count.ok_or_else(|| failed(directive, "invalid number"))?)
        }
        other => {
            let known = REFUSED.iter().find(|(name, _)| name.as_bytes() == other);
            let problem = failed(directive, "the command is not supported");
            return Err(problem.maybe_help(known.map(|(_, help)| (*help).to_owned())));
        }
    })
}

/// More tickets than that no client has a use for.
const MAX_TICKETS: usize = 16;

fn failed(directive: &syntax::Directive, why: &str) -> Diagnostic {
    let (name, value) = (&directive.args[0], &directive.args[1]);
    let message = format!("SSL_CONF_cmd(\"{name}\", \"{value}\") failed: {why}");
    Diagnostic::error(message).at(directive.head(), "")
}

/// Reads a version, 12 for TLS 1.2; 0 for none, which limits nothing.
fn protocols(
    directive: &syntax::Directive,
    word: &Word,
    left: impl FnOnce(u8) -> TlsProtocols,
) -> Reads<TlsCommand> {
    let version = match word.value.to_ascii_lowercase().as_slice() {
        b"none" => 0,
        b"sslv3" => 3,
        b"tlsv1" | b"tlsv1.0" => 10,
        b"tlsv1.1" => 11,
        b"tlsv1.2" => 12,
        b"tlsv1.3" => 13,
        _ => return Err(failed(directive, "unknown protocol version")),
    };
    Ok(TlsCommand::Protocols(Located { value: left(version), span: directive.head() }))
}

/// Reads a list such as `-SessionTicket,PrioritizeChaCha`.
fn options(
    reading: &mut Reading<'_>,
    directive: &syntax::Directive,
    word: &Word,
) -> Reads<Vec<(TlsOption, bool)>> {
    let mut options = Vec::new();
    for written in word.value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
        let (on, name) = match written {
            [b'-', name @ ..] => (false, name),
            [b'+', name @ ..] => (true, name),
            name => (true, name),
        };
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        match &*name {
            "sessionticket" => options.push((TlsOption::SessionTicket, on)),
            "serverpreference" => options.push((TlsOption::ServerPreference, on)),
            "prioritizechacha" => options.push((TlsOption::PrioritizeChaCha, on)),
            idle if IDLE.contains(&idle) || (!on && UNSAFE.contains(&idle)) => {
                let shown = wssgate_syntax::printable(written);
                let message =
                    format!("option \"{shown}\" has no effect: OpenSSL is not used for TLS");
                reading.report.push(
                    Diagnostic::idle(format!("{shown} of ssl_conf_command"), message)
                        .at(word.span, ""),
                );
            }
            name if UNSAFE.contains(&name) => {
                return Err(failed(directive, "this would weaken TLS, which is not possible here"));
            }
            _ => return Err(failed(directive, "unknown option")),
        }
    }
    Ok(options)
}

impl TlsCommand {
    /// Changes what the directives of a server say.
    pub(super) fn apply_to_server(self, reading: &mut Reading<'_>, tls: &mut ServerTls) {
        match self {
            Self::Ciphersuites(text) => tls.ciphersuites = Some(text),
            Self::CipherString(text) => tls.ciphers = text,
            Self::Groups(groups) => tls.ecdh_curves = groups,
            Self::Protocols(left) => limit(reading, &mut tls.protocols, &left),
            Self::Options(options) => {
                for (option, on) in options {
                    match option {
                        TlsOption::SessionTicket => tls.session_tickets = on,
                        TlsOption::ServerPreference => tls.prefer_server_ciphers = on,
                        TlsOption::PrioritizeChaCha => tls.prioritize_chacha = on,
                    }
                }
            }
            // It takes the place of the first one, with the key that it has until another is named.
            Self::Certificate(chain) => {
                let key = tls
                    .certificates
                    .first()
                    .map_or_else(|| chain.clone(), |files| files.key.clone());
                tls.certificates.drain(..tls.certificates.len().min(1));
                tls.certificates.insert(0, CertificateFiles { chain, key });
                tls.variable_certificates.clear();
            }
            Self::PrivateKey(key) => match tls.certificates.first_mut() {
                Some(files) => files.key = key,
                None => reading.error("\"PrivateKey\" needs a \"Certificate\" before it", key.span),
            },
            Self::NumTickets(count) => tls.ticket_count = count,
        }
    }

    /// Changes what the directives of a location say about TLS to upstreams.
    pub(crate) fn apply_to_proxy(self, reading: &mut Reading<'_>, tls: &mut ProxyTls) {
        match self {
            Self::Ciphersuites(text) => tls.ciphersuites = Some(text),
            Self::CipherString(text) => tls.ciphers = text,
            Self::Groups(groups) => tls.groups = groups,
            Self::Protocols(left) => limit(reading, &mut tls.protocols, &left),
            Self::Options(options) => {
                for (option, on) in options {
                    // The others are about servers.
                    if option == TlsOption::SessionTicket {
                        tls.session_reuse &= on;
                    }
                }
            }
            Self::Certificate(chain) => {
                let key = tls.certificate.take().map_or_else(|| chain.clone(), |(_, key)| key);
                tls.certificate = Some((chain, key));
                tls.variable_certificate = None;
            }
            Self::PrivateKey(key) => match &mut tls.certificate {
                Some(certificate) => certificate.1 = key,
                None => reading.error("\"PrivateKey\" needs a \"Certificate\" before it", key.span),
            },
            Self::NumTickets(_) => {}
        }
    }
}

fn limit(reading: &mut Reading<'_>, protocols: &mut TlsProtocols, left: &Located<TlsProtocols>) {
    protocols.tls12 &= left.value.tls12;
    protocols.tls13 &= left.value.tls13;
    if !protocols.tls12 && !protocols.tls13 {
        reading.error("this leaves no supported protocol version", left.span);
    }
}
