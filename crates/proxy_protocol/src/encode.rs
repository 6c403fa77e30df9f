//! Writing: where a connection comes from, for whoever it is passed on to.

use std::net::{IpAddr, Ipv6Addr};

use crate::{Ends, SIGNATURE, types};

/// The longest value of a fact that is written, in bytes: names are shorter (RFC 1035 §2.3.4), and
/// all facts together fit a small header.
const MAX_VALUE: usize = 255;

/// What version 2 tells of the client's TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFacts<'f> {
    /// The name that it asked for.
    pub authority: Option<&'f [u8]>,
    /// What ALPN has chosen.
    pub alpn: Option<&'f [u8]>,
    /// The version, such as `TLSv1.3`.
    pub version: &'f str,
    /// The cipher suite by its OpenSSL name.
    pub cipher: &'f str,
    /// Its certificate.
    pub certificate: Option<Certificate<'f>>,
}

/// What is told of a client's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate<'f> {
    /// Its common name.
    pub common_name: Option<&'f [u8]>,
    /// Whether it was sent on an earlier connection, whose session was resumed.
    pub earlier: bool,
    /// 0 when it was verified, else OpenSSL's number of what is wrong.
    pub verify: u32,
}

/// A line of version 1; `None` for ends that are no internet addresses.
pub fn encode_v1(ends: Option<&Ends>) -> Vec<u8> {
    let Some(ends) = ends else { return b"PROXY UNKNOWN\r\n".to_vec() };
    let (source, destination) = of_one_family(ends);
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    let (from, to) = (ends.source.port(), ends.destination.port());
    format!("PROXY {family} {source} {destination} {from} {to}\r\n").into_bytes()
}

/// A header of version 2, with a checksum; `None` for ends that are no internet addresses.
pub fn encode_v2(ends: Option<&Ends>, tls: Option<&TlsFacts<'_>>) -> Vec<u8> {
    let mut header = SIGNATURE.to_vec();
    match ends {
        None => header.extend_from_slice(&[0x20, 0x00, 0, 0]),
        Some(ends) => {
            let addresses = of_one_family(ends);
            header.extend_from_slice(&[
                0x21,
                if addresses.0.is_ipv4() { 0x11 } else { 0x21 },
                0,
                0,
            ]);
            for address in [addresses.0, addresses.1] {
                match address {
                    IpAddr::V4(address) => header.extend_from_slice(&address.octets()),
                    IpAddr::V6(address) => header.extend_from_slice(&address.octets()),
                }
            }
            header.extend_from_slice(&ends.source.port().to_be_bytes());
            header.extend_from_slice(&ends.destination.port().to_be_bytes());
        }
    }
    if let Some(tls) = tls {
        put_facts(&mut header, tls);
    }
    put(&mut header, types::CRC32C, &[0; 4]);
    let len = u16::try_from(header.len() - 16).expect("a few addresses and short facts");
    header[14..16].copy_from_slice(&len.to_be_bytes());
    // Over the whole header, with zeros where it will stand (§2.2.3).
    let sum = crc32c(&header);
    let at = header.len() - 4;
    header[at..].copy_from_slice(&sum.to_be_bytes());
    header
}

/// Both addresses as IPv4, or both as IPv6: a header has room for one family.
fn of_one_family(ends: &Ends) -> (IpAddr, IpAddr) {
    let (source, destination) = (ends.source.ip(), ends.destination.ip());
    match (source.to_canonical(), destination.to_canonical()) {
        (source @ IpAddr::V4(_), destination @ IpAddr::V4(_)) => (source, destination),
        _ => (mapped(source), mapped(destination)),
    }
}

fn mapped(address: IpAddr) -> IpAddr {
    let map = |v4: std::net::Ipv4Addr| -> Ipv6Addr { v4.to_ipv6_mapped() };
    match address {
        IpAddr::V4(v4) => map(v4).into(),
        v6 => v6,
    }
}

fn put_facts(header: &mut Vec<u8>, tls: &TlsFacts<'_>) {
    for (kind, value) in [(types::AUTHORITY, tls.authority), (types::ALPN, tls.alpn)] {
        if let Some(value) = value {
            put(header, kind, value);
        }
    }
    // "The client connected over SSL/TLS", "provided a certificate over the current connection",
    // "at least once over the TLS session this connection belongs to".
    let (speaks, sent_now, sent_before) = (1, 2, 4);
    let (client, verify) = match &tls.certificate {
        None => (speaks, 1),
        Some(sent) if sent.earlier => (speaks | sent_before, sent.verify),
        Some(sent) => (speaks | sent_before | sent_now, sent.verify),
    };
    let mut ssl = vec![client];
    ssl.extend_from_slice(&verify.to_be_bytes());
    put(&mut ssl, types::SSL_VERSION, tls.version.as_bytes());
    if let Some(name) = tls.certificate.as_ref().and_then(|sent| sent.common_name) {
        put(&mut ssl, types::SSL_CN, name);
    }
    put(&mut ssl, types::SSL_CIPHER, tls.cipher.as_bytes());
    put_long(header, types::SSL, &ssl);
}

