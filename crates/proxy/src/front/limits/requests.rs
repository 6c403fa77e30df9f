//! `limit_req`: how many requests are answered in a time.

use std::time::Duration;

use wssgate_config::model::{
    LimitKind, LimitRequests, LimitZone, LimitZoneId, LogLevel, RequestLimit,
};
use wssgate_syntax::printable;

use super::refuse;
use crate::exchange::zone_key::zone_key;
use crate::exchange::{Refusal, Request};
use crate::limit::{Bounds, Excess, Pin};

/// The longest key, as in nginx.
const MAX_KEY: usize = 65_535;

/// How much a limit has to do with a request.
#[derive(Clone, Copy)]
struct Verdict<'l> {
    limit: &'l RequestLimit,
    /// Thousandths of a request.
    excess: u64,
    /// Milliseconds.
    delay: u64,
}

/// Counts a request in all zones that limit it, or refuses it and counts it in none. The answer is how long it is to
/// be delayed.
pub(super) fn limit(
    request: &Request,
    limits: &LimitRequests,
) -> Result<Option<Duration>, Refusal> {
    let status = &request.limits.requests;
    match judge(request, &limits.limits) {
        Ok(None) => Ok(None),
        Ok(Some(Verdict { delay: 0, .. })) => {
            status.set(Some("PASSED"));
            Ok(None)
        }
        Ok(Some(verdict)) => {
            let level = quieter(limits.log_level);
            tell(request, level, "delaying request", limits.dry_run, ",", verdict);
            let effects = request.generation.limit_zones.effects(verdict.limit.zone);
            if limits.dry_run { &effects.tried } else { &effects.delayed }.increment();
            if limits.dry_run {
                status.set(Some("DELAYED_DRY_RUN"));
                return Ok(None);
            }
            status.set(Some("DELAYED"));
            Ok(Some(Duration::from_millis(verdict.delay)))
        }
        Err(refused) => {
            let zone = match refused {
                Refused::TooMany(verdict) => {
                    tell(
                        request,
                        limits.log_level,
                        "limiting requests",
                        limits.dry_run,
                        "",
                        verdict,
                    );
                    verdict.limit.zone
                }
                Refused::NoRoom(id) => {
                    let name = printable(&request.http().limit_zones[id.0].name);
                    let text = format_args!("could not allocate node in limit_req zone \"{name}\"");
                    request.log(LogLevel::Alert, text);
                    id
                }
            };
            let effects = request.generation.limit_zones.effects(zone);
            if limits.dry_run { &effects.tried } else { &effects.refused }.increment();
            refuse(status, limits.dry_run, limits.status).map(|()| None)
        }
    }
}

/// Why a request is refused.
enum Refused<'l> {
    TooMany(Verdict<'l>),
    NoRoom(LimitZoneId),
}

/// Looks at a request in zone after zone, and counts it when none refuses it. The answer is the limit that delays it
/// most, or for longest none; nothing when no zone has a key of it.
fn judge<'l>(
    request: &'l Request,
    limits: &'l [RequestLimit],
) -> Result<Option<Verdict<'l>>, Refused<'l>> {
    let zones = &request.generation.limit_zones;
    let mut pins: Vec<(&RequestLimit, Pin<'_>)> = Vec::new();
    let mut worst = None;
    for (index, limit) in limits.iter().enumerate() {
        let zone = zone(request, limit);
        let Some(key) = zone_key(request, zone, MAX_KEY) else { continue };
        let bounds = bounds(request, limit);
        let refused = |excess| match excess {
            Excess::Of(excess) => Refused::TooMany(Verdict { limit, excess, delay: 0 }),
            Excess::NoRoom => Refused::NoRoom(limit.zone),
        };
        let table = zones.requests(limit.zone);
        // Nothing can refuse it any more behind the last.
        if index + 1 == limits.len() {
            let excess = table.count(&key, bounds).map_err(refused)?;
            worst = Some(verdict(limit, excess, bounds));
        } else {
            pins.push((limit, table.look(&key, bounds).map_err(refused)?));
        }
    }
    while let Some((limit, pin)) = pins.pop() {
        let verdict = verdict(limit, pin.count(), bounds(request, limit));
        if worst.is_none_or(|worst: Verdict<'_>| verdict.delay > worst.delay) {
            worst = Some(verdict);
        }
    }
    Ok(worst)
}

fn verdict(limit: &RequestLimit, excess: u64, bounds: Bounds) -> Verdict<'_> {
    let late = u128::from(excess.saturating_sub(limit.delay));
    let delay = u64::try_from(late * 1000 / u128::from(bounds.rate)).unwrap_or(u64::MAX);
    Verdict { limit, excess, delay }
}

fn zone<'r>(request: &'r Request, limit: &RequestLimit) -> &'r LimitZone {
    &request.http().limit_zones[limit.zone.0]
}

fn bounds(request: &Request, limit: &RequestLimit) -> Bounds {
    let LimitKind::Requests { rate } = zone(request, limit).kind else {
        unreachable!("`limit_req` names zones of requests");
    };
    Bounds { rate, burst: limit.burst }
}

/// The level of what is only delayed.
fn quieter(level: LogLevel) -> LogLevel {
    match level {
        LogLevel::Warn => LogLevel::Notice,
        LogLevel::Notice | LogLevel::Info => LogLevel::Info,
        _ => LogLevel::Warn,
    }
}

fn tell(
    request: &Request,
    level: LogLevel,
    what: &str,
    dry_run: bool,
    comma: &str,
    verdict: Verdict<'_>,
) {
    let dry = if dry_run { ", dry run" } else { "" };
    let (whole, thousandths) = (verdict.excess / 1000, verdict.excess % 1000);
    let name = printable(&zone(request, verdict.limit).name);
    let text =
        format_args!("{what}{dry}, excess: {whole}.{thousandths:03}{comma} by zone \"{name}\"");
    request.log(level, text);
}
