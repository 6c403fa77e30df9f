//! How many subrequests one request of a client may lead to, whoever asks for them.

use std::cell::Cell;

use wssgate_config::model::LogLevel;

use crate::exchange::request::Request;

/// How deep subrequests may be nested, as in nginx.
const MAX_DEPTH: u8 = 51;
/// How many may be asked for. Pages that are meant well have some hundreds; one that includes itself
/// twice would ask for 2⁵¹ before all of them are nested too deep.
const MAX_COUNT: u32 = 5000;

/// A subrequest must not be made; the log knows why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused;

/// What a request and all its subrequests have asked for together.
#[derive(Debug, Default)]
pub struct Subrequests {
    asked: Cell<u32>,
    /// Whether the log knows that they are nested too deep.
    cycle_told: Cell<bool>,
}

impl Subrequests {
    /// Counts one that `parent` asks for. What is refused is told once: a page could ask for the
    /// same at each of its places.
    ///
    /// # Errors
    /// When there are too many, or nested too deep.
    pub(crate) fn admit(&self, parent: &Request, path: &[u8]) -> Result<(), Refused> {
        let asked = self.asked.get();
        if asked > MAX_COUNT {
            return Err(Refused);
        }
        self.asked.set(asked + 1);
        let path = path.escape_ascii();
        if asked == MAX_COUNT {
            let why = format_args!("too many subrequests while processing \"{path}\"");
            parent.log(LogLevel::Error, why);
            return Err(Refused);
        }
        if parent.depth() < MAX_DEPTH {
            return Ok(());
        }
        if !self.cycle_told.replace(true) {
            let why = format_args!("subrequests cycle while processing \"{path}\"");
            parent.log(LogLevel::Error, why);
        }
        Err(Refused)
    }
}
