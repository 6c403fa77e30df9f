//! Certificate chains and keys: read, checked, explained.
//!
//! A chain that desktop browsers accept may still fail on phones and in mini programs, because
//! browsers fetch or remember missing intermediates and others do not. So everything that can be
//! told from the files is told when they are loaded, while an operator is looking.

mod check;
mod contents;
mod encrypted;
mod on_demand;
mod pem;
mod unusual;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::{Error, InconsistentKeys};
use wssgate_chain::Chain;
use wssgate_config::model::{Advice, CertificateFiles, Located};
use wssgate_syntax::{Diagnostic, Report, Span};
use wssgate_x509::{Anchor, Certificate, Peer, RevocationList};
use zeroize::Zeroizing;

use super::proof;

pub use contents::Contents;
pub(super) use on_demand::Stamp;
pub use on_demand::{Caches, OnDemand};

/// What a server wants of its certificate.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The names that it should cover.
    pub names: &'a [Located<Box<[u8]>>],
    /// What is not to be told.
    pub ignored: &'a [Advice],
}

/// Reads a chain with its key, under one of these passphrases, and reports all that is wrong or
/// doubtful.
///
/// `now` is in seconds since the Unix epoch. `None` when the pair cannot be used; the report then has an error.
pub fn load(
    files: &CertificateFiles,
    (contents, passphrases): (&Contents, &Passphrases),
    wanted: Wanted<'_>,
    now: i64,
    report: &mut Report,
) -> Option<Arc<CertifiedKey>> {
    let chain = load_chain(&files.chain, contents, report);
    let key = load_key(&files.key, contents, passphrases, report);
    let (chain, key) = (chain?, key?);
    let certified = match pair(&chain, key) {
        Ok(certified) => certified,
        Err(error) => {
            report.push(pair_failed(&error, &chain, files));
            return None;
        }
    };
    check::chain(&chain, files, wanted, now, report);
    Some(Arc::new(certified))
}

/// When the certificate of a server ends, in seconds since the Unix epoch; `None` if it cannot be read.
pub(super) fn end(key: &CertifiedKey) -> Option<i64> {
    let own = key.cert.first()?;
    let chain = Chain::parse([&own[..]]).ok()?;
    chain.facts().first().map(|facts| facts.to)
}

/// Puts a chain and its key together, both in PEM.
///
/// # Errors
/// When they cannot be used.
pub fn from_pem(chain: &str, key: &str) -> Result<Arc<CertifiedKey>, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain.as_bytes()).collect();
    let chain = chain.map_err(|error| pem_words(&error))?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| pem_words(&error))?;
    if chain.is_empty() {
        return Err("no certificate".to_owned());
    }
    pair(&chain, key).map(Arc::new).map_err(|error| error.to_string())
}

/// Puts chain and key together if the key belongs to the first certificate.
fn pair(
    chain: &[CertificateDer<'static>],
    key: PrivateKeyDer<'static>,
) -> Result<CertifiedKey, Error> {
    pair_signing(chain, super::provider().key_provider.load_private_key(key)?)
}

fn pair_signing(
    chain: &[CertificateDer<'static>],
    key: Arc<dyn SigningKey>,
) -> Result<CertifiedKey, Error> {
    // Compared by hand: rustls's own comparison refuses certificates of X.509 version 1.
    let ours = key.public_key();
    // A key that does not tell its public half is taken on trust; a wrong one shows in the first
    // handshake.
    if ours.is_some_and(|ours| proof::public_key(&chain[0]).is_ok_and(|theirs| ours != theirs)) {
        return Err(InconsistentKeys::KeyMismatch.into());
    }
    Ok(CertifiedKey::new(chain.to_vec(), key))
}

/// Why a file cannot be used.
pub(super) struct Unusable {
    what: &'static str,
    path: PathBuf,
    why: String,
    help: Option<String>,
}

impl Unusable {
    fn new(what: &'static str, path: &Path, why: impl Into<String>) -> Self {
        Self { what, path: path.to_owned(), why: why.into(), help: None }
    }

    fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    fn diagnostic(self, span: Span) -> Diagnostic {
        // EACCES: keys are rightly not for everybody.
        let may_not = self.why.starts_with("(13:");
        let rights = "the user who starts the server must be able to read it: start it as root, or give the group of \
                      that user the right";
        let help = self.help.clone().or_else(|| may_not.then(|| rights.to_owned()));
        Diagnostic::error(self.to_string()).at(span, "needed here").maybe_help(help)
    }
}

/// nginx's words.
impl fmt::Display for Unusable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "cannot load {} \"{}\": {}", self.what, self.path.display(), self.why)
    }
}

