//! Which chains of certificates are trusted, judged as OpenSSL judges them.
//!
//! webpki finds the paths from a leaf to a trusted certificate and checks all that stands on them.
//! Three rules of OpenSSL are added, because configurations made for nginx count on them:
//!
//! - A path has no more than so many intermediates (`X509_VERIFY_PARAM_set_depth`). webpki shows
//!   every path that it has verified and looks for another when one is refused, so that a short
//!   path behind a long one is found too.
//! - Only a certificate that issued itself is a root. The others of a file of CAs are intermediates
//!   that need not be sent, and count. One whose issuer is not in the file ends a path as well,
//!   where OpenSSL would trust nobody.
//! - A certificate that issued itself and is trusted may be shown by its owner, even if it is a
//!   CA's.

mod fault;

use std::cell::Cell;

use aws_lc_rs::digest::{SHA256, digest};
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage, RevocationOptions,
    RevocationOptionsBuilder, VerifiedPath, anchor_from_trusted_cert,
};
use x509_parser::prelude::{FromDer, X509Certificate};

pub use fault::Fault;

/// Whose certificates are judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    /// Those that clients show to us.
    Client,
    /// Those that upstreams show to us.
    Server,
}

/// What makes a chain trusted.
#[derive(Debug)]
pub(super) struct Trust {
    peer: Peer,
    /// The intermediates that may stand between a leaf and a root.
    depth: usize,
    /// Where a path ends.
    roots: Vec<TrustAnchor<'static>>,
    /// SHA-256 of the roots, to know one that is shown as a leaf.
    shown: Vec<[u8; 32]>,
    /// Intermediates that need not be sent.
    intermediates: Vec<CertificateDer<'static>>,
    /// The names of all of them.
    names: Vec<Box<[u8]>>,
    crls: Vec<CertRevocationList<'static>>,
}

impl Trust {
    /// Trusts these certificates of CAs. With revocation lists, each certificate of a path but
    /// the root must be known to a list, and not be on it.
    pub(super) fn new(
        peer: Peer,
        authorities: Vec<CertificateDer<'static>>,
        crls: Vec<CertRevocationList<'static>>,
        depth: u32,
    ) -> Self {
        let depth = usize::try_from(depth).unwrap_or(usize::MAX);
        let read = |authority| Some((Names::read(&authority)?, authority));
        let authorities: Vec<_> = authorities.into_iter().filter_map(read).collect();
        let mut trust = Self {
            peer,
            depth,
            roots: Vec::new(),
            shown: Vec::new(),
            intermediates: Vec::new(),
            names: authorities.iter().map(|(names, _)| names.subject.clone()).collect(),
            crls,
        };
        for (names, authority) in authorities {
            if names.is_self_issued() || !trust.knows(&names.issuer) {
                trust.add_root(&authority, &names);
            } else {
                trust.intermediates.push(authority);
            }
        }
        trust
    }

    fn add_root(&mut self, authority: &CertificateDer<'_>, names: &Names) {
        let Ok(anchor) = anchor_from_trusted_cert(authority) else { return };
        self.roots.push(anchor.to_owned());
        if names.is_self_issued() {
            self.shown.push(sha256(authority));
        }
    }

    /// Whether `leaf` is trusted, helped by the other certificates that its owner has sent.
    pub(super) fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        sent: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Fault> {
        if self.is_shown_root(leaf) {
            return self.check_shown_root(leaf, now);
        }
        self.find_path(leaf, sent, now).map_err(|fault| match fault {
            // webpki has not looked at the issuer of such a leaf.
            Fault::UnknownIssuer | Fault::Unusable(_) => {
                expiry(leaf, now).or_else(|| self.missing(leaf, sent)).unwrap_or(fault)
            }
            fault => fault,
        })
    }

    fn find_path(
        &self,
        leaf: &CertificateDer<'_>,
        sent: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Fault> {
        let all = sent.iter().chain(&self.intermediates);
        let intermediates: Vec<_> = all.map(|one| CertificateDer::from(&one[..])).collect();
        let crls: Vec<_> = self.crls.iter().collect();
        let too_long = Cell::new(false);
        let is_short = |path: &VerifiedPath<'_>| {
            if path.intermediate_certificates().count() <= self.depth {
                return Ok(());
            }
            too_long.set(true);
            Err(webpki::Error::MaximumPathDepthExceeded)
        };
        let usage = match self.peer {
            Peer::Client => KeyUsage::client_auth(),
            Peer::Server => KeyUsage::server_auth(),
        };
        let leaf = EndEntityCert::try_from(leaf)?;
        let found = leaf.verify_for_usage(
            crate::tls::provider().signature_verification_algorithms.all,
            &self.roots,
            &intermediates,
            now,
            usage,
            revocation(&crls),
            Some(&is_short),
        );
        match found {
            Ok(_) => Ok(()),
            // Whatever other paths lack: there is one that lacks nothing but shortness.
            Err(_) if too_long.get() => Err(Fault::TooLong),
            Err(error) => Err(error.into()),
        }
    }

