//! `dashboard`: the page for operators, its files, and the way to those who answer it.
//!
//! Everything is below the path of the location, and every URL in the page is relative. Files need nothing but
//! themselves, and the policy holds browsers to that. What the page asks for is answered elsewhere
//! ([`crate::dashboard`]); here it is decided who may ask.

use std::sync::LazyLock;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use serde_json::json;
use wssgate_config::model::{Dashboard, VerifyClient};
use wssgate_http1::Method;

use crate::content::{self, Outcome};
use crate::dashboard::Asked;
use crate::exchange::{Exchange, Reply, Request, identity};

/// What a browser lets the page do: run scripts and use styles from where it came from, and talk to that.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'";

/// Fields of every answer.
const FIELDS: [(&str, &str); 6] = [
    ("Content-Security-Policy", POLICY),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
];

/// The header that only the page's own script sends with what changes something.
const HEADER: &str = "x-wssgate";

/// A file of the page.
struct File {
    name: &'static str,
    kind: &'static str,
    text: &'static str,
}

macro_rules! files {
    ($($name:literal: $kind:literal,)+) => {
        &[$(File { name: $name, kind: $kind, text: include_str!(concat!("dashboard/", $name)) },)+]
    };
}

/// The page is the first.
static FILES: &[File] = files! {
    "page.html": "text/html; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
    "app.js": "text/javascript; charset=utf-8",
    "actions.js": "text/javascript; charset=utf-8",
    "chart.js": "text/javascript; charset=utf-8",
    "dom.js": "text/javascript; charset=utf-8",
    "format.js": "text/javascript; charset=utf-8",
    "server.js": "text/javascript; charset=utf-8",
    "sockets.js": "text/javascript; charset=utf-8",
    "theme.js": "text/javascript; charset=utf-8",
};

/// The entity tags of files, in their order.
static TAGS: LazyLock<Vec<Bytes>> = LazyLock::new(|| {
    let tag = |file: &File| {
        let sum = digest(&SHA256, file.text.as_bytes());
        let half = u64::from_be_bytes(*sum.as_ref().first_chunk().expect("longer than that"));
        Bytes::from(format!("\"{half:016x}\""))
    };
    FILES.iter().map(tag).collect()
});

/// What a path below the location stands for.
#[derive(Debug, PartialEq, Eq)]
enum Place<'p> {
    /// The page, but for its final slash.
    AddSlash,
    /// The file with this number.
    File(usize),
    /// A request to those who answer.
    Api(&'p str),
    Nothing,
}

impl<'p> Place<'p> {
    fn of(location: &[u8], path: &'p [u8]) -> Self {
        let location = location.strip_suffix(b"/").unwrap_or(location);
        let rest = match path.strip_prefix(location) {
            Some(b"") => return Self::AddSlash,
            Some([b'/', rest @ ..]) => rest,
            _ => return Self::Nothing,
        };
        let Ok(rest) = std::str::from_utf8(rest) else { return Self::Nothing };
        if let Some(api) = rest.strip_prefix("api/") {
            return Self::Api(api);
        }
        let name = if rest.is_empty() { FILES[0].name } else { rest };
        FILES.iter().position(|file| file.name == name).map_or(Self::Nothing, Self::File)
    }
}

/// Answers with the page, one of its files, or what it asks for.
pub(crate) async fn dashboard(exchange: &mut Exchange, wanted: Dashboard) -> Outcome {
    let request = &mut exchange.request;
    // Nobody was asked who it is for, so it gets into no other page.
    if request.is_subrequest() {
        return Outcome::Status(403);
    }
    if wanted.by_address && !names_the_server(request) {
        let text = "this name is no server_name of the server, so a page of others may have sent the browser here\n";
        return tell(exchange, 421, "text/plain", text.into(), "no-store").await;
    }
    // An `error_page` for those without one may lead here.
    if wanted.certified && !is_certified(request) {
        return Outcome::Status(403);
    }
    let path = request.target.path.clone();
    match Place::of(&request.location().name, &path) {
        Place::AddSlash => {
            request.response.redirect = Some([&path[..], b"/"].concat().into());
            Outcome::Status(301)
        }
        Place::File(number) => file(exchange, number).await,
        Place::Api(path) => ask(exchange, wanted, path).await,
        Place::Nothing => Outcome::Status(404),
    }
}

