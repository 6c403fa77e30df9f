//! Answers made on the spot: `return`, `readiness`, `stub_status`, `empty_gif`.

use bytes::Bytes;
use wssgate_config::model::Return;
use wssgate_http1::Method;

use crate::content::{self, Outcome};
use crate::exchange::{Exchange, Reply, Request};
use crate::site::Phase;

/// The minimal transparent GIF.
const EMPTY_GIF: [u8; 43] = [
    b'G', b'I', b'F', b'8', b'9', b'a', 1, 0, 1, 0, 0x80, 1, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0x21,
    0xf9, 4, 1, 0, 0, 1, 0, 0x2c, 0, 0, 0, 0, 1, 0, 1, 0, 0, 2, 2, 0x4c, 1, 0, 0x3b,
];
/// The time that nginx gives its GIF.
const EMPTY_GIF_TIME: i64 = 23_349_600;

/// Answers a `return`.
pub(crate) async fn answer(exchange: &mut Exchange, answer: &Return) -> Outcome {
    let request = &mut exchange.request;
    let text = answer.text.as_ref().map(|text| {
        // The text may have `$status` in it.
        request.response.status = answer.status;
        request.text(text)
    });
    if answer.status >= 400 && answer.text.as_ref().is_none_or(|text| text.is_empty()) {
        return Outcome::Status(answer.status);
    }
    if let Err(error) = exchange.body.will_discard().await {
        return Outcome::Status(error.status());
    }
    let text = text.unwrap_or_default();
    if matches!(answer.status, 301 | 302 | 303 | 307 | 308) {
        exchange.request.response.redirect = Some(text);
        return Outcome::Status(answer.status);
    }
    let mut reply = Reply::new(answer.status);
    reply.content_type = content_type(&exchange.request);
    reply.length = Some(text.len() as u64);
    content::send_conditional(exchange, reply, text).await
}

/// The type of the path's extension, or `default_type`.
pub(crate) fn content_type(request: &Request) -> Option<Bytes> {
    let settings = &request.location().settings;
    let by_extension = extension(&request.target.path)
        .and_then(|name| settings.types.get(&name.to_ascii_lowercase()[..]));
    let found = by_extension.unwrap_or(&settings.default_type);
    (!found.is_empty()).then(|| Bytes::copy_from_slice(found))
}

/// What follows the last dot of the last segment, unless the segment begins with it.
fn extension(path: &[u8]) -> Option<&[u8]> {
    let at = path.iter().rposition(|&b| b == b'.' || b == b'/').filter(|&at| at > 1)?;
    (path[at] == b'.' && path[at - 1] != b'/').then(|| &path[at + 1..])
}

/// `empty_gif`.
pub(crate) async fn empty_gif(exchange: &mut Exchange) -> Outcome {
    if !matches!(exchange.request.target.method, Method::Get | Method::Head) {
        return Outcome::Status(405);
    }
    if let Err(error) = exchange.body.will_discard().await {
        return Outcome::Status(error.status());
    }
    let mut reply = Reply::new(200);
    reply.content_type = Some(Bytes::from_static(b"image/gif"));
    reply.length = Some(EMPTY_GIF.len() as u64);
    reply.last_modified = Some(EMPTY_GIF_TIME);
    content::send_conditional(exchange, reply, Bytes::from_static(&EMPTY_GIF)).await
}

/// When to ask a server again that drains, in seconds: by then another one may be in its place.
const AFTER_DRAIN: &str = "10";

/// `readiness`: whether new clients should come here.
pub(crate) async fn readiness(exchange: &mut Exchange) -> Outcome {
    if !matches!(exchange.request.target.method, Method::Get | Method::Head) {
        return Outcome::Status(405);
    }
    if let Err(error) = exchange.body.will_discard().await {
        return Outcome::Status(error.status());
    }
    let draining = exchange.request.site.phase() >= Phase::Leaving;
    let (status, text) = if draining { (503, "draining\n") } else { (200, "ready\n") };
    let mut reply = Reply::new(status);
    reply.content_type = Some(Bytes::from_static(b"text/plain"));
    reply.length = Some(text.len() as u64);
    // What it says is of this moment.
    reply.push("Cache-Control", Bytes::from_static(b"no-store"));
    if draining {
        reply.push("Retry-After", Bytes::from_static(AFTER_DRAIN.as_bytes()));
    }
    content::send(exchange, reply, Bytes::from_static(text.as_bytes())).await
}

/// `stub_status`: nginx's page of counters.
pub(crate) async fn stub_status(exchange: &mut Exchange) -> Outcome {
    if !matches!(exchange.request.target.method, Method::Get | Method::Head) {
        return Outcome::Status(405);
    }
    if let Err(error) = exchange.body.will_discard().await {
        return Outcome::Status(error.status());
    }
    let metrics = &exchange.request.site.all_metrics;
    let page = format!(
        "Active connections: {} \nserver accepts handled requests\n {} {} {} \n\
         Reading: {} Writing: {} Waiting: {} \n",
        metrics.total(|c| c.active.value()),
        metrics.total(|c| c.accepted.value()),
        metrics.total(|c| c.handled.value()),
        metrics.total(|c| c.requests.value()),
        metrics.total(|c| c.reading.value()),
        metrics.total(|c| c.writing.value()),
        metrics.total(|c| c.waiting.value()),
    );
    let mut reply = Reply::new(200);
    reply.content_type = Some(Bytes::from_static(b"text/plain"));
    reply.length = Some(page.len() as u64);
    content::send(exchange, reply, page.into()).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_are_those_of_nginx() {
        for (path, expected) in [
            ("/a.html", Some("html")),
            ("/a.tar.gz", Some("gz")),
            ("/a.b/c", None),
            ("/.htaccess", None),
            ("/a/.x", None),
            ("/a.", Some("")),
            ("/", None),
            ("", None),
        ] {
            assert_eq!(extension(path.as_bytes()), expected.map(str::as_bytes), "{path}");
        }
    }
}
