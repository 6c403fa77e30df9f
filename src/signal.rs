//! Signals as words.

use wssgate_sys::signals;

/// What nginx's master process can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// Read the configuration again.
    Reload,
    /// Open log files again.
    Reopen,
    /// End when all connections have.
    Quit,
    /// End now.
    Terminate,
    /// Hand over to a new program.
    Upgrade,
    /// nginx stops its workers and keeps its master, unless it runs in the foreground, where this only
    /// means that the terminal has another size.
    Winch,
}

/// Signal, number, name, and what nginx logs that it does.
const SIGNALS: [(Signal, i32, &str, &str); 7] = [
    (Signal::Reload, 1, "SIGHUP", ", reconfiguring"),
    (Signal::Terminate, 2, "SIGINT", ", exiting"),
    (Signal::Quit, 3, "SIGQUIT", ", shutting down"),
    (Signal::Reopen, 10, "SIGUSR1", ", reopening logs"),
    (Signal::Upgrade, 12, "SIGUSR2", ", changing binary"),
    (Signal::Terminate, 15, "SIGTERM", ", exiting"),
    (Signal::Winch, 28, "SIGWINCH", ""),
];

impl Signal {
    /// What `-s` takes.
    pub(crate) const NAMES: [&str; 4] = ["stop", "quit", "reload", "reopen"];

    /// The signal of `-s NAME`.
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name {
            "stop" => Some(Self::Terminate),
            "quit" => Some(Self::Quit),
            "reopen" => Some(Self::Reopen),
            "reload" => Some(Self::Reload),
            _ => None,
        }
    }

    /// What a received signal means, and nginx's log line for it.
    pub(crate) fn received(received: signals::Received) -> Option<(Self, String)> {
        let &(signal, number, name, action) =
            SIGNALS.iter().find(|(_, number, ..)| *number == received.number)?;
        let from = match received.sender {
            0 => String::new(),
            sender => format!(" from {sender}"),
        };
        Some((signal, format!("signal {number} ({name}) received{from}{action}")))
    }

    /// Its name for kill(1).
    pub(crate) fn short_name(self) -> &'static str {
        let number = self.number();
        let name =
            SIGNALS.iter().find(|(_, known, ..)| *known == number).map(|(_, _, name, _)| *name);
        name.unwrap_or_default().trim_start_matches("SIG")
    }

    /// Its number on Linux.
    pub(crate) fn number(self) -> i32 {
        match self {
            Self::Reload => 1,
            Self::Quit => 3,
            Self::Reopen => 10,
            Self::Upgrade => 12,
            Self::Terminate => 15,
            Self::Winch => 28,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signal_is_received_under_the_number_it_is_sent_with() {
        let all = Signal::NAMES.iter().filter_map(|name| Signal::named(name));
        assert_eq!(all.clone().count(), Signal::NAMES.len());
        for signal in all.chain([Signal::Upgrade, Signal::Winch]) {
            let received = signals::Received { number: signal.number(), sender: 0 };
            assert_eq!(Signal::received(received).map(|(word, _)| word), Some(signal));
        }
    }

    #[test]
    fn the_log_line_is_that_of_nginx() {
        let received = signals::Received { number: 1, sender: 77 };
        let line = Signal::received(received).map(|(_, line)| line);
        let expected = "signal 1 (SIGHUP) received from 77, reconfiguring".to_owned();
        assert_eq!(line, Some(expected));
        assert_eq!(Signal::received(signals::Received { number: 9, sender: 0 }), None);
    }
}
