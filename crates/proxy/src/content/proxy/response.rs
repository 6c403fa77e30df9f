//! What of an upstream's answer reaches the client: nginx's rules for fields.

use bytes::Bytes;
use wssgate_config::model::{CookieRewrite, LogLevel, Pattern, ProxyRedirect, ProxySettings};
use wssgate_http1::{Fields, Framing, ResponseHead};

use super::cookie::SetCookie;
use crate::exchange::request::Request;
use crate::exchange::response::Reply;

/// Fields that are about one connection, or that we write ourselves.
const NOT_PASSED: [&str; 4] = ["Content-Length", "Connection", "Keep-Alive", "Transfer-Encoding"];

/// Fields of which only the first counts; nginx leaves out the others and says so.
const SINGLE: [&str; 12] = [
    "Status",
    "Content-Type",
    "Date",
    "Last-Modified",
    "ETag",
    "Expires",
    "X-Accel-Expires",
    "Server",
    "Location",
    "Refresh",
    "X-Accel-Redirect",
    "X-Accel-Limit-Rate",
];

/// Fields that stay when `X-Accel-Redirect` sends the request elsewhere.
const SURVIVE_REDIRECT: [&str; 6] = [
    "Content-Type",
    "Set-Cookie",
    "Content-Disposition",
    "Cache-Control",
    "Expires",
    "Accept-Ranges",
];

/// The challenges of a 401 (RFC 9110 §11.6.1), for another answer in its place.
pub(crate) fn challenges(head: &ResponseHead) -> Vec<(Bytes, Bytes)> {
    let raw = head.raw();
    let values = head.fields().all("www-authenticate");
    values.map(|value| (Bytes::from_static(b"WWW-Authenticate"), raw.slice_ref(value))).collect()
}

/// The fields of `head` without repetitions of single ones, which are logged.
pub(crate) fn fields(request: &Request, head: &ResponseHead) -> Vec<(Bytes, Bytes)> {
    let raw = head.raw();
    let mut seen: [Option<&[u8]>; SINGLE.len()] = [None; SINGLE.len()];
    let mut fields = Vec::with_capacity(head.fields().len());
    for (name, value) in head.fields().iter() {
        if let Some(index) = SINGLE.iter().position(|single| is(name, single)) {
            if let Some(previous) = seen[index] {
                request.log(LogLevel::Warn, format_args!(
                    "upstream sent duplicate header line: \"{}: {}\", previous value: \"{}: {}\", ignored",
                    name.escape_ascii(), value.escape_ascii(), name.escape_ascii(), previous.escape_ascii(),
                ));
                continue;
            }
            seen[index] = Some(value);
        }
        fields.push((raw.slice_ref(name), raw.slice_ref(value)));
    }
    fields
}

/// The answer for the client, before the front adds its own.
pub(crate) fn reply(request: &Request, head: &ResponseHead, framing: Framing) -> Reply {
    let settings = &request.location().proxy;
    let mut reply = Reply::new(head.status());
    reply.status_text = Some(head.raw().slice_ref(head.status_text()));
    reply.length = content_length(head, framing);
    reply.accept_ranges = settings.force_ranges;
    if !ignored(settings, "X-Accel-Charset") {
        reply.override_charset = head.fields().first_bytes("x-accel-charset");
    }
    for (name, value) in fields(request, head) {
        if hidden(settings, &name) || NOT_PASSED.iter().any(|other| is(&name, other)) {
            continue;
        }
        push(request, &mut reply, name, value);
    }
    reply.without_server = is_left_to_upstream(settings, &reply, "Server");
    reply.without_date = is_left_to_upstream(settings, &reply, "Date");
    reply
}

/// Whether a field that we would write ourselves is the upstream's (`proxy_pass_header`), which has
/// sent none: then there is none, as in nginx.
fn is_left_to_upstream(settings: &ProxySettings, reply: &Reply, name: &str) -> bool {
    !hidden(settings, name.as_bytes()) && reply.field(name).is_none()
}

/// Adds a field, rewritten as the location says.
fn push(request: &Request, reply: &mut Reply, name: Bytes, value: Bytes) {
    let rewritten = match () {
        () if is(&name, "Content-Type") => {
            reply.content_type = Some(value);
            return;
        }
        () if is(&name, "Location") => {
            let rewritten = redirect(request, &value, 0);
            // nginx makes only those absolute that it has rewritten; the upstream's own relative
            // ones stay as they came.
            reply.relative_location = rewritten.is_none();
            rewritten
        }
        () if is(&name, "Refresh") => {
            let url = value.to_ascii_lowercase().windows(4).position(|text| text == b"url=");
            url.and_then(|at| redirect(request, &value, at + 4))
        }
        () if is(&name, "Set-Cookie") => set_cookie(request, &value),
        // With `proxy_force_ranges` we serve the ranges ourselves, and say so ourselves.
        () if is(&name, "Accept-Ranges") && request.location().proxy.force_ranges => return,
        () => None,
    };
    reply.fields.push((name, rewritten.unwrap_or(value)));
}

/// The fields of an interim answer of status 103 that clients may see.
pub(crate) fn hints(settings: &ProxySettings, head: &ResponseHead) -> Fields {
    let of_connection = |name: &[u8]| NOT_PASSED.iter().any(|other| is(name, other));
    let fields = head.fields().iter();
    fields.filter(|(name, _)| !hidden(settings, name) && !of_connection(name)).collect()
}

