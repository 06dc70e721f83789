//! How the facts about evidence change state: counts are added up, verdicts are kept. Nothing is judged here.

use crate::environment::Environment;
use crate::observation::Observation;
use crate::rollout::{Phase, StepState};
use crate::state::IllegalTransition;
use crate::time::Timestamp;
use crate::trial::Trial;

impl Environment {
    /// What the active rollout has shown. A log from before there was evidence has rollouts without: theirs begins now.
    pub(crate) fn trial(
        &mut self,
        illegal: &impl Fn(String) -> IllegalTransition,
    ) -> Result<&mut Trial, IllegalTransition> {
        self.active(illegal)?;
        Ok(self.trial.get_or_insert_with(Trial::default))
    }

    pub(crate) fn observe(
        &mut self,
        at: Timestamp,
        observation: &Observation,
        illegal: &impl Fn(String) -> IllegalTransition,
    ) -> Result<(), IllegalTransition> {
        let rollout = self.active(illegal)?;
        let releases = (rollout.to, rollout.from);
        // One that was tried before has counters from then.
        let Self { trial, history, .. } = self;
        let is_new_to_traffic = || !history.iter().any(|before| before.to == releases.0);
        trial.get_or_insert_with(Trial::default).observe(at, observation, releases, is_new_to_traffic);
        Ok(())
    }

    /// The trial follows the rollout's phases: steps and bakes begin.
    pub(crate) fn follow_phase(&mut self, at: Timestamp, before: &Phase) {
        let Some(rollout) = &self.rollout else { return };
        let (weight, has_shifted) = (rollout.weight(), rollout.has_shifted());
        let trial = self.trial.get_or_insert_with(Trial::default);
        trial.held = None;
        match (&rollout.phase, before) {
            // Its traffic has arrived.
            (
                Phase::Shifting { state: StepState::Holding { .. } | StepState::AwaitingPromotion, .. },
                Phase::Shifting { state: StepState::Raising, .. },
            )
            | (Phase::Baking { .. }, _) => trial.begin(at, weight),
            (
                Phase::Planned
                | Phase::Migrating { .. }
                | Phase::Starting
                | Phase::Verifying { .. }
                | Phase::Shifting { .. }
                | Phase::Committing
                | Phase::Aborting { .. },
                _,
            ) => {}
        }
        let is_judged = matches!(rollout.phase, Phase::Shifting { .. } | Phase::Baking { .. });
        if is_judged && has_shifted && !trial.is_shifted {
            trial.is_shifted = true;
            trial.excused = self.alerts.keys().cloned().collect();
        }
    }

    /// The trial follows the weights: from the moment that a table is decided until its step begins nobody knows which
    /// weight a request met. The larger one is reckoned with, so that nothing is held against the new version which its
    /// share explains.
    pub(crate) fn follow_weight(&mut self) {
        let Some(rollout) = &self.rollout else { return };
        let Some(from) = rollout.from else { return };
        let to = rollout.to;
        let beside = self.routes.table.services.iter().filter(|(service, _)| self.takes(from, service));
        let weight =
            beside.filter_map(|(_, route)| route.versions.get(&to)).map(|version| version.weight).max();
        let trial = self.trial.get_or_insert_with(Trial::default);
        trial.weight = trial.weight.max(weight.unwrap_or(0));
    }
}
