//! What came of it: the table for people, the JSON for programs.

use crate::statistics::{Sample, exponent};
use serde::Serialize;

/// A line of the table.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Finding {
    /// The row that it belongs to, by its name on the command line.
    pub(crate) row: &'static str,
    /// What was measured.
    pub(crate) what: String,
    pub(crate) unit: &'static str,
    pub(crate) ours: Sample,
    pub(crate) reference: Option<Reference>,
    pub(crate) goal: Option<Goal>,
}

/// What one would use instead, measured the same way.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Reference {
    pub(crate) name: &'static str,
    pub(crate) sample: Sample,
}

/// What is wanted.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub(crate) struct Goal {
    of: Of,
    bound: Bound,
    limit: f64,
}

#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
enum Of {
    /// Of the figure itself.
    Figure,
    /// Of the figure divided by the reference's.
    Ratio,
    /// Of the figure less the reference's.
    Difference,
}

#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
enum Bound {
    AtLeast,
    AtMost,
}

/// The figure is to be this much at least ...
pub(crate) const fn at_least(limit: f64) -> Option<Goal> {
    Some(Goal { of: Of::Figure, bound: Bound::AtLeast, limit })
}

/// ... or at most.
pub(crate) const fn at_most(limit: f64) -> Option<Goal> {
    Some(Goal { of: Of::Figure, bound: Bound::AtMost, limit })
}

/// The figure is to be this many times the reference's at least ...
pub(crate) const fn times_at_least(limit: f64) -> Option<Goal> {
    Some(Goal { of: Of::Ratio, bound: Bound::AtLeast, limit })
}

/// ... or at most.
pub(crate) const fn times_at_most(limit: f64) -> Option<Goal> {
    Some(Goal { of: Of::Ratio, bound: Bound::AtMost, limit })
}

/// The figure is to be above the reference's by this much at most.
pub(crate) const fn above_by_at_most(limit: f64) -> Option<Goal> {
    Some(Goal { of: Of::Difference, bound: Bound::AtMost, limit })
}

impl Finding {
    /// Ours and the reference's, run by run.
    fn compared(&self, with: impl Fn(f64, f64) -> f64) -> Option<Sample> {
        self.reference.as_ref().map(|reference| self.ours.paired(&reference.sample, with))
    }

    fn ratio(&self) -> Option<Sample> {
        self.compared(|ours, theirs| ours / theirs)
    }

    /// Whether the goal is met; `None` without one.
    pub(crate) fn met(&self) -> Option<bool> {
        let goal = self.goal?;
        let value = match goal.of {
            Of::Figure => self.ours.median(),
            Of::Ratio => self.ratio()?.median(),
            Of::Difference => self.compared(|ours, theirs| ours - theirs)?.median(),
        };
        Some(match goal.bound {
            Bound::AtLeast => value >= goal.limit,
            Bound::AtMost => value <= goal.limit,
        })
    }
}

impl std::fmt::Display for Goal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match (self.of, self.bound) {
            (Of::Figure, Bound::AtLeast) => "≥ ",
            (Of::Figure, Bound::AtMost) => "≤ ",
            (Of::Ratio, Bound::AtLeast) => "≥ ×",
            (Of::Ratio, Bound::AtMost) => "≤ ×",
            (Of::Difference, Bound::AtLeast) => "≥ +",
            (Of::Difference, Bound::AtMost) => "≤ +",
        })?;
        f.write_str(&figure(self.limit))
    }
}

/// How something grows with something else.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Growth {
    /// The row that it belongs to.
    pub(crate) row: &'static str,
    pub(crate) what: String,
    pub(crate) unit: &'static str,
    /// What it grows with.
    pub(crate) over: &'static str,
    pub(crate) lines: Vec<Line>,
}

/// A line of a chart.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, Sample)>,
}

impl Line {
    pub(crate) fn medians(&self) -> Vec<(f64, f64)> {
        self.points.iter().map(|(x, sample)| (*x, sample.median())).collect()
    }

    /// The sentence on how it grows.
    fn sentence(&self, growth: &Growth) -> String {
        let points: Vec<String> =
            self.medians().iter().map(|(x, y)| format!("{} at {}", figure(*y), figure(*x))).collect();
        let exponent = exponent(&self.medians());
        format!(
            "{}, {}: {} {}; grows with the power {exponent:.2} of {}",
            growth.what,
            self.name,
            points.join(", "),
            growth.unit,
            growth.over
        )
    }
}

