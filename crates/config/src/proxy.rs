//! Passing requests on: what is asked, how it is read, and what becomes of the answer.

pub(crate) mod cookies;
pub(crate) mod inherited;
pub(crate) mod next_upstream;
pub(crate) mod pass;
pub(crate) mod redirect;
pub(crate) mod tls;
mod token_line;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use wssgate_syntax::{self as syntax, Diagnostic};

use crate::directive::Arity::{AtLeast, Between, Exactly, Flag};
use crate::directive::{AnyDirective, Directive, HSL};
use crate::proxy::cookies::{CookieFlags, CookieRewrite, cookie_rules};
use crate::proxy::inherited::InheritedProxy;
use crate::proxy::next_upstream::{
    NextUpstream, PROXY_NEXT_UPSTREAM_TIMEOUT, PROXY_NEXT_UPSTREAM_TRIES, conditions,
};
use crate::proxy::pass::{ProxyPass, uses_tls};
use crate::proxy::redirect::ProxyRedirect;
use crate::proxy::tls::{ProxyTls, check_tls, proxy_tls};
use crate::read::{
    Reading, Reads, buffers, duration, flag, has_variables, invalid_parameter, one_of, rate, size,
    size_template, template,
};
use crate::scope::Scope;
use crate::template::Template;
use crate::tunnels::{TunnelSettings, tunnel_settings};
use crate::websocket;

/// The rows.
pub(crate) static ROWS: &[&dyn AnyDirective] = &[
    &PROXY_BIND,
    &PROXY_BUFFER_SIZE,
    &PROXY_BUFFERING,
    &PROXY_BUFFERS,
    &PROXY_BUSY_BUFFERS_SIZE,
    &PROXY_CONNECT_TIMEOUT,
    &PROXY_FORCE_RANGES,
    &PROXY_HIDE_HEADER,
    &PROXY_HTTP_VERSION,
    &PROXY_IGNORE_CLIENT_ABORT,
    &PROXY_IGNORE_HEADERS,
    &PROXY_INTERCEPT_ERRORS,
    &PROXY_LIMIT_RATE,
    &PROXY_METHOD,
    &PROXY_PASS_HEADER,
    &PROXY_PASS_REQUEST_BODY,
    &PROXY_PASS_REQUEST_HEADERS,
    &PROXY_PASS_TRAILERS,
    &PROXY_PROTOCOL,
    &PROXY_READ_TIMEOUT,
    &PROXY_REQUEST_BUFFERING,
    &PROXY_SEND_TIMEOUT,
    &PROXY_SET_BODY,
    &PROXY_SET_HEADER,
    &PROXY_SOCKET_KEEPALIVE,
];

/// `proxy_bind`
pub(crate) static PROXY_BIND: Directive<Option<Template>> = Directive {
    name: "proxy_bind",
    contexts: HSL,
    arity: Between(1, 2),
    doc: "Sets the local address of connections to upstream servers.",
    ..Directive::once(bind)
};

/// `proxy_buffer_size`
pub(crate) static PROXY_BUFFER_SIZE: Directive<u64> = Directive {
    name: "proxy_buffer_size",
    contexts: HSL,
    arity: Exactly(1),
    default: "4k",
    doc: "Limits the size of the response header of an upstream server. With `proxy_buffering off` \
          it also limits how much of a response is buffered. In a tunnel it is how much is read at \
          once (at most 16k) for a side that is slow; while that side keeps up, it grows to 64k, \
          the most that is ever buffered for a side that stops reading.",
    ..Directive::once(size)
};

/// `proxy_buffering`
pub(crate) static PROXY_BUFFERING: Directive<bool> = Directive {
    name: "proxy_buffering",
    contexts: HSL,
    arity: Flag,
    default: "on",
    doc: "Buffers responses of upstream servers, so that a slow client does not hold them up.",
    ..Directive::once(flag)
};

