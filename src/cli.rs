//! The command line: nginx's options, exactly, and our subcommands.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use clap::Parser;
use thiserror::Error;

use crate::acme_command::AcmeArgs;
use crate::demo::DemoArgs;
use crate::format::Fmt;
use crate::options::{Action, Options};
use crate::proxy_command::ProxyArgs;
use crate::signal::Signal;
use crate::version::Detail;

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// What nginx would.
    Nginx(Options),
    /// `wssgate fmt`: lay configurations out.
    Fmt(Fmt),
    /// `wssgate acme`: certificates by ACME.
    Acme(AcmeArgs),
    /// `wssgate proxy`: the main job without a file.
    Proxy(ProxyArgs),
    /// `wssgate demo`: the whole picture on one machine.
    Demo(DemoArgs),
}

/// An argument that makes no sense, in nginx's words.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum UsageError {
    /// No such option.
    #[error("invalid option: \"{0}\"")]
    Invalid(String),
    /// The option needs an argument.
    #[error("option \"-{0}\" requires {1}")]
    Requires(char, &'static str),
    /// `fmt` was given no file.
    #[error("usage: wssgate fmt [--check | --write] FILE...")]
    FmtUsage,
}

/// Reads the arguments, without the program's name.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, UsageError> {
    let mut arguments = arguments.into_iter().peekable();
    match arguments.peek().and_then(|first| first.to_str()) {
        Some("fmt") => parse_fmt(arguments.skip(1)).map(Command::Fmt),
        // These end the program themselves when the arguments are wrong, or ask for help.
        Some("acme") => Ok(Command::Acme(AcmeArgs::parse_from(arguments))),
        Some("proxy") => Ok(Command::Proxy(ProxyArgs::parse_from(arguments))),
        Some("demo") => Ok(Command::Demo(DemoArgs::parse_from(arguments))),
        _ => parse_nginx(arguments).map(Command::Nginx),
    }
}

fn parse_fmt(arguments: impl Iterator<Item = OsString>) -> Result<Fmt, UsageError> {
    let mut fmt = Fmt::default();
    for argument in arguments {
        match argument.to_str() {
            Some("--check") => fmt.check = true,
            Some("--write" | "-w") => fmt.write = true,
            Some(option) if option.starts_with("--") => return Err(UsageError::FmtUsage),
            _ => fmt.files.push(argument.into()),
        }
    }
    if fmt.files.is_empty() || (fmt.check && fmt.write) {
        return Err(UsageError::FmtUsage);
    }
    Ok(fmt)
}

/// nginx reads letters one after the other; one with a value takes the rest of its word, or the
/// next word.
fn parse_nginx(mut arguments: impl Iterator<Item = OsString>) -> Result<Options, UsageError> {
    let mut options = Options::default();
    while let Some(argument) = arguments.next() {
        let Some(mut letters) = argument.as_bytes().strip_prefix(b"-") else {
            return Err(invalid(&argument));
        };
        while let Some((&letter, rest)) = letters.split_first() {
            letters = rest;
            let mut value = |what| {
                if rest.is_empty() {
                    arguments.next().ok_or(UsageError::Requires(char::from(letter), what))
                } else {
                    Ok(OsStr::from_bytes(rest).to_owned())
                }
            };
            match letter {
                b'?' | b'h' => options.version = options.version.max(Some(Detail::Help)),
                b'v' => options.version = options.version.max(Some(Detail::Version)),
                b'V' => options.version = options.version.max(Some(Detail::Configure)),
                b't' => options.test(false),
                b'T' => options.test(true),
                b'q' => options.quiet = true,
                b'p' => options.prefix = Some(value("directory name")?.into()),
                b'c' => options.conf = Some(value("file name")?.into()),
                b'g' => options.globals = Some(value("parameter")?.into_vec()),
                b'e' => options.error_log = Some(error_log(value("file name")?)),
                b's' => options.signal(&value("parameter")?)?,
                _ => return Err(UsageError::Invalid(char::from(letter).to_string())),
            }
            if b"pcges".contains(&letter) {
                break;
            }
        }
    }
    Ok(options)
}

