//! The relay as fuzz targets drive it: the engine step by step, on the thread of who steps it.

use std::io;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use crate::engine::Engine;
use crate::thread::Shared;
use crate::{EndCause, Handover, RelayHandle, Selection, Settings, TunnelEnd};

/// An engine that moves when it is told to.
pub struct Stepper {
    engine: Engine,
    handle: RelayHandle,
    ends: mpsc::Receiver<TunnelEnd>,
}

impl Stepper {
    /// An engine without tunnels.
    pub fn new(settings: Settings) -> io::Result<Self> {
        let (sender, mail) = mpsc::channel();
        let (ended, ends) = mpsc::channel();
        let shared = Arc::new(Shared::new()?);
        let on_end = Box::new(move |_, end| {
            // Nobody asks any more once the stepper is gone.
            let _ = ended.send(end);
        });
        let on_refusal = Box::new(|_: &io::Error| {});
        let engine = Engine::new(settings, mail, Arc::clone(&shared), on_end, on_refusal)?;
        Ok(Self { engine, handle: RelayHandle::new(sender, shared), ends })
    }

    /// Gives it a tunnel, which the next step takes.
    pub fn hand_over(&self, handover: Handover) {
        // The other end of the mail is in this stepper.
        let _ = self.handle.hand_over(handover);
        self.handle.wake();
    }

    /// Ends every tunnel as a drain does, with the next step.
    pub fn drain(&self) {
        let _ = self.handle.close(Selection::All, EndCause::Drained);
    }

    /// Does what there is to do, and waits at most `wait` for it.
    pub fn step(&mut self, wait: Duration) -> io::Result<()> {
        self.engine.step(Some(wait))
    }

    /// An end that has not been asked for.
    pub fn ended(&mut self) -> Option<TunnelEnd> {
        self.ends.try_recv().ok()
    }
}
