//! `access_log`: where the lines of requests go, and when.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use wssgate_syntax::{self as syntax, Diagnostic, Word};

use crate::buffering::Buffering;
use crate::log::{ACCESS_LOG, LogFormatId, LogTarget, Logs, log_target};
use crate::read::{Reading, Reads, has_variables, invalid_parameter, parameter};
use crate::scope::Scope;
use crate::template::Template;
use crate::value::{self, Located};

/// One `access_log` line.
#[derive(Clone, Debug)]
pub struct AccessLog {
    /// Where lines go.
    pub target: AccessLogTarget,
    /// Which format.
    pub format: LogFormatId,
    /// `if=`: no line when empty or `0`.
    pub condition: Option<Template>,
    /// How lines wait for each other; `None` writes each at once.
    pub buffering: Option<Buffering>,
}

/// Place of access lines.
#[derive(Clone, Debug)]
pub enum AccessLogTarget {
    /// A fixed place.
    Fixed(LogTarget),
    /// A path with variables, relative to the prefix.
    Variable(Template),
}

/// `open_log_file_cache`. Locations that inherit one line share one value.
#[derive(Debug, PartialEq, Eq)]
pub struct LogFileCache {
    /// How many files are known at once.
    pub max: usize,
    /// For how long one may be unused.
    pub inactive: Duration,
    /// For how long it is taken for the one of its name.
    pub valid: Duration,
    /// How often one must be used to be kept open.
    pub min_uses: u64,
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
        /// `buffer=` and its like.
        buffering: Option<Buffering>,
    },
}

/// The buffer that `gzip` fills unless another size is given.
const GZIP_BUFFER: usize = 64 << 10;

/// Reads the arguments of `access_log`.
pub(super) fn access_log(
    reading: &mut Reading<'_>,
    directive: &syntax::Directive,
) -> Reads<AccessLogDraft> {
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
    let format = directive.args.get(1).filter(|word| parameter(word, "if=").is_none());
    let parameters = directive.args.iter().skip(if format.is_some() { 2 } else { 1 });
    let (mut condition, mut size, mut flush, mut gzip) = (None, None, None, None);
    for word in parameters {
        if let Some(text) = parameter(word, "if=") {
            condition = Some(reading.names.template(text, word.span)?);
        } else if let Some(text) = parameter(word, "buffer=") {
            size = Some(buffer_size(word, text)?);
        } else if let Some(text) = parameter(word, "flush=") {
            let time = value::duration(text).filter(|time| !time.is_zero());
            flush = Some(time.ok_or_else(|| invalid("flush time", word, text))?);
        } else if word.is("gzip") {
            gzip = Some(1);
        } else if let Some(text) = parameter(word, "gzip=") {
            let level = value::number(text).filter(|level| (1..=9).contains(level));
            gzip = Some(level.ok_or_else(|| invalid("compression level", word, text))? as u8);
        } else {
            return Err(invalid_parameter(word));
        }
    }
    let capacity = size.or(gzip.map(|_| GZIP_BUFFER));
    let buffering = capacity.map(|capacity| Buffering { capacity, flush, gzip });
    match buffering {
        None if flush.is_some() => {
            let message = format!("no buffer is defined for access_log \"{first}\"");
            let problem = Diagnostic::error(message).at(directive.head(), "");
            return Err(problem.help("add `buffer=64k`"));
        }
        None => {}
        Some(buffering) => check_buffering(reading, directive, &target, buffering)?,
    }
    let format = format.map(|word| Located { value: word.value.clone(), span: word.span });
    Ok(AccessLogDraft::On { target, format, condition, buffering })
}

fn buffer_size(word: &Word, text: &[u8]) -> Reads<usize> {
    let size = value::size(text).filter(|&size| size > 0);
    Ok(size.ok_or_else(|| invalid("buffer size", word, text))? as usize)
}

