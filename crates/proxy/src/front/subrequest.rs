//! Requests that we make of our own configuration on the way to an answer.

mod outlet;

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinSet;
use wssgate_config::model::LocationSettings;
use wssgate_http1::Method;

use crate::exchange::body::{Complete, Length};
use crate::exchange::delivery::Delivery;
use crate::exchange::filter::{Embedding, Include, Included};
use crate::exchange::request::{Origin, Parent};
use crate::exchange::subrequests::Refused;
use crate::exchange::{
    Exchange, Gone, Presence, Refusal, Request, RequestBody, Responder, access_log, variables,
};
use crate::front::after::Nobody;
use crate::front::phases::{self, Finish};
pub(crate) use outlet::HeadOnly;
use outlet::{Kept, Memory};

/// Has `path` answered as a plain GET with the fields of `parent` and without its body, and gives
/// back what is known then: status, fields, the trace of the upstream. Nothing of a body is read.
/// `client` is the one of the parent: whoever answers may watch it, as its location says.
///
/// # Errors
/// When nothing was answered and the connection is to be closed: the status for the log, which is
/// 408, 444 or 499. When there are too many subrequests: 500.
pub(crate) async fn get(
    parent: &Request,
    client: Rc<dyn Presence>,
    path: Bytes,
) -> Result<Request, u16> {
    let wanted = Include { path, ..Include::default() };
    let response = Responder::new(HeadOnly, client, embed);
    let mut exchange = exchange(parent, &wanted, response).map_err(|Refused| 500u16)?;
    let finish = answer(&mut exchange).await;
    let request = exchange.request;
    parent.limits.take_over(&request.limits);
    match finish {
        Finish::Close if !request.response.head_sent => Err(request.response.status),
        _ => Ok(request),
    }
}

/// Has a path answered inside the answer to `parent`, or keeps the answer to give it back.
///
/// # Errors
/// When it broke off: as in nginx the answer that it was for breaks off too.
pub(crate) fn embed(
    parent: &Request,
    client: Rc<dyn Presence>,
    delivery: Rc<Delivery>,
    wanted: Include,
) -> Embedding<'_> {
    Box::pin(async move {
        if wanted.keep {
            let Ok((exchange, kept)) = keeping(parent, client, &wanted, 0) else {
                return Ok(Included::NotMade);
            };
            let (status, body) = answer_kept(parent, exchange, kept).await?;
            return Ok(Included::Kept(status, body));
        }
        let Ok(exchange) = exchange(parent, &wanted, Responder::part_of(delivery, embed)) else {
            return Ok(Included::NotMade);
        };
        let (exchange, finish) = answer_apart(exchange).await?;
        parent.limits.take_over(&exchange.request.limits);
        match finish {
            Finish::Done => Ok(Included::Sent(exchange.response.has_body())),
            Finish::Close | Finish::Upgrade(_) => Err(Gone::Closed),
        }
    })
}

/// Has a path answered for ourselves: nothing of the client goes with it. Gives back the status and a
/// body of up to `max` bytes, or what `subrequest_output_buffer_size` allows if that is more.
///
/// # Errors
/// When the answer broke off, or there are too many subrequests.
pub(crate) async fn fetch(
    parent: &Request,
    client: Rc<dyn Presence>,
    path: Bytes,
    args: Bytes,
    max: usize,
) -> Result<(u16, Bytes), Gone> {
    let wanted = Include { path, args, keep: true, own: true, ..Include::default() };
    let (exchange, kept) = keeping(parent, client, &wanted, max).map_err(|Refused| Gone::Closed)?;
    answer_kept(parent, exchange, kept).await
}

/// Makes a request whose answer is kept.
fn keeping(
    parent: &Request,
    client: Rc<dyn Presence>,
    wanted: &Include,
    least: usize,
) -> Result<(Exchange, Kept), Refused> {
    let (memory, kept) = Memory::new(least);
    let response = Responder::new(memory, client, embed);
    Ok((exchange(parent, wanted, response)?, kept))
}

async fn answer_kept(
    parent: &Request,
    exchange: Exchange,
    kept: Kept,
) -> Result<(u16, Bytes), Gone> {
    let (exchange, finish) = answer_apart(exchange).await?;
    parent.limits.take_over(&exchange.request.limits);
    match finish {
        Finish::Done => Ok((variables::status(&exchange.request), kept.take())),
        Finish::Close | Finish::Upgrade(_) => Err(Gone::Closed),
    }
}

