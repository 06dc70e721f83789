use super::*;
use crate::labels::NAME;

fn samples(count: i64) -> Vec<(Labels, Sample)> {
    let labels = Labels::new([(NAME, "up")]);
    (0..count).map(|at_ms| (labels.clone(), Sample { at_ms, value: 1.0 })).collect()
}

fn outbox() -> Outbox {
    let settings = OutboxSettings { capacity_samples: 10, batch_samples_max: 4, ..OutboxSettings::default() };
    Outbox::new(settings)
}

fn times(batch: &Batch) -> Vec<i64> {
    batch.samples.iter().map(|(_, sample)| sample.at_ms).collect()
}

const WRITTEN: Outcome = Outcome::Answered { status: 204, retry_after: None };

#[test]
fn a_batch_goes_when_it_is_full_or_old() {
    let mut outbox = outbox();
    assert_eq!((outbox.wake_at_ms(), outbox.take(0).is_none()), (None, true));
    outbox.push(samples(6), 1_000);
    assert_eq!(times(&outbox.take(1_000).unwrap()), [0, 1, 2, 3]);
    assert!(outbox.take(9_000).is_none(), "one at a time");
    outbox.answered(WRITTEN, 1_100);
    assert_eq!(outbox.wake_at_ms(), Some(6_000));
    assert!(outbox.take(5_999).is_none());
    assert_eq!(times(&outbox.take(6_000).unwrap()), [4, 5]);
    outbox.answered(WRITTEN, 6_100);
    assert_eq!((outbox.counts().sent, outbox.pending()), (6, 0));
}

#[test]
fn a_batch_is_tried_again_with_longer_and_longer_pauses() {
    let mut outbox = outbox();
    outbox.push(samples(4), 0);
    let mut now_ms = 0;
    let mut pauses = Vec::new();
    for attempt in 0..11 {
        let batch = outbox.take(now_ms).unwrap();
        assert_eq!((batch.attempt, times(&batch)), (attempt, vec![0, 1, 2, 3]));
        outbox.answered(
            if attempt % 2 == 0 {
                Outcome::NoAnswer
            } else {
                Outcome::Answered { status: 503, retry_after: None }
            },
            now_ms,
        );
        let until_ms = outbox.wake_at_ms().unwrap();
        assert!(outbox.take(until_ms - 1).is_none());
        pauses.push(until_ms - now_ms);
        now_ms = until_ms;
    }
    assert_eq!(pauses, [30, 60, 120, 240, 480, 960, 1_920, 3_840, 5_000, 5_000, 5_000]);
    let _ = outbox.take(now_ms).unwrap();
    outbox.answered(WRITTEN, now_ms);
    assert_eq!(outbox.counts(), OutboxCounts { sent: 4, retries: 11, ..OutboxCounts::default() });
}

#[test]
fn retry_after_is_kept_within_reason() {
    let mut outbox = outbox();
    outbox.push(samples(4), 0);
    for (asked, wanted) in [(7, 7_000), (86_400, 300_000)] {
        let now_ms = outbox.wake_at_ms().unwrap();
        let _ = outbox.take(now_ms).unwrap();
        let retry_after = Some(Duration::from_secs(asked));
        outbox.answered(Outcome::Answered { status: 429, retry_after }, now_ms);
        assert_eq!(outbox.wake_at_ms(), Some(now_ms + wanted));
    }
}

#[test]
fn what_the_other_side_will_not_have_is_not_sent_again() {
    let mut outbox = outbox();
    outbox.push(samples(4), 0);
    for status in [400, 404, 301] {
        outbox.push(samples(4), 0);
        let _ = outbox.take(0).unwrap();
        outbox.answered(Outcome::Answered { status, retry_after: None }, 0);
    }
    assert_eq!((outbox.counts().rejected, outbox.counts().retries, outbox.pending()), (12, 0, 4));
}

#[test]
fn the_oldest_samples_go_when_there_is_no_room() {
    let mut outbox = outbox();
    outbox.push(samples(4), 0);
    let _ = outbox.take(0).unwrap();
    outbox.push(samples(100), 0);
    // What is under way stays; of what waits, the latest six fit beside it.
    assert_eq!((outbox.pending(), outbox.counts().dropped), (10, 94));
    outbox.answered(WRITTEN, 0);
    assert_eq!(times(&outbox.take(0).unwrap()), [94, 95, 96, 97]);
}

#[test]
fn an_answer_to_nothing_changes_nothing() {
    let mut outbox = outbox();
    outbox.push(samples(4), 0);
    outbox.answered(WRITTEN, 0);
    assert_eq!((outbox.counts(), outbox.pending()), (OutboxCounts::default(), 4));
}
