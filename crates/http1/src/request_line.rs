//! The request line: method, target in one of its forms, version (RFC 9112 §3).

use crate::lines::Span;
use crate::method::{Method, Version};
use crate::request::HeadError;

/// A request line taken apart; spans count from the start of the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RequestLine {
    pub(crate) text: Span,
    pub(crate) method: Method,
    pub(crate) method_name: Span,
    pub(crate) target: Span,
    /// Path and query without scheme and authority: nginx's `$request_uri`.
    pub(crate) uri: Span,
    /// The authority of an absolute-form or authority-form target.
    pub(crate) authority: Option<Span>,
    pub(crate) scheme: Option<Span>,
    /// The version as written; empty for HTTP/0.9.
    pub(crate) protocol: Span,
    pub(crate) version: Version,
}

impl RequestLine {
    /// Reads the line at `text` of `input`. Runs of spaces separate its parts, as nginx allows.
    pub(crate) fn parse(input: &[u8], text: Span) -> Result<Self, HeadError> {
        let line = text.of(input);
        let method_len = line.iter().position(|&b| b == b' ').unwrap_or(line.len());
        if !line[..method_len].iter().all(|&b| is_method_byte(b)) {
            return Err(HeadError::InvalidMethod);
        }
        let method = Method::from_name(&line[..method_len]);
        // Only a space separates. RFC 9112 §3 would let tabs and a bare CR do the same, and warns
        // of the smuggling that this invites; as controls in the target they are refused below.
        let target = word(line, method_len).ok_or(HeadError::InvalidRequest)?;
        if target.of(line).iter().any(|&b| b < b' ' || b == 0x7f) {
            return Err(HeadError::InvalidRequest);
        }
        // The target before the version, as nginx judges them: a request that is wrong in both gets
        // 400 and not 505.
        let form = Form::of(line, target, method)?;
        let (version, protocol) = parse_protocol(line, target.end())?;
        // A request without a version is HTTP/0.9's simple request, which only GET can make (RFC
        // 1945 §5). It also leaves no CONNECT without the slash that is looked for next.
        if version == Version::Http09 && method != Method::Get {
            return Err(HeadError::InvalidHttp09Method);
        }
        let uri = form.uri.or_else(|| slash_of(protocol)).ok_or(HeadError::InvalidRequest)?;
        let base = text.start();
        Ok(Self {
            text,
            method,
            method_name: Span::new(0, method_len).shift(base),
            target: target.shift(base),
            uri: uri.shift(base),
            authority: form.authority.map(|span| span.shift(base)),
            scheme: form.scheme.map(|span| span.shift(base)),
            protocol: protocol.shift(base),
            version,
        })
    }
}

/// nginx knows methods of upper case letters, `_` and `-` only.
pub(crate) fn is_method_byte(b: u8) -> bool {
    b.is_ascii_uppercase() || b == b'_' || b == b'-'
}

/// The next run of non-spaces at or after `from`.
fn word(line: &[u8], from: usize) -> Option<Span> {
    let start = from + line[from..].iter().position(|&b| b != b' ')?;
    let len = line[start..].iter().position(|&b| b == b' ').unwrap_or(line.len() - start);
    Some(Span::new(start, start + len))
}

/// `HTTP/1.x`, which may be followed by spaces; nothing at all is HTTP/0.9.
fn parse_protocol(line: &[u8], from: usize) -> Result<(Version, Span), HeadError> {
    let Some(protocol) = word(line, from) else {
        return Ok((Version::Http09, Span::new(from, from)));
    };
    // HTTP-name is case-sensitive (RFC 9112 §2.3).
    let digits = protocol.of(line).strip_prefix(b"HTTP/").ok_or(HeadError::InvalidRequest)?;
    if word(line, protocol.end()).is_some() {
        return Err(HeadError::InvalidRequest);
    }
    let minor = match digits {
        [b'1', b'.', minor @ ..] => minor,
        // nginx answers 505 at the digit that makes the major version larger than 1, whatever
        // follows it.
        [b'2'..=b'9', ..] | [b'1', b'0'..=b'9', ..] => return Err(HeadError::InvalidVersion),
        _ => return Err(HeadError::InvalidRequest),
    };
    if !matches!(minor.len(), 1..=3) || !minor.iter().all(u8::is_ascii_digit) {
        return Err(HeadError::InvalidRequest);
    }
    // A number, not a digit: `1.000` is 1.0 and `1.01` is 1.1, as nginx reads them.
    let version = if minor.iter().all(|&b| b == b'0') { Version::Http10 } else { Version::Http11 };
    Ok((version, protocol))
}

/// The slash of `HTTP/1.1`, which serves as the text of a URI that is `/` without anybody having written it.
fn slash_of(protocol: Span) -> Option<Span> {
    let slash = protocol.start() + b"HTTP".len();
    (slash < protocol.end()).then(|| Span::new(slash, slash + 1))
}

/// The parts of a target, by its form.
struct Form {
    /// `None` for CONNECT, whose URI nginx takes to be `/`.
    uri: Option<Span>,
    authority: Option<Span>,
    scheme: Option<Span>,
}

impl Form {
    /// Knows origin-form, absolute-form, and for CONNECT authority-form. Like nginx it refuses the asterisk.
    fn of(line: &[u8], target: Span, method: Method) -> Result<Self, HeadError> {
        if method == Method::Connect {
            return Self::authority(line, target);
        }
        match target.of(line) {
            [b'/', ..] => Ok(Self { uri: Some(target), authority: None, scheme: None }),
            _ => Self::absolute(line, target),
        }
    }

