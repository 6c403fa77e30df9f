//! Giving up root: who to become, and which capabilities which thread keeps.
//!
//! nginx has a master process that stays root. We are one process, so all of it becomes the user, and
//! only the main thread keeps three capabilities (they belong to threads on Linux, capabilities(7)):
//! to bind low ports, to read keys and open logs that only root may, and to give logs to the user.
//! Every other thread gives up even those before it touches a byte from the network.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::io;
use std::mem::MaybeUninit;

use crate::epoll::check;

/// A user of the system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The name, for supplementary groups.
    pub name: String,
    /// Its number.
    pub uid: u32,
    /// The number of its group.
    pub gid: u32,
}

/// Bytes for the text of one entry of the user or group database; `ERANGE` beyond.
const MAX_ENTRY: usize = 1 << 20;

/// Looks a user up by name; `None` when there is none.
pub fn user(name: &str) -> io::Result<Option<User>> {
    let c_name = CString::new(name).map_err(|_| io::ErrorKind::InvalidInput)?;
    lookup(|buffer| {
        let mut entry = MaybeUninit::<libc::passwd>::uninit();
        let mut found = std::ptr::null_mut();
        // SAFETY: the name is a C string, the buffer's length is told, and all live through the call.
        let result = unsafe {
            libc::getpwnam_r(
                c_name.as_ptr(),
                entry.as_mut_ptr(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                &mut found,
            )
        };
        if result != 0 || found.is_null() {
            return (result, None);
        }
        // SAFETY: a result that is not null points to the entry, which is filled in.
        let entry = unsafe { entry.assume_init() };
        (0, Some(User { name: name.to_owned(), uid: entry.pw_uid, gid: entry.pw_gid }))
    })
}

/// Looks a group's number up by name; `None` when there is none.
pub fn group(name: &str) -> io::Result<Option<u32>> {
    let c_name = CString::new(name).map_err(|_| io::ErrorKind::InvalidInput)?;
    lookup(|buffer| {
        let mut entry = MaybeUninit::<libc::group>::uninit();
        let mut found = std::ptr::null_mut();
        // SAFETY: the name is a C string, the buffer's length is told, and all live through the call.
        let result = unsafe {
            libc::getgrnam_r(
                c_name.as_ptr(),
                entry.as_mut_ptr(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                &mut found,
            )
        };
        if result != 0 || found.is_null() {
            return (result, None);
        }
        // SAFETY: a result that is not null points to the entry, which is filled in.
        (0, Some(unsafe { entry.assume_init() }.gr_gid))
    })
}

fn lookup<T>(mut ask: impl FnMut(&mut [u8]) -> (libc::c_int, Option<T>)) -> io::Result<Option<T>> {
    let mut buffer = vec![0; 4096];
    loop {
        match ask(&mut buffer) {
            (0, answer) => return Ok(answer),
            (libc::ERANGE, _) if buffer.len() < MAX_ENTRY => buffer.resize(buffer.len() * 4, 0),
            // POSIX leaves open how "no such name" is told.
            (libc::ENOENT | libc::ESRCH, _) => return Ok(None),
            (errno, _) => return Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

/// Whether this process runs as root.
pub fn is_root() -> bool {
    // SAFETY: takes nothing and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// Whether a user with this number may do whatever this process may: it is the same one, or root.
pub fn is_own_or_root(uid: u32) -> bool {
    // SAFETY: takes nothing and cannot fail.
    uid == 0 || uid == unsafe { libc::geteuid() }
}

/// The user and group that this process runs as, also if the system has no name for them: then the name is the number.
pub fn own_user() -> User {
    // SAFETY: both take nothing and cannot fail.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    User { name: user_name(uid).unwrap_or_else(|| uid.to_string()), uid, gid }
}

/// Whether this process runs as that user already.
pub fn runs_as(user: &User) -> bool {
    // SAFETY: takes nothing and cannot fail.
    unsafe { libc::geteuid() == user.uid }
}

const CAP_CHOWN: u32 = 0;
const CAP_DAC_OVERRIDE: u32 = 1;
const CAP_NET_BIND_SERVICE: u32 = 10;
const KEPT: u32 = 1 << CAP_CHOWN | 1 << CAP_DAC_OVERRIDE | 1 << CAP_NET_BIND_SERVICE;

/// Makes the whole process run as `user`; the calling thread keeps the three capabilities of the
/// module. Call it in the main thread before there are others. Becoming root changes nothing.
pub fn become_user(user: &User) -> io::Result<()> {
    let name = CString::new(user.name.as_str()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: `name` is a C string that lives through the call; the others take numbers.
    unsafe {
        check(libc::setgid(user.gid))?;
        check(libc::initgroups(name.as_ptr(), user.gid))?;
        if user.uid == 0 {
            return Ok(());
        }
        check(libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0))?;
        check(libc::setuid(user.uid))?;
        check(libc::prctl(libc::PR_SET_KEEPCAPS, 0, 0, 0, 0))?;
    }
    set_capabilities(KEPT)
}

/// Gives up every capability of the calling thread, unless the process runs as root anyway.
pub fn drop_capabilities() -> io::Result<()> {
    if is_root() { Ok(()) } else { set_capabilities(0) }
}

/// Lets the capabilities that the calling thread may use survive its next exec, as ambient ones (capabilities(7)).
/// Whatever of that the system refuses is lost with the exec. Makes system calls only, so that it may be called between
/// fork and exec.
pub(crate) fn keep_across_exec() {
    if is_root() {
        return;
    }
    let Ok([low, high]) = sets() else { return };
    let inheritable = |set: CapabilitySet| CapabilitySet { inheritable: set.permitted, ..set };
    if set_sets(&[inheritable(low), inheritable(high)]).is_err() {
        return;
    }
    let permitted = u64::from(high.permitted) << 32 | u64::from(low.permitted);
    for capability in (0..u64::BITS).filter(|bit| permitted >> bit & 1 == 1) {
        let raise = libc::PR_CAP_AMBIENT_RAISE as libc::c_ulong;
        let capability = libc::c_ulong::from(capability);
        // SAFETY: takes numbers.
        unsafe { libc::prctl(libc::PR_CAP_AMBIENT, raise, capability, 0, 0) };
    }
}

/// Keeps the capabilities that came with the exec to the calling thread: programs that it starts do not get them, and as
/// after [`become_user`] no other process of the user may look into this one. Call it in the main thread before there are
/// others; for root, and for who has none, it does nothing.
pub fn settle_kept() -> io::Result<()> {
    let [low, high] = sets()?;
    if is_root() || !keeps_some()? {
        return Ok(());
    }
    let settled = |set: CapabilitySet| CapabilitySet { inheritable: 0, ..set };
    set_sets(&[settled(low), settled(high)])?;
    // SAFETY: takes numbers.
    check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) })?;
    Ok(())
}

/// Whether this process was started by root, is another user now, and its calling thread has kept what
/// [`become_user`] keeps.
pub fn keeps_some() -> io::Result<bool> {
    Ok(!is_root() && effective_capabilities()? & u64::from(KEPT) == u64::from(KEPT))
}

/// The header and the two halves of the sets of capset(2), version 3.
#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: libc::c_int,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapabilitySet {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const VERSION_3: u32 = 0x2008_0522;

fn set_capabilities(kept: u32) -> io::Result<()> {
    let low = CapabilitySet { effective: kept, permitted: kept, inheritable: 0 };
    set_sets(&[low, CapabilitySet::default()])
}

fn set_sets(sets: &[CapabilitySet; 2]) -> io::Result<()> {
    let header = CapabilityHeader { version: VERSION_3, pid: 0 };
    // SAFETY: header and sets have the layout of version 3 and live through the call.
    let result = unsafe { libc::syscall(libc::SYS_capset, &header, sets.as_ptr()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn sets() -> io::Result<[CapabilitySet; 2]> {
    let header = CapabilityHeader { version: VERSION_3, pid: 0 };
    let mut sets = [CapabilitySet::default(); 2];
    // SAFETY: header and sets have the layout of version 3 and live through the call.
    let result = unsafe { libc::syscall(libc::SYS_capget, &header, sets.as_mut_ptr()) };
    if result == 0 { Ok(sets) } else { Err(io::Error::last_os_error()) }
}

/// The capabilities that the calling thread may use now, one bit each.
pub fn effective_capabilities() -> io::Result<u64> {
    let [low, high] = sets()?;
    Ok(u64::from(high.effective) << 32 | u64::from(low.effective))
}

/// The name of the user with this number, for messages.
pub fn user_name(uid: u32) -> Option<String> {
    lookup(|buffer| {
        let mut entry = MaybeUninit::<libc::passwd>::uninit();
        let mut found = std::ptr::null_mut();
        // SAFETY: the buffer's length is told, and everything lives through the call.
        let result = unsafe {
            libc::getpwuid_r(
                uid,
                entry.as_mut_ptr(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                &mut found,
            )
        };
        if result != 0 || found.is_null() {
            return (result, None);
        }
        // SAFETY: a result that is not null points to the entry, which is filled in; its name is a C
        // string in the buffer.
        let name = unsafe { CStr::from_ptr(entry.assume_init().pw_name) };
        (0, Some(name.to_string_lossy().into_owned()))
    })
    .ok()
    .flatten()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn whoever_runs_this_is_known() {
        let root = user("root").unwrap().unwrap();
        assert_eq!(runs_as(&root), is_root());
        let own = own_user();
        assert!(runs_as(&own) && (own.name == "root") == is_root());
        assert!(!runs_as(&User { uid: u32::MAX, ..root }));
    }

    #[test]
    fn root_is_known_and_nonsense_is_not() {
        assert_eq!(user("root").unwrap().unwrap().uid, 0);
        assert_eq!(group("root").unwrap(), Some(0));
        assert_eq!(user("no such user").unwrap(), None);
        assert_eq!(group("no such group").unwrap(), None);
        assert_eq!(user_name(0).as_deref(), Some("root"));
    }

    /// What a successor of the program finds itself to be.
    #[test]
    fn capabilities_that_are_kept_across_exec_are_there_after_it() {
        if !is_root() {
            eprintln!("skipped: needs root");
            return;
        }
        use std::os::unix::process::CommandExt;
        let mut command = std::process::Command::new("grep");
        command.args(["^Cap[EA]", "/proc/self/status"]);
        // SAFETY: makes system calls; the name that is allocated is so in a process of one test's threads, which
        // hold no lock of the allocator for long, and glibc's own handlers make it usable after a fork.
        unsafe {
            command.pre_exec(|| {
                let nobody = User { name: "nobody".into(), uid: 65_534, gid: 65_534 };
                become_user(&nobody)?;
                keep_across_exec();
                Ok(())
            })
        };
        let told = String::from_utf8(command.output().unwrap().stdout).unwrap();
        assert_eq!(told, format!("CapEff:\t{KEPT:016x}\nCapAmb:\t{KEPT:016x}\n"));
    }

    /// setuid(2) concerns the whole process, so a child of its own tries it.
    #[test]
    fn the_main_thread_keeps_three_capabilities_and_others_give_up_all() {
        if !is_root() {
            eprintln!("skipped: needs root");
            return;
        }
        // SAFETY: the child only makes system calls and leaves with _exit.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let nobody = User { name: "nobody".into(), uid: 65_534, gid: 65_534 };
            let kept = become_user(&nobody).and_then(|()| effective_capabilities());
            let none = drop_capabilities().and_then(|()| effective_capabilities());
            let good = kept.is_ok_and(|kept| kept == u64::from(KEPT))
                && none.is_ok_and(|none| none == 0)
                && !is_root();
            // SAFETY: ends the child without running the parent's destructors.
            unsafe { libc::_exit(i32::from(!good)) };
        }
        let mut status = -1;
        // SAFETY: waits for our child; `status` lives through the call.
        unsafe { libc::waitpid(child, &mut status, 0) };
        assert_eq!(status, 0);
    }
}
