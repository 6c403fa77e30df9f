//! Log files: opened once for all generations, reopened together, never waited for.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use thiserror::Error;
use wssgate_config::model::LogTarget;
use wssgate_sys::eventfd::EventFd;
use wssgate_sys::files;

use super::access::{AccessSink, Output};
use super::syslog::SyslogSink;

/// A log that could not be opened; in nginx's words.
#[derive(Debug, Error)]
#[error("open() \"{}\" failed ({})", path.display(), crate::errno_text(source))]
pub struct OpenError {
    /// The file.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// Calls the main thread when something needs it.
#[derive(Clone, Debug)]
pub(crate) struct Notifier(Arc<EventFd>);

impl Notifier {
    pub(crate) fn notify(&self) {
        self.0.ring();
    }

    /// Something whose end the main thread wants to hear of.
    pub(crate) fn notify_on_drop(&self) -> NotifyOnDrop {
        NotifyOnDrop(self.clone())
    }
}

/// Calls the main thread when it goes.
#[derive(Debug)]
pub(crate) struct NotifyOnDrop(Notifier);

impl Drop for NotifyOnDrop {
    fn drop(&mut self) {
        self.0.notify();
    }
}

/// One file and what became of lines that it did not take.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    file: ArcSwap<File>,
    lost: AtomicU64,
    recovered: AtomicBool,
    notifier: Notifier,
}

impl LogFile {
    fn open(path: &Path, notifier: &Notifier) -> io::Result<Self> {
        Ok(Self {
            path: path.to_path_buf(),
            file: ArcSwap::from_pointee(files::open_log(path)?),
            lost: AtomicU64::new(0),
            recovered: AtomicBool::new(false),
            notifier: notifier.clone(),
        })
    }

