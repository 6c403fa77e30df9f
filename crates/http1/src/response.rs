//! Response heads from upstreams.
//!
//! Read as tolerantly as nginx reads them, because the operator chose what answers here: a bare LF ends a line, and any
//! name without controls, spaces and colons will do. What frames the body is checked as strictly as for requests.

use bytes::{Bytes, BytesMut};
use thiserror::Error;

use crate::fields::{Entry, FieldIter, Fields, NameKind, is_safe_value, split_line};
use crate::framing::{Framing, FramingError, framing_of_response, keeps_alive};
use crate::lines::{Line, Lines, MAX_HEAD, Span};
use crate::method::{Method, Version};

/// What an upstream did wrong, in nginx's words.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum ResponseError {
    /// No status line, which nginx takes for an HTTP/0.9 answer and passes on as it is.
    #[error("upstream sent no valid HTTP/1.0 header")]
    NotHttp,
    /// The head does not fit into `proxy_buffer_size`.
    #[error("upstream sent too big header")]
    TooBig,
    /// A field line that is none.
    #[error("upstream sent invalid header")]
    InvalidHeader,
    /// The body's length cannot be told.
    #[error("upstream sent {0}")]
    Framing(#[from] FramingError),
}

/// A complete response head. Its bytes are shared with the buffer it was read from.
#[derive(Clone, Debug)]
pub struct ResponseHead {
    line: StatusLine,
    fields: Fields,
}

impl ResponseHead {
    /// The version; what an upstream calls HTTP/2.0 counts as 1.1.
    pub fn version(&self) -> Version {
        self.line.version
    }

    /// The status code, 100 to 999.
    pub fn status(&self) -> u16 {
        self.line.status
    }

    /// Whether this is an interim response, after which the real one follows (RFC 9110 §15.2); 101 is not.
    pub fn is_interim(&self) -> bool {
        matches!(self.line.status, 100 | 102..=199)
    }

    /// Code and reason as sent, such as `404 Not Found`, as nginx hands them on.
    pub fn status_text(&self) -> &[u8] {
        self.line.text.of(self.fields.buf())
    }

    /// The reason phrase; may be empty.
    pub fn reason(&self) -> &[u8] {
        let rest = &self.status_text()[3..];
        rest.strip_prefix(b" ").unwrap_or(rest)
    }

    /// The fields.
    pub fn fields(&self) -> &Fields {
        &self.fields
    }

    /// Where the body ends, if the request had this method.
    pub fn framing(&self, request: Method) -> Result<Framing, FramingError> {
        framing_of_response(self.line.status, self.fields.iter(), request)
    }

    /// Whether another request may be sent once this response was read to its end.
    ///
    /// As in nginx an HTTP/1.0 upstream is never asked twice, whatever it says of keep-alive.
    pub fn keeps_alive(&self, framing: Framing) -> bool {
        // It also is what RFC 9112 §6.1 asks for where HTTP/1.0 comes with Transfer-Encoding:
        // somebody on the way may have framed it otherwise, so nothing after it can be trusted.
        let ends = framing != Framing::UntilClose && self.line.status != 101;
        ends && self.line.version == Version::Http11 && keeps_alive(self.line.version, &self.fields)
    }

    /// Length of the head in bytes.
    pub fn raw_len(&self) -> usize {
        self.fields.buf().len()
    }

    /// The whole head as it came.
    pub fn raw(&self) -> &Bytes {
        self.fields.buf()
    }

    /// Copies the bytes to memory of their own, so that a head kept for long does not keep a read buffer alive.
    pub fn detach(&mut self) {
        self.fields.detach();
    }
}

/// Reads one response head after the other from a growing buffer.
///
/// Between two calls of [`parse`](Self::parse) bytes may be added to the end of the buffer, and nothing else done to
/// it.
#[derive(Debug, Default)]
pub struct ResponseParser {
    lines: Lines,
    line: Option<StatusLine>,
    entries: Vec<Entry>,
}

