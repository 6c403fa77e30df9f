//! The drains under way, and what the log says of them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use wssgate_relay::{Drain, DrainCounts, DrainProgress, Paces, RelayHandle, Selection};

use crate::generation::draining::seed;

/// How often the log says how far a drain is, at most and at least; between them ten times in all.
const MOST_OFTEN: Duration = Duration::from_secs(1);
const LEAST_OFTEN: Duration = Duration::from_secs(60);

/// The drains that have not ended.
#[derive(Debug, Default)]
pub(super) struct Drains(Vec<Telling>);

/// What is said of one.
#[derive(Debug)]
struct Telling {
    /// Of what.
    name: String,
    began: Instant,
    over: Duration,
    /// When it is told how far it is; `None` before its beginning was told.
    next: Option<Instant>,
    progress: Arc<DrainProgress>,
}

impl Drains {
    /// Has the relays drain what is selected; the log is told under this name. `progress` is new.
    pub(super) fn begin<'r>(
        &mut self,
        name: String,
        (selection, paces, over): (Selection, Paces, Duration),
        progress: Arc<DrainProgress>,
        relays: impl Iterator<Item = &'r RelayHandle>,
    ) {
        for relay in relays {
            let (paces, progress) = (paces.clone(), Arc::clone(&progress));
            // One that has ended has no tunnels.
            let _ = relay.drain(Drain { selection, paces, seed: seed(), progress });
        }
        progress.all_have_it();
        self.0.push(Telling { name, began: Instant::now(), over, next: None, progress });
    }

    /// Says what there is to say, and when there is more, unless a relay calls before.
    pub(super) fn tell(&mut self, now: Instant, mut log: impl FnMut(String)) -> Option<Instant> {
        self.0.retain_mut(|telling| telling.tell(now, &mut log));
        self.0.iter().filter_map(|telling| telling.next).min()
    }
}

impl Telling {
    /// Says what there is to say; whether there may be more.
    fn tell(&mut self, now: Instant, mut log: impl FnMut(String)) -> bool {
        let Some(DrainCounts { tunnels, told, ended }) = self.progress.counts() else {
            return true;
        };
        let name = &self.name;
        // Who drains nothing need not say so.
        if tunnels == 0 {
            return false;
        }
        let interval = (self.over / 10).clamp(MOST_OFTEN, LEAST_OFTEN);
        let next = *self.next.get_or_insert_with(|| {
            log(format!("drain of {name}: closing {} over {:?}", websockets(tunnels), self.over));
            now + interval
        });
        if ended >= tunnels {
            let took = now.saturating_duration_since(self.began).as_secs_f64();
            log(format!("drain of {name}: {} ended in {took:.1}s", websockets(tunnels)));
            return false;
        }
        if next <= now {
            self.next = Some(now + interval);
            log(format!(
                "drain of {name}: closed {told} of {tunnels} WebSockets, {ended} have ended"
            ));
        }
        true
    }
}

fn websockets(count: u64) -> String {
    format!("{count} WebSocket{}", if count == 1 { "" } else { "s" })
}
