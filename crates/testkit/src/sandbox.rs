//! What a container or a service manager may forbid, and networks that are nobody else's.

#![allow(unsafe_code)]

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, RawFd},
};

/// From now on nothing that this thread does or starts may set up io_uring, as in many containers: the
/// kernel says `EPERM`. Other threads go on as before.
pub fn forbid_io_uring() -> io::Result<()> {
    let number = u32::try_from(libc::SYS_io_uring_setup).map_err(io::Error::other)?;
    let refusal = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    // The number is the first thing in what the program is shown (`struct seccomp_data`).
    let mut steps = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, number),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, refusal),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    // SAFETY: plain numbers, and a program that the kernel copies.
    let done = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
    };
    if done { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A network namespace. It lives as long as somebody is in it, holds this, or has a socket of it.
#[derive(Debug)]
pub struct Network(File);

impl Network {
    /// A new one, in which this thread is from now on, and whatever it starts. Only root may do that.
    pub fn new() -> io::Result<Self> {
        // SAFETY: a plain number; the other threads stay where they are.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
            return Err(io::Error::last_os_error());
        }
        File::open("/proc/thread-self/ns/net").map(Self)
    }

    /// Goes there with this thread, and whatever it starts from now on.
    pub fn enter(&self) -> io::Result<()> {
        // SAFETY: an open descriptor and a plain number.
        match unsafe { libc::setns(self.fd(), libc::CLONE_NEWNET) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// A path that names it to other programs while this is open.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.fd())
    }

    fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
