//! Log files: opened once for all generations, reopened together, never waited for.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, IoSlice, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use arc_swap::ArcSwap;
use thiserror::Error;
use wssgate_config::model::{Buffering, LogFileCache, LogLevel, LogTarget};
use wssgate_sys::eventfd::EventFd;
use wssgate_sys::files;

use super::access::{AccessSink, Output};
use super::kept_open::KeptOpen;
use super::losses::Losses;
use super::syslog::SyslogSink;
use crate::errno_text;

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

/// One file, under a name that may come to mean another one.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    file: ArcSwap<File>,
    losses: Arc<Losses>,
}

impl LogFile {
    /// Writes `parts` as one piece, or loses them.
    pub(super) fn write(&self, parts: &[&[u8]]) {
        self.losses.note(append(&self.file.load(), &self.path, parts));
    }

    /// Counts what was lost before it could be written.
    pub(super) fn lose(&self, message: impl Fn() -> String) {
        self.losses.on_failure(Instant::now(), LogLevel::Alert, message);
    }

    /// Its name.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// Why a line is not in its file, or only a part of it; in nginx's words.
#[derive(Debug, Error)]
pub(super) enum WriteError {
    /// The system refused it.
    #[error("write() to \"{}\" failed ({})", path.display(), errno_text(source))]
    Failed {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system took a part. The rest is lost too: written now, it would stand behind a line of
    /// another worker.
    #[error("write() to \"{}\" was incomplete: {written} of {len}", path.display())]
    Incomplete {
        /// The file.
        path: PathBuf,
        /// How many bytes it took.
        written: usize,
        /// Of how many.
        len: usize,
    },
}

/// Writes `parts` as one piece to a file that [`files::open_log`] has opened.
pub(super) fn append(file: &File, path: &Path, parts: &[&[u8]]) -> Result<(), WriteError> {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    let slices: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
    let path = || path.to_path_buf();
    loop {
        match (&*file).write_vectored(&slices) {
            Ok(written) if written == len => return Ok(()),
            Ok(written) => return Err(WriteError::Incomplete { path: path(), written, len }),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => return Err(WriteError::Failed { path: path(), source }),
        }
    }
}

/// Every open log file by path. Lives as long as the process; generations come and go.
#[derive(Debug)]
pub struct LogFiles {
    files: Mutex<HashMap<PathBuf, Weak<LogFile>>>,
    sinks: Mutex<Vec<Weak<AccessSink>>>,
    kept_open: Mutex<Vec<Weak<KeptOpen>>>,
    losses: Mutex<Vec<Weak<Losses>>>,
    notifier: Notifier,
}

impl LogFiles {
    /// No files yet.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            files: Mutex::default(),
            sinks: Mutex::default(),
            kept_open: Mutex::default(),
            losses: Mutex::default(),
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
        let file = open(path)?;
        let file = Arc::new(LogFile {
            path: path.to_path_buf(),
            file: ArcSwap::from_pointee(file),
            losses: self.losses_of(format!("writes to log \"{}\"", path.display())),
        });
        // Configurations come and go; the names of their logs must not pile up.
        files.retain(|_, file| file.strong_count() > 0);
        files.insert(path.to_path_buf(), Arc::downgrade(&file));
        Ok(file)
    }

    /// The sink for access lines to `target`; without `buffering` it writes each line at once.
    pub fn access_sink(
        &self,
        target: &LogTarget,
        buffering: Option<Buffering>,
    ) -> Result<Arc<AccessSink>, OpenError> {
        let output = match target {
            LogTarget::File(path) => Output::File(self.open(path)?),
            LogTarget::Stderr => Output::Stderr,
            LogTarget::Syslog(syslog) => Output::Syslog(SyslogSink::new(syslog, self)),
        };
        let sink = Arc::new(AccessSink::new(output, buffering, &self.notifier));
        remember(&self.sinks, &sink);
        Ok(sink)
    }

