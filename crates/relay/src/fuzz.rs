//! The relay as fuzz targets drive it: the engine step by step, on the thread of who steps it.

use std::io;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use crate::engine::Engine;
use crate::thread::Shared;
use crate::{EndCause, Handover, RelayHandle, Report, Selection, Settings, TunnelEnd};

/// An engine that moves when it is told to.
pub struct Stepper {
    engine: Engine,
    now: Duration,
    handle: RelayHandle,
    ends: mpsc::Receiver<TunnelEnd>,
}

impl Stepper {
    /// An engine without tunnels.
    pub fn new(settings: Settings) -> io::Result<Self> {
        let (sender, commands) = mpsc::channel();
        let (ended, ends) = mpsc::channel();
        let shared = Arc::new(Shared::new(Arc::default(), settings.tls_record_limit)?);
        let on_report = Box::new(move |_, report| {
            if let Report::End(end) = report {
                // Nobody asks any more once the stepper is gone.
                let _ = ended.send(*end);
            }
        });
        let on_refusal = Box::new(|_: &io::Error| {});
        let engine = Engine::new(settings, commands, Arc::clone(&shared), on_report, on_refusal)?;
        Ok(Self { engine, now: Duration::ZERO, handle: RelayHandle::new(sender, shared), ends })
    }

    /// Gives it a tunnel, which the next step takes.
    pub fn hand_over(&self, handover: Handover) {
        // The other end of the commands is in this stepper.
        let _ = self.handle.hand_over(handover);
        self.handle.wake();
    }

    /// Drains the tunnel with this ticket from the next step on.
    pub fn drain(&self, ticket: u64) {
        let _ = self.handle.close(Selection::Ticket(ticket), EndCause::Drained);
    }

    /// Waits at most `wait` for something to do and does it, when `passed` more has passed of a time that
    /// only these calls move.
    pub fn step(&mut self, wait: Duration, passed: Duration) -> io::Result<()> {
        self.engine.wait(self.now, Some(wait))?;
        self.now += passed;
        self.engine.step(self.now);
        Ok(())
    }

    /// An end that has not been asked for.
    pub fn ended(&mut self) -> Option<TunnelEnd> {
        self.ends.try_recv().ok()
    }
}
