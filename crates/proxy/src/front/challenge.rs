//! Answers to CAs that look whether a name is ours (http-01, RFC 8555 §8.3).

use bytes::Bytes;
use wssgate_http1::Method;

use crate::content::{self, Outcome};
use crate::exchange::{Exchange, Reply};

/// Where CAs look.
const PREFIX: &[u8] = b"/.well-known/acme-challenge/";

/// Answers a request for a token of an order of ours, whatever server and locations say. Other tokens are somebody
/// else's, such as certbot's.
pub(super) async fn answer(exchange: &mut Exchange) -> Option<Outcome> {
    let request = &exchange.request;
    let challenges = request.generation.acme.challenges()?;
    let token = request.target.path.strip_prefix(PREFIX)?;
    if !matches!(request.target.method, Method::Get | Method::Head) {
        return None;
    }
    let text = challenges.answer(token)?;
    if let Err(error) = exchange.body.will_discard().await {
        return Some(Outcome::Status(error.status()));
    }
    let mut reply = Reply::new(200);
    reply.content_type = Some(Bytes::from_static(b"text/plain"));
    reply.length = Some(text.len() as u64);
    Some(content::send(exchange, reply, text.into()).await)
}
