//! A certificate authority of this machine's own, for development.
//!
//! It is made once and kept, so that it can be trusted once; its leaf certificates are made anew
//! whenever they are needed. The key of the authority never leaves its directory.

use std::fs;
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use thiserror::Error;
use wssgate_doctor::DEVELOPMENT_CA;

use crate::text::reason;

const DAY: Duration = Duration::from_secs(86_400);

/// Browsers refuse leaf certificates that live longer than 398 days; ours are made at each start.
const LEAF_LIFE: Duration = Duration::from_secs(90 * 86_400);

/// Life of the authority.
const CA_LIFE: Duration = Duration::from_secs(3650 * 86_400);

/// The file, next to the authority, that says how to trust it.
const ADVICE: &str = "how-to-trust.txt";

/// Why there is no development certificate.
#[derive(Debug, Error)]
pub(crate) enum DevCaError {
    /// No place to keep the authority.
    #[error("no home directory for the development CA: set XDG_DATA_HOME or HOME")]
    NoHome,
    /// There is no place for it.
    #[error("cannot store the development CA in {}: {}", path.display(), reason(source))]
    Store {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file could not be read or written.
    #[error("{}: {}", path.display(), reason(source))]
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A key or certificate could not be made, or the kept one cannot be read.
    #[error("development CA in {}: {source}", path.display())]
    Certificate {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: rcgen::Error,
    },
}

/// The authority: where it lies and what it signs with.
pub(crate) struct DevCa {
    directory: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    /// Whether it was made by this run, so that nobody can trust it yet.
    is_new: bool,
}

impl DevCa {
    /// Opens the authority in the user's data directory, or makes it.
    pub(crate) fn open() -> Result<Self, DevCaError> {
        Self::open_in(&Self::place()?)
    }

    /// Where [`DevCa::issue`] puts the chain and the key of a leaf whose first name this is. Nothing is written.
    pub(crate) fn leaf_paths(name: &str) -> Result<(PathBuf, PathBuf), DevCaError> {
        Ok(leaf_paths_in(&Self::place()?, name))
    }

    /// The certificate of the authority in the user's data directory, if it has been made.
    pub(crate) fn existing() -> Option<PathBuf> {
        Self::place().ok().map(|place| place.join("ca.pem")).filter(|path| path.is_file())
    }

    fn place() -> Result<PathBuf, DevCaError> {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let data = variable("XDG_DATA_HOME").map(PathBuf::from);
        let home = || variable("HOME").map(|home| Path::new(&home).join(".local/share"));
        let data = data.or_else(home).ok_or(DevCaError::NoHome)?;
        Ok(data.join("wssgate/dev-ca"))
    }

    /// Opens the authority in `directory`, or makes it.
    pub(crate) fn open_in(directory: &Path) -> Result<Self, DevCaError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| DevCaError::File { path, source }
        };
        let failed = |source| DevCaError::Certificate { path: directory.to_owned(), source };
        let store = |source| DevCaError::Store { path: directory.to_owned(), source };
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(directory).map_err(store)?;
        let (certificate, key) = (directory.join("ca.pem"), directory.join("ca.key"));
        if !key.exists() || !certificate.exists() {
            let pair = KeyPair::generate().map_err(failed)?;
            let made = authority().self_signed(&pair).map_err(failed)?;
            write(&key, &pair.serialize_pem(), 0o600).map_err(store)?;
            write(&certificate, &made.pem(), 0o644).map_err(store)?;
            let issuer = Issuer::new(authority(), pair);
            return Ok(Self { directory: directory.to_owned(), issuer, is_new: true });
        }
        let pair = fs::read_to_string(&key).map_err(at(&key))?;
        let pair = KeyPair::from_pem(&pair).map_err(failed)?;
        let pem = fs::read_to_string(&certificate).map_err(at(&certificate))?;
        let issuer = Issuer::from_ca_cert_pem(&pem, pair).map_err(failed)?;
        Ok(Self { directory: directory.to_owned(), issuer, is_new: false })
    }

    /// The certificate to trust.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.directory.join("ca.pem")
    }

    /// Makes a certificate for `names` (host names or addresses) and gives the paths of the chain
    /// and the key.
    pub(crate) fn issue(&self, names: &[String]) -> Result<(PathBuf, PathBuf), DevCaError> {
        let failed = |source| DevCaError::Certificate { path: self.directory.clone(), source };
        let pair = KeyPair::generate().map_err(failed)?;
        let params = leaf(names).map_err(failed)?;
        let made = params.signed_by(&pair, &self.issuer).map_err(failed)?;
        let (chain, key) = leaf_paths_in(&self.directory, &names[0]);
        let store = |source| DevCaError::Store { path: self.directory.clone(), source };
        write(&self.directory.join(ADVICE), &self.full_advice(), 0o644).map_err(store)?;
        // The authority's own certificate completes the chain.
        let authority = self.certificate();
        let whole = fs::read_to_string(&authority)
            .map(|authority| [made.pem(), authority].concat())
            .map_err(|source| DevCaError::File { path: authority, source })?;
        for (path, text, mode) in [(&key, pair.serialize_pem(), 0o600), (&chain, whole, 0o644)] {
            write(path, &text, mode).map_err(store)?;
        }
        Ok((chain, key))
    }

    /// How to make clients trust the authority, for a person; all of it only when it is new.
    pub(crate) fn advice(&self) -> String {
        if !self.is_new {
            let text = self.directory.join(ADVICE);
            return format!("How to trust it, once, is told in {}.\n", text.display());
        }
        self.full_advice()
    }

    fn full_advice(&self) -> String {
        let path = self.certificate();
        let path = path.display();
        format!(
            "To trust the development CA (once, and only on your own machine):\n  \
             Debian, Ubuntu   sudo cp {path} /usr/local/share/ca-certificates/wssgate-dev.crt && sudo update-ca-certificates\n  \
             Fedora           sudo trust anchor {path}\n  \
             macOS            sudo security add-trusted-cert -d -r trustRoot -k /Library/Keychains/System.keychain {path}\n  \
             Chrome on Linux  certutil -d sql:$HOME/.pki/nssdb -A -t C,, -n wssgate-dev -i {path}\n  \
             Firefox          Settings, Certificates, Authorities, Import\n  \
             curl, Python     curl --cacert {path} …, SSL_CERT_FILE={path}\n"
        )
    }
}

