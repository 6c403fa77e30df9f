//! How a peer of a group is chosen.

use wssgate_syntax::{self as syntax, Diagnostic};

use crate::directive::Arity::{Between, Exactly};
use crate::directive::{AnyDirective, Directive, U};
use crate::level::Level;
use crate::read::{Reading, Reads, invalid_parameter, one_of};
use crate::template::Template;
use crate::upstream::SERVER;

/// The rows.
pub(crate) static ROWS: &[&dyn AnyDirective] =
    &[&HASH, &IP_HASH, &LEAST_CONN, &LEAST_TIME, &RANDOM];

/// `hash`
pub(crate) static HASH: Directive<Balance> = Directive {
    name: "hash",
    contexts: U,
    arity: Between(1, 2),
    doc: "Selects a server by the hash of a key; `consistent` keeps most keys at their servers \
          when the group changes.",
    ..Directive::once(hash)
};

/// `ip_hash`
pub(crate) static IP_HASH: Directive<Balance> = Directive {
    name: "ip_hash",
    contexts: U,
    arity: Exactly(0),
    doc: "Selects a server by the client address.",
    ..Directive::once(|_, _| Ok(Balance::IpHash))
};

/// `least_conn`
pub(crate) static LEAST_CONN: Directive<Balance> = Directive {
    name: "least_conn",
    contexts: U,
    arity: Exactly(0),
    doc: "Selects the server with the fewest active connections.",
    ..Directive::once(|_, _| Ok(Balance::LeastConn))
};

/// `least_time`
pub(crate) static LEAST_TIME: Directive<Balance> = Directive {
    name: "least_time",
    contexts: U,
    arity: Between(1, 2),
    doc: "Selects the server that is expected to respond first, based on its average response time \
          (to the header or to the last byte) and its active connections; `inflight` also counts \
          the time of requests that have no response yet. For a WebSocket the time until the 101 \
          counts.",
    ..Directive::once(least_time)
};

/// `random`
pub(crate) static RANDOM: Directive<Balance> = Directive {
    name: "random",
    contexts: U,
    arity: Between(0, 2),
    doc: "Selects a server at random; with `two`, two are picked and the one with fewer \
          connections is used, or with `least_time=header` or `least_time=last_byte` the one that \
          responds faster.",
    ..Directive::once(random)
};

/// How a peer is chosen.
#[derive(Clone, Debug)]
pub enum Balance {
    /// Smooth weighted round robin.
    RoundRobin,
    /// `least_conn`.
    LeastConn,
    /// `ip_hash`.
    IpHash,
    /// `hash KEY [consistent]`.
    Hash {
        /// What is hashed.
        key: Template,
        /// The ketama ring.
        consistent: bool,
    },
    /// `least_time header|last_byte [inflight]`.
    LeastTime {
        /// Which time counts.
        of: TimeOf,
        /// Whether requests that wait for an answer count, too.
        inflight: bool,
    },
    /// `random [two [least_conn|least_time=header|last_byte]]`.
    Random {
        /// Draw two, and take the better one.
        two: Option<BetterOfTwo>,
    },
}

/// Until when a response is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeOf {
    /// Its header.
    Header,
    /// Its end.
    LastByte,
}

/// Which of two servers `random` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BetterOfTwo {
    /// The one with fewer connections.
    LeastConn,
    /// The one that answers sooner.
    LeastTime(TimeOf),
}

/// The directives that say how peers are chosen.
static METHODS: [&Directive<Balance>; 5] = [&HASH, &IP_HASH, &LEAST_CONN, &LEAST_TIME, &RANDOM];

impl Balance {
    /// Whether a server may have this parameter.
    fn takes(&self, parameter: &str) -> bool {
        match self {
            Self::RoundRobin | Self::LeastConn | Self::LeastTime { .. } => true,
            Self::IpHash | Self::Hash { .. } | Self::Random { .. } => {
                !matches!(parameter, "backup" | "slow_start")
            }
        }
    }
}

/// The method of a group. Like nginx it judges a `server` by what stands above it.
pub(crate) fn balance(reading: &mut Reading<'_>, level: &Level<'_>) -> Balance {
    let mut balance = Balance::RoundRobin;
    let mut chosen = false;
    for entry in level.entries() {
        if let Some(line) = METHODS.iter().find_map(|method| entry.of(method)) {
            if std::mem::replace(&mut chosen, true) {
                let problem = Diagnostic::warning("load balancing method redefined");
                let problem = problem.at(line.directive.head(), "this one takes effect");
                reading.report.push(problem);
            }
            balance = line.value.cloned().unwrap_or(balance);
        } else if let Some(line) = entry.of(&SERVER) {
            for word in line.directive.args.iter().skip(1) {
                let text = word.to_str_lossy();
                let parameter = text.split('=').next().unwrap_or_default();
                if !balance.takes(parameter) {
                    let message = format!("balancing method does not support parameter \"{word}\"");
                    reading.error(message, word.span);
                }
            }
        }
    }
    balance
}

fn hash(reading: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<Balance> {
    let consistent = match directive.args.get(1) {
        None => false,
        Some(word) if word.is("consistent") => true,
        Some(word) => return Err(invalid_parameter(word)),
    };
    Ok(Balance::Hash { key: reading.template(&directive.args[0])?, consistent })
}

fn random(_: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<Balance> {
    let two = match directive.args.first() {
        None => return Ok(Balance::Random { two: None }),
        Some(word) if word.is("two") => directive.args.get(1),
        Some(word) => return Err(invalid_parameter(word)),
    };
    let better = match two {
        Some(word) if word.is("least_time=header") => BetterOfTwo::LeastTime(TimeOf::Header),
        Some(word) if word.is("least_time=last_byte") => BetterOfTwo::LeastTime(TimeOf::LastByte),
        Some(word) if !word.is("least_conn") => return Err(invalid_parameter(word)),
        _ => BetterOfTwo::LeastConn,
    };
    Ok(Balance::Random { two: Some(better) })
}

fn least_time(_: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<Balance> {
    let times = [("header", TimeOf::Header), ("last_byte", TimeOf::LastByte)];
    let inflight = match directive.args.get(1) {
        None => false,
        Some(word) if word.is("inflight") => true,
        Some(word) => return Err(invalid_parameter(word)),
    };
    Ok(Balance::LeastTime { of: one_of(&directive.args[0], &times)?, inflight })
}
