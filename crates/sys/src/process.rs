//! The process itself: going to the background, who it is, what it may open.

#![allow(unsafe_code)]

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::epoll::check;

/// The kernel's number of the calling thread.
pub fn thread_id() -> i32 {
    // SAFETY: takes nothing and cannot fail.
    unsafe { libc::gettid() }
}

/// Lets other threads go before the calling one, as `nice -n 10` does for a process (setpriority(2), where Linux means
/// the thread). Its own threads inherit it; nobody but root takes it back.
///
/// # Errors
/// What the system refused.
pub fn give_way_to_other_threads() -> io::Result<()> {
    const LESS: libc::c_int = 10;
    // SAFETY: takes numbers only; 0 is the calling thread.
    let nice = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
    // The kernel takes more than the most for the most.
    // SAFETY: as above.
    check(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice + LESS) })?;
    Ok(())
}

/// Names the process in the process list, as `ps` and `pidof` show it; the system keeps 15 bytes.
///
/// It is the name of the calling thread: call it from the first one.
pub fn set_name(name: &OsStr) -> io::Result<()> {
    let name = c_string(Path::new(name))?;
    // SAFETY: `name` is a C string that lives through the call, which copies it.
    check(unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) })?;
    Ok(())
}

/// While there is one, this process leaves no core dump (prctl(2), `PR_SET_DUMPABLE`), and nobody without root's rights
/// looks into its memory.
#[derive(Debug)]
pub struct NoCoreDumps(());

/// How many there are, and what held before the first.
static NO_CORE_DUMPS: Mutex<(usize, libc::c_int)> = Mutex::new((0, 0));

impl NoCoreDumps {
    /// From now on.
    ///
    /// # Errors
    /// What the system refused.
    pub fn begin() -> io::Result<Self> {
        let mut state = NO_CORE_DUMPS.lock().unwrap_or_else(PoisonError::into_inner);
        if state.0 == 0 {
            // SAFETY: takes numbers.
            state.1 = check(unsafe { libc::prctl(libc::PR_GET_DUMPABLE, 0, 0, 0, 0) })?;
            // SAFETY: as above.
            check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) })?;
        }
        state.0 += 1;
        Ok(Self(()))
    }
}

impl Drop for NoCoreDumps {
    fn drop(&mut self) {
        let mut state = NO_CORE_DUMPS.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 -= 1;
        // Any other value than 1 is the system's, for programs that have changed their user, and cannot be set.
        if *state == (0, 1) {
            // SAFETY: takes numbers.
            unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0) };
        }
    }
}

/// The name of this machine, in lower case as nginx shows it.
pub fn host_name() -> String {
    let mut buffer = [0u8; 256];
    // SAFETY: the buffer lives through the call, and one byte less than its length is offered, so
    // that it ends with a zero.
    let result = unsafe { libc::gethostname(buffer.as_mut_ptr().cast(), buffer.len() - 1) };
    if result != 0 {
        return "localhost".to_string();
    }
    let len = buffer.iter().position(|&byte| byte == 0).unwrap_or(buffer.len());
    String::from_utf8_lossy(&buffer[..len]).to_ascii_lowercase()
}

