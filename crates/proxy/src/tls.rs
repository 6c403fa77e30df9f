//! TLS: certificates by name, cipher strings, and the keys that a tunnel takes along.

use std::sync::{Arc, OnceLock};

use rustls::crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs};
use rustls::pki_types::CertificateDer;
use rustls::version::{TLS12, TLS13};
use rustls::{SupportedCipherSuite, SupportedProtocolVersion};
use wssgate_config::model::{Located, TlsProtocols};
use wssgate_syntax::{Diagnostic, Report};
use wssgate_x509::{Fault, Trust};

use crate::clock;

pub mod ca;
pub mod certificates;
pub mod ciphers;
pub mod client;
pub mod keys;
mod proof;
mod served;
pub mod server;
pub mod sessions;
pub mod slot;
pub mod stapling;
pub mod watch;

/// The cryptography of this program, with all its suites and groups.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(aws_lc_rs::default_provider())))
}

/// Whether the owner of `leaf` is trusted now, helped by the other certificates that he has sent.
fn judge(
    trust: Option<&Trust>,
    leaf: &CertificateDer<'_>,
    sent: &[CertificateDer<'_>],
) -> Result<(), Fault> {
    let now = clock::unix_seconds();
    let sent = sent.iter().map(AsRef::as_ref);
    trust.map_or(Err(Fault::UNSPECIFIED), |trust| trust.verify(leaf, sent, now))
}

/// What settings ask of the cryptography.
struct Crypto<'s> {
    /// An OpenSSL cipher string, for TLS 1.2.
    ciphers: &'s Located<Box<[u8]>>,
    /// Suites of TLS 1.3 in order; all by default.
    ciphersuites: Option<&'s Located<Box<[u8]>>>,
    protocols: TlsProtocols,
    /// Key exchange groups in order; all when there is none.
    groups: &'s [Located<Box<[u8]>>],
}

/// A provider with what is wanted.
///
/// Reports what the cipher string names and we do not have; `None` when a version is wanted and
/// nothing is left for it.
fn provider_for(wanted: &Crypto<'_>, report: &mut Report) -> Option<Arc<CryptoProvider>> {
    let Crypto { ciphers, protocols, .. } = wanted;
    let groups = groups(wanted.groups, report);
    let tls13 = match wanted.ciphersuites {
        None => ciphers::tls13_suites().collect(),
        Some(text) => tls13_suites(text, *protocols, report)?,
    };
    let text = String::from_utf8_lossy(&ciphers.value);
    let list = ciphers::CipherList::parse(&text);
    if !list.unavailable.is_empty() {
        let missing = list.unavailable.join(", ");
        report.push(
            Diagnostic::idle(
                "suites of ssl_ciphers",
                format!("cipher suites not available: {missing}"),
            )
            .at(ciphers.span, "requested here")
            .note(
                "only suites with ECDHE and an AEAD are supported; all current clients support \
                 these",
            ),
        );
    }
    if !list.unknown.is_empty() {
        let text = format!("unknown names in the cipher list: {}", list.unknown.join(", "));
        report.push(Diagnostic::warning(text).at(ciphers.span, "ignored, as OpenSSL does"));
    }
    if list.suites.is_empty() && protocols.tls12 {
        report.push(
            Diagnostic::error(format!("no cipher match in \"{text}\""))
                .at(ciphers.span, "no suite for TLS 1.2 is left")
                .help("use the default, \"ssl_ciphers HIGH:!aNULL:!MD5\", or remove TLSv1.2 from \"ssl_protocols\""),
        );
        return None;
    }
    let suites: Vec<SupportedCipherSuite> = tls13.into_iter().chain(list.suites).collect();
    let base = provider();
    let kx_groups = groups.unwrap_or_else(|| base.kx_groups.clone());
    Some(Arc::new(CryptoProvider { cipher_suites: suites, kx_groups, ..(*base).clone() }))
}

/// The suites of TLS 1.3 that `Ciphersuites` names.
fn tls13_suites(
    text: &Located<Box<[u8]>>,
    protocols: TlsProtocols,
    report: &mut Report,
) -> Option<Vec<SupportedCipherSuite>> {
    let mut suites = Vec::new();
    let list = String::from_utf8_lossy(&text.value);
    for name in list.split([':', ',', ' ']).filter(|name| !name.is_empty()) {
        match ciphers::tls13_suite(name) {
            Some(suite) => suites.push(suite),
            None => report.push(
                Diagnostic::warning(format!("cipher suite \"{name}\" of TLS 1.3 is not available"))
                    .at(text.span, "ignored"),
            ),
        }
    }
    if suites.is_empty() && protocols.tls13 {
        let problem = Diagnostic::error(format!("no cipher match in \"{list}\""));
        report.push(problem.at(text.span, "no suite for TLS 1.3 is left"));
        return None;
    }
    Some(suites)
}

/// The protocol versions that are on.
fn versions(protocols: TlsProtocols) -> Vec<&'static SupportedProtocolVersion> {
    let all = [(protocols.tls13, &TLS13), (protocols.tls12, &TLS12)];
    all.into_iter().filter_map(|(on, version)| on.then_some(version)).collect()
}

/// What OpenSSL calls a protocol version.
fn version_name(version: Option<rustls::ProtocolVersion>) -> &'static str {
    match version {
        Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
        Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
        _ => "",
    }
}

/// Key exchange groups under the names that `ssl_ecdh_curve` may use; the first is OpenSSL's.
const GROUPS: &[(&[&str], &dyn SupportedKxGroup)] = &[
    (&["X25519", "x25519"], aws_lc_rs::kx_group::X25519),
    (&["prime256v1", "P-256", "secp256r1"], aws_lc_rs::kx_group::SECP256R1),
    (&["secp384r1", "P-384"], aws_lc_rs::kx_group::SECP384R1),
    (&["X25519MLKEM768"], aws_lc_rs::kx_group::X25519MLKEM768),
    (&["SecP256r1MLKEM768"], aws_lc_rs::kx_group::SECP256R1MLKEM768),
];

/// The groups that `ssl_ecdh_curve` names; `None` for `auto` or when none is left.
fn groups(
    curves: &[Located<Box<[u8]>>],
    report: &mut Report,
) -> Option<Vec<&'static dyn SupportedKxGroup>> {
    let (mut groups, mut missing) = (Vec::new(), Vec::new());
    for curve in curves {
        let name = String::from_utf8_lossy(&curve.value);
        match GROUPS.iter().find(|(names, _)| names.contains(&&*name)) {
            Some((_, group)) => groups.push(*group),
            None => missing.push(name),
        }
    }
    // All stand in one word, so one span shows them.
    if let (Some(curve), false) = (curves.first(), missing.is_empty()) {
        let known: Vec<_> = GROUPS.iter().map(|(names, _)| names[0]).collect();
        let problem = Diagnostic::warning(format!("curves not available: {}", missing.join(", ")))
            .at(curve.span, "ignored")
            .note(format!("available: {}", known.join(", ")));
        report.push(problem);
    }
    (!groups.is_empty()).then_some(groups)
}

/// What OpenSSL calls a group; its number in hexadecimal when it has no name here.
fn group_name(group: rustls::NamedGroup) -> String {
    let known = GROUPS.iter().find(|(_, known)| known.name() == group);
    known.map_or_else(|| format!("0x{:04x}", u16::from(group)), |(names, _)| names[0].to_owned())
}
