//! What variables stand for in a request.
//!
//! Most are made afresh whenever they are asked for: they are cheap, and many change while the
//! request is in work. Kept in a cell are the results of maps that are not `volatile`, what `set`
//! and named groups say, and `$request_id`.

mod builtin;
mod map;
mod referer;
mod secure_link;
mod tcpinfo;
mod upstream;

pub(crate) use builtin::{bytes_sent, hostname, request_id, seconds, status};
pub(crate) use map::contains;
pub(crate) use upstream::passed;

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use wssgate_config::model::LogLevel;
use wssgate_config::template::{Part, Template, VariableId};
use wssgate_config::variable::{Builtin, Variable};

use crate::clock;
use crate::exchange::request::{Request, Value};
use crate::exchange::{identity, subprotocols};

/// How deep variables may refer to each other, as in nginx.
const MAX_DEPTH: u8 = 100;

/// The value of a variable; `None` when it has none.
pub(crate) fn value(request: &Request, id: VariableId) -> Option<Bytes> {
    match &*request.values.cells[id.0 as usize].borrow() {
        Value::Known(value) => return Some(value.clone()),
        Value::Absent => return None,
        Value::Unknown => {}
    }
    let generation = Arc::clone(&request.generation);
    let slot = generation.http().variables.slot(id);
    match &slot.meaning {
        Variable::Builtin(Builtin::RequestId) => keep(request, id, Some(builtin::request_id())),
        Variable::Map(map) => {
            let map = &generation.http().maps[map.0];
            let found = guarded(request, &slot.name, || map::value(request, &map.kind));
            if map.volatile { found } else { keep(request, id, found) }
        }
        Variable::SetLater => None,
        Variable::Set => {
            request.log(
                LogLevel::Warn,
                format_args!("using uninitialized \"{}\" variable", slot.name),
            );
            // Kept, so that the warning comes once for each request.
            keep(request, id, Some(Bytes::new()))
        }
        known @ Variable::Builtin(Builtin::SecureLink) => {
            keep(request, id, known_value(request, known))
        }
        known => known_value(request, known),
    }
}

/// The value of a variable by its name in lower case, also of one that the configuration does not
/// mention; `None` when it has none or is not known.
pub(crate) fn named(request: &Request, name: &str) -> Option<Bytes> {
    match request.http().variables.find(name) {
        Some(id) => value(request, id),
        None => known_value(request, &Variable::named(name)?),
    }
}

/// The value of a variable that the program knows by itself.
fn known_value(request: &Request, variable: &Variable) -> Option<Bytes> {
    match variable {
        Variable::Builtin(Builtin::SecureLink) => secure_link::value(request),
        Variable::Builtin(builtin) => builtin::value(request, *builtin),
        Variable::Argument(name) => argument(&request.target.args.borrow(), name),
        Variable::RequestHeader(name) => request_header(request, name),
        Variable::SentHeader(name) => sent_header(request, name),
        Variable::SentTrailer(name) => joined(fields(&request.response.trailers), name, b", "),
        Variable::Cookie(name) => cookie(request, name),
        Variable::UpstreamHeader(name) => {
            joined(request.upstream.head.as_ref()?.fields().iter(), name, b", ")
        }
        Variable::UpstreamTrailer(name) => {
            joined(request.upstream.trailers.as_ref()?.iter(), name, b", ")
        }
        Variable::UpstreamCookie(name) => upstream::cookie(request, name),
        Variable::ProxyProtocolTlv(tlv) => builtin::tlv(request, *tlv),
        Variable::JwtClaim(path) => identity::token(request)?.claim(path),
        Variable::JwtHeader(path) => identity::token(request)?.header(path),
        Variable::OfferedSubprotocol(name) => subprotocols::token(request, name),
        Variable::Map(_) | Variable::Set | Variable::SetLater => None,
    }
}

