//! Which file trees a release needs.

use std::collections::BTreeSet;

use fairway_engine::id::TreeDigest;
use fairway_engine::release::ReleaseSpec;
use fairway_engine::service::Runs;

/// The trees of all services and jobs, each once.
#[must_use]
pub fn of_spec(spec: &ReleaseSpec) -> BTreeSet<TreeDigest> {
    let of_services = spec.services.values().filter_map(|service| match &service.runs {
        Runs::Process { artifact, .. } | Runs::Static { artifact, .. } => Some(artifact.clone()),
        Runs::Backing { .. } => None,
    });
    let jobs = &spec.jobs;
    let of_jobs = [&jobs.expand, &jobs.contract, &jobs.smoke, &jobs.verify, &jobs.seed];
    of_services.chain(of_jobs.into_iter().flatten().map(|job| job.artifact.clone())).collect()
}
