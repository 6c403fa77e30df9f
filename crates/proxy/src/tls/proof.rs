//! Proof that a peer has the key of the certificate it shows.
//!
//! Where nothing about the certificate itself is to be believed (`proxy_ssl_verify off`, client
//! certificates that are judged later), only this proof counts. It is checked with the public key
//! alone, so that old certificates (X.509 version 1) pass as they do with OpenSSL.

use rustls::DigitallySignedStruct;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm, SubjectPublicKeyInfoDer};
use rustls::{CertificateError, Error, PeerMisbehaved, SignatureScheme};
use webpki::RawPublicKeyEntity;
use wssgate_x509::{Digest, Padding, verify_rsa};
use x509_parser::prelude::{FromDer, X509Certificate};

/// The three methods by which every verifier of ours wants this proof, whatever else it judges.
macro_rules! verify_by_proof {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &rustls::pki_types::CertificateDer<'_>,
            signature: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            $crate::tls::proof::tls12(message, certificate, signature)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &rustls::pki_types::CertificateDer<'_>,
            signature: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            $crate::tls::proof::tls13(message, certificate, signature)
        }

        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            $crate::tls::proof::schemes()
        }
    };
}
pub(super) use verify_by_proof;

/// The signatures that can be checked here.
pub(super) fn schemes() -> Vec<SignatureScheme> {
    super::provider().signature_verification_algorithms.supported_schemes()
}

/// Checks the signature of a TLS 1.2 handshake (RFC 5246 §7.4.3, §7.4.8).
pub(super) fn tls12(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    // A scheme of TLS 1.2 does not name the curve; whichever fits the key counts.
    check(message, certificate, signature, algorithms(signature.scheme)?)
}

/// Checks the signature of a TLS 1.3 handshake (RFC 8446 §4.4.3).
pub(super) fn tls13(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    use SignatureScheme::{RSA_PKCS1_SHA1, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512};
    let scheme = signature.scheme;
    let old = [RSA_PKCS1_SHA1, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512];
    if old.contains(&scheme) {
        return Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into());
    }
    check(message, certificate, signature, &algorithms(scheme)?[..1])
}

fn check(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
    algorithms: &[&'static dyn SignatureVerificationAlgorithm],
) -> Result<HandshakeSignatureValid, Error> {
    let der = public_key(certificate)?;
    let key = RawPublicKeyEntity::try_from(&der)
        .map_err(|_| Error::from(CertificateError::BadEncoding))?;
    let fits = |algorithm: &&dyn SignatureVerificationAlgorithm| {
        key.verify_signature(*algorithm, message, signature.signature()).is_ok()
    };
    match algorithms.iter().any(fits) || is_of_short_rsa(&der, message, signature) {
        true => Ok(HandshakeSignatureValid::assertion()),
        false => Err(CertificateError::BadSignature.into()),
    }
}

/// Whether an RSA key of less than 2048 bits has signed, which none of those algorithms takes. As
/// with OpenSSL, the handshake is completed, and what is judged afterwards is the certificate.
fn is_of_short_rsa(key: &[u8], message: &[u8], signature: &DigitallySignedStruct) -> bool {
    use SignatureScheme as S;
    let (padding, digest) = match signature.scheme {
        S::RSA_PKCS1_SHA256 => (Padding::Pkcs1, Digest::Sha256),
        S::RSA_PKCS1_SHA384 => (Padding::Pkcs1, Digest::Sha384),
        S::RSA_PKCS1_SHA512 => (Padding::Pkcs1, Digest::Sha512),
        S::RSA_PSS_SHA256 => (Padding::Pss, Digest::Sha256),
        S::RSA_PSS_SHA384 => (Padding::Pss, Digest::Sha384),
        S::RSA_PSS_SHA512 => (Padding::Pss, Digest::Sha512),
        _ => return false,
    };
    verify_rsa(key, padding, digest, message, signature.signature())
}

fn algorithms(
    scheme: SignatureScheme,
) -> Result<&'static [&'static dyn SignatureVerificationAlgorithm], Error> {
    let mapping = super::provider().signature_verification_algorithms.mapping;
    let known = mapping.iter().find(|(known, _)| *known == scheme);
    let known = known.map(|(_, algorithms)| *algorithms).filter(|known| !known.is_empty());
    known.ok_or(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into())
}

/// The public key of a certificate, in DER.
pub(super) fn public_key(
    certificate: &CertificateDer<'_>,
) -> Result<SubjectPublicKeyInfoDer<'static>, Error> {
    let (_, certificate) = X509Certificate::from_der(certificate)
        .map_err(|_| Error::from(CertificateError::BadEncoding))?;
    Ok(SubjectPublicKeyInfoDer::from(certificate.public_key().raw.to_vec()))
}