/// Gives a variable a value, as `set` and named groups do.
pub(crate) fn set(request: &Request, id: VariableId, value: Bytes) {
    let generation = Arc::clone(&request.generation);
    match &generation.http().variables.slot(id).meaning {
        Variable::Builtin(Builtin::Args | Builtin::QueryString) => {
            *request.target.args.borrow_mut() = value;
            request.target.as_sent.set(false);
        }
        Variable::Builtin(Builtin::LimitRate) => {
            *request.values.limit_rate.borrow_mut() = Some(value)
        }
        _ => *request.values.cells[id.0 as usize].borrow_mut() = Value::Known(value),
    }
}

/// The text of a template.
pub(crate) fn text(request: &Request, template: &Template) -> Bytes {
    match template.parts() {
        [] => return Bytes::new(),
        [part] => return part_value(request, part).unwrap_or_default(),
        _ => {}
    }
    let mut text = BytesMut::new();
    for part in template.parts() {
        match part {
            Part::Text(literal) => text.put_slice(literal),
            part => text.put_slice(&part_value(request, part).unwrap_or_default()),
        }
    }
    text.freeze()
}

/// The value of one part; `None` when a variable has none.
pub(crate) fn part_value(request: &Request, part: &Part) -> Option<Bytes> {
    match part {
        Part::Text(literal) => Some(Bytes::copy_from_slice(literal)),
        Part::Variable(id) => value(request, *id),
        Part::Capture(number) => capture(request, *number),
    }
}

/// `$1` to `$9`.
pub(crate) fn capture(request: &Request, number: u8) -> Option<Bytes> {
    let last = request.values.last_match.borrow();
    let (start, end) = (*last.captures.groups.get(usize::from(number))?)?;
    Some(last.subject.slice(start..end))
}

/// Forgets what maps have given, since something that they looked at is not so.
pub(crate) fn forget_maps(request: &Request) {
    let variables = &request.http().variables;
    for id in (0..variables.len()).filter_map(|index| u32::try_from(index).ok()).map(VariableId) {
        if matches!(variables.slot(id).meaning, Variable::Map(_)) {
            *request.values.cells[id.0 as usize].borrow_mut() = Value::Unknown;
        }
    }
}

/// Keeps what is measured of the client's socket, before the socket leaves for a tunnel.
pub(crate) fn keep_tcpinfo(request: &Request) {
    let variables = &request.http().variables;
    for id in (0..variables.len()).filter_map(|index| u32::try_from(index).ok()).map(VariableId) {
        if let Variable::Builtin(builtin) = variables.slot(id).meaning
            && tcpinfo::is_measured(builtin)
        {
            keep(request, id, tcpinfo::value(&request.connection, builtin));
        }
    }
}

fn keep(request: &Request, id: VariableId, value: Option<Bytes>) -> Option<Bytes> {
    *request.values.cells[id.0 as usize].borrow_mut() = match &value {
        Some(value) => Value::Known(value.clone()),
        None => Value::Absent,
    };
    value
}

/// Evaluates what refers to other variables; a circle ends as no value.
fn guarded(request: &Request, name: &str, work: impl FnOnce() -> Option<Bytes>) -> Option<Bytes> {
    let depth = request.values.depth.get();
    if depth >= MAX_DEPTH {
        request.log(LogLevel::Error, format_args!("cycle while evaluating variable \"{name}\""));
        return None;
    }
    request.values.depth.set(depth + 1);
    let found = work();
    request.values.depth.set(depth);
    found
}

/// A field of our answer; while the head is still being made, of what it has so far.
fn sent_header(request: &Request, name: &[u8]) -> Option<Bytes> {
    let response = &request.response;
    let draft = || match name {
        _ if response.head_sent => None,
        b"content-type" => response.draft.content_type.clone(),
        b"content-length" => response.draft.length.map(|length| length.to_string().into()),
        b"last-modified" => {
            response.draft.last_modified.map(|time| clock::format_http_date(time).into())
        }
        b"connection" => {
            Some(Bytes::from_static(if request.fate.keepalive { b"keep-alive" } else { b"close" }))
        }
        _ => None,
    };
    draft().or_else(|| joined(fields(&response.fields), name, b", "))
}

fn fields(list: &[(Bytes, Bytes)]) -> impl Iterator<Item = (&[u8], &[u8])> {
    list.iter().map(|(name, value)| (&name[..], &value[..]))
}

