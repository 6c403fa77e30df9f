//! What the commands of a page and of all that it includes have in common: variables and blocks.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use bytes::Bytes;
use wssgate_config::model::LogLevel;
use wssgate_config::regex::Regex;
use wssgate_config::template::VariableId;

use crate::exchange::request::{LastMatch, Request};
use crate::exchange::variables;

/// Bytes that the variables and blocks of one page may take.
const ROOM: usize = 1024 * 1024;
/// Bytes of it that a variable or block takes beside its name and text, however short they are.
const ENTRY: usize = 64;

/// A command that cannot be done; the log knows why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failed;

/// What is known of a page.
#[derive(Debug, Default)]
pub(crate) struct Page {
    variables: RefCell<HashMap<String, Bytes>>,
    /// Those that have ended. A text is shared by all places where it stands.
    blocks: RefCell<HashMap<Vec<u8>, Bytes>>,
    /// The block that was begun last, with its name. None stands for one without room.
    open: RefCell<Option<(Vec<u8>, Vec<u8>)>>,
    last_match: RefCell<LastMatch>,
    used: Cell<usize>,
    /// Whether the log knows that there is no more room.
    told: Cell<bool>,
}

impl Page {
    /// Gives a variable of the page a value.
    pub(super) fn set(&self, request: &Request, name: &[u8], value: Bytes) -> Result<(), Failed> {
        let name = lower(name);
        let mut variables = self.variables.borrow_mut();
        match variables.get_mut(&name) {
            Some(old) => {
                self.take_room(request, value.len().saturating_sub(old.len()))?;
                self.used.set(self.used.get() - old.len().saturating_sub(value.len()));
                *old = value;
            }
            None => {
                self.take_room(request, ENTRY + name.len() + value.len())?;
                variables.insert(name, value);
            }
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
        let own = self.variables.borrow().get(&name).cloned();
        own.or_else(|| variables::named(request, &name))
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
                // A copy: a short group must not keep a long text.
                let value = Bytes::copy_from_slice(&text[group.0..group.1]);
                self.set(request, name.as_bytes(), value)?;
            }
        }
        *self.last_match.borrow_mut() = LastMatch { subject: text.clone(), captures };
        Ok(true)
    }

    /// Begins a block. Without room for it, what it has is dropped.
    pub(super) fn begin_block(&self, request: &Request, name: &[u8]) -> Result<(), Failed> {
        self.end_block();
        self.take_room(request, ENTRY + name.len())?;
        *self.open.borrow_mut() = Some((name.to_vec(), Vec::new()));
        Ok(())
    }

    /// Adds to the block that was begun last.
    pub(super) fn add_to_block(&self, request: &Request, text: &[u8]) {
        if let Some((_, block)) = self.open.borrow_mut().as_mut()
            && self.take_room(request, text.len()).is_ok()
        {
            block.extend_from_slice(text);
        }
    }

    /// Ends the block that was begun last.
    pub(super) fn end_block(&self) {
        if let Some((name, block)) = self.open.take() {
            // As in nginx the first of a name stays.
            self.blocks.borrow_mut().entry(name).or_insert_with(|| block.into());
        }
    }

    /// The text of a block.
    pub(super) fn block(&self, name: &[u8]) -> Option<Bytes> {
        // A page that was included may have forgotten to end it.
        self.end_block();
        self.blocks.borrow().get(name).cloned()
    }

    /// Whether a text of so many bytes is too long for a command.
    pub(super) fn bound(&self, request: &Request, len: usize) -> Result<(), Failed> {
        if len > ROOM { Err(self.no_room(request)) } else { Ok(()) }
    }

    /// Whoever writes a page without end must not take all memory with it.
    fn take_room(&self, request: &Request, len: usize) -> Result<(), Failed> {
        let used = self.used.get().saturating_add(len);
        if used > ROOM {
            return Err(self.no_room(request));
        }
        self.used.set(used);
        Ok(())
    }

    fn no_room(&self, request: &Request) -> Failed {
        if !self.told.replace(true) {
            request.log(LogLevel::Error, "too long variables and blocks in SSI commands");
        }
        Failed
    }
}

fn lower(name: &[u8]) -> String {
    String::from_utf8_lossy(name).to_ascii_lowercase()
}
