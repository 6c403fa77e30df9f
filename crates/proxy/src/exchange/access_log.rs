//! Access lines: one at the end of every request and tunnel.

mod early;

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use wssgate_config::model::{
    AccessLog, AccessLogTarget, LocationSettings, LogEscape, LogFormat, LogLevel,
};
use wssgate_config::template::{Part, Template};

use crate::exchange::escape::{put_hex, put_json};
use crate::exchange::path::{self, as_path};
use crate::exchange::request::Request;
use crate::exchange::secrets;
use crate::exchange::variables;
use crate::exchange::websocket::{Event, Record};
use crate::log::AppendError;

pub(crate) use early::{EarlyLines, LineState};

/// Writes the lines that the location asks for. Only a file that has to be opened is waited for.
pub(crate) async fn write(request: &Request) {
    secrets::learn(request);
    let generation = Arc::clone(&request.generation);
    let http = generation.http();
    let logs = &http.locations[request.route.location.0].settings.access_logs;
    for (index, log) in logs.iter().enumerate() {
        if !is_wanted(request, log) {
            continue;
        }
        let line = line(request, &http.log_formats[log.format.0]);
        match &log.target {
            AccessLogTarget::Fixed(_) => {
                if let Some(sink) = generation.logs.access_sink(request.route.location, index) {
                    sink.write_line(&line);
                }
            }
            AccessLogTarget::Variable(path) => append(request, index, path, line).await,
        }
    }
}

/// Writes the lines that `websocket_log` asks for at the event that was told last.
pub(crate) fn write_record(request: &Request) {
    secrets::learn(request);
    let (http, location) = (request.http(), request.route.location);
    let settings = &http.locations[location.0].settings;
    let record = request.tunnel.told.as_ref().map(|(record, _)| &**record);
    for (index, asked) in settings.websocket_logs.iter().enumerate() {
        if request.tunnel.is_websocket
            && is_wanted_now(settings, index, record)
            && let Some(sink) = request.generation.logs.websocket_sink(location, index)
        {
            sink.write_line(&line(request, &http.log_formats[asked.format.0]));
        }
    }
}

/// How often the most eager `websocket_log` of a location wants a record.
pub(crate) fn shortest_interval(settings: &LocationSettings) -> Option<Duration> {
    settings.websocket_logs.iter().filter_map(|log| log.interval).min()
}

/// Whether a `websocket_log` wants a line of this moment.
fn is_wanted_now(settings: &LocationSettings, index: usize, record: Option<&Record>) -> bool {
    let logs = &settings.websocket_logs;
    let (Some(asked), Some(record)) = (logs.get(index), record) else { return false };
    match record.event {
        Event::Open => asked.open,
        Event::Close => true,
        Event::Progress => {
            let shortest = || shortest_interval(settings);
            asked.interval.is_some_and(|interval| is_due(record, interval, shortest()))
        }
    }
}

/// Whether a record is wanted that comes after each interval, when it is told of as often as the most eager log wants it.
fn is_due(record: &Record, interval: Duration, shortest: Option<Duration>) -> bool {
    let shortest = shortest.unwrap_or(interval);
    let lived = record.passed.duration;
    let number = |lived: Duration| lived.as_millis() / interval.as_millis().max(1);
    interval == shortest || number(lived) != number(lived.saturating_sub(shortest))
}

/// `if=`.
pub(crate) fn is_wanted(request: &Request, log: &AccessLog) -> bool {
    let Some(condition) = &log.condition else { return true };
    variables::is_true(&request.text(condition))
}

/// Writes a line to a path of this request.
async fn append(request: &Request, index: usize, path: &Template, line: Bytes) {
    let logs = &request.generation.logs;
    let Some(log) = logs.with_variables(request.route.location, index) else { return };
    let path = as_path(&request.text(path)).to_path_buf();
    if log.write_if_open(&path, &line) {
        return;
    }
    let (log, root) = (Arc::clone(log), as_path(&path::root(request)).to_path_buf());
    let work = move || log.open_and_write(&root, &path, &line);
    if let Ok(Err(error)) = tokio::task::spawn_blocking(work).await {
        let level = match error {
            AppendError::NoRoot { .. } => LogLevel::Error,
            AppendError::Open(_) => LogLevel::Crit,
        };
        request.log(level, format_args!("{error} while logging request"));
    }
}

/// The text of a line, without its end.
fn line(request: &Request, format: &LogFormat) -> Bytes {
    let mut line = Rendered::new(format.escape);
    format.line.parts().iter().for_each(|part| line.put(request, part));
    line.into_text()
}

/// A line in the making.
pub(crate) struct Rendered {
    line: BytesMut,
    escape: LogEscape,
}

impl Rendered {
    /// An empty line whose values are escaped like this.
    pub(crate) fn new(escape: LogEscape) -> Self {
        Self { line: BytesMut::new(), escape }
    }

    /// Adds a part of the format.
    pub(crate) fn put(&mut self, request: &Request, part: &Part) {
        match part {
            Part::Text(text) => self.line.put_slice(text),
            part => {
                let value = variables::part_value(request, part);
                let value = value.map(|value| secrets::shown(request, part, value));
                put_value(&mut self.line, self.escape, value);
            }
        }
    }

    /// How long it is by now, in bytes.
    pub(crate) fn len(&self) -> usize {
        self.line.len()
    }

    /// The text.
    pub(crate) fn into_text(self) -> Bytes {
        self.line.freeze()
    }
}

fn put_value(line: &mut BytesMut, escape: LogEscape, value: Option<Bytes>) {
    match (escape, value) {
        (LogEscape::Default, None) => line.put_u8(b'-'),
        (_, None) => {}
        (LogEscape::Default, Some(value)) => value.iter().for_each(|&byte| put_default(line, byte)),
        (LogEscape::Json, Some(value)) => put_json(line, &value),
        (LogEscape::None, Some(value)) => line.put_slice(&value),
    }
}

fn put_default(line: &mut BytesMut, byte: u8) {
    if matches!(byte, b'"' | b'\\' | 0..=0x1f | 0x7f..) {
        line.put_slice(b"\\x");
        put_hex(line, byte);
    } else {
        line.put_u8(byte);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_escaped_as_the_format_says() {
        let text = Bytes::from_static(b"a\"\\\n\x01\xff");
        for (escape, expected) in [
            (LogEscape::Default, &b"a\\x22\\x5C\\x0A\\x01\\xFF"[..]),
            (LogEscape::Json, b"a\\\"\\\\\\n\\u0001\xff"),
            (LogEscape::None, b"a\"\\\n\x01\xff"),
        ] {
            let mut line = BytesMut::new();
            put_value(&mut line, escape, Some(text.clone()));
            assert_eq!(line, expected, "{escape:?}");
        }
    }

    #[test]
    fn only_the_default_shows_that_a_value_is_missing() {
        for (escape, expected) in
            [(LogEscape::Default, &b"-"[..]), (LogEscape::Json, b""), (LogEscape::None, b"")]
        {
            let mut line = BytesMut::new();
            put_value(&mut line, escape, None);
            assert_eq!(line, expected, "{escape:?}");
        }
    }
}
