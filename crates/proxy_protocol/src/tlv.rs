//! Facts about a connection behind the addresses: type, length, value.

/// The types of facts (§2.2 and below).
pub mod types {
    /// What ALPN has chosen.
    pub const ALPN: u8 = 0x01;
    /// The name that the client asked for (SNI).
    pub const AUTHORITY: u8 = 0x02;
    /// The checksum of the header.
    pub const CRC32C: u8 = 0x03;
    /// What tells this connection from all others.
    pub const UNIQUE_ID: u8 = 0x05;
    /// The facts about TLS: a structure with facts of its own.
    pub const SSL: u8 = 0x20;
    /// In [`SSL`]: the version.
    pub const SSL_VERSION: u8 = 0x21;
    /// In [`SSL`]: the common name of the client's certificate.
    pub const SSL_CN: u8 = 0x22;
    /// In [`SSL`]: the cipher suite.
    pub const SSL_CIPHER: u8 = 0x23;
    /// In [`SSL`]: how our certificate is signed.
    pub const SSL_SIG_ALG: u8 = 0x24;
    /// In [`SSL`]: the kind of our key.
    pub const SSL_KEY_ALG: u8 = 0x25;
    /// The network namespace.
    pub const NETNS: u8 = 0x30;
}

/// A list of facts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tlvs(Box<[u8]>);

/// The fact about TLS, [`types::SSL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SslTlv<'t> {
    /// Bits: the client speaks TLS, it sent a certificate on this connection, or in this session.
    pub client: u8,
    /// 0 when it sent a certificate that was verified.
    pub verify: u32,
    tlvs: &'t [u8],
}

impl Tlvs {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    /// The first fact of a type; `None` also when the list breaks off before it.
    pub fn find(&self, wanted: u8) -> Option<&[u8]> {
        find(&self.0, wanted)
    }

    /// The fact about TLS.
    pub fn ssl(&self) -> Option<SslTlv<'_>> {
        let (&[client, a, b, c, d], tlvs) = self.find(types::SSL)?.split_first_chunk()?;
        Some(SslTlv { client, verify: u32::from_be_bytes([a, b, c, d]), tlvs })
    }
}

impl<'t> SslTlv<'t> {
    /// The first fact of a type within it.
    pub fn find(&self, wanted: u8) -> Option<&'t [u8]> {
        find(self.tlvs, wanted)
    }
}

fn find(mut list: &[u8], wanted: u8) -> Option<&[u8]> {
    loop {
        let (&[found, high, low], rest) = list.split_first_chunk()?;
        let (value, rest) = rest.split_at_checked(u16::from_be_bytes([high, low]).into())?;
        if found == wanted {
            return Some(value);
        }
        list = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_fact_of_a_type_is_found() {
        let list = Tlvs::new(b"\x01\0\x02h2\x30\0\0\x01\0\x01x\x05\0\x09broken");
        for (wanted, expected) in
            [(1, Some(&b"h2"[..])), (0x30, Some(b"")), (5, None), (0x20, None)]
        {
            assert_eq!(list.find(wanted), expected, "{wanted}");
        }
        assert_eq!(Tlvs::default().find(1), None);
    }

    #[test]
    fn facts_about_tls_are_in_a_list_of_their_own() {
        let list = Tlvs::new(b"\x20\0\x10\x07\0\0\0\xff\x21\0\x02v3\x22\0\x03abc");
        let ssl = list.ssl();
        assert_eq!(ssl.map(|ssl| (ssl.client, ssl.verify)), Some((7, 255)));
        assert_eq!(ssl.and_then(|ssl| ssl.find(types::SSL_VERSION)), Some(&b"v3"[..]));
        assert_eq!(list.find(types::SSL_CN), None);
        assert_eq!(Tlvs::new(b"\x20\0\x04\x07\0\0\0").ssl(), None);
    }
}
