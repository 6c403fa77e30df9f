//! TLS records by keys alone: RFC 8446 §5 and RFC 5246 §6, after the handshake.
//!
//! A record is a header, a sealed fragment and, counted by both sides and never sent, its number. The
//! cryptography is a library's ([`crate::cipher`]); what is here is framing, numbers, and the few messages that may still come:
//! close_notify and other alerts, KeyUpdate, tickets to ignore. Both directions work from one buffer
//! into another, so that nothing is copied but by the cipher.

use std::fmt;

use thiserror::Error;

use crate::cipher::{Cipher, NotAuthentic, TAG};
use crate::post_handshake::{self, Message, PostHandshake};
use crate::{Aead, DirectionKeys, Role, TlsKeys, TlsVersion};

mod before;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod state;

pub use state::{RecordsState, Unsound};

/// Type, version, length (RFC 8446 §5.1).
const HEADER: usize = 5;
/// The part of the nonce that AES-GCM in TLS 1.2 sends along (RFC 5288 §3).
const EXPLICIT_NONCE: usize = 8;
/// The most that a record holds of the protocol inside (RFC 8446 §5.1).
const MAX_PLAIN: usize = 1 << 14;
/// The longest fragment that is accepted: RFC 8446 §5.2 allows 256 more than the plaintext, RFC 5246
/// §6.2.3 2048.
const MAX_SEALED_13: usize = MAX_PLAIN + 256;
const MAX_SEALED_12: usize = MAX_PLAIN + 2048;
/// The longest record that can be waiting for its rest.
pub const MAX_RECORD: usize = HEADER + MAX_SEALED_12;
/// The most that sealing adds to a record.
const MAX_OVERHEAD: usize = HEADER + EXPLICIT_NONCE + TAG + 1;
/// A sealed control message: the longest is a KeyUpdate of five bytes.
pub const MAX_CONTROL: usize = MAX_OVERHEAD + 5;
/// How many records may come without data at a stretch: peers pad with empty ones, update keys, send
/// tickets; a peer that does nothing else costs time. nginx carries as many updates.
const MAX_IDLE_RECORDS: u64 = 100;
/// Data makes up for all of them, and each second for one: who only listens may update its keys for ever,
/// if not as fast as it can.
const IDLE_RECORD_MS: u64 = 1000;
/// How many records one AES-GCM key may seal (RFC 8446 §5.5; the bound that rustls uses).
pub const AES_GCM_RECORDS: u64 = 1 << 24;
/// How many cipher blocks one AES-GCM key may seal in TLS 1.2, where there is no KeyUpdate: as many as
/// in [`AES_GCM_RECORDS`] full records. Counting blocks lets small messages live on.
const AES_GCM_BLOCKS: u64 = AES_GCM_RECORDS << 10;
/// The least number of records that a KeyUpdate makes room for.
const MIN_RECORDS: u64 = 2;

/// The types of records.
pub mod kind {
    /// RFC 8446 §6.
    pub const ALERT: u8 = 21;
    /// RFC 8446 §4.
    pub const HANDSHAKE: u8 = 22;
    /// Bytes of the protocol inside.
    pub const DATA: u8 = 23;
}

/// How long `plain` bytes can become when they are sealed, with a KeyUpdate before each record.
pub const fn sealed_len(plain: usize) -> usize {
    plain + plain.div_ceil(MAX_PLAIN) * (MAX_OVERHEAD + MAX_CONTROL)
}

/// What is wrong with a peer's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TlsFault {
    /// A record is longer than any may be.
    #[error("record too long")]
    RecordOverflow,
    /// A record was not sealed with the right key and number.
    #[error("record authentication failed")]
    BadRecordMac,
    /// A record or message of a kind that has no place here, or too many without data.
    #[error("unexpected message")]
    UnexpectedMessage,
    /// A message that cannot be read.
    #[error("malformed message")]
    DecodeError,
    /// A field with a value that it cannot have.
    #[error("illegal field value")]
    IllegalParameter,
    /// A TLS 1.2 record with another version.
    #[error("wrong record version")]
    ProtocolVersion,
    /// The peer gave up, with this alert.
    #[error("the peer sent alert {0}")]
    Alert(u8),
    /// The keys are exhausted and TLS 1.2 has no way to change them.
    #[error("key usage limit reached")]
    KeysExhausted,
}

