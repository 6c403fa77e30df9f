//! Where access lines go: at once, or through a buffer that many of them share.
//!
//! A buffer with `gzip` is compressed by the main thread, so that no connection waits for it: full
//! ones stand in a queue of a few until it has done so.

use std::collections::VecDeque;
use std::io::{self, Write as _};
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use flate2::Compression;
use flate2::write::GzEncoder;
use wssgate_config::model::Buffering;

use super::file::{LogFile, Notifier};
use super::stderr;
use super::syslog::SyslogSink;

/// How many full buffers wait to be compressed; what comes on top is lost.
const MAX_FULL: usize = 16;

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

/// Lines that wait until they fill the buffer or the first of them is old enough.
#[derive(Debug)]
struct Buffer {
    buffering: Buffering,
    lines: Mutex<Lines>,
    /// Held while buffers are compressed, so that they keep their order.
    compressing: Mutex<()>,
    notifier: Notifier,
}

#[derive(Debug, Default)]
struct Lines {
    bytes: Vec<u8>,
    first_at: Option<Instant>,
    /// Full buffers that are to be compressed, the first one first.
    full: VecDeque<Vec<u8>>,
}

impl AccessSink {
    pub(super) fn new(output: Output, buffering: Option<Buffering>, notifier: &Notifier) -> Self {
        let buffer = buffering.map(|buffering| Buffer {
            buffering,
            lines: Mutex::default(),
            compressing: Mutex::default(),
            notifier: notifier.clone(),
        });
        Self { output, buffer }
    }

    /// Writes a line, given without its end.
    pub fn write_line(&self, line: &[u8]) {
        let Some(buffer) = &self.buffer else {
            return self.output.write(&[line, b"\n"]);
        };
        let capacity = buffer.buffering.capacity;
        let mut lines = buffer.lock();
        // Also before a line that no buffer holds, so that lines stay in order.
        if lines.bytes.len() + line.len() + 1 > capacity {
            self.write_out(buffer, &mut lines);
        }
        let was_empty = lines.bytes.is_empty();
        lines.bytes.extend_from_slice(line);
        lines.bytes.push(b'\n');
        if line.len() + 1 > capacity {
            self.write_out(buffer, &mut lines);
        } else if was_empty {
            lines.first_at = Some(Instant::now());
            // The main thread may sleep without a limit until it knows that something has to be
            // flushed.
            if buffer.buffering.flush.is_some() {
                buffer.notifier.notify();
            }
        }
    }

    /// Empties the buffer: writes it, or has it compressed first.
    fn write_out(&self, buffer: &Buffer, lines: &mut Lines) {
        lines.first_at = None;
        if lines.bytes.is_empty() {
            return;
        }
        if buffer.buffering.gzip.is_none() {
            self.output.write(&[&lines.bytes]);
            lines.bytes.clear();
        } else if lines.full.len() < MAX_FULL {
            let full = mem::take(&mut lines.bytes);
            lines.full.push_back(full);
            buffer.notifier.notify();
        } else {
            lines.bytes.clear();
            self.output.lose("cannot be compressed as fast as lines arrive");
        }
    }

