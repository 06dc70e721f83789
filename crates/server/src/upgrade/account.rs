//! What the record says of an upgrade when a server starts, and what the server adds when it serves.

use fairway_api::Upgraded;
use fairway_engine::{Input, State, Upgrade, UpgradeEnd, UpgradeStep};

/// How this server came to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// What it says when it is asked.
    pub upgraded: Option<Upgraded>,
    /// What goes on the record once it serves.
    pub told: Option<Input>,
}

impl Account {
    /// `handed` is what the program before in this process, or its guard, said.
    #[must_use]
    pub fn of(state: &State, handed: Option<Upgraded>) -> Account {
        let mut under_way =
            state.environments.values().filter_map(|environment| environment.upgrade.as_ref());
        let Some(upgrade) = under_way.next().map(|found| found.upgrade.clone()) else {
            // Nothing was deployed here when it began.
            return Account { upgraded: handed, told: None };
        };
        let version = env!("CARGO_PKG_VERSION");
        let (upgraded, end) = match handed {
            Some(upgraded) if upgraded.id == upgrade.id => {
                let end = match upgraded.failed.clone() {
                    Some(why) => UpgradeEnd::CameBack { why },
                    None => UpgradeEnd::Done,
                };
                (upgraded, end)
            }
            Some(_) | None => {
                (interrupted(&upgrade, version), UpgradeEnd::Interrupted { version: version.to_owned() })
            }
        };
        let told = Input::Upgrade { upgrade, step: UpgradeStep::Ended { end } };
        Account { upgraded: Some(upgraded), told: Some(told) }
    }
}

/// Where both versions are the same nobody can tell which of the two programs was started.
fn interrupted(upgrade: &Upgrade, version: &str) -> Upgraded {
    let is_new = version == upgrade.to && upgrade.from != upgrade.to;
    let why = format!("the server ended before it served, and was started again as {version}");
    Upgraded { id: upgrade.id.clone(), from: upgrade.from.clone(), failed: (!is_new).then_some(why) }
}

#[cfg(test)]
mod tests {
    use fairway_engine::time::Timestamp;
    use fairway_engine::{Event, Fact};

    use super::*;

    const OWN: &str = env!("CARGO_PKG_VERSION");

    fn begun(id: &str, from: &str, to: &str) -> State {
        let mut state = State::default();
        let upgrade =
            Upgrade { id: id.to_owned(), from: from.to_owned(), to: to.to_owned(), by: "ann".to_owned() };
        for fact in [Fact::EnvironmentCreated, Fact::UpgradeBegun { upgrade, program: "/f".to_owned() }] {
            let environment = crate::testing::key("dev");
            state.apply(&Event { at: Timestamp(0), actor: "ann".to_owned(), environment, fact }).unwrap();
        }
        state
    }

    fn handed(id: &str, failed: Option<&str>) -> Option<Upgraded> {
        Some(Upgraded { id: id.to_owned(), from: "0".to_owned(), failed: failed.map(str::to_owned) })
    }

    fn end(account: &Account) -> Option<&UpgradeEnd> {
        match &account.told {
            Some(Input::Upgrade { step: UpgradeStep::Ended { end }, .. }) => Some(end),
            Some(_) | None => None,
        }
    }

    #[test]
    fn what_the_program_before_said_is_what_came_of_it() {
        let state = begun("1", "0", OWN);
        assert_eq!(end(&Account::of(&state, handed("1", None))), Some(&UpgradeEnd::Done));
        let back = Account::of(&state, handed("1", Some("it panicked")));
        assert_eq!(end(&back), Some(&UpgradeEnd::CameBack { why: "it panicked".to_owned() }));
        assert_eq!(back.upgraded, handed("1", Some("it panicked")));
    }

    #[test]
    fn a_server_that_finds_an_upgrade_that_it_knows_nothing_of_says_that_it_was_interrupted() {
        let interrupted = UpgradeEnd::Interrupted { version: OWN.to_owned() };
        for before in [None, handed("0", None)] {
            let new = Account::of(&begun("1", "0", OWN), before.clone());
            assert_eq!(
                (end(&new), new.upgraded.as_ref().unwrap().failed.as_deref()),
                (Some(&interrupted), None)
            );
            for to in ["9", OWN] {
                let account = Account::of(&begun("1", OWN, to), before.clone());
                assert_eq!(end(&account), Some(&interrupted));
                assert!(account.upgraded.unwrap().failed.unwrap().contains("was started again as"));
            }
        }
    }

    #[test]
    fn without_an_upgrade_on_the_record_nothing_is_added() {
        assert_eq!(Account::of(&State::default(), None), Account::default());
        assert_eq!(Account::of(&State::default(), handed("1", None)).told, None);
    }
}
