//! What Fairway itself tells of the machine, of what it runs and of what it did, as families of metrics.

use std::collections::BTreeMap;
use std::path::Path;

use fairway_engine::id::{EnvironmentKey, RolloutNumber, ServiceName};
use fairway_engine::{Environment, Instance, State};
use fairway_metrics::exposition::Family;
use fairway_metrics::labels::Labels;
use fairway_targets::key::InstanceKey;

use super::proc;
use crate::certificates::{NameState, NameStatus};
use crate::drivers::Known;

/// Rollouts that ended while somebody counted. The record keeps the last ones only, so that they are counted as they
/// are seen; as every counter, it begins at 0 with the process.
#[derive(Debug, Default)]
pub struct Ended(BTreeMap<EnvironmentKey, Counted>);

#[derive(Debug, Default)]
struct Counted {
    last: Option<RolloutNumber>,
    by_outcome: BTreeMap<&'static str, u64>,
}

impl Ended {
    pub fn count(&mut self, state: &State) {
        for (key, env) in &state.environments {
            let newest = env.history.back().map(|summary| summary.number);
            let counted =
                self.0.entry(key.clone()).or_insert_with(|| Counted { last: newest, ..Counted::default() });
            for summary in env.history.iter().filter(|summary| Some(summary.number) > counted.last) {
                *counted.by_outcome.entry(summary.outcome.name()).or_default() += 1;
            }
            counted.last = newest;
        }
    }

    fn family(&self) -> Family {
        let mut family = Family::counter("fairway_deployments_total", "Rollouts that ended, by outcome.");
        for (environment, counted) in &self.0 {
            for (outcome, number) in &counted.by_outcome {
                let labels = [("environment", environment.to_string()), ("outcome", (*outcome).to_owned())];
                family = family.with(Labels::new(labels), *number as f64);
            }
        }
        family
    }
}

/// What is read of the machine, before anything is held on which the pump waits: a filesystem may not answer for
/// minutes, and a thousand processes are a thousand files.
#[derive(Debug, Default)]
pub struct Machine {
    sessions: proc::Sessions,
    host: proc::Host,
    /// By where they are mounted, or what is on them.
    filesystems: Vec<(String, proc::Filesystem)>,
}

impl Machine {
    #[must_use]
    pub fn read(state_dir: &Path) -> Self {
        let (root, own) = (proc::filesystem(Path::new("/")), proc::filesystem(state_dir));
        Self {
            sessions: proc::Sessions::read(),
            host: proc::host(),
            filesystems: filesystems(root, own, state_dir),
        }
    }
}

/// The state directory is what must not fill up; where it is on the root's filesystem, one says it all.
fn filesystems(
    root: Option<proc::Filesystem>,
    own: Option<proc::Filesystem>,
    state_dir: &Path,
) -> Vec<(String, proc::Filesystem)> {
    let own = own.filter(|own| Some(own.device) != root.map(|root| root.device));
    let root = root.map(|root| ("/".to_owned(), root));
    root.into_iter().chain(own.map(|own| (state_dir.display().to_string(), own))).collect()
}

/// `told` knows which process each copy is.
#[must_use]
pub fn families(state: &State, seq: u64, ended: &Ended, told: &Known, machine: &Machine) -> Vec<Family> {
    let environments = state.environments.values();
    let ready: usize =
        environments.clone().map(|env| env.instances.values().filter(|i| i.is_ready()).count()).sum();
    let rolling = environments.clone().filter(|env| env.rollout.is_some()).count();
    let none = Labels::default;
    let mut families = vec![
        Family::counter("fairway_events_total", "Events on the record.").with(none(), seq as f64),
        Family::gauge("fairway_instances_ready", "Instances that are ready.").with(none(), ready as f64),
        Family::gauge("fairway_rollouts_active", "Rollouts under way.").with(none(), rolling as f64),
        ended.family(),
    ];
    families.extend(releases(state));
    families.extend(copies(state));
    families.extend(processes(state, told, &machine.sessions));
    families.extend(host(machine));
    families
}

fn releases(state: &State) -> [Family; 2] {
    let mut ends = Family::gauge(
        "fairway_deployment_last_end_timestamp_seconds",
        "When the last rollout of this outcome ended, in Unix time.",
    );
    let mut info = Family::gauge("fairway_release_info", "1 for the release that serves.");
    for (key, env) in &state.environments {
        let mut last: BTreeMap<&str, u64> = BTreeMap::new();
        for summary in &env.history {
            last.insert(summary.outcome.name(), summary.ended_at.0);
        }
        for (outcome, at_ms) in last {
            let labels = [("environment", key.to_string()), ("outcome", outcome.to_owned())];
            ends = ends.with(Labels::new(labels), at_ms as f64 / 1000.0);
        }
        if let Some(release) = env.stable.and_then(|stable| env.release(stable)) {
            let title = release.spec.source.title.clone().or_else(|| release.spec.source.commit.clone());
            let number = release.number.to_string();
            // An empty label would be none, and a panel that shows it would be empty too.
            let version = title.unwrap_or_else(|| number.clone());
            let labels = [("environment", key.to_string()), ("release", number), ("version", version)];
            info = info.with(Labels::new(labels), 1.0);
        }
    }
    [ends, info]
}

