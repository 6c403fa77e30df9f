//! Where tunnels are, in words: what those of one location share in a listing.

use std::sync::Arc;

use wssgate_config::Config;
use wssgate_config::model::{Content, LocationId, ProxyPass, WebSocketTap};
use wssgate_syntax::printable;

/// What all tunnels of one location have in common.
#[derive(Debug)]
pub(crate) struct Place {
    /// The first name of the server.
    pub(crate) server: Box<str>,
    /// The location as it is written, without its modifier.
    pub(crate) location: Box<str>,
    /// The upstream that `proxy_pass` names; `None` if that has variables.
    pub(crate) upstream: Option<Box<str>>,
    /// What may be shown of frames.
    pub(crate) tap: WebSocketTap,
}

/// The places of all locations, by [`LocationId`].
pub(super) fn build(config: &Config) -> Vec<Arc<Place>> {
    let Some(http) = &config.http else { return Vec::new() };
    let place = |number: usize| {
        let location = &http.locations[number];
        let upstream = match &location.content {
            Content::Proxy(ProxyPass::Fixed(fixed)) => Some(&http.upstreams[fixed.upstream.0]),
            _ => None,
        };
        Arc::new(Place {
            server: printable(&http.servers[http.server_of(LocationId(number)).0].name).into(),
            location: printable(&location.name).into(),
            upstream: upstream.map(|upstream| printable(&upstream.name).into()),
            tap: location.settings.websocket_tap.clone(),
        })
    };
    (0..http.locations.len()).map(place).collect()
}
