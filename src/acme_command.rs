//! `wssgate acme status`: what is known of the certificates that are obtained by ACME.

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use wssgate_proxy::acme::Known;

use crate::load;
use crate::options::Options;

/// Certificates that are obtained by ACME
#[derive(Parser, Clone, Debug, PartialEq, Eq)]
#[command(name = "acme", bin_name = "wssgate acme")]
pub(crate) struct AcmeArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Clone, Debug, PartialEq, Eq)]
enum Action {
    /// Tell of each certificate: issuer, expiry, next renewal, last error, what to do
    ///
    /// The exit code is 0 if all are valid, and 1 otherwise.
    Status(StatusArgs),
}

#[derive(Args, Clone, Debug, PartialEq, Eq)]
struct StatusArgs {
    /// Configuration file
    #[arg(short, value_name = "FILE")]
    conf: Option<std::path::PathBuf>,
    /// Directory that relative paths begin at
    #[arg(short, value_name = "DIRECTORY")]
    prefix: Option<std::path::PathBuf>,
    /// Directives to read before the file
    #[arg(short, value_name = "DIRECTIVES")]
    globals: Option<String>,
}

/// Prints what is known.
pub(crate) fn run(args: &AcmeArgs) -> ExitCode {
    let Action::Status(args) = &args.action;
    let options = Options {
        conf: args.conf.clone(),
        prefix: args.prefix.clone(),
        globals: args.globals.clone().map(String::into_bytes),
        ..Options::default()
    };
    let loaded = load::load(&options);
    let Some(config) = loaded.config else {
        for line in loaded.report.lines(&loaded.sources) {
            eprintln!("wssgate acme: {line}");
        }
        return ExitCode::FAILURE;
    };
    let known: Vec<_> = config.http.iter().flat_map(Known::all).collect();
    if known.is_empty() {
        println!("no certificate is obtained by ACME in {}", options.conf_path().display());
    }
    let texts: Vec<_> = known.iter().map(ToString::to_string).collect();
    print!("{}", texts.join("\n"));
    match known.iter().all(Known::is_valid) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