    /// `host:port`, both needed.
    fn authority(line: &[u8], target: Span) -> Result<Self, HeadError> {
        let text = target.of(line);
        let port_len = text.iter().rev().take_while(|b| b.is_ascii_digit()).count();
        // There is no default port for CONNECT to fall back on (RFC 9110 §9.3.6).
        if port_len == 0 || !text[..text.len() - port_len].ends_with(b":") {
            return Err(HeadError::InvalidRequest);
        }
        Ok(Self { uri: None, authority: Some(target), scheme: None })
    }

    /// `scheme://authority`, then a path, a query, or nothing. An empty target is `/`, and a slash of `://` its text.
    fn absolute(line: &[u8], target: Span) -> Result<Self, HeadError> {
        let text = target.of(line);
        let colon = text.iter().position(|&b| b == b':').ok_or(HeadError::InvalidRequest)?;
        let good = |&b: &u8| b.is_ascii_alphanumeric() || b"+-.".contains(&b);
        // A word is never empty. The scheme's letters are those of RFC 3986 §3.1.
        if !text[0].is_ascii_alphabetic()
            || !text[..colon].iter().all(good)
            || !text[colon..].starts_with(b"://")
        {
            return Err(HeadError::InvalidRequest);
        }
        let host = colon + 3;
        let host_len = text[host..]
            .iter()
            .position(|b| matches!(b, b'/' | b'?' | b'#'))
            .unwrap_or(text.len() - host);
        let path = host + host_len;
        // No target has a fragment (RFC 3986 §4.3), but nginx refuses one only here; behind a path
        // it is cut off later.
        if text.get(path) == Some(&b'#') {
            return Err(HeadError::InvalidRequest);
        }
        // nginx points at a slash of `://` too, so that the URI is a range of the line even where
        // nobody wrote it.
        let uri = if path == text.len() {
            Span::new(colon + 1, colon + 2)
        } else {
            Span::new(path, text.len())
        };
        Ok(Self {
            uri: Some(uri.shift(target.start())),
            authority: Some(Span::new(host, path).shift(target.start())),
            scheme: Some(Span::new(0, colon).shift(target.start())),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<(Version, String, Option<String>), HeadError> {
        // Something in front, because a head's lines do not start at 0 forever.
        let input = format!("xx{line}");
        let text = |span: Span| String::from_utf8_lossy(span.of(input.as_bytes())).into_owned();
        let parsed = RequestLine::parse(input.as_bytes(), Span::new(2, input.len()))?;
        Ok((parsed.version, text(parsed.uri), parsed.authority.map(text)))
    }

    #[test]
    fn targets_are_taken_apart() {
        use Version::*;
        for (line, version, uri, authority) in [
            ("GET / HTTP/1.1", Http11, "/", None),
            ("GET   /a?b#c   HTTP/1.0  ", Http10, "/a?b#c", None),
            ("GET /\u{e4} HTTP/1.7", Http11, "/\u{e4}", None),
            ("GET / HTTP/1.000", Http10, "/", None),
            ("GET / HTTP/1.01", Http11, "/", None),
            ("GET /a", Http09, "/a", None),
            ("GET /a  ", Http09, "/a", None),
            ("GET http://h HTTP/1.1", Http11, "/", Some("h")),
            ("GET ws+x://h:8/p?q HTTP/1.1", Http11, "/p?q", Some("h:8")),
            ("GET http://h?q HTTP/1.1", Http11, "?q", Some("h")),
            ("CONNECT h:80 HTTP/1.1", Http11, "/", Some("h:80")),
            ("M-SEARCH_X / HTTP/1.1", Http11, "/", None),
        ] {
            assert_eq!(
                parse(line),
                Ok((version, uri.into(), authority.map(String::from))),
                "{line}"
            );
        }
    }

    #[test]
    fn nonsense_is_refused_by_its_kind() {
        use HeadError::*;
        for (line, error) in [
            ("get / HTTP/1.1", InvalidMethod),
            ("G\tT / HTTP/1.1", InvalidMethod),
            ("GET", InvalidRequest),
            ("GET ", InvalidRequest),
            ("GET / /", InvalidRequest),
            ("GET /\t HTTP/1.1", InvalidRequest),
            ("GET /\r HTTP/1.1", InvalidRequest),
            ("GET /\x7f HTTP/1.1", InvalidRequest),
            ("GET * HTTP/1.1", InvalidRequest),
            ("OPTIONS * HTTP/1.1", InvalidRequest),
            ("GET a HTTP/1.1", InvalidRequest),
            ("GET http:/h HTTP/1.1", InvalidRequest),
            ("GET 1ttp://h HTTP/1.1", InvalidRequest),
            ("GET http://h#f HTTP/1.1", InvalidRequest),
            ("CONNECT / HTTP/1.1", InvalidRequest),
            ("CONNECT h HTTP/1.1", InvalidRequest),
            ("CONNECT h: HTTP/1.1", InvalidRequest),
            ("GET / http/1.1", InvalidRequest),
            ("GET / HTTP/1.", InvalidRequest),
            ("GET / HTTP/1.1000", InvalidRequest),
            ("GET / HTTP/1.1 x", InvalidRequest),
            ("GET / HTTP/0.9", InvalidRequest),
            ("GET / HTTP/2.0", InvalidVersion),
            ("GET / HTTP/11.0", InvalidVersion),
            ("GET * HTTP/2.0", InvalidRequest),
            ("POST /", InvalidHttp09Method),
            ("CONNECT h:80", InvalidHttp09Method),
        ] {
            assert_eq!(parse(line), Err(error), "{line}");
        }
    }
}
