//! The route table of an environment: what the proxy is to do, without a word about rollouts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::{Generation, InstanceId, ReleaseNumber, ServiceName};
use crate::release::Listen;
use crate::service::RouteSpec;
use crate::strategy::Match;

/// The last table that was decided and the last one that the proxy said it serves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Routes {
    pub generation: Generation,
    pub applied: Generation,
    pub table: RouteTable,
    /// Why the proxy refused the current generation.
    pub refused: Option<String>,
}

impl Routes {
    #[must_use]
    pub fn is_applied(&self) -> bool {
        self.applied >= self.generation
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
    /// Weights sum to 100.
    pub versions: BTreeMap<ReleaseNumber, VersionRoute>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionRoute {
    pub weight: u32,
    pub matches: Vec<Match>,
    /// Instance → address.
    pub instances: BTreeMap<InstanceId, Box<str>>,
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
