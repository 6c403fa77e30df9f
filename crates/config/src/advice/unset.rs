//! Variables that are used before they can have a value.

use std::collections::HashSet;

use wssgate_syntax::{self as syntax, Diagnostic, Span};

use super::{Adviser, Place, passes_on};
use crate::advice_kind::Advice;
use crate::auth_request::AUTH_REQUEST_SET;
use crate::directive::Context;
use crate::error_page::ERROR_PAGE;
use crate::files::TRY_FILES;
use crate::level::{Entry, Level};
use crate::location::{LOCATION, LocationName};
use crate::proxy::PROXY_SET_HEADER;
use crate::proxy::pass::{PROXY_PASS, PassDraft};
use crate::rewrite::condition::Condition;
use crate::rewrite::{IF, RETURN, REWRITE, RewriteFlag, RewriteOp, SET};
use crate::scope::Scope;
use crate::settings::INTERNAL;
use crate::template::{Part, Template, VariableId};
use crate::variable::{Builtin, Variable};

/// Where `error_page` leads: there a request may have an answer already.
#[derive(Default)]
pub(super) struct Pages {
    /// Whole paths, sorted.
    whole: Vec<Box<[u8]>>,
    /// What stands before a variable.
    starts: Vec<Box<[u8]>>,
}

impl Pages {
    pub(super) fn of(http: &Level<'_>) -> Self {
        let mut pages = Self::default();
        pages.collect(http);
        pages.whole.sort();
        pages.whole.dedup();
        pages
    }

    fn collect(&mut self, level: &Level<'_>) {
        for entry in level.entries() {
            if let Some(page) = entry.of(&ERROR_PAGE).and_then(|line| line.value) {
                let is_whole = page.uri.as_text().is_some();
                let start: Box<[u8]> = match page.uri.parts().first() {
                    Some(Part::Text(text)) => text.clone(),
                    _ => Box::default(),
                };
                let path = start.split(|&byte| byte == b'?').next().unwrap_or_default();
                let pages = if is_whole { &mut self.whole } else { &mut self.starts };
                pages.push(path.into());
            }
            entry.level().into_iter().for_each(|level| self.collect(level));
        }
    }

    fn lead_to(&self, location: &LocationName) -> bool {
        let name = &location.name;
        if let Some(regex) = &location.regex {
            return !self.starts.is_empty()
                || self.whole.iter().any(|page| regex.captures(page).is_some());
        }
        // What begins with a text stands behind it, before all else that does.
        let first = self.whole.partition_point(|page| **page < **name);
        self.whole.get(first).is_some_and(|page| page.starts_with(name))
            || self.starts.iter().any(|start| start.starts_with(name) || name.starts_with(start))
    }
}

/// Where variables are used or set.
#[derive(Default)]
struct Uses {
    used: Vec<Use>,
    set: HashSet<VariableId>,
}

#[derive(Clone, Copy)]
struct Use {
    variable: VariableId,
    span: Span,
    /// By a directive that runs before access is decided, not by what is sent to the upstream.
    rewrites: bool,
}

impl Adviser<'_, '_> {
    /// Variables that a server's own directives use, and only its locations set.
    pub(super) fn unset_in_server(&mut self, server: &Scope<'_, '_>) {
        let mut own = Uses::default();
        let mut unset = Vec::new();
        for entry in server.level.entries() {
            let from = own.used.len();
            own.look_at(entry);
            let missing = |one: &&Use| {
                one.rewrites && !own.set.contains(&one.variable) && self.only_set(one.variable)
            };
            unset.extend(own.used[from..].iter().filter(missing).copied());
        }
        if unset.is_empty() {
            return;
        }
        let mut later = Uses::default();
        for line in server.level.lines(&LOCATION) {
            line.level.into_iter().for_each(|level| later.collect_sets(level));
        }
        unset.retain(|one| later.set.contains(&one.variable));
        // One that is set further down gets its value when the server's directives run again.
        let mut all = Uses::default();
        all.look_at_level(server.level);
        for Use { variable, span, .. } in unset {
            if all.set.contains(&variable) {
                continue;
            }
            let name = &self.reading.names.slot_of(variable).name;
            let message = format!("\"${name}\" has no value here yet");
            let problem = Diagnostic::warning(message)
                .at(span, "runs before a location is selected")
                .help("set it on the level of the server, before this line");
            self.tell(server, Advice::UnsetVariable, problem);
        }
    }

    fn only_set(&self, id: VariableId) -> bool {
        let names = &self.reading.names;
        names.slot_of(id).meaning == Variable::Set && !names.is_captured(id)
    }