    /// Writes `parts` as one piece, or loses them.
    pub(super) fn write(&self, parts: &[&[u8]]) {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let slices: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let written = loop {
            match (&**self.file.load()).write_vectored(&slices) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        // The rest of a line that was written in part is lost too: written now, it would stand
        // behind a line of another worker.
        if !written.is_ok_and(|count| count == len) {
            self.lost.fetch_add(1, Relaxed);
        } else if self.lost.load(Relaxed) > 0 && !self.recovered.swap(true, Relaxed) {
            self.notifier.notify();
        }
    }

    /// How many writes were lost until the file took lines again; told once.
    fn take_lost(&self) -> Option<u64> {
        if !self.recovered.swap(false, Relaxed) {
            return None;
        }
        Some(self.lost.swap(0, Relaxed)).filter(|&lost| lost > 0)
    }
}

/// Every open log file by path. Lives as long as the process; generations come and go.
#[derive(Debug)]
pub struct LogFiles {
    files: Mutex<HashMap<PathBuf, Weak<LogFile>>>,
    sinks: Mutex<Vec<Weak<AccessSink>>>,
    notifier: Notifier,
}

impl LogFiles {
    /// No files yet.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            files: Mutex::default(),
            sinks: Mutex::default(),
            notifier: Notifier(Arc::new(EventFd::new()?)),
        })
    }

    /// Readable when the main thread should call [`LogFiles::flush_due`] and [`LogFiles::losses`].
    pub fn wakeup(&self) -> BorrowedFd<'_> {
        self.notifier.0.as_fd()
    }

    pub(crate) fn notifier(&self) -> &Notifier {
        &self.notifier
    }

    /// Clears the wake-up; do it before looking.
    pub fn clear_wakeup(&self) {
        self.notifier.0.clear();
    }

    pub(super) fn open(&self, path: &Path) -> Result<Arc<LogFile>, OpenError> {
        let mut files = lock(&self.files);
        if let Some(file) = files.get(path).and_then(Weak::upgrade) {
            return Ok(file);
        }
        let file = LogFile::open(path, &self.notifier)
            .map_err(|source| OpenError { path: path.to_path_buf(), source })?;
        let file = Arc::new(file);
        // Configurations come and go; the names of their logs must not pile up.
        files.retain(|_, file| file.strong_count() > 0);
        files.insert(path.to_path_buf(), Arc::downgrade(&file));
        Ok(file)
    }

    /// The sink for access lines to `target`; `capacity` 0 writes each line at once.
    pub fn access_sink(
        &self,
        target: &LogTarget,
        capacity: usize,
        flush: Option<Duration>,
    ) -> Result<Arc<AccessSink>, OpenError> {
        let output = match target {
            LogTarget::File(path) => Output::File(self.open(path)?),
            LogTarget::Stderr => Output::Stderr,
            LogTarget::Syslog(syslog) => Output::Syslog(SyslogSink::new(syslog)),
        };
        let sink = Arc::new(AccessSink::new(output, capacity, flush, &self.notifier));
        let mut sinks = lock(&self.sinks);
        sinks.retain(|sink| sink.strong_count() > 0);
        sinks.push(Arc::downgrade(&sink));
        Ok(sink)
    }

    pub(super) fn append(&self, path: &Path, line: &[u8]) -> Result<(), OpenError> {
        let wrap = |source| OpenError { path: path.to_path_buf(), source };
        let mut file = files::open_log(path).map_err(wrap)?;
        file.write_all(&[line, b"\n"].concat()).map_err(wrap)
    }

    /// Flushes buffers whose time has come and says when the next one's will.
    pub fn flush_due(&self, now: Instant) -> Option<Instant> {
        let sinks: Vec<_> = lock(&self.sinks).iter().filter_map(Weak::upgrade).collect();
        sinks.iter().filter_map(|sink| sink.flush_due(now)).min()
    }

    /// Files that lost lines and take them again: path and how many writes were lost.
    pub fn losses(&self) -> Vec<(PathBuf, u64)> {
        let files = self.open_files();
        files.iter().filter_map(|file| Some((file.path.clone(), file.take_lost()?))).collect()
    }

    /// Writes out every buffer.
    pub fn flush(&self) {
        let sinks: Vec<_> = lock(&self.sinks).iter().filter_map(Weak::upgrade).collect();
        sinks.iter().for_each(|sink| sink.flush());
    }

    /// Opens every file again under its name, for log rotation; `owner` is whom the workers run as.
    ///
    /// A file that cannot be opened is written to as before, and named in the answer.
    pub fn reopen(&self, owner: Option<u32>) -> Vec<OpenError> {
        // What was said before belongs into the file that is rotated away.
        self.flush();
        let mut failures = Vec::new();
        for file in self.open_files() {
            match files::open_log(&file.path) {
                Ok(opened) => {
                    if let Some(owner) = owner
                        && let Err(source) = files::give_to(&opened, owner)
                    {
                        failures.push(OpenError { path: file.path.clone(), source });
                    }
                    file.file.store(Arc::new(opened));
                }
                Err(source) => failures.push(OpenError { path: file.path.clone(), source }),
            }
        }
        failures
    }

    fn open_files(&self) -> Vec<Arc<LogFile>> {
        lock(&self.files).values().filter_map(Weak::upgrade).collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn one_path_is_one_file_and_reopening_follows_the_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.log");
        let files = LogFiles::new().unwrap();
        let file = files.open(&path).unwrap();
        assert!(Arc::ptr_eq(&file, &files.open(&path).unwrap()));
        file.write(&[b"before\n"]);
        std::fs::rename(&path, directory.path().join("x.log.1")).unwrap();
        file.write(&[b"still the old one\n"]);
        assert!(files.reopen(None).is_empty());
        file.write(&[b"after\n"]);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "after\n");
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_named_in_nginx_words() {
        let error = LogFiles::new().unwrap().open(Path::new("/nonexistent/x.log")).unwrap_err();
        let expected =
            "open() \"/nonexistent/x.log\" failed (2: No such file or directory)".to_string();
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn a_reader_that_does_not_read_costs_lines_and_not_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pipe");
        files::make_fifo(&path).unwrap();
        let files = LogFiles::new().unwrap();
        let file = files.open(&path).unwrap();
        let line = [b'x'; 4096];
        while file.lost.load(Relaxed) < 3 {
            file.write(&[&line]);
        }
        assert!(files.losses().is_empty(), "told only when it recovers");
        let mut reader = File::open(&path).unwrap();
        reader.read_exact(&mut [0; 8192]).unwrap();
        file.write(&[b"again\n"]);
        assert_eq!(files.losses(), [(path, 3)]);
        assert!(files.losses().is_empty(), "and once");
    }
}