/// `proxy_buffers`
pub(crate) static PROXY_BUFFERS: Directive<(usize, usize)> = Directive {
    name: "proxy_buffers",
    contexts: HSL,
    arity: Exactly(2),
    default: "8 4k",
    doc: "Sets the number and size of the buffers for the response of an upstream server.",
    ..Directive::once(buffers)
};

/// `proxy_busy_buffers_size`
pub(crate) static PROXY_BUSY_BUFFERS_SIZE: Directive<u64> = Directive {
    name: "proxy_busy_buffers_size",
    contexts: HSL,
    arity: Exactly(1),
    without_effect: "`proxy_buffers` alone limits what is buffered; the sizes are only checked for consistency",
    ..Directive::once(size)
};

/// `proxy_connect_timeout`
pub(crate) static PROXY_CONNECT_TIMEOUT: Directive<Duration> = Directive {
    name: "proxy_connect_timeout",
    contexts: HSL,
    arity: Exactly(1),
    default: "60s",
    doc: "Sets the timeout for connecting to an upstream server.",
    ..Directive::once(duration)
};

/// `proxy_force_ranges`
pub(crate) static PROXY_FORCE_RANGES: Directive<bool> = Directive {
    name: "proxy_force_ranges",
    contexts: HSL,
    arity: Flag,
    default: "off",
    doc: "Supports byte ranges for upstream responses even if they have no `Accept-Ranges` header.",
    ..Directive::once(flag)
};

/// `proxy_hide_header`
pub(crate) static PROXY_HIDE_HEADER: Directive<Box<[u8]>> = Directive {
    name: "proxy_hide_header",
    contexts: HSL,
    arity: Exactly(1),
    doc: "Hides a header of upstream responses from clients.",
    ..Directive::repeated(field_name)
};

/// `proxy_http_version`
pub(crate) static PROXY_HTTP_VERSION: Directive<bool> = Directive {
    name: "proxy_http_version",
    contexts: HSL,
    arity: Exactly(1),
    default: "1.1",
    doc: "Sets the HTTP version of requests to upstream servers, `1.0` or `1.1`.",
    ..Directive::once(http_version)
};

/// `proxy_ignore_client_abort`
pub(crate) static PROXY_IGNORE_CLIENT_ABORT: Directive<bool> = Directive {
    name: "proxy_ignore_client_abort",
    contexts: HSL,
    arity: Flag,
    default: "off",
    doc: "Completes the request to the upstream server even if the client closes the connection.",
    ..Directive::once(flag)
};

/// `proxy_ignore_headers`
pub(crate) static PROXY_IGNORE_HEADERS: Directive<Vec<Box<[u8]>>> = Directive {
    name: "proxy_ignore_headers",
    contexts: HSL,
    arity: AtLeast(1),
    doc: "Disables the processing of certain headers of upstream responses, for example \
          `X-Accel-Redirect`.",
    ..Directive::repeated(ignore_headers)
};

/// `proxy_intercept_errors`
pub(crate) static PROXY_INTERCEPT_ERRORS: Directive<bool> = Directive {
    name: "proxy_intercept_errors",
    contexts: HSL,
    arity: Flag,
    default: "off",
    doc: "Applies `error_page` to responses of upstream servers.",
    ..Directive::once(flag)
};

/// `proxy_limit_rate`
pub(crate) static PROXY_LIMIT_RATE: Directive<Template> = Directive {
    name: "proxy_limit_rate",
    contexts: HSL,
    arity: Exactly(1),
    default: "0",
    doc: "Limits how fast the response of an upstream server is read, in bytes per second; 0 \
          disables the limit.",
    ..Directive::once(size_template)
};

/// `proxy_method`
pub(crate) static PROXY_METHOD: Directive<Template> = Directive {
    name: "proxy_method",
    contexts: HSL,
    arity: Exactly(1),
    doc: "Sets the method of requests to upstream servers.",
    ..Directive::once(template)
};

