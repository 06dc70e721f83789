//! A group of rules, evaluated one after the other at one moment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::alert::{ALERT_NAME, ALERTS_FOR_STATE, Alert, AlertState, Change, Transition};
use super::evaluate::{Evaluate, Recorded};
use super::file::{GroupSpec, RuleKind};
use super::rule::{Context, Health, Rule, RuleState};
use crate::labels::{Labels, NAME};
use crate::sample::{Sample, TimestampMs, is_stale, stale};
use crate::select::{Matcher, Querier, SelectError};

/// After a longer silence nobody knows whether a pending alert's cause went on: it begins anew. Prometheus' default.
pub const OUTAGE_MAX_MS: i64 = 3_600_000;

/// What is the same for all groups of a server.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Where a group says nothing.
    pub interval: Duration,
    pub query_offset: Duration,
    pub external_labels: BTreeMap<String, String>,
    /// Where people reach the server; empty when unknown.
    pub external_url: String,
}

impl Default for Surroundings {
    fn default() -> Self {
        Self {
            // Half a minute: quick enough to page by, and twice the default scrape interval.
            interval: Duration::from_secs(30),
            query_offset: Duration::ZERO,
            external_labels: BTreeMap::new(),
            external_url: String::new(),
        }
    }
}

#[derive(Clone, Debug)]
pub struct Group {
    file: String,
    spec: GroupSpec,
    around: Arc<Surroundings>,
    rules: Vec<Rule>,
    /// Series of rules that are no longer there; they get their stale markers with the next evaluation.
    orphans: BTreeSet<Labels>,
    last_at_ms: Option<TimestampMs>,
    took: Duration,
    missed: u64,
}

/// What one evaluation gave. All of it has to be carried out by whoever asked for it.
#[derive(Clone, Debug, Default)]
pub struct Evaluation {
    pub at_ms: TimestampMs,
    /// To be appended to the store, in this order.
    pub samples: Vec<Recorded>,
    pub transitions: Vec<Transition>,
    pub failures: Vec<Failure>,
}

/// A rule that could not be evaluated. Its alerts stay as they were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub rule: String,
    pub error: String,
}

/// An evaluation that should happen now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    pub at_ms: TimestampMs,
    /// Moments before it that nobody evaluated.
    pub missed: u64,
}

/// What has to survive a restart or a change of the rules.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct GroupState {
    pub last_at_ms: Option<TimestampMs>,
    pub missed: u64,
    pub rules: Vec<RuleState>,
    #[serde(default)]
    pub orphans: Vec<Labels>,
}

