//! `prometheus`: what is counted, as Prometheus reads it.
//!
//! A scrape reads numbers that are there: it asks no relay and looks at no tunnel, so that it costs the same with
//! one tunnel and with a million. Label values come from the configuration or from fixed lists, never from
//! clients, and each family has a bound ([`families`]).

pub mod families;
mod process;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use wssgate_config::model::{LimitKind, LimitZoneId, ListenAddr};
use wssgate_http1::Method;
use wssgate_metrics::{Exposition, Family, Format, Seconds};
use wssgate_relay::{Side, SideCounters};
use wssgate_syntax::printable;

use crate::content::{self, Outcome};
use crate::exchange::{Exchange, Reply, Request};
use crate::generation::Generation;
use crate::listen::Listener;
use crate::metrics::{
    CLASSES, Ends, Failure, Metrics, PerKind, ServerCounters, ServerSeries, WorkerCounters,
};
use crate::peers::group::PeerStatus;
use crate::peers::ports;

/// Answers with all metrics, in the format that is asked for.
pub(crate) async fn prometheus(exchange: &mut Exchange) -> Outcome {
    if !matches!(exchange.request.target.method, Method::Get | Method::Head) {
        return Outcome::Status(405);
    }
    if let Err(error) = exchange.body.will_discard().await {
        return Outcome::Status(error.status());
    }
    let format = Format::wanted(exchange.request.field("accept").unwrap_or_default());
    let text = scrape(&exchange.request, format);
    let mut reply = Reply::new(200);
    reply.content_type = Some(Bytes::from_static(format.content_type().as_bytes()));
    reply.length = Some(text.len() as u64);
    // Who keeps an answer would keep yesterday's numbers.
    reply.push("Cache-Control", Bytes::from_static(b"no-store"));
    reply.push("Vary", Bytes::from_static(b"Accept"));
    content::send(exchange, reply, text.into()).await
}

fn scrape(request: &Request, format: Format) -> String {
    let site = &request.site;
    // Not that of the request, whose connection may have begun long ago.
    let generation = site.generation();
    let metrics = &site.all_metrics;
    let mut out = Exposition::new(format);
    configuration(&mut out, metrics, &generation);
    connections(&mut out, metrics);
    servers(&mut out, &metrics.registry.all_servers());
    tunnels(&mut out, metrics);
    credentials(&mut out, metrics, site.revocations.count(Instant::now()));
    messages(&mut out, metrics);
    limits(&mut out, &generation);
    upstreams(&mut out, &generation);
    listeners(&mut out, &site.listeners.borrow());
    certificates(&mut out, &generation);
    process::write(&mut out, metrics.started);
    out.finish()
}

fn configuration(out: &mut Exposition, metrics: &Metrics, generation: &Generation) {
    let reload = &metrics.registry.reload;
    let (tried, succeeded) = reload.times();
    out.family(&families::BUILD_INFO).count(&[env!("CARGO_PKG_VERSION")], 1);
    out.family(&families::CONFIG_GENERATION).count(&[], generation.number);
    out.family(&families::RELOAD_SUCCESSFUL).count(&[], reload.is_successful().into());
    out.family(&families::RELOAD_TIME).count(&[], tried);
    out.family(&families::RELOAD_SUCCESS_TIME).count(&[], succeeded);
    let mut reloads = out.family(&families::RELOADS);
    reloads.count(&["success"], reload.successes.value());
    reloads.count(&["failure"], reload.failures.value());
}

fn connections(out: &mut Exposition, metrics: &Metrics) {
    let total = |value: fn(&WorkerCounters) -> u64| metrics.total(value);
    out.family(&families::ACCEPTED).count(&[], total(|c| c.accepted.value()));
    per_kind(out, &families::REFUSED, metrics, |c| &c.refused);
    // Each is read at another moment, so what is left when the others are taken away may be less than nothing.
    let active = total(|c| c.active.value());
    let (reading, writing) = (total(|c| c.reading.value()), total(|c| c.writing.value()));
    let (waiting, tunnels) = (total(|c| c.waiting.value()), total(|c| c.tunnels.value()));
    let mut states = out.family(&families::CONNECTIONS);
    states.count(&["opening"], active.saturating_sub(reading + writing + waiting));
    states.count(&["waiting"], waiting);
    states.count(&["reading"], reading);
    states.count(&["answering"], writing.saturating_sub(tunnels));
    states.count(&["tunnel"], tunnels);
    drop(states);
    per_kind(out, &families::CONNECTION_FAILURES, metrics, |c| &c.failed_connections);
    out.family(&families::TLS_HANDSHAKES).count(&[], total(|c| c.tls_handshakes.value()));
    out.family(&families::REQUESTS).count(&[], total(|c| c.requests.value()));
    per_kind(out, &families::HANDSHAKE_FAILURES, metrics, |c| &c.failed_handshakes);
}