/// Reads the certificates of a PEM file, in order.
fn load_chain(
    file: &Located<PathBuf>,
    contents: &Contents,
    report: &mut Report,
) -> Option<Vec<CertificateDer<'static>>> {
    let chain = read_chain(&file.value, contents);
    chain.map_err(|unusable| report.push(unusable.diagnostic(file.span))).ok()
}

fn read_chain(path: &Path, contents: &Contents) -> Result<Vec<CertificateDer<'static>>, Unusable> {
    let chain = read_certificates(path, contents)?;
    match chain.iter().position(|der| !is_certificate(der)) {
        Some(at) => {
            let why = format!("certificate {} in the file is invalid", at + 1);
            Err(Unusable::new("certificate", path, why))
        }
        None => Ok(chain),
    }
}

/// The same without a look at what the blocks hold.
pub(super) fn read_certificates(
    path: &Path,
    contents: &Contents,
) -> Result<Vec<CertificateDer<'static>>, Unusable> {
    let fail = |why: &str| Unusable::new("certificate", path, why);
    let text = contents.of(path).map_err(|why| fail(&why))?;
    let blocks = pem::blocks(&text, pem::CERTIFICATE).map_err(|error| fail(&error.to_string()))?;
    let chain: Vec<_> = blocks.into_iter().map(|block| plain_certificate(block).into()).collect();
    if !chain.is_empty() {
        return Ok(chain);
    }
    let help = match pem::has_block(&text, |label| label.ends_with("PRIVATE KEY")) {
        true => "this file contains a private key: are certificate and key swapped?",
        false => "the file must contain PEM blocks `-----BEGIN CERTIFICATE-----`",
    };
    Err(fail("no certificate in the file").help(help))
}

/// Whether anybody can read it.
fn is_certificate(der: &[u8]) -> bool {
    Certificate::parse(der).is_some() || wssgate_chain::is_readable(der)
}

/// A certificate without the trust settings that OpenSSL may have written behind it.
fn plain_certificate(block: pem::Block<'_>) -> Vec<u8> {
    let mut der = block.content;
    if block.label == pem::TRUSTED
        && let Some((_, settings)) = Certificate::parse_front(&der)
    {
        der.truncate(der.len() - settings.len());
    }
    der
}

/// What may open private keys (`ssl_password_file`, `proxy_ssl_password_file`).
#[derive(Default)]
pub struct Passphrases(Vec<Zeroizing<Vec<u8>>>);

impl Passphrases {
    /// Reads the file. `None` when it cannot be read; the report then has an error.
    fn load(file: &Located<PathBuf>, contents: &Contents, report: &mut Report) -> Option<Self> {
        match contents.of(&file.value) {
            Ok(text) => Some(Self(encrypted::passphrases(&text))),
            Err(why) => {
                report.push(failed("passphrases", &file.value, file.span, &why));
                None
            }
        }
    }
}

/// Reads the first private key of a PEM file: PKCS#8, PKCS#1 or SEC1.
fn load_key(
    file: &Located<PathBuf>,
    contents: &Contents,
    passphrases: &Passphrases,
    report: &mut Report,
) -> Option<PrivateKeyDer<'static>> {
    let key = read_key(&file.value, contents, passphrases);
    key.map(|(key, _)| key).map_err(|unusable| report.push(unusable.diagnostic(file.span))).ok()
}

