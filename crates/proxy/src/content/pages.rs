//! Answers that are only a status: `error_page`, and nginx's built-in pages byte for byte.

use std::sync::Arc;

use bytes::Bytes;
use wssgate_config::model::{ErrorPage, ErrorPageStatus};
use wssgate_http1::Version;

use crate::content::{self, Outcome};
use crate::exchange::response::server_name;
use crate::exchange::{Exchange, Reply, Request};

/// Behind a page of an error it keeps old browsers from showing one of their own.
const PADDING: &str = "<!-- a padding to disable MSIE and Chrome friendly error page -->\r\n";

/// Answers a status: by an `error_page`, a built-in page, or by closing.
pub(crate) async fn special(exchange: &mut Exchange, status: u16) -> Outcome {
    let request = &mut exchange.request;
    if matches!(status, 408 | 444 | 499) || exchange.response.begun() || exchange.body.is_broken() {
        return close(exchange, status);
    }
    request.response.error_status = status;
    // nginx's lists, this one and the next.
    if matches!(status, 400 | 413 | 414 | 495..=497 | 500 | 501) {
        request.fate.keepalive = false;
    }
    if matches!(status, 400 | 495..=497) {
        request.fate.lingering = false;
    }
    let generation = Arc::clone(&request.generation);
    let settings = &generation.http().locations[request.route.location.0].settings;
    if request.has_error_page(status) {
        request.route.error_page = !settings.recursive_error_pages;
        let page = settings.error_pages.iter().find(|page| page.statuses.contains(&status));
        if let Some(page) = page {
            return error_page(exchange, page).await;
        }
    }
    exchange.body.forget_continue();
    if matches!(status, 494..=497) {
        exchange.request.response.error_status = 400;
    }
    built_in(exchange, status).await
}

/// Ends the connection without an answer; the log line says why.
fn close(exchange: &mut Exchange, status: u16) -> Outcome {
    let response = &mut exchange.request.response;
    if !response.head_sent {
        response.status = status;
        response.error_status = 0;
    }
    Outcome::Close
}

async fn error_page(exchange: &mut Exchange, page: &ErrorPage) -> Outcome {
    let request = &mut exchange.request;
    let response = match (page.response, request.response.error_status) {
        // nginx's own numbers are for `error_page` alone; a client gets one that HTTP knows.
        (ErrorPageStatus::Original, 494..=497) => ErrorPageStatus::Fixed(400),
        (response, _) => response,
    };
    match response {
        ErrorPageStatus::Original => {}
        // With nothing set, the status of whatever answers there is the one.
        ErrorPageStatus::OfPage => request.response.error_status = 0,
        ErrorPageStatus::Fixed(status) => {
            request.response.error_status = status;
            if status != 200 {
                exchange.body.forget_continue();
            }
        }
    }
    let uri = request.text(&page.uri);
    match uri.first() {
        Some(b'/') => {
            // What the request that failed wanted, and its body, is not for the page.
            request.target.fetch();
            let (path, args) = split_args(&uri);
            Outcome::InternalRedirect { path, args }
        }
        Some(b'@') => Outcome::NamedLocation(uri),
        _ => {
            exchange.body.forget_continue();
            let status = match response {
                ErrorPageStatus::Fixed(status @ (301 | 302 | 303 | 307 | 308)) => status,
                _ => 302,
            };
            request.response.error_status = status;
            request.response.redirect = Some(uri);
            built_in(exchange, status).await
        }
    }
}

/// Path and arguments of a URI made for an internal redirect.
pub(crate) fn split_args(uri: &Bytes) -> (Bytes, Bytes) {
    match uri.iter().position(|&b| b == b'?') {
        Some(at) => (uri.slice(..at), uri.slice(at + 1..)),
        None => (uri.clone(), Bytes::new()),
    }
}

/// The built-in page of a status, or none for those that have none.
async fn built_in(exchange: &mut Exchange, status: u16) -> Outcome {
    let request = &mut exchange.request;
    let body = page_for(request, status);
    let mut reply = Reply::new(request.response.error_status);
    reply.length = Some(body.len() as u64);
    if !body.is_empty() {
        reply.content_type = Some(Bytes::from_static(b"text/html"));
    }
    content::send(exchange, reply, body).await
}

fn page_for(request: &Request, status: u16) -> Bytes {
    let Some((title, heading, detail)) = page_text(status) else {
        return Bytes::new();
    };
    let settings = &request.location().settings;
    let server = server_name(&settings.server_tokens);
    let detail = detail.map(|text| format!("<center>{text}</center>\r\n")).unwrap_or_default();
    let mut page = format!(
        "<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n\
         <center><h1>{heading}</h1></center>\r\n{detail}\
         <hr><center>{server}</center>\r\n</body>\r\n</html>\r\n"
    );
    if settings.msie_padding
        && status >= 400
        && request.arrival.version != Version::Http09
        && wants_padding(request)
    {
        page.push_str(&PADDING.repeat(6));
    }
    page.into()
}

