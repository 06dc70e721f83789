//! The sequential count test: how bad events fall to the new version and to stable, against what the new version's
//! share of the traffic explains.
//!
//! **Why it may be looked at after every request.** If the new version's rate of bad events is at most r0 times that of
//! stable, then a bad event falls to it with a probability of at most q0 = w·r0 / (w·r0 + 1 − w), where w is its share
//! of the requests. For any fixed qk ≥ q0 the product over the events of qk/q0 (fell to the new version) or
//! (1 − qk)/(1 − q0) (fell to stable) is a nonnegative supermartingale that starts at 1; so is any mixture of such
//! products with weights that sum to 1. By Ville's inequality it ever reaches 1/α with a probability of at most α,
//! whenever and however often somebody looks. (Wald's sequential probability ratio test with a mixture over the
//! alternative; as e-processes in Ramdas, Grünwald, Vovk, Shafer, "Game-theoretic statistics and safe anytime-valid
//! inference", 2023. For counts of a canary: Schultzberg and Ankargren, "Bringing sequential testing to experiments",
//! 2023.) A change of weight only changes q0 and qk of the events after it.
//!
//! **Mixture.** qk takes the rate ratio r0·k. Most of the weight is on k = 1000: what a person at night cares about is a
//! version that fails where stable does not, and there an event counts nearly 1/q0. The rest is spread over smaller
//! ratios, of which the true one is never far. At a share of 5 % two errors of the new version with none of stable are
//! worth 0.7 · 16² ≈ 180, and are enough; two errors that both fall to 5 % of the traffic by chance are as rare as that.
//!
//! **Split of α.** Any split that sums to α is valid (union bound). Errors get 80 % of it, slow answers and failed
//! connections 10 % each: an error is the worse event and the rarer one, the others come in numbers. Services share it evenly instead of being summed:
//! a total failure of a small service would drown in the good answers of a busy one, and services that call each other
//! have different shares. The price is a threshold higher by the number of services, which is one event more.
//!
//! **Events that come in bursts.** A client whose one request fails a hundred times within a second is one event, not a
//! hundred. Counting each client once a second is wrong in turn where one client is all the traffic there is (a load
//! balancer, a load generator): then the larger side is cut down more. So both counts have to reject. Each is valid where
//! its assumption holds, and the smaller of two tests is as safe as either. The count of bursts is held against the α of
//! its service alone, undivided: it is there to tell one client's storm from many events, and it grows by one a second
//! at most where one client is all there is. When everything fails that the new version answers, there is nothing to tell
//! apart, and the plain count decides.
//!
//! **Failed connections.** A version to which no connection can be made fails nobody as long as another one answers in
//! its place, so that no error is ever counted. The attempts are events like any other: they fall to a version with its
//! share, where both versions can be reached alike.

use crate::trial::{Arms, Segment, SegmentCount};

use super::BadEvent;

/// Ratios (over the margin) of the mixture, and the weight of each; the weights sum to 1.
const MIXTURE: [(f64, f64); 8] = [
    (1_000.0, 0.70),
    (100.0, 0.06),
    (20.0, 0.05),
    (10.0, 0.05),
    (5.0, 0.05),
    (3.0, 0.04),
    (2.0, 0.03),
    (1.5, 0.02),
];

/// Parts of α.
const ALPHA_ERRORS: f64 = 0.8;
const ALPHA_SLOW: f64 = 0.1;
const ALPHA_UNREACHED: f64 = 0.1;

/// Larger E-values say nothing more, and infinity has no stored form.
const E_MAX: f64 = 1e12;

/// Slow answers of the new version before they can turn it back: a process that has just started answers its first
/// requests slowly, and then no more. Asking for more than the test does cannot raise the false alarms.
const SLOW_MIN: u64 = 6;

/// The same of failed connections: a copy that ended and comes back at once refuses the few that come meanwhile.
const UNREACHED_MIN: u64 = 6;

/// The smallest ratio is searched up to here, and to this factor.
const DETECTABLE_MAX: f64 = 1e6;
const DETECTABLE_ROUNDS: u32 = 40;

/// What the test makes of one service and one kind of event.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// The smaller E-value of the plain count and (times the number of services) the count of bursts.
    pub e: f64,
    /// Where it rejects.
    pub threshold: f64,
    pub share: f64,
    pub q0: f64,
}

impl Outcome {
    #[must_use]
    pub fn rejects(&self) -> bool {
        self.e >= self.threshold
    }
}

/// Where the test of `event` rejects when `services` are compared.
#[must_use]
pub fn threshold(alpha: f64, event: BadEvent, services: usize) -> f64 {
    let part = match event {
        BadEvent::Error => ALPHA_ERRORS,
        BadEvent::Slow => ALPHA_SLOW,
        // Silence is not tested here.
        BadEvent::Unreached | BadEvent::Silence => ALPHA_UNREACHED,
    };
    services.max(1) as f64 / (alpha * part).max(1e-9)
}

/// Share of the requests that the test reckons with: the set weight, or what was observed where that is more. Sticky
/// visitors and services that call each other can give the new version more than its weight; what it would have to
/// answer for then is more too.
fn share(weight: u32, new: u64, stable: u64) -> f64 {
    let set = f64::from(weight.min(100)) / 100.0;
    let all = new as f64 + stable as f64;
    if all > 0.0 { set.max(new as f64 / all) } else { set }
}

fn explained(share: f64, ratio: f64) -> f64 {
    share * ratio / (share * ratio + 1.0 - share)
}

