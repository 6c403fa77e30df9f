//! `websocket_reauth`: asks whether clients of open WebSockets are still authorized.
//!
//! A question is a subrequest, as that of `auth_request`, of a request that is made again from what was kept
//! of the handshake.

use std::rc::Rc;
use std::time::Duration;

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

/// Asks about those whose time has come, as long as the worker lives.
pub(crate) async fn work(tunnels: Rc<Tunnels>) {
    let mut questions = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            Some(_) = questions.join_next() => {}
            (ticket, asked) = tunnels.next_asked(), if questions.len() < MAX_ASKED => {
                let tunnels = Rc::clone(&tunnels);
                questions.spawn_local(async move {
                    let answer = answer(&asked).await;
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
async fn answer(asked: &Rc<Asked>) -> Answer {
    let mut tasks = JoinSet::new();
    let question = Rc::clone(asked);
    tasks.spawn_local(async move { ask(&question).await });
    match timeout(ANSWER_TIME, tasks.join_next()).await {
        Ok(Some(Ok(answer))) => answer,
        Ok(_) => Answer::Unknown,
        Err(_) => {
            tell(asked, format_args!("no response within {} seconds", ANSWER_TIME.as_secs()));
            Answer::Unknown
        }
    }
}

async fn ask(asked: &Asked) -> Answer {
    let request = asked.request();
    let status = match subrequest::get(&request, Rc::new(Nobody), asked.uri()).await {
        Ok(answered) => variables::status(&answered),
        Err(status) => status,
    };
    match status {
        200..=299 => Answer::Allowed,
        401 | 403 => {
            let uri = asked.uri();
            let why = format_args!("\"{}\" of websocket_reauth: {status}", uri.escape_ascii());
            request.log(LogLevel::Info, why);
            Answer::Denied
        }
        status => {
            tell(asked, format_args!("unexpected status {status}"));
            Answer::Unknown
        }
    }
}

/// Tells the log why nobody knows.
fn tell(asked: &Asked, why: std::fmt::Arguments<'_>) {
    let uri = asked.uri();
    let line = format_args!(
        "\"{}\" of websocket_reauth: {why}, so the WebSocket stays open",
        uri.escape_ascii()
    );
    asked.request().log(LogLevel::Warn, line);
}
