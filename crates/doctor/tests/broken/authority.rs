//! A CA with one intermediate, as public ones are: short lives, and a URL where the intermediate can be
//! fetched.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CustomExtension, DnType, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SignatureAlgorithm,
};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};

/// Where the intermediate could be fetched.
pub(crate) const URL: &str = "http://ca.test/intermediate.der";

/// Authority information access and the method "CA issuers" (RFC 5280 §4.2.2.1).
const AIA: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 1, 1];
const CA_ISSUERS: &[u8] = b"\x06\x08\x2b\x06\x01\x05\x05\x07\x30\x02";

const DAY: Duration = Duration::from_secs(86_400);

pub(crate) struct Authority {
    root: Certificate,
    intermediate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its key.
pub(crate) struct Leaf {
    certificate: CertificateDer<'static>,
    key: Vec<u8>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        Self::named("doctor test root", "doctor test intermediate")
    }

    pub(crate) fn named(root: &str, intermediate: &str) -> Self {
        let (root_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let root_params = ca(root);
        let root = root_params.self_signed(&root_key).unwrap();
        let root_issuer = Issuer::new(root_params, root_key);
        let params = ca(intermediate);
        let intermediate = params.signed_by(&key, &root_issuer).unwrap();
        Self { root, intermediate, issuer: Issuer::new(params, key) }
    }

    pub(crate) fn root(&self) -> CertificateDer<'static> {
        self.root.der().clone()
    }

    pub(crate) fn intermediate(&self) -> CertificateDer<'static> {
        self.intermediate.der().clone()
    }

    /// A certificate for `a.test` that began `from` days ago and has `to` days left.
    pub(crate) fn leaf(&self, name: &str, from: i64, to: i64) -> Leaf {
        self.leaf_with(name, from, to, &rcgen::PKCS_ECDSA_P256_SHA256)
    }

    pub(crate) fn leaf_with(
        &self,
        name: &str,
        from: i64,
        to: i64,
        algorithm: &'static SignatureAlgorithm,
    ) -> Leaf {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let params = params(name, from, to);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Leaf { certificate: certificate.der().clone(), key: key.serialize_der() }
    }

    /// What a server should send.
    pub(crate) fn server(&self, leaf: &Leaf) -> Arc<ServerConfig> {
        Arc::new(leaf.server(&[self.intermediate()]))
    }
}

impl Leaf {
    /// One that signs itself.
    pub(crate) fn self_signed(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = params(name, 30, 60).self_signed(&key).unwrap();
        Self { certificate: certificate.der().clone(), key: key.serialize_der() }
    }

    /// What a server shows that sends these certificates behind this one.
    pub(crate) fn certified(&self, others: &[CertificateDer<'static>]) -> CertifiedKey {
        let chain = std::iter::once(&self.certificate).chain(others).cloned().collect();
        let key = PrivatePkcs8KeyDer::from(self.key.clone()).into();
        CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).unwrap()
    }

    /// Such a server.
    pub(crate) fn server(&self, others: &[CertificateDer<'static>]) -> ServerConfig {
        ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(self.certified(others))))
    }
}

fn days_ago(days: i64) -> SystemTime {
    let span = DAY * u32::try_from(days.abs()).unwrap();
    if days < 0 { SystemTime::now() + span } else { SystemTime::now() - span }
}

fn ca(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn params(name: &str, from: i64, to: i64) -> CertificateParams {
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = days_ago(from).into();
    params.not_after = days_ago(-to).into();
    let uri = der(0x86, URL.as_bytes());
    let description = der(0x30, &[CA_ISSUERS, &uri].concat());
    let access = CustomExtension::from_oid_content(AIA, der(0x30, &description));
    params.custom_extensions = vec![access];
    params
}

/// A short element of DER.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let len = u8::try_from(content.len()).ok().filter(|len| *len < 128);
    [&[tag, len.unwrap()], content].concat()
}
