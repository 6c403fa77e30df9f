//! The phases of a request: rewrite, location, rewrite again, limits, access, try_files, content.

use std::sync::Arc;

use bytes::Bytes;
use wssgate_config::model::{Content, Dashboard, LocationId, LocationSettings, Return, ServerId};
use wssgate_http1::{Escape, Framing, Method, escape};

use crate::content::{Outcome, dashboard, files, pages, prometheus, proxy, status};
use crate::exchange::request::Origin;
use crate::exchange::{Exchange, Refusal, Request, secrets};
use crate::front::rewrite::Rewritten;
use crate::front::route::Found;
use crate::front::{
    browser, challenge, guard, handshake, limits, real_ip, rewrite, route, subrequest, try_files,
};

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    /// With the server's rewrite directives.
    Server,
    /// In the location that is set already (a named one).
    Location,
}

/// How a request ended.
pub(crate) enum Finish {
    /// The answer was sent.
    Done,
    /// Nothing more can be said to the client.
    Close,
    /// The connection becomes a tunnel.
    Upgrade(Box<crate::tunnel::Switch>),
}

/// Answers a request whose head was read.
pub(crate) async fn answer(exchange: &mut Exchange) -> Finish {
    // A subrequest knows of its parent who asks.
    if !exchange.request.is_subrequest() {
        real_ip::find(&mut exchange.request);
    }
    let outcome = match challenge::answer(exchange).await {
        Some(outcome) => outcome,
        None => run(exchange, Start::Server).await,
    };
    conclude(exchange, outcome).await
}

/// Answers a request that cannot be worked on, such as one whose head is broken.
pub(crate) async fn refuse(exchange: &mut Exchange, status: u16) -> Finish {
    conclude(exchange, Outcome::Status(status)).await
}

/// Goes on with another path or named location of our own.
pub(crate) async fn go_on(exchange: &mut Exchange, uri: Bytes) {
    let outcome = match uri.first() {
        Some(b'/') => Outcome::InternalRedirect { path: uri, args: Bytes::new() },
        _ => Outcome::NamedLocation(uri),
    };
    // Its answer, and what becomes of the connection, are not of interest.
    conclude(exchange, outcome).await;
}

/// Follows redirects within the server until something was answered.
async fn conclude(exchange: &mut Exchange, mut outcome: Outcome) -> Finish {
    loop {
        outcome = match outcome {
            Outcome::Done => return Finish::Done,
            Outcome::Close => return Finish::Close,
            Outcome::Upgrade(switch) => return Finish::Upgrade(switch),
            Outcome::Status(status) if wants_no_page(exchange, status) => return Finish::Done,
            Outcome::Status(status) => pages::special(exchange, status).await,
            Outcome::InternalRedirect { path, args } => {
                match internal_redirect(&mut exchange.request, path, args) {
                    Ok(()) => run(exchange, Start::Server).await,
                    Err(refusal) => refused(exchange, &refusal),
                }
            }
            Outcome::NamedLocation(name) => match named_location(&mut exchange.request, &name) {
                Ok(()) => run(exchange, Start::Location).await,
                Err(refusal) => refused(exchange, &refusal),
            },
        };
    }
}

/// Whether nothing at all is to be answered with a status that is an error, since whoever asks has
/// something else for that case.
fn wants_no_page(exchange: &mut Exchange, status: u16) -> bool {
    let Origin::Subrequest(parent) = &exchange.request.route.origin else { return false };
    let closing = matches!(status, 408 | 444 | 499);
    let nothing = parent.or_nothing && !closing && !exchange.response.begun();
    if nothing {
        exchange.request.response.status = status;
    }
    nothing
}

/// Tells the log of a refusal; its status is the answer.
fn refused(exchange: &mut Exchange, refusal: &Refusal) -> Outcome {
    // `special` would forget it too, but an `error_page` comes before that, and reading the body
    // for its sake would ask for what was just refused.
    if matches!(refusal, Refusal::TooLarge(_)) {
        exchange.request.fate.too_large = true;
        exchange.body.forget_continue();
    }
    Outcome::Status(exchange.request.refuse(refusal))
}

/// Counts one more change of the path; too many are a circle.
fn count_change(request: &mut Request, doing: &'static str) -> Result<(), Refusal> {
    request.route.uri_changes = request.route.uri_changes.saturating_sub(1);
    match request.route.uri_changes {
        0 => Err(Refusal::Cycle { doing, path: request.target.path.clone() }),
        _ => Ok(()),
    }
}

