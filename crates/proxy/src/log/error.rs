//! Error lines in nginx's form: `2026/11/22 18:27:37 [error] PID#TID: *CONNECTION message`.

use std::fmt::{Display, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use wssgate_config::model::{self, LogLevel, LogTarget};

use super::file::{LogFile, LogFiles, OpenError};
use super::stderr;
use super::syslog::SyslogSink;
use crate::clock;

/// Bytes in one line, its end included: what a pipe takes in one piece.
const MAX_LINE: usize = 4096;

/// The `error_log` lines that apply at one level.
#[derive(Debug)]
pub struct ErrorLog {
    sinks: Vec<(LogLevel, Sink)>,
    least_severe: Option<LogLevel>,
    /// One more than the place in [`LEVELS`] of the level that holds instead of all configured ones; 0: none.
    chosen: AtomicU8,
}

#[derive(Debug)]
enum Sink {
    File(Arc<LogFile>),
    Stderr,
    Syslog(SyslogSink),
}

impl ErrorLog {
    /// Opens every place that the lines name.
    pub fn open(lines: &[model::ErrorLog], files: &Arc<LogFiles>) -> Result<Self, OpenError> {
        let mut sinks = Vec::with_capacity(lines.len());
        for line in lines {
            let sink = match &line.target {
                LogTarget::File(path) => Sink::File(files.open(path)?),
                LogTarget::Stderr => Sink::Stderr,
                LogTarget::Syslog(syslog) => Sink::Syslog(SyslogSink::new(syslog, files)),
            };
            sinks.push((line.level, sink));
        }
        let least_severe = sinks.iter().map(|&(level, _)| level).max();
        Ok(Self { sinks, least_severe, chosen: AtomicU8::new(0) })
    }

    /// A log that writes lines of `level` and worse to standard error.
    pub fn stderr(level: LogLevel) -> Self {
        let sinks = vec![(level, Sink::Stderr)];
        Self { sinks, least_severe: Some(level), chosen: AtomicU8::new(0) }
    }

    /// Whether a line of this level is written anywhere, for messages that are dear to make.
    pub fn enabled(&self, level: LogLevel) -> bool {
        let configured = self.least_severe;
        configured.is_some_and(|least| level <= self.chosen().unwrap_or(least))
    }

    /// From here on this level holds for every line, or with `None` the configured ones again.
    pub(super) fn choose(&self, level: Option<LogLevel>) {
        let place = level.and_then(|level| LEVELS.iter().position(|known| *known == level));
        let chosen = place.map_or(0, |place| place as u8 + 1);
        self.chosen.store(chosen, Ordering::Relaxed);
    }

    /// The level that holds instead of the configured ones.
    pub(crate) fn chosen(&self) -> Option<LogLevel> {
        let place = self.chosen.load(Ordering::Relaxed).checked_sub(1)?;
        LEVELS.get(usize::from(place)).copied()
    }

    /// The most talkative of the configured levels.
    pub(crate) fn configured(&self) -> Option<LogLevel> {
        self.least_severe
    }

    /// Writes one line, wherever its level is asked for.
    ///
    /// Control characters in the message are written as `\xHH`: parts of it may come from the
    /// network.
    pub fn write(&self, level: LogLevel, connection: Option<u64>, message: impl Display) {
        if !self.enabled(level) {
            return;
        }
        let line = line(level, connection, &message);
        let chosen = self.chosen();
        let wanted = |&&(least, _): &&(LogLevel, Sink)| level <= chosen.unwrap_or(least);
        for (_, sink) in self.sinks.iter().filter(wanted) {
            match sink {
                Sink::File(file) => file.write(&[line.as_bytes()]),
                Sink::Stderr => stderr::write(line.as_bytes()),
                Sink::Syslog(syslog) => syslog.send(severity(level), line.trim_end().as_bytes()),
            }
        }
    }

    /// Whether lines of this level go to standard error, so that nobody says them twice there.
    pub fn writes_to_stderr(&self, level: LogLevel) -> bool {
        let chosen = self.chosen();
        let mut sinks = self.sinks.iter();
        sinks.any(|(least, sink)| matches!(sink, Sink::Stderr) && level <= chosen.unwrap_or(*least))
    }
}

fn line(level: LogLevel, connection: Option<u64>, message: &dyn Display) -> String {
    let mut line = clock::error_log_time(clock::now());
    let (pid, tid) = (std::process::id(), wssgate_sys::process::thread_id());
    // Writing to a string does not fail.
    let _ = write!(line, " [{}] {pid}#{tid}: ", level_name(level));
    if let Some(connection) = connection {
        let _ = write!(line, "*{connection} ");
    }
    let _ = write!(Printable { line: &mut line }, "{message}");
    line.push('\n');
    line
}

/// Appends text, up to the bound of a line, with control characters made visible.
struct Printable<'a> {
    line: &'a mut String,
}

