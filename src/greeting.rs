//! What somebody at a terminal is told of a server that has started. nginx says nothing, and its scripts expect that;
//! who types the command for the first time takes silence for a failure.

use std::fmt;
use std::io::{self, IsTerminal};

use wssgate_config::model::{Core, ListenSocket, LogTarget};

use crate::options::Options;

/// As many addresses are named.
const MAX_ADDRESSES: usize = 4;

/// One line about a server that has started.
#[derive(Debug)]
pub(crate) struct Greeting {
    addresses: Vec<String>,
    log: String,
    end: Option<&'static str>,
    is_in_background: bool,
}

impl Greeting {
    /// Of a server with these options and settings.
    pub(crate) fn new(options: &Options, core: &Core, sockets: &[ListenSocket]) -> Self {
        let has_places =
            options.conf.is_some() || options.prefix.is_some() || options.globals.is_some();
        let end = match (core.daemon, &core.pid) {
            (false, _) => Some("Ctrl-C ends it"),
            (true, None) => None,
            (true, Some(_)) if has_places => Some("`-s stop` with the same options ends it"),
            (true, Some(_)) => Some("`wssgate -s stop` ends it"),
        };
        let log = core.error_logs.first().map(|log| &log.target);
        Self {
            addresses: sockets.iter().map(|socket| socket.address.to_string()).collect(),
            log: match log {
                Some(LogTarget::File(path)) => path.display().to_string(),
                Some(LogTarget::Syslog(_)) => "syslog".to_owned(),
                Some(LogTarget::Stderr) | None => "standard error".to_owned(),
            },
            end,
            is_in_background: core.daemon,
        }
    }

    /// Tells it if somebody is there to read it.
    pub(crate) fn tell(&self) {
        if io::stderr().is_terminal() {
            eprintln!("wssgate: {self}");
        }
    }
}

impl fmt::Display for Greeting {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, more) = self.addresses.split_at(self.addresses.len().min(MAX_ADDRESSES));
        match first.is_empty() {
            true => formatter.write_str("running without a `server` block, so nothing listens")?,
            false => write!(formatter, "listening on {}", first.join(", "))?,
        }
        if !more.is_empty() {
            write!(formatter, " and {} more", more.len())?;
        }
        if self.is_in_background {
            formatter.write_str(" in the background")?;
        }
        write!(formatter, "; errors go to {}", self.log)?;
        self.end.map_or(Ok(()), |end| write!(formatter, "; {end}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_some_addresses_the_log_and_the_end() {
        let line = |count: usize, end, is_in_background| {
            let addresses = (0..count).map(|port| format!("*:{port}")).collect();
            Greeting { addresses, log: "/l".to_owned(), end, is_in_background }.to_string()
        };
        let expected = "listening on *:0, *:1 in the background; errors go to /l; end";
        assert_eq!(line(2, Some("end"), true), expected);
        let expected = "listening on *:0, *:1, *:2, *:3 and 2 more; errors go to /l";
        assert_eq!(line(6, None, false), expected);
        assert!(line(0, None, false).starts_with("running without a `server` block"));
    }
}
