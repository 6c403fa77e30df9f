//! What the system tells of the process, by the names that Prometheus' own libraries give it.

use std::fs;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use wssgate_metrics::Exposition;
use wssgate_sys::process;

use super::families;

/// Where the descriptors of the process are listed.
const DESCRIPTORS: &str = "/proc/self/fd";

/// How long a count of descriptors is good for: with ten thousands of them it takes milliseconds.
const COUNT_AGAIN: Duration = Duration::from_secs(10);

/// Writes what is known; the process began at `started`.
pub(super) fn write(out: &mut Exposition, started: SystemTime) {
    if let Some(open) = open_descriptors() {
        out.family(&families::OPEN_FDS).count(&[], open);
    }
    if let Ok((limit, _)) = process::descriptor_limit() {
        out.family(&families::MAX_FDS).count(&[], limit);
    }
    if let Some(bytes) = fs::read_to_string("/proc/self/status").ok().as_deref().and_then(resident)
    {
        out.family(&families::RESIDENT).count(&[], bytes);
    }
    out.family(&families::CPU).number(&[], process::cpu_time().as_secs_f64());
    let began = started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    out.family(&families::START_TIME).number(&[], began.as_secs_f64());
}

/// How many descriptors are open. Since Linux 6.2 the kernel says so; before, they are counted.
fn open_descriptors() -> Option<u64> {
    match fs::metadata(DESCRIPTORS).ok()?.len() {
        0 => counted_descriptors(),
        told => Some(told),
    }
}

fn counted_descriptors() -> Option<u64> {
    static COUNTED: Mutex<Option<(Instant, u64)>> = Mutex::new(None);
    let mut counted = COUNTED.lock().unwrap_or_else(PoisonError::into_inner);
    match *counted {
        Some((at, count)) if at.elapsed() < COUNT_AGAIN => Some(count),
        _ => {
            // But for the one that reads the list.
            let count = fs::read_dir(DESCRIPTORS).ok()?.count().saturating_sub(1) as u64;
            *counted = Some((Instant::now(), count));
            Some(count)
        }
    }
}

/// The bytes in memory that `/proc/self/status` tells.
fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_system_tells_of_memory_and_descriptors() {
        assert_eq!(resident("Name:\tx\nVmRSS:\t    5400 kB\nThreads: 1\n"), Some(5400 * 1024));
        assert_eq!(resident("VmRSS: many kB\n"), None);
        let before = counted_descriptors().unwrap();
        assert!(before > 2);
        if let Some(told) = open_descriptors() {
            // Other tests open some meanwhile.
            assert!(told.abs_diff(before) < 200, "{told} {before}");
        }
    }
}
