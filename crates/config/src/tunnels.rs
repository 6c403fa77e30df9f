//! What holds in WebSockets that are carried: keep-alive, limits, ends. Ours, which nginx does not know.

pub(crate) mod credentials;
pub(crate) mod drain;
pub(crate) mod rates;

use std::time::Duration;

use wssgate_syntax::{self as syntax, Diagnostic, Word};

use crate::directive::Arity::{Between, Exactly};
use crate::directive::{AnyDirective, Directive, HSL};
use crate::limits::websockets::{TunnelLimit, WEBSOCKET_LIMIT};
use crate::read::{Reading, Reads, directive_problem, one_of, parameter};
use crate::scope::Scope;
use crate::value;
use credentials::{Expiry, Reauth, WEBSOCKET_EXPIRY, WEBSOCKET_REAUTH};
use drain::{DrainPace, WEBSOCKET_DRAIN};
use rates::{TunnelRate, WEBSOCKET_BYTE_RATE, WEBSOCKET_MESSAGE_RATE};

/// The rows.
pub(crate) static ROWS: &[&dyn AnyDirective] = &[
    &WEBSOCKET_CHECK,
    &WEBSOCKET_FAILURE_CODE,
    &WEBSOCKET_IDLE_TIMEOUT,
    &WEBSOCKET_MAX_CONTROL_FRAMES,
    &WEBSOCKET_MAX_FRAGMENTS,
    &WEBSOCKET_MAX_FRAME_SIZE,
    &WEBSOCKET_MAX_LIFETIME,
    &WEBSOCKET_MAX_MESSAGE_SIZE,
    &WEBSOCKET_PING_INTERVAL,
    &WEBSOCKET_PONG_TIMEOUT,
    &WEBSOCKET_SLOW_READER_TIMEOUT,
];

/// `websocket_check`
pub(crate) static WEBSOCKET_CHECK: Directive<FrameCheck> = Directive {
    name: "websocket_check",
    contexts: HSL,
    arity: Exactly(1),
    default: "note",
    doc: "Selects what happens to frames that violate RFC 6455. `note` passes them on and writes \
          one line to the error log (level `info`); from then on the proxy sends no frames of its \
          own after them, and the only limits that still apply are those on bytes per time. \
          `frames` closes the WebSocket with code 1002, or 1007 if the reason in a Close is not \
          UTF-8. `text` also closes it with 1007 when a text message is not UTF-8; compressed \
          messages are not inspected. `off` does not parse frames at all: no pings, no Closes from \
          the proxy, no close codes or message counts, and none of the limits apply, nor \
          `limit_rate`, `websocket_drain`, `websocket_expiry`, `websocket_failure_code`, \
          `websocket_idle_timeout`, `websocket_max_lifetime` and `websocket_slow_reader_timeout`; `-t` reports lines that \
          have no effect for that reason. With `frames` and `text` anything a side sends after its \
          Close is discarded.",
    ..Directive::once(check)
};

/// `websocket_failure_code`
pub(crate) static WEBSOCKET_FAILURE_CODE: Directive<Option<u16>> = Directive {
    name: "websocket_failure_code",
    contexts: HSL,
    arity: Exactly(1),
    default: "off",
    doc: "Sets the code (1011, 1012, 1013 or 1014) of the Close that a client is sent when its \
          upstream server is lost: when the connection breaks, ends without a Close, or times out. \
          With `off` the client gets no Close, as with nginx, and sees code 1006; much \
          reconnection code relies on that.",
    ..Directive::once(failure_code)
};

/// `websocket_idle_timeout`
pub(crate) static WEBSOCKET_IDLE_TIMEOUT: Directive<Option<Duration>> = Directive {
    name: "websocket_idle_timeout",
    contexts: HSL,
    arity: Exactly(1),
    default: "off",
    doc: "Sets the time without a data frame in either direction after which a WebSocket is closed \
          with code 1001. Pings and pongs do not count.",
    ..Directive::once(time_or_off)
};

