//! Generated chains, and what becomes of them.
#![allow(clippy::unwrap_used)]

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateRevocationListParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::pki_types::CertificateRevocationListDer;
use webpki::OwnedCertRevocationList;

use super::*;

/// 2026-12-01.
const NOW: u64 = 1_796_083_200;

fn params(name: &str, is_ca: bool) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2026, 1, 1);
    params.not_after = date_time_ymd(2027, 1, 1);
    if is_ca {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    params
}

/// A CA that signs what is below it.
struct Ca {
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    fn root(name: &str) -> Self {
        Self::own(params(name, true))
    }

    fn own(params: CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    fn below(&self, name: &str) -> Self {
        self.below_with(params(name, true))
    }

    fn below_with(&self, params: CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    fn der(&self) -> CertificateDer<'static> {
        self.certificate.der().clone()
    }

    fn leaf(&self) -> CertificateDer<'static> {
        self.below_with(params("leaf", false)).der()
    }

    /// The list that says which serial numbers of this CA are revoked.
    fn crl(&self, revoked: &[u64]) -> CertRevocationList<'static> {
        let revoked = revoked.iter().map(|&serial_number| RevokedCertParams {
            serial_number: SerialNumber::from(serial_number),
            revocation_time: date_time_ymd(2026, 2, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 2, 1),
            next_update: date_time_ymd(2026, 12, 31),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list: CertificateRevocationListDer<'_> = list.signed_by(&self.issuer).unwrap().into();
        OwnedCertRevocationList::from_der(&list).unwrap().into()
    }
}

/// A root and so many CAs below each other.
fn tower(height: usize) -> Vec<Ca> {
    let mut cas = vec![Ca::root("root")];
    for level in 1..=height {
        cas.push(cas[level - 1].below(&format!("level {level}")));
    }
    cas
}

fn ders<'a>(cas: impl IntoIterator<Item = &'a Ca>) -> Vec<CertificateDer<'static>> {
    cas.into_iter().map(Ca::der).collect()
}

