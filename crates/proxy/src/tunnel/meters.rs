//! Who counts what the sides of a WebSocket send: its own rates, those of its zones, and `limit_rate`.

use std::sync::Arc;

use bytes::Bytes;
use minicbor::{Decode, Encode};
use wssgate_config::model::{LimitKind, Sides, TunnelLimit, TunnelRate, TunnelSettings};
use wssgate_config::value;
use wssgate_relay::clock_ms;
use wssgate_ws::Side;
use wssgate_ws::conversation::{Meters, PerSide};

use crate::exchange::Request;
use crate::exchange::headers;
use crate::exchange::zone_key::zone_key;
use crate::generation::Generation;
use crate::limit::{Allowance, KeyState, Level, Measure, Rule, Share};
use crate::tunnel::portable::Spot;

/// The longest key. It fits into the least zone, so there is always room.
const MAX_KEY: usize = 4096;

/// All that count one WebSocket.
#[derive(Debug, Default)]
pub(super) struct Metered(Vec<One>);

#[derive(Debug)]
struct One {
    side: Side,
    by: By,
}

#[derive(Debug)]
enum By {
    /// `websocket_message_rate`, `websocket_byte_rate`.
    Rate(Arc<Allowance>),
    /// `websocket_limit`.
    Zone(Arc<Share>),
    /// `limit_rate`.
    LimitRate(LimitRate, Arc<Allowance>),
}

/// Where `limit_rate` comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
enum LimitRate {
    /// The directive.
    #[n(0)]
    Configured,
    /// The variable of this name, which was set.
    #[n(1)]
    Set,
}

/// One that counts, for another process. Numbers are never used again for something else.
#[derive(Debug, Encode, Decode)]
#[cbor(map)]
pub(super) struct MeterState<'b> {
    /// Whether it counts what the upstream server sends, and not the client.
    #[n(0)]
    #[cbor(default)]
    from_upstream: bool,
    /// Whether it counts bytes, and not messages.
    #[n(1)]
    #[cbor(default)]
    bytes: bool,
    /// See [`Rule`].
    #[n(2)]
    rate: u64,
    #[n(3)]
    #[cbor(default)]
    burst: u64,
    #[n(4)]
    #[cbor(default)]
    close: bool,
    /// See [`Level`].
    #[n(5)]
    #[cbor(default)]
    excess: u64,
    #[n(6)]
    #[cbor(default)]
    free: u64,
    /// By which key of which zone.
    #[b(7)]
    key: Option<KeyState<'b>>,
    #[n(8)]
    limit_rate: Option<LimitRate>,
}

impl Metered {
    /// Those of a WebSocket that begins with this request; `None` if there are none.
    pub(super) fn of(request: &Request) -> Option<Box<Self>> {
        let tunnels = &request.location().proxy.tunnels;
        let mut metered = Self::default();
        metered.add_rates(tunnels, |_, _| Level::default());
        for limit in &tunnels.limits {
            metered.add_zone_of(request, limit);
        }
        metered.add_limit_rate_of(request);
        metered.if_any()
    }

    /// As conversations want them.
    pub(super) fn meters(&self) -> Box<PerSide<Meters>> {
        let mut meters = Box::<PerSide<Meters>>::default();
        for One { side, by } in &self.0 {
            meters.get_mut(*side).push(match by {
                By::Rate(allowance) | By::LimitRate(_, allowance) => Arc::clone(allowance) as _,
                By::Zone(share) => Arc::clone(share) as _,
            });
        }
        meters
    }