/// How a private key lies in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stored {
    Plain,
    Encrypted,
}

fn read_key(
    path: &Path,
    contents: &Contents,
    passphrases: &Passphrases,
) -> Result<(PrivateKeyDer<'static>, Stored), Unusable> {
    let fail = |why: &str| Unusable::new("certificate key", path, why);
    let text = contents.of(path).map_err(|why| fail(&why))?;
    if encrypted::is_encrypted(&text) {
        let open = encrypted::open(&text, &passphrases.0);
        let open = open.map_err(|closed| fail(&closed.to_string()).help(closed.help(path)))?;
        return Ok((open, Stored::Encrypted));
    }
    let key = PrivateKeyDer::from_pem_slice(&text).map_err(|error| {
        let help = match pem::has_block(&text, |label| pem::CERTIFICATE.contains(&label)) {
            true => "this file contains a certificate: are certificate and key swapped?",
            false => {
                "the file must hold a PEM block `PRIVATE KEY`, `RSA PRIVATE KEY` or \
                 `EC PRIVATE KEY`"
            }
        };
        fail(&format!("no private key in the file ({})", pem_words(&error))).help(help)
    })?;
    match unusual::find(&key) {
        Some(unusual) => Err(fail(unusual.why).help(unusual.help)),
        None => Ok((key, Stored::Plain)),
    }
}

/// What is wrong with PEM, without the bytes that are.
fn pem_words(error: &PemError) -> String {
    match error {
        PemError::MissingSectionEnd { .. } => "bad end line".to_owned(),
        PemError::IllegalSectionStart { .. } => "bad start line".to_owned(),
        PemError::Base64Decode(_) => "bad base64 decode".to_owned(),
        PemError::NoItemsFound => "no start line".to_owned(),
        other => other.to_string(),
    }
}

/// Reads the certificates of a file of CAs.
///
/// Revocation lists in it are not read, as nginx has not read them since 1.27; they are told.
pub fn load_authorities(
    file: &Located<PathBuf>,
    peer: Peer,
    contents: &Contents,
    report: &mut Report,
) -> Vec<Anchor> {
    let elsewhere = "put them into the file of \"ssl_crl\"";
    tell_ignored(file, contents, (pem::CRL, "revocation lists", elsewhere), report);
    let authorities = read_authorities(&file.value, peer, contents);
    authorities.map_err(|unusable| report.push(unusable.diagnostic(file.span))).unwrap_or_default()
}

