//! Upstreams: which peer, the connection to it, the request to it and its answer.
//!
//! [`proxy`] is the content handler of `proxy_pass`. It tries peers until one answers, and then
//! either carries the answer to the client or, if that is a valid switch of protocols, gives both
//! sides away as a [`Switch`](crate::tunnel::Switch).

mod answer;
mod attempt;
pub(crate) mod check;
mod connect;
mod cookie;
mod destination;
mod handshake;
mod plan;
mod proxy_header;
mod request;
pub(crate) mod response;
mod sticky;
mod switch;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use wssgate_config::model::{BodyInFile, LogLevel, NextUpstream, ProxyPass, ProxySettings};
use wssgate_http1::{BodyDecoder, Decoded, Fields, Framing, ResponseHead};

use answer::{BodyEnd, Carrier};
use attempt::{Cause, Ended, Kept, Sender, Trouble};
use connect::Connecting;
use destination::Destination;
use plan::Plan;

use crate::content::{self, Outcome};
use crate::exchange::body::{BodyError, BufferedBody, Length, RequestBody};
use crate::exchange::request::{Request, UpstreamState};
use crate::exchange::{Exchange, Refusal, Responder, own_uri};
use crate::peers::{Connection, Group, Key, Lease, Resource, Selection};

const CONNECTING: &str = "connecting to upstream";

/// The status of a request whose client has gone.
const CLIENT_CLOSED: u16 = 499;

/// The status when we lack something ourselves: "currently unable to handle the request due to a
/// temporary overload" (RFC 9110 §15.6.4). Unlike nginx's 500 it tells a proxy before us that
/// another gateway may do better.
const SHORTAGE: u16 = 503;

/// Passes a request to an upstream and its answer to the client.
pub async fn proxy(exchange: &mut Exchange, pass: &ProxyPass) -> Outcome {
    match prepared(exchange, pass).await {
        Ok(outcome) => outcome,
        Err(refusal) => Outcome::Status(exchange.request.refuse(&refusal)),
    }
}

async fn prepared(exchange: &mut Exchange, pass: &ProxyPass) -> Result<Outcome, Refusal> {
    let Exchange { request, body, response, .. } = exchange;
    let generation = Arc::clone(&request.generation);
    let settings = &generation.http().locations[request.route.location.0].proxy;
    let destination = Destination::of(request, pass)?;
    request.upstream.host = destination.host.clone();
    request.upstream.port = destination.port.clone();
    let unbuffered = is_unbuffered(settings, body);
    // Before a peer is chosen: none is kept busy while a slow client uploads.
    if !unbuffered && body.length() != Length::None {
        let local = &generation.http().locations[request.route.location.0].settings;
        let buffered = body.buffer(local).await.map_err(body_failed)?;
        let first = request.body.is_none();
        if first && buffered.file.is_some() && local.client_body_in_file_only == BodyInFile::Off {
            request.log(LogLevel::Warn, "a client request body is buffered to a temporary file");
        }
        request.body = Some(buffered);
    }
    let plan = Plan::of(request, body, &destination, unbuffered)?;
    request.upstream.scheme = if destination.tls { "https://" } else { "http://" };
    request.upstream.target = plan.target.clone();
    let group = tokio::select! {
        biased;
        group = destination.group(request) => group?,
        () = response.closed(), if !settings.ignore_client_abort => {
            return Err(Refusal::ClientGone);
        }
    };
    let hash_key = group.hash_key().map_or_else(Bytes::new, |key| request.text(key));
    let mut selection = group.selection(&hash_key, request.client_ip(), request.site.id);
    sticky::want(request, &group, &mut selection);
    let tries = match settings.next_upstream_tries {
        0 => group.tries(),
        most => group.tries().min(most),
    };
    let mut proxying = Proxying {
        request,
        response,
        settings,
        destination: &destination,
        group: &group,
        plan: &plan,
        selection,
        tries,
        first: true,
        short: None,
        cookie: None,
        started: Instant::now(),
    };
    Ok(proxying.run(body).await)
}

