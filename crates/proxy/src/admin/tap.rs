//! Taps: the frames of some tunnels, told line by line while they pass (`docs/ctl.md`).
//!
//! Whoever taps holds its connection for as long as it likes, so each tap has a thread of its own, and there are few
//! ([`MAX_TAPS`]). What is told waits in a bounded queue: a relay waits for nobody.

use std::io::{self, Read, Write};
use std::num::NonZeroU32;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use wssgate_config::model::WebSocketTap;
use wssgate_relay::listing::{Handle, Label};
use wssgate_relay::tap::{Frame, MAX_TAPPED, Outlet, QUEUE, Sender, Shown, Tap, Tapped};
use wssgate_relay::{self as relay, RelayHandle, Side};
use wssgate_ws::CloseCode;
use wssgate_ws::Opcode;

use super::View;
use super::places::{Place, Places};
use super::query::{Query, QueryError};
use super::rows::Filter;
use super::walk::{self, Silent, walk};
use crate::clock;
use crate::tunnel::about::About;

/// How many taps there may be at a time.
pub(crate) const MAX_TAPS: usize = 4;

/// How many tunnels one may look at.
pub(super) const MAX_TUNNELS: usize = 1000;

/// How long whoever taps may take nothing of what it is told, as when it is paused.
const STALL: Duration = Duration::from_secs(300);

/// How often it is looked whether it is still there when there is nothing to tell.
const LOOK: Duration = Duration::from_millis(500);

/// How much is written at once.
const BATCH: usize = 32 * 1024;

/// The taps there are.
pub(crate) type Taps = Places<MAX_TAPS>;

/// What is wanted.
#[derive(Debug)]
pub(super) struct Wanted {
    filter: Filter,
    sample: NonZeroU32,
    /// After how many frames it ends.
    max: u64,
    payload: bool,
}

/// Why there is no tap.
#[derive(Debug, thiserror::Error)]
pub(super) enum TapRefusal {
    #[error("there are {MAX_TAPS} taps already")]
    TooMany,
    #[error(
        "{0} WebSockets fit, and a tap looks at {MAX_TUNNELS} at most: a filter makes them fewer"
    )]
    TooManyTunnels(usize),
    #[error("no live WebSocket fits")]
    NoTunnel,
    #[error("no frames are known there: it is no WebSocket, or `websocket_check off` holds")]
    NoFrames,
    #[error("`websocket_tap off` holds there")]
    Off,
    #[error("payloads are shown only where `websocket_tap payload` says so")]
    NoPayload,
    #[error(transparent)]
    Silent(#[from] Silent),
}

impl TapRefusal {
    pub(super) fn status(&self) -> u16 {
        match self {
            Self::TooManyTunnels(_) => 400,
            Self::Off | Self::NoPayload => 403,
            Self::NoTunnel => 404,
            Self::NoFrames => 409,
            Self::TooMany | Self::Silent(_) => 503,
        }
    }
}

impl Wanted {
    pub(super) fn parse(query: &mut Query) -> Result<Self, QueryError> {
        let filter = Filter::parse(query)?;
        let sample = |text: &str| text.strip_prefix("1/").unwrap_or(text).parse().ok();
        let max = |text: &str| text.parse().ok().filter(|&max| max > 0);
        Ok(Self {
            filter,
            sample: query.read("sample", "1/N is expected", sample)?.unwrap_or(NonZeroU32::MIN),
            max: query.read("max", "a number from 1 on is expected", max)?.unwrap_or(u64::MAX),
            payload: query.flag("payload")?,
        })
    }
}

/// A tap that has begun and is to be told of.
#[derive(Debug)]
pub(super) struct Started {
    _place: Place,
    wanted: Wanted,
    outlet: Outlet,
    number: u64,
    relays: Vec<RelayHandle>,
    /// Those that it looks at, by worker.
    handles: Vec<Vec<Handle>>,
    /// What is told first.
    first: Value,
    count: usize,
}

impl Started {
    /// How many tunnels it looks at.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Whether it shows payloads.
    pub(super) fn shows_payload(&self) -> bool {
        self.wanted.payload
    }
}

