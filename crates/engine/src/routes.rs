//! The route table of an environment: what the proxy is to do, without a word about rollouts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::{Generation, InstanceId, ReleaseNumber, ServiceName};
use crate::instance::Address;
use crate::release::Listen;
use crate::service::RouteSpec;
use crate::strategy::Match;
use crate::time::Timestamp;

/// The last table that was decided and the last one that the proxy said it serves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Routes {
    pub generation: Generation,
    pub applied: Generation,
    pub table: Arc<RouteTable>,
    /// Why the proxy refused the current generation.
    pub refused: Option<String>,
    /// When it did.
    #[serde(default)]
    pub refused_at: Option<Timestamp>,
    /// Refusals since a table was last applied.
    #[serde(default)]
    pub refusals: u32,
}

/// First wait before a refused table is offered again while no rollout is there to be aborted for it; doubles up to
/// the maximum. What passes by itself (a port that another process holds) passes in seconds or in minutes.
const OFFER_AFTER_MIN: Duration = Duration::from_secs(5);
const OFFER_AFTER_MAX: Duration = Duration::from_secs(300);

impl Routes {
    #[must_use]
    pub fn is_applied(&self) -> bool {
        self.applied >= self.generation
    }

    /// When a refused table is to be offered again.
    #[must_use]
    pub fn offer_at(&self) -> Option<Timestamp> {
        let doublings = self.refusals.saturating_sub(1);
        let wait = OFFER_AFTER_MIN.saturating_mul(2u32.saturating_pow(doublings)).min(OFFER_AFTER_MAX);
        self.refused_at.map(|at| at + wait)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteTable {
    pub listen: Option<Listen>,
    pub services: BTreeMap<ServiceName, ServiceRoute>,
    /// The release that the environment's preview listener leads to.
    pub preview: Option<ReleaseNumber>,
    /// What visitors are told while maintenance is on.
    pub maintenance: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceRoute {
    /// The public route; none for a service that only other services call.
    pub route: Option<RouteSpec>,
    /// Weights sum to 100; or to 0 where only the preview leads to the service yet.
    pub versions: BTreeMap<ReleaseNumber, VersionRoute>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionRoute {
    pub weight: u32,
    pub matches: Vec<Match>,
    /// Percent of public requests of which this version gets a copy whose answer nobody sees.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub mirror: u32,
    /// Instance → address.
    pub instances: BTreeMap<InstanceId, Address>,
}

impl RouteTable {
    #[must_use]
    pub fn contains(&self, instance: &InstanceId) -> bool {
        self.services
            .get(&instance.service)
            .and_then(|service| service.versions.get(&instance.release))
            .is_some_and(|version| version.instances.contains_key(instance))
    }

    /// Percent of public requests of `service` that go to `release`.
    #[must_use]
    pub fn weight(&self, service: &ServiceName, release: ReleaseNumber) -> u32 {
        self.services
            .get(service)
            .and_then(|service| service.versions.get(&release))
            .map_or(0, |version| version.weight)
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the shape that serde asks for")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}
