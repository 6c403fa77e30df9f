//! What is counted by what a configuration names, and outlives it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::series::ServerSeries;

/// How many servers have series of their own until a restart; all others share `other`.
pub const MAX_SERVERS: usize = 200;

/// How many generations are told apart; older ones are `older`.
pub const MAX_GENERATIONS: usize = 5;

/// The label of servers beyond [`MAX_SERVERS`].
const OTHER: &str = "other";

/// A number that several threads write, seldom.
#[derive(Debug, Default)]
pub struct Tally(AtomicU64);

impl Tally {
    /// One more.
    pub fn increment(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// One less; every call answers one of [`Tally::increment`].
    pub fn decrement(&self) {
        self.0.fetch_sub(1, Relaxed);
    }

    /// The number.
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// What outlives generations. Nobody who serves takes its locks: only generations that are made, and scrapes.
#[derive(Debug, Default)]
pub struct Registry {
    servers: Mutex<Vec<Arc<ServerSeries>>>,
    generations: Mutex<Vec<(u64, Weak<Tally>)>>,
    /// How loading the configuration goes.
    pub reload: Reload,
}

/// How loading the configuration goes.
#[derive(Debug, Default)]
pub struct Reload {
    failed: AtomicBool,
    tried: AtomicU64,
    succeeded: AtomicU64,
    /// Reloads that put another configuration into effect.
    pub successes: Tally,
    /// Reloads that changed nothing.
    pub failures: Tally,
}

impl Reload {
    /// The first configuration is in effect, at `now`, in seconds since the Unix epoch.
    pub fn started(&self, now: u64) {
        self.tried.store(now, Relaxed);
        self.succeeded.store(now, Relaxed);
    }

    /// A reload has ended at `now`.
    pub fn ended(&self, success: bool, now: u64) {
        self.failed.store(!success, Relaxed);
        self.tried.store(now, Relaxed);
        if success {
            self.succeeded.store(now, Relaxed);
            self.successes.increment();
        } else {
            self.failures.increment();
        }
    }

    /// Whether the last one succeeded, or there was none.
    pub fn is_successful(&self) -> bool {
        !self.failed.load(Relaxed)
    }

    /// When a configuration was last loaded, in seconds since the Unix epoch, whatever came of it; and when the one
    /// that is in effect was.
    pub fn times(&self) -> (u64, u64) {
        (self.tried.load(Relaxed), self.succeeded.load(Relaxed))
    }
}

impl Registry {
    /// The series of servers with these names, in their order, for so many workers.
    pub fn servers<'n>(
        &self,
        names: impl IntoIterator<Item = &'n [u8]>,
        workers: usize,
    ) -> Vec<Arc<ServerSeries>> {
        let mut known = lock(&self.servers);
        names.into_iter().map(|name| series(&mut known, name, workers)).collect()
    }

    /// The series of all servers that there were since the start.
    pub fn all_servers(&self) -> Vec<Arc<ServerSeries>> {
        lock(&self.servers).clone()
    }

    /// Counts the tunnels of a generation.
    pub fn generation(&self, number: u64) -> Arc<Tally> {
        let tally = Arc::new(Tally::default());
        let mut generations = lock(&self.generations);
        generations.retain(|(_, tally)| tally.strong_count() > 0);
        generations.push((number, Arc::downgrade(&tally)));
        tally
    }

    /// The tunnels of each generation that has not ended, the newest first; the last may stand for all `older` ones.
    pub fn generations(&self) -> Vec<(String, u64)> {
        let mut generations = lock(&self.generations);
        generations.retain(|(_, tally)| tally.strong_count() > 0);
        let counts = generations.iter().rev().filter_map(|(number, tally)| {
            let tally = tally.upgrade()?;
            Some((*number, tally.value()))
        });
        let (mut shown, mut older) = (Vec::new(), None);
        for (number, count) in counts {
            if shown.len() < MAX_GENERATIONS {
                shown.push((number.to_string(), count));
            } else {
                *older.get_or_insert(0) += count;
            }
        }
        shown.extend(older.map(|count| ("older".to_owned(), count)));
        shown
    }
}

fn series(known: &mut Vec<Arc<ServerSeries>>, name: &[u8], workers: usize) -> Arc<ServerSeries> {
    let name = String::from_utf8_lossy(name);
    let name = if name.is_empty() { "_" } else { &*name };
    let name = match known.iter().any(|one| *one.name == *name) {
        false if known.len() >= MAX_SERVERS => OTHER,
        _ => name,
    };
    if let Some(found) = known.iter().find(|one| *one.name == *name) {
        return Arc::clone(found);
    }
    let new = Arc::new(ServerSeries::new(name, workers));
    known.push(Arc::clone(&new));
    new
}

/// A poisoned lock only means that some thread panicked; what it holds is still whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_found_again_by_its_name() {
        let registry = Registry::default();
        let first = registry.servers([&b"a.test"[..], b"", b"a.test"], 1);
        first[0].worker(0).opened.increment();
        let second = registry.servers([&b"a.test"[..]], 1);
        assert_eq!(second[0].total(|c| c.opened.value()), 1);
        let names: Vec<_> = first.iter().map(|one| &*one.name).collect();
        assert_eq!(names, ["a.test", "_", "a.test"]);
        assert_eq!(registry.all_servers().len(), 2);
    }

    #[test]
    fn too_many_servers_share_one_series() {
        let registry = Registry::default();
        let names: Vec<_> = (0..MAX_SERVERS + 10).map(|number| number.to_string()).collect();
        let series = registry.servers(names.iter().map(String::as_bytes), 1);
        assert_eq!(registry.all_servers().len(), MAX_SERVERS + 1);
        assert_eq!(&*series[MAX_SERVERS - 1].name, "199");
        assert!(series[MAX_SERVERS..].iter().all(|one| &*one.name == "other"));
    }

    #[test]
    fn generations_are_told_apart_as_long_as_they_live_and_are_few() {
        let registry = Registry::default();
        let mut tallies: Vec<_> = (1..=8).map(|number| registry.generation(number)).collect();
        tallies.iter().for_each(|tally| tally.increment());
        let shown = registry.generations();
        let shown: Vec<_> = shown.iter().map(|(name, count)| (&**name, *count)).collect();
        assert_eq!(shown, [("8", 1), ("7", 1), ("6", 1), ("5", 1), ("4", 1), ("older", 3)]);
        tallies.drain(1..7);
        let shown = registry.generations();
        let shown: Vec<_> = shown.iter().map(|(name, count)| (&**name, *count)).collect();
        assert_eq!(shown, [("8", 1), ("1", 1)]);
    }

    #[test]
    fn the_last_reload_is_told() {
        let reload = Reload::default();
        reload.started(10);
        reload.ended(false, 20);
        assert!(!reload.is_successful());
        assert_eq!(reload.times(), (20, 10));
        reload.ended(true, 30);
        assert!(reload.is_successful());
        assert_eq!(reload.times(), (30, 30));
        assert_eq!((reload.successes.value(), reload.failures.value()), (1, 1));
    }
}
