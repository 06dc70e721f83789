//! An upgrade of the server goes on the record of everything that it runs. Nothing follows from it.

use super::{Decider, Decision, SELF};
use crate::event::Fact;
use crate::refusal::Refusal;
use crate::state::State;
use crate::time::Timestamp;
use crate::upgrade::{Upgrade, UpgradeEnd, UpgradeStep};

/// A step of an upgrade that an environment knows nothing of (it was made since, or the step comes twice) changes
/// nothing there.
pub(super) fn tell(
    state: &State,
    now: Timestamp,
    upgrade: &Upgrade,
    step: &UpgradeStep,
) -> Result<Decision, Refusal> {
    let mut all = Decision::default();
    for (key, environment) in &state.environments {
        let mut decider = Decider::open(state, key, now, SELF);
        match step {
            UpgradeStep::Begun { program } => {
                if let Some(stale) = &environment.upgrade {
                    // Its end could not be recorded. There is one server at a time: it is not under way any more.
                    let end = UpgradeEnd::Interrupted { version: upgrade.from.clone() };
                    decider.follow(Fact::UpgradeEnded { upgrade: stale.upgrade.clone(), end })?;
                }
                let begun = Fact::UpgradeBegun { upgrade: upgrade.clone(), program: program.clone() };
                decider.emit_as(upgrade.by.clone(), begun)?;
            }
            UpgradeStep::ProxyHandedOver { took_ms } if environment.upgrades(&upgrade.id) => {
                decider.follow(Fact::ProxyHandedOver { upgrade: upgrade.id.clone(), took_ms: *took_ms })?;
            }
            UpgradeStep::Ended { end } if environment.upgrades(&upgrade.id) => {
                decider.follow(Fact::UpgradeEnded { upgrade: upgrade.clone(), end: end.clone() })?;
            }
            UpgradeStep::ProxyHandedOver { .. } | UpgradeStep::Ended { .. } => {}
        }
        all.events.append(&mut decider.events);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::decide;
    use crate::event::Event;
    use crate::id::EnvironmentKey;
    use crate::input::Input;

    fn upgrade(id: &str) -> Upgrade {
        Upgrade { id: id.to_owned(), from: "1.0.0".into(), to: "1.1.0".into(), by: "ann".into() }
    }

    fn with(names: &[&str]) -> State {
        let mut state = State::default();
        for name in names {
            let environment =
                EnvironmentKey { project: "shop".parse().unwrap(), environment: name.parse().unwrap() };
            let created = Fact::EnvironmentCreated;
            state
                .apply(&Event { at: Timestamp(0), actor: "ann".into(), environment, fact: created })
                .unwrap();
        }
        state
    }

    fn step(state: &mut State, id: &str, step: UpgradeStep) -> Vec<String> {
        let input = Input::Upgrade { upgrade: upgrade(id), step };
        let decision = decide(state, Timestamp(1), &input).unwrap();
        assert!(decision.effects.is_empty());
        let told = |event: &Event| {
            state.apply(event).unwrap();
            format!("{} {} {}", event.environment.environment, event.actor, event.fact.name())
        };
        decision.events.iter().map(told).collect()
    }

    fn begun() -> UpgradeStep {
        UpgradeStep::Begun { program: "/usr/bin/fairway".into() }
    }

    #[test]
    fn every_environment_has_it_on_its_record() {
        let mut state = with(&["dev", "production"]);
        assert_eq!(step(&mut state, "1", begun()), ["dev ann upgrade_begun", "production ann upgrade_begun"]);
        let handed = step(&mut state, "1", UpgradeStep::ProxyHandedOver { took_ms: 30 });
        assert_eq!(handed, ["dev fairway proxy_handed_over", "production fairway proxy_handed_over"]);
        let done = UpgradeStep::Ended { end: UpgradeEnd::Done };
        assert_eq!(step(&mut state, "1", done.clone()).len(), 2);
        assert!(state.environments.values().all(|environment| environment.upgrade.is_none()));
        assert!(step(&mut state, "1", done).is_empty(), "told twice, it ended once");
    }

    #[test]
    fn one_whose_end_was_not_recorded_ends_before_the_next_begins() {
        let mut state = with(&["dev"]);
        step(&mut state, "1", begun());
        assert_eq!(step(&mut state, "2", begun()), ["dev fairway upgrade_ended", "dev ann upgrade_begun"]);
        assert!(step(&mut state, "1", UpgradeStep::Ended { end: UpgradeEnd::Done }).is_empty());
        assert!(state.environments.values().all(|environment| environment.upgrades("2")));
    }

    #[test]
    fn an_end_without_a_beginning_is_illegal() {
        let mut state = with(&["dev"]);
        let environment = state.environments.keys().next().unwrap().clone();
        let ended = Fact::UpgradeEnded { upgrade: upgrade("1"), end: UpgradeEnd::Done };
        let event = Event { at: Timestamp(0), actor: SELF.into(), environment, fact: ended };
        state.apply(&event).unwrap_err();
    }
}
