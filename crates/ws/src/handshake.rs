//! Whether two HTTP/1.1 heads really switch to WebSocket (RFC 6455 §4).
//!
//! A proxy that believes a bare `101` can be talked into relaying bytes that the upstream still
//! reads as HTTP: request smuggling. So the request is remembered as an [`Offer`], and the answer
//! must be the one that a server gives which understood exactly that offer: what could open a door is
//! an error. Of what only the client has to judge (RFC 6455 §4.1) the answer is told as an [`Oddity`].
//!
//! Heads are slices of [`Field`]s, so this needs no HTTP library.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::{Engine, prelude::BASE64_STANDARD};
use minicbor::{Decode, Encode};
use thiserror::Error;

mod lists;

pub use lists::only_extensions;
use lists::{elements, extension_names, has_token, trimmed};

use crate::cbor::is_default;

/// The name and the value of a header field.
pub type Field<'a> = (&'a [u8], &'a [u8]);

/// What `Sec-WebSocket-Accept` must say.
pub type Accept = [u8; 28];

/// The answer to a `Sec-WebSocket-Key` (RFC 6455 §4.2.2 item 5.4).
pub fn accept_key(key: &[u8]) -> Accept {
    const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key, GUID].concat());
    let mut accept = [0; 28];
    BASE64_STANDARD.encode_slice(hash, &mut accept).expect("20 bytes are 28 characters in base64");
    accept
}

/// A `Sec-WebSocket-Key` made of 16 random bytes (RFC 6455 §4.1 item 7).
pub fn encode_key(random: [u8; 16]) -> [u8; 24] {
    let mut key = [0; 24];
    BASE64_STANDARD.encode_slice(random, &mut key).expect("16 bytes are 24 characters in base64");
    key
}

/// The head of a client's opening handshake (RFC 6455 §4.1), with `more` fields at its end.
pub fn encode_request(path: &str, host: &str, key: &[u8; 24], more: &[Field<'_>]) -> Vec<u8> {
    let mut head = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\n"
    )
    .into_bytes();
    for (name, value) in [(&b"Sec-WebSocket-Key"[..], &key[..])].iter().chain(more) {
        head.extend_from_slice(name);
        head.extend_from_slice(b": ");
        head.extend_from_slice(value);
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// Why a request is no valid opening handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RequestError {
    /// RFC 6455 §4.1 item 2.
    #[error("the method of a WebSocket request must be GET")]
    Method,
    /// RFC 6455 §4.1 item 2.
    #[error("a WebSocket request needs HTTP/1.1")]
    HttpVersion,
    /// RFC 6455 §4.1 item 5.
    #[error("the \"Upgrade\" header does not name \"websocket\"")]
    Upgrade,
    /// RFC 6455 §4.1 item 6.
    #[error("the \"Connection\" header does not name \"upgrade\"")]
    Connection,
    /// RFC 6455 §4.1 item 7.
    #[error("the \"Sec-WebSocket-Key\" header is missing")]
    NoKey,
    /// RFC 6455 §11.3.1: it must not appear more than once.
    #[error("there is more than one \"Sec-WebSocket-Key\" header")]
    SeveralKeys,
    /// RFC 6455 §4.2.1 item 5.
    #[error("the \"Sec-WebSocket-Key\" header is not 16 bytes in base64")]
    BadKey,
    /// RFC 6455 §4.4: the answer is 426 with `Sec-WebSocket-Version: 13`.
    #[error("the \"Sec-WebSocket-Version\" header is not 13")]
    WebSocketVersion,
    /// A body would stand between the request and the first frame; no client sends one.
    #[error("a WebSocket request must not have a body")]
    Body,
}

/// Whether a request asks for a switch to WebSocket, well or badly: its `Upgrade` names it.
///
/// `Connection` is not looked at: the request counts as a server may understand it.
pub fn asks_for_websocket<'a>(fields: impl IntoIterator<Item = Field<'a>>) -> bool {
    let mut upgrades = fields.into_iter().filter(|(name, _)| is(name, "Upgrade"));
    upgrades.any(|(_, value)| has_token(value, "websocket"))
}