/// Whether the client has shown a certificate that was found good.
fn is_certified(request: &Request) -> bool {
    let tls = request.connection.tls.as_ref();
    tls.is_some_and(|tls| tls.refusal(VerifyClient::On).is_none())
}

/// Whether `Host` is an address, or a name that the configuration gives this server.
fn names_the_server(request: &Request) -> bool {
    let host = &request.arrival.host;
    let is_address = host.starts_with(b"[")
        || std::str::from_utf8(host).is_ok_and(|host| host.parse::<std::net::IpAddr>().is_ok());
    let socket = request.http().sockets.get(request.connection.socket);
    let mut routes = socket.into_iter().flat_map(|socket| &socket.routes);
    is_address
        || matches!(&host[..], b"localhost" | b"")
        || routes.any(|route| {
            route.names.find(host).is_some_and(|(server, _)| *server == request.route.server)
        })
}

async fn file(exchange: &mut Exchange, number: usize) -> Outcome {
    if !matches!(exchange.request.target.method, Method::Get | Method::Head) {
        return Outcome::Status(405);
    }
    if let Err(error) = exchange.body.will_discard().await {
        return Outcome::Status(error.status());
    }
    let file = &FILES[number];
    let mut reply = reply(200, file.kind, file.text.len(), "no-cache");
    reply.push("ETag", TAGS[number].clone());
    content::send_conditional(exchange, reply, Bytes::from_static(file.text.as_bytes())).await
}

async fn ask(exchange: &mut Exchange, wanted: Dashboard, path: &str) -> Outcome {
    let request = &exchange.request;
    let method = match request.target.method {
        Method::Get | Method::Head => Method::Get,
        Method::Post => Method::Post,
        _ => return refuse(exchange, 405, "GET or POST is expected here").await,
    };
    if method == Method::Post {
        if !wanted.control {
            return refuse(
                exchange,
                403,
                "this dashboard only shows: `dashboard control;` allows more",
            )
            .await;
        }
        if !is_own(request) {
            return refuse(exchange, 403, "only the dashboard's own page may do that").await;
        }
    }
    let (path, args) = (path.to_owned(), request.target.args.borrow().clone());
    let asked = Asked { method, path, args, control: wanted.control, by: who(request) };
    let Some(desk) = request.site.desk.clone() else { return Outcome::Status(503) };
    if let Err(error) = exchange.body.will_discard().await {
        return Outcome::Status(error.status());
    }
    match desk.ask(asked).await {
        Some(answered) => {
            tell(exchange, answered.status, "application/json", answered.body.into(), "no-store")
                .await
        }
        None => refuse(exchange, 503, "too many requests of dashboards at a time").await,
    }
}

/// Whether the page itself asks and no page of others: what changes something has a header that no form can send, and
/// that other sites may send only with leave, which nobody gives. The browser says besides where the page is from.
fn is_own(request: &Request) -> bool {
    let Some(head) = &request.arrival.head else { return false };
    let only = |name| {
        let mut all = head.fields().all(name);
        all.next().filter(|_| all.next().is_none())
    };
    if only(HEADER) != Some(b"1") {
        return false;
    }
    match head.fields().first("sec-fetch-site") {
        Some(_) => only("sec-fetch-site") == Some(b"same-origin"),
        // Browsers send it only to https and to this machine.
        None => only("origin").is_some_and(|origin| is_origin_of(request, origin)),
    }
}

