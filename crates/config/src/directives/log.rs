//! Where lines go and what they look like.

use std::time::Duration;

use wssgate_syntax::{Diagnostic, Directive, Word};

use crate::directive::Arity::AtLeast;
use crate::directive::{H, HSL, HSLI, M, Row, Value, X, works};
use crate::model::{
    AccessLogTarget, ErrorLog, ListenAddr, Located, LogEscape, LogLevel, LogTarget, Syslog,
};
use crate::read::{
    Reading, Reads, has_variables, invalid_parameter, invalid_value, one_of, parameter,
};
use crate::template::Template;
use crate::value::{self, Form};

/// The rows.
pub(crate) const ROWS: &[Row] = &[
    works(
        "access_log",
        HSLI | X,
        AtLeast(1),
        "/var/log/nginx/access.log combined",
        "Writes a line for each request.",
        access_log,
    )
    .many(),
    works(
        "error_log",
        M,
        AtLeast(1),
        "stderr error",
        "Writes what goes wrong, from this level on.",
        error_log,
    )
    .many(),
    works(
        "error_log",
        HSL,
        AtLeast(1),
        "",
        "Writes what goes wrong, from this level on.",
        error_log,
    )
    .many(),
    works("log_format", H, AtLeast(2), "", "Names a form of access lines.", log_format).many(),
];

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

fn access_log(reading: &mut Reading<'_>, directive: &Directive) -> Reads {
    let first = &directive.args[0];
    if first.is("off") {
        return match directive.args.get(1) {
            None => Ok(Value::new(AccessLogDraft::Off)),
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
    Ok(Value::new(AccessLogDraft::On { target, format, condition, buffer, flush }))
}

fn invalid_buffer(word: &Word) -> Diagnostic {
    Diagnostic::error(format!("invalid buffer size \"{word}\"")).at(word.span, "")
}

fn invalid_flush(word: &Word) -> Diagnostic {
    Diagnostic::error(format!("invalid flush time \"{word}\"")).at(word.span, "")
}

const LEVELS: [(&str, LogLevel); 8] = [
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
fn error_log(reading: &mut Reading<'_>, directive: &Directive) -> Reads {
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
    Ok(Value::new(ErrorLog { target, level: level.unwrap_or(LogLevel::Error) }))
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

const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "intern", "lpr", "news", "uucp", "clock", "authpriv",
    "ftp", "ntp", "audit", "alert", "cron", "local0", "local1", "local2", "local3", "local4",
    "local5", "local6", "local7",
];
const SEVERITIES: [&str; 8] =
    ["emerg", "alert", "crit", "error", "warn", "notice", "info", "debug"];
const SYSLOG_PORT: u16 = 514;
/// RFC 3164 allows 32 characters.
const MAX_TAG_LEN: usize = 32;

fn syslog(
    reading: &Reading<'_>,
    word: &Word,
    text: &[u8],
    severity: u8,
) -> Result<Syslog, Diagnostic> {
    let problem = |message: String| Diagnostic::error(message).at(word.span, "");
    let mut syslog = Syslog {
        server: ListenAddr::Unix("".into()),
        facility: 23,
        severity,
        tag: "nginx".into(),
        nohostname: false,
    };
    let mut server = None;
    for part in text.split(|&byte| byte == b',') {
        let part = String::from_utf8_lossy(part);
        match part.split_once('=') {
            Some(("server", _)) if server.is_some() => {
                return Err(problem("duplicate syslog \"server\"".into()));
            }
            Some(("server", address)) => {
                server = Some(syslog_server(reading, address).map_err(problem)?);
            }
            _ => syslog_parameter(&mut syslog, &part).map_err(problem)?,
        }
    }
    syslog.server = server.ok_or_else(|| problem("no syslog server specified".into()))?;
    Ok(syslog)
}

fn syslog_server(reading: &Reading<'_>, address: &str) -> Result<ListenAddr, String> {
    let endpoint = value::endpoint(address.as_bytes(), Form::Host)
        .map_err(|error| format!("{error} in syslog server \"{address}\""))?;
    let found = reading.addresses(&endpoint, SYSLOG_PORT).ok();
    let first = found.and_then(|found| found.into_iter().next());
    first.ok_or_else(|| format!("host not found in syslog server \"{address}\""))
}

fn syslog_parameter(syslog: &mut Syslog, part: &str) -> Result<(), String> {
    match part.split_once('=') {
        Some(("facility", name)) => {
            let found = FACILITIES.iter().position(|facility| *facility == name);
            syslog.facility =
                found.ok_or_else(|| format!("unknown syslog facility \"{name}\""))? as u8;
        }
        Some(("severity", name)) => {
            let found = SEVERITIES.iter().position(|severity| *severity == name);
            syslog.severity =
                found.ok_or_else(|| format!("unknown syslog severity \"{name}\""))? as u8;
        }
        Some(("tag", tag)) => {
            let valid = |character: char| character.is_ascii_alphanumeric() || character == '_';
            if tag.len() > MAX_TAG_LEN {
                return Err("syslog tag length exceeds 32".into());
            }
            if !tag.chars().all(valid) {
                return Err(
                    "syslog \"tag\" only allows alphanumeric characters and underscore".into()
                );
            }
            syslog.tag = tag.to_owned();
        }
        None if part == "nohostname" => syslog.nohostname = true,
        _ => return Err(format!("unknown syslog parameter \"{part}\"")),
    }
    Ok(())
}

fn log_format(reading: &mut Reading<'_>, directive: &Directive) -> Reads {
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
        return Err(invalid_value(name).help("the format itself is missing"));
    };
    let line: Vec<u8> = pieces.iter().flat_map(|word| word.value.iter().copied()).collect();
    let line = reading.names.template(&line, pieces[0].span.to(last.span))?;
    let name = Located { value: name.value.clone(), span: name.span };
    Ok(Value::new(LogFormatDraft { name, escape, line }))
}
