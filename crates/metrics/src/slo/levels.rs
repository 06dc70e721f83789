//! At which burn rates somebody is told.

use std::time::Duration;

use super::SloSpec;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Somebody gets up.
    Page,
    /// Somebody looks at it in the working day.
    Ticket,
}

/// Both windows must burn at least `factor` times as fast as the budget allows: the long one shows that it matters,
/// the short one that it still goes on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Level {
    pub severity: Severity,
    pub long: Duration,
    pub short: Duration,
    pub factor: f64,
}

const MINUTE: u64 = 60;
const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

/// Share of the budget, in this time, and the short window. The workbook's table.
const TABLE: [(Severity, f64, u64, u64); 4] = [
    (Severity::Page, 0.02, HOUR, 5 * MINUTE),
    (Severity::Page, 0.05, 6 * HOUR, 30 * MINUTE),
    (Severity::Ticket, 0.10, DAY, 2 * HOUR),
    (Severity::Ticket, 0.10, 3 * DAY, 6 * HOUR),
];

/// Those of the table that can be reached and are beyond the budget. A window other than 30 days gets the last one in
/// proportion: a tenth of the budget in a tenth of the window.
#[must_use]
pub fn levels(spec: &SloSpec) -> Vec<Level> {
    let window = spec.window.as_secs_f64();
    let allowed = 1.0 - spec.objective;
    let mut levels: Vec<Level> = TABLE
        .iter()
        .map(|(severity, share, long, short)| Level {
            severity: *severity,
            long: Duration::from_secs(*long),
            short: Duration::from_secs(*short),
            factor: share * window / (*long as f64),
        })
        // The share of bad events cannot be above 1; the product is rounded, hence the hair.
        .filter(|level| level.factor >= 1.0 - 1e-9 && level.factor * allowed < 1.0)
        .collect();
    if !levels.iter().any(|level| (level.factor - 1.0).abs() < 1e-9) {
        let whole_minutes = |length: u64| Duration::from_secs((length / MINUTE).max(5) * MINUTE);
        let seconds = spec.window.as_secs();
        let (long, short) = (whole_minutes(seconds / 10), whole_minutes(seconds / 120));
        levels.push(Level { severity: Severity::Ticket, long, short, factor: 1.0 });
    }
    levels
}