impl Write for Printable<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        for character in text.chars() {
            // Room for the longest form of one character and the end of the line.
            if self.line.len() + 6 > MAX_LINE {
                break;
            }
            if character.is_ascii_control() {
                write!(self.line, "\\x{:02X}", u32::from(character))?;
            } else {
                self.line.push(character);
            }
        }
        Ok(())
    }
}

/// All levels, the most severe first.
const LEVELS: [LogLevel; 8] = [
    LogLevel::Emerg,
    LogLevel::Alert,
    LogLevel::Crit,
    LogLevel::Error,
    LogLevel::Warn,
    LogLevel::Notice,
    LogLevel::Info,
    LogLevel::Debug,
];

/// The level with this word.
pub(crate) fn level_named(name: &str) -> Option<LogLevel> {
    LEVELS.into_iter().find(|level| level_name(*level) == name)
}

/// The word of a level in lines and configurations.
pub fn level_name(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Emerg => "emerg",
        LogLevel::Alert => "alert",
        LogLevel::Crit => "crit",
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Notice => "notice",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
    }
}

/// The number of a level in syslog (RFC 5424 §6.2.1).
fn severity(level: LogLevel) -> u8 {
    match level {
        LogLevel::Emerg => 0,
        LogLevel::Alert => 1,
        LogLevel::Crit => 2,
        LogLevel::Error => 3,
        LogLevel::Warn => 4,
        LogLevel::Notice => 5,
        LogLevel::Info => 6,
        LogLevel::Debug => 7,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn log_to(directory: &tempfile::TempDir, lines: &[(&str, LogLevel)]) -> ErrorLog {
        let lines: Vec<_> = lines
            .iter()
            .map(|&(name, level)| model::ErrorLog {
                target: LogTarget::File(directory.path().join(name)),
                level,
            })
            .collect();
        ErrorLog::open(&lines, &Arc::new(LogFiles::new().unwrap())).unwrap()
    }

    #[test]
    fn a_line_has_the_form_that_operators_grep_for() {
        let directory = tempfile::tempdir().unwrap();
        let log = log_to(&directory, &[("e.log", LogLevel::Info)]);
        log.write(LogLevel::Error, Some(7), format_args!("no live upstreams, client: {}", "::1"));
        let text = std::fs::read_to_string(directory.path().join("e.log")).unwrap();
        let (time, rest) = text.split_at("2026/11/22 18:27:37".len());
        assert!(time.bytes().all(|byte| byte.is_ascii_digit() || b"/: ".contains(&byte)), "{time}");
        let pid = std::process::id();
        let tid = wssgate_sys::process::thread_id();
        assert_eq!(rest, format!(" [error] {pid}#{tid}: *7 no live upstreams, client: ::1\n"));
    }

    #[test]
    fn each_line_goes_to_every_place_whose_level_asks_for_it() {
        let directory = tempfile::tempdir().unwrap();
        let log = log_to(
            &directory,
            &[
                ("a", LogLevel::Warn),
                ("b", LogLevel::Error),
                ("twice", LogLevel::Warn),
                ("twice", LogLevel::Warn),
            ],
        );
        log.write(LogLevel::Warn, None, "one");
        log.write(LogLevel::Notice, None, "unseen");
        assert!(log.enabled(LogLevel::Warn) && !log.enabled(LogLevel::Notice));
        let count = |name| {
            std::fs::read_to_string(directory.path().join(name)).unwrap().matches("one").count()
        };
        assert_eq!((count("a"), count("b"), count("twice")), (1, 0, 2));
    }

    #[test]
    fn what_the_network_sends_can_neither_end_a_line_nor_outgrow_it() {
        let text = line(LogLevel::Warn, None, &format!("a\nb\x1b{}", "x".repeat(9000)));
        assert!(text.contains("a\\x0Ab\\x1Bxx"), "{text}");
        assert_eq!(text.matches('\n').count(), 1);
        assert!(text.len() <= MAX_LINE && text.len() > MAX_LINE - 8);
    }
}