/// Warns of blocks in a file that older versions of nginx read there.
fn tell_ignored(
    file: &Located<PathBuf>,
    contents: &Contents,
    (labels, what, help): (&[&str], &str, &'static str),
    report: &mut Report,
) {
    let Ok(text) = contents.of(&file.value) else { return };
    if pem::has_block(&text, |label| labels.contains(&label)) {
        let text = format!("{what} in \"{}\" are ignored", file.value.display());
        report.push(Diagnostic::warning(text).at(file.span, "").help(help));
    }
}

fn read_authorities(path: &Path, peer: Peer, contents: &Contents) -> Result<Vec<Anchor>, Unusable> {
    let fail = |why: &str| Unusable::new("certificate", path, why);
    let text = contents.of(path).map_err(|why| fail(&why))?;
    let blocks = pem::blocks(&text, pem::CERTIFICATE).map_err(|error| fail(&error.to_string()))?;
    if blocks.is_empty() {
        return Err(fail("no certificate in the file"));
    }
    let read = |(index, block): (usize, pem::Block<'_>)| {
        // Only such a block may say more than a certificate does.
        let is_alone = || Certificate::parse(&block.content).is_some();
        let anchor = (block.label == pem::TRUSTED || is_alone())
            .then(|| Anchor::parse(&block.content, peer))
            .flatten();
        anchor.ok_or_else(|| fail(&format!("certificate {} in the file is invalid", index + 1)))
    };
    blocks.into_iter().enumerate().map(read).collect()
}

/// Reads the revocation lists of a PEM file.
///
/// Certificates in it are not trusted, as nginx has not trusted them since 1.27; they are told.
pub fn load_crls(
    file: &Located<PathBuf>,
    contents: &Contents,
    report: &mut Report,
) -> Vec<RevocationList> {
    let elsewhere = "put them into the file of trusted certificates";
    tell_ignored(file, contents, (pem::CERTIFICATE, "certificates", elsewhere), report);
    let lists = read_crls(&file.value, contents);
    lists.map_err(|unusable| report.push(unusable.diagnostic(file.span))).unwrap_or_default()
}

fn read_crls(path: &Path, contents: &Contents) -> Result<Vec<RevocationList>, Unusable> {
    let fail = |why: &str| Unusable::new("CRL", path, why);
    let text = contents.of(path).map_err(|why| fail(&why))?;
    let blocks = pem::blocks(&text, pem::CRL).map_err(|error| fail(&error.to_string()))?;
    if blocks.is_empty() {
        return Err(fail("no revocation list in the file"));
    }
    let read = |(index, block): (usize, pem::Block<'_>)| {
        let list = RevocationList::parse(&block.content);
        list.ok_or_else(|| fail(&format!("invalid revocation list {} in the file", index + 1)))
    };
    blocks.into_iter().enumerate().map(read).collect()
}

/// Reads a certificate and key that we show to upstreams; nothing about names is checked.
pub fn load_client(
    chain: &Located<PathBuf>,
    key: &Located<PathBuf>,
    (contents, passphrases): (&Contents, &Passphrases),
    report: &mut Report,
) -> Option<Arc<CertifiedKey>> {
    let files = CertificateFiles { chain: chain.clone(), key: key.clone() };
    let chain = load_chain(chain, contents, report);
    let key = load_key(key, contents, passphrases, report);
    let (chain, key) = (chain?, key?);
    match pair(&chain, key) {
        Ok(certified) => Some(Arc::new(certified)),
        Err(error) => {
            report.push(pair_failed(&error, &chain, &files));
            None
        }
    }
}

/// Whether `text` has a PEM block of Diffie-Hellman parameters (`ssl_dhparam`).
pub fn check_dhparam(file: &Located<PathBuf>, contents: &Contents, report: &mut Report) {
    let fail = |why: &str| failed("DH parameters", &file.value, file.span, why);
    match contents.of(&file.value) {
        Err(why) => report.push(fail(&why)),
        Ok(text) if !has_dhparam(&text) => {
            report.push(fail("no PEM block `DH PARAMETERS` in the file"));
        }
        Ok(_) => report.push(
            Diagnostic::idle("ssl_dhparam", "\"ssl_dhparam\" is checked but not used")
                .at(file.span, "DHE suites are not offered: all current clients support ECDHE"),
        ),
    }
}

/// OpenSSL writes the second kind for `openssl dhparam -dsaparam`, and reads both.
fn has_dhparam(text: &[u8]) -> bool {
    pem::has_block(text, |label| ["DH PARAMETERS", "X9.42 DH PARAMETERS"].contains(&label))
}

/// The system's words with the number in nginx's order: `2: No such file or directory`.
fn plain(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(_) => format!("({})", crate::errno_text(error)),
        None => error.to_string(),
    }
}

fn failed(what: &'static str, path: &Path, span: Span, why: &str) -> Diagnostic {
    Unusable::new(what, path, why).diagnostic(span)
}

