//! Where a `proxy_pass` leads for one request.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use wssgate_config::model::{FixedPass, ListenAddr, ProxyPass};
use wssgate_config::value::{Host, UpstreamUrl};

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
                let url = UpstreamUrl::parse(&text).map_err(|_| Refusal::Url(text.clone()))?;
                Self::variable(request, &url)
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

    fn variable(request: &Request, url: &UpstreamUrl) -> Result<Self, Refusal> {
        let name = || url.endpoint.host_text.clone().into();
        let group = group(request, url).ok_or_else(|| Refusal::NoResolver(name()))?;
        let (host, port) = url.host_and_port();
        let (host, port) = (host.into(), port.into());
        Ok(Self { tls: url.tls, group, host, port, uri: uri_part(&url.endpoint.uri) })
    }
}

/// The URI of a URL made of variables, which is the whole target.
fn uri_part(uri: &[u8]) -> UriPart<'static> {
    match uri.first() {
        None => UriPart::None,
        // In a request line there must be a path (RFC 9112 §3.2.1).
        Some(b'?') => UriPart::Whole([b"/", uri].concat().into()),
        Some(_) => UriPart::Whole(Bytes::copy_from_slice(uri)),
    }
}

/// An `upstream` block of that name, a group that another `proxy_pass` has made, or an address.
fn group(request: &Request, url: &UpstreamUrl) -> Option<Arc<Group>> {
    let endpoint = &url.endpoint;
    let name = url.group_name();
    let models = &request.http().upstreams;
    // As in nginx, an `upstream` block has no port: a URL that names one means an address.
    let known = models.iter().position(|model| match model.explicit {
        true => endpoint.port.is_none() && model.name.eq_ignore_ascii_case(&endpoint.host_text),
        false => model.name.eq_ignore_ascii_case(&name),
    });
    if let Some(index) = known {
        return request.generation.upstreams.get(index).cloned();
    }
    let address = match &endpoint.host {
        Host::Unix(path) => ListenAddr::Unix(path.clone()),
        Host::Ip(ip) => ListenAddr::Ip(SocketAddr::new(*ip, url.port())),
        // A name would have to be resolved, which waits and needs a `resolver`.
        Host::Any | Host::Name(_) => return None,
    };
    Some(Arc::new(Group::of_address(address)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_made_of_variables_always_has_a_path() {
        for (uri, expected) in [
            ("", UriPart::None),
            ("/a?b", UriPart::Whole(Bytes::from_static(b"/a?b"))),
            ("?x", UriPart::Whole(Bytes::from_static(b"/?x"))),
        ] {
            assert_eq!(uri_part(uri.as_bytes()), expected, "{uri}");
        }
    }
}
