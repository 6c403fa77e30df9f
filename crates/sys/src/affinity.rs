//! Which cores a thread may run on.

#![allow(unsafe_code)]

use std::io;

use crate::epoll::check;

/// The cores that the calling thread may run on, in order.
pub fn allowed_cores() -> io::Result<Vec<usize>> {
    let set = affinity()?;
    // SAFETY: only reads `set`, within its size.
    Ok((0..MAX_CORES).filter(|&core| unsafe { libc::CPU_ISSET(core, &set) }).collect())
}

/// Binds the calling thread, and what it starts from now on, to one core.
pub fn run_on(core: usize) -> io::Result<()> {
    run_on_any(&[core])
}

/// Binds the calling thread, and what it starts from now on, to these cores.
pub fn run_on_any(cores: &[usize]) -> io::Result<()> {
    let mut set = empty();
    for &core in cores {
        if core >= MAX_CORES {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: `core` is within the set's size, which was just checked.
        unsafe { libc::CPU_SET(core, &mut set) };
    }
    // SAFETY: `set` lives through the call and its size is told; 0 is the calling thread.
    check(unsafe { libc::sched_setaffinity(0, size_of_val(&set), &set) })?;
    Ok(())
}

const MAX_CORES: usize = libc::CPU_SETSIZE as usize;

fn affinity() -> io::Result<libc::cpu_set_t> {
    let mut set = empty();
    // SAFETY: `set` lives through the call and its size is told; 0 is the calling thread.
    check(unsafe { libc::sched_getaffinity(0, size_of_val(&set), &mut set) })?;
    Ok(set)
}

fn empty() -> libc::cpu_set_t {
    // SAFETY: the set is an array of integers, for which zeros are valid.
    unsafe { std::mem::zeroed() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_thread_may_run_on_its_core_only() {
        let all = allowed_cores().unwrap();
        let last = *all.last().unwrap();
        std::thread::spawn(move || {
            run_on(last).unwrap();
            assert_eq!(allowed_cores().unwrap(), [last]);
        })
        .join()
        .unwrap();
        assert_eq!(allowed_cores().unwrap(), all);
    }

    #[test]
    fn a_core_that_cannot_be_is_refused() {
        assert_eq!(run_on(usize::MAX).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
