//! Why a chain is not trusted, in OpenSSL's numbers and words.

use std::fmt;

/// Why a chain is not trusted: one of OpenSSL 3's numbers (`X509_V_ERR_…`). Its text is OpenSSL's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fault(u32);

impl Fault {
    /// Something that has no word of its own.
    pub const UNSPECIFIED: Self = Self(1);
    /// The path ends at a trusted certificate that is no root, and whose issuer is not trusted.
    pub const NO_ISSUER: Self = Self(2);
    /// There are revocation lists, but none for a certificate of the path.
    pub const NO_CRL: Self = Self(3);
    /// A key that the library cannot read should have checked a signature.
    pub const UNREADABLE_KEY: Self = Self(6);
    /// A signature is wrong.
    pub const SIGNATURE: Self = Self(7);
    /// A certificate is not valid yet.
    pub const NOT_YET_VALID: Self = Self(9);
    /// A certificate has expired.
    pub const EXPIRED: Self = Self(10);
    /// The beginning of a certificate's life cannot be read.
    pub const NOT_BEFORE: Self = Self(13);
    /// The end of a certificate's life cannot be read.
    pub const NOT_AFTER: Self = Self(14);
    /// The leaf issued itself and is not trusted.
    pub const SELF_SIGNED: Self = Self(18);
    /// The path ends at a certificate that issued itself and is not trusted.
    pub const SELF_SIGNED_IN_CHAIN: Self = Self(19);
    /// The path ends at a certificate whose issuer is not known.
    pub const NO_LOCAL_ISSUER: Self = Self(20);
    /// The leaf came alone and its issuer is not known.
    pub const UNVERIFIED_LEAF: Self = Self(21);
    /// The path has more certificates than the depth allows.
    pub const TOO_LONG: Self = Self(22);
    /// A certificate was revoked.
    pub const REVOKED: Self = Self(23);
    /// A CA may not have so many CAs below it.
    pub const PATH_LENGTH: Self = Self(25);
    /// A certificate was not made for this.
    pub const PURPOSE: Self = Self(26);
    /// A trusted certificate says that it must not be trusted for this.
    pub const REJECTED: Self = Self(28);
    /// A certificate that may not sign others did.
    pub const NO_CERTIFICATE_SIGNING: Self = Self(32);
    /// A critical extension is not known.
    pub const CRITICAL_EXTENSION: Self = Self(34);
    /// A proxy certificate (RFC 3820).
    pub const PROXY_CERTIFICATE: Self = Self(40);
    /// A certificate has number resources (RFC 3779).
    pub const RESOURCE: Self = Self(46);
    /// The key of the leaf is too weak.
    pub const WEAK_KEY: Self = Self(66);
    /// The key of a CA is too weak.
    pub const WEAK_CA_KEY: Self = Self(67);
    /// A signature was made with a digest that is too weak.
    pub const WEAK_DIGEST: Self = Self(68);
    /// A certificate that is no CA's issued another.
    pub const INVALID_CA: Self = Self(79);
    /// The curve of a key is described and not named.
    pub const EXPLICIT_CURVE: Self = Self(94);

    /// OpenSSL's number.
    pub fn number(self) -> u32 {
        self.0
    }

    /// Whether `ssl_verify_client optional_no_ca` leaves the judgement to others: those that
    /// nginx lets pass (`ngx_ssl_verify_error_optional`).
    pub fn passes_without_ca(self) -> bool {
        [
            Self::SELF_SIGNED,
            Self::SELF_SIGNED_IN_CHAIN,
            Self::NO_LOCAL_ISSUER,
            Self::UNVERIFIED_LEAF,
        ]
        .contains(&self)
    }

    /// The library's number in terms of OpenSSL 3. Both agree up to the first of those that each
    /// has added.
    pub(crate) fn of_library(number: i32) -> Self {
        match u32::try_from(number) {
            Ok(24) => Self::INVALID_CA,
            Ok(72) => Self::EXPLICIT_CURVE,
            Ok(number @ 1..=64) => Self(number),
            _ => Self::UNSPECIFIED,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(words(self.0))
    }
}

/// What OpenSSL 3 says (`X509_verify_cert_error_string`).
fn words(number: u32) -> &'static str {
    match number {
        2 => "unable to get issuer certificate",
        3 => "unable to get certificate CRL",
        6 => "unable to decode issuer public key",
        7 => "certificate signature failure",
        8 => "CRL signature failure",
        9 => "certificate is not yet valid",
        10 => "certificate has expired",
        11 => "CRL is not yet valid",
        12 => "CRL has expired",
        13 => "format error in certificate's notBefore field",
        14 => "format error in certificate's notAfter field",
        15 => "format error in CRL's lastUpdate field",
        16 => "format error in CRL's nextUpdate field",
        17 => "out of memory",
        18 => "self-signed certificate",
        19 => "self-signed certificate in certificate chain",
        20 => "unable to get local issuer certificate",
        21 => "unable to verify the first certificate",
        22 => "certificate chain too long",
        23 => "certificate revoked",
        25 => "path length constraint exceeded",
        26 => "unsuitable certificate purpose",
        28 => "certificate rejected",
        32 => "key usage does not include certificate signing",
        33 => "unable to get CRL issuer certificate",
        34 => "unhandled critical extension",
        35 => "key usage does not include CRL signing",
        36 => "unhandled critical CRL extension",
        40 => "proxy certificates not allowed, please set the appropriate flag",
        41 => "invalid or inconsistent certificate extension",
        44 => "different CRL scope",
        45 => "unsupported extension feature",
        46 => "RFC 3779 resource not subset of parent's resources",
        47 => "permitted subtree violation",
        48 => "excluded subtree violation",
        49 => "name constraints minimum and maximum not supported",
        51 => "unsupported name constraint type",
        52 => "unsupported or invalid name constraint syntax",
        53 => "unsupported or invalid name syntax",
        54 => "CRL path validation error",
        66 => "EE certificate key too weak",
        67 => "CA certificate key too weak",
        68 => "CA signature digest algorithm too weak",
        79 => "invalid CA certificate",
        94 => "Certificate public key has explicit ECC parameters",
        _ => "unspecified certificate verification error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_the_library_become_those_of_openssl() {
        for (library, expected) in [
            (aws_lc_sys::X509_V_ERR_INVALID_CA, Fault::INVALID_CA),
            (aws_lc_sys::X509_V_ERR_CERT_REVOKED, Fault::REVOKED),
            (aws_lc_sys::X509_V_ERR_INVALID_PURPOSE, Fault::PURPOSE),
            (aws_lc_sys::X509_V_ERR_EC_KEY_EXPLICIT_PARAMS, Fault::EXPLICIT_CURVE),
            (aws_lc_sys::X509_V_ERR_STORE_LOOKUP, Fault::UNSPECIFIED),
            (0, Fault::UNSPECIFIED),
            (-1, Fault::UNSPECIFIED),
        ] {
            assert_eq!(Fault::of_library(library), expected);
        }
    }
}
