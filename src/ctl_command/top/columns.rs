//! The columns of the table, and which of them there is room for.

use serde_json::Value;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::ctl_command::show::{seconds, text};

/// A column.
pub(super) struct Column {
    pub(super) head: &'static str,
    /// What tunnels are sorted by when it is in order.
    pub(super) sort: &'static str,
    pub(super) is_number: bool,
    /// The least that it needs, and the most that it takes.
    width: (usize, usize),
    pub(super) cell: fn(&Value) -> String,
}

/// All of them, from left to right.
pub(super) static COLUMNS: [Column; 15] = [
    text_column("ID", "id", (4, 20), |row| text(&row["id"])),
    text_column("S", "", (1, 1), state),
    text_column("USER", "", (12, 32), |row| text(&row["user"])),
    text_column("CLIENT", "", (21, 47), |row| text(&row["client"])),
    text_column("SERVER", "", (14, 32), |row| text(&row["server"])),
    text_column("LOCATION", "", (12, 32), |row| text(&row["location"])),
    text_column("PEER", "", (21, 47), |row| text(&row["peer"])),
    number_column("AGE", "age", 5, |row| seconds(&row["age"])),
    number_column("IDLE", "idle", 5, |row| seconds(&row["idle"])),
    number_column("B/s", "current", 5, |row| amount(row["current"]["bytes"].as_f64(), 1024.0)),
    number_column("MSG/s", "current", 5, |row| amount(row["current"]["messages"].as_f64(), 1000.0)),
    number_column("AVG B/s", "rate", 5, |row| amount(row["rate"].as_f64(), 1024.0)),
    number_column("MSGS", "messages", 5, |row| amount(both(row, "messages"), 1000.0)),
    number_column("BYTES", "bytes", 5, |row| amount(both(row, "bytes"), 1024.0)),
    number_column("RTT", "rtt", 5, |row| seconds(&row["from_client"]["rtt"])),
];

/// Which are wanted more than others, the most wanted first.
const RANKS: [&str; 15] = [
    "ID", "USER", "B/s", "IDLE", "S", "AGE", "MSG/s", "RTT", "CLIENT", "MSGS", "BYTES", "PEER",
    "LOCATION", "SERVER", "AVG B/s",
];

const fn text_column(
    head: &'static str,
    sort: &'static str,
    width: (usize, usize),
    cell: fn(&Value) -> String,
) -> Column {
    Column { head, sort, is_number: false, width, cell }
}

const fn number_column(
    head: &'static str,
    sort: &'static str,
    width: usize,
    cell: fn(&Value) -> String,
) -> Column {
    Column { head, sort, is_number: true, width: (width, width + 3), cell }
}

