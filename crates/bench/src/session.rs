//! The whole comparison: every row, run after run, proxy after proxy.
//!
//! Proxies take turns within a run, so that whatever changes on the machine meets all of them.
//! Each starts anew for each measurement.

use std::fs;
use std::io;
use std::path::Path;

use wssgate_sys::affinity;

use crate::load::Load;
use crate::options::Options;
use crate::peers::{Installed, Peer, Running, Site};
use crate::process;
use crate::report::{Report, Results};
use crate::rows::{ROWS, Reading, Row, Scale, Trial};

/// A load average above this one disturbs.
const QUIET: f64 = 0.5;

/// Measures, prints, and writes the report if it is a full one or asked for.
pub(crate) fn run(options: &Options, wssgate: &Path, out: &Path) -> io::Result<()> {
    let rows: Vec<&Row> = ROWS.iter().filter(|row| options.wants(row.name)).collect();
    if options.list {
        rows.iter().for_each(|row| println!("{:20} {}", row.name, row.title));
        return Ok(());
    }
    let site = Site::new()?;
    affinity::run_on(site.cores.load)?;
    let mut scale = if options.quick { Scale::quick() } else { Scale::full() };
    scale.runs = options.runs.unwrap_or(scale.runs);
    scale.fit(site.descriptors);

    if let Some(load) = process::load_average().filter(|&load| load > QUIET) {
        eprintln!("warning: the machine is busy (load average {load}), which shows in the figures");
    }
    let peers = installed(options, wssgate);
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
        fs::write(out.join("peers.md"), report.markdown())?;
        fs::write(out.join("peers.svg"), report.picture())?;
        println!("\nwritten to {}", out.display());
    }
    Ok(())
}

/// The wanted proxies that are there; a missing one is told and left out.
fn installed(options: &Options, wssgate: &Path) -> Vec<Installed> {
    let wssgate = options.wssgate.as_deref().unwrap_or(wssgate);
    let found = options.peers.iter().map(|&peer| Installed::find(peer, wssgate));
    found
        .filter_map(|found| found.inspect_err(|missing| eprintln!("skipped: {missing}")).ok())
        .collect()
}

fn measure(row: &'static Row, peers: &[Installed], site: &Site, scale: &Scale) -> Results {
    let mut results = Results::new(row);
    let direct = row.direct.then(Installed::direct);
    for run in 0..scale.runs {
        for installed in peers.iter().chain(&direct) {
            let name = installed.peer.name();
            eprintln!("{} {}/{} {name}", row.name, run + 1, scale.runs);
            match measure_once(row, installed, site, scale) {
                Ok(readings) => results.add(run, installed.peer, readings),
                Err(error) => {
                    eprintln!("failed: {error}");
                    results.fail(format!("{name}, run {}: {error}", run + 1));
                }
            }
        }
    }
    results
}

fn measure_once(
    row: &Row,
    installed: &Installed,
    site: &Site,
    scale: &Scale,
) -> io::Result<Vec<Reading>> {
    let load = Load::new()?;
    let backends = load.backend_addresses()?;
    if installed.peer == Peer::Direct {
        let (plain, tls) = (backends, Vec::new());
        return row.measure(&mut Trial { load, scale, tree: None, plain, tls });
    }
    let running = Running::start(installed, site, &backends)?;
    let (plain, tls) = (running.plain.clone(), running.tls.clone());
    row.measure(&mut Trial { load, scale, tree: Some(running.tree()), plain, tls })
}
