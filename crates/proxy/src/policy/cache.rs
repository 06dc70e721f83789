//! Answers that are kept and given again: a shared cache (RFC 9111) for the routes that ask for one.
//!
//! What is kept belongs to the version that answered, and is only given where that version would have been asked: a
//! canary's visitors and the others never get each other's pages, and a release begins with an empty cache.
//!
//! Kept are the service's own bytes. Changes of header fields and compression are by route and by client, and are
//! applied on the way out, as to an answer that comes from the service.

mod asked;
pub(super) mod control;
mod fill;
mod flights;
mod key;
mod store;
mod stored;
mod vary;

use std::time::Duration;

use crate::snapshot::CacheRule;
pub(crate) use asked::{Asked, Lookup};
pub(crate) use fill::{Fill, State, Watch, Way};
pub(crate) use flights::{Flight, Lead, Turn};
pub(crate) use key::{Address, Key, Space};
pub(crate) use store::{Cache, Found, Outcome};
pub(crate) use stored::Stored;

/// What is kept below a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    pub path: String,
    /// For answers that do not say themselves how long they are good.
    pub fresh: Duration,
    pub stale: Duration,
}

impl Rule {
    pub(crate) fn of(rule: &CacheRule) -> Self {
        Self {
            path: rule.path.clone(),
            fresh: Duration::from_millis(rule.fresh_ms),
            stale: Duration::from_millis(rule.stale_ms),
        }
    }
}