/// `websocket_max_control_frames`
pub(crate) static WEBSOCKET_MAX_CONTROL_FRAMES: Directive<Sides<Option<u32>>> = Directive {
    name: "websocket_max_control_frames",
    contexts: HSL,
    arity: Between(1, 2),
    default: "off",
    doc: "Limits how many pings, pongs and Closes a side may send within one second. A WebSocket \
          that exceeds it is closed with code 1008.",
    ..Directive::once(counts)
};

/// `websocket_max_fragments`
pub(crate) static WEBSOCKET_MAX_FRAGMENTS: Directive<Sides<Option<u32>>> = Directive {
    name: "websocket_max_fragments",
    contexts: HSL,
    arity: Between(1, 2),
    default: "off",
    doc: "Limits the number of frames in a message. A WebSocket that exceeds it is closed with \
          code 1008.",
    ..Directive::once(counts)
};

/// `websocket_max_frame_size`
pub(crate) static WEBSOCKET_MAX_FRAME_SIZE: Directive<Sides<Option<u64>>> = Directive {
    name: "websocket_max_frame_size",
    contexts: HSL,
    arity: Between(1, 2),
    default: "off",
    doc: "Limits the payload size of a data frame, as sent if it is compressed. A WebSocket that \
          exceeds it is closed with code 1009; no part of the frame is passed on.",
    ..Directive::once(sizes)
};

/// `websocket_max_lifetime`
pub(crate) static WEBSOCKET_MAX_LIFETIME: Directive<Option<Lifetime>> = Directive {
    name: "websocket_max_lifetime",
    contexts: HSL,
    arity: Between(1, 2),
    default: "off",
    doc: "Sets how long a WebSocket may stay open; then it is closed with code 1001. Each lifetime \
          is shortened by a random part of `jitter` (a tenth of the time by default), so that \
          WebSockets that began together do not end together.",
    ..Directive::once(lifetime)
};

/// `websocket_max_message_size`
pub(crate) static WEBSOCKET_MAX_MESSAGE_SIZE: Directive<Sides<Option<u64>>> = Directive {
    name: "websocket_max_message_size",
    contexts: HSL,
    arity: Between(1, 2),
    default: "off",
    doc: "Limits the payload size of a message across all its frames, as sent if it is compressed. \
          A WebSocket that exceeds it is closed with code 1009; no part of the frame that exceeds \
          it is passed on.",
    ..Directive::once(sizes)
};

/// `websocket_ping_interval`
pub(crate) static WEBSOCKET_PING_INTERVAL: Directive<Sides<Option<Duration>>> = Directive {
    name: "websocket_ping_interval",
    contexts: HSL,
    arity: Between(1, 2),
    default: "25s",
    doc: "Sends a ping to a side of a WebSocket that has been silent for this long. The pong that \
          answers it is not passed on; the pings and pongs of the two sides are. So neither \
          `proxy_read_timeout` nor a proxy in between ends a WebSocket whose peers are alive. A \
          side that pauses in the middle of a frame is not pinged for at least 10 seconds. With \
          `off` the proxy sends no pings.",
    ..Directive::once(times)
};

/// `websocket_pong_timeout`
pub(crate) static WEBSOCKET_PONG_TIMEOUT: Directive<Sides<Option<Duration>>> = Directive {
    name: "websocket_pong_timeout",
    contexts: HSL,
    arity: Between(1, 2),
    default: "60s",
    doc: "Sets how long a side may stay silent after a ping. After that its connection counts as \
          dead and the WebSocket is ended, but not while it is still receiving earlier data, as \
          shown by acknowledgements within the last 10 seconds. A side that has never answered a \
          ping is kept; the error log names it once (level `info`). With `off` pings are sent, but \
          answers are not required.",
    ..Directive::once(times)
};

/// `websocket_slow_reader_timeout`
pub(crate) static WEBSOCKET_SLOW_READER_TIMEOUT: Directive<Sides<Option<Duration>>> = Directive {
    name: "websocket_slow_reader_timeout",
    contexts: HSL,
    arity: Between(1, 2),
    default: "off",
    doc: "Sets how long bytes may wait for a side that does not read them. After that the \
          WebSocket is closed with code 1008. `proxy_send_timeout` and `send_timeout` restart with \
          every byte that is accepted, this one only when no bytes are waiting any more.",
    ..Directive::once(times)
};