fn per_kind<F: Failure>(
    out: &mut Exposition,
    family: &'static Family,
    metrics: &Metrics,
    counters: impl Fn(&WorkerCounters) -> &PerKind<F>,
) {
    let mut samples = out.family(family);
    for kind in F::ALL {
        samples.count(&[kind.word()], metrics.total(|c| counters(c).value(*kind)));
    }
}

fn servers(out: &mut Exposition, servers: &[Arc<ServerSeries>]) {
    let mut requests = out.family(&families::REQUEST_DURATION);
    for server in servers {
        for (at, class) in CLASSES.iter().enumerate() {
            let seconds = Seconds::of(server.workers().iter().map(|worker| &worker.requests[at]));
            // A server has few of the classes, and a histogram is many lines.
            if seconds.count() > 0 {
                requests.seconds(&[&server.name, class], &seconds);
            }
        }
    }
    drop(requests);
    let mut opened = out.family(&families::TUNNELS_OPENED);
    for server in servers {
        opened.count(&[&server.name], server.total(|worker| worker.opened.value()));
    }
    drop(opened);
    let mut taken_over = out.family(&families::TUNNELS_TAKEN_OVER);
    for server in servers {
        taken_over.count(&[&server.name], server.total(|worker| worker.taken_over.value()));
    }
    drop(taken_over);
    let mut open = out.family(&families::SERVER_TUNNELS);
    for server in servers {
        let gone = server.total(ServerCounters::gone);
        let begun = server.total(ServerCounters::begun);
        open.count(&[&server.name], begun.saturating_sub(gone));
    }
    drop(open);
    let with_tunnels = || servers.iter().filter(|one| one.total(ServerCounters::begun) > 0);
    let mut handshakes = out.family(&families::HANDSHAKE_DURATION);
    for server in with_tunnels() {
        let all = server.workers().iter().map(|worker| &worker.handshake);
        handshakes.seconds(&[&server.name], &Seconds::of(all));
    }
    drop(handshakes);
    let mut lives = out.family(&families::LIFETIME);
    for server in with_tunnels() {
        let all = server.workers().iter().map(|worker| &worker.lifetime);
        lives.seconds(&[&server.name], &Seconds::of(all));
    }
}

fn tunnels(out: &mut Exposition, metrics: &Metrics) {
    let mut by_worker = out.family(&families::TUNNELS);
    for worker in metrics.workers() {
        by_worker.count(&[&worker.id.to_string()], worker.tunnels.value());
    }
    drop(by_worker);
    let mut by_generation = out.family(&families::GENERATION_TUNNELS);
    for (generation, count) in metrics.registry.generations() {
        by_generation.count(&[&generation], count);
    }
    drop(by_generation);
    let mut ends = out.family(&families::ENDS);
    for (cause, code, count) in Ends::occurred(metrics.workers().map(|worker| &worker.ends)) {
        ends.count(&[cause, &code], count);
    }
}

fn credentials(out: &mut Exposition, metrics: &Metrics, revocations: usize) {
    let mut reauths = out.family(&families::REAUTHS);
    reauths.count(&["allowed"], metrics.total(|worker| worker.reauths.allowed.value()));
    reauths.count(&["denied"], metrics.total(|worker| worker.reauths.denied.value()));
    reauths.count(&["failed"], metrics.total(|worker| worker.reauths.failed.value()));
    drop(reauths);
    out.family(&families::REVOCATIONS).count(&[], revocations as u64);
}

/// The sides of tunnels, by the word in the label.
const SIDES: [(&str, Side); 2] = [("client", Side::Client), ("upstream", Side::Upstream)];

fn messages(out: &mut Exposition, metrics: &Metrics) {
    let sides = SIDES.map(|(name, side)| {
        let total = move |value: fn(&SideCounters) -> u64| {
            metrics.total(|worker| value(worker.relay.side(side)))
        };
        (name, total)
    });
    let mut bytes = out.family(&families::RECEIVED_BYTES);
    for (side, total) in &sides {
        bytes.count(&[side], total(|it| it.bytes.value()));
    }
    drop(bytes);
    let mut messages = out.family(&families::MESSAGES);
    for (side, total) in &sides {
        messages.count(&[side, "text"], total(|it| it.texts.value()));
        messages.count(&[side, "binary"], total(|it| it.binaries.value()));
    }
    drop(messages);
    let mut payload = out.family(&families::MESSAGE_BYTES);
    for (side, total) in &sides {
        payload.count(&[side, "text"], total(|it| it.text_bytes.value()));
        payload.count(&[side, "binary"], total(|it| it.binary_bytes.value()));
    }
    drop(payload);
    let mut control = out.family(&families::CONTROL_FRAMES);
    for (side, total) in &sides {
        control.count(&[side, "ping"], total(|it| it.pings.value()));
        control.count(&[side, "pong"], total(|it| it.pongs.value()));
    }
    drop(control);
    let mut blocked = out.family(&families::BLOCKED);
    for (side, total) in &sides {
        let blocked_ms = total(|it| it.blocked_ms.value());
        blocked.number(&[side], Duration::from_millis(blocked_ms).as_secs_f64());
    }
    drop(blocked);
    let mut rtt = out.family(&families::RTT);
    for (name, side) in SIDES {
        rtt.seconds(
            &[name],
            &Seconds::of(metrics.workers().map(|worker| &worker.relay.side(side).rtt)),
        );
    }
}