    /// Variables that a location's directives use before the only line that sets them.
    pub(super) fn set_too_late(&mut self, place: &Place<'_, '_, '_>, pages: &Pages) {
        let level = place.scope.level;
        if !place.is_reached_by_path() || level.has(&INTERNAL) {
            return;
        }
        let (mut own, mut early) = (Uses::default(), Vec::new());
        for entry in level.entries() {
            let from = own.used.len();
            own.look_at(entry);
            let unset = |one: &&Use| one.rewrites && !own.set.contains(&one.variable);
            early.extend(own.used[from..].iter().filter(unset).copied());
        }
        early.retain(|one| {
            let slot = self.reading.names.slot_of(one.variable);
            let set_here = match slot.meaning {
                Variable::Set => own.set.contains(&one.variable),
                Variable::SetLater => set_by_answer(level, one.variable).is_some(),
                _ => false,
            };
            set_here && !self.reading.names.is_captured(one.variable)
        });
        if early.is_empty() || may_run_again(level) || pages.lead_to(place.name) {
            return;
        }
        let mut elsewhere = Uses::default();
        elsewhere.collect_sets_but(server_of(place.scope), Some(level));
        for Use { variable, span, .. } in early {
            if elsewhere.set.contains(&variable) {
                continue;
            }
            let message =
                format!("\"${}\" has no value here yet", self.reading.names.slot_of(variable).name);
            let problem = Diagnostic::warning(message);
            let problem = match set_by_answer(level, variable) {
                Some(set) => {
                    problem.at(span, "runs before `auth_request`").at(set, "it is set here").help(
                        "it can be used in `proxy_set_header` and `add_header`; to refuse a \
                         request, let the location that `auth_request` names return 403",
                    )
                }
                None => problem
                    .at(span, "runs before the line that sets it")
                    .help("set it before this line"),
            };
            self.tell(place.scope, Advice::UnsetVariable, problem);
        }
    }

    /// Facts of an answer that are used before anybody was asked.
    pub(super) fn unset_in_location(&mut self, place: &Place<'_, '_, '_>, pages: &Pages) {
        let level = place.scope.level;
        if !place.is_reached_by_path() || level.has(&INTERNAL) {
            return;
        }
        let mut uses = Uses::default();
        uses.look_at_level(level);
        uses.used.retain(|one| is_of_answer(&self.reading.names.slot_of(one.variable).meaning));
        // Last what looks at the whole configuration, and has the regular expression of the location compiled.
        if uses.used.is_empty() || pages.lead_to(place.name) {
            return;
        }
        // A response to a request of another location may lead here by its `X-Accel-Redirect`.
        if &*place.name.name != b"/" && is_proxied_elsewhere(place.scope) {
            return;
        }
        for Use { variable, span, .. } in uses.used {
            let slot = self.reading.names.slot_of(variable);
            let message = format!("\"${}\" has no value before there is a response", slot.name);
            let help = match &slot.meaning {
                Variable::UpstreamHeader(_) => {
                    "a header of the response to `auth_request` is available through \
                     `auth_request_set`"
                }
                _ => "it can be used in `add_header` and `log_format`",
            };
            let problem = Diagnostic::warning(message).at(span, "always empty here").help(help);
            self.tell(place.scope, Advice::UnsetVariable, problem);
        }
    }
}

/// Where `auth_request_set` gives a variable its value.
fn set_by_answer(level: &Level<'_>, variable: VariableId) -> Option<Span> {
    let mut lines = level.lines(&AUTH_REQUEST_SET);
    let line = lines.find(|line| line.value.is_some_and(|(set, _)| *set == variable))?;
    Some(line.directive.head())
}

/// Whether a server passes on requests of other locations than this one.
fn is_proxied_elsewhere(location: &Scope<'_, '_>) -> bool {
    has_other_proxied(server_of(location), location.level)
}

/// The level of the server that a location is in.
fn server_of<'s, 't>(location: &'s Scope<'s, 't>) -> &'s Level<'t> {
    let mut server = location;
    while let Some(outer) = server.outer.filter(|_| server.level.context == Context::Location) {
        server = outer;
    }
    server.level
}

/// Whether a request may run the directives of a level more than once.
fn may_run_again(level: &Level<'_>) -> bool {
    let blocks = level.lines(&IF).filter_map(|line| line.level);
    level.has(&TRY_FILES)
        || blocks.chain([level]).any(|level| {
            level.lines(&REWRITE).any(|line| match line.value {
                Some(RewriteOp::Rewrite(rewrite)) => {
                    matches!(rewrite.flag, RewriteFlag::None | RewriteFlag::Last)
                }
                _ => true,
            })
        })
}