/// All that came of a run.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    /// Where and how it was measured, a line each.
    pub(crate) circumstances: Vec<String>,
    pub(crate) findings: Vec<Finding>,
    pub(crate) growth: Vec<Growth>,
    /// Rows that could not be measured, and why.
    pub(crate) failed: Vec<(String, String)>,
}

impl Report {
    /// As Markdown, for the terminal and for a page.
    pub(crate) fn table(&self) -> String {
        let mut out = String::new();
        for circumstance in &self.circumstances {
            out += &format!("{circumstance}  \n");
        }
        out += "\n| row | what | median (least–most) | reference | ratio (least–most) | goal | |\n\
                |---|---|--:|--:|--:|--:|---|\n";
        for finding in &self.findings {
            let reference = finding.reference.as_ref();
            let cells = [
                finding.row.to_owned(),
                finding.what.clone(),
                format!("{} {}", spread(&finding.ours), finding.unit),
                reference.map_or(String::new(), |reference| {
                    format!("{}: {} {}", reference.name, spread(&reference.sample), finding.unit)
                }),
                finding.ratio().map_or(String::new(), |ratio| spread(&ratio)),
                finding.goal.map_or(String::new(), |goal| goal.to_string()),
                match finding.met() {
                    Some(true) => "met".to_owned(),
                    Some(false) => "**missed**".to_owned(),
                    None => String::new(),
                },
            ];
            out += &format!("| {} |\n", cells.join(" | "));
        }
        for growth in &self.growth {
            for line in &growth.lines {
                out += &format!("\n- {}", line.sentence(growth));
            }
        }
        for (row, error) in &self.failed {
            out += &format!("\n- NOT MEASURED: {row}: {error}");
        }
        out + "\n"
    }
}

fn spread(sample: &Sample) -> String {
    if sample.0.len() < 2 {
        return figure(sample.median());
    }
    format!("{} ({}–{})", figure(sample.median()), figure(sample.least()), figure(sample.most()))
}

/// Three digits that count, and thousands apart.
pub(crate) fn figure(value: f64) -> String {
    if !value.is_finite() {
        return "?".to_owned();
    }
    let size = value.abs();
    let decimals = match size {
        _ if size >= 100.0 || size == 0.0 => 0,
        _ if size >= 10.0 => 1,
        _ if size >= 1.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.decimals$}");
    let (whole, rest) =
        text.split_once('.').map_or((text.as_str(), None), |(whole, rest)| (whole, Some(rest)));
    let digits = whole.trim_start_matches('-');
    let mut out = if whole.starts_with('-') { "-".to_owned() } else { String::new() };
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    if let Some(rest) = rest {
        out.push('.');
        out += rest;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(goal: Option<Goal>) -> Finding {
        let reference = Some(Reference { name: "other", sample: Sample(vec![1.0, 4.0, 2.0]) });
        Finding { row: "r", what: "w".into(), unit: "s", ours: Sample(vec![2.0, 6.0, 4.0]), reference, goal }
    }

    #[test]
    fn a_goal_is_judged_by_the_median_of_the_runs() {
        for (goal, met) in [
            (at_least(4.0), true),
            (at_least(4.1), false),
            (at_most(3.9), false),
            (times_at_least(2.0), true),
            (times_at_most(1.9), false),
            (above_by_at_most(2.0), true),
            (above_by_at_most(1.9), false),
        ] {
            assert_eq!(finding(goal).met(), Some(met), "{goal:?}");
        }
        assert_eq!(finding(None).met(), None);
        let without = Finding { reference: None, ..finding(times_at_least(0.1)) };
        assert_eq!(without.met(), None, "there is nothing to compare with");
    }

    #[test]
    fn the_table_says_what_was_missed() {
        let findings = vec![finding(at_most(1.0)), finding(None)];
        let table = Report { findings, ..Report::default() }.table();
        let row = "| r | w | 4.00 (2.00–6.00) s | other: 2.00 (1.00–4.00) s | 2.00 (1.50–2.00) | ≤ 1.00 | **missed** |";
        assert!(table.contains(row), "{table}");
    }

    #[test]
    fn figures_have_the_digits_that_count() {
        for (value, text) in [
            (1_234_567.8, "1,234,568"),
            (999.4, "999"),
            (-1234.0, "-1,234"),
            (12.34, "12.3"),
            (0.1234, "0.123"),
            (0.0, "0"),
        ] {
            assert_eq!(figure(value), text);
        }
        assert_eq!(figure(f64::NAN), "?");
    }
}
