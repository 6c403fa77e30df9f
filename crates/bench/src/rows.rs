//! What is measured: a table of works, and how each is done.
//!
//! An echo is one message from a client through the proxy to the backend and back: two relayed
//! messages. CPU time is divided by echoes.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::certificate::{self, Certificate, Tickets};
use crate::listings::Lister;
use crate::load::{Load, Security, Target};
use crate::peers::{Extra, Peer};
use crate::process::{self, Tree};
use crate::requests::{self, Requests};
use crate::stats::Latencies;

/// One line of work for every proxy.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    /// Also without a proxy, for comparison.
    pub(crate) direct: bool,
    /// Also with a relay that only receives and sends: the floor.
    pub(crate) bare: bool,
    work: Work,
}

#[derive(Debug)]
enum Work {
    /// Every connection has one message of this length under way.
    Echo {
        connections: usize,
        len: usize,
        tls: bool,
    },
    /// Many tunnels that say something once.
    Idle {
        tls: bool,
    },
    /// The same for as long as it takes until all were asked whether they are there.
    Pings {
        tls: bool,
    },
    /// Many tunnels that say nothing, while metrics are read each second.
    Scraped,
    Listed,
    /// TLS handshakes, each to the first echo.
    Handshakes {
        tickets: Tickets,
        verified: bool,
    },
    /// A given number of messages a second.
    Paced {
        tls: bool,
    },
    /// The same beside a tunnel that sends as much as it can.
    Flood {
        tls: bool,
    },
    /// Everybody goes and comes back at once.
    Reconnect {
        tls: bool,
    },
    /// Ordinary requests, each of which `limit_req` decides on.
    Limits,
}

/// Every row, with what matters most to those who run a `wss://` site first.
pub(crate) const ROWS: &[Row] = &[
    row("idle-tls", "Idle tunnels, TLS", Work::Idle { tls: true }),
    row("echo-125-1000-tls", "Echo, 125 bytes, 1,000 connections, TLS", echo(1000, 125, true)),
    row("echo-125-64-tls", "Echo, 125 bytes, 64 connections, TLS", echo(64, 125, true)),
    row("echo-16k-tls", "Echo, 16 KiB, 64 connections, TLS", echo(64, 16 << 10, true)),
    row("echo-1m-tls", "Echo, 1 MiB, 8 connections, TLS", echo(8, 1 << 20, true)),
    row("reconnect-tls", "5,000 clients come back at once, TLS", Work::Reconnect { tls: true }),
    row(
        "handshake-full",
        "Full TLS handshakes to the first echo",
        Work::Handshakes { tickets: Tickets::Ignored, verified: false },
    ),
    row(
        "handshake-client-certificate",
        "Full TLS handshakes with a client certificate to the first echo",
        Work::Handshakes { tickets: Tickets::Ignored, verified: true },
    ),
    row(
        "handshake-resumed",
        "Resumed TLS handshakes to the first echo",
        Work::Handshakes { tickets: Tickets::Used, verified: false },
    ),
    row("paced-tls", "5,000 messages/s over 500 connections, TLS", Work::Paced { tls: true })
        .and_direct(),
    row("flood-tls", "1,000 messages/s beside a flood, TLS", Work::Flood { tls: true })
        .and_direct(),
    row(
        "pings-tls",
        "Idle tunnels whose ends are asked every 25 s, TLS",
        Work::Pings { tls: true },
    ),
    row("idle-plain", "Idle tunnels", Work::Idle { tls: false }),
    row("echo-125-1000-plain", "Echo, 125 bytes, 1,000 connections", echo(1000, 125, false))
        .and_bare(),
    row("echo-125-64-plain", "Echo, 125 bytes, 64 connections", echo(64, 125, false)).and_bare(),
    row("paced-plain", "5,000 messages/s over 500 connections", Work::Paced { tls: false })
        .and_direct(),
    row("flood-plain", "1,000 messages/s beside a flood", Work::Flood { tls: false }).and_direct(),
    row("pings-plain", "Idle tunnels whose ends are asked every 25 s", Work::Pings { tls: false }),
    row("scraped", "Idle tunnels, metrics read each second", Work::Scraped),
    row("listed-tls", "3,000 messages/s over 9,000 connections that are listed, TLS", Work::Listed),
    row("limit-req", "20,000 requests/s that `limit_req` counts by 1,000,000 keys", Work::Limits),
];

