//! `wssgate fmt`: lays configuration files out.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{fs, io::IsTerminal};

use crate::console::say;

/// Options of `wssgate fmt`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Fmt {
    /// Say which files would change, and fail if one does.
    pub(crate) check: bool,
    /// Write files in place instead of printing them.
    pub(crate) write: bool,
    /// The files; `-` is standard input.
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
                say(format_args!("[emerg] {}: {error}", file.display()));
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
            for line in parsed.report.lines(&parsed.sources) {
                say(line);
            }
            if io::stderr().is_terminal() {
                eprint!("\n{}", parsed.report.render(&parsed.sources, true));
            }
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
