//! What was opened before the keys were taken out, by somebody else.

use super::{HEADER, Records, kind};
use crate::post_handshake::PostHandshake;
use crate::{Role, TlsFault, TlsKeys, TlsVersion};

impl TlsKeys {
    /// Looks for the handshake message that `peer` has begun and not ended: who opened its first part
    /// has no keys any more, and who has the keys has not seen it.
    ///
    /// `seen` is whole records from the wire, the last of which was opened with these keys last. A message
    /// that begins before them is not found.
    ///
    /// # Errors
    /// When what has begun has no place after a handshake.
    pub fn find_started(&mut self, peer: Role, seen: &[u8]) -> Result<(), TlsFault> {
        // Messages of TLS 1.2 are taken whole or not at all.
        if self.version == TlsVersion::Tls12 {
            return Ok(());
        }
        let mut before = Records::new(self, peer, 0);
        let mut parts = Vec::new();
        // A change of keys ends with its record (RFC 8446 §5.1), and so do messages before data.
        for record in whole_records(seen).iter().rev() {
            if before.rx.keys.sequence == 0 {
                break;
            }
            before.rx.keys.sequence -= 1;
            let mut plain = vec![0; record.len()];
            let Ok((kind, len)) = before.open_13(record, &mut plain) else { return Ok(()) };
            if kind != kind::HANDSHAKE {
                before.rx.keys.sequence = 0;
                break;
            }
            plain.truncate(len);
            parts.push(plain);
        }
        if before.rx.keys.sequence > 0 {
            return Ok(());
        }
        let mut messages = PostHandshake::new(self.version, peer, self.started.clone());
        for part in parts.iter().rev() {
            messages.on_fragment(part)?;
        }
        self.started = messages.started().clone();
        Ok(())
    }
}

/// The records that these bytes are.
fn whole_records(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut records = Vec::new();
    while let [_, _, _, high, low, rest @ ..] = bytes {
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        if rest.len() < len {
            break;
        }
        let (record, behind) = bytes.split_at(HEADER + len);
        records.push(record);
        bytes = behind;
    }
    records
}
