//! `open_log_file_cache`: access logs with variables in their path, kept open.
//!
//! As in nginx a path is known from its first use on, and its file stays open from its use number
//! `min_uses` on, until others push it out or it was not used for a while. Unlike there the files are
//! those of all workers together, and a reopening of the logs closes them.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use wssgate_config::model::LogFileCache;

/// The files that one `open_log_file_cache` keeps open.
#[derive(Debug)]
pub(super) struct KeptOpen {
    limits: Arc<LogFileCache>,
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    by_path: HashMap<Box<[u8]>, Entry>,
    /// The paths by their last use, the longest ago first.
    by_use: BTreeMap<u64, Box<[u8]>>,
    /// Uses so far.
    clock: u64,
}

#[derive(Debug)]
struct Entry {
    /// `None` while it is not used often enough.
    file: Option<Arc<File>>,
    /// When it was opened.
    opened: Instant,
    uses: u64,
    last_use: u64,
    used_at: Instant,
}

impl KeptOpen {
    pub(super) fn new(limits: &Arc<LogFileCache>) -> Self {
        Self { limits: Arc::clone(limits), entries: Mutex::default() }
    }

    /// Which line of the configuration it serves.
    pub(super) fn limits(&self) -> &Arc<LogFileCache> {
        &self.limits
    }

    /// Counts a use of `path` and returns its file, if it is open and was opened lately.
    pub(super) fn find(&self, path: &[u8], now: Instant) -> Option<Arc<File>> {
        let mut entries = self.lock();
        entries.touch(path, now);
        let entry = entries.by_path.get_mut(path)?;
        entry.uses += 1;
        if now.duration_since(entry.opened) >= self.limits.valid {
            entry.file = None;
        }
        entry.file.clone()
    }

    /// Remembers a file that was opened because [`KeptOpen::find`] had none.
    pub(super) fn keep(&self, path: &[u8], file: &Arc<File>, now: Instant) {
        let mut entries = self.lock();
        if !entries.by_path.contains_key(path) {
            if entries.by_path.len() >= self.limits.max {
                entries.forget_oldest();
            }
            entries.add(path, now);
        }
        if let Some(entry) = entries.by_path.get_mut(path) {
            entry.file = (entry.uses >= self.limits.min_uses).then(|| Arc::clone(file));
            entry.opened = now;
        }
        // Two a time, so that nobody pays for a heap of old ones.
        for _ in 0..2 {
            if entries.oldest_use().is_some_and(|at| now.duration_since(at) > self.limits.inactive)
            {
                entries.forget_oldest();
            }
        }
    }

    /// Closes all.
    pub(super) fn clear(&self) {
        *self.lock() = Entries::default();
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    fn touch(&mut self, path: &[u8], now: Instant) {
        self.clock += 1;
        if let Some(entry) = self.by_path.get_mut(path) {
            if let Some(path) = self.by_use.remove(&entry.last_use) {
                self.by_use.insert(self.clock, path);
            }
            entry.last_use = self.clock;
            entry.used_at = now;
        }
    }

    fn add(&mut self, path: &[u8], now: Instant) {
        self.clock += 1;
        let entry = Entry { file: None, opened: now, uses: 1, last_use: self.clock, used_at: now };
        self.by_path.insert(path.into(), entry);
        self.by_use.insert(self.clock, path.into());
    }

    fn oldest_use(&self) -> Option<Instant> {
        let (_, path) = self.by_use.first_key_value()?;
        Some(self.by_path.get(path)?.used_at)
    }

    fn forget_oldest(&mut self) {
        if let Some((_, path)) = self.by_use.pop_first() {
            self.by_path.remove(&path);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::*;

    struct Uses {
        kept: KeptOpen,
        file: Arc<File>,
        now: Instant,
    }

    impl Uses {
        fn new(max: usize, min_uses: u64) -> Self {
            let (inactive, valid) = (Duration::from_secs(20), Duration::from_secs(60));
            let limits = Arc::new(LogFileCache { max, inactive, valid, min_uses });
            let file = Arc::new(tempfile::tempfile().unwrap());
            Self { kept: KeptOpen::new(&limits), file, now: Instant::now() }
        }

        /// Whether the file was open.
        fn is_open(&self, path: &str) -> bool {
            let open = self.kept.find(path.as_bytes(), self.now).is_some();
            if !open {
                self.kept.keep(path.as_bytes(), &self.file, self.now);
            }
            open
        }
    }

    #[test]
    fn a_file_stays_open_from_the_wanted_use_on() {
        let uses = Uses::new(3, 2);
        assert_eq!([(); 4].map(|()| uses.is_open("a")), [false, false, true, true]);
        uses.kept.clear();
        assert!(!uses.is_open("a"));
    }

    #[test]
    fn the_one_that_was_not_used_for_longest_makes_room() {
        let uses = Uses::new(2, 1);
        let opened = ["a", "b", "a", "c", "a", "b", "c"].map(|path| uses.is_open(path));
        assert_eq!(opened, [false, false, true, false, true, false, false]);
        assert_eq!(uses.kept.lock().by_path.len(), 2);
        assert_eq!(uses.kept.lock().by_use.len(), 2);
    }

    #[test]
    fn what_is_old_is_opened_anew_and_what_is_not_used_is_closed() {
        let mut uses = Uses::new(9, 1);
        assert!(!uses.is_open("a"));
        assert!(!uses.is_open("b"));
        for _ in 0..3 {
            uses.now += Duration::from_secs(19);
            assert!(uses.is_open("a"));
        }
        uses.now += Duration::from_secs(19);
        assert!(!uses.is_open("a"), "76 s old");
        assert_eq!(uses.kept.lock().by_path.len(), 1, "b was not used for longer than 20 s");
    }
}
