//! Whom to trust, and what is asked of every certificate of a path.

use crate::anchor::{Anchor, Stated};
use crate::certificate::{Authority, Certificate};
use crate::fault::Fault;
use crate::library::{Complaint, Store};
use crate::path::{Path, Search};
use crate::peer::Peer;
use crate::revocation::RevocationList;

/// OpenSSL's own bound of a path, also where a configuration allows more.
const MAX_DEPTH: usize = 100;

/// What makes a chain trusted.
#[derive(Debug)]
pub struct Trust {
    peer: Peer,
    /// The certificates that may stand between a leaf and a root.
    depth: usize,
    anchors: Vec<Anchor>,
    store: Store,
    has_lists: bool,
}

impl Trust {
    /// Trusts these certificates. With revocation lists, each certificate of a path must be known to a
    /// list, and not be on it. `None` when there is no memory for it.
    pub fn new(
        peer: Peer,
        anchors: Vec<Anchor>,
        lists: &[RevocationList],
        depth: u32,
    ) -> Option<Self> {
        let depth = usize::try_from(depth).unwrap_or(MAX_DEPTH).min(MAX_DEPTH);
        let store = Store::new(lists)?;
        Some(Self { peer, depth, anchors, store, has_lists: !lists.is_empty() })
    }

    /// Whether `leaf` is trusted at `now` (seconds since the Unix epoch), helped by the other
    /// certificates that its owner has sent; all in DER.
    ///
    /// # Errors
    /// OpenSSL's last complaint.
    pub fn verify<'a>(
        &self,
        leaf: &[u8],
        sent: impl IntoIterator<Item = &'a [u8]>,
        now: i64,
    ) -> Result<(), Fault> {
        let leaf = Certificate::parse(leaf).ok_or(Fault::UNSPECIFIED)?;
        // OpenSSL ends the handshake when it cannot read one of them.
        let sent: Option<Vec<_>> = sent.into_iter().map(Certificate::parse).collect();
        let sent = sent.ok_or(Fault::UNSPECIFIED)?;
        let mut faults = Faults::default();
        faults.add_if(!leaf.has_strong_key(), Fault::WEAK_KEY);
        let search = Search { anchors: &self.anchors, max: self.depth + 1, now };
        let path = search.path(leaf, sent);
        self.judge(&path, now, &mut faults);
        faults.last().map_or(Ok(()), Err)
    }

    /// OpenSSL's `verify_chain`.
    fn judge(&self, path: &Path, now: i64, faults: &mut Faults) {
        let verdict = self.store.verify(&path.certificates, path.sent, self.peer, now);
        self.check_end(path, faults);
        self.check_extensions(path, faults);
        check_strength(path, faults);
        self.check_revocation(path, &verdict.complaints, faults);
        check_signatures(path, &verdict.complaints, now, faults);
        let of_names = verdict.complaints.iter().filter(|complaint| is_of_names(complaint.fault));
        faults.extend(of_names.map(|complaint| complaint.fault));
        let resources = path.certificates.iter().any(Certificate::has_resources);
        faults.add_if(resources, Fault::RESOURCE);
        // The last word is not left to a complaint that may be passed over.
        if faults.is_soft() {
            let own: Vec<Fault> = faults.0.clone();
            let is_unshared =
                |one: &&Complaint| !own.contains(&one.fault) && !is_forgiven(one, path);
            let unshared = verdict.complaints.iter().filter(is_unshared);
            faults.extend(unshared.map(|complaint| complaint.fault));
        }
        // The library has not seen everything.
        faults.add_if(!verdict.is_complete && faults.is_soft(), Fault::UNSPECIFIED);
    }

    /// Where the path ends.
    fn check_end(&self, path: &Path, faults: &mut Faults) {
        faults.extend(path.faults.iter().copied());
        if path.is_trusted {
            return;
        }
        // A complaint that OpenSSL has already is told again instead.
        if let Some(known) = faults.last() {
            return faults.add(known);
        }
        let len = path.certificates.len();
        faults.add_if(len > self.depth + 1, Fault::TOO_LONG);
        faults.add(match (path.last().is_self_signed(), path.is_sent()) {
            (true, _) if len == 1 => Fault::SELF_SIGNED,
            (true, _) => Fault::SELF_SIGNED_IN_CHAIN,
            (false, true) => Fault::NO_LOCAL_ISSUER,
            (false, false) => Fault::NO_ISSUER,
        });
    }

    /// OpenSSL's `check_extensions`.
    fn check_extensions(&self, path: &Path, faults: &mut Faults) {
        let len = path.certificates.len();
        let mut between = 0;
        for (place, one) in path.certificates.iter().enumerate() {
            faults.add_if(one.has_unknown_critical_extension(), Fault::CRITICAL_EXTENSION);
            faults.add_if(one.is_proxy(), Fault::PROXY_CERTIFICATE);
            let is_end = place + 1 == len;
            faults.add_if(place > 0 && !may_issue(one, is_end), Fault::INVALID_CA);
            if len > 1 {
                faults.add_if(!one.has_readable_key(), Fault::UNSPECIFIED);
                faults.add_if(one.has_explicit_curve(), Fault::EXPLICIT_CURVE);
            }
            faults.add_if(!self.fits_purpose(path, place), Fault::PURPOSE);
            let is_bound = one.path_length().is_some_and(|bound| between > bound);
            faults.add_if(place > 1 && is_bound, Fault::PATH_LENGTH);
            if place > 0 && !one.is_self_issued() {
                between += 1;
            }
        }
    }

    fn fits_purpose(&self, path: &Path, place: usize) -> bool {
        let one = &path.certificates[place];
        let is_end = place + 1 == path.certificates.len();
        match path.stated {
            Stated::Trusted if is_end => true,
            Stated::Rejected if is_end => false,
            _ if place == 0 => one.is_for(self.peer),
            _ => one.may_be_above(self.peer) && one.authority() != Authority::No,
        }
    }

    /// What the library has to say of revocation lists.
    fn check_revocation(&self, path: &Path, complaints: &[Complaint], faults: &mut Faults) {
        faults.extend(
            complaints.iter().map(|complaint| complaint.fault).filter(|fault| is_of_lists(*fault)),
        );
        // The library skips such points, and then may take a list that covers less than OpenSSL asks
        // for.
        let is_partial = |one: &Certificate| one.has_partial_distribution_point();
        let partial = self.has_lists && path.certificates.iter().any(is_partial);
        faults.add_if(partial, Fault::NO_CRL);
    }
}