/// Begins to look at the tunnels that fit now. Those that begin later are not among them.
pub(super) fn start(wanted: Wanted, view: &View) -> Result<Started, TapRefusal> {
    let place = view.taps.take().ok_or(TapRefusal::TooMany)?;
    let relays = view.relays.all();
    let mut chosen = vec![Vec::<(Handle, usize)>::new(); relays.len()];
    let (mut fit, mut off, mut others, mut without_payload) = (0, 0, 0, 0);
    walk(&relays, |row| {
        if !wanted.filter.fits(&row) {
            return;
        }
        fit += 1;
        let max = match &row.about.place.tap {
            _ if !row.live.is_websocket => return others += 1,
            WebSocketTap::Off => return off += 1,
            WebSocketTap::Payload { max, .. } if wanted.payload => *max,
            _ => 0,
        };
        without_payload += usize::from(max == 0);
        // Bounded, however many there are.
        if chosen[row.worker].len() <= MAX_TUNNELS {
            chosen[row.worker].push((row.live.handle, max));
        }
    })?;
    let count = fit - off - others;
    match (fit, count) {
        (0, _) => return Err(TapRefusal::NoTunnel),
        (_, 0) if off > 0 => return Err(TapRefusal::Off),
        (_, 0) => return Err(TapRefusal::NoFrames),
        (_, count) if count > MAX_TUNNELS => return Err(TapRefusal::TooManyTunnels(count)),
        (_, count) if wanted.payload && without_payload == count => {
            return Err(TapRefusal::NoPayload);
        }
        _ => {}
    }
    let (tap, outlet) = Tap::new(wanted.sample);
    let number = tap.number();
    let mut handles = vec![Vec::new(); relays.len()];
    let mut count = 0;
    for (worker, tunnels) in chosen.into_iter().enumerate() {
        handles[worker] = tunnels.iter().map(|(handle, _)| handle.clone()).collect();
        for some in tunnels.chunks(MAX_TAPPED) {
            let Ok(answer) = relays[worker].tap(some.to_vec(), Arc::clone(&tap)) else { break };
            count += walk::received(&answer, worker)?.unwrap_or(0);
        }
    }
    let first = json!({
        "tunnels": count,
        "off": off,
        "without_frames": others,
        "without_payload": if wanted.payload { without_payload } else { 0 },
    });
    Ok(Started { _place: place, wanted, outlet, number, relays, handles, first, count })
}

impl Drop for Started {
    fn drop(&mut self) {
        for (worker, handles) in self.handles.iter().enumerate() {
            for some in handles.chunks(MAX_TAPPED) {
                // A relay that has stopped looks at nothing.
                let _ = self.relays[worker].untap(some.to_vec(), self.number);
            }
        }
    }
}

/// Why a tap ends, for whoever taps and for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// All its tunnels have ended.
    Ended,
    /// It has told of as many frames as were wanted.
    Max,
    /// Whoever tapped is gone.
    Gone,
    /// Whoever taps takes nothing any more.
    Stalled,
}

/// Tells what it finds on a thread of its own, behind the head of the answer; at the end `note` hears why and how many
/// frames were told and missed.
pub(super) fn run(
    started: Started,
    stream: UnixStream,
    note: impl FnOnce(&str) + Send + 'static,
) -> io::Result<()> {
    // What its creator may not do, it may not either.
    let thread = thread::Builder::new().name("tap".to_owned());
    thread.spawn(move || {
        let mut told = Told::default();
        let end = tell(&started, &stream, &mut told).unwrap_or_else(|error| match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => End::Stalled,
            _ => End::Gone,
        });
        if matches!(end, End::Gone | End::Stalled) {
            told.miss_the_rest(&started.outlet);
        }
        let Told { shown, missed, .. } = told;
        let why = match end {
            End::Ended => "all its tunnels have ended",
            End::Max => "as many as were wanted",
            End::Gone => "the reader has gone",
            End::Stalled => "the reader takes nothing any more",
        };
        drop(started);
        note(&format!("{shown} frames shown, {missed} not shown: {why}"));
    })?;
    Ok(())
}

/// What was told, and what waits to be written.
#[derive(Debug, Default)]
struct Told {
    shown: u64,
    missed: u64,
    lines: String,
}

impl Told {
    fn line(&mut self, line: &Value) {
        self.lines += &line.to_string();
        self.lines.push('\n');
    }

    /// Tells of a gap here, if there is one.
    fn miss(&mut self, missed: u64) {
        if missed > 0 {
            self.missed += missed;
            self.line(&json!({"missed": missed}));
        }
    }

    /// Counts what waits, and what found no room: nobody will see it.
    fn miss_the_rest(&mut self, outlet: &Outlet) {
        for entry in outlet.frames.try_iter().take(QUEUE) {
            self.missed += entry.missed + u64::from(matches!(entry.tapped, Tapped::Frame(_)));
        }
        self.missed += outlet.take_missed();
    }

