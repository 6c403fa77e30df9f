//! What a run of the program is asked for.

use std::path::{Path, PathBuf};

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

/// What a command runs without a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OwnConf {
    /// The command, as the name of the configuration in messages.
    pub(crate) name: &'static str,
    /// The configuration.
    pub(crate) text: String,
    /// What a person is told once it runs.
    pub(crate) greeting: String,
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
        self.prefix.as_deref().unwrap_or(Path::new(version::PREFIX))
    }

    /// The configuration file.
    pub(crate) fn conf_path(&self) -> PathBuf {
        self.prefix().join(self.conf.as_deref().unwrap_or(Path::new(version::CONF_PATH)))
    }

    /// Whether the configuration is only tested.
    pub(crate) fn tests(&self) -> bool {
        matches!(self.action, Action::Test { .. })
    }
}
