//! Response heads from upstreams.
//!
//! Read as tolerantly as nginx reads them, because what an upstream sends was chosen by the operator: bare LF ends a
//! line, any name without controls, spaces and colons will do. What frames the body is checked as strictly as for requests.

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
/// Between two calls of [`parse`](Self::parse) bytes may be added to the end of the buffer, and nothing else done to it.
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
