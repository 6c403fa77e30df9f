//! `websocket_reauth`: asks whether clients of open WebSockets are still authorized.
//!
//! A question is a subrequest, as that of `auth_request`, of a request that is made again from what was kept
//! of the handshake.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::task::JoinSet;
use tokio::time::timeout;
use wssgate_config::model::LogLevel;

use crate::exchange::variables;
use crate::front::after::Nobody;
use crate::front::subrequest;
use crate::tunnel::reauth::{Answer, Asked};
use crate::tunnel::table::Tunnels;

/// How many questions a worker has in progress. Who cannot be asked about in time is as soon as there is room.
const MAX_ASKED: usize = 32;

/// How long an answer may take, whatever the timeouts of its location say: a place is not held for ever.
const ANSWER_TIME: Duration = Duration::from_secs(60);

/// How long it is not told again that nobody knows.
const UNTOLD_TIME: Duration = Duration::from_secs(60);

/// Asks about those whose time has come, as long as the worker lives.
pub(crate) async fn work(tunnels: Rc<Tunnels>) {
    let mut questions = JoinSet::new();
    let outages = Rc::<RefCell<Outages>>::default();
    loop {
        tokio::select! {
            biased;
            Some(_) = questions.join_next() => {}
            (ticket, asked) = tunnels.next_asked(), if questions.len() < MAX_ASKED => {
                let (tunnels, outages) = (Rc::clone(&tunnels), Rc::clone(&outages));
                questions.spawn_local(async move {
                    let answer = answer(&asked, &outages).await;
                    let counters = &asked.counters().reauths;
                    match answer {
                        Answer::Allowed => counters.allowed.increment(),
                        Answer::Denied => counters.denied.increment(),
                        Answer::Unknown => counters.failed.increment(),
                    }
                    tunnels.on_answer(ticket, &asked, answer);
                });
            }
        }
    }
}

/// The answer, in a task of its own: one that panics is none.
async fn answer(asked: &Rc<Asked>, outages: &Rc<RefCell<Outages>>) -> Answer {
    let mut tasks = JoinSet::new();
    let (question, outages_seen) = (Rc::clone(asked), Rc::clone(outages));
    tasks.spawn_local(async move { ask(&question, &outages_seen).await });
    match timeout(ANSWER_TIME, tasks.join_next()).await {
        Ok(Some(Ok(answer))) => answer,
        Ok(_) => Answer::Unknown,
        Err(_) => {
            tell(
                asked,
                outages,
                0,
                format_args!("no response within {} seconds", ANSWER_TIME.as_secs()),
            );
            Answer::Unknown
        }
    }
}

async fn ask(asked: &Asked, outages: &RefCell<Outages>) -> Answer {
    let request = asked.request();
    let status = match subrequest::get(&request, Rc::new(Nobody), asked.uri()).await {
        Ok(answered) => variables::status(&answered),
        Err(status) => status,
    };
    if matches!(status, 200..=299 | 401 | 403) && outages.borrow_mut().on_answer(&asked.uri()) {
        let uri = asked.uri();
        let line = format_args!("\"{}\" of websocket_reauth answers again", uri.escape_ascii());
        request.log(LogLevel::Notice, line);
    }
    match status {
        200..=299 => Answer::Allowed,
        401 | 403 => {
            let uri = asked.uri();
            let why = format_args!("\"{}\" of websocket_reauth: {status}", uri.escape_ascii());
            request.log(LogLevel::Info, why);
            Answer::Denied
        }
        status => {
            tell(asked, outages, status, format_args!("unexpected status {status}"));
            Answer::Unknown
        }
    }
}

/// Tells the log why nobody knows, unless it was told not long ago; 0 for the status of no response.
fn tell(asked: &Asked, outages: &RefCell<Outages>, status: u16, why: std::fmt::Arguments<'_>) {
    let uri = asked.uri();
    let untold = outages.borrow_mut().on_failure(&uri, status, Instant::now());
    let Some(untold) = untold else { return };
    let more = match untold {
        0 => String::new(),
        untold => format!(", as {untold} more of this worker since the last such line"),
    };
    let line = format_args!(
        "\"{}\" of websocket_reauth: {why}, so the WebSocket stays open{more}",
        uri.escape_ascii()
    );
    asked.request().log(LogLevel::Warn, line);
}

/// Which URIs do not say whether clients are authorized, and with which status they say nothing: one that is down is
/// asked about every WebSocket, and the log is not to be full of it.
#[derive(Debug, Default)]
struct Outages(HashMap<(Bytes, u16), Outage>);

#[derive(Debug)]
struct Outage {
    /// When the log was told last.
    told: Instant,
    /// How many failures it was not told of since then.
    untold: u64,
    /// Whether the last that it was told is that it fails.
    is_said_to_fail: bool,
}

impl Outages {
    /// Whether to tell the log of a failure, and how many before were not told.
    fn on_failure(&mut self, uri: &Bytes, status: u16, now: Instant) -> Option<u64> {
        let key = (uri.clone(), status);
        let is_recent = |outage: &Outage| now.saturating_duration_since(outage.told) < UNTOLD_TIME;
        if let Some(outage) = self.0.get_mut(&key)
            && is_recent(outage)
        {
            outage.untold += 1;
            return None;
        }
        let untold = self.0.remove(&key).map_or(0, |outage| outage.untold);
        // Those of configurations that are gone.
        self.0.retain(|_, outage| is_recent(outage));
        self.0.insert(key, Outage { told: now, untold: 0, is_said_to_fail: true });
        Some(untold)
    }

    /// It says again who is authorized; whether to tell the log so.
    fn on_answer(&mut self, uri: &Bytes) -> bool {
        let mut was_said = false;
        for ((failed, _), outage) in &mut self.0 {
            was_said |= failed == uri && std::mem::take(&mut outage.is_said_to_fail);
        }
        was_said
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_told_once_a_minute_and_when_it_is_over() {
        let (mut outages, began) = (Outages::default(), Instant::now());
        let (uri, other) = (Bytes::from_static(b"/auth"), Bytes::from_static(b"/other"));
        let at = |seconds| began + Duration::from_secs(seconds);
        assert!(!outages.on_answer(&uri), "it has never failed");
        assert_eq!(outages.on_failure(&uri, 502, at(0)), Some(0));
        assert_eq!(outages.on_failure(&other, 0, at(1)), Some(0));
        assert_eq!([1, 30, 59].map(|time| outages.on_failure(&uri, 502, at(time))), [None; 3]);
        assert_eq!(outages.on_failure(&uri, 502, at(60)), Some(3));
        assert_eq!(outages.on_failure(&uri, 504, at(60)), Some(0), "it fails in another way");
        assert!(outages.on_answer(&uri) && !outages.on_answer(&uri));
        // It works now and then.
        assert_eq!(outages.on_failure(&uri, 502, at(70)), None);
        assert!(!outages.on_answer(&uri));
        assert_eq!(outages.on_failure(&uri, 502, at(130)), Some(1));
        assert_eq!(outages.0.len(), 1, "the other one is of no configuration any more");
    }
}