const fn row(name: &'static str, title: &'static str, work: Work) -> Row {
    Row { name, title, direct: false, bare: false, work }
}

const fn echo(connections: usize, len: usize, tls: bool) -> Work {
    Work::Echo { connections, len, tls }
}

impl Row {
    const fn and_direct(self) -> Self {
        Self { direct: true, ..self }
    }

    const fn and_bare(self) -> Self {
        Self { bare: true, ..self }
    }

    /// Whether the work is one rate of CPU: then it is done in slices, proxy after proxy, between
    /// [`Self::prepare`] and [`Self::sum_up`]. Other work is done by [`Self::measure`].
    pub(crate) fn is_sliced(&self) -> bool {
        matches!(self.work, Work::Echo { .. } | Work::Handshakes { .. } | Work::Limits)
    }

    /// What the configuration has for this row only.
    pub(crate) fn extra(&self) -> Extra {
        match self.work {
            Work::Limits => Extra::Limits,
            Work::Scraped => Extra::Metrics,
            Work::Handshakes { verified: true, .. } => Extra::Clients,
            _ => Extra::None,
        }
    }

    /// Whether a proxy can do the work.
    pub(crate) fn admits(&self, peer: Peer) -> bool {
        match self.work {
            Work::Limits => peer != Peer::Haproxy,
            // An earlier one may have none of this.
            Work::Scraped | Work::Listed => peer == Peer::Wssgate,
            // Nobody else asks.
            Work::Pings { .. } => matches!(peer, Peer::Wssgate | Peer::Before),
            _ => true,
        }
    }

    /// What comes before the first slice.
    pub(crate) fn prepare(&self, trial: &mut Trial<'_>) -> io::Result<Prepared> {
        let renew = match self.work {
            Work::Echo { connections, len, tls } => {
                trial.load.message_len(len);
                let connections = connections.min(trial.scale.connections);
                trial.load.open(&trial.target(tls)?, connections, 100)?;
                None
            }
            Work::Handshakes { tickets, verified } => {
                let identity = verified.then_some(&trial.certificate.identity);
                let security = Security::TlsWithTickets(certificate::client(tickets, identity)?);
                let target = Target { addresses: trial.tls.clone(), security };
                // The first ones bring tickets.
                trial.load.open(&target, AT_ONCE, 1)?;
                trial.load.leave();
                Some(target)
            }
            Work::Limits => {
                let empty = trial.pss()?;
                let requests = Requests::open(&trial.plain, trial.scale.keys)?;
                let bytes = (trial.pss()? - empty) * 1024.0 / f64::from(trial.scale.keys);
                let prepared =
                    Prepared { requests: Some((requests, bytes)), ..Prepared::default() };
                return Ok(prepared);
            }
            _ => return Err(io::Error::other("this work has no slices")),
        };
        Ok(Prepared { renew, ..Prepared::default() })
    }

    /// One of the slices of which a measurement is the sum.
    pub(crate) fn slice(&self, trial: &mut Trial<'_>, prepared: &mut Prepared) -> io::Result<()> {
        if let Some((requests, _)) = &mut prepared.requests {
            const PER_SECOND: u32 = 20_000;
            requests.run(PER_SECOND, trial.scale.warm_up)?;
            let begin = trial.begin()?;
            let asked = requests.run(PER_SECOND, trial.scale.slice)?;
            prepared.total.add(&Ended { echoes: asked as f64, ..trial.end(&begin)? });
            return Ok(());
        }
        match &prepared.renew {
            None => trial.load.begin_to_repeat()?,
            Some(target) => trial.load.begin_to_renew(target, AT_ONCE)?,
        }
        trial.load.run_for(trial.scale.warm_up)?;
        let (begin, resumed) = (trial.begin()?, trial.load.resumed());
        trial.load.run_for(trial.scale.slice)?;
        prepared.total.add(&trial.end(&begin)?);
        prepared.resumed += trial.load.resumed() - resumed;
        trial.load.come_to_rest()?;
        if prepared.renew.is_some() {
            trial.load.leave();
        }
        Ok(())
    }

