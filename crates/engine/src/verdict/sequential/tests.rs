use super::*;

fn arms(weight: u32, new: (u64, u64), stable: (u64, u64)) -> Arms {
    let count = |(requests, errors): (u64, u64)| SegmentCount {
        requests,
        errors,
        bursts: errors,
        timed: requests,
        slow: errors,
        unreached: errors,
    };
    Arms { segments: vec![Segment { weight, new: count(new), stable: count(stable) }], ..Arms::default() }
}

fn rejects(weight: u32, new: (u64, u64), stable: (u64, u64)) -> bool {
    test(&arms(weight, new, stable), BadEvent::Error, 1.25, 0.01, 1, new.0 == new.1).rejects()
}

#[test]
fn the_weights_of_the_mixture_sum_to_one() {
    let sum: f64 = MIXTURE.iter().map(|(_, weight)| weight).sum();
    assert!((sum - 1.0).abs() < 1e-12, "{sum}");
    assert!((ALPHA_ERRORS + ALPHA_SLOW + ALPHA_UNREACHED - 1.0).abs() < 1e-12);
}

/// The end-to-end figure hangs on this: one bad answer a second, and three seconds.
#[test]
fn two_errors_at_five_percent_are_enough_when_stable_has_none() {
    assert!(!rejects(5, (10, 1), (190, 0)));
    assert!(rejects(5, (20, 2), (380, 0)));
}

#[test]
fn total_failure_at_ten_percent_takes_three_requests() {
    assert!(!rejects(10, (2, 2), (18, 0)));
    assert!(rejects(10, (3, 3), (27, 0)));
}

#[test]
fn equal_rates_are_not_evidence() {
    assert!(!rejects(10, (1_000, 10), (9_000, 90)));
    assert!(!rejects(50, (100_000, 1_000), (100_000, 1_000)));
    // Worse, but within the margin.
    assert!(!rejects(50, (100_000, 1_200), (100_000, 1_000)));
}

#[test]
fn a_small_regression_is_found_with_enough_requests() {
    assert!(!rejects(50, (1_000, 20), (1_000, 10)));
    assert!(rejects(50, (20_000, 400), (20_000, 200)));
}

/// A load balancer is one client: its errors of one second are one burst on each side, however they are spread.
#[test]
fn one_client_for_all_traffic_is_no_evidence_against_the_smaller_side() {
    let mut one = arms(5, (1_000, 200), (19_000, 3_800));
    one.segments[0].new.bursts = 100;
    one.segments[0].stable.bursts = 100;
    assert!(!test(&one, BadEvent::Error, 1.25, 0.01, 1, false).rejects());
}

#[test]
fn one_client_that_fails_a_hundred_times_in_a_second_is_one_event() {
    let mut one = arms(5, (1_000, 100), (19_000, 0));
    one.segments[0].new.bursts = 1;
    assert!(!test(&one, BadEvent::Error, 1.25, 0.01, 1, false).rejects());
    assert!(test(&one, BadEvent::Error, 1.25, 0.01, 1, true).rejects(), "total failure is no burst");
}

#[test]
fn the_first_slow_answers_of_a_cold_process_do_not_turn_it_back() {
    let of = |slow| test(&arms(5, (50, slow), (950, 0)), BadEvent::Slow, 1.25, 0.01, 1, false).rejects();
    assert!(!of(SLOW_MIN - 1));
    assert!(of(SLOW_MIN));
}

#[test]
fn a_share_above_the_weight_is_not_held_against_the_new_version() {
    // Set to 5 %, but half of the requests go there: half of the errors are no evidence.
    assert!(!rejects(5, (1_000, 20), (1_000, 20)));
}

#[test]
fn steps_without_a_comparison_say_nothing() {
    assert!(!rejects(0, (10, 10), (90, 0)));
    assert!(!rejects(100, (1_000, 1_000), (0, 0)));
}

#[test]
fn the_detectable_ratio_falls_with_requests() {
    let at = |requests: u64| {
        let arms = arms(10, (requests / 10, 0), (requests * 9 / 10, requests / 1_000));
        detectable_ratio(&arms, BadEvent::Error, 1.25, threshold(0.01, BadEvent::Error, 1))
    };
    assert_eq!(at(10), None, "one request says nothing");
    let (few, many) = (at(10_000).unwrap(), at(1_000_000).unwrap());
    assert!(few > many && many > 1.25, "{few} {many}");
}

#[test]
fn counts_beyond_all_measure_stay_finite() {
    let huge = arms(50, (u64::MAX, u64::MAX), (u64::MAX, 0));
    let outcome = test(&huge, BadEvent::Error, 1.25, 0.01, 1, true);
    assert!(outcome.e.is_finite() && outcome.rejects());
    let worst = arms(50, (u64::MAX, 0), (u64::MAX, u64::MAX));
    assert!(test(&worst, BadEvent::Error, 1.25, 0.01, 1, false).e.is_finite());
    assert!(detectable_ratio(&huge, BadEvent::Error, 1.25, 100.0).is_some());
}

/// With the shop's services, and a load generator that is one client: three errors in three seconds, of which two may
/// have fallen into one of them.
#[test]
fn bursts_are_not_asked_for_once_more_for_every_service() {
    let mut one = arms(5, (30, 3), (570, 0));
    one.segments[0].new.bursts = 2;
    assert!(test(&one, BadEvent::Error, 1.25, 0.01, 3, false).rejects());
    one.segments[0].new.bursts = 1;
    assert!(!test(&one, BadEvent::Error, 1.25, 0.01, 3, false).rejects());
}
