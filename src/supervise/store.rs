//! A service manager that keeps descriptors keeps the tunnels: the service ends, and its next process goes on with them.

use std::collections::BTreeMap;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use wssgate_config::model::LogLevel;
use wssgate_proxy::errno_text;
use wssgate_proxy::moving::TakenUp;

use super::Server;
use super::upgrade::{counted, ms};

/// How long requests may go on after QUIT while tunnels wait for them. From then on these stand still until the next
/// process is there, and that starts when we have ended; who ends us by force waits longer than that.
const LONGEST_HOLD: Duration = Duration::from_secs(3);

/// How often it looks whether the last request has ended.
const LOOK: Duration = Duration::from_millis(20);

/// What the service manager keeps, from the view of the process that ends.
#[derive(Debug, Default)]
pub(crate) struct Storing {
    /// When tunnels are stored at the latest, though requests are still in work.
    by: Option<Instant>,
    /// How many descriptors it keeps already.
    descriptors: usize,
    /// Whether it has failed to keep one; it is not asked again.
    has_failed: bool,
}

impl Server<'_> {
    /// How many descriptors can be stored for the process that comes after the end of this one; none if that is there
    /// already.
    pub(super) fn room(&self) -> usize {
        let is_last = self.upgrade.is_none() && !self.is_superseded;
        match is_last && !self.storing.has_failed {
            true => self.manager.room().saturating_sub(self.storing.descriptors),
            false => 0,
        }
    }

    /// Tunnels go on until they can be stored.
    pub(super) fn hold_tunnels(&mut self) {
        if self.room() > 0 {
            self.proxy.hold_tunnels();
        }
    }

    /// Stores tunnels once no requests are in work. The answer is when to look again.
    pub(super) fn follow_store(&mut self, now: Instant) -> Option<Instant> {
        if !self.proxy.holds_tunnels() || self.is_handing_over() {
            return None;
        }
        let timeout = self.proxy.generation().config.core.worker_shutdown_timeout;
        let longest = timeout.map_or(LONGEST_HOLD, |timeout| timeout.min(LONGEST_HOLD) / 2);
        let by = *self.storing.by.get_or_insert(now + longest);
        let has_requests = self.proxy.open_connections() > self.proxy.open_tunnels();
        if has_requests && now < by {
            return Some(by.min(now + LOOK));
        }
        self.store_tunnels();
        self.proxy.drain_tunnels();
        None
    }

    /// Has the manager keep the tunnels that can go on in another process. Those that cannot end as always.
    pub(super) fn store_tunnels(&mut self) {
        let room = self.room();
        if room == 0 || self.proxy.open_tunnels() == 0 {
            return;
        }
        let manager = &self.manager;
        let mut keep = |descriptor: BorrowedFd<'_>| {
            let kept = manager.keep(descriptor);
            kept.map_err(|error| {
                format!("the service manager does not answer ({})", errno_text(&error))
            })
        };
        let stored = self.proxy.store_tunnels(room, &mut keep);
        self.storing.descriptors += stored.descriptors;
        self.storing.has_failed |= stored.has_failed;
        if stored.stored > 0 {
            let (count, took) =
                (counted(stored.stored, "tunnel waits", "tunnels wait"), ms(stored.took));
            let text = format!(
                "{count} in the service manager's store for the next process, stored in {took} ms"
            );
            self.proxy.log(LogLevel::Notice, text);
        }
        for (why, count) in &stored.stay {
            let stay = counted(*count, "tunnel stays", "tunnels stay");
            self.proxy.log(LogLevel::Notice, format!("{stay} in this process: {why}"));
        }
    }

    /// Goes on with the tunnels that the manager has kept.
    pub(crate) fn take_up(&self, kept: Vec<OwnedFd>) {
        if kept.is_empty() {
            return;
        }
        let taken_up = self.proxy.take_up_tunnels(kept).unwrap_or_else(|error| TakenUp {
            errors: vec![errno_text(&error)],
            ..TakenUp::default()
        });
        let TakenUp { taken, ended, errors, took } = taken_up;
        // Nothing is left in there.
        self.manager.forget_kept();
        let log = |level, text: String| self.proxy.log(level, text);
        let tunnels = counted(taken, "tunnel", "tunnels");
        let took = ms(took);
        log(
            LogLevel::Notice,
            format!("{tunnels} taken up from the service manager's store in {took} ms"),
        );
        tell_ended(&ended, log);
        for error in &errors {
            log(
                LogLevel::Error,
                format!("what the service manager has kept is not taken up: {error}"),
            );
        }
    }
}

fn tell_ended(ended: &BTreeMap<String, u64>, log: impl Fn(LogLevel, String)) {
    for (why, count) in ended {
        let ended = counted(*count, "tunnel", "tunnels");
        log(LogLevel::Warn, format!("{ended} of the service manager's store ended: {why}"));
    }
}
