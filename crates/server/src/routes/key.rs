//! What an environment, a service and an instance are called in a snapshot: unique over all environments.

use fairway_engine::id::{EnvironmentKey, InstanceId, ServiceName};

/// `shop/production/api`
#[must_use]
pub fn service_key(environment: &EnvironmentKey, service: &ServiceName) -> String {
    format!("{environment}/{service}")
}

/// `shop/production/api.r12.3`
#[must_use]
pub fn instance_key(environment: &EnvironmentKey, instance: &InstanceId) -> String {
    format!("{environment}/{instance}")
}

pub(super) fn parse_instance_key(key: &str) -> Option<(EnvironmentKey, InstanceId)> {
    let (_, instance) = key.rsplit_once('/')?;
    Some((environment_of(key)?, instance.parse().ok()?))
}

/// Of `shop/production/api`.
pub(super) fn environment_of(service_key: &str) -> Option<EnvironmentKey> {
    let (environment, _) = service_key.rsplit_once('/')?;
    let (project, environment) = environment.split_once('/')?;
    Some(EnvironmentKey { project: project.parse().ok()?, environment: environment.parse().ok()? })
}