/// Adds a fact; one that is too long is left out, since half a name is another name.
fn put(list: &mut Vec<u8>, kind: u8, value: &[u8]) {
    if value.len() <= MAX_VALUE {
        put_long(list, kind, value);
    }
}

fn put_long(list: &mut Vec<u8>, kind: u8, value: &[u8]) {
    let len = u16::try_from(value.len()).expect("a few short facts");
    list.push(kind);
    list.extend_from_slice(&len.to_be_bytes());
    list.extend_from_slice(value);
}

/// The checksum of RFC 9260 appendix A.
fn crc32c(bytes: &[u8]) -> u32 {
    // Bit by bit: a header is short, and a table would be more to read than this.
    !bytes.iter().fold(!0, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            (sum >> 1) ^ (0x82f6_3b78 & (sum & 1).wrapping_neg())
        })
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{Header, Told};

    fn ends(source: &str, destination: &str) -> Ends {
        Ends { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
    }

    fn told(header: &[u8]) -> Option<Told> {
        let header = Header::decode(header).unwrap().filter(|read| read.len == header.len());
        header.expect("a whole header").told
    }

    #[test]
    fn what_is_written_is_read_back() {
        for (source, destination, line) in [
            ("192.0.2.1:5", "192.0.2.2:443", "TCP4 192.0.2.1 192.0.2.2 5 443"),
            ("[2001:db8::1]:5", "[::1]:443", "TCP6 2001:db8::1 ::1 5 443"),
            ("[2001:db8::1]:0", "10.0.0.1:80", "TCP6 2001:db8::1 ::ffff:10.0.0.1 0 80"),
            ("[::ffff:192.0.2.1]:5", "10.0.0.1:80", "TCP4 192.0.2.1 10.0.0.1 5 80"),
        ] {
            let ends = ends(source, destination);
            let text = encode_v1(Some(&ends));
            assert_eq!(String::from_utf8_lossy(&text), format!("PROXY {line}\r\n"));
            let read = told(&text).unwrap().ends;
            assert_eq!(told(&encode_v2(Some(&ends), None)).unwrap().ends, read);
            assert_eq!(read.source.port(), ends.source.port());
        }
        assert_eq!(told(&encode_v1(None)), None);
        assert_eq!(told(&encode_v2(None, None)), None);
    }

    #[test]
    fn facts_about_tls_are_read_back() {
        let (name, long) = (vec![b'n'; MAX_VALUE], vec![b'n'; MAX_VALUE + 1]);
        let certificate = |name| Certificate { common_name: Some(name), earlier: false, verify: 0 };
        let facts = TlsFacts {
            authority: Some(b"a.example"),
            alpn: Some(b"http/1.1"),
            version: "TLSv1.3",
            cipher: "TLS_AES_128_GCM_SHA256",
            certificate: Some(certificate(&name)),
        };
        let ends = ends("192.0.2.1:5", "192.0.2.2:443");
        let tlvs = told(&encode_v2(Some(&ends), Some(&facts))).unwrap().tlvs;
        assert_eq!(tlvs.find(types::AUTHORITY), facts.authority);
        assert_eq!(tlvs.find(types::ALPN), facts.alpn);
        let ssl = tlvs.ssl().unwrap();
        assert_eq!((ssl.client, ssl.verify), (7, 0));
        assert_eq!(ssl.find(types::SSL_VERSION), Some(&b"TLSv1.3"[..]));
        assert_eq!(ssl.find(types::SSL_CIPHER), Some(facts.cipher.as_bytes()));
        assert_eq!(ssl.find(types::SSL_CN), Some(&name[..]));
        let facts = TlsFacts { certificate: Some(certificate(&long)), ..TlsFacts::default() };
        let tlvs = told(&encode_v2(Some(&ends), Some(&facts))).unwrap().tlvs;
        assert_eq!(tlvs.ssl().unwrap().find(types::SSL_CN), None);
        let tlvs = told(&encode_v2(Some(&ends), Some(&TlsFacts::default()))).unwrap().tlvs;
        assert_eq!(tlvs.ssl().map(|ssl| (ssl.client, ssl.verify)), Some((1, 1)));
    }

    #[test]
    fn the_checksum_is_the_one_of_sctp() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
    }
}
