//! Questions to the server and what came of them, on a thread of its own.

use std::sync::mpsc::Receiver;
use std::time::Instant;

use serde_json::Value;

use crate::ctl_command::client::{self, Client, CtlError};

/// What is wanted next.
#[derive(Clone, Debug, Default)]
pub(super) struct Question {
    /// Filter, order and number of tunnels.
    pub(super) tunnels: Vec<(&'static str, String)>,
    /// This one in full.
    pub(super) details: Option<String>,
    /// To be closed before everything else.
    pub(super) kill: Option<Kill>,
}

/// An order to close one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kill {
    pub(super) id: String,
    pub(super) words: Vec<(&'static str, String)>,
}

/// What came of a question.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) at: Instant,
    pub(super) found: Result<Found, CtlError>,
    /// What came of an order to close.
    pub(super) killed: Option<(String, Result<(), CtlError>)>,
}

/// What the server tells.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) status: Value,
    pub(super) upstreams: Value,
    pub(super) tunnels: Value,
    /// `None` if it was not asked for, or there is no such tunnel.
    pub(super) details: Option<Value>,
    /// Of which one it was asked for.
    pub(super) details_of: Option<String>,
}

/// Answers until nobody asks or listens any more.
pub(super) fn answer(
    client: &Client,
    questions: &Receiver<Question>,
    tell: impl Fn(Answer) -> bool,
) {
    for question in questions {
        let killed = question.kill.as_ref().map(|kill| {
            let path = format!("tunnels/{}/close", client::escaped(&kill.id));
            (kill.id.clone(), client.post(&path, &kill.words).map(drop))
        });
        let found = find(client, &question);
        if !tell(Answer { at: Instant::now(), found, killed }) {
            return;
        }
    }
}

fn find(client: &Client, question: &Question) -> Result<Found, CtlError> {
    let status = client.get("status", &[])?;
    let upstreams = client.get("upstreams", &[])?;
    let tunnels = client.get("tunnels", &question.tunnels)?;
    let details = question.details.as_ref().map(|id| {
        match client.get(&format!("tunnels/{}", client::escaped(id)), &[]) {
            Ok(tunnel) => Ok(Some(tunnel)),
            Err(CtlError::Refused { status: 404, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    });
    let details = details.transpose()?.flatten();
    Ok(Found { status, upstreams, tunnels, details, details_of: question.details.clone() })
}
