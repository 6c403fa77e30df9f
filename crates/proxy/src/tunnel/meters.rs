//! Who counts what the sides of a WebSocket send: its own rates, those of its zones, and `limit_rate`.

use std::sync::Arc;

use wssgate_config::model::{LimitKind, Sides, TunnelLimit, TunnelRate};
use wssgate_ws::Side;
use wssgate_ws::conversation::{Meters, PerSide};

use crate::exchange::Request;
use crate::exchange::headers;
use crate::exchange::zone_key::zone_key;
use crate::limit::{Allowance, Measure, Rule};

/// The longest key. It fits into the least zone, so there is always room.
const MAX_KEY: usize = 4096;

/// All that count a WebSocket which begins with this request.
pub(super) fn meters(request: &Request) -> Option<Box<PerSide<Meters>>> {
    let tunnels = &request.location().proxy.tunnels;
    let mut meters = PerSide::<Meters>::default();
    add_rates(&mut meters, tunnels.message_rate, Measure::Messages);
    add_rates(&mut meters, tunnels.byte_rate, Measure::Bytes);
    for limit in &tunnels.limits {
        add_zone(&mut meters, request, limit);
    }
    add_limit_rate(&mut meters, request);
    let any = !meters.client.is_empty() || !meters.server.is_empty();
    any.then(|| Box::new(meters))
}

fn add_rates(meters: &mut PerSide<Meters>, rates: Sides<Option<TunnelRate>>, measure: Measure) {
    for (side, rate) in [(Side::Client, rates.client), (Side::Server, rates.upstream)] {
        if let Some(rate) = rate {
            let rule = rule(measure, rate.rate, rate.burst, rate.close);
            meters.get_mut(side).push(Arc::new(Allowance::new(rule, 0)));
        }
    }
}

fn add_zone(meters: &mut PerSide<Meters>, request: &Request, limit: &TunnelLimit) {
    let zone = &request.http().limit_zones[limit.zone.0];
    let (measure, rate) = match zone.kind {
        LimitKind::Messages { rate } => (Measure::Messages, rate),
        LimitKind::Bytes { rate } => (Measure::Bytes, rate),
        LimitKind::Requests { .. } | LimitKind::Connections => {
            unreachable!("`websocket_limit` names zones of its own")
        }
    };
    if let Some(key) = zone_key(request, zone, MAX_KEY) {
        let rule = rule(measure, rate, limit.burst, limit.close);
        let side = if limit.from_upstream { Side::Server } else { Side::Client };
        let share = request.generation.limit_zones.share(limit.zone, key, rule);
        meters.get_mut(side).push(Arc::new(share));
    }
}

/// As for a response, what one second allows may come at once. nginx lets nothing unused be lost, which would allow a
/// WebSocket that was silent for an hour to send the bytes of an hour at once.
fn add_limit_rate(meters: &mut PerSide<Meters>, request: &Request) {
    let location = request.location();
    let per_second = headers::limit_rate(request, location);
    if per_second > 0 {
        let rule = rule(Measure::Bytes, per_second.saturating_mul(1000), None, false);
        let free = headers::limit_rate_after(request, location);
        meters.server.push(Arc::new(Allowance::new(rule, free)));
    }
}

/// Without a burst it is what the rate allows in one second.
fn rule(measure: Measure, rate: u64, burst: Option<u64>, close: bool) -> Rule {
    let burst = burst.map_or(rate, |burst| burst.saturating_mul(1000));
    Rule { measure, rate, burst, close }
}
