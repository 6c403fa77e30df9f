//! What the answer to a handshake means: functions of bytes.

use wssgate_http1::{Fields, ResponseHead};
use wssgate_ws::handshake::{Oddity, Offer, SwitchError, Switched};

use crate::report::Finding;
use crate::target::Target;

/// The longest text of others in a finding, in characters.
const MAX_SHOWN: usize = 120;

/// What the lines of nginx for WebSockets are; others have the like.
const NGINX_LINES: &str = "`proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; \
                           proxy_set_header Connection \"upgrade\";`";

/// The first line of a text that says something, without what no terminal should see.
pub(crate) fn first_line(body: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(body);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty())?;
    Some(line.chars().take(MAX_SHOWN).collect())
}

/// A header as text.
pub(crate) fn field(fields: &Fields, name: &str) -> Option<String> {
    fields.first(name).map(|value| String::from_utf8_lossy(value).into_owned())
}

/// Judges a 101 as a browser does (RFC 6455 §4.1); gives the subprotocol.
pub(crate) fn switched(
    head: &ResponseHead,
    offer: &Offer,
    offered_protocols: bool,
) -> (Vec<Finding>, Option<String>) {
    match offer.check_answer(head.fields()) {
        Err(error) => (vec![not_switched(&error)], None),
        Ok(Switched::Other) => (vec![not_switched(&SwitchError::NoUpgrade)], None),
        Ok(Switched::WebSocket { subprotocol, oddities, .. }) => {
            let mut findings: Vec<_> = oddities.iter().map(odd).collect();
            if offered_protocols && subprotocol.is_none() {
                findings.push(Finding::fault(
                    "subprotocol_not_chosen",
                    "the server chose none of the subprotocols that were offered; browsers then close \
                     the WebSocket",
                    "configure one of these subprotocols in the app server, or do not offer any",
                ));
            }
            (findings, subprotocol.map(|name| String::from_utf8_lossy(&name).into_owned()))
        }
    }
}

fn not_switched(error: &SwitchError) -> Finding {
    let (code, fix) = match error {
        SwitchError::WrongAccept(_) => (
            "accept_wrong",
            "the response was made for another key: a cache on the path, a hop that performs its \
             own handshakes, or a library that computes it incorrectly",
        ),
        SwitchError::NoAccept | SwitchError::SeveralAccepts => (
            "accept_missing",
            "a hop drops or adds the header, or the app server sends a 101 without supporting \
             WebSocket",
        ),
        _ => (
            "switch_invalid",
            "a hop drops the header (`Upgrade` and `Connection` are hop-by-hop), or the app server \
             switches to something else",
        ),
    };
    Finding::fault(code, format!("the 101 response is invalid: {error}"), fix)
}

fn odd(oddity: &Oddity) -> Finding {
    let (code, fix) = match oddity {
        Oddity::Connection => (
            "connection_missing_in_101",
            "let the last hop respond with `Connection: Upgrade`; browsers require it",
        ),
        Oddity::Subprotocol(_) | Oddity::SeveralSubprotocols => (
            "subprotocol_not_offered",
            "the app server must choose one of the offered subprotocols, or none; offer it with \
             --protocol if clients do",
        ),
        Oddity::Extension(_) => (
            "extension_not_offered",
            "the app server must only choose extensions that were offered",
        ),
    };
    Finding::fault(code, format!("browsers refuse the 101 response: {oddity}"), fix)
}

/// What was told apart by further requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Compared {
    /// The answer is the same without `Upgrade` and `Connection`.
    pub(crate) as_plain: bool,
    /// The same without `Connection`, and another one without both.
    pub(crate) as_without_connection: bool,
    /// The same without `Upgrade`, and another one without both.
    pub(crate) as_without_upgrade: bool,
}

