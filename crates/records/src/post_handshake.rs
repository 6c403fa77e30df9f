//! Handshake messages that may come after the handshake.
//!
//! In TLS 1.3 an upstream may send tickets, which are skipped, and either peer KeyUpdate (RFC 8446
//! §4.6). In TLS 1.2 a peer may ask to negotiate again, once, and is ignored, which RFC 5246 §7.4.1.1
//! allows. Everything else is an error.

use minicbor::{Decode, Encode};

use crate::{Role, TlsFault, TlsVersion};

const HELLO_REQUEST: u8 = 0;
const CLIENT_HELLO: u8 = 1;
const NEW_SESSION_TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;

/// Type and length.
const HEADER: usize = 4;

/// The longest ticket that is skipped; its fields (RFC 8446 §4.6.1) can hold no more than two of 2^16.
const MAX_TICKET: usize = 1 << 17;

/// A KeyUpdate; `request` asks the peer to do the same (RFC 8446 §4.6.3).
pub(crate) fn key_update(request: bool) -> [u8; HEADER + 1] {
    [KEY_UPDATE, 0, 0, 1, u8::from(request)]
}

/// What a fragment has completed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Message {
    Nothing,
    /// The peer has changed its key, and may want us to.
    KeyUpdate {
        requested: bool,
    },
}

/// What is kept of a message of which part has come and the rest has not; by default none has begun.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Started {
    /// The front of it: its header, and for a KeyUpdate its body.
    #[cbor(n(0), with = "minicbor::bytes")]
    front: [u8; HEADER + 1],
    #[n(1)]
    front_len: u8,
    /// How much of a ticket is still to be skipped.
    #[n(2)]
    skip: usize,
}

impl Started {
    /// Whether there is one.
    pub(crate) fn is_some(&self) -> bool {
        self.front_len > 0 || self.skip > 0
    }

    /// Whether reading messages of this version can have led here.
    fn is_sound(&self, version: TlsVersion) -> bool {
        let Self { front, front_len, skip } = self;
        let front = front.get(..usize::from(*front_len));
        match version {
            TlsVersion::Tls12 => !self.is_some(),
            TlsVersion::Tls13 => front.is_some_and(|front| match front.len() {
                0 => *skip <= MAX_TICKET,
                HEADER => *skip == 0 && front == &key_update(false)[..HEADER],
                len => *skip == 0 && len < HEADER,
            }),
        }
    }
}

/// Reads messages across the borders of records. Keeps no more than a KeyUpdate.
#[derive(Debug)]
pub(crate) struct PostHandshake {
    version: TlsVersion,
    peer: Role,
    started: Started,
    /// The peer has used its one attempt to negotiate again.
    renegotiated: bool,
}

impl PostHandshake {
    /// Goes on with a message that has `started`, if one has.
    pub(crate) fn new(version: TlsVersion, peer: Role, started: Started) -> Self {
        Self { version, peer, started, renegotiated: false }
    }

    /// Goes on where another one was; `None` if none can have been there.
    pub(crate) fn restore(
        version: TlsVersion,
        peer: Role,
        started: Started,
        renegotiated: bool,
    ) -> Option<Self> {
        started.is_sound(version).then_some(Self { version, peer, started, renegotiated })
    }

    /// The same as [`Self::started`]; but of one that was at fault nothing is kept, for nothing follows it.
    pub(crate) fn started_well(&self) -> Started {
        Some(&self.started).filter(|it| it.is_sound(self.version)).cloned().unwrap_or_default()
    }

    /// Who the other end is.
    pub(crate) fn peer(&self) -> Role {
        self.peer
    }

    /// Whether the peer has used its one attempt to negotiate again.
    pub(crate) fn renegotiated(&self) -> bool {
        self.renegotiated
    }

    /// What is kept of a message whose rest has not come.
    pub(crate) fn started(&self) -> &Started {
        &self.started
    }

    /// Reads the content of one record.
    pub(crate) fn on_fragment(&mut self, fragment: &[u8]) -> Result<Message, TlsFault> {
        if fragment.is_empty() {
            // RFC 8446 §5.1 forbids fragments of zero length.
            return Err(TlsFault::UnexpectedMessage);
        }
        match self.version {
            TlsVersion::Tls13 => self.on_fragment_13(fragment),
            TlsVersion::Tls12 => self.on_fragment_12(fragment),
        }
    }

    fn on_fragment_13(&mut self, mut rest: &[u8]) -> Result<Message, TlsFault> {
        while let Some((&byte, after)) = rest.split_first() {
            let Started { front, front_len, skip } = &mut self.started;
            if *skip > 0 {
                let skipped = rest.len().min(*skip);
                *skip -= skipped;
                rest = &rest[skipped..];
                continue;
            }
            front[usize::from(*front_len)] = byte;
            *front_len += 1;
            rest = after;
            if usize::from(*front_len) == HEADER {
                self.on_header()?;
            } else if usize::from(self.started.front_len) == HEADER + 1 {
                return self.on_key_update(rest);
            }
        }
        Ok(Message::Nothing)
    }

    fn on_header(&mut self) -> Result<(), TlsFault> {
        let [kind, len @ .., _] = self.started.front;
        let len = len.into_iter().fold(0, |len, byte| len << 8 | usize::from(byte));
        match kind {
            KEY_UPDATE if len == 1 => Ok(()),
            KEY_UPDATE => Err(TlsFault::DecodeError),
            NEW_SESSION_TICKET if self.peer == Role::Server => {
                if len > MAX_TICKET {
                    return Err(TlsFault::DecodeError);
                }
                self.started = Started { skip: len, ..Started::default() };
                Ok(())
            }
            _ => Err(TlsFault::UnexpectedMessage),
        }
    }

    fn on_key_update(&mut self, behind: &[u8]) -> Result<Message, TlsFault> {
        // RFC 8446 §5.1: what stands before a change of keys ends with its record.
        if !behind.is_empty() {
            return Err(TlsFault::UnexpectedMessage);
        }
        let started = std::mem::take(&mut self.started);
        match started.front[HEADER] {
            0 => Ok(Message::KeyUpdate { requested: false }),
            1 => Ok(Message::KeyUpdate { requested: true }),
            _ => Err(TlsFault::IllegalParameter),
        }
    }

    fn on_fragment_12(&mut self, fragment: &[u8]) -> Result<Message, TlsFault> {
        let asks = match self.peer {
            Role::Client => CLIENT_HELLO,
            Role::Server => HELLO_REQUEST,
        };
        let whole = match *fragment {
            [kind, a, b, c, ref body @ ..] => {
                kind == asks && body.len() as u32 == u32::from_be_bytes([0, a, b, c])
            }
            _ => false,
        };
        if !whole || self.renegotiated {
            return Err(TlsFault::UnexpectedMessage);
        }
        self.renegotiated = true;
        Ok(Message::Nothing)
    }
}
