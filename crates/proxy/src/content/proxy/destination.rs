//! Where a `proxy_pass` leads for one request.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use wssgate_config::model::{FixedPass, ListenAddr, ProxyPass, UpstreamServer};
use wssgate_config::value::{Host, UpstreamUrl};
use wssgate_dns::{Code, Failure, Name};

use super::request::UriPart;
use crate::exchange::refusal::Refusal;
use crate::exchange::request::Request;
use crate::peers::Group;
use crate::resolve::Unresolved;

/// The upstream of one request.
pub(crate) struct Destination<'a> {
    /// `https://`.
    pub(crate) tls: bool,
    /// Who the peers are.
    peers: Peers,
    /// `$proxy_host`.
    pub(crate) host: Bytes,
    /// `$proxy_port`.
    pub(crate) port: Bytes,
    /// What of the target the URL says.
    pub(crate) uri: UriPart<'a>,
}

/// The peers of a request.
enum Peers {
    Known(Arc<Group>),
    /// Those at the addresses of a host.
    Named {
        name: Bytes,
        port: u16,
    },
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
                Ok(Self::variable(request, &url))
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
            peers: Peers::Known(Arc::clone(&request.generation.upstreams[fixed.upstream.0])),
            host: Bytes::copy_from_slice(&fixed.host),
            port: Bytes::copy_from_slice(&fixed.port),
            uri,
        }
    }

    fn variable(request: &Request, url: &UpstreamUrl) -> Self {
        let peers = peers(request, url);
        let (host, port) = url.host_and_port();
        let (host, port) = (host.into(), port.into());
        Self { tls: url.tls, peers, host, port, uri: uri_part(&url.endpoint.uri) }
    }

    /// The group of the peers, whose name may have to be looked up.
    ///
    /// # Errors
    /// When the name leads nowhere.
    pub(crate) async fn group(&self, request: &Request) -> Result<Arc<Group>, Refusal> {
        let (name, port) = match &self.peers {
            Peers::Known(group) => return Ok(Arc::clone(group)),
            Peers::Named { name, port } => (name, *port),
        };
        let local = &request.location().settings;
        let Some(resolver) = local.resolver else {
            return Err(Refusal::NoResolver(name.clone()));
        };
        let resolver = &request.generation.resolvers[resolver.0];
        let unresolved = |failure| Refusal::Unresolved { name: name.clone(), failure };
        // What cannot be asked for does not exist.
        let no_name = || unresolved(Unresolved::Failed(Failure::Answered(Code::NoName)));
        let host = Name::new(name).map_err(|_| no_name())?;
        let answer = resolver.host(host.clone(), local.resolver_timeout).await;
        let (hosts, http) = (&request.generation.hosts, request.http());
        Ok(hosts.group(resolver, host, port, answer.map_err(unresolved)?, http.recovery))
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

/// An `upstream` block of that name, a group that another `proxy_pass` has made, an address, or a
/// host.
fn peers(request: &Request, url: &UpstreamUrl) -> Peers {
    let endpoint = &url.endpoint;
    let name = url.group_name();
    let models = &request.http().upstreams;
    // As in nginx, an `upstream` block has no port: a URL that names one means an address.
    let known = models.iter().position(|model| match model.explicit {
        true => endpoint.port.is_none() && model.name.eq_ignore_ascii_case(&endpoint.host_text),
        false => model.name.eq_ignore_ascii_case(&name),
    });
    if let Some(index) = known {
        return Peers::Known(Arc::clone(&request.generation.upstreams[index]));
    }
    let address = match &endpoint.host {
        Host::Unix(path) => ListenAddr::Unix(path.clone()),
        Host::Ip(ip) => ListenAddr::Ip(SocketAddr::new(*ip, url.port())),
        Host::Any | Host::Name(_) => {
            let name = Bytes::copy_from_slice(&endpoint.host_text);
            return Peers::Named { name, port: url.port() };
        }
    };
    let name = address.to_string().into_bytes().into();
    let server = UpstreamServer::new(name, vec![address]);
    Peers::Known(Arc::new(Group::of_server(server, request.http().recovery)))
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
