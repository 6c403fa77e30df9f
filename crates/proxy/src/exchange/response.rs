//! The answer: from what a handler wants to say to what the outlet of the protocol is given.

use std::rc::Rc;
use std::time::Instant;

use bytes::{BufMut, Bytes, BytesMut};
use wssgate_config::model::{ListenAddr, Location, LogLevel, ServerTokens};
use wssgate_http1::{Fields, Method, Version, write_field};

use crate::clock;
use crate::exchange::delivery::{Delivery, Rate};
use crate::exchange::filter::ranges::{self, Part, Ranges, Unsatisfiable};
use crate::exchange::filter::{Chain, Embed, Included, Step, Wanted};
use crate::exchange::headers;
use crate::exchange::outlet::{Framing, Gone, Outlet, Presence};
use crate::exchange::request::Request;
use crate::exchange::variables;
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
    /// There is no `Server`, not even ours: an upstream speaks for itself and has sent none.
    pub without_server: bool,
    /// The same of `Date`.
    pub without_date: bool,
    /// A `Location` that begins with a slash stays as it is: an upstream sent it so.
    pub relative_location: bool,
    /// Whether trailers may follow, so that the body is sent in chunks.
    pub trailers: bool,
    /// Whether ranges may be asked for (`Accept-Ranges`): added behind `add_header`'s fields.
    pub accept_ranges: bool,
    /// How the content is given when ranges are asked for.
    pub seeking: Seeking,
    /// The charset that an upstream wants the body to be converted to.
    pub override_charset: Option<Bytes>,
    /// A `Location` that was made absolute, which stands before the other fields.
    pub location: Option<Bytes>,
}

/// How content is given when only parts of it are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Seeking {
    /// From its beginning on; what is not wanted is left out on the way.
    #[default]
    Forward,
    /// Only what [`Responder::parts`] tells, in that order.
    Anywhere,
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
        if fields.is_empty() {
            return;
        }
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

/// The way back to the client for one request: what is answered, through which filters, and how
/// fast.
pub struct Responder {
    delivery: Rc<Delivery>,
    /// Whether this is a subrequest's answer that becomes a part of another one.
    part: bool,
    embed: Embed,
    /// How the body is carried; `None` before the head was given.
    framing: Option<Framing>,
    filters: Chain,
    /// The parts of the content that are wanted; `None`: the whole.
    parts: Option<Vec<Part>>,
    /// Whether anything of the body has come out of the filters.
    has_body: bool,
}

impl Responder {
    /// Answers `client` through `outlet`; filters ask for subrequests by `embed`.
    pub(crate) fn new(
        outlet: impl Outlet + 'static,
        client: Rc<dyn Presence>,
        embed: Embed,
    ) -> Self {
        Self::on(Rc::new(Delivery::new(outlet, client)), embed, false)
    }

    /// Answers a subrequest whose body becomes a part of what `delivery` brings.
    pub(crate) fn part_of(delivery: Rc<Delivery>, embed: Embed) -> Self {
        Self::on(delivery, embed, true)
    }