/// `proxy_pass_header`
pub(crate) static PROXY_PASS_HEADER: Directive<Box<[u8]>> = Directive {
    name: "proxy_pass_header",
    contexts: HSL,
    arity: Exactly(1),
    doc: "Passes a header of upstream responses that is hidden by default.",
    ..Directive::repeated(field_name)
};

/// `proxy_pass_request_body`
pub(crate) static PROXY_PASS_REQUEST_BODY: Directive<bool> = Directive {
    name: "proxy_pass_request_body",
    contexts: HSL,
    arity: Flag,
    default: "on",
    doc: "Passes the request body to upstream servers.",
    ..Directive::once(flag)
};

/// `proxy_pass_request_headers`
pub(crate) static PROXY_PASS_REQUEST_HEADERS: Directive<bool> = Directive {
    name: "proxy_pass_request_headers",
    contexts: HSL,
    arity: Flag,
    default: "on",
    doc: "Passes the request headers of the client to upstream servers.",
    ..Directive::once(flag)
};

/// `proxy_pass_trailers`
pub(crate) static PROXY_PASS_TRAILERS: Directive<bool> = Directive {
    name: "proxy_pass_trailers",
    contexts: HSL,
    arity: Flag,
    default: "off",
    doc: "Passes the trailers of upstream responses to clients.",
    ..Directive::once(flag)
};

/// `proxy_protocol`
pub(crate) static PROXY_PROTOCOL: Directive<SendProxyProtocol> = Directive {
    name: "proxy_protocol",
    contexts: HSL,
    arity: Exactly(1),
    default: "off",
    doc: "Begins connections to upstream servers with a PROXY protocol header, which tells them \
          the client address: `on` sends version 1, `v2` version 2 with TLS details. Such a \
          connection is reused only for the same client connection.",
    ..Directive::once(send_proxy_protocol)
};

/// `proxy_read_timeout`
pub(crate) static PROXY_READ_TIMEOUT: Directive<Duration> = Directive {
    name: "proxy_read_timeout",
    contexts: HSL,
    arity: Exactly(1),
    default: "60s",
    doc: "Sets how long an upstream server may send nothing before the request ends. In a tunnel, \
          data in either direction restarts it.",
    ..Directive::once(duration)
};

/// `proxy_request_buffering`
pub(crate) static PROXY_REQUEST_BUFFERING: Directive<bool> = Directive {
    name: "proxy_request_buffering",
    contexts: HSL,
    arity: Flag,
    default: "on",
    doc: "Reads the complete request body before a request is passed to an upstream server.",
    ..Directive::once(flag)
};

/// `proxy_send_timeout`
pub(crate) static PROXY_SEND_TIMEOUT: Directive<Duration> = Directive {
    name: "proxy_send_timeout",
    contexts: HSL,
    arity: Exactly(1),
    default: "60s",
    doc: "Sets how long an upstream server may accept no data before the request or tunnel ends.",
    ..Directive::once(duration)
};

/// `proxy_set_body`
pub(crate) static PROXY_SET_BODY: Directive<Template> = Directive {
    name: "proxy_set_body",
    contexts: HSL,
    arity: Exactly(1),
    doc: "Sets the body of requests to upstream servers.",
    ..Directive::once(template)
};

/// `proxy_set_header`
pub(crate) static PROXY_SET_HEADER: Directive<(Box<[u8]>, Template)> = Directive {
    name: "proxy_set_header",
    contexts: HSL,
    arity: Exactly(2),
    doc: "Sets a header of requests to upstream servers; an empty value removes it.",
    ..Directive::repeated(set_header)
};

/// `proxy_socket_keepalive`
pub(crate) static PROXY_SOCKET_KEEPALIVE: Directive<bool> = Directive {
    name: "proxy_socket_keepalive",
    contexts: HSL,
    arity: Flag,
    default: "off",
    doc: "Enables TCP keepalive on connections to upstream servers.",
    ..Directive::once(flag)
};

