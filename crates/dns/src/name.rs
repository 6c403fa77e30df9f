//! Names of hosts and services.

use std::fmt;
use std::sync::Arc;

/// Bytes of text in the longest name: four labels of full length. RFC 1035 §2.3.4 stops two bytes
/// before, resolvers do not all.
pub(crate) const MAX_TEXT: usize = 255;

/// Bytes in the longest label (RFC 1035 §2.3.4).
const MAX_LABEL: usize = 63;

/// A name that can be looked up: in lower case, without a dot at its end.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

/// The text is no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a name")]
pub struct InvalidName;

impl Name {
    /// Reads a name as people write it.
    ///
    /// # Errors
    /// When a label is missing or too long, or when it has other than visible ASCII characters.
    pub fn new(text: &[u8]) -> Result<Self, InvalidName> {
        let text = text.strip_suffix(b".").unwrap_or(text);
        let fits = |label: &[u8]| {
            (1..=MAX_LABEL).contains(&label.len()) && label.iter().all(u8::is_ascii_graphic)
        };
        if text.len() > MAX_TEXT || !text.split(|byte| *byte == b'.').all(fits) {
            return Err(InvalidName);
        }
        let text = std::str::from_utf8(text).map_err(|_| InvalidName)?;
        Ok(Self(text.to_ascii_lowercase().into()))
    }

    /// The name of a service at this host (RFC 2782): `http` becomes `_http._tcp.HOST`; a service with
    /// a dot in it is complete.
    ///
    /// # Errors
    /// When it becomes too long, or the service is no name.
    pub fn service(&self, service: &[u8]) -> Result<Self, InvalidName> {
        let host = self.0.as_bytes();
        match service.contains(&b'.') {
            true => Self::new(&[service, b".", host].concat()),
            false => Self::new(&[b"_", service, b"._tcp.", host].concat()),
        }
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Writes it as messages have it (RFC 1035 §3.1).
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        for label in self.0.split('.') {
            // It fits: that was checked when the name was made.
            out.push(label.len() as u8);
            out.extend_from_slice(label.as_bytes());
        }
        out.push(0);
    }
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_one_form() {
        let long = [&[b'a'; 63][..]; 4].join(&b'.');
        for (text, expected) in [
            (&b"Example.COM"[..], Some("example.com")),
            (b"example.com.", Some("example.com")),
            (b"_http._tcp.a", Some("_http._tcp.a")),
            (b"a", Some("a")),
            (&long, std::str::from_utf8(&long).ok()),
            (&[&long[..], b".a"].concat(), None),
            (&[b'a'; 64], None),
            (b"", None),
            (b".", None),
            (b"a..b", None),
            (b".a", None),
            (b"a b", None),
            (b"a\0", None),
            ("ä".as_bytes(), None),
        ] {
            let name = Name::new(text).ok();
            assert_eq!(name.as_ref().map(Name::as_str), expected, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn a_service_has_a_protocol() {
        let host = Name::new(b"example.com").expect("a name");
        let service = |text: &[u8]| host.service(text).map(|name| name.to_string());
        assert_eq!(service(b"http").as_deref(), Ok("_http._tcp.example.com"));
        assert_eq!(service(b"_ws._udp").as_deref(), Ok("_ws._udp.example.com"));
        assert_eq!(service(b""), Ok("_._tcp.example.com".into()));
        assert_eq!(service(b"."), Err(InvalidName));
    }
}
