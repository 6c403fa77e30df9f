//! Client certificates.
//!
//! nginx never ends a handshake for a client certificate that does not verify: it answers the
//! requests with 400 and lets the configuration see why. So during the handshake only the proof of
//! the key is checked, and the chain is judged when the handshake is over.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use wssgate_config::model::{ServerTls, VerifyClient};
use wssgate_syntax::{Diagnostic, Report};

use super::certificates;
use crate::tls::proof;

/// `$ssl_client_verify`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientVerify {
    /// The client sent no certificate.
    None,
    /// The chain leads to a trusted CA.
    Success,
    /// It does not, for this reason.
    Failed(String),
}

/// How a server treats client certificates.
#[derive(Debug)]
pub(super) struct Verify {
    mode: VerifyClient,
    /// Judges chains; `None` when there is no CA to judge by.
    judge: Option<Arc<dyn ClientCertVerifier>>,
}

impl Verify {
    pub(super) fn build(tls: &ServerTls, report: &mut Report) -> Self {
        Self { mode: tls.verify_client, judge: judge(tls, report) }
    }

    /// What the handshake asks for; `None` when clients are not asked.
    pub(super) fn verifier(&self) -> Option<Arc<dyn ClientCertVerifier>> {
        match self.mode {
            VerifyClient::Off => None,
            _ => Some(Arc::new(ProofOnly { judge: self.judge.clone() })),
        }
    }

    pub(super) fn judge(&self, chain: Option<&[CertificateDer<'_>]>) -> ClientVerify {
        let Some((leaf, intermediates)) = chain.and_then(<[_]>::split_first) else {
            return ClientVerify::None;
        };
        let Some(judge) = &self.judge else {
            return ClientVerify::Failed("unable to verify the first certificate".to_owned());
        };
        match judge.verify_client_cert(leaf, intermediates, UnixTime::now()) {
            Ok(_) => ClientVerify::Success,
            Err(error) => ClientVerify::Failed(reason(&error)),
        }
    }
}

fn judge(tls: &ServerTls, report: &mut Report) -> Option<Arc<dyn ClientCertVerifier>> {
    let file = tls.client_certificate.as_ref().or(tls.trusted_certificate.as_ref())?;
    if tls.verify_client == VerifyClient::Off {
        return None;
    }
    let mut roots = certificates::load_roots(file, report);
    if let (Some(_), Some(more)) = (&tls.client_certificate, &tls.trusted_certificate) {
        roots.roots.extend(certificates::load_roots(more, report).roots);
    }
    let crls = tls.crl.as_ref().map(|crl| certificates::load_crls(crl, report));
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), crate::tls::provider())
            .with_crls(crls.unwrap_or_default())
            .build();
    match verifier {
        Ok(verifier) => Some(verifier),
        Err(error) => {
            report.push(
                Diagnostic::error(format!("client certificates cannot be verified: {error}"))
                    .at(file.span, "with these CA certificates"),
            );
            None
        }
    }
}

/// OpenSSL's words for the usual reasons.
fn reason(error: &Error) -> String {
    let text = match error {
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "unable to get local issuer certificate"
        }
        Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        ) => "certificate has expired",
        Error::InvalidCertificate(
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
        ) => "certificate is not yet valid",
        Error::InvalidCertificate(CertificateError::Revoked) => "certificate revoked",
        other => return other.to_string(),
    };
    text.to_owned()
}

/// Checks that the client has the key of the certificate it shows, and nothing else.
#[derive(Debug)]
struct ProofOnly {
    judge: Option<Arc<dyn ClientCertVerifier>>,
}

impl ClientCertVerifier for ProofOnly {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.judge.as_ref().map(|judge| judge.root_hint_subjects()).unwrap_or_default()
    }

    fn verify_client_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        // Judged after the handshake.
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        proof::tls12(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        proof::tls13(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        proof::schemes()
    }
}
