//! What the sequential test is worth: the real engine decides over simulated requests.

use std::time::Instant;

use fairway_sim::statistics::{FalseAlarms, Found, Versions, false_alarms, found};

use super::figure::Figure;

/// One bad answer in a thousand is what a good service has; one in two hundred is over stable's p99.
const ERRORS: f64 = 0.001;
const SLOW: f64 = 0.005;
const WEIGHT: u32 = 10;

/// Enough for a median that the next seed does not move.
const BAD_ROLLOUTS: u64 = 2_000;
/// As the goal says.
const EQUAL_ROLLOUTS: u64 = 1_000;
const EQUAL_REQUESTS: u64 = 200_000;

pub fn measure() -> Vec<Figure> {
    let began = Instant::now();
    let bad = |new_errors| Versions { new_errors, ..Versions::equal(WEIGHT, ERRORS, SLOW) };
    let (total, tenth, few_errors, more_errors) = std::thread::scope(|scope| {
        // Each is a world of its own: as many at a time as there are, on the two cores that figures are meant for.
        let bad = scope.spawn(move || {
            let total = found(1, bad(1.0), BAD_ROLLOUTS, 2_000);
            let tenth = found(2, bad(0.1), BAD_ROLLOUTS, 50_000);
            (total, tenth)
        });
        let few = scope.spawn(|| equal(3, ERRORS));
        let more = scope.spawn(|| equal(4, 0.01));
        let (total, tenth) = bad.join().expect("the simulation checks its settings in its own tests");
        let few = few.join().expect("as above");
        (total, tenth, few, more.join().expect("as above"))
    });
    let took = began.elapsed().as_secs_f64();
    vec![
        detected("evidence: canary requests until total failure is found, median", total, 5.0),
        detected("evidence: the same for 0.1 % → 10 % errors", tenth, 50.0),
        alarms("evidence: equal rollouts turned back, 0.1 % errors", few_errors)
            .detail(format!("{}; all of this took {took:.0} s", told(few_errors))),
        alarms("evidence: equal rollouts turned back, 1 % errors", more_errors).detail(told(more_errors)),
    ]
}

fn equal(seed: u64, errors: f64) -> FalseAlarms {
    false_alarms(seed, Versions::equal(WEIGHT, errors, 0.008), EQUAL_ROLLOUTS, EQUAL_REQUESTS)
}

fn detected(what: &str, found: Found, goal: f64) -> Figure {
    Figure::new(what, found.median as f64, "req", goal).valid(found.rollouts == BAD_ROLLOUTS).detail(format!(
        "{} rollouts at {WEIGHT} % weight; nine of ten within {}; not found: {}",
        found.rollouts, found.p90, found.missed
    ))
}

/// Below 1 %, so that a thousand may have nine.
fn alarms(what: &str, alarms: FalseAlarms) -> Figure {
    let percent = alarms.turned_back as f64 * 100.0 / alarms.rollouts.max(1) as f64;
    Figure::new(what, percent, "%", 0.999)
        .valid(alarms.rollouts == EQUAL_ROLLOUTS && alarms.requests_each == EQUAL_REQUESTS)
}

fn told(alarms: FalseAlarms) -> String {
    format!(
        "{} of {} rollouts of {} requests each, at {WEIGHT} % weight",
        alarms.turned_back, alarms.rollouts, alarms.requests_each
    )
}
