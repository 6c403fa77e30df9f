//! A certificate with its chain and key.

use std::net::IpAddr;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rcgen::{KeyPair, PublicKeyData as _};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, ParsedExtension};
use zeroize::Zeroizing;

use crate::identifier::Identifier;
use crate::schedule::Span;

/// A certificate with its chain and key, which fit together.
pub struct Chain {
    /// The chain in PEM, the certificate itself first.
    pub pem: String,
    /// The key in PEM (PKCS#8).
    pub key: Zeroizing<String>,
    /// When it is valid.
    pub valid: Span,
    /// What it is for.
    pub identifiers: Vec<Identifier>,
    /// What the CA calls it when it is asked when to renew (RFC 9773 §4.1): key identifier and serial.
    pub(crate) renewal_id: Option<(String, String)>,
}

impl Chain {
    /// Puts chain and key together.
    ///
    /// # Errors
    /// When they are not what they should be, or do not belong together.
    pub fn new(pem: String, key: Zeroizing<String>) -> Result<Self, String> {
        let leaf = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|error| format!("no certificate: {error}"))?;
        let (_, leaf) = X509Certificate::from_der(&leaf)
            .map_err(|error| format!("the certificate cannot be read: {error}"))?;
        let pair = KeyPair::from_pem(&key).map_err(|error| format!("no private key: {error}"))?;
        if pair.subject_public_key_info() != leaf.public_key().raw {
            return Err("certificate and key do not match".to_owned());
        }
        let validity = leaf.validity();
        let valid =
            Span { start: validity.not_before.timestamp(), end: validity.not_after.timestamp() };
        let renewal_id = renewal_id(&leaf);
        let identifiers = identifiers(&leaf);
        Ok(Self { pem, key, valid, identifiers, renewal_id })
    }

    /// Whether the topmost certificate of a chain was issued by `name`.
    pub(crate) fn leads_to(pem: &str, name: &str) -> bool {
        let last = CertificateDer::pem_slice_iter(pem.as_bytes()).filter_map(Result::ok).last();
        last.is_some_and(|last| {
            X509Certificate::from_der(&last).is_ok_and(|(_, last)| {
                last.issuer().iter_common_name().any(|common| common.as_str() == Ok(name))
            })
        })
    }
}

/// The names and addresses that a certificate is for.
fn identifiers(leaf: &X509Certificate<'_>) -> Vec<Identifier> {
    let names = leaf.subject_alternative_name().ok().flatten();
    let names = names.iter().flat_map(|names| &names.value.general_names);
    let identifier = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(Identifier::Dns(name.to_ascii_lowercase().into())),
        GeneralName::IPAddress(octets) => {
            let v4 = <[u8; 4]>::try_from(*octets).map(IpAddr::from);
            let address = v4.or_else(|_| <[u8; 16]>::try_from(*octets).map(IpAddr::from));
            address.ok().map(Identifier::Ip)
        }
        _ => None,
    };
    names.filter_map(identifier).collect()
}

fn renewal_id(leaf: &X509Certificate<'_>) -> Option<(String, String)> {
    let authority =
        leaf.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(key) => key.key_identifier.as_ref(),
            _ => None,
        })?;
    let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    Some((encode(authority.0), encode(leaf.raw_serial())))
}
