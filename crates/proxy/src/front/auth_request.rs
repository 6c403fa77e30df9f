//! `auth_request`: a subrequest decides whether a request is let in.

use bytes::Bytes;
use wssgate_config::model::AuthRequest;

use super::guard::Verdict;
use crate::content::proxy;
use crate::exchange::{Exchange, Refusal, Request, variables};
use crate::front::subrequest;

/// Asks the location's `auth_request`.
///
/// # Errors
/// When the subrequest was not answered with a 2xx, or ended the connection, such as when the client
/// went away meanwhile.
pub(super) async fn check(
    exchange: &mut Exchange,
    asked: &AuthRequest,
) -> Result<Verdict, Refusal> {
    let (client, path) = (exchange.response.client(), Bytes::copy_from_slice(&asked.uri));
    let answered =
        subrequest::get(&exchange.request, client, path).await.map_err(Refusal::Denied)?;
    let request = &mut exchange.request;
    // Also what a refusal says: an error page may show it.
    for (variable, value) in &asked.set {
        variables::set(request, *variable, answered.text(value));
    }
    match variables::status(&answered) {
        200..=299 => Ok(Verdict::Allowed),
        403 => Err(Refusal::Denied(403)),
        401 => {
            request.response.special_fields.extend(challenges(&answered));
            Err(Refusal::Denied(401))
        }
        status => Err(Refusal::AuthRequest(status)),
    }
}

/// The challenges of a 401 (RFC 9110 §11.6.1): of the answer itself, or of the upstream whose answer
/// an error page has replaced.
fn challenges(answered: &Request) -> Vec<(Bytes, Bytes)> {
    const NAME: &[u8] = b"WWW-Authenticate";
    let sent = answered.response.fields.iter();
    let sent: Vec<_> = sent.filter(|(name, _)| name.eq_ignore_ascii_case(NAME)).cloned().collect();
    if !sent.is_empty() {
        return sent;
    }
    answered.upstream.head.as_ref().map(proxy::response::challenges).unwrap_or_default()
}
