//! From the options to a configuration.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use wssgate_config::{Config, LoadOptions};
use wssgate_syntax::{Diagnostic, Main, Report, SourceMap};

use crate::options::Options;

/// What was read, good or bad.
pub(crate) struct Loaded {
    /// The texts.
    pub(crate) sources: Arc<SourceMap>,
    /// What they mean, if they can be used.
    pub(crate) config: Option<Config>,
    /// What there is to say about them.
    pub(crate) report: Report,
    /// Of what cannot be used, what could be made out all the same, to look for further problems.
    pub(crate) remains: Option<Config>,
}

/// Reads the configuration that the options name.
pub(crate) fn load(options: &Options) -> Loaded {
    let globals = options.globals.as_deref();
    let loaded = wssgate_config::load(&LoadOptions {
        prefix: options.prefix().to_path_buf(),
        main: match &options.own {
            Some(own) => Main::Text { name: own.name.into(), text: own.text.clone().into() },
            None => Main::File(options.conf().to_path_buf()),
        },
        globals: globals.map(|globals| String::from_utf8_lossy(globals).into_owned()),
        error_log: match options.error_log() {
            path if path.as_os_str().is_empty() => Some(PathBuf::from("stderr")),
            path => Some(path),
        },
        ..LoadOptions::default()
    });
    match loaded {
        Ok(loaded) => Loaded {
            sources: Arc::new(loaded.sources),
            config: Some(loaded.config),
            report: loaded.report,
            remains: None,
        },
        Err(failed) => {
            let report = with_help(failed.report, options);
            let (sources, remains) = (Arc::new(failed.sources), failed.remains);
            Loaded { sources, config: None, report, remains }
        }
    }
}

/// Adds what may help where the file itself cannot be read.
fn with_help(report: Report, options: &Options) -> Report {
    let path = options.conf_path();
    let begins = [
        format!("open() \"{}\" failed", path.display()),
        format!("pread() \"{}\" failed", path.display()),
    ];
    let is_file = |problem: &Diagnostic| {
        problem.primary().is_none() && begins.iter().any(|begin| problem.message.starts_with(begin))
    };
    // Then there is nothing else to tell.
    if options.own.is_some() || !report.iter().any(is_file) {
        return report;
    }
    let mut helped = Report::default();
    for problem in report {
        let help = if is_file(&problem) { unread(&path, options) } else { None };
        helped.push(problem.maybe_help(help));
    }
    helped
}

/// What may help who named a file that cannot be read.
fn unread(path: &Path, options: &Options) -> Option<String> {
    if path.is_dir() {
        let inside = ["nginx.conf", "wssgate.conf"].map(|name| path.join(name));
        let inside = inside.iter().find(|path| path.is_file());
        let inside =
            inside.map_or_else(String::new, |path| format!(", such as {}", path.display()));
        return Some(format!("name the configuration file by -c{inside}, not a directory"));
    }
    match fs::File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            return Some("run the command as a user who may read it, such as root".to_owned());
        }
        _ => return None,
    }
    match &options.conf {
        Some(conf) if conf.is_relative() => {
            let prefix = options.prefix().display();
            let here = std::path::absolute(conf).ok().filter(|here| here.is_file())?;
            Some(format!(
                "a relative -c is resolved against the prefix {prefix}, as in nginx; for the file in the working directory \
                 write -c {}",
                here.display()
            ))
        }
        Some(_) => None,
        None => Some(
            "name a file by -c; \"wssgate proxy --help\" and \"wssgate demo --help\" tell how to begin without one"
                .to_owned(),
        ),
    }
}