/// Checks a request that asks for a switch to WebSocket (RFC 6455 §4.2.1).
///
/// `fields` may hold anything else; `Host` and the syntax of the head are the HTTP parser's.
pub fn check_request<'a>(
    method: &[u8],
    is_http11: bool,
    fields: impl IntoIterator<Item = Field<'a>>,
) -> Result<(), RequestError> {
    let (mut upgrade, mut connection, mut body) = (false, false, false);
    let (mut keys, mut key, mut version) = (0, &b""[..], None);
    for (name, value) in fields {
        match () {
            () if is(name, "Upgrade") => upgrade |= has_token(value, "websocket"),
            () if is(name, "Connection") => connection |= has_token(value, "upgrade"),
            () if is(name, "Sec-WebSocket-Key") => (keys, key) = (keys + 1, trimmed(value)),
            () if is(name, "Sec-WebSocket-Version") => {
                // A second field must not contradict the first.
                version = Some(version.unwrap_or(true) && trimmed(value) == b"13");
            }
            () if is(name, "Transfer-Encoding") => body = true,
            // A length of zero is no body.
            () if is(name, "Content-Length") => body |= trimmed(value) != b"0",
            () => {}
        }
    }
    // The version before the key: a client of another version is to learn with 426 which one is
    // spoken here (RFC 6455 §4.4), whatever its key looks like.
    let rules = [
        (method == b"GET", RequestError::Method),
        (is_http11, RequestError::HttpVersion),
        (upgrade, RequestError::Upgrade),
        (connection, RequestError::Connection),
        (version == Some(true), RequestError::WebSocketVersion),
        (keys > 0, RequestError::NoKey),
        (keys < 2, RequestError::SeveralKeys),
        (is_key(key), RequestError::BadKey),
        (!body, RequestError::Body),
    ];
    match rules.into_iter().find(|(holds, _)| !holds) {
        Some((_, broken)) => Err(broken),
        None => Ok(()),
    }
}

/// Whether `value` is base64 of 16 bytes. Unused bits of its last character may be set: other
/// servers decode such keys too.
fn is_key(value: &[u8]) -> bool {
    let Some(digits) = value.strip_suffix(b"==") else {
        return false;
    };
    digits.len() == 22
        && digits.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/'))
}

/// What a request offers to switch to, remembered until the answer comes.
///
/// It is made from the request that goes *to the upstream*: a configuration may change its fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// The protocols of `Upgrade`, as they were written, joined by commas.
    upgrade: Vec<u8>,
    /// What `Sec-WebSocket-Accept` must be, if there is one key. It need not be well-formed: who
    /// proves to have read it has understood the request, and the rest is between the two ends.
    accept: Option<Accept>,
    subprotocols: Vec<u8>,
    extensions: Vec<u8>,
}

