//! `$ssl_*`: what a handshake settled, in nginx's words.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use wssgate_config::variable::Builtin;
use wssgate_http1::{Escape, escape};
use x509_parser::prelude::{ASN1Time, AttributeTypeAndValue, FromDer, X509Certificate, X509Name};

use super::{ClientVerify, TlsInfo};
use crate::tls::{ciphers, group_name};

/// Characters of base64 in a line of PEM (RFC 7468 §2).
const PEM_LINE: usize = 64;

impl TlsInfo {
    /// The value of an `$ssl_*` variable on a TLS connection; `None` for others, and for those
    /// that have none here. `now` is in seconds since the Unix epoch.
    pub fn variable(&self, variable: Builtin, now: i64) -> Option<Bytes> {
        use Builtin as B;
        let text = |text: &str| Some(Bytes::copy_from_slice(text.as_bytes()));
        match variable {
            B::SslProtocol => text(self.protocol),
            B::SslCipher => text(self.cipher),
            B::SslCiphers => text(&joined(&self.offered_ciphers, cipher_name)),
            B::SslCurve => text(&self.curve),
            B::SslCurves => text(&joined(&self.offered_curves, group_name)),
            B::SslServerName => text(self.server_name.as_deref()?),
            B::SslSessionReused => text(if self.reused { "r" } else { "." }),
            B::SslSessionId => text(&hex(self.session_id.bytes())),
            B::SslAlpnProtocol => Some(Bytes::copy_from_slice(self.alpn.as_deref()?)),
            B::SslClientVerify => match &self.client_verify {
                ClientVerify::None => text("NONE"),
                ClientVerify::Success => text("SUCCESS"),
                ClientVerify::Failed(fault) => text(&format!("FAILED:{fault}")),
            },
            _ => client(self.client_certificate.as_deref()?, variable, now).map(Bytes::from),
        }
    }
}

impl TlsInfo {
    /// The first common name in the client's certificate.
    pub fn client_common_name(&self) -> Option<String> {
        let (_, certificate) =
            X509Certificate::from_der(self.client_certificate.as_deref()?).ok()?;
        let name = certificate.subject().iter_common_name().next()?;
        name.as_str().ok().map(str::to_owned)
    }
}

/// The names of what was offered, as nginx lists them.
fn joined<T: Copy>(offered: &[T], name: impl Fn(T) -> String) -> String {
    offered.iter().map(|&one| name(one)).collect::<Vec<_>>().join(":")
}

/// OpenSSL's name of an offered suite, or its number.
fn cipher_name(suite: rustls::CipherSuite) -> String {
    if suite == rustls::CipherSuite::TLS_EMPTY_RENEGOTIATION_INFO_SCSV {
        return "TLS_EMPTY_RENEGOTIATION_INFO_SCSV".to_owned();
    }
    let known = ciphers::openssl_name(suite);
    known.map_or_else(|| format!("0x{:04x}", u16::from(suite)), str::to_owned)
}

/// The variables of a client certificate.
fn client(der: &[u8], variable: Builtin, now: i64) -> Option<Vec<u8>> {
    use Builtin as B;
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let validity = certificate.validity();
    let text = match variable {
        B::SslClientRawCert => pem(der),
        B::SslClientCert => pem(der).trim_end().replace('\n', "\n\t"),
        B::SslClientEscapedCert => {
            let mut escaped = Vec::new();
            escape(&mut escaped, pem(der).as_bytes(), Escape::UriComponent);
            return Some(escaped);
        }
        B::SslClientFingerprint => hex(digest(&SHA1_FOR_LEGACY_USE_ONLY, der).as_ref()),
        B::SslClientSerial => hex(certificate.raw_serial()).to_ascii_uppercase(),
        B::SslClientSDn => rfc2253(certificate.subject()),
        B::SslClientIDn => rfc2253(certificate.issuer()),
        B::SslClientSDnLegacy => legacy(certificate.subject()),
        B::SslClientIDnLegacy => legacy(certificate.issuer()),
        B::SslClientVStart => date(&validity.not_before),
        B::SslClientVEnd => date(&validity.not_after),
        B::SslClientVRemain => {
            let left = validity.not_after.timestamp().saturating_sub(now).max(0);
            (left / 86_400).to_string()
        }
        _ => return None,
    };
    Some(text.into_bytes())
}

fn pem(der: &[u8]) -> String {
    let base64 = BASE64_STANDARD.encode(der);
    let mut text = "-----BEGIN CERTIFICATE-----\n".to_owned();
    let mut rest = &base64[..];
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(PEM_LINE));
        text.push_str(line);
        text.push('\n');
        rest = more;
    }
    text + "-----END CERTIFICATE-----\n"
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// As OpenSSL writes it: `Nov  2 08:00:00 2026 GMT`.
fn date(time: &ASN1Time) -> String {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let time = time.to_datetime();
    format!(
        "{} {:2} {:02}:{:02}:{:02} {} GMT",
        MONTHS[usize::from(u8::from(time.month())) - 1],
        time.day(),
        time.hour(),
        time.minute(),
        time.second(),
        time.year(),
    )
}

