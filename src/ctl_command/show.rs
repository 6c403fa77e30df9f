//! Answers as people read them.

use std::fmt::Write as _;

use serde_json::Value;
use wssgate_syntax::printable;

/// One line for each tunnel.
pub(super) fn tunnels(answer: &Value) -> String {
    let head = [
        "ID",
        "STATE",
        "AGE",
        "IDLE",
        "CLIENT",
        "USER",
        "SERVER",
        "LOCATION",
        "PEER",
        "FROM CLIENT",
        "FROM UPSTREAM",
        "RTT",
    ];
    // Only if it was asked for.
    let has_current = array(&answer["tunnels"]).iter().any(|tunnel| !tunnel["current"].is_null());
    let head: Vec<_> = head.into_iter().chain(has_current.then_some("CURRENT")).collect();
    let rows = array(&answer["tunnels"]).iter().map(|tunnel| {
        let passed = |side: &Value| {
            let bytes = size(side["bytes"].as_u64().unwrap_or(0));
            match side["messages"].as_u64() {
                Some(messages) => format!("{messages} in {bytes}"),
                None => bytes,
            }
        };
        let (client, upstream) = (&tunnel["from_client"], &tunnel["from_upstream"]);
        let current = tunnel["current"]["bytes"].as_u64().map(|bytes| format!("{}/s", size(bytes)));
        let current = current.unwrap_or_else(|| "-".to_owned());
        let cells = [
            text(&tunnel["id"]),
            text(&tunnel["state"]),
            seconds(&tunnel["age"]),
            seconds(&tunnel["idle"]),
            text(&tunnel["client"]),
            text(&tunnel["user"]),
            text(&tunnel["server"]),
            text(&tunnel["location"]),
            text(&tunnel["peer"]),
            passed(client),
            passed(upstream),
            seconds(&client["rtt"]),
        ];
        cells.into_iter().chain(has_current.then_some(current)).collect()
    });
    table(&head, rows)
}

/// Everything that is known of one.
pub(super) fn tunnel(answer: &Value) -> String {
    pairs(answer)
}

/// The members of an object, a line for each; those of objects within behind their names. Each object of a list has a
/// line of its own.
pub(super) fn pairs(answer: &Value) -> String {
    let line = |cells: &Vec<String>| cells.join("=");
    let rows = members(answer).into_iter().flat_map(|(name, value)| match value {
        Value::Array(items) if items.iter().all(Value::is_object) => {
            let items = items.iter().enumerate().map(|(number, item)| {
                let words: Vec<_> = told(members(item)).iter().map(line).collect();
                vec![format!("{name}.{number}"), words.join(" ")]
            });
            items.collect()
        }
        _ => told(vec![(name, value)]),
    });
    table(&[], rows.collect::<Vec<_>>())
}

/// What an object and the objects within have, but for what is null, with names such as `totals.ended`.
fn members(object: &Value) -> Vec<(String, &Value)> {
    fn add<'v>(all: &mut Vec<(String, &'v Value)>, name: &str, value: &'v Value) {
        match value {
            Value::Object(members) => {
                for (member, value) in members {
                    let name =
                        if name.is_empty() { member.clone() } else { format!("{name}.{member}") };
                    add(all, &name, value);
                }
            }
            Value::Null => {}
            value => all.push((name.to_owned(), value)),
        }
    }
    let mut all = Vec::new();
    add(&mut all, "", object);
    all
}

/// Names and values as words.
fn told(members: Vec<(String, &Value)>) -> Vec<Vec<String>> {
    let told = members.into_iter().map(|(name, value)| {
        let is_time = ["age", "idle", "rtt", "blocked", "uptime"];
        let is_time = is_time.contains(&name.rsplit('.').next().unwrap_or_default());
        let shown = if is_time { seconds(value) } else { text(value) };
        vec![name, shown]
    });
    told.collect()
}

/// What a reload came to.
pub(super) fn reloaded(answer: &Value) -> String {
    let mut out = String::new();
    for message in array(&answer["messages"]) {
        // Writing to a string does not fail.
        let _ = writeln!(out, "[{}] {}", text(&message["level"]), text(&message["message"]));
    }
    out += &match answer["generation"].as_u64() {
        Some(number) => format!("reconfigured, generation {number}\n"),
        None => "the configuration was refused, the previous one stays in effect\n".to_owned(),
    };
    out
}

