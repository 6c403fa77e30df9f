//! What the user at the terminal is told, and the error log before there is a configuration.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt::Display;
use std::io::{self, IsTerminal};
use std::sync::Arc;

use wssgate_config::Config;
use wssgate_config::model::{self, LogLevel, LogTarget};
use wssgate_proxy::generation::Environment;
use wssgate_proxy::log::{self, ErrorLog};
use wssgate_syntax::{Report, Severity, SourceMap};

use crate::Failed;
use crate::load::Loaded;
use crate::options::{Action, Options};
use crate::version;

/// Writes a line to standard error in nginx's name, which scripts look for.
pub(crate) fn say(message: impl Display) {
    eprintln!("nginx: {message}");
}

/// A configuration without errors.
pub(crate) struct Accepted {
    /// What it means.
    pub(crate) config: Config,
    /// The texts it was read from.
    pub(crate) sources: Arc<SourceMap>,
}

/// Standard error and the error log of `-e`.
pub(crate) struct Console {
    /// What the engine is built with; its error log is that of `-e`.
    pub(crate) environment: Environment,
    log: ErrorLog,
    /// Whether notices are told, too: in a test that is not to be quiet.
    notices: bool,
    /// Whether this is a run that only signals another.
    signals: bool,
    /// The warnings and notices so far.
    told: RefCell<HashSet<String>>,
}

impl Console {
    /// Opens the error log of `-e`, so that it exists whatever comes. If that fails, standard error
    /// takes its place.
    pub(crate) fn open(options: &Options) -> io::Result<Self> {
        let path = match &options.error_log {
            Some(path) => path.clone(),
            None => version::ERROR_LOG_PATH.into(),
        };
        let target = if path.as_os_str().is_empty() {
            LogTarget::Stderr
        } else {
            LogTarget::File(options.prefix().join(path))
        };
        let lines = [model::ErrorLog { target: target.clone(), level: LogLevel::Notice }];
        let mut environment = Environment::new(target)?;
        let log = ErrorLog::open(&lines, &environment.files).unwrap_or_else(|error| {
            say(format_args!("[alert] could not open error log file: {error}"));
            environment.error_log = LogTarget::Stderr;
            ErrorLog::stderr(LogLevel::Notice)
        });
        let notices = options.tests() && !options.quiet;
        let signals = matches!(options.action, Action::Signal(_));
        Ok(Self { environment, log, notices, signals, told: RefCell::default() })
    }

    /// Writes a line to the log only.
    pub(crate) fn note(&self, message: impl Display) {
        self.log.write(LogLevel::Notice, None, message);
    }

    /// Tells a problem on standard error and in the log.
    pub(crate) fn write(&self, level: LogLevel, message: impl Display) {
        if !self.log.writes_to_stderr(level) {
            say(format_args!("[{}] {message}", log::level_name(level)));
        }
        self.log.write(level, None, message);
    }

    /// Tells all problems: nginx's line of each, and below it the place in the text and what may help.
    ///
    /// nginx keeps notices from the terminal; a test tells them, for they say what has no effect.
    pub(crate) fn report(&self, report: &Report, sources: &SourceMap) {
        let terminal = io::stderr().is_terminal();
        let drawn = terminal || self.notices || report.has_errors();
        let mut diagnostics = report.iter();
        for (severity, message) in report.texts(sources) {
            let level = level_of(severity);
            let told = level <= LogLevel::Warn || self.notices;
            match told {
                true => self.write(level, &message),
                // The server that is signalled tells its log what it finds itself.
                false if self.signals => {}
                false => self.log.write(level, None, &message),
            }
            // Of a notice the line says all, unless something can be done about it.
            let drawn = diagnostics.next().filter(|diagnostic| {
                told && drawn && (severity != Severity::Note || diagnostic.help.is_some())
            });
            if let Some(diagnostic) = drawn {
                let drawing = diagnostic.render_below_line(sources, terminal);
                // What is found only when files are opened may have no place.
                if !drawing.trim_end().is_empty() {
                    eprintln!("{}", drawing.trim_end());
                }
            }
            if severity != Severity::Error {
                self.told.borrow_mut().insert(message);
            }
        }
    }

    /// The warnings and notices that were told.
    pub(crate) fn told(&self) -> HashSet<String> {
        self.told.take()
    }

    /// The configuration, if it has no errors; tells what is wrong with it otherwise, and warnings
    /// in any case.
    pub(crate) fn expect(&self, loaded: Loaded) -> Result<Accepted, Failed> {
        self.report(&loaded.report, &loaded.sources);
        let config = loaded.config.ok_or(Failed)?;
        Ok(Accepted { config, sources: loaded.sources })
    }
}

/// The level that a problem of a configuration is logged at.
pub(crate) fn level_of(severity: Severity) -> LogLevel {
    match severity {
        Severity::Error => LogLevel::Emerg,
        Severity::Warning => LogLevel::Warn,
        Severity::Note => LogLevel::Notice,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_has_the_word_of_the_terminal() {
        for severity in [Severity::Error, Severity::Warning, Severity::Note] {
            assert_eq!(log::level_name(level_of(severity)), severity.nginx_word());
        }
    }
}
