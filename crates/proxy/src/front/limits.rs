//! What an operator has closed; then `limit_req`, `websocket_handshake_rate` and `limit_conn`, in this order, once for
//! a request.

mod connections;
mod handshakes;
mod requests;

use std::cell::Cell;
use std::time::Duration;

use tokio::time::sleep;
use wssgate_config::model::LocationSettings;

use crate::exchange::{Exchange, Refusal};

/// Applies the limits of the location.
///
/// # Errors
/// When one of them refuses the request, or the client leaves while the request waits.
pub(crate) async fn check(
    exchange: &mut Exchange,
    settings: &LocationSettings,
) -> Result<(), Refusal> {
    handshakes::check_door(&mut exchange.request)?;
    let request = &exchange.request;
    if let Some(limits) = &settings.limit_requests
        && request.limits.requests.get().is_none()
        && let Some(delay) = requests::limit(request, limits)?
    {
        wait(exchange, delay).await?;
    }
    let request = &exchange.request;
    if let Some(rate) = settings.websocket_handshake_rate
        && !request.is_subrequest()
        && request.asks_for_websocket()
        && !request.limits.handshake.replace(true)
    {
        handshakes::wait(exchange, rate).await?;
        // It may have been closed since.
        handshakes::check_door(&mut exchange.request)?;
    }
    let request = &exchange.request;
    if let Some(limits) = &settings.limit_connections
        && request.limits.connections.get().is_none()
    {
        connections::limit(request, limits)?;
    }
    Ok(())
}

/// Delays a request; nothing but itself waits.
async fn wait(exchange: &Exchange, delay: Duration) -> Result<(), Refusal> {
    tokio::select! {
        biased;
        () = sleep(delay) => Ok(()),
        () = exchange.response.closed() => Err(Refusal::ClientGone),
    }
}

/// Refuses a request, unless that is only tried.
fn refuse(status: &Cell<Option<&'static str>>, dry_run: bool, code: u16) -> Result<(), Refusal> {
    if dry_run {
        status.set(Some("REJECTED_DRY_RUN"));
        return Ok(());
    }
    status.set(Some("REJECTED"));
    Err(Refusal::Limited(code))
}
