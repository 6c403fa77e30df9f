//! `ssl_session_cache`: where sessions are kept for resumption.

use wssgate_syntax::{self as syntax, Diagnostic, Word};

use crate::read::{Reading, Reads, parameter};
use crate::value::{self, MIN_ZONE_SIZE};

/// `ssl_session_cache`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionCache {
    /// `off`: sessions may not be reused.
    Off,
    /// `none`: clients are told that they may, but nothing is stored.
    None,
    /// `builtin` or `shared:NAME:SIZE`: name (empty for builtin) and how many sessions about fit.
    Shared {
        /// The zone.
        name: Box<[u8]>,
        /// Sessions.
        sessions: usize,
    },
}

/// Sessions that fit into a mebibyte, by nginx's documentation.
const SESSIONS_PER_MIB: u64 = 4000;

/// Sessions of OpenSSL's own cache when no number is given.
const BUILTIN_SESSIONS: usize = 20 * 1024;

pub(crate) fn session_cache(
    _: &mut Reading<'_>,
    directive: &syntax::Directive,
) -> Reads<SessionCache> {
    let mut cache = SessionCache::None;
    for word in &directive.args {
        if word.is("off") {
            cache = SessionCache::Off;
        } else if word.is("none") {
            cache = SessionCache::None;
        } else if let Some(text) = parameter(word, "shared:") {
            cache = shared_cache(word, text)?;
        } else if word.is("builtin") || parameter(word, "builtin:").is_some() {
            let sessions = match parameter(word, "builtin:") {
                None => BUILTIN_SESSIONS,
                Some(text) => value::number(text).ok_or_else(|| invalid_cache(word))? as usize,
            };
            // `builtin … shared:…` keeps both; what they share is what can be found.
            if !matches!(cache, SessionCache::Shared { .. }) {
                cache = SessionCache::Shared { name: Box::default(), sessions };
            }
        } else {
            return Err(invalid_cache(word));
        }
    }
    Ok(cache)
}

fn invalid_cache(word: &Word) -> Diagnostic {
    Diagnostic::error(format!("invalid session cache \"{word}\""))
        .at(word.span, "e.g. `shared:SSL:10m`")
}

fn shared_cache(word: &Word, text: &[u8]) -> Result<SessionCache, Diagnostic> {
    let colon = text
        .iter()
        .position(|&byte| byte == b':')
        .filter(|&at| at > 0)
        .ok_or_else(|| invalid_cache(word))?;
    let (name, size) =
        (&text[..colon], value::size(&text[colon + 1..]).ok_or_else(|| invalid_cache(word))?);
    if size < MIN_ZONE_SIZE {
        return Err(
            Diagnostic::error(format!("session cache \"{word}\" is too small")).at(word.span, "")
        );
    }
    Ok(SessionCache::Shared {
        name: name.into(),
        sessions: ((size * SESSIONS_PER_MIB) >> 20) as usize,
    })
}