/// Whether the client calls itself Internet Explorer or Chrome.
fn wants_padding(request: &Request) -> bool {
    request.field("user-agent").is_some_and(is_msie_or_chrome)
}

fn is_msie_or_chrome(agent: &[u8]) -> bool {
    let position = |text: &[u8]| agent.windows(text.len()).position(|part| part == text);
    if position(b"Opera").is_some() {
        return false;
    }
    let msie = position(b"MSIE ").is_some_and(|at| at + 7 < agent.len());
    msie || (position(b"Gecko/").is_none() && position(b"Chrome/").is_some())
}

/// Title, heading and a further line of the page for a status.
fn page_text(status: u16) -> Option<(&'static str, &'static str, Option<&'static str>)> {
    const BAD: &str = "400 Bad Request";
    let detail = match status {
        494 => {
            Some(("400 Request Header Or Cookie Too Large", "Request Header Or Cookie Too Large"))
        }
        495 => Some(("400 The SSL certificate error", "The SSL certificate error")),
        496 => Some((
            "400 No required SSL certificate was sent",
            "No required SSL certificate was sent",
        )),
        497 => Some((
            "400 The plain HTTP request was sent to HTTPS port",
            "The plain HTTP request was sent to HTTPS port",
        )),
        _ => None,
    };
    if let Some((title, text)) = detail {
        return Some((title, BAD, Some(text)));
    }
    // 498 is nginx's own and has the page of 404.
    let status = if status == 498 { 404 } else { status };
    let at = TITLES.binary_search_by_key(&status, |(status, _)| *status).ok()?;
    Some((TITLES[at].1, TITLES[at].1, None))
}

/// Statuses that have a page, in order.
const TITLES: [(u16, &str); 31] = [
    (301, "301 Moved Permanently"),
    (302, "302 Found"),
    (303, "303 See Other"),
    (307, "307 Temporary Redirect"),
    (308, "308 Permanent Redirect"),
    (400, "400 Bad Request"),
    (401, "401 Authorization Required"),
    (402, "402 Payment Required"),
    (403, "403 Forbidden"),
    (404, "404 Not Found"),
    (405, "405 Not Allowed"),
    (406, "406 Not Acceptable"),
    (407, "407 Proxy Authentication Required"),
    (408, "408 Request Time-out"),
    (409, "409 Conflict"),
    (410, "410 Gone"),
    (411, "411 Length Required"),
    (412, "412 Precondition Failed"),
    (413, "413 Request Entity Too Large"),
    (414, "414 Request-URI Too Large"),
    (415, "415 Unsupported Media Type"),
    (416, "416 Requested Range Not Satisfiable"),
    (421, "421 Misdirected Request"),
    (429, "429 Too Many Requests"),
    (500, "500 Internal Server Error"),
    (501, "501 Not Implemented"),
    (502, "502 Bad Gateway"),
    (503, "503 Service Temporarily Unavailable"),
    (504, "504 Gateway Time-out"),
    (505, "505 HTTP Version Not Supported"),
    (507, "507 Insufficient Storage"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_found_by_status() {
        for (status, title) in [
            (404, Some("404 Not Found")),
            (497, Some("400 The plain HTTP request was sent to HTTPS port")),
            (498, Some("404 Not Found")),
            (507, Some("507 Insufficient Storage")),
            (204, None),
            (418, None),
            (304, None),
            (506, None),
        ] {
            assert_eq!(page_text(status).map(|page| page.0), title, "{status}");
        }
        assert!(TITLES.is_sorted());
    }

    #[test]
    fn only_some_browsers_get_padding() {
        for (agent, expected) in [
            ("Mozilla/4.0 (compatible; MSIE 6.0; Windows)", true),
            ("Mozilla/5.0 (X11) AppleWebKit/5 (KHTML, like Gecko) Chrome/99 Safari/5", true),
            ("Mozilla/5.0 Gecko/2010 Firefox/115", false),
            ("Mozilla/4.0 (compatible; MSIE 6.0; X) Opera 8", false),
            ("curl/8", false),
            ("MSIE 6", false),
        ] {
            assert_eq!(is_msie_or_chrome(agent.as_bytes()), expected, "{agent}");
        }
    }

    #[test]
    fn arguments_are_split_off() {
        let (path, args) = split_args(&Bytes::from_static(b"/a?b?c"));
        assert_eq!((&path[..], &args[..]), (&b"/a"[..], &b"b?c"[..]));
    }
}