/// Merged `proxy_*` settings of a location.
#[derive(Clone, Debug)]
pub struct ProxySettings {
    /// `proxy_http_version` is 1.1 (else 1.0).
    pub http11: bool,
    /// `websocket`: upgrades pass where no line says what to do with them.
    pub websocket: bool,
    /// What holds in WebSockets.
    pub tunnels: TunnelSettings,
    /// `websocket_tcp_user_timeout`.
    pub websocket_tcp_user_timeout: Option<Duration>,
    /// `proxy_set_header` lines that apply here, in order; nothing built in is among them.
    pub set_headers: Arc<Vec<(Box<[u8]>, Template)>>,
    /// `proxy_set_body`.
    pub set_body: Option<Template>,
    /// `proxy_method`.
    pub method: Option<Template>,
    /// `proxy_pass_request_headers`.
    pub pass_request_headers: bool,
    /// `proxy_pass_request_body`.
    pub pass_request_body: bool,
    /// `proxy_connect_timeout`.
    pub connect_timeout: Duration,
    /// `proxy_read_timeout`, between two reads; of a tunnel: without traffic either way.
    pub read_timeout: Duration,
    /// `proxy_send_timeout`, between two writes.
    pub send_timeout: Duration,
    /// `proxy_next_upstream`.
    pub next_upstream: NextUpstream,
    /// `proxy_next_upstream_timeout`; zero is unlimited.
    pub next_upstream_timeout: Duration,
    /// `proxy_next_upstream_tries`; 0 is unlimited.
    pub next_upstream_tries: u32,
    /// `proxy_buffering`.
    pub buffering: bool,
    /// `proxy_request_buffering`.
    pub request_buffering: bool,
    /// `proxy_buffer_size`, bytes: bound of the response head.
    pub buffer_size: usize,
    /// `proxy_buffers`: how many, and bytes each.
    pub buffers: (usize, usize),
    /// `proxy_redirect` rules, in order.
    pub redirects: Arc<[ProxyRedirect]>,
    /// `proxy_hide_header`, and the fields hidden by default unless `proxy_pass_header` names
    /// them; lower case.
    pub hide_headers: Arc<Vec<Box<[u8]>>>,
    /// `proxy_ignore_headers`, lower case.
    pub ignore_headers: Vec<Box<[u8]>>,
    /// `proxy_intercept_errors`.
    pub intercept_errors: bool,
    /// `proxy_ignore_client_abort`.
    pub ignore_client_abort: bool,
    /// `proxy_protocol`.
    pub proxy_protocol: SendProxyProtocol,
    /// `proxy_socket_keepalive`.
    pub socket_keepalive: bool,
    /// `proxy_bind`: the local address; `None` when absent, off or empty.
    pub bind: Option<Template>,
    /// `proxy_limit_rate`.
    pub limit_rate: Option<Template>,
    /// `proxy_force_ranges`.
    pub force_ranges: bool,
    /// `proxy_pass_trailers`.
    pub pass_trailers: bool,
    /// `proxy_cookie_domain` rules.
    pub cookie_domains: Vec<CookieRewrite>,
    /// `proxy_cookie_path` rules.
    pub cookie_paths: Vec<CookieRewrite>,
    /// `proxy_cookie_flags` rules: cookie name pattern and flags.
    pub cookie_flags: Vec<CookieFlags>,
    /// `proxy_ssl_*`.
    pub tls: Arc<ProxyTls>,
}

/// `proxy_protocol`: what upstreams are told of the client before the first request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendProxyProtocol {
    /// Nothing.
    Off,
    /// A header of version 1.
    V1,
    /// A header of version 2.
    V2,
}

fn send_proxy_protocol(
    _: &mut Reading<'_>,
    directive: &syntax::Directive,
) -> Reads<SendProxyProtocol> {
    let choices = [
        ("off", SendProxyProtocol::Off),
        ("on", SendProxyProtocol::V1),
        ("v2", SendProxyProtocol::V2),
    ];
    one_of(&directive.args[0], &choices)
}