/// Columns with the widths that they get.
pub(super) type Layout = Vec<(&'static Column, usize)>;

/// Those that fit into so many columns of the screen, with the one that is sorted by. What room is left goes to those
/// that are cut.
pub(super) fn layout(rows: &[Value], sort: &str, room: usize) -> Layout {
    let wanted = COLUMNS.iter().map(|column| {
        let cells = rows.iter().map(|row| (column.cell)(row).width());
        let most = cells.max().unwrap_or(0).max(column.head.len());
        let (least, limit) = column.width;
        // Numbers that grow and shrink should not move the columns each time.
        let floor = if column.is_number { least } else { 1 };
        let most = most.clamp(floor, limit);
        // A number that is cut is another number.
        let least = if column.is_number || column.head == "ID" { most } else { least.min(most) };
        (column, least, most)
    });
    let wanted: Vec<_> = wanted.collect();
    let rank = |column: &Column| {
        let sorted = !sort.is_empty() && column.sort == sort && column.head != "MSG/s";
        let place = RANKS.iter().position(|head| *head == column.head).unwrap_or(RANKS.len());
        if sorted { (0, place) } else { (usize::from(place > 0), place) }
    };
    let mut ranked: Vec<_> = (0..wanted.len()).collect();
    ranked.sort_by_key(|&at| rank(wanted[at].0));
    let (mut used, mut chosen) = (0, Vec::new());
    for at in ranked {
        let needs = wanted[at].1 + usize::from(!chosen.is_empty());
        if used + needs > room {
            // A less wanted one in its place would come and go with the width.
            break;
        }
        used += needs;
        chosen.push(at);
    }
    let mut layout: Vec<_> = chosen.iter().map(|&at| (at, wanted[at].1)).collect();
    for (at, width) in &mut layout {
        let more = (wanted[*at].2 - *width).min(room - used);
        *width += more;
        used += more;
    }
    layout.sort_unstable_by_key(|(at, _)| *at);
    layout.into_iter().map(|(at, width)| (wanted[at].0, width)).collect()
}

fn state(row: &Value) -> String {
    let is_closing = row["state"] == "closing";
    let is_other = row["websocket"] == false;
    if is_closing {
        "c"
    } else if is_other {
        "o"
    } else {
        " "
    }
    .to_owned()
}

fn both(row: &Value, member: &str) -> Option<f64> {
    let sides = ["from_client", "from_upstream"].map(|side| row[side][member].as_f64());
    sides.into_iter().flatten().reduce(|one, other| one + other)
}

/// A number in at most five characters: `7.5`, `812`, `1.2K`, `48M`.
pub(super) fn amount(value: Option<f64>, unit: f64) -> String {
    let Some(mut value) = value else { return "-".to_owned() };
    let mut prefixes = "KMGTPE".chars();
    let mut prefix = None;
    // What would be rounded to the next unit is one of that.
    while value >= unit - 0.5 {
        let Some(next) = prefixes.next() else { break };
        (value, prefix) = (value / unit, Some(next));
    }
    let shown = match prefix {
        None if value.fract() == 0.0 || value >= 9.95 => format!("{value:.0}"),
        Some(_) if value >= 9.95 => format!("{value:.0}"),
        _ => format!("{value:.1}"),
    };
    prefix.map_or(shown.clone(), |prefix| format!("{shown}{prefix}"))
}

/// A text in exactly so many columns of the screen.
pub(super) fn fit(text: &str, width: usize, to_the_right: bool) -> String {
    let taken = text.width();
    if taken <= width {
        let space = " ".repeat(width - taken);
        return if to_the_right { space + text } else { text.to_owned() + &space };
    }
    let (mut cut, mut used) = (String::new(), 0);
    for character in text.chars() {
        let next = character.width().unwrap_or(0);
        // One is kept for the sign that something is missing.
        if used + next + 1 > width {
            break;
        }
        cut.push(character);
        used += next;
    }
    if width > 0 {
        cut.push('…');
        cut += &" ".repeat(width - used - 1);
    }
    cut
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_number_stays_short_and_says_its_size() {
        for (value, unit, expected) in [
            (None, 1000.0, "-"),
            (Some(0.0), 1000.0, "0"),
            (Some(0.44), 1000.0, "0.4"),
            (Some(9.96), 1000.0, "10"),
            (Some(999.0), 1000.0, "999"),
            (Some(999.6), 1000.0, "1.0K"),
            (Some(1_234.0), 1000.0, "1.2K"),
            (Some(1_023.0), 1024.0, "1023"),
            (Some(50.0 * 1024.0 * 1024.0), 1024.0, "50M"),
            (Some(u64::MAX as f64), 1000.0, "18E"),
        ] {
            assert_eq!(amount(value, unit), expected);
            assert!(amount(value, unit).len() <= 5);
        }
    }

    #[test]
    fn a_text_takes_its_columns_and_no_more() {
        for (text, width, expected) in [
            ("ann", 5, "ann  "),
            ("annabel", 5, "anna…"),
            ("世界人", 5, "世界…"),
            ("世界人", 4, "世… "),
            ("世", 1, "…"),
            ("ann", 0, ""),
        ] {
            let fitted = fit(text, width, false);
            assert_eq!((fitted.as_str(), fitted.width()), (expected, width));
        }
        assert_eq!(fit("7", 3, true), "  7");
    }

    fn heads(sort: &str, room: usize) -> Vec<&'static str> {
        let row = json!({"id": "123456", "user": "ann", "client": "192.0.2.7:50000", "server": "a.test",
            "location": "/chat", "peer": "10.0.0.9:80", "age": 100, "idle": 5, "rate": 1024,
            "from_client": {"messages": 5, "bytes": 9, "rtt": 0.02}, "from_upstream": {"messages": 5, "bytes": 9}});
        let layout = layout(&[row], sort, room);
        let used: usize = layout.iter().map(|(_, width)| width + 1).sum();
        assert!(used <= room + 1, "{used} of {room}");
        layout.iter().map(|(column, _)| column.head).collect()
    }

    #[test]
    fn what_matters_most_is_shown_and_always_what_is_sorted_by() {
        assert_eq!(heads("current", 12), ["ID", "B/s"]);
        assert_eq!(heads("current", 40), ["ID", "S", "USER", "AGE", "IDLE", "B/s", "MSG/s"]);
        assert!(heads("rtt", 20).contains(&"RTT"));
        assert!(heads("rate", 40).contains(&"AVG B/s"));
        assert_eq!(heads("current", 200).len(), COLUMNS.len());
        for room in 1..200 {
            heads("age", room);
        }
    }
}
