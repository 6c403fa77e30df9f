//! The picture: a dot for each ratio on a logarithmic axis, with a line from the lowest to the
//! highest run. Right of the line at 1× wssgate is better.
//!
//! It has no background of its own, and follows the reader's light or dark scheme.

use crate::stats::Spread;

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
const LEFT: f64 = 330.0;
const RIGHT: f64 = 780.0;
/// Where ratios stand as numbers, and how far they are apart.
const LABELS: f64 = 796.0;
const LABEL: f64 = 52.0;
const TOP: f64 = 64.0;
const LINE: f64 = 20.0;
const TITLE: f64 = 30.0;

const STYLE: &str = "\
text { font: 13px system-ui, sans-serif; fill: #24292f }
.title { font-weight: 600 } .small { font-size: 11px; fill: #57606a }
.grid { stroke: #d0d7de } .one { stroke: #24292f; stroke-width: 1.5 }
.nginx { stroke: #1a7f37; fill: #1a7f37 } .haproxy { stroke: #0969da; fill: #0969da }
.whisker { stroke-width: 2; opacity: .45 }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .small { fill: #9198a1 }
.grid { stroke: #3d444d } .one { stroke: #e6edf3 }
.nginx { stroke: #3fb950; fill: #3fb950 } .haproxy { stroke: #58a6ff; fill: #58a6ff }
}";

const PEERS: [(&str, &str); 2] = [("nginx", "nginx"), ("haproxy", "HAProxy")];

/// Draws all groups below each other.
pub(super) fn draw(groups: &[Group]) -> String {
    let groups: Vec<_> = groups.iter().filter(|group| !group.lines.is_empty()).collect();
    let lines: usize = groups.iter().map(|group| group.lines.len()).sum();
    let height = TOP + groups.len() as f64 * TITLE + lines as f64 * LINE + 20.0;
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
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         aria-label=\"How many times better wssgate is than nginx and HAProxy\">\n\
         <style>\n{STYLE}\n</style>\n{body}</svg>\n"
    )
}

/// Powers of two between which all ratios lie.
#[derive(Debug)]
struct Axis {
    low: i32,
    high: i32,
}

impl Axis {
    fn over<'a>(lines: impl Iterator<Item = &'a Line>) -> Self {
        let mut axis = Self { low: -1, high: 2 };
        for spread in lines.flat_map(|line| line.against.iter().flatten()) {
            axis.low = axis.low.min(spread.min.log2().floor() as i32);
            axis.high = axis.high.max(spread.max.log2().ceil() as i32);
        }
        axis
    }

    fn x(&self, ratio: f64) -> f64 {
        let share = (ratio.log2() - f64::from(self.low)) / f64::from(self.high - self.low);
        LEFT + share * (RIGHT - LEFT)
    }
}

/// Heading, legend and the lines of the axis.
fn head(axis: &Axis, height: f64) -> String {
    let mut out = String::from(
        "<text class=\"title\" x=\"16\" y=\"24\">How many times better wssgate is</text>\n",
    );
    for (index, (class, name)) in PEERS.iter().enumerate() {
        let x = LEFT + 100.0 * index as f64;
        out += &format!("<circle class=\"{class}\" cx=\"{x}\" cy=\"20\" r=\"4.5\"/>");
        out += &format!("<text x=\"{}\" y=\"24\">than {name}</text>\n", x + 10.0);
        let x = LABELS + LABEL * index as f64;
        out += &format!("<text class=\"small\" x=\"{x}\" y=\"50\">{name}</text>\n");
    }
    for power in axis.low..=axis.high {
        let ratio = f64::from(power).exp2();
        let (x, class) = (axis.x(ratio), if power == 0 { "one" } else { "grid" });
        let (label, bottom) = (format!("{ratio}×"), height - 12.0);
        out += &format!(
            "<line class=\"{class}\" x1=\"{x:.1}\" y1=\"56\" x2=\"{x:.1}\" y2=\"{bottom}\"/>"
        );
        out += &format!(
            "<text class=\"small\" x=\"{x:.1}\" y=\"50\" text-anchor=\"middle\">{label}</text>\n"
        );
    }
    out
}

fn figure(line: &Line, y: f64, axis: &Axis) -> String {
    let mut out = format!("<text class=\"small\" x=\"28\" y=\"{y}\">{}</text>", escape(&line.name));
    let mut label_x = LABELS;
    for ((class, _), spread) in PEERS.iter().zip(&line.against) {
        let Some(Spread { median, min, max }) = spread else {
            label_x += LABEL;
            continue;
        };
        let (x, low, high, middle) = (axis.x(*median), axis.x(*min), axis.x(*max), y - 4.0);
        out += &format!(
            "<line class=\"{class} whisker\" x1=\"{low:.1}\" y1=\"{middle}\" x2=\"{high:.1}\" y2=\"{middle}\"/>\
             <circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{middle}\" r=\"4.5\"/>\
             <text class=\"small\" x=\"{label_x}\" y=\"{y}\">{median:.2}×</text>"
        );
        label_x += LABEL;
    }
    out + "\n"
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
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
        for piece in svg.split("cx=\"").skip(1) {
            let x: f64 = piece.split('"').next().and_then(|x| x.parse().ok()).unwrap_or(f64::NAN);
            assert!((LEFT..=RIGHT).contains(&x), "{x}");
        }
    }

    #[test]
    fn the_axis_is_logarithmic() {
        let axis = Axis { low: -1, high: 3 };
        let steps = [0.5, 1.0, 2.0, 4.0, 8.0].map(|ratio| axis.x(ratio));
        for pair in steps.windows(2) {
            assert!((pair[1] - pair[0] - (RIGHT - LEFT) / 4.0).abs() < 1e-9);
        }
        assert_eq!((steps[0], steps[4]), (LEFT, RIGHT));
    }
}
