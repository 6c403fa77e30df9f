//! `wssgate doctor wss://HOST/PATH`: what is wrong with a WebSocket, seen from the client's side.

use std::io::{self, IsTerminal, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use wssgate_doctor::{
    Report, Settings, StepReport, Style, Target, Verdict, certificates_in, examine,
};

use crate::console;

/// The command itself is wrong; 0 to 2 are verdicts.
pub(crate) const MISUSED: u8 = 3;

/// The longest message that may be asked for, in bytes.
const MAX_SIZE: u64 = 64 << 20;

/// Examine a WebSocket from the client's side: DNS, TCP, TLS, the handshake, pings
///
/// Each step is reported as ok, warning or fault, with what is wrong and what to do. Exit code: 0 if all is
/// well, 1 with warnings, 2 with a fault, 3 if the command line is wrong.
#[derive(Parser, Clone, Debug, PartialEq, Eq)]
#[command(name = "doctor", bin_name = "wssgate doctor")]
pub(crate) struct DoctorArgs {
    /// What is examined.
    #[arg(help = "URL of the WebSocket: wss://HOST[:PORT]/PATH or ws://…", value_name = "URL")]
    #[arg(value_parser = |url: &str| Target::parse(url))]
    target: Target,
    /// Origin of the page that opens the WebSocket [default: that of the URL]
    #[arg(long, value_name = "ORIGIN", value_parser = text)]
    origin: Option<String>,
    /// Header to send, such as "Cookie: …"; may be repeated
    #[arg(long, value_name = "NAME: VALUE", value_parser = header)]
    header: Vec<(String, String)>,
    /// Subprotocol to offer; may be repeated
    #[arg(long, value_name = "NAME", value_parser = token)]
    protocol: Vec<String>,
    /// File with CA certificates in PEM to trust in addition to the public ones
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// DNS server to ask instead of the system
    #[arg(long, value_name = "ADDRESS[:PORT]", value_parser = dns_server)]
    dns: Option<SocketAddr>,
    /// How long to wait for each response, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    timeout: Duration,
    /// Send messages of up to this many bytes (suffix k or m); they reach the app server
    #[arg(long, value_name = "BYTES", value_parser = size)]
    size: Option<u64>,
    /// Stay silent for up to this many seconds, to see what cuts idle connections; takes twice as long
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    idle: Option<Duration>,
    /// Print JSON (docs/doctor.md) at the end instead of text
    #[arg(long)]
    json: bool,
}

impl DoctorArgs {
    fn settings(&self) -> Result<Settings, String> {
        let ca = match &self.ca {
            None => Vec::new(),
            Some(path) => certificates_in(path)
                .map_err(|error| format!("--ca \"{}\": {error}", path.display()))?,
        };
        Ok(Settings {
            timeout: self.timeout,
            origin: self.origin.clone(),
            protocols: self.protocol.clone(),
            headers: self.header.clone(),
            ca,
            dns: self.dns,
            size: self.size,
            idle: self.idle,
            ..Settings::default()
        })
    }
}

/// Examines and reports.
pub(crate) fn run(args: &DoctorArgs) -> ExitCode {
    let settings = match args.settings() {
        Ok(settings) => settings,
        Err(error) => {
            console::say(error);
            return ExitCode::from(MISUSED);
        }
    };
    let style = Style {
        color: io::stdout().is_terminal()
            && std::env::var_os("NO_COLOR").is_none_or(|no| no.is_empty()),
    };
    let mut tell = |step: &StepReport| {
        if !args.json {
            print(&style.step(step));
        }
    };
    let report = examine(&args.target, &settings, &mut tell);
    print(&if args.json { json(&report) } else { style.summary(&report) });
    ExitCode::from(match report.verdict {
        Verdict::Ok => 0,
        Verdict::Warning => 1,
        Verdict::Fault => 2,
    })
}

/// The exit code tells the verdict even if nobody reads the text.
fn print(text: &str) {
    let mut stdout = io::stdout();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

fn json(report: &Report) -> String {
    let text = serde_json::to_string_pretty(report);
    format!("{}\n", text.expect("a report is text, numbers and lists of them"))
}

/// Text that stays on its line.
fn text(value: &str) -> Result<String, String> {
    match value.chars().any(char::is_control) {
        true => Err("it has control characters".into()),
        false => Ok(value.to_owned()),
    }
}

/// RFC 9110 §5.6.2.
fn token(value: &str) -> Result<String, String> {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    match !value.is_empty() && value.bytes().all(is_good) {
        true => Ok(value.to_owned()),
        false => Err("it is not an HTTP token".into()),
    }
}

fn header(line: &str) -> Result<(String, String), String> {
    let (name, value) = line.split_once(':').ok_or("there is no colon")?;
    Ok((token(name)?, text(value.trim())?))
}

fn dns_server(value: &str) -> Result<SocketAddr, String> {
    let address = value.parse::<SocketAddr>();
    address
        .or_else(|_| value.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53)))
        .map_err(|_| "it is not an address".into())
}

