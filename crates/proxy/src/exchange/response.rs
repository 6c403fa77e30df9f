//! The answer: from what a handler wants to say to what the outlet of the protocol is given.

use std::future::poll_fn;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use tokio::time::error::Elapsed;
use tokio::time::{sleep_until, timeout};
use wssgate_config::model::{ListenAddr, Location, LogLevel, ServerTokens};
use wssgate_config::value;
use wssgate_http1::{Fields, Method, write_field};

use crate::clock;
use crate::exchange::headers;
use crate::exchange::outlet::{Framing, Gone, Outlet, Presence};
use crate::exchange::request::Request;
use crate::site::Phase;

/// The nginx version whose behaviour we follow, and which we call ourselves by.
pub const NGINX_VERSION: &str = "1.31.5";

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
    /// A `Location` that was made absolute, which stands before the other fields.
    pub location: Option<Bytes>,
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

/// The way back to the client for one request: what is answered, and how fast.
pub struct Responder {
    outlet: Box<dyn Outlet>,
    client: Rc<dyn Presence>,
    /// How the body is carried; `None` before the head was given.
    framing: Option<Framing>,
    send_timeout: Duration,
    /// Bytes per second, and how many are free.
    rate: Option<(u64, u64)>,
    rate_start: Instant,
    body_len: u64,
}

impl Responder {
    /// Answers `client` through `outlet`.
    pub(crate) fn new(outlet: impl Outlet + 'static, client: Rc<dyn Presence>) -> Self {
        Self {
            outlet: Box::new(outlet),
            client,
            framing: None,
            send_timeout: Duration::from_secs(60),
            rate: None,
            rate_start: Instant::now(),
            body_len: 0,
        }
    }

    /// Whether the head was given; from then on no other status can be answered.
    pub fn begun(&self) -> bool {
        self.framing.is_some()
    }

    /// Whether the answer has no body whatever is passed to [`Responder::body`].
    pub fn is_empty(&self) -> bool {
        self.framing == Some(Framing::Empty)
    }

    /// Whom the answer is for.
    pub(crate) fn client(&self) -> Rc<dyn Presence> {
        Rc::clone(&self.client)
    }

    /// Resolves when the client goes away. What it sends meanwhile is kept for later.
    pub async fn closed(&self) {
        poll_fn(|cx| self.client.poll_closed(cx)).await;
    }

    /// Makes the head. It is written with the first of the body, or by [`Responder::flush`].
    ///
    /// Adds Server, Date, `add_header` and `expires`; the outlet chooses how the body is carried.
    pub fn head(&mut self, request: &mut Request, mut reply: Reply) {
        assert!(self.framing.is_none(), "a request has one answer");
        let generation = request.generation.clone();
        let location = &generation.http().locations[request.route.location.0];
        if request.response.error_status != 0 {
            reply.status = request.response.error_status;
            reply.status_text = None;
        }
        // The answer says `close`, so that the client does not send another request to a connection
        // that ends (RFC 9112 §9.6).
        if request.site.phase() >= Phase::Draining {
            request.fate.keepalive = false;
        }
        reply.carry(std::mem::take(&mut request.response.carried_fields));
        reply.carry(std::mem::take(&mut request.response.special_fields));
        let cookies = std::mem::take(&mut request.response.cookies).into_iter();
        let name = Bytes::from_static(b"Set-Cookie");
        reply.carry(cookies.map(|cookie| (name.clone(), cookie)).collect());
        if let Some(location) = request.response.redirect.take()
            && reply.field("location").is_none()
        {
            reply.push("Location", location);
        }
        headers::apply(request, &mut reply, location);
        leave_out(&mut reply);
        make_location_absolute(request, &mut reply, location);
        self.send_timeout = location.settings.send_timeout;
        self.limit_rate(request, location);
        request.response.status = reply.status;
        request.response.head_sent = true;
        self.framing = Some(self.outlet.head(request, reply));
    }

    /// Sends a piece of the body. Small pieces are collected: call [`Responder::flush`] before
    /// waiting for more.
    ///
    /// # Errors
    /// When the client is gone; the exchange is over then.
    pub async fn body(&mut self, piece: Bytes) -> Result<(), Gone> {
        if piece.is_empty() || self.is_empty() {
            return Ok(());
        }
        self.body_len += piece.len() as u64;
        if self.rate.is_some() {
            return self.limited(piece).await;
        }
        self.give(piece).await
    }

    /// Gives a piece to the outlet, and waits until it can take another one.
    async fn give(&mut self, piece: Bytes) -> Result<(), Gone> {
        self.outlet.body(piece);
        if !self.outlet.is_full() {
            return Ok(());
        }
        // Not to the last byte: what ends the piece goes along with what follows.
        while self.outlet.is_full() {
            self.write_some().await?;
        }
        self.hand_on().await
    }

    /// Writes what was collected.
    ///
    /// # Errors
    /// When the client is gone.
    pub async fn flush(&mut self) -> Result<(), Gone> {
        while !self.outlet.is_written() {
            self.write_some().await?;
        }
        self.hand_on().await
    }

    async fn write_some(&mut self) -> Result<(), Gone> {
        let written = timeout(self.send_timeout, poll_fn(|cx| self.outlet.poll_write(cx))).await;
        self.in_time(written)
    }

    async fn hand_on(&mut self) -> Result<(), Gone> {
        let flushed = timeout(self.send_timeout, poll_fn(|cx| self.outlet.poll_flush(cx))).await;
        self.in_time(flushed)
    }

