//! The way from a leaf to a trusted certificate, looked for as OpenSSL 3 looks for it.
//!
//! Trusted issuers come before those that the peer has sent; once one is found, no sent one follows. Of
//! several that fit, the first that is valid now is taken, or the one that lives longest. There is no
//! second try.

use crate::anchor::{Anchor, Stated};
use crate::certificate::Certificate;
use crate::fault::Fault;

/// A way up from a leaf, whether or not it leads anywhere.
pub(crate) struct Path {
    /// The leaf, and above each certificate its issuer.
    pub(crate) certificates: Vec<Certificate>,
    /// How many of them were sent and not found among those that are trusted.
    pub(crate) sent: usize,
    /// What the last certificate says of the purpose, if it is a trusted one.
    pub(crate) stated: Stated,
    /// Whether it ends at one that may be trusted.
    pub(crate) is_trusted: bool,
    /// Complaints of the search.
    pub(crate) faults: Vec<Fault>,
}

/// What paths are made from.
pub(crate) struct Search<'a> {
    pub(crate) anchors: &'a [Anchor],
    /// As many certificates may stand below the last one.
    pub(crate) max: usize,
    pub(crate) now: i64,
}

/// What came of looking for a trusted issuer.
enum Step {
    /// There is none.
    None,
    /// There is one, and there may be one above it.
    Up,
    /// The path ends here.
    Ended,
}

impl Path {
    pub(crate) fn last(&self) -> &Certificate {
        self.certificates.last().expect("the leaf at least")
    }

    /// Whether all of it was sent.
    pub(crate) fn is_sent(&self) -> bool {
        self.sent == self.certificates.len()
    }
}

impl Search<'_> {
    /// Goes up from `leaf`, helped by the other certificates that were sent with it.
    pub(crate) fn path(&self, leaf: Certificate, mut sent: Vec<Certificate>) -> Path {
        let mut path = Path {
            certificates: vec![leaf],
            sent: 1,
            stated: Stated::Nothing,
            is_trusted: false,
            faults: Vec::new(),
        };
        while path.certificates.len() <= self.max {
            match self.trusted_step(&mut path) {
                Step::Ended => return path,
                Step::Up => continue,
                Step::None => {}
            }
            if !path.is_sent() || path.last().is_self_signed() {
                break;
            }
            let Some(index) = self.issuer(path.last(), &sent, &path.certificates) else { break };
            path.certificates.push(sent.remove(index));
            path.sent += 1;
        }
        path
    }

    /// Goes one step up to a trusted certificate, if there is one.
    fn trusted_step(&self, path: &mut Path) -> Step {
        let last = path.last();
        let Some(anchor) = self.anchor(last) else { return Step::None };
        if last.is_self_signed() {
            // Of the same name, but another.
            if !anchor.certificate.is(last) {
                return Step::None;
            }
            if path.is_sent() {
                path.sent -= 1;
            }
        } else {
            path.certificates.push(anchor.certificate.clone());
        }
        path.stated = anchor.stated;
        let is_root = anchor.certificate.is_self_signed();
        match anchor.stated {
            Stated::Rejected => path.faults.push(Fault::REJECTED),
            Stated::Trusted => path.is_trusted = true,
            Stated::Nothing => path.is_trusted = is_root,
        }
        if path.is_trusted || is_root { Step::Ended } else { Step::Up }
    }

    /// The trusted issuer of a certificate.
    fn anchor(&self, of: &Certificate) -> Option<&Anchor> {
        let fitting = self.anchors.iter().filter(|anchor| anchor.certificate.likely_issued(of));
        self.best(fitting, |anchor| &anchor.certificate)
    }

    /// The issuer of a certificate among those that were sent and are not in the path yet.
    fn issuer(
        &self,
        of: &Certificate,
        sent: &[Certificate],
        path: &[Certificate],
    ) -> Option<usize> {
        let fits =
            |one: &Certificate| one.likely_issued(of) && !path.iter().any(|known| known.is(one));
        let fitting = sent.iter().enumerate().filter(|(_, one)| fits(one));
        self.best(fitting, |(_, one)| one).map(|(index, _)| index)
    }

    fn best<T>(
        &self,
        fitting: impl Iterator<Item = T>,
        certificate: impl Fn(&T) -> &Certificate,
    ) -> Option<T> {
        let mut longest = None;
        for one in fitting {
            let is_valid = certificate(&one).time_faults(self.now).next().is_none();
            if is_valid {
                return Some(one);
            }
            let lives_longer = longest
                .as_ref()
                .is_none_or(|known| certificate(&one).end() > certificate(known).end());
            if lives_longer {
                longest = Some(one);
            }
        }
        longest
    }
}
