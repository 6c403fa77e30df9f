//! `-s`: a signal to the program that runs.

use std::io::ErrorKind;

use wssgate_config::model::LogLevel;
use wssgate_proxy::errno_text;
use wssgate_sys::process;

use crate::Failed;
use crate::console::{Accepted, Console};
use crate::options::Options;
use crate::pid_file;
use crate::signal::Signal;

/// Signals the process of the pid file that the configuration names.
pub(crate) fn send(
    signal: Signal,
    options: &Options,
    accepted: &Accepted,
    console: &Console,
) -> Result<(), Failed> {
    console.note("signal process started");
    let fail = |level, message: String, hint: &str| {
        console.write(level, message);
        // Not in nginx's name, by which scripts find the line above.
        eprintln!("{hint}");
        Failed
    };
    let conf = options.conf_path();
    let conf = conf.display();
    let Some(path) = &accepted.config.core.pid else {
        let hint = format!(
            "{conf} says `pid off`: signal the process by its number, as in `kill -{} PID`",
            signal.short_name()
        );
        return Err(fail(LogLevel::Error, "no pid file: \"pid\" is off".into(), &hint));
    };
    let text = path.display();
    let named = format!(
        "the pid file is the one that {conf} names: give the same -c, -p and -g as when the server was started"
    );
    let pid = match pid_file::read(path) {
        Ok(Ok(pid)) => pid,
        Ok(Err(other)) => {
            let message = format!("invalid PID number \"{other}\" in \"{text}\"");
            return Err(fail(LogLevel::Error, message, &named));
        }
        Err(error) => {
            let message = format!("open() \"{text}\" failed ({})", errno_text(&error));
            let hint = match error.kind() {
                ErrorKind::NotFound => format!("no server runs with it, or {named}"),
                ErrorKind::PermissionDenied => NOT_ALLOWED.to_owned(),
                _ => named,
            };
            return Err(fail(LogLevel::Error, message, &hint));
        }
    };
    process::kill(pid, signal.number()).map_err(|error| {
        let message = format!("kill({pid}, {}) failed ({})", signal.number(), errno_text(&error));
        let hint = match error.kind() {
            ErrorKind::PermissionDenied => NOT_ALLOWED.to_owned(),
            _ => format!(
                "the server that wrote {text} has ended without removing it; start it again"
            ),
        };
        fail(LogLevel::Alert, message, &hint)
    })
}

/// Tells what a configuration with errors means for the server that runs.
pub(crate) fn tell_unsent(signal: Signal) {
    match signal {
        Signal::Reload => {
            eprintln!("no signal was sent; the running server keeps its configuration");
        }
        _ => eprintln!("no signal was sent"),
    }
}

/// What helps against missing rights.
const NOT_ALLOWED: &str = "only root and the user that started the server may signal it: try sudo";
