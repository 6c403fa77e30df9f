//! Request heads from clients.
//!
//! A head is read line by line, and each line is judged when it is complete: what a client did wrong is known as early
//! as nginx knows it, and nothing is read twice.

use bytes::{Buf, Bytes, BytesMut};
use thiserror::Error;

use crate::fields::{Entry, FieldIter, Fields, NameKind, is_clean_value, split_line};
use crate::framing::{Framing, FramingError, framing_of_request, keeps_alive};
use crate::host::{self, Host};
use crate::lines::{Line, Lines, MAX_HEAD, Span};
use crate::method::{Method, Version};
use crate::request_line::{RequestLine, is_method_byte};
use crate::uri::{InvalidUri, Uri};

/// What a request head may look like: nginx's directives of these names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `client_header_buffer_size`: the head's first buffer.
    pub client_header_buffer_size: usize,
    /// The number in `large_client_header_buffers`: how many further buffers there may be.
    pub large_buffers: usize,
    /// The size in `large_client_header_buffers`: how long a line may be that the first buffer does not hold.
    pub large_buffer_size: usize,
    /// `max_headers`: how many fields.
    pub max_headers: usize,
    /// `underscores_in_headers`: whether a name with underscores is a valid one.
    pub underscores_in_headers: bool,
    /// `ignore_invalid_headers`: whether fields with odd names are dropped. Otherwise they are kept if the name is a
    /// token, and refused if not.
    pub ignore_invalid_headers: bool,
}

impl Default for Limits {
    /// nginx's defaults.
    fn default() -> Self {
        Self {
            client_header_buffer_size: 1024,
            large_buffers: 4,
            large_buffer_size: 8 * 1024,
            max_headers: 1000,
            underscores_in_headers: false,
            ignore_invalid_headers: true,
        }
    }
}

impl Limits {
    /// The most bytes that an acceptable head can have; a read buffer of this size is never too small.
    pub fn max_head_len(&self) -> usize {
        let large = self.large_buffers.saturating_mul(self.large_buffer_size);
        self.client_header_buffer_size.saturating_add(large).min(MAX_HEAD)
    }
}

/// What a client did wrong, in nginx's words.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum HeadError {
    #[error("client sent invalid method")]
    InvalidMethod,
    #[error("client sent invalid request")]
    InvalidRequest,
    #[error("client sent invalid version")]
    InvalidVersion,
    #[error("client sent invalid method in HTTP/0.9 request")]
    InvalidHttp09Method,
    #[error("client sent too long URI")]
    UriTooLong,
    #[error("client sent invalid host in request line")]
    InvalidHostInLine,
    #[error("client sent invalid header line")]
    InvalidHeader,
    #[error("client sent too long header line")]
    HeaderTooLarge,
    #[error("client sent too many header lines")]
    TooManyHeaders,
    #[error("client sent duplicate header line")]
    DuplicateHeader,
    #[error("client sent duplicate host header")]
    DuplicateHost,
    #[error("client sent invalid host header")]
    InvalidHost,
    #[error("client sent HTTP/1.1 request without \"Host\" header")]
    MissingHost,
    #[error("client sent {0}")]
    Framing(FramingError),
}

impl HeadError {
    /// The status of the answer.
    pub fn status(self) -> u16 {
        match self {
            Self::UriTooLong => 414,
            Self::InvalidVersion => 505,
            Self::Framing(FramingError::UnknownTransferEncoding) => 501,
            _ => 400,
        }
    }

    /// The code that `error_page` knows it by: nginx calls heads that are too large 494, and answers them with 400.
    pub fn code(self) -> u16 {
        match self {
            Self::HeaderTooLarge | Self::TooManyHeaders => 494,
            _ => self.status(),
        }
    }
}

/// A complete, valid request head. Its bytes are shared with the buffer it was read from.
#[derive(Clone, Debug)]
pub struct RequestHead {
    line: RequestLine,
    fields: Fields,
    ignored: Vec<Span>,
    host: Option<Host>,
    framing: Framing,
}

impl RequestHead {
    /// The method, for decisions.
    pub fn method(&self) -> Method {
        self.line.method
    }

    /// The method's name as sent: `$request_method`.
    pub fn method_name(&self) -> &[u8] {
        self.text(self.line.method_name)
    }

    /// The version.
    pub fn version(&self) -> Version {
        self.line.version
    }

    /// The version as sent, such as `HTTP/1.1`; empty for HTTP/0.9: `$server_protocol`.
    pub fn protocol(&self) -> &[u8] {
        self.text(self.line.protocol)
    }

    /// The request line without its end: `$request`.
    pub fn request_line(&self) -> &[u8] {
        self.text(self.line.text)
    }

    /// The target as sent, in whatever form.
    pub fn target(&self) -> &[u8] {
        self.text(self.line.target)
    }

    /// Path and query as sent, without scheme and authority: `$request_uri`. For `http://h?q` it is `?q`.
    pub fn request_uri(&self) -> Bytes {
        self.fields.buf().slice(self.line.uri.start()..self.line.uri.end())
    }

