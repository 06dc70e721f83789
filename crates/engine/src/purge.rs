//! What was kept of answers is let go: by the proxy when somebody asks, and by what stands before it (a CDN) after a
//! rollout as well. Once on the record a hook is due until somebody has said how it went.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::decide::SELF;
use crate::environment::Environment;
use crate::id::{ReleaseNumber, RolloutNumber, ServiceName};
use crate::service::EnvValue;
use crate::time::{Timestamp, duration_ms};

/// Kept for `history`: whoever looks wonders why visitors see something old, or why everything was slow a while ago.
pub const PURGES_MAX: usize = 16;

/// A request that empties what stands before the environment. An answer of 200 to 299 is success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PurgeHook {
    pub url: EnvValue,
    pub method: String,
    pub headers: BTreeMap<String, EnvValue>,
    pub body: Option<String>,
    pub attempts: u32,
    /// For each attempt.
    #[serde(with = "duration_ms")]
    pub timeout: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PurgeDue {
    /// Whose hook it is.
    pub release: ReleaseNumber,
    pub since: Timestamp,
    pub by: String,
}

/// One purge, from who asked for it to what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PurgeAccount {
    pub at: Timestamp,
    pub by: String,
    pub about: PurgeAbout,
    pub cache: CachePurge,
    pub hook: HookPurge,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum PurgeAbout {
    /// Somebody asked. Without a service all of them, without a path all answers.
    Asked { purge: u32, service: Option<ServiceName>, paths: Vec<String>, paths_more: u32 },
    /// It follows from the end of a rollout.
    Rollout { rollout: RolloutNumber },
    /// Somebody asked a Fairway that did not write down for what.
    Unsaid,
}

/// What the proxy itself had kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum CachePurge {
    /// Not asked: of a release nothing is given that was kept of another one.
    None,
    UnderWay,
    Done {
        at: Timestamp,
        answers: u64,
    },
    Failed {
        at: Timestamp,
        why: String,
    },
}

/// What stands before the environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum HookPurge {
    None,
    UnderWay {
        release: ReleaseNumber,
    },
    Done {
        release: ReleaseNumber,
        at: Timestamp,
        attempts: u32,
    },
    Failed {
        release: ReleaseNumber,
        at: Timestamp,
        attempts: u32,
        why: String,
    },
    /// Another one came to be due, and what came of this one does not matter any more.
    Superseded {
        release: ReleaseNumber,
    },
}

impl PurgeAccount {
    /// Whether it is the purge with this number, and the proxy has not answered yet.
    pub(crate) fn awaits_cache(&self, number: u32) -> bool {
        let is_it = matches!(&self.about, PurgeAbout::Asked { purge, .. } if *purge == number);
        is_it && self.cache == CachePurge::UnderWay
    }
}

/// The one whose hook is due from now on. Where the purge that it belongs to is not kept any more, it has an account of
/// its own.
pub(crate) fn hook_due(purges: &mut VecDeque<PurgeAccount>, due: &PurgeDue, about: PurgeAbout) {
    let hook = HookPurge::UnderWay { release: due.release };
    for purge in purges.iter_mut() {
        if let HookPurge::UnderWay { release } = purge.hook {
            purge.hook = HookPurge::Superseded { release };
        }
    }
    let number = |about: &PurgeAbout| match about {
        PurgeAbout::Asked { purge, .. } => Some(*purge),
        PurgeAbout::Rollout { .. } | PurgeAbout::Unsaid => None,
    };
    let of = number(&about);
    match purges.iter_mut().find(|purge| of.is_some() && number(&purge.about) == of) {
        Some(purge) => purge.hook = hook,
        None => {
            let (at, by) = (due.since, due.by.clone());
            keep(purges, PurgeAccount { at, by, about, cache: CachePurge::None, hook });
        }
    }
}

impl Environment {
    /// What a hook that is due belongs to.
    pub(crate) fn purge_about(
        &self,
        by: &str,
        purge: Option<u32>,
        rollout: Option<RolloutNumber>,
    ) -> PurgeAbout {
        let asked = |purge: &u32| {
            let mut abouts = self.purges.iter().map(|one| &one.about);
            abouts.find(|about| matches!(about, PurgeAbout::Asked { purge: number, .. } if number == purge))
        };
        if let Some(about) = purge.as_ref().and_then(asked) {
            return about.clone();
        }
        // Logs of Fairways that wrote down neither: what came by itself came right after the end of a rollout.
        let last = || self.history.back().filter(|_| by == SELF).map(|last| last.number);
        rollout.or_else(last).map_or(PurgeAbout::Unsaid, |rollout| PurgeAbout::Rollout { rollout })
    }
}

pub(crate) fn hook_asked(purges: &mut VecDeque<PurgeAccount>, purged: &Purged) {
    let (at, attempts) = (purged.at, purged.attempts);
    for purge in purges.iter_mut() {
        if let HookPurge::UnderWay { release } = purge.hook {
            purge.hook = match purged.failure.clone() {
                None => HookPurge::Done { release, at, attempts },
                Some(why) => HookPurge::Failed { release, at, attempts, why },
            };
        }
    }
}

pub(crate) fn keep(purges: &mut VecDeque<PurgeAccount>, account: PurgeAccount) {
    if purges.len() >= PURGES_MAX {
        purges.pop_front();
    }
    purges.push_back(account);
}

/// How the last one went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purged {
    pub at: Timestamp,
    pub release: ReleaseNumber,
    pub attempts: u32,
    /// Why it came to nothing.
    pub failure: Option<String>,
}
