//! What can be told of a chain of certificates from its own bytes: dates, names, order, completeness,
//! kinds of keys and signatures.
//!
//! No signature is checked and nobody is trusted here; a chain that has no fault here can still be
//! forged. It says in which way a chain is wrong, where a verifier only says that it is. Texts for
//! people are the caller's.

mod kinds;

pub use kinds::{Key, signature_name};

use thiserror::Error;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate, X509Name};

/// Seconds.
const DAY: i64 = 86_400;

/// A certificate that has less than this to live is worth a warning, or less than a fifth of its
/// whole life where that is shorter (certificates of six days exist).
const SOON: i64 = 14 * DAY;

/// A chain as a server sends it, the server's own certificate first; never empty.
#[derive(Debug)]
pub struct Chain<'a>(Vec<X509Certificate<'a>>);

/// Why there is no chain.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Unreadable {
    /// No certificate at all.
    #[error("there is no certificate")]
    Empty,
    /// The certificate at this place, counted from 1, is none.
    #[error("certificate {0} in the file is invalid: {1}")]
    Certificate(usize, String),
}

/// What is wrong with a date.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DateFault {
    /// It has ended so many seconds ago.
    Expired(i64),
    /// It begins in so many seconds.
    NotYetValid(i64),
    /// The server's own certificate ends soon: in so many seconds.
    EndsSoon(i64),
}

/// A certificate that is not followed by its issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misplaced {
    /// Its place, counted from 1.
    pub place: usize,
    /// Who has issued it.
    pub issuer: String,
    /// Whose certificate follows it.
    pub next: String,
}

/// The issuer whose certificate is not sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Its name.
    pub issuer: String,
    /// Where its certificate can be fetched, as public authorities say (RFC 5280 §4.2.2.1). Without it,
    /// it may be a root of somebody's own.
    pub url: Option<String>,
}

/// One certificate of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Its owner: the common name, else the whole name.
    pub subject: String,
    /// Who has issued it.
    pub issuer: String,
    /// The beginning of its life, in seconds since the Unix epoch.
    pub from: i64,
    /// The end of its life.
    pub to: i64,
    /// Its key.
    pub key: Key,
    /// How it was signed.
    pub signature: String,
    /// Whether owner and issuer are the same.
    pub is_self_issued: bool,
}

impl<'a> Chain<'a> {
    /// Reads certificates in DER.
    ///
    /// # Errors
    /// When one of them cannot be read: the others cannot be judged without it.
    pub fn parse(ders: impl IntoIterator<Item = &'a [u8]>) -> Result<Self, Unreadable> {
        let mut parsed = Vec::new();
        for der in ders {
            match X509Certificate::from_der(der) {
                Ok((_, certificate)) => parsed.push(certificate),
                Err(error) => {
                    return Err(Unreadable::Certificate(parsed.len() + 1, error.to_string()));
                }
            }
        }
        if parsed.is_empty() { Err(Unreadable::Empty) } else { Ok(Self(parsed)) }
    }

    /// The first wrong date at `now`, in seconds since the Unix epoch; and whose it is, unless it is
    /// that of the server's own certificate.
    pub fn date_fault(&self, now: i64) -> Option<(Option<String>, DateFault)> {
        for (index, certificate) in self.0.iter().enumerate() {
            let start = certificate.validity().not_before.timestamp();
            let end = certificate.validity().not_after.timestamp();
            let whose = || (index > 0).then(|| common(certificate.subject()));
            if now > end {
                return Some((whose(), DateFault::Expired(now - end)));
            }
            if now < start {
                return Some((whose(), DateFault::NotYetValid(start - now)));
            }
            if index == 0 && end - now < SOON.min((end - start) / 5) {
                return Some((None, DateFault::EndsSoon(end - now)));
            }
        }
        None
    }

    /// The first certificate that the next one has not issued, though it should (RFC 5246 §7.4.2).
    pub fn misplaced(&self) -> Option<Misplaced> {
        let broken = self.break_at()?;
        let (this, next) = (&self.0[broken], &self.0[broken + 1]);
        Some(Misplaced {
            place: broken + 1,
            issuer: common(this.issuer()),
            next: common(next.subject()),
        })
    }

    /// The issuer of the last certificate, unless that is a root, or issued by one of `roots`: their
    /// names in DER, without the outer SEQUENCE.
    pub fn missing<'r>(&self, roots: impl IntoIterator<Item = &'r [u8]>) -> Option<Missing> {
        // What stands behind a break in the order is not part of the chain.
        let last = &self.0[self.break_at().unwrap_or(self.0.len() - 1)];
        let issuer = last.issuer();
        if issuer == last.subject() || roots.into_iter().any(|root| is_named(issuer, root)) {
            return None;
        }
        Some(Missing { issuer: common(issuer), url: ca_issuers(last) })
    }

    /// Where the order breaks.
    fn break_at(&self) -> Option<usize> {
        self.0.windows(2).position(|pair| pair[0].issuer() != pair[1].subject())
    }

    /// DNS names of the server's own certificate, in lower case (RFC 9525: the common name does not
    /// count).
    pub fn names(&self) -> Vec<String> {
        let Ok(Some(names)) = self.0[0].subject_alternative_name() else { return Vec::new() };
        let dns = names.value.general_names.iter().filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        });
        dns.collect()
    }

    /// What stands in each certificate.
    pub fn facts(&self) -> Vec<Facts> {
        let facts = |certificate: &X509Certificate<'_>| Facts {
            subject: common(certificate.subject()),
            issuer: common(certificate.issuer()),
            from: certificate.validity().not_before.timestamp(),
            to: certificate.validity().not_after.timestamp(),
            key: Key::of(certificate.public_key()),
            signature: signature_name(&certificate.signature_algorithm),
            is_self_issued: certificate.subject() == certificate.issuer(),
        };
        self.0.iter().map(facts).collect()
    }
}

/// Whether these bytes are one certificate in DER that can be judged.
pub fn is_readable(der: &[u8]) -> bool {
    X509Certificate::from_der(der).is_ok_and(|(rest, _)| rest.is_empty())
}

/// Whether a certificate in DER may sign others.
pub fn is_ca(der: &[u8]) -> bool {
    X509Certificate::from_der(der).is_ok_and(|(_, certificate)| certificate.is_ca())
}

/// Whether `pattern` of a certificate covers `name` (RFC 6125 §6.4.3: one label for `*`).
pub fn covers(pattern: &str, name: &str) -> bool {
    if pattern == name {
        return true;
    }
    match (pattern.strip_prefix("*."), name.split_once('.')) {
        (Some(pattern), Some((_, parent))) => pattern == parent,
        _ => false,
    }
}

/// Whether a name is this one, which is given without its outer SEQUENCE.
fn is_named(name: &X509Name<'_>, inner: &[u8]) -> bool {
    let raw = name.as_raw();
    raw.ends_with(inner) && raw.len() - inner.len() <= 4
}

/// Where the issuer's certificate can be fetched.
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
    fn no_certificate_and_no_der_are_no_chain() {
        assert_eq!(Chain::parse([]).err(), Some(Unreadable::Empty));
        let error = Chain::parse([&b"0"[..]]).err();
        assert!(matches!(error, Some(Unreadable::Certificate(1, _))), "{error:?}");
    }
}
