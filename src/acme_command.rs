//! `wssgate acme`: what is known of the certificates that are obtained by ACME, and others that become such ones.

use std::fmt::Display;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Subcommand};
use wssgate_config::Config;
use wssgate_proxy::acme::Known;
use wssgate_proxy::acme::import::{Import, Imported, from_certbot};
use wssgate_proxy::generation::owner;
use wssgate_syntax::{Report, SourceMap};

use crate::Failed;
use crate::console;
use crate::load;
use crate::options::Options;

/// The command line of `wssgate acme`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub(crate) struct AcmeArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Clone, Debug, PartialEq, Eq)]
enum Action {
    /// Show each certificate: issuer, expiry, next renewal, last error, what to do
    ///
    /// The exit code is 0 if all are valid, and 1 otherwise.
    Status(ConfArgs),
    /// Import certificates, keys and accounts from certbot
    ///
    /// Each `acme_certificate` of the configuration gets certbot's certificate for its names from the same CA,
    /// unless it has a newer one. certbot's files stay as they are. The exit code is 0 if all
    /// have one afterwards, and 1 otherwise.
    Import(ImportArgs),
}

#[derive(Args, Clone, Debug, PartialEq, Eq)]
struct ImportArgs {
    #[command(flatten)]
    conf: ConfArgs,
    /// certbot's directory
    #[arg(long, value_name = "DIRECTORY", default_value = "/etc/letsencrypt")]
    certbot: PathBuf,
}

/// The configuration.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
struct ConfArgs {
    /// Configuration file
    #[arg(short, value_name = "FILE")]
    conf: Option<PathBuf>,
    /// Directory that relative paths are resolved against
    #[arg(short, value_name = "DIRECTORY")]
    prefix: Option<PathBuf>,
    /// Directives to read before the file
    #[arg(short, value_name = "DIRECTIVES")]
    globals: Option<String>,
}

/// Does what is asked.
pub(crate) fn run(args: &AcmeArgs) -> ExitCode {
    let done = match &args.action {
        Action::Status(conf) => conf.load().map(|(config, _)| status(&config)),
        Action::Import(import) => {
            import.conf.load().and_then(|(config, sources)| import.run(&config, &sources))
        }
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) | Err(Failed) => ExitCode::FAILURE,
    }
}

impl ConfArgs {
    /// Reads the configuration; it obtains something by ACME.
    fn load(&self) -> Result<(Config, Arc<SourceMap>), Failed> {
        let mut options = Options {
            conf: self.conf.clone(),
            prefix: self.prefix.clone(),
            globals: self.globals.clone().map(String::into_bytes),
            ..Options::default()
        };
        options.find_places();
        let loaded = load::load(&options);
        let Some(config) = loaded.config else {
            console::say_all(&loaded.report, &loaded.sources);
            return Err(Failed);
        };
        if config.http.as_ref().is_none_or(|http| http.acme.certificates.is_empty()) {
            println!("{} obtains no certificate by ACME", options.conf_path().display());
        }
        Ok((config, loaded.sources))
    }
}

/// Prints what is known, and whether all certificates are valid.
fn status(config: &Config) -> bool {
    let known: Vec<_> = config.http.iter().flat_map(Known::all).collect();
    print(&known);
    known.iter().all(Known::is_valid)
}

impl ImportArgs {
    /// Takes over what certbot has, and says whether all certificates are there then.
    fn run(&self, config: &Config, sources: &SourceMap) -> Result<bool, Failed> {
        let Some(http) = &config.http else { return Ok(true) };
        let mut report = Report::default();
        let owner = owner(&config.core, None, &mut report);
        if report.has_errors() {
            report.lines(sources).iter().for_each(console::say);
            return Err(Failed);
        }
        let import = from_certbot(http, owner.as_ref(), &self.certbot);
        let Import { certificates, unreadable } = import.map_err(console::fail)?;
        print(&certificates);
        for why in unreadable {
            console::say(format_args!("certbot's {why}"));
        }
        Ok(certificates.iter().all(Imported::is_there))
    }
}

/// Prints paragraphs.
fn print(paragraphs: &[impl Display]) {
    let texts: Vec<_> = paragraphs.iter().map(ToString::to_string).collect();
    print!("{}", texts.join("\n"));
}