fn authority() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, DEVELOPMENT_CA);
    // Whoever trusts it trusts no authority below it.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let now = SystemTime::now();
    params.not_before = (now - DAY).into();
    params.not_after = (now + CA_LIFE).into();
    params
}

fn leaf(names: &[String]) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, names[0].as_str());
    for name in names {
        params.subject_alt_names.push(match name.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(name.as_str().try_into()?),
        });
    }
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    let now = SystemTime::now();
    params.not_before = (now - DAY).into();
    params.not_after = (now + LEAF_LIFE).into();
    Ok(params)
}

fn leaf_paths_in(directory: &Path, name: &str) -> (PathBuf, PathBuf) {
    let name = file_name(name);
    (directory.join(format!("{name}.pem")), directory.join(format!("{name}.key")))
}

/// A name as a file name.
fn file_name(name: &str) -> String {
    let safe = |character: char| character.is_ascii_alphanumeric() || "-.".contains(character);
    let name: String = name.chars().map(|c| if safe(c) { c } else { '_' }).collect();
    format!("leaf-{name}")
}

/// Writes a file that nobody sees half written.
fn write(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let temporary = path.with_extension(format!("tmp{}", std::process::id()));
    // One is left where an earlier run ended in the middle; `create_new` would refuse it.
    let _ = fs::remove_file(&temporary);
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(mode).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_authority_is_made_once_and_its_key_is_private() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("ca");
        let first = DevCa::open_in(&place).unwrap();
        let pem = fs::read(first.certificate()).unwrap();
        let again = DevCa::open_in(&place).unwrap();
        assert_eq!(fs::read(again.certificate()).unwrap(), pem);
        let mode = fs::metadata(place.join("ca.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        // How to trust it is told once, and kept.
        let path = again.certificate().display().to_string();
        assert!(first.advice().contains(&path) && first.advice().lines().count() > 3);
        let text = place.join(ADVICE);
        let pointer = format!("How to trust it, once, is told in {}.\n", text.display());
        assert_eq!(again.advice(), pointer);
        again.issue(&["a.test".to_owned()]).unwrap();
        assert_eq!(fs::read_to_string(text).unwrap(), first.advice());
    }

    #[test]
    fn a_leaf_names_hosts_and_addresses() {
        let directory = tempfile::tempdir().unwrap();
        let authority = DevCa::open_in(directory.path()).unwrap();
        let names = ["a.test".to_owned(), "127.0.0.1".to_owned(), "*.a.test".to_owned()];
        let (chain, key) = authority.issue(&names).unwrap();
        let chain = fs::read_to_string(chain).unwrap();
        assert_eq!(chain.matches("-----BEGIN CERTIFICATE-----").count(), 2);
        assert!(fs::read_to_string(&key).unwrap().contains("PRIVATE KEY"));
        assert_eq!(fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_place_that_does_not_store_is_named() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("file"), "").unwrap();
        let place = directory.path().join("file/dev-ca");
        let error = DevCa::open_in(&place).err().unwrap().to_string();
        let expected =
            format!("cannot store the development CA in {}: Not a directory", place.display());
        assert_eq!(error, expected);
    }

    #[test]
    fn a_broken_authority_is_named() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("ca.pem"), "x").unwrap();
        fs::write(directory.path().join("ca.key"), "x").unwrap();
        let error = DevCa::open_in(directory.path()).err().unwrap();
        assert!(error.to_string().starts_with("development CA in "), "{error}");
    }
}
