//! Passing requests on: what is asked, how it is read, and what becomes of the answer.

pub(crate) mod cookies;
pub(crate) mod next_upstream;
pub(crate) mod pass;
pub(crate) mod redirect;
pub(crate) mod tls;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use wssgate_syntax::{Diagnostic, Directive};

use crate::directive::Arity::{AtLeast, Between, Exactly, Flag};
use crate::directive::{HSL, Row, Value, works};
use crate::location::Content;
use crate::proxy::cookies::{CookieFlags, CookieRewrite};
use crate::proxy::next_upstream::{NextUpstream, conditions};
use crate::proxy::pass::uses_tls;
use crate::proxy::redirect::{ProxyRedirect, Redirects};
use crate::proxy::tls::ProxyTls;
use crate::read::{
    Reading, Reads, buffers, duration, flag, has_variables, invalid_parameter, one_of, size,
    size_template, template,
};
use crate::resolve::Resolver;
use crate::scope::Scope;
use crate::settings::limit;
use crate::template::Template;

/// The rows.
pub(crate) const ROWS: &[Row] = &[
    works("proxy_bind", HSL, Between(1, 2), "", "The local address of upstream connections.", bind),
    works(
        "proxy_buffer_size",
        HSL,
        Exactly(1),
        "4k",
        "Bounds the head of an upstream answer.",
        size,
    ),
    works("proxy_buffering", HSL, Flag, "on", "Reads upstream answers ahead of the client.", flag),
    works("proxy_buffers", HSL, Exactly(2), "8 4k", "Bounds what is read ahead.", buffers),
    works(
        "proxy_busy_buffers_size",
        HSL,
        Exactly(1),
        "",
        "Bounds what is being sent to the client.",
        size,
    ),
    works(
        "proxy_connect_timeout",
        HSL,
        Exactly(1),
        "60s",
        "How long a connection to an upstream may take.",
        duration,
    ),
    works(
        "proxy_force_ranges",
        HSL,
        Flag,
        "off",
        "Serves ranges of answers that do not offer them.",
        flag,
    ),
    works(
        "proxy_hide_header",
        HSL,
        Exactly(1),
        "",
        "Hides a field of upstream answers.",
        field_name,
    )
    .many(),
    works(
        "proxy_http_version",
        HSL,
        Exactly(1),
        "1.1",
        "The HTTP version towards upstreams.",
        http_version,
    ),
    works(
        "proxy_ignore_client_abort",
        HSL,
        Flag,
        "off",
        "Finishes requests whose client has gone.",
        flag,
    ),
    works(
        "proxy_ignore_headers",
        HSL,
        AtLeast(1),
        "",
        "Upstream fields that have no effect on us.",
        ignore_headers,
    )
    .many(),
    works(
        "proxy_intercept_errors",
        HSL,
        Flag,
        "off",
        "Applies `error_page` to upstream answers.",
        flag,
    ),
    works(
        "proxy_limit_rate",
        HSL,
        Exactly(1),
        "0",
        "Bytes of an upstream answer per second.",
        size_template,
    ),
    works("proxy_method", HSL, Exactly(1), "", "The method of upstream requests.", template),
    works(
        "proxy_pass_header",
        HSL,
        Exactly(1),
        "",
        "Passes a field that is hidden otherwise.",
        field_name,
    )
    .many(),
    works("proxy_pass_request_body", HSL, Flag, "on", "Passes the request body.", flag),
    works("proxy_pass_request_headers", HSL, Flag, "on", "Passes the client's fields.", flag),
    works(
        "proxy_pass_trailers",
        HSL,
        Flag,
        "off",
        "Passes trailer fields of upstream answers.",
        flag,
    ),
    works(
        "proxy_read_timeout",
        HSL,
        Exactly(1),
        "60s",
        "Ends an exchange when the upstream is silent for this long.",
        duration,
    ),
    works(
        "proxy_request_buffering",
        HSL,
        Flag,
        "on",
        "Reads the request body before an upstream is asked.",
        flag,
    ),
    works(
        "proxy_send_timeout",
        HSL,
        Exactly(1),
        "60s",
        "Ends an exchange when the upstream takes nothing for this long.",
        duration,
    ),
    works("proxy_set_body", HSL, Exactly(1), "", "The body of upstream requests.", template),
    works(
        "proxy_set_header",
        HSL,
        Exactly(2),
        "",
        "Sets a field of upstream requests; an empty value removes it.",
        set_header,
    )
    .many(),
    works(
        "proxy_socket_keepalive",
        HSL,
        Flag,
        "off",
        "Lets the kernel probe idle upstream connections.",
        flag,
    ),
];

