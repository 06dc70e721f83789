use super::*;
use crate::evidence::{Number, ScalePolicy};

fn settings(sources: &[(ScaleSource, f64)]) -> Autoscale {
    let behaviour = |seconds, value| ScaleBehaviour {
        stabilisation: Duration::from_secs(seconds),
        policies: vec![ScalePolicy {
            change: ScaleChange::Percent { value },
            period: Duration::from_secs(15),
        }],
        select: ScaleSelect::Max,
    };
    Autoscale {
        min: 1,
        max: 20,
        metrics: sources
            .iter()
            .map(|(source, target)| ScaleMetric { source: source.clone(), target: Number(*target) })
            .collect(),
        tolerance: Number(0.1),
        up: behaviour(0, 100),
        down: behaviour(300, 100),
    }
}

fn reading(copies: u32, values: &[f64]) -> ScaleReading {
    ScaleReading { copies, values: values.iter().map(|value| Some(Number(*value))).collect() }
}

fn advise(current: u32, copies: u32, value: f64) -> Option<u32> {
    settings(&[(ScaleSource::Cpu, 50.0)]).advise(current, &reading(copies, &[value]))
}

fn at(seconds: u64) -> Timestamp {
    Timestamp(1_000_000 + seconds * 1_000)
}

#[test]
fn the_ratio_is_rounded_up_outside_the_tolerance() {
    assert_eq!(advise(4, 4, 54.0), Some(4), "within 10 %");
    assert_eq!(advise(4, 4, 56.0), Some(5), "4 × 1.12 = 4.48");
    assert_eq!(advise(4, 4, 100.0), Some(8));
    assert_eq!(advise(4, 4, 25.0), Some(2));
    assert_eq!(advise(3, 3, 0.0), Some(1), "no load leaves the minimum");
    // 3 × 1.1 is 3.3000000000000003, and 10 × 1.2 = 12 exactly: floating point adds no copy.
    assert_eq!(advise(10, 10, 60.0), Some(12));
}

#[test]
fn the_largest_of_several_metrics_counts() {
    let two = settings(&[(ScaleSource::Cpu, 50.0), (ScaleSource::Requests, 100.0)]);
    assert_eq!(two.advise(2, &reading(2, &[25.0, 300.0])), Some(6));
}

/// Kubernetes: a copy without a value counts as idle when more are asked for, as busy as wanted when fewer are.
#[test]
fn copies_that_say_nothing_damp_the_change() {
    // 3 of 4 at 100 %: 300 / 4 = 75 % of all, times 1.5 instead of 2.
    assert_eq!(advise(4, 3, 100.0), Some(6));
    // 2 of 4 at 60 %: 30 % of all would be fewer, so nothing changes.
    assert_eq!(advise(4, 2, 60.0), Some(4));
    // 2 of 4 at 10 %: (20 + 100) / 4 = 30 %.
    assert_eq!(advise(4, 2, 10.0), Some(3));
    assert_eq!(advise(4, 0, 100.0), Some(4), "nobody said anything");
}

#[test]
fn what_could_not_be_measured_never_takes_copies_away() {
    let two = settings(&[(ScaleSource::Cpu, 50.0), (ScaleSource::Requests, 100.0)]);
    let half = |cpu| ScaleReading { copies: 4, values: vec![Some(Number(cpu)), None] };
    assert_eq!(two.advise(4, &half(10.0)), None);
    assert_eq!(two.advise(4, &half(100.0)), Some(8));
    assert_eq!(two.advise(4, &ScaleReading { copies: 4, values: vec![] }), None);
    assert_eq!(two.advise(4, &reading(4, &[f64::NAN, f64::INFINITY])), None);
}

#[test]
fn numbers_beyond_all_measure_are_bounded() {
    assert_eq!(advise(4, 4, 1e300), Some(20));
    assert_eq!(advise(0, 0, 100.0), Some(1), "from nothing to the minimum");
    assert_eq!(advise(u32::MAX, u32::MAX, 100.0), Some(20));
}

#[test]
fn copies_go_only_when_the_whole_window_asks_for_fewer() {
    let settings = settings(&[(ScaleSource::Cpu, 50.0)]);
    let mut scaler = Autoscaler::default();
    scaler.advise(at(0), 8);
    scaler.advise(at(10), 3);
    assert_eq!(scaler.decide(&settings, at(10), 8, 3), 8);
    assert_eq!(scaler.decide(&settings, at(309), 8, 3), 8, "8 was asked for until 10 s");
    assert_eq!(scaler.decide(&settings, at(310), 8, 3), 3);
}

/// The advice in force when the window began counts: it was not said again because nothing changed.
#[test]
fn advice_holds_until_the_next_one() {
    let settings = settings(&[(ScaleSource::Cpu, 50.0)]);
    let mut scaler = Autoscaler::default();
    scaler.advise(at(0), 3);
    assert_eq!(scaler.decide(&settings, at(1_000), 8, 3), 3);
    scaler.advise(at(1_000), 8);
    scaler.advise(at(1_010), 3);
    assert_eq!(scaler.decide(&settings, at(1_200), 8, 3), 8);
}

#[test]
fn a_policy_bounds_what_a_period_may_change() {
    let settings = settings(&[(ScaleSource::Cpu, 50.0)]);
    let mut scaler = Autoscaler::default();
    assert_eq!(scaler.decide(&settings, at(0), 2, 20), 4, "doubled");
    scaler.change(at(0), 2, 4);
    assert_eq!(scaler.decide(&settings, at(5), 4, 20), 4, "once in 15 s");
    assert_eq!(scaler.decide(&settings, at(15), 4, 20), 8);
}

#[test]
fn of_several_policies_the_larger_or_the_smaller_holds_or_none() {
    let mut settings = settings(&[(ScaleSource::Cpu, 50.0)]);
    settings
        .up
        .policies
        .push(ScalePolicy { change: ScaleChange::Copies { value: 4 }, period: Duration::from_secs(15) });
    let scaler = Autoscaler::default();
    assert_eq!(scaler.decide(&settings, at(0), 2, 20), 6);
    settings.up.select = ScaleSelect::Min;
    assert_eq!(scaler.decide(&settings, at(0), 2, 20), 4);
    settings.up.select = ScaleSelect::Disabled;
    assert_eq!(scaler.decide(&settings, at(0), 2, 20), 2);
}

#[test]
fn out_of_bounds_is_put_right_at_once() {
    let settings = settings(&[(ScaleSource::Cpu, 50.0)]);
    assert_eq!(Autoscaler::default().decide(&settings, at(0), 30, 30), 20);
    assert_eq!(Autoscaler::default().decide(&settings, at(0), 0, 5), 1);
}

#[test]
fn a_clock_that_steps_back_leaves_nothing_in_the_future() {
    let settings = settings(&[(ScaleSource::Cpu, 50.0)]);
    let mut scaler = Autoscaler::default();
    scaler.advise(at(10_000), 20);
    scaler.change(at(10_000), 2, 8);
    scaler.advise(at(0), 3);
    assert_eq!(scaler.advised.len(), 1);
    assert_eq!(scaler.decide(&settings, at(301), 8, 3), 3);
}

#[test]
fn what_is_remembered_is_bounded() {
    let mut scaler = Autoscaler::default();
    for second in 0..10_000 {
        scaler.advise(at(second), u32::try_from(second % 7).unwrap());
        scaler.change(at(second), 1, 2);
    }
    assert_eq!((scaler.advised.len(), scaler.changes.len()), (REMEMBERED_MAX, REMEMBERED_MAX));
}
