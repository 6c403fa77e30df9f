//! What is said about wrong configurations, word for word: text in, text out.
//!
//! The tables are in `tests/diagnostics/`. A case is a paragraph: `#`, in brackets where its lines stand, and a title;
//! the lines, each behind `> `; then everything that is said about them. A place is given by what stands there. With
//! `UPDATE_DIAGNOSTICS=1` the answers are written anew, to be read before they are committed.
#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::{fs, io};

use wssgate_config::load;
use wssgate_config::load::LoadOptions;
use wssgate_syntax::{Diagnostic, Report, Severity, SourceMap, Span};

fn resolve(name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    match name {
        "localhost" | "app" => Ok(vec![SocketAddr::from(([127, 0, 0, 1], port))]),
        _ => Err(io::Error::other("no such host")),
    }
}

/// One paragraph of a table.
struct Case {
    head: String,
    lines: Vec<String>,
    expected: String,
}

fn tables() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/diagnostics");
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|e| e == "txt")).collect();
    paths.sort();
    paths
}

fn cases(text: &str) -> Vec<Case> {
    let paragraphs = text.split("\n\n").map(str::trim_end).filter(|text| !text.is_empty());
    let case = |paragraph: &str| {
        let mut case = Case { head: String::new(), lines: Vec::new(), expected: String::new() };
        for line in paragraph.trim_start().lines() {
            match line.split_at_checked(2) {
                Some(("# ", _)) => case.head = line.into(),
                Some(("> ", rest)) => case.lines.push(rest.into()),
                _ => writeln!(case.expected, "{line}").unwrap(),
            }
        }
        assert!(case.head.starts_with("# [") && !case.lines.is_empty(), "{paragraph}");
        case
    };
    paragraphs.map(case).collect()
}

/// The whole configuration of a case.
fn whole(case: &Case) -> String {
    let lines = case.lines.join("\n");
    let place = &case.head["# [".len()..case.head.find(']').unwrap()];
    match place {
        "file" => format!("{lines}\n"),
        "main" => format!("events {{ }}\n{lines}\n"),
        "http" => format!("events {{ }}\nhttp {{\n{lines}\n}}\n"),
        "upstream" => format!("events {{ }}\nhttp {{\nupstream u {{\n{lines}\n}}\n}}\n"),
        "server" => format!("events {{ }}\nhttp {{\nserver {{\n{lines}\n}}\n}}\n"),
        "location" => {
            format!("events {{ }}\nhttp {{\nserver {{\nlocation / {{\n{lines}\n}}\n}}\n}}\n")
        }
        _ => panic!("{place} is no place"),
    }
}

/// Everything that is said about a text.
fn said(text: &str) -> String {
    let options = LoadOptions { resolve, ..LoadOptions::text(text) };
    let (report, sources) = match load(&options) {
        Ok(loaded) => (loaded.report, loaded.sources),
        Err(failed) => (failed.report, failed.sources),
    };
    written(&report, &sources)
}

fn written(report: &Report, sources: &SourceMap) -> String {
    let mut out = String::new();
    for Diagnostic { severity, message, labels, notes, help, idle: _ } in report.iter() {
        let word = match severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        };
        writeln!(out, "{word}: {message}").unwrap();
        for (span, label) in labels {
            let colon = if label.is_empty() { "" } else { ": " };
            writeln!(out, "  `{}`{colon}{label}", place(sources, *span)).unwrap();
        }
        for note in notes {
            writeln!(out, "  = note: {note}").unwrap();
        }
        if let Some(help) = help {
            writeln!(out, "  = help: {help}").unwrap();
        }
    }
    out
}

/// What stands at a place, on one line.
fn place(sources: &SourceMap, span: Span) -> String {
    let text = String::from_utf8_lossy(sources.text(span)).into_owned();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn what_is_said_is_what_the_tables_say() {
    let update = std::env::var_os("UPDATE_DIAGNOSTICS").is_some();
    let mut wrong = Vec::new();
    for path in tables() {
        let text = fs::read_to_string(&path).unwrap();
        let mut updated = String::new();
        for case in cases(&text) {
            let said = said(&whole(&case));
            let lines: String = case.lines.iter().map(|line| format!("> {line}\n")).collect();
            write!(updated, "{}\n{lines}{said}\n", case.head).unwrap();
            if said != case.expected {
                wrong.push(format!("{}\nexpected:\n{}said:\n{said}", case.head, case.expected));
            }
        }
        if update {
            fs::write(&path, updated.trim_end().to_owned() + "\n").unwrap();
        }
    }
    assert!(update || wrong.is_empty(), "{} cases:\n\n{}", wrong.len(), wrong.join("\n"));
}

/// Those about which nothing is said are there to keep warnings from being wrong.
#[test]
fn tables_have_many_cases_and_each_has_a_title_of_its_own() {
    let all: Vec<_> =
        tables().iter().flat_map(|path| cases(&fs::read_to_string(path).unwrap())).collect();
    let wrong = all.iter().filter(|case| !case.expected.is_empty()).count();
    assert!(wrong >= 150, "{wrong} wrong configurations");
    let mut heads: Vec<_> = all.iter().map(|case| &case.head).collect();
    let count = heads.len();
    heads.sort();
    heads.dedup();
    assert_eq!(heads.len(), count, "titles stand for one case");
}
