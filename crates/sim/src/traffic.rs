//! Visitors: how many requests come, how each version answers them, and what the proxy counts of it.

use std::collections::BTreeMap;

use fairway_engine::id::{ReleaseNumber, ServiceName};
use fairway_engine::{ArmCounters, LATENCY_BOUNDS_MS, Observation, RouteTable};

use crate::rng::Rng;

/// How a version answers. Shares of its requests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Behaviour {
    pub errors: f64,
    pub slow: f64,
    /// Now and then one client fails many times at once.
    pub is_bursty: bool,
    pub answers: Answers,
}

/// What becomes of a request at all.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Answers {
    Always,
    /// It is taken, and waits until its client or the proxy gives up.
    Never,
    /// There is no connection; the proxy asks another version.
    NoConnection,
}

impl Behaviour {
    pub const USUAL: Behaviour =
        Behaviour { errors: 0.003, slow: 0.005, is_bursty: false, answers: Answers::Always };
}

/// After this the proxy answers in the place of a copy that does not.
const GIVEN_UP_AFTER_MS: u64 = 60_000;

/// Share of the requests that fail, whichever version gets them, while what all of them need is gone.
const OUTAGE_ERRORS: f64 = 0.7;

/// Requests a second: nobody, a few, a shop at noon, a crowd.
const RATES: [u64; 5] = [0, 1, 20, 100, 400];

#[derive(Clone, Debug)]
pub struct Traffic {
    /// Which life of the proxy counts.
    source: u64,
    counted: BTreeMap<ServiceName, BTreeMap<ReleaseNumber, ArmCounters>>,
    /// Requests a second of each public service.
    pub rate: u64,
    pub is_outage: bool,
    pub are_metrics_down: bool,
    last_ms: u64,
}

impl Traffic {
    #[must_use]
    pub fn new(now_ms: u64) -> Self {
        Self {
            source: 1,
            counted: BTreeMap::new(),
            rate: 100,
            is_outage: false,
            are_metrics_down: false,
            last_ms: now_ms,
        }
    }

    pub fn swing(&mut self, rng: &mut Rng) {
        self.rate = RATES[rng.index(RATES.len())];
    }

    /// The proxy died: the next one counts from nothing.
    pub fn restart(&mut self) {
        self.source += 1;
        self.counted.clear();
    }

    /// Requests since the last time, as `table` spreads them.
    pub fn flow(
        &mut self,
        rng: &mut Rng,
        now_ms: u64,
        table: &RouteTable,
        behaviour: impl Fn(ReleaseNumber) -> Behaviour,
    ) {
        // After a night without anybody looking the exact number is of no interest.
        let elapsed_ms = (now_ms - self.last_ms).min(60_000);
        self.last_ms = now_ms;
        for (service, route) in &table.services {
            let requests = self.rate * elapsed_ms / 1_000;
            for (release, version) in &route.versions {
                if version.weight == 0 || version.instances.is_empty() {
                    continue;
                }
                let behaviour = behaviour(*release);
                let own = rng.binomial(requests, f64::from(version.weight) / 100.0);
                let errors = if self.is_outage { OUTAGE_ERRORS } else { behaviour.errors };
                let mut failed = rng.binomial(own, errors);
                let mut bursts = failed;
                if behaviour.is_bursty && own > 0 && rng.percent(3) {
                    // One client that asks again and again within a second.
                    failed = (failed + 40).min(own);
                    bursts = (bursts + 1).min(failed);
                }
                let slow = rng.binomial(own, behaviour.slow);
                let arm = self.counted.entry(service.clone()).or_default().entry(*release).or_default();
                match behaviour.answers {
                    Answers::Always => {}
                    Answers::Never => {
                        arm.in_flight = (arm.in_flight + own).min(self.rate * GIVEN_UP_AFTER_MS / 1_000);
                        continue;
                    }
                    Answers::NoConnection => {
                        arm.unreached += own;
                        continue;
                    }
                }
                arm.requests += own;
                arm.errors += failed;
                arm.error_bursts += bursts;
                arm.latency.resize(LATENCY_BOUNDS_MS.len() + 1, 0);
                arm.latency[1] += own - slow;
                arm.latency[9] += slow;
            }
        }
    }

    #[must_use]
    pub fn observation(&self) -> Observation {
        Observation { source: self.source, services: self.counted.clone() }
    }

    /// Share of errors that a query would see, over the whole life of the proxy.
    #[must_use]
    pub fn error_rate(&self, release: ReleaseNumber) -> Option<f64> {
        let arms = self.counted.values().filter_map(|arms| arms.get(&release));
        let (requests, errors) =
            arms.fold((0, 0), |(requests, errors), arm| (requests + arm.requests, errors + arm.errors));
        (requests > 0).then(|| errors as f64 / requests as f64)
    }
}
