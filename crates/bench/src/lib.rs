//! The same work for wssgate, nginx and HAProxy, measured in turn on the same two cores.
//!
//! The proxy under test has one core for itself. On the other runs one thread with one epoll
//! loop, `load`, which is at once all clients and the echo server behind the proxy. What a proxy
//! costs is what the operating system says of its processes (`process`); how fast the load is
//! does not enter. `rows` is the list of the works, `report` makes the table and the picture.
//! `restarts` is another comparison: what clients see of app servers that restart; and so is `drains`:
//! what they see of a proxy that is reloaded. `upgrades` replaces the program of a proxy.

use std::io;
use std::path::Path;
use std::process::ExitCode;

mod bare;
mod bars;
mod certificate;
mod drains;
mod listings;
mod load;
mod options;
mod outcomes;
mod peers;
mod process;
mod report;
mod requests;
mod restarts;
mod retry;
mod rows;
mod session;
mod stats;
mod svg;
mod upgrade;
mod upgrades;

/// Runs the comparison as the command line says; `wssgate` is the program under test and `out` the
/// directory for `peers.md` and `peers.svg`.
pub fn main(wssgate: &Path, out: &Path) -> ExitCode {
    let mut args = std::env::args().skip(1).peekable();
    if args.next_if(|first| first == bare::ARGUMENT).is_some() {
        return exit_code(bare::run(args));
    }
    let options = match options::Options::parse(args) {
        Ok(options) => options,
        Err(problem) => {
            eprintln!("{problem}\n{}", options::HELP);
            return ExitCode::from(2);
        }
    };
    exit_code(session::run(&options, wssgate, out))
}

/// Restarts app servers behind the proxies as the command line says; `wssgate` is the program under
/// test and `out` the directory for `restarts.md` and `restarts.json`.
pub fn restarts(wssgate: &Path, out: &Path) -> ExitCode {
    match restarts::Options::parse(std::env::args().skip(1)) {
        Ok(options) => exit_code(restarts::run(&options, wssgate, out)),
        Err(problem) => {
            eprintln!("{problem}\n{}", restarts::HELP);
            ExitCode::from(2)
        }
    }
}

/// Reloads the proxies under clients that come back, as the command line says; `wssgate` is the program
/// under test and `out` the directory for `drains.md` and `drains.svg`.
pub fn drains(wssgate: &Path, out: &Path) -> ExitCode {
    match drains::Options::parse(std::env::args().skip(1)) {
        Ok(options) => exit_code(drains::run(&options, wssgate, out)),
        Err(problem) => {
            eprintln!("{problem}\n{}", drains::HELP);
            ExitCode::from(2)
        }
    }
}

/// Replaces the programs of the proxies under tunnels in use, as the command line says; `wssgate` is the program
/// under test and `out` the directory for `upgrades.md` and `upgrades.svg`.
pub fn upgrades(wssgate: &Path, out: &Path) -> ExitCode {
    match upgrades::Options::parse(std::env::args().skip(1)) {
        Ok(options) => exit_code(upgrades::run(&options, wssgate, out)),
        Err(problem) => {
            eprintln!("{problem}\n{}", upgrades::HELP);
            ExitCode::from(2)
        }
    }
}

fn exit_code(result: io::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
