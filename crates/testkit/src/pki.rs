//! Certificates: root → intermediates → leaf, as PEM files in a temporary directory.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use base64::{Engine, prelude::BASE64_STANDARD};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateRevocationListParams, DnType,
    IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256,
    RevokedCertParams, RsaKeySize, date_time_ymd,
};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject},
};

/// The kind of a leaf's key and the form of its PEM file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// ECDSA on P-256 as PKCS#8: `BEGIN PRIVATE KEY`.
    EcdsaPkcs8,
    /// ECDSA on P-256 as SEC 1: `BEGIN EC PRIVATE KEY`.
    EcdsaSec1,
    /// RSA of 2048 bits as PKCS#8: `BEGIN PRIVATE KEY`.
    RsaPkcs8,
    /// RSA of 2048 bits as PKCS#1: `BEGIN RSA PRIVATE KEY`.
    RsaPkcs1,
}

/// A root, intermediates of which the last signs leaves, and the directory for their files.
pub struct Pki {
    dir: tempfile::TempDir,
    root: Certificate,
    /// The one that signs leaves first, as they are sent.
    intermediates: Vec<Certificate>,
    issuer: Issuer<'static, KeyPair>,
    /// How many leaves there are; they are numbered from 1.
    leaves: AtomicU64,
}

/// A certificate with its key; the files live as long as the [`Pki`].
#[derive(Debug)]
pub struct Leaf {
    /// The leaf alone.
    pub cert: PathBuf,
    /// The leaf and the intermediates, as `ssl_certificate` wants them.
    pub fullchain: PathBuf,
    /// The key.
    pub key: PathBuf,
    serial: u64,
    chain: Vec<CertificateDer<'static>>,
    key_der: PrivateKeyDer<'static>,
}

impl Pki {
    /// A new root and intermediate. `root.pem` is written at once.
    #[expect(clippy::new_without_default, reason = "it writes files")]
    pub fn new() -> Self {
        Self::with_intermediates(1)
    }

