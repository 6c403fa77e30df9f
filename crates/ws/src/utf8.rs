//! Whether text that comes in pieces is UTF-8, at the speed of memory.

use simdutf8::basic;

use crate::mask;

/// How much is unmasked and looked at at a time.
const CHUNK: usize = 4096;

/// Looks at the text of one message after the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Utf8 {
    /// The bytes of a character whose rest has not come.
    tail: [u8; 3],
    len: u8,
}

/// It is not UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotUtf8;

impl Utf8 {
    /// The bytes of a character whose rest has not come.
    pub(crate) fn tail(&self) -> &[u8] {
        &self.tail[..usize::from(self.len)]
    }

    /// Goes on behind the first bytes of a character, or none; `None` if these are something else.
    pub(crate) fn restore(first: &[u8]) -> Option<Self> {
        let begins =
            |error: std::str::Utf8Error| error.error_len().is_none() && error.valid_up_to() == 0;
        if !first.is_empty() && !std::str::from_utf8(first).is_err_and(begins) {
            return None;
        }
        let mut tail = [0; 3];
        tail.get_mut(..first.len())?.copy_from_slice(first);
        Some(Self { tail, len: first.len() as u8 })
    }

    /// Moves on by masked payload whose first byte is byte `offset` of its frame's.
    pub(crate) fn masked(
        &mut self,
        mask: [u8; 4],
        offset: u64,
        payload: &[u8],
    ) -> Result<(), NotUtf8> {
        let mut chunk = [0; CHUNK];
        // The mask repeats every four bytes, and so do the chunks.
        let offset = (offset % 4) as usize;
        for part in payload.chunks(CHUNK) {
            let chunk = &mut chunk[..part.len()];
            chunk.copy_from_slice(part);
            mask::apply(mask, offset, chunk);
            self.plain(chunk)?;
        }
        Ok(())
    }

    /// Moves on by payload as it is meant.
    pub(crate) fn plain(&mut self, mut text: &[u8]) -> Result<(), NotUtf8> {
        while self.len > 0 {
            let Some((&first, after)) = text.split_first() else { return Ok(()) };
            text = after;
            let len = usize::from(self.len);
            let mut character = [0; 4];
            character[..len].copy_from_slice(&self.tail[..len]);
            character[len] = first;
            match std::str::from_utf8(&character[..=len]) {
                Ok(_) => self.len = 0,
                Err(error) if error.error_len().is_some() => return Err(NotUtf8),
                Err(_) => {
                    // Never four bytes: those are a character, or wrong.
                    self.tail[len] = first;
                    self.len += 1;
                }
            }
        }
        if basic::from_utf8(text).is_ok() {
            return Ok(());
        }
        // Cut within a character, at most; which only the last three bytes can tell.
        let start = text.len().saturating_sub(3);
        let Some(cut) = (start..text.len()).rev().find(|&at| text[at] >= 0xc0) else {
            return Err(NotUtf8);
        };
        let (whole, tail) = text.split_at(cut);
        let unfinished = std::str::from_utf8(tail).is_err_and(|error| error.error_len().is_none());
        if !unfinished || basic::from_utf8(whole).is_err() {
            return Err(NotUtf8);
        }
        self.tail[..tail.len()].copy_from_slice(tail);
        self.len = tail.len() as u8;
        Ok(())
    }

    /// Ends the message.
    pub(crate) fn finish(&mut self) -> Result<(), NotUtf8> {
        match std::mem::take(&mut self.len) {
            0 => Ok(()),
            _ => Err(NotUtf8),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Where the definition says that text cannot be UTF-8 any more: after how many bytes.
    fn wrong_from(text: &[u8]) -> Option<usize> {
        (0..=text.len()).find(|&end| {
            std::str::from_utf8(&text[..end]).is_err_and(|error| error.error_len().is_some())
        })
    }

    fn any_text() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            8 => any::<char>().prop_map(|c| c.to_string().into_bytes()),
            1 => prop::collection::vec(any::<u8>(), 1..3),
            1 => Just(b"\xf4\x90".to_vec()),
            1 => Just(b"\xed\xa0".to_vec()),
            1 => Just(vec![b'a'; 4095]),
        ];
        prop::collection::vec(piece, 0..9).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn text_in_pieces_is_judged_as_the_whole(
            text in any_text(),
            cuts in prop::collection::vec(1..9_usize, 1..20),
            mask in any::<Option<[u8; 4]>>(),
        ) {
            let mut utf8 = Utf8::default();
            let (mut at, mut wrong) = (0_usize, None);
            for len in cuts.into_iter().chain([usize::MAX]) {
                let end = text.len().min(at.saturating_add(len));
                let mut part = text[at..end].to_vec();
                let verdict = match mask {
                    Some(mask) => {
                        mask::apply(mask, at, &mut part);
                        utf8.masked(mask, at as u64, &part)
                    }
                    None => utf8.plain(&part),
                };
                if verdict.is_err() {
                    wrong = Some((at, end));
                    break;
                }
                at = end;
            }
            match (wrong_from(&text), wrong) {
                (None, None) => {
                    prop_assert_eq!(utf8.finish().is_ok(), std::str::from_utf8(&text).is_ok());
                }
                (Some(expected), Some((start, end))) => {
                    prop_assert!(start < expected && expected <= end);
                }
                (expected, told) => prop_assert!(false, "{expected:?} but {told:?}"),
            }
        }
    }
}
