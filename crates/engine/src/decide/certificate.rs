//! What becomes of certificates goes on the record where it is news. Nothing follows from it.

use std::time::Duration;

use super::{Decider, Decision, SELF};
use crate::certificate::{CertificateGain, CertificateStanding, CertificateStep, key_of};
use crate::event::Fact;
use crate::id::EnvironmentKey;
use crate::refusal::Refusal;
use crate::state::State;
use crate::time::Timestamp;

/// A cause that was written down in this trouble already and comes back after another one: with the few causes that there
/// are, two that take turns for a year are two lines a day at most.
const CAUSE_AGAIN_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// A trouble that was over and begins anew with the same cause, as with files on a share that comes and goes.
const TROUBLE_AGAIN_AFTER: Duration = Duration::from_secs(60 * 60);

/// An error names a host and a cause; what an authority answers may be a page.
const WHY_CHARS_MAX: usize = 500;

pub(super) fn tell(
    state: &State,
    now: Timestamp,
    environment: &EnvironmentKey,
    names: &[String],
    source: &str,
    step: &CertificateStep,
) -> Result<Decision, Refusal> {
    let Some(known) = state.environments.get(environment) else {
        let ignored = Some(format!("environment {environment} is unknown"));
        return Ok(Decision { ignored, ..Decision::default() });
    };
    let standing = known.certificates.get(&key_of(names));
    let Some(fact) = news(standing, now, names, source, step) else {
        return Ok(Decision { ignored: Some("it is on the record".to_owned()), ..Decision::default() });
    };
    let mut decider = Decider::open(state, environment, now, SELF);
    decider.follow(fact)?;
    Ok(Decision { events: decider.events, ..Decision::default() })
}

fn news(
    standing: Option<&CertificateStanding>,
    now: Timestamp,
    names: &[String],
    source: &str,
    step: &CertificateStep,
) -> Option<Fact> {
    let trouble = standing.and_then(|standing| standing.trouble.as_ref());
    let asked_by = standing.and_then(|standing| standing.asked_by.clone());
    let (names, source) = (names.to_vec(), source.to_owned());
    match step {
        CertificateStep::Obtained { how, until, digest } => {
            let is_same = standing.is_some_and(|known| known.digest.as_ref() == Some(digest));
            if is_same && trouble.is_none() && asked_by.is_none() {
                return None;
            }
            Some(Fact::CertificateObtained {
                names,
                source,
                how: if is_same { CertificateGain::Kept } else { *how },
                until: *until,
                digest: digest.clone(),
                failing_since: trouble.map(|trouble| trouble.since),
                asked_by,
            })
        }
        CertificateStep::Failed { code, why, until, retry_at } => {
            let told = standing.and_then(|standing| standing.told.get(code));
            let quiet = match trouble {
                None => told.is_some_and(|told| now.since(*told) < TROUBLE_AGAIN_AFTER),
                Some(trouble) => {
                    trouble.code == *code || told.is_some_and(|told| now.since(*told) < CAUSE_AGAIN_AFTER)
                }
            };
            if quiet && asked_by.is_none() {
                return None;
            }
            Some(Fact::CertificateFailed {
                names,
                source,
                code: code.clone(),
                why: why.chars().take(WHY_CHARS_MAX).collect(),
                until: *until,
                since: trouble.map_or(now, |trouble| trouble.since),
                retry_at: *retry_at,
                asked_by,
            })
        }
        CertificateStep::LetGo => standing.map(|_| Fact::CertificateLetGo { names }),
    }
}