/// Why certificate and key do not make a pair.
fn pair_failed(
    error: &Error,
    chain: &[CertificateDer<'static>],
    files: &CertificateFiles,
) -> Diagnostic {
    let (chain_path, key_path) = (files.chain.value.display(), files.key.value.display());
    if !matches!(error, Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) {
        return failed("certificate key", &files.key.value, files.key.span, &error.to_string())
            .at(files.chain.span, format!("for the certificate {chain_path}"));
    }
    if Certificate::parse(&chain[0]).is_some_and(|leaf| leaf.has_explicit_curve()) {
        let unusual = unusual::EXPLICIT_CURVE;
        let unusable = Unusable::new("certificate", &files.chain.value, unusual.why);
        return unusable.help(unusual.help).diagnostic(files.chain.span);
    }
    let diagnostic = Diagnostic::error(format!(
        "the key \"{key_path}\" does not match the certificate \"{chain_path}\" (key values mismatch)"
    ))
    .at(files.key.span, "this key belongs to another certificate")
    .at(files.chain.span, "the first certificate of this file must be the server's own");
    match wssgate_chain::is_ca(&chain[0]) {
        true => diagnostic
            .help("the file begins with a CA certificate; put the server certificate first"),
        false => diagnostic,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;

    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    use wssgate_syntax::{Origin, SourceMap};

    use super::*;

    /// A root, an intermediate, and leaves by name; all in PEM.
    struct Authority {
        root: String,
        intermediate: String,
        issuer: Issuer<'static, KeyPair>,
    }

    impl Authority {
        fn new() -> Self {
            let ca = |name: &str| {
                let mut params = CertificateParams::new(Vec::new()).unwrap();
                params.distinguished_name.push(rcgen::DnType::CommonName, name);
                params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
                params
            };
            let root_key = KeyPair::generate().unwrap();
            let root_params = ca("Test Root");
            let root = root_params.self_signed(&root_key).unwrap();
            let root_issuer = Issuer::new(root_params, root_key);
            let key = KeyPair::generate().unwrap();
            let params = ca("Test Intermediate");
            let intermediate = params.signed_by(&key, &root_issuer).unwrap();
            Self {
                root: root.pem(),
                intermediate: intermediate.pem(),
                issuer: Issuer::new(params, key),
            }
        }

        /// A leaf for `name`, valid from `start` to `end` days from now, and its key.
        fn leaf(&self, name: &str, start: i64, end: i64) -> (String, KeyPair) {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
            let day = |days: i64| {
                let seconds = std::time::Duration::from_secs(days.unsigned_abs() * 86_400);
                let now = std::time::SystemTime::now();
                if days < 0 { now - seconds } else { now + seconds }
            };
            params.not_before = day(start).into();
            params.not_after = day(end).into();
            (params.signed_by(&key, &self.issuer).unwrap().pem(), key)
        }
    }

    fn now() -> i64 {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        i64::try_from(since.as_secs()).unwrap()
    }

    /// Loads a pair for the server name `www.test.example` and returns whether it is usable and
    /// every message.
    fn outcome(chain: &str, key: &str) -> (bool, Vec<String>) {
        outcome_without(chain, key, &[])
    }

    fn outcome_without(chain: &str, key: &str, ignored: &[Advice]) -> (bool, Vec<String>) {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| -> PathBuf {
            let path = directory.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let mut sources = SourceMap::default();
        let file = sources.add("nginx.conf", Origin::Text, b"ssl_certificate x;".to_vec());
        let span = Span::new(file, 0, 15);
        let at = |value: PathBuf| Located { value, span };
        let files =
            CertificateFiles { chain: at(write("chain", chain)), key: at(write("key", key)) };
        let names = [Located { value: b"www.test.example".as_slice().into(), span }];
        let mut report = Report::default();
        let wanted = Wanted { names: &names, ignored };
        let read = (&Contents::default(), &Passphrases::default());
        let usable = load(&files, read, wanted, now(), &mut report).is_some();
        (usable, report.iter().map(|diagnostic| diagnostic.message.clone()).collect())
    }

    #[test]
    fn a_whole_chain_says_nothing() {
        let authority = Authority::new();
        let (leaf, key) = authority.leaf("www.test.example", -1, 90);
        let chain = [leaf, authority.intermediate, authority.root].concat();
        assert_eq!(outcome(&chain, &key.serialize_pem()), (true, Vec::new()));
    }

    #[test]
    fn doubtful_chains_work_but_are_reported() {
        let authority = Authority::new();
        let (intermediate, root) = (&authority.intermediate, &authority.root);
        for (name, start, end, parts, expected) in [
            ("www.test.example", -1, 90, vec![], "chain may be incomplete: \"Test Intermediate\""),
            ("www.test.example", -1, 90, vec![root], "followed by \"Test Root\""),
            ("www.test.example", -1, 90, vec![intermediate], "incomplete: \"Test Root\""),
            ("www.test.example", -90, -5, vec![intermediate, root], "it expired 5 days ago"),
            ("www.test.example", 2, 90, vec![intermediate, root], "not valid yet"),
            ("www.test.example", -80, 10, vec![intermediate, root], "it expires in "),
            ("*.other.example", -1, 90, vec![intermediate, root], "does not cover the server name"),
        ] {
            let (leaf, key) = authority.leaf(name, start, end);
            let chain: String = std::iter::once(&leaf).chain(parts).map(String::as_str).collect();
            let (usable, messages) = outcome(&chain, &key.serialize_pem());
            assert!(usable, "{expected}");
            assert!(messages.iter().any(|text| text.contains(expected)), "{messages:?}");
        }
    }

    #[test]
    fn what_is_ignored_is_not_told() {
        let authority = Authority::new();
        let (leaf, key) = authority.leaf("other.example", -1, 90);
        let chain = [leaf, authority.intermediate].concat();
        let told = |ignored| outcome_without(&chain, &key.serialize_pem(), ignored).1.len();
        assert_eq!(told(&[]), 2);
        assert_eq!(told(&[Advice::CertificateChain]), 1);
        assert_eq!(told(&[Advice::CertificateNames, Advice::CertificateChain]), 0);
    }

    #[test]
    fn unusable_pairs_say_why() {
        let authority = Authority::new();
        let (leaf, key) = authority.leaf("www.test.example", -1, 90);
        let (_, other) = authority.leaf("www.test.example", -1, 90);
        let key = key.serialize_pem();
        let encrypted =
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        let garbage = "-----BEGIN CERTIFICATE-----\nMAMCAQE=\n-----END CERTIFICATE-----\n";
        for (chain, key, expected) in [
            (leaf.as_str(), other.serialize_pem().as_str(), "does not match the certificate"),
            (&authority.intermediate, &key, "does not match the certificate"),
            (&key, &leaf, "no certificate in the file"),
            (&leaf, &leaf, "no private key in the file"),
            (&leaf, encrypted, "encrypted with a passphrase"),
            ("", &key, "no certificate in the file"),
            (garbage, &key, "certificate 1 in the file is invalid"),
            (&format!("{leaf}{garbage}"), &key, "certificate 2 in the file is invalid"),
            (&leaf, "", "no private key in the file"),
        ] {
            let (usable, messages) = outcome(chain, key);
            assert!(!usable, "{expected}");
            assert!(messages.iter().any(|text| text.contains(expected)), "{messages:?}");
        }
    }

    #[test]
    fn both_kinds_of_dh_parameters_are_known() {
        for (text, expected) in [
            ("-----BEGIN DH PARAMETERS-----\nMII=\n", true),
            ("-----BEGIN X9.42 DH PARAMETERS-----\nMII=\n", true),
            ("-----BEGIN CERTIFICATE-----\nMII=\n", false),
        ] {
            assert_eq!(has_dhparam(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let mut report = Report::default();
        let mut sources = SourceMap::default();
        let file = sources.add("nginx.conf", Origin::Text, b"x".to_vec());
        let path = Path::new("/nonexistent/cert.pem");
        let file = Located { value: path.to_owned(), span: Span::new(file, 0, 1) };
        assert!(load_chain(&file, &Contents::default(), &mut report).is_none());
        let line = report.lines(&sources).join("\n");
        let expected =
            "cannot load certificate \"/nonexistent/cert.pem\": (2: No such file or directory)";
        assert!(line.contains(expected), "{line}");
    }
}
