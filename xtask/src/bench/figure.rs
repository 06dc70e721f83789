use serde_json::{Value, json};

/// Something measured and what it should be at most.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    what: &'static str,
    value: f64,
    unit: &'static str,
    goal: f64,
    detail: String,
    valid: bool,
}

impl Figure {
    pub fn new(what: &'static str, value: f64, unit: &'static str, goal: f64) -> Figure {
        Figure { what, value, unit, goal, detail: String::new(), valid: true }
    }

    #[must_use]
    pub fn detail(mut self, detail: String) -> Figure {
        self.detail = detail;
        self
    }

    /// False when the run did not do what was to be measured.
    #[must_use]
    pub fn valid(mut self, valid: bool) -> Figure {
        self.valid = valid;
        self
    }

    pub fn is_met(&self) -> bool {
        self.valid && self.value <= self.goal
    }

    fn verdict(&self) -> &'static str {
        match (self.valid, self.is_met()) {
            (false, _) => "not measured",
            (true, true) => "met",
            (true, false) => "MISSED",
        }
    }
}

pub fn table(figures: &[Figure]) -> String {
    let mut text = format!("{:<58} {:>12} {:>10}  verdict\n", "figure", "measured", "goal");
    for figure in figures {
        let value = format!("{} {}", shown(figure.value), figure.unit);
        let goal = format!("{} {}", shown(figure.goal), figure.unit);
        text.push_str(&format!("{:<58} {value:>12} {goal:>10}  {}\n", figure.what, figure.verdict()));
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
            json!({
                "figure": figure.what,
                "value": figure.value,
                "unit": figure.unit,
                "goal": figure.goal,
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
    fn what_was_not_measured_meets_no_goal() {
        assert!(Figure::new("a", 1.0, "s", 2.0).is_met());
        assert!(!Figure::new("a", 3.0, "s", 2.0).is_met());
        assert!(!Figure::new("a", f64::NAN, "s", 2.0).is_met());
        let broken = Figure::new("a", 1.0, "s", 2.0).valid(false);
        assert!(!broken.is_met());
        assert!(table(&[broken]).contains("not measured"));
    }
}
