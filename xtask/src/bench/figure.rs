use serde_json::{Value, json};

/// What is wanted of a value.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Goal {
    AtMost(f64),
    AtLeast(f64),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Measured,
    /// The run did not do what was to be measured.
    Broken,
    /// What it would be held against is not on this machine.
    NotCompared,
}

/// Something measured and what it should be.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    what: String,
    value: f64,
    unit: &'static str,
    goal: Goal,
    detail: String,
    state: State,
}

impl Figure {
    /// Meant to be `goal` at most.
    pub fn new(what: impl Into<String>, value: f64, unit: &'static str, goal: f64) -> Figure {
        Figure {
            what: what.into(),
            value,
            unit,
            goal: Goal::AtMost(goal),
            detail: String::new(),
            state: State::Measured,
        }
    }

    /// Meant to be `goal` at least.
    pub fn at_least(what: impl Into<String>, value: f64, unit: &'static str, goal: f64) -> Figure {
        Figure { goal: Goal::AtLeast(goal), ..Figure::new(what, value, unit, goal) }
    }

    /// One that would be held against something that cannot be had; no goal is missed by that.
    pub fn not_compared(what: impl Into<String>, why: &str) -> Figure {
        let figure = Figure::new(what, f64::NAN, "x", 1.0).detail(format!("not compared: {why}"));
        Figure { state: State::NotCompared, ..figure }
    }

    #[must_use]
    pub fn detail(mut self, detail: String) -> Figure {
        self.detail = detail;
        self
    }

    /// False when the run did not do what was to be measured.
    #[must_use]
    pub fn valid(mut self, valid: bool) -> Figure {
        if !valid {
            self.state = State::Broken;
        }
        self
    }

    pub fn is_met(&self) -> bool {
        self.state == State::Measured
            && match self.goal {
                Goal::AtMost(goal) => self.value <= goal,
                Goal::AtLeast(goal) => self.value >= goal,
            }
    }

    /// Measured, or meant to be, and not as good as wanted.
    pub fn is_missed(&self) -> bool {
        self.state != State::NotCompared && !self.is_met()
    }

    fn verdict(&self) -> &'static str {
        match self.state {
            State::Broken => "not measured",
            State::NotCompared => "not compared",
            State::Measured if self.is_met() => "met",
            State::Measured => "MISSED",
        }
    }

    fn goal(&self) -> String {
        match self.goal {
            Goal::AtMost(goal) => format!("≤ {} {}", shown(goal), self.unit),
            Goal::AtLeast(goal) => format!("≥ {} {}", shown(goal), self.unit),
        }
    }
}

pub fn table(figures: &[Figure]) -> String {
    let mut text = format!("{:<62} {:>12} {:>12}  verdict\n", "figure", "measured", "goal");
    for figure in figures {
        let value = match figure.value.is_nan() {
            true => "–".to_owned(),
            false => format!("{} {}", shown(figure.value), figure.unit),
        };
        let goal = figure.goal();
        text.push_str(&format!("{:<62} {value:>12} {goal:>12}  {}\n", figure.what, figure.verdict()));
        if !figure.detail.is_empty() {
            text.push_str(&format!("    {}\n", figure.detail));
        }
    }
    text
}

pub fn json(figures: &[Figure]) -> Value {
    figures
        .iter()
        .map(|figure| {
            let (bound, goal) = match figure.goal {
                Goal::AtMost(goal) => ("at most", goal),
                Goal::AtLeast(goal) => ("at least", goal),
            };
            json!({
                "figure": figure.what,
                "value": figure.value,
                "unit": figure.unit,
                "goal": goal,
                "bound": bound,
                "verdict": figure.verdict(),
                "detail": figure.detail,
            })
        })
        .collect()
}

fn shown(value: f64) -> String {
    if value >= 10.0 || value == value.trunc() { format!("{value:.0}") } else { format!("{value:.2}") }
}

/// Half of the values are below it; NaN, which meets no goal, when there are none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}

/// So many of a hundred values are not above it (nearest rank); NaN when there are none.
pub fn percentile(mut values: Vec<f64>, percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    let rank = (values.len() * percent).div_ceil(100).max(1);
    values.get(rank - 1).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_does_not_hang_on_one_bad_run() {
        assert_eq!(median(vec![900.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0]), 2.5);
        assert!(median(Vec::new()).is_nan());
    }

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!((percentile(hundred.clone(), 99), percentile(hundred, 50)), (99.0, 50.0));
        assert_eq!(percentile(vec![3.0, 7.0], 99), 7.0);
        assert!(percentile(Vec::new(), 99).is_nan());
    }

    #[test]
    fn what_was_not_measured_meets_no_goal() {
        assert!(Figure::new("a", 1.0, "s", 2.0).is_met());
        assert!(!Figure::new("a", 3.0, "s", 2.0).is_met());
        assert!(!Figure::new("a", f64::NAN, "s", 2.0).is_met());
        assert!(!Figure::at_least("a", f64::NAN, "s", 2.0).is_met());
        let broken = Figure::new("a", 1.0, "s", 2.0).valid(false);
        assert!(!broken.is_met() && broken.is_missed());
        assert!(table(&[broken]).contains("not measured"));
    }

    #[test]
    fn some_values_are_to_be_high() {
        assert!(Figure::at_least("a", 3.0, "/s", 2.0).is_met());
        assert!(Figure::at_least("a", 1.0, "/s", 2.0).is_missed());
    }

    #[test]
    fn a_missing_peer_misses_no_goal_and_is_told() {
        let figure = Figure::not_compared("a", "there is none");
        assert!(!figure.is_missed() && !figure.is_met());
        assert!(table(&[figure]).contains("not compared: there is none"));
    }
}
