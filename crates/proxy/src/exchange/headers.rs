//! What the location adds to an answer: `expires`, `add_header`, `add_trailer`, `limit_rate`.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use wssgate_config::model::{AddHeader, Content, Expires, Location};
use wssgate_config::value;
use wssgate_http1::Fields;

use crate::clock;
use crate::exchange::request::{Draft, Request};
use crate::exchange::response::Reply;

/// The statuses for which `add_header` and `expires` work without `always`.
fn is_safe_status(status: u16) -> bool {
    matches!(status, 200 | 201 | 204 | 206 | 301 | 302 | 303 | 304 | 307 | 308)
}

/// Adds what the location says to `reply`.
pub(crate) fn apply(request: &mut Request, reply: &mut Reply, location: &Location) {
    let settings = &location.settings;
    let safe = is_safe_status(reply.status);
    // What is inherited must not let others read a dashboard, or keep what it shows.
    let is_dashboard = matches!(location.content, Content::Dashboard(_));
    if let Some(expires) = settings.expires.as_ref().filter(|_| safe && !is_dashboard) {
        set_expires(request, reply, expires);
    }
    request.response.status = reply.status;
    request.response.draft = Draft {
        content_type: reply.content_type.clone(),
        length: reply.length,
        last_modified: reply.last_modified,
    };
    for header in applicable(&settings.add_headers, reply.status) {
        if is_dashboard && is_for_the_dashboard_alone(reply, &header.name) {
            continue;
        }
        // Variables see the fields that are there by now.
        request.response.fields = std::mem::take(&mut reply.fields);
        let value = request.text(&header.value);
        reply.fields = std::mem::take(&mut request.response.fields);
        add_header(reply, &header.name, value);
    }
    reply.trailers |= applicable(&settings.add_trailers, reply.status).next().is_some();
}

/// Whether a dashboard itself decides what browsers are told by this field: who may read it, how long it is kept, and
/// whatever its own answer says.
fn is_for_the_dashboard_alone(reply: &Reply, name: &[u8]) -> bool {
    const SHARES: &[u8] = b"access-control-";
    name.get(..SHARES.len()).is_some_and(|start| start.eq_ignore_ascii_case(SHARES))
        || [&b"cache-control"[..], b"expires"].iter().any(|own| name.eq_ignore_ascii_case(own))
        || reply.fields.iter().any(|(own, _)| own.eq_ignore_ascii_case(name))
}

/// Takes out what will not be true of a changed body: its length, and unless `keep` says so its time.
pub(crate) fn change_body(reply: &mut Reply, keep: bool) {
    reply.length = None;
    if keep {
        weaken_etag(reply);
        return;
    }
    reply.last_modified = None;
    reply.remove("last-modified");
    reply.remove("etag");
}

/// The body will not be the same byte by byte (RFC 9110 §8.8.1).
pub(crate) fn weaken_etag(reply: &mut Reply) {
    let at = reply.fields.iter().position(|(name, _)| name.eq_ignore_ascii_case(b"etag"));
    let Some(at) = at else { return };
    match &reply.fields[at].1[..] {
        [b'W', b'/', ..] => {}
        tag @ [b'"', ..] => reply.fields[at].1 = [b"W/", tag].concat().into(),
        _ => {
            reply.fields.remove(at);
        }
    }
}

fn applicable(headers: &[AddHeader], status: u16) -> impl Iterator<Item = &AddHeader> {
    let safe = is_safe_status(status);
    headers.iter().filter(move |header| safe || header.always)
}

/// Last-Modified and ETag replace what is there, or take it away when empty; others are added.
fn add_header(reply: &mut Reply, name: &[u8], value: Bytes) {
    let last_modified = name.eq_ignore_ascii_case(b"last-modified");
    if last_modified || name.eq_ignore_ascii_case(b"etag") {
        if last_modified {
            reply.last_modified = None;
        }
        replace(reply, name, value);
    } else if !value.is_empty() {
        reply.fields.push((Bytes::copy_from_slice(name), value));
    }
}

/// Puts `value` where the first field of this name stands, or at the end; an empty one removes it.
fn replace(reply: &mut Reply, name: &[u8], value: Bytes) {
    let at = reply.fields.iter().position(|(n, _)| n.eq_ignore_ascii_case(name));
    match (at, value.is_empty()) {
        (Some(at), true) => {
            reply.fields.remove(at);
        }
        (None, true) => {}
        (Some(at), false) => reply.fields[at] = (Bytes::copy_from_slice(name), value),
        (None, false) => reply.fields.push((Bytes::copy_from_slice(name), value)),
    }
}

