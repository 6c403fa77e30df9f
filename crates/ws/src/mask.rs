//! Masking (RFC 6455 §5.3): payload byte `i` is combined with byte `i mod 4` of the mask by XOR.
//!
//! The operation undoes itself, so one function masks and unmasks. Payload that arrives in pieces
//! is handled by saying how many of its bytes came before.

/// Masks or unmasks `payload`, whose first byte is byte `offset` of the frame's payload.
pub fn apply(mask: [u8; 4], offset: usize, payload: &mut [u8]) {
    let mask = rotated(mask, offset);
    let wide = u64::from_ne_bytes([
        mask[0], mask[1], mask[2], mask[3], mask[0], mask[1], mask[2], mask[3],
    ]);
    let (words, tail) = payload.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    // Words are a multiple of the mask long, so the tail starts at the mask's first byte again.
    for (byte, key) in tail.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

/// The mask as it stands at byte `offset` of the payload.
fn rotated(mut mask: [u8; 4], offset: usize) -> [u8; 4] {
    mask.rotate_left(offset % 4);
    mask
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, byte by byte.
    fn plain(mask: [u8; 4], offset: usize, payload: &[u8]) -> Vec<u8> {
        payload.iter().enumerate().map(|(i, b)| b ^ mask[(offset + i) % 4]).collect()
    }

    #[test]
    fn the_example_of_rfc_6455_section_5_7_unmasks_to_hello() {
        let mut payload = [0x7f, 0x9f, 0x4d, 0x51, 0x58];
        apply([0x37, 0xfa, 0x21, 0x3d], 0, &mut payload);
        assert_eq!(&payload, b"Hello");
    }

    proptest! {
        #[test]
        fn words_give_what_bytes_give(mask: [u8; 4], offset in 0usize..9, payload: Vec<u8>) {
            let mut masked = payload.clone();
            apply(mask, offset, &mut masked);
            prop_assert_eq!(&masked, &plain(mask, offset, &payload));
        }

        #[test]
        fn masking_in_pieces_is_masking_at_once(mask: [u8; 4], payload: Vec<u8>, cut: usize) {
            let mut whole = payload.clone();
            apply(mask, 0, &mut whole);
            let cut = cut % (payload.len() + 1);
            let mut pieces = payload;
            let (left, right) = pieces.split_at_mut(cut);
            apply(mask, 0, left);
            apply(mask, cut, right);
            prop_assert_eq!(pieces, whole);
        }
    }
}