/// The fields that an internal redirect by `X-Accel-Redirect` keeps.
pub(crate) fn surviving(request: &Request, head: &ResponseHead) -> Vec<(Bytes, Bytes)> {
    let mut reply = Reply::default();
    for (name, value) in fields(request, head) {
        if SURVIVE_REDIRECT.iter().any(|other| is(&name, other)) {
            push(request, &mut reply, name, value);
        }
    }
    let content_type = reply.content_type.take();
    let content_type = content_type.map(|value| (Bytes::from_static(b"Content-Type"), value));
    content_type.into_iter().chain(reply.fields).collect()
}

/// Whether a field is hidden from clients.
pub(crate) fn hidden(settings: &ProxySettings, name: &[u8]) -> bool {
    settings.hide_headers.iter().any(|hidden| name.eq_ignore_ascii_case(hidden))
}

/// Whether `proxy_ignore_headers` names a field.
pub(crate) fn ignored(settings: &ProxySettings, name: &str) -> bool {
    settings.ignore_headers.iter().any(|other| is(other, name))
}

/// The length as the upstream tells it; also of an answer to HEAD or a 304, which has no body.
fn content_length(head: &ResponseHead, framing: Framing) -> Option<u64> {
    match framing {
        Framing::Length(len) => Some(len),
        Framing::None => {
            let text = std::str::from_utf8(head.fields().first("content-length")?).ok()?;
            text.parse().ok()
        }
        Framing::Chunked | Framing::UntilClose => None,
    }
}

/// Applies `proxy_redirect` to what follows the first `at` bytes.
fn redirect(request: &Request, value: &Bytes, at: usize) -> Option<Bytes> {
    let url = value.slice(at..);
    request.location().proxy.redirects.iter().find_map(|rule| match rule {
        ProxyRedirect::Prefix { from, to } => {
            let from = request.text(from);
            url.starts_with(&from).then(|| replace(value, at, from.len(), &request.text(to)))
        }
        ProxyRedirect::Regex { from, to } => {
            request.matches(from, &url).then(|| replace(value, at, url.len(), &request.text(to)))
        }
    })
}

/// Applies `proxy_cookie_domain`, `proxy_cookie_path` and `proxy_cookie_flags`.
fn set_cookie(request: &Request, value: &Bytes) -> Option<Bytes> {
    let settings = &request.location().proxy;
    let mut cookie = SetCookie::parse(value)?;
    let mut changed = cookie.change("domain", |domain| {
        settings
            .cookie_domains
            .iter()
            .find_map(|rule| cookie_value(request, rule, domain, domain_matches))
    });
    changed |= cookie.change("path", |path| {
        let starts =
            |path: &[u8], prefix: &[u8]| path.starts_with(prefix).then_some((0, prefix.len()));
        settings.cookie_paths.iter().find_map(|rule| cookie_value(request, rule, path, starts))
    });
    let rule = settings.cookie_flags.iter().find(|rule| match &rule.cookie {
        Pattern::Text(text) => request.text(text).eq_ignore_ascii_case(&cookie.name),
        Pattern::Regex(regex) => request.matches(regex, &cookie.name),
    });
    if let Some(rule) = rule {
        let words: Vec<Bytes> = rule.flags.iter().map(|flag| request.text(flag)).collect();
        changed |= cookie.set_flags(&words);
    }
    changed.then(|| cookie.text())
}

/// The new value of an attribute; `find` says where in it a text matches.
fn cookie_value(
    request: &Request,
    rule: &CookieRewrite,
    value: &Bytes,
    find: impl Fn(&[u8], &[u8]) -> Option<(usize, usize)>,
) -> Option<Bytes> {
    match &rule.from {
        Pattern::Text(text) => {
            let (at, len) = find(value, &request.text(text))?;
            Some(replace(value, at, len, &request.text(&rule.to)))
        }
        Pattern::Regex(regex) => request.matches(regex, value).then(|| request.text(&rule.to)),
    }
}

/// A domain matches without case and without a leading dot, which is left where it is.
fn domain_matches(domain: &[u8], wanted: &[u8]) -> Option<(usize, usize)> {
    let at = usize::from(domain.first() == Some(&b'.'));
    let wanted = wanted.strip_prefix(b".").unwrap_or(wanted);
    domain[at..].eq_ignore_ascii_case(wanted).then_some((at, wanted.len()))
}

/// `value` with `len` bytes from `at` replaced. As in nginx, a match of the length of the whole
/// value replaces it whole.
fn replace(value: &Bytes, at: usize, len: usize, with: &Bytes) -> Bytes {
    if len == value.len() {
        return with.clone();
    }
    [&value[..at], with, &value[at + len..]].concat().into()
}

fn is(name: &[u8], other: &str) -> bool {
    name.eq_ignore_ascii_case(other.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_part_leaves_the_rest_alone() {
        for (value, at, len, expected) in [
            ("http://a/x", 0, 8, "N/x"),
            ("0; url=http://a/x", 7, 8, "0; url=N/x"),
            (".example.com", 1, 11, ".N"),
            ("/all", 0, 4, "N"),
        ] {
            let value = Bytes::from_static(value.as_bytes());
            assert_eq!(replace(&value, at, len, &Bytes::from_static(b"N")), expected);
        }
    }

    #[test]
    fn domains_match_whole_and_without_case() {
        assert_eq!(domain_matches(b".Example.COM", b"example.com"), Some((1, 11)));
        assert_eq!(domain_matches(b"example.com", b".example.com"), Some((0, 11)));
        assert_eq!(domain_matches(b"www.example.com", b"example.com"), None);
    }
}
