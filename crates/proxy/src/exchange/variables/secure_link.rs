//! `$secure_link` and `$secure_link_expires`.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::alphabet::URL_SAFE;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::engine::{DecodePaddingMode, Engine};
use bytes::Bytes;
use md5::{Digest, Md5};
use wssgate_config::model::SecureLink;

use crate::clock;
use crate::exchange::request::Request;

/// Like nginx it takes what has bits too many at its end.
const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone),
);

/// The longest checksum that is looked at.
const MAX_CHECKSUM: usize = 24;

/// `$secure_link`; notes for `$secure_link_expires` when the link expires.
pub(super) fn value(request: &Request) -> Option<Bytes> {
    match request.location().settings.secure_link.as_ref()? {
        SecureLink::Checksum(link, md5) => {
            let link = request.text(link);
            let (checksum, expires) = match link.iter().position(|&byte| byte == b',') {
                None => (link, None),
                Some(comma) => (link.slice(..comma), Some(link.slice(comma + 1..))),
            };
            let until = match expires {
                None => None,
                Some(text) => {
                    let until = seconds(&text)?;
                    *request.values.link_expires.borrow_mut() = Some(text);
                    Some(until)
                }
            };
            if !is_checksum(&checksum, &Md5::digest(request.text(md5))) {
                return None;
            }
            let now = clock::since_epoch(clock::now()).as_secs();
            let expired = until.is_some_and(|until| until < now);
            Some(Bytes::from_static(if expired { b"0" } else { b"1" }))
        }
        SecureLink::Secret(secret) => signed_link(request.arrival.uri.as_ref()?, secret),
    }
}

/// A time as nginx reads it: digits, and not 0.
fn seconds(text: &[u8]) -> Option<u64> {
    let number = std::str::from_utf8(text).ok()?;
    let digits = text.iter().all(u8::is_ascii_digit);
    number.parse().ok().filter(|&time| digits && time > 0 && time <= i64::MAX as u64)
}

fn is_checksum(text: &[u8], expected: &[u8]) -> bool {
    if text.len() > MAX_CHECKSUM {
        return false;
    }
    let text = text.split(|&byte| byte == b'=').next().unwrap_or_default();
    let given = BASE64URL.decode(text);
    given.is_ok_and(|given| verify_slices_are_equal(&given, expected).is_ok())
}

/// The link of `/prefix/checksum/link`.
fn signed_link(uri: &Bytes, secret: &[u8]) -> Option<Bytes> {
    let mut parts = uri.get(1..)?.splitn(3, |&byte| byte == b'/');
    let (_, checksum, link) = (parts.next()?, parts.next()?, parts.next()?);
    if link.is_empty() || checksum.len() != 32 {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let pairs = checksum.as_chunks::<2>().0.iter();
    let given: Option<Vec<u8>> =
        pairs.map(|&[high, low]| Some(digit(high)? << 4 | digit(low)?)).collect();
    let expected = Md5::new().chain_update(link).chain_update(secret).finalize();
    verify_slices_are_equal(&given?, &expected).ok()?;
    Some(uri.slice_ref(link))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_base64url_of_sixteen_bytes() {
        let expected = [0xfb_u8; 16];
        for (text, right) in [
            ("-_v7-_v7-_v7-_v7-_v7-w", true),
            ("-_v7-_v7-_v7-_v7-_v7-w==", true),
            // Bits too many.
            ("-_v7-_v7-_v7-_v7-_v7-x", true),
            ("+/v7-_v7-_v7-_v7-_v7-w", false),
            ("-_v7-_v7-_v7-_v7-_v7-_v", false),
            ("-_v7-_v7-_v7-_v7-_v7", false),
            ("-_v7-_v7-_v7-_v7-_v7-w===", false),
            ("", false),
        ] {
            assert_eq!(is_checksum(text.as_bytes(), &expected), right, "{text}");
        }
    }

    #[test]
    fn a_signed_link_is_found_behind_its_checksum() {
        // echo -n 'a/b?csecret' | md5sum
        let sum = "f5b2e6b6c3bd6ab0b3b4bbf0b7a3a1f0";
        let made: String = {
            let digest = Md5::digest(b"a/b?csecret");
            digest.iter().map(|byte| format!("{byte:02x}")).collect()
        };
        for (uri, expected) in [
            (format!("/p/{made}/a/b?c"), Some("a/b?c")),
            (format!("/p/{}/a/b?c", made.to_uppercase()), Some("a/b?c")),
            (format!("/p/{sum}/a/b?c"), None),
            (format!("/p/{made}/a/b"), None),
            (format!("/p/{made}/"), None),
            (format!("/p/{made}"), None),
            (format!("/p/{}/a", &made[1..]), None),
            ("/".into(), None),
        ] {
            let found = signed_link(&Bytes::from(uri.clone()), b"secret");
            assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{uri}");
        }
    }
}
