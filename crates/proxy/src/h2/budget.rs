use std::cell::Cell;
use std::time::Instant;

/// What a client may do besides sending requests and bodies, in units of one small frame that needs no answer.
///
/// Each such frame costs the sender nine bytes and us some work: floods of them were a row of attacks in 2019
/// (CVE-2019-9512, -9513, -9515, -9518) and 2023 (rapid reset, CVE-2023-44487). A reserve covers what a page of a hundred
/// resources does at once when it is left; what we answer and send earns more, so that whoever works may also cancel,
/// open windows and measure; and time earns a little.
#[derive(Debug)]
pub(super) struct Budget {
    left: Cell<u32>,
    refilled: Cell<Instant>,
}

/// Reserve: 200 cancelled streams or pings at once.
pub(super) const RESERVE: u32 = 4_000;

/// Per second: 20 cancelled streams or pings.
const PER_SECOND: u32 = 400;

/// For a frame that is merely read: window updates, priorities, empty data, unknown types.
pub(super) const SMALL: u32 = 1;

/// For a frame that makes us answer or throw work away: settings, pings, resets.
pub(super) const LARGE: u32 = 20;

/// For an answer, and for each piece of a body sent. One ping or reset for each is what clients that measure their
/// bandwidth, or ask twice and take the faster, come to.
pub(super) const EARNED: u32 = 20;

/// The reserve is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Exhausted;

impl Budget {
    pub(super) fn new() -> Self {
        Self { left: Cell::new(RESERVE), refilled: Cell::new(Instant::now()) }
    }

    pub(super) fn spend(&self, cost: u32) -> Result<(), Exhausted> {
        if self.left.get() < cost {
            // The clock is asked only when it matters.
            let passed = self.refilled.replace(Instant::now()).elapsed().as_millis();
            self.earn(u32::try_from(passed * u128::from(PER_SECOND) / 1_000).unwrap_or(RESERVE));
        }
        let left = self.left.get().checked_sub(cost).ok_or(Exhausted)?;
        self.left.set(left);
        Ok(())
    }

    pub(super) fn earn(&self, earned: u32) {
        self.left.set(self.left.get().saturating_add(earned).min(RESERVE));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_reserve_is_spent_earned_and_refilled() {
        let budget = Budget::new();
        for _ in 0..RESERVE / LARGE {
            budget.spend(LARGE).unwrap();
        }
        budget.refilled.set(Instant::now());
        assert_eq!(budget.spend(LARGE), Err(Exhausted));
        budget.earn(EARNED);
        budget.spend(LARGE).unwrap();
        budget.refilled.set(Instant::now().checked_sub(Duration::from_secs(1)).unwrap());
        for _ in 0..PER_SECOND / LARGE {
            budget.spend(LARGE).unwrap();
        }
        budget.earn(u32::MAX);
        assert_eq!(budget.left.get(), RESERVE, "nobody saves up for a flood");
    }
}
