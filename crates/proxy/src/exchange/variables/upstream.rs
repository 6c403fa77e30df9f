//! `$upstream_*`: what happened with each peer that was tried.

use std::time::Duration;

use bytes::Bytes;
use wssgate_config::variable::Builtin;

use crate::exchange::request::{Request, UpstreamState};

/// What the attempts have sent, received and taken; `None` for other variables.
pub(crate) fn passed(variable: Builtin, states: &[UpstreamState]) -> Option<Bytes> {
    match variable {
        Builtin::UpstreamResponseTime => join(states, |state| time(state.response_time)),
        Builtin::UpstreamResponseLength => join(states, |state| state.response_length.to_string()),
        Builtin::UpstreamBytesReceived => join(states, |state| state.bytes_received.to_string()),
        Builtin::UpstreamBytesSent => join(states, |state| state.bytes_sent.to_string()),
        _ => None,
    }
}

/// One value for each attempt: `, ` between peers, ` : ` where an internal redirect lies between.
pub(super) fn list(request: &Request, value: impl Fn(&UpstreamState) -> String) -> Option<Bytes> {
    join(&request.upstream.attempts, value)
}

fn join(states: &[UpstreamState], value: impl Fn(&UpstreamState) -> String) -> Option<Bytes> {
    if states.is_empty() {
        return None;
    }
    let mut text = String::new();
    let mut separator = "";
    for state in states {
        if state.address.is_none() {
            separator = " : ";
            continue;
        }
        text.push_str(separator);
        text.push_str(&value(state));
        separator = ", ";
    }
    Some(text.into())
}

pub(super) fn address(state: &UpstreamState) -> String {
    String::from_utf8_lossy(state.address.as_deref().unwrap_or_default()).into_owned()
}

pub(super) fn status(state: &UpstreamState) -> String {
    match state.status {
        0 => "-".into(),
        status => status.to_string(),
    }
}

/// `$upstream_last_addr`.
pub(super) fn list_last(request: &Request) -> Option<Bytes> {
    request.upstream.attempts.last().map(|state| address(state).into())
}

/// Seconds with milliseconds; `-` for what did not happen.
pub(super) fn time(time: Option<Duration>) -> String {
    time.map_or_else(
        || "-".into(),
        |time| format!("{}.{:03}", time.as_secs(), time.subsec_millis()),
    )
}

/// `$upstream_cookie_NAME`: the value that the last answer sets; the first of several wins, as in
/// nginx.
pub(super) fn cookie(request: &Request, name: &[u8]) -> Option<Bytes> {
    let head = request.upstream.head.as_ref()?;
    let value = head.fields().all("set-cookie").find_map(|line| set_cookie(line, name))?;
    Some(Bytes::copy_from_slice(value))
}

fn set_cookie<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let spaces = |text: &'a [u8]| {
        let end = text.iter().position(|byte| *byte != b' ').unwrap_or(text.len());
        &text[end..]
    };
    let (key, rest) = line.split_at_checked(name.len())?;
    let value = spaces(spaces(rest).strip_prefix(b"=")?);
    let end = value.iter().position(|&b| b == b';').unwrap_or(value.len());
    key.eq_ignore_ascii_case(name).then_some(&value[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_milliseconds() {
        assert_eq!(time(Some(Duration::from_millis(61_007))), "61.007");
        assert_eq!(time(None), "-");
    }

    #[test]
    fn a_set_cookie_line_gives_its_value() {
        assert_eq!(set_cookie(b"A=1; path=/", b"a"), Some(&b"1"[..]));
        assert_eq!(set_cookie(b"a = 1 2", b"a"), Some(&b"1 2"[..]));
        assert_eq!(set_cookie(b"ab=1", b"a"), None);
        assert_eq!(set_cookie(b"a", b"a"), None);
    }
}