impl Group {
    #[must_use]
    pub fn new(file: &str, spec: GroupSpec, around: Arc<Surroundings>) -> Self {
        let rules = spec.rules.iter().cloned().map(Rule::new).collect();
        Self {
            file: file.to_owned(),
            spec,
            around,
            rules,
            orphans: BTreeSet::new(),
            last_at_ms: None,
            took: Duration::ZERO,
            missed: 0,
        }
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// The name of the file that it stands in.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    #[must_use]
    pub fn spec(&self) -> &GroupSpec {
        &self.spec
    }

    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    #[must_use]
    pub fn interval(&self) -> Duration {
        self.spec.interval.unwrap_or(self.around.interval)
    }

    #[must_use]
    pub fn last_at_ms(&self) -> Option<TimestampMs> {
        self.last_at_ms
    }

    #[must_use]
    pub fn took(&self) -> Duration {
        self.took
    }

    #[must_use]
    pub fn missed(&self) -> u64 {
        self.missed
    }

    /// Every alert of the group that is pending, firing, or ended a short while ago.
    pub fn alerts(&self) -> impl Iterator<Item = &Alert> {
        self.rules.iter().flat_map(Rule::alerts)
    }

    fn interval_ms(&self) -> i64 {
        i64::try_from(self.interval().as_millis()).unwrap_or(i64::MAX).max(1)
    }

    fn offset_ms(&self) -> i64 {
        let offset = self.spec.query_offset.unwrap_or(self.around.query_offset);
        i64::try_from(offset.as_millis()).unwrap_or(i64::MAX)
    }

    /// The last moment of the schedule that is not after `now_ms`. Groups are spread over their interval by name, so
    /// that they do not all come at once, and come at the same moments after a restart.
    #[must_use]
    pub fn slot(&self, now_ms: TimestampMs) -> TimestampMs {
        let interval = self.interval_ms();
        // FNV-1a, which is the same on every machine and in every version.
        let hash = self
            .file
            .bytes()
            .chain([0])
            .chain(self.spec.name.bytes())
            .fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3_u64)
            });
        let offset = i64::try_from(hash % interval.unsigned_abs()).unwrap_or(0);
        now_ms.saturating_sub(now_ms.saturating_sub(offset).rem_euclid(interval))
    }

    /// When the next evaluation is due; for a new group that is the beginning of time.
    #[must_use]
    pub fn next_at_ms(&self) -> TimestampMs {
        self.last_at_ms.map_or(TimestampMs::MIN, |last| self.slot(last).saturating_add(self.interval_ms()))
    }

    /// The evaluation that is due, if one is. Several that were slept through are one: the past cannot be paged.
    #[must_use]
    pub fn due(&self, now_ms: TimestampMs) -> Option<Due> {
        let at_ms = self.slot(now_ms);
        let interval = self.interval_ms();
        match self.last_at_ms {
            None => Some(Due { at_ms, missed: 0 }),
            // A clock that was set back must not silence the rules until it has caught up.
            Some(last) if last > now_ms.saturating_add(interval.saturating_mul(2)) => {
                Some(Due { at_ms, missed: 0 })
            }
            Some(last) if at_ms <= last => None,
            Some(last) => {
                let missed = at_ms.saturating_sub(self.slot(last)) / interval - 1;
                Some(Due { at_ms, missed: u64::try_from(missed).unwrap_or(0) })
            }
        }
    }

    /// Evaluates every rule as of `at_ms`: usually [`Due::at_ms`].
    pub fn evaluate(&mut self, source: &mut dyn Evaluate, at_ms: TimestampMs) -> Evaluation {
        let begun = source.elapsed();
        let sample_at_ms = at_ms.saturating_sub(self.offset_ms());
        let silent = self.last_at_ms.is_some_and(|last| at_ms.saturating_sub(last) > OUTAGE_MAX_MS);
        if let Some(last) = self.last_at_ms {
            let slots = self.slot(at_ms).saturating_sub(self.slot(last)) / self.interval_ms() - 1;
            self.missed = self.missed.saturating_add(u64::try_from(slots).unwrap_or(0));
        }
        let mut evaluation = Evaluation { at_ms, ..Evaluation::default() };
        for rule in &mut self.rules {
            if silent {
                rule.alerts.retain(|_, alert| alert.state != AlertState::Pending);
            }
            let rule_begun = source.elapsed();
            let context = Context {
                group_labels: &self.spec.labels,
                limit: self.spec.limit,
                around: &self.around,
                at_ms,
                sample_at_ms,
            };
            let outcome = match rule.spec.kind {
                RuleKind::Record { .. } => rule.record(source, &context),
                RuleKind::Alert { .. } => rule.alert(source, &context, &mut evaluation.transitions),
            };
            rule.took = source.elapsed().saturating_sub(rule_begun);
            rule.last_at_ms = Some(at_ms);
            let mut samples = match outcome {
                Ok(samples) => samples,
                Err(error) => {
                    evaluation
                        .failures
                        .push(Failure { rule: rule.spec.name().to_owned(), error: error.clone() });
                    rule.health = Health::Bad { error };
                    continue;
                }
            };
            rule.health = Health::Good;
            let given: BTreeSet<Labels> = samples.iter().map(|sample| sample.labels.clone()).collect();
            let gone = rule.series.difference(&given);
            samples.extend(gone.map(|labels| ended(labels.clone(), sample_at_ms)));
            rule.series = given;
            source.record(&samples);
            evaluation.samples.append(&mut samples);
        }
        let alive: BTreeSet<&Labels> = self.rules.iter().flat_map(|rule| &rule.series).collect();
        let orphans = std::mem::take(&mut self.orphans);
        evaluation.samples.extend(
            orphans
                .into_iter()
                .filter(|labels| !alive.contains(labels))
                .map(|labels| ended(labels, sample_at_ms)),
        );
        self.last_at_ms = Some(at_ms);
        self.took = source.elapsed().saturating_sub(begun);
        evaluation
    }

    /// What to keep for [`Self::adopt`].
    #[must_use]
    pub fn state(&self) -> GroupState {
        GroupState {
            last_at_ms: self.last_at_ms,
            missed: self.missed,
            rules: self.rules.iter().map(Rule::state).collect(),
            orphans: self.orphans.iter().cloned().collect(),
        }
    }

    /// Goes on from what this group, or the one before a change of its file, was. Timers are absolute: `for` counts on
    /// from where it began. Alerts of rules that are gone have ended; the transitions say so.
    pub fn adopt(&mut self, state: GroupState, now_ms: TimestampMs) -> Vec<Transition> {
        let mut ended = Vec::new();
        self.last_at_ms = state.last_at_ms;
        self.missed = state.missed;
        self.orphans.extend(state.orphans);
        let mut heirs: Vec<&mut Rule> = self.rules.iter_mut().collect();
        for old in state.rules {
            let found = heirs.iter().position(|rule| {
                // A recording that took the name of an alert must not keep it alive for ever.
                let fits = old.alerts.is_empty() || matches!(rule.spec.kind, RuleKind::Alert { .. });
                fits && rule.spec.name() == old.name && rule.label_texts() == old.labels
            });
            match found {
                Some(index) => {
                    let heir = heirs.remove(index);
                    heir.alerts = old.alerts.into_iter().map(|alert| (alert.labels.clone(), alert)).collect();
                    heir.series = old.series.into_iter().collect();
                }
                None => {
                    ended.extend(old.alerts.into_iter().filter_map(|alert| end(&old.name, alert, now_ms)));
                    self.orphans.extend(old.series);
                }
            }
        }
        ended
    }

    /// The end of a group that is no longer wanted: its series end and so do its alerts.
    #[must_use]
    pub fn retire(self, now_ms: TimestampMs) -> Evaluation {
        let at_ms = now_ms.saturating_sub(self.offset_ms());
        let mut evaluation = Evaluation { at_ms: now_ms, ..Evaluation::default() };
        let series = self.rules.iter().flat_map(|rule| &rule.series).chain(&self.orphans).cloned();
        evaluation.samples = series.map(|labels| ended(labels, at_ms)).collect();
        for rule in self.rules {
            let name = rule.spec.name().to_owned();
            evaluation
                .transitions
                .extend(rule.alerts.into_values().filter_map(|alert| end(&name, alert, now_ms)));
        }
        evaluation
    }

    /// Remembers since when alerts were active by `ALERTS_FOR_STATE`, for a group without a [`GroupState`]. Unlike
    /// Prometheus, which adds the outage to `for` and does not restore a short one, the moment itself is restored.
    ///
    /// # Errors
    /// When the store cannot be read; the group can then be evaluated all the same.
    pub fn remember(&mut self, querier: &dyn Querier, now_ms: TimestampMs) -> Result<(), SelectError> {
        for rule in &mut self.rules {
            let RuleKind::Alert { name, hold, .. } = &rule.spec.kind else { continue };
            if hold.is_zero() {
                continue;
            }
            let matchers = [Matcher::equal(NAME, ALERTS_FOR_STATE), Matcher::equal(ALERT_NAME, name)];
            for series in querier.select(
                &matchers,
                now_ms.saturating_sub(OUTAGE_MAX_MS),
                now_ms,
                REMEMBERED_SAMPLES_MAX,
            )? {
                let Some(last) = series.samples.last().filter(|sample| !is_stale(sample.value)) else {
                    continue;
                };
                let seconds = last.value;
                if seconds.is_finite() && seconds.abs() < 1e13 {
                    rule.remembered.insert(series.labels.with(NAME, ""), (seconds * 1000.0) as TimestampMs);
                }
            }
        }
        Ok(())
    }
}

/// An hour of a thousand alerts, twice a minute, and some.
const REMEMBERED_SAMPLES_MAX: usize = 1_000_000;

fn ended(labels: Labels, at_ms: TimestampMs) -> Recorded {
    Recorded { labels, sample: Sample { at_ms, value: stale() } }
}

fn end(rule: &str, mut alert: Alert, at_ms: TimestampMs) -> Option<Transition> {
    let change = match alert.state {
        AlertState::Pending => Change::Dropped,
        AlertState::Firing { since_ms, .. } => {
            alert.state = AlertState::Resolved { since_ms, at_ms };
            Change::Resolved
        }
        AlertState::Resolved { .. } => return None,
    };
    Some(Transition { rule: rule.to_owned(), alert, change, at_ms })
}
