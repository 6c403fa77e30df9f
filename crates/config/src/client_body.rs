//! How bodies of requests are read and kept.

use std::path::PathBuf;
use std::time::Duration;

use wssgate_syntax as syntax;

use crate::directive::Arity::{Between, Exactly};
use crate::directive::{AnyDirective, Directive, HSL};
use crate::read::{Reading, Reads, directive_problem, duration, offset, one_of, prefix_path, size};
use crate::value;

/// The rows.
pub(crate) static ROWS: &[&dyn AnyDirective] = &[
    &CLIENT_BODY_BUFFER_SIZE,
    &CLIENT_BODY_IN_FILE_ONLY,
    &CLIENT_BODY_TEMP_PATH,
    &CLIENT_BODY_TIMEOUT,
    &CLIENT_MAX_BODY_SIZE,
];

/// `client_body_buffer_size`
pub(crate) static CLIENT_BODY_BUFFER_SIZE: Directive<u64> = Directive {
    name: "client_body_buffer_size",
    contexts: HSL,
    arity: Exactly(1),
    default: "16k",
    doc: "Sets the size up to which request bodies are kept in memory; larger ones are written to \
          a file.",
    ..Directive::once(size)
};

/// `client_body_in_file_only`
pub(crate) static CLIENT_BODY_IN_FILE_ONLY: Directive<BodyInFile> = Directive {
    name: "client_body_in_file_only",
    contexts: HSL,
    arity: Exactly(1),
    default: "off",
    doc: "Writes every request body to a file; `on` keeps the file after the request, `clean` \
          removes it.",
    ..Directive::once(body_in_file)
};

/// `client_body_temp_path`
pub(crate) static CLIENT_BODY_TEMP_PATH: Directive<PathBuf> = Directive {
    name: "client_body_temp_path",
    contexts: HSL,
    arity: Between(1, 4),
    default: "/var/lib/nginx/body",
    doc: "Sets the directory for files with request bodies; levels of subdirectories are ignored.",
    ..Directive::once(body_temp_path)
};

/// `client_body_timeout`
pub(crate) static CLIENT_BODY_TIMEOUT: Directive<Duration> = Directive {
    name: "client_body_timeout",
    contexts: HSL,
    arity: Exactly(1),
    default: "60s",
    doc: "Sets the timeout between two successive reads of a request body.",
    ..Directive::once(duration)
};

/// `client_max_body_size`
pub(crate) static CLIENT_MAX_BODY_SIZE: Directive<u64> = Directive {
    name: "client_max_body_size",
    contexts: HSL,
    arity: Exactly(1),
    default: "1m",
    doc: "Limits the size of request bodies; 0 disables the limit.",
    ..Directive::once(offset)
};

/// `client_body_in_file_only`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyInFile {
    /// Only when it does not fit the buffer.
    Off,
    /// Always, and kept afterwards.
    On,
    /// Always, and removed afterwards.
    Clean,
}

/// Reads a directory; the levels of subdirectories are only checked.
fn body_temp_path(reading: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<PathBuf> {
    let mut sum = 0;
    for word in &directive.args[1..] {
        let level = value::number(&word.value).filter(|&level| level > 0 && sum + level <= 10);
        sum += level.ok_or_else(|| directive_problem(directive, word, "invalid value"))?;
    }
    prefix_path(reading, directive)
}

fn body_in_file(_: &mut Reading<'_>, directive: &syntax::Directive) -> Reads<BodyInFile> {
    let choices = [("off", BodyInFile::Off), ("on", BodyInFile::On), ("clean", BodyInFile::Clean)];
    one_of(&directive.args[0], &choices)
}
