//! The host a request is for, as nginx validates it.

use bytes::Bytes;
use thiserror::Error;

/// A host name or address without its port, in lower case and without a trailing dot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    name: Bytes,
    port: Option<u16>,
}

/// The text is no host with an optional port.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("invalid host")]
pub struct InvalidHost;

impl Host {
    /// Reads `host`, `host:port`, `[v6]` or `[v6]:port` by nginx's rules.
    ///
    /// A name is what RFC 3986 §3.2.2 calls reg-name, without two dots in a row. `host:` has no port. The result
    /// shares `text`'s memory unless something had to be put into lower case.
    pub fn parse(text: &Bytes) -> Result<Self, InvalidHost> {
        let (name, port) = split(text)?;
        let name = match name.iter().any(u8::is_ascii_uppercase) {
            true => Bytes::from(name.to_ascii_lowercase()),
            false => text.slice(..name.len()),
        };
        Ok(Self { name, port })
    }

    /// The name or address; an IPv6 address keeps its brackets.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// The port, if one was written.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    pub(crate) fn detach(&mut self) {
        self.name = Bytes::copy_from_slice(&self.name);
    }
}

/// Whether [`Host::parse`] will accept `text`.
pub(crate) fn check(text: &[u8]) -> Result<(), InvalidHost> {
    split(text).map(|_| ())
}

/// The name without its trailing dot, and the port.
fn split(text: &[u8]) -> Result<(&[u8], Option<u16>), InvalidHost> {
    let (name, port) = split_port(text)?;
    // The dot only says that the name is absolute; `server_name` is written without it. There is at
    // most one, since `..` was refused.
    let name = name.strip_suffix(b".").unwrap_or(name);
    if name.is_empty() { Err(InvalidHost) } else { Ok((name, port)) }
}

/// Splits at the colon after the name, and checks both parts.
fn split_port(text: &[u8]) -> Result<(&[u8], Option<u16>), InvalidHost> {
    let literal = text.first() == Some(&b'[');
    let end = match literal {
        true => memchr::memchr(b']', text).ok_or(InvalidHost)? + 1,
        false => memchr::memchr(b':', text).unwrap_or(text.len()),
    };
    let (name, rest) = text.split_at(end);
    let inner = if literal { &name[1..name.len() - 1] } else { name };
    // RFC 3986 §3.2.2: colons stand only in an IP literal, percent escapes only in a name. That
    // also leaves out zone identifiers, which mean nothing to another host.
    let good = |&b: &u8| is_host_byte(b) || (if literal { b == b':' } else { b == b'%' });
    if !inner.iter().all(good) || inner.windows(2).any(|pair| pair == b"..") {
        return Err(InvalidHost);
    }
    match rest {
        // RFC 3986 §3.2.3 lets the port be empty.
        [] | [b':'] => Ok((name, None)),
        [b':', digits @ ..] => Ok((name, Some(parse_port(digits)?))),
        _ => Err(InvalidHost),
    }
}

/// Unreserved characters and sub-delims of RFC 3986.
fn is_host_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&b)
}

fn parse_port(digits: &[u8]) -> Result<u16, InvalidHost> {
    digits.iter().try_fold(0u16, |port, &b| {
        let digit = b.is_ascii_digit().then(|| u16::from(b - b'0'));
        digit.and_then(|digit| port.checked_mul(10)?.checked_add(digit)).ok_or(InvalidHost)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_lower_cased_and_split() {
        for (text, name, port) in [
            ("L", "l", None),
            ("www.Abcd-ef.G02.xyz.", "www.abcd-ef.g02.xyz", None),
            ("abcd.:88", "abcd", Some(88)),
            ("abcd:", "abcd", None),
            ("a_b~!$&'()*+,;=%41", "a_b~!$&'()*+,;=%41", None),
            (".a", ".a", None),
            ("127.0.0.1:65535", "127.0.0.1", Some(65535)),
            ("a:0080", "a", Some(80)),
            ("[Fe80::1]:80", "[fe80::1]", Some(80)),
            ("[::1]", "[::1]", None),
            ("[v1.a-b]", "[v1.a-b]", None),
        ] {
            let host = Host::parse(&Bytes::from_static(text.as_bytes()));
            assert_eq!(
                host,
                Ok(Host { name: Bytes::from_static(name.as_bytes()), port }),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for text in [
            "",
            ".",
            ":80",
            ".:80",
            "a..b",
            "a b",
            "a/b",
            "a@b",
            "a#b",
            "a?b",
            "a\\b",
            "a\0",
            "a\x7f",
            "\u{e4}",
            "a:b",
            "a:1.2",
            "a:65536",
            "a:98777",
            "a:1:2",
            "[::1",
            "[::1]a",
            "[::1]:x",
            "[::1%25lo]",
            "::1",
            "[a..b]",
            "a[b]",
        ] {
            assert_eq!(
                Host::parse(&Bytes::from_static(text.as_bytes())),
                Err(InvalidHost),
                "{text}"
            );
        }
    }
}
