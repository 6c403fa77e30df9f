//! Heads written into a buffer.
//!
//! Nothing can be written that reads back as something else: a part with a byte that would end it early is refused, and
//! then nothing of it was written. Where such text may come from configuration and variables, the caller answers 500.

use bytes::BufMut;
use thiserror::Error;

use crate::fields::{Fields, NameKind, is_safe_value};
use crate::method::Version;

/// A part of a head that would not stay one part.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum WriteError {
    /// Empty, or with controls or spaces.
    #[error("invalid method")]
    Method,
    /// Empty, or with controls or spaces.
    #[error("invalid request target")]
    Target,
    /// With CR, LF or NUL.
    #[error("invalid reason phrase")]
    Reason,
    /// Empty, or with controls, spaces or colons.
    #[error("invalid header name")]
    Name,
    /// With CR, LF or NUL.
    #[error("invalid header value")]
    Value,
}

/// Writes `METHOD target HTTP/1.x` and its line end. HTTP/0.9 is written as 1.0.
pub fn write_request_line<B: BufMut>(
    out: &mut B,
    method: &[u8],
    target: &[u8],
    version: Version,
) -> Result<(), WriteError> {
    if !is_word(method) {
        return Err(WriteError::Method);
    }
    if !is_word(target) {
        return Err(WriteError::Target);
    }
    put(
        out,
        &[method, b" ", target, b" ", version.max(Version::Http10).as_str().as_bytes(), b"\r\n"],
    );
    Ok(())
}

/// Writes `HTTP/1.1 status reason` and its line end. As in nginx the answer says 1.1 whatever was asked.
pub fn write_status_line<B: BufMut>(
    out: &mut B,
    status: u16,
    reason: &[u8],
) -> Result<(), WriteError> {
    if !is_safe_value(reason) {
        return Err(WriteError::Reason);
    }
    let digit = |divisor: u16| b'0' + (status / divisor % 10) as u8;
    put(out, &[b"HTTP/1.1 ", &[digit(100), digit(10), digit(1)], b" ", reason, b"\r\n"]);
    Ok(())
}

/// Writes `name: value` and its line end. A value that is folded over several lines, as `$ssl_client_cert` is, is
/// written on one, since nobody may fold any more (RFC 9112 §5.2): its white space stays.
pub fn write_field<B: BufMut>(out: &mut B, name: &[u8], value: &[u8]) -> Result<(), WriteError> {
    if NameKind::of(name) == NameKind::Broken {
        return Err(WriteError::Name);
    }
    if is_safe_value(value) {
        put(out, &[name, b": ", value, b"\r\n"]);
        return Ok(());
    }
    let unfolded = unfold(value).ok_or(WriteError::Value)?;
    put(out, &[name, b": ", &unfolded, b"\r\n"]);
    Ok(())
}

/// A value without the line ends that white space follows; nothing if it has others, or a NUL.
fn unfold(value: &[u8]) -> Option<Vec<u8>> {
    let mut lines = value.split(|&b| b == b'\n');
    let first = lines.next()?;
    let mut one = Vec::with_capacity(value.len());
    one.extend_from_slice(first.strip_suffix(b"\r").unwrap_or(first));
    for line in lines {
        if !matches!(line.first(), Some(b' ' | b'\t')) {
            return None;
        }
        one.extend_from_slice(line.strip_suffix(b"\r").unwrap_or(line));
    }
    is_safe_value(&one).then_some(one)
}

/// Writes all fields in their order, or nothing of them.
pub fn write_fields<B: BufMut>(out: &mut B, fields: &Fields) -> Result<(), WriteError> {
    // What is in `out` cannot be taken back.
    let mut lines = Vec::new();
    fields.iter().try_for_each(|(name, value)| write_field(&mut lines, name, value))?;
    out.put_slice(&lines);
    Ok(())
}

/// Writes the empty line that ends a head.
pub fn write_end<B: BufMut>(out: &mut B) {
    out.put_slice(b"\r\n");
}

fn put<B: BufMut>(out: &mut B, parts: &[&[u8]]) {
    for part in parts {
        out.put_slice(part);
    }
}

/// Whether a part of a request line has no spaces or controls.
fn is_word(text: &[u8]) -> bool {
    !text.is_empty() && !text.iter().any(|&b| b <= b' ' || b == 0x7f)
}

/// The reason phrase that nginx writes for a status; empty for the ones it has none for.
pub fn reason(status: u16) -> &'static str {
    match REASONS.binary_search_by_key(&status, |&(code, _)| code) {
        Ok(at) => REASONS[at].1,
        Err(_) => "",
    }
}

