//! What templates may say, as far as that is certain.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use crate::http::Http;
use crate::location::Location;
use crate::rewrite::RewriteOp;
use crate::server::Server;
use crate::template::{Part, Template, VariableId};
use crate::variable::{MapId, MapKind, Variable};

/// How many values of a variable are looked at. Whoever has more is told of these.
const MAX_VALUES: usize = 64;

/// How many variables may say each what the next one says.
const MAX_DEPTH: u8 = 3;

/// What a template may say, and the map that it is from.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Text {
    pub(super) bytes: Vec<u8>,
    pub(super) map: Option<MapId>,
}

impl Text {
    fn then(&self, more: &Self) -> Self {
        let bytes = [&self.bytes[..], &more.bytes].concat();
        Self { bytes, map: more.map.or(self.map) }
    }
}

/// The values of the maps of a configuration, each looked at once.
pub(super) struct Maps<'h> {
    pub(super) http: &'h Http,
    seen: RefCell<HashMap<MapId, Rc<[Text]>>>,
}

impl<'h> Maps<'h> {
    pub(super) fn of(http: &'h Http) -> Self {
        Self { http, seen: RefCell::default() }
    }

    fn texts(&self, id: MapId, depth: u8) -> Rc<[Text]> {
        if let Some(texts) = self.seen.borrow().get(&id) {
            return Rc::clone(texts);
        }
        let mut found = Vec::new();
        let mut add = |template: &Template| {
            let texts = whole(template, |variable| self.of_variable(variable, depth));
            found.extend(texts.into_iter().map(|text| Text { map: text.map.or(Some(id)), ..text }));
        };
        match &self.http.maps[id.0].kind {
            MapKind::Map { table, default, .. } => table.values().chain([default]).for_each(add),
            MapKind::SplitClients { parts, .. } => parts.iter().for_each(|(_, part)| add(part)),
            MapKind::Geo { networks, default, .. } => {
                let networks = networks.iter().map(|(_, _, value)| value);
                networks.chain([default]).for_each(|text| add(&Template::text(text.clone())));
            }
        }
        found.sort();
        found.dedup();
        found.truncate(MAX_VALUES);
        let found: Rc<[Text]> = found.into();
        self.seen.borrow_mut().insert(id, Rc::clone(&found));
        found
    }

    /// The values of a variable that is one of a map.
    fn of_variable(&self, variable: VariableId, depth: u8) -> Vec<Text> {
        match self.http.variables.slot(variable).meaning {
            Variable::Map(id) if depth > 0 => self.texts(id, depth - 1).to_vec(),
            _ => Vec::new(),
        }
    }
}

/// Where a request is when a location passes it on.
pub(super) struct Place<'h> {
    pub(super) maps: &'h Maps<'h>,
    pub(super) server: &'h Server,
    pub(super) location: &'h Location,
}

impl Place<'_> {
    /// What a template may begin with, and the parts that follow.
    pub(super) fn beginnings<'p>(&self, template: &'p Template) -> (Vec<Text>, &'p [Part]) {
        join(template, |variable| self.values(variable, MAX_DEPTH))
    }

    /// What a variable may be here: a value of its map, or what it may have been `set` to.
    fn values(&self, variable: VariableId, depth: u8) -> Vec<Text> {
        let mut values = self.maps.of_variable(variable, depth);
        if depth > 0 {
            for template in self.set(variable) {
                values.extend(whole(template, |variable| self.values(variable, depth - 1)));
            }
        }
        values.truncate(MAX_VALUES);
        values
    }

    fn set(&self, variable: VariableId) -> Vec<&Template> {
        let mut values = Vec::new();
        let always = collect_set(variable, &self.location.rewrite, &mut values);
        if !always {
            collect_set(variable, &self.server.rewrite, &mut values);
        }
        values
    }
}

/// Collects what `set` gives to a variable; whether it does so in any case.
fn collect_set<'o>(
    variable: VariableId,
    ops: &'o [RewriteOp],
    values: &mut Vec<&'o Template>,
) -> bool {
    let mut always = false;
    for op in ops {
        match op {
            RewriteOp::Set { variable: set, value } if *set == variable => {
                values.push(value);
                always = true;
            }
            RewriteOp::If { ops, .. } => {
                collect_set(variable, ops, values);
            }
            _ => {}
        }
    }
    always
}

/// What a template may say; nothing if a part of it is not known.
fn whole(template: &Template, values: impl Fn(VariableId) -> Vec<Text>) -> Vec<Text> {
    match join(template, values) {
        (texts, []) => texts,
        _ => Vec::new(),
    }
}

/// What the first parts of a template may say, and the parts that follow.
fn join(template: &Template, values: impl Fn(VariableId) -> Vec<Text>) -> (Vec<Text>, &[Part]) {
    let (mut texts, mut rest) = (vec![Text::default()], template.parts());
    while let Some((part, after)) = rest.split_first() {
        let values = match part {
            Part::Text(text) => vec![Text { bytes: text.to_vec(), map: None }],
            Part::Variable(variable) => values(*variable),
            Part::Capture(_) => Vec::new(),
        };
        // Of two variables with several values each, not all pairs need occur.
        if values.is_empty() || (texts.len() > 1 && values.len() > 1) {
            break;
        }
        let longer = |text: Text| values.iter().map(move |value| text.then(value));
        texts = texts.into_iter().flat_map(longer).collect();
        rest = after;
    }
    (texts, rest)
}
