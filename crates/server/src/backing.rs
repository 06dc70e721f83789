//! Backing services: provisioned where they run, reached by a URL.

use std::path::Path;

use fairway_engine::id::{EnvironmentKey, InstanceId, ServiceName};
use fairway_engine::service::{BackingEngine, Runs, ServiceSpec};
use fairway_targets::spec::InstanceSpec;

/// # Errors
/// When its binaries are missing or its data directory cannot be made.
pub fn instance(
    _state_dir: &Path,
    _environment: &EnvironmentKey,
    _instance: &InstanceId,
    _spec: &ServiceSpec,
    _engine: BackingEngine,
    _port: u16,
) -> Result<InstanceSpec, String> {
    Err("backing services are not available".into())
}

/// # Errors
/// When the service is none, or was never provisioned.
pub fn url(
    _state_dir: &Path,
    _environment: &EnvironmentKey,
    _service: &ServiceName,
    _runs: &Runs,
) -> Result<String, String> {
    Err("backing services are not available".into())
}