/// Whether a page of this origin is one of the host that is asked.
fn is_origin_of(request: &Request, origin: &[u8]) -> bool {
    let (default_port, rest) = match origin {
        [b'h', b't', b't', b'p', b's', b':', b'/', b'/', rest @ ..] => (443, rest),
        [b'h', b't', b't', b'p', b':', b'/', b'/', rest @ ..] => (80, rest),
        _ => return false,
    };
    // The colons of an IPv6 address stand in brackets.
    let name_end = rest.iter().rposition(|&b| b == b']').map_or(0, |at| at + 1);
    let colon = rest[name_end..].iter().position(|&b| b == b':').map(|at| at + name_end);
    let (name, port) = match colon {
        None => (rest, Some(default_port)),
        Some(at) => {
            let port = std::str::from_utf8(&rest[at + 1..]).ok();
            (&rest[..at], port.and_then(|port| port.parse().ok()))
        }
    };
    let arrival = &request.arrival;
    !arrival.host.is_empty()
        && name.eq_ignore_ascii_case(&arrival.host)
        && port == Some(arrival.port.unwrap_or(default_port))
}

/// Who asks, for the log: a name only if the access phase has verified it.
fn who(request: &Request) -> String {
    let address = request.client_text();
    let token = identity::token(request);
    let subject = token.and_then(|token| token.claim(&[b"sub".as_slice().into()]));
    match subject.or_else(|| request.identity.user()) {
        Some(user) => format!("{} ({address})", wssgate_syntax::printable(&user)),
        None => address,
    }
}

async fn refuse(exchange: &mut Exchange, status: u16, why: &str) -> Outcome {
    if let Err(error) = exchange.body.will_discard().await {
        return Outcome::Status(error.status());
    }
    let body = json!({"error": why}).to_string();
    tell(exchange, status, "application/json", body.into(), "no-store").await
}

async fn tell(
    exchange: &mut Exchange,
    status: u16,
    kind: &'static str,
    body: Bytes,
    keeping: &'static str,
) -> Outcome {
    let reply = reply(status, kind, body.len(), keeping);
    content::send(exchange, reply, body).await
}

fn reply(status: u16, kind: &'static str, len: usize, keeping: &'static str) -> Reply {
    let mut reply = Reply::new(status);
    reply.content_type = Some(Bytes::from_static(kind.as_bytes()));
    reply.length = Some(len as u64);
    reply.push("Cache-Control", Bytes::from_static(keeping.as_bytes()));
    for (name, value) in FIELDS {
        reply.push(name, Bytes::from_static(value.as_bytes()));
    }
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_below_the_location() {
        for (location, path, expected) in [
            ("/d/", "/d/", Place::File(0)),
            ("/d", "/d", Place::AddSlash),
            ("/d", "/d/", Place::File(0)),
            ("/d", "/d/style.css", Place::File(1)),
            ("/d/", "/d/api/tunnels/7/close", Place::Api("tunnels/7/close")),
            ("/", "/api/overview", Place::Api("overview")),
            ("/", "/", Place::File(0)),
            ("/d", "/dd", Place::Nothing),
            ("/d/", "/d/none.js", Place::Nothing),
            ("/d/", "/other/", Place::Nothing),
            ("/d/", "/d/dashboard/page.html", Place::Nothing),
        ] {
            assert_eq!(
                Place::of(location.as_bytes(), path.as_bytes()),
                expected,
                "{location} {path}"
            );
        }
    }

    #[test]
    fn the_page_needs_nothing_that_is_not_below_it() {
        let tags: std::collections::HashSet<_> = TAGS.iter().collect();
        assert_eq!(tags.len(), FILES.len());
        for File { name, text, .. } in FILES {
            // The policy would forbid these; and an absolute URL would miss the location.
            for what in
                [" style=\"", " onclick=", "innerHTML", "@import", "url(", "href=\"/", "src=\"/"]
            {
                assert!(!text.contains(what), "{name}: {what}");
            }
            let foreign = text.replace("http://www.w3.org/2000/svg", "");
            assert!(!foreign.contains("http://") && !foreign.contains("https://"), "{name}");
        }
        let page = FILES[0].text;
        for tag in ["<script>", "<style>"] {
            assert!(!page.contains(tag), "{tag}");
        }
    }
}
