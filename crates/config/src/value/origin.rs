//! Origins of pages (RFC 6454).

use std::net::Ipv6Addr;

/// A scheme, a host and a port. Equal ones are the same origin (RFC 6454 §5): scheme and host are kept in lower case, and
/// the port of a scheme that has one is always there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    scheme: Box<[u8]>,
    host: Box<[u8]>,
    port: Option<u16>,
}

impl Origin {
    /// Reads the value of an `Origin` field that names one origin (RFC 6454 §6.2, §7.1): `scheme://host`, or
    /// `scheme://host:port`. `None` for everything else, `null` too.
    ///
    /// Names of hosts are taken as they come: browsers send those of other scripts in their ASCII form.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let at = text.windows(3).position(|part| part == b"://")?;
        let (scheme, rest) = (&text[..at], &text[at + 3..]);
        if !is_scheme(scheme) {
            return None;
        }
        let (host, port) = split_port(rest)?;
        let port = match port {
            None => None,
            Some(digits) => Some(crate::value::number(digits)?.try_into().ok()?),
        };
        Self::new(scheme, host, port)
    }

    /// The origin of what is at a host; without a port, at that of the scheme. `None` if that is no host. Schemes that
    /// are not of the web may have none, as `file://` of old web views.
    pub fn new(scheme: &[u8], host: &[u8], port: Option<u16>) -> Option<Self> {
        let scheme = scheme.to_ascii_lowercase().into_boxed_slice();
        let host = match host {
            [b'[', address @ .., b']'] => {
                let address: Ipv6Addr = std::str::from_utf8(address).ok()?.parse().ok()?;
                format!("[{address}]").into_bytes()
            }
            _ if !host.iter().all(is_of_name) => return None,
            _ => host.to_ascii_lowercase(),
        };
        let default = default_port(&scheme);
        if host.is_empty() && (default.is_some() || port.is_some()) {
            return None;
        }
        let port = port.or(default);
        Some(Self { scheme, host: host.into(), port })
    }

    /// Stands for all names below its host; see [`Self::is_below`].
    pub(crate) fn below(self) -> Self {
        Self { host: [b".", &*self.host].concat().into(), ..self }
    }

    /// Whether its host lies below that of a domain made by [`Self::below`], and all else is the same.
    pub(crate) fn is_below(&self, domain: &Self) -> bool {
        let name = self.host.strip_suffix(&*domain.host);
        let below = name.is_some_and(|name| !name.is_empty() && !name.starts_with(b"."));
        below && self.scheme == domain.scheme && self.port == domain.port
    }

    /// Its ASCII serialization (RFC 6454 §6.2), which leaves the port of the scheme out.
    pub fn text(&self) -> Vec<u8> {
        let mut text = [&self.scheme, &b"://"[..], &self.host].concat();
        if let Some(port) = self.port.filter(|_| self.port != default_port(&self.scheme)) {
            text.extend_from_slice(format!(":{port}").as_bytes());
        }
        text
    }
}

/// RFC 3986 §3.1.
fn is_scheme(text: &[u8]) -> bool {
    let rest = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
    text.first().is_some_and(u8::is_ascii_alphabetic) && text.iter().all(rest)
}

/// What the name of a host is made of (`reg-name`, RFC 3986 §3.2.2, without escapes and what separates).
fn is_of_name(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(byte)
}

fn default_port(scheme: &[u8]) -> Option<u16> {
    match scheme {
        b"http" | b"ws" => Some(80),
        b"https" | b"wss" => Some(443),
        _ => None,
    }
}

/// Host and port; the colons in brackets are of an address. `None` if something else follows the brackets.
fn split_port(text: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    let end = match text.first() {
        Some(b'[') => text.iter().position(|&byte| byte == b']')? + 1,
        _ => text.iter().position(|&byte| byte == b':').unwrap_or(text.len()),
    };
    match &text[end..] {
        [] => Some((text, None)),
        [b':', digits @ ..] => Some((&text[..end], Some(digits))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_a_scheme_a_host_and_a_port() {
        for (text, expected) in [
            ("https://a.test", Some("https://a.test")),
            ("HTTPS://A.Test:443", Some("https://a.test")),
            ("http://a.test:443", Some("http://a.test:443")),
            ("http://xn--bcher-kva.test:80", Some("http://xn--bcher-kva.test")),
            ("http://127.0.0.1:8080", Some("http://127.0.0.1:8080")),
            ("https://[2001:DB8:0::1]:8443", Some("https://[2001:db8::1]:8443")),
            ("chrome-extension://abc", Some("chrome-extension://abc")),
            ("app+x.y-z://a_b", Some("app+x.y-z://a_b")),
            ("null", None),
            ("", None),
            ("a.test", None),
            ("://a.test", None),
            ("1http://a.test", None),
            ("https://", None),
            ("https://a.test/", None),
            ("https://a.test:", None),
            ("https://a.test:x", None),
            ("https://a.test:+1", None),
            ("https://a.test:65536", None),
            ("https://a.test:1:2", None),
            ("https://user@a.test", None),
            ("https://a.test https://b.test", None),
            ("https://a.test, https://b.test", None),
            ("https://a.test?b", None),
            ("https://a.test#b", None),
            ("https://a.test\\b", None),
            ("https://b\u{fc}cher.test", None),
            ("https://[::1", None),
            ("https://[::1]x", None),
            ("https://[a.test]", None),
            ("https://*.a.test", None),
            ("file://", Some("file://")),
            ("file://:1", None),
        ] {
            let text = text.as_bytes();
            let found = Origin::parse(text).map(|origin| origin.text());
            assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{}", text.escape_ascii());
        }
    }
}
