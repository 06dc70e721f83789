//! What happened, as a number to compare and as lines to read.

use fairway_engine::{Command, Event, Fact};

/// FNV-1a over the stored form of every event: one seed twice gives the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hash(pub u64);

impl Default for Hash {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hash {
    pub fn add(&mut self, event: &Event) {
        for byte in serde_json::to_vec(event).unwrap_or_default() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

#[must_use]
pub fn line(event: &Event) -> String {
    let what = match &event.fact {
        Fact::ReleaseCreated { release } => format!(
            "{} {:?} {:?}",
            release.number,
            release.spec.source.title,
            release
                .spec
                .services
                .iter()
                .map(|(name, s)| format!("{name}x{}", s.replicas))
                .collect::<Vec<_>>()
        ),
        Fact::RolloutPlanned { rollout } => format!(
            "{} {:?} {}<-{:?} {:?} needs {}",
            rollout.number,
            rollout.kind,
            rollout.to,
            rollout.from.map(|from| from.to_string()),
            rollout.strategy,
            rollout.approvals_needed
        ),
        Fact::RoutesSet { generation, table } => {
            let mut text = format!("{generation}");
            for (service, route) in &table.services {
                text.push_str(&format!(" {service}["));
                for (release, version) in &route.versions {
                    let copies: Vec<_> = version.instances.keys().map(|id| id.ordinal.to_string()).collect();
                    text.push_str(&format!("{release}:{}%({})", version.weight, copies.join(",")));
                }
                text.push(']');
            }
            text
        }
        Fact::InstancePlanned { instance, .. } => format!("planned {instance}"),
        Fact::InstanceReady { instance } => format!("ready {instance}"),
        Fact::InstanceStarted { instance, .. } => format!("started {instance}"),
        Fact::InstanceStopping { instance, .. } => format!("stopping {instance}"),
        Fact::InstanceDraining { instance, cut, .. } => format!("draining {instance} cut {cut}"),
        Fact::InstanceEnded { instance, how } => format!("ended {instance} {how:?}"),
        Fact::PhaseEntered { phase, .. } => format!("phase {phase:?}"),
        Fact::DeployQueued { .. } => "queued".to_owned(),
        other => format!("{other:?}"),
    };
    format!("  - {}", what)
}

#[must_use]
pub fn command(command: &Command) -> String {
    match command {
        Command::Deploy { wait, if_release, .. } => format!("deploy wait={wait} if_release={if_release:?}"),
        other => format!("{other:?}"),
    }
}