impl TlsFault {
    /// The alert to answer with (RFC 8446 §6.2); none to an alert.
    pub fn alert(self) -> Option<u8> {
        match self {
            Self::UnexpectedMessage => Some(10),
            Self::BadRecordMac => Some(20),
            Self::RecordOverflow => Some(22),
            Self::IllegalParameter => Some(47),
            Self::DecodeError => Some(50),
            Self::ProtocolVersion => Some(70),
            Self::Alert(_) | Self::KeysExhausted => None,
        }
    }
}

/// What was opened.
#[derive(Debug, PartialEq, Eq)]
pub struct Opened {
    /// How many bytes of the wire are done with.
    pub consumed: usize,
    /// How many bytes of the protocol inside there are.
    pub plain: usize,
    /// Whether the peer's direction ends behind them: with close_notify, or badly.
    pub end: Option<Result<(), TlsFault>>,
}

/// The keys of one connection at work.
pub struct Records {
    version: TlsVersion,
    aead: Aead,
    tx: Direction,
    rx: Direction,
    /// How many records the sending key may seal.
    tx_limit: u64,
    /// How many blocks it has sealed, about; TLS 1.2 only.
    tx_blocks: u64,
    messages: PostHandshake,
    /// The peer asked for a KeyUpdate, which stands before our next data (RFC 8446 §4.6.3).
    update_requested: bool,
    /// Our direction has ended with an alert; nothing may follow.
    closed: bool,
    /// When the records without data that have come will be made up for.
    idle_until_ms: u64,
}

/// One direction.
struct Direction {
    keys: DirectionKeys,
    /// The expanded key, while the connection is in use.
    cipher: Option<Cipher>,
}

impl Direction {
    fn cipher(&mut self, aead: Aead) -> &Cipher {
        self.cipher.get_or_insert_with(|| Cipher::new(aead, &self.keys.key[..aead.key_len()]))
    }

    /// The static part with the record's number over its end (RFC 8446 §5.3, RFC 7905 §2).
    fn nonce(&self) -> [u8; 12] {
        let mut nonce = self.keys.iv;
        for (byte, number) in nonce[4..].iter_mut().zip(self.keys.sequence.to_be_bytes()) {
            *byte ^= number;
        }
        nonce
    }

    fn update(&mut self, aead: Aead) {
        self.keys.update(aead);
        self.cipher = None;
    }
}

impl Records {
    /// Goes on where the handshake ended; `peer` is who the other end is to us.
    pub fn new(keys: &TlsKeys, peer: Role, record_limit: u64) -> Self {
        let &TlsKeys { version, aead, ref tx, ref rx, ref started } = keys;
        Self {
            version,
            aead,
            // What was sealed before is counted as if all records had been full.
            tx_blocks: tx.sequence.saturating_mul(1 << 10),
            tx: Direction { keys: tx.clone(), cipher: None },
            rx: Direction { keys: rx.clone(), cipher: None },
            tx_limit: tx_limit(aead, record_limit),
            messages: PostHandshake::new(version, peer, started.clone()),
            update_requested: false,
            closed: false,
            idle_until_ms: 0,
        }
    }

    /// The keys as they are by now, for somebody else to go on with. Nothing must have been opened: an
    /// answer that a KeyUpdate asks for would be lost.
    pub fn keys(&self) -> TlsKeys {
        debug_assert!(!self.update_requested, "something was opened");
        TlsKeys {
            version: self.version,
            aead: self.aead,
            tx: self.tx.keys.clone(),
            rx: self.rx.keys.clone(),
            started: self.messages.started().clone(),
        }
    }

    /// The version of TLS.
    pub fn version(&self) -> TlsVersion {
        self.version
    }

    /// Whether it holds expanded keys.
    pub fn has_expanded_keys(&self) -> bool {
        self.tx.cipher.is_some() || self.rx.cipher.is_some()
    }

    /// Drops the expanded keys; the next record makes them anew (about 0.1 µs).
    pub fn compact(&mut self) {
        self.tx.cipher = None;
        self.rx.cipher = None;
    }

    // Receiving.

