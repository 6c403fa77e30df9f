//! Reading: the header at the front of what has arrived, however it was cut.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use thiserror::Error;

use crate::{Ends, Header, SIGNATURE, Tlvs, Told};

/// The longest header that is read, in bytes; nginx has the same bound.
pub const MAX_LEN: usize = 4096;

/// The longest line of version 1, its end included (§2.1).
const MAX_LINE: usize = 107;

/// What a line of version 1 begins with.
const LINE: [u8; 6] = *b"PROXY ";

/// Bytes of version 2 before the addresses.
const FIXED: usize = 16;

/// What is wrong with a header; the texts are nginx's.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum HeaderError {
    /// It is none, or its parts are not what they must be; with its first line.
    #[error("broken header: \"{0}\"")]
    Broken(String),
    /// Version 2 is the newest.
    #[error("unknown PROXY protocol version: {0}")]
    Version(u8),
    /// "Receivers must drop connections presenting unexpected values here" (§2.2).
    #[error("unknown PROXY protocol command: {0}")]
    Command(u8),
    /// It is longer than [`MAX_LEN`].
    #[error("header is too large")]
    TooLarge,
}

impl HeaderError {
    /// For an input that is, or begins with, no header.
    pub fn broken(input: &[u8]) -> Self {
        let line = input.split(|byte| b"\r\n".contains(byte)).next().unwrap_or_default();
        Self::Broken(line[..line.len().min(MAX_LINE)].escape_ascii().to_string())
    }
}

impl Header {
    /// Reads the header that `input` begins with.
    ///
    /// `Ok(None)` asks for more bytes; never when [`MAX_LEN`] are there.
    ///
    /// # Errors
    /// As soon as it shows that no valid header can come of it.
    pub fn decode(input: &[u8]) -> Result<Option<Self>, HeaderError> {
        let begins = |with: &[u8]| input.iter().zip(with).all(|(a, b)| a == b);
        if begins(&SIGNATURE) {
            binary(input)
        } else if begins(&LINE) {
            line(input)
        } else {
            Err(HeaderError::broken(input))
        }
    }
}

/// Version 1.
fn line(input: &[u8]) -> Result<Option<Header>, HeaderError> {
    let start = &input[..input.len().min(MAX_LINE)];
    let Some(end) = memchr::memchr(b'\n', start) else {
        let full = start.len() == MAX_LINE;
        return if full { Err(HeaderError::broken(input)) } else { Ok(None) };
    };
    let read = || {
        let line = start[..end].strip_suffix(b"\r")?.strip_prefix(&LINE)?;
        match line.strip_prefix(b"UNKNOWN") {
            // "The receiver must ignore anything presented before the CRLF."
            Some(rest) => (rest.is_empty() || rest.starts_with(b" ")).then_some(None),
            None => ends_of_line(line).map(|ends| Some(Told { ends, tlvs: Tlvs::default() })),
        }
    };
    let told = read().ok_or_else(|| HeaderError::broken(input))?;
    Ok(Some(Header { len: end + 1, told }))
}

