//! The rule groups that are evaluated here: the built-in ones once, and those of each environment for itself.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fairway_engine::id::EnvironmentKey;
use fairway_engine::monitoring::{MetricsSource, Monitoring};
use fairway_engine::release::Release;
use fairway_metrics::builtin;
use fairway_metrics::httpapi::RuleGroup;
use fairway_metrics::labels::Labels;
use fairway_metrics::promql::{self, Query, Stop};
use fairway_metrics::rules::{
    Alert, Evaluate, EvaluateError, Found, Group, GroupState, Health, Local, Recorded, RuleFile,
    Surroundings, write,
};
use fairway_metrics::sample::Sample;
use fairway_metrics::slo;
use fairway_metrics::store::Store;
use serde::{Deserialize, Serialize};

use super::super::slos;

/// For all rules of one group: as long as the shortest interval that anybody uses. What is not evaluated by then has
/// failed, and keeps its alerts.
const GROUP_TIME_MAX: Duration = Duration::from_secs(15);

/// Whose rules, by what serves there.
pub type Settings = BTreeMap<EnvironmentKey, Arc<Release>>;

/// A group, and for whom it speaks: nobody's are the built-in ones, which look at every environment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Id {
    owner: Option<EnvironmentKey>,
    file: String,
    group: String,
}

#[derive(Debug)]
struct Entry {
    id: Id,
    /// As it is written, to see whether it changed.
    text: String,
    group: Group,
    /// Nobody remembers its alerts; the store may.
    fresh: bool,
    /// What fires is known: by its memory, or because every rule was evaluated well once.
    sure: bool,
}

/// What is written down.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Kept {
    id: Id,
    state: GroupState,
}

/// A round of evaluation: what belongs into the store, and whether an alert changed.
#[derive(Debug, Default)]
pub struct Round {
    pub samples: Vec<(Labels, Sample)>,
    pub changed: bool,
}

#[derive(Debug, Default)]
pub struct Book {
    entries: Vec<Entry>,
    /// Of an earlier run, not taken over yet.
    kept: HashMap<Id, GroupState>,
    /// Rule files that cannot be read, and why.
    problems: BTreeMap<EnvironmentKey, Vec<String>>,
}

impl Book {
    #[must_use]
    pub fn restored(kept: Vec<Kept>) -> Self {
        Self { kept: kept.into_iter().map(|one| (one.id, one.state)).collect(), ..Self::default() }
    }

    #[must_use]
    pub fn kept(&self) -> Vec<Kept> {
        self.entries.iter().map(|entry| Kept { id: entry.id.clone(), state: entry.group.state() }).collect()
    }

    /// Takes over what the settings say now. Groups that stay go on; those that go end their series.
    pub fn configure(&mut self, settings: &Settings, now_ms: i64) -> Round {
        let around = Arc::new(Surroundings::default());
        let mut round = Round::default();
        let mut old: HashMap<Id, Entry> =
            self.entries.drain(..).map(|entry| (entry.id.clone(), entry)).collect();
        self.problems.clear();
        for (owner, file) in wanted(settings, &mut self.problems) {
            for spec in file.groups {
                let id = Id { owner: owner.clone(), file: file.name.clone(), group: spec.name.clone() };
                let text = write(std::slice::from_ref(&spec));
                if let Some(same) = old.remove(&id) {
                    if same.text == text {
                        self.entries.push(same);
                        continue;
                    }
                    let mut group = Group::new(&file.name, spec, Arc::clone(&around));
                    round.changed |= !group.adopt(same.group.state(), now_ms).is_empty();
                    self.entries.push(Entry { id, text, group, fresh: false, sure: same.sure });
                    continue;
                }
                let mut group = Group::new(&file.name, spec, Arc::clone(&around));
                let memory = self.kept.remove(&id);
                let (fresh, sure) = (memory.is_none(), memory.is_some());
                if let Some(memory) = memory {
                    round.changed |= !group.adopt(memory, now_ms).is_empty();
                }
                self.entries.push(Entry { id, text, group, fresh, sure });
            }
        }
        for entry in old.into_values() {
            let end = entry.group.retire(now_ms);
            round.changed |= !end.transitions.is_empty();
            round.take(end.samples);
        }
        round
    }

    #[must_use]
    pub fn next_at_ms(&self) -> Option<i64> {
        self.entries.iter().map(|entry| entry.group.next_at_ms()).min()
    }

    /// Evaluates what is due.
    pub fn evaluate(&mut self, store: &Store, engine: &promql::Engine, now_ms: i64) -> Round {
        let mut round = Round::default();
        for entry in &mut self.entries {
            let Some(due) = entry.group.due(now_ms) else { continue };
            if std::mem::take(&mut entry.fresh)
                && let Err(error) = entry.group.remember(store, now_ms)
            {
                crate::warn::warn(format_args!("since when alerts were active is not known: {error}"));
            }
            let begun = Instant::now();
            let stop = Stop(Arc::new(move || begun.elapsed() > GROUP_TIME_MAX));
            let engine = promql::Engine { stop: Some(stop), ..engine.clone() };
            let elapsed = || begun.elapsed();
            let local = Local::new(store, &engine).timed(&elapsed);
            let owner = entry.id.owner.as_ref().map(ToString::to_string);
            let mut source = Owned { local, owner };
            let evaluation = entry.group.evaluate(&mut source, due.at_ms);
            entry.sure |= evaluation.failures.is_empty();
            round.changed |= !evaluation.transitions.is_empty();
            round.take(evaluation.samples);
        }
        round
    }

