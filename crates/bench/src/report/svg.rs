//! The picture: a dot for each ratio on a logarithmic axis, with a line from the lowest to the
//! highest run. Right of the line at 1× wssgate is better.
//!
//! It has no background of its own, and follows the reader's light or dark scheme.

use crate::stats::Spread;
use crate::svg::{document, escape, text};

/// The figures of one row.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) title: String,
    pub(super) lines: Vec<Line>,
}

/// One figure: how many times better wssgate is than nginx and than HAProxy.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) name: String,
    pub(super) against: [Option<Spread>; 2],
}

const WIDTH: f64 = 900.0;
/// Where the axis begins and ends.
const LEFT: f64 = 290.0;
const RIGHT: f64 = 750.0;
/// Where ratios stand as numbers, and how far they are apart.
const LABELS: f64 = 818.0;
const LABEL: f64 = 66.0;
/// Where the labels of the axis stand; they are repeated at its end.
const SCALE: f64 = 78.0;
const TOP: f64 = 84.0;
const LINE: f64 = 22.0;
const TITLE: f64 = 32.0;
const BOTTOM: f64 = 44.0;

const STYLE: &str = "\
text { font: 13px system-ui, sans-serif; fill: #24292f }
.title { font-weight: 600 } .small { font-size: 12px; fill: #57606a }
.grid { stroke: #d0d7de } .one { stroke: #24292f; stroke-width: 1.5 }
.worse { fill: #cf222e; fill-opacity: .07 } .loss { fill: #cf222e; font-weight: 600 }
.nginx { stroke: #1a7f37; fill: #1a7f37 } .haproxy { stroke: #0969da; fill: #0969da }
.whisker { stroke-width: 2; opacity: .45 }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .small { fill: #9198a1 }
.grid { stroke: #3d444d } .one { stroke: #e6edf3 }
.worse { fill: #f85149; fill-opacity: .12 } .loss { fill: #f85149 }
.nginx { stroke: #3fb950; fill: #3fb950 } .haproxy { stroke: #58a6ff; fill: #58a6ff }
}";

/// Class, name, and how far above the middle of a line its dot is: two of the same value are both
/// seen.
const PEERS: [(&str, &str, f64); 2] = [("nginx", "nginx", 3.5), ("haproxy", "HAProxy", -3.5)];

/// Draws all groups below each other.
pub(super) fn draw(groups: &[Group]) -> String {
    let groups: Vec<_> = groups.iter().filter(|group| !group.lines.is_empty()).collect();
    let lines: usize = groups.iter().map(|group| group.lines.len()).sum();
    let height = TOP + groups.len() as f64 * TITLE + lines as f64 * LINE + BOTTOM;
    let axis = Axis::over(groups.iter().flat_map(|group| &group.lines));
    let mut body = head(&axis, height);
    let mut y = TOP;
    for group in groups {
        y += TITLE;
        body +=
            &format!("<text class=\"title\" x=\"16\" y=\"{y}\">{}</text>\n", escape(&group.title));
        for line in &group.lines {
            y += LINE;
            body += &figure(line, y, &axis);
        }
    }
    let label = "How many times better wssgate is than nginx and HAProxy";
    document((WIDTH, height), label, STYLE, &body)
}

/// Powers of two between which all medians lie. What single runs brought may lie beyond.
#[derive(Debug)]
struct Axis {
    low: i32,
    high: i32,
}

impl Axis {
    fn over<'a>(lines: impl Iterator<Item = &'a Line>) -> Self {
        let mut axis = Self { low: -2, high: 3 };
        for spread in lines.flat_map(|line| line.against.iter().flatten()) {
            axis.low = axis.low.min(spread.median.log2().floor() as i32);
            axis.high = axis.high.max(spread.median.log2().ceil() as i32);
        }
        axis
    }

    /// The place of a ratio, which is an end of the axis where the ratio lies beyond it.
    fn x(&self, ratio: f64) -> f64 {
        let share = (ratio.log2() - f64::from(self.low)) / f64::from(self.high - self.low);
        LEFT + share.clamp(0.0, 1.0) * (RIGHT - LEFT)
    }
}

/// Heading, legend, the side on which wssgate is worse, and the lines of the axis.
fn head(axis: &Axis, height: f64) -> String {
    let mut out = String::from(
        "<text class=\"title\" x=\"16\" y=\"26\">How many times better wssgate is</text>\n",
    );
    for (index, (class, name, _)) in PEERS.iter().enumerate() {
        let x = LEFT + 110.0 * index as f64;
        out += &format!("<circle class=\"{class}\" cx=\"{x}\" cy=\"22\" r=\"4.5\"/>");
        out += &format!("<text x=\"{}\" y=\"26\">than {name}</text>\n", x + 10.0);
        let x = LABELS + LABEL * index as f64;
        out += &text("title", x, SCALE, "end", name);
    }
    let (one, bottom) = (axis.x(1.0), height - BOTTOM + 14.0);
    out += &format!(
        "<rect class=\"worse\" x=\"{LEFT}\" y=\"84\" width=\"{:.1}\" height=\"{:.1}\"/>\n",
        one - LEFT,
        bottom - 84.0
    );
    out += &text("small", one - 10.0, 56.0, "end", "← wssgate is worse");
    out += &text("small", one + 10.0, 56.0, "start", "wssgate is better →");
    for power in axis.low..=axis.high {
        let x = axis.x(f64::from(power).exp2());
        let class = if power == 0 { "one" } else { "grid" };
        out += &format!(
            "<line class=\"{class}\" x1=\"{x:.1}\" y1=\"84\" x2=\"{x:.1}\" y2=\"{bottom:.1}\"/>\n"
        );
        for y in [SCALE, bottom + 16.0] {
            out += &text("small", x, y, "middle", &times(power));
        }
    }
    out
}

/// A power of two as a person writes it: `¼×`, `1×`, `8×`.
fn times(power: i32) -> String {
    match power {
        0.. => format!("{}×", 1_u64 << power),
        -1 => "½×".into(),
        -2 => "¼×".into(),
        -3 => "⅛×".into(),
        _ => format!("1/{}×", 1_u64 << -power),
    }
}

fn figure(line: &Line, y: f64, axis: &Axis) -> String {
    let mut out = text("small", 28.0, y, "start", &line.name);
    for (index, ((class, _, up), spread)) in PEERS.iter().zip(&line.against).enumerate() {
        let Some(Spread { median, min, max }) = spread else { continue };
        let (x, low, high, middle) = (axis.x(*median), axis.x(*min), axis.x(*max), y - 4.0 - up);
        out += &format!(
            "<line class=\"{class} whisker\" x1=\"{low:.1}\" y1=\"{middle}\" x2=\"{high:.1}\" y2=\"{middle}\"/>\
             <circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{middle}\" r=\"4\"/>"
        );
        let style = if *median < 1.0 { "small loss" } else { "small" };
        let x = LABELS + LABEL * index as f64;
        out += &text(style, x, y, "end", &format!("{median:.2}×"));
    }
    out + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(median: f64) -> Option<Spread> {
        Some(Spread { median, min: median * 0.9, max: median * 1.1 })
    }

    #[test]
    fn every_ratio_is_a_dot_inside_the_axis() {
        let lines = vec![
            Line { name: "CPU <µs>".into(), against: [spread(0.1), spread(40.0)] },
            Line { name: "memory".into(), against: [None, spread(1.0)] },
        ];
        let svg = draw(&[
            Group { title: "Echo & more".into(), lines },
            Group { title: "nothing".into(), lines: Vec::new() },
        ]);
        // Two in the legend, three ratios.
        assert_eq!(svg.matches("<circle").count(), 5);
        assert!(svg.contains("Echo &amp; more") && svg.contains("CPU &lt;µs>"));
        assert!(!svg.contains("nothing"));
        assert_eq!(svg.matches("class=\"small loss\"").count(), 1);
        for piece in svg.split("cx=\"").skip(1) {
            let x: f64 = piece.split('"').next().and_then(|x| x.parse().ok()).unwrap_or(f64::NAN);
            assert!((LEFT..=RIGHT).contains(&x), "{x}");
        }
    }

    #[test]
    fn the_axis_is_logarithmic() {
        let axis = Axis { low: -1, high: 3 };
        assert_eq!((axis.x(0.01), axis.x(100.0)), (LEFT, RIGHT));
        let steps = [0.5, 1.0, 2.0, 4.0, 8.0].map(|ratio| axis.x(ratio));
        for pair in steps.windows(2) {
            assert!((pair[1] - pair[0] - (RIGHT - LEFT) / 4.0).abs() < 1e-9);
        }
        assert_eq!((steps[0], steps[4]), (LEFT, RIGHT));
    }

    #[test]
    fn powers_of_two_are_written_as_people_do() {
        for (power, text) in [(-4, "1/16×"), (-3, "⅛×"), (-1, "½×"), (0, "1×"), (5, "32×")]
        {
            assert_eq!(times(power), text);
        }
    }
}
