//! What is said of log lines that were lost: in the error log of the main level, by the main thread.
//!
//! Who loses a line must not wait, and the line that tells of it may itself be lost. So the first
//! failure in a while and the return are noted here, and the main thread is called to write them.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use wssgate_config::model::LogLevel;

use super::file::{Notifier, WriteError};

/// For how long a target that has failed is not spoken of again, as in nginx.
const QUIET: Duration = Duration::from_secs(60);

/// For how long a target that has returned does not return again in the log: a reader that is just
/// too slow fails and returns many times a second.
const SETTLING: Duration = Duration::from_secs(10);

/// The lines that one target of log lines has lost.
#[derive(Debug)]
pub(super) struct Losses {
    /// What is lost, for the log: `writes to log "x"`.
    what: String,
    failing: AtomicBool,
    state: Mutex<State>,
    notifier: Notifier,
}

#[derive(Debug, Default)]
struct State {
    lost: u64,
    failed_at: Option<Instant>,
    returned_at: Option<Instant>,
    /// To be told.
    messages: Vec<(LogLevel, String)>,
}

impl Losses {
    pub(super) fn new(what: String, notifier: &Notifier) -> Self {
        Self {
            what,
            failing: AtomicBool::new(false),
            state: Mutex::default(),
            notifier: notifier.clone(),
        }
    }

    /// A line was written to a file, or lost.
    pub(super) fn note(&self, written: Result<(), WriteError>) {
        match written {
            Ok(()) => self.on_success(),
            Err(failure) => {
                self.on_failure(Instant::now(), LogLevel::Alert, || failure.to_string());
            }
        }
    }

    /// A line was lost.
    pub(super) fn on_failure(&self, now: Instant, level: LogLevel, message: impl Fn() -> String) {
        let mut state = self.lock();
        state.lost += 1;
        self.failing.store(true, Relaxed);
        if state.failed_at.is_none_or(|failed| now.duration_since(failed) >= QUIET) {
            state.failed_at = Some(now);
            state.messages.push((level, message()));
            self.notifier.notify();
        }
    }

    /// A line was taken.
    pub(super) fn on_success(&self) {
        if !self.failing.load(Relaxed) {
            return;
        }
        let now = Instant::now();
        let mut state = self.lock();
        if state.returned_at.is_some_and(|returned| now.duration_since(returned) < SETTLING) {
            return;
        }
        self.failing.store(false, Relaxed);
        let lost = std::mem::take(&mut state.lost);
        if lost > 0 {
            state.returned_at = Some(now);
            state.messages.push((LogLevel::Error, format!("{lost} {} were lost", self.what)));
            self.notifier.notify();
        }
    }

    /// What there is to tell, once.
    pub(super) fn take(&self) -> Vec<(LogLevel, String)> {
        std::mem::take(&mut self.lock().messages)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::log::LogFiles;

    #[test]
    fn the_first_failure_and_the_return_are_told_and_no_more_in_between() {
        let losses = Losses::new("lines".into(), LogFiles::new().unwrap().notifier());
        losses.on_success();
        assert!(losses.take().is_empty());
        let now = Instant::now();
        for after in [0, 1, 59] {
            let now = now + Duration::from_secs(after);
            losses.on_failure(now, LogLevel::Alert, || "full".into());
        }
        assert_eq!(losses.take(), [(LogLevel::Alert, "full".to_owned())]);
        losses.on_failure(now + QUIET, LogLevel::Alert, || "still".into());
        losses.on_success();
        let returned = (LogLevel::Error, "4 lines were lost".to_owned());
        assert_eq!(losses.take(), [(LogLevel::Alert, "still".to_owned()), returned]);
        losses.on_failure(now + QUIET, LogLevel::Alert, || "again".into());
        losses.on_success();
        assert!(losses.take().is_empty(), "it has just returned");
    }
}
