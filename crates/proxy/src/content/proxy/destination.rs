//! Where a `proxy_pass` leads for one request.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use wssgate_config::model::{FixedPass, ListenAddr, ProxyPass};

use super::request::UriPart;
use crate::exchange::refusal::Refusal;
use crate::exchange::request::Request;
use crate::peers::Group;

/// The upstream of one request.
pub(crate) struct Destination<'a> {
    /// `https://`.
    pub(crate) tls: bool,
    /// The peers.
    pub(crate) group: Arc<Group>,
    /// `$proxy_host`.
    pub(crate) host: Bytes,
    /// `$proxy_port`.
    pub(crate) port: Bytes,
    /// What of the target the URL says.
    pub(crate) uri: UriPart<'a>,
}

impl<'a> Destination<'a> {
    /// Finds the upstream of `pass`.
    ///
    /// # Errors
    /// When a URL made of variables leads nowhere.
    pub(crate) fn of(request: &Request, pass: &'a ProxyPass) -> Result<Self, Refusal> {
        match pass {
            ProxyPass::Fixed(fixed) => Ok(Self::fixed(request, fixed)),
            ProxyPass::Variable(template) => {
                let text = request.text(template);
                let url = Url::parse(&text).ok_or_else(|| Refusal::Url(text.clone()))?;
                Self::variable(request, url)
            }
        }
    }

    fn fixed(request: &Request, fixed: &'a FixedPass) -> Self {
        let uri = match &fixed.uri {
            Some(uri) => UriPart::Replaces { prefix: &fixed.location_prefix, uri },
            None => UriPart::None,
        };
        Self {
            tls: fixed.tls,
            group: Arc::clone(&request.generation.upstreams[fixed.upstream.0]),
            host: Bytes::copy_from_slice(&fixed.host),
            port: Bytes::copy_from_slice(&fixed.port),
            uri,
        }
    }

    fn variable(request: &Request, url: Url) -> Result<Self, Refusal> {
        let group = url.group(request).ok_or_else(|| Refusal::NoResolver(url.host.clone()))?;
        let uri = if url.uri.is_empty() { UriPart::None } else { UriPart::Whole(url.uri.clone()) };
        let (host, port) = url.proxy_host_and_port();
        Ok(Self { tls: url.tls, group, host, port, uri })
    }
}

/// A URL made of variables.
#[derive(Debug, PartialEq, Eq)]
struct Url {
    tls: bool,
    /// A name, an address with its brackets, or the path of a Unix socket.
    host: Bytes,
    unix: bool,
    port: Option<u16>,
    uri: Bytes,
}

impl Url {
    fn parse(text: &Bytes) -> Option<Self> {
        let is = |scheme: &[u8]| {
            text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
        };
        let (tls, rest) = match () {
            () if is(b"http://") => (false, text.slice(7..)),
            () if is(b"https://") => (true, text.slice(8..)),
            () => return None,
        };
        if let Some(path) = rest.strip_prefix(b"unix:") {
            let (path, uri) = match memchr::memchr(b':', path) {
                Some(colon) => (&path[..colon], &path[colon + 1..]),
                None => (path, &b""[..]),
            };
            let (host, uri) = (rest.slice_ref(path), rest.slice_ref(uri));
            return (!host.is_empty()).then_some(Self { tls, host, unix: true, port: None, uri });
        }
        let end = memchr::memchr2(b'/', b'?', &rest).unwrap_or(rest.len());
        let (authority, uri) = (rest.slice(..end), rest.slice(end..));
        let uri = match uri.first() {
            // A target needs a path (RFC 9112 §3.2.1).
            Some(b'?') => [b"/", &uri[..]].concat().into(),
            _ => uri,
        };
        let (host, port) = match memchr::memrchr(b':', &authority) {
            Some(colon) if !authority[colon..].contains(&b']') => {
                let port = std::str::from_utf8(&authority[colon + 1..]).ok()?.parse().ok()?;
                (authority.slice(..colon), Some(port))
            }
            _ => (authority, None),
        };
        (!host.is_empty()).then_some(Self { tls, host, unix: false, port, uri })
    }

    fn default_port(&self) -> u16 {
        if self.tls { 443 } else { 80 }
    }

    /// An `upstream` block of that name, a group that another `proxy_pass` has made, or an address.
    fn group(&self, request: &Request) -> Option<Arc<Group>> {
        if self.unix {
            let path = std::str::from_utf8(&self.host).ok()?;
            return Some(Arc::new(Group::of_address(ListenAddr::Unix(path.into()))));
        }
        let port = self.port.unwrap_or(self.default_port());
        let with_port = [&self.host[..], format!(":{port}").as_bytes()].concat();
        let models = &request.http().upstreams;
        // As in nginx, an `upstream` block has no port: a URL that names one means an address.
        let known = models.iter().position(|model| match model.explicit {
            true => self.port.is_none() && model.name.eq_ignore_ascii_case(&self.host),
            false => model.name.eq_ignore_ascii_case(&with_port),
        });
        if let Some(index) = known {
            return request.generation.upstreams.get(index).cloned();
        }
        let text = std::str::from_utf8(&self.host).ok()?;
        // Only what needs no name resolution: that would have to wait, and needs a `resolver`.
        let address: IpAddr = text.trim_matches(['[', ']']).parse().ok()?;
        let address = SocketAddr::new(address, port);
        Some(Arc::new(Group::of_address(ListenAddr::Ip(address))))
    }

    fn proxy_host_and_port(&self) -> (Bytes, Bytes) {
        if self.unix {
            return (Bytes::from_static(b"localhost"), Bytes::new());
        }
        let port = self.port.unwrap_or(self.default_port());
        let host = match port == self.default_port() {
            true => self.host.clone(),
            false => [&self.host[..], format!(":{port}").as_bytes()].concat().into(),
        };
        (host, port.to_string().into())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart_as_nginx_does() {
        for (text, tls, host, port, uri) in [
            ("http://up", false, "up", None, ""),
            ("HTTPS://up:8443/a?b", true, "up", Some(8443), "/a?b"),
            ("http://127.0.0.1:81?x", false, "127.0.0.1", Some(81), "/?x"),
            ("http://[::1]/", false, "[::1]", None, "/"),
            ("http://[::1]:82", false, "[::1]", Some(82), ""),
            ("http://unix:/tmp/s:/u", false, "/tmp/s", None, "/u"),
        ] {
            let url = Url::parse(&Bytes::from_static(text.as_bytes())).unwrap();
            assert_eq!((url.tls, &url.host[..]), (tls, host.as_bytes()), "{text}");
            assert_eq!((url.port, &url.uri[..]), (port, uri.as_bytes()), "{text}");
        }
        for text in ["ftp://a", "http://", "http:///x", "http://a:b/", "", "http://a:70000"] {
            assert_eq!(Url::parse(&Bytes::from_static(text.as_bytes())), None, "{text}");
        }
    }

    #[test]
    fn the_port_is_shown_only_when_it_is_not_the_usual_one() {
        for (text, host, port) in [
            ("http://up", "up", "80"),
            ("http://up:80", "up", "80"),
            ("https://up:80", "up:80", "80"),
            ("https://up", "up", "443"),
            ("http://unix:/tmp/s", "localhost", ""),
        ] {
            let url = Url::parse(&Bytes::from_static(text.as_bytes())).unwrap();
            assert_eq!(url.proxy_host_and_port(), (Bytes::from(host), Bytes::from(port)), "{text}");
        }
    }
}
