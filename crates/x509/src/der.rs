//! The front of DER, as far as certificates, trust settings and keys need it (X.690 §8.1).
//!
//! Tags are those of X.690 §8; lengths are read up to 64 KiB.

/// INTEGER.
pub const INTEGER: u8 = 0x02;
/// OCTET STRING.
pub const OCTETS: u8 = 0x04;
/// OBJECT IDENTIFIER.
pub const OID: u8 = 0x06;
/// SEQUENCE.
pub const SEQUENCE: u8 = 0x30;
/// `[0]`, with something inside.
pub const CONTEXT_0: u8 = 0xa0;

/// Takes the content of the value at the front of `input` if it has this tag; `None` if it has another one
/// or is not whole.
pub fn take<'a>(input: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    let (&[found, len], rest) = input.split_first_chunk()?;
    if found != tag {
        return None;
    }
    let (len, rest) = match len {
        0..=0x7f => (usize::from(len), rest),
        0x81 => rest.split_first().map(|(len, rest)| (usize::from(*len), rest))?,
        0x82 => {
            let (len, rest) = rest.split_first_chunk()?;
            (usize::from(u16::from_be_bytes(*len)), rest)
        }
        // Nothing that is read here is longer.
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(len)?;
    *input = rest;
    Some(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_taken_with_its_tag_and_whole() {
        let mut input: &[u8] = &[SEQUENCE, 2, 1, 2, 9];
        assert_eq!(take(&mut input, OID), None);
        assert_eq!(take(&mut input, SEQUENCE), Some(&[1, 2][..]));
        assert_eq!(input, [9]);
        for short in [&[SEQUENCE][..], &[SEQUENCE, 2, 1], &[SEQUENCE, 0x82, 1], &[SEQUENCE, 0x83]] {
            assert_eq!(take(&mut &*short, SEQUENCE), None, "{short:?}");
        }
    }
}
