//! People, who do the right thing at the wrong moment.

use fairway_engine::id::ReleaseNumber;
use fairway_engine::{Command, JobKind};

use crate::spec::{self, PEOPLE};
use crate::world::World;

#[must_use]
pub fn choose(world: &mut World) -> (String, Command) {
    let by = PEOPLE[world.rng.index(PEOPLE.len())].to_owned();
    let releases: Vec<ReleaseNumber> = world
        .environment()
        .map(|environment| environment.releases.keys().copied().collect())
        .unwrap_or_default();
    let services = world.known_services();
    if world.is_patient {
        // Somebody who deploys, looks, and lets the evidence decide.
        let command = match world.rng.index(8) {
            0 => Command::Resume,
            1 => Command::Promote { full: false },
            _ => Command::Deploy {
                spec: Box::new(spec::judged(&mut world.rng)),
                reason: None,
                if_release: None,
                wait: false,
            },
        };
        return (by, command);
    }
    let is_idle = world.environment().is_none_or(|environment| environment.rollout.is_none());
    let roll = world.rng.index(100);
    let command = match roll {
        0..20 => deploy(world),
        20..32 if is_idle => deploy(world),
        20..36 => Command::Promote { full: world.rng.percent(30) },
        36..42 => Command::Pause,
        42..51 => Command::Resume,
        51..56 => Command::Abort { reason: None },
        56..62 => Command::Rollback { to: None, reason: None },
        62..65 => {
            Command::Rollback { to: world.rng.pick(&releases).copied(), reason: Some("named".to_owned()) }
        }
        65..69 => Command::Retry,
        69..79 => Command::Approve,
        79..80 => Command::Reject { reason: None },
        80..81 => match world.rng.pick(&services).cloned() {
            Some(service) => Command::Autoscale { service },
            None => Command::Pause,
        },
        81..86 => match world.rng.pick(&services).cloned() {
            Some(service) => {
                Command::Scale { service, replicas: u32::try_from(world.rng.index(6)).unwrap_or(1) }
            }
            None => Command::Pause,
        },
        86..91 => {
            let service = if world.rng.percent(40) { None } else { world.rng.pick(&services).cloned() };
            Command::Restart { service }
        }
        91..94 => match world.rng.index(5) {
            0 => Command::RunJob { kind: JobKind::Expand },
            1 => Command::RunJob { kind: JobKind::Contract },
            2 => Command::RunJob { kind: JobKind::Smoke },
            3 => Command::RunJob { kind: JobKind::Seed },
            _ => {
                let service = world.rng.pick(&services).cloned();
                Command::RunJob { kind: JobKind::OneOff { service, command: vec!["date".to_owned()] } }
            }
        },
        94..96 => Command::MaintenanceOn { message: "back soon".to_owned() },
        96..98 => Command::MaintenanceOff,
        98..99 => Command::Down,
        _ => Command::Promote { full: true },
    };
    (by, command)
}

fn deploy(world: &mut World) -> Command {
    let spec = spec::random(&mut world.rng, true);
    let stable = world.environment().and_then(|environment| environment.stable);
    Command::Deploy {
        spec: Box::new(spec),
        reason: None,
        if_release: if world.rng.percent(10) { stable } else { None },
        wait: world.rng.percent(15),
    }
}
