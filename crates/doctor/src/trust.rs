//! Whether a phone would trust a chain, judged from what was sent alone.
//!
//! Desktop browsers fetch missing certificates and remember those of other sites. Android, many libraries
//! and WeChat mini programs do not, so a chain is complete here only if what was sent leads to a root.
//! Names and the path to a root are judged by the library of rustls, dates and completeness by
//! [`wssgate_chain`] as in `wssgate -t`, so that each fault is told by itself: the path is judged at a
//! time at which the server's own certificate is valid.

use std::time::Duration;

use jiff::Timestamp;
use rustls::pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage};
use wssgate_chain::{Chain, DateFault, Facts, Key};

use crate::facts::CertificateFacts;
use crate::report::Finding;
use crate::target::Host;

/// Seconds.
const DAY: i64 = 86_400;

/// The longest life of a certificate below a root of a device's maker, and below any root, in days: the
/// limits of Apple, for certificates issued since September 2020 and since July 2019.
const MAX_LIFE: [(Trusted, i64, i64); 2] =
    [(Trusted::Public, 398, 1_598_918_400), (Trusted::Added, 825, 1_561_939_200)];

/// The smallest RSA key that browsers take, in bits.
const MIN_RSA: usize = 2048;

/// The name of the CA that `wssgate proxy` and `wssgate demo` make for themselves.
pub const DEVELOPMENT_CA: &str = "wssgate development CA";

/// Who is trusted.
#[derive(Debug)]
pub(crate) struct Trust {
    added: Vec<TrustAnchor<'static>>,
}

/// Whose root a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trusted {
    /// Mozilla's root programme.
    Public,
    /// Given for this walk.
    Added,
}

/// What a chain came to.
#[derive(Debug, Default)]
pub(crate) struct Judged {
    pub(crate) findings: Vec<Finding>,
    pub(crate) chain: Vec<CertificateFacts>,
    pub(crate) names: Vec<String>,
    pub(crate) trusted: Option<Trusted>,
}

