//! How connections, requests and answers are handled: settings with plain values.

use std::time::Duration;

use wssgate_syntax::Directive;

use crate::directive::Arity::{Between, Exactly, Flag};
use crate::directive::{HS, HSL, HSLI, Row, Value, works};
use crate::model::{BodyInFile, IfModifiedSince, LingeringClose, ServerTokens};
use crate::read::{
    Reading, Reads, buffers, directive_problem, duration, flag, number, offset, one_of,
    prefix_path, size, size_template,
};
use crate::value;

/// The rows.
pub(crate) const ROWS: &[Row] = &[
    works(
        "absolute_redirect",
        HSL,
        Flag,
        "on",
        "Makes our own redirects name scheme and host.",
        flag,
    ),
    works(
        "chunked_transfer_encoding",
        HSL,
        Flag,
        "on",
        "Allows chunked answers to HTTP/1.1 clients.",
        flag,
    ),
    works(
        "client_body_buffer_size",
        HSL,
        Exactly(1),
        "16k",
        "Keeps request bodies up to this size in memory.",
        size,
    ),
    works(
        "client_body_in_file_only",
        HSL,
        Exactly(1),
        "off",
        "Puts every request body into a file.",
        body_in_file,
    ),
    works(
        "client_body_temp_path",
        HSL,
        Between(1, 4),
        "/var/lib/nginx/body",
        "Names the directory of request bodies; levels of subdirectories are ignored.",
        body_temp_path,
    ),
    works(
        "client_body_timeout",
        HSL,
        Exactly(1),
        "60s",
        "Ends a request whose body stops coming.",
        duration,
    ),
    works(
        "client_header_buffer_size",
        HS,
        Exactly(1),
        "1k",
        "Size of the first buffer of a request head.",
        size,
    ),
    works(
        "client_header_timeout",
        HS,
        Exactly(1),
        "60s",
        "Ends a connection whose request head is not complete.",
        duration,
    ),
    works(
        "client_max_body_size",
        HSL,
        Exactly(1),
        "1m",
        "Refuses larger request bodies; 0 accepts all.",
        offset,
    ),
    works("etag", HSL, Flag, "on", "Adds `ETag` to files.", flag),
    works(
        "if_modified_since",
        HSL,
        Exactly(1),
        "exact",
        "How `If-Modified-Since` is compared.",
        if_modified_since,
    ),
    works(
        "ignore_invalid_headers",
        HS,
        Flag,
        "on",
        "Leaves request fields with invalid names out.",
        flag,
    ),
    works("keepalive_requests", HSL, Exactly(1), "1000", "Requests on one connection.", number),
    works(
        "keepalive_time",
        HSL,
        Exactly(1),
        "1h",
        "How long one connection takes requests.",
        duration,
    ),
    works(
        "keepalive_timeout",
        HSL,
        Between(1, 2),
        "75s",
        "How long an idle connection stays; 0 closes it at once.",
        keepalive,
    ),
    works("large_client_header_buffers", HS, Exactly(2), "4 8k", "Bounds request heads.", buffers),
    works(
        "limit_rate",
        HSLI,
        Exactly(1),
        "0",
        "Bytes of an answer per second; 0 is unlimited.",
        size_template,
    ),
    works(
        "limit_rate_after",
        HSLI,
        Exactly(1),
        "0",
        "Bytes that are sent before `limit_rate` begins.",
        size_template,
    ),
    works(
        "lingering_close",
        HSL,
        Exactly(1),
        "on",
        "Reads on for a while before a connection is closed.",
        lingering,
    ),
    works(
        "lingering_time",
        HSL,
        Exactly(1),
        "30s",
        "How long `lingering_close` reads at most.",
        duration,
    ),
    works(
        "lingering_timeout",
        HSL,
        Exactly(1),
        "5s",
        "How long `lingering_close` waits for data.",
        duration,
    ),
    works("log_not_found", HSL, Flag, "on", "Logs files that do not exist.", flag),
    works("max_headers", HS, Exactly(1), "1000", "Bounds the number of request fields.", number),
    works("merge_slashes", HS, Flag, "on", "Takes several slashes of a path as one.", flag),
    works("msie_padding", HSL, Flag, "on", "Pads error pages for some browsers.", flag),
    works("port_in_redirect", HSL, Flag, "on", "Names the port in absolute redirects.", flag),
    works("recursive_error_pages", HSL, Flag, "off", "Lets error pages have error pages.", flag),
    works(
        "reset_timedout_connection",
        HSL,
        Flag,
        "off",
        "Resets connections that timed out.",
        flag,
    ),
    works(
        "send_timeout",
        HSL,
        Exactly(1),
        "60s",
        "Ends a connection that takes nothing for this long.",
        duration,
    ),
    works(
        "server_name_in_redirect",
        HSL,
        Flag,
        "off",
        "Uses the server's first name in absolute redirects.",
        flag,
    ),
    works(
        "server_tokens",
        HSL,
        Exactly(1),
        "on",
        "What `Server` and error pages say.",
        server_tokens,
    ),
    works(
        "tcp_nodelay",
        HSL,
        Flag,
        "on",
        "Sends small segments at once; `off` is obeyed in tunnels, on both sides.",
        flag,
    ),
    works(
        "underscores_in_headers",
        HS,
        Flag,
        "off",
        "Takes underscores in field names as valid.",
        flag,
    ),
];

