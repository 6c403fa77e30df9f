//! The WebSocket handshake, and what is tried when it is refused.

use std::time::Duration;

use wssgate_http1::ResponseHead;

use crate::answer::{self, Compared, field, first_line, refused};
use crate::exchange::{Answered, Ask, Route, Unanswered};
use crate::facts::{HandshakeFacts, HopsFacts, ms};
use crate::redirect::{Redirect, is_login};
use crate::report::Finding;
use crate::socket::Socket;

/// So many redirects are followed.
const MAX_REDIRECTS: usize = 5;

/// What a handshake has come to.
pub(crate) struct Done {
    pub(crate) findings: Vec<Finding>,
    pub(crate) facts: HandshakeFacts,
    /// The first response, for those who want to know who stands between.
    pub(crate) head: Option<ResponseHead>,
    /// The connection, when it is a WebSocket.
    pub(crate) socket: Option<Socket>,
}

/// Makes the handshake of a browser.
pub(crate) fn examine(route: &Route<'_>) -> Done {
    let ask = Ask::usual(route.target, route.settings);
    let mut facts = HandshakeFacts { origin: ask.origin.clone(), ..HandshakeFacts::default() };
    let answered = match route.exchange(&ask) {
        Ok(answered) => answered,
        Err(why) => {
            let findings = vec![unanswered(&why, route)];
            return Done { findings, facts, head: None, socket: None };
        }
    };
    let head = answered.head.clone();
    facts.status = Some(head.status());
    facts.response_ms = Some(ms(answered.took));
    let mut findings = slow(answered.took, route);
    let mut socket = None;
    match head.status() {
        101 => {
            let more = accept(route, answered, &mut facts);
            findings.extend(more.0);
            socket = more.1;
        }
        300..=399 => {
            facts.body = first_line(&answered.body);
            findings.push(redirected(route, &head, &mut facts));
        }
        _ => {
            facts.body = first_line(&answered.body);
            findings.push(explain(route, &ask, &answered, &mut facts));
        }
    }
    if !route.target.tls && !route.target.host.is_private() {
        findings.push(Finding::warning(
            "not_tls_url",
            "pages from https:// cannot open ws:// (except to localhost), and WeChat mini programs and \
             iOS apps refuse it",
            "terminate TLS in front of it and use wss://",
        ));
    }
    Done { findings, facts, head: Some(head), socket }
}

fn slow(took: Duration, route: &Route<'_>) -> Vec<Finding> {
    if took <= route.settings.slow {
        return Vec::new();
    }
    vec![Finding::warning(
        "slow_response",
        format!("the response to the handshake took {:.1} s", took.as_secs_f64()),
        "check what the app server does before it accepts a WebSocket (sessions, databases, other \
         services), and for app servers that are down and tried first by the proxy",
    )]
}

/// Judges a 101.
fn accept(
    route: &Route<'_>,
    answered: Answered,
    facts: &mut HandshakeFacts,
) -> (Vec<Finding>, Option<Socket>) {
    let Answered { head, offer, wire, rest, .. } = answered;
    let Some(offer) = offer else { return (Vec::new(), None) };
    let (findings, subprotocol) =
        answer::switched(&head, &offer, !route.settings.protocols.is_empty());
    facts.subprotocol = subprotocol;
    facts.extensions = field(head.fields(), "Sec-WebSocket-Extensions");
    let socket = findings.is_empty().then(|| Socket::new(wire, rest, route.target.tls));
    (findings, socket)
}

fn unanswered(why: &Unanswered, route: &Route<'_>) -> Finding {
    let timeout = route.settings.timeout.as_secs_f64();
    match why {
        Unanswered::NotHttp(bytes) => answer::not_http(bytes),
        Unanswered::Late => Finding::fault(
            "response_timeout",
            format!("no response to the handshake within {timeout} s"),
            "look for an app server that hangs or does not see the request, and a proxy that waits for it",
        ),
        Unanswered::Closed(how) => Finding::fault(
            "no_response",
            format!("the connection was ended by {how} instead of a response"),
            "check the error logs of the proxy and the app server: a crash, `return 444;`, or an \
             app server that expects TLS or another protocol from its proxy",
        ),
        Unanswered::NoClientCertificate => Finding::fault(
            "client_certificate_required",
            "the server requires a client certificate",
            "pages and mini programs rarely have one: make it optional (`ssl_verify_client optional;`) or \
             let such clients use another name",
        ),
        Unanswered::Unconnected(why) => Finding::fault(
            "connection_lost",
            format!("a second connection to {} failed: {why}", route.address),
            "look for connection limits and firewalls that count connections",
        ),
    }
}

/// Why a handshake was refused: further requests tell.
fn explain(
    route: &Route<'_>,
    ask: &Ask,
    answered: &Answered,
    facts: &mut HandshakeFacts,
) -> Finding {
    let status = answered.head.status();
    if (400..=404).contains(&status)
        && let Some(finding) = other_origins(route, ask, status, facts)
    {
        return finding;
    }
    let is_unclear = matches!(status, 200..=299 | 400 | 404 | 405 | 426 | 501);
    let compared =
        if is_unclear { compare(route, ask, answered, facts) } else { Compared::default() };
    refused(&answered.head, &answered.body, route.target, compared)
}

