//! Passing requests on.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use wssgate_syntax::{Diagnostic, Directive, Span, Word};

use crate::directive::Arity::{AtLeast, Between, Exactly, Flag};
use crate::directive::{HSL, L, LI, Row, Value, X, works};
use crate::model::{CookieFlags, CookieRewrite, Located, NextUpstream, Pattern, ProxyRedirect};
use crate::read::{
    Reading, Reads, buffers, conf_path, directive_problem, duration, flag, has_variables,
    invalid_parameter, invalid_value, located_text, number, one_of, size, size_template, template,
};
use crate::template::Template;
use crate::value::{self, Endpoint, Form};

use super::tls::{key_file, protocols};

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
        "proxy_cookie_domain",
        HSL,
        Between(1, 2),
        "",
        "Changes the domain of cookies.",
        cookie_domain,
    )
    .many(),
    works(
        "proxy_cookie_flags",
        HSL,
        Between(1, 4),
        "",
        "Changes the flags of cookies.",
        cookie_flags,
    )
    .many(),
    works("proxy_cookie_path", HSL, Between(1, 2), "", "Changes the path of cookies.", cookie_path)
        .many(),
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
        "proxy_next_upstream",
        HSL,
        AtLeast(1),
        "error timeout",
        "When the next peer is tried.",
        next_upstream,
    )
    .many(),
    works(
        "proxy_next_upstream_timeout",
        HSL,
        Exactly(1),
        "0",
        "How long peers are tried; 0 without limit.",
        duration,
    ),
    works(
        "proxy_next_upstream_tries",
        HSL,
        Exactly(1),
        "0",
        "How many peers are tried; 0 without limit.",
        number,
    ),
    works("proxy_pass", L | LI | X, Exactly(1), "", "Passes requests to an upstream.", proxy_pass),
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
        "proxy_redirect",
        HSL,
        Between(1, 2),
        "",
        "Changes `Location` and `Refresh` of upstream answers.",
        redirect,
    )
    .many(),
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
    works(
        "proxy_ssl_certificate",
        HSL,
        Exactly(1),
        "",
        "Our certificate towards upstreams; empty for none.",
        own_key_file,
    ),
    works(
        "proxy_ssl_certificate_key",
        HSL,
        Exactly(1),
        "",
        "The key of that certificate.",
        own_key_file,
    ),
    works(
        "proxy_ssl_ciphers",
        HSL,
        Exactly(1),
        "DEFAULT",
        "Cipher suites towards upstreams.",
        located_text,
    ),
    works("proxy_ssl_crl", HSL, Exactly(1), "", "Revoked upstream certificates.", conf_path),
    works(
        "proxy_ssl_name",
        HSL,
        Exactly(1),
        "",
        "The name that upstream certificates must have.",
        template,
    ),
    works(
        "proxy_ssl_password_file",
        HSL,
        Exactly(1),
        "",
        "Passphrases of that key, one a line; each is tried.",
        conf_path,
    ),
    works(
        "proxy_ssl_protocols",
        HSL,
        AtLeast(1),
        "TLSv1.2 TLSv1.3",
        "Protocol versions towards upstreams.",
        protocols,
    )
    .many(),
    works(
        "proxy_ssl_server_name",
        HSL,
        Flag,
        "off",
        "Sends the upstream's name in the handshake.",
        flag,
    ),
    works("proxy_ssl_session_reuse", HSL, Flag, "on", "Resumes sessions with upstreams.", flag),
    works(
        "proxy_ssl_trusted_certificate",
        HSL,
        Exactly(1),
        "",
        "CAs of upstream certificates.",
        conf_path,
    ),
    works("proxy_ssl_verify", HSL, Flag, "off", "Verifies upstream certificates.", flag),
    works(
        "proxy_ssl_verify_depth",
        HSL,
        Exactly(1),
        "1",
        "How many intermediates may stand between an upstream certificate and a root; six at the most.",
        number,
    ),
];

/// `proxy_pass` before its host is looked up.
#[derive(Clone)]
pub(crate) enum PassDraft {
    /// With variables.
    Variable(Template),
    /// Without.
    Fixed {
        tls: bool,
        endpoint: Endpoint,
        /// As written.
        url: Box<[u8]>,
        span: Span,
    },
}

/// `proxy_redirect`.
#[derive(Clone)]
pub(crate) enum RedirectDraft {
    Off(Span),
    Default(Span),
    Rule(ProxyRedirect),
}

/// `proxy_cookie_…`: `None` is `off`.
pub(crate) type CookieDraft<T> = Option<T>;

fn proxy_pass(reading: &mut Reading<'_>, directive: &Directive) -> Reads {
    let word = &directive.args[0];
    if has_variables(word) {
        return reading.template(word).map(PassDraft::Variable).map(Value::new);
    }
    let (tls, rest) = match split_scheme(&word.value) {
        Some(found) => found,
        None => {
            let problem =
                Diagnostic::error("invalid URL prefix").at(word.span, "must begin with a scheme");
            return Err(problem.help("write `http://` or `https://` before the host"));
        }
    };
    let endpoint = value::endpoint(rest, Form::Url).map_err(|error| {
        let rest = wssgate_syntax::printable(rest);
        Diagnostic::error(format!("{error} in upstream \"{rest}\"")).at(word.span, "")
    })?;
    Ok(Value::new(PassDraft::Fixed { tls, endpoint, url: word.value.clone(), span: word.span }))
}

