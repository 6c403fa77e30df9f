//! Results as a table of medians, spreads and ratios; the picture is in [`svg`].

use std::fmt::Write;

use crate::peers::Peer;
use crate::rows::{Better, Figure, Reading, Row};
use crate::stats::Spread;

mod svg;

/// Everything that was measured, and on what.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) machine: String,
    /// Name and version of each proxy.
    pub(crate) peers: Vec<String>,
    pub(crate) runs: usize,
    pub(crate) results: Vec<Results>,
}

/// What was measured of one row.
#[derive(Debug)]
pub(crate) struct Results {
    row: &'static Row,
    readings: Vec<(Figure, Peer, usize, f64)>,
    failures: Vec<String>,
}

impl Results {
    pub(crate) fn new(row: &'static Row) -> Self {
        Self { row, readings: Vec::new(), failures: Vec::new() }
    }

    /// Adds what one run of a proxy brought.
    pub(crate) fn add(&mut self, run: usize, peer: Peer, readings: Vec<Reading>) {
        let with = |(figure, value)| (figure, peer, run, value);
        self.readings.extend(readings.into_iter().map(with));
    }

    /// Remembers a run that brought nothing.
    pub(crate) fn fail(&mut self, text: String) {
        self.failures.push(text);
    }

    /// Figures in the order in which they were first read.
    fn figures(&self) -> Vec<&Figure> {
        let mut figures: Vec<&Figure> = Vec::new();
        for (figure, ..) in &self.readings {
            if !figures.contains(&figure) {
                figures.push(figure);
            }
        }
        figures
    }

    /// A figure of a proxy in one run; what was measured without a proxy is subtracted if the
    /// figure says so.
    fn value(&self, figure: &Figure, peer: Peer, run: usize) -> Option<f64> {
        let read = |peer| {
            let found =
                self.readings.iter().find(|(f, p, r, _)| (f, *p, *r) == (figure, peer, run));
            found.map(|(.., value)| *value)
        };
        match figure.added && peer != Peer::Direct {
            true => Some(read(peer)? - read(Peer::Direct)?),
            false => read(peer),
        }
    }

    /// Whether an earlier wssgate took part.
    fn has_before(&self) -> bool {
        self.readings.iter().any(|(_, peer, ..)| *peer == Peer::Before)
    }

    fn runs(&self) -> impl Iterator<Item = usize> {
        0..self.readings.iter().map(|(_, _, run, _)| run + 1).max().unwrap_or(0)
    }

    fn spread(&self, figure: &Figure, peer: Peer) -> Option<Spread> {
        let values = self.runs().filter_map(|run| self.value(figure, peer, run));
        Spread::of(&values.collect::<Vec<_>>())
    }

    /// How many times better wssgate is than `peer`, run by run. Values that are not positive, as
    /// an added latency can be, have no ratio.
    fn ratio(&self, figure: &Figure, peer: Peer) -> Option<Spread> {
        let ratio = |run| {
            let ours = self.value(figure, Peer::Wssgate, run).filter(|&value| value > 0.0)?;
            let theirs = self.value(figure, peer, run).filter(|&value| value > 0.0)?;
            match figure.better {
                Better::Less => Some(theirs / ours),
                Better::More => Some(ours / theirs),
                Better::Neither => None,
            }
        };
        Spread::of(&self.runs().filter_map(ratio).collect::<Vec<_>>())
    }

    /// The table of this row alone.
    pub(crate) fn text(&self) -> String {
        let mut out = format!("{}\n", self.row.title);
        let columns = Column::list(self.has_before());
        for line in self.lines(&columns) {
            let cells = columns.iter().zip(&line[1..]);
            let cells = cells.filter(|(_, cell)| !cell.is_empty());
            let cells = cells.map(|(column, cell)| format!("{} {cell}", column.title()));
            let cells: Vec<_> = cells.collect();
            writeln!(out, "  {:42} {}", line[0], cells.join("  "))
                .expect("a String takes all text");
        }
        self.failures.iter().for_each(|text| out.push_str(&format!("  failed: {text}\n")));
        out
    }

    /// The cells of each figure, its name first.
    fn lines(&self, columns: &[Column]) -> Vec<Vec<String>> {
        let line = |figure: &Figure| {
            let comma = if figure.unit.is_empty() { "" } else { ", " };
            let name = format!("{}{comma}{}", figure.name, figure.unit);
            let cells = columns.iter().map(|column| column.cell(self, figure));
            std::iter::once(name).chain(cells).collect()
        };
        self.figures().into_iter().map(line).collect()
    }
}

/// A column of the table.
enum Column {
    Value(Peer),
    Ratio(Peer),
}

