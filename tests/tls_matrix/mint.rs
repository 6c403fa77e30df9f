//! Makes certificates and revocation lists: by `openssl`, and what that does not make by changing the
//! DER of what it has made, signed anew.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use rcgen::{KeyPair, SigningKey};

/// The key of nearly everything, and two others for those who pretend.
pub(crate) const KEY: &str = "p256";
pub(crate) const OTHER_KEY: &str = "p256-b";
pub(crate) const THIRD_KEY: &str = "p256-c";

/// A certificate with the name of its key.
#[derive(Clone)]
pub(crate) struct Made {
    pub(crate) der: Vec<u8>,
    pub(crate) key: &'static str,
    path: PathBuf,
}

/// A directory for keys and certificates.
pub(crate) struct Mint {
    dir: tempfile::TempDir,
    number: AtomicU32,
}

/// A certificate to be made.
pub(crate) struct Order<'a> {
    mint: &'a Mint,
    subject: String,
    issuer: Option<Made>,
    key: &'static str,
    serial: String,
    digest: Vec<String>,
    extensions: Vec<String>,
    edits: Vec<Edit>,
}

/// A change of the DER, which is signed anew unless it is damage.
#[derive(Clone)]
pub(crate) enum Edit {
    /// Replaces the times: the content of notBefore and notAfter with their tags.
    Times((u8, String), (u8, String)),
    /// Replaces the version; 0 means 1 and is left out.
    Version(u8),
    /// Takes all extensions away.
    NoExtensions,
    /// Adds an extension: OID in DER, critical, content.
    Extension(Vec<u8>, bool, Vec<u8>),
    /// Replaces the serial number's content.
    Serial(Vec<u8>),
    /// Replaces subject and issuer by names in DER.
    Subject(Vec<u8>),
    Issuer(Vec<u8>),
    /// Changes a bit of the signature.
    Damage,
    /// Says another algorithm inside than outside.
    OtherAlgorithm,
}

pub(crate) const UTC: u8 = 0x17;
pub(crate) const GENERALIZED: u8 = 0x18;

impl Mint {
    pub(crate) fn new() -> Self {
        let mint = Self { dir: tempfile::tempdir().unwrap(), number: AtomicU32::new(0) };
        for key in [KEY, OTHER_KEY, THIRD_KEY] {
            mint.new_key(key, &["EC", "-pkeyopt", "ec_paramgen_curve:P-256"]);
        }
        for curve in ["P-224", "P-384", "P-521", "secp256k1", "brainpoolP256r1", "P-192"] {
            let name = format!("ec_paramgen_curve:{curve}");
            mint.new_key(curve, &["EC", "-pkeyopt", &name]);
        }
        let explicit = ["EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-pkeyopt"];
        mint.new_key("explicit", &[&explicit[..], &["ec_param_enc:explicit"]].concat());
        for bits in ["1024", "1962", "1963", "2048", "3072"] {
            mint.new_key(
                &format!("rsa{bits}"),
                &["RSA", "-pkeyopt", &format!("rsa_keygen_bits:{bits}")],
            );
        }
        mint.new_key("rsa-pss", &["RSA-PSS", "-pkeyopt", "rsa_keygen_bits:2048"]);
        mint.new_key("ed25519", &["ED25519"]);
        mint.new_key("ed448", &["ED448"]);
        mint
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn new_key(&self, name: &str, algorithm: &[&str]) {
        let path = self.key_path(name);
        let path = path.to_str().unwrap();
        run(&[&["genpkey", "-out", path, "-algorithm"], algorithm].concat());
    }

    pub(crate) fn key_path(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.key"))
    }

    pub(crate) fn key_pem(&self, name: &str) -> String {
        fs::read_to_string(self.key_path(name)).unwrap()
    }

    /// A certificate that says nothing yet but its name.
    pub(crate) fn order(&self, subject: &str) -> Order<'_> {
        Order {
            mint: self,
            subject: format!("/CN={subject}"),
            issuer: None,
            key: KEY,
            serial: (100 + self.number.fetch_add(1, Ordering::Relaxed)).to_string(),
            digest: vec!["-sha256".to_owned()],
            extensions: Vec::new(),
            edits: Vec::new(),
        }
    }