    /// A new root and so many intermediates below it, each signed by the one above.
    pub fn with_intermediates(count: usize) -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let root_key = KeyPair::generate().expect("key of the root");
        // Roots of their own names: a chain of another Pki has an unknown issuer.
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let root_params = ca_params(&format!("wssgate test root {number}"));
        let root = root_params.self_signed(&root_key).expect("root");
        fs::write(dir.path().join("root.pem"), root.pem()).expect("root.pem");
        let mut issuer = Issuer::new(root_params, root_key);
        let mut intermediates = Vec::with_capacity(count);
        for level in 1..=count {
            let key = KeyPair::generate().expect("key of an intermediate");
            let params = ca_params(&format!("wssgate test intermediate {number}.{level}"));
            intermediates.insert(0, params.signed_by(&key, &issuer).expect("intermediate"));
            issuer = Issuer::new(params, key);
        }
        Self { dir, root, intermediates, issuer, leaves: AtomicU64::new(0) }
    }

    /// The file with the root, as `ssl_client_certificate` and the like want it.
    pub fn root_path(&self) -> PathBuf {
        self.dir.path().join("root.pem")
    }

    /// The DER of the root.
    pub fn root(&self) -> &CertificateDer<'static> {
        self.root.der()
    }

    /// The PEM of the root and all intermediates, as a file of CAs.
    pub fn authorities_pem(&self) -> String {
        let all = std::iter::once(&self.root).chain(&self.intermediates);
        all.map(Certificate::pem).collect()
    }

    /// The directory of all files.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A leaf for these names or IP addresses, with an ECDSA key.
    #[track_caller]
    pub fn leaf(&self, names: &[&str]) -> Leaf {
        self.leaf_with(names, KeyKind::EcdsaPkcs8)
    }

    /// A leaf with this kind of key.
    #[track_caller]
    pub fn leaf_with(&self, names: &[&str], kind: KeyKind) -> Leaf {
        self.sign(leaf_params(names), kind)
    }

    /// A leaf that expired in 2021.
    #[track_caller]
    pub fn expired_leaf(&self, names: &[&str]) -> Leaf {
        let mut params = leaf_params(names);
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
        self.sign(params, KeyKind::EcdsaPkcs8)
    }

    /// A certificate that signs itself, of a CA or not; it has nothing to do with the root.
    #[track_caller]
    pub fn self_signed(&self, names: &[&str], is_ca: bool) -> Leaf {
        let mut params = leaf_params(names);
        if is_ca {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        let kind = KeyKind::EcdsaPkcs8;
        let key = generate(kind);
        let serial = self.leaves.fetch_add(1, Ordering::Relaxed) + 1;
        params.serial_number = Some(serial.into());
        let leaf = params.self_signed(&key).expect("leaf");
        self.write(serial, &leaf, &[], &key, kind)
    }

    /// The PEM of a list that says which leaves were revoked, or of one that expired in 2021.
    #[track_caller]
    pub fn crl_pem(&self, revoked: &[&Leaf], is_expired: bool) -> String {
        let (from, to) = if is_expired { (2020, 2021) } else { (2025, 2125) };
        let revoked = revoked.iter().map(|leaf| RevokedCertParams {
            serial_number: leaf.serial.into(),
            revocation_time: date_time_ymd(from, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(from, 1, 1),
            next_update: date_time_ymd(to, 1, 1),
            crl_number: 1.into(),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).expect("list").pem().expect("PEM of a list")
    }

    fn sign(&self, mut params: CertificateParams, kind: KeyKind) -> Leaf {
        let key = generate(kind);
        let serial = self.leaves.fetch_add(1, Ordering::Relaxed) + 1;
        params.serial_number = Some(serial.into());
        let leaf = params.signed_by(&key, &self.issuer).expect("leaf");
        self.write(serial, &leaf, &self.intermediates, &key, kind)
    }

    fn write(
        &self,
        serial: u64,
        leaf: &Certificate,
        above: &[Certificate],
        key: &KeyPair,
        kind: KeyKind,
    ) -> Leaf {
        let write = |what: &str, text: String| {
            let path = self.dir.path().join(format!("leaf{serial}.{what}.pem"));
            fs::write(&path, text).expect("file of a leaf");
            path
        };
        let all = || std::iter::once(leaf).chain(above);
        Leaf {
            cert: write("cert", leaf.pem()),
            fullchain: write("fullchain", all().map(Certificate::pem).collect()),
            key: write("key", key_pem(key, kind)),
            serial,
            chain: all().map(|one| one.der().clone()).collect(),
            key_der: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        }
    }

    /// A TLS client that trusts the root alone.
    pub fn client_config(&self) -> Arc<ClientConfig> {
        Arc::new(self.client_builder().with_no_client_auth())
    }

    /// The same, which shows this certificate when asked for one.
    pub fn client_config_with(&self, leaf: &Leaf) -> Arc<ClientConfig> {
        let (chain, key) = (leaf.chain.clone(), leaf.key_der.clone_key());
        let config = self.client_builder().with_client_auth_cert(chain, key);
        Arc::new(config.expect("key fits the certificate"))
    }

    fn client_builder(
        &self,
    ) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
        client_builder(self.root.der().clone())
    }
}

/// A TLS client that trusts a root that others have made, which is given as PEM.
pub fn client_that_trusts(root: &str) -> Arc<ClientConfig> {
    let root = CertificateDer::from_pem_slice(root.as_bytes()).expect("PEM of a certificate");
    Arc::new(client_builder(root).with_no_client_auth())
}

fn client_builder(
    root: CertificateDer<'static>,
) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    let mut roots = RootCertStore::empty();
    roots.add(root).expect("root is a trust anchor");
    ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("aws-lc-rs knows TLS 1.2 and 1.3")
        .with_root_certificates(roots)
}

