//! No words, however odd, stop the loader from giving an answer.
#![allow(clippy::unwrap_used)]

use std::io;

use wssgate_config::directive::{Arity, Braces, Context, Row};
use wssgate_config::load;
use wssgate_config::load::LoadOptions;
use wssgate_config::registry::rows;

const WORDS: &[&str] = &[
    "on",
    "off",
    "1",
    "0",
    "4k",
    "x",
    "\"\"",
    "$",
    "$host",
    "$nosuch",
    "${",
    "/",
    "~",
    "~*",
    "~(",
    "=",
    "=404",
    "@x",
    "(",
    ")",
    "($host)",
    "!-f",
    "http://",
    "http://127.0.0.1:1/$uri",
    "unix:",
    "[::1]:8",
    "80-",
    "-",
    ".",
    "*",
    "*.x.*",
    "shared:",
    "syslog:",
    "if=",
    "99999999999999999999",
    "default",
    "\\",
    "é",
];

/// Each of `texts` in a block of `context` of its own; blocks that may stand once give one configuration each.
fn around(context: Context, texts: &[String]) -> Vec<String> {
    let http = |text: &str| format!("events {{}} http {{ {text} }}");
    let inner = |text: &String| match context {
        Context::Server => format!("server {{ {text} }}"),
        Context::Location => format!("server {{ location / {{ {text} }} }}"),
        Context::ServerIf => format!("server {{ if ($uri) {{ {text} }} }}"),
        Context::LocationIf => format!("server {{ location / {{ if ($uri) {{ {text} }} }} }}"),
        Context::LimitExcept => {
            format!("server {{ location / {{ limit_except GET {{ {text} }} }} }}")
        }
        _ => format!("upstream u {{ {text} }}"),
    };
    match context {
        Context::Main => texts.to_vec(),
        Context::Events => texts.iter().map(|text| format!("events {{ {text} }}")).collect(),
        Context::Http => texts.iter().map(|text| http(text)).collect(),
        _ => vec![http(&texts.iter().map(inner).collect::<String>())],
    }
}

fn try_load(text: &str) {
    let options = LoadOptions {
        resolve: |_, _| Err(io::ErrorKind::NotFound.into()),
        ..LoadOptions::text(text)
    };
    let report = match load(&options) {
        Ok(loaded) => loaded.report,
        Err(failed) => {
            assert!(failed.report.has_errors(), "{text}");
            failed.report
        }
    };
    assert!(report.iter().all(|problem| !problem.message.is_empty()), "{text}");
}

fn counts(row: &Row) -> Vec<usize> {
    match row.arity {
        Arity::Flag => vec![1],
        Arity::Exactly(count) => vec![count],
        Arity::Between(least, most) => (least..=most).collect(),
        Arity::AtLeast(least) => (least..least + 3).collect(),
    }
}

/// The directive with `count` arguments, once for each odd word.
fn written(row: &Row, count: usize) -> Vec<String> {
    let one = |(index, word): (usize, &&str)| {
        let other = WORDS[(index * 7 + count) % WORDS.len()];
        let args: Vec<_> = (0..count).map(|at| if at % 2 == 0 { *word } else { other }).collect();
        let end = match row.braces {
            Braces::None => ";".to_owned(),
            _ => format!("{{ {word} {other}; {other} {word} x; {word}; }}"),
        };
        format!("{} {} {end}\n", row.name, args.join(" "))
    };
    WORDS.iter().enumerate().map(one).collect()
}

#[test]
fn every_directive_answers_to_every_word() {
    for row in rows().iter().filter(|row| row.is_read()) {
        // One place is enough, since what is read does not depend on it; inner ones are cheaper.
        let places = || Context::ALL.into_iter().rev().filter(|context| row.allowed_in(*context));
        let narrow = places().find(|context| *context as u16 > Context::Http as u16);
        if let Some(context) = narrow.or(places().next()) {
            for count in counts(row) {
                around(context, &written(row, count)).iter().for_each(|text| try_load(text));
            }
        }
    }
}

#[test]
fn files_that_are_not_configurations_are_refused() {
    for text in
        ["", "{", "}", ";", "events", "events {", "http { server { listen", "\0\u{1}", "include x;"]
    {
        let options = LoadOptions::text(text);
        assert!(load(&options).is_err(), "{text:?}");
    }
    assert!(load(&LoadOptions::file("/nonexistent/nginx.conf")).is_err());
}
