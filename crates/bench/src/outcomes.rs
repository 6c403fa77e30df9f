//! What was measured of several contestants in several runs, as tables of a report.

use std::fmt::Write;

/// A line of a table: what it is called, its decimals, the figure, which may be missing (`Option<f64>`).
pub(crate) type Figure<T, F = f64> = (&'static str, usize, fn(&T) -> F);

/// Of each name in the order of the runs.
#[derive(Debug)]
pub(crate) struct Outcomes<T>(Vec<(&'static str, Vec<T>)>);

impl<T> Default for Outcomes<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Outcomes<T> {
    /// One more of this name.
    pub(crate) fn add(&mut self, name: &'static str, outcome: T) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, outcomes)) => outcomes.push(outcome),
            None => self.0.push((name, vec![outcome])),
        }
    }

    /// Those of each name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, &[T])> {
        self.0.iter().map(|(name, outcomes)| (*name, &outcomes[..]))
    }

    /// Those of this name.
    pub(crate) fn of(&self, name: &str) -> Option<&[T]> {
        self.iter().find(|(known, _)| *known == name).map(|(_, outcomes)| outcomes)
    }

    /// Those of the first run.
    pub(crate) fn firsts(&self) -> impl Iterator<Item = (&'static str, &T)> {
        self.iter().filter_map(|(name, outcomes)| Some((name, outcomes.first()?)))
    }

    /// A table with a column of each name.
    pub(crate) fn table<F: Into<Option<f64>>>(
        &self,
        title: &str,
        lines: &[Figure<T, F>],
        text: &mut String,
    ) {
        let names: Vec<_> = self.iter().map(|(name, _)| name).collect();
        let rule = "|---:".repeat(names.len());
        let _ = writeln!(text, "\n## {title}\n\n| | {} |\n|---{rule}|", names.join(" | "));
        for (name, decimals, figure) in lines {
            let figures =
                |outcomes: &[T]| outcomes.iter().filter_map(|it| figure(it).into()).collect();
            self.line(name, *decimals, figures, text);
        }
    }

    /// One line of such a table.
    pub(crate) fn line(
        &self,
        name: &str,
        decimals: usize,
        figures: impl Fn(&[T]) -> Vec<f64>,
        text: &mut String,
    ) {
        let cells = self.iter().map(|(_, outcomes)| cell(&figures(outcomes), decimals));
        let _ = writeln!(text, "| {name} | {} |", cells.collect::<Vec<_>>().join(" | "));
    }
}

/// One figure, or from which to which; a dash for none.
fn cell(values: &[f64], decimals: usize) -> String {
    if values.is_empty() {
        return "–".into();
    }
    let text = |value: f64| format!("{value:.decimals$}");
    let min = text(values.iter().copied().fold(f64::INFINITY, f64::min));
    let max = text(values.iter().copied().fold(f64::NEG_INFINITY, f64::max));
    if min == max { min } else { format!("{min}..{max}") }
}
