//! Where a body ends: the rules of RFC 9112 §6.3, without the forgiveness that lets requests be smuggled.
//!
//! Two lengths, a repeated length, or a coding nobody understands is an error on either side, never a guess.

use thiserror::Error;

use crate::fields::{FieldIter, Fields};
use crate::method::{Method, Version};

/// How the length of a message's body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is no body. After a 101, or a 2xx to CONNECT, what follows is no HTTP.
    None,
    /// A body of so many bytes (`Content-Length`).
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// Until the connection ends; responses only.
    UntilClose,
}

/// Why the length of a body cannot be told.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum FramingError {
    /// Repeated `Content-Length` or `Transfer-Encoding`, even if the values agree.
    #[error("duplicate header line")]
    Duplicate,
    /// Anything but decimal digits, or more than 63 bits of them.
    #[error("invalid \"Content-Length\" header")]
    InvalidContentLength,
    /// Both at once (RFC 9112 §6.1 lets a server reject that; smuggling begins here).
    #[error("\"Content-Length\" and \"Transfer-Encoding\" headers at the same time")]
    Both,
    /// Any coding but exactly `chunked`.
    #[error("unknown \"Transfer-Encoding\"")]
    UnknownTransferEncoding,
    /// HTTP/1.0 has no transfer codings, so somebody on the way did not understand it (RFC 9112 §6.1).
    #[error("HTTP/1.0 request with \"Transfer-Encoding\" header")]
    TransferEncodingOnHttp10,
}

/// The framing of a request.
pub fn request_framing(version: Version, fields: &Fields) -> Result<Framing, FramingError> {
    framing_of_request(version, fields.iter())
}

pub(crate) fn framing_of_request(
    version: Version,
    fields: FieldIter<'_>,
) -> Result<Framing, FramingError> {
    let lengths = Lengths::of(fields)?;
    // Asked before the coding, as in nginx: 400 for a version that has no codings, and 501 only for
    // a coding that 1.1 could have had.
    if lengths.chunked.is_some() && version < Version::Http11 {
        return Err(FramingError::TransferEncodingOnHttp10);
    }
    Ok(lengths.framing()?.unwrap_or(Framing::None))
}

/// The framing of a response to a request with `method`.
///
/// The fields are checked even where the status says that no body follows, as nginx does.
pub fn response_framing(
    status: u16,
    fields: &Fields,
    method: Method,
) -> Result<Framing, FramingError> {
    framing_of_response(status, fields.iter(), method)
}

pub(crate) fn framing_of_response(
    status: u16,
    fields: FieldIter<'_>,
    method: Method,
) -> Result<Framing, FramingError> {
    let framing = Lengths::of(fields)?.framing()?;
    // RFC 9112 §6.3, rules 1 and 2: these end with their head whatever the fields say. A length
    // there is the one that a GET would have been answered with.
    let tunnel = method == Method::Connect && (200..300).contains(&status);
    if method == Method::Head || tunnel || matches!(status, 100..=199 | 204 | 304) {
        return Ok(Framing::None);
    }
    // Rule 8. Only a response can end like this; a request without a length has no body (rule 7).
    Ok(framing.unwrap_or(Framing::UntilClose))
}

/// The two fields that speak of length, each at most once.
struct Lengths<'a> {
    length: Option<&'a [u8]>,
    chunked: Option<&'a [u8]>,
}

impl<'a> Lengths<'a> {
    fn of(fields: FieldIter<'a>) -> Result<Self, FramingError> {
        let mut found = Self { length: None, chunked: None };
        for (name, value) in fields {
            let slot = match name.len() {
                14 if name.eq_ignore_ascii_case(b"content-length") => &mut found.length,
                17 if name.eq_ignore_ascii_case(b"transfer-encoding") => &mut found.chunked,
                _ => continue,
            };
            // RFC 9112 §6.3 would forgive lengths that agree; nginx does not, on either side.
            if slot.replace(value).is_some() {
                return Err(FramingError::Duplicate);
            }
        }
        Ok(found)
    }

    fn framing(&self) -> Result<Option<Framing>, FramingError> {
        let length = self.length.map(parse_content_length).transpose()?;
        match (self.chunked, length) {
            // Coding names are case-insensitive (RFC 9112 §7). A list such as `gzip, chunked` is
            // refused too: nobody here could decode it, and passing it on as chunked alone would
            // change the message.
            (Some(coding), _) if !coding.eq_ignore_ascii_case(b"chunked") => {
                Err(FramingError::UnknownTransferEncoding)
            }
            (Some(_), Some(_)) => Err(FramingError::Both),
            (Some(_), None) => Ok(Some(Framing::Chunked)),
            (None, length) => Ok(length.map(Framing::Length)),
        }
    }
}

/// `1*DIGIT` (RFC 9110 §8.6), bounded like nginx's file offsets to 63 bits.
fn parse_content_length(value: &[u8]) -> Result<u64, FramingError> {
    // By hand, because `str::parse` accepts a `+`. That a list of equal numbers (`5, 5`) may be
    // taken for one (RFC 9112 §6.3) is not made use of; nginx refuses it as well.
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(FramingError::InvalidContentLength);
    }
    let digits = value.iter().map(|&b| i64::from(b - b'0'));
    let length = digits
        .into_iter()
        .try_fold(0i64, |length, digit| length.checked_mul(10)?.checked_add(digit));
    // Never negative: only digits were added.
    length.map(i64::unsigned_abs).ok_or(FramingError::InvalidContentLength)
}

