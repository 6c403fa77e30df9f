//! `-s`: a signal to the program that runs.

use wssgate_config::model::LogLevel;
use wssgate_proxy::errno_text;
use wssgate_sys::process;

use crate::Failed;
use crate::console::{Accepted, Console};
use crate::pid_file;
use crate::signal::Signal;

/// Signals the process of the pid file that the configuration names.
pub(crate) fn send(signal: Signal, accepted: &Accepted, console: &Console) -> Result<(), Failed> {
    console.note("signal process started");
    let fail = |level, message: String| {
        console.write(level, message);
        Failed
    };
    let Some(path) = &accepted.config.core.pid else {
        return Err(fail(LogLevel::Error, "no pid file: \"pid\" is off".into()));
    };
    let text = path.display();
    let pid = match pid_file::read(path) {
        Ok(Ok(pid)) => pid,
        Ok(Err(other)) => {
            let message = format!("invalid PID number \"{other}\" in \"{text}\"");
            return Err(fail(LogLevel::Error, message));
        }
        Err(error) => {
            let message = format!("open() \"{text}\" failed ({})", errno_text(&error));
            return Err(fail(LogLevel::Error, message));
        }
    };
    process::kill(pid, signal.number()).map_err(|error| {
        let message = format!("kill({pid}, {}) failed ({})", signal.number(), errno_text(&error));
        fail(LogLevel::Alert, message)
    })
}
