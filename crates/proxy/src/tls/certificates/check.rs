//! What `-t` and the error log say of a chain: dates, names, order, completeness.

use rustls::pki_types::CertificateDer;
use wssgate_chain::{Chain, DateFault, Unreadable, covers};
use wssgate_config::model::{Advice, CertificateFiles, Located};
use wssgate_syntax::{Diagnostic, Report};

use super::Wanted;

const DAY: i64 = 86_400;

/// Checks a chain whose key fits and reports warnings only: nginx starts with such chains.
pub(super) fn chain(
    chain: &[CertificateDer<'static>],
    files: &CertificateFiles,
    wanted: Wanted<'_>,
    now: i64,
    report: &mut Report,
) {
    let chain = match Chain::parse(chain.iter().map(|der| &der[..])) {
        Ok(chain) => chain,
        Err(Unreadable::Empty) => return,
        Err(error) => {
            let problem = Diagnostic::warning(error.to_string());
            return report.push(problem.at(files.chain.span, "in this file"));
        }
    };
    let is_told = |advice| !wanted.ignored.contains(&advice);
    let complete = is_told(Advice::CertificateChain).then(|| complete(&chain)).flatten();
    let silencer = complete.is_some().then(|| Advice::CertificateChain.silencer());
    let findings = [(dates(&chain, now), None), (order(&chain), None), (complete, silencer)];
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
        uncovered(&chain, wanted.names, report);
    }
}

struct Finding {
    what: String,
    label: &'static str,
    help: Option<String>,
}

fn dates(chain: &Chain<'_>, now: i64) -> Option<Finding> {
    let (whose, fault) = chain.date_fault(now)?;
    let whose = whose.as_deref().unwrap_or("it");
    Some(match fault {
        DateFault::Expired(ago) => Finding {
            what: format!("{whose} expired {} days ago", ago / DAY),
            label: "clients reject it",
            help: Some("renew the certificate, then reload".to_owned()),
        },
        DateFault::NotYetValid(_) => Finding {
            what: format!("{whose} is not valid yet"),
            label: "clients reject it until then",
            help: Some("check the clock of this machine".to_owned()),
        },
        DateFault::EndsSoon(left) => Finding {
            what: format!("{whose} expires in {} days", left / DAY),
            label: "expires soon",
            help: Some("check that automatic renewal (certbot.timer) still runs".to_owned()),
        },
    })
}

fn order(chain: &Chain<'_>) -> Option<Finding> {
    let misplaced = chain.misplaced()?;
    Some(Finding {
        what: format!(
            "certificate {} is issued by \"{}\" but followed by \"{}\"",
            misplaced.place, misplaced.issuer, misplaced.next,
        ),
        label: "the chain is out of order",
        help: Some(
            "put the server certificate first, and each issuer after the certificate it issued"
                .to_owned(),
        ),
    })
}

/// The last certificate must be a root, or issued by one that clients have: of Mozilla's root programme.
fn complete(chain: &Chain<'_>) -> Option<Finding> {
    let roots = webpki_roots::TLS_SERVER_ROOTS.iter().map(|root| &root.subject[..]);
    let missing = chain.missing(roots)?;
    let issuer = missing.issuer;
    let text = format!(
        "\"{issuer}\", the issuer of the last certificate, is neither in the file nor a public root"
    );
    Some(match missing.url {
        Some(url) => Finding {
            what: format!("the chain is incomplete: {text}"),
            label: "Android and WeChat mini programs reject this, even if desktop browsers do not",
            help: Some(format!(
                "append the certificate of \"{issuer}\" ({url}); certbot's fullchain.pem contains it"
            )),
        },
        None => Finding {
            what: format!("the chain may be incomplete: {text}"),
            label: "clients that do not know this issuer reject it",
            help: Some(format!(
                "append the certificate of \"{issuer}\", unless your clients trust it as a root"
            )),
        },
    })
}

/// Warns of server names that the certificate does not name.
fn uncovered(chain: &Chain<'_>, names: &[Located<Box<[u8]>>], report: &mut Report) {
    let covered = chain.names();
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

#[cfg(test)]
mod tests {
    use super::*;

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