impl Column {
    /// All columns; those of an earlier wssgate only if there was one.
    fn list(with_before: bool) -> Vec<Self> {
        let all = [
            Self::Value(Peer::Wssgate),
            Self::Value(Peer::Before),
            Self::Value(Peer::Nginx),
            Self::Value(Peer::Haproxy),
            Self::Value(Peer::Direct),
            Self::Value(Peer::Bare),
            Self::Ratio(Peer::Before),
            Self::Ratio(Peer::Nginx),
            Self::Ratio(Peer::Haproxy),
        ];
        all.into_iter().filter(|column| with_before || column.peer() != Peer::Before).collect()
    }

    fn peer(&self) -> Peer {
        match self {
            Self::Value(peer) | Self::Ratio(peer) => *peer,
        }
    }

    fn title(&self) -> String {
        match self {
            Self::Value(peer) => peer.name().to_string(),
            Self::Ratio(peer) => format!("vs. {}", peer.name()),
        }
    }

    fn cell(&self, results: &Results, figure: &Figure) -> String {
        match self {
            Self::Value(peer) => spread(results.spread(figure, *peer), "", number),
            Self::Ratio(peer) => spread(results.ratio(figure, *peer), "×", |n| format!("{n:.2}")),
        }
    }
}

fn spread(spread: Option<Spread>, unit: &str, number: fn(f64) -> String) -> String {
    let Some(Spread { median, min, max }) = spread else {
        return String::new();
    };
    format!("{}{unit} ({}..{})", number(median), number(min), number(max))
}

/// Three significant digits, and no fewer than the integer has.
fn number(value: f64) -> String {
    let decimals = match value.abs() {
        ..0.0005 => 0,
        ..1.0 => 3,
        ..10.0 => 2,
        ..100.0 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}")
}

impl Report {
    /// The whole report.
    pub(crate) fn markdown(&self) -> String {
        let mut out = format!(
            "# Compared with peers\n\n![how many times better wssgate is](peers.svg)\n\n\
             Generated by `cargo bench --bench peers`; see [benches/README.md](../../benches/README.md) \
             for the method. {}, one core for the proxy and one for the clients and the backend.\n\n",
            self.machine
        );
        self.peers.iter().for_each(|peer| out.push_str(&format!("- {peer}\n")));
        out.push_str(&format!(
            "\nMedian (lowest..highest) of {} interleaved runs. An echo is two relayed messages. \
             CPU is the user and system time of the proxy, memory its growth since the start. \
             “vs. X” says how many times better wssgate is, run by run: 2× is half of X's cost, \
             time or memory, or twice its rate; below 1× wssgate is worse.\n",
            self.runs
        ));
        let columns = Column::list(self.results.iter().any(Results::has_before));
        let titles: Vec<_> = columns.iter().map(Column::title).collect();
        for results in &self.results {
            out.push_str(&format!("\n## {}\n\n", results.row.title));
            out.push_str(&format!("| | {} |\n", titles.join(" | ")));
            out.push_str(&format!("|---|{}\n", "---:|".repeat(titles.len())));
            for line in results.lines(&columns) {
                out.push_str(&format!("| {} |\n", line.join(" | ")));
            }
            for text in &results.failures {
                out.push_str(&format!("\nFailed: {text}\n"));
            }
        }
        out
    }
}

/// The ratios of a report, as [`Report::markdown`] writes it, as a picture.
pub(crate) fn picture(markdown: &str) -> String {
    svg::draw(&groups(markdown))
}

/// The rows of a report with their ratios against nginx and HAProxy.
fn groups(markdown: &str) -> Vec<svg::Group> {
    let mut groups = Vec::new();
    let mut columns = [None; 2];
    for line in markdown.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            groups.push(svg::Group { title: title.into(), lines: Vec::new() });
        }
        let Some(group) = groups.last_mut().filter(|_| line.starts_with('|')) else { continue };
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        // The names of the columns stand above the figures, and none above those of the figures.
        if cells[1].is_empty() {
            columns = [Peer::Nginx, Peer::Haproxy].map(|peer| {
                let title = Column::Ratio(peer).title();
                cells.iter().position(|cell| *cell == title)
            });
            continue;
        }
        let ratio = |column: Option<usize>| read_ratio(cells.get(column?)?);
        let against = columns.map(ratio);
        if against.iter().any(Option::is_some) {
            let name = cells[1].rsplit_once(", ").map_or(cells[1], |(name, _unit)| name);
            group.lines.push(svg::Line { name: name.into(), against });
        }
    }
    groups
}

