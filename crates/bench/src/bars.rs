//! Pictures of what happened as time went on: for each proxy some bars for each piece of time, all on one scale.
//!
//! It has no background of its own, and follows the reader's light or dark scheme.

use std::path::Path;
use std::{fs, io};

use crate::rows::thousands;
use crate::svg::{document, text};

const WIDTH: f64 = 900.0;
/// Where the axes begin and end.
const LEFT: f64 = 60.0;
const RIGHT: f64 = 884.0;
const TOP: f64 = 52.0;
/// A chart and what stands above it.
const CHART: f64 = 110.0;
const TITLE: f64 = 34.0;
const BOTTOM: f64 = 46.0;

/// What pictures have in common.
const STYLE: &str = "\
text { font: 13px system-ui, sans-serif; fill: #24292f }
.title { font-weight: 600 } .small { font-size: 12px; fill: #57606a }
.grid { stroke: #d0d7de } .base { stroke: #57606a }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .small { fill: #9198a1 }
.grid { stroke: #3d444d } .base { stroke: #9198a1 }
}";

/// Colours of bars: in the light and in the dark.
pub(crate) type Colours = (&'static str, &'static str);
pub(crate) const RED: Colours = ("#cf222e", "#f85149");
pub(crate) const YELLOW: Colours = ("#9a6700", "#d29922");
pub(crate) const BLUE: Colours = ("#0969da", "#58a6ff");

/// Which bars: those of the table whose first column is `s`, which has `columns` for each proxy.
#[derive(Debug)]
pub(crate) struct Bars {
    pub(crate) title: &'static str,
    /// What is said to those who do not see it.
    pub(crate) label: &'static str,
    /// What is counted from where.
    pub(crate) axis: &'static str,
    /// How many rows are a second.
    pub(crate) per_second: usize,
    /// Seconds between two numbers of the axis.
    pub(crate) step: usize,
    pub(crate) columns: usize,
    /// The first columns of each proxy: what stands behind its name, the legend, the colours.
    pub(crate) bars: &'static [(&'static str, &'static str, Colours)],
}

/// One proxy: what happened in each piece of time.
#[derive(Debug, PartialEq, Eq)]
struct Chart {
    name: String,
    rows: Vec<Vec<usize>>,
}

/// Draws the picture of a report that is there anew, beside it.
pub(crate) fn redraw(bars: &Bars, report: &Path) -> io::Result<()> {
    let markdown = fs::read_to_string(report)
        .map_err(|error| io::Error::other(format!("{}: {error}", report.display())))?;
    fs::write(report.with_extension("svg"), draw(bars, &markdown))
}

/// Writes a report of this name with its picture.
pub(crate) fn publish(bars: &Bars, out: &Path, name: &str, markdown: &str) -> io::Result<()> {
    fs::create_dir_all(out)?;
    fs::write(out.join(name).with_extension("svg"), draw(bars, markdown))?;
    fs::write(out.join(name).with_extension("md"), markdown)?;
    println!("written to {}", out.display());
    Ok(())
}

/// Draws a table of a report.
fn draw(bars: &Bars, markdown: &str) -> String {
    let charts = charts(bars, markdown);
    let length = charts.iter().map(|chart| chart.rows.len()).max().unwrap_or(0).max(1);
    let values = charts.iter().flat_map(|chart| chart.rows.iter().flatten());
    let scale = nice(values.copied().max().unwrap_or(1));
    let height = TOP + charts.len() as f64 * (TITLE + CHART) + BOTTOM;
    let mut body = legend(bars);
    let step = (RIGHT - LEFT) / length as f64;
    for (index, chart) in charts.iter().enumerate() {
        let base = TOP + (index + 1) as f64 * (TITLE + CHART);
        body += &draw_chart(bars, chart, base, step, scale);
    }
    let axis = TOP + charts.len() as f64 * (TITLE + CHART) + 18.0;
    for second in (0..=length / bars.per_second).step_by(bars.step) {
        let x = LEFT + step * (second * bars.per_second) as f64;
        body += &text("small", x, axis, "middle", &second.to_string());
    }
    body += &text("small", RIGHT, axis + 18.0, "end", bars.axis);
    document((WIDTH, height), bars.label, &style(bars), &body)
}

/// With the colours of the bars in both schemes.
fn style(bars: &Bars) -> String {
    let rules = |colour: fn(&Colours) -> &'static str| {
        let rule = |(class, _, colours): &(&str, &str, Colours)| {
            format!(".{class} {{ fill: {} }}", colour(colours))
        };
        bars.bars.iter().map(rule).collect::<Vec<_>>().join(" ")
    };
    let (light, dark) = (rules(|colours| colours.0), rules(|colours| colours.1));
    let (first, scheme) = STYLE.split_once("@media").unwrap_or((STYLE, ""));
    let scheme = scheme.trim_end_matches('}');
    format!("{first}{light}\n@media{scheme}{dark}\n}}")
}

fn legend(bars: &Bars) -> String {
    let mut out = text("title", 16.0, 26.0, "start", bars.title);
    for (index, (class, name, _)) in bars.bars.iter().enumerate() {
        let x = 230.0 + 170.0 * index as f64;
        out += &format!("<rect class=\"{class}\" x=\"{x}\" y=\"16\" width=\"10\" height=\"10\"/>");
        out += &text("", x + 16.0, 26.0, "start", name);
    }
    out
}

fn draw_chart(bars: &Bars, chart: &Chart, base: f64, step: f64, scale: usize) -> String {
    let mut out = text("title", 16.0, base - CHART - 12.0, "start", &chart.name);
    let most = bars.bars.iter().enumerate().map(|(bar, (class, ..))| {
        let most = chart.rows.iter().map(|row| row[bar]).max().unwrap_or(0);
        format!("{class} {}", thousands(most))
    });
    let most = format!("highest bars: {}", most.collect::<Vec<_>>().join(", "));
    out += &text("small", RIGHT, base - CHART - 12.0, "end", &most);
    for share in [0.0, 0.5, 1.0] {
        let (y, class) = (base - CHART * share, if share == 0.0 { "base" } else { "grid" });
        out += &format!(
            "<line class=\"{class}\" x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{RIGHT}\" y2=\"{y:.1}\"/>\n"
        );
        let label = thousands((scale as f64 * share) as usize);
        out += &text("small", LEFT - 8.0, y + 4.0, "end", &label);
    }
    let width = step * 0.8 / bars.bars.len() as f64;
    for (index, counts) in chart.rows.iter().enumerate() {
        for (bar, (count, (class, ..))) in counts.iter().zip(bars.bars).enumerate() {
            if *count == 0 {
                continue;
            }
            let high = CHART * *count as f64 / scale as f64;
            let x = LEFT + step * (index as f64 + 0.1) + width * bar as f64;
            let y = base - high;
            out += &format!(
                "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{high:.1}\"/>"
            );
        }
    }
    out + "\n"
}

/// The next of 1, 2, 5, 10, … that is not below.
fn nice(value: usize) -> usize {
    let mut ten = 1;
    loop {
        for factor in [1, 2, 5] {
            if ten * factor >= value {
                return ten * factor;
            }
        }
        ten *= 10;
    }
}

/// The proxies of a report with their counts.
fn charts(bars: &Bars, markdown: &str) -> Vec<Chart> {
    let cells = |line: &str| -> Vec<String> {
        line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    let mut lines = markdown.lines().skip_while(|line| !line.starts_with("| s |"));
    let Some(names) = lines.next().map(cells) else { return Vec::new() };
    let Some((first, ..)) = bars.bars.first() else { return Vec::new() };
    let name =
        |columns: &[String]| columns[0].strip_suffix(first).map(str::trim).map(str::to_owned);
    let names = names[1..].chunks_exact(bars.columns).filter_map(name);
    let mut charts: Vec<_> = names.map(|name| Chart { name, rows: Vec::new() }).collect();
    for line in lines.skip(1).take_while(|line| line.starts_with('|')) {
        let counts: Vec<usize> =
            cells(line)[1..].iter().map(|it| it.parse().unwrap_or(0)).collect();
        for (chart, counts) in charts.iter_mut().zip(counts.chunks_exact(bars.columns)) {
            chart.rows.push(counts[..bars.bars.len()].to_vec());
        }
    }
    charts
}

#[cfg(test)]
mod tests {
    use super::*;

    const BARS: Bars = Bars {
        title: "Per second",
        label: "what happened",
        axis: "seconds",
        per_second: 1,
        step: 5,
        columns: 3,
        bars: &[("ended", "ends", RED), ("tried", "tries", YELLOW), ("arrived", "arrivals", BLUE)],
    };

    const TABLE: &str = "\
# Title

| | wssgate | nginx |
|---|---:|---:|
| cut | 0 | 9 |

| s | wssgate ended | wssgate tried | wssgate arrived | nginx ended | nginx tried | nginx arrived |
|---:|---:|---:|---:|---:|---:|---:|
| 0 | 250 | 120 | 118 | 0 | 0 | 0 |
| 1 | 250 | 251 | 249 | 5000 | 2500 | 1200 |

| 9 | 9 | 9 | 9 | 9 | 9 | 9 |
";

    #[test]
    fn the_table_is_read_back() {
        let chart = |name: &str, rows: &[[usize; 3]]| Chart {
            name: name.into(),
            rows: rows.iter().map(|row| row.to_vec()).collect(),
        };
        let expected = [
            chart("wssgate", &[[250, 120, 118], [250, 251, 249]]),
            chart("nginx", &[[0, 0, 0], [5000, 2500, 1200]]),
        ];
        assert_eq!(charts(&BARS, TABLE), expected);
        let two = Bars { bars: &BARS.bars[..2], ..BARS };
        assert_eq!(charts(&two, TABLE)[1].rows, [[0, 0], [5000, 2500]]);
    }

    #[test]
    fn every_count_is_a_bar_inside_its_chart() {
        let svg = draw(&BARS, TABLE);
        // Three in the legend, and nothing for a zero.
        assert_eq!(svg.matches("<rect").count(), 3 + 6 + 3);
        assert!(svg.contains("highest bars: ended 5,000, tried 2,500, arrived 1,200"));
        let highest = format!("height=\"{CHART:.1}\"");
        assert_eq!(svg.matches(&highest).count(), 1, "all charts have one scale");
    }

    #[test]
    fn scales_end_at_round_numbers() {
        for (value, end) in [(0, 1), (1, 1), (3, 5), (250, 500), (5_000, 5_000), (5_001, 10_000)] {
            assert_eq!(nice(value), end);
        }
    }
}