impl Options {
    fn test(&mut self, dump: bool) {
        let dumps = self.action == Action::Test { dump: true };
        self.action = Action::Test { dump: dump || dumps };
    }

    fn signal(&mut self, name: &OsStr) -> Result<(), UsageError> {
        let signal = name.to_str().and_then(Signal::named);
        let signal =
            signal.ok_or_else(|| UsageError::Invalid(format!("-s {}", name.to_string_lossy())))?;
        // A test comes before a signal, whatever their order.
        if !self.tests() {
            self.action = Action::Signal(signal);
        }
        Ok(())
    }
}

fn invalid(argument: &OsStr) -> UsageError {
    UsageError::Invalid(argument.to_string_lossy().into_owned())
}

fn error_log(value: OsString) -> PathBuf {
    if value == "stderr" { PathBuf::new() } else { value.into() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::version;

    fn nginx(arguments: &[&str]) -> Result<Options, String> {
        match parse(arguments.iter().map(OsString::from)) {
            Ok(Command::Nginx(options)) => Ok(options),
            Ok(other) => panic!("not nginx's options: {other:?}"),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn letters_may_stand_together_and_values_may_touch_them() {
        let options = nginx(&["-tq", "-c", "a.conf", "-p/srv/", "-g", "daemon off;"]).unwrap();
        assert_eq!(options.action, Action::Test { dump: false });
        assert!(options.quiet);
        assert_eq!(options.conf_path(), Path::new("/srv/a.conf"));
        assert_eq!(options.globals.unwrap(), b"daemon off;");
        let options = nginx(&["-Tt", "-e", "stderr"]).unwrap();
        assert_eq!(options.action, Action::Test { dump: true });
        assert_eq!(options.error_log.unwrap(), Path::new(""));
    }

    #[test]
    fn errors_have_nginx_words() {
        let cases: &[(&[&str], &str)] = &[
            (&["foo"], "invalid option: \"foo\""),
            (&["-x"], "invalid option: \"x\""),
            (&["-tx"], "invalid option: \"x\""),
            (&["-s", "foo"], "invalid option: \"-s foo\""),
            (&["-s"], "option \"-s\" requires parameter"),
            (&["-p"], "option \"-p\" requires directory name"),
            (&["-c"], "option \"-c\" requires file name"),
            (&["-e"], "option \"-e\" requires file name"),
            (&["-g"], "option \"-g\" requires parameter"),
        ];
        for &(arguments, expected) in cases {
            assert_eq!(nginx(arguments).unwrap_err(), expected, "{arguments:?}");
        }
    }

    #[test]
    fn without_options_the_paths_are_those_of_the_packages() {
        let options = nginx(&[]).unwrap();
        assert_eq!(options.action, Action::Serve);
        assert_eq!(options.conf_path(), Path::new(version::CONF_PATH));
    }

    #[test]
    fn the_most_detailed_version_wins() {
        assert_eq!(nginx(&["-v"]).unwrap().version, Some(Detail::Version));
        assert_eq!(nginx(&["-vV"]).unwrap().version, Some(Detail::Configure));
        assert_eq!(nginx(&["-Vh"]).unwrap().version, Some(Detail::Configure));
        assert_eq!(nginx(&["-?"]).unwrap().version, Some(Detail::Help));
    }

    #[test]
    fn signals_are_known_by_name() {
        assert_eq!(nginx(&["-sreload"]).unwrap().action, Action::Signal(Signal::Reload));
        assert_eq!(nginx(&["-s", "stop"]).unwrap().action, Action::Signal(Signal::Terminate));
    }

    #[test]
    fn fmt_takes_files() {
        let command = parse(["fmt", "--check", "a", "-"].map(OsString::from)).unwrap();
        let files = vec!["a".into(), "-".into()];
        assert_eq!(command, Command::Fmt(Fmt { check: true, write: false, files }));
        assert_eq!(parse([OsString::from("fmt")]), Err(UsageError::FmtUsage));
    }
}