fn internal_redirect(request: &mut Request, path: Bytes, args: Bytes) -> Result<(), Refusal> {
    count_change(request, "internally redirecting to")?;
    if path.is_empty() {
        return Err(Refusal::EmptyPath);
    }
    request.target.path = path;
    *request.target.args.borrow_mut() = args;
    request.route.redirect();
    // Without this an upstream would be asked for the URI that the redirect leads away from.
    request.target.as_sent.set(false);
    request.route.path_replaced = false;
    request.route.path_after_alias = false;
    begin_again(request);
    enter(request, request.server().location);
    Ok(())
}

fn named_location(request: &mut Request, name: &Bytes) -> Result<(), Refusal> {
    count_change(request, "redirect to named location")?;
    if request.target.path.is_empty() {
        return Err(Refusal::NothingForNamed(name.clone()));
    }
    let Some(&location) = request.server().named_locations.get(&name[..]) else {
        return Err(Refusal::NoNamedLocation(name.clone()));
    };
    request.route.redirect();
    begin_again(request);
    enter(request, location);
    Ok(())
}

/// What earlier peers did stays in the variables, marked off from what follows.
fn begin_again(request: &mut Request) {
    if request.upstream.attempts.last().is_some_and(|state| state.address.is_some()) {
        request.upstream.attempts.push(Default::default());
    }
}

/// Makes `location` the one that applies, with its `limit_except` and rules for keep-alive.
pub(crate) fn enter(request: &mut Request, location: LocationId) {
    let generation = Arc::clone(&request.generation);
    let locations = &generation.http().locations;
    request.route.location = location;
    if let Some((exempt, others)) = &locations[location.0].limit_except
        && !is_exempt(exempt, &request.target.method_name)
    {
        request.route.location = *others;
    }
    let settings = &locations[request.route.location.0].settings;
    let connection = &request.connection;
    // Never more than before: what the client or another location has taken away stays so.
    request.fate.keepalive &= !misbehaves(request, settings)
        && !settings.keepalive_timeout.is_zero()
        && connection.requests.get() < settings.keepalive_requests
        && connection.accepted.elapsed() <= settings.keepalive_time;
}

/// `keepalive_disable`: whether the client is a browser that cannot be trusted with a kept connection.
fn misbehaves(request: &Request, settings: &LocationSettings) -> bool {
    let disable = settings.keepalive_disable;
    let after_post = disable.msie6 && request.target.method == Method::Post;
    if !request.fate.keepalive || !(after_post || disable.safari) {
        return false;
    }
    let Some(agent) = request.field("user-agent") else { return false };
    after_post && browser::is_msie6(agent) || disable.safari && browser::is_safari(agent)
}

/// Whether `limit_except` leaves this method alone; GET includes HEAD.
fn is_exempt(exempt: &[Box<[u8]>], method: &[u8]) -> bool {
    let listed = |name: &[u8]| exempt.iter().any(|one| **one == *name);
    listed(method) || (method == b"HEAD" && listed(b"GET"))
}

/// Uses another virtual server, at its own level.
pub(crate) fn enter_server(request: &mut Request, server: ServerId) {
    request.route.server = server;
    request.route.location = request.server().location;
}

