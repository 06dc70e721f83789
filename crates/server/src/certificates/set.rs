//! One certificate that is wanted: what there is of it, and what is done about it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use fairway_engine::certificate::CertificateGain;
use fairway_engine::time::Timestamp;
use tokio::task::AbortHandle;

use super::leaf::Leaf;
use super::meta::Meta;
use super::own_files::Seen;
use super::pair::Pair;
use super::shelf::Place;
use super::status::{Event, Happened, NameState, Step};
use super::wanted::{Source, Wanted};
use super::{LOOK_EVERY, TROUBLE_AGAIN};

pub(super) struct Set {
    pub(super) wanted: Wanted,
    /// All that want it.
    pub(super) environments: BTreeSet<String>,
    pub(super) place: Place,
    pub(super) meta: Meta,
    /// That serves. With its files, because somebody may remove those.
    pub(super) pair: Option<Pair>,
    /// The user's own files, as they were last read.
    pub(super) seen: Seen,
    /// Whether its directory holds only what is needed.
    pub(super) tidy: bool,
    pub(super) doing: Doing,
    /// When its trouble was last told.
    pub(super) told_at: Timestamp,
}

pub(super) enum Doing {
    Resting { due: Timestamp },
    Working { step: Arc<Mutex<Step>>, task: AbortHandle },
}

impl Set {
    /// Writes files again that somebody has removed: a snapshot that names them would be refused for all. Where that
    /// fails, as on a full disk, the refusal says so.
    pub(super) fn restore(&self) {
        let lost = self.pair.as_ref().filter(|pair| !self.place.has(&pair.digest));
        if let Some(pair) = lost {
            drop(self.place.prepare().and_then(|()| self.place.store(pair)));
        }
    }

    pub(super) fn leaf(&self) -> Option<&Leaf> {
        self.pair.as_ref().map(|pair| &pair.leaf)
    }

    /// Until something is due.
    pub(super) fn rest(&mut self, now: Timestamp) {
        let due = match self.wanted.source {
            Source::Files { .. } => now + LOOK_EVERY,
            Source::SelfSigned => self.meta.next_try(),
            Source::Acme(_) if self.is_well() => {
                self.meta.next_try().min(self.meta.ask_at.unwrap_or_default())
            }
            Source::Acme(_) => self.meta.next_try(),
        };
        self.doing = Doing::Resting { due };
    }

    /// Whether it serves, and nothing has gone wrong since.
    fn is_well(&self) -> bool {
        self.pair.is_some() && self.meta.trouble.is_none() && self.meta.after_crash.is_none()
    }

    /// Whether what is due is only the question when to renew it.
    pub(super) fn is_asking(&self, now: Timestamp) -> bool {
        matches!(self.wanted.source, Source::Acme(_)) && self.is_well() && now < self.meta.next_try()
    }

    /// Whether its trouble was not told for long; it is now.
    pub(super) fn tells(&mut self, now: Timestamp) -> bool {
        let is_due = now.since(self.told_at) >= TROUBLE_AGAIN;
        if is_due {
            self.told_at = now;
        }
        is_due
    }

    /// How it stands, for the record of environments that may not know it. None while nothing has come of it yet.
    pub(super) fn stands(&self, environments: Vec<String>) -> Option<Event> {
        let until = self.leaf().map(|leaf| leaf.not_after);
        let what = match (&self.meta.trouble, until, &self.meta.digest) {
            (Some(trouble), _, _) => Happened::Failed(trouble.clone()),
            (None, Some(until), Some(digest)) => {
                Happened::Obtained { how: CertificateGain::Kept, until, digest: digest.clone() }
            }
            (None, _, _) => return None,
        };
        Some(self.event(environments, what))
    }

    pub(super) fn event(&self, environments: Vec<String>, what: Happened) -> Event {
        Event {
            environments,
            names: self.wanted.names.iter().cloned().collect(),
            source: self.wanted.source.describe(),
            until: self.leaf().map(|leaf| leaf.not_after),
            what,
        }
    }

    pub(super) fn serves(&self, digest: &str) -> bool {
        // Without a pair its files were lost: it is stored again.
        self.pair.is_some() && self.meta.digest.as_deref() == Some(digest)
    }

    pub(super) fn state(&self) -> NameState {
        let until = self.leaf().map(|leaf| leaf.not_after);
        let renew_at = self.meta.renew_at.unwrap_or_default();
        let resting = match (&self.meta.trouble, until, &self.wanted.source) {
            (Some(trouble), until, _) => NameState::Failed { trouble: trouble.clone(), until },
            (None, None, _) => NameState::Ordering { step: Step::Queued, until: None },
            (None, Some(until), Source::Acme(_)) => {
                NameState::Valid { until, renew_at, suggested: self.meta.window.is_some() }
            }
            (None, Some(until), Source::Files { .. }) => NameState::Manual { until },
            (None, Some(until), Source::SelfSigned) => NameState::SelfSigned { until, renew_at },
        };
        match (&self.doing, &self.wanted.source) {
            (Doing::Working { step, .. }, Source::Acme(_)) => {
                let step = *step.lock().unwrap_or_else(PoisonError::into_inner);
                if step == Step::Renewal { resting } else { NameState::Ordering { step, until } }
            }
            // Done in a moment.
            (Doing::Working { .. }, Source::Files { .. } | Source::SelfSigned)
            | (Doing::Resting { .. }, _) => resting,
        }
    }
}
