//! Whose clients are asked about again while their WebSockets are open (`websocket_reauth`), and when.
//!
//! Nobody has a timer or a task of its own: those that are to be asked about wait in one list of their worker,
//! in the order of their times. The first time comes after a part of the interval that chance decides, so that
//! clients that came together are not asked about together, and so does, less so, each further one.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Notify;
use wssgate_config::model::{LocationId, ServerId};

use crate::clock;
use crate::exchange::identity::Identity;
use crate::exchange::request::{Arrival, ConnectionInfo, LimitTrace, Request, Values};
use crate::exchange::secrets::Secrets;
use crate::exchange::variables;
use crate::generation::Generation;
use crate::metrics::WorkerCounters;
use crate::site::Site;

/// What is kept of the request that has become a WebSocket, to ask about its client again.
pub(crate) struct Asked {
    generation: Arc<Generation>,
    site: Rc<Site>,
    connection: Rc<ConnectionInfo>,
    server: ServerId,
    location: LocationId,
    client: Option<SocketAddr>,
    vouched_for: bool,
    arrival: Arrival,
    method_name: Bytes,
    identity: Rc<Identity>,
    secrets: Rc<Secrets>,
    values: Values,
    /// What limits have decided counts for all that is made for it.
    limits: LimitTrace,
    /// When it is asked next; `None` while it is being asked.
    due: Cell<Option<Instant>>,
}

impl Asked {
    /// Of a request whose location wants it. Nothing of the buffers is kept that it was read into.
    pub(super) fn of(request: &Request) -> Option<Rc<Self>> {
        request.location().proxy.tunnels.reauth.as_ref()?;
        Some(Rc::new(Self {
            generation: Arc::clone(&request.generation),
            site: Rc::clone(&request.site),
            connection: Rc::clone(&request.connection),
            server: request.route.server,
            location: request.route.location,
            client: request.client,
            vouched_for: request.vouched_for,
            arrival: request.arrival.detached(),
            method_name: request.shown_method().clone(),
            identity: Rc::clone(&request.identity),
            secrets: Rc::clone(&request.secrets),
            values: request.values.detached(),
            limits: request.limits.of_subrequest(),
            due: Cell::new(None),
        }))
    }

    /// The request again, as far as subrequests want it, and as if it had come just now.
    pub(crate) fn request(&self) -> Request {
        let (at, time) = (Instant::now(), clock::now());
        let mut request = Request::new(
            Arc::clone(&self.generation),
            Rc::clone(&self.site),
            Rc::clone(&self.connection),
            self.server,
            Arrival { at, time, ..self.arrival.clone() },
        );
        request.route.location = self.location;
        request.client = self.client;
        request.vouched_for = self.vouched_for;
        request.target.method_name = self.method_name.clone();
        request.identity = Rc::clone(&self.identity);
        request.secrets = Rc::clone(&self.secrets);
        request.limits = self.limits.of_subrequest();
        request.values = self.values.detached();
        // They may go by what has changed since.
        variables::forget_maps(&request);
        request
    }

    /// What its worker counts.
    pub(crate) fn counters(&self) -> &WorkerCounters {
        &self.site.metrics
    }

    /// What is asked.
    pub(crate) fn uri(&self) -> Bytes {
        self.settings().map_or_else(Bytes::new, |reauth| Bytes::copy_from_slice(&reauth.uri))
    }

    fn interval(&self) -> Duration {
        self.settings().map_or(Duration::MAX, |reauth| reauth.interval)
    }

    fn settings(&self) -> Option<&wssgate_config::model::Reauth> {
        let location = &self.generation.http().locations[self.location.0];
        location.proxy.tunnels.reauth.as_ref()
    }
}

/// What a client may still do, by the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It stays.
    Allowed,
    /// It does not.
    Denied,
    /// Nobody knows, so it stays.
    Unknown,
}

/// Who is to be asked about, by time and ticket.
#[derive(Default)]
pub(super) struct Waiting {
    list: RefCell<BTreeSet<(Instant, u64)>>,
    /// There is a new first one.
    sooner: Notify,
}

impl Waiting {
    /// Asks about a WebSocket that has begun.
    pub(super) fn begin(&self, ticket: u64, asked: &Asked) {
        self.wait(ticket, asked, part(asked.interval(), 0.5, random()));
    }

    /// Asks again about one that was asked about.
    pub(super) fn again(&self, ticket: u64, asked: &Asked) {
        self.wait(ticket, asked, part(asked.interval(), 0.9, random()));
    }

    fn wait(&self, ticket: u64, asked: &Asked, time: Duration) {
        let Some(due) = Instant::now().checked_add(time) else { return };
        asked.due.set(Some(due));
        let mut list = self.list.borrow_mut();
        list.insert((due, ticket));
        if list.first() == Some(&(due, ticket)) {
            self.sooner.notify_one();
        }
    }

    /// One has ended.
    pub(super) fn end(&self, ticket: u64, asked: &Asked) {
        if let Some(due) = asked.due.take() {
            self.list.borrow_mut().remove(&(due, ticket));
        }
    }

    /// The ticket of the next one whose time has come. Whoever stops waiting for it misses none.
    pub(super) async fn next(&self) -> u64 {
        loop {
            let first = self.list.borrow().first().copied();
            let Some((due, ticket)) = first else {
                self.sooner.notified().await;
                continue;
            };
            if due <= Instant::now() {
                self.list.borrow_mut().pop_first();
                return ticket;
            }
            tokio::select! {
                () = tokio::time::sleep_until(due.into()) => {}
                () = self.sooner.notified() => {}
            }
        }
    }

    /// It is being asked about, so that it waits no more.
    pub(super) fn taken(asked: &Asked) {
        asked.due.set(None);
    }
}

/// At least this share of an interval, and how much more `random` decides, of 0 to 1.
fn part(interval: Duration, least: f64, random: f64) -> Duration {
    Duration::try_from_secs_f64(interval.as_secs_f64() * (least + (1.0 - least) * random))
        .unwrap_or(Duration::MAX)
}

fn random() -> f64 {
    let mut bytes = [0; 4];
    // Without it they are asked about together, and nothing else is different.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_are_spread_and_none_is_longer_than_the_interval() {
        let minute = Duration::from_secs(60);
        for (least, random, expected) in
            [(0.5, 0.0, 30), (0.5, 1.0, 60), (0.5, 0.5, 45), (0.9, 0.0, 54), (0.9, 1.0, 60)]
        {
            assert_eq!(part(minute, least, random), Duration::from_secs(expected));
        }
        assert!((0..100).all(|_| (0.0..=1.0).contains(&random())));
    }
}
