//! What follows an answer, before the connection takes another request: mirrors come to their end, and
//! `post_action` goes on.

use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;

use crate::exchange::{Exchange, Presence, Responder};
use crate::front::phases;
use crate::front::subrequest::{self, HeadOnly};

/// Does all of it.
pub(crate) async fn run(exchange: &mut Exchange) {
    let uri = exchange.request.location().settings.post_action.as_deref();
    if let Some(uri) = uri.map(Bytes::copy_from_slice) {
        Box::pin(post_action(exchange, uri)).await;
    }
    if let Some(mut background) = exchange.background.take() {
        while background.join_next().await.is_some() {}
    }
}

/// `post_action`: the same request goes on elsewhere, and its answer is for nobody. Variables still
/// tell of the one that the client got, and so does the access line.
async fn post_action(exchange: &mut Exchange, uri: Bytes) {
    let response = Responder::new(HeadOnly, Rc::new(Nobody), subrequest::embed);
    let answered = std::mem::replace(&mut exchange.response, response);
    let (state, fate) = (exchange.request.response.clone(), exchange.request.fate);
    phases::go_on(exchange, uri).await;
    (exchange.request.response, exchange.request.fate) = (state, fate);
    exchange.response = answered;
}

/// Nobody who could go away.
pub(crate) struct Nobody;

impl Presence for Nobody {
    fn poll_closed(&self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}
