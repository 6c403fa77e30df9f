//! What becomes of reloads, for those in this process who want to know.

use tokio::sync::watch;

/// How the last reload ended, or how the server began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// The generation in effect now.
    pub(crate) generation: u64,
    /// Whether the reload was refused, so that the generation is the one of before.
    pub(crate) is_failure: bool,
}

/// Where the main thread tells, and others listen.
#[derive(Clone, Debug)]
pub(crate) struct Reloads(watch::Sender<Outcome>);

impl Default for Reloads {
    fn default() -> Self {
        Self(watch::Sender::new(Outcome { generation: 1, is_failure: false }))
    }
}

impl Reloads {
    /// Tells those who listen, of whom there may be none.
    pub(crate) fn tell(&self, outcome: Outcome) {
        self.0.send_replace(outcome);
    }

    /// Hears of each reload from now on; of several in a row perhaps only the last.
    pub(crate) fn listen(&self) -> watch::Receiver<Outcome> {
        self.0.subscribe()
    }
}

/// Equal are those whose listeners hear the same.
impl PartialEq for Reloads {
    fn eq(&self, other: &Self) -> bool {
        self.0.same_channel(&other.0)
    }
}

impl Eq for Reloads {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reload_that_changed_nothing_is_heard_of_too() {
        let reloads = Reloads::default();
        let mut heard = reloads.listen();
        assert!(!heard.has_changed().expect("open"));
        let outcome = Outcome { generation: 1, is_failure: true };
        for _ in 0..2 {
            reloads.tell(outcome);
            assert!(heard.has_changed().expect("open"));
            assert_eq!(*heard.borrow_and_update(), outcome);
        }
    }
}
