//! One rule: what it gives at a moment, and what it remembers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::alert::{ALERT_NAME, Alert, AlertState, Change, RESOLVED_KEPT_MS, Transition};
use super::evaluate::{Evaluate, Found, Recorded};
use super::file::{RuleKind, RuleSpec};
use super::group::Surroundings;
use super::template::{Scene, Template};
use crate::labels::{Labels, NAME};
use crate::promql;
use crate::sample::{Sample, TimestampMs};

/// Queries that the templates of one evaluation of one rule may ask; a rule with a hundred alerts of two each is fine.
const TEMPLATE_QUERIES_MAX: usize = 1_000;

/// A rule and what it last gave.
#[derive(Clone, Debug)]
pub struct Rule {
    pub spec: RuleSpec,
    pub health: Health,
    pub last_at_ms: Option<TimestampMs>,
    pub took: Duration,
    pub(super) alerts: BTreeMap<Labels, Alert>,
    pub(super) series: BTreeSet<Labels>,
    /// When alerts became active, by what the store remembers; used for the first evaluation that succeeds.
    pub(super) remembered: BTreeMap<Labels, TimestampMs>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Health {
    #[default]
    Unknown,
    Good,
    /// Why the last evaluation failed.
    Bad {
        error: String,
    },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RuleState {
    pub name: String,
    /// As they are written; with the name they tell which rule it is.
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub alerts: Vec<Alert>,
    #[serde(default)]
    pub series: Vec<Labels>,
}

/// What a rule needs to know of its group and of the moment.
pub(super) struct Context<'a> {
    pub group_labels: &'a BTreeMap<String, String>,
    pub limit: usize,
    pub around: &'a Surroundings,
    pub at_ms: TimestampMs,
    pub sample_at_ms: TimestampMs,
}

impl Rule {
    pub(super) fn new(spec: RuleSpec) -> Self {
        Self {
            spec,
            health: Health::Unknown,
            last_at_ms: None,
            took: Duration::ZERO,
            alerts: BTreeMap::new(),
            series: BTreeSet::new(),
            remembered: BTreeMap::new(),
        }
    }

    /// Those that are pending, firing, or ended a short while ago; in the order of their labels.
    pub fn alerts(&self) -> impl Iterator<Item = &Alert> {
        self.alerts.values()
    }

    pub(super) fn label_texts(&self) -> BTreeMap<String, String> {
        let labels = self.spec.labels.iter();
        labels.map(|(name, template)| (name.clone(), template.text().to_owned())).collect()
    }

    pub(super) fn state(&self) -> RuleState {
        RuleState {
            name: self.spec.name().to_owned(),
            labels: self.label_texts(),
            alerts: self.alerts.values().cloned().collect(),
            series: self.series.iter().cloned().collect(),
        }
    }

    fn ask(&self, source: &mut dyn Evaluate, context: &Context<'_>) -> Result<Vec<Found>, String> {
        source.instant(&self.spec.query, context.sample_at_ms).map_err(|error| error.to_string())
    }

    pub(super) fn record(
        &self,
        source: &mut dyn Evaluate,
        context: &Context<'_>,
    ) -> Result<Vec<Recorded>, String> {
        let found = self.ask(source, context)?;
        if context.limit > 0 && found.len() > context.limit {
            return Err(format!("exceeded limit of {} with {} series", context.limit, found.len()));
        }
        let mut given = BTreeSet::new();
        let mut samples = Vec::with_capacity(found.len());
        for Found { labels, value } in found {
            let mut labels = labels.with(NAME, self.spec.name());
            for (name, value) in context.group_labels {
                labels = labels.with(name, value);
            }
            for (name, value) in &self.spec.labels {
                labels = labels.with(name, value.text());
            }
            if !given.insert(labels.clone()) {
                return Err(
                    "vector contains metrics with the same labelset after applying rule labels".to_owned()
                );
            }
            samples.push(Recorded { labels, sample: Sample { at_ms: context.sample_at_ms, value } });
        }
        Ok(samples)
    }