    /// Opens the whole records at the front of `wire` into `plain`, which is at least as long.
    ///
    /// What is left of `wire` is the front of a record that can still become valid. `now_ms` counts from
    /// any moment, and never backwards.
    pub fn open(&mut self, wire: &[u8], plain: &mut [u8], now_ms: u64) -> Opened {
        let mut opened = Opened { consumed: 0, plain: 0, end: None };
        while opened.end.is_none() {
            let wire = &wire[opened.consumed..];
            let fragment_len = match self.read_header(wire) {
                Ok(Some(len)) => len,
                Ok(None) => break,
                Err(fault) => {
                    opened.end = Some(Err(fault));
                    break;
                }
            };
            let record = &wire[..HEADER + fragment_len];
            opened.consumed += record.len();
            match self.open_record(record, &mut plain[opened.plain..], now_ms) {
                Ok(Content::Data(len)) => opened.plain += len,
                Ok(Content::Nothing) => {}
                Ok(Content::CloseNotify) => opened.end = Some(Ok(())),
                Err(fault) => opened.end = Some(Err(fault)),
            }
        }
        opened
    }

    /// The length of the fragment if the whole record is there.
    fn read_header(&self, wire: &[u8]) -> Result<Option<usize>, TlsFault> {
        let [kind, major, minor, high, low, ref rest @ ..] = *wire else { return Ok(None) };
        let len = usize::from(u16::from_be_bytes([high, low]));
        let max = match self.version {
            // RFC 8446 §5.2: everything is disguised as application data; legacy_record_version is
            // ignored, and authenticated.
            TlsVersion::Tls13 if kind != kind::DATA => return Err(TlsFault::UnexpectedMessage),
            TlsVersion::Tls13 => MAX_SEALED_13,
            TlsVersion::Tls12 if !(kind::ALERT..=kind::DATA).contains(&kind) => {
                return Err(TlsFault::UnexpectedMessage);
            }
            TlsVersion::Tls12 if (major, minor) != (3, 3) => {
                return Err(TlsFault::ProtocolVersion);
            }
            TlsVersion::Tls12 => MAX_SEALED_12,
        };
        if len > max {
            return Err(TlsFault::RecordOverflow);
        }
        Ok((rest.len() >= len).then_some(len))
    }

    fn open_record(
        &mut self,
        record: &[u8],
        plain: &mut [u8],
        now_ms: u64,
    ) -> Result<Content, TlsFault> {
        let (kind, len) = match self.version {
            TlsVersion::Tls13 => self.open_13(record, plain)?,
            TlsVersion::Tls12 => self.open_12(record, plain)?,
        };
        // The last number is never used; 2^64 records do not happen.
        self.rx.keys.sequence =
            self.rx.keys.sequence.checked_add(1).ok_or(TlsFault::KeysExhausted)?;
        if kind == kind::DATA && len > 0 && !self.messages.started().is_some() {
            self.idle_until_ms = 0;
            return Ok(Content::Data(len));
        }
        self.idle_until_ms = self.idle_until_ms.max(now_ms).saturating_add(IDLE_RECORD_MS);
        if self.idle_until_ms - now_ms > MAX_IDLE_RECORDS * IDLE_RECORD_MS {
            return Err(TlsFault::UnexpectedMessage);
        }
        self.on_control(kind, &plain[..len])
    }

    /// Opens a record of TLS 1.3 and takes the padding and the inner type off.
    fn open_13(&mut self, record: &[u8], plain: &mut [u8]) -> Result<(u8, usize), TlsFault> {
        let (header, fragment) = record.split_at(HEADER);
        let nonce = self.rx.nonce();
        let len = self.open_sealed(nonce, header, fragment, plain)?;
        if len > MAX_PLAIN + 1 {
            return Err(TlsFault::RecordOverflow);
        }
        // RFC 8446 §5.4: the type is the last byte that is not zero.
        let inner = &plain[..len];
        let end = inner.iter().rposition(|&byte| byte != 0).ok_or(TlsFault::UnexpectedMessage)?;
        Ok((inner[end], end))
    }

