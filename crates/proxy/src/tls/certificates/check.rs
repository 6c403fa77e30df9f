//! What can be told of a chain from its own bytes: dates, names, order, completeness.

use rustls::pki_types::CertificateDer;
use wssgate_config::model::{Advice, CertificateFiles, Located};
use wssgate_syntax::{Diagnostic, Report};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate, X509Name};

use super::Wanted;

/// A certificate that has less than this to live is worth a warning, or less than a fifth of its
/// whole life where that is shorter (certificates of six days exist).
const SOON: i64 = 14 * DAY;
const DAY: i64 = 86_400;

/// Checks a chain whose key fits and reports warnings only: nginx starts with such chains.
pub(super) fn chain(
    chain: &[CertificateDer<'static>],
    files: &CertificateFiles,
    wanted: Wanted<'_>,
    now: i64,
    report: &mut Report,
) {
    let mut parsed = Vec::new();
    for der in chain {
        match X509Certificate::from_der(der) {
            Ok((_, certificate)) => parsed.push(certificate),
            Err(error) => {
                let text =
                    format!("certificate {} in the file is invalid: {error}", parsed.len() + 1);
                report.push(Diagnostic::warning(text).at(files.chain.span, "in this file"));
                // The others cannot be judged when one is missing.
                return;
            }
        }
    }
    let is_told = |advice| !wanted.ignored.contains(&advice);
    let complete = is_told(Advice::CertificateChain).then(|| complete(&parsed)).flatten();
    let silencer = complete.is_some().then(|| Advice::CertificateChain.silencer());
    let findings = [(dates(&parsed, now), None), (order(&parsed), None), (complete, silencer)];
    for (finding, silencer) in findings {
        let Some(finding) = finding else { continue };
        let path = files.chain.value.display();
        let message = format!("certificate \"{path}\": {}", finding.what);
        // Many servers may have the same certificate.
        if report.iter().any(|told| told.message == message) {
            continue;
        }
        let diagnostic = Diagnostic::warning(message).at(files.chain.span, finding.label);
        let diagnostic = silencer.into_iter().fold(diagnostic, Diagnostic::note);
        report.push(diagnostic.maybe_help(finding.help));
    }
    if is_told(Advice::CertificateNames) {
        uncovered(&parsed[0], wanted.names, report);
    }
}

/// Whether what is told here can be told of it.
pub(super) fn is_readable(der: &[u8]) -> bool {
    X509Certificate::from_der(der).is_ok_and(|(rest, _)| rest.is_empty())
}

/// Whether the certificate may sign others.
pub(super) fn is_ca(der: &CertificateDer<'_>) -> bool {
    X509Certificate::from_der(der).is_ok_and(|(_, certificate)| certificate.is_ca())
}

struct Finding {
    what: String,
    label: &'static str,
    help: Option<String>,
}

fn dates(chain: &[X509Certificate<'_>], now: i64) -> Option<Finding> {
    for (index, certificate) in chain.iter().enumerate() {
        let start = certificate.validity().not_before.timestamp();
        let end = certificate.validity().not_after.timestamp();
        let subject = if index == 0 { "it".to_owned() } else { common(certificate.subject()) };
        if now > end {
            let days = (now - end) / DAY;
            return Some(Finding {
                what: format!("{subject} expired {days} days ago"),
                label: "clients reject it",
                help: Some("renew the certificate, then reload".to_owned()),
            });
        }
        if now < start {
            return Some(Finding {
                what: format!("{subject} is not valid yet"),
                label: "clients reject it until then",
                help: Some("check the clock of this machine".to_owned()),
            });
        }
        if index == 0 && end - now < SOON.min((end - start) / 5) {
            let days = (end - now) / DAY;
            return Some(Finding {
                what: format!("it expires in {days} days"),
                label: "expires soon",
                help: Some("check that automatic renewal (certbot.timer) still runs".to_owned()),
            });
        }
    }
    None
}

/// Each certificate must be signed by the next one (RFC 5246 §7.4.2).
fn order(chain: &[X509Certificate<'_>]) -> Option<Finding> {
    let broken = chain.windows(2).position(|pair| pair[0].issuer() != pair[1].subject())?;
    let (this, next) = (&chain[broken], &chain[broken + 1]);
    Some(Finding {
        what: format!(
            "certificate {} is issued by \"{}\" but followed by \"{}\"",
            broken + 1,
            common(this.issuer()),
            common(next.subject()),
        ),
        label: "the chain is out of order",
        help: Some(
            "put the server certificate first, and each issuer after the certificate it issued"
                .to_owned(),
        ),
    })
}

/// The last certificate must be a root, or issued by one that clients have.
fn complete(chain: &[X509Certificate<'_>]) -> Option<Finding> {
    // What stands behind a break in the order is not part of the chain.
    let end = chain.windows(2).position(|pair| pair[0].issuer() != pair[1].subject());
    let last = &chain[end.unwrap_or(chain.len() - 1)];
    if last.issuer() == last.subject() || is_public_root(last.issuer()) {
        return None;
    }
    let issuer = common(last.issuer());
    let missing = format!(
        "\"{issuer}\", the issuer of the last certificate, is neither in the file nor a public root"
    );
    // Public authorities say where; without that it may be a root of somebody's own.
    Some(match ca_issuers(last) {
        Some(url) => Finding {
            what: format!("the chain is incomplete: {missing}"),
            label: "Android and WeChat mini programs reject this, even if desktop browsers do not",
            help: Some(format!(
                "append the certificate of \"{issuer}\" ({url}); certbot's fullchain.pem contains it"
            )),
        },
        None => Finding {
            what: format!("the chain may be incomplete: {missing}"),
            label: "clients that do not know this issuer reject it",
            help: Some(format!(
                "append the certificate of \"{issuer}\", unless your clients trust it as a root"
            )),
        },
    })
}

/// Whether Mozilla's root programme has a root of this name.
fn is_public_root(name: &X509Name<'_>) -> bool {
    // The list holds names without the outer SEQUENCE.
    let raw = name.as_raw();
    webpki_roots::TLS_SERVER_ROOTS.iter().any(|root| {
        let subject: &[u8] = root.subject.as_ref();
        raw.ends_with(subject) && raw.len() - subject.len() <= 4
    })
}

/// Where the issuer's certificate can be fetched (RFC 5280 §4.2.2.1).
fn ca_issuers(certificate: &X509Certificate<'_>) -> Option<String> {
    certificate.extensions().iter().find_map(|extension| {
        let ParsedExtension::AuthorityInfoAccess(access) = extension.parsed_extension() else {
            return None;
        };
        access.accessdescs.iter().find_map(|description| match &description.access_location {
            GeneralName::URI(url) if description.access_method.to_id_string() == CA_ISSUERS => {
                Some((*url).to_owned())
            }
            _ => None,
        })
    })
}

const CA_ISSUERS: &str = "1.3.6.1.5.5.7.48.2";

/// Warns of server names that the certificate does not name.
fn uncovered(leaf: &X509Certificate<'_>, names: &[Located<Box<[u8]>>], report: &mut Report) {
    let covered = subject_names(leaf);
    for name in names {
        let Some(wanted) = checkable(&name.value) else { continue };
        if !covered.iter().any(|pattern| covers(pattern, &wanted)) {
            let text = format!("the certificate does not cover the server name \"{wanted}\"");
            let label = match wanted.is_ascii() {
                true => "clients that connect to this name reject the certificate",
                false => "clients write such a name in ASCII, which this is not compared with",
            };
            let problem = Diagnostic::warning(text)
                .at(name.span, label)
                .note(format!("it covers: {}", covered.join(", ")))
                .note(Advice::CertificateNames.silencer());
            report.push(problem.maybe_help(in_ascii(&wanted, &covered)));
        }
    }
}

/// What to write for a name with other letters than those of ASCII (RFC 5890 §2.3.2.1).
fn in_ascii(name: &str, covered: &[String]) -> Option<String> {
    if name.is_ascii() {
        return None;
    }
    let found = covered.iter().find(|other| is_in_ascii(name, other));
    Some(match found {
        Some(other) => format!("write `{other}`"),
        None => "write the name as clients send it, with `xn--` before its encoded labels".into(),
    })
}

/// Whether `encoded` is probably `name` in ASCII: its encoded labels begin with the letters that need no encoding.
fn is_in_ascii(name: &str, encoded: &str) -> bool {
    let is_encoded = |(label, other): (&str, &str)| {
        if label.is_ascii() {
            return label == other;
        }
        let plain: String = label.chars().filter(char::is_ascii).collect();
        let rest = other.strip_prefix("xn--");
        rest.is_some_and(|rest| rest.rsplit_once('-').map_or("", |(plain, _)| plain) == plain)
    };
    name.split('.').count() == encoded.split('.').count()
        && name.split('.').zip(encoded.split('.')).all(is_encoded)
}

/// DNS names of the certificate, lower case (RFC 9525: the common name does not count).
fn subject_names(leaf: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(names)) = leaf.subject_alternative_name() else { return Vec::new() };
    let dns = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    });
    dns.collect()
}

/// A server name that can be compared: neither empty, nor a regular expression, nor a placeholder
/// such as `_`, nor an address.
fn checkable(name: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(name).ok()?.to_ascii_lowercase();
    let name = name.strip_prefix('.').map(|rest| format!("*.{rest}")).unwrap_or(name);
    let is_name = name.contains('.')
        && !name.starts_with('~')
        && !name.ends_with(".*")
        && name.parse::<std::net::IpAddr>().is_err();
    is_name.then_some(name)
}

/// Whether `pattern` of a certificate covers `name` (RFC 6125 §6.4.3: one label for `*`).
fn covers(pattern: &str, name: &str) -> bool {
    if pattern == name {
        return true;
    }
    match (pattern.strip_prefix("*."), name.split_once('.')) {
        (Some(pattern), Some((_, parent))) => pattern == parent,
        _ => false,
    }
}

/// The common name, else the whole name.
fn common(name: &X509Name<'_>) -> String {
    let common = name.iter_common_name().next().and_then(|common| common.as_str().ok());
    common.map_or_else(|| name.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_covered_as_clients_see_it() {
        for (pattern, name, expected) in [
            ("a.test", "a.test", true),
            ("*.a.test", "b.a.test", true),
            ("*.a.test", "a.test", false),
            ("*.a.test", "c.b.a.test", false),
            ("*.a.test", "*.a.test", true),
            ("a.test", "b.test", false),
        ] {
            assert_eq!(covers(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn a_name_is_found_in_ascii() {
        for (name, encoded, expected) in [
            ("münchen.de", "xn--mnchen-3ya.de", true),
            ("www.münchen.de", "xn--mnchen-3ya.de", false),
            ("münchen.de", "xn--nrnberg-n2a.de", false),
            ("例え.test", "xn--r8jz45g.test", true),
            ("münchen.de", "munchen.de", false),
        ] {
            assert_eq!(is_in_ascii(name, encoded), expected, "{name} {encoded}");
        }
    }

    #[test]
    fn only_real_names_are_compared() {
        for (name, expected) in [
            ("Example.com", Some("example.com")),
            (".example.com", Some("*.example.com")),
            ("_", None),
            ("localhost", None),
            ("~^x\\.", None),
            ("www.example.*", None),
            ("10.0.0.1", None),
            ("", None),
        ] {
            assert_eq!(checkable(name.as_bytes()).as_deref(), expected, "{name}");
        }
    }
}