fn set_header(
    reading: &mut Reading<'_>,
    directive: &syntax::Directive,
) -> Reads<(Box<[u8]>, Template)> {
    let [name, value] = &directive.args[..] else {
        unreachable!("the row asks for two arguments");
    };
    Ok((name.value.clone(), reading.template(value)?))
}

fn http_version(_: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<bool> {
    let word = &directive.args[0];
    if word.is("2") {
        let problem =
            Diagnostic::error("HTTP/2 to upstream servers is not supported").at(word.span, "");
        return Err(problem.help("write `proxy_http_version 1.1`"));
    }
    one_of(word, &[("1.0", false), ("1.1", true)])
}

fn field_name(_: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<Box<[u8]>> {
    Ok(Box::<[u8]>::from(directive.args[0].value.to_ascii_lowercase()))
}

const IGNORABLE: [(&str, ()); 9] = [
    ("X-Accel-Redirect", ()),
    ("X-Accel-Expires", ()),
    ("X-Accel-Limit-Rate", ()),
    ("X-Accel-Buffering", ()),
    ("X-Accel-Charset", ()),
    ("Expires", ()),
    ("Cache-Control", ()),
    ("Set-Cookie", ()),
    ("Vary", ()),
];

fn ignore_headers(_: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<Vec<Box<[u8]>>> {
    let mut names: Vec<Box<[u8]>> = Vec::new();
    for word in &directive.args {
        one_of(word, &IGNORABLE)?;
        names.push(word.value.to_ascii_lowercase().into());
    }
    Ok(names)
}

/// Reads the local address; `None` for `off`.
fn bind(reading: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<Option<Template>> {
    let word = &directive.args[0];
    if directive.args.len() == 1 && word.is("off") {
        return Ok(None);
    }
    if let Some(second) = directive.args.get(1) {
        if !second.is("transparent") {
            return Err(invalid_parameter(second));
        }
        let problem =
            Diagnostic::error("transparent proxying is not supported").at(second.span, "");
        return Err(problem.help("pass the client address in a header"));
    }
    if !has_variables(word) {
        let literal = word.as_str().is_some_and(|text| {
            let with_port = text.parse::<SocketAddr>().is_ok_and(|address| address.port() != 0);
            text.parse::<IpAddr>().is_ok() || with_port
        });
        if !literal {
            return Err(Diagnostic::error(format!("invalid address \"{word}\"")).at(word.span, ""));
        }
    }
    reading.template(word).map(Some)
}

/// Everything else about passing requests on.
pub(crate) fn proxy_settings(
    reading: &mut Reading<'_>,
    scope: &Scope<'_, '_>,
    inherited: &InheritedProxy,
    pass: Option<&ProxyPass>,
) -> ProxySettings {
    let (buffer_size, buffers) = fitting_buffers(reading, scope);
    token_line::check(reading, scope);
    if uses_tls(pass) {
        check_tls(reading, scope);
    }
    ProxySettings {
        http11: scope.get(&PROXY_HTTP_VERSION),
        websocket: scope.get(&websocket::WEBSOCKET),
        tunnels: tunnel_settings(scope),
        websocket_tcp_user_timeout: scope.get(&websocket::WEBSOCKET_TCP_USER_TIMEOUT),
        set_headers: inherited.set_headers.get(|| scope.all(&PROXY_SET_HEADER)),
        set_body: scope.maybe(&PROXY_SET_BODY),
        method: scope.maybe(&PROXY_METHOD),
        pass_request_headers: scope.get(&PROXY_PASS_REQUEST_HEADERS),
        pass_request_body: scope.get(&PROXY_PASS_REQUEST_BODY),
        connect_timeout: scope.get(&PROXY_CONNECT_TIMEOUT),
        read_timeout: scope.get(&PROXY_READ_TIMEOUT),
        send_timeout: scope.get(&PROXY_SEND_TIMEOUT),
        next_upstream: conditions(scope),
        next_upstream_timeout: scope.get(&PROXY_NEXT_UPSTREAM_TIMEOUT),
        next_upstream_tries: scope.small(&PROXY_NEXT_UPSTREAM_TRIES),
        buffering: scope.get(&PROXY_BUFFERING),
        request_buffering: scope.get(&PROXY_REQUEST_BUFFERING),
        buffer_size,
        buffers,
        redirects: inherited.redirects.effective(),
        hide_headers: inherited.hide_headers.get(|| hidden(scope)),
        ignore_headers: scope.all(&PROXY_IGNORE_HEADERS).concat(),
        intercept_errors: scope.get(&PROXY_INTERCEPT_ERRORS),
        ignore_client_abort: scope.get(&PROXY_IGNORE_CLIENT_ABORT),
        proxy_protocol: scope.get(&PROXY_PROTOCOL),
        socket_keepalive: scope.get(&PROXY_SOCKET_KEEPALIVE),
        bind: scope.maybe(&PROXY_BIND).flatten(),
        limit_rate: rate(scope.get(&PROXY_LIMIT_RATE)),
        force_ranges: scope.get(&PROXY_FORCE_RANGES),
        pass_trailers: scope.get(&PROXY_PASS_TRAILERS),
        cookie_domains: cookie_rules(reading, scope, &cookies::PROXY_COOKIE_DOMAIN),
        cookie_paths: cookie_rules(reading, scope, &cookies::PROXY_COOKIE_PATH),
        cookie_flags: cookie_rules(reading, scope, &cookies::PROXY_COOKIE_FLAGS),
        tls: inherited.tls.get(|| proxy_tls(reading, scope)),
    }
}

/// Buffer sizes, which must fit each other as nginx has it.
fn fitting_buffers(reading: &mut Reading<'_>, scope: &Scope<'_, '_>) -> (usize, (usize, usize)) {
    let size = scope.count(&PROXY_BUFFER_SIZE);
    let (count, each): (usize, usize) = scope.get(&PROXY_BUFFERS);
    let largest = size.max(each);
    let busy = scope.maybe(&PROXY_BUSY_BUFFERS_SIZE);
    let busy = busy.map_or(largest.saturating_mul(2), |busy| busy as usize);
    let message = if count < 2 {
        "there must be at least 2 \"proxy_buffers\""
    } else if busy < largest {
        "\"proxy_busy_buffers_size\" must be equal to or greater than the maximum of the value of \
         \"proxy_buffer_size\" and one of the \"proxy_buffers\""
    } else if busy > (count - 1).saturating_mul(each) {
        "\"proxy_busy_buffers_size\" must be less than the size of all \"proxy_buffers\" minus one \
         buffer"
    } else {
        return (size, (count, each));
    };
    let written = [
        scope.written_at(&PROXY_BUSY_BUFFERS_SIZE, reading.nowhere),
        scope.written_at(&PROXY_BUFFERS, reading.nowhere),
        scope.written_at(&PROXY_BUFFER_SIZE, reading.nowhere),
    ];
    let problem = written
        .into_iter()
        .flatten()
        .fold(Diagnostic::error(message), |problem, span| problem.at(span, ""));
    reading.report.push(problem);
    (size, (count, each))
}

/// The fields of upstream answers that clients never see, unless `proxy_pass_header` names them.
const HIDDEN: [&str; 8] = [
    "date",
    "server",
    "x-pad",
    "x-accel-expires",
    "x-accel-redirect",
    "x-accel-limit-rate",
    "x-accel-buffering",
    "x-accel-charset",
];

/// Hidden fields: those of the directive and the built-in ones, without those that are passed.
fn hidden(scope: &Scope<'_, '_>) -> Vec<Box<[u8]>> {
    let passed: Vec<Box<[u8]>> = scope.all(&PROXY_PASS_HEADER);
    let mut hidden: Vec<Box<[u8]>> = scope.all(&PROXY_HIDE_HEADER);
    let builtin = HIDDEN.iter().map(|name| Box::<[u8]>::from(name.as_bytes()));
    for name in builtin {
        if !hidden.contains(&name) && !passed.contains(&name) {
            hidden.push(name);
        }
    }
    hidden
}