    /// What all slices together say.
    pub(crate) fn sum_up(&self, prepared: &Prepared, scale: &Scale) -> io::Result<Vec<Reading>> {
        let Prepared { total, resumed, requests, .. } = prepared;
        let (what, rate) = match self.work {
            Work::Handshakes { tickets, .. } => {
                let expected = if tickets == Tickets::Used { total.echoes } else { 0.0 };
                // Handshakes at the edges of a slice have their echo on its other side.
                if (*resumed as f64 - expected).abs() > (2 * AT_ONCE * scale.slices) as f64 {
                    let text = format!("{resumed} of {:.0} sessions were resumed", total.echoes);
                    return Err(io::Error::other(text));
                }
                ("handshake", "handshakes per second")
            }
            Work::Limits => ("request", "requests per second"),
            _ => ("echo", "echoes per second"),
        };
        let mut readings = total.cpu_per(what);
        if let Some((_, bytes)) = requests {
            readings.push(less("memory per key", "bytes", *bytes));
        }
        readings.push(neither(rate, "", total.per_second()));
        readings.push(neither("proxy's core in use", "%", total.proxy_share()));
        readings.push(neither("load's core in use", "%", total.own_share()));
        Ok(readings)
    }

    /// Does the work once and returns what was seen.
    pub(crate) fn measure(&self, trial: &mut Trial<'_>) -> io::Result<Vec<Reading>> {
        match self.work {
            Work::Idle { tls } => trial.idle(tls),
            Work::Pings { tls } => trial.pings(tls),
            Work::Scraped => trial.scraped(),
            Work::Listed => trial.listed(),
            Work::Paced { tls } => trial.paced(tls),
            Work::Flood { tls } => trial.flood(tls),
            Work::Reconnect { tls } => trial.reconnect(tls),
            Work::Echo { .. } | Work::Handshakes { .. } | Work::Limits => {
                Err(io::Error::other("this work is done in slices"))
            }
        }
    }
}

/// How many clients come at once: few enough that a store of eight tickets never runs dry.
const AT_ONCE: usize = 4;

/// Sliced work that is under way.
#[derive(Default)]
pub(crate) struct Prepared {
    /// Where clients come and go; without it they stay and repeat.
    renew: Option<Target>,
    total: Ended,
    /// Handshakes of the slices that resumed a session.
    resumed: u64,
    /// Ordinary requests, and the bytes of the proxy's memory that each of their keys took.
    requests: Option<(Requests, f64)>,
}

/// What is measured of some work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    pub(crate) better: Better,
    /// The same figure without a proxy is subtracted.
    pub(crate) added: bool,
}

/// Which values of a figure are good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Better {
    Less,
    More,
    /// It only explains the others.
    Neither,
}

/// A figure and its value.
pub(crate) type Reading = (Figure, f64);

fn less(name: impl Into<String>, unit: &'static str, value: f64) -> Reading {
    (Figure { name: name.into(), unit, better: Better::Less, added: false }, value)
}

fn more(name: &str, unit: &'static str, value: f64) -> Reading {
    (Figure { name: name.into(), unit, better: Better::More, added: false }, value)
}

fn neither(name: &str, unit: &'static str, value: f64) -> Reading {
    (Figure { name: name.into(), unit, better: Better::Neither, added: false }, value)
}

fn added(name: &str, value: f64) -> Reading {
    (Figure { name: name.into(), unit: "µs", better: Better::Less, added: true }, value)
}

/// How much is done.
#[derive(Debug)]
pub(crate) struct Scale {
    pub(crate) runs: usize,
    /// How many slices a sliced measurement has. A machine's speed changes within seconds, and a
    /// change is to meet all proxies alike.
    pub(crate) slices: usize,
    /// How long one is.
    slice: Duration,
    warm_up: Duration,
    /// How many connections a sliced measurement may have.
    connections: usize,
    paced: Duration,
    idle: Duration,
    /// As long as wssgate lets a side be silent before it asks whether it is there: each is asked once.
    ping_round: Duration,
    settle: Duration,
    /// Idle tunnels at which memory is measured.
    tunnels: [usize; 3],
    returning: usize,
    /// How many keys are limited.
    keys: u32,
}

/// How many large messages are under way at once while every tunnel has one.
const LARGE_AT_ONCE: usize = 32;

