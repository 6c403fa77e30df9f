//! What the state looks like on a screen of some size.

use std::time::Instant;

use serde_json::Value;
use unicode_width::UnicodeWidthStr;
use wssgate_syntax::printable;

use super::columns::{amount, fit, layout};
use super::keys::HELP;
use super::screen::{Line, Style};
use super::state::{MAX_ROWS, Mode, SORTS, State};
use crate::ctl_command::show::{self, seconds, size, text};

/// Up to how many workers are told one by one.
const WORKERS: usize = 8;

/// From which height on the head of the screen may be long.
const TALL: usize = 13;

/// For how long an answer may fail to come before that is told.
const SILENCE_S: u64 = 3;

/// One line for each row of the screen, none wider than it.
pub(super) fn lines(state: &mut State, (width, height): (usize, usize), now: Instant) -> Vec<Line> {
    let mut lines = match (&state.mode, state.details.is_some()) {
        (Mode::Help, _) => help(),
        (_, true) => details(state, height, now),
        (_, false) => overview(state, width, height, now),
    };
    lines.truncate(height - 1);
    lines.resize(height - 1, Line::new());
    lines.push(footer(state, width, now));
    lines.into_iter().map(|line| cut(line, width)).collect()
}

fn overview(state: &mut State, width: usize, height: usize, now: Instant) -> Vec<Line> {
    let mut lines = head(state, height >= TALL, now);
    lines.push(order(state));
    state.set_room(height.saturating_sub(lines.len() + 2));
    let layout = layout(state.rows(), state.sort, width);
    let is_sorted = |column: &super::columns::Column| column.sort == state.sort;
    let mut titles = Line::new();
    for (at, (column, width)) in layout.iter().enumerate() {
        let style = if is_sorted(column) { Style::SortedHead } else { Style::Head };
        let gap = if at == 0 { "" } else { " " };
        titles.push((Style::Head, gap.to_owned()));
        titles.push((style, fit(column.head, *width, column.is_number)));
    }
    let taken: usize = titles.iter().map(|(_, text)| text.width()).sum();
    titles.push((Style::Head, " ".repeat(width.saturating_sub(taken))));
    lines.push(titles);
    for (at, row) in state.rows().iter().enumerate().skip(state.first).take(state.room) {
        let cells =
            layout.iter().map(|(column, width)| fit(&(column.cell)(row), *width, column.is_number));
        let line = cells.collect::<Vec<_>>().join(" ");
        let style = match () {
            () if at == state.cursor => Style::Selected,
            () if state.trouble.is_some() || row["state"] == "closing" => Style::Faint,
            () => Style::Plain,
        };
        let line = if at == state.cursor { fit(&line, width, false) } else { line };
        lines.push(vec![(style, line)]);
    }
    lines
}

/// What the server does as a whole.
fn head(state: &State, is_long: bool, now: Instant) -> Vec<Line> {
    let Some(found) = &state.found else {
        let what = if state.trouble.is_some() {
            "wssgate"
        } else {
            "wssgate: waiting for the first answer"
        };
        let mut lines = vec![vec![(Style::Strong, what.to_owned())]];
        lines.extend(silence(state, now).map(|text| vec![(Style::Bad, text)]));
        return lines;
    };
    let status = &found.status;
    let phase = text(&status["phase"]);
    let looks = if phase == "serving" { Style::Good } else { Style::Bad };
    let first = vec![
        (Style::Strong, format!("wssgate {}  ", text(&status["version"]))),
        (looks, phase),
        (Style::Label, "  up ".to_owned()),
        (Style::Plain, seconds(&status["uptime"])),
        (Style::Label, "  generation ".to_owned()),
        (Style::Plain, text(&status["generation"])),
        (Style::Label, "  pid ".to_owned()),
        (Style::Plain, text(&status["pid"])),
    ];
    let rate = |of: fn(&super::state::Rates) -> f64| amount(state.rates.as_ref().map(of), 1000.0);
    let second = vec![
        (Style::Label, "Tunnels ".to_owned()),
        (Style::Strong, text(&status["tunnels"])),
        (
            Style::Plain,
            format!("  {} opened/s  {} ended/s", rate(|all| all.tunnels), rate(|all| all.ended)),
        ),
        (Style::Label, "   Connections ".to_owned()),
        (Style::Plain, text(&status["connections"])),
        (Style::Plain, format!("  {} opened/s", rate(|all| all.connections))),
    ];
    let mut lines = vec![first, second];
    if is_long {
        for (name, of) in [
            ("Clients sent   ", (|all| all.client) as fn(&super::state::Rates) -> (f64, f64)),
            ("Upstreams sent ", |all| all.upstream),
        ] {
            let (messages, bytes) = state.rates.as_ref().map(of).unzip();
            let bytes = bytes.map_or_else(|| "-".to_owned(), |bytes| size(bytes as u64));
            lines.push(vec![
                (Style::Label, name.to_owned()),
                (
                    Style::Plain,
                    format!("{:>6} messages/s {:>10}/s", amount(messages, 1000.0), bytes),
                ),
            ]);
        }
        lines.push(workers(status));
        lines.push(upstreams(&found.upstreams));
    }
    if let Some(text) = silence(state, now) {
        // In place of a line that is out of date, so that the table does not jump.
        if let Some(line) = lines.get_mut(1) {
            *line = vec![(Style::Bad, text)];
        }
    }
    lines
}

