//! Requests that wait for a peer with room (`queue`).
//!
//! They are served in the order in which they came, whatever their worker: who comes while others
//! wait takes a place behind them, and only the first one looks for a peer. It is woken when a
//! connection is given back or a peer returns. Who goes away gives its place up.

use std::collections::VecDeque;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

/// How often the first one looks although nobody woke it: a rest of a peer ends without a word.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// The requests that wait for a peer of one group, in all its generations.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Mutex<VecDeque<Arc<Notify>>>,
    /// As many as `waiting`, for those who only want to know whether there are any.
    count: AtomicUsize,
}

impl Queue {
    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.count.load(SeqCst) == 0
    }

    /// Takes the last place; `None` if there are `most` already.
    pub(super) fn enter(self: &Arc<Self>, most: usize) -> Option<Place> {
        let mut waiting = self.waiting();
        if waiting.len() >= most {
            return None;
        }
        let turn = Arc::new(Notify::new());
        waiting.push_back(Arc::clone(&turn));
        self.count.store(waiting.len(), SeqCst);
        Some(Place { queue: Arc::clone(self), turn })
    }

    /// Something has changed for the one whose turn it is.
    pub(super) fn wake(&self) {
        if self.is_empty() {
            return;
        }
        if let Some(first) = self.waiting().front() {
            first.notify_one();
        }
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<Arc<Notify>>> {
        // What a thread that panicked has left is a queue all the same.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the queue, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    queue: Arc<Queue>,
    turn: Arc<Notify>,
}

impl Place {
    /// Whether nobody is before it.
    pub(super) fn is_first(&self) -> bool {
        self.queue.waiting().front().is_some_and(|first| Arc::ptr_eq(first, &self.turn))
    }

    /// Resolves when it may look, again.
    pub(super) async fn turn(&self) {
        self.turn.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut waiting = self.queue.waiting();
        waiting.retain(|turn| !Arc::ptr_eq(turn, &self.turn));
        self.queue.count.store(waiting.len(), SeqCst);
        // There may be room for the next one as well.
        if let Some(first) = waiting.front() {
            first.notify_one();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_and_in_order_and_given_up() {
        let queue = Arc::new(Queue::default());
        assert!(queue.is_empty());
        let (first, second) = (queue.enter(2).unwrap(), queue.enter(2).unwrap());
        assert!(queue.enter(2).is_none());
        assert!(first.is_first() && !second.is_first());
        let third = queue.enter(3).unwrap();
        drop(second);
        drop(first);
        assert!(third.is_first() && !queue.is_empty());
        drop(third);
        assert!(queue.is_empty());
    }

    #[tokio::test]
    async fn who_leaves_wakes_the_next_one() {
        let queue = Arc::new(Queue::default());
        let (first, second) = (queue.enter(9).unwrap(), queue.enter(9).unwrap());
        queue.wake();
        first.turn().await;
        drop(first);
        second.turn().await;
        assert!(second.is_first());
    }
}
