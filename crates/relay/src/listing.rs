//! What others may know of live tunnels, and how they name one of them.
//!
//! A relay must not stand still for who asks, so it is asked for a part at a time: it answers between two
//! turns and goes on with its work. A key alone names no tunnel, for the next one may have it; with the
//! label that was handed over it does ([`Handle`]).

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::Progress;

/// How many places a relay looks at for one part: some 50 µs.
pub const PAGE: usize = 256;

/// How many tunnels a relay is to kill at once: each takes two Closes to send.
pub const MAX_KILLS: usize = 32;

/// What whoever hands a tunnel over knows of it; the relay only gives it back.
#[derive(Clone)]
pub struct Label(Arc<dyn Any + Send + Sync>);

impl Label {
    /// Of this tunnel alone.
    pub fn new<T: Any + Send + Sync>(about: T) -> Self {
        Self(Arc::new(about))
    }

    /// What it was made of, if that was a `T`.
    pub fn about<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        Arc::clone(&self.0).downcast().ok()
    }

    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Label")
    }
}

/// Names one tunnel of a relay, and no other one ever: as long as its label is held, no other has it.
#[derive(Debug, Clone)]
pub struct Handle {
    key: usize,
    label: Label,
}

impl Handle {
    /// Of the tunnel with this label, which is at this place or nowhere.
    pub fn new(key: usize, label: &Label) -> Self {
        Self { key, label: label.clone() }
    }

    /// What the tunnel was handed over with.
    pub fn label(&self) -> &Label {
        &self.label
    }

    pub(crate) fn key(&self) -> usize {
        self.key
    }

    /// Whether the tunnel at its key is still the one.
    pub(crate) fn names(&self, label: Option<&Label>) -> bool {
        label.is_some_and(|label| self.label.is(label))
    }
}

/// A live tunnel at one moment.
#[derive(Debug, Clone)]
pub struct Live {
    /// Which one.
    pub handle: Handle,
    /// As it was handed over.
    pub generation: u64,
    /// Whether it is a WebSocket whose frames are known.
    pub is_websocket: bool,
    /// How long nothing has moved, in either direction.
    pub idle: Duration,
    /// Whether its end has begun: a side or we have closed or ended a direction.
    pub is_ending: bool,
    /// Whether we have begun to close it.
    pub is_closing: bool,
    /// What has passed.
    pub passed: Progress,
}

/// A part of the tunnels of a relay.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// Those with a label among [`PAGE`] places.
    pub tunnels: Vec<Live>,
    /// Where the next part begins; `None` behind the last one.
    pub next: Option<usize>,
}