/// Whether a certificate may stand above others. Only at the end of a path is one good enough whose
/// basic constraints say nothing.
fn may_issue(one: &Certificate, is_end: bool) -> bool {
    match one.authority() {
        Authority::Yes => true,
        Authority::Tolerated => is_end,
        Authority::No => false,
    }
}

/// OpenSSL's `check_auth_level` at level 2: 112 bits, as Debian has it.
fn check_strength(path: &Path, faults: &mut Faults) {
    let len = path.certificates.len();
    for (place, one) in path.certificates.iter().enumerate() {
        faults.add_if(place > 0 && !one.has_strong_key(), Fault::WEAK_CA_KEY);
        faults.add_if(place + 1 < len && !one.has_strong_digest(), Fault::WEAK_DIGEST);
    }
}

/// OpenSSL's `internal_verify`, from the end of the path to the leaf.
fn check_signatures(path: &Path, complaints: &[Complaint], now: i64, faults: &mut Faults) {
    let end = path.certificates.len() - 1;
    let is_root = path.last().is_self_signed();
    faults.add_if(!is_root && end == 0, Fault::UNVERIFIED_LEAF);
    // Nothing is asked of a last one that is no root, but by the leaf that it is.
    let first = if is_root || end == 0 { end } else { end - 1 };
    for place in (0..=first).rev() {
        let one = &path.certificates[place];
        if let Some(issuer) = path.certificates.get(place + 1) {
            faults.add_if(!issuer.may_sign_certificates(), Fault::NO_CERTIFICATE_SIGNING);
        }
        let of_signature = |complaint: &&Complaint| {
            let is_one = [Fault::SIGNATURE, Fault::UNREADABLE_KEY].contains(&complaint.fault);
            is_one && complaint.place == place
        };
        faults.extend(complaints.iter().filter(of_signature).map(|complaint| complaint.fault));
        faults.extend(one.time_faults(now));
    }
}

/// Whether OpenSSL does not share a complaint of the library, so that it does not count.
fn is_forgiven(complaint: &Complaint, path: &Path) -> bool {
    let is_end = complaint.place + 1 == path.certificates.len();
    match complaint.fault {
        // Where a path ends and which end is good was found out before.
        Fault::NO_ISSUER
        | Fault::SELF_SIGNED
        | Fault::SELF_SIGNED_IN_CHAIN
        | Fault::NO_LOCAL_ISSUER
        | Fault::UNVERIFIED_LEAF => true,
        // The library takes no end without basic constraints, and nobody's word for a purpose.
        Fault::INVALID_CA => is_end && complaint.place > 0,
        Fault::PURPOSE => is_end && (complaint.place > 0 || path.stated == Stated::Trusted),
        _ => false,
    }
}

fn is_of_lists(fault: Fault) -> bool {
    matches!(fault.number(), 3 | 8 | 11 | 12 | 15 | 16 | 23 | 33 | 35 | 36 | 44 | 54)
}

fn is_of_names(fault: Fault) -> bool {
    matches!(fault.number(), 47..=53)
}

/// All complaints, in OpenSSL's order.
#[derive(Default)]
struct Faults(Vec<Fault>);

impl Faults {
    fn add(&mut self, fault: Fault) {
        self.0.push(fault);
    }

    fn add_if(&mut self, condition: bool, fault: Fault) {
        if condition {
            self.add(fault);
        }
    }

    fn extend(&mut self, faults: impl IntoIterator<Item = Fault>) {
        self.0.extend(faults);
    }

    fn last(&self) -> Option<Fault> {
        self.0.last().copied()
    }

    /// Whether there is none, or the last one may be passed over.
    fn is_soft(&self) -> bool {
        self.last().is_none_or(Fault::passes_without_ca)
    }
}

#[cfg(test)]
mod tests;
