//! Generated chains, and what becomes of them.
#![allow(clippy::unwrap_used)]

use rcgen::{
    BasicConstraints, Certificate as Made, CertificateParams, CertificateRevocationListParams,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SerialNumber, date_time_ymd,
};

use super::*;

type Der = Vec<u8>;

/// 2026-12-01.
const NOW: i64 = 1_796_083_200;

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
    certificate: Made,
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

    fn der(&self) -> Der {
        self.certificate.der().to_vec()
    }

    fn leaf(&self) -> Der {
        self.below_with(params("leaf", false)).der()
    }

    /// The list that says which serial numbers of this CA are revoked.
    fn crl(&self, revoked: &[u64]) -> RevocationList {
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
        RevocationList::parse(list.signed_by(&self.issuer).unwrap().der()).unwrap()
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

fn ders<'a>(cas: impl IntoIterator<Item = &'a Ca>) -> Vec<Der> {
    cas.into_iter().map(Ca::der).collect()
}

fn trust_of(peer: Peer, authorities: &[Der], lists: &[RevocationList], depth: u32) -> Trust {
    let anchors = authorities.iter().map(|der| Anchor::parse(der, peer).unwrap()).collect();
    Trust::new(peer, anchors, lists, depth).unwrap()
}

fn trust(authorities: &[Der], depth: u32) -> Trust {
    trust_of(Peer::Client, authorities, &[], depth)
}

fn verify(trust: &Trust, leaf: &Der, sent: &[Der]) -> Result<(), Fault> {
    trust.verify(leaf, sent.iter().map(Vec::as_slice), NOW)
}

#[test]
fn as_many_intermediates_are_allowed_as_the_depth_says() {
    for height in 0..=3 {
        let cas = tower(height);
        let leaf = cas[height].leaf();
        let mut sent = ders(cas[1..].iter().rev());
        for depth in 0..=3 {
            for peer in [Peer::Client, Peer::Server] {
                let trust = trust_of(peer, &[cas[0].der()], &[], depth);
                let fits = height <= usize::try_from(depth).unwrap();
                let expected = if fits { Ok(()) } else { Err(Fault::NO_LOCAL_ISSUER) };
                let case = format!("{height} intermediates, depth {depth}");
                assert_eq!(verify(&trust, &leaf, &sent), expected, "{case}");
                // The root is no intermediate, sent or not.
                sent.push(cas[0].der());
                assert_eq!(verify(&trust, &leaf, &sent), expected, "{case} with the root");
                sent.pop();
            }
        }
    }
}

/// The issuer of the leaf is certified twice: by the root, and by a CA that the root has certified.
#[test]
fn of_two_ways_the_first_is_gone() {
    let root = Ca::root("root");
    let other = root.below("other");
    let issuer = root.below("issuer");
    let leaf = issuer.leaf();
    let key = issuer.issuer.key();
    let long = params("issuer", true).signed_by(key, &other.issuer).unwrap().der().to_vec();
    let trust = |depth| trust(&[root.der()], depth);
    let (short, other) = (issuer.der(), other.der());
    // The first that fits is taken, and there is no second try.
    for (sent, depth_needed) in [
        ([long.clone(), other.clone(), short.clone()], 2),
        ([short.clone(), other.clone(), long.clone()], 1),
        ([other.clone(), long.clone(), short.clone()], 2),
    ] {
        for depth in 0..=2 {
            let expected = if depth < depth_needed { Err(Fault::NO_LOCAL_ISSUER) } else { Ok(()) };
            assert_eq!(verify(&trust(depth), &leaf, &sent), expected, "depth {depth}");
        }
    }
}

#[test]
fn intermediates_that_are_trusted_count_and_are_judged() {
    let cas = tower(2);
    let leaf = cas[2].leaf();
    for authorities in [ders(&cas), ders(cas.iter().rev())] {
        assert_eq!(verify(&trust(&authorities, 2), &leaf, &[]), Ok(()));
        assert_eq!(verify(&trust(&authorities, 1), &leaf, &[]), Err(Fault::NO_ISSUER));
    }
    let mut old = params("old", true);
    old.not_after = date_time_ymd(2026, 6, 1);
    let old = cas[0].below_with(old);
    let authorities = [cas[0].der(), old.der()];
    assert_eq!(verify(&trust(&authorities, 1), &old.leaf(), &[]), Err(Fault::EXPIRED));
    let mut revoked = params("revoked", true);
    revoked.serial_number = Some(SerialNumber::from(7));
    let revoked = cas[0].below_with(revoked);
    let leaf = revoked.leaf();
    for (serial, expected) in [(7, Err(Fault::REVOKED)), (8, Ok(()))] {
        let crls = vec![cas[0].crl(&[serial]), revoked.crl(&[])];
        let authorities = vec![cas[0].der(), revoked.der()];
        let trust = trust_of(Peer::Client, &authorities, &crls, 1);
        assert_eq!(verify(&trust, &leaf, &[]), expected);
    }
}