/// The time of `CLOCK_MONOTONIC`, in microseconds.
pub fn monotonic_micros() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` lives through the call, which cannot fail for a clock that every Linux has.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds * 1_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1000
}

/// Where a process is after [`daemonise`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Daemonised {
    /// The one that was started; it has nothing left to do.
    Parent,
    /// The one in the background.
    Child,
}

/// Goes to the background: a child in a session of its own, without terminal; its standard input and
/// output are `/dev/null`. Standard error stays, as with nginx, until [`close_stderr`].
///
/// Must be called while the process has one thread.
pub fn daemonise() -> io::Result<Daemonised> {
    // SAFETY: there is only this thread, so the child is a complete copy of the program.
    match check(unsafe { libc::fork() })? {
        0 => {}
        _ => return Ok(Daemonised::Parent),
    }
    // SAFETY: takes nothing.
    check(unsafe { libc::setsid() })?;
    onto_null(libc::STDIN_FILENO)?;
    onto_null(libc::STDOUT_FILENO)?;
    Ok(Daemonised::Child)
}

/// Points standard error at `/dev/null`: the last step into the background.
pub fn close_stderr() -> io::Result<()> {
    onto_null(libc::STDERR_FILENO)
}

fn onto_null(fd: libc::c_int) -> io::Result<()> {
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    // SAFETY: `null` is open, and `fd` is one of the standard descriptors, which nobody owns.
    check(unsafe { libc::dup2(null.as_raw_fd(), fd) })?;
    Ok(())
}

/// Sends a signal to a process.
pub fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: takes numbers.
    check(unsafe { libc::kill(pid, signal) })?;
    Ok(())
}

/// How any child has ended that has, and is forgotten with that; `None` while those that there are go on.
///
/// # Errors
/// When there are no children.
pub fn reap() -> io::Result<Option<ExitStatus>> {
    let mut status = 0;
    // SAFETY: `status` lives through the call.
    let child = check(unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) })?;
    Ok((child > 0).then(|| ExitStatus::from_raw(status)))
}

/// Waits until a child has ended, and leaves it to be waited for: its number is nobody else's until then.
pub fn wait_for_end(child: u32) -> io::Result<()> {
    loop {
        let mut ended = MaybeUninit::<libc::siginfo_t>::zeroed();
        let how = libc::WEXITED | libc::WNOWAIT;
        // SAFETY: `ended` has room for what is said, and lives through the call.
        match check(unsafe { libc::waitid(libc::P_PID, child, ended.as_mut_ptr(), how) }) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other.map(drop),
        }
    }
}

/// The text of a system error, e.g. `Address already in use`.
pub fn error_text(errno: i32) -> String {
    let mut buffer = [0u8; 256];
    // SAFETY: the buffer lives through the call, its length is told, and the function (the XSI one
    // that libc binds) ends the text with a zero.
    unsafe { libc::strerror_r(errno, buffer.as_mut_ptr().cast(), buffer.len()) };
    let len = buffer.iter().position(|&byte| byte == 0).unwrap_or(buffer.len());
    String::from_utf8_lossy(&buffer[..len]).into_owned()
}

/// Asks for room for `limit` open descriptors.
pub fn set_descriptor_limit(limit: u64) -> io::Result<()> {
    let value = libc::rlimit { rlim_cur: limit, rlim_max: limit };
    // SAFETY: `value` lives through the call.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &value) })?;
    Ok(())
}

/// How many descriptors may be open: the limit that applies and the one it may be raised to.
pub fn descriptor_limit() -> io::Result<(u64, u64)> {
    let mut value = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `value` lives through the call.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut value) })?;
    Ok((value.rlim_cur, value.rlim_max))
}

/// Raises the limit of open descriptors as far as it goes without privileges.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let (_, hard) = descriptor_limit()?;
    set_soft_descriptor_limit(hard)?;
    Ok(hard)
}

/// Has the kernel make the table of descriptors large enough for `count` of them, as far as the limit allows. It doubles
/// the table when that is full, and in a process with several threads each time waits until none of them uses the old
/// one: 6 to 24 ms were measured, seven times on the way to 16,384.
pub fn make_room_for_descriptors(count: u64) -> io::Result<()> {
    let (soft, _) = descriptor_limit()?;
    let last = count.min(soft).saturating_sub(1);
    let last = libc::c_int::try_from(last).map_err(|_| io::ErrorKind::InvalidInput)?;
    let some = File::open("/dev/null")?;
    // SAFETY: takes numbers; `some` is open during the call.
    let copy = check(unsafe { libc::fcntl(some.as_raw_fd(), libc::F_DUPFD_CLOEXEC, last) })?;
    // SAFETY: the kernel has just returned this descriptor, and nobody else knows it.
    drop(unsafe { OwnedFd::from_raw_fd(copy) });
    Ok(())
}

fn set_soft_descriptor_limit(soft: u64) -> io::Result<()> {
    let (_, hard) = descriptor_limit()?;
    let value = libc::rlimit { rlim_cur: soft.min(hard), rlim_max: hard };
    // SAFETY: `value` lives through the call.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &value) })?;
    Ok(())
}

/// The processor time that all threads have used until now.
pub fn cpu_time() -> Duration {
    // SAFETY: the structure consists of integers, for which zero is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` lives through the call, which cannot fail for the own process.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
    let time = |time: libc::timeval| {
        let micros = u64::try_from(time.tv_usec).unwrap_or(0);
        Duration::from_secs(u64::try_from(time.tv_sec).unwrap_or(0)) + Duration::from_micros(micros)
    };
    time(usage.ru_utime) + time(usage.ru_stime)
}