/// `TCP4 SOURCE DESTINATION PORT PORT`, with single spaces.
fn ends_of_line(line: &[u8]) -> Option<Ends> {
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    let family = words.next()?;
    let mut address = || {
        let word = words.next()?;
        match family {
            "TCP4" => word.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            "TCP6" => word.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let (source, destination) = (address()?, address()?);
    let mut port = || {
        let digits = words.next()?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let source = SocketAddr::new(source, port()?);
    let destination = SocketAddr::new(destination, port()?);
    words.next().is_none().then_some(Ends { source, destination })
}

/// Version 2.
fn binary(input: &[u8]) -> Result<Option<Header>, HeaderError> {
    let Some((&[.., command, family, high, low], rest)) = input.split_first_chunk::<FIXED>() else {
        return Ok(None);
    };
    if command >> 4 != 2 {
        return Err(HeaderError::Version(command >> 4));
    }
    let len = FIXED + usize::from(u16::from_be_bytes([high, low]));
    if len > MAX_LEN {
        return Err(HeaderError::TooLarge);
    }
    let Some(body) = rest.get(..len - FIXED) else { return Ok(None) };
    let told = match command & 0xf {
        // LOCAL: "the receiver must … discard the protocol block including the family which is
        // ignored".
        0 => None,
        1 => told(family, body).map_err(|()| HeaderError::broken(input))?,
        other => return Err(HeaderError::Command(other)),
    };
    Ok(Some(Header { len, told }))
}

/// Addresses and TLVs of the command PROXY. What is no stream of the internet is accepted and tells
/// nothing, as in nginx.
fn told(family: u8, body: &[u8]) -> Result<Option<Told>, ()> {
    let (ends, tlvs) = match family {
        0x11 => {
            let (addresses, tlvs) = body.split_first_chunk::<12>().ok_or(())?;
            let &[a, b, c, d, e, f, g, h, ref ports @ ..] = addresses;
            (ends([a, b, c, d].into(), [e, f, g, h].into(), *ports), tlvs)
        }
        0x21 => {
            let (source, rest) = body.split_first_chunk::<16>().ok_or(())?;
            let (destination, rest) = rest.split_first_chunk::<16>().ok_or(())?;
            let (ports, tlvs) = rest.split_first_chunk::<4>().ok_or(())?;
            (ends((*source).into(), (*destination).into(), *ports), tlvs)
        }
        _ => return Ok(None),
    };
    Ok(Some(Told { ends, tlvs: Tlvs::new(tlvs) }))
}

fn ends(source: IpAddr, destination: IpAddr, [a, b, c, d]: [u8; 4]) -> Ends {
    Ends {
        source: SocketAddr::new(source, u16::from_be_bytes([a, b])),
        destination: SocketAddr::new(destination, u16::from_be_bytes([c, d])),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn decoded(input: &[u8]) -> String {
        match Header::decode(input) {
            Ok(None) => "more".into(),
            Ok(Some(Header { len, told: None })) => format!("{len}: nothing"),
            Ok(Some(Header { len, told: Some(told) })) => {
                format!("{len}: {} {}", told.ends.source, told.ends.destination)
            }
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn lines_are_read() {
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(91));
        let longer = format!("PROXY UNKNOWN {}\r\n", "x".repeat(92));
        for (input, expected) in [
            ("PROXY TCP4 192.0.2.1 192.0.2.2 123 5678\r\nGET", "41: 192.0.2.1:123 192.0.2.2:5678"),
            ("PROXY TCP6 2001:Db8::1 ::2 0 65535\r\n", "36: [2001:db8::1]:0 [::2]:65535"),
            ("PROXY UNKNOWN\r\n", "15: nothing"),
            ("PROXY UNKNOWN 1 2 3 4 5 6\r\nX", "27: nothing"),
            (&long, "107: nothing"),
            (&longer, &format!("broken header: \"{}\"", longer.trim_end())),
            ("", "more"),
            ("PRO", "more"),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 123 56", "more"),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 123 5678\r", "more"),
            ("GET / HTTP/1.1\r\n", "broken header: \"GET / HTTP/1.1\""),
            ("PROXY\r\n", "broken header: \"PROXY\""),
            ("PROXY UNKNOWN\n", "broken header: \"PROXY UNKNOWN\""),
            ("PROXY UNKNOWNX\r\n", "broken header: \"PROXY UNKNOWNX\""),
            (
                "PROXY UDP4 1.1.1.1 1.1.1.1 1 1\r\n",
                "broken header: \"PROXY UDP4 1.1.1.1 1.1.1.1 1 1\"",
            ),
            ("PROXY TCP4 ::1 ::1 1 1\r\n", "broken header: \"PROXY TCP4 ::1 ::1 1 1\""),
            ("PROXY TCP6 ::1 ::1 1 65536\r\n", "broken header: \"PROXY TCP6 ::1 ::1 1 65536\""),
            ("PROXY TCP6 ::1 ::1 +1 1\r\n", "broken header: \"PROXY TCP6 ::1 ::1 +1 1\""),
            ("PROXY TCP6 ::1 ::1 1 1 1\r\n", "broken header: \"PROXY TCP6 ::1 ::1 1 1 1\""),
            ("PROXY TCP6 ::1  ::1 1 1\r\n", "broken header: \"PROXY TCP6 ::1  ::1 1 1\""),
            ("\u{16}\u{3}\u{1}", "broken header: \"\\x16\\x03\\x01\""),
        ] {
            assert_eq!(decoded(input.as_bytes()), expected, "{input:?}");
        }
    }

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let len = u16::try_from(body.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &len, body].concat()
    }

    #[test]
    fn binary_headers_are_read() {
        let v4 = [192, 0, 2, 1, 192, 0, 2, 2, 0, 123, 0x16, 0x2e];
        let mut v6 = [0; 36];
        (v6[15], v6[31], v6[33], v6[35]) = (1, 2, 1, 2);
        let mapped = [&[0; 10][..], &[0xff; 2], &v4[..4]].concat();
        let mapped = [&mapped[..], &mapped, &[0, 1, 0, 2]].concat();
        for (input, expected) in [
            (v2(0x21, 0x11, &v4), "28: 192.0.2.1:123 192.0.2.2:5678"),
            (v2(0x21, 0x11, &[&v4[..], &[0; 9]].concat()), "37: 192.0.2.1:123 192.0.2.2:5678"),
            (v2(0x21, 0x21, &v6), "52: [::1]:1 [::2]:2"),
            (v2(0x21, 0x21, &mapped), "52: [::ffff:192.0.2.1]:1 [::ffff:192.0.2.1]:2"),
            (v2(0x20, 0x00, &[]), "16: nothing"),
            (v2(0x20, 0x11, &v4), "28: nothing"),
            (v2(0x21, 0x00, &[]), "16: nothing"),
            (v2(0x21, 0x12, &v4), "28: nothing"),
            (v2(0x21, 0x31, &[0; 216]), "232: nothing"),
            (v2(0x21, 0x11, &v4[..11]), "broken header: \"\""),
            (v2(0x21, 0x21, &v6[..35]), "broken header: \"\""),
            (v2(0x11, 0x11, &v4), "unknown PROXY protocol version: 1"),
            (v2(0x22, 0x11, &v4), "unknown PROXY protocol command: 2"),
            (v2(0x21, 0x11, &[0; MAX_LEN - FIXED]), "4096: 0.0.0.0:0 0.0.0.0:0"),
            (v2(0x21, 0x11, &[0; MAX_LEN - FIXED + 1]), "header is too large"),
            (b"\r\n\r\nGET".to_vec(), "broken header: \"\""),
        ] {
            assert_eq!(decoded(&input), expected, "{input:?}");
            for cut in 0..input.len() {
                let early = decoded(&input[..cut]);
                // What is wrong may show early; what is right never does.
                let wrong = Header::decode(&input).is_err();
                assert!(early == "more" || wrong && early == expected, "{early} at {cut}");
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_decided_within_the_bound(
            head in proptest::sample::select(vec![&b""[..], b"PROXY ", b"PROXY TCP4 ", &SIGNATURE, b"\r\n\r\n\0\r\nQUIT\n\x21\x11"]),
            tail in proptest::collection::vec(proptest::num::u8::ANY, 0..200),
        ) {
            let mut input = [head, &tail].concat();
            if let Ok(Some(header)) = Header::decode(&input) {
                proptest::prop_assert!(header.len <= input.len());
                proptest::prop_assert_eq!(Header::decode(&input[..header.len]), Ok(Some(header)));
            }
            input.resize(MAX_LEN, b'x');
            proptest::prop_assert!(!matches!(Header::decode(&input), Ok(None)));
        }
    }
}
