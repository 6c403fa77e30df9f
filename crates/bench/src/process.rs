//! What the operating system says of a process and all that it started.
//!
//! CPU time is the sum of `/proc/PID/task/*/schedstat`: user and system time of every thread, in
//! nanoseconds. It is right even when the load cannot keep the proxy busy. Memory is the
//! proportional set size (`Pss` of `smaps_rollup`), in which pages that two processes share count
//! once; the kernel's own memory for sockets is not in it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;
use std::io;
use std::time::Duration;

/// The processes of one proxy: the one that was started and its descendants.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tree {
    root: u32,
}

impl Tree {
    pub(crate) fn of(root: u32) -> Self {
        Self { root }
    }

    /// CPU time so far, user and system.
    pub(crate) fn cpu(self) -> io::Result<Duration> {
        self.pids()?.into_iter().map(cpu_of).sum()
    }

    /// CPU time so far, user and system, also of children of the root that have ended and that it has
    /// waited for; theirs is counted in hundredths of a second.
    ///
    /// A process that ends while this looks is left out until then.
    pub(crate) fn cpu_with_ended(self) -> io::Result<Duration> {
        let living = self.pids()?.into_iter().filter_map(|pid| cpu_of(pid).ok()).sum::<Duration>();
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.root))?;
        Ok(living + ended_children(&stat).ok_or(io::ErrorKind::InvalidData)?)
    }

    /// Proportional set size in bytes.
    pub(crate) fn pss(self) -> io::Result<u64> {
        self.pids()?.into_iter().map(pss_of).sum()
    }

    /// The root and its descendants, parents first.
    pub(crate) fn pids(self) -> io::Result<Vec<u32>> {
        let mut parents = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            // Processes that have ended since are none of ours.
            let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
            if let Some(parent) = parent_pid(&stat) {
                parents.push((pid, parent));
            }
        }
        Ok(descendants(self.root, &parents))
    }
}

/// Processes that replace each other: those that were known once, and their children.
///
/// What a process used between the last look and its end is missing.
#[derive(Debug)]
pub(crate) struct Line {
    /// CPU time of each when it was looked at last.
    seen: BTreeMap<u32, Duration>,
}

impl Line {
    /// The one that begins.
    pub(crate) fn from(pid: u32) -> Self {
        Self { seen: BTreeMap::from([(pid, Duration::ZERO)]) }
    }

    /// CPU time so far of all of them, user and system. It looks at nobody else, and so takes little time.
    pub(crate) fn cpu(&mut self) -> Duration {
        let mut next: Vec<u32> = self.seen.keys().copied().collect();
        while let Some(pid) = next.pop() {
            for child in children(pid) {
                if let Entry::Vacant(place) = self.seen.entry(child) {
                    place.insert(Duration::ZERO);
                    next.push(child);
                }
            }
        }
        for (&pid, cpu) in &mut self.seen {
            // Of one that has ended there is what was seen last.
            *cpu = cpu_of(pid).unwrap_or_default().max(*cpu);
        }
        self.seen.values().sum()
    }
}

/// The children of a process, whichever thread has started them; none if it has ended.
fn children(pid: u32) -> Vec<u32> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let texts = tasks.flatten().map(|task| fs::read_to_string(task.path().join("children")));
    let texts: Vec<String> = texts.flatten().collect();
    texts.iter().flat_map(|text| text.split(' ')).filter_map(|pid| pid.parse().ok()).collect()
}

/// Whether a process is there and has not ended.
pub(crate) fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

fn descendants(root: u32, parents: &[(u32, u32)]) -> Vec<u32> {
    let mut found = vec![root];
    let mut next = 0;
    while let Some(&pid) = found.get(next) {
        found.extend(parents.iter().filter(|(_, parent)| *parent == pid).map(|(child, _)| child));
        next += 1;
    }
    found
}

