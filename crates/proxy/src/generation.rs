//! All that one configuration builds; immutable, replaced whole.
//!
//! A reload makes a new generation beside the old one and swaps a pointer. What began with the old
//! one keeps it by an `Arc`, so it is gone when its last request and tunnel are.

use std::sync::Arc;

use tokio::sync::watch;
use wssgate_config::Config;
use wssgate_config::model::Http;

use crate::log::Logs;

/// Everything that one configuration builds, shared by all workers.
#[derive(Debug)]
pub struct Generation {
    /// Counted from 1; the next one has the next number.
    pub number: u64,
    /// What was configured.
    pub config: Config,
    /// The opened logs.
    pub logs: Logs,
    life: Life,
}

impl Generation {
    /// Ends what still lives of it: `worker_shutdown_timeout` is over, or the stop is a fast one.
    pub fn expire(&self) {
        self.life.0.send_replace(true);
    }

    /// The `http` block. Only those ask who serve a connection, and without the block nothing
    /// listens.
    pub fn http(&self) -> &Http {
        self.config.http.as_ref().expect("connections come only from an http block")
    }

    /// How long this generation may live; for those who wait without holding it.
    pub fn life(&self) -> &Life {
        &self.life
    }
}

/// Tells when a generation must end: `worker_shutdown_timeout` after it was replaced or the drain
/// began, or at once in a fast stop. Cheap to clone and to wait for.
#[derive(Clone, Debug, Default)]
pub struct Life(Arc<watch::Sender<bool>>);

impl Life {
    /// Resolves once everything of this generation must close.
    pub async fn expired(&self) {
        // The sender is in `self`, so it outlives the wait.
        let _ = self.0.subscribe().wait_for(|expired| *expired).await;
    }

    /// Whether everything of this generation must close.
    pub fn has_expired(&self) -> bool {
        *self.0.borrow()
    }
}