/// The fields that end a chunked answer: the upstream's, then `add_trailer`'s, which see those
/// before them.
pub(crate) fn make_trailers(request: &mut Request, upstream: Option<&Fields>) {
    let generation = Arc::clone(&request.generation);
    let settings = &generation.http().locations[request.route.location.0].settings;
    let copy = |(name, value): (&[u8], &[u8])| {
        (Bytes::copy_from_slice(name), Bytes::copy_from_slice(value))
    };
    request.response.trailers = upstream.into_iter().flatten().map(copy).collect();
    for header in applicable(&settings.add_trailers, request.response.status) {
        let value = request.text(&header.value);
        if !value.is_empty() {
            request.response.trailers.push((Bytes::copy_from_slice(&header.name), value));
        }
    }
}

/// `limit_rate` in force, bytes per second; 0 is unlimited.
pub(crate) fn limit_rate(request: &Request, location: &Location) -> u64 {
    let set = request.values.limit_rate.borrow().clone();
    let text = set.or_else(|| location.settings.limit_rate.as_ref().map(|text| request.text(text)));
    text.and_then(|text| value::offset(&text)).unwrap_or(0)
}

/// `limit_rate_after` in force, bytes.
pub(crate) fn limit_rate_after(request: &Request, location: &Location) -> u64 {
    let text = location.settings.limit_rate_after.as_ref();
    text.and_then(|text| value::offset(&request.text(text))).unwrap_or(0)
}

/// When an answer expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expiry {
    Epoch,
    Max,
    Access(i64),
    Modified(i64),
    Daily(i64),
}

fn set_expires(request: &Request, reply: &mut Reply, expires: &Expires) {
    let expiry = match expires {
        Expires::Off => None,
        Expires::Epoch => Some(Expiry::Epoch),
        Expires::Max => Some(Expiry::Max),
        Expires::Access(seconds) => Some(Expiry::Access(*seconds)),
        Expires::Modified(seconds) => Some(Expiry::Modified(*seconds)),
        Expires::Daily(second) => Some(Expiry::Daily(i64::from(*second))),
        Expires::Variable { value, modified } => parse_expires(&request.text(value), *modified),
    };
    let Some(expiry) = expiry else { return };
    let now = since_epoch(request.arrival.time) + request.elapsed().as_secs() as i64;
    let modified =
        reply.last_modified.or_else(|| clock::parse_http_date(reply.field("last-modified")?));
    let (date, control) = expires_fields(expiry, now, modified, next_daily);
    replace(reply, b"Expires", date.into());
    set_cache_control(reply, control.into());
}

/// One Cache-Control is left: the first one's place, with our value.
fn set_cache_control(reply: &mut Reply, value: Bytes) {
    let first = reply.fields.iter().position(|(n, _)| n.eq_ignore_ascii_case(b"cache-control"));
    let mut index = 0;
    reply.fields.retain(|(name, _)| {
        index += 1;
        Some(index - 1) == first || !name.eq_ignore_ascii_case(b"cache-control")
    });
    replace(reply, b"Cache-Control", value);
}

/// The values of Expires and Cache-Control.
fn expires_fields(
    expiry: Expiry,
    now: i64,
    last_modified: Option<i64>,
    daily: impl Fn(i64, i64) -> i64,
) -> (String, String) {
    let (time, max_age, negative) = match expiry {
        Expiry::Epoch => return ("Thu, 01 Jan 1970 00:00:01 GMT".into(), "no-cache".into()),
        Expiry::Max => return ("Thu, 31 Dec 2037 23:55:55 GMT".into(), "max-age=315360000".into()),
        Expiry::Daily(second) => {
            let time = daily(second, now);
            (time, time - now, false)
        }
        Expiry::Access(0) | Expiry::Modified(0) => {
            return (clock::format_http_date(now), "max-age=0".into());
        }
        // A variable may ask for any number of seconds.
        Expiry::Access(seconds) => (now.saturating_add(seconds), seconds, seconds < 0),
        Expiry::Modified(seconds) => match last_modified {
            Some(modified) => {
                let time = modified.saturating_add(seconds);
                (time, time.saturating_sub(now), seconds < 0)
            }
            None => (now.saturating_add(seconds), seconds, seconds < 0),
        },
    };
    let control = match negative || max_age < 0 {
        true => "no-cache".into(),
        false => format!("max-age={max_age}"),
    };
    (clock::format_http_date(time), control)
}

/// The next time that the local clock shows `second` after midnight.
fn next_daily(second: i64, now: i64) -> i64 {
    let at = || {
        let today = Timestamp::from_second(now).ok()?.to_zoned(TimeZone::system());
        let today = today.start_of_day().ok()?.checked_add(second.seconds()).ok()?;
        let next = today.timestamp().as_second();
        if next > now { Some(next) } else { Some(today.tomorrow().ok()?.timestamp().as_second()) }
    };
    at().unwrap_or(now)
}

