//! What the commands of a page and of all that it includes have in common: variables and blocks.

use std::cell::RefCell;

use bytes::Bytes;
use wssgate_config::model::LogLevel;
use wssgate_config::regex::Regex;
use wssgate_config::template::VariableId;

use crate::exchange::request::{LastMatch, Request};
use crate::exchange::variables;

/// Bytes that the variables and blocks of one page may take.
const ROOM: usize = 1024 * 1024;

/// A command that cannot be done; the log knows why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failed;

/// What is known of a page.
#[derive(Debug, Default)]
pub(crate) struct Page {
    variables: RefCell<Vec<(String, Bytes)>>,
    blocks: RefCell<Vec<(Vec<u8>, Vec<u8>)>>,
    last_match: RefCell<LastMatch>,
    used: std::cell::Cell<usize>,
}

impl Page {
    /// Gives a variable of the page a value.
    pub(super) fn set(&self, request: &Request, name: &[u8], value: Bytes) -> Result<(), Failed> {
        let name = lower(name);
        self.take_room(request, name.len() + value.len())?;
        let mut variables = self.variables.borrow_mut();
        match variables.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => variables.push((name, value)),
        }
        Ok(())
    }

    /// The value of a variable: of the page, or of the request.
    pub(super) fn variable(&self, request: &Request, name: &[u8]) -> Option<Bytes> {
        let name = lower(name);
        if let [digit @ b'0'..=b'9'] = name.as_bytes() {
            let last = self.last_match.borrow();
            if let Some(group) = last.captures.groups.get(usize::from(digit - b'0')) {
                let (start, end) = group.unwrap_or((0, 0));
                return Some(last.subject.slice(start..end));
            }
        }
        let own = self.variables.borrow().iter().find(|(known, _)| *known == name).cloned();
        own.map(|(_, value)| value).or_else(|| variables::named(request, &name))
    }

    /// Whether a text matches an expression; its groups become variables.
    pub(super) fn matches(
        &self,
        request: &Request,
        pattern: &[u8],
        text: &Bytes,
    ) -> Result<bool, Failed> {
        let mut names: Vec<String> = Vec::new();
        let slot = |name: &str| {
            names.push(name.to_owned());
            VariableId(u32::try_from(names.len() - 1).unwrap_or(u32::MAX))
        };
        let compiled = std::str::from_utf8(pattern).map_err(|_| "not UTF-8".to_owned());
        let regex = match compiled.and_then(|pattern| Regex::new(pattern, false, slot)) {
            Ok(regex) => regex,
            Err(why) => {
                request.log(LogLevel::Error, why);
                return Err(Failed);
            }
        };
        let Some(captures) = regex.captures(text) else { return Ok(false) };
        for &(group, id) in regex.names() {
            let group = captures.groups.get(group).copied().flatten().unwrap_or((0, 0));
            if let Some(name) = names.get(id.0 as usize) {
                self.set(request, name.as_bytes(), text.slice(group.0..group.1))?;
            }
        }
        *self.last_match.borrow_mut() = LastMatch { subject: text.clone(), captures };
        Ok(true)
    }

    /// Begins a block.
    pub(super) fn begin_block(&self, name: &[u8]) {
        self.blocks.borrow_mut().push((name.to_vec(), Vec::new()));
    }

    /// Adds to the block that was begun last.
    pub(super) fn add_to_block(&self, request: &Request, text: &[u8]) {
        if self.take_room(request, text.len()).is_ok()
            && let Some((_, block)) = self.blocks.borrow_mut().last_mut()
        {
            block.extend_from_slice(text);
        }
    }

    /// The text of a block.
    pub(super) fn block(&self, name: &[u8]) -> Option<Bytes> {
        let blocks = self.blocks.borrow();
        let found = blocks.iter().find(|(known, _)| known == name)?;
        Some(Bytes::copy_from_slice(&found.1))
    }

    /// Whoever writes a page without end must not take all memory with it.
    fn take_room(&self, request: &Request, len: usize) -> Result<(), Failed> {
        let used = self.used.get().saturating_add(len);
        if used > ROOM {
            request.log(LogLevel::Error, "too long variables and blocks in SSI commands");
            return Err(Failed);
        }
        self.used.set(used);
        Ok(())
    }
}

fn lower(name: &[u8]) -> String {
    String::from_utf8_lossy(name).to_ascii_lowercase()
}