/// Merged `proxy_*` settings of a location.
#[derive(Clone, Debug)]
pub struct ProxySettings {
    /// `proxy_http_version` is 1.1 (else 1.0).
    pub http11: bool,
    /// `websocket`: upgrades pass where no line says what to do with them.
    pub websocket: bool,
    /// `websocket_tcp_user_timeout`.
    pub websocket_tcp_user_timeout: Option<Duration>,
    /// `proxy_set_header` lines that apply here, in order; nothing built in is among them.
    pub set_headers: Vec<(Box<[u8]>, Template)>,
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
    /// `proxy_busy_buffers_size`, bytes.
    pub busy_buffers_size: usize,
    /// `proxy_redirect` rules, in order.
    pub redirects: Vec<ProxyRedirect>,
    /// `proxy_hide_header`, and the fields hidden by default unless `proxy_pass_header` names
    /// them; lower case.
    pub hide_headers: Vec<Box<[u8]>>,
    /// `proxy_pass_header`, lower case.
    pub pass_headers: Vec<Box<[u8]>>,
    /// `proxy_ignore_headers`, lower case.
    pub ignore_headers: Vec<Box<[u8]>>,
    /// `proxy_intercept_errors`.
    pub intercept_errors: bool,
    /// `proxy_ignore_client_abort`.
    pub ignore_client_abort: bool,
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
    pub tls: ProxyTls,
}

fn set_header(reading: &mut Reading<'_>, directive: &Directive) -> Reads {
    let [name, value] = &directive.args[..] else {
        unreachable!("the row asks for two arguments");
    };
    Ok(Value::new((name.value.clone(), reading.template(value)?)))
}

fn http_version(_: &mut Reading<'_>, directive: &Directive) -> Reads {
    let word = &directive.args[0];
    if word.is("2") {
        let problem =
            Diagnostic::error("HTTP/2 towards upstreams is not supported").at(word.span, "");
        return Err(problem.help("write `proxy_http_version 1.1`"));
    }
    one_of(word, &[("1.0", false), ("1.1", true)]).map(Value::new)
}