/// Tries without an `Origin` and with that of the server.
fn other_origins(
    route: &Route<'_>,
    ask: &Ask,
    status: u16,
    facts: &mut HandshakeFacts,
) -> Option<Finding> {
    let own = route.target.origin();
    let others = [None, Some(own)].into_iter().filter(|origin| *origin != ask.origin);
    for origin in others {
        let what = match &origin {
            None => "without Origin".to_owned(),
            Some(origin) => format!("with Origin {origin}"),
        };
        let answer = route.exchange(&Ask { origin, ..ask.clone() });
        note(facts, &what, &answer);
        if matches!(&answer, Ok(answered) if answered.head.status() == 101) {
            let sent = ask.origin.as_deref().unwrap_or("none");
            return Some(Finding::fault(
                "origin_refused",
                format!(
                    "the server rejects pages from the origin {sent} ({status}), but accepts the \
                     handshake {what}"
                ),
                format!(
                    "add {sent} to the origins that the app server (or `websocket_origin`) allows; \
                     if it compares Origin with Host, have every hop pass Host on \
                     (`proxy_set_header Host $host;`)"
                ),
            ));
        }
    }
    None
}

/// Sends the request without one of `Upgrade` and `Connection`, and without both.
fn compare(
    route: &Route<'_>,
    ask: &Ask,
    answered: &Answered,
    facts: &mut HandshakeFacts,
) -> Compared {
    let mut same = |upgrade, connection, what: &str| {
        let answer = route.exchange(&Ask { upgrade, connection, ..ask.clone() });
        note(facts, what, &answer);
        answer.is_ok_and(|other| print(&other) == print(answered))
    };
    if same(false, false, "without Upgrade and Connection") {
        return Compared { as_plain: true, ..Compared::default() };
    }
    Compared {
        as_plain: false,
        as_without_connection: same(true, false, "without Connection"),
        as_without_upgrade: same(false, true, "without Upgrade"),
    }
}

/// By what two answers are compared: dates and identifiers differ in any two.
fn print(answered: &Answered) -> (u16, Option<String>) {
    (answered.head.status(), first_line(&answered.body))
}

fn note(facts: &mut HandshakeFacts, what: &str, answer: &Result<Answered, Unanswered>) {
    facts.tried.push(match answer {
        Ok(answered) => {
            let status = String::from_utf8_lossy(answered.head.status_text()).into_owned();
            format!("{what}: {status}")
        }
        Err(why) => format!("{what}: {}", why.words()),
    });
}

/// Follows redirects as far as they stay at the same server: clients of WebSockets do not.
fn redirected(route: &Route<'_>, first: &ResponseHead, facts: &mut HandshakeFacts) -> Finding {
    let status = first.status();
    let (mut head, mut seen) = (first.clone(), vec![route.target.path.clone()]);
    for _ in 0..MAX_REDIRECTS {
        let path = seen.last().cloned().unwrap_or_default();
        let Some(location) = field(head.fields(), "Location") else {
            return Finding::fault(
                "redirect",
                format!("the server responds with {status} without a Location"),
                "check the configuration of the server that responds",
            );
        };
        let next = match Redirect::read(&location, route.target, &path) {
            Redirect::Here(next) => next,
            Redirect::ToTls(url) => return to_tls(status, &url),
            Redirect::Elsewhere(url) => return elsewhere(status, &url),
        };
        if seen.contains(&next) {
            return loops(status, &next);
        }
        if is_login(&next) {
            return elsewhere(status, &next);
        }
        let ask = Ask { path: next.clone(), ..Ask::usual(route.target, route.settings) };
        let answer = route.exchange(&ask);
        note(facts, &next, &answer);
        seen.push(next.clone());
        match answer {
            Ok(answered) if (300..=399).contains(&answered.head.status()) => head = answered.head,
            _ => return elsewhere(status, &next),
        }
    }
    loops(status, seen.last().map_or("/", String::as_str))
}

fn to_tls(status: u16, url: &str) -> Finding {
    Finding::fault(
        "redirect_to_tls",
        format!(
            "the server redirects to TLS ({status}); WebSocket clients do not follow redirects"
        ),
        format!("use {url}"),
    )
}

fn loops(status: u16, path: &str) -> Finding {
    Finding::fault(
        "redirect_loop",
        format!("the server redirects {path} to itself ({status})"),
        "behind a proxy that terminates TLS, the app server sees http but requires https: have the \
         proxy say so (`proxy_set_header X-Forwarded-Proto $scheme;`) and the app server trust it, \
         or disable its redirect",
    )
}

fn elsewhere(status: u16, location: &str) -> Finding {
    if is_login(location) {
        return Finding::fault(
            "login_required",
            format!("the server requires authentication: it redirects to {location} ({status})"),
            "pass the cookies of a session: --header \"Cookie: …\"",
        );
    }
    Finding::fault(
        "redirect",
        format!(
            "the server redirects to {location} ({status}); WebSocket clients do not follow \
             redirects"
        ),
        "use that URL, or remove the redirect for this path",
    )
}

/// Who stands between, as far as the response says it.
pub(crate) fn hops(head: &ResponseHead, response: Option<f64>, round_trip: Duration) -> HopsFacts {
    let fields = head.fields();
    let services = SERVICES.iter().filter(|(header, _)| fields.contains(header));
    HopsFacts {
        server: field(fields, "Server"),
        via: field(fields, "Via"),
        hops: field(fields, "X-WebSocket-Hops"),
        services: services.map(|(_, service)| (*service).to_owned()).collect(),
        behind_ms: response.map(|response| (response - ms(round_trip)).max(0.0)),
    }
}

/// Headers that only these services send.
const SERVICES: &[(&str, &str)] = &[
    ("CF-Ray", "Cloudflare"),
    ("X-Amz-Cf-Id", "Amazon CloudFront"),
    ("X-Azure-Ref", "Azure Front Door"),
    ("X-Fastly-Request-ID", "Fastly"),
    ("X-Envoy-Upstream-Service-Time", "Envoy"),
    ("X-Kong-Proxy-Latency", "Kong"),
    ("Fly-Request-Id", "Fly.io"),
    ("X-Vercel-Id", "Vercel"),
    ("EagleId", "Alibaba Cloud CDN"),
];
