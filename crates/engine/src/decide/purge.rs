//! What stands before the environment is emptied after a rollout has ended, and when somebody asks.

use super::Decider;
use crate::event::Fact;
use crate::id::ReleaseNumber;
use crate::refusal::Refusal;
use crate::time::Timestamp;

/// An error names a host and a cause; what a CDN answers may be a page.
const WHY_CHARS_MAX: usize = 500;

impl Decider {
    /// By the hook of what serves now; of the release that was given up where that one has none, whose pages may be kept
    /// somewhere as well.
    pub(super) fn purge_after(&mut self, gone: Option<ReleaseNumber>) -> Result<(), Refusal> {
        let has_hook = |release: &ReleaseNumber| {
            self.env.release(*release).is_some_and(|release| release.spec.deploy.purge.is_some())
        };
        match self.env.stable.into_iter().chain(gone).find(has_hook) {
            Some(release) => self.follow(Fact::PurgeDue { release }),
            None => Ok(()),
        }
    }

    pub(super) fn purge(&mut self) -> Result<(), Refusal> {
        let release = self.env.stable.filter(|stable| {
            self.env.release(*stable).is_some_and(|release| release.spec.deploy.purge.is_some())
        });
        match release {
            Some(release) => self.emit(Fact::PurgeDue { release }),
            None => {
                self.ignore("the release that serves has no purge hook");
                Ok(())
            }
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
