//! What follows from the evidence: verdicts go on the record, a failing one turns the rollout back, and a step that has
//! not shown enough is held, and in the end handed to a person.

use std::time::Duration;

use super::{Clock, Decider};
use crate::event::Fact;
use crate::evidence::NoData;
use crate::refusal::Refusal;
use crate::rollout::{AbortCause, Phase, Rollout, StepState};
use crate::verdict::{Finding, GateId, Reason, Verdict};

/// How much longer than its hold a step is given to show enough, at least. A hold of a few seconds is a hurry, not a
/// promise of traffic.
const PATIENCE_MIN: Duration = Duration::from_secs(60);

/// The proxy's counters are read ten times a second and told every five seconds at least. A step that ends on older
/// ones would end unseen.
const READING_LASTS: Duration = Duration::from_secs(15);
/// Gates' sources are asked every five to fifteen seconds, and a command may take its time.
const ANSWER_LASTS: Duration = Duration::from_secs(60);

/// What the evidence means for the step or bake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    Enough,
    /// Something was put on the record that has to be looked at first, or there is nothing to do but wait.
    NotYet,
}

impl Decider {
    /// Puts on the record what the tests say otherwise than before, and turns back what fails. True when that was the
    /// end of it.
    pub(super) fn judge(&mut self, rollout: &Rollout) -> Result<bool, Refusal> {
        if !self.env.is_judged(rollout) {
            return Ok(false);
        }
        let findings = self.env.findings();
        for finding in &findings {
            let Some(trial) = &self.env.trial else { return Ok(false) };
            let before = trial.recorded(&finding.gate);
            // Of a trigger that is quiet nobody needs to hear first.
            let is_first_word = before.is_none() && matches!(finding.gate, GateId::Trigger { .. });
            let changed = finding.verdict.is_news_after(before)
                && !(is_first_word && finding.verdict == Verdict::Passing);
            if changed {
                let finding = Box::new(self.env.with_detectable(finding.clone()));
                self.follow(Fact::GateChanged { finding })?;
            }
        }
        let Some(failing) = findings.into_iter().find(|finding| finding.verdict == Verdict::Failing) else {
            return Ok(false);
        };
        if rollout.from.is_some() {
            let finding = Box::new(self.env.with_detectable(failing));
            self.abort(AbortCause::Evidence { finding })?;
            return Ok(true);
        }
        // A first deploy has nothing to go back to but an outage: a person decides.
        if rollout.is_paused() || self.env.trial.as_ref().is_some_and(|trial| trial.is_waived(&failing.gate))
        {
            return Ok(false);
        }
        self.hand_over(failing)?;
        Ok(true)
    }

    fn hand_over(&mut self, finding: Finding) -> Result<(), Refusal> {
        let finding = Box::new(self.env.with_detectable(finding));
        self.follow(Fact::PausedOnEvidence { finding })
    }

    /// The time of the step or bake is over: has it shown enough?
    pub(super) fn is_shown(&mut self, rollout: &Rollout) -> Result<Shown, Refusal> {
        let findings = self.env.findings().into_iter().map(|finding| self.as_of_now(finding));
        let open: Vec<Finding> = findings.filter(|finding| is_open(rollout, finding)).collect();
        let Some(first) = open.first() else { return Ok(Shown::Enough) };
        let Some(trial) = &self.env.trial else { return Ok(Shown::Enough) };
        match &trial.held {
            None => {
                let finding = Box::new(self.env.with_detectable(first.clone()));
                let until = self.now + self.patience(rollout, &open);
                self.follow(Fact::StepHeld { until, finding })?;
                Ok(Shown::NotYet)
            }
            Some(held) if held.until > self.now || self.clock == Clock::Holds => Ok(Shown::NotYet),
            Some(_) => self.do_without(rollout, first.clone()),
        }
    }

    /// What was good when it was last looked at is not known to be good now.
    fn as_of_now(&self, mut finding: Finding) -> Finding {
        let rests_on_counts = match finding.verdict {
            Verdict::Passing | Verdict::Skipped { reason: Reason::Unasked } => true,
            Verdict::Failing | Verdict::Waiting { .. } | Verdict::NoData { .. } | Verdict::Skipped { .. } => {
                false
            }
        };
        let Some(trial) = self.env.trial.as_ref().filter(|_| rests_on_counts) else { return finding };
        let asked = match finding.gate {
            GateId::Sequential { .. } | GateId::Trigger { .. } => None,
            GateId::Gate { index } => trial.asked.get(&index),
        };
        let (seen, lasts, why) = match asked {
            Some(asked) => (Some(asked.at), ANSWER_LASTS, "its source does not answer"),
            None => (trial.looked_at, READING_LASTS, "the proxy does not tell what it counted"),
        };
        if let Some(since) = seen.filter(|seen| self.now.since(*seen) > lasts) {
            let gone = Verdict::Waiting { reason: Reason::SourceGone { since, why: why.to_owned() } };
            // Whoever said to go on without it is not asked again and again.
            finding.verdict = trial.without(&finding.gate, gone);
        }
        finding
    }

    /// A source that has been gone for long decides at once, whatever is left of the hold. True when it did.
    pub(super) fn is_blind(&mut self, rollout: &Rollout) -> Result<bool, Refusal> {
        let gone = self.env.findings().into_iter().find(|finding| match finding.verdict {
            Verdict::NoData { .. } => true,
            Verdict::Passing | Verdict::Failing | Verdict::Waiting { .. } | Verdict::Skipped { .. } => false,
        });
        match gone {
            Some(finding) => self.do_without(rollout, finding).map(|_| true),
            None => Ok(false),
        }
    }

