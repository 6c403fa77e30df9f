//! What pages of `dashboard` know of the whole process: a desk where their requests are answered, and the numbers of
//! the last hour.
//!
//! The workers that serve the pages stand below those who can answer, so a desk is handed down to them. An answer may
//! take a walk over all tunnels, which waits for relays: it is made on a thread that may wait, and few at a time.

pub(crate) mod history;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use wssgate_http1::Method;

/// How many requests are answered at a time, over all workers and pages.
const ANSWERS: usize = 4;

/// How long a request waits for its turn before it is told to come again.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a page asks for.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// GET, or POST for what changes something.
    pub(crate) method: Method,
    /// The path, from behind `api/` on.
    pub(crate) path: String,
    /// What stands behind the `?`.
    pub(crate) args: Bytes,
    /// Whether who asks may change something.
    pub(crate) control: bool,
    /// Who asks, for the log.
    pub(crate) by: String,
}

/// What it is told.
#[derive(Debug)]
pub(crate) struct Answered {
    /// The status.
    pub(crate) status: u16,
    /// JSON.
    pub(crate) body: String,
}

/// Who can answer.
pub(crate) trait Answers: Debug + Send + Sync {
    /// Answers; may wait for relays.
    fn answer(&self, asked: &Asked) -> Answered;
}

/// Where requests of pages are answered.
#[derive(Clone, Debug)]
pub(crate) struct Desk {
    answers: Arc<dyn Answers>,
    turns: Arc<Semaphore>,
    patience: Duration,
}

impl Desk {
    pub(crate) fn new(answers: Arc<dyn Answers>) -> Self {
        Self { answers, turns: Arc::new(Semaphore::new(ANSWERS)), patience: PATIENCE }
    }

    /// Asks; `None` if too many others do.
    pub(crate) async fn ask(&self, asked: Asked) -> Option<Answered> {
        let turn = Arc::clone(&self.turns).acquire_owned();
        let turn = timeout(self.patience, turn).await.ok()?.ok()?;
        let answers = Arc::clone(&self.answers);
        let work = move || {
            let answered = answers.answer(&asked);
            // Whoever has asked may have gone meanwhile; the turn is over only now.
            drop(turn);
            answered
        };
        spawn_blocking(work).await.ok()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::{Receiver, channel};

    use super::*;

    /// Answers once it hears something.
    #[derive(Debug)]
    struct Waits(Mutex<Receiver<()>>);

    impl Answers for Waits {
        fn answer(&self, asked: &Asked) -> Answered {
            let _ = self.0.lock().unwrap().recv();
            Answered { status: 200, body: asked.path.clone() }
        }
    }

    #[tokio::test]
    async fn who_comes_when_all_are_busy_is_sent_away() {
        let (go, heard) = channel();
        let mut desk = Desk::new(Arc::new(Waits(Mutex::new(heard))));
        desk.patience = Duration::from_millis(1);
        let asked = Asked {
            method: Method::Get,
            path: "x".into(),
            args: Bytes::new(),
            control: false,
            by: String::new(),
        };
        let busy: Vec<_> = (0..ANSWERS)
            .map(|_| {
                let (desk, asked) = (desk.clone(), asked.clone());
                tokio::spawn(async move { desk.ask(asked).await })
            })
            .collect();
        while desk.turns.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert!(desk.ask(asked.clone()).await.is_none());
        drop(go);
        for one in busy {
            assert_eq!(one.await.unwrap().unwrap().body, "x");
        }
        assert_eq!(desk.ask(asked).await.unwrap().status, 200, "its turn again");
    }
}
