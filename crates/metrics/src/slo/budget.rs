//! How much of the error budget is left.

use std::time::Duration;

use serde::Serialize;

use super::SloSpec;
use super::record::{ERRORS, STEP, TOTAL, ratio_name, selector};
use crate::promql;
use crate::rules::{Evaluate, EvaluateError, show_duration};
use crate::sample::TimestampMs;

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Budget {
    pub objective: f64,
    pub window_ms: u64,
    /// Time of the window for which there are figures. Before the objective was set, and while nobody recorded, there
    /// are none; those times count as neither good nor bad.
    pub covered_ms: u64,
    pub standing: Standing,
    pub burns: Vec<Burn>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum Standing {
    /// Nothing was ever recorded in the window.
    NoData,
    /// There were figures, and no events.
    NoTraffic,
    Measured {
        good: f64,
        total: f64,
        /// Of the budget that the events so far allow: 1 untouched, 0 spent, below 0 overspent.
        remaining_ratio: f64,
        /// When it is spent if errors go on as in the last hour. None: it is not being spent, or nobody knows.
        exhausted_at_ms: Option<TimestampMs>,
    },
}

/// How fast the budget was spent over the last `window_ms`: 1 spends it exactly by the end of the objective's window.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Burn {
    pub window_ms: u64,
    /// None without traffic.
    pub rate: Option<f64>,
}

/// Over which times burn rates are told.
const BURNS: [Duration; 5] = [
    STEP,
    Duration::from_secs(3_600),
    Duration::from_secs(6 * 3_600),
    Duration::from_secs(24 * 3_600),
    Duration::from_secs(3 * 24 * 3_600),
];

/// By what the rules of [`super::rule_file`] recorded.
///
/// # Errors
/// When the source does not answer.
pub fn budget(
    source: &mut dyn Evaluate,
    spec: &SloSpec,
    now_ms: TimestampMs,
) -> Result<Budget, EvaluateError> {
    let of = selector(spec);
    let range = show_duration(spec.window);
    let mut ask = |text: &str| -> Result<Option<f64>, EvaluateError> {
        let query = promql::parse(text).map_err(|error| EvaluateError::Source { why: error.to_string() })?;
        let found = source.instant(&query, now_ms)?;
        Ok(found.first().map(|found| found.value).filter(|value| value.is_finite()))
    };
    let step = STEP.as_secs_f64();
    let allowed = 1.0 - spec.objective;
    let recorded = ask(&format!("count_over_time({TOTAL}{of}[{range}])"))?.unwrap_or(0.0);
    let total = ask(&format!("sum_over_time({TOTAL}{of}[{range}])"))?.unwrap_or(0.0) * step;
    let bad = ask(&format!("sum_over_time({ERRORS}{of}[{range}])"))?.unwrap_or(0.0) * step;
    let mut burns = Vec::new();
    for window in BURNS.into_iter().filter(|window| *window < spec.window) {
        // Windows that no level asks for have no recording; the kept rates answer for them.
        let recording = ask(&format!("{}{of}", ratio_name(window)))?;
        let ratio = match recording {
            Some(ratio) => Some(ratio),
            None => {
                let sum = |name: &str| format!("sum_over_time({name}{of}[{}])", show_duration(window));
                ask(&format!("{} / ({} > 0)", sum(ERRORS), sum(TOTAL)))?
            }
        };
        let window_ms = milliseconds(window);
        burns.push(Burn { window_ms, rate: ratio.map(|ratio| ratio / allowed) });
    }
    let window_ms = milliseconds(spec.window);
    let standing = if recorded == 0.0 {
        Standing::NoData
    } else if total <= 0.0 {
        Standing::NoTraffic
    } else {
        let remaining_ratio = 1.0 - bad / total / allowed;
        let hourly = burns.iter().find(|burn| burn.window_ms == 3_600_000).and_then(|burn| burn.rate);
        let exhausted_at_ms = exhausted(remaining_ratio, hourly, window_ms, now_ms);
        Standing::Measured { good: (total - bad).max(0.0), total, remaining_ratio, exhausted_at_ms }
    };
    let covered_ms = ((recorded * step * 1000.0) as u64).min(window_ms);
    Ok(Budget { objective: spec.objective, window_ms, covered_ms, standing, burns })
}

fn exhausted(remaining: f64, burn: Option<f64>, window_ms: u64, now_ms: TimestampMs) -> Option<TimestampMs> {
    if remaining <= 0.0 {
        return Some(now_ms);
    }
    let left_ms = remaining * window_ms as f64 / burn.filter(|burn| *burn > 0.0)?;
    // Errors that are a window old are forgiven, so beyond that the estimate says nothing.
    (left_ms <= window_ms as f64).then(|| now_ms.saturating_add(left_ms as i64))
}

fn milliseconds(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}
