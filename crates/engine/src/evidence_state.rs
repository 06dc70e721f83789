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
        let is_new_to_traffic = !self.history.iter().any(|before| before.to == releases.0);
        self.trial(illegal)?.observe(at, observation, releases, is_new_to_traffic);
        Ok(())
    }

    /// The trial follows the rollout's phases: weights change, and steps and bakes begin.
    pub(crate) fn follow_phase(&mut self, at: Timestamp, before: &Phase, weight_before: u32) {
        let Some(rollout) = &self.rollout else { return };
        let (weight, has_shifted) = (rollout.weight(), rollout.has_shifted());
        let trial = self.trial.get_or_insert_with(Trial::default);
        trial.held = None;
        match (&rollout.phase, before) {
            // On the way from one weight to the other the larger one is reckoned with: nobody knows which of them a
            // request met, and what the new version may have had more of must not be held against it.
            (Phase::Shifting { state: StepState::Raising, .. }, _) => {
                trial.weight = weight.max(weight_before)
            }
            (Phase::Shifting { .. }, Phase::Shifting { state: StepState::Raising, .. }) => {
                trial.begin(at, weight)
            }
            (Phase::Baking { .. }, _) => trial.begin(at, weight),
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
        if is_judged && has_shifted {
            trial.shifted_at.get_or_insert(at);
        }
    }
}