    /// A CA without defects.
    pub(crate) fn ca(&self, subject: &str) -> Order<'_> {
        self.order(subject)
            .says("basicConstraints=critical,CA:TRUE")
            .says("keyUsage=critical,keyCertSign,cRLSign")
            .says("subjectKeyIdentifier=hash")
    }

    /// A leaf without defects.
    pub(crate) fn leaf(&self, issuer: &Made) -> Order<'_> {
        self.order("leaf").by(issuer).says("subjectAltName=DNS:leaf.test")
    }

    fn signer(&self, key: &str) -> KeyPair {
        KeyPair::from_pem(&self.key_pem(key)).unwrap()
    }

    /// A revocation list of `ca`.
    pub(crate) fn list(&self, ca: &Made) -> List<'_> {
        List {
            mint: self,
            issuer: fields(&ca.der).subject,
            key: ca.key,
            is_v1: false,
            from: (UTC, "200101000000Z".into()),
            to: Some((UTC, "400101000000Z".into())),
            revoked: Vec::new(),
            extensions: Vec::new(),
            is_damaged: false,
        }
    }
}

impl Order<'_> {
    pub(crate) fn by(mut self, issuer: &Made) -> Self {
        self.issuer = Some(issuer.clone());
        self
    }

    pub(crate) fn subject(mut self, subject: &str) -> Self {
        self.subject = subject.to_owned();
        self
    }

    pub(crate) fn key(mut self, key: &'static str) -> Self {
        self.key = key;
        self
    }

    pub(crate) fn digest(mut self, options: &str) -> Self {
        self.digest = options.split(' ').map(str::to_owned).collect();
        self
    }

    /// Adds an extension in `openssl`'s words, in place of one of the same name.
    pub(crate) fn says(mut self, extension: &str) -> Self {
        let name = |text: &str| text.split('=').next().map(str::to_owned);
        self.extensions.retain(|known| name(known) != name(extension));
        if !extension.ends_with('=') {
            self.extensions.push(extension.to_owned());
        }
        self
    }

    pub(crate) fn edit(mut self, edit: Edit) -> Self {
        self.edits.push(edit);
        self
    }

    pub(crate) fn times(self, from: &str, to: &str) -> Self {
        self.edit(Edit::Times((UTC, from.into()), (UTC, to.into())))
    }

    pub(crate) fn make(self) -> Made {
        let number = self.mint.number.fetch_add(1, Ordering::Relaxed);
        let dir = self.mint.dir.path();
        let (config, path) = (dir.join(format!("{number}.cnf")), dir.join(format!("{number}.der")));
        let extensions = self.extensions.join("\n");
        let text = format!(
            "[req]\ndistinguished_name=dn\nstring_mask=utf8only\n[dn]\n[ext]\n{extensions}\n\
             [subtrees]\ncommonName=inside\n"
        );
        fs::write(&config, text).unwrap();
        let key = self.mint.key_path(self.key);
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-new", "-batch", "-days", "3650", "-outform", "DER"]);
        command.arg("-key").arg(&key).arg("-out").arg(&path).arg("-config").arg(&config);
        command.args(["-set_serial", &self.serial, "-subj", &self.subject, "-multivalue-rdn"]);
        if !self.extensions.is_empty() {
            command.args(["-extensions", "ext"]);
        }
        command.args(&self.digest);
        let signer = self.issuer.as_ref().map_or(self.key, |issuer| issuer.key);
        if let Some(issuer) = &self.issuer {
            command.arg("-CA").arg(&issuer.path).arg("-CAkey");
            command.arg(self.mint.key_path(issuer.key));
        }
        let output = command.output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {extensions}: {told}", self.subject);
        let plain = fs::read(&path).unwrap();
        let der = match self.edits.is_empty() {
            true => plain.clone(),
            false => edited(&plain, &self.edits, &self.mint.signer(signer)),
        };
        // `openssl` may not want to issue by what was made of it.
        let is_renamed = self.edits.iter().any(|edit| matches!(edit, Edit::Subject(_)));
        let pem = path.with_extension("pem");
        fs::write(&pem, self::pem("CERTIFICATE", if is_renamed { &der } else { &plain })).unwrap();
        Made { der, key: self.key, path: pem }
    }
}