impl Trust {
    /// The public roots and these.
    pub(crate) fn new(added: &[CertificateDer<'_>]) -> Self {
        // What is no anchor was refused when the file was read.
        let anchors = added.iter().filter_map(|der| webpki::anchor_from_trusted_cert(der).ok());
        Self { added: anchors.map(|anchor| anchor.to_owned()).collect() }
    }

    /// The names of all roots, in DER without the outer SEQUENCE.
    fn names(&self) -> impl Iterator<Item = &[u8]> {
        webpki_roots::TLS_SERVER_ROOTS.iter().chain(&self.added).map(|root| &root.subject[..])
    }

    /// Judges a chain as it was sent, for `host`, at `now` (seconds since the Unix epoch).
    pub(crate) fn judge(&self, sent: &[CertificateDer<'_>], host: &Host, now: i64) -> Judged {
        let chain = match Chain::parse(sent.iter().map(|der| &der[..])) {
            Ok(chain) => chain,
            Err(error) => {
                let finding = Finding::fault(
                    "certificate_unreadable",
                    format!("the server's chain cannot be read: {error}"),
                    "have the certificate reissued",
                );
                return Judged { findings: vec![finding], ..Judged::default() };
            }
        };
        let facts = chain.facts();
        let leaf = &facts[0];
        let at = now.clamp(leaf.from, leaf.to.max(leaf.from));
        let path = self.path(sent, at);
        let findings = dates(&chain, now)
            .into_iter()
            .chain(names(&chain, sent, host))
            .chain(self.end(&chain, &facts, &path))
            .chain(strength(&facts))
            .chain(life(leaf, path.as_ref().ok()));
        Judged {
            findings: findings.collect(),
            names: chain.names(),
            chain: facts.iter().map(|facts| shown(facts, now)).collect(),
            trusted: path.ok(),
        }
    }

    /// Looks for a path to a root.
    fn path(&self, sent: &[CertificateDer<'_>], at: i64) -> Result<Trusted, webpki::Error> {
        let leaf = EndEntityCert::try_from(&sent[0])?;
        let at = Duration::from_secs(u64::try_from(at).unwrap_or_default());
        let verify = |anchors: &[TrustAnchor<'_>]| {
            leaf.verify_for_usage(
                webpki::ALL_VERIFICATION_ALGS,
                anchors,
                &sent[1..],
                UnixTime::since_unix_epoch(at),
                KeyUsage::server_auth(),
                None,
                None,
            )
            .map(drop)
        };
        match verify(webpki_roots::TLS_SERVER_ROOTS) {
            Ok(()) => Ok(Trusted::Public),
            Err(error) if self.added.is_empty() => Err(error),
            Err(_) => verify(&self.added).map(|()| Trusted::Added),
        }
    }

    /// Where the path ends, if it does not end well.
    fn end(
        &self,
        chain: &Chain<'_>,
        facts: &[Facts],
        path: &Result<Trusted, webpki::Error>,
    ) -> Option<Finding> {
        let misplaced = chain.misplaced();
        let error = match (path, &misplaced) {
            (Ok(_), None) => return None,
            (Ok(_), Some(misplaced)) => {
                return Some(Finding::warning(
                    "chain_out_of_order",
                    format!(
                        "certificate {} was issued by \"{}\", but the one of \"{}\" follows it; some \
                         clients reject such a chain",
                        misplaced.place, misplaced.issuer, misplaced.next
                    ),
                    "send the server's own certificate first and each issuer after the certificate it \
                     issued, and nothing else",
                ));
            }
            // Dates are told by themselves.
            (Err(webpki::Error::CertExpired { .. } | webpki::Error::CertNotValidYet { .. }), _) => {
                return None;
            }
            (Err(error), _) => error,
        };
        let leaf = &facts[0];
        if leaf.is_self_issued {
            return Some(Finding::fault(
                "certificate_self_signed",
                format!(
                    "the certificate of \"{}\" is self-signed; no client trusts it",
                    leaf.subject
                ),
                "use a certificate of a public CA (Let's Encrypt is free), or trust it here with --ca",
            ));
        }
        if facts.iter().any(|one| one.issuer == DEVELOPMENT_CA) {
            return Some(Finding::fault(
                "certificate_development_ca",
                "the certificate is signed by wssgate's development CA; browsers, phones and mini programs \
                 do not trust it unless it was installed there",
                "while developing, install it (`wssgate proxy` says how) and name it here by --ca, usually \
                 ~/.local/share/wssgate/dev-ca/ca.pem; for everybody else use a certificate of a public CA, \
                 which `wssgate proxy --from NAME --agree-tos` obtains",
            ));
        }
        if let Some(missing) = chain.missing(self.names()) {
            let issuer = missing.issuer;
            return Some(match missing.url {
                Some(url) => Finding::fault(
                    "chain_incomplete",
                    format!(
                        "the chain is incomplete: the server does not send the certificate of \
                         \"{issuer}\". Desktop browsers may fetch it; Android and WeChat mini programs \
                         do not and reject the connection"
                    ),
                    format!(
                        "append the certificate of \"{issuer}\" ({url}) to the server's certificate \
                         file; certbot's fullchain.pem contains it, cert.pem does not"
                    ),
                ),
                // Public authorities say where to fetch it.
                None => Finding::fault(
                    "certificate_unknown_ca",
                    format!(
                        "\"{issuer}\", the issuer of the last certificate sent, is not a public \
                         root"
                    ),
                    format!(
                        "use a certificate of a public CA; if it is your own CA, trust its root with \
                         --ca here and on every device, and if \"{issuer}\" is an intermediate, append \
                         its certificate to the server's certificate file"
                    ),
                ),
            });
        }
        let last = facts.last().unwrap_or(leaf);
        if last.is_self_issued && *error == webpki::Error::UnknownIssuer && misplaced.is_none() {
            return Some(Finding::fault(
                "certificate_unknown_ca",
                format!("the chain ends at \"{}\", which is not a public root", last.subject),
                "use a certificate of a public CA; if it is your own CA, trust its root with --ca here \
                 and on every device",
            ));
        }
        Some(Finding::fault(
            "chain_untrusted",
            format!("the chain leads to no trusted root: {error}"),
            "compare the server's certificate file with what the CA has delivered: the server's own \
             certificate, then each issuer after the certificate it issued",
        ))
    }
}

fn dates(chain: &Chain<'_>, now: i64) -> Option<Finding> {
    let (whose, fault) = chain.date_fault(now)?;
    let whose =
        whose.map_or("the certificate".to_owned(), |name| format!("\"{name}\" in the chain"));
    Some(match fault {
        DateFault::Expired(ago) => Finding::fault(
            "certificate_expired",
            format!("{whose} expired {} days ago", ago / DAY),
            "renew it and reload the server; if it was renewed, the server still has the old file open",
        ),
        DateFault::NotYetValid(wait) => Finding::fault(
            "certificate_not_yet_valid",
            format!(
                "{whose} is not valid yet: it becomes valid in {:.1} days",
                wait as f64 / DAY as f64
            ),
            "check the clocks of this machine and of the one that issued it, or wait",
        ),
        DateFault::EndsSoon(left) => Finding::warning(
            "certificate_expires_soon",
            format!("{whose} expires in {} days", left / DAY),
            "check that automatic renewal still runs (`systemctl list-timers`), and that it reloads \
             the server",
        ),
    })
}

fn names(chain: &Chain<'_>, sent: &[CertificateDer<'_>], host: &Host) -> Option<Finding> {
    let name = server_name(host)?;
    let leaf = EndEntityCert::try_from(&sent[0]).ok()?;
    leaf.verify_is_valid_for_subject_name(&name).err()?;
    let names = chain.names();
    let covered = match names.is_empty() {
        true => "it has no names".to_owned(),
        false => format!("it is for {}", names.join(", ")),
    };
    Some(Finding::fault(
        "certificate_wrong_name",
        format!("the certificate is not for {host}: {covered}"),
        match host {
            Host::Name(name) => format!(
                "issue a certificate that names {name}, or select it in the server of that name \
                 (`server_name {name};`)"
            ),
            Host::Address(_) => {
                "use a name that the certificate covers instead of an address".into()
            }
        },
    ))
}

/// The host in the terms of TLS.
pub(crate) fn server_name(host: &Host) -> Option<ServerName<'static>> {
    match host {
        Host::Name(name) => ServerName::try_from(name.clone()).ok(),
        Host::Address(address) => Some(ServerName::IpAddress((*address).into())),
    }
}

fn strength(facts: &[Facts]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, one) in facts.iter().enumerate() {
        let subject = &one.subject;
        match one.key {
            Key::Rsa(bits) if bits < MIN_RSA => findings.push(Finding::fault(
                "certificate_weak_key",
                format!(
                    "the RSA key of \"{subject}\" has only {bits} bits; clients require {MIN_RSA}"
                ),
                "issue the certificate for a new key: ECDSA P-256, or RSA 2048",
            )),
            Key::Ed25519 if index == 0 => findings.push(Finding::warning(
                "certificate_ed25519",
                format!("the key of \"{subject}\" is Ed25519, which browsers do not accept"),
                "issue the certificate for an ECDSA P-256 key",
            )),
            _ => {}
        }
        // Nobody looks at the signature of a root.
        let is_weak = one.signature.ends_with("SHA-1") || one.signature.ends_with("MD5");
        if is_weak && !one.is_self_issued {
            findings.push(Finding::fault(
                "certificate_weak_signature",
                format!("\"{subject}\" is signed by {}, which clients reject", one.signature),
                "have the certificate reissued with SHA-256",
            ));
        }
    }
    findings
}

fn life(leaf: &Facts, trusted: Option<&Trusted>) -> Option<Finding> {
    let days = (leaf.to - leaf.from) / DAY;
    let limit = MAX_LIFE
        .iter()
        .find(|(whose, max, since)| trusted == Some(whose) && days > *max && leaf.from >= *since);
    let (_, max, _) = limit?;
    Some(Finding::warning(
        "certificate_lives_too_long",
        format!("the certificate is valid for {days} days; Apple's devices reject more than {max}"),
        format!("issue certificates for {max} days at most"),
    ))
}

fn shown(facts: &Facts, now: i64) -> CertificateFacts {
    let date =
        |seconds| Timestamp::from_second(seconds).map(|at| at.to_string()).unwrap_or_default();
    CertificateFacts {
        subject: facts.subject.clone(),
        issuer: facts.issuer.clone(),
        key: facts.key.to_string(),
        signature: facts.signature.clone(),
        from: date(facts.from),
        to: date(facts.to),
        days_left: (facts.to - now).div_euclid(DAY),
    }
}
