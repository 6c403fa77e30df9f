//! Request heads from clients.
//!
//! A head is read line by line, and each line is judged when it is complete: what a client did wrong is known as early
//! as nginx knows it, and nothing is read twice.

use bytes::{Buf, Bytes, BytesMut};
use thiserror::Error;

use crate::fields::{Entry, FieldIter, Fields, NameKind, is_clean_value, split_line};
use crate::framing::{Framing, FramingError, framing_of_request};
use crate::host::{self, Host};
use crate::limits::{Limits, Room};
use crate::lines::{Line, Lines, Span};
use crate::method::Version;
use crate::request_head::RequestHead;
use crate::request_line::{RequestLine, is_method_byte};

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

    /// What nginx was reading when it saw this.
    pub fn place(self) -> &'static str {
        match self {
            Self::InvalidMethod
            | Self::InvalidRequest
            | Self::InvalidVersion
            | Self::InvalidHttp09Method
            | Self::UriTooLong
            | Self::InvalidHostInLine => "client request line",
            _ => "client request headers",
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

/// Reads one request head after the other from a growing buffer.
///
/// Between two calls of [`parse`](Self::parse) bytes may be added to the end of the buffer, and nothing else done to
/// it.
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
    /// How far the head could be read, in bytes; whole lines.
    good: usize,
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
            // Whatever remains untouched after this was nothing but line ends, so those of a later
            // packet are skipped as well.
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
                    self.good = line.next;
                    return self.finish(input, line.next).map(Some);
                }
                Some(_) => {
                    let judged = self.on_field(input, line, limits);
                    // As in nginx a line counts that can be taken apart, whatever it says.
                    if judged != Err(HeadError::InvalidHeader) {
                        self.good = line.next;
                    }
                    judged?;
                }
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

    /// What could be read of a head that is not complete or was refused, for the log: the request line and
    /// the fields before the bad one, without a body. `None` when not even the line was good.
    pub fn part(&self, input: &[u8]) -> Option<RequestHead> {
        let line = self.line?;
        let raw = Bytes::copy_from_slice(input.get(..self.good)?);
        debug_assert!(line.text.end() <= raw.len(), "a line is good as soon as there is one");
        let within = |span: &Span| span.end() <= raw.len();
        let host = self.host.filter(within).map(|span| raw.slice(span.start()..span.end()));
        let ignored = self.ignored.iter().copied().filter(within).collect();
        // None behind what was good: a field is added when it was judged.
        let entries = self.entries.iter().copied().filter(|entry| within(&entry.value)).collect();
        Some(RequestHead {
            line,
            ignored,
            host: host.and_then(|host| Host::parse(&host).ok()),
            fields: Fields::new(raw, entries),
            framing: Framing::None,
        })
    }

    fn version(&self) -> Version {
        self.line.map_or(Version::Http11, |line| line.version)
    }

    /// The next complete line, if the limits allow it as far as it has come.
    fn next_line(&mut self, input: &[u8], limits: &Limits) -> Result<Option<Line>, HeadError> {
        let too_long = match self.line {
            Some(_) => HeadError::HeaderTooLarge,
            // Before the line is complete: what speaks TLS or something else to this port may never
            // send an LF, and nginx answers 400 to its first byte.
            None if input.first().is_some_and(|&b| !is_method_byte(b)) => {
                return Err(HeadError::InvalidMethod);
            }
            None => HeadError::UriTooLong,
        };
        let room = self.room.get_or_insert_with(|| Room::new(limits));
        let found = self.lines.next(input);
        let pending = input.len() - self.lines.start();
        match found {
            Some(line) if room.take(line.len(), limits) => Ok(Some(line)),
            // A line that fills the room and has no end yet can only become longer.
            None if pending == 0 || pending < room.longest(limits) => Ok(None),
            _ => Err(too_long),
        }
    }

    fn on_request_line(&mut self, input: &[u8], line: Line) -> Result<(), HeadError> {
        let parsed = RequestLine::parse(input, line.text)?;
        self.line = Some(parsed);
        self.good = line.next;
        self.entries.reserve(USUAL_FIELDS);
        if let Some(authority) = parsed.authority {
            // nginx checks the host of an absolute-form target at once, so a bad one is named
            // before any field is read.
            host::check(authority.of(input)).map_err(|_| HeadError::InvalidHostInLine)?;
            self.host = Some(authority);
        }
        Ok(())
    }

    fn on_field(&mut self, input: &[u8], line: Line, limits: &Limits) -> Result<(), HeadError> {
        let text = line.text.of(input);
        let entry = split_line(text).ok_or(HeadError::InvalidHeader)?;
        let kind = NameKind::of(entry.name.of(text));
        // Not even `ignore_invalid_headers` forgives these, in nginx neither. A space before the
        // colon must be 400 (RFC 9112 §5.1), and a folded line, which begins with one, ends up here
        // or without a colon above (§5.2).
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
        // Ignored lines do not count, as in nginx.
        if self.entries.len() >= limits.max_headers {
            return Err(HeadError::TooManyHeaders);
        }
        let base = line.text.start();
        let entry = Entry { name: entry.name.shift(base), value: entry.value.shift(base) };
        let noted = self.note(input, entry);
        // The log may tell which host was refused; a second field is not looked at.
        if matches!(noted, Ok(()) | Err(HeadError::InvalidHost)) {
            self.entries.push(entry);
        }
        noted
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
        // For Host and what frames the body this is where two readers would begin to disagree (RFC
        // 9112 §3.2, §6.3).
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
            // An authority in the request line was there first, and a server must ignore Host
            // beside it (RFC 9112 §3.2.2). What it ignores must be valid all the same (§3.2).
            self.host.get_or_insert(entry.value);
        }
        Ok(())
    }

    /// Takes `len` bytes as a head. The parser is new afterwards.
    fn finish(&mut self, input: &mut BytesMut, len: usize) -> Result<RequestHead, HeadError> {
        let line = self.line.ok_or(HeadError::InvalidRequest)?;
        let has_host = self.seen & 1 != 0;
        // Even where the target names the host: RFC 9112 §3.2 knows no exception for absolute-form.
        if !has_host && line.version == Version::Http11 {
            return Err(HeadError::MissingHost);
        }
        let framing = framing_of_request(line.version, FieldIter::new(input, &self.entries))
            .map_err(HeadError::Framing)?;
        // Not before everything was judged: after an error the log still asks for the line.
        let done = std::mem::take(self);
        let raw = input.split_to(len).freeze();
        let host = done.host.map(|span| Host::parse(&raw.slice(span.start()..span.end())));
        // Was checked when its line came; parsed only now, because it shares memory that must not
        // move any more.
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

/// Room for the fields of a browser's request, so that the index is allocated once.
const USUAL_FIELDS: usize = 16;

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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