/// Whether the body is sent while it is read.
fn is_unbuffered(settings: &ProxySettings, body: &RequestBody) -> bool {
    // HTTP/1.0 has no chunks (RFC 9112 §6.1), so a length that is not known yet has to be found
    // out.
    let framed = body.length() != Length::Unknown || settings.http11;
    !settings.request_buffering
        && settings.set_body.is_none()
        && settings.pass_request_body
        && framed
}

/// To an upstream a client that breaks off its body has gone.
fn body_failed(error: BodyError) -> Refusal {
    match error {
        BodyError::Closed => Refusal::ClientGone,
        error => Refusal::Body(error),
    }
}

/// One request on its way from peer to peer.
struct Proxying<'a> {
    request: &'a mut Request,
    response: &'a mut Responder,
    settings: &'a ProxySettings,
    destination: &'a Destination<'a>,
    group: &'a Group,
    plan: &'a Plan,
    selection: Selection,
    /// Peers that may still be tried, the one in work included.
    tries: u32,
    /// No peer was chosen yet.
    first: bool,
    /// A peer was passed over for want of this.
    short: Option<Resource>,
    /// Which of the response's cookies is that of `sticky`, once there is one.
    cookie: Option<usize>,
    started: Instant,
}

/// What became of one try.
enum Tried {
    Over(Outcome),
    Failed(FailedAttempt),
}

/// What follows a try that failed.
enum Next {
    /// Another peer is tried.
    Other,
    /// The same one is, over a connection of its own.
    Same(Lease),
    /// Nobody is: the status of the answer.
    Nobody(u16),
}

/// A connection in use for one try.
struct PeerLink {
    connection: Connection,
    lease: Lease,
    key: Key,
    reused: bool,
    began: Instant,
}

impl PeerLink {
    fn failed(self, trouble: Trouble) -> Tried {
        Tried::Failed(FailedAttempt { trouble, lease: self.lease, reused: self.reused, sent: true })
    }
}

/// A try that failed.
struct FailedAttempt {
    trouble: Trouble,
    lease: Lease,
    /// The connection had served before: that it broke says nothing about the peer.
    reused: bool,
    /// Whether anything of the request may have reached the peer.
    sent: bool,
}