/// The fourth field of `/proc/PID/stat`; the second one may contain spaces and parentheses.
fn parent_pid(stat: &str) -> Option<u32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// The 16th and the 17th field of `/proc/PID/stat`, in ticks, of which every Linux tells programs that
/// there are a hundred a second.
fn ended_children(stat: &str) -> Option<Duration> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(13);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    Some(Duration::from_millis(10) * u32::try_from(ticks()? + ticks()?).ok()?)
}

fn cpu_of(pid: u32) -> io::Result<Duration> {
    let mut ns = 0;
    let tasks = format!("/proc/{pid}/task");
    for task in fs::read_dir(&tasks).map_err(|error| about(&tasks, &error))? {
        // A thread that has just ended is gone together with what it used; nobody measured here
        // ends threads while it is measured.
        if let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) {
            ns += first_number(&text).ok_or(io::ErrorKind::InvalidData)?;
        }
    }
    Ok(Duration::from_nanos(ns))
}

fn pss_of(pid: u32) -> io::Result<u64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).map_err(|error| about(&path, &error))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kib = line.and_then(first_number).ok_or(io::ErrorKind::InvalidData)?;
    Ok(kib * 1024)
}

fn about(path: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{path}: {error}"))
}

fn first_number(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}

/// CPU time of the calling thread, which is the load's.
pub(crate) fn own_cpu() -> io::Result<Duration> {
    let text = fs::read_to_string("/proc/thread-self/schedstat")?;
    let ns = first_number(&text).ok_or(io::ErrorKind::InvalidData)?;
    Ok(Duration::from_nanos(ns))
}

/// How many threads want to run, over the last minute; a measurement wants to be alone.
pub(crate) fn load_average() -> Option<f64> {
    fs::read_to_string("/proc/loadavg").ok()?.split_whitespace().next()?.parse().ok()
}

/// The name of the processor and of the kernel, for the report.
pub(crate) fn machine() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let model = model.map_or("unknown processor", |(_, model)| model);
    format!("{}, Linux {}", model.trim(), kernel.trim())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_is_found_behind_any_name() {
        assert_eq!(parent_pid("12 (a) S 3) b) S 7 12 12 0"), Some(7));
        assert_eq!(parent_pid("12"), None);
    }

    #[test]
    fn what_ended_children_used_is_read_behind_any_name() {
        let stat = "12 (a b) S 7 12 12 0 -1 4194304 1 2 3 4 50 60 150 25 20 0 1";
        assert_eq!(ended_children(stat), Some(Duration::from_millis(1750)));
        assert_eq!(ended_children("12 (a b) S 7"), None);
        let tree = Tree::of(std::process::id());
        assert!(tree.cpu_with_ended().unwrap() >= own_cpu().unwrap());
    }

    #[test]
    fn descendants_are_found_at_any_depth() {
        let parents = [(5, 3), (2, 1), (3, 2), (4, 9), (6, 2)];
        assert_eq!(descendants(2, &parents), [2, 3, 6, 5]);
    }

    #[test]
    fn what_an_ended_child_used_stays_in_its_line() {
        // It ends by itself, should nobody do it.
        let text = "i=0; while [ $i -lt 3000000 ]; do i=$((i + 1)); done";
        let mut child = std::process::Command::new("sh").args(["-c", text]).spawn().unwrap();
        let mut line = Line::from(std::process::id());
        let is_seen = |line: &Line| line.seen.get(&child.id()) > Some(&Duration::from_millis(10));
        while !is_seen(&line) && is_alive(child.id()) {
            line.cpu();
        }
        let used = line.seen[&child.id()];
        assert!(used > Duration::ZERO);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!is_alive(child.id()) && line.cpu() >= used);
        assert!(line.seen[&child.id()] >= used);
    }

    #[test]
    fn this_process_uses_time_and_memory() {
        let tree = Tree::of(std::process::id());
        assert!(tree.pids().unwrap().contains(&std::process::id()));
        assert!(tree.pss().unwrap() > 100_000);
        assert!(tree.cpu().unwrap() >= own_cpu().unwrap());
    }
}
