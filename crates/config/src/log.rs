//! Where lines go and what they look like.

pub(crate) mod syslog;

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use wssgate_syntax::{self as syntax, Diagnostic, Word, closest, printable};

use crate::directive::Arity::{AtLeast, Flag};
use crate::directive::{AnyDirective, Directive, H, HSL, HSLI, M, X};
use crate::level::Level;
use crate::log::syslog::{Syslog, syslog};
use crate::read::{
    Reading, Reads, flag, has_variables, invalid_parameter, invalid_value, one_of, parameter,
};
use crate::scope::Scope;
use crate::template::Template;
use crate::value::{self, Located};

/// The rows.
pub(crate) static ROWS: &[&dyn AnyDirective] =
    &[&ACCESS_LOG, &MAIN_ERROR_LOG, &ERROR_LOG, &LOG_FORMAT, &LOG_SUBREQUEST];

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
    doc: "Sets where errors are logged and the lowest severity that is logged.",
    ..Directive::repeated(error_log)
};

/// `error_log`
pub(crate) static ERROR_LOG: Directive<ErrorLog> = Directive {
    name: "error_log",
    contexts: HSL,
    arity: AtLeast(1),
    doc: "Sets where errors are logged and the lowest severity that is logged.",
    ..Directive::repeated(error_log)
};