impl Proxying<'_> {
    async fn run(&mut self, body: &mut RequestBody) -> Outcome {
        let mut same = None;
        loop {
            let fresh = same.is_some();
            let lease = match same.take() {
                Some(lease) => lease,
                None => match self.next_peer().await {
                    Ok(Some(lease)) => lease,
                    Ok(None) => return self.no_live_upstreams(),
                    Err(ended) => return self.broken_off(ended),
                },
            };
            let address = Bytes::copy_from_slice(lease.peer().name.as_bytes());
            let state = UpstreamState { address: Some(address), ..UpstreamState::default() };
            self.request.upstream.attempts.push(state);
            self.mark(&lease);
            match self.attempt(lease, fresh, body, Instant::now()).await {
                Tried::Over(outcome) => return outcome,
                Tried::Failed(failed) => {
                    match self.give_up(failed) {
                        Next::Other => {}
                        Next::Same(lease) => same = Some(lease),
                        Next::Nobody(status) => return Outcome::Status(status),
                    }
                    // That the body is still there was a condition for trying again.
                    body.rewind();
                }
            }
        }
    }

    /// The next peer, of which only the first is waited for (`queue`), and no longer than by the
    /// client.
    async fn next_peer(&mut self) -> Result<Option<Lease>, Ended> {
        if !std::mem::take(&mut self.first) {
            return Ok(self.group.choose(&mut self.selection, Instant::now()));
        }
        let watches = self.watches_client();
        let Self { group, selection, response, .. } = self;
        tokio::select! {
            // Without a queue it is there at once.
            biased;
            lease = group.choose_or_wait(selection) => Ok(lease),
            () = response.closed(), if watches => Err(Ended::ClientGone),
        }
    }

    fn no_live_upstreams(&mut self) -> Outcome {
        // Some may live; it was told why none could be asked.
        if let Some(resource) = self.short {
            return Outcome::Status(self.refuse(resource));
        }
        let address = Bytes::copy_from_slice(&self.group.name);
        let state = UpstreamState { address: Some(address), status: 502, ..Default::default() };
        self.request.upstream.attempts.push(state);
        self.request.log(LogLevel::Error, format_args!("no live upstreams while {CONNECTING}"));
        Outcome::Status(502)
    }

    /// Counts a failure and says what follows.
    fn give_up(&mut self, failed: FailedAttempt) -> Next {
        let FailedAttempt { trouble, lease, reused, sent } = failed;
        if let Cause::Shortage(resource) = trouble.cause {
            return self.do_without(resource, &trouble, lease);
        }
        let status = status_of(trouble.cause);
        self.state().status = status;
        // The peer may have closed the idle connection just before the request came.
        let stale = reused && trouble.cause == Cause::Error;
        let same = stale && self.may_try_again(trouble.cause, sent);
        if !trouble.message.is_empty() {
            let level = if same { LogLevel::Info } else { LogLevel::Error };
            self.request.log(level, &trouble.message);
        }
        if same {
            // nginx goes on to the next peer. But one whose idle connections are all dead may be
            // well, and where that is so of each, a request would run out of peers.
            return Next::Same(lease);
        }
        let single = lease.single();
        match trouble.cause {
            // nginx counts that against the peer. It would put servers that have just come back out
            // of use, each for the connections that its predecessor has left.
            _ if stale => lease.unused(),
            Cause::Status(status) if !self.is_failure(status) => drop(lease),
            _ => self.count_failure(lease),
        }
        self.tries = if single { 0 } else { self.tries.saturating_sub(1) };
        let again = self.tries > 0 && self.may_try_again(trouble.cause, sent);
        if again { Next::Other } else { Next::Nobody(status) }
    }

    fn count_failure(&self, lease: Lease) {
        if lease.fail(Instant::now()) {
            self.request.log(
                LogLevel::Warn,
                format_args!("upstream server temporarily disabled while {CONNECTING}"),
            );
        }
    }

    /// Counts a sign of life.
    fn count_answer(&self, lease: &mut Lease) {
        if self.group.answered(lease, Instant::now()) {
            let name = &lease.peer().name;
            let message = format_args!("upstream server {name} has responded and is in use again");
            self.request.log(LogLevel::Notice, message);
        }
    }

    /// We lack something ourselves: not the peer is blamed, and `$upstream_status` has nothing to
    /// tell. Another peer is tried only where it may be of use.
    fn do_without(&mut self, resource: Resource, trouble: &Trouble, lease: Lease) -> Next {
        self.short = Some(resource);
        if let Some(untold) = self.request.site.shortages.note(resource, Instant::now()) {
            let (message, advice) = (&trouble.message, resource.advice());
            self.request.log(LogLevel::Alert, format_args!("{message}: {advice}{untold}"));
        }
        self.tries = if lease.single() { 0 } else { self.tries.saturating_sub(1) };
        lease.unused();
        let again = self.tries > 0 && self.may_try_again(trouble.cause, false);
        if again { Next::Other } else { Next::Nobody(self.refuse(resource)) }
    }

    /// The status for want of `resource`. A client that keeps some of it to itself is not kept.
    fn refuse(&mut self, resource: Resource) -> u16 {
        if resource.is_held_by_clients() {
            self.request.fate.keepalive = false;
        }
        SHORTAGE
    }

    fn may_try_again(&self, cause: Cause, sent: bool) -> bool {
        let allowed = &self.settings.next_upstream;
        // RFC 9110 §9.2.2: the peer may have done it already, and only idempotent methods may be
        // done twice.
        let repeatable =
            !sent || self.request.target.method.is_idempotent() || allowed.non_idempotent;
        let limit = self.settings.next_upstream_timeout;
        let in_time = limit.is_zero() || self.started.elapsed() < limit;
        // What an unbuffered body brought has gone to the peer that failed, and is nowhere else.
        let body_there = !(sent && self.plan.unbuffered && self.plan.with_body);
        allows(allowed, cause) && repeatable && in_time && body_there
    }

    fn state(&mut self) -> &mut UpstreamState {
        self.request.upstream.attempts.last_mut().expect("pushed before every try")
    }

    /// One try; `fresh` passes the idle connections over.
    async fn attempt(
        &mut self,
        lease: Lease,
        fresh: bool,
        body: &mut RequestBody,
        began: Instant,
    ) -> Tried {
        let key = self.connecting().key(self.group, &lease.peer().address);
        let cached = match self.group.keepalive.connections {
            0 => None,
            _ if fresh => None,
            _ => self.request.site.idle_upstreams.take(&key),
        };
        let reused = cached.is_some();
        let connected = match cached {
            Some(connection) => Ok(connection),
            None => self.connect(&key).await,
        };
        let connection = match connected {
            Ok(connection) => connection,
            Err(Ended::Upstream(trouble)) => {
                self.state().response_time = Some(began.elapsed());
                return Tried::Failed(FailedAttempt { trouble, lease, reused, sent: false });
            }
            Err(ended) => return Tried::Over(self.broken_off(ended)),
        };
        self.state().connect_time = Some(began.elapsed());
        let link = PeerLink { connection, lease, key, reused, began };
        self.converse(link, body).await
    }

    fn connecting(&self) -> Connecting<'_> {
        Connecting { request: self.request, settings: self.settings, destination: self.destination }
    }

    /// A new connection, as `key` describes it.
    async fn connect(&self, key: &Key) -> Result<Connection, Ended> {
        let connecting = self.connecting();
        tokio::select! {
            connected = connecting.connect(key) => connected,
            () = self.response.closed(), if self.watches_client() => Err(Ended::ClientGone),
        }
    }

    fn watches_client(&self) -> bool {
        !self.settings.ignore_client_abort
    }

    /// Sends the request and handles the answer.
    async fn converse(&mut self, mut link: PeerLink, body: &mut RequestBody) -> Tried {
        let settings = self.settings;
        let connection = &link.connection;
        let kept = RefCell::new(Kept::up_to(self.remembered_body()));
        let mut sender = Sender::new(connection, self.plan, body, settings.send_timeout, &kept);
        let head =
            attempt::head(connection, &mut sender, settings, self.response, self.request).await;
        let head = match head {
            Ok(head) => head,
            Err(ended) => {
                drop(sender);
                record(self.request, connection, None, link.began);
                return match ended {
                    Ended::Upstream(trouble) => link.failed(trouble),
                    ended => Tried::Over(self.broken_off(ended)),
                };
            }
        };
        if let Some(memory) = kept.borrow_mut().whole() {
            let len = memory.len() as u64;
            let body = BufferedBody { memory, file: None, len };
            self.request.body = Some(Rc::new(body));
        }
        self.state().status = head.status();
        self.state().header_time = Some(link.began.elapsed());
        if head.status() == 101 {
            let judged = self.judge(&head, &mut sender).await;
            drop(sender);
            record(self.request, connection, Some(&head), link.began);
            return self.switch(link, head, judged);
        }
        // How the exchange ends says nothing new of the peer, and may be long after.
        if !self.is_failure(head.status()) {
            self.count_answer(&mut link.lease);
        }
        if let Some(trouble) = self.failure_in(&head) {
            drop(sender);
            record(self.request, connection, Some(&head), link.began);
            return link.failed(trouble);
        }
        // The parser has checked what frames the body already.
        let framing = head.framing(self.plan.method).unwrap_or(Framing::UntilClose);
        self.request.upstream.head = Some(head.clone());
        self.learn_at_header(&link.lease);
        let (outcome, whole) = match self.instead_of(&head) {
            Some(outcome) => {
                self.learn_at_end(&link.lease);
                // Nobody reads its body, so only without one is the connection left clean.
                (outcome, matches!(framing, Framing::None | Framing::Length(0)))
            }
            None => self.answer(&link, &mut sender, &head, framing).await,
        };
        record(self.request, connection, Some(&head), link.began);
        // With anything less, what is left of this exchange would be taken for a part of the next
        // one.
        let kept = whole && sender.is_done() && head.keeps_alive(framing) && !self.plan.closes;
        drop(sender);
        if kept {
            self.keep(link);
        }
        Tried::Over(outcome)
    }

    /// Whether an answer with this status is no sign of life.
    fn is_failure(&self, status: u16) -> bool {
        // As nginx has it, the two say that a peer lacks something, not that it is ill.
        allows(&self.settings.next_upstream, Cause::Status(status)) && !matches!(status, 403 | 404)
    }

    /// How much of an unbuffered body `$request_body` may need; nothing if nobody asks for it.
    fn remembered_body(&self) -> Option<usize> {
        let asked = self.request.http().variables.find("request_body").is_some();
        let limit = self.request.location().settings.client_body_buffer_size;
        (self.plan.unbuffered && asked).then_some(limit)
    }

    /// An answer that is as good as none, while others can be asked.
    fn failure_in(&self, head: &ResponseHead) -> Option<Trouble> {
        let cause = Cause::Status(head.status());
        // Of the last peer even a poor answer is passed on; it is better than one of ours.
        let next = self.tries > 1 && self.may_try_again(cause, true);
        next.then(|| Trouble { cause, message: String::new() })
    }

    /// Carries the answer to the client; also says whether it was whole.
    async fn answer(
        &mut self,
        link: &PeerLink,
        sender: &mut Sender<'_>,
        head: &ResponseHead,
        framing: Framing,
    ) -> (Outcome, bool) {
        let mut reply = response::reply(self.request, head, framing);
        reply.trailers = self.settings.pass_trailers && framing == Framing::Chunked;
        if let Err(refused) = self.response.head(self.request, reply) {
            return (content::unsatisfiable(self.request, refused), false);
        }
        if self.request.is_subrequest() && self.response.is_empty() {
            return self.without_body(link, framing).await;
        }
        let mut carrier = Carrier {
            request: self.request,
            connection: &link.connection,
            sender,
            response: self.response,
            settings: self.settings,
        };
        let end = carrier.carry(framing).await;
        self.learn_at_end(&link.lease);
        record(self.request, &link.connection, Some(head), link.began);
        let whole = matches!(end, BodyEnd::Whole(_));
        (finish(self.request, self.response, self.settings, end).await, whole)
    }

    /// Ends an answer of which only the head is wanted. Nothing is waited for: if the body came along
    /// with its head, the connection can be used again.
    async fn without_body(&mut self, link: &PeerLink, framing: Framing) -> (Outcome, bool) {
        let mut decoder = BodyDecoder::from(framing);
        let whole = link.connection.with_input(|input| {
            loop {
                match decoder.decode(input) {
                    Ok(Decoded::Data(_)) => {}
                    Ok(Decoded::End { .. }) => return true,
                    Ok(Decoded::NeedMore) | Err(_) => return false,
                }
            }
        });
        let end = BodyEnd::Whole(Fields::default());
        self.learn_at_end(&link.lease);
        (finish(self.request, self.response, self.settings, end).await, whole)
    }

    /// Keeps a connection whose answer has been read whole.
    fn keep(&self, link: PeerLink) {
        if link.connection.with_input(|input| !input.is_empty()) {
            // The pool does not take it either: what came would be taken for the next answer.
            let message = "upstream sent more data than specified in \"Content-Length\" header \
                           while reading upstream";
            self.request.log(LogLevel::Warn, message);
        }
        let rules = self.group.keepalive;
        self.request.site.idle_upstreams.keep(link.key, link.connection, rules);
    }

    /// Something else that is to be answered than what the upstream sent.
    fn instead_of(&mut self, head: &ResponseHead) -> Option<Outcome> {
        if let Some(rate) = head.fields().first_bytes("x-accel-limit-rate")
            && !response::ignored(self.settings, "X-Accel-Limit-Rate")
        {
            *self.request.values.limit_rate.borrow_mut() = Some(rate);
        }
        let status = head.status();
        if status >= 300 && self.settings.intercept_errors && self.request.has_error_page(status) {
            // A 401 without its challenge is none (RFC 9110 §11.6.1), whoever wrote its page.
            if status == 401 {
                self.request.response.carried_fields.extend(response::challenges(head));
            }
            return Some(Outcome::Status(status));
        }
        if response::ignored(self.settings, "X-Accel-Redirect") {
            return None;
        }
        let target = head.fields().first_bytes("x-accel-redirect")?;
        self.request.response.carried_fields = response::surviving(self.request, head);
        Some(accelerated(self.request, target))
    }

    /// The client has gone, or its body broke off.
    fn broken_off(&mut self, ended: Ended) -> Outcome {
        match ended {
            Ended::Body(error) => Outcome::Status(self.request.refuse(&body_failed(error))),
            Ended::Own(message) => {
                self.request.log(LogLevel::Error, message);
                Outcome::Status(500)
            }
            // Failures of the upstream do not come here: they are tried elsewhere first.
            Ended::ClientGone | Ended::Upstream(_) => {
                let message = "client prematurely closed connection, so upstream connection is \
                               closed too";
                self.request.log(LogLevel::Info, message);
                Outcome::Status(CLIENT_CLOSED)
            }
        }
    }
}