/// Whether a value stands for true where nginx asks that: it is neither empty nor `0`.
pub(crate) fn is_true(value: &[u8]) -> bool {
    !matches!(value, b"" | b"0")
}

/// Whether a field's name is `name`, which is in lower case with hyphens for underscores.
pub(crate) fn same_name(field: &[u8], name: &[u8]) -> bool {
    let plain = |b: &u8| if *b == b'_' { b'-' } else { b.to_ascii_lowercase() };
    field.len() == name.len() && field.iter().map(plain).eq(name.iter().map(plain))
}

/// The values of all fields of this name, with `separator` between them.
fn joined<'a>(
    fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    name: &[u8],
    separator: &[u8],
) -> Option<Bytes> {
    let mut values = fields.filter(|(field, _)| same_name(field, name)).map(|(_, value)| value);
    let first = values.next()?;
    let mut all = BytesMut::from(first);
    for value in values {
        all.put_slice(separator);
        all.put_slice(value);
    }
    Some(all.freeze())
}

pub(crate) fn request_header(request: &Request, name: &[u8]) -> Option<Bytes> {
    let separator: &[u8] = if name == b"cookie" { b"; " } else { b", " };
    joined(request.arrival.head.as_ref()?.fields().iter(), name, separator)
}

/// The first argument of this name, without regard to case.
pub(crate) fn argument(args: &Bytes, name: &[u8]) -> Option<Bytes> {
    if name.is_empty() {
        return None;
    }
    let pairs = args.split(|&b| b == b'&');
    pairs.filter_map(|pair| pair.split_at_checked(name.len())).find_map(|(key, rest)| {
        let value = rest.strip_prefix(b"=")?;
        key.eq_ignore_ascii_case(name).then(|| args.slice_ref(value))
    })
}

/// The value of the first cookie of this name, without regard to case.
pub(crate) fn cookie(request: &Request, name: &[u8]) -> Option<Bytes> {
    let head = request.arrival.head.as_ref()?;
    let found = head.fields().all("cookie").find_map(|line| cookie_in(line, name));
    found.map(Bytes::copy_from_slice)
}

/// The value of a cookie in a line `a=b; c=d`; names are compared without regard to case.
fn cookie_in<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    line.split(|&b| b == b';').find_map(|pair| {
        let pair = pair.trim_ascii_start();
        let (key, rest) = pair.split_at_checked(name.len())?;
        let value = rest.trim_ascii_start().strip_prefix(b"=")?;
        key.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_found_without_regard_to_case() {
        for (args, name, expected) in [
            ("a=1&b=2", "b", Some("2")),
            ("A=1", "a", Some("1")),
            ("aa=1&a=2&a=3", "a", Some("2")),
            ("a&b=1", "a", None),
            ("a=", "a", Some("")),
            ("a=b=c", "a", Some("b=c")),
            ("", "a", None),
            ("a=1", "", None),
        ] {
            let args = Bytes::from_static(args.as_bytes());
            let found = argument(&args, name.as_bytes());
            assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{args:?} {name}");
        }
    }

    #[test]
    fn cookies_are_found_in_their_line() {
        for (line, name, expected) in [
            ("a=1; b=2", "b", Some("2")),
            ("ab=1; a=2", "a", Some("2")),
            ("A=1", "a", Some("1")),
            ("a = 1 ;b=2", "a", Some("1")),
            ("a", "a", None),
        ] {
            let found = cookie_in(line.as_bytes(), name.as_bytes());
            assert_eq!(found, expected.map(str::as_bytes), "{line} {name}");
        }
    }

    #[test]
    fn values_of_one_name_are_joined() {
        let list = [(&b"X-Foo"[..], &b"1"[..]), (b"y", b"2"), (b"x_foo", b"3")];
        assert_eq!(joined(list.into_iter(), b"x-foo", b", ").as_deref(), Some(&b"1, 3"[..]));
        assert_eq!(joined(list.into_iter(), b"z", b", "), None);
    }
}
