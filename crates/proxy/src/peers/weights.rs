//! nginx's `current_weight`: how far each peer has come in round robin.
//!
//! Every worker has its own, as nginx's have without `zone`. A choice writes the weights of all
//! peers, so shared ones would have to be fought for; and they must be exact, because what is lost
//! of them once is never made up for. So that a few long connections do not all begin at the first
//! peer, each worker begins a choice later than the one before it.

use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering::Relaxed;

/// The current weights of a list of peers, for each worker.
#[derive(Debug, Default)]
pub(super) struct CurrentWeights {
    /// Of one worker after the other, the same number for each.
    lines: Box<[Line]>,
    lines_each: usize,
}

/// What processors fetch and take from each other as a whole: no two workers share one.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Line([AtomicI64; LINE]);

const LINE: usize = 8;

impl CurrentWeights {
    /// Those of `peers` peers at rest.
    fn zeroed(peers: usize, workers: usize) -> Self {
        let lines_each = peers.div_ceil(LINE).max(1);
        let lines = (0..lines_each * workers.max(1)).map(|_| Line::default()).collect();
        Self { lines, lines_each }
    }

    /// Those of peers with these weights, 0 for one that is not in use. Each worker begins where
    /// the one before it has made one choice.
    pub(super) fn new(weights: &[i64], workers: usize) -> Self {
        let all = Self::zeroed(weights.len(), workers);
        let total: i64 = weights.iter().sum();
        let mut current = vec![0; weights.len()];
        for worker in 0..workers {
            all.of_worker(worker).set(&current);
            for (current, weight) in current.iter_mut().zip(weights) {
                *current += weight;
            }
            // Of equals the first, as in a choice.
            if let Some(best) = (0..current.len()).rev().max_by_key(|index| current[*index]) {
                current[best] -= total;
            }
        }
        all
    }

    /// Those of another list of peers: `origin` says for each where it was in this one.
    pub(super) fn carried_over(&self, origin: &[Option<usize>], workers: usize) -> Self {
        let all = Self::zeroed(origin.len(), workers);
        for worker in 0..workers {
            let before = self.of_worker(worker);
            let mut current: Vec<_> =
                origin.iter().map(|origin| origin.map_or(0, |index| before.get(index))).collect();
            // What has gone with peers that were removed, so that new ones, at 0, are level with
            // the others.
            let mean =
                current.iter().sum::<i64>() / i64::try_from(origin.len()).unwrap_or(1).max(1);
            current.iter_mut().for_each(|current| *current -= mean);
            all.of_worker(worker).set(&current);
        }
        all
    }

    /// Those of one worker. There must be as many as was said, or some have to share.
    pub(super) fn of_worker(&self, worker: usize) -> WorkerWeights<'_> {
        let from = worker * self.lines_each;
        // A division would take longer than all the rest.
        let from = if from < self.lines.len() { from } else { from % self.lines.len() };
        WorkerWeights(&self.lines[from..from + self.lines_each])
    }
}

/// The current weights of one worker, which nobody else writes.
#[derive(Clone, Copy, Debug)]
pub(super) struct WorkerWeights<'a>(&'a [Line]);

impl WorkerWeights<'_> {
    fn slot(&self, index: usize) -> &AtomicI64 {
        &self.0[index / LINE].0[index % LINE]
    }

    /// The weight of a peer.
    pub(super) fn get(&self, index: usize) -> i64 {
        self.slot(index).load(Relaxed)
    }

    fn set(&self, current: &[i64]) {
        for (index, current) in current.iter().enumerate() {
            self.slot(index).store(*current, Relaxed);
        }
    }

    /// Adds to the weight of a peer, and returns what it is then.
    pub(super) fn add(&self, index: usize, weight: i64) -> i64 {
        let slot = self.slot(index);
        let sum = slot.load(Relaxed) + weight;
        slot.store(sum, Relaxed);
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(all: &CurrentWeights, worker: usize, peers: usize) -> Vec<i64> {
        (0..peers).map(|index| all.of_worker(worker).get(index)).collect()
    }

    #[test]
    fn each_worker_begins_a_choice_later() {
        let all = CurrentWeights::new(&[1, 0, 2], 4);
        for (worker, expected) in [[0, 0, 0], [1, 0, -1], [-1, 0, 1], [0, 0, 0]].iter().enumerate()
        {
            assert_eq!(of(&all, worker, 3), expected, "worker {worker}");
        }
    }

    #[test]
    fn what_is_carried_over_is_level_again() {
        let before = CurrentWeights::new(&[], 0);
        assert_eq!(of(&before.carried_over(&[None; 9], 2), 1, 9), [0; 9]);
        let before = CurrentWeights::zeroed(3, 2);
        before.of_worker(1).set(&[4, -6, 2]);
        assert_eq!(of(&before.carried_over(&[Some(0), Some(1), Some(2)], 2), 1, 3), [4, -6, 2]);
        let after = before.carried_over(&[Some(2), None, Some(0)], 2);
        assert_eq!(of(&after, 0, 3), [0, 0, 0]);
        assert_eq!(of(&after, 1, 3), [0, -2, 2]);
    }
}
