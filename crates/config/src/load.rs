//! From a path to a [`Config`]: read, check, resolve; every problem in one run.

use std::path::{Path, PathBuf};

use wssgate_syntax::{Files, Main, Options, Report, SourceMap, Span};

use crate::directive::Context;
use crate::level::walk;
use crate::paths::Paths;
use crate::read::{Reading, Resolve, system_resolve};
use crate::registry::registry;
use crate::resolve::{Config, resolve};

/// Where the configuration is looked for when nothing is said.
pub const DEFAULT_CONF: &str = "/etc/nginx/nginx.conf";
/// What relative paths are below when nothing is said.
pub const DEFAULT_PREFIX: &str = "/usr/share/nginx";

/// What to load.
pub struct LoadOptions<'a> {
    /// `-p`: the directory that relative paths are below.
    pub prefix: PathBuf,
    /// The configuration: a file (`-c`, relative to the prefix) or a text.
    pub main: Main,
    /// `-g`: directives of the main level.
    pub globals: Option<String>,
    /// `-e`: where errors go when the configuration names no place.
    pub error_log: Option<PathBuf>,
    /// Where files are read from.
    pub files: &'a dyn Files,
    /// How names become addresses.
    pub resolve: Resolve,
}

impl Default for LoadOptions<'_> {
    fn default() -> Self {
        Self {
            prefix: DEFAULT_PREFIX.into(),
            main: Main::File(DEFAULT_CONF.into()),
            globals: None,
            error_log: None,
            files: &wssgate_syntax::Disk,
            resolve: system_resolve,
        }
    }
}

impl LoadOptions<'_> {
    /// A text that is in no file.
    pub fn text(text: impl Into<Vec<u8>>) -> Self {
        let main = Main::Text { name: "configuration".into(), text: text.into() };
        Self { main, ..Self::default() }
    }

    /// A file.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self { main: Main::File(path.into()), ..Self::default() }
    }
}

/// A configuration that can be used.
#[derive(Debug)]
pub struct Loaded {
    /// Its meaning.
    pub config: Config,
    /// Its texts.
    pub sources: SourceMap,
    /// Warnings and notes.
    pub report: Report,
}

/// A configuration that cannot be used.
#[derive(Debug)]
pub struct Failed {
    /// Its texts.
    pub sources: SourceMap,
    /// Every problem found.
    pub report: Report,
    /// What could be made out all the same, to look for further problems and for nothing else. Nothing when braces are
    /// missing, for then settings may stand in blocks that are not theirs.
    pub remains: Option<Config>,
}

/// Loads a configuration.
///
/// # Errors
/// With everything that is wrong, when anything is.
pub fn load(options: &LoadOptions<'_>) -> Result<Loaded, Box<Failed>> {
    let parsed = wssgate_syntax::parse(Options {
        main: &options.main,
        prefix: Some(&options.prefix),
        globals: options.globals.as_ref().map(|globals| globals.as_bytes()),
        files: options.files,
    });
    let (sources, mut report) = (parsed.sources, parsed.report);
    let Some((first, _)) = sources.files().next() else {
        return Err(Box::new(Failed { sources, report, remains: None }));
    };
    let paths = Paths { prefix: options.prefix.clone(), conf_dir: conf_dir(options) };
    let error_log = options.error_log.as_deref().filter(|path| *path != Path::new("stderr"));
    let error_log = error_log.map(|path| options.prefix.join(path));
    let nowhere = Span { file: first, start: 0, end: 0 };
    let mut reading = Reading::new(registry(), nowhere, &paths, &sources, options.resolve);
    let main = walk(&mut reading, &parsed.directives, Context::Main, parsed.balanced);
    let config = resolve(&mut reading, &main, error_log);
    report.extend(reading.report);
    report.sort();
    drop(main);
    if report.has_errors() {
        let remains = parsed.balanced.then_some(config);
        return Err(Box::new(Failed { sources, report, remains }));
    }
    Ok(Loaded { config, sources, report })
}

/// The directory of the main file.
fn conf_dir(options: &LoadOptions<'_>) -> PathBuf {
    match &options.main {
        Main::File(path) => {
            let path = options.prefix.join(path);
            path.parent().map(Path::to_path_buf).unwrap_or_default()
        }
        Main::Text { .. } => options.prefix.clone(),
    }
}
