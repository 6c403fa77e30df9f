//! What a listing of live tunnels tells of one besides what its relay counts.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use minicbor::{Decode, Encode};

use crate::auth::revocations::{self, Kind, Revocations};
use crate::clock;
use crate::exchange::identity;
use crate::exchange::request::Request;
use crate::generation::Place;
use crate::peers::{Lease, Peer};
use crate::portable::AddressState;

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
    /// What its verified token says of itself, if it has one that says something.
    pub(crate) token: Option<Box<TokenNames>>,
    /// When it began, in milliseconds since 1970.
    pub(crate) opened_ms: u64,
}

/// By what a token can be revoked.
#[derive(Debug, Default)]
pub(crate) struct TokenNames {
    /// `sub`.
    pub(crate) subject: Option<Box<str>>,
    /// `jti`.
    pub(crate) id: Option<Box<str>>,
}

/// An [`About`] for another process, which has places and peers of its own. Numbers are never used again for
/// something else.
#[derive(Debug, Encode, Decode)]
#[cbor(map)]
pub(super) struct AboutState<'b> {
    #[n(0)]
    id: u64,
    #[b(1)]
    client: Option<AddressState<'b>>,
    #[b(2)]
    subprotocol: Option<&'b str>,
    #[b(3)]
    user: Option<&'b str>,
    /// What the token says of its subject.
    #[b(4)]
    subject: Option<&'b str>,
    /// What the token says of itself.
    #[b(5)]
    token_id: Option<&'b str>,
    #[n(6)]
    opened_ms: u64,
}

impl TokenNames {
    /// Of the verified token of a request.
    fn of(request: &Request) -> Option<Box<Self>> {
        let token = identity::token(request)?;
        let kept = |claim: Option<String>| {
            claim.filter(|text| !text.is_empty()).map(|text| revocations::text_of(text.as_bytes()))
        };
        let names = Self { subject: kept(token.subject()), id: kept(token.id()) };
        (names.subject.is_some() || names.id.is_some()).then(|| Box::new(names))
    }
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
            subprotocol: subprotocol.map(subprotocol_text),
            user: user.map(|user| revocations::text_of(&user)),
            token: TokenNames::of(request),
            opened_ms: now_ms(),
        }
    }

    /// What another process has to know of it.
    pub(super) fn state(&self) -> AboutState<'_> {
        let token = self.token.as_deref();
        AboutState {
            id: self.id,
            client: self.client.map(Into::into),
            subprotocol: self.subprotocol.as_deref(),
            user: self.user.as_deref(),
            subject: token.and_then(|token| token.subject.as_deref()),
            token_id: token.and_then(|token| token.id.as_deref()),
            opened_ms: self.opened_ms,
        }
    }

    /// What another process has known of it.
    pub(super) fn restore(state: &AboutState<'_>, place: Arc<Place>, peer: Arc<Peer>) -> Self {
        let token = TokenNames {
            subject: state.subject.map(Into::into),
            id: state.token_id.map(Into::into),
        };
        let has_names = token.subject.is_some() || token.id.is_some();
        Self {
            id: state.id,
            place,
            peer,
            client: state.client.and_then(|client| client.ip()),
            subprotocol: state.subprotocol.map(Into::into),
            user: state.user.map(Into::into),
            token: has_names.then(|| Box::new(token)),
            opened_ms: state.opened_ms,
        }
    }

    /// The text by which a revocation of this kind knows it.
    pub(crate) fn name(&self, kind: Kind) -> Option<&str> {
        match kind {
            Kind::Subject => self.token.as_ref()?.subject.as_deref(),
            Kind::TokenId => self.token.as_ref()?.id.as_deref(),
            Kind::User => self.user.as_deref(),
        }
    }

    /// Whether it is revoked.
    pub(crate) fn is_revoked(&self, revocations: &Revocations) -> bool {
        Kind::ALL.into_iter().any(|kind| {
            let revoked = |name| revocations.revokes(kind, name, Instant::now());
            revocations.holds(kind) && self.name(kind).is_some_and(revoked)
        })
    }
}

/// Now, as [`About::opened_ms`].
pub(crate) fn now_ms() -> u64 {
    clock::millis(clock::since_epoch(clock::now()))
}

/// As much of a subprotocol's name as is kept.
pub(crate) fn subprotocol_text(bytes: &[u8]) -> Box<str> {
    String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_SUBPROTOCOL)]).into()
}