    /// What counts the losses of a target; they are told as losses of `what`.
    pub(super) fn losses_of(&self, what: String) -> Arc<Losses> {
        let losses = Arc::new(Losses::new(what, &self.notifier));
        remember(&self.losses, &losses);
        losses
    }

    /// Keeps the files of access logs with variables in their path open.
    pub(super) fn keep_open(&self, limits: &Arc<LogFileCache>) -> Arc<KeptOpen> {
        let kept_open = Arc::new(KeptOpen::new(limits));
        remember(&self.kept_open, &kept_open);
        kept_open
    }

    /// Flushes buffers whose time has come and says when the next one's will.
    pub fn flush_due(&self, now: Instant) -> Option<Instant> {
        living(&self.sinks).iter().filter_map(|sink| sink.flush_due(now)).min()
    }

    /// What has to be told of lines that were lost.
    pub fn losses(&self) -> Vec<(LogLevel, String)> {
        living(&self.losses).iter().flat_map(|losses| losses.take()).collect()
    }

    /// Writes out every buffer.
    pub fn flush(&self) {
        living(&self.sinks).iter().for_each(|sink| sink.flush());
    }

    /// Opens every file again under its name, for log rotation; `owner` is whom the workers run as.
    ///
    /// A file that cannot be opened is written to as before, and named in the answer.
    pub fn reopen(&self, owner: Option<u32>) -> Vec<OpenError> {
        // What was said before belongs into the file that is rotated away.
        self.flush();
        living(&self.kept_open).iter().for_each(|kept_open| kept_open.clear());
        let mut failures = Vec::new();
        for file in self.open_files() {
            match open(&file.path) {
                Ok(opened) => {
                    if let Some(owner) = owner
                        && let Err(source) = files::give_to(&opened, owner)
                    {
                        failures.push(OpenError { path: file.path.clone(), source });
                    }
                    file.file.store(Arc::new(opened));
                }
                Err(failure) => failures.push(failure),
            }
        }
        failures
    }

    fn open_files(&self) -> Vec<Arc<LogFile>> {
        lock(&self.files).values().filter_map(Weak::upgrade).collect()
    }
}

/// Opens a log to append to.
pub(super) fn open(path: &Path) -> Result<File, OpenError> {
    files::open_log(path).map_err(|source| OpenError { path: path.to_path_buf(), source })
}

/// Adds to a list of what lives elsewhere.
fn remember<T>(list: &Mutex<Vec<Weak<T>>>, new: &Arc<T>) {
    let mut list = lock(list);
    list.retain(|other| other.strong_count() > 0);
    list.push(Arc::downgrade(new));
}

fn living<T>(list: &Mutex<Vec<Weak<T>>>) -> Vec<Arc<T>> {
    lock(list).iter().filter_map(Weak::upgrade).collect()
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
        let mut told = Vec::new();
        while told.is_empty() {
            file.write(&[&line]);
            told = files.losses();
        }
        let path = path.display();
        let failure =
            format!("write() to \"{path}\" failed (11: Resource temporarily unavailable)");
        assert_eq!(told, [(LogLevel::Alert, failure)]);
        file.write(&[&line]);
        assert!(files.losses().is_empty(), "told once");
        let mut reader = File::open(file.path()).unwrap();
        reader.read_exact(&mut [0; 8192]).unwrap();
        file.write(&[b"again\n"]);
        let gap = format!("2 writes to log \"{path}\" were lost");
        assert_eq!(files.losses(), [(LogLevel::Error, gap)]);
        assert!(files.losses().is_empty(), "and once");
    }

    #[test]
    fn a_full_disk_is_told_in_nginx_words() {
        let files = LogFiles::new().unwrap();
        let file = files.open(Path::new("/dev/full")).unwrap();
        file.write(&[b"line\n"]);
        let failure = "write() to \"/dev/full\" failed (28: No space left on device)".to_owned();
        assert_eq!(files.losses(), [(LogLevel::Alert, failure)]);
    }
}
