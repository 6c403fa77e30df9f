//! Starting a program that goes on with what this process holds: descriptors under the numbers that they have here, and
//! the capabilities of the calling thread.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use socket2::{Domain, Socket, Type};

use crate::epoll::check;
use crate::{privileges, signals};

/// The two ends of a private channel on which every record is received as it was sent. Programs that are started get
/// neither.
pub fn channel() -> io::Result<(OwnedFd, OwnedFd)> {
    let (one, other) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None)?;
    Ok((one.into(), other.into()))
}

/// Starts `command` with these descriptors open, besides the standard ones. It takes every signal, as a program expects
/// that is started by hand, and may do what the calling thread may.
///
/// # Errors
/// Also when the system does not find the program or refuses to run it.
pub fn start(command: &mut Command, descriptors: &[BorrowedFd<'_>]) -> io::Result<Child> {
    let numbers: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let prepare = move || {
        for &fd in &numbers {
            // SAFETY: takes numbers; the descriptors are open, for `descriptors` borrows them until the fork is done.
            check(unsafe { libc::fcntl(fd, libc::F_SETFD, 0) })?;
        }
        privileges::keep_across_exec();
        signals::unblock()
    };
    // SAFETY: between fork and exec the closure makes system calls only, and allocates nothing: this process has
    // other threads, which may have held any lock when it was copied.
    unsafe { command.pre_exec(prepare) }.spawn()
}

/// A descriptor that is readable once this child has ended (pidfd_open(2)).
pub fn end_of(child: &Child) -> io::Result<OwnedFd> {
    // SAFETY: takes numbers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, child.id(), 0) };
    let fd = check(RawFd::try_from(fd).unwrap_or(-1))?;
    // SAFETY: the kernel has just returned this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Read;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixDatagram;
    use std::process::Stdio;
    use std::time::Duration;

    use super::*;
    use crate::epoll::{Epoll, Events};

    #[test]
    fn a_program_gets_what_is_passed_under_its_number_and_nothing_else() {
        let (mut kept, passed) = std::io::pipe().unwrap();
        let other = std::fs::File::open("/dev/null").unwrap();
        let script = format!(
            "echo passed >&{}; test -e /proc/self/fd/{} && echo leaked >&{}; true",
            passed.as_raw_fd(),
            other.as_raw_fd(),
            passed.as_raw_fd()
        );
        let mut child = start(Command::new("sh").args(["-c", &script]), &[passed.as_fd()]).unwrap();
        drop(passed);
        let mut told = String::new();
        kept.read_to_string(&mut told).unwrap();
        assert_eq!(told, "passed\n");
        assert!(child.wait().unwrap().success());
    }

    #[test]
    fn its_signals_are_not_blocked_though_ours_are() {
        signals::block().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "grep SigBlk /proc/self/status"]).stdout(Stdio::piped());
        let child = start(&mut command, &[]).unwrap();
        let told = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
        assert_eq!(told, "SigBlk:\t0000000000000000\n");
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error_at_once() {
        let error = start(&mut Command::new("/no/such/program"), &[]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn the_end_of_a_child_can_be_waited_for_beside_others() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let (epoll, end) = (Epoll::new().unwrap(), end_of(&child).unwrap());
        epoll.add_level_readable(end.as_fd(), 7).unwrap();
        let mut events = Events::with_capacity(1);
        epoll.wait(&mut events, Some(Duration::ZERO)).unwrap();
        assert_eq!(events.iter().count(), 0);
        drop(child.stdin.take());
        epoll.wait(&mut events, None).unwrap();
        assert_eq!(events.iter().count(), 1);
        assert!(child.wait().unwrap().success());
    }

    #[test]
    fn records_of_the_channel_stay_apart() {
        let (one, other) = channel().unwrap();
        let (one, other) = (UnixDatagram::from(one), UnixDatagram::from(other));
        one.send(b"a").unwrap();
        one.send(b"bc").unwrap();
        let mut buffer = [0; 8];
        assert_eq!(other.recv(&mut buffer).unwrap(), 1);
        assert_eq!(other.recv(&mut buffer).unwrap(), 2);
        drop(one);
        assert_eq!(other.recv(&mut buffer).unwrap(), 0);
    }
}