/// Answers in a task of its own, which ends with whoever waits for it. Subrequests may be nested deep,
/// and would otherwise be polled through all those around them: more than a stack may hold.
async fn answer_apart(mut exchange: Exchange) -> Result<(Exchange, Finish), Gone> {
    let mut tasks = JoinSet::new();
    tasks.spawn_local(async move {
        let finish = answer(&mut exchange).await;
        (exchange, finish)
    });
    // Nobody else ends it.
    tasks.join_next().await.and_then(Result::ok).ok_or(Gone::Closed)
}

/// Answers, and writes the access line if there is to be one.
async fn answer(exchange: &mut Exchange) -> Finish {
    // Boxed, for the phases of a request contain this.
    let finish = Box::pin(phases::answer(exchange)).await;
    if exchange.request.location().settings.log_subrequest {
        access_log::write(&exchange.request).await;
    }
    finish
}

/// Makes a request for `wanted`. All subrequests are made here.
///
/// The values that variables were given are the same on both sides, as in nginx. No access rules
/// are asked: the parent has passed them, or is about to.
///
/// # Errors
/// When there are too many, or nested too deep.
fn exchange(parent: &Request, wanted: &Include, response: Responder) -> Result<Exchange, Refused> {
    parent.subrequests.admit(parent, &wanted.path)?;
    let mut request = Request::new(
        Arc::clone(&parent.generation),
        Rc::clone(&parent.site),
        Rc::clone(&parent.connection),
        parent.route.server,
        parent.arrival.clone(),
    );
    // Those bytes came with the parent.
    request.arrival.head_len = 0;
    request.client = parent.client;
    request.vouched_for = parent.vouched_for;
    request.traffic = Rc::clone(&parent.traffic);
    request.target.method = Method::Get;
    request.target.method_name = Bytes::from_static(b"GET");
    request.target.path = wanted.path.clone();
    *request.target.args.borrow_mut() = wanted.args.clone();
    // The path is ours, so the target as the client sent it must not go to an upstream.
    request.target.as_sent.set(false);
    request.route.origin = Origin::Subrequest(Parent {
        method_name: parent.shown_method().clone(),
        depth: parent.depth() + 1,
        or_nothing: wanted.or_nothing,
        own: wanted.own,
    });
    request.values.cells = Rc::clone(&parent.values.cells);
    request.identity = Rc::clone(&parent.identity);
    request.secrets = Rc::clone(&parent.secrets);
    request.subrequests = Rc::clone(&parent.subrequests);
    request.limits = parent.limits.of_subrequest();
    request.values.page.clone_from(&parent.values.page);
    request.values.charset.clone_from(&parent.values.charset);
    let mut body = RequestBody::new(Complete(Length::None));
    body.bound(&request.location().settings);
    Ok(Exchange { request, body, response, background: None })
}

/// Makes the copies of a request that `mirror` asks for, and lets them run.
///
/// # Errors
/// When the body that they copy cannot be read.
pub(crate) async fn mirror(
    exchange: &mut Exchange,
    settings: &LocationSettings,
) -> Result<(), Refusal> {
    let Some(mirrors) = settings.mirrors.as_ref().filter(|_| !exchange.request.is_subrequest())
    else {
        return Ok(());
    };
    if mirrors.body && exchange.body.length() != Length::None {
        let body = exchange.body.buffer(settings).await.map_err(Refusal::Body)?;
        exchange.request.body = Some(body);
    }
    let parent = &exchange.request;
    let background = exchange.background.get_or_insert_with(JoinSet::new);
    for uri in &mirrors.uris {
        let path = Bytes::copy_from_slice(uri);
        let args = parent.target.args.borrow().clone();
        let wanted = Include { path, args, ..Include::default() };
        let response = Responder::new(HeadOnly, Rc::new(Nobody), embed);
        // The request itself goes on.
        let Ok(mut copy) = self::exchange(parent, &wanted, response) else { break };
        copy.request.target.method = parent.target.method;
        copy.request.target.method_name = parent.target.method_name.clone();
        if let Some(body) = parent.body.as_ref().filter(|_| mirrors.body) {
            copy.request.body = Some(Rc::clone(body));
            copy.body = RequestBody::copy_of(Rc::clone(body));
            copy.body.bound(&copy.request.location().settings);
        }
        background.spawn_local(async move {
            answer(&mut copy).await;
        });
    }
    Ok(())
}
