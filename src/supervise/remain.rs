//! The first process of a container after it was replaced: the container would end with it, so it stays as the parent of
//! those who serve.
//!
//! Whatever loses its parent in a container becomes its child, so it waits for all of them, and ends with the last.

use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use wssgate_sys::epoll::{Epoll, Events};
use wssgate_sys::process;
use wssgate_sys::signals::Signals;

use crate::pid_file;
use crate::signal::Signal;

/// The number of the first process.
const FIRST: u32 = 1;

/// How often it looks whether a child has ended.
const LOOK: Duration = Duration::from_millis(200);

/// Everybody but the first process itself.
const EVERYBODY: i32 = -1;

/// Whether this process has to stay.
pub(super) fn is_needed() -> bool {
    std::process::id() == FIRST
}

/// Has all others end as we are to.
pub(super) fn pass_on(signal: i32) {
    // They may just have ended.
    let _ = process::kill(EVERYBODY, signal);
}

/// Passes on signals until the last child has ended, and returns its exit code. Who is the server now is in the pid file;
/// without that it is `successor`, if it is still there. `epoll` knows the signals.
pub(super) fn remain(
    epoll: &Epoll,
    signals: &Signals,
    pid: Option<&Path>,
    successor: Option<u32>,
) -> u8 {
    let mut events = Events::with_capacity(4);
    let mut last = None;
    loop {
        while let Some(received) = signals.take() {
            let server = || pid_file::read(pid?).ok()?.ok().filter(|&pid| pid > 1);
            match Signal::received(received) {
                // Those that are ending already are to do so, too.
                Some((Signal::Quit | Signal::Terminate, _)) => pass_on(received.number),
                _ => {
                    if let Some(server) = server().or(successor.map(u32::cast_signed)) {
                        // It may just have ended.
                        let _ = process::kill(server, received.number);
                    }
                }
            }
        }
        loop {
            match process::reap() {
                Ok(Some(status)) => last = Some(status),
                Ok(None) => break,
                // There is none any more.
                Err(_) => return last.map_or(0, code),
            }
        }
        // An error only makes it look sooner.
        let _ = epoll.wait(&mut events, Some(LOOK));
    }
}

/// As shells give it.
fn code(status: ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt;
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    u8::try_from(code).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn exit_codes_are_those_of_shells() {
        assert_eq!(code(ExitStatus::from_raw(0)), 0);
        assert_eq!(code(ExitStatus::from_raw(3 << 8)), 3);
        assert_eq!(code(ExitStatus::from_raw(9)), 137);
        assert!(!is_needed());
    }
}
