//! The zones of `limit_req`, `limit_conn` and `websocket_limit` while a configuration is read.

use std::collections::HashMap;

use wssgate_syntax::{self as syntax, Diagnostic, Span, Word, printable};

use crate::template::Template;

/// Index into [`Http::limit_zones`](crate::model::Http::limit_zones).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LimitZoneId(pub usize);

/// `limit_req_zone`, `limit_conn_zone` or `websocket_limit_zone`.
#[derive(Clone, Debug)]
pub struct LimitZone {
    /// By which a reload finds it again.
    pub name: Box<[u8]>,
    /// What is counted by.
    pub key: Template,
    /// The key as written: a zone keeps it as long as it lives.
    pub key_text: Box<[u8]>,
    /// The memory that its table may take, bytes.
    pub size: u64,
    /// What it counts.
    pub kind: LimitKind,
    /// Where it was declared.
    pub span: Span,
}

/// What a zone counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitKind {
    /// Requests: how many thousandths of one are forgotten in a second.
    Requests {
        /// Thousandths of a request per second; never 0.
        rate: u64,
    },
    /// What is in progress at the same time.
    Connections,
    /// Messages of WebSockets.
    Messages {
        /// Thousandths of a message per second; never 0.
        rate: u64,
    },
    /// Bytes of WebSockets.
    Bytes {
        /// Thousandths of a byte per second; never 0.
        rate: u64,
    },
}

/// What a zone is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ZoneUse {
    Requests,
    Connections,
    WebSockets,
}

/// The zones of a configuration while it is read.
#[derive(Debug, Default)]
pub(crate) struct Zones {
    drafts: Vec<Draft>,
    by_name: HashMap<Box<[u8]>, LimitZoneId>,
}

/// A zone that was mentioned.
#[derive(Debug)]
struct Draft {
    name: Box<[u8]>,
    used_as: ZoneUse,
    mentioned: Span,
    zone: Option<LimitZone>,
    /// Whether a line declares it, well or badly.
    declared: bool,
}

impl Zones {
    /// The number of the zone that `word` names.
    pub(crate) fn mention(
        &mut self,
        name: &[u8],
        used_as: ZoneUse,
        word: &Word,
    ) -> Result<LimitZoneId, Diagnostic> {
        let known = self.by_name.get(name).copied();
        let id = known.unwrap_or_else(|| {
            let id = LimitZoneId(self.drafts.len());
            self.by_name.insert(name.into(), id);
            let draft = Draft {
                name: name.into(),
                used_as,
                mentioned: word.span,
                zone: None,
                declared: false,
            };
            self.drafts.push(draft);
            id
        });
        if self.drafts[id.0].used_as == used_as {
            return Ok(id);
        }
        let name = printable(name);
        let message =
            format!("the shared memory zone \"{name}\" is already declared for a different use");
        Err(Diagnostic::error(message).at(word.span, ""))
    }

    /// Notes that a line declares a zone. It may fail: then it is what has to be mended, not those that use the zone.
    pub(crate) fn begin(&mut self, id: LimitZoneId) {
        self.drafts[id.0].declared = true;
    }

    /// Takes the declaration of a zone.
    pub(crate) fn declare(
        &mut self,
        directive: &syntax::Directive,
        id: LimitZoneId,
        zone: LimitZone,
    ) -> Result<(), Diagnostic> {
        let draft = &mut self.drafts[id.0];
        if let Some(first) = &draft.zone {
            let message = match first.size == zone.size {
                true => format!(
                    "{} \"{}\" is already bound to key \"{}\"",
                    directive.name,
                    printable(&zone.name),
                    printable(&first.key_text)
                ),
                false => format!(
                    "the size {} of shared memory zone \"{}\" conflicts with already declared size {}",
                    zone.size,
                    printable(&zone.name),
                    first.size
                ),
            };
            let problem = Diagnostic::error(message).at(directive.head(), "");
            return Err(problem.at(first.span, "first declared here"));
        }
        draft.zone = Some(zone);
        Ok(())
    }

    /// All zones, and a problem for each that is used and not declared.
    pub(crate) fn finish(self) -> (Vec<LimitZone>, Vec<Diagnostic>) {
        let missing = self.drafts.iter().filter(|draft| !draft.declared).map(|draft| {
            let (line, name) = match draft.used_as {
                ZoneUse::Requests => ("limit_req_zone", printable(&draft.name)),
                ZoneUse::Connections => ("limit_conn_zone", printable(&draft.name)),
                ZoneUse::WebSockets => ("websocket_limit_zone", printable(&draft.name)),
            };
            Diagnostic::error(format!("zero size shared memory zone \"{name}\""))
                .at(draft.mentioned, "not declared anywhere")
                .help(format!("declare it in `http`: `{line} KEY zone={name}:10m …;`"))
        });
        let problems = missing.collect();
        // Without a problem every draft has its zone, so the numbers stay right.
        (self.drafts.into_iter().filter_map(|draft| draft.zone).collect(), problems)
    }
}