/// Reads what [`spread`] wrote: `1.17× (1.10..1.24)`.
fn read_ratio(cell: &str) -> Option<Spread> {
    let (median, range) = cell.split_once("× (")?;
    let (min, max) = range.strip_suffix(')')?.split_once("..")?;
    let number = |text: &str| text.parse().ok();
    Some(Spread { median: number(median)?, min: number(min)?, max: number(max)? })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::rows::ROWS;

    fn figure(better: Better, added: bool) -> Figure {
        Figure { name: "cost".into(), unit: "µs", better, added }
    }

    fn results(figure: &Figure, readings: &[(Peer, [f64; 3])]) -> Results {
        let mut results = Results::new(&ROWS[0]);
        for (peer, values) in readings {
            for (run, &value) in values.iter().enumerate() {
                results.add(run, *peer, vec![(figure.clone(), value)]);
            }
        }
        results
    }

    #[test]
    fn ratios_are_taken_run_by_run_and_say_how_much_better_wssgate_is() {
        let readings = [(Peer::Wssgate, [1.0, 2.0, 4.0]), (Peer::Nginx, [3.0, 4.0, 6.0])];
        let less = figure(Better::Less, false);
        let ratio = results(&less, &readings).ratio(&less, Peer::Nginx);
        assert_eq!(ratio, Some(Spread { median: 2.0, min: 1.5, max: 3.0 }));
        let more = figure(Better::More, false);
        let ratio = results(&more, &readings).ratio(&more, Peer::Nginx);
        assert_eq!(ratio.unwrap().median, 0.5);
    }

    #[test]
    fn what_is_added_is_the_difference_to_no_proxy() {
        let added = figure(Better::Less, true);
        let results = results(
            &added,
            &[
                (Peer::Wssgate, [30.0, 31.0, 9.0]),
                (Peer::Nginx, [50.0, 52.0, 40.0]),
                (Peer::Direct, [10.0, 10.0, 10.0]),
            ],
        );
        assert_eq!(results.spread(&added, Peer::Nginx).unwrap().median, 40.0);
        assert_eq!(results.spread(&added, Peer::Direct).unwrap().median, 10.0);
        // The third run has no ratio: wssgate added less than nothing.
        assert_eq!(results.ratio(&added, Peer::Nginx).unwrap().max, 2.0);
    }

    #[test]
    fn the_table_has_a_cell_for_every_column_and_tells_failures() {
        let less = figure(Better::Less, false);
        let mut results = results(&less, &[(Peer::Wssgate, [1.0; 3]), (Peer::Nginx, [2.5; 3])]);
        results.fail("HAProxy, run 1: it does not start".into());
        let report = Report { machine: "m".into(), peers: vec![], runs: 3, results: vec![results] };
        let text = report.markdown();
        let line = text.lines().find(|line| line.starts_with("| cost")).unwrap();
        assert_eq!(
            line,
            "| cost, µs | 1.00 (1.00..1.00) | 2.50 (2.50..2.50) |  |  |  | 2.50× (2.50..2.50) |  |"
        );
        assert!(text.contains("Failed: HAProxy, run 1: it does not start"));
    }

    #[test]
    fn an_earlier_build_has_a_column_and_a_ratio_where_it_took_part() {
        let less = figure(Better::Less, false);
        let mut results = results(&less, &[(Peer::Wssgate, [1.0; 3])]);
        assert!(!results.text().contains("before"));
        results.add(0, Peer::Before, vec![(less, 1.25)]);
        assert!(results.text().contains("before 1.25 (1.25..1.25)"));
        assert!(results.text().contains("vs. before 1.25× (1.25..1.25)"));
        let report = Report { machine: "m".into(), peers: vec![], runs: 3, results: vec![results] };
        let head = "| | wssgate | before | nginx | HAProxy | no proxy | bare relay | vs. before |";
        assert!(report.markdown().contains(head));
    }

    #[test]
    fn the_picture_is_drawn_from_the_table() {
        let less = figure(Better::Less, false);
        let mut results =
            results(&less, &[(Peer::Wssgate, [1.0, 2.0, 4.0]), (Peer::Haproxy, [3.0, 4.0, 6.0])]);
        for with_before in [false, true] {
            if with_before {
                results.add(0, Peer::Before, vec![(less.clone(), 1.25)]);
            }
            let results = Results { readings: results.readings.clone(), ..Results::new(&ROWS[0]) };
            let report =
                Report { machine: "m".into(), peers: vec![], runs: 3, results: vec![results] };
            let groups = groups(&report.markdown());
            assert_eq!(groups.len(), 1);
            assert_eq!(groups[0].title, ROWS[0].title);
            assert_eq!(groups[0].lines[0].name, "cost");
            let spread = Spread { median: 2.0, min: 1.5, max: 3.0 };
            assert_eq!(groups[0].lines[0].against, [None, Some(spread)]);
        }
    }

    #[test]
    fn numbers_have_three_digits() {
        for (value, text) in
            [(0.0, "0"), (0.1234, "0.123"), (3.456, "3.46"), (34.56, "34.6"), (3456.7, "3457")]
        {
            assert_eq!(number(value), text);
        }
    }
}
