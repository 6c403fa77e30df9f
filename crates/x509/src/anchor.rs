//! Certificates that a configuration trusts, and what they say of it.

use crate::certificate::Certificate;
use crate::der;
use crate::peer::Peer;

/// anyExtendedKeyUsage.
const ANY: &[u8] = b"\x55\x1d\x25\x00";

/// What a trusted certificate says of a purpose: OpenSSL's `TRUSTED CERTIFICATE` can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stated {
    Nothing,
    Trusted,
    Rejected,
}

/// A certificate of the configuration: a root, or a CA below one.
#[derive(Debug)]
pub struct Anchor {
    pub(crate) certificate: Certificate,
    pub(crate) stated: Stated,
}

impl Anchor {
    /// Reads a certificate, and behind it, where OpenSSL has written some, the uses for which it is
    /// trusted or rejected (`X509_CERT_AUX`). `None` when one of both cannot be read.
    pub fn parse(der: &[u8], peer: Peer) -> Option<Self> {
        let (certificate, uses) = Certificate::parse_front(der)?;
        let stated = if uses.is_empty() { Stated::Nothing } else { stated(uses, peer)? };
        Some(Self { certificate, stated })
    }

    /// The name of its owner in DER.
    pub fn subject(&self) -> Vec<u8> {
        self.certificate.subject()
    }
}

/// What trust settings say of a peer.
fn stated(mut settings: &[u8], peer: Peer) -> Option<Stated> {
    let mut settings = der::take(&mut settings, der::SEQUENCE)?;
    let trusted = der::take(&mut settings, der::SEQUENCE);
    let rejected = der::take(&mut settings, der::CONTEXT_0);
    let names = |uses: Option<&[u8]>| {
        let mut uses = uses.unwrap_or_default();
        let mut named = false;
        while let Some(oid) = der::take(&mut uses, der::OID) {
            named |= oid == peer.oid() || oid == ANY;
        }
        named
    };
    Some(match trusted {
        _ if names(rejected) => Stated::Rejected,
        Some(_) if names(trusted) => Stated::Trusted,
        // Made for something else.
        Some(_) => Stated::Rejected,
        None => Stated::Nothing,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// What OpenSSL writes for `openssl x509 -addtrust clientAuth` and the like.
    #[test]
    fn trust_settings_are_for_one_purpose_or_for_any() {
        let client = b"\x06\x08\x2b\x06\x01\x05\x05\x07\x03\x02";
        let any = b"\x06\x04\x55\x1d\x25\x00";
        let settings = |tag: u8, oid: &[u8]| {
            let inner = [&[tag, u8::try_from(oid.len()).unwrap()], oid].concat();
            [&[0x30, u8::try_from(inner.len()).unwrap()], &inner[..]].concat()
        };
        let (trusted, rejected) = (0x30, 0xa0);
        for (settings, of_client, of_server) in [
            (settings(trusted, client), Stated::Trusted, Stated::Rejected),
            (settings(trusted, any), Stated::Trusted, Stated::Trusted),
            (settings(rejected, client), Stated::Rejected, Stated::Nothing),
            (settings(rejected, any), Stated::Rejected, Stated::Rejected),
            (b"\x30\x00".to_vec(), Stated::Nothing, Stated::Nothing),
        ] {
            for (peer, expected) in [(Peer::Client, of_client), (Peer::Server, of_server)] {
                assert_eq!(stated(&settings, peer), Some(expected), "{settings:?} {peer:?}");
            }
        }
        assert_eq!(stated(b"\x01", Peer::Client), None);
    }
}
