//! TLS towards clients.

use wssgate_syntax::{Diagnostic, Directive, Word};

use crate::directive::Arity::{AtLeast, Between, Exactly, Flag};
use crate::directive::{HS, Row, Value, works};
use crate::model::{Located, SessionCache, TlsProtocols, VerifyClient};
use crate::read::{
    Reading, Reads, conf_path, flag, has_variables, invalid_value, located_text, number, one_of,
    parameter, seconds, size,
};
use crate::value;

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
        "How many intermediates may stand between a client certificate and a root; six at the most.",
        number,
    ),
];

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

/// Sessions that fit into a mebibyte, by nginx's documentation.
const SESSIONS_PER_MIB: u64 = 4000;
/// Sessions of OpenSSL's own cache when no number is given.
const BUILTIN_SESSIONS: usize = 20 * 1024;

fn session_cache(_: &mut Reading<'_>, directive: &Directive) -> Reads {
    let mut cache = SessionCache::None;
    for word in &directive.args {
        if word.is("off") {
            cache = SessionCache::Off;
        } else if word.is("none") {
            cache = SessionCache::None;
        } else if let Some(text) = parameter(word, "shared:") {
            cache = shared_cache(word, text)?;
        } else if word.is("builtin") || parameter(word, "builtin:").is_some() {
            let sessions = match parameter(word, "builtin:") {
                None => BUILTIN_SESSIONS,
                Some(text) => value::number(text).ok_or_else(|| invalid_cache(word))? as usize,
            };
            // `builtin … shared:…` keeps both; what they share is what can be found.
            if !matches!(cache, SessionCache::Shared { .. }) {
                cache = SessionCache::Shared { name: Box::default(), sessions };
            }
        } else {
            return Err(invalid_cache(word));
        }
    }
    Ok(Value::new(cache))
}

fn invalid_cache(word: &Word) -> Diagnostic {
    Diagnostic::error(format!("invalid session cache \"{word}\""))
        .at(word.span, "e.g. `shared:SSL:10m`")
}

fn shared_cache(word: &Word, text: &[u8]) -> Result<SessionCache, Diagnostic> {
    let colon = text
        .iter()
        .position(|&byte| byte == b':')
        .filter(|&at| at > 0)
        .ok_or_else(|| invalid_cache(word))?;
    let (name, size) =
        (&text[..colon], value::size(&text[colon + 1..]).ok_or_else(|| invalid_cache(word))?);
    if size < 8 * 4096 {
        return Err(
            Diagnostic::error(format!("session cache \"{word}\" is too small")).at(word.span, "")
        );
    }
    Ok(SessionCache::Shared {
        name: name.into(),
        sessions: ((size * SESSIONS_PER_MIB) >> 20) as usize,
    })
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