impl ResponseParser {
    /// A parser that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a head from the front of `input` once it is complete; `Ok(None)` asks for more bytes.
    ///
    /// A head longer than `max_len` bytes (`proxy_buffer_size`) is an error. After an error `input` is unchanged.
    pub fn parse(
        &mut self,
        input: &mut BytesMut,
        max_len: usize,
    ) -> Result<Option<ResponseHead>, ResponseError> {
        let max_len = max_len.min(MAX_HEAD);
        // Seen in the first bytes and not in the first line: an HTTP/0.9 answer is a body, which
        // need not have an LF.
        let prefix = input.len().min(PREFIX.len());
        if input[..prefix] != PREFIX[..prefix] {
            return Err(ResponseError::NotHttp);
        }
        while let Some(line) = self.lines.next(input) {
            if line.next > max_len {
                return Err(ResponseError::TooBig);
            }
            match &self.line {
                None => {
                    self.line =
                        Some(StatusLine::parse(input, line.text).ok_or(ResponseError::NotHttp)?)
                }
                Some(_) if line.text.of(input).is_empty() => {
                    return self.finish(input, line.next).map(Some);
                }
                Some(_) => self.on_field(input, line)?,
            }
        }
        // nginx has as many bytes of buffer, and gives up when they are full and the head has not
        // ended.
        if input.len() >= max_len { Err(ResponseError::TooBig) } else { Ok(None) }
    }

    /// The line, or the part of it that has arrived, at which parsing stopped; without its end.
    pub fn bad_line<'a>(&self, input: &'a [u8]) -> &'a [u8] {
        self.lines.last_text(input)
    }

    fn on_field(&mut self, input: &[u8], line: Line) -> Result<(), ResponseError> {
        let text = line.text.of(input);
        if text.starts_with(PREFIX) {
            // A second status line, which some versions of IIS send; nginx skips it too.
            return Ok(());
        }
        let entry = split_line(text).ok_or(ResponseError::InvalidHeader)?;
        let (name, rest) = text.split_at(entry.name.end());
        // A space before the colon and folded lines fall under this too. RFC 9112 §5.2 allows 502
        // for the latter; §5.1 would have the space removed, but nginx answers 502 here as well.
        if NameKind::of(name) == NameKind::Broken || !is_safe_value(rest) {
            return Err(ResponseError::InvalidHeader);
        }
        let base = line.text.start();
        self.entries.push(Entry { name: entry.name.shift(base), value: entry.value.shift(base) });
        Ok(())
    }

    /// Takes `len` bytes as a head. The parser is new afterwards.
    fn finish(&mut self, input: &mut BytesMut, len: usize) -> Result<ResponseHead, ResponseError> {
        let line = self.line.ok_or(ResponseError::NotHttp)?;
        // The method changes only what the fields mean, not whether they contradict each other.
        framing_of_response(line.status, FieldIter::new(input, &self.entries), Method::Get)?;
        let done = std::mem::take(self);
        Ok(ResponseHead { line, fields: Fields::new(input.split_to(len).freeze(), done.entries) })
    }
}

/// What every answer starts with.
const PREFIX: &[u8] = b"HTTP/";

/// A status line taken apart.
#[derive(Clone, Copy, Debug)]
struct StatusLine {
    version: Version,
    status: u16,
    /// Code and reason.
    text: Span,
}

impl StatusLine {
    /// `HTTP/x.y`, spaces, three digits, and a space or dot (IIS knows a 403.1) before whatever reason there is.
    fn parse(input: &[u8], span: Span) -> Option<Self> {
        let line = span.of(input);
        let space = memchr::memchr(b' ', line)?;
        let version = parse_version(&line[PREFIX.len().min(space)..space])?;
        let start = space + line[space..].iter().take_while(|&&b| b == b' ').count();
        let text = &line[start..];
        let (code, rest) = text.split_at_checked(3)?;
        if !code.iter().all(u8::is_ascii_digit) || !matches!(rest.first(), None | Some(b' ' | b'.'))
        {
            return None;
        }
        let status = code.iter().fold(0, |status, &b| status * 10 + u16::from(b - b'0'));
        // Three digits are asked for, but a status below 100 belongs to no class (RFC 9110 §15).
        if status < 100 || !is_safe_value(rest) {
            return None;
        }
        Some(Self { version, status, text: Span::new(start, line.len()).shift(span.start()) })
    }
}