impl Leaf {
    /// A TLS server with this certificate, for [`crate::upstream::Builder::tls`].
    pub fn server_config(&self) -> Arc<ServerConfig> {
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("aws-lc-rs knows TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), self.key_der.clone_key());
        Arc::new(config.expect("key fits the certificate"))
    }

    /// The DER of the leaf and its intermediates.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The same, but these certificates are sent behind it in a handshake.
    #[must_use]
    pub fn sending(mut self, others: &[CertificateDer<'static>]) -> Self {
        self.chain.truncate(1);
        self.chain.extend_from_slice(others);
        self
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn leaf_params(names: &[&str]) -> CertificateParams {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let common_name = names.first().expect("a leaf has a name").clone();
    let mut params = CertificateParams::new(names).expect("names are DNS names or IP addresses");
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

fn generate(kind: KeyKind) -> KeyPair {
    match kind {
        KeyKind::EcdsaPkcs8 | KeyKind::EcdsaSec1 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
        KeyKind::RsaPkcs8 | KeyKind::RsaPkcs1 => {
            KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)
        }
    }
    .expect("key of a leaf")
}

/// The PEM file in the form that `kind` names. PKCS#8 (RFC 5208 §5) is an algorithm around the
/// older forms: PKCS#1 stands in it as it is, SEC 1 without naming its curve again.
fn key_pem(key: &KeyPair, kind: KeyKind) -> String {
    match kind {
        KeyKind::EcdsaPkcs8 | KeyKind::RsaPkcs8 => key.serialize_pem(),
        KeyKind::RsaPkcs1 => pem("RSA PRIVATE KEY", &inner_key(&key.serialize_der())),
        KeyKind::EcdsaSec1 => pem("EC PRIVATE KEY", &with_curve(&inner_key(&key.serialize_der()))),
    }
}

/// The key inside of `SEQUENCE { INTEGER, SEQUENCE algorithm, OCTET STRING key, … }`.
fn inner_key(pkcs8: &[u8]) -> Vec<u8> {
    let (_, info, _) = split_der(pkcs8);
    let (_, _version, rest) = split_der(info);
    let (_, _algorithm, rest) = split_der(rest);
    let (_, key, _) = split_der(rest);
    key.to_vec()
}

/// `SEQUENCE { INTEGER 1, OCTET STRING, [1] public key }` (RFC 5915 §3) with `[0] P-256` inserted.
fn with_curve(sec1: &[u8]) -> Vec<u8> {
    const P256: &[u8] = &[0xa0, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    let (_, body, _) = split_der(sec1);
    let (_, _version, rest) = split_der(body);
    let (_, _private, public) = split_der(rest);
    let before = &body[..body.len() - public.len()];
    let body = match public.first() {
        Some(0xa0) => body.to_vec(),
        _ => [before, P256, public].concat(),
    };
    let len = u8::try_from(body.len()).ok().filter(|len| *len < 128);
    [&[0x30, len.expect("a key on P-256 is short")], &body[..]].concat()
}

/// Tag, content and what follows of the first DER element.
fn split_der(der: &[u8]) -> (u8, &[u8], &[u8]) {
    let (tag, first, rest) = (der[0], der[1], &der[2..]);
    let (len, rest) = match first {
        0x80.. => {
            let (len, rest) = rest.split_at(usize::from(first & 0x7f));
            (len.iter().fold(0, |len, byte| len << 8 | usize::from(*byte)), rest)
        }
        len => (usize::from(len), rest),
    };
    let (content, rest) = rest.split_at(len);
    (tag, content, rest)
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    let lines = text.as_bytes().chunks(64).map(String::from_utf8_lossy);
    let body: String = lines.map(|line| line.into_owned() + "\n").collect();
    format!("-----BEGIN {label}-----\n{body}-----END {label}-----\n")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rustls::pki_types::pem::PemObject;

    use super::*;

    #[test]
    fn every_form_of_key_is_read_back_and_fits_its_certificate() {
        let pki = Pki::new();
        let cases = [
            (KeyKind::EcdsaPkcs8, "-----BEGIN PRIVATE KEY-----"),
            (KeyKind::EcdsaSec1, "-----BEGIN EC PRIVATE KEY-----"),
            (KeyKind::RsaPkcs8, "-----BEGIN PRIVATE KEY-----"),
            (KeyKind::RsaPkcs1, "-----BEGIN RSA PRIVATE KEY-----"),
        ];
        for (kind, begin) in cases {
            let leaf = pki.leaf_with(&["a.test", "127.0.0.1"], kind);
            let text = fs::read_to_string(&leaf.key).unwrap();
            assert!(text.starts_with(begin), "{kind:?}: {text}");
            let key = PrivateKeyDer::from_pem_file(&leaf.key).unwrap();
            let chain: Vec<_> = CertificateDer::pem_file_iter(&leaf.fullchain)
                .unwrap()
                .map(Result::unwrap)
                .collect();
            assert_eq!(chain, leaf.chain());
            let config = ServerConfig::builder_with_provider(provider())
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(chain, key);
            assert!(config.is_ok(), "{kind:?}: {config:?}");
        }
    }
}
