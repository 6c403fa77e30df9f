//! A bounded number of places.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// `MAX` places; all copies are of the same ones.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places<const MAX: usize>(Arc<AtomicUsize>);

/// One of them. Dropping it makes room.
#[derive(Debug)]
pub(super) struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<const MAX: usize> Places<MAX> {
    /// A place, if one is free.
    pub(super) fn take(&self) -> Option<Place> {
        let more = |taken| (taken < MAX).then_some(taken + 1);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Place(Arc::clone(&self.0)))
    }

    /// Whether any is taken.
    pub(crate) fn are_in_use(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_only_so_many_at_a_time() {
        let places = Places::<4>::default();
        let mut taken: Vec<_> = (0..4).filter_map(|_| places.clone().take()).collect();
        assert_eq!((taken.len(), places.take().is_none()), (4, true));
        taken.pop();
        assert!(places.take().is_some());
        assert!(places.are_in_use());
        drop(taken);
        assert!(!places.are_in_use());
    }
}
