//! Backing services: provisioned where they run, reached by a URL.

use std::path::Path;

use fairway_engine::id::{EnvironmentKey, ServiceName};
use fairway_engine::service::BackingEngine;
use fairway_targets::backing::{Backing, BackingRequest, prepare};

use crate::ports::Ports;

/// What to run for a backing service and how to reach it; sets its data directory up the first time. As for every
/// service on one machine, its port is one of Fairway's choosing: two environments may have a database each.
///
/// Called where blocking is allowed.
///
/// # Errors
/// When its programs are missing or its data directory cannot be made, for people.
pub fn backing(
    state_dir: &Path,
    ports: &Ports,
    environment: &EnvironmentKey,
    service: &ServiceName,
    engine: BackingEngine,
) -> Result<Backing, String> {
    let port = ports
        .address(&format!("{environment}/{service}"))
        .map_err(|error| format!("no port for {service}: {error}"))?
        .port();
    let data_dir = state_dir
        .join("backing")
        .join(environment.project.as_str())
        .join(environment.environment.as_str())
        .join(service.as_str());
    let database = environment.project.as_str().replace('-', "_");
    let request = BackingRequest { engine, data_dir, port, database };
    tokio::runtime::Handle::current().block_on(prepare(&request)).map_err(|error| error.to_string())
}
