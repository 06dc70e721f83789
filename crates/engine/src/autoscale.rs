//! How many copies the load asks for: the algorithm of Kubernetes' HorizontalPodAutoscaler, pure. As documented in
//! "Horizontal Pod Autoscaling" (kubernetes.io, autoscaling/v2): a ratio per metric, the largest wins; a tolerance; what
//! could not be measured damps; stabilisation windows; policies of so much a period.
//!
//! Two differences. A recommendation goes on the record only when it changes, since a line every 15 s for ever would be
//! the larger part of the log; between two records the older one holds. And a number given by hand is not overwritten
//! at the next look: it holds for [`PIN_LASTS`]. Whoever types a number at night wants that number, up or down, at
//! once; and nobody should have to remember in the morning that the load no longer decides.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::evidence::{Autoscale, ScaleBehaviour, ScaleChange, ScaleMetric, ScaleSelect, ScaleSource};
use crate::observation::ScaleReading;
use crate::time::Timestamp;

/// How long a number given by hand holds on an autoscaled service: the length of an incident, not of a night.
pub const PIN_LASTS: Duration = Duration::from_secs(3_600);

/// Recommendations and changes that are remembered of one service. At a look every 15 s, and never the same twice in a
/// row, an hour's window has at most 240 of them.
const REMEMBERED_MAX: usize = 240;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Autoscaler {
    /// What the load decided last; none before it ever did.
    pub decided: Option<u32>,
    pub pin: Option<Pin>,
    /// What the load asked for, each until the next, oldest first.
    pub advised: VecDeque<(Timestamp, u32)>,
    /// Copies added (or taken away) and when, oldest first.
    pub changes: VecDeque<(Timestamp, i64)>,
}

/// A number given by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    pub replicas: u32,
    pub until: Timestamp,
}

impl Autoscaler {
    #[must_use]
    pub fn replicas(&self) -> Option<u32> {
        self.pin.map(|pin| pin.replicas).or(self.decided)
    }

    pub(crate) fn advise(&mut self, at: Timestamp, replicas: u32) {
        // A clock that stepped back must not leave advice in the future, which no window would ever let go of.
        self.advised.retain(|(then, _)| *then <= at);
        remember(&mut self.advised, (at, replicas));
    }

    pub(crate) fn change(&mut self, at: Timestamp, from: u32, to: u32) {
        self.changes.retain(|(then, _)| *then <= at);
        remember(&mut self.changes, (at, i64::from(to) - i64::from(from)));
        self.decided = Some(to);
    }

    /// What was advised within `window` before `now`, the advice in force at its beginning included.
    fn within(&self, now: Timestamp, window: Duration) -> impl Iterator<Item = u32> {
        let begins = self.advised.iter().rposition(|(then, _)| now.since(*then) >= window).unwrap_or(0);
        self.advised.iter().skip(begins).map(|(_, replicas)| *replicas)
    }

    /// Copies `(added, taken away)` within `period` before `now`.
    fn changed(&self, now: Timestamp, period: Duration) -> (u32, u32) {
        let recent = self.changes.iter().filter(|(then, _)| now.since(*then) < period);
        recent.fold((0, 0), |(added, taken), (_, by)| {
            let size = u32::try_from(by.unsigned_abs()).unwrap_or(u32::MAX);
            if *by > 0 {
                (u32::saturating_add(added, size), taken)
            } else {
                (added, taken.saturating_add(size))
            }
        })
    }

    /// The number of copies to have now, when the load asks for `advised`.
    #[must_use]
    pub fn decide(&self, settings: &Autoscale, now: Timestamp, current: u32, advised: u32) -> u32 {
        // Out of bounds is put right at once, as with Kubernetes: windows and policies are for what the load says.
        if current > settings.max || current < settings.min {
            return settings.clamp(current);
        }
        // The most cautious advice of each window.
        let lowest = self.within(now, settings.up.stabilisation).fold(advised, u32::min);
        let highest = self.within(now, settings.down.stabilisation).fold(advised, u32::max);
        let steady = current.max(lowest).min(highest);
        if steady > current {
            let limit = self.up_limit(&settings.up, now, current);
            settings.clamp(steady.min(limit)).max(current)
        } else if steady < current {
            let limit = self.down_limit(&settings.down, now, current);
            settings.clamp(steady.max(limit)).min(current)
        } else {
            current
        }
    }