/// A value of `expires` with variables; anything wrong counts as `off`.
fn parse_expires(text: &[u8], modified: bool) -> Option<Expiry> {
    match (text, modified) {
        (b"epoch", false) => return Some(Expiry::Epoch),
        (b"max", false) => return Some(Expiry::Max),
        (b"off", false) => return None,
        _ => {}
    }
    let (text, sign, daily) = match text {
        [b'@', rest @ ..] => (rest, 1, true),
        [b'+', rest @ ..] => (rest, 1, false),
        [b'-', rest @ ..] => (rest, -1, false),
        _ => (text, 1, false),
    };
    let seconds = sign * parse_seconds(text)?;
    match (daily, modified) {
        (true, true) => None,
        (true, false) => (seconds <= 86_400).then_some(Expiry::Daily(seconds)),
        (false, true) => Some(Expiry::Modified(seconds)),
        (false, false) => Some(Expiry::Access(seconds)),
    }
}

/// nginx's times in seconds: numbers with `y M w d h m s`, from large to small.
fn parse_seconds(text: &[u8]) -> Option<i64> {
    const UNITS: [(u8, i64); 7] = [
        (b'y', 31_536_000),
        (b'M', 2_592_000),
        (b'w', 604_800),
        (b'd', 86_400),
        (b'h', 3600),
        (b'm', 60),
        (b's', 1),
    ];
    let mut rest = text;
    let mut total: i64 = 0;
    let mut last = None;
    while !rest.is_empty() {
        let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
        let number: i64 = std::str::from_utf8(&rest[..digits]).ok()?.parse().ok()?;
        rest = &rest[digits..];
        let unit = match rest.split_first() {
            Some((unit, after)) => {
                rest = after;
                UNITS.iter().position(|(name, _)| name == unit)?
            }
            None => UNITS.len() - 1,
        };
        if last.is_some_and(|last| last >= unit) {
            return None;
        }
        last = Some(unit);
        total = total.checked_add(number.checked_mul(UNITS[unit].1)?)?;
        rest = rest.trim_ascii_start();
    }
    last.map(|_| total)
}

fn since_epoch(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_expires_are_read_as_nginx_reads_them() {
        for (text, modified, expected) in [
            ("epoch", false, Some(Expiry::Epoch)),
            ("max", false, Some(Expiry::Max)),
            ("off", false, None),
            ("1h30m", false, Some(Expiry::Access(5400))),
            ("-1", false, Some(Expiry::Access(-1))),
            ("+24h", true, Some(Expiry::Modified(86_400))),
            ("@15h30m", false, Some(Expiry::Daily(55_800))),
            ("@25h", false, None),
            ("@1h", true, None),
            ("30m1h", false, None),
            ("", false, None),
            ("x", false, None),
        ] {
            assert_eq!(parse_expires(text.as_bytes(), modified), expected, "{text}");
        }
    }

    #[test]
    fn expires_and_cache_control_agree() {
        let at =
            |expiry, modified| expires_fields(expiry, 1000, modified, |second, _| 2000 + second);
        assert_eq!(at(Expiry::Access(60), None).1, "max-age=60");
        assert_eq!(
            at(Expiry::Access(-60), None),
            (clock::format_http_date(940), "no-cache".into())
        );
        assert_eq!(
            at(Expiry::Access(0), None),
            (clock::format_http_date(1000), "max-age=0".into())
        );
        assert_eq!(
            at(Expiry::Modified(60), Some(990)),
            (clock::format_http_date(1050), "max-age=50".into())
        );
        assert_eq!(
            at(Expiry::Modified(60), Some(100)),
            (clock::format_http_date(160), "no-cache".into())
        );
        assert_eq!(at(Expiry::Modified(60), None).1, "max-age=60");
        for seconds in [i64::MAX, i64::MIN] {
            for modified in [None, Some(990)] {
                // What counts is that it does not overflow.
                at(Expiry::Access(seconds), modified);
                at(Expiry::Modified(seconds), modified);
            }
        }
        assert!(at(Expiry::Access(i64::MAX), None).0.ends_with(" 9999 22:00:00 GMT"));
        assert_eq!(
            at(Expiry::Daily(5), None),
            (clock::format_http_date(2005), "max-age=1005".into())
        );
    }

    #[test]
    fn the_first_cache_control_stays_with_a_new_value() {
        let mut reply = Reply::new(200);
        reply.push("Cache-Control", &b"a"[..]);
        reply.push("X", &b"x"[..]);
        reply.push("cache-control", &b"b"[..]);
        set_cache_control(&mut reply, Bytes::from_static(b"no-cache"));
        let names: Vec<_> =
            reply.fields.iter().map(|(name, value)| (&name[..], &value[..])).collect();
        assert_eq!(names, [(&b"Cache-Control"[..], &b"no-cache"[..]), (b"X", b"x")]);
    }
}
