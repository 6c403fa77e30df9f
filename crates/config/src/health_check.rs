//! `health_check`: the servers of a group are asked at intervals whether they are well.

pub(crate) mod matching;

use std::sync::Arc;
use std::time::Duration;

use wssgate_syntax::{self as syntax, Diagnostic, Span, Word, printable};

use crate::directive::Arity::AtLeast;
use crate::directive::{AnyDirective, Directive, L, Parameter};
use crate::health_check::matching::{Match, Matches};
use crate::proxy::pass::{PROXY_PASS, ProxyPass};
use crate::read::{
    Reading, Reads, invalid_parameter, parameter, parameter_names, unknown_parameter,
};
use crate::scope::Scope;
use crate::upstream::checks::{CheckRules, OnDown};
use crate::upstream::{Groups, UpstreamId};
use crate::value::{self, Located};

/// The rows.
pub(crate) static ROWS: &[&dyn AnyDirective] = &[&HEALTH_CHECK];

/// `health_check`
pub(crate) static HEALTH_CHECK: Directive<Draft> = Directive {
    name: "health_check",
    contexts: L,
    arity: AtLeast(0),
    doc: "Checks the servers of the group that the location passes requests to. A server that fails \
          gets no requests until it passes again. The checks' requests are made with the settings \
          of the location (`proxy_set_header`, `proxy_ssl_*`, `proxy_connect_timeout`, \
          `proxy_read_timeout` …).",
    parameters: PARAMETERS,
    example: "server {\n    location @health {\n        proxy_pass http://127.0.0.1:3000;\n        \
              proxy_read_timeout 2s;\n        health_check interval=3s fails=2 type=websocket uri=/chat \
              on_down=drain;\n    }\n}",
    ..Directive::once(health_check)
};

const PARAMETERS: &[Parameter] = &[
    ("interval=TIME", "the time between two checks of a server; 5s by default"),
    ("jitter=TIME", "the time within which each check is delayed at random; none by default"),
    (
        "fails=NUMBER",
        "the number of consecutive failures after which a server is unhealthy; 1 by default",
    ),
    (
        "passes=NUMBER",
        "the number of consecutive passes after which it is healthy again; 1 by default",
    ),
    ("uri=URI", "what is requested, instead of `/`"),
    (
        "mandatory",
        "a server gets no requests before its first check has passed, also after a reload",
    ),
    (
        "persistent",
        "with `mandatory`: a server that was healthy before a reload goes on getting requests",
    ),
    ("match=NAME", "the `match` block that a response must pass, instead of the status 2xx or 3xx"),
    ("port=NUMBER", "the port that is connected to, instead of the server's"),
    (
        "keepalive_time=TIME",
        "how long one connection is used for checks; by default each check makes its own",
    ),
    (
        "type=websocket",
        "a check opens a WebSocket, wants its ping answered, and its Close; not with `match=`",
    ),
    (
        "subprotocol=NAME",
        "with `type=websocket`: the subprotocol that is offered and must be selected",
    ),
    ("timeout=TIME", "how long a whole check may take, besides the timeouts of the location"),
    (
        "on_down=keep|drain|close",
        "what becomes of the open WebSockets of a server that is unhealthy now: they stay (the \
         default), are sent a Close with code 1001 one after the other, over the time of `websocket_drain` or \
         else 5 seconds, or are closed at once",
    ),
];

/// A check of the servers of a group.
#[derive(Clone, Debug)]
pub struct HealthCheck {
    /// The group.
    pub upstream: UpstreamId,
    /// `interval=`.
    pub interval: Duration,
    /// `jitter=`.
    pub jitter: Duration,
    /// `timeout=`.
    pub timeout: Option<Duration>,
    /// `uri=`.
    pub uri: Box<[u8]>,
    /// `port=`.
    pub port: Option<u16>,
    /// What is asked, and what of the answer is tested.
    pub kind: CheckKind,
}

