//! Records in the DNS that a CA looks for, for as long as it does.

use std::convert::Infallible;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::task::{JoinHandle, spawn_local};

use crate::dns::Solver;

/// A record that is taken away when this is dropped, also by somebody who gives up the whole order.
pub(crate) struct Record {
    until: oneshot::Sender<Infallible>,
    gone: JoinHandle<()>,
}

impl Record {
    /// Sees to it that the record goes, which may be written from now on, and holds what is `held` until
    /// then.
    pub(crate) fn new(
        dns: &Arc<dyn Solver>,
        name: &str,
        value: &str,
        held: impl Sized + 'static,
    ) -> Self {
        let (until, dropped) = oneshot::channel();
        let (dns, name, value) = (Arc::clone(dns), name.to_owned(), value.to_owned());
        let gone = spawn_local(async move {
            let _: Result<Infallible, _> = dropped.await;
            // What is left there does no harm, and the order is what counts.
            let _ = dns.cleanup(&name, &value).await;
            drop(held);
        });
        Self { until, gone }
    }

    /// Takes it away now.
    pub(crate) async fn take_away(self) {
        drop(self.until);
        let _ = self.gone.await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::task::{LocalSet, yield_now};

    use super::*;
    use crate::challenges::Challenges;
    use crate::dns::Solving;

    #[derive(Default)]
    struct Zone(Mutex<Vec<String>>);

    impl Solver for Zone {
        fn present<'a>(&'a self, _: &'a str, value: &'a str) -> Solving<'a> {
            Box::pin(async move {
                self.note(format!("+{value}"));
                Ok(())
            })
        }

        fn cleanup<'a>(&'a self, _: &'a str, value: &'a str) -> Solving<'a> {
            Box::pin(async move {
                // A server takes its time.
                yield_now().await;
                self.note(format!("-{value}"));
                Ok(())
            })
        }
    }

    impl Zone {
        fn note(&self, what: String) {
            self.0.lock().expect("nobody panics").push(what);
        }
    }

    /// Whoever goes on with an order that was given up writes the same record.
    #[tokio::test]
    async fn a_record_that_goes_does_not_take_the_next_one_with_it() {
        let (zone, challenges) = (Arc::<Zone>::default(), Arc::<Challenges>::default());
        let dns: Arc<dyn Solver> = zone.clone();
        let order = || async {
            let turn = challenges.turn_at_record("a.test", "v").await;
            let record = Record::new(&dns, "a.test", "v", turn);
            let _ = dns.present("a.test", "v").await;
            record
        };
        let all = async {
            drop(order().await);
            order().await.take_away().await;
        };
        LocalSet::new().run_until(all).await;
        assert_eq!(*zone.0.lock().expect("nobody panics"), ["+v", "-v", "+v", "-v"]);
    }
}
