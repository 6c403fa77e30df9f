//! What a listing of live tunnels tells of one besides what its relay counts.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::clock;
use crate::exchange::request::Request;
use crate::generation::Place;
use crate::peers::{Lease, Peer};

/// How much of the text of `websocket_user` is kept, in bytes.
const MAX_USER: usize = 256;

/// How much of a subprotocol is kept, in bytes.
const MAX_SUBPROTOCOL: usize = 64;

/// What is known of a tunnel since it began. It holds no generation: a relay must not be the one to end one.
#[derive(Debug)]
pub(crate) struct About {
    /// The number of the client's connection, `$connection`, which no other tunnel ever has.
    pub(crate) id: u64,
    pub(crate) place: Arc<Place>,
    pub(crate) peer: Arc<Peer>,
    /// `None` on a Unix socket.
    pub(crate) client: Option<SocketAddr>,
    pub(crate) subprotocol: Option<Box<str>>,
    /// `websocket_user`.
    pub(crate) user: Option<Box<str>>,
    /// When it began, in milliseconds since 1970.
    pub(crate) opened_ms: u64,
}

impl About {
    /// Of the tunnel that a request becomes.
    pub(super) fn new(request: &Request, lease: &Lease, subprotocol: Option<&[u8]>) -> Self {
        let user = request.location().settings.websocket_user.as_ref();
        let user = user.map(|template| request.text(template)).filter(|text| !text.is_empty());
        Self {
            id: request.connection.serial,
            place: Arc::clone(request.generation.place(request.route.location)),
            peer: Arc::clone(lease.shared_peer()),
            client: request.client,
            subprotocol: subprotocol.map(|name| text_of(name, MAX_SUBPROTOCOL)),
            user: user.map(|user| text_of(&user, MAX_USER)),
            opened_ms: now_ms(),
        }
    }
}

/// Now, as [`About::opened_ms`].
pub(crate) fn now_ms() -> u64 {
    clock::millis(clock::since_epoch(clock::now()))
}

fn text_of(bytes: &[u8], most: usize) -> Box<str> {
    String::from_utf8_lossy(&bytes[..bytes.len().min(most)]).into()
}
