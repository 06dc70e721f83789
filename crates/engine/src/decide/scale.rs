//! `scale`: another number of copies, kept across releases.

use super::Decider;
use crate::autoscale::PIN_LASTS;
use crate::event::Fact;
use crate::id::ServiceName;
use crate::refusal::Refusal;

/// Copies of one service on one machine. Each is a process with a shim; past this, it is a cluster's work.
pub const REPLICAS_MAX: u32 = 100;

impl Decider {
    pub(super) fn scale(&mut self, service: &ServiceName, replicas: u32) -> Result<(), Refusal> {
        self.scalable(service)?;
        if replicas > REPLICAS_MAX {
            return Err(Refusal::TooManyReplicas { replicas, max: REPLICAS_MAX });
        }
        // Where the load decides, whoever types a number gets that number, and the load decides again an hour later.
        let until = self.follows_load(service).then(|| self.now + PIN_LASTS);
        self.emit(Fact::Scaled { service: service.clone(), replicas, until })
    }

    /// A service that there is, and that may have several copies.
    pub(super) fn scalable(&self, service: &ServiceName) -> Result<(), Refusal> {
        self.known_service(service)?;
        let is_backing = self
            .env
            .active_releases()
            .into_iter()
            .filter_map(|release| self.env.service(release, service))
            .any(|spec| spec.is_backing());
        if is_backing { Err(Refusal::NotScalable { service: service.clone() }) } else { Ok(()) }
    }

    /// Do the copies of `service` follow the load, in the release that serves?
    pub(super) fn follows_load(&self, service: &ServiceName) -> bool {
        let serving = self.env.stable.or(self.env.rollout.as_ref().map(|rollout| rollout.to));
        serving
            .and_then(|release| self.env.service(release, service))
            .is_some_and(|spec| spec.autoscale.is_some())
    }

    pub(super) fn known_service(&self, service: &ServiceName) -> Result<(), Refusal> {
        let rollout = self.env.rollout.as_ref().map(|rollout| rollout.to);
        let releases: Vec<_> = self.env.stable.into_iter().chain(rollout).collect();
        let Some(newest) = releases.last().copied() else {
            return Err(Refusal::NothingDeployed { environment: self.env.key.clone() });
        };
        if releases.iter().any(|release| self.env.service(*release, service).is_some()) {
            return Ok(());
        }
        let known = self
            .env
            .release(newest)
            .map(|release| release.spec.services.keys().cloned().collect())
            .unwrap_or_default();
        Err(Refusal::UnknownService { service: service.clone(), release: newest, known })
    }
}