/// What both sides of a tunnel have of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sides<T> {
    /// For the client.
    pub client: T,
    /// For the upstream server.
    pub upstream: T,
}

/// What becomes of broken frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FrameCheck {
    /// Nobody looks.
    Off,
    /// They are noted.
    Note,
    /// They end the WebSocket.
    Frames,
    /// And so does text that is not UTF-8.
    Text,
}

/// How old a WebSocket may become.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lifetime {
    /// The longest.
    pub limit: Duration,
    /// By how much it may be shorter.
    pub jitter: Duration,
}

/// What holds in the WebSockets of a location.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TunnelSettings {
    /// `websocket_byte_rate`.
    pub byte_rate: Sides<Option<TunnelRate>>,
    /// `websocket_check`.
    pub check: FrameCheck,
    /// `websocket_drain`.
    pub drain: Option<DrainPace>,
    /// `websocket_expiry`.
    pub expiry: Option<Expiry>,
    /// `websocket_failure_code`.
    pub failure_code: Option<u16>,
    /// `websocket_idle_timeout`.
    pub idle_timeout: Option<Duration>,
    /// `websocket_limit`, one for each zone.
    pub limits: Vec<TunnelLimit>,
    /// `websocket_max_control_frames`.
    pub max_control_frames: Sides<Option<u32>>,
    /// `websocket_max_fragments`.
    pub max_fragments: Sides<Option<u32>>,
    /// `websocket_max_frame_size`.
    pub max_frame_size: Sides<Option<u64>>,
    /// `websocket_max_lifetime`.
    pub max_lifetime: Option<Lifetime>,
    /// `websocket_max_message_size`.
    pub max_message_size: Sides<Option<u64>>,
    /// `websocket_message_rate`.
    pub message_rate: Sides<Option<TunnelRate>>,
    /// `websocket_ping_interval`.
    pub ping_interval: Sides<Option<Duration>>,
    /// `websocket_pong_timeout`.
    pub pong_timeout: Sides<Option<Duration>>,
    /// `websocket_reauth`.
    pub reauth: Option<Reauth>,
    /// `websocket_slow_reader_timeout`.
    pub slow_reader_timeout: Sides<Option<Duration>>,
}

/// Settings of a location.
pub(crate) fn tunnel_settings(scope: &Scope<'_, '_>) -> TunnelSettings {
    TunnelSettings {
        byte_rate: scope.get(&WEBSOCKET_BYTE_RATE),
        check: scope.get(&WEBSOCKET_CHECK),
        drain: scope.get(&WEBSOCKET_DRAIN),
        expiry: scope.get(&WEBSOCKET_EXPIRY),
        failure_code: scope.get(&WEBSOCKET_FAILURE_CODE),
        idle_timeout: scope.get(&WEBSOCKET_IDLE_TIMEOUT),
        limits: scope.all(&WEBSOCKET_LIMIT),
        max_control_frames: scope.get(&WEBSOCKET_MAX_CONTROL_FRAMES),
        max_fragments: scope.get(&WEBSOCKET_MAX_FRAGMENTS),
        max_frame_size: scope.get(&WEBSOCKET_MAX_FRAME_SIZE),
        max_lifetime: scope.get(&WEBSOCKET_MAX_LIFETIME),
        max_message_size: scope.get(&WEBSOCKET_MAX_MESSAGE_SIZE),
        message_rate: scope.get(&WEBSOCKET_MESSAGE_RATE),
        ping_interval: scope.get(&WEBSOCKET_PING_INTERVAL),
        pong_timeout: scope.get(&WEBSOCKET_PONG_TIMEOUT),
        reauth: scope.get(&WEBSOCKET_REAUTH),
        slow_reader_timeout: scope.get(&WEBSOCKET_SLOW_READER_TIMEOUT),
    }
}