/// More than nothing, and less than a day.
fn seconds(value: &str) -> Result<Duration, String> {
    match value.parse::<f64>() {
        Ok(seconds) if (0.1..=86_400.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("it is not a number of seconds from 0.1 to 86400".into()),
    }
}

fn size(value: &str) -> Result<u64, String> {
    let lower = value.to_ascii_lowercase();
    let (digits, shift) = match lower.as_bytes().last() {
        Some(b'k') => (&lower[..lower.len() - 1], 10),
        Some(b'm') => (&lower[..lower.len() - 1], 20),
        _ => (&lower[..], 0),
    };
    let bytes = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift));
    bytes
        .filter(|bytes| (1..=MAX_SIZE).contains(bytes))
        .ok_or_else(|| "it is not a number of bytes from 1 to 64m".into())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<DoctorArgs, String> {
        let line = ["doctor"].iter().chain(arguments);
        DoctorArgs::try_parse_from(line).map_err(|error| error.to_string())
    }

    #[test]
    fn options_are_read_with_their_units() {
        let line = [
            "wss://a.test/x",
            "--size",
            "64k",
            "--idle",
            "0.5",
            "--dns",
            "::1",
            "--header",
            "Cookie: a=b: c",
            "--protocol",
            "mqtt",
            "--protocol",
            "x",
        ];
        let settings = parse(&line).unwrap().settings().unwrap();
        assert_eq!(settings.size, Some(65_536));
        assert_eq!(settings.idle, Some(Duration::from_millis(500)));
        assert_eq!(settings.timeout, Duration::from_secs(10));
        assert_eq!(settings.dns, Some("[::1]:53".parse().unwrap()));
        assert_eq!(settings.headers, [("Cookie".to_owned(), "a=b: c".to_owned())]);
        assert_eq!(settings.protocols, ["mqtt", "x"]);
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (line, words) in [
            (&[][..], "<URL>"),
            (&["https://a.test/"], "write wss://a.test/"),
            (&["wss://a.test/", "--size", "1g"], "number of bytes"),
            (&["wss://a.test/", "--size", "65m"], "number of bytes"),
            (&["wss://a.test/", "--idle", "0"], "number of seconds"),
            (&["wss://a.test/", "--timeout", "x"], "number of seconds"),
            (&["wss://a.test/", "--header", "Cookie"], "no colon"),
            (&["wss://a.test/", "--header", "a b: c"], "not an HTTP token"),
            (&["wss://a.test/", "--header", "a: b\r\nc: d"], "control characters"),
            (&["wss://a.test/", "--origin", "x\n"], "control characters"),
            (&["wss://a.test/", "--protocol", "a, b"], "not an HTTP token"),
            (&["wss://a.test/", "--dns", "a.test"], "not an address"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(words), "{line:?}: {error}");
        }
        let missing = parse(&["wss://a.test/", "--ca", "/nowhere/ca.pem"]).unwrap();
        let error = missing.settings().unwrap_err();
        assert_eq!(error, "--ca \"/nowhere/ca.pem\": No such file or directory");
    }
}
