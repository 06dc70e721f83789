//! What a route asks of the edge, made ready: compiled once for each table, looked at for each request.

pub(crate) mod cache;
pub(crate) mod coding;
pub(crate) mod etag;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
pub(crate) mod headers;
pub(crate) mod packer;
pub(crate) mod rate;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::snapshot::{Policy, RateLimit, RequestLimits, Route, ToHttps};
use cache::Rule;
use coding::Compressible;
use headers::Change;
use rate::Limiter;

#[derive(Debug)]
pub(crate) struct RoutePolicy {
    pub https: Option<ToHttps>,
    pub changes: Vec<Change>,
    pub compress: Option<Compressible>,
    pub rates: Vec<Rate>,
    /// The first whose path fits; none where nothing is kept.
    pub cache: Vec<Rule>,
    pub limits: RequestLimits,
}

/// A rate that requests must keep.
#[derive(Debug)]
pub(crate) struct Rate {
    pub settings: RateLimit,
    pub limiter: Arc<Limiter>,
}

/// Limiters by route and settings: what was counted outlives the table, as a deploy is no reason to forget it.
#[derive(Debug, Default)]
pub(crate) struct Limiters(BTreeMap<(String, String), (RateLimit, Arc<Limiter>)>);

impl Limiters {
    /// Those of `before` that the route still wants, and new ones. `self` collects what the next table may want.
    fn limiter(
        &mut self,
        before: &Limiters,
        listener: &str,
        route: &Route,
        settings: &RateLimit,
    ) -> Arc<Limiter> {
        let key = (format!("{listener} {}", route.label()), settings.name.clone());
        let limiter = match before.0.get(&key) {
            Some((known, limiter)) if known == settings => Arc::clone(limiter),
            Some(_) | None => Arc::new(Limiter::new(settings)),
        };
        self.0.insert(key, (settings.clone(), Arc::clone(&limiter)));
        limiter
    }
}

impl RoutePolicy {
    pub(crate) fn of(route: &Route, limiters: &mut Limiters, before: &Limiters) -> Self {
        let Policy { https, response_headers, compress, rate_limits, cache, limits } = &route.policy;
        Self {
            https: *https,
            changes: response_headers.iter().map(Change::of).collect(),
            compress: compress.as_ref().map(Compressible::of),
            rates: rate_limits
                .iter()
                .map(|settings| Rate {
                    settings: settings.clone(),
                    limiter: limiters.limiter(before, &route.listener, route, settings),
                })
                .collect(),
            cache: cache.iter().map(Rule::of).collect(),
            limits: limits.clone(),
        }
    }
}
