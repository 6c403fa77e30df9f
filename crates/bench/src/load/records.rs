//! TLS 1.3 records of a client after its handshake (RFC 8446 §5), with AES-128-GCM only.
//!
//! rustls makes the handshake; its buffered connection would then cost more than the proxies under
//! test, so the keys are taken out. Session tickets are skipped, key updates are an error: no
//! measurement lasts long enough for one.

use std::io;

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rustls::client::ClientConnection;
use rustls::crypto::cipher::{self, Iv};
use rustls::{ConnectionTrafficSecrets, ExtractedSecrets};

const HEADER_LEN: usize = 5;
const TAG_LEN: usize = 16;
const MAX_PLAINTEXT: usize = 1 << 14;

/// The content types that matter here (RFC 8446 §5.1).
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;

/// The record layer of one connection.
pub(super) struct Records {
    tx: Direction,
    rx: Direction,
}

struct Direction {
    key: LessSafeKey,
    iv: Iv,
    seq: u64,
}

/// The first record of some bytes.
#[derive(Debug)]
pub(super) struct Opened<'a> {
    /// Its length on the wire.
    pub(super) len: usize,
    /// What it says to the application.
    pub(super) plain: &'a [u8],
}

impl Records {
    /// Takes over after the handshake, before anything else was received.
    pub(super) fn take_over(connection: ClientConnection) -> io::Result<Self> {
        let secrets = connection.dangerous_extract_secrets().map_err(io::Error::other)?;
        Self::new(secrets)
    }

    fn new(secrets: ExtractedSecrets) -> io::Result<Self> {
        Ok(Self { tx: Direction::new(secrets.tx)?, rx: Direction::new(secrets.rx)? })
    }

    /// Appends the records of `plain` to `out`.
    pub(super) fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        for piece in plain.chunks(MAX_PLAINTEXT) {
            let header = header(piece.len() + 1 + TAG_LEN);
            out.extend_from_slice(&header);
            let start = out.len();
            out.extend_from_slice(piece);
            out.push(APPLICATION_DATA);
            let nonce = self.tx.nonce();
            let inner = &mut out[start..];
            let tag = self.tx.key.seal_in_place_separate_tag(nonce, Aad::from(header), inner);
            out.extend_from_slice(tag.map_err(io::Error::other)?.as_ref());
        }
        Ok(())
    }

    /// Opens the first record in place; `None` asks for more bytes.
    pub(super) fn open<'a>(&mut self, bytes: &'a mut [u8]) -> io::Result<Option<Opened<'a>>> {
        let Some((&header, rest)) = bytes.split_first_chunk::<HEADER_LEN>() else {
            return Ok(None);
        };
        let len = HEADER_LEN + usize::from(u16::from_be_bytes([header[3], header[4]]));
        if header[0] != APPLICATION_DATA {
            return Err(invalid("a record that is not encrypted"));
        }
        if rest.len() < len - HEADER_LEN {
            return Ok(None);
        }
        let nonce = self.rx.nonce();
        let inner = self
            .rx
            .key
            .open_in_place(nonce, Aad::from(header), &mut bytes[HEADER_LEN..len])
            .map_err(|_| invalid("a record that does not authenticate"))?;
        // The content type stands behind the content, padding of zeros behind it (§5.4).
        let end = inner.iter().rposition(|&byte| byte != 0);
        let end = end.ok_or_else(|| invalid("a record without content type"))?;
        match inner[end] {
            APPLICATION_DATA => Ok(Some(Opened { len, plain: &inner[..end] })),
            // NewSessionTicket is 4, KeyUpdate 24 (§4).
            HANDSHAKE if inner.first() == Some(&4) => Ok(Some(Opened { len, plain: &[] })),
            // close_notify is 0 (§6.1).
            ALERT if inner.get(1) == Some(&0) => {
                Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the proxy ended a tunnel"))
            }
            _ => Err(invalid("an alert or a key update")),
        }
    }
}

impl Direction {
    fn new((seq, secrets): (u64, ConnectionTrafficSecrets)) -> io::Result<Self> {
        let ConnectionTrafficSecrets::Aes128Gcm { key, iv } = secrets else {
            return Err(invalid("another cipher suite than the only one offered"));
        };
        let key = UnboundKey::new(&AES_128_GCM, key.as_ref()).map_err(io::Error::other)?;
        Ok(Self { key: LessSafeKey::new(key), iv, seq })
    }

    fn nonce(&mut self) -> Nonce {
        let nonce = cipher::Nonce::new(&self.iv, self.seq);
        self.seq += 1;
        Nonce::assume_unique_for_key(nonce.0)
    }
}

fn header(len: usize) -> [u8; HEADER_LEN] {
    let [high, low] = (len as u16).to_be_bytes();
    [APPLICATION_DATA, 3, 3, high, low]
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the proxy sent {what}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn direction() -> Direction {
        let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &[7; 16]).unwrap());
        Direction { key, iv: [9; 12].into(), seq: 0 }
    }

    #[test]
    fn what_was_sealed_opens_record_by_record() {
        let mut records = Records { tx: direction(), rx: direction() };
        let plain: Vec<u8> = (0..40_000).map(|i| (i % 251) as u8).collect();
        let mut wire = Vec::new();
        records.seal(&plain, &mut wire).unwrap();
        let (mut at, mut seen) = (0, Vec::new());
        while at < wire.len() {
            assert!(records.open(&mut wire[at..at + 4]).unwrap().is_none());
            let opened = records.open(&mut wire[at..]).unwrap().unwrap();
            seen.extend_from_slice(opened.plain);
            at += opened.len;
        }
        assert_eq!(seen, plain);
    }

    #[test]
    fn a_changed_record_is_refused() {
        let mut records = Records { tx: direction(), rx: direction() };
        let mut wire = Vec::new();
        records.seal(b"hello", &mut wire).unwrap();
        wire[6] ^= 1;
        assert!(records.open(&mut wire).is_err());
    }
}
