//! What the user at the terminal is told, and the error log before there is a configuration.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::fmt::Display;
use std::io::{self, IsTerminal};
use std::sync::{Arc, OnceLock};

use wssgate_config::Config;
use wssgate_config::model::{self, Advice, LogLevel, LogTarget};
use wssgate_proxy::generation::Environment;
use wssgate_proxy::log::{self, ErrorLog};
use wssgate_syntax::{Diagnostic, Report, Severity, SourceMap};

use crate::Failed;
use crate::load::Loaded;
use crate::options::{Action, Options};

/// In whose name problems are told.
static VOICE: OnceLock<String> = OnceLock::new();

/// Tells problems in the name of one of our commands from now on.
pub(crate) fn speak_as(command: &str) {
    let _ = VOICE.set(format!("wssgate {command}"));
}

/// Writes a line to standard error, in nginx's name, which scripts look for, unless one of our commands runs.
pub(crate) fn say(message: impl Display) {
    match VOICE.get() {
        Some(voice) => eprintln!("{voice}: {message}"),
        None => eprintln!("nginx: {message}"),
    }
}

/// Tells what has kept the program from its work.
pub(crate) fn fail(message: impl Display) -> Failed {
    say(message);
    Failed
}

/// Tells the problems of files that a command was given, each with the place in the text and what may help.
pub(crate) fn say_all(report: &Report, sources: &SourceMap) {
    let mut diagnostics = report.iter();
    for (_, text) in report.texts(sources) {
        say(text);
        if let Some(diagnostic) = diagnostics.next() {
            draw(diagnostic, sources);
        }
    }
}

/// Shows below its line what a problem is about.
fn draw(diagnostic: &Diagnostic, sources: &SourceMap) {
    let drawing = diagnostic.render_below_line(sources, io::stderr().is_terminal());
    // What is found only when files are opened may have no place.
    if !drawing.trim_end().is_empty() {
        eprintln!("{}", drawing.trim_end());
    }
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
    /// Whether every setting without effect is told, with the reason.
    verbose: bool,
    /// Whether the configuration is of our own making: who typed a command knows nothing of its lines.
    own: bool,
    /// Whether this is a run that only signals another.
    signals: bool,
    /// The warnings and notices so far.
    told: RefCell<HashSet<String>>,
    /// The settings without effect so far, unless each was told.
    idle: RefCell<Vec<String>>,
    /// How many errors and warnings there were.
    count: Cell<Count>,
    /// The first error.
    problem: RefCell<Option<String>>,
}

/// How many problems were told.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    errors: usize,
    warnings: usize,
}

impl Count {
    /// In words; nothing of a single problem, which everybody sees is one.
    fn words(self) -> Option<String> {
        let of = |count: usize, what: &str| match count {
            0 => None,
            1 => Some(format!("1 {what}")),
            _ => Some(format!("{count} {what}s")),
        };
        let parts: Vec<_> = [of(self.errors, "error"), of(self.warnings, "warning")]
            .into_iter()
            .flatten()
            .collect();
        (self.errors + self.warnings > 1).then(|| parts.join(", "))
    }
}

/// How many settings without effect are named.
const IDLE_NAMES: usize = 6;

impl Console {
    /// Opens the error log of `-e`, so that it exists whatever comes. If that fails, standard error
    /// takes its place.
    pub(crate) fn open(options: &Options) -> io::Result<Self> {
        let path = options.error_log();
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
        Ok(Self {
            environment,
            log,
            notices,
            verbose: options.verbose,
            own: options.own.is_some(),
            signals: matches!(options.action, Action::Signal(_)),
            told: RefCell::default(),
            idle: RefCell::default(),
            count: Cell::default(),
            problem: RefCell::default(),
        })
    }

    /// Writes a line to the log only.
    pub(crate) fn note(&self, message: impl Display) {
        self.log.write(LogLevel::Notice, None, message);
    }

    /// Tells a problem on standard error and in the log; that of a command only once.
    pub(crate) fn write(&self, level: LogLevel, message: impl Display) {
        let Count { errors, warnings } = self.count.get();
        self.count.set(match level {
            LogLevel::Warn => Count { errors, warnings: warnings + 1 },
            level if level < LogLevel::Warn => Count { errors: errors + 1, warnings },
            _ => Count { errors, warnings },
        });
        self.tell(level, message);
    }

    fn tell(&self, level: LogLevel, message: impl Display) {
        if level <= LogLevel::Emerg {
            self.problem.borrow_mut().get_or_insert_with(|| message.to_string());
        }
        if self.own {
            return say(message);
        }
        if !self.log.writes_to_stderr(level) {
            say(format_args!("[{}] {message}", log::level_name(level)));
        }
        self.log.write(level, None, message);
    }