    fn is_shown_root(&self, leaf: &CertificateDer<'_>) -> bool {
        // Whether it was revoked is only asked of paths.
        self.crls.is_empty() && self.shown.contains(&sha256(leaf))
    }

    /// What OpenSSL asks of a root that is a leaf: that it is valid now and made for this purpose.
    fn check_shown_root(&self, leaf: &CertificateDer<'_>, now: UnixTime) -> Result<(), Fault> {
        if let Some(fault) = expiry(leaf, now) {
            return Err(fault);
        }
        let unreadable = || Fault::Unusable(webpki::Error::BadDer);
        let (_, leaf) = X509Certificate::from_der(leaf).map_err(|_| unreadable())?;
        let extended = leaf.extended_key_usage().map_err(|_| unreadable())?;
        let fits = extended.is_none_or(|extended| match self.peer {
            Peer::Client => extended.value.client_auth,
            Peer::Server => extended.value.server_auth,
        });
        let usage = leaf.key_usage().map_err(|_| unreadable())?;
        let signs = usage.is_none_or(|usage| {
            let encipher = self.peer == Peer::Server && usage.value.key_encipherment();
            usage.value.digital_signature() || usage.value.key_agreement() || encipher
        });
        if fits && signs { Ok(()) } else { Err(Fault::Purpose) }
    }

    /// Which link a chain misses that leads to none of ours; `None` when its names do lead to one.
    ///
    /// OpenSSL follows the names one step farther than the depth allows and says what it finds
    /// there.
    fn missing(&self, leaf: &CertificateDer<'_>, sent: &[CertificateDer<'_>]) -> Option<Fault> {
        let mut rest: Vec<Names> = sent.iter().filter_map(Names::read).collect();
        let mut last = Names::read(leaf)?;
        let mut steps = 0;
        loop {
            if last.is_self_issued() {
                let alone = steps == 0;
                return Some(if alone { Fault::SelfSigned } else { Fault::SelfSignedInChain });
            }
            if self.knows(&last.issuer) {
                return None;
            }
            let issuer = rest.iter().position(|names| names.subject == last.issuer);
            match issuer.filter(|_| steps <= self.depth) {
                Some(index) => last = rest.swap_remove(index),
                None if steps == 0 => return Some(Fault::UnverifiedLeaf),
                None => return Some(Fault::UnknownIssuer),
            }
            steps += 1;
        }
    }

    /// Whether a trusted certificate has this name.
    fn knows(&self, name: &[u8]) -> bool {
        self.names.iter().any(|known| **known == *name)
    }
}

fn revocation<'a>(crls: &'a [&'a CertRevocationList<'a>]) -> Option<RevocationOptions<'a>> {
    // None are asked when there is none.
    let asking = RevocationOptionsBuilder::new(crls).ok()?;
    Some(asking.with_expiration_policy(ExpirationPolicy::Enforce).build())
}

fn sha256(certificate: &CertificateDer<'_>) -> [u8; 32] {
    digest(&SHA256, certificate).as_ref().try_into().expect("SHA-256 is 32 bytes long")
}

/// What is wrong with the time, if anything.
fn expiry(certificate: &CertificateDer<'_>, now: UnixTime) -> Option<Fault> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let validity = certificate.validity();
    if now < validity.not_before.timestamp() {
        return Some(Fault::NotYetValid);
    }
    (now > validity.not_after.timestamp()).then_some(Fault::Expired)
}

/// Who a certificate is and who issued it, in DER.
struct Names {
    subject: Box<[u8]>,
    issuer: Box<[u8]>,
}

impl Names {
    fn read(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        Some(Self {
            subject: certificate.subject().as_raw().into(),
            issuer: certificate.issuer().as_raw().into(),
        })
    }

    fn is_self_issued(&self) -> bool {
        self.subject == self.issuer
    }
}

#[cfg(test)]
mod tests;