impl Decider {
    pub(super) fn retry_certificate(&mut self, names: &[String]) -> Result<(), Refusal> {
        self.emit(Fact::CertificateRetried { names: names.to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::{CERTIFICATE_NEWS_MAX, CertificateChange};
    use crate::decide::decide;
    use crate::environment::Environment;
    use crate::event::Event;
    use crate::input::{Command, Input};

    const HOUR_MS: u64 = 60 * 60 * 1000;

    struct Record {
        state: State,
        key: EnvironmentKey,
    }

    impl Record {
        fn new() -> Self {
            let (project, environment) = ("shop".parse().unwrap(), "prod".parse().unwrap());
            let key = EnvironmentKey { project, environment };
            let mut record = Self { state: State::default(), key };
            record.apply(Fact::EnvironmentCreated);
            record
        }

        fn apply(&mut self, fact: Fact) {
            let event = Event { at: Timestamp(0), actor: "ann".into(), environment: self.key.clone(), fact };
            self.state.apply(&event).unwrap();
        }

        fn env(&self) -> &Environment {
            &self.state.environments[&self.key]
        }

        fn give(&mut self, at: u64, input: &Input) -> Vec<Fact> {
            let decision = decide(&self.state, Timestamp(at), input).unwrap();
            assert!(decision.effects.is_empty());
            for event in &decision.events {
                self.state.apply(event).unwrap();
            }
            decision.events.into_iter().map(|event| event.fact).collect()
        }

        fn step(&mut self, at: u64, step: CertificateStep) -> Vec<Fact> {
            let (environment, names) = (self.key.clone(), names());
            self.give(at, &Input::Certificate { environment, names, source: "acme.test".into(), step })
        }

        fn fails(&mut self, at: u64, code: &str) -> bool {
            let (code, why) = (format!("certificate/{code}"), format!("because, at {at}"));
            let step = CertificateStep::Failed { code, why, until: None, retry_at: Timestamp(at + 1) };
            !self.step(at, step).is_empty()
        }

        fn obtains(&mut self, at: u64, how: CertificateGain, digest: &str) -> Option<Fact> {
            let until = Timestamp(90 * 24 * HOUR_MS);
            self.step(at, CertificateStep::Obtained { how, until, digest: digest.into() }).pop()
        }

        fn retry(&mut self, at: u64, by: &str) {
            let command = Command::RetryCertificate { names: names() };
            let input = Input::Command { environment: self.key.clone(), by: by.into(), command };
            assert_eq!(self.give(at, &input).len(), 1);
        }
    }

    fn names() -> Vec<String> {
        vec!["a.test".to_owned()]
    }

    fn kind(fact: Option<Fact>) -> Option<(CertificateGain, Option<Timestamp>, Option<String>)> {
        match fact {
            Some(Fact::CertificateObtained { how, failing_since, asked_by, .. }) => {
                Some((how, failing_since, asked_by))
            }
            Some(_) | None => None,
        }
    }

    #[test]
    fn a_trouble_is_told_when_it_begins_when_its_cause_changes_and_when_it_is_over() {
        let mut record = Record::new();
        assert!(record.fails(1, "unresolved"));
        assert!(!record.fails(2, "unresolved"), "each attempt has other words, and the same cause");
        assert!(record.fails(3, "challenge"));
        assert!(!record.fails(4, "unresolved"), "it was told an instant ago");
        let gained = kind(record.obtains(5, CertificateGain::Issued, "d1"));
        assert_eq!(gained, Some((CertificateGain::Issued, Some(Timestamp(1)), None)));
        assert!(record.obtains(6, CertificateGain::Kept, "d1").is_none(), "told again, it is no news");
        let told: Vec<Timestamp> = record.env().certificate_news.iter().map(|one| one.at).collect();
        assert_eq!(told, [1, 3, 5].map(Timestamp));
    }

    #[test]
    fn one_that_fails_for_a_year_does_not_fill_the_log() {
        let (mut one, mut two, mut flaps) = (Record::new(), Record::new(), Record::new());
        let mut told = [0, 0, 0];
        // As often as anything is tried.
        for attempt in 0..365 * 24 * 6 {
            let at = attempt * HOUR_MS / 6;
            told[0] += u32::from(one.fails(at, "unresolved"));
            told[1] += u32::from(two.fails(at, ["unresolved", "unreached"][attempt as usize % 2]));
            told[2] += u32::from(flaps.fails(at, "files"));
            told[2] += u32::from(flaps.obtains(at, CertificateGain::Kept, "d").is_some());
        }
        assert_eq!(told[0], 1);
        assert!((365..=2 * 365).contains(&told[1]), "two that take turns: {}", told[1]);
        assert!((365..=2 * 24 * 365).contains(&told[2]), "one that comes and goes: {}", told[2]);
        for record in [&one, &two, &flaps] {
            assert!(record.env().certificate_news.len() <= CERTIFICATE_NEWS_MAX);
            assert!(
                record.env().certificates.len() == 1 && record.env().certificates["a.test"].told.len() <= 2
            );
        }
    }

    #[test]
    fn who_asked_for_an_attempt_is_beside_what_came_of_it() {
        let mut record = Record::new();
        assert!(record.fails(1, "challenge"));
        record.retry(2, "ann");
        assert_eq!(record.env().certificate_news[1].what, CertificateChange::Retried);
        assert!(record.fails(3, "challenge"), "the cause is the same, and somebody waits for it");
        assert!(!record.fails(4, "challenge"));
        record.retry(5, "bob");
        let gained = kind(record.obtains(6, CertificateGain::Issued, "d1"));
        assert_eq!(gained, Some((CertificateGain::Issued, Some(Timestamp(1)), Some("bob".into()))));
        let told: Vec<_> =
            record.env().certificate_news.iter().map(|one| (one.at.0, one.by.as_deref())).collect();
        assert_eq!(told, [(1, None), (3, Some("ann")), (6, Some("bob"))], "asked and answered is one line");
    }

    #[test]
    fn a_renewal_is_told_and_what_a_server_finds_at_its_start_only_where_it_is_not_known() {
        let mut record = Record::new();
        assert!(kind(record.obtains(1, CertificateGain::Kept, "d1")).is_some());
        assert!(record.obtains(2, CertificateGain::Kept, "d1").is_none());
        let renewed = kind(record.obtains(3, CertificateGain::Renewed, "d2"));
        assert_eq!(renewed, Some((CertificateGain::Renewed, None, None)));
        assert_eq!(record.env().certificate_news.len(), 1, "what was there all along is no news");
    }

    #[test]
    fn what_is_not_wanted_any_more_is_forgotten_and_begins_anew() {
        let mut record = Record::new();
        assert!(record.step(1, CertificateStep::LetGo).is_empty(), "nothing was known of it");
        assert!(record.fails(2, "unresolved"));
        assert_eq!(record.step(3, CertificateStep::LetGo).len(), 1);
        assert!(record.env().certificates.is_empty());
        assert!(record.fails(4, "unresolved"));
    }

    #[test]
    fn one_of_an_unknown_environment_changes_nothing() {
        let mut record = Record::new();
        record.key.environment = "dev".parse().unwrap();
        assert!(!record.fails(1, "unresolved"));
    }
}
