//! How long connections of clients are kept, and how they are closed.

use std::time::Duration;

use wssgate_syntax as syntax;

use crate::directive::Arity::{Between, Exactly};
use crate::directive::{AnyDirective, Directive, HSL};
use crate::read::{Reading, Reads, directive_problem, duration, number, one_of, set_once};
use crate::value;

/// The rows.
pub(crate) static ROWS: &[&dyn AnyDirective] = &[
    &KEEPALIVE_DISABLE,
    &KEEPALIVE_REQUESTS,
    &KEEPALIVE_TIME,
    &KEEPALIVE_TIMEOUT,
    &LINGERING_CLOSE,
    &LINGERING_TIME,
    &LINGERING_TIMEOUT,
];

/// `keepalive_disable`
pub(crate) static KEEPALIVE_DISABLE: Directive<KeepaliveDisable> = Directive {
    name: "keepalive_disable",
    contexts: HSL,
    arity: Between(1, 2),
    default: "msie6",
    doc: "Closes connections of misbehaving browsers after a response: `msie6` for old versions of \
          MSIE after a POST, `safari` for Safari on macOS.",
    ..Directive::once(keepalive_disable)
};

/// `keepalive_requests`
pub(crate) static KEEPALIVE_REQUESTS: Directive<u64> = Directive {
    name: "keepalive_requests",
    contexts: HSL,
    arity: Exactly(1),
    default: "1000",
    doc: "Sets the maximum number of requests on one connection.",
    ..Directive::once(number)
};

/// `keepalive_time`
pub(crate) static KEEPALIVE_TIME: Directive<Duration> = Directive {
    name: "keepalive_time",
    contexts: HSL,
    arity: Exactly(1),
    default: "1h",
    doc: "Sets how long requests are accepted on one connection.",
    ..Directive::once(duration)
};

/// `keepalive_timeout`
pub(crate) static KEEPALIVE_TIMEOUT: Directive<Keepalive> = Directive {
    name: "keepalive_timeout",
    contexts: HSL,
    arity: Between(1, 2),
    default: "75s",
    doc: "Sets how long an idle connection stays open; 0 disables keep-alive. The second value is \
          sent in the `Keep-Alive` header.",
    ..Directive::once(keepalive)
};

/// `lingering_close`
pub(crate) static LINGERING_CLOSE: Directive<LingeringClose> = Directive {
    name: "lingering_close",
    contexts: HSL,
    arity: Exactly(1),
    default: "on",
    doc: "Sets whether data from the client is still read for a while before its connection is \
          closed: `on` if more may arrive, `always` or `off`.",
    ..Directive::once(lingering)
};

/// `lingering_time`
pub(crate) static LINGERING_TIME: Directive<Duration> = Directive {
    name: "lingering_time",
    contexts: HSL,
    arity: Exactly(1),
    default: "30s",
    doc: "Limits how long `lingering_close` reads data.",
    ..Directive::once(duration)
};

/// `lingering_timeout`
pub(crate) static LINGERING_TIMEOUT: Directive<Duration> = Directive {
    name: "lingering_timeout",
    contexts: HSL,
    arity: Exactly(1),
    default: "5s",
    doc: "Sets how long `lingering_close` waits for more data.",
    ..Directive::once(duration)
};

/// `keepalive_disable`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeepaliveDisable {
    /// `msie6`.
    pub msie6: bool,
    /// `safari`.
    pub safari: bool,
}

/// `keepalive_timeout`.
#[derive(Clone, Copy)]
pub(crate) struct Keepalive {
    pub(crate) timeout: Duration,
    pub(crate) header: Option<Duration>,
}

/// `lingering_close`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LingeringClose {
    /// Close at once.
    Off,
    /// Linger when the client may still send.
    On,
    /// Always linger.
    Always,
}

fn keepalive(_: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<Keepalive> {
    let invalid = |word| directive_problem(directive, word, "invalid value");
    let timeout =
        value::duration(&directive.args[0].value).ok_or_else(|| invalid(&directive.args[0]))?;
    let header = match directive.args.get(1) {
        None => None,
        Some(word) => Some(value::seconds(&word.value).ok_or_else(|| invalid(word))?),
    };
    Ok(Keepalive { timeout, header })
}

fn keepalive_disable(
    reading: &mut Reading<'_>,
    directive: &syntax::Directive,
) -> Reads<KeepaliveDisable> {
    #[derive(Clone, Copy)]
    enum Browser {
        None,
        Msie6,
        Safari,
    }
    let choices = [("none", Browser::None), ("msie6", Browser::Msie6), ("safari", Browser::Safari)];
    let mut disable = KeepaliveDisable::default();
    for word in &directive.args {
        match one_of(word, &choices)? {
            Browser::None => {}
            Browser::Msie6 => set_once(reading, &mut disable.msie6, word),
            Browser::Safari => set_once(reading, &mut disable.safari, word),
        }
    }
    Ok(disable)
}

fn lingering(_: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<LingeringClose> {
    let choices = [
        ("off", LingeringClose::Off),
        ("on", LingeringClose::On),
        ("always", LingeringClose::Always),
    ];
    one_of(&directive.args[0], &choices)
}
