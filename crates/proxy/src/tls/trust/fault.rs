//! Why a chain is not trusted, in OpenSSL's numbers and words.

use thiserror::Error;
use webpki::Error as PathError;

/// Why a chain is not trusted. The texts are those of OpenSSL 3, which operators look for.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Fault {
    /// It ends at a certificate whose issuer is not known.
    #[error("unable to get local issuer certificate")]
    UnknownIssuer,
    /// The leaf came alone and its issuer is not known.
    #[error("unable to verify the first certificate")]
    UnverifiedLeaf,
    /// The leaf issued itself and is not trusted.
    #[error("self-signed certificate")]
    SelfSigned,
    /// It ends at a certificate that issued itself and is not trusted.
    #[error("self-signed certificate in certificate chain")]
    SelfSignedInChain,
    /// It is trusted but for its length: more intermediates than `ssl_verify_depth` or
    /// `proxy_ssl_verify_depth` allows. OpenSSL 1.1 says so; OpenSSL 3 says it and then, when
    /// nginx lets it go on, that it is unable to get the issuer's certificate, and nginx keeps the
    /// last word.
    #[error("certificate chain too long")]
    TooLong,
    /// A certificate of it has expired.
    #[error("certificate has expired")]
    Expired,
    /// A certificate of it is not valid yet.
    #[error("certificate is not yet valid")]
    NotYetValid,
    /// A certificate of it was revoked.
    #[error("certificate revoked")]
    Revoked,
    /// There are revocation lists, but none for a certificate of it.
    #[error("unable to get certificate CRL")]
    NoCrl,
    /// A signature is wrong.
    #[error("certificate signature failure")]
    Signature,
    /// A certificate of it was not made for this.
    #[error("unsuitable certificate purpose")]
    Purpose,
    /// A certificate of it that is no CA's issued another.
    #[error("invalid CA certificate")]
    InvalidCa,
    /// A CA of it may not have so many below it.
    #[error("path length constraint exceeded")]
    PathLength,
    /// Something else that webpki finds wrong.
    #[error("unspecified certificate verification error: {0:?}")]
    Unusable(PathError),
}

impl Fault {
    /// OpenSSL's number (`X509_V_ERR_…`).
    pub fn number(&self) -> u32 {
        match self {
            Self::Unusable(_) => 1,
            Self::NoCrl => 3,
            Self::Signature => 7,
            Self::NotYetValid => 9,
            Self::Expired => 10,
            Self::SelfSigned => 18,
            Self::SelfSignedInChain => 19,
            Self::UnknownIssuer => 20,
            Self::UnverifiedLeaf => 21,
            Self::TooLong => 22,
            Self::Revoked => 23,
            Self::PathLength => 25,
            Self::Purpose => 26,
            Self::InvalidCa => 79,
        }
    }
}

impl From<PathError> for Fault {
    #[allow(deprecated, reason = "webpki may still give the short forms")]
    fn from(error: PathError) -> Self {
        use PathError as E;
        match error {
            E::UnknownIssuer => Self::UnknownIssuer,
            E::MaximumPathDepthExceeded => Self::TooLong,
            E::CertExpired { .. } | E::InvalidCertValidity => Self::Expired,
            E::CertNotValidYet { .. } => Self::NotYetValid,
            E::CertRevoked => Self::Revoked,
            E::UnknownRevocationStatus => Self::NoCrl,
            E::InvalidSignatureForPublicKey => Self::Signature,
            E::RequiredEkuNotFound | E::RequiredEkuNotFoundContext(_) | E::EmptyEkuExtension => {
                Self::Purpose
            }
            E::EndEntityUsedAsCa => Self::InvalidCa,
            E::PathLenConstraintViolated => Self::PathLength,
            other => Self::Unusable(other),
        }
    }
}
