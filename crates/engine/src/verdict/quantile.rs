//! Quantiles of the proxy's histogram, as PromQL's `histogram_quantile` reckons them: linear within a bucket, the
//! lower bound of the first is 0, and what lies above the last bound is that bound.

use crate::evidence::Number;
use crate::observation::LATENCY_BOUNDS_MS;

/// Seconds under which this share (0 to 1) of the requests stayed; none without requests. `latency` is not cumulative.
#[must_use]
pub fn quantile_seconds(q: f64, latency: &[u64]) -> Option<Number> {
    let all = latency.iter().fold(0u64, |sum, count| sum.saturating_add(*count));
    if all == 0 {
        return None;
    }
    let rank = q.clamp(0.0, 1.0) * all as f64;
    let mut below = 0.0;
    let mut lower = 0.0;
    for (upper, count) in LATENCY_BOUNDS_MS.iter().zip(latency) {
        let (upper, count) = (*upper as f64, *count as f64);
        if count > 0.0 && below + count >= rank {
            return Some(Number((lower + (upper - lower) * ((rank - below) / count)) / 1000.0));
        }
        below += count;
        lower = upper;
    }
    Some(Number(lower_of_last() / 1000.0))
}

fn lower_of_last() -> f64 {
    LATENCY_BOUNDS_MS.last().map_or(0.0, |last| *last as f64)
}

/// The smallest bound of the histogram under which at least this share of the requests stayed; none where that is not
/// known, because they lie above the last one.
pub(crate) fn quantile_bound_ms(q: f64, latency: &[u64]) -> Option<u64> {
    let all = latency.iter().fold(0u64, |sum, count| sum.saturating_add(*count));
    let mut below = 0u64;
    for (upper, count) in LATENCY_BOUNDS_MS.iter().zip(latency) {
        below = below.saturating_add(*count);
        if all > 0 && below as f64 >= q * all as f64 {
            return Some(*upper);
        }
    }
    None
}

/// Requests that took longer than `bound_ms`, which is one of the histogram's bounds.
pub(crate) fn slower_than(bound_ms: u64, latency: &[u64]) -> u64 {
    let first = LATENCY_BOUNDS_MS.iter().take_while(|upper| **upper <= bound_ms).count();
    latency.iter().skip(first).fold(0u64, |sum, count| sum.saturating_add(*count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quantile_is_linear_within_its_bucket() {
        // 100 requests between 5 and 10 ms: the median is in the middle.
        assert_eq!(quantile_seconds(0.5, &[0, 100]), Some(Number(0.0075)));
        // In the first bucket it begins at 0.
        assert_eq!(quantile_seconds(0.5, &[100]), Some(Number(0.0025)));
        assert_eq!(quantile_seconds(0.95, &[]), None);
        assert_eq!(quantile_seconds(0.95, &[0, 0, 0]), None);
    }

    #[test]
    fn above_the_last_bound_it_is_that_bound() {
        let mut latency = vec![0; 15];
        latency[14] = 7;
        assert_eq!(quantile_seconds(0.5, &latency), Some(Number(10.0)));
        assert_eq!(quantile_bound_ms(0.99, &latency), None);
    }

    #[test]
    fn slow_is_what_lies_above_the_bound_and_not_in_it() {
        let latency = [1, 2, 4, 8, 16];
        assert_eq!(slower_than(10, &latency), 4 + 8 + 16);
        assert_eq!(slower_than(10_000, &latency), 0);
        assert_eq!(quantile_bound_ms(0.99, &[98, 1, 1]), Some(10));
        assert_eq!(quantile_bound_ms(0.99, &[99, 0, 1]), Some(5));
    }

    #[test]
    fn counts_that_overflow_do_not_panic() {
        assert!(quantile_seconds(0.5, &[u64::MAX, u64::MAX]).is_some());
        assert_eq!(slower_than(5, &[1, u64::MAX, u64::MAX]), u64::MAX);
    }
}