/// Since when there is no answer, if that is long.
fn silence(state: &State, now: Instant) -> Option<String> {
    let since = state.answered.map(|at| now.saturating_duration_since(at).as_secs());
    match (&state.trouble, since) {
        (Some(why), Some(since)) => {
            Some(format!("not answering for {since}s: {}", printable(why.as_bytes())))
        }
        (Some(why), None) => Some(format!("not answering: {}", printable(why.as_bytes()))),
        (None, Some(since)) if state.refused.is_none() && since > SILENCE_S + state.interval_s => {
            Some(format!("no answer for {since}s"))
        }
        (None, _) => None,
    }
}

/// How evenly tunnels are spread.
fn workers(status: &Value) -> Line {
    let workers = status["by_worker"].as_array().map_or(&[][..], Vec::as_slice);
    let tunnels: Vec<_> = workers.iter().filter_map(|worker| worker["tunnels"].as_u64()).collect();
    let shown = match (tunnels.iter().min(), tunnels.iter().max()) {
        (Some(_), Some(_)) if tunnels.len() <= WORKERS => {
            tunnels.iter().map(u64::to_string).collect::<Vec<_>>().join(" + ") + " tunnels"
        }
        (Some(least), Some(most)) => format!("{least} to {most} tunnels each"),
        _ => "-".to_owned(),
    };
    vec![
        (Style::Label, "Workers        ".to_owned()),
        (Style::Plain, format!("{}: {shown}", text(&status["workers"]))),
    ]
}

fn upstreams(answer: &Value) -> Line {
    let upstreams = answer["upstreams"].as_array().map_or(&[][..], Vec::as_slice);
    let (mut up, mut down) = (0, Vec::new());
    for upstream in upstreams {
        for peer in upstream["peers"].as_array().map_or(&[][..], Vec::as_slice) {
            match peer["state"].as_str() {
                Some("up") => up += 1,
                Some("down") => {
                    down.push(format!("{} {}", text(&upstream["name"]), text(&peer["address"])))
                }
                _ => {}
            }
        }
    }
    let mut line =
        vec![(Style::Label, "Upstreams      ".to_owned()), (Style::Plain, format!("{up} up"))];
    if !down.is_empty() {
        line.push((Style::Bad, format!("  {} down: {}", down.len(), down.join(", "))));
    }
    line
}

/// What the table shows, and in which order.
fn order(state: &State) -> Line {
    let name = SORTS.iter().find(|(key, _)| *key == state.sort).map_or("", |(_, name)| *name);
    let end = match (state.sort, state.ascends) {
        ("id", true) => "",
        (_, false) => ", greatest first",
        (_, true) => ", least first",
    };
    let place = match state.rows().len() {
        0 => "0".to_owned(),
        rows => format!("{}-{}", state.first + 1, (state.first + state.room).min(rows)),
    };
    let mut line = vec![(Style::Plain, format!("{place} of {}", state.matched()))];
    if !state.filter.is_empty() {
        line.push((Style::Label, " with ".to_owned()));
        line.push((Style::Strong, printable(state.filter.as_bytes())));
    }
    line.push((Style::Label, " by ".to_owned()));
    line.push((Style::Plain, format!("{name}{end}")));
    if let Some(refused) = &state.refused {
        line = vec![(Style::Bad, printable(refused.as_bytes()))];
    }
    line
}