pub(crate) fn c_string(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn core_dumps_are_back_when_the_last_one_wants_them() {
        // SAFETY: takes numbers.
        let dumpable = || unsafe { libc::prctl(libc::PR_GET_DUMPABLE, 0, 0, 0, 0) };
        let before = dumpable();
        let (first, second) = (NoCoreDumps::begin().unwrap(), NoCoreDumps::begin().unwrap());
        drop(first);
        assert_eq!(dumpable(), 0);
        drop(second);
        assert_eq!(dumpable(), before);
    }

    #[test]
    fn errors_have_the_texts_of_the_system() {
        assert_eq!(error_text(libc::EADDRINUSE), "Address already in use");
        assert_eq!(error_text(libc::ENOENT), "No such file or directory");
    }

    #[test]
    fn a_thread_gives_way_and_the_others_do_not() {
        // SAFETY: takes numbers only; 0 is the calling thread.
        let nice = || unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
        let before = nice();
        let other = std::thread::spawn(move || {
            give_way_to_other_threads().unwrap();
            std::thread::spawn(nice).join().unwrap()
        });
        assert_eq!(other.join().unwrap(), (before + 10).min(19));
        assert_eq!(nice(), before);
    }

    #[test]
    fn threads_have_numbers_of_their_own() {
        let other = std::thread::spawn(thread_id).join().unwrap();
        assert_ne!(thread_id(), other);
        assert!(!host_name().is_empty());
    }

    #[test]
    fn the_monotonic_clock_runs() {
        let before = monotonic_micros();
        std::thread::sleep(std::time::Duration::from_millis(2));
        assert!(before > 0 && monotonic_micros() - before >= 2000);
    }

    #[test]
    fn processor_time_is_used() {
        let before = cpu_time();
        while cpu_time() == before {
            std::hint::black_box(c_string(Path::new("/")).unwrap());
        }
    }

    #[test]
    fn the_soft_limit_can_be_raised_to_the_hard_one() {
        let (_, hard) = descriptor_limit().unwrap();
        assert_eq!(raise_descriptor_limit().unwrap(), hard);
        assert_eq!(descriptor_limit().unwrap(), (hard, hard));
    }

    #[test]
    fn the_table_of_descriptors_grows_before_it_is_full() {
        let most = raise_descriptor_limit().unwrap().min(5000);
        make_room_for_descriptors(0).unwrap();
        make_room_for_descriptors(most).unwrap();
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let size = status.lines().find_map(|line| line.strip_prefix("FDSize:")).unwrap();
        assert!(size.trim().parse::<u64>().unwrap() >= most, "{size} for {most}");
    }

    #[test]
    fn a_child_whose_end_was_waited_for_is_still_a_child() {
        let mut child = std::process::Command::new("false").spawn().unwrap();
        wait_for_end(child.id()).unwrap();
        assert!(Path::new("/proc").join(child.id().to_string()).exists());
        assert_eq!(child.wait().unwrap().code(), Some(1));
        let error = wait_for_end(child.id()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ECHILD));
    }

    #[test]
    fn a_process_that_is_not_there_cannot_be_signalled() {
        let error = kill(i32::MAX, 0).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ESRCH));
    }
}