    /// Compresses and writes the buffers that are full.
    fn write_full(&self, buffer: &Buffer) {
        let Some(level) = buffer.buffering.gzip else { return };
        let _compressing = buffer.compressing.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let Some(full) = buffer.lock().full.pop_front() else { return };
            match gzip(&full, level) {
                Ok(compressed) => self.output.write(&[&compressed]),
                Err(_) => self.output.lose("cannot be compressed"),
            }
        }
    }

    /// Writes what the buffer holds.
    pub fn flush(&self) {
        if let Some(buffer) = &self.buffer {
            self.write_out(buffer, &mut buffer.lock());
            self.write_full(buffer);
        }
    }

    /// Writes what is full, and the buffer if its first line has waited long enough at `now`;
    /// otherwise says when it will have.
    pub(super) fn flush_due(&self, now: Instant) -> Option<Instant> {
        let buffer = self.buffer.as_ref()?;
        self.write_full(buffer);
        let first_at = buffer.lock().first_at?;
        let due = first_at + buffer.buffering.flush?;
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

impl Buffer {
    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One member of a gzip file (RFC 1952 §2.2); a file of several is read as one.
fn gzip(bytes: &[u8], level: u8) -> io::Result<Vec<u8>> {
    // Level 1 of zlib-rs makes about 30 % more of such text than that of zlib, its level 2 the same.
    let level = Compression::new(u32::from(level.max(2)));
    let mut encoder = GzEncoder::new(Vec::new(), level);
    encoder.write_all(bytes)?;
    encoder.finish()
}

impl Output {
    fn write(&self, parts: &[&[u8]]) {
        match self {
            Self::File(file) => file.write(parts),
            Self::Stderr => stderr::write(&parts.concat()),
            Self::Syslog(syslog) => syslog.send(syslog.severity(), parts.concat().trim_ascii_end()),
        }
    }

    fn lose(&self, why: &str) {
        if let Self::File(file) = self {
            file.lose(|| format!("log \"{}\" {why}", file.path().display()));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Read as _;
    use std::time::Duration;

    use wssgate_config::model::LogTarget;

    use super::*;
    use crate::log::LogFiles;

    fn read(path: &std::path::Path) -> String {
        std::fs::read_to_string(path).unwrap()
    }

    fn buffer(capacity: usize) -> Option<Buffering> {
        Some(Buffering { capacity, flush: None, gzip: None })
    }

    #[test]
    fn without_a_buffer_a_line_is_there_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.log");
        let files = Arc::new(LogFiles::new().unwrap());
        let sink = files.access_sink(&LogTarget::File(path.clone()), None).unwrap();
        sink.write_line(b"one");
        assert_eq!(read(&path), "one\n");
    }

    #[test]
    fn a_buffer_is_written_when_the_next_line_does_not_fit() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.log");
        let files = Arc::new(LogFiles::new().unwrap());
        let sink = files.access_sink(&LogTarget::File(path.clone()), buffer(8)).unwrap();
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
        let sink = files.access_sink(&LogTarget::File(path.clone()), buffer(80)).unwrap();
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
        let sink = files
            .access_sink(&target, Some(Buffering { flush: Some(flush), ..buffer(80).unwrap() }))
            .unwrap();
        sink.write_line(b"one");
        let now = Instant::now();
        let due = files.flush_due(now).unwrap();
        assert!(due > now && due <= now + flush);
        assert_eq!(read(&path), "");
        assert_eq!(files.flush_due(due), None);
        assert_eq!(read(&path), "one\n");
    }

    fn gunzip(path: &std::path::Path) -> String {
        let file = std::fs::File::open(path).unwrap();
        let mut text = String::new();
        flate2::read::MultiGzDecoder::new(file).read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn full_buffers_are_compressed_by_the_main_thread_in_their_order() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.gz");
        let files = Arc::new(LogFiles::new().unwrap());
        let buffering = Some(Buffering { gzip: Some(1), ..buffer(8).unwrap() });
        let sink = files.access_sink(&LogTarget::File(path.clone()), buffering).unwrap();
        let lines = ["one", "two", "three", "longer than the buffer", "four"];
        lines.iter().for_each(|line| sink.write_line(line.as_bytes()));
        assert_eq!(read(&path), "");
        files.flush_due(Instant::now());
        assert_eq!(gunzip(&path), "one\ntwo\nthree\nlonger than the buffer\n");
        files.flush();
        assert_eq!(gunzip(&path), lines.map(|line| format!("{line}\n")).concat());
    }

    #[test]
    fn what_nobody_compresses_is_bounded_and_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.gz");
        let files = Arc::new(LogFiles::new().unwrap());
        let buffering = Some(Buffering { gzip: Some(9), ..buffer(4).unwrap() });
        let sink = files.access_sink(&LogTarget::File(path.clone()), buffering).unwrap();
        (0..MAX_FULL + 3).for_each(|_| sink.write_line(b"line"));
        let told: Vec<_> = files.losses().into_iter().map(|(_, text)| text).collect();
        let text =
            format!("log \"{}\" cannot be compressed as fast as lines arrive", path.display());
        assert_eq!(told, [text]);
        sink.flush();
        assert_eq!(gunzip(&path), "line\n".repeat(MAX_FULL));
    }
}
