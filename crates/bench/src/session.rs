//! The whole comparison: every row, run after run, proxy after proxy.
//!
//! Proxies take turns within a run, so that whatever changes on the machine meets all of them; where
//! a row allows it the turns are slices of a fraction of a second. Each starts anew for each
//! measurement.

use std::fs;
use std::io;
use std::path::Path;

use wssgate_sys::affinity;

use crate::load::Load;
use crate::options::Options;
use crate::peers::{Installed, Peer, Running, Site, installed};
use crate::process;
use crate::report::{Report, Results, picture};
use crate::rows::{ROWS, Reading, Row, Scale, Trial};

/// Where the admin socket is: beside the pid file.
const ADMIN: &str = "nginx.admin.sock";

/// A load average above this one disturbs.
const QUIET: f64 = 0.5;

/// Measures, prints, and writes the report if it is a full one or asked for; or draws the picture of an
/// earlier one.
pub(crate) fn run(options: &Options, wssgate: &Path, out: &Path) -> io::Result<()> {
    let rows: Vec<&Row> = ROWS.iter().filter(|row| options.wants(row.name)).collect();
    if options.list {
        rows.iter().for_each(|row| println!("{:20} {}", row.name, row.title));
        return Ok(());
    }
    if let Some(report) = &options.draw {
        let markdown = fs::read_to_string(report)
            .map_err(|error| io::Error::other(format!("{}: {error}", report.display())))?;
        return fs::write(report.with_extension("svg"), picture(&markdown));
    }
    let mut site = Site::new()?;
    site.directives.clone_from(&options.directives);
    site.before_directives.clone_from(&options.before_directives);
    affinity::run_on(site.cores.load)?;
    let mut scale = if options.quick { Scale::quick() } else { Scale::full() };
    scale.runs = options.runs.unwrap_or(scale.runs);
    scale.fit(site.descriptors);

    if let Some(load) = process::load_average().filter(|&load| load > QUIET) {
        eprintln!("warning: the machine is busy (load average {load}), which shows in the figures");
    }
    let wssgate = options.wssgate.as_deref().unwrap_or(wssgate);
    let wanted = options.peers.iter().map(|&peer| (peer, wssgate));
    let before = options.before.iter().map(|path| (Peer::Before, path.as_path()));
    let peers = installed(wanted.chain(before));
    let peers_text = peers.iter().map(|peer| format!("{}: {}", peer.peer.name(), peer.version));
    let mut report = Report {
        machine: process::machine(),
        peers: peers_text.collect(),
        runs: scale.runs,
        results: Vec::new(),
    };
    for row in rows {
        let results = measure(row, &peers, &site, &scale);
        println!("\n{}", results.text());
        report.results.push(results);
    }
    let out = options.out.as_deref().or(options.is_full().then_some(out));
    if let Some(out) = out {
        fs::create_dir_all(out)?;
        let markdown = report.markdown();
        fs::write(out.join("peers.svg"), picture(&markdown))?;
        fs::write(out.join("peers.md"), markdown)?;
        println!("\nwritten to {}", out.display());
    }
    Ok(())
}

fn measure(row: &'static Row, peers: &[Installed], site: &Site, scale: &Scale) -> Results {
    let mut results = Results::new(row);
    let direct = row.direct.then(Installed::direct);
    let bare = row.bare.then(Installed::bare);
    let contestants = peers.iter().chain(&direct).chain(&bare);
    let contestants: Vec<&Installed> =
        contestants.filter(|installed| row.admits(installed.peer)).collect();
    for run in 0..scale.runs {
        let measured = match row.is_sliced() {
            true => measure_in_slices(row, &contestants, site, scale, run),
            false => measure_one_by_one(row, &contestants, site, scale, run),
        };
        for (peer, outcome) in measured {
            match outcome {
                Ok(readings) => results.add(run, peer, readings),
                Err(error) => {
                    eprintln!("failed: {error}");
                    results.fail(format!("{}, run {}: {error}", peer.name(), run + 1));
                }
            }
        }
    }
    results
}

/// What one run of each proxy brought.
type Outcomes = Vec<(Peer, io::Result<Vec<Reading>>)>;

fn measure_one_by_one(
    row: &Row,
    contestants: &[&Installed],
    site: &Site,
    scale: &Scale,
    run: usize,
) -> Outcomes {
    let one = |installed: &&Installed| {
        eprintln!("{} {}/{} {}", row.name, run + 1, scale.runs, installed.peer.name());
        let outcome = Stage::set(row, installed, site, scale)
            .and_then(|mut stage| row.measure(&mut stage.trial));
        (installed.peer, outcome)
    };
    contestants.iter().map(one).collect()
}

/// All proxies are up at the same time, and all but one of them have nothing to do.
fn measure_in_slices(
    row: &Row,
    contestants: &[&Installed],
    site: &Site,
    scale: &Scale,
    run: usize,
) -> Outcomes {
    eprintln!("{} {}/{}", row.name, run + 1, scale.runs);
    let prepare = |installed: &&Installed| {
        let prepared = Stage::set(row, installed, site, scale)
            .and_then(|mut stage| Ok((row.prepare(&mut stage.trial)?, stage)));
        (installed.peer, prepared)
    };
    let mut stages: Vec<_> = contestants.iter().map(prepare).collect();
    for _ in 0..scale.slices {
        // Each is the first in its turn.
        stages.rotate_left(1);
        for (_, stage) in &mut stages {
            let Ok((prepared, running)) = stage else { continue };
            if let Err(error) = row.slice(&mut running.trial, prepared) {
                *stage = Err(error);
            }
        }
    }
    let sum_up = |(peer, stage): (Peer, io::Result<(_, Stage<'_>)>)| {
        (peer, stage.and_then(|(prepared, _)| row.sum_up(&prepared, scale)))
    };
    stages.into_iter().map(sum_up).collect()
}

/// A proxy, freshly started, and its load. The load goes first.
struct Stage<'a> {
    trial: Trial<'a>,
    _running: Option<Running>,
}

impl<'a> Stage<'a> {
    fn set(row: &Row, installed: &Installed, site: &'a Site, scale: &'a Scale) -> io::Result<Self> {
        let load = Load::new()?;
        let backends = load.backend_addresses()?;
        let certificate = &site.certificate;
        let admin = site.dir.path().join(installed.peer.name()).join(ADMIN);
        if installed.peer == Peer::Direct {
            let (plain, tls) = (backends, Vec::new());
            let trial = Trial { load, scale, certificate, tree: None, plain, tls, admin };
            return Ok(Self { trial, _running: None });
        }
        let running = Running::start(installed, site, &backends, row.extra())?;
        let (plain, tls) = (running.plain.clone(), running.tls.clone());
        let tree = Some(running.tree());
        let trial = Trial { load, scale, certificate, tree, plain, tls, admin };
        Ok(Self { trial, _running: Some(running) })
    }
}
