//! Copies that follow the load.

use super::{Decider, REPLICAS_MAX};
use crate::environment::Power;
use crate::event::Fact;
use crate::id::{ReleaseNumber, ServiceName};
use crate::observation::ScaleReading;
use crate::refusal::Refusal;
use crate::rollout::Phase;

impl Decider {
    pub(super) fn size(&mut self, service: &ServiceName, reading: &ScaleReading) -> Result<(), Refusal> {
        let Some((release, settings)) = self.autoscaled(service) else {
            self.ignore(format!("the copies of {service} do not follow the load"));
            return Ok(());
        };
        let current = self.env.replicas(release, service);
        let Some(advised) = settings.advise(current, reading) else {
            self.ignore("the reading says nothing");
            return Ok(());
        };
        let known = self.env.autoscalers.get(service).cloned().unwrap_or_default();
        if known.advised.back().is_none_or(|(_, before)| *before != advised) {
            self.follow(Fact::ScaleAdvised { service: service.clone(), replicas: advised })?;
        }
        if known.pin.is_some() || self.stands_still() {
            return Ok(());
        }
        let known = self.env.autoscalers.get(service).cloned().unwrap_or_default();
        let to = known.decide(&settings, self.now, current, advised).min(REPLICAS_MAX);
        // While two versions are side by side the one that serves keeps what it has: it may have to take everything
        // back at any moment.
        if to == current || (to < current && self.env.rollout.is_some()) {
            return Ok(());
        }
        let values = reading.values.iter().map(|value| value.filter(|value| value.0.is_finite())).collect();
        self.follow(Fact::AutoScaled { service: service.clone(), from: current, to, advised, values })
    }

    /// The release whose settings hold: that of the coming one only once it has taken over.
    fn autoscaled(&self, service: &ServiceName) -> Option<(ReleaseNumber, crate::evidence::Autoscale)> {
        if let Power::Down { .. } = self.env.power {
            return None;
        }
        let coming = self.env.rollout.as_ref().map(|rollout| rollout.to);
        let release = self.env.stable.or(coming)?;
        let settings = self.env.service(release, service)?.autoscale.clone()?;
        Some((release, settings))
    }

    /// Nobody changes anything about a rollout that is paused, and one that turns back needs all that stable has.
    fn stands_still(&self) -> bool {
        self.env.rollout.as_ref().is_some_and(|rollout| {
            rollout.is_paused() || matches!(rollout.phase, Phase::Aborting { .. } | Phase::Committing)
        })
    }

    /// Numbers given by hand whose hour is over.
    pub(super) fn free_scales(&mut self) -> Result<(), Refusal> {
        let over: Vec<ServiceName> = self
            .env
            .autoscalers
            .iter()
            .filter(|(_, scaler)| scaler.pin.is_some_and(|pin| pin.until <= self.now))
            .map(|(service, _)| service.clone())
            .collect();
        for service in over {
            self.follow(Fact::ScaleFreed { service })?;
        }
        Ok(())
    }

    /// `scale SERVICE auto`: the load decides again, or the release.
    pub(super) fn autoscale(&mut self, service: &ServiceName) -> Result<(), Refusal> {
        // Also of a service that is gone or down: the number would hold when it comes back.
        let is_pinned = self.env.autoscalers.get(service).is_some_and(|scaler| scaler.pin.is_some());
        let is_scaled = self.env.scale.contains_key(service);
        if !is_pinned && !is_scaled {
            self.scalable(service)?;
            let follows_load = self.follows_load(service);
            return Err(Refusal::NotScaledByHand { service: service.clone(), follows_load });
        }
        // One that has come to follow its load, or does no more, may have both.
        for _ in 0..usize::from(is_pinned) + usize::from(is_scaled) {
            self.emit(Fact::ScaleFreed { service: service.clone() })?;
        }
        Ok(())
    }
}
