//! `proxy_next_upstream`: when the next peer is tried.

use std::time::Duration;

use wssgate_syntax::{self as syntax};

use crate::directive::Arity::{AtLeast, Exactly};
use crate::directive::{AnyDirective, Directive, HSL};
use crate::read::{Reading, Reads, duration, invalid_value, number, set_once};
use crate::scope::Scope;

/// The rows.
pub(crate) static ROWS: &[&dyn AnyDirective] =
    &[&PROXY_NEXT_UPSTREAM, &PROXY_NEXT_UPSTREAM_TIMEOUT, &PROXY_NEXT_UPSTREAM_TRIES];

/// `proxy_next_upstream`
pub(crate) static PROXY_NEXT_UPSTREAM: Directive<(NextUpstream, bool)> = Directive {
    name: "proxy_next_upstream",
    contexts: HSL,
    arity: AtLeast(1),
    default: "error timeout",
    doc: "Sets in which cases a request is passed to the next server.",
    ..Directive::repeated(next_upstream)
};

/// `proxy_next_upstream_timeout`
pub(crate) static PROXY_NEXT_UPSTREAM_TIMEOUT: Directive<Duration> = Directive {
    name: "proxy_next_upstream_timeout",
    contexts: HSL,
    arity: Exactly(1),
    default: "0",
    doc: "Limits the time in which a request may be passed to the next server; 0 disables the \
          limit.",
    ..Directive::once(duration)
};

/// `proxy_next_upstream_tries`
pub(crate) static PROXY_NEXT_UPSTREAM_TRIES: Directive<u64> = Directive {
    name: "proxy_next_upstream_tries",
    contexts: HSL,
    arity: Exactly(1),
    default: "0",
    doc: "Limits the number of servers that are tried for a request; 0 disables the limit.",
    ..Directive::once(number)
};

/// When the next peer is tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NextUpstream {
    /// `error`.
    pub error: bool,
    /// `timeout`.
    pub timeout: bool,
    /// `invalid_header`.
    pub invalid_header: bool,
    /// `non_idempotent`.
    pub non_idempotent: bool,
    /// `http_500` … `http_429`: these statuses.
    pub http_403: bool,
    /// `http_404`.
    pub http_404: bool,
    /// `http_429`.
    pub http_429: bool,
    /// `http_500`.
    pub http_500: bool,
    /// `http_502`.
    pub http_502: bool,
    /// `http_503`.
    pub http_503: bool,
    /// `http_504`.
    pub http_504: bool,
}

fn next_upstream(
    reading: &mut Reading<'_>,
    directive: &syntax::Directive,
) -> Reads<(NextUpstream, bool)> {
    let mut next = NextUpstream::default();
    let mut off = false;
    for word in &directive.args {
        let set: &mut bool = match &*word.value.to_ascii_lowercase() {
            b"error" => &mut next.error,
            b"timeout" => &mut next.timeout,
            b"invalid_header" => &mut next.invalid_header,
            b"non_idempotent" => &mut next.non_idempotent,
            b"http_403" => &mut next.http_403,
            b"http_404" => &mut next.http_404,
            b"http_429" => &mut next.http_429,
            b"http_500" => &mut next.http_500,
            b"http_502" => &mut next.http_502,
            b"http_503" => &mut next.http_503,
            b"http_504" => &mut next.http_504,
            b"off" => &mut off,
            // Only about a cache, which is not there.
            b"updating" => continue,
            _ => return Err(invalid_value(word)),
        };
        set_once(reading, set, word);
    }
    Ok((next, off))
}

/// The conditions of all lines of a level together; `off` turns them all off.
pub(crate) fn conditions(scope: &Scope<'_, '_>) -> NextUpstream {
    let lines: Vec<(NextUpstream, bool)> = scope.all(&PROXY_NEXT_UPSTREAM);
    if lines.iter().any(|(_, off)| *off) {
        return NextUpstream::default();
    }
    let any = |field: fn(&NextUpstream) -> bool| lines.iter().any(|(line, _)| field(line));
    NextUpstream {
        error: any(|line| line.error),
        timeout: any(|line| line.timeout),
        invalid_header: any(|line| line.invalid_header),
        non_idempotent: any(|line| line.non_idempotent),
        http_403: any(|line| line.http_403),
        http_404: any(|line| line.http_404),
        http_429: any(|line| line.http_429),
        http_500: any(|line| line.http_500),
        http_502: any(|line| line.http_502),
        http_503: any(|line| line.http_503),
        http_504: any(|line| line.http_504),
    }
}
