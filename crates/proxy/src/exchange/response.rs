//! The answer: from what a handler wants to say to the bytes that nginx would send.
//!
//! The order of fields is nginx's: status line, Server, Date, Content-Type, Content-Length,
//! Last-Modified, an absolute Location, Transfer-Encoding, Connection, Keep-Alive, and then
//! everything else as it was added.

use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use tokio::time::sleep_until;
use wssgate_config::model::{ListenAddr, Location, ServerTokens};
use wssgate_http1::{
    Fields, Method, Version, encode_chunk_head, encode_last_chunk, reason, write_end, write_field,
    write_status_line,
};

use crate::clock;
use crate::exchange::client::{Client, Gone};
use crate::exchange::date;
use crate::exchange::headers;
use crate::exchange::request::Request;
use crate::site::Phase;

/// The nginx version whose behaviour we follow, and which we call ourselves by.
pub const NGINX_VERSION: &str = "1.31.5";

/// How much body is collected before it is written.
const COLLECT: usize = 8 * 1024;

/// What a handler answers: the head, before the rules of the location and the protocol apply.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// Status and reason as an upstream sent them, such as `404 Nothing Here`.
    pub status_text: Option<Bytes>,
    /// `Content-Type`.
    pub content_type: Option<Bytes>,
    /// Length of the body, when it is known.
    pub length: Option<u64>,
    /// `Last-Modified`, in seconds since 1970.
    pub last_modified: Option<i64>,
    /// All other fields, in order. A `Server` or `Date` among them replaces ours; a `Location`
    /// that begins with a slash is made absolute.
    pub fields: Vec<(Bytes, Bytes)>,
    /// A `Location` that begins with a slash stays as it is: an upstream sent it so.
    pub relative_location: bool,
    /// Whether trailers may follow, so that the body is sent in chunks.
    pub trailers: bool,
    /// Whether ranges may be asked for (`Accept-Ranges`): added behind `add_header`'s fields.
    pub accept_ranges: bool,
    /// `Content-Range`.
    pub content_range: Option<Bytes>,
}

impl Reply {
    /// An answer with nothing but a status.
    pub fn new(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    /// The first field called `name` in [`Reply::fields`].
    pub fn field(&self, name: &str) -> Option<&Bytes> {
        let found = self.fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name.as_bytes()));
        found.map(|(_, value)| value)
    }

    /// Adds a field.
    pub fn push(&mut self, name: &'static str, value: impl Into<Bytes>) {
        self.fields.push((Bytes::from_static(name.as_bytes()), value.into()));
    }

    /// Puts fields before the others; a Content-Type among them wins, as in nginx.
    fn carry(&mut self, mut fields: Vec<(Bytes, Bytes)>) {
        let is_type = |(name, _): &(Bytes, Bytes)| name.eq_ignore_ascii_case(b"content-type");
        if let Some(at) = fields.iter().position(is_type) {
            self.content_type = Some(fields.remove(at).1);
        }
        self.fields.splice(0..0, fields);
    }

    /// Takes all fields called `name` out of [`Reply::fields`].
    pub fn remove(&mut self, name: &str) {
        self.fields.retain(|(n, _)| !n.eq_ignore_ascii_case(name.as_bytes()));
    }
}

/// How the body of the answer is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    /// The head was not sent yet.
    NotBegun,
    /// There is no body, whatever the handler sends (HEAD, 204, 304).
    Empty,
    /// As it comes: with a length, or until the connection closes.
    Plain,
    /// In chunks.
    Chunked,
}

/// The way back to the client for one request.
pub struct Responder {
    client: Rc<Client>,
    framing: Framing,
    /// Encoded, not yet written.
    pending: BytesMut,
    send_timeout: Duration,
    /// Bytes per second, and how many are free.
    rate: Option<(u64, u64)>,
    rate_start: Instant,
    body_len: u64,
    expected: Option<u64>,
}

impl Responder {
    /// Answers on `client`.
    pub(crate) fn new(client: Rc<Client>) -> Self {
        Self {
            client,
            framing: Framing::NotBegun,
            pending: BytesMut::new(),
            send_timeout: Duration::from_secs(60),
            rate: None,
            rate_start: Instant::now(),
            body_len: 0,
            expected: None,
        }
    }