/// Ends the answer to the client as the body ended.
async fn finish(
    request: &mut Request,
    response: &mut Responder,
    settings: &ProxySettings,
    end: BodyEnd,
) -> Outcome {
    match end {
        BodyEnd::Whole(trailers) => {
            request.upstream.trailers = Some(trailers.clone());
            let passed = visible_trailers(settings, &trailers);
            match response.finish(request, passed.as_ref()).await {
                Ok(()) => Outcome::Done,
                Err(_) => Outcome::Close,
            }
        }
        BodyEnd::Broken(message) => {
            answer::log_broken(request, &message);
            // What was received is passed on, but never looks like a whole answer.
            let _ = response.flush().await;
            Outcome::Close
        }
        BodyEnd::ClientGone(gone) => {
            request.log(LogLevel::Info, format_args!("{gone} while sending to client"));
            Outcome::Close
        }
        BodyEnd::Body(error) => {
            request.log(error.level(), error);
            Outcome::Close
        }
    }
}

fn visible_trailers(settings: &ProxySettings, trailers: &Fields) -> Option<Fields> {
    let visible = trailers.iter().filter(|(name, _)| !response::hidden(settings, name));
    settings.pass_trailers.then(|| visible.collect())
}

/// Goes where `X-Accel-Redirect` says.
fn accelerated(request: &mut Request, target: Bytes) -> Outcome {
    if target.first() == Some(&b'@') {
        return Outcome::NamedLocation(target);
    }
    match own_uri::target(&target) {
        Some((path, args)) => {
            // As in nginx: the upstream has had the method and the body, what is left is to fetch
            // something.
            request.target.fetch();
            Outcome::InternalRedirect { path, args }
        }
        None => {
            let target = target.escape_ascii();
            request.log(LogLevel::Error, format_args!("unsafe URI \"{target}\" was detected"));
            Outcome::Status(404)
        }
    }
}

