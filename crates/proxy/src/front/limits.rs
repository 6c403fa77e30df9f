//! `limit_req` and `limit_conn`, in this order, once for a request.

mod connections;
mod requests;

use std::cell::Cell;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;
use wssgate_config::model::{LimitZone, LocationSettings, LogLevel};
use wssgate_syntax::printable;

use crate::exchange::{Exchange, Refusal, Request};

/// Applies the limits of the location.
///
/// # Errors
/// When one of them refuses the request, or the client leaves while the request is delayed.
pub(crate) async fn check(exchange: &Exchange, settings: &LocationSettings) -> Result<(), Refusal> {
    let request = &exchange.request;
    if let Some(limits) = &settings.limit_requests
        && request.limits.requests.get().is_none()
        && let Some(delay) = requests::limit(request, limits)?
    {
        wait(exchange, delay).await?;
    }
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

/// What a zone counts a request by; nothing when that is empty or longer than it may be.
fn key(request: &Request, zone: &LimitZone, max_len: usize) -> Option<Bytes> {
    let key = request.text(&zone.key);
    if key.len() > max_len {
        let (name, shown) = (printable(&zone.key_text), String::from_utf8_lossy(&key));
        let text = format_args!(
            "the value of the \"{name}\" key is more than {max_len} bytes: \"{shown}\""
        );
        request.log(LogLevel::Error, text);
        return None;
    }
    Some(key).filter(|key| !key.is_empty())
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
