//! Alerts that somebody does not want to hear of for a while.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::alert::TimestampMs;
use super::matching::{Match, accepts_all};
use crate::labels::Labels;

/// Ended ones are listed for five days, as Alertmanager does: who silenced what before the weekend.
const ENDED_KEPT_MS: TimestampMs = 5 * 24 * 3_600_000;

/// Every alert is held against every silence.
const MATCHES_MAX: usize = 32;

/// A name and a sentence; both are stored and shown.
const TEXT_BYTES_MAX: usize = 4096;

/// `s7`: short enough to be typed at night.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SilenceId(pub u64);

impl std::fmt::Display for SilenceId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "s{}", self.0)
    }
}

impl std::str::FromStr for SilenceId {
    type Err = SilenceError;

    fn from_str(text: &str) -> Result<Self, SilenceError> {
        let digits = text.strip_prefix('s').filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
        digits
            .and_then(|digits| digits.parse().ok())
            .map(Self)
            .ok_or_else(|| SilenceError::Unknown { id: text.chars().take(40).collect() })
    }
}

/// What a person asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewSilence {
    /// All of them must accept an alert.
    pub matches: Vec<Match>,
    pub starts_at_ms: TimestampMs,
    pub ends_at_ms: TimestampMs,
    pub by: String,
    pub comment: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Silence {
    pub id: SilenceId,
    #[serde(flatten)]
    pub what: NewSilence,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SilenceState {
    Pending,
    Active,
    Expired,
}

impl Silence {
    #[must_use]
    pub fn state(&self, now_ms: TimestampMs) -> SilenceState {
        if self.what.ends_at_ms <= now_ms {
            SilenceState::Expired
        } else if self.what.starts_at_ms > now_ms {
            SilenceState::Pending
        } else {
            SilenceState::Active
        }
    }
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SilenceError {
    #[error("it would end before it starts")]
    EndsBeforeItStarts,
    #[error("it would have ended already")]
    Ended,
    #[error("it would silence every alert: at least one matcher must name a value that is not empty")]
    MatchesEverything,
    #[error("{count} matchers; {MATCHES_MAX} are the most")]
    TooManyMatches { count: usize },
    #[error("name and comment may have {TEXT_BYTES_MAX} bytes each")]
    TextTooLong,
    #[error("{limit} silences wait or are active already: expire one first")]
    Full { limit: usize },
    #[error("there is no silence {id:?}")]
    Unknown { id: String },
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Silences {
    last: u64,
    list: BTreeMap<SilenceId, Silence>,
}

impl Silences {
    pub(super) fn add(
        &mut self,
        now_ms: TimestampMs,
        what: NewSilence,
        limit: usize,
    ) -> Result<SilenceId, SilenceError> {
        if what.ends_at_ms <= what.starts_at_ms {
            return Err(SilenceError::EndsBeforeItStarts);
        }
        if what.ends_at_ms <= now_ms {
            return Err(SilenceError::Ended);
        }
        if what.matches.iter().all(Match::accepts_nothing) {
            return Err(SilenceError::MatchesEverything);
        }
        if what.matches.len() > MATCHES_MAX {
            return Err(SilenceError::TooManyMatches { count: what.matches.len() });
        }
        if what.by.len() > TEXT_BYTES_MAX || what.comment.len() > TEXT_BYTES_MAX {
            return Err(SilenceError::TextTooLong);
        }
        self.trim(now_ms, limit.saturating_sub(1));
        if self.list.len() >= limit {
            return Err(SilenceError::Full { limit });
        }
        self.last = self.last.saturating_add(1);
        let id = SilenceId(self.last);
        self.list.insert(id, Silence { id, what });
        Ok(id)
    }

    pub(super) fn expire(&mut self, now_ms: TimestampMs, id: SilenceId) -> Result<(), SilenceError> {
        let silence = self.list.get_mut(&id).ok_or_else(|| SilenceError::Unknown { id: id.to_string() })?;
        match silence.state(now_ms) {
            SilenceState::Expired => {}
            SilenceState::Pending => {
                silence.what.starts_at_ms = now_ms;
                silence.what.ends_at_ms = now_ms;
            }
            SilenceState::Active => silence.what.ends_at_ms = now_ms,
        }
        Ok(())
    }

    pub(super) fn list(&self) -> impl Iterator<Item = &Silence> {
        self.list.values()
    }

    /// The first active one that covers these labels.
    pub(super) fn covering(&self, now_ms: TimestampMs, labels: &Labels) -> Option<SilenceId> {
        self.list
            .values()
            .find(|one| one.state(now_ms) == SilenceState::Active && accepts_all(&one.what.matches, labels))
            .map(|one| one.id)
    }

    /// Forgets what ended long ago and, above `keep`, what ended first.
    pub(super) fn trim(&mut self, now_ms: TimestampMs, keep: usize) {
        self.list.retain(|_, one| one.what.ends_at_ms.saturating_add(ENDED_KEPT_MS) > now_ms);
        let surplus = self.list.len().saturating_sub(keep);
        let mut ended: Vec<(TimestampMs, SilenceId)> = self
            .list
            .values()
            .filter(|one| one.state(now_ms) == SilenceState::Expired)
            .map(|one| (one.what.ends_at_ms, one.id))
            .collect();
        ended.sort_unstable();
        for (_, id) in ended.into_iter().take(surplus) {
            self.list.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::matching::MatchOp;
    use super::*;

    fn wanted(starts_at_ms: TimestampMs, ends_at_ms: TimestampMs) -> NewSilence {
        let matches = vec![Match::new("service", MatchOp::Equal, "api").unwrap()];
        NewSilence { matches, starts_at_ms, ends_at_ms, by: "ada".to_owned(), comment: "moving".to_owned() }
    }

    fn states(silences: &Silences, now_ms: TimestampMs) -> Vec<(String, SilenceState)> {
        silences.list().map(|one| (one.id.to_string(), one.state(now_ms))).collect()
    }

    #[test]
    fn a_silence_waits_holds_and_ends() {
        let mut silences = Silences::default();
        let id = silences.add(0, wanted(10, 20), 5).unwrap();
        let api = Labels::new([("service", "api")]);
        let at = |now_ms| silences.covering(now_ms, &api);
        assert_eq!([at(9), at(10), at(19), at(20)], [None, Some(id), Some(id), None]);
        assert_eq!(silences.covering(15, &Labels::new([("service", "web")])), None);
        assert_eq!("s1".parse(), Ok(id));
        for text in ["", "s", "1", "s-1", "s+1", "s99999999999999999999999"] {
            assert!(text.parse::<SilenceId>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn expiring_ends_it_now_and_twice_is_once() {
        let mut silences = Silences::default();
        let active = silences.add(0, wanted(0, 100), 5).unwrap();
        let pending = silences.add(0, wanted(50, 100), 5).unwrap();
        for _ in 0..2 {
            silences.expire(10, active).unwrap();
            silences.expire(10, pending).unwrap();
        }
        assert!(states(&silences, 10).iter().all(|(_, state)| *state == SilenceState::Expired));
        assert!(matches!(silences.expire(10, SilenceId(9)), Err(SilenceError::Unknown { .. })));
        let kept: Silences = serde_json::from_str(&serde_json::to_string(&silences).unwrap()).unwrap();
        assert_eq!(kept, silences);
    }

    #[test]
    fn what_would_never_end_or_cover_all_is_refused() {
        let mut silences = Silences::default();
        assert_eq!(silences.add(0, wanted(20, 10), 5), Err(SilenceError::EndsBeforeItStarts));
        assert_eq!(silences.add(30, wanted(10, 20), 5), Err(SilenceError::Ended));
        for matches in [vec![], vec![Match::new("a", MatchOp::Regex, ".*").unwrap()]] {
            let all = NewSilence { matches, ..wanted(0, 10) };
            assert_eq!(silences.add(0, all, 5), Err(SilenceError::MatchesEverything));
        }
        let many = NewSilence { matches: vec![wanted(0, 1).matches[0].clone(); 33], ..wanted(0, 10) };
        assert_eq!(silences.add(0, many, 5), Err(SilenceError::TooManyMatches { count: 33 }));
        let long = NewSilence { comment: "x".repeat(5000), ..wanted(0, 10) };
        assert_eq!(silences.add(0, long, 5), Err(SilenceError::TextTooLong));
    }

    #[test]
    fn room_is_made_by_what_ended_first_and_never_by_what_holds() {
        let mut silences = Silences::default();
        for ends_at_ms in [30, 20, 500] {
            silences.add(0, wanted(0, ends_at_ms), 3).unwrap();
        }
        assert_eq!(silences.add(10, wanted(0, 40), 3), Err(SilenceError::Full { limit: 3 }));
        silences.add(40, wanted(0, 400), 3).unwrap();
        let ids: Vec<String> = silences.list().map(|one| one.id.to_string()).collect();
        assert_eq!(ids, ["s1", "s3", "s4"]);
        silences.trim(ENDED_KEPT_MS + 600, 3);
        assert_eq!(silences.list().count(), 0);
        assert_eq!(
            silences.add(0, wanted(0, 9), 3).unwrap().to_string(),
            "s5",
            "a number is never used again"
        );
    }
}
