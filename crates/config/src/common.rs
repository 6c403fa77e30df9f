//! What blocks share that say nothing about it; thousands may be inside one server.

use std::cell::OnceCell;
use std::rc::Rc;
use std::sync::Arc;

/// A part of the settings on the way down: made once for all levels that take it over as it is.
pub(crate) struct Common<T> {
    /// Whether this level takes it over.
    inherited: bool,
    value: Rc<OnceCell<Arc<T>>>,
}

impl<T> Common<T> {
    /// What a level says that does not take over all that is outside.
    pub(crate) fn new() -> Self {
        Self { inherited: false, value: Rc::default() }
    }

    /// The same for a level inside.
    pub(crate) fn inner(&self, inherited: bool) -> Self {
        match inherited {
            true => Self { inherited, value: Rc::clone(&self.value) },
            false => Self::new(),
        }
    }

    /// What applies on this level. Only the level that says something is asked what is wrong with it.
    pub(crate) fn get(&self, make: impl FnOnce() -> T) -> Arc<T> {
        match self.inherited {
            true => Arc::clone(self.value.get_or_init(|| Arc::new(make()))),
            false => Arc::new(make()),
        }
    }
}
