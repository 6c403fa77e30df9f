//! Lines as datagrams to a syslog server.

use wssgate_syntax::{Diagnostic, Word};

use crate::log::LEVELS;
use crate::read::Reading;
use crate::value::{self, Form, ListenAddr};

/// Parameters of a `syslog:` target.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Syslog {
    /// Where datagrams go.
    pub server: ListenAddr,
    /// Facility number 0–23.
    pub facility: u8,
    /// Severity number of access lines, 0–7.
    pub severity: u8,
    /// Tag of each line.
    pub tag: String,
    /// Leave the host name out.
    pub nohostname: bool,
}

const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "intern", "lpr", "news", "uucp", "clock", "authpriv",
    "ftp", "ntp", "audit", "alert", "cron", "local0", "local1", "local2", "local3", "local4",
    "local5", "local6", "local7",
];

const SYSLOG_PORT: u16 = 514;

/// RFC 3164 allows 32 characters.
const MAX_TAG_LEN: usize = 32;

pub(crate) fn syslog(
    reading: &Reading<'_>,
    word: &Word,
    text: &[u8],
    severity: u8,
) -> Result<Syslog, Diagnostic> {
    let problem = |message: String| Diagnostic::error(message).at(word.span, "");
    let mut syslog = Syslog {
        server: ListenAddr::Unix("".into()),
        facility: 23,
        severity,
        tag: "nginx".into(),
        nohostname: false,
    };
    let mut server = None;
    let mut given = Vec::new();
    for part in text.split(|&byte| byte == b',') {
        let part = String::from_utf8_lossy(part);
        match part.split_once('=') {
            Some(("server", _)) if server.is_some() => {
                return Err(problem("duplicate syslog \"server\"".into()));
            }
            Some(("server", address)) => {
                server = Some(syslog_server(reading, address).map_err(problem)?);
            }
            Some((name @ ("facility" | "severity"), _)) if given.contains(&name.to_owned()) => {
                return Err(problem(format!("duplicate syslog \"{name}\"")));
            }
            parameter => {
                given.extend(parameter.map(|(name, _)| name.to_owned()));
                syslog_parameter(&mut syslog, &part).map_err(problem)?;
            }
        }
    }
    syslog.server = server.ok_or_else(|| problem("no syslog server specified".into()))?;
    Ok(syslog)
}

fn syslog_server(reading: &Reading<'_>, address: &str) -> Result<ListenAddr, String> {
    let endpoint = value::endpoint(address.as_bytes(), Form::Host)
        .map_err(|error| format!("{error} in syslog server \"{address}\""))?;
    let found = reading.addresses(&endpoint, SYSLOG_PORT).ok();
    let first = found.and_then(|found| found.into_iter().next());
    first.ok_or_else(|| format!("host not found in syslog server \"{address}\""))
}

fn syslog_parameter(syslog: &mut Syslog, part: &str) -> Result<(), String> {
    match part.split_once('=') {
        Some(("facility", name)) => {
            let found = FACILITIES.iter().position(|facility| *facility == name);
            syslog.facility =
                found.ok_or_else(|| format!("unknown syslog facility \"{name}\""))? as u8;
        }
        Some(("severity", name)) => {
            let found = LEVELS.iter().position(|(level, _)| *level == name);
            syslog.severity =
                found.ok_or_else(|| format!("unknown syslog severity \"{name}\""))? as u8;
        }
        Some(("tag", tag)) => {
            let valid = |character: char| character.is_ascii_alphanumeric() || character == '_';
            if tag.len() > MAX_TAG_LEN {
                return Err("syslog tag length exceeds 32".into());
            }
            if !tag.chars().all(valid) {
                return Err(
                    "syslog \"tag\" only allows alphanumeric characters and underscore".into()
                );
            }
            syslog.tag = tag.to_owned();
        }
        None if part == "nohostname" => syslog.nohostname = true,
        _ => return Err(format!("unknown syslog parameter \"{part}\"")),
    }
    Ok(())
}