/// `keepalive_timeout`.
#[derive(Clone, Copy)]
pub(crate) struct Keepalive {
    pub(crate) timeout: Duration,
    pub(crate) header: Option<Duration>,
}

fn keepalive(_: &mut Reading<'_>, directive: &Directive) -> Reads {
    let invalid = |word| directive_problem(directive, word, "invalid value");
    let timeout =
        value::duration(&directive.args[0].value).ok_or_else(|| invalid(&directive.args[0]))?;
    let header = match directive.args.get(1) {
        None => None,
        Some(word) => Some(value::seconds(&word.value).ok_or_else(|| invalid(word))?),
    };
    Ok(Value::new(Keepalive { timeout, header }))
}

/// Reads a directory; the levels of subdirectories are only checked.
fn body_temp_path(reading: &mut Reading<'_>, directive: &Directive) -> Reads {
    let mut sum = 0;
    for word in &directive.args[1..] {
        let level = value::number(&word.value).filter(|&level| level > 0 && sum + level <= 10);
        sum += level.ok_or_else(|| directive_problem(directive, word, "invalid value"))?;
    }
    prefix_path(reading, directive)
}

fn body_in_file(_: &mut Reading<'_>, directive: &Directive) -> Reads {
    let choices = [("off", BodyInFile::Off), ("on", BodyInFile::On), ("clean", BodyInFile::Clean)];
    one_of(&directive.args[0], &choices).map(Value::new)
}

fn lingering(_: &mut Reading<'_>, directive: &Directive) -> Reads {
    let choices = [
        ("off", LingeringClose::Off),
        ("on", LingeringClose::On),
        ("always", LingeringClose::Always),
    ];
    one_of(&directive.args[0], &choices).map(Value::new)
}

fn if_modified_since(_: &mut Reading<'_>, directive: &Directive) -> Reads {
    let choices = [
        ("off", IfModifiedSince::Off),
        ("exact", IfModifiedSince::Exact),
        ("before", IfModifiedSince::Before),
    ];
    one_of(&directive.args[0], &choices).map(Value::new)
}

/// As [`ServerTokens`], which is not `Copy`.
fn server_tokens(_: &mut Reading<'_>, directive: &Directive) -> Reads {
    let choices = [("on", 0), ("off", 1), ("build", 2)];
    Ok(Value::new(match one_of(&directive.args[0], &choices)? {
        0 => ServerTokens::On,
        1 => ServerTokens::Off,
        _ => ServerTokens::Build,
    }))
}