/// The phases up to an outcome.
async fn run(exchange: &mut Exchange, start: Start) -> Outcome {
    match prepare(&mut exchange.request, start) {
        Ok(Prepared::Content) => {}
        Ok(Prepared::Return(answer)) => return status::answer(exchange, &answer).await,
        Ok(Prepared::Status(status)) => return Outcome::Status(status),
        Err(refusal) => return refused(exchange, &refusal),
    }
    // Once more, for the location may trust others than the server does.
    real_ip::find(&mut exchange.request);
    // Limits write the request into the log too.
    secrets::learn(&exchange.request);
    let generation = Arc::clone(&exchange.request.generation);
    let location = &generation.http().locations[exchange.request.route.location.0];
    // Before limits: what a foreign page does with a visitor's browser must not count against the visitor.
    if let Err(refusal) = handshake::check(&mut exchange.request, &location.settings) {
        return refused(exchange, &refusal);
    }
    // Before access rules and passwords: to guess those is limited too.
    if let Err(refusal) = limits::check(exchange, &location.settings).await {
        return refused(exchange, &refusal);
    }
    if let Err(refusal) = guard::let_in(exchange, &location.settings).await {
        return refused(exchange, &refusal);
    }
    // Only now: rewrites may have changed the location, and with it how long a body may be.
    exchange.body.bound(&location.settings);
    if let Err(refusal) = subrequest::mirror(exchange, &location.settings).await {
        return refused(exchange, &refusal);
    }
    if let Some(try_files) = &location.settings.try_files
        && let Some(outcome) = try_files::run(&mut exchange.request, location, try_files).await
    {
        return outcome;
    }
    if exchange.request.route.lost_upstream {
        return Outcome::Status(500);
    }
    match &location.content {
        Content::Files => files::serve(exchange, location).await,
        // Boxed, so that what is answered without an upstream is small.
        Content::Proxy(pass) => Box::pin(proxy::proxy(exchange, pass)).await,
        Content::Dashboard(wanted) => {
            let control = wanted.control && guard::may_post(&exchange.request);
            Box::pin(dashboard::dashboard(exchange, Dashboard { control, ..*wanted })).await
        }
        Content::Prometheus => prometheus::prometheus(exchange).await,
        Content::Readiness(_) => status::readiness(exchange).await,
        Content::StubStatus => status::stub_status(exchange).await,
        Content::EmptyGif => status::empty_gif(exchange).await,
    }
}

/// What rewrites and the choice of the location make of a request.
enum Prepared {
    /// The content of its location answers.
    Content,
    /// `return` does.
    Return(Return),
    /// This status does, such as that of a redirect.
    Status(u16),
}

/// Rewrites and the choice of the location, which need no waiting.
fn prepare(request: &mut Request, start: Start) -> Result<Prepared, Refusal> {
    if start == Start::Server {
        match rewrite::run_server(request) {
            Rewritten::Stay | Rewritten::Changed => {}
            Rewritten::Return(answer) => return Ok(Prepared::Return(answer)),
            Rewritten::Status(status) => return Ok(Prepared::Status(status)),
        }
        if let Some(status) = find_location(request)? {
            return Ok(Prepared::Status(status));
        }
    }
    loop {
        match rewrite::run_location(request) {
            Rewritten::Stay => break,
            Rewritten::Return(answer) => return Ok(Prepared::Return(answer)),
            Rewritten::Status(status) => return Ok(Prepared::Status(status)),
            Rewritten::Changed => {
                count_change(request, "processing")?;
                request.route.location = request.server().location;
                if let Some(status) = find_location(request)? {
                    return Ok(Prepared::Status(status));
                }
            }
        }
    }
    Ok(Prepared::Content)
}

/// Looks for the location of the path and applies what it says at once, which may be a redirect: the
/// status of the answer then.
fn find_location(request: &mut Request) -> Result<Option<u16>, Refusal> {
    let generation = Arc::clone(&request.generation);
    let http = generation.http();
    let server = &http.servers[request.route.server.0];
    request.route.lost_upstream = false;
    let found = route::find(request, http, &server.locations);
    let id = match found {
        Found::Location(id) | Found::AddSlash(id) => id,
        Found::Nothing => server.location,
    };
    if !request.route.is_internal() && http.locations[id.0].settings.internal {
        // Refused all the same, but its error pages and logs apply.
        request.route.location = id;
        return Err(Refusal::Internal);
    }
    enter(request, id);
    check_length(request)?;
    if let Found::AddSlash(id) = found {
        request.response.redirect =
            Some(with_slash(&http.locations[id.0].name, &request.target.args.borrow()));
        return Ok(Some(301));
    }
    Ok(None)
}

/// `client_max_body_size` for bodies that say their length.
fn check_length(request: &Request) -> Result<(), Refusal> {
    let max = request.location().settings.client_max_body_size;
    let Some(Framing::Length(len)) = request.arrival.head.as_ref().map(|head| head.framing())
    else {
        return Ok(());
    };
    // A subrequest has no body, whatever the fields of its parent say.
    if max == 0 || len <= max || request.is_subrequest() || request.fate.too_large {
        return Ok(());
    }
    Err(Refusal::TooLarge(len))
}

fn with_slash(name: &[u8], args: &[u8]) -> Bytes {
    let mut url = Vec::with_capacity(name.len() + args.len() + 1);
    escape(&mut url, name, Escape::Uri);
    if !args.is_empty() {
        url.push(b'?');
        url.extend_from_slice(args);
    }
    url.into()
}
