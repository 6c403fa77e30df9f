//! The thread that looks at the files of certificates.
//!
//! A file system that hangs (one over a network) may hold up whoever looks at a file for as long as it likes.
//! So nobody else waits for this thread: the one that obeys signals least of all. It may read keys as that one
//! may, by which it is started.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use wssgate_config::model::LogLevel;

use super::Watched;
use crate::clock;
use crate::errno_text;
use crate::log::ErrorLog;

/// The thread, which starts with the first certificate that is watched.
#[derive(Debug, Default)]
pub struct Watcher(Mutex<Option<Sender<Watch>>>);

/// What it looks at, and where it tells what it finds.
struct Watch {
    watched: Arc<[Watched]>,
    log: Arc<ErrorLog>,
}

impl Watcher {
    /// Looks at these instead of those before.
    pub(in crate::tls) fn follow(&self, watched: &Arc<[Watched]>, log: &Arc<ErrorLog>) {
        let mut orders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut order = Watch { watched: Arc::clone(watched), log: Arc::clone(log) };
        if let Some(running) = &*orders {
            match running.send(order) {
                Ok(()) => return,
                Err(ended) => order = ended.0,
            }
        }
        if watched.is_empty() {
            return;
        }
        match start(order) {
            Ok(running) => *orders = Some(running),
            Err(error) => {
                let error = errno_text(&error);
                let text = format_args!("certificate files cannot be watched: no thread ({error})");
                log.write(LogLevel::Alert, None, text);
            }
        }
    }

    /// Looks at nothing any more.
    pub(crate) fn rest(&self) {
        // It notices, when no file system holds it up.
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

fn start(first: Watch) -> io::Result<Sender<Watch>> {
    let (sender, receiver) = channel();
    thread::Builder::new().name("certificates".into()).spawn(move || run(first, &receiver))?;
    Ok(sender)
}

/// Works until nobody is left who could order anything.
fn run(mut watch: Watch, orders: &Receiver<Watch>) {
    loop {
        let due = watch.look();
        let next = match due {
            Some(due) => orders.recv_timeout(due.saturating_duration_since(Instant::now())),
            None => orders.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match next {
            Ok(next) => watch = orders.try_iter().last().unwrap_or(next),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

impl Watch {
    /// Looks at what is due; says when it is to be done again.
    fn look(&self) -> Option<Instant> {
        let look = |one: &Watched| {
            let mut told = Vec::new();
            let due = one.maintain(Instant::now(), clock::unix_seconds(), &mut told);
            for (level, text) in told {
                self.log.write(level, None, text);
            }
            due
        };
        self.watched.iter().map(look).min()
    }
}
