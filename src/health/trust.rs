//! Whom a health check over TLS trusts.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::{ClientConfig, RootCertStore};
use thiserror::Error;
use wssgate_doctor::TakeAll;

use crate::dev_ca::DevCa;

/// Who may have issued the certificate of a server.
pub(super) enum Trust<'a> {
    /// A public CA, the development CA of whoever runs the check, or one of this file.
    Of(Option<&'a Path>),
    /// Whoever.
    Anybody,
}

/// Why nobody can be trusted.
#[derive(Debug, Error)]
pub(crate) enum Untrusted {
    #[error("--ca \"{}\": {source}", path.display())]
    Unreadable { path: PathBuf, source: pem::Error },
    #[error("--ca \"{}\": there is no CA certificate in it", .0.display())]
    Empty(PathBuf),
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}

impl Trust<'_> {
    /// The settings of a client that trusts like this.
    pub(super) fn config(self) -> Result<Arc<ClientConfig>, Untrusted> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions()?;
        let mut config = match self {
            Self::Of(file) => builder.with_root_certificates(roots(file)?).with_no_client_auth(),
            Self::Anybody => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(TakeAll::new(provider)))
                .with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

fn roots(file: Option<&Path>) -> Result<RootCertStore, Untrusted> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    // Its key is in the same directory of the same user: who could misuse it needs no certificate.
    let development = DevCa::existing().and_then(|path| certificates(&path).ok());
    roots.add_parsable_certificates(development.unwrap_or_default());
    if let Some(path) = file {
        let unreadable = |source| Untrusted::Unreadable { path: path.to_owned(), source };
        let (added, _) = roots.add_parsable_certificates(certificates(path).map_err(unreadable)?);
        if added == 0 {
            return Err(Untrusted::Empty(path.to_owned()));
        }
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, pem::Error> {
    CertificateDer::pem_file_iter(path)?.collect()
}