fn trust(authorities: &[CertificateDer<'static>], depth: u32) -> Trust {
    Trust::new(Peer::Client, authorities.to_vec(), Vec::new(), depth)
}

fn now() -> UnixTime {
    UnixTime::since_unix_epoch(std::time::Duration::from_secs(NOW))
}

#[test]
fn as_many_intermediates_are_allowed_as_the_depth_says() {
    for height in 0..=3 {
        let cas = tower(height);
        let leaf = cas[height].leaf();
        let mut sent = ders(cas[1..].iter().rev());
        for depth in 0..=3 {
            for peer in [Peer::Client, Peer::Server] {
                let trust = Trust::new(peer, vec![cas[0].der()], Vec::new(), depth);
                let fits = height <= usize::try_from(depth).unwrap();
                let expected = if fits { Ok(()) } else { Err(Fault::TooLong) };
                let case = format!("{height} intermediates, depth {depth}");
                assert_eq!(trust.verify(&leaf, &sent, now()), expected, "{case}");
                // The root is no intermediate, sent or not.
                sent.push(cas[0].der());
                assert_eq!(trust.verify(&leaf, &sent, now()), expected, "{case} with the root");
                sent.pop();
            }
        }
    }
}

/// webpki goes no farther, whatever the depth is.
#[test]
fn more_than_six_intermediates_are_too_long() {
    let cas = tower(7);
    let sent = ders(cas[1..].iter().rev());
    let trust = trust(&[cas[0].der()], 100);
    assert_eq!(trust.verify(&cas[6].leaf(), &sent[1..], now()), Ok(()));
    assert_eq!(trust.verify(&cas[7].leaf(), &sent, now()), Err(Fault::TooLong));
}

/// The issuer of the leaf is certified twice: by the root, and by a CA that the root has certified.
#[test]
fn the_short_way_is_found_behind_the_long_one() {
    let root = Ca::root("root");
    let other = root.below("other");
    let issuer = root.below("issuer");
    let leaf = issuer.leaf();
    let key = issuer.issuer.key();
    let long = params("issuer", true).signed_by(key, &other.issuer).unwrap().der().clone();
    let trust = |depth| trust(&[root.der()], depth);
    let (short, other) = (issuer.der(), other.der());
    for sent in [
        [long.clone(), other.clone(), short.clone()],
        [short.clone(), other.clone(), long.clone()],
        [other.clone(), long.clone(), short.clone()],
    ] {
        assert_eq!(trust(1).verify(&leaf, &sent, now()), Ok(()));
        assert_eq!(trust(0).verify(&leaf, &sent, now()), Err(Fault::TooLong));
    }
    let sent = [long, other];
    assert_eq!(trust(2).verify(&leaf, &sent, now()), Ok(()));
    assert_eq!(trust(1).verify(&leaf, &sent, now()), Err(Fault::TooLong));
}

#[test]
fn intermediates_that_are_trusted_count_and_are_judged() {
    let cas = tower(2);
    let leaf = cas[2].leaf();
    for authorities in [ders(&cas), ders(cas.iter().rev())] {
        assert_eq!(trust(&authorities, 2).verify(&leaf, &[], now()), Ok(()));
        assert_eq!(trust(&authorities, 1).verify(&leaf, &[], now()), Err(Fault::TooLong));
    }
    let mut old = params("old", true);
    old.not_after = date_time_ymd(2026, 6, 1);
    let old = cas[0].below_with(old);
    let authorities = [cas[0].der(), old.der()];
    assert_eq!(trust(&authorities, 1).verify(&old.leaf(), &[], now()), Err(Fault::Expired));
    let mut revoked = params("revoked", true);
    revoked.serial_number = Some(SerialNumber::from(7));
    let revoked = cas[0].below_with(revoked);
    let leaf = revoked.leaf();
    for (serial, expected) in [(7, Err(Fault::Revoked)), (8, Ok(()))] {
        let crls = vec![cas[0].crl(&[serial]), revoked.crl(&[])];
        let authorities = vec![cas[0].der(), revoked.der()];
        let trust = Trust::new(Peer::Client, authorities, crls, 1);
        assert_eq!(trust.verify(&leaf, &[], now()), expected);
    }
}

#[test]
fn an_intermediate_without_its_issuer_ends_a_path() {
    let cas = tower(2);
    let (leaf, sent) = (cas[2].leaf(), [cas[2].der()]);
    let only = |index: usize, depth| trust(&[cas[index].der()], depth);
    assert_eq!(only(2, 0).verify(&leaf, &sent, now()), Ok(()));
    assert_eq!(only(1, 1).verify(&leaf, &sent, now()), Ok(()));
    assert_eq!(only(1, 0).verify(&leaf, &sent, now()), Err(Fault::TooLong));
}

#[test]
fn what_issued_itself_and_is_trusted_may_be_shown() {
    let change = |change: &dyn Fn(&mut CertificateParams), is_ca| {
        let mut params = params("own", is_ca);
        change(&mut params);
        Ca::own(params).der()
    };
    let plain = |_: &mut CertificateParams| {};
    let old = |params: &mut CertificateParams| params.not_after = date_time_ymd(2026, 6, 1);
    let young = |params: &mut CertificateParams| params.not_before = date_time_ymd(2026, 12, 24);
    let signs = |params: &mut CertificateParams| {
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    };
    let serves = |params: &mut CertificateParams| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    };
    for (own, client, server) in [
        (change(&plain, false), Ok(()), Ok(())),
        (change(&plain, true), Ok(()), Ok(())),
        (change(&old, true), Err(Fault::Expired), Err(Fault::Expired)),
        (change(&young, true), Err(Fault::NotYetValid), Err(Fault::NotYetValid)),
        (change(&signs, true), Err(Fault::Purpose), Err(Fault::Purpose)),
        (change(&serves, true), Err(Fault::Purpose), Ok(())),
    ] {
        for (peer, expected) in [(Peer::Client, client), (Peer::Server, server)] {
            let trust = Trust::new(peer, vec![own.clone()], Vec::new(), 0);
            assert_eq!(trust.verify(&own, &[], now()), expected, "{peer:?}");
        }
    }
    // Another one of the same name is another one.
    let (own, mimic) = (change(&plain, true), change(&plain, true));
    assert!(trust(&[own], 1).verify(&mimic, &[], now()).is_err());
}

#[test]
fn a_root_that_is_shown_is_not_spared_from_revocation() {
    let own = Ca::root("own");
    let trust = Trust::new(Peer::Client, vec![own.der()], vec![own.crl(&[])], 1);
    assert!(trust.verify(&own.der(), &[], now()).is_err());
}

#[test]
fn a_stranger_is_told_what_misses() {
    let (cas, strangers) = (tower(1), tower(2));
    let strangers_root = Ca::root("unrelated");
    let strange = strangers_root.below("between");
    let trust = |depth| trust(&[cas[0].der()], depth);
    let verify = |depth, leaf: &Ca, sent: &[CertificateDer<'static>]| {
        trust(depth).verify(&leaf.der(), sent, now()).unwrap_err()
    };
    let leaf = strange.below_with(params("leaf", false));
    let (between, root) = (strange.der(), strangers_root.der());
    assert_eq!(verify(1, &leaf, &[]), Fault::UnverifiedLeaf);
    assert_eq!(verify(1, &leaf, std::slice::from_ref(&between)), Fault::UnknownIssuer);
    assert_eq!(verify(1, &leaf, &[between.clone(), root.clone()]), Fault::SelfSignedInChain);
    assert_eq!(verify(0, &leaf, &[between, root]), Fault::UnknownIssuer);
    assert_eq!(verify(1, &strangers_root, &[]), Fault::SelfSigned);
    // The name of a CA is not its key.
    let impostor = strangers[0].below_with(params("leaf", false));
    assert_eq!(verify(1, &impostor, &[]), Fault::Signature);
    let nobody = Trust::new(Peer::Client, Vec::new(), Vec::new(), 1);
    assert_eq!(nobody.verify(&leaf.der(), &[], now()), Err(Fault::UnverifiedLeaf));
}