    fn add(&mut self, tapped: &Tapped) {
        match tapped {
            Tapped::Frame(frame) => {
                self.line(&shown(frame));
                self.shown += 1;
            }
            Tapped::Broken { label, from, error, at_ms } => {
                let (id, error) = (id(label), error.to_string());
                let line =
                    json!({"time": time(*at_ms), "id": id, "from": side(*from), "broken": error});
                self.line(&line);
            }
            Tapped::Ended { label, at_ms } => {
                self.line(&json!({"time": time(*at_ms), "id": id(label), "ended": true}));
            }
        }
    }

    /// Writes the lines as one chunk (RFC 9112 §7.1).
    fn flush(&mut self, mut stream: &UnixStream) -> io::Result<()> {
        if self.lines.is_empty() {
            return Ok(());
        }
        let chunk = format!("{:x}\r\n{}\r\n", self.lines.len(), self.lines);
        self.lines.clear();
        stream.write_all(chunk.as_bytes())
    }
}

fn tell(started: &Started, mut stream: &UnixStream, told: &mut Told) -> io::Result<End> {
    stream.set_write_timeout(Some(STALL))?;
    stream.set_read_timeout(Some(Duration::from_millis(1)))?;
    stream.write_all(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/jsonl\r\nCache-Control: no-store\r\n\
          Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n",
    )?;
    told.line(&started.first);
    told.flush(stream)?;
    let mut looked = Instant::now();
    let end = loop {
        let mut next = started.outlet.frames.recv_timeout(LOOK);
        // Written together is what comes together.
        let end = loop {
            match next {
                Ok(entry) => {
                    told.miss(entry.missed);
                    told.add(&entry.tapped);
                }
                Err(error) => {
                    // All that found room is told, so what did not came behind it.
                    told.miss(started.outlet.take_missed());
                    let is_over = error == RecvTimeoutError::Disconnected;
                    break is_over.then_some(End::Ended);
                }
            }
            if told.shown >= started.wanted.max {
                break Some(End::Max);
            }
            if told.lines.len() >= BATCH {
                break None;
            }
            next = started.outlet.frames.recv_timeout(Duration::ZERO);
        };
        if let Some(end) = end {
            break end;
        }
        told.flush(stream)?;
        if looked.elapsed() >= LOOK {
            looked = Instant::now();
            if is_gone(stream) {
                return Ok(End::Gone);
            }
        }
    };
    let end_word = if end == End::Max { "max" } else { "ended" };
    told.line(&json!({"end": end_word, "shown": told.shown, "missed": told.missed}));
    told.flush(stream)?;
    stream.write_all(b"0\r\n\r\n")?;
    Ok(end)
}

/// Whether the other end has gone. It has nothing more to say, so anything else is not looked at.
fn is_gone(mut stream: &UnixStream) -> bool {
    match stream.read(&mut [0; 64]) {
        Ok(len) => len == 0,
        Err(error) => {
            !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
        }
    }
}

fn about(label: &Label) -> Option<Arc<About>> {
    label.about::<About>()
}

fn id(label: &Label) -> Option<String> {
    about(label).map(|about| about.id.to_string())
}

fn side(side: Side) -> &'static str {
    match side {
        Side::Client => "client",
        Side::Upstream => "upstream",
    }
}

/// A moment of the relays' clock in seconds since 1970.
fn time(at_ms: u64) -> f64 {
    let ago_ms = relay::clock_ms().saturating_sub(at_ms);
    clock::millis(clock::since_epoch(clock::now())).saturating_sub(ago_ms) as f64 / 1000.0
}

fn opcode(opcode: Opcode) -> &'static str {
    match opcode {
        Opcode::Continuation => "continuation",
        Opcode::Text => "text",
        Opcode::Binary => "binary",
        Opcode::Close => "close",
        Opcode::Ping => "ping",
        Opcode::Pong => "pong",
    }
}

