//! Where access lines go: at once, or through a buffer that many of them share.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::file::{LogFile, Notifier};
use super::syslog::SyslogSink;

/// One target of access lines.
#[derive(Debug)]
pub struct AccessSink {
    output: Output,
    buffer: Option<Buffer>,
}

#[derive(Debug)]
pub(super) enum Output {
    File(Arc<LogFile>),
    Stderr,
    Syslog(SyslogSink),
}

/// `buffer=SIZE flush=TIME`: lines wait until they fill `capacity` or the first of them is `flush`
/// old.
#[derive(Debug)]
struct Buffer {
    capacity: usize,
    flush: Option<Duration>,
    lines: Mutex<Lines>,
    notifier: Notifier,
}

#[derive(Debug, Default)]
struct Lines {
    bytes: Vec<u8>,
    first_at: Option<Instant>,
}

impl AccessSink {
    pub(super) fn new(
        output: Output,
        capacity: usize,
        flush: Option<Duration>,
        notifier: &Notifier,
    ) -> Self {
        // Datagrams hold one line each.
        let buffered = capacity > 0 && !matches!(output, Output::Syslog(_));
        let buffer = buffered.then(|| Buffer {
            capacity,
            flush,
            lines: Mutex::default(),
            notifier: notifier.clone(),
        });
        Self { output, buffer }
    }

    /// Writes a line, given without its end.
    pub fn write_line(&self, line: &[u8]) {
        let Some(buffer) = &self.buffer else {
            return self.output.write(&[line, b"\n"]);
        };
        let mut lines = buffer.lines.lock().unwrap_or_else(PoisonError::into_inner);
        // Also before a line that no buffer holds, so that lines stay in order.
        if lines.bytes.len() + line.len() + 1 > buffer.capacity {
            self.output.write(&[&lines.bytes]);
            lines.bytes.clear();
            lines.first_at = None;
        }
        if line.len() + 1 > buffer.capacity {
            return self.output.write(&[line, b"\n"]);
        }
        lines.bytes.extend_from_slice(line);
        lines.bytes.push(b'\n');
        if lines.first_at.is_none() {
            lines.first_at = Some(Instant::now());
            // The main thread may sleep without a limit until it knows that something has to be
            // flushed.
            if buffer.flush.is_some() {
                buffer.notifier.notify();
            }
        }
    }

    /// Writes what the buffer holds.
    pub fn flush(&self) {
        let Some(buffer) = &self.buffer else { return };
        let mut lines = buffer.lines.lock().unwrap_or_else(PoisonError::into_inner);
        self.output.write(&[&lines.bytes]);
        lines.bytes.clear();
        lines.first_at = None;
    }

    /// Writes the buffer if its first line has waited long enough at `now`; otherwise says when it
    /// will have.
    pub(super) fn flush_due(&self, now: Instant) -> Option<Instant> {
        let buffer = self.buffer.as_ref()?;
        let first_at = buffer.lines.lock().unwrap_or_else(PoisonError::into_inner).first_at?;
        let due = first_at + buffer.flush?;
        if due > now {
            return Some(due);
        }
        self.flush();
        None
    }
}

impl Drop for AccessSink {
    fn drop(&mut self) {
        self.flush();
    }
}

impl Output {
    fn write(&self, parts: &[&[u8]]) {
        if parts.iter().all(|part| part.is_empty()) {
            return;
        }
        match self {
            Self::File(file) => file.write(parts),
            Self::Stderr => {
                // There is nowhere left to say that this failed.
                let _ = io::Write::write_all(&mut io::stderr(), &parts.concat());
            }
            Self::Syslog(syslog) => syslog.send(syslog.severity(), parts.concat().trim_ascii_end()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use wssgate_config::model::LogTarget;

    use super::*;
    use crate::log::LogFiles;

    fn read(path: &std::path::Path) -> String {
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn without_a_buffer_a_line_is_there_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.log");
        let files = Arc::new(LogFiles::new().unwrap());
        let sink = files.access_sink(&LogTarget::File(path.clone()), 0, None).unwrap();
        sink.write_line(b"one");
        assert_eq!(read(&path), "one\n");
    }

    #[test]
    fn a_buffer_is_written_when_the_next_line_does_not_fit() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.log");
        let files = Arc::new(LogFiles::new().unwrap());
        let sink = files.access_sink(&LogTarget::File(path.clone()), 8, None).unwrap();
        sink.write_line(b"one");
        sink.write_line(b"two");
        assert_eq!(read(&path), "");
        sink.write_line(b"three");
        assert_eq!(read(&path), "one\ntwo\n");
        sink.write_line(b"longer than the buffer");
        assert_eq!(read(&path), "one\ntwo\nthree\nlonger than the buffer\n");
    }

    #[test]
    fn the_last_lines_are_written_when_the_sink_goes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.log");
        let files = Arc::new(LogFiles::new().unwrap());
        let sink = files.access_sink(&LogTarget::File(path.clone()), 80, None).unwrap();
        sink.write_line(b"last");
        drop(sink);
        assert_eq!(read(&path), "last\n");
    }

    #[test]
    fn the_main_thread_flushes_when_the_first_line_is_old_enough() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.log");
        let files = Arc::new(LogFiles::new().unwrap());
        let target = LogTarget::File(path.clone());
        let flush = Duration::from_secs(5);
        let sink = files.access_sink(&target, 80, Some(flush)).unwrap();
        sink.write_line(b"one");
        let now = Instant::now();
        let due = files.flush_due(now).unwrap();
        assert!(due > now && due <= now + flush);
        assert_eq!(read(&path), "");
        assert_eq!(files.flush_due(due), None);
        assert_eq!(read(&path), "one\n");
    }
}