/// Of the names that are served over TLS.
#[must_use]
pub fn certificates(names: &[NameStatus]) -> [Family; 3] {
    let mut ends = Family::gauge(
        "fairway_certificate_expiry_timestamp_seconds",
        "When the certificate that serves ends, in Unix time.",
    );
    let mut renewals = Family::gauge(
        "fairway_certificate_renewal_timestamp_seconds",
        "When the certificate that serves is renewed, in Unix time; none where that is not planned, or has failed.",
    );
    let mut failing = Family::gauge(
        "fairway_certificate_failing",
        "1 for a name whose certificate could not be had or renewed the last time that it was tried, otherwise 0.",
    );
    for name in names {
        let labels = Labels::new([("environment", name.environment.clone()), ("name", name.name.clone())]);
        let has_failed = matches!(name.state, NameState::Failed { .. });
        failing = failing.with(labels.clone(), f64::from(u8::from(has_failed)));
        match &name.state {
            NameState::Valid { renew_at, .. } | NameState::SelfSigned { renew_at, .. } => {
                renewals = renewals.with(labels.clone(), renew_at.0 as f64 / 1000.0);
            }
            NameState::Ordering { .. } | NameState::Failed { .. } | NameState::Manual { .. } => {}
        }
        if let Some(until) = name.state.until() {
            ends = ends.with(labels, until.0 as f64 / 1000.0);
        }
    }
    [ends, renewals, failing]
}

fn copies(state: &State) -> [Family; 2] {
    let mut wanted = Family::gauge("fairway_instances_wanted", "Copies of a service that are to serve.");
    let mut by_state = Family::gauge("fairway_instances", "Copies of a service by state.");
    for (key, env) in &state.environments {
        for service in env.services() {
            let of_service = |more: Option<(&'static str, &str)>| {
                let own = [("environment", key.to_string()), ("service", service.to_string())];
                Labels::new(own.into_iter().chain(more.map(|(name, value)| (name, value.to_owned()))))
            };
            wanted = wanted.with(of_service(None), f64::from(wanted_copies(env, &service)));
            let mut states: BTreeMap<&str, u32> = BTreeMap::from([("ready", 0)]);
            for instance in env.instances.values().filter(|instance| instance.id.service == service) {
                *states.entry(instance.state.name()).or_default() += 1;
            }
            for (state, number) in states {
                by_state = by_state.with(of_service(Some(("state", state))), f64::from(number));
            }
        }
    }
    [wanted, by_state]
}

fn wanted_copies(env: &Environment, service: &ServiceName) -> u32 {
    env.stable
        .or(env.rollout.as_ref().map(|rollout| rollout.to))
        .map_or(0, |release| env.wanted(service, release))
}

fn processes(state: &State, told: &Known, sessions: &proc::Sessions) -> Vec<Family> {
    let mut cpu = Family::counter("process_cpu_seconds_total", "CPU time of a copy, all of its processes.");
    let mut memory =
        Family::gauge("process_resident_memory_bytes", "Memory of a copy, all of its processes.");
    let mut cpu_max = Family::gauge("process_cpu_limit_cores", "Cores that a copy may use.");
    let mut memory_max = Family::gauge("process_memory_limit_bytes", "Memory that a copy may use.");
    let mut restarts =
        Family::counter("fairway_instance_restarts_total", "Times that a copy ended by itself.");
    for (key, env) in &state.environments {
        for instance in env.instances.values() {
            let labels = labels_of(key, instance);
            restarts = restarts.with(labels.clone(), f64::from(instance.crashes));
            let limits =
                env.service(instance.id.release, &instance.id.service).map(|spec| spec.limits.clone());
            if let Some(millis) = limits.as_ref().and_then(|limits| limits.cpu_millis) {
                cpu_max = cpu_max.with(labels.clone(), f64::from(millis) / 1000.0);
            }
            if let Some(bytes) = limits.as_ref().and_then(|limits| limits.memory_bytes) {
                memory_max = memory_max.with(labels.clone(), bytes as f64);
            }
            let of = InstanceKey { environment: key.clone(), instance: instance.id.clone() };
            let pid = told.get(&of).and_then(|told| told.pid);
            if let Some(usage) = pid.and_then(|pid| sessions.usage_of(pid)) {
                cpu = cpu.with(labels.clone(), usage.cpu_s);
                memory = memory.with(labels, usage.resident_bytes as f64);
            }
        }
    }
    vec![cpu, memory, cpu_max, memory_max, restarts]
}