    /// What another process has to know of them.
    pub(super) fn state(&self) -> Vec<MeterState<'_>> {
        self.0.iter().map(One::state).collect()
    }

    /// Those of a WebSocket that another process has counted: by the rates of the place where it is now, and as full as
    /// they were. Zones that are new to it cannot count it, for the request that had the key is gone.
    pub(super) fn restore(
        states: &[MeterState<'_>],
        generation: &Generation,
        spot: &Spot,
    ) -> Option<Box<Self>> {
        let mut metered = Self::default();
        match spot {
            Spot::Here(location) => {
                let location = &generation.http().locations[location.0];
                let tunnels = &location.proxy.tunnels;
                metered.add_rates(tunnels, |side, measure| {
                    let same = |state: &&MeterState<'_>| {
                        state.is_rate() && (state.side(), state.measure()) == (side, measure)
                    };
                    states.iter().find(same).map(MeterState::level).unwrap_or_default()
                });
                for limit in &tunnels.limits {
                    metered.add_zone_again(states, generation, limit);
                }
                let configured = location.settings.limit_rate.as_ref();
                metered.add_limit_rate_again(
                    states.iter().find(|state| state.limit_rate.is_some()),
                    configured.map(|text| text.as_text()),
                );
            }
            Spot::Gone(_) => metered.add_all(states, generation),
        }
        metered.if_any()
    }

    fn if_any(self) -> Option<Box<Self>> {
        (!self.0.is_empty()).then(|| Box::new(self))
    }

    fn add(&mut self, side: Side, by: By) {
        self.0.push(One { side, by });
    }

    fn add_rates(&mut self, tunnels: &TunnelSettings, level: impl Fn(Side, Measure) -> Level) {
        let mut add = |rates: Sides<Option<TunnelRate>>, measure| {
            for (side, rate) in [(Side::Client, rates.client), (Side::Server, rates.upstream)] {
                let Some(rate) = rate else { continue };
                let rule = rule(measure, rate.rate, rate.burst, rate.close);
                let allowance = Allowance::new(rule, level(side, measure), clock_ms());
                self.add(side, By::Rate(Arc::new(allowance)));
            }
        };
        add(tunnels.message_rate, Measure::Messages);
        add(tunnels.byte_rate, Measure::Bytes);
    }

    fn add_zone_of(&mut self, request: &Request, limit: &TunnelLimit) {
        let zone = &request.http().limit_zones[limit.zone.0];
        if let Some(key) = zone_key(request, zone, MAX_KEY) {
            let (side, share) = share(&request.generation, limit, key);
            self.add(side, By::Zone(Arc::new(share)));
        }
    }

    fn add_zone_again(
        &mut self,
        states: &[MeterState<'_>],
        generation: &Generation,
        limit: &TunnelLimit,
    ) {
        let zones = &generation.limit_zones;
        let same = |state: &MeterState<'_>| {
            let key = state.key.as_ref().filter(|key| zones.is_of(limit.zone, key))?;
            Some((Bytes::copy_from_slice(key.key()), state.excess))
        };
        if let Some((key, excess)) = states.iter().find_map(same) {
            let (side, share) = share(generation, limit, key);
            share.raise(excess);
            self.add(side, By::Zone(Arc::new(share)));
        }
    }

    fn add_limit_rate_of(&mut self, request: &Request) {
        let location = request.location();
        let origin = match &*request.values.limit_rate.borrow() {
            Some(_) => LimitRate::Set,
            None => LimitRate::Configured,
        };
        let per_second = headers::limit_rate(request, location);
        let free = headers::limit_rate_after(request, location);
        self.add_limit_rate(
            origin,
            per_second,
            Level { excess: 0, free: free.saturating_mul(1000) },
        );
    }

    /// `configured` is the text of the directive, if there is one, which may have no variables. What the request alone
    /// could say stays as it has said.
    fn add_limit_rate_again(
        &mut self,
        state: Option<&MeterState<'_>>,
        configured: Option<Option<&[u8]>>,
    ) {
        let before = state.map(|state| state.rate / 1000);
        let origin = state.and_then(|state| state.limit_rate).unwrap_or(LimitRate::Configured);
        let per_second = match (origin, configured) {
            (LimitRate::Set, _) | (LimitRate::Configured, Some(None)) => before,
            (LimitRate::Configured, Some(Some(text))) => value::offset(text),
            (LimitRate::Configured, None) => None,
        };
        let level = state.map(MeterState::level).unwrap_or_default();
        self.add_limit_rate(origin, per_second.unwrap_or(0), level);
    }

    /// As for a response, what one second allows may come at once. nginx lets nothing unused be lost, which would allow a
    /// WebSocket that was silent for an hour to send the bytes of an hour at once.
    fn add_limit_rate(&mut self, origin: LimitRate, per_second: u64, level: Level) {
        if per_second > 0 {
            let rule = rule(Measure::Bytes, per_second.saturating_mul(1000), None, false);
            let allowance = Arc::new(Allowance::new(rule, level, clock_ms()));
            self.add(Side::Server, By::LimitRate(origin, allowance));
        }
    }

    /// All as they were, as far as there are zones.
    fn add_all(&mut self, states: &[MeterState<'_>], generation: &Generation) {
        for state in states {
            let rule = state.rule();
            let by = match (&state.key, state.limit_rate) {
                (Some(key), _) => {
                    let Some(share) = generation.limit_zones.share_of(key, rule) else { continue };
                    share.raise(state.excess);
                    By::Zone(Arc::new(share))
                }
                (None, Some(origin)) => {
                    By::LimitRate(origin, Arc::new(Allowance::new(rule, state.level(), clock_ms())))
                }
                (None, None) => By::Rate(Arc::new(Allowance::new(rule, state.level(), clock_ms()))),
            };
            self.add(state.side(), by);
        }
    }
}