    fn up_limit(&self, behaviour: &ScaleBehaviour, now: Timestamp, current: u32) -> u32 {
        let limits = behaviour.policies.iter().map(|policy| {
            let (added, taken) = self.changed(now, policy.period);
            let before = current.saturating_sub(added).saturating_add(taken);
            match policy.change {
                ScaleChange::Copies { value } => before.saturating_add(value),
                ScaleChange::Percent { value } => {
                    before.saturating_add(percent_of(before, value, u64::div_ceil))
                }
            }
        });
        match behaviour.select {
            ScaleSelect::Disabled => current,
            ScaleSelect::Max => limits.max().unwrap_or(u32::MAX),
            ScaleSelect::Min => limits.min().unwrap_or(u32::MAX),
        }
    }

    fn down_limit(&self, behaviour: &ScaleBehaviour, now: Timestamp, current: u32) -> u32 {
        let limits = behaviour.policies.iter().map(|policy| {
            let (added, taken) = self.changed(now, policy.period);
            let before = current.saturating_sub(added).saturating_add(taken);
            match policy.change {
                ScaleChange::Copies { value } => before.saturating_sub(value),
                // What is left is rounded down, as Kubernetes does: a small service can reach one copy.
                ScaleChange::Percent { value } => {
                    before.saturating_sub(percent_of(before, value, u64::div_ceil))
                }
            }
        });
        match behaviour.select {
            ScaleSelect::Disabled => current,
            // The policy that allows the largest change.
            ScaleSelect::Max => limits.min().unwrap_or(0),
            ScaleSelect::Min => limits.max().unwrap_or(0),
        }
    }
}

fn remember<T>(queue: &mut VecDeque<T>, item: T) {
    if queue.len() >= REMEMBERED_MAX {
        queue.pop_front();
    }
    queue.push_back(item);
}

fn percent_of(whole: u32, percent: u32, round: fn(u64, u64) -> u64) -> u32 {
    u32::try_from(round(u64::from(whole) * u64::from(percent), 100)).unwrap_or(u32::MAX)
}

impl Autoscale {
    #[must_use]
    pub fn clamp(&self, replicas: u32) -> u32 {
        replicas.max(self.min).min(self.max.max(self.min))
    }

    /// Copies that `reading` asks for where `current` are there; none when it says nothing, or when what could not be
    /// measured might be what keeps the copies needed.
    #[must_use]
    pub fn advise(&self, current: u32, reading: &ScaleReading) -> Option<u32> {
        let mut largest: Option<u32> = None;
        let mut is_partly_blind = false;
        for (index, metric) in self.metrics.iter().enumerate() {
            let value = reading.values.get(index).copied().flatten().map(|value| value.0);
            match value.filter(|value| value.is_finite() && *value >= 0.0) {
                Some(value) => {
                    let wanted = self.wanted(metric, current, reading.copies, value);
                    largest = Some(largest.map_or(wanted, |before| before.max(wanted)));
                }
                None => is_partly_blind = true,
            }
        }
        let advised = self.clamp(largest?);
        (!is_partly_blind || advised >= current).then_some(advised)
    }

    fn wanted(&self, metric: &ScaleMetric, current: u32, measured: u32, value: f64) -> u32 {
        let target = metric.target.0;
        if target <= 0.0 || current == 0 {
            return current;
        }
        let ratio = value / target;
        if self.is_within_tolerance(ratio) {
            return current;
        }
        match metric.source {
            // Of all copies together: there is no copy that could be missing from it.
            ScaleSource::Latency { .. } | ScaleSource::Query { .. } => ceil(f64::from(current) * ratio),
            ScaleSource::Cpu | ScaleSource::Memory | ScaleSource::Requests => {
                let measured = measured.min(current);
                let missing = current - measured;
                if missing == 0 {
                    return ceil(f64::from(current) * ratio);
                }
                // A copy that gave no value counts as idle where more are asked for, and as just busy enough where
                // fewer are: what is not known never makes the change larger.
                let assumed = if ratio > 1.0 { 0.0 } else { target };
                let sum = value * f64::from(measured) + assumed * f64::from(missing);
                let damped = sum / f64::from(current) / target;
                let turned = (damped > 1.0) != (ratio > 1.0);
                if turned || self.is_within_tolerance(damped) {
                    current
                } else {
                    ceil(f64::from(current) * damped)
                }
            }
        }
    }

    fn is_within_tolerance(&self, ratio: f64) -> bool {
        (ratio - 1.0).abs() <= self.tolerance.0
    }
}

/// Rounded up; what is larger than a count can be is bounded by `max` later. The small step back takes out what
/// floating point puts on top of a whole number: 3 × 1.1 is 3.3000000000000003.
fn ceil(value: f64) -> u32 {
    let up = (value - 1e-9).ceil();
    if up >= f64::from(u32::MAX) {
        u32::MAX
    } else if up <= 0.0 {
        0
    } else {
        // In range: checked above.
        up as u32
    }
}

#[cfg(test)]
mod tests;
