//! Numbers that look random and follow from a seed. SplitMix64 (Steele, Lea, Flood 2014): eight bytes of state, any
//! seed is a good one, and no dependency whose next version would change every trace.

#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low + 1)
    }

    pub fn percent(&mut self, chance: u64) -> bool {
        self.next() % 100 < chance
    }

    pub fn per_mille(&mut self, chance: u64) -> bool {
        self.next() % 1000 < chance
    }

    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.next() % (len.max(1) as u64)).unwrap_or(0)
    }

    /// From 0 up to 1, without it.
    pub fn unit(&mut self) -> f64 {
        // 53 bits: as many as a double holds.
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// How many of `trials` succeed, each with this probability. Exact: from one success to the next, by the length of
    /// the run of failures in between, so that rare events cost what they are rather than what they are looked for in.
    pub fn binomial(&mut self, trials: u64, probability: f64) -> u64 {
        if probability <= 0.0 || trials == 0 {
            return 0;
        }
        if probability > 0.5 {
            return trials - self.binomial(trials, 1.0 - probability);
        }
        let log_failure = (1.0 - probability).ln();
        let (mut left, mut successes) = (trials as f64, 0);
        loop {
            // ln(1 − u): u is never 1.
            left -= ((1.0 - self.unit()).ln() / log_failure).floor() + 1.0;
            if left < 0.0 {
                return successes;
            }
            successes += 1;
        }
    }

    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        if items.is_empty() { None } else { items.get(self.index(items.len())) }
    }
}

#[cfg(test)]
mod tests {
    use super::Rng;

    #[test]
    fn binomial_numbers_have_their_mean_and_their_spread() {
        let mut rng = Rng::new(1);
        for (trials, probability) in [(10, 0.5), (1_000, 0.001), (1_000, 0.9), (40, 0.05)] {
            let drawn: Vec<f64> = (0..20_000).map(|_| rng.binomial(trials, probability) as f64).collect();
            let mean = drawn.iter().sum::<f64>() / 20_000.0;
            let spread = drawn.iter().map(|n| (n - mean).powi(2)).sum::<f64>() / 20_000.0;
            let (expected, variance) =
                (trials as f64 * probability, trials as f64 * probability * (1.0 - probability));
            assert!((mean - expected).abs() < 0.05 * expected.max(1.0), "{mean} {expected}");
            assert!((spread - variance).abs() < 0.08 * variance.max(1.0), "{spread} {variance}");
        }
        assert_eq!((rng.binomial(0, 0.5), rng.binomial(9, 0.0), rng.binomial(9, 1.0)), (0, 0, 9));
    }

    #[test]
    fn the_first_numbers_are_those_of_the_published_algorithm() {
        let mut rng = Rng::new(1_234_567);
        assert_eq!(rng.next(), 6_457_827_717_110_365_317);
        assert_eq!(rng.next(), 3_203_168_211_198_807_973);
    }
}
