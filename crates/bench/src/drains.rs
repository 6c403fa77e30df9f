//! A reload ends all WebSockets of a proxy, and their clients come back: how the sockets end, and what
//! storm follows.
//!
//! Clients are tasks of one thread ([`clients`]), and the app server is another thread ([`backend`]); the
//! proxy between them is a process of its own. [`outcome`] makes figures of what they saw.

mod backend;
mod clients;
mod frames;
mod options;
mod outcome;
mod report;

use std::cell::RefCell;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::task::{LocalSet, spawn_local};
use tokio::time::{sleep, timeout};
use wssgate_sys::affinity;

use crate::bars::{self, BLUE, Bars, RED, YELLOW};
use crate::peers::{Extra, Installed, Peer, Running, Site, installed};
use crate::process::{self, Tree};
use backend::Backend;
use clients::Clients;
pub(crate) use options::{HELP, Options};
use outcome::{Events, Outcome};
use report::{ARRIVED, ENDED, Report, TRIED};

/// How long clients use their WebSockets before the reload.
const STEADY: Duration = Duration::from_secs(4);

/// How long clients are waited for, beyond the time of the drain.
const LONGEST: Duration = Duration::from_secs(90);

/// The picture.
const BARS: Bars = Bars {
    title: "Per second after a reload",
    label: "WebSockets ended and handshakes per second after a reload",
    axis: "seconds since the reload",
    per_second: 1,
    step: 5,
    columns: 3,
    bars: &[
        (ENDED, "WebSockets ended", RED),
        (TRIED, "handshakes tried", YELLOW),
        (ARRIVED, "handshakes at the app server", BLUE),
    ],
};

/// How a reload ends the WebSockets that are open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// One after the other (`websocket_drain`).
    Drained,
    /// All together when the time is up.
    Together,
}

/// A proxy and its way.
#[derive(Clone, Debug)]
struct Contestant {
    installed: Installed,
    way: Way,
}

impl Contestant {
    /// What they are called in the report and the picture.
    fn name(&self) -> &'static str {
        match (self.installed.peer, self.way) {
            (_, Way::Drained) => "wssgate",
            (Peer::Wssgate, Way::Together) => "wssgate without a drain",
            (peer, Way::Together) => peer.name(),
        }
    }
}

/// The handshakes per second that wssgate admits: twice the pace of its drain.
fn rate(clients: usize, over: Duration) -> usize {
    (2 * clients).div_ceil(over.as_secs() as usize)
}

/// What wssgate is told beyond what all are.
fn directives(way: Way, clients: usize, over: Duration) -> String {
    let rate = rate(clients, over);
    let queue = 2 * rate;
    let admitted = format!("websocket_handshake_rate {rate}r/s queue={queue} retry_after=2s-10s;");
    match way {
        Way::Drained => format!("websocket_drain {}s reload; {admitted}", over.as_secs()),
        Way::Together => admitted,
    }
}

/// Measures, prints, and writes the report if it is a full one or asked for; or draws the picture of an
/// earlier one.
pub(crate) fn run(options: &Options, wssgate: &Path, out: &Path) -> io::Result<()> {
    if let Some(report) = &options.draw {
        return bars::redraw(&BARS, report);
    }
    let mut site = Site::new()?;
    affinity::run_on(site.cores.load)?;
    let wssgate = options.wssgate.as_deref().unwrap_or(wssgate);
    let installed = installed(options.peers.iter().map(|&peer| (peer, wssgate)));
    let mut report = Report::new(process::machine(), options);
    report.peers =
        installed.iter().map(|it| format!("{}: {}", it.peer.name(), it.version)).collect();
    let contestants = installed.into_iter().flat_map(|installed| {
        let drained = (installed.peer == Peer::Wssgate).then_some(Way::Drained);
        let ways = drained.into_iter().chain([Way::Together]);
        ways.map(move |way| Contestant { installed: installed.clone(), way })
    });
    let contestants: Vec<_> = contestants.collect();
    for run in 0..options.runs {
        for contestant in &contestants {
            let name = contestant.name();
            eprintln!("{}/{} {name}", run + 1, options.runs);
            match measure(contestant, &mut site, options.clients, options.over) {
                Ok(outcome) => {
                    println!("{name:24} {outcome}");
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
        bars::publish(&BARS, out, "drains", &markdown)?;
    }
    Ok(())
}

fn measure(
    contestant: &Contestant,
    site: &mut Site,
    count: usize,
    over: Duration,
) -> io::Result<Outcome> {
    let Contestant { installed, way } = contestant;
    site.directives = directives(*way, count, over);
    // A drain would be cut short by it.
    let extra = if *way == Way::Drained { Extra::None } else { Extra::Reload(over) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let backend = Backend::start()?;
        let running = Running::start(installed, site, &[backend.address], extra)?;
        let clients = Clients::start(count, &running.tls)?;
        let all = timeout(LONGEST, clients.until_all_are_connected()).await;
        all.map_err(|_| io::Error::other("not all clients could connect at first"))?;
        let cpu = Rc::new(RefCell::new(Vec::new()));
        let sampler = spawn_local(sample(running.tree(), Rc::clone(&cpu)));
        sleep(STEADY).await;
        clients.forget_history();
        backend.arrivals();
        let began = Instant::now();
        running.reload(installed.peer)?;
        let back = timeout(over + LONGEST, clients.until_all_are_back()).await;
        if back.is_err() {
            eprintln!("warning: not all clients were back at the end");
        }
        let (kept, missing) = (count - clients.ended(), count - clients.connected());
        // What has just happened is in the next sample.
        sleep(2 * SAMPLE).await;
        sampler.abort();
        let arrivals = backend.arrivals();
        let cpu = cpu.take();
        let events = Events { began, clients: clients.history(), arrivals, cpu, kept, missing };
        drop((clients, running));
        Ok(Outcome::new(&events))
    })
}

/// Between two looks at the CPU time of the proxy.
const SAMPLE: Duration = Duration::from_secs(1);

async fn sample(tree: Tree, samples: Rc<RefCell<Vec<(Instant, Duration)>>>) {
    loop {
        if let Ok(cpu) = tree.cpu_with_ended() {
            samples.borrow_mut().push((Instant::now(), cpu));
        }
        sleep(SAMPLE).await;
    }
}