/// What a check asks for.
#[derive(Clone, Debug)]
pub enum CheckKind {
    /// A response.
    Http {
        /// `match=`; without it the status must be 2xx or 3xx.
        matching: Option<Arc<Match>>,
        /// `keepalive_time=`.
        keepalive: Option<Duration>,
    },
    /// A WebSocket.
    WebSocket {
        /// `subprotocol=`.
        subprotocol: Option<Box<[u8]>>,
    },
}

/// `health_check` as it is written.
#[derive(Clone)]
pub(crate) struct Draft {
    interval: Duration,
    jitter: Duration,
    timeout: Option<Duration>,
    rules: CheckRules,
    uri: Box<[u8]>,
    port: Option<u16>,
    matching: Option<Located<Box<[u8]>>>,
    keepalive: Option<(Duration, Span)>,
    websocket: bool,
    subprotocol: Option<(Box<[u8]>, Span)>,
    span: Span,
}

fn health_check(_: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<Draft> {
    let mut draft = Draft {
        interval: Duration::from_secs(5),
        jitter: Duration::ZERO,
        timeout: None,
        rules: CheckRules {
            fails: 1,
            passes: 1,
            mandatory: false,
            persistent: false,
            on_down: OnDown::Keep,
        },
        uri: b"/".as_slice().into(),
        port: None,
        matching: None,
        keepalive: None,
        websocket: false,
        subprotocol: None,
        span: directive.head(),
    };
    for word in &directive.args {
        check_parameter(&mut draft, word)?;
    }
    let refuse = |message: &str, span| Err(Diagnostic::error(message).at(span, ""));
    if draft.rules.persistent && !draft.rules.mandatory {
        return refuse("\"persistent\" requires \"mandatory\" parameter", draft.span);
    }
    match (&draft.matching, &draft.keepalive, &draft.subprotocol) {
        (Some(name), ..) if draft.websocket => {
            refuse("\"match\" cannot be used with \"type=websocket\"", name.span)
        }
        (_, Some((_, span)), _) if draft.websocket => {
            refuse("\"keepalive_time\" cannot be used with \"type=websocket\"", *span)
        }
        (.., Some((_, span))) if !draft.websocket => {
            refuse("\"subprotocol\" requires \"type=websocket\"", *span)
        }
        _ => Ok(draft),
    }
}

fn check_parameter(draft: &mut Draft, word: &Word) -> Reads<()> {
    let invalid = || invalid_parameter(word);
    let time = |text| value::duration(text).ok_or_else(invalid);
    let positive =
        |text| time(text).and_then(|time| (!time.is_zero()).then_some(time).ok_or_else(invalid));
    let count = |text| {
        let number = value::number(text).and_then(|number| u32::try_from(number).ok());
        number.filter(|number| *number > 0).ok_or_else(invalid)
    };
    if let Some(text) = parameter(word, "interval=") {
        draft.interval = positive(text)?;
    } else if let Some(text) = parameter(word, "jitter=") {
        draft.jitter = time(text)?;
    } else if let Some(text) = parameter(word, "timeout=") {
        draft.timeout = Some(positive(text)?);
    } else if let Some(text) = parameter(word, "fails=") {
        draft.rules.fails = count(text)?;
    } else if let Some(text) = parameter(word, "passes=") {
        draft.rules.passes = count(text)?;
    } else if let Some(text) = parameter(word, "uri=") {
        draft.uri = uri(word, text)?;
    } else if word.is("mandatory") {
        draft.rules.mandatory = true;
    } else if word.is("persistent") {
        draft.rules.persistent = true;
    } else if let Some(text) = parameter(word, "match=") {
        draft.matching = Some(Located { value: text.into(), span: word.span });
    } else if let Some(text) = parameter(word, "port=") {
        let port = value::number(text).and_then(|port| u16::try_from(port).ok());
        let port = port.filter(|port| *port > 0);
        draft.port = Some(port.ok_or_else(|| {
            let text = printable(text);
            Diagnostic::error(format!("invalid port \"{text}\"")).at(word.span, "from 1 to 65535")
        })?);
    } else if let Some(text) = parameter(word, "keepalive_time=") {
        draft.keepalive = Some((positive(text)?, word.span));
    } else if let Some(text) = parameter(word, "type=") {
        draft.websocket = is_websocket(word, text)?;
    } else if let Some(text) = parameter(word, "subprotocol=") {
        if !is_token(text) {
            return Err(invalid());
        }
        draft.subprotocol = Some((text.into(), word.span));
    } else if let Some(text) = parameter(word, "on_down=") {
        draft.rules.on_down = match text {
            b"keep" => OnDown::Keep,
            b"drain" => OnDown::Drain,
            b"close" => OnDown::Close,
            _ => return Err(invalid()),
        };
    } else {
        return Err(unknown_parameter(word, &parameter_names(PARAMETERS)));
    }
    Ok(())
}

/// A target for a request line.
fn uri(word: &Word, text: &[u8]) -> Reads<Box<[u8]>> {
    if text.first() != Some(&b'/') {
        return Err(invalid_parameter(word).help("a URI begins with `/`"));
    }
    if !text.iter().all(u8::is_ascii_graphic) || text.contains(&b'#') {
        let help = "write what cannot stand in a request line with escapes such as `%20`";
        return Err(invalid_parameter(word).help(help));
    }
    Ok(text.into())
}

fn is_websocket(word: &Word, text: &[u8]) -> Reads<bool> {
    match text {
        b"http" => Ok(false),
        b"websocket" => Ok(true),
        b"grpc" => {
            let problem = Diagnostic::error("\"type=grpc\" of \"health_check\" is not supported");
            let help = "gRPC needs HTTP/2, and wssgate speaks HTTP/1.1 with upstream servers; check \
                        a URI of the server with `uri=`";
            Err(problem.at(word.span, "").help(help))
        }
        _ => Err(invalid_parameter(word).help("`type=websocket`, or `type=http`, the default")),
    }
}

/// RFC 9110 §5.6.2.
fn is_token(text: &[u8]) -> bool {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !text.is_empty() && text.iter().all(allowed)
}

/// The check of a location.
pub(crate) fn check_of(
    reading: &mut Reading<'_>,
    groups: &mut Groups,
    matches: &Matches,
    scope: &Scope<'_, '_>,
    pass: Option<&ProxyPass>,
) -> Option<HealthCheck> {
    let draft = scope.level.last(&HEALTH_CHECK)?;
    let fixed = match pass {
        Some(ProxyPass::Fixed(fixed)) => fixed,
        Some(ProxyPass::Variable(_)) => {
            let problem =
                Diagnostic::error("\"health_check\" needs a \"proxy_pass\" without variables");
            let help = "with variables it is known only with a request which servers are meant";
            reading.report.push(problem.at(draft.span, "").help(help));
            return None;
        }
        None => {
            // One that could not be read is reported already.
            if !scope.level.has(&PROXY_PASS) {
                let problem =
                    Diagnostic::error("\"health_check\" requires \"proxy_pass\" in its location");
                let help = "the servers of the group that it names are checked";
                reading.report.push(problem.at(draft.span, "").help(help));
            }
            return None;
        }
    };
    let matching = match &draft.matching {
        None => None,
        Some(name) => Some(matches.find(reading, name)?),
    };
    let kind = match draft.websocket {
        true => {
            let subprotocol = draft.subprotocol.as_ref().map(|(name, _)| name.clone());
            CheckKind::WebSocket { subprotocol }
        }
        false => CheckKind::Http { matching, keepalive: draft.keepalive.map(|(time, _)| time) },
    };
    groups.add_check(fixed.upstream, draft.rules);
    Some(HealthCheck {
        upstream: fixed.upstream,
        interval: draft.interval,
        jitter: draft.jitter,
        timeout: draft.timeout,
        uri: draft.uri.clone(),
        port: draft.port,
        kind,
    })
}
