//! Which file trees a release needs.

use std::collections::BTreeSet;

use fairway_engine::evidence::Check;
use fairway_engine::id::TreeDigest;
use fairway_engine::release::{JobSpec, ReleaseSpec};
use fairway_engine::service::Runs;

/// The trees of all services, jobs and commands of gates, each once.
#[must_use]
pub fn of_spec(spec: &ReleaseSpec) -> BTreeSet<TreeDigest> {
    let of_services = spec.services.values().filter_map(|service| match &service.runs {
        Runs::Process { artifact, .. } | Runs::Static { artifact, .. } => Some(artifact.clone()),
        Runs::Backing { .. } => None,
    });
    let jobs = &spec.jobs;
    let of_jobs = [&jobs.expand, &jobs.contract, &jobs.smoke, &jobs.verify, &jobs.seed];
    let of_gates = spec.deploy.evidence.gates.iter().filter_map(|gate| match &gate.check {
        Check::Command { job } => Some(&**job),
        Check::ErrorRate | Check::Latency { .. } | Check::Query { .. } | Check::Webhook { .. } => None,
    });
    let artifact = |job: &JobSpec| job.artifact.clone();
    of_services.chain(of_jobs.into_iter().flatten().chain(of_gates).map(artifact)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use fairway_engine::evidence::{Bounds, Gate, NoData};

    use super::*;
    use crate::testing;

    #[test]
    fn the_tree_of_a_gates_command_is_needed_for_as_long_as_the_release() {
        let mut spec = testing::release("127.0.0.1:0");
        let own = TreeDigest("c".repeat(64).into());
        assert!(!of_spec(&spec).contains(&own));
        let job = JobSpec {
            command: vec!["./judge".to_owned()],
            artifact: own.clone(),
            workdir: String::new(),
            env: BTreeMap::new(),
            timeout: Duration::from_secs(10),
            user: None,
        };
        spec.deploy.evidence.gates.push(Gate {
            name: "./judge".to_owned(),
            check: Check::Command { job: Box::new(job) },
            bounds: Bounds::default(),
            lasts: Duration::ZERO,
            min_requests: 0,
            no_data: NoData::Pause,
        });
        assert!(of_spec(&spec).contains(&own));
    }
}
