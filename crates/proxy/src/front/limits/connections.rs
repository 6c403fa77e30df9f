//! `limit_conn`: how many requests and tunnels are in progress at the same time.

use wssgate_config::model::LimitConnections;
use wssgate_syntax::printable;

use super::refuse;
use crate::exchange::zone_key::zone_key;
use crate::exchange::{Refusal, Request};
use crate::limit::Occupied;

/// The longest key, as in nginx.
const MAX_KEY: usize = 255;

/// Counts a request as in progress in all zones that limit it, or refuses it.
pub(super) fn limit(request: &Request, limits: &LimitConnections) -> Result<(), Refusal> {
    let status = &request.limits.connections;
    let zones = &request.generation.limit_zones;
    let mut held = Vec::new();
    for limit in &limits.limits {
        let zone = &request.http().limit_zones[limit.zone.0];
        let Some(key) = zone_key(request, zone, MAX_KEY) else { continue };
        status.set(Some("PASSED"));
        match zones.connections(limit.zone).enter(&key, limit.most) {
            Ok(one) => held.push(one),
            Err(reason) => {
                if reason == Occupied::Limit {
                    let dry = if limits.dry_run { ", dry run," } else { "" };
                    let name = printable(&zone.name);
                    let text = format_args!("limiting connections{dry} by zone \"{name}\"");
                    request.log(limits.log_level, text);
                }
                let effects = zones.effects(limit.zone);
                if limits.dry_run { &effects.tried } else { &effects.refused }.increment();
                // With `held` the other zones let go of it.
                return refuse(status, limits.dry_run, limits.status);
            }
        }
    }
    request.limits.held.borrow_mut().append(&mut held);
    Ok(())
}
