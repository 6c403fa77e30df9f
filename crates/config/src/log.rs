//! Where lines go and what they look like.

pub(crate) mod access;
pub(crate) mod syslog;
pub(crate) mod websocket;

use std::path::PathBuf;
use std::sync::Arc;

use wssgate_syntax::{self as syntax, Diagnostic, Word, closest, printable};

use crate::directive::Arity::{AtLeast, Between, Flag};
use crate::directive::{AnyDirective, Directive, H, HSL, HSLI, M, X};
use crate::level::Level;
use crate::log::access::{AccessLogDraft, LogFileCache, access_log, open_log_file_cache};
use crate::log::syslog::{Syslog, syslog};
use crate::read::{Reading, Reads, flag, invalid_value, one_of, parameter};
use crate::scope::Scope;
use crate::template::Template;
use crate::value::Located;

/// The rows.
pub(crate) static ROWS: &[&dyn AnyDirective] =
    &[&ACCESS_LOG, &MAIN_ERROR_LOG, &ERROR_LOG, &LOG_FORMAT, &LOG_SUBREQUEST, &OPEN_LOG_FILE_CACHE];

/// `access_log`
pub(crate) static ACCESS_LOG: Directive<AccessLogDraft> = Directive {
    name: "access_log",
    contexts: HSLI | X,
    arity: AtLeast(1),
    default: "/var/log/nginx/access.log combined",
    doc: "Sets where requests are logged and in which format; `off` disables the access log.",
    ..Directive::repeated(access_log)
};

/// `error_log`
pub(crate) static MAIN_ERROR_LOG: Directive<ErrorLog> = Directive {
    name: "error_log",
    contexts: M,
    arity: AtLeast(1),
    default: "stderr error",
    doc: "Sets where errors are logged and the lowest severity that is logged. In URIs, `***` \
          replaces the values of arguments that usually contain tokens, such as `access_token`, \
          `jwt` or `key`.",
    ..Directive::repeated(error_log)
};

/// `error_log`
pub(crate) static ERROR_LOG: Directive<ErrorLog> = Directive {
    name: "error_log",
    contexts: HSL,
    arity: AtLeast(1),
    doc: "Sets where errors are logged and the lowest severity that is logged. In URIs, `***` \
          replaces the values of arguments that usually contain tokens, such as `access_token`, \
          `jwt` or `key`.",
    ..Directive::repeated(error_log)
};

/// `log_format`
pub(crate) static LOG_FORMAT: Directive<LogFormatDraft> = Directive {
    name: "log_format",
    contexts: H,
    arity: AtLeast(2),
    doc: "Defines a named format for access logs. `combined` is predefined as in nginx; so is \
          `websocket`, which logs who closed a tunnel, why, and how much was transferred, as \
          name-value pairs.",
    ..Directive::repeated(log_format)
};

/// `log_subrequest`
pub(crate) static LOG_SUBREQUEST: Directive<bool> = Directive {
    name: "log_subrequest",
    contexts: HSL,
    arity: Flag,
    default: "off",
    doc: "Writes subrequests, such as those of `auth_request`, to the access log as well.",
    ..Directive::once(flag)
};

/// `open_log_file_cache`
pub(crate) static OPEN_LOG_FILE_CACHE: Directive<Option<Arc<LogFileCache>>> = Directive {
    name: "open_log_file_cache",
    contexts: HSL,
    arity: Between(1, 4),
    default: "off",
    doc: "Keeps access logs whose paths contain variables open: up to `max=` of them for all \
          workers together, each until it has not been used for `inactive=`; only those used at \
          least `min_uses=` times are kept, and `valid=` sets how often to check that a file still \
          exists.",
    ..Directive::once(open_log_file_cache)
};

/// Where error lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorLog {
    /// The place.
    pub target: LogTarget,
    /// The least severe level that is written.
    pub level: LogLevel,
}

/// A place for log lines.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LogTarget {
    /// A file, already relative to the prefix.
    File(PathBuf),
    /// Standard error.
    Stderr,
    /// `syslog:server=…`: a datagram socket.
    Syslog(Syslog),
}

/// Levels of error lines, the most severe first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogLevel {
    /// The program cannot go on.
    Emerg,
    /// Something that must never happen.
    Alert,
    /// A serious fault.
    Crit,
    /// A request failed.
    Error,
    /// Something to look at.
    Warn,
    /// Normal but worth a line.
    Notice,
    /// Normal.
    Info,
    /// For those who look for a fault of ours.
    Debug,
}