/// Whether TLS is asked for, and what follows the scheme.
fn split_scheme(url: &[u8]) -> Option<(bool, &[u8])> {
    let after = |scheme: &[u8]| {
        let (start, rest) = url.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some(rest)
    };
    after(b"http://")
        .map(|rest| (false, rest))
        .or_else(|| after(b"https://").map(|rest| (true, rest)))
}

/// Reads a certificate or key; `None` for the empty text, which undoes what an outer level says.
fn own_key_file(reading: &mut Reading<'_>, directive: &Directive) -> Reads {
    if directive.args[0].value.is_empty() {
        return Ok(Value::new(None::<Located<PathBuf>>));
    }
    let file = key_file(reading, directive)?;
    Ok(Value::new(file.downcast::<Located<PathBuf>>().cloned()))
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

fn next_upstream(reading: &mut Reading<'_>, directive: &Directive) -> Reads {
    let mut next = NO_NEXT;
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
        if std::mem::replace(set, true) {
            reading
                .report
                .push(Diagnostic::warning(format!("duplicate value \"{word}\"")).at(word.span, ""));
        }
    }
    Ok(Value::new((next, off)))
}

/// `proxy_next_upstream off`.
pub(crate) const NO_NEXT: NextUpstream = NextUpstream {
    error: false,
    timeout: false,
    invalid_header: false,
    non_idempotent: false,
    http_403: false,
    http_404: false,
    http_429: false,
    http_500: false,
    http_502: false,
    http_503: false,
    http_504: false,
};

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

fn redirect(reading: &mut Reading<'_>, directive: &Directive) -> Reads {
    let draft = match &directive.args[..] {
        [word] if word.is("off") => RedirectDraft::Off(word.span),
        [word] if word.is("default") => RedirectDraft::Default(word.span),
        [word] => return Err(invalid_parameter(word)),
        [from, to] => {
            let to = reading.template(to)?;
            RedirectDraft::Rule(match pattern(reading, from, false)? {
                Pattern::Regex(from) => ProxyRedirect::Regex { from, to },
                Pattern::Text(from) => ProxyRedirect::Prefix { from, to },
            })
        }
        _ => unreachable!("the row asks for one or two arguments"),
    };
    Ok(Value::new(draft))
}

/// Text, or a regular expression behind `~` (without case behind `~*`, or always when `caseless`).
fn pattern(reading: &mut Reading<'_>, word: &Word, caseless: bool) -> Result<Pattern, Diagnostic> {
    match &*word.value {
        [b'~', source @ ..] if caseless => {
            reading.regex(source, true, word.span).map(Pattern::Regex)
        }
        [b'~', b'*', source @ ..] => reading.regex(source, true, word.span).map(Pattern::Regex),
        [b'~', source @ ..] => reading.regex(source, false, word.span).map(Pattern::Regex),
        _ => reading.template(word).map(Pattern::Text),
    }
}

fn is_off(directive: &Directive) -> Result<bool, Diagnostic> {
    match &directive.args[..] {
        [word] if word.is("off") => Ok(true),
        [word] => Err(invalid_parameter(word)),
        _ => Ok(false),
    }
}

fn cookie_domain(reading: &mut Reading<'_>, directive: &Directive) -> Reads {
    if is_off(directive)? {
        return Ok(Value::new(CookieDraft::<CookieRewrite>::None));
    }
    let [from, to] = &directive.args[..] else {
        return Err(directive_problem(directive, &directive.args[0], "invalid value"));
    };
    // A leading dot of a domain means nothing (RFC 6265, 5.2.3).
    let without_dot = |word: &Word| {
        let value = word.value.strip_prefix(b".").unwrap_or(&word.value);
        Word { value: value.into(), span: word.span, quoted: word.quoted }
    };
    let from = pattern(reading, &without_dot(from), true)?;
    let to = match from {
        Pattern::Text(_) => reading.template(&without_dot(to))?,
        Pattern::Regex(_) => reading.template(to)?,
    };
    Ok(Value::new(Some(CookieRewrite { from, to })))
}

fn cookie_path(reading: &mut Reading<'_>, directive: &Directive) -> Reads {
    if is_off(directive)? {
        return Ok(Value::new(CookieDraft::<CookieRewrite>::None));
    }
    let from = pattern(reading, &directive.args[0], false)?;
    let to = reading.template(&directive.args[1])?;
    Ok(Value::new(Some(CookieRewrite { from, to })))
}

fn cookie_flags(reading: &mut Reading<'_>, directive: &Directive) -> Reads {
    if is_off(directive)? {
        return Ok(Value::new(CookieDraft::<CookieFlags>::None));
    }
    let cookie = pattern(reading, &directive.args[0], true)?;
    let flags: Result<Vec<Template>, _> =
        directive.args[1..].iter().map(|word| reading.template(word)).collect();
    Ok(Value::new(Some(CookieFlags { cookie, flags: flags? })))
}