impl Scale {
    pub(crate) fn full() -> Self {
        Self {
            runs: 5,
            slices: 12,
            slice: Duration::from_millis(200),
            connections: usize::MAX,
            warm_up: Duration::from_millis(60),
            paced: Duration::from_secs(5),
            idle: Duration::from_secs(10),
            ping_round: Duration::from_secs(25),
            settle: Duration::from_secs(1),
            tunnels: [1000, 5000, 9000],
            returning: 5000,
            keys: 1_000_000,
        }
    }

    pub(crate) fn quick() -> Self {
        Self {
            runs: 1,
            slices: 2,
            slice: Duration::from_millis(80),
            connections: usize::MAX,
            warm_up: Duration::from_millis(20),
            paced: Duration::from_millis(300),
            idle: Duration::from_millis(300),
            ping_round: Duration::from_millis(300),
            settle: Duration::from_millis(100),
            tunnels: [20, 40, 60],
            returning: 100,
            keys: 2000,
        }
    }

    /// Tunnels cost the proxy two descriptors each, and the load, which is both of their ends,
    /// two as well.
    pub(crate) fn fit(&mut self, descriptors: u64) {
        let most = usize::try_from(descriptors.saturating_sub(500) / 2).unwrap_or(usize::MAX);
        for tunnels in &mut self.tunnels {
            *tunnels = most.min(*tunnels);
        }
        // All proxies are up at the same time, and the load has two descriptors for each tunnel.
        self.connections = most / Peer::MOST_AT_ONCE;
        // The old connections of returning clients may still be there.
        self.returning = (most / 2 + most / 32).min(self.returning);
    }
}

/// One proxy, freshly started, under one load.
pub(crate) struct Trial<'a> {
    pub(crate) load: Load,
    pub(crate) scale: &'a Scale,
    pub(crate) certificate: &'a Certificate,
    /// `None` without a proxy.
    pub(crate) tree: Option<Tree>,
    pub(crate) plain: Vec<SocketAddr>,
    pub(crate) tls: Vec<SocketAddr>,
    /// Where wssgate has its admin socket.
    pub(crate) admin: PathBuf,
}

/// A time during which something was done.
struct Span {
    begin: Instant,
    proxy_cpu: Duration,
    own_cpu: Duration,
    echoes: f64,
}

