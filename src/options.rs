//! What a run of the program is asked for.

use std::path::{Path, PathBuf};

use crate::reloads::Reloads;
use crate::signal::Signal;
use crate::version::{self, Detail};

/// nginx's options.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// `-v`, `-V`, `-h`, `-?`: say who we are.
    pub(crate) version: Option<Detail>,
    /// Test, signal or serve.
    pub(crate) action: Action,
    /// `-q`: no good news while testing.
    pub(crate) quiet: bool,
    /// `--verbose`: a test tells every setting without effect, with the reason.
    pub(crate) verbose: bool,
    /// What holds without `-p`, `-c` and `-e`.
    pub(crate) places: Places,
    /// `-p`: where relative paths begin.
    pub(crate) prefix: Option<PathBuf>,
    /// `-e`: the error log until the configuration names one; empty for standard error.
    pub(crate) error_log: Option<PathBuf>,
    /// `-c`: the configuration file, relative to the prefix.
    pub(crate) conf: Option<PathBuf>,
    /// `-g`: directives read before the file.
    pub(crate) globals: Option<Vec<u8>>,
    /// A configuration of our own making, instead of a file.
    pub(crate) own: Option<OwnConf>,
}

/// Where things are that the options do not name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Places {
    prefix: &'static str,
    conf: &'static str,
    error_log: &'static str,
}

const NGINX: Places = Places {
    prefix: version::PREFIX,
    conf: version::CONF_PATH,
    error_log: version::ERROR_LOG_PATH,
};

/// Where the service of our own package has them.
const PACKAGE: Places = Places {
    prefix: "/etc/wssgate",
    conf: "/etc/wssgate/wssgate.conf",
    error_log: "/var/log/wssgate/error.log",
};

impl Default for Places {
    fn default() -> Self {
        NGINX
    }
}

/// What a command runs without a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OwnConf {
    /// The command, as the name of the configuration in messages.
    pub(crate) name: &'static str,
    /// The configuration.
    pub(crate) text: String,
    /// What a person is told once it runs.
    pub(crate) greeting: String,
    /// Who wants to know how reloads end.
    pub(crate) reloads: Reloads,
}

/// What the options ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Action {
    /// Nothing special.
    #[default]
    Serve,
    /// `-t`, `-T`.
    Test {
        /// Whether the configuration is printed.
        dump: bool,
    },
    /// `-s`.
    Signal(Signal),
}

impl Options {
    /// Where relative paths begin.
    pub(crate) fn prefix(&self) -> &Path {
        self.prefix.as_deref().unwrap_or(Path::new(self.places.prefix))
    }

    /// The configuration file as it was named, relative to the prefix.
    pub(crate) fn conf(&self) -> &Path {
        self.conf.as_deref().unwrap_or(Path::new(self.places.conf))
    }

    /// Where the configuration file is.
    pub(crate) fn conf_path(&self) -> PathBuf {
        self.prefix().join(self.conf())
    }

    /// The error log until the configuration is read; empty for standard error.
    pub(crate) fn error_log(&self) -> PathBuf {
        self.error_log.clone().unwrap_or_else(|| self.places.error_log.into())
    }

    /// Takes the places of our package when the options name none and there is no configuration of nginx.
    pub(crate) fn find_places(&mut self) {
        let there = |places: &Places| Path::new(places.conf).exists();
        if self.conf.is_none() && self.prefix.is_none() && !there(&NGINX) && there(&PACKAGE) {
            self.places = PACKAGE;
        }
    }

    /// Whether the configuration is only tested.
    pub(crate) fn tests(&self) -> bool {
        matches!(self.action, Action::Test { .. })
    }
}