    /// Whether the head was given; from then on no other status can be answered.
    pub fn begun(&self) -> bool {
        self.framing != Framing::NotBegun
    }

    /// Whether the answer has no body whatever is passed to [`Responder::body`].
    pub fn is_empty(&self) -> bool {
        self.framing == Framing::Empty
    }

    /// Resolves when the client goes away. What it sends meanwhile is kept for later.
    pub async fn closed(&self) {
        self.client.closed().await;
    }

    /// Makes the head. It is written with the first of the body, or by [`Responder::flush`].
    ///
    /// Adds Server, Date, `add_header` and `expires`, chooses between length, chunks and close.
    pub fn head(&mut self, request: &mut Request, mut reply: Reply) {
        assert_eq!(self.framing, Framing::NotBegun, "a request has one answer");
        let generation = request.generation.clone();
        let location = &generation.http().locations[request.place.location.0];
        if request.response.error_status != 0 {
            reply.status = request.response.error_status;
            reply.status_text = None;
        }
        if request.site.phase() >= Phase::Draining {
            request.fate.keepalive = false;
        }
        reply.carry(std::mem::take(&mut request.response.carried_fields));
        reply.carry(std::mem::take(&mut request.response.special_fields));
        if let Some(location) = request.response.redirect.take()
            && reply.field("location").is_none()
        {
            reply.push("Location", location);
        }
        headers::apply(request, &mut reply, location);
        self.send_timeout = location.settings.send_timeout;
        self.framing = choose_framing(request, &mut reply, location);
        self.expected = reply.length;
        self.limit_rate(request, location);
        request.response.status = reply.status;
        request.response.head_sent = true;
        if request.arrival.version == Version::Http09 {
            return;
        }
        let head =
            Head { request, reply: &reply, location, chunked: self.framing == Framing::Chunked };
        let fields = head.fields();
        request.response.head_len =
            write_head(&mut self.pending, request, &reply, location, &fields);
        request.response.fields = fields;
    }

    /// Sends a piece of the body. Small pieces are collected: call [`Responder::flush`] before
    /// waiting for more.
    ///
    /// # Errors
    /// When the client is gone; the exchange is over then.
    pub async fn body(&mut self, piece: Bytes) -> Result<(), Gone> {
        if piece.is_empty() || self.framing == Framing::Empty {
            return Ok(());
        }
        self.body_len += piece.len() as u64;
        if self.framing == Framing::Chunked {
            encode_chunk_head(&mut self.pending, piece.len() as u64);
        }
        if self.rate.is_some() {
            return self.limited(piece).await;
        }
        self.put(piece).await
    }

    async fn put(&mut self, piece: Bytes) -> Result<(), Gone> {
        let chunked = self.framing == Framing::Chunked;
        if self.pending.len() + piece.len() <= COLLECT {
            self.pending.put_slice(&piece);
        } else {
            let first = self.pending.split().freeze();
            self.client.write(first, piece, self.send_timeout).await?;
        }
        if chunked {
            self.pending.put_slice(b"\r\n");
        }
        Ok(())
    }

    /// Writes what was collected.
    ///
    /// # Errors
    /// When the client is gone.
    pub async fn flush(&mut self) -> Result<(), Gone> {
        let pending = self.pending.split().freeze();
        self.client.write(pending, Bytes::new(), self.send_timeout).await
    }

    /// Ends the answer: the last chunk, `add_trailer`'s fields and those of the upstream.
    ///
    /// # Errors
    /// When the client is gone.
    pub async fn finish(
        &mut self,
        request: &mut Request,
        trailers: Option<&Fields>,
    ) -> Result<(), Gone> {
        if self.framing == Framing::Chunked {
            headers::make_trailers(request, trailers);
            let list: Fields = request.response.trailers.iter().cloned().collect();
            if encode_last_chunk(&mut self.pending, &list).is_err() {
                self.pending.put_slice(b"0\r\n\r\n");
            }
        }
        self.flush().await?;
        let whole =
            self.framing != Framing::Plain || self.expected.is_none_or(|len| len == self.body_len);
        if !whole {
            // The client waits for bytes that will never come.
            request.fate.keepalive = false;
        }
        request.response.complete = whole;
        Ok(())
    }