#[test]
fn an_intermediate_without_its_issuer_makes_nobody_trusted() {
    let cas = tower(2);
    let (leaf, sent) = (cas[2].leaf(), [cas[2].der()]);
    let only = |index: usize, depth| trust(&[cas[index].der()], depth);
    for depth in 0..=3 {
        for index in [1, 2] {
            let found = verify(&only(index, depth), &leaf, &sent);
            let expected =
                if index == 1 && depth == 0 { Fault::NO_LOCAL_ISSUER } else { Fault::NO_ISSUER };
            assert_eq!(found, Err(expected), "{index}, depth {depth}");
        }
    }
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
        (change(&old, true), Err(Fault::EXPIRED), Err(Fault::EXPIRED)),
        (change(&young, true), Err(Fault::NOT_YET_VALID), Err(Fault::NOT_YET_VALID)),
        (change(&signs, true), Err(Fault::PURPOSE), Err(Fault::PURPOSE)),
        (change(&serves, true), Err(Fault::PURPOSE), Ok(())),
    ] {
        for (peer, expected) in [(Peer::Client, client), (Peer::Server, server)] {
            let trust = trust_of(peer, std::slice::from_ref(&own), &[], 0);
            assert_eq!(verify(&trust, &own, &[]), expected, "{peer:?}");
        }
    }
    // Another one of the same name is another one.
    let (own, mimic) = (change(&plain, true), change(&plain, true));
    assert!(verify(&trust(&[own], 1), &mimic, &[]).is_err());
}

#[test]
fn a_root_that_is_shown_is_not_spared_from_revocation() {
    let mut params = params("own", true);
    params.serial_number = Some(SerialNumber::from(7));
    let (own, other) = (Ca::own(params), Ca::root("other"));
    for (list, expected) in [
        (own.crl(&[]), Ok(())),
        (own.crl(&[7]), Err(Fault::REVOKED)),
        (other.crl(&[]), Err(Fault::NO_CRL)),
    ] {
        let trust = trust_of(Peer::Client, &[own.der()], &[list], 1);
        assert_eq!(verify(&trust, &own.der(), &[]), expected);
    }
}

#[test]
fn a_trusted_certificate_may_say_for_what() {
    let root = Ca::root("root");
    let client = b"\x06\x08\x2b\x06\x01\x05\x05\x07\x03\x02";
    let (trusted, rejected) = (b"\x30\x0c\x30\x0a", b"\x30\x0c\xa0\x0a");
    let with = |ca: &Ca, settings: &[u8]| {
        let der = [&ca.der(), settings, client].concat();
        let anchor = Anchor::parse(&der, Peer::Client).unwrap();
        Trust::new(Peer::Client, vec![anchor], &[], 1).unwrap()
    };
    assert_eq!(verify(&with(&root, rejected), &root.leaf(), &[]), Err(Fault::PURPOSE));
    // One that says it is trusted need be no root.
    let below = root.below("below");
    assert_eq!(verify(&with(&below, trusted), &below.leaf(), &[]), Ok(()));
}

#[test]
fn a_stranger_is_told_what_misses() {
    let (cas, strangers) = (tower(1), tower(2));
    let strangers_root = Ca::root("unrelated");
    let strange = strangers_root.below("between");
    let trust = |depth| trust(&[cas[0].der()], depth);
    let verify =
        |depth, leaf: &Ca, sent: &[Der]| verify(&trust(depth), &leaf.der(), sent).unwrap_err();
    let leaf = strange.below_with(params("leaf", false));
    let (between, root) = (strange.der(), strangers_root.der());
    assert_eq!(verify(1, &leaf, &[]), Fault::UNVERIFIED_LEAF);
    assert_eq!(verify(1, &leaf, std::slice::from_ref(&between)), Fault::NO_LOCAL_ISSUER);
    assert_eq!(verify(1, &leaf, &[between.clone(), root.clone()]), Fault::SELF_SIGNED_IN_CHAIN);
    assert_eq!(verify(0, &leaf, &[between, root]), Fault::NO_LOCAL_ISSUER);
    assert_eq!(verify(1, &strangers_root, &[]), Fault::SELF_SIGNED);
    // The name of a CA is not its key.
    let impostor = strangers[0].below_with(params("leaf", false));
    assert_eq!(verify(1, &impostor, &[]), Fault::SIGNATURE);
}

#[test]
fn nobody_is_trusted_where_nobody_is_named() {
    let leaf = Ca::root("root").leaf();
    assert_eq!(verify(&trust(&[], 1), &leaf, &[]), Err(Fault::UNVERIFIED_LEAF));
}

#[test]
fn an_ecdsa_key_that_may_only_agree_on_keys_signs_no_handshakes() {
    let leaf = |usages: Vec<KeyUsagePurpose>| {
        let mut params = params("leaf", false);
        params.key_usages = usages;
        Certificate::parse(&Ca::own(params).der()).unwrap()
    };
    assert!(leaf(vec![]).may_sign_handshakes());
    assert!(leaf(vec![KeyUsagePurpose::DigitalSignature]).may_sign_handshakes());
    assert!(!leaf(vec![KeyUsagePurpose::KeyAgreement]).may_sign_handshakes());
}