/// Whether the sender means to keep the connection: HTTP/1.1 unless it says `close`, HTTP/1.0 if it says `keep-alive`
/// (RFC 9112 §9.3).
pub(crate) fn keeps_alive(version: Version, fields: &Fields) -> bool {
    let (mut close, mut keep) = (false, version == Version::Http11);
    for token in fields.tokens("connection") {
        close |= token.eq_ignore_ascii_case(b"close");
        keep |= token.eq_ignore_ascii_case(b"keep-alive");
    }
    // `close` wins over `keep-alive` in the same field (RFC 9112 §9.3).
    keep && !close && version != Version::Http09
}

#[cfg(test)]
mod tests {
    use super::*;

    const CL: &str = "Content-Length";
    const TE: &str = "transfer-encoding";

    #[test]
    fn a_request_has_one_length_or_none() {
        use FramingError::*;
        for (fields, expected) in [
            (&[][..], Ok(Framing::None)),
            (&[(CL, "0")], Ok(Framing::Length(0))),
            (&[(CL, "0042")], Ok(Framing::Length(42))),
            (&[(CL, "9223372036854775807")], Ok(Framing::Length(i64::MAX as u64))),
            (&[(CL, "9223372036854775808")], Err(InvalidContentLength)),
            (&[(CL, "")], Err(InvalidContentLength)),
            (&[(CL, "+2")], Err(InvalidContentLength)),
            (&[(CL, "-2")], Err(InvalidContentLength)),
            (&[(CL, "2, 2")], Err(InvalidContentLength)),
            (&[(CL, "0x2")], Err(InvalidContentLength)),
            (&[(CL, "2 2")], Err(InvalidContentLength)),
            (&[(CL, "2"), (CL, "2")], Err(Duplicate)),
            (&[(TE, "chunked")], Ok(Framing::Chunked)),
            (&[(TE, "Chunked")], Ok(Framing::Chunked)),
            (&[(TE, "chunked"), (TE, "chunked")], Err(Duplicate)),
            (&[(TE, "chunked"), (CL, "2")], Err(Both)),
            (&[(CL, "2"), (TE, "chunked")], Err(Both)),
            (&[(TE, "gzip, chunked")], Err(UnknownTransferEncoding)),
            (&[(TE, "chunked, identity")], Err(UnknownTransferEncoding)),
            (&[(TE, "identity")], Err(UnknownTransferEncoding)),
            (&[(TE, "chunked;q=1")], Err(UnknownTransferEncoding)),
            (&[(TE, "")], Err(UnknownTransferEncoding)),
            (&[(TE, "\u{b}chunked")], Err(UnknownTransferEncoding)),
        ] {
            let list: Fields = fields.iter().copied().collect();
            assert_eq!(request_framing(Version::Http11, &list), expected, "{fields:?}");
        }
    }

    #[test]
    fn http_1_0_has_no_transfer_coding() {
        let fields = [(TE, "chunked")].into_iter().collect();
        assert_eq!(
            request_framing(Version::Http10, &fields),
            Err(FramingError::TransferEncodingOnHttp10)
        );
    }

    #[test]
    fn some_responses_have_no_body_whatever_they_say() {
        for (status, method, fields, expected) in [
            (200, Method::Get, (CL, "5"), Framing::Length(5)),
            (200, Method::Get, (TE, "chunked"), Framing::Chunked),
            (200, Method::Get, ("a", "b"), Framing::UntilClose),
            (200, Method::Head, (CL, "5"), Framing::None),
            (204, Method::Get, (TE, "chunked"), Framing::None),
            (304, Method::Get, (CL, "5"), Framing::None),
            (101, Method::Get, ("a", "b"), Framing::None),
            (200, Method::Connect, (CL, "5"), Framing::None),
            (404, Method::Connect, (CL, "5"), Framing::Length(5)),
        ] {
            let list = [fields].into_iter().collect();
            assert_eq!(
                response_framing(status, &list, method),
                Ok(expected),
                "{status} {method:?} {fields:?}"
            );
        }
        let both = [(CL, "5"), (TE, "chunked")].into_iter().collect();
        assert_eq!(response_framing(304, &both, Method::Get), Err(FramingError::Both));
    }

    #[test]
    fn close_wins_over_keep_alive() {
        for (version, connection, expected) in [
            (Version::Http11, "", true),
            (Version::Http11, "Upgrade", true),
            (Version::Http11, "keep-alive, Close", false),
            (Version::Http10, "", false),
            (Version::Http10, "Keep-Alive", true),
            (Version::Http10, "close, keep-alive", false),
            (Version::Http09, "keep-alive", false),
        ] {
            let fields = [("Connection", connection)].into_iter().collect();
            assert_eq!(keeps_alive(version, &fields), expected, "{version:?} {connection}");
        }
    }
}