impl Trial<'_> {
    fn idle(&mut self, tls: bool) -> io::Result<Vec<Reading>> {
        let target = self.target(tls)?;
        let (empty, mut open) = (self.pss()?, 0);
        let mut readings = Vec::new();
        for tunnels in self.scale.tunnels {
            self.load.open(&target, tunnels - open, 100)?;
            open = tunnels;
            self.load.run_for(self.scale.settle)?;
            let name = format!("memory per tunnel at {}", thousands(open));
            readings.push(less(name, "KiB", (self.pss()? - empty) / open as f64));
        }
        let begin = self.begin()?;
        self.load.run_for(self.scale.idle)?;
        let span = self.end(&begin)?;
        let name = format!("CPU per idle second with {}", thousands(open));
        readings.push(less(name, "ms", millis(span.proxy_cpu) / span.seconds()));

        self.load.message_len(1 << 20);
        self.load.echo_once(LARGE_AT_ONCE)?;
        self.load.run_for(self.scale.settle)?;
        let full = self.pss()? - empty;
        let name = "memory per tunnel after 1 MiB each";
        readings.push(less(name, "KiB", full / open as f64));

        self.load.leave();
        self.load.wait_for_silence()?;
        self.load.run_for(self.scale.settle)?;
        let kept = (self.pss()? - empty) / full * 100.0;
        readings.push(less("memory kept after all have gone", "%", kept));
        Ok(readings)
    }

    fn scraped(&mut self) -> io::Result<Vec<Reading>> {
        let count = self.scale.tunnels[2];
        self.load.open(&self.target(false)?, count, 100)?;
        self.load.run_for(self.scale.settle)?;
        let second = Duration::from_secs(1).min(self.scale.idle);
        let (address, begin) = (self.plain[0], self.begin()?);
        for _ in 0..(self.scale.idle.as_millis() / second.as_millis()) {
            requests::metrics(address)?;
            self.load.run_for(second)?;
        }
        let span = self.end(&begin)?;
        let name = format!("CPU per second with {}", thousands(count));
        Ok(vec![less(name, "ms", millis(span.proxy_cpu) / span.seconds())])
    }

    /// Without listings and with ten of them a second in turn, so that both meet the same machine.
    fn listed(&mut self) -> io::Result<Vec<Reading>> {
        const PER_SECOND: u32 = 3000;
        const TURNS: u32 = 3;
        let count = self.scale.tunnels[2];
        self.load.open(&self.target(true)?, count, 100)?;
        self.load.run_for(self.scale.settle)?;
        let (mut alone, mut beside) = (Latencies::default(), Latencies::default());
        let mut answers = Latencies::default();
        for _ in 0..TURNS {
            alone.extend(self.load.paced(PER_SECOND, self.scale.paced)?);
            let lister = Lister::begin(&self.admin);
            beside.extend(self.load.paced(PER_SECOND, self.scale.paced)?);
            answers.extend(lister.end()?);
        }
        let mut ms = |name, share| {
            less(name, "ms", answers.percentile_us(share).map_or(f64::NAN, |us| us / 1000.0))
        };
        let mut readings = vec![
            ms("a listing with a filter, median", 0.5),
            ms("a listing with a filter, p99", 0.99),
        ];
        let p99 = |latencies: &mut Latencies| latencies.percentile_us(0.99).unwrap_or(f64::NAN);
        let (alone, beside) = (p99(&mut alone), p99(&mut beside));
        readings.push(neither("latency without listings, p99", "µs", alone));
        readings.push(less("latency beside listings, p99", "µs", beside));
        readings.push(less("the same, times that without", "", beside / alone));
        Ok(readings)
    }

    fn pings(&mut self, tls: bool) -> io::Result<Vec<Reading>> {
        let count = self.scale.tunnels[2];
        self.load.open(&self.target(tls)?, count, 100)?;
        let (begin, pings) = (self.begin()?, self.load.pings());
        self.load.run_for(self.scale.ping_round)?;
        let span = self.end(&begin)?;
        let name = format!("CPU per second with {}", thousands(count));
        let pings = (self.load.pings() - pings) as f64;
        Ok(vec![
            less(name, "ms", millis(span.proxy_cpu) / span.seconds()),
            neither("pings to clients per second", "", pings / span.seconds()),
        ])
    }

    fn paced(&mut self, tls: bool) -> io::Result<Vec<Reading>> {
        const PER_SECOND: u32 = 5000;
        self.load.open(&self.target(tls)?, 500, 100)?;
        self.load.paced(PER_SECOND, self.scale.warm_up)?;
        let begin = self.begin()?;
        let mut latencies = self.load.paced(PER_SECOND, self.scale.paced)?;
        let span = self.end(&begin)?;
        let mut readings = span.cpu_per("echo");
        for (name, share) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)] {
            let us = latencies.percentile_us(share).unwrap_or(f64::NAN);
            readings.push(added(&format!("added latency, {name}"), us));
        }
        Ok(readings)
    }

    fn flood(&mut self, tls: bool) -> io::Result<Vec<Reading>> {
        const PER_SECOND: u32 = 1000;
        let target = self.target(tls)?;
        self.load.open(&target, 10, 10)?;
        self.load.begin_to_flood(&target)?;
        self.load.run_for(self.scale.warm_up)?;
        let (begin, sunk) = (self.begin()?, self.load.sunk());
        let mut latencies = self.load.paced(PER_SECOND, self.scale.paced)?;
        let span = self.end(&begin)?;
        let sunk = (self.load.sunk() - sunk) as f64;
        let mut readings = Vec::new();
        for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
            let us = latencies.percentile_us(share).unwrap_or(f64::NAN);
            readings.push(less(format!("latency of the neighbours, {name}"), "µs", us));
        }
        readings.push(more("the flood", "MB/s", sunk / 1e6 / span.seconds()));
        if self.tree.is_some() {
            let us_per_mb = micros(span.proxy_cpu) / (sunk / 1e6);
            readings.push(less("CPU per MB of it", "µs", us_per_mb));
        }
        Ok(readings)
    }

    fn reconnect(&mut self, tls: bool) -> io::Result<Vec<Reading>> {
        // Fewer than listening sockets let wait, or the kernel's repeated SYNs are measured.
        const AT_ONCE: usize = 2000;
        let (target, count) = (self.target(tls)?, self.scale.returning);
        self.load.open(&target, count, 100)?;
        self.load.run_for(self.scale.settle)?;
        let begin = self.begin()?;
        self.load.leave();
        self.load.open(&target, count, AT_ONCE)?;
        let span = self.end(&begin)?;
        let mut readings = vec![less("until all are back", "s", span.seconds())];
        readings.extend(span.cpu_per("client"));
        Ok(readings)
    }

    fn target(&self, tls: bool) -> io::Result<Target> {
        Ok(match tls && self.tree.is_some() {
            true => Target {
                addresses: self.tls.clone(),
                security: Security::Tls(certificate::client(Tickets::Ignored, None)?),
            },
            false => Target { addresses: self.plain.clone(), security: Security::Plain },
        })
    }

    /// Memory of the proxy in KiB.
    fn pss(&self) -> io::Result<f64> {
        let bytes = self.tree.map_or(Ok(0), Tree::pss)?;
        Ok(bytes as f64 / 1024.0)
    }

    /// Totals so far, as if everything had happened since `begin`.
    fn begin(&self) -> io::Result<Span> {
        Ok(Span {
            begin: Instant::now(),
            proxy_cpu: self.tree.map_or(Ok(Duration::ZERO), Tree::cpu)?,
            own_cpu: process::own_cpu()?,
            echoes: self.load.progress(),
        })
    }

    fn end(&self, begin: &Span) -> io::Result<Ended> {
        let end = self.begin()?;
        Ok(Ended {
            time: end.begin - begin.begin,
            proxy_cpu: end.proxy_cpu.saturating_sub(begin.proxy_cpu),
            own_cpu: end.own_cpu.saturating_sub(begin.own_cpu),
            echoes: end.echoes - begin.echoes,
            proxied: self.tree.is_some(),
        })
    }
}