fn limits(out: &mut Exposition, generation: &Generation) {
    let mut limits = out.family(&families::LIMITS_HIT);
    for (id, zone) in generation.http().limit_zones.iter().enumerate() {
        let effects = generation.limit_zones.effects(LimitZoneId(id));
        let (name, kind) = (printable(&zone.name).to_string(), kind_of(zone.kind));
        for (action, count) in [
            ("refused", &effects.refused),
            ("delayed", &effects.delayed),
            ("dry_run", &effects.tried),
        ] {
            limits.count(&[&name, kind, action], count.value());
        }
    }
}

fn kind_of(kind: LimitKind) -> &'static str {
    match kind {
        LimitKind::Requests { .. } => "requests",
        LimitKind::Connections => "connections",
        LimitKind::Messages { .. } => "messages",
        LimitKind::Bytes { .. } => "bytes",
    }
}

fn upstreams(out: &mut Exposition, generation: &Generation) {
    // Groups may have one name, and series must not: what stands for several is summed up.
    let mut peers = BTreeMap::<(String, String), (ListenAddr, PeerStatus)>::new();
    for group in &generation.upstreams {
        let name = printable(&group.name).to_string();
        for (address, status) in group.peers() {
            let key = (name.clone(), address.to_string());
            peers.entry(key).and_modify(|(_, sum)| sum.add(&status)).or_insert((address, status));
        }
    }
    let all = || peers.iter().map(|((group, peer), (_, status))| ([&**group, &**peer], status));
    let known = || all().filter(|(_, status)| status.is_known);
    let mut up = out.family(&families::UPSTREAM_UP);
    known().for_each(|(labels, status)| up.count(&labels, status.in_use.into()));
    drop(up);
    let mut tunnels = out.family(&families::UPSTREAM_TUNNELS);
    all().for_each(|(labels, status)| tunnels.count(&labels, status.tunnels));
    drop(tunnels);
    let mut connections = out.family(&families::UPSTREAM_CONNECTIONS);
    all().for_each(|(labels, status)| connections.count(&labels, status.connections));
    drop(connections);
    let mut failures = out.family(&families::UPSTREAM_FAILURES);
    known().for_each(|(labels, status)| failures.count(&labels, status.failures));
    drop(failures);
    let Some(ports) = ports::local() else { return };
    out.family(&families::PORTS).count(&[], ports as u64);
    let mut left = out.family(&families::PORTS_LEFT);
    for ((group, peer), (address, status)) in &peers {
        if let ListenAddr::Ip(_) = address
            && status.is_known
        {
            left.count(&[group, peer], (ports as u64).saturating_sub(status.connections));
        }
    }
}

fn listeners(out: &mut Exposition, listeners: &[Arc<Listener>]) {
    let queues: Vec<_> = listeners
        .iter()
        .filter_map(|listener| Some((listener.address.to_string(), listener.queue()?)))
        .collect();
    let mut waiting = out.family(&families::ACCEPT_QUEUE);
    queues.iter().for_each(|(address, queue)| waiting.count(&[address], queue.len.into()));
    drop(waiting);
    let mut limits = out.family(&families::ACCEPT_QUEUE_LIMIT);
    queues.iter().for_each(|(address, queue)| limits.count(&[address], queue.limit.into()));
}

fn certificates(out: &mut Exposition, generation: &Generation) {
    let mut expiry = out.family(&families::CERTIFICATE_EXPIRY);
    for ((server, certificate), end) in certificate_ends(generation) {
        expiry.number(&[server, &certificate], end as f64);
    }
}

/// When the certificates of each server end, in seconds since the Unix epoch, by their paths.
pub(crate) fn certificate_ends(generation: &Generation) -> BTreeMap<(&str, String), i64> {
    let mut ends = BTreeMap::new();
    for (server, certificate, end) in generation.tls.ends() {
        let name = &*generation.server_series[server.0].name;
        let known = ends.entry((name, certificate.into_owned())).or_insert(end);
        *known = end.min(*known);
    }
    ends
}