    fn open_12(&mut self, record: &[u8], plain: &mut [u8]) -> Result<(u8, usize), TlsFault> {
        let (header, fragment) = record.split_at(HEADER);
        let (nonce, sealed) = match self.aead {
            Aead::ChaCha20Poly1305 => (self.rx.nonce(), fragment),
            Aead::Aes128Gcm | Aead::Aes256Gcm => {
                let (explicit, sealed) =
                    fragment.split_at_checked(EXPLICIT_NONCE).ok_or(TlsFault::BadRecordMac)?;
                let mut nonce = self.rx.keys.iv;
                nonce[4..].copy_from_slice(explicit);
                (nonce, sealed)
            }
        };
        let len = sealed.len().checked_sub(TAG).ok_or(TlsFault::BadRecordMac)?;
        let aad = aad_12(self.rx.keys.sequence, header[0], len);
        let len = self.open_sealed(nonce, &aad, sealed, plain)?;
        if len > MAX_PLAIN {
            return Err(TlsFault::RecordOverflow);
        }
        Ok((header[0], len))
    }

    fn open_sealed(
        &mut self,
        nonce: [u8; 12],
        aad: &[u8],
        sealed: &[u8],
        plain: &mut [u8],
    ) -> Result<usize, TlsFault> {
        let len = sealed.len().checked_sub(TAG).ok_or(TlsFault::BadRecordMac)?;
        self.rx
            .cipher(self.aead)
            .open(nonce, aad, sealed, &mut plain[..len])
            .map_err(|NotAuthentic| TlsFault::BadRecordMac)?;
        Ok(len)
    }

    fn on_control(&mut self, kind: u8, content: &[u8]) -> Result<Content, TlsFault> {
        // RFC 8446 §5.1: nothing stands between the parts of a handshake message.
        if self.messages.started().is_some() && kind != kind::HANDSHAKE {
            return Err(TlsFault::UnexpectedMessage);
        }
        match kind {
            kind::DATA => Ok(Content::Nothing),
            kind::ALERT => self.on_alert(content),
            kind::HANDSHAKE => {
                match self.messages.on_fragment(content)? {
                    Message::Nothing => {}
                    Message::KeyUpdate { requested } => {
                        self.rx.update(self.aead);
                        self.update_requested |= requested;
                    }
                }
                Ok(Content::Nothing)
            }
            _ => Err(TlsFault::UnexpectedMessage),
        }
    }

    /// RFC 8446 §6, RFC 5246 §7.2.
    fn on_alert(&self, content: &[u8]) -> Result<Content, TlsFault> {
        const WARNING: u8 = 1;
        const FATAL: u8 = 2;
        const CLOSE_NOTIFY: u8 = 0;
        const USER_CANCELED: u8 = 90;
        // An empty one is forbidden (RFC 8446 §5.1), two in a record are as well; OpenSSL calls all of them
        // unexpected.
        let &[level, description] = content else { return Err(TlsFault::UnexpectedMessage) };
        match (self.version, level, description) {
            (_, WARNING | FATAL, CLOSE_NOTIFY) => Ok(Content::CloseNotify),
            // A warning in TLS 1.2, and this one in both, changes nothing.
            (TlsVersion::Tls12, WARNING, _) | (_, WARNING, USER_CANCELED) => Ok(Content::Nothing),
            (_, WARNING | FATAL, _) => Err(TlsFault::Alert(description)),
            _ => Err(TlsFault::IllegalParameter),
        }
    }

    // Sending.

    /// Seals `plain` into `out`, which holds [`sealed_len`] of it; says how much of `out` is used.
    ///
    /// With an error nothing was sealed, and only [`Self::close_notify`] may follow.
    pub fn seal(&mut self, plain: &[u8], out: &mut [u8]) -> Result<usize, TlsFault> {
        if self.version == TlsVersion::Tls12 && !self.can_seal(plain.len()) {
            return Err(TlsFault::KeysExhausted);
        }
        let mut used = 0;
        for fragment in plain.chunks(MAX_PLAIN) {
            used += self.update_keys_if_due(&mut out[used..]);
            used += self.seal_record(kind::DATA, fragment, &mut out[used..]);
        }
        Ok(used)
    }

    /// Whether the sending key, which TLS 1.2 cannot change, is good for all of these bytes: the first
    /// records would use up numbers without arriving.
    fn can_seal(&self, plain_len: usize) -> bool {
        let records = plain_len.div_ceil(MAX_PLAIN) as u64;
        let blocks = (sealed_len(plain_len) as u64).div_ceil(16) + records;
        let exhausted = self.aead != Aead::ChaCha20Poly1305
            && self.tx_blocks.saturating_add(blocks) > AES_GCM_BLOCKS;
        // Two numbers stay for alerts.
        !exhausted && self.tx.keys.sequence.saturating_add(records) <= u64::MAX - 2
    }