/// Keeps what the `$upstream_*` variables tell.
fn record(
    request: &mut Request,
    connection: &Connection,
    head: Option<&ResponseHead>,
    began: Instant,
) {
    let Some(state) = request.upstream.attempts.last_mut() else { return };
    state.response_time = Some(began.elapsed());
    state.bytes_sent = connection.sent.get();
    state.bytes_received = connection.received.get();
    if let Some(head) = head {
        state.response_length = state.bytes_received.saturating_sub(head.raw_len() as u64);
    }
}

/// The status of the answer when nobody else is tried.
fn status_of(cause: Cause) -> u16 {
    match cause {
        Cause::Error | Cause::InvalidHeader => 502,
        Cause::Timeout => 504,
        Cause::Status(status) => status,
        Cause::Shortage(_) => SHORTAGE,
    }
}

fn allows(allowed: &NextUpstream, cause: Cause) -> bool {
    match cause {
        Cause::Error => allowed.error,
        Cause::Timeout => allowed.timeout,
        Cause::InvalidHeader => allowed.invalid_header,
        Cause::Status(403) => allowed.http_403,
        Cause::Status(404) => allowed.http_404,
        Cause::Status(429) => allowed.http_429,
        Cause::Status(500) => allowed.http_500,
        Cause::Status(502) => allowed.http_502,
        Cause::Status(503) => allowed.http_503,
        Cause::Status(504) => allowed.http_504,
        Cause::Status(_) => false,
        // The next peer shares what is short, but for ports.
        Cause::Shortage(resource) => resource.is_of_one_peer() && allowed.error,
    }
}