    /// Tells all problems: nginx's line of each, and below it the place in the text and what may help.
    ///
    /// nginx keeps notices from the terminal; a test tells them, for they say what can be done better. Of settings
    /// without effect there may be many: they are told together, by [`Console::tell_idle`].
    pub(crate) fn report(&self, report: &Report, sources: &SourceMap) {
        if self.own {
            return self.report_own(report);
        }
        let warnings =
            report.iter().filter(|problem| problem.severity == Severity::Warning).count();
        let Count { errors, warnings: before } = self.count.get();
        let (errors, warnings) = (errors + report.error_count(), before + warnings);
        self.count.set(Count { errors, warnings });
        let drawn = io::stderr().is_terminal() || self.notices || report.has_errors();
        let mut diagnostics = report.iter();
        for (severity, message) in report.texts(sources) {
            let diagnostic = diagnostics.next();
            let idle = diagnostic.and_then(|diagnostic| diagnostic.idle.as_ref());
            let level = level_of(severity);
            let told = level <= LogLevel::Warn || self.notices;
            match idle.filter(|_| !self.verbose) {
                Some(setting) => self.idle.borrow_mut().push(setting.to_string()),
                None if told => self.tell(level, &message),
                // The server that is signalled tells its log what it finds itself.
                None if self.signals => {}
                None => self.log.write(level, None, &message),
            }
            // Of a notice the line says all, unless something can be done about it.
            let drawing = diagnostic.filter(|diagnostic| {
                told && drawn && (severity != Severity::Note || diagnostic.help.is_some())
            });
            if let Some(diagnostic) = drawing {
                draw(diagnostic, sources);
            }
            if severity != Severity::Error {
                self.told.borrow_mut().insert(message);
            }
        }
    }

    /// Tells what keeps a command from running, and what may help.
    fn report_own(&self, report: &Report) {
        for diagnostic in report.iter().filter(|diagnostic| diagnostic.severity != Severity::Note) {
            say(&diagnostic.message);
            let notes = diagnostic.notes.iter().filter(|note| !Advice::is_silencer(note));
            for text in notes.chain(&diagnostic.help) {
                eprintln!("  {text}");
            }
        }
    }

    /// Tells in one line which settings have no effect.
    pub(crate) fn tell_idle(&self) {
        let mut settings = self.idle.take();
        settings.sort();
        settings.dedup();
        let Some(line) = idle_line(&settings).filter(|_| !self.signals) else { return };
        match self.notices {
            true => self.write(LogLevel::Notice, line),
            false => self.note(line),
        }
    }

    /// Tells how many errors and warnings there were, if there were several. Who looks for nginx's lines finds none.
    pub(crate) fn tell_count(&self) {
        if let Some(words) = self.count.get().words() {
            eprintln!("{words}");
        }
    }

    /// The first error that was told.
    pub(crate) fn problem(&self) -> Option<String> {
        self.problem.borrow().clone()
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

fn idle_line(settings: &[String]) -> Option<String> {
    let (first, rest) = settings.split_at(settings.len().min(IDLE_NAMES));
    let more = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
    let have = match settings.len() {
        0 => return None,
        1 => "1 setting has",
        _ => &format!("{} settings have", settings.len()),
    };
    let names = first.join(", ");
    Some(format!("{have} no effect: {names}{more}; \"-t --verbose\" says where and why"))
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
    fn settings_without_effect_are_counted_and_some_named() {
        let line = |count: usize| {
            idle_line(&(0..count).map(|number| format!("s{number}")).collect::<Vec<_>>())
        };
        assert_eq!(line(0), None);
        let text = line(1).unwrap_or_default();
        assert!(text.starts_with("1 setting has no effect: s0; "), "{text}");
        let text = line(6).unwrap_or_default();
        assert!(text.starts_with("6 settings have no effect: s0, s1, s2, s3, s4, s5; "), "{text}");
        assert!(line(8).is_some_and(|text| text.contains(", s5 and 2 more; ")));
    }

    #[test]
    fn several_problems_are_counted() {
        for (errors, warnings, expected) in [
            (0, 0, None),
            (1, 0, None),
            (0, 1, None),
            (1, 1, Some("1 error, 1 warning")),
            (3, 2, Some("3 errors, 2 warnings")),
            (0, 2, Some("2 warnings")),
            (256, 0, Some("256 errors")),
        ] {
            assert_eq!(Count { errors, warnings }.words().as_deref(), expected);
        }
    }

    #[test]
    fn the_log_has_the_word_of_the_terminal() {
        for severity in [Severity::Error, Severity::Warning, Severity::Note] {
            assert_eq!(log::level_name(level_of(severity)), severity.nginx_word());
        }
    }
}