    /// The scheme of an absolute-form target.
    pub fn scheme(&self) -> Option<&[u8]> {
        self.line.scheme.map(|span| self.text(span))
    }

    /// The authority of an absolute-form target, or of CONNECT, as sent.
    pub fn authority(&self) -> Option<&[u8]> {
        self.line.authority.map(|span| self.text(span))
    }

    /// Path and arguments, decoded and resolved; see [`Uri`].
    pub fn uri(&self, merge_slashes: bool) -> Result<Uri, InvalidUri> {
        Uri::parse(&self.request_uri(), merge_slashes)
    }

    /// Whom the request is for: the target's authority, or else the Host field (RFC 9112 §3.2.2).
    ///
    /// The Host field itself, as sent, is `fields().first("host")`.
    pub fn host(&self) -> Option<&Host> {
        self.host.as_ref()
    }

    /// The fields, without the ignored ones.
    pub fn fields(&self) -> &Fields {
        &self.fields
    }

    /// Field lines that were dropped because of their names (`ignore_invalid_headers`), for the log.
    pub fn ignored(&self) -> impl Iterator<Item = &[u8]> {
        self.ignored.iter().map(|&span| self.text(span))
    }

    /// Where the body ends.
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// Whether the client wants to go on using the connection.
    pub fn keeps_alive(&self) -> bool {
        self.line.method != Method::Connect && keeps_alive(self.line.version, &self.fields)
    }

    /// Whether the client waits for `100 Continue` before it sends the body (RFC 9110 §10.1.1).
    pub fn expects_continue(&self) -> bool {
        self.line.version == Version::Http11
            && self.fields.first("expect").is_some_and(|v| v.eq_ignore_ascii_case(b"100-continue"))
    }

    /// Length of the head in bytes, from the method to the empty line.
    pub fn raw_len(&self) -> usize {
        self.fields.buf().len()
    }

    /// Copies the bytes to memory of their own, so that a head kept for long does not keep a read buffer alive.
    pub fn detach(&mut self) {
        self.fields.detach();
        if let Some(host) = &mut self.host {
            host.detach();
        }
    }

    fn text(&self, span: Span) -> &[u8] {
        span.of(self.fields.buf())
    }
}

/// Reads one request head after the other from a growing buffer.
///
/// Between two calls of [`parse`](Self::parse) bytes may be added to the end of the buffer, and nothing else done to it.
#[derive(Debug, Default)]
pub struct RequestParser {
    lines: Lines,
    room: Option<Room>,
    line: Option<RequestLine>,
    entries: Vec<Entry>,
    ignored: Vec<Span>,
    /// Which of [`UNIQUE`] have come, by index.
    seen: u16,
    /// The authority that counts; checked already.
    host: Option<Span>,
}

impl RequestParser {
    /// A parser that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a head from the front of `input` once it is complete; `Ok(None)` asks for more bytes.
    ///
    /// Empty lines before the request are skipped (RFC 9112 §2.2). After an error `input` still holds the head, and
    /// [`request_line`](Self::request_line) and [`bad_line`](Self::bad_line) tell what the log wants to know.
    pub fn parse(
        &mut self,
        input: &mut BytesMut,
        limits: &Limits,
    ) -> Result<Option<RequestHead>, HeadError> {
        if self.lines.untouched() {
            let blank = input.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
            input.advance(blank);
        }
        while let Some(line) = self.next_line(input, limits)? {
            match &self.line {
                None => {
                    self.on_request_line(input, line)?;
                    if self.version() == Version::Http09 {
                        return self.finish(input, line.next).map(Some);
                    }
                }
                Some(_) if line.text.of(input).is_empty() => {
                    return self.finish(input, line.next).map(Some);
                }
                Some(_) => self.on_field(input, line, limits)?,
            }
        }
        Ok(None)
    }

    /// Whether a part of a head was seen: a connection that ends now ends in the middle of a request.
    pub fn in_head(&self) -> bool {
        !self.lines.untouched()
    }