/// A frame as a line has it.
fn shown(frame: &Frame) -> Value {
    let Frame { label, sender, at_ms, header, payload, shown } = frame;
    let about = about(label);
    let (from, to) = match *sender {
        Sender::Side(from) => (side(from), side(from.other())),
        Sender::Us(to) => ("wssgate", side(to)),
    };
    let mut line = Map::new();
    let mut put = |name: &str, value: Value| drop(line.insert(name.to_owned(), value));
    put("time", time(*at_ms).into());
    put("id", about.as_ref().map(|about| about.id.to_string()).into());
    put("from", from.into());
    put("to", to.into());
    put("opcode", opcode(header.opcode).into());
    put("fin", header.fin.into());
    put("rsv", header.rsv.into());
    put("length", header.payload_len.into());
    put("masked", header.mask.is_some().into());
    if header.opcode == Opcode::Close {
        let code = payload
            .first_chunk()
            .map_or(CloseCode::NO_STATUS, |code| CloseCode(u16::from_be_bytes(*code)));
        put("code", code.0.into());
        put("reason", String::from_utf8_lossy(payload.get(2..).unwrap_or_default()).into());
        return line.into();
    }
    match shown {
        Shown::Nothing => {}
        Shown::Extended => put("not_shown", "compressed".into()),
        Shown::Unknown => put("not_shown", "the message began before the tap".into()),
        Shown::Payload => {
            let redact = match about.as_ref().map(|about| &about.place.tap) {
                Some(WebSocketTap::Payload { redact, .. }) => &redact[..],
                // Nothing may be shown of others.
                _ => return line.into(),
            };
            let is_whole = payload.len() as u64 == header.payload_len;
            let is_message = header.opcode == Opcode::Text && header.fin;
            match redacted(payload, redact, is_whole && is_message) {
                Ok(Content::Text(text)) => put("payload", text.into()),
                Ok(Content::Hex(hex)) => put("payload_hex", hex.into()),
                Err(NotRedactable) => put("not_shown", "it cannot be redacted".into()),
            }
            if !is_whole {
                put("cut", true.into());
            }
        }
    }
    line.into()
}

/// A payload as it is shown.
#[derive(Debug, PartialEq, Eq)]
enum Content {
    Text(String),
    Hex(String),
}

/// Something is to be hidden in it, and nobody knows where that is.
#[derive(Debug, PartialEq, Eq)]
struct NotRedactable;

/// A payload without the values of these members. Where they cannot be found, nothing of it.
fn redacted(
    payload: &[u8],
    redact: &[Box<str>],
    is_message: bool,
) -> Result<Content, NotRedactable> {
    if redact.is_empty() {
        // What is cut may end within a character.
        let text = match std::str::from_utf8(payload) {
            Ok(text) => Some(text),
            Err(error) if error.error_len().is_none() => {
                std::str::from_utf8(&payload[..error.valid_up_to()]).ok()
            }
            Err(_) => None,
        };
        return Ok(match text {
            Some(text) => Content::Text(text.to_owned()),
            None => Content::Hex(payload.iter().map(|byte| format!("{byte:02x}")).collect()),
        });
    }
    if !is_message {
        return Err(NotRedactable);
    }
    let mut value: Value = serde_json::from_slice(payload).map_err(|_| NotRedactable)?;
    // Values without a name are known by nothing: `["login","ann","secret"]`.
    let has_names = match &value {
        Value::Object(_) => true,
        Value::Array(values) => values.iter().all(Value::is_object),
        _ => false,
    };
    if !has_names {
        return Err(NotRedactable);
    }
    hide(&mut value, redact);
    Ok(Content::Text(value.to_string()))
}

fn hide(value: &mut Value, redact: &[Box<str>]) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                match redact.contains(&name.to_lowercase().into()) {
                    true => *value = "***".into(),
                    false => hide(value, redact),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| hide(value, redact)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_hidden_is_hidden_or_nothing_is_shown() {
        let redact = ["password".into(), "token".into()];
        let text = |text: &str| Ok(Content::Text(text.to_owned()));
        for (payload, is_message, expected) in [
            (r#"{"user":"ann","password":"x"}"#, true, text(r#"{"password":"***","user":"ann"}"#)),
            (r#"[{"a":{"Token":{"b":1}}}]"#, true, text(r#"[{"a":{"Token":"***"}}]"#)),
            (r#"{"passwords":"x"}"#, true, text(r#"{"passwords":"x"}"#)),
            (r#"{"\u0070assword":"x"}"#, true, text(r#"{"password":"***"}"#)),
            (r#"{"password":"x"#, true, Err(NotRedactable)),
            (r#"{"password":"x"}"#, false, Err(NotRedactable)),
            ("password=x", true, Err(NotRedactable)),
            ("\"secret\"", true, Err(NotRedactable)),
            (r#"["login","ann","secret"]"#, true, Err(NotRedactable)),
            (r#"[{"password":"x"},"secret"]"#, true, Err(NotRedactable)),
            ("42", true, Err(NotRedactable)),
        ] {
            assert_eq!(redacted(payload.as_bytes(), &redact, is_message), expected, "{payload}");
        }
    }

    #[test]
    fn text_is_shown_as_text_and_all_else_as_digits() {
        let content = |payload: &[u8]| redacted(payload, &[], false);
        assert_eq!(content("né".as_bytes()), Ok(Content::Text("né".to_owned())));
        assert_eq!(content(b"n\xc3"), Ok(Content::Text("n".to_owned())), "cut within a letter");
        assert_eq!(content(b"\xff\x00"), Ok(Content::Hex("ff00".to_owned())));
    }
}
