use super::*;

const OLD: ReleaseNumber = ReleaseNumber(1);
const NEW: ReleaseNumber = ReleaseNumber(2);

fn web() -> ServiceName {
    ServiceName::new("web").unwrap()
}

fn counters(requests: u64, errors: u64) -> ArmCounters {
    ArmCounters { requests, errors, error_bursts: errors, latency: vec![requests], ..ArmCounters::default() }
}

fn observation(source: u64, new: ArmCounters, stable: ArmCounters) -> Observation {
    Observation { source, services: [(web(), [(NEW, new), (OLD, stable)].into())].into() }
}

fn read(trial: &mut Trial, second: u64, source: u64, new: (u64, u64), stable: (u64, u64)) {
    let observation = observation(source, counters(new.0, new.1), counters(stable.0, stable.1));
    trial.observe(Timestamp(second * 1_000), &observation, (NEW, Some(OLD)), || true);
}

fn totals(trial: &Trial) -> (u64, u64) {
    let arms = &trial.arms[&web()];
    (arms.new.total.requests, arms.stable.total.requests)
}

#[test]
fn what_stable_had_counted_before_is_no_part_of_the_trial() {
    let mut trial = Trial::default();
    read(&mut trial, 0, 7, (0, 0), (5_000, 50));
    assert_eq!(totals(&trial), (0, 0));
    read(&mut trial, 1, 7, (10, 1), (5_190, 51));
    assert_eq!(totals(&trial), (10, 190));
}

#[test]
fn a_new_version_that_was_never_tried_counts_from_its_first_request() {
    let mut trial = Trial::default();
    read(&mut trial, 0, 7, (3, 2), (5_000, 50));
    assert_eq!(totals(&trial), (3, 0));
    let mut again = Trial::default();
    let seen = observation(7, counters(3, 2), counters(5_000, 50));
    again.observe(Timestamp(0), &seen, (NEW, Some(OLD)), || false);
    assert_eq!(totals(&again), (0, 0), "these are of its first rollout");
}

/// Found by the simulator: an outage in the seconds before the first reading was all of the new version's making.
#[test]
fn the_first_reading_compares_nothing() {
    let mut trial = Trial::default();
    trial.begin(Timestamp(0), 10);
    read(&mut trial, 0, 7, (750, 513), (17_000, 12_000));
    assert!(trial.arms[&web()].segments.is_empty());
    read(&mut trial, 1, 7, (760, 520), (17_090, 12_063));
    let segment = &trial.arms[&web()].segments[0];
    assert_eq!((segment.new.requests, segment.stable.requests), (10, 90));
}

#[test]
fn another_life_of_the_proxy_counts_from_nothing() {
    let mut trial = Trial::default();
    read(&mut trial, 0, 7, (0, 0), (100, 0));
    read(&mut trial, 1, 7, (10, 0), (200, 0));
    read(&mut trial, 2, 8, (4, 0), (50, 0));
    assert_eq!(totals(&trial), (14, 150));
    // More than before, but of another life all the same.
    read(&mut trial, 3, 9, (400, 0), (900, 0));
    assert_eq!(totals(&trial), (414, 1_050));
}

#[test]
fn counters_that_go_backwards_are_another_life_that_did_not_say_so() {
    let mut trial = Trial::default();
    read(&mut trial, 0, 7, (0, 0), (100, 0));
    read(&mut trial, 1, 7, (10, 5), (200, 0));
    read(&mut trial, 2, 7, (20, 1), (300, 0));
    assert_eq!(totals(&trial), (30, 200));
    assert_eq!(trial.arms[&web()].new.total.errors, 6);
}

#[test]
fn a_reading_that_is_lost_or_doubled_changes_nothing() {
    let mut whole = Trial::default();
    let mut gappy = Trial::default();
    for second in 0..20 {
        let counts = ((second * 10, second), (second * 190, second));
        read(&mut whole, second, 7, counts.0, counts.1);
        read(&mut whole, second, 7, counts.0, counts.1);
        if second % 5 == 0 || second == 19 {
            read(&mut gappy, second, 7, counts.0, counts.1);
        }
    }
    assert_eq!(totals(&whole), totals(&gappy));
    assert_eq!(whole.arms[&web()].segments, gappy.arms[&web()].segments);
}

#[test]
fn the_last_half_minute_is_what_is_recent() {
    let mut trial = Trial::default();
    for second in 0..=100 {
        read(&mut trial, second, 7, (second * 10, 0), (second * 90, 0));
    }
    let (new, stable) = trial.recent(&web(), |_, _| true);
    assert_eq!((new.requests, stable.requests), (300, 2_700));
    // Too few in it: further back.
    let (new, _) = trial.recent(&web(), |new, _| new.requests >= 500);
    assert_eq!(new.requests, 500);
    // Never enough: as far back as it goes.
    let (new, _) = trial.recent(&web(), |_, _| false);
    assert_eq!(new.requests, 1_000);
}

#[test]
fn what_is_kept_is_bounded_and_a_clock_that_steps_back_empties_it() {
    let mut trial = Trial::default();
    for second in 0..1_000 {
        read(&mut trial, second, 7, (second, 0), (second, 0));
    }
    assert_eq!(trial.kept.len(), KEPT_MAX);
    read(&mut trial, 3, 7, (1_000, 0), (1_000, 0));
    assert_eq!(trial.kept.len(), 1);
}

#[test]
fn weights_that_saw_nothing_leave_no_trace() {
    let mut trial = Trial::default();
    for weight in 1..100 {
        trial.begin(Timestamp(u64::from(weight)), weight);
        read(&mut trial, u64::from(weight), 7, (0, 0), (0, 0));
    }
    assert_eq!(trial.arms[&web()].segments.len(), 1);
}

#[test]
fn a_source_that_lies_is_cut_to_what_can_be() {
    let lie = ArmCounters {
        requests: 5,
        errors: 9,
        error_bursts: 20,
        latency: vec![1; 40],
        ..ArmCounters::default()
    };
    let cut = lie.bounded();
    assert_eq!((cut.errors, cut.error_bursts, cut.latency.len()), (5, 5, 15));
}

#[test]
fn sums_do_not_overflow() {
    let mut trial = Trial::default();
    read(&mut trial, 0, 1, (0, 0), (0, 0));
    read(&mut trial, 1, 2, (u64::MAX, 0), (u64::MAX, 0));
    read(&mut trial, 2, 3, (u64::MAX, 0), (u64::MAX, 0));
    assert_eq!(totals(&trial), (u64::MAX, u64::MAX));
}
