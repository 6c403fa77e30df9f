//! The connection to a peer, with TLS where it is `https://`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout_at;
use wssgate_config::model::{ListenAddr, LogLevel, ProxySettings};

use super::attempt::{Cause, Ended, Trouble};
use super::destination::Destination;
use super::{CONNECTING, proxy_header};
use crate::exchange::path::variable as path;
use crate::exchange::request::Request;
use crate::peers::{ConnectOptions, Connection, Failure, Group, Key, PeerStream, connect};

pub(super) const SHAKING: &str = "SSL handshaking to upstream";

/// What decides about the connection for a request.
pub(super) struct Connecting<'a> {
    pub(super) request: &'a Request,
    pub(super) settings: &'a ProxySettings,
    pub(super) destination: &'a Destination<'a>,
}

impl Connecting<'_> {
    /// Which connection to a peer of a group may be used.
    pub(super) fn key(&self, group: &Group, address: &ListenAddr) -> Key {
        // What a location's settings have made of a connection is only for that location.
        let own = self.destination.tls || self.settings.bind.is_some() || group.keepalive.local;
        let location = self.request.route.location.0 as u64;
        Key {
            group: group.name.clone(),
            address: address.clone(),
            tag: own.then_some([self.request.generation.number, location]),
            header: proxy_header::of(self.request, self.settings.proxy_protocol),
            name: self.destination.tls.then(|| self.tls_name()),
            certificate: self.certificate_paths(),
        }
    }

    /// `proxy_ssl_name`.
    fn tls_name(&self) -> Bytes {
        match &self.settings.tls.name {
            Some(template) => self.request.text(template),
            None => self.destination.host.clone(),
        }
    }

    /// The certificate and key that this request makes of `proxy_ssl_certificate` with variables;
    /// none of an empty path.
    fn certificate_paths(&self) -> Option<(PathBuf, PathBuf)> {
        let files = self.settings.tls.variable_certificate.as_ref();
        let files = files.filter(|_| self.destination.tls)?;
        let chain = self.request.text(&files.chain.path);
        (!chain.is_empty())
            .then(|| (path(&files.chain, self.request), path(&files.key, self.request)))
    }

    /// A new connection, as `key` describes it.
    pub(super) async fn connect(&self, key: &Key) -> Result<Connection, Ended> {
        let options = ConnectOptions {
            timeout: self.settings.connect_timeout,
            bind: self.bind_address(),
            keepalive: self.settings.socket_keepalive,
        };
        // One limit for all, as in nginx, whose timer of the connection goes on through the
        // handshake.
        let deadline = Instant::now() + options.timeout;
        let trouble = |failure| Ended::Upstream(Trouble::new(&failure, CONNECTING));
        let mut stream = connect(&key.address, options).await.map_err(trouble)?;
        if let Some(header) = &key.header {
            // A new connection has room for all of it, so it arrives in one piece.
            let sent = timeout_at(deadline.into(), stream.write_all(header)).await;
            let sent = sent.map_err(|_| trouble(Failure::Timeout))?;
            sent.map_err(|error| trouble(Failure::Io("send()", error)))?;
        }
        if !self.destination.tls {
            return Ok(Connection::new(PeerStream::Plain(stream)));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        self.shake_hands(stream, key, left).await.map(Connection::new)
    }

    async fn shake_hands(
        &self,
        stream: crate::listen::Stream,
        key: &Key,
        limit: Duration,
    ) -> Result<PeerStream, Ended> {
        let generation = &self.request.generation;
        let client =
            generation.upstream_tls.get(self.request.route.location.0).and_then(Option::as_ref);
        let Some(client) = client else {
            let message = format!("no TLS settings for this location while {SHAKING}");
            return Err(Ended::Upstream(Trouble { cause: Cause::Error, message }));
        };
        let name = key.name.clone().unwrap_or_default();
        let shown = match &key.certificate {
            None => None,
            Some(paths) => client.certificate(paths.clone()).await.map_err(|error| {
                // nginx answers with 500: it is no fault of the peer.
                Ended::Own(format!("{error} while {SHAKING}"))
            })?,
        };
        match tokio::time::timeout(limit, client.connect(stream, &name, shown)).await {
            Err(_) => Err(Ended::Upstream(Trouble::new(&Failure::Timeout, SHAKING))),
            Ok(Ok(stream)) => Ok(PeerStream::Tls(Box::new(stream))),
            Ok(Err(error)) => {
                let message = format!("{error} while {SHAKING}");
                Err(Ended::Upstream(Trouble { cause: Cause::Error, message }))
            }
        }
    }

    /// `proxy_bind`; a value that is no address binds nothing.
    fn bind_address(&self) -> Option<SocketAddr> {
        let text = self.request.text(self.settings.bind.as_ref()?);
        if text.is_empty() {
            return None;
        }
        let parsed = std::str::from_utf8(&text).ok().and_then(|text| {
            text.parse().ok().or_else(|| Some(SocketAddr::new(text.parse().ok()?, 0)))
        });
        if parsed.is_none() {
            let text = text.escape_ascii();
            self.request.log(LogLevel::Error, format_args!("invalid local address \"{text}\""));
        }
        parsed
    }
}
