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
    /// A CA of it may not have such names below it.
    #[error("permitted subtree violation")]
    Names,
    /// A revocation list has expired.
    #[error("CRL has expired")]
    CrlExpired,
    /// The signature of a revocation list is wrong.
    #[error("CRL signature failure")]
    CrlSignature,
    /// Something that webpki does not read.
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
            Self::CrlSignature => 8,
            Self::NotYetValid => 9,
            Self::Expired => 10,
            Self::CrlExpired => 12,
            Self::SelfSigned => 18,
            Self::SelfSignedInChain => 19,
            Self::UnknownIssuer => 20,
            Self::UnverifiedLeaf => 21,
            Self::TooLong => 22,
            Self::Revoked => 23,
            Self::PathLength => 25,
            Self::Purpose => 26,
            Self::Names => 47,
            Self::InvalidCa => 79,
        }
    }

    /// Whether `ssl_verify_client optional_no_ca` leaves the judgement to others: when the chain
    /// leads to no CA within the depth, and when webpki cannot read what OpenSSL may accept.
    pub fn passes_without_ca(&self) -> bool {
        matches!(
            self,
            Self::SelfSigned
                | Self::SelfSignedInChain
                | Self::UnknownIssuer
                | Self::UnverifiedLeaf
                | Self::TooLong
                | Self::Unusable(_)
        )
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
            E::CrlExpired { .. } => Self::CrlExpired,
            E::InvalidCrlSignatureForPublicKey => Self::CrlSignature,
            E::InvalidSignatureForPublicKey | E::SignatureAlgorithmMismatch => Self::Signature,
            E::RequiredEkuNotFound | E::RequiredEkuNotFoundContext(_) | E::EmptyEkuExtension => {
                Self::Purpose
            }
            E::EndEntityUsedAsCa => Self::InvalidCa,
            E::PathLenConstraintViolated => Self::PathLength,
            E::NameConstraintViolation => Self::Names,
            other => Self::Unusable(other),
        }
    }
}
