//! Sums that do not lose what is small: Kahan's summation as Neumaier improved it, used where Prometheus uses it.

/// A running sum and what rounding took from it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum {
    pub sum: f64,
    pub lost: f64,
}

impl Sum {
    #[must_use]
    pub fn plus(self, term: f64) -> Self {
        let sum = self.sum + term;
        let lost = if sum.is_infinite() {
            0.0
        } else if self.sum.abs() >= term.abs() {
            self.lost + ((self.sum - sum) + term)
        } else {
            self.lost + ((term - sum) + self.sum)
        };
        Self { sum, lost }
    }

    #[must_use]
    pub fn total(self) -> f64 {
        self.sum + self.lost
    }
}

/// A running mean: the sum over the count, until the sum would leave the range of floats; then the mean moves by each
/// value.
#[derive(Clone, Copy, Debug)]
pub enum Mean {
    Whole { sum: Sum, count: f64 },
    Moving { mean: Sum, count: f64 },
}

impl Mean {
    #[must_use]
    pub fn of(first: f64) -> Self {
        Self::Whole { sum: Sum { sum: first, lost: 0.0 }, count: 1.0 }
    }

    #[must_use]
    pub fn with(self, value: f64) -> Self {
        let (mean, count) = match self {
            Self::Whole { sum, count } => {
                let next = sum.plus(value);
                if next.sum.is_finite() || next.sum.is_nan() {
                    return Self::Whole { sum: next, count: count + 1.0 };
                }
                (Sum { sum: sum.sum / count, lost: sum.lost / count }, count + 1.0)
            }
            Self::Moving { mean, count } => (mean, count + 1.0),
        };
        let share = (count - 1.0) / count;
        let mean = Sum { sum: share * mean.sum, lost: share * mean.lost }.plus(value / count);
        Self::Moving { mean, count }
    }

    #[must_use]
    pub fn value(self) -> f64 {
        match self {
            Self::Whole { sum, count } => sum.sum / count + sum.lost / count,
            Self::Moving { mean, .. } => mean.total(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_terms_survive_large_ones() {
        let sum = [1.0, 1e100, 1.0, -1e100].into_iter().fold(Sum::default(), Sum::plus);
        assert_eq!(sum.total(), 2.0);
        let infinite = [f64::INFINITY, 1.0].into_iter().fold(Sum::default(), Sum::plus);
        assert_eq!(infinite.total(), f64::INFINITY);
    }

    #[test]
    fn a_mean_of_huge_values_is_finite() {
        let mean = Mean::of(f64::MAX).with(f64::MAX).with(f64::MAX);
        assert!((mean.value() / f64::MAX - 1.0).abs() < 1e-15);
        assert_eq!(Mean::of(1.0).with(2.0).value(), 1.5);
        assert_eq!(Mean::of(f64::INFINITY).with(1.0).value(), f64::INFINITY);
        assert!(Mean::of(f64::INFINITY).with(f64::NEG_INFINITY).value().is_nan());
    }
}
