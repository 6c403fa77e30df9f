//! URLs as `proxy_pass` writes them.

use super::{Endpoint, Form, Host, endpoint};

/// Where an upstream is and how to speak to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamUrl {
    /// `https://`.
    pub tls: bool,
    /// What follows the scheme.
    pub endpoint: Endpoint,
}

/// Why a text is no [`UpstreamUrl`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UrlError<'t> {
    /// It begins with neither `http://` nor `https://`.
    Scheme,
    /// What follows the scheme is no host, port and URI.
    Endpoint {
        /// What follows the scheme.
        text: &'t [u8],
        /// nginx's words for what is wrong with it.
        reason: &'static str,
    },
}

impl UpstreamUrl {
    /// Takes a URL without variables apart.
    ///
    /// # Errors
    /// Says which part of it is wrong.
    pub fn parse(text: &[u8]) -> Result<Self, UrlError<'_>> {
        let after = |scheme: &[u8]| {
            let (start, rest) = text.split_at_checked(scheme.len())?;
            start.eq_ignore_ascii_case(scheme).then_some(rest)
        };
        let http = after(b"http://").map(|rest| (false, rest));
        let (tls, text) =
            http.or_else(|| after(b"https://").map(|rest| (true, rest))).ok_or(UrlError::Scheme)?;
        let endpoint =
            endpoint(text, Form::Url).map_err(|reason| UrlError::Endpoint { text, reason })?;
        Ok(Self { tls, endpoint })
    }

    /// The port of the scheme.
    pub fn default_port(&self) -> u16 {
        if self.tls { 443 } else { 80 }
    }

    /// The port; that of the scheme when none is written.
    pub fn port(&self) -> u16 {
        self.endpoint.port.unwrap_or(self.default_port())
    }

    /// `$proxy_host` and `$proxy_port`.
    pub fn host_and_port(&self) -> (Vec<u8>, Vec<u8>) {
        let port = self.port();
        match &self.endpoint.host {
            Host::Unix(_) => (b"localhost".to_vec(), Vec::new()),
            _ if port == self.default_port() => {
                (self.endpoint.host_text.clone(), port.to_string().into())
            }
            _ => (self.with_port(), port.to_string().into()),
        }
    }

    /// What the group of a host without an `upstream` block is called: `host:port`, or `unix:/path`.
    pub fn group_name(&self) -> Vec<u8> {
        match &self.endpoint.host {
            Host::Unix(_) => [b"unix:", &self.endpoint.host_text[..]].concat(),
            _ => self.with_port(),
        }
    }

    fn with_port(&self) -> Vec<u8> {
        [&self.endpoint.host_text[..], format!(":{}", self.port()).as_bytes()].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart_as_nginx_does() {
        for (text, tls, host, port, group, uri) in [
            ("http://up", false, "up", "80", "up:80", ""),
            ("HTTPS://up:8443/a?b", true, "up:8443", "8443", "up:8443", "/a?b"),
            ("http://up:80", false, "up", "80", "up:80", ""),
            ("https://up:80", true, "up:80", "80", "up:80", ""),
            ("http://127.0.0.1:81?x", false, "127.0.0.1:81", "81", "127.0.0.1:81", "?x"),
            ("http://[::1]/", false, "[::1]", "80", "[::1]:80", "/"),
            ("http://unix:/tmp/s:/u", false, "localhost", "", "unix:/tmp/s", "/u"),
        ] {
            let url = UpstreamUrl::parse(text.as_bytes()).expect(text);
            assert_eq!((url.tls, &url.endpoint.uri[..]), (tls, uri.as_bytes()), "{text}");
            assert_eq!(url.host_and_port(), (host.into(), port.into()), "{text}");
            assert_eq!(url.group_name(), group.as_bytes(), "{text}");
        }
    }

    #[test]
    fn what_is_no_url_says_why() {
        let endpoint =
            |text: &'static str, reason| UrlError::Endpoint { text: text.as_bytes(), reason };
        for (text, error) in [
            ("ftp://a", UrlError::Scheme),
            ("", UrlError::Scheme),
            ("http://", endpoint("", "no host")),
            ("http:///x", endpoint("/x", "no host")),
            ("http://a:b/", endpoint("a:b/", "invalid port")),
            ("https://a:70000", endpoint("a:70000", "invalid port")),
        ] {
            assert_eq!(UpstreamUrl::parse(text.as_bytes()), Err(error), "{text}");
        }
    }
}