/// nginx's table, and the interim responses it writes out by hand.
const REASONS: [(u16, &str); 40] = [
    (100, "Continue"),
    (101, "Switching Protocols"),
    (103, "Early Hints"),
    (200, "OK"),
    (201, "Created"),
    (202, "Accepted"),
    (204, "No Content"),
    (206, "Partial Content"),
    (301, "Moved Permanently"),
    (302, "Moved Temporarily"),
    (303, "See Other"),
    (304, "Not Modified"),
    (307, "Temporary Redirect"),
    (308, "Permanent Redirect"),
    (400, "Bad Request"),
    (401, "Unauthorized"),
    (402, "Payment Required"),
    (403, "Forbidden"),
    (404, "Not Found"),
    (405, "Not Allowed"),
    (406, "Not Acceptable"),
    (407, "Proxy Authentication Required"),
    (408, "Request Time-out"),
    (409, "Conflict"),
    (410, "Gone"),
    (411, "Length Required"),
    (412, "Precondition Failed"),
    (413, "Request Entity Too Large"),
    (414, "Request-URI Too Large"),
    (415, "Unsupported Media Type"),
    (416, "Requested Range Not Satisfiable"),
    (421, "Misdirected Request"),
    (429, "Too Many Requests"),
    (500, "Internal Server Error"),
    (501, "Not Implemented"),
    (502, "Bad Gateway"),
    (503, "Service Temporarily Unavailable"),
    (504, "Gateway Time-out"),
    (505, "HTTP Version Not Supported"),
    (507, "Insufficient Storage"),
];

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use bytes::BytesMut;

    use super::*;

    #[test]
    fn heads_are_written_into_any_buffer() {
        let mut out = Vec::new();
        write_request_line(&mut out, b"GET", b"/a?b", Version::Http11).unwrap();
        write_field(&mut out, b"Host", b"h").unwrap();
        write_end(&mut out);
        assert_eq!(out, b"GET /a?b HTTP/1.1\r\nHost: h\r\n\r\n");

        let mut out = BytesMut::new();
        write_status_line(&mut out, 404, reason(404).as_bytes()).unwrap();
        write_fields(&mut out, &[("A", "b"), ("a", "")].into_iter().collect()).unwrap();
        assert_eq!(&out[..], b"HTTP/1.1 404 Not Found\r\nA: b\r\na: \r\n");
    }

    #[test]
    fn nothing_can_be_smuggled_through_a_part() {
        let mut out = Vec::new();
        for bad in ["", "a b", "a\r", "a\n", "a\0", "a\t"] {
            assert_eq!(
                write_request_line(&mut out, bad.as_bytes(), b"/", Version::Http11),
                Err(WriteError::Method)
            );
            assert_eq!(
                write_request_line(&mut out, b"GET", bad.as_bytes(), Version::Http11),
                Err(WriteError::Target)
            );
            assert_eq!(write_field(&mut out, bad.as_bytes(), b""), Err(WriteError::Name));
        }
        for bad in ["a\r\nb: c", "a\rb", "a\nb", "a\0"] {
            assert_eq!(write_field(&mut out, b"a", bad.as_bytes()), Err(WriteError::Value));
            assert_eq!(write_status_line(&mut out, 200, bad.as_bytes()), Err(WriteError::Reason));
        }
        assert_eq!(write_field(&mut out, b"a:b", b""), Err(WriteError::Name));
        assert!(out.is_empty());
    }

    #[test]
    fn a_folded_value_is_written_on_one_line() {
        for (value, line) in [
            (
                "-----BEGIN-----\n\tMIIB\n\t-----END-----",
                Ok("a: -----BEGIN-----\tMIIB\t-----END-----\r\n"),
            ),
            ("a\r\n b\n\t", Ok("a: a b\t\r\n")),
            ("a\n\tb\nX-Smuggled: c", Err(WriteError::Value)),
            ("a\n\tb\rc", Err(WriteError::Value)),
            ("a\n\r\tb", Err(WriteError::Value)),
            ("a\n\tb\n", Err(WriteError::Value)),
            ("a\n\tb\0", Err(WriteError::Value)),
        ] {
            let mut out = Vec::new();
            let written = write_field(&mut out, b"a", value.as_bytes());
            assert_eq!(written.map(|()| &out[..]), line.map(str::as_bytes), "{value:?}");
        }
    }

    #[test]
    fn reasons_are_nginx_s() {
        assert!(REASONS.is_sorted_by_key(|&(code, _)| code));
        assert_eq!(reason(302), "Moved Temporarily");
        assert_eq!(reason(507), "Insufficient Storage");
        assert_eq!(reason(418), "");
        assert_eq!(reason(203), "");
    }
}