/// The last row: what is typed or asked, what was done, or keys.
fn footer(state: &State, width: usize, now: Instant) -> Line {
    let typed = |prompt: &str, typed: &str| {
        let typed = printable(typed.as_bytes());
        // Its end is what is being typed.
        let room = width.saturating_sub(prompt.width() + 1);
        let mut shown = typed.as_str();
        while shown.width() > room {
            shown = shown.char_indices().nth(1).map_or("", |(at, _)| &shown[at..]);
        }
        vec![
            (Style::Label, prompt.to_owned()),
            (Style::Plain, shown.to_owned()),
            (Style::Selected, " ".to_owned()),
        ]
    };
    let message = state.message(now).map(|text| vec![(Style::Strong, printable(text.as_bytes()))]);
    match (&state.mode, message) {
        (Mode::Confirm { question, .. }, _) => vec![(Style::Bad, printable(question.as_bytes()))],
        (Mode::Filter(_) | Mode::Words { .. }, Some(message)) => message,
        (Mode::Filter(text), _) => typed("Filter: ", text),
        (Mode::Words { id, whose, text }, _) => {
            let prompt = match width {
                ..60 => format!("Close {id}, code: "),
                _ => format!("Close {id}{whose}, code and reason (or nothing): "),
            };
            typed(&printable(prompt.as_bytes()), text)
        }
        (Mode::Table, Some(message)) => message,
        (Mode::Table, None) if state.details.is_some() => {
            keys(&[("Esc", "back"), ("k", "close"), ("Up Down", "scroll")])
        }
        (Mode::Table, None) if is_at_limit(state) => {
            vec![(Style::Faint, format!("only the first {MAX_ROWS} are shown; / filters"))]
        }
        (Mode::Table, None) => keys(&[
            ("q", "quit"),
            ("?", "help"),
            ("/", "filter"),
            ("Enter", "details"),
            ("k", "close"),
            ("c r a i m b t n", "sort"),
        ]),
        (Mode::Help, _) => keys(&[("any key", "back")]),
    }
}

fn is_at_limit(state: &State) -> bool {
    state.rows().len() >= MAX_ROWS
        && state.cursor + 1 == state.rows().len()
        && state.matched() > MAX_ROWS as u64
}

fn keys(keys: &[(&str, &str)]) -> Line {
    let parts = keys.iter().flat_map(|(key, what)| {
        [(Style::Strong, (*key).to_owned()), (Style::Plain, format!(" {what}  "))]
    });
    parts.collect()
}

fn help() -> Vec<Line> {
    let width = HELP.iter().map(|(key, _)| key.len()).max().unwrap_or(0);
    let mut lines: Vec<Line> = HELP
        .iter()
        .map(|(key, what)| {
            vec![(Style::Strong, fit(key, width + 2, false)), (Style::Plain, (*what).to_owned())]
        })
        .collect();
    for text in [
        "",
        "B/s and MSG/s: now, both ways together; AVG B/s: since it began",
        "S: c is closing, o is no WebSocket; RTT: of the client's last pong",
        "Filters are those of `wssgate ctl list`.",
    ] {
        lines.push(vec![(Style::Plain, text.to_owned())]);
    }
    lines
}

/// Everything that is known of one.
fn details(state: &mut State, height: usize, now: Instant) -> Vec<Line> {
    let Some((id, first)) = &mut state.details else { return Vec::new() };
    let found = state.found.as_ref();
    let shown = found.and_then(|found| found.details.as_ref());
    let shown = shown.filter(|shown| shown["id"].as_str() == Some(id));
    // Only listings tell of current rates.
    let listed = state.found.iter().flat_map(|found| found.tunnels["tunnels"].as_array()).flatten();
    let listed = listed.into_iter().find(|row| row["id"].as_str() == Some(id));
    let text = shown.map(|shown| {
        let mut shown = shown.clone();
        if let (Some(members), Some(row)) = (shown.as_object_mut(), listed) {
            members.insert("current".to_owned(), row["current"].clone());
        }
        show::tunnel(&shown)
    });
    let mut title = vec![(Style::Strong, format!("Tunnel {id}"))];
    let lines: Vec<Line> = match text {
        Some(text) => text
            .lines()
            .map(|line| {
                let (name, value) = line.split_once(' ').unwrap_or((line, ""));
                vec![(Style::Label, name.to_owned()), (Style::Plain, format!(" {value}"))]
            })
            .collect(),
        None if found.is_some_and(|found| found.details_of.as_ref() == Some(id)) => {
            title.push((Style::Bad, "  has ended".to_owned()));
            Vec::new()
        }
        None => Vec::new(),
    };
    state.room = height.saturating_sub(3).max(1);
    *first = (*first).min(lines.len().saturating_sub(state.room));
    let first = *first;
    title.extend(silence(state, now).map(|text| (Style::Bad, format!("  {text}"))));
    [title, Line::new()].into_iter().chain(lines.into_iter().skip(first)).collect()
}

/// A line that is no wider than this.
fn cut(line: Line, width: usize) -> Line {
    let mut left = width;
    let mut out = Line::new();
    for (style, text) in line {
        let taken = text.width();
        if taken > left {
            if left > 0 {
                out.push((style, fit(&text, left, false)));
            }
            return out;
        }
        left -= taken;
        if !text.is_empty() {
            out.push((style, text));
        }
    }
    out
}