/// Index into [`Http::log_formats`](crate::model::Http::log_formats).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogFormatId(pub usize);

/// `log_format`.
#[derive(Clone, Debug)]
pub struct LogFormat {
    /// Its name, for `access_log` lines.
    pub(crate) name: Box<[u8]>,
    /// `escape=`.
    pub escape: LogEscape,
    /// The line, without its end.
    pub line: Template,
}

/// `escape=` of `log_format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogEscape {
    /// `\xHH` for quotes, backslashes and control bytes; `-` for no value.
    Default,
    /// JSON string escapes.
    Json,
    /// Nothing.
    None,
}

/// `log_format`.
#[derive(Clone)]
pub(crate) struct LogFormatDraft {
    pub(crate) name: Located<Box<[u8]>>,
    pub(crate) escape: LogEscape,
    pub(crate) line: Template,
}

/// The most severe first: the numbers of syslog.
pub(crate) const LEVELS: [(&str, LogLevel); 8] = [
    ("emerg", LogLevel::Emerg),
    ("alert", LogLevel::Alert),
    ("crit", LogLevel::Crit),
    ("error", LogLevel::Error),
    ("warn", LogLevel::Warn),
    ("notice", LogLevel::Notice),
    ("info", LogLevel::Info),
    ("debug", LogLevel::Debug),
];