fn field_name(_: &mut Reading<'_>, directive: &Directive) -> Reads {
    Ok(Value::new(Box::<[u8]>::from(directive.args[0].value.to_ascii_lowercase())))
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

fn ignore_headers(_: &mut Reading<'_>, directive: &Directive) -> Reads {
    let mut names: Vec<Box<[u8]>> = Vec::new();
    for word in &directive.args {
        one_of(word, &IGNORABLE)?;
        names.push(word.value.to_ascii_lowercase().into());
    }
    Ok(Value::new(names))
}

/// Reads the local address; `None` for `off`.
fn bind(reading: &mut Reading<'_>, directive: &Directive) -> Reads {
    let word = &directive.args[0];
    if directive.args.len() == 1 && word.is("off") {
        return Ok(Value::new(None::<Template>));
    }
    if let Some(second) = directive.args.get(1) {
        if !second.is("transparent") {
            return Err(invalid_parameter(second));
        }
        let problem =
            Diagnostic::error("transparent proxying is not supported").at(second.span, "");
        return Err(problem.help("pass the client address in a header field"));
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
    reading.template(word).map(Some).map(Value::new)
}

impl Resolver<'_, '_> {
    /// Everything else about passing requests on.
    pub(crate) fn proxy_settings(
        &mut self,
        scope: &Scope<'_, '_>,
        redirects: &Redirects,
        content: &Content,
    ) -> ProxySettings {
        let (buffer_size, buffers, busy_buffers_size) = self.buffers(scope);
        let pass_headers: Vec<Box<[u8]>> = scope.all("proxy_pass_header");
        ProxySettings {
            http11: scope.one("proxy_http_version"),
            websocket: scope.one("websocket"),
            websocket_tcp_user_timeout: scope.one("websocket_tcp_user_timeout"),
            set_headers: scope.all("proxy_set_header"),
            set_body: scope.maybe("proxy_set_body"),
            method: scope.maybe("proxy_method"),
            pass_request_headers: scope.one("proxy_pass_request_headers"),
            pass_request_body: scope.one("proxy_pass_request_body"),
            connect_timeout: scope.one("proxy_connect_timeout"),
            read_timeout: scope.one("proxy_read_timeout"),
            send_timeout: scope.one("proxy_send_timeout"),
            next_upstream: conditions(scope),
            next_upstream_timeout: scope.one("proxy_next_upstream_timeout"),
            next_upstream_tries: scope.small("proxy_next_upstream_tries"),
            buffering: scope.one("proxy_buffering"),
            request_buffering: scope.one("proxy_request_buffering"),
            buffer_size,
            buffers,
            busy_buffers_size,
            redirects: redirects.effective(),
            hide_headers: hidden(scope, &pass_headers),
            pass_headers,
            ignore_headers: scope.all::<Vec<Box<[u8]>>>("proxy_ignore_headers").concat(),
            intercept_errors: scope.one("proxy_intercept_errors"),
            ignore_client_abort: scope.one("proxy_ignore_client_abort"),
            socket_keepalive: scope.one("proxy_socket_keepalive"),
            bind: scope.maybe::<Option<Template>>("proxy_bind").flatten(),
            limit_rate: limit(scope.one("proxy_limit_rate")),
            force_ranges: scope.one("proxy_force_ranges"),
            pass_trailers: scope.one("proxy_pass_trailers"),
            cookie_domains: self.cookie_rules(scope, "proxy_cookie_domain"),
            cookie_paths: self.cookie_rules(scope, "proxy_cookie_path"),
            cookie_flags: self.cookie_rules(scope, "proxy_cookie_flags"),
            tls: self.proxy_tls(scope, uses_tls(content)),
        }
    }

    /// Buffer sizes, which must fit each other as nginx has it.
    fn buffers(&mut self, scope: &Scope<'_, '_>) -> (usize, (usize, usize), usize) {
        let size = scope.count("proxy_buffer_size");
        let (count, each): (usize, usize) = scope.one("proxy_buffers");
        let largest = size.max(each);
        let busy = scope.maybe::<u64>("proxy_busy_buffers_size");
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
            return (size, (count, each), busy);
        };
        let names = ["proxy_busy_buffers_size", "proxy_buffers", "proxy_buffer_size"];
        let mut problem = Diagnostic::error(message);
        for name in names {
            let written = scope.nearest(&[name]).and_then(|found| found.level.named(name).next());
            if let Some(entry) = written.filter(|entry| entry.directive.span != self.nowhere) {
                problem = problem.at(entry.directive.head(), "");
            }
        }
        self.reading.report.push(problem);
        (size, (count, each), busy)
    }
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
fn hidden(scope: &Scope<'_, '_>, passed: &[Box<[u8]>]) -> Vec<Box<[u8]>> {
    let mut hidden: Vec<Box<[u8]>> = scope.all("proxy_hide_header");
    let builtin = HIDDEN.iter().map(|name| Box::<[u8]>::from(name.as_bytes()));
    for name in builtin {
        if !hidden.contains(&name) && !passed.contains(&name) {
            hidden.push(name);
        }
    }
    hidden
}