    fn limit_rate(&mut self, request: &Request, location: &Location) {
        let rate = headers::limit_rate(request, location);
        if rate > 0 {
            let after = location.settings.limit_rate_after.as_ref();
            let free = after.and_then(|text| headers::parse_size(&request.text(text))).unwrap_or(0);
            self.rate = Some((rate, free));
            self.rate_start = Instant::now();
        }
    }

    /// Sends a piece no faster than `limit_rate` allows.
    async fn limited(&mut self, mut piece: Bytes) -> Result<(), Gone> {
        let (rate, free) = self.rate.unwrap_or((u64::MAX, 0));
        let mut sent = self.body_len - piece.len() as u64;
        let chunked = self.framing == Framing::Chunked;
        while !piece.is_empty() {
            let elapsed = self.rate_start.elapsed().as_secs();
            let allowed =
                (rate.saturating_mul(elapsed + 1)).saturating_add(free).saturating_sub(sent);
            if allowed == 0 {
                self.flush().await?;
                let over = sent.saturating_sub(free);
                let due = self.rate_start + Duration::from_millis(over * 1000 / rate + 1);
                tokio::select! {
                    () = sleep_until(due.into()) => {}
                    () = self.client.closed() => return Err(Gone::Closed),
                }
                continue;
            }
            let now = piece
                .split_to(usize::try_from(allowed).map_or(piece.len(), |n| n.min(piece.len())));
            sent += now.len() as u64;
            let first = self.pending.split().freeze();
            self.client.write(first, now, self.send_timeout).await?;
        }
        if chunked {
            self.pending.put_slice(b"\r\n");
        }
        Ok(())
    }
}

/// Decides how the body ends, and whether the connection can be kept; nginx's chunked filter.
fn choose_framing(request: &mut Request, reply: &mut Reply, location: &Location) -> Framing {
    if request.arrival.version == Version::Http09 {
        request.fate.keepalive = false;
        return Framing::Plain;
    }
    if reply.status == 204 {
        reply.content_type = None;
        reply.last_modified = None;
        reply.length = None;
    }
    if !matches!(reply.status, 200 | 206 | 304) {
        reply.last_modified = None;
    }
    if request.target.method == Method::Head || matches!(reply.status, 100..=199 | 204 | 304) {
        return Framing::Empty;
    }
    let in_chunks =
        request.arrival.version == Version::Http11 && location.settings.chunked_transfer_encoding;
    match reply.length {
        Some(_) if !(reply.trailers && in_chunks) => Framing::Plain,
        _ if in_chunks => {
            reply.length = None;
            Framing::Chunked
        }
        _ => {
            request.fate.keepalive = false;
            Framing::Plain
        }
    }
}

/// What decides about the fields of a head.
struct Head<'a> {
    request: &'a Request,
    reply: &'a Reply,
    location: &'a Location,
    chunked: bool,
}