fn run(args: &[&str]) {
    let output = Command::new("openssl").args(args).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {args:?}: {told}");
}

/// A revocation list to be made.
pub(crate) struct List<'a> {
    mint: &'a Mint,
    issuer: Vec<u8>,
    key: &'static str,
    is_v1: bool,
    from: (u8, String),
    to: Option<(u8, String)>,
    revoked: Vec<(Vec<u8>, Vec<u8>)>,
    extensions: Vec<u8>,
    is_damaged: bool,
}

impl List<'_> {
    pub(crate) fn v1(mut self) -> Self {
        self.is_v1 = true;
        self
    }

    pub(crate) fn times(mut self, from: &str, to: Option<&str>) -> Self {
        self.from = (UTC, from.into());
        self.to = to.map(|to| (UTC, to.into()));
        self
    }

    pub(crate) fn signed_with(mut self, key: &'static str) -> Self {
        self.key = key;
        self
    }

    pub(crate) fn damaged(mut self) -> Self {
        self.is_damaged = true;
        self
    }

    /// Revokes a certificate, with the extensions of the entry.
    pub(crate) fn revokes(mut self, made: &Made, extensions: &[u8]) -> Self {
        self.revoked.push((fields(&made.der).serial, extensions.to_vec()));
        self
    }

    pub(crate) fn says(mut self, oid: &[u8], is_critical: bool, content: &[u8]) -> Self {
        self.extensions.extend(extension(oid, is_critical, content));
        self
    }

    pub(crate) fn make(self) -> Vec<u8> {
        let date = || tlv(UTC, b"210101000000Z");
        let entry = |(serial, more): &(Vec<u8>, Vec<u8>)| {
            let more = if more.is_empty() { Vec::new() } else { tlv(0x30, more) };
            tlv(0x30, &[&serial[..], &date(), &more].concat())
        };
        let entries: Vec<u8> = self.revoked.iter().flat_map(entry).collect();
        let mut list = Vec::new();
        if !self.is_v1 {
            list.extend(tlv(2, &[1]));
        }
        list.extend(ECDSA_SHA256);
        list.extend(&self.issuer);
        list.extend(tlv(self.from.0, self.from.1.as_bytes()));
        list.extend(self.to.iter().flat_map(|to| tlv(to.0, to.1.as_bytes())));
        if !entries.is_empty() {
            list.extend(tlv(0x30, &entries));
        }
        if !self.extensions.is_empty() {
            list.extend(tlv(0xa0, &tlv(0x30, &self.extensions)));
        }
        let list = tlv(0x30, &list);
        let mut signature = self.mint.signer(self.key).sign(&list).unwrap();
        if self.is_damaged {
            *signature.last_mut().unwrap() ^= 1;
        }
        let signature = tlv(3, &[&[0][..], &signature].concat());
        tlv(0x30, &[&list[..], ECDSA_SHA256, &signature].concat())
    }
}

/// The AlgorithmIdentifier of ECDSA with SHA-256, and the one with SHA-384.
const ECDSA_SHA256: &[u8] = b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02";
const ECDSA_SHA384: &[u8] = b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x03";

/// A value of DER with its tag.
pub(crate) fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let len = content.len();
    let mut out = vec![tag];
    match u8::try_from(len) {
        Ok(len @ ..=0x7f) => out.push(len),
        Ok(len) => out.extend([0x81, len]),
        Err(_) => {
            out.push(0x82);
            out.extend(u16::try_from(len).unwrap().to_be_bytes());
        }
    }
    out.extend(content);
    out
}

pub(crate) fn extension(oid: &[u8], is_critical: bool, content: &[u8]) -> Vec<u8> {
    let critical: &[u8] = if is_critical { &[1, 1, 0xff] } else { &[] };
    tlv(0x30, &[&tlv(6, oid)[..], critical, &tlv(4, content)].concat())
}