fn check(_: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<FrameCheck> {
    let choices = [
        ("off", FrameCheck::Off),
        ("note", FrameCheck::Note),
        ("frames", FrameCheck::Frames),
        ("text", FrameCheck::Text),
    ];
    one_of(&directive.args[0], &choices)
}

fn failure_code(_: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<Option<u16>> {
    let choices = [
        ("off", None),
        ("1011", Some(1011)),
        ("1012", Some(1012)),
        ("1013", Some(1013)),
        ("1014", Some(1014)),
    ];
    one_of(&directive.args[0], &choices)
}

fn time_or_off(_: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<Option<Duration>> {
    let word = &directive.args[0];
    or_off(&word.value, positive_time)
        .ok_or_else(|| directive_problem(directive, word, "invalid value"))
}

fn lifetime(_: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<Option<Lifetime>> {
    let problem = |word: &Word| directive_problem(directive, word, "invalid value");
    let word = &directive.args[0];
    let limit = or_off(&word.value, positive_time).ok_or_else(|| problem(word))?;
    let jitter = match directive.args.get(1) {
        Some(word) => {
            let jitter = parameter(word, "jitter=").and_then(value::duration);
            let fits = |jitter: &Duration| limit.is_some_and(|limit| *jitter < limit);
            Some(jitter.filter(fits).ok_or_else(|| problem(word))?)
        }
        None => None,
    };
    Ok(limit.map(|limit| Lifetime { limit, jitter: jitter.unwrap_or(limit / 10) }))
}

fn times(
    reading: &mut Reading<'_>,
    directive: &syntax::Directive,
) -> Reads<Sides<Option<Duration>>> {
    sides(reading, directive, &words(directive), positive_time)
}

fn sizes(reading: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<Sides<Option<u64>>> {
    let size = |text: &[u8]| value::size(text).filter(|&size| size > 0);
    sides(reading, directive, &words(directive), size)
}

fn counts(reading: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<Sides<Option<u32>>> {
    sides(reading, directive, &words(directive), |text| {
        value::number(text).and_then(|count| u32::try_from(count).ok()).filter(|&count| count > 0)
    })
}

fn words(directive: &syntax::Directive) -> Vec<&Word> {
    directive.args.iter().collect()
}

/// Reads a value for both sides, or `client=` and `upstream=`. A side that is not named has the default of the
/// directive.
fn sides<T: Copy>(
    reading: &mut Reading<'_>,
    directive: &syntax::Directive,
    words: &[&Word],
    parse: impl Fn(&[u8]) -> Option<T>,
) -> Reads<Sides<Option<T>>> {
    let problem = |word: &Word, what| -> Diagnostic { directive_problem(directive, word, what) };
    let default =
        reading.registry.named(&directive.name.value).iter().map(|row| row.default).next();
    let default = default.and_then(|text| or_off(text.as_bytes(), &parse)).flatten();
    let mut sides = Sides { client: None, upstream: None };
    let mut both = None;
    for word in words {
        let (side, text) = match (parameter(word, "client="), parameter(word, "upstream=")) {
            (Some(text), _) => (&mut sides.client, text),
            (_, Some(text)) => (&mut sides.upstream, text),
            _ => (&mut both, &*word.value),
        };
        let value = or_off(text, &parse).ok_or_else(|| problem(word, "invalid value"))?;
        if side.replace(value).is_some() {
            return Err(problem(word, "duplicate value"));
        }
    }
    match (both, words) {
        (Some(value), [_]) => Ok(Sides { client: value, upstream: value }),
        (Some(_), words) => Err(problem(words[1], "invalid value")),
        (None, _) => Ok(Sides {
            client: sides.client.unwrap_or(default),
            upstream: sides.upstream.unwrap_or(default),
        }),
    }
}

/// `off`, or what `parse` makes of it; `None` if it is neither.
fn or_off<T>(text: &[u8], parse: impl Fn(&[u8]) -> Option<T>) -> Option<Option<T>> {
    match text {
        b"off" => Some(None),
        _ => parse(text).map(Some),
    }
}

fn positive_time(text: &[u8]) -> Option<Duration> {
    value::duration(text).filter(|time| !time.is_zero())
}