/// `log_format`
pub(crate) static LOG_FORMAT: Directive<LogFormatDraft> = Directive {
    name: "log_format",
    contexts: H,
    arity: AtLeast(2),
    doc: "Defines a named format for access logs.",
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

/// One `access_log` line.
#[derive(Clone, Debug)]
pub struct AccessLog {
    /// Where lines go.
    pub target: AccessLogTarget,
    /// Which format.
    pub format: LogFormatId,
    /// `if=`: no line when empty or `0`.
    pub condition: Option<Template>,
    /// `buffer=`, bytes; 0 writes each line at once.
    pub buffer: usize,
    /// `flush=`: how long a line may wait in the buffer.
    pub flush: Option<Duration>,
}

/// Place of access lines.
#[derive(Clone, Debug)]
pub enum AccessLogTarget {
    /// A fixed place.
    Fixed(LogTarget),
    /// A path with variables, relative to the prefix.
    Variable(Template),
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

/// `access_log` before its format is looked up.
#[derive(Clone)]
pub(crate) enum AccessLogDraft {
    /// `off`.
    Off,
    /// A place.
    On {
        /// Where.
        target: AccessLogTarget,
        /// The format's name; `combined` when not given.
        format: Option<Located<Box<[u8]>>>,
        /// `if=`.
        condition: Option<Template>,
        /// `buffer=`.
        buffer: usize,
        /// `flush=`.
        flush: Option<Duration>,
    },
}

/// `log_format`.
#[derive(Clone)]
pub(crate) struct LogFormatDraft {
    pub(crate) name: Located<Box<[u8]>>,
    pub(crate) escape: LogEscape,
    pub(crate) line: Template,
}

fn access_log(reading: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<AccessLogDraft> {
    let first = &directive.args[0];
    if first.is("off") {
        return match directive.args.get(1) {
            None => Ok(AccessLogDraft::Off),
            Some(word) => Err(invalid_parameter(word)),
        };
    }
    let target = if has_variables(first) && !first.value.starts_with(b"syslog:") {
        AccessLogTarget::Variable(reading.path_template(first)?)
    } else {
        AccessLogTarget::Fixed(log_target(reading, first, 6)?)
    };
    let (mut condition, mut buffer, mut flush) = (None, 0, None);
    let format = directive.args.get(1).filter(|word| parameter(word, "if=").is_none());
    let parameters = if format.is_some() { 2 } else { 1 };
    for word in &directive.args[parameters.min(directive.args.len())..] {
        if let Some(text) = parameter(word, "if=") {
            condition = Some(reading.names.template(text, word.span)?);
        } else if let Some(text) = parameter(word, "buffer=") {
            buffer = value::size(text)
                .filter(|&size| size > 0)
                .ok_or_else(|| invalid_buffer(word))? as usize;
        } else if let Some(text) = parameter(word, "flush=") {
            let time = value::duration(text).filter(|time| !time.is_zero());
            flush = Some(time.ok_or_else(|| invalid_flush(word))?);
        } else if word.is("gzip") || parameter(word, "gzip=").is_some() {
            let help = "compress the file when it is rotated";
            return Err(Diagnostic::error("compressed access logs are not supported")
                .at(word.span, "")
                .help(help));
        } else {
            return Err(invalid_parameter(word));
        }
    }
    if flush.is_some() && buffer == 0 {
        let message = format!("no buffer is defined for access_log \"{first}\"");
        return Err(Diagnostic::error(message).at(directive.head(), "").help("add `buffer=64k`"));
    }
    let format = format.map(|word| Located { value: word.value.clone(), span: word.span });
    Ok(AccessLogDraft::On { target, format, condition, buffer, flush })
}

fn invalid_buffer(word: &Word) -> Diagnostic {
    Diagnostic::error(format!("invalid buffer size \"{word}\"")).at(word.span, "")
}

fn invalid_flush(word: &Word) -> Diagnostic {
    Diagnostic::error(format!("invalid flush time \"{word}\"")).at(word.span, "")
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
    reading: &Reading<'_>,
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
        None => Ok(LogTarget::File(reading.paths.below_prefix(&word.value))),
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

/// The formats of all access logs, and the error logs of the main level.
pub(crate) struct Logs {
    formats: Vec<LogFormat>,
    by_name: HashMap<Box<[u8]>, LogFormatId>,
    main: Vec<ErrorLog>,
}

impl Logs {
    /// Takes in `combined` and all `log_format` lines.
    pub(crate) fn new(reading: &mut Reading<'_>, http: &Level<'_>, main: Vec<ErrorLog>) -> Self {
        let mut logs = Self { formats: Vec::new(), by_name: HashMap::new(), main };
        let line = reading.names.template(COMBINED, reading.nowhere);
        let line = line.expect("the predefined format is valid");
        let name = b"combined".as_slice().into();
        logs.add_format(LogFormat { name, escape: LogEscape::Default, line });
        for draft in http.values(&LOG_FORMAT) {
            let Located { value: name, span } = draft.name;
            if logs.by_name.contains_key(&name) {
                let message = format!("duplicate \"log_format\" name \"{}\"", printable(&name));
                reading.error(message, span);
                continue;
            }
            logs.add_format(LogFormat { name, escape: draft.escape, line: draft.line });
        }
        logs
    }

    /// The formats, by number.
    pub(crate) fn into_formats(self) -> Vec<LogFormat> {
        self.formats
    }

    fn add_format(&mut self, format: LogFormat) {
        self.by_name.insert(format.name.clone(), LogFormatId(self.formats.len()));
        self.formats.push(format);
    }

    /// The access logs that apply in `scope`; `off` beside others turns all off.
    pub(crate) fn access_logs(
        &self,
        reading: &mut Reading<'_>,
        scope: &Scope<'_, '_>,
    ) -> Vec<AccessLog> {
        let drafts: Vec<AccessLogDraft> = scope.all(&ACCESS_LOG);
        if drafts.iter().any(|draft| matches!(draft, AccessLogDraft::Off)) {
            return Vec::new();
        }
        drafts.into_iter().filter_map(|draft| self.access_log(reading, draft)).collect()
    }

    fn access_log(&self, reading: &mut Reading<'_>, draft: AccessLogDraft) -> Option<AccessLog> {
        let AccessLogDraft::On { target, format, condition, buffer, flush } = draft else {
            return None;
        };
        let format = match format {
            None => LogFormatId(0),
            Some(name) => self.format_named(reading, &name)?,
        };
        Some(AccessLog { target, format, condition, buffer, flush })
    }

    fn format_named(
        &self,
        reading: &mut Reading<'_>,
        name: &Located<Box<[u8]>>,
    ) -> Option<LogFormatId> {
        if let Some(format) = self.by_name.get(&name.value) {
            return Some(*format);
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
