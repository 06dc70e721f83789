//! One value of one series at one moment.

/// Milliseconds since the Unix epoch; may be negative, as in Prometheus.
pub type TimestampMs = i64;

#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub at_ms: TimestampMs,
    pub value: f64,
}

/// The NaN that says "this series ended here"; no arithmetic makes it. Prometheus' bit pattern.
pub const STALE_BITS: u64 = 0x7ff0_0000_0000_0002;

/// The NaN of arithmetic, so that equal answers have equal bits. Prometheus' bit pattern.
pub const NAN_BITS: u64 = 0x7ff8_0000_0000_0001;

#[must_use]
pub fn stale() -> f64 {
    f64::from_bits(STALE_BITS)
}

/// Only the marker itself: every other NaN is a value.
#[must_use]
pub fn is_stale(value: f64) -> bool {
    value.to_bits() == STALE_BITS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_marker_is_a_nan_that_arithmetic_does_not_make() {
        assert!(stale().is_nan() && is_stale(stale()));
        assert!(!is_stale(f64::NAN) && !is_stale(f64::from_bits(NAN_BITS)));
    }
}