    /// Works on a copy: what fails in the middle must not leave half of its effects.
    pub(super) fn alert(
        &mut self,
        source: &mut dyn Evaluate,
        context: &Context<'_>,
        transitions: &mut Vec<Transition>,
    ) -> Result<Vec<Recorded>, String> {
        let RuleKind::Alert { hold, keep_firing, .. } = &self.spec.kind else { return Ok(Vec::new()) };
        let found = self.ask(source, context)?;
        let mut given = self.dress(found, source, context)?;
        let at_ms = context.at_ms;
        let mut alerts = self.alerts.clone();
        let mut changes: BTreeMap<Labels, Change> = BTreeMap::new();
        for (labels, alert) in &mut alerts {
            match (given.remove(labels), &mut alert.state) {
                (Some(now), AlertState::Pending | AlertState::Firing { .. }) => {
                    (alert.value, alert.annotations) = (now.value, now.annotations);
                    if let AlertState::Firing { gone_since_ms, .. } = &mut alert.state {
                        *gone_since_ms = None;
                    }
                }
                (Some(now), AlertState::Resolved { .. }) => {
                    *alert = now;
                    changes.insert(labels.clone(), Change::Pending);
                }
                (None, AlertState::Firing { since_ms, gone_since_ms }) => {
                    let gone = *gone_since_ms.get_or_insert(at_ms);
                    if elapsed(gone, at_ms) >= *keep_firing {
                        alert.state = AlertState::Resolved { since_ms: *since_ms, at_ms };
                        changes.insert(labels.clone(), Change::Resolved);
                    }
                }
                (None, AlertState::Pending) => {
                    changes.insert(labels.clone(), Change::Dropped);
                }
                (None, AlertState::Resolved { .. }) => {}
            }
        }
        for (labels, mut alert) in given {
            if let Some(active_at_ms) = self.remembered.get(&labels) {
                alert.active_at_ms = at_ms.min(*active_at_ms);
            }
            changes.insert(labels.clone(), Change::Pending);
            alerts.insert(labels, alert);
        }
        for (labels, alert) in &mut alerts {
            if alert.state == AlertState::Pending
                && elapsed(alert.active_at_ms, at_ms) >= *hold
                && changes.get(labels) != Some(&Change::Dropped)
            {
                alert.state = AlertState::Firing { since_ms: at_ms, gone_since_ms: None };
                changes.insert(labels.clone(), Change::Firing);
            }
        }
        for (labels, change) in &changes {
            let alert =
                if *change == Change::Dropped { alerts.remove(labels) } else { alerts.get(labels).cloned() };
            let rule = self.spec.name().to_owned();
            transitions.extend(alert.map(|alert| Transition { rule, alert, change: *change, at_ms }));
        }
        alerts.retain(|_, alert| match alert.state {
            AlertState::Resolved { at_ms: resolved, .. } => {
                at_ms.saturating_sub(resolved) <= RESOLVED_KEPT_MS
            }
            AlertState::Pending | AlertState::Firing { .. } => true,
        });
        self.alerts = alerts;
        self.remembered.clear();
        let active = self.alerts.values().filter(|alert| alert.is_active());
        Ok(active.flat_map(|alert| alert.samples(context.sample_at_ms)).collect())
    }

    /// The alerts that the query gives, each as it would be if it were new.
    fn dress(
        &self,
        found: Vec<Found>,
        source: &mut dyn Evaluate,
        context: &Context<'_>,
    ) -> Result<BTreeMap<Labels, Alert>, String> {
        let RuleKind::Alert { name, annotations, .. } = &self.spec.kind else { return Ok(BTreeMap::new()) };
        if context.limit > 0 && found.len() > context.limit {
            return Err(format!("exceeded limit of {} with {} alerts", context.limit, found.len()));
        }
        let mut given = BTreeMap::new();
        let mut asked = 0;
        for Found { labels, value } in found {
            let scene = Scene {
                labels: &labels,
                value,
                external_labels: &context.around.external_labels,
                external_url: &context.around.external_url,
                at_ms: context.sample_at_ms,
            };
            let mut ask = |text: &str| -> Result<Vec<Found>, String> {
                asked += 1;
                if asked > TEMPLATE_QUERIES_MAX {
                    return Err(format!(
                        "templates of this rule asked more than {TEMPLATE_QUERIES_MAX} queries"
                    ));
                }
                let query = promql::parse(text).map_err(|error| error.to_string())?;
                source.instant(&query, context.sample_at_ms).map_err(|error| error.to_string())
            };
            let mut expand = |template: &Template| {
                template.expand(&scene, &mut ask).unwrap_or_else(|why| {
                    format!("<error expanding template: error executing template __alert_{name}: {why}>")
                })
            };
            let mut dressed = labels.with(NAME, "");
            for (label, value) in context.group_labels {
                dressed = dressed.with(label, value);
            }
            for (label, template) in &self.spec.labels {
                dressed = dressed.with(label, &expand(template));
            }
            dressed = dressed.with(ALERT_NAME, name);
            let annotations =
                annotations.iter().map(|(name, template)| (name.clone(), expand(template))).collect();
            let alert = Alert {
                labels: dressed.clone(),
                annotations,
                value,
                active_at_ms: context.at_ms,
                state: AlertState::Pending,
            };
            if given.insert(dressed, alert).is_some() {
                return Err(
                    "vector contains metrics with the same labelset after applying alert labels".to_owned()
                );
            }
        }
        Ok(given)
    }
}

fn elapsed(from_ms: TimestampMs, to_ms: TimestampMs) -> Duration {
    Duration::from_millis(u64::try_from(to_ms.saturating_sub(from_ms)).unwrap_or(0))
}
