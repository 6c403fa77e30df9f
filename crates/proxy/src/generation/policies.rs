//! What the configuration says about WebSockets, as their conversations want it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use wssgate_config::Config;
use wssgate_config::model::{DrainOrder, FrameCheck, Sides, TunnelSettings};
use wssgate_ws::CloseCode;
use wssgate_ws::conversation::{Check, KeepAlive, Limits, PerSide, Policy};

use crate::clock::millis;

/// The policies of all locations; those with the same settings share one.
pub(super) fn build(config: &Config) -> Vec<Option<Arc<Policy>>> {
    let mut known = HashMap::new();
    // Listings tell for how long nothing has been said.
    let listed = config.core.admin.is_some();
    let locations = config.http.iter().flat_map(|http| &http.locations);
    let settings = locations.map(|location| &location.proxy.tunnels);
    settings
        .map(|settings| {
            known.entry(settings).or_insert_with(|| policy(settings, listed).map(Arc::new)).clone()
        })
        .collect()
}

fn policy(settings: &TunnelSettings, listed: bool) -> Option<Policy> {
    let check = match settings.check {
        FrameCheck::Off => return None,
        FrameCheck::Note => Check::Note,
        FrameCheck::Frames => Check::Frames,
        FrameCheck::Text => Check::Text,
    };
    let keep_alive = |interval: Option<Duration>, timeout: Option<Duration>| {
        interval.map(|interval| KeepAlive {
            interval_ms: millis(interval),
            pong_timeout_ms: timeout.map(millis),
        })
    };
    let (interval, timeout) = (settings.ping_interval, settings.pong_timeout);
    let limits =
        |frame, message, fragments, controls| Limits { frame, message, fragments, controls };
    let TunnelSettings {
        max_frame_size: frame,
        max_message_size: message,
        max_fragments: fragments,
        max_control_frames: controls,
        ..
    } = settings;
    Some(Policy {
        keep_alive: PerSide {
            client: keep_alive(interval.client, timeout.client),
            server: keep_alive(interval.upstream, timeout.upstream),
        },
        idle_ms: settings.idle_timeout.map(millis),
        notes_data: listed || settings.drain.is_some_and(|drain| drain.order == DrainOrder::Idlest),
        slow_reader_ms: per_side(settings.slow_reader_timeout, |timeout| timeout.map(millis)),
        check,
        limits: PerSide {
            client: limits(frame.client, message.client, fragments.client, controls.client),
            server: limits(frame.upstream, message.upstream, fragments.upstream, controls.upstream),
        },
        failure: settings.failure_code.map(CloseCode),
    })
}

fn per_side<T, U>(sides: Sides<T>, convert: impl Fn(T) -> U) -> PerSide<U> {
    PerSide { client: convert(sides.client), server: convert(sides.upstream) }
}
