//! Signals as something to read: blocked everywhere, they wait in a descriptor.

#![allow(unsafe_code)]

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::epoll::check;

/// The signals of nginx's master process.
const OBEYED: [libc::c_int; 7] = [
    libc::SIGHUP,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGINT,
    libc::SIGWINCH,
];

/// One signal that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// Its number.
    pub number: i32,
    /// The process that sent it; 0 for the kernel.
    pub sender: u32,
}

/// The descriptor in which signals wait, one of each kind.
#[derive(Debug)]
pub struct Signals {
    fd: OwnedFd,
}

/// From now on the signals wait, for this thread and every one that it starts. A thread that did
/// not know of it would take them with their default action, which ends the process.
pub fn block() -> io::Result<()> {
    let set = obeyed();
    // SAFETY: the set lives through the call, and no old mask is asked for.
    match unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// Unblocks every signal for the calling thread. Allocates nothing, so that it may be called between fork and exec.
pub(crate) fn unblock() -> io::Result<()> {
    let mut none = MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the set, which lives through both calls; no old mask is asked for.
    let result = unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut())
    };
    if result == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(result)) }
}

fn obeyed() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the set; the others get the initialised set and numbers.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in OBEYED {
            libc::sigaddset(set.as_mut_ptr(), signal);
        }
        set.assume_init()
    }
}

/// Makes a write to a peer that has gone an error and no signal, as the Rust runtime does before
/// `main`; for programs whose `main` is not Rust's.
pub fn ignore_broken_pipes() {
    // SAFETY: only sets a disposition, and SIG_IGN runs no code of ours.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

impl Signals {
    /// Blocks the signals ([`block`]); they wait here.
    pub fn new() -> io::Result<Self> {
        block()?;
        let set = obeyed();
        // SAFETY: the set lives through the call; -1 asks for a new descriptor.
        let fd = unsafe { libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        let fd = check(fd)?;
        // SAFETY: signalfd has just returned this descriptor, and nobody else knows it.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// Takes the next signal that waits, if one does.
    pub fn take(&self) -> Option<Received> {
        let mut info = MaybeUninit::<libc::signalfd_siginfo>::uninit();
        let size = size_of::<libc::signalfd_siginfo>();
        // SAFETY: `info` has room for `size` bytes and lives through the call.
        let read = unsafe { libc::read(self.fd.as_raw_fd(), info.as_mut_ptr().cast(), size) };
        if usize::try_from(read) != Ok(size) {
            return None;
        }
        // SAFETY: the kernel has filled in all of it, as the length says.
        let info = unsafe { info.assume_init() };
        Some(Received { number: info.ssi_signo.cast_signed(), sender: info.ssi_pid })
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_waits_until_it_is_taken() {
        let signals = Signals::new().unwrap();
        // SAFETY: sends a signal to this thread, which has it blocked.
        unsafe { libc::pthread_kill(libc::pthread_self(), libc::SIGWINCH) };
        let received = signals.take().unwrap();
        assert_eq!(received.number, libc::SIGWINCH);
        assert_eq!(received.sender, std::process::id());
        assert_eq!(signals.take(), None);
    }
}
