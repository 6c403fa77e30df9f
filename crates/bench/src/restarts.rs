//! Three app servers restart under clients that reconnect: how many handshakes fail, and how long
//! it takes until all clients are back.
//!
//! Servers and clients are tasks of one thread ([`servers`], [`clients`]); the proxy between them is
//! a process of its own. What happened is a list of attempts and of times at which servers were
//! there; [`outcome`] makes the figures of it.

mod clients;
mod options;
mod outcome;
mod proxies;
mod report;
mod servers;

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::task::LocalSet;
use tokio::time::{sleep, timeout};
use wssgate_sys::affinity;

use crate::peers::{Installed, Peer, Running, Site, installed};
use crate::process;
use clients::{Clients, Targets};
pub(crate) use options::{HELP, Options};
use outcome::Outcome;
use report::Report;
use servers::{SERVERS, Servers};

/// How long servers are away.
const AWAY: Duration = Duration::from_secs(5);

/// How long after one server the next one is there or goes.
const BETWEEN_STARTS: Duration = Duration::from_secs(1);

/// From the start of a server until the next one goes, in a rolling restart.
const BETWEEN_STOPS: Duration = Duration::from_secs(5);

/// How long clients are waited for; with nginx some need minutes.
const LONGEST: Duration = Duration::from_secs(120);

/// How servers restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scenario {
    /// All at once; they are back one after the other.
    Full,
    /// One after the other.
    Rolling,
}

impl Scenario {
    const ALL: [Self; 2] = [Self::Full, Self::Rolling];

    fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Rolling => "rolling",
        }
    }
}

/// Measures, prints, and writes the report if it is a full one or asked for.
pub(crate) fn run(options: &Options, wssgate: &Path, out: &Path) -> io::Result<()> {
    let site = Site::new()?;
    affinity::run_on(site.cores.load)?;
    let wssgate = options.wssgate.as_deref().unwrap_or(wssgate);
    let contestants = installed(options.peers.iter().map(|&peer| (peer, wssgate)));
    let mut report = Report::new(process::machine(), options.clients, options.runs);
    report.peers = contestants.iter().map(proxies::text).collect();
    for scenario in Scenario::ALL.into_iter().filter(|scenario| options.wants(scenario.name())) {
        for run in 0..options.runs {
            for contestant in &contestants {
                let name = contestant.peer.name();
                eprintln!("{} {}/{} {name}", scenario.name(), run + 1, options.runs);
                match measure(scenario, contestant, &site, options.clients) {
                    Ok(outcome) => {
                        println!("{:8} {name:10} {outcome}", scenario.name());
                        report.add(scenario, contestant.peer, run, outcome);
                    }
                    Err(error) => {
                        eprintln!("failed: {error}");
                        report.failed.push(format!("{}, {name}: {error}", scenario.name()));
                    }
                }
            }
        }
    }
    println!("\n{}", report.markdown());
    if let Some(out) = options.out.as_deref().or(options.is_full().then_some(out)) {
        fs::create_dir_all(out)?;
        fs::write(out.join("restarts.md"), report.markdown())?;
        fs::write(out.join("restarts.json"), report.json())?;
        println!("written to {}", out.display());
    }
    Ok(())
}

fn measure(
    scenario: Scenario,
    contestant: &Installed,
    site: &Site,
    count: usize,
) -> io::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let mut servers = Servers::start().await?;
        let running = proxies::start(contestant, site, servers.addresses())?;
        let targets = match &running {
            Some(Running { plain, .. }) => Targets::One(plain[0]),
            None => Targets::Any(servers.addresses().to_vec()),
        };
        let clients = Clients::start(count, targets);
        let all = timeout(LONGEST, clients.until_all_are_connected()).await;
        all.map_err(|_| io::Error::other("not all clients could connect at first"))?;
        clients.forget_attempts();
        let began = Instant::now();
        match scenario {
            Scenario::Full => full(&mut servers).await?,
            Scenario::Rolling => rolling(&mut servers).await?,
        }
        let _ = timeout(LONGEST, clients.until_all_are_connected()).await;
        let ended = Instant::now();
        drop(running);
        Ok(Outcome::new(&clients.history(), servers.history(), count, began, ended))
    })
}

async fn full(servers: &mut Servers) -> io::Result<()> {
    for server in 0..SERVERS {
        servers.stop(server).await;
    }
    sleep(AWAY).await;
    for server in 0..SERVERS {
        servers.start_again(server).await?;
        if server + 1 < SERVERS {
            sleep(BETWEEN_STARTS).await;
        }
    }
    Ok(())
}

async fn rolling(servers: &mut Servers) -> io::Result<()> {
    for server in 0..SERVERS {
        servers.stop(server).await;
        sleep(AWAY).await;
        servers.start_again(server).await?;
        sleep(BETWEEN_STOPS).await;
    }
    Ok(())
}

/// Those that are compared unless somebody says otherwise.
pub(crate) const PEERS: [Peer; 5] =
    [Peer::Wssgate, Peer::Nginx, Peer::Haproxy, Peer::Caddy, Peer::Direct];