/// What a status means that is neither 101 nor a redirect.
pub(crate) fn refused(
    head: &ResponseHead,
    body: &[u8],
    target: &Target,
    compared: Compared,
) -> Finding {
    let path = &target.path;
    let said = said(head, body);
    match head.status() {
        200..=299 | 405 | 501 => not_upgraded(head, body, &said, compared),
        400 | 426 => bad_request(head, body, &said, compared),
        401 => Finding::fault(
            "login_required",
            format!("the server requires authentication: {said}{}", challenge(head)),
            "pass the credentials as clients do: --header \"Authorization: …\" or --header \
             \"Cookie: …\"; pages cannot set headers for WebSockets, only cookies and subprotocols",
        ),
        403 => Finding::fault(
            "forbidden",
            format!("access is refused, whatever the Origin: {said}"),
            "look for address rules, missing cookies or tokens, and web application firewalls on \
             the path",
        ),
        404 | 410 => Finding::fault(
            "path_not_found",
            format!("there is nothing at {path}: {said}"),
            "check the path of the URL (and its trailing slash), the `location` that should match \
             it, and whether a `proxy_pass` with a path rewrites it",
        ),
        421 => Finding::fault(
            "misdirected",
            format!("the server does not serve this name here: {said}"),
            "check `server_name`, and that SNI and Host are the same name",
        ),
        429 => Finding::fault(
            "too_many_requests",
            format!("the server limits its clients: {said}"),
            "wait, or raise the limit",
        ),
        status => server_error(status, head, &said),
    }
}

/// A response in short: status, and the first line of its body.
fn said(head: &ResponseHead, body: &[u8]) -> String {
    let status = String::from_utf8_lossy(head.status_text()).into_owned();
    match first_line(body) {
        _ if is_html(head, body) => format!("{status}, with a page of HTML"),
        Some(line) => format!("{status}, \"{line}\""),
        None => status,
    }
}

fn is_html(head: &ResponseHead, body: &[u8]) -> bool {
    let kind = head.fields().first("Content-Type");
    kind.is_some_and(|kind| kind.starts_with(b"text/html"))
        || body.trim_ascii_start().starts_with(b"<")
}

fn challenge(head: &ResponseHead) -> String {
    field(head.fields(), "WWW-Authenticate").map_or(String::new(), |value| format!(" ({value})"))
}

/// The request arrived as one that asks for no WebSocket.
fn not_upgraded(head: &ResponseHead, body: &[u8], said: &str, compared: Compared) -> Finding {
    if let Some(finding) = lost(head, body, said, compared) {
        return finding;
    }
    let (what, fix) = match compared.as_plain {
        true => (
            format!("the server responded as to an ordinary request: {said}"),
            format!(
                "a hop dropped `Upgrade` and `Connection`, or nothing at this path speaks WebSocket. Every \
                 hop must set them again (nginx and wssgate: {NGINX_LINES}); check the path as well"
            ),
        ),
        false => (
            format!("the server saw the upgrade request but did not switch protocols: {said}"),
            "check that the path is that of the WebSocket, and check the app server's \
             log"
            .to_owned(),
        ),
    };
    Finding::fault("upgrade_ignored", what, fix)
}

/// Which of the two headers was lost on the way, if it seems that only one was.
///
/// Who refuses for a reason of its own may do so without one of the headers as well; it gives the reason.
fn lost(head: &ResponseHead, body: &[u8], said: &str, compared: Compared) -> Option<Finding> {
    let has_reason = !is_html(head, body)
        && first_line(body).is_some_and(|line| {
            let generic = String::from_utf8_lossy(head.reason());
            !line.to_ascii_lowercase().contains(&generic.to_ascii_lowercase())
        });
    let (code, name) = match (compared.as_without_connection, compared.as_without_upgrade) {
        _ if compared.as_plain || has_reason => return None,
        (true, false) => ("connection_header_lost", "Connection"),
        (false, true) => ("upgrade_header_lost", "Upgrade"),
        _ => return None,
    };
    let mut finding = lost_header(code, name, said);
    finding.what = format!(
        "the header `{name}` seems to be lost on the way: without it, the response is the same ({said})"
    );
    Some(finding)
}

fn lost_header(code: &'static str, name: &str, said: &str) -> Finding {
    Finding::fault(
        code,
        format!("the header `{name}` is lost on the way: {said}"),
        format!("every hop must set both headers again (nginx and wssgate: {NGINX_LINES})"),
    )
}