impl Offer {
    /// The offer of a request with these fields; `None` if it does not ask for a switch, that is,
    /// has no `Upgrade` field with something in it.
    ///
    /// `Connection` is not looked at: the request counts as the upstream may understand it.
    pub fn from_request<'a>(fields: impl IntoIterator<Item = Field<'a>>) -> Option<Self> {
        let mut offer = Self::default();
        let mut keys = 0;
        for (name, value) in fields {
            match () {
                () if is(name, "Upgrade") => join(&mut offer.upgrade, value),
                () if is(name, "Sec-WebSocket-Protocol") => join(&mut offer.subprotocols, value),
                () if is(name, "Sec-WebSocket-Extensions") => join(&mut offer.extensions, value),
                () if is(name, "Sec-WebSocket-Key") => {
                    keys += 1;
                    // Of several keys the upstream may answer any, so no answer would prove
                    // anything.
                    offer.accept = (keys == 1).then(|| accept_key(trimmed(value)));
                }
                () => {}
            }
        }
        let asks = elements(&offer.upgrade).next().is_some();
        asks.then_some(offer)
    }

    /// Whether WebSocket is among what is offered.
    pub fn names_websocket(&self) -> bool {
        has_token(&self.upgrade, "websocket")
    }

    /// The value of `Upgrade`, for logs and `$http_upgrade`-like uses.
    pub fn upgrade(&self) -> &[u8] {
        &self.upgrade
    }

    /// Checks that the fields of a 101 answer switch to what was offered (RFC 6455 §4.1, the list
    /// of the client's duties; RFC 9110 §7.8 for any other protocol).
    ///
    /// # Errors
    /// When nothing proves that the server switches to what was offered.
    pub fn check_answer<'a>(
        &self,
        fields: impl IntoIterator<Item = Field<'a>>,
    ) -> Result<Switched, SwitchError> {
        let answer = Answer::read(fields);
        let mut protocols = elements(&answer.upgrade).peekable();
        if protocols.peek().is_none() {
            return Err(SwitchError::NoUpgrade);
        }
        let offered = |name: &[u8]| elements(&self.upgrade).any(|o| o.eq_ignore_ascii_case(name));
        // All of them: an answer may name several protocols, and each layer of them would have to
        // be one that was asked for (RFC 9110 §7.8).
        if let Some(unasked) = protocols.find(|name| !offered(name)) {
            return Err(SwitchError::OtherProtocol(shown(unasked)));
        }
        if !has_token(&answer.upgrade, "websocket") {
            return Ok(Switched::Other);
        }
        self.check_websocket(&answer)
    }

    fn check_websocket(&self, answer: &Answer<'_>) -> Result<Switched, SwitchError> {
        let expected = self.accept.as_ref().ok_or(SwitchError::NoKey)?;
        match answer.accepts[..] {
            [] => return Err(SwitchError::NoAccept),
            [accept] if accept == expected => {}
            [accept] => return Err(SwitchError::WrongAccept(shown(accept))),
            _ => return Err(SwitchError::SeveralAccepts),
        }
        Ok(Switched::WebSocket {
            subprotocol: answer.subprotocols.first().map(|name| name.to_vec()),
            extensions: Extensions::from_field(&answer.extensions),
            oddities: self.oddities(answer),
        })
    }

    fn oddities(&self, answer: &Answer<'_>) -> Vec<Oddity> {
        let mut oddities = Vec::new();
        if !answer.connection_upgrade {
            oddities.push(Oddity::Connection);
        }
        match answer.subprotocols[..] {
            [] => {}
            // Names of subprotocols are compared with their case (RFC 6455 §4.1, §11.3.4).
            [name] if elements(&self.subprotocols).any(|offered| offered == name) => {}
            [name] => oddities.push(Oddity::Subprotocol(shown(name))),
            _ => oddities.push(Oddity::SeveralSubprotocols),
        }
        let offered =
            |name: &[u8]| extension_names(&self.extensions).any(|o| o.eq_ignore_ascii_case(name));
        if let Some(unasked) = extension_names(&answer.extensions).find(|name| !offered(name)) {
            oddities.push(Oddity::Extension(shown(unasked)));
        }
        oddities
    }
}

/// The fields of a 101 answer that matter.
#[derive(Default)]
struct Answer<'a> {
    upgrade: Vec<u8>,
    connection_upgrade: bool,
    accepts: Vec<&'a [u8]>,
    subprotocols: Vec<&'a [u8]>,
    extensions: Vec<u8>,
}

impl<'a> Answer<'a> {
    fn read(fields: impl IntoIterator<Item = Field<'a>>) -> Self {
        let mut answer = Self::default();
        for (name, value) in fields {
            match () {
                () if is(name, "Upgrade") => join(&mut answer.upgrade, value),
                () if is(name, "Connection") => {
                    answer.connection_upgrade |= has_token(value, "upgrade");
                }
                () if is(name, "Sec-WebSocket-Accept") => answer.accepts.push(trimmed(value)),
                () if is(name, "Sec-WebSocket-Protocol") => {
                    answer.subprotocols.push(trimmed(value));
                }
                () if is(name, "Sec-WebSocket-Extensions") => join(&mut answer.extensions, value),
                () => {}
            }
        }
        answer
    }
}

/// What the two sides of a valid switch speak from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Switched {
    /// WebSocket: frames can be followed.
    WebSocket {
        /// The subprotocol that the server chose, if any.
        subprotocol: Option<Vec<u8>>,
        /// What the extensions in use allow in a frame header.
        extensions: Extensions,
        /// What the client has to judge; mostly nothing.
        oddities: Vec<Oddity>,
    },
    /// Another protocol: bytes.
    Other,
}

/// What negotiated extensions mean for a frame header: who may set reserved bits.
///
/// permessage-deflate sets RSV1 on the first frame of a message and nowhere else (RFC 7692 §6).
/// Of an extension that is not known here nothing can be said, so it allows all bits everywhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Extensions {
    /// Bits allowed on the first data frame of a message.
    #[cbor(n(0), skip_if = "is_default")]
    pub(crate) rsv_on_first: u8,
    /// Bits allowed on every other frame.
    #[cbor(n(1), skip_if = "is_default")]
    pub(crate) rsv_on_others: u8,
}