    /// Before the next data in TLS 1.3: the KeyUpdate that the peer asked for, or that our own use
    /// demands.
    fn update_keys_if_due(&mut self, out: &mut [u8]) -> usize {
        let exhausted = self.tx.keys.sequence >= self.tx_limit - 1;
        if self.version == TlsVersion::Tls12 || !exhausted && !self.update_requested {
            return 0;
        }
        // It asks for none in return: who seals counts (RFC 8446 §5.5), and the answers of a peer that
        // only listens would be too many records without data.
        let message = post_handshake::key_update(false);
        let used = self.seal_record(kind::HANDSHAKE, &message, out);
        self.tx.update(self.aead);
        self.update_requested = false;
        used
    }

    /// Ends our direction in good order (RFC 8446 §6.1), once.
    pub fn close_notify(&mut self, out: &mut [u8; MAX_CONTROL]) -> usize {
        self.seal_alert(1, 0, out)
    }

    /// Ends it with a fatal alert (RFC 8446 §6.2), unless it has ended.
    pub fn fatal_alert(&mut self, description: u8, out: &mut [u8; MAX_CONTROL]) -> usize {
        self.seal_alert(2, description, out)
    }

    fn seal_alert(&mut self, level: u8, description: u8, out: &mut [u8; MAX_CONTROL]) -> usize {
        if self.closed || self.tx.keys.sequence == u64::MAX {
            return 0;
        }
        self.closed = true;
        self.seal_record(kind::ALERT, &[level, description], out)
    }

    /// Seals one record and counts it.
    fn seal_record(&mut self, kind: u8, plain: &[u8], out: &mut [u8]) -> usize {
        let nonce = self.tx.nonce();
        let used = match self.version {
            TlsVersion::Tls13 => {
                let fragment_len = plain.len() + 1 + TAG;
                let header = header(kind::DATA, fragment_len);
                out[..HEADER].copy_from_slice(&header);
                let sealed = &mut out[HEADER..HEADER + fragment_len];
                self.tx.cipher(self.aead).seal(nonce, &header, plain, &[kind], sealed);
                HEADER + fragment_len
            }
            TlsVersion::Tls12 => {
                let explicit_len =
                    if self.aead == Aead::ChaCha20Poly1305 { 0 } else { EXPLICIT_NONCE };
                let fragment_len = explicit_len + plain.len() + TAG;
                out[..HEADER].copy_from_slice(&header(kind, fragment_len));
                let fragment = &mut out[HEADER..HEADER + fragment_len];
                let (explicit, sealed) = fragment.split_at_mut(explicit_len);
                explicit.copy_from_slice(&nonce[12 - explicit_len..]);
                let aad = aad_12(self.tx.keys.sequence, kind, plain.len());
                self.tx.cipher(self.aead).seal(nonce, &aad, plain, &[], sealed);
                HEADER + fragment_len
            }
        };
        self.tx.keys.sequence += 1;
        self.tx_blocks = self.tx_blocks.saturating_add((used as u64).div_ceil(16));
        used
    }
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records")
            .field("version", &self.version)
            .field("aead", &self.aead)
            .finish_non_exhaustive()
    }
}

/// How many records a sending key may seal.
fn tx_limit(aead: Aead, record_limit: u64) -> u64 {
    match aead {
        Aead::Aes128Gcm | Aead::Aes256Gcm => record_limit.max(MIN_RECORDS),
        // RFC 8446 §5.5: the number of records is the only bound.
        Aead::ChaCha20Poly1305 => u64::MAX - 1,
    }
}

/// What an opened record was.
enum Content {
    Data(usize),
    Nothing,
    CloseNotify,
}

fn header(kind: u8, fragment_len: usize) -> [u8; HEADER] {
    let [high, low] = (fragment_len as u16).to_be_bytes();
    [kind, 3, 3, high, low]
}

/// What TLS 1.2 authenticates besides the fragment (RFC 5246 §6.2.3.3).
fn aad_12(sequence: u64, kind: u8, plain_len: usize) -> [u8; 13] {
    let mut aad = [0; 13];
    aad[..8].copy_from_slice(&sequence.to_be_bytes());
    aad[8..].copy_from_slice(&header(kind, plain_len));
    aad
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
