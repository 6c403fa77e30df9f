//! What a client says about who it is.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use zeroize::Zeroizing;

use super::Request;

/// As in nginx the last character may have bits too many.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone),
);

/// Name and password of `Authorization: Basic` (RFC 7617 §2).
pub(crate) struct Basic {
    /// The name; it has no colon and is not empty.
    pub(crate) user: Bytes,
    /// The password.
    pub(crate) password: Zeroizing<Vec<u8>>,
}

/// What the client sends; nothing without a name or without a password part, as in nginx.
pub(crate) fn basic(request: &Request) -> Option<Basic> {
    let encoded = of_scheme(request, b"Basic")?;
    // As in nginx padding need not be there, and ends what is read.
    let encoded = encoded.split(|&byte| byte == b'=').next().unwrap_or_default();
    let decoded = Zeroizing::new(BASE64.decode(encoded).ok()?);
    let colon = decoded.iter().position(|&b| b == b':').filter(|&colon| colon > 0)?;
    Some(Basic {
        user: Bytes::copy_from_slice(&decoded[..colon]),
        password: Zeroizing::new(decoded[colon + 1..].to_vec()),
    })
}

/// The token of `Authorization: Bearer` (RFC 6750 §2.1).
pub(crate) fn bearer(request: &Request) -> Option<&[u8]> {
    of_scheme(request, b"Bearer")
}

/// What stands behind the scheme of `Authorization`, if it is this one (RFC 9110 §11.4).
fn of_scheme<'r>(request: &'r Request, scheme: &[u8]) -> Option<&'r [u8]> {
    let (found, rest) = request.field("authorization")?.split_at_checked(scheme.len())?;
    let credentials = rest.strip_prefix(b" ")?.trim_ascii();
    found.eq_ignore_ascii_case(scheme).then_some(credentials)
}
