//! A walk over all live tunnels: each relay is asked for the next part when it has told the last one.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use thiserror::Error;
use wssgate_relay::RelayHandle;
use wssgate_relay::listing::{Handle, Live, MAX_KILLS, Page};
use wssgate_ws::conversation::{Cause, Farewell};

use super::current::Current;
use crate::tunnel::about::About;

/// How long a relay may take to answer. A turn takes milliseconds; so one that does not is in trouble.
const PATIENCE: Duration = Duration::from_secs(2);

/// A relay that does not answer.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("worker {0} does not answer")]
pub(super) struct Silent(usize);

/// A live tunnel at one moment.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) worker: usize,
    pub(super) about: Arc<About>,
    pub(super) live: Live,
    /// What passes now, if that was asked for and is known.
    pub(super) current: Option<Current>,
}

/// Shows every live tunnel to `see`. Those that begin or end meanwhile may be missing, and none comes twice.
pub(super) fn walk(relays: &[RelayHandle], mut see: impl FnMut(Row)) -> Result<(), Silent> {
    // All of them work at the same time. One that has stopped has no tunnels.
    let ask = |worker: usize, from| relays[worker].page(from).ok().map(|page| (worker, page));
    let mut asked: Vec<_> = (0..relays.len()).filter_map(|worker| ask(worker, 0)).collect();
    while !asked.is_empty() {
        let mut next = Vec::with_capacity(asked.len());
        for (worker, answer) in asked {
            let Page { tunnels, next: from } = received(&answer, worker)?.unwrap_or_default();
            // Before what it has told is looked at, so that it need not wait.
            next.extend(from.and_then(|from| ask(worker, from)));
            for live in tunnels {
                if let Some(about) = live.handle.label().about::<About>() {
                    see(Row { worker, about, live, current: None });
                }
            }
        }
        asked = next;
    }
    Ok(())
}

/// The tunnels that are `wanted` of all live ones, by worker.
pub(super) fn select(
    relays: &[RelayHandle],
    mut wanted: impl FnMut(&Row) -> bool,
) -> Result<Vec<Vec<Handle>>, Silent> {
    let mut handles = vec![Vec::new(); relays.len()];
    walk(relays, |row| {
        if wanted(&row) {
            handles[row.worker].push(row.live.handle);
        }
    })?;
    Ok(handles)
}

/// Has tunnels of one relay ended for this cause, if wanted with these words for clients; the answer is how many were, a
/// few at a time.
pub(super) fn end(
    relays: &[RelayHandle],
    worker: usize,
    handles: &[Handle],
    cause: Cause,
    words: Option<&Arc<Farewell>>,
) -> Result<usize, Silent> {
    let mut ended = 0;
    for some in handles.chunks(MAX_KILLS) {
        let Ok(answer) = relays[worker].end(some.to_vec(), cause, words.cloned()) else { break };
        ended += received(&answer, worker)?.unwrap_or(0);
    }
    Ok(ended)
}

/// An answer, or none if the relay stops.
pub(super) fn received<T>(answer: &Receiver<T>, worker: usize) -> Result<Option<T>, Silent> {
    match answer.recv_timeout(PATIENCE) {
        Ok(answer) => Ok(Some(answer)),
        Err(RecvTimeoutError::Disconnected) => Ok(None),
        Err(RecvTimeoutError::Timeout) => Err(Silent(worker)),
    }
}