    fn do_without(&mut self, rollout: &Rollout, finding: Finding) -> Result<Shown, Refusal> {
        match self.rule(rollout, &finding) {
            NoData::Pause => self.hand_over(finding)?,
            NoData::Fail if rollout.from.is_none() => self.hand_over(finding)?,
            NoData::Fail => {
                let finding = Box::new(self.env.with_detectable(finding));
                self.abort(AbortCause::Evidence { finding })?;
            }
            NoData::Pass => {
                let (gate, name) = (finding.gate, finding.name);
                self.follow(Fact::GateWaived { gate, name, for_rollout: false })?;
            }
        }
        Ok(Shown::NotYet)
    }

    /// A person was asked, and says to go on: what was missing is not asked about again in this rollout, however many
    /// steps are left. What can be judged later is judged all the same, and turns the release back when it fails.
    pub(super) fn go_on_without(&mut self) -> Result<(), Refusal> {
        let Some(about) = self.env.trial.as_ref().and_then(|trial| trial.handed_over.clone()) else {
            return Ok(());
        };
        let kind = |finding: &Finding| {
            let reason = finding.verdict.reason()?;
            let why = match reason {
                Reason::SourceGone { why, .. } => why.clone(),
                Reason::TooFewRequests { .. }
                | Reason::NotMeasuredYet
                | Reason::Crossed { .. }
                | Reason::NoTraffic
                | Reason::NoBaseline
                | Reason::TooLittleBaseline { .. }
                | Reason::StableUnhealthy { .. }
                | Reason::BothFailing { .. }
                | Reason::Unasked
                | Reason::Waived
                | Reason::Decided => String::new(),
            };
            Some((std::mem::discriminant(reason), why))
        };
        let findings = self.env.findings().into_iter().map(|finding| self.as_of_now(finding));
        let missing: Vec<Finding> = findings.filter(|finding| finding.verdict.lacks_data()).collect();
        let asked = missing.iter().find(|finding| finding.gate == about).and_then(kind);
        // Whoever is asked is told of the first gate; the others that lack the same are the same question.
        let same = missing.into_iter().filter(|finding| asked.is_some() && kind(finding) == asked);
        let same: Vec<(GateId, String)> = same.map(|finding| (finding.gate, finding.name)).collect();
        for (gate, name) in same {
            match gate {
                // Triggers ask for nothing.
                GateId::Trigger { .. } => {}
                GateId::Sequential { .. } | GateId::Gate { .. } => {
                    self.emit(Fact::GateWaived { gate, name, for_rollout: true })?;
                }
            }
        }
        Ok(())
    }

    /// What holds when `finding` has nothing to go by.
    fn rule(&self, rollout: &Rollout, finding: &Finding) -> NoData {
        // That the fault is elsewhere is no want of data.
        if let Some(Reason::BothFailing { .. }) = finding.verdict.reason() {
            return NoData::Pause;
        }
        match finding.gate {
            GateId::Sequential { .. } | GateId::Trigger { .. } => NoData::Pause,
            GateId::Gate { index } => self
                .env
                .evidence_of(rollout)
                .and_then(|evidence| evidence.gates.get(index as usize))
                .map_or(NoData::Pause, |gate| gate.no_data),
        }
    }

    fn patience(&self, rollout: &Rollout, open: &[Finding]) -> Duration {
        let planned = match rollout.phase {
            Phase::Shifting { step, state: StepState::Holding { .. } } => {
                rollout.rung(step).map_or(Duration::ZERO, |rung| rung.hold)
            }
            Phase::Baking { .. }
            | Phase::Planned
            | Phase::Migrating { .. }
            | Phase::Starting
            | Phase::Verifying { .. }
            | Phase::Shifting { .. }
            | Phase::Committing
            | Phase::Aborting { .. } => Duration::ZERO,
        };
        // A bound that is crossed is waited for until it has been for long enough.
        let lasts = open.iter().filter_map(|finding| match finding.verdict.reason() {
            Some(Reason::Crossed { lasts, .. }) => Some(*lasts + PATIENCE_MIN),
            Some(_) | None => None,
        });
        lasts.chain([planned, PATIENCE_MIN]).max().unwrap_or(PATIENCE_MIN)
    }
}

/// Does a step or bake have to wait for it? Triggers undo; they ask for nothing. And where all traffic is on the new
/// version and nobody came, nobody is waited for: an environment without visitors could never be deployed to.
fn is_open(rollout: &Rollout, finding: &Finding) -> bool {
    let is_deserted = matches!(rollout.phase, Phase::Baking { .. })
        && matches!(finding.verdict.reason(), Some(Reason::TooFewRequests { have: 0, .. }));
    if is_deserted {
        return false;
    }
    let is_gate = match finding.gate {
        GateId::Sequential { .. } | GateId::Gate { .. } => true,
        GateId::Trigger { .. } => false,
    };
    let says_nothing = match finding.verdict {
        Verdict::Waiting { .. } | Verdict::NoData { .. } => true,
        Verdict::Passing | Verdict::Failing | Verdict::Skipped { .. } => false,
    };
    is_gate && says_nothing
}