    fn on(delivery: Rc<Delivery>, embed: Embed, part: bool) -> Self {
        Self {
            delivery,
            part,
            embed,
            framing: None,
            filters: Chain::default(),
            parts: None,
            has_body: false,
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

    /// Whether anything of a body has come.
    pub(crate) fn has_body(&self) -> bool {
        self.has_body
    }

    /// Whom the answer is for.
    pub(crate) fn client(&self) -> Rc<dyn Presence> {
        self.delivery.client()
    }

    /// Resolves when the client goes away. What it sends meanwhile is kept for later.
    pub async fn closed(&self) {
        self.delivery.closed().await;
    }

    /// Sends an interim answer of status 103 with these fields, before the head, if `early_hints`
    /// says so.
    ///
    /// # Errors
    /// When the client is gone.
    pub(crate) async fn early_hints(&self, request: &Request, fields: &Fields) -> Result<(), Gone> {
        // RFC 9110 §15.2: a client of HTTP/1.0 knows no interim answers.
        let understood = request.arrival.version == Version::Http11 && !self.part;
        let mut wishes = request.location().settings.early_hints.iter();
        let wanted = wishes.any(|wish| variables::is_true(&request.text(wish)));
        if !understood || !wanted || self.begun() || fields.is_empty() {
            return Ok(());
        }
        self.delivery.early_hints(fields).await
    }

    /// Makes the head. It is written with the first of the body, or by [`Responder::flush`].
    ///
    /// Adds Server, Date, `add_header` and `expires`, cuts the body to ranges, and lets the filters of
    /// the location have their way; the outlet chooses how the body is carried.
    ///
    /// # Errors
    /// When the ranges that the client asks for are not there; nothing was answered then.
    pub(crate) fn head(
        &mut self,
        request: &mut Request,
        mut reply: Reply,
    ) -> Result<(), Unsatisfiable> {
        assert!(self.framing.is_none(), "a request has one answer");
        let generation = request.generation.clone();
        let location = &generation.http().locations[request.route.location.0];
        if request.response.error_status != 0 {
            reply.status = request.response.error_status;
            reply.status_text = None;
        }
        let wanted = Wanted::of(request, &reply, location);
        if !wanted.keeps_ranges() {
            reply.accept_ranges = false;
            reply.remove("accept-ranges");
        }
        // The answer says `close`, so that the client does not send another request to a connection
        // that ends (RFC 9112 §9.6).
        if request.site.phase() >= Phase::Yielding {
            request.fate.keepalive = false;
        }
        reply.carry(request.response.carried_fields.clone());
        reply.carry(request.response.special_fields.clone());
        let name = Bytes::from_static(b"Set-Cookie");
        let cookies = request.response.cookies.iter();
        reply.carry(cookies.map(|cookie| (name.clone(), cookie.clone())).collect());
        if let Some(location) = request.response.redirect.take()
            && reply.field("location").is_none()
        {
            reply.push("Location", location);
        }
        headers::apply(request, &mut reply, location);
        self.filters = Chain::new(request, &mut reply, location, wanted);
        // As in nginx ranges come last to the head and first to the body. With an error somebody else
        // answers, and gets what was to be carried.
        let ranges = Ranges::of(request, &reply, location)?;
        request.response.carried_fields.clear();
        request.response.special_fields.clear();
        request.response.cookies.clear();
        self.cut(request, &mut reply, location, ranges);
        leave_out(&mut reply);
        make_location_absolute(request, &mut reply, location);
        request.response.status = reply.status;
        request.response.head_sent = true;
        self.framing = Some(self.deliver_head(request, reply, location));
        Ok(())
    }

    /// Cuts the answer to ranges, or offers them.
    fn cut(
        &mut self,
        request: &Request,
        reply: &mut Reply,
        location: &Location,
        ranges: Option<Ranges>,
    ) {
        match ranges {
            Some(mut ranges) => {
                ranges.apply(reply);
                self.parts = Some(ranges.parts());
                self.filters.put_first(ranges);
            }
            None if ranges::is_offered(request, reply, location.settings.max_ranges) => {
                reply.push("Accept-Ranges", &b"bytes"[..]);
            }
            None => {}
        }
    }

    fn deliver_head(&self, request: &mut Request, reply: Reply, location: &Location) -> Framing {
        if !self.part {
            let rate = rate(request, location);
            return self.delivery.head(request, reply, location.settings.send_timeout, rate);
        }
        let empty = is_bodiless(request, &reply);
        let mut fields = leading_fields(&reply);
        fields.extend(reply.fields);
        request.response.fields = fields;
        if empty { Framing::Empty } else { Framing::Plain(None) }
    }

    /// The parts of the content that are wanted, in order, from and to without the end; `None`: all
    /// of it. Only a [`Seeking::Anywhere`] answer need ask; it gives these and nothing else.
    pub(crate) fn parts(&self) -> Option<&[Part]> {
        self.parts.as_deref()
    }

    /// Sends a piece of the body. Small pieces are collected: call [`Responder::flush`] before
    /// waiting for more.
    ///
    /// # Errors
    /// When the client is gone; the exchange is over then.
    pub async fn body(&mut self, request: &Request, piece: Bytes) -> Result<(), Gone> {
        if piece.is_empty() || self.is_empty() {
            return Ok(());
        }
        if self.filters.is_empty() {
            self.has_body = true;
            return self.delivery.body(piece).await;
        }
        self.filters.give(piece);
        self.run_filters(request).await
    }

    /// Sends what the filters have to give.
    async fn run_filters(&mut self, request: &Request) -> Result<(), Gone> {
        loop {
            match self.filters.next(request) {
                Step::Idle => return Ok(()),
                Step::Pause => tokio::task::yield_now().await,
                Step::Piece(piece) => {
                    self.has_body = true;
                    self.delivery.body(piece).await?;
                }
                Step::Include(wanted) => {
                    let delivery = Rc::clone(&self.delivery);
                    let included = (self.embed)(request, self.client(), delivery, wanted).await?;
                    self.has_body |= matches!(included, Included::Sent(true));
                    self.filters.on_included(request, included);
                }
            }
        }
    }

    /// Writes what was collected.
    ///
    /// # Errors
    /// When the client is gone.
    pub async fn flush(&mut self) -> Result<(), Gone> {
        self.delivery.flush().await
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
        if !self.is_empty() {
            for at in 0..self.filters.len() {
                self.filters.end(at);
                self.run_filters(request).await?;
            }
        }
        if self.framing == Some(Framing::Delimited) {
            headers::make_trailers(request, trailers);
            leave_out_invalid_trailers(request);
            let list: Fields = request.response.trailers.iter().cloned().collect();
            self.delivery.end(&list);
        }
        // What follows a part goes along with it.
        if !self.part {
            self.flush().await?;
        }
        let whole = match self.framing {
            Some(Framing::Plain(Some(len))) => len == self.delivery.body_len(),
            _ => true,
        };
        if !whole {
            // The client waits for bytes that will never come.
            request.fate.keepalive = false;
        }
        request.response.complete = whole;
        Ok(())
    }
}

/// `limit_rate` for this answer, from now on.
fn rate(request: &Request, location: &Location) -> Option<Rate> {
    let per_second = headers::limit_rate(request, location);
    if per_second == 0 {
        return None;
    }
    let free = headers::limit_rate_after(request, location);
    Some(Rate { per_second, free, start: Instant::now() })
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