/// 400 and 426: app servers say which header they miss.
fn bad_request(head: &ResponseHead, body: &[u8], said: &str, compared: Compared) -> Finding {
    let text = String::from_utf8_lossy(body).to_ascii_lowercase();
    if text.contains("plain http request was sent to https port")
        || text.contains("http request to an https server")
    {
        return tls_port(said);
    }
    let version = field(head.fields(), "Sec-WebSocket-Version");
    if version.is_some_and(|version| !version.split(',').any(|one| one.trim() == "13")) {
        return Finding::fault(
            "websocket_version",
            format!("the server does not support WebSocket version 13 (RFC 6455): {said}"),
            "update the app server",
        );
    }
    if let Some(finding) = lost(head, body, said, compared) {
        return finding;
    }
    for (word, code, name) in [
        ("sec-websocket-key", "websocket_headers_lost", "Sec-WebSocket-Key"),
        ("sec-websocket-version", "websocket_headers_lost", "Sec-WebSocket-Version"),
        ("'connection' header", "connection_header_lost", "Connection"),
        ("connection header", "connection_header_lost", "Connection"),
        ("\"connection\" must be", "connection_header_lost", "Connection"),
        ("upgrade header", "upgrade_header_lost", "Upgrade"),
        ("upgrade hdr", "upgrade_header_lost", "Upgrade"),
        ("can \"upgrade\" only to", "upgrade_header_lost", "Upgrade"),
    ] {
        if text.contains(word) {
            return lost_header(code, name, said);
        }
    }
    if head.status() == 426 || compared.as_plain {
        return not_upgraded(head, body, said, compared);
    }
    Finding::fault(
        "bad_request",
        format!("the server does not accept the handshake: {said}"),
        "check the app server's log; an argument, a token or a subprotocol may be missing",
    )
}

/// What answers `ws://` where TLS is expected.
pub(crate) fn tls_port(said: &str) -> Finding {
    Finding::fault(
        "tls_on_plain_port",
        format!("the port expects TLS and got a plain request: {said}"),
        "use wss:// for this port",
    )
}

fn server_error(status: u16, head: &ResponseHead, said: &str) -> Finding {
    let who = match field(head.fields(), "Server") {
        Some(server) => format!("the proxy on the way (it calls itself {server})"),
        None => "the proxy on the way".to_owned(),
    };
    match status {
        502 | 521 | 523 => Finding::fault(
            "backend_down",
            format!("{who} cannot reach the app server: {said}"),
            "start the app server; check that the proxy connects to the right address and port, \
             and over http or https as the app server expects",
        ),
        503 => Finding::fault(
            "backend_unavailable",
            format!("no app server is available, or one is overloaded: {said}"),
            "look for servers that are down or draining, connection limits and maintenance pages",
        ),
        504 | 522 | 524 => Finding::fault(
            "backend_timeout",
            format!("the app server did not respond to {who} in time: {said}"),
            "look for an app server that hangs, and firewalls between the proxy and the app server",
        ),
        525 | 526 => Finding::fault(
            "backend_tls",
            format!("{who} cannot establish TLS with the app server: {said}"),
            "give the app server a valid certificate that the proxy trusts",
        ),
        500..=599 => Finding::fault(
            "server_error",
            format!("the server reports an error: {said}"),
            "check the app server's log",
        ),
        _ => Finding::fault(
            "unexpected_status",
            format!("the server responds to the handshake with {said}"),
            "check the log of the server that responds",
        ),
    }
}

/// What bytes are that are no HTTP.
pub(crate) fn not_http(bytes: &[u8]) -> Finding {
    let first = &bytes[..bytes.len().min(24)];
    match bytes {
        // A frame of HTTP/2 with the type SETTINGS on stream 0 (RFC 9113 §4.1, §6.5).
        [0, _, _, 4, _, 0, 0, 0, 0, ..] => Finding::fault(
            "http2_only",
            "the server speaks only HTTP/2, without having been asked to",
            "enable HTTP/1.1 on this port: clients use it to open WebSockets",
        ),
        [0x15, 3, ..] => tls_port("a TLS alert"),
        _ => Finding::fault(
            "not_http",
            format!("the service there does not speak HTTP; it sent \"{}\"", first.escape_ascii()),
            "check the port of the URL and where the proxy connects to",
        ),
    }
}
