//! The program of a proxy is replaced while thousands of tunnels are in use: what that costs their clients.
//!
//! Clients and the app server are the [`Load`]; a proxy runs in the background, where nginx can be
//! upgraded. [`outcome`] makes figures of what was seen.

mod options;
mod outcome;
mod report;

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use wssgate_sys::{affinity, process as signals};

use crate::bars::{self, BLUE, Bars, RED};
use crate::certificate::{self, Tickets};
use crate::load::{Load, PER_SECOND, Security, Seen, Target};
use crate::peers::{Background, Extra, Installed, Peer, Site, installed};
use crate::process::{self, Line};
pub(crate) use options::{HELP, Options};
use outcome::{Events, Outcome, moved};
use report::{BACK, COLUMNS, LOST, Report};

/// Handshakes at a time when the tunnels are opened.
const AT_ONCE: usize = 200;

/// How long messages are sent before, for comparison.
const STEADY: Duration = Duration::from_secs(10);

/// How long everything is watched from the upgrade on, at least: longer than old processes may stay.
const WATCHED: Duration = Duration::from_secs(10);

/// How long at most.
const LONGEST: Duration = Duration::from_secs(120);

/// How long an old nginx may keep its tunnels (`worker_shutdown_timeout`).
const SHUTDOWN: Duration = Duration::from_secs(5);

/// From the new nginx to QUIT for the old one, as somebody who looks would wait.
const LOOKED_AT: Duration = Duration::from_secs(1);

/// Between two looks at the CPU time.
const SAMPLE: Duration = Duration::from_millis(100);

/// The picture.
const BARS: Bars = Bars {
    title: "Per quarter of a second",
    label: "WebSockets lost and clients that came back after USR2",
    axis: "seconds since USR2",
    per_second: PER_SECOND,
    step: 1,
    columns: COLUMNS,
    bars: &[(LOST, "WebSockets lost", RED), (BACK, "clients that came back", BLUE)],
};

/// Measures, prints, and writes the report if it is a full one or asked for; or draws the picture of an
/// earlier one.
pub(crate) fn run(options: &Options, wssgate: &Path, out: &Path) -> io::Result<()> {
    if let Some(report) = &options.draw {
        return bars::redraw(&BARS, report);
    }
    let site = Site::new()?;
    affinity::run_on(site.cores.load)?;
    let wssgate = options.wssgate.as_deref().unwrap_or(wssgate);
    let contestants = installed(options.peers.iter().map(|&peer| (peer, wssgate)));
    let mut report = Report::new(process::machine(), options);
    report.peers =
        contestants.iter().map(|it| format!("{}: {}", it.peer.name(), it.version)).collect();
    for run in 0..options.runs {
        for contestant in &contestants {
            let name = contestant.peer.name();
            eprintln!("{}/{} {name}", run + 1, options.runs);
            match measure(contestant, &site, options) {
                Ok(outcome) => {
                    println!("{name:10} {outcome}");
                    report.outcomes.add(name, outcome);
                }
                Err(error) => {
                    eprintln!("failed: {error}");
                    report.failed.push(format!("{name}: {error}"));
                }
            }
        }
    }
    let markdown = report.markdown();
    println!("\n{markdown}");
    if let Some(out) = options.out.as_deref().or(options.is_full().then_some(out)) {
        bars::publish(&BARS, out, "upgrades", &markdown)?;
    }
    Ok(())
}

fn measure(installed: &Installed, site: &Site, options: &Options) -> io::Result<Outcome> {
    let mut load = Load::new()?;
    let extra = Extra::Upgrade(SHUTDOWN);
    let proxy = Background::start(installed, site, &load.backend_addresses()?, extra)?;
    let security = Security::Tls(certificate::client(Tickets::Ignored, None)?);
    let target = Target { addresses: proxy.tls.clone(), security };
    load.open(&target, options.clients, AT_ONCE)?;
    let old = proxy.pid().ok_or(io::ErrorKind::NotFound)?;
    let mut line = Line::from(old);
    let (cpu, end) = (line.cpu(), Instant::now() + STEADY);
    let before = load.paced_while(options.per_second, &target, |_| Ok(Instant::now() < end))?;
    let steady = line.cpu() - cpu;

    let (began, cpu) = (Instant::now(), line.cpu());
    let mut upgrade = Upgrade::begin(&proxy, installed.peer, old)?;
    let mut sample = began;
    let during = load.paced_while(options.per_second, &target, |seen: &Seen| {
        let now = Instant::now();
        upgrade.go_on(now)?;
        if now >= sample {
            sample = now + SAMPLE;
            line.cpu();
        }
        let is_over = now - began > WATCHED && seen.away == 0;
        Ok(!is_over && now - began < LONGEST)
    })?;
    let (watched, cpu) = (began.elapsed(), line.cpu() - cpu);
    let (moved, steady_for) = (moved(&proxy.log()), STEADY);
    Ok(Outcome::new(Events { began, watched, steady_for, steady, cpu, moved, before, during }))
}

/// An upgrade as an operator makes it, step by step.
struct Upgrade<'p> {
    proxy: &'p Background,
    peer: Peer,
    old: u32,
    /// When the new process was there.
    is_there: Option<Instant>,
    has_quit: bool,
}

impl<'p> Upgrade<'p> {
    fn begin(proxy: &'p Background, peer: Peer, old: u32) -> io::Result<Self> {
        signals::kill(old as i32, libc::SIGUSR2)?;
        Ok(Self { proxy, peer, old, is_there: None, has_quit: false })
    }

    /// wssgate needs no more; nginx wants a QUIT for the old process.
    fn go_on(&mut self, now: Instant) -> io::Result<()> {
        if self.peer == Peer::Wssgate || self.has_quit {
            return Ok(());
        }
        match self.is_there {
            None if self.proxy.pid().is_some_and(|pid| pid != self.old) => {
                self.is_there = Some(now);
            }
            Some(since) if now - since > LOOKED_AT => {
                self.has_quit = true;
                signals::kill(self.old as i32, libc::SIGQUIT)?;
            }
            _ => {}
        }
        Ok(())
    }
}