/// Splits the content of a sequence into its values, tags included.
fn values(mut content: &[u8]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    while !content.is_empty() {
        let (value, rest) = content.split_at(len(content));
        found.push(value.to_vec());
        content = rest;
    }
    found
}

/// How long the value at the front is, its tag included.
fn len(der: &[u8]) -> usize {
    match der[1] {
        short @ ..=0x7f => 2 + usize::from(short),
        0x81 => 3 + usize::from(der[2]),
        _ => 4 + usize::from(u16::from_be_bytes([der[2], der[3]])),
    }
}

fn content(der: &[u8]) -> &[u8] {
    let head = match der[1] {
        ..=0x7f => 2,
        0x81 => 3,
        _ => 4,
    };
    &der[head..]
}

/// The parts of a certificate that change.
#[derive(Clone)]
struct Fields {
    version: Option<Vec<u8>>,
    serial: Vec<u8>,
    algorithm: Vec<u8>,
    issuer: Vec<u8>,
    validity: Vec<u8>,
    subject: Vec<u8>,
    key: Vec<u8>,
    extensions: Vec<u8>,
}

fn fields(der: &[u8]) -> Fields {
    let mut parts = values(content(&values(content(der))[0])).into_iter().peekable();
    let version = parts.next_if(|part| part[0] == 0xa0);
    let mut next = || parts.next().unwrap();
    Fields {
        version,
        serial: next(),
        algorithm: next(),
        issuer: next(),
        validity: next(),
        subject: next(),
        key: next(),
        extensions: parts.next().map(|all| content(content(&all)).to_vec()).unwrap_or_default(),
    }
}

/// The name of a certificate's owner in DER.
pub(crate) fn subject(made: &Made) -> Vec<u8> {
    fields(&made.der).subject
}

fn edited(der: &[u8], edits: &[Edit], signer: &KeyPair) -> Vec<u8> {
    let mut fields = fields(der);
    let mut outer = ECDSA_SHA256;
    let mut is_damaged = false;
    for edit in edits.iter().cloned() {
        match edit {
            Edit::Times(from, to) => {
                let both = [tlv(from.0, from.1.as_bytes()), tlv(to.0, to.1.as_bytes())].concat();
                fields.validity = tlv(0x30, &both);
            }
            Edit::Version(version) => {
                fields.version = (version > 0).then(|| tlv(0xa0, &tlv(2, &[version])));
            }
            Edit::NoExtensions => fields.extensions.clear(),
            Edit::Extension(oid, is_critical, content) => {
                fields.extensions.extend(extension(&oid, is_critical, &content));
            }
            Edit::Serial(content) => fields.serial = tlv(2, &content),
            Edit::Subject(name) => fields.subject = name,
            Edit::Issuer(name) => fields.issuer = name,
            Edit::Damage => is_damaged = true,
            Edit::OtherAlgorithm => outer = ECDSA_SHA384,
        }
    }
    let extensions = match fields.extensions.is_empty() {
        true => Vec::new(),
        false => tlv(0xa3, &tlv(0x30, &fields.extensions)),
    };
    let version = fields.version.unwrap_or_default();
    let algorithm =
        if is_ours(&fields.algorithm) { fields.algorithm } else { ECDSA_SHA256.to_vec() };
    let body = [
        &version[..],
        &fields.serial,
        &algorithm,
        &fields.issuer,
        &fields.validity,
        &fields.subject,
        &fields.key,
        &extensions,
    ];
    let body = tlv(0x30, &body.concat());
    let mut signature = signer.sign(&body).unwrap();
    if is_damaged {
        *signature.last_mut().unwrap() ^= 1;
    }
    let signature = tlv(3, &[&[0][..], &signature].concat());
    tlv(0x30, &[&body[..], outer, &signature].concat())
}

fn is_ours(algorithm: &[u8]) -> bool {
    algorithm == ECDSA_SHA256
}

pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    let base64 = BASE64_STANDARD.encode(der);
    let lines: Vec<_> =
        base64.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}
