//! `wssgate fmt`: lays configuration files out.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use crate::console::{say, say_all};
use crate::text::reason;

/// The command line of `wssgate fmt`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fmt {
    /// List the files that would change; the exit code is 1 if there are any
    #[arg(long, conflicts_with = "write")]
    pub(crate) check: bool,
    /// Write the files in place instead of printing them
    #[arg(long, short)]
    pub(crate) write: bool,
    /// The files; - is standard input
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
}

/// Formats every file. The exit code is 1 if one could not be, or with `--check` if one would
/// change.
pub(crate) fn run(arguments: &Fmt) -> ExitCode {
    let mut good = true;
    for file in &arguments.files {
        match one(file, arguments) {
            Ok(as_wanted) => good &= as_wanted,
            Err(error) => {
                say(format_args!("{}: {}", file.display(), reason(&error)));
                good = false;
            }
        }
    }
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Whether the file was, or now is, as it should be.
fn one(file: &Path, arguments: &Fmt) -> io::Result<bool> {
    let from_stdin = file == Path::new("-");
    let mut text = Vec::new();
    if from_stdin {
        io::stdin().read_to_end(&mut text)?;
    } else {
        text = fs::read(file)?;
    }
    let name = file.display().to_string();
    let formatted = match wssgate_syntax::format(&name, &text) {
        Ok(formatted) => formatted,
        Err(parsed) => {
            say_all(&parsed.report, &parsed.sources);
            return Ok(false);
        }
    };
    if arguments.check {
        if formatted != text {
            println!("{name}");
        }
        return Ok(formatted == text);
    }
    if arguments.write && !from_stdin {
        if formatted != text {
            fs::write(file, formatted)?;
        }
    } else {
        io::stdout().write_all(&formatted)?;
    }
    Ok(true)
}
