//! How many WebSocket handshakes go on in a time (`websocket_handshake_rate`), and where an operator lets none in.

use std::time::{Duration, Instant};

use bytes::Bytes;
use wssgate_config::model::{HandshakeRateId, LocationId};

use crate::exchange::refusal::HandshakeRefusal;
use crate::exchange::{Exchange, Refusal, Request};
use crate::generation::doors::Again;
use crate::limit::Entry;
use crate::site::Phase;

/// Waits for the turn of a handshake.
///
/// # Errors
/// When too many wait already, the server begins to end, or the client leaves.
pub(super) async fn wait(exchange: &mut Exchange, id: HandshakeRateId) -> Result<(), Refusal> {
    let request = &exchange.request;
    let (rate, turns) = (&request.http().handshake_rates[id.0], &request.generation.turns[id.0]);
    let after = match turns.enter(rate, Instant::now()) {
        Entry::Free => return Ok(()),
        Entry::Waits(place) => {
            // Whoever opens a WebSocket during a drain would have to leave it soon.
            tokio::select! {
                biased;
                () = place.turn() => if !is_drained(request) { return Ok(()) },
                () = exchange.response.closed() => return Err(Refusal::ClientGone),
                () = request.site.reached(Phase::Draining) => {}
            }
            turns.refuse(rate, Instant::now())
        }
        Entry::Refused(after) => after,
    };
    let seconds = whole_seconds(after).clamp(rate.retry_min.as_secs(), rate.retry_max.as_secs());
    Err(refusal(&mut exchange.request, seconds, HandshakeRefusal::Rate))
}

/// Lets handshakes pass where no operator has closed the location.
pub(super) fn check_door(request: &mut Request) -> Result<(), Refusal> {
    let closed = closed(request);
    let Some(again) = closed.filter(|_| !request.is_subrequest() && request.asks_for_websocket())
    else {
        return Ok(());
    };
    Err(refusal(request, again.chance().as_secs(), HandshakeRefusal::Closed))
}

/// When to come again if the location of the request is closed. Operators close locations of the newest generation: a
/// request that began with an older one must not slip through the location of the same name.
fn closed(request: &Request) -> Option<Again> {
    let newest = request.site.current.load();
    if newest.doors.all_open() {
        return None;
    }
    let location = request.route.location;
    if newest.number == request.generation.number {
        return newest.doors.closed(location);
    }
    let own = request.generation.place(location);
    let places = newest.places().iter().enumerate();
    places
        .filter(|(_, place)| place.server == own.server && place.location == own.location)
        .find_map(|(number, _)| newest.doors.closed(LocationId(number)))
}

/// The client is to come again after so many seconds.
fn refusal(request: &mut Request, seconds: u64, refusal: HandshakeRefusal) -> Refusal {
    let field = (Bytes::from_static(b"Retry-After"), Bytes::from(seconds.to_string()));
    request.response.special_fields.push(field);
    Refusal::Handshake(refusal)
}

/// Whether a reload has begun to drain the location of the request since it came.
fn is_drained(request: &Request) -> bool {
    let draining = request.generation.life().draining();
    draining.is_some_and(|draining| draining.drains(request.route.location))
}

/// Rounded by chance, so that those who are told the same time do not all come at its full seconds.
fn whole_seconds(time: Duration) -> u64 {
    let mut random = [0; 4];
    let _ = aws_lc_rs::rand::fill(&mut random);
    let nanos = (u64::from(u32::from_le_bytes(random)) * 1_000_000_000) >> 32;
    (time + Duration::from_nanos(nanos)).as_secs()
}