fn invalid(what: &str, word: &Word, text: &[u8]) -> Diagnostic {
    let text = String::from_utf8_lossy(text);
    Diagnostic::error(format!("invalid {what} \"{text}\"")).at(word.span, "")
}

/// Only files with a fixed name have buffers, and each has one.
fn check_buffering(
    reading: &mut Reading<'_>,
    directive: &syntax::Directive,
    target: &AccessLogTarget,
    buffering: Buffering,
) -> Result<(), Diagnostic> {
    let problem = |message: String| Diagnostic::error(message).at(directive.head(), "");
    let path = match target {
        AccessLogTarget::Variable(_) => {
            return Err(problem("buffered logs cannot have variables in name".into()));
        }
        AccessLogTarget::Fixed(LogTarget::Syslog(_)) => {
            return Err(problem("logs to syslog cannot be buffered".into()));
        }
        AccessLogTarget::Fixed(LogTarget::Stderr) => PathBuf::from("stderr"),
        AccessLogTarget::Fixed(LogTarget::File(path)) => path.clone(),
    };
    if *reading.log_buffers.entry(path).or_insert(buffering) != buffering {
        let name = &directive.args[0];
        let message = format!("access_log \"{name}\" already defined with conflicting parameters");
        return Err(problem(message));
    }
    Ok(())
}

/// Reads the arguments of `open_log_file_cache`; `None` when it is off.
pub(super) fn open_log_file_cache(
    _: &mut Reading<'_>,
    directive: &syntax::Directive,
) -> Reads<Option<Arc<LogFileCache>>> {
    let mut cache = LogFileCache {
        max: 0,
        inactive: Duration::from_secs(10),
        valid: Duration::from_secs(60),
        min_uses: 1,
    };
    let mut off = false;
    for word in &directive.args {
        let known = if let Some(text) = parameter(word, "max=") {
            value::number(text).map(|max| cache.max = usize::try_from(max).unwrap_or(usize::MAX))
        } else if let Some(text) = parameter(word, "inactive=") {
            value::seconds(text).map(|inactive| cache.inactive = inactive)
        } else if let Some(text) = parameter(word, "min_uses=") {
            value::number(text).map(|min_uses| cache.min_uses = min_uses)
        } else if let Some(text) = parameter(word, "valid=") {
            value::seconds(text).map(|valid| cache.valid = valid)
        } else {
            word.is("off").then(|| off = true)
        };
        known.ok_or_else(|| {
            let message = format!("invalid \"open_log_file_cache\" parameter \"{word}\"");
            Diagnostic::error(message).at(word.span, "")
        })?;
    }
    if off {
        return Ok(None);
    }
    if cache.max == 0 {
        let message = "\"open_log_file_cache\" must have \"max\" parameter";
        return Err(Diagnostic::error(message).at(directive.head(), ""));
    }
    Ok(Some(Arc::new(cache)))
}

impl Logs {
    /// The access logs that apply in `scope`; `off` beside others turns all off.
    pub(crate) fn access_logs(
        &mut self,
        reading: &mut Reading<'_>,
        scope: &Scope<'_, '_>,
    ) -> Vec<AccessLog> {
        let drafts: Vec<AccessLogDraft> = scope.all(&ACCESS_LOG);
        if drafts.iter().any(|draft| matches!(draft, AccessLogDraft::Off)) {
            return Vec::new();
        }
        drafts.into_iter().filter_map(|draft| self.access_log(reading, draft)).collect()
    }

    fn access_log(
        &mut self,
        reading: &mut Reading<'_>,
        draft: AccessLogDraft,
    ) -> Option<AccessLog> {
        let AccessLogDraft::On { target, format, condition, buffering } = draft else {
            return None;
        };
        let format = match format {
            None => LogFormatId(0),
            Some(name) => self.format_named(reading, &name)?,
        };
        Some(AccessLog { target, format, condition, buffering })
    }
}
