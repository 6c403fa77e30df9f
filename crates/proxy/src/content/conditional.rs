//! Conditional requests (RFC 9110 §13), as nginx answers them.

use wssgate_config::model::IfModifiedSince;

use crate::clock;
use crate::exchange::{Reply, Request};

/// What the conditions of a request make of a 200.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Answer as if there were none.
    Send,
    /// 304.
    NotModified,
    /// 412.
    Failed,
}

/// Whether conditions say anything of an answer: of a 200 to the client itself, not of an error page
/// (RFC 9110 §13.2.1) nor of what a subrequest asks for.
fn apply(request: &Request, reply: &Reply) -> bool {
    let status = match request.response.error_status {
        0 => reply.status,
        replaced => replaced,
    };
    status == 200 && !request.is_subrequest()
}

/// Judges the conditions against Last-Modified and ETag of the answer.
pub(crate) fn judge(request: &Request, reply: &Reply) -> Verdict {
    if !apply(request, reply) {
        return Verdict::Send;
    }
    let modified = reply.last_modified;
    let etag = reply.field("etag").map(|etag| &etag[..]);
    if let Some(text) = request.field("if-unmodified-since") {
        // RFC 9110 §13.1.4 would ignore this condition beside If-Match or with a broken date; nginx
        // judges both conditions, and takes such a date for one before all others.
        let since = clock::parse_http_date(text).unwrap_or(-1);
        if modified.is_none_or(|modified| since < modified) {
            return Verdict::Failed;
        }
    }
    if let Some(list) = request.field("if-match")
        && !matches_list(list, etag, false)
    {
        return Verdict::Failed;
    }
    let since = request.field("if-modified-since");
    let none = request.field("if-none-match");
    let rule = request.location().settings.if_modified_since;
    let changed = since.is_some_and(|text| is_modified(text, modified, rule));
    let other = none.is_some_and(|list| !matches_list(list, etag, true));
    // RFC 9110 §13.1.3 would ignore If-Modified-Since beside If-None-Match. For nginx the file is
    // unchanged only if neither says that it is not.
    match (since.is_some() || none.is_some()) && !changed && !other {
        true => Verdict::NotModified,
        false => Verdict::Send,
    }
}

fn is_modified(text: &[u8], modified: Option<i64>, rule: IfModifiedSince) -> bool {
    let Some(modified) = modified else { return true };
    let since = clock::parse_http_date(text).unwrap_or(-1);
    match rule {
        IfModifiedSince::Off => true,
        IfModifiedSince::Exact => since != modified,
        IfModifiedSince::Before => since < modified,
    }
}

/// Whether the list of entity tags has this one; `weak` ignores `W/` (RFC 9110 §8.8.3.2).
fn matches_list(list: &[u8], etag: Option<&[u8]>, weak: bool) -> bool {
    if list == b"*" {
        return true;
    }
    let plain = |tag: &'_ [u8]| -> Vec<u8> {
        let tag = tag.trim_ascii();
        let tag = if weak { tag.strip_prefix(b"W/").unwrap_or(tag) } else { tag };
        tag.to_vec()
    };
    let Some(etag) = etag.map(plain) else { return false };
    list.split(|&b| b == b',').any(|one| plain(one) == etag)
}

/// Turns a 200 into a 304.
pub(crate) fn make_not_modified(reply: &mut Reply) {
    reply.status = 304;
    reply.content_type = None;
    reply.length = None;
    reply.accept_ranges = false;
    reply.remove("content-encoding");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entity_tags_are_compared_as_asked() {
        for (list, etag, weak, expected) in [
            ("*", None, false, true),
            ("\"a\"", None, false, false),
            ("\"a\"", Some("\"a\""), false, true),
            ("\"b\", \"a\"", Some("\"a\""), false, true),
            ("W/\"a\"", Some("\"a\""), true, true),
            ("W/\"a\"", Some("\"a\""), false, false),
            ("\"a\"", Some("W/\"a\""), true, true),
            ("\"ab\"", Some("\"a\""), true, false),
        ] {
            let found = matches_list(list.as_bytes(), etag.map(str::as_bytes), weak);
            assert_eq!(found, expected, "{list} {etag:?} {weak}");
        }
    }

    #[test]
    fn a_time_is_compared_as_configured() {
        use IfModifiedSince::{Before, Exact, Off};
        let text = clock::format_http_date(1000);
        for (modified, rule, expected) in [
            (Some(1000), Exact, false),
            (Some(900), Exact, true),
            (Some(900), Before, false),
            (Some(1001), Before, true),
            (Some(1000), Off, true),
            (None, Exact, true),
        ] {
            assert_eq!(
                is_modified(text.as_bytes(), modified, rule),
                expected,
                "{modified:?} {rule:?}"
            );
        }
    }
}