impl One {
    fn state(&self) -> MeterState<'_> {
        let (rule, level, key, limit_rate) = match &self.by {
            By::Rate(allowance) => (allowance.rule(), allowance.level(clock_ms()), None, None),
            By::LimitRate(origin, allowance) => {
                (allowance.rule(), allowance.level(clock_ms()), None, Some(*origin))
            }
            By::Zone(share) => {
                let (key, excess) = share.state();
                (share.rule(), Level { excess, free: 0 }, Some(key), None)
            }
        };
        MeterState {
            from_upstream: self.side == Side::Server,
            bytes: rule.measure == Measure::Bytes,
            rate: rule.rate,
            burst: rule.burst,
            close: rule.close,
            excess: level.excess,
            free: level.free,
            key,
            limit_rate,
        }
    }
}

impl MeterState<'_> {
    fn side(&self) -> Side {
        if self.from_upstream { Side::Server } else { Side::Client }
    }

    fn measure(&self) -> Measure {
        if self.bytes { Measure::Bytes } else { Measure::Messages }
    }

    fn is_rate(&self) -> bool {
        self.key.is_none() && self.limit_rate.is_none()
    }

    fn level(&self) -> Level {
        Level { excess: self.excess, free: self.free }
    }

    fn rule(&self) -> Rule {
        // Nothing divides by 0, whoever has written it.
        let rate = self.rate.max(1);
        Rule { measure: self.measure(), rate, burst: self.burst, close: self.close }
    }
}

fn share(generation: &Generation, limit: &TunnelLimit, key: Bytes) -> (Side, Share) {
    let (measure, rate) = match generation.http().limit_zones[limit.zone.0].kind {
        LimitKind::Messages { rate } => (Measure::Messages, rate),
        LimitKind::Bytes { rate } => (Measure::Bytes, rate),
        LimitKind::Requests { .. } | LimitKind::Connections => {
            unreachable!("`websocket_limit` names zones of its own")
        }
    };
    let rule = rule(measure, rate, limit.burst, limit.close);
    let side = if limit.from_upstream { Side::Server } else { Side::Client };
    (side, generation.limit_zones.share(limit.zone, key, rule))
}

/// Without a burst it is what the rate allows in one second.
fn rule(measure: Measure, rate: u64, burst: Option<u64>, close: bool) -> Rule {
    let burst = burst.map_or(rate, |burst| burst.saturating_mul(1000));
    Rule { measure, rate, burst, close }
}
