//! Why a WebSocket may not be opened, whatever the upstream thinks of it.

use std::fmt;

use bytes::Bytes;
use thiserror::Error;
use wssgate_config::model::{LocationKind, LogLevel};
use wssgate_ws::handshake::RequestError;

use crate::exchange::request::Request;
use crate::metrics::HandshakeFailure;

/// Why a WebSocket may not be opened.
#[derive(Debug, Error)]
pub enum HandshakeRefusal {
    /// `websocket_origin` does not list where it comes from.
    #[error("WebSocket {from} is not allowed in {place}")]
    Origin {
        /// Where it comes from.
        from: Sender,
        /// Where it is not allowed.
        place: Place,
    },
    /// It is no handshake that RFC 6455 knows, which `websocket_handshake` asks for.
    #[error("client sent an invalid WebSocket handshake: {0}")]
    Form(RequestError),
    /// `websocket_protocol` lists none of the subprotocols that it offers.
    #[error("client offered no subprotocol that \"websocket_protocol\" lists: \"{}\"", shown(.0))]
    Subprotocols(Bytes),
    /// `websocket_handshake_rate` allows no more, and too many are waiting.
    #[error("too many WebSocket handshakes")]
    Rate,
    /// An operator lets none in.
    #[error("no new WebSockets are let in here, as an operator wants it")]
    Closed,
}

impl HandshakeRefusal {
    /// The status of the answer.
    pub(crate) fn status(&self) -> u16 {
        match self {
            Self::Origin { .. } => 403,
            // RFC 6455 §4.4.
            Self::Form(RequestError::WebSocketVersion) => 426,
            Self::Form(_) | Self::Subprotocols(_) => 400,
            Self::Rate | Self::Closed => 503,
        }
    }

    /// How it is counted.
    pub(super) fn counted(&self) -> HandshakeFailure {
        match self {
            Self::Origin { .. } => HandshakeFailure::Origin,
            Self::Form(_) => HandshakeFailure::Malformed,
            Self::Subprotocols(_) => HandshakeFailure::Subprotocol,
            Self::Rate | Self::Closed => HandshakeFailure::Limited,
        }
    }

    /// How loud the log is about it.
    pub(super) fn level(&self) -> LogLevel {
        match self {
            Self::Origin { .. } => LogLevel::Error,
            Self::Rate => LogLevel::Warn,
            Self::Form(_) | Self::Subprotocols(_) | Self::Closed => LogLevel::Info,
        }
    }
}

/// Which page a request says that it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sender {
    /// It does not say.
    Unnamed,
    /// One, as it is written.
    Origin(Bytes),
    /// Several fields say so.
    Several,
}

impl fmt::Display for Sender {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unnamed => formatter.write_str("without an \"Origin\" header"),
            Self::Origin(origin) => write!(formatter, "from origin \"{}\"", shown(origin)),
            Self::Several => formatter.write_str("with more than one \"Origin\" header"),
        }
    }
}

/// Which level of the configuration says so.
#[derive(Debug)]
pub struct Place {
    is_server: bool,
    name: Bytes,
}

impl Place {
    /// Where a request is.
    pub(crate) fn of(request: &Request) -> Self {
        let location = request.location();
        let is_server = location.kind == LocationKind::Unnamed && location.name.is_empty();
        let name = if is_server { &request.server().name[..] } else { &location.name };
        Self { is_server, name: Bytes::copy_from_slice(name) }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_server { "server" } else { "location" };
        write!(formatter, "{kind} \"{}\"", self.name.escape_ascii())
    }
}

/// Bytes of a client in a message: not so many that what follows them has no room.
fn shown(bytes: &[u8]) -> String {
    const MAX: usize = 128;
    match bytes.get(..MAX) {
        Some(part) if bytes.len() > MAX => format!("{}...", part.escape_ascii()),
        _ => bytes.escape_ascii().to_string(),
    }
}