    /// Alerts of an environment, and of the machine that it runs on: whatever state they are in.
    pub fn alerts<'a>(
        &'a self,
        environment: &'a EnvironmentKey,
        monitoring: &'a Monitoring,
    ) -> impl Iterator<Item = &'a Alert> {
        let key = environment.to_string();
        let is_unwanted = |name: &str| monitoring.without.iter().any(|unwanted| unwanted == name);
        self.entries
            .iter()
            .filter(move |entry| entry.id.owner.as_ref().is_none_or(|owner| owner == environment))
            .flat_map(move |entry| entry.group.alerts().map(|alert| (entry.id.owner.is_none(), alert)))
            .filter(move |(is_builtin, alert)| {
                let of = alert.labels.get("environment").unwrap_or_default();
                (of.is_empty() || of == key) && !(*is_builtin && is_unwanted(alert.name()))
            })
            .map(|(_, alert)| alert)
    }

    /// Whether it is known of every alert of the environment if it fires.
    #[must_use]
    pub fn is_sure(&self, environment: &EnvironmentKey) -> bool {
        self.of(environment).all(|entry| entry.sure)
    }

    fn of<'a>(&'a self, environment: &'a EnvironmentKey) -> impl Iterator<Item = &'a Entry> {
        self.entries
            .iter()
            .filter(move |entry| entry.id.owner.as_ref().is_none_or(|owner| owner == environment))
    }

    #[must_use]
    pub fn shown(&self) -> Vec<RuleGroup> {
        let mut shown: Vec<RuleGroup> = self.entries.iter().map(|entry| entry.group.shown()).collect();
        shown.sort_by(|one, other| one.file.cmp(&other.file));
        shown
    }

    /// What keeps rules of the environment from being evaluated, one sentence each.
    #[must_use]
    pub fn problems(&self, environment: &EnvironmentKey) -> Vec<String> {
        let mut problems = self.problems.get(environment).cloned().unwrap_or_default();
        let rules = self.of(environment).flat_map(|entry| {
            entry.group.rules().iter().filter_map(move |rule| match &rule.health {
                Health::Bad { error } => {
                    let (file, name) = (entry.group.file(), rule.spec.name());
                    Some(format!(
                        "{name} of {file} cannot be evaluated, and its alerts stay as they are: {error}"
                    ))
                }
                Health::Good | Health::Unknown => None,
            })
        });
        problems.extend(rules);
        problems
    }
}

impl Round {
    fn take(&mut self, recorded: Vec<Recorded>) {
        self.samples.extend(recorded.into_iter().map(|one| (one.labels, one.sample)));
    }
}

/// Every rule file that is evaluated here, and whose it is. What cannot be read is told with its place.
fn wanted(
    settings: &Settings,
    problems: &mut BTreeMap<EnvironmentKey, Vec<String>>,
) -> Vec<(Option<EnvironmentKey>, RuleFile)> {
    let here: Vec<(&EnvironmentKey, &Monitoring)> = settings
        .iter()
        .map(|(environment, release)| (environment, &release.spec.monitoring))
        .filter(|(_, monitoring)| match monitoring.source {
            MetricsSource::BuiltIn => true,
            MetricsSource::Prometheus { .. } => false,
        })
        .collect();
    if here.is_empty() {
        return Vec::new();
    }
    let mut files = vec![(None, builtin_for(&here))];
    for (environment, monitoring) in here {
        let mut trouble = Vec::new();
        let name = format!("{environment}: objectives");
        match slo::rule_file(&name, &slos::specs(environment, monitoring)) {
            Ok(file) => files.push((Some(environment.clone()), file)),
            Err(error) => trouble.push(error.to_string()),
        }
        for written in &monitoring.rules {
            // Two environments may have a file of one name.
            match RuleFile::parse(&format!("{environment}: {}", written.path), &written.text) {
                Ok(file) => files.push((Some(environment.clone()), file)),
                Err(error) => trouble.push(error.to_string()),
            }
        }
        if !trouble.is_empty() {
            problems.insert(environment.clone(), trouble);
        }
    }
    files
}

/// Without what nobody wants. What only some do not want is evaluated, and kept from them.
fn builtin_for(here: &[(&EnvironmentKey, &Monitoring)]) -> RuleFile {
    let unwanted = here.iter().map(|(_, monitoring)| monitoring.without.iter().collect::<BTreeSet<_>>());
    let unwanted = unwanted.reduce(|all, one| all.intersection(&one).copied().collect()).unwrap_or_default();
    let names: Vec<String> = unwanted.into_iter().cloned().collect();
    // A name that no built-in alert has was told when the file was checked; here it switches nothing off.
    builtin::alerts(&[]).expect("nothing is left out of it").without(&names)
}

/// An environment's rules speak for it alone: what they find has its name, and of others they have nothing to say. A
/// rule of a test environment must not page for production.
struct Owned<'a> {
    local: Local<'a>,
    owner: Option<String>,
}

impl Evaluate for Owned<'_> {
    fn instant(&mut self, query: &Query, at_ms: i64) -> Result<Vec<Found>, EvaluateError> {
        let mut found = self.local.instant(query, at_ms)?;
        let Some(owner) = &self.owner else { return Ok(found) };
        found.retain_mut(|one| match one.labels.get("environment") {
            Some(of) if !of.is_empty() => of == owner,
            Some(_) | None => {
                one.labels = one.labels.with("environment", owner);
                true
            }
        });
        Ok(found)
    }

    fn record(&mut self, samples: &[Recorded]) {
        self.local.record(samples);
    }

    fn elapsed(&self) -> Duration {
        self.local.elapsed()
    }
}

#[cfg(test)]
mod tests;
