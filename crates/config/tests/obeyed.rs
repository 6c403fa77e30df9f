//! What is read and documented is obeyed: the engine reads every field of the model and has a value for every variable.
//!
//! Read from the sources as text, without comments and tests. A field can hide behind a field of another type that has
//! its name and is read; one of a name of its own cannot.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use wssgate_config::variable::{BUILTINS, Builtin};

/// Who reads the model but does not obey it, or is no part of what runs.
const NO_READERS: [&str; 4] = ["bench", "config", "syntax", "testkit"];

#[test]
fn every_field_of_the_model_is_read_by_the_engine() {
    let read = fields_read(&engine());
    let fields = fields_of_the_model();
    assert!(fields.len() > 200, "the model is elsewhere");
    let unread = fields.iter().filter(|(_, field)| !read.contains(field));
    let unread: Vec<_> = unread.map(|(owner, field)| format!("{owner}.{field}")).collect();
    assert!(unread.is_empty(), "obey these or take them out of the model: {unread:?}");
}

#[test]
fn every_variable_has_a_value_in_the_engine() {
    let engine = engine();
    let documented = |builtin: &Builtin| builtin.always_empty().is_none();
    let wrong = BUILTINS.iter().filter(|(_, builtin, _)| {
        has_value(&engine, &format!("{builtin:?}")) != documented(builtin)
    });
    let wrong: Vec<_> = wrong.map(|(name, ..)| name).collect();
    let help = "give these a value or document them as always empty, whichever they are not";
    assert!(wrong.is_empty(), "{help}: {wrong:?}");
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The text of all that may read the model.
fn engine() -> String {
    let mut text = String::new();
    let crates = fs::read_dir(root().join("crates")).unwrap().map(|entry| entry.unwrap());
    let crates = crates.filter(|entry| !NO_READERS.iter().any(|name| entry.file_name() == **name));
    for reader in crates.map(|entry| entry.path()).chain([root()]) {
        sources(&reader.join("src"), &mut |source| text.push_str(&product(source)));
    }
    assert!(text.len() > 100_000, "the engine is elsewhere");
    text
}

/// Calls `each` with the text of every source file but those of tests.
fn sources(directory: &Path, each: &mut dyn FnMut(&str)) {
    let entries = fs::read_dir(directory).into_iter().flatten();
    for path in entries.map(|entry| entry.unwrap().path()) {
        let stem = path.file_stem().unwrap().to_str().unwrap();
        match stem {
            "tests" | "testing" | "fuzz" => {}
            _ if path.is_dir() => sources(&path, each),
            _ => each(&fs::read_to_string(&path).unwrap()),
        }
    }
}

/// Without comments, and without the tests at the end.
fn product(text: &str) -> String {
    let end = text.find("\nmod tests {").unwrap_or(text.len());
    let lines = text[..end].lines().map(|line| line.split("//").next().unwrap_or_default());
    lines.map(|line| format!("{line}\n")).collect()
}

/// The public fields of every struct that `model` names.
fn fields_of_the_model() -> Vec<(String, String)> {
    let model = fs::read_to_string(root().join("crates/config/src/model.rs")).unwrap();
    let model: BTreeSet<&str> = model.split(|c: char| !c.is_alphanumeric()).collect();
    let mut fields = Vec::new();
    sources(&root().join("crates/config/src"), &mut |source| {
        for (owner, field) in public_fields(&product(source)) {
            if model.contains(&*owner) {
                fields.push((owner, field));
            }
        }
    });
    fields
}

fn public_fields(text: &str) -> Vec<(String, String)> {
    let mut owner = None;
    let mut fields = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("pub struct ") {
            owner = Some(word(rest)).filter(|_| line.ends_with('{'));
        } else if line.starts_with('}') {
            owner = None;
        } else if let (Some(owner), Some(field)) = (owner, line.strip_prefix("    pub ")) {
            fields.push((owner.to_owned(), word(field).to_owned()));
        }
    }
    fields
}

/// The names of all fields that are read: behind a dot, neither assigned nor called. Fields of `self` are no fields of
/// the model, since its types have no methods outside of this crate. A pattern reads as well.
fn fields_read(text: &str) -> BTreeSet<String> {
    let mut read = BTreeSet::new();
    for (at, _) in text.match_indices('.') {
        let name = word(&text[at + 1..]);
        let after = text[at + 1 + name.len()..].trim_start();
        let assigned =
            after.starts_with('=') && !after.starts_with("==") && !after.starts_with("=>");
        let own = text[..at].ends_with("self") && !text[..at].ends_with("_self");
        if !name.is_empty() && !assigned && !own && !after.starts_with('(') {
            read.insert(name.to_owned());
        }
    }
    for (at, _) in text.match_indices(".. }") {
        let start = text[..at].rfind('{').unwrap_or(at);
        let fields = text[start + 1..at].split(',').map(|field| word(field.trim_start()));
        read.extend(fields.filter(|field| !field.is_empty()).map(str::to_owned));
    }
    read
}

/// Whether a variant stands anywhere but in a match arm that gives `None`.
fn has_value(text: &str, variant: &str) -> bool {
    let pattern = format!("::{variant}");
    text.match_indices(&pattern).any(|(at, _)| {
        let rest = &text[at + pattern.len()..];
        let whole = !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_');
        let arm = rest.split_once("=>").map(|(_, arm)| arm.trim_start());
        whole && !arm.is_some_and(|arm| arm.starts_with("None,"))
    })
}

/// The word that a text begins with.
fn word(text: &str) -> &str {
    let len = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..len]
}

#[test]
fn writing_calling_and_testing_is_not_reading() {
    let text = product(
        "fn f(a: &A) {\n    a.written = 1; a.called(); self.own; // a.commented\n    \
         g(a.b.read == 1);\n    let A { taken, renamed: x, .. } = a;\n}\n\
         #[cfg(test)]\nmod tests {\n    a.tested;\n}\n",
    );
    let expected = ["b", "read", "renamed", "taken"].map(String::from);
    assert_eq!(Vec::from_iter(fields_read(&text)), expected);
}

#[test]
fn a_variable_that_is_none_has_no_value() {
    let text = "match b { B::Args => args(), B::Empty | B::Nothing => None, B::Argsx => x(), }";
    let found = ["Args", "Empty", "Nothing", "Arg"].map(|name| has_value(text, name));
    assert_eq!(found, [true, false, false, false]);
}
