//! A request head, once it is complete and found valid.

use bytes::Bytes;

use crate::fields::Fields;
use crate::framing::{Framing, keeps_alive};
use crate::host::Host;
use crate::lines::Span;
use crate::method::{Method, Version};
use crate::request_line::RequestLine;
use crate::uri::{InvalidUri, Uri};

/// A complete, valid request head. Its bytes are shared with the buffer it was read from.
#[derive(Clone, Debug)]
pub struct RequestHead {
    pub(crate) line: RequestLine,
    pub(crate) fields: Fields,
    pub(crate) ignored: Vec<Span>,
    pub(crate) host: Option<Host>,
    pub(crate) framing: Framing,
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
        // What follows CONNECT's head may be meant for the tunnel already (RFC 9110 §9.3.6) and
        // must not be read as a request.
        self.line.method != Method::Connect && keeps_alive(self.line.version, &self.fields)
    }

    /// Whether the client waits for `100 Continue` before it sends the body (RFC 9110 §10.1.1).
    pub fn expects_continue(&self) -> bool {
        // An HTTP/1.0 client's expectation must be ignored (RFC 9110 §10.1.1): it would take the
        // 100 for the response.
        self.line.version == Version::Http11
            && self.fields.first("expect").is_some_and(|v| v.eq_ignore_ascii_case(b"100-continue"))
    }

    /// Length of the head in bytes, from the method to the empty line.
    pub fn raw_len(&self) -> usize {
        self.fields.buf().len()
    }

    /// The request line alone, as if nothing behind it had been read.
    #[must_use]
    pub fn into_line(self) -> Self {
        let raw = self.fields.buf();
        let text = self.line.text.end();
        let end = raw[text..].iter().position(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        let fields = Fields::new(raw.slice(..text + end), Vec::new());
        Self { fields, ignored: Vec::new(), host: None, framing: Framing::None, ..self }
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
