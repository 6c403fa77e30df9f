//! From the options to a configuration.

use std::path::PathBuf;
use std::sync::Arc;

use wssgate_config::{Config, LoadOptions};
use wssgate_syntax::{Main, Report, SourceMap};

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
            None => Main::File(options.conf_path()),
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
            let (sources, remains) = (Arc::new(failed.sources), failed.remains);
            Loaded { sources, config: None, report: failed.report, remains }
        }
    }
}