    /// The request line, as soon as it is known to be one.
    pub fn request_line<'a>(&self, input: &'a [u8]) -> Option<&'a [u8]> {
        self.line.map(|line| line.text.of(input))
    }

    /// The line, or the part of it that has arrived, at which parsing stopped; without its end.
    pub fn bad_line<'a>(&self, input: &'a [u8]) -> &'a [u8] {
        self.lines.last_text(input)
    }

    fn version(&self) -> Version {
        self.line.map_or(Version::Http11, |line| line.version)
    }

    /// The next complete line, if the limits allow it as far as it has come.
    fn next_line(&mut self, input: &[u8], limits: &Limits) -> Result<Option<Line>, HeadError> {
        let too_long = match self.line {
            Some(_) => HeadError::HeaderTooLarge,
            None if input.first().is_some_and(|&b| !is_method_byte(b)) => {
                return Err(HeadError::InvalidMethod);
            }
            None => HeadError::UriTooLong,
        };
        let room = self.room.get_or_insert_with(|| Room::new(limits));
        match self.lines.next(input) {
            Some(line) if room.take(line.len(), limits) => Ok(Some(line)),
            None if input.len() - self.lines.start() < room.longest(limits) => Ok(None),
            _ => Err(too_long),
        }
    }

    fn on_request_line(&mut self, input: &[u8], line: Line) -> Result<(), HeadError> {
        let parsed = RequestLine::parse(input, line.text)?;
        self.line = Some(parsed);
        if let Some(authority) = parsed.authority {
            host::check(authority.of(input)).map_err(|_| HeadError::InvalidHostInLine)?;
            self.host = Some(authority);
        }
        Ok(())
    }

    fn on_field(&mut self, input: &[u8], line: Line, limits: &Limits) -> Result<(), HeadError> {
        let text = line.text.of(input);
        let entry = split_line(text).ok_or(HeadError::InvalidHeader)?;
        let kind = NameKind::of(entry.name.of(text));
        if kind == NameKind::Broken || !is_clean_value(&text[entry.name.end()..]) {
            return Err(HeadError::InvalidHeader);
        }
        let valid = kind == NameKind::Plain
            || (kind == NameKind::Underscore && limits.underscores_in_headers);
        if !valid && limits.ignore_invalid_headers {
            self.ignored.push(line.text);
            return Ok(());
        }
        if kind == NameKind::NoToken {
            return Err(HeadError::InvalidHeader);
        }
        if self.entries.len() >= limits.max_headers {
            return Err(HeadError::TooManyHeaders);
        }
        let base = line.text.start();
        let entry = Entry { name: entry.name.shift(base), value: entry.value.shift(base) };
        self.note(input, entry)?;
        self.entries.push(entry);
        Ok(())
    }

    /// Refuses the second of what may be there but once, and finds the host.
    fn note(&mut self, input: &[u8], entry: Entry) -> Result<(), HeadError> {
        let name = entry.name.of(input);
        let Some(index) =
            UNIQUE.iter().position(|unique| name.eq_ignore_ascii_case(unique.as_bytes()))
        else {
            return Ok(());
        };
        let is_host = index == 0;
        if self.seen & (1 << index) != 0 {
            return Err(if is_host {
                HeadError::DuplicateHost
            } else {
                HeadError::DuplicateHeader
            });
        }
        self.seen |= 1 << index;
        if is_host {
            host::check(entry.value.of(input)).map_err(|_| HeadError::InvalidHost)?;
            self.host.get_or_insert(entry.value);
        }
        Ok(())
    }

    /// Takes `len` bytes as a head. The parser is new afterwards.
    fn finish(&mut self, input: &mut BytesMut, len: usize) -> Result<RequestHead, HeadError> {
        let line = self.line.ok_or(HeadError::InvalidRequest)?;
        let has_host = self.seen & 1 != 0;
        if !has_host && line.version == Version::Http11 {
            return Err(HeadError::MissingHost);
        }
        let framing = framing_of_request(line.version, FieldIter::new(input, &self.entries))
            .map_err(HeadError::Framing)?;
        let done = std::mem::take(self);
        let raw = input.split_to(len).freeze();
        let host = done.host.map(|span| Host::parse(&raw.slice(span.start()..span.end())));
        let host = host.transpose().map_err(|_| HeadError::InvalidHost)?;
        Ok(RequestHead {
            line,
            fields: Fields::new(raw, done.entries),
            ignored: done.ignored,
            host,
            framing,
        })
    }
}

/// Fields that nginx refuses to see twice; Host first.
const UNIQUE: [&str; 12] = [
    "host",
    "content-length",
    "transfer-encoding",
    "expect",
    "authorization",
    "proxy-authorization",
    "content-range",
    "if-modified-since",
    "if-unmodified-since",
    "if-match",
    "if-none-match",
    "if-range",
];

/// How much of nginx's buffers for one head is left. A line never spans two of them.
#[derive(Clone, Copy, Debug)]
struct Room {
    free: usize,
    spare: usize,
}

impl Room {
    fn new(limits: &Limits) -> Self {
        Self { free: limits.client_header_buffer_size.min(MAX_HEAD), spare: limits.large_buffers }
    }

    /// How long the next line may be, its end included.
    fn longest(&self, limits: &Limits) -> usize {
        match self.spare > 0 && self.free < limits.large_buffer_size {
            true => limits.large_buffer_size,
            false => self.free,
        }
    }

    /// Makes room for a line of `len` bytes; false if there is none.
    fn take(&mut self, len: usize, limits: &Limits) -> bool {
        if len > self.longest(limits) {
            return false;
        }
        match self.free.checked_sub(len) {
            Some(free) => self.free = free,
            None => *self = Self { free: limits.large_buffer_size - len, spare: self.spare - 1 },
        }
        true
    }
}