fn has_other_proxied(level: &Level<'_>, this: &Level<'_>) -> bool {
    level.lines(&LOCATION).filter_map(|line| line.level).any(|inner| {
        (!std::ptr::eq(inner, this) && passes_on(inner)) || has_other_proxied(inner, this)
    })
}

/// Whether a variable tells of a response.
fn is_of_answer(meaning: &Variable) -> bool {
    use Builtin as B;
    match meaning {
        Variable::UpstreamHeader(_)
        | Variable::UpstreamTrailer(_)
        | Variable::UpstreamCookie(_)
        | Variable::SentHeader(_)
        | Variable::SentTrailer(_) => true,
        Variable::Builtin(builtin) => matches!(
            builtin,
            B::UpstreamAddr
                | B::UpstreamBytesReceived
                | B::UpstreamBytesSent
                | B::UpstreamConnectTime
                | B::UpstreamHeaderTime
                | B::UpstreamResponseLength
                | B::UpstreamResponseTime
                | B::UpstreamStatus
        ),
        _ => false,
    }
}

impl Uses {
    /// What one directive of the phases before the response uses and sets, with those in its `if` block.
    fn look_at(&mut self, entry: &Entry<'_>) {
        if let Some(line) = [&SET, &RETURN, &REWRITE].iter().find_map(|row| entry.of(row)) {
            let written = line.directive;
            match line.value {
                Some(RewriteOp::Set { variable, value }) => {
                    // Who adds to a variable takes nothing for its beginning.
                    let others = uses(value, written.head(), true);
                    self.used.extend(others.filter(|one| one.variable != *variable));
                    self.set.insert(*variable);
                }
                Some(RewriteOp::Return(answer)) => {
                    answer.text.iter().for_each(|text| self.template(text, written));
                }
                Some(RewriteOp::Rewrite(rewrite)) => {
                    self.template(&rewrite.replacement, written);
                    rewrite.args.iter().for_each(|args| self.template(args, written));
                }
                _ => {}
            }
        } else if let Some(line) = entry.of(&IF) {
            let span = line.directive.head();
            match line.value {
                Some(Condition::True(variable) | Condition::Matches { variable, .. }) => {
                    self.used.push(Use { variable: *variable, span, rewrites: true });
                }
                Some(Condition::Equal { variable, value, .. }) => {
                    self.used.push(Use { variable: *variable, span, rewrites: true });
                    self.template(value, line.directive);
                }
                Some(Condition::File { path, .. }) => self.template(path, line.directive),
                None => {}
            }
            line.level.into_iter().for_each(|level| self.look_at_level(level));
        } else if let Some(line) = entry.of(&PROXY_SET_HEADER) {
            let value = line.value.map(|(_, value)| value);
            value.into_iter().for_each(|value| self.sent(value, line.directive));
        } else if let Some(line) = entry.of(&PROXY_PASS)
            && let Some(PassDraft::Variable(url)) = line.value
        {
            self.sent(url, line.directive);
        }
    }

    fn template(&mut self, template: &Template, written: &syntax::Directive) {
        self.used.extend(uses(template, written.head(), true));
    }

    fn sent(&mut self, template: &Template, written: &syntax::Directive) {
        self.used.extend(uses(template, written.head(), false));
    }

    /// What the directives of a level use and set, with those in its `if` blocks.
    fn look_at_level(&mut self, level: &Level<'_>) {
        level.entries().iter().for_each(|entry| self.look_at(entry));
    }

    /// The same, in locations inside it too.
    fn collect_sets(&mut self, level: &Level<'_>) {
        self.collect_sets_but(level, None);
    }

    /// The same but for those of one level.
    fn collect_sets_but(&mut self, level: &Level<'_>, but: Option<&Level<'_>>) {
        if !but.is_some_and(|but| std::ptr::eq(level, but)) {
            self.look_at_level(level);
        }
        let inner = level.lines(&LOCATION).filter_map(|line| line.level);
        inner.for_each(|level| self.collect_sets_but(level, but));
    }
}

fn uses(template: &Template, span: Span, rewrites: bool) -> impl Iterator<Item = Use> {
    template.parts().iter().filter_map(move |part| match part {
        Part::Variable(variable) => Some(Use { variable: *variable, span, rewrites }),
        _ => None,
    })
}