/// The level that holds.
pub(super) fn log_level(answer: &Value) -> String {
    match (answer["level"].as_str(), answer["configured"].as_str()) {
        (Some(level), _) => format!("{level} until the next reload\n"),
        (None, Some(configured)) => format!("{configured}, as configured\n"),
        (None, None) => "there is no error log\n".to_owned(),
    }
}

pub(super) fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A value as one word or text. Clients have a say in some; a terminal must not obey them.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.is_empty() => "\"\"".to_owned(),
        Value::String(text) => printable(text.as_bytes()),
        other => other.to_string(),
    }
}

/// A time that is told in seconds, with two units at most.
pub(super) fn seconds(value: &Value) -> String {
    let Some(seconds) = value.as_f64() else { return "-".to_owned() };
    let whole = seconds as u64;
    match whole {
        0 => format!("{:.0}ms", seconds * 1000.0),
        1..=9 => format!("{seconds:.1}s"),
        10..=59 => format!("{whole}s"),
        60..=3_599 => format!("{}m{}s", whole / 60, whole % 60),
        3_600..=86_399 => format!("{}h{}m", whole / 3_600, whole / 60 % 60),
        _ => format!("{}d{}h", whole / 86_400, whole / 3_600 % 24),
    }
}

/// A number of bytes.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let (mut value, mut unit) = (bytes as f64 / 1024.0, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        (value, unit) = (value / 1024.0, unit + 1);
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// Columns, each as wide as its widest cell.
pub(super) fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let head: Vec<_> = head.iter().map(|&name| name.to_owned()).collect();
    let rows: Vec<_> = Some(head).filter(|head| !head.is_empty()).into_iter().chain(rows).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<_> = (0..columns)
        .map(|column| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    let mut out = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            // Writing to a string does not fail.
            let _ = write!(line, "{cell:width$}  ");
        }
        out += line.trim_end();
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn times_and_sizes_have_honest_units() {
        for (value, expected) in [
            (json!(null), "-"),
            (json!(0.0123), "12ms"),
            (json!(5.25), "5.2s"),
            (json!(59.9), "59s"),
            (json!(61), "1m1s"),
            (json!(7_260), "2h1m"),
            (json!(200_000), "2d7h"),
        ] {
            assert_eq!(seconds(&value), expected);
        }
        for (bytes, expected) in
            [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 30, "5.0 GiB")]
        {
            assert_eq!(size(bytes), expected);
        }
    }

    #[test]
    fn each_object_of_a_list_has_a_line() {
        let worker =
            |number| json!({"worker": number, "tunnels": 2, "totals": {"ended": 5}, "none": null});
        let shown =
            pairs(&json!({"uptime": 61, "by_worker": [worker(0), worker(1)], "empty": ["a"]}));
        let lines: Vec<Vec<_>> =
            shown.lines().map(|line| line.split_whitespace().collect()).collect();
        let expected: [Vec<&str>; 4] = [
            vec!["by_worker.0", "totals.ended=5", "tunnels=2", "worker=0"],
            vec!["by_worker.1", "totals.ended=5", "tunnels=2", "worker=1"],
            vec!["empty", "[\"a\"]"],
            vec!["uptime", "1m1s"],
        ];
        assert_eq!(lines, expected, "{shown}");
    }

    /// A user's name may come from a token that the client has made.
    #[test]
    fn a_table_has_a_line_for_each_and_nothing_that_a_terminal_obeys() {
        let side = json!({"messages": 2, "bytes": 2048, "rtt": 0.02});
        let tunnel = json!({
            "id": "7", "state": "open", "age": 90, "idle": 1.5, "client": "127.0.0.1:9", "user": "a\u{1b}[2Jb",
            "server": "", "location": "/", "peer": "127.0.0.1:80", "from_client": side, "from_upstream": side,
        });
        let shown = tunnels(&json!({"tunnels": [tunnel, tunnel]}));
        assert_eq!(shown.lines().count(), 3);
        assert!(!shown.contains('\u{1b}'), "{shown}");
        let line = shown.lines().nth(1).unwrap_or_default();
        let words: Vec<_> = line.split_whitespace().collect();
        let expected = [
            "7",
            "open",
            "1m30s",
            "1.5s",
            "127.0.0.1:9",
            "a\\u{1b}[2Jb",
            "\"\"",
            "/",
            "127.0.0.1:80",
            "2",
            "in",
            "2.0",
            "KiB",
            "2",
            "in",
            "2.0",
            "KiB",
            "20ms",
        ];
        assert_eq!(words, expected);
    }
}