/// Of what is said about one copy.
#[must_use]
pub fn labels_of(environment: &EnvironmentKey, instance: &Instance) -> Labels {
    Labels::new([
        ("environment", environment.to_string()),
        ("service", instance.id.service.to_string()),
        ("version", instance.id.release.to_string()),
        ("instance", instance.id.to_string()),
    ])
}

fn host(machine: &Machine) -> Vec<Family> {
    let host = &machine.host;
    let mut cpu = Family::counter("node_cpu_seconds_total", "Time of the machine's CPUs by mode.");
    for (number, mode, seconds) in &host.cpu_s {
        cpu = cpu.with(Labels::new([("cpu", number.clone()), ("mode", (*mode).to_owned())]), *seconds);
    }
    let mut size =
        Family::gauge("node_filesystem_size_bytes", "Size of a filesystem that Fairway writes to.");
    let mut free = Family::gauge("node_filesystem_avail_bytes", "What can still be written there.");
    for (mount, found) in &machine.filesystems {
        let labels = Labels::new([("mountpoint", mount.clone())]);
        size = size.with(labels.clone(), found.size_bytes as f64);
        free = free.with(labels, found.available_bytes as f64);
    }
    let none = Labels::default;
    vec![
        cpu,
        Family::gauge("node_memory_MemTotal_bytes", "Memory of the machine.")
            .with(none(), host.memory_total_bytes as f64),
        Family::gauge("node_memory_MemAvailable_bytes", "Memory that can be had without swapping.")
            .with(none(), host.memory_available_bytes as f64),
        Family::gauge("node_load1", "Processes that run or wait to, over a minute.")
            .with(none(), host.load_1m),
        size,
        free,
    ]
}

#[cfg(test)]
mod tests {
    use fairway_engine::time::Timestamp;
    use fairway_metrics::exposition::Point;

    use super::*;
    use crate::certificates::{Step, Trouble};

    #[test]
    fn certificates_show_their_end_and_whether_they_are_renewed() {
        let of = |name: &str, state| NameStatus {
            environment: "shop/demo".to_owned(),
            name: name.to_owned(),
            source: "ca.example".to_owned(),
            issuer: None,
            state,
        };
        let (until, renew_at) = (Timestamp(3_000), Timestamp(2_500));
        let none = NameState::Ordering { step: Step::Queued, until: None };
        let trouble = Trouble {
            code: "certificate/refused".to_owned(),
            why: "no".to_owned(),
            hint: None,
            retry_at: Timestamp(9),
        };
        let [ends, renewals, failing] = certificates(&[
            of("a", NameState::Valid { until, renew_at, suggested: false }),
            of("b", NameState::Manual { until }),
            of("c", none),
            of("d", NameState::Ordering { step: Step::Queued, until: Some(until) }),
            of("e", NameState::Failed { trouble, until: None }),
        ]);
        let shown = |family: &Family| {
            let one = |point: &Point| (point.labels.get("name").unwrap().to_owned(), point.value);
            family.points.iter().map(one).collect::<Vec<_>>()
        };
        let expected = [("a", 3.0), ("b", 3.0), ("d", 3.0)];
        assert_eq!(shown(&ends), expected.map(|(name, end)| (name.to_owned(), end)));
        assert_eq!(shown(&renewals), [("a".to_owned(), 2.5)]);
        let failed: Vec<_> = shown(&failing).into_iter().filter(|(_, value)| *value > 0.0).collect();
        assert_eq!((failing.points.len(), failed), (5, vec![("e".to_owned(), 1.0)]));
        assert_eq!(ends.points[0].labels.get("environment"), Some("shop/demo"));
    }

    #[test]
    fn two_disks_of_one_size_are_two_disks() {
        let disk = |device| proc::Filesystem { device, size_bytes: 100 << 30, available_bytes: 1 << 30 };
        let shown = |own| {
            let found = filesystems(Some(disk(1)), Some(disk(own)), Path::new("/var/lib/fairway"));
            found.into_iter().map(|(mount, _)| mount).collect::<Vec<_>>()
        };
        assert_eq!(shown(1), ["/"]);
        assert_eq!(shown(2), ["/", "/var/lib/fairway"]);
    }
}