/// `x.y`, both of one to three digits, as nginx bounds them.
fn parse_version(text: &[u8]) -> Option<Version> {
    let dot = memchr::memchr(b'.', text)?;
    let (major, minor) = (&text[..dot], &text[dot + 1..]);
    let number = |digits: &[u8]| {
        let good = matches!(digits.len(), 1..=3) && digits.iter().all(u8::is_ascii_digit);
        good.then(|| digits.iter().fold(0, |n, &b| n * 10 + u16::from(b - b'0')))
    };
    let (major, minor) = (number(major).filter(|_| major[0] != b'0')?, number(minor)?);
    Some(if (major, minor) < (1, 1) { Version::Http10 } else { Version::Http11 })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAX: usize = 4096;

    fn parse(input: &str) -> Result<Option<ResponseHead>, ResponseError> {
        ResponseParser::new().parse(&mut BytesMut::from(input), MAX)
    }

    fn head(input: &str) -> ResponseHead {
        parse(input).unwrap().unwrap()
    }

    #[test]
    fn a_head_is_kept_as_it_was_sent() {
        let text = "HTTP/1.1 200 All is  well\r\nServer: x\r\nset-cookie: a\nSET-COOKIE:b\r\nX@Y: \x01\r\n\r\n";
        let mut input = BytesMut::from(format!("{text}body").as_str());
        let head = ResponseParser::new().parse(&mut input, MAX).unwrap().unwrap();
        assert_eq!(&input[..], b"body");
        assert_eq!((head.version(), head.status()), (Version::Http11, 200));
        assert_eq!(
            (head.status_text(), head.reason()),
            (&b"200 All is  well"[..], &b"All is  well"[..])
        );
        assert_eq!(head.fields().all("Set-Cookie").collect::<Vec<_>>(), [b"a", b"b"]);
        assert_eq!(head.fields().first("x@y"), Some(&b"\x01"[..]));
        assert_eq!((head.raw_len(), &head.raw()[..]), (text.len(), text.as_bytes()));
    }

    #[test]
    fn status_lines_are_read_as_nginx_reads_them() {
        use Version::*;
        for (line, version, status, reason) in [
            ("HTTP/1.1 101 Switching Protocols", Http11, 101, "Switching Protocols"),
            ("HTTP/1.0 404", Http10, 404, ""),
            ("HTTP/1.1   404 ", Http11, 404, ""),
            ("HTTP/1.1 403.1 Forbidden", Http11, 403, ".1 Forbidden"),
            ("HTTP/2.0 200 OK", Http11, 200, "OK"),
            ("HTTP/1.15 999 \u{e4}", Http11, 999, "\u{e4}"),
        ] {
            let head = head(&format!("{line}\r\n\r\n"));
            assert_eq!(
                (head.version(), head.status(), head.reason()),
                (version, status, reason.as_bytes()),
                "{line}"
            );
        }
    }

    #[test]
    fn wrong_heads_are_refused_by_their_kind() {
        use ResponseError::*;
        let ok = |lines: &str| format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\n");
        for (input, error) in [
            ("<html>".into(), NotHttp),
            ("HTTX".into(), NotHttp),
            ("\r\nHTTP/1.1 200 OK\r\n\r\n".into(), NotHttp),
            ("HTTP/1.1\r\n".into(), NotHttp),
            ("HTTP/ 200 OK\r\n".into(), NotHttp),
            ("HTTP/0.9 200 OK\r\n".into(), NotHttp),
            ("HTTP/1 200 OK\r\n".into(), NotHttp),
            ("HTTP/1.1 20\r\n".into(), NotHttp),
            ("HTTP/1.1 2000\r\n".into(), NotHttp),
            ("HTTP/1.1 2x0 OK\r\n".into(), NotHttp),
            ("HTTP/1.1 099 OK\r\n".into(), NotHttp),
            ("HTTP/1.1 200 O\rK\r\n".into(), NotHttp),
            (ok("a b: c"), InvalidHeader),
            (ok("a : c"), InvalidHeader),
            (ok("a: b\r\n c"), InvalidHeader),
            (ok("a: b\rc"), InvalidHeader),
            (ok("a: \0"), InvalidHeader),
            (ok("a"), InvalidHeader),
            (ok(": a"), InvalidHeader),
            (ok("Content-Length: 1\r\ncontent-length: 1"), Framing(FramingError::Duplicate)),
            (ok("Content-Length: a"), Framing(FramingError::InvalidContentLength)),
            (ok("Content-Length: 1\r\nTransfer-Encoding: chunked"), Framing(FramingError::Both)),
            (ok("Transfer-Encoding: gzip"), Framing(FramingError::UnknownTransferEncoding)),
            (ok(&"a: b\r\n".repeat(MAX)), TooBig),
        ] {
            assert_eq!(
                parse(&input).map(|_| ()),
                Err(error),
                "{:?}",
                &input[..input.len().min(80)]
            );
        }
    }

    #[test]
    fn a_head_may_fill_the_buffer_but_no_more() {
        let text = "HTTP/1.1 200 OK\r\na: b\r\n\r\n";
        let parse = |input: &str, max| {
            ResponseParser::new().parse(&mut BytesMut::from(input), max).map(|h| h.is_some())
        };
        assert_eq!(parse(text, text.len()), Ok(true));
        assert_eq!(parse(text, text.len() - 1), Err(ResponseError::TooBig));
        assert_eq!(parse(&text[..20], 21), Ok(false));
        assert_eq!(parse(&text[..20], 20), Err(ResponseError::TooBig));
    }

    #[test]
    fn a_second_status_line_is_skipped() {
        let head = head("HTTP/1.1 200 OK\r\nHTTP/1.1 200 OK\r\na: b\r\n\r\n");
        assert_eq!(head.fields().iter().collect::<Vec<_>>(), [(&b"a"[..], &b"b"[..])]);
    }

    #[test]
    fn interim_responses_come_before_the_real_one() {
        let mut input =
            BytesMut::from("HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\n\r\n");
        let mut parser = ResponseParser::new();
        let mut next = || {
            parser.parse(&mut input, MAX).unwrap().map(|head| (head.status(), head.is_interim()))
        };
        assert_eq!(next(), Some((103, true)));
        assert_eq!(next(), Some((200, false)));
        assert_eq!(next(), None);
        assert!(!head("HTTP/1.1 101 Switching\r\n\r\n").is_interim());
    }

    #[test]
    fn a_connection_is_reused_only_after_a_framed_http_1_1_response() {
        for (input, keeps) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", true),
            ("HTTP/1.1 204 No\r\n\r\n", true),
            ("HTTP/1.1 200 OK\r\n\r\n", false),
            ("HTTP/1.1 101 OK\r\n\r\n", false),
            ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: Close\r\n\r\n", false),
            ("HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n", false),
        ] {
            let head = head(input);
            assert_eq!(head.keeps_alive(head.framing(Method::Get).unwrap()), keeps, "{input}");
        }
    }

    fn parse_pieces<'a>(pieces: impl Iterator<Item = &'a [u8]>, max_len: usize) -> String {
        let (mut input, mut parser) = (BytesMut::new(), ResponseParser::new());
        let mut outcome = Ok(None);
        for piece in pieces {
            input.extend_from_slice(piece);
            if matches!(outcome, Ok(None)) {
                outcome = parser.parse(&mut input, max_len);
            }
        }
        format!("{outcome:?}")
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_a_head_is_cut(
            start in "(HTTP/1.1 200 OK\r\n|HTTP/1.1 [0-9]{1,4}[ -~]{0,3}\n|[HTP/1 ]{0,6})",
            lines in "([a-z ]{1,2}:[ -~]{0,9}\r?\n|Content-Length: 1\r\n|[\r\n\0]{1,2}){0,5}",
            end in "(\r?\n)?[a-z]{0,3}",
            cut in 1usize..9,
            max in 8usize..80,
        ) {
            let input = [start, lines, end].concat().into_bytes();
            prop_assert_eq!(parse_pieces(std::iter::once(&input[..]), max), parse_pieces(input.chunks(cut), max));
        }
    }
}
