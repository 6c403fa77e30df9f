//! `wssgate ctl tap`: the frames of some tunnels, line by line while they pass.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::num::NonZeroU32;
use std::os::unix::net::UnixStream;

use bytes::BytesMut;
use clap::Args;
use serde_json::Value;
use wssgate_http1::{BodyDecoder, Decoded, Method, ResponseParser};
use wssgate_syntax::printable;

use super::client::{self, CtlError};
use super::show::text;
use super::{Client, FilterArgs};

/// The command line of `wssgate ctl tap`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub(super) struct TapArgs {
    /// Id of one, as `list` has it
    id: Option<String>,
    #[command(flatten)]
    filter: FilterArgs,
    /// End after so many frames
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    max: Option<u64>,
    /// Show one in N frames, chosen at random, and every Close
    #[arg(long, value_name = "1/N", value_parser = sample)]
    sample: Option<NonZeroU32>,
    /// Show payloads where `websocket_tap payload` allows it
    #[arg(long)]
    payload: bool,
}

fn sample(text: &str) -> Result<NonZeroU32, String> {
    let number = text.strip_prefix("1/").and_then(|number| number.parse().ok());
    number.ok_or_else(|| "1/N is expected, such as 1/10".to_owned())
}

/// Shows frames until nothing more comes, or nobody reads. False if the server went away in between.
pub(super) fn run(client: &Client, args: &TapArgs, json: bool) -> Result<bool, CtlError> {
    let mut query = args.filter.query();
    match (&args.id, query.is_empty()) {
        (None, true) => return Err(CtlError::Usage("name an id or a filter")),
        (Some(_), false) => {
            return Err(CtlError::Usage("an id and filters cannot be used together"));
        }
        (id, _) => query.extend(id.clone().map(|id| ("id", id))),
    }
    query.extend(args.max.map(|max| ("max", max.to_string())));
    query.extend(args.sample.map(|sample| ("sample", format!("1/{sample}"))));
    if args.payload {
        query.push(("payload", "true".to_owned()));
    }
    let stream = client.open("GET", "tap", &query)?;
    let mut lines = Lines::new(&stream);
    let mut is_told = false;
    loop {
        match lines.next() {
            Ok(Some(line)) => {
                let value = serde_json::from_slice::<Value>(&line);
                let value = value.map_err(|_| client.unexpected())?;
                if let Some(error) = value["error"].as_str() {
                    let status = lines.status;
                    return Err(CtlError::Refused { status, message: error.to_owned() });
                }
                is_told |= value.get("end").is_some();
                let shown =
                    if json { String::from_utf8_lossy(&line).into_owned() } else { shown(&value) };
                if !print(&shown)? {
                    return Ok(true);
                }
            }
            Ok(None) if is_told => return Ok(true),
            // The server has ended without a word.
            Ok(None) => return Ok(false),
            Err(source) => return Err(client.failed(source)),
        }
    }
}

/// Writes a line at once; false if nobody reads any more.
fn print(line: &str) -> Result<bool, CtlError> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(CtlError::Output(error)),
    }
}

/// The lines of an answer, as they come.
struct Lines<'a> {
    stream: &'a UnixStream,
    parser: ResponseParser,
    body: Option<BodyDecoder>,
    status: u16,
    input: BytesMut,
    /// Of the body, and not told yet.
    text: Vec<u8>,
}

impl<'a> Lines<'a> {
    fn new(stream: &'a UnixStream) -> Self {
        let (parser, input) = (ResponseParser::new(), BytesMut::new());
        Self { stream, parser, body: None, status: 0, input, text: Vec::new() }
    }