/// RFC 2253: the most specific part first, separated by commas.
fn rfc2253(name: &X509Name<'_>) -> String {
    let mut parts: Vec<String> = name
        .iter()
        .map(|set| {
            let attributes: Vec<String> =
                set.iter().map(|one| format!("{}={}", key(one), escaped(&value(one)))).collect();
            attributes.join("+")
        })
        .collect();
    parts.reverse();
    parts.join(",")
}

/// OpenSSL's old form: `/C=XX/CN=name`.
fn legacy(name: &X509Name<'_>) -> String {
    name.iter_attributes().map(|one| format!("/{}={}", key(one), value(one))).collect()
}

fn key(attribute: &AttributeTypeAndValue<'_>) -> String {
    const NAMES: [(&str, &str); 11] = [
        ("2.5.4.3", "CN"),
        ("2.5.4.4", "SN"),
        ("2.5.4.5", "serialNumber"),
        ("2.5.4.6", "C"),
        ("2.5.4.7", "L"),
        ("2.5.4.8", "ST"),
        ("2.5.4.10", "O"),
        ("2.5.4.11", "OU"),
        ("0.9.2342.19200300.100.1.1", "UID"),
        ("0.9.2342.19200300.100.1.25", "DC"),
        ("1.2.840.113549.1.9.1", "emailAddress"),
    ];
    let oid = attribute.attr_type().to_id_string();
    let known = NAMES.iter().find(|(known, _)| *known == oid);
    known.map_or(oid, |(_, name)| (*name).to_owned())
}

fn value(attribute: &AttributeTypeAndValue<'_>) -> String {
    match attribute.as_str() {
        Ok(text) => text.to_owned(),
        Err(_) => format!("#{}", hex(attribute.as_slice())),
    }
}

/// RFC 2253 §2.4.
fn escaped(text: &str) -> String {
    let last = text.chars().count().saturating_sub(1);
    let mut out = String::new();
    for (index, character) in text.chars().enumerate() {
        let at_edge =
            (character == ' ' && (index == 0 || index == last)) || (character == '#' && index == 0);
        if at_edge || ",+\"\\<>;".contains(character) {
            out.push('\\');
        }
        out.push(character);
    }
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SerialNumber};

    use super::*;

    #[test]
    fn a_client_certificate_is_told_in_openssl_words() {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CountryName, "XX");
        params.distinguished_name.push(DnType::OrganizationName, "A, B");
        params.distinguished_name.push(DnType::CommonName, "client");
        params.serial_number = Some(SerialNumber::from_slice(&[1, 0xab]));
        params.not_before = rcgen::date_time_ymd(2026, 1, 2);
        params.not_after = rcgen::date_time_ymd(2026, 12, 31);
        let der = params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec();
        let now = 1_796_083_200; // 2026-12-01
        let told = |variable| String::from_utf8(client(&der, variable, now).unwrap()).unwrap();
        for (variable, expected) in [
            (Builtin::SslClientSDn, r"CN=client,O=A\, B,C=XX"),
            (Builtin::SslClientSDnLegacy, "/C=XX/O=A, B/CN=client"),
            (Builtin::SslClientSerial, "01AB"),
            (Builtin::SslClientVStart, "Jan  2 00:00:00 2026 GMT"),
            (Builtin::SslClientVEnd, "Dec 31 00:00:00 2026 GMT"),
            (Builtin::SslClientVRemain, "30"),
        ] {
            assert_eq!(told(variable), expected, "{variable:?}");
        }
        assert_eq!(told(Builtin::SslClientFingerprint).len(), 40);
        let pem = told(Builtin::SslClientRawCert);
        assert!(
            pem.ends_with("\n-----END CERTIFICATE-----\n") && pem.lines().all(|l| l.len() <= 64)
        );
        assert_eq!(told(Builtin::SslClientCert), pem.trim_end().replace('\n', "\n\t"));
        assert!(
            told(Builtin::SslClientEscapedCert).starts_with("-----BEGIN%20CERTIFICATE-----%0A")
        );
    }

    #[test]
    fn special_characters_of_a_name_are_escaped() {
        for (text, expected) in
            [("a b", "a b"), (" a ", "\\ a\\ "), ("#a", "\\#a"), ("a+\"", "a\\+\\\"")]
        {
            assert_eq!(escaped(text), expected);
        }
    }
}