impl Head<'_> {
    /// All fields but Server and Date, in nginx's order.
    fn fields(&self) -> Vec<(Bytes, Bytes)> {
        let reply = self.reply;
        let mut fields = Vec::with_capacity(reply.fields.len() + 6);
        let mut push = |name: &'static str, value: Bytes| {
            fields.push((Bytes::from_static(name.as_bytes()), value))
        };
        if let Some(content_type) = reply.content_type.as_ref().filter(|text| !text.is_empty()) {
            push("Content-Type", content_type.clone());
        }
        if let Some(length) = reply.length {
            push("Content-Length", length.to_string().into());
        }
        if let Some(time) = reply.last_modified {
            push("Last-Modified", date::format(time).into());
        }
        let absolute = self.absolute_location();
        if let Some(location) = &absolute {
            push("Location", location.clone());
        }
        if self.chunked {
            push("Transfer-Encoding", Bytes::from_static(b"chunked"));
        }
        push("Connection", Bytes::from_static(self.connection()));
        if let Some(timeout) = self.keepalive_timeout() {
            push("Keep-Alive", format!("timeout={}", timeout.as_secs()).into());
        }
        let mut relative = absolute.is_some();
        for (name, value) in &reply.fields {
            if relative && name.eq_ignore_ascii_case(b"location") {
                relative = false;
                continue;
            }
            fields.push((name.clone(), value.clone()));
        }
        fields
    }

    fn connection(&self) -> &'static [u8] {
        match (self.reply.status, self.request.fate.keepalive) {
            (101, _) => b"upgrade",
            (_, true) => b"keep-alive",
            (_, false) => b"close",
        }
    }

    fn keepalive_timeout(&self) -> Option<Duration> {
        let kept = self.request.fate.keepalive && self.reply.status != 101;
        self.location.settings.keepalive_header.filter(|_| kept)
    }

    /// `absolute_redirect`: scheme, host and port before a Location that begins with a slash.
    fn absolute_location(&self) -> Option<Bytes> {
        let location = self.reply.field("location").filter(|value| value.first() == Some(&b'/'))?;
        let settings = &self.location.settings;
        if !settings.absolute_redirect || self.reply.relative_location {
            return None;
        }
        let connection = &self.request.connection;
        let tls = connection.is_tls();
        let mut url = BytesMut::from(if tls { &b"https://"[..] } else { b"http://" });
        if settings.server_name_in_redirect {
            url.put_slice(&self.request.server().name);
        } else if !self.request.arrival.host.is_empty() {
            url.put_slice(&self.request.arrival.host);
        } else {
            url.put_slice(local_host(&connection.local).as_bytes());
        }
        let default_port = if tls { 443 } else { 80 };
        if let ListenAddr::Ip(local) = &connection.local
            && settings.port_in_redirect
            && local.port() != default_port
        {
            url.put_slice(format!(":{}", local.port()).as_bytes());
        }
        url.put_slice(location);
        Some(url.freeze())
    }
}

fn local_host(local: &ListenAddr) -> String {
    match local {
        ListenAddr::Ip(std::net::SocketAddr::V4(address)) => address.ip().to_string(),
        ListenAddr::Ip(std::net::SocketAddr::V6(address)) => format!("[{}]", address.ip()),
        ListenAddr::Unix(path) => format!("unix:{}", path.display()),
    }
}

/// Writes a head and gives its length. A value that would break the head is left out.
fn write_head(
    out: &mut BytesMut,
    request: &Request,
    reply: &Reply,
    location: &Location,
    fields: &[(Bytes, Bytes)],
) -> u64 {
    let start = out.len();
    write_status(out, reply);
    let has = |name: &str| reply.field(name).is_some();
    let mut put = |name: &[u8], value: &[u8]| {
        // A line end behind a value written in the configuration is harmless without it.
        if write_field(out, name, value.trim_ascii_end()).is_err() {
            let name = name.escape_ascii();
            request.log(
                wssgate_config::model::LogLevel::Error,
                format_args!("invalid response header \"{name}\" left out"),
            );
        }
    };
    if !has("server") {
        put(b"Server", server_name(&location.settings.server_tokens).as_bytes());
    }
    if !has("date") {
        put(b"Date", clock::http_date(clock::now()).as_bytes());
    }
    for (name, value) in fields {
        put(name, value);
    }
    write_end(out);
    (out.len() - start) as u64
}

/// The status line; as in nginx a status without a phrase ends in a space.
fn write_status(out: &mut BytesMut, reply: &Reply) {
    let text = reply.status_text.as_deref().filter(|text| text.len() >= 3);
    let phrase = match text {
        Some(text) => text[3..].strip_prefix(b" ").unwrap_or_default(),
        None => reason(reply.status).as_bytes(),
    };
    if write_status_line(out, reply.status, phrase).is_err() {
        out.put_slice(format!("HTTP/1.1 {} \r\n", reply.status).as_bytes());
    }
}

/// The value of `Server`, and the last line of built-in pages.
pub(crate) fn server_name(tokens: &ServerTokens) -> String {
    match tokens {
        ServerTokens::On => format!("nginx/{NGINX_VERSION}"),
        ServerTokens::Off => "nginx".to_owned(),
        ServerTokens::Build => {
            format!("nginx/{NGINX_VERSION} (wssgate {})", env!("CARGO_PKG_VERSION"))
        }
    }
}