/// Bad events at one share.
#[derive(Clone, Copy, Debug)]
struct Tally {
    share: f64,
    new: f64,
    stable: f64,
}

/// The mixture's E-value; real-valued counts, so that expected ones can be asked about.
fn e_value(margin: f64, tallies: &[Tally]) -> f64 {
    let sum = MIXTURE.iter().map(|(k, weight)| {
        let log: f64 = tallies
            .iter()
            .filter(|tally| tally.share > 0.0 && tally.share < 1.0)
            .map(|tally| {
                let (q0, qk) = (explained(tally.share, margin), explained(tally.share, margin * k));
                // 0 · −∞ is no number: at a share next to 1 the stable side's factor can be 0.
                let stable = if tally.stable > 0.0 { ((1.0 - qk) / (1.0 - q0)).ln() } else { 0.0 };
                tally.new * (qk / q0).ln() + tally.stable * stable
            })
            .sum();
        weight * log.min(E_MAX.ln() + 1.0).exp()
    });
    sum.sum::<f64>().min(E_MAX)
}

fn requests(count: &SegmentCount, event: BadEvent) -> u64 {
    match event {
        BadEvent::Error | BadEvent::Unreached | BadEvent::Silence => count.requests,
        BadEvent::Slow => count.timed,
    }
}

fn bad(count: &SegmentCount, event: BadEvent) -> u64 {
    match event {
        BadEvent::Error => count.errors,
        BadEvent::Slow => count.slow,
        BadEvent::Unreached => count.unreached,
        BadEvent::Silence => 0,
    }
}

fn sum(counts: impl Iterator<Item = u64>) -> u64 {
    counts.fold(0, u64::saturating_add)
}

/// Segments that compare anything: stable and the new version both had public traffic.
fn compared(segments: &[Segment]) -> impl Iterator<Item = &Segment> {
    segments.iter().filter(|segment| segment.weight > 0 && segment.weight < 100)
}

/// `services`: how many are compared. `all_failed`: nothing that the new version answered in this step was good.
#[must_use]
pub fn test(
    arms: &Arms,
    event: BadEvent,
    margin: f64,
    alpha: f64,
    services: usize,
    all_failed: bool,
) -> Outcome {
    let threshold = threshold(alpha, event, services);
    let tally = |segment: &Segment, count: fn(&SegmentCount, BadEvent) -> u64| Tally {
        share: share(segment.weight, requests(&segment.new, event), requests(&segment.stable, event)),
        new: count(&segment.new, event) as f64,
        stable: count(&segment.stable, event) as f64,
    };
    let plain: Vec<Tally> = compared(&arms.segments).map(|segment| tally(segment, bad)).collect();
    let share = plain.last().map_or(0.0, |tally| tally.share);
    let mut e = e_value(margin, &plain);
    match event {
        BadEvent::Error if !all_failed => {
            let bursts: Vec<Tally> =
                compared(&arms.segments).map(|segment| tally(segment, |count, _| count.bursts)).collect();
            e = e.min(e_value(margin, &bursts) * services.max(1) as f64);
        }
        BadEvent::Error | BadEvent::Silence => {}
        BadEvent::Slow | BadEvent::Unreached => {
            let least = if event == BadEvent::Slow { SLOW_MIN } else { UNREACHED_MIN };
            if sum(compared(&arms.segments).map(|segment| bad(&segment.new, event))) < least {
                e = e.min(1.0);
            }
        }
    }
    Outcome { e, threshold, share, q0: explained(share, margin) }
}

/// The smallest ratio of the new version's rate of bad events to stable's whose expected counts, in the requests that
/// were counted, would have been rejected. None while not even total failure would.
#[must_use]
pub fn detectable_ratio(arms: &Arms, event: BadEvent, margin: f64, threshold: f64) -> Option<f64> {
    let segments: Vec<&Segment> = compared(&arms.segments).collect();
    let stable_requests = sum(segments.iter().map(|segment| requests(&segment.stable, event)));
    let stable_bad = sum(segments.iter().map(|segment| bad(&segment.stable, event)));
    if stable_requests == 0 {
        return None;
    }
    // None seen is not a rate of none: half an event stands for what may come (Jeffreys' prior has the same half).
    let rate = (stable_bad as f64).max(0.5) / stable_requests as f64;
    let would_reject = |ratio: f64| {
        let expected: Vec<Tally> = segments
            .iter()
            .map(|segment| {
                let (new, stable) = (requests(&segment.new, event), requests(&segment.stable, event));
                Tally {
                    share: share(segment.weight, new, stable),
                    new: new as f64 * (ratio * rate).min(1.0),
                    stable: bad(&segment.stable, event) as f64,
                }
            })
            .collect();
        let enough = match event {
            BadEvent::Error | BadEvent::Unreached | BadEvent::Silence => true,
            BadEvent::Slow => expected.iter().map(|tally| tally.new).sum::<f64>() >= SLOW_MIN as f64,
        };
        enough && e_value(margin, &expected) >= threshold
    };
    let (mut low, mut high) = (1.0f64, DETECTABLE_MAX.min((1.0 / rate).max(1.0)));
    if !would_reject(high) {
        return None;
    }
    for _ in 0..DETECTABLE_ROUNDS {
        let middle = (low * high).sqrt();
        if would_reject(middle) { high = middle } else { low = middle }
    }
    Some(high)
}

#[cfg(test)]
mod tests;
