//! What stands before the environment is emptied after a rollout has ended, and when somebody asks.

use super::Decider;
use crate::event::Fact;
use crate::id::{ReleaseNumber, RolloutNumber, ServiceName};
use crate::refusal::Refusal;
use crate::time::Timestamp;

/// An error names a host and a cause; what a CDN answers may be a page.
const WHY_CHARS_MAX: usize = 500;

/// The record says what a purge was about; a list of thousands of paths is in whatever made it.
const PATHS_MAX: usize = 32;
const PATH_CHARS_MAX: usize = 200;

impl Decider {
    /// By the hook of what serves now; of the release that was given up where that one has none, whose pages may be kept
    /// somewhere as well.
    pub(super) fn purge_after(
        &mut self,
        rollout: RolloutNumber,
        gone: Option<ReleaseNumber>,
    ) -> Result<(), Refusal> {
        let release = self.env.stable.into_iter().chain(gone).find(|release| self.has_purge_hook(*release));
        match release {
            Some(release) => self.follow(Fact::PurgeDue { release, purge: None, rollout: Some(rollout) }),
            None => Ok(()),
        }
    }

    fn has_purge_hook(&self, release: ReleaseNumber) -> bool {
        self.env.release(release).is_some_and(|release| release.spec.deploy.purge.is_some())
    }

    pub(super) fn purge(&mut self, service: Option<ServiceName>, paths: &[String]) -> Result<(), Refusal> {
        let shown = paths.iter().take(PATHS_MAX).map(|path| path.chars().take(PATH_CHARS_MAX).collect());
        let paths_more = u32::try_from(paths.len().saturating_sub(PATHS_MAX)).unwrap_or(u32::MAX);
        let purge = self.env.last_purge.saturating_add(1);
        self.emit(Fact::PurgeAsked { purge, service, paths: shown.collect(), paths_more })
    }

    /// The hook comes after our own: what a CDN asks for anew must not be the old answer.
    pub(super) fn cache_purged(
        &mut self,
        purge: u32,
        answers: u64,
        failure: Option<&String>,
    ) -> Result<(), Refusal> {
        let Some(by) = self.env.purges.iter().find(|one| one.awaits_cache(purge)).map(|one| one.by.clone())
        else {
            self.ignore("no such purge is under way");
            return Ok(());
        };
        let failure = failure.map(|why| why.chars().take(WHY_CHARS_MAX).collect::<String>());
        let is_done = failure.is_none();
        self.emit(Fact::CachePurged { purge, answers, failure })?;
        match self.env.stable.filter(|stable| is_done && self.has_purge_hook(*stable)) {
            Some(release) => self.emit_as(by, Fact::PurgeDue { release, purge: Some(purge), rollout: None }),
            None => Ok(()),
        }
    }

    pub(super) fn purged(
        &mut self,
        since: Timestamp,
        attempts: u32,
        failure: Option<&String>,
    ) -> Result<(), Refusal> {
        match &self.env.purge {
            Some(due) if due.since == since => {
                let release = due.release;
                let failure = failure.map(|why| why.chars().take(WHY_CHARS_MAX).collect());
                self.emit(Fact::Purged { release, attempts, failure })
            }
            Some(_) | None => {
                self.ignore("another purge is due, or none");
                Ok(())
            }
        }
    }
}