/// Reads the arguments of `error_log`.
fn error_log(reading: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<ErrorLog> {
    let target = log_target(reading, &directive.args[0], 3)?;
    let mut level = None;
    for word in &directive.args[1..] {
        let found = LEVELS.iter().find(|(name, _)| word.is(name)).map(|(_, level)| *level);
        // `debug_http` and its like narrow nginx's debug output; ours has one level.
        let found = found.or_else(|| word.value.starts_with(b"debug_").then_some(LogLevel::Debug));
        let found = found.ok_or_else(|| {
            Diagnostic::error(format!("invalid log level \"{word}\""))
                .at(word.span, "")
                .help("e.g. `error` or `info`")
        })?;
        if level
            .replace(found)
            .is_some_and(|before| before != LogLevel::Debug || found != LogLevel::Debug)
        {
            return Err(
                Diagnostic::error(format!("duplicate log level \"{word}\"")).at(word.span, "")
            );
        }
    }
    Ok(ErrorLog { target, level: level.unwrap_or(LogLevel::Error) })
}

/// Reads a place for lines; `severity` is that of its syslog messages unless it says otherwise.
pub(crate) fn log_target(
    reading: &mut Reading<'_>,
    word: &Word,
    severity: u8,
) -> Result<LogTarget, Diagnostic> {
    if word.is("stderr") {
        return Ok(LogTarget::Stderr);
    }
    if word.value.starts_with(b"memory:") {
        return Err(Diagnostic::error("logs in memory are not supported")
            .at(word.span, "")
            .help("log to a file"));
    }
    match parameter(word, "syslog:") {
        Some(parameters) => syslog(reading, word, parameters, severity).map(LogTarget::Syslog),
        None => {
            let path = reading.paths.below_prefix(&word.value);
            reading.log_files.entry(path.clone()).or_insert(word.span);
            Ok(LogTarget::File(path))
        }
    }
}

fn log_format(reading: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<LogFormatDraft> {
    let name = &directive.args[0];
    let mut pieces = &directive.args[1..];
    let mut escape = LogEscape::Default;
    if let Some(word) = pieces.first()
        && let Some(text) = parameter(word, "escape=")
    {
        let choices =
            [("default", LogEscape::Default), ("json", LogEscape::Json), ("none", LogEscape::None)];
        let choice = Word { value: text.into(), span: word.span, quoted: false };
        escape = one_of(&choice, &choices).map_err(|_| {
            Diagnostic::error(format!("unknown log format escaping \"{choice}\"")).at(word.span, "")
        })?;
        pieces = &pieces[1..];
    }
    let Some(last) = pieces.last() else {
        return Err(invalid_value(name).help("the format is missing"));
    };
    let line: Vec<u8> = pieces.iter().flat_map(|word| word.value.iter().copied()).collect();
    let line = reading.names.template(&line, pieces[0].span.to(last.span))?;
    let name = Located { value: name.value.clone(), span: name.span };
    Ok(LogFormatDraft { name, escape, line })
}

/// nginx's predefined format.
const COMBINED: &[u8] =
    b"$remote_addr - $remote_user [$time_local] \"$request\" $status $body_bytes_sent \
    \"$http_referer\" \"$http_user_agent\"";

/// Ours: what is known of a WebSocket, in pairs that both people and parsers read. Without the query, where
/// tokens may stand.
const WEBSOCKET: &[u8] = b"time=\"$time_iso8601\" event=\"$websocket_event\" client=\"$remote_addr\" host=\"$host\" uri=\"$uri\" status=\"$status\" upstream=\"$upstream_addr\" \
    by=\"$websocket_closed_by\" code=\"$websocket_close_code\" reason=\"$websocket_close_reason\" cause=\"$websocket_close_cause\" \
    trace=\"$websocket_trace\" hops=\"$websocket_hops\" \
    lifetime=\"$websocket_lifetime\" handshake=\"$websocket_handshake_time\" \
    client_close_code=\"$websocket_client_close_code\" client_messages=\"$websocket_client_messages\" client_frames=\"$websocket_client_frames\" client_bytes=\"$websocket_client_bytes\" client_largest_message=\"$websocket_client_largest_message\" client_rtt=\"$websocket_client_rtt\" client_blocked_time=\"$websocket_client_blocked_time\" \
    upstream_close_code=\"$websocket_upstream_close_code\" upstream_messages=\"$websocket_upstream_messages\" upstream_frames=\"$websocket_upstream_frames\" upstream_bytes=\"$websocket_upstream_bytes\" upstream_largest_message=\"$websocket_upstream_largest_message\" upstream_rtt=\"$websocket_upstream_rtt\" upstream_blocked_time=\"$websocket_upstream_blocked_time\"";

/// The formats of all access logs, and the error logs of the main level.
pub(crate) struct Logs {
    formats: Vec<LogFormat>,
    main: Vec<ErrorLog>,
}

impl Logs {
    /// Takes in `combined` and all `log_format` lines. `websocket` is there once somebody asks for it, since each
    /// of its variables takes room in every request.
    pub(crate) fn new(reading: &mut Reading<'_>, http: &Level<'_>, main: Vec<ErrorLog>) -> Self {
        let mut logs = Self { formats: Vec::new(), main };
        logs.predefine(reading, b"combined", COMBINED);
        for draft in http.values(&LOG_FORMAT) {
            let Located { value: name, span } = draft.name;
            if logs.formats.iter().any(|format| format.name == name) {
                let message = format!("duplicate \"log_format\" name \"{}\"", printable(&name));
                reading.error(message, span);
                continue;
            }
            logs.formats.push(LogFormat { name, escape: draft.escape, line: draft.line });
        }
        logs
    }

    /// The formats, by number.
    pub(crate) fn into_formats(self) -> Vec<LogFormat> {
        self.formats
    }

    fn predefine(&mut self, reading: &mut Reading<'_>, name: &[u8], line: &[u8]) -> LogFormatId {
        let line = reading.names.template(line, reading.nowhere);
        let line = line.expect("predefined formats are valid");
        self.formats.push(LogFormat { name: name.into(), escape: LogEscape::Default, line });
        LogFormatId(self.formats.len() - 1)
    }

    /// The format of a name, which is compared without regard to case.
    fn format_named(
        &mut self,
        reading: &mut Reading<'_>,
        name: &Located<Box<[u8]>>,
    ) -> Option<LogFormatId> {
        let same = |format: &LogFormat| format.name.eq_ignore_ascii_case(&name.value);
        if let Some(format) = self.formats.iter().position(same) {
            return Some(LogFormatId(format));
        }
        if name.value.eq_ignore_ascii_case(b"websocket") {
            return Some(self.predefine(reading, b"websocket", WEBSOCKET));
        }
        let known = self.formats.iter();
        let known = known.filter_map(|format| std::str::from_utf8(&format.name).ok());
        let help = closest(&name.value, known).map(|close| format!("did you mean `{close}`?"));
        let message = format!("unknown log format \"{}\"", printable(&name.value));
        reading.report.push(Diagnostic::error(message).at(name.span, "").maybe_help(help));
        None
    }

    /// The error logs that apply in `scope`: those of the main level when `http` and below say
    /// nothing.
    pub(crate) fn error_logs(&self, scope: &Scope<'_, '_>) -> Vec<ErrorLog> {
        match scope.nearest(&[&ERROR_LOG]) {
            Some(level) => level.values(&ERROR_LOG).collect(),
            None => self.main.clone(),
        }
    }
}