/// What happened in a [`Span`], or in several.
#[derive(Default)]
struct Ended {
    time: Duration,
    proxy_cpu: Duration,
    own_cpu: Duration,
    echoes: f64,
    proxied: bool,
}

impl Ended {
    fn add(&mut self, more: &Self) {
        self.time += more.time;
        self.proxy_cpu += more.proxy_cpu;
        self.own_cpu += more.own_cpu;
        self.echoes += more.echoes;
        self.proxied |= more.proxied;
    }

    fn seconds(&self) -> f64 {
        self.time.as_secs_f64()
    }

    fn per_second(&self) -> f64 {
        self.echoes / self.seconds()
    }

    /// The proxy's CPU time per echo, under the name of what an echo stands for.
    fn cpu_per(&self, what: &str) -> Vec<Reading> {
        let us = micros(self.proxy_cpu) / self.echoes;
        if self.proxied { vec![less(format!("CPU per {what}"), "µs", us)] } else { Vec::new() }
    }

    fn proxy_share(&self) -> f64 {
        self.proxy_cpu.as_secs_f64() / self.seconds() * 100.0
    }

    fn own_share(&self) -> f64 {
        self.own_cpu.as_secs_f64() / self.seconds() * 100.0
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// A number with commas between thousands.
pub(crate) fn thousands(number: usize) -> String {
    match number {
        ..1000 => number.to_string(),
        _ => format!("{},{:03}", thousands(number / 1000), number % 1000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_names_of_their_own() {
        for (index, row) in ROWS.iter().enumerate() {
            assert!(ROWS[..index].iter().all(|other| other.name != row.name), "{}", row.name);
        }
    }

    #[test]
    fn the_scale_fits_the_descriptors() {
        let mut scale = Scale::full();
        scale.fit(20_000);
        assert_eq!((scale.tunnels, scale.returning), ([1000, 5000, 9000], 5000));
        assert!(scale.connections > 1000);
        scale.fit(4500);
        assert_eq!(scale.tunnels, [1000, 2000, 2000]);
        assert!(scale.returning < 1100);
        assert!(4 * 2 * scale.connections < 4500);
    }

    #[test]
    fn thousands_have_commas() {
        assert_eq!(["7", "9,000", "1,000,048"], [7, 9000, 1_000_048].map(thousands).each_ref());
    }
}