    fn in_time(&mut self, result: Result<Result<(), Gone>, Elapsed>) -> Result<(), Gone> {
        result.unwrap_or_else(|_| {
            self.outlet.on_timeout();
            Err(Gone::Timeout)
        })
    }

    /// Ends the answer: the mark of its end, with `add_trailer`'s fields and those of the upstream.
    ///
    /// # Errors
    /// When the client is gone.
    pub async fn finish(
        &mut self,
        request: &mut Request,
        trailers: Option<&Fields>,
    ) -> Result<(), Gone> {
        if self.framing == Some(Framing::Delimited) {
            headers::make_trailers(request, trailers);
            leave_out_invalid_trailers(request);
            let list: Fields = request.response.trailers.iter().cloned().collect();
            self.outlet.end(&list);
        }
        self.flush().await?;
        let whole = match self.framing {
            Some(Framing::Plain(Some(len))) => len == self.body_len,
            _ => true,
        };
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
            let free = after.and_then(|text| value::offset(&request.text(text))).unwrap_or(0);
            self.rate = Some((rate, free));
            self.rate_start = Instant::now();
        }
    }

    /// Sends a piece no faster than `limit_rate` allows.
    async fn limited(&mut self, mut piece: Bytes) -> Result<(), Gone> {
        let (rate, free) = self.rate.unwrap_or((u64::MAX, 0));
        let mut sent = self.body_len - piece.len() as u64;
        while !piece.is_empty() {
            // nginx counts whole seconds and gives the one that has begun in advance.
            let elapsed = self.rate_start.elapsed().as_secs();
            let allowed =
                (rate.saturating_mul(elapsed + 1)).saturating_add(free).saturating_sub(sent);
            if allowed == 0 {
                // What was allowed must not wait for what was not.
                self.flush().await?;
                let over = sent.saturating_sub(free);
                let due = self.rate_start + Duration::from_millis(over * 1000 / rate + 1);
                tokio::select! {
                    () = sleep_until(due.into()) => {}
                    () = self.closed() => return Err(Gone::Closed),
                }
                continue;
            }
            let now = piece
                .split_to(usize::try_from(allowed).map_or(piece.len(), |n| n.min(piece.len())));
            sent += now.len() as u64;
            self.give(now).await?;
        }
        Ok(())
    }
}

/// Leaves out what has no meaning beside the status.
fn leave_out(reply: &mut Reply) {
    // RFC 9110 §8.6 forbids a length here.
    if reply.status == 204 {
        reply.content_type = None;
        reply.last_modified = None;
        reply.length = None;
    }
    // As in nginx: the time is that of the file, not of a page about an error.
    if !matches!(reply.status, 200 | 206 | 304) {
        reply.last_modified = None;
    }
}

/// A variable may have put something into a trailer that would end its line.
fn leave_out_invalid_trailers(request: &mut Request) {
    let all = std::mem::take(&mut request.response.trailers);
    let valid = |(name, value): &(Bytes, Bytes)| {
        let valid = write_field(&mut Vec::new(), name, value).is_ok();
        if !valid {
            let name = name.escape_ascii();
            request
                .log(LogLevel::Error, format_args!("invalid response trailer \"{name}\" left out"));
        }
        valid
    };
    let valid: Vec<_> = all.into_iter().filter(valid).collect();
    request.response.trailers = valid;
}

/// Whether an answer has no body, whatever its fields say (RFC 9110 §6.4.1).
pub(crate) fn is_bodiless(request: &Request, reply: &Reply) -> bool {
    request.target.method == Method::Head || matches!(reply.status, 100..=199 | 204 | 304)
}

/// The fields that come first in an answer, in nginx's order: what is said of the content, and an
/// absolute Location.
pub(crate) fn leading_fields(reply: &Reply) -> Vec<(Bytes, Bytes)> {
    let mut fields = Vec::with_capacity(reply.fields.len() + 7);
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
        push("Last-Modified", clock::format_http_date(time).into());
    }
    if let Some(location) = &reply.location {
        push("Location", location.clone());
    }
    fields
}

/// `absolute_redirect`: scheme, host and port before a Location that begins with a slash.
fn make_location_absolute(request: &Request, reply: &mut Reply, location: &Location) {
    let settings = &location.settings;
    let path = reply.field("location").filter(|value| value.first() == Some(&b'/')).cloned();
    let Some(path) = path else { return };
    if !settings.absolute_redirect || reply.relative_location {
        return;
    }
    let connection = &request.connection;
    let tls = connection.is_tls();
    let mut url = BytesMut::from(if tls { &b"https://"[..] } else { b"http://" });
    if settings.server_name_in_redirect {
        url.put_slice(&request.server().name);
    } else if !request.arrival.host.is_empty() {
        url.put_slice(&request.arrival.host);
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
    url.put_slice(&path);
    if let Some(at) = reply.fields.iter().position(|(name, _)| is_location(name)) {
        reply.fields.remove(at);
    }
    reply.location = Some(url.freeze());
}

fn is_location(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"location")
}

fn local_host(local: &ListenAddr) -> String {
    match local {
        ListenAddr::Ip(std::net::SocketAddr::V4(address)) => address.ip().to_string(),
        ListenAddr::Ip(std::net::SocketAddr::V6(address)) => format!("[{}]", address.ip()),
        ListenAddr::Unix(_) => local.to_string(),
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