impl Extensions {
    /// No extension: reserved bits are zero.
    pub const NONE: Self = Self { rsv_on_first: 0, rsv_on_others: 0 };
    /// permessage-deflate alone.
    pub const DEFLATE: Self = Self { rsv_on_first: crate::frame::RSV1, rsv_on_others: 0 };
    /// Extensions that are not known here.
    pub const UNKNOWN: Self = Self { rsv_on_first: 0b111, rsv_on_others: 0b111 };

    /// Reads the extensions that a server accepted from its `Sec-WebSocket-Extensions`.
    pub fn from_field(value: &[u8]) -> Self {
        extension_names(value).fold(Self::NONE, |all, name| {
            let one = match name.eq_ignore_ascii_case(b"permessage-deflate") {
                true => Self::DEFLATE,
                // Judging the bits of an extension that we do not know would call valid frames
                // broken.
                false => Self::UNKNOWN,
            };
            Self {
                rsv_on_first: all.rsv_on_first | one.rsv_on_first,
                rsv_on_others: all.rsv_on_others | one.rsv_on_others,
            }
        })
    }
}

/// Why a 101 response is not the switch that was asked for.
///
/// The messages complete "upstream sent an invalid 101 response: …" for people who run the proxy.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SwitchError {
    /// RFC 9110 §7.8: a server must not switch unless asked to.
    #[error("the request did not ask to switch protocols")]
    NotAsked,
    /// RFC 9110 §15.2.2: the answer names the protocol.
    #[error("it has no \"Upgrade\" header")]
    NoUpgrade,
    /// RFC 9110 §7.8: only to a protocol that the request named.
    #[error("it switches to {0}, which the request did not name in \"Upgrade\"")]
    OtherProtocol(String),
    /// Without a key nothing shows that the server speaks WebSocket.
    #[error(
        "the request had no usable \"Sec-WebSocket-Key\", so nothing proves that the server speaks WebSocket"
    )]
    NoKey,
    /// RFC 6455 §4.1.
    #[error("it has no \"Sec-WebSocket-Accept\" header")]
    NoAccept,
    /// RFC 6455 §11.3.3.
    #[error("it has more than one \"Sec-WebSocket-Accept\" header")]
    SeveralAccepts,
    /// RFC 6455 §4.1.
    #[error("its \"Sec-WebSocket-Accept\" {0} does not match the key of the request")]
    WrongAccept(String),
}

/// What is wrong with a 101 answer in the eyes of the client alone: it must fail the WebSocket or live
/// with it (RFC 6455 §4.1 items 3, 5 and 6), and some clients do. No bytes are taken for what they are
/// not.
///
/// The messages complete "upstream sent an unusual 101 response: …".
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Oddity {
    /// `Connection` is missing or says something else.
    #[error("its \"Connection\" header does not name \"upgrade\"")]
    Connection,
    /// Not offered, or not with this case; or a list, or empty.
    #[error("it selects the subprotocol {0}, which the client did not offer")]
    Subprotocol(String),
    /// RFC 6455 §11.3.4.
    #[error("it has more than one \"Sec-WebSocket-Protocol\" header")]
    SeveralSubprotocols,
    /// Not offered.
    #[error("it uses the extension {0}, which the client did not offer")]
    Extension(String),
}

fn is(name: &[u8], expected: &str) -> bool {
    name.eq_ignore_ascii_case(expected.as_bytes())
}

/// Several fields of one name are one list (RFC 9110 §5.3).
fn join(list: &mut Vec<u8>, value: &[u8]) {
    if !list.is_empty() {
        list.extend_from_slice(b", ");
    }
    list.extend_from_slice(trimmed(value));
}

/// Bytes of others in a message: quoted, escaped, and not too many.
fn shown(bytes: &[u8]) -> String {
    const MAX_SHOWN: usize = 64;
    let (part, dots) = match bytes.get(..MAX_SHOWN) {
        Some(part) if bytes.len() > MAX_SHOWN => (part, "..."),
        _ => (bytes, ""),
    };
    format!("\"{}{dots}\"", part.escape_ascii())
}

#[cfg(test)]
mod tests;