    /// The next one without its end, or none.
    fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(end) = self.text.iter().position(|&byte| byte == b'\n') {
                let mut line: Vec<_> = self.text.drain(..=end).collect();
                line.pop();
                return Ok(Some(line));
            }
            if self.text.len() > client::MAX_LINE {
                return Err(io::ErrorKind::InvalidData.into());
            }
            if self.is_over()? {
                return Ok(None);
            }
        }
    }

    /// Reads on; says whether nothing more comes.
    fn is_over(&mut self) -> io::Result<bool> {
        let invalid = || io::Error::from(io::ErrorKind::InvalidData);
        if self.body.is_none() {
            let head =
                self.parser.parse(&mut self.input, client::MAX_HEAD).map_err(|_| invalid())?;
            if let Some(head) = head {
                self.status = head.status();
                self.body = Some(head.framing(Method::Get).map_err(|_| invalid())?.into());
            }
        }
        if let Some(body) = &mut self.body {
            match body.decode(&mut self.input).map_err(|_| invalid())? {
                Decoded::Data(data) => {
                    self.text.extend_from_slice(&data);
                    return Ok(false);
                }
                Decoded::End { .. } => return Ok(true),
                _ => {}
            }
        }
        let mut part = [0; 16 * 1024];
        match self.stream.read(&mut part) {
            Ok(0) => return Ok(true),
            Ok(len) => self.input.extend_from_slice(&part[..len]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        Ok(false)
    }
}

/// A line as people read it.
fn shown(value: &Value) -> String {
    let number = |name: &str| value[name].as_u64().unwrap_or(0);
    if let Some(end) = value["end"].as_str() {
        let why = if end == "max" { "as many as were wanted" } else { "all tunnels have ended" };
        return format!(
            "-- {why}: {} frames shown, {} not shown",
            number("shown"),
            number("missed")
        );
    }
    if let Some(missed) = value["missed"].as_u64() {
        return format!("-- {missed} frames not shown: they came faster than they were read");
    }
    if value.get("tunnels").is_some() {
        return begun(value);
    }
    let mut line = format!("{} {:>6}  ", moment(value["time"].as_f64()), text(&value["id"]));
    let from = value["from"].as_str().unwrap_or_default();
    if value.get("ended").is_some() {
        return line + "has ended";
    }
    if let Some(broken) = value["broken"].as_str() {
        return format!("{line}{from} broke the protocol: {}", printable(broken.as_bytes()));
    }
    // Writing to a string does not fail.
    let _ = write!(line, "{:8} > {:8}  ", from, text(&value["to"]));
    let _ = write!(line, "{:12} {:>8} B", text(&value["opcode"]), number("length"));
    if value["fin"] == false {
        line += "  more";
    }
    if number("rsv") != 0 {
        let _ = write!(line, "  rsv={:03b}", number("rsv"));
    }
    // A client's is, a server's is not: only what is odd is told.
    if (value["masked"] == true) != (value["to"] == "upstream") {
        line += if value["masked"] == true { "  masked" } else { "  not masked" };
    }
    if let Some(code) = value["code"].as_u64() {
        let _ = write!(
            line,
            "  {code} {}",
            printable(value["reason"].as_str().unwrap_or("").as_bytes())
        );
    }
    for name in ["payload", "payload_hex"] {
        if let Some(payload) = value[name].as_str() {
            let cut = if value["cut"] == true { "..." } else { "" };
            let _ = write!(line, "  {}{cut}", printable(payload.as_bytes()));
        }
    }
    if let Some(why) = value["not_shown"].as_str() {
        let _ = write!(line, "  ({})", printable(why.as_bytes()));
    }
    line.truncate(line.trim_end().len());
    line
}

/// What is looked at, and what is not.
fn begun(value: &Value) -> String {
    let mut line = format!("-- looking at {}", text(&value["tunnels"]));
    for (name, what) in [
        ("off", "hidden by websocket_tap off"),
        ("without_frames", "without frames (no WebSocket, or websocket_check off)"),
        ("without_payload", "without payloads: websocket_tap does not allow them"),
    ] {
        if let Some(count) = value[name].as_u64().filter(|&count| count > 0) {
            // Writing to a string does not fail.
            let _ = write!(line, ", {count} {what}");
        }
    }
    line
}

/// The time of day in UTC, with milliseconds.
fn moment(seconds: Option<f64>) -> String {
    let ms = (seconds.unwrap_or(0.0) * 1000.0).round() as u64;
    let second = ms / 1000;
    let [hour, minute, second] = [second / 3_600 % 24, second / 60 % 60, second % 60];
    format!("{hour:02}:{minute:02}:{second:02}.{:03}", ms % 1000)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_tells_what_is_unusual_and_nothing_that_a_terminal_obeys() {
        let mut frame = json!({"time": 1_796_083_200.25, "id": "7", "from": "client", "to": "upstream",
            "opcode": "text", "fin": true, "rsv": 0, "length": 5, "masked": true});
        let head = "00:00:00.250      7  client   > upstream  ";
        assert_eq!(shown(&frame), format!("{head}text                5 B"));
        frame["payload"] = "a\u{1b}[2J".into();
        frame["cut"] = true.into();
        assert_eq!(shown(&frame), format!("{head}text                5 B  a\\u{{1b}}[2J..."));
        frame = json!({"time": 1_796_083_200.25, "id": "7", "from": "client", "to": "upstream",
            "opcode": "close", "fin": true, "rsv": 4, "length": 5, "masked": false, "code": 4001, "reason": "x"});
        assert_eq!(
            shown(&frame),
            format!("{head}close               5 B  rsv=100  not masked  4001 x")
        );
        assert_eq!(
            shown(&json!({"tunnels": 2, "off": 1, "without_frames": 0})),
            "-- looking at 2, 1 hidden by websocket_tap off"
        );
    }
}
